"""Call records: exactly one value for each call that has ended, folded from the stream of events.

Events come in, Records go out. A Record holds what the last report of the call says, and what only the events on the
way tell: silences, moves, a crossed CANCEL. It must never tell of a call twice, and never keep what belongs to none.
"""

from collections import OrderedDict
from datetime import UTC, datetime
from typing import assert_never

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
    Side,
    SourceRefused,
    StreamChanged,
    StreamReport,
)

_REMEMBERED = 4096
"Ended calls that a second end would still be recognised of."


class Silence(msgspec.Struct, frozen=True, kw_only=True):
    """One side of a stream was not heard while the other one was (calls.md 11)."""

    at: float
    "When it was noticed."
    stream: int
    silent: Side
    seconds: float
    "How long it had lasted then."


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """All that is kept of a call. Times are seconds since the epoch, durations seconds."""

    date: str
    "``started`` as RFC 3339 text in UTC, for people."
    call_id: str
    caller: PartyReport
    callee: PartyReport
    started: float
    answered: float | None = None
    ended: float
    duration: float = 0.0
    "From answer to end; 0.0 if never answered."
    setup: float | None = None
    "From the first SDP to the answer."
    reason: EndReason
    "How it ended."
    status: int = 0
    "SIP status of a failure."
    relay: str = ""
    dialog_id: str = ""
    streams: tuple[StreamReport, ...] = ()
    "Per stream and party: addresses, packets, bytes, codec, quality, refused sources."
    mos: float | None = None
    "As in CallReport."
    lowest_mos: float | None = None
    silences: tuple[Silence, ...] = ()
    "At most 32."
    moves: int = 0
    "How often a party's media came from a new source after the first."
    changes: int = 0
    "How often SDP changed a stream: hold, address, direction."
    revived: bool = False
    "A 2xx crossed a CANCEL."

    @property
    def packets(self) -> int:
        """RTP packets relayed, both ways, all streams."""
        return sum(stream.caller.sent + stream.callee.sent for stream in self.streams)


class Filter(msgspec.Struct, frozen=True, kw_only=True):
    """Which records are wanted: all that is set must hold."""

    call_id: str = ""
    party: str = ""
    "Part of the caller's or callee's URI, in any case."
    since: float | None = None
    "Started at or after."
    until: float | None = None
    "Started before."
    reason: EndReason | None = None

    def matches(self, record: Record) -> bool:
        """Whether the record is wanted."""
        party = self.party.lower()
        return (
            self.call_id in ("", record.call_id)
            and (party in record.caller.uri.lower() or party in record.callee.uri.lower())
            and (self.since is None or record.started >= self.since)
            and (self.until is None or record.started < self.until)
            and self.reason in (None, record.reason)
        )


class Notes(msgspec.Struct, array_like=True):
    """Mutable: what the events of a running call have told."""

    silences: list[Silence] = []
    moves: int = 0
    changes: int = 0
    revived: bool = False


class Ledger:
    """Mutable: folds events into records."""

    def __init__(self) -> None:
        self._open: dict[str, Notes] = {}
        self._closed: OrderedDict[tuple[str, str, float], None] = OrderedDict()

    def fold(self, event: Event) -> Record | None:
        """Take in one event; the record if the event ends a call."""
        match event:
            case CallEnded():
                return self._close(event.report, event.at)
            case CallStarted():
                self._open.setdefault(event.call_id, Notes())
            case OneWay():
                silences = self._notes(event).silences
                if len(silences) < 32:
                    silences.append(
                        Silence(at=event.at, stream=event.stream, silent=event.silent, seconds=event.seconds)
                    )
            case PeerLearned():
                self._notes(event).moves += event.before is not None and not event.rtcp
            case StreamChanged():
                self._notes(event).changes += 1
            case CallRevived():
                self._notes(event).revived = True
            case CallAnswered() | SourceRefused():
                pass  # the report has them
            case _:
                assert_never(event)
        return None

    def notes(self, call_id: str) -> Notes | None:
        """What is known of a running call, for ``resume``; None: nothing."""
        return self._open.get(call_id)

    def resume(self, call_id: str, notes: Notes | None) -> None:
        """A call that an earlier process has begun goes on."""
        self._open.setdefault(call_id, notes or Notes())

    def _notes(self, event: Event) -> Notes:
        """The notes of the event's call; of a call that is not open they are thrown away."""
        return self._open.get(event.call_id) or Notes()

    def _close(self, report: CallReport, at: float) -> Record | None:
        key = (report.call_id, report.caller.tag, report.started)
        if key in self._closed:
            return None
        self._closed[key] = None
        if len(self._closed) > _REMEMBERED:
            self._closed.popitem(last=False)
        return _record(report, self._open.pop(report.call_id, Notes()), at)


def _record(report: CallReport, notes: Notes, at: float) -> Record:
    answered = report.answered
    return Record(
        date=datetime.fromtimestamp(report.started, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        call_id=report.call_id,
        caller=discreet(report.caller),
        callee=discreet(report.callee),
        started=report.started,
        answered=answered,
        ended=at if report.ended is None else report.ended,
        duration=report.duration or 0.0,
        setup=None if answered is None else answered - report.started,
        reason=report.reason or EndReason.SHUTDOWN,
        status=report.status,
        relay=report.relay,
        dialog_id=report.dialog_id,
        streams=report.streams,
        mos=report.mos,
        lowest_mos=report.lowest_mos,
        silences=tuple(notes.silences),
        moves=notes.moves,
        changes=notes.changes,
        revived=notes.revived,
    )


def discreet(party: PartyReport) -> PartyReport:
    """The party as it may be shown and kept: a password in its URI is starred."""
    uri = without_password(party.uri)
    return party if uri is party.uri else msgspec.structs.replace(party, uri=uri)


def without_password(uri: str) -> str:
    """A SIP URI whose password, if it has one, is starred: ``sip:alice:***@example.com`` (RFC 3261 §19.1.1)."""
    if "@" not in uri:
        return uri
    userinfo, at, rest = uri.rpartition("@")
    scheme, colon, user = userinfo.partition(":")
    name, secret, _ = user.partition(":")
    return f"{scheme}{colon}{name}:***{at}{rest}" if secret else uri
