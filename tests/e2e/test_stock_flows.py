"""Kamailio's own modules mediaproxy, rtpengine and rtpproxy in front of our relay: ways of a call that are rarer than
those of test_stock_modules.py. Each must leave the media where both phones were told, a record, and no port lent.
"""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.stock import BesideStock, Stock
from tests.e2e.conftest import need
from tests.e2e.stockcalls import (
    AUDIO,
    KAMAILIO,
    OTHER,
    PORT,
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
from tests.vsip import Text

FAX, OTHER_FAX = "image 4004 udptl t38", "image 6004 udptl t38"


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


def number(request: Text) -> int:
    return int(request.get("CSeq").split()[0])


def cancel(caller: Phone, callee: Phone, invite: Text) -> None:
    caller.request(
        "CANCEL",
        callee.contact,
        to=invite.get("To"),
        call_id=invite.get("Call-ID"),
        cseq=number(invite),
        branch=invite.branch,
        rport=True,
    )


async def places(server: BesideStock) -> tuple[int, int]:
    """Where the relay sends the voice to: the ports of the caller and of the callee."""
    standing = await call(server)
    (stream,) = [one for one in standing.streams if one.caller.sdp and one.callee.sdp]
    assert stream.caller.sdp and stream.callee.sdp
    return stream.caller.sdp.port, stream.callee.sdp.port


async def refused(dialog: Dialog, by: Phone, offer: str, status: int) -> None:
    """A re-INVITE that is refused."""
    other = dialog.callee if by is dialog.caller else dialog.caller
    sent = dialog.request(by, "INVITE", offer)
    other.answer(await other.receive("INVITE"), status)
    await by.receive(status, "INVITE")
    dialog.request(by, "ACK", cseq=number(sent))


async def test_glare(server: BesideStock) -> None:
    """Both offer at once, both refuse, one offers again (RFC 3261 14.1)."""
    async with phones("alice", "bob") as (alice, bob):
        dialog = await talk(server, alice, bob)
        first = told(dialog.arrived), told(dialog.answer)
        one = dialog.request(alice, "INVITE", sdp("audio 4100 RTP/AVP 0"))
        two = dialog.request(bob, "INVITE", sdp("audio 6100 RTP/AVP 0"))
        at_bob, at_alice = await bob.receive("INVITE"), await alice.receive("INVITE")
        assert (told(at_bob), told(at_alice)) == first
        bob.answer(at_bob, 491)
        alice.answer(at_alice, 491)
        await alice.receive(491)
        await bob.receive(491)
        dialog.request(alice, "ACK", cseq=number(one))
        dialog.request(bob, "ACK", cseq=number(two))
        await call(server, state="talking")
        again = await dialog.offer(bob, sdp("audio 6200 RTP/AVP 0"), sdp("audio 4200 RTP/AVP 0"))
        assert again == first[::-1]
        assert sorted(await places(server)) == [4200, 6200]
        assert (await dialog.bye(alice))["reason"] == "bye"


async def test_a_late_offer_within_a_call(server: BesideStock) -> None:
    async with phones("alice", "bob") as (alice, bob):
        dialog = await talk(server, alice, bob)
        first = told(dialog.arrived), told(dialog.answer)
        for by, other, wanted in ((alice, bob, first), (bob, alice, first[::-1])):
            sent = dialog.request(by, "INVITE")
            came = await other.receive("INVITE")
            other.answer(came, 200, sdp("audio 7000 RTP/AVP 0"))
            answered = await by.receive(200, "INVITE")
            assert told(answered) == wanted[1]
            dialog.request(by, "ACK", sdp("audio 5000 RTP/AVP 0"), cseq=number(sent))
            assert told(await other.receive("ACK")) == wanted[0]
            await call(server, state="talking")
            assert sorted(await places(server)) == [5000, 7000]
        assert (await dialog.bye(bob))["reason"] == "bye"


async def test_cancelled_after_early_media(server: BesideStock, stock: Stock) -> None:
    async with phones("alice", "bob") as (alice, bob):
        invite = alice.request("INVITE", bob.contact, body=sdp(AUDIO), rport=True)
        arrived = await bob.receive("INVITE")
        bob.answer(arrived, 183, sdp(OTHER))
        told(await alice.receive(183))
        cancel(alice, bob, invite)
        bob.answer(await bob.receive("CANCEL"), 200)
        bob.answer(arrived, 487)
        await alice.receive(487)
        one = await record(server, invite.get("Call-ID"))
        assert one["reason"] == ("cancel" if tells(stock, Fact.STATUS) else "bye")


@pytest.mark.parametrize("answers", ["bob", "carol"])
async def test_a_fork_with_early_media_of_one(server: BesideStock, stock: Stock, answers: str) -> None:
    """Carol sends a 183 with SDP; whoever answers is heard on what the caller was told last. Where the 183 may be the
    answer, the 200 of another one is a further leg."""
    async with phones("alice", "bob", "carol") as (alice, bob, carol):
        headers = [("X-Fork", carol.contact)]
        invite = alice.request("INVITE", bob.contact, body=sdp(AUDIO), headers=headers, rport=True)
        to_bob, to_carol = await bob.receive("INVITE"), await carol.receive("INVITE")
        carol.answer(to_carol, 183, sdp("audio 8000 RTP/AVP 0"), headers=[("User-Agent", "Carol's")])
        told(await alice.receive(183))
        who, came, other, left = (bob, to_bob, carol, to_carol)
        if answers == "carol":
            who, came, other, left = (carol, to_carol, bob, to_bob)
        bob.answer(to_bob, 180)
        await alice.receive(180)
        who.answer(came, 200, sdp("audio 9000 RTP/AVP 0"), headers=[("User-Agent", f"{who.user}'s")])
        answered = await alice.receive(200)
        other.answer(await other.receive("CANCEL"), 200)
        other.answer(left, 487)
        dialog = Dialog(server, alice, who, invite, came, answered)
        dialog.request(alice, "ACK", cseq=number(invite))
        await who.receive("ACK")
        standing = await call(server, state="talking")
        known = tells(stock, Fact.STATUS)
        assert standing.callee.tag == f"{answers if known else 'carol'}-tag"
        leg = "bob-tag" if answers == "bob" and not known else ""
        heard = [one for one in standing.streams if one.leg == leg and one.callee.sdp]
        assert [one.callee.sdp.port for one in heard if one.callee.sdp] == [9000]
        assert [one.caller.advertised.port for one in heard] == told(answered)
        back = await dialog.offer(who, sdp("audio 9000 RTP/AVP 0"), sdp(AUDIO))
        assert back[0] == told(answered)
        assert back[1] == told(came) or not known, "a further leg has ports of its own"
        await dialog.bye(alice)


async def test_a_bye_that_is_lost(stock: Stock, tmp_path: Path) -> None:
    place = KAMAILIO.with_port(PORT + 3_100 + list(Stock).index(stock))
    with running(stock, tmp_path, place, silence=2.0, hold=3.0) as server:
        async with phones("alice", "bob", place=place) as (alice, bob):
            dialog = await talk(server, alice, bob)
            assert (await record(server, dialog.call_id))["reason"] in ("silent", "hold-expired")


async def test_a_session_is_refreshed_by_update(server: BesideStock, stock: Stock) -> None:
    async with phones("alice", "bob") as (alice, bob):
        dialog = await talk(server, alice, bob)
        first = told(dialog.arrived), told(dialog.answer)
        for by, other, wanted in ((alice, bob, first), (bob, alice, first[::-1])):
            for own, theirs in (("audio 5000 RTP/AVP 0", "audio 7000 RTP/AVP 0"), (AUDIO, OTHER)):
                dialog.request(by, "UPDATE", sdp(own))
                came = await other.receive("UPDATE")
                assert told(came) == wanted[0]
                other.answer(came, 200, sdp(theirs))
                assert told(await by.receive(200, "UPDATE")) == wanted[1]
                await call(server, state="talking")
                ports = sorted(int(one.split()[1]) for one in (own, theirs))
                assert sorted(await places(server)) == ports
        assert (await dialog.bye(bob))["reason"] == "bye"


async def test_an_early_update(server: BesideStock) -> None:
    """An UPDATE of the caller before the answer: another port."""
    async with phones("alice", "bob") as (alice, bob):
        invite = alice.request("INVITE", bob.contact, body=sdp(AUDIO), rport=True)
        arrived = await bob.receive("INVITE")
        bob.answer(arrived, 183, sdp(OTHER), headers=[("Contact", f"<{bob.contact}>")])
        early = await alice.receive(183)
        dialog = Dialog(server, alice, bob, invite, arrived, early)
        dialog.request(alice, "UPDATE", sdp("audio 5000 RTP/AVP 0"))
        came = await bob.receive("UPDATE")
        assert told(came) == told(arrived)
        bob.answer(came, 200, sdp(OTHER))
        assert told(await alice.receive(200, "UPDATE")) == told(early)
        bob.answer(arrived, 200)
        await alice.receive(200, "INVITE")
        dialog.request(alice, "ACK", cseq=number(invite))
        await bob.receive("ACK")
        await call(server, state="talking")
        assert sorted(await places(server)) == [5000, 6000]
        assert (await dialog.bye(alice))["reason"] == "bye"


async def test_hold_in_both_ways_at_once(server: BesideStock) -> None:
    async with phones("alice", "bob") as (alice, bob):
        dialog = await talk(server, alice, bob)
        first = told(dialog.arrived), told(dialog.answer)
        sent = dialog.request(alice, "INVITE", sdp(AUDIO, address="0.0.0.0", attributes="a=sendonly\r\n"))
        came = await bob.receive("INVITE")
        assert "c=IN IP4 0.0.0.0" in came.body
        bob.answer(came, 200, sdp(OTHER, attributes="a=recvonly\r\n"))
        assert told(await alice.receive(200, "INVITE")) == first[1]
        dialog.request(alice, "ACK", cseq=number(sent))
        await bob.receive("ACK")
        assert await dialog.offer(alice, sdp(AUDIO), sdp(OTHER)) == first
        await call(server, state="talking")
        await dialog.bye(bob)


async def test_a_fax_that_is_refused(server: BesideStock) -> None:
    """T.38 in place of the voice, 488, and the voice again."""
    async with phones("alice", "bob") as (alice, bob):
        dialog = await talk(server, alice, bob)
        first = told(dialog.arrived), told(dialog.answer)
        await refused(dialog, bob, sdp(OTHER_FAX), 488)
        await call(server, state="talking")
        assert await dialog.offer(bob, sdp(OTHER), sdp(AUDIO)) == first[::-1]
        assert sorted(await places(server)) == [4000, 6000]
        assert (await dialog.bye(alice))["reason"] == "bye"


async def test_a_fax_and_back(server: BesideStock) -> None:
    async with phones("alice", "bob") as (alice, bob):
        dialog = await talk(server, alice, bob)
        first = told(dialog.arrived), told(dialog.answer)
        await dialog.offer(bob, sdp(OTHER_FAX), sdp(FAX))
        await call(server, state="talking")
        assert await dialog.offer(alice, sdp(AUDIO), sdp(OTHER)) == first
        assert sorted(await places(server)) == [4000, 6000]
        await dialog.bye(alice)


async def test_an_attempt_with_credentials(server: BesideStock) -> None:
    """407, and the INVITE comes again with the same Call-ID."""
    async with phones("alice", "bob") as (alice, bob):
        invite = alice.request("INVITE", bob.contact, body=sdp(AUDIO), rport=True)
        bob.answer(await bob.receive("INVITE"), 407)
        await alice.receive(407)
        second = alice.request(
            "INVITE", bob.contact, call_id=invite.get("Call-ID"), cseq=number(invite) + 1, body=sdp(AUDIO), rport=True
        )
        arrived = await bob.receive("INVITE")
        bob.answer(arrived, 200, sdp(OTHER))
        answered = await alice.receive(200)
        dialog = Dialog(server, alice, bob, second, arrived, answered)
        dialog.cseqs["caller"] = number(second)
        dialog.request(alice, "ACK", cseq=number(second))
        await bob.receive("ACK")
        await call(server, state="talking")
        told(arrived)
        told(answered)
        await dialog.bye(alice)


async def test_everything_comes_twice(server: BesideStock) -> None:
    async with phones("alice", "bob") as (alice, bob):
        invite = alice.request("INVITE", bob.contact, body=sdp(AUDIO), rport=True)
        alice.again(invite)
        arrived = await bob.receive("INVITE")
        bob.answer(arrived, 183, sdp(OTHER))
        bob.answer(arrived, 183, sdp(OTHER))
        early = told(await alice.receive(183))
        assert told(await alice.receive(183)) == early
        bob.answer(arrived, 200, sdp(OTHER))
        answered = await alice.receive(200)
        bob.answer(arrived, 200, sdp(OTHER))
        assert told(answered) == told(await alice.receive(200)) == early
        dialog = Dialog(server, alice, bob, invite, arrived, answered)
        dialog.request(alice, "ACK", cseq=number(invite))
        await bob.receive("ACK")
        assert (await dialog.bye(alice))["reason"] == "bye"


async def test_a_cancel_that_crosses_the_answer(server: BesideStock) -> None:
    async with phones("alice", "bob") as (alice, bob):
        invite = alice.request("INVITE", bob.contact, body=sdp(AUDIO), rport=True)
        arrived = await bob.receive("INVITE")
        bob.answer(arrived, 180)
        await alice.receive(180)
        cancel(alice, bob, invite)
        bob.answer(arrived, 200, sdp(OTHER))
        bob.answer(await bob.receive("CANCEL"), 200)
        answered = await alice.receive(200, "INVITE")
        ports = told(answered)
        dialog = Dialog(server, alice, bob, invite, arrived, answered)
        dialog.request(alice, "ACK", cseq=number(invite))
        await bob.receive("ACK")
        await asyncio.sleep(1.5)  # longer than linger: the call stands
        standing = await call(server, state="talking")
        assert [one.caller.advertised.port for one in standing.streams] == ports
        await dialog.bye(alice)


async def test_video_from_the_dead(server: BesideStock) -> None:
    """Refused, then offered by the other one, switched off, and on again."""
    async with phones("alice", "bob") as (alice, bob):
        dialog = await talk(server, alice, bob, sdp(AUDIO, VIDEO), sdp(OTHER, "video 0 RTP/AVP 96"))
        facing_bob = told(dialog.arrived)
        facing_alice = told(dialog.answer, 1)
        both = sdp(OTHER, "video 6002 RTP/AVP 96"), sdp(AUDIO, VIDEO)
        one = await dialog.offer(bob, *both)
        assert (one[0][0], one[1][0]) == (facing_alice[0], facing_bob[0])
        off = sdp(AUDIO, "video 0 RTP/AVP 96"), sdp(OTHER, "video 0 RTP/AVP 96")
        await dialog.offer(alice, *off, dead=(1,))
        two = await dialog.offer(bob, *both)
        assert (two[0][0], two[1][0]) == (facing_alice[0], facing_bob[0])
        assert await dialog.offer(bob, *both) == two
        await dialog.bye(bob)
