"""Two benches that are told the same; one of them is killed now and then, and starts again from what it has kept."""

import random
from collections.abc import Iterable

from mediaproxy.endpoint import Endpoint
from mediaproxy.relay.calls import Calls
from mediaproxy.relay.changes import News
from mediaproxy.relay.flow import Flow, SlotCounters
from mediaproxy.relay.ports import CoolingValue
from mediaproxy.relay.resumption import Gone, Resumption, Saved, SavedCall
from tests.relaybench import Bench


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
        for rtp in news.cooled:
            self.cooling.pop(rtp, None)
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
    shelf: Shelf,
    *,
    died: float | None = None,
    adopted: Iterable[tuple[Flow, SlotCounters]] | None = None,
    within: float = 60.0,
    stopped: bool = False,
) -> Resumption:
    """Kill the relay of a bench and start another one. ``died``: when; None: just now. ``adopted``: what the plane has
    kept; None: all."""
    before = bench.calls
    saved = shelf.saved(bench.now if died is None else died, stopped=stopped)
    if adopted is None:
        adopted = [(flow, bench.slots[local]) for local, flow in bench.flows.items()]
    else:
        adopted = list(adopted)
        kept = {flow.local for flow, _ in adopted}
        for local in [local for local in bench.flows if local not in kept]:
            del bench.flows[local], bench.slots[local]
    bench.calls = Calls(bench.settings, random.Random(1), "relay-1")
    bench.calls.keep()
    resumption = Resumption(bench.calls, saved, adopted, bench.now)
    bench.do(resumption.run(within))
    lends_alike(bench.calls, before)
    return resumption


def lends_alike(calls: Calls, model: Calls) -> None:
    """Let a relay choose the ports that another one would: chance is no part of a call."""
    pool, other = calls.board.pool, model.board.pool
    for version, ports in other._free.items():  # what another program had before, this one has not found out yet
        assert set(ports) <= set(pool._free[version]), "a free port is taken"
    assert set(pool._lent) == set(other._lent) and set(pool._cooling) == set(other._cooling)
    pool._free = {version: list(ports) for version, ports in other._free.items()}
    pool._rng.setstate(other._rng.getstate())


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
