"""What the functions of a script do while one of its routes runs: to the message, for the server, with the relay.

A stage is made for one message in one route; what it leaves behind is ``run.message``, effects and a few facts. The
functions of the original module are ``module.Run``'s; here is what belongs to the server beside them. Subclasses know
what only their kind of route can do.
"""

from collections.abc import MutableSet
from typing import ClassVar, NoReturn, Protocol

from mediaproxy.control import ConfirmRequest, MediaReply, MediaRequest, Question
from mediaproxy.edge.effects import Ask, Effect, Said
from mediaproxy.edge.hop import Inbound
from mediaproxy.edge.media import Media, bound
from mediaproxy.edge.script.stack import Dropped, Staged, ask
from mediaproxy.module import FAILED, NO_SDP, OK, Result, RouteType, Run, drive


class Desk(Protocol):
    """What the proxy does for every stage."""

    media: Media

    def natted(self, inbound: Inbound) -> bool:
        """Whether a registered phone behind NAT is at that source."""


class Stage(Staged):
    """One route while it runs. The functions are documented in ``functions``."""

    route: ClassVar[RouteType]
    now = 0.0
    "Kept up to date by the interpreter."
    relayed = False
    "The relay has ports for the media of the message."
    ended = False
    "The script has ended the media."
    dropped = False
    broken = False
    "The route ended by an error."
    error: BaseException | None = None
    "The error; taken by the interpreter."

    def __init__(self, desk: Desk, run: Run, inbound: Inbound, flags: MutableSet[int]) -> None:
        """``flags``: of the transaction, shared by all its routes."""
        self.run = run
        self.inbound = inbound
        self.effects: list[Effect] = []
        "What the server is to do; taken by the interpreter."
        self.flags = flags
        self._desk = desk

    def failed(self, error: BaseException) -> None:
        """The route ended by an exception."""
        self.error, self.broken = error, True

    def waits(self) -> None:
        """The route is about to wait for an answer."""

    # -- NAT

    @property
    def direct(self) -> bool:
        """Whether the message came straight from a phone, as far as one can see."""
        run = self.run
        if run.policy.trusts(run.arrival.source.address):
            return False
        return not run.arrived.is_request or len(run.arrived.vias) <= 1

    def is_natted(self) -> Result:
        """Whether a registered phone behind NAT sent it."""
        return OK if self._desk.natted(self.inbound) else FAILED

    def client_nat_test(self, tests: object) -> Result:
        """``tests``: None for the configured ones."""
        if tests is None:
            # The top Via of a reply is our own; tests of it would always fire.
            tests = self.run.policy.nat_tests if self.run.arrived.is_request else 1
        return self.run.client_nat_test(tests)

    def fix_contact(self) -> Result:
        """A Contact that came over a connection says that it is only good for that."""
        result = self.run.fix_contact()
        # The registrar remembers the connection by itself.
        if result and self.inbound.transport.reliable and self.run.arrived.cseq.method != "REGISTER":
            self.run.message = bound(self.run.message, self.inbound)
        return result

    def handle_ruri_alias(self) -> Result:
        """Subclasses judge where it leads."""
        return self.run.handle_ruri_alias()

    # -- media

    def use_media_proxy(self) -> Result:
        """What has failed, the server itself reports to the relay."""
        if not self._desk.media.relays:
            return OK if self.run.arrived.body else NO_SDP
        return drive(self.run.use_media_proxy(), self._asked)

    def _asked(self, question: Question) -> MediaReply | None:
        if isinstance(question, MediaRequest):
            reply: MediaReply = ask(question)
            self.relayed = self.relayed or any(reply.ports)
            return reply
        if isinstance(question, ConfirmRequest):
            self.effects.append(Ask(question))  # its answer changes nothing
        return None

    def end_media_session(self) -> Result:
        """Always asked, even if nothing is known to be relayed."""
        self.ended = True
        if not self._desk.media.relays:
            return OK
        return drive(self.run.end_media_session(), ask)

    # -- flags, headers, log

    def setflag(self, flag: int) -> Result:
        """Set it."""
        self.flags.add(flag)
        return OK

    def resetflag(self, flag: int) -> Result:
        """Take it back."""
        self.flags.discard(flag)
        return OK

    def isflagset(self, flag: int) -> Result:
        """Look at it."""
        return OK if flag in self.flags else FAILED

    def append_hf(self, name: str, value: str) -> Result:
        """Behind all others."""
        self.run.message = self.run.message.append(name, value)
        return OK

    def remove_hf(self, name: str) -> Result:
        """All of that name."""
        if not self.run.message.count(name):
            return FAILED
        self.run.message = self.run.message.remove(name)
        return OK

    def log(self, text: str) -> Result:
        """With the Call-ID."""
        self.effects.append(Said(self.run.arrived.call_id, text))
        return OK

    def drop(self) -> NoReturn:
        """End the route."""
        self.dropped = True
        raise Dropped

    # -- what only request_route has: see request.RequestStage

    def force_rport(self) -> Result:
        """Only of a request."""
        raise NotImplementedError

    def lookup(self) -> Result:
        """Only of a request."""
        raise NotImplementedError

    def loose_route(self) -> Result:
        """Only of a request."""
        raise NotImplementedError

    def record_route(self) -> Result:
        """Only of a request."""
        raise NotImplementedError

    def save(self) -> Result:
        """Only of a request."""
        raise NotImplementedError

    def sl_reply_error(self) -> Result:
        """Only of a request."""
        raise NotImplementedError

    def sl_send_reply(self, status: int, reason: str) -> Result:
        """Only of a request."""
        raise NotImplementedError

    def t_relay(self) -> Result:
        """Only of a request."""
        raise NotImplementedError
