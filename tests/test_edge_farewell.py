"""Hanging up for both phones over real sockets: every transport, phones behind NAT, phones that are gone."""

import asyncio
import logging
from pathlib import Path

import pytest

from mediaproxy.edge.farewell import Farewell
from mediaproxy.events import CallEnded, CallReport, CallState, EndReason, PartyReport
from mediaproxy.sip.transaction import Timers
from tests.certificates import Authority
from tests.edgeserver import Server, call, listener, running, settings
from tests.sipua import Phone, sdp
from tests.vsip import Text, parameter

pytestmark = [pytest.mark.usefixtures("no_leaks")]

ALL = (listener(), listener("tcp"), listener("tls"))
BOTH = Farewell(told=("sip:alice@example.com", "sip:bob@example.com"))


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls"))


def end(server: Server, message: Text, reason: EndReason = EndReason.SILENT) -> Farewell:
    """The media arm ends the call of a message."""
    caller = PartyReport(tag=parameter(message.get("From"), "tag"))
    report = CallReport(
        call_id=message.get("Call-ID"),
        caller=caller,
        callee=PartyReport(),
        state=CallState.ENDED,
        started=1.0,
        reason=reason,
    )
    return server.edge.call_ended(CallEnded(at=2.0, call_id=report.call_id, report=report))


async def hang_up(alice: Phone, bob: Phone, got: Text, ok: Text) -> None:
    """Both get their BYE and answer it: a phone that did not know the dialog would not."""
    for phone, sender, receiver in ((alice, ok.get("To"), ok.get("From")), (bob, got.get("From"), ok.get("To"))):
        bye = await phone.receive("BYE")
        assert (bye.get("From"), bye.get("To"), bye.get("Call-ID")) == (sender, receiver, ok.get("Call-ID"))
        assert bye.get("Reason").startswith("Q.850;cause=")
        assert len(bye.all("Via")) == 1
        assert bye.all("Route") == []
        phone.answer(bye, 200)


async def still_served(phone: Phone) -> None:
    """What came before is done: the server answers the next request."""
    phone.request("OPTIONS", "sip:example.com")
    await phone.receive(200, "OPTIONS")


@pytest.mark.both_loops
@pytest.mark.parametrize(("caller", "callee"), [("udp", "udp"), ("udp", "tcp"), ("tls", "udp"), ("tcp", "tls")])
async def test_both_phones_hang_up(caller: str, callee: str, authority: Authority) -> None:
    async with (
        running(settings(listeners=ALL, tls=authority.settings)) as server,
        Phone("alice", server.at(caller), caller, tls=authority.client() if caller == "tls" else None) as alice,
        Phone("bob", server.at(callee), callee, tls=authority.client() if callee == "tls" else None) as bob,
    ):
        await alice.register()
        await bob.register()
        got, ok, _ = await call(alice, bob)
        asked = len(server.link.questions)
        assert end(server, ok) == BOTH
        await hang_up(alice, bob, got, ok)
        await still_served(alice)
        await still_served(bob)
        assert bob.unread() == []
        assert "BYE" not in " ".join(alice.unread())
        assert len(server.link.questions) == asked, "the media arm knows"


@pytest.mark.parametrize("transport", ["udp", "tcp"])
async def test_phones_behind_nat_hang_up(transport: str) -> None:
    async with (
        running(settings(listeners=ALL[:2])) as server,
        Phone("alice", server.at(transport), transport, says="192.168.1.10:5060") as alice,
        Phone("bob", server.at(transport), transport, says="192.168.1.10:5060") as bob,
    ):
        await alice.register()
        await bob.register()
        got, ok, _ = await call(alice, bob)
        assert end(server, ok) == BOTH
        await hang_up(alice, bob, got, ok)


async def test_each_phone_is_told_out_of_its_own_socket() -> None:
    wanted = (listener(), listener(address="127.0.0.2"))
    async with (
        running(settings(listeners=wanted)) as server,
        Phone("alice", server.at()) as alice,
        Phone("bob", server.at(address="127.0.0.2"), says="10.0.0.9:5060") as bob,
    ):
        await bob.register()
        _, ok, _ = await call(alice, bob)
        end(server, ok)
        assert str(server.at()) in (await alice.receive("BYE")).get("Via")
        assert str(server.at(address="127.0.0.2")) in (await bob.receive("BYE")).get("Via")


async def test_tcp_phone_that_is_gone_is_said_in_one_line(caplog: pytest.LogCaptureFixture) -> None:
    async with running(settings(listeners=ALL[:2])) as server, Phone("alice", server.at()) as alice:
        async with Phone("bob", server.at("tcp"), "tcp", says="10.0.0.9:5060") as bob:
            await bob.register()
            _, ok, _ = await call(alice, bob)
        async with asyncio.timeout(30):
            while any(binding.connection for binding in server.edge.registrations()):
                await asyncio.sleep(0)
        with caplog.at_level(logging.INFO, "mediaproxy.edge"):
            done = end(server, ok)
        assert done == Farewell(told=BOTH.told[:1], unreachable=BOTH.told[1:])
        lines = [record.message for record in caplog.records if ok.get("Call-ID") in record.message]
        assert (
            len([line for line in lines if line.endswith("bob@example.com was to hang up, but cannot be reached")]) == 1
        )
        alice.answer(await alice.receive("BYE"), 200)


async def test_silent_phone_is_told_again_and_given_up(caplog: pytest.LogCaptureFixture) -> None:
    quick = Timers(t1=0.01, t2=0.04, t4=0.05)
    async with (
        running(settings(timers=quick)) as server,
        Phone("alice", server.at()) as alice,
        Phone("bob", server.at()) as bob,
    ):
        await bob.register()
        _, ok, _ = await call(alice, bob)
        with caplog.at_level(logging.INFO, "mediaproxy.edge"):
            end(server, ok)
            alice.answer(await alice.receive("BYE"), 481)
            async with asyncio.timeout(30):
                while "bob@example.com was to hang up, but does not answer" not in caplog.text:
                    await asyncio.sleep(0.01)
        assert len([start for start in bob.unread() if start.startswith("BYE")]) >= 6
        assert "alice@example.com was to hang up" not in caplog.text


async def test_our_bye_crosses_a_phones_own() -> None:
    async with running() as server, Phone("alice", server.at()) as alice, Phone("bob", server.at()) as bob:
        await bob.register()
        got, ok, _ = await call(alice, bob)
        end(server, ok, EndReason.ADMIN)
        alice.within("BYE", ok)
        await hang_up(alice, bob, got, ok)
        bob.answer(await bob.receive("BYE"), 481)
        await alice.receive(481, "BYE")


async def test_a_call_that_rings_is_cancelled() -> None:
    async with running() as server, Phone("alice", server.at()) as alice, Phone("bob", server.at()) as bob:
        await bob.register()
        alice.request("INVITE", bob.aor, body=sdp(), call_id="c", cseq=7, branch="z9hG4bKrings")
        got = await bob.receive("INVITE")
        bob.answer(got, 180)
        await alice.receive(180)
        assert end(server, got, EndReason.ADMIN) == Farewell(cancelled=(alice.aor,))
        cancel = await bob.receive("CANCEL")
        bob.answer(cancel, 200)
        bob.answer(got, 487)
        await bob.receive("ACK")
        refused = await alice.receive(480, "INVITE")
        alice.request("ACK", bob.aor, to=refused.get("To"), branch="z9hG4bKrings", call_id="c", cseq=7)
        await still_served(alice)


async def test_restarted_server_says_that_it_cannot(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    database = tmp_path / "location.db"
    async with (
        running(database=database) as server,
        Phone("alice", server.at()) as alice,
        Phone("bob", server.at()) as bob,
    ):
        await bob.register()
        _, ok, _ = await call(alice, bob)
        same = settings(listeners=(listener(port=server.at().port),))
        await server.edge.stop()
        assert end(server, ok) == Farewell(), "a server that ends does nothing any more"
        server.edge.location.close()
        async with running(same, database) as restarted:
            with caplog.at_level(logging.INFO, "mediaproxy.edge"):
                assert end(restarted, ok) == Farewell()
            await still_served(bob)
            assert "BYE" not in " ".join(bob.unread())
    assert "media ended (silent); the phones are not known and have not hung up" in caplog.text


@pytest.mark.parametrize("reason", [EndReason.BYE, EndReason.CANCEL, EndReason.FAILURE, EndReason.SHUTDOWN])
async def test_nothing_is_sent_or_said_when_the_phones_know(
    reason: EndReason, caplog: pytest.LogCaptureFixture
) -> None:
    async with running() as server, Phone("alice", server.at()) as alice, Phone("bob", server.at()) as bob:
        await bob.register()
        _, ok, _ = await call(alice, bob)
        with caplog.at_level(logging.INFO, "mediaproxy.edge"):
            assert end(server, ok, reason) == Farewell()
        assert caplog.text == ""
        await still_served(alice)
        await still_served(bob)
        assert "BYE" not in " ".join(alice.unread() + bob.unread())
