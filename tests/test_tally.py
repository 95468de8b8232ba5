"""relay/tally.py, relay/refusals.py and relay/probation.py: counting, within bounds."""

import msgspec
import pytest

from mediaproxy.endpoint import Endpoint
from mediaproxy.relay.flow import SlotCounters
from mediaproxy.relay.probation import Probation
from mediaproxy.relay.refusals import Refusals
from mediaproxy.relay.rtp import RtpHeader
from mediaproxy.relay.tally import Tally
from tests.relaybench import RTCP, at, rtp


def slot(packets: int, sequence: int, *, ssrc: int = 7, last: float = 1.0, undeliverable: int = 0) -> SlotCounters:
    return SlotCounters(
        local=at("192.0.2.1:20000"),
        generation=1,
        packets=packets,
        bytes=packets * 172,
        last=last,
        ssrc=ssrc,
        sequence=sequence,
        payload_type=8,
        undeliverable=undeliverable,
        undeliverable_bytes=undeliverable * 172,
    )


def test_user_space_and_plane_add_up() -> None:
    tally = Tally()
    tally.accept(rtp(1), 10.0, forwarded=True)
    tally.accept(rtp(2), 10.02, forwarded=False)
    tally.noted(slot(50, 52, last=11.0))
    tally.noted(slot(100, 102, last=12.0))
    assert (tally.received, tally.forwarded, tally.octets) == (102, 101, 2 * 172 + 100 * 172)
    assert (tally.first, tally.last, tally.recent[0], tally.lost) == (10.0, 12.0, 8, 0)


def measured(packets: int, lost: int, *, last: float) -> SlotCounters:
    found = slot(packets, packets + lost, last=last)
    return msgspec.structs.replace(found, rtp=packets, lost=lost, jitter=0.0)


def test_what_user_space_handled_in_between_was_not_lost() -> None:
    tally = Tally()
    tally.noted(measured(50, 0, last=1.0))
    for sequence in range(51, 61):
        tally.accept(rtp(sequence, ssrc=7), 2.0, forwarded=True)
    tally.noted(measured(50, 0, last=1.0))
    tally.noted(measured(60, 12, last=3.0))  # ten of the gap went the other way
    assert (tally.received, tally.lost) == (70, 2)
    assert tally.gauge is not None and tally.gauge.quality("pcmu").lost == 2
    tally.noted(measured(70, 15, last=4.0))
    assert tally.lost == 5


def test_the_first_look_ends_an_interval_that_began_with_the_first_packet() -> None:
    """A plane that is looked at every ten seconds: each of these is judged on its own."""
    tally = Tally()
    tally.accept(rtp(1, ssrc=7), 100.0, forwarded=True)
    assert tally.noted(measured(500, 0, last=110.0))
    assert tally.gauge is not None and tally.gauge.since == 100.0


def test_the_same_counters_twice_count_once_and_older_ones_not_at_all() -> None:
    tally = Tally()
    for packets in (50, 50, 40, 60):
        tally.noted(slot(packets, packets, last=float(packets)))
    assert tally.received == 60 and tally.last == 60.0


def test_what_the_plane_could_not_deliver_was_received() -> None:
    tally = Tally()
    tally.noted(slot(10, 15, undeliverable=5))
    assert (tally.received, tally.forwarded, tally.octets) == (15, 10, 15 * 172)
    assert tally.traffic.totals() == (10, 10 * 172, 0)
    tally.renew()
    tally.noted(slot(0, 17, undeliverable=2))
    assert (tally.received, tally.forwarded, tally.octets) == (17, 10, 17 * 172)


@pytest.mark.parametrize(
    ("sequences", "lost"),
    [
        ([1, 2, 3, 4], 0),
        ([1, 2, 4, 5], 1),
        ([1, 3, 2, 4], 0),
        ([1, 1, 2, 3], 0),
        ([65534, 65535, 0, 1], 0),
        ([65534, 2], 3),
        ([1, 30000, 30001, 30003], 1),
        ([1, 2, 100], 97),
    ],
    ids=["none", "one", "reordered", "doubled", "wrap", "over the wrap", "restarted", "many"],
)
def test_lost(sequences: list[int], lost: int) -> None:
    tally = Tally()
    for sequence in sequences:
        tally.accept(rtp(sequence), 1.0, forwarded=True)
    assert tally.lost == lost and tally.received == len(sequences)


def test_lost_in_the_plane() -> None:
    """Sequence numbers of two sweeps, and the packets between them."""
    tally = Tally()
    tally.accept(rtp(10), 1.0, forwarded=True)
    tally.noted(slot(40, 60, last=2.0))
    assert tally.lost == 10
    tally.noted(slot(90, 110, last=3.0))
    assert tally.lost == 10
    tally.noted(slot(140, 5000, ssrc=8, last=4.0))
    assert tally.lost == 10, "a new SSRC: what belongs to which is not known, so nothing is claimed"
    tally.noted(slot(190, 5051, ssrc=8, last=5.0))
    assert tally.lost == 11


def test_rtcp_on_the_rtp_port_is_no_loss() -> None:
    tally = Tally()
    for data in (rtp(1), RTCP, rtp(2), RTCP, rtp(4)):
        tally.accept(data, 1.0, forwarded=True)
    assert (tally.received, tally.lost) == (5, 1)


def sources(count: int) -> list[Endpoint]:
    return [Endpoint(f"198.18.{i // 250}.{i % 250 + 1}", 9) for i in range(count)]


def test_refusals_count_by_source_and_tell_each_once() -> None:
    refusals = Refusals()
    one, other = sources(2)
    told = [refusals.add(source, "why") for source in (one, one, other, one)]
    assert told == [True, False, True, False]
    assert [(refused.source, refused.packets) for refused in refusals.worst()] == [(one, 3), (other, 1)]
    assert refusals.packets == 4 and refusals.why == "why"


def test_a_phone_that_only_spoke_too_early_is_excused() -> None:
    refusals, phone, stranger = Refusals(), at("203.0.113.5:4000"), at("203.0.113.66:4000")
    for source in (phone, phone, stranger):
        refusals.add(source, "no SDP of this party yet", quiet=True)
    refusals.add(stranger, "a stranger")
    assert [(refused.source, refused.packets) for refused in refusals.worst()] == [(phone, 2), (stranger, 2)]
    assert [(refused.source, refused.packets) for refused in refusals.worst(phone.__eq__)] == [(stranger, 2)]
    assert (refusals.packets, refusals.excused(phone.__eq__)) == (4, 2)
    refusals.add(phone, "another one speaks")
    assert refusals.worst(phone.__eq__)[1].packets == 1


def test_refusals_are_bounded() -> None:
    """An attacker invents sources; the phone with the wrong address, who sends a stream, is still shown."""
    refusals, phone = Refusals(), at("203.0.113.5:4000")
    told = 0
    for number, source in enumerate(sources(5000)):
        told += refusals.add(source, "why")
        if number % 40 == 0:
            refusals.add(phone, "why")
    assert told <= 32 and refusals.packets == 5125
    assert len(refusals.worst()) == 8 and refusals.worst()[0].source == phone
    assert refusals.worst()[0].packets == 125


def test_quiet_refusals_are_counted_and_told_later() -> None:
    refusals, (source,) = Refusals(), sources(1)
    assert not refusals.add(source, "no SDP yet", quiet=True)
    assert refusals.add(source, "not his address")
    assert refusals.worst()[0].packets == 2


def test_probation_survives_a_sprayer() -> None:
    """Thousands of invented sources between the packets of a real stream."""
    probation, phone = Probation(5), at("203.0.113.5:4000")
    spray = iter(sources(4000))
    passed = []
    for sequence in range(5):
        for _ in range(200 if sequence > 1 else 20):
            assert not probation.passed(next(spray), RtpHeader(0, 1, 1))
        passed.append(probation.passed(phone, RtpHeader(0, sequence, 7)))
    assert passed == [False, False, False, False, True]
