"""use_media_proxy, ice_candidate and end_media_session as a script calls them: every code, and what is asked."""

import pytest

from mediaproxy.control import ConfirmRequest, EndCause, EndRequest, MediaPort, MediaReply, MediaRequest, Question
from mediaproxy.endpoint import Endpoint
from mediaproxy.module import FAILED, NO_SDP, OK, Result, RouteType
from mediaproxy.sdp import IcePolicy, Sdp
from mediaproxy.sip.message import Message, parse
from mediaproxy.traversal import Facts
from tests.vmodule import NO_STREAMS, POLICY, RELAYED, SDP, MediaArm, end, message, run, use

# -- use_media_proxy


@pytest.mark.parametrize(
    ("asked", "code", "question"),
    [
        # with SDP
        (message("INVITE", body=SDP), OK, MediaRequest),
        (message("ACK", body=SDP), OK, MediaRequest),
        (message("UPDATE", body=SDP), OK, MediaRequest),
        (message("PRACK", body=SDP), OK, MediaRequest),
        (message("183 INVITE", body=SDP), OK, MediaRequest),
        (message("200 INVITE", body=SDP), OK, MediaRequest),
        (message("200 UPDATE", body=SDP), OK, MediaRequest),
        (message("INVITE", "Content-Type:", body=SDP, content_type=None), OK, MediaRequest),
        (message("INVITE", body=SDP, content_type="APPLICATION/SDP ;x=y"), OK, MediaRequest),
        # nothing to relay
        (message("INVITE", body=NO_STREAMS), OK, None),
        (message("183 INVITE", body=NO_STREAMS), OK, None),
        (message("200 INVITE", body=NO_STREAMS), OK, ConfirmRequest),
        # no body
        (message("INVITE"), NO_SDP, None),
        (message("100 INVITE"), NO_SDP, None),
        (message("180 INVITE"), NO_SDP, None),
        (message("200 INVITE"), NO_SDP, ConfirmRequest),
        (message("ACK"), NO_SDP, ConfirmRequest),
        (message("486 INVITE"), NO_SDP, None),
        (message("BYE"), NO_SDP, None),
        (message("CANCEL"), NO_SDP, None),
        (message("OPTIONS"), NO_SDP, None),
        (message("200 BYE"), NO_SDP, None),
        # errors
        (message("INVITE", "Call-ID:", body=SDP), FAILED, None),
        (message("INVITE", "Call-ID:"), FAILED, None),
        (message("INVITE", "CSeq:", body=SDP), FAILED, None),
        (message("INVITE", "From: <", body=SDP), FAILED, None),
        (message("INVITE", body="hello", content_type="text/plain"), FAILED, None),
        (message("INVITE", body="hello", content_type=None), FAILED, None),
        (message("INVITE", body=SDP, content_type="application/sdpx"), FAILED, None),
        (message("INVITE", "Content-Encoding: gzip", body=SDP), FAILED, None),
        (message("INVITE", body=SDP.replace("m=audio 5004", "m=audio")), FAILED, None),
        (message("INVITE", body=SDP.replace("c=IN IP4 192.168.1.10", "c=IN")), FAILED, None),
        (message("INVITE", body=SDP.replace("5004", "65536")), FAILED, None),
        (message("OPTIONS", body=SDP), FAILED, None),
        (message("200 OPTIONS", body=SDP), FAILED, None),
        (message("MESSAGE", body="hi", content_type="text/plain"), FAILED, None),
        (message("BYE", body="x", content_type="text/plain"), FAILED, None),
        (message("486 INVITE", body=SDP), FAILED, None),
    ],
)
def test_use_media_proxy(asked: Message, code: Result, question: type[Question] | None) -> None:
    one, arm = run(asked), MediaArm()
    assert use(one, arm) == code
    assert [type(asked_for) for asked_for in arm.asked] == ([] if question is None else [question])
    if question is not MediaRequest:
        assert one.message is asked
    assert (one.failure is not None) <= (code == FAILED)
    once = bytes(one.message)
    assert use(one, arm) == code, "calling it twice is safe"
    assert (len(arm.asked), bytes(one.message)) == (0 if question is None else 1, once)


def test_a_message_without_end_of_headers_is_an_error() -> None:
    assert use(run(parse(b"INVITE sip:a@b SIP/2.0\r\nCall-ID: c\r\nCSeq: 1 INVITE\r\n"))) == FAILED


@pytest.mark.parametrize(
    ("reply", "status"),
    [
        (None, 503),
        (MediaReply(error="no relay", status=503), 503),
        (MediaReply(error="no ports", status=480), 480),
        (MediaReply(error="unknown"), 503),
        (MediaReply(), 503),
        (MediaReply(ports=(None,)), 503),
        (MediaReply(ports=(None, None, None)), 503),
    ],
)
@pytest.mark.parametrize("start", ["INVITE", "200 INVITE"])
def test_a_media_arm_that_does_not_help(reply: MediaReply | None, status: int, start: str) -> None:
    one, arm = run(message(start, body=SDP)), MediaArm(reply, dead=reply is None)
    assert use(one, arm) == FAILED
    assert one.message is one.arrived
    assert one.failure is not None and one.failure.status == status
    assert use(one, arm) == FAILED and len(arm.asked) == 1, "one message waits once"


def test_what_could_not_be_relayed_may_be_asked_for_in_the_next_route() -> None:
    one = run(message("INVITE", body=SDP))
    assert use(one, MediaArm(dead=True)) == FAILED
    branch = one.again(RouteType.BRANCH)
    assert use(branch) == OK
    assert branch.message.body.decode() == RELAYED
    silent = MediaArm(dead=True)
    assert use(branch.again(RouteType.FAILURE), silent) == OK and not silent.asked


@pytest.mark.parametrize("route", [RouteType.REQUEST, RouteType.BRANCH, RouteType.FAILURE])
def test_the_sdp_is_rewritten_from_every_route(route: RouteType) -> None:
    one = run(message("INVITE", "Content-Length: 5000", body=SDP), route)
    assert use(one) == OK
    assert one.message.body.decode() == RELAYED
    assert one.message.content_length == len(RELAYED)


def test_edits_of_the_host_before_and_after_it_stay() -> None:
    one = run(message("INVITE", "X: \xff", body=SDP))
    one.message = one.message.prepend("Record-Route", "<sip:203.0.113.1;lr>")
    assert use(one) == OK
    one.message = one.message.append("X-After", "1")
    sent = one.message
    assert (sent.header("record-route"), sent.header("x-after")) == ("<sip:203.0.113.1;lr>", "1")
    assert sent.header("x") == "\xff" and sent.body.decode() == RELAYED


HEAD = "v=0\r\no=- 1 1 IN IP4 10.0.0.1\r\ns=-\r\nc=IN IP4 10.0.0.1\r\nt=0 0\r\n"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        pytest.param("m=audio 0 RTP/AVP 0\r\n", "m=audio 0 RTP/AVP 0\r\n", id="port-0"),
        pytest.param(
            "m=audio 4000 RTP/AVP 0\r\nm=video 0 RTP/AVP 31\r\n",
            "m=audio 60000 RTP/AVP 0\r\nm=video 0 RTP/AVP 31\r\n",
            id="one-is-rejected",
        ),
        pytest.param(
            "m=audio 4000 RTP/AVP 0\r\nc=IN IP4 0.0.0.0\r\n",
            "m=audio 60000 RTP/AVP 0\r\nc=IN IP4 0.0.0.0\r\n",
            id="hold-by-address",
        ),
        pytest.param(
            "m=audio 4000 RTP/AVP 0\r\na=sendonly\r\n",
            "m=audio 60000 RTP/AVP 0\r\na=sendonly\r\n",
            id="hold-by-direction",
        ),
        pytest.param(
            "m=audio 4000/2 RTP/AVP 0\r\nc=IN IP4 10.0.0.1/127\r\n",
            "m=audio 60000 RTP/AVP 0\r\nc=IN IP4 203.0.113.5\r\n",
            id="count-and-ttl-go",
        ),
        pytest.param(
            "m=audio 4000 RTP/AVP 0\r\na=rtcp:4005\r\n", "m=audio 60000 RTP/AVP 0\r\na=rtcp:60001\r\n", id="rtcp"
        ),
        pytest.param(
            "m=image 4000 udptl t38\r\n", "m=image 60000 udptl t38\r\n", id="udptl"
        ),
        pytest.param(
            "m=audio 4000 RTP/AVP 0\r\nm=message 2855 TCP/MSRP *\r\nc=IN IP4 10.0.0.2\r\n",
            "m=audio 60000 RTP/AVP 0\r\nm=message 2855 TCP/MSRP *\r\nc=IN IP4 10.0.0.2\r\n",
            id="msrp-is-left-alone",
        ),
    ],
)  # fmt: skip
def test_streams(before: str, after: str) -> None:
    one = run(message("INVITE", body=HEAD + before))
    assert use(one) == OK
    relays_any = "60000" in after
    head = HEAD.replace("c=IN IP4 10.0.0.1", "c=IN IP4 203.0.113.5") if relays_any else HEAD
    assert one.message.body.decode() == head + after


def test_a_hundred_streams() -> None:
    body = HEAD + "".join(f"m=audio {4000 + 2 * at} RTP/AVP 0\r\n" for at in range(100))
    one = run(message("INVITE", body=body))
    assert use(one) == OK
    ports = [section.port for section in Sdp.parse(one.message.body).sections]
    assert ports == [60000 + 2 * at for at in range(100)]


def test_multipart() -> None:
    isup = "--b\r\nContent-Type: application/isup\r\n\r\n\0\xff\r\n"
    parts = isup + "--b\r\nContent-Type: application/sdp\r\n\r\n{}\r\n--b--\r\n"
    one = run(message("INVITE", body=parts.format(SDP), content_type='multipart/mixed; boundary="b"'))
    assert use(one) == OK
    assert one.message.body.decode("latin-1") == parts.format(RELAYED)


def test_ipv6() -> None:
    one = run(message("INVITE", body=HEAD.replace("IP4 10.0.0.1", "IP6 fd00::1") + "m=audio 4000 RTP/AVP 0\r\n"))
    ports = (MediaPort(rtp=Endpoint("2001:db8::5", 60000), rtcp=Endpoint("2001:db8::5", 60001)),)
    assert use(one, MediaArm(MediaReply(ports=ports))) == OK
    assert b"\r\nc=IN IP6 2001:db8::5\r\n" in one.message.body


@pytest.mark.parametrize(("policy", "kept"), [("keep", True), ("remove", False), ("REMOVE", False)])
def test_ice_candidate(policy: str, kept: bool) -> None:
    body = SDP + "a=ice-ufrag:x\r\na=ice-pwd:y\r\na=candidate:1 1 UDP 1 192.168.1.10 5006 typ host\r\n"
    one = run(message("INVITE", body=body))
    assert one.ice_candidate(policy) == OK
    assert use(one) == OK
    assert (b"typ host" in one.message.body) is kept
    assert POLICY.ice is IcePolicy.KEEP, "it is about one message"


# -- end_media_session

DIALOG = "To: <sip:bob@example.com>;tag=b"


def ending(
    asked: Message, route: RouteType | None = None, *, status: int = 0, facts: Facts | None = None
) -> EndRequest:
    one, arm = run(asked, route, facts), MediaArm()
    one.status = status
    assert end(one, arm) == OK
    question = arm.only
    assert isinstance(question, EndRequest) and question.call_id == "c1"
    assert one.message is asked
    return question


@pytest.mark.parametrize(
    ("asked", "route", "status", "expected"),
    [
        (message("BYE", DIALOG), RouteType.REQUEST, 0, EndCause.BYE),
        (message("200 BYE"), RouteType.ONREPLY, 0, EndCause.BYE),
        (message("481 BYE"), RouteType.ONREPLY, 0, EndCause.BYE),
        (message("BYE", DIALOG), RouteType.FAILURE, 481, EndCause.BYE),
        (message("CANCEL"), RouteType.REQUEST, 0, EndCause.CANCEL),
        (message("200 CANCEL"), RouteType.ONREPLY, 0, EndCause.CANCEL),
        (message("INVITE"), RouteType.REQUEST, 0, EndCause.FAILURE),
        (message("INVITE"), RouteType.BRANCH, 0, EndCause.FAILURE),
        (message("INVITE"), RouteType.FAILURE, 486, EndCause.FAILURE),
        (message("486 INVITE"), RouteType.ONREPLY, 0, EndCause.FAILURE),
        (message("INVITE", DIALOG), RouteType.FAILURE, 488, EndCause.REFUSED),
        (message("INVITE", DIALOG), RouteType.REQUEST, 0, EndCause.REFUSED),
        (message("INVITE", DIALOG), RouteType.FAILURE, 408, EndCause.BYE),
        (message("INVITE", DIALOG), RouteType.FAILURE, 481, EndCause.BYE),
        (message("UPDATE", DIALOG), RouteType.FAILURE, 488, EndCause.REFUSED),
        (message("INFO", DIALOG), RouteType.FAILURE, 405, EndCause.REFUSED),
        (message("INFO", DIALOG), RouteType.FAILURE, 481, EndCause.BYE),
        (message("MESSAGE"), RouteType.FAILURE, 404, EndCause.ADMIN),
        (message("200 INVITE"), RouteType.ONREPLY, 0, EndCause.ADMIN),
        (message("180 INVITE"), RouteType.ONREPLY, 0, EndCause.ADMIN),
        (message("ACK", DIALOG), RouteType.REQUEST, 0, EndCause.ADMIN),
        (message("INFO", DIALOG), RouteType.REQUEST, 0, EndCause.ADMIN),
        (message("INFO", "CSeq:"), RouteType.REQUEST, 0, EndCause.ADMIN),
    ],
)
def test_end_media_session(asked: Message, route: RouteType, status: int, expected: EndCause) -> None:
    question = ending(asked, route, status=status)
    assert question.cause is expected
    failed = expected in (EndCause.FAILURE, EndCause.REFUSED)
    assert question.status == ((486 if not asked.is_request else status) if failed else 0)
    if expected is EndCause.ADMIN:
        assert not question.sender.tag and not question.receiver.tag, "all its dialogs are meant"


def test_a_bye_counts_by_its_tags() -> None:
    question = ending(message("BYE", DIALOG))
    assert (question.sender.tag, question.receiver.tag) == ("a", "b")


def test_a_cancel_and_a_failure_name_the_branch_of_their_invite() -> None:
    assert ending(message("CANCEL")).branch == "z9hG4bKtop"
    assert ending(message("INVITE"), RouteType.FAILURE, status=503).branch == "z9hG4bKtop"
    assert ending(message("486 INVITE")).branch == "", "its top Via is ours"
    final = Facts(in_dialog=False, final=True, branch="z9hG4bKcame")
    assert ending(message("486 INVITE"), facts=final).branch == "z9hG4bKcame"


@pytest.mark.parametrize(
    ("asked", "route", "facts", "sender"),
    [
        (message("INVITE", DIALOG), RouteType.FAILURE, None, "b"),
        (message("488 INVITE"), RouteType.ONREPLY, Facts(in_dialog=True), "b"),
    ],
)
def test_a_failed_re_invite_is_undone(asked: Message, route: RouteType, facts: Facts | None, sender: str) -> None:
    question = ending(asked, route, status=488, facts=facts)
    assert (question.cause, question.cseq, question.status) == (EndCause.REFUSED, 7, 488)
    assert question.sender.tag == sender, "who refused it"


@pytest.mark.parametrize(
    ("reply", "code"),
    [
        (MediaReply(), OK),
        (MediaReply(error="unknown call", status=481), OK),
        (MediaReply(error="no relay", status=503), FAILED),
        (None, FAILED),
    ],
)
def test_end_media_session_is_1_if_the_media_arm_was_told(reply: MediaReply | None, code: Result) -> None:
    assert end(run(message("BYE", DIALOG)), MediaArm(reply, dead=reply is None)) == code


@pytest.mark.parametrize("headers", [["Call-ID:"], ["Call-ID: "]])
@pytest.mark.parametrize("start", ["BYE", "CANCEL", "INVITE", "INFO", "200 INVITE"])
def test_end_media_session_needs_a_call_id(start: str, headers: list[str]) -> None:
    arm = MediaArm()
    assert end(run(message(start, *headers)), arm) == FAILED
    assert not arm.asked
