"""relay/stun.py, with the vectors of RFC 5769, and noise."""

import random
import struct
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mediaproxy.endpoint import Endpoint
from mediaproxy.relay.stun import (
    COOKIE,
    Attribute,
    Class,
    Message,
    encode,
    error_code,
    parse,
    unknown_attributes,
    xor_address,
)

REQUEST = bytes.fromhex(
    "000100582112a442b7e7a701bc34d686fa87dfae"
    "802200105354554e207465737420636c69656e74"
    "002400046e0001ff"
    "80290008932ff9b151263b36"
    "000600096576746a3a68367659202020"
    "000800149aeaa70cbfd8cb56781ef2b5b2d3f249c1b571a2"
    "80280004e57a3bcf"
)
"RFC 5769 §2.1."
RESPONSE_V4 = bytes.fromhex(
    "0101003c2112a442b7e7a701bc34d686fa87dfae"
    "8022000b7465737420766563746f7220"
    "002000080001a147e112a643"
    "000800142b91f599fd9e90c38c7489f92af9ba53f06be7d7"
    "80280004c07d4c96"
)
"RFC 5769 §2.2."
RESPONSE_V6 = bytes.fromhex(
    "010100482112a442b7e7a701bc34d686fa87dfae"
    "8022000b7465737420766563746f7220"
    "002000140002a1470113a9faa5d3f179bc25f4b5bed2b9d9"
    "00080014a382954e4be67bf11784c97c8292c275bfe3ed41"
    "80280004c8fb0b4c"
)
"RFC 5769 §2.3."
PASSWORD = b"VOkJxbRl1RmTxUk/WvJxBt"
TRANSACTION = REQUEST[8:20]


@pytest.mark.parametrize("data", [REQUEST, RESPONSE_V4, RESPONSE_V6], ids=["request", "v4", "v6"])
def test_the_vectors_of_the_rfc(data: bytes) -> None:
    message = parse(data)
    assert message is not None
    assert message.fingerprint and message.authentic(PASSWORD) and not message.authentic(PASSWORD + b"x")
    assert message.transaction == TRANSACTION


def test_what_is_in_them() -> None:
    request = parse(REQUEST)
    assert request is not None and (request.kind, request.method) == (Class.REQUEST, 1)
    assert request.value(Attribute.USERNAME) == b"evtj:h6vY"
    assert request.value(Attribute.PRIORITY) == bytes.fromhex("6e0001ff")
    assert request.value(Attribute.USE_CANDIDATE) is None
    v4, v6 = parse(RESPONSE_V4), parse(RESPONSE_V6)
    assert v4 is not None and v6 is not None and v4.kind is Class.SUCCESS
    assert v4.value(Attribute.XOR_MAPPED_ADDRESS) == xor_address(Endpoint("192.0.2.1", 32853), TRANSACTION)
    six = Endpoint("2001:db8:1234:5678:11:2233:4455:6677", 32853)
    assert v6.value(Attribute.XOR_MAPPED_ADDRESS) == xor_address(six, TRANSACTION)


def head(kind: int = 1, length: int = 0, cookie: int = COOKIE) -> bytes:
    return struct.pack("!HHI", kind, length, cookie) + TRANSACTION


FINGERPRINT = struct.pack("!HHI", Attribute.FINGERPRINT, 4, zlib.crc32(head(length=8)) ^ 0x5354554E)
"Of a message without anything else."
BROKEN = {
    "empty": b"",
    "half a header": head()[:19],
    "another cookie": head(cookie=COOKIE + 1),
    "the first bits are not 0": head(kind=0x8001),
    "a length that is too long": head(length=4),
    "more than it says": head() + bytes(4),
    "a length that is no multiple of 4": head(length=2) + bytes(2),
    "half an attribute": head(length=4) + bytes.fromhex("00060005"),
    "an attribute whose padding is missing": head(length=8) + bytes.fromhex("000600056162"),
    "a wrong FINGERPRINT": REQUEST[:-1] + b"\0",
    "something after FINGERPRINT": head(length=16) + FINGERPRINT + bytes.fromhex("0024000400000000"),
    "a short MESSAGE-INTEGRITY": head(length=8) + bytes.fromhex("0008000401020304"),
}


@pytest.mark.parametrize("data", BROKEN.values(), ids=BROKEN)
def test_what_is_no_message(data: bytes) -> None:
    assert parse(data) is None


def test_what_comes_after_the_integrity_counts_for_nothing() -> None:
    plain = Message(kind=Class.REQUEST, transaction=TRANSACTION)
    whole = encode(plain, PASSWORD)[20:44]
    data = head(length=28) + whole + struct.pack("!HH", Attribute.USE_CANDIDATE, 0)
    message = parse(data)
    assert message is not None and message.attributes == () and message.authentic(PASSWORD)


def test_without_password_nothing_is_authentic() -> None:
    message = parse(encode(Message(kind=Class.REQUEST, transaction=TRANSACTION)))
    assert message is not None and not message.authentic(b"") and message.integrity is None


def test_values() -> None:
    assert error_code(487, "Role Conflict") == b"\0\0\x04\x57Role Conflict"
    assert unknown_attributes((0x7FFF, 1)) == b"\x7f\xff\0\1"


attributes = st.lists(
    st.tuples(
        st.integers(0, 0xFFFF).filter(lambda n: n not in (Attribute.MESSAGE_INTEGRITY, Attribute.FINGERPRINT)),
        st.binary(max_size=40),
    ),
    max_size=5,
)


@given(
    st.sampled_from(Class),
    st.integers(0, 0xFFF),
    st.binary(min_size=12, max_size=12),
    attributes,
    st.binary(max_size=40),
)
def test_what_is_written_is_read(
    kind: Class, method: int, transaction: bytes, values: list[tuple[int, bytes]], password: bytes
) -> None:
    message = Message(kind=kind, method=method, transaction=transaction, attributes=tuple(values))
    for given_password in (None, password):
        read = parse(encode(message, given_password))
        assert read is not None and read.fingerprint
        assert (read.kind, read.method, read.transaction) == (kind, method, transaction)
        assert read.attributes == message.attributes
        assert read.authentic(password) == (given_password is not None)


@given(st.binary(max_size=300))
def test_noise(data: bytes) -> None:
    parse(data)
    parse(head(length=len(data) & ~3) + data)


@given(st.integers(0, len(REQUEST) * 8 - 1))
def test_one_wrong_bit_is_noticed(bit: int) -> None:
    data = bytearray(REQUEST)
    data[bit // 8] ^= 1 << bit % 8
    message = parse(bytes(data))
    assert message is None or not message.fingerprint


def test_random_attributes_do_not_loop() -> None:
    rng = random.Random(1)
    for _ in range(2000):
        body = rng.randbytes(4 * rng.randrange(20))
        parse(head(length=len(body)) + body)
