"""What the laboratory reads off the wire."""

import struct
from pathlib import Path

import pytest

from lab import capture
from lab.capture import Datagram

SERVER, ALICE, BOB = "203.0.113.10", "203.0.113.101", "203.0.113.102"


def rtp(sequence: int, payload: bytes = b"\xff" * 160) -> bytes:
    return struct.pack(">BBHII", 0x80, 0, sequence, sequence * 160, 7) + payload


def sip(first: str, method: str = "INVITE") -> bytes:
    return f"{first}\r\nCSeq: 1 {method}\r\n\r\n".encode()


def call(lost: frozenset[int] = frozenset()) -> list[Datagram]:
    """A call of one second: Alice sends, the relay sends on to Bob, 10 ms later, what is not lost."""
    sip_way = ((BOB, 5060), (SERVER, 5060))
    found = [
        Datagram(9.0, (ALICE, 7), (SERVER, 9), rtp(900)),  # before the answer
        Datagram(9.9, *sip_way, sip("SIP/2.0 180 Ringing")),
        Datagram(10.0, *sip_way, sip("SIP/2.0 200 OK")),
    ]
    for n in range(50):
        found.append(Datagram(10.02 + n / 50, (ALICE, 7), (SERVER, 9), rtp(n, bytes([n]))))
        if n not in lost:
            found.append(Datagram(10.03 + n / 50, (SERVER, 11), (BOB, 13), rtp(n, bytes([n]))))
    found.append(Datagram(11.1, (ALICE, 5060), (SERVER, 5060), sip("BYE sip:bob@sip.test SIP/2.0", "BYE")))
    return sorted(found, key=lambda one: one.at)


@pytest.mark.parametrize("lost", [frozenset[int](), frozenset((0, 20))], ids=["all", "two lost"])
def test_packets_are_matched_between_answer_and_bye(lost: frozenset[int]) -> None:
    wire = capture.inspect(call(lost), SERVER, ALICE, BOB)
    assert (wire.to_callee.sent, wire.to_callee.lost) == (50, len(lost))
    assert wire.to_callee.first_ms == pytest.approx(50 if lost else 30)
    assert wire.to_callee.pcm_payload == bytes(n for n in range(50) if n not in lost)
    assert (wire.to_caller.sent, wire.to_caller.relayed, wire.to_caller.first_ms) == (0, 0, None)


def test_without_an_answer_in_sight_there_is_no_first_time() -> None:
    wire = capture.inspect((one for one in call() if one.at > 10.0), SERVER, ALICE, BOB)
    assert wire.to_callee.first_ms is None
    assert wire.to_callee.relayed == 50


def test_a_file_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "call.pcap"
    records = b"".join(map(capture.write_datagram, call()))
    path.write_bytes(capture.write_header() + records + b"\0\0\0")  # the last record was cut short
    again = list(capture.read(path))
    assert [(one.source, one.target, one.payload) for one in again] == [
        (one.source, one.target, one.payload) for one in call()
    ]
    assert [one.at for one in again] == pytest.approx([one.at for one in call()], abs=1e-6)


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        pytest.param(rtp(1), True, id="rtp"),
        pytest.param(b"\x80\xc8" + bytes(20), False, id="rtcp"),
        pytest.param(b"\0\0\0\0", False, id="ping"),
        pytest.param(sip("SIP/2.0 200 OK"), False, id="sip"),
    ],
)
def test_what_is_rtp(payload: bytes, expected: bool) -> None:
    assert Datagram(0.0, (ALICE, 1), (BOB, 2), payload).is_rtp is expected
