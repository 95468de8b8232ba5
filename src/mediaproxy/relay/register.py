"""All calls of a relay, by name and by when they must be looked at.

A call is entered when it begins, planned whenever something of it has changed, and leaves by ``finish`` and nothing
else: so each call that started ends exactly once, with one CallEnded.
"""

import random
from collections import defaultdict
from collections.abc import Iterable, Iterator

import msgspec

from mediaproxy.control import ConfirmRequest, MediaReply, MediaRequest, Question
from mediaproxy.endpoint import Endpoint
from mediaproxy.events import CallEnded, CallReport, EndReason, Side, raw
from mediaproxy.relay import timers
from mediaproxy.relay.agenda import Agenda
from mediaproxy.relay.call import Call
from mediaproxy.relay.census import Census
from mediaproxy.relay.changes import Changes, Gone
from mediaproxy.relay.effects import Effect, Report
from mediaproxy.relay.flow import SlotCounters
from mediaproxy.relay.report import call_report
from mediaproxy.relay.settings import RelaySettings
from mediaproxy.relay.switchboard import Switchboard
from mediaproxy.relay.totals import Totals

UNKNOWN = MediaReply(error="unknown call", status=481)
"The reply about a call that is not there."
_DEPARTED = 20_000
"Calls that a door ended whose last reports are kept, for it may ask again."


class _Departed(msgspec.Struct, frozen=True):
    """A call that a door ended."""

    tags: frozenset[str]
    forget_at: float
    reports: tuple[msgspec.Raw, ...]


class Register:
    """Mutable: all calls of one relay."""

    def __init__(self, settings: RelaySettings, rng: random.Random, relay_name: str = "") -> None:
        """``rng`` gives the order of ports; ``relay_name`` is shown in replies and reports."""
        self.plane_name = "user"
        "What forwards, for reports: ``kernel`` or ``user``. The service sets it."
        self.settings = settings
        self.name = relay_name
        self.board = Switchboard(settings, rng)
        self._calls: defaultdict[str, list[Call]] = defaultdict(list)
        self._count = 0
        self._numbers = 0
        self._gone: dict[tuple[str, str], Gone] = {}
        "By Call-ID and caller's tag."
        self._departed: dict[str, _Departed] = {}
        "By Call-ID: what those that a door ended were at their end."
        self.totals = Totals()
        self.census = Census()
        self._ends: Agenda[Call] = Agenda()
        self._looks: Agenda[Call] = Agenda()
        self.changes: Changes | None = None
        "What a journal must be told; None: there is none. See ``keep``."

    def keep(self) -> Changes:
        """From now on note what changes."""
        if self.changes is None:
            self.changes = Changes(self.board.pool, self._ends, self._looks)
        self.changes.all(self)
        return self.changes

    # -- what there is

    def reports(self, now: float) -> tuple[CallReport, ...]:
        """All calls as they stand, the oldest first."""
        calls = sorted(self, key=lambda call: call.started)
        return tuple(self.report(call, now) for call in calls)

    def report(self, call: Call, now: float) -> CallReport:
        """One of them."""
        return call_report(call, self.name, self.plane_name, now)

    def ports_of(self, call_id: str) -> list[Endpoint]:
        """The bound ports that the calls of a Call-ID have: whose counters ``ask`` wants."""
        calls = self._calls.get(call_id, ())
        return [port.local for call in calls for stream in call.all_streams() for port in stream.ports]

    def ports_due(self, now: float) -> list[Endpoint]:
        """The bound ports whose counters ``tick`` must know now: all of the calls that may end, those for RTP of the
        calls that are looked at for one-way audio."""
        ends, looks = self._ends.upcoming(now), self._looks.upcoming(now)
        ports = [port.local for call in ends for stream in call.all_streams() for port in stream.ports]
        return ports + [end.rtp.local for call in looks for stream in call.all_streams() for end in stream.ends]

    @property
    def ports_free(self) -> int:
        """Pairs of ports that can be lent at once, of all addresses."""
        return sum(self.board.pool.free(address) for address in self.settings.addresses)

    @property
    def ports_lent(self) -> int:
        """Pairs of ports that calls have."""
        return self.board.pool.lent

    @property
    def ports_cooling(self) -> int:
        """Pairs of ports of ended calls that are not lent again yet (calls.md 10)."""
        return self.board.pool.cooling

    def __len__(self) -> int:
        return self._count

    # -- one call's life

    def begin(self, call: Call) -> None:
        """One more call. ``plan`` must follow."""
        self._calls[call.call_id].append(call)
        self._count += 1
        if self.changes is not None:
            self.changes.began(call)

    def adopt(self, call: Call, ends_at: float | None, looks_at: float | None) -> None:
        """A call of an earlier process goes on, with what was planned for it."""
        self._numbers = max(self._numbers, call.number)
        self.begin(call)
        self.census.note(call)
        for agenda, at in ((self._ends, ends_at), (self._looks, looks_at)):
            if at is not None:
                agenda.plan(call, at)

    def changing(self, call: Call, effects: list[Effect]) -> list[Effect]:
        """These effects, which show that the call has changed."""
        if effects and self.changes is not None:
            self.changes.changed(call)
        return effects

    def note(self, counters: Iterable[SlotCounters]) -> None:
        """What the plane has counted."""
        for slot in counters:
            if slot.packets or slot.undeliverable or slot.dropped:  # else there is nothing in it
                self.board.noted(slot)

    def __iter__(self) -> Iterator[Call]:
        return (call for calls in self._calls.values() for call in calls)

    def of(self, call_id: str) -> tuple[Call, ...]:
        """The calls of a Call-ID, the oldest first."""
        return tuple(self._calls.get(call_id, ()))

    def find(self, question: Question) -> tuple[Call, Side] | None:
        """The call of a question, and which party its sender is."""
        response = isinstance(question, MediaRequest | ConfirmRequest) and question.status
        both = bool(response) and question.sender.tag == question.receiver.tag  # then it answers the caller
        for call in self._calls.get(question.call_id, ()):
            if call.caller.tag == question.sender.tag and not both:
                return call, Side.CALLER
            initial = isinstance(question, MediaRequest) and question.status == 0 and not question.receiver.tag
            if call.caller.tag == question.receiver.tag and not initial:
                return call, Side.CALLEE
            if not question.sender.tag and not initial and call.find_leg(question.receiver.tag) is not None:
                return call, Side.CALLER  # a door that tells no tag with provisional responses
        return None

    def is_gone(self, question: MediaRequest) -> bool:
        """Whether it belongs to a call that has just ended."""
        for tag in (question.sender.tag, question.receiver.tag):
            gone = self._gone.get((question.call_id, tag))
            late = question.status or (question.receiver.tag and question.part is None)
            if gone is not None and (late or 0 <= question.cseq <= gone.cseq):
                return True
        return False

    def remember(self, gone: Gone) -> None:
        """Of a call that has ended."""
        key = (gone.call_id, gone.tag)
        self._gone.pop(key, None)  # the newest last
        self._gone[key] = gone

    def forget_gone(self, now: float) -> None:
        """Of calls that have ended long enough ago."""
        self._forget_departed(now)
        while self._gone:
            oldest = next(iter(self._gone))
            if self._gone[oldest].forget_at > now:
                return
            del self._gone[oldest]

    def _forget_departed(self, now: float) -> None:
        while self._departed:
            oldest = next(iter(self._departed))
            if self._departed[oldest].forget_at > now:
                return
            del self._departed[oldest]

    def _depart(self, call: Call, report: CallReport, now: float) -> None:
        tags = frozenset((call.caller.tag, call.invited.tag, *(leg.tag for leg in call.legs)))
        before = self._departed.pop(call.call_id, None)
        others = (frozenset[str](), ()) if before is None else (before.tags, before.reports)
        departed = _Departed(tags | others[0], now + self.settings.linger, (*others[1], raw(report)))
        self._departed[call.call_id] = departed
        if len(self._departed) > _DEPARTED:
            del self._departed[next(iter(self._departed))]

    def departed(self, call_id: str, tags: set[str]) -> tuple[msgspec.Raw, ...] | None:
        """The last reports of a Call-ID's calls that a door has ended lately; None: there was none with these tags."""
        known = self._departed.get(call_id)
        return known.reports if known is not None and tags - {""} <= known.tags else None

    def plan(self, call: Call, now: float) -> None:
        """See to it that ``tick`` looks at the call in time. Later than planned is found out then."""
        if call.reason is not None:
            return
        call.note_hold(now)
        self.census.note(call)
        if self.changes is not None:
            self.changes.changed(call)
        self._ends.plan(call, max(timers.due(call, now), now))
        self.look_again(call, now)

    def meet(self, call_id: str, now: float) -> list[Effect]:
        """The SDP of these calls has changed: whose ports name each other's, and whose do no more (``ties``)."""
        streams = [stream for call in self._calls.get(call_id, ()) for stream in call.all_streams()]
        effects = self.board.ties.settle(streams, now)
        self.note_met(now)
        return effects

    def note_met(self, now: float) -> None:
        """Look again at calls that have changed because another one has."""
        changed = self.board.ties.changed
        while changed:
            for call in self._calls.get(changed.pop(), ()):
                self.plan(call, now)

    def look_again(self, call: Call, now: float) -> None:
        at = timers.next_look(call, now)
        if at is not None:
            self._looks.plan(call, at)

    def finish(self, call: Call, reason: EndReason, now: float, over: float | None = None) -> list[Effect]:
        """The one end of a call. ``over``: when that was, if not now."""
        call.reason = reason
        if call.over is None:
            call.over = now if over is None else over
        report = self.report(call, now)
        siblings = self._calls[call.call_id]
        siblings.remove(call)
        if not siblings:
            del self._calls[call.call_id]
        self._count -= 1
        self.census.forget(call)
        self._ends.cancel(call)
        self._looks.cancel(call)
        gone = Gone(call.call_id, call.caller.tag, now + self.settings.linger, call.memory.newest(Side.CALLER))
        self.remember(gone)
        if call.deleted or call.dialog_id or call.notify:  # or its SIP server is told, and will delete it then
            self._depart(call, report, now)
        self.totals.ended(call, report)
        if self.changes is not None:
            self.changes.ended(call, gone)
        return [*call.close(now), Report(CallEnded(at=now, call_id=call.call_id, report=report))]
