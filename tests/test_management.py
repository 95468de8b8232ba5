"""dialects/management.py and sessions.py: what MediaProxy 2.x's dispatcher tells who looks after it."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mediaproxy import __version__
from mediaproxy.control import MediaReply, QueryRequest, TotalsRequest
from mediaproxy.dialects.dialect import Dialect, ErrorAnswer, Peer
from mediaproxy.dialects.management import Management
from mediaproxy.dialects.sessions import session
from mediaproxy.dialects.v2 import MediaProxy2
from mediaproxy.events import CallReport, CallState, EndReason, RelayTotals, raw
from tests.mpbench import Desk, remove, update
from tests.relaybench import V4, at, rtp

PEER = Peer("tls", "192.0.2.9:4000", 1100.0)
TWO = "audio:10.0.0.1:4000:sendrecv:ice=no,video:10.0.0.1:4002:sendrecv:ice=no"


def told(desk: Desk, command: bytes) -> Any:
    """What the management interface says about the calls of a desk."""
    dialect: Dialect = Management()
    before, desk.dialect = desk.dialect, dialect
    try:
        answer = desk.say(command)
    finally:
        desk.dialect = before
    assert answer.endswith(b"\r\n") and answer.count(b"\n") == 1
    return json.loads(answer)


@pytest.fixture
def desk() -> Desk:
    """A call with audio that flows and video that was refused."""
    desk = Desk(MediaProxy2())
    desk.bench.calls.totals.started = 900.0
    desk.ports(update(media=TWO, dialog_id="1:2", user_agent="Zo\xc3\xab"))
    answer = update("reply", dialog_id="1:2", media="audio:10.0.0.1:4000:sendrecv,video:10.0.0.1:0:sendrecv")
    facing_alice, _ = desk.ports(answer)
    desk.bench.run(5)
    desk.bench.packet("203.0.113.1:31", at(f"{V4}:{facing_alice}"), rtp())
    desk.bench.run(5)
    return desk


def test_sessions(desk: Desk) -> None:
    (one,) = told(desk, b"sessions")
    audio, video = one.pop("streams")
    assert one == {
        "call_id": "call-1",
        "from_tag": "alice",
        "from_uri": "alice@example.com",
        "to_tag": "bob",
        "to_uri": "bob@example.net",
        "start_time": pytest.approx(1000.02),
        "duration": 10,
        "caller_ua": "Zo\xeb",
        "callee_ua": "Phone 1",
        "username": None,
        "dialog_id": "1:2",
        "timed_out": False,
        "all_streams_ice": False,
    }
    assert (audio["media_type"], audio["status"], audio["caller_codec"]) == ("audio", "active", "PCMU")
    assert (audio["caller_bytes"], audio["caller_packets"], audio["callee_packets"]) == (172, 1, 0)
    assert (audio["caller_remote"], audio["callee_remote"]) == ("203.0.113.1:31", "Unknown")
    assert audio["caller_local"].startswith(f"{V4}:") and audio["start_time"] == 5
    assert audio["post_dial_delay"] == pytest.approx(5.01)
    assert (video["media_type"], video["status"], video["caller_codec"]) == ("video", "rejected", "Unknown")


def test_a_session_on_hold(desk: Desk) -> None:
    desk.ports(update(to_tag="bob", cseq=2, media="audio:10.0.0.1:4000:sendonly"))
    (one,) = told(desk, b"sessions")
    assert [stream["status"] for stream in one["streams"]] == ["on hold", "rejected"]


def test_an_unanswered_session() -> None:
    desk = Desk(MediaProxy2())
    desk.ports(update(signaling_ip='{"signaling_ip": "203.0.113.1", "username": "alice@pbx"}'))
    (one,) = told(desk, b"sessions")
    assert (one["start_time"], one["duration"], one["to_tag"], one["callee_ua"]) == (None, 0, None, None)
    assert one["username"] == "alice@pbx"
    assert one["streams"][0]["status"] == "active"


def test_a_session_that_was_removed_before_its_answer_is_none() -> None:
    """Its ports are kept for a while, for a 200 that crosses the CANCEL."""
    desk = Desk(MediaProxy2())
    desk.ports(update())
    assert desk.say(remove(to_tag="")) == b"removed\r\n" and len(desk.bench.calls) == 1
    (relay,) = told(desk, b"summary")
    assert told(desk, b"sessions") == [] and (relay["session_count"], relay["stream_count"]) == (0, {})
    desk.ports(update("reply"))
    assert len(told(desk, b"sessions")) == 1, "one that did cross it"


def test_a_session_that_timed_out(desk: Desk) -> None:
    desk.bench.run(200)
    (report,) = desk.ended
    one = session(report, 2000.0)
    assert report.reason is EndReason.SILENT
    assert (one["timed_out"], one["streams"][0]["status"]) == (True, "no-traffic timeout")
    assert one["duration"] == one["streams"][0]["end_time"] == 95
    assert told(desk, b"sessions") == []


def test_summary(desk: Desk) -> None:
    (one,) = told(desk, b"summary")
    assert one.pop("bps_relayed") == pytest.approx(172 * 8 / 10, abs=1)
    assert one == {
        "ip": V4,
        "version": __version__,
        "status": "active",
        "uptime": 110,
        "session_count": 1,
        "stream_count": {"audio": 1},
    }


def test_a_relay_without_calls() -> None:
    desk = Desk(MediaProxy2())
    (one,) = told(desk, b"summary")
    assert (one["ip"], one["session_count"], one["stream_count"]) == (V4, 0, {})


def answered(request: bytes, *replies: MediaReply | None) -> bytes:
    steps = Management().answer(request, PEER)
    try:
        next(steps)
        for reply in replies:
            steps.send(reply)
    except StopIteration as stop:
        value = stop.value
        assert isinstance(value, bytes)
        return value
    raise AssertionError("it asks on")


def test_other_words() -> None:
    assert answered(b"version") == f"{__version__}\r\n".encode()
    assert answered(b"quit") == answered(b"exit") == b""
    for word in (b"", b"Summary", b"sessions now", b"GET / HTTP/1.1", b"\xff"):
        answer = answered(word)
        assert answer == b"error\r\n" and isinstance(answer, ErrorAnswer)


NO = MediaReply(error="no relay answers", status=503)
BAD = MediaReply(reports=(msgspec.Raw(b"{}"),), totals=(msgspec.Raw(b"[]"),), calls=("c",))


@pytest.mark.parametrize("reply", [None, NO, BAD])
def test_without_a_relay_it_is_an_error(reply: MediaReply | None) -> None:
    assert answered(b"sessions", reply, *[BAD] * (reply is BAD)) == b"error\r\n"
    assert answered(b"summary", reply, reply) == b"error\r\n"


def test_a_call_that_ends_meanwhile_is_left_out() -> None:
    assert answered(b"sessions", MediaReply(calls=("c",)), NO) == b"[]\r\n"


def test_a_summary_of_several_relays() -> None:
    relays = MediaReply(totals=tuple(raw(RelayTotals(relay=name, calls=at)) for at, name in enumerate("ab")))
    shown = json.loads(answered(b"summary", relays, NO))
    assert [(one["ip"], one["session_count"]) for one in shown] == [("a", 0), ("b", 1)]


def test_a_relay_that_is_down() -> None:
    one = MediaReply(totals=(raw(RelayTotals(relay="a")),), absent=("203.0.113.9",))
    down = {"ip": "203.0.113.9", "status": "error"}
    assert json.loads(answered(b"summary", one, NO))[1:] == [down]
    assert json.loads(answered(b"summary", msgspec.structs.replace(NO, absent=("203.0.113.9",)), NO)) == [down]


def test_quit_ends_the_connection() -> None:
    framer = Management().framer("tls")
    assert framer.feed(b"summary\r\nquit\r\nsessions\r\n") == [b"summary", b"quit"] and framer.ended


def test_what_is_asked() -> None:
    steps = Management().answer(b"summary", PEER)
    assert next(steps) == TotalsRequest()
    assert isinstance(steps.send(MediaReply()), QueryRequest)


_text = st.text(st.characters(codec="latin-1"), max_size=20)


@given(_text, _text, _text)
def test_any_text_of_phones_is_shown(call_id: str, uri: str, agent: str) -> None:
    party = {"uri": uri, "user_agent": agent, "tag": uri}
    report = msgspec.convert(
        {"call_id": call_id, "caller": party, "callee": party, "state": CallState.TALKING, "started": 1.0},
        CallReport,
    )
    assert json.loads(json.dumps(session(report, 2.0)))["caller_ua"] is not None or not agent
