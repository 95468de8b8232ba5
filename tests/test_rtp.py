"""relay/rtp.py: what a datagram is, by its first bytes."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mediaproxy.relay.rtp import Kind, RtpHeader, kind_of, rtp_header
from tests.relaybench import DTLS, RTCP, STUN, UDPTL, rtp


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        pytest.param(rtp(), Kind.RTP, id="RTP"),
        pytest.param(rtp(size=0), Kind.RTP, id="RTP, header only"),
        pytest.param(rtp()[:11], Kind.OTHER, id="RTP, 11 bytes"),
        pytest.param(bytes([0x00]) + rtp()[1:], Kind.OTHER, id="RTP version 0"),
        pytest.param(bytes([0x40]) + rtp()[1:], Kind.OTHER, id="RTP version 1"),
        pytest.param(bytes([0xC0]) + rtp()[1:], Kind.OTHER, id="RTP version 3"),
        pytest.param(bytes([0xBF]) + rtp()[1:], Kind.RTP, id="RTP with padding, extension, 15 CSRC"),
        pytest.param(rtp(payload_type=0x80 | 101), Kind.RTP, id="RTP with marker"),
        pytest.param(RTCP, Kind.RTCP, id="RTCP sender report"),
        pytest.param(RTCP[:8], Kind.RTCP, id="RTCP, 8 bytes"),
        pytest.param(RTCP[:7], Kind.OTHER, id="RTCP too short"),
        pytest.param(bytes([0x80, 192]) + RTCP[2:], Kind.RTCP, id="RTCP type 192"),
        pytest.param(bytes([0x80, 223]) + RTCP[2:], Kind.RTCP, id="RTCP type 223"),
        pytest.param(bytes([0x80, 191]) + RTCP[2:], Kind.RTP, id="type 191 is RTP"),
        pytest.param(bytes([0x80, 224]) + RTCP[2:], Kind.RTP, id="type 224 is RTP"),
        pytest.param(STUN, Kind.STUN, id="STUN"),
        pytest.param(STUN[:4] + bytes(16), Kind.OTHER, id="STUN without its cookie"),
        pytest.param(STUN[:19], Kind.OTHER, id="STUN too short"),
        pytest.param(DTLS, Kind.DTLS, id="DTLS"),
        pytest.param(UDPTL, Kind.OTHER, id="udptl"),
        pytest.param(b"", Kind.OTHER, id="empty"),
    ],
)
def test_kind(data: bytes, kind: Kind) -> None:
    assert kind_of(data) is kind


def test_header() -> None:
    data = struct.pack("!BBHII", 0x90, 0x80 | 96, 65535, 1234, 0xFFFFFFFF)
    assert rtp_header(data) == RtpHeader(payload_type=96, sequence=65535, ssrc=0xFFFFFFFF)


@given(st.binary(max_size=40))
def test_no_bytes_raise(data: bytes) -> None:
    if kind_of(data) is Kind.RTP:
        rtp_header(data)
