"""A running edge with a fake media arm, for tests with real sockets on loopback."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from mediaproxy import clock
from mediaproxy.edge.location import Location
from mediaproxy.edge.service import Edge
from mediaproxy.edge.settings import EdgeSettings, Listener, Transport
from mediaproxy.endpoint import Endpoint
from tests.fakelink import FakeLink
from tests.sipua import Phone, sdp
from tests.vsip import Text

SECRET = b"the same secret in every run...."


def listener(transport: str = "udp", address: str = "127.0.0.1", port: int = 0) -> Listener:
    """A listener on loopback."""
    return Listener(transport=Transport(transport), bind=Endpoint(address, port))


def settings(**more: object) -> EdgeSettings:
    """UDP on 127.0.0.1, users of example.com; ``more`` changes fields."""
    defaults: dict[str, object] = {"listeners": (listener(),), "domains": ("example.com",)}
    return EdgeSettings(**{**defaults, **more})  # type: ignore[arg-type]  # a test may set any field


class Server:
    """A running edge and its media arm."""

    def __init__(self, edge: Edge, link: FakeLink) -> None:
        self.edge, self.link = edge, link

    def at(self, transport: str = "udp", address: str = "127.0.0.1") -> Endpoint:
        """Where it listens."""
        return next(
            one.bind for one in self.edge.listeners if one.transport == transport and one.bind.address == address
        )


@asynccontextmanager
async def running(what: EdgeSettings | None = None, database: Path | str = ":memory:") -> AsyncIterator[Server]:
    """An edge for the time of a block."""
    link = FakeLink()
    location = Location.open(database, clock.now())
    edge = Edge(what or settings(), link, location, secret=SECRET)
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
