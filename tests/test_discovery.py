"""Which relays serve which domains: the configured ones, those in DNS, and the order of both."""

import asyncio
import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from mediaproxy.control import EndCause, EndRequest, MediaRequest, Party, Question
from mediaproxy.dispatcher.directory import Directory, Target, domains_of, looked_up
from mediaproxy.dispatcher.discovery import Discovery
from mediaproxy.dispatcher.guide import Guide
from mediaproxy.dispatcher.pool import Relay
from mediaproxy.dispatcher.settings import Lookup
from mediaproxy.link import Address
from tests.nameserver import name_server

pytestmark = pytest.mark.usefixtures("no_leaks")

OURS, THEIRS = Party(domain="ours.test", local=True), Party(domain="theirs.test", local=False)
UNSAID = Party(domain="unsaid.test")


def offer(sender: Party = OURS, receiver: Party = THEIRS, status: int = 0) -> MediaRequest:
    return MediaRequest(call_id="c", sender=sender, receiver=receiver, cseq=1, sdp_hash="h", status=status)


# -- whose domain counts


@pytest.mark.parametrize(
    ("question", "domains"),
    [
        (offer(), ["ours.test", "theirs.test"]),
        (offer(THEIRS, OURS), ["ours.test", "theirs.test"]),
        (offer(OURS, OURS), ["ours.test"]),
        (offer(UNSAID, THEIRS), ["unsaid.test", "theirs.test"]),
        (offer(THEIRS, UNSAID), ["theirs.test", "unsaid.test"]),
        (offer(Party(domain="a.test", local=True), OURS), ["a.test", "ours.test"]),
        (offer(Party(domain="a.test", local=True), OURS, status=200), ["ours.test", "a.test"]),
        (offer(Party(domain="ExAmple.TEST."), Party()), ["example.test"]),
        (offer(Party(domain="[2001:DB8::0]"), Party()), ["2001:db8::"]),
        (offer(Party(), Party()), []),
        (EndRequest(call_id="c", sender=THEIRS, receiver=OURS, cause=EndCause.BYE), ["ours.test", "theirs.test"]),
    ],
    ids=lambda value: ",".join(value) if isinstance(value, list) else "",
)
def test_of_two_parties_ours_counts_first_then_the_caller(question: Question, domains: list[str]) -> None:
    assert list(domains_of(question)) == domains


@pytest.mark.parametrize(
    ("lookup", "domains"),
    [
        (Lookup.NOBODY, []),
        (Lookup.LOCAL, ["ours.test"]),
        (Lookup.EVERYBODY, ["ours.test", "theirs.test"]),
    ],
)
def test_whose_relays_are_looked_up(lookup: Lookup, domains: list[str]) -> None:
    assert list(looked_up(offer(), lookup)) == domains
    if lookup is Lookup.LOCAL:
        assert list(looked_up(offer(UNSAID, THEIRS), lookup)) == ["unsaid.test"], "it may be ours"


# -- the configured ones

A, B, C, D = (Relay(name=name) for name in "abcd")
DIRECTORY = Directory([A, B, C, D], {"a": ["ours.test"], "b": ["OURS.test.", "theirs.test"], "c": ["*.ours.test"]})


@pytest.mark.parametrize(
    ("domains", "groups"),
    [
        ([], []),
        (["ours.test"], ["ab"]),
        (["theirs.test"], ["b"]),
        (["theirs.test", "ours.test"], ["b", "ab"]),
        (["west.ours.test"], ["c"]),
        (["a.b.ours.test"], ["c"]),
        (["notours.test"], []),
        (["other.test"], []),
    ],
    ids=str,
)
def test_configured_relays(domains: list[str], groups: list[str]) -> None:
    found = DIRECTORY.configured(domains)
    assert ["".join(relay.name for relay in group) for group in found] == groups
    assert DIRECTORY.everybody() == (D,)


def test_what_srv_records_name() -> None:
    addresses = {
        "west": Address.parse("tls://relay1.test:25060"),
        "east": Address.parse("tcp://127.0.0.1:9"),
        "beside": Address.parse("unix:/s"),
    }
    relays = [Relay(name="west"), Relay(name="east", weight=0.0), Relay(name="beside")]
    directory = Directory(relays, {}, addresses)

    def target(host: str, port: int, priority: int = 0, weight: int = 0) -> Target:
        return Target(host=host, port=port, priority=priority, weight=weight)

    records = [
        target("relay1.test", 25060, 1, 60),
        target("127.0.0.1", 9, 1, 30),
        target("beside", 1, 2, 0),
        target("relay1.test", 25061, 3, 5),
        target("relay1.test", 25060, 9, 9),
    ]
    known = (
        Relay(name="west", tier=1, weight=60.0),
        Relay(name="east", tier=1, weight=0.0),
        Relay(name="beside", tier=2, weight=0.01),
    )
    assert directory.named(records, strangers=False) == known
    stranger = Relay(name="tls://relay1.test:25061", tier=3, weight=5.0)
    assert directory.named(records, strangers=True) == (*known, stranger)
    assert Address.parse(stranger.name).host == "relay1.test"


# -- DNS


async def found(discovery: Discovery, domain: str = "ours.test") -> list[str]:
    await discovery.find(domain)
    return sorted(f"{one.priority} {one.weight} {one.host}:{one.port}" for one in discovery.latest(domain))


async def test_srv_records_are_found_and_kept_as_long_as_they_say() -> None:
    clock = [1000.0]
    async with name_server() as (server, resolver):
        server.srv("ours.test", "1 60 25060 Relay1.test.", "2 0 25061 relay2.test.", "3 0 0 nowhere.test.")
        discovery = Discovery(resolver, patience=5, now=lambda: clock[0])
        for _ in range(3):
            assert await found(discovery) == ["1 60 relay1.test:25060", "2 0 relay2.test:25061"]
        assert server.asked["SRV _mediaproxy._tcp.ours.test."] == 1
        server.srv("ours.test", "1 60 25060 relay3.test.")
        clock[0] += 59
        assert (await found(discovery))[0] == "1 60 relay1.test:25060"
        clock[0] += 2
        assert await found(discovery) == ["1 60 relay3.test:25060"], "without a restart"


@pytest.mark.parametrize("records", [(), ("0 0 0 .",)], ids=["none", "decidedly none"])
async def test_that_there_are_none_is_kept_too(records: tuple[str, ...]) -> None:
    async with name_server() as (server, resolver):
        if records:
            server.srv("ours.test", *records)
        discovery = Discovery(resolver, patience=5)
        for _ in range(3):
            assert await found(discovery) == []
        assert server.asked.total() == 1


@pytest.mark.parametrize("exists", [True, False], ids=["another record", "no such name"])
async def test_that_there_are_none_is_good_as_long_as_the_zone_says(exists: bool) -> None:
    clock = [1000.0]
    async with name_server() as (server, resolver):
        server.negative = 5
        if exists:
            server.records[("_mediaproxy._tcp.ours.test.", "TXT")] = ['"x"']
        discovery = Discovery(resolver, patience=5, now=lambda: clock[0])
        assert await found(discovery) == []
        server.srv("ours.test", "1 60 25060 relay1.test.")
        clock[0] += 4
        assert await found(discovery) == []
        clock[0] += 2
        assert await found(discovery) == ["1 60 relay1.test:25060"]


async def test_silent_name_servers_hold_nobody_up_and_what_was_known_stays_good(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mediaproxy.dispatcher.discovery.LIFETIME", 0.3)
    clock, loop = [1000.0], asyncio.get_running_loop()
    async with name_server() as (server, resolver):
        server.srv("ours.test", "1 60 25060 relay1.test.")
        discovery = Discovery(resolver, patience=0.05, now=lambda: clock[0])
        async with asyncio.timeout(30):
            while await found(discovery) != ["1 60 relay1.test:25060"]:
                pass
        server.silent = True
        clock[0] += 3600
        began = loop.time()
        assert await found(discovery) == ["1 60 relay1.test:25060"]
        assert await found(discovery, "other.test") == []
        assert loop.time() - began < 10, "each waited for the patience, not for the resolver's own"
        async with asyncio.timeout(30):
            while discovery.known("ours.test") is None:
                await asyncio.sleep(0.02)
        assert await found(discovery) == ["1 60 relay1.test:25060"]
        server.silent, server.broken = False, True
        clock[0] += 3600
        assert await found(discovery) == ["1 60 relay1.test:25060"]
        await discovery.close()
    warnings = [one.getMessage() for one in caplog.records if one.levelno == logging.WARNING]
    assert warnings and all("no usable answer of name servers" in one for one in warnings)


async def test_look_ups_under_way_are_shared_and_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mediaproxy.dispatcher.discovery._AT_ONCE", 3)
    monkeypatch.setattr("mediaproxy.dispatcher.discovery._REMEMBERED", 5)
    async with name_server() as (server, resolver):
        server.silent = True
        discovery = Discovery(resolver, patience=0.05)
        await asyncio.gather(*(discovery.find("ours.test") for _ in range(20)))
        await asyncio.gather(*(discovery.find(f"d{number}.test") for number in range(20)))
        assert len(server.asked) <= 3
        await discovery.close()
        assert len(discovery._known) <= 5 + 3


@given(st.text())
def test_no_domain_breaks_it(domain: str) -> None:
    async def look() -> None:
        async with name_server() as (_, resolver):
            discovery = Discovery(resolver, patience=5)
            await discovery.find(domain)
            assert discovery.latest(domain) == ()
            await discovery.close()

    asyncio.run(look())


async def test_addresses_are_not_looked_up() -> None:
    async with name_server() as (server, resolver):
        discovery = Discovery(resolver, patience=5)
        for domain in ("192.0.2.1", "2001:db8::1", "", "a b", "caf\xe9"):
            assert await found(discovery, domain) == []
        assert not server.asked


# -- both


async def test_configured_before_dns_before_everybody() -> None:
    async with name_server() as (server, resolver):
        server.srv("ours.test", "1 1 25060 srv1.test.")
        server.srv("theirs.test", "1 1 25060 srv2.test.")
        discovery = Discovery(resolver, patience=5)
        guide = Guide(Directory([A, D], {"a": ["west.test"]}), discovery, lookup=Lookup.EVERYBODY, strangers=True)

        async def names(sender: Party, receiver: Party, **changes: int) -> list[list[str]]:
            groups = await guide.groups(replace(offer(sender, receiver), **changes), wait=True)
            return [[relay.name for relay in group] for group in groups]

        west = Party(domain="west.test")
        assert await names(west, OURS) == [["a"], ["d"]]
        assert not server.asked, "who has relays of its own needs no DNS"
        assert await names(THEIRS, OURS) == [["tls://srv1.test:25060"], ["tls://srv2.test:25060"], ["d"]]
        assert await names(Party(domain="none.test"), Party()) == [["d"]]
        server.srv("late.test", "1 1 25060 srv3.test.")
        late = offer(Party(domain="late.test"), Party())
        assert await guide.groups(late, wait=False) == ((D,),), "not worth waiting"
