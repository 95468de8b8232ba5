"""The user-space plane over real sockets on loopback, in both event loops."""

import asyncio
import errno
import socket
import struct
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field

import msgspec
import pytest

from mediaproxy.endpoint import Endpoint
from mediaproxy.relay.flow import Flow, Packet, SlotCounters
from mediaproxy.relay.userspace import UserPlane

pytestmark = [pytest.mark.usefixtures("no_leaks"), pytest.mark.both_loops]

A, B = "127.0.0.1", "127.0.0.9"
"Where the relay's ports that face the caller and the callee are bound."


def rtp(sequence: int = 1, ssrc: int = 0xCAFE, payload_type: int = 0, size: int = 172) -> bytes:
    return struct.pack("!BBHII", 0x80, payload_type, sequence, sequence * 160, ssrc).ljust(size, b"\x55")


def free_port(address: str) -> Endpoint:
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind((address, 0))
        return Endpoint(address, probe.getsockname()[1])


class Phone:
    """A socket that sends and remembers what it hears."""

    def __init__(self, address: str) -> None:
        self.socket = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.setblocking(False)
        self.socket.bind((address, 0))
        self.endpoint = Endpoint(*self.socket.getsockname()[:2])
        self.queue: asyncio.Queue[tuple[bytes, Endpoint]] = asyncio.Queue()
        asyncio.get_running_loop().add_reader(self.socket, self._readable)

    def _readable(self) -> None:
        data, source = self.socket.recvfrom(65536)
        self.queue.put_nowait((data, Endpoint(*source[:2])))

    def send(self, data: bytes, to: Endpoint) -> None:
        self.socket.sendto(data, (to.address, to.port))

    async def hears(self) -> tuple[bytes, Endpoint]:
        return await asyncio.wait_for(self.queue.get(), 5)

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self.socket)
        self.socket.close()


@dataclass
class Bench:
    """A plane, two phones and a list of what was passed up."""

    plane: UserPlane
    caller: Phone
    callee: Phone
    port_a: Endpoint
    port_b: Endpoint
    now: list[float]
    passed: "asyncio.Queue[Packet]" = field(default_factory=asyncio.Queue)

    async def passed_up(self) -> Packet:
        return await asyncio.wait_for(self.passed.get(), 5)

    def counters(self) -> dict[Endpoint, SlotCounters]:
        return {counters.local: counters for counters in self.plane.counters()}

    def flow_a(self, generation: int = 1, **changes: object) -> Flow:
        phone = self.caller.endpoint
        flow = Flow(local=self.port_a, generation=generation, peer=self.port_b, source=phone, target=phone)
        return msgspec.structs.replace(flow, **({"peer_generation": generation} | changes))

    def flow_b(self, generation: int = 1, **changes: object) -> Flow:
        phone = self.callee.endpoint
        flow = Flow(local=self.port_b, generation=generation, peer=self.port_a, source=phone, target=phone)
        return msgspec.structs.replace(flow, **({"peer_generation": generation} | changes))

    def install_call(self, generation: int = 1) -> None:
        self.plane.install(self.flow_a(generation))
        self.plane.install(self.flow_b(generation))


@pytest.fixture(params=["v4", "v6", "v4 to v6"])
async def bench(request: pytest.FixtureRequest) -> AsyncIterator[Bench]:
    near, far = {"v4": (A, B), "v6": ("::1", "::1"), "v4 to v6": (A, "::1")}[request.param]
    clock = [1000.0]
    plane = UserPlane(now=lambda: clock[0])
    caller, callee = Phone(near), Phone(far)
    made = Bench(plane, caller, callee, free_port(near), free_port(far), clock)
    plane.start(made.passed.put_nowait)
    yield made
    plane.close()
    plane.close()
    caller.close()
    callee.close()


async def test_forwards_both_ways_and_counts(bench: Bench) -> None:
    bench.install_call()
    for sequence in (1, 2, 3):
        bench.caller.send(rtp(sequence, ssrc=7, payload_type=0x80 | 8), bench.port_a)
        assert await bench.callee.hears() == (rtp(sequence, ssrc=7, payload_type=0x80 | 8), bench.port_b)
    bench.now[0] = 1001.5
    bench.callee.send(rtp(65535, ssrc=9), bench.port_b)
    assert await bench.caller.hears() == (rtp(65535, ssrc=9), bench.port_a)
    assert bench.counters() == {
        bench.port_a: SlotCounters(
            local=bench.port_a, generation=1, packets=3, bytes=516, last=1000.0, ssrc=7, sequence=3, payload_type=8
        ),
        bench.port_b: SlotCounters(
            local=bench.port_b, generation=1, packets=1, bytes=172, last=1001.5, ssrc=9, sequence=65535, payload_type=0
        ),
    }
    assert bench.passed.empty()


@pytest.mark.parametrize("size", [0, 1, 11, 12, 2000, 9000, 65507], ids=str)
async def test_any_size_is_carried_whole(bench: Bench, size: int) -> None:
    if size > 60000 and bench.port_a.version == 4 and bench.port_b.version == 6:
        size = 65487
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
    assert (packet.slot.packets, packet.slot.ssrc, packet.slot.sequence, packet.slot.last) == (1, 7, 5, 1000.0)
    bench.caller.send(rtp(6), bench.port_a)
    await bench.callee.hears()
    assert packet.slot.packets == 1, "a value that was handed out never changes"
    stranger.close()


async def test_sweep_hands_out_the_same_value_while_nothing_happens(bench: Bench) -> None:
    bench.install_call()
    first, again = list(bench.plane.counters()), list(bench.plane.counters())
    assert all(one is other for one, other in zip(first, again, strict=True))


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
    await _until(lambda: bench.counters()[bench.port_a].undeliverable == 1)
    counters = bench.counters()[bench.port_a]
    assert (counters.packets, counters.last, counters.ssrc) == (0, 1000.0, 3)
    assert bench.callee.queue.empty() and bench.passed.empty()


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0)


async def test_order_of_installation_does_not_matter_and_removal_unlinks(bench: Bench) -> None:
    bench.plane.install(bench.flow_b())
    bench.plane.install(bench.flow_a())
    bench.caller.send(b"one", bench.port_a)
    assert (await bench.callee.hears())[0] == b"one"
    bench.plane.remove(bench.port_b, 1)
    bench.caller.send(b"two", bench.port_a)
    await _until(lambda: bench.counters()[bench.port_a].undeliverable == 1)
    bench.plane.install(bench.flow_b(2))
    bench.caller.send(b"three", bench.port_a)
    await _until(lambda: bench.counters()[bench.port_a].undeliverable == 2)
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
    assert bench.plane.sockets == 1, "lent again, not bound again"


def _queued(local: Endpoint) -> int:
    """Bytes in the receive queue of a bound UDP socket, as the kernel tells."""
    name = "udp6" if local.version == 6 else "udp"
    with open(f"/proc/net/{name}", encoding="ascii") as table:
        for line in table:
            columns = line.split()
            if columns[1].endswith(f":{local.port:04X}"):
                return int(columns[4].partition(":")[2], 16)
    raise AssertionError(f"{local} is not bound")


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


async def test_strangers_are_counted_beyond_what_names_them(bench: Bench) -> None:
    """calls.md 13: a flood from outside ``allowed`` stops neither the call nor the loop."""
    bench.plane.install(bench.flow_a(allowed=("198.51.100.0/24", "2001:db8::/32")))
    bench.plane.install(bench.flow_b())
    stranger = Phone(bench.caller.endpoint.address)
    for _ in range(60):
        for _ in range(5):
            stranger.send(rtp(), bench.port_a)
        bench.caller.send(b"voice", bench.port_a)
        assert (await bench.callee.hears())[0] == b"voice"
    await _until(lambda: bench.counters()[bench.port_a].dropped == 280)
    assert bench.passed.qsize() == 20
    bench.now[0] += 0.5
    stranger.send(b"later", bench.port_a)
    await _until(lambda: bench.passed.qsize() == 21)
    stranger.close()


async def test_a_flood_of_strangers_leaves_room_for_the_phone(bench: Bench) -> None:
    """The phone that is not learned yet is passed up although a stranger used up his share."""
    host = bench.caller.endpoint.address
    bench.plane.install(
        bench.flow_a(source=None, allowed=(f"{host}/{32 if bench.caller.endpoint.version == 4 else 128}",))
    )
    stranger = Phone("127.0.0.77") if bench.caller.endpoint.version == 4 else None
    for _ in range(100 if stranger else 0):
        assert stranger is not None
        stranger.send(b"noise", bench.port_a)
    bench.caller.send(b"voice", bench.port_a)
    heard = [(await bench.passed_up()).data]
    while heard[-1] != b"voice":
        heard.append((await bench.passed_up()).data)
    assert len(heard) <= 21
    if stranger:
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
    await _until(lambda: bench.counters()[bench.port_a].packets == 5)
    bench.plane.install(bench.flow_b())
    bench.caller.send(b"back", bench.port_a)
    assert (await bench.callee.hears())[0] == b"back"
    bench.callee.send(b"and forth", bench.port_b)
    assert (await bench.caller.hears())[0] == b"and forth"


async def test_tos_is_set_and_taken_back(bench: Bench) -> None:
    heard = socket.socket(socket.AF_INET6 if bench.port_a.version == 6 else socket.AF_INET, socket.SOCK_DGRAM)
    v6 = bench.port_a.version == 6
    heard.bind((bench.port_a.address, 0))
    heard.settimeout(5)
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
    monkeypatch.setattr("mediaproxy.relay.userspace.raise_file_limit", lambda: files)
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
        loop = asyncio.get_running_loop()
        began = loop.time()
        assert len(list(plane.counters())) == 1000
        assert loop.time() - began < 0.05
    finally:
        plane.close()
