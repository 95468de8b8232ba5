"""The management interface of MediaProxy 2.x's dispatcher: lines with commands, lines with JSON.

    summary    an array of relays: ip, version, status, uptime, session_count, stream_count, bps_relayed
    sessions   an array of calls with their parties and streams
    version    the version of this program
    quit, exit close the connection
    else       error

The original wants TLS and closes on a client without a certificate; that is the door's business.
"""

import json
from typing import Any, TypeAlias

from mediaproxy import __version__
from mediaproxy.control import ControlError, MediaReply, QueryRequest, TotalsRequest
from mediaproxy.dialects.dialect import ErrorAnswer, Peer, Steps
from mediaproxy.dialects.framing import LineFramer
from mediaproxy.dialects.sessions import session
from mediaproxy.events import CallReport, CallState, RelayTotals, reports_of, totals_of

MOST = 100_000
"Sessions that are shown."
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
    calls: MediaReply | None = yield QueryRequest(limit=MOST)
    if totals is None or totals.error:
        return _ERROR
    try:
        relays = totals_of(totals)
        reports = () if calls is None or calls.error else reports_of(calls)
    except ControlError:
        return _ERROR
    return _json([_relay(one, [r for r in reports if r.relay == one.relay], now) for one in relays])


def _relay(totals: RelayTotals, reports: list[CallReport], now: float) -> _Object:
    streams = [one for report in reports for one in report.streams]
    kinds: dict[str, int] = {}
    for one in streams:
        kinds[one.kind] = kinds.get(one.kind, 0) + 1
    return {
        "ip": next((one.caller.advertised.address for one in streams), totals.relay),
        "version": __version__,
        "status": "active",
        "uptime": max(0, int(now - totals.started)),
        "session_count": totals.calls,
        "stream_count": kinds,
        "bps_relayed": _rate(reports, now),
    }


def _rate(reports: list[CallReport], now: float) -> int:
    """Bits per second of all calls that there are, each over its own life."""
    rate = 0.0
    for report in reports:
        octets = sum(one.caller.bytes + one.callee.bytes for one in report.streams)
        rate += 8 * octets / max(1.0, now - report.started)
    return int(rate)


def _sessions(now: float) -> Steps:
    reply: MediaReply | None = yield QueryRequest(limit=MOST)
    if reply is None or reply.error:
        return _ERROR
    try:
        reports = reports_of(reply)
    except ControlError:
        return _ERROR
    return _json([session(one, now) for one in reports if one.state is not CallState.ENDED])


def _json(value: list[_Object]) -> bytes:
    return json.dumps(value).encode("ascii") + b"\r\n"
