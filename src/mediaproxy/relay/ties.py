"""Where two calls of this relay meet: the party of one is a port of the other.

A server between two calls (a B2BUA, a second proxy with a Call-ID of its own) passes SDP on, so what is beyond it is
another port of this relay. The streams of calls come in, ties between ports and what follows for the plane go out.

Two ports are tied only while the SDP at each of them names the other one: who names the port of a stranger's call hears
nothing and is not heard. A port has one tie at most, so tied streams form a chain; one that is longer than the program
in the kernel follows, or that closes to a ring, is never made: no packet can circle.
"""

from collections.abc import Iterable, Mapping

from mediaproxy.endpoint import Endpoint
from mediaproxy.events import PeerLearned
from mediaproxy.relay.effects import Effect, Report
from mediaproxy.relay.latch import Latch
from mediaproxy.relay.port import Port
from mediaproxy.relay.ports import PortPool
from mediaproxy.relay.stream import End, Stream

LONGEST = 3
"Streams in a chain: as many as a packet may pass in the kernel (HOPS of forward.bpf.h)."


class Ties:
    """Mutable: which calls have changed because of others."""

    def __init__(self, ports: Mapping[Endpoint, Port], pool: PortPool) -> None:
        """``ports``: all lent ones, by their local endpoint; it is looked at, never changed."""
        self._ports = ports
        self._pool = pool
        self.changed: set[str] = set()
        "Call-IDs of calls that have changed since somebody has emptied this."

    def settle(self, streams: Iterable[Stream], now: float) -> list[Effect]:
        """Tie and part the ports of these streams as SDP says now."""
        ports = [port for stream in streams for port in stream.ports if not port.closed]
        changed: dict[Stream, None] = {}
        for port in ports:
            if port.tie is not None and self._partner(port) is not port.tie:
                self._note(port, port.tie, changed)
                port.part()
        effects: list[Effect] = []
        for port in ports:  # RTP before its RTCP
            other = self._partner(port)
            if other is not None and (port.tie is other or _may_tie(port, other)):
                effects += self._tie(port, other, changed, now)
        tied: set[Latch] = {port.latch for port in ports if port.tie is not None}
        for port in ports:
            learned = port.latch.learned
            if port.latch not in tied and learned is not None and self._pool.ours(learned):
                port.latch.part()
                changed[port.end.stream] = None
        return [*effects, *(effect for stream in changed for effect in stream.sync(now))]

    def others(self, ports: Iterable[Port]) -> list[Stream]:
        """The streams that ports are tied to which are about to close; they must be synced then."""
        found = [port.tie.end.stream for port in ports if port.tie is not None]
        if found:
            self.changed |= {stream.call_id for stream in found}
        return list(dict.fromkeys(found))

    def _note(self, port: Port, other: Port, changed: dict[Stream, None]) -> None:
        for stream in (port.end.stream, other.end.stream):
            changed[stream] = None
            self.changed.add(stream.call_id)

    def _partner(self, port: Port) -> Port | None:
        """The port of another call that names this one, and that this one names."""
        named = port.latch.expectation.own if port.latch.expectation is not None else None
        other = self._ports.get(named) if named is not None else None
        if other is None or other.latch.expectation is None or other.latch.expectation.own != port.local:
            return None
        if other.rtcp != port.rtcp or other.end.stream.call_id == port.end.stream.call_id:
            return None
        if other.local.version != port.local.version:
            return None
        # RTCP may leave by the RTP port of the same end (RFC 5761), so both go the same way.
        return other if not port.rtcp or port.end.rtp.tie is other.end.rtp else None

    def _tie(self, port: Port, other: Port, changed: dict[Stream, None], now: float) -> list[Effect]:
        """Tie two ports, or see to it that those which are tied have not lost each other by a change of SDP."""
        effects: list[Effect] = []
        if port.tie is None:
            port.tie, other.tie = other, port
            port.native = other.native = True
            self._note(port, other, changed)
        for one, party in ((port, other), (other, port)):
            verdict = one.latch.meet(party.local, now)
            if verdict.latched and one.tells(now):
                effects.append(Report(_learned(one, party, verdict.before, now)))
        return effects


def _learned(port: Port, party: Port, before: Endpoint | None, now: float) -> PeerLearned:
    stream = port.end.stream
    return PeerLearned(
        at=now,
        call_id=stream.call_id,
        stream=stream.index,
        side=port.end.side,
        source=party.local,
        rank=port.latch.rank,
        rtcp=port.rtcp,
        before=before,
    )


def _may_tie(port: Port, other: Port) -> bool:
    """Whether both are free, and the chain that they would close is short and no ring."""
    if port.tie is not None or other.tie is not None or port.closed or other.closed:
        return False
    if port.rtcp:
        return True  # as its RTP
    one, two = _chain(port.end), _chain(other.end)
    return len(one) + len(two) <= LONGEST and not set(one) & set(two)


def _chain(end: End) -> list[Stream]:
    """The streams that a packet passes that comes to an end, its own first."""
    passed = [end.stream]
    while len(passed) <= LONGEST:
        far = end.stream.end(end.side.other).rtp.tie
        if far is None:
            break
        end = far.end
        passed.append(end.stream)
    return passed
