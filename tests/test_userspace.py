"""The user-space plane over real sockets on loopback, in both event loops. What every plane must do: test_planes.py."""

import asyncio
import errno
import socket
import time
from collections.abc import AsyncIterator, Iterator

import pytest

from mediaproxy.endpoint import Endpoint
from mediaproxy.relay.flow import Flow
from mediaproxy.relay.userspace import UserPlane
from tests.planebench import PAIRS, A, Bench, Phone, bench_of, free_port, rtp, until

pytestmark = [pytest.mark.usefixtures("no_leaks"), pytest.mark.both_loops]


@pytest.fixture
def now() -> list[float]:
    """The plane's clock."""
    return [1000.0]


@pytest.fixture(params=list(PAIRS))
async def bench(request: pytest.FixtureRequest, now: list[float]) -> AsyncIterator[Bench]:
    pair = PAIRS[request.param]
    ports = free_port(pair[0]), free_port(pair[1])
    async with bench_of(UserPlane(now=lambda: now[0]), pair, ports) as made:
        yield made


async def test_sweep_hands_out_the_same_value_while_nothing_happens(bench: Bench) -> None:
    bench.install_call()
    first, again = list(bench.plane.counters()), list(bench.plane.counters())
    assert all(one is other for one, other in zip(first, again, strict=True))


async def test_a_port_that_is_not_lent_hears_nothing_and_keeps_nothing(bench: Bench) -> None:
    bench.plane.install(bench.flow_a(source=None))
    bench.plane.remove(bench.port_a, 1)
    for number in range(500):
        bench.caller.send(b"stale %d" % number, bench.port_a)
    assert _queued(bench.port_a) == 0, "the filter stands: nothing takes kernel memory"
    bench.plane.install(bench.flow_a(2, source=None))
    bench.caller.send(b"fresh", bench.port_a)
    packet = await bench.passed_up()
    assert (packet.generation, packet.data) == (2, b"fresh")
    assert isinstance(bench.plane, UserPlane) and bench.plane.sockets == 1, "lent again, not bound again"


def _queued(local: Endpoint) -> int:
    """Bytes in the receive queue of a bound UDP socket, as the kernel tells."""
    name = "udp6" if local.version == 6 else "udp"
    with open(f"/proc/net/{name}", encoding="ascii") as table:
        for line in table:
            columns = line.split()
            if columns[1].endswith(f":{local.port:04X}"):
                return int(columns[4].partition(":")[2], 16)
    raise AssertionError(f"{local} is not bound")


async def test_strangers_are_counted_beyond_what_names_them(bench: Bench, now: list[float]) -> None:
    """calls.md 13: a flood from outside ``allowed`` stops neither the call nor the loop."""
    bench.plane.install(bench.flow_a(allowed=("198.51.100.0/24", "2001:db8::/32")))
    bench.plane.install(bench.flow_b())
    stranger = Phone(bench.caller.endpoint.address)
    for _ in range(60):
        for _ in range(5):
            stranger.send(rtp(), bench.port_a)
        bench.caller.send(b"voice", bench.port_a)
        assert (await bench.callee.hears())[0] == b"voice"
    await until(lambda: bench.counters()[bench.port_a].dropped == 280)
    assert bench.passed.qsize() == 20
    now[0] += 0.5
    stranger.send(b"later", bench.port_a)
    await until(lambda: bench.passed.qsize() == 21)
    stranger.close()


async def test_one_turn_of_the_loop_is_bounded(bench: Bench) -> None:
    """However much lies in the sockets, the loop gets its turn after one packet per port."""
    bench.install_call()
    for number in range(50):
        bench.caller.send(b"%d" % number, bench.port_a)
    turns = 0
    while bench.counters()[bench.port_a].packets < 50:
        await asyncio.sleep(0)
        turns += 1
        assert turns < 10000
    assert turns >= 50


# -- how many sockets


@pytest.fixture
async def small() -> AsyncIterator[UserPlane]:
    plane = UserPlane(max_sockets=3)
    plane.start(lambda packet: None)
    yield plane
    plane.close()


def _ports(count: int) -> Iterator[Endpoint]:
    for number in range(count):
        yield free_port(f"127.0.1.{number + 1}")


async def test_idle_sockets_make_room_oldest_first(small: UserPlane) -> None:
    one, two, three, four = _ports(4)
    for local in (one, two, three):
        small.install(Flow(local=local, generation=1))
    with pytest.raises(OSError, match=r"all 3 sockets are lent.*ulimit -n") as caught:
        small.install(Flow(local=four, generation=1))
    assert caught.value.errno == errno.EMFILE
    small.remove(two, 1)
    small.remove(one, 1)
    small.install(Flow(local=four, generation=1))
    assert small.sockets == 3
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind((two.address, two.port))  # given back: it was idle longest
    with (
        pytest.raises(OSError, match="Address already in use"),
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe,
    ):
        probe.bind((one.address, one.port))


@pytest.mark.parametrize(("files", "calls"), [(1024, 128), (300, 37), (65536, None)], ids=str)
async def test_a_low_limit_of_open_files_is_told(
    files: int, calls: int | None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("mediaproxy.relay.lending.raise_file_limit", lambda: files)
    plane = UserPlane()
    plane.start(lambda packet: None)
    plane.close()
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == (calls is not None)
    assert calls is None or f"({files}) allows {calls} calls" in told[0]


async def test_a_busy_port_is_named(small: UserPlane) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind((A, 0))
        local = Endpoint(*taken.getsockname())
        with pytest.raises(OSError, match=f"{local}: Address already in use") as caught:
            small.install(Flow(local=local, generation=1))
        assert caught.value.errno == errno.EADDRINUSE
    small.install(Flow(local=local, generation=1))
    assert [counters.local for counters in small.counters()] == [local]


async def test_an_address_of_another_host_is_named(small: UserPlane) -> None:
    with pytest.raises(OSError, match=r"192\.0\.2\.1:4000: Cannot assign"):
        small.install(Flow(local=Endpoint("192.0.2.1", 4000), generation=1))
    assert small.sockets == 0


async def test_many_slots_are_swept_quickly(small: UserPlane) -> None:
    plane = UserPlane(max_sockets=2000)
    plane.start(lambda packet: None)
    try:
        for port in range(20000, 21000):
            plane.install(Flow(local=Endpoint("127.0.2.1", port), generation=1))
        list(plane.counters())
        began = time.process_time()
        assert len(list(plane.counters())) == 1000
        assert time.process_time() - began < 1, "it takes about two milliseconds"
    finally:
        plane.close()
