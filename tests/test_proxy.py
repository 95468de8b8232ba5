"""The proxy in virtual time: forks, CANCEL and its races, timers, retransmissions, late responses (RFC 3261 §16)."""

from typing import Any

import pytest

from mediaproxy.control import ConfirmRequest, EndCause, EndRequest, MediaReply, MediaRequest, Question
from mediaproxy.edge.hop import Hop
from mediaproxy.edge.settings import EdgeSettings, RouteRule, Transport
from mediaproxy.endpoint import Endpoint
from mediaproxy.sip.message import Request, Response
from mediaproxy.sip.transaction import ack_for
from tests.fakelink import RELAY
from tests.vproxy import ALICE, BOB, CAROL, EDGE, LISTENERS, SDP, Out, World, binding, reply, request

A, B, C = ALICE.address, BOB.address, CAROL.address


@pytest.fixture
def world() -> World:
    world = World()
    world.bind("bob", BOB)
    return world


def invite(world: World, **more: Any) -> Request:
    """Alice calls bob."""
    call = request(body=SDP, **more)
    world.receive(call, ALICE)
    return call


def causes(world: World) -> list[tuple[EndCause, int]]:
    return [(q.cause, q.status) for q in world.questions if isinstance(q, EndRequest)]


def kinds(questions: list[Question]) -> list[type[Question]]:
    return [type(question) for question in questions]


# -- the plain way


def test_invite_is_answered_100_and_forwarded(world: World) -> None:
    call = invite(world)
    assert [str(out) for out in world.outbox] == [f"100 > {A}", f"INVITE > {B}"]
    trying, forwarded = world.outbox[0].response, world.outbox[1].request
    assert trying.to.tag == ""
    assert forwarded.uri_text == f"sip:bob@{BOB}"
    assert forwarded.max_forwards == 69
    assert forwarded.vias[1].branch == call.via.branch
    assert str(forwarded.via.sent_by) == str(EDGE)
    assert len(forwarded.record_routes) == 1
    assert RELAY.encode() in forwarded.body


def test_response_goes_back_without_our_via(world: World) -> None:
    call = invite(world)
    there = world.take(f"INVITE > {B}")
    for status in (180, 183, 200):
        world.receive(reply(there, status), BOB)
        back = world.take(f"{status} > {A}").response
        assert [via.branch for via in back.vias] == [call.via.branch]
    assert kinds(world.questions) == [MediaRequest, ConfirmRequest]


def test_100_is_not_forwarded(world: World) -> None:
    invite(world)
    there = world.take(f"INVITE > {B}")
    world.receive(reply(there, 100), BOB)
    assert world.sent() == []


def test_invite_again_gets_the_last_response_again(world: World) -> None:
    call = invite(world)
    there = world.take(f"INVITE > {B}")
    world.receive(call, ALICE)
    assert world.sent() == [f"100 > {A}"]
    world.receive(reply(there, 180), BOB)
    world.receive(call, ALICE)
    assert world.sent() == [f"180 > {A}", f"180 > {A}"]
    world.receive(reply(there, 200), BOB)
    world.receive(call, ALICE)
    assert world.sent() == [f"200 > {A}"], "RFC 6026: absorbed in Accepted"
    assert len(world.questions) == 2, "and nobody is asked again"


def test_2xx_again_is_forwarded_again(world: World) -> None:
    invite(world)
    there = world.take(f"INVITE > {B}")
    world.receive(reply(there, 200, body=SDP), BOB)
    world.receive(reply(there, 200, body=SDP), BOB)
    assert world.sent() == [f"200 > {A}", f"200 > {A}"]
    first, again = world.questions[1:]
    assert first == again, "the same question, so the same ports"


def test_failure_is_acknowledged_to_both_sides(world: World) -> None:
    call = invite(world)
    there = world.take(f"INVITE > {B}")
    world.receive(reply(there, 486), BOB)
    assert [str(out) for out in world.outbox] == [f"ACK > {B}", f"486 > {A}"]
    busy = world.outbox[1].response
    assert causes(world) == [(EndCause.FAILURE, 486)]
    world.receive(ack_for(call, busy), ALICE)
    world.sent()
    world.advance(100)
    assert world.sent() == [], "the ACK ended the repetition and went no further"
    assert (world.proxy.transactions.served, world.proxy.transactions.sent) == (0, 0)


def test_failure_is_repeated_until_the_ack(world: World) -> None:
    invite(world)
    world.receive(reply(world.take(f"INVITE > {B}"), 486), BOB)
    world.sent()
    world.advance(100)
    assert world.sent() == [f"486 > {A}"] * 10
    assert world.proxy.transactions.served == 0


def test_ack_of_a_2xx_passes_without_state(world: World) -> None:
    invite(world)
    there = world.take(f"INVITE > {B}")
    world.receive(reply(there, 200), BOB)
    ok = world.take(f"200 > {A}").response
    before = world.proxy.transactions.sent
    ack = in_dialog("ACK", ok)
    world.receive(ack, ALICE)
    first = world.take(f"ACK > {B}").request
    world.receive(ack, ALICE)
    again = world.take(f"ACK > {B}").request
    assert first == again, "RFC 3261 §16.11: a retransmission has the same branch"
    assert first.uri_text == f"sip:bob@{BOB}"
    assert not first.routes
    assert world.proxy.transactions.sent == before
    assert kinds(world.questions[2:]) == [ConfirmRequest, ConfirmRequest]


def in_dialog(method: str, ok: Response, uri: str = "", **more: Any) -> Request:
    """A request of alice in the dialog of a 2xx."""
    routes = [("Route", str(route)) for route in reversed(ok.record_routes)]
    target = uri or str(ok.contacts[0].uri)
    return request(method, target, headers=routes, to_tag=ok.to.tag, call_id=ok.call_id, **more)


def answered(world: World, **more: Any) -> tuple[Out, Response]:
    """A call that stands: the INVITE as bob got it, the 200 as alice got it."""
    invite(world, **more)
    there = world.take(f"INVITE > {B}")
    world.receive(reply(there, 200, body=SDP), BOB)
    return there, world.take(f"200 > {A}").response


@pytest.mark.parametrize("method", ["BYE", "INFO", "UPDATE", "REFER", "NOTIFY", "MESSAGE", "FOO"])
def test_requests_in_a_dialog_need_no_permission(world: World, method: str) -> None:
    _, ok = answered(world)
    world.receive(in_dialog(method, ok, cseq="2"), ALICE)
    there = world.take(f"{method} > {B}")
    assert not there.request.record_routes
    world.receive(reply(there, 200), BOB)
    assert world.sent() == [f"200 > {A}"]


def test_callee_reaches_the_caller(world: World) -> None:
    there, _ = answered(world)
    routes = [("Route", str(route)) for route in there.request.record_routes]
    bye = request("BYE", f"sip:alice@{ALICE}", source=BOB, headers=routes, from_tag="b", to_tag="a", cseq="9")
    world.receive(bye, BOB)
    assert world.sent() == [f"BYE > {A}"]


@pytest.mark.parametrize("change", ["no route", "another call"], ids=str)
def test_requests_that_only_look_like_a_dialog_are_refused(world: World, change: str) -> None:
    _, ok = answered(world)
    bye = in_dialog("BYE", ok, cseq="2")
    bye = bye.remove("Route") if change == "no route" else bye.replace("Call-ID", "other")
    world.receive(bye, ALICE)
    assert world.sent() == [f"403 > {A}"]


# -- media


def test_late_offer(world: World) -> None:
    world.receive(request(), ALICE)
    there = world.take(f"INVITE > {B}")
    world.receive(reply(there, 200, body=SDP), BOB)
    ok = world.take(f"200 > {A}").response
    assert RELAY.encode() in ok.body
    ack = in_dialog("ACK", ok).with_body(SDP, "application/sdp")
    world.receive(ack, ALICE)
    assert RELAY.encode() in world.take(f"ACK > {B}").request.body
    assert [(type(q), getattr(q, "status", None)) for q in world.questions] == [(MediaRequest, 200), (MediaRequest, 0)]


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (MediaReply(error="no relay", status=503), 503),
        (MediaReply(error="no ports", status=480), 480),
        (MediaReply(error="?"), 503),
    ],
    ids=["no-relay", "no-ports", "no-status"],
)
def test_invite_without_media_is_refused(world: World, answer: MediaReply, status: int) -> None:
    world.held = []
    invite(world)
    world.answer(answer)
    assert [str(out) for out in world.outbox] == [f"100 > {A}", f"{status} > {A}"]
    assert world.outbox[1].response.header("Warning") == f'399 mediaproxy "{answer.error}"'


def test_response_without_media_goes_on_as_it_is(world: World) -> None:
    invite(world)
    there = world.take(f"INVITE > {B}")
    world.held = []
    world.receive(reply(there, 200, body=SDP), BOB)
    world.answer(MediaReply(error="gone", status=503))
    assert world.take(f"200 > {A}").response.body == SDP


def test_responses_keep_their_order_while_the_media_arm_thinks(world: World) -> None:
    invite(world)
    there = world.take(f"INVITE > {B}")
    world.held = []
    world.receive(reply(there, 183, body=SDP), BOB)
    world.receive(reply(there, 180), BOB)
    world.receive(reply(there, 200, body=SDP), BOB)
    assert world.sent() == []
    world.answer()
    assert world.sent() == [f"183 > {A}", f"180 > {A}"]
    world.answer()
    assert world.sent() == [f"200 > {A}"]


def test_an_offer_of_thousands_of_streams_is_refused(world: World) -> None:
    world.receive(request(body=SDP + b"m=a 1 RTP/AVP 0\r\n" * 3500), ALICE)
    answer = world.take(f"488 > {A}").response
    assert "more than 1024 streams" in (answer.header("Warning") or "")
    assert kinds(world.questions) == [EndRequest], "nothing to relay, nobody rings"
    assert world.sent() == []


@pytest.mark.parametrize("status", [407, 488, 491, 606])
@pytest.mark.parametrize("method", ["INVITE", "UPDATE", "PRACK"])
def test_a_refused_offer_ends_nothing_and_is_taken_back(world: World, method: str, status: int) -> None:
    _, ok = answered(world)
    world.receive(in_dialog(method, ok, cseq="2").with_body(SDP, "application/sdp"), ALICE)
    world.receive(reply(world.take(f"{method} > {B}"), status), BOB)
    assert causes(world) == [(EndCause.REFUSED, status)]
    end = world.questions[-1]
    assert isinstance(end, EndRequest) and (end.cseq, end.sender.tag, end.receiver.tag) == (2, "b", "a")


@pytest.mark.parametrize("method", ["INVITE", "UPDATE"])
def test_an_offer_that_is_not_answered_is_taken_back(world: World, method: str) -> None:
    """The caller is told of it, or its own timer runs out as well (RFC 4320 §4.2)."""
    _, ok = answered(world)
    world.receive(in_dialog(method, ok, cseq="2").with_body(SDP, "application/sdp"), ALICE)
    world.advance(100)
    assert causes(world) == [(EndCause.REFUSED, 408)]


def test_a_cancelled_reinvite_is_taken_back(world: World) -> None:
    _, ok = answered(world)
    again = in_dialog("INVITE", ok, cseq="2").with_body(SDP, "application/sdp")
    world.receive(again, ALICE)
    there = world.take(f"INVITE > {B}")
    world.receive(reply(there, 180), BOB)
    cancel(world, again)
    world.receive(reply(there, 487), BOB)
    assert causes(world) == [(EndCause.CANCEL, 0), (EndCause.REFUSED, 487)]


def test_contact_of_a_natted_caller_is_repaired(world: World) -> None:
    call = request(body=SDP, via="SIP/2.0/UDP 10.0.0.5:5060;branch=z9hG4bKnat", contact="<sip:alice@10.0.0.5:5060>")
    source = Endpoint("203.0.113.99", 61000)
    world.receive(call, source)
    there = world.take(f"INVITE > {B}").request
    assert str(there.contacts[0].uri) == "sip:alice@203.0.113.99:61000"
    assert there.vias[1].rport == "61000"
    assert isinstance(world.questions[0], MediaRequest)
    assert world.questions[0].contact == "sip:alice@10.0.0.5:5060"
    world.receive(reply(Out(Hop(Transport.UDP, BOB), there, None), 180), BOB)  # type: ignore[arg-type]  # not used
    assert world.outbox[-1].hop.remote == source, "to where it came from, asked for or not"


# -- forks


@pytest.fixture
def fork() -> World:
    world = World()
    world.bind("bob", BOB, CAROL)
    return world


def test_all_contacts_ring_and_the_first_wins(fork: World) -> None:
    invite(fork)
    assert [str(out) for out in fork.outbox] == [f"100 > {A}", f"INVITE > {B}", f"INVITE > {C}"]
    bob, carol = fork.outbox[1:]
    fork.sent()
    assert len(fork.questions) == 1, "one question before forking"
    fork.receive(reply(bob, 180), BOB)
    fork.receive(reply(carol, 180, tag="c"), CAROL)
    fork.receive(reply(bob, 200, body=SDP), BOB)
    assert fork.sent() == [f"180 > {A}", f"180 > {A}", f"200 > {A}", f"CANCEL > {C}"]
    fork.receive(reply(carol, 487, tag="c"), CAROL)
    assert fork.sent() == [f"ACK > {C}"], "what the loser says is nobody's business"
    assert causes(fork) == [(EndCause.BRANCH, 487)]
    question = fork.questions[-1]
    assert isinstance(question, EndRequest)
    assert question.branch == carol.request.via.branch


def test_second_2xx_is_forwarded_too(fork: World) -> None:
    call = invite(fork)
    _, bob, carol = fork.outbox
    fork.sent()
    fork.receive(reply(bob, 200, body=SDP), BOB)
    fork.receive(reply(carol, 200, tag="c", body=SDP), CAROL)
    assert fork.sent() == [f"200 > {A}", f"200 > {A}"]
    branches = [q.branch for q in fork.questions if isinstance(q, MediaRequest)]
    assert branches == [call.via.branch, bob.request.via.branch, carol.request.via.branch]


def test_final_responses_wait_for_the_last_branch(fork: World) -> None:
    invite(fork)
    _, bob, carol = fork.outbox
    fork.sent()
    fork.receive(reply(bob, 404), BOB)
    assert fork.sent() == [f"ACK > {B}"]
    assert causes(fork) == [(EndCause.BRANCH, 404)]
    fork.receive(reply(carol, 486, tag="c"), CAROL)
    assert fork.sent() == [f"ACK > {C}", f"404 > {A}"]
    assert causes(fork)[-1] == (EndCause.FAILURE, 404)


def test_6xx_ends_the_search(fork: World) -> None:
    invite(fork)
    _, bob, carol = fork.outbox
    fork.sent()
    fork.receive(reply(carol, 180), CAROL)
    fork.receive(reply(bob, 603), BOB)
    assert fork.sent() == [f"180 > {A}", f"ACK > {B}", f"CANCEL > {C}"]
    fork.receive(reply(carol, 487), CAROL)
    assert fork.sent() == [f"ACK > {C}", f"603 > {A}"]


def test_challenges_are_gathered(fork: World) -> None:
    invite(fork)
    _, bob, carol = fork.outbox
    fork.sent()
    fork.receive(reply(bob, 401, headers=[("WWW-Authenticate", 'Digest realm="b"')]), BOB)
    fork.receive(reply(carol, 407, headers=[("Proxy-Authenticate", 'Digest realm="c"')]), CAROL)
    back = fork.outbox[-1].response
    assert back.status == 401
    assert back.headers("WWW-Authenticate") == ('Digest realm="b"',)
    assert back.headers("Proxy-Authenticate") == ('Digest realm="c"',)


def test_lower_q_is_tried_after_higher() -> None:
    world = World()
    world.bind("bob", binding("bob", BOB, q=1.0), binding("bob", CAROL, q=0.5))
    invite(world)
    bob = world.take(f"INVITE > {B}")
    assert world.sent() == []
    world.receive(reply(bob, 480), BOB)
    assert [str(out) for out in world.outbox] == [f"ACK > {B}", f"INVITE > {C}"]
    world.receive(reply(world.outbox[1], 200), CAROL)
    assert world.outbox[-1].response.status == 200


def test_unreachable_contact_does_not_keep_others_from_ringing() -> None:
    world = World()
    world.bind("bob", binding("bob", BOB, transport="tcp"), CAROL)
    invite(world)
    assert world.sent() == [f"100 > {A}", f"INVITE > {C}"]


def test_forks_are_bounded() -> None:
    world = World()
    world.bind("bob", *(Endpoint("203.0.113.20", 6000 + n) for n in range(50)))
    invite(world)
    assert len(world.sent()) == 1 + 32


# -- CANCEL


def cancel(world: World, call: Request) -> None:
    fields = [("Via", str(call.via)), ("From", str(call.from_)), ("To", str(call.to)), ("Call-ID", call.call_id)]
    fields += [("CSeq", f"{call.cseq.number} CANCEL"), ("Max-Forwards", "70")]
    world.receive(Request.build("CANCEL", call.uri_text, fields), ALICE)


def test_cancel(world: World) -> None:
    call = invite(world)
    there = world.take(f"INVITE > {B}")
    world.receive(reply(there, 180), BOB)
    world.sent()
    cancel(world, call)
    assert [str(out) for out in world.outbox] == [f"200 > {A}", f"CANCEL > {B}"]
    assert world.outbox[1].request.via.branch == there.request.via.branch
    cancelled = world.outbox[1]
    cancel(world, call)
    assert world.sent()[2:] == [f"200 > {A}"], "again: only the 200 again"
    world.receive(reply(cancelled, 200), BOB)
    assert world.sent() == []
    world.receive(reply(there, 487), BOB)
    assert world.sent() == [f"ACK > {B}", f"487 > {A}"]
    assert causes(world) == [(EndCause.CANCEL, 0), (EndCause.FAILURE, 487)]


def test_cancel_waits_for_a_provisional_response(world: World) -> None:
    call = invite(world)
    there = world.take(f"INVITE > {B}")
    cancel(world, call)
    assert world.sent() == [f"200 > {A}"]
    world.receive(reply(there, 100), BOB)
    assert world.sent() == [f"CANCEL > {B}"]


def test_cancel_while_the_media_arm_thinks(world: World) -> None:
    world.held = []
    call = invite(world)
    cancel(world, call)
    assert world.sent() == [f"100 > {A}", f"200 > {A}", f"487 > {A}"]
    world.answer()
    assert world.sent() == [], "bob never hears of it"


def test_cancel_crosses_a_2xx(world: World) -> None:
    call = invite(world)
    there = world.take(f"INVITE > {B}")
    world.receive(reply(there, 180), BOB)
    cancel(world, call)
    world.sent()
    world.receive(reply(there, 200, body=SDP), BOB)
    assert world.sent() == [f"200 > {A}"]


def test_2xx_after_the_patience_with_a_cancel(world: World) -> None:
    call = invite(world)
    there = world.take(f"INVITE > {B}")
    world.receive(reply(there, 180), BOB)
    cancel(world, call)
    world.advance(33)
    back = [str(out) for out in world.outbox if out.hop.remote == ALICE]
    assert back[-1] == f"487 > {A}", "RFC 3261 §9.1: 64 * T1 after the CANCEL"
    world.sent()
    world.receive(reply(there, 200, body=SDP), BOB)
    assert world.sent() == [f"200 > {A}"], "a 2xx is never lost"


def test_cancel_of_nothing(world: World) -> None:
    cancel(world, request())
    assert world.sent() == [f"481 > {A}"]


def test_cancel_after_the_final_response(world: World) -> None:
    call = invite(world)
    world.receive(reply(world.take(f"INVITE > {B}"), 200), BOB)
    world.sent()
    cancel(world, call)
    assert world.sent() == [f"200 > {A}"]
    assert EndCause.CANCEL not in [cause for cause, _ in causes(world)]


# -- silence


def test_invite_to_a_dead_phone_is_answered_408(world: World) -> None:
    invite(world)
    world.advance(31.9)
    assert world.sent() == [f"100 > {A}"] + [f"INVITE > {B}"] * 7
    world.advance(0.2)
    assert world.sent() == [f"408 > {A}"]
    assert causes(world) == [(EndCause.FAILURE, 408)]


def test_other_requests_to_a_dead_phone_are_not_answered(world: World) -> None:
    world.receive(request("MESSAGE"), ALICE)
    world.advance(100)
    assert f"408 > {A}" not in world.sent(), "RFC 4320 §4.2"
    assert causes(world) == []
    assert (world.proxy.transactions.served, world.proxy.transactions.sent) == (0, 0)


def test_timer_c(world: World) -> None:
    invite(world)
    there = world.take(f"INVITE > {B}")
    world.receive(reply(there, 180), BOB)
    world.advance(180)
    world.receive(reply(there, 180), BOB)
    world.advance(184)
    assert world.sent() == [f"180 > {A}"] * 2
    world.advance(1.4)
    assert world.sent() == [f"CANCEL > {B}"]
    world.receive(reply(there, 487), BOB)
    assert world.take(f"487 > {A}")


def test_phone_that_answers_neither_invite_nor_cancel(world: World) -> None:
    invite(world)
    there = world.take(f"INVITE > {B}")
    world.receive(reply(there, 180), BOB)
    world.advance(400)
    assert f"487 > {A}" in world.sent()
    assert (world.proxy.transactions.served, world.proxy.transactions.sent) == (0, 0)


def test_phone_that_cannot_be_sent_to(world: World) -> None:
    world.unreachable.add(BOB)
    invite(world)
    assert world.sent() == [f"100 > {A}", f"500 > {A}"], "RFC 3261 §16.7 step 6: not 503, which would mean us"


def test_nothing_is_kept_of_ended_calls(world: World) -> None:
    _, ok = answered(world)
    world.receive(in_dialog("ACK", ok), ALICE)
    world.receive(in_dialog("BYE", ok, cseq="2"), ALICE)
    world.receive(reply(world.take(f"BYE > {B}"), 200), BOB)
    world.advance(200)
    assert (world.proxy.transactions.served, world.proxy.transactions.sent) == (0, 0)
    assert world.proxy.deadline is None


# -- next hops by name


GATEWAYS = (Hop(Transport.UDP, BOB), Hop(Transport.UDP, CAROL))
ROUTED = EdgeSettings(
    listeners=LISTENERS,
    domains=("example.com",),
    open=True,
    trusted_proxies=(A,),
    routes=(RouteRule(to="sip:gateway.test", prefix="+"),),
)


def test_route_rule_and_failover_by_transport() -> None:
    world = World(ROUTED)
    world.names["gateway.test"] = GATEWAYS
    world.unreachable.add(BOB)
    world.receive(request(uri="sip:+49301234@example.com"), ALICE)
    assert str(world.outbox[-1]) == f"INVITE > {C}"
    assert world.outbox[-1].request.uri_text == "sip:+49301234@example.com"


@pytest.mark.parametrize("how", ["503", "silence"])
def test_failover_by_answer(how: str) -> None:
    world = World(ROUTED)
    world.names["gateway.test"] = GATEWAYS
    world.receive(request(uri="sip:+49301234@example.com"), ALICE)
    first = world.take(f"INVITE > {B}")
    if how == "503":
        world.receive(reply(first, 503), BOB)
    else:
        world.advance(33)
    second = world.take(f"INVITE > {C}")
    assert second.request.via.branch != first.request.via.branch
    world.receive(reply(second, 200), CAROL)
    assert world.take(f"200 > {A}")


def test_name_that_leads_nowhere() -> None:
    world = World(ROUTED)
    world.receive(request(uri="sip:+49301234@example.com"), ALICE)
    assert world.sent() == [f"100 > {A}", f"500 > {A}"]


# -- responses that nobody waits for


def test_stray_response_with_our_mark_is_forwarded(world: World) -> None:
    world.receive(request("MESSAGE"), ALICE)
    there = world.take(f"MESSAGE > {B}")
    later = World()
    later.receive(reply(there, 200), BOB)
    assert later.sent() == [f"200 > {A}"], "a server that was restarted meanwhile, with the same secret"


@pytest.mark.parametrize(("status", "forged"), [(200, True), (100, False)], ids=["forged-branch", "provisional"])
def test_stray_response_is_dropped(world: World, status: int, forged: bool) -> None:
    world.receive(request("MESSAGE"), ALICE)
    there = world.take(f"MESSAGE > {B}")
    stray = reply(there, status)
    if forged:
        branch = stray.via.branch
        stray = stray.replace_value("Via", 0, str(stray.via.with_param("branch", branch[:-1] + "x")))
    later = World()
    later.receive(stray, BOB)
    assert later.sent() == [], "RFC 6026 §8.9: it could be anybody's"
