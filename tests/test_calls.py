"""relay/calls.py and relay/switchboard.py: the whole way of a call, and where its packets go (calls.md 5, 7, 8).

Ports are in test_negotiation.py, forks and ends in test_calls_ends.py, random sequences in test_calls_random.py.
"""

import gc
from weakref import ref

from mediaproxy.control import EndCause
from mediaproxy.events import (
    CallAnswered,
    CallEnded,
    CallStarted,
    EndReason,
    PeerLearned,
    Side,
    SourceRefused,
    StreamChanged,
)
from mediaproxy.relay.settings import RelayAddress
from mediaproxy.relay.stream import Stream
from tests.relaybench import ALICE, BOB, DTLS, RTCP, STRANGER, STUN, UDPTL, V4, Bench, Phone, at, rtp, stream

# -- the whole way


def test_a_call_from_offer_to_end() -> None:
    bench = Bench()
    facing_alice, facing_bob = bench.talk()
    assert {facing_alice, facing_bob} == {local for local in bench.flows if local.port % 2 == 0}
    (sent,) = bench.packet(BOB, facing_bob)
    assert (sent.local, sent.target) == (facing_alice, at("203.0.113.1:4000")), "before learning: rule 5"
    (sent,) = bench.packet(ALICE, facing_alice)
    assert (sent.local, sent.target) == (facing_bob, at(BOB)), "learned, at once"
    (sent,) = bench.packet(BOB, facing_bob)
    assert sent.target == at(ALICE)
    flow = bench.flows[facing_alice]
    assert (flow.source, flow.target, flow.peer) == (at(ALICE), at(ALICE), facing_bob)
    assert bench.report.streams[0].plane == "user"
    assert bench.bye().error == ""
    assert [type(event) for event in bench.events] == [CallStarted, CallAnswered, PeerLearned, PeerLearned, CallEnded]
    (report,) = bench.ended
    assert report.reason is EndReason.BYE and report.duration == 0.0
    side = report.streams[0].callee
    assert (side.packets, side.sent, side.learned, side.rank, side.codec) == (2, 1, at(BOB), 3, "PCMU")
    assert len(bench.calls) == 0 and bench.calls.reports(bench.now) == ()


def test_a_call_that_has_ended_is_freed_without_the_garbage_collector() -> None:
    """Its work would hold up packets (server/process.py)."""
    bench = Bench()
    facing_alice, facing_bob = bench.talk()
    bench.packet(BOB, facing_bob)
    gc.collect()
    gc.disable()
    try:
        streams = [ref(thing) for thing in gc.get_objects() if isinstance(thing, Stream)]
        bench.bye()
        assert streams and [one() for one in streams] == [None] * len(streams)
    finally:
        gc.enable()


def test_strangers_get_nothing_and_are_shown() -> None:
    bench = Bench()
    facing_alice, facing_bob = bench.talk()
    for number in range(100):
        assert bench.packet(STRANGER, facing_bob, rtp(number)) == []
    bench.packet(BOB, facing_bob)
    bench.packet(ALICE, facing_alice)
    assert bench.packet(STRANGER, facing_bob) == bench.packet(STRANGER, facing_alice) == []
    assert at(STRANGER) not in {sent.target for sent in bench.sent}
    refusals = bench.seen(SourceRefused)
    assert len(refusals) == 2, "one event per source and port"
    side = bench.side(Side.CALLEE)
    assert side.refused_packets == 101 and side.refused[0].source == at(STRANGER) and side.refused[0].packets == 101
    assert any("198.18.0.9:1" in warning and "refused" in warning for warning in side.warnings)


def test_nothing_is_heard_from_the_callee_before_its_answer() -> None:
    """No expectation, no packets; and no alarm either, for its 200 may be on the way."""
    bench = Bench()
    (port,) = bench.invite().ports
    assert port is not None and bench.packet(BOB, port.rtp) == []
    assert bench.seen(SourceRefused) == [] and bench.side(Side.CALLEE).refused_packets == 1
    bench.answer(status=183)
    assert len(bench.packet(BOB, port.rtp)) == 1


def test_rtcp_has_its_own_ports_and_its_own_source() -> None:
    bench = Bench()
    offer = (stream("10.0.0.1:4000", rtcp=at("10.0.0.1:4999")),)
    facing_alice, facing_bob = bench.talk(offer)
    alice_rtcp, bob_rtcp = facing_alice.with_port(facing_alice.port + 1), facing_bob.with_port(facing_bob.port + 1)
    (sent,) = bench.packet("198.51.100.2:33", bob_rtcp, RTCP)
    assert (sent.local, sent.target) == (alice_rtcp, at("203.0.113.1:4999")), "RTCP by a=rtcp"
    assert bench.packet("198.51.100.2:33", facing_bob, RTCP) == [], "RTCP does not latch the RTP port"
    (sent,) = bench.packet("203.0.113.1:77", alice_rtcp, RTCP)
    assert (sent.local, sent.target) == (bob_rtcp, at("198.51.100.2:33"))
    assert bench.side(Side.CALLER).learned is None and bench.side(Side.CALLER).rtcp_packets == 1
    assert [event.rtcp for event in bench.seen(PeerLearned) if isinstance(event, PeerLearned)] == [True, True]


def test_who_hops_to_and_fro_does_not_fill_the_log() -> None:
    """The same stream from two ports in turn: every packet is followed (calls.md 6), not every one is told of."""
    bench = Bench()
    _, facing_bob = bench.talk()
    for number in range(1000):
        assert bench.packet(f"198.51.100.2:{32 + number % 2}", facing_bob, rtp(number))
        bench.now += 0.02
    assert len(bench.seen(PeerLearned)) == 9, "8 at once, then one each 10 s"
    bench.tick()
    assert bench.side(Side.CALLEE).packets == 1000


def test_rtcp_mux_follows_the_rtp_flow() -> None:
    bench = Bench()
    mux = (stream("10.0.0.1:4000", rtcp_mux=True),)
    facing_bob = bench.invite(mux).ports[0]
    facing_alice = bench.answer(mux).ports[0]
    assert facing_bob and facing_alice
    assert bench.packet(BOB, facing_bob.rtp, RTCP)[0].local == facing_alice.rtp
    assert bench.packet(BOB, facing_bob.rtp)[0].local == facing_alice.rtp


def test_loss_is_no_word_for_fax() -> None:
    """Datagrams of udptl can look like RTP of any sequence number."""
    bench = Bench()
    fax = (stream("10.0.0.1:4000", kind="image", transport="udptl"),)
    _, facing_bob = bench.talk(fax)
    for number in (1, 9000, 20000):
        bench.packet(BOB, facing_bob, rtp(number))
    bench.tick()
    assert (bench.side(Side.CALLEE).packets, bench.side(Side.CALLEE).lost) == (3, 0)


def test_udptl_has_no_rtcp_and_latches_by_any_datagram() -> None:
    bench = Bench()
    fax = (stream("10.0.0.1:4000", kind="image", transport="udptl"),)
    facing_bob, facing_alice = bench.invite(fax).ports[0], bench.answer(fax).ports[0]
    assert facing_bob and facing_alice and facing_bob.rtcp is facing_alice.rtcp is None
    assert len(bench.packet(BOB, facing_bob.rtp, UDPTL)) == 1
    assert bench.packet(BOB, facing_bob.rtp.with_port(facing_bob.rtp.port + 1), RTCP) == []


def test_ice_and_dtls_pass_before_media() -> None:
    """DTLS must get through both NATs before there is any RTP to latch on."""
    bench = Bench()
    facing_alice, facing_bob = bench.talk((stream("10.0.0.1:4000", ice=True, dtls=True),))
    bench.answer((stream("10.0.0.1:4000", ice=True, dtls=True),), sdp_hash="ice")
    assert bench.packet(BOB, facing_bob, STUN)[0].target == at("203.0.113.1:4000")
    assert bench.packet(ALICE, facing_alice, STUN)[0].target == at(BOB)
    assert bench.packet(BOB, facing_bob, DTLS)[0].target == at(ALICE)
    assert bench.side(Side.CALLEE).learned is None and bench.side(Side.CALLEE).packets == 0


def test_advertised_and_bound_address_are_two_settings() -> None:
    bench = Bench(addresses=(RelayAddress(bind="10.9.9.9", advertise=V4),))
    (port,) = bench.invite().ports
    assert port is not None and port.rtp.address == V4
    assert {flow.local.address for flow in bench.flows.values()} == {"10.9.9.9"}
    side = bench.side(Side.CALLEE)
    assert side.local.address == "10.9.9.9" and side.advertised == port.rtp


# -- rule 5: at most 100 packets/s to an address that has not sent


def limited_bench() -> tuple[Bench, list[int]]:
    """Alice's SDP names a victim. The packets per 0.1 s that reach it."""
    bench = Bench()
    bench.alice.sdp = "198.51.100.66:4000"
    facing_alice, facing_bob = bench.talk()
    counts = []
    for tenth in range(50):
        before = len(bench.sent)
        for number in range(50):
            bench.packet(BOB, facing_bob, rtp(tenth * 50 + number))
        counts.append(len(bench.sent) - before)
        bench.run(0.1)
    return bench, counts


def test_no_reflector() -> None:
    bench, counts = limited_bench()
    assert all(sum(counts[i : i + 10]) <= 100 for i in range(40)) and sum(counts) == 500
    assert {sent.target for sent in bench.sent} == {at("198.51.100.66:4000")}
    assert any("100 packets/s" in warning for warning in bench.side(Side.CALLER).warnings)


def test_the_limit_ends_when_the_peer_has_sent() -> None:
    bench, _ = limited_bench()
    facing_alice, facing_bob = (bench.side(side).local for side in Side)
    bench.packet("198.51.100.66:9", facing_alice)
    before = len(bench.sent)
    for number in range(300):
        bench.packet(BOB, facing_bob, rtp(number))
    assert len(bench.sent) - before == 300 and bench.flows[facing_bob].source == at(BOB)


def test_no_limit_towards_the_signalling_address() -> None:
    bench = Bench()
    _, facing_bob = bench.talk()
    for number in range(300):
        bench.packet(BOB, facing_bob, rtp(number))
    assert len(bench.sent) == 300 and bench.flows[facing_bob].source == at(BOB), "the plane may have it"


def test_an_asymmetric_client_is_no_reflector_either() -> None:
    """Who calls himself asymmetric does not prove that the victim wants his media."""
    bench = Bench()
    bench.alice.sdp, bench.alice.asymmetric = "198.51.100.66:4000", True
    facing_alice, facing_bob = bench.talk()
    bench.packet(ALICE, facing_alice)
    before = len(bench.sent)
    for number in range(300):
        bench.packet(BOB, facing_bob, rtp(number))
    assert len(bench.sent) - before == 100


def test_asymmetric_clients() -> None:
    """calls.md 8: filtered by rule 2, sent to at the SDP's place."""
    bench = Bench()
    bench.bob.sdp, bench.bob.asymmetric = "198.51.100.2:4000", True
    facing_alice, facing_bob = bench.talk()
    for _ in range(3):
        assert bench.packet("198.51.100.2:777", facing_bob) and not bench.packet(STRANGER, facing_bob)
        assert bench.packet(ALICE, facing_alice)[0].target == at("198.51.100.2:4000")
    flow = bench.flows[facing_bob]
    assert (flow.source, flow.target) == (at("198.51.100.2:777"), at("198.51.100.2:4000"))
    bench.media(
        bench.bob, bench.alice, cseq=9, user_agent="", asymmetric=False, sdp_hash="a request that names no agent"
    )
    assert bench.flows[facing_bob].target == at("198.51.100.2:4000")


# -- rule 7


def test_a_session_timer_leaves_the_stream_in_the_kernel() -> None:
    bench = Bench()
    facing_alice, facing_bob = bench.talk()
    bench.packet(BOB, facing_bob)
    bench.packet(ALICE, facing_alice)
    flows = dict(bench.flows)
    bench.media(bench.alice, bench.bob, cseq=2)
    bench.answer(cseq=2)
    assert bench.flows == flows and bench.seen(StreamChanged) == []


def test_a_changed_address_keeps_the_old_source_until_the_new_one_speaks() -> None:
    bench = Bench()
    facing_alice, facing_bob = bench.talk()
    bench.packet(BOB, facing_bob)
    bench.packet(ALICE, facing_alice)
    bench.media(bench.bob, bench.alice, (stream("198.51.100.3:4000"),), cseq=2)
    (change,) = bench.seen(StreamChanged)
    assert isinstance(change, StreamChanged) and change.side is Side.CALLEE and change.sdp == at("198.51.100.3:4000")
    assert len(bench.packet(BOB, facing_bob)) == 1
    assert bench.packet(ALICE, facing_alice)[0].target == at(BOB)
    assert len(bench.packet("198.51.100.3:4000", facing_bob)) == 1
    assert bench.packet(ALICE, facing_alice)[0].target == at("198.51.100.3:4000")
    assert bench.packet(BOB, facing_bob) == []
    learned = bench.seen(PeerLearned)[-1]
    assert isinstance(learned, PeerLearned) and learned.before == at(BOB) and learned.rank == 1


def test_media_goes_to_the_new_address_when_the_old_source_is_silent() -> None:
    """A gateway that waits for media would wait for ever; silence alone is what tells, so a timer must look."""
    bench = Bench()
    facing_alice, facing_bob = bench.talk()
    bench.packet(BOB, facing_bob)
    bench.packet(ALICE, facing_alice)
    bench.media(bench.bob, bench.alice, (stream("198.51.100.3:4000"),), cseq=2)
    bench.run(0.9)
    assert bench.packet(ALICE, facing_alice)[0].target == at(BOB)
    bench.run(0.2)
    assert bench.packet(ALICE, facing_alice)[0].target == at("198.51.100.3:4000")
    assert bench.flows[facing_alice].source is None, "limited until it sends"


def test_who_was_announced_to_move_and_speaks_on_after_a_silence_has_not_moved() -> None:
    """The offer was refused, and the door's protocol does not tell that."""
    bench = Bench()
    facing_alice, facing_bob = bench.talk()
    bench.packet(BOB, facing_bob, rtp(1))
    bench.packet(ALICE, facing_alice)
    bench.media(bench.bob, bench.alice, (stream("198.51.100.2:4002"),), cseq=2, method="")
    for sequence in (2, 5):
        bench.run(1.1)
        assert bench.packet(ALICE, facing_alice)[0].target == at("198.51.100.2:4002")
        for later in range(3):
            assert len(bench.packet(BOB, facing_bob, rtp(sequence + later))) == 1
            assert bench.packet(ALICE, facing_alice)[0].target == at(BOB)
        assert bench.flows[facing_bob].source == at(BOB)
    assert len(bench.packet("198.51.100.2:4002", facing_bob, rtp(1, ssrc=9))) == 1
    assert bench.packet(ALICE, facing_alice)[0].target == at("198.51.100.2:4002")


def test_another_program_has_the_port() -> None:
    """The plane could not bind: the pair goes for good, and asking again gives another one."""
    bench = Bench()
    first = bench.invite().ports[0]
    assert first is not None
    bench.do(bench.calls.withdraw(first.rtp.with_port(first.rtp.port + 1), bench.now))
    assert bench.flows == {}
    again = bench.invite().ports[0]
    assert again is not None and again.rtp != first.rtp and len(bench.flows) == 4
    bench.answer()
    bench.bye()
    bench.run(31)
    assert bench.flows == {} and bench.calls.ports_free == 99
    bench.do(bench.calls.withdraw(at("192.0.2.1:5060"), bench.now))


def test_an_operator_ends_a_call() -> None:
    bench = Bench()
    bench.talk()
    bench.do(bench.calls.end("no such call", bench.now))
    assert bench.ended == []
    assert bench.end(EndCause.ADMIN, Phone("", None, "")).error == ""
    assert [report.reason for report in bench.ended] == [EndReason.ADMIN]
    assert bench.end(EndCause.ADMIN, Phone("", None, "")).status == 481


def test_shutdown() -> None:
    bench = Bench()
    bench.invite(call_id="one")
    bench.invite(call_id="two")
    bench.do(bench.calls.end("one", bench.now))
    bench.do(bench.calls.shutdown(bench.now))
    assert [report.reason for report in bench.ended] == [EndReason.ADMIN, EndReason.SHUTDOWN]
    assert bench.flows == {} and bench.calls.ports_free == 100 and bench.calls.deadline is None
