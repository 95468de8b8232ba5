"""A call made of its value again: the counterpart of ``snapshot``.

A CallValue and the board that its ports are on come in, a Call goes out that goes on as the one that the value was
taken of. Nothing of the board changes. A value that contradicts itself raises ValueError: a journal may be damaged.
"""

from collections import deque
from itertools import chain

from mediaproxy.control import MediaRequest
from mediaproxy.control import Party as Named
from mediaproxy.events import Side
from mediaproxy.relay.call import Call
from mediaproxy.relay.callvalue import (
    NONE,
    CallValue,
    ChangeValue,
    CountersValue,
    EndValue,
    LatchValue,
    LegValue,
    MemoryValue,
    PartyValue,
    PortValue,
    StreamValue,
)
from mediaproxy.relay.latch import Latch
from mediaproxy.relay.leg import Leg, Party
from mediaproxy.relay.memory import Memory
from mediaproxy.relay.offers import Change
from mediaproxy.relay.probation import Probation
from mediaproxy.relay.refusals import Refusals
from mediaproxy.relay.snapshot import (
    put_call,
    put_latch,
    put_leg,
    put_party,
    put_port,
    put_refusals,
    put_tally,
)
from mediaproxy.relay.stream import End, Limit, Port, Stream
from mediaproxy.relay.switchboard import Switchboard

_NOBODY = Named()


class Revival:
    """One call in the making."""

    def __init__(self, value: CallValue, board: Switchboard) -> None:
        """ValueError if the value contradicts itself."""
        self._board = board
        try:
            self._latches = self._make_latches(value.latches)
            self._streams = [self._make_stream(value.call_id, stream) for stream in value.streams]
            self._ports = list(chain.from_iterable(stream.ports for stream in self._streams))
            self._lodge(value.streams)
            self._legs = [self._make_leg(leg) for leg in value.legs]
            self.call = self._make_call(value)
        except (IndexError, KeyError) as error:
            raise ValueError(f"the value of call {value.call_id!r} contradicts itself: {error}") from error

    def count(self, value: CountersValue) -> None:
        """Set its counters. ValueError if they are another call's."""
        latches = list(dict.fromkeys(port.latch for port in self._ports))
        if len(self._ports) != len(value.tallies) or len(latches) != len(value.traces):
            raise ValueError(f"the counters of call {self.call.call_id!r} are another one's")
        for port, tally, passed in zip(self._ports, value.tallies, value.passed, strict=True):
            put_tally(tally, port.tally)
            port.passed = passed
        for latch, trace in zip(latches, value.traces, strict=True):
            latch._last = trace

    # -- streams

    def _make_latches(self, values: tuple[LatchValue, ...]) -> list[Latch]:
        latches = [Latch(self._board.settings) for _ in values]
        for latch, value in zip(latches, values, strict=True):
            put_latch(value, latch)
            latch._rtp = None if value.rtp == NONE else latches[value.rtp]
            if value.probation:
                latch._probation = Probation(self._board.settings.probation_packets)
                latch._probation._runs = value.probation
        return latches

    def _make_stream(self, call_id: str, value: StreamValue) -> Stream:
        pairs = {Side.CALLER: value.caller.pair, Side.CALLEE: value.callee.pair}
        stream = Stream(value.index, pairs, self._board.settings, call_id, value.changed, self._board.traffic)
        stream.understand(value.sdp, value.terms)
        stream.one_way = value.one_way
        self._make_end(stream.caller, value.caller)
        self._make_end(stream.callee, value.callee)
        for port in stream.ports:
            if port.closed and port.peer is not None:
                port.peer.peer = None
                port.peer = None
        return stream

    def _make_end(self, end: End, value: EndValue) -> None:
        if value.sent:
            end.limit = Limit(self._board.settings.unlearned_rate)
            end.limit._sent.extend(value.sent)
        self._make_port(end.rtp, value.rtp)
        self._make_port(end.rtcp, value.rtcp)

    def _make_port(self, port: Port, value: PortValue) -> None:
        put_port(value, port)
        port.latch = self._latches[value.latch]
        put_tally(value.tally, port.tally)
        if value.refusals is not None:
            port.refusals = Refusals()
            put_refusals(value.refusals, port.refusals)

    def _lodge(self, values: tuple[StreamValue, ...]) -> None:
        """Who is heard and served at another leg's port."""
        told = chain.from_iterable(_ports(value) for value in values)
        for port, value in zip(self._ports, told, strict=True):
            port.guests = [self._ports[number] for number in value.guests]
            for guest in port.guests:
                guest.shared = port

    def _stream(self, number: int) -> Stream | None:
        return None if number == NONE else self._streams[number]

    # -- parties

    def _make_leg(self, value: LegValue) -> Leg:
        leg = Leg(_NOBODY, value.branch, self._board.settings)
        put_leg(value, leg)
        leg.party = _party(value.party)
        leg._latches = {
            index: (self._latches[rtp], self._latches[rtcp]) for index, (rtp, rtcp) in value.latches.items()
        }
        leg.streams = None if value.streams is None else [self._stream(number) for number in value.streams]
        return leg

    def _leg(self, number: int) -> Leg | None:
        return None if number == NONE else self._legs[number]

    def _make_call(self, value: CallValue) -> Call:
        nothing = MediaRequest(call_id=value.call_id, sender=_NOBODY, receiver=_NOBODY, cseq=0, sdp_hash="")
        call = Call(nothing, Side.CALLER, self._board, value.started)
        put_call(value, call)
        call.caller, call.invited = _party(value.caller), _party(value.invited)
        call.legs = self._legs[: value.had]
        call.locked, call.active = self._leg(value.locked), self._leg(value.active)
        call.streams = [self._stream(number) for number in value.present]
        call.retiring = {self._streams[new]: self._streams[old] for new, old in value.retiring}
        call.memory = _memory(value.memory)
        call.assign()
        call.offers._changes.extend(self._change(change) for change in value.offers)
        return call

    def _change(self, value: ChangeValue) -> Change:
        return Change(
            by=value.by,
            leg=self._legs[value.leg],
            side=value.side,
            before=value.before,
            after=value.after,
            lent=tuple(self._streams[number] for number in value.lent),
            shared=value.shared,
            own=value.own,
            founded=value.founded,
        )


def _ports(value: StreamValue) -> tuple[PortValue, ...]:
    return (value.caller.rtp, value.caller.rtcp, value.callee.rtp, value.callee.rtcp)


def _party(value: PartyValue) -> Party:
    party = Party()
    put_party(value, party)
    return party


def _memory(value: MemoryValue) -> Memory:
    memory = Memory()
    memory._answers, memory._last, memory._late = value.answers, value.last, value.late
    for whose, cseqs in value.offers.items():
        memory._offers[whose] = deque(cseqs, maxlen=8)
    memory._refused.extend(value.refused)
    memory._latest, memory.memos = value.latest, value.memos
    return memory
