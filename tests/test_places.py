"""Where the server keeps its things, and which address its media gets when nobody says."""

from pathlib import Path

import pytest

from mediaproxy.config import Config
from mediaproxy.config.schema import Records, Relay
from mediaproxy.dispatcher.settings import DispatcherSettings
from mediaproxy.edge.settings import Listener, Transport
from mediaproxy.endpoint import Endpoint
from mediaproxy.relay.settings import RelayAddress, RelaySettings
from mediaproxy.server.places import Places, relay_of_host, relay_settings


@pytest.mark.parametrize(
    ("user", "environment", "runtime", "state"),
    [
        pytest.param(0, {}, "/run/mediaproxy", "/var/lib/mediaproxy", id="root"),
        pytest.param(
            0, {"XDG_RUNTIME_DIR": "/run/user/0"}, "/run/mediaproxy", "/var/lib/mediaproxy", id="root's session"
        ),
        pytest.param(
            7,
            {"XDG_RUNTIME_DIR": "/run/user/7"},
            "/run/user/7/mediaproxy",
            "/home/u/.local/state/mediaproxy",
            id="session",
        ),
        pytest.param(
            7, {}, "/home/u/.local/state/mediaproxy", "/home/u/.local/state/mediaproxy", id="user without a session"
        ),
        pytest.param(7, {"XDG_STATE_HOME": "/s"}, "/s/mediaproxy", "/s/mediaproxy", id="state elsewhere"),
        pytest.param(
            7,
            {"XDG_STATE_HOME": "not/absolute"},
            "/home/u/.local/state/mediaproxy",
            "/home/u/.local/state/mediaproxy",
            id="relative does not count",
        ),
    ],
)
def test_directories(
    monkeypatch: pytest.MonkeyPatch, user: int, environment: dict[str, str], runtime: str, state: str
) -> None:
    for name in ("XDG_RUNTIME_DIR", "XDG_STATE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in (environment | {"HOME": "/home/u"}).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("os.geteuid", lambda: user)
    places = Places.of(Config())
    assert (str(places.runtime_dir), str(places.state_dir)) == (runtime, state)
    assert places.records == places.state_dir / "records.jsonl"
    assert places.location == places.state_dir / "location.db"


def test_what_is_configured_counts() -> None:
    places = Places.of(Config(runtime_dir="/a", state_dir="/b", records=Records(path="/c/calls")))
    assert places == Places(runtime_dir=Path("/a"), state_dir=Path("/b"), records=Path("/c/calls"))


@pytest.mark.parametrize(
    ("user", "config", "socket"),
    [
        pytest.param(0, Config(), "/var/run/proxydispatcher.sock", id="the original's, for root"),
        pytest.param(0, Config(runtime_dir="/r"), "/r/proxydispatcher.sock", id="root's second server"),
        pytest.param(7, Config(), "/run/user/7/mediaproxy/proxydispatcher.sock", id="another user"),
        pytest.param(
            0, Config(runtime_dir="/r", dispatcher=DispatcherSettings(mediaproxy_socket="/s")), "/s", id="as told"
        ),
    ],
)
def test_where_the_module_asks(monkeypatch: pytest.MonkeyPatch, user: int, config: Config, socket: str) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/7")
    monkeypatch.setattr("os.geteuid", lambda: user)
    assert str(Places.of(config).mediaproxy_socket) == socket


def listeners(*addresses: str) -> list[Listener]:
    return [Listener(transport=Transport.UDP, bind=Endpoint(address, 5060)) for address in addresses]


@pytest.mark.parametrize(
    ("addresses", "chosen"),
    [
        pytest.param(["127.0.0.1"], ["127.0.0.1"], id="loopback only"),
        pytest.param(["127.0.0.1", "::1"], ["127.0.0.1"], id="no phone comes from ::1"),
        pytest.param(["::1"], ["::1"], id="unless there is nothing else"),
        pytest.param(["127.0.0.1", "10.0.0.5", "192.168.1.2"], ["10.0.0.5"], id="first private"),
        pytest.param(["10.0.0.5", "198.51.100.7"], ["198.51.100.7"], id="public before private"),
        pytest.param(["127.0.0.1", "fd00::5"], ["127.0.0.1", "fd00::5"], id="one per version"),
        pytest.param(["::1", "fd00::5", "2001:db8::1", "10.0.0.5"], ["10.0.0.5", "2001:db8::1"], id="both"),
    ],
)
def test_media_comes_to_where_phones_can_reach_it(addresses: list[str], chosen: list[str]) -> None:
    settings = relay_settings(Relay(port_min=20000), listeners(*addresses))
    assert [address.bind for address in settings.addresses] == chosen
    assert settings.port_min == 20000


def test_loopback_of_both_versions_if_somebody_wants_it() -> None:
    chosen = relay_settings(Relay(), listeners("127.0.0.1", "::1"), chosen=True).addresses
    assert [address.bind for address in chosen] == ["127.0.0.1", "::1"]


def test_a_cloud_host_advertises_its_public_address_for_media_too() -> None:
    mapped = Listener(
        transport=Transport.UDP, bind=Endpoint("10.0.0.5", 5060), advertise=Endpoint("198.51.100.7", 5060)
    )
    chosen = relay_settings(Relay(), [*listeners("127.0.0.1"), mapped]).addresses
    assert chosen == (RelayAddress(bind="10.0.0.5", advertise="198.51.100.7"),)


def test_configured_addresses_are_kept() -> None:
    mine = RelaySettings(addresses=(RelayAddress(bind="192.0.2.9"),), hold=9.0)
    assert relay_settings(mine, listeners("10.0.0.5")) == mine
    assert relay_of_host(mine, ["10.0.0.5"]) == mine


@pytest.mark.parametrize(
    ("addresses", "chosen"),
    [
        pytest.param(["127.0.0.1", "::1"], ["127.0.0.1"], id="loopback if there is nothing else"),
        pytest.param(["127.0.0.1", "10.0.0.5", "198.51.100.7"], ["198.51.100.7"], id="public"),
        pytest.param(["127.0.0.1", "100.64.0.9", "10.0.0.5"], ["100.64.0.9"], id="a provider's before a house's"),
        pytest.param(["172.17.0.1", "192.168.1.5"], ["192.168.1.5"], id="the one with the way to the Internet"),
        pytest.param(["10.0.0.5", "2001:db8::1", "fd00::1"], ["10.0.0.5", "2001:db8::1"], id="one per version"),
    ],
)
def test_without_sip_media_comes_to_an_address_of_the_host(
    monkeypatch: pytest.MonkeyPatch, addresses: list[str], chosen: list[str]
) -> None:
    monkeypatch.setattr("mediaproxy.server.places._outward", lambda: {"192.168.1.5"})
    found = relay_of_host(Relay(port_min=20000), addresses)
    assert [address.bind for address in found.addresses] == chosen
    assert found.port_min == 20000
