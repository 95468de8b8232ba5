"""NG messages: cookie, coding, and errors in rtpengine's words."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mediaproxy.dialects.ng.bencode import DEEPEST, NgError
from mediaproxy.dialects.ng.message import Coding, entries, split


def decode(message: bytes, at: int) -> dict[Any, Any]:
    """The dictionary."""
    return {key: value for key, value, _ in entries(message, at)}


@pytest.mark.parametrize(
    ("message", "found"),
    [
        (b"c1 de", (b"c1", 3)),
        (b"1_2_3 d7:command4:pinge", (b"1_2_3", 6)),
        (b"c1  de", (b"c1", 3)),
        (b"c1 ", (b"c1", 3)),
        (b"\xff\x00 x", (b"\xff\x00", 3)),
        (b"nospace", None),
        (b" de", None),
        (b"", None),
    ],
)
def test_the_cookie(message: bytes, found: tuple[bytes, int] | None) -> None:
    assert split(message) == found


@pytest.mark.parametrize(
    ("payload", "why"),
    [
        (b"", "Invalid data (no payload)"),
        (b"x", "Invalid NG data format"),
        (b" d7:command4:pinge", "Invalid NG data format"),
        (b"l7:commande", "Invalid NG data format"),
        (b"[]", "Invalid NG data format"),
        (b"d3:abc", "Could not decode bencode dictionary"),
        (b"d", "Could not decode bencode dictionary"),
        (b'{"a":', "Failed to parse JSON document"),
        (b'{"a":"\xff"}', "Failed to parse JSON document"),
        (b'{"a":1} trailing', "Failed to parse JSON document"),
        (b'{"a":' + b"[" * 100_000, "Failed to parse JSON document"),
        (b'{"a":' + b"[" * (DEEPEST + 1) + b"]" * (DEEPEST + 1) + b"}", "Could not decode JSON dictionary"),
    ],
)
def test_errors_are_rtpengines(payload: bytes, why: str) -> None:
    with pytest.raises(NgError) as found:
        decode(b"c1 " + payload, 3)
    assert str(found.value) == why


@pytest.mark.parametrize(
    ("payload", "value"),
    [
        (b'{"command":"ping"}', {"command": "ping"}),
        (b'{"delete delay":0, "TOS":184.0}', {"delete delay": 0, "TOS": 184}),
        (b'{"a":true,"b":false,"c":null,"d":-1,"e":1e300}', {"a": 1, "b": 0, "c": "", "d": -1, "e": 0}),
        (b'{"flags":["a",["b"]],"x":{"y":2}}', {"flags": ["a", ["b"]], "x": {"y": 2}}),
        (b'{"call-id":"\xc3\xa9"}', {"call-id": "é"}),
        (b'{"a":1,"a":2}', {"a": 2}),
        (b"{}", {}),
    ],
)
def test_json(payload: bytes, value: Any) -> None:
    found = decode(b"c1 " + payload, 3)
    assert found == value
    assert not any(isinstance(one, (bool, float)) for one in found.values())


def test_the_answer_is_in_the_coding_of_the_request() -> None:
    answer = {"result": "ok", "sdp": b"v=0\r\n", "calls": ["\xc3\xa9"], "n": 1}
    assert Coding(b"c1").encode(answer) == b"c1 d6:result2:ok3:sdp5:v=0\r\n5:callsl2:\xc3\xa9e1:ni1ee"
    assert Coding(None).encode(answer) == b"d6:result2:ok3:sdp5:v=0\r\n5:callsl2:\xc3\xa9e1:ni1ee"
    assert Coding(b"c1", json=True).encode(
        answer
    ) == '{"result":"ok","sdp":"v=0\\r\\n","calls":["é"],"n":1}'.encode().join((b"c1 ", b""))
    assert Coding(None, json=True).encode({"a": "\xff"}) == '{"a":"\ufffd"}'.encode()


@given(st.binary(max_size=100))
def test_any_bytes_are_a_dictionary_or_an_error(data: bytes) -> None:
    try:
        value = decode(b"c1 " + data, 3)
    except NgError:
        return
    assert isinstance(value, dict)


@given(st.dictionaries(st.text(max_size=8), st.text(max_size=20) | st.integers(-(2**53), 2**53), max_size=6))
def test_texts_of_json_stand_for_their_bytes(value: dict[str, Any]) -> None:
    """What is read from JSON and answered as it is, is the same."""

    def latin(one: Any) -> Any:
        return one.encode().decode("latin-1") if isinstance(one, str) else one

    answer = {latin(key): latin(one) for key, one in value.items()}
    assert decode(Coding(b"c", json=True).encode(answer), 2) == value
