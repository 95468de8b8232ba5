"""Waist 2: what a plane must know to move packets: one Flow per lent local port. A plane makes flows real.

``relay/calls.py`` writes flows and cannot tell which plane carries them. Two flows name each other: a packet that comes
to A from A.source leaves from B.local to B.target, where B is A's peer. A flow that names a peer of another generation
forwards nothing (calls.md 12). What a plane does not forward itself it passes up as a Packet; ``calls`` decides.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Protocol

import msgspec

from mediaproxy.endpoint import Endpoint


class Flow(msgspec.Struct, frozen=True, kw_only=True):
    """Everything about one lent local port, RTP or RTCP. Installing it again with the same generation changes it."""

    local: Endpoint
    "Bind address and port: the key of the slot."
    generation: int
    "New each time the port is lent; old packets and counters of the port never mix with new ones."
    peer: Endpoint | None = None
    "``local`` of the flow that faces the other party; None: nothing is forwarded."
    peer_generation: int = 0
    source: Endpoint | None = None
    "The learned source. Packets from exactly there are forwarded by the plane; all others are passed up."
    target: Endpoint | None = None
    "Where packets for the party that this port faces are sent; None: not known yet, the plane drops and counts."
    allowed: tuple[str, ...] = ()
    "Prefixes (CIDR) whose packets may still change a decision; a plane may drop and count others. Empty: pass all."
    tos: int | None = None
    "IP TOS / traffic class of packets sent from here; None: keep."
    settled_at: float | None = None
    """From then on only a new port of the same address can replace the source (calls.md 6): a plane may treat allowed
    packets that cannot as it treats those of others. None: whoever is allowed may change a decision."""
    rtp_only: bool = False
    """Only RTP from the source is forwarded; what else comes from it is passed up: RTCP that leaves elsewhere (RFC
    5761), ICE checks that the relay answers."""
    clocks: tuple[tuple[int, int], ...] = ()
    "RTP payload type and clock rate in Hz of what comes here, the likeliest first: a plane may measure jitter by them."


class SlotCounters(msgspec.Struct, kw_only=True, gc=False):
    """What a plane knows of one flow: cumulative since the flow's generation was installed."""

    local: Endpoint
    generation: int
    packets: int = 0
    "Packets from ``source`` that the plane forwarded."
    bytes: int = 0
    "Their UDP payload bytes."
    last: float = 0.0
    "When the last packet from ``source`` came, forwarded or undeliverable; 0.0: none yet."
    ssrc: int | None = None
    "SSRC of the last RTP packet from ``source``."
    sequence: int = 0
    "Its RTP sequence number."
    payload_type: int | None = None
    "Its RTP payload type."
    undeliverable: int = 0
    "Packets from ``source`` that had nowhere to go: peer or target missing, or the network refused them."
    undeliverable_bytes: int = 0
    "Their UDP payload bytes."
    rtp: int = 0
    "RTP packets from ``source`` that a plane has measured; 0: it measures none."
    lost: int = 0
    "How many more of them its sequence numbers say were sent (RFC 3550 §6.4.1); duplicates count below 0."
    jitter: float | None = None
    "Interarrival jitter of them in seconds (RFC 3550 §6.4.1); None: not measured, or the clock rate is not known."
    dropped: int = 0
    "Packets from elsewhere that were not passed up, because more came than a decision can need (calls.md 13)."


class Counted(Protocol):
    """What has the counters that only grow."""

    packets: int
    bytes: int
    undeliverable: int
    dropped: int


class Carried(msgspec.Struct, frozen=True, kw_only=True):
    """What a plane has carried of all flows together, since it started; never less than before."""

    packets: int = 0
    "As in SlotCounters."
    bytes: int = 0
    undeliverable: int = 0
    dropped: int = 0

    def __add__(self, other: "Carried") -> "Carried":
        return Carried(
            packets=self.packets + other.packets,
            bytes=self.bytes + other.bytes,
            undeliverable=self.undeliverable + other.undeliverable,
            dropped=self.dropped + other.dropped,
        )

    def __sub__(self, other: "Carried") -> "Carried":
        return Carried(
            packets=self.packets - other.packets,
            bytes=self.bytes - other.bytes,
            undeliverable=self.undeliverable - other.undeliverable,
            dropped=self.dropped - other.dropped,
        )

    @classmethod
    def of(cls, slot: "Counted") -> "Carried":
        """Of one flow."""
        return cls(packets=slot.packets, bytes=slot.bytes, undeliverable=slot.undeliverable, dropped=slot.dropped)


class Packet(msgspec.Struct, frozen=True, kw_only=True):
    """A datagram that the plane did not forward."""

    local: Endpoint
    generation: int
    source: Endpoint
    data: bytes
    slot: SlotCounters
    "The slot's counters when it came: rule 6 compares SSRC, sequence and silence of the old source with them."


class Plane(Protocol):
    """Moves packets. Never decides who may speak, never parses SIP or SDP."""

    name: str
    "``kernel`` or ``user``: shown to operators."
    lasting: bool
    "Whether flows forward on, and counters count on, when the process has gone: ``adopt`` finds them."

    measures: bool
    """Whether ``rtp``, ``lost`` and ``jitter`` of its counters are filled. If not, the relay looks at the sequence
    numbers of all flows each second; else at counters only when it needs them."""

    def start(self, receive: Callable[[Packet], None]) -> None:
        """Begin to pass packets up to ``receive``. Called once."""

    def adopt(self) -> Iterable[tuple[Flow, SlotCounters]]:
        """The flows that an earlier process has left and that still forward, with their counters as they are now.
        Called once, after ``start`` and before anything is installed. Each is then installed again with its generation,
        which keeps its counters and loses no packet, or removed."""

    def install(self, flow: Flow) -> None:
        """Lend the port (a new generation: what lies in the socket is drained first, counters start at 0), or change
        the flow of a lent one. OSError if the port cannot be had."""

    def remove(self, local: Endpoint, generation: int) -> None:
        """Take the port back: from now on its packets are dropped silently. Unknown or older generations: no effect."""

    def send(self, local: Endpoint, target: Endpoint, data: bytes) -> None:
        """Send one datagram from a lent port (while learning). Errors of the network are counted, never raised."""

    def counters(self, only: Iterable[Endpoint] | None = None) -> Iterable[SlotCounters]:
        """A sweep over the lent flows; those of which nothing is news since the last one may be left out. With
        ``only``, over all of these local ports that are lent."""

    @property
    def send_errors(self) -> Counter[str]:
        """Packets that the network did not take, by errno name, since start."""

    def carried(self) -> Carried:
        """The sums of what ``counters`` tells, those of ports that were taken back included; quick, for metrics."""

    def close(self, *, keep: bool = False) -> None:
        """Give back everything. ``keep``: but what can go on without this process, for the next one to adopt."""
