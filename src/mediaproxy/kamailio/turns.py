"""[shell] What this process knows of the message in hand: read once per message, whatever a script calls.

Kamailio runs several routes over one message: request route and its branch routes, reply routes, later perhaps a
failure route, in another process. A ``Turn`` is one call of a function from one of them. What was done to the message
in the route before holds in the next one. Within the process that is remembered for the message in hand, and for no
other. For the failure route of a request it stands in an AVP, which lives as long as the transaction, as the edits do.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from mediaproxy.control import MediaReply, Question
from mediaproxy.kamailio.host import Host
from mediaproxy.module import OK, Result, RouteType, Run
from mediaproxy.policy import Policy
from mediaproxy.sip.message import Message, parse
from mediaproxy.traversal import Facts, contact_uri

DONE = "$avp(mediaproxy_done)"
"AVP of a request: what its request route did to it, in order. ``c`` fix_contact, ``a`` add_contact_alias, ``m`` media."
_AT_ONCE = 1.0
"""Seconds. A failure route runs within the reply that the process has in hand, so what was waited for a message before
counts for it, too."""


@dataclass(slots=True)
class Scope:
    """A message as one route sees it, and what of it stands in Kamailio's edits already."""

    run: Run
    written: Message
    "The message as Kamailio sends it on if nothing more is done."
    done: str = ""
    "What was done to it: see DONE."
    media: Result | None = None
    "What use_media_proxy has returned for good; None: nothing."


@dataclass(slots=True)
class Memory:
    """One message, all that this process does with it."""

    key: tuple[object, int]
    data: bytes
    top: Scope
    "The message itself: of request, reply and failure route."
    branches: dict[int, Scope] = field(default_factory=dict)
    answers: list[tuple[Question, MediaReply | None]] = field(default_factory=list)
    "What was asked so far, with the answers: a question is asked once per message."
    spent: float = 0.0
    "Seconds that were waited for answers."
    when: float = 0.0
    "When that was, at last."


@dataclass(slots=True)
class Turn:
    """One call of a function by a script."""

    msg: Any
    route: RouteType
    memory: Memory
    scope: Scope

    @property
    def run(self) -> Run:
        """The functions."""
        return self.scope.run


class Turns:
    """Remembers the message in hand."""

    def __init__(self, host: Host, policy: Callable[[], Policy]) -> None:
        self._host = host
        self._policy = policy
        self._memory: Memory | None = None
        self._turn: Turn | None = None

    def turn(self, msg: Any) -> Turn:
        """What a call from the route that runs is about. ModuleError if it is no route of ours, SipError if the message
        cannot be read."""
        data = self._host.data()
        turn = self._turn
        # Kamailio makes one ``msg`` for each run of a route.
        if turn is not None and turn.msg is msg and turn.memory is self._memory and turn.memory.data == data:
            return turn
        self._turn = turn = self._begin(msg, data)
        return turn

    def _begin(self, msg: Any, data: bytes) -> Turn:
        route = self._host.route(msg)
        memory = self._recall(msg, route, data)
        if route is not RouteType.BRANCH:
            if memory.top.run.route is not route:  # a branch route was the first to call
                memory.top.run = memory.top.run.again(route)
            return Turn(msg, route, memory, memory.top)
        branch = self._host.branch()
        scope = memory.branches.get(branch)
        if scope is None:
            top = memory.top
            run = top.run.again(route)
            scope = memory.branches[branch] = Scope(run, top.written, top.done, top.media)
        return Turn(msg, route, memory, scope)

    def _recall(self, msg: Any, route: RouteType, data: bytes) -> Memory:
        host, last = self._host, self._memory
        failure = route is RouteType.FAILURE
        # Every run of a failure route has a copy of the request of its own, with the same number.
        key = (host.message_id(), host.branch() if failure else -1)
        ours = last is not None and (last.key == key or (route is RouteType.BRANCH and last.key[0] == key[0]))
        if last is not None and ours and last.data == data:
            return last
        self._memory = memory = Memory(key, data, self._top(msg, route, data))
        # A suspended request has the number that it got in another process, as one before it may have from a third.
        ours = last is not None and ours and _same(last.top.run.arrived, memory.top.run.arrived)
        if last is not None and ours:  # somebody has put the edits so far into the buffer
            memory.top.media, memory.answers = last.top.media, last.answers
            memory.top.run.facts = Facts(contact=contact_uri(last.top.run.arrived))
        if last is not None and (ours or (failure and time.monotonic() - last.when < _AT_ONCE)):
            memory.spent = last.spent
        return memory

    def _top(self, msg: Any, route: RouteType, data: bytes) -> Scope:
        message, arrival = parse(data), self._host.arrival(msg)
        done = "" if route is RouteType.ONREPLY else self._host.text(DONE)
        run = Run(message, arrival, self._policy(), route)
        if done:
            run = _replayed(run, done)
        return Scope(run, run.message, done, OK if "m" in done else None)


def _same(one: Message, other: Message) -> bool:
    """Whether they are one message, before and after edits: what names its transaction is the same."""
    return all(one.header(name) == other.header(name) for name in ("via", "call-id", "cseq"))


def _replayed(run: Run, done: str) -> Run:
    """The same after what was done to the message in its request route."""
    before = Run(run.arrived, run.arrival, run.policy, RouteType.REQUEST)
    for letter in done:
        if letter == "c":
            before.fix_contact()
        elif letter == "a":
            before.add_contact_alias()
    return before.again(run.route)
