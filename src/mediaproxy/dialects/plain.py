"""What MediaProxy 1.x and 2.x have in common: streams without SDP, one relay address for all of them, ports in words.

What these protocols do not say is chosen so that nothing is lost: DTLS and any payload type pass, RTCP is one port up.
Their modules put the relay's address into SDP without touching ``IP4`` or ``IP6`` before it, so ports of the same IP
version are asked for.
"""

import hashlib
from collections.abc import Iterable, Sequence

from msgspec.structs import replace

from mediaproxy.control import Direction, KnownBy, MediaReply, MediaRequest, Party, PhoneAddress, Stream
from mediaproxy.endpoint import Endpoint, address_text
from mediaproxy.policy import domain_of

_RTP_KINDS = frozenset(("audio", "video", "text"))
"Media types that travel in RTP, if the protocol does not say how they do."
NO_PORTS = 480
"Status of a reply: the relay has no ports, or none of the IP version that is needed."
_SCHEMES = ("sip:", "sips:", "tel:")


def stream(
    kind: str,
    address: str,
    port: str,
    phone: PhoneAddress,
    direction: Direction = Direction.SENDRECV,
    ice: bool = False,
) -> Stream | None:
    """One stream as a module names it; None if its port is no number. ``address``: as in the c= line, with or without
    ``/ttl``; a host name means the phone itself, whose address ``phone`` tells."""
    number = port.partition("/")[0]
    if not number.isascii() or not number.isdigit() or len(number) > 5 or int(number) > 65535:
        return None
    rtp = kind.lower() in _RTP_KINDS
    transport = "RTP/AVP" if rtp else "udptl" if kind.lower() == "image" else "udp"
    return Stream(
        kind=kind,
        transport=transport,
        endpoint=_place(address, int(number), phone),
        direction=direction,
        ice=ice,
        dtls=True,
    )


def _place(address: str, port: int, phone: PhoneAddress) -> Endpoint | None:
    if not port:
        return None
    known = address_text(address.partition("/")[0])
    if known is None:
        return None if phone.endpoint is None else Endpoint(phone.endpoint.address, port)
    return Endpoint(known, port)


def version(streams: Iterable[Stream]) -> int:
    """IP version of the addresses that the answer will replace: of the first stream that has one; 0: none has."""
    return next((one.endpoint.version for one in streams if one.endpoint is not None), 0)


def phone_at(address: str) -> PhoneAddress:
    """A phone whose signalling address the SIP server tells."""
    known = address_text(address)
    if known is None:
        return PhoneAddress(known_by=KnownBy.UNKNOWN)
    return PhoneAddress(endpoint=Endpoint(known, 0), known_by=KnownBy.EXPLICIT)


def at_phone(question: MediaRequest, reply: MediaReply) -> MediaRequest | None:
    """What to ask if no relay has an address of the IP version that the SDP has, but one that the phone signals by:
    the same, as if the phone wanted its media there. None: that is not so."""
    place = question.phone.endpoint
    if reply.status != NO_PORTS or place is None or question.receiver_version in (0, place.version):
        return None
    streams = tuple(
        one if one.endpoint is None else replace(one, endpoint=Endpoint(place.address, one.endpoint.port))
        for one in question.streams
    )
    return replace(question, streams=streams, receiver_version=place.version)


def digest(*texts: str) -> str:
    """By what an SDP is known again."""
    return hashlib.blake2b("\0".join(texts).encode("latin-1"), digest_size=12).hexdigest()


def uri_of(text: str) -> str:
    """The URI that a module has told without its ``sip:``; empty if it knows none."""
    if not text or text == "unknown":
        return ""
    return text if text.lower().startswith(_SCHEMES) else f"sip:{text}"


def party(tag: str, address: str) -> Party:
    """One side of a dialog, by its tag and its URI without ``sip:``."""
    return Party(tag=tag, uri=uri_of(address), domain=_domain(address))


def _domain(address: str) -> str:
    """Host of a URI without ``sip:``."""
    if address.lower().startswith("tel:") or address == "unknown":
        return ""
    host = address.rpartition("@")[2].partition("?")[0]
    if host.lower().startswith(_SCHEMES):
        host = host.partition(":")[2]
    return domain_of(host.partition("]")[0][1:] if host.startswith("[") else host.partition(":")[0])


def port_words(streams: Sequence[Stream], reply: MediaReply, told: Sequence[tuple[str, str]]) -> list[str] | None:
    """The words of an answer: the relay's address, then a port per stream; None if the media arm gave another number
    of ports. ``told``: address and port of each stream in the words of the request.

    0 stands for a stream that is dead; if all of a call are, the address is still the relay's. What the media arm
    leaves alone, because it names the relay already (a spiral), is answered as it was asked, so that the module changes
    nothing.
    """
    ports = reply.ports
    if len(ports) != len(streams):
        return None
    relay = next((port.rtp.address for port in ports if port is not None), None)
    if relay is None and reply.address and not any(one.endpoint for one in streams):
        relay = reply.address
    if relay is None:
        place = next((i for i, one in enumerate(streams) if one.endpoint is not None), 0)
        relay = told[place][0] if told else ""
    words = [relay]
    for one, port, (address, number) in zip(streams, ports, told, strict=True):
        if port is not None:
            words.append(str(port.rtp.port) if port.rtp.address == relay else "0")
        else:
            words.append(number if one.endpoint is not None and address == relay else "0")
    return words
