"""relay/quality.py: the E-model against worked examples, and what a gauge makes of a plane's counters."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mediaproxy.events import Quality, Side
from mediaproxy.relay.flow import SlotCounters
from mediaproxy.relay.quality import CODINGS, FEWEST, INTERVAL, Gauge, estimate, mos, rating
from tests.relaybench import ALICE, BOB, Bench, at, rtp, stream


@pytest.mark.parametrize(
    ("r", "score"),
    [
        (0, 1.0),
        (5, 1.0),
        (50, 2.58),
        (60, 3.10),
        (70, 3.60),
        (80, 4.024),
        (90, 4.34),
        (93.2, 4.41),
        (100, 4.5),
        (120, 4.5),
    ],
    ids=str,
)
def test_the_scale_is_that_of_g_107_annex_b(r: float, score: float) -> None:
    """Table B.1 of G.107: 50, 60, 70, 80, 90 are the limits of satisfaction; 93.2 is the default connection."""
    assert mos(r) == pytest.approx(score, abs=0.006)


@pytest.mark.parametrize(
    ("codec", "loss", "jitter", "r"),
    [
        ("PCMU", 0.0, 0.0, 93.2 - 0.24),
        ("pcma", 0.01, 0.0, 93.2 - 0.24 - 95 * 1 / 26.1),
        ("PCMA", 0.05, 0.020, 93.2 - 0.024 * 50 - 95 * 5 / 30.1),
        ("G729", 0.0, 0.0, 93.2 - 0.24 - 11),
        ("G729", 0.02, 0.005, 93.2 - 0.024 * 20 - 11 - 84 * 2 / 21),
        ("G723", 0.03, 0.0, 93.2 - 0.24 - 15 - 80 * 3 / 19.1),
        ("PCMU", 0.0, 0.100, 93.2 - 0.024 * 210 - 0.11 * (210 - 177.3)),
        ("PCMU", 1.0, 1.0, 0.0),
    ],
)
def test_the_rating_is_the_formula_worked_by_hand(codec: str, loss: float, jitter: float, r: float) -> None:
    assert rating(codec, loss, jitter) == pytest.approx(r)


def test_losses_in_bursts_are_heard_more() -> None:
    random, burst = rating("PCMU", 0.05, 0.0), rating("PCMU", 0.05, 0.0, burst=2.0)
    assert random is not None and burst is not None and burst < random


@pytest.mark.parametrize("codec", ["opus", "G722", "H264", "VP8", "telephone-event", "", "nonsense"])
def test_of_a_codec_that_nothing_is_known_of_nothing_is_said(codec: str) -> None:
    assert estimate(codec, 0.0, 0.0) is None


def test_jitter_that_was_not_measured_is_not_taken_for_none() -> None:
    assert estimate("PCMU", 0.0, None) is None


@given(st.sampled_from(sorted(CODINGS)), st.floats(0, 1), st.floats(0, 10), st.floats(0, 1), st.floats(0, 10))
def test_a_score_is_on_the_scale_and_falls_with_loss_and_jitter(
    codec: str, loss: float, jitter: float, more_loss: float, more_jitter: float
) -> None:
    score = estimate(codec, loss, jitter)
    worse = estimate(codec, max(loss, more_loss), max(jitter, more_jitter))
    assert score is not None and worse is not None
    assert 1.0 <= worse <= score + 1e-9 <= 4.5


def slot(rtp: int, lost: int, at: float, jitter: float | None = 0.002) -> SlotCounters:
    return SlotCounters(
        local=at_port, generation=1, packets=rtp, last=at, rtp=rtp, lost=lost, jitter=jitter, ssrc=1, payload_type=0
    )


at_port = at("192.0.2.1:20000")


def gauge(*slots: SlotCounters, codec: str = "PCMU") -> Gauge:
    made = Gauge()
    for one in slots:
        if made.note(one):
            made.judge(codec)
    return made


def test_the_worst_seconds_and_the_average_are_kept() -> None:
    """Three intervals: clean, a fifth lost, clean."""
    first, second, third = 100.0, 100.0 + INTERVAL, 100.0 + 2 * INTERVAL
    made = gauge(slot(1, 0, first), slot(400, 0, second), slot(720, 80, third), slot(1120, 80, third + INTERVAL))
    found = made.quality("PCMU")
    good, bad = estimate("PCMU", 0.0, 0.002), estimate("PCMU", 0.2, 0.002)
    assert good is not None and bad is not None
    assert (found.packets, found.lost, found.loss) == pytest.approx((1120, 80, 80 / 1200))
    assert (found.mos, found.lowest_mos) == pytest.approx((good, bad))
    assert found.average_mos == pytest.approx((2 * good + bad) / 3)
    assert (found.jitter, found.average_jitter, found.highest_jitter) == pytest.approx((0.002, 0.002, 0.002))


def test_an_interval_that_is_not_over_counts_if_it_has_enough_packets() -> None:
    made = gauge(slot(1, 0, 100.0), slot(400, 0, 100.0 + INTERVAL))
    for packets, lost, falls in ((2, 1, False), (FEWEST, 20, True)):
        made.note(slot(400 + packets, lost, 100.5 + INTERVAL))
        found = made.quality("PCMU")
        assert found.lowest_mos is not None and found.average_mos is not None
        assert (found.lowest_mos < 4.0) is falls, f"{lost} of {packets + lost}"
        assert made.intervals == 1, "asking judges nothing"


def test_seconds_in_which_hardly_anything_comes_are_the_worst_ones() -> None:
    made = gauge(slot(1, 0, 100.0), slot(400, 0, 100.0 + INTERVAL), slot(405, 395, 100.0 + 2 * INTERVAL))
    assert made.intervals == 2 and made.lowest == estimate("PCMU", 395 / 400, 0.002)


@pytest.mark.parametrize(("packets", "known"), [(1, False), (9, False), (10, True), (60, True)])
def test_a_short_call_has_a_score_as_soon_as_it_means_something(packets: int, known: bool) -> None:
    found = gauge(slot(packets, 0, 100.0)).quality("PCMU")
    assert (found.mos is not None, found.average_mos is not None, found.lowest_mos is not None) == (known,) * 3


def test_packets_that_come_twice_are_no_negative_loss() -> None:
    found = gauge(slot(1, 0, 100.0), slot(500, -40, 100.0 + INTERVAL)).quality("PCMU")
    assert (found.lost, found.loss) == (0, 0.0) and found.mos is not None


def test_a_plane_that_counts_from_0_again_adds_to_what_was() -> None:
    made = gauge(slot(1, 0, 100.0), slot(400, 10, 100.0 + INTERVAL))
    made.renew()
    made.note(slot(50, 2, 101.0 + INTERVAL))
    found = made.quality("PCMU")
    assert (found.packets, found.lost) == (450, 12)


def test_a_codec_without_values_has_loss_and_jitter_only() -> None:
    found = gauge(slot(1, 0, 100.0), slot(400, 4, 100.0 + INTERVAL), codec="opus").quality("opus")
    assert (found.mos, found.average_mos, found.lowest_mos) == (None, None, None)
    assert found.lost == 4 and found.jitter == 0.002


def test_a_gauge_is_kept_in_the_journal() -> None:
    made = gauge(slot(1, 0, 100.0), slot(400, 10, 100.0 + INTERVAL))
    again = msgspec.msgpack.decode(msgspec.msgpack.encode(made), type=Gauge)
    assert again == made and again.quality("PCMU") == made.quality("PCMU")


# -- in a call


def talking(bench: Bench) -> None:
    """Alice and Bob are learned."""
    facing_alice, facing_bob = bench.talk()
    bench.packet(ALICE, facing_alice)
    bench.packet(BOB, facing_bob)


def quality(bench: Bench, side: Side) -> Quality | None:
    return bench.side(side).quality


def plane_says(bench: Bench, packets: int, lost: int, seconds: float, payload_type: int = 0) -> None:
    """So many packets of Alice have come, the last one after so many seconds."""
    local = bench.side(Side.CALLER).local
    generation = bench.flows[local].generation
    bench.slots[local] = SlotCounters(
        local=local, generation=generation, packets=packets, bytes=172 * packets, last=bench.now + seconds,
        rtp=packets, lost=lost, jitter=0.003, ssrc=7, sequence=(1 + packets + lost) & 0xFFFF, payload_type=payload_type,
    )  # fmt: skip
    bench.run(seconds)


def test_a_plane_that_measures_nothing_leaves_none() -> None:
    bench = Bench()
    talking(bench)
    assert quality(bench, Side.CALLER) is None and bench.report.mos is None


def test_what_the_plane_measures_is_in_the_report_and_only_for_that_direction() -> None:
    bench = Bench()
    talking(bench)
    plane_says(bench, 1, 0, 1.0)
    plane_says(bench, 500, 0, 10.0)
    plane_says(bench, 900, 100, 10.0)
    found = quality(bench, Side.CALLER)
    assert found is not None and (found.packets, found.lost, found.jitter) == (900, 100, 0.003)
    assert found.lowest_mos is not None and found.average_mos is not None
    assert found.lowest_mos == estimate("PCMU", 0.2, 0.003) and found.average_mos > found.lowest_mos
    assert bench.side(Side.CALLER).lost == 100, "the plane's own measurement, not a guess from sequence numbers"
    assert quality(bench, Side.CALLEE) is None
    assert (bench.report.mos, bench.report.lowest_mos) == (found.average_mos, found.lowest_mos)


def test_sequence_numbers_that_go_round_between_two_looks_are_no_loss() -> None:
    """A music-on-hold of two hours is looked at rarely."""
    bench = Bench()
    talking(bench)
    plane_says(bench, 1, 0, 1.0)
    plane_says(bench, 1_000_000, 3, 20.0)
    assert bench.side(Side.CALLER).lost == 3


def test_video_has_no_score() -> None:
    bench = Bench()
    facing_alice, _ = bench.talk((stream("10.0.0.1:4002", kind="video", types=(96,)),))
    bench.packet(ALICE, facing_alice, rtp(1, payload_type=96))
    plane_says(bench, 500, 0, 10.0, payload_type=96)
    found = quality(bench, Side.CALLER)
    assert found is not None and found.mos is None and found.packets == 500 and found.jitter == 0.003
