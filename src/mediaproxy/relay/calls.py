"""The relay's calls: the heart, and all that a shell sees of it.

Questions of the SIP side, packets that the plane passed up, and time come in; replies and effects go out. Whatever
comes in, nothing is raised, no port is lent twice or forgotten, each call that started ends exactly once, and nothing
is ever sent to a source that no rule of calls.md lets in.
"""

from collections.abc import Iterable
from math import inf

import msgspec

from mediaproxy.control import ConfirmRequest, EndRequest, MediaReply, MediaRequest, Question
from mediaproxy.endpoint import Endpoint
from mediaproxy.events import CallStarted, EndReason, Side
from mediaproxy.relay import timers
from mediaproxy.relay.addresses import clean
from mediaproxy.relay.call import Call
from mediaproxy.relay.effects import Effect, Install, Remove, Report, Send
from mediaproxy.relay.endings import end
from mediaproxy.relay.flow import Packet, SlotCounters
from mediaproxy.relay.negotiation import Negotiation, Refusal
from mediaproxy.relay.offers import Transaction
from mediaproxy.relay.parts import narrowed, widened
from mediaproxy.relay.register import UNKNOWN, Register
from mediaproxy.relay.report import party_report

__all__ = ["Calls", "Effect", "Install", "Remove", "Report", "Send"]


class Calls(Register):
    """Mutable: all calls of one relay, and what comes in about them."""

    # -- what a shell calls

    def ask(
        self, question: Question, now: float, counters: Iterable[SlotCounters] = ()
    ) -> tuple[MediaReply, list[Effect]]:
        """Answer a question of the SIP side.

        ``counters``: those of ``ports_of``; without them a call is as it was when it was looked at last.
        """
        self.note(counters)
        match question:
            case MediaRequest():
                reply, effects = self._media(question, now)
            case ConfirmRequest():
                reply, effects = self._confirm(question, now)
            case EndRequest():
                reply, effects = end(self, question, now)
        effects = [*effects, *self.meet(question.call_id, now)] if self.board.ground.met else effects
        return msgspec.structs.replace(reply, relay=self.name), effects

    def packet(self, packet: Packet, now: float) -> list[Effect]:
        """Decide on a packet that the plane did not forward itself. The counters of the ports ``board.beside`` it must
        have been noted."""
        effects = self.board.packet(packet, now)
        port = None if all(isinstance(effect, Send) for effect in effects) else self.board.find(packet.local)
        if port is not None:
            for call in self._calls[port.end.stream.call_id]:
                # What RTP has learned says where RTCP may be sent, too; and ports of a call may share what they learn.
                effects = [*self.changing(call, effects), *call.sync(now)]
                self.census.note(call)
                if not port.rtcp and port.latch.deserts_at() is not None:
                    self._ends.plan(call, max(timers.due(call, now), now))
                self._looks.plan(call, now + self.settings.one_way)  # it may be the first that is heard in it
        return effects

    def tick(self, now: float, counters: Iterable[SlotCounters]) -> list[Effect]:
        """What time brings. Called once a second and at ``deadline``, with the counters of ``ports_due`` at least:
        without them, a call that the plane forwards looks silent since it was looked at last."""
        self.note(counters)
        effects = self.board.thaw(now)
        for call in self._ends.due(now):
            expires, reason = timers.expiry(call)
            if expires <= now:
                effects += self.finish(call, reason, now)
            else:
                effects += self.changing(call, timers.desert(call, now))
                self.census.note(call)
                self._ends.plan(call, max(timers.due(call, now), now))
        for call in self._looks.due(now):
            again = timers.undisturbed(call, now)
            if again is not None:
                if again < inf:
                    self._looks.plan(call, again)
                continue
            effects += self.changing(call, timers.look(call, now))
            self.look_again(call, now)
        self.forget_gone(now)
        self.note_met(now)
        return effects

    @property
    def deadline(self) -> float | None:
        """When ``tick`` must be called at the latest; None: no timer runs.

        What may wait for the next second is not in it: looks for one-way audio, ports that have cooled.
        """
        return self._ends.next

    def end(self, call_id: str, now: float, counters: Iterable[SlotCounters] = ()) -> list[Effect]:
        """An operator ends all calls of that Call-ID. ``counters`` as with ``ask``."""
        self.note(counters)
        calls = list(self._calls.get(call_id, ()))
        effects = [effect for call in calls for effect in self.finish(call, EndReason.ADMIN, now)]
        self.note_met(now)
        return effects

    def shutdown(self, now: float, counters: Iterable[SlotCounters] = ()) -> list[Effect]:
        """The relay stops: all calls end, all ports go back at once. Those that were over already keep their reason.
        ``counters`` as with ``ask``."""
        self.note(counters)
        effects: list[Effect] = []
        for call in list(self):
            effects += self.finish(call, call.lingering or EndReason.SHUTDOWN, now)
        return [*effects, *self.board.drain()]

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
        effects = self.board.withdraw(stream, local if busy else None, now)
        self.note_met(now)
        return effects

    # -- questions

    def _media(self, question: MediaRequest, now: float) -> tuple[MediaReply, list[Effect]]:
        if len(question.streams) > self.settings.max_streams or (question.part or 0) >= self.settings.max_streams:
            return MediaReply(error=f"more than {self.settings.max_streams} streams", status=488), []
        if question.wishes is not None and not 0 <= (question.wishes.tos or 0) <= 255:
            return MediaReply(error=f"tos = {question.wishes.tos} is not in 0..255", status=488), []
        streams = tuple([clean(stream) for stream in question.streams])
        if streams != question.streams:
            question = msgspec.structs.replace(question, streams=streams)
        found = self.find(question)
        question, others = widened(question, found[0] if found is not None else None)
        spiral, call_id = self.board.spiral, question.call_id
        ours = frozenset(
            [i for i, s in enumerate(question.streams) if s.endpoint is not None and spiral(s.endpoint, call_id)]
        )
        if ours and all(s.endpoint is None or i in ours for i, s in enumerate(question.streams)):
            return narrowed(question, MediaReply(ports=(None,) * len(question.streams)), self.settings), []  # a spiral
        try:
            if found is not None:
                call, side = found
                question = _as_answer(_to_whom(question, call, side), call, side)
                anew = call.lingering is not None and not question.receiver.tag
                question = call.memory.number(question, side, anew=anew)
                reply, effects = Negotiation(call, question, side, ours | others, now).run()
                reply = _with_address(reply, call, side)
                call.told(question, side, now)
                self.plan(call, now)
            else:
                reply, effects = self._start(question, ours | others, now)
            return narrowed(question, reply, self.settings), effects
        except Refusal as refusal:
            return refusal.reply, refusal.effects

    def _start(self, question: MediaRequest, ours: frozenset[int], now: float) -> tuple[MediaReply, list[Effect]]:
        """The first SDP of a call."""
        if question.status and (question.part is not None or question.cseq < 0):
            return UNKNOWN, []  # an answer, to an offer that nobody has asked about
        if self.is_gone(question):
            raise Refusal("the call has ended", 481)
        if not any(s.endpoint is not None and i not in ours for i, s in enumerate(question.streams)):
            return MediaReply(ports=(None,) * len(question.streams)), []
        if self._count >= self.settings.max_calls:
            raise Refusal(f"max_calls = {self.settings.max_calls} reached", 480)
        side = Side.CALLER if question.status == 0 else Side.CALLEE
        if question.cseq < 0 and question.receiver.tag and question.method:
            side = Side.CALLEE  # an offer to who has a tag already: the INVITE had none, and the 200 brings it
        call = Call(question, side, self.board, now)
        question = call.memory.number(question, side, anew=True)
        reply, effects = Negotiation(call, question, side, ours, now).run()
        call.told(question, side, now)
        self._numbers += 1
        call.number = self._numbers
        self.begin(call)
        self.plan(call, now)
        self.totals.started_calls += 1
        started = CallStarted(
            at=now, call_id=call.call_id, caller=party_report(call.caller), callee=party_report(call.callee)
        )
        return reply, [Report(started), *effects]

    def _confirm(self, question: ConfirmRequest, now: float) -> tuple[MediaReply, list[Effect]]:
        found = self.find(question)
        if found is None:
            return UNKNOWN, []
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
        cseq = question.cseq if question.cseq >= 0 else call.memory.newest(requester)
        news = call.offers.accepted(Transaction(requester=requester, tag=leg.tag, cseq=cseq))
        effects = [*call.revive(now), *call.lock(leg, now), *call.retire(now)]
        call.asked = now
        if news or effects:  # usually the 2xx has said all this
            self.plan(call, now)
        return MediaReply(), effects


def _to_whom(question: MediaRequest, call: Call, side: Side) -> MediaRequest:
    """The question with the receiver's tag, if a door whose protocol has no CSeq leaves it out of an offer in a call
    that has been answered: it cannot mean another INVITE."""
    leg = call.locked
    told = question.cseq >= 0 or question.part is not None  # rtpproxy leaves it out for the next one of a serial fork
    if told or question.status or question.receiver.tag or side is not Side.CALLER:
        return question
    if leg is None or leg.ended:
        return question
    return msgspec.structs.replace(question, receiver=msgspec.structs.replace(question.receiver, tag=leg.tag))


def _as_answer(question: MediaRequest, call: Call, side: Side) -> MediaRequest:
    """The question as an answer, if the other party has offered and waits for one: B2BUAs that speak rtpproxy's
    protocol have U for both parties, and no L."""
    if question.part is None or question.status or not question.receiver.tag:
        return question
    waits = call.answered is None and call.lingering is None and call.memory.newest(side) < 0
    if not waits or call.memory.newest(side.other) < 0:
        return question
    return msgspec.structs.replace(question, status=200)


def _with_address(reply: MediaReply, call: Call, side: Side) -> MediaReply:
    """If no stream is left that has a port, an SDP may name an address all the same."""
    if any(reply.ports):
        return reply
    stream = next(iter(call.all_streams()), None)
    address = "" if stream is None else stream.end(side.other).pair.advertised.address
    return msgspec.structs.replace(reply, address=address)
