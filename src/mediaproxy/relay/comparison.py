"""What SDP has changed of a call's streams, as events.

What was said before and what is said now come in. Only this knows which differences an operator is told of.
"""

from mediaproxy.control import Stream as Sdp
from mediaproxy.events import Side, StreamChanged
from mediaproxy.relay.call import Call
from mediaproxy.relay.effects import Effect, Report

Described = dict[tuple[int, Side], Sdp]


def described(call: Call) -> Described:
    """What SDP says of all streams now: for ``compare``."""
    return {(id(stream), side): sdp for stream in call.present() for side, sdp in stream.sdp.items()}


def compare(call: Call, before: Described, now: float) -> list[Effect]:
    """Tell of each change of what is expected of a stream, and note that there was one."""
    effects: list[Effect] = []
    for stream in call.present():
        for side, after in stream.sdp.items():
            known = before.get((id(stream), side))
            if known is None or _expected(known) == _expected(after):
                continue
            call.changed = stream.changed = now
            stream.one_way.clear()
            change = StreamChanged(
                at=now,
                call_id=call.call_id,
                stream=stream.index,
                side=side,
                sdp=after.endpoint,
                held=stream.held,
            )
            effects.append(Report(change))
    return effects


def _expected(sdp: Sdp) -> tuple[object, ...]:
    return (sdp.endpoint, sdp.held, sdp.direction)
