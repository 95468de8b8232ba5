"""One record per ended call, with what an operator bills and disputes by."""

import msgspec
import pytest

from mediaproxy.accounting import Accounting, Record, record
from mediaproxy.control import KnownBy
from mediaproxy.endpoint import Endpoint
from mediaproxy.events import (
    CallAnswered,
    CallEnded,
    CallReport,
    CallStarted,
    CallState,
    EndReason,
    Event,
    OneWay,
    PartyReport,
    PeerLearned,
    Refused,
    Side,
    SideReport,
    SourceRefused,
    StreamReport,
)

ALICE = PartyReport(
    uri="sip:alice@example.com",
    tag="a",
    user_agent="Phone 1",
    signalling=Endpoint("203.0.113.101", 1027),
    known_by=KnownBy.SOURCE,
)
BOB = PartyReport(uri="sip:bob@example.com", tag="b")
STRANGER = Endpoint("203.0.113.66", 4000)


def report(**changes: object) -> CallReport:
    stream = StreamReport(
        index=0,
        kind="audio",
        transport="RTP/AVP",
        caller=SideReport(
            local=Endpoint("10.0.0.1", 20000),
            advertised=Endpoint("203.0.113.10", 20000),
            sdp=Endpoint("192.168.1.10", 5004),
            learned=Endpoint("203.0.113.101", 4711),
            rank=3,
            codec="PCMU",
            packets=500,
            bytes=86000,
            rtcp_packets=2,
            sent=498,
            refused=(Refused(source=STRANGER, packets=7),),
            refused_packets=7,
        ),
        callee=SideReport(local=Endpoint("10.0.0.1", 20002), advertised=Endpoint("203.0.113.10", 20002)),
    )
    whole = CallReport(
        call_id="c1",
        caller=ALICE,
        callee=BOB,
        state=CallState.ENDED,
        started=100.0,
        answered=103.0,
        ended=113.5,
        reason=EndReason.BYE,
        streams=(stream,),
        dialog_id="d",
        relay="r",
    )
    return msgspec.structs.replace(whole, **changes)


def test_a_record_says_who_when_how_long_and_what_was_sent() -> None:
    made = record(report(), 113.5)
    assert made.caller.uri == "sip:alice@example.com"
    assert (made.caller.user_agent, made.caller.signalling) == ("Phone 1", "203.0.113.101:1027")
    assert (made.started, made.answered, made.ended, made.duration) == (100.0, 103.0, 113.5, 10.5)
    assert (made.reason, made.relay, made.dialog_id) == (EndReason.BYE, "r", "d")
    caller, callee = made.streams[0].caller, made.streams[0].callee
    assert (caller.address, caller.sdp, caller.codec) == ("203.0.113.101:4711", "192.168.1.10:5004", "PCMU")
    assert (caller.packets, caller.bytes, caller.rtcp_packets, caller.sent, caller.refused) == (500, 86000, 2, 498, 7)
    assert (callee.address, callee.packets) == ("", 0)


@pytest.mark.parametrize(
    ("changes", "duration", "status"),
    [
        pytest.param({"answered": None, "reason": EndReason.CANCEL}, 0.0, 0, id="never answered"),
        pytest.param({"answered": None, "reason": EndReason.FAILURE, "status": 486}, 0.0, 486, id="busy"),
        pytest.param({"reason": EndReason.SILENT}, 10.5, 0, id="fell silent"),
    ],
)
def test_how_it_ended(changes: dict[str, object], duration: float, status: int) -> None:
    made = record(report(**changes), 113.5)
    assert (made.duration, made.status, made.reason) == (duration, status, changes["reason"])


def test_each_ended_call_gives_exactly_one_record() -> None:
    accounting = Accounting()
    events: list[Event] = []
    for call_id in ("c1", "c2"):
        events += [
            CallStarted(at=100.0, call_id=call_id, caller=ALICE, callee=BOB),
            CallAnswered(at=103.0, call_id=call_id, callee_tag="b"),
            PeerLearned(at=103.1, call_id=call_id, stream=0, side=Side.CALLER, source=STRANGER, rank=3),
        ]
    events += [
        SourceRefused(at=104.0, call_id="c2", stream=0, side=Side.CALLEE, source=STRANGER, why="a stranger"),
        OneWay(at=105.0, call_id="c2", stream=0, silent=Side.CALLEE, seconds=10.0),
        PeerLearned(
            at=106.0,
            call_id="c2",
            stream=0,
            side=Side.CALLER,
            source=Endpoint("203.0.113.101", 2),
            rank=3,
            before=Endpoint("203.0.113.101", 1),
        ),
        CallEnded(at=113.5, call_id="c1", report=report()),
        CallEnded(at=114.0, call_id="c2", report=report(call_id="c2")),
    ]
    made = [one for one in map(accounting.fold, events) if one is not None]
    assert [one.call_id for one in made] == ["c1", "c2"]
    assert made[0].incidents == ()
    assert made[1].incidents == (
        "stream 0: refused 203.0.113.66:4000 at the callee's port: a stranger",
        "stream 0: nothing heard from the callee for 10 s",
        "stream 0: media of the caller moved from 203.0.113.101:1 to 203.0.113.101:2",
    )


def test_incidents_are_bounded() -> None:
    accounting = Accounting()
    accounting.fold(CallStarted(at=1.0, call_id="c1", caller=ALICE, callee=BOB))
    for port in range(1000):
        accounting.fold(
            SourceRefused(
                at=2.0, call_id="c1", stream=0, side=Side.CALLER, source=Endpoint("203.0.113.66", port), why="no"
            )
        )
    made = accounting.fold(CallEnded(at=3.0, call_id="c1", report=report()))
    assert made is not None and len(made.incidents) == 32


def test_a_record_survives_json_with_any_bytes_of_a_peer() -> None:
    odd = msgspec.structs.replace(ALICE, user_agent="".join(map(chr, range(256))))
    made = record(report(caller=odd), 1.0)
    assert msgspec.json.decode(msgspec.json.encode(made), type=Record) == made
