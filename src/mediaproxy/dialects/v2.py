"""MediaProxy 2.x and later: the blocks that the ``mediaproxy`` modules of Kamailio and OpenSIPS write.

    update CRLF            remove CRLF
    type: request CRLF     call_id: … CRLF
    call_id: … CRLF        from_tag: … CRLF
    …                      to_tag: … CRLF
    CRLF                   CRLF

Connections stay; answers come in the order of the requests: the relay's address and a port per stream, ``removed``, or
``error``. The original also says ``None``, which its modules write into SDP; here it is ``error``.

The protocol tells no method and no status: a reply has a To tag if it is final. Provisional ones have none, so they are
told apart by the phone that they come from.
"""

from collections.abc import Mapping

import msgspec

from mediaproxy.control import (
    ConfirmRequest,
    ControlError,
    Direction,
    EndCause,
    EndRequest,
    MediaReply,
    MediaRequest,
    Party,
    PhoneAddress,
    QueryRequest,
    Stream,
    Wishes,
)
from mediaproxy.dialects.dialect import ErrorAnswer, Peer, Steps
from mediaproxy.dialects.framing import BlockFramer
from mediaproxy.dialects.plain import at_phone, digest, party, phone_at, port_words, stream, version
from mediaproxy.endpoint import address_text
from mediaproxy.events import reports_of

WORDS = frozenset((b"update", b"remove"))
"With which a block begins."

_ERROR = ErrorAnswer(b"error\r\n")
_NEEDED = {"update": ("type", "call_id", "cseq", "from_tag"), "remove": ("call_id", "from_tag")}
"Headers without which nothing can be done. The original wants from_uri, to_uri and user_agent as well."
UNKNOWN = 481
"Status of a reply: there is no such call, or no such party in it."
_HIGHEST = 2**31 - 1
_EARLY, _OK = 183, 200
_BLANK = " \t"
_DIRECTIONS = {str(direction): direction for direction in Direction}


class MediaProxy2:
    """The dialect."""

    name = "mediaproxy2"

    def framer(self, transport: str) -> BlockFramer:
        """Blocks, as many as come."""
        return BlockFramer()

    def cookie(self, request: bytes) -> bytes | None:
        """There are no datagrams."""
        return None

    def answer(self, request: bytes, peer: Peer) -> Steps:
        """Answer one block."""
        command, headers = read(request)
        needed = _NEEDED.get(command)
        if headers is None or needed is None or any(name not in headers for name in needed):
            return _ERROR
        if command == "remove":
            return (yield from _remove(headers))
        cseq = _number(headers["cseq"])
        if cseq is None or headers["type"] not in ("request", "reply"):
            return _ERROR
        if "media" not in headers:
            return (yield from _confirm(headers, cseq))
        return (yield from _media(headers, cseq))


def read(block: bytes) -> tuple[str, dict[str, str] | None]:
    """The command and the headers of a block; None if a line is no header. An empty header is as good as none. A line
    that begins with white space goes on with the one before: modules write what phones have folded as it came."""
    lines: list[str] = []
    for line in block.decode("latin-1").split("\n"):
        line = line.removesuffix("\r")
        if line[:1] in (" ", "\t") and lines:
            lines[-1] = f"{lines[-1]} {line.strip(_BLANK)}"
        else:
            lines.append(line)
    headers: dict[str, str] = {}
    for line in lines[1:]:
        if not line:
            continue
        name, separator, value = line.partition(": ")
        if not separator:
            return lines[0], None
        if value := value.strip(_BLANK):
            headers[name] = value
    return lines[0].strip(_BLANK), headers


def _number(text: str) -> int | None:
    usable = text.isascii() and text.isdigit() and len(text) <= 10
    return int(text) if usable and int(text) <= _HIGHEST else None


# -- update


def _media(headers: Mapping[str, str], cseq: int) -> Steps:
    """``update`` with media: an SDP, in whatever message it came."""
    phone, username = signalling(headers.get("signaling_ip", ""))
    told = media(headers["media"])
    if told is None:
        return _ERROR
    found = [stream(one.kind, one.address, one.port, phone, one.direction, one.ice) for one in told]
    streams = tuple(one for one in found if one is not None)
    if len(streams) != len(told):
        return _ERROR
    question = _question(headers, cseq, phone, streams, username)
    reply: MediaReply | None = yield question
    if reply is not None and (other := at_phone(question, reply)) is not None:
        reply = yield other
    if reply is None or reply.error:
        return _ERROR
    words = port_words(streams, reply, [(one.address, one.port) for one in told])
    return _ERROR if words is None else f"{' '.join(words)}\r\n".encode("latin-1")


def _question(
    headers: Mapping[str, str], cseq: int, phone: PhoneAddress, streams: tuple[Stream, ...], username: str
) -> MediaRequest:
    sender, receiver = _parties(headers)
    return MediaRequest(
        call_id=headers["call_id"],
        sender=sender,
        receiver=receiver,
        cseq=cseq,
        sdp_hash=digest(headers["media"]),
        method="",
        status=_status(headers),
        branch=_branch(headers),
        phone=phone,
        user_agent=_agent(headers),
        streams=streams,
        receiver_version=version(streams),
        dialog_id=headers.get("dialog_id", ""),
        relay_wish=headers.get("media_relay", ""),
        wishes=Wishes(label=username) if username else None,
    )


def _confirm(headers: Mapping[str, str], cseq: int) -> Steps:
    """``update`` without media: a 2xx to INVITE without SDP, which the modules report so that the answer is known. They
    have no SDP to write the ports into that the original answers all the same."""
    if not headers.get("to_tag"):
        return _ERROR
    call_id, (sender, receiver) = headers["call_id"], _parties(headers)
    reply: MediaReply | None = yield ConfirmRequest(
        call_id=call_id,
        sender=sender,
        receiver=receiver,
        cseq=cseq,
        status=_status(headers),
        branch=_branch(headers),
    )
    if reply is None or reply.error:
        return _ERROR
    reply = yield QueryRequest(call_id=call_id)
    words = [] if reply is None else _standing(reply, receiver.tag, {sender.tag, receiver.tag, ""})
    return f"{' '.join(words or ['0.0.0.0'])}\r\n".encode("latin-1")


def _standing(reply: MediaReply, tag: str, tags: set[str]) -> list[str]:
    """The words for the ports that the party with that tag was told; none if that cannot be found out."""
    try:
        reports = reports_of(reply)
    except ControlError:
        return []
    report = next((one for one in reports if one.caller.tag in tags), None)
    if report is None:
        return []
    streams = [one for one in report.streams if one.leg in tags]
    sides = [one.caller if report.caller.tag == tag else one.callee for one in streams]
    return [sides[0].advertised.address, *(str(side.advertised.port) for side in sides)] if sides else []


def _parties(headers: Mapping[str, str]) -> tuple[Party, Party]:
    """Sender and receiver: From and To of a request, To and From of a reply."""
    from_ = party(headers["from_tag"], headers.get("from_uri", ""))
    to = party(headers.get("to_tag", ""), headers.get("to_uri", ""))
    return (from_, to) if headers["type"] == "request" else (to, from_)


def _status(headers: Mapping[str, str]) -> int:
    if headers["type"] == "request":
        return 0
    return _OK if headers.get("to_tag") else _EARLY


def _branch(headers: Mapping[str, str]) -> str:
    """Stands for the Via branch of a reply, which is not told: the phones of a fork differ in address or make."""
    if headers["type"] == "request":
        return ""
    return digest(headers.get("signaling_ip", ""), headers.get("user_agent", ""))


def _agent(headers: Mapping[str, str]) -> str:
    agent = headers.get("user_agent", "")
    return "" if agent == "unknown agent" else agent


# -- what stands in headers


class Told(msgspec.Struct, frozen=True):
    """One stream as the media header has it."""

    kind: str
    address: str
    port: str
    direction: Direction
    ice: bool


def media(text: str) -> list[Told] | None:
    """The streams of a media header, ``TYPE:ADDRESS:PORT:DIRECTION[:ice=yes|no][:NAME=VALUE…]`` with commas between
    them; None if one cannot be read. Read from the right, so that an IPv6 address may have its colons."""
    streams = [_told(item.split(":")) for item in text.split(",") if item]
    found = [one for one in streams if one is not None]
    return found if found and len(found) == len(streams) else None


def _told(parts: list[str]) -> Told | None:
    extras: dict[str, str] = {}
    while parts and "=" in parts[-1]:
        name, _, value = parts.pop().partition("=")
        extras[name.strip().lower()] = value.strip().lower()
    if len(parts) < 4 or parts[-1].strip().lower() not in _DIRECTIONS:
        return None
    kind, *address, port, direction = (part.strip() for part in parts)
    host = ":".join(address)
    if not kind or not host:
        return None
    return Told(kind, host, port, _DIRECTIONS[direction.lower()], extras.get("ice") == "yes")


class _Signalling(msgspec.Struct):
    """The JSON form of signaling_ip."""

    signaling_ip: str = ""
    destination_ip: str = ""
    username: str = ""


_json = msgspec.json.Decoder(_Signalling)


def signalling(text: str) -> tuple[PhoneAddress, str]:
    """Where the phone is, and the user's name for accounting. The header is an address, ``SOURCE_DESTINATION``, or a
    JSON object with ``signaling_ip``, ``destination_ip`` and ``username``. Where the message goes to is not used: the
    original chooses a network interface by it, and here addresses are configured."""
    username = ""
    if text.startswith("{"):
        try:
            told = _json.decode(text.encode("latin-1"))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return phone_at(""), ""
        text, username = told.signaling_ip, told.username.encode("utf-8", "replace").decode("latin-1")
    return phone_at(address_text(text) or text.partition("_")[0]), username


# -- remove


def _remove(headers: Mapping[str, str]) -> Steps:
    """``remove``: the call, or that dialog of it, is over. Modules that watch dialogs name the callee who rang first,
    whose tag nobody has told if another one answered: then all of the call is meant, as it always is in the original,
    which goes by the caller's tag."""
    question = EndRequest(
        call_id=headers["call_id"],
        sender=Party(tag=headers["from_tag"]),
        receiver=Party(tag=headers.get("to_tag", "")),
        cause=EndCause.DELETE,
    )
    reply: MediaReply | None = yield question
    if reply is not None and reply.status == UNKNOWN:
        reply = yield msgspec.structs.replace(question, whole=True)
    return _ERROR if reply is None or reply.error else b"removed\r\n"
