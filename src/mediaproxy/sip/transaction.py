"""The four transactions of RFC 3261 §17 with the Accepted states of RFC 6026, without IO.

Messages, timers and transport errors go in; what to transmit, what to hand to the transaction user, and the end of the
transaction come out. Where a transaction may go is data (``transactionstate``); an input that its table does not name
is absorbed. Nothing here may know whether its user is a phone or a proxy, and nothing may read a clock: ``now`` is an
argument.
"""

from typing import Annotated, TypeAlias

import msgspec

from mediaproxy.sip.message import Request, Response
from mediaproxy.sip.transactionstate import (
    INVITE_CLIENT,
    INVITE_SERVER,
    NON_INVITE_CLIENT,
    NON_INVITE_SERVER,
    Input,
    State,
    Table,
)

MAGIC_COOKIE = "z9hG4bK"
"A branch that starts so is unique by itself (RFC 3261 §8.1.1.7)."

Duration = Annotated[float, msgspec.Meta(ge=0.001, le=3600.0)]


class Timers(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Durations in seconds (RFC 3261 table 4); all others are multiples of these, so tests scale them together."""

    t1: Duration = 0.5
    "Estimate of the round trip. Timers B, D, F, H, J, L and M are 64 times this."
    t2: Duration = 4.0
    "Longest pause between retransmissions of anything but an INVITE."
    t4: Duration = 5.0
    "How long a message may stay in the network."
    c: Duration = 185.0
    "Timer C: how long a proxy waits for a final answer to an INVITE after the last 101 to 199; more than 180."

    @property
    def limit(self) -> float:
        """64 * T1."""
        return 64 * self.t1


class Transmit(msgspec.Struct, frozen=True):
    """Send these bytes to the peer of the transaction."""

    data: bytes


class Deliver(msgspec.Struct, frozen=True):
    """Hand the response to the transaction user."""

    response: Response


class TimedOut(msgspec.Struct, frozen=True):
    """Timer B, F or H: the peer was silent for too long. The transaction has ended."""


class Unreachable(msgspec.Struct, frozen=True):
    """The transport gave up. The transaction has ended."""


Effect: TypeAlias = Transmit | Deliver | TimedOut | Unreachable


class Transaction:
    """What the four machines share: a table, a state, one timer that retransmits and one that ends the state."""

    __slots__ = ("_again_at", "_again_input", "_end_at", "_end_input", "_interval", "_table", "_timers", "state")

    def __init__(self, table: Table, state: State, timers: Timers) -> None:
        self._table = table
        self._timers = timers
        self.state = state
        self._again_at: float | None = None
        self._again_input = Input.TIMER_A
        self._interval = 0.0
        self._end_at: float | None = None
        self._end_input = Input.TIMER_B

    @property
    def deadline(self) -> float | None:
        """When ``tick`` must be called next, in seconds since the epoch; None: no timer runs."""
        if self._again_at is None:
            return self._end_at
        return self._again_at if self._end_at is None else min(self._again_at, self._end_at)

    @property
    def ended(self) -> bool:
        """Whether the transaction is over."""
        return self.state is State.TERMINATED

    def _step(self, what: Input) -> State | None:
        """Move by the table; the state before, or None if the input is to be absorbed."""
        after = self._table[self.state].get(what)
        if after is None:
            return None
        before, self.state = self.state, after
        return before

    def _arm_again(self, what: Input, interval: float, now: float) -> None:
        self._again_input, self._interval, self._again_at = what, interval, now + interval

    def _arm_end(self, what: Input, after: float, now: float) -> None:
        """Let the state end; at once if ``after`` is 0, which is what reliable transports need."""
        self._again_at = None
        self._end_input, self._end_at = what, now + after
        if after <= 0:
            self._end_at = None
            self._step(what)

    def _expire(self) -> None:
        self._again_at = self._end_at = None
        self._step(self._end_input)


class ClientTransaction(Transaction):
    """One request that we sent (RFC 3261 §17.1), INVITE or not; never ACK."""

    __slots__ = ("_ack", "_data", "_reliable", "_request", "invite")

    def __init__(self, request: Request, timers: Timers, reliable: bool) -> None:
        self.invite = request.method == "INVITE"
        table, state = (INVITE_CLIENT, State.CALLING) if self.invite else (NON_INVITE_CLIENT, State.TRYING)
        super().__init__(table, state, timers)
        self._request: Request | None = request
        self._data = bytes(request)
        self._reliable = reliable
        self._ack = b""

    def start(self, now: float) -> list[Effect]:
        """Send the request; call it once."""
        if not self._reliable:
            self._arm_again(Input.TIMER_A if self.invite else Input.TIMER_E, self._timers.t1, now)
        self._end_input, self._end_at = (Input.TIMER_B if self.invite else Input.TIMER_F), now + self._timers.limit
        return [Transmit(self._data)]

    def receive(self, response: Response, now: float) -> list[Effect]:
        """A response that matches."""
        what = _class(response.status)
        before = self._step(what)
        if before is None:
            return []
        return self._receive_invite(before, what, response, now) if self.invite else self._receive(what, response, now)

    def _receive_invite(self, before: State, what: Input, response: Response, now: float) -> list[Effect]:
        if what is Input.PROVISIONAL:
            self._again_at = self._end_at = None
            return [Deliver(response)]
        if what is Input.SUCCESS:
            # RFC 6026 §7.2: every 2xx goes to the user, timer M starts with the first.
            if before is not State.ACCEPTED:
                self._request, self._data = None, b""
                self._arm_end(Input.TIMER_M, self._timers.limit, now)
            return [Deliver(response)]
        if before is State.COMPLETED:
            # §17.1.1.2: a retransmission of the final response is answered by the ACK, and goes no further.
            return [Transmit(self._ack)]
        assert self._request is not None
        self._ack = bytes(ack_for(self._request, response))
        self._request, self._data = None, b""
        self._arm_end(Input.TIMER_D, 0.0 if self._reliable else self._timers.limit, now)
        return [Transmit(self._ack), Deliver(response)]

    def _receive(self, what: Input, response: Response, now: float) -> list[Effect]:
        if what is Input.PROVISIONAL:
            if not self._reliable:
                self._interval = self._timers.t2
            return [Deliver(response)]
        self._arm_end(Input.TIMER_K, 0.0 if self._reliable else self._timers.t4, now)
        return [Deliver(response)]

    def tick(self, now: float) -> list[Effect]:
        """The deadline has come."""
        if self._end_at is not None and self._end_at <= now:
            self._expire()
            return [TimedOut()] if self._end_input in (Input.TIMER_B, Input.TIMER_F) else []
        if self._again_at is None or self._again_at > now:
            return []
        self._step(self._again_input)
        # §17.1.1.2: timer A doubles without bound; §17.1.2.2: timer E doubles up to T2, and is T2 in Proceeding.
        if self.invite:
            interval = self._interval * 2
        else:
            interval = self._timers.t2 if self.state is State.PROCEEDING else min(self._interval * 2, self._timers.t2)
        self._arm_again(self._again_input, interval, now)
        return [Transmit(self._data)]

    def fail(self) -> list[Effect]:
        """The transport could not deliver what was transmitted last (§17.1.4)."""
        before = self._step(Input.TRANSPORT_ERROR)
        if before is None:
            return []
        self._again_at = self._end_at = None
        return [] if before is State.COMPLETED else [Unreachable()]


class ServerTransaction(Transaction):
    """One request that we received (RFC 3261 §17.2), INVITE or not; never ACK."""

    __slots__ = ("_last", "_reliable", "invite")

    def __init__(self, invite: bool, timers: Timers, reliable: bool) -> None:
        self.invite = invite
        table, state = (INVITE_SERVER, State.PROCEEDING) if invite else (NON_INVITE_SERVER, State.TRYING)
        super().__init__(table, state, timers)
        self._reliable = reliable
        self._last = b""

    def repeat(self) -> list[Effect]:
        """The same request again: the last response again, if there is one that may be repeated."""
        if self._step(Input.REQUEST) is None or not self._last:
            return []
        return [Transmit(self._last)]

    def acknowledge(self, now: float) -> bool:
        """An ACK that matches. True: it is for a 2xx, so it is the user's business (RFC 6026 §7.1)."""
        before = self._step(Input.ACK)
        if before is State.COMPLETED:
            self._last = b""
            self._arm_end(Input.TIMER_I, 0.0 if self._reliable else self._timers.t4, now)
        return before is State.ACCEPTED

    def respond(self, status: int, data: bytes, now: float) -> list[Effect]:
        """Send a response. One that comes too late (a final one went out already) is swallowed."""
        what = _class(status)
        before = self._step(what)
        if before is None:
            return []
        self._last = data
        if what is not Input.PROVISIONAL and before is not State.ACCEPTED:
            self._conclude(what, now)
        return [Transmit(data)]

    def _conclude(self, what: Input, now: float) -> None:
        """Arm the timers of the state that a first final response leads to."""
        if not self.invite:
            self._arm_end(Input.TIMER_J, 0.0 if self._reliable else self._timers.limit, now)
        elif what is Input.SUCCESS:
            # RFC 6026 §7.1: the user repeats its 2xx itself, so this machine keeps none.
            self._last = b""
            self._arm_end(Input.TIMER_L, self._timers.limit, now)
        else:
            self._arm_end(Input.TIMER_H, self._timers.limit, now)
            if not self._reliable:
                self._arm_again(Input.TIMER_G, self._timers.t1, now)

    def tick(self, now: float) -> list[Effect]:
        """The deadline has come."""
        if self._end_at is not None and self._end_at <= now:
            self._expire()
            return [TimedOut()] if self._end_input is Input.TIMER_H else []
        if self._again_at is None or self._again_at > now:
            return []
        self._step(self._again_input)
        self._arm_again(self._again_input, min(self._interval * 2, self._timers.t2), now)
        return [Transmit(self._last)]


def _class(status: int) -> Input:
    if status < 200:
        return Input.PROVISIONAL
    return Input.SUCCESS if status < 300 else Input.FAILURE


def ack_for(request: Request, response: Response) -> Request:
    """The hop-by-hop ACK of a final response that is no 2xx (RFC 3261 §17.1.1.3)."""
    to = response.header("To") or ""
    return _follow_up("ACK", request, to)


def cancel_for(request: Request) -> Request:
    """The CANCEL of a request that we sent, with the same single Via (RFC 3261 §9.1)."""
    return _follow_up("CANCEL", request, request.header("To") or "")


def _follow_up(method: str, request: Request, to: str) -> Request:
    headers = [
        ("Via", request.values("Via")[0]),
        ("Max-Forwards", "70"),
        ("From", request.header("From") or ""),
        ("To", to),
        ("Call-ID", request.call_id),
        ("CSeq", f"{request.cseq.number} {method}"),
        *(("Route", route) for route in request.values("Route")),
        ("Content-Length", "0"),
    ]
    return Request.build(method, request.uri_text, headers)


Key: TypeAlias = tuple[str, ...]


def server_key(request: Request, method: str | None = None) -> Key:
    """What makes two requests the same transaction (RFC 3261 §17.2.3); ACK belongs to the INVITE.

    ``method``: look for another one, as CANCEL does for the request that it cancels. SipError if Via, CSeq, From, To or
    Call-ID are broken.
    """
    via = request.via
    wanted = method or request.method
    if wanted == "ACK":
        wanted = "INVITE"
    if via.branch.startswith(MAGIC_COOKIE):
        return (via.branch, via.sent_by.lower(), wanted)
    # RFC 2543 peers: all that must be equal. The To tag is left out, because only ACK has one.
    number = str(request.cseq.number)
    return (wanted, request.uri_text, request.from_.tag, request.call_id, number, via.sent_by.lower(), via.branch)


def client_key(message: Request | Response) -> Key:
    """What a response and the request that it answers share (RFC 3261 §17.1.3)."""
    return (message.via.branch, message.cseq.method)
