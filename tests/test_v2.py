"""dialects/v2.py: what MediaProxy 2.x's modules write, what it means, and what they are answered."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mediaproxy.control import (
    ConfirmRequest,
    Direction,
    EndCause,
    EndRequest,
    KnownBy,
    MediaPort,
    MediaReply,
    MediaRequest,
    Party,
    PhoneAddress,
    Stream,
)
from mediaproxy.dialects.dialect import ErrorAnswer, Peer
from mediaproxy.dialects.v2 import MediaProxy2, media, read, signalling
from mediaproxy.endpoint import Endpoint
from mediaproxy.events import CallState, EndReason
from mediaproxy.relay.settings import RelayAddress
from tests.mpbench import Desk, block, captured, mended, remove, update
from tests.relaybench import V4, V6, at, rtp

PEER = Peer("unix", "", 1000.0)


def asked(request: bytes) -> MediaRequest:
    question = next(MediaProxy2().answer(request, PEER))
    assert isinstance(question, MediaRequest)
    return question


def answered(request: bytes, reply: MediaReply | None) -> bytes:
    steps = MediaProxy2().answer(request, PEER)
    next(steps)
    with pytest.raises(StopIteration) as stop:
        steps.send(reply)
    value = stop.value.value
    assert isinstance(value, bytes)
    return value


def at_once(request: bytes) -> bytes:
    """The answer to what asks nothing."""
    with pytest.raises(StopIteration) as stop:
        next(MediaProxy2().answer(request, PEER))
    value = stop.value.value
    assert isinstance(value, bytes)
    return value


# -- what is asked


def test_a_request() -> None:
    question = asked(update(dialog_id="2598:9309", media_relay="203.0.113.99", cseq=7))
    assert question == MediaRequest(
        call_id="call-1",
        sender=Party(tag="alice", uri="sip:alice@example.com", domain="example.com"),
        receiver=Party(uri="sip:bob@example.net", domain="example.net"),
        cseq=7,
        sdp_hash=question.sdp_hash,
        method="",
        phone=PhoneAddress(endpoint=Endpoint("203.0.113.1", 0), known_by=KnownBy.EXPLICIT),
        user_agent="Phone 1",
        streams=(Stream(kind="audio", transport="RTP/AVP", endpoint=at("10.0.0.1:4000"), dtls=True),),
        receiver_version=4,
        dialog_id="2598:9309",
        relay_wish="203.0.113.99",
    )


def test_a_reply_comes_from_whom_it_is_to() -> None:
    question = asked(update("reply", to_tag="b"))
    assert (question.sender.tag, question.receiver.tag, question.status) == ("b", "alice", 200)
    assert (question.sender.uri, question.receiver.uri) == ("sip:bob@example.net", "sip:alice@example.com")


def test_a_reply_without_to_tag_is_provisional() -> None:
    question = asked(update("reply", to_tag=""))
    assert (question.sender.tag, question.status) == ("", 183)


def test_replies_of_a_fork_are_told_apart_by_phone() -> None:
    one, two = asked(update("reply", to_tag="")), asked(update("reply", to_tag="", signaling_ip="198.51.100.3"))
    final = asked(update("reply", to_tag="b"))
    assert one.branch and one.branch == final.branch != two.branch
    assert asked(update()).branch == ""


STREAMS = [
    ("audio:10.0.0.1:4000:sendonly:ice=no", Direction.SENDONLY, False, "RTP/AVP"),
    ("audio:10.0.0.1:4000:RECVONLY:ice=yes", Direction.RECVONLY, True, "RTP/AVP"),
    ("audio:10.0.0.1:4000:inactive", Direction.INACTIVE, False, "RTP/AVP"),
    ("video:10.0.0.1:4000:sendrecv:ice=yes:x=y", Direction.SENDRECV, True, "RTP/AVP"),
    ("image:10.0.0.1:4000:sendrecv:ice=no", Direction.SENDRECV, False, "udptl"),
    ("application:10.0.0.1:4000:sendrecv:x=y:ice=no", Direction.SENDRECV, False, "udp"),
]


@pytest.mark.parametrize(("text", "direction", "ice", "transport"), STREAMS)
def test_a_stream(text: str, direction: Direction, ice: bool, transport: str) -> None:
    (stream,) = asked(update(media=text)).streams
    assert (stream.direction, stream.ice, stream.transport) == (direction, ice, transport)
    assert stream.endpoint == at("10.0.0.1:4000")


ADDRESSES = [
    ("audio:0.0.0.0:4000:sendrecv", "0.0.0.0:4000", 4),
    ("audio:10.0.0.1:0:sendrecv", None, 0),
    ("audio:fd00::2:4000:sendrecv:ice=no", "[fd00::2]:4000", 6),
    ("audio:[fd00::2]:4000:sendrecv", "[fd00::2]:4000", 6),
    ("audio:10.0.0.1/127:4000:sendrecv", "10.0.0.1:4000", 4),
    ("audio:phone.example.com:4000:sendrecv", "203.0.113.1:4000", 4),
]


@pytest.mark.parametrize(("text", "place", "version"), ADDRESSES)
def test_where_a_stream_is(text: str, place: str | None, version: int) -> None:
    question = asked(update(media=text))
    assert question.streams[0].endpoint == (None if place is None else at(place))
    assert question.receiver_version == version, "the module leaves IP4 or IP6 as it is"


SIGNALLING = [
    ("198.51.100.7", "198.51.100.7", ""),
    ("198.51.100.7_203.0.113.5", "198.51.100.7", ""),
    ("2001:db8::7", "2001:db8::7", ""),
    ("2001:db8::7_2001:db8::5", "2001:db8::7", ""),
    ('{"signaling_ip": "198.51.100.7", "destination_ip": "203.0.113.5", "username": "alice"}', "198.51.100.7", "alice"),
    ('{"signaling_ip": "198.51.100.7"}', "198.51.100.7", ""),
    ('{"username": "Zo\xc3\xab"}', None, "Zo\xc3\xab"),
    ('{"signaling_ip": 7}', None, ""),
    ('{"signaling_ip"', None, ""),
    ("{" * 100_000, None, ""),
    ("phone.example.com", None, ""),
    ("", None, ""),
]


@pytest.mark.parametrize(("text", "address", "username"), SIGNALLING)
def test_where_a_phone_is(text: str, address: str | None, username: str) -> None:
    phone, name = signalling(text)
    assert (phone.endpoint.address if phone.endpoint else None, name) == (address, username)
    assert phone.known_by is (KnownBy.UNKNOWN if address is None else KnownBy.EXPLICIT)


def test_a_username_is_the_label_of_who_wrote_the_sdp() -> None:
    wishes = asked(update(signaling_ip='{"signaling_ip": "203.0.113.1", "username": "alice"}')).wishes
    assert wishes is not None and wishes.label == "alice"
    assert asked(update()).wishes is None


@pytest.mark.parametrize("missing", ["signaling_ip", "user_agent", "from_uri", "to_uri", "dialog_id", "media_relay"])
@pytest.mark.parametrize("value", ["", None])
def test_what_may_be_missing(missing: str, value: str | None) -> None:
    headers: dict[str, str | int | None] = {missing: value}
    assert asked(update("request", "audio:10.0.0.1:4000:sendrecv", **headers)).call_id == "call-1"


def test_unknown_things_are_empty() -> None:
    question = asked(update(user_agent="unknown agent", from_uri="unknown", to_uri="tel:+49301234"))
    assert (question.user_agent, question.sender.uri, question.sender.domain) == ("", "", "")
    assert (question.receiver.uri, question.receiver.domain) == ("tel:+49301234", "")


def test_bytes_survive() -> None:
    assert asked(update(user_agent="Zo\xeb \xff", call_id="\xe9")).user_agent == "Zo\xeb \xff"


FOLDED = (
    b"update\r\ntype: request\r\ncall_id: c\r\ncseq: 1\r\nfrom_tag: a\r\nuser_agent: One\r\n two\r\n\tcall_id: evil\r\n"
)


def test_a_folded_header_goes_on_and_begins_no_other_one() -> None:
    command, headers = read(FOLDED)
    assert command == "update"
    assert headers == {
        "type": "request",
        "call_id": "c",
        "cseq": "1",
        "from_tag": "a",
        "user_agent": "One two call_id: evil",
    }


def test_the_order_of_headers_does_not_matter() -> None:
    lines = update().split(b"\r\n")[1:-1]
    turned = b"\r\n".join([b"update", *reversed(lines), b""])
    assert asked(turned) == asked(update())


def test_lines_may_end_with_lf_alone() -> None:
    assert asked(update().replace(b"\r\n", b"\n")) == asked(update())


def test_an_answer_without_sdp_confirms() -> None:
    question = next(MediaProxy2().answer(update("reply", media="", cseq=3), PEER))
    assert isinstance(question, ConfirmRequest)
    assert (question.sender.tag, question.receiver.tag, question.cseq, question.status) == ("bob", "alice", 3, 200)


def test_a_remove() -> None:
    assert next(MediaProxy2().answer(remove(), PEER)) == EndRequest(
        call_id="call-1", sender=Party(tag="alice"), receiver=Party(tag="bob"), cause=EndCause.DELETE
    )


# -- what is answered

PORT = MediaPort(rtp=at("203.0.113.77:40002"), rtcp=at("203.0.113.77:40003"))
OTHER = MediaPort(rtp=at("203.0.113.77:40006"), rtcp=at("203.0.113.77:40007"))
ELSEWHERE = MediaPort(rtp=at("[2001:db8::77]:40006"), rtcp=None)
TWO = "audio:10.0.0.1:4000:sendrecv:ice=no,video:10.0.0.1:4002:sendrecv:ice=no"
DEAD = "audio:10.0.0.1:4000:sendrecv:ice=no,video:10.0.0.1:0:sendrecv:ice=no"
ANSWERS = [
    (TWO, (PORT, OTHER), b"203.0.113.77 40002 40006\r\n"),
    (DEAD, (PORT, None), b"203.0.113.77 40002 0\r\n"),
    ("audio:10.0.0.1:0:sendrecv", (None,), b"10.0.0.1 0\r\n"),
    ("audio:203.0.113.77:4000:sendrecv", (None,), b"203.0.113.77 4000\r\n"),
    (TWO, (PORT, ELSEWHERE), b"203.0.113.77 40002 0\r\n"),
    (TWO, (PORT, None), b"203.0.113.77 40002 0\r\n"),
    (TWO, (PORT,), b"error\r\n"),
    (TWO, (), b"error\r\n"),
]


@pytest.mark.parametrize(("text", "ports", "answer"), ANSWERS)
def test_an_answer(text: str, ports: tuple[MediaPort | None, ...], answer: bytes) -> None:
    given = answered(update(media=text), MediaReply(ports=ports))
    assert given == answer
    assert isinstance(given, ErrorAnswer) == (answer == b"error\r\n")


@pytest.mark.parametrize("request_", [update(), update("reply", media=""), remove()])
@pytest.mark.parametrize("reply", [None, MediaReply(error="no ports left", status=480), MediaReply(error="x")])
def test_what_goes_wrong_is_an_error(request_: bytes, reply: MediaReply | None) -> None:
    assert answered(request_, reply) == b"error\r\n"


WRONG = [
    b"",
    b"\r\n",
    b"None\r\n",
    b"updates\r\ncall_id: c\r\n",
    b"updates\r\n: reply\r\ncseq: 1\r\n",
    b"update\r\nno header\r\n",
    update().replace(b"cseq: 1", b"cseq:1"),
    update(call_id=""),
    update(from_tag=""),
    update(cseq="x"),
    update(cseq="-1"),
    update(cseq="2147483648"),
    update(cseq="\xb2"),
    update(cseq=None),
    update(type="answer"),
    update(type=None),
    update(media="audio"),
    update(media="audio:10.0.0.1:4000"),
    update(media="audio:10.0.0.1:99999:sendrecv"),
    update(media="audio:10.0.0.1:x:sendrecv"),
    update(media=":10.0.0.1:4000:sendrecv"),
    update(media="audio:10.0.0.1:4000:both"),
    update(media="audio:10.0.0.1:4000:sendrecv,video"),
    update(media=","),
    update(media=""),
    update("reply", media="", to_tag=""),
    remove(call_id=""),
    remove(from_tag=""),
]


@pytest.mark.parametrize("request_", WRONG)
def test_what_is_no_request(request_: bytes) -> None:
    answer = at_once(request_)
    assert answer == b"error\r\n" and isinstance(answer, ErrorAnswer)


# -- with a relay


def test_a_call() -> None:
    desk = Desk(MediaProxy2())
    (facing_bob,) = desk.ports(update(dialog_id="1:2"))
    (facing_alice,) = desk.ports(update("reply", dialog_id="1:2"))
    assert desk.call.state is CallState.TALKING and desk.call.dialog_id == "1:2"
    desk.bench.packet("203.0.113.1:31", at(f"{V4}:{facing_alice}"), rtp())
    (sent,) = desk.bench.packet("198.51.100.2:32", at(f"{V4}:{facing_bob}"), rtp())
    assert sent.target == at("203.0.113.1:31")
    assert desk.say(remove()) == b"removed\r\n"
    assert [one.reason for one in desk.ended] == [EndReason.BYE]


def test_what_is_unknown_is_an_error_never_none() -> None:
    desk = Desk(MediaProxy2())
    assert desk.say(remove()) == b"error\r\n"
    assert desk.say(update("reply", media="")) == b"error\r\n"


def test_a_repeated_request_has_the_same_answer() -> None:
    desk = Desk(MediaProxy2())
    assert desk.ports(update()) == desk.ports(update())
    assert desk.ports(update("reply")) == desk.ports(update("reply"))


def test_ports_stay_when_an_offer_or_an_answer_changes() -> None:
    desk = Desk(MediaProxy2())
    facing_bob, facing_alice = desk.ports(update()), desk.ports(update("reply"))
    moved = desk.ports(update(to_tag="bob", cseq=2, media="audio:10.0.0.9:5000:sendrecv:ice=no"))
    assert moved == facing_bob
    again = desk.ports(update("reply", cseq=2, media="audio:10.0.0.7:7000:sendrecv:ice=no"))
    assert again == facing_alice
    unchanged = desk.ports(update(to_tag="bob", cseq=3, media="audio:10.0.0.9:5000:sendrecv:ice=no"))
    assert unchanged == facing_bob


def test_a_call_whose_streams_are_all_off_still_has_the_relay_s_address() -> None:
    desk = Desk(MediaProxy2())
    facing_bob, _ = desk.ports(update()), desk.ports(update("reply"))
    off = "audio:10.0.0.1:0:sendrecv:ice=no"
    assert desk.ports(update(to_tag="bob", cseq=2, media=off)) == [0] == desk.ports(update("reply", cseq=2, media=off))
    assert desk.ports(update(to_tag="bob", cseq=3)) == facing_bob


def test_hold_and_resume() -> None:
    desk = Desk(MediaProxy2())
    desk.ports(update())
    desk.ports(update("reply"))
    for cseq, direction, state in ((2, "sendonly", CallState.HELD), (3, "sendrecv", CallState.TALKING)):
        desk.ports(update(to_tag="bob", cseq=cseq, media=f"audio:10.0.0.1:4000:{direction}:ice=no"))
        desk.ports(update("reply", cseq=cseq))
        assert desk.call.state is state


def test_a_provisional_reply_to_a_later_invite() -> None:
    """It has no tag, and the phone's ports are those that it has."""
    desk = Desk(MediaProxy2())
    facing_bob, facing_alice = desk.ports(update()), desk.ports(update("reply"))
    assert desk.ports(update(to_tag="bob", cseq=2, media="audio:10.0.0.1:4002:sendrecv")) == facing_bob
    assert desk.ports(update("reply", to_tag="", cseq=2)) == facing_alice
    assert desk.ports(update("reply", cseq=2)) == facing_alice
    assert desk.say(remove()) == b"removed\r\n" and len(desk.bench.calls) == 0


def test_the_callee_holds() -> None:
    """From and To are those of the transaction."""
    desk = Desk(MediaProxy2())
    facing_bob, facing_alice = desk.ports(update()), desk.ports(update("reply"))
    turned = {"from_tag": "bob", "to_tag": "alice", "from_uri": "bob@example.net", "to_uri": "alice@example.com"}
    hold = update(**turned, signaling_ip="198.51.100.2", media="audio:0.0.0.0:4000:sendrecv:ice=no")
    assert desk.ports(hold) == facing_alice
    early = update("reply", **{**turned, "to_tag": ""}, signaling_ip="203.0.113.1")
    assert desk.ports(early) == facing_bob, "a provisional reply of the caller has no tag at all"
    assert desk.ports(update("reply", **turned, signaling_ip="203.0.113.1")) == facing_bob
    assert desk.call.state is CallState.HELD
    assert desk.say(remove(from_tag="bob", to_tag="alice")) == b"removed\r\n"


def test_an_early_answer_is_none() -> None:
    desk = Desk(MediaProxy2())
    desk.ports(update())
    early = desk.ports(update("reply", to_tag=""))
    assert (desk.call.state, desk.call.answered) == (CallState.RINGING, None)
    assert desk.ports(update("reply")) == early
    assert desk.call.state is CallState.TALKING and desk.call.callee.tag == "bob"


def test_early_media_goes_on_after_the_answer() -> None:
    """What was learned of the phone in the early dialog, whose tag is not told, holds for the call."""
    desk = Desk(MediaProxy2())
    (facing_bob,) = desk.ports(update())
    desk.ports(update("reply", to_tag=""))
    desk.bench.packet("198.51.100.2:32", at(f"{V4}:{facing_bob}"), rtp())
    desk.ports(update("reply"))
    assert desk.call.streams[0].callee.learned == at("198.51.100.2:32")


def test_an_early_answer_with_sdp_and_a_final_one_without() -> None:
    desk = Desk(MediaProxy2())
    desk.ports(update())
    early = desk.ports(update("reply", to_tag=""))
    assert desk.ports(update("reply", media="")) == early
    assert desk.call.state is CallState.TALKING and desk.call.callee.tag == "bob"
    assert desk.call.streams[0].callee.sdp == at("10.0.0.1:4000")


def test_the_branch_that_answers_is_heard() -> None:
    desk = Desk(MediaProxy2())
    desk.ports(update())
    carol = {"signaling_ip": "198.51.100.3", "user_agent": "Other"}
    bob = desk.ports(update("reply", to_tag=""))
    assert desk.ports(update("reply", to_tag="", **carol, media="audio:10.0.0.3:4000:sendrecv:ice=no")) == bob
    assert desk.call.streams[0].callee.sdp == at("10.0.0.3:4000"), "the newest is heard"
    assert desk.ports(update("reply")) == bob
    assert desk.call.callee.tag == "bob" and desk.call.streams[0].callee.sdp == at("10.0.0.1:4000")


def test_a_second_answer_has_ports_of_its_own_and_ends_alone() -> None:
    desk = Desk(MediaProxy2())
    desk.ports(update())
    bob = desk.ports(update("reply"))
    carol = update("reply", to_tag="carol", signaling_ip="198.51.100.3", media="audio:10.0.0.3:4000:sendrecv:ice=no")
    assert desk.ports(carol) != bob
    assert desk.say(remove(to_tag="carol")) == b"removed\r\n"
    assert desk.call.state is CallState.TALKING


def test_an_update_before_the_answer_answers_nothing() -> None:
    """The protocol does not say which request a reply belongs to, but its CSeq does."""
    desk = Desk(MediaProxy2())
    desk.ports(update())
    desk.ports(update("reply", to_tag=""))
    desk.ports(update(to_tag="bob", cseq=2, media="audio:10.0.0.1:4002:sendrecv:ice=no"))
    desk.ports(update("reply", cseq=2))
    assert desk.call.answered is None
    desk.ports(update("reply", media=""))
    assert desk.call.answered is not None


def test_a_late_offer() -> None:
    desk = Desk(MediaProxy2())
    (facing_alice,) = desk.ports(update("reply"))
    (facing_bob,) = desk.ports(update(to_tag="bob"))
    assert facing_alice != facing_bob and desk.call.state is CallState.TALKING
    assert desk.call.caller.tag == "alice" and desk.call.streams[0].caller.sdp == at("10.0.0.1:4000")


def test_video_is_added_and_dropped() -> None:
    desk = Desk(MediaProxy2())
    (audio,) = desk.ports(update())
    desk.ports(update("reply"))
    assert desk.ports(update(to_tag="bob", cseq=2, media=TWO))[0] == audio
    answer = desk.ports(update("reply", cseq=2, media=TWO))
    assert len(answer) == 2 and 0 not in answer
    assert desk.ports(update(to_tag="bob", cseq=3, media=DEAD)) == [audio, 0]
    assert desk.ports(update("reply", cseq=3, media=DEAD))[1] == 0


def test_a_cancelled_call_lingers() -> None:
    desk = Desk(MediaProxy2())
    desk.ports(update())
    assert desk.say(remove(to_tag="")) == b"removed\r\n"
    states = [desk.call.state]
    desk.ports(update("reply"))
    states.append(desk.call.state)
    assert states == [CallState.LINGERING, CallState.TALKING], "a 200 that crossed the CANCEL"


@pytest.mark.parametrize(("dialog_id", "answer"), [("1:2", b"removed\r\n"), ("", b"error\r\n")])
def test_a_call_that_has_ended_by_itself_is_removed_once_the_server_was_told(dialog_id: str, answer: bytes) -> None:
    desk = Desk(MediaProxy2())
    desk.ports(update(dialog_id=dialog_id))
    desk.ports(update("reply", dialog_id=dialog_id))
    desk.bench.run(91)
    assert [one.reason for one in desk.ended] == [EndReason.SILENT]
    assert desk.say(remove()) == answer
    assert desk.say(remove(from_tag="somebody")) == b"error\r\n"
    desk.bench.run(40)
    assert desk.say(remove()) == b"error\r\n"


def test_a_failed_call_is_removed_by_the_tag_of_the_failure() -> None:
    desk = Desk(MediaProxy2())
    desk.ports(update())
    assert desk.say(remove(to_tag="of-the-486")) == b"removed\r\n"
    desk.bench.run(40)
    assert [one.reason for one in desk.ended] == [EndReason.CANCEL]


def test_an_answered_call_is_removed_by_the_tag_of_another_phone_that_rang() -> None:
    """Modules that watch dialogs tell the tag of the callee who rang first, in whose replies it was not told."""
    desk = Desk(MediaProxy2())
    desk.ports(update(dialog_id="1:2"))
    desk.ports(update("reply", to_tag="", dialog_id="1:2"))
    desk.ports(update("reply", to_tag="carol", signaling_ip="198.51.100.3", dialog_id="1:2"))
    assert desk.say(remove(from_tag="somebody", to_tag="else")) == b"error\r\n"
    assert desk.say(remove(to_tag="bob")) == b"removed\r\n"
    assert [one.reason for one in desk.ended] == [EndReason.BYE] and len(desk.bench.calls) == 0


def test_both_parties_may_have_the_same_tag() -> None:
    desk = Desk(MediaProxy2())
    (facing_bob,) = desk.ports(update())
    (facing_alice,) = desk.ports(update("reply", to_tag="alice"))
    assert facing_alice != facing_bob and desk.call.state is CallState.TALKING
    (sent,) = desk.bench.packet("198.51.100.2:4000", at(f"{V4}:{facing_bob}"), rtp())
    assert sent.local.port == facing_alice
    assert desk.ports(update(to_tag="alice", cseq=2, media="audio:10.0.0.1:4002:sendrecv")) == [facing_bob]
    assert desk.ports(update("reply", to_tag="alice", cseq=2)) == [facing_alice]
    assert desk.say(remove(to_tag="alice")) == b"removed\r\n" and len(desk.bench.calls) == 0


def test_the_caller_tries_again_with_credentials() -> None:
    desk = Desk(MediaProxy2())
    first = desk.ports(update())
    desk.say(remove(to_tag=""))
    assert desk.ports(update(cseq=2)) == first
    desk.bench.run(40)
    assert desk.call.state is CallState.RINGING


def test_a_name_for_the_accounting_stands_in_the_report() -> None:
    desk = Desk(MediaProxy2())
    desk.ports(update(signaling_ip='{"signaling_ip": "203.0.113.1", "username": "alice@pbx"}'))
    assert desk.call.caller.label == "alice@pbx"


def test_an_ipv6_phone_is_told_an_ipv6_address() -> None:
    desk = Desk(MediaProxy2(), addresses=(RelayAddress(bind=V4), RelayAddress(bind=V6)))
    answer = desk.say(update(media="audio:2001:db8::9:4000:sendrecv:ice=no", signaling_ip="2001:db8::9"))
    assert answer.startswith(V6.encode())


def test_without_an_ipv6_address_the_signalling_one_counts() -> None:
    desk = Desk(MediaProxy2())
    desk.ports(update(media="audio:fd00::2:4000:sendrecv:ice=no"))
    assert desk.media.streams[0].endpoint == at("203.0.113.1:4000")
    assert desk.say(update(call_id="2", media="audio:fd00::2:4000:sendrecv", signaling_ip="fd00::2")) == b"error\r\n"


@pytest.mark.parametrize("name", ["mediaproxy2-use.cap", "mediaproxy2-engage-ice.cap"])
def test_every_captured_request_gets_an_answer_that_the_module_accepts(name: str) -> None:
    desk = Desk(MediaProxy2(), port_max=21000)
    framer = MediaProxy2().framer("unix")
    exchanges = list(captured(name))
    assert len(exchanges) >= 40
    for data, then in exchanges:
        (request,) = framer.feed(data)
        answer = desk.say(request)
        if then == b"removed\r\n":
            assert answer == then
        else:
            streams = media(read(request)[1]["media"])  # type: ignore[index] # it is a request
            assert streams is not None and mended(len(streams), answer), (request, answer)
            dead = [one.port == "0" for one in streams]
            given = [word == b"0" for word in answer.split()[1:]]
            assert all(told for told, was in zip(given, dead, strict=True) if was)
    desk.bench.run(400)
    assert len(desk.bench.calls) == 0 and desk.bench.calls.ports_lent == 0


# -- whatever comes

_text = st.text(st.characters(codec="latin-1", exclude_characters="\r\n"), max_size=30)
_names = st.sampled_from(("type", "call_id", "cseq", "from_tag", "to_tag", "media", "signaling_ip", "x", "from_uri"))
_values = st.one_of(_text, st.sampled_from(("request", "reply", "1", "audio:10.0.0.1:4000:sendrecv:ice=no", "{}")))


@given(st.sampled_from(("update", "remove", "")), st.dictionaries(_names, _values))
def test_any_block_is_answered(command: str, headers: dict[str, str]) -> None:
    steps = MediaProxy2().answer(block(command, headers), PEER)
    try:
        question = next(steps)
        assert msgspec.json.encode(question)
        steps.send(MediaReply(error="no"))
    except StopIteration as stop:
        assert stop.value == b"error\r\n"


@given(st.binary(max_size=300))
def test_any_bytes_are_answered(data: bytes) -> None:
    framer = MediaProxy2().framer("unix")
    for request in framer.feed(b"update\r\n" + data + b"\r\n\r\n"):
        for _ in MediaProxy2().answer(request, PEER):
            break


@given(_text)
def test_any_media_is_read_or_not(text: str) -> None:
    streams = media(text)
    assert streams is None or len(streams) == len([item for item in text.split(",") if item])
