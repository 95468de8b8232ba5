"""One command of rtpproxy as a value.

Bytes without a cookie come in, a Command goes out, or the Refusal with the number that the original answers: an unknown
verb first, then the number of arguments, then modifiers, then subcommands.
"""

import re
from dataclasses import dataclass

from mediaproxy.dialects.rtpproxy.errors import Code, Refusal
from mediaproxy.endpoint import ip_address

MOST_WORDS = 24
"Of a command, the verb included."
MOST_SUBCOMMANDS = 15
MOST_COUNTERS = 19
"Names that Q or G take."

_SPACE = re.compile(rb"[\r\n\t ]+")
_PLAIN = re.compile(rb"[A-Za-z0-9.:,{}\[\]_-]*")
"The bytes of a verb and modifiers that somebody has written on purpose."


@dataclass(frozen=True, slots=True)
class _Form:
    """What a verb takes: number of arguments, and whether modifiers."""

    least: int
    most: int
    modifiers: bool = True


_FORMS = {
    "U": _Form(4, 7),
    "L": _Form(4, 5),
    "D": _Form(2, 3),
    "P": _Form(4, 5),
    "R": _Form(2, 3),
    "C": _Form(3, 4),
    "S": _Form(2, 3, modifiers=False),
    "N": _Form(2, 3),
    "Q": _Form(2, 3 + MOST_COUNTERS),
    "V": _Form(0, 0, modifiers=False),
    "VF": _Form(1, 1, modifiers=False),
    "I": _Form(0, 0),
    "X": _Form(0, 0, modifiers=False),
    "G": _Form(0, MOST_COUNTERS),
}


@dataclass(frozen=True, slots=True)
class Command:
    """A command with as many arguments as its verb takes."""

    verb: str
    "A letter, or ``VF``."
    modifiers: bytes
    "What follows the verb, as it was written."
    arguments: tuple[str, ...]
    "Latin-1."

    def argument(self, index: int) -> str:
        """One of them; empty if it is missing."""
        return self.arguments[index] if index < len(self.arguments) else ""


def split_cookie(datagram: bytes) -> tuple[bytes, bytes]:
    """The cookie of a datagram and its command. Both are empty if it has no words."""
    words = _SPACE.split(datagram.lstrip(b"\r\n\t "), 1)
    return words[0], words[1] if len(words) > 1 else b""


def parse(data: bytes) -> Command:
    """Read a command. Refusal with the error number that the original answers."""
    words, subcommands = _words(data)
    verb, modifiers = _verb(words[0])
    if verb in ("U", "L"):
        words = _mended(words)
        modifiers = words[0][1:]
    form = _FORMS[verb]
    if not form.least <= len(words) - 1 <= form.most:
        raise Refusal(Code.ARGUMENTS)
    if modifiers and not form.modifiers:
        raise Refusal(Code.MODIFIERS)
    if subcommands:
        raise Refusal(Code.SUBCOMMAND)
    return Command(verb, modifiers, tuple(word.decode("latin-1") for word in words[1:]))


def _words(data: bytes) -> tuple[list[bytes], int]:
    """The command's words, the verb first, and how many subcommands follow."""
    parts: list[list[bytes]] = [[]]
    for word in _SPACE.split(data):
        if word == b"&&":
            parts.append([])
        elif word:
            parts[-1].append(word)
    if not all(parts) or len(parts) - 1 > MOST_SUBCOMMANDS or any(len(part) > MOST_WORDS for part in parts):
        raise Refusal(Code.SYNTAX)
    return parts[0], len(parts) - 1


def _verb(word: bytes) -> tuple[str, bytes]:
    verb, rest = word[:1].decode("latin-1").upper(), word[1:]
    if verb == "V" and rest[:1] in (b"F", b"f"):
        return "VF", rest[1:]
    if verb not in _FORMS:
        raise Refusal(Code.UNKNOWN_COMMAND)
    return verb, rest


def _mended(words: list[bytes]) -> list[bytes]:
    """U and L of Kamailio 5.6 with the flag ``z``: for every stream but the first it sends memory that it has not
    filled between its modifiers (tests/captures/rtpproxy.cap), and there may be spaces in that. Where the Call-ID is
    can be told by what must follow it."""
    if _PLAIN.fullmatch(words[0]):
        return words
    for at in range(1, len(words) - 3):
        if ip_address(words[at + 1].decode("latin-1")) is not None and words[at + 2].isdigit():
            return [b" ".join(words[:at]), *words[at:]]
    return words
