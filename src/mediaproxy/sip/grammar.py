"""The words and separators of SIP that all header fields share (RFC 3261 §7.3 and §25.1).

Text of a header field comes in, its pieces go out: names, list elements, parameters, quoted strings, numbers. Text is
``str`` decoded as latin-1, one character per byte, so every byte a peer sends has a place. It may still be folded: line
ends count as white space. Nothing here changes a byte that nobody asked to change, and nothing raises but SipError.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import TypeVar, overload

from mediaproxy.sip.names import COMPACT, canonical

__all__ = [
    "COMPACT",
    "Params",
    "SipError",
    "canonical",
    "element_spans",
    "number",
    "parse_params",
    "quote",
    "remembered",
    "seconds",
    "split_commas",
    "split_params",
    "trim",
    "unfold",
    "unquote",
]


class SipError(ValueError):
    """A peer's bytes are not SIP, or not SIP that we may go on with."""

    status: int
    "What to answer if the bytes were a request: 400, or a better fitting 4xx or 5xx."

    def __init__(self, text: str, status: int = 400) -> None:
        super().__init__(text)
        self.status = status


_T = TypeVar("_T")
_KEPT = 4096
_KEPT_LENGTH = 256


def remembered(read: Callable[[str], _T]) -> Callable[[str], _T]:
    """``read``, which makes an immutable value of a text, with a memory: the messages of a call say the same things
    again and again. It keeps the 4096 results asked for last, and none of texts above 256 characters, which peers
    could fill it with."""
    keeping = lru_cache(maxsize=_KEPT)(read)

    def ask(text: str) -> _T:
        return keeping(text) if len(text) <= _KEPT_LENGTH else read(text)

    return ask


WS = " \t\r\n"
"White space in a header field, the line ends of folding included."

_ELEMENT = re.compile(r'[ \t\r\n,]*+((?:[^",<]++|"(?:[^"\\]++|\\.)*+(?:"|\\?\Z)|<[^>]*+(?:>|\Z))++)', re.DOTALL)
_PIECE = re.compile(r'(?:[^";]++|"(?:[^"\\]++|\\.)*+(?:"|\\?\Z))*+', re.DOTALL)
_CLOSED = re.compile(r'(?:[^"]++|"(?:[^"\\]++|\\.)*+")*+', re.DOTALL)
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
HOST = r"\[[0-9A-Fa-f:.]++(?:%[0-9A-Za-z._\-]++)?\]|[0-9A-Za-z._\-\x80-\xff]++"
"A host in a pattern: RFC 3261 §25.1, with underscores and letters beyond ASCII, which local networks use."

TOKEN = re.compile(r"[A-Za-z0-9\-.!%*_+`'~]+")
"RFC 3261 §25.1 token; to be used with fullmatch."


def unfold(value: str) -> str:
    """The value on one line, outer white space removed (RFC 3261 §7.3.1: a fold is one space)."""
    if "\n" in value:
        return " ".join(part for line in value.split("\n") if (part := line.strip(WS)))
    return value.strip(WS)


_LONG_NUMBER = 12


def number(text: str, most: int) -> int | None:
    """The decimal number ``text``, or None if it is none or above ``most`` (below 10**12). Takes any text, of any
    length."""
    if not text.isascii() or not text.isdigit():
        return None
    if len(text) > _LONG_NUMBER:
        text = text.lstrip("0") or "0"
        if len(text) > _LONG_NUMBER:
            return None
    value = int(text)
    return value if value <= most else None


def seconds(text: str | None) -> int | None:
    """A delta-seconds value: 0 to 2**32 - 1, larger ones count as that (RFC 3261 §20.19); None if it is missing or
    no number."""
    if not text or not text.isascii() or not text.isdigit():
        return None
    value = number(text, 2**32 - 1)
    return 2**32 - 1 if value is None else value


def trim(value: str) -> tuple[int, int]:
    """Where the value without the white space around it begins and ends."""
    kept = value.lstrip(WS)
    begin = len(value) - len(kept)
    return begin, begin + len(kept.rstrip(WS))


def element_spans(value: str) -> list[tuple[int, int]]:
    """Where the elements of a comma list begin and end, white space around them and empty elements left out."""
    if "," not in value:
        begin, end = trim(value)
        return [(begin, end)] if begin < end else []
    spans = []
    end = 0
    while (found := _ELEMENT.match(value, end)) is not None:
        begin, end = found.span(1)
        if value[end - 1] in WS:
            spans.append((begin, begin + len(found.group(1).rstrip(WS))))
        else:
            spans.append((begin, end))
    return spans


def split_commas(value: str) -> list[str]:
    """The elements of a comma list; commas inside quotes and angle brackets do not separate. Empty elements are
    dropped."""
    return [value[begin:end] for begin, end in element_spans(value)]


def split_params(text: str) -> list[str]:
    """The pieces between semicolons outside quotes, untouched: ``";".join(pieces) == text``."""
    if '"' not in text:
        return text.split(";")
    pieces = []
    at = 0
    while at <= len(text):
        found = _PIECE.match(text, at)
        end = found.end() if found else len(text)
        pieces.append(text[at:end])
        at = end + 1
    return pieces


def quotes_closed(text: str) -> bool:
    """Whether every quoted string in the text has its end."""
    return '"' not in text or _CLOSED.fullmatch(text) is not None


def quote(text: str) -> str:
    """``text`` as a quoted-string."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def unquote(text: str) -> str:
    """What a quoted-string says; text that is not quoted is returned as it is."""
    if len(text) >= 2 and text[0] == '"' and text[-1] == '"':
        return _ESCAPE.sub(r"\1", text[1:-1])
    return text


class Params(Mapping[str, str]):
    """Parameters ``;name=value;name`` in their order. Names match in any case; a name without value has the value "".

    Values are as written, quotes included. Of a name that comes twice the first counts.
    """

    __slots__ = ("_items", "text")

    text: str
    "All of it as written, from the first semicolon on (or white space before it); empty if there are none."

    def __init__(self, text: str) -> None:
        self.text = text
        self._items: dict[str, str] | None = None

    def _read(self) -> dict[str, str]:
        if self._items is None:
            items: dict[str, str] = {}
            for piece in split_params(self.text)[1:]:
                name, _, value = piece.partition("=")
                name = name.strip(WS).lower()
                if name and name not in items:
                    items[name] = value.strip(WS)
            self._items = items
        return self._items

    def __getitem__(self, name: str) -> str:
        return self._read()[name.lower()]

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name.lower() in self._read()

    @overload
    def get(self, name: str, default: None = None, /) -> str | None: ...
    @overload
    def get(self, name: str, default: str | _T, /) -> str | _T: ...
    def get(self, name: str, default: str | _T | None = None, /) -> str | _T | None:
        """The value of a parameter, or ``default``."""
        return self._read().get(name.lower(), default)

    def __iter__(self) -> Iterator[str]:
        return iter(self._read())

    def __len__(self) -> int:
        return len(self._read())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Params) and self.text == other.text

    def __hash__(self) -> int:
        return hash(self.text)

    def __repr__(self) -> str:
        return f"Params({self.text!r})"

    def with_param(self, name: str, value: str | None = None) -> "Params":
        """The same with ``name`` set (None: without a value): in its place if it is there, else at the end."""
        pieces = split_params(self.text)
        for at, piece in enumerate(pieces[1:], 1):
            if _param_name(piece) == name.lower():
                pieces[at] = _set_value(piece, value)
                return Params(";".join(pieces))
        kept = self.text.rstrip(WS)
        added = f";{name}" if value is None else f";{name}={value}"
        return Params(kept + added + self.text[len(kept) :])

    def without_param(self, name: str) -> "Params":
        """The same without any parameter ``name``."""
        first, *pieces = split_params(self.text)
        kept = [piece for piece in pieces if _param_name(piece) != name.lower()]
        return Params(";".join([first, *kept])) if len(kept) != len(pieces) else self


def parse_params(text: str) -> Params:
    """The parameters in ``text``, which begins with a semicolon or is empty."""
    return Params(text)


def _param_name(piece: str) -> str:
    return piece.partition("=")[0].strip(WS).lower()


def _set_value(piece: str, value: str | None) -> str:
    """One ``name=value`` with another value: the name's spelling and all white space stay."""
    name, equals, old = piece.partition("=")
    tail = piece[len(piece.rstrip(WS)) :]
    if value is None or not equals:
        head = name.rstrip(WS)
        return head + ("" if value is None else f"={value}") + tail
    lead = old[: len(old) - len(old.lstrip(WS))] if old.strip(WS) else ""
    return f"{name}={lead}{value}{tail}"
