"""Answers to whoever looks after calls: how they stand, which there are, what the relay has done.

An Inquiry comes in, a reply and effects go out. Nothing here changes what a call does, but what a SwitchRequest asks
for.
"""

import sys
from itertools import islice
from typing import assert_never

from mediaproxy.control import Inquiry, ListRequest, MediaReply, QueryRequest, SwitchRequest, TotalsRequest
from mediaproxy.events import AddressTotals, CallState, RelayTotals, raw
from mediaproxy.relay.calls import Calls
from mediaproxy.relay.effects import Effect
from mediaproxy.relay.flow import Carried
from mediaproxy.relay.register import UNKNOWN
from mediaproxy.relay.settings import RelayAddress
from mediaproxy.relay.switching import switch


def inquire(
    calls: Calls, inquiry: Inquiry, now: float, carried: Carried | None = None
) -> tuple[MediaReply, list[Effect]]:
    """The answer. Counters are those that ``calls`` was told last; ``carried`` as of ``totals``."""
    match inquiry:
        case QueryRequest():
            return _query(calls, inquiry, now), []
        case ListRequest():
            found = islice(dict.fromkeys(call.call_id for call in calls), _most(inquiry.limit))
            return MediaReply(calls=tuple(found), relay=calls.name), []
        case TotalsRequest():
            return MediaReply(totals=(raw(totals(calls, carried)),), relay=calls.name), []
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
        found = list(islice(calls, _most(inquiry.limit)))
    reports = tuple(raw(calls.report(call, now)) for call in found)
    return MediaReply(reports=reports, relay=calls.name)


def _most(limit: int) -> int:
    """A limit that ``islice`` takes."""
    return max(0, min(limit, sys.maxsize))


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


def totals(calls: Calls, carried: Carried | None = None) -> RelayTotals:
    """What the relay has done since it started. ``carried``: by its plane; None: as far as counters have been read."""
    sums, census = calls.totals, calls.census
    packets, octets, refused = calls.board.traffic.totals(carried)
    return RelayTotals(
        relay=calls.name,
        started=sums.started,
        plane=calls.plane_name,
        calls=len(calls),
        talking=census.states[CallState.TALKING] + census.states[CallState.HELD],
        lingering=census.states[CallState.LINGERING],
        streams=census.streams,
        kinds={kind: count for kind, count in census.kinds.items() if count},
        addresses=tuple(dict.fromkeys(address.public for address in calls.settings.addresses)),
        offloaded=0 if calls.plane_name == "user" else census.carried,
        ports=2 * calls.board.pool.most,
        ports_lent=2 * calls.board.pool.lent,
        by_address=tuple([_of_address(address, calls) for address in calls.settings.addresses]),
        packets=packets,
        bytes=octets,
        refused_packets=refused,
        started_calls=sums.started_calls,
        ended_calls=dict(sums.ended_calls),
        seconds=sums.seconds,
        squares=sums.squares,
        mos=sums.mos,
        mos_squares=sums.mos_squares,
        mos_samples=sums.mos_samples,
        one_way_calls=sums.one_way_calls,
        silent_calls=sums.silent_calls,
    )


def _of_address(address: RelayAddress, calls: Calls) -> AddressTotals:
    ports = calls.settings.even_ports
    return AddressTotals(
        name=address.name,
        address=address.bind,
        port_min=ports[0],
        port_max=ports[-1] + 1,
        ports=2 * len(ports),
        ports_lent=2 * calls.board.pool.lent_of[address.bind],
    )
