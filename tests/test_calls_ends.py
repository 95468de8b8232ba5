"""relay/call.py: BYE, CANCEL, failure, linger and cooling: calls.md 10, row by row."""

import pytest

from mediaproxy.control import EndCause
from mediaproxy.events import CallEnded, CallRevived, CallStarted, CallState, EndReason, Side
from tests.relaybench import ALICE, BOB, Bench, Phone, ports_of, rtp, stream

NOBODY = Phone("", None, "")
DESK = Phone("desk", "198.51.100.11", "10.0.0.1:4000", branch="z9hG4bK-desk")
DESK_MEDIA = "198.51.100.11:33"


BYES = {
    "caller": ("alice", "bob", 0),
    "callee": ("bob", "alice", 0),
    "a wrong callee's tag": ("alice", "mallory", 481),
    "a wrong caller's tag": ("bob", "mallory", 481),
    "no tag of the callee": ("alice", "", 481),
    "no tag of the caller": ("bob", "", 481),
    "both wrong": ("mallory", "eve", 481),
}


@pytest.mark.parametrize(("sender", "receiver", "status"), BYES.values(), ids=BYES)
def test_a_bye_counts_only_if_both_tags_match(sender: str, receiver: str, status: int) -> None:
    bench = Bench()
    bench.talk()
    before = bench.report
    assert bench.bye(Phone(sender, None, ""), Phone(receiver, None, "")).status == status
    assert len(bench.ended) == (0 if status else 1)
    if status:
        assert bench.report == before


@pytest.mark.parametrize(
    ("cause", "reason", "status"),
    [(EndCause.CANCEL, EndReason.CANCEL, 487), (EndCause.FAILURE, EndReason.FAILURE, 486)],
)
def test_who_gave_up_before_the_relay_stopped(cause: EndCause, reason: EndReason, status: int) -> None:
    bench = Bench()
    bench.invite()
    sender, receiver = (bench.alice, NOBODY) if cause is EndCause.CANCEL else (bench.bob, bench.alice)
    bench.end(cause, sender, receiver, status=status)
    assert bench.side(Side.CALLER).warnings == (), "nobody misses audio any more"
    bench.do(bench.calls.shutdown(bench.now))
    (report,) = bench.ended
    assert (report.reason, report.status) == (reason, status)


def test_a_bye_of_an_unknown_call() -> None:
    bench = Bench()
    bench.talk()
    assert bench.end(EndCause.BYE, bench.alice, bench.bob, call_id="other").status == 481


def test_a_late_200_of_an_ended_call_starts_no_ghost() -> None:
    bench = Bench()
    bench.talk()
    bench.bye()
    assert bench.answer().status == 481 and bench.invite().status == 481 and len(bench.calls) == 0
    assert bench.media(bench.alice, bench.bob, cseq=2).status == 481
    bench.run(33)
    assert bench.invite(cseq=3).error == "", "a while later it is somebody else's"


CROSSINGS = {
    "200 with SDP": lambda bench: bench.answer(),
    "200 without SDP": lambda bench: bench.confirm(bench.bob, bench.alice, status=200),
    "ACK": lambda bench: bench.confirm(bench.alice, bench.bob),
    "ACK with SDP": lambda bench: bench.media(bench.alice, bench.bob, (stream("10.0.0.1:4444"),), method="ACK"),
}


@pytest.mark.parametrize("crossing", CROSSINGS.values(), ids=CROSSINGS)
@pytest.mark.parametrize("cause", [EndCause.CANCEL, EndCause.FAILURE])
def test_what_crosses_cancel_and_failure_revives(cause: EndCause, crossing: object) -> None:
    assert callable(crossing)
    bench = Bench()
    facing_bob = bench.invite().ports[0]
    bench.answer(status=183)
    sender, receiver = (bench.alice, NOBODY) if cause is EndCause.CANCEL else (NOBODY, bench.alice)
    bench.end(cause, sender, receiver, status=0 if cause is EndCause.CANCEL else 503)
    assert bench.state() is CallState.LINGERING and len(bench.flows) == 4
    bench.run(31)
    crossing(bench)
    assert bench.state() is CallState.TALKING and len(bench.seen(CallRevived)) == 1
    assert facing_bob is not None and bench.packet(BOB, facing_bob.rtp), "the ports are the same"
    bench.run(60)
    assert bench.ended == [] and bench.report.status == 0


@pytest.mark.parametrize("method", ["UPDATE", "PRACK"])
def test_what_is_no_answer_revives_nothing(method: str) -> None:
    """A call that was cancelled must not look like an answered one because of what was still under way."""
    bench = Bench()
    bench.invite()
    bench.answer(status=183)
    bench.end(EndCause.CANCEL, bench.alice, NOBODY)
    moved = (stream("10.0.0.1:4444"),)
    bench.media(bench.bob, bench.alice, moved, method=method, cseq=1)
    bench.media(bench.alice, bench.bob, moved, method=method, cseq=1, status=200)
    bench.media(bench.alice, bench.bob, moved, method=method, cseq=2)
    bench.answer(moved, method=method, cseq=2)
    assert bench.state() is CallState.LINGERING
    bench.run(33)
    (report,) = bench.ended
    assert (report.reason, report.answered) == (EndReason.CANCEL, None)


@pytest.mark.parametrize(
    ("cause", "reason", "status"),
    [(EndCause.CANCEL, EndReason.CANCEL, 0), (EndCause.FAILURE, EndReason.FAILURE, 486)],
)
def test_the_linger_ends(cause: EndCause, reason: EndReason, status: int) -> None:
    bench = Bench()
    bench.invite()
    sender, receiver = (bench.alice, NOBODY) if cause is EndCause.CANCEL else (bench.bob, bench.alice)
    bench.end(cause, sender, receiver, status=status)
    over = bench.now
    bench.run(31.9)
    assert bench.ended == []
    bench.run(0.2)
    (report,) = bench.ended
    assert (report.reason, report.status, report.ended, report.answered) == (reason, status, over, None)
    bench.run(30)
    assert bench.flows == {} and bench.calls.ports_free == 100


def test_cancel_then_its_487_is_a_cancel() -> None:
    bench = Bench()
    bench.invite()
    bench.answer(status=183)
    bench.end(EndCause.CANCEL, bench.alice)
    bench.run(1)
    bench.end(EndCause.FAILURE, bench.bob, bench.alice, status=487)
    bench.confirm(bench.alice, bench.bob)
    assert bench.seen(CallRevived) == [], "the ACK of a failure has its tag: it is no ACK of a 2xx"
    bench.run(31.1)
    (report,) = bench.ended
    assert (report.reason, report.status) == (EndReason.CANCEL, 487)


@pytest.mark.parametrize("cause", [EndCause.CANCEL, EndCause.FAILURE])
def test_cancel_and_failure_of_an_answered_call_mean_nothing(cause: EndCause) -> None:
    """They crossed the 2xx, or it was a re-INVITE that failed."""
    bench = Bench()
    bench.talk()
    before = bench.report
    sender, receiver = (bench.alice, NOBODY) if cause is EndCause.CANCEL else (bench.bob, bench.alice)
    assert bench.end(cause, sender, receiver, status=488).error == "" and bench.report == before


def test_the_caller_tries_again_with_credentials() -> None:
    """407, ACK, INVITE with the next CSeq: one call, the same ports."""
    bench = Bench()
    first = ports_of(bench.invite())
    bench.end(EndCause.FAILURE, Phone("proxy", None, ""), bench.alice, status=407)
    bench.invite()
    assert bench.state() is CallState.LINGERING, "a retransmission is no new attempt"
    assert ports_of(bench.invite(cseq=2)) == first
    assert bench.state() is CallState.RINGING
    bench.answer(cseq=2)
    bench.run(60)
    assert bench.ended == [] and len(bench.seen(CallStarted)) == 1 and bench.state() is CallState.TALKING


def test_whom_the_first_attempt_reached_is_out_in_the_second() -> None:
    bench = Bench()
    (port,) = bench.invite().ports
    bench.answer(by=DESK, status=183)
    bench.end(EndCause.FAILURE, DESK, bench.alice, status=486)
    bench.invite(cseq=2)
    assert port is not None and not bench.packet(DESK_MEDIA, port.rtp)
    assert bench.report.callee.tag == ""


def test_ports_of_an_ended_call_are_deaf_and_cool() -> None:
    """A phone that missed the BYE must not talk into a colleague's new call."""
    bench = Bench(port_min=20000, port_max=20002)
    facing_alice, facing_bob = bench.talk()
    bench.packet(ALICE, facing_alice)
    bench.bye()
    assert bench.packet(ALICE, facing_alice) == [] and bench.packet(BOB, facing_bob) == []
    for _ in range(60):
        assert bench.packet(ALICE, facing_alice) == []
        bench.run(1)
    assert facing_bob not in bench.flows, "it has cooled, for nobody sent to it"
    assert facing_alice in bench.flows, "to this one packets still come"
    assert bench.invite(call_id="new").status == 480
    bench.run(3.9)
    assert bench.invite(call_id="new").status == 480
    bench.run(0.2)
    assert bench.invite(call_id="new").error == ""


def test_one_record_per_call_whatever_happens() -> None:
    bench = Bench()
    bench.talk()
    for _ in range(3):
        bench.bye()
    bench.do(bench.calls.end("call-1", bench.now))
    bench.end(EndCause.CANCEL, bench.alice)
    bench.run(400)
    assert len(bench.seen(CallStarted)) == len(bench.seen(CallEnded)) == 1


def test_the_final_report_has_what_the_plane_counted_last() -> None:
    bench = Bench()
    facing_alice, facing_bob = bench.talk()
    for number in range(50):
        bench.packet(ALICE, facing_alice, rtp(number))
        bench.packet(BOB, facing_bob, rtp(number))
    bench.bye()
    caller, callee = (getattr(bench.ended[0].streams[0], side) for side in Side)
    assert (caller.packets, callee.packets, caller.sent, callee.sent, caller.lost) == (50, 50, 50, 50, 0)
