"""relay/latch.py: who gets in, when, and who replaces whom: one row per sentence of calls.md 2, 3, 4 and 6.

What a re-INVITE changes, and where packets are sent to, is in test_latch_moves.py.
"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mediaproxy.relay.expectation import Voucher
from mediaproxy.relay.flow import SlotCounters
from mediaproxy.relay.latch import TRANSITIONS, Action, Input, Latch, State
from tests.latchbench import (
    ELSEWHERE,
    FROM_THERE,
    HELD,
    NEW_SIGNALLING,
    OTHER_SSRC,
    PRIVATE,
    RANK1,
    RANK2,
    RANK3,
    RANK3B,
    SDP,
    STRANGER,
    STRANGER2,
    UNKNOWN,
    Bench,
    Heard,
    Say,
    Step,
    flood,
    latches,
    let_in,
    passes,
    refused,
)
from tests.relaybench import DTLS, RTCP, STUN, UDPTL, at, rtp, settings, stream

FAX = stream(SDP, kind="image", transport="udptl")
LEARNED: list[Step] = [Say(0), latches(1, RANK3)]
SIX_ADDRESS = "[2001:db8:1::5]:4000"

CANDIDATES: dict[str, list[Step]] = {
    "rank 1 latches": [Say(0), latches(1, RANK1)],
    "rank 2 latches": [Say(0), latches(1, RANK2)],
    "rank 3 latches": [Say(0), latches(1, RANK3)],
    "everybody else: never": [Say(0), *flood(20, 5, STRANGER)],
    "nobody before the SDP": [refused(0, RANK1)],
    "phone's address unknown: probation decides": [UNKNOWN, *let_in(0, STRANGER)],
    "SIP by IPv6, private SDP of IPv4: unknown": [Say(0, PRIVATE, "2001:db8:1::5"), *let_in(0, STRANGER)],
    "SIP by IPv6, public SDP of IPv4: known": [
        *[Say(0, SDP, "2001:db8:1::5"), *flood(20, 5, STRANGER), latches(6, RANK2)],
        *[Say(7, HELD, "2001:db8:1::5"), *flood(20, 60, STRANGER)],
    ],
    "phone's address unknown: not even the SDP's ip:port": [UNKNOWN, refused(3, PRIVATE)],
}

PROBATION: dict[str, list[Step]] = {
    "five in sequence, nobody ranked for 2 s": [Say(0), *let_in(3, STRANGER)],
    "not in the first 2 s, in which a ranked source may come": [
        *[Say(0), *flood(90, 0.1, STRANGER)],
        latches(2.0, STRANGER, rtp(190, ssrc=9)),
    ],
    "a gap starts it anew": [
        *[Say(0), *flood(4, 3, STRANGER), *flood(4, 4, STRANGER, start=105)],
        latches(5, STRANGER, rtp(109, ssrc=9)),
    ],
    "another SSRC starts it anew": [Say(0), *flood(4, 3, STRANGER), refused(4, STRANGER, rtp(104, ssrc=10))],
    "sequence numbers wrap": [Say(0), *flood(4, 3, STRANGER, start=65533), latches(4, STRANGER, rtp(1, ssrc=9))],
    "two strangers do not add up": [Say(0), *flood(3, 3, STRANGER), *flood(4, 4, STRANGER2, start=103)],
    "never while a ranked source speaks": [
        *[Say(0), latches(3, RANK3), *flood(50, 3.1, STRANGER), passes(4.5, RANK3)],
        *[*flood(50, 4.6, STRANGER, start=150), latches(6.6, STRANGER, rtp(200, ssrc=9))],
    ],
    "not while a ranked source sends what cannot latch now": [
        *[Say(0), latches(3, RANK1), refused(5.5, RANK3), *flood(50, 5.6, STRANGER)],
        latches(7.5, STRANGER, rtp(150, ssrc=9)),
    ],
    "whom it let in gives way to a ranked source, at any time": [
        *[Say(0), *let_in(3, STRANGER), passes(60, STRANGER, rtp(200, ssrc=9)), latches(60.01, RANK3)],
        refused(60.02, STRANGER, rtp(201, ssrc=9)),
    ],
    "a new ip of a rank by policy": [Say(0), latches(1, RANK3), *let_in(5, RANK1)],
    "what is no RTP proves nothing": [Say(0), *[refused(3 + i, STRANGER, RTCP) for i in range(20)]],
}

WHAT_LATCHES: dict[str, list[Step]] = {
    "a payload type that the SDP does not have": [Say(0), refused(1, RANK1, rtp(payload_type=18))],
    "RTP of 11 bytes": [Say(0), refused(1, RANK1, rtp()[:11])],
    "RTCP on the RTP port": [Say(0), refused(1, RANK1, RTCP)],
    "RTCP on the RTP port with mux": [Say(0, stream(SDP, rtcp_mux=True)), latches(1, RANK1, RTCP)],
    "RTCP of the learned source": [Say(0), latches(1, RANK1), passes(2, RANK1, RTCP)],
    "STUN without ICE in the SDP": [Say(0), refused(1, RANK1, STUN)],
    "STUN with ICE passes and latches nothing": [Say(0, stream(SDP, ice=True)), passes(1, RANK1, STUN)],
    "STUN of a stranger": [Say(0, stream(SDP, ice=True)), refused(1, STRANGER, STUN)],
    "DTLS with a fingerprint passes": [Say(0, stream(SDP, dtls=True)), passes(1, RANK3, DTLS)],
    "DTLS without one": [Say(0, stream(SDP, ice=True)), refused(1, RANK3, DTLS)],
    "udptl: any datagram": [Say(0, FAX), latches(1, RANK1, UDPTL)],
    "udptl: even an empty one": [Say(0, FAX), latches(1, RANK3, b"")],
    "udptl: strangers still not": [Say(0, FAX), refused(1, STRANGER, UDPTL)],
}

FIRST_SECOND: dict[str, list[Step]] = {
    "a better rank replaces": [*LEARNED, latches(1.01, RANK2), latches(1.02, RANK1)],
    "a better rank at exactly 1 s": [*LEARNED, latches(2.0, RANK1)],
    "a better rank after 1 s does not": [*LEARNED, refused(2.01, RANK1)],
    "it counts from the first packet": [*LEARNED, latches(1.9, RANK2), refused(2.1, RANK1)],
    "a worse rank never": [Say(0), latches(1, RANK2), refused(1.5, RANK3), refused(9, RANK3)],
    "an equal rank while the first speaks": [*LEARNED, refused(1.09, RANK3B, OTHER_SSRC)],
    "an equal rank after 100 ms of silence": [*LEARNED, latches(1.11, RANK3B, OTHER_SSRC)],
    "of silence since its last packet": [*LEARNED, passes(1.1, RANK3), refused(1.15, RANK3B, OTHER_SSRC)],
}

NEW_PORT: dict[str, list[Step]] = {
    "same SSRC, 1 ahead: at once": [*LEARNED, passes(3, RANK3, rtp(99)), latches(3.02, RANK3B, rtp(100))],
    "same SSRC, 500 ahead": [*LEARNED, passes(3, RANK3, rtp(0)), latches(3.1, RANK3B, rtp(500))],
    "same SSRC, 501 ahead": [*LEARNED, passes(3, RANK3, rtp(0)), refused(3.1, RANK3B, rtp(501))],
    "same SSRC, not ahead": [*LEARNED, passes(3, RANK3, rtp(9)), refused(3.1, RANK3B, rtp(9))],
    "same SSRC, behind": [*LEARNED, passes(3, RANK3, rtp(9)), refused(3.1, RANK3B, rtp(8))],
    "same SSRC over the wrap": [*LEARNED, passes(3, RANK3, rtp(65535)), latches(3.1, RANK3B, rtp(3))],
    "another SSRC: not before 1 s": [*LEARNED, passes(3, RANK3), refused(3.99, RANK3B, OTHER_SSRC)],
    "another SSRC: after 1 s": [*LEARNED, passes(3, RANK3), latches(4.0, RANK3B, OTHER_SSRC)],
    "and back again": [*LEARNED, latches(4, RANK3B, OTHER_SSRC), refused(4.1, RANK3), latches(5, RANK3)],
    "needs no rank of its own": [Say(0, PRIVATE), latches(1, PRIVATE), latches(5, "10.0.0.1:77", OTHER_SSRC)],
    "but real media": [*LEARNED, refused(5, RANK3B, rtp(payload_type=18)), refused(6, RANK3B, RTCP)],
    "of whom probation let in": [UNKNOWN, *let_in(0, STRANGER), latches(0.2, "198.18.0.9:2", rtp(105, ssrc=9))],
    "a new ip: not after a minute": [*LEARNED, refused(61, RANK1)],
    "a new ip: not with SSRC and sequence": [*LEARNED, passes(3, RANK3, rtp(1)), refused(3.1, RANK1, rtp(2))],
    "IPv6: same /64": [Say(0, SIX_ADDRESS, None), latches(1, SIX_ADDRESS), latches(5, "[2001:db8:1::6]:4000")],
}


def rows(*tables: dict[str, list[Step]]) -> list[object]:
    return [pytest.param(steps, id=name) for table in tables for name, steps in table.items()]


@pytest.mark.parametrize("steps", rows(CANDIDATES, WHAT_LATCHES, FIRST_SECOND, NEW_PORT))
def test_fate_of_packets(steps: list[Step]) -> None:
    Bench().play(*steps)


@pytest.mark.parametrize("steps", rows(PROBATION))
def test_probation(steps: list[Step]) -> None:
    Bench(latch_others="probation").play(*steps)


def test_policies() -> None:
    Bench(latch_unknown="never").play(UNKNOWN, *flood(20, 5, STRANGER))
    Bench(latch_others="probation", probation_packets=3).play(
        Say(0), *flood(2, 3, STRANGER), latches(3.1, STRANGER, rtp(102, ssrc=9))
    )


def test_what_the_plane_forwarded_counts_for_silence_and_sequence() -> None:
    """calls.md 6, with packets that user space never saw."""
    bench = Bench()
    latch = bench.play(Say(0), latches(1, RANK3, rtp(1)))
    latch.noted(SlotCounters(local=at("192.0.2.1:20000"), generation=1, last=10.0, ssrc=7, sequence=450))
    bench.play(refused(10.5, RANK3B, rtp(460, ssrc=8)), refused(10.6, RANK3B, rtp(449)))
    bench.play(latches(10.7, RANK3B, rtp(451)))


def test_old_counters_change_nothing() -> None:
    bench = Bench()
    latch = bench.play(Say(0), latches(1, RANK3, rtp(1)), passes(5, RANK3, rtp(200)))
    latch.noted(SlotCounters(local=at("192.0.2.1:20000"), generation=1, last=2.0, ssrc=7, sequence=50))
    bench.play(refused(5.1, RANK3B, rtp(51)), latches(5.2, RANK3B, rtp(201)))


def test_rtp_on_the_rtcp_port_is_called_that() -> None:
    """Not a payload type that the SDP lacks: it has it, for the other port."""
    bench = Bench()
    rtcp = Latch(settings(), bench.latch)
    bench.say(Say(0), rtcp, rtcp=True)
    assert rtcp.judge(at(RANK1), rtp(), 1).why == "sends RTP of payload type 0, to the port of RTCP"


def test_rtcp_of_a_source_that_probation_let_in() -> None:
    """It cannot prove itself by sequence numbers: its address is enough."""
    bench = Bench()
    bench.play(UNKNOWN, *let_in(0, STRANGER))
    rtcp = Latch(settings(), bench.latch)
    bench.say(UNKNOWN, rtcp, rtcp=True)
    assert rtcp.judge(at(STRANGER2), RTCP, 1).action is Action.REFUSE
    assert rtcp.judge(at("198.18.0.9:2"), RTCP, 1).latched and rtcp.rank == 4


def test_the_table_is_the_whole_machine() -> None:
    """Every state is reachable and has a way on."""
    reached, todo = {State.WAITING}, [State.WAITING]
    while todo:
        for state in TRANSITIONS[todo.pop()].values():
            if state not in reached:
                reached.add(state)
                todo.append(state)
    assert reached == set(State) == set(TRANSITIONS)
    assert {given for row in TRANSITIONS.values() for given in row} == set(Input)


SOURCES = [RANK1, RANK2, RANK3, RANK3B, PRIVATE, STRANGER, STRANGER2, FROM_THERE, ELSEWHERE]
DATA = [rtp(1), rtp(2), rtp(3, 8), rtp(700), rtp(payload_type=18), RTCP, STUN, DTLS, UDPTL, b""]
SAYS = [Say(0), Say(0, PRIVATE), Say(0, ELSEWHERE, NEW_SIGNALLING), Say(0, HELD), UNKNOWN]
HEARD = st.builds(Heard, st.just(0.0), st.sampled_from(SOURCES), st.sampled_from(DATA), st.just(""))
STEPS = st.lists(st.tuples(st.sampled_from([0.0, 0.02, 0.2, 1.5]), st.one_of(HEARD, st.sampled_from(SAYS))))


@given(STEPS)
def test_no_stranger_ever_gets_in(steps: list[tuple[float, Step]]) -> None:
    """Whatever SIP says and whoever sends: strangers neither enter nor are sent anything."""
    bench, now = Bench(latch_unknown="never"), 0.0
    strangers = {at(STRANGER), at(STRANGER2)}
    for gap, step in steps:
        now += gap
        if isinstance(step, Say):
            voucher = Voucher(signalling=step.signalling)
            bench.latch.expect(bench.ground.expect(voucher, step.stream, None, rtcp=False), now)
            continue
        verdict = bench.latch.judge(at(step.source), step.data, now)
        assert at(step.source) not in strangers or verdict.action is Action.REFUSE
        assert bench.latch.target(now) not in strangers
