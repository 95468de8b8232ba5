"""A relay that is killed at any moment of any story goes on as if it had not been: the same effects from then on."""

import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mediaproxy.relay.calls import Calls
from mediaproxy.relay.ports import Pair
from tests.restarts import Shelf, alike, keep, keep_all, kept, lends_alike, restart
from tests.test_calls_random import World


class Twins:
    """Two worlds with the same chance."""

    def __init__(self, rng: random.Random) -> None:
        state = rng.getstate()
        self.one, self.other = World(random.Random()), World(random.Random())
        for world in (self.one, self.other):
            world.rng.setstate(state)
        self.shelf = Shelf()
        keep(self.other, self.shelf)

    def step(self) -> None:
        for world in (self.one, self.other):
            world.step()
        keep(self.other, self.shelf)
        self.compare()

    def compare(self) -> None:
        one, other = self.one, self.other
        assert one.now == other.now
        assert alike(one.sent) == alike(other.sent)
        assert alike(one.events) == alike(other.events)
        assert one.flows == other.flows
        assert one.slots == other.slots
        assert alike(one.calls.reports(one.now)) == alike(other.calls.reports(other.now))
        for world in (one, other):
            world.sent.clear()
            world.events.clear()

    def restart(self) -> None:
        for world in (self.one, self.other):
            world.tick()
            for call in world.calls:  # a start tells the plane everything anew, also what could have waited
                world.do(call.sync(world.now))
        keep_all(self.other, self.shelf)
        before = self.other.calls
        restart(self.other, self.shelf.saved(self.other.now), kept(self.other))
        lends_alike(self.other.calls, before)
        self.compare()


@pytest.mark.parametrize("seed", range(12))
def test_a_restart_changes_nothing(seed: int) -> None:
    rng = random.Random(seed)
    twins = Twins(rng)
    for _ in range(300):
        twins.step()
        if rng.random() < 0.1:
            twins.restart()


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None, max_examples=50)
@given(st.integers(0, 2**32), st.lists(st.booleans(), min_size=1, max_size=25))
def test_a_restart_of_a_short_story_changes_nothing(seed: int, restarts: list[bool]) -> None:
    twins = Twins(random.Random(seed))
    for restarted in restarts:
        twins.step()
        if restarted:
            twins.restart()


@pytest.mark.parametrize("lasting", [True, False], ids=["lasting", "deaf"])
@pytest.mark.parametrize("seed", range(8))
def test_killed_at_any_moment(seed: int, lasting: bool) -> None:
    """What is not written at once may be forgotten; but no port, and no call, and no stranger comes in."""
    rng = random.Random(100 + seed)
    world = World(rng)
    shelf = Shelf()
    keep(world, shelf)
    for _ in range(400):
        world.step()
        keep(world, shelf)
        if rng.random() < 0.1:
            died = world.now
            world.now += rng.choice([0.0, 0.1, 2.0, 50.0])
            restart(world, shelf.saved(died), kept(world) if lasting else ())
            world.tick()
            calls = world.calls
            world.pairs = calls.ports_free + calls.ports_lent + calls.ports_cooling
            assert set(world.flows) == {local for pair in pairs(calls) for local in (pair.rtp, pair.rtcp)}
            keep(world, shelf)
    world.finish()
    keep(world, shelf)
    assert not shelf.calls and not shelf.cooling


def pairs(calls: Calls) -> list[Pair]:
    pool = calls.board.pool
    return [*pool._lent.values(), *(entry.pair for entry in pool._cooling.values())]
