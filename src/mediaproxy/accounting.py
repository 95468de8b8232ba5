"""Fold events into one record per ended call: who, when, how long, what each party sent, how it ended.

Events come in one by one, at each CallEnded exactly one Record goes out (calls.md 21). Remembers only what the final
report does not say: who was heard in vain, and whose NAT moved. Writes nothing.
"""

from collections.abc import Iterable

import msgspec

from mediaproxy.events import (
    CallAnswered,
    CallEnded,
    CallReport,
    CallRevived,
    CallStarted,
    EndReason,
    Event,
    OneWay,
    PartyReport,
    PeerLearned,
    SideReport,
    SourceRefused,
    StreamChanged,
    StreamReport,
)

_MOST_INCIDENTS = 32


class Traffic(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one party sent on one stream, as it reached the relay."""

    address: str = ""
    "``IP:PORT`` that its packets came from; empty: none came."
    sdp: str = ""
    "``IP:PORT`` that its SDP named."
    codec: str = ""
    packets: int = 0
    bytes: int = 0
    "UDP payload bytes."
    rtcp_packets: int = 0
    sent: int = 0
    "Packets sent to this party."
    lost: int = 0
    refused: int = 0
    "Packets of strangers at this party's port."


class StreamRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One stream of the call."""

    kind: str
    transport: str
    caller: Traffic
    callee: Traffic
    leg: str = ""
    "To tag of the callee's leg, if the call had several."


class PartyRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One party of the call."""

    uri: str = ""
    tag: str = ""
    user_agent: str = ""
    signalling: str = ""
    "``IP:PORT`` of its SIP, as known by the server."


class Record(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One call that has ended. Times are seconds since the epoch, durations seconds."""

    call_id: str
    caller: PartyRecord
    callee: PartyRecord
    started: float
    ended: float
    reason: EndReason
    answered: float | None = None
    duration: float = 0.0
    "From answer to end; 0 if it was never answered."
    status: int = 0
    "SIP status of a failure."
    streams: tuple[StreamRecord, ...] = ()
    incidents: tuple[str, ...] = ()
    "What went on beside the media, in words, at most 32: one-way audio, NATs that moved, strangers."
    relay: str = ""
    dialog_id: str = ""


class Accounting:
    """Mutable: the calls that have not ended."""

    def __init__(self) -> None:
        self._incidents: dict[str, list[str]] = {}

    def fold(self, event: Event) -> Record | None:
        """Take one event; the record if it ends a call."""
        match event:
            case CallEnded():
                return record(event.report, event.at, self._incidents.pop(event.call_id, ()))
            case CallStarted():
                self._incidents.setdefault(event.call_id, [])
            case OneWay() | PeerLearned() | SourceRefused():
                incidents = self._incidents.get(event.call_id)
                text = _incident(event)
                if incidents is not None and text and len(incidents) < _MOST_INCIDENTS:
                    incidents.append(text)
            case CallAnswered() | StreamChanged() | CallRevived():
                pass
        return None


def _incident(event: OneWay | PeerLearned | SourceRefused) -> str:
    where = f"stream {event.stream}"
    match event:
        case OneWay():
            return f"{where}: nothing heard from the {event.silent} for {event.seconds:.0f} s"
        case PeerLearned():
            kind = "RTCP" if event.rtcp else "media"
            return (
                f"{where}: {kind} of the {event.side} moved from {event.before} to {event.source}"
                if event.before
                else ""
            )
        case SourceRefused():
            return f"{where}: refused {event.source} at the {event.side}'s port: {event.why}"


def record(report: CallReport, at: float, incidents: Iterable[str] = ()) -> Record:
    """The record of a call whose final report this is; ``at``: when it ended, if the report does not say."""
    return Record(
        call_id=report.call_id,
        caller=_party(report.caller),
        callee=_party(report.callee),
        started=report.started,
        answered=report.answered,
        ended=at if report.ended is None else report.ended,
        duration=report.duration or 0.0,
        reason=report.reason or EndReason.SHUTDOWN,
        status=report.status,
        streams=tuple(_stream(stream) for stream in report.streams),
        incidents=tuple(incidents),
        relay=report.relay,
        dialog_id=report.dialog_id,
    )


def _party(party: PartyReport) -> PartyRecord:
    signalling = "" if party.signalling is None else str(party.signalling)
    return PartyRecord(uri=party.uri, tag=party.tag, user_agent=party.user_agent, signalling=signalling)


def _stream(stream: StreamReport) -> StreamRecord:
    return StreamRecord(
        kind=stream.kind,
        transport=stream.transport,
        caller=_traffic(stream.caller),
        callee=_traffic(stream.callee),
        leg=stream.leg,
    )


def _traffic(side: SideReport) -> Traffic:
    return Traffic(
        address="" if side.learned is None else str(side.learned),
        sdp="" if side.sdp is None else str(side.sdp),
        codec=side.codec,
        packets=side.packets,
        bytes=side.bytes,
        rtcp_packets=side.rtcp_packets,
        sent=side.sent,
        lost=side.lost,
        refused=side.refused_packets,
    )
