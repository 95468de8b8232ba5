"""The management interface of MediaProxy 2.x's dispatcher: lines with commands, lines with JSON.

    summary    an array of relays: ip, version, status, uptime, session_count, stream_count, bps_relayed; of one that is
               down: ip, and the status error
    sessions   an array of calls with their parties and streams
    version    the version of this program
    quit, exit close the connection
    else       error

The original wants TLS and closes on a client without a certificate; that is the door's business.
"""

import json
from typing import Any, TypeAlias

from mediaproxy import __version__
from mediaproxy.control import ControlError, ListRequest, MediaReply, QueryRequest, TotalsRequest
from mediaproxy.dialects.dialect import ErrorAnswer, Peer, Steps
from mediaproxy.dialects.framing import LineFramer
from mediaproxy.dialects.sessions import session, standing
from mediaproxy.events import CallReport, RelayTotals, reports_of, totals_of

MOST = 100_000
"Sessions that are shown."
_SAMPLE = 200
"Calls by which the bit rate is estimated."
_LAST = frozenset((b"quit", b"exit"))
_ERROR = ErrorAnswer(b"error\r\n")
_Object: TypeAlias = dict[str, Any]


class Management:
    """The dialect."""

    name = "management"

    def framer(self, transport: str) -> LineFramer:
        """Lines, until ``quit``."""
        return LineFramer(last=_LAST)

    def cookie(self, request: bytes) -> bytes | None:
        """There are no datagrams."""
        return None

    def answer(self, request: bytes, peer: Peer) -> Steps:
        """Answer one line."""
        match request:
            case b"summary":
                return (yield from _summary(peer.now))
            case b"sessions":
                return (yield from _sessions(peer.now))
            case b"version":
                return f"{__version__}\r\n".encode()
            case b"quit" | b"exit":
                return b""
        return _ERROR


def _summary(now: float) -> Steps:
    totals: MediaReply | None = yield TotalsRequest()
    some: MediaReply | None = yield QueryRequest(limit=_SAMPLE)
    if totals is None or (totals.error and not totals.absent):
        return _ERROR
    try:
        relays = totals_of(totals)
        reports = () if some is None or some.error else reports_of(some)
    except ControlError:
        return _ERROR
    shown = [_relay(one, [r for r in reports if r.relay == one.relay], now) for one in relays]
    return _line([_encoded(one) for one in (*shown, *({"ip": ip, "status": "error"} for ip in totals.absent))])


def _relay(totals: RelayTotals, some: list[CallReport], now: float) -> _Object:
    """One relay; ``some`` of its calls."""
    rates = [_rate(report, now) for report in some]
    return {
        "ip": next(iter(totals.addresses), totals.relay),
        "version": __version__,
        "status": "active",
        "uptime": max(0, int(now - totals.started)),
        "session_count": totals.calls - totals.lingering,
        "stream_count": totals.kinds,
        "bps_relayed": int(sum(rates) * totals.calls / len(rates)) if rates else 0,
    }


def _rate(report: CallReport, now: float) -> float:
    """Bits per second of a call, over its life."""
    octets = sum(one.caller.bytes + one.callee.bytes for one in report.streams)
    return 8 * octets / max(1.0, now - report.started)


def _sessions(now: float) -> Steps:
    """Call by call: there may be thousands, and others have their turn between two."""
    listed: MediaReply | None = yield ListRequest(limit=MOST)
    if listed is None or listed.error:
        return _ERROR
    shown: list[bytes] = []
    for call_id in listed.calls:
        reply: MediaReply | None = yield QueryRequest(call_id=call_id)
        if reply is None or reply.error:
            continue  # it has ended meanwhile
        try:
            shown += [_encoded(session(one, now)) for one in standing(reply)]
        except ControlError:
            return _ERROR
    return _line(shown)


def _encoded(value: _Object) -> bytes:
    return json.dumps(value).encode("ascii")


def _line(values: list[bytes]) -> bytes:
    return b"[" + b", ".join(values) + b"]\r\n"
