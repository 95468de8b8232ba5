"""What happens to a request on its way: judgement, Route and Record-Route, Via, branches, reply hops (RFC 3261 §16)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mediaproxy.edge.domains import Domains
from mediaproxy.edge.hop import Hop, Inbound
from mediaproxy.edge.routing import (
    Marks,
    Routes,
    forwarded,
    judge,
    literal_hop,
    own_uri,
    reply_hop,
    rule_for,
    stray_hop,
    strict,
    with_via,
)
from mediaproxy.edge.settings import EdgeSettings, Listener, RouteRule, Transport
from mediaproxy.endpoint import Endpoint
from mediaproxy.nat import Arrival, note_source
from mediaproxy.sip.header import Uri
from mediaproxy.sip.message import Request, Response, parse, response_to
from tests.vproxy import ALICE, BOB, CAROL, EDGE, SETTINGS, World, binding, reply, request

UDP, TCP, TLS = Transport.UDP, Transport.TCP, Transport.TLS
MARKS = Marks(b"0123456789abcdef")
LAN = Listener(transport=UDP, bind=Endpoint("192.168.1.1", 5060))
WAN = Listener(transport=UDP, bind=Endpoint("10.0.0.2", 5060), advertise=Endpoint("198.51.100.1", 5060))
TCP_WAN = Listener(transport=TCP, bind=Endpoint("10.0.0.2", 5060), advertise=Endpoint("198.51.100.1", 5060))
DOMAINS = Domains(SETTINGS, (LAN, WAN, TCP_WAN))
ROUTES = Routes(MARKS, DOMAINS, (LAN, WAN, TCP_WAN))


# -- RFC 3261 §16.3


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({}, None),
        ({"max_forwards": "0"}, 483),
        ({"max_forwards": "1"}, None),
        ({"uri": "tel:+4930"}, 416),
        ({"headers": [("Proxy-Require", "privacy, sec-agree")]}, 420),
        ({"method": "OPTIONS", "max_forwards": "0"}, None),
        ({"method": "REGISTER", "max_forwards": "0"}, None),
    ],
    ids=["good", "max-forwards", "last-hop", "scheme", "proxy-require", "options-ends-here", "register-ends-here"],
)
def test_judgement(changes: dict[str, str], status: int | None) -> None:
    refusal = judge(request(**changes), MARKS)  # type: ignore[arg-type]  # names of texts only
    assert (refusal.status if refusal else None) == status
    if status == 420:
        assert refusal is not None
        assert refusal.headers == (("Unsupported", "privacy, sec-agree"),)


def test_loop_and_spiral() -> None:
    world = World()
    world.bind("bob", EDGE)
    # The phone of bob is we ourselves: the second time round nothing has changed.
    world.receive(request(), ALICE)
    once = world.take(f"INVITE > {EDGE.address}").request
    world.bind("bob", BOB)
    spiral = once.with_uri("sip:bob@example.com")
    world.receive(spiral, EDGE)
    assert world.sent()[-1] == f"482 > {EDGE.address}", "the same target again is a loop"
    other = once.with_uri("sip:carol@example.com")
    world.bind("carol", BOB)
    world.receive(other, EDGE)
    assert world.sent()[-1] == f"INVITE > {BOB.address}", "another target is a spiral, which is fine"


def test_contacts_that_point_back_to_us_multiply_nothing() -> None:
    """RFC 5393 §3: users whose contacts are each other."""
    world = World()
    users = [f"u{number}" for number in range(6)]
    for user in users:
        there = [binding(user, EDGE, contact=f"sip:{other}@{EDGE};x={n}") for other in users for n in (1, 2)]
        world.bind(user, *there)
    world.receive(request(uri="sip:u0@example.com"), ALICE)
    count = 0
    while world.outbox:
        out = world.outbox.pop(0)
        if out.hop.remote == EDGE:
            count += isinstance(out.message, Request) and out.message.method == "INVITE"
            world.receive(out.message, EDGE)
    assert 10 < count < 1000


# -- marks


def test_branches_are_unique_and_genuine() -> None:
    one, other = MARKS.branch("a", "00"), MARKS.branch("b", "00")
    assert one != other
    via = f"SIP/2.0/UDP 192.0.2.1;branch={one}"
    assert MARKS.loop_of(request(via=via).via) == "00"
    assert Marks(b"another secret..").loop_of(request(via=via).via) is None


@given(st.text(alphabet=st.characters(min_codepoint=33, max_codepoint=126, exclude_characters='",;<>='), min_size=1))
def test_no_branch_of_others_is_taken_for_ours(branch: str) -> None:
    assert MARKS.loop_of(request(via=f"SIP/2.0/UDP 192.0.2.1;branch={branch}").via) is None
    assert MARKS.loop_of(request(via=f"SIP/2.0/UDP 192.0.2.1;branch=z9hG4bKmp{branch}").via) is None


# -- Route


def route(listener: Listener, call_id: str = "call", target: str = f"sip:alice@{ALICE}") -> str:
    return f"<{own_uri(listener)};lr;mp={MARKS.way(call_id, Uri.parse(target) if target else None)}>"


@pytest.mark.parametrize(
    ("routes", "left", "marked", "local"),
    [
        ([], (), False, None),
        ([route(WAN)], (), True, WAN),
        ([route(WAN), route(LAN)], (), True, LAN),
        ([route(WAN), route(TCP_WAN)], (), True, TCP_WAN),
        ([route(WAN), "<sip:p2.test;lr>"], ("<sip:p2.test;lr>",), True, WAN),
        (["<sip:p2.test;lr>", route(WAN)], ("<sip:p2.test;lr>", route(WAN)), False, None),
        ([route(WAN, "other")], (), False, None),
        (["<sip:198.51.100.1;lr>"], (), False, None),
        (["<sip:example.com;lr>"], (), False, None),
        (["<sip:bob@example.com;lr>"], ("<sip:bob@example.com;lr>",), False, None),
        (["<sip:198.51.100.1:5070;lr>"], ("<sip:198.51.100.1:5070;lr>",), False, None),
    ],
    ids=[
        "none",
        "ours",
        "two-sockets",
        "two-transports",
        "and-another",
        "not-ours-first",
        "mark-of-another-call",
        "preloaded",
        "preloaded-by-domain",
        "a-user-of-ours",
        "another-port-of-our-host",
    ],
)
def test_our_routes_are_taken_off(
    routes: list[str], left: tuple[str, ...], marked: bool, local: Listener | None
) -> None:
    bye = request("BYE", f"sip:alice@{ALICE}", to_tag="b", headers=[("Route", value) for value in routes])
    routed = ROUTES.strip(bye)
    assert routed.request.values("Route") == left
    assert (routed.marked, routed.local) == (marked, local)


@pytest.mark.parametrize(
    ("given", "uri", "to_tag", "marked", "leads"),
    [
        ([route(WAN)], f"sip:alice@{ALICE}", "b", True, True),
        ([route(WAN)], f"sip:somebody@{ALICE};transport=tcp", "b", True, True),
        ([route(WAN)], f"sip:alice@{CAROL}", "b", True, False),
        ([route(WAN)], f"sip:alice@{ALICE.with_port(5070)}", "b", True, False),
        ([route(WAN)], f"sip:alice@{ALICE};maddr=203.0.113.99", "b", True, False),
        ([route(WAN), f"<sip:{CAROL};lr>"], f"sip:alice@{ALICE}", "b", True, False),
        ([route(WAN, target="sip:p2.test"), "<sip:P2.test;lr>"], f"sip:alice@{ALICE}", "b", True, True),
        ([route(WAN, target="")], f"sip:alice@{ALICE}", "b", True, False),
        ([route(WAN)], f"sip:alice@{ALICE}", "", False, False),
        ([route(WAN, "other")], f"sip:alice@{ALICE}", "b", False, False),
    ],
    ids=[
        "where-it-led",
        "the-same-phone",
        "elsewhere",
        "another-port",
        "maddr",
        "by-another-proxy",
        "by-the-next-proxy-of-the-dialog",
        "no-way-known",
        "no-dialog",
        "another-dialog",
    ],
)
def test_a_mark_leads_where_the_dialog_led(given: list[str], uri: str, to_tag: str, marked: bool, leads: bool) -> None:
    more = {"to_tag": to_tag} if to_tag else {}
    headers = [("Route", value) for value in given]
    routed = ROUTES.strip(request("BYE", uri, headers=headers, **more))  # type: ignore[arg-type]  # names of texts only
    assert (routed.marked, routed.leads) == (marked, leads)


def test_what_a_strict_router_did_is_undone() -> None:
    ours = route(WAN).strip("<>")
    came = request("BYE", ours, to_tag="b", headers=[("Route", "<sip:p2.test;lr>, <sip:alice@203.0.113.10:5060>")])
    routed = ROUTES.strip(came)
    assert routed.request.uri_text == "sip:alice@203.0.113.10:5060"
    assert routed.request.values("Route") == ("<sip:p2.test;lr>",)
    assert routed.marked


def test_strict_router_ahead_gets_itself_as_target() -> None:
    sent = strict(request("BYE", "sip:alice@203.0.113.10", headers=[("Route", "<sip:old.test>, <sip:p3.test;lr>")]))
    assert sent.uri_text == "sip:old.test"
    assert sent.values("Route") == ("<sip:p3.test;lr>", "<sip:alice@203.0.113.10>")


def test_maddr_of_ours_is_taken_off() -> None:
    assert ROUTES.strip(request("BYE", "sip:bob@x.test;maddr=198.51.100.1")).request.uri_text == "sip:bob@x.test"
    other = "sip:bob@x.test;maddr=203.0.113.1"
    assert ROUTES.strip(request("BYE", other)).request.uri_text == other


# -- Record-Route


@pytest.mark.parametrize(
    ("came_to", "leaves_from", "expected"),
    [
        (WAN, WAN, (WAN,)),
        (WAN, LAN, (LAN, WAN)),
        (WAN, TCP_WAN, (TCP_WAN, WAN)),
        (None, WAN, (WAN,)),
    ],
    ids=["same-socket", "another-socket", "another-transport", "unknown"],
)
def test_record_route(came_to: Listener | None, leaves_from: Listener, expected: tuple[Listener, ...]) -> None:
    there = ROUTES.record(request(headers=[("Record-Route", "<sip:p0.test;lr>")]), came_to, leaves_from)
    ours = [route(one, target="sip:p0.test") for one in expected]
    assert list(there.values("Record-Route")) == [*ours, "<sip:p0.test;lr>"]
    alone = ROUTES.record(request(), came_to, leaves_from)
    assert list(alone.values("Record-Route")) == [route(one) for one in expected]


@pytest.mark.parametrize(
    ("above", "status", "contact", "target"),
    [
        ((), 200, f"<sip:bob@{BOB}>", f"sip:bob@{BOB}"),
        ((), 180, "", ""),
        (("<sip:p2.test;lr>",), 200, f"<sip:bob@{BOB}>", "sip:p2.test"),
        ((), 302, f"<sip:bob@{BOB}>", ""),
    ],
    ids=["contact", "no-contact", "a-proxy-between", "redirection"],
)
def test_responses_say_the_way_to_who_answered(above: tuple[str, ...], status: int, contact: str, target: str) -> None:
    there = ROUTES.record(request(headers=[("Record-Route", "<sip:p0.test;lr>")]), WAN, LAN)
    headers = [("Record-Route", value) for value in (*above, *there.values("Record-Route"))]
    headers += [("Contact", contact)] if contact else []
    back = ROUTES.returned(response_to(there.remove("Record-Route"), status, to_tag="b", headers=headers))
    ours = [route(one, target=target) for one in (LAN, WAN)]
    assert list(back.values("Record-Route")) == [*above, *ours, "<sip:p0.test;lr>"]


def test_record_route_of_sips() -> None:
    tls = Listener(transport=TLS, bind=Endpoint("198.51.100.1", 5061))
    there = ROUTES.record(request(uri="sips:bob@example.com"), tls, tls)
    assert str(there.record_routes[0].uri).startswith("sips:198.51.100.1:5061;lr")


@pytest.mark.parametrize(
    ("method", "to_tag", "recorded"),
    [
        ("INVITE", "", True),
        ("SUBSCRIBE", "", True),
        ("REFER", "", True),
        ("INVITE", "b", False),
        ("MESSAGE", "", False),
        ("OPTIONS", "", False),
    ],
    ids=["invite", "subscribe", "refer", "reinvite", "message", "options"],
)
def test_what_is_record_routed(method: str, to_tag: str, recorded: bool) -> None:
    world = World()
    world.bind("bob", BOB)
    more = {"to_tag": to_tag} if to_tag else {}
    world.receive(request(method, **more), ALICE)  # type: ignore[arg-type]  # names of texts only
    assert bool(world.take(f"{method} > {BOB.address}").request.record_routes) == recorded


# -- the copy


def test_forwarded_copy() -> None:
    there = forwarded(request(), "sip:bob@203.0.113.20", ("<sip:p1.test;lr>", "<sip:p2.test;lr>"))
    assert there.uri_text == "sip:bob@203.0.113.20"
    assert there.max_forwards == 69
    assert there.values("Route") == ("<sip:p1.test;lr>", "<sip:p2.test;lr>")


def test_missing_max_forwards_becomes_70() -> None:
    assert forwarded(request().remove("Max-Forwards"), "", ()).max_forwards == 70


def test_everything_else_stays_as_it_is() -> None:
    text = (
        b"INVITE sip:bob@example.com SIP/2.0\r\nv:  SIP/2.0/UDP 192.0.2.1;branch=z9hG4bKa\r\n"
        b"X-Odd:\t\xff folded\r\n on\r\n"
        b"f: <sip:a@x>;tag=1\r\nt: <sip:b@x>\r\ni: 1\r\nCSeq: 1 INVITE\r\nmax-forwards:  9 \r\nl: 3\r\n\r\nabc"
    )
    came = parse(text)
    assert isinstance(came, Request)
    there = with_via(forwarded(came, "", ()), WAN, "z9hG4bKx")
    expected = text.replace(b"max-forwards:  9", b"max-forwards:  8")
    assert bytes(there) == expected.replace(b"v:  ", b"Via: SIP/2.0/UDP 198.51.100.1:5060;branch=z9hG4bKx\r\nv:  ", 1)


# -- where answers go


@pytest.mark.parametrize(
    ("via", "transport", "expected"),
    [
        ("SIP/2.0/UDP 203.0.113.10:5070;branch=z9hG4bKa", UDP, Hop(UDP, Endpoint("203.0.113.10", 5070), EDGE)),
        ("SIP/2.0/UDP 203.0.113.10;branch=z9hG4bKa", UDP, Hop(UDP, Endpoint("203.0.113.10", 5060), EDGE)),
        ("SIP/2.0/UDP 10.0.0.1:5070;branch=z9hG4bKa", UDP, Hop(UDP, Endpoint("203.0.113.10", 5070), EDGE)),
        ("SIP/2.0/UDP 10.0.0.1:5070;rport;branch=z9hG4bKa", UDP, Hop(UDP, Endpoint("203.0.113.10", 61000), EDGE)),
        ("SIP/2.0/UDP a.test;maddr=192.0.2.1", UDP, Hop(UDP, Endpoint("203.0.113.10", 5060), EDGE)),
        ("SIP/2.0/TCP 203.0.113.10:5070;branch=z9hG4bKa", TCP, Hop(TCP, Endpoint("203.0.113.10", 5070), EDGE, "c1")),
        (
            "SIP/2.0/TCP 10.0.0.1:5070;branch=z9hG4bKa",
            TCP,
            Hop(TCP, Endpoint("203.0.113.10", 61000), EDGE, "c1", connect=False),
        ),
    ],
    ids=["sent-by", "default-port", "received", "rport", "maddr", "tcp", "tcp-nat"],
)
def test_reply_hop(via: str, transport: Transport, expected: Hop) -> None:
    source = Endpoint("203.0.113.10", 61000)
    inbound = Inbound(source, transport, EDGE, "c1" if transport is TCP else "")
    noted = note_source(request(via=via), Arrival(source, transport, EDGE))
    assert reply_hop(noted, inbound) == expected


@pytest.mark.parametrize(
    ("via", "expected"),
    [
        ("SIP/2.0/UDP 203.0.113.10:5070;branch=z9hG4bKa", Hop(UDP, Endpoint("203.0.113.10", 5070), WAN.bind)),
        (
            "SIP/2.0/UDP 10.0.0.1:5070;received=203.0.113.10;rport=61000",
            Hop(UDP, Endpoint("203.0.113.10", 61000), WAN.bind, connect=False),
        ),
        ("SIP/2.0/TCP 203.0.113.10:5070", Hop(TCP, Endpoint("203.0.113.10", 5070))),
        ("SIP/2.0/UDP phone.test;branch=z9hG4bKa", None),
        ("SIP/2.0/SCTP 203.0.113.10;branch=z9hG4bKa", None),
    ],
    ids=["sent-by", "received", "tcp", "name", "sctp"],
)
def test_stray_hop(via: str, expected: Hop | None) -> None:
    stray = response_to(request(via=via), 200)
    assert isinstance(stray, Response)
    assert stray_hop(stray, WAN) == expected


# -- route rules and literals


RULES = (
    RouteRule(to="sip:a", domain="pbx.test"),
    RouteRule(to="sip:b", domain="*.carrier.test", prefix="+"),
    RouteRule(to="sip:c", prefix="00"),
)


@pytest.mark.parametrize(
    ("uri", "to"),
    [
        ("sip:x@PBX.test", "sip:a"),
        ("sip:+49@gw.carrier.test", "sip:b"),
        ("sip:49@gw.carrier.test", None),
        ("sip:+49@carrier.test", None),
        ("sip:0049@anything.test", "sip:c"),
        ("sip:pbx.test", "sip:a"),
    ],
    ids=["domain", "below", "prefix-missing", "not-below", "any-domain", "no-user"],
)
def test_route_rules(uri: str, to: str | None) -> None:
    rule = rule_for(Uri.parse(uri), RULES)
    assert (rule.to if rule else None) == to


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("sip:bob@192.0.2.1", (UDP, Endpoint("192.0.2.1", 5060))),
        ("sip:bob@192.0.2.1:5070;transport=TCP", (TCP, Endpoint("192.0.2.1", 5070))),
        ("sip:bob@192.0.2.1;transport=tls", (TLS, Endpoint("192.0.2.1", 5061))),
        ("sips:bob@[2001:db8::1]", (TLS, Endpoint("2001:db8::1", 5061))),
        ("sip:bob@x.test;maddr=192.0.2.2", (UDP, Endpoint("192.0.2.2", 5060))),
        ("sip:bob@x.test", None),
    ],
    ids=["udp", "tcp", "tls", "sips", "maddr", "name"],
)
def test_literal_hop(uri: str, expected: tuple[Transport, Endpoint] | None) -> None:
    assert literal_hop(Uri.parse(uri)) == expected


# -- TCP phones behind NAT (calls.md 18)


def tcp_world() -> tuple[World, Endpoint]:
    world = World()
    phone = Endpoint("203.0.113.20", 61000)
    world.network.connections["c9"] = (TCP, phone)
    world.bind("bob", binding("bob", phone, transport="tcp", connection="c9", nat=True, local=EDGE))
    return world, phone


def test_tcp_phone_is_reached_over_its_connection() -> None:
    world, phone = tcp_world()
    world.receive(request(), ALICE)
    there = world.take(f"INVITE > {phone.address}")
    assert (there.hop.connection, there.hop.connect) == ("c9", False)
    assert there.request.via.transport == "TCP"
    assert len(there.request.record_routes) == 2
    world.receive(reply(there, 200).replace("Contact", "<sip:bob@10.0.0.9:5060;transport=tcp>"), phone, TCP)
    ok = world.take(f"200 > {ALICE.address}").response
    assert str(ok.contacts[0].uri) == f"sip:bob@{phone};transport=tcp;mp=nat"
    routes = [("Route", str(value)) for value in reversed(ok.record_routes)]
    bye = request("BYE", str(ok.contacts[0].uri), headers=routes, to_tag="b", cseq="2")
    world.receive(bye, ALICE)
    there = world.take(f"BYE > {phone.address}")
    assert there.hop.connection == "c9"
    assert there.request.uri_text == f"sip:bob@{phone};transport=tcp", "our mark was for us"


def test_tcp_phone_without_its_connection_is_answered_480_at_once() -> None:
    world, phone = tcp_world()
    del world.network.connections["c9"]
    world.receive(request(), ALICE)
    assert world.sent() == [f"100 > {ALICE.address}", f"480 > {ALICE.address}"]


def test_nobody_connects_to_a_natted_contact_in_a_dialog() -> None:
    world, phone = tcp_world()
    world.receive(request(), ALICE)
    there = world.take(f"INVITE > {phone.address}")
    world.receive(reply(there, 200).replace("Contact", "<sip:bob@10.0.0.9:5060;transport=tcp>"), phone, TCP)
    ok = world.take(f"200 > {ALICE.address}").response
    world.network.connections.clear()
    routes = [("Route", str(value)) for value in reversed(ok.record_routes)]
    world.receive(request("BYE", str(ok.contacts[0].uri), headers=routes, to_tag="b", cseq="2"), ALICE)
    assert world.sent() == [f"480 > {ALICE.address}"]


@pytest.mark.parametrize(("transport", "expected"), [("udp", "480"), ("tls", "INVITE")], ids=["udp", "tls"])
def test_sips_goes_over_tls_or_nowhere(transport: str, expected: str) -> None:
    world = World()
    phone = Endpoint("203.0.113.20", 61000)
    world.network.connections["c9"] = (TLS, phone)
    world.bind("bob", binding("bob", phone, transport=transport, connection="c9", local=EDGE.with_port(5061)))
    world.receive(request(uri="sips:bob@example.com"), ALICE)
    assert world.sent()[-1].split()[0] == expected


# -- the server itself


@pytest.mark.parametrize(
    ("method", "uri", "headers", "expected"),
    [
        ("OPTIONS", "sip:example.com", [], "200"),
        ("OPTIONS", f"sip:{EDGE}", [], "200"),
        ("NOTIFY", "sip:example.com", [("Event", "keep-alive")], "200"),
        ("INVITE", "sip:example.com", [], "404"),
        ("OPTIONS", "sip:bob@example.com", [], "OPTIONS"),
        ("OPTIONS", "sip:example.com", [("Require", "path, 100rel")], "420"),
        ("OPTIONS", "sip:bob@example.com", [("Require", "100rel")], "OPTIONS"),
        ("REGISTER", "sip:example.com", [("Route", f"<sip:{BOB};lr>"), ("Max-Forwards", "0")], "483"),
    ],
    ids=[
        "options",
        "options-by-number",
        "keep-alive",
        "invite",
        "options-of-a-user",
        "requires-too-much",
        "requires-it-of-the-user",
        "register-elsewhere-ends-here",
    ],
)
def test_requests_to_the_server(method: str, uri: str, headers: list[tuple[str, str]], expected: str) -> None:
    world = World(EdgeSettings(listeners=SETTINGS.listeners, domains=("example.com",), open=True))
    world.bind("bob", BOB)
    sent = request(method, uri)
    for name, value in headers:
        sent = sent.remove(name).append(name, value)
    world.receive(sent, ALICE)
    assert [said.split()[0] for said in world.sent()] == [expected]
    assert expected.isalpha() or world.proxy.transactions.served == 0, "no state for what costs nothing"
