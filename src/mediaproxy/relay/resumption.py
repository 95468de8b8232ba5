"""What becomes of an earlier process's calls when a relay starts: taken up again, or ended with the right reason.

What a journal and the plane have kept comes in; the calls are in ``Calls`` afterwards, and effects go out. It must
never count a packet twice, never let a call end without a word, and never take anybody's ports for another call.

A plane that lasts has forwarded on, and its counters say who has spoken: timers are judged by them. A plane that does
not was deaf: nothing is said against a call because nobody heard it, but after ``restart_within`` seconds its phones
have given up, so that it has ended when the process did.
"""

from collections.abc import Collection, Iterable

import msgspec

from mediaproxy.endpoint import Endpoint
from mediaproxy.events import CallEnded, CallReport, CallState, EndReason, PartyReport
from mediaproxy.relay import timers
from mediaproxy.relay.call import Call
from mediaproxy.relay.calls import Calls
from mediaproxy.relay.callvalue import decode_call, decode_counters
from mediaproxy.relay.changes import Brief, Gone
from mediaproxy.relay.effects import Effect, Install, Remove, Report
from mediaproxy.relay.flow import Flow, SlotCounters
from mediaproxy.relay.ports import CoolingValue
from mediaproxy.relay.report import call_report
from mediaproxy.relay.revival import Revival
from mediaproxy.relay.stream import End, Port

Recorded = tuple[str, str, float]
"Call-ID, caller's tag and start of a call."

_brief = msgspec.msgpack.Decoder(Brief)


class SavedCall(msgspec.Struct, frozen=True, kw_only=True):
    """One call as a journal has it."""

    number: int
    brief: bytes
    "A Brief."
    value: bytes
    "Empty: it was written in a layout of which nobody here knows more than the brief."
    counters: bytes | None = None


class Saved(msgspec.Struct, frozen=True, kw_only=True):
    """What a journal has."""

    calls: tuple[SavedCall, ...] = ()
    "In the order of their numbers."
    gone: tuple[Gone, ...] = ()
    "The oldest first."
    cooling: tuple[CoolingValue, ...] = ()
    generation: int = 0
    died: float = 0.0
    "When the earlier process was alive last."
    stopped: bool = False
    "Somebody stopped it; else it was killed."


class Resumption:
    """One start of a relay. ``calls`` has none so far."""

    def __init__(
        self,
        calls: Calls,
        saved: Saved,
        adopted: Iterable[tuple[Flow, SlotCounters]],
        now: float,
        left: Iterable[tuple[Flow, SlotCounters]] = (),
    ) -> None:
        """``adopted``: what the plane has (Plane.adopt). ``left``: what another one, that lasts, had until now, and
        this one will count from 0."""
        self._calls = calls
        self._board = calls.board
        self._saved = saved
        self._slots = {(flow.local, flow.generation): counters for flow, counters in adopted}
        self._left = {(flow.local, flow.generation): counters for flow, counters in left}
        self._now = now
        self._effects: list[Effect] = []
        self._within: float | None = None
        self._away = 0.0
        self.taken = 0
        "Calls that go on."
        self.ended = 0
        "Calls that have ended meanwhile, or that cannot go on."
        self.strays = 0
        "Ports that were still forwarded for a call of which nothing is known: its streams end."
        self.unreadable: list[str] = []
        "Why some of these cannot go on, a line each."

    def run(self, within: float | None, recorded: Collection[Recorded] = ()) -> list[Effect]:
        """Take all up. ``within``: after how many seconds it is too late for calls that nobody has forwarded meanwhile;
        None: none goes on. ``recorded``: calls that have their record already, so that the journal is behind."""
        self._away = self._now - self._saved.died
        self._within = within
        calls = [call for call in map(self._revive, self._saved.calls) if call is not None]
        cooling = [value for value in self._saved.cooling if self._board.pool.may_adopt(value.pair)]
        for value in cooling:
            self._board.pool.adopt_cooling(value, self._now if self._now > self._saved.died else 0.0)
        self._board.pool.settle(self._saved.generation)
        for gone in self._saved.gone:
            self._calls.remember(gone)
        for value in cooling:
            self._effects += [self._deaf(local, value.pair.generation) for local in (value.pair.rtp, value.pair.rtcp)]
        met = self._board.ties.settle([stream for call in calls for stream in call.all_streams()], self._now)
        self._effects += [effect for effect in met if not isinstance(effect, Report)]
        self._board.ground.met = bool(calls)  # who has named what is in their values; nobody has looked for it
        for call in calls:
            self._resume(call, recorded)
        self._calls.note_met(self._now)
        strays = [Remove(local, generation) for local, generation in self._slots]
        if not self._saved.calls:  # else it has been recorded, or its record says that it is lost
            self.strays = sum(1 for counters in self._slots.values() if counters.packets)
        return [*strays, *self._effects]

    def _deaf(self, local: Endpoint, generation: int) -> Effect:
        self._slots.pop((local, generation), None)
        return Install(Flow(local=local, generation=generation))

    # -- one call

    def _revive(self, saved: SavedCall) -> Call | None:
        """The call, with its ports; None: it cannot go on."""
        try:
            value = decode_call(saved.value)
            revival = Revival(value, self._board)
            counters = decode_counters(saved.counters) if saved.counters is not None else None
            if counters is not None and counters.turn == value.turn:
                revival.count(counters)
        except (msgspec.MsgspecError, ValueError) as error:
            self._lose(saved, str(error))
            return None
        call = revival.call
        if not self._board.adopt(_open_ends(call)):
            self._lose(saved, "its address is no more this relay's, or another call has its ports", call)
            return None
        self._calls.adopt(call, value.ends_at, value.looks_at)
        return call

    def _lose(self, saved: SavedCall, why: str, call: Call | None = None) -> None:
        """A call cannot go on. ``call``: what it was; None: nothing is known of it but what it is called."""
        self.ended += 1
        if self._calls.changes is not None:
            self._calls.changes.lost(saved.number)
        try:
            brief = _brief.decode(saved.brief)
        except msgspec.MsgspecError:
            self.unreadable.append(f"a call: {why}")
            return
        if saved.value:
            self.unreadable.append(f"call {brief.call_id!r}: {why}")
        report = self._in_brief(brief) if call is None else self._in_full(call)
        if call is None:
            self._calls.totals.ended_calls[str(EndReason.LOST)] += 1
        else:
            self._calls.totals.ended(call, report)
        self._effects.append(Report(CallEnded(at=self._now, call_id=report.call_id, report=report)))

    def _in_full(self, call: Call) -> CallReport:
        """With all that was counted."""
        for port in (port for end in _open_ends(call) for port in end.ports):
            slot = self._slots.get((port.local, port.generation)) or self._left.get((port.local, port.generation))
            if slot is not None:
                port.tally.skip(slot)
                port.noted(slot)
        report = call_report(call, self._calls.name, self._calls.plane_name, self._now)
        over, reason = self._saved.died, EndReason.LOST
        return msgspec.structs.replace(report, state=CallState.ENDED, ended=over, reason=reason, ends_at=None)

    def _in_brief(self, brief: Brief) -> CallReport:
        return CallReport(
            call_id=brief.call_id,
            caller=PartyReport(uri=brief.caller[0], tag=brief.caller[1]),
            callee=PartyReport(uri=brief.callee[0], tag=brief.callee[1]),
            state=CallState.ENDED,
            started=brief.started,
            answered=brief.answered,
            ended=self._saved.died,
            reason=EndReason.LOST,
            relay=self._calls.name,
            dialog_id=brief.dialog_id,
            notify=brief.notify,
        )

    def _resume(self, call: Call, recorded: Collection[Recorded]) -> None:
        if (call.call_id, call.caller.tag, call.started) in recorded:
            self.ended += 1
            ended = self._calls.finish(call, EndReason.LOST, self._now)
            self._effects += [effect for effect in ended if not isinstance(effect, Report)]
            return
        ports = [port for end in _open_ends(call) for port in end.ports]
        forwarded = [self._count(port) for port in ports]
        known = any(port.latch.learned is not None for port in ports)  # of others the kernel hears nothing meanwhile
        if not (known and any(forwarded)) and self._now > self._saved.died:
            call.resumed = self._now
            for port in ports:
                port.latch.resume(self._now)
        over = self._over(call, any(forwarded))
        if over is None:
            self.taken += 1
            self._effects += call.sync(self._now)
            self._calls.plan(call, self._now)
            return
        self.ended += 1
        at, reason = over
        self._effects += self._calls.finish(call, reason, self._now, at)

    def _count(self, port: Port) -> bool:
        """Take what was counted meanwhile. False: nobody has forwarded for this port."""
        key = port.local, port.generation
        here = self._slots.pop(key, None)
        slot = here or self._left.get(key)
        if slot is not None:
            port.tally.skip(slot)
            port.noted(slot)
        if here is None:
            port.renew()  # the plane will count from 0
        return slot is not None

    def _over(self, call: Call, forwarded: bool) -> tuple[float, EndReason] | None:
        """Whether the call has ended meanwhile: when, and why."""
        expires, reason = timers.expiry(call)
        if self._within is None or (not forwarded and self._away > self._within):
            if call.lingering is not None:
                return self._saved.died, call.lingering
            return self._saved.died, EndReason.SHUTDOWN if self._saved.stopped else EndReason.LOST
        return None if expires > self._now else (expires, reason)


def _open_ends(call: Call) -> list[End]:
    return [end for stream in call.all_streams() for end in stream.ends if not end.closed]
