"""relay/latch.py: who may take over RTCP. Phones report every 5 s, so silence says little and the SSRC says more."""

import struct

import pytest

from mediaproxy.control import Stream
from mediaproxy.relay.flow import SlotCounters
from mediaproxy.relay.latch import Action, Latch
from tests.latchbench import MOVED, NEW_SIGNALLING, Bench, Say
from tests.relaybench import at, rtp, settings, stream

PHONE, REBOUND, OTHER = "203.0.113.1:32", "203.0.113.1:99", "203.0.113.1:666"
"RTCP of the phone, behind its new mapping, and of a neighbour behind the same public address."
SPOKEN = "203.0.113.1:31"
SDP_PORT = "198.51.100.7:4001"


def report(ssrc: int = 7, kind: int = 200, size: int = 20) -> bytes:
    """RTCP of that sender (RFC 3550 §6.4)."""
    return struct.pack("!BBHI", 0x81, kind, 1 + size // 4, ssrc) + bytes(size)


class Reports(Bench):
    """The latch of an RTP port, and that of the RTCP port beside it."""

    def __init__(self, said: Say | None = None, **changed: object) -> None:
        super().__init__(**changed)
        self.rtcp = Latch(settings(**changed), self.latch)
        self.told(said or Say(0))

    def told(self, said: Say) -> None:
        self.say(said)
        self.say(said, self.rtcp, rtcp=True)

    def spoken(self, time: float, ssrc: int = 7, source: str = SPOKEN) -> None:
        assert self.latch.judge(at(source), rtp(int(time * 50), ssrc=ssrc), time).action is Action.FORWARD

    def fate(self, time: float, source: str, data: bytes) -> str:
        verdict = self.rtcp.judge(at(source), data, time)
        return "latches" if verdict.latched else "passes" if verdict.action is Action.FORWARD else "refused"


Row = tuple[float, str, bytes, str]

ROWS: dict[str, list[Row]] = {
    "a neighbour never, while reports come": [
        *[(5.0 * n, PHONE, report(), "latches" if n == 0 else "passes") for n in range(5)],
        *[(20 + n, OTHER, report(9), "refused") for n in range(1, 15)],
    ],
    "not even in the first second": [(0, PHONE, report(), "latches"), (0.5, OTHER, report(9), "refused")],
    "a new port of the same sender: at once": [(0, PHONE, report(), "latches"), (0.1, REBOUND, report(), "latches")],
    "another sender: not before 15 s": [(0, PHONE, report(), "latches"), (14.9, REBOUND, report(9), "refused")],
    "another sender: after 15 s of silence": [(0, PHONE, report(), "latches"), (15, REBOUND, report(9), "latches")],
    "silence counts from the last report": [
        *[(0, PHONE, report(), "latches"), (5, PHONE, report(), "passes")],
        *[(19.9, REBOUND, report(9), "refused"), (20, REBOUND, report(9), "latches")],
    ],
    "the last sender counts, not the first": [
        *[(0, PHONE, report(), "latches"), (5, PHONE, report(8), "passes")],
        *[(6, OTHER, report(7), "refused"), (7, REBOUND, report(8), "latches")],
    ],
    "all types have their sender in the same place": [
        (0, PHONE, report(), "latches"),
        *[(number, f"203.0.113.1:{number}", report(kind=kind), "latches") for number, kind in enumerate((201, 207), 1)],
    ],
    "a better rank in the first second, whoever reports": [
        (0, PHONE, report(), "latches"),
        (0.9, SDP_PORT, report(9), "latches"),
    ],
    "a new ip: not after a minute": [(0, PHONE, report(), "latches"), (60, SDP_PORT, report(), "refused")],
}


@pytest.mark.parametrize("rows", ROWS.values(), ids=ROWS)
def test_who_replaces_a_source_of_rtcp(rows: list[Row]) -> None:
    """No RTP has come: only what was reported is known."""
    bench = Reports()
    for time, source, data, fate in rows:
        assert bench.fate(time, source, data) == fate, (time, source)


def test_who_speaks_may_report() -> None:
    """The neighbour reported first; the phone's report has the SSRC of its RTP."""
    bench = Reports()
    assert bench.fate(0, OTHER, report(9)) == "latches"
    assert bench.fate(0.5, PHONE, report()) == "refused", "nothing vouches for it yet"
    bench.spoken(1)
    assert bench.fate(1.1, PHONE, report()) == "latches"
    assert bench.fate(1.2, OTHER, report(9)) == "refused"


def test_the_ssrc_may_come_from_the_plane() -> None:
    """The phone has changed its SSRC since user space saw its RTP."""
    bench = Reports()
    bench.spoken(1)
    assert bench.fate(1, PHONE, report()) == "latches"
    bench.latch.noted(SlotCounters(local=at("192.0.2.1:20000"), generation=1, last=9.0, ssrc=70, sequence=1))
    assert bench.fate(9.5, OTHER, report(71)) == "refused"
    assert bench.fate(9.6, REBOUND, report(70)) == "latches"


def test_the_silence_is_a_setting() -> None:
    bench = Reports(rtcp_rebind_silence=2.0)
    assert bench.fate(0, PHONE, report()) == "latches"
    assert bench.fate(1.9, OTHER, report(9)) == "refused"
    assert bench.fate(2.0, OTHER, report(9)) == "latches"


@pytest.mark.parametrize("kind", [Say(9, MOVED), Say(9, contact="sip:alice@10.0.0.9")], ids=["port", "Contact"])
def test_a_re_invite_is_no_door_for_a_neighbour(kind: Say) -> None:
    bench = Reports()
    bench.spoken(1)
    assert bench.fate(1, PHONE, report()) == "latches"
    bench.told(kind)
    assert bench.fate(9.1, OTHER, report(9)) == "refused"
    assert bench.fate(9.2, PHONE, report()) == "passes"
    assert bench.fate(9.3, REBOUND, report()) == "latches"


def test_after_a_re_invite_a_new_ip_reports_at_once() -> None:
    bench = Reports()
    assert bench.fate(1, PHONE, report()) == "latches"
    bench.told(Say(9, signalling=NEW_SIGNALLING))
    assert bench.fate(9.1, f"{NEW_SIGNALLING}:7", report(9)) == "latches"


MUX: Stream = stream("198.51.100.7:4000", rtcp_mux=True)


def test_rtcp_on_the_port_of_rtp() -> None:
    """rtcp-mux: RTP follows its own rule, reports theirs, though they share the latch."""
    bench = Reports(Say(0, MUX))
    bench.spoken(1)
    judge = bench.latch.judge
    assert judge(at(OTHER), report(9), 5).action is Action.REFUSE, "4 s of silence are a pause"
    assert judge(at(REBOUND), report(7), 5.1).latched
    assert judge(at(REBOUND), report(8), 5.2).action is Action.FORWARD, "a second sender of the same phone"
    assert judge(at(OTHER), report(8), 5.3).latched
    assert judge(at(SPOKEN), rtp(int(1 * 50) + 1), 5.4).latched, "RTP goes on where it was: same SSRC"
    assert judge(at(OTHER), rtp(1, ssrc=9), 6.4).latched, "rule 6"


def test_fax_that_looks_like_a_report() -> None:
    """udptl numbers its datagrams from 0; number 0x80C8 begins as a sender report does."""
    bench = Reports(Say(0, stream("198.51.100.7:4000", kind="image", transport="udptl")))
    assert bench.latch.judge(at(SPOKEN), report(7), 1).latched
    assert bench.latch.judge(at(OTHER), report(9), 2.1).latched
