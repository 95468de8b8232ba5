"""How rtpproxy's commands name parties, streams, and whom to tell of a timeout.

Each tag of a U or L has the number of the stream behind it, ``;1`` for the first m= line; old servers, and commands
about whole calls, leave it out.
"""

import re
from collections.abc import Iterable
from urllib.parse import unquote_to_bytes

from mediaproxy.dialects.rtpproxy.sockets import DEFAULT, SELF, permits

SCHEME = "rtpp:"
"With which MediaRequest.notify of this dialect begins."

_NUMBERED = re.compile(r"(.*);([0-9]{1,9})", re.DOTALL)
_TCP = re.compile(r"tcp:([^:]+|\[[^\]]+\]):([0-9]{1,5})")
_ENCODED = re.compile(r"(?:[^%\x00-\x1f\x7f]|%[2-689A-Fa-f][0-9A-Fa-f]|%7[0-9A-Ea-e])*")
"Without control characters: a notice is one line, and whoever reads it may take a second one for his own."


def numbered(tag: str) -> tuple[str, int | None]:
    """A tag without its number, and the index of the stream, from 0; None: it has no number."""
    found = _NUMBERED.fullmatch(tag)
    return (found[1], max(0, int(found[2]) - 1)) if found is not None else (tag, None)


def parties(first: str, second: str) -> tuple[str, str, int]:
    """Two tags without numbers, and the index of the stream that they name: the first one if neither has a number."""
    one, at = numbered(first)
    other, also = numbered(second)
    return one, other, at if at is not None else also or 0


def is_socket(word: str) -> bool:
    """Whether an argument names a timeout socket: an absolute path, or something with a colon. No tag has a colon or a
    slash (RFC 3261 §25.1), but phones that write base64 have slashes in theirs."""
    return ":" in word or word.startswith("/")


def notice(socket: str, tag: str, host: str, sockets: Iterable[str] = DEFAULT) -> str | None:
    """What MediaRequest.notify says. ``tag``: URL-encoded; None if it is not. ``host``: of who asks, for CC_SELF.
    ``sockets``: those that may be told; another one, or one that cannot be read, counts as none.
    """
    if not _ENCODED.fullmatch(tag):
        return None
    target = _target(socket, host)
    if not permits(sockets, target, host):
        return SCHEME
    return f"{SCHEME}{target} {unquote_to_bytes(tag.encode('latin-1')).decode('latin-1')}"


def _target(socket: str, host: str) -> str:
    """``unix:PATH`` or ``tcp:HOST:PORT``; empty: neither."""
    tcp = _TCP.fullmatch(socket.replace(SELF, host or "127.0.0.1"))
    if tcp is not None:
        return tcp[0] if 0 < int(tcp[2]) <= 65535 else ""
    path = socket.removeprefix("unix:")
    return f"unix:{path}" if path and "\0" not in path and (path != socket or path.startswith("/")) else ""


def target(notify: str) -> tuple[str, bytes]:
    """Socket and tag of what ``notice`` has made; an empty socket: nobody is told."""
    socket, _, tag = notify.removeprefix(SCHEME).partition(" ")
    return socket, tag.encode("latin-1", "replace")
