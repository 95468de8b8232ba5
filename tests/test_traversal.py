"""From a message to the question, and from the reply to the message: what a server before us sends and receives."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mediaproxy.agents import AgentList
from mediaproxy.control import (
    ConfirmRequest,
    EndCause,
    EndRequest,
    KnownBy,
    MediaPort,
    MediaReply,
    MediaRequest,
    Party,
    PhoneAddress,
    decode,
    encode,
)
from mediaproxy.endpoint import Endpoint
from mediaproxy.nat import Arrival
from mediaproxy.policy import Policy
from mediaproxy.sdp import IcePolicy, Sdp
from mediaproxy.sip.message import Message, Request, Response, parse
from mediaproxy.traversal import Facts, Failure, Plan, contact_uri, end_request, plan
from tests.repairs import repair
from tests.test_sdp import bodies

SIPTONE = AgentList.parse("ipDialog SipTone.*")
POLICY = Policy(
    trusted_proxies=("203.0.113.50", "2001:db8:50::/48"),
    local_domains=frozenset({"Example.com", "203.0.113.1"}),
    sip_asymmetric=SIPTONE,
    rtp_asymmetric=SIPTONE,
)
PHONE = "198.51.100.7:34567"
SDP = "v=0\r\no=- 1 1 IN IP4 192.168.1.10\r\ns=-\r\nc=IN IP4 192.168.1.10\r\nt=0 0\r\nm=audio 5004 RTP/AVP 0\r\n"
PUBLIC_SDP = SDP.replace("192.168.1.10", "198.51.100.7")


def arrival(source: str = PHONE) -> Arrival:
    address, _, port = source.rpartition(":")
    return Arrival(Endpoint(address.strip("[]"), int(port)), "udp", Endpoint("203.0.113.1", 5060))


def relay(*ports: int, address: str = "203.0.113.5") -> MediaReply:
    """A relay's answer: one RTP port per stream, 0: leave it alone."""
    return MediaReply(
        ports=tuple(
            MediaPort(rtp=Endpoint(address, port), rtcp=Endpoint(address, port + 1)) if port else None for port in ports
        )
    )


def message(start: str, *headers: str, body: str = "", sdp: bool = True) -> Message:
    """A message of the call between alice and bob."""
    method = start.partition(" ")[0] if not start.startswith("SIP/") else "INVITE"
    lines = [
        f"SIP/2.0 {start.partition(' ')[2]}" if start.startswith("SIP/") else f"{start} sip:bob@example.com SIP/2.0"
    ]
    given_names = {header.partition(":")[0] for header in headers}
    for name, value in (
        ("Via", "SIP/2.0/UDP 192.168.1.10:5060;branch=z9hG4bKtop"),
        ("From", '"A" <sip:alice@example.com:5080;user=phone>;tag=a'),
        ("To", "<sip:bob@other.net>;tag=b"),
        ("Call-ID", "c1"),
        ("CSeq", f"1 {method}"),
    ):
        if name not in given_names:
            lines.append(f"{name}: {value}")
    if body and sdp:
        lines.append("Content-Type: application/sdp")
    return parse("\r\n".join([*lines, *headers, "", body]).encode("latin-1"))


def ask(asked: Message, facts: Facts | None = None, source: str = PHONE, policy: Policy = POLICY) -> Plan:
    return plan(asked, arrival(source), policy, facts or Facts())


def media(planned: Plan) -> MediaRequest:
    assert isinstance(planned.request, MediaRequest)
    return planned.request


ALICE = Party(tag="a", uri="sip:alice@example.com:5080", domain="example.com", local=True)
BOB = Party(tag="b", uri="sip:bob@other.net", domain="other.net", local=False)


# Which message asks what


INVITE = message("INVITE", "To: <sip:bob@other.net>", body=SDP)


def test_the_question_carries_what_the_relay_must_know() -> None:
    asked = message(
        "INVITE",
        "To: <sip:bob@other.net>",
        "Contact: <sip:alice@192.168.1.10:5062;ob>;q=1",
        "User-Agent: ipDialog SipTone II",
        body=SDP,
    )
    facts = Facts(receiver_version=6, dialog_id="77:1", relay_wish="r1")
    request = media(ask(asked, facts))
    assert request == MediaRequest(
        call_id="c1",
        sender=ALICE,
        receiver=Party(uri="sip:bob@other.net", domain="other.net", local=False),
        cseq=1,
        sdp_hash=Sdp.parse(SDP.encode()).hash,
        branch="z9hG4bKtop",
        phone=PhoneAddress(endpoint=Endpoint.parse(PHONE), known_by=KnownBy.SOURCE),
        contact="sip:alice@192.168.1.10:5062;ob",
        user_agent="ipDialog SipTone II",
        asymmetric=True,
        streams=Sdp.parse(SDP.encode()).streams,
        receiver_version=6,
        dialog_id="77:1",
        relay_wish="r1",
    )
    assert decode(encode(request)) == request


@pytest.mark.parametrize(
    ("asked", "status", "sender", "branch"),
    [
        pytest.param(message("INVITE", body=SDP), 0, ALICE, "z9hG4bKtop", id="re-invite"),
        pytest.param(message("ACK", body=SDP), 0, ALICE, "", id="ack-of-a-late-offer"),
        pytest.param(message("UPDATE", body=SDP), 0, ALICE, "", id="update"),
        pytest.param(message("PRACK", body=SDP), 0, ALICE, "", id="prack"),
        pytest.param(message("SIP/2.0 183 Session Progress", body=SDP), 183, BOB, "z9hG4bKtop", id="early-media"),
        pytest.param(message("SIP/2.0 180 Ringing", body=SDP), 180, BOB, "z9hG4bKtop", id="ringing-with-sdp"),
        pytest.param(message("SIP/2.0 200 OK", body=SDP), 200, BOB, "z9hG4bKtop", id="answer"),
        pytest.param(message("SIP/2.0 200 OK", "CSeq: 9 UPDATE", body=SDP), 200, BOB, "z9hG4bKtop", id="update-answer"),
        pytest.param(message("SIP/2.0 202 OK", "CSeq: 9 PRACK", body=SDP), 202, BOB, "z9hG4bKtop", id="prack-answer"),
    ],
)
def test_sdp_asks_for_media(asked: Message, status: int, sender: Party, branch: str) -> None:
    planned = ask(asked)
    request = media(planned)
    receiver = BOB if sender is ALICE else ALICE
    assert (request.status, request.sender, request.receiver, request.branch) == (status, sender, receiver, branch)
    assert request.method == asked.cseq.method
    assert Sdp.parse(planned.complete(relay(60000)).body).streams[0].endpoint == Endpoint("203.0.113.5", 60000)


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        pytest.param(
            message("SIP/2.0 200 OK"),
            ConfirmRequest(call_id="c1", sender=BOB, receiver=ALICE, cseq=1, status=200, branch="z9hG4bKtop"),
            id="answer-without-sdp",
        ),
        pytest.param(
            message("ACK"), ConfirmRequest(call_id="c1", sender=ALICE, receiver=BOB, cseq=1), id="ack-without-sdp"
        ),
        pytest.param(
            message("ACK", body="v=0\r\n"),
            ConfirmRequest(call_id="c1", sender=ALICE, receiver=BOB, cseq=1),
            id="ack-whose-sdp-has-no-streams",
        ),
        pytest.param(
            message("BYE"), EndRequest(call_id="c1", sender=ALICE, receiver=BOB, cause=EndCause.BYE), id="bye"
        ),
        pytest.param(
            message("CANCEL"),
            EndRequest(call_id="c1", sender=ALICE, receiver=BOB, cause=EndCause.CANCEL, branch="z9hG4bKtop"),
            id="cancel",
        ),
    ],
)
def test_other_questions(asked: Message, expected: ConfirmRequest | EndRequest) -> None:
    planned = ask(asked)
    assert planned.request == expected
    assert planned.failure(None) is None
    assert planned.complete(MediaReply(error="unknown call", status=481)) is asked


@pytest.mark.parametrize(
    ("facts", "cause", "branch"),
    [
        pytest.param(Facts(in_dialog=False), EndCause.BRANCH, "z9hG4bKtop", id="one-branch"),
        pytest.param(Facts(in_dialog=False, branch="other"), EndCause.BRANCH, "other", id="branch-told"),
        pytest.param(Facts(in_dialog=False, final=True), EndCause.FAILURE, "", id="the-whole-attempt"),
        pytest.param(Facts(in_dialog=False, final=True, branch="came"), EndCause.FAILURE, "came", id="attempt-told"),
        pytest.param(Facts(), None, "", id="not-known"),
    ],
)
@pytest.mark.parametrize("status", [302, 408, 486, 487, 603])
def test_failures(facts: Facts, cause: EndCause | None, branch: str, status: int) -> None:
    request = ask(message(f"SIP/2.0 {status} No", body=SDP), facts).request
    if cause is None:
        assert request is None
    else:
        assert request == EndRequest(
            call_id="c1", sender=BOB, receiver=ALICE, cause=cause, status=status, branch=branch
        )


@pytest.mark.parametrize(
    ("method", "facts"),
    [
        pytest.param("INVITE", Facts(in_dialog=True), id="re-invite"),
        pytest.param("INVITE", Facts(in_dialog=True, final=True), id="re-invite-goes-upstream"),
        pytest.param("UPDATE", Facts(), id="update"),
        pytest.param("UPDATE", Facts(in_dialog=True, final=True), id="update-goes-upstream"),
        pytest.param("PRACK", Facts(in_dialog=True), id="prack"),
    ],
)
@pytest.mark.parametrize("status", [302, 401, 407, 408, 481, 488, 491, 503, 606])
def test_refused_offers(method: str, facts: Facts, status: int) -> None:
    """Credentials: what was challenged was refused, and comes again with the next CSeq."""
    request = ask(message(f"SIP/2.0 {status} No", f"CSeq: 77 {method}", body=SDP), facts).request
    assert request == EndRequest(
        call_id="c1", sender=BOB, receiver=ALICE, cause=EndCause.REFUSED, status=status, cseq=77
    )
    assert request is not None and decode(encode(request)) == request


@pytest.mark.parametrize(
    "asked",
    [
        pytest.param(message("INVITE"), id="invite-without-sdp"),
        pytest.param(message("INVITE", body="v=0\r\n"), id="invite-whose-sdp-has-no-streams"),
        pytest.param(message("INVITE", "Content-Type: text/plain", body=SDP, sdp=False), id="another-body"),
        pytest.param(message("INVITE", "Content-Encoding: gzip", body="\x1f\x8b\x08"), id="compressed"),
        pytest.param(message("OPTIONS", body=SDP), id="options"),
        pytest.param(message("MESSAGE", body=SDP), id="message"),
        pytest.param(message("REGISTER"), id="register"),
        pytest.param(message("SIP/2.0 100 Trying", body=SDP), id="trying"),
        pytest.param(message("SIP/2.0 180 Ringing"), id="ringing-without-sdp"),
        pytest.param(message("SIP/2.0 200 OK", "CSeq: 1 OPTIONS", body=SDP), id="capabilities"),
        pytest.param(message("SIP/2.0 200 OK", "CSeq: 1 BYE"), id="bye-answered"),
        pytest.param(message("SIP/2.0 488 No", "CSeq: 1 OPTIONS", body=SDP), id="failed-options"),
        pytest.param(message("SIP/2.0 481 No", "CSeq: 1 BYE"), id="failed-bye"),
        pytest.param(message("SIP/2.0 200 OK", "CSeq: 1 UPDATE"), id="session-refresh"),
        pytest.param(message("SIP/2.0 183 Progress", "CSeq: 1 PRACK", body=SDP), id="provisional-to-prack"),
    ],
)
def test_no_question(asked: Message) -> None:
    planned = ask(asked, Facts(in_dialog=False))
    assert planned.request is None and planned.error == ""
    assert planned.complete(None) is asked
    assert planned.streams == ()


# Who the phone is


def through(*vias: str, body: str = SDP) -> Message:
    return message("INVITE", *[f"Via: SIP/2.0/UDP {via}" for via in vias], body=body)


PROXY = "203.0.113.50:5060"


@pytest.mark.parametrize(
    ("asked", "source", "facts", "expected", "known_by"),
    [
        pytest.param(INVITE, PHONE, Facts(), PHONE, KnownBy.SOURCE, id="straight-from-the-phone"),
        pytest.param(INVITE, "[::ffff:198.51.100.7]:34567", Facts(), PHONE, KnownBy.SOURCE, id="dual-stack-socket"),
        pytest.param(
            INVITE, PHONE, Facts(address=Endpoint("192.0.2.9", 0)), "192.0.2.9:0", KnownBy.EXPLICIT, id="told"
        ),
        pytest.param(
            through("203.0.113.50", "10.0.0.5;received=192.0.2.9;rport=7"),
            PROXY, Facts(), "192.0.2.9:7", KnownBy.RECEIVED, id="trusted-proxy",
        ),
        pytest.param(
            through("203.0.113.50", "10.0.0.5;received=192.0.2.9"),
            PROXY, Facts(), "192.0.2.9:0", KnownBy.RECEIVED, id="port-not-known",
        ),
        pytest.param(
            through("203.0.113.50", "192.0.2.9:5070"),
            PROXY, Facts(), "192.0.2.9:0", KnownBy.RECEIVED, id="proxy-found-sent-by-right",
        ),
        pytest.param(
            through("203.0.113.50", "203.0.113.50:5080;received=2001:db8:50::1", "10.0.0.5;received=192.0.2.9;rport=7"),
            PROXY, Facts(), "192.0.2.9:7", KnownBy.RECEIVED, id="two-trusted-proxies",
        ),
        pytest.param(
            through("203.0.113.66", "10.0.0.5;received=192.0.2.9;rport=7"),
            "203.0.113.66:5060", Facts(), "203.0.113.66:5060", KnownBy.SOURCE, id="proxy-that-is-not-trusted",
        ),
        pytest.param(
            through("203.0.113.50;received=192.0.2.9"), PROXY, Facts(), None, KnownBy.UNKNOWN, id="own-via-says-nothing"
        ),
        pytest.param(
            through("203.0.113.50", "phone.lan"), PROXY, Facts(), None, KnownBy.UNKNOWN, id="name-without-received"
        ),
        pytest.param(
            through("203.0.113.50", body=PUBLIC_SDP), PROXY, Facts(), PROXY, KnownBy.SOURCE, id="public-sdp-names-it"
        ),
        pytest.param(
            message("SIP/2.0 200 OK", body=SDP), PROXY, Facts(), None, KnownBy.UNKNOWN, id="answer-by-a-proxy"
        ),
        pytest.param(
            message("SIP/2.0 200 OK", body=PUBLIC_SDP), PROXY, Facts(), PROXY, KnownBy.SOURCE, id="public-answer-proxy"
        ),
        pytest.param(message("SIP/2.0 200 OK", body=SDP), PHONE, Facts(), PHONE, KnownBy.SOURCE, id="answer-by-phone"),
    ],
)  # fmt: skip
def test_the_phones_address(asked: Message, source: str, facts: Facts, expected: str | None, known_by: KnownBy) -> None:
    phone = media(ask(asked, facts, source)).phone
    assert phone == PhoneAddress(endpoint=Endpoint.parse(expected) if expected else None, known_by=known_by)


NAMED = SDP.replace("c=IN IP4 192.168.1.10", "c=IN IP4 phone.lan")


@pytest.mark.parametrize(
    ("source", "place"),
    [(PHONE, "198.51.100.7:5004"), (PROXY, None), ("[2001:db8::7]:5060", "[2001:db8::7]:5004")],
    ids=["phone", "behind-a-proxy", "ipv6"],
)
def test_a_host_name_in_sdp_means_the_phone_itself(source: str, place: str | None) -> None:
    planned = ask(message("INVITE", body=NAMED), source=source)
    (stream,) = planned.streams
    assert stream.endpoint == (Endpoint.parse(place) if place else None)
    sent = planned.complete(relay(60000) if place else relay(0))
    assert (b"c=IN IP4 203.0.113.5" in sent.body, b"phone.lan" in sent.body) == (bool(place), not place)


def test_a_host_name_never_means_a_trusted_proxy() -> None:
    """Another stream's public address is why the proxy's counts as the phone's."""
    body = PUBLIC_SDP + "m=video 5006 RTP/AVP 96\r\nc=IN IP4 phone.lan\r\n"
    request = media(ask(message("INVITE", body=body), source=PROXY))
    assert request.phone.endpoint == Endpoint.parse(PROXY) and request.streams[1].endpoint is None


@pytest.mark.parametrize(
    ("uri", "party"),
    [
        (
            "<sip:alice@EXAMPLE.com.>;tag=x",
            Party(tag="x", uri="sip:alice@EXAMPLE.com.", domain="example.com", local=True),
        ),
        ("sip:alice@203.0.113.1;tag=x", Party(tag="x", uri="sip:alice@203.0.113.1", domain="203.0.113.1", local=True)),
        ("<sip:[2001:DB8::0]:5060>", Party(uri="sip:[2001:DB8::0]:5060", domain="2001:db8::", local=False)),
        ("<tel:+1234;phone-context=x>;tag=y", Party(tag="y", uri="tel:+1234")),
        ("<sip:j\xe9@x;y?z=1>", Party(uri="sip:j\xe9@x", domain="x", local=False)),
    ],
)
def test_parties(uri: str, party: Party) -> None:
    assert media(ask(message("INVITE", f"From: {uri}", body=SDP))).sender == party


def test_locality_is_unknown_without_domains() -> None:
    assert media(ask(INVITE, policy=Policy())).sender.local is None


def test_the_contact_is_told_as_it_was_sent() -> None:
    asked = message("INVITE", "Contact: <tel:+1>, <sip:alice@192.168.1.10>", body=SDP)
    assert contact_uri(asked) == media(ask(asked)).contact == "tel:+1"
    assert media(ask(asked, Facts(contact="sip:before@repair"))).contact == "sip:before@repair"
    assert contact_uri(message("REGISTER", "Contact: *")) == contact_uri(message("REGISTER")) == ""


def test_a_policy_refuses_what_is_no_prefix() -> None:
    with pytest.raises(ValueError, match="nonsense"):
        Policy(trusted_proxies=("nonsense",))


# Replies


@pytest.mark.parametrize(
    ("reply", "failure"),
    [
        pytest.param(None, Failure(status=503, reason="no answer from the media relay"), id="no-answer"),
        pytest.param(MediaReply(error="no ports", status=480), Failure(status=480, reason="no ports"), id="no-ports"),
        pytest.param(MediaReply(error="odd"), Failure(status=503, reason="odd"), id="error-without-status"),
        pytest.param(
            relay(60000, 60002),
            Failure(status=503, reason="the media relay answered 2 ports for 1 streams"),
            id="wrong-number",
        ),
    ],
)
def test_a_failed_question_leaves_the_message_alone(reply: MediaReply | None, failure: Failure) -> None:
    planned = ask(INVITE)
    assert planned.failure(reply) == failure
    assert planned.complete(reply) is INVITE


def test_nothing_to_relay_leaves_the_message_alone() -> None:
    planned = ask(INVITE)
    assert planned.failure(relay(0)) is None
    assert planned.complete(relay(0)) is INVITE


def test_the_answer_goes_into_the_message_that_is_sent() -> None:
    """Whatever happened to its headers meanwhile."""
    assert isinstance(INVITE, Request)
    routed = INVITE.with_uri("sip:bob@10.1.1.1").prepend("Via", "SIP/2.0/UDP 203.0.113.1;branch=z9hG4bKedge")
    sent = ask(INVITE).complete(relay(60000), routed)
    assert sent.uri_text == "sip:bob@10.1.1.1"
    assert sent.with_body(b"") == routed.with_body(b"")
    assert sent.content_length is None, "it came without, so it goes without"
    sent = ask(INVITE).complete(relay(60000), routed.delimited())
    assert sent.content_length == len(sent.body)


@pytest.mark.parametrize(
    ("asked", "error"),
    [
        pytest.param(message("INVITE", body=SDP + "m=video x\r\n"), "SDP: line 7", id="sdp"),
        pytest.param(message("INVITE", "From: nobody", body=SDP), "from", id="from"),
        pytest.param(message("INVITE", "CSeq: x", body=SDP), "cseq", id="cseq"),
        pytest.param(message("SIP/2.0 200 OK", "CSeq: x", body=SDP), "cseq", id="cseq-of-a-response"),
        pytest.param(message("BYE", "To: <"), "to", id="to"),
    ],
)
def test_what_is_wrong_with_a_message_is_told(asked: Message, error: str) -> None:
    planned = ask(asked)
    failure = planned.failure(relay(60000))
    assert failure is not None and failure.status == 400
    assert error in failure.reason.lower() or error in failure.reason
    assert planned.complete(relay(60000)) is asked


@pytest.mark.parametrize("line_end", ["\r\n", "\n", "\r"])
def test_thousands_of_streams_are_refused_unread(line_end: str) -> None:
    """64 KiB of m= lines: counted, not parsed."""
    lines = SDP.split("\r\n")[:5]
    most = ask(message("INVITE", body=line_end.join([*lines, *["m=a 1 RTP/AVP 0"] * 1024])))
    assert len(media(most).streams) == 1024
    for number in (1025, 4000):
        planned = ask(message("INVITE", body=line_end.join([*lines, *["m=a 1 RTP/AVP 0"] * number])))
        assert planned.failure(None) == Failure(status=488, reason="SDP: more than 1024 streams")
        assert planned.request is None and planned.complete(relay(60000)) is planned.message


def test_an_unreadable_answer_still_confirms_the_call() -> None:
    planned = ask(message("SIP/2.0 200 OK", body="v=0\r\nm=\r\n"))
    assert isinstance(planned.request, ConfirmRequest)
    assert planned.error.startswith("SDP: line 2")


def test_ice_passes_through_unless_it_is_unwanted() -> None:
    asked = message("INVITE", body=SDP + "a=candidate:1 1 UDP 1 192.168.1.10 5004 typ host\r\n")
    assert b"a=candidate" in bytes(ask(asked).complete(relay(60000)))
    assert b"a=candidate" not in bytes(ask(asked, policy=Policy(ice=IcePolicy.REMOVE)).complete(relay(60000)))


def test_the_same_body_has_the_same_question() -> None:
    again = parse(bytes(INVITE))
    assert ask(INVITE).request == ask(again).request
    assert media(ask(INVITE)).sdp_hash != media(ask(message("INVITE", body=SDP + "a=x\r\n"))).sdp_hash


def test_the_end_can_be_asked_for_at_any_message() -> None:
    request = end_request(INVITE, EndCause.FAILURE, POLICY, status=408, branch="x")
    assert (request.cause, request.status, request.branch, request.call_id) == (EndCause.FAILURE, 408, "x", "c1")


# Anything


_methods = st.sampled_from(["INVITE", "ACK", "BYE", "UPDATE", "SIP/2.0 183 x", "SIP/2.0 200 x", "SIP/2.0 486 x"])
_headers = st.lists(
    st.sampled_from(["From: x", "To: <sip:b>", "Via: x", "Contact: *", "CSeq: 1 UPDATE", "Content-Encoding: x"]),
    max_size=2,
)


@given(_methods, _headers, bodies, st.sampled_from([PHONE, PROXY, "[2001:db8:50::1]:1"]))
def test_no_message_raises(start: str, headers: list[str], body: bytes, source: str) -> None:
    asked = message(start, *headers, "Content-Type: application/sdp").with_body(body)
    planned = ask(asked, Facts(in_dialog=False), source)
    reply = relay(*(60000 if stream.endpoint else 0 for stream in planned.streams))
    sent = planned.complete(reply, repair(asked, arrival(source), POLICY).message)
    assert isinstance(sent, Request | Response)
    if planned.request is not None:
        assert decode(encode(planned.request)) == planned.request
    if planned.failure(reply) is None and any(reply.ports):
        assert ask(sent, Facts(in_dialog=False), source).complete(reply, sent) == sent
