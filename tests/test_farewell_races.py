"""Hanging up for both phones: forks, races with the phones, calls that still ring, and which calls are known at all."""

import pytest

from mediaproxy.edge.farewell import WHY, Farewell
from mediaproxy.edge.settings import EdgeSettings, Limits
from mediaproxy.events import EndReason
from mediaproxy.sip.message import Request, response_to
from tests.vdialog import BOTH, RANG, answered, invite, of_alice, pass_on
from tests.vproxy import ALICE, BOB, CAROL, LISTENERS, SDP, World, binding, reply, request

A, B, C = ALICE.address, BOB.address, CAROL.address


@pytest.fixture
def world() -> World:
    world = World()
    world.bind("bob", BOB)
    return world


# -- forks


def test_every_dialog_of_a_fork_is_ended() -> None:
    world = World()
    world.bind("bob", BOB, CAROL)
    invite(world)
    _, bob, carol = world.outbox
    world.receive(reply(bob, 200, body=SDP), BOB)
    world.receive(reply(carol, 200, tag="c", body=SDP), CAROL)
    world.sent()
    assert world.end(EndReason.SILENT) == BOTH
    ends = [(str(out.hop.remote.address), out.request.from_.tag, out.request.to.tag) for out in world.outbox]
    assert sorted(ends) == [(A, "b", "a"), (A, "c", "a"), (B, "a", "b"), (C, "a", "c")]


def test_a_leg_that_has_hung_up_is_left_alone() -> None:
    world = World()
    world.bind("bob", BOB, CAROL)
    invite(world)
    _, bob, carol = world.outbox
    world.receive(reply(bob, 200, body=SDP), BOB)
    ok = world.take(f"200 > {A}").response
    world.receive(reply(carol, 200, tag="c", body=SDP), CAROL)
    world.sent()
    pass_on(world, of_alice("BYE", ok, cseq="2"), ALICE, BOB)
    world.end(EndReason.SILENT)
    assert sorted(world.sent()) == [f"BYE > {A}", f"BYE > {C}"]


# -- races with the phones


def test_nothing_follows_a_real_bye(world: World) -> None:
    _, ok = answered(world)
    world.receive(of_alice("BYE", ok, cseq="2"), ALICE)
    world.sent()
    assert world.end(EndReason.ADMIN) == Farewell()
    assert world.sent() == []


def test_a_bye_without_our_mark_ends_nothing(world: World) -> None:
    _, ok = answered(world)
    world.receive(of_alice("BYE", ok, cseq="2").remove("Route"), ALICE)
    assert world.sent() == [f"403 > {A}"]
    assert world.end(EndReason.SILENT) == BOTH


def test_our_bye_crosses_a_real_one(world: World) -> None:
    _, ok = answered(world)
    world.end(EndReason.ADMIN)
    ours = {out.hop.remote: out.request for out in world.outbox}
    world.sent()
    world.receive(of_alice("BYE", ok, cseq="2"), ALICE)
    there = world.take(f"BYE > {B}")
    assert there.request.via.branch != ours[BOB].via.branch
    world.receive(response_to(ours[ALICE], 200), ALICE)
    world.receive(response_to(ours[BOB], 200), BOB)
    assert world.sent() == []
    world.receive(response_to(there.request, 481), BOB)
    assert world.sent() == [f"481 > {A}"]
    world.advance(200)
    assert world.sent() == []
    assert world.remarks == []


def test_a_2xx_that_comes_again_revives_nothing(world: World) -> None:
    there, _ = answered(world)
    world.end(EndReason.ADMIN)
    world.sent()
    world.receive(reply(there, 200, body=SDP), BOB)
    assert world.sent() == [f"200 > {A}"]
    assert world.end(EndReason.ADMIN) == Farewell()


def test_another_call_of_the_same_call_id_goes_on(world: World) -> None:
    answered(world)
    answered(world, from_tag="z")
    world.end(EndReason.SILENT, caller_tag="z")
    assert {out.request.to.tag for out in world.outbox if out.hop.remote == ALICE} == {"z"}
    assert len(world.proxy.dialogs) == 1


def test_a_restarted_server_knows_no_dialog(world: World) -> None:
    _, ok = answered(world)
    later = World()
    later.bind("bob", BOB)
    pass_on(later, of_alice("INFO", ok, cseq="2"), ALICE, BOB)
    assert later.end(EndReason.SILENT) == Farewell()
    assert later.sent() == []


# -- which calls are kept


@pytest.mark.parametrize(
    ("offer", "answer", "media", "kept"),
    [
        (SDP, SDP, True, 1),
        (b"", SDP, True, 1),
        (SDP, b"", True, 1),
        (b"", b"", True, 0),
        (SDP, SDP, False, 0),
    ],
    ids=["offer", "late-offer", "answer-missing", "no-sdp", "no-relay"],
)
def test_calls_whose_media_is_relayed_are_kept(offer: bytes, answer: bytes, media: bool, kept: int) -> None:
    world = World(EdgeSettings(listeners=LISTENERS, domains=("example.com",), open=True, media=media))
    world.bind("bob", BOB)
    world.receive(request(body=offer), ALICE)
    world.receive(reply(world.take(f"INVITE > {B}"), 200, body=answer), BOB)
    assert len(world.proxy.dialogs) == kept


def test_the_number_of_calls_is_bounded() -> None:
    world = World(EdgeSettings(listeners=LISTENERS, domains=("example.com",), open=True, limits=Limits(dialogs=2)))
    world.bind("bob", BOB)
    for call_id in "xyz":
        answered(world, call_id=call_id)
    assert [world.end(EndReason.SILENT, call_id=call_id) for call_id in "xyz"] == [Farewell(), BOTH, BOTH]


# -- calls that still ring


@pytest.mark.parametrize(("reason", "status"), [(EndReason.ADMIN, 480), (EndReason.UNANSWERED, 408)])
def test_a_ringing_call_is_cancelled(world: World, reason: EndReason, status: int) -> None:
    invite(world)
    there = world.take(f"INVITE > {B}")
    world.receive(reply(there, 180), BOB)
    world.sent()
    assert world.end(reason) == RANG
    assert [str(out) for out in world.outbox] == [f"CANCEL > {B}", f"{status} > {A}"]
    assert world.outbox[0].request.via.branch == there.request.via.branch
    assert world.outbox[1].response.header("Warning") == f'399 mediaproxy "{WHY[reason].text}"'
    world.outbox.clear()
    world.receive(reply(there, 487), BOB)
    assert world.sent() == [f"ACK > {B}"]
    assert world.end(reason) == Farewell()


def test_a_call_that_does_not_even_ring_is_cancelled_as_soon_as_it_may(world: World) -> None:
    invite(world)
    there = world.take(f"INVITE > {B}")
    world.end(EndReason.ADMIN)
    assert world.sent() == [f"480 > {A}"]
    world.receive(reply(there, 100), BOB)
    assert world.sent() == [f"CANCEL > {B}"]


def test_contacts_that_were_not_tried_yet_are_not_tried(world: World) -> None:
    world.bind("bob", binding("bob", BOB, q=1.0), binding("bob", CAROL, q=0.5))
    invite(world)
    bob = world.take(f"INVITE > {B}")
    world.end(EndReason.ADMIN)
    world.receive(reply(bob, 486), BOB)
    assert world.sent() == [f"480 > {A}", f"ACK > {B}"]


def test_ended_while_the_media_arm_thinks(world: World) -> None:
    world.held = []
    invite(world)
    world.end(EndReason.ADMIN)
    assert world.sent() == [f"100 > {A}", f"480 > {A}"]
    world.answer()
    assert world.sent() == [], "bob never hears of it"


def test_a_2xx_that_crosses_is_hung_up_at_once(world: World) -> None:
    invite(world)
    there = world.take(f"INVITE > {B}")
    world.receive(reply(there, 180), BOB)
    world.end(EndReason.UNANSWERED)
    world.sent()
    world.receive(reply(there, 200, body=SDP), BOB)
    assert sorted(world.sent()) == [f"200 > {A}", f"BYE > {A}", f"BYE > {B}"]
    world.receive(reply(there, 200, body=SDP), BOB)
    assert world.sent() == [f"200 > {A}"], "once"
    assert len(world.proxy.dialogs) == 0


def test_a_2xx_that_the_media_arm_thinks_about_is_hung_up(world: World) -> None:
    invite(world)
    there = world.take(f"INVITE > {B}")
    world.held = []
    world.receive(reply(there, 200, body=SDP), BOB)
    world.end(EndReason.ADMIN)
    assert world.sent() == [f"480 > {A}"]
    world.answer()
    assert sorted(world.sent()) == [f"200 > {A}", f"BYE > {A}", f"BYE > {B}"]


def test_a_call_that_the_caller_has_cancelled_is_answered_487(world: World) -> None:
    call = invite(world)
    there = world.take(f"INVITE > {B}")
    world.receive(reply(there, 180), BOB)
    fields = [("Via", str(call.via)), ("From", str(call.from_)), ("To", str(call.to)), ("Call-ID", call.call_id)]
    fields += [("CSeq", f"{call.cseq.number} CANCEL"), ("Max-Forwards", "70")]
    world.receive(Request.build("CANCEL", call.uri_text, fields), ALICE)
    world.sent()
    world.end(EndReason.ADMIN)
    assert world.sent() == [f"487 > {A}"]


def test_nothing_is_kept_of_calls_that_failed(world: World) -> None:
    invite(world)
    world.receive(reply(world.take(f"INVITE > {B}"), 486), BOB)
    assert world.proxy.dialogs.ringing("call", "a") == ()
    assert world.end(EndReason.ADMIN) == Farewell()
