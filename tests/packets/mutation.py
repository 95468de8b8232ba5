"""Packets that are nearly right: lengths, versions, options, fragments, VLAN tags, truncated headers, any byte."""

import random
from collections.abc import Callable

from tests.packets.datagram import ones_sum

_AT = 14
"Where the IP header is."

Mutation = Callable[[bytearray, random.Random], bytearray]


def mutated(frame: bytes, rng: random.Random) -> bytes:
    """The frame with one to three things wrong with it, at least as long as an Ethernet header."""
    data = bytearray(frame)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        data = rng.choice(_MUTATIONS)(data, rng)
    if rng.random() < 0.7:
        _repair(data)
    return bytes(data)


def _repair(data: bytearray) -> None:
    """Make the IPv4 header's checksum right again, so that what is wrong is looked at."""
    size = 4 * (data[_AT] & 15) if len(data) > _AT else 0
    if size >= 20 and len(data) >= _AT + size and data[_AT] >> 4 == 4:
        data[_AT + 10 : _AT + 12] = b"\0\0"
        data[_AT + 10 : _AT + 12] = (ones_sum(bytes(data[_AT : _AT + size])) ^ 0xFFFF).to_bytes(2, "big")


def _set(data: bytearray, at: int, value: bytes) -> bytearray:
    if at + len(value) <= len(data):
        data[at : at + len(value)] = value
    return data


def _any_byte(data: bytearray, rng: random.Random) -> bytearray:
    return _set(data, rng.randrange(12, max(13, len(data))), bytes([rng.randrange(256)]))


def _header_byte(data: bytearray, rng: random.Random) -> bytearray:
    return _set(
        data, rng.randrange(12, min(14 + 60, max(13, len(data)))), bytes([rng.choice((0, 1, 255, rng.randrange(256)))])
    )


def _truncated(data: bytearray, rng: random.Random) -> bytearray:
    return data[: rng.randrange(14, max(15, len(data)))]


def _padded(data: bytearray, rng: random.Random) -> bytearray:
    return data + bytes(rng.randrange(1, 64))


def _first_byte(data: bytearray, rng: random.Random) -> bytearray:
    return _set(
        data, _AT, bytes([rng.choice((0x45, 0x46, 0x4F, 0x44, 0x40, 0x55, 0x60, 0x65, 0x25, rng.randrange(256)))])
    )


def _ip_length(data: bytearray, rng: random.Random) -> bytearray:
    return _set(
        data,
        _AT + rng.choice((2, 4)),
        rng.choice((0, 8, 19, 20, 27, 28, 65535, rng.randrange(65536))).to_bytes(2, "big"),
    )


def _udp_length(data: bytearray, rng: random.Random) -> bytearray:
    at = _AT + rng.choice((20, 40)) + 4
    return _set(data, at, rng.choice((0, 7, 8, 9, 19, 20, 65535, rng.randrange(2048))).to_bytes(2, "big"))


def _checksum(data: bytearray, rng: random.Random) -> bytearray:
    at = _AT + rng.choice((20, 40)) + 6
    return _set(data, at, rng.choice((0, 0xFFFF, rng.randrange(65536))).to_bytes(2, "big"))


def _fragment(data: bytearray, rng: random.Random) -> bytearray:
    return _set(data, _AT + 6, rng.choice((0x2000, 1, 0x1FFF, 0x4000, 0x8000, 0x6000)).to_bytes(2, "big"))


def _ttl(data: bytearray, rng: random.Random) -> bytearray:
    return _set(data, _AT + rng.choice((7, 8)), bytes([rng.choice((0, 1, 2, 3, 255))]))


def _options(data: bytearray, rng: random.Random) -> bytearray:
    """IPv4 options, with a length that agrees."""
    words = rng.randrange(1, 11)
    if len(data) < _AT + 20:
        return data
    data[_AT] = 0x45 + words
    length = int.from_bytes(data[_AT + 2 : _AT + 4], "big") + 4 * words
    data[_AT + 2 : _AT + 4] = (length & 0xFFFF).to_bytes(2, "big")
    return data[: _AT + 20] + rng.randbytes(4 * words) + data[_AT + 20 :]


def _extension(data: bytearray, rng: random.Random) -> bytearray:
    """An IPv6 extension header in front of what follows, again and again."""
    for _ in range(rng.choice((1, 1, 2, 6, 7))):
        if len(data) < _AT + 40:
            return data
        units = rng.choice((0, 0, 1, 2))
        body = bytearray(rng.randbytes(8 + 8 * units))
        body[0], body[1] = data[_AT + 6], units
        data[_AT + 6] = rng.choice((0, 43, 44, 60, 60, 51, rng.randrange(256)))
        if data[_AT + 6] == 44:
            body = body[:8]
            body[2:4] = rng.choice((0, 1, 2, 8, rng.randrange(65536))).to_bytes(2, "big")
        length = int.from_bytes(data[_AT + 4 : _AT + 6], "big") + len(body)
        data[_AT + 4 : _AT + 6] = (length & 0xFFFF).to_bytes(2, "big")
        data = data[: _AT + 40] + body + data[_AT + 40 :]
    return data


def _vlan(data: bytearray, rng: random.Random) -> bytearray:
    """A tag that no hardware has taken off."""
    return data[:12] + rng.choice((b"\x81\x00", b"\x88\xa8")) + rng.randbytes(2) + data[12:]


def _type(data: bytearray, rng: random.Random) -> bytearray:
    return _set(data, 12, rng.choice((b"\x08\x00", b"\x86\xdd", b"\x08\x06", b"\x81\x00", b"\x88\x64")))


def _port(data: bytearray, rng: random.Random) -> bytearray:
    return _set(
        data, _AT + rng.choice((20, 40)) + 2, rng.choice((19999, 20000, 20001, 20002, 20063, 20064)).to_bytes(2, "big")
    )


def _address(data: bytearray, rng: random.Random) -> bytearray:
    at = _AT + rng.choice((12, 16, 8, 24))
    return _set(data, at + rng.randrange(4), bytes([rng.randrange(256)]))


def _spliced(data: bytearray, rng: random.Random) -> bytearray:
    at = rng.randrange(14, max(15, len(data)))
    return data[:at] + rng.randbytes(rng.randrange(1, 9)) + data[at:]


_MUTATIONS: tuple[Mutation, ...] = (
    _any_byte, _header_byte, _header_byte, _truncated, _padded, _first_byte, _ip_length, _udp_length, _checksum,
    _fragment, _ttl, _options, _extension, _extension, _vlan, _type, _port, _address, _spliced,
)  # fmt: skip
