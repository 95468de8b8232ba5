"""One record per ended call, with all that its events told."""

import msgspec
import pytest

from mediaproxy.accounting import Filter, Ledger, Record, Silence, without_password
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
    Refused,
    Side,
    SideReport,
    SourceRefused,
    StreamChanged,
    StreamReport,
)

ALICE = PartyReport(uri="sip:alice@example.com", tag="a", user_agent="Snom \xff")
BOB = PartyReport(uri="sip:bob@example.com", tag="b")
SOURCE = Endpoint("198.51.100.7", 4000)


def side(port: int, packets: int, sent: int) -> SideReport:
    return SideReport(
        local=Endpoint("192.0.2.1", port),
        advertised=Endpoint("192.0.2.1", port),
        learned=SOURCE,
        codec="PCMU",
        packets=packets,
        bytes=packets * 172,
        sent=sent,
        refused=(Refused(source=Endpoint("203.0.113.6", 9), packets=12),),
        refused_packets=12,
    )


STREAM = StreamReport(
    index=0, kind="audio", transport="RTP/AVP", caller=side(16384, 500, 498), callee=side(16386, 499, 500)
)


def started(call_id: str = "c") -> CallStarted:
    return CallStarted(at=100.0, call_id=call_id, caller=ALICE, callee=BOB)


def ended(call_id: str = "c", /, **changes: object) -> CallEnded:
    report = CallReport(
        call_id=call_id,
        caller=ALICE,
        callee=BOB,
        state=CallState.ENDED,
        started=1700000000.25,
        answered=1700000003.5,
        ended=1700000013.5,
        reason=EndReason.BYE,
        relay="relay-1",
        streams=(STREAM,),
    )
    return CallEnded(at=1700000014.0, call_id=call_id, report=msgspec.structs.replace(report, **changes))


def fold(*events: Event) -> list[Record]:
    ledger = Ledger()
    return [record for event in events if (record := ledger.fold(event)) is not None]


def learned(before: Endpoint | None, *, rtcp: bool = False) -> PeerLearned:
    return PeerLearned(
        at=101.0, call_id="c", stream=0, side=Side.CALLER, source=SOURCE, rank=3, rtcp=rtcp, before=before
    )


WAY: list[Event] = [
    started(),
    learned(None),
    CallAnswered(at=102.0, call_id="c", callee_tag="b"),
    learned(SOURCE),
    learned(SOURCE, rtcp=True),
    SourceRefused(at=103.0, call_id="c", stream=0, side=Side.CALLER, source=SOURCE, why="not vouched for"),
    StreamChanged(at=104.0, call_id="c", stream=0, side=Side.CALLER, sdp=None, held=True),
    OneWay(at=105.0, call_id="c", stream=0, silent=Side.CALLEE, seconds=10.0),
    CallRevived(at=106.0, call_id="c"),
]


def test_a_record_says_everything() -> None:
    (record,) = fold(*WAY, ended())
    assert record == Record(
        date="2023-11-14T22:13:20.250Z",
        call_id="c",
        caller=ALICE,
        callee=BOB,
        started=1700000000.25,
        answered=1700000003.5,
        ended=1700000013.5,
        duration=10.0,
        setup=3.25,
        reason=EndReason.BYE,
        relay="relay-1",
        streams=(STREAM,),
        silences=(Silence(at=105.0, stream=0, silent=Side.CALLEE, seconds=10.0),),
        moves=1,
        changes=1,
        revived=True,
    )
    assert record.packets == 998


def test_a_record_is_the_same_after_json() -> None:
    (record,) = fold(*WAY, ended())
    line = msgspec.json.encode(record)
    assert b"\n" not in line and msgspec.json.decode(line, type=Record) == record


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        pytest.param({"answered": None}, (0.0, None, EndReason.BYE), id="never answered"),
        pytest.param({"reason": EndReason.FAILURE, "status": 486}, (10.0, 3.25, EndReason.FAILURE), id="busy"),
        pytest.param({"ended": None}, (0.0, 3.25, EndReason.BYE), id="no end told"),
        pytest.param({"reason": None}, (10.0, 3.25, EndReason.SHUTDOWN), id="no reason told"),
    ],
)
def test_ends(changes: dict[str, object], expected: tuple[float, float | None, EndReason]) -> None:
    (record,) = fold(started(), ended(**changes))
    assert (record.duration, record.setup, record.reason) == expected
    assert record.ended == (1700000014.0 if "ended" in changes else 1700000013.5)


def test_exactly_one_per_call() -> None:
    assert len(fold(started(), ended(), ended())) == 1
    assert len(fold(started("1"), started("2"), ended("2"), ended("1"))) == 2
    assert len(fold(started(), ended(), started(), ended(started=1700000500.0))) == 2, "the same Call-ID again"
    assert len(fold(ended())) == 1, "begun before we listened"
    assert fold(*WAY) == []
    other_tag = PartyReport(uri="sip:carol@example.com", tag="c")
    assert len(fold(started(), ended(), ended(caller=other_tag))) == 2, "a call is Call-ID and caller's tag"


def test_nothing_of_one_call_gets_into_another() -> None:
    ledger = Ledger()
    for event in WAY[1:]:  # of a call that has not begun
        assert ledger.fold(event) is None
    assert ledger.fold(started()) is None
    record = ledger.fold(ended())
    assert record is not None and (record.moves, record.silences, record.revived) == (0, (), False)


def test_silences_are_bounded() -> None:
    (record,) = fold(started(), *([WAY[7]] * 100), ended())
    assert len(record.silences) == 32


@pytest.mark.parametrize(
    ("uri", "kept"),
    [
        ("sip:alice@example.com", "sip:alice@example.com"),
        ("sip:alice:secret@example.com", "sip:alice:***@example.com"),
        ("sip:alice:se:c@ret@example.com:5060", "sip:alice:***@example.com:5060"),
        ("sip:example.com:5060", "sip:example.com:5060"),
        ("tel:+49", "tel:+49"),
        ("", ""),
    ],
    ids=lambda text: text or "empty",
)
def test_passwords_are_not_kept(uri: str, kept: str) -> None:
    assert without_password(uri) == kept
    (record,) = fold(ended(caller=PartyReport(uri=uri)))
    assert record.caller.uri == kept


@pytest.mark.parametrize(
    ("wanted", "matches"),
    [
        pytest.param(Filter(), True, id="everything"),
        pytest.param(Filter(call_id="c"), True, id="call"),
        pytest.param(Filter(call_id="C"), False, id="another call"),
        pytest.param(Filter(party="BOB@"), True, id="party"),
        pytest.param(Filter(party="carol"), False, id="another party"),
        pytest.param(Filter(since=1700000000.25), True, id="since its start"),
        pytest.param(Filter(since=1700000001), False, id="after its start"),
        pytest.param(Filter(until=1700000000.25), False, id="before its start"),
        pytest.param(Filter(until=1700000001), True, id="until"),
        pytest.param(Filter(reason=EndReason.BYE), True, id="reason"),
        pytest.param(Filter(reason=EndReason.SILENT), False, id="another reason"),
        pytest.param(Filter(party="alice", call_id="x"), False, id="both must hold"),
    ],
)
def test_filters(wanted: Filter, matches: bool) -> None:
    (record,) = fold(ended())
    assert wanted.matches(record) is matches
