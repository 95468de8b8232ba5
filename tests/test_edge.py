"""The edge over real sockets on loopback: registrations, calls, forks, CANCEL and its races, as phones see them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from mediaproxy import clock
from mediaproxy.control import ConfirmRequest, EndCause, EndRequest, MediaRequest
from mediaproxy.edge.location import Location
from mediaproxy.edge.service import Edge
from mediaproxy.edge.settings import EdgeSettings, Listener, Transport
from mediaproxy.endpoint import Endpoint
from mediaproxy.sip.transaction import Timers
from tests.fakelink import RELAY, FakeLink
from tests.sipua import Phone, sdp
from tests.vsip import Text

pytestmark = [pytest.mark.usefixtures("no_leaks")]

QUICK = Timers(t1=0.02, t2=0.08, t4=0.1, c=2.0)


def listener(transport: str = "udp", address: str = "127.0.0.1") -> Listener:
    return Listener(transport=Transport(transport), bind=Endpoint(address, 0))


def settings(**more: object) -> EdgeSettings:
    defaults: dict[str, object] = {"listeners": (listener(),), "domains": ("example.com",), "timers": QUICK}
    return EdgeSettings(**{**defaults, **more})  # type: ignore[arg-type]  # a test may set any field


class Server:
    """A running edge, its media arm and its sockets."""

    def __init__(self, edge: Edge, link: FakeLink) -> None:
        self.edge, self.link = edge, link

    def at(self, transport: str = "udp", address: str = "127.0.0.1") -> Endpoint:
        return next(
            one.bind for one in self.edge.listeners if one.transport == transport and one.bind.address == address
        )


@asynccontextmanager
async def running(what: EdgeSettings | None = None) -> AsyncIterator[Server]:
    link = FakeLink()
    location = Location.open(":memory:", clock.now())
    edge = Edge(what or settings(), link, location)
    await edge.start()
    try:
        yield Server(edge, link)
    finally:
        await edge.stop()
        location.close()


async def call(alice: Phone, bob: Phone) -> tuple[Text, Text, Text]:
    """A call that is answered: the INVITE as bob got it, the 200 and the ACK as they arrived."""
    invite = alice.request("INVITE", bob.aor, body=sdp())
    got = await bob.receive("INVITE")
    bob.answer(got, 180)
    await alice.receive(180)
    bob.answer(got, 200, sdp(port=5000))
    ok = await alice.receive(200, "INVITE")
    alice.within("ACK", ok, cseq=int(invite.get("CSeq").split()[0]))
    return got, ok, await bob.receive("ACK")


@pytest.mark.both_loops
async def test_a_call_from_register_to_bye() -> None:
    async with running() as server, Phone("alice", server.at()) as alice, Phone("bob", server.at()) as bob:
        await alice.register()
        await bob.register()
        got, ok, ack = await call(alice, bob)
        assert (await alice.receive(100)).method == "INVITE"
        assert got.start == f"INVITE {bob.contact} SIP/2.0"
        assert got.get("Max-Forwards") == "69"
        assert len(got.all("Via")) == 2
        assert f"c=IN IP4 {RELAY}" in got.body
        assert "m=audio 20000" in got.body
        assert f"c=IN IP4 {RELAY}" in ok.body
        assert len(ok.all("Via")) == 1
        assert ack.start == f"ACK {bob.contact} SIP/2.0"
        assert not ack.all("Route"), "our Route was taken off"
        alice.within("BYE", ok)
        bye = await bob.receive("BYE")
        bob.answer(bye, 200)
        await alice.receive(200, "BYE")
        asked = [type(question) for question in server.link.questions]
        assert asked == [MediaRequest, MediaRequest, ConfirmRequest, EndRequest]
        assert server.link.of(EndRequest)[0].cause is EndCause.BYE
        assert alice.unread() == bob.unread() == []
