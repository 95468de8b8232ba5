"""Relays in processes of their own: calls are shared, follow their domain, and go on when a relay dies."""

import asyncio
import itertools
import logging
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from mediaproxy.admin import AdminError, Command, ask
from mediaproxy.config import Config
from mediaproxy.config.schema import Relay
from mediaproxy.control import EndCause, EndRequest, Party
from mediaproxy.dispatcher.settings import DispatcherSettings, ListenSettings, RelayEntry
from mediaproxy.edge.settings import EdgeSettings
from mediaproxy.link.address import TlsFiles
from mediaproxy.records import RecordReader
from mediaproxy.relay.settings import RelayAddress
from mediaproxy.server.answers import Calls, Ended, Relays, Status
from mediaproxy.server.assembly import Server
from mediaproxy.server.places import Places
from mediaproxy.server.relaying import RelayServer
from mediaproxy.server.starting import StartError
from tests.asking import Phone, Worker, ack, answer, bye, offer, ports, worker
from tests.nameserver import NameServer, name_server
from tests.test_link_tls import Authority

pytestmark = pytest.mark.usefixtures("no_leaks")

ALICE, BOB = Phone("alice"), Phone("bob")
TLS = "tls://127.0.0.1:0"
_numbers = itertools.count()


class House:
    """Directories, certificates and configurations of relays and their dispatcher."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._ca = Authority(directory, "ca")
        self.files = self._ca.issue("host", "127.0.0.1", "localhost")

    def places(self, name: str) -> Places:
        home = self.directory / name
        return Places(runtime_dir=home / "run", state_dir=home / "state", records=home / "records.jsonl")

    def relay(self, name: str, listen: str = "", *, first_port: int = 20000) -> RelayServer:
        """A relay with few ports, which are lent again at once."""
        return RelayServer(
            Config(
                relay=Relay(
                    name=name,
                    addresses=(RelayAddress(bind="127.0.0.1"),),
                    port_min=first_port,
                    port_max=first_port + 99,
                    cool=0.0,
                    cool_quiet=0.0,
                    listen=ListenSettings(
                        address=listen, certificate=self.files.certificate, authorities=self.files.authorities
                    ),
                )
            ),
            self.places(name),
        )

    def dispatcher(self, relays: Sequence[RelayEntry], *, tls: bool = True, **settings: Any) -> Server:
        common: dict[str, Any] = {"health_interval": 0.1, "tls": self.files if tls else TlsFiles()}
        return Server(
            Config(
                edge=EdgeSettings(enabled=False),
                relay=Relay(addresses=(RelayAddress(bind="127.0.0.1"),), cool=0.0, cool_quiet=0.0),
                dispatcher=DispatcherSettings(relays=tuple(relays), **common | settings),
            ),
            self.places("dispatcher"),
        )


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


def entry(relay: RelayServer, **fields: Any) -> RelayEntry:
    """The relay as a dispatcher's configuration names it."""
    return RelayEntry(name=relay.config.relay.name, address=str(relay.address), **fields)


@asynccontextmanager
async def two(house: House, listen: str = "") -> AsyncIterator[tuple[RelayServer, RelayServer]]:
    async with house.relay("r1", listen) as one, house.relay("r2", listen, first_port=21000) as other:
        yield one, other


@asynccontextmanager
async def asking(server: Server) -> AsyncIterator[Worker]:
    async with server, worker(server.places.mediaproxy_socket) as asked:
        yield asked


async def where(asked: Worker, call_id: str, caller: Phone = ALICE, callee: Phone = BOB) -> str:
    """The relay that a new call goes to. The call is ended."""
    reply = await asked.ask(offer(caller, callee, call_id))
    ports(reply)
    assert not (await asked.ask(over(call_id))).error
    return reply.relay


def over(call_id: str) -> EndRequest:
    return EndRequest(call_id=call_id, sender=Party(), receiver=Party(), cause=EndCause.ADMIN)


async def shares(asked: Worker, calls: int = 40, caller: Phone = ALICE, callee: Phone = BOB) -> Counter[str]:
    return Counter([await where(asked, f"share-{next(_numbers)}", caller, callee) for _ in range(calls)])


async def asked_of(server: Server | RelayServer, name: str, result: Any, **fields: Any) -> Any:
    return await asyncio.to_thread(
        ask, server.places.runtime_dir / "admin.sock", Command(command=name, **fields), result
    )


async def states(server: Server) -> dict[str, bool]:
    return {one.name: one.up for one in (await asked_of(server, "relays", Relays)).relays}


async def until(server: Server, **wanted: bool) -> None:
    """Wait for relays to be up or down."""
    async with asyncio.timeout(5):
        while {name: (await states(server)).get(name) for name in wanted} != wanted:
            await asyncio.sleep(0.02)


# -- load


@pytest.mark.both_loops
@pytest.mark.parametrize("listen", ["", TLS, "tcp://127.0.0.1:0"], ids=["unix", "tls", "tcp"])
async def test_a_call_at_a_relay_of_another_process(house: House, listen: str) -> None:
    async with two(house, listen) as relays, asking(house.dispatcher([entry(one) for one in relays])) as asked:
        replies = [await asked.ask(ask_(ALICE, BOB, "c")) for ask_ in (offer, answer, ack)]
        (name,) = {reply.relay for reply in replies}
        home = next(one for one in relays if one.config.relay.name == name)
        (report,) = (await asked_of(home, "calls", Calls)).calls
        assert (report.call_id, report.relay) == ("c", name)
        assert [port.port for port in ports(replies[0])] == [report.streams[0].callee.local.port]
        assert (await asked_of(home, "status", Status)).questions == (str(home.address),)
        assert (await asked.ask(bye(ALICE, BOB, "c"))).relay == name
        async with asyncio.timeout(5):
            while not home.places.records.read_bytes():
                await asyncio.sleep(0.01)
        (record,) = RecordReader(home.places.records).read()
        assert (record.call_id, record.relay) == ("c", name)


async def test_new_calls_are_shared_by_weight(house: House) -> None:
    async with two(house) as (one, other):
        relays = [entry(one, weight=3.0), entry(other, weight=1.0)]
        async with asking(house.dispatcher(relays)) as asked:
            found = await shares(asked, 1000)
    assert found["r1"] / 1000 == pytest.approx(0.75, abs=0.05)
    assert found["r2"] == 1000 - found["r1"]


async def test_a_relay_here_beside_one_elsewhere(house: House) -> None:
    async with house.relay("r1") as one:
        relays = [entry(one), RelayEntry(name="here", address="local")]
        server = house.dispatcher(relays)
        async with asking(server) as asked:
            assert set(await shares(asked)) == {"r1", "here"}
            assert (await asked_of(server, "calls", Calls)).calls == ()
        lines = server.introduction()
        assert any(line == f"relays elsewhere: r1 ({one.address})" for line in lines)


async def test_a_server_without_a_relay_of_its_own(house: House) -> None:
    async with house.relay("r1") as one:
        server = house.dispatcher([entry(one)])
        async with asking(server) as asked:
            ports(await asked.ask(offer(ALICE, BOB, "c")))
            assert (await asked_of(server, "status", Status)).media == ()
            with pytest.raises(AdminError, match="the calls are at the relays"):
                await asked_of(server, "calls", Calls)
            assert (await asked_of(server, "end", Ended, call_id="c")).ended == "c"
            with pytest.raises(AdminError, match="unknown call"):
                await asked_of(server, "end", Ended, call_id="c")


# -- domains


async def test_the_domain_chooses(house: House) -> None:
    ann, zoe, otto = (Phone(name, domain=f"{name}.test") for name in ("ann", "zoe", "otto"))
    async with two(house) as (one, other), house.relay("r3", first_port=22000) as third:
        relays = [entry(one, domains=("ann.test",)), entry(other, domains=("zoe.test", "*.zoe.test")), entry(third)]
        async with asking(house.dispatcher(relays)) as asked:
            assert set(await shares(asked, caller=ann)) == {"r1"}, "of the caller"
            assert set(await shares(asked, caller=otto, callee=zoe)) == {"r2"}, "of the callee"
            assert set(await shares(asked, caller=ann, callee=zoe)) == {"r1"}, "the caller's first"
            assert set(await shares(asked, caller=otto)) == {"r3"}, "without relays of its own"
            zoe.party = replace(zoe.party, local=True)
            ann.party = replace(ann.party, local=False)
            assert set(await shares(asked, caller=ann, callee=zoe)) == {"r2"}, "ours first"
            await one.__aexit__(None, None, None)
            assert set(await shares(asked, caller=ann)) == {"r3"}, "dead: those of everybody"


async def test_a_domain_that_no_relay_serves(house: House) -> None:
    async with house.relay("r1") as one, asking(house.dispatcher([entry(one, domains=("ann.test",))])) as asked:
        reply = await asked.ask(offer(ALICE, BOB, "c"))
        assert (reply.status, reply.error) == (503, "no relay serves example.com")


# -- dead relays


async def test_calls_go_to_the_others_while_a_relay_is_dead(house: House, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with AsyncExitStack() as stack:
        one = await stack.enter_async_context(house.relay("r1"))
        other = await stack.enter_async_context(house.relay("r2", first_port=21000))
        server = house.dispatcher([entry(one), entry(other)])
        asked = await stack.enter_async_context(asking(server))
        assert set(await shares(asked)) == {"r1", "r2"}
        replies = {f"c{n}": await asked.ask(offer(ALICE, BOB, f"c{n}")) for n in range(10)}
        lost = next(call_id for call_id, reply in replies.items() if reply.relay == "r1")
        await one.__aexit__(None, None, None)
        assert set(await shares(asked)) == {"r2"}, "found out by a question"
        moved = await asked.ask(replace(offer(ALICE, BOB, lost), cseq=2, sdp_hash="again"))
        assert (moved.relay, moved.error) == ("r2", ""), "a new offer of a lost call moves it"
        assert (await asked.ask(answer(ALICE, BOB, lost))).relay == "r2"
        await until(server, r1=False, r2=True)
        (shown,) = [found for found in (await asked_of(server, "relays", Relays)).relays if not found.up]
        assert (shown.name, shown.why) == ("r1", f"{one.address.path}: No such file or directory")

        async with house.relay("r1"):
            await until(server, r1=True, r2=True)
            assert set(await shares(asked)) == {"r1", "r2"}, "and is used again"
    told = [one.getMessage() for one in caplog.records if one.name == "mediaproxy.dispatcher"]
    assert [line.partition(":")[0] for line in told if line.startswith("relay r1")][:2] == [
        "relay r1 does not answer",
        "relay r1 answers again",
    ]


async def test_a_dead_relay_is_found_without_any_question(house: House) -> None:
    async with two(house, TLS) as (one, other):
        server = house.dispatcher([entry(one), entry(other)])
        async with server:
            await until(server, r1=True, r2=True)
            await one.__aexit__(None, None, None)
            await until(server, r1=False, r2=True)


async def test_a_relay_that_hangs_costs_no_more_than_its_share_of_patience(house: House) -> None:
    async def swallow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()
        await writer.wait_closed()

    path = house.directory / "hung.sock"
    async with house.relay("r1") as one, await asyncio.start_unix_server(swallow, path):
        relays = [entry(one), RelayEntry(name="hung", address=f"unix:{path}")]
        server = house.dispatcher(relays, relay_timeout=0.1, health_interval=60.0)
        async with asking(server) as asked:
            loop = asyncio.get_running_loop()
            slowest = 0.0
            for number in range(20):
                began = loop.time()
                assert await where(asked, f"c{number}") == "r1"
                slowest = max(slowest, loop.time() - began)
            assert 0.05 < slowest < 0.6


async def test_a_restarted_dispatcher_finds_running_calls(house: House) -> None:
    async with two(house) as (one, other):
        entries = [entry(one), entry(other)]
        async with asking(house.dispatcher(entries)) as asked:
            homes = {f"c{n}": (await asked.ask(offer(ALICE, BOB, f"c{n}"))).relay for n in range(20)}
            call_id = next(call_id for call_id, home in homes.items() if home == "r1")
            await asked.ask(answer(ALICE, BOB, call_id))
        # Since then the call is where its Call-ID would not lead it.
        drained = [entry(one, weight=0.0), entry(other)]
        async with asking(house.dispatcher(drained)) as asked:
            hold = replace(offer(ALICE, BOB, call_id), receiver=BOB.party, cseq=2, sdp_hash="hold")
            assert (await asked.ask(hold)).relay == "r1"
            assert (await asked.ask(replace(answer(ALICE, BOB, call_id), cseq=2))).relay == "r1"
            assert (await asked.ask(bye(ALICE, BOB, call_id))).relay == "r1"
            assert call_id not in [one.call_id for one in (await asked_of(other, "calls", Calls)).calls]


# -- DNS


@pytest.fixture
async def dns(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[NameServer]:
    """The name server that the dispatcher asks."""
    async with name_server() as (server, resolver):
        monkeypatch.setattr("mediaproxy.dispatcher.discovery.system_resolver", lambda: resolver)
        monkeypatch.setattr("mediaproxy.dispatcher.discovery.PATIENCE", 5.0)
        yield server


async def test_srv_records_name_relays_that_stand_in_no_configuration(house: House, dns: NameServer) -> None:
    async with two(house, TLS) as (one, other), house.relay("r3", TLS, first_port=22000) as third:
        ports_ = [relay.address.port for relay in (one, other, third)]
        dns.srv(
            "example.com", f"1 75 {ports_[0]} localhost.", f"1 25 {ports_[1]} localhost.", f"2 1 {ports_[2]} localhost."
        )
        server = house.dispatcher([])
        async with asking(server) as asked:
            found = await shares(asked, 200)
            assert found["r1"] / 200 == pytest.approx(0.75, abs=0.1) and set(found) == {"r1", "r2"}
            assert await where(asked, "x", Phone("a", domain="else.test"), Phone("b", domain="else.test")) == "local"
            shown = (await asked_of(server, "relays", Relays)).relays
            strangers = {f"tls://localhost:{port}" for port in ports_}
            assert {one.name for one in shown if one.named_by_dns} == strangers
            assert {one.name for one in shown if not one.named_by_dns} == {"local"}
            await one.__aexit__(None, None, None)
            await other.__aexit__(None, None, None)
            assert set(await shares(asked)) == {"r3"}, "the next tier"
            await third.__aexit__(None, None, None)
            assert set(await shares(asked)) == {"local"}, "those of everybody"


async def test_srv_records_name_configured_relays(house: House, dns: NameServer) -> None:
    async with two(house, "tcp://127.0.0.1:0") as (one, other), house.relay("r3.test", first_port=22000) as third:
        dns.srv("ann.test", f"1 1 {one.address.port} 127.0.0.1.")
        dns.srv("zoe.test", "1 1 25060 r3.test.")
        dns.srv("otto.test", "1 1 25060 somewhere.else.test.")
        relays = [entry(one, weight=0.0), entry(other), entry(third, domains=("nobody.test",))]
        async with asking(house.dispatcher(relays, tls=False)) as asked:
            expected = {"ann": "r2", "zoe": "r3.test", "otto": "r2"}  # r1 is drained, whatever DNS says
            for name, relay in expected.items():
                phone = Phone(name, domain=f"{name}.test")
                assert set(await shares(asked, 10, phone, phone)) == {relay}


async def test_a_relay_without_our_certificate_gets_no_calls(house: House, dns: NameServer, tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    theirs = House(tmp_path / "theirs")
    async with theirs.relay("foreign", TLS) as foreign:
        dns.srv("example.com", f"1 1 {foreign.address.port} localhost.")
        async with asking(house.dispatcher([])) as asked:
            assert set(await shares(asked, 10)) == {"local"}
        assert not (await asked_of(foreign, "calls", Calls)).calls


async def test_without_relays_elsewhere_dns_is_not_asked(house: House, dns: NameServer) -> None:
    async with asking(house.dispatcher([], tls=False)) as asked:
        assert await where(asked, "c") == "local"
    assert not dns.asked


# -- what keeps them from starting


@pytest.mark.parametrize(
    ("listen", "error"),
    [
        ({"address": "tls://127.0.0.1:0", "certificate": "/no/such.pem"}, "relay.listen: /no/such.pem: No such file"),
        ({"address": "tls://198.51.100.7:0"}, "tls://198.51.100.7:0: cannot listen there: Cannot assign requested"),
        ({"group": "no-such-group"}, "there is no group no-such-group; set relay.listen.group to one that exists"),
    ],
    ids=["certificate", "address", "group"],
)
async def test_what_keeps_a_relay_from_starting(house: House, listen: dict[str, str], error: str) -> None:
    relay = house.relay("r1")
    settings = replace(
        relay.config.relay.listen,
        **{"certificate": house.files.certificate, "authorities": house.files.authorities} | listen,
    )
    config = replace(relay.config, relay=replace(relay.config.relay, listen=settings))
    with pytest.raises(StartError, match=error):
        async with RelayServer(config, relay.places):
            pass


async def test_what_keeps_a_dispatcher_from_starting(house: House) -> None:
    files = replace(house.files, certificate="/no/such.pem")
    server = house.dispatcher([RelayEntry(name="r1", address="tls://127.0.0.1:1")], tls=False)
    config = replace(server.config, dispatcher=replace(server.config.dispatcher, tls=files))
    with pytest.raises(StartError, match=r"dispatcher\.tls: /no/such\.pem: No such file or directory; look at"):
        async with Server(config, server.places):
            pass
