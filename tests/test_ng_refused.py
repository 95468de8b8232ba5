"""What offers and answers of NG are refused, in which words; and what passes untouched."""

from typing import Any

import pytest

from mediaproxy.control import MediaReply
from tests.ngarm import Arm
from tests.ngcases import FAX, HEAD, MUX, VIDEO, answer, offer
from tests.test_ng_negotiation import CRYPTO, DTLS, SDES, asked, body, told


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (None, "Ran out of ports"),
        (MediaReply(error="no ports left", status=480), "Ran out of ports"),
        (MediaReply(error="no relay", status=503), "Ran out of ports"),
        (MediaReply(error="max_calls = 10 reached", status=480), "Parallel session limit reached"),
        (MediaReply(error="this relay has no IPv6 address", status=480), "this relay has no IPv6 address"),
        (MediaReply(error="the call has ended", status=481), "the call has ended"),
        (MediaReply(), "Error rewriting SDP"),
    ],
)
def test_what_the_relay_refuses(reply: MediaReply | None, reason: str) -> None:
    class Refusing(Arm):
        def reply(self, question: Any) -> MediaReply | None:
            return reply

    assert told(offer(), arm=Refusing()) == {"result": "error", "error-reason": reason}


def test_load_limit_for_who_knows_it() -> None:
    arm = Arm()
    arm.error = MediaReply(error="max_calls = 10 reached", status=480)
    limit = {"result": "load limit", "message": "Parallel session limit reached"}
    assert told(offer(supports=["load limit"]), arm=arm) == limit


def test_a_second_question_that_fails_is_an_error_too() -> None:
    class Forgetful(Arm):
        def reply(self, question: Any) -> MediaReply | None:
            reply = super().reply(question)
            return None if len(self.asked) == 3 else reply

    arm = Forgetful()
    arm.run(offer(MUX, rtcp_mux=["demux"]))
    assert told(answer(), arm=arm) == {"result": "error", "error-reason": "Ran out of ports"}


@pytest.mark.parametrize(
    ("request_", "word"),
    [
        (offer(record_call="yes"), "record-call=yes needs recording"),
        (offer(flags=["record-call"]), "record-call needs recording"),
        (offer(flags=["SIPREC"]), "SIPREC needs recording"),
        (offer(codec={"transcode": ["PCMA"]}), "codec-transcode-PCMA needs transcoding"),
        (offer(flags=["transcode-PCMA"]), "codec-transcode-PCMA needs transcoding"),
        (offer(flags=["codec-consume-PCMA"]), "codec-consume-PCMA needs transcoding"),
        (offer(flags=["codec-accept-PCMA"]), "codec-accept-PCMA needs transcoding"),
        (offer(codec={"set": ["opus/48000/2"]}), "codec-set-opus/48000/2 needs transcoding"),
        (offer(flags=["always transcode"]), "always transcode needs transcoding"),
        (offer(ptime=30), "ptime=30 needs transcoding"),
        (offer(repacketize=30), "ptime=30 needs transcoding"),
        (offer(delay_buffer=100), "delay-buffer=100 needs transcoding"),
        (offer(**{"T.38": ["decode"]}), "T.38=decode needs transcoding"),
        (offer(flags=["T38-force"]), "T.38=force needs transcoding"),
        (offer(transport_protocol="RTP/SAVP"), "transport-protocol=RTP/SAVP needs SRTP termination"),
        (offer(SDES, transport_protocol="RTP/AVP"), "transport-protocol=RTP/AVP needs SRTP termination"),
        (offer(DTLS, transport_protocol="RTP/AVP"), "transport-protocol=RTP/AVP needs SRTP termination"),
        (offer(DTLS, flags=["RTP/SAVPF"]), "transport-protocol=RTP/SAVPF needs SRTP termination"),
        (offer(transport_protocol="UDPTL"), "transport-protocol=UDPTL needs transcoding"),
        (offer(flags=["WebRTC"]), "transport-protocol=UDP/TLS/RTP/SAVPF needs SRTP termination"),
        (offer(DTLS, DTLS="off"), "DTLS=off needs SRTP termination"),
        (offer(SDES, SDES=["off"]), "SDES=off needs SRTP termination"),
        (offer(SDES, SDES=["only-AEAD_AES_256_GCM"]), "SDES=only-aead-aes-256-gcm needs SRTP termination"),
        (offer(OSRTP=["offer"]), "OSRTP=offer needs SRTP termination"),
        (offer(flags=["recrypt"]), "recrypt needs SRTP termination"),
    ],
)
def test_what_needs_more_than_a_relay_is_refused_by_name(request_: dict[str, Any], word: str) -> None:
    arm = Arm()
    answer = arm.run(request_)
    assert answer["result"] == "error"
    assert answer["error-reason"].startswith(word)
    assert arm.asked == []


@pytest.mark.parametrize(
    "request_",
    [
        offer(record_call="no"),
        offer(transport_protocol="RTP/AVP"),
        offer(FAX, transport_protocol="RTP/AVP"),
        offer(VIDEO.replace("4002", "0").replace("video 0 RTP/AVP", "video 0 RTP/SAVP"), transport_protocol="RTP/AVP"),
        offer(SDES),
        offer(SDES, transport_protocol="RTP/SAVP", DTLS="off"),
        offer(SDES, SDES=["no-AEAD_AES_256_GCM", "pad", "lifetime"]),
        offer(DTLS, DTLS="passive", SDES=["off"]),
        offer(DTLS, transport_protocol="UDP/TLS/RTP/SAVPF"),
        offer(SDES=["off"], DTLS="off"),
        offer(OSRTP=["accept"]),
        offer(generate_RTCP="off"),
        offer(**{"T.38": ["no-ecm"]}),
        offer(flags=["codec-ignore-PCMA", "allow transcoding"]),
    ],
)
def test_what_asks_for_nothing_is_fine(request_: dict[str, Any]) -> None:
    assert told(request_)["result"] == "ok"


@pytest.mark.parametrize(
    "keys",
    [
        {"codec": {"transcode": ["PCMA"], "mask": ["PCMU"]}},
        {"ptime": 30},
        {"T.38": ["decode"]},
    ],
)
def test_what_rtpengine_ignores_in_answers_is_ignored(keys: dict[str, Any]) -> None:
    assert told(offer(), answer(**keys))["result"] == "ok"
    assert told(offer(), answer(record_call="yes"))["result"] == "error"


@pytest.mark.parametrize("sdp", [SDES, DTLS])
def test_srtp_that_the_phones_agree_on_passes_untouched(sdp: str) -> None:
    lines = body(offer(sdp))
    kept = [line for line in sdp.splitlines() if line.startswith(("a=crypto", "a=fingerprint", "a=setup"))]
    assert kept and [line for line in lines if line in kept] == kept
    transport = next(line for line in lines if line.startswith("m=")).split()[2]
    assert f" {transport} 0\n" in sdp
    question = asked(offer(sdp))
    assert question.streams[0].dtls == (sdp is DTLS) and question.streams[0].sdes == (sdp is SDES)


def test_webrtc_stands_for_many_words() -> None:
    lines = body(offer(DTLS, flags=["WebRTC"]))
    assert "a=rtcp-mux" in lines and "a=ice-lite" in lines and "a=ice-options:trickle" in lines and "a=mid:1" in lines
    assert not [line for line in lines if line.startswith("a=rtcp:")]


def test_crypto_suites_that_are_not_wanted_go() -> None:
    other = "a=crypto:2 AEAD_AES_256_GCM inline:idRsr0ie2OvlewtakTQ+lAMOOV2/b6Hto7nuLUGHfPoytxnpH1K9H0LNpVw\n"
    lines = body(offer(SDES + other, SDES=["no-AEAD_AES_256_GCM"]))
    assert [line + "\n" for line in lines if "crypto" in line] == [CRYPTO]
    lines = body(offer(SDES + other, flags=["SDES-only-AEAD_AES_256_GCM"]))
    assert [line + "\n" for line in lines if "crypto" in line] == [other]


def test_too_many_streams() -> None:
    many = told(offer(HEAD + "m=audio 4000 RTP/AVP 0\n" * 257))
    assert many == {"result": "error", "error-reason": "More than 256 media sections in the SDP"}
