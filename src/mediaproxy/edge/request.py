"""A request in request_route: what the script's functions do with it.

It goes where the script sends it, as far as it may. What must not depend on a script is seen to here: nobody is sent
where he may not go, and no media is asked for on the way there.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import NoReturn, TypeVar

from mediaproxy.edge import fork, registrar
from mediaproxy.edge.acknowledgement import acknowledge
from mediaproxy.edge.context import Context, warning
from mediaproxy.edge.fork import version_of
from mediaproxy.edge.job import Job
from mediaproxy.edge.routing import Refusal, reply_hop
from mediaproxy.edge.script.stack import ask
from mediaproxy.edge.serving import Admitted, Desk, Serving
from mediaproxy.edge.targets import Groups
from mediaproxy.module import FAILED, OK, Result
from mediaproxy.sip.grammar import SipError
from mediaproxy.sip.reason import REASONS
from mediaproxy.traversal import Facts, negotiates

_T = TypeVar("_T")
_NOT_OURS = Result(-1)
_AWAY = Result(-2)


class RequestStage(Serving):
    """One request."""

    _recorded = False
    _found: Groups | Refusal | None = None
    "Whom it goes to, once that is asked."
    _why: Refusal | None = None
    "What kept the last function from succeeding."

    def __init__(self, desk: Desk, admitted: Admitted) -> None:
        super().__init__(desk, admitted)
        self._routed = admitted.routed
        self._passed = admitted.passed

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
        targets, message = self._proxy.targets, self._message
        bindings = targets.registered(message.uri, self._routed.marked, self.now)
        if any(binding.reachable for binding in bindings):
            if self._found is None and self.run.destination is None and not message.routes:
                self._found = targets.groups(bindings)
            return OK
        found = self._find()
        if not isinstance(found, Refusal):
            return _NOT_OURS
        self._why = found
        return _AWAY if found.status == 480 else _NOT_OURS

    def use_media_proxy(self) -> Result:
        """Nothing is asked for a request that must not go on."""
        if negotiates(self._arrived):
            found = self._found or self._outside(self._find)
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
        job = self._job(found)
        self._settle()
        self._send_on(job)
        return OK

    def _job(self, found: Groups) -> Job:
        request = self.noted()
        attempt = None
        if self._in_dialog and self._routed.marked and self._arrived.method != "ACK":
            self._proxy.dialogs.saw(self._arrived)
        elif self._arrived.method == "INVITE" and not self._in_dialog:
            attempt = self._attempt()
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

    def _outside(self, work: Callable[[], _T]) -> _T:
        """Do it on the server's stack: an error there is none of the script."""
        result: _T = ask(work)
        return result


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
