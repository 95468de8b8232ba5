"""The rules of the native plane's threads, packet by packet: they are those of relay/packetpath.py. No socket is used.

``Path.judge`` is what a thread does with a packet between reading and sending. What comes to a socket is a whole
datagram, so the specification gets it as a plain one: options, fragments and lengths are the host's.
"""

import mmap
import os
import random
import socket
import struct
from collections import Counter
from collections.abc import Callable, Iterator

import pytest
from msgspec.structs import replace as change

from mediaproxy.endpoint import Endpoint
from mediaproxy.relay.native import extension
from mediaproxy.relay.packetframe import Odd, Other, parse, well_formed
from mediaproxy.relay.packetpath import Heard, Outcome, Verdict, World, path
from mediaproxy.relay.portmap import Rate
from mediaproxy.relay.slots import COUNTERS, CounterTable, Reason, State, encode, packed, unpacked
from tests.packets.datagram import Datagram, rtp
from tests.packets.mutation import mutated
from tests.packets.table import ALICE, PORTS, TABLE, VOICE, A, B, Row, config_of, world

MUTATIONS = 100_000
NOW = 10**9
_HEARD = [name for name in COUNTERS.names if name in Heard.__dataclass_fields__ and name != "passed"]
"What is counted but for what is passed up: that is counted when there is room for it."
_OWN = [packed(bind) for bind, _ in PORTS.addresses]
_LATER = {Reason.UP_FRAGMENT, Reason.UP_OPTIONS, Reason.UP_TOO_BIG, Reason.UP_NO_CHECKSUM}
"What only the kernel program leaves to user space."


class Threads:
    """The threads' half of a native plane, at rest; a file that is never read stands for each slot's socket."""

    def __init__(self) -> None:
        room = mmap.mmap(-1, PORTS.slots * COUNTERS.size)
        self.counters = CounterTable(memoryview(room))
        self.wake = os.eventfd(0, os.EFD_NONBLOCK)
        control = world(TABLE[0], NOW).control
        buckets = [struct.unpack("=II", rate.encode()) for rate in (control.ranked, control.strangers, control.spray)]
        self.path = extension().Path(room, 2, self.wake, *buckets)
        self.files: dict[int, int] = {}
        "File -> slot."
        self._salt = 0
        self._lendings: dict[int, int] = {}

    def install(self, state: World) -> None:
        """The slots of a world, with generations of their own: counters begin at 0."""
        self._salt += 100_000
        for index in range(PORTS.slots):
            slot = state.slots.get(index)
            self._lendings[index] = 0 if slot is None else slot.generation + self._salt
            if slot is None:
                self.path.free(index)
                continue
            if index not in self.files.values():
                file = os.eventfd(0, os.EFD_NONBLOCK)
                self.path.add(index, file)
                self.files[file] = index
            peer = slot.config.peer_generation
            config = change(slot.config, peer_generation=peer + self._salt if peer else 0)
            self.path.set(index, self._lendings[index], slot.state, encode(config))

    def run(self, packet: Datagram, now: int, *, late: int = 0) -> tuple[Verdict, Endpoint | None, Endpoint | None]:
        """What becomes of a packet: verdict, the port that it leaves from, and where it goes. ``late``: it came so many
        lendings ago."""
        index = PORTS.index(packet.destination)
        assert index is not None
        source, lending = packet.source, self._lendings[index] - late
        done = self.path.judge(index, lending, packed(source.address), source.port, packet.payload, now)
        verdict, file, address, port = done
        if verdict != 2:
            return (Verdict.DROP, Verdict.PASS)[verdict], None, None
        family, at = struct.unpack_from("=H", address)[0], {socket.AF_INET: (4, 8), socket.AF_INET6: (8, 24)}
        target = address[slice(*at[family])]
        return Verdict.SEND, PORTS.endpoint(self.files[file]), Endpoint(unpacked_any(target), port)

    def heard(self, index: int) -> dict[str, int]:
        """The counters of a slot."""
        return {name: self.counters.read(index)[name] for name in _HEARD}

    def close(self) -> None:
        self.counters.release()
        for file in (*self.files, self.wake):
            os.close(file)


def unpacked_any(address: bytes) -> str:
    return unpacked(address if len(address) == 16 else bytes(10) + b"\xff\xff" + address)


@pytest.fixture
def threads() -> Iterator[Threads]:
    """New for each test: what strangers may be passed up is counted for all ports together."""
    made = Threads()
    yield made
    made.close()


def said(state: World, packet: Datagram, now: int) -> tuple[Outcome, tuple[Verdict, Endpoint | None, Endpoint | None]]:
    """What the specification says of a plain datagram."""
    outcome = path(state, packet.frame(), now)
    verdict = Verdict.DROP if outcome.reason is Reason.NOT_LENT else outcome.verdict
    if verdict is not Verdict.SEND:
        return outcome, (verdict, None, None)
    left = parse(outcome.frame, 14, lambda destination: True)
    assert not isinstance(left, Other)
    source = Endpoint(unpacked(left.source), left.source_port)
    return outcome, (verdict, source, Endpoint(unpacked(left.destination), left.port))


def plain(row: Row) -> World:
    """A row's world as a plane of sockets has it: no way is too narrow, and each leg of a chain is one of its own."""
    state = world(row, NOW)
    state.others = frozenset()
    for slot in state.slots.values():
        slot.config = change(slot.config, mtu=0, own=False, settled=False)
    return state


ROWS = [row for row in TABLE if row.plain or row.reason in (Reason.REFUSED, Reason.FLOOD)]
ROWS = [row for row in ROWS if not row.settled and not row.dead and not row.retiring and not row.mtu]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_the_table(threads: Threads, row: Row) -> None:
    state = plain(row)
    threads.install(state)
    for number in range(row.spray):
        _, expected = said(state, row.packet, NOW + number)
        assert threads.run(row.packet, NOW + number) == expected
    assert expected[0] is row.verdict
    same_counters(threads, state)


def same_counters(threads: Threads, state: World) -> None:
    """What was counted is what the specification counts."""
    for index, slot in state.slots.items():
        found = threads.heard(index)
        expected = {name: getattr(slot.heard, name) for name in _HEARD}
        if any(expected.values()):
            assert found == expected, index


def reaches(frame: bytes) -> Datagram | None:
    """The datagram that a socket of the relay gets of a frame; None: the host does not give it one, or not at once."""
    found = parse(frame, 14, _OWN.__contains__)
    if isinstance(found, Other) or not well_formed(frame, 14, found) or found.odd is Odd.FRAGMENT:
        return None
    destination = Endpoint(unpacked(found.destination), found.port)
    if PORTS.index(destination) is None or (found.version == 6 and not found.checksum):
        return None
    payload = frame[found.udp + 8 : found.udp + found.udp_length]
    return Datagram(
        source=Endpoint(unpacked(found.source), found.source_port), destination=destination, payload=payload
    )


def shaken(rng: random.Random, packet: Datagram) -> Datagram:
    """Its payload and its source are nearly right, too."""
    payload, source = bytearray(packet.payload), packet.source
    for _ in range(rng.choice((0, 0, 1, 2))):
        if payload:
            payload[rng.randrange(min(len(payload), 14))] = rng.choice((0, 0x80, 0xC8, rng.randrange(256)))
    if rng.random() < 0.3:
        payload = payload[: rng.randrange(len(payload) + 1)]
    if rng.random() < 0.1:
        source = source.with_port(rng.choice((0, 4000, 5000, 4001, 65535)))
    return Datagram(source=source, destination=packet.destination, payload=bytes(payload))


@pytest.mark.timeout(600)
def test_mutated_packets_get_the_verdict_of_the_specification(threads: Threads) -> None:
    """100 000 frames, of which a socket gets every third; the counters agree, too: loss, jitter and buckets."""
    rng = random.Random(4)
    rows = [row for row in TABLE if not row.dead and not row.retiring]
    seen: Counter[Reason | None] = Counter()
    now = NOW
    for _ in range(MUTATIONS // 200):
        row = rng.choice(rows)
        state, frame = plain(row), row.packet.frame()
        state.control = change(state.control, heartbeat=now, spray=Rate(2000, 500))
        state.spray = now  # both buckets of all strangers are full
        threads.install(state)
        for _ in range(200):
            now += rng.choice((0, 1, 19_999_000, 20_000_000, 23_456_789))
            state.control = change(state.control, heartbeat=now)
            packet = reaches(mutated(frame, rng))
            if packet is None:
                continue
            packet = shaken(rng, packet)
            outcome, expected = said(state, packet, now)
            assert threads.run(packet, now) == expected, (row.name, packet)
            seen[outcome.reason] += 1
        same_counters(threads, state)
        now += 10**9
    for reason in (Reason.FORWARDED, Reason.UP, Reason.REFUSED, Reason.UNDELIVERABLE, Reason.NOT_LENT):
        assert seen[reason] >= MUTATIONS // 1000, seen
    assert not seen.keys() & _LATER


def test_loss_and_jitter(threads: Threads) -> None:
    """RFC 3550 §6.4.1 as the kernel program measures it."""
    state = world(TABLE[0], NOW)
    threads.install(state)
    rng, sequence, now = random.Random(5), 65000, NOW
    for _ in range(3000):
        sequence += rng.choice((1, 1, 1, 1, 2, 3, 5, -1, 0))
        now += 20_000_000 + rng.randrange(-3_000_000, 3_000_000)
        packet = Datagram(source=ALICE, destination=A, payload=rtp(sequence, timestamp=sequence * 160 & 0xFFFFFFFF))
        assert threads.run(packet, now) == said(state, packet, now)[1]
    same_counters(threads, state)
    index = PORTS.index(A)
    assert index is not None
    counters = threads.heard(index)
    assert counters["lost"] > 100 and 1_000_000 < counters["jitter"] // 16 < 50_000_000


def test_a_flow_names_its_peer_with_its_lending(threads: Threads) -> None:
    threads.install(plain(TABLE[0]))
    assert threads.run(VOICE, NOW)[0] is Verdict.SEND
    index = PORTS.index(B)
    assert index is not None
    for lending in (7, 8):
        threads.path.set(index, lending, State.LEARNED, encode(config_of(TABLE[0].flows[1])))
        assert threads.run(VOICE, NOW)[0] is Verdict.DROP
    threads.path.free(index)
    assert threads.run(VOICE, NOW)[0] is Verdict.DROP


def test_a_packet_that_came_to_an_earlier_lending_is_dropped(threads: Threads) -> None:
    """It was read from the socket before that was lent anew, and is looked at now."""
    for row in (TABLE[0], next(row for row in TABLE if row.reason is Reason.UP)):
        threads.install(plain(row))
        assert threads.run(row.packet, NOW)[0] is row.verdict
        assert threads.run(row.packet, NOW, late=1)[0] is Verdict.DROP
        assert threads.run(row.packet, NOW, late=-1)[0] is Verdict.DROP
        assert threads.run(row.packet, NOW)[0] is row.verdict


def test_what_is_no_slot_is_refused(threads: Threads) -> None:
    path_, make, bucket = threads.path, extension().Path, (1, 1)
    config = encode(config_of(TABLE[0].flows[0]))
    wrong: list[Callable[[], object]] = [
        lambda: path_.add(PORTS.slots, 0),
        lambda: path_.drop(PORTS.slots),
        lambda: path_.free(PORTS.slots),
        lambda: path_.set(PORTS.slots, 1, 3, config),
        lambda: path_.set(0, 1, 4, config),
        lambda: path_.set(0, 1, 3, b"too short"),
        lambda: path_.judge(PORTS.slots, 1, bytes(16), 1, b"", 1),
        lambda: path_.judge(0, 1, b"short", 1, b"", 1),
        lambda: path_.run(2),
        lambda: make(mmap.mmap(-1, COUNTERS.size), 0, 0, bucket, bucket, bucket),
        lambda: make(bytearray(1), 1, 0, bucket, bucket, bucket),
    ]
    for call in wrong:
        with pytest.raises(ValueError):
            call()
    with pytest.raises(OSError):
        path_.add(0, -1)
    with pytest.raises((TypeError, BufferError)):
        make(b"read-only" * 100, 1, 0, bucket, bucket, bucket)
