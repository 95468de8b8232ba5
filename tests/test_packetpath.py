"""The specification of the kernel path: the packet table, and mutated packets that must never leave damaged."""

import random
from dataclasses import replace

import pytest
from msgspec.structs import replace as change

from mediaproxy.relay.packetpath import Outcome, Verdict, path
from mediaproxy.relay.slots import Reason
from tests.packets.datagram import ETHERNET, Datagram, rtp, valid
from tests.packets.mutation import mutated
from tests.packets.table import ALICE, FORWARDED, OUT, TABLE, A, Row, world

NOW = 10**9


def run(row: Row) -> tuple[Outcome, dict[str, int]]:
    """What becomes of the row's packet, and the counters of its slot."""
    state = world(row, NOW - 1000)
    for before in row.before:
        path(state, before.frame(), NOW)
    for _ in range(row.spray):
        outcome = path(state, row.packet.frame(), NOW)
    slot = state.slots.get(row.packet.destination.port - state.control.ports.port_min)
    heard = slot.heard if slot else None
    return outcome, {} if heard is None else {name: getattr(heard, name) for name in ("packets", "undeliverable")}


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.name)
def test_the_table(row: Row) -> None:
    outcome, _ = run(row)
    assert (outcome.verdict, outcome.reason) == (row.verdict, row.reason)
    if row.out is not None:
        assert outcome.frame.hex() == row.out.frame().hex()
        assert outcome.ifindex == OUT


def test_every_reason_is_in_the_table() -> None:
    """But three that need a race, a kernel without memory, and a VLAN's tag."""
    assert set(Reason) - {row.reason for row in TABLE} == {Reason.UP_CHANGED, Reason.UP_NO_ROOM, Reason.VLAN}


def test_names_of_rows_are_unique() -> None:
    assert len({row.name for row in TABLE}) == len(TABLE)


def test_a_tagged_packet_is_left_to_the_vlan_and_a_priority_is_none() -> None:
    row = FORWARDED[0]
    frame = row.packet.frame()
    assert path(world(row, NOW), frame, NOW, tag=0x2005) == Outcome(Verdict.PASS, Reason.VLAN)
    assert path(world(row, NOW), frame, NOW, tag=0x2000).verdict is Verdict.SEND


@pytest.mark.parametrize(
    ("sequences", "lost", "last"),
    [
        ((1, 2, 3), 0, 3),
        ((65534, 65535, 0, 1), 0, 1),
        ((65534, 1), 2, 1),
        ((1, 5), 3, 5),
        ((1, 5, 3, 4), 1, 5),
        ((1, 2, 2, 3), -1, 3),
        ((10, 9), -1, 10),
        ((1, 3000), 2998, 3000),
        ((1, 3001, 3002), 0, 3002),
        ((40000, 5000, 5001), 0, 5001),
        ((40000, 35000, 35001, 35003), 1, 35003),
        ((100, 9000, 101, 102), 0, 102),
    ],
    ids=[
        "in order", "round", "lost where they go round", "lost", "late", "twice", "the first one late", "many lost",
        "begun anew ahead", "begun anew far behind", "begun anew behind", "a stray one",
    ],
)  # fmt: skip
def test_losses(sequences: tuple[int, ...], lost: int, last: int) -> None:
    """RFC 3550 A.1: who jumps by 3000 has begun anew, and has lost nothing."""
    state = world(TABLE[0], NOW)
    for number, sequence in enumerate(sequences):
        frame = Datagram(source=ALICE, destination=A, payload=rtp(sequence)).frame()
        assert path(state, frame, NOW + number).verdict is Verdict.SEND
    (heard,) = (slot.heard for slot in state.slots.values() if slot.heard.rtp)
    assert (heard.lost, heard.sequence) == (lost, last)


def test_what_comes_in_several_packets_of_one_timestamp_is_no_jitter() -> None:
    """Digits (RFC 4733 §2.5.1: all packets of an event have the timestamp of its beginning) and pictures."""
    flows = (change(TABLE[0].flows[0], clocks=((0, 8000), (101, 8000))), *TABLE[0].flows[1:])
    state = world(replace(TABLE[0], flows=flows), NOW)
    voice = [(0, at) for at in range(5)]
    digit = [(101, 5)] * 13  # 200 ms, and its end three times
    for number, (payload_type, at) in enumerate([*voice, *digit, *[(0, at) for at in range(18, 30)]]):
        payload = rtp(number, payload_type=payload_type, timestamp=at * 160)
        frame = Datagram(source=ALICE, destination=A, payload=payload).frame()
        assert path(state, frame, NOW + number * 20_000_000).verdict is Verdict.SEND
    (heard,) = (slot.heard for slot in state.slots.values() if slot.heard.rtp)
    assert (heard.rtp, heard.lost, heard.jitter) == (30, 0, 0)


@pytest.mark.parametrize("row", FORWARDED, ids=lambda row: row.name)
def test_what_leaves_after_a_mutation_is_no_worse_than_what_came(row: Row) -> None:
    """A valid packet leaves valid, and the frame is never longer than the new headers make it."""
    rng = random.Random(row.name)
    for _ in range(200):
        frame = mutated(row.packet.frame(), rng)
        outcome = path(world(row, NOW), frame, NOW)
        if outcome.verdict is Verdict.SEND:
            assert len(outcome.frame) <= len(frame) + 20
            if valid(frame[len(ETHERNET) + 2 :]):
                assert valid(outcome.frame[len(ETHERNET) + 2 :])
