"""What 10 000 calls cost the relay's process when their media is in the kernel: 40 000 ports, all of them learned.

A relay of its own, in a network namespace of its own, with the kernel plane and a virtual clock. Calls are set up by
offer and answer, and a first packet from either phone makes both ends learned. From then on no packet comes to the
process; the bench writes into the counters what the program would: every port hears 50 packets/s. Then the process does
what it does each second and at each deadline, for so long that every call is looked at in all ways.

- *set-up*: offer and answer, four packets, and the ports in the kernel: per second of CPU time.
- *memory*: resident, per call, without that of the process before.
- *idle*: CPU of the process when nothing comes, by the clock; part of a core.
- *talking*: the same when all calls talk; of the process alone, since the kernel carries the packets.
- *sweep*: all counters of all ports read once, every one changed, with their sums.
- *scrape*: what /metrics tells, made once, for which packets that are being learned wait.
"""

import asyncio
import json
import mmap
import os
import random
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

from prometheus_client import generate_latest

from bench.mediarelay import loop_factory
from bench.report import alone
from lab.netns import LabError, Namespaces, environment
from mediaproxy import clock
from mediaproxy.control import KnownBy, MediaRequest, Party, PayloadType, PhoneAddress, Stream
from mediaproxy.endpoint import Endpoint
from mediaproxy.relay.flow import Packet, SlotCounters
from mediaproxy.relay.kernel.plane import KernelPlane
from mediaproxy.relay.service import RelayService
from mediaproxy.relay.settings import RelayAddress, RelaySettings
from mediaproxy.relay.slots import COUNTERS
from mediaproxy.server.monitoring import relay_figures
from mediaproxy.server.planes import Chosen
from mediaproxy.server.process import collect_seldom
from mediaproxy.web.figures import Chronicle, Snapshot
from mediaproxy.web.metrics import registry

CALLS = 10_000
PORTS = (16_384, 61_383)
"Room for all calls, and for those that cool."
RATE = 50
"Packets per second of every port."
SECONDS = 100
"Longer than any timer of a talking call."
IDLE_SECONDS = 10.0
_ADDRESS = "127.0.0.1"
_RTP = struct.pack("!BBHII", 0x80, 0, 1, 160, 7) + bytes(160)
_RTCP = struct.pack("!BBHI", 0x80, 200, 6, 7) + bytes(20)


class Program:
    """Writes counters as the program in the kernel does."""

    def __init__(self, plane: KernelPlane) -> None:
        (bank,) = plane._banks
        self._bank = bank
        size = len(bank.kernel.counters) * COUNTERS.size
        self._map = mmap.mmap(bank.kernel.maps["counters"], (size + 4095) // 4096 * 4096)
        self._packets = 0

    def hear(self, now: float, packets: int) -> None:
        """So many more packets at every lent port, the last one now."""
        self._packets += packets
        count, at = self._packets, int((now - clock.offset()) * 1e9)
        values = dict(
            zip(COUNTERS.names, COUNTERS.struct.unpack(bytes(COUNTERS.size)), strict=False),
            packets=count, bytes=172 * count, last=at, arrived=at, rtp=count, jitter=20_000_000, tick=4_000_000, ssrc=7,
            timestamp=160 * count & 0xFFFFFFFF, sequence=count & 0xFFFF, payload_type=128, spare=b"",
        )  # fmt: skip
        pack, into = COUNTERS.struct.pack_into, self._map
        for index, lent in self._bank.lent.items():
            values["generation"] = lent.flow.generation
            pack(into, index * COUNTERS.size, *values.values())


class House:
    """The relay and its clock."""

    def __init__(self) -> None:
        self.now = clock.now()
        settings = RelaySettings(
            addresses=(RelayAddress(bind=_ADDRESS),), port_min=PORTS[0], port_max=PORTS[1], max_calls=CALLS
        )
        self.plane = KernelPlane(settings, None, "bench")
        self.relay = RelayService(settings, self.plane, random.Random(1), now=lambda: self.now)

    async def call(self, number: int) -> None:
        """One call, talking. LabError if the relay refuses it."""
        tags = (Party(tag="a"), Party(tag="b"))
        phones = [Endpoint(f"127.{2 + side}.{number >> 8}.{number & 0xFF}", 4000) for side in (0, 1)]
        ports = []
        for side, phone in enumerate(phones):
            question = MediaRequest(
                call_id=f"{number}@bench.example.net", sender=tags[side], receiver=tags[1 - side], cseq=1,
                sdp_hash=str(side), status=200 * side,
                phone=PhoneAddress(endpoint=phone, known_by=KnownBy.SOURCE),
                streams=(Stream(kind="audio", transport="RTP/AVP", endpoint=phone, payload_types=_PCMU),),
            )  # fmt: skip
            reply = await self.relay.ask(question)
            if reply.error or reply.ports[0] is None:
                raise LabError(f"our relay: {reply.error}")
            ports.append(reply.ports[0])
        for phone, port in zip(phones, reversed(ports), strict=True):
            assert port.rtcp is not None
            self._learn(port.rtp, phone, _RTP)
            self._learn(port.rtcp, Endpoint(phone.address, 4001), _RTCP)

    def _learn(self, local: Endpoint, source: Endpoint, data: bytes) -> None:
        generation = self.plane._lent[local].flow.generation
        slot = SlotCounters(local=local, generation=generation)
        self.relay._packet(Packet(local=local, generation=generation, source=source, data=data, slot=slot))

    def second(self) -> None:
        """What the relay does in the next second: at each deadline, and the sweep."""
        end = self.now + 1.0
        while (deadline := self.relay.calls.deadline) is not None and deadline < end:
            self.now = max(self.now, deadline)
            self.relay._deadline_now()
        self.now = end
        assert self.relay._sweep is not None
        self.relay._sweep.cancel()
        self.relay._sweep_now()


_PCMU = (PayloadType(number=0, codec="PCMU", clock_rate=8000),)


async def measure() -> dict[str, float]:
    """All figures, of this process."""
    house = House()
    await house.relay.start()
    found = {}
    before, resident = time.process_time(), _resident()
    for number in range(CALLS):
        house.now += 0.005
        await house.call(number)
    found["set-up"] = CALLS / (time.process_time() - before)
    found["memory"] = (_resident() - resident) / CALLS
    collect_seldom()
    program = Program(house.plane)
    found["talking"] = _talking(house, program)
    found["sweep"] = _sweep(house, program)
    found["scrape"] = _scrape(house)
    assert len(house.relay.calls) == CALLS, "a call has ended meanwhile"
    house.relay._set_alarm(house.now)
    async with asyncio.timeout(60):  # sources that have become settled by the real clock: once for each, no idleness
        while house.plane._settling:
            await asyncio.sleep(0.5)
    before = time.process_time()
    await asyncio.sleep(IDLE_SECONDS)
    found["idle"] = (time.process_time() - before) / IDLE_SECONDS
    await house.relay.stop()
    return found


def _talking(house: House, program: Program) -> float:
    """Part of a core, after a first round in which all is new."""
    cpu = 0.0
    for second in range(2 * SECONDS):
        program.hear(house.now + 1.0, RATE)
        before = time.process_time()
        house.second()
        if second >= SECONDS:
            cpu += time.process_time() - before
    return cpu / SECONDS


def _sweep(house: House, program: Program) -> float:
    """Seconds."""
    took = []
    for _ in range(15):
        program.hear(house.now, RATE)
        before = time.process_time()
        carried = house.plane.carried()
        took.append(time.process_time() - before)
        assert carried.packets == 4 * CALLS * program._packets
    return median(took)


def _scrape(house: House) -> float:
    """Seconds."""
    took = []
    for _ in range(15):
        before = time.process_time()
        figures = relay_figures(house.relay, Chosen(house.plane, "in the kernel"))
        text = generate_latest(registry(Snapshot(version="", started=0.0, relay=figures), Chronicle()))
        took.append(time.process_time() - before)
        assert f'mediaproxy_calls{{state="talking"}} {CALLS}.0' in text.decode()
    return median(took)


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def run() -> Iterator[str]:
    """The lines."""
    spaces = Namespaces()
    try:
        space = spaces.add("sweep")
        with tempfile.TemporaryDirectory(prefix="mpbench-") as folder:
            argv = space.argv(sys.executable, "-m", "bench.sweep")
            done = subprocess.run(argv, capture_output=True, text=True, cwd=Path.cwd(), env=environment(TMPDIR=folder))
    finally:
        spaces.close()
    if done.returncode:
        raise LabError(f"the relay with {CALLS} calls: {done.stderr[-2000:]}")
    found = json.loads(done.stdout)
    yield alone(f"{CALLS} calls: set-up, kernel", found["set-up"], "calls/CPU s")
    yield alone(f"{CALLS} calls: memory", found["memory"] / 1024, "KiB/call")
    yield alone(f"{CALLS} calls: idle", 100 * found["idle"], "% of a core (< 3)")
    yield alone(f"{CALLS} calls: all talking", 100 * found["talking"], "% of a core")
    yield alone(f"sweep, {4 * CALLS} ports, all changed", 1000 * found["sweep"], "ms (< 10)")
    yield alone(f"{CALLS} calls: a scrape of metrics", 1000 * found["scrape"], "ms")


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        print(json.dumps(runner.run(measure())))
