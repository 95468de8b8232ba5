"""What MediaProxy 1.x's proxy server says to ``status``: totals, then calls and their streams, a line each.

    proxy SESSIONS BYTES-IN/BYTES-OUT/BYTES-TOTAL
    session CALLID FROM TO CALLER-AGENT CALLEE-AGENT SECONDS
    stream CALLER CALLEE RELAY BYTES-CALLER/BYTES-CALLEE/BYTES-BOTH STATUS CODEC TYPE IDLE-SECONDS

Reports come in, text goes out. Words are separated by spaces, so that what a phone wrote is quoted as the module does
it; what is not known is ``-``, an address ``?.?.?.?:?``.
"""

from mediaproxy.control import ControlError, ListRequest, MediaReply, QueryRequest, TotalsRequest
from mediaproxy.dialects.dialect import ErrorAnswer, Steps
from mediaproxy.dialects.sessions import standing
from mediaproxy.endpoint import Endpoint
from mediaproxy.events import CallReport, SideReport, StreamReport, totals_of

MOST = 100_000
"Calls that are shown."
_NOWHERE = "?.?.?.?:?"


def status(now: float) -> Steps:
    """Ask for totals and calls, and answer."""
    totals: MediaReply | None = yield TotalsRequest()
    listed: MediaReply | None = yield ListRequest(limit=MOST)
    if totals is None or listed is None or totals.error or listed.error:
        return ErrorAnswer(b"")
    try:
        relays = totals_of(totals)
        bytes_in = sum(relay.bytes for relay in relays)
        lines = [f"proxy {sum(relay.calls - relay.lingering for relay in relays)} {bytes_in}/{bytes_in}/{2 * bytes_in}"]
        for call_id in listed.calls:  # there may be thousands, and others have their turn between two
            reply: MediaReply | None = yield QueryRequest(call_id=call_id)
            for report in () if reply is None else standing(reply):
                lines += [_session(report, now), *(_stream(one, report, now) for one in report.streams)]
    except ControlError:
        return ErrorAnswer(b"")
    return "".join(f"{line}\n" for line in lines).encode("latin-1")


def quoted(text: str) -> str:
    """As the module writes a user agent: each byte that is not printable, and ``=``, is ``=XX``."""
    return "".join(c if "!" <= c <= "~" and c != "=" else f"={ord(c):02X}" for c in text) or "-"


def _session(report: CallReport, now: float) -> str:
    begun = report.answered if report.answered is not None else report.started
    words = (
        report.call_id,
        report.caller.uri.removeprefix("sip:"),
        report.callee.uri.removeprefix("sip:"),
        report.caller.user_agent,
        report.callee.user_agent,
    )
    return " ".join(("session", *map(quoted, words), str(max(0, int(now - begun)))))


def _stream(stream: StreamReport, report: CallReport, now: float) -> str:
    caller, callee = stream.caller, stream.callee
    last = max(caller.last_packet or 0.0, callee.last_packet or 0.0) or report.started
    words = (
        _place(caller),
        _place(callee),
        _shown(caller.advertised),
        f"{caller.bytes}/{callee.bytes}/{caller.bytes + callee.bytes}",
        "hold" if stream.held else "active",
        quoted(caller.codec or callee.codec or "unknown"),
        quoted(stream.kind),
        str(max(0, int(now - last))),
    )
    return " ".join(("stream", *words))


def _place(side: SideReport) -> str:
    """Where a party is: as learned, else as its SDP says."""
    place = side.learned or side.sdp
    return _NOWHERE if place is None else _shown(place)


def _shown(place: Endpoint) -> str:
    return f"{place.host}:{place.port}"
