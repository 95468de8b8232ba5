"""The timers of a call (calls.md 11): when it must be looked at, and what is due then."""

from math import inf

from mediaproxy.events import EndReason, OneWay, Side
from mediaproxy.relay.call import Call
from mediaproxy.relay.effects import Effect, Report
from mediaproxy.relay.latchstate import State
from mediaproxy.relay.stream import Stream

_AGAIN = 1.0
"Seconds until the next look at something that is due as soon as the other side is heard."


def expiry(call: Call) -> tuple[float, EndReason]:
    """When the call ends by itself if nothing more happens, and why."""
    settings = call.board.settings
    if call.lingering is not None:
        return call.lingers_until, call.lingering
    if call.answered is None:
        return max(call.trying, call.alive) + settings.unanswered, EndReason.UNANSWERED
    since = max(call.changed, call.alive)
    if call.held:
        return since + settings.hold, EndReason.HOLD_EXPIRED
    if call.perhaps_held:
        return max(since, call.offered) + settings.hold, EndReason.HOLD_EXPIRED
    if call.bypassed:
        return since + settings.hold, EndReason.SILENT
    return max(since, call.resumed) + settings.silence, EndReason.SILENT


def due(call: Call, now: float) -> float:
    """When the call must be looked at next: it may end, or have a source fall silent that SIP has replaced."""
    first = expiry(call)[0]
    for stream in call.all_streams():
        for port in stream.ports:
            at = port.latch.deserts_at() if port.latch.state is State.MOVING else None
            if at is not None and now < at < first:
                first = at
    soon = now + call.board.settings.silence
    if first > soon and call.answered is not None and (call.bypassed or call.perhaps_held):
        return soon  # the first packet brings the end nearer
    return first


def desert(call: Call, now: float) -> list[Effect]:
    """Turn to the new address of who was announced to move and has fallen silent (calls.md 5, 7)."""
    deserts = [port.latch.deserts_at() for stream in call.all_streams() for port in stream.ports]
    return call.sync(now) if any(at is not None and at <= now for at in deserts) else []


def next_look(call: Call, now: float) -> float | None:
    """When the call must be looked at for one-way audio; None: it has none to look for."""
    if call.answered is None or call.lingering is not None:
        return None
    if _quiet(call, now):
        return now + call.board.settings.one_way
    times = [_silent_at(call, stream, end.side) for stream in call.present() for end in stream.ends]
    first = min((at for at in times if at is not None), default=None)
    if first is None:
        # All sides are silent by agreement, or have been told of: look whether one of those speaks again.
        return now + _AGAIN if any(stream.one_way for stream in call.present()) else None
    return first if first > now else now + _AGAIN


def undisturbed(call: Call, now: float) -> float | None:
    """The same for a call of which nothing is to be told, because all its sides are heard, or nobody has been for a
    while; None: that must be looked into. Nearly every call is of this kind, so it is quick. Infinity: nobody has been
    heard at all, and whoever is the first will come to ``Calls.packet``."""
    if call.answered is None or call.lingering is not None:
        return None
    first, latest, told, known = now, 0.0, False, False
    for stream in call.present():
        told = told or bool(stream.one_way)
        for end in stream.ends:
            last = end.rtp.tally.last or 0.0
            known = known or end.rtp.latch.learned is not None
            first, latest = min(first, last), max(latest, last)
    one_way = call.board.settings.one_way
    if now - first < one_way and latest and not told:
        return first + one_way
    if now - max(latest, call.changed, call.resumed) < one_way:
        return None
    return now + one_way if latest or known else inf


def look(call: Call, now: float) -> list[Effect]:
    """Tell of sides that have fallen silent while the other one is heard."""
    if call.answered is None or call.lingering is not None or _quiet(call, now):
        return []
    return [effect for stream in call.present() for side in Side for effect in _one_way(call, stream, side, now)]


def _quiet(call: Call, now: float) -> bool:
    """Nobody is heard, nor has anything happened, for so long that no side is silent *while the other one is heard*.
    What comes besides, such as RTCP, is no voice."""
    heard = max([end.rtp.tally.last or 0.0 for stream in call.present() for end in stream.ends], default=0.0)
    return now - max(heard, call.changed, call.resumed) >= call.board.settings.one_way


def _silent_since(call: Call, stream: Stream, side: Side) -> float:
    heard = stream.end(side).rtp.tally.last or 0.0
    return max(heard, stream.changed, call.answered or 0.0, call.resumed)


def _silent_at(call: Call, stream: Stream, side: Side) -> float | None:
    """When the side has been silent long enough for an event; None: no event can come of it."""
    if side in stream.one_way or stream.closed or not stream.described.rtp or not stream.speaks(side):
        return None
    return _silent_since(call, stream, side) + call.board.settings.one_way


def _one_way(call: Call, stream: Stream, side: Side, now: float) -> list[Effect]:
    """An event when one side is heard and the other is not, once per silence."""
    told = stream.one_way.get(side)
    heard = stream.end(side).rtp.tally.last
    if told is not None and heard is not None and heard > told:
        del stream.one_way[side]
    at = _silent_at(call, stream, side)
    other = stream.end(side.other).rtp.tally.last
    if at is None or at > now or other is None or now - other >= call.board.settings.one_way:
        return []
    stream.one_way[side] = now
    seconds = now - _silent_since(call, stream, side)
    return [Report(OneWay(at=now, call_id=call.call_id, stream=stream.index, silent=side, seconds=seconds))]
