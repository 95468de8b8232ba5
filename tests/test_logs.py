"""Log lines: readable, one per event, and no peer can forge one."""

import io
import json
import logging
from collections.abc import Iterator

import msgspec
import pytest

from mediaproxy.endpoint import Endpoint
from mediaproxy.events import (
    CallAnswered,
    CallEnded,
    CallReport,
    CallRevived,
    CallStarted,
    CallState,
    EndReason,
    Event,
    OneWay,
    PartyReport,
    PeerLearned,
    Side,
    SourceRefused,
    StreamChanged,
)
from mediaproxy.logs import describe, log_call, log_event, readable, set_up

SOURCE = Endpoint("203.0.113.66", 4000)
ENDED = CallReport(
    call_id="c",
    caller=PartyReport(),
    callee=PartyReport(),
    state=CallState.ENDED,
    started=1.0,
    answered=2.0,
    ended=12.0,
    reason=EndReason.BYE,
)
EVENTS: list[tuple[Event, str]] = [
    (
        CallStarted(at=1.0, call_id="c", caller=PartyReport(uri="sip:a@x"), callee=PartyReport(uri="sip:b@x")),
        "started: sip:a@x calls sip:b@x",
    ),
    (CallAnswered(at=1.0, call_id="c", callee_tag="t"), "answered"),
    (
        StreamChanged(at=1.0, call_id="c", stream=1, side=Side.CALLER, sdp=SOURCE, held=True),
        "stream 2: the caller wants its media at 203.0.113.66:4000, on hold",
    ),
    (
        PeerLearned(at=1.0, call_id="c", stream=0, side=Side.CALLEE, source=SOURCE, rank=3),
        "stream 1: media of the callee comes from 203.0.113.66:4000",
    ),
    (
        SourceRefused(at=1.0, call_id="c", stream=0, side=Side.CALLEE, source=SOURCE, why="a stranger"),
        "stream 1: refused 203.0.113.66:4000 at the port of the callee: a stranger",
    ),
    (OneWay(at=1.0, call_id="c", stream=0, silent=Side.CALLEE, seconds=10.2), "nothing from the callee for 10 s"),
    (CallRevived(at=1.0, call_id="c"), "lives on"),
    (CallEnded(at=1.0, call_id="c", report=ENDED), "ended (bye) after 10 s"),
]


EVIL = ["a\nERROR forged", "\x1b[2J", "a\r\nb", "\x9b1m", "\x00", "a\x85b", "\xe2\x80\xae"]


@pytest.fixture(autouse=True)
def _root_logger() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level


@pytest.mark.parametrize(("event", "words"), EVENTS, ids=[type(event).__name__ for event, _ in EVENTS])
def test_an_event_in_words(event: Event, words: str) -> None:
    assert words in describe(event)


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_one_line_per_event_with_its_call_id(log_format: str) -> None:
    stream = io.StringIO()
    set_up(log_format, "info", stream)
    for event, _ in EVENTS:
        log_event(event)
    lines = stream.getvalue().splitlines()
    assert len(lines) == len(EVENTS)
    assert all("call c: " in line for line in lines)
    if log_format == "json":
        values = [json.loads(line) for line in lines]
        assert [value["event"] for value in values] == [type(event).__name__ for event, _ in EVENTS]
        assert {value["call_id"] for value in values} == {"c"}


@pytest.mark.parametrize("log_format", ["text", "json"])
@pytest.mark.parametrize(
    "evil", ["a\nERROR forged", "\x1b[2J", "a\r\nb", "\x9b1m", "\x00", "a\x85b", "\xe2\x80\xae"], ids=repr
)
def test_a_peer_cannot_forge_a_line_or_steer_a_terminal(log_format: str, evil: str) -> None:
    stream = io.StringIO()
    set_up(log_format, "info", stream)
    log_event(CallStarted(at=1.0, call_id=evil, caller=PartyReport(uri=evil), callee=PartyReport(uri=evil)))
    logging.getLogger("x").warning("%s", evil)
    written = stream.getvalue()
    assert written.count("\n") == 2
    assert written.replace("\n", "").isprintable()
    if log_format == "json":
        assert all(str(json.loads(line)["message"]).isprintable() for line in written.splitlines())


def test_readable_text_of_peers() -> None:
    assert readable("J\u00c3\u00b6rg") == "Jörg"  # UTF-8, held as Latin-1
    assert readable("J\u00f6rg") == "Jörg"  # Latin-1


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_passwords_are_not_logged(log_format: str) -> None:
    stream = io.StringIO()
    set_up(log_format, "debug", stream)
    party = PartyReport(uri="sip:alice:geheim@example.com", user_agent="Phone")
    log_event(CallStarted(at=1.0, call_id="c", caller=party, callee=party))
    log_event(CallEnded(at=1.0, call_id="c", report=msgspec.structs.replace(ENDED, caller=party)))
    assert "sip:alice:***@example.com" in stream.getvalue() and "geheim" not in stream.getvalue()


def test_details_for_machines() -> None:
    stream = io.StringIO()
    set_up("json", "info", stream)
    for event, _ in EVENTS:
        log_event(event)
    details = [json.loads(line)["details"] for line in stream.getvalue().splitlines()]
    assert details[3] == {
        "stream": 0,
        "side": "callee",
        "source": {"address": "203.0.113.66", "port": 4000},
        "rank": 3,
        "rtcp": False,
        "before": None,
    }
    assert details[7] == {"reason": "bye", "status": 0, "duration": 10.0}


def test_other_lines_about_a_call_have_its_id_for_machines_too() -> None:
    stream = io.StringIO()
    set_up("json", "info", stream)
    log_call(logging.getLogger("x"), "c\xc3\xa9\n", "media: gone\x1b", logging.WARNING)
    line = json.loads(stream.getvalue())
    assert (line["level"], line["call_id"]) == ("warning", "cé\\x0a")
    assert line["message"] == "call cé\\x0a: media: gone\\x1b"


def test_a_traceback_cannot_forge_a_line() -> None:
    stream = io.StringIO()
    set_up("text", "info", stream)
    try:
        raise ValueError("bad\n2026-11-25 21:00:00.000 INFO forged\x1b[2J")
    except ValueError:
        logging.getLogger("x").exception("broken")
    head, *trace = stream.getvalue().rstrip("\n").split("\n")
    assert head.endswith("ERROR broken") and trace
    assert all(line.startswith("    ") and line.isprintable() for line in trace)


def test_level_and_tracebacks() -> None:
    stream = io.StringIO()
    set_up("json", "warning", stream)
    log_event(EVENTS[0][0])
    assert stream.getvalue() == ""
    try:
        raise ValueError("why")
    except ValueError:
        logging.getLogger("x").exception("broken")
    (line,) = stream.getvalue().splitlines()
    assert "ValueError: why" in json.loads(line)["traceback"]
