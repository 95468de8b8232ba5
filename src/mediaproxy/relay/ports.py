"""Which ports are free, lent or cooling.

A wish for a pair of ports of one of the relay's addresses comes in, an even RTP port with the odd RTCP port above it
goes out, in random order so that nobody can guess the next one. An ended pair cools before it is free again
(calls.md 10). This file must never lend a port twice and never forget one.
"""

import heapq
import random
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from itertools import chain

import msgspec

from mediaproxy.endpoint import Endpoint
from mediaproxy.relay.settings import RelayAddress, RelaySettings

_ANYWHERE = 30
"Bits of the first generation. Slots have 32 for them, and in a day at most 24 are used."


class Pair(msgspec.Struct, frozen=True, array_like=True):
    """Two lent ports of the relay: one stream's RTP and RTCP towards one party."""

    rtp: Endpoint
    "As bound; the port is even."
    advertised: Endpoint
    "The same as SDP shows it."
    generation: int
    "New each time: nothing of an earlier call of this port can be taken for this one's."

    @property
    def rtcp(self) -> Endpoint:
        """One above RTP (RFC 3550 §11)."""
        return self.rtp.with_port(self.rtp.port + 1)

    @property
    def advertised_rtcp(self) -> Endpoint:
        """RTCP as SDP shows it."""
        return self.advertised.with_port(self.advertised.port + 1)


class CoolingValue(msgspec.Struct, frozen=True, array_like=True):
    """A pair whose call is over, for a later process."""

    pair: Pair
    since: float
    known: tuple[str, ...]
    "Addresses that spoke in the ended call."
    heard: float
    known_heard: float


@dataclass(slots=True)
class _Cooling:
    pair: Pair
    since: float
    known: Collection[str]
    "Addresses that spoke in the ended call: only they could be taken for somebody in the next one."
    heard: float = 0.0
    known_heard: float = 0.0
    free_at: float = field(default=0.0)


class PortPool:
    """All ports of a relay. ``rng`` gives the order."""

    def __init__(self, settings: RelaySettings, rng: random.Random) -> None:
        self._settings = settings
        self._rng = rng
        self._free = {address.bind: list(settings.even_ports) for address in settings.addresses}
        "Bound address -> RTP ports."
        self._lent: dict[Endpoint, Pair] = {}
        self.lent_of: Counter[str] = Counter()
        "Bound address -> pairs of it that are lent."
        self._cooling: dict[Endpoint, _Cooling] = {}
        self._queue: list[tuple[float, int, Endpoint]] = []
        "(free at the earliest, generation, rtp)"
        self._generation = 0
        self.news: set[Endpoint] = set()
        "RTP ports of pairs that have begun or ended to cool since somebody who keeps account has emptied this."
        self._bound = {name: a.bind for a in settings.addresses for name in (a.public, a.bind)}
        "Advertised or bound address -> bound address."

    def free(self, address: RelayAddress) -> int:
        """Pairs of an address that can be lent at once."""
        return len(self._free.get(address.bind, ()))

    @property
    def most(self) -> int:
        """Pairs that can be lent, of all addresses, whether they are or not."""
        return sum(len(free) for free in self._free.values()) + len(self._lent) + len(self._cooling)

    @property
    def lent(self) -> int:
        """Pairs lent to calls."""
        return len(self._lent)

    @property
    def cooling(self) -> int:
        """Pairs that are no call's any more and not free yet."""
        return len(self._cooling)

    def holds(self, local: Endpoint) -> bool:
        """Whether the bound port, RTP or RTCP, is lent or cooling."""
        rtp = local.with_port(local.port - local.port % 2)
        return rtp in self._lent or rtp in self._cooling

    def ours(self, endpoint: Endpoint) -> bool:
        """Whether an SDP or a packet names one of our ports that is in use: a spiral, or a loop."""
        return self.own(endpoint) is not None

    def own(self, endpoint: Endpoint) -> Endpoint | None:
        """Of one of our ports that is in use, as bound or as advertised: as it is bound. None: it is none of them."""
        bind = self._bound.get(endpoint.address)
        place = None if bind is None else Endpoint(bind, endpoint.port)
        return place if place is not None and self.holds(place) else None

    def lend(self, address: RelayAddress) -> Pair | None:
        """A pair of the relay's address that nobody has; None: there is none left."""
        free = self._free.get(address.bind)
        if not free:
            return None
        chosen = self._rng.randrange(len(free))
        free[chosen], free[-1] = free[-1], free[chosen]
        port = free.pop()
        self._generation += 1
        pair = Pair(Endpoint(address.bind, port), Endpoint(address.public, port), self._generation)
        self._take(pair)
        return pair

    def _take(self, pair: Pair) -> None:
        self._lent[pair.rtp] = pair
        self.lent_of[pair.rtp.address] += 1

    def _give(self, pair: Pair) -> None:
        del self._lent[pair.rtp]
        self.lent_of[pair.rtp.address] -= 1

    def unlend(self, pair: Pair) -> None:
        """Take back a pair that no SDP has named: free at once."""
        self._give(pair)
        self._free_again(pair)

    def withdraw(self, pair: Pair) -> None:
        """Take back a pair for good: another program has one of its ports."""
        self._give(pair)

    def cool(self, pair: Pair, now: float, known: Collection[str] = ()) -> None:
        """The pair's call is over; ``known`` are the addresses that spoke in it."""
        self._give(pair)
        entry = _Cooling(pair, now, known, free_at=now + self._settings.cool)
        self._cooling[pair.rtp] = entry
        self.news.add(pair.rtp)
        heapq.heappush(self._queue, (entry.free_at, pair.generation, pair.rtp))

    def heard(self, local: Endpoint, generation: int, source: Endpoint, now: float) -> None:
        """A packet came to a cooling port, RTP or RTCP: it cools on until ``cool_quiet`` has passed without one."""
        entry = self._cooling.get(local.with_port(local.port - local.port % 2))
        if entry is None or entry.pair.generation != generation:
            return
        entry.heard = now
        if source.address in entry.known:
            entry.known_heard = now
        entry.free_at = max(entry.since + self._settings.cool, now + self._settings.cool_quiet)

    def thaw(self, now: float) -> list[Pair]:
        """The pairs that have cooled; they are free from now on. Their order does not depend on when somebody looks."""
        ready: list[_Cooling] = []
        while self._queue and self._queue[0][0] <= now:
            _, generation, rtp = heapq.heappop(self._queue)
            entry = self._cooling.get(rtp)
            if entry is None or entry.pair.generation != generation:
                continue
            if entry.free_at > now:
                heapq.heappush(self._queue, (entry.free_at, generation, rtp))
            else:
                ready.append(entry)
        ready.sort(key=lambda entry: (entry.free_at, entry.pair.generation))
        return [self._release(entry) for entry in ready]

    def force(self, address: RelayAddress, now: float) -> Pair | None:
        """One cooling pair for a relay that has no other left: cooled, and only strangers still send to it.

        Without this, a sprayer over the whole range would keep every port cooling for ever. The next call refuses
        him by address (calls.md 2); whom it could not tell apart, those who spoke in the old call, must be quiet.
        """
        settings = self._settings
        for entry in self._cooling.values():  # in the order of their ends
            if entry.since + settings.cool > now:
                return None
            if entry.pair.rtp.address == address.bind and entry.known_heard + settings.cool_quiet <= now:
                return self._release(entry)
        return None

    def _release(self, entry: _Cooling) -> Pair:
        del self._cooling[entry.pair.rtp]
        self.news.add(entry.pair.rtp)
        self._free_again(entry.pair)
        return entry.pair

    def _free_again(self, pair: Pair) -> None:
        """One that an earlier process had lent may be outside the range of this one."""
        if self.serves(pair) and pair.rtp.port in self._settings.even_ports:
            self._free[pair.rtp.address].append(pair.rtp.port)

    # -- what an earlier process had lent

    @property
    def generation(self) -> int:
        """The highest so far."""
        return self._generation

    def serves(self, pair: Pair) -> bool:
        """Whether its address is still one of this relay's."""
        return pair.rtp.address in self._free

    def may_adopt(self, pair: Pair) -> bool:
        """Whether its address is still ours, and no call has it."""
        return self.serves(pair) and pair.rtp not in self._lent and pair.rtp not in self._cooling

    def adopt(self, pair: Pair) -> None:
        """Lend a pair that ``may_adopt`` as it was. ``settle`` must follow."""
        self._take(pair)

    @property
    def cooling_ports(self) -> Iterable[Endpoint]:
        """RTP ports of the pairs that cool, in the order of their ends."""
        return self._cooling

    def cooled(self, rtp: Endpoint) -> "CoolingValue | None":
        """A pair that cools, for ``adopt_cooling``; None: it does not."""
        entry = self._cooling.get(rtp)
        if entry is None:
            return None
        return CoolingValue(entry.pair, entry.since, tuple(entry.known), entry.heard, entry.known_heard)

    def adopt_cooling(self, value: "CoolingValue", unheard: float) -> None:
        """Let a pair that ``may_adopt`` cool on. ``unheard``: until when nobody listened: who knows who has sent.
        ``settle`` must follow."""
        settings, pair = self._settings, value.pair
        heard, known_heard = max(value.heard, unheard), max(value.known_heard, unheard)
        free_at = max(value.since + settings.cool, heard + settings.cool_quiet if heard else 0.0)
        self._cooling[pair.rtp] = _Cooling(pair, value.since, value.known, heard, known_heard, free_at)
        heapq.heappush(self._queue, (free_at, pair.generation, pair.rtp))

    def settle(self, generation: int) -> None:
        """All is adopted that there is. ``generation``: the highest that an earlier process has used; 0: that is not
        known, so they begin anywhere: a slot must never take a new call for an old one whose counters it still has."""
        self._generation = max(self._generation, generation or self._rng.getrandbits(_ANYWHERE))
        for address in self._settings.addresses:
            ports = self._free[address.bind]
            taken = {rtp.port for rtp in chain(self._lent, self._cooling) if rtp.address == address.bind}
            ports[:] = [port for port in ports if port not in taken]

    def drain(self) -> list[Pair]:
        """All cooling pairs, free from now on: the relay stops."""
        self._queue.clear()
        return [self._release(entry) for entry in list(self._cooling.values())]
