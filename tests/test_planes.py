"""What every plane must do, over real sockets on loopback, in both event loops."""

import socket
import struct
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import nullcontext

import msgspec
import pytest
import pytest_asyncio

from mediaproxy import clock
from mediaproxy.endpoint import Endpoint
from tests.e2e.conftest import need
from tests.planebench import (
    PAIRS,
    PLANES,
    A,
    Bench,
    Phone,
    bench_of,
    can_have_network,
    free_port,
    own_network,
    ports_of,
    rtp,
    until,
)

pytestmark = [pytest.mark.usefixtures("no_leaks"), pytest.mark.both_loops]

KERNEL = pytest.param("kernel", marks=pytest.mark.e2e)


@pytest.fixture(scope="module", autouse=True)
def network() -> Iterator[None]:
    """Root has a network of its own for all of this, so that the kernel plane meets nobody."""
    with own_network() if can_have_network() else nullcontext():
        yield


@pytest_asyncio.fixture(params=["user", "native", KERNEL])
async def plane(request: pytest.FixtureRequest) -> str:
    if request.param == "kernel":
        need()
    name: str = request.param
    return name


@pytest_asyncio.fixture(params=list(PAIRS))
async def bench(request: pytest.FixtureRequest, plane: str) -> AsyncIterator[Bench]:
    pair = PAIRS[request.param]
    async with bench_of(PLANES[plane](), pair, ports_of(plane, pair)) as made:
        yield made


async def test_forwards_both_ways_and_counts(bench: Bench) -> None:
    began = clock.now()
    bench.install_call()
    for sequence in (1, 2, 3):
        bench.caller.send(rtp(sequence, ssrc=7, payload_type=0x80 | 8), bench.port_a)
        assert await bench.callee.hears() == (rtp(sequence, ssrc=7, payload_type=0x80 | 8), bench.port_b)
    between = clock.now()
    bench.callee.send(rtp(65535, ssrc=9), bench.port_b)
    assert await bench.caller.hears() == (rtp(65535, ssrc=9), bench.port_a)
    there, back = bench.counters()[bench.port_a], bench.counters()[bench.port_b]
    assert (there.local, there.generation, there.packets, there.bytes) == (bench.port_a, 1, 3, 516)
    assert (there.ssrc, there.sequence, there.payload_type) == (7, 3, 8)
    assert (back.packets, back.bytes, back.ssrc, back.sequence, back.payload_type) == (1, 172, 9, 65535, 0)
    assert began <= there.last <= between <= back.last <= clock.now()
    assert (there.undeliverable, there.dropped) == (0, 0)
    assert bench.passed.empty()


@pytest.mark.parametrize("size", [0, 1, 11, 12, 2000, 9000, 65507], ids=str)
async def test_any_size_is_carried_whole(bench: Bench, size: int) -> None:
    if size > 60000 and 6 in (bench.port_a.version, bench.port_b.version):
        size = 65487  # no fragments: in the kernel they are left to user space
    bench.install_call()
    data = bytes(size)
    bench.caller.send(data, bench.port_a)
    assert (await bench.callee.hears())[0] == data
    assert bench.counters()[bench.port_a].ssrc is None


async def test_rtcp_on_the_same_port_does_not_hide_the_stream(bench: Bench) -> None:
    bench.install_call()
    bench.caller.send(rtp(41, ssrc=7), bench.port_a)
    bench.caller.send(struct.pack("!BBHI", 0x80, 201, 1, 99).ljust(32, b"\0"), bench.port_a)
    await bench.callee.hears()
    await bench.callee.hears()
    counters = bench.counters()[bench.port_a]
    assert (counters.packets, counters.ssrc, counters.sequence) == (2, 7, 41)


async def test_what_is_not_from_the_source_is_passed_up_with_the_counters(bench: Bench) -> None:
    bench.install_call()
    stranger = Phone(bench.caller.endpoint.address)
    bench.caller.send(rtp(5, ssrc=7), bench.port_a)
    await bench.callee.hears()
    stranger.send(b"hello", bench.port_a)
    packet = await bench.passed_up()
    assert (packet.local, packet.generation, packet.source, packet.data) == (
        bench.port_a,
        1,
        stranger.endpoint,
        b"hello",
    )
    assert (packet.slot.packets, packet.slot.ssrc, packet.slot.sequence) == (1, 7, 5)
    assert clock.now() - 5 < packet.slot.last <= clock.now()
    bench.caller.send(rtp(6), bench.port_a)
    await bench.callee.hears()
    assert packet.slot.packets == 1, "a value that was handed out never changes"
    stranger.close()


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"target": None}, id="target not known"),
        pytest.param({"generation": 2}, id="peer of another generation"),
        pytest.param({"target": Endpoint("192.0.2.1", 0)}, id="port 0"),
        pytest.param({"target": Endpoint("255.255.255.255", 9)}, id="broadcast is refused by the kernel"),
    ],
)
async def test_nowhere_to_go_is_counted(bench: Bench, changes: dict[str, object]) -> None:
    bench.plane.install(bench.flow_a())
    bench.plane.install(msgspec.structs.replace(bench.flow_b(), **changes))
    bench.caller.send(rtp(8, ssrc=3), bench.port_a)
    await until(lambda: bench.counters()[bench.port_a].undeliverable == 1)
    counters = bench.counters()[bench.port_a]
    assert (counters.packets, counters.ssrc) == (0, 3)
    assert clock.now() - 5 < counters.last <= clock.now()
    assert bench.callee.queue.empty() and bench.passed.empty()


async def test_order_of_installation_does_not_matter_and_removal_unlinks(bench: Bench) -> None:
    bench.plane.install(bench.flow_b())
    bench.plane.install(bench.flow_a())
    bench.caller.send(b"one", bench.port_a)
    assert (await bench.callee.hears())[0] == b"one"
    bench.plane.remove(bench.port_b, 1)
    bench.caller.send(b"two", bench.port_a)
    await until(lambda: bench.counters()[bench.port_a].undeliverable == 1)
    bench.plane.install(bench.flow_b(2))
    bench.caller.send(b"three", bench.port_a)
    await until(lambda: bench.counters()[bench.port_a].undeliverable == 2)
    bench.plane.install(bench.flow_a(peer_generation=2))
    bench.caller.send(b"four", bench.port_a)
    assert (await bench.callee.hears())[0] == b"four"


async def test_a_relatch_moves_both_directions(bench: Bench) -> None:
    bench.install_call()
    moved = Phone(bench.caller.endpoint.address)
    bench.plane.install(bench.flow_a(source=moved.endpoint, target=moved.endpoint))
    moved.send(b"from the new port", bench.port_a)
    assert (await bench.callee.hears())[0] == b"from the new port"
    bench.callee.send(b"to the new port", bench.port_b)
    assert (await moved.hears())[0] == b"to the new port"
    bench.caller.send(b"from the old port", bench.port_a)
    assert (await bench.passed_up()).data == b"from the old port"
    moved.close()


async def test_what_lies_in_the_socket_is_not_heard_in_the_next_call(bench: Bench) -> None:
    bench.plane.install(bench.flow_a(source=None))
    bench.caller.send(b"stale", bench.port_a)  # in the queue: the loop has had no turn
    bench.plane.remove(bench.port_a, 1)
    bench.plane.install(bench.flow_a(2, source=None))
    bench.caller.send(b"stale too", bench.port_a)
    bench.plane.install(bench.flow_a(3, source=None))
    bench.caller.send(b"fresh", bench.port_a)
    packet = await bench.passed_up()
    assert (packet.generation, packet.data) == (3, b"fresh")
    assert bench.counters()[bench.port_a].generation == 3


@pytest.mark.parametrize("wrong", [0, 2], ids=["older", "unknown"])
async def test_removing_another_generation_does_nothing(bench: Bench, wrong: int) -> None:
    bench.install_call()
    bench.plane.remove(bench.port_a, wrong)
    bench.plane.remove(Endpoint("192.0.2.1", 4), 1)
    bench.caller.send(b"still here", bench.port_a)
    assert (await bench.callee.hears())[0] == b"still here"


async def test_a_flood_of_strangers_leaves_room_for_the_phone(bench: Bench) -> None:
    """The phone that is not learned yet is passed up although a stranger used up his share."""
    host = bench.caller.endpoint.address
    bench.plane.install(
        bench.flow_a(source=None, allowed=(f"{host}/{32 if bench.caller.endpoint.version == 4 else 128}",))
    )
    stranger = Phone("127.0.0.77") if bench.caller.endpoint.version == 4 else None
    began = time.monotonic()
    for _ in range(100 if stranger else 0):
        assert stranger is not None
        stranger.send(b"noise", bench.port_a)
    bench.caller.send(b"voice", bench.port_a)
    heard = [(await bench.passed_up()).data]
    while heard[-1] != b"voice":
        heard.append((await bench.passed_up()).data)
    if stranger:
        stranger.close()
    assert len(heard) <= 22 + 20 * (time.monotonic() - began), "20 at once, and 20 a second"


async def test_send_uses_the_lent_port(bench: Bench) -> None:
    bench.plane.install(bench.flow_a())
    bench.plane.send(bench.port_a, bench.caller.endpoint, b"early media")
    assert await bench.caller.hears() == (b"early media", bench.port_a)


@pytest.mark.parametrize(
    ("target", "data", "name"),
    [
        pytest.param("203.0.113.1:70000", b"x", "EINVAL", id="no port"),
        pytest.param("here:0", b"x", "EINVAL", id="port 0"),
        pytest.param("here:9", bytes(70000), "EMSGSIZE", id="too long"),
        pytest.param("other family:9", b"x", "no_socket", id="other family"),
    ],
)
async def test_what_the_network_refuses_is_counted(bench: Bench, target: str, data: bytes, name: str) -> None:
    bench.plane.install(bench.flow_a())
    host, _, port = target.rpartition(":")
    mine, other = ("::1", A) if bench.port_a.version == 6 else (A, "::1")
    where = {"here": mine, "other family": other}.get(host, mine)
    bench.plane.send(bench.port_a, Endpoint(where, int(port)), data)
    assert bench.plane.send_errors == {name: 1}


async def test_an_icmp_error_harms_nobody(bench: Bench) -> None:
    bench.install_call()
    closed = free_port(bench.callee.endpoint.address)
    bench.plane.install(bench.flow_b(target=closed))
    for _ in range(5):
        bench.caller.send(b"into the void", bench.port_a)
    await until(lambda: bench.counters()[bench.port_a].packets == 5)
    bench.plane.install(bench.flow_b())
    bench.caller.send(b"back", bench.port_a)
    assert (await bench.callee.hears())[0] == b"back"
    bench.callee.send(b"and forth", bench.port_b)
    assert (await bench.caller.hears())[0] == b"and forth"


async def test_tos_is_set_and_taken_back(bench: Bench) -> None:
    heard = socket.socket(socket.AF_INET6 if bench.port_a.version == 6 else socket.AF_INET, socket.SOCK_DGRAM)
    v6 = bench.port_a.version == 6
    heard.bind((bench.port_a.address, 0))
    heard.settimeout(30)
    if v6:
        heard.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVTCLASS, 1)
    else:
        heard.setsockopt(socket.IPPROTO_IP, socket.IP_RECVTOS, 1)
    target = Endpoint(*heard.getsockname()[:2])
    seen = []
    for generation, tos in enumerate((0xB8, 0x68, None)):
        bench.plane.install(bench.flow_a(generation, tos=tos))
        bench.plane.send(bench.port_a, target, b"x")
        _, ancillary, _, _ = heard.recvmsg(10, 64)
        seen.append(int.from_bytes(ancillary[0][2], "little"))
    heard.close()
    assert seen == [0xB8, 0x68, 0]
