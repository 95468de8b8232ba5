"""Stories of two calls that are one: alice, call 1, a B2BUA that passes SDP on, call 2, bob, by one relay.

The B2BUA is no phone and no proxy: it is told here question by question what its SIP would say.
"""

import struct

import pytest

from mediaproxy.control import EndCause, EndRequest, MediaPort, MediaRequest, Party, PayloadType, PhoneAddress
from mediaproxy.control import Stream as Sdp
from mediaproxy.endpoint import Endpoint
from mediaproxy.events import EndReason, SourceRefused
from tests.vnet import RESTRICTED, SYMMETRIC, Datagram, Host, Kind
from tests.vworld import LAN, World

B2BUA = "198.51.100.9"
PORT = 4000


class Speaker:
    """A phone behind a NAT that speaks every 20 ms, once it knows where to."""

    def __init__(self, world: World, kind: Kind) -> None:
        home = world.home(kind)
        self.public = home.addresses[0]
        self.heard: list[bytes] = []
        self.to: Endpoint | None = None
        self.sequence = 0
        self._host = Host(world.net).attach(home.inside, LAN)
        self._host.bind(PORT, self._hears)
        world.net.every(0.02, self._speak)

    def _hears(self, datagram: Datagram) -> None:
        self.heard.append(datagram.data)

    def _speak(self) -> None:
        if self.to is not None:
            self.sequence += 1
            name = self.public.encode()
            self._host.send(
                PORT, self.to, struct.pack("!BBHII", 0x80, 0, self.sequence, 0, len(name)) + name.ljust(160)
            )


class Calls:
    """Both calls; alice and bob behind NATs of a kind."""

    def __init__(self, world: World, kind: Kind = RESTRICTED) -> None:
        self.world = world
        self.alice, self.bob = Speaker(world, kind), Speaker(world, kind)
        self._cseq = 1

    def ask(self, number: int, place: Endpoint, signalling: str, *, answer: bool, again: bool = False) -> MediaPort:
        """What a caller offers or a callee answers; the port that the other one is shown."""
        caller, callee = Party(tag=f"caller-{number}"), Party(tag=f"callee-{number}")
        sender, receiver = (callee, caller) if answer else (caller, callee if again else Party())
        types = (PayloadType(number=0, codec="PCMU", clock_rate=8000),)
        self._cseq += again
        reply = self.world.relay.ask(
            MediaRequest(
                call_id=f"call-{number}",
                sender=sender,
                receiver=receiver,
                cseq=self._cseq,
                status=200 if answer else 0,
                sdp_hash=f"{place}",
                phone=PhoneAddress(endpoint=Endpoint(signalling, 5060)),
                streams=(Sdp(kind="audio", transport="RTP/AVP", endpoint=place, payload_types=types),),
            )
        )
        (port,) = reply.ports
        assert port is not None, reply.error
        return port

    def connect(self) -> None:
        at_home = Endpoint(LAN, PORT)
        between = self.ask(1, at_home, self.alice.public, answer=False)
        facing_bob = self.ask(2, between.rtp, B2BUA, answer=False)
        back = self.ask(2, at_home, self.bob.public, answer=True)
        facing_alice = self.ask(1, back.rtp, B2BUA, answer=True)
        self.between, self.back = between.rtp, back.rtp
        self.alice.to, self.bob.to = facing_alice.rtp, facing_bob.rtp

    def hear(self, seconds: float = 2.0) -> tuple[float, float]:
        """What alice and bob hear of each other from now on, 1.0 = all."""
        before = len(self.alice.heard), len(self.bob.heard)
        self.world.net.run(seconds)
        packets = seconds / 0.02
        return (len(self.alice.heard) - before[0]) / packets, (len(self.bob.heard) - before[1]) / packets

    def bye(self, number: int) -> None:
        parties = Party(tag=f"caller-{number}"), Party(tag=f"callee-{number}")
        self.world.relay.ask(
            EndRequest(call_id=f"call-{number}", sender=parties[0], receiver=parties[1], cause=EndCause.BYE)
        )


@pytest.mark.parametrize("cloud", [False, True], ids=["public", "1:1 NAT"])
@pytest.mark.parametrize("kind", [RESTRICTED, SYMMETRIC], ids=str)
def test_alice_and_bob_hear_each_other_through_both_calls(kind: Kind, cloud: bool) -> None:
    world = World(strict=True, cloud=cloud)
    calls = Calls(world, kind)
    calls.connect()
    world.net.run(1)
    assert min(calls.hear()) >= 0.98
    for report in world.relay.calls.reports(world.net.now):
        stream = report.streams[0]
        assert min(stream.caller.packets, stream.callee.packets, stream.caller.sent, stream.callee.sent) > 100
    world.net.run(200)
    assert len(world.relay.calls) == 2, "neither is silent"
    assert world.relay.seen(SourceRefused) == []
    calls.bye(1)
    world.net.run(0.1)  # what is on its way arrives
    assert max(calls.hear(1.0)) == 0
    calls.bye(2)
    assert world.relay.ends == [EndReason.BYE] * 2
    one, other = (report.streams[0] for report in world.relay.ended)
    assert one.caller.packets == other.callee.sent, "to the last packet"
    assert other.callee.packets - one.caller.sent <= 60, "and what Bob said after the end of the first call"


def test_hold_by_the_server_and_back() -> None:
    world = World(strict=True)
    calls = Calls(world)
    calls.connect()
    world.net.run(1)
    calls.ask(2, Endpoint("0.0.0.0", PORT), B2BUA, answer=False, again=True)
    assert max(calls.hear()) == 0
    world.net.run(200)
    assert len(world.relay.calls) >= 1, "on hold silence is allowed"
    calls.ask(2, calls.between, B2BUA, answer=False, again=True)
    world.net.run(0.5)
    assert min(calls.hear()) >= 0.98
