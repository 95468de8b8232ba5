"""Framing of streams: the same frames however the stream is cut, and an end when it is beyond repair."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mediaproxy.sip.framing import Frame, Framer, Ping, Pong
from mediaproxy.sip.grammar import SipError
from mediaproxy.sip.message import parse
from tests.sip_corpus import CORPUS, parsed, quickly

ONE = b"OPTIONS sip:a@b SIP/2.0\r\nCall-ID: 1\r\nContent-Length: 0\r\n\r\n"
TWO = b"MESSAGE sip:a@b SIP/2.0\r\nl : 8\r\nCall-ID: 2\r\n\r\n\r\n\r\nl:9\n"
FOLD = b"SIP/2.0 200 OK\r\ncontent-LENGTH\t:\r\n  00005\r\nX: a\r\n Content-Length: 7\r\n\r\nhello"
LF = b"OPTIONS sip:a@b SIP/2.0\nContent-Length: 3\n\nabc"
TWICE = b"OPTIONS sip:a@b SIP/2.0\r\nContent-Length: 3\r\nl: 3\r\n\r\nabc"


def bytewise(framer: Framer, stream: bytes) -> list[Frame]:
    return [frame for at in range(len(stream)) for frame in framer.feed(stream[at : at + 1])]


STREAMS: dict[str, tuple[bytes, list[Frame]]] = {
    "one": (ONE, [ONE]),
    "several": (ONE + TWO + FOLD + LF + TWICE, [ONE, TWO, FOLD, LF, TWICE]),
    "compact length and empty lines in the body": (TWO + ONE, [TWO, ONE]),
    "folded length, and one inside another header": (FOLD, [FOLD]),
    "lf only": (LF + LF, [LF, LF]),
    "empty lines before a message": (b"\r\n\r\n" + ONE + b"\r\n\r\n\r\n\r\n" + TWO, [Ping(), ONE, Ping(), Ping(), TWO]),
    "lone lf between messages": (ONE + b"\n" + TWO + b"\n\n" + ONE, [ONE, TWO, ONE]),
    "half a message": (ONE + TWO[:-1], [ONE]),
    "half a head": (ONE[:-1], []),
    "half a line end": (b"\r", []),
    "nothing": (b"", []),
}


@pytest.mark.parametrize("name", STREAMS)
def test_frames_whole_and_byte_by_byte(name: str) -> None:
    stream, frames = STREAMS[name]
    assert Framer().feed(stream) == frames
    assert [frame for frame in bytewise(Framer(), stream) if not isinstance(frame, Pong)] == frames
    for frame in frames:
        if isinstance(frame, bytes):
            assert parse(frame).body == frame.partition(b"\n\r\n" if b"\r" in frame else b"\n\n")[2]


@pytest.mark.parametrize(
    ("chunks", "frames"),
    [
        ([b"\r\n\r\n"], [Ping()]),
        ([b"\r\n"], [Pong()]),
        ([b"\r\n" + ONE], [Pong(), ONE]),
        ([b"\r\n\r\n\r\n"], [Ping(), Pong()]),
        ([b"\r\n", b"\r\n"], [Pong(), Ping()]),
        ([b"\r", b"\n\r", b"\n"], [Pong(), Ping()]),
        ([b"\r\n", ONE, b"\r\n"], [Pong(), ONE, Pong()]),
        ([ONE + b"\r\n", b"\r\n" + ONE], [ONE, Pong(), Ping(), ONE]),
    ],
)
def test_pings_and_pongs(chunks: list[bytes], frames: list[Frame]) -> None:
    framer = Framer()
    assert [frame for chunk in chunks for frame in framer.feed(chunk)] == frames


BROKEN = {
    "no length": b"OPTIONS sip:a@b SIP/2.0\r\nCall-ID: 1\r\n\r\n",
    "negative length": ONE.replace(b": 0", b": -999"),
    "two lengths": ONE.replace(b"Length: 0", b"Length: 0\r\nl: 1"),
    "a list of lengths": ONE.replace(b": 0", b": 0, 0"),
    "no number": ONE.replace(b": 0", b": zero"),
    "a number that is no ascii": ONE.replace(b": 0", b": \xb2"),
    "an endless number": ONE.replace(b": 0", b": " + b"9" * 5000),
    "no headers": b"OPTIONS sip:a@b SIP/2.0\r\n\r\n",
    "http": b"GET / HTTP/1.1\r\n",
    "tls": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "nul": b"\0\0\0\0",
    "a body without its head": b"v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\n",
    "carriage return alone": b"\rOPTIONS sip:a@b SIP/2.0\r\n",
    "space first": b" " + ONE,
}


@pytest.mark.parametrize("name", BROKEN)
def test_beyond_repair(name: str) -> None:
    framer = Framer()
    with pytest.raises(SipError):
        framer.feed(BROKEN[name])
    with pytest.raises(SipError):
        bytewise(Framer(), BROKEN[name])
    assert framer.broken is not None
    with pytest.raises(SipError):
        framer.feed(ONE)


@pytest.mark.parametrize("name", BROKEN)
def test_what_came_before_the_broken_place_is_not_lost(name: str) -> None:
    framer = Framer()
    assert framer.feed(ONE + TWO + BROKEN[name]) == [ONE, TWO]
    assert framer.broken is not None
    with pytest.raises(SipError):
        framer.feed(b"")


def test_size_bound() -> None:
    def message(size: int) -> bytes:
        head = b"MESSAGE sip:a@b SIP/2.0\r\nContent-Length: %d\r\n\r\n"
        body = size - len(head % 1000)
        return head % body + b"x" * body

    assert Framer(max_size=1200).feed(message(1200)) == [message(1200)]
    for stream in (message(1201)[:60], b"OPTIONS sip:a@b SIP/2.0\r\nX: " + b"x" * 1200, b"O" * 1200):
        with pytest.raises(SipError) as caught:
            Framer(max_size=1200).feed(stream)
        assert caught.value.status == 513
        with pytest.raises(SipError):
            bytewise(Framer(max_size=1200), stream)


def test_a_large_message_byte_by_byte_is_not_read_again_and_again() -> None:
    stream = b"MESSAGE sip:a@b SIP/2.0\r\nX: " + b"x" * 30000 + b"\r\nContent-Length: 30000\r\n\r\n" + b"y" * 30000
    with quickly(2.0):
        assert bytewise(Framer(), stream) == [stream]


def test_many_line_ends_take_no_time() -> None:
    with quickly():
        assert Framer().feed(b"\r\n" * 60000) == [Ping()] * 30000
        assert Framer().feed(b"\n" * 60000) == []


def outcome(chunks: list[bytes]) -> tuple[list[Frame], bool]:
    framer = Framer()
    frames: list[Frame] = []
    for chunk in chunks:
        try:
            frames += framer.feed(chunk)
        except SipError:
            break
    return [frame for frame in frames if not isinstance(frame, Pong)], framer.broken is not None


pieces = st.one_of(
    st.sampled_from([ONE, TWO, FOLD, LF, TWICE, b"\r\n", b"\r\n\r\n", b"\n", b"\r"]),
    st.sampled_from(CORPUS),
    st.binary(max_size=10),
)


@given(st.lists(pieces, max_size=6).map(b"".join), st.lists(st.integers(0, 2000), max_size=8))
def test_any_cut_gives_the_same_frames(stream: bytes, cuts: list[int]) -> None:
    edges = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    chunks = [stream[begin:end] for begin, end in zip(edges, edges[1:], strict=False)]
    assert outcome(chunks) == outcome([stream]) == outcome([stream[at : at + 1] for at in range(len(stream))])


@given(st.lists(st.sampled_from(CORPUS), min_size=1, max_size=4))
def test_delimited_messages_go_through_a_stream(messages: list[bytes]) -> None:
    """What leaves over TCP arrives as it was, whatever came in over UDP."""
    sent = [bytes(m.delimited()) for data in messages if (m := parsed(data)) is not None]
    received = Framer().feed(b"".join(sent))
    assert received == sent
