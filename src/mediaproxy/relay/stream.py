"""One relayed stream: two ends, one facing each party, each a pair of lent ports with a latch per port.

SDP and packets come in, Flows go out: what the plane should do is computed from what is known, never remembered apart
from it. It must never hand a packet to the plane that a limit still has to see.
"""

from collections import deque
from weakref import ref

import msgspec

from mediaproxy.control import Direction, MediaPort
from mediaproxy.control import Stream as Sdp
from mediaproxy.endpoint import Endpoint
from mediaproxy.events import Side
from mediaproxy.relay.effects import Effect, Install
from mediaproxy.relay.expectation import Ground, Voucher
from mediaproxy.relay.flow import Flow, SlotCounters
from mediaproxy.relay.latch import Latch
from mediaproxy.relay.ports import Pair
from mediaproxy.relay.refusals import Refusals
from mediaproxy.relay.settings import RelaySettings
from mediaproxy.relay.tally import Tally

_MOVES, _MOVE_EVERY = 8, 10.0
"New sources of one port that are told at once; further ones at most so often, in seconds."
Clocks = tuple[tuple[int, int], ...]
"As Flow.clocks."
_BESIDE = frozenset(("", "telephone-event", "tone", "cn", "red", "rtx", "ulpfec", "flexfec", "parityfec"))
"Payload formats of RFC 4733, 3389, 2198, 4588, 5109, 8627 and 2733."
_SPEAKS = (Direction.SENDRECV, Direction.SENDONLY)
_LISTENS = (Direction.SENDRECV, Direction.RECVONLY)


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


class Port:
    """Mutable: one lent local port, what is known of the party behind it, and what the plane was told last."""

    __slots__ = (
        "call_id",
        "_end",
        "_told",
        "_told_at",
        "closed",
        "generation",
        "guests",
        "installed",
        "latch",
        "local",
        "native",
        "offloaded",
        "passed",
        "peer",
        "refusals",
        "rtcp",
        "tally",
        "shared",
    )

    def __init__(self, end: "End", local: Endpoint, latch: Latch, *, rtcp: bool) -> None:
        self._end = ref(end)
        self.local = local
        self.generation = end.pair.generation
        self.rtcp = rtcp
        self.latch = latch
        self.tally = Tally()
        self.refusals = Refusals()
        self.peer: Port | None = None
        "The port that faces the other party; None: it has been closed, or this one has."
        self.shared: Port | None = None
        "The port of another leg that this party was told to send to, by the offer (second 2xx, calls.md 9)."
        self.native = True
        "Whether the party has been heard at this port itself, if it was told of another one."
        self.guests: list[Port] = []
        "Ports of other legs whose parties were told to send here."
        self.installed: Flow | None = None
        self.offloaded = False
        "Whether the plane forwards what comes here."
        self.passed: float | None = None
        "When the last ICE or DTLS packet came that was forwarded without being media."
        self.closed = False
        self._told = 0
        self._told_at = 0.0

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

    @property
    def alive(self) -> float | None:
        """When the last accepted packet of any kind came."""
        last, passed = self.tally.last, self.passed
        if last is None or passed is None:
            return passed if last is None else last
        return max(last, passed)

    def target(self, now: float) -> Endpoint | None:
        """Where packets for this port's party go; None: not known, or of an IP version that this port has not."""
        target = self.latch.target(now)
        return target if target is not None and target.version == self.local.version else None

    def route(self, now: float) -> tuple[Endpoint, Endpoint] | None:
        """The local port and the target by which user space reaches this port's party; None: no way is known."""
        target = self.latch.target(now)
        if target is None or self.closed:
            return None
        ways = [port.local for port in (self.via, self) if port is not None]
        return next(((local, target) for local in ways if local.version == target.version), None)

    def limited(self, target: Endpoint) -> bool:
        """Whether the rate to that target is still limited (calls.md 5)."""
        return not self.latch.proven(target)

    def _offloaded(self, now: float) -> bool:
        """Whether the plane may forward what comes from the learned source, without asking."""
        peer, learned = self.peer, self.latch.learned
        if peer is None or learned is None or self.via is not None or peer.via is not None:
            return False
        if learned.version != self.local.version:  # heard at another leg's port, which has gone
            return False
        target = peer.target(now)
        return target is not None and not peer.limited(target)

    def flow(self, now: float, tos: int | None) -> Flow:
        """What the plane should do at this port."""
        if self.closed or self.end.idle or self.peer is None:
            return Flow(local=self.local, generation=self.generation)
        return Flow(
            local=self.local,
            generation=self.generation,
            peer=self.peer.local,
            peer_generation=self.peer.generation,
            source=self.latch.learned if self._offloaded(now) else None,
            target=self.target(now),
            allowed=() if self.guests else self.latch.allowed(self.local.version),
            tos=tos,
            settled_at=None if self.guests else self.latch.settled_at,
            clocks=() if self.rtcp else self.end.stream.clocks(self.end.side),
        )

    def sync(self, now: float, tos: int | None) -> list[Effect]:
        """Tell the plane, if that is news."""
        flow = self.flow(now, tos)
        if flow == self.installed:
            return []
        self.installed, self.offloaded = flow, flow.source is not None
        return [Install(flow)]

    def close(self) -> None:
        """The port is this call's no more: no leg is heard or served by it."""
        self.closed = True
        if self.peer is not None:
            self.peer.peer = None
            self.peer = None
        if self.shared is not None:
            self.shared.guests.remove(self)
            self.shared = None
        for guest in self.guests:
            guest.shared = None
        self.guests.clear()

    def renew(self) -> None:
        """The plane counts this port's packets from 0 again."""
        self.tally.renew()
        self.refusals.renew()

    def noted(self, slot: SlotCounters) -> None:
        """The plane's counters of this port."""
        if slot.generation == self.generation and slot.local == self.local:
            if self.tally.noted(slot) and self.tally.gauge is not None:
                self.tally.gauge.judge(self.end.stream.codec(self.end.side))
            self.latch.noted(slot)
            if slot.dropped > self.refusals.dropped:
                self.tally.traffic.refused += slot.dropped - self.refusals.dropped
                self.refusals.dropped = slot.dropped


class End:
    """Mutable: the ports of one stream that face one party."""

    __slots__ = ("__weakref__", "_stream", "limit", "pair", "rtcp", "rtp", "side")

    def __init__(self, stream: "Stream", side: Side, pair: Pair, settings: RelaySettings) -> None:
        self._stream = ref(stream)
        self.side = side
        self.pair = pair
        self.limit = Limit(settings.unlearned_rate)
        latch = Latch(settings)
        self.rtp = Port(self, pair.rtp, latch, rtcp=False)
        self.rtcp = Port(self, pair.rtcp, Latch(settings, latch), rtcp=True)

    @property
    def stream(self) -> "Stream":
        """The stream that it belongs to."""
        stream = self._stream()
        assert stream is not None  # see Port.end
        return stream

    @property
    def ports(self) -> tuple[Port, Port]:
        """RTP and RTCP."""
        return (self.rtp, self.rtcp)

    @property
    def idle(self) -> bool:
        """The stream is disabled by SDP."""
        return not self.stream.enabled

    @property
    def closed(self) -> bool:
        """Its pair is this call's no more."""
        return self.rtp.closed

    def media_port(self, sdp: Sdp) -> MediaPort:
        """What the SDP should say for this end."""
        return MediaPort(rtp=self.pair.advertised, rtcp=self.pair.advertised_rtcp if sdp.rtp else None)

    def attach(self, rtp: Latch, rtcp: Latch) -> None:
        """Listen to another leg: with its latches."""
        self.rtp.latch, self.rtcp.latch = rtp, rtcp


class Stream:
    """Mutable: one m-section of a call.

    It holds its ends and they their ports; backwards there are only weak references, so that a call that has ended
    leaves nothing to the garbage collector, whose work would delay packets.
    """

    __slots__ = ("__weakref__", "_clocks", "caller", "changed", "call_id", "callee", "index", "one_way", "sdp")

    def __init__(self, index: int, pairs: dict[Side, Pair], settings: RelaySettings, call_id: str, now: float) -> None:
        self.index = index
        self.call_id = call_id
        self.changed = now
        "When SDP last changed what is expected."
        self.sdp: dict[Side, Sdp] = {}
        "What each party's SDP said last."
        self.one_way: dict[Side, float] = {}
        "Sides that an event has called silent, with its time."
        self._clocks: dict[Side, tuple[tuple[Sdp | None, ...], Clocks]] = {}
        self.caller = End(self, Side.CALLER, pairs[Side.CALLER], settings)
        self.callee = End(self, Side.CALLEE, pairs[Side.CALLEE], settings)
        for one, other in zip(self.caller.ports, self.callee.ports, strict=True):
            one.peer, other.peer = other, one

    def inherit(self, old: "Stream") -> None:
        """Take the place of another stream: its SDP, and what its latches have learned."""
        self.sdp, self.changed, self.one_way = dict(old.sdp), old.changed, dict(old.one_way)
        for end, former in zip(self.ends, old.ends, strict=True):
            end.attach(former.rtp.latch, former.rtcp.latch)

    @property
    def ends(self) -> tuple[End, End]:
        """Towards the caller and towards the callee."""
        return (self.caller, self.callee)

    @property
    def ports(self) -> tuple[Port, ...]:
        """All four."""
        return (*self.caller.ports, *self.callee.ports)

    def end(self, side: Side) -> End:
        """The end that faces a party."""
        return self.caller if side is Side.CALLER else self.callee

    @property
    def enabled(self) -> bool:
        """No party has set its port to 0."""
        return all([sdp.endpoint is not None for sdp in self.sdp.values()])

    @property
    def closed(self) -> bool:
        """It has no port left."""
        return self.caller.closed and self.callee.closed

    @property
    def held(self) -> bool:
        """A party has put it on hold."""
        return any([sdp.held for sdp in self.sdp.values()])

    @property
    def described(self) -> Sdp:
        """Its SDP, for reports: the caller's if there is one."""
        return self.sdp.get(Side.CALLER) or self.sdp.get(Side.CALLEE) or Sdp(kind="", transport="")

    @property
    def kind(self) -> str:
        """Media type: audio, video, image…"""
        return self.described.kind

    def clocks(self, side: Side) -> Clocks:
        """RTP payload types and clock rates of what that side may send: what the other one wants, then what it wants
        itself."""
        told = (self.sdp.get(side.other), self.sdp.get(side))
        known = self._clocks.get(side)
        if known is None or known[0][0] is not told[0] or known[0][1] is not told[1]:
            rates = {t.number: t.clock_rate for sdp in reversed(told) if sdp is not None for t in sdp.payload_types}
            order = dict.fromkeys(t.number for sdp in told if sdp is not None for t in sdp.payload_types)
            known = self._clocks[side] = told, tuple((number, rates[number]) for number in order if rates[number])
        return known[1]

    def codec(self, side: Side) -> str:
        """The name of the codec that a party sent last; empty: not known. Digits, comfort noise and repair of losses
        come beside a codec, so they count only if nothing else has come."""
        names = [self._name(side, number) for number in self.end(side).rtp.tally.recent]
        return next((name for name in names if name.lower() not in _BESIDE), names[0] if names else "")

    def _name(self, side: Side, number: int) -> str:
        for sdp in (self.sdp.get(side.other), self.sdp.get(side)):
            for payload_type in sdp.payload_types if sdp is not None else ():
                if payload_type.number == number:
                    return payload_type.codec
        return ""

    def speaks(self, side: Side) -> bool:
        """Whether SDP lets us expect media from that side now."""
        own, other = self.sdp.get(side), self.sdp.get(side.other)
        if own is None or other is None or not self.enabled or self.held:
            return False
        return own.direction in _SPEAKS and other.direction in _LISTENS

    @property
    def alive(self) -> float:
        """When the last accepted packet came, either way; 0.0: never."""
        return max([port.alive or 0.0 for port in self.ports])

    def expect(self, vouchers: dict[Side, Voucher], ground: Ground, now: float) -> bool:
        """Tell all four latches what SDP and signalling say now. True if somebody's whereabouts changed."""
        changed = False
        for end in self.ends:
            sdp = self.sdp.get(end.side)
            voucher = vouchers.get(end.side)
            if sdp is None or voucher is None or sdp.endpoint is None or end.closed:
                continue
            other = self.sdp.get(end.side.other)
            changed |= end.rtp.latch.expect(ground.expect(voucher, sdp, other, rtcp=False), now)
            if sdp.rtp or sdp.rtcp is not None:
                changed |= end.rtcp.latch.expect(ground.expect(voucher, sdp, other, rtcp=True), now)
        return changed

    def sync(self, now: float, tos: int | None) -> list[Effect]:
        """Tell the plane what is news at the ports that are still ours."""
        return [effect for port in self.ports if not port.closed for effect in port.sync(now, tos)]


def disabled(stream: Stream) -> Sdp:
    """What an SDP says of a stream that it does not have any more: as with port 0."""
    return msgspec.structs.replace(stream.described, endpoint=None, rtcp=None)
