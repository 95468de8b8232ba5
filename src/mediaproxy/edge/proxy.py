"""The stateful proxy of RFC 3261 §16, without IO: what happens to each message that reaches the edge.

Parsed and checked messages come in with where they came from; effects go out. What is wrong, or not permitted, or for
the server itself, is answered at once and without state; all else runs through the routing script (``request``). It
must never forward a request for somebody who may not, nor a response that nobody asked for.
"""

import random
from collections.abc import Iterable
from dataclasses import replace
from typing import Protocol

from mediaproxy.edge import fork, registrar
from mediaproxy.edge.alarms import Alarms
from mediaproxy.edge.branch import Branch
from mediaproxy.edge.dialogs import Attempt, Dialogs
from mediaproxy.edge.domains import Domains
from mediaproxy.edge.effects import Effect, Refused, Send
from mediaproxy.edge.farewell import WHY, Parting
from mediaproxy.edge.gate import Gate, Pass
from mediaproxy.edge.hop import Hop, Inbound, Network
from mediaproxy.edge.job import Job
from mediaproxy.edge.media import Media
from mediaproxy.edge.request import AckStage, CancelStage, RequestStage
from mediaproxy.edge.routing import (
    Marks,
    Refusal,
    Routed,
    Routes,
    judge,
    lacking,
    reply_hop,
    stray_hop,
    strict,
    with_via,
)
from mediaproxy.edge.script.interpreter import Interpreter
from mediaproxy.edge.script.loading import Script
from mediaproxy.edge.serving import Admitted
from mediaproxy.edge.settings import EdgeSettings, Listener
from mediaproxy.edge.stages import ReplyStage
from mediaproxy.edge.targets import Directory as Located
from mediaproxy.edge.targets import Targets
from mediaproxy.edge.transactions import Transactions
from mediaproxy.events import CallEnded, EndReason
from mediaproxy.module import RouteType
from mediaproxy.sip.message import Request, Response, response_to
from mediaproxy.sip.transaction import server_key
from mediaproxy.traversal import Facts

METHODS = "INVITE, ACK, CANCEL, BYE, OPTIONS, REGISTER, MESSAGE, SUBSCRIBE, NOTIFY, REFER, INFO, UPDATE, PRACK, PUBLISH"
"Allow header of our answers to OPTIONS; other methods are forwarded as well."


class Directory(Located, Protocol):
    """The location table, as the proxy sees it."""

    def register(self, asked: registrar.Registering, inbound: Inbound, now: float) -> registrar.Outcome:
        """Judge a REGISTER of an own domain by an identified user, and keep what it says. SipError if it is broken."""

    def natted(self, inbound: Inbound) -> bool:
        """Whether a registered phone behind NAT is at that source."""


class Proxy:
    """One per edge."""

    def __init__(
        self,
        settings: EdgeSettings,
        network: Network,
        directory: Directory,
        secret: bytes,
        rng: random.Random,
        script: Script | None = None,
    ) -> None:
        """``network`` has its listeners already. ``secret``: at least 16 random bytes; a later run with the same one
        knows the dialogs of this one. ``script``: None for the default one; ``script.script`` may be set later."""
        self._settings = settings
        self._network = network
        self._directory = directory
        self._rng = rng
        self.domains = Domains(settings, network.listeners)
        self.media = Media(settings, self.domains.hosts)
        self.transactions = Transactions(settings.timers)
        self.alarms: Alarms[Branch] = Alarms()
        self.dialogs = Dialogs(settings.limits.dialogs)
        self._marks = Marks(secret)
        self._routes = Routes(self._marks, self.domains, network.listeners)
        self._gate = Gate(settings, self.domains, secret, rng)
        self.targets = Targets(settings, self.domains, directory, self._gate)
        self.script = Interpreter(script or Script.default(settings))

    def learn(self, aors: Iterable[str]) -> None:
        """These addresses of record are registered: their hosts are ours where nobody said which are."""
        for aor in aors:
            self.domains.learn(aor.rpartition("@")[2])
        self.media.update(self.domains.hosts)

    def change(self, settings: EdgeSettings) -> None:
        """Other routes, lists and limits count from now on; listeners, domains, accounts and timers do not change."""
        self._settings = self.targets.settings = settings
        self.media.update(self.domains.hosts, settings)

    # -- requests

    def request(self, request: Request, inbound: Inbound, now: float) -> list[Effect]:
        """A request that ``sip.check`` has passed."""
        key = server_key(request)
        served = self.transactions.find(key)
        if served is not None:
            if request.method != "ACK":
                return self.transactions.repeated(served)
            if not self.transactions.acknowledged(served, now):
                return []
        if request.method == "ACK":
            return self._acknowledge(request, inbound, now)
        if request.method == "CANCEL":
            return self._cancel(request, inbound, now)
        if self.transactions.served >= self._settings.limits.transactions:
            return self._refuse(request, inbound, Refusal(status=503, why="too many transactions"))
        refusal = judge(request, self._marks)
        if refusal is not None:
            return self._refuse(request, inbound, refusal)
        routed = self._routes.strip(request)
        if request.method == "REGISTER" and not routed.request.routes:
            return self._register(request, routed, inbound, now)
        if self._is_for_us(routed.request):
            return self._answer_ourselves(request, inbound)
        passed = self._gate.judge(routed.request, inbound, self.targets.may_follow(routed, inbound), now)
        return self._admit(request, routed, passed, inbound, now)

    def _is_for_us(self, request: Request) -> bool:
        if request.max_forwards == 0:
            return True  # only OPTIONS, and a REGISTER for somebody else, come so far (RFC 3261 §11)
        return not request.routes and not request.uri.user and self.domains.owns(request.uri)

    def _answer_ourselves(self, request: Request, inbound: Inbound) -> list[Effect]:
        """A request to the server itself: keep-alives of phones, mostly."""
        refusal = lacking(request, "Require", registrar.EXTENSIONS)
        if refusal is not None:
            return self._refuse(request, inbound, refusal)
        keepalive = request.method == "NOTIFY" and (request.header("Event") or "").lower() == "keep-alive"
        if request.method == "OPTIONS" or keepalive:
            can = (("Allow", METHODS), ("Accept", "*/*"), ("Supported", ", ".join(registrar.EXTENSIONS)))
            noted = self.media.noted(request, inbound)
            return [self._reply(noted, inbound, self.answer(noted, 200, can))]
        return self._refuse(request, inbound, Refusal(status=483 if request.max_forwards == 0 else 404))

    def _register(self, request: Request, routed: Routed, inbound: Inbound, now: float) -> list[Effect]:
        passed = self._gate.judge_register(request, inbound, now)
        if isinstance(passed, Pass):
            # Who may register here may not for that reason send anything elsewhere.
            known = passed.account is not None or self._gate.is_trusted(inbound.source.address)
            passed = replace(passed, request=routed.request, privileged=known, routes=known)
        return self._admit(request, routed, passed, inbound, now)

    def _admit(
        self, request: Request, routed: Routed, passed: Pass | Refusal, inbound: Inbound, now: float
    ) -> list[Effect]:
        """A request that may come in goes through the script."""
        if isinstance(passed, Refusal):
            return self._refuse(request, inbound, passed)
        admitted = Admitted(arrived=request, routed=routed, passed=passed, inbound=inbound)
        return self._route(RequestStage(self, admitted), now)

    def _route(self, stage: RequestStage, now: float) -> list[Effect]:
        name = self.script.script.name
        return self.script.run(stage, lambda at: stage.finish(name, at), now)

    def _cancel(self, request: Request, inbound: Inbound, now: float) -> list[Effect]:
        served = self.transactions.find(server_key(request, "INVITE"))
        if served is None:
            # §16.10 would pass it on without state; but nobody downstream knows our branch of that INVITE then.
            return self._refuse(request, inbound, Refusal(status=481))
        noted = self.media.noted(request, inbound)
        reply = self._reply(noted, inbound, self.answer(noted, 200))
        caller = served.caller
        if caller is None or not caller.cancellable:
            return [reply]
        routed = self._routes.strip(request)
        passed = Pass(request=routed.request, privileged=False, routes=False)
        stage = CancelStage(self, Admitted(arrived=request, routed=routed, passed=passed, inbound=inbound))
        return [reply, *self._route(stage, now), *caller.cancel(now)]

    # -- ACK of a 2xx

    def _acknowledge(self, arrived: Request, inbound: Inbound, now: float) -> list[Effect]:
        """Forwarded without state (RFC 3261 §16.11). One for our own refusals ends here; nothing is ever answered."""
        if arrived.to.tag == self._marks.tag(arrived) or judge(arrived, self._marks) is not None:
            return []
        routed = self._routes.strip(arrived)
        privileged = self.targets.may_follow(routed, inbound) or self._gate.is_trusted(inbound.source.address)
        passed = Pass(request=routed.request, privileged=privileged, routes=False)
        return self._route(
            AckStage(self, Admitted(arrived=arrived, routed=routed, passed=passed, inbound=inbound)), now
        )

    # -- responses

    def response(self, response: Response, inbound: Inbound, now: float) -> list[Effect]:
        """A response that ``sip.check`` has passed."""
        effects = self.transactions.receive(response, inbound, now)
        return self._stray(response, inbound, now) if effects is None else effects

    def _stray(self, response: Response, inbound: Inbound, now: float) -> list[Effect]:
        """A response to a transaction that is over, or of an earlier run. RFC 6026 §8.9 forbids to forward what could
        be anybody's; our mark in the branch proves that we did send the request (RFC 3261 §16.11)."""
        method = response.cseq.method
        final = response.status < 300 if method == "INVITE" else method != "CANCEL"
        if response.status < 200 or not final or self._marks.loop_of(response.via) is None:
            return []
        if not self.script.has(RouteType.ONREPLY):
            return self._send_back(response, inbound)
        stage = ReplyStage(self, response, inbound, Facts(), set())
        return self.script.run(stage, lambda at: self._send_back(stage.response or response, inbound), now)

    def _send_back(self, response: Response, inbound: Inbound) -> list[Effect]:
        response = self.returned(response).remove_value("Via", 0)
        ours = self._network.facing(inbound.transport, inbound.source)
        hop = stray_hop(response, ours) if ours is not None and response.values("Via") else None
        if hop is None:
            return []
        return [Send(hop, bytes(response.delimited() if hop.transport.reliable else response))]

    # -- calls that the media arm ends

    def call_ended(self, event: CallEnded, now: float) -> tuple[Parting | None, list[Effect]]:
        """A call is over; None: the phones know, nothing is to be done. Else their dialogs are ended, and what rings is
        cancelled (calls.md 11)."""
        call_id, tag, reason = event.call_id, event.report.caller.tag, event.report.reason
        dialogs = self.dialogs.take(call_id, tag)
        if reason not in WHY:
            return None, []
        parting = self._part(reason)
        effects = [effect for dialog in dialogs for effect in parting.hang_up(dialog, now)]
        for attempt in self.dialogs.ringing(call_id, tag):
            if attempt.ringing is not None:
                attempt.ended = reason
                parting.cancelled(attempt.caller.name)
                effects += attempt.ringing.hang_up(WHY[reason].status, WHY[reason].text, now)
        return parting, effects

    def _part(self, reason: EndReason) -> Parting:
        return Parting(self, WHY[reason], self._settings.user_agent)

    def established(self, attempt: Attempt, response: Response, now: float) -> list[Effect]:
        """As ``context.Desk.established``."""
        if not attempt.relayed:
            return []
        local, routes = self._routes.beyond(response.call_id, response.record_routes[::-1])
        dialog = attempt.answered(response, routes, local)
        if dialog is None:
            return []
        if attempt.ended is not None:
            return self._part(attempt.ended).hang_up(dialog, now)
        self.dialogs.keep(dialog)
        return []

    # -- time

    @property
    def deadline(self) -> float | None:
        """When ``tick`` must be called next."""
        one, other = self.transactions.deadline, self.alarms.deadline
        if one is None or other is None:
            return one if other is None else other
        return min(one, other)

    def tick(self, now: float) -> list[Effect]:
        """Deadlines have come."""
        effects = self.transactions.tick(now)
        while (branch := self.alarms.due(now)) is not None:
            effects += branch.tick(now)
        return effects

    # -- what stages and contexts need (request.Desk)

    def register(self, asked: registrar.Registering, inbound: Inbound, now: float) -> registrar.Outcome:
        """As ``request.Desk.register``."""
        outcome = self._directory.register(asked, inbound, now)
        if outcome.save and self.domains.learn(asked.arrived.to.uri.host):
            self.media.update(self.domains.hosts)
        return outcome

    def natted(self, inbound: Inbound) -> bool:
        """As ``script.stage.Desk.natted``."""
        return self._directory.natted(inbound)

    def listener(self, inbound: Inbound) -> Listener | None:
        """The socket that a message came to."""
        return self._routes.listener(inbound.transport, inbound.local)

    def loop_hash(self, request: Request) -> str:
        """Of all that decides where a request goes, as it came."""
        return self._marks.loop_hash(request)

    def returned(self, response: Response) -> Response:
        """A response as it goes upstream, our Via still on it."""
        return self._routes.returned(response)

    def answer(
        self, request: Request, status: int, headers: tuple[tuple[str, str], ...] = (), reason: str | None = None
    ) -> Response:
        """A response of our own."""
        headers = (*headers, *self._signature())
        return response_to(request, status, reason, to_tag=self._marks.tag(request), headers=headers)

    def prepare(self, job: Job, request: Request, hop: Hop) -> tuple[Request, Hop] | int:
        """As ``branch.Parent.prepare``."""
        branch = self._marks.branch(f"{self._rng.getrandbits(64):016x}", job.loop)
        return self._prepare(job, request, hop, branch)

    def prepare_stateless(self, job: Job, request: Request, hop: Hop) -> tuple[Request, Hop] | int:
        """The same with a branch that a retransmission has, too."""
        return self._prepare(job, request, hop, self._marks.stateless_branch(job.arrived, job.loop))

    def prepare_own(self, request: Request, hop: Hop) -> tuple[Request, Hop] | int:
        """The same for a request of our own, within a dialog."""
        branch = self._marks.branch(f"{self._rng.getrandbits(64):016x}", self._marks.loop_hash(request))
        return self._prepare(None, request, hop, branch)

    def lead(self, request: Request, local: Listener | None, now: float) -> fork.Target | None:
        """As ``farewell.Desk.lead``."""
        groups = self.targets.find(Pass(request=request, privileged=True, routes=False), True, now)
        return None if isinstance(groups, Refusal) else groups[0][0]

    def _prepare(self, job: Job | None, request: Request, hop: Hop, branch: str) -> tuple[Request, Hop] | int:
        network = self._network
        listener = self._routes.listener(hop.transport, hop.local) if hop.local is not None else None
        listener = listener or network.facing(hop.transport, hop.remote)
        if listener is None:
            return 503
        connection = hop.connection
        if hop.transport.reliable:
            connection = connection or network.connection(hop.transport, hop.remote)
            if (connection and not network.alive(connection)) or not (connection or hop.connect):
                return 480  # calls.md 18
        if job is not None and job.recorded:
            request = self._routes.record(request, self.listener(job.inbound), listener)
        request = with_via(strict(request), listener, branch)
        if hop.transport.reliable:
            request = request.delimited()
        return request, Hop(hop.transport, hop.remote, listener.bind, connection, hop.connect, hop.name)

    # -- answers without state

    def _refuse(self, request: Request, inbound: Inbound, refusal: Refusal) -> list[Effect]:
        """Without state (RFC 3261 §8.2.7): a flood costs nothing, and no answer is repeated to a forged source."""
        noted = self.media.noted(request, inbound)
        response = self.answer(noted, refusal.status, refusal.headers, refusal.reason)
        effects: list[Effect] = [self._reply(noted, inbound, response)]
        if refusal.why:
            effects.append(Refused(inbound.source, f"{request.method} refused with {refusal.status}: {refusal.why}"))
        return effects

    def _reply(self, request: Request, inbound: Inbound, response: Response) -> Send:
        return Send(reply_hop(request, inbound), bytes(response))

    def _signature(self) -> tuple[tuple[str, str], ...]:
        return (("Server", self._settings.user_agent),) if self._settings.user_agent else ()
