"""relay/offers.py: a refused re-INVITE or UPDATE leaves the session as it was (RFC 3261 §14.1, RFC 3311 §5.2)."""

import pytest

from mediaproxy.control import Direction, EndCause, MediaReply, Stream
from mediaproxy.events import CallReport, CallState, EndReason, Side, StreamChanged
from tests.relaybench import ALICE, BOB, RTCP, TWO, Bench, Phone, at, ports_of, rtp, stream

HOLD = (stream("10.0.0.1:4000", direction=Direction.SENDONLY),)
ZERO = (stream("0.0.0.0:4000"),)
MOVED = (stream("198.51.100.77:6000"),)
NEW, NEWER = "198.51.100.77:6000", "198.51.100.78:7000"
CODEC = (stream("10.0.0.1:4000", types=(8,)),)
NOTHING = (stream(None),)
OFFERS = {"hold": HOLD, "0.0.0.0": ZERO, "another place": MOVED, "codec": CODEC, "port 0": NOTHING, "video": TWO}


class Ringing(Bench):
    """A bench that refuses offers."""

    def refuse(self, by: Phone, to: Phone, cseq: int, status: int = 488) -> MediaReply:
        """A final response ≥ 300 of ``by``."""
        return self.end(EndCause.REFUSED, by, to, cseq=cseq, status=status)

    @property
    def report(self) -> CallReport:
        """With what the plane has counted so far."""
        self.tick()
        return super().report


class Talk(Ringing):
    """Alice and Bob talk, and both have been heard."""

    def __init__(self, streams: tuple[Stream, ...] | None = None, **changed: object) -> None:
        super().__init__(**changed)
        self.facing_alice, self.facing_bob = self.talk(streams)
        self.hear()

    def hear(self) -> None:
        """Both directions flow."""
        self.sequence = getattr(self, "sequence", 0) + 1
        assert len(self.packet(BOB, self.facing_bob, rtp(self.sequence))) == 1
        (sent,) = self.packet(ALICE, self.facing_alice, rtp(self.sequence))
        assert sent.target == at(BOB)
        (sent,) = self.packet(BOB, self.facing_bob, rtp(self.sequence + 1))
        assert sent.target == at(ALICE)

    def standing(self) -> tuple[CallReport, int]:
        """Everything that must be as before, but for what was counted meanwhile."""
        return self.report, len([flow for flow in self.flows.values() if flow.peer])


@pytest.mark.parametrize("asks", [Side.CALLER, Side.CALLEE])
@pytest.mark.parametrize("offer", OFFERS.values(), ids=OFFERS)
def test_a_refused_offer_leaves_everything_as_it_was(offer: tuple[Stream, ...], asks: Side) -> None:
    bench = Talk()
    one, other = (bench.alice, bench.bob) if asks is Side.CALLER else (bench.bob, bench.alice)
    before, flows = bench.standing(), dict(bench.flows)
    ports = ports_of(bench.media(one, other, offer, cseq=2))
    assert len(ports) == len(offer)
    assert bench.refuse(other, one, 2).error == ""
    assert bench.standing() == before and {local: bench.flows[local] for local in flows} == flows
    bench.hear()
    bench.run(31)
    assert bench.flows.keys() == flows.keys(), "what was lent for it has cooled"
    bench.run(60)
    assert [report.reason for report in bench.ended] == [EndReason.SILENT], "90 s, not the 7 200 s of a hold"


def test_a_refused_hold_is_told() -> None:
    bench = Talk()
    bench.media(bench.alice, bench.bob, HOLD, cseq=2)
    assert bench.state() is CallState.HELD
    bench.refuse(bench.bob, bench.alice, 2)
    changes = [(event.side, event.held) for event in bench.seen(StreamChanged) if isinstance(event, StreamChanged)]
    assert bench.state() is CallState.TALKING and changes == [(Side.CALLER, True), (Side.CALLER, False)]


def test_a_refused_resume_leaves_the_hold() -> None:
    bench = Talk()
    bench.media(bench.alice, bench.bob, HOLD, cseq=2)
    bench.answer((stream("10.0.0.1:4000", direction=Direction.RECVONLY),), cseq=2)
    bench.media(bench.alice, bench.bob, cseq=3)
    assert bench.state() is CallState.TALKING
    bench.refuse(bench.bob, bench.alice, 3, 408)
    assert bench.state() is CallState.HELD


def test_nobody_is_expected_at_the_refused_place() -> None:
    bench = Talk()
    bench.media(bench.bob, bench.alice, MOVED, cseq=1, phone=Phone("", "198.51.100.77", "").phone)
    bench.refuse(bench.alice, bench.bob, 1)
    assert bench.packet(NEW, bench.facing_bob) == [] and bench.packet("198.51.100.77:1", bench.facing_bob) == []
    bench.run(1.5)
    assert bench.packet(ALICE, bench.facing_alice)[0].target == at(BOB), "nor is anything sent there"
    assert bench.side(Side.CALLEE).warnings and "refused" in " ".join(bench.side(Side.CALLEE).warnings)


def test_a_source_that_was_learned_meanwhile_gives_way() -> None:
    """The phone was so sure of its offer that it spoke from there at once."""
    bench = Talk()
    bench.media(bench.bob, bench.alice, MOVED, cseq=1)
    assert bench.packet(NEW, bench.facing_bob) and bench.packet(BOB, bench.facing_bob) == []
    bench.refuse(bench.alice, bench.bob, 1)
    assert bench.packet(BOB, bench.facing_bob)[0].target == at(ALICE)
    assert bench.packet(NEW, bench.facing_bob) == []
    assert bench.packet(ALICE, bench.facing_alice)[0].target == at(BOB)


def test_added_streams_come_back_with_other_ports() -> None:
    bench = Talk()
    first = ports_of(bench.media(bench.alice, bench.bob, TWO, cseq=2))
    assert len(bench.flows) == 8 and first[1]
    video = at(f"192.0.2.1:{first[1]}")
    bench.refuse(bench.bob, bench.alice, 2)
    assert bench.packet(BOB, video, rtp(payload_type=96)) == [] and bench.calls.ports_cooling == 2
    assert ports_of(bench.media(bench.alice, bench.bob, TWO, cseq=2)) == [first[0], None], "a late retransmission"
    assert bench.calls.ports_lent == 2
    again = ports_of(bench.media(bench.alice, bench.bob, TWO, cseq=3))
    assert again[0] == first[0] and again[1] not in (None, first[1])
    assert all(ports_of(bench.answer(TWO, cseq=3)))
    assert len(bench.packet(BOB, at(f"192.0.2.1:{again[1]}"), rtp(payload_type=96))) == 1


def test_a_provisional_answer_is_undone_too() -> None:
    """183 with SDP to the re-INVITE, then 500."""
    bench = Talk()
    before, flows = bench.standing(), dict(bench.flows)
    bench.media(bench.alice, bench.bob, (*HOLD, TWO[1]), cseq=2)
    answer = (stream("198.51.100.77:6000", direction=Direction.RECVONLY), TWO[1])
    assert all(ports_of(bench.answer(answer, status=183, cseq=2)))
    bench.answer((*MOVED, TWO[1]), status=183, cseq=2)
    assert bench.side(Side.CALLEE).sdp == at(NEW)
    bench.refuse(bench.bob, bench.alice, 2, 500)
    assert bench.standing() == before and {local: bench.flows[local] for local in flows} == flows
    bench.hear()
    bench.answer(answer, status=183, cseq=2)
    assert bench.standing()[0].streams[0].callee.sdp == at("10.0.0.1:4000"), "a late 183 is of no use any more"


def test_what_was_accepted_stays() -> None:
    bench = Talk()
    bench.media(bench.alice, bench.bob, HOLD, cseq=2)
    bench.answer(cseq=2)
    before = bench.report
    bench.refuse(bench.bob, bench.alice, 2)
    assert bench.report == before and bench.state() is CallState.HELD


@pytest.mark.parametrize("by_ack", [True, False])
def test_what_was_confirmed_stays(by_ack: bool) -> None:
    """The answer was in a reliable 183; the 200 has no SDP."""
    bench = Talk()
    bench.media(bench.alice, bench.bob, HOLD, cseq=2)
    bench.answer(status=183, cseq=2)
    if by_ack:
        bench.confirm(bench.alice, bench.bob, cseq=2)
    else:
        bench.confirm(bench.bob, bench.alice, status=200, cseq=2)
    bench.refuse(bench.bob, bench.alice, 2)
    assert bench.state() is CallState.HELD


NO_EFFECT = {
    "another CSeq": ("bob", "alice", 3),
    "none": ("bob", "alice", 0),
    "the other party's": ("alice", "bob", 2),
    "another dialog": ("carol", "alice", 2),
    "without a tag": ("", "alice", 2),
    "another call": ("bob", "mallory", 2),
}


@pytest.mark.parametrize(("by", "to", "cseq"), NO_EFFECT.values(), ids=NO_EFFECT)
def test_what_was_not_refused_stays(by: str, to: str, cseq: int) -> None:
    bench = Talk()
    bench.media(bench.alice, bench.bob, HOLD, cseq=2)
    before = bench.report
    bench.refuse(Phone(by, None, ""), Phone(to, None, ""), cseq)
    assert bench.report == before
    bench.refuse(bench.bob, bench.alice, 2)
    bench.refuse(bench.bob, bench.alice, 2)
    assert bench.state() is CallState.TALKING


def test_a_refusal_of_an_unknown_call() -> None:
    bench = Talk()
    assert bench.end(EndCause.REFUSED, bench.bob, bench.alice, cseq=2, call_id="other").status == 481


def test_a_failed_initial_invite_is_no_refused_offer() -> None:
    """Should a door mistake one for the other, nothing happens."""
    bench = Bench()
    bench.invite()
    bench.answer(status=183)
    before = bench.report
    bench.end(EndCause.REFUSED, bench.bob, bench.alice, cseq=1, status=486)
    assert bench.report == before


@pytest.mark.parametrize("status", [401, 407])
def test_with_credentials_it_is_accepted(status: int) -> None:
    bench = Talk()
    bench.media(bench.alice, bench.bob, HOLD, cseq=2)
    bench.refuse(bench.bob, bench.alice, 2, status)
    bench.media(bench.alice, bench.bob, HOLD, cseq=3)
    bench.answer(cseq=3)
    bench.refuse(bench.bob, bench.alice, 2, status)
    assert bench.state() is CallState.HELD


@pytest.mark.parametrize("first", [Side.CALLER, Side.CALLEE])
def test_glare(first: Side) -> None:
    """Both offer at once and refuse each other's with 491 (RFC 3261 §14.1), whichever refusal comes first."""
    bench = Talk()
    before, flows = bench.standing(), dict(bench.flows)
    bench.media(bench.alice, bench.bob, (*HOLD, TWO[1]), cseq=2)
    bench.media(bench.bob, bench.alice, (*MOVED, TWO[1]), cseq=2)
    refusals = [(bench.alice, bench.bob), (bench.bob, bench.alice)]
    for by, to in refusals if first is Side.CALLER else reversed(refusals):
        bench.refuse(by, to, 2, 491)
    assert bench.standing() == before and {local: bench.flows[local] for local in flows} == flows
    bench.hear()
    assert bench.calls.ports_cooling == 2
    bench.media(bench.bob, bench.alice, HOLD, cseq=3)
    bench.media(bench.alice, bench.bob, cseq=3, status=200)
    assert bench.state() is CallState.HELD


def test_glare_of_which_one_is_accepted() -> None:
    """Bob's offer added video as well, and stands: the ports stay, though Alice's were refused."""
    bench = Talk()
    first = ports_of(bench.media(bench.alice, bench.bob, TWO, cseq=2))
    back = ports_of(bench.media(bench.bob, bench.alice, TWO, cseq=2))
    bench.refuse(bench.bob, bench.alice, 2, 491)
    assert bench.calls.ports_cooling == 0
    reply = bench.media(bench.alice, bench.bob, TWO, cseq=2, status=200, sdp_hash="the answer")
    assert ports_of(reply) == first
    facing_bob, facing_alice = at(f"192.0.2.1:{first[1]}"), at(f"192.0.2.1:{back[1]}")
    assert bench.packet(BOB, facing_bob, rtp(payload_type=96))[0].local == facing_alice
    assert bench.packet(ALICE, facing_alice, rtp(payload_type=96))[0].local == facing_bob


def test_a_later_offer_of_the_other_party_is_not_undone() -> None:
    """Bob's UPDATE came and was answered while Alice's re-INVITE was pending."""
    bench = Talk()
    bench.media(bench.alice, bench.bob, MOVED, cseq=2)
    bench.media(bench.bob, bench.alice, (stream(NEWER),), cseq=1)
    bench.media(bench.alice, bench.bob, HOLD, cseq=1, status=200)
    before = bench.report
    bench.refuse(bench.bob, bench.alice, 2)
    assert bench.report == before and bench.state() is CallState.HELD


def test_an_earlier_offer_that_is_refused_later() -> None:
    """Alice sends an UPDATE while her re-INVITE is pending; first the UPDATE is refused, then the re-INVITE."""
    bench = Talk()
    before = bench.standing()
    bench.media(bench.alice, bench.bob, HOLD, cseq=2)
    held = bench.report
    bench.media(bench.alice, bench.bob, MOVED, cseq=3)
    bench.refuse(bench.bob, bench.alice, 3, 500)
    assert bench.report == held
    bench.refuse(bench.bob, bench.alice, 2, 500)
    assert bench.standing() == before


def test_an_earlier_offer_that_is_refused_first() -> None:
    bench = Talk()
    before = bench.standing()
    bench.media(bench.alice, bench.bob, HOLD, cseq=2)
    bench.media(bench.alice, bench.bob, MOVED, cseq=3)
    now = bench.report
    bench.refuse(bench.bob, bench.alice, 2, 500)
    assert bench.report == now
    bench.refuse(bench.bob, bench.alice, 3, 500)
    assert bench.standing() == before, "not the hold, which was refused before"


def test_a_late_offer_that_fails() -> None:
    """re-INVITE without SDP, the offer in a reliable 183, the answer in the PRACK; then 500."""
    bench = Talk()
    before = bench.standing()
    bench.answer(MOVED, status=183, cseq=2)
    bench.media(bench.alice, bench.bob, HOLD, cseq=3)
    assert bench.state() is CallState.HELD and bench.side(Side.CALLEE).sdp == at(NEW)
    bench.refuse(bench.bob, bench.alice, 2, 500)
    assert bench.standing() == before
    bench.hear()


def test_a_late_offer_that_stands() -> None:
    bench = Talk()
    bench.answer(MOVED, cseq=2)
    bench.media(bench.alice, bench.bob, HOLD, cseq=2)
    bench.refuse(bench.bob, bench.alice, 2, 500)
    assert bench.state() is CallState.HELD and bench.side(Side.CALLEE).sdp == at(NEW)


def test_a_refused_update_before_the_answer() -> None:
    """Early media flows on as it did (RFC 3311)."""
    bench = Ringing()
    (port,) = bench.invite().ports
    bench.answer(status=183)
    assert port is not None
    bench.packet(BOB, port.rtp)
    before = bench.report
    bench.media(bench.alice, bench.bob, MOVED, cseq=2)
    bench.refuse(bench.bob, bench.alice, 2, 504)
    assert bench.report == before
    bench.media(bench.bob, bench.alice, MOVED, cseq=1)
    bench.refuse(bench.alice, bench.bob, 1, 500)
    assert bench.report == before and bench.packet(BOB, port.rtp)
    bench.answer(status=200)
    assert bench.state() is CallState.TALKING and bench.packet(BOB, port.rtp)


DESK = Phone("desk", "198.51.100.11", "10.0.0.1:4000", branch="z9hG4bK-desk")


def test_a_refused_offer_in_the_dialog_of_a_second_2xx() -> None:
    bench = Talk()
    bench.answer(by=DESK)
    before = bench.standing()
    bench.media(bench.alice, DESK, (*HOLD, TWO[1]), cseq=2)
    assert bench.report.streams[1].held and len(bench.report.streams) == 3
    bench.refuse(DESK, bench.alice, 2)
    assert bench.standing() == before
    bench.hear()


def test_a_dialog_that_nobody_knows_is_forgotten_again() -> None:
    """A request with a To tag that we never saw: its 2xx may have passed by elsewhere, but the phone says 481."""
    bench = Talk()
    carol = Phone("carol", "198.51.100.3", "10.0.0.3:4000")
    bench.media(bench.alice, carol, HOLD, cseq=7)
    assert len(bench.flows) == 8
    bench.refuse(carol, bench.alice, 7, 481)
    assert bench.state() is CallState.TALKING and bench.calls.ports_cooling == 2
    bench.bye()
    assert [report.reason for report in bench.ended] == [EndReason.BYE]


def test_an_offer_to_one_of_two_early_legs_is_refused() -> None:
    """They have the caller's streams in common. What was said in the other dialog since, stays."""
    bench = Ringing()
    bench.invite()
    bench.answer(by=DESK, status=183)
    bench.answer(status=183)
    bench.media(bench.alice, DESK, MOVED, cseq=2, method="UPDATE")
    bench.media(bench.alice, bench.bob, (stream(NEWER),), cseq=3, method="UPDATE")
    bench.refuse(DESK, bench.alice, 2, 481)
    assert bench.side(Side.CALLER).sdp == at(NEWER)
    bench.refuse(bench.bob, bench.alice, 3, 500)
    assert bench.side(Side.CALLER).sdp == at("10.0.0.1:4000"), "what the INVITE said"
    bench.media(bench.alice, DESK, MOVED, cseq=4, method="UPDATE")
    bench.answer()
    bench.refuse(DESK, bench.alice, 4, 481)
    assert bench.side(Side.CALLER).sdp == at("10.0.0.1:4000"), "nor does it bind in the dialog that was answered"


def test_a_refusal_after_the_leg_has_ended() -> None:
    """The first leg's BYE crosses its re-INVITE; the second one has inherited the ports."""
    bench = Ringing()
    bench.invite()
    bench.answer(by=DESK, status=183)
    bench.answer()
    bench.confirm(DESK, bench.alice, status=200)
    bench.media(bench.alice, bench.bob, HOLD, cseq=2)
    bench.bye(bench.bob, bench.alice)
    assert bench.report.callee.tag == "desk"
    before = bench.report
    bench.refuse(bench.bob, bench.alice, 2, 481)
    assert bench.report == before


def test_a_refusal_after_a_new_attempt() -> None:
    """An UPDATE that times out when the INVITE has long failed, and was sent again."""
    bench = Ringing()
    bench.invite()
    bench.answer(status=183)
    bench.media(bench.alice, bench.bob, MOVED, cseq=2, method="UPDATE")
    bench.end(EndCause.FAILURE, bench.bob, bench.alice, status=503)
    bench.invite((stream(NEWER),), cseq=3)
    before = bench.report
    bench.refuse(bench.bob, bench.alice, 2, 408)
    assert bench.report == before


def test_rtcp_flows_on_too() -> None:
    bench = Talk()
    facing = bench.facing_bob.with_port(bench.facing_bob.port + 1)
    assert bench.packet(BOB, facing, RTCP)
    bench.media(bench.bob, bench.alice, MOVED, cseq=1)
    bench.refuse(bench.alice, bench.bob, 1)
    assert bench.packet(BOB, facing, RTCP) and bench.packet(NEW, facing, RTCP) == []


def test_many_offers_that_nobody_answers() -> None:
    """What can be undone is bounded; the newest can."""
    bench = Talk()
    for number in range(2, 100):
        bench.media(bench.alice, bench.bob, (stream(f"198.51.100.77:{6000 + number}"),), cseq=number)
    bench.refuse(bench.bob, bench.alice, 99)
    assert bench.side(Side.CALLER).sdp == at("198.51.100.77:6098")
