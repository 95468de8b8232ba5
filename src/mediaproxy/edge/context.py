"""The response context of a stateful proxy (RFC 3261 §16.6 to §16.10): one request on its way, from the fork to the one
final response.

Responses and the CANCEL come in; effects go out. Replies, branches and the failure run through the routes of the script
that are for them. A reply whose route waits for the media arm holds up those behind it, so that the caller sees
everything in order. It never decides where a request goes.
"""

from collections import deque
from typing import Protocol

from mediaproxy.control import EndCause, EndRequest
from mediaproxy.edge.alarms import Alarms
from mediaproxy.edge.branch import Branch
from mediaproxy.edge.dialogs import Attempt, Dialogs
from mediaproxy.edge.effects import Ask, Effect, Resolve
from mediaproxy.edge.fork import Target, aimed, best, shared
from mediaproxy.edge.hop import Hop, Inbound
from mediaproxy.edge.job import Job
from mediaproxy.edge.media import Facts, Media
from mediaproxy.edge.script.interpreter import Interpreter
from mediaproxy.edge.stages import BranchStage, FailureStage, ReplyStage
from mediaproxy.edge.transactions import Served, Transactions
from mediaproxy.module import RouteType
from mediaproxy.sip.grammar import SipError, quote
from mediaproxy.sip.message import Request, Response


class Desk(Protocol):
    """What the proxy does for its contexts."""

    transactions: Transactions
    alarms: Alarms[Branch]
    media: Media
    dialogs: Dialogs
    script: Interpreter

    def answer(
        self, request: Request, status: int, headers: tuple[tuple[str, str], ...] = (), reason: str | None = None
    ) -> Response:
        """A response of our own."""

    def natted(self, inbound: Inbound) -> bool:
        """As ``script.stage.Desk.natted``."""

    def prepare(self, job: Job, request: Request, hop: Hop) -> tuple[Request, Hop] | int:
        """As ``branch.Parent.prepare``."""

    def returned(self, response: Response) -> Response:
        """A response as it goes upstream, our Via still on it."""

    def established(self, attempt: Attempt, response: Response, now: float) -> list[Effect]:
        """A 2xx that begins a call went upstream."""


class Context:
    """One request on its way."""

    def __init__(self, desk: Desk, served: Served, job: Job) -> None:
        self._desk = desk
        self._served = served
        self._job: Job | None = job
        self._in_dialog = job.in_dialog
        self._invite = job.request.method == "INVITE"
        self._attempt = job.attempt
        self._flags = job.flags
        self._ice = job.run.policy.ice
        self._caller_version = job.inbound.source.version
        self._request = job.request
        self._groups = list(job.groups)
        self._branches: list[Branch] = []
        self._opening = 0
        "Targets whose branch has not begun."
        self._responses: list[Response] = []
        self._queue: deque[tuple[Branch, Response, Inbound]] = deque()
        self._busy = False
        "A reply is in onreply_route."
        self._working = False
        self._finishing = False
        "The final response is in failure_route."
        self._cancelled = False
        self._concluded = False
        "A final response went upstream, or none ever will."
        served.caller = self

    def start(self, now: float) -> list[Effect]:
        """Set out."""
        if self._attempt is not None:
            self._attempt.ringing = self
            self._desk.dialogs.begin(self._attempt)
        return self._next_group(now)

    def _facts(self, reader: int) -> Facts:
        """About a message with SDP. ``reader``: the IP version of whom it is for; within a dialog the media arm knows
        it better, from what it has carried."""
        return Facts(in_dialog=self._in_dialog, receiver_version=0 if self._in_dialog else reader)

    def _note_media(self, relayed: bool) -> None:
        if self._attempt is not None and relayed:
            self._attempt.relayed = True

    # -- forking

    def _next_group(self, now: float) -> list[Effect]:
        targets = self._groups.pop(0)
        request = shared(self._request, len(targets))
        if request is None:
            self._responses.append(self._desk.answer(self._request, 440))
            return self._proceed(now)
        effects: list[Effect] = []
        self._opening += len(targets)
        for target in targets:
            effects += self._open(request, target, now)
        return effects

    def _open(self, request: Request, target: Target, now: float) -> list[Effect]:
        try:
            if target.unreachable:
                return self._begin(request, (), now, 480)
            message, aim = aimed(request, target, self._job.local if self._job is not None else None)
        except SipError as error:
            return self._begin(request, (), now, error.status)
        if isinstance(aim, Hop):
            return self._shape(message, target, (aim,), now)
        return [Resolve(aim, lambda hops, at: self._shape(message, target, hops, at))]

    def _shape(self, message: Request, target: Target, hops: tuple[Hop, ...], now: float) -> list[Effect]:
        """What branch_route makes of it."""
        job, script = self._job, self._desk.script
        if job is None or self._cancelled or not hops or not script.has(RouteType.BRANCH):
            return self._begin(message, hops, now)
        # What a phone has registered, or who may go anywhere, may say in the Request-URI where it goes.
        trusted = bool(target.uri) or job.privileged
        stage = BranchStage(self._desk, job, message, self._facts(hops[0].remote.version), trusted=trusted)

        def then(at: float) -> list[Effect]:
            self._note_media(stage.relayed)
            if stage.dropped:
                return self._begin(message, (), at, 480)
            return self._begin(stage.request, stage.hops(hops), at)

        return script.run(stage, then, now)

    def _begin(self, message: Request, hops: tuple[Hop, ...], now: float, status: int = 503) -> list[Effect]:
        """Begin the branch of one target; without hops it fails with ``status``."""
        self._opening -= 1
        if self._concluded or self._cancelled:
            return self._proceed(now)
        desk = self._desk
        branch = Branch(self, desk.transactions, desk.alarms, message, hops)
        self._branches.append(branch)
        if hops:
            return branch.start(now)
        branch.final = True
        return self.gave_up(branch, status, now)

    def prepare(self, request: Request, hop: Hop) -> tuple[Request, Hop] | int:
        """For a branch: the request as it goes to that hop."""
        if self._job is None:
            return 503
        return self._desk.prepare(self._job, request, hop)

    # -- responses

    def received(self, branch: Branch, response: Response, inbound: Inbound, now: float) -> list[Effect]:
        """From a branch: a response other than 100, our Via still on it."""
        self._queue.append((branch, response, inbound))
        return self._work(now)

    def _work(self, now: float) -> list[Effect]:
        if self._working:
            return []
        self._working = True
        effects: list[Effect] = []
        try:
            while self._queue and not self._busy:
                branch, response, inbound = self._queue.popleft()
                if self._concluded and response.status < 200:
                    continue  # behind a final response it would only confuse
                effects += self._reply(branch, response, inbound, now)
        finally:
            self._working = False
        return effects

    def _reply(self, branch: Branch, response: Response, inbound: Inbound, now: float) -> list[Effect]:
        """What onreply_route makes of it."""
        if not self._desk.script.has(RouteType.ONREPLY):
            return self._deliver(branch, response, response, inbound, now)
        self._busy = True
        facts = self._facts(self._caller_version)
        stage = ReplyStage(self._desk, response, inbound, facts, self._flags, self._ice)

        def then(at: float) -> list[Effect]:
            self._busy = False
            self._note_media(stage.relayed)
            left = stage.response
            effects = [] if left is None else self._deliver(branch, left, response, inbound, at)
            return effects + self._work(at)

        return self._desk.script.run(stage, then, now)

    def _deliver(
        self, branch: Branch, response: Response, arrived: Response, inbound: Inbound, now: float
    ) -> list[Effect]:
        """A response as the script leaves it goes upstream."""
        if response.status >= 300 and self._others_live(branch):
            effects = self._tell(arrived, inbound, final=False)
        else:
            effects = []
        response = self._desk.returned(response).remove_value("Via", 0)  # §16.7 step 3
        if response.status >= 300:
            return effects + self._failed(branch, response, now)
        if not response.values("Via"):
            return []  # nobody asked for it
        if response.status < 200:
            return [] if self._concluded else self._respond(response, now)  # §16.7 step 5
        branch.settled = True
        effects += self._respond(response, now)
        if self._attempt is not None:
            effects += self._desk.established(self._attempt, response, now)
        elif self._job is not None:
            self._desk.dialogs.refresh(self._job.request, response)
        self._conclude()
        return effects + self._cancel_others(now)

    def gave_up(self, branch: Branch, status: int, now: float) -> list[Effect]:
        """From a branch: it ended without a final response."""
        if status:
            return self._failed(branch, self._desk.answer(self._request, status), now)
        branch.settled = True
        return self._proceed(now)

    def _failed(self, branch: Branch, response: Response, now: float) -> list[Effect]:
        if branch.settled:
            return []
        branch.settled = True
        effects: list[Effect] = []
        if not self._concluded:
            self._responses.append(response)
        if response.status >= 600:
            self._groups.clear()  # §16.7 step 5
            effects += self._cancel_others(now)
        return effects + self._proceed(now)

    def _others_live(self, branch: Branch) -> bool:
        """Whether a branch that has failed is not the last one: then only its own media is over."""
        if branch.settled:
            return False
        others = (one for one in self._branches if one is not branch)
        return self._concluded or bool(self._groups) or self._opening > 0 or not all(b.settled for b in others)

    def _cancel_others(self, now: float) -> list[Effect]:
        return [effect for branch in self._branches if not branch.final for effect in branch.cancel(now)]

    def _proceed(self, now: float) -> list[Effect]:
        """§16.7 step 6: when every branch has ended, the next ones, or the best response."""
        done = self._concluded or self._finishing
        if done or self._opening or not all(branch.settled for branch in self._branches):
            return []
        if self._groups and not self._cancelled:
            return self._next_group(now)
        response = best(self._responses)
        if self._cancelled and (response is None or response.status in (408, 480, 503)):
            return self._finish(self._desk.answer(self._request, 487), now)
        if response is None:
            # RFC 4320 §4.2: the caller's own timer has run out as well, but that of an INVITE.
            return self._finish(self._desk.answer(self._request, 408), now, silently=not self._invite)
        if response.status == 503:
            response = self._desk.answer(self._request, 500)  # §16.7 step 6: a 503 would mean us
        return self._finish(response, now)

    def _finish(self, response: Response, now: float, *, silently: bool = False) -> list[Effect]:
        """The final response that is no 2xx, when failure_route has seen it. ``silently``: it is not sent."""
        job, script = self._job, self._desk.script
        self._finishing = True
        if job is None or not script.has(RouteType.FAILURE):
            return self._end(response, now, silently, told=False)
        stage = FailureStage(self._desk, job, response.status)
        return script.run(stage, lambda at: self._end(response, at, silently, told=stage.ended, must=stage.broken), now)

    def _end(self, response: Response, now: float, silently: bool, *, told: bool, must: bool = False) -> list[Effect]:
        """``told``: the script has told the media arm that the request failed; ``must``: it could not."""
        if self._concluded:
            return []  # a 2xx has come meanwhile
        effects: list[Effect] = []
        if not silently:
            effects += self._respond(response, now)
        if self._job is not None and not told:
            effects += self._tell(response, self._job.inbound, final=True, only_refused=not must)
        self._conclude()
        if silently:
            self._desk.transactions.abandon(self._served)
        return effects

    def _tell(self, response: Response, inbound: Inbound, *, final: bool, only_refused: bool = False) -> list[Effect]:
        """Tell the media arm what no script need know: that a branch has failed, or that an offer within a dialog is
        refused. That no call comes of an INVITE is the script's business (``only_refused``)."""
        branch = (self._job.arrived.via.branch or "") if final and self._job is not None else ""
        plan = self._desk.media.plan(response, inbound, Facts(in_dialog=self._in_dialog, final=final, branch=branch))
        question = plan.request
        if not isinstance(question, EndRequest) or (only_refused and question.cause is not EndCause.REFUSED):
            return []
        return [Ask(question)]

    def _respond(self, response: Response, now: float) -> list[Effect]:
        return self._desk.transactions.respond(self._served, response, now)

    def _conclude(self) -> None:
        """Keep nothing that only an open request needs; further 2xx pass through."""
        self._concluded = True
        if self._attempt is not None:
            self._desk.dialogs.settled(self._attempt)
        self._groups.clear()
        self._responses.clear()
        self._job = None

    # -- giving up

    @property
    def cancellable(self) -> bool:
        """As ``transactions.Caller.cancellable``."""
        return not (self._cancelled or self._concluded or self._finishing)

    def cancel(self, now: float) -> list[Effect]:
        """The caller gave up (§16.10)."""
        self._cancelled = True
        self._groups.clear()
        if not self._branches:
            return self._finish(self._desk.answer(self._request, 487), now)
        return self._cancel_others(now)

    def hang_up(self, status: int, why: str, now: float) -> list[Effect]:
        """The media arm has ended the call while it rang (calls.md 11). The caller is not kept waiting for what the
        branches say to their CANCEL; a 2xx still passes."""
        if self._concluded:
            return []
        status = 487 if self._cancelled else status
        self._cancelled = True
        refused = self._desk.answer(self._request, status, (warning(why),))
        effects = self._cancel_others(now) + self._respond(refused, now)
        self._conclude()
        return effects


def warning(why: str) -> tuple[str, str]:
    """A header that says why."""
    text = "".join(char if " " <= char < "\x7f" else "?" for char in why[:200])
    return ("Warning", f"399 mediaproxy {quote(text)}")
