"""Stories of offers and answers off the beaten track: late ones, PRACK, UPDATE, refreshes, host names, two relays."""

import pytest

from mediaproxy.endpoint import Endpoint
from mediaproxy.events import CallAnswered, CallState, EndReason, PeerLearned, StreamChanged
from mediaproxy.relay.settings import RelayAddress, RelaySettings
from tests.vnet import KINDS, RESTRICTED, SYMMETRIC, Firewall, Host, Kind
from tests.vphone import Call, Phone
from tests.vrelay import Relay
from tests.vserver import Server
from tests.vworld import SERVER, World

# Late offers within a call


@pytest.mark.parametrize("asks", ["caller", "callee"])
def test_late_offer_in_a_re_invite(asks: str) -> None:
    """INVITE without SDP, the other side's offer in the 200, the answer in the ACK."""
    world = World(strict=True)
    call, answer = world.connect(*world.pair(SYMMETRIC, RESTRICTED))
    world.two_way(call, answer)
    flows = {local: flow for local, (flow, _) in world.relay.plane.lent.items()}
    asking = call if asks == "caller" else answer
    for _ in range(2):
        asking.ask_for_an_offer()
        world.net.run(0.5)
        assert asking.status == 200 and not asking.late_offer
        world.two_way(call, answer)
    assert {local: flow for local, (flow, _) in world.relay.plane.lent.items()} == flows, "nothing had changed"


def test_a_late_offer_that_holds_and_one_that_resumes() -> None:
    """The side that is asked for its offer holds by it."""
    world = World(strict=True)
    call, answer = world.connect(*world.pair())
    answer.offer.direction, answer.offer.version = "inactive", 2
    call.ask_for_an_offer()
    world.net.run(0.5)
    assert world.relay.standing == (True, CallState.HELD)
    answer.offer.direction, answer.offer.version = "sendrecv", 3
    call.ask_for_an_offer()
    world.net.run(0.5)
    assert world.relay.standing == (False, CallState.TALKING)
    world.two_way(call, answer)


def test_a_late_offer_adds_video() -> None:
    world = World(strict=True)
    call, answer = world.connect(*world.pair(SYMMETRIC, SYMMETRIC))
    for side in (call, answer):
        side.add("video")
    call.ask_for_an_offer()
    world.net.run(0.5)
    for number in (0, 1):
        world.two_way(call, answer, number=number)


# PRACK and UPDATE before the answer


def ringing(world: World, one: Kind = SYMMETRIC, other: Kind = RESTRICTED, *, late: bool = False) -> tuple[Call, Call]:
    """A call with early media, its provisional response acknowledged."""
    alice, bob = world.pair(one, other)
    alice.pracks = bob.pracks = bob.early = True
    bob.answer_after = 10.0
    call = alice.call("bob", late_offer=late)
    world.net.run(1)
    assert call.state == bob.last.state == "ringing"
    return call, bob.last


@pytest.mark.parametrize("other", KINDS, ids=str)
def test_late_offer_in_a_reliable_183(other: Kind) -> None:
    """INVITE without SDP, the offer in the 183, the answer in the PRACK; the 200 has no SDP."""
    world = World(strict=True)
    call, answer = ringing(world, SYMMETRIC, other, late=True)
    world.two_way(call, answer)
    world.net.run(10)
    assert call.state == "up" and world.relay.standing == (False, CallState.TALKING)
    world.two_way(call, answer)
    call.hang_up()
    world.net.run(1)
    assert world.relay.ends == [EndReason.BYE]


@pytest.mark.parametrize("offers", ["caller", "callee"])
@pytest.mark.parametrize("method", ["UPDATE", "PRACK"])
def test_an_offer_before_the_answer(method: str, offers: str) -> None:
    """On hold while it rings, and back again (RFC 3311 §5.1, RFC 3262 §5); then the call is answered."""
    world = World(strict=True)
    call, answer = ringing(world)
    world.two_way(call, answer)
    one, other = (call, answer) if offers == "caller" else (answer, call)
    one.reinvite("sendonly", method=method)
    world.net.run(0.5)
    assert one.status == 200 and world.relay.report.streams[0].held
    since = world.net.now
    world.net.run(1)
    assert one.voice.count(other.voice.tone, since) == 0 and other.voice.count(one.voice.tone, since) >= 49
    one.reinvite("sendrecv", method=method)
    world.net.run(0.5)
    world.two_way(call, answer)
    assert world.relay.standing == (False, CallState.RINGING) and world.relay.seen(CallAnswered) == []
    world.net.run(10)
    assert call.state == "up" and world.relay.standing == (False, CallState.TALKING)
    world.two_way(call, answer)


def test_a_call_with_an_update_is_cancelled() -> None:
    world = World(strict=True)
    call, answer = ringing(world)
    call.reinvite("sendonly", method="UPDATE")
    world.net.run(0.5)
    call.cancel()
    world.net.run(40)
    assert call.state == answer.state == "over" and world.relay.ends == [EndReason.CANCEL]
    assert world.relay.ended[0].answered is None


@pytest.mark.parametrize("who", ["caller", "callee"])
def test_a_phone_moves_while_it_rings(who: str) -> None:
    """New address, re-REGISTER, UPDATE: early media goes on from there, and so does the call."""
    world = World(strict=True)
    call, answer = ringing(world)
    moving = call if who == "caller" else answer
    home = world.home(SYMMETRIC)
    moving.phone.host.attach(home.inside, "10.20.30.40")
    moving.phone.register()
    moving.change()
    moving.reinvite(method="UPDATE")
    world.net.run(1)
    world.two_way(call, answer)


def test_a_refused_update_while_it_rings() -> None:
    world = World(strict=True)
    call, answer = ringing(world)
    answer.phone.reinvite_status = 504
    call.reinvite("inactive", method="UPDATE")
    world.net.run(0.5)
    assert call.status == 504
    call.offer.direction = "sendrecv"
    assert not world.relay.report.streams[0].held
    world.two_way(call, answer)


# Refreshes


def test_session_refresh_by_update_without_sdp() -> None:
    """RFC 4028 §7.4: nothing about media is said, so nothing is asked of the relay, and nothing changes."""
    world = World(strict=True)
    call, answer = world.connect(*world.pair())
    world.net.run(2)
    flows = {local: flow for local, (flow, _) in world.relay.plane.lent.items()}
    learned, since = len(world.relay.seen(PeerLearned)), world.net.now
    for refresher in (call, answer, call):
        refresher.refresh()
        world.net.run(2)
    for listener, tone in ((call, "bob"), (answer, "alice")):
        assert world.share(listener, tone, since) >= 0.999
    assert {local: flow for local, (flow, _) in world.relay.plane.lent.items()} == flows
    assert len(world.relay.seen(PeerLearned)) == learned and world.relay.seen(StreamChanged) == []


# Addresses


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_a_phone_that_tells_its_name(kind: Kind) -> None:
    """c=IN IP4 alice.lan: a name that only its own network knows. The phone itself is meant."""
    world = World(strict=True)
    alice, bob = world.pair(kind, RESTRICTED)
    alice.host_name, bob.host_name = "alice.lan", "bob.lan"
    call, answer = world.connect(alice, bob)
    world.two_way(call, answer)
    call.reinvite("inactive")
    world.net.run(0.5)
    call.reinvite("sendrecv")
    world.net.run(0.5)
    world.two_way(call, answer)


def mixed_fork(world: World) -> tuple[Phone, Phone, Phone]:
    """Alice, and Bob with a phone of each IP version."""
    alice, four = world.phone("alice"), world.phone("bob")
    six = world.phone("bob", Firewall(outer=world.net.public), "2001:db8:b::10")
    six.tone = "bobby"
    return alice, four, six


def test_a_fork_to_phones_of_both_ip_versions() -> None:
    """One SDP for both; this server asks for the version of the phone that registered last, which is IPv6. It lifts
    and is heard. Had the other one lifted, an operator could see why there is no sound."""
    world = World(strict=True)
    alice, four, six = mixed_fork(world)
    four.answer_after = None
    call = alice.call("bob")
    world.net.run(2)
    world.two_way(call, six.last)
    call.hang_up()
    world.net.run(1)
    four.answer_after, six.answer_after = 1.0, None
    call = alice.call("bob")
    world.net.run(3)
    assert call.state == "up" and call.remote_tag == four.last.tag
    assert call.voice.heard == [] or call.voice.count("bob") == 0
    assert any("nothing can be sent to the callee" in text for text in world.relay.report.streams[0].callee.warnings)


# Two relays in a row


class Chain(World):
    """Two servers with a relay each: Alice is at the first one, Bob at the second, and neither knows of the other's."""

    def __init__(self, seed: int = 1, **settings: object) -> None:
        super().__init__(seed, strict=True)
        self.second_relay = self._relay("198.51.100.8", seed)
        host = Host(self.net).attach(self.net.public, "198.51.100.6")
        self.second = Server(host, self.second_relay)
        self.server.peer = self.second_place.with_port(5060)
        self.second.peer = SERVER

    @property
    def second_place(self) -> Endpoint:
        return Endpoint("198.51.100.6", 5060)

    def _relay(self, address: str, seed: int) -> Relay:
        host = Host(self.net).attach(self.net.public, address)
        return Relay(host, RelaySettings(addresses=(RelayAddress(bind=address),)), strict=True, seed=seed + 1)

    def far_phone(self, name: str, kind: Kind) -> Phone:
        """A phone that is registered at the second server."""
        phone = Phone(self.net, name, self.second_place)
        phone.host.attach(self.home(kind).inside, "192.168.1.10")
        phone.register()
        self.net.run(0.1)
        return phone


@pytest.mark.parametrize("near_calls", [True, False], ids=["near calls far", "far calls near"])
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_two_latching_relays_in_a_row(kind: Kind, near_calls: bool) -> None:
    """Each waits for the other's first packet, so each must send before it has heard one (calls.md 5)."""
    world = Chain()
    alice, bob = world.phone("alice", world.home(kind)), world.far_phone("bob", SYMMETRIC)
    call, answer = world.connect(*((alice, bob) if near_calls else (bob, alice)))
    world.two_way(call, answer)
    world.net.run(11)
    for listener, speaker in ((call, answer), (answer, call)):
        assert len(listener.voice.rtcp_heard) >= speaker.voice.rtcp_sent - 1 >= 2
    call.reinvite("sendonly")
    world.net.run(0.5)
    assert world.relay.standing == world.second_relay.standing == (True, CallState.HELD)
    call.reinvite("sendrecv")
    world.net.run(0.5)
    world.two_way(call, answer)
    answer.hang_up()
    world.net.run(1)
    assert world.relay.ends == world.second_relay.ends == [EndReason.BYE]


def test_two_relays_in_a_row_and_only_one_side_speaks() -> None:
    """The other one is muted from the start: its sound still finds the way when it begins."""
    world = Chain()
    alice, bob = world.phone("alice"), world.far_phone("bob", RESTRICTED)
    bob.voice_options = {"muted": True, "with_rtcp": False}
    call, answer = world.connect(alice, bob)
    since = world.net.now
    world.net.run(5)
    assert world.share(answer, "alice", since) == 0, "nobody can get through to a port that its NAT has never seen"
    answer.voice.muted = False
    world.net.run(0.2)
    world.two_way(call, answer)
