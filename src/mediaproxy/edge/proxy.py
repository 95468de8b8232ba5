"""The stateful proxy of RFC 3261 §16, without IO: what happens to each message that reaches the edge.

Parsed and checked messages come in with where they came from; effects go out. Whatever costs nothing to say again
(refusals, answers to OPTIONS) is said without state. It must never forward a request for somebody who may not, nor a
response that nobody asked for.
"""

import random
from collections.abc import Iterable
from typing import Protocol

from mediaproxy.edge import fork, registrar
from mediaproxy.edge.acknowledgement import Acknowledgement
from mediaproxy.edge.alarms import Alarms
from mediaproxy.edge.binding import Binding
from mediaproxy.edge.branch import Branch
from mediaproxy.edge.context import Context, Job
from mediaproxy.edge.dialogs import Attempt, Dialogs
from mediaproxy.edge.domains import Domains
from mediaproxy.edge.effects import Effect, Refused, Send
from mediaproxy.edge.farewell import WHY, Parting
from mediaproxy.edge.gate import Gate, Pass
from mediaproxy.edge.hop import Hop, Inbound, Network
from mediaproxy.edge.media import Media
from mediaproxy.edge.routing import (
    DIALOG_FORMING,
    Marks,
    Refusal,
    Routed,
    Routes,
    endpoint_of,
    judge,
    lacking,
    next_hop,
    reply_hop,
    rule_for,
    stray_hop,
    strict,
    with_via,
)
from mediaproxy.edge.settings import EdgeSettings, Listener
from mediaproxy.edge.transactions import Transactions
from mediaproxy.endpoint import Endpoint
from mediaproxy.events import CallEnded, EndReason
from mediaproxy.sip.grammar import SipError
from mediaproxy.sip.header import Uri
from mediaproxy.sip.message import Request, Response, response_to
from mediaproxy.sip.reason import REASONS
from mediaproxy.sip.transaction import server_key

METHODS = "INVITE, ACK, CANCEL, BYE, OPTIONS, REGISTER, MESSAGE, SUBSCRIBE, NOTIFY, REFER, INFO, UPDATE, PRACK, PUBLISH"
"Allow header of our answers to OPTIONS; other methods are forwarded as well."

Groups = list[tuple[fork.Target, ...]]


class Directory(Protocol):
    """The location table, as the proxy sees it."""

    def lookup(self, aor: str, now: float) -> tuple[Binding, ...]:
        """The contacts of a user."""

    def register(self, asked: registrar.Registering, inbound: Inbound, now: float) -> registrar.Outcome:
        """Judge a REGISTER of an own domain by an identified user, and keep what it says. SipError if it is broken."""

    def natted(self, inbound: Inbound) -> bool:
        """Whether a registered phone behind NAT is at that source."""

    def knows(self, place: Endpoint) -> bool:
        """Whether a registered phone is at that address, whatever the port; on loopback, which many share, with it."""


class Proxy:
    """One per edge."""

    def __init__(
        self, settings: EdgeSettings, network: Network, directory: Directory, secret: bytes, rng: random.Random
    ) -> None:
        """``network`` has its listeners already. ``secret``: at least 16 random bytes; a later run with the same one
        knows the dialogs of this one."""
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

    def learn(self, aors: Iterable[str]) -> None:
        """These addresses of record are registered: their hosts are ours where nobody said which are."""
        for aor in aors:
            self.domains.learn(aor.rpartition("@")[2])
        self.media.update(self.domains.hosts)

    def change(self, settings: EdgeSettings) -> None:
        """Other routes, lists and limits count from now on; listeners, domains, accounts and timers do not change."""
        self._settings = settings
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
        noted, natted = self.media.repair_request(request, inbound)
        if request.method == "CANCEL":
            return self._cancel(noted, inbound, now)
        if self.transactions.served >= self._settings.limits.transactions:
            return self._refuse(noted, inbound, Refusal(status=503, why="too many transactions"))
        refusal = judge(request, self._marks)
        if refusal is not None:
            return self._refuse(noted, inbound, refusal)
        routed = self._routes.strip(noted)
        if request.method == "REGISTER" and not routed.request.routes:
            flags = frozenset({self._settings.nat_flag} if natted else ())
            return self._register(registrar.Registering(request=noted, arrived=request, flags=flags), inbound, now)
        if self._is_for_us(routed.request):
            return self._answer_ourselves(noted, inbound)
        return self._forward(request, routed, inbound, now)

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
            return [self._reply(request, inbound, self.answer(request, 200, can))]
        return self._refuse(request, inbound, Refusal(status=483 if request.max_forwards == 0 else 404))

    def _forward(self, arrived: Request, routed: Routed, inbound: Inbound, now: float) -> list[Effect]:
        passed = self._gate.judge(routed.request, inbound, self._may_follow(routed, inbound), now)
        if isinstance(passed, Refusal):
            return self._refuse(routed.request, inbound, passed)
        served = None
        if passed.account is not None:
            # The password's nonce is used up: a retransmission must find a transaction, not the gate.
            served = self.transactions.serve(server_key(arrived), arrived, reply_hop(routed.request, inbound))
        groups = self._targets(passed, routed, now)
        if isinstance(groups, Refusal):
            if served is None:
                return self._refuse(routed.request, inbound, groups)
            response = self.answer(passed.request, groups.status, groups.headers)
            return self.transactions.respond(served, response, now)
        if served is None:
            served = self.transactions.serve(server_key(arrived), arrived, reply_hop(routed.request, inbound))
        attempt = None
        if arrived.to.tag and routed.marked:
            self.dialogs.saw(arrived)
        elif arrived.method == "INVITE" and not arrived.to.tag:
            attempt = Attempt(passed.request, self._routes.listener(inbound.transport, inbound.local))
        job = Job(
            arrived=arrived,
            request=passed.request,
            inbound=inbound,
            groups=groups,
            local=routed.local,
            loop=self._marks.loop_hash(arrived),
            attempt=attempt,
        )
        return Context(self, served, job).start(now)

    def _may_follow(self, routed: Routed, inbound: Inbound) -> bool:
        """Whether a request may go where it wants because of the dialog that it is in. That is where the dialog led
        when it began; a party may have moved since, so what comes from a phone of ours or goes to one passes, too."""
        if not routed.marked or routed.leads:
            return routed.leads
        knows, there = self._directory.knows, endpoint_of(next_hop(routed.request))
        return knows(inbound.source) or (there is not None and knows(there)) or self._gate.lenient(inbound)

    def _targets(self, passed: Pass, routed: Routed, now: float) -> Groups | Refusal:
        """RFC 3261 §16.5: whom the request goes to."""
        request = passed.request
        uri = request.uri
        if request.routes:
            return [(fork.Target(),)] if passed.privileged else Refusal(status=403, why="a Route to somebody else")
        owned = self.domains.owns(uri, exactly=routed.marked)
        if owned:
            bindings = self._bindings(uri, now)
            if uri.scheme == "sips":
                # RFC 5630 §5.3: not a step of the way without TLS.
                bindings = tuple(b for b in bindings if b.transport == "tls")
            if bindings and not any(b.reachable for b in bindings):
                return Refusal(status=480)
            if bindings:
                return fork.groups(bindings, self._settings.limits.branches)
        rule = rule_for(uri, self._settings.routes) if not routed.marked else None
        if rule is not None and passed.routes:
            return [(fork.Target(next_hop=Uri.parse(rule.to)),)]
        if rule is not None and owned and self._gate.realm is not None:
            return self._gate.challenge(now)  # a caller who hides in From may still have a password
        if owned:
            return Refusal(status=480 if self._gate.knows(uri) else 404)
        if not passed.privileged:
            return Refusal(status=403, why=f"a foreign target, {uri.host[:80]}")
        return [(fork.Target(),)]

    def _bindings(self, uri: Uri, now: float) -> tuple[Binding, ...]:
        if not uri.user:
            return ()
        for aor in self.domains.addresses_of_record(uri):
            bindings = self._directory.lookup(aor, now)
            if bindings:
                return bindings
        return ()

    def _register(self, asked: registrar.Registering, inbound: Inbound, now: float) -> list[Effect]:
        arrived, noted = asked.arrived, asked.request
        passed = self._gate.judge_register(arrived, inbound, now)
        if isinstance(passed, Refusal):
            return self._refuse(noted, inbound, passed)
        served = self.transactions.serve(server_key(arrived), arrived, reply_hop(noted, inbound))
        try:
            outcome = self._directory.register(asked, inbound, now)
        except SipError as error:
            outcome = registrar.Outcome(status=error.status, reason=REASONS.get(error.status, ""))
        if outcome.save and self.domains.learn(arrived.to.uri.host):
            self.media.update(self.domains.hosts)
        headers = (*outcome.headers, *self._signature())
        response = response_to(noted, outcome.status, outcome.reason, to_tag=self._marks.tag(noted), headers=headers)
        return self.transactions.respond(served, response, now)

    def _cancel(self, request: Request, inbound: Inbound, now: float) -> list[Effect]:
        served = self.transactions.find(server_key(request, "INVITE"))
        if served is None:
            # §16.10 would pass it on without state; but nobody downstream knows our branch of that INVITE then.
            return self._refuse(request, inbound, Refusal(status=481))
        reply = self._reply(request, inbound, self.answer(request, 200))
        return [reply, *(served.caller.cancel(request, inbound, now) if served.caller is not None else ())]

    # -- ACK of a 2xx

    def _acknowledge(self, arrived: Request, inbound: Inbound, now: float) -> list[Effect]:
        """Forwarded without state (RFC 3261 §16.11). One for our own refusals ends here; nothing is ever answered."""
        if arrived.to.tag == self._marks.tag(arrived) or judge(arrived, self._marks) is not None:
            return []
        noted, _ = self.media.repair_request(arrived, inbound)
        routed = self._routes.strip(noted)
        privileged = self._may_follow(routed, inbound) or self._gate.is_trusted(inbound.source.address)
        passed = Pass(request=routed.request, privileged=privileged, routes=False)
        groups = self._targets(passed, routed, now)
        if isinstance(groups, Refusal):
            return []
        loop = self._marks.loop_hash(arrived)
        job = Job(
            arrived=arrived, request=routed.request, inbound=inbound, groups=groups, local=routed.local, loop=loop
        )
        return Acknowledgement(self, job).start(now)

    # -- responses

    def response(self, response: Response, inbound: Inbound, now: float) -> list[Effect]:
        """A response that ``sip.check`` has passed."""
        effects = self.transactions.receive(response, inbound, now)
        return self._stray(response, inbound) if effects is None else effects

    def _stray(self, response: Response, inbound: Inbound) -> list[Effect]:
        """A response to a transaction that is over, or of an earlier run. RFC 6026 §8.9 forbids to forward what could
        be anybody's; our mark in the branch proves that we did send the request (RFC 3261 §16.11)."""
        method = response.cseq.method
        final = response.status < 300 if method == "INVITE" else method != "CANCEL"
        if response.status < 200 or not final or self._marks.loop_of(response.via) is None:
            return []
        response = self.repaired(response, inbound).remove_value("Via", 0)
        ours = self._network.facing(inbound.transport, inbound.source)
        hop = stray_hop(response, ours) if ours is not None and response.values("Via") else None
        return [Send(hop, bytes(response))] if hop is not None else []

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

    # -- what contexts need (context.Desk)

    def repaired(self, response: Response, inbound: Inbound) -> Response:
        """A response as it goes upstream, our Via still on it."""
        natted = self._directory.natted(inbound)
        return self._routes.returned(self.media.repair_response(response, inbound, natted))

    def answer(self, request: Request, status: int, headers: tuple[tuple[str, str], ...] = ()) -> Response:
        """A response of our own."""
        return response_to(request, status, to_tag=self._marks.tag(request), headers=(*headers, *self._signature()))

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
        routed = Routed(request=request, marked=True, local=local)
        groups = self._targets(Pass(request=request, privileged=True, routes=False), routed, now)
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
        if job is not None and request.method in DIALOG_FORMING and not job.in_dialog:
            came_to = self._routes.listener(job.inbound.transport, job.inbound.local)
            request = self._routes.record(request, came_to, listener)
        request = with_via(strict(request), listener, branch)
        return request, Hop(hop.transport, hop.remote, listener.bind, connection, hop.connect, hop.name)

    # -- answers without state

    def _refuse(self, request: Request, inbound: Inbound, refusal: Refusal) -> list[Effect]:
        """Without state (RFC 3261 §8.2.7): a flood costs nothing, and no answer is repeated to a forged source."""
        headers, tag = (*refusal.headers, *self._signature()), self._marks.tag(request)
        response = response_to(request, refusal.status, refusal.reason, to_tag=tag, headers=headers)
        effects: list[Effect] = [self._reply(request, inbound, response)]
        if refusal.why:
            effects.append(Refused(inbound.source, f"{request.method} refused with {refusal.status}: {refusal.why}"))
        return effects

    def _reply(self, request: Request, inbound: Inbound, response: Response) -> Send:
        return Send(reply_hop(request, inbound), bytes(response))

    def _signature(self) -> tuple[tuple[str, str], ...]:
        return (("Server", self._settings.user_agent),) if self._settings.user_agent else ()
