"""What docs/script.md says of scripts is so: its examples load and carry calls, its tables are whole."""

import re

import pytest

from mediaproxy.edge.script.functions import CHECKS, FUNCTIONS, ROUTES
from mediaproxy.edge.script.loading import DEFAULT, Script, default_text, flags_of
from mediaproxy.edge.script.msg import Msg
from mediaproxy.edge.settings import EdgeSettings
from mediaproxy.module import RouteType
from tests.test_docs import ROOT
from tests.vdialog import of_alice
from tests.vproxy import ALICE, BOB, LISTENERS, SETTINGS, World, reply, request
from tests.vscript import call, scripted

PAGE = (ROOT / "docs" / "script.md").read_text()
EXAMPLES = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
ROWS = [line for line in PAGE.splitlines() if line.startswith("| `")]
LETTERS = dict(zip("ROFB", RouteType, strict=True))


@pytest.mark.parametrize("text", [*EXAMPLES, default_text()], ids=lambda text: f"{len(text)} characters")
def test_an_example_carries_a_call(text: str) -> None:
    world = scripted(text)
    world.receive(request("REGISTER", "sip:example.com", to_uri="sip:alice@example.com"), ALICE)
    assert world.sent() == [f"200 > {ALICE.address}"]
    call(world)
    there = world.take(f"INVITE > {BOB.address}")
    for status in (180, 200):
        world.receive(reply(there, status), BOB)
    ok = world.outbox[-1].response
    for method in ("ACK", "INVITE", "BYE") if ok.record_routes else ():
        world.receive(of_alice(method, ok, cseq="2"), ALICE)
        world.take(f"{method} > {BOB.address}")
    call(world, call_id="busy")
    world.receive(reply(world.take(f"INVITE > {BOB.address}"), 486), BOB)
    assert world.sent()[-1] == f"486 > {ALICE.address}"
    assert world.troubles == []


def test_every_function_is_described_with_the_routes_it_may_be_called_from() -> None:
    described = {}
    for row in ROWS:
        names, letters, *_ = (cell.strip() for cell in row.strip("|").split("|"))
        if re.fullmatch("R?O?F?B?", letters.replace(" ", "")) and "(" in names:
            for name in re.findall(r"`(\w+)\(", names):
                described[name] = frozenset(LETTERS[letter] for letter in letters.replace(" ", ""))
    assert described == dict(ROUTES)
    assert {name for name, _ in CHECKS} <= set(FUNCTIONS)


def test_every_property_of_the_message_is_described() -> None:
    public = {name for name in dir(Msg) if not name.startswith("_")}
    cells = " ".join(row.split("|")[1] for row in ROWS)
    assert public <= set(re.findall(r"`(\w+)(?:\(name\))?`", cells))


def test_the_flags_are_described_with_their_defaults() -> None:
    for name, number in flags_of(EdgeSettings()).items():
        assert re.search(rf"\| `{name}` \| `edge\.\w+` \| {number} \|", PAGE), name


def test_the_page_says_what_the_server_protects() -> None:
    from mediaproxy.edge.script.arguments import PROTECTED

    (listed,) = re.findall(r"itself depends on \(([^)]*)\)", PAGE)
    names = {name.strip().lower() for name in listed.replace("\n", " ").split(",")}
    assert names == PROTECTED - {"max-breadth"}


def test_the_default_script_has_a_name_and_every_route_it_needs() -> None:
    routes = Script.default(SETTINGS).routes
    assert set(routes) == {RouteType.REQUEST, RouteType.ONREPLY, RouteType.FAILURE}
    world = World(EdgeSettings(listeners=LISTENERS, domains=("example.com",), open=True))
    assert world.proxy.script.script.name == DEFAULT
