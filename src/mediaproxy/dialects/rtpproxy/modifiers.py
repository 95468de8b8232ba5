"""What stands behind the verb of U and L: one letter each, some with a value, in any order and case.

Bytes come in, Modifiers go out, or the Refusal with the number that the original answers to what it cannot read.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from mediaproxy.dialects.rtpproxy.errors import Code, Refusal
from mediaproxy.endpoint import address_text

_NUMBER = re.compile(rb"[ \t]*([+-]?[0-9]+)")
_CODECS = re.compile(rb"[0-9,]*")
_IPV4 = re.compile(rb"[0-9.]+")
_IPV6 = re.compile(rb"\[([^\]]*)\]")
_LABEL = re.compile(rb"\{([^}]+)\}")
_TAIL = re.compile(rb"[cC]([0-9,]*)\Z")


@dataclass(slots=True)
class Modifiers:
    """Those of one command."""

    asymmetric: bool = False
    "``a``: the party sends from one port and listens on another; ``s`` takes it back."
    sides: str = ""
    """Up to two of ``e`` (external) and ``i`` (internal): the address that faces the party, then the one that faces
    the other party."""
    ipv6: bool = False
    "``6``: media by IPv6."
    weak: bool = False
    "``w``: the session lives only as long as its party wants it."
    ptime: int = 0
    "``z``: milliseconds of a packet that the server wants to be made of those that come; 0: none."
    codecs: tuple[int, ...] | None = None
    "``c``: payload types of the m= line; empty: none that is a number. None: not told, no RTP perhaps."
    local: str = ""
    "``l``: the relay's address to use, or its name."
    new_port: bool = False
    "``n``: another port than the one that the stream has."
    remote: str = ""
    "``r``: an address that the relay's address to use can reach."


def read(text: bytes) -> Modifiers:
    """Read them."""
    found = Modifiers()
    at = 0
    while at < len(text):
        letter = text[at : at + 1].lower()
        if not letter.isalnum():
            _rest(found, text[at:])
            break
        at = _one(found, letter, text, at + 1)
    return found


def _one(found: Modifiers, letter: bytes, text: bytes, at: int) -> int:
    """Take one letter; where the next one is."""
    match letter:
        case b"a" | b"s":
            found.asymmetric = letter == b"a"
        case b"6":
            found.ipv6 = True
        case b"w":
            found.weak = True
        case b"n":
            found.new_port = True
        case b"e" | b"i":
            if len(found.sides) == 2:
                raise Refusal(Code.EXTERNAL if letter == b"e" else Code.INTERNAL)
            found.sides += letter.decode("ascii")
        case _:
            if letter not in _VALUES:
                raise Refusal(Code.UNKNOWN_MODIFIER)
            return _VALUES[letter](found, text, at)
    return at


def _ptime(found: Modifiers, text: bytes, at: int) -> int:
    number = _NUMBER.match(text, at)
    found.ptime = int(number[1]) if number is not None and len(number[1]) < 9 else 0
    if number is None or not 0 < found.ptime < 1000:
        raise Refusal(Code.PTIME)
    return number.end()


def _codecs(found: Modifiers, text: bytes, at: int) -> int:
    """An empty list comes from Kamailio for MSRP, whose format is no number; the original refuses it."""
    listed = _CODECS.match(text, at)
    assert listed is not None  # it may be empty
    if found.codecs is not None:
        raise Refusal(Code.CODECS)
    found.codecs = _numbers(listed[0])
    return listed.end()


def _numbers(listed: bytes) -> tuple[int, ...]:
    short = [number for number in listed.split(b",") if 0 < len(number) <= 3]
    return tuple(dict.fromkeys(int(number) for number in short if int(number) <= 127))


def _local(found: Modifiers, text: bytes, at: int) -> int:
    label = _LABEL.match(text, at)
    if label is not None:
        found.local = label[1].decode("latin-1")
        return label.end()
    found.local, end = _address(text, at, Code.LOCAL_SYNTAX, Code.LOCAL_ADDRESS)
    return end


def _remote(found: Modifiers, text: bytes, at: int) -> int:
    found.remote, end = _address(text, at, Code.REMOTE_SYNTAX, Code.REMOTE_ADDRESS)
    return end


def _address(text: bytes, at: int, missing: Code, wrong: Code) -> tuple[str, int]:
    written = _IPV6.match(text, at) or _IPV4.match(text, at)
    if written is None:
        raise Refusal(missing)
    address = address_text((written[1] if written.re is _IPV6 else written[0]).decode("latin-1"))
    if address is None:
        raise Refusal(wrong)
    return address, written.end()


def _rest(found: Modifiers, rest: bytes) -> None:
    """From the first byte on that can be no modifier it is memory that Kamailio 5.6 has not filled; only the codecs at
    its end are told on purpose."""
    codecs = _TAIL.search(rest)
    if codecs is None or found.codecs is not None:
        raise Refusal(Code.UNKNOWN_MODIFIER)
    found.codecs = _numbers(codecs[1])


_VALUES: Mapping[bytes, Callable[[Modifiers, bytes, int], int]] = {
    b"z": _ptime,
    b"c": _codecs,
    b"l": _local,
    b"r": _remote,
}
