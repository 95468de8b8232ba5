"""STUN binding requests on the SIP port: the keep-alive of phones that do outbound over UDP (RFC 5626 §4.4.2, §8).

A datagram and its source come in, the binding response goes out. Such a phone takes a server that does not answer for
dead. Only requests without anything to authenticate or to understand are answered (RFC 8489 §6.3.1).
"""

import ipaddress
import struct

from mediaproxy.endpoint import Endpoint

COOKIE = 0x2112A442
_HEADER = struct.Struct("!HHI12s")
_REQUEST, _SUCCESS = 0x0001, 0x0101
_XOR_MAPPED_ADDRESS = 0x0020
LONGEST = 256
"Bytes of a request that is looked at; a keep-alive has 20, and some 40 with a name of its software."


def answer(data: bytes, source: Endpoint) -> bytes | None:
    """The response to a binding request; None if it is none."""
    if not _HEADER.size <= len(data) <= LONGEST:
        return None
    kind, length, cookie, transaction = _HEADER.unpack_from(data)
    if kind != _REQUEST or cookie != COOKIE or length != len(data) - _HEADER.size or length % 4:
        return None
    if _asks_too_much(data[_HEADER.size :]):
        return None
    address = ipaddress.ip_address(source.address)
    mask = struct.pack("!I", COOKIE) + transaction
    mapped = bytes(one ^ other for one, other in zip(address.packed, mask, strict=False))
    value = struct.pack("!BBH", 0, 1 if address.version == 4 else 2, source.port ^ (COOKIE >> 16)) + mapped
    attribute = struct.pack("!HH", _XOR_MAPPED_ADDRESS, len(value)) + value
    return _HEADER.pack(_SUCCESS, len(attribute), COOKIE, transaction) + attribute


def _asks_too_much(attributes: bytes) -> bool:
    """Whether there is an attribute that must be understood (below 0x8000), or a broken one."""
    at = 0
    while at < len(attributes):
        kind, length = struct.unpack_from("!HH", attributes, at)
        at += 4 + (length + 3 & ~3)
        if kind < 0x8000 or at > len(attributes):
            return True
    return False
