"""The routes of a script in the pure proxy: which runs when, and what happens to media there."""

import pytest

from mediaproxy.control import EndCause, MediaReply
from mediaproxy.edge.settings import EdgeSettings
from mediaproxy.endpoint import Endpoint
from mediaproxy.sip.message import Request
from tests.fakelink import RELAY
from tests.vdialog import of_alice
from tests.vproxy import ALICE, BOB, CAROL, LISTENERS, SDP, World, binding, reply, request
from tests.vscript import call, causes, script, scripted, through

A, B, C = ALICE.address, BOB.address, CAROL.address
NATTED = Endpoint("203.0.113.99", 61000)


# -- which route runs when

TRACE = """
    def request_route(msg):
        log(f"request {msg.method} {msg.status} {msg.ruri}")
        if msg.method == "REGISTER":
            save()
        else:
            record_route()
            t_relay()
    def onreply_route(msg):
        log(f"reply {msg.method} {msg.status} {msg.reason} {msg.ruri}")
    def branch_route(msg):
        log(f"branch {msg.method} {msg.ruri}")
    def failure_route(msg):
        log(f"failure {msg.method} {msg.status} {msg.ruri}")
"""


def test_the_routes_of_a_call() -> None:
    world = scripted(TRACE)
    call(world)
    there = world.take(f"INVITE > {B}")
    for status in (100, 180, 200):
        world.receive(reply(there, status), BOB)
    ok = world.outbox[-1].response
    world.receive(of_alice("ACK", ok), ALICE)
    world.receive(of_alice("BYE", ok, cseq="2"), ALICE)
    world.receive(reply(world.take(f"BYE > {B}"), 200), BOB)
    assert world.said == [
        "request INVITE 0 sip:bob@example.com",
        f"branch INVITE sip:bob@{BOB}",
        "reply INVITE 180 Ringing ",
        "reply INVITE 200 OK ",
        f"request ACK 0 sip:bob@{BOB}",
        f"request BYE 0 sip:bob@{BOB}",
        f"branch BYE sip:bob@{BOB}",
        "reply BYE 200 OK ",
    ]
    assert world.troubles == []


def test_the_routes_of_a_fork_that_fails() -> None:
    world = scripted(TRACE)
    world.bind("bob", BOB, CAROL)
    call(world)
    _, bob, carol = world.outbox
    world.receive(reply(bob, 486), BOB)
    world.receive(reply(carol, 404), CAROL)
    assert world.said[3:] == [
        "reply INVITE 486 Busy Here ",
        "reply INVITE 404 Not Found ",
        "failure INVITE 486 sip:bob@example.com",
    ]
    assert str(world.outbox[-1]) == f"486 > {A}"


@pytest.mark.parametrize("method", ["INVITE", "MESSAGE"])
def test_who_is_silent_has_failed(method: str) -> None:
    world = scripted(TRACE)
    world.receive(request(method), ALICE)
    world.advance(100)
    assert world.said[-1] == f"failure {method} 408 sip:bob@example.com"
    assert (f"408 > {A}" in world.sent()) is (method == "INVITE"), "RFC 4320 §4.2"
    assert (world.proxy.transactions.served, world.proxy.transactions.sent) == (0, 0)


def test_cancel_runs_through_the_script_once() -> None:
    world = scripted(TRACE)
    invite = call(world)
    there = world.take(f"INVITE > {B}")
    world.receive(reply(there, 180), BOB)
    fields = [("Via", str(invite.via)), ("From", str(invite.from_)), ("To", str(invite.to)), ("Call-ID", "call")]
    cancel = Request.build("CANCEL", invite.uri_text, [*fields, ("CSeq", "1 CANCEL")])
    world.said.clear()
    world.receive(cancel, ALICE)
    world.receive(cancel, ALICE)
    world.receive(reply(there, 487), BOB)
    world.receive(cancel, ALICE)
    assert world.said == [
        "request CANCEL 0 sip:bob@example.com",
        "reply INVITE 487 Request Terminated ",
        "failure INVITE 487 sip:bob@example.com",
    ]
    assert world.troubles == []


def test_register_and_what_the_server_answers_itself() -> None:
    world = scripted(TRACE)
    world.receive(request("OPTIONS", "sip:example.com"), ALICE)
    world.receive(request("INVITE", "sip:x@foreign.test"), ALICE)
    assert world.sent() == [f"200 > {A}", f"403 > {A}"] and world.said == []
    world.receive(request("REGISTER", "sip:example.com", to_uri="sip:carol@example.com"), CAROL)
    assert world.said == ["request REGISTER 0 sip:example.com"]
    assert world.sent() == [f"200 > {C}"]


def test_a_script_needs_only_a_request_route() -> None:
    world = scripted("def request_route():\n    t_relay()\n")
    back = through(world)
    assert back.body == SDP and world.questions == [], "nothing is relayed that the script does not ask for"
    world = scripted("def request_route():\n    t_relay()\n")
    assert through(world, 486).status == 486
    assert causes(world) == []


# -- media, by codes


def test_media_that_cannot_be_relayed_is_the_scripts_business() -> None:
    source = """
        def request_route(msg):
            log(use_media_proxy())
            t_relay()
    """
    world = scripted(source)
    world.held = []
    call(world)
    world.answer(MediaReply(error="no relay", status=503))
    assert world.said == ["-1"]
    assert world.take(f"INVITE > {B}").request.body == SDP


def test_what_becomes_of_ice_holds_for_the_replies_too() -> None:
    world = scripted(
        """
        def request_route(msg):
            if msg.header("X-Ice"):
                ice_candidate(msg.header("X-Ice"))
            use_media_proxy(); t_relay()
        def onreply_route(msg):
            use_media_proxy()
        """
    )
    ice = SDP + b"a=ice-ufrag:x\r\na=ice-pwd:y\r\na=candidate:1 1 UDP 1 192.0.2.1 4 typ host\r\n"
    for number, (policy, there) in enumerate((("remove", (0, 0)), ("", (1, 0)), ("low-priority", (1, 1)))):
        call(world, call_id=f"ice{number}", headers=[("X-Ice", policy)])
        invite = world.take(f"INVITE > {B}")
        world.receive(reply(invite, 200, body=ice), BOB)
        body = world.take(f"200 > {A}").response.body
        assert (body.count(b"typ host"), body.count(b"typ relay")) == there, policy


def test_codes_of_use_media_proxy() -> None:
    source = """
        def request_route(msg):
            log(f"{use_media_proxy()} {use_media_proxy()}")
            t_relay()
        def branch_route(msg):
            log(use_media_proxy())
    """
    world = scripted(source)
    call(world)
    world.receive(request("MESSAGE"), ALICE)
    world.receive(request("MESSAGE", body=SDP), ALICE)
    assert world.said == ["1 1", "1", "-2 -2", "-2", "-1 -1", "-1"]
    assert len(world.questions) == 1, "twice on one message, and in the branch: asked once"
    assert RELAY.encode() in world.take(f"INVITE > {B}").request.body


def test_media_may_be_asked_for_in_the_branch_alone() -> None:
    world = scripted("def request_route(): t_relay()\ndef branch_route(): log(use_media_proxy())\n")
    world.held = []
    call(world)
    assert world.sent() == [f"100 > {A}"], "the branch waits"
    world.answer()
    assert world.said == ["1"]
    assert RELAY.encode() in world.take(f"INVITE > {B}").request.body


def test_without_relaying_all_goes_on() -> None:
    world = World(EdgeSettings(listeners=LISTENERS, domains=("example.com",), open=True, media=False))
    world.bind("bob", BOB)
    world.proxy.script.script = script("def request_route():\n    log(use_media_proxy())\n    t_relay()\n")
    call(world)
    assert world.said == ["1"] and world.questions == []
    assert world.take(f"INVITE > {B}").request.body == SDP


def test_no_media_is_asked_for_on_the_way_to_where_nobody_may_go() -> None:
    source = """
        def request_route(msg):
            log(use_media_proxy())
            sl_reply_error()
    """
    world = scripted(source)
    world.receive(request(uri="sip:nobody@example.com", body=SDP), ALICE)
    assert world.questions == [] and world.said == ["-1"]
    assert world.sent() == [f"480 > {A}"]


def test_bye_whose_media_arm_is_gone() -> None:
    world = scripted("def request_route(msg):\n    log(end_media_session())\n    record_route(); t_relay()\n")
    ok = through(world)
    world.held = []
    world.receive(of_alice("BYE", ok, cseq="2"), ALICE)
    world.answer(MediaReply(error="nobody answers", status=503))
    assert world.said[-1] == "-1"
    assert world.sent()[-1] == f"BYE > {B}", "it goes on all the same"


@pytest.mark.parametrize(("method", "status"), [("INVITE", 488), ("UPDATE", 488), ("INFO", 405)])
def test_what_fails_within_a_call_does_not_end_it(method: str, status: int) -> None:
    """Whatever the script does: the offer is taken back once."""
    for failure in ("end_media_session()", "pass"):
        source = f"""
            def request_route(msg):
                use_media_proxy(); record_route(); t_relay()
            def failure_route(msg):
                {failure}
        """
        world = scripted(source)
        ok = through(world)
        world.receive(of_alice(method, ok, cseq="2", body=SDP), ALICE)
        world.receive(reply(world.take(f"{method} > {B}"), status), BOB)
        taken = [EndCause.REFUSED] if method != "INFO" or failure != "pass" else []
        assert causes(world) == taken


def test_a_failed_branch_is_told_by_itself() -> None:
    world = scripted("def request_route():\n    use_media_proxy(); t_relay()\n")
    world.bind("bob", BOB, binding("bob", CAROL))
    call(world)
    bob = world.take(f"INVITE > {B}")
    world.receive(reply(bob, 486), BOB)
    assert causes(world) == [EndCause.BRANCH]
