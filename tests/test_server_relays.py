"""Relays in processes of their own: calls are shared, follow their domain, and go on when a relay dies."""

import asyncio
import logging
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from msgspec.structs import replace

from mediaproxy.admin import AdminError
from mediaproxy.dispatcher.settings import RelayEntry
from mediaproxy.edge.settings import EdgeSettings, Listener, Transport
from mediaproxy.endpoint import Endpoint
from mediaproxy.records import RecordReader
from mediaproxy.server.answers import Calls, Ended, Relays, Status
from mediaproxy.server.assembly import Server
from mediaproxy.server.relaying import RelayServer
from mediaproxy.server.starting import StartError
from tests.asking import Phone, ack, answer, bye, offer, ports
from tests.relayhouse import ALICE, BOB, TLS, House, asked_of, asking, entry, shares, two, until, where
from tests.test_server import call, media, phones, talk

pytestmark = pytest.mark.usefixtures("no_leaks")


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


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
        async with asyncio.timeout(30):
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


async def test_phones_of_the_built_in_edge_talk_through_a_relay_elsewhere(house: House) -> None:
    async with house.relay("r1") as one:
        server = house.dispatcher([entry(one)])
        edge = EdgeSettings(
            listeners=(Listener(transport=Transport.UDP, bind=Endpoint("127.0.0.1", 0)),), domains=("example.com",)
        )
        async with (
            Server(replace(server.config, edge=edge), server.places) as running,
            phones(running) as (alice, bob),
            media("127.0.0.2") as hers,
            media("127.0.0.3") as his,
        ):
            got, ok = await call(alice, bob, hers, his, call_id="c")
            await talk(got, ok, hers, his)
            (report,) = (await asked_of(one, "calls", Calls)).calls
            assert (report.call_id, report.caller.uri) == ("c", "sip:alice@example.com")
            alice.within("BYE", ok)
            bob.answer(await bob.receive("BYE"), 200)
            await alice.receive(200, "BYE")
            assert not (await asked_of(one, "calls", Calls)).calls


# -- domains


async def test_the_domain_chooses(house: House) -> None:
    ann, zoe, otto = (Phone(name, domain=f"{name}.test") for name in ("ann", "zoe", "otto"))
    async with two(house) as (one, other), house.relay("r3", number=2) as third:
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
        other = await stack.enter_async_context(house.relay("r2", number=1))
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
