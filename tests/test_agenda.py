"""relay/agenda.py: who is due, never too late, each once."""

from hypothesis import given
from hypothesis import strategies as st

from mediaproxy.relay.agenda import Agenda


def test_the_earliest_plan_counts() -> None:
    agenda: Agenda[str] = Agenda()
    for subject, at in (("a", 5.0), ("b", 3.0), ("a", 2.0), ("a", 9.0)):
        agenda.plan(subject, at)
    assert agenda.next == 2.0 and agenda.due(1.9) == []
    assert agenda.due(4.0) == ["a", "b"]
    assert agenda.due(100.0) == [] and agenda.next is None, "the later plan of a is void"


def test_what_is_cancelled_is_never_due() -> None:
    agenda: Agenda[str] = Agenda()
    agenda.plan("a", 1.0)
    agenda.plan("b", 2.0)
    agenda.cancel("a")
    agenda.cancel("unknown")
    assert agenda.next == 2.0 and agenda.due(9.0) == ["b"]
    agenda.plan("a", 10.0)
    assert agenda.next == 10.0


@given(st.lists(st.tuples(st.sampled_from(["plan", "cancel", "due"]), st.integers(0, 3), st.integers(0, 20))))
def test_it_is_a_dictionary_of_minima(steps: list[tuple[str, int, int]]) -> None:
    agenda: Agenda[int] = Agenda()
    model: dict[int, float] = {}
    for verb, subject, at in steps:
        if verb == "plan":
            agenda.plan(subject, at)
            model[subject] = min(at, model.get(subject, at))
        elif verb == "cancel":
            agenda.cancel(subject)
            model.pop(subject, None)
        else:
            due = {subject for subject, planned in model.items() if planned <= at}
            assert sorted(agenda.upcoming(at)) == sorted(due)
            assert sorted(agenda.due(at)) == sorted(due)
            model = {subject: planned for subject, planned in model.items() if subject not in due}
        assert agenda.next == min(model.values(), default=None)
