"""What is wrong with a routing script is told when it is loaded, with its line: nothing of it runs."""

import itertools
import textwrap

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mediaproxy.edge.script.functions import FUNCTIONS, ROUTES
from mediaproxy.edge.script.loading import Script, ScriptError
from mediaproxy.module import CALLABLE_FROM, RouteType
from tests.vproxy import SETTINGS
from tests.vscript import ARGUMENTS, NAME, script, wrong

REQUEST = "def request_route(msg):\n    t_relay()\n"


def route(name: str, *body: str) -> str:
    """A script whose route of that name begins in line 3, its body in line 4; there is a request_route in any case."""
    if name == "request_route":
        return "X = 1\nY = 2\ndef request_route(msg):\n" + textwrap.indent("\n".join(body), "    ") + "\n"
    return REQUEST + f"def {name}(msg):\n" + textwrap.indent("\n".join(body), "    ") + "\n"


def test_the_originals_functions_may_be_called_from_where_its_page_says() -> None:
    everywhere = set(RouteType)
    assert ROUTES["client_nat_test"] == ROUTES["use_media_proxy"] == ROUTES["end_media_session"] == everywhere
    assert ROUTES["fix_contact"] == everywhere - {RouteType.FAILURE}
    assert {name: ROUTES[name] for name in CALLABLE_FROM} == dict(CALLABLE_FROM)


@pytest.mark.parametrize(("function", "where"), list(itertools.product(FUNCTIONS, RouteType)))
def test_a_direct_call_from_the_wrong_route_is_refused(function: str, where: RouteType) -> None:
    """The route must stand where the script is read: a call that is never made counts, too."""
    source = route(where, "if msg.method == 'NEVER':", f"    {function}({ARGUMENTS.get(function, '')})")
    found = wrong(source)
    if where in ROUTES[function]:
        assert found == []
    else:
        allowed = ", ".join(one for one in RouteType if one in ROUTES[function])
        assert found == [f"5: {function}() cannot be called from {where}, only from {allowed}"]


@pytest.mark.parametrize(
    "body",
    [
        "x = [fix_contact() for _ in ()]",
        "x = lambda: fix_contact()",
        "while fix_contact(): pass",
        "def inner(): fix_contact()",
        "return fix_contact()",
        "print(f'{fix_contact()}')",
        "try: pass\nfinally: fix_contact()",
        "x = msg.status and (y := fix_contact())",
        "match fix_contact():\n    case 1: pass",
        "with open('x') as f: fix_contact()",
        "assert fix_contact() == fix_contact()",
        "class Inner:\n    x = fix_contact()",
    ],
)
def test_wherever_the_call_stands_in_the_route(body: str) -> None:
    found = wrong(route("failure_route", *body.splitlines()))
    assert found and all("fix_contact() cannot be called from failure_route" in line for line in found)


@pytest.mark.parametrize(
    "source",
    [
        "if True:\n    def failure_route(msg):\n        fix_contact()\n",
        "try:\n    x = 1\nfinally:\n    def failure_route(msg):\n        fix_contact()\n",
        "\n\nfailure_route = lambda msg: fix_contact()\n",
        "@staticmethod\n\ndef failure_route(msg): fix_contact()\n",
    ],
)
def test_however_the_route_is_defined(source: str) -> None:
    (line,) = wrong(source + REQUEST)
    assert "fix_contact() cannot be called from failure_route" in line


@pytest.mark.parametrize(
    ("call", "said"),
    [
        ('client_nat_test("x")', "client_nat_test('x'): expected a sum"),
        ("client_nat_test(-1)", "client_nat_test(-1): expected a sum"),
        ("client_nat_test(1.5)", "client_nat_test(1.5): expected a sum"),
        ('client_nat_test(type="0x3")', "client_nat_test('0x3'): expected a sum"),
        ('client_nat_test("123456")', "client_nat_test('123456'): expected a sum"),
        ("client_nat_test(True)", "client_nat_test(True): expected a sum"),
        ('nat_test("typo")', "nat_test('typo'): expected one of contact-private,"),
        ("nat_test(1)", "nat_test(1): expected one of"),
        ("nat_uac_test(-1)", "nat_uac_test(-1): expected a sum"),
        ('nat_uac_test("x")', "nat_uac_test('x'): expected a sum"),
        ('ice_candidate("foo")', "ice_candidate('foo'): expected one of keep, remove,"),
        ("setflag(99)", "setflag(99): expected a flag from 0 to 31"),
        ("setflag(32)", "setflag(32): expected a flag from 0 to 31"),
        ("setflag(-1)", "setflag(-1): expected a flag from 0 to 31"),
        ('setflag("6")', "setflag('6'): expected a flag from 0 to 31"),
        ("resetflag(None)", "resetflag(None): expected a flag"),
        ("isflagset(1.0)", "isflagset(1.0): expected a flag"),
        ('sl_send_reply("abc")', "sl_send_reply('abc'): expected a status"),
        ("sl_send_reply(99)", "sl_send_reply(99): expected a status"),
        ("sl_send_reply(700, 'x')", "sl_send_reply(700): expected a status"),
        ("sl_send_reply(404, 5)", "sl_send_reply(…, 5): expected one line"),
        (r"sl_send_reply(404, reason='a\r\nb')", "sl_send_reply(…, 'a\\r\\nb'): expected one line"),
        ("sl_send_reply(404, '\N{SNOWMAN}')", "expected one line of Latin-1 text"),
        ("append_hf('X-No-Colon')", "append_hf('X-No-Colon'): expected one header"),
        (r"append_hf('X: a\r\nY: b')", "append_hf('X: a\\r\\nY: b'): expected one header"),
        ("append_hf('Via: x')", "append_hf('Via: x'): Via is the server's business"),
        ("append_hf('m: <sip:x@y>')", "append_hf('m: <sip:x@y>'): m is the server's business"),
        ("append_hf('ROUTE: <sip:x@y>')", "ROUTE is the server's business"),
        ("remove_hf('Record-Route')", "remove_hf('Record-Route'): Record-Route is the server's business"),
        ("remove_hf('not a name')", "remove_hf('not a name'): expected the name of a header"),
        ('save("aliases")', "save('aliases'): the only table is \"location\""),
        ("lookup(None)", "lookup(None): the only table is"),
    ],
)
def test_a_wrong_literal_is_refused(call: str, said: str) -> None:
    (line,) = wrong(route("request_route", "pass", call))
    assert line.startswith("5: ") and said in line and line.endswith("(in request_route)")


@pytest.mark.parametrize(
    "call",
    [
        *('client_nat_test("")', "client_nat_test(0)", 'client_nat_test("7")', "client_nat_test(type=65535)"),
        *("client_nat_test()", "nat_uac_test(512)", 'nat_test("ula")', 'ice_candidate("HIGH-priority")'),
        *("setflag(0)", "setflag(31)", 'sl_send_reply("404", "Not Found")', "sl_send_reply(699)"),
        *(r"append_hf('P-hint: x\r\n')", "append_hf('Subject:')", "remove_hf('Subject')", 'save("location")'),
        *("sl_send_reply(reason='x', status=404)", "log(1)", "setflag(NAT_FLAG)", "setflag(msg.cseq)"),
        *("client_nat_test(*('3',))", "client_nat_test(**{})", "fix_contact(*[])"),
    ],
)
def test_a_right_call_is_not(call: str) -> None:
    assert wrong(route("request_route", call)) == []


@pytest.mark.parametrize(
    ("call", "said"),
    [
        ("fix_contact(1)", "fix_contact(): too many positional arguments; expected fix_contact()"),
        ("t_relay('x')", "t_relay(): too many positional arguments; expected t_relay()"),
        ("nat_test()", "nat_test(): missing a required argument: 'name'; expected nat_test(name)"),
        ("setflag(1, 2)", "setflag(): too many positional arguments; expected setflag(flag)"),
        ("client_nat_test(1, 2)", "client_nat_test(): too many positional arguments; expected client_nat_test([type])"),
        ("client_nat_test(tests=3)", "client_nat_test(): got an unexpected keyword argument 'tests'"),
        ("sl_send_reply()", "expected sl_send_reply(status, [reason])"),
        ("setflag(1, flag=1)", "setflag(): multiple values for argument 'flag'"),
    ],
)
def test_a_wrong_number_of_arguments_is_refused(call: str, said: str) -> None:
    (line,) = wrong(route("request_route", call))
    assert line.startswith("4: ") and said in line


def test_literals_of_helpers_are_judged_but_not_where_they_are_called_from() -> None:
    source = REQUEST + "def helper():\n    fix_contact()\n    setflag(99)\ndef failure_route(msg):\n    helper()\n"
    assert wrong(source) == ["5: setflag(99): expected a flag from 0 to 31"]


@pytest.mark.parametrize(
    "line",
    [
        "fix_contact()",
        "x = client_nat_test('3')",
        "class Tests:\n    private = client_nat_test('1')",
        "def helper(now=isflagset(1)): pass",
        "@log('x')\ndef helper(): pass",
        "if t_relay(): pass",
        "x = [setflag(n) for n in range(3)]",
    ],
)
def test_the_top_level_has_no_message(line: str) -> None:
    found = wrong(f"{line}\n{REQUEST}")
    assert found and "can only be called while a route runs, not at the top level of the script" in found[0]


@pytest.mark.parametrize(
    "before",
    [
        *("def log(text): pass", "from math import log", "import math as log", "log = print", "log: object = print"),
        "class log: pass",
    ],
)
def test_a_name_of_its_own_is_the_scripts_business(before: str) -> None:
    assert wrong(f"{before}\n{REQUEST}def failure_route(msg):\n    log(1, 2, 3)\n") == []


@pytest.mark.parametrize(
    "body",
    [
        "fix_contact = str\nfix_contact()",
        "for fix_contact in (str,): fix_contact()",
        "with x as fix_contact: fix_contact()",
        "[fix_contact() for fix_contact in (str,)]",
        "(lambda fix_contact: fix_contact())(str)",
        "try: pass\nexcept ValueError as fix_contact: fix_contact()",
        "match msg:\n    case fix_contact: fix_contact()",
        "def fix_contact(): pass\nfix_contact()",
    ],
)
def test_so_is_a_local_one(body: str) -> None:
    assert wrong("x = None\n" + route("failure_route", *body.splitlines())) == []


def test_unknown_functions_are_told_with_what_may_be_meant() -> None:
    source = route("request_route", "use_mediaproxy()", "frobnicate(1)", "len('x')", "msg.header('x')", "helper()")
    assert wrong(source + "def helper(): pass\n") == [
        "4: there is no function use_mediaproxy; did you mean use_media_proxy?",
        "5: there is no function frobnicate",
    ]


@pytest.mark.parametrize(
    "source",
    [
        "from os.path import *\ndef request_route(msg):\n    basename('x')\n",
        "def request_route(msg):\n    global f\n    f = len\n    f('x')\ndef helper():\n    f('y')\n",
        "try:\n    import json\nexcept ImportError:\n    json = None\ndef request_route():\n    json('x')\n",
        "def request_route(msg, *rest):\n    rest(1)\n",
    ],
)
def test_names_that_come_from_elsewhere_are_known(source: str) -> None:
    assert wrong(source) == []


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("def request_route(msg:\n    pass\n", "1: no Python: "),
        ("x = 1\n\nreturn 5\n", "3: no Python: 'return' outside function"),
        ("x = 1\n  y = 2\n", "2: no Python: unexpected indent"),
        ("x = 'é'\ny = \N{SNOWMAN}\n", "2: no Python: invalid character"),
        ("x = 1\ny = 'a\0b'\n", "2: no Python: a zero byte"),
        ("x = " + "(" * 5000, "no Python: "),
        ("x = " + "-" * 50000 + "1", "no Python: "),
        ("x = 1\n\n1 / 0\n", "3: ZeroDivisionError: division by zero"),
        ("import nothing_like_it\n", "1: ModuleNotFoundError: No module named 'nothing_like_it'"),
        ("def f():\n    raise SystemExit(3)\nf()\n", "2: SystemExit: 3"),
        ("raise KeyboardInterrupt\n", "1: KeyboardInterrupt"),
        ("def f(): f()\nf()\n", "1: RecursionError: maximum recursion depth exceeded"),
        ("f = fix_contact\nf()\n", "2: fix_contact() can only be called while a route runs"),
        ("class Odd(Exception):\n    def __str__(self): return 1 / 0\nraise Odd\n", "3: Odd"),
        ("", "there is no request_route; a script begins with: def request_route(msg):"),
        ("def onreply_route(msg): pass\n", "there is no request_route"),
        ("request_route = 5\n", "request_route is no function but int"),
        ("def request_route(msg, more): pass\n", "1: request_route must have one parameter, the message, or none"),
        ("\ndef request_route(*, msg): pass\n", "2: request_route must have one parameter"),
        ("async def request_route(msg): pass\n", "1: request_route must not be async"),
        ("def request_route(msg):\n    yield\n", "1: request_route must not have yield"),
        (f"{REQUEST}def onreply_rout(msg): pass\n", "3: there is no onreply_rout; did you mean onreply_route?"),
        (f"{REQUEST}{REQUEST}", "3: request_route is defined again; the first time was in line 1"),
    ],
)
def test_what_is_no_script(source: str, said: str) -> None:
    assert said in "\n".join(wrong(source))


def test_every_problem_is_told_at_once_in_the_order_of_its_lines() -> None:
    found = wrong("def failure_route():\n    t_relay(); save()\ndef request_route():\n    setflag(99)\n")
    assert [line.partition(":")[0] for line in found] == ["2", "2", "4"]


def test_the_file_is_named_in_every_line() -> None:
    with pytest.raises(ScriptError) as caught:
        Script.load(b"def request_route():\n    setflag(99)\n", "/etc/routing.py", SETTINGS)
    assert str(caught.value).startswith("/etc/routing.py:2: setflag(99)")


@pytest.mark.parametrize(
    "source",
    [
        "# -*- coding: latin-1 -*-\nx = 'é'\n".encode("latin-1"),
        b"\xef\xbb\xbfx = 1\n",
        b"x = '\\d'\r\n",
        b"if 1 is 1: pass\n",
    ],
)
def test_any_python_file_will_do(source: bytes) -> None:
    Script.load(source + REQUEST.encode(), NAME, SETTINGS)


def test_the_routes_of_a_script() -> None:
    found = script("def request_route(): pass\ndef onreply_route(msg): pass\nbranch_route = onreply_route\n").routes
    assert {name: takes for name, (_, takes) in found.items()} == {
        RouteType.REQUEST: False,
        RouteType.ONREPLY: True,
        RouteType.BRANCH: True,
    }


@given(st.binary(max_size=200) | st.text(max_size=200).map(lambda text: text.encode("utf-8", "replace")))
def test_no_file_does_harm(data: bytes) -> None:
    """Of random bytes: they are mostly no Python, and never an exception but the one."""
    try:
        Script.load(b"raise SystemExit\n" + data, NAME, SETTINGS)
    except ScriptError as error:
        assert NAME in str(error)
