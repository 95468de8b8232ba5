"""Asymmetric-client lists: which user agents send from one port and listen on another.

The text of a list file comes in (one POSIX extended regular expression a line), an AgentList that answers "is this user
agent one of them?" goes out. Matching takes time linear in the text whatever the pattern is (google-re2), so neither an
operator's typo nor a peer's User-Agent can hang a server. Nothing here reads files: the shell does, and re-reads them.
"""

from dataclasses import dataclass, field
from typing import Any

import re2

_SPACE = " \t\r\f\v"
_BOM = "\xef\xbb\xbf"
"A UTF-8 byte order mark, read as Latin-1."


def _options() -> Any:
    options = re2.Options()
    options.encoding = re2.Options.Encoding.LATIN1
    options.posix_syntax = True
    options.case_sensitive = False
    options.one_line = True  # ^ and $ are the ends of the whole text, as regcomp(3) without REG_NEWLINE has it
    options.dot_nl = True
    options.perl_classes = True  # \w, \s and \b: the GNU library, which the original was linked with, knows them
    options.word_boundary = True
    options.never_capture = True
    options.log_errors = False
    return options


_OPTIONS = _options()


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """A line of a list that is no usable expression. It is skipped, the others stay in force."""

    line: int
    "Number of the line, from 1."
    text: str
    "The line, without the space around it."
    reason: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.text!r} is skipped: {self.reason}"


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentList:
    """Expressions of which one must match. The empty list matches nobody."""

    name: str = ""
    "What the list is called in messages, such as the path of its file."
    patterns: tuple[str, ...] = ()
    "The expressions in force, as written."
    problems: tuple[Problem, ...] = ()
    "The lines that were skipped."
    _compiled: tuple[Any, ...] = field(default=(), repr=False, compare=False)

    @classmethod
    def parse(cls, text: str, name: str = "") -> "AgentList":
        """Read the text of a list file. Never fails: what cannot be used is in ``problems``.

        ``text`` is the file decoded as Latin-1, because User-Agent texts are too: bytes are compared with bytes. One
        expression a line, of any length; space around it is cut off; blank lines and lines that start with ``#`` are
        comments. Characters beyond Latin-1 (a caller that decoded as UTF-8) are taken as their UTF-8 bytes.
        """
        patterns: list[str] = []
        problems: list[Problem] = []
        compiled: list[Any] = []
        for number, raw in enumerate(text.removeprefix(_BOM).split("\n"), 1):
            line = raw.strip(_SPACE)
            if not line or line.startswith("#"):
                continue
            try:
                compiled.append(re2.compile(_translate(_bytes(line)), _OPTIONS))
            except (re2.error, ValueError) as error:
                problems.append(Problem(line=number, text=line, reason=_reason(error)))
            else:
                patterns.append(line)
        return cls(name=name, patterns=tuple(patterns), problems=tuple(problems), _compiled=tuple(compiled))

    def matches(self, user_agent: str) -> bool:
        """Whether one of the expressions is found anywhere in ``user_agent``, in any case of letters."""
        return self.match(user_agent) is not None

    def match(self, user_agent: str) -> str | None:
        """The first expression found in ``user_agent``, for explanations; None if there is none.

        An empty text (no User-Agent and no Server header) matches nothing: nobody is put on a list for being silent.
        """
        if not self._compiled or not user_agent:
            return None
        data = _bytes(user_agent)
        for pattern, compiled in zip(self.patterns, self._compiled, strict=True):
            if compiled.search(data) is not None:
                return pattern
        return None

    def __len__(self) -> int:
        return len(self.patterns)


def _bytes(text: str) -> bytes:
    try:
        return text.encode("latin-1")
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogateescape")


def _reason(error: Exception) -> str:
    first = error.args[0] if error.args else ""
    return first.decode("latin-1") if isinstance(first, bytes) else str(first)


def _translate(pattern: bytes) -> bytes:
    """A POSIX extended expression in re2's syntax. ValueError for the few things that re2 would silently misread.

    They differ in: the backslash, which is an ordinary character inside POSIX brackets; collating elements, which re2
    lacks; the GNU words ``\\<`` and ``\\>``; ``x+?``, which POSIX reads as ``(x+)?``.
    """
    out = bytearray()
    position = 0
    while position < len(pattern):
        char = pattern[position : position + 1]
        if char == b"\\":
            pair = pattern[position : position + 2]
            out += b"\\b" if pair in (b"\\<", b"\\>") else pair
            position += 2
        elif char == b"[":
            end = _bracket_end(pattern, position)
            out += pattern[position:end].replace(b"\\", b"\\\\")
            position = end
        elif pattern.startswith(b"+?", position):
            out += b"*"
            position += 2
        else:
            out += char
            position += 1
    return bytes(out)


def _bracket_end(pattern: bytes, start: int) -> int:
    """The position behind the bracket expression that opens at ``start``. ValueError if it is not closed."""
    position = start + 1
    if pattern.startswith(b"^", position):
        position += 1
    if pattern.startswith(b"]", position):  # a first ] is an ordinary character
        position += 1
    while position < len(pattern):
        if pattern.startswith((b"[.", b"[="), position):
            raise ValueError("collating elements ([.x.] and [=x=]) are not supported")
        if pattern.startswith(b"[:", position):
            closing = pattern.find(b":]", position + 2)
            if closing < 0:
                raise ValueError("missing :] of a character class")
            position = closing + 2
        elif pattern.startswith(b"]", position):
            return position + 1
        else:
            position += 1
    raise ValueError("missing ]")
