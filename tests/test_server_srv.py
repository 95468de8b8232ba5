"""Relays that DNS SRV records name: whose calls they get, and which of them count."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mediaproxy.server.answers import Calls, Relays
from tests.asking import Phone
from tests.nameserver import NameServer, name_server
from tests.relayhouse import TLS, House, asked_of, asking, entry, shares, two, where

pytestmark = pytest.mark.usefixtures("no_leaks")


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


@pytest.fixture
async def dns(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[NameServer]:
    """The name server that the dispatcher asks."""
    async with name_server() as (server, resolver):
        monkeypatch.setattr("mediaproxy.dispatcher.discovery.system_resolver", lambda: resolver)
        monkeypatch.setattr("mediaproxy.dispatcher.discovery.PATIENCE", 5.0)
        yield server


async def test_srv_records_name_relays_that_stand_in_no_configuration(house: House, dns: NameServer) -> None:
    async with two(house, TLS) as (one, other), house.relay("r3", TLS, number=2) as third:
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
    async with two(house, "tcp://127.0.0.1:0") as (one, other), house.relay("r3.test", number=2) as third:
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
