"""relay/resumption.py: the calls of a relay that has gone go on with the next one, row by row."""

import pytest

from mediaproxy.control import EndCause
from mediaproxy.events import CallState, EndReason, Side, SourceRefused
from mediaproxy.relay.resumption import Saved
from tests.relaybench import ALICE, BOB, STRANGER, Phone, at, ports_of, rtp, stream
from tests.restarts import House, keep, keep_all, kept, restart

NEIGHBOUR = "203.0.113.1:666"
"Behind the same NAT as Alice."


@pytest.fixture(params=[True, False], ids=["lasting", "deaf"])
def lasting(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


# -- going on


def test_learned_sources_stay_and_strangers_stay_out(lasting: bool) -> None:
    house = House()
    to_alice, to_bob = house.talk()
    house.speak(to_alice, to_bob)
    house.away(5.0, lasting=lasting)
    house.events.clear()
    for stranger in (STRANGER, NEIGHBOUR):
        if lasting and stranger is NEIGHBOUR:
            continue  # silence is silence there
        assert not house.packet(stranger, to_alice, rtp(500, ssrc=66))
    assert house.flows[to_alice].source == at(ALICE) and house.flows[to_bob].source == at(BOB)
    assert [send.target for send in house.packet(ALICE, to_alice, rtp(11))] == [at(BOB)]
    assert [send.target for send in house.packet(BOB, to_bob, rtp(11, ssrc=9))] == [at(ALICE)]
    assert {type(event) for event in house.events} == {SourceRefused}, "nothing had to be learned"


def test_questions_that_come_again_have_the_same_answers(lasting: bool) -> None:
    house = House()
    offered, answered = house.invite(), None
    house.away(1.0, lasting=lasting)
    assert house.invite() == offered
    answered = house.answer()
    house.away(1.0, lasting=lasting)
    assert (house.invite(), house.answer()) == (offered, answered)
    assert house.calls.ports_lent == 2
    assert house.report.answered == house.report.started + 1.0


def test_a_refused_offer_is_undone_by_the_next_process(lasting: bool) -> None:
    """RFC 3261 §14.1: what was before is known, too."""
    house = House()
    to_alice, to_bob = house.talk()
    house.speak(to_alice, to_bob)
    two = (stream("10.0.0.1:4000"), stream("10.0.0.1:4002", kind="video", types=(96,)))
    reply = house.media(house.alice, house.bob, two, cseq=2)
    assert len(ports_of(reply)) == 2 and house.calls.ports_lent == 4
    house.away(1.0, lasting=lasting)
    assert house.calls.ports_lent == 4
    house.end(EndCause.REFUSED, house.bob, house.alice, cseq=2, status=488)
    assert house.calls.ports_lent == 2 and len(house.report.streams) == 1
    assert house.packet(ALICE, to_alice, rtp(11))


def test_forks_go_on(lasting: bool) -> None:
    """Whose 18x was newest, whose 2xx came first, and the second leg's own ports."""
    desk = Phone("desk", "198.51.100.11", "10.0.0.1:4000", branch="z9hG4bK-desk")
    mobile = Phone("mobile", "198.51.100.22", "10.0.0.1:4000", branch="z9hG4bK-mobile")
    house = House()
    (port,) = house.invite().ports
    assert port is not None
    house.answer(by=desk, status=183)
    house.answer(by=mobile, status=183)
    house.away(1.0, lasting=lasting)
    assert house.packet("198.51.100.22:4", port.rtp) and not house.packet("198.51.100.11:4", port.rtp)
    house.answer(by=desk)
    house.away(1.0, lasting=lasting)
    assert house.packet("198.51.100.11:4", port.rtp, rtp(2)) and not house.packet("198.51.100.22:4", port.rtp, rtp(2))
    (own,) = house.answer(by=mobile).ports
    house.away(1.0, lasting=lasting)
    assert own is not None and house.packet(ALICE, own.rtp)
    assert house.packet("198.51.100.22:4", port.rtp, rtp(3)), "it was told the first one's port"
    house.bye(mobile, house.alice)
    assert house.state() is CallState.TALKING
    house.bye(house.alice, desk)
    assert [report.reason for report in house.ended] == [EndReason.BYE]


def test_what_others_have_is_not_lent(lasting: bool) -> None:
    house = House(port_max=20014)
    for number in range(3):
        house.call_id = f"call-{number}"
        house.invite()
    house.away(1.0, lasting=lasting)
    house.call_id = "call-3"
    house.invite()
    locals_ = [flow.local for flow in house.flows.values()]
    assert len(set(locals_)) == 16 and house.calls.ports_free == 0
    generations = {flow.generation for flow in house.flows.values()}
    assert len(generations) == 8, "a pair's number is never given again"


def test_a_generation_is_never_given_again(lasting: bool) -> None:
    """Not even that of a pair that has been free for long."""
    house = House()
    house.talk()
    highest = max(flow.generation for flow in house.flows.values())
    house.bye()
    house.run(60)
    house.away(1.0, lasting=lasting)
    house.call_id = "other"
    house.talk()
    assert min(flow.generation for flow in house.flows.values()) > highest


def test_a_generation_is_never_given_again_where_the_journal_is_gone() -> None:
    """Else the kernel, whose maps are still there, would count on for the new call where it was with the old one."""
    house = House()
    house.talk()
    house.bye()
    house.call_id = "second"
    house.talk()
    before = {flow.generation for flow in house.flows.values()}
    assert restart(house, Saved(), kept(house)).taken == 0 and not house.flows
    house.call_id = "third"
    house.talk()
    assert min(flow.generation for flow in house.flows.values()) > max(before) + 1000


def test_ports_cool_on(lasting: bool) -> None:
    house = House()
    to_alice, _ = house.talk()
    house.bye()
    house.run(20)
    house.away(5.0, lasting=lasting)
    assert to_alice in house.flows and house.calls.ports_cooling == 2
    house.run(4)
    assert house.calls.ports_cooling == 2
    house.packet(ALICE, to_alice)
    house.run(4)
    assert house.calls.ports_cooling == 1, "the other one has cooled for 30 s, and nobody sent to it"
    house.run(2)
    assert house.calls.ports_cooling == 0 and house.flows == {}
    house.away(1.0, lasting=lasting)
    assert house.calls.ports_cooling == 0


def test_a_late_200_starts_no_ghost(lasting: bool) -> None:
    house = House()
    house.talk()
    house.bye()
    house.away(5.0, lasting=lasting)
    assert house.answer().status == 481


# -- counters


def test_no_packet_counts_twice_or_is_forgotten(lasting: bool) -> None:
    house = House()
    to_alice, to_bob = house.talk()
    total = 0
    for _ in range(4):
        house.speak(to_alice, to_bob, 25, total + 1)
        total += 25
        house.tick()
        keep_all(house, house.shelf)
        house.away(0.5, lasting=lasting)
    house.bye()
    (report,) = house.ended
    caller, callee = report.streams[0].caller, report.streams[0].callee
    assert (caller.packets, caller.sent, callee.packets, callee.sent) == (total,) * 4
    assert (caller.bytes, caller.lost) == (total * 172, 0)
    assert caller.first_packet == 1000.0


def test_counters_are_kept_apart_from_the_rest() -> None:
    """They are a tenth of a call's value."""
    house = House()
    to_alice, to_bob = house.talk()
    house.speak(to_alice, to_bob)
    keep(house, house.shelf)
    house.speak(to_alice, to_bob, 30, 11)
    house.tick()
    assert house.calls.changes is not None
    house.calls.changes.count(10)
    news = house.calls.changes.take(house.now)
    assert not news.calls and len(news.counters) == 1 and len(news.counters[0][1]) < 250
    house.shelf.write(news)
    house.away(0.5)
    assert house.side(Side.CALLER).packets == 40
    assert not house.packet(NEIGHBOUR, to_alice, rtp(500, ssrc=66))


def test_a_plane_that_lasts_has_counted_on() -> None:
    house = House()
    to_alice, to_bob = house.talk()
    house.speak(to_alice, to_bob)
    house.die()
    house.speak(to_alice, to_bob, 5000, 11)
    house.rise(lasting=True)
    house.bye()
    (report,) = house.ended
    assert (report.streams[0].caller.packets, report.streams[0].caller.lost) == (5010, 0)


def test_what_the_kernel_has_counted_is_not_lost_to_another_plane() -> None:
    """relay.plane was changed between two runs: the kernel forwarded until the second one took its program away."""
    house = House()
    to_alice, to_bob = house.talk()
    house.speak(to_alice, to_bob, 5)
    house.die()
    house.speak(to_alice, to_bob, 10, first=6)
    house.now += 100.0
    saved = house.shelf.saved(house.died)
    resumption = restart(house, saved, (), left=kept(house))
    assert (resumption.taken, resumption.ended) == (0, 1), "the kernel has listened, and nobody spoke"
    (report,) = house.ended
    assert report.reason is EndReason.SILENT and report.streams[0].caller.packets == 15

    house = House()
    to_alice, to_bob = house.talk()
    house.speak(to_alice, to_bob, 5)
    house.die()
    house.speak(to_alice, to_bob, 10, first=6)
    house.now += 70.0
    assert restart(house, house.shelf.saved(house.died), (), left=kept(house)).taken == 1, "nor is it too late"
    house.speak(to_alice, to_bob, 10, first=16)
    house.tick()
    stream = house.calls.reports(house.now)[0].streams[0]
    assert [(side.packets, side.sent) for side in (stream.caller, stream.callee)] == [(25, 25)] * 2


def test_losses_are_unknown_where_sequence_numbers_may_have_gone_round() -> None:
    house = House()
    to_alice, to_bob = house.talk()
    house.speak(to_alice, to_bob)
    house.die()
    slot = house.slots[to_alice]
    slot.packets += 70_000
    slot.sequence, slot.last = (slot.sequence + 70_000) & 0xFFFF, house.now + 1400.0
    house.now += 1400.0
    house.rise(lasting=True)
    last = slot.sequence
    for number in (5, 6, 9):
        assert house.packet(ALICE, to_alice, rtp(last + number, ssrc=slot.ssrc or 0))
        house.tick()
    assert house.side(Side.CALLER).lost == 6, "since it is here again"
