"""Via: read as the RFC says, edited where it is edited and nowhere else."""

import contextlib

import pytest
from hypothesis import given

from mediaproxy.endpoint import Endpoint
from mediaproxy.sip.grammar import WS, SipError
from mediaproxy.sip.via import Via
from tests.sip_corpus import quickly, values


@pytest.mark.parametrize(
    ("text", "transport", "host", "port", "params"),
    [
        ("SIP/2.0/UDP 192.0.2.1", "UDP", "192.0.2.1", None, {}),
        ("SIP/2.0/tls h.example.com:5061;branch=z9hG4bK1", "TLS", "h.example.com", 5061, {"branch": "z9hG4bK1"}),
        (
            "SIP / 2.0\r\n /UDP\r\n    192.0.2.2 : 5060 ; branch =\r\n 390skdjuw",
            "UDP",
            "192.0.2.2",
            5060,
            {"branch": "390skdjuw"},
        ),
        (
            "SIP/2.0/TCP [2001:db8::9:1]:6050;received=2001:db8::9:255",
            "TCP",
            "[2001:db8::9:1]",
            6050,
            {"received": "2001:db8::9:255"},
        ),
        ("SIP/2.0/UDP h;rport;self=1", "UDP", "h", None, {"rport": "", "self": "1"}),
        ("SIP/2.0/UNKNOWN-x t4;;;", "UNKNOWN-X", "t4", None, {}),
        ("SIP/2.0/UDP my_host", "UDP", "my_host", None, {}),
    ],
)
def test_via(text: str, transport: str, host: str, port: int | None, params: dict[str, str]) -> None:
    via = Via.parse(text)
    assert (via.protocol, via.transport, via.host, via.port, dict(via.params)) == (
        "SIP/2.0",
        transport,
        host,
        port,
        params,
    )
    assert (via.branch, via.received, via.rport) == (
        params.get("branch", ""),
        params.get("received"),
        params.get("rport"),
    )
    assert via.sent_by == (host if port is None else f"{host}:{port}")
    assert str(via) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "SIP/2.0/UDP",
        "SIP/2.0 h",
        "SIP/2.0/UDP h h",
        "SIP/2.0/UDP h:x",
        "SIP/2.0/UDP h:70000",
        "SIP/2.0/UDP :5060",
        "SIP/2.0/UDP ;branch=1",
        "SIP/2.0/UDP [::1",
        "SIP/2.0/UDP ::1",
        "SIP//UDP h",
        "SIP/2.0/U\xb5 h",
        ";",
        "SIP/2.0/UDP h:\xb2",
    ],
)
def test_no_via(text: str) -> None:
    with pytest.raises(SipError):
        Via.parse(text)


SOURCE = Endpoint("198.51.100.9", 999)


@pytest.mark.parametrize(
    ("text", "endpoint"),
    [
        ("SIP/2.0/UDP 192.0.2.1", Endpoint("192.0.2.1", 5060)),
        ("SIP/2.0/TLS 192.0.2.1", Endpoint("192.0.2.1", 5061)),
        ("SIP/2.0/UDP 192.0.2.1:7", Endpoint("192.0.2.1", 7)),
        ("SIP/2.0/UDP 192.0.2.1:0", Endpoint("192.0.2.1", 5060)),
        ("SIP/2.0/UDP h:7;received=192.0.2.2", Endpoint("192.0.2.2", 7)),
        ("SIP/2.0/UDP h:7;received=192.0.2.2;rport", Endpoint("192.0.2.2", 7)),
        ("SIP/2.0/UDP h:7;received=192.0.2.2;rport=8", Endpoint("192.0.2.2", 8)),
        ("SIP/2.0/UDP h:7;received=192.0.2.2;rport=99999", Endpoint("192.0.2.2", 7)),
        ("SIP/2.0/UDP 192.0.2.1:7;rport=8", Endpoint("192.0.2.1", 7)),
        ("SIP/2.0/UDP h;received=[2001:db8::1]", Endpoint("2001:db8::1", 5060)),
        ("SIP/2.0/UDP h;received=2001:db8::1", Endpoint("2001:db8::1", 5060)),
        ("SIP/2.0/UDP h:7;maddr=224.2.0.1;ttl=1;received=192.0.2.2", Endpoint("224.2.0.1", 7)),
        ("SIP/2.0/UDP h:7;received=nonsense", SOURCE),
        ("SIP/2.0/UDP h:7", SOURCE),
    ],
)
def test_where_the_response_goes(text: str, endpoint: Endpoint) -> None:
    assert Via.parse(text).response_endpoint(SOURCE) == endpoint
    assert Via.parse(text).response_endpoint() == (None if endpoint is SOURCE else endpoint)


def test_via_edits() -> None:
    via = Via.parse("SIP/2.0/UDP  h : 5 ; Rport ; branch=z9hG4bKx")
    edited = via.with_param("rport", "61000").with_param("received", "192.0.2.1")
    assert str(edited) == "SIP/2.0/UDP  h : 5 ; Rport=61000 ; branch=z9hG4bKx;received=192.0.2.1"
    assert str(edited.without_param("received").without_param("rport")) == "SIP/2.0/UDP  h : 5 ; branch=z9hG4bKx"
    assert [v.host for v in Via.parse_many("SIP/2.0/UDP a,\r\n SIP/2.0/TCP b")] == ["a", "b"]


@given(values)
def test_lossless_or_our_error(text: str) -> None:
    try:
        value = Via.parse(text)
    except SipError:
        return
    assert str(value) == text
    edited = value.with_param("NEW", "1")
    assert edited.params["new"] == "1"
    assert str(edited.without_param("new")).rstrip(WS) == text.rstrip(WS)


@pytest.mark.parametrize(
    "evil",
    [
        "SIP/2.0/UDP" + " " * 60000,
        "SIP" + " /" * 30000,
        "SIP/2.0/UDP h" + "; " * 30000,
        "SIP/2.0/UDP h" + ' ; a = "' * 8000,
        "SIP/2.0/UDP h:" + " " * 60000,
        "SIP/2.0/UDP " + "h" * 60000 + " x",
    ],
    ids=range(6),
)
def test_long_evil_text_takes_no_time(evil: str) -> None:
    with quickly(), contextlib.suppress(SipError):
        assert str(Via.parse(evil)) == evil
