"""The transactions in flight and their timers (RFC 3261 §17.1.3, §17.2.3), between the proxy and the sockets.

Messages, failures and the time go in; what to send comes out, and owners are told what concerns them. An owner is told
by a call that returns further effects. Nothing here knows how a proxy decides.
"""

from typing import Protocol

from mediaproxy.edge.alarms import Alarm, Alarms
from mediaproxy.edge.effects import Effect, Send
from mediaproxy.edge.hop import Hop, Inbound
from mediaproxy.sip import transaction
from mediaproxy.sip.message import Request, Response
from mediaproxy.sip.transaction import ClientTransaction, Deliver, Key, ServerTransaction, Timers, Transmit
from mediaproxy.sip.transactionstate import State


class Owner(Protocol):
    """Who sent a request."""

    def answered(self, response: Response, inbound: Inbound, now: float) -> list[Effect]:
        """A response came."""

    def unanswered(self, timed_out: bool, now: float) -> list[Effect]:
        """No final response will come: the peer was silent for too long, or cannot be reached at all."""


class Caller(Protocol):
    """Whose INVITE it is that CANCEL cancels."""

    @property
    def cancellable(self) -> bool:
        """Whether a CANCEL changes anything: it is the first one, and there is no final response yet."""

    def cancel(self, now: float) -> list[Effect]:
        """A CANCEL came that does."""


class Served:
    """A server transaction: a request that was received."""

    __slots__ = ("alarm", "caller", "hop", "key", "transaction")

    def __init__(self, key: Key, machine: ServerTransaction, hop: Hop) -> None:
        self.key = key
        self.transaction = machine
        self.hop = hop
        self.caller: Caller | None = None
        self.alarm: Alarm[Served | Sent] = Alarm(self)

    @property
    def deadline(self) -> float | None:
        """Of the machine."""
        return self.transaction.deadline


class Sent:
    """A client transaction: a request that was sent."""

    __slots__ = ("alarm", "hop", "key", "owner", "transaction")

    def __init__(self, key: Key, machine: ClientTransaction, hop: Hop, owner: Owner | None) -> None:
        self.key = key
        self.transaction = machine
        self.hop = hop
        self.owner = owner
        self.alarm: Alarm[Served | Sent] = Alarm(self)

    @property
    def deadline(self) -> float | None:
        """Of the machine."""
        return self.transaction.deadline


class Transactions:
    """All of them."""

    def __init__(self, timers: Timers) -> None:
        self.timers = timers
        self._served: dict[Key, Served] = {}
        self._sent: dict[Key, Sent] = {}
        self._alarms: Alarms[Served | Sent] = Alarms()

    @property
    def deadline(self) -> float | None:
        """When ``tick`` must be called next."""
        return self._alarms.deadline

    @property
    def served(self) -> int:
        """How many server transactions there are."""
        return len(self._served)

    @property
    def sent(self) -> int:
        """How many client transactions there are."""
        return len(self._sent)

    # -- the server side

    def find(self, key: Key) -> Served | None:
        """The server transaction of a request."""
        return self._served.get(key)

    def serve(self, key: Key, request: Request, hop: Hop) -> Served:
        """Begin one; responses go to ``hop``."""
        machine = ServerTransaction(request.method == "INVITE", self.timers, hop.transport.reliable)
        served = self._served[key] = Served(key, machine, hop)
        return served

    def repeated(self, served: Served) -> list[Effect]:
        """The request came again."""
        return self._of_served(served, served.transaction.repeat())

    def acknowledged(self, served: Served, now: float) -> bool:
        """An ACK with the key came. True: it belongs to a 2xx and goes on its way."""
        passes = served.transaction.acknowledge(now)
        self._settle(served)
        return passes

    def respond(self, served: Served, response: Response, now: float) -> list[Effect]:
        """Send a response, or swallow it if a final one went out before. A 2xx to an INVITE is always sent."""
        data = bytes(response.delimited() if served.hop.transport.reliable else response)
        machine = served.transaction
        late = machine.invite and 200 <= response.status < 300 and machine.state is not State.ACCEPTED
        if late and machine.state is not State.PROCEEDING:
            # RFC 3261 §16.7 steps 5 and 9: even after another final response, or after the transaction.
            return [Send(served.hop, data)]
        effects = self._of_served(served, machine.respond(response.status, data, now))
        if response.status >= 200:
            served.caller = None
        return effects

    def abandon(self, served: Served) -> None:
        """There will be no final response."""
        self._served.pop(served.key, None)
        served.caller = None
        served.alarm.cancel()

    def _of_served(self, served: Served, effects: list[transaction.Effect]) -> list[Effect]:
        self._settle(served)
        return [Send(served.hop, effect.data) for effect in effects if isinstance(effect, Transmit)]

    # -- the client side

    def send(self, request: Request, hop: Hop, owner: Owner | None, now: float) -> tuple[Sent, list[Effect]]:
        """Send a request; its top Via is ours."""
        key = transaction.client_key(request)
        machine = ClientTransaction(request, self.timers, hop.transport.reliable)
        sent = self._sent[key] = Sent(key, machine, hop, owner)
        return sent, self._of_sent(sent, machine.start(now), None, now)

    def receive(self, response: Response, inbound: Inbound, now: float) -> list[Effect] | None:
        """A response came; None: it answers nothing that is known."""
        sent = self._sent.get(transaction.client_key(response))
        if sent is None:
            return None
        return self._of_sent(sent, sent.transaction.receive(response, now), inbound, now)

    def forget(self, sent: Sent) -> None:
        """Give a request up: nobody waits for its answer any more."""
        sent.owner = None
        self._sent.pop(sent.key, None)
        sent.alarm.cancel()

    def _of_sent(
        self, sent: Sent, effects: list[transaction.Effect], inbound: Inbound | None, now: float
    ) -> list[Effect]:
        owner = sent.owner
        self._settle(sent)
        out: list[Effect] = []
        for effect in effects:
            if isinstance(effect, Transmit):
                out.append(Send(sent.hop, effect.data, lambda at: self._failed(sent, at)))
            elif owner is not None and isinstance(effect, Deliver):
                assert inbound is not None
                out += owner.answered(effect.response, inbound, now)
            elif owner is not None:
                out += owner.unanswered(isinstance(effect, transaction.TimedOut), now)
        return out

    def _failed(self, sent: Sent, now: float) -> list[Effect]:
        if sent.transaction.ended or self._sent.get(sent.key) is not sent:
            return []
        return self._of_sent(sent, sent.transaction.fail(), None, now)

    # -- timers

    def _settle(self, entry: Served | Sent) -> None:
        """After each change: watch the deadline, or forget what has ended."""
        if not entry.transaction.ended:
            self._alarms.watch(entry.alarm)
            return
        entry.alarm.cancel()
        if isinstance(entry, Served):
            if self._served.get(entry.key) is entry:
                del self._served[entry.key]
            entry.caller = None
        else:
            if self._sent.get(entry.key) is entry:
                del self._sent[entry.key]
            entry.owner = None

    def tick(self, now: float) -> list[Effect]:
        """Deadlines have come."""
        out: list[Effect] = []
        while (entry := self._alarms.due(now)) is not None:
            if isinstance(entry, Served):
                out += self._of_served(entry, entry.transaction.tick(now))
            else:
                out += self._of_sent(entry, entry.transaction.tick(now), None, now)
        return out
