"""One branch of a forked request (RFC 3261 §16.6 to §16.10): its client transactions, Timer C and CANCEL.

Its parent, the response context, is told of every response above 100 and of the end. A branch tries the addresses of
its target in order until one answers. It never judges responses, and never talks to the side the request came from.
"""

from typing import Protocol

from mediaproxy.edge.alarms import Alarm, Alarms
from mediaproxy.edge.effects import Effect
from mediaproxy.edge.hop import Hop, Inbound
from mediaproxy.edge.transactions import Sent, Transactions
from mediaproxy.sip.message import Request, Response
from mediaproxy.sip.transaction import cancel_for


class Parent(Protocol):
    """The response context."""

    def received(self, branch: "Branch", response: Response, inbound: Inbound, now: float) -> list[Effect]:
        """A response other than 100 came, its top Via still ours."""

    def gave_up(self, branch: "Branch", status: int, now: float) -> list[Effect]:
        """There will be no final response. ``status``: what it amounts to; 0: to nothing at all."""

    def prepare(self, request: Request, hop: Hop) -> tuple[Request, Hop] | int:
        """The request as it goes to that hop, our Via on it; or the status that says why it cannot."""


class Branch:
    """One member of the fork."""

    __slots__ = (
        "_alarms",
        "_cancel_sent",
        "_hop",
        "_hops",
        "_message",
        "_parent",
        "_provisional",
        "_request",
        "_sent",
        "_transactions",
        "alarm",
        "cancelled",
        "deadline",
        "final",
        "settled",
    )

    def __init__(
        self,
        parent: Parent,
        transactions: Transactions,
        alarms: "Alarms[Branch]",
        message: Request,
        hops: tuple[Hop, ...],
    ) -> None:
        """``message``: what to send, without our Via. ``hops``: where, best first."""
        self._parent = parent
        self._transactions = transactions
        self._alarms = alarms
        self._message: Request | None = message
        self._hops = list(hops)
        self._hop: Hop | None = None
        self._request: Request | None = None
        self._sent: Sent | None = None
        self._provisional = False
        self._cancel_sent = False
        self.cancelled = False
        "Nobody wants its answer any more."
        self.final = False
        "A final response came, or none will."
        self.settled = False
        "The parent has dealt with that; its own mark."
        self.deadline: float | None = None
        "Timer C, or the end of the patience with a CANCEL."
        self.alarm: Alarm[Branch] = Alarm(self)

    def start(self, now: float) -> list[Effect]:
        """Try the next hop that can be tried."""
        status = 503
        while self._hops:
            assert self._message is not None
            hop = self._hops.pop(0)
            prepared = self._parent.prepare(self._message, hop)
            if isinstance(prepared, int):
                status = prepared
                continue
            self._request, self._hop = prepared
            self._provisional = False
            if self._request.method == "INVITE":
                self._arm(now + self._transactions.timers.c)  # §16.6 step 11
            self._sent, effects = self._transactions.send(self._request, self._hop, self, now)
            return effects
        return self._give_up(status, now)

    def answered(self, response: Response, inbound: Inbound, now: float) -> list[Effect]:
        """From the transaction: a response."""
        status = response.status
        if status < 200:
            self._provisional = True
            if self.cancelled:
                effects = self._cancel(now)
            else:
                effects = []
                if status > 100 and self.deadline is not None:
                    self._arm(now + self._transactions.timers.c)  # §16.7 step 2
            return effects if status == 100 else effects + self._parent.received(self, response, inbound, now)
        if status == 503 and self._hops and not self.cancelled:
            return self.start(now)  # RFC 3263 §4.3
        self._end()
        return self._parent.received(self, response, inbound, now)

    def unanswered(self, timed_out: bool, now: float) -> list[Effect]:
        """From the transaction: there will be no response."""
        if self._hops and not self.cancelled:
            return self.start(now)  # RFC 3263 §4.3
        if not timed_out:
            connect = self._hop is None or self._hop.connect
            return self._give_up(503 if connect else 480, now)
        # RFC 4320 §4.2: a 408 to anything but an INVITE can only come too late.
        invite = self._message is not None and self._message.method == "INVITE"
        return self._give_up(408 if invite else 0, now)

    def cancel(self, now: float) -> list[Effect]:
        """Nobody wants the answer any more (§16.10, §9.1)."""
        if self.final or self.cancelled:
            return []
        self.cancelled = True
        self._hops.clear()
        return self._cancel(now) if self._provisional else []

    def _cancel(self, now: float) -> list[Effect]:
        if self._cancel_sent or self._request is None or self._hop is None or self._request.method != "INVITE":
            return []
        self._cancel_sent = True
        # §9.1: after 64 * T1 without a final response the request counts as cancelled.
        self._arm(now + self._transactions.timers.limit)
        _, effects = self._transactions.send(cancel_for(self._request), self._hop, None, now)
        return effects

    def tick(self, now: float) -> list[Effect]:
        """The deadline has come."""
        self.deadline = None
        if self.final:
            return []
        if self._provisional and not self.cancelled:
            return self.cancel(now)  # §16.8: Timer C
        if self._sent is not None:
            self._transactions.forget(self._sent)
        return self._give_up(408, now)

    def _arm(self, at: float) -> None:
        self.deadline = at
        self._alarms.watch(self.alarm)

    def _give_up(self, status: int, now: float) -> list[Effect]:
        status = 487 if self.cancelled else status
        self._end()
        return self._parent.gave_up(self, status, now)

    def _end(self) -> None:
        """Keep nothing that only an open branch needs; 2xx may still come again."""
        self.final = True
        self.deadline = None
        self.alarm.cancel()
        self._message = self._request = self._sent = None
        self._hops.clear()
