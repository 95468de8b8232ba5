"""What a datagram is, read from its first bytes: RTP, RTCP, STUN, DTLS or something else (RFC 7983, RFC 5761 §4).

Bytes come in, a kind and at most what names the sender go out. Nothing here keeps, changes or decrypts anything, and
no bytes raise.
"""

import struct
from enum import Enum

import msgspec

_RTP = struct.Struct("!xBH4xI")
_STUN_COOKIE = b"\x21\x12\xa4\x42"


STATIC: dict[int, tuple[str, int]] = {
    0: ("PCMU", 8000),
    3: ("GSM", 8000),
    4: ("G723", 8000),
    8: ("PCMA", 8000),
    9: ("G722", 8000),
    13: ("CN", 8000),
    18: ("G729", 8000),
    26: ("JPEG", 90000),
    31: ("H261", 90000),
    34: ("H263", 90000),
}
"""Payload types that need no SDP: encoding name and clock rate (RFC 3551 §6), of those that are still met. For streams
of which the SIP server tells no payload types."""


class Kind(Enum):
    """What a datagram on a media port is."""

    RTP = "rtp"
    RTCP = "rtcp"
    STUN = "stun"
    DTLS = "dtls"
    OTHER = "other"


class RtpHeader(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The part of an RTP header that latching looks at (RFC 3550 §5.1)."""

    payload_type: int
    "0 to 127."
    sequence: int
    "0 to 65535."
    ssrc: int
    "32 bits."


def kind_of(data: bytes) -> Kind:
    """The kind of a datagram, by its first bytes alone."""
    if len(data) < 8:
        return Kind.OTHER
    first, second = data[0], data[1]
    if first >> 6 == 2:
        # RFC 5761 §4: the packet types of RTCP are 192 to 223; RTP must not use 64 to 95 with it.
        if 192 <= second <= 223:
            return Kind.RTCP
        return Kind.RTP if len(data) >= 12 else Kind.OTHER
    if first <= 3 and len(data) >= 20 and data[4:8] == _STUN_COOKIE:  # RFC 8489 §5
        return Kind.STUN
    if 20 <= first <= 63 and len(data) >= 13:  # RFC 6347 §4.1: a record header has 13 bytes
        return Kind.DTLS
    return Kind.OTHER


def rtp_header(data: bytes) -> RtpHeader:
    """The header of a datagram that ``kind_of`` calls RTP."""
    second, sequence, ssrc = _RTP.unpack_from(data)
    return RtpHeader(second & 0x7F, sequence, ssrc)


def report_sender(data: bytes) -> int:
    """The SSRC of who sent a datagram that ``kind_of`` calls RTCP. It stands in the same place in reports (RFC 3550
    §6.4), feedback (RFC 4585 §6.1), XR and APP, and SRTCP leaves it readable (RFC 3711 §3.4)."""
    return int.from_bytes(data[4:8], "big")
