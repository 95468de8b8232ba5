"""SIP messages (RFC 3261 §7): typed reading of the headers that a server looks at, and making new messages.

Bytes of one whole message come in, an immutable Message goes out; ``bytes(parse(x)) == x`` for every x that parses,
and an edit (see lines.py) changes its own span only. Values are read when asked for and once; what a peer wrote wrongly
raises SipError then, naming the header, and nothing else ever.
"""

import re
from collections.abc import Callable, Iterable
from typing import Any, Generic, Self, TypeVar, overload

from mediaproxy.sip.grammar import WS, SipError, canonical, element_spans, number, seconds, unfold
from mediaproxy.sip.header import CSeq, NameAddr, Uri, Via
from mediaproxy.sip.length import goes_on
from mediaproxy.sip.lines import Lines, encode, split
from mediaproxy.sip.reason import REASONS

_T = TypeVar("_T")
_METHOD = re.compile(r"[A-Za-z0-9\-.!%*_+`'~]+")
_USUAL_METHODS = frozenset(("ACK", "BYE", "CANCEL", "INVITE", "OPTIONS", "REGISTER"))
_VERSION = re.compile(r"SIP/[0-9]+\.[0-9]+", re.IGNORECASE)
_STATUS = re.compile(r"(SIP/[0-9]+\.[0-9]+) +([1-6][0-9][0-9])(?: (.*))?", re.IGNORECASE | re.DOTALL)
_LINE_END = re.compile(rb"\r?\n")
_LONGEST = 2**31 - 1
MOST_VALUES = 256
"More values of Via, Contact, Route or Record-Route are refused when they are read: no message needs them."


_READ_FROM: dict[str, list[str]] = {}
"What is read from each header: an edit of the header makes it untrue."


class _Once(Generic[_T]):
    """A value that is read from headers when first asked for and then kept in the message's ``__dict__``, where Python
    finds it before it comes here. A SipError names the header."""

    def __init__(self, headers: tuple[str, ...], read: Callable[[Any], _T]) -> None:
        self._headers = headers
        self._read = read
        self._name = ""
        self.__doc__ = read.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name
        for header in self._headers:
            _READ_FROM.setdefault(header, []).append(name)

    @overload
    def __get__(self, message: None, owner: type) -> Self: ...
    @overload
    def __get__(self, message: "Message", owner: type) -> _T: ...
    def __get__(self, message: "Message | None", owner: type) -> Self | _T:
        if message is None:
            return self
        try:
            value = self._read(message)
        except SipError as error:
            raise SipError(f"{self._headers[0]}: {error}", error.status) from None
        message.__dict__[self._name] = value
        return value


def _once(*headers: str) -> Callable[[Callable[[Any], _T]], _Once[_T]]:
    return lambda read: _Once(headers, read)


class Message(Lines):
    """What requests and responses have in common. Made by ``parse``, ``Request.build`` and ``Response.build``."""

    # No slots here and below: see _Once.

    is_request = False
    version: str
    "``SIP/2.0``, as written."

    def _copy(self, changed: str) -> Self:
        new = super()._copy(changed)
        new.__dict__.update(self.__dict__)
        for name in _READ_FROM.get(changed, ()):
            new.__dict__.pop(name, None)
        return new

    def _mandatory(self, name: str) -> str:
        places = self._index.get(name)
        if not places:
            raise SipError("missing")
        return self._value(places[0]).strip(WS)

    def _few(self, name: str) -> list[str]:
        elements = self.elements(name)
        if len(elements) > MOST_VALUES:
            raise SipError("too many values", 513)
        return elements

    def _addresses(self, name: str) -> tuple[NameAddr, ...]:
        return tuple([NameAddr.parse(element) for element in self._few(name)])

    @_once("call-id")
    def call_id(self) -> str:
        """The Call-ID. SipError if there is none or it is empty."""
        value = unfold(self._mandatory("call-id"))
        if not value:
            raise SipError("empty")
        return value

    @_once("cseq")
    def cseq(self) -> CSeq:
        """The CSeq. SipError if it is missing, broken or too large."""
        return CSeq.parse(self._mandatory("cseq"))

    @_once("from")
    def from_(self) -> NameAddr:
        """The From. SipError if it is missing or broken."""
        return NameAddr.parse(self._mandatory("from"))

    @_once("to")
    def to(self) -> NameAddr:
        """The To. SipError if it is missing or broken."""
        return NameAddr.parse(self._mandatory("to"))

    @_once("via")
    def via(self) -> Via:
        """The topmost Via. SipError if there is none or it is broken."""
        raw = self._mandatory("via")
        spans = element_spans(raw)
        if not spans:
            raise SipError("empty")
        begin, end = spans[0]
        return Via.parse(raw[begin:end])

    @_once("via")
    def vias(self) -> tuple[Via, ...]:
        """All Via values, topmost first. SipError if one is broken."""
        return tuple([Via.parse(text) for text in self._few("via")])

    @_once("contact")
    def contacts(self) -> tuple[NameAddr, ...]:
        """All Contact values in order; their index is that of replace_value(). SipError if one is broken."""
        return self._addresses("contact")

    @_once("route")
    def routes(self) -> tuple[NameAddr, ...]:
        """All Route values, next hop first. SipError if one is broken."""
        return self._addresses("route")

    @_once("record-route")
    def record_routes(self) -> tuple[NameAddr, ...]:
        """All Record-Route values, last proxy first. SipError if one is broken."""
        return self._addresses("record-route")

    @property
    def content_type(self) -> str:
        """Type and subtype of the body in lower case without parameters and spaces; "" if there is none."""
        kind = (self.header("content-type") or "").partition(";")[0]
        return "/".join(part.strip(WS) for part in kind.lower().split("/"))

    @_once("content-length")
    def content_length(self) -> int | None:
        """The declared length of the body in octets; None if missing, unreadable, or given twice and differently."""
        values = self.headers("content-length")
        if len(values) == 1:
            return number(values[0], _LONGEST)
        lengths = {number(value, _LONGEST) for value in values}
        return lengths.pop() if len(lengths) == 1 else None

    @_once("max-forwards")
    def max_forwards(self) -> int | None:
        """0 to 255; None if missing or unreadable."""
        return number(self.header("max-forwards") or "", 255)

    @property
    def expires(self) -> int | None:
        """Expires in seconds, at most 2**32 - 1 (RFC 3261 §20.19); None if missing or unreadable."""
        return seconds(self.header("expires"))

    @_once("user-agent", "server")
    def user_agent(self) -> str:
        """User-Agent, else Server, else ""."""
        return self.header("user-agent") or self.header("server") or ""

    @property
    def body(self) -> bytes:
        """The body as long as Content-Length declares it; all there is if it declares nothing readable, or plainly too
        little (length.py).

        Octets behind it (UDP, RFC 3261 §18.3) stay in ``bytes(message)``; see delimited(). It is shorter than declared
        if the datagram was: check() refuses that.
        """
        octets = self.octets
        length = self.content_length
        if length is None or length >= len(octets) or goes_on(octets, length, self.header("content-type")):
            return octets
        return octets[:length]

    def with_body(self, body: bytes, content_type: str | None = None) -> Self:
        """Another body. Content-Length follows in place (added if missing), and Content-Type if given; octets behind
        the old body are gone."""
        new = self
        if content_type is not None:
            new = new._set("Content-Type", content_type)
        if number(new.header("content-length") or "", _LONGEST) != len(body):
            new = new._set("Content-Length", str(len(body)))
        repeated = new._index["content-length"][1:]
        new = new._delete("content-length", repeated) if repeated else new
        blank, newline, _ = self._tail.partition(b"\n")
        return new._with_tail((blank + newline if newline else self._line_end() + b"\n") + body)

    def _set(self, name: str, text: str) -> Self:
        return self.replace(name, text) if canonical(name) in self._index else self.append(name, text)

    def alone(self) -> Self:
        """The message without what else stood in its datagram: no empty lines before it, no octets behind the declared
        body (RFC 3261 §7.5, §18.3). Unchanged if that is so already; one without Content-Length goes without."""
        start = self._start.lstrip(b"\r\n")
        new = self
        if start != self._start:
            new = self._copy("")
            new._start = start
        return new if new.content_length in (None, len(new.octets)) else new.with_body(new.body)

    def delimited(self) -> Self:
        """The message as it may enter a stream: alone, and with one Content-Length that is right (RFC 3261 §18.3).
        Unchanged if that is so already."""
        new = self.alone()
        if new.content_length is not None and new.complete_head and len(new._index["content-length"]) == 1:
            return new
        return new.with_body(new.body)


class Request(Message):
    """A request."""

    is_request = True

    def __init__(self, start: bytes, fields: tuple[bytes, ...], index: dict[str, list[int]], tail: bytes) -> None:
        super().__init__(start, fields, index, tail)
        method, _, rest = start.decode("latin-1").lstrip("\r\n").rstrip(WS).partition(" ")
        uri, _, version = rest.rpartition(" ")
        self._method = method
        self._uri_text = uri.strip(" \t")
        self.version = version
        if method not in _USUAL_METHODS and not _METHOD.fullmatch(method):
            raise SipError("start line: neither a request nor a response")
        if not self._uri_text or (version != "SIP/2.0" and not _VERSION.fullmatch(version)):
            raise SipError("start line: neither a request nor a response")

    @property
    def method(self) -> str:
        """The method, as written: methods are case-sensitive."""
        return self._method

    @property
    def uri_text(self) -> str:
        """The Request-URI as written."""
        return self._uri_text

    @_once("Request-URI")
    def uri(self) -> Uri:
        """The Request-URI. SipError if it is none."""
        return Uri.parse(self._uri_text)

    def with_uri(self, uri: str | Uri) -> Self:
        """The same request to another Request-URI. SipError if it is none."""
        text = str(Uri.parse(str(uri)))
        at = self._start.index(self._uri_text.encode("latin-1"), self._start.index(b" "))
        new = self._copy("Request-URI")
        new._start = self._start[:at] + encode(text) + self._start[at + len(self._uri_text) :]
        new._uri_text = text
        return new

    @classmethod
    def build(cls, method: str, uri: str | Uri, headers: Iterable[tuple[str, str]], body: bytes = b"") -> Self:
        """A new request. Content-Length is added if it is not among the headers."""
        return cls(*split(_lines(f"{method} {uri} SIP/2.0", headers, body)))


class Response(Message):
    """A response."""

    def __init__(self, start: bytes, fields: tuple[bytes, ...], index: dict[str, list[int]], tail: bytes) -> None:
        super().__init__(start, fields, index, tail)
        found = _STATUS.fullmatch(start.decode("latin-1").strip("\r\n"))
        if found is None:
            raise SipError("start line: bad status line")
        version, status, reason = found.groups()
        self._status = int(status)
        self._reason = reason or ""
        self.version = version

    @property
    def status(self) -> int:
        """100 to 699."""
        return self._status

    @property
    def reason(self) -> str:
        """The reason phrase as written, possibly empty."""
        return self._reason

    @classmethod
    def build(cls, status: int, reason: str | None, headers: Iterable[tuple[str, str]], body: bytes = b"") -> Self:
        """A new response; reason None: the usual phrase. Content-Length is added if it is not among the headers."""
        return cls(*split(_lines(_status_line(status, reason), headers, body)))


def parse(data: bytes) -> Request | Response:
    """Read one whole message, as a datagram or a Framer's frame holds it. SipError if it is none.

    Header values are not looked at: getters and check() do that.
    """
    start, fields, index, tail = split(bytes(data))
    kind = Response if start.lstrip(b"\r\n")[:4].upper() == b"SIP/" else Request
    return kind(start, fields, index, tail)


def _status_line(status: int, reason: str | None) -> str:
    return f"SIP/2.0 {status} {REASONS.get(status, '') if reason is None else reason}"


def _lines(start: str, headers: Iterable[tuple[str, str]], body: bytes, copied: Iterable[bytes] = ()) -> bytes:
    fields = list(headers)
    if not any(canonical(name) == "content-length" for name, _ in fields):
        fields.append(("Content-Length", str(len(body))))
    written = (encode(f"{name}: {text}") for name, text in fields)
    return b"\r\n".join((encode(start), *copied, *written, b"", body))


# RFC 3261 §12.1.1: a response that may make a dialog carries the route set back
_DIALOG_METHODS = frozenset(("INVITE", "SUBSCRIBE", "REFER", "NOTIFY"))


def response_to(
    request: Request,
    status: int,
    reason: str | None = None,
    *,
    to_tag: str | None = None,
    headers: Iterable[tuple[str, str]] = (),
    body: bytes = b"",
) -> Response:
    """The response to a request (RFC 3261 §8.2.6), even to a broken one: what the request lacks the response lacks.

    Copies Via, From, To, Call-ID and CSeq as they are; Timestamp into a 100; Record-Route into 101 to 299 of a request
    that may make a dialog. ``to_tag`` is added to a To without tag, not in a 100.
    """
    names = ["via", "from", "to", "call-id", "cseq"]
    if status == 100:
        names.append("timestamp")
    elif status < 300 and request.method in _DIALOG_METHODS:
        names.insert(1, "record-route")
    copied = []
    for name in names:
        places = request._index.get(name, [])
        for at in places if name in ("via", "record-route") else places[:1]:
            field = _LINE_END.sub(b"\r\n", request._fields[at].rstrip(b"\r"))
            if name == "to" and to_tag is not None and status != 100:
                field += _missing_tag(field, to_tag)
            copied.append(field)
    return Response(*split(_lines(_status_line(status, reason), headers, body, copied)))


def _missing_tag(field: bytes, tag: str) -> bytes:
    try:
        address = NameAddr.parse(field.partition(b":")[2].decode("latin-1"))
    except SipError:
        return b""  # there is no place in it where a parameter would be one
    return b"" if "tag" in address.params else encode(f";tag={tag}")
