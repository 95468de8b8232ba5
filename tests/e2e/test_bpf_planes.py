"""The packet table over planes as they are used: flows installed, datagrams from real sockets, what came where.

Only the rows that are ordinary datagrams: what a socket cannot send or see is for the kernel program alone.
"""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack

import pytest
import pytest_asyncio
from msgspec.structs import replace as change

from lab.netns import Namespace, Namespaces
from mediaproxy.endpoint import Endpoint
from mediaproxy.relay.flow import Flow, Packet, Plane
from mediaproxy.relay.kernel.plane import KernelPlane
from mediaproxy.relay.native import NativePlane
from mediaproxy.relay.packetpath import Verdict
from mediaproxy.relay.settings import RelayAddress, RelaySettings
from mediaproxy.relay.slots import Reason
from mediaproxy.relay.userspace import UserPlane
from tests.e2e.conftest import need
from tests.packets.table import ALICE, ALICE6, BOB, BOB6, RELAY4, RELAY6, STRANGER, TABLE, Row


def _kernel() -> Plane:
    addresses = (RelayAddress(bind=RELAY4), RelayAddress(bind=RELAY6))
    return KernelPlane(RelaySettings(addresses=addresses, port_min=20000, port_max=20062), None, "table")


PLANES: dict[str, Callable[[], Plane]] = {"user": UserPlane, "native": NativePlane, "kernel": _kernel}
"Every plane that runs on this host, by name."
ROWS = [row for row in TABLE if row.plain]
_ADDRESSES = (RELAY4, RELAY6, *(phone.address for phone in (ALICE, BOB, ALICE6, BOB6, STRANGER)))


class Bench:
    """A plane in a namespace that has every address of the table, and what it passed up."""

    def __init__(self, space: Namespace, make: Callable[[], Plane]) -> None:
        self.space = space
        self.passed: asyncio.Queue[Packet] = asyncio.Queue()
        with space.inside():
            self.plane = make()
            self.plane.start(self.passed.put_nowait)
        self.stack = ExitStack()

    def phone(self, at: Endpoint) -> socket.socket:
        """A bound socket that does not block."""
        sock = self.space.socket(socket.SOCK_DGRAM, socket.AF_INET if at.version == 4 else socket.AF_INET6)
        self.stack.callback(sock.close)
        sock.bind((at.address, at.port))
        sock.setblocking(False)
        return sock


@pytest_asyncio.fixture(params=list(PLANES))
async def bench(request: pytest.FixtureRequest) -> AsyncIterator[Bench]:
    need()
    spaces = Namespaces()
    try:
        space = spaces.add("plane")
        space.run("sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=0", "net.ipv6.conf.lo.disable_ipv6=0")
        space.ip(*(f"address add {a}/{'128 dev lo nodad' if ':' in a else '32 dev lo'}" for a in _ADDRESSES))
        built = Bench(space, PLANES[request.param])
        yield built
        built.stack.close()
        with space.inside():
            built.plane.close()
    finally:
        spaces.close()


async def test_the_table(bench: Bench) -> None:
    loop = asyncio.get_running_loop()
    for number, row in enumerate(ROWS):
        flows = [_anew(flow, number) for flow in row.flows]
        with bench.space.inside():
            for flow in flows:
                bench.plane.install(flow)
        talker = bench.phone(row.packet.source)
        listener = bench.phone(row.out.destination) if row.out is not None else None
        talker.sendto(row.packet.payload, (row.packet.destination.address, row.packet.destination.port))
        if listener is not None and row.out is not None:
            data, source = await asyncio.wait_for(loop.sock_recvfrom(listener, 2048), 10)
            assert data == row.out.payload, row.name
            assert source[:2] == (row.out.source.address, row.out.source.port), row.name
        elif row.verdict is Verdict.PASS:
            packet = await asyncio.wait_for(bench.passed.get(), 10)
            expected = (row.packet.destination, row.packet.source, row.packet.payload)
            assert (packet.local, packet.source, packet.data) == expected, row.name
        else:
            await dropped(bench, row)
        with bench.space.inside():
            for flow in flows:
                bench.plane.remove(flow.local, flow.generation)
        bench.stack.close()
    assert bench.passed.empty()


def _anew(flow: Flow, number: int) -> Flow:
    """The flow with a generation that no row before this one has used."""
    salt = 100_000 * number
    peer_generation = flow.peer_generation + salt if flow.peer_generation else 0
    return change(flow, generation=flow.generation + salt, peer_generation=peer_generation)


async def dropped(bench: Bench, row: Row) -> None:
    """Nothing was passed up, and what had nowhere to go is counted."""
    counts = row.reason is Reason.UNDELIVERABLE
    for _ in range(10_000 if counts else 100):
        await asyncio.sleep(0.001)
        counters = {slot.local: slot for slot in bench.plane.counters()}.get(row.packet.destination)
        undeliverable = counters.undeliverable if counters is not None else 0
        if undeliverable:
            break
    assert undeliverable == counts, row.name
    assert bench.passed.empty(), row.name
