"""The names that a routing script may call: the original module's functions, and the server's own beside them.

Each returns a ``Result``: 1 for done or yes, negative for no, which also counts as false in ``if``. A call finds the
route that is running by the stack it comes from, so nothing is handed over, and helpers of the script may call, too. A
ModuleError says what a script did wrongly. What the functions do stands in ``stage`` and its subclasses.
"""

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType

from mediaproxy.edge.script.arguments import flag as _flag
from mediaproxy.edge.script.arguments import header_line, header_name, reason_phrase, status_code
from mediaproxy.edge.script.arguments import table as _table
from mediaproxy.edge.script.stack import running
from mediaproxy.edge.script.stage import Stage
from mediaproxy.module import ARGUMENT, CALLABLE_FROM, ModuleError, Result, RouteType

_ANYWHERE = frozenset(RouteType)
_REQUEST = frozenset({RouteType.REQUEST})
_EDITS = _ANYWHERE - {RouteType.FAILURE}

ROUTES: Mapping[str, frozenset[RouteType]] = MappingProxyType(
    {
        **CALLABLE_FROM,
        "append_hf": _EDITS,
        "drop": _EDITS,
        "force_rport": _REQUEST,
        "is_natted": _ANYWHERE,
        "isflagset": _ANYWHERE,
        "log": _ANYWHERE,
        "lookup": _REQUEST,
        "loose_route": _REQUEST,
        "record_route": _REQUEST,
        "remove_hf": _EDITS,
        "resetflag": _ANYWHERE,
        "save": _REQUEST,
        "setflag": _ANYWHERE,
        "sl_reply_error": _REQUEST,
        "sl_send_reply": _REQUEST,
        "t_relay": _REQUEST,
    }
)
"Function -> routes in which it may be called."

CHECKS: Mapping[tuple[str, str], Callable[[object], object]] = MappingProxyType(
    {
        ("client_nat_test", "type"): ARGUMENT["client_nat_test"],
        ("nat_test", "name"): ARGUMENT["nat_test"],
        ("nat_uac_test", "flags"): ARGUMENT["nat_uac_test"],
        ("ice_candidate", "policy"): ARGUMENT["ice_candidate"],
        ("append_hf", "text"): header_line,
        ("isflagset", "flag"): partial(_flag, "isflagset"),
        ("lookup", "table"): partial(_table, "lookup"),
        ("remove_hf", "name"): header_name,
        ("resetflag", "flag"): partial(_flag, "resetflag"),
        ("save", "table"): partial(_table, "save"),
        ("setflag", "flag"): partial(_flag, "setflag"),
        ("sl_send_reply", "reason"): reason_phrase,
        ("sl_send_reply", "status"): status_code,
    }
)
"(Function, parameter) -> what checks a value."


def refusal(function: str, route: RouteType) -> str:
    """Why the function may not be called from that route; empty: it may."""
    if route in ROUTES[function]:
        return ""
    allowed = ", ".join(one for one in RouteType if one in ROUTES[function])
    return f"{function}() cannot be called from {route}, only from {allowed}"


def _stage(function: str) -> Stage:
    stage: Stage | None = running()
    if stage is None:
        raise ModuleError(f"{function}() can only be called while a route runs")
    if stage.route not in ROUTES[function]:
        raise ModuleError(refusal(function, stage.route))
    return stage


# -- the original module's functions, and what stands beside them (docs/nat.md)


def client_nat_test(type: object = None) -> Result:  # noqa: A002 - the original's name
    """1 if one of the tests finds that the sender is behind NAT, else -1. ``type``: a sum of 1 (private Contact), 2
    (source differs from Via) and 4 (private Via), as number or text. Without it: the setting edge.nat_tests; for a
    reply 1, since the Via of a reply is the server's own."""
    return _stage("client_nat_test").client_nat_test(type)


def nat_test(name: object) -> Result:
    """1 if the named test finds that the sender is behind NAT, else -1."""
    return _stage("nat_test").run.nat_test(name)


def nat_uac_test(flags: object) -> Result:
    """1 if one of the tests of Kamailio's nathelper holds, by its numbers, else -1."""
    return _stage("nat_uac_test").run.nat_uac_test(flags)


def fix_contact() -> Result:
    """Put the address and port that the message came from into its Contacts; -1 if there is none, or ``*``."""
    return _stage("fix_contact").fix_contact()


def add_contact_alias() -> Result:
    """Put the same into the Contacts as an alias and leave the rest of them; 2 if none is needed, -1 on error."""
    return _stage("add_contact_alias").run.add_contact_alias()


def handle_ruri_alias() -> Result:
    """Take an alias off the Request-URI and send the request there; 2 if it has none, -1 if it is malformed."""
    return _stage("handle_ruri_alias").handle_ruri_alias()


def use_media_proxy() -> Result:
    """Have the media of this message relayed: 1 done, -1 error, -2 no body. Waits for the relay."""
    return _stage("use_media_proxy").use_media_proxy()


def end_media_session() -> Result:
    """End the media of this call: 1 if the relay was told, -1 if not. Waits for the relay."""
    return _stage("end_media_session").end_media_session()


def ice_candidate(policy: object) -> Result:
    """What becomes of ICE when use_media_proxy comes to this message, and from request_route to the replies to it:
    "keep", "remove", "low-priority" or "high-priority"."""
    return _stage("ice_candidate").run.ice_candidate(policy)


# -- the server's


def append_hf(text: object) -> Result:
    """Add a header, such as ``"X-Name: value"``, to the message as it is sent on."""
    return _stage("append_hf").append_hf(*header_line(text))


def drop() -> Result:
    """Send nothing on and answer nothing: the route ends here. A final reply cannot be dropped."""
    return _stage("drop").drop()


def force_rport() -> Result:
    """Answer this request to the port that it came from, asked for or not (RFC 3581)."""
    return _stage("force_rport").force_rport()


def is_natted() -> Result:
    """1 if a registered phone behind NAT is where the message came from, else -1."""
    return _stage("is_natted").is_natted()


def isflagset(flag: object) -> Result:
    """1 if the flag is set, else -1."""
    return _stage("isflagset").isflagset(_flag("isflagset", flag))


def log(text: object) -> Result:
    """Write a line to the server's log."""
    return _stage("log").log(str(text))


def lookup(table: object = "location") -> Result:
    """Find where the user of the Request-URI has registered: 1 found, -1 no such user here, -2 not reachable now."""
    _table("lookup", table)
    return _stage("lookup").lookup()


def loose_route() -> Result:
    """1 if the sender routed the request through us: it had a Route of ours, as requests within a dialog have."""
    return _stage("loose_route").loose_route()


def record_route() -> Result:
    """Stay on the way of the dialog that this request begins."""
    return _stage("record_route").record_route()


def remove_hf(name: object) -> Result:
    """Remove all headers of that name from the message as it is sent on; -1 if there is none."""
    return _stage("remove_hf").remove_hf(header_name(name))


def resetflag(flag: object) -> Result:
    """Take a flag back."""
    return _stage("resetflag").resetflag(_flag("resetflag", flag))


def save(table: object = "location") -> Result:
    """Register the Contacts of this REGISTER, as they are now, and answer it: 1 done, -1 refused, or not ours."""
    _table("save", table)
    return _stage("save").save()


def setflag(flag: object) -> Result:
    """Set a flag, 0 to 31, for this request, its branches and its replies."""
    return _stage("setflag").setflag(_flag("setflag", flag))


def sl_reply_error() -> Result:
    """Answer with what kept lookup, use_media_proxy or t_relay from succeeding; 500 if nothing did."""
    return _stage("sl_reply_error").sl_reply_error()


def sl_send_reply(status: object, reason: object = "") -> Result:
    """Answer the request; -1 if it has been answered or sent on already. ``reason``: empty for the usual one."""
    stage = _stage("sl_send_reply")
    return stage.sl_send_reply(status_code(status), reason_phrase(reason))


def t_relay() -> Result:
    """Send the request on: to where its user has registered, or to the next hop that a Route, the Request-URI or a
    configured route names; -1 if it may not or cannot go there."""
    return _stage("t_relay").t_relay()


FUNCTIONS: Mapping[str, Callable[..., Result]] = MappingProxyType({name: globals()[name] for name in ROUTES})
"What a script finds in its globals."
