"""Hanging up for both phones in virtual time: what each of them gets, which way, and every race with them."""

import pytest

from mediaproxy.control import EndRequest
from mediaproxy.edge.farewell import WHY, Farewell, together
from mediaproxy.edge.hop import Hop
from mediaproxy.edge.settings import EdgeSettings, Listener, Transport
from mediaproxy.endpoint import Endpoint
from mediaproxy.events import EndReason
from mediaproxy.sip.message import response_to
from tests.vdialog import BOTH, RANG, answered, byes, invite, of_alice, of_bob, pass_on
from tests.vproxy import (
    ALICE,
    BOB,
    CAROL,
    EDGE,
    LISTENERS,
    SDP,
    SETTINGS,
    FakeNetwork,
    Out,
    World,
    binding,
    reply,
    request,
)

A, B, C = ALICE.address, BOB.address, CAROL.address
NAT = Endpoint("203.0.113.99", 61000)
BY_THEMSELVES = sorted(set(EndReason) - set(WHY))


@pytest.fixture
def world() -> World:
    world = World()
    world.bind("bob", BOB)
    return world


# -- the plain way


@pytest.mark.parametrize("reason", WHY, ids=str)
def test_both_phones_get_a_bye_as_if_from_the_other(world: World, reason: EndReason) -> None:
    there, ok = answered(world, cseq="7")
    assert world.end(reason) == BOTH
    assert [(out.hop.remote, out.hop.local) for out in world.outbox] == [(ALICE, EDGE), (BOB, EDGE)]
    said = byes(world)
    to_alice, to_bob = said[A], said[B]
    assert (to_bob.uri_text, to_alice.uri_text) == (f"sip:bob@{BOB}", f"sip:alice@{ALICE}")
    assert (str(to_bob.from_), str(to_bob.to)) == (str(there.request.from_), str(ok.to))
    assert (str(to_alice.from_), str(to_alice.to)) == (str(ok.to), str(ok.from_))
    assert (to_bob.cseq.number, to_alice.cseq.number) == (8, 1)
    for bye in (to_alice, to_bob):
        assert bye.call_id == "call"
        assert bye.max_forwards == 70
        assert not bye.routes
        assert [str(via.sent_by) for via in bye.vias] == [str(EDGE)]
        assert bye.header("Reason") == f'Q.850;cause={WHY[reason].cause};text="{WHY[reason].text}"'
        assert bye.user_agent == "mediaproxy"
    assert to_alice.via.branch != to_bob.via.branch


@pytest.mark.parametrize("reason", BY_THEMSELVES, ids=str)
def test_nothing_is_sent_when_the_phones_know(world: World, reason: EndReason) -> None:
    answered(world)
    assert world.end(reason) is None
    assert world.end(EndReason.ADMIN) == Farewell(), "and the dialog is forgotten"
    assert world.sent() == []


def test_bye_is_repeated_until_it_is_answered(world: World) -> None:
    answered(world)
    world.end(EndReason.SILENT)
    first = {out.hop.remote: out for out in world.outbox}
    world.receive(response_to(first[BOB].request, 200), BOB)
    world.outbox.clear()
    world.advance(1.6)
    assert world.sent() == [f"BYE > {A}"] * 2
    world.receive(response_to(first[ALICE].request, 481), ALICE)
    assert world.sent() == [], "answers are swallowed"
    world.advance(200)
    assert world.sent() == []
    assert world.remarks == []
    assert (world.proxy.transactions.sent, world.proxy.deadline, len(world.proxy.dialogs)) == (0, None, 0)
    assert not [q for q in world.questions if isinstance(q, EndRequest)]


def test_phones_that_are_gone_are_given_up(world: World) -> None:
    answered(world)
    world.end(EndReason.SILENT)
    world.advance(200)
    assert world.sent().count(f"BYE > {A}") == 11
    silent = "was to hang up, but does not answer"
    assert world.remarks == [f"sip:alice@elsewhere.test {silent}", f"sip:bob@example.com {silent}"]
    assert (world.proxy.transactions.sent, world.proxy.deadline) == (0, None)


@pytest.mark.parametrize(("status", "said"), [(408, False), (481, False), (487, False), (403, True), (500, True)])
def test_answers_to_our_bye(world: World, status: int, said: bool) -> None:
    answered(world)
    world.end(EndReason.ADMIN)
    world.receive(response_to(world.take(f"BYE > {A}").request, status), ALICE)
    world.receive(response_to(world.take(f"BYE > {B}").request, 200), BOB)
    assert world.sent() == []
    told = [f"sip:alice@elsewhere.test was to hang up, but answered {status}"]
    assert world.remarks == (told if said else [])


def test_unreachable_phone_is_said_at_once(world: World) -> None:
    answered(world)
    world.unreachable.add(BOB)
    done = world.end(EndReason.ADMIN)
    assert done == Farewell(told=BOTH.told[:1], unreachable=BOTH.told[1:])
    assert world.remarks == ["sip:bob@example.com was to hang up, but cannot be reached"]
    assert world.sent() == [f"BYE > {A}"]


# -- CSeq


def test_cseq_goes_on_behind_what_each_side_has_sent(world: World) -> None:
    there, ok = answered(world)
    pass_on(world, of_alice("INFO", ok, cseq="5"), ALICE, BOB)
    pass_on(world, of_alice("OPTIONS", ok, cseq="4"), ALICE, BOB)
    pass_on(world, of_bob("INFO", there, cseq="100"), BOB, ALICE)
    world.end(EndReason.SILENT)
    said = byes(world)
    assert (said[B].cseq.number, said[A].cseq.number) == (6, 101)


def test_prack_before_the_answer_counts(world: World) -> None:
    invite(world)
    there = world.take(f"INVITE > {B}")
    world.receive(reply(there, 183, headers=[("RSeq", "1")]), BOB)
    ringing = world.take(f"183 > {A}").response
    pass_on(world, of_alice("PRACK", ringing, cseq="2"), ALICE, BOB)
    world.receive(reply(there, 200, body=SDP), BOB)
    world.sent()
    world.end(EndReason.ADMIN)
    assert byes(world)[B].cseq.number == 3


# -- targets


@pytest.mark.parametrize(("status", "port"), [(200, 7777), (488, 5060)])
@pytest.mark.parametrize("method", ["INVITE", "UPDATE"])
def test_targets_follow_accepted_refreshes(world: World, method: str, status: int, port: int) -> None:
    _, ok = answered(world)
    world.receive(of_alice(method, ok, cseq="2", contact=f"<sip:alice@{ALICE.with_port(7777)}>"), ALICE)
    there = world.take(f"{method} > {B}")
    moved = [("Contact", f"<sip:bob@{BOB.with_port(7777)}>")]
    world.receive(response_to(there.request, status, headers=moved), BOB)
    world.sent()
    world.end(EndReason.HOLD_EXPIRED)
    assert sorted(str(out.hop.remote) for out in world.outbox) == [f"{A}:{port}", f"{B}:{port}"]


def test_udp_phones_behind_nat_are_reached_where_they_are() -> None:
    outside = Listener(transport=Transport.UDP, bind=Endpoint("198.51.100.2", 5060))
    listeners = (*LISTENERS, outside)
    world = World(EdgeSettings(listeners=listeners, domains=("example.com",), open=True), FakeNetwork(listeners))
    world.bind("bob", binding("bob", NAT, contact="sip:bob@10.0.0.9", nat=True, local=outside.bind))
    world.directory.behind_nat.add(NAT)
    world.receive(request(body=SDP, contact="<sip:alice@10.0.0.5:5060>"), ALICE)
    there = world.take(f"INVITE > {NAT.address}")
    world.receive(response_to(there.request, 200, to_tag="b", headers=[("Contact", "<sip:bob@10.0.0.9>")]), NAT)
    world.sent()
    world.end(EndReason.SILENT)
    ways = {out.request.uri_text: (out.hop.remote, out.hop.local) for out in world.outbox}
    assert ways == {f"sip:alice@{ALICE}": (ALICE, EDGE), f"sip:bob@{NAT}": (NAT, outside.bind)}
    assert {str(out.request.via.sent_by) for out in world.outbox} == {str(EDGE), str(outside.bind)}


@pytest.mark.parametrize("alive", [True, False], ids=["connected", "gone"])
def test_tcp_phone_behind_nat_is_reached_over_its_connection_only(alive: bool) -> None:
    network = FakeNetwork()
    network.connections["c1"] = (Transport.TCP, NAT)
    world = World(network=network)
    world.bind("bob", binding("bob", NAT, contact=f"sip:bob@{NAT};transport=tcp", transport="tcp", connection="c1"))
    world.directory.behind_nat.add(NAT)
    world.receive(request(body=SDP), ALICE)
    there = world.take(f"INVITE > {NAT.address}")
    said = [("Contact", "<sip:bob@10.0.0.9;transport=tcp>")]
    world.receive(response_to(there.request, 200, to_tag="b", headers=said), NAT, Transport.TCP)
    world.sent()
    if not alive:
        network.connections.clear()
    done = world.end(EndReason.ADMIN)
    ways = {out.hop.remote: out for out in world.outbox}
    if alive:
        assert (ways[NAT].hop.connection, ways[NAT].hop.connect) == ("c1", False)
        assert ways[NAT].request.uri_text == f"sip:bob@{NAT};transport=tcp"
        assert done == BOTH
    else:
        assert set(ways) == {ALICE}
        assert done == Farewell(told=BOTH.told[:1], unreachable=BOTH.told[1:])
        assert world.remarks == ["sip:bob@example.com was to hang up, but cannot be reached"]


def test_contact_with_a_name_is_resolved(world: World) -> None:
    world.names["phone.test"] = (Hop(Transport.UDP, CAROL),)
    invite(world)
    there = world.take(f"INVITE > {B}")
    contact = [("Contact", "<sip:bob@phone.test?Subject=x>")]
    world.receive(response_to(there.request, 200, to_tag="b", headers=contact), BOB)
    world.sent()
    world.end(EndReason.ADMIN)
    assert byes(world)[C].uri_text == "sip:bob@phone.test"


def test_contact_in_an_own_domain_is_looked_up(world: World) -> None:
    invite(world)
    there = world.take(f"INVITE > {B}")
    contact = [("Contact", "<sip:bob@example.com>")]
    world.receive(response_to(there.request, 200, to_tag="b", headers=contact), BOB)
    world.sent()
    world.end(EndReason.ADMIN)
    assert byes(world)[B].uri_text == f"sip:bob@{BOB}"


@pytest.mark.parametrize(
    "contact", ["", "<tel:+4930123>", "<sip:nobody@example.com>", "<sip:bob@203.0.113.20:0>", "<sip:bob@nowhere.test>"]
)
def test_contact_that_leads_nowhere(world: World, contact: str) -> None:
    invite(world)
    there = world.take(f"INVITE > {B}")
    headers = [("Contact", contact)] if contact else []
    world.receive(response_to(there.request, 200, to_tag="b", headers=headers), BOB)
    world.sent()
    done = world.end(EndReason.ADMIN)
    assert done == Farewell(told=BOTH.told[:1], unreachable=BOTH.told[1:])
    assert world.sent() == [f"BYE > {A}"]
    assert len(world.remarks) == 1


# -- other proxies on the way

UP, DOWN = Endpoint("203.0.113.40", 5060), Endpoint("203.0.113.50", 5060)


def between_proxies(world: World, loose: bool = True) -> None:
    """A call that comes from another proxy and goes to another one; each has set a Record-Route."""
    lr = ";lr" if loose else ""
    came = request(body=SDP, headers=[("Record-Route", f"<sip:{UP}{lr}>, <sip:far.test;lr>")])
    world.receive(came.prepend("Via", f"SIP/2.0/UDP {UP};branch=z9hG4bKup{lr}"), UP)
    there = world.take(f"INVITE > {B}")
    got = there.request.prepend("Record-Route", f"<sip:{DOWN}{lr}>")
    world.receive(reply(Out(there.hop, got, there.failed), 200), BOB)
    world.sent()


def test_route_sets_behind_us_are_followed(world: World) -> None:
    between_proxies(world)
    world.end(EndReason.SILENT)
    said = byes(world)
    assert [str(route) for route in said[UP.address].routes] == [f"<sip:{UP};lr>", "<sip:far.test;lr>"]
    assert said[UP.address].uri_text == f"sip:alice@{ALICE}"
    assert [str(route) for route in said[DOWN.address].routes] == [f"<sip:{DOWN};lr>"]
    assert said[DOWN.address].uri_text == f"sip:bob@{BOB}"


def test_strict_routers_get_what_they_want(world: World) -> None:
    between_proxies(world, loose=False)
    world.end(EndReason.SILENT)
    said = byes(world)
    assert said[UP.address].uri_text == f"sip:{UP}"
    assert [str(r) for r in said[UP.address].routes] == ["<sip:far.test;lr>", f"<sip:alice@{ALICE}>"]
    assert [str(r) for r in said[DOWN.address].routes] == [f"<sip:bob@{BOB}>"]


def test_call_that_passes_twice_is_ended_once(world: World) -> None:
    """Alice, we, a foreign proxy, we again, bob."""
    world.names["foreign.test"] = (Hop(Transport.UDP, CAROL),)
    trusting = EdgeSettings(listeners=LISTENERS, domains=("example.com",), open=True, trusted_proxies=(A, C))
    world = World(trusting)
    world.names["foreign.test"] = (Hop(Transport.UDP, CAROL),)
    world.bind("bob", BOB)
    world.receive(request(uri="sip:bob@foreign.test", body=SDP), ALICE)
    out = world.take(f"INVITE > {C}")
    via = f"SIP/2.0/UDP {CAROL};branch=z9hG4bKforeign"
    back = out.request.with_uri("sip:bob@example.com").prepend("Via", via)
    back = back.prepend("Record-Route", f"<sip:{CAROL};lr>")
    world.receive(back, CAROL)
    there = world.take(f"INVITE > {B}")
    world.receive(reply(there, 200, body=SDP), BOB)
    inner = world.take(f"200 > {C}").response
    world.receive(inner.remove_value("Via", 0), CAROL)
    world.take(f"200 > {A}")
    assert world.end(EndReason.ADMIN) == Farewell(told=("sip:alice@elsewhere.test", "sip:bob@foreign.test"))
    said = byes(world)
    assert set(said) == {A, B}
    assert not said[A].routes
    assert not said[B].routes


# -- what people read


@pytest.mark.parametrize(
    ("done", "text"),
    [
        (Farewell(), "the phones are not known and have not hung up"),
        (BOTH, "BYE sent to sip:alice@elsewhere.test and sip:bob@example.com"),
        (Farewell(told=("sip:a@x",), unreachable=("sip:b@x",)), "BYE sent to sip:a@x, no way to sip:b@x"),
        (RANG, "call of sip:alice@elsewhere.test cancelled while it rang"),
    ],
    ids=["unknown", "both", "one", "rang"],
)
def test_words(done: Farewell, text: str) -> None:
    assert str(done) == text


def test_several_calls_are_one_answer() -> None:
    assert together([]) == Farewell()
    assert together([BOTH, RANG, BOTH]) == Farewell(told=BOTH.told, cancelled=RANG.cancelled)


def test_no_user_agent_where_none_is_wanted() -> None:
    world = World(EdgeSettings(listeners=LISTENERS, domains=SETTINGS.domains, open=True, user_agent=""))
    world.bind("bob", BOB)
    answered(world)
    world.end(EndReason.ADMIN)
    assert {out.request.user_agent for out in world.outbox} == {""}
