"""Answers to whoever looks after calls: how they stand, which there are, what the relay has done.

An Inquiry comes in, a reply and effects go out. Nothing here changes what a call does, but what a SwitchRequest asks
for.
"""

from itertools import islice
from typing import assert_never

from mediaproxy.control import Inquiry, ListRequest, MediaReply, QueryRequest, SwitchRequest, TotalsRequest
from mediaproxy.events import RelayTotals, raw
from mediaproxy.relay.calls import Calls
from mediaproxy.relay.effects import Effect
from mediaproxy.relay.register import UNKNOWN
from mediaproxy.relay.switching import switch


def inquire(calls: Calls, inquiry: Inquiry, now: float) -> tuple[MediaReply, list[Effect]]:
    """The answer. Counters are those that ``calls`` was told last."""
    match inquiry:
        case QueryRequest():
            return _query(calls, inquiry, now), []
        case ListRequest():
            found = islice(dict.fromkeys(call.call_id for call in calls), max(0, inquiry.limit))
            return MediaReply(calls=tuple(found), relay=calls.name), []
        case TotalsRequest():
            return MediaReply(totals=(raw(totals(calls)),), relay=calls.name), []
        case SwitchRequest():
            return _switch(calls, inquiry, now)
        case _:
            assert_never(inquiry)


def _query(calls: Calls, inquiry: QueryRequest, now: float) -> MediaReply:
    if inquiry.call_id:
        found = list(calls.of(inquiry.call_id))
        if not found:
            return MediaReply(error=UNKNOWN.error, status=UNKNOWN.status, relay=calls.name)
    else:
        found = list(islice(calls, max(0, inquiry.limit)))
    reports = tuple(raw(calls.report(call, now)) for call in found)
    return MediaReply(reports=reports, relay=calls.name)


def _switch(calls: Calls, inquiry: SwitchRequest, now: float) -> tuple[MediaReply, list[Effect]]:
    named = calls.of(inquiry.call_id)
    if not named:
        return MediaReply(error=UNKNOWN.error, status=UNKNOWN.status, relay=calls.name), []
    turned = [call for call in named if switch(call, inquiry)]
    if not turned:
        return MediaReply(error="the call has no such party", status=404, relay=calls.name), []
    effects: list[Effect] = []
    for call in turned:
        call.asked = now
        effects += call.sync(now)
        calls.plan(call, now)
    return MediaReply(relay=calls.name), effects


def totals(calls: Calls) -> RelayTotals:
    """What the relay has done since it started, as far as its counters have been read."""
    sums, traffic = calls.totals, calls.board.traffic
    streams = [stream for call in calls for stream in call.present() if stream.enabled and not stream.closed]
    carried = [stream for stream in streams if any(port.offloaded for port in stream.ports)]
    return RelayTotals(
        relay=calls.name,
        started=sums.started,
        plane=calls.plane_name,
        calls=len(calls),
        talking=sum(call.answered is not None and call.lingering is None for call in calls),
        streams=len(streams),
        offloaded=0 if calls.plane_name == "user" else len(carried),
        ports=2 * calls.board.pool.most,
        ports_lent=2 * calls.board.pool.lent,
        packets=traffic.packets,
        bytes=traffic.bytes,
        refused_packets=traffic.refused,
        started_calls=sums.started_calls,
        ended_calls=dict(sums.ended_calls),
        seconds=sums.seconds,
        one_way_calls=sums.one_way_calls,
        silent_calls=sums.silent_calls,
    )
