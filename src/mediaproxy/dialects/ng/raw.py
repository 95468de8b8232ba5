"""``rtpp-flags``: all words of a request as one text, which newer modules pass on as their operator wrote it.

A text comes in, words and values go out. What is not closed ends with the text.
"""

import re
from collections.abc import Iterator
from typing import Any

DEEPEST = 8
"Brackets within brackets; what is deeper counts for nothing."
_TOKEN = re.compile(r"\[|\]|[^\s\[\]]+")


def parsed(text: str) -> Iterator[tuple[str, Any]]:
    """The words of ``rtpp-flags``, each with its value if it has one: ``a b=c d=[e f] g=[h=[i j]] k=[[l m] [n o]]``."""
    tokens = [match[0] for match in _TOKEN.finditer(text)]
    yield from ((name, value) for name, value in _words(iter(tokens), 0) if name)


def _words(tokens: Iterator[str], depth: int) -> Iterator[tuple[str, Any]]:
    """What is in brackets by itself has an empty name."""
    pending: str | None = None
    for token in tokens:
        if token == "]":
            break
        if token == "[":
            inner = list(_words(tokens, depth + 1)) if depth < DEEPEST else []
            yield pending or "", _nested(inner)
            pending = None
            continue
        if pending is not None:
            yield pending, b""
            pending = None
        name, equals, value = token.partition("=")
        if equals and not value:
            pending = name
        elif equals:
            yield name, value.encode("latin-1")
        else:
            yield token, None
    if pending is not None:
        yield pending, b""


def _nested(inner: list[tuple[str, Any]]) -> Any:
    """A dictionary if it has keys, else a list of words, and of lists."""
    if any(name and value is not None for name, value in inner):
        return {name: value if value is not None else b"" for name, value in inner if name}
    return [name.encode("latin-1") if name else value for name, value in inner]
