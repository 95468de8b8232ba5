"""What an offer or answer of NG asks of the media arm, and what its refusals say."""

from typing import Any

import msgspec
import pytest

from mediaproxy.control import Direction, KnownBy, MediaReply, MediaRequest, Party, PhoneAddress, Wishes
from mediaproxy.dialects.ng.memo import Memo, StreamMemo, Told
from mediaproxy.dialects.ng.settings import NgSettings
from mediaproxy.endpoint import Endpoint
from tests.ngarm import Arm
from tests.ngcases import FAX, HEAD, ICE, MUX, PLAIN, VIDEO, WITH_ICE, answer, crlf, offer, reoffer, theirs

CRYPTO = "a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:d0RmdmcmVCspeEc3QGZiNWpVLFJhQX1cfHAwJSoj\n"
SDES = PLAIN.replace("AVP", "SAVP") + CRYPTO
DTLS = PLAIN.replace("RTP/AVP", "UDP/TLS/RTP/SAVPF") + "a=fingerprint:sha-256 AA:BB\na=setup:actpass\n"


def asked(*steps: dict[str, Any], settings: NgSettings | None = None) -> MediaRequest:
    """The last question of a call."""
    arm = Arm()
    for step in steps:
        arm.run(step, settings)
    question = arm.asked[-1]
    assert isinstance(question, MediaRequest)
    return question


def told(*steps: dict[str, Any], arm: Arm | None = None, settings: NgSettings | None = None) -> dict[str, Any]:
    """The last answer in a call."""
    arm = arm or Arm()
    return [arm.run(step, settings) for step in steps][-1]


def body(*steps: dict[str, Any], arm: Arm | None = None) -> list[str]:
    """The lines of the last SDP."""
    answer = told(*steps, arm=arm)
    assert answer["result"] == "ok", answer
    return list(answer["sdp"].decode("latin-1").replace("\r", "").splitlines())


# -- who is who


def test_an_offer_is_a_request_of_the_offerer() -> None:
    question = asked(offer(via_branch="z9hG4bK1"))
    assert (question.sender, question.receiver) == (Party(tag="a"), Party())
    assert (question.call_id, question.status, question.cseq, question.branch) == ("c", 0, -1, "z9hG4bK1")
    question = asked(offer(), answer(), reoffer())
    assert (question.sender, question.receiver, question.status) == (Party(tag="a"), Party(tag="b"), 0)


def test_an_answer_is_a_response_of_the_other_party() -> None:
    question = asked(offer(), answer(via_branch="z9hG4bK1"))
    assert (question.sender, question.receiver) == (Party(tag="b"), Party(tag="a"))
    assert (question.status, question.cseq, question.branch) == (200, -1, "z9hG4bK1")


@pytest.mark.parametrize(
    ("keys", "status"),
    [
        ({"SIP-code": 183, "SIP-message-type": "response"}, 183),
        ({"SIP-code": "183"}, 183),
        ({"SIP-code": 200}, 200),
        ({"SIP-code": 100}, 200),
        ({"SIP-code": 183, "SIP-message-type": "request"}, 200),
        ({"SIP-code": 999}, 200),
    ],
)
def test_the_status_of_an_answer_is_used_where_it_is_told(keys: dict[str, Any], status: int) -> None:
    assert asked(offer(), answer(**keys)).status == status


@pytest.mark.parametrize(
    ("keys", "phone"),
    [
        ({}, PhoneAddress(known_by=KnownBy.UNKNOWN)),
        ({"received-from": ["IP4", "203.0.113.5"]}, "203.0.113.5"),
        ({"received-from": ["IP4", "203.0.113.5"], "flags": ["trust-address"]}, "203.0.113.5"),
        ({"received-from": ["IP4", "203.0.113.5"], "flags": ["SIP-source-address"]}, "203.0.113.5"),
        ({"received-from": ["IP6", "2001:DB8::5"]}, "2001:db8::5"),
        ({"received-from": ["IP4", "127.0.0.1"]}, PhoneAddress(known_by=KnownBy.UNKNOWN)),
        ({"received-from": ["IP4", "0.0.0.0"]}, PhoneAddress(known_by=KnownBy.UNKNOWN)),
        ({"received-from": ["IP4", "phone.example"]}, PhoneAddress(known_by=KnownBy.UNKNOWN)),
    ],
)
def test_where_the_phone_is(keys: dict[str, Any], phone: PhoneAddress | str) -> None:
    if isinstance(phone, str):
        phone = PhoneAddress(endpoint=Endpoint(phone, 0), known_by=KnownBy.EXPLICIT)
    assert asked(offer(**keys)).phone == phone


def test_a_phone_on_this_very_host() -> None:
    question = asked(offer(PLAIN.replace("192.0.2.10", "127.0.0.1"), received_from=["IP4", "127.0.0.1"]))
    assert question.phone == PhoneAddress(endpoint=Endpoint("127.0.0.1", 0), known_by=KnownBy.EXPLICIT)


SOURCE = Endpoint("203.0.113.5", 4000)
OWN = Endpoint("192.0.2.10", 4000)


@pytest.mark.parametrize(
    ("sdp", "flags", "sip_source", "place"),
    [
        (PLAIN, [], False, OWN),
        (PLAIN, ["trust-address"], True, OWN),
        (PLAIN, [], True, SOURCE),
        (PLAIN, ["SIP source address"], False, SOURCE),
        (WITH_ICE, ["SIP source address"], False, OWN),
        (
            PLAIN.replace("c=IN IP4 192.0.2.10", "c=IN IP4 0.0.0.0"),
            ["sip-source-address"],
            False,
            Endpoint("0.0.0.0", 4000),
        ),
        (PLAIN.replace("c=IN IP4 192.0.2.10", "c=IN IP4 a.example"), [], False, SOURCE),
    ],
)
def test_where_media_is_sent_to_at_first(sdp: str, flags: list[str], sip_source: bool, place: Endpoint) -> None:
    command = offer(sdp, flags=flags, received_from=["IP4", "203.0.113.5"])
    (stream,) = asked(command, settings=NgSettings(sip_source=sip_source)).streams
    assert stream.endpoint == place
    assert stream.rtcp == place.with_port(4001)


def test_rtcp_goes_where_the_source_is_too() -> None:
    command = offer(
        PLAIN + "a=rtcp:4009 IN IP4 192.0.2.11\n", flags=["SIP-source-address"], received_from="203.0.113.5"
    )
    assert asked(command).streams[0].rtcp == Endpoint("203.0.113.5", 4009)


@pytest.mark.parametrize(
    ("callback_url", "keys", "notify"),
    [
        ("", {"xmlrpc-callback": "192.0.2.1"}, ""),
        ("http://%%:8090/RPC2", {}, "xmlrpc:127.0.0.1"),
        ("http://%%:8090/RPC2", {"xmlrpc-callback": "192.0.2.1"}, "xmlrpc:192.0.2.1"),
    ],
)
def test_who_is_told_of_the_end(callback_url: str, keys: dict[str, Any], notify: str) -> None:
    assert asked(offer(**keys), settings=NgSettings(callback_url=callback_url)).notify == notify


# -- wishes


@pytest.mark.parametrize(
    ("keys", "wishes"),
    [
        ({}, None),
        ({"flags": ["symmetric", "trust-address", "no-such-word"]}, None),
        ({"flags": ["strict source"]}, Wishes(strict_source=True)),
        ({"flags": ["media-handover"]}, Wishes(media_handover=True)),
        ({"flags": ["port latching"]}, Wishes(keep_ports=True)),
        ({"flags": ["no port latching"]}, None),
        ({"endpoint-learning": "off"}, Wishes(learn=False)),
        ({"endpoint-learning": "delayed"}, None),
        ({"TOS": 184}, Wishes(tos=184)),
        ({"TOS": -1}, None),
        ({"label": "x"}, Wishes(label="x")),
        ({"direction": ["int", "ext"]}, Wishes(facing="int", towards="ext")),
        ({"direction": ["internal", "external"]}, None),
        ({"direction": ["", "ext"]}, Wishes(towards="ext")),
        ({"rtcp-mux": ["offer"]}, Wishes(mux=(True,))),
        ({"rtcp-mux": ["demux"]}, None),
        ({"ICE": "force"}, Wishes(lite=(True,))),
        ({"ICE": "remove"}, None),
        ({"ICE": "optional"}, Wishes(lite=(True,))),
    ],
)
def test_wishes_of_an_offer(keys: dict[str, Any], wishes: Wishes | None) -> None:
    assert asked(offer(**keys)).wishes == wishes


def test_asymmetric_is_the_senders() -> None:
    assert asked(offer(flags=["asymmetric"])).asymmetric
    assert not asked(offer(flags=["asymmetric"]), answer()).asymmetric


@pytest.mark.parametrize(
    ("keys", "version"),
    [
        ({}, 0),
        ({"address-family": "IP6"}, 6),
        ({"address-family": "IP4"}, 4),
        ({"direction": ["internal", "external"]}, 6),
        ({"direction": ["external", "internal"]}, 4),
        ({"direction": ["internal", "external"], "address-family": "IP4"}, 4),
    ],
)
def test_the_ip_version_towards_the_receiver(keys: dict[str, Any], version: int) -> None:
    assert asked(offer(**keys)).receiver_version == version


def test_internal_may_be_the_name_of_an_interface() -> None:
    settings = NgSettings(interfaces=frozenset(("internal", "external")))
    question = asked(offer(direction=["internal", "external"]), settings=settings)
    assert question.wishes == Wishes(facing="internal", towards="external")
    assert question.receiver_version == 0


def test_an_answer_has_no_direction() -> None:
    assert asked(offer(), answer(direction=["int", "ext"])).wishes is None


def test_mux_that_was_taken_off_an_offer_is_said_in_the_answer_and_the_relay_knows() -> None:
    arm = Arm()
    assert "a=rtcp-mux" not in body(offer(MUX, rtcp_mux=["demux"]), arm=arm)
    (first,) = arm.asked
    assert isinstance(first, MediaRequest) and first.wishes == Wishes(mux=(False,))
    assert "a=rtcp-mux" in body(answer(), arm=arm)
    _, plain, muxed = arm.asked
    assert isinstance(plain, MediaRequest) and isinstance(muxed, MediaRequest)
    assert plain.wishes is None and muxed.wishes == Wishes(mux=(True,))
    assert muxed.sdp_hash != plain.sdp_hash


def test_one_question_is_enough_for_most_answers() -> None:
    for first, second in ((PLAIN, PLAIN), (MUX, MUX), (VIDEO, VIDEO), (FAX, FAX)):
        arm = Arm()
        arm.run(offer(first, ICE="remove"))
        arm.run(answer(theirs(second), ICE="remove"))
        assert len(arm.asked) == 2


def test_the_relays_ice_is_for_whoever_has_ice() -> None:
    arm = Arm()
    arm.run(offer(WITH_ICE, ICE="remove"))
    lines = body(answer(), arm=arm)
    assert "a=ice-lite" in lines and "a=ice-ufrag:ufrag" in lines
    question = arm.asked[-1]
    assert isinstance(question, MediaRequest) and question.wishes == Wishes(lite=(True,))


def test_the_relay_is_told_the_phones_credentials() -> None:
    assert asked(offer(WITH_ICE)).ice == (("AAAA", "A" * 24),)
    assert asked(offer(HEAD + "a=ice-ufrag:x\na=ice-pwd:y\n" + VIDEO[len(HEAD) :])).ice == (("x", "y"), ("x", "y"))
    assert asked(offer()).ice == ()


def test_a_relay_that_gives_no_credentials_takes_no_part_in_ice() -> None:
    class Without(Arm):
        def reply(self, question: Any) -> MediaReply | None:
            reply = super().reply(question)
            assert reply is not None
            ports = tuple(port and msgspec.structs.replace(port, ufrag="", password="") for port in reply.ports)
            return msgspec.structs.replace(reply, ports=ports)

    lines = body(offer(WITH_ICE), arm=Without())
    assert not [line for line in lines if line.startswith(("a=ice", "a=candidate"))]


# -- what is refused


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


# -- memory that travels


def test_a_memo_survives_its_text() -> None:
    memo = Memo(streams=(StreamMemo(mux="b", ice=True),), told=Told(origin="\xff\u20ac", version=7))
    assert Memo.read(memo.text()) == memo
    for text in ("", "x", "[[1]]", "[" * 5000, "{}"):
        assert Memo.read(text) == Memo()


def test_an_sdp_of_a_loop_comes_back_as_it_is() -> None:
    arm = Arm()
    once = told(offer(flags=["loop-protect"]), arm=arm)["sdp"]
    asked_once = len(arm.asked)
    assert told(offer(once, flags=["loop protect"]), arm=arm)["sdp"] == once
    assert len(arm.asked) == asked_once
    assert told(offer(once), arm=arm)["sdp"].count(b"a=rtpengine:") == 1


def test_version_counts_on_only_when_the_sdp_changes() -> None:
    arm = Arm()

    def version(request: dict[str, Any]) -> str:
        request["replace"] = ["sdp-version"]
        return body(request, arm=arm)[1].split()[2]

    assert version(offer(PLAIN.replace("10 1 IN", "10 5 IN"))) == "5"
    arm.run(answer())
    assert version(reoffer(PLAIN.replace("10 1 IN", "10 5 IN"))) == "5"
    assert version(reoffer(PLAIN.replace("10 1 IN", "10 9 IN"))) == "5"
    assert version(reoffer(PLAIN + "a=sendonly\n")) == "6"
    assert version(reoffer(PLAIN)) == "7"
    forced = reoffer(PLAIN, replace=["force-increment-sdp-ver"])
    assert body(forced, arm=arm)[1].split()[2] == "8"


def test_origin_and_session_name_stay_as_they_were_told_first() -> None:
    arm = Arm()
    words = {"replace": ["origin-full", "session-name"]}
    assert body(offer(**words), arm=arm)[1:3] == ["o=alice 10 1 IN IP4 127.0.0.1", "s=x"]
    arm.run(answer())
    other = PLAIN.replace("alice 10 1 IN IP4 192.0.2.10", "other 99 2 IN IP4 192.0.2.77").replace("s=x", "s=y")
    assert body(reoffer(other, **words), arm=arm)[1:3] == ["o=alice 10 2 IN IP4 127.0.0.1", "s=x"]
    arm = Arm()
    arm.run(offer(replace=["username"]))
    assert body(reoffer(other, replace=["username"]), arm=arm)[1] == "o=alice 99 2 IN IP4 192.0.2.77"


def test_an_answer_after_a_restart_that_forgot_the_offer_goes_by_itself() -> None:
    class Forgetful(Arm):
        def reply(self, question: Any) -> MediaReply | None:
            reply = super().reply(question)
            return reply and msgspec.structs.replace(reply, memo="", before="")

    arm = Forgetful()
    arm.run(offer(MUX))
    assert "a=rtcp-mux" in body(answer(theirs(MUX)), arm=arm)
    assert "a=ice-lite" in body(answer(theirs(PLAIN) + ICE), arm=arm)


def test_streams_that_are_told() -> None:
    audio, video = asked(offer(VIDEO.replace("4002", "0") + "a=inactive\n")).streams
    assert (audio.kind, audio.endpoint, audio.direction) == ("audio", OWN, Direction.SENDRECV)
    assert (video.kind, video.endpoint) == ("video", None)
    (_, data) = asked(offer(PLAIN + "m=application 4012 UDP/DTLS/SCTP webrtc-datachannel\n")).streams
    assert data.endpoint == Endpoint("192.0.2.10", 4012) and data.rtcp is None
    (_, message) = asked(offer(PLAIN + "m=message 4010 TCP/MSRP *\n")).streams
    assert message.endpoint is None


def test_the_hash_is_of_the_sdp_as_it_came() -> None:
    first, again = asked(offer()), asked(offer(flags=["asymmetric"]))
    assert first.sdp_hash == again.sdp_hash != asked(offer(VIDEO)).sdp_hash
    assert crlf(PLAIN) == offer()["sdp"]
