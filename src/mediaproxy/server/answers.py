"""What a running server answers on its control socket, as values that the CLI reads back."""

import msgspec

from mediaproxy.dialects.doorreport import DoorReport
from mediaproxy.edge.binding import Binding
from mediaproxy.edge.farewell import Farewell
from mediaproxy.edge.keepalive import Pinged
from mediaproxy.events import CallReport


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """The server itself."""

    version: str
    pid: int
    started: float
    "Seconds since the epoch."
    listeners: tuple[str, ...]
    "Where it takes SIP, such as ``udp:192.0.2.1:5060``."
    domains: tuple[str, ...]
    media: tuple[str, ...]
    "Addresses that media comes to."
    plane: str
    "What forwards media: ``user`` or ``kernel``; empty: this process relays none."
    why_not_kernel: str = ""
    "Why media is not relayed in the kernel, although that was tried; else empty."
    packets: dict[str, int] = {}
    "What became of packets to the relay's ports, by the names of docs/kernel.md; empty: not counted in user space."
    questions: tuple[str, ...] = ()
    "Where it takes questions about media, such as ``unix:/var/run/proxydispatcher.sock``."
    records: str
    "The file of call records."
    calls: int
    registrations: int
    web: str = ""
    "Where it listens for HTTP; empty: nowhere."


class Calls(msgspec.Struct, frozen=True, kw_only=True):
    """All calls."""

    now: float
    "The server's clock, which the reports' times are of."
    calls: tuple[CallReport, ...]
    why_not_kernel: str = ""
    "As in Status."


class Ended(msgspec.Struct, frozen=True, kw_only=True):
    """A call that an operator has ended."""

    ended: str
    "Its Call-ID."
    phones: Farewell
    "What its phones were told."


class Registrations(msgspec.Struct, frozen=True, kw_only=True):
    """All registrations."""

    now: float
    registrations: tuple[Binding, ...]
    pings: tuple[Pinged | None, ...] = ()
    "How each of them is pinged; None: it is not."

    @property
    def pinged(self) -> tuple[tuple[Binding, Pinged | None], ...]:
        """Both together."""
        return tuple(zip(self.registrations, self.pings, strict=True))


class RelayShown(msgspec.Struct, frozen=True, kw_only=True):
    """One relay of a dispatcher."""

    name: str
    address: str
    "How it is reached; ``local``: it is in the dispatcher's process."
    up: bool
    why: str = ""
    "What is wrong, if it is not up."
    weight: float = 1.0
    tier: int = 0
    domains: tuple[str, ...] = ()
    "Whose calls it gets; none: those of domains without relays of their own."
    named_by_dns: bool = False
    "It stands in no configuration: DNS names it for some domains."


class Relays(msgspec.Struct, frozen=True, kw_only=True):
    """All relays of a dispatcher."""

    relays: tuple[RelayShown, ...]


class DoorsShown(msgspec.Struct, frozen=True, kw_only=True):
    """All sockets on which SIP servers ask in the words of another protocol."""

    doors: tuple[DoorReport, ...]
    notices_told: int = 0
    "Calls that ended by themselves, and whose SIP server was told."
    notices_failed: int = 0
    "Those of whose end it could not be told, or of too many at a time was not."
