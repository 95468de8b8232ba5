"""What only the kernel plane does: no descriptor per port, settled sources, floods, packets of earlier lendings."""

import asyncio
import os
import socket
import time
from collections.abc import AsyncIterator, Iterator

import msgspec
import pytest

from mediaproxy import clock
from mediaproxy.endpoint import Endpoint
from mediaproxy.relay.flow import Flow
from mediaproxy.relay.kernel.plane import KernelPlane
from mediaproxy.relay.slots import Reason
from tests.e2e.conftest import need
from tests.planebench import (
    PAIRS,
    A,
    B,
    Bench,
    Phone,
    bench_of,
    kernel_plane,
    kernel_settings,
    own_network,
    ports_of,
    rtp,
    until,
)

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("no_leaks"), pytest.mark.both_loops]


@pytest.fixture(scope="module", autouse=True)
def network() -> Iterator[None]:
    need()
    with own_network():
        yield


@pytest.fixture(params=list(PAIRS))
async def bench(request: pytest.FixtureRequest) -> AsyncIterator[Bench]:
    pair = PAIRS[request.param]
    async with bench_of(kernel_plane(), pair, ports_of("kernel", pair)) as made:
        yield made


@pytest.fixture
async def one() -> AsyncIterator[Bench]:
    """IPv4 only."""
    async with bench_of(kernel_plane(), PAIRS["v4"], ports_of("kernel", PAIRS["v4"])) as made:
        yield made


def totals(bench: Bench) -> dict[str, int]:
    """Packets by reason; without those of the start, with which the relay tries whether it is reached."""
    assert isinstance(bench.plane, KernelPlane)
    counted = bench.plane.totals()
    counted[Reason.UP] -= len(bench.plane._settings.addresses)
    return {reason.name: count for reason, count in counted.items() if count}


async def test_no_packet_of_a_learned_stream_comes_to_the_process(bench: Bench) -> None:
    bench.install_call()
    for sequence in range(50):
        bench.caller.send(rtp(sequence), bench.port_a)
        bench.callee.send(rtp(sequence), bench.port_b)
        await bench.callee.hears()
        await bench.caller.hears()
    assert totals(bench) == {"FORWARDED": 100} and bench.passed.empty()


async def test_loss_and_jitter(one: Bench) -> None:
    """The third packet is lost, the clock is that of the SDP."""
    for generation in range(1, 6):  # the machine may do something else between two packets
        one.plane.install(one.flow_a(generation, clocks=((0, 8000),)))
        one.plane.install(one.flow_b(generation))
        for sequence in (1, 2, 4, 5):
            one.caller.send(rtp(sequence), one.port_a)
            await one.callee.hears()
        counters = one.counters()[one.port_a]
        assert (counters.rtp, counters.lost) == (4, 1)
        if counters.jitter is not None and 0.0 < counters.jitter < 0.02:
            break
    assert counters.jitter is not None and 0.0 < counters.jitter < 0.02, "60 ms and 20 ms of timestamps in no time"


async def test_a_sweep_tells_news_only(one: Bench) -> None:
    one.install_call()
    assert list(one.plane.counters()) == []
    one.caller.send(rtp(1), one.port_a)
    await one.callee.hears()
    assert [counters.local for counters in one.plane.counters()] == [one.port_a]
    assert list(one.plane.counters()) == []
    assert [c.packets for c in one.plane.counters([one.port_a, one.port_b, Endpoint(A, 9)])] == [1, 0]


async def test_a_settled_source_is_left_only_for_a_new_port_of_its_own(one: Bench) -> None:
    """calls.md 6 and 13: others of the same address are told at the rate of strangers."""
    settled = clock.now() - 1.0
    one.plane.install(one.flow_a(allowed=(f"{A}/32",), settled_at=settled))
    one.plane.install(one.flow_b())
    neighbour, began = Phone(A), time.monotonic()
    for sequence in range(1, 101):
        one.caller.send(rtp(sequence, ssrc=7), one.port_a)
        await one.callee.hears()
        neighbour.send(rtp(sequence + 1000, ssrc=666), one.port_a)
    await until(lambda: totals(one).get("REFUSED", 0) + one.passed.qsize() == 100)
    assert 20 <= one.passed.qsize() <= 21 + 20 * (time.monotonic() - began)
    while not one.passed.empty():
        one.passed.get_nowait()
    neighbour.send(rtp(101, ssrc=7), one.port_a)
    assert (await one.passed_up()).source == neighbour.endpoint, "the same stream goes on from another port"
    neighbour.close()


async def test_a_source_settles_by_itself(one: Bench) -> None:
    """Until then a better one may come at any time."""
    settled_at = clock.now() + 2.0
    one.plane.install(one.flow_a(allowed=(f"{A}/32",), settled_at=settled_at))
    one.plane.install(one.flow_b())
    assert isinstance(one.plane, KernelPlane)
    lent = one.plane._lent

    def settled() -> bool:
        return lent[one.port_a].settled

    one.caller.send(rtp(1), one.port_a)
    await one.callee.hears()
    better = Phone(A)
    for _ in range(50):
        better.send(rtp(1, ssrc=3), one.port_a)
    for _ in range(50):
        await one.passed_up()
    assert not settled() or clock.now() >= settled_at
    async with asyncio.timeout(30):
        while not settled():
            await asyncio.sleep(0.05)
    better.close()


async def test_a_flood_of_strangers_costs_the_process_little(one: Bench) -> None:
    one.plane.install(one.flow_a(allowed=("198.51.100.0/24",)))
    one.plane.install(one.flow_b())
    stranger, began = Phone(B), time.monotonic()
    for number in range(2000):
        stranger.send(b"noise", one.port_a)
        if number % 100 == 0:
            one.caller.send(b"voice", one.port_a)
            assert (await one.callee.hears())[0] == b"voice"
    await until(lambda: one.counters()[one.port_a].dropped + one.passed.qsize() >= 2000)
    assert one.passed.qsize() <= 21 + 20 * (time.monotonic() - began)
    (told,) = {packet.source for packet in one.passed._queue}  # type: ignore[attr-defined]  # what it holds
    assert told == stranger.endpoint
    stranger.close()


async def test_a_port_that_is_not_lent_is_silent(one: Bench) -> None:
    """Nobody hears from us, not even an ICMP error, and no other program gets the packet."""
    prober = Phone(B)
    prober.socket.connect((one.port_a.address, one.port_a.port))
    for _ in range(3):
        prober.socket.send(b"anybody?")
        await asyncio.sleep(0.01)
    assert totals(one) == {"NOT_LENT": 3} and one.passed.empty()
    prober.close()


async def test_a_port_of_another_program_is_not_lent(one: Bench) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind((A, one.port_a.port))
        with pytest.raises(OSError, match="Address already in use"):
            one.plane.install(one.flow_a())
        assert list(one.plane.counters([one.port_a])) == []
    one.install_call()


async def test_another_program_that_binds_a_lent_port_hears_nothing(one: Bench) -> None:
    one.plane.install(one.flow_a(source=None))
    assert isinstance(one.plane, KernelPlane)
    one.plane._sender.release(one.port_a)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as late:
        late.bind((A, one.port_a.port))
        late.setblocking(False)
        one.caller.send(b"for the relay", one.port_a)
        assert (await one.passed_up()).data == b"for the relay"
        with pytest.raises(BlockingIOError):
            late.recv(100)


async def test_ports_outside_the_range(one: Bench) -> None:
    for local in (Endpoint(A, 9), Endpoint("127.0.0.5", 20000)):
        with pytest.raises(OSError, match="not in the port range of this relay"):
            one.plane.install(Flow(local=local, generation=1))


async def test_a_port_lent_anew_never_counts_for_the_old_call(one: Bench) -> None:
    one.install_call()
    for sequence in range(5):
        one.caller.send(rtp(sequence), one.port_a)
        await one.callee.hears()
    one.plane.install(one.flow_a(2, peer_generation=1))
    assert one.counters()[one.port_a].packets == 0
    one.caller.send(rtp(9), one.port_a)
    await one.callee.hears()
    assert (one.counters()[one.port_a].generation, one.counters()[one.port_a].packets) == (2, 1)
    one.callee.send(rtp(1), one.port_b)  # whose peer is the port of before
    await until(lambda: one.counters()[one.port_b].undeliverable == 1)
    assert one.caller.queue.empty()


async def test_forty_thousand_ports_need_no_descriptors() -> None:
    """10 000 calls with RTP and RTCP, each of them learned."""
    plane = KernelPlane(kernel_settings(port_min=16384, port_max=60000), None, "many")
    caller, callee = Phone(B), Phone(B)
    passed: list[object] = []
    plane.start(passed.append)
    before = len(os.listdir("/proc/self/fd"))
    try:
        flows = [
            Flow(
                local=Endpoint(A, 16384 + number),
                generation=number + 1,
                peer=Endpoint(A, 16384 + (number ^ 1)),
                peer_generation=(number ^ 1) + 1,
                source=(caller if number % 2 == 0 else callee).endpoint,
                target=(caller if number % 2 == 0 else callee).endpoint,
            )
            for number in range(40_000)
        ]
        for number, flow in enumerate(flows):
            plane.install(flow)
            if number % 1000 == 0:
                await asyncio.sleep(0)
        assert len(os.listdir("/proc/self/fd")) - before <= 520
        for number in (0, 20_000, 39_998):
            local, peer = flows[number].local, flows[number + 1].local
            caller.send(rtp(number), local)
            assert await callee.hears() == (rtp(number), peer)
        list(plane.counters())
        costs = []
        for _ in range(5):
            began = time.process_time()
            assert list(plane.counters()) == []
            costs.append(time.process_time() - began)
        assert min(costs) < 0.03
        assert plane.totals()[Reason.FORWARDED] == 3 and passed == []
        changed = msgspec.structs.replace(flows[0], tos=0xB8)
        plane.install(changed)
        for flow in flows[:100]:
            plane.remove(flow.local, flow.generation)
    finally:
        plane.close()
        caller.close()
        callee.close()
