"""Peers' text as a terminal may have it.

Text and bytes of peers come in, printable text goes out: control characters are made visible by their bytes, as
``\\xNN``, so that no phone and no captured message can play with a terminal. Our own words are ASCII.
"""

from collections.abc import Iterable


def shown(text: str) -> str:
    """Text of a peer (Latin-1, a character per byte), or with some of it inside: as UTF-8 if it is, else as Latin-1."""
    data = text.encode("latin-1", "replace")
    try:
        return _visible(data.decode("utf-8"), "utf-8")
    except UnicodeDecodeError:
        return _visible(data.decode("latin-1"), "latin-1")


def shown_all(lines: Iterable[str]) -> tuple[str, ...]:
    """Several texts."""
    return tuple(shown(line) for line in lines)


def shown_lines(data: bytes) -> tuple[str, ...]:
    """A whole message line by line. Every byte can be told: what is no UTF-8 is ``\\xNN``, and a line that does not end
    in CR LF shows how it ends. The last one has no end."""
    *lines, last = data.split(b"\n")
    shown = [_exactly(line[:-1]) if line.endswith(b"\r") else f"{_exactly(line)}\\x0a" for line in lines]
    return (*shown, _exactly(last)) if last else tuple(shown)


def _exactly(data: bytes) -> str:
    return _visible(data.decode("utf-8", "backslashreplace"), "utf-8")


def _visible(text: str, encoding: str) -> str:
    return "".join(char if char.isprintable() else _escaped(char.encode(encoding)) for char in text)


def _escaped(data: bytes) -> str:
    return "".join(f"\\x{byte:02x}" for byte in data)
