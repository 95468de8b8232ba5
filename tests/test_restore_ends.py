"""relay/resumption.py: what becomes of calls that cannot go on when a relay starts, or that have ended meanwhile."""

from typing import Any

import msgspec
import pytest

from mediaproxy.control import EndCause
from mediaproxy.endpoint import Endpoint
from mediaproxy.events import CallEnded, EndReason, Side
from mediaproxy.relay.callvalue import decode_call, encode
from mediaproxy.relay.flow import Flow, SlotCounters
from mediaproxy.relay.resumption import Resumption, Saved, SavedCall
from mediaproxy.relay.settings import RelayAddress
from tests.relaybench import ALICE, Phone, rtp, stream
from tests.restarts import House, keep, kept, restart

NOBODY = Phone("", None, "")


@pytest.fixture(params=[True, False], ids=["lasting", "deaf"])
def lasting(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


# -- ends meanwhile


def rings(house: House) -> None:
    house.invite()


def talks(house: House) -> None:
    house.speak(*house.talk())


def answers(house: House) -> None:
    """Killed before the first packet: nobody is learned, so even the kernel lets nobody speak."""
    house.talk()


def holds(house: House) -> None:
    house.talk((stream("10.0.0.1:4000", direction="sendonly"),))


def cancelled(house: House) -> None:
    house.invite()
    house.end(EndCause.CANCEL, house.alice, NOBODY, status=487)


def failed(house: House) -> None:
    house.invite()
    house.end(EndCause.FAILURE, house.bob, house.alice, status=486)


ENDS: dict[str, tuple[Any, float, EndReason | None, float, EndReason | None, float]] = {
    # what it did: away, reason and time of the end on a plane that lasts, the same on one that does not
    "rang": (rings, 10.0, None, 0.0, None, 0.0),
    "rang for too long": (rings, 310.0, EndReason.UNANSWERED, 300.0, EndReason.UNANSWERED, 300.0),
    "talked": (talks, 50.0, None, 0.0, None, 0.0),
    "talked, and nobody heard it for long": (talks, 100.0, EndReason.SILENT, 90.18, None, 0.0),
    "was answered, and nobody could be learned": (answers, 100.0, None, 0.0, None, 0.0),
    "was on hold": (holds, 310.0, None, 0.0, None, 0.0),
    "was on hold for too long": (holds, 7300.0, EndReason.HOLD_EXPIRED, 7200.0, EndReason.HOLD_EXPIRED, 7200.0),
    "was cancelled": (cancelled, 10.0, None, 0.0, None, 0.0),
    "was cancelled and is over": (cancelled, 40.0, EndReason.CANCEL, 0.0, EndReason.CANCEL, 0.0),
    "failed and is over": (failed, 40.0, EndReason.FAILURE, 0.0, EndReason.FAILURE, 0.0),
}


@pytest.mark.parametrize("row", ENDS.values(), ids=ENDS)
def test_timers_go_on_by_the_clock(row: Any, lasting: bool) -> None:
    """... but silence does not, where nobody could hear."""
    does, away, reason, ended, deaf_reason, deaf_ended = row
    if not lasting:
        reason, ended = deaf_reason, deaf_ended
    house = House()
    does(house)
    resumption = house.away(away, lasting=lasting, within=1e6)
    if reason is None:
        assert (resumption.taken, resumption.ended, house.ended) == (1, 0, [])
        return
    (report,) = house.ended
    assert report.reason is reason and report.ended == pytest.approx(1000.0 + ended)
    assert (resumption.taken, resumption.ended) == (0, 1) and len(house.calls) == 0
    assert house.calls.ports_cooling == 2
    keep(house, house.shelf)
    assert not house.shelf.calls


def test_silence_counts_from_the_start_where_nobody_could_hear() -> None:
    house = House()
    talks(house)
    house.away(55.0)
    house.run(89)
    assert house.ended == []
    house.run(2)
    assert [report.reason for report in house.ended] == [EndReason.SILENT]


def test_one_side_that_was_heard_first_does_not_make_the_other_one_way() -> None:
    house = House()
    to_alice, to_bob = house.talk()
    house.speak(to_alice, to_bob)
    house.away(30.0)
    for number in range(450):
        house.packet(ALICE, to_alice, rtp(20 + number))
        house.run(0.02)
    assert house.side(Side.CALLEE).warnings == ()


@pytest.mark.parametrize(("stopped", "reason"), [(True, EndReason.SHUTDOWN), (False, EndReason.LOST)])
def test_who_comes_too_late_ends_calls_when_the_other_did(stopped: bool, reason: EndReason) -> None:
    house = House()
    talks(house)
    resumption = house.away(61.0, stopped=stopped)
    (report,) = house.ended
    assert report.reason is reason and report.ended == pytest.approx(1000.2) and resumption.ended == 1
    assert report.streams[0].caller.packets == 10


def test_it_is_never_too_late_for_a_plane_that_lasts() -> None:
    house = House()
    to_alice, to_bob = house.talk()
    house.die()
    house.speak(to_alice, to_bob, 5000)
    house.rise(lasting=True, within=1.0)
    assert house.ended == [] and house.packet(ALICE, to_alice, rtp(5001))


# -- what cannot go on


def lost(house: House, resumption: Resumption, why: str) -> None:
    """It gave a record, and its ports are free."""
    (report,) = house.ended
    assert (report.reason, report.ended, report.call_id) == (EndReason.LOST, house.died, "call-1")
    assert (report.caller.uri, report.callee.tag) == ("sip:alice@example.net", "bob")
    assert report.started == 1000.0 and report.answered == 1000.0
    assert resumption.ended == 1 and any(why in line for line in resumption.unreadable)
    assert len(house.calls) == 0 and house.flows == {}
    keep(house, house.shelf)
    assert not house.shelf.calls, "once"


DAMAGES: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", ""),
    "cut short": (b"\xdc\x00", "truncated"),
    "something else": (msgspec.msgpack.encode([1, 2, 3]), "Expected"),
}


@pytest.mark.parametrize(("value", "why"), DAMAGES.values(), ids=DAMAGES)
def test_a_call_that_cannot_be_read_leaves_a_record(value: bytes, why: str, lasting: bool) -> None:
    house = House()
    house.talk()
    house.die()
    (saved,) = house.shelf.calls.values()
    house.shelf.calls[saved.number] = SavedCall(number=saved.number, brief=saved.brief, value=value)
    if not why:
        resumption = house.rise(lasting)
        assert resumption.unreadable == [], "said once for all of the file"
        assert [report.reason for report in house.ended] == [EndReason.LOST]
        return
    lost(house, house.rise(lasting), why)


def test_a_value_that_contradicts_itself(lasting: bool) -> None:
    house = House()
    house.talk()
    house.die()
    (saved,) = house.shelf.calls.values()
    value = decode_call(saved.value)
    value.locked = 17
    house.shelf.calls[saved.number] = SavedCall(number=saved.number, brief=saved.brief, value=encode(value))
    lost(house, house.rise(lasting), "contradicts itself")


def test_not_even_the_brief_can_be_read(lasting: bool) -> None:
    house = House()
    house.talk()
    house.die()
    (saved,) = house.shelf.calls.values()
    house.shelf.calls[saved.number] = SavedCall(number=saved.number, brief=b"?", value=b"?")
    resumption = house.rise(lasting)
    assert resumption.ended == 1 and len(resumption.unreadable) == 1 and house.ended == []


def test_an_address_that_is_no_more_ours() -> None:
    house = House()
    house.talk()
    house.die()
    house.settings = msgspec.structs.replace(house.settings, addresses=(RelayAddress(bind="192.0.2.99"),))
    resumption = house.rise(lasting=False)
    lost(house, resumption, "no more this relay's")


def test_a_record_of_a_call_whose_address_is_gone_has_what_was_counted() -> None:
    """Also by the kernel after the end of the process."""
    house = House()
    to_alice, to_bob = house.talk()
    house.speak(to_alice, to_bob, 5)
    house.die()
    house.speak(to_alice, to_bob, 10, first=6)
    house.settings = msgspec.structs.replace(house.settings, addresses=(RelayAddress(bind="192.0.2.99"),))
    lost(house, house.rise(lasting=True), "no more this relay's")
    (stream,) = house.ended[0].streams
    assert [(side.packets, side.sent) for side in (stream.caller, stream.callee)] == [(15, 15)] * 2


def test_two_calls_that_claim_the_same_ports() -> None:
    house = House()
    to_alice, _ = house.talk()
    house.die()
    (saved,) = house.shelf.calls.values()
    value = decode_call(saved.value)
    value.number, value.call_id = 2, "other"
    house.shelf.calls[2] = SavedCall(number=2, brief=saved.brief, value=encode(value))
    resumption = house.rise(lasting=False)
    assert (resumption.taken, resumption.ended) == (1, 1) and house.report.call_id == "call-1"
    assert house.packet(ALICE, to_alice)


def test_another_range_of_ports(lasting: bool) -> None:
    """Calls keep what their phones were told; free again, it is lent no more."""
    house = House()
    to_alice, to_bob = house.talk()
    house.speak(to_alice, to_bob)
    house.die()
    house.settings = msgspec.structs.replace(house.settings, port_min=30000, port_max=30008)
    house.rise(lasting)
    house.speak(to_alice, to_bob, 5, 11)
    house.bye()
    house.run(60)
    assert house.calls.ports_free == 5 and house.flows == {}


def test_a_call_whose_record_is_written_has_ended() -> None:
    """The journal could not be written for a while, so it is behind."""
    house = House()
    house.talk()
    house.die()
    resumption = house.rise(False, recorded={("call-1", "alice", 1000.0)})
    assert house.ended == [] and len(house.calls) == 0 and resumption.ended == 1
    keep(house, house.shelf)
    assert not house.shelf.calls


def test_flows_of_nobody_are_removed() -> None:
    house = House()
    to_alice, _ = house.talk()
    keep(house, house.shelf)
    stray = Endpoint("192.0.2.1", 20190)
    old = SlotCounters(local=to_alice, generation=77, packets=5)
    house.flows[stray] = Flow(local=stray, generation=99)
    house.slots[stray] = SlotCounters(local=stray, generation=99)
    before = len(house.flows)
    house.away(1.0, lasting=True)
    assert stray not in house.flows and len(house.flows) == before - 1
    assert old.packets == 5


@pytest.mark.parametrize(("there", "packets", "strays"), [(False, 5, 1), (False, 0, 0), (True, 5, 0)])
def test_streams_of_nobody_are_told_where_the_journal_is_gone(there: bool, packets: int, strays: int) -> None:
    """A relay with the journal's calls knows what their ports were; a port that nobody has spoken to is no loss."""
    house = House()
    house.talk()
    keep(house, house.shelf)
    stray = Endpoint("192.0.2.1", 20190)
    house.flows[stray] = Flow(local=stray, generation=99)
    house.slots[stray] = SlotCounters(local=stray, generation=99, packets=packets)
    resumption = restart(house, house.shelf.saved(house.now) if there else Saved(), kept(house))
    assert resumption.strays == strays and stray not in house.flows


def test_events_of_a_restored_call_are_told_once() -> None:
    house = House()
    house.talk()
    house.away(1.0)
    house.bye()
    assert len(house.seen(CallEnded)) == 1
