"""relay/latch.py: what a re-INVITE or UPDATE changes, and where packets go: calls.md 5, 6, 7 and 8, row by row."""

import pytest

from mediaproxy.relay.latch import Latch, State
from tests.latchbench import (
    ELSEWHERE,
    FROM_THERE,
    HELD,
    MOVED,
    NEW_SIGNALLING,
    OTHER_SSRC,
    PRIVATE,
    RANK1,
    RANK2,
    RANK3,
    RANK3B,
    SDP,
    STRANGER,
    Bench,
    Say,
    Step,
    flood,
    latches,
    passes,
    refused,
)
from tests.relaybench import DTLS, STUN, at, settings, stream

LEARNED: list[Step] = [Say(0), latches(1, RANK3)]
TWICE: list[Step] = [Say(0), Say(1, ELSEWHERE)]
NATED: list[Step] = [Say(0, PRIVATE), latches(1, RANK3)]
GUESS = "203.0.113.1:4000"
AWAY = Say(60, ELSEWHERE, NEW_SIGNALLING)

CHANGES: dict[str, list[Step]] = {
    "a session timer changes nothing": [*LEARNED, Say(60, changes=False), refused(61, RANK1)],
    "nor does another codec": [*LEARNED, Say(60, stream(SDP, types=(8,)), changes=False), refused(61, RANK1)],
    "c= changed: a new ip at once": [*LEARNED, Say(60, ELSEWHERE), passes(60, RANK3), latches(60.01, ELSEWHERE)],
    "port changed": [Say(0), latches(1, RANK1), Say(60, MOVED), passes(60, RANK1), latches(60.01, MOVED, OTHER_SSRC)],
    "Contact changed": [Say(0), latches(1, RANK1), Say(60, contact="sip:alice@10.0.0.2"), latches(60, RANK3)],
    "signalling address changed": [*LEARNED, Say(60, signalling=NEW_SIGNALLING), latches(60, FROM_THERE)],
    "the old source flows until the first packet of the new one": [
        *[*LEARNED, AWAY, *[passes(60 + i, RANK3) for i in range(30)]],
        *[latches(90, FROM_THERE), refused(90.01, RANK3)],
    ],
    "strangers stay out": [*LEARNED, Say(60, ELSEWHERE), *flood(20, 60, STRANGER)],
    "the first second starts anew": [*LEARNED, AWAY, latches(61, FROM_THERE), latches(61.5, ELSEWHERE)],
    "and ends": [*LEARNED, AWAY, latches(61, FROM_THERE), refused(62.5, ELSEWHERE)],
    "the old source may still change its port": [
        *[*LEARNED, AWAY, latches(62, RANK3B, OTHER_SSRC), latches(70, ELSEWHERE)],
    ],
    "hold by 0.0.0.0 keeps the source": [*LEARNED, Say(60, HELD), passes(61, RANK3), Say(90), passes(91, RANK3)],
    "back to what was: as if nothing had been": [
        *[
            *LEARNED,
            Say(60, ELSEWHERE),
            passes(61, RANK3),
            Say(62),
            refused(62.1, RANK1),
            refused(61.9, RANK3B, OTHER_SSRC),
        ],
    ],
    "back, but a new source was heard meanwhile: one more change": [
        *[*LEARNED, AWAY, latches(61, FROM_THERE), Say(62), latches(62.1, RANK3), refused(62.2, FROM_THERE)],
    ],
    "before the first packet the newest SDP counts": [*TWICE, refused(2, RANK1), latches(2, ELSEWHERE)],
}


def rows(table: dict[str, list[Step]]) -> list[object]:
    return [pytest.param(steps, id=name) for name, steps in table.items()]


@pytest.mark.parametrize("steps", rows(CHANGES))
def test_fate_of_packets_after_a_change(steps: list[Step]) -> None:
    Bench().play(*steps)


ICE = Say(0, stream(PRIVATE, ice=True))
CHECKED: list[Step] = [Say(0, stream(SDP, ice=True)), passes(0, RANK3B, STUN), latches(1, RANK3)]
ASYMMETRIC = Say(0, asymmetric=True)

TARGETS: dict[str, tuple[list[Step], dict[float, str]]] = {
    "before learning: the SDP if public": ([Say(0)], {0: SDP}),
    "before learning: signalling ip, SDP's port": ([Say(0, PRIVATE)], {0: GUESS}),
    "then the source": (NATED, {1: RANK3}),
    "and its new port": ([*NATED, latches(9, RANK3B)], {9: RANK3B}),
    "asymmetric: the SDP, whatever comes": ([ASYMMETRIC, latches(1, RANK2)], {0: SDP, 1: SDP}),
    "asymmetric and private": ([Say(0, PRIVATE, asymmetric=True), latches(1, RANK3)], {0: GUESS, 2: GUESS}),
    "asymmetric: follows the SDP": (
        [ASYMMETRIC, latches(1, RANK2), Say(9, ELSEWHERE, asymmetric=True)],
        {8: SDP, 9: ELSEWHERE},
    ),
    "asymmetric: strangers are filtered": ([ASYMMETRIC, refused(1, STRANGER)], {1: SDP}),
    "ICE and DTLS: answers go where checks came from": ([ICE, passes(1, RANK3, STUN)], {1: RANK3}),
    "but not to a stranger": ([ICE, refused(1, STRANGER, STUN)], {1: GUESS}),
    "media counts more than checks": (
        [ICE, passes(1, RANK3, STUN), latches(1.01, RANK3B), passes(1.02, RANK3, STUN)],
        {2: RANK3B},
    ),
    "changed: the old source while it speaks": (
        [*LEARNED, Say(60, ELSEWHERE), passes(60.5, RANK3)],
        {60: RANK3, 61.4: RANK3},
    ),
    "changed: the new SDP when it is silent": ([*LEARNED, Say(60, ELSEWHERE)], {60.9: RANK3, 61: ELSEWHERE}),
    "changed: back when it speaks again": ([*LEARNED, Say(60, ELSEWHERE), passes(65, RANK3)], {65.1: RANK3}),
    "a NATed phone's new port: the mapped one is the better guess": ([*NATED, Say(60, "10.0.0.1:5000")], {69: RANK3}),
    "changed: to where the handshake comes from": (
        [*LEARNED, Say(60, stream(ELSEWHERE, dtls=True)), passes(60.5, "198.51.100.200:77", DTLS)],
        {60.9: RANK3, 61: "198.51.100.200:77"},
    ),
    "behind the same NAT: likewise": (
        [*NATED, Say(60, stream("10.0.0.1:5000", ice=True)), passes(60.5, RANK3B, STUN)],
        {60.9: RANK3, 61: RANK3B},
    ),
    "but not to where one came from before": (
        [*CHECKED, Say(60, stream(ELSEWHERE, ice=True))],
        {60.9: RANK3, 61: ELSEWHERE},
    ),
    "a NATed phone that moved house": (
        [*NATED, Say(60, PRIVATE, NEW_SIGNALLING)],
        {60.5: RANK3, 69: "203.0.113.99:4000"},
    ),
    "changed and back: the source, silent or not": ([*LEARNED, Say(60, HELD), Say(60.5)], {60: RANK3, 69: RANK3}),
    "hold by 0.0.0.0 moves nothing": ([*LEARNED, Say(60, HELD)], {69: RANK3}),
}


@pytest.mark.parametrize(("steps", "expected"), TARGETS.values(), ids=TARGETS)
def test_target(steps: list[Step], expected: dict[float, str]) -> None:
    bench = Bench()
    for time, place in expected.items():
        bench = Bench()
        latch = bench.play(*(step for step in steps if step.time <= time))
        assert latch.target(time) == at(place), f"at {time}"


def test_when_silence_alone_changes_the_target() -> None:
    latch = Bench().play(*LEARNED)
    assert latch.deserts_at() is None
    bench = Bench()
    latch = bench.play(*LEARNED, Say(60, ELSEWHERE), passes(60.5, RANK3))
    assert latch.state is State.MOVING and latch.deserts_at() == 61.5
    bench.play(latches(61, ELSEWHERE))
    assert latch.deserts_at() is None


def test_rtcp_goes_beside_rtp() -> None:
    """The SDP names an address that its media does not come from: RTCP must not go there either."""
    bench = Bench()
    bench.play(Say(0))
    rtcp = Latch(settings(), bench.latch)
    bench.say(Say(0), rtcp, rtcp=True)
    assert rtcp.target(0) == at("198.51.100.7:4001")
    bench.play(latches(1, RANK3))
    assert rtcp.target(1) == at("203.0.113.1:4001")


@pytest.mark.parametrize(
    ("steps", "proven"),
    [
        ([Say(0)], False),
        ([Say(0, PRIVATE)], True),
        ([Say(0), latches(1, RANK2)], True),
        ([ASYMMETRIC, latches(1, RANK2)], True),
        ([ASYMMETRIC, latches(1, RANK3)], False),
        ([*LEARNED, Say(60, ELSEWHERE)], False),
    ],
    ids=["unlearned", "the signalling address", "he sent", "asymmetric: sent from there", "asymmetric: not", "moved"],
)
def test_whose_rate_is_not_limited(steps: list[Step], proven: bool) -> None:
    """calls.md 5: a target is proven when somebody has sent from its address, or SIP comes from there."""
    latch = Bench().play(*steps)
    target = latch.target(100)
    assert target is not None and latch.proven(target) is proven


def test_allowed_has_the_prefixes_of_the_ranks_and_of_the_source() -> None:
    bench = Bench()
    assert bench.latch.allowed(4) == ()
    latch = bench.play(Say(0, PRIVATE))
    assert latch.allowed(4) == ("10.0.0.1/32", "203.0.113.1/32")
    bench.play(latches(1, RANK3), AWAY)
    assert latch.allowed(4) == ("198.51.100.200/32", "203.0.113.99/32", "203.0.113.1/32")
