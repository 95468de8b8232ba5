"""A request as long as nobody knows what becomes of it: its transaction, its answers, and giving up.

Answers, the end of the route and a CANCEL come in; effects go out. A transaction is begun as late as possible, so that
what is refused at once costs nothing and is not repeated to a forged source (RFC 3261 §26.3.2.4); but before the script
waits. The relay is told of what it was asked for in vain.
"""

from dataclasses import dataclass
from typing import Protocol

from mediaproxy.edge import registrar
from mediaproxy.edge.acknowledgement import Desk as AckDesk
from mediaproxy.edge.context import Desk as ContextDesk
from mediaproxy.edge.context import warning
from mediaproxy.edge.dialogs import Attempt
from mediaproxy.edge.effects import Ask, Effect, Refused, Send, Trouble
from mediaproxy.edge.gate import Pass
from mediaproxy.edge.hop import Inbound
from mediaproxy.edge.routing import Refusal, Routed, reply_hop
from mediaproxy.edge.script.stage import Stage
from mediaproxy.edge.settings import Listener
from mediaproxy.edge.targets import Targets
from mediaproxy.edge.transactions import Served
from mediaproxy.module import RouteType
from mediaproxy.nat import force_rport, note_source
from mediaproxy.sip.message import Request, Response
from mediaproxy.sip.transaction import server_key
from mediaproxy.traversal import Facts


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


class Serving(Stage):
    """One request. What its script does stands in ``request``."""

    route = RouteType.REQUEST
    done = False
    "It was answered, sent on or dropped."
    _served: Served | None = None
    _rport = False
    _noted: bool | None = None
    "With which value of ``_rport`` the source has been noted in the Via."
    _tried = False
    "An INVITE has been answered 100."
    _waiting: Attempt | None = None
    "The call that it begins, while the script waits,"
    _contact: tuple[bytes, ...] = ()
    "and its Contact."
    _with_media = False
    "use_media_proxy was called."
    _stopped: Refusal | None = None
    "What t_relay met: answered even if the script does not do it."

    def __init__(self, desk: Desk, admitted: Admitted) -> None:
        run = desk.media.run(admitted.arrived, admitted.inbound, RouteType.REQUEST)
        # Without our Routes and the credentials for us, but with the Via as it came.
        run.message = admitted.passed.request
        super().__init__(desk, run, admitted.inbound, set())
        self._proxy = desk
        self._arrived = admitted.arrived
        self._in_dialog = bool(admitted.arrived.to.tag)
        if admitted.passed.account is not None:
            # The password's nonce is used up: a retransmission must find a transaction, not the gate.
            self._begin()

    # -- what the server needs of it

    def noted(self) -> Request:
        """The request as it is answered and sent on: its source noted in its Via (RFC 3261 §18.2.1, RFC 3581 §4). The
        tests look at the Via as it came all the same."""
        if self._noted is not self._rport:
            note = force_rport if self._rport else note_source
            self.run.message = note(self.run.message, self.run.arrival)
            self._noted = self._rport
        return self._message

    def waits(self) -> None:
        """The request may come again, be cancelled, or its call be ended by an operator."""
        self._serve()
        if self._arrived.method == "INVITE" and not self._in_dialog and self._waiting is None and not self.done:
            self._waiting = self._attempt()
            self._waiting.ringing = self
            self._proxy.dialogs.begin(self._waiting)

    def finish(self, name: str, now: float) -> list[Effect]:
        """The route has ended; what the script has left undone. ``name``: of the script."""
        self.now = now
        if self.dropped and not self.done:
            self._forget()
        if not self.done:
            if self._stopped is not None and not self.broken:
                self._refuse(self._stopped)
            else:
                self._forgotten(name)
        self._settle()
        effects, self.effects = self.effects, []
        return effects

    def _forget(self) -> None:
        self.done = True
        self._undo(self._proxy.answer(self.noted(), 500))
        if self._served is not None:
            self._proxy.transactions.abandon(self._served)

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

    # -- what the functions need

    @property
    def _message(self) -> Request:
        message = self.run.message
        assert isinstance(message, Request)
        return message

    def _attempt(self) -> Attempt:
        """The call that it begins; the same one, if its Contact has not changed."""
        contact = self._message.raw_fields("contact")
        if self._waiting is None or contact != self._contact:
            self._contact = contact
            return Attempt(self.noted(), self._proxy.listener(self.inbound))
        return self._waiting

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
        if status >= 300:
            self._undo(response)

    def _undo(self, response: Response) -> None:
        """Nothing comes of the media that was asked for."""
        if not self._with_media or self.ended:
            return
        facts = Facts(in_dialog=self._in_dialog, final=True, branch=self._arrived.via.branch or "")
        plan = self._proxy.media.plan(response, self.inbound, facts)
        if plan.request is not None:
            self.effects.append(Ask(plan.request))
