"""Where a body ends when Content-Length is wrong: nothing of an SDP is lost, nothing behind a body is taken for it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mediaproxy.sip.check import check
from mediaproxy.sip.length import goes_on
from mediaproxy.sip.message import Message, parse

SDP = (
    b"v=0\r\no=- 1 1 IN IP4 203.0.113.10\r\ns=-\r\nc=IN IP4 203.0.113.10\r\nt=0 0\r\n"
    b"m=audio 60000 RTP/AVP 0\r\na=ptime:20\r\n"
)
MULTIPART = b"--x\r\nContent-Type: application/sdp\r\n\r\n" + SDP + b"\r\n--x--\r\n"
CLOSED = len(MULTIPART) - 2
"The closing delimiter ends here."
NEXT = b"BYE sip:bob@example.com SIP/2.0\r\nVia: SIP/2.0/UDP a\r\n\r\n"


def message(octets: bytes, length: int | str | None, content_type: str | None = "application/sdp") -> Message:
    head = [
        "INVITE sip:bob@example.com SIP/2.0",
        "Via: SIP/2.0/UDP 192.168.1.20;branch=z9hG4bKa",
        "From: <sip:a@example.com>;tag=1",
        "To: <sip:bob@example.com>",
        "Call-ID: c",
        "CSeq: 1 INVITE",
        *([f"Content-Type: {content_type}"] if content_type is not None else []),
        *([f"Content-Length: {length}"] if length is not None else []),
        "",
        "",
    ]
    return parse("\r\n".join(head).encode() + octets)


END = len(SDP)
LINE = SDP.index(b"m=audio")
"A line begins here."


@pytest.mark.parametrize(
    ("octets", "length", "content_type", "body"),
    [
        # right, missing, too long
        pytest.param(SDP, END, "application/sdp", SDP, id="right"),
        pytest.param(SDP, None, "application/sdp", SDP, id="missing"),
        pytest.param(SDP, END + 5, "application/sdp", SDP, id="too-long"),
        pytest.param(SDP, "x", "application/sdp", SDP, id="unreadable"),
        pytest.param(SDP, -1, "application/sdp", SDP, id="negative"),
        # too short: an ALG wrote a longer address
        pytest.param(SDP, END - 3, "application/sdp", SDP, id="cut-in-the-last-line"),
        pytest.param(SDP, LINE + 4, "application/sdp", SDP, id="cut-in-a-line"),
        pytest.param(SDP, LINE, "application/sdp", SDP, id="cut-before-a-line"),
        pytest.param(SDP, LINE - 1, "application/sdp", SDP, id="cut-in-a-line-end"),
        pytest.param(SDP, LINE - 2, "application/sdp", SDP, id="cut-before-a-line-end"),
        pytest.param(SDP, LINE + 1, "application/sdp", SDP, id="cut-behind-a-letter"),
        pytest.param(SDP, 0, "application/sdp", SDP, id="zero"),
        pytest.param(SDP, LINE, "Application / SDP ;charset=utf-8", SDP, id="spelling-of-the-type"),
        pytest.param(SDP, LINE, None, SDP, id="no-content-type"),
        pytest.param(SDP.replace(b"\r\n", b"\n"), 60, "application/sdp", SDP.replace(b"\r\n", b"\n"), id="lf-only"),
        pytest.param(SDP[:-2], END - 6, "application/sdp", SDP[:-2], id="no-last-line-end"),
        # octets behind the body
        pytest.param(SDP + NEXT, END, "application/sdp", SDP, id="another-message-behind"),
        pytest.param(SDP + b"\r\n" + NEXT, END, "application/sdp", SDP, id="an-empty-line-and-another-message"),
        pytest.param(SDP + b"\0\0\0\0", END, "application/sdp", SDP, id="zeros-behind"),
        pytest.param(SDP + b"\r\n\r\n", END, "application/sdp", SDP, id="empty-lines-behind"),
        pytest.param(SDP[:-2] + b"\0\0\0\0", END - 2, "application/sdp", SDP[:-2], id="zeros-behind-the-last-line"),
        pytest.param(SDP, END - 2, "application/sdp", SDP[:-2], id="without-its-last-line-end"),
        pytest.param(SDP + b"INVITE", 0, "text/plain", b"", id="no-sdp-zero"),
        pytest.param(b"hello a=b", 5, "text/plain", b"hello", id="another-type"),
        pytest.param(NEXT, 0, None, b"", id="no-content-type-and-no-sdp"),
        # multipart
        pytest.param(MULTIPART, CLOSED, "multipart/mixed;boundary=x", MULTIPART[:CLOSED], id="multipart-right"),
        pytest.param(MULTIPART, CLOSED - 1, "multipart/mixed;boundary=x", MULTIPART, id="multipart-cut-in-its-end"),
        pytest.param(MULTIPART, 60, 'Multipart/Mixed; Boundary="x"', MULTIPART, id="multipart-cut-in-a-part"),
        pytest.param(MULTIPART + NEXT, len(MULTIPART), "multipart/mixed;boundary=x", MULTIPART, id="multipart-behind"),
        pytest.param(MULTIPART, 60, "multipart/mixed;boundary=y", MULTIPART[:60], id="multipart-other-boundary"),
        pytest.param(MULTIPART, 60, "multipart/mixed", MULTIPART[:60], id="multipart-no-boundary"),
    ],
)
def test_the_end_of_a_body(octets: bytes, length: int | str | None, content_type: str | None, body: bytes) -> None:
    came = message(octets, length, content_type)
    assert came.body == body
    assert bytes(came).endswith(octets), "nothing is lost of the message itself"
    sent = came.delimited()
    assert (sent.body, sent.octets, sent.content_length) == (body, body, len(body))
    check(sent)


@given(st.integers(0, END - 3))
def test_wherever_an_sdp_is_cut_nothing_is_lost(length: int) -> None:
    assert message(SDP, length).body == SDP


@given(st.integers(0, CLOSED - 1))
def test_wherever_a_multipart_is_cut_nothing_is_lost(length: int) -> None:
    assert message(MULTIPART, length, "multipart/mixed;boundary=x").body == MULTIPART


@given(st.binary(max_size=60), st.integers(0, 60), st.sampled_from([None, "application/sdp", "multipart/x;boundary=a"]))
def test_any_octets_have_an_end(octets: bytes, length: int, content_type: str | None) -> None:
    if length < len(octets):
        assert goes_on(octets, length, content_type) in (True, False)
    body = message(octets, length, content_type).body
    assert body in (octets, octets[:length])
