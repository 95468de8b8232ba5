"""What the operator sees: a whole page as text, and that each reason for missing audio is in it."""

from typing import Any

import pytest
from msgspec.structs import replace

from mediaproxy.accounting import Record, Silence
from mediaproxy.cli.show import aligned, calls, records, registrations
from mediaproxy.control import KnownBy
from mediaproxy.edge.binding import Binding
from mediaproxy.edge.keepalive import Pinged
from mediaproxy.endpoint import Endpoint
from mediaproxy.events import (
    CallReport,
    CallState,
    EndReason,
    PartyReport,
    Quality,
    Refused,
    Side,
    SideReport,
    StreamReport,
)

NOW = 1_700_000_000.0
RELAY = Endpoint("203.0.113.1", 20000)


def side(**change: Any) -> SideReport:
    return SideReport(local=RELAY, advertised=RELAY, **change)


HEARD = side(
    sdp=Endpoint("192.168.1.10", 4000),
    learned=Endpoint("203.0.113.7", 40002),
    rank=3,
    codec="PCMU",
    packets=4150,
    lost=2,
    last_packet=NOW - 0.02,
)
UNHEARD = side(sdp=Endpoint("192.168.1.11", 4000), sent=4150)
STREAM = StreamReport(index=0, kind="audio", transport="RTP/AVP", plane="user", caller=HEARD, callee=UNHEARD)
CALL = CallReport(
    call_id="3f2a9c@192.168.1.10",
    caller=PartyReport(
        uri="sip:alice@sip.test",
        tag="a",
        user_agent="baresip v1.0.0",
        signalling=Endpoint("203.0.113.7", 40000),
        known_by=KnownBy.SOURCE,
    ),
    callee=PartyReport(
        uri="sip:bob@sip.test", tag="b", signalling=Endpoint("203.0.113.8", 40111), known_by=KnownBy.RECEIVED
    ),
    state=CallState.TALKING,
    started=NOW - 86,
    answered=NOW - 83,
    relay="r1",
    streams=(STREAM,),
)


def page(*reports: CallReport) -> str:
    return "\n".join(line.plain for line in calls(reports, NOW))


def test_what_was_measured_has_columns() -> None:
    good = Quality(packets=4000, lost=2, loss=0.0005, jitter=0.0021, mos=4.31, average_mos=4.2, lowest_mos=3.12)
    dumb = Quality(packets=10, lost=0, loss=0.0)
    stream = replace(STREAM, caller=replace(HEARD, quality=good), callee=replace(UNHEARD, quality=dumb))
    lines = page(replace(CALL, streams=(stream,))).splitlines()
    head = next(line for line in lines if "received" in line)
    rows = [line for line in lines if "caller  " in line or "callee  " in line][-2:]
    assert [row[head.index("jitter") - 1 : head.index("jitter") + 6] for row in rows] == [" 2.1 ms", "      -"]
    assert [row[head.index("MOS") :][:12] for row in rows] == ["   4.3 (3.1)", "           -"]
    assert "jitter" not in page(CALL), "a plane that measures nothing has no columns for it"


def test_a_call() -> None:
    shown = page(CALL).splitlines()
    assert shown[0] == "talking 1:23  sip:alice@sip.test → sip:bob@sip.test"
    assert shown[1] == "  Call-ID  3f2a9c@192.168.1.10"
    assert shown[2].endswith(", answered after 3 s, relay r1")
    assert shown[3:8] == [
        "  caller   203.0.113.7:40000  baresip v1.0.0",
        "  callee   203.0.113.8:40111 (told by a trusted proxy)",
        "                      received  sent to  lost  codec  last     media comes from",
        "  audio 1     caller     4 150        0     2  PCMU   0 s ago  203.0.113.7:40002 (address of its SIP)",
        "  user space  callee         0    4 150     0  -      never    unheard: SDP 192.168.1.11:4000, ours"
        " 203.0.113.1:20000",
    ]
    assert shown[8:] == ["", "1 call"]
    assert max(map(len, shown)) <= 120


def with_callee(**change: Any) -> CallReport:
    return replace(CALL, streams=(replace(STREAM, callee=replace(UNHEARD, **change)),))


ATTACKER = Refused(source=Endpoint("198.51.100.66", 6000), packets=412)


@pytest.mark.parametrize(
    ("report", "line"),
    [
        pytest.param(
            with_callee(warnings=("nothing received from callee for 12 s",)),
            "  ! audio 1: nothing received from callee for 12 s",
            id="one way",
        ),
        pytest.param(
            with_callee(refused=(ATTACKER,), refused_packets=412),
            "  ! audio 1: refused 412 packets from 198.51.100.66:6000 at the callee's port",
            id="refused",
        ),
        pytest.param(
            with_callee(refused=(ATTACKER,), refused_packets=413),
            "  ! audio 1: refused 1 packet more at the callee's port, unseen by whom",
            id="refused, not listed",
        ),
        pytest.param(
            replace(CALL, caller=PartyReport(tag="a")),
            "  ! the caller's address is unknown: nobody can qualify by address",
            id="unknown address",
        ),
    ],
)
def test_why_there_is_no_audio(report: CallReport, line: str) -> None:
    shown = page(report).splitlines()
    assert line in shown
    assert shown[-1] == "1 call, 1 call with warnings"


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"state": CallState.RINGING, "answered": None}, "ringing 1:26  sip:alice@sip.test → sip:bob@sip.test"),
        ({"callee": PartyReport()}, "  callee   not heard of yet"),
        ({"streams": ()}, "  no media yet"),
        ({"streams": (replace(STREAM, held=True),)}, "  on hold  callee         0    4 150     0  -      never"),
        ({"streams": (replace(STREAM, leg="b2"),)}, "  audio 1 (fork b2)  caller     4 150"),
        ({"call_id": "a\x1b[31m"}, "  Call-ID  a\\x1b[31m"),
    ],
    ids=["ringing", "no callee", "no media", "held", "fork", "control characters"],
)
def test_other_states(change: dict[str, Any], line: str) -> None:
    assert line in page(replace(CALL, **change))


def test_calls_are_in_order_and_counted() -> None:
    shown = page(replace(CALL, call_id="second", started=NOW - 1), replace(CALL, call_id="first", started=NOW - 2))
    assert shown.index("first") < shown.index("second")
    assert shown.endswith("\n2 calls")
    assert page() == "no calls"


BINDING = Binding(
    aor="sip:alice@sip.test",
    contact="sip:alice@203.0.113.7:40000",
    sent="<sip:alice@192.168.1.10:5060>",
    received=Endpoint("203.0.113.7", 40000),
    transport="udp",
    local=Endpoint("203.0.113.1", 5060),
    expires=NOW + 3482,
    call_id="c",
    cseq=1,
    user_agent="baresip",
    nat=True,
)


def test_registrations() -> None:
    bob = replace(
        BINDING,
        aor="sip:bob@sip.test",
        sent="<sip:alice@203.0.113.7:40000>",
        transport="tcp",
        nat=False,
        q=0.5,
        path=("<sip:p1;lr>", "<sip:p2;lr>"),
    )
    shown = [line.plain for line in registrations([(bob, None), (BINDING, Pinged())], NOW)]
    assert shown == [
        "sip:alice@sip.test",
        "  sip:alice@203.0.113.7:40000  udp, behind NAT, pinged by four bytes, expires in 58:02  baresip",
        "    it says <sip:alice@192.168.1.10:5060>; its REGISTER came from 203.0.113.7:40000",
        "sip:bob@sip.test",
        "  sip:alice@203.0.113.7:40000  tcp, expires in 58:02, q=0.5  baresip",
        "    by way of <sip:p1;lr>, <sip:p2;lr>",
        "    ! unreachable: its connection is gone; it must register anew",
        "",
        "2 users, 2 contacts",
    ]
    assert [line.plain for line in registrations([], NOW)] == ["nobody is registered"]


@pytest.mark.parametrize(
    ("ping", "text"),
    [
        (Pinged(method="OPTIONS"), "pinged by OPTIONS, no answer yet"),
        (Pinged(method="OPTIONS", answered=NOW - 12), "pinged by OPTIONS, answered 12 s ago"),
        (Pinged(method="OPTIONS", answered=NOW - 70, lost=1), "pinged by OPTIONS, answered 1:10 ago"),
        (Pinged(method="NOTIFY", answered=NOW - 200, lost=3), "silent to 3 NOTIFY"),
    ],
)
def test_how_a_contact_is_pinged(ping: Pinged, text: str) -> None:
    assert f"udp, behind NAT, {text}, expires" in registrations([(BINDING, ping)], NOW)[1].plain
    over_tcp = replace(BINDING, transport="tcp", connection="c")
    assert ", pinged by empty lines, " in registrations([(over_tcp, Pinged())], NOW)[1].plain


def test_aligned_columns_are_never_cut() -> None:
    long = "x" * 300
    lines = aligned([("a", "b"), (long, "1")], right=[1])
    assert [line.plain for line in lines] == [f"  a{' ' * 299}  b", f"  {long}  1"]


RECORD = Record(
    date="2023-11-14T22:11:54.000Z",
    call_id="3f2a9c@192.168.1.10",
    caller=CALL.caller,
    callee=CALL.callee,
    started=NOW - 86,
    answered=NOW - 83,
    ended=NOW,
    duration=83.0,
    reason=EndReason.BYE,
    streams=(STREAM,),
    silences=(Silence(at=NOW - 60, stream=0, silent=Side.CALLEE, seconds=10.2),),
    moves=2,
    revived=True,
)


def test_records() -> None:
    shown = [line.plain for line in records([RECORD])]
    assert shown[0] == "talked 1:23, bye  sip:alice@sip.test → sip:bob@sip.test"
    assert shown[1] == "  Call-ID  3f2a9c@192.168.1.10"
    assert (
        "  audio 1     caller     4 150        0     2  PCMU   0 s ago  203.0.113.7:40002 (address of its SIP)" in shown
    )
    assert shown[-5:] == [
        "  ! stream 1: nothing heard from the callee for 10 s",
        "  ! media came from a new source 2 times",
        "  ! it was answered while it was being given up",
        "",
        "1 call",
    ]
    silent = replace(RECORD, streams=(replace(STREAM, caller=UNHEARD, callee=UNHEARD),))
    line = "  ! stream 1: no packet ever came, neither from caller nor from callee"
    assert line in [one.plain for one in records([silent])]
    assert line not in [one.plain for one in records([replace(silent, answered=None)])]
    failed = records([replace(RECORD, answered=None, reason=EndReason.FAILURE, status=486)])
    assert failed[0].plain == "never answered, failure 486  sip:alice@sip.test → sip:bob@sip.test"
    assert [line.plain for line in records([])] == ["no calls recorded"]
