"""relay/endings.py: DELETE, of doors that do not say why a call ends: whom it means, when it counts, asked twice."""

import pytest

from mediaproxy.control import EndCause, MediaReply
from mediaproxy.events import CallEnded, CallState, EndReason, reports_of
from tests.relaybench import ALICE, BOB, Bench, Phone, rtp, stream

NOBODY = Phone("", None, "")
DESK = Phone("desk", "198.51.100.11", "10.0.0.1:4000", branch="z9hG4bK-desk")


def delete(bench: Bench, sender: str = "", receiver: str = "", **more: object) -> MediaReply:
    return bench.end(EndCause.DELETE, Phone(sender, None, ""), Phone(receiver, None, ""), **more)


NAMES = {
    "only the Call-ID": ("", "", 0),
    "the caller": ("alice", "", 0),
    "the callee": ("bob", "", 0),
    "both": ("alice", "bob", 0),
    "both, asked by the callee": ("bob", "alice", 0),
    "only the receiver": ("", "bob", 0),
    "a stranger": ("mallory", "", 481),
    "the caller and a stranger": ("alice", "mallory", 481),
    "the callee and a stranger": ("bob", "mallory", 481),
    "the caller twice": ("alice", "alice", 481),
}


@pytest.mark.parametrize(("sender", "receiver", "status"), NAMES.values(), ids=NAMES)
def test_tags_that_are_given_must_match(sender: str, receiver: str, status: int) -> None:
    bench = Bench()
    bench.talk()
    assert delete(bench, sender, receiver).status == status
    assert [report.reason for report in bench.ended] == ([] if status else [EndReason.BYE])


def test_an_unknown_call() -> None:
    assert delete(Bench()).status == 481


def test_all_calls_of_a_call_id() -> None:
    bench = Bench()
    bench.talk()
    bench.alice = Phone("carol", "203.0.113.9", "10.0.0.7:4000")
    bench.talk()
    assert len(reports_of(delete(bench, report=True))) == 2
    assert len(bench.ended) == 2


def test_asked_again_the_answer_is_the_same() -> None:
    bench = Bench()
    facing_alice, _ = bench.talk()
    bench.packet(ALICE, facing_alice)
    first = delete(bench, "alice", report=True)
    (report,) = reports_of(first)
    assert (report.state, report.reason, report.ended) == (CallState.ENDED, EndReason.BYE, bench.now)
    assert report.streams[0].caller.packets == 1
    assert delete(bench, "alice", report=True) == first
    assert delete(bench) == MediaReply(relay="relay-1")
    assert delete(bench, "mallory").status == 481
    bench.run(33)
    assert delete(bench, "alice", report=True).status == 481
    assert len(bench.ended) == 1


def test_an_unanswered_call_lingers_as_after_cancel() -> None:
    bench = Bench()
    bench.invite()
    first = delete(bench, "alice", report=True)
    assert [report.state for report in reports_of(first)] == [CallState.LINGERING]
    bench.run(10)
    assert bench.answer().error == "", "the 200 has crossed it"
    assert bench.report.state is CallState.TALKING
    assert delete(bench, "alice").error == ""
    assert [report.reason for report in bench.ended] == [EndReason.BYE]


def test_an_unanswered_call_ends_as_cancelled() -> None:
    bench = Bench()
    bench.invite()
    delete(bench, "alice", "486-had-a-tag")
    bench.run(31)
    delete(bench, "alice")
    assert len(bench.calls) == 1, "asking again prolongs nothing"
    bench.run(2)
    assert [(report.reason, report.answered) for report in bench.ended] == [(EndReason.CANCEL, None)]
    assert delete(bench, "alice").error == "", "it may be asked again"


def test_a_delay_keeps_the_media_flowing() -> None:
    bench = Bench()
    facing_alice, facing_bob = bench.talk()
    for source, port in ((ALICE, facing_alice), (BOB, facing_bob)):
        bench.packet(source, port)
    assert delete(bench, "alice", delay=5.0, report=True).reports
    bench.run(3)
    assert bench.packet(ALICE, facing_alice, rtp(2)), "it is forwarded until then"
    delete(bench, "alice", delay=5.0)
    assert bench.report.state is CallState.LINGERING
    bench.run(2)
    (report,) = bench.ended
    assert (report.reason, report.ended) == (EndReason.BYE, bench.now - 5)


@pytest.mark.parametrize("answered", [True, False])
def test_without_delay_nothing_is_kept(answered: bool) -> None:
    bench = Bench()
    bench.talk() if answered else bench.invite()
    delete(bench, delay=0.0)
    assert len(bench.ended) == 1 and len(bench.calls) == 0


def test_a_second_delete_may_shorten() -> None:
    bench = Bench()
    bench.talk()
    delete(bench, delay=30.0)
    delete(bench, delay=2.0)
    bench.run(2)
    assert len(bench.ended) == 1
    bench = Bench()
    bench.talk()
    delete(bench, delay=30.0)
    delete(bench, delay=0.0)
    assert len(bench.ended) == 1


def test_an_offer_revives_in_the_delay() -> None:
    bench = Bench()
    bench.talk()
    delete(bench, delay=30.0)
    assert bench.media(bench.alice, bench.bob, (stream("10.0.0.1:4100"),), cseq=2).error == ""
    assert bench.report.state is CallState.TALKING
    bench.run(40)
    assert not bench.ended


def fork(bench: Bench) -> None:
    bench.invite()
    bench.answer(status=183)
    bench.answer(by=DESK, status=183)


@pytest.mark.parametrize("named", [{"branch": DESK.branch}, {"receiver": "desk"}], ids=["by branch", "by tag"])
def test_one_branch_of_a_fork(named: dict[str, str]) -> None:
    bench = Bench()
    fork(bench)
    assert delete(bench, "alice", **named).error == ""
    assert bench.report.state is CallState.RINGING
    assert bench.answer().error == "" and bench.report.callee.tag == "bob"


def test_the_last_branch_of_a_fork() -> None:
    bench = Bench()
    fork(bench)
    delete(bench, "alice", branch=DESK.branch)
    delete(bench, "alice", branch=bench.bob.branch)
    assert bench.report.state is CallState.LINGERING
    assert bench.answer().error == "", "its 200 has crossed that"


@pytest.mark.parametrize(
    ("receiver", "ended"), [("", True), ("alice", False)], ids=["named alone, as by NG", "with the caller"]
)
def test_a_leg_of_a_fork_in_which_two_seem_to_have_answered(receiver: str, ended: bool) -> None:
    """To a door that does not tell statuses, early media is an answer."""
    bench = Bench()
    bench.invite()
    bench.answer()
    bench.answer(by=DESK)
    assert delete(bench, "desk", receiver).error == ""
    assert [report.reason for report in bench.ended] == ([EndReason.BYE] if ended else [])
    delete(bench, "alice")
    assert len(bench.ended) == 1


def test_an_unknown_branch_means_the_call() -> None:
    bench = Bench()
    fork(bench)
    delete(bench, "alice", branch="z9hG4bK-other")
    assert bench.report.state is CallState.LINGERING


def test_one_of_two_ways_of_an_invite() -> None:
    """A server before us has forked it."""
    bench = Bench()
    bench.invite(branch="z9hG4bK-1")
    bench.invite(branch="z9hG4bK-2")
    delete(bench, "alice", branch="z9hG4bK-1")
    assert bench.report.state is CallState.RINGING
    delete(bench, "alice", branch="z9hG4bK-2")
    assert [bench.report.state] == [CallState.LINGERING]


def test_a_second_leg_leaves_alone() -> None:
    bench = Bench()
    bench.talk()
    bench.answer(by=DESK)
    assert delete(bench, "desk", "alice").error == ""
    assert bench.report.state is CallState.TALKING
    assert delete(bench, "desk", "alice").error == "", "asked again"
    assert not bench.ended
    delete(bench, "bob")
    assert [report.reason for report in bench.ended] == [EndReason.BYE]


@pytest.mark.parametrize("cause", [EndCause.BYE, EndCause.ADMIN])
def test_every_end_can_be_reported(cause: EndCause) -> None:
    bench = Bench()
    bench.talk()
    reply = bench.end(cause, bench.alice, bench.bob, report=True)
    assert list(reports_of(reply)) == bench.ended


def test_a_cancelled_call_is_reported_as_it_stands() -> None:
    bench = Bench()
    bench.invite()
    reply = bench.end(EndCause.CANCEL, bench.alice, NOBODY, report=True)
    assert [report.state for report in reports_of(reply)] == [CallState.LINGERING]


def test_what_the_door_wants_back() -> None:
    bench = Bench()
    bench.invite(notify="xmlrpc 192.0.2.7")
    bench.answer()
    bench.media(bench.bob, bench.alice, (stream("10.0.0.2:4002"),), cseq=7)
    bench.run(91)
    (event,) = [event for event in bench.events if isinstance(event, CallEnded)]
    assert (event.report.reason, event.report.notify) == (EndReason.SILENT, "xmlrpc 192.0.2.7")


# -- doors without CSeq


def unnumbered(bench: Bench, sender: Phone, receiver: Phone, sdp: str, *, status: int = 0) -> MediaReply:
    return bench.media(sender, receiver, (stream(sdp),), cseq=-1, status=status)


def test_a_call_without_numbers() -> None:
    bench = Bench()
    alice, bob = bench.alice, bench.bob
    first = unnumbered(bench, alice, NOBODY, "10.0.0.1:4000")
    assert unnumbered(bench, alice, NOBODY, "10.0.0.1:4000") == first
    back = unnumbered(bench, bob, alice, "10.0.0.2:4000", status=200)
    assert unnumbered(bench, bob, alice, "10.0.0.2:4000", status=200) == back
    assert bench.report.state is CallState.TALKING
    for place, state in (("0.0.0.0:4000", CallState.HELD), ("10.0.0.1:4000", CallState.TALKING)):
        assert unnumbered(bench, alice, bob, place).ports == first.ports
        assert unnumbered(bench, bob, alice, "10.0.0.2:4000", status=200).ports == back.ports
        assert bench.report.state is state
    assert unnumbered(bench, bob, alice, "10.0.0.2:4100").ports == back.ports
    assert unnumbered(bench, alice, bob, "10.0.0.1:4000", status=200).ports == first.ports
    assert str(bench.report.streams[0].callee.sdp) == "10.0.0.2:4100"


def test_both_hold_and_resume_without_numbers() -> None:
    """Alice's offer is what she said in an earlier offer, but not what she said last."""
    bench = Bench()
    alice, bob = bench.alice, bench.bob
    unnumbered(bench, alice, NOBODY, "10.0.0.1:4000")
    unnumbered(bench, bob, alice, "10.0.0.2:4000", status=200)
    unnumbered(bench, bob, alice, "0.0.0.0:4000")
    unnumbered(bench, alice, bob, "0.0.0.0:4000", status=200)
    unnumbered(bench, bob, alice, "10.0.0.2:4000")
    unnumbered(bench, alice, bob, "10.0.0.1:4000", status=200)
    assert bench.report.state is CallState.TALKING
    unnumbered(bench, alice, bob, "0.0.0.0:4000")
    assert [bench.report.state] == [CallState.HELD]


def test_a_new_attempt_without_numbers() -> None:
    bench = Bench()
    first = unnumbered(bench, bench.alice, NOBODY, "10.0.0.1:4000")
    delete(bench, "alice")
    assert unnumbered(bench, bench.alice, NOBODY, "10.0.0.1:4000") == first
    assert bench.report.state is CallState.RINGING
    delete(bench, "alice", delay=0.0)
    assert unnumbered(bench, bench.alice, NOBODY, "10.0.0.1:4000").error == "", "another call of that name"
    assert unnumbered(bench, bench.alice, bench.bob, "10.0.0.9:4000").error == ""


def test_a_ghost_without_numbers() -> None:
    bench = Bench()
    bench.talk()
    delete(bench)
    assert unnumbered(bench, bench.bob, bench.alice, "10.0.0.2:4000", status=200).status == 481
    assert unnumbered(bench, bench.alice, bench.bob, "10.0.0.1:4000").status == 481
