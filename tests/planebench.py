"""A plane, two phones with real sockets, and what was passed up: for tests that every plane must pass.

The kernel plane takes every packet to its ports in the whole network namespace, so it gets one of its own.
"""

import asyncio
import os
import socket
import struct
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from itertools import count

import msgspec

from lab.netns import Namespace, Namespaces
from lab.site import missing
from mediaproxy.endpoint import Endpoint
from mediaproxy.relay.flow import Flow, Packet, SlotCounters
from mediaproxy.relay.kernel.plane import KernelPlane
from mediaproxy.relay.native import NativePlane
from mediaproxy.relay.settings import RelayAddress, RelaySettings
from mediaproxy.relay.userspace import UserPlane

A, B = "127.0.0.1", "127.0.0.9"
"Where the relay's ports that face the caller and the callee are; the callee is on B, too."
PAIRS = {"v4": (A, B), "v6": ("::1", "::1"), "v4 to v6": (A, "::1")}
_PORTS = count(0)
_FIRST, _LAST = 20000, 29998


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
        return await asyncio.wait_for(self.queue.get(), 30)

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self.socket)
        self.socket.close()


@dataclass
class Bench:
    """A plane, two phones and a list of what was passed up."""

    plane: UserPlane | NativePlane | KernelPlane
    caller: Phone
    callee: Phone
    port_a: Endpoint
    port_b: Endpoint
    passed: "asyncio.Queue[Packet]" = field(default_factory=asyncio.Queue)

    async def passed_up(self) -> Packet:
        return await asyncio.wait_for(self.passed.get(), 30)

    def counters(self) -> dict[Endpoint, SlotCounters]:
        return {counters.local: counters for counters in self.plane.counters((self.port_a, self.port_b))}

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


@asynccontextmanager
async def bench_of(
    plane: UserPlane | NativePlane | KernelPlane, pair: tuple[str, str], ports: tuple[Endpoint, Endpoint]
) -> AsyncIterator[Bench]:
    """Two phones and a plane that starts now. Everything is closed afterwards."""
    made = Bench(plane, Phone(pair[0]), Phone(pair[1]), *ports)
    plane.start(made.passed.put_nowait)
    list(plane.adopt())
    try:
        yield made
    finally:
        plane.close()
        plane.close()
        made.caller.close()
        made.callee.close()


async def until(condition: Callable[[], bool]) -> None:
    """Let the loop run until it holds."""
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0)


# -- the planes


def user_plane() -> UserPlane:
    return UserPlane()


def kernel_settings(*addresses: RelayAddress, **more: object) -> RelaySettings:
    """Of a relay on loopback, without pins unless they say otherwise."""
    values: dict[str, object] = {
        "addresses": addresses or (RelayAddress(bind=A), RelayAddress(bind="::1")),
        "port_min": _FIRST,
        "port_max": _LAST,
        "plane": "kernel",
        **more,
    }
    return RelaySettings(**values)  # type: ignore[arg-type]  # fields by name


def kernel_plane() -> KernelPlane:
    return KernelPlane(kernel_settings(), None, "test")


def native_plane() -> NativePlane:
    return NativePlane(max_sockets=64)


PLANES: dict[str, Callable[[], UserPlane | NativePlane | KernelPlane]] = {
    "user": user_plane,
    "native": native_plane,
    "kernel": kernel_plane,
}
"Makes each plane that there is."


def ports_of(name: str, pair: tuple[str, str]) -> tuple[Endpoint, Endpoint]:
    """Two ports that the plane of that name can lend: the kernel's are in its range, on the relay's own addresses."""
    if name != "kernel":
        return free_port(pair[0]), free_port(pair[1])
    versions = [A if ":" not in address else "::1" for address in pair]
    first, second = (Endpoint(address, _FIRST + 2 * (next(_PORTS) % 4000)) for address in versions)
    return first, second


def can_have_network() -> bool:
    """Whether ``own_network`` can be had: it needs root and a few programs."""
    return os.geteuid() == 0 and not missing("ip", "sysctl", "nsenter")


@contextmanager
def own_network() -> Iterator[Namespace]:
    """This thread is in a network namespace of its own meanwhile, with a loopback of both IP versions."""
    spaces = Namespaces()
    try:
        space = spaces.add("plane")
        space.run("sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=0", "net.ipv6.conf.lo.disable_ipv6=0")
        with space.inside():
            yield space
    finally:
        spaces.close()
