"""The relays of a configuration: what fits, and what is wrong with which line."""

from pathlib import Path

import pytest

from mediaproxy.config import ConfigError, load, loads
from mediaproxy.dispatcher.settings import RelayEntry

TLS = 'tls = { certificate = "host.pem", authorities = "ca.pem" }\n'


def relay(**keys: str | int) -> str:
    lines = (f"{key} = {value}" if isinstance(value, int) else f'{key} = "{value}"' for key, value in keys.items())
    return "[[dispatcher.relays]]\n" + "\n".join(lines) + "\n"


def test_a_whole_file(tmp_path: Path) -> None:
    (tmp_path / "mediaproxy.toml").write_text(
        'edge.enabled = false\n[dispatcher]\nmediaproxy_socket = "module.sock"\ngroup = "kamailio"\n'
        + TLS
        + relay(name="here", address="local", weight=2)
        + relay(name="beside", address="unix:relay.sock")
        + relay(name="far", address="tls://relay1.example.com", tier=1)
        + '[relay.listen]\naddress = "unix:listen.sock"\ncertificate = "relay.pem"\n'
    )
    config = load(tmp_path / "mediaproxy.toml")
    settings = config.dispatcher
    assert settings.mediaproxy_socket == f"{tmp_path}/module.sock"
    assert settings.relays == (
        RelayEntry(name="here", address="local", weight=2.0),
        RelayEntry(name="beside", address=f"unix:{tmp_path}/relay.sock"),
        RelayEntry(name="far", address="tls://relay1.example.com", tier=1),
    )
    assert (settings.tls.certificate, settings.tls.key) == (f"{tmp_path}/host.pem", "")
    assert config.relay.listen.address == f"unix:{tmp_path}/listen.sock"
    assert config.relay.listen.certificate == f"{tmp_path}/relay.pem"


@pytest.mark.parametrize(
    ("text", "errors"),
    [
        pytest.param(
            relay(name="a", address="unix:/a") + relay(name="a", address="unix:/b"),
            ["line 5: dispatcher.relays[1].name: expected a name that no other relay has, got 'a'"],
            id="name twice",
        ),
        pytest.param(
            relay(name="", address="local") + relay(name="b", address="local"),
            [
                "line 2: dispatcher.relays[0].name: expected a name, got ''",
                "line 6: dispatcher.relays[1].address: another relay has the address local already",
            ],
            id="no name, and two in one place",
        ),
        pytest.param(
            relay(name="a", address="relay1:25060"),
            ["dispatcher.relays[0].address: expected local, unix:/PATH, tls://HOST:PORT or tcp://127.0.0.1:PORT, got"],
            id="no address",
        ),
        pytest.param(
            relay(name="a", address="tcp://192.0.2.1:25060"),
            [
                "dispatcher.relays[0].address: plain TCP only works within one host, on 127.0.0.1 or ::1; use tls://192.0"
            ],
            id="plain TCP",
        ),
        pytest.param(
            relay(name="a", address="tls://192.0.2.1:25060"),
            ["line 3: dispatcher.relays[0].address: TLS needs dispatcher.tls.certificate and dispatcher.tls."],
            id="TLS without certificates",
        ),
        pytest.param(
            "[dispatcher]\n" + TLS + relay(name="a", address="tls://192.0.2.1:0"),
            ["dispatcher.relays[0].address: expected a port from 1 to 65535, got 0"],
            id="port 0",
        ),
        pytest.param(
            'dispatcher.tls.authorities = "ca.pem"',
            ["dispatcher.tls: TLS needs dispatcher.tls.certificate: PEM files (docs/dispatcher.md)"],
            id="half",
        ),
        pytest.param(
            relay(name="a", address="local", weight=-1), ["relays[0].weight: expected a number from 0"], id="weight"
        ),
        pytest.param('dispatcher.mode = "rw"', ["dispatcher.mode: expected permissions in octal"], id="mode"),
        pytest.param(
            'dispatcher.socket_path = "unix:/run/a.sock"',
            ["dispatcher.socket_path: expected a path such as /run/a.sock, got 'unix:/run/a.sock'"],
            id="kind of socket",
        ),
        pytest.param(
            'dispatcher.srv = "yes"', ['dispatcher.srv: expected one of "nobody", "local", "everybody"'], id="srv"
        ),
        pytest.param(
            'relay.listen.address = "tls://relay.example.com:1"',
            [
                "relay.listen.address: expected an IP address of this host, got 'relay.example.com'",
                "relay.listen: TLS needs relay.listen.certificate and relay.listen.authorities",
            ],
            id="listening on a name",
        ),
    ],
)
def test_mistakes(text: str, errors: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        loads(text, "relays.toml")
    lines = str(caught.value).split("\n")
    assert len(lines) == len(errors), lines
    for line, error in zip(lines, errors, strict=True):
        assert line.startswith("relays.toml: ") and error in line
