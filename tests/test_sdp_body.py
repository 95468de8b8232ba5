"""Finding the SDP in a body, and putting another in its place."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mediaproxy.control import MediaPort
from mediaproxy.endpoint import Endpoint
from mediaproxy.sdp import IcePolicy, Sdp, find_sdp, relayed

SDP = b"v=0\r\nm=audio 4 RTP/AVP 0\r\n"
NEW = b"v=0\r\nm=audio 60000 RTP/AVP 0\r\n"
MIXED = 'multipart/mixed; boundary="b 1"'
ISUP = b"--b 1\r\nContent-Type: application/ISUP;version=nxv3\r\n\r\n\x01\x00\r\n--x\xff\r\n"


def part(headers: bytes, content: bytes = SDP) -> bytes:
    return b"--b 1\r\n" + headers + b"\r\n" + content + b"\r\n"


@pytest.mark.parametrize(
    ("body", "content_type", "encoding"),
    [
        pytest.param(SDP, "application/sdp", "", id="plain"),
        pytest.param(SDP, "Application/SDP ; charset=x", "", id="case-and-parameters"),
        pytest.param(SDP, "application / sdp", "", id="space-around-the-slash"),
        pytest.param(SDP, None, "", id="no-content-type"),
        pytest.param(SDP, "application/sdp", "identity", id="identity"),
        pytest.param(ISUP + part(b"Content-Type: application/sdp\r\n") + b"--b 1--\r\n", MIXED, "", id="second-part"),
        pytest.param(
            b"preamble\r\n" + part(b"content-type:application/sdp\r\n") + ISUP, MIXED, "", id="no-last-delimiter"
        ),
        pytest.param(part(b"c: application/sdp\r\n"), MIXED, "", id="compact-name"),
        pytest.param(part(b"X: y\r\nContent-Type:\r\n application/sdp;\r\n x=y\r\nZ: z\r\n"), MIXED, "", id="folded"),
        pytest.param(part(b"Content-Type: application/sdp\r\n").replace(b"\r\n", b"\n"), MIXED, "", id="lf"),
        pytest.param(
            part(b"") + part(b"Content-Type: application/sdp\r\n"), MIXED, "", id="part-without-headers-before"
        ),
        pytest.param(b"--b 1  \r\n" + part(b"Content-Type: application/sdp\r\n")[7:], MIXED, "", id="padded-delimiter"),
        pytest.param(
            part(b"Content-Type: application/sdp\r\nContent-Encoding: gzip\r\n", b"\x1f\x8b")
            + part(b"Content-Type: application/sdp\r\nContent-Transfer-Encoding: binary\r\n"),
            MIXED,
            "",
            id="compressed-one-before",
        ),
        pytest.param(
            b"--b 1\r\nContent-Type: multipart/alternative;boundary=in\r\n\r\n"
            b"--in\r\nContent-Type: text/plain\r\n\r\nhello\r\n"
            b"--in\r\nContent-Type: application/sdp\r\n\r\n" + SDP + b"\r\n--in--\r\n--b 1--\r\n",
            MIXED,
            "",
            id="multipart-in-multipart",
        ),
    ],
)
def test_the_sdp_is_found_and_replaced(body: bytes, content_type: str | None, encoding: str) -> None:
    found = find_sdp(body, content_type, encoding)
    assert found is not None
    assert found.sdp.split() == SDP.split()
    assert found.with_sdp(NEW) == body[: body.rindex(found.sdp)] + NEW + body[body.rindex(found.sdp) + len(found.sdp) :]


@pytest.mark.parametrize(
    ("body", "content_type", "encoding"),
    [
        pytest.param(b"", "application/sdp", "", id="empty"),
        pytest.param(b"hello", None, "", id="no-content-type-no-sdp"),
        pytest.param(SDP, "text/plain", "", id="other-type"),
        pytest.param(SDP, "application/sdpx", "", id="longer-type"),
        pytest.param(SDP, "application/sdp", "gzip", id="compressed"),
        pytest.param(part(b"Content-Type: application/sdp\r\n"), "multipart/mixed", "", id="no-boundary"),
        pytest.param(
            part(b"Content-Type: application/sdp\r\n"), 'multipart/mixed; boundary=""', "", id="empty-boundary"
        ),
        pytest.param(
            part(b"Content-Type: application/sdp\r\n"), "multipart/mixed; boundary=other", "", id="other-boundary"
        ),
        pytest.param(ISUP + b"--b 1--\r\n", MIXED, "", id="no-sdp-part"),
        pytest.param(ISUP + b"--b 1--\r\n" + part(b"Content-Type: application/sdp\r\n"), MIXED, "", id="epilogue"),
        pytest.param(b"--b 1\r\nContent-Type: application/sdp", MIXED, "", id="cut-in-the-headers"),
        pytest.param(b"--b 1\r\nContent-Type: application/sdp\r\n\r\n--b 1--", MIXED, "", id="empty-part"),
        pytest.param(b"--b 1", MIXED, "", id="nothing-but-a-delimiter"),
        pytest.param(
            part(b'Content-Type: multipart/mixed;boundary="b 1"\r\n', b"--b 1\r\n" * 9), MIXED, "", id="nested"
        ),
    ],
)
def test_other_bodies_have_no_sdp(body: bytes, content_type: str | None, encoding: str) -> None:
    assert find_sdp(body, content_type, encoding) is None


def test_lengths_inside_a_multipart_follow() -> None:
    inner = b"--in\r\nContent-Type: application/sdp\r\nContent-Length: %d\r\n\r\n%b\r\n--in--\r\n"
    outer = b"--b 1\r\nl : %d\r\nContent-Type: multipart/mixed;boundary=in\r\n\r\n%b\r\n--b 1--"
    before, after = inner % (len(SDP), SDP), inner % (len(NEW), NEW)
    found = find_sdp(outer % (len(before), before), MIXED)
    assert found is not None
    assert found.with_sdp(NEW) == outer % (len(after), after)


OTHER = b"v=0\r\nm=audio 6 RTP/SAVP 0\r\n"
ALTERNATIVE = 'multipart/alternative; boundary="b 1"'
LAST = b"--b 1--\r\n"
SDP_PART = b"Content-Type: application/sdp\r\n"


def sdp_part(content: bytes, *, length: bool = False) -> bytes:
    return part(SDP_PART + (b"Content-Length: %d\r\n" % len(content) if length else b""), content)


@pytest.mark.parametrize(
    ("body", "content_type", "chosen", "alternatives"),
    [
        pytest.param(sdp_part(SDP) + sdp_part(OTHER), MIXED, SDP, (), id="mixed: the first"),
        pytest.param(sdp_part(SDP) + sdp_part(OTHER), ALTERNATIVE, OTHER, (SDP,), id="alternative: the last"),
        pytest.param(
            sdp_part(SDP) + sdp_part(OTHER) + part(b"Content-Type: application/sdpng\r\n", b"<x/>"),
            ALTERNATIVE,
            OTHER,
            (SDP,),
            id="alternative: the last that is SDP",
        ),
        pytest.param(
            part(SDP_PART + b"Content-Disposition: early-session;handling=optional\r\n") + sdp_part(OTHER),
            MIXED,
            OTHER,
            (),
            id="early-session is about other media",
        ),
        pytest.param(
            part(SDP_PART + b"Content-Disposition: session\r\n") + sdp_part(OTHER), MIXED, SDP, (), id="session"
        ),
        pytest.param(
            part(
                b"Content-Type: multipart/alternative;boundary=in\r\n",
                b"--in\r\n" + SDP_PART + b"\r\n" + SDP + b"\r\n--in\r\n" + SDP_PART + b"\r\n" + OTHER + b"\r\n--in--",
            )
            + sdp_part(SDP),
            MIXED,
            OTHER,
            (SDP,),
            id="alternatives within a mixed one",
        ),
    ],
)
def test_which_of_several_counts(
    body: bytes, content_type: str, chosen: bytes, alternatives: tuple[bytes, ...]
) -> None:
    found = find_sdp(body + LAST, content_type)
    assert found is not None
    assert (found.sdp, found.alternatives) == (chosen, alternatives)


def test_alternatives_are_replaced_with_their_lengths() -> None:
    found = find_sdp(sdp_part(SDP, length=True) + sdp_part(OTHER, length=True) + LAST, ALTERNATIVE)
    assert found is not None
    assert found.with_sdp(NEW) == sdp_part(SDP, length=True) + sdp_part(NEW, length=True) + LAST
    assert found.with_sdp(NEW, [b"v=0"]) == sdp_part(b"v=0", length=True) + sdp_part(NEW, length=True) + LAST
    outer = b"--b 1\r\nContent-Type: multipart/alternative;boundary=in\r\nl: %d\r\n\r\n%b\r\n--b 1--"
    inner = b"--in\r\n" + SDP_PART + b"\r\n%b\r\n--in\r\n" + SDP_PART + b"\r\n%b\r\n--in--"
    before, after = inner % (SDP, OTHER), inner % (b"v=0", NEW)
    found = find_sdp(outer % (len(before), before), MIXED)
    assert found is not None
    assert found.with_sdp(NEW, [b"v=0"]) == outer % (len(after), after)


RELAY = MediaPort(rtp=Endpoint("203.0.113.5", 60000))
C = b"c=IN IP4 192.168.1.10\r\n"


@pytest.mark.parametrize(
    ("alternative", "expected"),
    [
        pytest.param(
            C + b"m=audio 4 RTP/AVP 0\r\n", b"c=IN IP4 203.0.113.5\r\nm=audio 60000 RTP/AVP 0\r\n", id="the same media"
        ),
        pytest.param(C + b"m=audio 4 TCP/RTP/AVP 0\r\n", None, id="not carried"),
        pytest.param(C + b"m=audio 0 RTP/AVP 0\r\n", None, id="rejected"),
        pytest.param(C + b"m=audio 4 RTP/AVP 0\r\nm=video 6 RTP/AVP 31\r\n", None, id="more streams"),
        pytest.param(C, None, id="no stream"),
        pytest.param(b"m=audio x\r\n", None, id="broken"),
    ],
)
def test_an_alternative_gets_the_same_ports(alternative: bytes, expected: bytes | None) -> None:
    asked = C + b"m=audio 6 RTP/SAVP 0\r\n"
    found = find_sdp(sdp_part(alternative) + sdp_part(asked) + LAST, ALTERNATIVE)
    assert found is not None
    written = relayed(found, Sdp.parse(found.sdp), [RELAY], IcePolicy.KEEP)
    done = b"c=IN IP4 203.0.113.5\r\nm=audio 60000 RTP/SAVP 0\r\n"
    assert written == sdp_part(expected or alternative) + sdp_part(done) + LAST
    again = find_sdp(written, ALTERNATIVE)
    assert again is not None
    assert relayed(again, Sdp.parse(again.sdp), [RELAY], IcePolicy.KEEP) is None


@given(
    st.lists(
        st.sampled_from(
            [
                b"--b 1",
                b"--b 1--",
                b"\r\n",
                b"\n",
                b"\r",
                b"Content-Type: application/sdp",
                b"l: 3",
                b" ",
                SDP,
                b"\xff",
                b":",
            ]
        ),
        max_size=20,
    ).map(b"".join)
    | st.binary(),
    st.sampled_from([MIXED, ALTERNATIVE, None, "multipart/x;boundary=b", "multipart/;;=;boundary"]),
)
def test_any_body_is_searched(body: bytes, content_type: str | None) -> None:
    found = find_sdp(body, content_type)
    if found is not None:
        assert found.sdp and found.sdp in body
        assert b"NEW" in found.with_sdp(b"NEW", [b"OTHER"] * len(found.alternatives))


def test_searching_takes_linear_time() -> None:
    headers = b"x" * 60_000 + b"\r\n" + b"a:b\r\n" * 1000
    assert find_sdp(part(headers, b"\r\n" * 20_000), MIXED) is None
    assert find_sdp(b"--b 1" * 10_000 + b"--b 1 " * 1000 + b"\r\n--b 1\r" * 5000, MIXED) is None
