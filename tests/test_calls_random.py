"""relay/calls.py under arbitrary sequences of questions, packets and time: what must hold whatever comes.

Nothing is raised; no port is lent twice (the bench checks) or lost; each call that started ends once; a stranger is
never sent anything and never heard; timers always lie in the future.
"""

import random
from collections import Counter
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mediaproxy.control import Direction, EndCause, Stream, Switch, SwitchRequest, Wishes
from mediaproxy.events import CallEnded, CallStarted
from mediaproxy.relay import stream as relayed
from mediaproxy.relay.inquiries import inquire
from mediaproxy.relay.settings import RelayAddress
from tests.relaybench import DTLS, RTCP, STUN, UDPTL, V4, V6, Bench, Phone, at, rtp, stream
from tests.test_ice import NOMINATES, request

STRANGERS = ("198.18.0.9:1", "198.18.0.8:4000", "[2001:db8:bad::1]:9")
PARTIES = (
    Phone("alice", "203.0.113.1", "10.0.0.1:4000", contact="sip:alice@10.0.0.1", branch="z1"),
    Phone("bob", "198.51.100.2", "198.51.100.2:4000", branch="z2"),
    Phone("carol", "203.0.113.1", "[2001:db8:1::3]:4000", asymmetric=True, agent="Odd/1", branch="z3"),
    Phone("", "198.51.100.4", "10.0.0.9:4000", branch="z3"),
)
SOURCES = (
    *("203.0.113.1:31", "203.0.113.1:32", "198.51.100.2:4000", "198.51.100.2:5", "10.0.0.1:4000", "198.51.100.4:4"),
    *("[2001:db8:1::3]:4000", "[2001:db8:1::4]:9"),
    *STRANGERS,
)
DATA = (rtp(1), rtp(2), rtp(3, 8), rtp(700), rtp(1, payload_type=96), RTCP, STUN, DTLS, UDPTL, b"")
GAPS = (0.0, 0.0, 0.02, 0.3, 1.0, 6.0, 31.0, 100.0)


def conclusions(of: relayed.Stream) -> list[object]:
    """What a stream has concluded from SDP."""
    ends = [(end.muxed, end.splits, of.clocks(end.side), of.codec(end.side)) for end in of.ends]
    return [of.described, of.kind, of.audio, of.enabled, of.held, of.shakes_hands, *ends]


class World(Bench):
    """A bench that does what a random number says."""

    def __init__(self, rng: random.Random) -> None:
        super().__init__(
            addresses=(RelayAddress(bind=V4), RelayAddress(bind=V6), RelayAddress(bind="192.0.2.9", name="inside")),
            port_min=20000,
            port_max=20030,
            latch_unknown="never",
            max_legs=4,
            max_calls=5,
        )
        self.rng = rng
        self.pairs = self.calls.ports_free

    def step(self) -> None:
        """One thing happens."""
        often = (self._sdp, self._sdp, self._packets, self._packets, self._wait)
        self.rng.choice((*often, self._confirm, self._end, self._other, self._check, self._switch))()
        assert self.calls.deadline is None or self.calls.deadline >= self.now - 1e-9
        assert self.calls.ports_free + self.calls.ports_lent + self.calls.ports_cooling == self.pairs
        for call in self.calls:
            for each in call.all_streams():
                known = conclusions(each)
                each.understand(each.sdp, each.terms)
                assert known == conclusions(each), "SDP has changed, and nobody has concluded anything"

    def _stream(self, phone: Phone, index: int) -> Stream:
        rng = self.rng
        place: str | None = rng.choice([phone.sdp, phone.sdp, phone.sdp, f"0.0.0.0:{4000 + index}", None])
        if rng.random() < 0.05 and self.flows:
            place = str(rng.choice(list(self.flows)))
        more: dict[str, Any] = {}
        if rng.random() < 0.3:
            more = {"rtcp_mux": True, "ice": True, "dtls": True}
        elif rng.random() < 0.1:
            more = {"kind": "image", "transport": "udptl"}
        return stream(place, types=rng.choice([(0, 101), (96,), ()]), direction=rng.choice(list(Direction)), **more)

    def _sdp(self) -> None:
        rng = self.rng
        sender, receiver = rng.sample(PARTIES, 2)
        status = rng.choice([0, 0, 183, 200])
        streams = tuple(self._stream(sender, index) for index in range(rng.choice([1, 1, 1, 2, 3])))
        reply = self.media(
            sender,
            receiver if status or rng.random() < 0.6 else Phone("", None, ""),
            streams,
            cseq=rng.choice([1, 2, 3, 4, -1]),
            status=status,
            method=rng.choice(
                ["INVITE", "INVITE", "INVITE", "UPDATE", "PRACK"] if status else ["INVITE", "UPDATE", "ACK"]
            ),
            call_id=f"call-{rng.randrange(3)}",
            receiver_version=rng.choice([0, 0, 0, 4, 6]),
            **self._more(),
        )
        assert bool(reply.error) == bool(reply.status) and (reply.error or len(reply.ports) == len(streams))
        for port, asked in zip(reply.ports, streams, strict=False):
            assert port is None or asked.endpoint is not None

    def _more(self) -> dict[str, Any]:
        """What some doors ask for."""
        rng = self.rng
        if rng.random() < 0.7:
            return {}
        wishes = Wishes(
            facing=rng.choice(["", "inside", "nowhere"]),
            towards=rng.choice(["", "inside", "nowhere"]),
            learn=rng.random() < 0.8,
            strict_source=rng.random() < 0.2,
            media_handover=rng.random() < 0.2,
            keep_ports=rng.random() < 0.2,
            tos=rng.choice([None, 0, 184]),
            mux=tuple(rng.choice([None, True, False]) for _ in range(rng.randrange(3))),
            lite=tuple(rng.random() < 0.5 for _ in range(rng.randrange(3))),
            label=rng.choice(["", "a", "b"]),
        )
        return {"wishes": wishes, "ice": rng.choice([(), (("theirs", "secret"),)])}

    def _check(self) -> None:
        """A connectivity check by somebody who knows the password, and by somebody who does not."""
        rng = self.rng
        ports = [
            (port.local, end.credentials)
            for call in self.calls
            for stream in call.all_streams()
            for end in stream.ends
            for port in end.ports
            if end.credentials is not None and not port.closed
        ]
        if not ports:
            return
        local, own = rng.choice(sorted(ports, key=lambda port: str(port[0])))
        assert own is not None
        source = rng.choice([s for s in SOURCES if at(s).version == local.version and s not in STRANGERS])
        more = [NOMINATES] * rng.randrange(2)
        name = f"{own.ufrag}:{rng.choice(['theirs', 'others'])}"
        for sent in self.packet(source, local, request(*more, username=name, password=own.password)):
            assert str(sent.target) == source and sent.local == local

    def _switch(self) -> None:
        asked = SwitchRequest(
            call_id=f"call-{self.rng.randrange(3)}",
            switch=self.rng.choice(list(Switch)),
            tag=self.rng.choice(["", *(party.tag for party in PARTIES)]),
            label=self.rng.choice(["", "", "", "a"]),
        )
        reply, effects = inquire(self.calls, asked, self.now)
        assert reply.status in (0, 404, 481)
        self.do(effects)

    def _packets(self) -> None:
        rng = self.rng
        if not self.flows:
            return
        for _ in range(rng.choice([1, 3, 30])):
            local = rng.choice(list(self.flows))
            source = rng.choice([s for s in SOURCES if at(s).version == local.version])
            sent = self.packet(source, local, rng.choice(DATA))
            assert not sent or source not in STRANGERS, "a stranger was heard"
            assert all(str(send.target) not in STRANGERS for send in sent), "a stranger was sent something"

    def _wait(self) -> None:
        self.run(self.rng.choice(GAPS))

    def _confirm(self) -> None:
        sender, receiver = self.rng.sample(PARTIES, 2)
        self.call_id = f"call-{self.rng.randrange(3)}"
        self.confirm(sender, receiver, status=self.rng.choice([0, 200]))

    def _end(self) -> None:
        sender, receiver = self.rng.sample(PARTIES, 2)
        cause = self.rng.choice([cause for cause in EndCause if cause is not EndCause.ADMIN])
        branch = self.rng.choice(["", "z1", "z2", "z3"])
        call_id = f"call-{self.rng.randrange(3)}"
        self.end(cause, sender, receiver, call_id=call_id, branch=branch, cseq=self.rng.randrange(1, 5))

    def _other(self) -> None:
        chance = self.rng.random()
        if chance < 0.1:
            self.do(self.calls.end(f"call-{self.rng.randrange(3)}", self.now))
        elif chance < 0.2 and self.flows:
            if self.rng.random() < 0.2:
                self.do(self.calls.withdraw(self.rng.choice(list(self.flows)), self.now))
                self.pairs = self.calls.ports_free + self.calls.ports_lent + self.calls.ports_cooling
        else:
            for report in self.calls.reports(self.now):
                assert report.ended is None and report.state

    def finish(self) -> None:
        """Let everything end, and check the accounts."""
        self.run(8000)
        started = Counter(event.call_id for event in self.seen(CallStarted))
        ended = Counter(event.call_id for event in self.seen(CallEnded))
        assert started == ended and len(self.calls) == 0
        assert self.flows == {} and self.calls.ports_free == self.pairs
        assert self.calls.deadline is None


@pytest.mark.parametrize("seed", range(20))
def test_long_random_lives(seed: int) -> None:
    world = World(random.Random(seed))
    for _ in range(400):
        world.step()
    world.finish()


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None, max_examples=50)
@given(st.randoms(use_true_random=False), st.integers(1, 25))
def test_short_random_lives(rng: random.Random, steps: int) -> None:
    """Hypothesis makes the numbers, so that what fails shrinks to something readable."""
    world = World(rng)
    for _ in range(steps):
        world.step()
    world.finish()
