"""The kernel program on single packets (BPF_PROG_TEST_RUN): it does what relay/packetpath.py says, byte for byte."""

import os
import random
import signal
import socket
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import count

import pytest
from msgspec.structs import replace as change

from mediaproxy.endpoint import Endpoint
from mediaproxy.relay.bpf import KernelPath
from mediaproxy.relay.bpf.syscalls import test_run as run_program
from mediaproxy.relay.packetpath import Outcome, Verdict, World, path
from mediaproxy.relay.portmap import Rate
from mediaproxy.relay.slots import Reason, SlotConfig, State, encode, packed
from tests.e2e.conftest import need
from tests.packets.mutation import mutated
from tests.packets.table import PORTS, TABLE, VOICE, B, Row, world
from tests.planebench import own_network

MUTATIONS = 100_000
_VERDICTS = {-1: Verdict.PASS, 2: Verdict.DROP, 7: Verdict.SEND}
"TC_ACT_UNSPEC, TC_ACT_SHOT, TC_ACT_REDIRECT"
_RTP_HEARD = ("rtp", "lost", "tick", "ssrc", "timestamp", "sequence", "payload_type")
_HEARD = ("packets", "bytes", *_RTP_HEARD, "undeliverable", "undeliverable_bytes", "dropped", "passed")
_SALTS = count(1)
_NO_LIMIT = Rate(1e9, 1e9)
_NEED_TIME = {Reason.UP_CHANGED, Reason.UP_NO_ROOM, Reason.VLAN, Reason.NO_PROCESS, Reason.REFUSED, Reason.FLOOD}
"Reasons that need a race, another kernel, hardware, or packets that come too fast."


class Program:
    """The program with its maps, and what it counted since the last look."""

    def __init__(self, kernel: KernelPath) -> None:
        self.kernel = kernel
        self._totals = kernel.totals()
        self.salt = 0
        "What is added to the generations of a world."

    def catch_up(self) -> None:
        """Packets came that ``run`` knows nothing of."""
        self._totals = self.kernel.totals()

    def install(self, state: World) -> None:
        """The slots of a world, with generations of their own: counters begin at 0."""
        self.kernel.set_control(state.control)
        salt = self.salt = 100_000 * next(_SALTS)
        for index in range(PORTS.slots):
            slot = state.slots.get(index)
            if slot is None:
                self.kernel.slots.free(index)
                continue
            generation = slot.config.peer_generation
            values = {name: getattr(slot.config, name) for name in SlotConfig.__struct_fields__}
            values["peer_generation"] = generation + salt if generation else 0
            self.kernel.slots.store(index, slot.generation + salt, slot.state, SlotConfig(**values))

    def run(self, frame: bytes, section: str = "tc/ethernet") -> Outcome:
        """One frame. The interface that it leaves by is not told."""
        done = run_program(self.kernel.programs[section], frame)
        totals = self.kernel.totals()
        reasons = [reason for reason in Reason if totals[reason] != self._totals[reason]]
        self._totals = totals
        assert len(reasons) <= 1, "each packet is counted once"
        verdict = _VERDICTS[done.verdict]
        data = done.data if verdict is Verdict.SEND else b""
        assert verdict is Verdict.SEND or done.data == frame, "what does not leave is not touched"
        return Outcome(verdict, reasons[0] if reasons else None, data)


@pytest.fixture(scope="module")
def program() -> Iterator[Program]:
    need()
    with own_network():
        kernel = KernelPath.create(world(TABLE[0], time.monotonic_ns()).control)
        yield Program(kernel)
        kernel.close()


@contextmanager
def others(row: Row) -> Iterator[None]:
    """The other program of a row has its sockets."""
    with ExitStack() as stack:
        for family in (socket.AF_INET, socket.AF_INET6) if row.others else ():
            sock = stack.enter_context(socket.socket(family, socket.SOCK_DGRAM))
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.bind(("", row.packet.destination.port))
        yield


def _same(said: Outcome, done: Outcome) -> bool:
    return (said.verdict, said.reason, said.frame) == (done.verdict, done.reason, done.frame)


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.name)
def test_the_table(program: Program, row: Row) -> None:
    now = time.monotonic_ns()
    state = world(row, now - 1000)
    program.install(state)
    for before in row.before:
        path(state, before.frame(), now)
        program.run(before.frame())
    with others(row):
        for _ in range(row.spray):
            said = path(state, row.packet.frame(), now)
            done = program.run(row.packet.frame())
    assert (done.verdict, done.reason) == (row.verdict, row.reason)
    assert done.frame.hex() == said.frame.hex()
    for index, slot in state.slots.items():
        counters = program.kernel.counters.read(index)
        if counters["generation"] != slot.generation + program.salt:
            counters = dict.fromkeys(counters, 0)  # nothing came to it
        expected = {name: getattr(slot.heard, name) for name in _HEARD}
        found = {name: counters[name] for name in _HEARD}
        if row.spray > 1:  # buckets fill by the host's clock
            for counter in ("passed", "dropped"):
                assert abs(found.pop(counter) - expected.pop(counter)) < 10
        assert found == expected, index


def _runnable(frame: bytes) -> bool:
    """BPF_PROG_TEST_RUN wants a whole IP header."""
    return len(frame) >= 14 + {b"\x08\x00": 20, b"\x86\xdd": 40}.get(frame[12:14], 1)


@pytest.mark.timeout(600)
def test_mutated_packets_get_the_verdict_of_the_specification(program: Program) -> None:
    """100 000 of them: lengths, versions, options, fragments, VLAN tags, truncated headers."""
    rng = random.Random(4)
    rows = [row for row in TABLE if row.spray == 1 and not row.dead]
    wrong = []
    seen: Counter[Reason | None] = Counter()
    while seen.total() < MUTATIONS:
        row = rng.choice(rows)
        now = time.monotonic_ns()
        state = world(row, now)
        state.control = change(state.control, ranked=_NO_LIMIT, strangers=_NO_LIMIT, spray=_NO_LIMIT, silence=3600.0)
        program.install(state)
        with others(row):
            for _ in range(100):
                frame = mutated(row.packet.frame(), rng)
                said = path(state, frame, now)
                if not _runnable(frame):
                    assert said == Outcome(Verdict.PASS)
                    continue
                done = program.run(frame)
                seen[done.reason] += 1
                if not _same(said, done):
                    wrong.append((row.name, frame.hex(), said, done))
    assert not wrong[:3], f"{len(wrong)} differ"
    for reason in set(Reason) - _NEED_TIME:
        assert seen[reason] >= MUTATIONS // 10_000, f"{reason.name}: {seen}"


def test_no_packet_sees_half_of_a_change(program: Program) -> None:
    """Another process writes the peer's slot all the time; each packet goes to one of its two targets."""
    state = world(next(row for row in TABLE if row.name == "IPv4"), time.monotonic_ns())
    state.control = change(state.control, ranked=_NO_LIMIT)
    program.install(state)
    index = PORTS.index(B)
    assert index is not None
    generation, slots = program.kernel.slots.word(index).generation, program.kernel.slots
    one = state.slots[index].config
    peer = state.slots[index].config.peer
    one = change(one, peer_generation=program.kernel.slots.word(peer).generation)
    other = change(one, target=Endpoint("203.0.113.77", 7777))
    writer = os.fork()
    if writer == 0:
        codes = [encode(one), encode(other)]
        while True:
            for code in codes:
                slots.store_bytes(index, generation, State.LEARNED, code)
    try:
        seen = Counter(targets_of(program, 20_000))
        for _ in range(100):  # on one processor the other process may not have had a turn
            if len(seen) > 1:
                break
            seen.update(targets_of(program, 20_000))
    finally:
        os.kill(writer, signal.SIGKILL)
        os.waitpid(writer, 0)
        program.catch_up()
    assert set(seen) <= {(packed("198.51.100.2")[12:], 5000), (packed("203.0.113.77")[12:], 7777)}
    assert len(seen) == 2


def targets_of(program: Program, times: int) -> Iterator[tuple[bytes, int]]:
    """Where a packet is sent, again and again."""
    frame, fd = VOICE.frame(), program.kernel.programs["tc/ethernet"]
    for _ in range(times):
        data = run_program(fd, frame).data
        if data != frame:  # else it was passed up, because the slot was changed meanwhile
            yield data[30:34], int.from_bytes(data[36:38], "big")
