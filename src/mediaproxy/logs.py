"""[shell] Log lines: for people or for machines, one per event of a call, each with the Call-ID.

Events and log records come in, lines go to standard error. Peers choose much of the text, so control characters are
escaped: one event is one line, and no terminal obeys a stranger. Secrets never come here.
"""

import contextlib
import json
import logging
import re
import sys
from datetime import UTC, datetime
from typing import TextIO

from mediaproxy.events import (
    CallAnswered,
    CallEnded,
    CallReport,
    CallRevived,
    CallStarted,
    Event,
    OneWay,
    PeerLearned,
    SourceRefused,
    StreamChanged,
)

log = logging.getLogger("mediaproxy.calls")

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def escaped(text: str) -> str:
    """Text on one line: control characters as ``\\x0a``."""
    return _CONTROL.sub(lambda match: f"\\x{ord(match[0]):02x}", text)


def readable(text: str) -> str:
    """A peer's text (Latin-1, one character per byte) as people write it: UTF-8 where it is that, without controls."""
    with contextlib.suppress(UnicodeError):
        text = text.encode("latin-1").decode("utf-8")
    return escaped(text)


class TextFormatter(logging.Formatter):
    """``2026-11-25 21:00:00 INFO mediaproxy.calls: …``; local time."""

    def format(self, record: logging.LogRecord) -> str:
        """One line, and a traceback below it if there is one."""
        when = datetime.fromtimestamp(record.created).isoformat(" ", "milliseconds")
        line = f"{when} {record.levelname} {escaped(record.getMessage())}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


class JsonFormatter(logging.Formatter):
    """One JSON object per line: time (UTC), level, logger, message; for events ``event`` and ``call_id`` too."""

    def format(self, record: logging.LogRecord) -> str:
        """One line in any case."""
        fields: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": escaped(record.getMessage()),
        }
        for name in ("event", "call_id"):
            value = getattr(record, name, None)
            if value is not None:
                fields[name] = value
        if record.exc_info:
            fields["traceback"] = self.formatException(record.exc_info)
        return json.dumps(fields)


def set_up(log_format: str = "text", level: str = "info", stream: TextIO | None = None) -> None:
    """Log to ``stream`` (standard error). ``log_format``: ``text`` or ``json``; ``level``: a name of ``logging``."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter() if log_format == "json" else TextFormatter())
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level.upper())


def log_event(event: Event) -> None:
    """One line per event of a call."""
    level = logging.WARNING if isinstance(event, OneWay | SourceRefused) else logging.INFO
    if log.isEnabledFor(level):
        extra = {"event": type(event).__name__, "call_id": event.call_id}
        log.log(level, "call %s: %s", readable(event.call_id), describe(event), extra=extra)


def describe(event: Event) -> str:
    """What happened, in words, without the Call-ID."""
    match event:
        case CallStarted():
            who = readable(event.caller.uri) or "somebody"
            return f"started: {who} calls {readable(event.callee.uri) or 'somebody'}"
        case CallAnswered():
            return "answered"
        case StreamChanged():
            held = ", on hold" if event.held else ""
            return f"stream {event.stream}: the {event.side} wants its media at {event.sdp or 'no port'}{held}"
        case PeerLearned():
            what = "RTCP" if event.rtcp else "media"
            moved = f", before from {event.before}" if event.before else ""
            return f"stream {event.stream}: {what} of the {event.side} comes from {event.source}{moved}"
        case SourceRefused():
            return f"stream {event.stream}: refused {event.source} at the port of the {event.side}: {event.why}"
        case OneWay():
            return f"stream {event.stream}: one-way, nothing from the {event.silent} for {event.seconds:.0f} s"
        case CallRevived():
            return "lives on: it was answered while it was being given up"
        case CallEnded():
            return _ended(event.report)


def _ended(report: CallReport) -> str:
    reason = "" if report.reason is None else f" ({report.reason}{f' {report.status}' if report.status else ''})"
    duration = report.duration
    length = "never answered" if duration is None else f"after {duration:.0f} s"
    heard = (f"{s.kind or 'stream'} {s.caller.packets}/{s.callee.packets}" for s in report.streams)
    media = ", ".join(heard)
    return f"ended{reason} {length}; packets from caller/callee: {media or 'none'}"
