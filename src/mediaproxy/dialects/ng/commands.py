"""The commands of the NG protocol but offer and answer: what each asks of the media arm, and what it answers.

A Command comes in, a dictionary goes out; in between questions are yielded and their replies sent in. Error texts are
rtpengine's own, by which SIP servers tell what to do. A command that would need what no relay of ours does is refused
by name.
"""

from collections.abc import Callable, Generator
from typing import TypeAlias

from mediaproxy.control import (
    ControlError,
    EndCause,
    EndRequest,
    Inquiry,
    ListRequest,
    MediaReply,
    Party,
    QueryRequest,
    Question,
    Switch,
    TotalsRequest,
)
from mediaproxy.dialects.ng.bencode import Answer, NgError
from mediaproxy.dialects.ng.flags import Command
from mediaproxy.dialects.ng.participants import check_receiver, switched
from mediaproxy.dialects.ng.standing import standing
from mediaproxy.dialects.ng.statistics import statistics
from mediaproxy.dialects.ng.tally import Tally
from mediaproxy.events import CallReport, RelayTotals, reports_of, totals_of

Doing: TypeAlias = Generator[Question | Inquiry, MediaReply | None, Answer]
"Like dialect.Steps, and returns the answer before it is written."

UNKNOWN_CALL = 481
LIST = 32
"Call-IDs that ``list`` tells if it is not told how many."
_NOT_FOUND = "Call-ID not found or tags didn't match"
_SWITCHES = {
    "block media": Switch.BLOCK,
    "unblock media": Switch.UNBLOCK,
    "silence media": Switch.SILENCE,
    "unsilence media": Switch.UNSILENCE,
}
UNDONE = {
    "start recording": "recording",
    "stop recording": "recording",
    "pause recording": "recording",
    "start forwarding": "forwarding to a recorder",
    "stop forwarding": "forwarding to a recorder",
    "block DTMF": "detecting DTMF",
    "unblock DTMF": "detecting DTMF",
    "play media": "playing media",
    "stop media": "playing media",
    "play DTMF": "playing DTMF",
    "publish": "subscriptions",
    "subscribe request": "subscriptions",
    "subscribe answer": "subscriptions",
    "unsubscribe": "subscriptions",
    "inject start": "injecting media",
    "inject stop": "injecting media",
    "connect": "connecting calls",
    "create": "creating offers",
    "create answer": "creating offers",
    "mesh": "connecting calls",
    "transform": "transcoding",
    "cli": "the command line interface",
}
"Commands of rtpengine that are refused, and what they would need."


def do(command: Command, tally: Tally, now: float) -> Doing:
    """Carry out one command. NgError is what it is refused with."""
    simple = _COMMANDS.get(command.name)
    if simple is not None:
        return (yield from simple(command))
    if command.name in _SWITCHES:
        return (yield from _switch(command))
    if command.name == "statistics":
        reply = yield TotalsRequest()
        return {"result": "ok", "statistics": statistics(_totals(reply), tally, now)}
    if command.name in UNDONE:
        raise NgError(f"{command.name} is not supported: it needs {UNDONE[command.name]}")
    raise NgError("Unrecognized command")


def _ping(command: Command) -> Doing:
    yield from ()
    return {"result": "pong"}


def _delete(command: Command) -> Doing:
    fast = command.has("fast")
    # Without from-tag all of the call is meant, whatever else is said (OpenSIPS' module leaves it out).
    named = bool(command.from_tag)
    to_tag = command.to_tag if named and command.has("to-tag") else ""
    delay = command.delete_delay
    reply = yield EndRequest(
        call_id=_call_id(command),
        sender=Party(tag=command.from_tag),
        receiver=Party(tag=to_tag),
        cause=EndCause.DELETE,
        branch=command.via_branch if named else "",
        delay=None if delay is None or delay < 0 else float(delay),
        report=not fast,
    )
    if reply is not None and reply.status == UNKNOWN_CALL:
        if command.has("fatal"):
            raise NgError(_NOT_FOUND)
        return {"result": "ok", "warning": _NOT_FOUND}
    reports = _reports(reply)
    told: Answer = standing(reports, to_tag or command.from_tag) if reports and not fast else {}
    return {"result": "ok"} | told


def _query(command: Command) -> Doing:
    reports = yield from _look(command, "Unknown call-id")
    return {"result": "ok"} | standing(reports, command.to_tag or command.from_tag)


def _look(command: Command, unknown: str) -> Generator[Question | Inquiry, MediaReply | None, tuple[CallReport, ...]]:
    reply = yield QueryRequest(call_id=_call_id(command))
    if reply is not None and reply.status == UNKNOWN_CALL:
        raise NgError(unknown)
    reports = _reports(reply)
    if not reports:
        raise NgError(unknown)
    return reports


def _list(command: Command) -> Doing:
    limit = LIST if command.limit is None else command.limit
    if limit < 0:
        raise NgError("invalid limit, must be >= 0")
    reply = yield ListRequest(limit=limit)
    return {"result": "ok", "calls": list(_good(reply).calls)}


def _switch(command: Command) -> Doing:
    reports = yield from _look(command, "Unknown call-ID")
    check_receiver(command, reports)
    reply = yield switched(command, _SWITCHES[command.name], reports)
    if reply is not None and reply.status == UNKNOWN_CALL:
        raise NgError("Unknown call-ID")
    _good(reply)
    return {"result": "ok"}


def _call_id(command: Command) -> str:
    if not command.call_id:
        raise NgError("No call-id in message")
    return command.call_id


def _good(reply: MediaReply | None) -> MediaReply:
    """The reply if it is one. NgError says why the media arm did not do it."""
    if reply is None:
        raise NgError("no answer from the relay")
    if reply.error:
        raise NgError(reply.error)
    return reply


def _reports(reply: MediaReply | None) -> tuple[CallReport, ...]:
    try:
        return reports_of(_good(reply))
    except ControlError as error:
        raise NgError(f"the relay answers in another version: {error}") from error


def _totals(reply: MediaReply | None) -> tuple[RelayTotals, ...]:
    try:
        return totals_of(_good(reply))
    except ControlError as error:
        raise NgError(f"the relay answers in another version: {error}") from error


_COMMANDS: dict[str, Callable[[Command], Doing]] = {
    "ping": _ping,
    "delete": _delete,
    "query": _query,
    "list": _list,
}
