"""The pure edge over the pure relay: what the phones on both sides read in SDP, and what happens to their packets."""

import pytest

from mediaproxy.control import MediaReply, Question
from mediaproxy.edge.settings import EdgeSettings, Listener, Transport
from mediaproxy.endpoint import Endpoint
from mediaproxy.events import CallState
from mediaproxy.relay.settings import RelayAddress
from mediaproxy.sdp import Sdp
from mediaproxy.sip.message import Message
from tests.relaybench import V4, V6, Bench, at
from tests.vproxy import LISTENERS, FakeNetwork, Out, World, binding, reply, request

EDGE6 = Endpoint("2001:db8:5::1", 5060)
ALICE4, ALICE6 = Endpoint("203.0.113.10", 5060), Endpoint("2001:db8:a::1", 5060)
BOB4, BOB6, CAROL6 = Endpoint("203.0.113.20", 5060), Endpoint("2001:db8:b::1", 5060), Endpoint("2001:db8:c::1", 5060)
BOTH = (RelayAddress(bind=V4), RelayAddress(bind=V6))


def sdp(phone: Endpoint, port: int = 4000, *lines: str) -> bytes:
    """What a phone without NAT offers or answers."""
    ip = f"IN IP{phone.version} {phone.address}"
    head = ["v=0", f"o=- 1 1 {ip}", "s=-", f"c={ip}", "t=0 0", f"m=audio {port} RTP/AVP 0", *lines]
    return "".join(f"{line}\r\n" for line in head).encode()


def media_of(message: Message) -> Endpoint:
    """Where its reader shall send."""
    endpoint = Sdp.parse(message.body).streams[0].endpoint
    assert endpoint is not None
    return endpoint


class Server(World):
    """An edge at an IPv4 and an IPv6 address, and a relay."""

    def __init__(self, addresses: tuple[RelayAddress, ...] = BOTH) -> None:
        listeners = (*LISTENERS, Listener(transport=Transport.UDP, bind=EDGE6))
        settings = EdgeSettings(listeners=listeners, domains=("example.com",), open=True)
        super().__init__(settings, FakeNetwork(listeners))
        self.bench = Bench(addresses=addresses)

    def reply_to(self, question: Question) -> MediaReply:
        return self.bench.ask(question)

    def at_home(self, user: str, *places: Endpoint) -> None:
        """Registered phones, by the IP version of their place."""
        here = {4: LISTENERS[0].bind, 6: EDGE6}
        self.bind(user, *(binding(user, place, local=here[place.version]) for place in places))

    def call(self, caller: Endpoint, *, late: bool = False) -> None:
        """An INVITE for bob."""
        body = b"" if late else sdp(caller)
        self.receive(request(source=caller, body=body, via=f"SIP/2.0/UDP {caller};branch=z9hG4bKcall"), caller)

    def answer_by(self, phone: Endpoint, tag: str = "b") -> Endpoint:
        """The phone lifts; where the caller is told to send."""
        there = next(out for out in self.outbox if str(out) == f"INVITE > {phone.address}")
        self.receive(reply(there, 200, tag, sdp(phone)), phone)
        return media_of(self.newest("200").message)

    def newest(self, what: str) -> Out:
        """The last message that left and whose name begins so."""
        return next(out for out in reversed(self.outbox) if str(out).startswith(what))


def two_way(server: Server, caller: Endpoint, callee: Endpoint, told: tuple[Endpoint, Endpoint]) -> None:
    """Both send to where they were told (caller, callee) and from where their SDP says, and both are heard."""
    one, other = caller.with_port(4000), callee.with_port(4000)
    assert [at(str(one)).version, at(str(other)).version] == [told[0].version, told[1].version]
    (sent,) = server.bench.packet(str(one), told[0])
    assert (sent.local, sent.target) == (told[1], other)
    (sent,) = server.bench.packet(str(other), told[1])
    assert (sent.local, sent.target) == (told[0], one)


@pytest.mark.parametrize("caller", [ALICE4, ALICE6], ids=["from v4", "from v6"])
@pytest.mark.parametrize("callee", [BOB4, BOB6], ids=["to v4", "to v6"])
def test_each_party_gets_ports_of_its_own_ip_version(caller: Endpoint, callee: Endpoint) -> None:
    server = Server()
    server.at_home("bob", callee)
    server.call(caller)
    facing_callee = media_of(server.newest("INVITE").message)
    two_way(server, caller, callee, (server.answer_by(callee), facing_callee))


@pytest.mark.parametrize("caller", [ALICE4, ALICE6], ids=["from v4", "from v6"])
@pytest.mark.parametrize("callee", [BOB4, BOB6], ids=["to v4", "to v6"])
def test_late_offers(caller: Endpoint, callee: Endpoint) -> None:
    """Only where the INVITE came from says of which version the caller is."""
    server = Server()
    server.at_home("bob", callee)
    server.call(caller, late=True)
    facing_caller = server.answer_by(callee)
    ok = server.newest("200").response
    routes = [("Route", str(route)) for route in reversed(ok.record_routes)]
    ack = request("ACK", str(ok.contacts[0].uri), source=caller, headers=routes, body=sdp(caller), to_tag="b")
    server.receive(ack, caller)
    two_way(server, caller, callee, (facing_caller, media_of(server.newest("ACK").message)))


def test_a_fork_to_phones_of_one_version() -> None:
    server = Server()
    server.at_home("bob", BOB6, CAROL6)
    server.call(ALICE4)
    facing_callee = media_of(server.newest("INVITE").message)
    two_way(server, ALICE4, CAROL6, (server.answer_by(CAROL6), facing_callee))


@pytest.mark.parametrize("caller", [ALICE4, ALICE6], ids=["from v4", "from v6"])
def test_a_fork_to_phones_of_both_versions(caller: Endpoint) -> None:
    """There is one SDP for all: it says the caller's version. A phone of that version is heard; of another that
    answers, an operator can see why there is no sound."""
    same, other = (BOB4, BOB6) if caller is ALICE4 else (BOB6, BOB4)
    server = Server()
    server.at_home("bob", BOB4, BOB6)
    server.call(caller)
    facing_callee = media_of(server.newest("INVITE").message)
    assert facing_callee.version == caller.version
    two_way(server, caller, same, (server.answer_by(same), facing_callee))
    server = Server()
    server.at_home("bob", BOB4, BOB6)
    server.call(caller)
    facing_caller = server.answer_by(other)
    assert server.bench.packet(str(caller.with_port(4000)), facing_caller) == []
    assert server.bench.state() is CallState.TALKING
    (stream,) = server.bench.report.streams
    assert any("nothing can be sent to the callee" in warning for warning in stream.callee.warnings)


def test_a_relay_without_the_callees_version() -> None:
    """Its phone may have both: it is told what there is."""
    server = Server(BOTH[:1])
    server.at_home("bob", BOB6)
    server.call(ALICE4)
    assert media_of(server.newest("INVITE").message).version == 4


def test_an_invite_that_comes_by_two_ways() -> None:
    """A server before us has forked it to two users of ours. One is busy; the other lifts much later, and is heard."""
    server = Server()
    server.at_home("bob", BOB4)
    server.at_home("carol", BOB4.with_port(5070))
    for user in ("bob", "carol"):
        invite = request(
            uri=f"sip:{user}@example.com", body=sdp(ALICE4), via=f"SIP/2.0/UDP {ALICE4};branch=z9hG4bK{user}"
        )
        server.receive(invite, ALICE4)
    bob, carol = (out for out in server.outbox if str(out).startswith("INVITE"))
    server.receive(reply(carol, 486, "c"), carol.hop.remote)
    server.bench.run(60)
    server.receive(reply(bob, 200, "b", sdp(BOB4)), BOB4)
    two_way(server, ALICE4, BOB4, (media_of(server.newest("200").message), media_of(bob.message)))


def test_a_phone_that_was_rung_cannot_take_the_call() -> None:
    """It calls another user of ours with the Call-ID and the tag of the call that it was rung by."""
    server = Server()
    server.at_home("bob", BOB4, BOB4.with_port(5070))
    server.at_home("thief", Endpoint("198.18.0.9", 5060))
    server.call(ALICE4)
    facing_callee = media_of(server.newest("INVITE").message)
    facing_caller = server.answer_by(BOB4)
    thief = Endpoint("198.18.0.9", 5060)
    server.receive(request(uri="sip:thief@example.com", source=thief, body=sdp(thief), cseq="2"), thief)
    assert str(server.newest("482")) == "482 > 198.18.0.9"
    assert server.bench.packet(f"{thief.address}:4000", facing_caller) == []
    two_way(server, ALICE4, BOB4, (facing_caller, facing_callee))
