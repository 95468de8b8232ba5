"""What the server's functions do for a script, in the pure proxy: flags, headers, answers, where a request goes."""

from typing import Any

import pytest

from mediaproxy.agents import AgentList
from mediaproxy.control import MediaReply
from mediaproxy.edge.settings import EdgeSettings
from mediaproxy.endpoint import Endpoint
from tests.vproxy import ALICE, BOB, CAROL, LISTENERS, SDP, reply, request
from tests.vscript import call, causes, scripted, through

A, B, C = ALICE.address, BOB.address, CAROL.address
HOME = Endpoint("203.0.113.99", 61000)
PRIVATE: dict[str, Any] = {"via": "SIP/2.0/UDP 10.0.0.5:5060;branch=z9hG4bKnat", "contact": "<sip:alice@10.0.0.5:5060>"}
RELAY_ALL = "def request_route():\n    t_relay()\n"


# -- flags


def test_flags_last_from_the_request_to_its_end() -> None:
    world = scripted(
        """
        def request_route(msg):
            log(isflagset(5)); setflag(5); setflag(7); resetflag(7); t_relay()
        def branch_route(msg):
            log(isflagset(5)); log(isflagset(7)); setflag(31)
        def onreply_route(msg):
            log(isflagset(5)); log(isflagset(31)); resetflag(5)
        def failure_route(msg):
            log(isflagset(5))
        """
    )
    through(world, 486)
    assert world.said == ["-1", "1", "-1", "1", "1", "-1"]
    call(world, call_id="another")
    assert world.said[6] == "-1", "they are the request's own"


# -- headers


def test_headers_put_in_and_taken_out() -> None:
    world = scripted(
        """
        def request_route(msg):
            append_hf("P-Hint: outbound \\r\\n"); append_hf("X-Bytes: \\xe9")
            log(remove_hf("subject")); log(remove_hf("Subject")); log(msg.header("p-hint"))
            t_relay()
        def onreply_route(msg):
            append_hf("X-Seen: here"); remove_hf("Server")
        """
    )
    world.receive(request(headers=[("Subject", "a"), ("s", "b")], body=SDP), ALICE)
    there = world.take(f"INVITE > {B}")
    assert (there.request.header("P-Hint"), there.request.header("X-Bytes")) == ("outbound", "\xe9")
    assert there.request.count("Subject") == 0 and world.said == ["1", "-1", "outbound"]
    world.receive(reply(there, 200, headers=[("Server", "phone")]), BOB)
    back = world.take(f"200 > {A}").response
    assert (back.header("X-Seen"), back.header("Server")) == ("here", None)


def test_a_header_of_one_branch() -> None:
    world = scripted(RELAY_ALL + "def branch_route(msg):\n    if '.20' in msg.ruri: append_hf('X-Only: bob')\n")
    world.bind("bob", BOB, CAROL)
    call(world)
    assert world.take(f"INVITE > {B}").request.header("X-Only") == "bob"
    assert world.take(f"INVITE > {C}").request.header("X-Only") is None


# -- NAT


def test_tests_look_at_the_message_as_it_came() -> None:
    """What we note in the Via ourselves is no sign of a NAT, not even after the server had to wait."""
    world = scripted(
        """
        def request_route(msg):
            log(client_nat_test(2)); use_media_proxy(); force_rport(); log(client_nat_test("2")); t_relay()
        """
    )
    call(world, via=f"SIP/2.0/UDP {ALICE};rport;branch=z9hG4bKx")
    assert world.said == ["-1", "-1"]
    assert world.take(f"INVITE > {B}").request.vias[1].rport == str(ALICE.port)


def test_without_an_argument_the_setting_decides() -> None:
    for tests, said in ((7, "1"), (1, "1"), (0, "-1")):
        settings = EdgeSettings(listeners=LISTENERS, domains=("example.com",), open=True, nat_tests=tests)
        world = scripted("def request_route():\n    log(client_nat_test())\n    drop()\n", settings)
        world.receive(request(**PRIVATE), HOME)
        assert world.said == [said]
    world = scripted(RELAY_ALL + "def onreply_route():\n    log(client_nat_test())\n")
    through(world)
    assert world.said == ["-1"], "the Via of a reply is ours, and no sign of a NAT"


def test_fixed_contacts_are_seen_and_sent() -> None:
    world = scripted(
        """
        def request_route(msg):
            log(client_nat_test(1)); log(fix_contact()); log(client_nat_test(1)); log(msg.header("Contact")); t_relay()
        """
    )
    world.receive(request(**PRIVATE), HOME)
    assert world.said == ["1", "1", "-1", f"<sip:alice@{HOME}>"]
    assert str(world.take(f"INVITE > {B}").request.contacts[0].uri) == f"sip:alice@{HOME}"


@pytest.mark.parametrize(
    ("via", "forced", "port"),
    [("10.0.0.5:5060", True, 61000), ("10.0.0.5:5060", False, 5060), ("10.0.0.5:5060;rport", False, 61000)],
)
def test_force_rport(via: str, forced: bool, port: int) -> None:
    """RFC 3261 §18.2.1 is kept without it; it answers the source port (RFC 3581)."""
    for answer in ("sl_send_reply(404)", "t_relay()"):
        world = scripted(f"def request_route():\n    {'force_rport()' if forced else 'pass'}\n    {answer}\n")
        world.receive(request(via=f"SIP/2.0/UDP {via};branch=z9hG4bKx"), HOME)
        first = world.outbox[0]
        assert first.hop.remote == HOME.with_port(port) and first.response.via.received == HOME.address


def test_force_rport_when_the_transaction_is_there_already() -> None:
    world = scripted("def request_route():\n    end_media_session(); force_rport(); t_relay()\n")
    world.held = []
    world.receive(request("MESSAGE", via="SIP/2.0/UDP 10.0.0.5;branch=z9hG4bKx"), HOME)
    world.answer()
    world.receive(reply(world.take(f"MESSAGE > {B}"), 200), BOB)
    assert world.outbox[-1].hop.remote == HOME


def test_a_sip_asymmetric_phone_is_answered_where_it_listens() -> None:
    world = scripted("def request_route():\n    force_rport(); fix_contact(); t_relay()\n")
    world.proxy.media.heed(AgentList.parse("^Odd"), AgentList())
    world.receive(request(headers=[("User-Agent", "Odd/1")], **PRIVATE), HOME)
    trying, there = world.outbox
    assert trying.hop.remote == HOME.with_port(5060)
    assert str(there.request.contacts[0].uri) == "sip:alice@203.0.113.99:5060"


def test_is_natted() -> None:
    world = scripted(
        "def request_route():\n    log(is_natted())\n    t_relay()\ndef onreply_route():\n    log(is_natted())\n"
    )
    world.directory.behind_nat.add(BOB)
    through(world)
    assert world.said == ["-1", "1"]


def test_what_a_route_sees() -> None:
    world = scripted(
        """
        def seen(msg):
            names = [name for name in dir(msg) if not name.startswith("_") and name not in ("header", "headers")]
            log(" ".join(f"{name}={getattr(msg, name)}" for name in names) + f" {msg!r}")
        def request_route(msg):
            seen(msg); log(msg.headers("X-A")); log(msg.header("X-None") == ""); t_relay()
        def onreply_route(msg): seen(msg)
        def failure_route(msg): seen(msg)
        """
    )
    more: dict[str, Any] = {"from_uri": "sip:alice@example.net", "to_uri": "sip:bob@x.test"}
    world.receive(request(headers=[("User-Agent", "toy"), ("x-a", "1"), ("X-A", "2")], body=SDP, **more), ALICE)
    world.receive(reply(world.take(f"INVITE > {B}"), 486), BOB)
    common = "call_id=call cseq=1 direct=True from_tag=a from_uri=sip:alice@example.net"
    said = world.said
    assert said[0] == (
        f"{common} has_body=True has_sdp=True method=INVITE proto=udp reason= ruri=sip:bob@example.com"
        f" ruri_host=example.com ruri_user=bob src_ip={A} src_port=5060 status=0 to_tag= to_uri=sip:bob@x.test"
        " user_agent=toy <INVITE of call call>"
    )
    assert said[1:3] == ["('1', '2')", "True"]
    assert said[3].startswith(f"{common} has_body=False has_sdp=False method=INVITE proto=udp reason=Busy Here ruri= ")
    assert f"src_ip={B}" in said[3] and "status=486 to_tag=b " in said[3]
    assert "ruri=sip:bob@example.com" in said[4] and f"src_ip={A} " in said[4] and "status=486 to_tag= " in said[4]


@pytest.mark.parametrize(
    ("vias", "trusted", "direct"),
    [(1, False, True), (2, False, False), (1, True, False)],
    ids=["phone", "two Vias", "trusted proxy"],
)
def test_direct(vias: int, trusted: bool, direct: bool) -> None:
    proxies = (A,) if trusted else ()
    settings = EdgeSettings(listeners=LISTENERS, domains=("example.com",), open=True, trusted_proxies=proxies)
    world = scripted("def request_route(msg):\n    log(msg.direct)\n    drop()\n", settings)
    second = ", SIP/2.0/UDP 10.0.0.5;branch=z9hG4bKy" if vias == 2 else ""
    world.receive(request(via=f"SIP/2.0/UDP {ALICE};branch=z9hG4bKx{second}"), ALICE)
    assert world.said == [str(direct)]


# -- answers


def test_an_answer_without_state_is_given_to_each_copy() -> None:
    world = scripted("def request_route(msg):\n    log(sl_send_reply(486, 'Not Now'))\n    log(sl_send_reply(404))\n")
    invite = call(world)
    answer = world.take(f"486 > {A}").response
    assert (answer.reason, bool(answer.to.tag)) == ("Not Now", True) and world.said == ["1", "-1"]
    assert world.proxy.transactions.served == 0
    world.receive(invite, ALICE)
    assert world.sent() == [f"486 > {A}"]


def test_a_provisional_answer_is_not_the_end() -> None:
    world = scripted("def request_route():\n    sl_send_reply('181', 'Call Is Being Forwarded')\n    t_relay()\n")
    call(world)
    assert world.sent() == [f"181 > {A}", f"100 > {A}", f"INVITE > {B}"]


def test_a_refusal_after_waiting_is_repeated_until_the_ack() -> None:
    world = scripted("def request_route():\n    use_media_proxy()\n    sl_send_reply(480)\n")
    call(world)
    world.advance(100)
    assert world.sent() == [f"100 > {A}"] + [f"480 > {A}"] * 11
    assert world.proxy.transactions.served == 0
    assert [str(cause) for cause in causes(world)] == ["failure"]


def test_a_2xx_of_its_own() -> None:
    world = scripted("def request_route(msg):\n    sl_send_reply(202 if msg.method == 'MESSAGE' else 200)\n")
    world.receive(request("MESSAGE"), ALICE)
    assert world.sent() == [f"202 > {A}"]


@pytest.mark.parametrize(
    ("uri", "status"), [("sip:nobody@example.com", 480), ("sip:x@example.com;alias=203.0.113.1~5060~1", 480)]
)
def test_sl_reply_error_says_why(uri: str, status: int) -> None:
    for source in ("lookup()", "use_media_proxy()", "t_relay()"):
        world = scripted(f"def request_route():\n    log({source})\n    log(sl_reply_error())\n    log(t_relay())\n")
        call(world, uri=uri)
        assert world.sent() == [f"{status} > {A}"]
        assert world.said == ["-2" if source == "lookup()" else "-1", "1", "-1"]


def test_sl_reply_error_of_the_media_arm_and_of_nothing() -> None:
    world = scripted("def request_route():\n    use_media_proxy(); sl_reply_error()\n")
    world.held = []
    call(world)
    world.answer(MediaReply(error="no ports", status=480))
    answer = world.outbox[-1].response
    assert (answer.status, answer.header("Warning")) == (480, '399 mediaproxy "no ports"')
    world = scripted("def request_route():\n    sl_reply_error()\n")
    call(world)
    assert world.sent() == [f"500 > {A}"]


def test_drop() -> None:
    world = scripted("def request_route(msg):\n    log('a')\n    drop()\n    log('b')\n")
    invite = call(world)
    world.receive(invite, ALICE)
    assert world.said == ["a", "a"] and world.sent() == [] and world.troubles == []
    world = scripted("def request_route(msg):\n    use_media_proxy()\n    drop()\n")
    call(world)
    assert world.sent() == [f"100 > {A}"] and [str(cause) for cause in causes(world)] == ["failure"]
    assert world.proxy.transactions.served == 0


def test_drop_of_a_reply_and_of_a_branch() -> None:
    world = scripted(RELAY_ALL + "def onreply_route(msg):\n    drop()\n")
    call(world)
    there = world.take(f"INVITE > {B}")
    for status in (180, 183, 200):
        world.receive(reply(there, status), BOB)
    assert world.sent() == [f"200 > {A}"], "a final one is not to be dropped"
    world = scripted(RELAY_ALL + "def branch_route(msg):\n    if '.20' in msg.ruri: drop()\n")
    world.bind("bob", BOB, CAROL)
    call(world)
    assert world.sent() == [f"100 > {A}", f"INVITE > {C}"]
    world.bind("bob", BOB)
    call(world, call_id="another")
    assert world.sent() == [f"100 > {A}", f"480 > {A}"]
