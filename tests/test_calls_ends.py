"""relay/call.py: forks, BYE, CANCEL, failure, linger and cooling: calls.md 9 and 10, row by row."""

import pytest

from mediaproxy.control import EndCause
from mediaproxy.events import CallAnswered, CallEnded, CallRevived, CallStarted, CallState, EndReason, Side
from tests.relaybench import ALICE, BOB, STRANGER, Bench, Phone, at, ports_of, rtp, stream

NOBODY = Phone("", None, "")
DESK = Phone("desk", "198.51.100.11", "10.0.0.1:4000", branch="z9hG4bK-desk")
MOBILE = Phone("mobile", "198.51.100.22", "10.0.0.1:4000", branch="z9hG4bK-mobile")
DESK_MEDIA, MOBILE_MEDIA = "198.51.100.11:33", "198.51.100.22:44"


# -- rule 9: forks


def test_early_media_only_of_the_newest_18x() -> None:
    """One callee-facing pair serves all branches."""
    bench = Bench()
    (port,) = bench.invite().ports
    assert port is not None
    first = bench.answer(by=DESK, status=183)
    assert bench.packet(DESK_MEDIA, port.rtp) and not bench.packet(MOBILE_MEDIA, port.rtp)
    assert bench.answer(by=MOBILE, status=183).ports == first.ports, "the caller's side is one, too"
    assert bench.packet(MOBILE_MEDIA, port.rtp) and not bench.packet(DESK_MEDIA, port.rtp)
    bench.answer(by=DESK, status=183)
    assert not bench.packet(DESK_MEDIA, port.rtp), "a retransmission is not newer"
    bench.answer((stream("10.0.0.1:4002"),), by=DESK, status=183)
    assert bench.packet(DESK_MEDIA, port.rtp) and not bench.packet(MOBILE_MEDIA, port.rtp), "a new 183 is"
    assert len(bench.flows) == 4


@pytest.mark.parametrize("with_sdp", [True, False], ids=["2xx with SDP", "2xx without SDP, 183 had it"])
@pytest.mark.parametrize("winner", [DESK, MOBILE], ids=["older", "newer"])
def test_the_first_2xx_locks_its_leg(winner: Phone, with_sdp: bool) -> None:
    bench = Bench()
    (port,) = bench.invite().ports
    assert port is not None
    bench.answer(by=DESK, status=183)
    bench.answer(by=MOBILE, status=183)
    if with_sdp:
        bench.answer(by=winner)
    else:
        bench.confirm(winner, bench.alice, status=200)
    heard, other = (DESK_MEDIA, MOBILE_MEDIA) if winner is DESK else (MOBILE_MEDIA, DESK_MEDIA)
    assert bench.packet(heard, port.rtp) and not bench.packet(other, port.rtp)
    loser = MOBILE if winner is DESK else DESK
    bench.answer((stream("10.0.0.1:4002"),), by=loser, status=183)
    assert not bench.packet(other, port.rtp), "not even with a newer 18x"
    assert bench.report.callee.tag == winner.tag
    (answered,) = bench.seen(CallAnswered)
    assert isinstance(answered, CallAnswered) and answered.callee_tag == winner.tag


def test_an_ack_locks_too() -> None:
    bench = Bench()
    bench.invite()
    bench.answer(status=183)
    assert bench.confirm(bench.alice, bench.bob).error == "" and bench.state() is CallState.TALKING


def second_2xx() -> tuple[Bench, dict[str, int]]:
    """Both phones of a user have answered."""
    bench = Bench()
    shared = ports_of(bench.invite())[0]
    first = ports_of(bench.answer(by=DESK))[0]
    second = ports_of(bench.answer(by=MOBILE))[0]
    assert shared and first and second
    return bench, {"shared": shared, "first": first, "second": second}


def local(port: int) -> str:
    return f"192.0.2.1:{port}"


def test_a_second_2xx_gets_new_ports() -> None:
    bench, ports = second_2xx()
    assert ports["first"] != ports["second"] and len(bench.flows) == 8
    assert ports_of(bench.answer(by=MOBILE))[0] == ports["second"], "and keeps them"
    assert ports_of(bench.answer(by=DESK))[0] == ports["first"]
    assert [stream_report.leg for stream_report in bench.report.streams] == ["desk", "mobile"]


def test_both_legs_have_two_way_media() -> None:
    """Both callees were told the same port by the offer; each is heard by the caller on ports of its own."""
    bench, ports = second_2xx()
    shared, first, second = (at(local(ports[name])) for name in ("shared", "first", "second"))
    assert bench.packet(DESK_MEDIA, shared)[0].local == first
    assert bench.packet(MOBILE_MEDIA, shared)[0].local == second
    (sent,) = bench.packet("203.0.113.1:31", first)
    assert (sent.local, sent.target) == (shared, at(DESK_MEDIA))
    (sent,) = bench.packet("203.0.113.1:35", second)
    assert (sent.local, sent.target) == (shared, at(MOBILE_MEDIA)), "from the port that the callee knows"
    assert bench.packet(STRANGER, shared) == []
    side = bench.report.streams[1].callee
    assert (side.packets, side.learned) == (1, at(MOBILE_MEDIA))


def test_a_second_leg_moves_to_its_own_port_when_told_of_it() -> None:
    bench, ports = second_2xx()
    shared, second = at(local(ports["shared"])), at(local(ports["second"]))
    bench.packet(MOBILE_MEDIA, shared)
    bench.packet("203.0.113.1:35", second)
    reply = bench.media(bench.alice, MOBILE, cseq=2)
    (own,) = reply.ports
    assert own is not None and own.rtp != shared
    assert bench.packet(MOBILE_MEDIA, own.rtp)[0].local == second
    assert bench.packet("203.0.113.1:35", second)[0].local == own.rtp
    assert bench.flows[own.rtp].source == at(MOBILE_MEDIA), "the plane has it now"


def test_the_bye_of_the_second_leg_ends_only_it() -> None:
    bench, ports = second_2xx()
    shared, first, second = (at(local(ports[name])) for name in ("shared", "first", "second"))
    bench.packet(DESK_MEDIA, shared)
    bench.packet(MOBILE_MEDIA, shared)
    assert bench.bye(bench.alice, MOBILE).error == "" and bench.ended == []
    assert bench.packet(MOBILE_MEDIA, shared) == [] and bench.packet(ALICE, second) == []
    assert bench.packet(DESK_MEDIA, shared)[0].local == first
    bench.run(31)
    assert len(bench.flows) == 4
    assert bench.bye(bench.alice, MOBILE).status == 481
    bench.bye(DESK, bench.alice)
    assert [report.reason for report in bench.ended] == [EndReason.BYE]


def test_the_bye_of_the_first_leg_leaves_the_second_one_talking() -> None:
    bench, ports = second_2xx()
    shared, first, second = (at(local(ports[name])) for name in ("shared", "first", "second"))
    bench.packet(DESK_MEDIA, shared)
    bench.packet(MOBILE_MEDIA, shared)
    assert bench.bye(DESK, bench.alice).error == "" and bench.ended == []
    assert bench.packet(DESK_MEDIA, shared) == [] and bench.packet(ALICE, first) == []
    assert bench.packet(MOBILE_MEDIA, shared)[0].local == second
    assert bench.packet("203.0.113.1:35", second)[0].local == shared, "the callee was told this port"
    bench.run(31)
    assert len(bench.flows) == 6, "only the caller's side of the first leg is free"
    assert bench.report.callee.tag == "mobile" and bench.state() is CallState.TALKING
    bench.bye(bench.alice, MOBILE)
    assert [report.reason for report in bench.ended] == [EndReason.BYE]
    bench.run(37)
    assert bench.flows == {} and bench.calls.ports_free == 100


def test_no_ports_for_a_second_2xx_leaves_the_first_one_alone() -> None:
    bench = Bench(port_min=20000, port_max=20004)
    (port,) = bench.invite().ports
    bench.answer(by=DESK)
    before = bench.report
    assert bench.answer(by=MOBILE).status == 480
    assert bench.report == before and port is not None and bench.packet(DESK_MEDIA, port.rtp)


def test_a_failed_branch_frees_only_itself() -> None:
    bench = Bench()
    (port,) = bench.invite().ports
    assert port is not None
    bench.answer(by=DESK, status=183)
    bench.answer(by=MOBILE, status=183)
    bench.end(EndCause.BRANCH, Phone("", None, ""), bench.alice, status=486, branch=MOBILE.branch)
    assert bench.packet(DESK_MEDIA, port.rtp) and not bench.packet(MOBILE_MEDIA, port.rtp)
    bench.end(EndCause.BRANCH, DESK, bench.alice, status=486)
    assert not bench.packet(DESK_MEDIA, port.rtp) and bench.ended == []
    assert bench.state() is CallState.RINGING and len(bench.flows) == 4, "a third one may still answer"
    bench.answer()
    assert bench.packet(BOB, port.rtp)


def test_a_failed_branch_of_an_answered_call_changes_nothing() -> None:
    bench = Bench()
    bench.invite()
    bench.answer(by=MOBILE, status=183)
    bench.answer(by=DESK)
    flows = dict(bench.flows)
    bench.end(EndCause.BRANCH, NOBODY, bench.alice, status=487, branch=MOBILE.branch)
    bench.end(EndCause.BRANCH, NOBODY, bench.alice, status=487, branch=DESK.branch)
    assert bench.flows == flows and bench.state() is CallState.TALKING


def test_a_leg_gets_its_tag_later() -> None:
    """A leg is a tag plus the Via branch while it has none."""
    bench = Bench()
    (port,) = bench.invite().ports
    bench.answer(by=Phone("", "198.51.100.11", "10.0.0.1:4000", branch="z9hG4bK-desk"), status=183)
    bench.answer(by=DESK)
    assert bench.report.callee.tag == "desk" and port is not None and bench.packet(DESK_MEDIA, port.rtp)
    assert bench.bye(bench.alice, DESK).error == ""
    assert len(bench.ended) == 1


def test_legs_are_limited() -> None:
    bench = Bench(max_legs=2)
    bench.invite()
    for number in range(2):
        assert not bench.answer(by=Phone(f"leg{number}", "198.51.100.2", "10.0.0.1:4000"), status=183).error
    reply = bench.answer(by=Phone("leg2", "198.51.100.2", "10.0.0.1:4000"), status=183)
    assert reply.status == 480 and "legs" in reply.error


# -- rule 10: the end


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
    "ACK with SDP": lambda bench: bench.media(bench.alice, bench.bob, (stream("10.0.0.1:4444"),)),
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
