"""dialects/v1.py and v1status.py: what MediaProxy 1.x's module writes, what it means, and what it is answered."""

import re

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mediaproxy import __version__
from mediaproxy.control import (
    EndCause,
    EndRequest,
    KnownBy,
    ListRequest,
    MediaPort,
    MediaReply,
    MediaRequest,
    Party,
    PhoneAddress,
    Stream,
    TotalsRequest,
)
from mediaproxy.dialects.dialect import DialectError, ErrorAnswer, Peer
from mediaproxy.dialects.v1 import MediaProxy1, unquoted
from mediaproxy.dialects.v1status import quoted
from mediaproxy.endpoint import Endpoint
from mediaproxy.events import CallState, EndReason
from mediaproxy.relay.settings import RelayAddress
from tests.mpbench import Desk, line, mended
from tests.relaybench import V4, V6, at, rtp

PEER = Peer("unix", "", 1000.0)

# The examples of the module and of its second implementation (reference/module-and-protocols.md 2.3).
REQUEST = (
    b"request 8f3a@192.168.1.10 192.168.1.10:5004:audio,192.168.1.10:5006:video 198.51.100.7 example.com local "
    b"example.net remote Cisco=20ATA=20186 info=from:alice@example.com,to:bob@example.net,fromtag:a1b2,totag:"
)
LOOKUP = (
    b"lookup 8f3a@192.168.1.10 10.0.0.9:40000:audio,10.0.0.9:0:video 203.0.113.77 example.com local example.net "
    b"unknown X-Lite=20release=201104o "
    b"info=from:alice@example.com,to:bob@example.net,fromtag:a1b2,totag:c3d4,asymmetric"
)
DELETE = b"delete 8f3a@192.168.1.10 info="


def asked(request: bytes) -> MediaRequest:
    question = next(MediaProxy1().answer(request, PEER))
    assert isinstance(question, MediaRequest)
    return question


def answered(request: bytes, *replies: MediaReply | None) -> bytes:
    steps = MediaProxy1().answer(request, PEER)
    try:
        next(steps)
        for reply in replies:
            steps.send(reply)
    except StopIteration as stop:
        value = stop.value
        assert isinstance(value, bytes)
        return value
    raise AssertionError("it asks on")


def test_an_answer_begins_with_an_address_or_is_none() -> None:
    dead = line(media="nothing")
    assert answered(dead.replace(b"request", b"lookup", 1), MediaReply(ports=(None,))) == b""
    assert answered(line(media="10.0.0.1:x:audio"), MediaReply(ports=(None,))) == b"10.0.0.1 0\n"


# -- what is asked


def test_a_request() -> None:
    question = asked(REQUEST)
    assert question == MediaRequest(
        call_id="8f3a@192.168.1.10",
        sender=Party(tag="a1b2", uri="sip:alice@example.com", domain="example.com", local=True),
        receiver=Party(uri="sip:bob@example.net", domain="example.net", local=False),
        cseq=-1,
        sdp_hash=question.sdp_hash,
        method="",
        phone=PhoneAddress(endpoint=Endpoint("198.51.100.7", 0), known_by=KnownBy.EXPLICIT),
        user_agent="Cisco ATA 186",
        streams=(
            Stream(kind="audio", transport="RTP/AVP", endpoint=at("192.168.1.10:5004"), dtls=True, directed=False),
            Stream(kind="video", transport="RTP/AVP", endpoint=at("192.168.1.10:5006"), dtls=True, directed=False),
        ),
        receiver_version=4,
    )


def test_a_lookup_comes_from_whom_it_is_to() -> None:
    question = asked(LOOKUP)
    assert (question.sender, question.receiver) == (
        Party(tag="c3d4", uri="sip:bob@example.net", domain="example.net", local=None),
        Party(tag="a1b2", uri="sip:alice@example.com", domain="example.com", local=True),
    )
    assert (question.status, question.method, question.asymmetric) == (200, "INVITE", True)
    assert question.user_agent == "X-Lite release 1104o"
    assert [one.endpoint for one in question.streams] == [at("10.0.0.9:40000"), None]


STREAMS = [
    ("10.0.0.1:4000:audio", "audio", "10.0.0.1:4000"),
    ("10.0.0.1:4000", "audio", "10.0.0.1:4000"),
    ("10.0.0.1:49170/2:video", "video", "10.0.0.1:49170"),
    ("224.2.1.1/127:4000:audio", "audio", "224.2.1.1:4000"),
    ("0.0.0.0:4000:audio", "audio", "0.0.0.0:4000"),
    ("fd00::2:4000:audio", "audio", "[fd00::2]:4000"),
    ("[fd00::2]:4000:audio", "audio", "[fd00::2]:4000"),
    ("phone.example.com:4000:audio", "audio", "203.0.113.1:4000"),
    ("10.0.0.1:0:audio", "audio", None),
    ("10.0.0.1:0/1:audio", "audio", None),
    ("10.0.0.1:x:audio", "audio", None),
    ("10.0.0.1:70000:audio", "audio", None),
    ("10.0.0.1:\xb2:audio", "audio", None),
    ("nothing", "nothing", None),
]


@pytest.mark.parametrize(("text", "kind", "place"), STREAMS)
def test_a_stream(text: str, kind: str, place: str | None) -> None:
    (stream,) = asked(line(media=text)).streams
    assert (stream.kind, stream.endpoint) == (kind, None if place is None else at(place))


TAGS = "from:a@x,to:b@y,fromtag:f,totag:t"
INFO = [
    (TAGS, "f", "t", "sip:a@x", "sip:b@y", False),
    ("domain:d,from:a@x,totag:t,to:b@y,fromtag:f", "f", "t", "sip:a@x", "sip:b@y", False),
    ("asymmetric,totag:t,fromtag:f,to:b@y,from:a@x", "f", "t", "sip:a@x", "sip:b@y", True),
    (f"{TAGS},asymmetric", "f", "t", "sip:a@x", "sip:b@y", True),
    (f"{TAGS},asymmetrical", "f", "t,asymmetrical", "sip:a@x", "sip:b@y", False),
    ("from:a,b;c=1,2@x,to:b@y,fromtag:f,totag:t", "f", "t", "sip:a,b;c=1,2@x", "sip:b@y", False),
    ("from:a@x,to:b,fromtag:evil@y,fromtag:f,totag:t", "f", "t", "sip:a@x", "sip:b", False),
    ("from:a@x,to:b,from:evil@y,fromtag:f,totag:t", "f", "t", "sip:a@x", "sip:b", False),
    ("from:unknown,to:sips:b@y,fromtag:f,totag:t", "f", "t", "", "sips:b@y", False),
    ("from:tel:+49301234,to:b@y,fromtag:f,totag:a b", "f", "a b", "tel:+49301234", "sip:b@y", False),
]


@pytest.mark.parametrize(("info", "fromtag", "totag", "from_", "to", "asymmetric"), INFO)
def test_the_items_of_info(info: str, fromtag: str, totag: str, from_: str, to: str, asymmetric: bool) -> None:
    question = asked(line("lookup", info=info))
    assert (question.receiver.tag, question.sender.tag, question.asymmetric) == (fromtag, totag, asymmetric)
    assert (question.receiver.uri, question.sender.uri) == (from_, to)


def test_the_domains_choose_the_relay() -> None:
    question = asked(line(from_domain="Example.COM.", to_domain="unknown", to_type="unknown"))
    assert (question.sender.domain, question.sender.local) == ("example.com", True)
    assert (question.receiver.domain, question.receiver.local) == ("example.net", None), "of its URI"


def test_a_domain_of_the_script_overrides_them() -> None:
    question = asked(line(info=f"{TAGS},domain:media.example"))
    assert [(one.domain, one.local) for one in (question.sender, question.receiver)] == [("media.example", True)] * 2


@pytest.mark.parametrize(
    ("agent", "text"), [("unknown-agent", ""), ("A=3Db=20c", "A=b c"), ("Z=C3=AB", "Z\xc3\xab"), ("a=2", "a=2")]
)
def test_a_user_agent(agent: str, text: str) -> None:
    assert asked(line(agent=agent)).user_agent == text


@given(st.text(st.characters(codec="latin-1"), min_size=1))
def test_user_agents_are_quoted_and_back(text: str) -> None:
    assert unquoted(quoted(text)) == text
    assert len(quoted(text).split()) == 1 and quoted(text).isascii()


OLD = [
    "request call-1 10.0.0.1:4000 203.0.113.1 example.com local example.net remote Phone",
    "request call-1 10.0.0.1:4000:audio 203.0.113.1 example.com local example.net remote Phone info=",
    "request call-1 10.0.0.1:4000:audio 203.0.113.1 example.com local example.net remote Phone flags=asymmetric",
    "request  call-1\t10.0.0.1:4000 203.0.113.1 example.com local example.net remote Phone info=fromtag",
]


@pytest.mark.parametrize("text", OLD)
def test_lines_of_older_generations(text: str) -> None:
    desk = Desk(MediaProxy1())
    (port,) = desk.ports(text.encode())
    (other,) = desk.ports(text.encode().replace(b"request", b"lookup").replace(b"203.0.113.1", b"198.51.100.2"))
    assert port != other and desk.call.state is CallState.TALKING
    assert desk.media.asymmetric == ("asymmetric" in text)
    assert desk.say(b"delete call-1") == b"" and desk.bench.calls.reports(0) == ()


def test_an_empty_user_agent_leaves_two_spaces() -> None:
    question = asked(line(agent=""))
    assert (question.user_agent, question.sender.tag, question.sender.uri) == ("", "alice", "sip:alice@example.com")


def test_a_delete_means_the_whole_call() -> None:
    wanted = EndRequest(call_id="8f3a@192.168.1.10", sender=Party(), receiver=Party(), cause=EndCause.DELETE)
    assert next(MediaProxy1().answer(DELETE, PEER)) == wanted


def test_a_delete_with_tags_means_that_dialog() -> None:
    question = next(MediaProxy1().answer(b"delete c info=fromtag:a,totag:b", PEER))
    assert isinstance(question, EndRequest)
    assert (question.sender.tag, question.receiver.tag) == ("a", "b")


# -- what is answered

PORT = MediaPort(rtp=at("203.0.113.5:60000"), rtcp=at("203.0.113.5:60001"))
OTHER = MediaPort(rtp=at("203.0.113.5:60002"), rtcp=at("203.0.113.5:60003"))


def test_ports() -> None:
    assert answered(REQUEST, MediaReply(ports=(PORT, OTHER))) == b"203.0.113.5 60000 60002\n"
    assert answered(LOOKUP, MediaReply(ports=(PORT, None))) == b"203.0.113.5 60000 0\n"


@pytest.mark.parametrize("request_", [REQUEST, LOOKUP, DELETE])
@pytest.mark.parametrize("reply", [None, MediaReply(error="no ports left", status=480)])
def test_what_goes_wrong_is_told_by_silence(request_: bytes, reply: MediaReply | None) -> None:
    answer = answered(request_, reply)
    assert answer == b"" and isinstance(answer, ErrorAnswer)


def test_a_deleted_call_is_answered_by_silence() -> None:
    answer = answered(DELETE, MediaReply())
    assert answer == b"" and not isinstance(answer, ErrorAnswer)


WRONG = [
    b"",
    b"requests a b",
    b"request",
    b"request a b c d e f g",
    b"lookup a b",
    b"delete",
    b"GET / HTTP/1.1",
    b"\xff",
]


@pytest.mark.parametrize("request_", WRONG)
def test_what_is_no_line(request_: bytes) -> None:
    with pytest.raises(DialectError, match="expected"):
        next(MediaProxy1().answer(request_, PEER))


def test_the_words_of_the_proxy_server() -> None:
    version = f"Version: {__version__}\n".encode()
    assert answered(b"version") == answered(b"build") == version
    assert answered(b"quit") == answered(b"exit") == b""
    steps = MediaProxy1().answer(b"controls", Peer("tcp", "192.0.2.9:4000", 0.0))
    with pytest.raises(StopIteration) as stop:
        next(steps)
    assert stop.value.value == b"192.0.2.9:4000\nEnd.\n"


def test_one_line_per_connection() -> None:
    framer = MediaProxy1().framer("unix")
    assert framer.feed(REQUEST[:100]) == [] and framer.waiting == 100
    assert framer.feed(REQUEST[100:] + b"\n" + DELETE + b"\n") == [REQUEST]
    assert framer.ended and framer.waiting == 0 and framer.feed(b"more\n") == []


# -- with a relay


def tags(totag: str = "") -> str:
    return f"from:alice@example.com,to:bob@example.net,fromtag:alice,totag:{totag}"


def test_a_call() -> None:
    desk = Desk(MediaProxy1())
    (facing_bob,) = desk.ports(line())
    (facing_alice,) = desk.ports(line("lookup", info=tags("bob")))
    assert desk.call.state is CallState.TALKING
    desk.bench.packet("203.0.113.1:31", at(f"{V4}:{facing_alice}"), rtp())
    (sent,) = desk.bench.packet("198.51.100.2:32", at(f"{V4}:{facing_bob}"), rtp())
    assert sent.target == at("203.0.113.1:31")
    assert desk.say(b"delete call-1 info=") == b""
    assert [one.reason for one in desk.ended] == [EndReason.BYE]


def test_the_documented_exchange() -> None:
    desk = Desk(MediaProxy1())
    for request, dead in ((REQUEST, (False, False)), (LOOKUP, (False, True))):
        answer = desk.say(request)
        assert mended(2, answer), answer
        assert tuple(word == b"0" for word in answer.split()[1:]) == dead
    assert desk.call.callee.asymmetric
    assert desk.say(DELETE) == b"" and len(desk.bench.calls) == 0


def test_a_repeated_request_has_the_same_answer_and_changes_nothing() -> None:
    desk = Desk(MediaProxy1())
    first = desk.ports(line())
    assert desk.ports(line()) == first
    answer = desk.ports(line("lookup", info=tags("bob")))
    events = len(desk.bench.events)
    assert desk.ports(line()) == first, "an INVITE that was late"
    assert desk.ports(line("lookup", info=tags("bob"))) == answer
    assert len(desk.bench.events) == events


HOLD, TALK = "0.0.0.0:4000:audio", "10.0.0.1:4000:audio"


def test_hold_and_resume_again_and_again() -> None:
    """There is no CSeq, and the SDP of a second hold is that of the first one."""
    desk = Desk(MediaProxy1())
    ports = desk.ports(line())
    desk.ports(line("lookup", info=tags("bob")))
    for _ in range(3):
        for media, state in ((HOLD, CallState.HELD), (TALK, CallState.TALKING)):
            assert desk.ports(line(media=media, info=tags("bob"))) == ports
            desk.ports(line("lookup", info=tags("bob")))
            assert desk.call.state is state


@pytest.mark.parametrize(("offers", "lives"), [(False, False), (True, True)])
def test_a_hold_that_the_protocol_does_not_tell(offers: bool, lives: bool) -> None:
    """It has no directions: who falls silent after a new offer, a=sendonly for all we know, is taken to be on hold."""
    desk = Desk(MediaProxy1())
    desk.ports(line())
    (facing_alice,) = desk.ports(line("lookup", info=tags("bob")))
    desk.bench.packet("203.0.113.1:31", at(f"{V4}:{facing_alice}"), rtp())
    desk.bench.run(5)
    if offers:
        desk.ports(line(info=tags("bob")))
        desk.ports(line("lookup", info=tags("bob")))
    desk.bench.run(300)
    assert bool(len(desk.bench.calls)) == lives


def test_the_callee_holds() -> None:
    desk = Desk(MediaProxy1())
    facing_bob, facing_alice = desk.ports(line()), desk.ports(line("lookup", info=tags("bob")))
    turned = "from:bob@example.net,to:alice@example.com,fromtag:bob,totag:alice"
    assert desk.ports(line(media=HOLD, info=turned, client_ip="198.51.100.2")) == facing_alice
    assert desk.ports(line("lookup", info=turned, client_ip="203.0.113.1")) == facing_bob
    assert desk.call.state is CallState.HELD


def test_a_phone_that_has_moved_may_send_the_same_sdp() -> None:
    desk = Desk(MediaProxy1())
    desk.ports(line())
    desk.ports(line("lookup", info=tags("bob")))
    desk.ports(line(info=tags("bob"), client_ip="203.0.113.8"))
    assert desk.call.caller.signalling == Endpoint("203.0.113.8", 0)


def test_an_early_answer_is_repeated_in_the_final_one() -> None:
    """A lookup does not say which response it is about: the first one counts as the answer."""
    desk = Desk(MediaProxy1())
    desk.ports(line())
    early = desk.ports(line("lookup", info=tags("bob")))
    assert desk.ports(line("lookup", info=tags("bob"))) == early
    assert desk.call.state is CallState.TALKING


def test_the_other_phone_of_a_fork_answers() -> None:
    desk = Desk(MediaProxy1())
    (facing_callees,) = desk.ports(line())
    (early,) = desk.ports(line("lookup", info=tags("bob")))
    carol = line("lookup", media="10.0.0.3:4000:audio", info=tags("carol"), client_ip="198.51.100.3")
    (facing_alice,) = desk.ports(carol)
    assert facing_alice != early
    desk.bench.packet("203.0.113.1:31", at(f"{V4}:{facing_alice}"), rtp())
    desk.bench.packet("198.51.100.3:33", at(f"{V4}:{facing_callees}"), rtp())
    (sent,) = desk.bench.packet("203.0.113.1:31", at(f"{V4}:{facing_alice}"), rtp(2))
    assert sent.target == at("198.51.100.3:33"), "who has answered is heard"
    desk.say(b"delete call-1 info=")
    assert len(desk.bench.calls) == 0


def test_a_late_offer() -> None:
    desk = Desk(MediaProxy1())
    (facing_alice,) = desk.ports(line("lookup", info=tags("bob")))
    (facing_bob,) = desk.ports(line(info=tags("bob")))
    assert facing_alice != facing_bob and desk.call.caller.tag == "alice"
    assert desk.call.state is CallState.TALKING


def test_video_is_added_and_dropped() -> None:
    desk = Desk(MediaProxy1())
    (audio,) = desk.ports(line())
    desk.ports(line("lookup", info=tags("bob")))
    two = f"{TALK},10.0.0.1:4002:video"
    offer = desk.ports(line(media=two, info=tags("bob")))
    assert offer[0] == audio and len(offer) == 2 and 0 not in offer
    assert 0 not in desk.ports(line("lookup", media=two, info=tags("bob")))
    assert desk.ports(line(media=f"{TALK},10.0.0.1:0:video", info=tags("bob"))) == [audio, 0]


def test_a_request_has_63_streams_at_most() -> None:
    """The module takes 63 ports from an answer, and a request whose streams have not all got one has failed."""
    desk = Desk(MediaProxy1(), max_streams=64, port_max=22000)
    streams = [f"10.0.0.1:{4000 + 2 * index}:audio" for index in range(64)]
    assert desk.say(line(media=",".join(streams))) == b""
    assert not desk.questions, "no ports are lent"
    assert len(desk.ports(line(media=",".join(streams[:63])))) == 63


def test_a_cancelled_call_lingers_and_may_be_tried_again() -> None:
    desk = Desk(MediaProxy1())
    first = desk.ports(line())
    desk.say(b"delete call-1 info=")
    states = [desk.call.state]
    assert desk.ports(line()) == first
    states.append(desk.call.state)
    assert states == [CallState.LINGERING, CallState.RINGING]
    desk.say(b"delete call-1 info=")
    desk.bench.run(40)
    assert len(desk.bench.calls) == 0
    desk.bench.run(40)
    assert desk.bench.calls.ports_lent == 0 and desk.bench.calls.ports_cooling == 0


def test_an_ipv6_phone_is_told_an_ipv6_address() -> None:
    desk = Desk(MediaProxy1(), addresses=(RelayAddress(bind=V4), RelayAddress(bind=V6)))
    assert desk.say(line(media="2001:db8::9:4000:audio", client_ip="2001:db8::9")).startswith(V6.encode())


# -- status

STATUS = re.compile(
    rb"proxy 1 (\d+)/(\d+)/(\d+)\n"
    rb"session call-1 alice@example.com bob@example.net Phone=201 Phone=201 12\n"
    rb"stream 203.0.113.1:31 198.51.100.2:4000 192.0.2.1:\d+ 172/0/172 active PCMU audio 12\n"
)


def test_status() -> None:
    desk = Desk(MediaProxy1())
    desk.ports(line())
    (facing_alice,) = desk.ports(line("lookup", info=tags("bob"), media="198.51.100.2:4000:audio"))
    desk.bench.packet("203.0.113.1:31", at(f"{V4}:{facing_alice}"), rtp())
    desk.bench.run(12)
    assert STATUS.fullmatch(desk.say(b"status")), desk.say(b"status")


def test_status_of_a_call_that_was_deleted_before_its_answer() -> None:
    desk = Desk(MediaProxy1())
    desk.ports(line())
    desk.say(b"delete call-1 info=")
    assert desk.say(b"status") == b"proxy 0 0/0/0\n" and len(desk.bench.calls) == 1, "its ports are kept"


def test_status_of_nothing() -> None:
    assert Desk(MediaProxy1()).say(b"status") == b"proxy 0 0/0/0\n"


def test_status_without_a_relay() -> None:
    steps = MediaProxy1().answer(b"status", PEER)
    assert next(steps) == TotalsRequest()
    assert isinstance(steps.send(MediaReply(error="no relay", status=503)), ListRequest)
    with pytest.raises(StopIteration) as stop:
        steps.send(None)
    assert stop.value.value == b""


# -- whatever comes


@given(st.sampled_from((b"request ", b"lookup ", b"delete ", b"status", b"")), st.binary(max_size=200))
def test_any_line_is_answered_or_no_line(word: bytes, rest: bytes) -> None:
    for request in MediaProxy1().framer("tcp").feed(word + rest + b"\n"):
        try:
            question = next(MediaProxy1().answer(request, PEER))
        except (DialectError, StopIteration):
            continue
        assert msgspec.json.encode(question)


_word = st.text(st.characters(codec="latin-1", exclude_characters=" \t\r\n\x0b\x0c"), min_size=1, max_size=20)


@given(st.lists(_word, min_size=8, max_size=9), _word)
def test_any_fields_make_a_question(fields: list[str], info: str) -> None:
    text = " ".join(["request", *fields[:8], f"info={info}"])
    question = asked(text.encode("latin-1"))
    assert question.call_id == fields[0] and len(question.streams) == fields[1].count(",") + 1
