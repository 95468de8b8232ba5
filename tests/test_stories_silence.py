"""Stories of silence: pauses, one-way calls, holds of hours, and what ends by itself and when."""

import pytest

from mediaproxy.events import CallEnded, CallState, EndReason, OneWay, PeerLearned, Side, StreamChanged
from tests.vphone import Phone
from tests.vworld import World

HOUR = 3600.0


def without_rtcp(*phones: Phone) -> None:
    for phone in phones:
        phone.voice_options = {**phone.voice_options, "with_rtcp": False}


# Pauses


@pytest.mark.parametrize("pause", [3.0, 30.0, 85.0])
def test_voice_activity_detection(pause: float) -> None:
    """Both say nothing, not even RTCP, and go on as if nothing had been."""
    world = World(strict=True)
    alice, bob = world.pair()
    without_rtcp(alice, bob)
    call, answer = world.connect(alice, bob)
    for _ in range(2):
        call.voice.muted = answer.voice.muted = True
        world.net.run(pause)
        call.voice.muted = answer.voice.muted = False
        world.two_way(call, answer)
    assert world.relay.ends == []


def test_ninety_seconds_without_anything_end_the_call() -> None:
    world = World()
    alice, bob = world.pair()
    without_rtcp(alice, bob)
    call, answer = world.connect(alice, bob)
    call.voice.muted = answer.voice.muted = True
    world.net.run(89)
    assert world.relay.ends == []
    world.net.run(4)
    assert world.relay.ends == [EndReason.SILENT]
    call.voice.muted = answer.voice.muted = False
    since = world.net.now
    world.net.run(2)
    assert call.voice.count("bob", since) == answer.voice.count("alice", since) == 0


def test_rtcp_alone_keeps_a_muted_call() -> None:
    world = World()
    call, answer = world.connect(*world.pair())
    call.voice.muted = answer.voice.muted = True
    world.net.run(600)
    call.voice.muted = answer.voice.muted = False
    world.net.run(1.1)
    world.two_way(call, answer)
    assert world.relay.ends == []


def test_one_stream_that_lives_is_enough() -> None:
    """Audio is silent for ten minutes, video flows one way."""
    world = World()
    alice, bob = world.pair(lifetime=HOUR)
    without_rtcp(alice, bob)
    alice.kinds = ["audio", "video"]
    alice.voice_options["frame"] = 1.0
    call, answer = world.connect(alice, bob)
    for voice in (call.voices[0], *answer.voices):
        voice.muted = True
    world.net.run(600)
    assert world.relay.ends == [] and answer.voices[1].count("alice") > 590


@pytest.mark.parametrize("silent", [Side.CALLER, Side.CALLEE])
def test_one_silent_side_gives_one_event_and_no_end(silent: Side) -> None:
    world = World()
    alice, bob = world.pair(lifetime=HOUR)
    for phone in (alice, bob):
        phone.voice_options = {"with_rtcp": False, "frame": 0.2}
    call, answer = world.connect(alice, bob)
    quiet, speaking = (call, answer) if silent is Side.CALLER else (answer, call)
    world.net.run(2)
    quiet.voice.muted, muted_at = True, world.net.now
    world.net.run(9)
    assert world.relay.seen(OneWay) == []
    world.net.run(3)
    (event,) = world.relay.seen(OneWay)
    assert event.silent is silent and event.stream == 0
    assert event.at - muted_at == pytest.approx(10, abs=1.3)
    world.net.run(600)
    assert len(world.relay.seen(OneWay)) == 1 and world.relay.ends == []
    assert quiet.voice.count(speaking.phone.name, muted_at + 1) > 3000
    side = world.relay.report.streams[0]
    assert (side.caller if silent is Side.CALLER else side.callee).warnings
    quiet.voice.muted = False
    world.net.run(5)
    side = world.relay.report.streams[0]
    assert not (side.caller if silent is Side.CALLER else side.callee).warnings


def test_a_phone_that_never_speaks_gives_the_event_too() -> None:
    world = World()
    alice, bob = world.pair()
    bob.voice_options = {"muted": True, "with_rtcp": False}
    world.connect(alice, bob)
    world.net.run(13)
    assert [event.silent for event in world.relay.seen(OneWay)] == [Side.CALLEE]


# Somebody must begin


def test_a_phone_that_only_listens_is_heard_of_by_its_sdp() -> None:
    """A public recvonly phone never sends; sound goes to where its SDP says."""
    world = World(strict=True)
    alice, bob = world.phone("alice"), world.phone("bob", world.net.public, "203.0.113.70")
    bob.direction = "recvonly"
    without_rtcp(bob)
    call, answer = world.connect(alice, bob)
    since = world.net.now
    world.net.run(3)
    assert answer.voice.sent == 0
    assert world.share(answer, "alice", since) >= 0.99
    assert call.voice.heard == []


def test_a_gateway_that_waits_for_media_gets_it() -> None:
    """It says nothing before it has heard something: two latching sides would wait for each other for ever."""
    world = World(strict=True)
    alice, gateway = world.phone("alice"), world.phone("gateway", world.net.public, "203.0.113.70")
    gateway.voice_options = {"shy": True, "with_rtcp": False}
    world.two_way(*world.connect(alice, gateway))


def test_a_gateway_that_waits_for_media_and_calls() -> None:
    """The same the other way round."""
    world = World(strict=True)
    alice, gateway = world.phone("alice"), world.phone("gateway", world.net.public, "203.0.113.70")
    gateway.voice_options = {"shy": True}
    world.two_way(*world.connect(gateway, alice))


# Hold


HOLDS = {
    "sendonly": {"direction": "sendonly"},
    "inactive": {"direction": "inactive"},
    "0.0.0.0": {"zero": True},
    "0.0.0.0 and sendonly": {"direction": "sendonly", "zero": True},
}


@pytest.mark.parametrize("method", ["INVITE", "UPDATE"])
@pytest.mark.parametrize("holder", ["caller", "callee"])
@pytest.mark.parametrize("how", HOLDS)
def test_hold_and_resume(how: str, holder: str, method: str) -> None:
    world = World(strict=True)
    call, answer = world.connect(*world.pair())
    holding, held = (call, answer) if holder == "caller" else (answer, call)
    holding.reinvite(**HOLDS[how], method=method)  # type: ignore[arg-type]  # named values
    world.net.run(1)
    since = world.net.now
    world.net.run(5)
    assert holding.voice.count(held.phone.name, since) == 0, "the held side is silent"
    music = held.voice.count(holding.phone.name, since)
    assert music == (0 if how == "inactive" else 250), "music on hold"
    assert world.relay.standing == (True, CallState.HELD)
    held_events = world.relay.seen(StreamChanged)
    assert held_events and held_events[-1].held
    holding.reinvite("sendrecv", method=method)
    world.net.run(0.5)
    assert world.relay.standing == (False, CallState.TALKING)
    world.two_way(call, answer)
    assert world.relay.seen(OneWay) == [], "a hold is no one-way call"


@pytest.mark.parametrize("how", ["inactive", "0.0.0.0 and sendonly"])
def test_a_hold_of_nearly_two_hours(how: str) -> None:
    """Not one packet for 1 h 59 min, all RTP mappings long dead; then both hear each other again."""
    world = World(strict=True)
    alice, bob = world.pair()
    without_rtcp(alice, bob)
    call, answer = world.connect(alice, bob)
    call.voice.muted = True  # no music
    call.reinvite(**HOLDS[how])  # type: ignore[arg-type]  # named values
    world.net.run(2 * HOUR - 60)
    assert world.relay.ends == []
    call.voice.muted = False
    call.reinvite("sendrecv")
    world.net.run(1)
    world.two_way(call, answer)


def test_a_hold_of_more_than_two_hours_ends() -> None:
    world = World()
    alice, bob = world.pair()
    without_rtcp(alice, bob)
    call, _ = world.connect(alice, bob)
    call.reinvite("inactive")
    world.net.run(2 * HOUR + 60)
    assert world.relay.ends == [EndReason.HOLD_EXPIRED]
    assert world.relay.calls.reports(world.net.now) == ()


def test_resumed_calls_have_the_short_timer_again() -> None:
    world = World()
    alice, bob = world.pair()
    without_rtcp(alice, bob)
    call, answer = world.connect(alice, bob)
    call.reinvite("inactive")
    world.net.run(600)
    call.voice.muted = answer.voice.muted = True
    call.reinvite("sendrecv")
    world.net.run(85)
    assert world.relay.ends == []
    world.net.run(10)
    assert world.relay.ends == [EndReason.SILENT]


# Refreshes


def test_session_timer_changes_nothing() -> None:
    """A re-INVITE with the same SDP (RFC 4028): no packet is lost and the plane is not touched."""
    world = World(strict=True)
    call, answer = world.connect(*world.pair())
    world.net.run(2)
    flows = {local: flow for local, (flow, _) in world.relay.plane.lent.items()}
    learned = len(world.relay.seen(PeerLearned))
    since = world.net.now
    for refresher in (call, answer, call):
        world.net.run(2)
        refresher.reinvite()
    world.net.run(2)
    assert call.status == answer.status == 200
    for listener, tone in ((call, "bob"), (answer, "alice")):
        assert world.share(listener, tone, since) >= 0.999
    assert {local: flow for local, (flow, _) in world.relay.plane.lent.items()} == flows
    assert len(world.relay.seen(PeerLearned)) == learned
    assert world.relay.seen(StreamChanged) == []


@pytest.mark.parametrize("how", HOLDS)
@pytest.mark.parametrize("method", ["INVITE", "UPDATE"])
@pytest.mark.parametrize("status", [401, 408, 488, 491])
def test_a_refused_offer_changes_nothing(status: int, method: str, how: str) -> None:
    """The session stays as it was (RFC 3261 §14.1): both talk on, and no hold keeps the call when both fall silent."""
    world = World(strict=True)
    alice, bob = world.pair()
    without_rtcp(alice, bob)
    call, answer = world.connect(alice, bob)
    bob.reinvite_status = status
    call.reinvite(**HOLDS[how], method=method)  # type: ignore[arg-type]  # named values
    world.net.run(0.5)
    assert call.status == status and world.relay.standing == (False, CallState.TALKING)
    call.offer.direction, call.offer.zero = "sendrecv", False
    world.two_way(call, answer)
    call.voice.muted = answer.voice.muted = True
    world.net.run(95)
    assert world.relay.ends == [EndReason.SILENT]


def test_a_refused_video_gives_its_ports_back() -> None:
    world = World(strict=True)
    alice, bob = world.pair()
    call, answer = world.connect(alice, bob)
    bob.reinvite_status = 488
    call.add("video")
    call.reinvite()
    world.net.run(40)
    assert call.status == 488 and len(world.relay.plane.lent) == 4
    bob.reinvite_status = 200
    call.reinvite()
    world.net.run(1)
    for number in (0, 1):
        world.two_way(call, answer, number=number)


def test_glare() -> None:
    """Both offer a hold at once and refuse each other's (491); then one tries again and is let."""
    world = World(strict=True)
    alice, bob = world.pair()
    call, answer = world.connect(alice, bob)
    alice.reinvite_status = bob.reinvite_status = 491
    call.reinvite("inactive")
    answer.reinvite(zero=True)
    world.net.run(0.5)
    assert call.status == answer.status == 491 and world.relay.standing == (False, CallState.TALKING)
    alice.reinvite_status = bob.reinvite_status = 200
    call.offer.direction, answer.offer.zero = "sendrecv", False
    world.two_way(call, answer)
    answer.reinvite("sendonly")
    world.net.run(0.5)
    assert world.relay.standing == (True, CallState.HELD)
    answer.reinvite("sendrecv")
    world.net.run(0.5)
    world.two_way(call, answer)


# Answers that do not come


def test_an_unanswered_call_ends_after_five_minutes() -> None:
    world = World()
    alice, bob = world.pair()
    bob.answer_after = None
    alice.call("bob")
    world.net.run(298)
    assert world.relay.ends == []
    world.net.run(5)
    assert world.relay.ends == [EndReason.UNANSWERED]
    world.net.run(70)
    assert not world.relay.plane.lent, "and all ports are given back"


def test_early_media_counts_as_life() -> None:
    """An announcement of ten minutes before the answer."""
    world = World()
    alice, bob = world.pair()
    bob.answer_after, bob.early = 600.0, True
    alice.voice_options = bob.voice_options = {"frame": 0.5}
    call = alice.call("bob")
    world.net.run(602)
    assert call.state == "up" and world.relay.ends == []
    assert call.voice.count("bob") > 1100
    call.hang_up()
    world.net.run(1)
    assert world.relay.ends == [EndReason.BYE]
    (event,) = world.relay.seen(CallEnded)
    assert event.report.duration == pytest.approx(2, abs=0.5)
