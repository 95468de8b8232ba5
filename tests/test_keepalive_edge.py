"""Keep-alives of a running edge over real sockets: what phones get, what becomes of their answers, and of silence."""

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from mediaproxy import clock
from mediaproxy.edge.binding import Binding
from mediaproxy.edge.location import Location
from mediaproxy.edge.settings import EdgeSettings
from mediaproxy.endpoint import Endpoint
from tests.edgeserver import Server, listener, running, settings
from tests.sipua import PATIENCE, Phone

pytestmark = [pytest.mark.usefixtures("no_leaks")]

INTERVAL = 0.2
BY_SIP: dict[str, object] = {"natping_interval": INTERVAL, "sip_natping_flag": 6, "sipping_remove_flag": 6}
"Every phone behind NAT is pinged so: it has flag 6."


def free_port() -> int:
    """One that nobody has now: of a server that is to be the same after a restart."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
    return port


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something that must come."""
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0.01)


def contact(phone: Phone, server: Endpoint, **more: object) -> Binding:
    """The registration of a phone behind NAT that is pinged by SIP requests."""
    fields: dict[str, object] = {
        "aor": phone.aor,
        "contact": phone.contact,
        "sent": f"<{phone.contact}>",
        "received": phone.source,
        "transport": phone.transport,
        "local": server,
        "expires": clock.now() + 600,
        "call_id": "r",
        "cseq": 1,
        "nat": True,
        "sip_ping": True,
        "remove_lost": True,
    }
    return Binding(**{**fields, **more})  # type: ignore[arg-type]  # a test may set any field


@asynccontextmanager
async def restarted(at: Endpoint, what: EdgeSettings, database: Path, *bindings: Binding) -> AsyncIterator[Server]:
    """An edge that finds these registrations when it starts."""
    location = Location.open(database, clock.now())
    location.apply(bindings, ())
    location.close()
    async with running(what, database) as server:
        assert server.at() == at
        yield server


async def test_a_phone_behind_nat_gets_four_zero_bytes() -> None:
    async with (
        running(settings(natping_interval=INTERVAL)) as server,
        Phone("alice", server.at(), says="192.168.1.10:5060") as alice,
        Phone("bob", server.at()) as bob,
    ):
        await alice.register()
        await bob.register()
        for _ in range(3):
            assert await alice.receive_raw() == b"\0\0\0\0"
        assert bob.raw == [], "there is no NAT between"
        assert alice.unread() == []


async def test_pings_by_sip_are_answered_and_nobody_hears_of_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "mediaproxy")
    at = Endpoint("127.0.0.1", free_port())
    what = settings(natping_interval=INTERVAL, listeners=(listener(port=at.port),))
    async with Phone("alice", at) as alice, Phone("bob", at) as bob:
        both = (contact(alice, at), contact(bob, at, contact="sip:bob@10.0.0.5:5062;line=7"))
        async with restarted(at, what, tmp_path / "location", *both) as server:
            quiet = len(caplog.records)
            calls: set[str] = set()
            for turn in range(6):
                ping = await alice.receive("OPTIONS")
                assert ping.start == f"OPTIONS {alice.contact} SIP/2.0"
                assert (ping.get("From").partition(";")[0], ping.get("To")) == (
                    "<sip:ping@example.com>",
                    f"<{alice.contact}>",
                )
                assert ping.get("Via").startswith(f"SIP/2.0/UDP {at};branch=z9hG4bK")
                calls.add(ping.get("Call-ID"))
                alice.answer(ping, 200 if turn % 2 else 404)
                his = await bob.receive("OPTIONS")
                assert his.start == "OPTIONS sip:bob@10.0.0.5:5062;line=7 SIP/2.0"
                bob.answer(his, 486)
            assert len(calls) == 6
            assert alice.raw == bob.raw == []
            assert [binding.aor for binding in server.edge.registrations()] == [alice.aor, bob.aor]
            pinged = [server.edge.pinged(binding) for binding in server.edge.registrations()]
            assert all(one is not None and one.answered is not None and one.lost <= 1 for one in pinged)
            assert alice.unread() == bob.unread() == []
            assert [record.message for record in caplog.records[quiet:]] == []


SCRIPT = """
def request_route(msg):
    if msg.method == "REGISTER":
        if msg.from_uri.startswith(("sip:alice@", "sip:bob@")):
            setflag(6)  # nat
        if msg.from_uri.startswith(("sip:alice@", "sip:carol@")):
            setflag(2)  # sip_ping
            setflag(3)
        if not save("location"):
            sl_reply_error()
"""
"As the documentation's example, but not for everybody the same."


async def test_the_script_chooses_for_each_registration(tmp_path: Path) -> None:
    script = tmp_path / "routing.py"
    script.write_text(SCRIPT)
    async with (
        running(settings(natping_interval=INTERVAL, script=str(script))) as server,
        Phone("alice", server.at()) as alice,
        Phone("bob", server.at()) as bob,
        Phone("carol", server.at()) as carol,
        Phone("dave", server.at()) as dave,
    ):
        for phone in (alice, bob, carol, dave):
            await phone.register()
        for _ in range(5):
            alice.answer(await alice.receive("OPTIONS"), 200)
            await bob.receive_raw()
        assert carol.unread() == [f"OPTIONS {carol.contact} SIP/2.0"] * 3, "asked without NAT, too"
        await until(lambda: len(server.edge.registrations()) == 3)
        assert [binding.aor for binding in server.edge.registrations()] == [alice.aor, bob.aor, dave.aor]
        assert bob.unread() == dave.unread() == []
        assert alice.raw == carol.raw == dave.raw == []


async def test_a_silent_contact_is_removed_if_it_was_registered_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "mediaproxy")
    at = Endpoint("127.0.0.1", free_port())
    what = settings(natping_interval=INTERVAL, listeners=(listener(port=at.port),))
    async with Phone("alice", at) as alice, Phone("bob", at) as bob, Phone("carol", at) as carol:
        who = (contact(alice, at), contact(bob, at, remove_lost=False), contact(carol, at))
        async with restarted(at, what, tmp_path / "location", *who) as server:
            for _ in range(6):
                carol.answer(await carol.receive("OPTIONS"), 200)
            await until(lambda: len(server.edge.registrations()) < 3)
            assert [binding.aor for binding in server.edge.registrations()] == [bob.aor, carol.aor]
            assert alice.unread() == [f"OPTIONS {alice.contact} SIP/2.0"] * 3, "and no more"
            assert [record.message for record in caplog.records if "no longer" in record.message] == [
                f"{alice.aor} is no longer registered at {alice.source}: silent to 3 SIP pings in a row"
            ]
            carol.request("MESSAGE", alice.aor)
            assert (await carol.receive(480)).method == "MESSAGE"
            await alice.register()
            await until(lambda: len(server.edge.registrations()) == 3)
        location = Location.open(tmp_path / "location", clock.now())
        assert {binding.aor for binding in location.all(clock.now())} == {alice.aor, bob.aor, carol.aor}
        location.close()


async def test_a_phone_that_speaks_is_not_silent(tmp_path: Path) -> None:
    """It ignores OPTIONS, but it is there."""
    at = Endpoint("127.0.0.1", free_port())
    what = settings(natping_interval=INTERVAL, listeners=(listener(port=at.port),))
    async with (
        Phone("alice", at) as alice,
        restarted(at, what, tmp_path / "location", contact(alice, at)) as server,
    ):
        for _ in range(8):
            await alice.receive("OPTIONS")
            alice.request("OPTIONS", "sip:example.com")
            await alice.receive(200)
        assert len(server.edge.registrations()) == 1


async def test_an_answer_that_is_not_quite_sip_counts_and_is_swallowed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "mediaproxy")
    at = Endpoint("127.0.0.1", free_port())
    what = settings(natping_interval=INTERVAL, listeners=(listener(port=at.port),))
    async with (
        Phone("alice", at) as alice,
        restarted(at, what, tmp_path / "location", contact(alice, at)) as server,
    ):
        quiet = len(caplog.records)
        for _ in range(6):
            ping = await alice.receive("OPTIONS")
            lines = [f"{name}: {ping.get(name)}" for name in ("Via", "Call-ID")]
            alice.write("\r\n".join(["SIP/2.0 200 OK", *lines, "", ""]).encode())
        assert len(server.edge.registrations()) == 1
        assert caplog.records[quiet:] == []


async def test_a_thousand_contacts_are_pinged(tmp_path: Path) -> None:
    """Each by its own flag: half of them get requests, half of them four bytes; none is left out. That they are
    spread over the interval is of the pure part (test_keepalive.py), where no slow machine shifts it."""
    interval, count = 3.0, 1000
    arrived: set[str] = set()
    loop = asyncio.get_running_loop()
    catcher = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    catcher.setblocking(False)
    catcher.setsockopt(socket.IPPROTO_IP, getattr(socket, "IP_PKTINFO", 8), 1)
    catcher.bind(("0.0.0.0", 0))

    def receive() -> None:
        while True:
            try:
                data, ancillary, _, _ = catcher.recvmsg(2000, 100)
            except BlockingIOError:
                return
            (address,) = (socket.inet_ntoa(piece[8:12]) for _, _, piece in ancillary)
            assert data == b"\0\0\0\0" or data.startswith(b"OPTIONS sip:"), data
            assert (data[:1] == b"O") == (address.split(".")[1] == "2")
            arrived.add(address)

    loop.add_reader(catcher, receive)
    at = Endpoint("127.0.0.1", free_port())
    port = catcher.getsockname()[1]
    phones = [Endpoint(f"127.{1 + n % 2}.{n // 200}.{1 + n % 200}", port) for n in range(count)]
    bindings = [
        Binding(
            aor=f"sip:u{n}@example.com",
            contact=f"sip:u{n}@{phone}",
            sent=f"<sip:u{n}@{phone}>",
            received=phone,
            transport="udp",
            local=at,
            expires=clock.now() + 600,
            call_id="r",
            cseq=1,
            nat=True,
            sip_ping=n % 2 == 1,
        )
        for n, phone in enumerate(phones)
    ]
    what = settings(natping_interval=interval, listeners=(listener(port=at.port),))
    try:
        async with restarted(at, what, tmp_path / "location", *bindings):
            async with asyncio.timeout(60):
                while len(arrived) < count:
                    await asyncio.sleep(0.05)
    finally:
        loop.remove_reader(catcher)
        catcher.close()


async def test_over_tcp_by_the_connection_of_the_registration() -> None:
    """The phone answers over its connection; it is behind NAT, and no other connection is tried."""
    async with (
        running(settings(listeners=(listener(), listener("tcp")), **BY_SIP)) as server,
        Phone("alice", server.at("tcp"), "tcp", says="192.168.1.10:5060") as alice,
    ):
        await alice.register()
        for _ in range(6):
            ping = await alice.receive("OPTIONS")
            assert ping.start == f"OPTIONS sip:alice@{alice.source};transport=tcp SIP/2.0"
            assert ping.get("Via").startswith(f"SIP/2.0/TCP {server.at('tcp')};branch=")
            alice.answer(ping, 200)
        assert len(server.edge.registrations()) == 1
        await until(lambda: not server.edge.registrations())
        assert alice.raw == []
        assert alice.unread() == [f"OPTIONS sip:alice@{alice.source};transport=tcp SIP/2.0"] * 3
