"""MediaProxy 1.x: the lines that OpenSER's module writes to the proxy dispatcher, and those of its proxy server.

    request CALLID IP:PORT:TYPE,… CLIENT-IP FROM-DOMAIN FROM-TYPE TO-DOMAIN TO-TYPE AGENT info=from:…,fromtag:…,…
    lookup …the same, of a reply…
    delete CALLID info=
    status, version, build, controls, quit, exit

One line per connection. The answer to ``request`` and ``lookup`` is the relay's address and a port per stream; whatever
goes wrong is told by closing the connection without a word, which is the only error that the module understands.

The protocol has no CSeq and does not say which response a ``lookup`` is about: it counts as an answer, and a question
is a repeated one as long as its sender has not asked anything else meanwhile.
"""

import re
from collections.abc import Mapping

import msgspec

from mediaproxy import __version__
from mediaproxy.control import EndCause, EndRequest, MediaReply, MediaRequest, Party, PhoneAddress, Stream
from mediaproxy.dialects.dialect import DialectError, ErrorAnswer, Peer, Steps
from mediaproxy.dialects.framing import LineFramer
from mediaproxy.dialects.plain import at_phone, digest, party, phone_at, port_words, stream, version
from mediaproxy.dialects.v1status import status

WORDS = frozenset((b"request", b"lookup", b"delete", b"status", b"version", b"build", b"controls", b"quit", b"exit"))
"With which a line of this dialect begins."

_FIELDS = 10
"Of request and lookup, info included; it may be missing (2004)."
_MOST = 63
"Ports that a module takes from an answer: it reads 64 words. A request with more streams has failed whatever comes."
_TYPES = {"local": True, "remote": False}
_ITEMS = re.compile(r",(?=(?:from|to|fromtag|totag|domain):|asymmetric(?:,|$))")
"Between two items of info. Any other comma belongs to a URI or a tag: nothing is escaped."
UNKNOWN_CALL = 481
"Status of a reply."
_FAILED = ErrorAnswer(b"")
_NO_CALLER, _NO_CALLEE = "<caller>", "<callee>"
"Stand for tags of phones that have none (RFC 2543), which no tag can look like."


class MediaProxy1:
    """The dialect."""

    name = "mediaproxy1"

    def framer(self, transport: str) -> LineFramer:
        """One line per connection."""
        return LineFramer(single=True)

    def cookie(self, request: bytes) -> bytes | None:
        """There are no datagrams."""
        return None

    def answer(self, request: bytes, peer: Peer) -> Steps:
        """Answer one line."""
        fields = [field.decode("latin-1") for field in request.split(None, _FIELDS - 1)]
        match fields[0] if fields else "":
            case "request" | "lookup":
                return (yield from _media(fields))
            case "delete":
                return (yield from _delete(fields))
            case "status":
                return (yield from status(peer.now))
            case "version" | "build":
                return f"Version: {__version__}\n".encode()
            case "controls":
                return f"{peer.address or 'local'}\nEnd.\n".encode()
            case "quit" | "exit":
                return b""
        raise DialectError(f"expected request, lookup, delete or another word of MediaProxy 1.x, got {request[:80]!r}")


def _media(fields: list[str]) -> Steps:
    """``request`` or ``lookup``."""
    if len(fields) == _FIELDS - 1 and fields[-1].startswith(("info=from:", "info=to:", "info=fromtag:", "info=totag:")):
        fields = [*fields[:-1], "", fields[-1]]  # the phone has sent an empty User-Agent, which leaves two spaces
    if len(fields) < _FIELDS - 1:
        raise DialectError(f"{fields[0]}: expected {_FIELDS} fields, got {len(fields)}")
    phone = phone_at(fields[3])
    told = [_item(item) for item in fields[2].split(",")]
    if fields[0] == "request" and len(told) > _MOST:
        return _FAILED
    streams = tuple(_stream(item, phone) for item in told)
    question = _question(fields, _info(fields[_FIELDS - 1 :]), phone, streams)
    reply = yield question
    if reply is not None and reply.status == UNKNOWN_CALL and question.status:
        question = msgspec.structs.replace(question, cseq=0)  # no answer then, but the offer to an INVITE without SDP
        reply = yield question
    if reply is not None and (other := at_phone(question, reply)) is not None:
        reply = yield other
    words = None if reply is None or reply.error else port_words(streams, reply, [one[:2] for one in told])
    if words is None or not words[0]:  # without an address the module would write a port in its place
        return _FAILED
    return (" ".join(words) + "\n").encode("latin-1")


def _question(
    fields: list[str], info: Mapping[str, str], phone: PhoneAddress, streams: tuple[Stream, ...]
) -> MediaRequest:
    word, call_id, media, _, from_domain, from_type, to_domain, to_type, agent = fields[: _FIELDS - 1]
    reply = word == "lookup"
    caller = _party(info.get("fromtag") or _NO_CALLER, info.get("from", ""), from_domain, from_type)
    totag = info.get("totag", "") or (_NO_CALLEE if reply else "")
    callee = _party(totag, info.get("to", ""), to_domain, to_type)
    if domain := info.get("domain", ""):  # asked for by the script, whatever the parties' domains are
        caller, callee = (msgspec.structs.replace(one, domain=domain.lower(), local=True) for one in (caller, callee))
    named = unquoted(agent)
    return MediaRequest(
        call_id=call_id,
        sender=callee if reply else caller,
        receiver=caller if reply else callee,
        cseq=-1,
        # Where the phone is counts: a phone that has moved may send the same SDP.
        sdp_hash=digest(media, phone.endpoint.address if phone.endpoint else "", str("asymmetric" in info)),
        method="INVITE" if reply else "",
        status=200 if reply else 0,
        phone=phone,
        user_agent="" if named == "unknown-agent" else named,
        asymmetric="asymmetric" in info,
        streams=streams,
        receiver_version=version(streams),
    )


def _party(tag: str, uri: str, domain: str, kind: str) -> Party:
    named = party(tag, uri)
    host = "" if domain == "unknown" else domain.lower().rstrip(".")
    return msgspec.structs.replace(named, domain=host or named.domain, local=_TYPES.get(kind))


def _item(text: str) -> tuple[str, str, str]:
    """Address, port and media type of a stream, read from the right: an IPv6 address has colons, too. The type may be
    missing (2004)."""
    rest, _, last = text.rpartition(":")
    if last[:1].isdigit() and rest:
        return rest, last, "audio"
    address, _, port = rest.rpartition(":")
    return address, port, last


def _stream(item: tuple[str, str, str], phone: PhoneAddress) -> Stream:
    """A stream that cannot be read is dead: the module leaves it alone if it is answered 0."""
    address, port, kind = item
    read = stream(kind, address, port, phone)
    return Stream(kind=kind, transport="RTP/AVP") if read is None else msgspec.structs.replace(read, directed=False)


def _info(fields: list[str]) -> dict[str, str]:
    """The items of info. Of one that comes twice, because a URI looks like items, the one that the module wrote counts:
    it writes the URIs first and the tags last."""
    text = fields[0].partition("=")[2] if fields else ""
    info: dict[str, str] = {}
    for item in _ITEMS.split(text):
        name, _, value = item.partition(":")
        if name in ("from", "to"):
            info.setdefault(name, value)
        else:
            info[name] = value
    return info


def unquoted(text: str) -> str:
    """A user agent as it was before ``=XX`` stood for its odd bytes."""
    return re.sub(r"=([0-9A-F]{2})", lambda found: chr(int(found[1], 16)), text)


def _delete(fields: list[str]) -> Steps:
    """Nothing is answered, as the module does not look at it. Tags are not told by the module; who tells them means
    that dialog only."""
    if len(fields) < 2:
        raise DialectError("delete: expected a Call-ID")
    info = _info([" ".join(fields[2:])])
    reply: MediaReply | None = yield EndRequest(
        call_id=fields[1],
        sender=Party(tag=info.get("fromtag", "")),
        receiver=Party(tag=info.get("totag", "")),
        cause=EndCause.DELETE,
    )
    return _FAILED if reply is None or reply.error else b""
