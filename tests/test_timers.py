"""relay/timers.py: when calls end by themselves, and one-way audio (calls.md 11)."""

import math

import pytest

from mediaproxy.control import Direction, Stream
from mediaproxy.events import CallState, EndReason, OneWay, Side
from mediaproxy.relay import timers
from tests.relaybench import ALICE, BOB, RTCP, STRANGER, STUN, TWO, Bench, rtp, stream

# -- rule 11: timers


def test_unanswered() -> None:
    bench = Bench()
    bench.invite()
    bench.run(299)
    assert bench.ended == []
    bench.run(2)
    assert [report.reason for report in bench.ended] == [EndReason.UNANSWERED] and bench.ended[0].answered is None


def test_early_media_counts_as_life() -> None:
    bench = Bench()
    facing_bob = bench.invite().ports[0]
    bench.answer(status=183)
    assert facing_bob is not None
    for _ in range(60):
        bench.run(10)
        bench.packet(BOB, facing_bob.rtp)
    assert bench.ended == []
    bench.run(301)
    assert [report.reason for report in bench.ended] == [EndReason.UNANSWERED]


LIFE = {
    "RTP of the caller": (ALICE, "alice", 0, rtp()),
    "RTP of the callee": (BOB, "bob", 0, rtp()),
    "RTCP of the caller": (ALICE, "alice", 1, RTCP),
    "RTCP of the callee": (BOB, "bob", 1, RTCP),
    "STUN": (BOB, "bob", 0, STUN),
    "video": (BOB, "video", 0, rtp(payload_type=96)),
}


@pytest.mark.parametrize(("source", "where", "component", "data"), LIFE.values(), ids=LIFE)
def test_anything_either_way_on_any_stream_is_life(source: str, where: str, component: int, data: bytes) -> None:
    bench = Bench()
    offer = (stream("10.0.0.1:4000", ice=True), TWO[1])
    facing_bob, facing_alice = bench.invite(offer).ports, bench.answer(offer).ports
    chosen = {"alice": facing_alice[0], "bob": facing_bob[0], "video": facing_bob[1]}[where]
    assert chosen is not None
    local = chosen.rtp.with_port(chosen.rtp.port + component)
    for _ in range(10):
        bench.run(80)
        bench.packet(source, local, data)
    assert bench.ended == []
    bench.run(89)
    assert bench.ended == []
    bench.run(2)
    assert [report.reason for report in bench.ended] == [EndReason.SILENT]


@pytest.mark.parametrize(
    ("offer", "answer", "heard", "ends"),
    [(True, True, None, 7200), (True, False, None, 90), (False, True, None, 90), (True, True, 9, 7200)]
    + [(True, True, 11, 90)],
    ids=["both have ICE", "only the caller", "only the callee", "both, and media came at first", "media comes by us"],
)
def test_media_that_has_found_a_direct_path(offer: bool, answer: bool, heard: int | None, ends: int) -> None:
    """Candidates can be left in the SDP, and ours among them: who has them on both sides may need no relay, or only
    until a better way is found, and be well alive."""
    bench = Bench()
    (port,) = bench.invite((stream("10.0.0.1:4000", ice=offer),)).ports
    bench.answer((stream("10.0.0.1:4000", ice=answer),))
    assert port is not None
    if heard is not None:
        bench.run(heard)
        bench.packet(BOB, port.rtp)
    bench.run(ends - 1)
    assert bench.ended == []
    bench.run(2)
    assert [report.reason for report in bench.ended] == [EndReason.SILENT]


def test_strangers_are_no_life() -> None:
    bench = Bench()
    _, facing_bob = bench.talk()
    for _ in range(10):
        bench.run(10)
        bench.packet(STRANGER, facing_bob)
    assert [report.reason for report in bench.ended] == [EndReason.SILENT]


def test_a_session_timer_is_no_life() -> None:
    bench = Bench()
    bench.talk()
    for cseq in range(2, 6):
        bench.run(30)
        bench.media(bench.alice, bench.bob, cseq=cseq)
    assert [report.reason for report in bench.ended] == [EndReason.SILENT]


HOLDS = {
    "sendonly": stream("10.0.0.1:4000", direction=Direction.SENDONLY),
    "inactive": stream("10.0.0.1:4000", direction=Direction.INACTIVE),
    "0.0.0.0": stream("0.0.0.0:4000"),
}


@pytest.mark.parametrize("holder", list(Side))
@pytest.mark.parametrize("how", HOLDS.values(), ids=HOLDS)
def test_on_hold(how: Stream, holder: Side) -> None:
    bench = Bench()
    bench.talk()
    sender, receiver = (bench.alice, bench.bob) if holder is Side.CALLER else (bench.bob, bench.alice)
    bench.media(sender, receiver, (how,), cseq=2)
    assert bench.report.state is CallState.HELD and bench.report.streams[0].held
    bench.run(7199)
    assert bench.ended == [] and bench.seen(OneWay) == []
    bench.run(2)
    assert [report.reason for report in bench.ended] == [EndReason.HOLD_EXPIRED]


@pytest.mark.parametrize("by_answer", [True, False])
def test_a_call_without_streams_is_like_one_on_hold(by_answer: bool) -> None:
    """Port 0 for all of them: nothing can be heard of a call that third parties have parked."""
    bench = Bench()
    bench.talk(TWO)
    off = (stream(None), stream(None, kind="video"))
    bench.media(bench.alice, bench.bob, TWO if by_answer else off, cseq=2, sdp_hash="2")
    if by_answer:
        bench.answer(off, cseq=2)
    bench.run(7199)
    assert bench.ended == [] and bench.state() is CallState.HELD
    bench.media(bench.alice, bench.bob, TWO, cseq=3)
    bench.answer(TWO, cseq=3)
    assert bench.state() is CallState.TALKING
    bench.run(91)
    assert [report.reason for report in bench.ended] == [EndReason.SILENT]


def test_after_a_hold_the_silence_timer_starts_anew() -> None:
    bench = Bench()
    bench.talk()
    bench.media(bench.alice, bench.bob, (HOLDS["inactive"],), cseq=2)
    bench.run(3600)
    bench.media(bench.alice, bench.bob, cseq=3)
    assert bench.report.state is CallState.TALKING
    bench.run(89)
    assert bench.ended == []
    bench.run(2)
    assert [report.reason for report in bench.ended] == [EndReason.SILENT]


def test_a_held_video_holds_no_call() -> None:
    bench = Bench()
    bench.talk(TWO)
    bench.media(bench.alice, bench.bob, (TWO[0], stream("10.0.0.1:4002", direction=Direction.INACTIVE)), cseq=2)
    assert bench.report.state is CallState.TALKING


@pytest.mark.parametrize("silent", list(Side))
def test_one_way_is_an_event_once_and_no_end(silent: Side) -> None:
    bench = Bench()
    facing_alice, facing_bob = bench.talk()
    source, local = (BOB, facing_bob) if silent is Side.CALLER else (ALICE, facing_alice)
    for _ in range(300):
        bench.packet(source, local)
        bench.run(1)
    (event,) = bench.seen(OneWay)
    assert isinstance(event, OneWay) and event.silent is silent and event.stream == 0
    assert event.at == pytest.approx(1010, abs=1.1) and event.seconds == pytest.approx(10, abs=1.1)
    assert bench.ended == []
    assert any(f"nothing received from {silent} for 300 s" in w for w in bench.side(silent).warnings)
    other, there = (ALICE, facing_alice) if silent is Side.CALLER else (BOB, facing_bob)
    bench.packet(other, there)
    for _ in range(20):
        bench.packet(source, local)
        bench.run(1)
    assert len(bench.seen(OneWay)) == 2, "a new silence, a new event"


@pytest.mark.parametrize("direction", [Direction.SENDONLY, Direction.RECVONLY, Direction.INACTIVE])
def test_one_way_as_agreed_is_none(direction: Direction) -> None:
    bench = Bench()
    facing_alice, facing_bob = bench.talk()
    bench.media(bench.alice, bench.bob, (stream("10.0.0.1:4000", direction=direction),), cseq=2)
    for _ in range(30):
        bench.packet(ALICE if direction is Direction.SENDONLY else BOB, facing_alice, rtp())
        bench.packet(BOB, facing_bob)
        bench.run(1)
    assert bench.seen(OneWay) == []


def test_two_silent_sides_are_not_one_way() -> None:
    bench = Bench()
    bench.talk()
    bench.run(60)
    assert bench.seen(OneWay) == []


def test_what_the_quick_look_says_of_a_call() -> None:
    """Both sides heard, or nobody for a while: nothing is to be told, so 10 000 such calls cost next to nothing."""
    bench = Bench()
    facing_alice, facing_bob = bench.talk()
    (call,) = bench.calls
    begin = bench.now
    assert timers.undisturbed(call, begin) is None, "both may be about to speak"
    bench.run(20)
    assert timers.undisturbed(call, bench.now) == math.inf, "nobody has spoken: the first one will be noticed"
    bench.packet(ALICE, facing_alice)
    assert timers.undisturbed(call, bench.now) is None, "one does"
    bench.run(2)
    bench.packet(BOB, facing_bob)
    assert timers.undisturbed(call, bench.now) == bench.now - 2 + 10, "both do"
    bench.run(40)
    assert timers.undisturbed(call, bench.now) == bench.now + 10, "both have: the plane would not tell who does again"


def test_one_way_of_who_is_heard_late() -> None:
    """Nobody has looked at the call since nobody spoke in it."""
    bench = Bench()
    facing_alice, _ = bench.talk()
    bench.run(45)
    for _ in range(12):
        bench.packet(ALICE, facing_alice)
        bench.run(1)
    (event,) = bench.seen(OneWay)
    assert isinstance(event, OneWay) and event.silent is Side.CALLEE
