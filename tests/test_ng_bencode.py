"""Bencode as rtpengine reads and writes it: any order of keys, any bytes, and nothing taken on trust."""

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mediaproxy.dialects.ng.bencode import DEEPEST, NgError, decode, encode, entries

VALUES = st.recursive(
    st.binary(max_size=40) | st.integers(-(10**15), 10**15),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.binary(max_size=12), inner, max_size=4),
    max_leaves=20,
)


@pytest.mark.parametrize(
    ("data", "value"),
    [
        (b"4:ping", b"ping"),
        (b"0:", b""),
        (b"i42e", 42),
        (b"i-1e", -1),
        (b"i007e", 7),
        (b"le", []),
        (b"l1:ai2eld1:bi3eeee", [b"a", 2, [{b"b": 3}]]),
        (b"de", {}),
        (b"d7:command4:pinge", {b"command": b"ping"}),
        (b"d1:b1:x1:a1:ye", {b"b": b"x", b"a": b"y"}),
        (b"d1:a1:x1:a1:ye", {b"a": b"y"}),
        (b"d1:a3:\x00\xff e", {b"a": b"\x00\xff "}),
        (b"d7:command4:pinge and whatever follows", {b"command": b"ping"}),
        (b"03:abc", b"abc"),
    ],
)
def test_values(data: bytes, value: Any) -> None:
    assert decode(data) == value


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"x",
        b"4:pin",
        b"4ping",
        b"-1:a",
        b"+4:ping",
        b" 4:ping",
        b"1_0:aaaaaaaaaa",
        b"99999999999999999999999999:a",
        b"i42",
        b"ie",
        b"i-e",
        b"i4 2e",
        b"i1_0e",
        b"i+1e",
        b"i" + b"1" * 30 + b"e",
        b"l",
        b"l1:a",
        b"d",
        b"d1:a",
        b"d1:ae",
        b"di1e1:ae",
        b"d1:ai1e",
        b"dle1:ae",
        b"e",
    ],
)
def test_what_is_none(data: bytes) -> None:
    with pytest.raises(NgError, match="Could not decode bencode dictionary"):
        decode(data)


def test_depth_is_bounded() -> None:
    assert decode(b"l" * DEEPEST + b"e" * DEEPEST)
    for opening, closing in ((b"l", b"e"), (b"d1:a", b"e")):
        with pytest.raises(NgError):
            decode(opening * (DEEPEST + 1) + closing * (DEEPEST + 1))
    with pytest.raises(NgError):
        decode(b"l" * 60_000)


@given(VALUES)
def test_what_is_written_is_read(value: Any) -> None:
    assert decode(encode(value)) == value


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    try:
        value = decode(data)
    except NgError:
        return
    assert decode(encode(value)) == value


@given(VALUES, st.data())
def test_damaged_values_are_read_or_refused(value: Any, data: st.DataObject) -> None:
    whole = bytearray(encode({b"key": value}))
    at = data.draw(st.integers(0, len(whole) - 1))
    whole[at] = data.draw(st.integers(0, 255))
    with contextlib.suppress(NgError):
        decode(bytes(whole))


def test_texts_are_latin_1() -> None:
    value = {"result": "ok", "é": ["ÿ", b"\xff", True, False, ("a", 1)], b"k": {"x": -1}, "later": "€"}
    assert encode(value) == b"d6:result2:ok1:\xe9l1:\xff1:\xffi1ei0el1:ai1eee1:kd1:xi-1ee5:later1:?e"


class Words(dict[str, object]):
    """A dictionary of another type."""


class Text(str):
    """A text of another type, such as an enumeration has."""


def test_types_that_are_like_others() -> None:
    assert encode(Words(a=Text("b"), c={Text("d"): 1})) == b"d1:a1:b1:cd1:di1eee"


@given(st.one_of(st.binary(max_size=60), st.text("dlei0123:-a", max_size=30).map(str.encode)))
def test_a_dictionary_entry_by_entry(data: bytes) -> None:
    data = b"d" + data
    try:
        value = decode(data)
    except NgError:
        with pytest.raises(NgError):
            entries(data, 0)
        return
    found = entries(data, 0)
    assert {key: one for key, one, _ in found} == value
    assert data.startswith(b"d%be" % b"".join([written for _, _, written in found if isinstance(written, bytes)]))
