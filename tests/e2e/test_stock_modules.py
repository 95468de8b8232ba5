"""Kamailio's own modules mediaproxy, rtpengine and rtpproxy in front of our relay, two ways of using each: what they
make of our answers.

The phones are bare sockets on loopback that tell private addresses. Behind NATs: test_stock_nats.py; real phones:
test_stock_phones.py.
"""

import asyncio
import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lab.stock import BesideStock, Stock
from tests import sipua
from tests.e2e.conftest import need
from tests.e2e.stockcalls import (
    AUDIO,
    KAMAILIO,
    NO_VIDEO,
    OTHER,
    PORT,
    RELAY,
    VIDEO,
    Dialog,
    Fact,
    call,
    phones,
    record,
    running,
    sdp,
    talk,
    tells,
    told,
)
from tests.sipua import Phone
from tests.vsip import Text, read_sdp


@pytest.fixture(scope="module", autouse=True)
def programs() -> None:
    """What these tests need beside the laboratory."""
    need("kamailio", "unshare")


@pytest.fixture(scope="module", params=list(Stock))
def stock(request: pytest.FixtureRequest) -> Stock:
    chosen: Stock = request.param
    return chosen


@pytest.fixture(scope="module")
def server(stock: Stock, tmp_path_factory: pytest.TempPathFactory) -> Iterator[BesideStock]:
    with running(stock, tmp_path_factory.mktemp(stock), linger=1.0) as one:
        yield one


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
        assert told(acknowledged) != facing_alice
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
        doors = await asyncio.to_thread(server.wait, "the notice", "doors", until=_has_told)
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
        doors = await asyncio.to_thread(server.wait, "the notice", "doors", until=_has_told)
        assert (doors["notices_told"], doors["notices_failed"]) == (1, 0)


def _has_told(doors: Any) -> bool:
    return bool(doors["notices_told"] or doors["notices_failed"])


async def _at_last(phone: Phone, method: str) -> Text:
    """A request that takes its time."""
    for _ in range(5):
        with contextlib.suppress(AssertionError):
            return await phone.receive(method)
    return await phone.receive(method)
