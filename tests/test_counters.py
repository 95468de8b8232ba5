"""Counters are read only when a call needs them: nothing that happens to calls may depend on that.

Two relays get the same questions, packets and time. One is told all counters each second, the other one what
``ports_due``, ``ports_of`` and ``beside`` ask for.
"""

import random
from collections.abc import Callable, Iterable

import pytest

from mediaproxy.control import MediaReply, Question
from mediaproxy.endpoint import Endpoint
from mediaproxy.events import CallState, EndReason, OneWay, Side
from mediaproxy.relay.effects import Send
from mediaproxy.relay.flow import SlotCounters
from tests.relaybench import ALICE, BOB, RTCP, STRANGER, TWO, Bench, rtp


class Lazy(Bench):
    """Asks for no more than it must."""

    read = 0

    def some(self, wanted: Iterable[Endpoint]) -> list[SlotCounters]:
        found = [self.slots[local] for local in wanted if local in self.slots]
        self.read += len(found)
        return found

    def ask(self, question: Question) -> MediaReply:
        reply, effects = self.calls.ask(question, self.now, self.some(self.calls.ports_of(question.call_id)))
        self.do(effects)
        return reply

    def packet(self, source: str, local: Endpoint, data: bytes | None = None) -> list[Send]:
        self.calls.note(self.some(self.calls.board.beside(local)))
        return super().packet(source, local, data)

    def tick(self) -> None:
        self.do(self.calls.tick(self.now, self.some(self.calls.ports_due(self.now))))


def story(bench: Bench, seed: int) -> None:
    """A call of which now this, now that is heard, with changes, in random order."""
    rng = random.Random(seed)
    facing_alice, facing_bob = bench.talk(TWO if seed % 2 else None)
    places: list[tuple[str, Endpoint, Callable[[int], bytes]]] = [(ALICE, facing_alice, rtp), (BOB, facing_bob, rtp)]
    places += [
        (f"{source.partition(':')[0]}:{port}", local.with_port(local.port + 1), lambda number: RTCP)
        for source, local, port in ((ALICE, facing_alice, 41), (BOB, facing_bob, 42))
    ]
    number = 0
    for _ in range(rng.randrange(5, 15)):
        heard = [place for place in places if rng.random() < 0.7]
        for _ in range(rng.randrange(1, 60)):
            number += 1
            for source, local, make in heard:
                bench.packet(source, local, make(number))
            bench.run(0.5)
        if rng.random() < 0.3:
            bench.packet(STRANGER, facing_alice, rtp(number))
        if rng.random() < 0.2:
            bench.confirm(bench.alice, bench.bob)
        if rng.random() < 0.2:
            bench.run(rng.choice((5, 12, 95)))
    bench.run(200)


@pytest.mark.parametrize("seed", range(20))
def test_it_makes_no_difference(seed: int) -> None:
    full, lazy = Bench(), Lazy()
    for bench in (full, lazy):
        story(bench, seed)
    assert [type(event) for event in full.events] == [type(event) for event in lazy.events]
    for one, other in zip(full.events, lazy.events, strict=True):
        assert abs(one.at - other.at) <= 1.0, "found out at the next second at the latest"
    assert [(one.reason, one.answered) for one in full.ended] == [(one.reason, one.answered) for one in lazy.ended]
    for said, less in zip(full.ended, lazy.ended, strict=True):
        for a, b in zip(said.streams, less.streams, strict=True):
            assert (a.caller.packets, a.callee.packets) == (b.caller.packets, b.callee.packets)
    assert len(full.sent) == len(lazy.sent)


def test_a_talking_call_is_looked_at_every_ten_seconds() -> None:
    bench = Lazy()
    facing_alice, facing_bob = bench.talk()
    for second in range(300):
        for source, local in ((ALICE, facing_alice), (BOB, facing_bob)):
            bench.packet(source, local, rtp(second + 1))
        bench.run(1.0)
    assert bench.state() is CallState.TALKING and not bench.seen(OneWay)
    assert bench.read < 100, "of 1200 that there were"


def test_one_way_audio_is_told_after_ten_seconds_all_the_same() -> None:
    bench = Lazy()
    facing_alice, facing_bob = bench.talk()
    for second in range(60):
        bench.packet(ALICE, facing_alice, rtp(second + 1))
        if second < 20:
            bench.packet(BOB, facing_bob, rtp(second + 1))
        bench.run(1.0)
    (event,) = bench.seen(OneWay)
    assert isinstance(event, OneWay) and event.silent is Side.CALLEE and 10.0 <= event.seconds <= 12.0
    bench.run(95)
    assert [report.reason for report in bench.ended] == [EndReason.SILENT]


# -- the census


def check(bench: Bench) -> None:
    """The sums are those of all calls."""
    census, reports = bench.calls.census, bench.calls.reports(bench.now)
    states = {state: sum(report.state is state for report in reports) for state in CallState}
    assert {state: census.states[state] for state in CallState} == states
    calls = [call for call in bench.calls if call.state is not CallState.LINGERING]
    streams = [stream for call in calls for stream in call.present() if stream.enabled and not stream.closed]
    carried = [stream for stream in streams if any(port.offloaded for port in stream.ports)]
    assert (census.streams, census.carried) == (len(streams), len(carried))


def test_the_census_follows_a_call_through_its_life() -> None:
    bench = Bench()
    check(bench)
    bench.invite(TWO)
    check(bench)
    assert bench.calls.census.states[CallState.RINGING] == 1 and bench.calls.census.streams == 2
    facing_alice = bench.answer(TWO).ports[0]
    assert facing_alice is not None
    check(bench)
    bench.packet(ALICE, facing_alice.rtp)
    check(bench)
    facing_bob = bench.side(Side.CALLEE).local
    bench.packet(BOB, facing_bob)
    check(bench)
    assert bench.calls.census.carried == 1
    bench.bye()
    check(bench)
    assert bench.calls.census.streams == 0


@pytest.mark.parametrize("seed", range(6))
def test_the_census_is_right_whatever_happens(seed: int) -> None:
    bench = Bench()
    real = bench.run

    def run(seconds: float) -> None:
        real(seconds)
        check(bench)

    bench.run = run  # type: ignore[method-assign]  # checks besides
    story(bench, seed)
