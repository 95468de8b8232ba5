"""relay/negotiation.py: a party changes its IP version within a call, from Wi-Fi to mobile for example."""

import pytest

from mediaproxy.control import EndCause, KnownBy, PhoneAddress
from mediaproxy.endpoint import Endpoint
from mediaproxy.events import EndReason, OneWay, Side
from mediaproxy.relay.settings import RelayAddress
from tests.relaybench import ALICE, BOB, TWO, V4, V6, Bench, Phone, ports_of, rtp, stream

BOTH = (RelayAddress(bind=V4), RelayAddress(bind=V6))
SIX, SIX_HOME = "[2001:db8:a::1]:4000", "2001:db8:a::1"
MOVED = PhoneAddress(endpoint=Endpoint(SIX_HOME, 5060), known_by=KnownBy.SOURCE)


class Talk(Bench):
    """Alice and Bob talk over IPv4."""

    def __init__(self, addresses: tuple[RelayAddress, ...] = BOTH) -> None:
        super().__init__(addresses=addresses)
        self.facing = dict(zip(Side, self.talk(), strict=True))
        self.places = {Side.CALLER: ALICE, Side.CALLEE: BOB}
        self.sequence = 0
        self.two_way()

    def parties(self, mover: Side) -> tuple[Phone, Phone]:
        """Who moves, and the other one."""
        return (self.alice, self.bob) if mover is Side.CALLER else (self.bob, self.alice)

    def move(self, mover: Side, place: str = SIX, cseq: int = 2) -> Endpoint:
        """The offer of who moves: the port that the other one is told."""
        one, other = self.parties(mover)
        phone = MOVED if place == SIX else one.phone
        (port,) = self.media(one, other, (stream(place),), cseq=cseq, phone=phone).ports
        assert port is not None
        return port.rtp

    def accept(self, mover: Side, cseq: int = 2, status: int = 200) -> Endpoint:
        """The answer of the other one: the port that the mover is told."""
        one, other = self.parties(mover)
        (port,) = self.media(other, one, status=status, cseq=cseq).ports
        assert port is not None
        return port.rtp

    def two_way(self) -> None:
        """Both speak from their places to the ports that they were told, and are heard."""
        for side in (*Side, Side.CALLER):
            self.sequence += 1
            (sent,) = self.packet(self.places[side], self.facing[side], rtp(self.sequence))
        for side in Side:
            self.sequence += 1
            (sent,) = self.packet(self.places[side], self.facing[side], rtp(self.sequence))
            assert (sent.local, str(sent.target)) == (self.facing[side.other], self.places[side.other])


@pytest.mark.parametrize("mover", list(Side))
def test_a_party_moves_to_another_ip_version(mover: Side) -> None:
    bench = Talk()
    old = dict(bench.facing)
    bench.facing[mover.other] = bench.move(mover)
    assert bench.facing[mover.other].version == 4 and bench.facing[mover.other] != old[mover.other]
    assert len(bench.packet(bench.places[mover.other], old[mover.other])) <= 1, "what is under way is heard"
    bench.facing[mover] = bench.accept(mover)
    bench.places[mover] = SIX
    assert bench.facing[mover].version == 6
    bench.run(1.1)
    bench.two_way()
    assert bench.calls.ports_cooling == 2 and bench.calls.ports_lent == 2
    bench.run(60)
    assert len(bench.flows) == 4 and len(bench.report.streams) == 1 and bench.seen(OneWay) == []
    bench.bye()
    bench.run(40)
    assert bench.flows == {} and [report.reason for report in bench.ended] == [EndReason.BYE]


@pytest.mark.parametrize("mover", list(Side))
@pytest.mark.parametrize("provisional", [False, True])
def test_the_move_is_refused(mover: Side, provisional: bool) -> None:
    bench = Talk()
    one, other = bench.parties(mover)
    flows, before = dict(bench.flows), bench.report
    bench.move(mover)
    if provisional:
        bench.accept(mover, status=183)
    assert bench.calls.ports_lent == 4
    bench.end(EndCause.REFUSED, other, one, cseq=2, status=488)
    assert {local: bench.flows[local] for local in flows} == flows and bench.calls.ports_lent == 2
    assert [s.caller.local for s in bench.report.streams] == [s.caller.local for s in before.streams]
    bench.two_way()


def test_there_and_back() -> None:
    bench = Talk()
    for cseq, place in enumerate((SIX, "10.0.0.1:4000", SIX), 2):
        bench.facing[Side.CALLEE] = bench.move(Side.CALLER, place, cseq)
        bench.facing[Side.CALLER] = bench.accept(Side.CALLER, cseq)
        bench.places[Side.CALLER] = SIX if place is SIX else ALICE
        bench.run(1.1)
        bench.two_way()
        assert bench.calls.ports_lent == 2


def test_offers_without_answers_take_no_more_ports() -> None:
    bench = Talk()
    for cseq in range(2, 60):
        bench.media(bench.alice, bench.bob, (stream(SIX if cseq % 2 else "10.0.0.1:4000"),), cseq=cseq, phone=MOVED)
        assert bench.calls.ports_lent <= 4


def test_what_is_no_move() -> None:
    """A hold of the old kind, an answer, a relay that has no such address."""
    bench = Talk()
    flows = bench.flows.keys()
    bench.media(bench.alice, bench.bob, (stream("[::]:4000"),), cseq=2)
    bench.answer((stream(SIX),), cseq=2)
    assert bench.flows.keys() == flows
    only = Talk(BOTH[:1])
    flows = only.flows.keys()
    only.media(only.alice, only.bob, (stream(SIX),), cseq=2)
    assert only.flows.keys() == flows


def test_no_ports_left_for_a_move() -> None:
    bench = Bench(addresses=BOTH, port_min=20000, port_max=20002)
    _, facing_bob = bench.talk()
    before = bench.report
    assert bench.media(bench.alice, bench.bob, (stream(SIX),), cseq=2).status == 480
    assert bench.report == before and bench.packet(BOB, facing_bob)


def test_the_caller_tries_again_by_the_other_version() -> None:
    """Its first INVITE failed; nobody has been told of the old ports for good, so they cool at once."""
    bench = Bench(addresses=BOTH)
    bench.invite((stream(SIX),))
    bench.end(EndCause.FAILURE, bench.bob, bench.alice, status=480)
    (port,) = bench.invite(cseq=2, receiver_version=4).ports
    assert port is not None and port.rtp.address == V4
    assert bench.calls.ports_cooling == 2 and bench.calls.ports_lent == 2
    (back,) = bench.answer(cseq=2).ports
    assert back is not None and back.rtp.address == V4
    assert bench.packet(BOB, port.rtp)[0].local == back.rtp


def test_another_program_has_the_new_port() -> None:
    """The old stream is back in its place until the question is asked again."""
    bench = Talk()
    new = bench.move(Side.CALLER)
    bench.do(bench.calls.withdraw(new, bench.now))
    bench.two_way()
    bench.facing[Side.CALLEE] = bench.move(Side.CALLER)
    bench.facing[Side.CALLER] = bench.accept(Side.CALLER)
    bench.places[Side.CALLER] = SIX
    bench.run(1.1)
    bench.two_way()


def test_video_moves_along() -> None:
    bench = Bench(addresses=BOTH)
    bench.invite(TWO)
    bench.answer(TWO)
    six = (stream(SIX), stream(SIX.replace("4000", "4002"), kind="video", types=(96,)))
    told = ports_of(bench.media(bench.alice, bench.bob, six, cseq=2, phone=MOVED))
    back = bench.answer(TWO, cseq=2, sdp_hash="2").ports
    assert all(told) and [port.rtp.version for port in back if port] == [6, 6]
    assert bench.calls.ports_lent == 4
