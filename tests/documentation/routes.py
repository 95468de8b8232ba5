"""A function in each of the four kinds of routes, and what a host says about a call from the wrong one."""

from lab.hosts import Host
from tests.documentation.house import House
from tests.documentation.instance import check_script
from tests.vsip import Text

ROUTES = ("request_route", "onreply_route", "failure_route", "branch_route")
PRIVATE = "<sip:x@192.168.1.10:5999>"
EVERYWHERE = {route: ["1 True"] for route in ROUTES}
"A function that returns 1 in each of them."


def in_each_route(house: House, word: str) -> dict[str, list[str]]:
    """What a function returns in each kind of route, each with a call of its own; code and truth."""
    found = {}
    for route in ROUTES:
        caller, callee = house.phone(), house.phone()
        run = {"X-Run": "force_rport", "X-Branch": "", "X-Failure": ""}
        run[{"request_route": "X-Run", "branch_route": "X-Branch", "failure_route": "X-Failure"}.get(route, "")] = word
        headers = [(name, words) for name, words in run.items() if name and words]
        sent = caller.request("INVITE", callee.aor, contact=PRIVATE, body=caller.sdp(), headers=headers)
        invite = callee.receive("INVITE")
        reply = [("X-Run", word if route == "onreply_route" else "isflagset=1")]
        callee.answer(invite, 183, callee.sdp(), contact=PRIVATE, headers=reply)
        caller.receive(183)
        callee.answer(invite, 486)
        caller.receive(486)
        found[route] = [said for name, said in journal(house, sent, route) if name == word]
    return found


def journal(house: House, sent: Text, route: str) -> list[tuple[str, str]]:
    """What the words of a message returned in a route."""
    lines = house.main.journal(sent.get("Call-ID"), route)
    return [(word, said) for word, _, said in (line.partition(" ") for line in lines)]


def is_said(house: House, function: str, route: str) -> str:
    """What an operator is told of a call from the wrong route: when the script is loaded, with the line, if the host
    looks at scripts before it runs them; else in the log."""
    expected = f"{function}() cannot be called from {route}, only from "
    if house.host is Host.EDGE:
        script = f"def request_route(msg):\n    t_relay()\n\ndef {route}(msg):\n    {function}()\n"
        said = check_script(script, house.folder)
        return "when it is loaded, with the line" if said.endswith(f"line 5: {expected}{_others(route)}") else said
    line = next((line for line in house.main.log.splitlines() if function in line and "cannot be called" in line), "")
    return "in the log" if f"{function}() in {route}: cannot be called from {route}, only from " in line else line


def _others(route: str) -> str:
    return ", ".join(one for one in ("request_route", "onreply_route", "failure_route", "branch_route") if one != route)
