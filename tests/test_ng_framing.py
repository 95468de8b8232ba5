"""NG messages over a connection: one ends where its dictionary does, however the bytes come."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mediaproxy.dialects.ng.bencode import encode
from mediaproxy.dialects.ng.framing import LONGEST_COOKIE, NgFramer

PING = b"c1 d7:command4:pinge"
MESSAGES = [
    PING,
    b"c2 de",
    b'c3 {"command":"ping"}',
    b'c4 {"a":"}\\"{","b":[{"c":"]"}],"d":"\\\\"}',
    b"1_2_3 d3:sdp12:v=0\r\ne d2:ab5:limiti-5e1:lll1:aeee",
    b"d d5:hello5:worlde",
]


@pytest.mark.parametrize("message", MESSAGES)
def test_whole_byte_by_byte_and_with_more_behind(message: bytes) -> None:
    assert NgFramer().feed(message) == [message]
    framer, found = NgFramer(), []
    for at in range(len(message)):
        assert framer.waiting == at
        found += framer.feed(message[at : at + 1])
    assert found == [message]
    assert framer.waiting == 0
    framer = NgFramer()
    assert framer.feed(message * 3 + PING[:5]) == [message] * 3
    assert framer.waiting == 5
    assert framer.feed(PING[5:]) == [PING]
    assert not framer.ended


@given(st.lists(st.sampled_from(MESSAGES), max_size=8), st.lists(st.integers(1, 30), min_size=1, max_size=20))
def test_any_pieces(messages: list[bytes], sizes: list[int]) -> None:
    data, framer, found, at, turn = b"\r\n".join(messages), NgFramer(), [], 0, 0
    while at < len(data):
        size = sizes[turn % len(sizes)]
        found += framer.feed(data[at : at + size])
        at, turn = at + size, turn + 1
    assert found == messages
    assert framer.waiting == 0


@given(st.binary(max_size=300), st.integers(1, 50), st.booleans())
def test_any_bytes(data: bytes, size: int, plain: bool) -> None:
    framer = NgFramer(plain=plain)
    taken = 0
    for at in range(0, len(data), size):
        taken += sum(map(len, framer.feed(data[at : at + size])))
    assert taken + framer.waiting <= len(data)


KEYS = st.text(st.characters(max_codepoint=127), max_size=8)


@given(st.dictionaries(KEYS, KEYS | st.lists(KEYS, max_size=3) | st.dictionaries(KEYS, KEYS, max_size=3), max_size=5))
def test_any_dictionary_in_both_codings(value: dict[str, object]) -> None:
    for payload in (encode(value), json.dumps(value).encode()):
        message = b"cookie " + payload
        assert NgFramer().feed(message + b"c2 de") == [message, b"c2 de"]


@pytest.mark.parametrize(
    "hopeless",
    [
        b"c1 x",
        b"c1 e",
        b"c1 dx",
        b"c1 d1:ax",
        b"c1 di1xxxxxxxxxxxxxxxxxxxxxxxxx",
        b"c1 d5555555555555555555555555",
    ],
)
def test_what_no_message_can_be_made_of_is_the_last_one(hopeless: bytes) -> None:
    framer = NgFramer()
    assert framer.feed(PING + hopeless) == [PING, hopeless]
    assert framer.ended
    assert framer.feed(PING) == []


def test_no_cookie() -> None:
    framer = NgFramer()
    assert framer.feed(b"x" * LONGEST_COOKIE) == []
    assert framer.feed(b"xx") == [b"x" * (LONGEST_COOKIE + 1)], "it gets the error that it deserves"
    assert framer.ended


def test_a_request_behind_too_long_a_cookie_is_none_in_one_piece_either() -> None:
    framer = NgFramer()
    cookie = b"x" * (LONGEST_COOKIE + 1)
    assert framer.feed(cookie + PING) == [cookie]
    assert framer.ended


def test_what_comes_before_garbage_in_one_piece_is_not_lost() -> None:
    framer = NgFramer()
    garbage = b"x" * (LONGEST_COOKIE + 1)
    assert framer.feed(PING + PING + garbage) == [PING, PING, garbage]
    assert framer.ended


@pytest.mark.parametrize(
    "message",
    [
        b"d7:command4:pinge",
        b'{"command":"ping"}',
        b"de",
        PING,
        b"d12 d7:command4:pinge",
        b"d3:sdp300:" + b"x" * 300 + b"e",  # longer than a cookie, and at once
    ],
)
def test_modules_leave_the_cookie_out_over_a_unix_socket(message: bytes) -> None:
    assert NgFramer(plain=True).feed(message) == [message]
    framer, found = NgFramer(plain=True), []
    for at in range(len(message)):
        found += framer.feed(message[at : at + 1])
    assert found == [message]


def test_a_long_text_is_passed_over_without_looking() -> None:
    framer = NgFramer()
    assert framer.feed(b"c1 d3:sdp100000:") == []
    for _ in range(100):
        assert framer.feed(bytes(1000)) == []
    assert framer.waiting == 100_000 + 16
    assert len(framer.feed(b"e")) == 1
