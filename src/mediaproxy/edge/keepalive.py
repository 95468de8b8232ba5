"""Keep-alives: when each contact is to be pinged (``natping_interval``), how, and who has been silent for too long.

Bindings come and go, and signs of life; what is due comes out: pings to send, and contacts to remove. Each contact has
its own moment in the interval, so that ten thousand phones are pinged evenly and not in one burst. Nothing here sends,
removes a registration, or knows the time but by argument.
"""

import hashlib
import heapq
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

import msgspec

from mediaproxy.edge.binding import Binding
from mediaproxy.edge.hop import Hop, Inbound
from mediaproxy.edge.settings import Listener, Transport
from mediaproxy.edge.sipping import SipPings
from mediaproxy.endpoint import Endpoint
from mediaproxy.nat import PING_SOON, TCP_PING, UDP_PING

_Key = tuple[str, str, str]
"``Binding.key``."
_Source = tuple[str, Endpoint]
"Transport and source: the first two of a flow."


class _Flow(NamedTuple):
    """What is pinged at once. Four zero bytes to one phone are enough for all its contacts; of those that are to be
    pinged by SIP each is asked itself."""

    transport: str
    source: Endpoint
    "Where its REGISTER came from."
    to: Endpoint
    local: Endpoint
    connection: str
    contact: str = ""
    "Of SIP requests."


@dataclass(frozen=True, slots=True)
class Ping:
    """One keep-alive."""

    hop: Hop
    data: bytes


@dataclass(frozen=True, slots=True)
class Due:
    """What is to be done now."""

    pings: list[Ping]
    silent: list[Binding]
    "To be removed: they wanted so, and have been silent."


class Pinged(msgspec.Struct, frozen=True, kw_only=True):
    """How a contact has been pinged, for people."""

    method: str = ""
    "Of the SIP requests; empty: four zero bytes or empty lines, which no phone answers."
    answered: float | None = None
    "When it last answered one, seconds since the epoch; None: never since the server started."
    lost: int = 0
    "Requests in a row without any sign of life; the last one may still be on its way."


@dataclass(slots=True)
class _Target:
    """Who is pinged together."""

    behind_path: bool = False
    "There is a proxy between: what comes from the source need not be of the phone."
    members: dict[_Key, Binding] = field(default_factory=dict)
    pinged: float | None = None
    sign: float = float("-inf")
    "The last sign of life that is known to be its own."
    answered: float | None = None
    lost: int = 0
    "Before the last ping."


@dataclass(slots=True)
class _Place:
    """What is known of a source."""

    natted: int = 0
    "Bindings behind NAT that came from there."
    targets: int = 0
    heard: float = float("-inf")
    "When the last SIP message came from there."


class KeepAlive:
    """The pings of all contacts."""

    def __init__(
        self,
        interval: float,
        sip: SipPings | None = None,
        listener_of: Callable[[Hop], Listener | None] = lambda hop: None,
        max_lost: int = 3,
        soon: tuple[float, float] | None = PING_SOON,
    ) -> None:
        """``interval``: seconds between two pings to one contact; 0: none. ``sip`` writes SIP requests; None: there are
        none. ``listener_of`` finds the socket that a hop is sent from. ``max_lost``: so many requests in a row without
        a sign of life make a contact silent. ``soon``: as PING_SOON, if the interval is longer; None: no such ping."""
        self._interval = interval
        self._sip = sip
        self._listener_of = listener_of
        self._max_lost = max_lost
        self._soon = soon if soon is not None and soon[1] < interval else None
        self._targets: dict[_Flow, _Target] = {}
        self._of: dict[_Key, _Flow] = {}
        self._named: dict[str, _Flow] = {}
        "The flows of SIP requests by the name that is in these."
        self._places: dict[_Source, _Place] = {}
        self._heap: list[tuple[float, int, _Flow, bool]] = []
        "The last: it is the ping soon after a REGISTER, and not one of the rhythm."
        self._scheduled: set[_Flow] = set()
        self._early: set[_Flow] = set()
        "For which such a ping is in the heap."
        self._count = 0

    def __len__(self) -> int:
        return len(self._targets)

    @property
    def deadline(self) -> float | None:
        """When ``due`` should be called next."""
        return self._heap[0][0] if self._heap else None

    def natted(self, inbound: Inbound) -> bool:
        """Whether a contact behind NAT is at this source."""
        place = self._places.get((inbound.transport.value, inbound.source))
        return place is not None and place.natted > 0

    # -- contacts

    def saved(self, bindings: Iterable[Binding], now: float) -> None:
        """These bindings exist, as they are now; their phones have just said so."""
        for binding in bindings:
            before = self._of.get(binding.key)
            flow = self._flow(binding)
            if before is not None and before != flow:
                self.removed((binding,))
            if not (binding.nat or flow.contact) or not binding.reachable:
                self.removed((binding,))
                continue
            self._add(flow, binding)
            self._targets[flow].sign = now
            if self._interval > 0:
                self._schedule(flow, now)

    def removed(self, bindings: Iterable[Binding]) -> None:
        """These bindings are gone."""
        for binding in bindings:
            flow = self._of.pop(binding.key, None)
            if flow is not None:
                self._drop(flow, binding.key)

    def _flow(self, binding: Binding) -> _Flow:
        source, local, connection = binding.received, binding.local, binding.connection
        if self._sip is None or not binding.sip_ping:
            return _Flow(binding.transport, source, source, local, connection)
        to = source if binding.path else binding.place
        return _Flow(binding.transport, source, to, local, connection, binding.contact)

    def _add(self, flow: _Flow, binding: Binding) -> None:
        self._of[binding.key] = flow
        target = self._targets.get(flow)
        place = self._places.setdefault(flow[:2], _Place())
        if target is None:
            target = self._targets[flow] = _Target(behind_path=bool(binding.path))
            place.targets += 1
            if flow.contact:
                self._named[self._name(flow)] = flow
        before = target.members.get(binding.key)
        place.natted += binding.nat - (before is not None and before.nat)
        target.members[binding.key] = binding

    def _drop(self, flow: _Flow, key: _Key) -> None:
        target, place = self._targets[flow], self._places[flow[:2]]
        place.natted -= target.members.pop(key).nat
        if target.members:
            return
        del self._targets[flow]
        if flow.contact:
            del self._named[self._name(flow)]
        place.targets -= 1
        if not place.targets:
            del self._places[flow[:2]]

    def _name(self, flow: _Flow) -> str:
        assert self._sip is not None
        return self._sip.name(*flow)

    # -- signs of life

    def heard(self, inbound: Inbound, now: float) -> None:
        """A SIP message came from there: whoever is there lives."""
        place = self._places.get((inbound.transport.value, inbound.source))
        if place is not None:
            place.heard = now

    def answered(self, name: str, now: float) -> None:
        """A ping of this name (``SipPings.answered``) was answered, whatever the answer says."""
        flow = self._named.get(name)
        if flow is not None:
            target = self._targets[flow]
            target.answered = target.sign = now

    def _lost(self, flow: _Flow) -> int:
        """Pings in a row without a sign of life, the last one included."""
        target = self._targets[flow]
        if target.pinged is None:
            return 0
        heard = float("-inf") if target.behind_path else self._places[flow[:2]].heard
        return 0 if max(target.sign, heard) >= target.pinged else target.lost + 1

    def pinged(self, binding: Binding) -> Pinged | None:
        """How a contact is pinged; None: it is not."""
        flow = self._of.get(binding.key)
        if flow is None or not self._interval:
            return None
        if not flow.contact or self._sip is None:
            return Pinged()
        return Pinged(method=self._sip.method, answered=self._targets[flow].answered, lost=self._lost(flow))

    # -- time

    def _schedule(self, flow: _Flow, now: float) -> None:
        """Its phone has just registered."""
        phase = self._phase(flow, now)
        if flow not in self._scheduled:
            self._scheduled.add(flow)
            self._push(flow, now + phase)
        if self._soon is None or flow.transport != Transport.UDP.value or flow in self._early:
            return
        first, last = self._soon
        if not first <= phase <= last:
            self._early.add(flow)
            self._push(flow, now + first + self._part(flow) * (last - first), early=True)

    def _part(self, flow: _Flow) -> float:
        """From 0 to 1, spread by a hash of who it is."""
        who = f"{flow.transport} {flow.to} {flow.local} {flow.contact}".encode("latin-1", "replace")
        return int.from_bytes(hashlib.blake2b(who, digest_size=4).digest()) / 2**32

    def _phase(self, flow: _Flow, now: float) -> float:
        """Seconds from now to the flow's moment: the same part of every interval."""
        return (self._part(flow) * self._interval - now) % self._interval

    def _push(self, flow: _Flow, at: float, *, early: bool = False) -> None:
        self._count += 1
        heapq.heappush(self._heap, (at, self._count, flow, early))

    def due(self, now: float) -> Due:
        """The pings whose time has come, and the contacts whose patience has ended; expired bindings get none."""
        due = Due([], [])
        while self._heap and self._heap[0][0] <= now:
            at, _, flow, early = heapq.heappop(self._heap)
            target = self._targets.get(flow)
            if early:
                self._early.discard(flow)
                alive = target is not None and any(one.expires > now for one in target.members.values())
                if target is not None and alive and not target.behind_path:
                    due.pings.append(Ping(_hop(flow), UDP_PING))
                continue
            gone = [binding for binding in target.members.values() if binding.expires <= now] if target else []
            self.removed(gone)
            if target is None or not target.members:
                self._scheduled.discard(flow)
                continue
            self._ping(flow, target, due, now)
            # A server that was stopped for a while does not make up for what it missed.
            after = at + self._interval
            self._push(flow, after if after > now else now + self._phase(flow, now))
        return due

    def _ping(self, flow: _Flow, target: _Target, due: Due, now: float) -> None:
        hop = _hop(flow)
        listener = self._listener_of(hop) if flow.contact else None
        if self._sip is None or listener is None:
            due.pings.append(Ping(hop, TCP_PING if hop.transport.reliable else UDP_PING))
            return
        target.lost = self._lost(flow)
        if target.lost >= self._max_lost:
            silent = [binding for binding in target.members.values() if binding.remove_lost]
            due.silent.extend(silent)
            if len(silent) == len(target.members):
                return
        target.pinged = now
        path = next(iter(target.members.values())).path
        due.pings.append(Ping(hop, self._sip.write(self._name(flow), flow.contact, path, listener, now)))


def _hop(flow: _Flow) -> Hop:
    return Hop(Transport(flow.transport), flow.to, flow.local, flow.connection, connect=False)
