"""Stories of ends: who may end a call, phones that talk on, ports that cool, relays without ports."""

import pytest

from mediaproxy.control import EndCause, EndRequest, Party
from mediaproxy.events import CallEnded, CallStarted, EndReason
from tests.vphone import Phone
from tests.vworld import World


def test_bye_ends_everything_and_leaves_one_record() -> None:
    world = World()
    call, answer = world.connect(*world.pair())
    world.net.run(10)
    call.hang_up()
    world.net.run(1)
    assert answer.state == "over" and world.relay.ends == [EndReason.BYE]
    (report,) = world.relay.ended
    assert report.duration == pytest.approx(11, abs=0.2)
    stream = report.streams[0]
    for side, phone, other in ((stream.caller, call, answer), (stream.callee, answer, call)):
        assert phone.voice.sent - 3 <= side.packets <= phone.voice.sent
        assert other.voice.count(phone.phone.name) in range(side.packets - 3, side.packets + 1)
    assert stream.caller.sent >= stream.callee.packets - 2
    world.net.run(60)
    assert not world.relay.plane.lent
    assert len(world.relay.seen(CallEnded)) == len(world.relay.seen(CallStarted)) == 1


def test_repeated_bye_and_bye_from_both_sides() -> None:
    world = World()
    call, answer = world.connect(*world.pair())
    call.hang_up()
    answer.hang_up()
    world.net.run(1)
    call.phone.request(call, "BYE")
    world.net.run(40)
    assert world.relay.ends == [EndReason.BYE]


@pytest.mark.parametrize(
    ("from_tag", "to_tag"), [("guess", "guess"), ("", ""), ("right", "guess"), ("guess", "right"), ("right", "")]
)
def test_a_bye_with_wrong_tags_ends_nothing(from_tag: str, to_tag: str) -> None:
    """Whoever knows only the Call-ID cannot take the sound away."""
    world = World()
    call, answer = world.connect(*world.pair())
    bye = EndRequest(
        call_id=call.call_id,
        sender=Party(tag=call.tag if from_tag == "right" else from_tag),
        receiver=Party(tag=answer.tag if to_tag == "right" else to_tag),
        cause=EndCause.BYE,
    )
    world.relay.ask(bye)
    world.two_way(call, answer)
    assert world.relay.ends == []


def test_an_operator_ends_a_call() -> None:
    world = World()
    call, answer = world.connect(*world.pair())
    world.relay.ask(
        EndRequest(call_id=call.call_id, sender=Party(), receiver=Party(), cause=EndCause.ADMIN),
    )
    world.net.run(0.1)
    since = world.net.now
    world.net.run(2)
    assert call.voice.count("bob", since) == answer.voice.count("alice", since) == 0
    assert world.relay.ends == [EndReason.ADMIN]


def test_phones_that_miss_their_bye_are_never_heard_in_the_next_call() -> None:
    """Four port pairs in all. Bob misses his BYE and talks for ever; Carol calls from Bob's own home, again and again,
    so by address nobody can tell them apart. She and Dave hear each other and never Bob."""
    world = World(port_min=20000, port_max=20006)
    home = world.home()
    alice, bob = world.phone("alice"), world.phone("bob", home)
    carol, dave = world.phone("carol", home, "192.168.1.11"), world.phone("dave")
    bob.deaf_to = {"BYE"}
    call, answer = world.connect(alice, bob)
    world.two_way(call, answer)
    call.hang_up()
    world.net.run(1)
    assert answer.state == "up" and world.relay.ends == [EndReason.BYE]
    good = 0
    for _ in range(8):
        attempt = carol.call("dave")
        world.net.run(3)
        if attempt.state == "up":
            good += 1
            world.two_way(attempt, dave.last)
            attempt.hang_up()
        world.net.run(25)
    assert good >= 4
    for phone in (carol, dave):
        assert all(used.voice.tones() <= {"carol", "dave"} for used in phone.calls)
    assert answer.voice.sent > 5000, "he did talk all the time"


def test_both_phones_miss_the_end_and_hear_nothing_any_more() -> None:
    """The call ended (an operator did it); both talk on, and their packets go nowhere."""
    world = World()
    call, answer = world.connect(*world.pair())
    world.relay.ask(EndRequest(call_id=call.call_id, sender=Party(), receiver=Party(), cause=EndCause.ADMIN))
    world.net.run(0.1)
    since = world.net.now
    world.net.run(200)
    assert call.voice.sent > 9000 and answer.voice.sent > 9000
    assert call.voice.count("bob", since) == answer.voice.count("alice", since) == 0
    call.voice.muted = answer.voice.muted = True
    for each in (call, answer):
        each.over()
    world.net.run(40)
    assert not world.relay.plane.lent, "quiet at last: the ports are free"


def calls_of(world: World, count: int) -> list[tuple[Phone, Phone]]:
    return [(world.phone(f"a{n}"), world.phone(f"b{n}")) for n in range(count)]


def test_no_ports_left() -> None:
    """The relay holds two calls; the third caller is told so at once, the two are not harmed. Later there is room."""
    world = World(port_min=20000, port_max=20006)
    pairs = calls_of(world, 3)
    standing = [world.connect(*pair) for pair in pairs[:2]]
    refused = pairs[2][0].call("b2")
    world.net.run(2)
    assert refused.state == "over" and refused.status in (480, 503)
    assert pairs[2][1].calls == [], "the callee's phone did not even ring"
    for call, answer in standing:
        world.two_way(call, answer)
        call.hang_up()
    world.net.run(60)
    world.two_way(*world.connect(*pairs[2]))


def test_a_sprayer_cannot_keep_ports_from_cooling() -> None:
    """A stranger fires at every port of a small range for ever: cooled ports still come back."""
    world = World(port_min=20000, port_max=20006)
    attacker = world.host().attach(world.net.public, "192.0.2.66")
    numbers = iter(range(1_000_000))

    def shoot() -> None:
        port = 20000 + next(numbers) % 8
        attacker.send(6666, world.relay_port(port), b"\x80\x00" + bytes(170))

    world.net.every(0.02, shoot)
    pairs = calls_of(world, 2)
    for _ in range(3):
        for pair in pairs:
            call, answer = world.connect(*pair)
            world.two_way(call, answer, seconds=1.0)
            call.hang_up()
        world.net.run(45)
    assert len(world.relay.ended) == 6


def test_the_relay_stops() -> None:
    """SIGTERM: every call gets its record, every port goes back."""
    world = World()
    pairs = calls_of(world, 3)
    for pair in pairs:
        world.connect(*pair)
    world.relay.stop()
    assert world.relay.ends == [EndReason.SHUTDOWN] * 3
    assert not world.relay.plane.lent
