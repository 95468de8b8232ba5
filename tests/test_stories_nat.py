"""Stories of NATs: whoever sits behind what, with the relay both hear each other; without it, only those who could."""

import pytest

from mediaproxy.control import KnownBy
from mediaproxy.endpoint import Endpoint
from mediaproxy.events import EndReason, PeerLearned
from mediaproxy.policy import Policy
from tests.vmedia import Voice
from tests.vnet import FULL_CONE, KINDS, RESTRICTED, SYMMETRIC, Dependence, Firewall, Kind, Nat, Ports
from tests.vphone import Phone
from tests.vworld import LAN, RELAY, RELAY6, SERVER, SERVER6, World

PAIRS = [pytest.param(one, other, id=f"{one}+{other}") for one in KINDS for other in KINDS]
STUN = Endpoint("192.0.2.3", 3478)


def quick(*phones: Phone) -> None:
    for phone in phones:
        phone.answer_after = 0.2


# With the relay


@pytest.mark.parametrize(("one", "other"), PAIRS)
def test_all_pairs_of_nat_kinds_hear_each_other(one: Kind, other: Kind) -> None:
    world = World(strict=True)
    alice, bob = world.pair(one, other)
    quick(alice, bob)
    called = world.net.now
    call, answer = world.connect(alice, bob)
    for side in (call, answer):
        assert side.voice.heard[0].at - called < 0.4, "first sound within 0.2 s of the answer"
    world.two_way(call, answer)
    assert call.voice.sources() == {call.voice.remote}, "media comes from where the SDP says"


# Without the relay


def hears(one: Kind, other: Kind) -> bool:
    """Whether ``one`` hears ``other`` when both tell in SDP what STUN said (RFC 3489 and 4787 put together).

    Its NAT lets in everybody; or it speaks from the port that it told, and its NAT lets in that address, or that port
    if the other one speaks from the port that *he* told.
    """
    if one.filtering == Dependence.ENDPOINT_INDEPENDENT:
        return True
    if one.mapping != Dependence.ENDPOINT_INDEPENDENT:
        return False
    return one.filtering == Dependence.ADDRESS_DEPENDENT or other.mapping == Dependence.ENDPOINT_INDEPENDENT


def ask_stun(home: Nat, voice: Voice) -> Endpoint:
    """What a STUN server says about a voice's port: the mapping towards that server."""
    voice.host.send(voice.port, STUN, b"who am I?")
    mapped = home.mapped(Endpoint(voice.host.address(), voice.port), STUN)
    assert mapped is not None
    return mapped


@pytest.mark.parametrize(("one", "other"), PAIRS)
def test_pairs_without_relay(one: Kind, other: Kind) -> None:
    """With the best help that signalling alone can give, 21 of the 81 pairs talk; plain SDP helps nobody."""
    world = World(relayed=False)
    homes = [world.home(one), world.home(other)]
    alice, bob = world.phone("alice", homes[0]), world.phone("bob", homes[1])
    quick(alice, bob)
    call, answer = world.connect(alice, bob)
    world.net.run(1)
    assert call.voice.count("bob") == answer.voice.count("alice") == 0, "private addresses lead nowhere"
    call.hang_up()
    world.net.run(1)
    alice.stun, bob.stun = (lambda voice: ask_stun(homes[0], voice)), (lambda voice: ask_stun(homes[1], voice))
    call, answer = world.connect(alice, bob)
    since = world.net.now
    world.net.run(1)
    for listener, tone, can in ((call, "bob", hears(one, other)), (answer, "alice", hears(other, one))):
        assert world.share(listener, tone, since) == pytest.approx(1.0 if can else 0.0, abs=0.021)


def test_how_many_pairs_need_a_relay() -> None:
    both = sum(hears(one, other) and hears(other, one) for one in KINDS for other in KINDS)
    nobody = sum(not hears(one, other) and not hears(other, one) for one in KINDS for other in KINDS)
    assert (both, nobody, 81 - both - nobody) == (21, 24, 36)


# Places


def place(world: World, where: str) -> tuple[Phone, Phone]:
    """Two phones in a setting."""
    public = world.net.public
    if where == "one home":
        home = world.home()
        return world.phone("alice", home), world.phone("bob", home, "192.168.1.11")
    if where == "both public":
        return world.phone("alice", public, "203.0.113.70"), world.phone("bob", public, "203.0.113.71")
    if where == "public and home":
        return world.phone("alice", public, "203.0.113.70"), world.phone("bob")
    if where == "home and public":
        return world.phone("alice"), world.phone("bob", public, "203.0.113.70")
    carrier = world.home(SYMMETRIC)
    inner = world.home(RESTRICTED, outer=carrier.inside, address="100.64.0.2")
    if where == "carrier and home":
        return world.phone("alice", inner), world.phone("bob")
    if where == "one carrier":
        other = world.home(RESTRICTED, outer=carrier.inside, address="100.64.0.3")
        return world.phone("alice", inner), world.phone("bob", other)
    assert where == "straight in the carrier's network"
    return world.phone("alice", carrier, "100.64.0.9"), world.phone("bob", carrier, "100.64.0.10")


PLACES = (
    "one home",
    "both public",
    "public and home",
    "home and public",
    "carrier and home",
    "one carrier",
    "straight in the carrier's network",
)


@pytest.mark.parametrize("strict", [False, True], ids=["passing", "strict"])
@pytest.mark.parametrize("where", PLACES)
def test_places(where: str, strict: bool) -> None:
    world = World(strict=strict)
    call, answer = world.connect(*place(world, where))
    world.two_way(call, answer)
    answer.hang_up()
    world.net.run(1)
    assert world.relay.ends == [EndReason.BYE]


def six(world: World, name: str, number: int) -> Phone:
    return world.phone(name, Firewall(outer=world.net.public), f"2001:db8:{number}::10")


def test_ipv6_to_ipv6() -> None:
    world = World(strict=True)
    call, answer = world.connect(six(world, "alice", 1), six(world, "bob", 2))
    world.two_way(call, answer)
    assert {source.address for source in call.voice.sources() | answer.voice.sources()} == {RELAY6}


@pytest.mark.parametrize("six_calls", [True, False], ids=["6 calls 4", "4 calls 6"])
def test_ipv4_to_ipv6(six_calls: bool) -> None:
    world = World(strict=True)
    alice, bob = six(world, "alice", 1), world.phone("bob")
    call, answer = world.connect(*((alice, bob) if six_calls else (bob, alice)))
    world.two_way(call, answer)
    new, old = (call, answer) if six_calls else (answer, call)
    assert {source.address for source in new.voice.sources()} == {RELAY6}
    assert {source.address for source in old.voice.sources()} == {RELAY}


def test_ipv6_privacy_addresses_differ_between_sip_and_media() -> None:
    """RFC 8981: SIP comes from one address of the /64, RTP from another; the SDP shows the first."""
    world = World(strict=True)
    alice, bob = six(world, "alice", 1), six(world, "bob", 2)
    home = Firewall(outer=world.net.public)
    other = Voice(host=home.admit(world.host(), "2001:db8:1::beef"), tone="alice", port=4000)
    call, answer = world.connect(alice, bob)
    other.aim(call.voice.remote, None, True)
    call.voice.aim(None, None, False)
    world.net.run(2)
    since = world.net.now
    world.net.run(2)
    assert world.share(answer, "alice", since) >= 0.99
    assert other.count("bob", since) >= 99


def test_relay_behind_one_to_one_nat() -> None:
    """A cloud host: bound to 10.0.0.5, known to the world as another address."""
    world = World(cloud=True, strict=True)
    call, answer = world.connect(*world.pair(SYMMETRIC, SYMMETRIC))
    world.two_way(call, answer)
    assert call.voice.remote is not None and call.voice.remote.address == RELAY


@pytest.mark.parametrize("one", KINDS, ids=str)
def test_phone_address_unknown(one: Kind) -> None:
    """SIP comes by a trusted proxy that does not say from where (calls.md 1), and the SDP is private: nothing
    qualifies by address. Five packets in sequence do; who comes later with as many is refused."""
    world = World()
    world.server.policy = Policy(trusted_proxies=("203.0.113.0/24",))
    call, answer = world.connect(*world.pair(one, SYMMETRIC))
    report = world.relay.report
    assert (report.caller.known_by, report.callee.known_by) == (KnownBy.UNKNOWN, KnownBy.UNKNOWN)
    for late in (call.voice.remote, answer.voice.remote):
        evil = Voice(
            host=world.host().attach(world.net.public, f"192.0.2.{late.port % 250 if late else 0}"), tone="evil", port=4
        )
        evil.aim(late, None, True)
    world.two_way(call, answer)


# NATs that change their mind


@pytest.mark.parametrize("seconds", [0.0, 5.0], ids=["at once", "after 5 s of reboot"])
@pytest.mark.parametrize("kind", [FULL_CONE, RESTRICTED, SYMMETRIC], ids=str)
def test_nat_reboots_in_a_call(kind: Kind, seconds: float) -> None:
    """All mappings are lost, the address stays: sound is back with the first packet, by SSRC and sequence."""
    world = World(strict=True)
    home = world.home(kind)
    alice, bob = world.phone("alice", home), world.phone("bob")
    call, answer = world.connect(alice, bob)
    world.net.run(2)
    call.voice.muted = True
    world.net.run(0.1)
    home.rebind()
    world.net.run(seconds)
    call.voice.muted = False
    back = world.net.now
    world.net.run(3)
    assert world.share(answer, "alice", back) >= 0.98
    assert world.share(call, "bob", back + 0.1) >= 0.95
    moved = [event for event in world.relay.seen(PeerLearned) if event.before]
    assert any(event.source.address == event.before.address for event in moved if event.before)


def test_reports_find_their_way_after_a_reboot() -> None:
    """Both say nothing; the next report of the phone comes from a new port: its SSRC is known, so the way back is."""
    world = World(strict=True)
    home = world.home(SYMMETRIC)
    alice, bob = world.phone("alice", home), world.phone("bob")
    call, answer = world.connect(alice, bob)
    call.voice.muted = answer.voice.muted = True
    world.net.run(10)
    home.rebind()
    since = world.net.now
    world.net.run(16)
    for listener, least in ((answer, 3), (call, 2)):
        assert len([heard for heard in listener.voice.rtcp_heard if heard.at > since]) >= least


def test_nat_reboots_and_the_phone_restarts_its_stream() -> None:
    """A new SSRC on a new port of the old address: followed when the old port has been silent for a second."""
    world = World(strict=True)
    home = world.home()
    alice, bob = world.phone("alice", home), world.phone("bob")
    call, answer = world.connect(alice, bob)
    world.net.run(2)
    home.rebind()
    call.voice.ssrc, call.voice.sequence = 0x5EC07D, 30000
    lost = world.net.now
    world.net.run(5)
    assert answer.voice.count("alice", lost, lost + 0.9) <= 2
    world.two_way(call, answer)


def test_rtp_mapping_times_out_in_a_pause() -> None:
    """A phone that says nothing for minutes has a new mapping when it speaks again; only it can wake the way back."""
    world = World(strict=True)
    alice, bob = world.phone("alice", world.home(lifetime=30.0)), world.phone("bob")
    alice.voice_options = {"with_rtcp": False}
    call, answer = world.connect(alice, bob)
    world.net.run(2)
    call.voice.muted = True
    world.net.run(60)
    call.voice.muted = False
    world.net.run(0.1)
    world.two_way(call, answer)


def test_phone_moves_and_says_so() -> None:
    """From Wi-Fi to mobile: new address, re-REGISTER, re-INVITE; sound goes on from the new place."""
    world = World(strict=True)
    alice, bob = world.pair()
    call, answer = world.connect(alice, bob)
    world.net.run(2)
    mobile = world.home(SYMMETRIC)
    alice.host.attach(mobile.inside, "10.20.30.40")
    alice.register()
    call.change()
    call.reinvite()
    world.net.run(1)
    assert call.status == 200
    world.two_way(call, answer)


@pytest.mark.parametrize("who", ["caller", "callee"])
def test_phone_moves_to_ipv6(who: str) -> None:
    """From IPv4 Wi-Fi to a mobile network that has IPv6 only, and back again."""
    world = World(strict=True)
    alice, bob = world.pair()
    call, answer = world.connect(alice, bob)
    world.net.run(2)
    moving = call if who == "caller" else answer
    old = moving.phone.host
    six = Firewall(outer=world.net.public)
    six.admit(old, "2001:db8:6::10")
    for version, server in ((6, SERVER6), (4, SERVER), (6, SERVER6)):
        moving.phone.version, moving.phone.server = version, server
        moving.phone.register()
        world.net.run(0.1)
        moving.change()
        moving.reinvite()
        world.net.run(2)
        assert moving.status == 200
        world.two_way(call, answer)
        assert {source.address for source in [moving.voice.heard[-1].source]} == {RELAY6 if version == 6 else RELAY}
    call.hang_up()
    world.net.run(60)
    assert world.relay.ends == [EndReason.BYE] and not world.relay.plane.lent


def test_phone_moves_without_a_word() -> None:
    """A new public address that no signalling vouches for is not heard: that is what an attacker looks like."""
    world = World(strict=True)
    alice, bob = world.pair()
    call, answer = world.connect(alice, bob)
    alice.host.attach(world.home().inside, LAN + "0")
    since = world.net.now
    world.net.run(3)
    assert answer.voice.count("alice", since + 0.1) == 0
    assert world.share(call, "bob", since) < 0.05


def test_new_public_address_is_found_with_the_next_signalling() -> None:
    """A DSL line gets a new address at night: silent until the phone's next re-INVITE, then whole."""
    world = World(strict=True)
    home = world.home()
    alice, bob = world.phone("alice", home), world.phone("bob")
    call, answer = world.connect(alice, bob)
    home.rebind("203.0.113.99")
    since = world.net.now
    world.net.run(3)
    assert answer.voice.count("alice", since + 0.1) == 0
    alice.register()
    call.reinvite()
    world.net.run(1)
    world.two_way(call, answer)


@pytest.mark.parametrize("others", ["never", "probation"])
def test_carrier_with_a_pool_of_addresses(others: str) -> None:
    """RFC 4787 REQ-2 broken: RTP leaves by another public address than SIP. Only probation can help."""
    world = World(latch_others=others)
    pool = Nat(
        outer=world.net.public,
        addresses=[f"203.0.113.{n}" for n in range(100, 164)],
        kind=SYMMETRIC,
        paired=False,
        ports=Ports.SEQUENTIAL,
    )
    alice, bob = world.phone("alice", pool), world.phone("bob")
    call, answer = world.connect(alice, bob)
    world.net.run(3)
    if others == "probation":
        world.two_way(call, answer)
    else:
        assert answer.voice.count("alice") == 0
        assert world.relay.report.streams[0].caller.refused_packets > 100, "and an operator can see why"
