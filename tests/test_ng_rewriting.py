"""The SDP that goes on, beyond what rtpengine 10.5 can be compared with (test_ng_golden)."""

import re
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from mediaproxy.control import MediaRequest
from mediaproxy.sdp import Sdp
from tests.ngarm import Arm
from tests.ngcases import (
    CODECS,
    FAX,
    HEAD,
    MANY,
    MSRP,
    MUX,
    PLAIN,
    VIDEO,
    WITH_ICE,
    answer,
    crlf,
    offer,
    reoffer,
    theirs,
)


def rewritten(request: dict[str, Any], arm: Arm | None = None) -> str:
    """The SDP that goes on, with the line ends of text."""
    told = (arm or Arm()).run(request)
    assert told["result"] == "ok", told
    text = told["sdp"].decode("latin-1")
    assert isinstance(text, str)
    return text.replace("\r\n", "\n")


def lines(request: dict[str, Any], arm: Arm | None = None) -> list[str]:
    """The same, line by line."""
    return rewritten(request, arm).splitlines()


# -- line ends


def test_line_ends_are_those_of_the_body() -> None:
    text = Arm().run(offer(PLAIN.encode()))["sdp"]
    assert b"\r" not in text and text.endswith(b"a=rtcp:30001\n")


def test_a_missing_last_line_end_is_added() -> None:
    text = Arm().run(offer(crlf(PLAIN)[:-2]))["sdp"]
    assert b"m=audio 30000 RTP/AVP 0\r\na=rtpmap:0 PCMU/8000\r\n" in text


@pytest.mark.parametrize("blank", ["\n", "\n\n"])
def test_blank_lines_go(blank: str) -> None:
    assert rewritten(offer(PLAIN + blank)) == rewritten(offer(PLAIN))


# -- c=


def test_a_stream_that_is_left_alone_keeps_its_address() -> None:
    text = rewritten(offer(MSRP))
    assert text.endswith("m=message 4010 TCP/MSRP *\nc=IN IP4 192.0.2.10\na=path:msrp://192.0.2.10:4010/x;tcp\n")


def test_a_stream_of_another_ip_version_gets_a_c_line_behind_its_title() -> None:
    class Mixed(Arm):
        def _port(self, question: MediaRequest, index: int) -> Any:
            self._addresses = {"": "::1" if index else "127.0.0.1"}
            return super()._port(question, index)

    text = rewritten(offer(VIDEO.replace("97\n", "97\ni=film\n", 1)), Mixed())
    assert "c=IN IP4 127.0.0.1\nt=" in text
    assert re.search(r"m=video \d+ RTP/AVP 97\ni=film\nc=IN IP6 ::1\na=", text)


def test_several_c_lines_become_one() -> None:
    text = rewritten(offer(PLAIN + "c=IN IP4 224.2.1.1/127/3\nc=IN IP4 224.2.1.4/127\n"))
    assert text.count("c=IN IP4 127.0.0.1\n") == 1 and "224.2" not in text


def test_number_of_ports_goes_because_a_relay_gives_one_pair() -> None:
    assert "m=audio 30000 RTP/AVP 0" in lines(offer(PLAIN.replace("4000", "4000/2")))


def test_an_sdp_that_has_been_here_before_stays_as_it_is() -> None:
    class Spiral(Arm):
        def _port(self, question: MediaRequest, index: int) -> None:
            return None

    assert Spiral().run(offer(MANY))["sdp"] == crlf(MANY)


def test_a_stream_that_does_not_hold_is_not_told_the_address_of_one_that_does() -> None:
    text = rewritten(offer(PLAIN + "c=IN IP4 0.0.0.0\n" + VIDEO[len(PLAIN) :]))
    assert "s=x\nc=IN IP4 127.0.0.1\n" in text and text.count("c=IN IP4 0.0.0.0\n") == 1


def test_a_stream_speaks_for_itself_before_the_session_does() -> None:
    text = rewritten(offer(HEAD + "a=sendonly\n" + VIDEO[len(HEAD) :] + "a=recvonly\n"))
    assert text.count("a=sendonly\n") == 1 and text.count("a=recvonly\n") == 1
    assert text.index("a=sendonly") > text.index("m=audio") and text.endswith("a=recvonly\na=rtcp:30003\n")


def test_an_sdp_that_refuses_everything() -> None:
    text = rewritten(offer(PLAIN.replace("4000", "0") + "c=IN IP4 192.0.2.10\na=sendrecv\na=mid:1\n"))
    assert text.endswith("m=audio 0 RTP/AVP 0\nc=IN IP4 192.0.2.10\na=mid:1\n")


def test_relayed_candidates_are_for_those_who_have_ice() -> None:
    arm = Arm()
    arm.run(offer(PLAIN))
    text = rewritten(answer(theirs(PLAIN), ICE="force-relay"), arm)
    assert "m=audio 30002 " in text and "c=IN IP4 127.0.0.1" in text and "candidate" not in text


# -- streams


def test_streams_that_are_to_be_removed_are_refused_to_the_receiver() -> None:
    arm = Arm()
    text = rewritten(offer(VIDEO, sdp_media_remove=["video"]), arm)
    assert "m=video 0 RTP/AVP 97\n" in text and "H264" not in text
    question = arm.asked[-1]
    assert isinstance(question, MediaRequest) and question.streams[1].endpoint is None


def test_all_codecs_stripped() -> None:
    codec = {"strip": ["H264"]}
    assert "m=video 30002 RTP/AVP 97" in lines(offer(VIDEO, codec=codec))
    arm = Arm()
    assert "m=video 0 RTP/AVP 97" in lines(offer(VIDEO, codec=codec, flags=["allow no codec media"]), arm)
    question = arm.asked[-1]
    assert isinstance(question, MediaRequest) and question.streams[1].endpoint is None


def test_fmtp_and_feedback_follow_their_format_and_all_of_them_stay() -> None:
    sdp = (
        HEAD
        + "m=video 4000 RTP/AVP 96 97\na=fmtp:96 a\na=fmtp:96 b\na=rtpmap:97 X/1\na=rtcp-fb:97 nack\na=rtcp-fb:* x\n"
    )
    text = rewritten(offer(sdp))
    assert "96 97\na=rtcp-fb:* x\na=fmtp:96 a\na=fmtp:96 b\na=rtpmap:97 X/1\na=rtcp-fb:97 nack\na=sendrecv\n" in text


def test_what_is_said_of_stripped_formats_goes() -> None:
    text = rewritten(offer(CODECS, codec={"strip": ["opus", "G729"]}))
    assert "RTP/AVP 0 8 101\n" in text and not re.search(r":(96|102|18) ", text)


# -- sdp-attr


@pytest.mark.parametrize(
    ("edits", "before", "after"),
    [
        ({"audio": {"add": ["x:1"]}}, "", "a=rtcp:30001\na=x:1\n"),
        ({"audio": {"remove": ["foo"]}}, "a=foo:bar\n", "RTP/AVP 0\na=rtpmap:0"),
        ({"audio": {"remove": ["foo:bar"]}}, "a=foo:bar\na=foo:baz\n", "RTP/AVP 0\na=foo:baz\na=rtpmap:0"),
        ({"audio": {"remove": ["rtcp"]}}, "", "a=sendrecv\n"),
        ({"audio": {"substitute": [["foo:bar", "x:y"]]}}, "a=foo:bar\n", "\na=x:y\na=rtpmap:0"),
        ({"audio": {"substitute": [["foo", "x"]]}}, "a=foo:bar\n", "\na=x:bar\na=rtpmap:0"),
        ({"audio": {"substitute": [["sendrecv", "sendonly"]]}}, "", "a=sendonly\na=rtcp"),
        ({"audio": {"remove": ["FOO:bar", "x"]}}, "a=Foo:Baz\na=X:1\n", "a=Foo:Baz\na=rtpmap:0"),
        ({"audio": {"substitute": [["FOO", "x"]]}}, "a=foo:Bar\n", "\na=x:Bar\na=rtpmap:0"),
        ({"video": {"add": ["x:1"]}}, "", "a=sendrecv\na=rtcp:30001\n"),
        ({"global": {"add": ["x:1"]}}, "", "t=0 0\na=x:1\nm=audio"),
        ({"none": {"add": ["x:1"]}, "global": {"add": ["y"]}}, "", "t=0 0\na=y\na=x:1\nm=audio"),
    ],
)
def test_attributes_that_are_asked_for(edits: dict[str, Any], before: str, after: str) -> None:
    text = rewritten(offer(PLAIN + before, sdp_attr=edits))
    assert after in text
    if "remove" in str(edits):
        assert "foo:bar" not in text


def test_attributes_by_words_of_flags() -> None:
    text = rewritten(offer(PLAIN, flags=["sdp-attr-add-audio-foo:a..b", "sdp-attr-remove-audio-rtcp"]))
    assert text.endswith("a=sendrecv\na=foo:a b\n")


# -- ICE


def test_foreign_candidates_stay_beside_ours_and_relayed_ones_give_way() -> None:
    text = rewritten(offer(WITH_ICE, ICE="force-relay"))
    assert "typ host" in text and "typ srflx" in text and "198.51.100.9" not in text
    assert "m=audio 4000 " in text and "c=IN IP4 192.0.2.10\n" in text and "a=ice-lite" not in text
    assert text.count("typ relay raddr 127.0.0.1") == 2


def test_a_lite_agent_says_so_once() -> None:
    text = rewritten(offer(VIDEO, ICE="force"))
    assert text.count("a=ice-lite\n") == 1 and text.count("a=ice-pwd") == 2
    assert text.index("a=ice-lite") < text.index("m=audio")


# -- anything


_SDP = st.one_of(
    st.binary(max_size=60),
    st.builds(
        lambda text, at, junk: text[:at] + junk + text[at:],
        st.sampled_from([crlf(PLAIN), crlf(MANY), crlf(WITH_ICE), crlf(MSRP), crlf(CODECS)]),
        st.integers(0, 400),
        st.binary(max_size=12),
    ),
    st.lists(
        st.sampled_from(
            crlf(MANY + WITH_ICE + MSRP).splitlines(keepends=True) + [b"m=audio 0 RTP/AVP 0\r\n", b"\r\n", b"c="]
        ),
        max_size=25,
    ).map(lambda some: b"v=0\r\n" + b"".join(some)),
)
_TEXT = (
    "trust-address SIP-source-address ICE-remove ICE-force ICE-optional ICE-force-relay rtcp-mux-offer rtcp-mux-demux "
    "rtcp-mux-require replace-origin replace-sdp-version replace-session-name replace-zero-address replace-origin-full "
    "full-rtcp-attribute no-rtcp-attribute original-sendrecv strip-extmap loop-protect generate-mid trickle-ICE "
    "codec-strip-PCMU codec-strip-all codec-offer-PCMA codec-mask-opus codec-except-H264 single-codec RTP/AVPF RTP/AVP "
    "allow-no-codec-media sdp-attr-add-audio-x sdp-attr-remove-global-tool SDES-off fragment internal external "
    "sdp-media-remove-video media-address=192.0.2.99 media-address=::2 address-family=IP6 label=x junk=\xff"
)
_WORDS = st.sampled_from(_TEXT.split())


@settings(max_examples=400, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(_SDP, st.lists(_WORDS, max_size=6), st.booleans())
@example(b"v=0\r\nm=audio 4000 RTP/AVP 0\r\nc=IN IP4 a.example\r\n", [], False)
def test_any_sdp_with_any_words_is_answered(sdp: bytes, words: list[str], first: bool) -> None:
    arm = Arm()
    steps = [offer(sdp, flags=words, received_from="203.0.113.5"), answer(sdp, flags=words), reoffer(sdp, flags=words)]
    if first:
        arm.run(offer(MANY))
    for step in steps:
        told = arm.run(step)
        assert told["result"] in ("ok", "error")
        if told["result"] == "error":
            assert told["error-reason"]
        elif "sdp" in told and told["sdp"] != sdp:
            assert Sdp.parse(told["sdp"]).sections  # what goes on can be read


_UNKNOWN = st.lists(
    st.binary(min_size=1, max_size=20)
    .filter(lambda line: not re.search(rb"[\r\n\x0b\x0c\x1c-\x1e\x85]", line))
    .map(lambda line: b"a=x-" + line + b"\r\n"),
    max_size=4,
)


@given(_UNKNOWN, _UNKNOWN, _UNKNOWN)
def test_lines_that_nobody_knows_stay_where_they_are(head: list[bytes], audio: list[bytes], video: list[bytes]) -> None:
    sdp = crlf(HEAD) + b"".join(head) + b"m=audio 4000 RTP/AVP 0\r\n" + b"".join(audio)
    sdp += b"m=video 4002 RTP/AVP 31\r\n" + b"".join(video)
    text = Arm().run(offer(sdp))["sdp"]
    assert b"t=0 0\r\n" + b"".join(head) + b"m=audio 30000 RTP/AVP 0\r\n" + b"".join(audio) + b"a=rtpmap:0 " in text
    assert b"m=video 30002 RTP/AVP 31\r\n" + b"".join(video) + b"a=rtpmap:31 " in text


@pytest.mark.parametrize("sdp", [PLAIN, MANY, CODECS, VIDEO, FAX, MUX, PLAIN + "a=inactive\n"])
def test_what_goes_on_twice_is_the_same(sdp: str) -> None:
    once = Arm().run(offer(sdp))["sdp"]
    assert Arm().run(offer(once))["sdp"] == once


def test_bobs_words_are_treated_like_alices() -> None:
    arm = Arm()
    arm.run(offer(MANY))
    text = rewritten(answer(theirs(MANY), replace=["origin"]), arm)
    assert "o=bob 77 5 IN IP4 127.0.0.1" in text and "a=rtpmap:96 opus/48000/2" in text
