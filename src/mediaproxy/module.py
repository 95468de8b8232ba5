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

from mediaproxy import nat
from mediaproxy.control import EndCause, EndRequest, MediaReply, Party, Question
from mediaproxy.nat import Arrival
from mediaproxy.policy import Policy
from mediaproxy.sdp import IcePolicy
from mediaproxy.sip.grammar import SipError
from mediaproxy.sip.header import Uri
from mediaproxy.sip.message import Message, Request, Response
from mediaproxy.traversal import Facts, Failure, end_request, negotiates, plan, sdp_part


class ModuleError(ValueError):
    """A script calls a function wrongly: bad argument, or wrong route. Never the fault of a peer."""


class Result(int):
    """A return code. As in a SIP server's script it counts as true only if it is positive: ``if fix_contact():``."""

    __slots__ = ()

    def __bool__(self) -> bool:
        return self > 0


OK = Result(1)
NOTHING = Result(2)
"There was nothing to do; of the alias functions."
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


def test_name(value: object) -> str:
    """The argument of nat_test. ModuleError if it is none."""
    if isinstance(value, str) and value in nat.NAMED_TESTS:
        return value
    raise ModuleError(f"nat_test({value!r}): expected one of {', '.join(nat.NAMED_TESTS)}")


def ice_policy(value: object) -> IcePolicy:
    """The argument of ice_candidate. ModuleError if it is none."""
    try:
        return IcePolicy(str(value).lower())
    except ValueError:
        names = ", ".join(IcePolicy)
        raise ModuleError(f"ice_candidate({value!r}): expected one of {names}") from None


ARGUMENT: Mapping[str, Callable[[object], object]] = {
    "client_nat_test": lambda value: test_numbers("client_nat_test", value),
    "nat_uac_test": lambda value: test_numbers("nat_uac_test", value),
    "nat_test": test_name,
    "ice_candidate": ice_policy,
}
"""Functions with an argument -> what checks it: ModuleError if it is not right. Hosts check literals by it before
anything runs. The others take none."""


_DIALOG_GONE = (408, 481)
"Answers to a re-INVITE that end its dialog (RFC 3261 §12.2.1.2)."


class Run:
    """What the functions do to one message while one route of a script runs. Mutable."""

    def __init__(
        self, message: Message, arrival: Arrival, policy: Policy, route: RouteType, facts: Facts | None = None
    ) -> None:
        """``message``: as it arrived, before any edit: a noted source in its Via would look like a NAT. ``facts``: what
        the host knows besides (traversal.Facts); of the failure of a request in a failure route, see ``status``."""
        self.arrived = message
        self.message = message
        "What will be sent on. A host's own edits go in here, too."
        self.arrival = arrival
        self.policy = policy
        self.route = route
        self.facts = facts or Facts()
        self.destination: Uri | None = None
        """Where the request goes instead of its Request-URI, set by handle_ruri_alias or by the host (Kamailio's $du);
        None: nowhere else. Of an alias it is what a peer wrote: a host judges it as it judges a Request-URI."""
        self.failure: Failure | None = None
        "Why use_media_proxy returned -1, with the SIP status that suits it; None: it did not, or nothing was wrong."
        self.status = 0
        "Failure route: the status of the response that the request failed with."
        self._media: Result | None = None
        self._aliased = False
        self._asymmetric: bool | None = None

    def again(self, route: RouteType, facts: Facts | None = None) -> "Run":
        """The same message in another route (a branch of it, its failure): what was done to it stays done, and media
        that could not be relayed may be asked for once more."""
        run = Run(self.arrived, self.arrival, self.policy, route, facts or self.facts)
        run.message, run.destination = self.message, self.destination
        run._aliased, run._asymmetric = self._aliased, self._asymmetric
        if self._media != FAILED:
            run._media = self._media
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
        return _result(nat.client_nat_test(self._judged, self.arrival, tests, self.sip_asymmetric))

    def nat_test(self, name: object) -> Result:
        """1 if the named test finds that the sender is behind NAT, else -1; see ``nat.NAMED_TESTS``."""
        check_route("nat_test", self.route)
        return _result(nat.nat_test(self._judged, self.arrival, test_name(name), self.sip_asymmetric))

    def nat_uac_test(self, flags: object) -> Result:
        """1 if one of nathelper's tests holds, else -1; see ``nat.nat_uac_test``. ``flags``: a sum, as number or
        text."""
        check_route("nat_uac_test", self.route)
        chosen = test_numbers("nat_uac_test", flags)
        return _result(nat.nat_uac_test(self._judged, self.arrival, chosen, self.destination))

    @property
    def _judged(self) -> Message:
        """What the tests look at: the message with this run's edits, but with the top Via and the body that its sender
        wrote: ``received`` of ours and the relay's addresses say nothing about him."""
        message, arrived = self.message, self.arrived
        if message is arrived:
            return message
        came, stands = arrived.elements("via")[:1], message.elements("via")[:1]
        if came and stands and came != stands:
            message = message.replace_value("via", 0, came[0])
        return message if message.octets == arrived.octets else message.with_body(arrived.body)

    def fix_contact(self) -> Result:
        """Put the packet's source into every Contact; 1, or -1 if there is none, or ``*``; see ``nat.fix_contact``."""
        check_route("fix_contact", self.route)
        fixed = nat.fix_contact(self.message, self.arrival, self.sip_asymmetric)
        if fixed is None:
            return FAILED
        self.message = fixed
        return OK

    def add_contact_alias(self) -> Result:
        """Put the packet's source into every Contact as an alias; 1 added, 2 not needed, -1 error, or the message has
        got its alias already; see ``nat.add_contact_alias``."""
        check_route("add_contact_alias", self.route)
        aliased = None if self._aliased else nat.add_contact_alias(self.message, self.arrival, self.sip_asymmetric)
        if aliased is None:
            return FAILED
        if aliased is self.message:
            return NOTHING
        self.message, self._aliased = aliased, True
        return OK

    def handle_ruri_alias(self) -> Result:
        """Take the alias off the Request-URI and make it the ``destination``; 1 done, 2 there is none, -1 malformed;
        see ``nat.handle_ruri_alias``."""
        check_route("handle_ruri_alias", self.route)
        if not isinstance(self.message, Request):
            return FAILED
        try:
            found = nat.handle_ruri_alias(self.message)
        except SipError:
            return FAILED
        if found is None:
            return NOTHING
        self.message, self.destination = found.request, found.destination
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
        EndRequest REFUSED and BRANCH); the code is -2 all the same. BYE and CANCEL are for end_media_session. What is
        neither offer nor answer, such as an OPTIONS, is left alone: -1.
        """
        check_route("use_media_proxy", self.route)
        if self._media is None:
            self._media = yield from self._use_media_proxy()
        return self._media

    def _use_media_proxy(self) -> Steps:
        arrived = self.arrived
        planned = plan(arrived, self.arrival, self.policy, self.facts)
        ends = isinstance(arrived, Request) and arrived.method in ("BYE", "CANCEL")
        reply = None
        if planned.request is not None and not ends:
            reply = yield planned.request
        if planned.sdp is None and not planned.error:
            return self._nothing_to_relay()
        self.failure = planned.failure(reply)
        if self.failure is not None:
            return FAILED
        self.message = planned.complete(reply, self.message)
        return OK

    def _nothing_to_relay(self) -> Result:
        """The code for a message whose SDP has no streams, that has no SDP, or that negotiates no media."""
        arrived = self.arrived
        if not arrived.complete_head or not arrived.header("call-id"):
            return FAILED
        if not arrived.body:
            return NO_SDP
        return _result(negotiates(arrived) and sdp_part(arrived) is not None)

    def end_media_session(self) -> Steps:
        """End the call's media: 1 if the media arm was told, whatever it says; -1 if not, or there is no Call-ID.

        BYE and CANCEL count by their tags and branch (calls.md 10), and so do their responses. A failed INVITE ends the
        attempt. A failed re-INVITE, or any other request within a dialog in its failure route, ends only what its offer
        wanted, for the call goes on (RFC 3261 §14.1), unless the other side knows of none any more (408, 481): that
        ends the dialog. Any other message ends the whole call.
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
            cause = self._end_cause()
            if cause is not EndCause.ADMIN:
                return self._end_of(cause)
            return EndRequest(call_id=message.call_id, sender=Party(), receiver=Party(), cause=cause)
        except SipError:
            return None

    def _end_cause(self) -> EndCause:
        message = self.arrived
        if not message.count("cseq"):
            return EndCause.ADMIN
        method = message.cseq.method
        if method in ("BYE", "CANCEL"):
            return EndCause.BYE if method == "BYE" else EndCause.CANCEL
        failed = self.route is RouteType.FAILURE and bool(message.to.tag)
        if method != "INVITE" and not failed:
            return EndCause.ADMIN
        if isinstance(message, Response):
            status, in_dialog = message.status, self.facts.in_dialog
            if status < 300:
                return EndCause.ADMIN
        else:
            status, in_dialog = self.status, bool(message.to.tag)
        if not in_dialog:
            return EndCause.FAILURE
        return EndCause.BYE if status in _DIALOG_GONE else EndCause.REFUSED

    def _end_of(self, cause: EndCause) -> EndRequest:
        message = self.arrived
        status, branch = 0, ""
        if cause in (EndCause.FAILURE, EndCause.REFUSED):
            status = message.status if isinstance(message, Response) else self.status
        if cause in (EndCause.CANCEL, EndCause.FAILURE):
            # That of the INVITE as it came. The top Via of a response is our own.
            known = self.facts.branch if message.is_request or self.facts.final else ""
            branch = known or (message.via.branch if message.is_request else "")
        question = end_request(message, cause, self.policy, status=status, branch=branch)
        if cause is EndCause.REFUSED and message.is_request:  # who refused it is its receiver
            question = msgspec.structs.replace(question, sender=question.receiver, receiver=question.sender)
        return question


def _result(yes: bool) -> Result:
    return OK if yes else FAILED


def drive(steps: Steps, answer: Callable[[Question], MediaReply | None]) -> Result:
    """Run a function that asks to its end, with a host's blocking way to ask."""
    try:
        question = next(steps)
        while True:
            question = steps.send(answer(question))
    except StopIteration as done:
        result: Result = done.value
        return result
