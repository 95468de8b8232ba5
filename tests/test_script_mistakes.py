"""What becomes of the mistakes of a script that only show while it runs: its line is told, and the server goes on."""

import itertools

import pytest

from mediaproxy.control import EndCause, EndRequest, MediaRequest
from mediaproxy.edge.script.functions import FUNCTIONS, ROUTES
from mediaproxy.module import RouteType
from tests.vdialog import of_alice
from tests.vproxy import ALICE, BOB, SDP, reply, request
from tests.vscript import ARGUMENTS, call, causes, script, scripted, through

A, B = ALICE.address, BOB.address


# -- wrong calls that only show when they are made


@pytest.mark.parametrize(("function", "where"), list(itertools.product(FUNCTIONS, RouteType)))
def test_a_call_from_the_wrong_route_is_refused_when_it_is_made(function: str, where: RouteType) -> None:
    """By another name, out of a helper: no syntax tree tells."""
    lines = [
        f"f = {function}",
        f"def helper(): return f({ARGUMENTS.get(function, '')})",
        "def request_route(msg):",
        f"    if {where == RouteType.REQUEST}: helper()",
        "    t_relay()",
        *(f"def {where}(msg):\n    log('ran')\n    helper()" for _ in range(where != RouteType.REQUEST)),
    ]
    world = scripted("\n".join(lines))
    call(world)
    for out in [out for out in world.outbox if str(out) == f"INVITE > {B}"]:
        world.receive(reply(out, 486 if where is RouteType.FAILURE else 200), BOB)
    if where in ROUTES[function]:
        assert world.troubles == []
    else:
        allowed = ", ".join(one for one in RouteType if one in ROUTES[function])
        said = f"{function}() cannot be called from {where}, only from {allowed}"
        assert world.troubles == [f"routing.py:2: {where}: {said}"]


@pytest.mark.parametrize(
    ("made", "said"),
    [
        ("client_nat_test(chr(120))", "client_nat_test('x'): expected a sum"),
        ("nat_uac_test(int('-1'))", "nat_uac_test(-1): expected a sum"),
        ("nat_test(msg.method)", "nat_test('INVITE'): expected one of"),
        ("ice_candidate(msg.method)", "ice_candidate('INVITE'): expected one of"),
        ("setflag(int('99'))", "setflag(99): expected a flag from 0 to 31"),
        ("sl_send_reply(msg.method)", "sl_send_reply('INVITE'): expected a status"),
        ("append_hf(msg.method)", "append_hf('INVITE'): expected one header"),
        (r"append_hf('X: a\r' + '\nVia: b')", r"append_hf('X: a\r\nVia: b'): expected one header"),
        ("remove_hf(str('Via'))", "remove_hf('Via'): Via is the server's business"),
        ("save(msg.method)", "save('INVITE'): the only table"),
        ("(fix_contact)(*[1])", "TypeError: fix_contact() takes 0 positional arguments but 1 was given"),
    ],
)
def test_a_wrong_argument_is_refused_when_it_is_given(made: str, said: str) -> None:
    world = scripted(f"def request_route(msg):\n    {made}\n    t_relay()\n")
    call(world)
    (trouble,) = world.troubles
    assert trouble.startswith(f"routing.py:2: request_route: {said}")
    assert world.sent() == [f"500 > {A}"]


# -- mistakes


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("raise SystemExit", "SystemExit"),
        ("exit(3)", "SystemExit: 3"),
        ("raise KeyboardInterrupt('x')", "KeyboardInterrupt: x"),
        ("raise GeneratorExit", "GeneratorExit"),
        ("import asyncio; raise asyncio.CancelledError", "CancelledError"),
        ("raise MemoryError", "MemoryError"),
        ("raise StopIteration(5)", "StopIteration: 5"),
        ("deep(0)", "RecursionError: maximum recursion depth exceeded"),
        ("msg.status = 5", "AttributeError: "),
        ("msg.nothing", "AttributeError: "),
        ("assert msg.status == 999, 'no'", "AssertionError: no"),
        ("raise Odd", "Odd"),
    ],
)
@pytest.mark.parametrize("where", list(RouteType))
def test_whatever_a_script_raises_the_server_goes_on(where: RouteType, line: str, said: str) -> None:
    head = "def deep(n): return deep(n + 1)\nclass Odd(BaseException):\n    def __str__(self): raise SystemExit\n"
    source = f"{head}def {where}(msg):\n    {line}\n"
    if where is not RouteType.REQUEST:
        source += "def request_route(msg):\n    t_relay()\n"
    world = scripted(source)
    call(world)
    if where is not RouteType.REQUEST:
        world.receive(reply(world.take(f"INVITE > {B}"), 486), BOB)
    (trouble,) = world.troubles
    place = "routing.py:1" if line == "deep(0)" else "routing.py:5"
    assert trouble.startswith(f"{place}: {where}: {said}")
    assert world.sent()[-1] == f"{500 if where is RouteType.REQUEST else 486} > {A}"
    world.proxy.script.script = script("def request_route():\n    t_relay()\n")
    world.receive(request("MESSAGE"), ALICE)
    assert world.sent() == [f"MESSAGE > {B}"], "and the next message is served"


def test_after_a_mistake_a_reply_goes_on_as_it_came() -> None:
    source = """
        def request_route(msg): t_relay()
        def onreply_route(msg):
            append_hf("X-Half: done")
            1 / 0
    """
    back = through(scripted(source))
    assert back.header("X-Half") is None and back.body == SDP


def test_after_a_mistake_a_branch_goes_on_as_it_was() -> None:
    source = """
        def request_route(msg): t_relay()
        def branch_route(msg):
            append_hf("X-Half: done")
            1 / 0
    """
    world = scripted(source)
    call(world)
    assert world.take(f"INVITE > {B}").request.header("X-Half") is None


def test_after_a_mistake_in_failure_route_the_media_is_ended_all_the_same() -> None:
    source = """
        def request_route(msg):
            use_media_proxy()
            t_relay()
        def failure_route(msg):
            1 / 0
            end_media_session()
    """
    world = scripted(source)
    through(world, 486)
    assert causes(world) == [EndCause.FAILURE]


def test_a_mistake_after_the_request_is_on_its_way_changes_nothing() -> None:
    world = scripted("def request_route(msg):\n    t_relay()\n    1 / 0\n")
    call(world)
    assert world.sent() == [f"100 > {A}", f"INVITE > {B}"] and len(world.troubles) == 1


@pytest.mark.parametrize("method", ["INVITE", "MESSAGE", "BYE", "REGISTER"])
def test_a_request_that_the_script_forgets_is_answered_500(method: str) -> None:
    world = scripted("def request_route(msg):\n    client_nat_test('7')\n")
    uri = "sip:example.com" if method == "REGISTER" else "sip:bob@example.com"
    world.receive(request(method, uri, to_uri="sip:bob@example.com"), ALICE)
    assert world.sent() == [f"500 > {A}"]
    (trouble,) = world.troubles
    assert trouble == f"routing.py: request_route did nothing with a {method}: no t_relay, save, reply or drop"


def test_a_forgotten_ack_is_not_answered() -> None:
    world = scripted("def request_route(msg):\n    if msg.method != 'ACK':\n        record_route(); t_relay()\n")
    world.receive(of_alice("ACK", through(world)), ALICE)
    assert len(world.troubles) == 1 and f"ACK > {B}" not in world.sent()


def test_a_forgotten_invite_frees_what_it_asked_for() -> None:
    world = scripted("def request_route(msg):\n    use_media_proxy()\n")
    call(world)
    assert world.sent() == [f"100 > {A}", f"500 > {A}"]
    assert [type(question) for question in world.questions] == [MediaRequest, EndRequest]
    assert causes(world) == [EndCause.FAILURE]
