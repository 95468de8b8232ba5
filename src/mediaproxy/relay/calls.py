"""The relay's calls: the heart, and all that a shell sees of it.

Questions of the SIP side, packets that the plane passed up, and time come in; replies and effects go out. Whatever
comes in, nothing is raised, no port is lent twice or forgotten, each call that started ends exactly once, and nothing
is ever sent to a source that no rule of calls.md lets in.
"""

import random
from collections import defaultdict
from collections.abc import Iterable, Iterator

import msgspec

from mediaproxy.control import ConfirmRequest, EndCause, EndRequest, MediaReply, MediaRequest, Question
from mediaproxy.endpoint import Endpoint
from mediaproxy.events import CallEnded, CallReport, CallStarted, EndReason, Side
from mediaproxy.relay import timers
from mediaproxy.relay.addresses import clean
from mediaproxy.relay.agenda import Agenda
from mediaproxy.relay.call import Call
from mediaproxy.relay.changes import Changes, Gone
from mediaproxy.relay.effects import Effect, Install, Remove, Report, Send
from mediaproxy.relay.flow import Packet, SlotCounters
from mediaproxy.relay.negotiation import Negotiation, Refusal
from mediaproxy.relay.offers import Transaction
from mediaproxy.relay.report import call_report, party_report
from mediaproxy.relay.retraction import take_back
from mediaproxy.relay.settings import RelaySettings
from mediaproxy.relay.switchboard import Switchboard

__all__ = ["Calls", "Effect", "Install", "Remove", "Report", "Send"]

_UNKNOWN = MediaReply(error="unknown call", status=481)


class Calls:
    """Mutable: all calls of one relay."""

    def __init__(self, settings: RelaySettings, rng: random.Random, relay_name: str = "") -> None:
        """``rng`` gives the order of ports; ``relay_name`` is shown in replies and reports."""
        self.plane_name = "user"
        "What forwards, for reports: ``kernel`` or ``user``. The service sets it."
        self._settings = settings
        self.name = relay_name
        self.board = Switchboard(settings, rng)
        self._calls: defaultdict[str, list[Call]] = defaultdict(list)
        self._count = 0
        self._numbers = 0
        self._gone: dict[tuple[str, str], Gone] = {}
        "By Call-ID and caller's tag."
        self._ends: Agenda[Call] = Agenda()
        self._looks: Agenda[Call] = Agenda()
        self.changes: Changes | None = None
        "What a journal must be told; None: there is none. See ``keep``."

    def keep(self) -> Changes:
        """From now on note what changes."""
        self.changes = self.changes or Changes(self.board.pool, self._ends, self._looks)
        self.changes.all(self)
        return self.changes

    # -- what a shell calls

    def ask(
        self, question: Question, now: float, counters: Iterable[SlotCounters] = ()
    ) -> tuple[MediaReply, list[Effect]]:
        """Answer a question of the SIP side.

        ``counters``: the plane's, read only for an EndRequest, so that the totals of a call that ends are exact;
        without them they are those of the last ``tick``.
        """
        if isinstance(question, EndRequest):
            self.note(counters)
        match question:
            case MediaRequest():
                reply, effects = self._media(question, now)
            case ConfirmRequest():
                reply, effects = self._confirm(question, now)
            case EndRequest():
                reply, effects = self._end(question, now)
        return msgspec.structs.replace(reply, relay=self.name), effects

    def packet(self, packet: Packet, now: float) -> list[Effect]:
        """Decide on a packet that the plane did not forward itself."""
        effects = self.board.packet(packet, now)
        port = None if all(isinstance(effect, Send) for effect in effects) else self.board.find(packet.local)
        if port is not None:
            for call in self._calls[port.end.stream.call_id]:
                # What RTP has learned says where RTCP may be sent, too; and ports of a call may share what they learn.
                effects = [*self._changing(call, effects), *call.sync(now)]
        return effects

    def tick(self, now: float, counters: Iterable[SlotCounters]) -> list[Effect]:
        """What time brings. Called once a second with a sweep of the plane's counters, and at ``deadline`` with those
        of ``ports_due`` at least: without them, a call that the plane forwards looks silent since the last sweep."""
        self.note(counters)
        effects = self.board.thaw(now)
        for call in self._ends.due(now):
            expires, reason = timers.expiry(call)
            if expires <= now:
                effects += self.finish(call, reason, now)
            else:
                effects += self._changing(call, timers.desert(call, now))
                self._ends.plan(call, max(timers.due(call, now), now))
        for call in self._looks.due(now):
            effects += self._changing(call, timers.look(call, now))
            self._look_again(call, now)
        self._forget_gone(now)
        return effects

    @property
    def deadline(self) -> float | None:
        """When ``tick`` must be called at the latest; None: no timer runs.

        What may wait for the next second is not in it: looks for one-way audio, ports that have cooled.
        """
        return self._ends.next

    def reports(self, now: float) -> tuple[CallReport, ...]:
        """All calls as they stand, the oldest first."""
        calls = sorted(self, key=lambda call: call.started)
        return tuple(call_report(call, self.name, self.plane_name, now) for call in calls)

    def end(self, call_id: str, now: float, counters: Iterable[SlotCounters] = ()) -> list[Effect]:
        """An operator ends all calls of that Call-ID. ``counters`` as with ``ask``."""
        self.note(counters)
        calls = list(self._calls.get(call_id, ()))
        return [effect for call in calls for effect in self.finish(call, EndReason.ADMIN, now)]

    def shutdown(self, now: float, counters: Iterable[SlotCounters] = ()) -> list[Effect]:
        """The relay stops: all calls end, all ports go back at once. Those that were over already keep their reason.
        ``counters`` as with ``ask``."""
        self.note(counters)
        effects: list[Effect] = []
        for call in list(self):
            effects += self.finish(call, call.lingering or EndReason.SHUTDOWN, now)
        return [*effects, *self.board.drain()]

    def ports_of(self, call_id: str) -> list[Endpoint]:
        """The bound ports that the calls of a Call-ID have: whose counters ``ask`` wants."""
        calls = self._calls.get(call_id, ())
        return [port.local for call in calls for stream in call.all_streams() for port in stream.ports]

    def ports_due(self, now: float) -> list[Endpoint]:
        """The bound ports of the calls whose ``deadline`` has come: whose counters ``tick`` must know then."""
        calls = self._ends.upcoming(now)
        return [port.local for call in calls for stream in call.all_streams() for port in stream.ports]

    def withdraw(self, local: Endpoint, now: float, *, busy: bool = True) -> list[Effect]:
        """The plane could not have this port. Its stream gets others when its question is asked again. ``busy``:
        another program has it, so it is never lent again."""
        port = self.board.find(local)
        if port is None:
            return []
        stream = port.end.stream
        for call in self._calls[stream.call_id]:
            for streams in (call.streams, *(leg.streams for leg in call.legs if leg.streams is not None)):
                if stream in streams:
                    streams[streams.index(stream)] = call.retiring.pop(stream, None)
                    call.memory.forget()
                    self.plan(call, now)
        return self.board.withdraw(stream, local if busy else None)

    @property
    def ports_free(self) -> int:
        """Pairs of ports that can be lent at once, of all IP versions."""
        return sum(self.board.pool.free(address.version) for address in self._settings.addresses)

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

    # -- questions

    def _media(self, question: MediaRequest, now: float) -> tuple[MediaReply, list[Effect]]:
        if len(question.streams) > self._settings.max_streams:
            return MediaReply(error=f"more than {self._settings.max_streams} streams", status=488), []
        streams = tuple([clean(stream) for stream in question.streams])
        if any(one is not other for one, other in zip(streams, question.streams, strict=True)):
            question = msgspec.structs.replace(question, streams=streams)
        ours = frozenset(i for i, s in enumerate(question.streams) if s.endpoint and self.board.pool.ours(s.endpoint))
        if ours and all(s.endpoint is None or i in ours for i, s in enumerate(question.streams)):
            return MediaReply(ports=(None,) * len(question.streams)), []  # a spiral
        found = self._find(question)
        try:
            if found is not None:
                call, side = found
                reply, effects = Negotiation(call, question, side, ours, now).run()
                self.plan(call, now)
                return reply, effects
            return self._start(question, ours, now)
        except Refusal as refusal:
            return refusal.reply, refusal.effects

    def _start(self, question: MediaRequest, ours: frozenset[int], now: float) -> tuple[MediaReply, list[Effect]]:
        """The first SDP of a call."""
        if self._is_gone(question):
            raise Refusal("the call has ended", 481)
        if not any(s.endpoint is not None and i not in ours for i, s in enumerate(question.streams)):
            return MediaReply(ports=(None,) * len(question.streams)), []
        if self._count >= self._settings.max_calls:
            raise Refusal(f"max_calls = {self._settings.max_calls} reached", 480)
        side = Side.CALLER if question.status == 0 else Side.CALLEE
        call = Call(question, side, self.board, now)
        reply, effects = Negotiation(call, question, side, ours, now).run()
        self._numbers += 1
        call.number = self._numbers
        self._begin(call)
        self.plan(call, now)
        started = CallStarted(
            at=now, call_id=call.call_id, caller=party_report(call.caller), callee=party_report(call.callee)
        )
        return reply, [Report(started), *effects]

    def _confirm(self, question: ConfirmRequest, now: float) -> tuple[MediaReply, list[Effect]]:
        found = self._find(question)
        if found is None:
            return _UNKNOWN, []
        call, side = found
        named = question.sender if side is Side.CALLEE else question.receiver
        if question.status == 0 and not call.revives(named.tag):
            return MediaReply(), []  # the ACK of a failure
        leg = call.find_leg(named.tag, question.branch)
        if leg is None and call.answered is None:
            leg = call.new_leg(named, question.branch)
            if leg is not None:
                call.legs.append(leg)
        if leg is None or leg.ended:
            return MediaReply(error="unknown leg", status=481), []
        requester = side.other if question.status else side
        news = call.offers.accepted(Transaction(requester=requester, tag=leg.tag, cseq=question.cseq))
        effects = [*call.revive(now), *call.lock(leg, now), *call.retire(now)]
        if news or effects:  # usually the 2xx has said all this
            self.plan(call, now)
        return MediaReply(), effects

    def _end(self, question: EndRequest, now: float) -> tuple[MediaReply, list[Effect]]:
        if question.cause is EndCause.ADMIN:
            known = question.call_id in self._calls
            return (MediaReply() if known else _UNKNOWN), self.end(question.call_id, now)
        found = self._find(question)
        if found is None:
            return _UNKNOWN, []
        call, side = found
        if question.cause is EndCause.BYE:
            return self._bye(call, side, question, now)
        if question.cause is EndCause.REFUSED:
            effects = self._refused(call, side, question, now)
        elif question.cause is EndCause.BRANCH:
            effects = call.fail_branch(question.branch, question.sender.tag if side is Side.CALLEE else "", now)
        else:
            effects = self._give_up(call, side, question, now)
        self.plan(call, now)
        return MediaReply(), effects

    def _bye(self, call: Call, side: Side, question: EndRequest, now: float) -> tuple[MediaReply, list[Effect]]:
        """calls.md 10: counts only if both tags match."""
        tag = question.sender.tag if side is Side.CALLEE else question.receiver.tag
        leg = call.find_leg(tag)
        if leg is None or leg.ended:
            return MediaReply(error="no leg of the call has this tag", status=481), []
        effects = call.leave(leg, now)
        if effects is None:
            return MediaReply(), self.finish(call, EndReason.BYE, now)
        self.plan(call, now)
        return MediaReply(), effects

    def _refused(self, call: Call, side: Side, question: EndRequest, now: float) -> list[Effect]:
        """A re-INVITE or UPDATE of the other party failed."""
        tag = question.sender.tag if side is Side.CALLEE else question.receiver.tag
        return take_back(call, Transaction(requester=side.other, tag=tag, cseq=question.cseq), now)

    def _give_up(self, call: Call, side: Side, question: EndRequest, now: float) -> list[Effect]:
        """CANCEL or failure: of an answered call they mean nothing, they crossed the 2xx."""
        last = call.gives_up(question.branch) if call.answered is None else None
        if last is None:
            return []
        tag = question.sender.tag if side is Side.CALLEE else question.receiver.tag
        if not last:
            return call.fail_branch("", tag, now)
        if question.cause is EndCause.FAILURE:
            call.failed(tag)
        reason = EndReason.CANCEL if question.cause is EndCause.CANCEL else EndReason.FAILURE
        call.linger(reason, question.status, now)
        return []

    # -- the register

    def _begin(self, call: Call) -> None:
        """One more call."""
        self._calls[call.call_id].append(call)
        self._count += 1
        if self.changes is not None:
            self.changes.began(call)

    def adopt(self, call: Call, ends_at: float | None, looks_at: float | None) -> None:
        """A call of an earlier process goes on, with what was planned for it."""
        self._numbers = max(self._numbers, call.number)
        self._begin(call)
        for agenda, at in ((self._ends, ends_at), (self._looks, looks_at)):
            if at is not None:
                agenda.plan(call, at)

    def _changing(self, call: Call, effects: list[Effect]) -> list[Effect]:
        """These effects, which show that the call has changed."""
        if effects and self.changes is not None:
            self.changes.changed(call)
        return effects

    def note(self, counters: Iterable[SlotCounters]) -> None:
        """What the plane has counted."""
        for slot in counters:
            self.board.noted(slot)

    def __iter__(self) -> Iterator[Call]:
        return (call for calls in self._calls.values() for call in calls)

    def of(self, call_id: str) -> tuple[Call, ...]:
        """The calls of a Call-ID, the oldest first."""
        return tuple(self._calls.get(call_id, ()))

    def _find(self, question: Question) -> tuple[Call, Side] | None:
        """The call of a question, and which party its sender is."""
        for call in self._calls.get(question.call_id, ()):
            if call.caller.tag == question.sender.tag:
                return call, Side.CALLER
            initial = isinstance(question, MediaRequest) and question.status == 0 and not question.receiver.tag
            if call.caller.tag == question.receiver.tag and not initial:
                return call, Side.CALLEE
        return None

    def _is_gone(self, question: MediaRequest) -> bool:
        """Whether it belongs to a call that has just ended."""
        for tag in (question.sender.tag, question.receiver.tag):
            gone = self._gone.get((question.call_id, tag))
            if gone is not None and (question.status or question.receiver.tag or question.cseq <= gone.cseq):
                return True
        return False

    def remember(self, gone: Gone) -> None:
        """Of a call that has ended."""
        key = (gone.call_id, gone.tag)
        self._gone.pop(key, None)  # the newest last
        self._gone[key] = gone

    def _forget_gone(self, now: float) -> None:
        while self._gone:
            oldest = next(iter(self._gone))
            if self._gone[oldest].forget_at > now:
                return
            del self._gone[oldest]

    def plan(self, call: Call, now: float) -> None:
        """See to it that ``tick`` looks at the call in time. Later than planned is found out then."""
        if call.reason is not None:
            return
        call.note_hold(now)
        if self.changes is not None:
            self.changes.changed(call)
        self._ends.plan(call, max(timers.due(call, now), now))
        self._look_again(call, now)

    def _look_again(self, call: Call, now: float) -> None:
        at = timers.next_look(call, now)
        if at is not None:
            self._looks.plan(call, at)

    def finish(self, call: Call, reason: EndReason, now: float, over: float | None = None) -> list[Effect]:
        """The one end of a call. ``over``: when that was, if not now."""
        call.reason = reason
        if call.over is None:
            call.over = now if over is None else over
        report = call_report(call, self.name, self.plane_name, now)
        siblings = self._calls[call.call_id]
        siblings.remove(call)
        if not siblings:
            del self._calls[call.call_id]
        self._count -= 1
        self._ends.cancel(call)
        self._looks.cancel(call)
        gone = Gone(call.call_id, call.caller.tag, now + self._settings.linger, call.memory.newest(Side.CALLER))
        self.remember(gone)
        if self.changes is not None:
            self.changes.ended(call, gone)
        return [*call.close(now), Report(CallEnded(at=now, call_id=call.call_id, report=report))]
