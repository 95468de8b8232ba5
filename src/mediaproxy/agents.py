"""Asymmetric-client lists: which user agents send from one port and listen on another.

The text of a list file comes in (one POSIX extended regular expression a line), an AgentList that answers "is this user
agent one of them?" goes out. Matching takes time linear in the text whatever the pattern is (google-re2), so neither an
operator's typo nor a peer's User-Agent can hang a server. Nothing here reads files: the shell does, and re-reads them.
"""

import re
from dataclasses import dataclass, field
from typing import Any

import re2

SIP_ASYMMETRICS = "/etc/openser/sip-asymmetric-clients"
"Where the original looks for the list of SIP-asymmetric clients."
RTP_ASYMMETRICS = "/etc/openser/rtp-asymmetric-clients"
"Where it looks for that of RTP-asymmetric ones."
ENTRIES = 1000
"Expressions that a list may have: more would cost a millisecond per message."
LONGEST = 4096
"Bytes of one expression."

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
        text = self.text if len(self.text) <= 80 else self.text[:80] + "…"
        return f"line {self.line}: {text!r} is skipped: {self.reason}"


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
        expression a line; space around it is cut off; blank lines and lines that start with ``#`` are comments. Lines
        longer than LONGEST are problems, and ENTRIES are read at most. Characters beyond Latin-1 (a caller that decoded
        as UTF-8) are taken as their UTF-8 bytes.
        """
        patterns: list[str] = []
        problems: list[Problem] = []
        compiled: list[Any] = []
        for number, raw in enumerate(text.removeprefix(_BOM).split("\n"), 1):
            line = raw.strip(_SPACE)
            if not line or line.startswith("#"):
                continue
            if len(patterns) + len(problems) == ENTRIES:
                reason = f"a list has {ENTRIES} entries at most; this line and those behind it are not read"
                problems.append(Problem(line=number, text=line, reason=reason))
                break
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


NOBODY = AgentList()
"A list that nobody is on."


def _bytes(text: str) -> bytes:
    try:
        return text.encode("latin-1")
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogateescape")


def _reason(error: Exception) -> str:
    first = error.args[0] if error.args else ""
    return first.decode("latin-1") if isinstance(first, bytes) else str(first)


def _translate(pattern: bytes) -> bytes:
    """A POSIX extended expression in re2's syntax. ValueError for what is none, and for what re2 cannot do.

    Without it re2 would silently read a few things in its own way: an interval such as ``{,3}``, a second repetition
    behind the first (``x+?`` is ``(x+)?``), a ``{`` or ``)`` that stands for itself, the backslash in brackets, and
    backslashes before letters and digits. What POSIX leaves open is taken as the GNU library, which the original was
    linked with, takes it.
    """
    if len(pattern) > LONGEST:
        raise ValueError(f"longer than {LONGEST} bytes")
    return _Translation(pattern).done()


_REPEATED = re.compile(rb"\{([0-9]{0,9})(?:(,)([0-9]{0,9}))?\}")
_MOST = 1000
"Repetitions that re2 can count."
_ASSERTIONS = {b"<": b"\\b", b">": b"\\b", b"b": b"\\b", b"B": b"\\B", b"`": b"^", b"'": b"$"}
_CLASSES = b"wWsSdD"
"Letters that stand for classes behind a backslash: those of the GNU library, and digits, which many expect."


class _Translation:
    """One expression on its way."""

    def __init__(self, pattern: bytes) -> None:
        self._pattern = pattern
        self._at = 0
        self._out = bytearray()
        self._atom: int | None = None
        "Where in the output the last thing begins that a repetition could be of; None: there is none."
        self._repeated = False
        "It is repeated already."
        self._open: list[int] = []
        "Where in the output the open groups begin."

    def done(self) -> bytes:
        """Translate it."""
        if b"\0" in self._pattern:
            raise ValueError("it has a NUL byte")
        while self._at < len(self._pattern):
            self._step(self._pattern[self._at : self._at + 1])
        if self._open:
            raise ValueError("missing )")
        return bytes(self._out)

    def _step(self, char: bytes) -> None:
        if char in b"*+?":
            self._at += 1
            self._repeat(char)
        elif char == b"{":
            self._interval()
        elif char == b"[":
            text, self._at = _bracket(self._pattern, self._at)
            self._put(text)
        elif char == b"\\":
            self._backslash()
        else:
            self._at += 1
            self._plain(char)

    def _plain(self, char: bytes) -> None:
        if char == b"(":
            self._open.append(len(self._out))
            self._assert(char)
        elif char == b")" and self._open:
            begin = self._open.pop()
            self._put(char)
            self._atom = begin
        elif char in b"^$|":
            self._assert(char)
        else:
            self._put(b"\\)" if char == b")" else char)

    def _put(self, text: bytes) -> None:
        """Something that can be repeated."""
        self._atom, self._repeated = len(self._out), False
        self._out += text

    def _assert(self, text: bytes) -> None:
        """Something that cannot."""
        self._atom = None
        self._out += text

    def _backslash(self) -> None:
        char = self._pattern[self._at + 1 : self._at + 2]
        self._at += 2
        if not char:
            raise ValueError("a backslash at the end")
        if char in _ASSERTIONS:
            self._assert(_ASSERTIONS[char])
        elif char in _CLASSES:
            self._put(b"\\" + char)
        elif char.isdigit():
            raise ValueError(f"back-references (\\{char.decode()}) are not supported")
        elif char.isalpha():
            raise ValueError(f"\\{char.decode()} means nothing")
        else:
            self._put(_literal(char))

    def _interval(self) -> None:
        found = _REPEATED.match(self._pattern, self._at)
        if found is None or not (found[1] or found[2]):
            raise ValueError("a { that begins no interval; write \\{ for the character")
        self._at = found.end()
        least = int(found[1] or 0)
        most = least if not found[2] else int(found[3]) if found[3] else None
        if most is not None and most < least:
            raise ValueError(f"the interval {found[0].decode()} ends before it begins")
        if max(least, most or 0) > _MOST:
            raise ValueError(f"more than {_MOST} repetitions")
        upper = "" if most is None else str(most)
        self._repeat(f"{{{least},{upper}}}".encode())

    def _repeat(self, operator: bytes) -> None:
        if self._atom is None:
            raise ValueError(f"nothing to repeat before {operator.decode()}")
        if self._repeated:
            self._out[self._atom : self._atom] = b"("
            self._out += b")"
        self._out += operator
        self._repeated = True


_NAMES = frozenset(b"alnum alpha blank cntrl digit graph lower print punct space upper xdigit".split())
_ELEMENT = re.compile(rb"\[([:.=])(.*?)\1\]", re.DOTALL)


def _bracket(pattern: bytes, start: int) -> tuple[bytes, int]:
    """The bracket expression that opens at ``start``, and the position behind it. ValueError if it is none."""
    out, at = bytearray(b"["), start + 1
    if pattern.startswith(b"^", at):
        out, at = bytearray(b"[^"), at + 1
    first = True
    while first or not pattern.startswith(b"]", at):
        if pattern.startswith(b"-", at) and not first and not pattern.startswith(b"-]", at):
            raise ValueError("a - that stands neither first nor last nor between two characters")
        low, at = _element(pattern, at)
        first = False
        if not pattern.startswith(b"-", at) or pattern.startswith(b"-]", at):
            out += low
            continue
        high, at = _element(pattern, at + 1)
        if low[:1] == b"[" or high[:1] == b"[" or low[-1] > high[-1]:
            raise ValueError("a range that does not go from one character to a later one")
        out += low + b"-" + high
    return bytes(out + b"]"), at + 1


def _element(pattern: bytes, at: int) -> tuple[bytes, int]:
    """One element of a bracket expression, a class or a character, and the position behind it."""
    found = _ELEMENT.match(pattern, at)
    if found is None:
        if pattern[at : at + 2] in (b"[:", b"[.", b"[="):
            raise ValueError(f"missing {pattern[at + 1 : at + 2].decode()}] in brackets")
        if at >= len(pattern):
            raise ValueError("missing ]")
        return _literal(pattern[at : at + 1]), at + 1
    kind, name = found[1], found[2]
    if kind == b":":
        if name not in _NAMES:
            raise ValueError(f"there is no class [:{name.decode('latin-1')[:20]}:]")
        return found[0], found.end()
    if len(name) != 1:
        raise ValueError("collating elements ([.x.] and [=x=]) of more than one character are not supported")
    return _literal(name), found.end()


def _literal(char: bytes) -> bytes:
    """One character that stands for itself."""
    return char if char.isalnum() or char >= b"\x80" or char == b" " else b"\\" + char
