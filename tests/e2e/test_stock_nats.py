"""Bare phones behind symmetric NATs, a Kamailio with nothing but its own modules, and our relay behind it: what real
phones are hard to move to (test_stock_phones.py has the rest), with media that is heard in both homes."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from lab.capture import Datagram, read
from lab.homes import SERVER, NatKind
from lab.hosts import Host
from lab.site import Site
from lab.stock import BesideStock, Stock
from tests.e2e.conftest import need
from tests.e2e.natphones import ENOUGH, HomePhone, Side, at_home, hear_each_other, hear_reports
from tests.e2e.stockcalls import Dialog, Fact, call, sdp, talk, tells, told
from tests.vsip import Text

HOSTS = {
    Stock.USE: Host.MEDIAPROXY_USE,
    Stock.ENGAGE: Host.MEDIAPROXY_ENGAGE,
    Stock.RTPENGINE: Host.RTPENGINE,
    Stock.RTPPROXY: Host.RTPPROXY,
}
Pair = tuple[HomePhone, HomePhone]


@pytest.fixture(scope="module", params=list(HOSTS))
def stock(request: pytest.FixtureRequest) -> Stock:
    chosen: Stock = request.param
    return chosen


@pytest.fixture(scope="module")
def site(stock: Stock, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    need("kamailio", "unshare")
    with Site((NatKind.SYMMETRIC,) * 2, tmp_path_factory.mktemp(stock), host=HOSTS[stock]) as one:
        one.start_server({"relay": {"linger": 0.5}})
        yield one
        assert one.server is not None
        assert one.server.alive, one.server.log
        assert " 500 " not in one.server.log and "Traceback" not in one.server.log


@pytest.fixture
def server(site: Site) -> BesideStock:
    assert isinstance(site.server, BesideStock)
    return site.server


@pytest.fixture
async def pair(site: Site) -> AsyncIterator[Pair]:
    homes = site.internet.homes
    async with at_home(alice=homes["a"], bob=homes["b"]) as (alice, bob):
        yield alice, bob


AUDIO, VIDEO, FAX, ELSEWHERE = 0, 2, 4, 10
"From the first port of a phone to that of a stream; ELSEWHERE: an audio stream that has moved."
_LINES = {
    AUDIO: "audio {} RTP/AVP 0",
    VIDEO: "video {} RTP/AVP 96",
    FAX: "image {} udptl t38",
    ELSEWHERE: "audio {} RTP/AVP 0",
}
_SHOWN = {"audio": ("audio", "RTP/AVP"), "image": ("image", "udptl")}
"How a stream is reported: its kind and transport."


def ports(phone: HomePhone, *streams: int) -> list[int]:
    """Where a phone has these streams."""
    first = 4000 if phone.user.startswith("alice") else 6000
    return [first + stream for stream in streams]


def says(phone: HomePhone, *streams: int, dead: Sequence[str] = ()) -> str:
    """A phone's SDP. ``dead``: lines behind these."""
    lines = [_LINES[stream].format(port) for stream, port in zip(streams, ports(phone, *streams), strict=True)]
    return sdp(*lines, *dead, address=phone.home.address)


def told_by(text: Text) -> list[int]:
    return told(text, relay=SERVER)


async def talking(server: BesideStock, pair: Pair) -> tuple[Dialog, Side, Side]:
    """A call with audio, heard; the call and both sides of it."""
    alice, bob = pair
    dialog = await talk(server, alice, bob, says(alice, AUDIO), says(bob, AUDIO), uri=bob.aor, relay=SERVER)
    at_alice = Side(alice, ports(alice, AUDIO), told_by(dialog.answer))
    at_bob = Side(bob, ports(bob, AUDIO), told_by(dialog.arrived))
    await hear_each_other(at_alice, at_bob)
    (stream,) = (await call(server, state="talking")).streams
    for phone, seen in ((alice, stream.caller.learned), (bob, stream.callee.learned)):
        assert seen is not None and seen.address == phone.home.wan != phone.home.address
    return dialog, at_alice, at_bob


def counted(one: Any, *kinds: str) -> None:
    """A record tells how the call ended, and of what was heard in each stream."""
    assert one["reason"] == "bye" and one["duration"] > 0
    assert len(one["streams"]) == len(kinds)
    for stream, kind in zip(one["streams"], kinds, strict=True):
        assert stream["kind"] == kind, [one["kind"] for one in one["streams"]]
        for side in ("caller", "callee"):
            assert stream[side]["packets"] >= ENOUGH and stream[side]["bytes"] > 0


async def test_video_is_added_and_dropped(server: BesideStock, stock: Stock, pair: Pair) -> None:
    alice, bob = pair
    dialog, *_ = await talking(server, pair)
    both = AUDIO, VIDEO
    facing_bob, facing_alice = await dialog.offer(alice, says(alice, *both), says(bob, *both))
    sides = Side(alice, ports(alice, *both), facing_alice), Side(bob, ports(bob, *both), facing_bob)
    await hear_each_other(*sides, "audio", "video")
    dead = ("video 0 RTP/AVP 96",)
    offer, answer = says(bob, AUDIO, dead=dead), says(alice, AUDIO, dead=dead)
    facing_alice, facing_bob = await dialog.offer(bob, offer, answer, dead=(1,))
    await hear_each_other(Side(alice, ports(alice, AUDIO), facing_alice), Side(bob, ports(bob, AUDIO), facing_bob))
    counted(await dialog.bye(bob), "audio", "video" if tells(stock, Fact.SDP) else "media")


async def test_the_record_says_what_passed(
    site: Site, server: BesideStock, stock: Stock, pair: Pair, tmp_path: Path
) -> None:
    """Exactly: each packet and byte of each party and stream that a capture on the server's network has."""
    alice, bob = pair
    with site.capture(tmp_path / "call.pcap"):
        dialog, at_alice, at_bob = await talking(server, pair)
        await hear_reports(at_alice, at_bob)
        both = AUDIO, VIDEO
        facing_bob, facing_alice = await dialog.offer(alice, says(alice, *both), says(bob, *both))
        at_alice, at_bob = Side(alice, ports(alice, *both), facing_alice), Side(bob, ports(bob, *both), facing_bob)
        await hear_each_other(at_alice, at_bob, "audio", "video")
        await hear_reports(at_alice, at_bob)
        await all_has_come(server)
        one = await dialog.bye(bob)
    counted(one, "audio", "video" if tells(stock, Fact.SDP) else "media")
    exact(one, list(read(tmp_path / "call.pcap")), {"caller": alice.home.wan, "callee": bob.home.wan})


async def all_has_come(server: BesideStock) -> None:
    """Nothing is under way any more: for a fifth of a second, the call's counters have not changed."""
    before, now = None, await call(server)
    while now != before:
        await asyncio.sleep(0.2)
        before, now = now, await call(server)


def exact(record: Any, datagrams: Sequence[Datagram], wans: Mapping[str, str]) -> None:
    """``wans``: of each side (caller, callee) the public address of its home."""
    for stream in record["streams"]:
        for side, wan in wans.items():
            end = stream[side]
            port = end["advertised"]["port"]
            came, reports = (
                [len(d.payload) for d in datagrams if d.source[0] == wan and d.target == (SERVER, at)]
                for at in (port, port + 1)
            )
            went = [d for d in datagrams if d.source == (SERVER, port) and d.target[0] == wan]
            assert (end["packets"], end["bytes"]) == (len(came), sum(came)), (side, stream["kind"])
            assert (end["rtcp_packets"], end["rtcp_bytes"]) == (len(reports), sum(reports)), (side, stream["kind"])
            assert end["sent"] == len(went), (side, stream["kind"])
            assert end["refused_packets"] == end["lost"] == 0
    assert all(record["streams"][0][side]["rtcp_packets"] for side in wans)


@pytest.mark.parametrize("who", ["caller", "callee"])
async def test_a_fax(server: BesideStock, stock: Stock, pair: Pair, who: str) -> None:
    """Both move to T.38 at another port, and back to audio."""
    alice, bob = pair
    dialog, *_ = await talking(server, pair)
    by, other = (alice, bob) if who == "caller" else (bob, alice)
    for stream, kind in ((FAX, "image"), (AUDIO, "audio")):
        facing_other, facing_by = await dialog.offer(by, says(by, stream), says(other, stream))
        await hear_each_other(
            Side(by, ports(by, stream), facing_by), Side(other, ports(other, stream), facing_other), kind
        )
        known = kind == "audio" or tells(stock, Fact.SDP)
        (said,) = (await call(server, state="talking")).streams
        assert (said.kind, said.transport) == (_SHOWN[kind] if known else ("media", "udp"))
    counted(await dialog.bye(other), "audio")


@pytest.mark.parametrize("who", ["caller", "callee"])
async def test_a_refused_offer(server: BesideStock, stock: Stock, pair: Pair, who: str) -> None:
    """They go on as before, and may agree on the same afterwards."""
    alice, bob = pair
    dialog, at_alice, at_bob = await talking(server, pair)
    by, other = (alice, bob) if who == "caller" else (bob, alice)
    sent = dialog.request(by, "INVITE", says(by, ELSEWHERE, VIDEO))
    came = await other.receive("INVITE")
    other.answer(came, 488)
    await by.receive(488, "INVITE")
    dialog.request(by, "ACK", cseq=int(sent.get("CSeq").split()[0]))
    await hear_each_other(at_alice, at_bob)
    facing_other, facing_by = await dialog.offer(by, says(by, ELSEWHERE, VIDEO), says(other, AUDIO, VIDEO))
    await hear_each_other(
        Side(by, ports(by, ELSEWHERE, VIDEO), facing_by),
        Side(other, ports(other, AUDIO, VIDEO), facing_other),
        "audio",
        "video",
    )
    counted(await dialog.bye(by), "audio", "video" if tells(stock, Fact.SDP) else "media")


async def test_early_media_both_ways(server: BesideStock, stock: Stock, pair: Pair) -> None:
    alice, bob = pair
    invite = alice.request("INVITE", bob.aor, body=says(alice, AUDIO), rport=True)
    arrived = await bob.receive("INVITE")
    bob.answer(arrived, 183, says(bob, AUDIO))
    early = told_by(await alice.receive(183))
    sides = Side(alice, ports(alice, AUDIO), early), Side(bob, ports(bob, AUDIO), told_by(arrived))
    await hear_each_other(*sides)
    await call(server, state="ringing" if tells(stock, Fact.STATUS) else "talking")
    bob.answer(arrived, 200, says(bob, AUDIO))
    answered = await alice.receive(200)
    assert told_by(answered) == early
    dialog = Dialog(server, alice, bob, invite, arrived, answered, SERVER)
    dialog.request(alice, "ACK", cseq=1)
    await bob.receive("ACK")
    await hear_each_other(*sides)
    counted(await dialog.bye(alice), "audio")


async def test_a_late_offer(server: BesideStock, pair: Pair) -> None:
    alice, bob = pair
    invite = alice.request("INVITE", bob.aor, rport=True)
    arrived = await bob.receive("INVITE")
    bob.answer(arrived, 200, says(bob, AUDIO))
    answered = await alice.receive(200)
    dialog = Dialog(server, alice, bob, invite, arrived, answered, SERVER)
    dialog.request(alice, "ACK", says(alice, AUDIO), cseq=int(invite.get("CSeq").split()[0]))
    acknowledged = await bob.receive("ACK")
    sides = (
        Side(alice, ports(alice, AUDIO), told_by(answered)),
        Side(bob, ports(bob, AUDIO), told_by(acknowledged)),
    )
    await hear_each_other(*sides)
    counted(await dialog.bye(bob), "audio")
