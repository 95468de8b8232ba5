"""Bencode: strings, numbers, lists and dictionaries, as rtpengine and the modules of SIP servers write it.

Bytes come in, values go out, and back. Strings are bytes, whatever is in them; keys stand in any order; of equal ones
the last counts. Nothing but NgError is raised, and neither depth nor size of what peers send is taken on trust.
"""

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

Answer: TypeAlias = dict[str, object]
"""What is answered: values are texts (Latin-1, one character per byte) or bytes, whole numbers, lists, and dictionaries
of such."""
Value: TypeAlias = "bytes | int | list[Value] | dict[bytes, Value]"
Entry: TypeAlias = tuple[Any, Any, "bytes | str"]
"Of a dictionary: a key, its value, and how both are written."

DEEPEST = 32
"Lists and dictionaries within each other."
_LONGEST_NUMBER = 20
_KEYS = {
    key: f"{len(key)}:{key}"
    for key in (
        *("result", "sdp", "created", "created_us", "last signal", "SSRC", "tags", "totals", "RTP", "RTCP", "tag"),
        *("via-branch", "label", "subscriptions", "subscribers", "type", "medias", "index", "protocol", "codec"),
        *("streams", "flags", "local port", "local address", "family", "endpoint", "advertised endpoint", "stats"),
        *("last packet", "address", "port", "packets", "bytes", "errors", "last RTP seq", "cumulative loss"),
    )
}
"How keys of the usual answers are written."


class Written(str):
    """A value that is written already."""

    __slots__ = ()


NUMBER, VALUE = Written("i%de"), Written("%s")
"What stands in a ``form`` for a whole number and for a value that is written already."
_END, _DICTIONARY, _LIST, _INTEGER, _COLON, _MINUS = b"edli:-"


class NgError(ValueError):
    """Bytes that are no message of the NG protocol. The text is the ``error-reason`` that rtpengine gives."""


def decode(data: bytes, at: int = 0) -> Value:
    """The value that begins at ``at``; what stands behind it is not looked at, as rtpengine does not. NgError."""
    try:
        return _value(data, at, 0)[0]
    except (IndexError, ValueError) as error:
        raise NgError("Could not decode bencode dictionary") from error


def entries(data: bytes, at: int) -> list[Entry]:
    """Of the dictionary that begins at ``at``, as ``decode``; of equal keys the last one counts. NgError."""
    found: list[Entry] = []
    try:
        at += 1
        while data[at] != _END:
            begin = at
            start, at = string_at(data, at)
            key = data[start:at]
            value: Value
            if 0x30 <= data[at] <= 0x39:
                start, at = string_at(data, at)
                value = data[start:at]
            else:
                value, at = _value(data, at, 1)
            found.append((key, value, data[begin:at]))
    except (IndexError, ValueError) as error:
        raise NgError("Could not decode bencode dictionary") from error
    return found


def _value(data: bytes, at: int, depth: int) -> tuple[Value, int]:
    """IndexError or ValueError if none is there."""
    kind = data[at]
    if 0x30 <= kind <= 0x39:
        start, end = string_at(data, at)
        return data[start:end], end
    if kind == _INTEGER:
        return _integer(data, at + 1)
    if depth >= DEEPEST:
        raise ValueError("too deep")
    if kind == _DICTIONARY:
        return _dictionary(data, at + 1, depth + 1)
    if kind == _LIST:
        return _list(data, at + 1, depth + 1)
    raise ValueError("no value")


def string_at(data: bytes, at: int) -> tuple[int, int]:
    """Where the string that begins at ``at`` has its first byte and its end. ValueError if none is there, or it is not
    whole."""
    # Nearly all are shorter than 100 bytes: one digit or two.
    first, second = data[at] - 0x30, data[at + 1]
    if second == _COLON and 0 <= first <= 9:
        start, end = at + 2, at + 2 + first
    elif 0 <= first <= 9 and 0x30 <= second <= 0x39 and data[at + 2] == _COLON:
        start = at + 3
        end = start + 10 * first + second - 0x30
    else:
        start = data.index(_COLON, at, at + _LONGEST_NUMBER) + 1
        digits = data[at : start - 1]
        if not digits.isdigit():
            raise ValueError("no length")
        end = start + int(digits)
    if end > len(data):
        raise ValueError("not whole")
    return start, end


def _dictionary(data: bytes, at: int, depth: int) -> tuple[Value, int]:
    found: dict[bytes, Value] = {}
    while data[at] != _END:
        start, at = string_at(data, at)
        key = data[start:at]
        if 0x30 <= data[at] <= 0x39:
            start, at = string_at(data, at)
            found[key] = data[start:at]
        else:
            found[key], at = _value(data, at, depth)
    return found, at + 1


def _list(data: bytes, at: int, depth: int) -> tuple[Value, int]:
    found: list[Value] = []
    while data[at] != _END:
        if 0x30 <= data[at] <= 0x39:
            start, at = string_at(data, at)
            found.append(data[start:at])
        else:
            value, at = _value(data, at, depth)
            found.append(value)
    return found, at + 1


def _integer(data: bytes, at: int) -> tuple[Value, int]:
    end = data.index(_END, at, at + _LONGEST_NUMBER + 1)
    digits = data[at + 1 : end] if data[at] == _MINUS else data[at:end]
    if not digits.isdigit():
        raise ValueError("no number")
    return int(data[at:end]), end + 1


def encode(value: object) -> bytes:
    """The bytes of a value. Text is Latin-1, one character per byte; True and False are 1 and 0."""
    parts: list[str] = []
    _write(value, parts.append)
    return "".join(parts).encode("latin-1", "replace")


def written(value: object) -> Written:
    """A value that need not be written again."""
    return Written(encode(value).decode("latin-1"))


def form(value: object) -> str:
    """What becomes a written value by ``%``: for each NUMBER and VALUE in it. No percent sign may be in it."""
    return written(value)


def text(value: str) -> str:
    """A written text."""
    return f"{len(value)}:{value}"


def _write(value: object, put: Callable[[str], None]) -> None:
    # An answer with the statistics of a call has two hundred values: the types it really has come first.
    kind = type(value)
    if kind is dict:
        put("d")
        for key, one in value.items():  # type: ignore[attr-defined]  # a dict
            head = _KEYS.get(key) or _odd(key)
            inner = type(one)
            if inner is str:
                put(f"{head}{len(one)}:{one}")
            elif inner is int:
                put(f"{head}i{one}e")
            else:
                put(head)
                _write(one, put)
        put("e")
    elif kind is list:
        put("l")
        for one in value:  # type: ignore[attr-defined]  # a list
            if type(one) is str:
                put(f"{len(one)}:{one}")
            else:
                _write(one, put)
        put("e")
    else:
        put(_odd(value))


def _odd(value: object) -> str:
    """What is seldom in an answer."""
    if isinstance(value, Written):
        return value
    if isinstance(value, bytes):
        return f"{len(value)}:{value.decode('latin-1')}"
    if isinstance(value, str):
        return f"{len(value)}:{value}"
    if isinstance(value, Mapping):
        return encode({**value}).decode("latin-1")
    if isinstance(value, (list, tuple)):
        return encode([*value]).decode("latin-1")
    assert isinstance(value, int), f"the NG protocol has no {type(value)}"
    return f"i{int(value)}e"
