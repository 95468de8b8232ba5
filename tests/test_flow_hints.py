"""What a flow tells a plane beyond forwarding: when the source is settled, and the clocks of its payload types."""

from mediaproxy.control import PayloadType
from mediaproxy.relay.flow import Flow
from tests.relaybench import ALICE, Bench, Phone, rtp, stream


def flow(bench: Bench, rtp_port: object) -> Flow:
    return next(one for local, one in bench.flows.items() if local == rtp_port)


def test_a_source_is_settled_a_second_after_the_first_packet() -> None:
    bench = Bench()
    facing_alice, facing_bob = bench.talk()
    assert flow(bench, facing_alice).settled_at is None
    bench.packet(ALICE, facing_alice)
    assert flow(bench, facing_alice).settled_at == bench.now + bench.settings.upgrade
    assert flow(bench, facing_bob).settled_at is None


def test_whom_sip_announces_to_move_is_not_settled() -> None:
    """calls.md 7: the first packet of the new source replaces the old one."""
    bench = Bench()
    facing_alice, _ = bench.talk()
    bench.packet(ALICE, facing_alice)
    bench.run(2.0)
    moved = Phone("alice", "203.0.113.77", "10.0.0.1:4000")
    bench.media(moved, bench.bob, cseq=2)
    assert flow(bench, facing_alice).settled_at is None
    bench.packet("203.0.113.77:31", facing_alice)
    assert flow(bench, facing_alice).settled_at is not None


def test_whom_probation_let_in_is_not_settled() -> None:
    """He can be replaced by whoever has a rank."""
    bench = Bench(latch_others="probation")
    facing_alice, _ = bench.talk()
    bench.run(3.0)
    for number in range(8):
        bench.packet("198.18.0.9:1", facing_alice, rtp(number))
    assert str(flow(bench, facing_alice).source or "198.18.0.9:1") == "198.18.0.9:1"
    assert flow(bench, facing_alice).settled_at is None


def test_clocks_are_those_that_the_other_side_wants_first() -> None:
    """A party sends what the other one's SDP lists, by its numbers."""
    bench = Bench()
    opus = (
        PayloadType(number=96, codec="opus", clock_rate=48000),
        PayloadType(number=0, codec="PCMU", clock_rate=8000),
    )
    speex = (PayloadType(number=96, codec="speex", clock_rate=16000), PayloadType(number=13, codec="CN"))
    facing_alice, facing_bob = bench.talk((stream("10.0.0.1:4000"),))
    assert flow(bench, facing_alice).clocks == ((0, 8000), (101, 8000))
    bench = Bench()
    offered = stream("10.0.0.1:4000", payload_types=opus)
    answered = stream("10.0.0.1:4000", payload_types=speex)
    facing_bob = bench.invite((offered,)).ports[0].rtp  # type: ignore[union-attr]  # it has one
    facing_alice = bench.answer((answered,)).ports[0].rtp  # type: ignore[union-attr]  # it has one
    assert flow(bench, facing_alice).clocks == ((96, 16000), (0, 8000)), "what Bob wants, then what else Alice has"
    assert flow(bench, facing_bob).clocks == ((96, 48000), (0, 8000))
    rtcp = facing_alice.with_port(facing_alice.port + 1)
    assert flow(bench, rtcp).clocks == (), "there is no clock in RTCP"


def test_of_many_payload_types_those_that_both_have_come_first() -> None:
    """A browser offers twenty, and the phone answers with two: a plane has room for eleven."""
    offered = tuple(PayloadType(number=96 + number, codec=f"X{number}", clock_rate=90000) for number in range(20))
    bench = Bench()
    facing_bob = bench.invite((stream("10.0.0.1:4000", payload_types=offered),)).ports[0].rtp  # type: ignore[union-attr]  # it has one
    answered = stream("10.0.0.1:4000", payload_types=(offered[17], offered[3]))
    bench.answer((answered,))
    assert flow(bench, facing_bob).clocks[:3] == ((99, 90000), (113, 90000), (96, 90000))
