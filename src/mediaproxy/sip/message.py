"""A SIP message as the lines it came in, plus an index (RFC 3261 §7).

Bytes of one whole message come in, an immutable Message goes out; ``bytes(parse(x)) == x`` for every x that parses.
Header values are read when asked for. An edit returns a new message in which only the edited span differs: order,
spelling of names, compact forms, spacing, folding and line ends of everything else stay, and so do headers nobody knows.
"""

import re
from collections.abc import Callable, Iterable
from typing import Any, Self, TypeVar

from mediaproxy.sip.grammar import SINGLE, SipError, canonical, element_spans, number, unfold
from mediaproxy.sip.header import CSeq, NameAddr, Uri, Via
from mediaproxy.sip.reason import REASONS

_T = TypeVar("_T")
_NAME = re.compile(r"[!-9;-~\x80-\xff]+")
_METHOD = re.compile(rb"[A-Za-z0-9\-.!%*_+`'~]+")
_VERSION = re.compile(r"SIP/[0-9]+\.[0-9]+", re.IGNORECASE)
_STATUS = re.compile(rb"(SIP/[0-9]+\.[0-9]+)[ \t]+([0-9]+)(?:[ \t]([^\n]*))?", re.IGNORECASE)
_BLANK = re.compile(rb"\n\r?\n")
_BARE_LINE_END = re.compile(r"\r(?!\n)|\n(?![ \t])")
_LINE_END = re.compile(rb"\r?\n")


class Message:
    """What requests and responses have in common. Made by ``parse``, ``Request.build`` and ``Response.build``."""

    __slots__ = ("_cache", "_fields", "_index", "_start", "_tail", "version")

    is_request = False
    version: str
    "``SIP/2.0``, as written."

    def __init__(self, start: bytes, fields: tuple[bytes, ...], index: dict[str, list[int]], tail: bytes) -> None:
        # b"\n".join((start, *fields, tail)) is the message: each piece keeps its "\r", a folded field its inner "\n".
        # The tail is the blank line and all behind it; empty if the message stops before the blank line.
        self._start = start
        self._fields = fields
        self._index = index
        self._tail = tail
        self._cache: dict[str, Any] = {}

    def __bytes__(self) -> bytes:
        return b"\n".join((self._start, *self._fields, self._tail))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Message) and bytes(self) == bytes(other)

    def __hash__(self) -> int:
        return hash(bytes(self))

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._start.strip().decode('latin-1')!r}>"

    # -- reading -------------------------------------------------------------------------------------------------------

    @property
    def start_line(self) -> str:
        """The first line without its line end."""
        return self._start.decode("latin-1").lstrip("\r\n").rstrip("\r")

    @property
    def names(self) -> tuple[str, ...]:
        """The canonical name of each header field, in order."""
        names = {at: name for name, places in self._index.items() for at in places}
        return tuple(names[at] for at in range(len(self._fields)))

    def _raw(self, name: str) -> list[str]:
        """The folded values of the fields of that canonical name, with the white space around them."""
        return [self._fields[at].partition(b":")[2].decode("latin-1") for at in self._index.get(name, ())]

    def headers(self, name: str) -> tuple[str, ...]:
        """The unfolded value of each header field of that name, in order. Compact names are the same name."""
        return tuple(unfold(raw) for raw in self._raw(canonical(name)))

    def header(self, name: str) -> str | None:
        """The unfolded value of the first header field of that name, None if there is none."""
        places = self._index.get(canonical(name))
        return unfold(self._fields[places[0]].partition(b":")[2].decode("latin-1")) if places else None

    def values(self, name: str) -> tuple[str, ...]:
        """The unfolded elements of the comma lists of all fields of that name; of a field that is no list its value."""
        return tuple(unfold(raw) for raw in self._elements(canonical(name)))

    def _elements(self, name: str) -> list[str]:
        """As values(), but as written, folding included."""
        return [raw[begin:end] for raw in self._raw(name) for begin, end in _spans(name, raw)]

    def _cached(self, key: str, name: str, read: Callable[[str], _T]) -> _T:
        """What ``read`` makes of this header; computed once. A SipError names the header."""
        cache = self._cache
        if key not in cache:
            try:
                cache[key] = read(name)
            except SipError as error:
                raise SipError(f"{name}: {error}", error.status) from None
        value: _T = cache[key]
        return value

    def _mandatory(self, name: str) -> str:
        places = self._index.get(name)
        if not places:
            raise SipError("missing")
        return self._fields[places[0]].partition(b":")[2].decode("latin-1").strip(" \t\r\n")

    def _address(self, name: str) -> NameAddr:
        return NameAddr.parse(self._mandatory(name))

    def _addresses(self, name: str) -> tuple[NameAddr, ...]:
        return tuple(NameAddr.parse(element) for element in self._elements(name))

    @property
    def call_id(self) -> str:
        """The Call-ID. SipError if there is none or it is empty."""

        def read(name: str) -> str:
            value = unfold(self._mandatory(name))
            if not value:
                raise SipError("empty")
            return value

        return self._cached("call-id", "call-id", read)

    @property
    def cseq(self) -> CSeq:
        """The CSeq. SipError if it is missing, broken or too large."""
        return self._cached("cseq", "cseq", lambda name: CSeq.parse(self._mandatory(name)))

    @property
    def from_(self) -> NameAddr:
        """The From. SipError if it is missing or broken."""
        return self._cached("from", "from", self._address)

    @property
    def to(self) -> NameAddr:
        """The To. SipError if it is missing or broken."""
        return self._cached("to", "to", self._address)

    @property
    def via(self) -> Via:
        """The topmost Via. SipError if there is none or it is broken."""

        def read(name: str) -> Via:
            raw = self._mandatory(name)
            spans = element_spans(raw)
            if not spans:
                raise SipError("empty")
            return Via.parse(raw[spans[0][0] : spans[0][1]])

        return self._cached("via", "via", read)

    @property
    def vias(self) -> tuple[Via, ...]:
        """All Via values, topmost first. SipError if one is broken."""
        return self._cached("vias", "via", lambda name: tuple(Via.parse(element) for element in self._elements(name)))

    @property
    def contacts(self) -> tuple[NameAddr, ...]:
        """All Contact values in order; their index is that of replace_value(). SipError if one is broken."""
        return self._cached("contact", "contact", self._addresses)

    @property
    def routes(self) -> tuple[NameAddr, ...]:
        """All Route values, next hop first. SipError if one is broken."""
        return self._cached("route", "route", self._addresses)

    @property
    def record_routes(self) -> tuple[NameAddr, ...]:
        """All Record-Route values, last proxy first. SipError if one is broken."""
        return self._cached("record-route", "record-route", self._addresses)

    @property
    def content_type(self) -> str:
        """Type and subtype of the body in lower case without parameters; "" if there is none."""
        return (self.header("content-type") or "").partition(";")[0].strip(" \t").lower()

    @property
    def content_length(self) -> int | None:
        """The declared length of the body in octets; None if missing, unreadable, or given twice and differently."""
        lengths = {number(value, 2**31 - 1) for value in self.headers("content-length")}
        return lengths.pop() if len(lengths) == 1 else None

    @property
    def max_forwards(self) -> int | None:
        """0 to 255; None if missing or unreadable."""
        return number(self.header("max-forwards") or "", 255)

    @property
    def expires(self) -> int | None:
        """Expires in seconds, at most 2**32 - 1 (RFC 3261 §20.19); None if missing or unreadable."""
        return seconds(self.header("expires"))

    @property
    def user_agent(self) -> str:
        """User-Agent, else Server, else ""."""
        return self.header("user-agent") or self.header("server") or ""

    @property
    def complete_head(self) -> bool:
        """Whether the empty line behind the headers is there."""
        return bool(self._tail)

    @property
    def body(self) -> bytes:
        """The body as long as Content-Length declares it; all there is if it declares nothing readable.

        Octets behind it (UDP, RFC 3261 §18.3) stay in ``bytes(message)``; see delimited(). It is shorter than declared
        if the datagram was: check() refuses that.
        """
        rest = self._rest()
        length = self.content_length
        return rest if length is None else rest[:length]

    def _rest(self) -> bytes:
        return self._tail.partition(b"\n")[2]

    # -- editing -------------------------------------------------------------------------------------------------------

    def _copy(self, fields: tuple[bytes, ...], index: dict[str, list[int]], tail: bytes) -> Self:
        new = object.__new__(type(self))
        for slot in _slots(type(self)):
            object.__setattr__(new, slot, getattr(self, slot))
        new._fields, new._index, new._tail, new._cache = fields, index, tail, {}
        return new

    def _with_fields(self, fields: list[bytes]) -> Self:
        return self._copy(tuple(fields), _index(fields), self._tail)

    def _line_end(self) -> bytes:
        return b"\r" if self._start.endswith(b"\r") else b""

    def _line(self, name: str, text: str) -> bytes:
        return _encode(f"{name}: {text}") + self._line_end()

    def _splice(self, at: int, begin: int, end: int, text: str) -> Self:
        """Replace part of the value of field ``at``."""
        name, colon, value = self._fields[at].partition(b":")
        piece = name + colon + value[:begin] + _encode(text) + value[end:]
        fields = (*self._fields[:at], piece, *self._fields[at + 1 :])
        return self._copy(fields, self._index, self._tail)

    def _locate(self, name: str, index: int) -> tuple[int, list[tuple[int, int]], int]:
        """Field, spans of its elements, and which of them is element ``index`` over all fields of that name."""
        for at in self._index.get(name, ()):
            spans = _spans(name, self._fields[at].partition(b":")[2].decode("latin-1"))
            if index < len(spans):
                return at, spans, index
            index -= len(spans)
        raise IndexError(f"no such value of {name}")

    def replace_value(self, name: str, index: int, text: str) -> Self:
        """Replace one element of the comma lists of that name, counted over all its fields. IndexError if none."""
        at, spans, which = self._locate(canonical(name), index)
        return self._splice(at, *spans[which], text)

    def remove_value(self, name: str, index: int) -> Self:
        """Remove one element with one comma beside it, or the whole field if it was the only one."""
        at, spans, which = self._locate(canonical(name), index)
        if len(spans) == 1:
            return self._with_fields([*self._fields[:at], *self._fields[at + 1 :]])
        if which + 1 < len(spans):
            return self._splice(at, spans[which][0], spans[which + 1][0], "")
        return self._splice(at, spans[which - 1][1], spans[which][1], "")

    def replace(self, name: str, text: str) -> Self:
        """Replace the whole value of the first field of that name. KeyError if there is none."""
        at = self._index[canonical(name)][0]
        value = self._fields[at].partition(b":")[2].decode("latin-1")
        kept = value.lstrip(" \t\r\n")
        if not kept:
            # nothing but white space: keep the line end, and a space behind the colon
            return self._splice(at, 0, len(value.rstrip("\r")), f" {text}")
        begin = len(value) - len(kept)
        return self._splice(at, begin, begin + len(kept.rstrip(" \t\r\n")), text)

    def prepend(self, name: str, text: str) -> Self:
        """Add a field before the first of that name, or as the first of all."""
        at = self._index.get(canonical(name), [0])[0]
        return self._with_fields([*self._fields[:at], self._line(name, text), *self._fields[at:]])

    def append(self, name: str, text: str) -> Self:
        """Add a field behind the last of that name, or as the last of all."""
        at = self._index.get(canonical(name), [len(self._fields) - 1])[-1] + 1
        return self._with_fields([*self._fields[:at], self._line(name, text), *self._fields[at:]])

    def remove(self, name: str) -> Self:
        """Remove all fields of that name."""
        gone = set(self._index.get(canonical(name), ()))
        return self._with_fields([field for at, field in enumerate(self._fields) if at not in gone]) if gone else self

    def with_body(self, body: bytes, content_type: str | None = None) -> Self:
        """Another body. Content-Length follows in place (added if missing), and Content-Type if given; octets behind
        the old body are gone."""
        new: Self = self
        if content_type is not None:
            known = "content-type" in self._index
            new = new.replace("Content-Type", content_type) if known else new.append("Content-Type", content_type)
        if number(new.header("content-length") or "", 2**31) != len(body):
            known = "content-length" in self._index
            new = (
                new.replace("Content-Length", str(len(body))) if known else new.append("Content-Length", str(len(body)))
            )
        for _ in self._index.get("content-length", ())[1:]:
            new = new._without_second("content-length")
        blank, newline, _ = self._tail.partition(b"\n")
        return new._copy(new._fields, new._index, (blank + newline if newline else self._line_end() + b"\n") + body)

    def _without_second(self, name: str) -> Self:
        at = self._index[name][1]
        return self._with_fields([*self._fields[:at], *self._fields[at + 1 :]])

    def delimited(self) -> Self:
        """The message as it may enter a stream: without octets behind the declared body (RFC 3261 §18.3) and with a
        Content-Length. Unchanged if that is so already."""
        if self.content_length is not None and self.content_length == len(self._rest()) and self._tail:
            return self
        return self.with_body(self.body)


class Request(Message):
    """A request."""

    __slots__ = ("_method", "_uri_text")

    is_request = True

    def __init__(self, start: bytes, fields: tuple[bytes, ...], index: dict[str, list[int]], tail: bytes) -> None:
        super().__init__(start, fields, index, tail)
        method, _, rest = start.strip().partition(b" ")
        uri, _, version = rest.rpartition(b" ")
        self._method = method.decode("latin-1")
        self._uri_text = uri.strip(b" \t").decode("latin-1")
        self.version = version.decode("latin-1")
        if not _METHOD.fullmatch(method) or not self._uri_text or not _VERSION.fullmatch(self.version):
            raise SipError("start line: neither a request nor a response")

    @property
    def method(self) -> str:
        """The method; methods are case-sensitive."""
        return self._method

    @property
    def uri_text(self) -> str:
        """The Request-URI as written."""
        return self._uri_text

    @property
    def uri(self) -> Uri:
        """The Request-URI. SipError if it is none."""
        return self._cached("uri", "Request-URI", lambda _: Uri.parse(self._uri_text))

    def with_uri(self, uri: str | Uri) -> "Request":
        """The same request to another Request-URI."""
        text = _encode(str(uri))
        at = self._start.index(self._uri_text.encode("latin-1"), self._start.index(b" "))
        start = self._start[:at] + text + self._start[at + len(self._uri_text) :]
        return Request(start, self._fields, self._index, self._tail)

    @classmethod
    def build(cls, method: str, uri: str | Uri, headers: Iterable[tuple[str, str]], body: bytes = b"") -> "Request":
        """A new request. Content-Length is added if it is not among the headers."""
        message = parse(_build(f"{method} {uri} SIP/2.0", headers, body))
        assert isinstance(message, Request)
        return message


class Response(Message):
    """A response."""

    __slots__ = ("_reason", "_status")

    def __init__(self, start: bytes, fields: tuple[bytes, ...], index: dict[str, list[int]], tail: bytes) -> None:
        super().__init__(start, fields, index, tail)
        found = _STATUS.fullmatch(start.strip(b"\r\n"))
        status = number(found.group(2).decode("latin-1"), 699) if found else None
        if found is None or status is None or status < 100 or len(found.group(2)) != 3:
            raise SipError("start line: bad status line")
        self._status = status
        self.version = found.group(1).decode("latin-1")
        self._reason = (found.group(3) or b"").decode("latin-1")

    @property
    def status(self) -> int:
        """100 to 699."""
        return self._status

    @property
    def reason(self) -> str:
        """The reason phrase as written, possibly empty."""
        return self._reason

    @classmethod
    def build(
        cls, status: int, reason: str | None, headers: Iterable[tuple[str, str]], body: bytes = b""
    ) -> "Response":
        """A new response; reason None: the usual phrase. Content-Length is added if it is not among the headers."""
        phrase = REASONS.get(status, "") if reason is None else reason
        message = parse(_build(f"SIP/2.0 {status} {phrase}", headers, body))
        assert isinstance(message, Response)
        return message


def seconds(text: str | None) -> int | None:
    """A delta-seconds value: 0 to 2**32 - 1, larger ones count as that; None if it is missing or no number."""
    if not text or not text.isascii() or not text.isdigit():
        return None
    value = number(text, 2**32 - 1)
    return 2**32 - 1 if value is None else value


def parse(data: bytes) -> Request | Response:
    """Read one whole message, as a datagram or a Framer frame holds it. SipError if it is none.

    Empty lines before it are kept (RFC 3261 §7.5). Lines may end in LF alone, but a CR stands only before LF. Header
    values are not looked at: getters and check() do that.
    """
    data = bytes(data)
    skip = len(data) - len(data.lstrip(b"\r\n"))
    found = _BLANK.search(data, skip)
    if found is not None:
        head, tail = data[skip : found.start()], data[found.start() + 1 :]
    elif data.endswith(b"\n"):
        head, tail = data[skip:-1], b""
    else:
        raise SipError("the message ends within its headers")
    if head.count(b"\r") != head.count(b"\r\n") + head.endswith(b"\r"):
        raise SipError("a carriage return inside a line")
    start, *lines = head.split(b"\n")
    if b"\n " in head or b"\n\t" in head:
        lines = _join_folds(lines)
    kind = Response if start[:4].upper() == b"SIP/" else Request
    return kind(data[:skip] + start, tuple(lines), _index(lines), tail)


def _join_folds(lines: list[bytes]) -> list[bytes]:
    fields: list[list[bytes]] = []
    for line in lines:
        if line[:1] not in (b" ", b"\t"):
            fields.append([line])
        elif fields:
            fields[-1].append(line)
        else:
            raise SipError("the first header line begins with white space")
    return [b"\n".join(parts) for parts in fields]


_KEYS: dict[bytes, str] = {}


def _index(fields: Iterable[bytes]) -> dict[str, list[int]]:
    """At which places the fields of each canonical name are. SipError if one is no header field."""
    index: dict[str, list[int]] = {}
    for at, field in enumerate(fields):
        raw, colon, _ = field.partition(b":")
        name = raw.rstrip(b" \t").decode("latin-1")
        if not colon or not _NAME.fullmatch(name):
            raise SipError(f"no header field: {field[:80]!r}")
        index.setdefault(canonical(name), []).append(at)
    return index


def _spans(name: str, raw: str) -> list[tuple[int, int]]:
    if name not in SINGLE:
        return element_spans(raw)
    kept = raw.strip(" \t\r\n")
    begin = raw.find(kept)
    return [(begin, begin + len(kept))]


def _slots(kind: type[Message]) -> tuple[str, ...]:
    return Message.__slots__ if kind is Message else (*Message.__slots__, *kind.__slots__)


def _encode(text: str) -> bytes:
    """Text of ours as bytes. SipError if it would break the message: a bare line end, or no latin-1."""
    if _BARE_LINE_END.search(text):
        raise SipError("a line end inside a header value")
    try:
        return text.encode("latin-1")
    except UnicodeEncodeError:
        raise SipError("header text must be latin-1, one character per byte") from None


def _build(start: str, headers: Iterable[tuple[str, str]], body: bytes) -> bytes:
    fields = list(headers)
    if not any(canonical(name) == "content-length" for name, _ in fields):
        fields.append(("Content-Length", str(len(body))))
    lines = [_encode(start), *(_encode(f"{name}: {text}") for name, text in fields)]
    return b"\r\n".join((*lines, b"", body))


_COPIED = ("via", "from", "to", "call-id", "cseq")
# RFC 3261 §12.1.1: responses that may make a dialog carry the route set back
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
    """The response to a request (RFC 3261 §8.2.6), even to a broken one: what it lacks the response lacks.

    Copies Via, From, To, Call-ID and CSeq as they are; Timestamp into a 100; Record-Route into 101 to 299 of a request
    that may make a dialog. ``to_tag`` is added to a To without tag, not in a 100.
    """
    names = list(_COPIED)
    if status == 100:
        names.append("timestamp")
    elif status < 300 and request.method in _DIALOG_METHODS:
        names.insert(1, "record-route")
    lines = [_encode(f"SIP/2.0 {status} {REASONS.get(status, '') if reason is None else reason}")]
    for name in names:
        places = request._index.get(name, [])
        for at in places if name in ("via", "record-route") else places[:1]:
            field = request._fields[at].rstrip(b"\r")
            if name == "to" and to_tag is not None and status != 100:
                field += _missing_tag(field, to_tag)
            lines.append(_LINE_END.sub(b"\r\n", field))
    tail = _build("", headers, body)
    return_value = parse(b"\r\n".join(lines) + tail)
    assert isinstance(return_value, Response)
    return return_value


def _missing_tag(field: bytes, tag: str) -> bytes:
    try:
        address = NameAddr.parse(field.partition(b":")[2].decode("latin-1"))
    except SipError:
        return b""
    return b"" if "tag" in address.params else _encode(f";tag={tag}")
