"""U and L: an SDP stream is offered or answered, and gets a port.

    U[modifiers] CALLID ADDRESS PORT FROM-TAG [TO-TAG] [SOCKET TAG]
    L[modifiers] CALLID ADDRESS PORT FROM-TAG [TO-TAG]

A command comes in, one question goes out for it, and its reply becomes ``PORT ADDRESS``. The first tag is that of who
offers, in both. Address and port are those of who offers in U, of who answers in L. Where they come from, the source of
the SIP message or its SDP, is not told, nor are media type, direction and CSeq: ``Stream.told`` is false, the relay
numbers questions itself, and a 183 counts like a 200, as both are an L.
"""

from dataclasses import dataclass
from hashlib import blake2b

from mediaproxy.control import (
    KnownBy,
    MediaPort,
    MediaReply,
    MediaRequest,
    Party,
    PayloadType,
    PhoneAddress,
    Stream,
    Wishes,
)
from mediaproxy.dialects.dialect import Peer, Steps
from mediaproxy.dialects.rtpproxy import names
from mediaproxy.dialects.rtpproxy.addresses import Addresses, Choice
from mediaproxy.dialects.rtpproxy.command import Command
from mediaproxy.dialects.rtpproxy.errors import Code, Refusal
from mediaproxy.dialects.rtpproxy.modifiers import Modifiers, read
from mediaproxy.dialects.rtpproxy.sockets import DEFAULT, Patterns
from mediaproxy.endpoint import Endpoint, Scope, address_text, scope
from mediaproxy.sdp.payloads import STATIC

_FIRST_VIDEO = 25
"RFC 3551 §6: static payload types below are audio."


@dataclass(slots=True)
class _Asked:
    """A U or L that can be read."""

    call_id: str
    place: Endpoint
    "Port 0: the stream is switched off."
    first: str
    second: str
    part: int
    modifiers: Modifiers
    facing: Choice
    "The relay's address that faces who offers."
    towards: Choice
    "That which faces the other party."
    notify: str = names.SCHEME


def update(command: Command, peer: Peer, addresses: Addresses, sockets: Patterns = DEFAULT) -> Steps:
    """U."""
    asked = _read(command, peer, addresses, sockets)
    party, other = Party(tag=asked.first), Party(tag=asked.second)
    reply = yield _question(asked, party, other, 0)
    port = _port(reply)
    if port is not None:
        return _words(port.rtp)
    if reply is None or reply.status >= 500:
        raise Refusal(Code.OVERLOAD)
    if not reply.error and asked.place.port:
        return _words(asked.place)  # the relay's own port: it stays as it is
    raise Refusal(Code.ADDRESS_FAMILY if "address" in reply.error else Code.NO_PORT)


def lookup(command: Command, peer: Peer, addresses: Addresses, sockets: Patterns = DEFAULT) -> Steps:
    """L. 0 is the answer if nobody has offered such a stream."""
    asked = _read(command, peer, addresses, sockets)
    party, other = Party(tag=asked.second), Party(tag=asked.first)
    reply = yield _question(asked, party, other, 200)
    port = _port(reply)
    if port is not None:
        return _words(port.rtp)
    if reply is None or reply.status >= 500:
        raise Refusal(Code.OVERLOAD)
    return b"0"


# -- in


def _read(command: Command, peer: Peer, addresses: Addresses, sockets: Patterns) -> _Asked:
    call_id, address, port, first = command.arguments[:4]
    second, socket, tag = _further(command.arguments[4:])
    notify = names.notice(socket, tag, peer.address.rpartition(":")[0], sockets)
    if notify is None:
        raise Refusal(Code.NOTIFY_TAG)
    modifiers = read(command.modifiers)
    facing, towards = _sides(modifiers, addresses)
    one, other, part = names.parties(first, second)
    return _Asked(call_id, _place(address, port), one, other, part, modifiers, facing, towards, notify)


def _sides(modifiers: Modifiers, addresses: Addresses) -> tuple[Choice, Choice]:
    """Which addresses of the relay the two parties get."""
    if modifiers.local:
        local = addresses.local(modifiers.local)
        if local is None:
            raise Refusal(Code.LOCAL_ADDRESS)
        return local, local
    sides = [(letter, addresses.side(letter)) for letter in modifiers.sides]
    missing = next((letter for letter, side in sides if side is None), None)
    if missing is not None:
        raise Refusal(Code.EXTERNAL if missing == "e" else Code.INTERNAL)
    if not sides:
        return Choice(), Choice()
    other = addresses.side("i") or Choice()  # one letter alone means "and the internal one"
    facing, towards = [*(side for _, side in sides if side is not None), other][:2]
    return facing, towards


def _further(words: tuple[str, ...]) -> tuple[str, str, str]:
    """To tag, timeout socket, and the tag that it is to be told.

    A socket without its tag, or with the tag behind a semicolon, is what Kamailio's modules send; the original takes
    the first for a To tag and the second for a socket. Without a tag the Call-ID could not be told either.
    """
    match words:
        case (tag, socket, told):
            return tag, socket, told
        case (socket, told) if names.is_socket(socket):
            return "", socket, told
        case (tag, socket):
            return tag, *_parted(socket)
        case (socket,) if names.is_socket(socket):
            return "", *_parted(socket)
        case (tag,):
            return tag, "", ""
    return "", "", ""


def _parted(word: str) -> tuple[str, str]:
    socket, _, tag = word.partition(";")
    return socket, tag


def _place(address: str, port: str) -> Endpoint:
    known = address_text(address)
    if known is None or not port.isascii() or not port.isdigit() or len(port) > 5 or int(port) > 65535:
        raise Refusal(Code.MEDIA_ADDRESS)
    return Endpoint(known, int(port))


# -- the question


def _question(asked: _Asked, sender: Party, receiver: Party, status: int) -> MediaRequest:
    place, modifiers = asked.place, asked.modifiers
    known = scope(place.address) is not Scope.UNSPECIFIED
    return MediaRequest(
        call_id=asked.call_id,
        sender=sender,
        receiver=receiver,
        cseq=-1,
        sdp_hash=_digest(asked),
        status=status,
        phone=(
            PhoneAddress(endpoint=Endpoint(place.address, 0), known_by=KnownBy.EXPLICIT)
            if known
            else PhoneAddress(known_by=KnownBy.UNKNOWN)
        ),
        asymmetric=modifiers.asymmetric,
        streams=(_stream(place, modifiers),),
        part=asked.part,
        receiver_version=asked.towards.version or _version(modifiers),
        notify=asked.notify if status == 0 else "",
        weak=modifiers.weak,
        wishes=_wishes(asked) if status == 0 else None,
    )


def _digest(asked: _Asked) -> str:
    """By what the stream is known again."""
    modifiers = asked.modifiers
    said = (asked.part, asked.place, modifiers)
    return blake2b(repr(said).encode("latin-1", "replace"), digest_size=12).hexdigest()


def _stream(place: Endpoint, modifiers: Modifiers) -> Stream:
    """RTP, if payload types are told: servers tell those of every RTP stream. Else anything: T.38, MSRP, or RTP (with
    RTCP) of a server that tells none."""
    types = tuple(STATIC.get(number) or PayloadType(number=number) for number in modifiers.codecs or ())
    return Stream(
        kind=_kind(types),
        transport="RTP/AVP" if types else "udp",
        endpoint=place if place.port else None,
        rtcp=place.with_port(place.port + 1) if not types and 0 < place.port < 65535 else None,
        payload_types=types,
        told=False,
    )


def _kind(types: tuple[PayloadType, ...]) -> str:
    """The media type, as far as a static payload type tells it."""
    static = next((one.number for one in types if one.number in STATIC), None)
    if static is None:
        return "media"
    return "audio" if static < _FIRST_VIDEO else "video"


def _version(modifiers: Modifiers) -> int:
    """IP version for the other party; 0: as this one's. The sides' addresses say it themselves."""
    if modifiers.sides:
        return 0
    if modifiers.remote:
        return 6 if ":" in modifiers.remote else 4
    return 6 if modifiers.ipv6 else 0


def _wishes(asked: _Asked) -> Wishes | None:
    """Which addresses of the relay the two parties get: a session has them from its first U, whatever comes later. And
    whether it gets other ports; the party that answers is told its own with L."""
    wishes = Wishes(facing=asked.facing.name, towards=asked.towards.name, new_ports=asked.modifiers.new_port)
    return None if wishes == Wishes() else wishes


# -- out


def _port(reply: MediaReply | None) -> MediaPort | None:
    return reply.ports[0] if reply is not None and not reply.error and reply.ports else None


def _words(place: Endpoint) -> bytes:
    """Port and address; a 6 says that it is an IPv6 address."""
    return f"{place.port} {place.address}{' 6' if place.version == 6 else ''}".encode("latin-1")
