"""Where a script sends a request, and where it may not: registrations, dialogs, aliases, foreign targets."""

from typing import Any

import pytest

from mediaproxy.edge.hop import Hop
from mediaproxy.edge.settings import EdgeSettings, RouteRule, Transport
from mediaproxy.endpoint import Endpoint
from mediaproxy.sip.digest import Account
from mediaproxy.sip.message import Request
from tests.vdialog import of_alice, of_bob
from tests.vproxy import ALICE, BOB, CAROL, EDGE, LISTENERS, World, binding, reply, request
from tests.vscript import call, change, scripted, through

A, B, C = ALICE.address, BOB.address, CAROL.address
HOME = Endpoint("203.0.113.99", 61000)
STRANGER = Endpoint("198.51.100.66", 5060)
EVIL = Endpoint("192.0.2.66", 5060)
PRIVATE: dict[str, Any] = {
    "via": "SIP/2.0/UDP 10.0.0.5:5060;branch=z9hG4bKnat",
    "contact": "<sip:alice@10.0.0.5:5060>",
}
OPEN: dict[str, Any] = {"listeners": LISTENERS, "domains": ("example.com",), "open": True}
RECORD = "def request_route(msg):\n    record_route()\n    t_relay()\n"
ALIASES = """
    def request_route(msg):
        add_contact_alias()
        if msg.to_tag:
            log(handle_ruri_alias())
        record_route()
        t_relay()
    def onreply_route(msg):
        add_contact_alias()
"""


def register(**more: Any) -> Request:
    fields: dict[str, Any] = {"to_uri": "sip:alice@example.com", **PRIVATE, **more}
    return request("REGISTER", "sip:example.com", **fields)


# -- registrations


def test_what_the_script_makes_of_a_contact_is_registered() -> None:
    world = scripted(
        """
        def request_route(msg):
            fix_contact()
            setflag(NAT_FLAG); setflag(SIP_NATPING_FLAG); setflag(SIPPING_REMOVE_FLAG)
            log(save("location")); log(save()); log(sl_send_reply(500))
        """
    )
    world.receive(register(), HOME)
    (bound,) = world.directory.bindings["sip:alice@example.com"]
    assert (bound.contact, bound.sent) == (f"sip:alice@{HOME}", "<sip:alice@10.0.0.5:5060>")
    assert (bound.nat, bound.sip_ping, bound.remove_lost) == (True, True, True)
    answer = world.outbox[0].response
    assert answer.header("Contact") == "<sip:alice@10.0.0.5:5060>;expires=3600", "phones look for their own"
    assert world.said == ["1", "-1", "-1"] and world.troubles == []


def test_flags_have_the_numbers_of_the_settings() -> None:
    settings = EdgeSettings(**OPEN, nat_flag=9, sip_natping_flag=10, sipping_remove_flag=11)
    source = (
        "def request_route():\n    log((NAT_FLAG, SIP_NATPING_FLAG, SIPPING_REMOVE_FLAG))\n    setflag(9)\n    save()\n"
    )
    world = scripted(source, settings)
    world.receive(register(), HOME)
    assert world.said == ["(9, 10, 11)"]
    assert world.directory.bindings["sip:alice@example.com"][0].nat


def test_without_flag_and_fix_a_contact_is_registered_as_it_is() -> None:
    world = scripted("def request_route():\n    save()\n")
    world.receive(register(), HOME)
    (bound,) = world.directory.bindings["sip:alice@example.com"]
    assert (bound.contact, bound.nat, bound.sip_ping) == ("sip:alice@10.0.0.5:5060", False, False)


def test_a_refused_register_is_answered_once() -> None:
    world = scripted("def request_route():\n    if not save():\n        log('no'); sl_reply_error()\n")
    world.receive(register(contact="<sip:alice@10.0.0.5>;expires=1"), HOME)
    assert world.sent() == [f"423 > {HOME.address}"] and world.said == ["no"]


@pytest.mark.parametrize("method", ["INVITE", "OPTIONS", "MESSAGE"])
def test_only_register_is_saved(method: str) -> None:
    world = scripted("def request_route():\n    log(save())\n    t_relay()\n")
    world.receive(request(method), ALICE)
    assert world.said == ["-1"] and world.sent()[-1] == f"{method} > {B}"


def test_a_contact_over_tcp_is_registered_without_our_mark() -> None:
    world = scripted("def request_route():\n    fix_contact(); save()\n")
    world.network.connections["c1"] = (Transport.TCP, HOME)
    world.receive(register(), HOME, Transport.TCP)
    assert world.directory.bindings["sip:alice@example.com"][0].contact == f"sip:alice@{HOME}"


def test_who_may_register_may_not_send_elsewhere() -> None:
    world = scripted("def request_route():\n    log(t_relay())\n")
    foreign = request("REGISTER", "sip:foreign.test", to_uri="sip:alice@example.com")
    world.receive(foreign, STRANGER)
    assert world.said == ["-1"] and world.sent() == [f"403 > {STRANGER.address}"]


# -- lookup


@pytest.mark.parametrize(
    ("uri", "code"),
    [
        ("sip:bob@example.com", 1),
        ("sip:nobody@example.com", -2),
        ("sip:gone@example.com", -2),
        ("sip:x@foreign.test", -1),
        ("sip:+49@example.com", -1),
    ],
)
def test_lookup(uri: str, code: int) -> None:
    settings = EdgeSettings(**OPEN, routes=(RouteRule(to="sip:gateway.test", prefix="+"),), trusted_proxies=(A,))
    world = scripted("def request_route():\n    log(lookup())\n    drop()\n", settings)
    world.bind("gone", binding("gone", CAROL, transport="tcp"))
    world.receive(request(uri=uri), ALICE)
    assert world.said == [str(code)]


@pytest.mark.parametrize(("user", "code"), [("known", -2), ("nobody", -1)])
def test_lookup_of_users_with_accounts(user: str, code: int) -> None:
    settings = EdgeSettings(
        listeners=LISTENERS, domains=("example.com",), accounts=(Account(username="known", password="x"),)
    )
    world = scripted("def request_route():\n    log(lookup('location'))\n    sl_reply_error()\n", settings)
    world.receive(request(uri=f"sip:{user}@example.com"), ALICE)
    assert world.said == [str(code)] and world.sent() == [f"{480 if code == -2 else 404} > {A}"]


def test_what_was_looked_up_is_kept() -> None:
    world = scripted("def request_route():\n    log(lookup())\n    use_media_proxy()\n    t_relay()\n")
    world.held = []
    call(world)
    world.bind("bob", CAROL)
    world.answer()
    assert world.sent() == [f"100 > {A}", f"INVITE > {B}"]


@pytest.mark.parametrize("source", ["t_relay()", "if not t_relay(): sl_reply_error()", "t_relay(); log('x')"])
def test_a_refused_relay_is_answered_even_if_the_script_does_not(source: str) -> None:
    world = scripted(f"def request_route():\n    {source}\n")
    world.receive(request(uri="sip:nobody@example.com"), ALICE)
    assert world.sent() == [f"480 > {A}"] and world.troubles == []


# -- dialogs


def test_loose_route_is_true_within_dialogs_only() -> None:
    world = scripted("def request_route():\n    log(loose_route())\n    record_route()\n    t_relay()\n")
    world.receive(of_alice("BYE", through(world), cseq="2"), ALICE)
    world.receive(request("MESSAGE", headers=[("Route", f"<sip:{EDGE};lr>")]), ALICE)
    assert world.said == ["-1", "1", "1"], "or with a Route that a phone was told to put in"


def test_without_record_route_the_dialog_goes_past_us() -> None:
    assert not through(scripted("def request_route():\n    t_relay()\n")).record_routes
    assert len(through(scripted(RECORD)).record_routes) == 1


def test_no_script_sends_a_stranger_to_where_he_may_not_go() -> None:
    world = scripted("def request_route():\n    loose_route(); lookup(); log(t_relay())\n")
    for uri, headers in (("sip:x@foreign.test", []), ("sip:bob@example.com", [("Route", f"<sip:{EVIL};lr>")])):
        world.receive(request(uri=uri, headers=headers), STRANGER)
        assert world.sent() == [f"403 > {STRANGER.address}"]
    assert world.said == [], "it does not even come so far"


# -- aliases (nathelper's way of keeping the original Contact)


def aliased(world: World) -> str:
    """A call of a phone behind NAT by aliases; the Contact that bob got."""
    world.receive(request(**PRIVATE), HOME)
    there = world.take(f"INVITE > {B}")
    world.receive(reply(there, 200), BOB)
    world.receive(of_bob("BYE", there, cseq="5"), BOB)
    return there.request.contacts[0].uri.text


def test_a_request_to_an_aliased_contact_goes_through_the_nat() -> None:
    world = scripted(ALIASES)
    contact = aliased(world)
    assert contact == f"sip:alice@10.0.0.5:5060;alias={HOME.address}~{HOME.port}~1"
    bye = world.outbox[-1]
    assert (bye.hop.remote, bye.request.uri_text) == (HOME, "sip:alice@10.0.0.5:5060")
    assert world.said == ["1"] and world.refused == []


def test_an_alias_over_tcp_opens_no_connection() -> None:
    world = scripted(ALIASES)
    world.network.connections["c1"] = (Transport.TCP, HOME)
    world.receive(request(**{**PRIVATE, "via": "SIP/2.0/TCP 10.0.0.5:5060;branch=z9hG4bKx"}), HOME, Transport.TCP)
    there = world.take(f"INVITE > {B}")
    world.receive(reply(there, 200), BOB)
    world.receive(of_bob("BYE", there, cseq="5"), BOB)
    bye = world.outbox[-1]
    assert bye.hop == Hop(Transport.TCP, HOME, EDGE, "c1", connect=False)
    del world.network.connections["c1"]
    world.receive(of_bob("INFO", there, cseq="6"), BOB)
    assert world.sent()[-1] == f"480 > {B}"


def of_stranger(world: World, uri: str = "") -> Request:
    """A BYE of a stranger whom alice has called, to her Contact or another URI."""
    world.bind("bob", binding("bob", STRANGER))
    world.receive(request(**PRIVATE), HOME)
    there = world.take(f"INVITE > {STRANGER.address}")
    world.receive(reply(there, 200), STRANGER)
    world.bind("bob", BOB)
    routes = [("Route", str(route)) for route in there.request.record_routes]
    target = uri or there.request.contacts[0].uri.text
    return request("BYE", target, source=STRANGER, headers=routes, from_tag="b", to_tag="a", cseq="5")


def test_a_dialog_is_a_ticket_to_its_alias() -> None:
    world = scripted(ALIASES)
    world.receive(of_stranger(world), STRANGER)
    assert world.outbox[-1].hop.remote == HOME and world.refused == []


@pytest.mark.parametrize("handled", [True, False])
@pytest.mark.parametrize(
    "uri",
    [
        f"sip:alice@10.0.0.5:5060;alias={EVIL.address}~5060~1",
        f"sip:alice@{EVIL};alias={HOME.address}~{HOME.port}~1",
        f"sip:alice@10.0.0.5:5060;alias;alias={EVIL.address}~5060~1",
        f"sip:alice@10.0.0.5:5060;alias={EVIL.address}~5060~1;alias={HOME.address}~{HOME.port}~1",
        f"sip:alice@{BOB};alias={EVIL.address}~5060~1",
        f"sip:alice@{EVIL};alias={BOB.address}~5060~1",
        f"sip:alice@{EVIL}",
    ],
)
def test_a_dialog_is_no_ticket_to_another_alias(uri: str, handled: bool) -> None:
    """A stranger who was called may send into the dialog, but nowhere else: he wrote the Request-URI himself."""
    world = scripted(ALIASES)
    bye = of_stranger(world, uri)
    if not handled:
        change(world, RECORD)
    world.sent()
    world.receive(bye, STRANGER)
    assert world.sent() == [f"403 > {STRANGER.address}"]


def test_an_alias_in_a_first_request_leads_nowhere() -> None:
    world = scripted("def request_route():\n    log(handle_ruri_alias())\n    log(t_relay())\n")
    world.receive(request(uri=f"sip:bob@example.com;alias={EVIL.address}~5060~1"), STRANGER)
    assert world.said == ["1", "-1"] and world.sent() == [f"403 > {STRANGER.address}"]


def test_a_registered_alias_is_taken_off_in_the_branch() -> None:
    world = scripted(
        """
        def request_route(msg):
            if msg.method == "REGISTER":
                add_contact_alias(); save()
            else:
                t_relay()
        def branch_route(msg):
            log(handle_ruri_alias())
        """
    )
    world.receive(register(), HOME)
    world.sent()
    world.receive(request(uri="sip:alice@example.com", source=BOB), BOB)
    there = world.take(f"INVITE > {HOME.address}")
    assert (there.hop.remote, there.request.uri_text) == (HOME, "sip:alice@10.0.0.5:5060") and world.said == ["1"]


def test_a_strangers_alias_is_not_taken_off_in_the_branch() -> None:
    """Private phones may use the gateway, but not choose where it is."""
    inside = Endpoint("10.1.1.1", 5060)
    settings = EdgeSettings(
        listeners=LISTENERS, domains=("example.com",), open=True, routes=(RouteRule(to=f"sip:{CAROL}"),)
    )
    source = "def request_route():\n    t_relay()\ndef branch_route():\n    log(handle_ruri_alias())\n"
    world = scripted(source, settings)
    world.receive(request(uri=f"sip:1@example.com;alias={EVIL.address}~5060~1", source=inside), inside)
    assert world.sent()[-1] == f"INVITE > {C}" and world.said == ["-1"]
