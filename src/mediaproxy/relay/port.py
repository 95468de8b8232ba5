"""One lent local port, RTP or RTCP: the party behind it, and what the plane should do there.

What is known of a port comes in piece by piece, a Flow goes out: computed from what is known, never remembered apart
from it. It must never hand a packet to the plane that a limit still has to see.
"""

from collections import deque
from typing import TYPE_CHECKING
from weakref import ref

import msgspec

from mediaproxy.endpoint import Endpoint
from mediaproxy.relay.effects import Effect, Install
from mediaproxy.relay.flow import Flow, SlotCounters
from mediaproxy.relay.latch import Latch
from mediaproxy.relay.refusals import Refusals
from mediaproxy.relay.tally import Tally, Traffic

if TYPE_CHECKING:
    from mediaproxy.relay.stream import End

_MOVES, _MOVE_EVERY = 8, 10.0
"New sources of one port that are told at once; further ones at most so often, in seconds."
Clocks = tuple[tuple[int, int], ...]
"As Flow.clocks."


class Limit:
    """At most so many packets in any one second (calls.md 5: no reflector)."""

    __slots__ = ("_sent",)

    def __init__(self, packets: int) -> None:
        self._sent: deque[float] = deque(maxlen=packets)

    def allows(self, now: float) -> bool:
        """Whether one more may go; if so it counts."""
        if len(self._sent) == self._sent.maxlen and now - self._sent[0] < 1.0:
            return False
        self._sent.append(now)
        return True


class Port(msgspec.Struct, eq=False):
    """Mutable: one lent local port, what is known of the party behind it, and what the plane was told last."""

    _end: "ref[End]"
    local: Endpoint
    _version: int
    generation: int
    rtcp: bool
    latch: Latch
    tally: Tally
    refusals: Refusals | None = None
    "Packets that were not let in; None: there were none."
    peer: "Port | None" = None
    "The port that faces the other party; None: it has been closed, or this one has."
    shared: "Port | None" = None
    "The port of another leg that this party was told to send to, by the offer (second 2xx, calls.md 9)."
    tie: "Port | None" = None
    "The port of another call that is this one's party, as this one is that one's (``ties``)."
    native: bool = True
    "Whether the party has been heard at this port itself, if it was told of another one."
    guests: list["Port"] = []
    "Ports of other legs whose parties were told to send here."
    installed: Flow | None = None
    offloaded: bool = False
    "Whether the plane forwards what comes here."
    passed: float | None = None
    "When the last ICE or DTLS packet came that was forwarded without being media."
    closed: bool = False
    _told: int = 0
    _told_at: float = 0.0

    @classmethod
    def of(cls, end: "End", local: Endpoint, latch: Latch, traffic: Traffic, *, rtcp: bool) -> "Port":
        """``traffic``: the sums over all ports that it adds to."""
        return cls(ref(end), local, local.version, end.pair.generation, rtcp, latch, Tally(traffic))

    def tells(self, now: float) -> bool:
        """Whether a new source should be told of; if so it counts. Who hops to and fro must not fill the log."""
        if self._told >= _MOVES and now - self._told_at < _MOVE_EVERY:
            return False
        self._told, self._told_at = self._told + 1, now
        return True

    @property
    def end(self) -> "End":
        """The end that it belongs to."""
        end = self._end()
        assert end is not None  # the call holds its streams as long as their ports are lent
        return end

    @property
    def via(self) -> "Port | None":
        """The port of another leg by which the party is reached; None: by this one."""
        return None if self.native else self.shared

    def lodge(self, shared: "Port") -> None:
        """The party was told of another leg's port: it is heard and served there until it uses its own."""
        self.shared, self.native = shared, False
        shared.guests.append(self)

    def target(self, now: float) -> Endpoint | None:
        """Where packets for this port's party go; None: not known, or of an IP version that this port has not."""
        latch = self.latch
        target = latch.target(now)
        if target is None or target.version != self._version:
            return None
        return target if latch.expectation is None or latch.expectation.own is None else self._open(target)

    def _open(self, place: Endpoint | None) -> Endpoint | None:
        """A place, but not the port of another call whose party is not this port: streams of a call that take turns
        have one latch."""
        if place is None:
            return None
        expectation = self.latch.expectation
        shut = self.tie is None and expectation is not None and expectation.own == place
        return None if shut else place

    def route(self, now: float) -> tuple[Endpoint, Endpoint] | None:
        """The local port and the target by which user space reaches this port's party; None: no way is known."""
        target = self._open(self.latch.target(now))
        if target is None or self.closed:
            return None
        ways = [port.local for port in (self.via, self) if port is not None]
        return next(((local, target) for local in ways if local.version == target.version), None)

    @property
    def outlet(self) -> "Port | None":
        """The port by which the plane lets out what comes here: of RTCP, the RTP port of a party that has but one."""
        peer = self.peer
        if peer is None or not self.rtcp or not peer.end.splits:
            return peer
        return peer.end.rtp

    @property
    def rtp_only(self) -> bool:
        """Flow.rtp_only."""
        end = self.end
        if end.credentials is not None:
            return True
        return not self.rtcp and end.splits and end.stream.described.rtp

    def limited(self, target: Endpoint) -> bool:
        """Whether the rate to that target is still limited (calls.md 5)."""
        return not self.latch.proven(target)

    def _carried(self, peer: "Port", now: float) -> Endpoint | None:
        """The learned source, if the plane may forward what comes from it, or drop that, without asking. ``peer``: by
        which it leaves."""
        learned, stream = self._open(self.latch.learned), self.end.stream
        if learned is None or self.via is not None or peer.via is not None:
            return None
        if self.latch.deserted(now):  # if it speaks again, it has not moved: the next packet tells
            return None
        if learned.version != self._version:  # heard at another leg's port, which has gone
            return None
        if self.end.gate.blocked:  # checks and handshakes pass all the same, by user space
            return None if stream.shakes_hands else learned
        if self.end.gate.silenced and not self.rtcp and stream.audio:
            return None
        target = peer.target(now)
        return learned if target is not None and not peer.limited(target) else None

    def flow(self, now: float) -> Flow:
        """What the plane should do at this port."""
        outlet, end, latch = self.outlet, self.end, self.latch
        stream, learned = end.stream, latch.learned
        if self.closed or outlet is None or not stream.enabled:
            return Flow(local=self.local, generation=self.generation)
        checked = end.credentials is not None
        # Until a check has told where the party is, it may be anywhere; later ones from elsewhere pass as strangers.
        anybody = bool(self.guests) or (checked and end.rtp.latch.learned is None)
        peer = None if end.gate.blocked else outlet
        return Flow(
            local=self.local,
            generation=self.generation,
            peer=None if peer is None else peer.local,
            peer_generation=0 if peer is None else peer.generation,
            source=None if learned is None else self._carried(outlet, now),
            target=None if latch.expectation is None else self.target(now),
            allowed=() if anybody else latch.allowed(self._version),
            tos=stream.tos,
            settled_at=None if learned is None or anybody or checked else latch.settled_at,
            rtp_only=(checked or end.splits) and self.rtp_only,
            clocks=() if self.rtcp else stream.clocks(end.side),
        )

    def sync(self, now: float) -> list[Effect]:
        """Tell the plane, if that is news."""
        flow = self.flow(now)
        if flow == self.installed:
            return []
        self.installed, self.offloaded = flow, flow.source is not None and flow.peer is not None
        return [Install(flow)]

    def close(self) -> None:
        """The port is this call's no more: no leg is heard or served by it."""
        self.closed = True
        if self.peer is not None:
            self.peer.peer = None
            self.peer = None
        self.part()
        if self.shared is not None:
            self.shared.guests.remove(self)
            self.shared = None
        for guest in self.guests:
            guest.shared = None
        self.guests.clear()

    def part(self) -> None:
        """The port of another call is this one's party no more."""
        other, self.tie = self.tie, None
        if other is None:
            return
        other.tie = None
        for port, party in ((self, other.local), (other, self.local)):
            if port.latch.learned == party:
                port.latch.part()

    @property
    def refused(self) -> Refusals:
        """``refusals``, to count one more."""
        if self.refusals is None:
            self.refusals = Refusals()
        return self.refusals

    def renew(self) -> None:
        """The plane counts this port's packets from 0 again."""
        self.tally.renew()
        if self.refusals is not None:
            self.refusals.renew()

    def noted(self, slot: SlotCounters) -> None:
        """The plane's counters of this port."""
        if slot.generation == self.generation and (slot.local is self.local or slot.local == self.local):
            if self.tally.noted(slot) and self.tally.gauge is not None:
                self.tally.gauge.judge(self.end.stream.codec(self.end.side))
            self.latch.noted(slot)
            known = 0 if self.refusals is None else self.refusals.dropped
            if slot.dropped > known:
                self.tally.traffic.noted[2] += slot.dropped - known
                self.refused.dropped = slot.dropped
