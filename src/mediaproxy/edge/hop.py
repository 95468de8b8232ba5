"""Where a message came from and where it goes: the values that pure routing and the sockets exchange.

Nothing here opens, resolves or decides.
"""

from typing import Protocol

import msgspec

from mediaproxy.edge.settings import Listener, Transport
from mediaproxy.endpoint import Endpoint


class Inbound(msgspec.Struct, frozen=True):
    """How a message reached us. It has all that ``nat.Arrival`` says, and the connection."""

    source: Endpoint
    "Address and port that it came from."
    transport: Transport
    local: Endpoint
    "The socket of ours that it came to, as bound."
    connection: str = ""
    "Identity of the TCP or TLS connection; empty for UDP. No two connections of any server run share one."


class Hop(msgspec.Struct, frozen=True):
    """One way to send a message."""

    transport: Transport
    remote: Endpoint
    local: Endpoint | None = None
    "The socket of ours to send from (UDP), or whose address goes into Via; None: the one that faces ``remote``."
    connection: str = ""
    "Send over this connection. Empty with TCP and TLS: over any to ``remote``."
    connect: bool = True
    "Whether a connection may be opened. Never to a NATed contact (calls.md 18)."
    name: str = ""
    "The name that a TLS server must prove (RFC 5922); empty: none, it was addressed by number."


class Network(Protocol):
    """What routing must know of the sockets. Asking changes nothing."""

    @property
    def listeners(self) -> tuple[Listener, ...]:
        """Every socket that is open, wildcards expanded."""

    def facing(self, transport: Transport, remote: Endpoint) -> Listener | None:
        """The listener whose address the host would use towards ``remote``; None: no listener of that transport can
        reach it."""

    def connection(self, transport: Transport, remote: Endpoint) -> str:
        """A live connection with that peer; empty if there is none."""

    def alive(self, connection: str) -> bool:
        """Whether the connection is open."""
