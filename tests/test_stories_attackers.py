"""Stories of attackers: nothing of theirs is heard, nothing leaks to them, and the call they attack stays whole."""

from collections.abc import Callable

import pytest

from mediaproxy.endpoint import Endpoint
from mediaproxy.events import SourceRefused
from tests.vmedia import rtcp, rtp
from tests.vnet import RESTRICTED, SYMMETRIC, Datagram, Nat, Network
from tests.vphone import Call, Phone
from tests.vworld import RELAY, SERVER, World

EVIL = "192.0.2.66"


class Attacker:
    """A host that sends what it likes and counts what it gets."""

    def __init__(self, world: World, where: Network | None = None, address: str = EVIL) -> None:
        self.world, self.net = world, world.net
        self.host = world.host().attach(where or world.net.public, address)
        self.host.otherwise = self.got
        self.received: list[Datagram] = []
        self.number = 0

    def got(self, datagram: Datagram) -> None:
        self.received.append(datagram)

    def send(self, port: int, data: bytes) -> None:
        """To one port of the relay."""
        self.host.send(6666, Endpoint(RELAY, port), data)

    def speech(self) -> bytes:
        """The next RTP packet of his tone."""
        self.number += 1
        return rtp("evil", self.number, ssrc=0xE711, sequence=self.number)

    def report(self) -> bytes:
        """The next RTCP packet of his."""
        self.number += 1
        return rtcp("evil", self.number, ssrc=0xE711)

    def spray(self, rate: int, what: Callable[[], bytes], ports: range | list[int] | None = None) -> None:
        """Send at random ports of the relay, from now on; default: its whole range."""
        aims = ports or range(16384, 32768)

        def shoot() -> None:
            self.send(self.net.rng.choice(aims), what())

        self.net.every(1 / rate, shoot)


def open_ports(world: World) -> list[int]:
    """The relay's lent ports: what an attacker would know who knows too much."""
    return sorted(local.port for local in world.relay.plane.lent)


def unharmed(world: World, one: Call, other: Call, attacker: Attacker | None, seconds: float = 5.0) -> None:
    """Both go on hearing each other and nobody else, and the attacker gets nothing."""
    since = world.net.now
    world.net.run(seconds)
    for listener, speaker in ((one, other), (other, one)):
        assert world.share(listener, speaker.phone.name, since) >= 0.99
        assert listener.voice.tones() <= {speaker.phone.name}
    assert attacker is None or attacker.received == []


@pytest.mark.parametrize("strict", [False, True], ids=["passing", "strict"])
def test_sprayer_over_the_whole_range_before_and_during_the_call(strict: bool) -> None:
    world = World(strict=strict)
    alice, bob = world.pair()
    attacker = Attacker(world)
    attacker.spray(2000, attacker.speech)
    world.net.run(2)
    call, answer = world.connect(alice, bob)
    unharmed(world, call, answer, attacker)
    assert world.relay.plane.dropped["not lent"] > 5000


@pytest.mark.parametrize("what", ["speech", "report"])
@pytest.mark.parametrize("kind", [RESTRICTED, SYMMETRIC], ids=str)
def test_attacker_who_knows_the_ports_and_speaks_first(kind: object, what: str) -> None:
    """He fires at exactly the call's ports, 2 000 packets a second, from ringing on; RTP and RTCP."""
    world = World()
    alice, bob = world.pair(kind, kind)  # type: ignore[arg-type]  # named values
    attacker = Attacker(world)
    call = alice.call("bob")
    world.net.run(0.5)
    ports = open_ports(world)
    assert ports, "ringing, and the ports are there"
    attacker.spray(2000, getattr(attacker, what), ports)
    world.net.run(1.5)
    assert call.state == "up"
    unharmed(world, call, bob.last, attacker)
    assert {heard.tone for heard in call.voice.rtcp_heard} == {"bob"}
    refused = world.relay.seen(SourceRefused)
    assert {event.source for event in refused} == {Endpoint(EVIL, 6666)}
    assert len(refused) <= len(ports), "one event per port, not per packet"
    world.net.run(1)
    streams = world.relay.report.streams[0]
    worst = [side.refused[0] for side in (streams.caller, streams.callee)]
    assert all(refusal.source == Endpoint(EVIL, 6666) and refusal.packets > 1000 for refusal in worst)


def test_attacker_who_repeats_what_he_saw() -> None:
    """He knows port, SSRC and sequence number, and is always a packet ahead, from another address."""
    world = World()
    call, answer = world.connect(*world.pair())
    attacker = Attacker(world)
    port = call.voice.remote.port if call.voice.remote else 0

    def ahead() -> bytes:
        attacker.number += 1
        return rtp("evil", attacker.number, ssrc=call.voice.ssrc, sequence=call.voice.sequence + 1)

    attacker.spray(200, ahead, [port])
    unharmed(world, call, answer, attacker)


def test_attacker_who_speaks_in_the_pauses() -> None:
    """Nobody says anything for 20 s; he does, in sequence, at all ports of the call."""
    world = World()
    call, answer = world.connect(*world.pair())
    attacker = Attacker(world)
    attacker.spray(500, attacker.speech, open_ports(world))
    call.voice.muted = answer.voice.muted = True
    world.net.run(20)
    call.voice.muted = answer.voice.muted = False
    unharmed(world, call, answer, attacker)


def test_probation_lets_nobody_in_while_the_phone_speaks() -> None:
    """The open policy: an attacker in sequence with one SSRC still has no chance against a phone that speaks."""
    world = World(latch_others="probation")
    alice, bob = world.pair()
    call, answer = world.connect(alice, bob)
    attacker = Attacker(world)
    attacker.spray(500, attacker.speech, open_ports(world))
    unharmed(world, call, answer, attacker)


def test_garbage_at_every_port() -> None:
    """Random bytes of all lengths: from a stranger at every port, from behind the phone's own NAT at those of RTP."""
    world = World()
    home = world.home()
    alice, bob = world.phone("alice", home), world.phone("bob")
    call, answer = world.connect(alice, bob)
    attackers = [Attacker(world), Attacker(world, home.inside, "192.168.1.66")]
    ports = open_ports(world)
    for attacker, aims in zip(attackers, (ports, ports[::2]), strict=True):
        attacker.spray(500, lambda: world.net.rng.randbytes(world.net.rng.randrange(200)), aims)
    unharmed(world, call, answer, attackers[0])
    assert attackers[1].received == []


# The same address: what no relay can tell apart (RFC 7362 §4.3), and how little is left of it


def neighbours(world: World) -> tuple[Nat, Phone, Phone, Attacker]:
    """Alice and an attacker behind one router: to the relay they have the same address."""
    home = world.home()
    alice, bob = world.phone("alice", home), world.phone("bob")
    return home, alice, bob, Attacker(world, home.inside, "192.168.1.66")


def test_neighbour_has_no_chance_while_the_phone_speaks() -> None:
    world = World()
    _, alice, bob, attacker = neighbours(world)
    call, answer = world.connect(alice, bob)
    attacker.spray(500, attacker.speech, open_ports(world))
    unharmed(world, call, answer, attacker)


def test_neighbour_cannot_take_over_the_reports_of_a_phone() -> None:
    """Phones report every 5 s; between two reports he sends hundreds."""
    world = World()
    _, alice, bob, attacker = neighbours(world)
    call, answer = world.connect(alice, bob)
    attacker.spray(200, attacker.report, open_ports(world))
    unharmed(world, call, answer, attacker, seconds=31)
    for listener, speaker in ((call, answer), (answer, call)):
        assert len(listener.voice.rtcp_heard) >= speaker.voice.rtcp_sent - 1 >= 6


def test_neighbour_who_reported_first_loses_the_port_to_who_speaks() -> None:
    world = World()
    _, alice, bob, attacker = neighbours(world)
    call = alice.call("bob")
    world.net.run(0.5)
    attacker.spray(200, attacker.report, open_ports(world))
    world.net.run(10)
    assert call.state == "up" and {heard.tone for heard in bob.last.voice.rtcp_heard} >= {"alice", "evil"}
    since = world.net.now
    world.net.run(20)
    assert {heard.tone for heard in bob.last.voice.rtcp_heard if heard.at > since} == {"alice"}
    assert {heard.tone for heard in call.voice.rtcp_heard} == {"bob"}


@pytest.mark.parametrize("what", ["speech", "report"])
@pytest.mark.parametrize("how", [{"zero": True}, {"direction": "sendonly"}, {"method": "UPDATE"}], ids=str)
def test_neighbour_who_waits_for_a_re_invite(how: dict[str, object], what: str) -> None:
    """A change is announced, and ended again: who speaks from the same address is not whom SIP has announced."""
    world = World()
    _, alice, bob, attacker = neighbours(world)
    call, answer = world.connect(alice, bob)
    attacker.spray(500, getattr(attacker, what), open_ports(world))
    call.reinvite(**how)  # type: ignore[arg-type]  # named values
    world.net.run(0.5)
    call.reinvite("sendrecv")
    world.net.run(0.5)
    unharmed(world, call, answer, attacker, seconds=11)
    assert {heard.tone for heard in answer.voice.rtcp_heard} == {"alice"}


def test_neighbour_who_shot_once_before_the_call_is_forgotten_at_once() -> None:
    """An equal rank waits until the first is silent for 100 ms: that is all he costs."""
    world = World()
    _, alice, bob, attacker = neighbours(world)
    call = alice.call("bob")
    world.net.run(0.5)
    for port in open_ports(world):
        attacker.send(port, attacker.speech())
    world.net.run(1.0)
    assert call.state == "up"
    since = world.net.now
    world.net.run(3)
    assert world.share(bob.last, "alice", since) >= 0.99
    assert bob.last.voice.count("evil") <= 1


def test_neighbour_who_took_over_in_a_pause_loses_it_when_he_stops() -> None:
    """The residual of rule 6: after a second of silence a new port of the address is believed."""
    world = World()
    _, alice, bob, attacker = neighbours(world)
    call, answer = world.connect(alice, bob)
    call.voice.muted = True
    world.net.run(2)
    for port in open_ports(world):
        attacker.send(port, attacker.speech())
    world.net.run(0.1)
    assert answer.voice.count("evil") == 1
    call.voice.muted = False
    world.net.run(1.1)
    since = world.net.now
    world.net.run(3)
    assert world.share(answer, "alice", since) >= 0.99


def test_forged_source_address_loses_to_the_port_of_the_sdp() -> None:
    """Alice has a public address. He forges it and speaks first, from another port: her own has a better rank."""
    world = World()
    alice, bob = world.phone("alice", world.net.public, "203.0.113.70"), world.phone("bob")
    attacker = Attacker(world)
    call = alice.call("bob")
    world.net.run(0.5)
    ports = open_ports(world)

    def forge() -> None:
        source = Endpoint("203.0.113.70", 7777)
        attacker.host.spoof(source, Endpoint(RELAY, world.net.rng.choice(ports)), attacker.speech())

    world.net.every(0.005, forge)
    world.net.run(2)
    assert call.state == "up"
    since = world.net.now
    world.net.run(3)
    assert world.share(bob.last, "alice", since) >= 0.99
    assert bob.last.voice.count("evil", since) == 0
    assert call.voice.tones() == {"bob"}


@pytest.mark.parametrize("payload_type", [13, 96, 127])
def test_neighbour_with_another_codec_is_not_believed_even_in_a_pause(payload_type: int) -> None:
    """RTP that the SDP does not have is not this call's (calls.md 3)."""
    world = World()
    _, alice, bob, attacker = neighbours(world)
    call, answer = world.connect(alice, bob)
    call.voice.muted = True
    attacker.spray(50, lambda: rtp("evil", 1, ssrc=1, sequence=1, payload_type=payload_type), open_ports(world))
    world.net.run(5)
    call.voice.muted = False
    unharmed(world, call, answer, attacker)
    assert any("payload type" in event.why for event in world.relay.seen(SourceRefused))


# SIP that was overheard


@pytest.mark.parametrize("who", ["alice", "bob"])
def test_repeated_sip_from_elsewhere_opens_no_door(who: str) -> None:
    """He replays every SIP packet of one phone from his own address, then speaks: the call does not follow him."""
    world = World()
    alice, bob = world.pair()
    call, answer = world.connect(alice, bob)
    attacker = Attacker(world)
    for data in {"alice": alice, "bob": bob}[who].sent:
        if b"REGISTER" not in data:
            attacker.host.send(5060, SERVER, data)
    world.net.run(1)
    attacker.received.clear()  # the server's answers to his SIP
    attacker.spray(500, attacker.speech, open_ports(world))
    unharmed(world, call, answer, None)
    assert all(datagram.source.address != RELAY for datagram in attacker.received)


# The relay as a weapon


@pytest.mark.parametrize("speaks", [False, True], ids=["silent", "speaking"])
def test_no_reflector(speaks: bool) -> None:
    """Mallory's SDP names a victim; Bob sends 500 packets a second. At most 100 reach the victim, none once Mallory
    has spoken himself."""
    world = World()
    victim = Attacker(world, address="198.18.0.9")
    mallory, bob = world.phone("mallory"), world.phone("bob")
    mallory.stun = lambda voice: Endpoint("198.18.0.9", 9000)
    mallory.voice_options = {"muted": not speaks, "with_rtcp": False}
    bob.voice_options = {"frame": 0.002}
    call, _ = world.connect(mallory, bob)
    world.net.run(1)
    start = len(victim.received)
    world.net.run(5)
    assert len(victim.received) - start <= (0 if speaks else 500)
    assert speaks == (call.voice.count("bob", world.net.now - 5) > 2400)


@pytest.mark.parametrize(
    "named",
    ["127.0.0.1", "169.254.1.1", "224.1.1.1", "255.255.255.255", "10.9.9.9", "100.64.1.1", RELAY],
)
def test_sdp_that_names_no_phone(named: str) -> None:
    """Loopback, link-local, multicast, broadcast, somebody's private network, ourselves: the plane of these tests
    refuses to send there. When Mallory speaks, he is answered to where he speaks from."""
    world = World()
    inside = Attacker(world, address="192.0.2.99")
    mallory, bob = world.phone("mallory"), world.phone("bob")
    mallory.stun = lambda voice: Endpoint(named, 9000)
    mallory.voice_options = {"muted": True, "with_rtcp": False}
    call, answer = world.connect(mallory, bob)
    world.net.run(3)
    assert inside.received == []
    call.voice.muted = False
    world.net.run(0.2)
    since = world.net.now
    world.net.run(2)
    assert world.share(call, "bob", since) >= 0.99 and world.share(answer, "mallory", since) >= 0.99


def test_two_relayed_calls_cannot_be_looped() -> None:
    """Mallory names a port of the relay that another call holds: that call hears nothing of it, nothing circles."""
    world = World()
    call, answer = world.connect(*world.pair())
    aim = call.voice.remote
    assert aim is not None
    mallory, carol = world.phone("mallory"), world.phone("carol")
    mallory.stun = lambda voice: aim
    mallory.voice_options = {"muted": True, "with_rtcp": False}
    mallory.call("carol")
    world.net.run(2)
    assert carol.calls
    unharmed(world, call, answer, None)
