"""relay/call.py: forks, early media, second answers: calls.md 9, row by row."""

import pytest

from mediaproxy.control import EndCause
from mediaproxy.endpoint import Endpoint
from mediaproxy.events import CallAnswered, CallState, EndReason
from tests.relaybench import ALICE, BOB, STRANGER, Bench, Phone, at, ports_of, stream

NOBODY = Phone("", None, "")
DESK = Phone("desk", "198.51.100.11", "10.0.0.1:4000", branch="z9hG4bK-desk")
MOBILE = Phone("mobile", "198.51.100.22", "10.0.0.1:4000", branch="z9hG4bK-mobile")
DESK_MEDIA, MOBILE_MEDIA = "198.51.100.11:33", "198.51.100.22:44"


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


@pytest.mark.parametrize("method", ["UPDATE", "PRACK"])
def test_a_2xx_to_update_or_prack_answers_no_call(method: str) -> None:
    """Offer and answer before the call is answered (RFC 3311, RFC 3262): it rings on, and the other fork may answer."""
    bench = Bench()
    (port,) = bench.invite().ports
    assert port is not None
    bench.answer(by=DESK, status=183)
    bench.answer(by=MOBILE, status=183)
    moved = (stream("10.0.0.1:4444"),)
    bench.media(bench.alice, DESK, moved, method=method, cseq=2)
    bench.answer(moved, by=DESK, method=method, cseq=2)
    bench.media(MOBILE, bench.alice, moved, method=method, cseq=1)
    bench.media(bench.alice, MOBILE, moved, method=method, cseq=1, status=200)
    assert bench.state() is CallState.RINGING and bench.seen(CallAnswered) == []
    assert bench.packet(MOBILE_MEDIA, port.rtp) and not bench.packet(DESK_MEDIA, port.rtp), "nor is it newer than 18x"
    reply = bench.answer(moved, by=DESK)
    assert len(bench.flows) == 4 and bench.report.callee.tag == "desk" and not reply.error
    assert bench.packet(DESK_MEDIA, port.rtp) and not bench.packet(MOBILE_MEDIA, port.rtp)


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
    assert bench.packet(MOBILE_MEDIA, shared)[0].local == second, "what is still under way to the old one arrives"
    bench.bye(bench.alice, MOBILE)
    assert bench.packet(MOBILE_MEDIA, shared) == [] and bench.packet(MOBILE_MEDIA, own.rtp) == []
    assert bench.packet(DESK_MEDIA, shared)


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


def test_a_2xx_that_crosses_the_end_of_our_patience() -> None:
    """Its branch was given up after 32 s without an answer to CANCEL, all others failed; then it lifts all the same."""
    bench = Bench()
    (port,) = bench.invite().ports
    assert port is not None
    bench.answer(by=DESK, status=183)
    bench.end(EndCause.BRANCH, NOBODY, bench.alice, status=408, branch=DESK.branch)
    assert bench.answer(by=DESK, status=183).status == 481
    bench.end(EndCause.FAILURE, MOBILE, bench.alice, status=486)
    assert ports_of(bench.answer((stream("10.0.0.1:4002"),), by=DESK))
    assert bench.state() is CallState.TALKING and bench.packet(DESK_MEDIA, port.rtp)
    bench.bye(DESK, bench.alice)
    assert len(bench.ended) == 1


def invited_twice() -> tuple[Bench, Endpoint]:
    """A server before us has forked: the same INVITE comes by two ways, for two users of ours (RFC 3261 §8.2.2.2)."""
    bench = Bench()
    (port,) = bench.invite(branch="one").ports
    assert bench.invite(branch="other").ports == (port,) and port is not None
    bench.answer(by=DESK, status=183)
    bench.answer(by=MOBILE, status=183)
    return bench, port.rtp


@pytest.mark.parametrize("cause", [EndCause.CANCEL, EndCause.FAILURE])
def test_one_of_two_ways_fails(cause: EndCause) -> None:
    """The other one rings on, for longer than the 32 s that a failed call lingers."""
    bench, port = invited_twice()
    sender, receiver = (bench.alice, NOBODY) if cause is EndCause.CANCEL else (MOBILE, bench.alice)
    bench.end(cause, sender, receiver, status=486, branch="other")
    if cause is EndCause.CANCEL:
        bench.end(EndCause.FAILURE, MOBILE, bench.alice, status=487, branch="other")
    assert bench.state() is CallState.RINGING
    bench.run(100)
    bench.answer((stream("10.0.0.1:4002"),), by=DESK)
    assert bench.packet(DESK_MEDIA, port) and not bench.packet(MOBILE_MEDIA, port)


def test_both_ways_fail() -> None:
    bench, port = invited_twice()
    bench.end(EndCause.FAILURE, MOBILE, bench.alice, status=486, branch="other")
    assert bench.packet(DESK_MEDIA, port) and not bench.packet(MOBILE_MEDIA, port), "it frees only itself"
    bench.end(EndCause.FAILURE, DESK, bench.alice, status=404, branch="one")
    assert bench.state() is CallState.LINGERING
    bench.run(33)
    assert [(report.reason, report.status) for report in bench.ended] == [(EndReason.FAILURE, 404)]


def test_a_way_that_nobody_knows() -> None:
    """A door that does not tell branches means the whole call; a branch that no INVITE had is none of it."""
    bench, _ = invited_twice()
    bench.end(EndCause.FAILURE, NOBODY, bench.alice, status=482, branch="third")
    assert bench.state() is CallState.RINGING
    bench.end(EndCause.CANCEL, bench.alice, NOBODY)
    assert bench.state() is CallState.LINGERING


def test_a_new_attempt_has_ways_of_its_own() -> None:
    bench, _ = invited_twice()
    for branch in ("one", "other"):
        bench.end(EndCause.FAILURE, NOBODY, bench.alice, status=407, branch=branch)
    bench.invite(branch="again", cseq=2)
    bench.invite(branch="late", cseq=1)
    bench.end(EndCause.FAILURE, NOBODY, bench.alice, status=486, branch="one")
    assert bench.state() is CallState.RINGING
    bench.end(EndCause.FAILURE, NOBODY, bench.alice, status=486, branch="again")
    assert bench.state() is CallState.LINGERING


@pytest.mark.parametrize("cseq", [1, 2, 99])
@pytest.mark.parametrize("answered", [False, True])
def test_who_was_rung_once_cannot_take_the_call(answered: bool, cseq: int) -> None:
    """A phone of the fork knows Call-ID and the caller's tag. It calls somebody else with these, from its own place."""
    bench = Bench()
    (port,) = bench.invite(branch="one").ports
    facing_alice = bench.answer(by=DESK, status=200 if answered else 183).ports[0]
    assert port is not None and facing_alice is not None
    before = bench.report
    thief = Phone("alice", "198.18.0.9", "198.18.0.9:1")
    reply = bench.media(thief, NOBODY, branch="thief", cseq=cseq)
    assert reply.status == 482
    bench.end(EndCause.FAILURE, NOBODY, thief, status=482, branch="thief")
    bench.end(EndCause.CANCEL, thief, NOBODY, branch="thief")
    assert bench.report == before
    assert bench.packet(STRANGER, facing_alice.rtp) == []
    assert bench.packet(DESK_MEDIA, port.rtp)[0].target == at("203.0.113.1:4000")


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


def test_what_is_kept_of_legs_is_bounded() -> None:
    """Two parties who do it on purpose: forks without end, each of which fails."""
    bench = Bench(max_legs=4)
    (port,) = bench.invite().ports
    assert port is not None
    for number in range(200):
        leg = Phone(f"leg{number}", "198.51.100.11", "10.0.0.1:4000", branch=f"z9hG4bK{number}")
        assert ports_of(bench.answer(by=leg, status=183)) and bench.packet(DESK_MEDIA, port.rtp)
        bench.end(EndCause.BRANCH, leg, bench.alice, status=486, branch=leg.branch)
    (call,) = bench.calls._calls["call-1"]
    assert len(call.legs) <= 16 and len(call.memory._last) <= 20 and len(call.memory._offers) <= 20
    bench.answer()
    assert bench.packet(BOB, port.rtp)


def test_a_bye_of_an_early_leg_ends_only_it() -> None:
    """Also if a proxy further on forked, so that both legs came by one branch."""
    bench = Bench()
    twin = Phone("twin", "198.51.100.33", "10.0.0.1:4000", branch=DESK.branch)
    (port,) = bench.invite().ports
    bench.answer(by=DESK, status=183)
    bench.answer(by=twin, status=183)
    assert bench.bye(bench.alice, twin).error == "" and bench.ended == []
    assert port is not None and bench.packet(DESK_MEDIA, port.rtp) and not bench.packet("198.51.100.33:1", port.rtp)
    bench.bye(bench.alice, DESK)
    assert len(bench.ended) == 1


def test_the_bye_of_a_leg_that_answered_without_sdp_leaves_the_first_one() -> None:
    bench = Bench()
    (port,) = bench.invite().ports
    bench.answer(by=MOBILE, status=183)
    bench.answer(by=DESK)
    bench.confirm(MOBILE, bench.alice, status=200)
    assert bench.bye(bench.alice, MOBILE).error == "" and bench.ended == []
    assert port is not None and bench.packet(DESK_MEDIA, port.rtp) and bench.report.callee.tag == "desk"


def test_who_answered_without_sdp_inherits_the_ports_of_the_first() -> None:
    bench = Bench()
    (port,) = bench.invite().ports
    bench.answer(by=MOBILE, status=183)
    bench.answer(by=DESK)
    bench.confirm(MOBILE, bench.alice, status=200)
    bench.bye(DESK, bench.alice)
    assert bench.ended == [] and port is not None
    assert bench.packet(MOBILE_MEDIA, port.rtp) and not bench.packet(DESK_MEDIA, port.rtp)
