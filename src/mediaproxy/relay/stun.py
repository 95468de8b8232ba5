"""STUN messages as ICE uses them (RFC 8489): read, checked, written.

Bytes come in, a Message goes out, or None for what is no STUN; a Message's bytes go out, with MESSAGE-INTEGRITY and
FINGERPRINT made anew. Any bytes may come, and none raise. What a message means for a call is not known here.
"""

import hashlib
import hmac
import ipaddress
import struct
import zlib
from collections.abc import Iterable
from enum import IntEnum

import msgspec

from mediaproxy.endpoint import Endpoint

COOKIE = 0x2112A442
_HEADER = struct.Struct("!HHI12s")
_ATTRIBUTE = struct.Struct("!HH")
_FINGERPRINT_XOR = 0x5354554E
_MAC = 20
"Bytes of HMAC-SHA1."


class Class(IntEnum):
    """Of a message (RFC 8489 §5): bits 4 and 8 of its type."""

    REQUEST = 0x0000
    INDICATION = 0x0010
    SUCCESS = 0x0100
    ERROR = 0x0110


BINDING = 0x0001


class Attribute(IntEnum):
    """Those that an ICE agent must understand, and a few that it may (RFC 8489 §18.3, RFC 8445 §16.1)."""

    USERNAME = 0x0006
    MESSAGE_INTEGRITY = 0x0008
    ERROR_CODE = 0x0009
    UNKNOWN_ATTRIBUTES = 0x000A
    XOR_MAPPED_ADDRESS = 0x0020
    PRIORITY = 0x0024
    USE_CANDIDATE = 0x0025
    FINGERPRINT = 0x8028
    ICE_CONTROLLED = 0x8029
    ICE_CONTROLLING = 0x802A


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """One STUN message, without its checks."""

    kind: Class
    method: int = BINDING
    "0 to 0xFFF."
    transaction: bytes
    "12 bytes."
    attributes: tuple[tuple[int, bytes], ...] = ()
    "Type and value of those before MESSAGE-INTEGRITY and FINGERPRINT, in order. What comes after is not to be trusted."
    integrity: bytes | None = None
    "MESSAGE-INTEGRITY as it came; see ``authentic``. None: there is none."
    fingerprint: bool = False
    "There is a FINGERPRINT, and it is right."
    covered: bytes = b""
    "What MESSAGE-INTEGRITY covers, as its sender saw it."

    def value(self, kind: int) -> bytes | None:
        """The first attribute of a type; None: there is none."""
        return next((value for known, value in self.attributes if known == kind), None)

    def authentic(self, password: bytes) -> bool:
        """Whether MESSAGE-INTEGRITY is that of somebody who knows the password (RFC 8489 §9.1, §14.5)."""
        if self.integrity is None:
            return False
        return hmac.compare_digest(self.integrity, hmac.new(password, self.covered, hashlib.sha1).digest())


def parse(data: bytes) -> Message | None:
    """Read a message; None if these bytes are none, or its FINGERPRINT is wrong: something else that looks like it."""
    if len(data) < _HEADER.size:
        return None
    kind, length, cookie, transaction = _HEADER.unpack_from(data)
    if kind >> 14 or cookie != COOKIE or length != len(data) - _HEADER.size or length % 4:
        return None
    attributes: list[tuple[int, bytes]] = []
    integrity: bytes | None = None
    covered, fingerprint, at = b"", False, _HEADER.size
    while at < len(data):
        name, size = _ATTRIBUTE.unpack_from(data, at)
        end = at + _ATTRIBUTE.size + size
        if end + -size % 4 > len(data) or fingerprint:
            return None  # RFC 8489 §14.7: nothing comes after FINGERPRINT
        value = data[at + _ATTRIBUTE.size : end]
        if name == Attribute.FINGERPRINT:
            if value != _fingerprint(data[:at]):
                return None
            fingerprint = True
        elif integrity is not None:
            pass
        elif name == Attribute.MESSAGE_INTEGRITY:
            if size != _MAC:
                return None
            integrity, covered = value, _until(data[:at], _ATTRIBUTE.size + _MAC)
        else:
            attributes.append((name, value))
        at = end + -size % 4
    return Message(
        kind=Class(kind & Class.ERROR),
        method=kind & 0xF | (kind & 0xE0) >> 1 | (kind & 0x3E00) >> 2,
        transaction=transaction,
        attributes=tuple(attributes),
        integrity=integrity,
        fingerprint=fingerprint,
        covered=covered,
    )


def encode(message: Message, password: bytes | None = None) -> bytes:
    """The bytes of a message with FINGERPRINT, and with MESSAGE-INTEGRITY if there is a password."""
    method = message.method
    kind = message.kind | method & 0xF | (method & 0x70) << 1 | (method & 0xF80) << 2
    body = b"".join(_attribute(name, value) for name, value in message.attributes)
    data = _HEADER.pack(kind, len(body), COOKIE, message.transaction) + body
    if password is not None:
        mac = hmac.new(password, _until(data, _ATTRIBUTE.size + _MAC), hashlib.sha1).digest()
        data += _attribute(Attribute.MESSAGE_INTEGRITY, mac)
    data = _until(data, 8)
    return data + _attribute(Attribute.FINGERPRINT, _fingerprint(data))


def _attribute(name: int, value: bytes) -> bytes:
    return _ATTRIBUTE.pack(name, len(value)) + value + bytes(-len(value) % 4)


def _until(data: bytes, more: int) -> bytes:
    """The message so far, its length that of a message that ends with an attribute of ``more`` bytes."""
    length = len(data) - _HEADER.size + more
    return data[:2] + length.to_bytes(2, "big") + data[4:]


def _fingerprint(data: bytes) -> bytes:
    """RFC 8489 §14.7: of all before it, with a length that includes it."""
    return struct.pack("!I", zlib.crc32(_until(data, 8)) ^ _FINGERPRINT_XOR)


# -- values of attributes


def xor_address(place: Endpoint, transaction: bytes) -> bytes:
    """The value of XOR-MAPPED-ADDRESS (RFC 8489 §14.2)."""
    address = ipaddress.ip_address(place.address)
    mask = struct.pack("!I", COOKIE) + transaction
    mapped = bytes(one ^ other for one, other in zip(address.packed, mask, strict=False))
    return struct.pack("!BBH", 0, 1 if address.version == 4 else 2, place.port ^ (COOKIE >> 16)) + mapped


def error_code(code: int, reason: str) -> bytes:
    """The value of ERROR-CODE (RFC 8489 §14.8). ``code``: 300 to 699."""
    return struct.pack("!HBB", 0, code // 100, code % 100) + reason.encode()


def unknown_attributes(names: Iterable[int]) -> bytes:
    """The value of UNKNOWN-ATTRIBUTES (RFC 8489 §14.9)."""
    return b"".join(struct.pack("!H", name) for name in names)
