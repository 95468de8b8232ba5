"""Stories in which the relay's process ends and another one goes on: on the toy Internet, with phones that notice
nothing but what they hear."""

import random
from collections.abc import Callable

import pytest

from mediaproxy.control import MediaReply, Question
from mediaproxy.events import EndReason
from mediaproxy.relay.calls import Calls
from mediaproxy.relay.effects import Effect
from mediaproxy.relay.resumption import Resumption
from tests.restarts import Shelf
from tests.test_stories_random import Story
from tests.vrelay import ReferencePlane
from tests.vworld import World


class Relays:
    """The relay of a world, which keeps its calls on a shelf, and those after it."""

    def __init__(self, world: World, *, lasting: bool) -> None:
        """``lasting``: what forwards goes on without its process."""
        self.world, self.relay, self.lasting = world, world.relay, lasting
        self.shelf = Shelf()
        self.relay.calls.keep()
        do: Callable[[list[Effect]], None] = self.relay._do
        self._ask = self.relay.ask

        def kept(effects: list[Effect]) -> None:
            do(effects)
            self.write()

        self.relay._do = kept  # type: ignore[method-assign]  # a service around it

    def write(self) -> None:
        changes = self.relay.calls.changes
        if changes is not None:
            self.shelf.write(changes.take(self.world.net.now))

    def restart(self, away: float) -> Resumption:
        """Killed, and started so many seconds later."""
        world, relay = self.world, self.relay
        died, settings = world.net.now, relay.calls.settings
        relay.calls = Calls(settings, random.Random(2))  # nobody: it knows of nothing
        relay.ask = self._nobody  # type: ignore[method-assign]  # it does not answer
        if not self.lasting:
            relay.plane = ReferencePlane(relay.host, strict=relay.plane.strict)
            relay.plane.start(lambda packet: relay._do(relay.calls.packet(packet, world.net.now)))
        world.net.run(away)
        relay.calls = Calls(settings, random.Random(died), "relay")
        relay.calls.keep()
        relay.ask = self._ask  # type: ignore[method-assign]  # as it was
        adopted = list(relay.plane.lent.values())
        resumption = Resumption(relay.calls, self.shelf.saved(died), adopted, world.net.now)
        relay._do(resumption.run(settings.restart_within))
        return resumption

    def _nobody(self, question: Question) -> MediaReply:
        return MediaReply(error="no relay", status=503)


@pytest.fixture(params=[True, False], ids=["lasting", "deaf"])
def lasting(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.mark.parametrize("away", [0.0, 0.5, 5.0, 40.0])
def test_they_talk_on(lasting: bool, away: float) -> None:
    world = World()
    relays = Relays(world, lasting=lasting)
    call, answer = world.connect(*world.pair())
    world.two_way(call, answer)
    since = world.net.now
    relays.restart(away)
    if lasting and away:
        assert world.share(call, "bob", since) >= 0.98 and world.share(answer, "alice", since) >= 0.98
    world.two_way(call, answer, seconds=2.0)
    call.hang_up()
    world.net.run(1)
    assert world.relay.ends == [EndReason.BYE]
    world.net.run(60)
    assert not world.relay.plane.lent


def test_who_moved_while_nobody_was_there(lasting: bool) -> None:
    """The NAT of one gave it another port."""
    world = World()
    relays = Relays(world, lasting=lasting)
    home = world.home()
    alice, bob = world.phone("alice", home), world.phone("bob")
    call, answer = world.connect(alice, bob)
    world.two_way(call, answer)
    home.rebind()
    relays.restart(5.0)
    world.net.run(1.5)
    world.two_way(call, answer)


def test_a_call_that_rang_meanwhile(lasting: bool) -> None:
    world = World()
    relays = Relays(world, lasting=lasting)
    alice, bob = world.pair()
    bob.answer_after = 5.0
    call = alice.call("bob")
    world.net.run(2.0)
    relays.restart(1.0)
    world.net.run(5.0)
    assert call.state == "up"
    world.two_way(call, bob.last)


@pytest.mark.parametrize("seed", range(12))
def test_whatever_happens_both_hear_each_other_in_the_end(seed: int, lasting: bool) -> None:
    story = Story(1000 + seed)
    world = story.world
    relays = Relays(world, lasting=lasting)
    world.relay.calls.keep()
    for _ in range(2):
        for _ in range(4):
            story.step()
            if story.dice.random() < 0.5:
                relays.restart(story.dice.choice([0.0, 0.1, 3.0]))
                world.net.run(0.5)
        story.settle()
    for call in story.calls:
        assert "evil" not in {tone for voice in call.voices for tone in voice.tones()}
    story.dice.choice(story.calls).hang_up()
    story.over = True
    world.net.run(1)
    assert world.relay.ends == [EndReason.BYE]
    world.net.run(60)
    assert not world.relay.plane.lent
