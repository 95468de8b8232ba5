"""A script that waits, and what happens meanwhile: CANCEL, another copy, another script, the end of the call."""

import gc
import weakref

import pytest
from hypothesis import given, settings

from mediaproxy.control import EndCause, MediaReply, MediaRequest
from mediaproxy.events import EndReason
from mediaproxy.sip.message import Request
from tests.test_edge_garbage import hail, steps
from tests.vdialog import of_alice
from tests.vproxy import ALICE, BOB, CAROL, SDP, World, reply, request
from tests.vscript import call, causes, change, script, scripted, through

A, B, C = ALICE.address, BOB.address, CAROL.address
WAITING = """
    def request_route(msg):
        code = use_media_proxy()
        log(f"{msg.call_id} {code}")
        record_route()
        log(f"{msg.call_id} {t_relay()}")
    def failure_route(msg):
        end_media_session()
"""


@pytest.fixture
def world() -> World:
    world = scripted(WAITING)
    world.held = []
    return world


def cancel(world: World, invite: Request) -> None:
    names = ("Via", "From", "To", "Call-ID")
    fields = [(name, invite.header(name) or "") for name in names]
    world.receive(Request.build("CANCEL", invite.uri_text, [*fields, ("CSeq", "1 CANCEL")]), ALICE)


def test_cancel_while_the_script_waits(world: World) -> None:
    invite = call(world)
    cancel(world, invite)
    assert world.sent() == [f"100 > {A}", f"200 > {A}", f"487 > {A}"]
    assert causes(world) == [EndCause.FAILURE], "what it has asked for is undone"
    world.answer()
    assert world.said == ["call -2", "call 1", "call 1", "call -1"] and world.troubles == [], "of CANCEL and INVITE"
    assert world.sent() == [], "bob never hears of it"
    world.advance(100)
    assert world.proxy.transactions.served == 0


def test_the_cancel_does_not_wait_for_its_own_script() -> None:
    world = scripted("def request_route(msg):\n    if msg.method == 'CANCEL': end_media_session()\n    t_relay()\n")
    invite = call(world)
    world.receive(reply(world.take(f"INVITE > {B}"), 180), BOB)
    world.sent()
    world.held = []
    cancel(world, invite)
    assert world.sent() == [f"200 > {A}", f"CANCEL > {B}"]
    world.answer()
    assert causes(world) == [EndCause.CANCEL] and world.troubles == []


def test_another_copy_while_the_script_waits(world: World) -> None:
    invite = call(world)
    world.receive(invite, ALICE)
    assert world.sent() == [f"100 > {A}", f"100 > {A}"] and len(world.questions) == 1
    world.answer()
    assert world.sent() == [f"INVITE > {B}"]


def test_a_bye_again_while_its_script_waits() -> None:
    world = scripted("def request_route(msg):\n    record_route()\n    end_media_session()\n    t_relay()\n")
    ok = through(world)
    world.sent()
    world.held = []
    bye = of_alice("BYE", ok, cseq="2")
    world.receive(bye, ALICE)
    world.receive(bye, ALICE)
    assert world.sent() == [] and len(world.held) == 1
    world.answer()
    assert world.sent() == [f"BYE > {B}"]


def test_an_operator_ends_the_call_while_the_script_waits(world: World) -> None:
    call(world)
    farewell = world.end(EndReason.ADMIN)
    assert farewell is not None and farewell.cancelled
    assert world.sent() == [f"100 > {A}", f"480 > {A}"]
    world.answer()
    assert world.sent() == [] and causes(world) == [], "the media arm knows"


def test_a_contact_that_is_fixed_after_waiting_counts() -> None:
    """The BYE of an operator goes to the Contact as it was sent."""
    world = scripted("def request_route():\n    use_media_proxy()\n    record_route(); fix_contact()\n    t_relay()\n")
    world.receive(request(body=SDP, contact="<sip:alice@10.0.0.5:5060>"), ALICE)
    world.receive(reply(world.take(f"INVITE > {B}"), 200, body=SDP), BOB)
    world.sent()
    world.end(EndReason.ADMIN)
    assert {out.request.uri_text for out in world.outbox} == {f"sip:alice@{ALICE}", f"sip:bob@{BOB}"}


# -- replies and failures


SLOW = """
    def request_route(msg):
        t_relay()
    def onreply_route(msg):
        if msg.header("X-Slow"):
            end_media_session()
        log(msg.status)
"""


def test_replies_keep_their_order_while_one_waits() -> None:
    world = scripted(SLOW)
    call(world)
    there = world.take(f"INVITE > {B}")
    world.held = []
    world.receive(reply(there, 183, headers=[("X-Slow", "yes")]), BOB)
    for status in (180, 200):
        world.receive(reply(there, status), BOB)
    assert world.sent() == [] and world.said == []
    world.answer()
    assert world.sent() == [f"183 > {A}", f"180 > {A}", f"200 > {A}"] and world.said == ["183", "180", "200"]


def test_thousands_of_replies_that_wait_are_no_trouble() -> None:
    world = scripted(SLOW)
    call(world)
    there = world.take(f"INVITE > {B}")
    world.held = []
    world.receive(reply(there, 183, headers=[("X-Slow", "yes")]), BOB)
    for _ in range(3000):
        world.receive(reply(there, 180), BOB)
    world.answer()
    assert len(world.sent()) == 3001


def test_a_2xx_that_comes_while_failure_route_waits_wins() -> None:
    world = scripted(WAITING)
    world.bind("bob", BOB, CAROL)
    call(world)
    _, bob, carol = world.outbox
    world.sent()
    world.held = []
    world.receive(reply(bob, 486), BOB)
    world.receive(reply(carol, 486, "c"), CAROL)
    assert world.sent() == [f"ACK > {B}", f"ACK > {C}"] and len(world.held) == 1, "the caller waits"
    world.receive(reply(bob, 200, "late", SDP), BOB)
    assert world.sent() == [], "it is no answer to that transaction any more"
    world.answer()
    assert world.sent() == [f"486 > {A}"]


def test_a_cancel_that_comes_while_failure_route_waits() -> None:
    world = scripted(WAITING)
    invite = call(world)
    there = world.take(f"INVITE > {B}")
    world.held = []
    world.receive(reply(there, 486), BOB)
    cancel(world, invite)
    world.answer()
    assert world.sent() == [f"ACK > {B}", f"200 > {A}", f"486 > {A}"] and len(causes(world)) == 1


def test_a_branch_is_cancelled_while_its_route_waits() -> None:
    world = scripted("def request_route(): t_relay()\ndef branch_route(): use_media_proxy()\n")
    world.bind("bob", BOB, CAROL)
    world.held = []
    invite = call(world)
    cancel(world, invite)
    assert world.sent() == [f"100 > {A}", f"200 > {A}", f"487 > {A}"]
    world.answer()
    world.answer()
    assert world.sent() == []
    world.advance(100)
    assert (world.proxy.transactions.served, world.proxy.transactions.sent) == (0, 0)


def test_one_branch_waits_and_the_other_one_answers() -> None:
    source = "def request_route(): t_relay()\ndef branch_route(msg):\n    if '.30' in msg.ruri: use_media_proxy()\n"
    world = scripted(source)
    world.bind("bob", BOB, CAROL)
    world.held = []
    call(world)
    world.receive(reply(world.take(f"INVITE > {B}"), 200), BOB)
    assert world.sent() == [f"200 > {A}"]
    world.answer()
    assert world.sent() == [], "carol need not ring any more"


# -- many, and other scripts


def test_a_hundred_scripts_wait_and_are_answered_in_any_order(world: World) -> None:
    for number in range(100):
        call(world, call_id=f"c{number}", from_tag=f"t{number}")
    assert world.held is not None and len(world.held) == 100 and world.said == []
    assert world.sent() == [f"100 > {A}"] * 100
    order = [*range(99, -1, -2), *range(0, 100, 2)]
    held = list(world.held)
    for number in order:
        ask = held[number]
        assert isinstance(ask.question, MediaRequest) and ask.question.call_id == f"c{number}" and ask.then
        world.perform(ask.then(world.reply_to(ask.question), world.now))
    assert world.said == [f"c{number} 1" for number in order for _ in range(2)]
    assert world.sent() == [f"INVITE > {B}"] * 100


def test_another_script_while_one_waits(world: World) -> None:
    """What runs ends as it began; what begins then is the new one's: not one transaction is lost."""
    call(world, call_id="old")
    change(
        world,
        "def request_route():\n    log('new'); t_relay()\ndef onreply_route(msg):\n    log(f'new {msg.status}')\n",
    )
    call(world, call_id="new", from_tag="n")
    world.answer()
    assert world.said == ["new", "old 1", "old 1"]
    first, second = (out for out in world.outbox if str(out) == f"INVITE > {B}")
    for out in (first, second):
        world.receive(reply(out, 200), BOB)
    assert world.said[3:] == ["new 200", "new 200"], "replies come to the script that is in force"
    assert world.sent()[-2:] == [f"200 > {A}", f"200 > {A}"]


def test_the_old_script_is_forgotten_when_nothing_runs_it_any_more(world: World) -> None:
    old = weakref.ref(world.proxy.script.script.routes[next(iter(world.proxy.script.script.routes))][0])
    call(world)
    world.proxy.script.script = script("def request_route(): t_relay()\n")
    gc.collect()
    assert old() is not None
    world.answer()
    gc.collect()
    assert old() is None


def test_a_script_that_is_never_answered_ends_with_the_server() -> None:
    """It sees that it is ended, and cannot begin anything then."""
    world = scripted(
        """
        import greenlet
        LOG = []
        def request_route(msg):
            try:
                use_media_proxy()
            except greenlet.GreenletExit:
                LOG.append("ended")
                raise
            finally:
                LOG.append("finally")
        """
    )
    function, _ = next(iter(world.proxy.script.script.routes.values()))
    log = function.__globals__["LOG"]
    world.held = []
    call(world)
    world.held.clear()
    assert log == ["ended", "finally"]


def test_a_media_arm_that_says_nonsense(world: World) -> None:
    call(world)
    world.answer(MediaReply(ports=()))
    assert world.said == ["call -1", "call 1"]
    assert world.take(f"INVITE > {B}").request.body == SDP


EVERYWHERE = """
    def request_route(msg):
        if msg.method == "REGISTER":
            end_media_session(); save(); return
        if msg.method == "SUBSCRIBE":
            use_media_proxy(); drop()
        if msg.method == "OPTIONS":
            end_media_session(); sl_send_reply(404); return
        if msg.method in ("BYE", "CANCEL"):
            end_media_session()
        record_route(); use_media_proxy(); t_relay(); end_media_session()
    def branch_route(msg):
        end_media_session()
        if msg.method == "UPDATE" and ".30" in msg.ruri: drop()
    def onreply_route(msg):
        use_media_proxy()
        if msg.status in (183, 486): end_media_session()
        if msg.status == 183: drop()
        if msg.status == 503: 1 / 0
    def failure_route(msg):
        end_media_session(); end_media_session()
"""


@settings(max_examples=60, deadline=None)
@given(steps)
def test_every_transaction_ends_whatever_waits(moves: list[tuple[str, object, int, bool]]) -> None:
    hail(scripted(EVERYWHERE), moves)
