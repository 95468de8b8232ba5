"""Timers in one heap: in order, movable, and forgetting what is done."""

import gc
import weakref

from hypothesis import given
from hypothesis import strategies as st

from mediaproxy.edge.alarms import Alarm, Alarms


class Thing:
    def __init__(self, deadline: float | None) -> None:
        self.deadline = deadline


def test_things_come_in_order() -> None:
    alarms: Alarms[Thing] = Alarms()
    for deadline in (3.0, 1.0, 2.0, None):
        alarms.watch(Alarm(Thing(deadline)))
    assert alarms.deadline == 1.0
    found = []
    while (thing := alarms.due(2.5)) is not None:
        found.append(thing.deadline)
    assert found == [1.0, 2.0]
    assert alarms.deadline == 3.0


def test_deadline_may_move_both_ways() -> None:
    alarms: Alarms[Thing] = Alarms()
    thing = Thing(5.0)
    alarm = Alarm(thing)
    alarms.watch(alarm)
    thing.deadline = 9.0
    alarms.watch(alarm)
    assert alarms.due(8.0) is None
    thing.deadline = 8.5
    alarms.watch(alarm)
    assert alarms.due(8.6) is thing
    assert alarms.due(100.0) is None, "once"


def test_cancelled_thing_is_let_go() -> None:
    alarms: Alarms[Thing] = Alarms()
    thing = Thing(1e9)
    alarm = Alarm(thing)
    alarms.watch(alarm)
    seen = weakref.ref(thing)
    alarm.cancel()
    del thing
    gc.collect()
    assert seen() is None, "though its timer would run for long"
    assert alarms.due(2e9) is None


@given(st.lists(st.tuples(st.integers(0, 5), st.one_of(st.none(), st.integers(0, 50)))))
def test_like_looking_at_all_of_them(moves: list[tuple[int, int | None]]) -> None:
    alarms: Alarms[Thing] = Alarms()
    watched = [Alarm(Thing(None)) for _ in range(6)]
    for which, deadline in moves:
        thing = watched[which].item
        assert thing is not None
        thing.deadline = deadline
        alarms.watch(watched[which])
    expected = sorted(t.deadline for a in watched if (t := a.item) is not None and t.deadline is not None)
    found = []
    while (due := alarms.due(100)) is not None:
        assert due.deadline is not None
        found.append(due.deadline)
        due.deadline = None
    assert found == expected
