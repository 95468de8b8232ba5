"""Stories that nobody thought of: a seed makes up what happens to a call; when it settles, both hear each other."""

import random
from collections.abc import Callable

import pytest

from mediaproxy.events import CallEnded, EndReason
from tests.vmedia import rtp
from tests.vnet import KINDS, Nat
from tests.vphone import Call
from tests.vworld import World

HOLDS: tuple[dict[str, object], ...] = ({"direction": "sendonly"}, {"direction": "inactive"}, {"zero": True})


class Story:
    """One call, under fire all the time, and what can happen to it."""

    def __init__(self, seed: int) -> None:
        self.dice = random.Random(seed)
        self.world = World(seed, strict=self.dice.random() < 0.5)
        self.homes: list[Nat] = [self.world.home(self.dice.choice(KINDS)) for _ in range(2)]
        self.alice, self.bob = (
            self.world.phone(name, home) for name, home in zip(("alice", "bob"), self.homes, strict=True)
        )
        self.over = False
        self.addresses = iter(range(100, 250))
        self._under_fire()
        self.calls = list(self.world.connect(self.alice, self.bob))
        self.told: list[str] = []

    def _under_fire(self) -> None:
        attacker = self.world.host().attach(self.world.net.public, "192.0.2.66")
        numbers = iter(range(1 << 30))

        def shoot() -> bool:
            ports = [local.port for local in self.world.relay.plane.lent]
            if ports:
                number = next(numbers)
                data = rtp("evil", number, ssrc=6, sequence=number)
                attacker.send(6, self.world.relay_port(self.dice.choice(ports)), data)
            return not self.over

        self.world.net.every(0.05, shoot)

    def step(self) -> None:
        """Something happens to one of the two."""
        side = self.dice.randrange(2)
        happenings: list[Callable[[int, Call], None]] = [
            self.hold,
            self.hold,
            self.refresh,
            self.reboot,
            self.new_address,
            self.move,
            self.pause,
            self.video,
            self.refused,
        ]
        what = self.dice.choice(happenings)
        self.told.append(f"{what.__name__} {self.calls[side].phone.name}")
        what(side, self.calls[side])
        self.world.net.run(0.4 + self.dice.random() * 2)

    def hold(self, side: int, call: Call) -> None:
        hold, method = self.dice.choice(HOLDS), self.dice.choice(["INVITE", "UPDATE"])
        call.reinvite(**hold, method=method)  # type: ignore[arg-type]  # named values

    def refresh(self, side: int, call: Call) -> None:
        call.reinvite(zero=call.offer.zero)

    def reboot(self, side: int, call: Call) -> None:
        """A phone finds out that its SIP mapping is gone, too, and refreshes its target."""
        self.homes[side].rebind()
        self.world.net.run(self.dice.random() * 2)
        self.refresh(side, call)

    def new_address(self, side: int, call: Call) -> None:
        self.homes[side].rebind(f"203.0.113.{next(self.addresses)}")
        self.world.net.run(self.dice.random() * 2)
        self.refresh(side, call)

    def move(self, side: int, call: Call) -> None:
        self.homes[side] = self.world.home(self.dice.choice(KINDS))
        call.phone.host.attach(self.homes[side].inside, f"10.0.0.{self.dice.randrange(2, 250)}")
        call.change()
        self.refresh(side, call)

    def pause(self, side: int, call: Call) -> None:
        call.voice.muted = not call.voice.muted

    def video(self, side: int, call: Call) -> None:
        """On if it never was, else off, or on again."""
        if len(call.voices) == 1:
            call.add("video")
        elif "video" in call.offer.dropped:
            call.offer.dropped.clear()
            call.change()
        else:
            call.drop("video")
        self.refresh(side, call)

    def refused(self, side: int, call: Call) -> None:
        """An offer that the other side does not like."""
        other = self.calls[1 - side]
        other.phone.reinvite_status = self.dice.choice([407, 488, 491, 500])
        before = call.offer.direction, call.offer.zero, set(call.offer.dropped)
        self.dice.choice([self.hold, self.refresh, self.drop])(side, call)
        self.world.net.run(0.4)
        assert call.status == other.phone.reinvite_status
        call.offer.direction, call.offer.zero, call.offer.dropped = before
        call.change()
        other.phone.reinvite_status = 200

    def drop(self, side: int, call: Call) -> None:
        call.drop("audio")
        self.refresh(side, call)

    def settle(self) -> None:
        """Everybody speaks, nobody is on hold."""
        for call in self.calls:
            call.voice.muted = False
            call.reinvite("sendrecv")
            self.world.net.run(1)
        self.world.net.run(1)
        one, other = self.calls
        self.world.two_way(one, other, seconds=1.0)
        if len(one.voices) == len(other.voices) == 2:
            if one.offer.dropped:
                since = self.world.net.now
                self.world.net.run(1)
                assert self.world.share(one, "bob", since, 1) == self.world.share(other, "alice", since, 1) == 0
            else:
                self.world.two_way(one, other, seconds=1.0, number=1)


@pytest.mark.parametrize("seed", range(24))
def test_whatever_happens_both_hear_each_other_in_the_end(seed: int) -> None:
    story = Story(seed)
    world = story.world
    for _ in range(3):
        for _ in range(4):
            story.step()
        story.settle()
    for call in story.calls:
        assert "evil" not in {tone for voice in call.voices for tone in voice.tones()}
    story.dice.choice(story.calls).hang_up()
    story.over = True
    world.net.run(1)
    assert world.relay.ends == [EndReason.BYE]
    world.net.run(60)
    assert len(world.relay.seen(CallEnded)) == 1 and not world.relay.plane.lent
