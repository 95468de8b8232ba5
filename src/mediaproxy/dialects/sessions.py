"""A call as MediaProxy 2.x tells of it: in its management interface and in the records of its accounting.

A report comes in, a value for JSON goes out. Names, units and words are the original's; times of streams are seconds
since the beginning of the call, addresses ``IP:PORT`` or ``Unknown``.
"""

from typing import Any, TypeAlias

from mediaproxy.control import MediaReply
from mediaproxy.endpoint import Endpoint
from mediaproxy.events import CallReport, CallState, EndReason, SideReport, StreamReport, reports_of

_Object: TypeAlias = dict[str, Any]
_UNKNOWN = "Unknown"
_TIMED_OUT = {
    EndReason.SILENT: "no-traffic timeout",
    EndReason.UNANSWERED: "no-traffic timeout",
    EndReason.HOLD_EXPIRED: "on hold timeout",
}


def standing(reply: MediaReply) -> list[CallReport]:
    """The calls of a reply that are not over: those that were deleted before an answer keep their ports for a while.
    ControlError if a relay sent something else."""
    return [report for report in reports_of(reply) if report.state is not CallState.LINGERING]


def session(report: CallReport, now: float) -> _Object:
    """One call."""
    begun = report.started if report.answered is None else report.answered
    until = now if report.ended is None else report.ended
    return {
        "call_id": _text(report.call_id),
        "from_tag": _text(report.caller.tag),
        "from_uri": _uri(report.caller.uri),
        "to_tag": _text(report.callee.tag) or None,
        "to_uri": _uri(report.callee.uri),
        "start_time": report.answered,
        "duration": 0 if report.answered is None else max(0, int(until - report.answered)),
        "caller_ua": _text(report.caller.user_agent) or None,
        "callee_ua": _text(report.callee.user_agent) or None,
        "username": _text(report.caller.label or report.callee.label) or None,
        "streams": [_stream(one, report, begun) for one in report.streams],
        "dialog_id": _text(report.dialog_id) or None,
        "timed_out": report.reason in _TIMED_OUT,
        "all_streams_ice": False,
    }


def _text(text: str) -> str:
    """Text of peers, which is one character per byte here, as Unicode: UTF-8 if it is that."""
    octets = text.encode("latin-1", "replace")
    try:
        return octets.decode("utf-8")
    except UnicodeDecodeError:
        return octets.decode("latin-1")


def _uri(uri: str) -> str:
    return _text(uri.removeprefix("sip:")) or "unknown"


def _stream(stream: StreamReport, report: CallReport, begun: float) -> _Object:
    caller, callee = stream.caller, stream.callee
    firsts = [side.first_packet for side in (caller, callee) if side.first_packet is not None]
    first = min(firsts, default=None)
    return {
        "media_type": stream.kind,
        "status": _status(stream, report),
        "timeout_wait": 0,
        "caller_codec": caller.codec or _UNKNOWN,
        "callee_codec": callee.codec or _UNKNOWN,
        "start_time": 0 if first is None else max(0, int(first - begun)),
        "end_time": None if report.ended is None else max(0, int(report.ended - begun)),
        "post_dial_delay": None if first is None else max(0.0, round(first - report.started, 3)),
        "caller_bytes": caller.bytes,
        "callee_bytes": callee.bytes,
        "caller_packets": caller.packets,
        "callee_packets": callee.packets,
        "caller_local": _place(caller.local),
        "callee_local": _place(callee.local),
        "caller_remote": _place(caller.learned),
        "callee_remote": _place(callee.learned),
    }


def _status(stream: StreamReport, report: CallReport) -> str:
    if report.reason is not None:
        return _TIMED_OUT.get(report.reason, "closed")
    if report.answered is not None and _disabled(stream.callee):
        return "rejected"
    if _disabled(stream.caller):
        return "closed"
    return "on hold" if stream.held else "active"


def _disabled(side: SideReport) -> bool:
    """Its SDP has port 0 for the stream."""
    return side.sdp is None


def _place(place: Endpoint | None) -> str:
    return _UNKNOWN if place is None else f"{place.host}:{place.port}"
