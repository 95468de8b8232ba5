"""Calls of bare phones through a Kamailio with one of its own modules, on loopback (test_stock_modules.py) or wherever
else phones and relay are (test_stock_nats.py)."""

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

from lab.stock import BesideStock, Stock
from mediaproxy.control import Inquiry, MediaReply, QueryRequest, TotalsRequest
from mediaproxy.endpoint import Endpoint
from mediaproxy.events import CallReport, CallState, reports_of, totals_of
from mediaproxy.link import UnixLink
from tests import sipua
from tests.sipua import Phone
from tests.vsip import Section, Text, parameter, read_sdp

RELAY = "127.0.0.9"
PORT = 16_000 + os.getpid() % 3_000
"Where Kamailio listens: others may run these tests, too."
KAMAILIO = Endpoint("127.0.0.1", PORT)


@contextlib.contextmanager
def running(stock: Stock, folder: Path, place: Endpoint = KAMAILIO, **relay: Any) -> Iterator[BesideStock]:
    """Kamailio at a place and our server. ``relay``: its settings."""
    settings = {
        "runtime_dir": str(folder / "run"),
        "state_dir": str(folder / "state"),
        "relay": {"addresses": [{"bind": RELAY}], "port_min": 20000, "port_max": 20398, "plane": "user", **relay},
    }
    server = BesideStock(stock, None, folder / "server", settings, (place.address, place.port))
    try:
        yield server
        assert server.alive, server.log
        assert " 500 " not in server.log and "Traceback" not in server.log
    finally:
        server.stop()


class Fact(Enum):
    """What some modules tell us and others do not."""

    URI = "who is called"
    SDP = "what an SDP says besides addresses"
    STATUS = "whether an answer is the final one"


_SILENT = {
    "mediaproxy": frozenset[Fact](),
    "rtpengine": frozenset((Fact.URI, Fact.STATUS)),
    "rtpproxy": frozenset(Fact),
}


def tells(stock: Stock, fact: Fact) -> bool:
    """Whether a module does."""
    return fact not in _SILENT[stock.module]


# -- what happens at the server


def records(server: BesideStock) -> list[Any]:
    """Of all calls that have ended."""
    path = server.socket.parent.parent / "state" / "records.jsonl"
    return [json.loads(line) for line in path.read_text().split("\n")[:-1]] if path.exists() else []


async def asked(server: BesideStock, inquiry: Inquiry) -> MediaReply:
    """What the server says to our own protocol on the module's socket."""
    link = UnixLink(server.socket)
    try:
        return await link.inquire(inquiry)
    finally:
        await link.close()


async def record(server: BesideStock, call_id: str) -> Any:
    """That of a call, when it is over; then no port may be lent any more."""
    async with asyncio.timeout(sipua.PATIENCE * 4):
        while not (found := [one for one in records(server) if one["call_id"] == call_id]):
            await asyncio.sleep(0.1)
    (one,) = found
    (totals,) = totals_of(await asked(server, TotalsRequest()))
    assert (totals.calls, totals.ports_lent) == (0, 0)
    return one


async def call(server: BesideStock, **wanted: object) -> CallReport:
    """The only call there is, when it is as wanted."""
    async with asyncio.timeout(sipua.PATIENCE * 4):
        while True:
            calls = reports_of(await asked(server, QueryRequest()))
            standing = [one for one in calls if one.state is not CallState.LINGERING]
            if len(standing) == 1 and all(getattr(standing[0], name) == value for name, value in wanted.items()):
                return standing[0]
            await asyncio.sleep(0.05)


# -- what phones say


def sdp(*streams: str, address: str = "10.0.0.1", attributes: str = "") -> str:
    """An SDP of a private address. ``streams``: such as ``audio 4000 RTP/AVP 0``."""
    body = f"v=0\r\no=- 1 1 IN IP4 {address}\r\ns=-\r\nc=IN IP4 {address}\r\nt=0 0\r\n"
    return body + "".join(f"m={stream}\r\n{attributes}" for stream in streams)


AUDIO, OTHER = "audio 4000 RTP/AVP 0", "audio 6000 RTP/AVP 0"
VIDEO, NO_VIDEO = "video 4002 RTP/AVP 96", "video 0 RTP/AVP 96"


def told(text: Text, *dead: int, relay: str = RELAY) -> list[int]:
    """The ports in a message, which must be those of the relay at this address, but for dead streams (by number)."""
    sections: list[Section] = read_sdp(text.body)
    assert sections, text.body
    for at, one in enumerate(sections):
        assert (one.endpoint.port == 0) == (at in dead), text.body
        assert at in dead or one.endpoint.address == relay, text.body
        assert at in dead or one.endpoint.port % 2 == 0
    return [one.endpoint.port for one in sections]


@dataclass
class Dialog:
    """A call as its phones see it."""

    server: BesideStock
    caller: Phone
    callee: Phone
    invite: Text
    arrived: Text
    "The INVITE as it came."
    answer: Text
    "The answer as it came."
    relay: str = RELAY
    "Its address."
    cseqs: dict[str, int] = field(default_factory=lambda: {"caller": 1, "callee": 100})

    @property
    def call_id(self) -> str:
        return self.invite.get("Call-ID")

    def request(self, by: Phone, method: str, body: str = "", *, cseq: int = 0) -> Text:
        """A request within the dialog."""
        mine = by is self.caller
        who = "caller" if mine else "callee"
        if not cseq:
            self.cseqs[who] += 1
            cseq = self.cseqs[who]
        own, other = (
            (self.invite.get("From"), self.answer.get("To"))
            if mine
            else (self.answer.get("To"), self.invite.get("From"))
        )
        routes = self.answer.all("Record-Route") if mine else self.arrived.all("Record-Route")
        target = self.answer.contact if mine else self.arrived.contact
        return by.request(
            method,
            target,
            to=other,
            tag=parameter(own, "tag"),
            call_id=self.call_id,
            cseq=cseq,
            routes=routes,
            body=body,
            rport=True,
        )

    async def offer(
        self, by: Phone, offer: str, answer: str, dead: tuple[int, ...] = ()
    ) -> tuple[list[int], list[int]]:
        """A re-INVITE; the ports that the other one and that ``by`` were told."""
        other = self.callee if by is self.caller else self.caller
        sent = self.request(by, "INVITE", offer)
        came = await other.receive("INVITE")
        other.answer(came, 200, answer)
        back = await by.receive(200, "INVITE")
        self.request(by, "ACK", cseq=int(sent.get("CSeq").split()[0]))
        await other.receive("ACK")
        return told(came, *dead, relay=self.relay), told(back, *dead, relay=self.relay)

    async def bye(self, by: Phone) -> Any:
        """Hang up; the record."""
        other = self.callee if by is self.caller else self.caller
        self.request(by, "BYE")
        other.answer(await other.receive("BYE"), 200)
        await by.receive(200, "BYE")
        return await record(self.server, self.call_id)


@contextlib.asynccontextmanager
async def phones(*users: str, place: Endpoint = KAMAILIO) -> AsyncIterator[list[Phone]]:
    async with contextlib.AsyncExitStack() as stack:
        yield [await stack.enter_async_context(Phone(user, place)) for user in users]


async def talk(  # noqa: PLR0913 - who, where, and what they say
    server: BesideStock,
    alice: Phone,
    bob: Phone,
    offer: str = "",
    answer: str = "",
    *,
    uri: str = "",
    relay: str = RELAY,
) -> Dialog:
    """Alice calls Bob. ``uri``: whom she asks for; empty: his Contact."""
    invite = alice.request("INVITE", uri or bob.contact, body=offer or sdp(AUDIO), rport=True)
    arrived = await bob.receive("INVITE")
    bob.answer(arrived, 180)
    bob.answer(arrived, 200, answer or sdp(OTHER))
    answered = await alice.receive(200)
    dialog = Dialog(server, alice, bob, invite, arrived, answered, relay)
    dialog.request(alice, "ACK", cseq=1)
    await bob.receive("ACK")
    return dialog
