"""[shell] Log lines: for people or for machines, one per event of a call, each with the Call-ID.

Events and log records come in, lines go to standard error. Peers choose much of the text, so what is not printable is
escaped, in messages, tracebacks and fields alike: one event is one line, no line can be forged, and no terminal obeys
a stranger. Secrets never come here; a password that a peer wrote into a URI is starred.
"""

import contextlib
import json
import logging
import sys
from datetime import UTC, datetime
from typing import TextIO, assert_never

import msgspec

from mediaproxy.accounting import without_password
from mediaproxy.events import (
    CallAnswered,
    CallEnded,
    CallReport,
    CallRevived,
    CallStarted,
    Event,
    OneWay,
    PartyReport,
    PeerLearned,
    SourceRefused,
    StreamChanged,
)

log = logging.getLogger("mediaproxy.calls")


def escaped(text: str) -> str:
    """Text on one line: what is not printable (controls, marks that turn the direction of writing) as ``\\x0a``."""
    return text if text.isprintable() else "".join(map(_escaped, text))


def _escaped(char: str) -> str:
    if char.isprintable():
        return char
    return f"\\x{ord(char):02x}" if ord(char) < 256 else f"\\u{ord(char):04x}"


def readable(text: str) -> str:
    """A peer's text (Latin-1, one character per byte) as people write it: UTF-8 where it is that, without controls."""
    if text.isascii():
        return escaped(text)
    with contextlib.suppress(UnicodeError):
        text = text.encode("latin-1").decode("utf-8")
    return escaped(text)


class TextFormatter(logging.Formatter):
    """``2026-11-25 21:00:00.123 INFO call x@y: answered``; local time."""

    _second, _shown = -1.0, ""
    "The last second that a line came in, and how it is shown."

    def format(self, record: logging.LogRecord) -> str:
        """One line, and below it the traceback if there is one, set in so that none of it looks like a line."""
        second, rest = divmod(record.created, 1.0)
        if second != self._second:
            self._second, self._shown = second, datetime.fromtimestamp(second).isoformat(" ", "seconds")
        line = f"{self._shown}.{int(rest * 1000):03d} {record.levelname} {escaped(record.getMessage())}"
        if not record.exc_info:
            return line
        trace = self.formatException(record.exc_info)
        return "\n    ".join([line, *(escaped(part) for part in trace.split("\n") if part)])


class JsonFormatter(logging.Formatter):
    """One JSON object per line: time (UTC), level, logger, message; for events of calls also ``event`` (its name),
    ``call_id`` and ``details`` (its fields)."""

    def format(self, record: logging.LogRecord) -> str:
        """One line in any case."""
        fields: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": escaped(record.getMessage()),
        }
        call_id, event = getattr(record, "call_id", None), getattr(record, "event", None)
        if event is not None:
            fields |= {"event": type(event).__name__, "call_id": call_id, "details": _details(event)}
        elif call_id is not None:
            fields["call_id"] = call_id
        if record.exc_info:
            fields["traceback"] = self.formatException(record.exc_info)
        return json.dumps(fields)


def set_up(log_format: str = "text", level: str = "info", stream: TextIO | None = None) -> None:
    """Log to ``stream`` (standard error). ``log_format``: ``text`` or ``json``; ``level``: a name of ``logging``."""
    # What no line of ours shows is not found out: a third of what a line costs (Logging HOWTO, Optimization).
    logging._srcfile = None
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter() if log_format == "json" else TextFormatter())
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level.upper())


def log_call(where: logging.Logger, call_id: str, text: str, level: int = logging.INFO) -> None:
    """A line about a call that is no event of the media arm, with the Call-ID where machines look for it, too."""
    call_id = readable(call_id)
    where.log(level, "call %s: %s", call_id, readable(text), extra={"call_id": call_id})


def log_event(event: Event) -> None:
    """One line per event of a call."""
    level = logging.WARNING if isinstance(event, OneWay | SourceRefused) else logging.INFO
    if log.isEnabledFor(level):
        call_id = readable(event.call_id)
        # As ``log.log`` with ``extra``, which takes half as long again; each call has three such lines at least.
        record = logging.LogRecord(log.name, level, "", 0, "call %s: %s", (call_id, describe(event)), None)
        record.event, record.call_id = event, call_id
        log.handle(record)


def _details(event: Event) -> dict[str, object]:
    """The fields of an event for machines. Those of a whole call are in its record."""
    match event:
        case CallEnded(report=report):
            return {"reason": report.reason, "status": report.status, "duration": report.duration}
        case CallStarted():
            return {"caller": _who(event.caller), "callee": _who(event.callee)}
        case CallAnswered(callee_tag=tag):
            return {"callee_tag": tag}
    fields = msgspec.to_builtins(event)
    return {name: value for name, value in fields.items() if name not in ("type", "at", "call_id")}


def describe(event: Event) -> str:
    """What happened, in words, without the Call-ID."""
    match event:
        case CallStarted():
            return f"started: {_who(event.caller)} calls {_who(event.callee)}"
        case CallAnswered():
            return "answered"
        case StreamChanged():
            held = ", on hold" if event.held else ""
            return f"stream {event.stream + 1}: the {event.side} wants its media at {event.sdp or 'no port'}{held}"
        case PeerLearned():
            what = "RTCP" if event.rtcp else "media"
            moved = f", before from {event.before}" if event.before else ""
            return f"stream {event.stream + 1}: {what} of the {event.side} comes from {event.source}{moved}"
        case SourceRefused():
            return f"stream {event.stream + 1}: refused {event.source} at the port of the {event.side}: {event.why}"
        case OneWay():
            return f"stream {event.stream + 1}: one-way, nothing from the {event.silent} for {event.seconds:.0f} s"
        case CallRevived():
            return "lives on: it was answered while it was being given up"
        case CallEnded():
            return _ended(event.report)
        case _:
            assert_never(event)


def _who(party: PartyReport) -> str:
    return readable(without_password(party.uri)) or "somebody"


def _ended(report: CallReport) -> str:
    reason = "" if report.reason is None else f" ({report.reason}{f' {report.status}' if report.status else ''})"
    duration = report.duration
    length = "never answered" if duration is None else f"after {duration:.0f} s"
    heard = (f"{s.kind or 'stream'} {s.caller.packets}/{s.callee.packets}" for s in report.streams)
    media = ", ".join(heard)
    return f"ended{reason} {length}; packets from caller/callee: {media or 'none'}"
