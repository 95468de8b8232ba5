"""Requests that are known by what they always say are read as if they were not."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mediaproxy.dialects.ng.bencode import NgError, decode, encode
from mediaproxy.dialects.ng.flags import EACH_TIME, Command
from mediaproxy.dialects.ng.phrases import LONGEST, MOST, Phrases

OFFER = {
    "supports": ["load limit"],
    "sdp": "v=0\r\n",
    "ICE": "remove",
    "call-id": "c",
    "received-from": ["IP4", "192.0.2.1"],
    "from-tag": "a",
    "command": "offer",
}


def plain(command: Command) -> Command:
    """Without the number, which is one for each Phrases."""
    return msgspec.structs.replace(command, phrase=0)


def check(known: Phrases, message: bytes) -> Command | None:
    """Whether it is read alike; the Command, or None: both refuse it."""
    try:
        value = decode(message, 2)
    except NgError:
        with pytest.raises(NgError):
            known.read(message, 2)
        return None
    assert isinstance(value, dict)
    command = known.read(message, 2)
    assert plain(command) == plain(Command.of(value))
    return command


def learned(*requests: dict[str, Any]) -> Phrases:
    known = Phrases()
    for request in requests:
        for _ in range(3):
            check(known, b"c " + encode(request))
    return known


def test_what_differs_from_call_to_call() -> None:
    known = learned(OFFER)
    assert len(known) == 1
    number = known.read(b"c " + encode(OFFER), 2).phrase
    other = OFFER | {"sdp": "v=0\r\n" * 200, "call-id": "", "received-from": ["IP6", "2001:DB8::1"], "from-tag": "\xff"}
    assert check(known, b"c " + encode(other)) is not None
    assert len(known) == 2, "IP6 is written in another way"
    other["received-from"] = ["IP4", "198.51.100.7"]
    command = check(known, b"c " + encode(other))
    assert command is not None and (command.received_from, command.phrase) == ("198.51.100.7", number)
    assert command.sdp == b"v=0\r\n" * 200 and command.from_tag == "\xff"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"9:192.0.2.1", b"11:192.0.2.1,::"),
        (b"9:192.0.2.1", b"13:IP4:192.0.2.1"),
        (b"9:192.0.2.1", b"7:a.examp"),
        (b"9:192.0.2.1", b"i7e"),
        (b"9:192.0.2.1", b"le"),
        (b"9:192.0.2.1", b"9:192.0.2.13:::1"),
        (b"l3:IP49:192.0.2.1e", b"9:192.0.2.1"),
        (b"7:call-id1:c", b"7:call-idi17e"),
        (b"7:call-id1:c", b"7:call-id01:c"),
        (b"7:call-id1:c", b"7:call-id9:c"),
        (b"7:call-id1:c", b"7:call-id1:c7:call-id1:d"),
        (b"7:call-id1:c", b"7:call-id1:c7:call id1:d"),
        (b"7:call-id1:c", b""),
        (b"5:offer", b"5:offe"),
        (b"5:offer", b"6:answer"),
        (b"5:offere", b"5:offer"),
        (b"5:offere", b"5:offeree and more"),
        (b"3:sdp5:v=0\r\n", b"3:sdpd1:a1:be"),
        (b"10:load limit", b"10:load LIMIT"),
    ],
)
def test_what_is_written_otherwise(before: bytes, after: bytes) -> None:
    known, message = learned(OFFER), b"c " + encode(OFFER)
    assert before in message
    for _ in range(3):
        check(known, message.replace(before, after))
        check(known, message)


_OWN = st.sampled_from(sorted(key.decode() for key in EACH_TIME if isinstance(key, bytes)))
_KEYS = st.one_of(_OWN, st.sampled_from(("flags", "ICE", "replace", "Call ID", "rtpp-flags", "x")))
_VALUES = st.one_of(
    st.sampled_from(("offer", "192.0.2.1", "::1", "", "call-id=x received-from=::1 command=y")),
    st.integers(-3, 3),
    st.lists(st.sampled_from(("IP4", "192.0.2.1", "remove", 5)), max_size=3),
)


@given(st.lists(st.tuples(_KEYS, st.lists(_VALUES, min_size=4, max_size=4)), max_size=6), st.integers(0, 200))
def test_any_requests(items: list[tuple[str, list[object]]], cut: int) -> None:
    known = Phrases()
    for number in range(4):
        message = b"c d%be" % b"".join([encode(key) + encode(values[number]) for key, values in items])
        check(known, message)
        check(known, message)
        check(known, message[: 2 + cut])


def test_nothing_is_remembered_without_bound() -> None:
    known = learned(*({**OFFER, "label": str(number)} for number in range(MOST + 3)))
    assert len(known) == 3
    assert not len(learned({**OFFER, "label": "x" * LONGEST}))
    for number in range(1000):
        known.read(b"c " + encode({**OFFER, "label": f"once {number}"}), 2)
    assert len(known._numbers) <= 512


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"l3:IP49:192.0.2.1e", b"13:IP4:192.0.2.1"),
        (b"9:192.0.2.1", b"7:a.examp"),
        (b"5:offere", b"5:offere\n"),
        (b"7:call-id1:c", b"7:call-id01:c"),
        (b"9:192.0.2.1", b"09:192.0.2.1"),
    ],
)
def test_what_would_not_be_known_again_is_not_learned(before: bytes, after: bytes) -> None:
    known, message = Phrases(), b"c " + encode(OFFER)
    for _ in range(5):
        check(known, message.replace(before, after))
    assert not len(known)


def test_lengths_with_more_digits_than_there_can_be() -> None:
    known, message = Phrases(), b"c " + encode(OFFER)
    for _ in range(3):
        check(known, message.replace(b"7:call-id1:c", b"7:call-id01:c"))
    for zeros in range(17, 22):
        check(known, message.replace(b"7:call-id1:c", b"7:call-id%b1:c" % (b"0" * zeros)))


def test_a_source_that_is_said_twice() -> None:
    known = Phrases()
    for number in range(4):
        for own in ("192.0.2.1", f"192.0.2.{number}"):
            twice = OFFER | {"received-from": ["IP4", own], "rtpp-flags": "received-from=192.0.2.1"}
            command = check(known, b"c " + encode(twice))
            assert command is not None and (command.received_from, command.phrase) == ("192.0.2.1", 0)
            command = check(known, b"c " + encode(dict(reversed(twice.items()))))
            assert command is not None and command.received_from == own
    assert not len(known)


def test_json_is_read_entry_by_entry() -> None:
    known = Phrases()
    for _ in range(3):
        assert known.read(b'c {"command":"offer","call-id":"c"}', 2).call_id == "c"
    assert not len(known)
