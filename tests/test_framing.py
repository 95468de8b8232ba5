"""dialects/framing.py: the same requests come out however the bytes are cut."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mediaproxy.dialects.framing import BlockFramer, LineFramer

LINES = [
    (b"a\n", [b"a"]),
    (b"a\r\nb c\n", [b"a", b"b c"]),
    (b"\r\n\n a\r\n", [b" a"]),
    (b"a\rb\n", [b"a\rb"]),
    (b"a", []),
    (b"\xff\x00\r\n", [b"\xff\x00"]),
]
BLOCKS = [
    (b"a\r\nb: c\r\n\r\n", [b"a\r\nb: c\r\n"]),
    (b"a\nb\n\nc\n\n", [b"a\nb\n", b"c\n"]),
    (b"\r\n\r\n\na\r\n\r\n", [b"a\r\n"]),
    (b"a\r\n \r\n\r\n", [b"a\r\n \r\n"]),
    (b"a\r\n\r", []),
    (b"a\r\nb", []),
    (b"a\r\n\nb\n\r\n", [b"a\r\n", b"b\n"]),
]


@pytest.mark.parametrize(("data", "lines"), LINES)
@pytest.mark.parametrize("size", [1, 2, 3, 100])
def test_lines(data: bytes, lines: list[bytes], size: int) -> None:
    framer = LineFramer()
    assert [line for at in range(0, len(data), size) for line in framer.feed(data[at : at + size])] == lines
    assert framer.waiting == len(data.rpartition(b"\n")[2]) and not framer.ended


@pytest.mark.parametrize(("data", "blocks"), BLOCKS)
@pytest.mark.parametrize("size", [1, 2, 3, 100])
def test_blocks(data: bytes, blocks: list[bytes], size: int) -> None:
    framer = BlockFramer()
    assert [block for at in range(0, len(data), size) for block in framer.feed(data[at : at + size])] == blocks
    assert (framer.waiting > 0) == (not blocks), "what is not complete waits"


@given(st.lists(st.binary(max_size=20)), st.binary(max_size=40))
def test_blocks_however_they_are_cut(pieces: list[bytes], data: bytes) -> None:
    whole = b"".join(pieces) + data + b"\n\n"
    at_once, one_by_one = BlockFramer(), BlockFramer()
    cut = [block for piece in (*pieces, data, b"\n\n") for block in one_by_one.feed(piece)]
    assert at_once.feed(whole) == cut
    assert at_once.waiting == one_by_one.waiting


def test_one_line_is_all() -> None:
    framer = LineFramer(single=True)
    assert framer.feed(b"\r\na\nb\n") == [b"a"]
    assert framer.ended and framer.waiting == 0 and framer.feed(b"c\n") == []


def test_the_one_line_may_end_with_its_connection() -> None:
    framer = LineFramer(single=True)
    assert framer.feed(b"\nstatus\r") == [] and framer.finish() == [b"status"] and framer.ended
    assert LineFramer(single=True).finish() == []
    many = LineFramer()
    assert many.feed(b"version") == [] == many.finish()


def test_nothing_follows_a_last_line() -> None:
    framer = LineFramer(last=frozenset((b"quit",)))
    assert framer.feed(b"a\r\nquit\r\nb\r\n") == [b"a", b"quit"]
    assert framer.ended
