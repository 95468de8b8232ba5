"""relay/silence.py: what is heard instead of a silenced party's voice."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mediaproxy.relay.rtp import Kind, kind_of, rtp_header
from mediaproxy.relay.silence import silenced

VOICE = bytes(range(1, 161))


def packet(payload_type: int = 0, *, first: int = 0x80, before: bytes = b"", after: bytes = b"") -> bytes:
    return struct.pack("!BBHII", first, payload_type, 77, 9, 0xCAFE) + before + VOICE + after


CODECS = {
    "G.711 µ-law": ("PCMU", 0, 0xFF),
    "G.711 A-law, in small letters": ("pcma", 8, 0xD5),
    "G.722": ("G722", 9, 0xFA),
    "linear": ("L16", 96, 0x00),
    "static, without a=rtpmap": ("", 8, 0xD5),
    "dynamic": ("PCMU", 118, 0xFF),
}


@pytest.mark.parametrize(("codec", "number", "byte"), CODECS.values(), ids=CODECS)
def test_the_payload_is_silent_and_all_else_as_it_was(codec: str, number: int, byte: int) -> None:
    before = packet(number | 0x80)
    after = silenced(before, codec)
    assert after is not None
    assert (after[:12], after[12:]) == (before[:12], bytes([byte]) * 160)


@pytest.mark.parametrize(
    ("codec", "number"),
    [("opus", 96), ("telephone-event", 101), ("G729", 18), ("", 97), ("", 18), ("red", 98)],
)
def test_without_a_silent_frame_nothing_is_sent(codec: str, number: int) -> None:
    assert silenced(packet(number), codec) is None


@pytest.mark.parametrize("codec", ["CN", ""])
def test_comfort_noise_passes(codec: str) -> None:
    assert silenced(packet(13), codec) == packet(13)


EXTENSION = struct.pack("!HH", 0xBEDE, 2) + b"12345678"
SOURCES = struct.pack("!II", 1, 2)
SHAPES = {
    "contributing sources": (0x82, SOURCES, b""),
    "header extension": (0x90, EXTENSION, b""),
    "both, and padding": (0xB2, SOURCES + EXTENSION, b"\0\0\3"),
}


@pytest.mark.parametrize(("first", "before", "after"), SHAPES.values(), ids=SHAPES)
def test_only_the_payload_is_replaced(first: int, before: bytes, after: bytes) -> None:
    sent = silenced(packet(first=first, before=before, after=after), "PCMU")
    assert sent == packet(first=first, before=before, after=after).replace(VOICE, b"\xff" * 160)


BROKEN = {
    "an extension that goes on beyond the end": packet(first=0x90, before=struct.pack("!HH", 0, 5000)),
    "more sources than there is room": packet(first=0x8F)[:40],
    "no room for an extension": packet(first=0x90)[:14],
    "more padding than payload": packet(first=0xA0)[:-1] + b"\xff",
}


@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN)
def test_a_header_that_cannot_be_read_is_not_sent(broken: bytes) -> None:
    assert silenced(broken, "PCMU") is None


@given(st.binary(min_size=10, max_size=200), st.integers(0, 127), st.sampled_from(["PCMU", "opus", "", "CN", "é"]))
def test_whatever_comes_it_stays_the_same_stream(rest: bytes, number: int, codec: str) -> None:
    data = bytes([0x80 | rest[0] & 0x3F, number]) + rest
    sent = silenced(data, codec)
    if sent is not None and kind_of(data) is Kind.RTP:
        assert len(sent) == len(data) and rtp_header(sent) == rtp_header(data)
