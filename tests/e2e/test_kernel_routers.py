"""Targets behind routers: the program sends to the neighbour that the relay has found, as long as a relay lives."""

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest

from lab.netns import Namespace
from mediaproxy.endpoint import Endpoint
from mediaproxy.relay.kernel.plane import KernelPlane
from tests.e2e.conftest import need
from tests.e2e.test_kernel_network import ALICE, PORT_A, PORT_B, RELAY, Host, forwarded, hears, learned, until

FAR = Endpoint("100.64.7.7", 7000)
"A phone that is nobody's neighbour."
FAR6, NEAR6 = Endpoint("2001:db8:7::7", 7000), Endpoint("2001:db8:c::1", 4000)
RELAY6 = "2001:db8:c::fe"


@pytest.fixture
async def host() -> AsyncIterator[Host]:
    need()
    made = Host()
    for space, name in (
        (made.relay, "to-a"),
        (made.relay, "to-b"),
        (made.a, "eth-to-a"),
        (made.b, "eth-to-b"),
        (made.b, "lo"),
    ):
        space.run("sysctl", "-qw", f"net.ipv6.conf.{name}.accept_dad=0", f"net.ipv6.conf.{name}.disable_ipv6=0")
    yield made
    made.close()


def second_router(host: Host) -> Namespace:
    """One more host on b's wire, as a bridge would join it: another MAC address at another address."""
    router = host.spaces.add("c")
    host.join(router, "to-c", "192.0.2.254/24", "192.0.2.3/24", "192.0.2.254")
    router.ip(f"address add {FAR.address}/32 dev lo")
    return router


def call(plane: KernelPlane, far: Endpoint = FAR) -> None:
    plane.install(learned(PORT_A, PORT_B, ALICE))
    plane.install(learned(PORT_B, PORT_A, far))


@pytest.mark.parametrize("via", ["via 203.0.113.2", "via inet6 2001:db8:b::2"], ids=["of IPv4", "of IPv6"])
async def test_a_phone_behind_a_router(host: Host, via: str) -> None:
    host.relay.ip("address add 2001:db8:b::fe/64 dev to-b nodad")
    host.b.ip("address add 2001:db8:b::2/64 dev eth-to-b nodad", f"address add {FAR.address}/32 dev lo")
    host.relay.ip(f"route add {FAR.address}/32 {via} dev to-b")
    plane = host.open()
    call(plane)
    way = plane._lent[PORT_B].way
    assert way is not None and way.gateway == via.split()[-1]
    alice, far = host.phone(ALICE, host.a), host.phone(FAR, host.b)
    for number in range(3):
        alice.sendto(b"%d" % number, (RELAY, PORT_A.port))
        assert await hears(far) == (b"%d" % number, PORT_B)
    assert host.passed == [] and forwarded(plane) == 3
    assert FAR.address not in host.relay.run("ip", "neigh", "show", "dev", "to-b"), "it is nobody's neighbour"


async def test_a_phone_behind_a_router_in_ipv6(host: Host) -> None:
    host.relay.ip("address add 2001:db8:b::fe/64 dev to-b nodad", f"address add {RELAY6}/64 dev to-a nodad")
    host.a.ip(f"address add {NEAR6.address}/64 dev eth-to-a nodad")
    host.b.ip("address add 2001:db8:b::2/64 dev eth-to-b nodad", f"address add {FAR6.address}/128 dev lo")
    host.relay.ip(f"route add {FAR6.address}/128 via 2001:db8:b::2 dev to-b")
    plane = host.open(bind=RELAY6)
    one, other = Endpoint(RELAY6, 20000), Endpoint(RELAY6, 20002)
    plane.install(learned(one, other, NEAR6))
    plane.install(learned(other, one, FAR6))
    near, far = (space.socket(socket.SOCK_DGRAM, socket.AF_INET6) for space in (host.a, host.b))
    for sock, at in ((near, NEAR6), (far, FAR6)):
        sock.bind((at.address, at.port))
        sock.setblocking(False)
    near.sendto(b"there", (RELAY6, 20000))
    data, source = await hears6(far)
    assert (data, source) == (b"there", other) and forwarded(plane) == 1
    near.close()
    far.close()


async def hears6(sock: socket.socket) -> tuple[bytes, Endpoint]:
    """``hears`` for IPv6, whose sources have four parts."""
    data, source = await asyncio.wait_for(asyncio.get_running_loop().sock_recvfrom(sock, 2048), 2)
    return data, Endpoint(*source[:2])


async def test_a_router_that_takes_over(host: Host) -> None:
    """The relay hears of the new route and tells the program."""
    host.b.ip(f"address add {FAR.address}/32 dev lo")
    host.relay.ip(f"route add {FAR.address}/32 via 203.0.113.2")
    plane = host.open()
    call(plane)
    alice, far = host.phone(ALICE, host.a), host.phone(FAR, host.b)
    alice.sendto(b"first", (RELAY, PORT_A.port))
    assert (await hears(far))[0] == b"first"
    router = second_router(host)
    other = host.phone(FAR, router)
    host.relay.ip(f"route replace {FAR.address}/32 via 192.0.2.3")
    await until(lambda: _gateway(plane) == "192.0.2.3")
    alice.sendto(b"second", (RELAY, PORT_A.port))
    assert (await hears(other))[0] == b"second"


async def test_without_a_living_relay_the_kernel_finds_the_new_router(host: Host) -> None:
    """Nobody is there to hear of the change: the program must not send to the old router for ever."""
    host.b.ip(f"address add {FAR.address}/32 dev lo", "address add 203.0.113.3/24 dev eth-to-b")
    host.relay.ip(f"route add {FAR.address}/32 via 203.0.113.2")
    plane = host.open()
    call(plane)
    alice, far = host.phone(ALICE, host.a), host.phone(FAR, host.b)
    assert plane._changes is not None and plane._timer is not None
    plane._changes.close()
    plane._timer.cancel()
    plane._changes = None
    host.b.ip("address del 203.0.113.2/24 dev eth-to-b", "address replace 203.0.113.3/24 dev eth-to-b")
    host.relay.ip(f"route replace {FAR.address}/32 via 203.0.113.3", "neigh flush dev to-b")
    bank = plane._banks[0]
    bank.kernel.beat(1)
    alice.sendto(b"still there", (RELAY, PORT_A.port))
    assert (await hears(far))[0] == b"still there"
    assert _gateway(plane) == "203.0.113.2", "as the relay last heard"


def _gateway(plane: KernelPlane) -> str | None:
    way = plane._lent[PORT_B].way
    return None if way is None else way.gateway
