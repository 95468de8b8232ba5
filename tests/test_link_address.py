"""How operators name a control link."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mediaproxy.link.address import PORT, Address, Kind, host_text


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("unix:/run/relay.sock", Address(kind=Kind.UNIX, path="/run/relay.sock")),
        ("unix:relay.sock", Address(kind=Kind.UNIX, path="relay.sock")),
        ("tls://Relay1.Example.com.", Address(kind=Kind.TLS, host="relay1.example.com", port=PORT)),
        ("tls://relay1.example.com:1", Address(kind=Kind.TLS, host="relay1.example.com", port=1)),
        ("tls://192.0.2.1:25061", Address(kind=Kind.TLS, host="192.0.2.1", port=25061)),
        ("tls://[2001:DB8:0::1]:25061", Address(kind=Kind.TLS, host="2001:db8::1", port=25061)),
        ("tls://0.0.0.0:0", Address(kind=Kind.TLS, host="0.0.0.0", port=0)),
        ("tcp://127.0.0.1:9", Address(kind=Kind.TCP, host="127.0.0.1", port=9)),
        ("tcp://[::1]", Address(kind=Kind.TCP, host="::1", port=PORT)),
        ("tcp://localhost:9", Address(kind=Kind.TCP, host="localhost", port=9)),
    ],
)
def test_addresses(text: str, address: Address) -> None:
    assert Address.parse(text) == address
    assert Address.parse(str(address)) == address


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "expected unix:/PATH, tls://HOST:PORT or tcp://127.0.0.1:PORT, got ''"),
        ("relay1.example.com:25060", "expected unix:"),
        ("unix:", "expected unix:"),
        ("tls:relay1", "expected unix:"),
        ("tls://", "expected unix:"),
        ("tls://a b", "expected unix:"),
        ("tls://relay:70000", "expected unix:"),
        ("tls://2001:db8::1:25060", "expected unix:"),
        ("http://relay:1", "expected unix:"),
        (
            "tcp://192.0.2.1:25060",
            "plain TCP only works within one host, on 127.0.0.1 or ::1; use tls://192.0.2.1:25060",
        ),
        (
            "tcp://10.0.0.1:25060",
            "plain TCP only works within one host, on 127.0.0.1 or ::1; use tls://10.0.0.1:25060 with certificates",
        ),
        (
            "tcp://relay1.example.com",
            "plain TCP only works within one host, on 127.0.0.1 or ::1; use tls://relay1.example.com:25060",
        ),
    ],
)
def test_what_is_none(text: str, why: str) -> None:
    with pytest.raises(ValueError, match="^" + re.escape(why)):
        Address.parse(text)


@given(st.text())
def test_no_text_raises_anything_else(text: str) -> None:
    for scheme in ("", "unix:", "tls://", "tcp://"):
        try:
            assert Address.parse(str(Address.parse(scheme + text))) == Address.parse(scheme + text)
        except ValueError:
            continue


def test_hosts_are_compared_as_names_and_addresses_are() -> None:
    assert host_text("EXAMPLE.com.") == "example.com"
    assert host_text("[2001:DB8::0]") == host_text("2001:db8::") == "2001:db8::"
