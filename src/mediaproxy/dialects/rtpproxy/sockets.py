"""Which timeout sockets may be told of a call's end: the original takes those that it was started with (``-n``).

A target as ``names`` reads it comes in, yes or no goes out. Who may send commands must not be able to make this server,
with its rights, write to whatever listens on this host or behind it.
"""

from collections.abc import Iterable
from typing import TypeAlias

import msgspec

SELF = "%%CC_SELF%%"
"Host of a timeout socket that stands for whoever sent the command."
DEFAULT = (
    f"tcp:{SELF}:*",
    "unix:/run/kamailio/*",
    "unix:/run/opensips/*",
    "unix:/var/run/kamailio/*",
    "unix:/var/run/opensips/*",
    "unix:/tmp/*",
)
"Where SIP servers usually have theirs."
EXAMPLE = f"tcp:{SELF}:*, tcp:ADDRESS:PORT or unix:/PATH, which may end in *"
Patterns: TypeAlias = tuple[str, ...]


class RtpProxyOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """rtpproxy's protocol, at all doors that speak it (docs/migrate-rtpproxy.md)."""

    timeout_sockets: Patterns = DEFAULT
    """Timeout sockets that commands may name: ``tcp:HOST:PORT`` or ``unix:/PATH``, which may end in ``*``.
    ``%%CC_SELF%%`` stands for the address of the SIP server that asks. Others count as none."""


def is_pattern(text: str) -> bool:
    """Whether it could match anything."""
    kind, _, rest = text.partition(":")
    host, _, port = rest.rpartition(":")
    if kind == "unix":
        return rest.startswith("/") and "\0" not in rest
    return kind == "tcp" and (rest == "*" or (bool(host) and (port == "*" or (port.isascii() and port.isdigit()))))


def permits(patterns: Iterable[str], target: str, host: str = "") -> bool:
    """Whether one of the patterns is the target's. ``target``: ``unix:PATH`` or ``tcp:HOST:PORT``; ``host``: of who
    asks, IPv6 in brackets; empty: a process of this host."""
    if ".." in target.split("/"):
        return False
    own = (pattern.replace(SELF, host or "127.0.0.1") for pattern in patterns)
    return any(target.startswith(one[:-1]) if one.endswith("*") else target == one for one in own)
