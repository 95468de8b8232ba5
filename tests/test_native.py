"""The native plane over real sockets on loopback. What every plane must do: test_planes.py; its rules packet by packet:
test_native_packets.py."""

import asyncio
import gc
import os
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from mediaproxy.endpoint import Endpoint
from mediaproxy.relay import native
from mediaproxy.relay.bpf import FastPathUnavailable
from mediaproxy.relay.flow import Flow, Packet
from mediaproxy.relay.native import NativePlane
from tests.planebench import PAIRS, A, B, Bench, Phone, bench_of, free_port, rtp, until

pytestmark = [pytest.mark.usefixtures("no_leaks"), pytest.mark.both_loops]


@pytest.fixture(params=list(PAIRS))
async def bench(request: pytest.FixtureRequest) -> AsyncIterator[Bench]:
    pair = PAIRS[request.param]
    async with bench_of(NativePlane(max_sockets=64), pair, (free_port(pair[0]), free_port(pair[1]))) as made:
        yield made


@pytest.fixture
async def small() -> AsyncIterator[NativePlane]:
    plane = NativePlane(max_sockets=3)
    plane.start(lambda packet: None)
    yield plane
    plane.close()


async def test_a_port_that_is_not_lent_hears_nothing_and_is_lent_again(bench: Bench) -> None:
    bench.plane.install(bench.flow_a(source=None))
    bench.plane.remove(bench.port_a, 1)
    for number in range(500):
        bench.caller.send(b"stale %d" % number, bench.port_a)
    bench.plane.install(bench.flow_a(2, source=None))
    bench.caller.send(b"fresh", bench.port_a)
    packet = await bench.passed_up()
    assert (packet.generation, packet.data) == (2, b"fresh")
    assert isinstance(bench.plane, NativePlane) and bench.plane.sockets == 1, "lent again, not bound again"


async def test_strangers_are_counted_beyond_what_names_them(bench: Bench) -> None:
    """calls.md 13: a flood from outside ``allowed`` stops neither the call nor the loop."""
    bench.plane.install(bench.flow_a(allowed=("198.51.100.0/24", "2001:db8::/32")))
    bench.plane.install(bench.flow_b())
    stranger = Phone(bench.caller.endpoint.address)
    began = time.monotonic()
    for _ in range(60):
        for _ in range(5):
            stranger.send(rtp(), bench.port_a)
        bench.caller.send(b"voice", bench.port_a)
        assert (await bench.callee.hears())[0] == b"voice"
    await until(lambda: bench.counters()[bench.port_a].dropped + bench.passed.qsize() == 300)
    assert 20 <= bench.passed.qsize() <= 21 + 20 * (time.monotonic() - began)
    stranger.close()


async def test_loss_and_jitter_are_measured(bench: Bench) -> None:
    bench.plane.install(bench.flow_a(clocks=((0, 8000),)))
    bench.plane.install(bench.flow_b())
    for sequence in (1, 2, 4, 5, 9):
        bench.caller.send(rtp(sequence), bench.port_a)
        await bench.callee.hears()
    counters = bench.counters()[bench.port_a]
    assert (counters.rtp, counters.lost) == (5, 4)
    assert counters.jitter is not None and 0 < counters.jitter < 1, "they came at once, but say 20 ms"


async def test_a_sweep_leaves_out_what_is_no_news(bench: Bench) -> None:
    bench.install_call()
    assert not list(bench.plane.counters())
    bench.caller.send(rtp(), bench.port_a)
    await bench.callee.hears()
    assert [counters.local for counters in bench.plane.counters()] == [bench.port_a]
    assert not list(bench.plane.counters())
    assert list(bench.counters()) == [bench.port_a, bench.port_b], "who asks is told"


async def test_what_python_does_not_take_in_time_is_counted(bench: Bench) -> None:
    """The queue is bounded: forwarding goes on while Python does nothing."""
    bench.plane.install(bench.flow_a(source=None, allowed=()))
    size = 60000
    for _ in range(40):
        bench.caller.send(bytes(size), bench.port_a)
        time.sleep(0.005)  # Python does nothing, the threads do
    deadline = time.monotonic() + 30
    while not bench.counters()[bench.port_a].dropped and time.monotonic() < deadline:
        bench.caller.send(bytes(size), bench.port_a)
        time.sleep(0.005)
    dropped = bench.counters()[bench.port_a].dropped
    assert dropped
    while bench.passed.qsize() < 10:
        await asyncio.sleep(0)
    assert bench.passed.qsize() <= (1 << 20) // size + 1
    bench.caller.send(b"after that", bench.port_a)
    while (await bench.passed_up()).data != b"after that":
        pass


async def test_python_goes_on_while_threads_forward(bench: Bench) -> None:
    """They hold no GIL: packets are forwarded while Python computes."""
    bench.install_call()
    sender = bench.caller.socket
    for number in range(100):
        sender.sendto(b"%d" % number, (bench.port_a.address, bench.port_a.port))
    interval = sys.getswitchinterval()
    sys.setswitchinterval(60)
    try:
        deadline = time.monotonic() + 20
        while bench.counters()[bench.port_a].packets < 100 and time.monotonic() < deadline:
            pass
    finally:
        sys.setswitchinterval(interval)
    assert bench.counters()[bench.port_a].packets == 100
    for number in range(100):
        assert (await bench.callee.hears())[0] == b"%d" % number


@pytest.mark.parametrize("threads", [2, 3, 4])
async def test_threads_share_the_media_of_calls(threads: int) -> None:
    """A call binds ports in the order RTP, RTCP, RTP, RTCP: what is loud must not all be one thread's."""
    plane = NativePlane(threads=threads)
    plane.start(lambda packet: None)
    try:
        ports = [free_port(A) for _ in range(64)]
        for local in ports:
            plane.install(Flow(local=local, generation=1))
        served: Counter[int] = Counter()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            for local in ports[::2]:
                before = _woken(plane)
                sender.sendto(rtp(1), (local.address, local.port))
                await until(lambda before=before: _woken(plane) != before)  # type: ignore[misc]  # bound in the loop
                served.update(n for n, (now, then) in enumerate(zip(_woken(plane), before, strict=True)) if now != then)
        assert set(served) == set(range(threads)) and max(served.values()) - min(served.values()) <= 8, served
    finally:
        plane.close()


def _woken(plane: NativePlane) -> list[int]:
    """How often each thread has waited for packets."""
    found = []
    for thread in plane._running:
        status = Path(f"/proc/self/task/{thread.native_id}/status").read_text()
        found.append(int(status.split("voluntary_ctxt_switches:")[1].split()[0]))
    return found


# -- flows that change while packets come


class Talker:
    """A thread that sends the same number from a phone, until it is told another one."""

    def __init__(self, phone: Phone, to: Endpoint) -> None:
        self.number = self.said = 0
        self._sock, self._to = phone.socket.dup(), (to.address, to.port)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._talk)
        self._thread.start()

    def _talk(self) -> None:
        while not self._stopped.is_set():
            number = self.number
            self._sock.sendto(b"%d" % number, self._to)
            self.said = number
            time.sleep(0)

    async def says(self, number: int) -> None:
        """From now on it sends only this number."""
        self.number = number
        await until(lambda: self.said == number)

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()
        self._sock.close()


def check(heard: bytes, generation: int) -> None:
    """Call 1 has 1 and 2, call 2 has 3 and 4, and so on; callees take turns."""
    assert (int(heard) + 1) // 2 % 2 == generation % 2, "it was sent in the call before"


async def test_no_packet_of_one_call_is_heard_in_another(bench: Bench) -> None:
    """The same two ports go from call to call while the phone sends; each packet says when it was sent."""
    plane, callees = bench.plane, [Phone(bench.callee.endpoint.address) for _ in range(2)]
    talker = Talker(bench.caller, bench.port_a)
    try:
        for generation in range(1, 201):
            callee = callees[generation % 2]
            learned = generation % 5 != 0
            await talker.says(2 * generation - 1)
            plane.install(bench.flow_b(generation, source=callee.endpoint, target=callee.endpoint))
            plane.install(bench.flow_a(generation, source=bench.caller.endpoint if learned else None))
            talker.number += 1
            if not learned:
                packet = await bench.passed_up()
                assert packet.generation == generation == (int(packet.data) + 1) // 2
                plane.install(bench.flow_a(generation))
            for _ in range(3):
                check((await callee.hears())[0], generation)
            plane.remove(bench.port_a, generation)
            plane.remove(bench.port_b, generation)
            while not bench.passed.empty():
                bench.passed.get_nowait()
        for number, phone in enumerate(callees):
            while not phone.queue.empty():
                check(phone.queue.get_nowait()[0], number)
    finally:
        talker.stop()
        for phone in callees:
            phone.close()


async def test_a_target_that_changes_is_never_half_seen(bench: Bench) -> None:
    """Ten thousand changes under traffic: each packet goes to one of the two targets, and none is lost."""
    bench.install_call()
    other = Phone(bench.callee.endpoint.address)
    targets = (bench.flow_b(), bench.flow_b(target=other.endpoint))
    sent = 0

    def all_heard() -> bool:
        return bench.callee.queue.qsize() + other.queue.qsize() == sent

    for number in range(10_000):
        bench.plane.install(targets[number % 2])
        if number % 7 == 0:
            bench.caller.send(b"%d" % sent, bench.port_a)
            sent += 1
            if sent % 50 == 0:
                await until(all_heard)
    await until(all_heard)
    assert not bench.callee.queue.empty() and not other.queue.empty()
    assert bench.counters()[bench.port_a].undeliverable == 0 and bench.plane.send_errors == {}
    other.close()


# -- sockets


def _ports(number: int) -> Iterator[Endpoint]:
    for each in range(number):
        yield free_port(f"127.0.1.{each + 1}")


async def test_idle_sockets_make_room_oldest_first(small: NativePlane) -> None:
    one, two, three, four = _ports(4)
    for local in (one, two, three):
        small.install(Flow(local=local, generation=1))
    with pytest.raises(OSError, match=r"all 3 sockets are lent.*ulimit -n"):
        small.install(Flow(local=four, generation=1))
    small.remove(two, 1)
    small.remove(one, 1)
    small.install(Flow(local=four, generation=1))
    assert small.sockets == 3
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind((two.address, two.port))  # given back: it was idle longest


async def test_a_busy_port_and_a_wrong_one_are_named(small: NativePlane) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind((A, 0))
        local = Endpoint(*taken.getsockname())
        with pytest.raises(OSError, match=f"{local}: Address already in use"):
            small.install(Flow(local=local, generation=1))
    with pytest.raises(OSError, match=r"70000 is not in 0\.\.65535"):
        small.install(Flow(local=local, generation=1, target=Endpoint(A, 70000)))
    assert small.sockets == 0
    small.install(Flow(local=local, generation=1))
    assert [counters.local for counters in small.counters([local])] == [local]


async def test_a_socket_is_closed_under_traffic_without_harm() -> None:
    """Each port is bound anew, because there is room for two only; strangers' files are never written to."""
    plane = NativePlane(max_sockets=2)
    plane.start(lambda packet: None)
    phones = Phone(A), Phone(B)
    stop = threading.Event()
    places = [free_port(A) for _ in range(8)]

    def spray() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.bind((A, 0))
            source.append(Endpoint(*sock.getsockname()))
            while not stop.is_set():
                for place in places:
                    sock.sendto(rtp(), (place.address, place.port))

    source: list[Endpoint] = []
    talker = threading.Thread(target=spray)
    talker.start()
    try:
        await until(lambda: bool(source))
        for generation in range(1, 300):
            one, two = places[generation % 4], places[4 + generation % 4]
            target = phones[1].endpoint
            plane.install(
                Flow(local=one, generation=generation, peer=two, peer_generation=generation, source=source[0])
            )
            plane.install(Flow(local=two, generation=generation, peer=one, peer_generation=generation, target=target))
            ends = os.pipe()
            await asyncio.sleep(0.001)
            os.set_blocking(ends[0], False)
            with pytest.raises(BlockingIOError):
                os.read(ends[0], 1)
            for end in ends:
                os.close(end)
            plane.remove(one, generation)
            plane.remove(two, generation)
        heard = Counter(source for _, source in phones[1].queue._queue)  # type: ignore[attr-defined]  # all at once
        assert heard.keys() <= set(places[4:])
    finally:
        stop.set()
        talker.join()
        plane.close()
        for phone in phones:
            phone.close()


async def test_ten_thousand_lendings_leave_nothing_behind() -> None:
    plane = NativePlane(max_sockets=16)
    passed: list[Packet] = []
    plane.start(passed.append)
    ports = list(_ports(4))
    phone = Phone(A)
    try:
        after_warm_up = 0
        for generation in range(1, 10_001):
            local, peer = ports[generation % 4], ports[(generation + 1) % 4]
            plane.install(Flow(local=local, generation=generation, peer=peer, target=phone.endpoint))
            phone.send(b"x", local)
            plane.remove(local, generation)
            if generation == 2000:
                gc.collect()
                after_warm_up = _resident()
            if generation % 200 == 0:
                await asyncio.sleep(0)
                passed.clear()
        gc.collect()
        assert _resident() - after_warm_up < 4 << 20
        assert plane.sockets == 4
        assert len(os.listdir("/proc/self/fd")) < 200
    finally:
        plane.close()
        phone.close()


async def test_planes_come_and_go() -> None:
    before = _resident()
    for _ in range(30):
        plane = NativePlane(max_sockets=64)
        plane.start(lambda packet: None)
        plane.install(Flow(local=free_port(A), generation=1))
        plane.close()
        plane.close()
    assert threading.active_count() < 5
    assert _resident() - before < 16 << 20


def _resident() -> int:
    """Bytes of this process in memory."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def test_a_limit_of_processes_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """A container may have many cores and few processes; what has begun is ended."""
    begin = threading.Thread.start

    def start(thread: threading.Thread) -> None:
        if thread.name == "media-2":
            raise RuntimeError("can't start new thread")
        begin(thread)

    monkeypatch.setattr(threading.Thread, "start", start)
    plane = NativePlane(threads=4)
    with pytest.raises(OSError, match="only 2 of 4 threads can be started: raise the limit of processes"):
        plane.start(lambda packet: None)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("media-")]
    plane.close()


async def test_many_slots_are_swept_quickly() -> None:
    plane = NativePlane(max_sockets=2000)
    plane.start(lambda packet: None)
    try:
        for port in range(20000, 21000):
            plane.install(Flow(local=Endpoint("127.0.2.1", port), generation=1))
        began = time.process_time()
        assert not list(plane.counters())
        assert time.process_time() - began < 1, "it takes less than a millisecond"
    finally:
        plane.close()


async def test_counters_after_the_end_are_none() -> None:
    plane = NativePlane(max_sockets=4)
    plane.start(lambda packet: None)
    local = free_port(A)
    plane.install(Flow(local=local, generation=1))
    plane.close()
    assert not list(plane.counters()) and not list(plane.counters([local])) and plane.send_errors == {}


# -- what is compiled


async def test_another_layout_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    real = native.extension()
    monkeypatch.setattr(real, "layout", lambda: [("config", "source", 0, 4)])
    with pytest.raises(FastPathUnavailable, match="of another version"):
        NativePlane()


async def test_an_installation_without_a_compiler_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mediaproxy.relay.fastpath", None)
    monkeypatch.delattr("mediaproxy.relay.fastpath", raising=False)
    with pytest.raises(FastPathUnavailable, match="could not be compiled"):
        NativePlane()
