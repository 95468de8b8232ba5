"""Where in a TOML text a key stands, so that an error can name the line: the standard parser does not tell.

TOML text comes in, line numbers go out. A best effort on text that has parsed already: what it does not find (a key
inside an inline table) is looked for one level up.
"""

import re
from collections.abc import Iterator

Path = tuple[str | int, ...]
'Keys and list positions from the top, such as ``("edge", "listeners", 0, "bind")``.'

_KEY = r"""(?:"[^"]*"|'[^']*'|[A-Za-z0-9_-]+)"""
_DOTTED = rf"{_KEY}(?:\s*\.\s*{_KEY})*"
_HEADER = re.compile(rf"\s*(\[\[?)\s*({_DOTTED})\s*\]")
_ASSIGNMENT = re.compile(rf"\s*({_DOTTED})\s*=")


def line_numbers(text: str) -> dict[Path, int]:
    """The line, from 1, of every table header and key that stands at the beginning of a line."""
    found: dict[Path, int] = {}
    table: Path = ()
    sizes: dict[Path, int] = {}
    for number, line in _plain_lines(text):
        if header := _HEADER.match(line):
            table = _place(_keys(header[2]), sizes, new=header[1] == "[[")
            found.setdefault(table, number)
        elif assignment := _ASSIGNMENT.match(line):
            found.setdefault(table + _keys(assignment[1]), number)
    return found


def line_of(path: Path, numbers: dict[Path, int]) -> int | None:
    """The line of the key, or of the first one inside it, or of the nearest table around it; None if none is known."""
    inside = [number for key, number in numbers.items() if path and key[: len(path)] == path]
    return (
        min(inside)
        if inside
        else next((numbers[path[:end]] for end in range(len(path), 0, -1) if path[:end] in numbers), None)
    )


def _plain_lines(text: str) -> Iterator[tuple[int, str]]:
    """The lines that do not begin inside a multi-line string."""
    inside = ""
    for number, line in enumerate(text.split("\n"), 1):
        if not inside:
            yield number, line
        for mark in re.findall(r'"""|\'\'\'', line):
            inside = "" if inside == mark else inside or mark


def _keys(dotted: str) -> tuple[str, ...]:
    return tuple(key.strip("\"'") for key in re.findall(_KEY, dotted))


def _place(keys: tuple[str, ...], sizes: dict[Path, int], *, new: bool) -> Path:
    """The path of a table header; elements of lists of tables (``[[…]]``) are counted in ``sizes``."""
    path: Path = ()
    for at, key in enumerate(keys, 1):
        path += (key,)
        if at == len(keys) and new:
            sizes[path] = sizes.get(path, 0) + 1
        if path in sizes:
            path += (sizes[path] - 1,)
    return path
