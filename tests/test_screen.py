"""What is not worth parsing."""

from pathlib import Path

import pytest

from mediaproxy.edge.screen import ELEMENTS, HEAD, LINES, screen
from tests.vproxy import SDP, request

START = b"OPTIONS sip:x SIP/2.0\r\n"
TORTURE = sorted(Path(__file__).with_name("rfc4475").glob("*.dat"))


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (bytes(request(body=SDP)), ""),
        (b"SIP/2.0 200 OK\r\n\r\n", ""),
        (b"\r\n\r\n" + START, ""),
        (START + b"\r\n" + b"," * 50_000, ""),
        (START.replace(b"\r", b"") + b"\n" + b"\n" * 50_000, ""),
        (b"\x80\x00", "no SIP"),
        (b"\0\0\0\0", "no SIP"),
        (START + b"X: " + b"y" * HEAD, "no end"),
        (START + b"X: y\r\n" * (LINES + 1) + b"\r\n", "lines"),
        (START + b"Via: " + b"x," * (ELEMENTS + 1) + b"\r\n\r\n", "elements"),
    ],
    ids=["request", "response", "crlf", "body", "lf-only", "rtp", "ping", "head", "lines", "elements"],
)
def test_screen(data: bytes, word: str) -> None:
    why = screen(data)
    assert word in why
    assert bool(word) == bool(why)


def test_everything_in_rfc_4475_is_worth_a_look() -> None:
    assert [path.name for path in TORTURE if screen(path.read_bytes())] == []
