"""``[[listen]]`` and ``[ng]``: addresses, and each mistake in words that say what to do."""

from pathlib import Path

import pytest

from mediaproxy.config import ConfigError, loads
from mediaproxy.dialects.doorsettings import PORTS, SUITABLE, DoorAddress, DoorKind, DoorProtocol
from mediaproxy.dialects.ng.settings import CallbackFormat


def listen(protocol: str, address: str, more: str = "") -> str:
    return f'[[listen]]\nprotocol = "{protocol}"\naddress = "{address}"\n{more}\n'


@pytest.mark.parametrize(
    ("protocol", "text", "address"),
    [
        ("ng", "udp://127.0.0.1:2223", ("udp", "127.0.0.1", 2223)),
        ("ng", "udp://127.0.0.1", ("udp", "127.0.0.1", 2223)),
        ("ng", "tcp://[::1]:1234", ("tcp", "::1", 1234)),
        ("ng", "tls://[2001:DB8::1]", ("tls", "2001:db8::1", 2223)),
        ("ng-http", "http://localhost", ("http", "localhost", 2225)),
        ("ng-http", "https://0.0.0.0:443/", ("https", "0.0.0.0", 443)),
        ("rtpproxy", "udp://127.0.0.1", ("udp", "127.0.0.1", 22222)),
        ("mediaproxy1", "tcp://127.0.0.1", ("tcp", "127.0.0.1", 25060)),
        ("mediaproxy2", "tcp://127.0.0.1:0", ("tcp", "127.0.0.1", 0)),
        ("management", "tls://127.0.0.1", ("tls", "127.0.0.1", 25061)),
    ],
)
def test_addresses(protocol: str, text: str, address: tuple[str, str, int]) -> None:
    found = DoorAddress.parse(text, DoorProtocol(protocol))
    assert (found.kind.value, found.host, found.port) == address
    assert DoorAddress.parse(str(found), DoorProtocol(protocol)) == found


def test_unix_sockets() -> None:
    found = DoorAddress.parse("unix:/run/door.sock", DoorProtocol.NG)
    assert (found.kind, found.path, str(found)) == (DoorKind.UNIX, "/run/door.sock", "unix:/run/door.sock")
    found = DoorAddress.parse("cunix:/run/door.sock", DoorProtocol.RTPPROXY)
    assert (found.kind, found.path, str(found)) == (DoorKind.CUNIX, "/run/door.sock", "cunix:/run/door.sock")
    assert found.local
    assert found.local


@pytest.mark.parametrize(
    ("protocol", "text"),
    [
        ("ng", ""),
        ("ng", "127.0.0.1:2223"),
        ("ng", "udp:127.0.0.1:2223"),
        ("ng", "udp://127.0.0.1:70000"),
        ("ng", "udp://127.0.0.1:port"),
        ("ng", "udp://::1:2223"),
        ("ng", "http://127.0.0.1:2223"),
        ("ng", "unix:"),
        ("ng", "cunix:/x"),
        ("rtpproxy", "cunix:"),
        ("ng", "unix"),
        ("ng-http", "udp://127.0.0.1:2223"),
        ("mediaproxy1", "udp://127.0.0.1:25060"),
        ("rtpproxy", "tls://127.0.0.1:22222"),
    ],
)
def test_what_is_no_address(protocol: str, text: str) -> None:
    with pytest.raises(ValueError, match=rf"expected .*{SUITABLE[DoorProtocol(protocol)][0]}:.*, got"):
        DoorAddress.parse(text, DoorProtocol(protocol))


def test_every_protocol_has_its_port_and_ways() -> None:
    assert set(PORTS) == set(SUITABLE) == set(DoorProtocol)


def test_a_configuration_with_doors() -> None:
    config = loads(
        listen("ng", "udp://192.0.2.1:2223", 'allow = ["192.0.2.0/24", "2001:db8::1"]\nmax_request = 2048')
        + listen("rtpproxy", "unix:door.sock", 'mode = "0600"\ngroup = "kamailio"')
        + listen("management", "tls://127.0.0.1:25061", 'certificate = "c.pem"\nkey = "k.pem"')
        + '[ng]\nmax_sessions = 100\ncallback_url = "http://%%:8090/RPC2"\ncallback_format = "kamailio"\n',
        directory=Path("/etc/mediaproxy"),
    )
    first, second, third = config.listen
    assert (first.where.port, first.allow, first.max_request) == (2223, ("192.0.2.0/24", "2001:db8::1"), 2048)
    assert second.where.path == "/etc/mediaproxy/door.sock"
    assert (third.certificate, third.key) == ("/etc/mediaproxy/c.pem", "/etc/mediaproxy/k.pem")
    assert (config.ng.max_sessions, config.ng.callback_format) == (100, CallbackFormat.KAMAILIO)


def test_no_doors_by_default() -> None:
    config = loads("")
    assert config.listen == ()
    assert config.ng.max_sessions is None


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (listen("sip", "udp://127.0.0.1:1"), 'listen[0].protocol: expected one of "mediaproxy1"'),
        ('[[listen]]\nprotocol = "ng"', "listen[0]: the key address is missing"),
        (listen("ng", "tls:127.0.0.1"), "line 3: listen[0].address: expected udp://ADDRESS:2223"),
        (listen("ng", "udp://example.com"), "listen[0].address: expected an IP address of this host"),
        (
            listen("ng", "udp://0.0.0.0"),
            'listen[0]: expected the addresses of your SIP servers, such as allow = ["192.0.2.10"], because others can'
            " reach udp://0.0.0.0:2223; or listen on 127.0.0.1",
        ),
        (listen("ng", "udp://[::]"), "because others can reach udp://[::]:2223"),
        (listen("ng-http", "http://192.0.2.1"), "because others can reach http://192.0.2.1:2225"),
        (
            listen("ng", "udp://0.0.0.0", 'allow = ["example.com"]'),
            "listen[0].allow[0]: expected an address or a prefix",
        ),
        (listen("ng", "unix:/x", 'allow = ["192.0.2.1"]'), "listen[0].allow: expected nothing for a UNIX socket"),
        (listen("ng", "tls://127.0.0.1"), "listen[0]: tls://127.0.0.1:2223 needs certificate (and key)"),
        (listen("ng-http", "https://127.0.0.1"), "needs certificate"),
        (listen("ng", "tcp://127.0.0.1", 'key = "k.pem"'), "listen[0].key: expected nothing: only tls or https"),
        (listen("ng", "tcp://127.0.0.1", 'group = "x"'), "listen[0].group: expected nothing: only a UNIX socket"),
        (listen("ng", "tcp://127.0.0.1", 'mode = "0600"'), "listen[0].mode: expected nothing: only a UNIX socket has"),
        (listen("ng", "unix:/x", 'mode = "rw"'), "listen[0].mode: expected permissions in octal digits and quotes"),
        (
            listen("ng", "udp://127.0.0.1", "max_request = 10"),
            "listen[0].max_request: expected a whole number from 1024",
        ),
        (listen("ng", "udp://127.0.0.1", "max_connections = 0"), "listen[0].max_connections: expected"),
        (
            listen("ng", "udp://127.0.0.1") + listen("ng", "udp://127.0.0.1:2223"),
            "listen[1].address: expected an address that no other door has",
        ),
        (listen("ng", "tcp://127.0.0.1:5") + listen("ng-http", "http://127.0.0.1:5"), "listen[1].address: expected"),
        (listen("ng", "unix:/x") + listen("rtpproxy", "unix:/x"), "listen[1].address: expected"),
        (listen("ng", "unix:/x") + listen("rtpproxy", "cunix:/x"), "listen[1].address: expected"),
        (listen("ng", "unix:/x") + '[dispatcher]\nsocket_path = "/x"', "listen[0].address: expected"),
        ("[ng]\nmax_cpu = 120", "ng.max_cpu: expected a number from 0 to 100"),
        ("[ng]\nmax_sessions = -1", "ng.max_sessions: expected a whole number from 0"),
        ('[ng]\ncallback_url = "192.0.2.1:8090"', "ng.callback_url: expected a URL such as"),
        ('[ng]\ncallback_url = "http://%%:99999/"', "ng.callback_url: expected a URL such as"),
        ('[ng]\ncallback_format = "xml"', 'ng.callback_format: expected one of "sems"'),
        ("[ng]\ninterfaces = []", "ng.interfaces: no such key"),
        ('[rtpproxy]\ntimeout_sockets = ["unix:relative"]', "rtpproxy.timeout_sockets[0]: expected"),
        (
            '[rtpproxy]\ntimeout_sockets = ["tcp:*", "tcp:h:9", "tcp:h:*", "udp:h:9"]',
            "rtpproxy.timeout_sockets[3]: exp",
        ),
        ('[rtpproxy]\ntimeout_sockets = ["tcp:9000"]', "rtpproxy.timeout_sockets[0]: expected"),
    ],
)
def test_mistakes(text: str, complaint: str) -> None:
    with pytest.raises(ConfigError) as found:
        loads(text, "mediaproxy.toml")
    assert str(found.value).startswith("mediaproxy.toml: ")
    assert complaint in str(found.value)


def test_what_is_no_mistake() -> None:
    loads(listen("ng", "udp://127.0.0.1:5") + listen("ng", "tcp://127.0.0.1:5") + listen("ng", "udp://127.0.0.2:5"))
    loads(listen("ng", "udp://127.0.0.1:0") * 2)
    loads(listen("ng", "udp://0.0.0.0", 'allow = ["0.0.0.0/0"]'))
