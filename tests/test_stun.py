"""Binding requests on the SIP port (RFC 5626 §8), with the vectors of RFC 5769."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mediaproxy.edge.stun import answer
from mediaproxy.endpoint import Endpoint

TRANSACTION = bytes.fromhex("b7e7a701bc34d686fa87dfae")
PLAIN = bytes.fromhex("000100002112a442") + TRANSACTION
SOFTWARE = bytes.fromhex("000100082112a442") + TRANSACTION + bytes.fromhex("8022000474657374")
INTEGRITY = bytes.fromhex("000100042112a442") + TRANSACTION + bytes.fromhex("00080000")


@pytest.mark.parametrize("request_", [PLAIN, SOFTWARE], ids=["plain", "software"])
@pytest.mark.parametrize(
    ("source", "value"),
    [
        (Endpoint("192.0.2.1", 32853), "0001a147e112a643"),
        (Endpoint("2001:db8:1234:5678:11:2233:4455:6677", 32853), "0002a1470113a9faa5d3f179bc25f4b5bed2b9d9"),
    ],
    ids=["v4", "v6"],
)
def test_binding(request_: bytes, source: Endpoint, value: str) -> None:
    attribute = bytes.fromhex("0020") + (len(value) // 2).to_bytes(2, "big") + bytes.fromhex(value)
    head = bytes.fromhex("0101") + len(attribute).to_bytes(2, "big") + bytes.fromhex("2112a442")
    assert answer(request_, source) == head + TRANSACTION + attribute


@pytest.mark.parametrize(
    "data",
    [b"", PLAIN[:-1], b"\x01\x01" + PLAIN[2:], PLAIN[:4] + b"\0\0\0\0" + PLAIN[8:], PLAIN + b"\0" * 4, INTEGRITY],
    ids=["empty", "short", "response", "old-stun", "wrong-length", "integrity"],
)
def test_no_answer(data: bytes) -> None:
    assert answer(data, Endpoint("192.0.2.1", 1)) is None


@given(st.binary(max_size=300))
def test_noise(data: bytes) -> None:
    answer(data, Endpoint("192.0.2.1", 1))
    answer(PLAIN[:2] + len(data).to_bytes(2, "big") + PLAIN[4:] + data, Endpoint("192.0.2.1", 1))
