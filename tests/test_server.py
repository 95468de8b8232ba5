"""The whole server on loopback: two toy phones register, call and talk; what an operator sees; what is left behind."""

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from lab.server import document
from mediaproxy.accounting import Record
from mediaproxy.admin import Command, ask
from mediaproxy.config import Config, loads
from mediaproxy.config.schema import Relay
from mediaproxy.edge.farewell import Farewell
from mediaproxy.edge.location import LocationError
from mediaproxy.edge.settings import EdgeSettings, Listener, Transport
from mediaproxy.endpoint import Endpoint
from mediaproxy.events import CallState, EndReason
from mediaproxy.records import RecordReader
from mediaproxy.server.answers import Calls, Ended, Registrations, Status
from mediaproxy.server.assembly import Server, StartError
from mediaproxy.server.places import Places
from mediaproxy.sip.digest import Account
from tests.sipua import Phone, sdp
from tests.test_digest import answer
from tests.vsip import Text

pytestmark = pytest.mark.usefixtures("no_leaks")

PATIENCE = 20.0


def config(**edge: Any) -> Config:
    listeners = tuple(
        Listener(transport=transport, bind=Endpoint("127.0.0.1", 0)) for transport in (Transport.UDP, Transport.TCP)
    )
    settings = EdgeSettings(**{"listeners": listeners, "domains": ("example.com",)} | edge)
    return Config(edge=settings, relay=Relay(plane="user"))


@pytest.fixture
def places(tmp_path: Path) -> Places:
    return Places(runtime_dir=tmp_path / "run", state_dir=tmp_path / "state", records=tmp_path / "records.jsonl")


@pytest.fixture
async def server(places: Places) -> AsyncIterator[Server]:
    async with Server(config(), places) as running:
        yield running


def sip(server: Server, transport: str = "udp") -> Endpoint:
    return next(one.bind for one in server.listeners if one.transport == transport)


async def until(true: Callable[[], bool]) -> None:
    """Wait for something that another task does."""
    async with asyncio.timeout(PATIENCE):
        while not true():
            await asyncio.sleep(0.005)


class Media(asyncio.DatagramProtocol):
    """The RTP side of a phone: sends numbered packets, keeps what it hears."""

    def __init__(self, at: Endpoint, sock: socket.socket) -> None:
        self.at = at
        self.heard: list[bytes] = []
        self._socket = sock
        self._sequence = 0

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.heard.append(data)

    def send(self, to: Endpoint, payload: bytes) -> None:
        """One PCMU packet."""
        self._sequence += 1
        header = struct.pack("!BBHII", 0x80, 0, self._sequence, 160 * self._sequence, self.at.port)
        self._socket.sendto(header + payload, (to.address, to.port))


@contextlib.asynccontextmanager
async def media(address: str) -> AsyncIterator[Media]:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind((address, 0))
    sock.setblocking(False)
    protocol = Media(Endpoint(*sock.getsockname()), sock)
    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(lambda: protocol, sock=sock)
    try:
        yield protocol
    finally:
        transport.close()
        await asyncio.sleep(0)


def relay_port(message: Text) -> Endpoint:
    """Where the SDP of a message sends media."""
    lines = message.body.splitlines()
    address = next(line.split()[-1] for line in lines if line.startswith("c="))
    return Endpoint(address, int(next(line.split()[1] for line in lines if line.startswith("m=audio"))))


@contextlib.asynccontextmanager
async def phones(server: Server) -> AsyncIterator[tuple[Phone, Phone]]:
    """Alice and Bob, registered."""
    async with (
        Phone("alice", sip(server), address="127.0.0.2") as alice,
        Phone("bob", sip(server), address="127.0.0.3") as bob,
    ):
        await alice.register()
        await bob.register()
        yield alice, bob


async def call(alice: Phone, bob: Phone, hers: Media, his: Media, call_id: str = "") -> tuple[Text, Text]:
    """An answered call: the INVITE as Bob got it, the 200 as Alice got it."""
    invite = alice.request("INVITE", bob.aor, body=sdp(hers.at.address, hers.at.port), call_id=call_id)
    got = await bob.receive("INVITE")
    bob.answer(got, 200, sdp(his.at.address, his.at.port))
    ok = await alice.receive(200, "INVITE")
    alice.within("ACK", ok, cseq=int(invite.get("CSeq").split()[0]))
    await bob.receive("ACK")
    return got, ok


async def talk(got: Text, ok: Text, hers: Media, his: Media, packets: int = 20) -> None:
    """Both send; both must hear everything but what was sent before the other side was known."""
    for number in range(packets):
        hers.send(relay_port(ok), b"from alice %d" % number)
        his.send(relay_port(got), b"from bob %d" % number)
        await asyncio.sleep(0.002)
    last = b"%d" % (packets - 1)
    await until(lambda: any(p.endswith(b"alice " + last) for p in his.heard))
    await until(lambda: any(p.endswith(b"bob " + last) for p in hers.heard))


async def asked(server: Server, name: str, result: Any, **fields: Any) -> Any:
    path = server.places.runtime_dir / "admin.sock"
    return await asyncio.to_thread(ask, path, Command(command=name, **fields), result)


def records(places: Places) -> list[Record]:
    return list(RecordReader(places.records).read())


@pytest.mark.both_loops
async def test_a_whole_call(server: Server, places: Places) -> None:
    async with phones(server) as (alice, bob), media("127.0.0.2") as hers, media("127.0.0.3") as his:
        got, ok = await call(alice, bob, hers, his)
        for answered in (got, ok):
            assert relay_port(answered).address == "127.0.0.1"
        await talk(got, ok, hers, his)

        (report,) = (await asked(server, "calls", Calls)).calls
        assert report.state is CallState.TALKING
        assert (report.caller.uri, report.callee.uri) == ("sip:alice@example.com", "sip:bob@example.com")
        (stream,) = report.streams
        assert (stream.caller.learned, stream.callee.learned) == (hers.at, his.at)
        assert (stream.caller.packets, stream.callee.packets) == (20, 20)
        assert stream.plane == "user"
        assert records(places) == []

        alice.within("BYE", ok)
        bob.answer(await bob.receive("BYE"), 200)
        await alice.receive(200, "BYE")
        await until(lambda: len(records(places)) == 1)
        (record,) = records(places)
        assert (record.call_id, record.reason) == (ok.get("Call-ID"), EndReason.BYE)
        assert (record.streams[0].caller.packets, record.streams[0].callee.packets) == (20, 20)
        assert not [one for one in (await asked(server, "calls", Calls)).calls if one.state is not CallState.ENDED]
        before = len(his.heard)
        hers.send(relay_port(ok), b"too late")
        assert len(his.heard) == before


async def test_registrations_and_status(server: Server, places: Places) -> None:
    async with phones(server) as (alice, bob):
        shown = (await asked(server, "registrations", Registrations)).registrations
        assert [(b.aor, b.received) for b in shown] == [(alice.aor, alice.source), (bob.aor, bob.source)]
        status = await asked(server, "status", Status)
        assert status.listeners == (f"udp:{sip(server)}", f"tcp:{sip(server, 'tcp')}")
        assert status.media == ("127.0.0.1",)
        assert (status.calls, status.registrations, status.plane) == (0, 2, "user")
        assert status.records == str(places.records)


async def test_a_password_in_a_uri_is_shown_to_nobody(server: Server) -> None:
    async with phones(server) as (alice, bob):
        alice.user = "alice:secret"
        alice.request("INVITE", bob.aor, tag="a", contact=f"sip:alice@{alice.source}", body=sdp())
        await bob.receive("INVITE")
        (report,) = (await asked(server, "calls", Calls)).calls
        assert report.caller.uri == "sip:alice:***@example.com"


async def test_an_operator_ends_a_call(server: Server, places: Places) -> None:
    async with phones(server) as (alice, bob), media("127.0.0.2") as hers, media("127.0.0.3") as his:
        got, ok = await call(alice, bob, hers, his, call_id="caf\xe9-1")
        await talk(got, ok, hers, his)
        done = await asked(server, "end", Ended, call_id="caf\xe9-1")
        assert (done.ended, done.phones) == ("caf\xe9-1", Farewell(told=(alice.aor, bob.aor)))
        for phone in (alice, bob):
            bye = await phone.receive("BYE")
            assert bye.get("Reason") == 'Q.850;cause=31;text="ended by the operator"'
            phone.answer(bye, 200)
        await until(lambda: bool(records(places)))
        assert [(one.call_id, one.reason) for one in records(places)] == [("caf\xe9-1", EndReason.ADMIN)]
        before = len(his.heard)
        hers.send(relay_port(ok), b"no more")
        await asked(server, "calls", Calls)
        assert len(his.heard) == before


async def test_an_operator_ends_a_call_that_rings(server: Server, places: Places) -> None:
    async with phones(server) as (alice, bob):
        alice.request("INVITE", bob.aor, body=sdp(), call_id="rings")
        got = await bob.receive("INVITE")
        bob.answer(got, 180)
        await alice.receive(180)
        done = await asked(server, "end", Ended, call_id="rings")
        assert done.phones == Farewell(cancelled=(alice.aor,))
        bob.answer(await bob.receive("CANCEL"), 200)
        bob.answer(got, 487)
        assert "ended by the operator" in (await alice.receive(480, "INVITE")).get("Warning")
        await until(lambda: [one.reason for one in records(places)] == [EndReason.ADMIN])


@pytest.mark.parametrize(("answered", "status"), [(True, 0), (False, 408)], ids=["silent", "unanswered"])
async def test_a_call_that_ends_by_itself_leaves_no_phone_in_it(places: Places, answered: bool, status: int) -> None:
    settings = config()
    settings = replace(settings, relay=replace(settings.relay, silence=0.2, unanswered=0.2))
    async with Server(settings, places) as server, phones(server) as (alice, bob):
        alice.request("INVITE", bob.aor, body=sdp(), cseq=7)
        got = await bob.receive("INVITE")
        if answered:
            bob.answer(got, 200, sdp())
            await alice.receive(200, "INVITE")
            for phone in (alice, bob):
                phone.answer(await phone.receive("BYE"), 200)
        else:
            bob.answer(got, 180)
            await alice.receive(status, "INVITE")
            await bob.receive("CANCEL")
        await until(lambda: len(records(places)) == 1)
        assert records(places)[0].reason is (EndReason.SILENT if answered else EndReason.UNANSWERED)


async def test_a_restart_knows_the_phones_and_leaves_one_record_per_call(places: Places) -> None:
    settings = config()
    async with Phone("alice", Endpoint("127.0.0.1", 1), address="127.0.0.2") as alice:
        async with Server(settings, places) as server, media("127.0.0.2") as hers, media("127.0.0.3") as his:
            settings = replace(settings, edge=replace(settings.edge, listeners=server.listeners))
            alice.edge = sip(server)
            async with (
                Phone("bob", sip(server), address="127.0.0.3") as bob,
                Phone("carol", sip(server, "tcp"), "tcp") as carol,
            ):
                for phone in (alice, bob, carol):
                    await phone.register()
                await call(alice, bob, hers, his)
        (record,) = records(places)
        assert record.reason is EndReason.SHUTDOWN
        assert not (places.runtime_dir / "admin.sock").exists()

        async with Server(settings, places) as server, Phone("dora", sip(server)) as dora:
            shown = (await asked(server, "registrations", Registrations)).registrations
            assert [(b.aor, b.reachable) for b in shown] == [(alice.aor, True), (bob.aor, True), (carol.aor, False)]
            dora.request("INVITE", alice.aor, body=sdp())
            got = await alice.receive("INVITE")
            alice.answer(got, 486)
            await dora.receive(486)
            dora.request("INVITE", carol.aor, body=sdp())
            await dora.receive(480)


async def test_accounts(places: Places) -> None:
    settings = config(accounts=(Account(username="alice", password="secret"),))
    async with Server(settings, places) as server, Phone("alice", sip(server)) as alice:

        async def register(password: str) -> int:
            common: dict[str, Any] = {"to": f"<{alice.aor}>"}
            alice.request("REGISTER", "sip:example.com", **common)
            challenge = (await alice.receive(401)).get("WWW-Authenticate")
            value = answer(challenge, "alice", password)
            alice.request("REGISTER", "sip:example.com", headers=[("Authorization", value)], **common)
            return (await alice._next()).status

        assert await register("wrong") in (401, 403)
        assert (await asked(server, "registrations", Registrations)).registrations == ()
        assert await register("secret") == 200
        assert len((await asked(server, "registrations", Registrations)).registrations) == 1


async def test_a_full_disk_refuses_registrations_and_the_server_lives(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise LocationError("location.db: disk is full")

    async with Phone("alice", sip(server)) as alice:
        with monkeypatch.context() as broken:
            broken.setattr("mediaproxy.edge.location.Location.apply", full)
            alice.request("REGISTER", "sip:example.com", to=f"<{alice.aor}>")
            await alice.receive(503)
        await alice.register()


async def started(settings: Config, places: Places) -> None:
    async with Server(settings, places):
        pass


@pytest.mark.parametrize(
    ("change", "error"),
    [
        pytest.param({"edge": {"listeners": [{"transport": "udp", "bind": "127.0.0.1:1"}]}}, None, id="root may"),
        pytest.param(
            {"edge": {"listeners": [{"transport": "udp", "bind": "198.51.100.7:5060"}], "open": True}},
            "relay address 198.51.100.7: Cannot assign requested address; media follows edge.listeners",
            id="not our address",
        ),
        pytest.param(
            {
                "edge": {"listeners": [{"transport": "udp", "bind": "198.51.100.7:5060"}], "open": True},
                "relay": {"addresses": [{"bind": "127.0.0.1"}]},
            },
            "198.51.100.7:5060: Cannot assign requested address; this host has no such address; set edge.listeners",
            id="not our SIP address",
        ),
        pytest.param(
            {
                "edge": {"listeners": [{"transport": "udp", "bind": "198.51.100.7:5060"}]},
                "relay": {"addresses": [{"bind": "127.0.0.1"}]},
            },
            "without accounts everybody on the Internet could call",
            id="an open server",
        ),
        pytest.param({"admin": {"group": "no-such-group"}}, "there is no group no-such-group", id="group"),
        pytest.param(
            {"edge": {"listeners": [{"transport": "udp", "bind": "10.99.98.97:5060"}]}},
            "Cannot assign requested address; media follows edge.listeners: set these, or",
            id="no address of this host",
        ),
        pytest.param(
            {
                "edge": {
                    "listeners": [{"transport": "tls", "bind": "127.0.0.1:0"}],
                    "tls": {"certificate": "/no/such.pem"},
                },
            },
            "/no/such.pem: No such file or directory; look at edge.tls.certificate and edge.tls.key",
            id="no certificate",
        ),
    ],
)
async def test_what_keeps_it_from_starting(places: Places, change: dict[str, Any], error: str | None) -> None:
    settings = loads(document(change))
    if "edge" not in change:
        settings = replace(settings, edge=config().edge)
    if error is None:
        await started(settings, places)
        return
    with pytest.raises(StartError, match=error):
        await started(settings, places)
    assert not (places.runtime_dir / "admin.sock").exists()


async def test_ports_in_use(places: Places, server: Server, tmp_path: Path) -> None:
    other = Places(runtime_dir=tmp_path / "run2", state_dir=tmp_path / "state2", records=tmp_path / "r2")
    settings = replace(server.config, edge=replace(server.config.edge, listeners=server.listeners))
    with pytest.raises(StartError, match="Address already in use; another program has that port: stop it, or set edge"):
        await started(settings, other)
    with pytest.raises(StartError, match="another mediaproxy is running with this runtime_dir; stop it, or give"):
        await started(server.config, places)
    assert (await asked(server, "status", Status)).calls == 0


async def test_directories_and_files_in_the_way(places: Places, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    blocked = Places(runtime_dir=tmp_path / "file" / "run", state_dir=tmp_path / "s", records=tmp_path / "r")
    with pytest.raises(StartError, match=r"run: cannot be made: Not a directory; choose another place"):
        await started(config(), blocked)
    places.state_dir.mkdir()
    places.location.write_bytes(b"no database" * 100)
    with pytest.raises(StartError, match=r"location\.db: cannot use the location table: .*move it away"):
        await started(config(), places)
    places.location.unlink()
    places.records.unlink()
    places.records.mkdir()
    with pytest.raises(StartError, match=r"records\.jsonl: cannot write call records: Is a directory; choose"):
        await started(config(), places)
