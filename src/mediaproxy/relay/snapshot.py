"""All that a relay which starts again must know of a call, to go on with it as if nothing had happened.

A Call comes in, a CallValue goes out; ``revival`` makes a Call of it again. A value shares what may change with its
call, so it is to be encoded at once.
"""

from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from operator import attrgetter
from typing import Any, TypeVar

import msgspec

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
    RefusalsValue,
    StreamValue,
    TallyValue,
)
from mediaproxy.relay.latch import Latch
from mediaproxy.relay.leg import Leg
from mediaproxy.relay.memory import Memory
from mediaproxy.relay.offers import Change
from mediaproxy.relay.stream import End, Port, Stream

V = TypeVar("V", bound=msgspec.Struct)


def camera(kind: type[V], *more: str) -> tuple[Callable[[object], Any], Callable[[V, object], None]]:
    """How to take the first fields of a value of an object, and how to set the object's attributes by them. ``more``:
    fields that are no attributes, the last ones of the value."""
    names = kind.__struct_fields__[: len(kind.__struct_fields__) - len(more)]

    def put(value: V, subject: object) -> None:
        for name in names:
            setattr(subject, name, getattr(value, name))

    return attrgetter(*names), put


of_tally, put_tally = camera(TallyValue)
of_refusals, put_refusals = camera(RefusalsValue)
of_latch, put_latch = camera(LatchValue, "rtp", "probation")
of_port, put_port = camera(PortValue, "latch", "guests", "tally", "refusals")
of_party, put_party = camera(PartyValue)
of_leg, put_leg = camera(LegValue, "party", "latches", "streams")
of_change, _ = camera(ChangeValue, "leg", "lent")
_PARTS = CallValue.__struct_fields__[CallValue.__struct_fields__.index("caller") :]
of_call, put_call = camera(CallValue, *_PARTS)


class _Numbers:
    """The numbers of what a call consists of, in the order in which it is first referred to."""

    def __init__(self, call: Call) -> None:
        changes: Iterable[Change] = call.offers._changes
        self.legs = list(call.legs)
        for change in changes:
            if change.leg not in self.legs:
                self.legs.append(change.leg)
        self.streams = list(dict.fromkeys(_all_streams(call, self.legs, changes)))
        self._stream = {id(stream): number for number, stream in enumerate(self.streams)}
        self.latches: list[Latch] = []
        self._latch: dict[int, int] = {}
        self._port: dict[int, int] | None = None

    def leg(self, leg: Leg | None) -> int:
        return NONE if leg is None else self.legs.index(leg)

    def stream(self, stream: Stream | None) -> int:
        return NONE if stream is None else self._stream[id(stream)]

    def latch(self, latch: Latch | None) -> int:
        if latch is None:
            return NONE
        number = self._latch.get(id(latch))
        if number is None:
            number = self._latch[id(latch)] = len(self.latches)
            self.latches.append(latch)
        return number

    def ports(self, ports: list[Port]) -> tuple[int, ...]:
        if self._port is None:
            numbered = chain.from_iterable(stream.ports for stream in self.streams)
            self._port = {id(port): number for number, port in enumerate(numbered)}
        return tuple([self._port[id(port)] for port in ports])


def _all_streams(call: Call, legs: list[Leg], changes: Iterable[Change]) -> Iterator[Stream]:
    yield from (stream for stream in call.streams if stream is not None)
    for leg in legs:
        if leg.streams is not None:
            yield from (stream for stream in leg.streams if stream is not None)
    for new, old in call.retiring.items():
        yield from (new, old)
    for change in changes:
        yield from change.lent


def call_value(call: Call, now: float, ends_at: float | None = None, looks_at: float | None = None) -> CallValue:
    """The call as it is. ``now``: what is older than a second limits no rate any more. ``ends_at``, ``looks_at``: what
    is planned for it. 20 us, so lists are made where generators would read as well."""
    numbers = _Numbers(call)
    number = numbers.stream
    streams = tuple([_stream_value(stream, numbers, now) for stream in numbers.streams])
    legs = tuple([_leg_value(leg, numbers) for leg in numbers.legs])
    latches = []
    for latch in numbers.latches:  # it grows: an RTCP latch may refer to one that no port has
        tried = latch._probation._runs if latch._probation is not None else {}
        latches.append(LatchValue(*(*of_latch(latch), numbers.latch(latch._rtp), tried)))
    parts = (
        PartyValue(*of_party(call.caller)),
        PartyValue(*of_party(call.invited)),
        legs,
        len(call.legs),
        numbers.leg(call.locked),
        numbers.leg(call.active),
        tuple(latches),
        streams,
        tuple([number(stream) for stream in call.streams]),
        tuple([(number(new), number(old)) for new, old in call.retiring.items()]),
        _memory_value(call.memory),
        tuple([_change_value(change, numbers) for change in call.offers._changes]),
        ends_at,
        looks_at,
    )
    return CallValue(*(*of_call(call), *parts))


def counters_value(call: Call) -> CountersValue:
    """Its counters, numbered as ``call_value`` numbers them."""
    numbers = _Numbers(call)
    ports = [port for stream in numbers.streams for port in stream.ports]
    for port in ports:
        numbers.latch(port.latch)
    return CountersValue(
        call.turn,
        tuple([TallyValue(*of_tally(port.tally)) for port in ports]),
        tuple([port.passed for port in ports]),
        tuple([latch._last for latch in numbers.latches]),
    )


def _stream_value(stream: Stream, numbers: _Numbers, now: float) -> StreamValue:
    caller, callee = _end_value(stream.caller, numbers, now), _end_value(stream.callee, numbers, now)
    return StreamValue(stream.index, stream.changed, stream.sdp, stream.terms, stream.one_way, caller, callee)


def _end_value(end: End, numbers: _Numbers, now: float) -> EndValue:
    sent = end.limit._sent if end.limit is not None else ()
    recent = tuple(at for at in sent if now - at < 1.0) if sent and now - sent[-1] < 1.0 else ()
    return EndValue(end.pair, recent, _port_value(end.rtp, numbers), _port_value(end.rtcp, numbers))


def _port_value(port: Port, numbers: _Numbers) -> PortValue:
    parts = (
        numbers.latch(port.latch),
        numbers.ports(port.guests) if port.guests else (),
        TallyValue(*of_tally(port.tally)),
        None if port.refusals is None else RefusalsValue(*of_refusals(port.refusals)),
    )
    return PortValue(*(*of_port(port), *parts))


def _leg_value(leg: Leg, numbers: _Numbers) -> LegValue:
    latch = numbers.latch
    latches = {index: (latch(rtp), latch(rtcp)) for index, (rtp, rtcp) in leg._latches.items()}
    streams = None if leg.streams is None else tuple([numbers.stream(stream) for stream in leg.streams])
    return LegValue(*(*of_leg(leg), PartyValue(*of_party(leg.party)), latches, streams))


def _change_value(change: Change, numbers: _Numbers) -> ChangeValue:
    lent = tuple([numbers.stream(stream) for stream in change.lent])
    return ChangeValue(*(*of_change(change), numbers.leg(change.leg), lent))


def _memory_value(memory: Memory) -> MemoryValue:
    offers = {whose: list(cseqs) for whose, cseqs in memory._offers.items()}
    refused = tuple(memory._refused)
    return MemoryValue(memory._answers, memory._last, offers, memory._late, refused, memory._latest, memory.memos)
