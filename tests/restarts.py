"""Benches whose relay is killed and starts again from what it has kept."""

import random
from collections.abc import Collection, Iterable

from mediaproxy.endpoint import Endpoint
from mediaproxy.relay.calls import Calls
from mediaproxy.relay.changes import Gone, News
from mediaproxy.relay.flow import Flow, SlotCounters
from mediaproxy.relay.ports import CoolingValue
from mediaproxy.relay.resumption import Recorded, Resumption, Saved, SavedCall
from tests.relaybench import ALICE, BOB, Bench, rtp


class Shelf:
    """What a journal keeps, in memory."""

    def __init__(self) -> None:
        self.calls: dict[int, SavedCall] = {}
        self.gone: dict[tuple[str, str], Gone] = {}
        self.cooling: dict[Endpoint, CoolingValue] = {}
        self.generation = 0

    def write(self, news: News) -> None:
        for row in news.calls:
            self.calls[row.number] = SavedCall(number=row.number, brief=row.brief, value=row.value)
        for number, counters in news.counters:
            saved = self.calls[number]
            self.calls[number] = SavedCall(number=number, brief=saved.brief, value=saved.value, counters=counters)
        for number in news.over:
            self.calls.pop(number, None)
        for gone in news.gone:
            self.gone.pop((gone.call_id, gone.tag), None)
            self.gone[gone.call_id, gone.tag] = gone
        for value in news.cooling:
            self.cooling.pop(value.pair.rtp, None)
            self.cooling[value.pair.rtp] = value
        for cooled in news.cooled:
            self.cooling.pop(cooled, None)
        self.generation = news.generation

    def saved(self, now: float, *, stopped: bool = False) -> Saved:
        """For a relay that starts. What is long over is not told."""
        return Saved(
            calls=tuple(self.calls[number] for number in sorted(self.calls)),
            gone=tuple(gone for gone in self.gone.values() if gone.forget_at > now),
            cooling=tuple(sorted(self.cooling.values(), key=lambda value: value.since)),
            generation=self.generation,
            died=now,
            stopped=stopped,
        )


def restart(
    bench: Bench,
    saved: Saved,
    adopted: Iterable[tuple[Flow, SlotCounters]],
    *,
    within: float = 60.0,
    recorded: Collection[Recorded] = (),
    left: Iterable[tuple[Flow, SlotCounters]] = (),
) -> Resumption:
    """Start another relay instead of a bench's. ``adopted``: what the plane has kept, as ``kept`` says; ``left``: what
    another plane had."""
    adopted, left = list(adopted), list(left)
    here = {flow.local for flow, _ in adopted}
    for local in [local for local in bench.flows if local not in here]:
        del bench.flows[local], bench.slots[local]
    bench.calls = Calls(bench.settings, random.Random(1), "relay-1")
    bench.calls.keep()
    resumption = Resumption(bench.calls, saved, adopted, bench.now, left)
    bench.do(resumption.run(within, recorded))
    return resumption


def kept(bench: Bench) -> list[tuple[Flow, SlotCounters]]:
    """What a plane has that lasts."""
    return [(flow, bench.slots[local]) for local, flow in bench.flows.items()]


def lends_alike(calls: Calls, model: Calls) -> None:
    """Let a relay choose the ports that another one would: chance is no part of a call."""
    pool, other = calls.board.pool, model.board.pool
    for address, ports in other._free.items():  # what another program had before, this one has not found out yet
        assert set(ports) <= set(pool._free[address]), "a free port is taken"
    assert set(pool._lent) == set(other._lent) and set(pool._cooling) == set(other._cooling)
    pool._free = {address: list(ports) for address, ports in other._free.items()}
    pool._rng.setstate(other._rng.getstate())
    if not other.generation:
        pool._generation = 0


def keep(bench: Bench, shelf: Shelf) -> None:
    """Write what has changed."""
    changes = bench.calls.changes
    shelf.write((bench.calls.keep() if changes is None else changes).take(bench.now))


def keep_all(bench: Bench, shelf: Shelf) -> None:
    """Write everything, as at a stop."""
    bench.calls.keep()
    keep(bench, shelf)


def alike(effects: Iterable[object]) -> list[str]:
    """What happens at one moment has no order between calls."""
    return sorted(map(repr, effects))


class House(Bench):
    """A bench whose relay is killed and started again. ``lasting``: the plane has forwarded on and kept its counters,
    as the kernel does; else it was deaf meanwhile, and has forgotten all."""

    def __init__(self, **changed: object) -> None:
        super().__init__(**changed)
        self.shelf = Shelf()
        self.died = self.now
        keep(self, self.shelf)

    def die(self) -> None:
        """The last things it did were to sweep and to write."""
        self.tick()
        keep(self, self.shelf)
        self.died = self.now

    def rise(
        self, lasting: bool, *, within: float = 60.0, stopped: bool = False, recorded: Collection[Recorded] = ()
    ) -> Resumption:
        """The next process starts."""
        saved = self.shelf.saved(self.died, stopped=stopped)
        return restart(self, saved, kept(self) if lasting else (), within=within, recorded=recorded)

    def away(self, seconds: float, *, lasting: bool = False, within: float = 60.0, stopped: bool = False) -> Resumption:
        """Killed, and started so much later."""
        self.die()
        self.now += seconds
        return self.rise(lasting, within=within, stopped=stopped)

    def speak(self, to_alice: Endpoint, to_bob: Endpoint, packets: int = 10, first: int = 1) -> None:
        """Both do, 50 times a second."""
        for number in range(first, first + packets):
            assert self.packet(ALICE, to_alice, rtp(number)) and self.packet(BOB, to_bob, rtp(number, ssrc=9))
            self.now += 0.02
