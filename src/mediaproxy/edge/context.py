"""The response context of a stateful proxy (RFC 3261 §16.6 to §16.10): one request on its way, from the question about
its media over the fork to the one final response.

Responses, answers and the CANCEL come in; effects go out. Messages with SDP wait for the media arm, and what comes
behind them waits too, so that the caller sees everything in order. It never decides where a request goes.
"""

from collections import deque
from dataclasses import dataclass
from typing import Protocol

from mediaproxy.control import MediaReply, MediaRequest
from mediaproxy.edge.alarms import Alarms
from mediaproxy.edge.branch import Branch
from mediaproxy.edge.dialogs import Attempt, Dialogs
from mediaproxy.edge.effects import Ask, Effect, Resolve
from mediaproxy.edge.fork import Target, aimed, best, shared, version_of
from mediaproxy.edge.hop import Hop, Inbound
from mediaproxy.edge.media import Facts, Media, Plan
from mediaproxy.edge.settings import Listener
from mediaproxy.edge.transactions import Served, Transactions
from mediaproxy.sip.grammar import SipError, quote
from mediaproxy.sip.message import Request, Response


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A request, and what was decided about it."""

    arrived: Request
    "As it came: the media arm is told the Contact as the phone sent it."
    request: Request
    "Repaired, without our Routes and the credentials for us."
    inbound: Inbound
    groups: list[tuple[Target, ...]]
    "Whom it goes to, and in which order."
    local: Listener | None = None
    "The socket that the other side of the dialog is reached from, if it is known."
    loop: str = ""
    "Loop hash of the request as it came."
    attempt: Attempt | None = None
    "What the dialogs of an INVITE that begins a call will need."

    @property
    def in_dialog(self) -> bool:
        """Whether it belongs to a dialog that exists."""
        return bool(self.request.to.tag)


class Desk(Protocol):
    """What the proxy does for its contexts."""

    transactions: Transactions
    alarms: Alarms[Branch]
    media: Media
    dialogs: Dialogs

    def answer(self, request: Request, status: int, headers: tuple[tuple[str, str], ...] = ()) -> Response:
        """A response of our own."""

    def prepare(self, job: Job, request: Request, hop: Hop) -> tuple[Request, Hop] | int:
        """As ``branch.Parent.prepare``."""

    def repaired(self, response: Response, inbound: Inbound) -> Response:
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
        self._caller_version = job.inbound.source.version
        self._request = job.request
        "What is forked: with the relay's ports in its SDP, as soon as these are known."
        self._groups = list(job.groups)
        self._branches: list[Branch] = []
        self._opening = 0
        "Targets whose branch has not begun."
        self._responses: list[Response] = []
        self._queue: deque[tuple[Branch, Response, Inbound]] = deque()
        self._busy = False
        self._cancelled = False
        self._concluded = False
        "A final response went upstream, or none ever will."
        served.caller = self

    def start(self, now: float) -> list[Effect]:
        """Set out."""
        job = self._job
        assert job is not None
        effects: list[Effect] = []
        if self._attempt is not None:
            self._attempt.ringing = self
            self._desk.dialogs.begin(self._attempt)
        if self._invite:
            effects += self._respond(self._desk.answer(job.request, 100), now)
        plan = self._desk.media.plan(job.arrived, job.inbound, self._facts(version_of(job.groups[0], job.request.uri)))
        if isinstance(plan.request, MediaRequest):
            ask = Ask(plan.request, lambda reply, at: self._prepared(plan, reply, at))
            return [*effects, ask]
        if plan.request is not None:
            effects.append(Ask(plan.request))
        return effects + self._prepared(plan, None, now)

    def _facts(self, reader: int) -> Facts:
        """About a message with SDP. ``reader``: the IP version of whom it is for; within a dialog the media arm knows
        it better, from what it has carried."""
        return Facts(in_dialog=self._in_dialog, receiver_version=0 if self._in_dialog else reader)

    def _prepared(self, plan: Plan, reply: MediaReply | None, now: float) -> list[Effect]:
        if self._concluded:
            return []
        failure = plan.failure(reply)
        if failure is not None:
            return self._finish(self._refused(failure.status, failure.reason), now)
        self._note_media(reply)
        self._request = plan.complete(reply, self._request)
        return self._next_group(now)

    def _refused(self, status: int, why: str) -> Response:
        warning = ("Warning", f"399 mediaproxy {quote(_one_line(why))}")
        return self._desk.answer(self._request, status, (warning,))

    def _note_media(self, reply: MediaReply | None) -> None:
        if self._attempt is not None and reply is not None and any(reply.ports):
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
            return self._begin(message, (aim,), now)
        return [Resolve(aim, lambda hops, at: self._begin(message, hops, at))]

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
        effects: list[Effect] = []
        while self._queue and not self._busy:
            branch, response, inbound = self._queue.popleft()
            if self._concluded and response.status < 200:
                continue  # behind a final response it would only confuse
            media = self._desk.media
            plan = media.plan(response, inbound, self._facts(self._caller_version))
            fixed = self._desk.repaired(response, inbound).remove_value("Via", 0)  # §16.7 step 3
            if isinstance(plan.request, MediaRequest):
                self._busy = True
                effects.append(self._ask_for(branch, plan, fixed))
            else:
                effects += self._deliver(branch, fixed, plan, now)
        return effects

    def _ask_for(self, branch: Branch, plan: Plan, response: Response) -> Ask:
        assert plan.request is not None

        def then(reply: MediaReply, now: float) -> list[Effect]:
            self._busy = False
            self._note_media(reply)
            # A response whose media cannot be relayed still says what the phone did: it goes on as it is.
            completed = plan.complete(reply, response)
            return self._deliver(branch, completed, None, now) + self._work(now)

        return Ask(plan.request, then)

    def _deliver(self, branch: Branch, response: Response, plan: Plan | None, now: float) -> list[Effect]:
        question = plan.request if plan is not None else None
        effects: list[Effect] = []
        if response.status >= 300:
            return self._failed(branch, response, plan, now)
        if question is not None:
            effects.append(Ask(question))
        if not response.values("Via"):
            return effects  # nobody asked for it
        if response.status < 200:
            return effects if self._concluded else effects + self._respond(response, now)  # §16.7 step 5
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
            return self._failed(branch, self._desk.answer(self._request, status), None, now)
        branch.settled = True
        return self._proceed(now)

    def _failed(self, branch: Branch, response: Response, plan: Plan | None, now: float) -> list[Effect]:
        if branch.settled:
            return []
        branch.settled = True
        effects: list[Effect] = []
        if plan is not None and plan.request is not None and self._others_live():
            effects.append(Ask(plan.request))
        if not self._concluded:
            self._responses.append(response)
        if response.status >= 600:
            self._groups.clear()  # §16.7 step 5
            effects += self._cancel_others(now)
        return effects + self._proceed(now)

    def _others_live(self) -> bool:
        return self._concluded or bool(self._groups) or self._opening > 0 or not all(b.settled for b in self._branches)

    def _cancel_others(self, now: float) -> list[Effect]:
        return [effect for branch in self._branches if not branch.final for effect in branch.cancel(now)]

    def _proceed(self, now: float) -> list[Effect]:
        """§16.7 step 6: when every branch has ended, the next ones, or the best response."""
        if self._concluded or self._opening or not all(branch.settled for branch in self._branches):
            return []
        if self._groups and not self._cancelled:
            return self._next_group(now)
        response = best(self._responses)
        if self._cancelled and (response is None or response.status in (408, 480, 503)):
            return self._finish(self._desk.answer(self._request, 487), now)
        if response is None:
            # RFC 4320 §4.2: the caller's own timer has run out as well.
            timeout = self._desk.answer(self._request, 408)
            if not self._invite:
                effects = self._media_failed(timeout)
                self._conclude()
                self._desk.transactions.abandon(self._served)
                return effects
            response = timeout
        if response.status == 503:
            response = self._desk.answer(self._request, 500)  # §16.7 step 6: a 503 would mean us
        return self._finish(response, now)

    def _finish(self, response: Response, now: float) -> list[Effect]:
        """The final response that is no 2xx."""
        effects = self._respond(response, now) + self._media_failed(response)
        self._conclude()
        return effects

    def _media_failed(self, response: Response) -> list[Effect]:
        """Tell the media arm how the request ended: no call comes of it, or its offer is refused."""
        if self._job is None:
            return []
        facts = Facts(in_dialog=self._in_dialog, final=True, branch=self._job.arrived.via.branch or "")
        plan = self._desk.media.plan(response, self._job.inbound, facts)
        return [] if plan.request is None else [Ask(plan.request)]

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

    def cancel(self, request: Request, inbound: Inbound, now: float) -> list[Effect]:
        """The caller gave up (§16.10)."""
        if self._cancelled or self._concluded:
            return []
        self._cancelled = True
        self._groups.clear()
        plan = self._desk.media.plan(request, inbound)
        effects: list[Effect] = [Ask(plan.request)] if plan.request is not None else []
        if not self._branches:
            return effects + self._finish(self._desk.answer(self._request, 487), now)
        return effects + self._cancel_others(now)

    def hang_up(self, status: int, why: str, now: float) -> list[Effect]:
        """The media arm has ended the call while it rang (calls.md 11). The caller is not kept waiting for what the
        branches say to their CANCEL; a 2xx still passes."""
        if self._concluded:
            return []
        status = 487 if self._cancelled else status
        self._cancelled = True
        effects = self._cancel_others(now) + self._respond(self._refused(status, why), now)
        self._conclude()
        return effects


def _one_line(text: str) -> str:
    return "".join(char if " " <= char < "\x7f" else "?" for char in text[:200])
