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
    assert asked(offer(PLAIN.replace("192.0.2.10", "127.0.0.1"))).phone == question.phone


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


def test_an_interface_of_one_ip_version_means_that() -> None:
    settings = NgSettings(interfaces=frozenset(("int", "six")), versions={"six": 6})
    assert asked(offer(direction=["int", "six"]), settings=settings).receiver_version == 6
    assert asked(offer(direction=["six", "int"]), settings=settings).receiver_version == 0
    assert asked(offer(direction=["int", "six"], address_family="IP4"), settings=settings).receiver_version == 4


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
