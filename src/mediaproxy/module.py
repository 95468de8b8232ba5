"""The mediaproxy module's functions, as a routing script calls them: one implementation for every host.

A message, how it arrived, the policy and the route that runs come in; each function changes what the run will send on
and returns the code that the original documents: 1, -1 or -2. Functions that ask the media arm are generators: they
yield the question and are sent the answer, so that one host waits for it, another one goes on with other messages.
Nothing here does IO, and nothing is remembered between two messages.
"""

import re
from collections.abc import Callable, Generator, Mapping
from enum import StrEnum
from typing import TypeAlias

import msgspec

from mediaproxy.control import EndCause, EndRequest, MediaReply, Party, Question
from mediaproxy.nat import Arrival, client_nat_test, fix_contact
from mediaproxy.sdp import IcePolicy
from mediaproxy.sip.grammar import SipError
from mediaproxy.sip.message import Message, Request, Response
from mediaproxy.traversal import Facts, Failure, Policy, end_request, plan


class ModuleError(ValueError):
    """A script calls a function wrongly: bad argument, or wrong route. Never the fault of a peer."""


class Result(int):
    """A return code. As in a SIP server's script it counts as true only if it is positive: ``if fix_contact():``."""

    __slots__ = ()

    def __bool__(self) -> bool:
        return self > 0


OK = Result(1)
FAILED = Result(-1)
NO_SDP = Result(-2)

Steps: TypeAlias = Generator[Question, MediaReply | None, Result]
"A function that asks: yields questions, is sent the answers (None: none came), returns its code."


class RouteType(StrEnum):
    """The kinds of routes of a script, by their names in it."""

    REQUEST = "request_route"
    ONREPLY = "onreply_route"
    FAILURE = "failure_route"
    BRANCH = "branch_route"


_ANYWHERE = frozenset(RouteType)
CALLABLE_FROM: Mapping[str, frozenset[RouteType]] = {
    "client_nat_test": _ANYWHERE,
    "nat_test": _ANYWHERE,
    "nat_uac_test": _ANYWHERE,
    "fix_contact": _ANYWHERE - {RouteType.FAILURE},
    "add_contact_alias": _ANYWHERE - {RouteType.FAILURE},
    "handle_ruri_alias": frozenset({RouteType.REQUEST, RouteType.BRANCH}),
    "use_media_proxy": _ANYWHERE,
    "end_media_session": _ANYWHERE,
    "ice_candidate": _ANYWHERE,
}
"Function -> routes in which it may be called, as the original documents them."


def check_route(function: str, route: RouteType) -> None:
    """ModuleError if the function may not be called from that route."""
    if route not in CALLABLE_FROM[function]:
        allowed = ", ".join(one for one in RouteType if one in CALLABLE_FROM[function])
        raise ModuleError(f"{function}() cannot be called from {route}, only from {allowed}")


_NUMBER = re.compile(r"[0-9]{0,5}")


def test_numbers(function: str, value: object) -> int:
    """The argument of client_nat_test or nat_uac_test, a sum given as number or as decimal text: 0 to 65535, the empty
    text is 0 (the original's str2s). ModuleError if it is anything else."""
    if isinstance(value, str) and _NUMBER.fullmatch(value):
        value = int(value or "0")
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 65535:
        raise ModuleError(f'{function}({value!r}): expected a sum of the tests\' numbers, such as 3 or "3"')
    return value


def ice_policy(value: object) -> IcePolicy:
    """The argument of ice_candidate. ModuleError if it is none."""
    try:
        return IcePolicy(str(value).lower())
    except ValueError:
        names = ", ".join(IcePolicy)
        raise ModuleError(f"ice_candidate({value!r}): expected one of {names}") from None


class Run:
    """What the functions do to one message while one route of a script runs. Mutable."""

    def __init__(
        self, message: Message, arrival: Arrival, policy: Policy, route: RouteType, facts: Facts | None = None
    ) -> None:
        """``message``: as it arrived, before any edit. ``facts``: what the host knows besides (traversal.Facts); of the
        failure of a request in a failure route, see ``status``."""
        self.arrived = message
        self.message = message
        "What will be sent on."
        self.arrival = arrival
        self.policy = policy
        self.route = route
        self.facts = facts or Facts()
        self.failure: Failure | None = None
        "Why use_media_proxy returned -1, with the SIP status that suits it; None: it did not."
        self.status = 0
        "Failure route: the status of the response that the request failed with."
        self._media: Result | None = None
        self._asymmetric: bool | None = None

    def again(self, route: RouteType, facts: Facts | None = None) -> "Run":
        """The same message in another route (a branch of it, its failure): what was done to it stays done."""
        run = Run(self.arrived, self.arrival, self.policy, route, facts or self.facts)
        run.message, run._media, run.failure = self.message, self._media, self.failure
        return run

    @property
    def sip_asymmetric(self) -> bool:
        """Whether the sender is on the list of SIP-asymmetric clients."""
        if self._asymmetric is None:
            self._asymmetric = self.policy.sip_asymmetric.matches(self.arrived.user_agent)
        return self._asymmetric

    # -- NAT

    def client_nat_test(self, type: object) -> Result:  # noqa: A002 - the original's name
        """1 if one of the tests finds that the sender is behind NAT, else -1; see ``nat.client_nat_test``. ``type``: a
        sum of 1, 2 and 4, as number or text. Edits of this run count: after fix_contact test 1 looks at the new one."""
        check_route("client_nat_test", self.route)
        tests = test_numbers("client_nat_test", type)
        return OK if client_nat_test(self.message, self.arrival, tests, self.sip_asymmetric) else FAILED

    def fix_contact(self) -> Result:
        """Put the packet's source into every Contact; 1, or -1 if there is none, or ``*``; see ``nat.fix_contact``."""
        check_route("fix_contact", self.route)
        fixed = fix_contact(self.message, self.arrival, self.sip_asymmetric)
        if fixed is None:
            return FAILED
        self.message = fixed
        return OK

    # -- media

    def ice_candidate(self, policy: object) -> Result:
        """Say what becomes of ICE in this message if use_media_proxy comes to it: ``keep``, ``remove``,
        ``low-priority`` or ``high-priority`` (IcePolicy); 1."""
        check_route("ice_candidate", self.route)
        self.policy = self.policy.with_ice(ice_policy(policy))
        return OK

    def use_media_proxy(self) -> Steps:
        """Have the media relayed: 1 done (or nothing to relay in its SDP), -1 error (see ``failure``), -2 no body.

        Asking twice for one message is safe: the second call does nothing and returns the same code. A message without
        body that confirms, refuses or ends what was agreed before is reported to the relay, too (ConfirmRequest,
        EndRequest REFUSED and BRANCH); the code is -2 all the same. BYE and CANCEL are for end_media_session.
        """
        check_route("use_media_proxy", self.route)
        if self._media is None:
            self._media = yield from self._use_media_proxy()
        return self._media

    def _use_media_proxy(self) -> Steps:
        planned = plan(self.arrived, self.arrival, self.policy, self.facts)
        ends = isinstance(self.arrived, Request) and self.arrived.method in ("BYE", "CANCEL")
        reply = None
        if planned.request is not None and not ends:
            reply = yield planned.request
        if planned.sdp is None and not planned.error:
            return FAILED if self.arrived.body else NO_SDP
        self.failure = planned.failure(reply)
        if self.failure is not None:
            return FAILED
        self.message = planned.complete(reply, self.message)
        return OK

    def end_media_session(self) -> Steps:
        """End the call's media: 1 if the media arm was told, whatever it says; -1 if not, or there is no Call-ID.

        BYE and CANCEL count by their tags and branch (calls.md 10). In the failure route of a re-INVITE only what that
        offer wanted is undone, for the call goes on (RFC 3261 §14.1), unless it failed with 408 or 481. Any other
        message ends the whole call.
        """
        check_route("end_media_session", self.route)
        question = self._end()
        if question is None:
            return FAILED
        reply = yield question
        return FAILED if reply is None or reply.status == 503 else OK

    def _end(self) -> EndRequest | None:
        message = self.arrived
        try:
            if isinstance(message, Request) and message.method in ("BYE", "CANCEL"):
                question = plan(message, self.arrival, self.policy, self.facts).request
                return question if isinstance(question, EndRequest) else None
            if message.cseq.method == "INVITE" and not isinstance(message, Response):
                return self._end_invite(message)
            return EndRequest(call_id=message.call_id, sender=Party(), receiver=Party(), cause=EndCause.ADMIN)
        except SipError:
            return None

    def _end_invite(self, message: Message) -> EndRequest:
        refused = self.route is RouteType.FAILURE and message.to.tag and self.status not in (408, 481)
        if not refused:
            branch = self.facts.branch or message.via.branch or ""
            return end_request(message, EndCause.FAILURE, self.policy, status=self.status, branch=branch)
        undone = end_request(message, EndCause.REFUSED, self.policy, status=self.status)
        return msgspec.structs.replace(undone, sender=undone.receiver, receiver=undone.sender)


def drive(steps: Steps, answer: Callable[[Question], MediaReply | None]) -> Result:
    """Run a function that asks to its end, with a host's blocking way to ask."""
    try:
        question = next(steps)
        while True:
            question = steps.send(answer(question))
    except StopIteration as done:
        result: Result = done.value
        return result
