"""Kamailio's own modules mediaproxy, rtpengine and rtpproxy in front of our relay, two ways of using each: what they
make of our answers.

The phones are bare sockets on loopback that tell private addresses. Real phones: test_stock_phones.py.
"""

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

import pytest

from lab.stock import BesideStock, Stock
from mediaproxy.control import Inquiry, MediaReply, QueryRequest, TotalsRequest
from mediaproxy.endpoint import Endpoint
from mediaproxy.events import CallReport, CallState, reports_of, totals_of
from mediaproxy.link import UnixLink
from tests import sipua
from tests.e2e.conftest import need
from tests.sipua import Phone
from tests.vsip import Section, Text, parameter, read_sdp

RELAY = "127.0.0.9"
PORT = 16_000 + os.getpid() % 3_000
"Where Kamailio listens: others may run these tests, too."
KAMAILIO = Endpoint("127.0.0.1", PORT)


@pytest.fixture(scope="module", autouse=True)
def programs() -> None:
    """What these tests need beside the laboratory."""
    need("kamailio", "unshare")


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


@pytest.fixture(scope="module", params=list(Stock))
def stock(request: pytest.FixtureRequest) -> Stock:
    chosen: Stock = request.param
    return chosen


@pytest.fixture(scope="module")
def server(stock: Stock, tmp_path_factory: pytest.TempPathFactory) -> Iterator[BesideStock]:
    with running(stock, tmp_path_factory.mktemp(stock), linger=1.0) as one:
        yield one


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
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


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


def told(text: Text, *dead: int) -> list[int]:
    """The ports in a message, which must be those of the relay, but for dead streams (by number)."""
    sections: list[Section] = read_sdp(text.body)
    assert sections, text.body
    for at, one in enumerate(sections):
        assert (one.endpoint.port == 0) == (at in dead), text.body
        assert at in dead or one.endpoint.address == RELAY, text.body
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
        return told(came, *dead), told(back, *dead)

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


async def talk(server: BesideStock, alice: Phone, bob: Phone, offer: str = "", answer: str = "") -> Dialog:
    """Alice calls Bob."""
    invite = alice.request("INVITE", bob.contact, body=offer or sdp(AUDIO), rport=True)
    arrived = await bob.receive("INVITE")
    bob.answer(arrived, 180)
    bob.answer(arrived, 200, answer or sdp(OTHER))
    answered = await alice.receive(200)
    dialog = Dialog(server, alice, bob, invite, arrived, answered)
    dialog.request(alice, "ACK", cseq=1)
    await bob.receive("ACK")
    return dialog


# -- calls


@pytest.mark.parametrize("who", ["caller", "callee"])
async def test_a_call(server: BesideStock, stock: Stock, who: str) -> None:
    async with phones("alice", "bob") as (alice, bob):
        dialog = await talk(server, alice, bob, sdp(AUDIO, VIDEO), sdp(OTHER, "video 6002 RTP/AVP 96"))
        facing_bob, facing_alice = told(dialog.arrived), told(dialog.answer)
        assert len({*facing_bob, *facing_alice}) == 4
        standing = await call(server, state="talking")
        assert [one.callee.advertised.port for one in standing.streams] == facing_bob
        assert (standing.caller.tag, standing.callee.tag) == ("alice-tag", "bob-tag")
        assert bool(standing.dialog_id) == (stock is Stock.ENGAGE)
        one = await dialog.bye(alice if who == "caller" else bob)
        uri = f"sip:{dialog.invite.start.split()[1][4:]}" if tells(stock, Fact.URI) else ""
        assert (one["reason"], one["callee"]["uri"]) == ("bye", uri)
        assert one["duration"] > 0


@pytest.mark.parametrize("who", ["caller", "callee"])
async def test_ports_stay_in_later_offers(server: BesideStock, who: str) -> None:
    async with phones("alice", "bob") as (alice, bob):
        dialog = await talk(server, alice, bob)
        first = told(dialog.arrived), told(dialog.answer)
        by = alice if who == "caller" else bob
        wanted = first if who == "caller" else first[::-1]
        assert await dialog.offer(by, sdp(AUDIO if who == "caller" else OTHER), sdp(OTHER)) == wanted
        assert await dialog.offer(by, sdp("audio 5000 RTP/AVP 0"), sdp("audio 7000 RTP/AVP 0")) == wanted
        await dialog.bye(alice)


@pytest.mark.parametrize("who", ["caller", "callee"])
@pytest.mark.parametrize(
    ("hold", "asked"), [("a=sendonly\r\n", "10.0.0.1"), ("a=inactive\r\n", "10.0.0.1"), ("", "0.0.0.0")]
)
async def test_hold_and_resume(server: BesideStock, stock: Stock, who: str, hold: str, asked: str) -> None:
    async with phones("alice", "bob") as (alice, bob):
        dialog = await talk(server, alice, bob)
        by, other = (alice, bob) if who == "caller" else (bob, alice)
        sent = dialog.request(by, "INVITE", sdp(AUDIO, address=asked, attributes=hold))
        came = await other.receive("INVITE")
        (section,) = read_sdp(came.body)
        assert section.endpoint.address == ("0.0.0.0" if asked == "0.0.0.0" else RELAY)
        other.answer(came, 200, sdp(OTHER))
        await by.receive(200, "INVITE")
        dialog.request(by, "ACK", cseq=int(sent.get("CSeq").split()[0]))
        await other.receive("ACK")
        # rtpproxy's module tells no directions, and with the flag r only where the SDP wants media. Silence does.
        known = tells(stock, Fact.SDP) or (stock is Stock.RTPPROXY and asked == "0.0.0.0")
        await call(server, state="held" if known else "talking")
        await dialog.offer(by, sdp(AUDIO), sdp(OTHER))
        await call(server, state="talking")
        await dialog.bye(bob)


async def test_a_late_offer(server: BesideStock, stock: Stock) -> None:
    async with phones("alice", "bob") as (alice, bob):
        invite = alice.request("INVITE", bob.contact, rport=True)
        arrived = await bob.receive("INVITE")
        bob.answer(arrived, 200, sdp(OTHER))
        answered = await alice.receive(200)
        facing_alice = told(answered)
        dialog = Dialog(server, alice, bob, invite, arrived, answered)
        dialog.request(alice, "ACK", sdp(AUDIO), cseq=1)
        acknowledged = await bob.receive("ACK")
        if (
            stock is not Stock.ENGAGE
        ):  # engage_media_proxy() does not look at ACK (its README: offers in INVITE and 200)
            facing_bob = told(acknowledged)
            assert facing_bob != facing_alice
        standing = await call(server, state="talking")
        assert stock.module == "rtpproxy" or standing.caller.tag == "alice-tag"  # to rtpproxy, who offers is the caller
        assert (await dialog.bye(alice))["reason"] == "bye"


async def test_video_is_added_and_dropped(server: BesideStock, stock: Stock) -> None:
    async with phones("alice", "bob") as (alice, bob):
        dialog = await talk(server, alice, bob)
        both = sdp(AUDIO, VIDEO), sdp(OTHER, "video 6002 RTP/AVP 96")
        facing_bob, facing_alice = await dialog.offer(alice, *both)
        assert facing_bob[0] == told(dialog.arrived)[0] and facing_alice[0] == told(dialog.answer)[0]
        again = await dialog.offer(bob, sdp(OTHER, NO_VIDEO), sdp(AUDIO, NO_VIDEO), dead=(1,))
        assert (again[0][0], again[1][0]) == (facing_alice[0], facing_bob[0])
        one = await dialog.bye(bob)
        assert [stream["kind"] for stream in one["streams"]] == [
            "audio",
            "video" if tells(stock, Fact.SDP) else "media",
        ]


async def test_a_refused_stream(server: BesideStock) -> None:
    async with phones("alice", "bob") as (alice, bob):
        dialog = await talk(server, alice, bob, sdp(AUDIO, VIDEO), sdp(OTHER, NO_VIDEO))
        assert len(told(dialog.arrived)) == 2
        told(dialog.answer, 1)
        await dialog.bye(alice)


async def test_a_refused_offer(server: BesideStock) -> None:
    """The call goes on, on the ports that it had."""
    async with phones("alice", "bob") as (alice, bob):
        dialog = await talk(server, alice, bob)
        sent = dialog.request(alice, "INVITE", sdp("audio 5000 RTP/AVP 0", VIDEO))
        came = await bob.receive("INVITE")
        assert told(came)[:1] == told(dialog.arrived)
        bob.answer(came, 488)
        refused = await alice.receive(488, "INVITE")
        dialog.request(alice, "ACK", cseq=int(sent.get("CSeq").split()[0]))
        assert not refused.body
        await call(server, state="talking")
        assert await dialog.offer(bob, sdp(OTHER), sdp(AUDIO)) == (told(dialog.answer), told(dialog.arrived))
        assert (await dialog.bye(alice))["reason"] == "bye"


async def test_a_fax(server: BesideStock, stock: Stock) -> None:
    async with phones("alice", "bob") as (alice, bob):
        dialog = await talk(server, alice, bob)
        await dialog.offer(bob, sdp("image 6004 udptl t38"), sdp("image 4004 udptl t38"))
        (stream,) = (await call(server, state="talking")).streams
        assert (stream.kind, stream.transport) == (("image", "udptl") if tells(stock, Fact.SDP) else ("media", "udp"))
        await dialog.bye(bob)


async def test_early_media(server: BesideStock, stock: Stock) -> None:
    async with phones("alice", "bob") as (alice, bob):
        invite = alice.request("INVITE", bob.contact, body=sdp(AUDIO), rport=True)
        arrived = await bob.receive("INVITE")
        bob.answer(arrived, 183, sdp(OTHER))
        early = told(await alice.receive(183))
        known = tells(stock, Fact.STATUS)
        standing = await call(server, state="ringing" if known else "talking")
        assert (standing.answered is None) == known
        bob.answer(arrived, 200)
        answered = await alice.receive(200)
        assert not answered.body
        dialog = Dialog(server, alice, bob, invite, arrived, answered)
        dialog.request(alice, "ACK", cseq=1)
        await bob.receive("ACK")
        standing = await call(server, state="talking")
        assert standing.streams[0].caller.advertised.port == early[0]
        assert standing.callee.tag == "bob-tag"
        await dialog.bye(bob)


async def test_a_cancelled_call(server: BesideStock) -> None:
    async with phones("alice", "bob") as (alice, bob):
        invite = alice.request("INVITE", bob.contact, body=sdp(AUDIO), rport=True)
        arrived = await bob.receive("INVITE")
        bob.answer(arrived, 180)
        await alice.receive(180)
        via = invite.branch
        alice.request(
            "CANCEL",
            bob.contact,
            to=invite.get("To"),
            call_id=invite.get("Call-ID"),
            cseq=int(invite.get("CSeq").split()[0]),
            branch=via,
            rport=True,
        )
        cancelled = await bob.receive("CANCEL")
        bob.answer(cancelled, 200)
        bob.answer(arrived, 487)
        await alice.receive(487)
        one = await record(server, invite.get("Call-ID"))
        assert (one["reason"], one["answered"]) == ("cancel", None)


async def test_a_busy_phone(server: BesideStock) -> None:
    async with phones("alice", "bob") as (alice, bob):
        invite = alice.request("INVITE", bob.contact, body=sdp(AUDIO), rport=True)
        bob.answer(await bob.receive("INVITE"), 486)
        await alice.receive(486)
        one = await record(server, invite.get("Call-ID"))
        assert (one["reason"], one["answered"]) == ("cancel", None), "the module does not say why"


async def test_a_fork(server: BesideStock, stock: Stock) -> None:
    """Both ring with early media; who answers is heard, and is told nothing new. Where a 183 may be the answer, each
    has ports of its own towards the caller, as with rtpengine: it is told both, and knows by the tag which one
    counts."""
    async with phones("alice", "bob", "carol") as (alice, bob, carol):
        headers = [("X-Fork", carol.contact)]
        invite = alice.request("INVITE", bob.contact, body=sdp(AUDIO), headers=headers, rport=True)
        to_bob, to_carol = await bob.receive("INVITE"), await carol.receive("INVITE")
        assert told(to_bob) == told(to_carol)
        carol.answer(to_carol, 183, sdp("audio 8000 RTP/AVP 0"), headers=[("User-Agent", "Carol's")])
        early = told(await alice.receive(183))
        bob.answer(to_bob, 183, sdp(OTHER), headers=[("User-Agent", "Bob's")])
        assert (told(await alice.receive(183)) == early) == tells(stock, Fact.STATUS)
        carol.answer(to_carol, 200, sdp("audio 8000 RTP/AVP 0"), headers=[("User-Agent", "Carol's")])
        answered = await alice.receive(200)
        assert told(answered) == early
        bob.answer(await bob.receive("CANCEL"), 200)
        bob.answer(to_bob, 487)
        dialog = Dialog(server, alice, carol, invite, to_carol, answered)
        dialog.request(alice, "ACK", cseq=int(invite.get("CSeq").split()[0]))
        await carol.receive("ACK")
        standing = await call(server, state="talking")
        assert standing.callee.tag == "carol-tag"
        assert standing.streams[0].callee.sdp and standing.streams[0].callee.sdp.port == 8000
        await dialog.bye(carol)


async def test_two_calls_at_once_know_nothing_of_each_other(server: BesideStock) -> None:
    async with phones("alice", "bob", "carol", "dave") as (alice, bob, carol, dave):
        one, two = await asyncio.gather(talk(server, alice, bob), talk(server, carol, dave))
        ports = [*told(one.arrived), *told(one.answer), *told(two.arrived), *told(two.answer)]
        assert len(set(ports)) == 4
        one.request(alice, "BYE")
        bob.answer(await bob.receive("BYE"), 200)
        await call(server, call_id=two.call_id)
        assert (await two.bye(dave))["reason"] == "bye"


# -- calls that end by themselves


@pytest.mark.parametrize(("stock", "offset"), [(Stock.ENGAGE, 3_000), (Stock.RTPENGINE, 3_001)])
async def test_kamailio_is_told_to_end_the_dialog(stock: Stock, offset: int, tmp_path: Path) -> None:
    place = KAMAILIO.with_port(PORT + offset)  # the other one may still run
    with running(stock, tmp_path, place, silence=3.0) as server:
        async with phones("alice", "bob", place=place) as (alice, bob):
            dialog = await talk(server, alice, bob)
            # An ACK that overtakes what Kamailio does with the 200 leaves the dialog unconfirmed: it is sent again.
            dialog.request(alice, "ACK", cseq=1)
            await bob.receive("ACK")
            # Nor does Kamailio send the second BYE if the first one is answered before.
            byes = [(phone, await _at_last(phone, "BYE")) for phone in (alice, bob)]
            for phone, bye in byes:
                phone.answer(bye, 200)
            one = await record(server, dialog.call_id)
            assert one["reason"] == "silent"
        doors = await asyncio.to_thread(server.ask, "doors")
        assert (doors["notices_told"], doors["notices_failed"]) == (1, 0)


async def test_rtpproxys_timeout_socket(tmp_path: Path) -> None:
    """Kamailio 5.6 names it in re-INVITEs only."""
    place = KAMAILIO.with_port(PORT + 3_002)
    came: asyncio.Queue[bytes] = asyncio.Queue()

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        came.put_nowait(await reader.read())
        writer.close()

    with running(Stock.RTPPROXY, tmp_path, place, silence=3.0, hold=4.0) as server:
        listening = await asyncio.start_unix_server(take, server.timeouts)
        async with listening, phones("alice", "bob", place=place) as (alice, bob):
            dialog = await talk(server, alice, bob)
            await dialog.offer(alice, sdp(AUDIO), sdp(OTHER))
            async with asyncio.timeout(sipua.PATIENCE * 8):
                assert await came.get() == f"{dialog.call_id}\n".encode()
            assert (await record(server, dialog.call_id))["reason"] in ("silent", "hold-expired")
        doors = await asyncio.to_thread(server.ask, "doors")
        assert (doors["notices_told"], doors["notices_failed"]) == (1, 0)


async def _at_last(phone: Phone, method: str) -> Text:
    """A request that takes its time."""
    for _ in range(5):
        with contextlib.suppress(AssertionError):
            return await phone.receive(method)
    return await phone.receive(method)
