"""Answers to whoever looks after calls: how they stand, which there are, what the relay has done.

An Inquiry comes in, a reply and effects go out. Nothing here changes what a call does, but what a SwitchRequest asks
for.
"""

from itertools import islice
from typing import assert_never

from mediaproxy.control import Inquiry, ListRequest, MediaReply, QueryRequest, SwitchRequest, TotalsRequest
from mediaproxy.events import raw
from mediaproxy.relay.calls import Calls
from mediaproxy.relay.effects import Effect
from mediaproxy.relay.report import call_report

_UNKNOWN = MediaReply(error="unknown call", status=481)


def inquire(calls: Calls, inquiry: Inquiry, now: float) -> tuple[MediaReply, list[Effect]]:
    """The answer. Counters are those that ``calls`` was told last."""
    match inquiry:
        case QueryRequest():
            return _query(calls, inquiry, now), []
        case ListRequest():
            found = islice(dict.fromkeys(call.call_id for call in calls), max(0, inquiry.limit))
            return MediaReply(calls=tuple(found), relay=calls.name), []
        case TotalsRequest():
            return MediaReply(error="not yet", status=501, relay=calls.name), []
        case SwitchRequest():
            return MediaReply(error="not yet", status=501, relay=calls.name), []
        case _:
            assert_never(inquiry)


def _query(calls: Calls, inquiry: QueryRequest, now: float) -> MediaReply:
    if inquiry.call_id:
        found = list(calls.of(inquiry.call_id))
        if not found:
            return MediaReply(error=_UNKNOWN.error, status=_UNKNOWN.status, relay=calls.name)
    else:
        found = list(islice(calls, max(0, inquiry.limit)))
    reports = tuple(raw(call_report(call, calls.name, calls.plane_name, now)) for call in found)
    return MediaReply(reports=reports, relay=calls.name)
