"""The edge over real sockets on loopback: calls between phones over every transport, behind NAT, across a restart."""

import asyncio
import logging
from pathlib import Path

import pytest

from mediaproxy import clock
from mediaproxy.control import ConfirmRequest, EndCause, EndRequest, MediaRequest
from mediaproxy.edge.location import Location
from mediaproxy.edge.service import Edge, EdgeError, secret_of
from mediaproxy.edge.settings import EdgeSettings, Limits, RouteRule
from mediaproxy.endpoint import Endpoint
from mediaproxy.events import CallEnded, CallReport, CallState, EndReason, PartyReport
from mediaproxy.sip.transaction import Timers
from tests.certificates import Authority
from tests.edgeserver import call, listener, running, settings
from tests.fakelink import RELAY, FakeLink
from tests.sipua import Phone, sdp

pytestmark = [pytest.mark.usefixtures("no_leaks")]

ALL = (listener(), listener("tcp"), listener("tls"))


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls"))


@pytest.mark.both_loops
async def test_a_call_from_register_to_bye() -> None:
    async with running() as server, Phone("alice", server.at()) as alice, Phone("bob", server.at()) as bob:
        await alice.register()
        await bob.register()
        got, ok, ack = await call(alice, bob)
        assert (await alice.receive(100)).method == "INVITE"
        assert got.start == f"INVITE {bob.contact} SIP/2.0"
        assert len(got.all("Via")) == 2
        assert f"c=IN IP4 {RELAY}" in got.body
        assert "m=audio 20000" in got.body
        assert f"c=IN IP4 {RELAY}" in ok.body
        assert len(ok.all("Via")) == 1
        assert ack.start == f"ACK {bob.contact} SIP/2.0"
        alice.within("BYE", ok)
        bob.answer(await bob.receive("BYE"), 200)
        await alice.receive(200, "BYE")
        asked = [type(question) for question in server.link.questions]
        assert asked == [MediaRequest, MediaRequest, ConfirmRequest, EndRequest]
        assert server.link.of(EndRequest)[0].cause is EndCause.BYE
        assert alice.unread() == bob.unread() == []


@pytest.mark.both_loops
@pytest.mark.parametrize("callee", ["udp", "tcp", "tls"])
@pytest.mark.parametrize("caller", ["udp", "tcp", "tls"])
async def test_every_pair_of_transports(caller: str, callee: str, authority: Authority) -> None:
    async with (
        running(settings(listeners=ALL, tls=authority.settings)) as server,
        Phone("alice", server.at(caller), caller, tls=authority.client() if caller == "tls" else None) as alice,
        Phone("bob", server.at(callee), callee, tls=authority.client() if callee == "tls" else None) as bob,
    ):
        await alice.register()
        await bob.register()
        got, ok, _ = await call(alice, bob)
        assert len(got.all("Record-Route")) == (1 if caller == callee else 2)
        assert f"SIP/2.0/{callee.upper()} " in got.get("Via")
        bob.within("INFO", got, cseq=5)
        alice.answer(await alice.receive("INFO"), 200)
        await bob.receive(200, "INFO")
        alice.within("INVITE", ok, body=sdp())
        bob.answer(await bob.receive("INVITE"), 200, sdp())
        again = await alice.receive(200, "INVITE")
        alice.within("ACK", ok, cseq=int(again.get("CSeq").split()[0]))
        await bob.receive("ACK")
        bob.within("BYE", got, cseq=6)
        alice.answer(await alice.receive("BYE"), 200)
        await bob.receive(200, "BYE")


@pytest.mark.parametrize("transport", ["udp", "tcp"])
async def test_phones_behind_nat(transport: str) -> None:
    """Phones that believe in private addresses, and never ask for rport."""
    async with (
        running(settings(listeners=ALL[:2])) as server,
        Phone("alice", server.at(transport), transport, says="192.168.1.10:5060") as alice,
        Phone("bob", server.at(transport), transport, says="192.168.1.10:5060") as bob,
    ):
        listed = await bob.register()
        assert f"<{bob.contact}>" in listed.get("Contact"), "as the phone wrote it"
        await alice.register()
        got, ok, ack = await call(alice, bob)
        mark = ";transport=tcp" if transport == "tcp" else ""
        assert got.start == f"INVITE sip:bob@{bob.source}{mark} SIP/2.0"
        assert got.contact.startswith(f"sip:alice@{alice.source}")
        assert ok.contact.startswith(f"sip:bob@{bob.source}")
        assert ack.start == f"ACK sip:bob@{bob.source}{mark} SIP/2.0"
        question = server.link.of(MediaRequest)[0]
        assert question.phone.endpoint == alice.source
        assert question.contact == alice.contact
        bob.within("BYE", got, cseq=9)
        alice.answer(await alice.receive("BYE"), 200)
        await bob.receive(200, "BYE")


async def test_two_sockets_each_phone_is_reached_from_its_own() -> None:
    wanted = (listener(), listener(address="127.0.0.2"))
    async with (
        running(settings(listeners=wanted)) as server,
        Phone("alice", server.at()) as alice,
        Phone("bob", server.at(address="127.0.0.2"), says="10.0.0.9:5060") as bob,
    ):
        await bob.register()
        got, ok, _ = await call(alice, bob)
        inside, outside = server.at(), server.at(address="127.0.0.2")
        assert [str(outside) in got.all("Record-Route")[0], str(inside) in got.all("Record-Route")[1]] == [True, True]
        assert str(outside) in got.get("Via")
        bob.within("BYE", got, cseq=9)
        bye = await alice.receive("BYE")
        assert str(inside) in bye.get("Via"), "the socket that alice's NAT knows"
        alice.answer(bye, 200)
        await bob.receive(200, "BYE")
        alice.within("INFO", ok)
        assert str(outside) in (await bob.receive("INFO")).get("Via")


async def test_fork_to_both_phones_of_a_user() -> None:
    async with (
        running() as server,
        Phone("alice", server.at()) as alice,
        Phone("bob", server.at()) as desk,
        Phone("bob", server.at()) as mobile,
    ):
        await desk.register()
        await mobile.register()
        alice.request("INVITE", desk.aor, body=sdp())
        at_desk, at_mobile = await desk.receive("INVITE"), await mobile.receive("INVITE")
        desk.answer(at_desk, 180, tag="d")
        mobile.answer(at_mobile, 180, tag="m")
        await alice.receive(180)
        await alice.receive(180)
        mobile.answer(at_mobile, 200, sdp(), tag="m")
        await alice.receive(200, "INVITE")
        desk.answer(await desk.receive("CANCEL"), 200)
        desk.answer(at_desk, 487, tag="d")
        await desk.receive("ACK")
        await server.link.wait_for(lambda: bool(server.link.of(EndRequest)))
        end = server.link.of(EndRequest)[0]
        assert (end.cause, end.branch) == (EndCause.BRANCH, at_desk.branch)
        assert alice.unread() == ["SIP/2.0 100 Trying"]


async def test_cancel() -> None:
    async with running() as server, Phone("alice", server.at()) as alice, Phone("bob", server.at()) as bob:
        await bob.register()
        invite = alice.request("INVITE", bob.aor, body=sdp(), branch="z9hG4bKcancel", call_id="c", cseq=7)
        got = await bob.receive("INVITE")
        bob.answer(got, 180)
        await alice.receive(180)
        alice.request("CANCEL", bob.aor, branch="z9hG4bKcancel", call_id="c", cseq=7)
        await alice.receive(200, "CANCEL")
        cancel = await bob.receive("CANCEL")
        assert cancel.branch == got.branch
        bob.answer(cancel, 200)
        bob.answer(got, 487)
        ended = await alice.receive(487, "INVITE")
        alice.request("ACK", bob.aor, to=ended.get("To"), branch="z9hG4bKcancel", call_id="c", cseq=7)
        await bob.receive("ACK")
        await server.link.wait_for(lambda: len(server.link.of(EndRequest)) == 2)
        assert [q.cause for q in server.link.of(EndRequest)] == [EndCause.CANCEL, EndCause.FAILURE]
        assert invite.get("Call-ID") == "c"


async def test_cancel_before_the_media_arm_has_answered() -> None:
    async with running() as server, Phone("alice", server.at()) as alice, Phone("bob", server.at()) as bob:
        await bob.register()
        server.link.gate = asyncio.Event()
        alice.request("INVITE", bob.aor, body=sdp(), branch="z9hG4bKearly", call_id="c", cseq=7)
        await alice.receive(100)
        alice.request("CANCEL", bob.aor, branch="z9hG4bKearly", call_id="c", cseq=7)
        await alice.receive(200, "CANCEL")
        await alice.receive(487, "INVITE")
        server.link.gate.set()
        alice.request("OPTIONS", bob.aor)
        assert (await bob.receive("OPTIONS")).method == "OPTIONS"
        assert bob.unread() == [], "no INVITE"


async def test_media_arm_that_does_not_answer() -> None:
    async with (
        running(settings(question_timeout=0.05)) as server,
        Phone("alice", server.at()) as alice,
        Phone("bob", server.at()) as bob,
    ):
        await bob.register()
        server.link.gate = asyncio.Event()
        alice.request("INVITE", bob.aor, body=sdp())
        refused = await alice.receive(503)
        assert "no answer within" in refused.get("Warning")
        server.link.gate.set()


@pytest.mark.parametrize("method", ["MESSAGE", "SUBSCRIBE", "OPTIONS", "PUBLISH", "INFO", "FOO"])
async def test_requests_outside_dialogs(method: str) -> None:
    async with running() as server, Phone("alice", server.at()) as alice, Phone("bob", server.at()) as bob:
        await bob.register()
        alice.request(method, bob.aor)
        bob.answer(await bob.receive(method), 202)
        await alice.receive(202, method)
        assert server.link.questions == []


async def test_phone_that_does_not_answer() -> None:
    quick = Timers(t1=0.01, t2=0.04, t4=0.05)
    async with (
        running(settings(timers=quick)) as server,
        Phone("alice", server.at()) as alice,
        Phone("bob", server.at()) as bob,
    ):
        await bob.register()
        alice.request("INVITE", bob.aor, body=sdp())
        assert (await alice.receive(408)).method == "INVITE"
        assert len([start for start in bob.unread() if start.startswith("INVITE")]) >= 6


# -- TCP phones (calls.md 18)


async def test_tcp_phone_that_hung_up_is_not_reachable_at_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "mediaproxy.edge")
    async with running(settings(listeners=ALL[:2])) as server, Phone("alice", server.at()) as alice:
        async with Phone("bob", server.at("tcp"), "tcp") as bob:
            await bob.register()
        async with asyncio.timeout(30):
            while any(binding.connection for binding in server.edge.registrations()):
                await asyncio.sleep(0)
        assert "sip:bob@example.com is unreachable: its connection from 127.0.0.1:" in caplog.text
        alice.request("INVITE", "sip:bob@example.com", body=sdp())
        assert (await alice.receive(480)).method == "INVITE"
        async with Phone("bob", server.at("tcp"), "tcp") as bob:
            await bob.register()
            await call(alice, bob)


async def test_response_over_a_connection_that_is_gone_goes_nowhere() -> None:
    async with running(settings(listeners=ALL[:2])) as server, Phone("bob", server.at()) as bob:
        await bob.register()
        async with Phone("alice", server.at("tcp"), "tcp", says="10.0.0.1:5060") as alice:
            alice.request("MESSAGE", bob.aor)
            got = await bob.receive("MESSAGE")
        bob.answer(got, 200)
        bob.request("OPTIONS", "sip:example.com")
        await bob.receive(200, "OPTIONS")


async def test_crlf_pings_are_answered() -> None:
    async with running(settings(listeners=ALL[:2])) as server, Phone("bob", server.at("tcp"), "tcp") as bob:
        bob.write(b"\r\n\r\n")
        assert await bob.receive_raw() == b"\r\n"


# -- keep-alives and restarts


@pytest.mark.parametrize(("transport", "ping"), [("udp", b"\0\0\0\0"), ("tcp", b"\r\n")])
async def test_natted_contacts_are_pinged(transport: str, ping: bytes) -> None:
    async with (
        running(settings(listeners=ALL[:2], natping_interval=0.05)) as server,
        Phone("bob", server.at(transport), transport, says="10.0.0.1:5060") as bob,
    ):
        await bob.register()
        assert [await bob.receive_raw() for _ in range(4)] == [ping] * 4


async def test_restart_forgets_no_udp_phone(tmp_path: Path) -> None:
    database = tmp_path / "location.db"
    async with running(database=database) as server, Phone("bob", server.at(), says="10.0.0.1:5060") as bob:
        same = settings(listeners=(listener(port=server.at().port),), natping_interval=0.05)
        await bob.register()
        async with Phone("alice", server.at()) as alice:
            got, ok, _ = await call(alice, bob)
            await server.edge.stop()
            server.edge.location.close()
            async with running(same, database) as restarted:
                assert restarted.at() == bob.edge
                assert await bob.receive_raw() == b"\0\0\0\0", "pinged again, from the same socket"
                alice.within("BYE", ok)
                bob.answer(await bob.receive("BYE"), 200)
                await alice.receive(200, "BYE")
                await call(alice, bob)


async def test_secret_is_made_once_and_kept_private(tmp_path: Path) -> None:
    path = tmp_path / "state" / "secret"
    secret = secret_of(path)
    assert len(secret) == 32
    assert secret_of(path) == secret
    assert path.stat().st_mode & 0o777 == 0o600


# -- routes


async def test_route_rule_to_a_gateway() -> None:
    async with Phone("gateway", Endpoint("127.0.0.1", 9)) as gateway:
        rule = RouteRule(to=f"sip:{gateway.source}", prefix="+")
        async with running(settings(routes=(rule,))) as server, Phone("alice", server.at()) as alice:
            gateway.edge = server.at()
            alice.request("INVITE", "sip:+4930123@example.com", body=sdp())
            got = await gateway.receive("INVITE")
            assert got.start == "INVITE sip:+4930123@example.com SIP/2.0"
            gateway.answer(got, 200, sdp())
            await alice.receive(200)


async def test_settings_may_change_while_it_runs() -> None:
    async with running() as server, Phone("alice", server.at()) as alice, Phone("gateway", server.at()) as gateway:
        alice.request("MESSAGE", "sip:+4930123@example.com")
        await alice.receive(480)
        server.edge.change(settings(routes=(RouteRule(to=f"sip:{gateway.source}"),)))
        alice.request("MESSAGE", "sip:+4930123@example.com")
        await gateway.receive("MESSAGE")


# -- starting


@pytest.mark.parametrize(
    ("what", "words"),
    [
        (EdgeSettings(listeners=(listener(address="198.51.100.1"),)), "configure accounts"),
        (EdgeSettings(listeners=(listener("tls"),)), "certificate"),
    ],
    ids=["public-without-accounts", "tls-without-certificate"],
)
async def test_refuses_to_start(what: EdgeSettings, words: str) -> None:
    location = Location.open(":memory:", clock.now())
    edge = Edge(what, FakeLink(), location)
    with pytest.raises(EdgeError, match=words):
        await edge.start()
    await edge.stop()
    location.close()


async def test_taken_port_is_said() -> None:
    async with running() as server:
        location = Location.open(":memory:", clock.now())
        edge = Edge(settings(listeners=(listener(port=server.at().port),)), FakeLink(), location)
        with pytest.raises(EdgeError, match=f"cannot listen on udp:{server.at()}"):
            await edge.start()
        location.close()


async def test_call_that_ended_by_itself_is_said(caplog: pytest.LogCaptureFixture) -> None:
    report = CallReport(
        call_id="c1",
        caller=PartyReport(),
        callee=PartyReport(),
        state=CallState.ENDED,
        started=1.0,
        reason=EndReason.SILENT,
    )
    async with running() as server:
        with caplog.at_level(logging.INFO, "mediaproxy.edge"):
            server.edge.call_ended(CallEnded(at=2.0, call_id="c1", report=report))
    assert "call c1: media ended (silent)" in caplog.text


async def test_expired_registration(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mediaproxy.edge.service.HOUSEKEEPING", 0.05)
    async with running() as server, Phone("bob", server.at()) as bob:
        await bob.register()
        (binding,) = server.edge.registrations()
        server.edge.location.expire(binding.expires + 1)
        bob.request("MESSAGE", bob.aor)
        await bob.receive(480)


async def test_limit_of_transactions() -> None:
    async with (
        running(settings(limits=Limits(transactions=1))) as server,
        Phone("alice", server.at()) as alice,
        Phone("bob", server.at()) as bob,
    ):
        await bob.register()
        alice.request("MESSAGE", bob.aor)
        assert (await alice.receive(503)).method == "MESSAGE", "the REGISTER's one is still there"


async def test_limit_of_registrations() -> None:
    async with (
        running(settings(limits=Limits(registrations=1))) as server,
        Phone("alice", server.at()) as alice,
        Phone("bob", server.at()) as bob,
    ):
        await bob.register()
        await bob.register()
        alice.request("REGISTER", "sip:example.com", to=f"<{alice.aor}>")
        await alice.receive(503)
        bob.request("REGISTER", "sip:example.com", to=f"<{bob.aor}>", headers=[("Expires", "0")])
        await bob.receive(200)
        await alice.register()


async def test_stun_on_the_sip_port() -> None:
    async with running() as server:
        reader: asyncio.Queue[bytes] = asyncio.Queue()

        class Stun(asyncio.DatagramProtocol):
            def datagram_received(self, data: bytes, addr: object) -> None:
                reader.put_nowait(data)

        where = server.at()
        transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
            Stun, remote_addr=(where.address, where.port)
        )
        transport.sendto(bytes.fromhex("000100002112a442") + b"transaction1")
        async with asyncio.timeout(30):
            assert (await reader.get())[:2] == b"\x01\x01"
        transport.close()
