"""A SIP message as the lines it came in, plus an index of them (RFC 3261 §7).

Bytes of one whole message come in, an immutable value goes out that gives the same bytes back. Header fields are found
by name and read when asked for. An edit returns a new value in which only the edited span differs: order, spelling of
names, compact forms, spacing, folding and line ends of all else stay, and so do headers nobody knows.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Self

from mediaproxy.sip.grammar import SipError, canonical, element_spans, trim, unfold
from mediaproxy.sip.names import KNOWN_NAMES, SINGLE

BLANK_LINE = re.compile(rb"\n\r?\n")
"Where the headers end; the match begins with the last header line's LF."

MOST_LINES = 1000
"More header lines are refused: no message needs them, and reading them takes its time."

_KNOWN = {spelling.encode("latin-1"): name for spelling, name in KNOWN_NAMES.items()}
_NAME = re.compile(rb"([!-9;-~\x80-\xff]++)[ \t]*+")
_BARE_LINE_END = re.compile(r"\r(?!\n)|\n(?![ \t])")


class Lines:
    """Start line, header fields and body as they came. Names of fields match in any case and in their compact form."""

    __slots__ = ("_fields", "_index", "_start", "_tail")

    def __init__(self, start: bytes, fields: tuple[bytes, ...], index: dict[str, list[int]], tail: bytes) -> None:
        # b"\n".join((start, *fields, tail)) is the message: each piece keeps its "\r", a folded field its inner "\n".
        # The tail is the empty line and all behind it; nothing if the message stops before the empty line.
        self._start = start
        self._fields = fields
        self._index = index
        self._tail = tail

    def __bytes__(self) -> bytes:
        return b"\n".join((self._start, *self._fields, self._tail))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Lines) and bytes(self) == bytes(other)

    def __hash__(self) -> int:
        return hash(bytes(self))

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.start_line!r}>"

    # -- reading -------------------------------------------------------------------------------------------------------

    @property
    def start_line(self) -> str:
        """The first line as written, without its line end and without empty lines before it."""
        return self._start.decode("latin-1").strip("\r\n")

    @property
    def names(self) -> tuple[str, ...]:
        """The canonical name of each header field, in order: lower case, compact forms written out."""
        names = {at: name for name, places in self._index.items() for at in places}
        return tuple(names[at] for at in range(len(self._fields)))

    @property
    def complete_head(self) -> bool:
        """Whether the empty line behind the headers is there."""
        return bool(self._tail)

    @property
    def octets(self) -> bytes:
        """All that stands behind the empty line."""
        return self._tail.partition(b"\n")[2]

    def count(self, name: str) -> int:
        """How many header fields of that name there are."""
        return len(self._index.get(canonical(name), ()))

    def headers(self, name: str) -> tuple[str, ...]:
        """The unfolded value of each header field of that name, in order."""
        return tuple(unfold(self._value(at)) for at in self._index.get(canonical(name), ()))

    def header(self, name: str) -> str | None:
        """The unfolded value of the first header field of that name, None if there is none."""
        places = self._index.get(canonical(name))
        return unfold(self._value(places[0])) if places else None

    def values(self, name: str) -> tuple[str, ...]:
        """The unfolded elements of the comma lists of all fields of that name; of a field that is no list its value.
        Empty elements and values are left out."""
        return tuple(unfold(element) for element in self.elements(name))

    def elements(self, name: str) -> list[str]:
        """As values(), but as written: folding inside an element is kept."""
        name = canonical(name)
        elements = []
        for at in self._index.get(name, ()):
            raw = self._value(at)
            elements += [raw[begin:end] for begin, end in _spans(name, raw)]
        return elements

    def raw_fields(self, name: str) -> tuple[bytes, ...]:
        """The header fields of that name as they stand in the message, in order, each without its last LF."""
        return tuple([self._fields[at] for at in self._index.get(canonical(name), ())])

    def _value(self, at: int) -> str:
        """The value of field ``at`` as written, with the white space around it."""
        return self._fields[at].partition(b":")[2].decode("latin-1")

    # -- editing -------------------------------------------------------------------------------------------------------

    def _copy(self, changed: str) -> Self:
        """The same to be edited at once, before anybody else sees it. ``changed`` is what the edit is about: the
        canonical name of a header."""
        new = object.__new__(type(self))
        new._start, new._fields, new._index, new._tail = self._start, self._fields, self._index, self._tail
        return new

    def _with_fields(self, name: str, fields: Iterable[bytes], moved: bool = True) -> Self:
        """The same with other header fields of that name. ``moved``: there are more or fewer fields than before."""
        new = self._copy(canonical(name))
        new._fields = tuple(fields)
        if moved:
            new._index = index_of(new._fields)
        return new

    def _with_tail(self, tail: bytes) -> Self:
        new = self._copy("")
        new._tail = tail
        return new

    def _line_end(self) -> bytes:
        """What the message's lines have before their LF."""
        return b"\r" if self._start.endswith(b"\r") else b""

    def _splice(self, name: str, at: int, begin: int, end: int, text: str) -> Self:
        """Replace part of the value of field ``at``, which is one of that name."""
        head, colon, value = self._fields[at].partition(b":")
        piece = head + colon + value[:begin] + encode(text) + value[end:]
        return self._with_fields(name, (*self._fields[:at], piece, *self._fields[at + 1 :]), moved=False)

    def _insert(self, at: int, name: str, text: str) -> Self:
        line = encode(f"{name}: {text}") + self._line_end()
        return self._with_fields(name, (*self._fields[:at], line, *self._fields[at:]))

    def _delete(self, name: str, gone: Iterable[int]) -> Self:
        out = frozenset(gone)
        return self._with_fields(name, [field for at, field in enumerate(self._fields) if at not in out])

    def _locate(self, name: str, index: int) -> tuple[int, list[tuple[int, int]], int]:
        """The field, the spans of its elements, and which of them is element ``index`` of all fields of that name."""
        left = index
        for at in self._index.get(name, ()):
            spans = _spans(name, self._value(at))
            if 0 <= left < len(spans):
                return at, spans, left
            left -= len(spans)
        raise IndexError(f"{name} has no value {index}")

    def replace_value(self, name: str, index: int, text: str) -> Self:
        """Replace one element of the comma lists of that name, counted from 0 over all its fields.

        IndexError if there is no such element, SipError if the text would break the message.
        """
        at, spans, which = self._locate(canonical(name), index)
        return self._splice(name, at, *spans[which], text)

    def replace_values(self, name: str, texts: Mapping[int, str]) -> Self:
        """Replace several elements at once, by their index as in ``replace_value``: in one pass, however many they are.

        IndexError if there is no such element, SipError if a text would break the message.
        """
        fields = list(self._fields)
        first = 0
        for at in self._index.get(canonical(name), ()):
            value = self._value(at)
            spans = _spans(canonical(name), value)
            pieces, done = [], 0
            for which, (begin, end) in enumerate(spans, first):
                if which in texts:
                    pieces += [value[done:begin], texts[which]]
                    done = end
            if pieces:
                head = self._fields[at].partition(b":")[0]
                fields[at] = head + b":" + encode("".join(pieces)) + value[done:].encode("latin-1")
            first += len(spans)
        if any(not 0 <= index < first for index in texts):
            raise IndexError(f"{name} has only {first} values")
        return self._with_fields(name, fields, moved=False)

    def remove_value(self, name: str, index: int) -> Self:
        """Remove one element with one comma beside it, or the whole field if it is the only one. IndexError if none."""
        at, spans, which = self._locate(canonical(name), index)
        if len(spans) == 1:
            return self._delete(name, (at,))
        if which + 1 < len(spans):
            return self._splice(name, at, spans[which][0], spans[which + 1][0], "")
        return self._splice(name, at, spans[which - 1][1], spans[which][1], "")

    def replace(self, name: str, text: str) -> Self:
        """Replace the whole value of the first field of that name. KeyError if there is none."""
        at = self._index[canonical(name)][0]
        value = self._value(at)
        begin, end = trim(value)
        if begin < end:
            return self._splice(name, at, begin, end, text)
        return self._splice(name, at, 0, len(value.rstrip("\r")), f" {text}")

    def prepend(self, name: str, text: str) -> Self:
        """Add a field before the first of that name, or as the first of all."""
        return self._insert(self._index.get(canonical(name), [0])[0], name, text)

    def append(self, name: str, text: str) -> Self:
        """Add a field behind the last of that name, or as the last of all."""
        return self._insert(self._index.get(canonical(name), [len(self._fields) - 1])[-1] + 1, name, text)

    def remove(self, name: str) -> Self:
        """Remove all fields of that name."""
        places = self._index.get(canonical(name))
        return self._delete(name, places) if places else self


def split(data: bytes) -> tuple[bytes, tuple[bytes, ...], dict[str, list[int]], bytes]:
    """What Lines is made of. SipError if the bytes have no shape of lines and header fields.

    Empty lines before the message are kept (RFC 3261 §7.5). Lines may end in LF alone, but CR stands only before LF:
    to some peers a lone CR is a line end, so what we read as one header would be two to them.
    """
    skip = len(data) - len(data.lstrip(b"\r\n"))
    blank = BLANK_LINE.search(data, skip)
    if blank is not None:
        head, tail = data[skip : blank.start()], data[blank.start() + 1 :]
    elif data.endswith(b"\n"):
        head, tail = data[skip:-1], b""
    else:
        raise SipError("the message ends within its headers")
    if head.count(b"\r") != head.count(b"\r\n") + head.endswith(b"\r"):
        raise SipError("a carriage return inside a line")
    start, *lines = head.split(b"\n")
    if len(lines) > MOST_LINES:
        raise SipError("too many header lines", 513)
    if b"\n " in head or b"\n\t" in head:
        lines = _join_folds(lines)
    return data[:skip] + start, tuple(lines), index_of(lines), tail


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


def index_of(fields: Iterable[bytes]) -> dict[str, list[int]]:
    """At which places the fields of each canonical name are. SipError if one is no header field."""
    index: dict[str, list[int]] = {}
    for at, field in enumerate(fields):
        raw, colon, _ = field.partition(b":")
        name = _KNOWN.get(raw)
        if name is None or not colon:
            found = _NAME.fullmatch(raw)
            if found is None or not colon:
                raise SipError(f"no header field: {field[:80]!r}")
            name = canonical(found.group(1).decode("latin-1"))
        if name in index:
            index[name].append(at)
        else:
            index[name] = [at]
    return index


def _spans(name: str, raw: str) -> list[tuple[int, int]]:
    if name not in SINGLE:
        return element_spans(raw)
    begin, end = trim(raw)
    return [(begin, end)] if begin < end else []


def encode(text: str) -> bytes:
    """Header text of ours as bytes. SipError if it would break the message: a bare line end, or no latin-1."""
    if _BARE_LINE_END.search(text):
        raise SipError("a line end inside a header value")
    try:
        return text.encode("latin-1")
    except UnicodeEncodeError:
        raise SipError("header text must be latin-1, one character per byte") from None
