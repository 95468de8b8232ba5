"""Addresses and ports: every spelling leads to one value, and each address to the kind of its network."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mediaproxy.endpoint import Endpoint, Scope, ip_address, same_prefix, scope

addresses = st.ip_addresses().map(str)
ports = st.integers(0, 65535)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("192.0.2.1", "192.0.2.1", id="ipv4"),
        pytest.param("2001:DB8:0:0::1", "2001:db8::1", id="ipv6-canonical"),
        pytest.param("[2001:db8::1]", "2001:db8::1", id="brackets"),
        pytest.param("::ffff:192.0.2.1", "192.0.2.1", id="mapped"),
        pytest.param("[::ffff:c000:201]", "192.0.2.1", id="mapped-in-brackets"),
        pytest.param("example.com", None, id="host-name"),
        pytest.param("192.0.2", None, id="short"),
        pytest.param("192.0.2.256", None, id="out-of-range"),
        pytest.param("010.0.0.1", None, id="leading-zero"),
        pytest.param("", None, id="empty"),
        pytest.param("1" * 100_000, None, id="endless"),
        pytest.param("\xff", None, id="latin-1"),
    ],
)
def test_addresses(text: str, expected: str | None) -> None:
    address = ip_address(text)
    assert (None if address is None else str(address)) == expected


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("10.0.0.0", Scope.PRIVATE),
        ("10.255.255.255", Scope.PRIVATE),
        ("11.0.0.0", Scope.PUBLIC),
        ("9.255.255.255", Scope.PUBLIC),
        ("172.15.255.255", Scope.PUBLIC),
        ("172.16.0.0", Scope.PRIVATE),
        ("172.31.255.255", Scope.PRIVATE),
        ("172.32.0.0", Scope.PUBLIC),
        ("192.168.0.0", Scope.PRIVATE),
        ("192.168.255.255", Scope.PRIVATE),
        ("192.169.0.0", Scope.PUBLIC),
        ("100.63.255.255", Scope.PUBLIC),
        ("100.64.0.0", Scope.SHARED),
        ("100.127.255.255", Scope.SHARED),
        ("100.128.0.0", Scope.PUBLIC),
        ("127.0.0.1", Scope.LOOPBACK),
        ("169.254.1.1", Scope.LINK_LOCAL),
        ("0.0.0.0", Scope.UNSPECIFIED),
        ("224.0.0.1", Scope.MULTICAST),
        ("255.255.255.255", Scope.BROADCAST),
        ("198.51.100.7", Scope.PUBLIC),
        ("::", Scope.UNSPECIFIED),
        ("::1", Scope.LOOPBACK),
        ("fd00::1", Scope.ULA),
        ("fe80::1", Scope.LINK_LOCAL),
        ("ff02::1", Scope.MULTICAST),
        ("2001:db8::1", Scope.PUBLIC),
        ("::ffff:10.0.0.1", Scope.PRIVATE),
        ("[fd00::1]", Scope.ULA),
        ("example.com", None),
    ],
)
def test_scopes(address: str, expected: Scope | None) -> None:
    assert scope(address) == expected


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("192.0.2.1", id="no-port"),
        pytest.param("192.0.2.1:", id="empty-port"),
        pytest.param("192.0.2.1:65536", id="port-out-of-range"),
        pytest.param("192.0.2.1:-1", id="negative-port"),
        pytest.param("192.0.2.1:\xb2", id="superscript-port"),
        pytest.param("2001:db8::1:5060", id="ipv6-without-brackets"),
        pytest.param("[2001:db8::1", id="open-bracket"),
        pytest.param("example.com:5060", id="host-name"),
        pytest.param(":5060", id="no-host"),
    ],
)
def test_what_is_no_endpoint_says_so(text: str) -> None:
    with pytest.raises(ValueError, match="is not"):
        Endpoint.parse(text)


@given(addresses, ports)
def test_text_and_back(address: str, port: int) -> None:
    endpoint = Endpoint.of(address, port)
    assert Endpoint.parse(str(endpoint)) == endpoint
    assert Endpoint.of(endpoint.host, port) == endpoint
    assert endpoint.version == ipaddress.ip_address(endpoint.address).version
    assert endpoint.with_port(1).with_port(port) == endpoint


@given(st.text(max_size=60))
def test_any_text_is_an_endpoint_or_a_value_error(text: str) -> None:
    try:
        endpoint = Endpoint.parse(text)
    except ValueError:
        return
    assert Endpoint.parse(str(endpoint)) == endpoint


@pytest.mark.parametrize(
    ("one", "other", "v4_bits", "v6_bits", "expected"),
    [
        ("192.0.2.1", "192.0.2.1", 32, 64, True),
        ("192.0.2.1", "192.0.2.2", 32, 64, False),
        ("192.0.2.1", "192.0.2.200", 24, 64, True),
        ("192.0.2.1", "192.0.3.1", 24, 64, False),
        ("2001:db8::1", "2001:db8::ffff", 32, 64, True),
        ("2001:db8::1", "2001:db8:0:1::1", 32, 64, False),
        ("2001:db8::1", "2001:db8::2", 32, 128, False),
        ("192.0.2.1", "2001:db8::1", 0, 0, False),
        ("192.0.2.1", "198.51.100.1", 0, 64, True),
        ("example.com", "example.com", 32, 64, False),
        ("192.0.2.1", "::ffff:192.0.2.1", 32, 64, True),
    ],
)
def test_prefixes(one: str, other: str, v4_bits: int, v6_bits: int, expected: bool) -> None:
    assert same_prefix(one, other, v4_bits, v6_bits) is expected
    assert same_prefix(other, one, v4_bits, v6_bits) is expected
