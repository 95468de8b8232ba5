"""A request while request_route runs, from the gate to where the script sends it.

The script's functions come in; effects go out: the request on its way, an answer, or nothing. A transaction is begun as
late as possible, so that what is refused at once costs nothing and is not repeated to a forged source (RFC 3261
§26.3.2.4); but before the script waits. What must not depend on a script is seen to here: nobody is sent where he may
not go, and no media is asked for on the way there; the relay is told of what it was asked for in vain.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NoReturn, Protocol, TypeVar

from mediaproxy.edge import fork, registrar
from mediaproxy.edge.acknowledgement import Desk as AckDesk
from mediaproxy.edge.acknowledgement import acknowledge
from mediaproxy.edge.context import Context, warning
from mediaproxy.edge.context import Desk as ContextDesk
from mediaproxy.edge.dialogs import Attempt
from mediaproxy.edge.effects import Ask, Effect, Refused, Send, Trouble
from mediaproxy.edge.fork import version_of
from mediaproxy.edge.gate import Pass
from mediaproxy.edge.hop import Inbound
from mediaproxy.edge.job import Job
from mediaproxy.edge.routing import Refusal, Routed, reply_hop
from mediaproxy.edge.script.stack import ask
from mediaproxy.edge.script.stage import Stage
from mediaproxy.edge.settings import Listener
from mediaproxy.edge.targets import Groups, Targets
from mediaproxy.edge.transactions import Served
from mediaproxy.module import FAILED, OK, Result, RouteType
from mediaproxy.nat import force_rport, note_source
from mediaproxy.sip.grammar import SipError
from mediaproxy.sip.message import Request, Response
from mediaproxy.sip.reason import REASONS
from mediaproxy.sip.transaction import server_key
from mediaproxy.traversal import Facts, negotiates

_T = TypeVar("_T")
_NOT_OURS = -1
_AWAY = -2


class Desk(ContextDesk, AckDesk, Protocol):
    """What the proxy does for it."""

    targets: Targets

    def register(self, asked: registrar.Registering, inbound: Inbound, now: float) -> registrar.Outcome:
        """Judge a REGISTER of an own domain by an identified user, and keep what it says. SipError if it is broken."""

    def listener(self, inbound: Inbound) -> Listener | None:
        """The socket that a message came to."""

    def loop_hash(self, request: Request) -> str:
        """Of all that decides where a request goes, as it came."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Admitted:
    """A request that has passed the gate."""

    arrived: Request
    "As it came."
    routed: Routed
    passed: Pass
    inbound: Inbound


class RequestStage(Stage):
    """One request."""

    route = RouteType.REQUEST

    def __init__(self, desk: Desk, admitted: Admitted) -> None:
        run = desk.media.run(admitted.arrived, admitted.inbound, RouteType.REQUEST)
        # Without our Routes and the credentials for us, but with the Via as it came.
        run.message = admitted.passed.request
        super().__init__(desk, run, admitted.inbound, set())
        self._proxy = desk
        self._arrived = admitted.arrived
        self._routed = admitted.routed
        self._passed = admitted.passed
        self._served: Served | None = None
        self._in_dialog = bool(admitted.arrived.to.tag)
        self._rport = False
        self._recorded = False
        self._found: Groups | Refusal | None = None
        "Whom it goes to, once that is asked."
        self._waiting: Attempt | None = None
        "The call that it begins, while the script waits."
        self._with_media = False
        "use_media_proxy was called."
        self._why: Refusal | None = None
        "What kept the last function from succeeding."
        self._stopped: Refusal | None = None
        "The same of t_relay: answered even if the script does not do it."
        self._tried = False
        "An INVITE has been answered 100."
        self.done = False
        "It was answered, sent on or dropped."
        if admitted.passed.account is not None:
            # The password's nonce is used up: a retransmission must find a transaction, not the gate.
            self._begin()

    # -- what the server needs of it

    def noted(self) -> Request:
        """The request as it is answered and sent on: its source noted in its Via (RFC 3261 §18.2.1, RFC 3581 §4)."""
        message = self.run.message
        assert isinstance(message, Request)
        return (force_rport if self._rport else note_source)(message, self.run.arrival)

    def waits(self) -> None:
        """The request may come again, be cancelled, or its call be ended by an operator."""
        self._serve()
        if self._arrived.method == "INVITE" and not self._in_dialog and self._waiting is None and not self.done:
            self._waiting = Attempt(self.noted(), self._proxy.listener(self.inbound))
            self._waiting.ringing = self
            self._proxy.dialogs.begin(self._waiting)

    def finish(self, name: str, now: float) -> list[Effect]:
        """The route has ended; what the script has left undone. ``name``: of the script."""
        self.now = now
        if self.dropped and not self.done:
            self.done = True
            if self._served is not None:
                self._proxy.transactions.abandon(self._served)
        if not self.done:
            if self._stopped is not None and not self.broken:
                self._refuse(self._stopped)
            else:
                self._forgotten(name)
        self._settle()
        effects, self.effects = self.effects, []
        return effects

    def _forgotten(self, name: str) -> None:
        if not self.broken:
            text = f"{name}: request_route did nothing with a {self._arrived.method}: no t_relay, save, reply or drop"
            self.effects.append(Trouble(name, text))
        self._refuse(Refusal(status=500))

    @property
    def cancellable(self) -> bool:
        """As ``transactions.Caller.cancellable``."""
        return not self.done

    def cancel(self, now: float) -> list[Effect]:
        """From the transaction: the caller has given up while the script waits (RFC 3261 §9.2)."""
        return self._give_up(Refusal(status=487), now)

    def hang_up(self, status: int, why: str, now: float) -> list[Effect]:
        """From the dialogs: the media arm has ended the call while the script waits."""
        self._with_media = False  # it knows
        return self._give_up(Refusal(status=status, headers=(warning(why),)), now)

    def _give_up(self, refusal: Refusal, now: float) -> list[Effect]:
        if self.done:
            return []
        self.now = now
        before, self.effects = self.effects, []
        self._refuse(refusal)
        self._settle()
        effects, self.effects = self.effects, before
        return effects

    def _settle(self) -> None:
        if self._waiting is not None:
            self._proxy.dialogs.settled(self._waiting)
            self._waiting = None

    # -- the script's functions

    def force_rport(self) -> Result:
        """A SIP-asymmetric client does not listen where it sends from."""
        self._rport = not self.run.sip_asymmetric
        if self._served is not None:
            self._served.hop = reply_hop(self.noted(), self.inbound)
        return OK

    def loose_route(self) -> Result:
        """Routes of ours have been taken off already."""
        return OK if self._routed.ours else FAILED

    def record_route(self) -> Result:
        """Done when the socket is known that it leaves from."""
        self._recorded = True
        return OK

    def handle_ruri_alias(self) -> Result:
        """The alias decides where it goes."""
        self._found = None
        return super().handle_ruri_alias()

    def lookup(self) -> Result:
        """The targets are kept for t_relay."""
        return self._outside(self._lookup)

    def _lookup(self) -> Result:
        message, marked = self._message, self._routed.marked
        if any(one.reachable for one in self._proxy.targets.registered(message.uri, marked, self.now)):
            return OK
        found = self._find()
        if not isinstance(found, Refusal):
            return Result(_NOT_OURS)
        self._why = found
        return Result(_AWAY if found.status == 480 else _NOT_OURS)

    @property
    def _message(self) -> Request:
        message = self.run.message
        assert isinstance(message, Request)
        return message

    def use_media_proxy(self) -> Result:
        """Nothing is asked for a request that must not go on."""
        if negotiates(self._arrived):
            found = self._outside(self._find)
            if isinstance(found, Refusal):
                self._why = found
                return FAILED
            # Within a dialog the media arm knows it better, from what it has carried.
            version = 0 if self._in_dialog or self._arrived.method == "ACK" else version_of(found[0], self._message.uri)
            self.run.facts = Facts(receiver_version=version)
        self._with_media = True
        result = super().use_media_proxy()
        failure = self.run.failure
        if result == FAILED and failure is not None:
            self._why = Refusal(status=failure.status, headers=(warning(failure.reason),))
        return result

    def save(self) -> Result:
        """It answers the request, too."""
        return self._outside(self._save)

    def _save(self) -> Result:
        if self.done or self._arrived.method != "REGISTER" or self._message.routes:
            return FAILED
        self.done = True
        run = self.run
        asked = registrar.Registering(
            request=self._message,
            arrived=self._arrived,
            flags=frozenset(self.flags),
            asymmetric=run.sip_asymmetric,
        )
        try:
            outcome = self._proxy.register(asked, self.inbound, self.now)
        except SipError as error:
            outcome = registrar.Outcome(status=error.status, reason=REASONS.get(error.status, ""))
        self._respond(self._proxy.answer(self.noted(), outcome.status, outcome.headers, outcome.reason), self._serve())
        return OK if outcome.status < 300 else FAILED

    def sl_send_reply(self, status: int, reason: str) -> Result:
        """Without state, unless there is a transaction already."""
        return self._outside(lambda: self._reply(Refusal(status=status, reason=reason or None)))

    def sl_reply_error(self) -> Result:
        """What it says is what the last function that failed left behind."""
        return self._outside(lambda: self._reply(self._why or Refusal(status=500)))

    def _reply(self, refusal: Refusal) -> Result:
        if self.done:
            return FAILED
        self._refuse(refusal)
        return OK

    def t_relay(self) -> Result:
        """The request is on its way then; what is done to it later changes nothing."""
        return self._outside(self._relay)

    def _relay(self) -> Result:
        if self.done:
            return FAILED
        found = self._find()
        if isinstance(found, Refusal):
            self._why = self._stopped = found
            return FAILED
        self.done = True
        self._settle()
        self._send_on(self._job(found))
        return OK

    def _job(self, found: Groups) -> Job:
        request = self.noted()
        attempt = None
        if self._in_dialog and self._routed.marked and self._arrived.method != "ACK":
            self._proxy.dialogs.saw(self._arrived)
        elif self._arrived.method == "INVITE" and not self._in_dialog:
            attempt = Attempt(request, self._proxy.listener(self.inbound))
            attempt.relayed = self.relayed
        return Job(
            arrived=self._arrived,
            request=request,
            inbound=self.inbound,
            groups=found,
            local=self._routed.local,
            loop=self._proxy.loop_hash(self._arrived),
            attempt=attempt,
            recorded=self._recorded,
            privileged=self._passed.privileged,
            run=self.run,
            flags=self.flags,
        )

    def _send_on(self, job: Job) -> None:
        served = self._serve()
        self.effects += Context(self._proxy, served, job).start(self.now)

    def drop(self) -> NoReturn:
        """Nothing is answered; a request that came over UDP may come again, and is dropped again."""
        super().drop()

    # -- what they need

    def _outside(self, work: Callable[[], _T]) -> _T:
        """Do it on the server's stack: an error there is none of the script."""
        result: _T = ask(work)
        return result

    def _find(self) -> Groups | Refusal:
        if self._found is None:
            self._found = self._targets()
        return self._found

    def _targets(self) -> Groups | Refusal:
        destination = self.run.destination
        if destination is not None and not self._message.routes:
            if not self._passed.privileged:
                return Refusal(status=403, why=f"a foreign target by alias, {destination.host[:80]}")
            return [(fork.of_alias(destination, self._routed.local),)]
        return self._proxy.targets.find(replace(self._passed, request=self._message), self._routed.marked, self.now)

    def _serve(self) -> Served:
        """Its transaction. An INVITE is answered 100."""
        served = self._served or self._begin()
        if self._arrived.method == "INVITE" and not self._tried:
            self._tried = True
            self._respond(self._proxy.answer(self.noted(), 100), served)
        return served

    def _begin(self) -> Served:
        key, hop = server_key(self._arrived), reply_hop(self.noted(), self.inbound)
        self._served = self._proxy.transactions.serve(key, self._arrived, hop)
        self._served.caller = self
        return self._served

    def _respond(self, response: Response, served: Served | None) -> None:
        if served is not None:
            self.effects += self._proxy.transactions.respond(served, response, self.now)
        else:
            self.effects.append(Send(reply_hop(self.noted(), self.inbound), bytes(response)))

    def _refuse(self, refusal: Refusal) -> None:
        """Answer, whatever the status is."""
        status = refusal.status
        response = self._proxy.answer(self.noted(), status, refusal.headers, refusal.reason)
        self._respond(response, self._served)
        if refusal.why:
            text = f"{self._arrived.method} refused with {status}: {refusal.why}"
            self.effects.append(Refused(self.inbound.source, text))
        self.done = self.done or status >= 200
        if status >= 300 and self._with_media and not self.ended:
            facts = Facts(in_dialog=self._in_dialog, final=True, branch=self._arrived.via.branch or "")
            plan = self._proxy.media.plan(response, self.inbound, facts)
            if plan.request is not None:
                self.effects.append(Ask(plan.request))


class AckStage(RequestStage):
    """The ACK of a 2xx: it has no transaction and no answer (RFC 3261 §16.11)."""

    def waits(self) -> None:
        """If it comes again, it is sent again."""

    def _send_on(self, job: Job) -> None:
        self.effects += acknowledge(self._proxy, job)

    def _reply(self, refusal: Refusal) -> Result:
        return FAILED

    def _refuse(self, refusal: Refusal) -> None:
        self.done = True


class CancelStage(RequestStage):
    """A CANCEL: the server has answered it, and passes it on whatever the script says (RFC 3261 §16.10)."""

    def __init__(self, desk: Desk, admitted: Admitted) -> None:
        super().__init__(desk, admitted)
        self.done = True

    def waits(self) -> None:
        """There is nothing more to do."""

    def _relay(self) -> Result:
        return OK

    def _lookup(self) -> Result:
        return FAILED
