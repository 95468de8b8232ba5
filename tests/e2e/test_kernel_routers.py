"""Targets behind routers: the program sends to the neighbour that the relay has found, as long as a relay lives."""

import asyncio
import contextlib
import socket
import sys
from collections.abc import AsyncIterator, Callable

import pytest

from lab.netns import Namespace
from mediaproxy.endpoint import Endpoint
from mediaproxy.relay.kernel.plane import KernelPlane
from tests.e2e.conftest import need
from tests.e2e.test_kernel_network import ALICE, PORT_A, PORT_B, RELAY, Host, forwarded, hears, learned, until
from tests.planebench import rtp

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
    host.b.ip("address add 2001:db8:b::2/64 dev eth-to-b nodad", f"address add {FAR6.address}/128 dev lo nodad")
    host.relay.ip(f"route add {FAR6.address}/128 via 2001:db8:b::2 dev to-b")
    plane = host.open(bind=RELAY6)
    one, other = Endpoint(RELAY6, 20000), Endpoint(RELAY6, 20002)
    plane.install(learned(one, other, NEAR6))
    plane.install(learned(other, one, FAR6))
    way = plane._lent[other].way
    assert way is not None and way.gateway == "2001:db8:b::2", "there is no other one"
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
    data, source = await asyncio.wait_for(asyncio.get_running_loop().sock_recvfrom(sock, 2048), 10)
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


async def test_a_group_of_routers_that_loses_one(host: Host) -> None:
    """No route has changed then, but its group of next hops has."""
    host.b.ip("address add 203.0.113.3/24 dev eth-to-b")
    host.relay.ip(
        "nexthop add id 2 via 203.0.113.2 dev to-b",
        "nexthop add id 3 via 203.0.113.3 dev to-b",
        "nexthop add id 10 group 2/3",
        f"route add {FAR.address}/32 nhid 10",
    )
    await asyncio.sleep(2)  # the interfaces are new, and their own changes are over by then
    plane = host.open()
    call(plane)
    router = _gateway(plane)
    assert router is not None
    host.relay.ip(f"nexthop del id {router[-1]}")
    await until(lambda: _gateway(plane) not in (None, router))


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


def narrow_link(host: Host) -> Namespace:
    """A host with the addresses FAR and FAR6 behind b, whose link to it carries 1300 bytes."""
    behind = host.spaces.add("behind")
    host.b.ip(f"link add narrow mtu 1300 type veth peer name eth0 mtu 1300 netns {behind.name}")
    for space, name in ((host.b, "narrow"), (behind, "eth0")):
        space.run("sysctl", "-qw", f"net.ipv6.conf.{name}.disable_ipv6=0", f"net.ipv6.conf.{name}.accept_dad=0")
        space.ip(f"link set {name} up")
    host.b.run("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
    host.relay.ip("address add 2001:db8:b::fe/64 dev to-b nodad", f"address add {RELAY6}/64 dev to-a nodad")
    host.a.ip(f"address add {NEAR6.address}/64 dev eth-to-a nodad")
    host.b.ip("address add 2001:db8:b::2/64 dev eth-to-b nodad", "route add default via 2001:db8:b::fe")
    host.b.ip("address add 100.64.7.1/24 dev narrow", "address add 2001:db8:7::1/64 dev narrow nodad")
    behind.ip(f"address add {FAR.address}/24 dev eth0", f"address add {FAR6.address}/64 dev eth0 nodad")
    behind.ip("route add default via 100.64.7.1", "route add default via 2001:db8:7::1")
    host.relay.ip("route add 100.64.7.0/24 via 203.0.113.2", "route add 2001:db8:7::/64 via 2001:db8:b::2")
    return behind


@pytest.mark.parametrize(("near", "far", "own"), [(ALICE, FAR, RELAY), (NEAR6, FAR6, RELAY6)], ids=["IPv4", "IPv6"])
async def test_a_way_that_a_router_says_is_too_narrow(host: Host, near: Endpoint, far: Endpoint, own: str) -> None:
    """A camera's packets must not be fragmented on the way: the router drops them, and says so to the relay's port."""
    behind = narrow_link(host)
    plane = host.open(bind=own)
    one, other = Endpoint(own, 20000), Endpoint(own, 20002)
    plane.install(learned(one, other, near))
    plane.install(learned(other, one, far))
    family = socket.AF_INET6 if near.version == 6 else socket.AF_INET
    camera, screen = (space.socket(socket.SOCK_DGRAM, family) for space in (host.a, behind))
    for sock, at in ((camera, near), (screen, far)):
        sock.bind((at.address, at.port))
        sock.setblocking(False)
    camera.setsockopt(socket.IPPROTO_IP, 10, 2)  # IP_MTU_DISCOVER, IP_PMTUDISC_DO
    frame = rtp(1, size=1400)
    async with asyncio.timeout(20):
        while not host.passed:
            camera.sendto(frame, (own, one.port))
            await asyncio.sleep(0.1)
    plane.send(other, far, host.passed[0].data)  # as the relay does
    assert await hears6(screen) == (frame, other)
    way = plane._lent[other].way
    assert way is not None and way.mtu == 1300
    camera.sendto(rtp(2, size=1200), (own, one.port))
    assert await hears6(screen) == (rtp(2, size=1200), other) and len(host.passed) < 9, (
        "what fits is still the kernel's"
    )
    camera.close()
    screen.close()


def _gateway(plane: KernelPlane) -> str | None:
    way = plane._lent[PORT_B].way
    return None if way is None else way.gateway


_ADVERTISE = """
import socket, struct
where = socket.if_nametoindex("eth-to-b")
for address in ("fe80::b1", "fe80::b2"):
    sock = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
    sock.bind((address, 0, 0, where))
    sock.sendto(struct.pack("!BBHBBHII", 134, 0, 0, 64, 0, 1800, 0, 0), ("ff02::1", 0, 0, where))
"""
"Router advertisements (RFC 4861 §4.2) of two routers, which live for half an hour."


def advertised(host: Host) -> None:
    host.relay.run("sysctl", "-qw", "net.ipv6.conf.to-b.accept_ra=2")
    host.b.run(sys.executable, "-c", _ADVERTISE)


def configured(host: Host) -> None:
    host.relay.ip(
        "route add default via fe80::b1 dev to-b metric 1", "route add default via fe80::b2 dev to-b metric 2"
    )


@pytest.mark.parametrize("made", [advertised, configured])
async def test_of_two_routers_one_falls_silent(host: Host, made: Callable[[Host], None]) -> None:
    """The kernel turns to the other one, and no message says so: it must be asked for each packet."""
    timers = ("base_reachable_time_ms=1000", "delay_first_probe_time=1", "retrans_time_ms=100")
    host.relay.run("sysctl", "-qw", *(f"net.ipv6.neigh.to-b.{timer}" for timer in timers))
    host.b.run("sysctl", "-qw", "net.ipv6.conf.all.forwarding=1")
    host.relay.ip(f"address add {RELAY6}/64 dev to-a nodad", "address add fe80::fe/64 dev to-b nodad")
    host.a.ip(f"address add {NEAR6.address}/64 dev eth-to-a nodad")
    host.b.ip(*(f"address add {address}/64 dev eth-to-b nodad" for address in ("fe80::b1", "fe80::b2")))
    host.b.ip(f"address add {FAR6.address}/128 dev lo nodad")
    made(host)
    async with asyncio.timeout(30):
        while host.relay.run("ip", "-6", "route", "show", "default").count("default via") < 2:
            await asyncio.sleep(0.5)
            if made is advertised:  # the interface may not have been ready
                made(host)
    await asyncio.sleep(2)  # the interfaces are new, and their own changes are over by then
    plane = host.open(bind=RELAY6)
    one, other = Endpoint(RELAY6, 20000), Endpoint(RELAY6, 20002)
    plane.install(learned(one, other, NEAR6))
    plane.install(learned(other, one, FAR6))
    near, far = (space.socket(socket.SOCK_DGRAM, socket.AF_INET6) for space in (host.a, host.b))
    for sock, at in ((near, NEAR6), (far, FAR6)):
        sock.bind((at.address, at.port))
        sock.setblocking(False)
    near.sendto(b"before", (RELAY6, 20000))
    assert (await hears6(far))[0] == b"before"
    router = host.relay.run("ip", "-6", "route", "get", FAR6.address).split(" via ")[1].split()[0]
    host.b.ip(f"address del {router}/64 dev eth-to-b")
    host.relay.ip(f"neigh replace {router} lladdr 02:00:00:00:00:01 dev to-b nud stale")
    await hears_again(far, near, (RELAY6, 20000))
    assert host.passed == []
    near.close()
    far.close()


async def hears_again(far: socket.socket, near: socket.socket, relay: tuple[str, int]) -> None:
    """Within half a minute, of what the near one sends to the relay all the time."""
    for _ in range(300):
        near.sendto(b"after", relay)
        with contextlib.suppress(TimeoutError):
            assert (await asyncio.wait_for(asyncio.get_running_loop().sock_recvfrom(far, 2048), 0.1))[0] == b"after"
            return
    pytest.fail("half a minute later nobody hears anything")


def in_a_route(host: Host) -> None:
    host.relay.run("sysctl", "-qw", "net.ipv4.fib_multipath_use_neigh=1")
    host.relay.ip(f"route add {FAR.address}/32 nexthop via 203.0.113.2 dev to-b nexthop via 203.0.113.3 dev to-b")


def in_a_group(host: Host) -> None:
    host.relay.ip(
        "nexthop add id 2 via 203.0.113.2 dev to-b",
        "nexthop add id 3 via 203.0.113.3 dev to-b",
        "nexthop add id 10 group 2/3",
        f"route add {FAR.address}/32 nhid 10",
    )


@pytest.mark.parametrize("made", [in_a_route, in_a_group])
async def test_of_two_routers_of_ipv4_one_falls_silent(host: Host, made: Callable[[Host], None]) -> None:
    """The kernel turns to the other one, and no route has changed: the relay hears of the neighbour."""
    timers = ("base_reachable_time_ms=1000", "delay_first_probe_time=1", "retrans_time_ms=100")
    host.relay.run("sysctl", "-qw", *(f"net.ipv4.neigh.to-b.{timer}" for timer in timers))
    host.b.run("sysctl", "-qw", "net.ipv4.conf.all.promote_secondaries=1")
    host.b.ip("address add 203.0.113.3/24 dev eth-to-b", f"address add {FAR.address}/32 dev lo")
    made(host)
    await asyncio.sleep(2)  # the interfaces are new, and their own changes are over by then
    plane = host.open()
    call(plane)
    alice, far = host.phone(ALICE, host.a), host.phone(FAR, host.b)
    alice.sendto(b"before", (RELAY, PORT_A.port))
    assert (await hears(far))[0] == b"before"
    router = host.relay.run("ip", "route", "get", FAR.address, "from", RELAY).split(" via ")[1].split()[0]
    host.b.ip(f"address del {router}/24 dev eth-to-b")
    host.relay.ip(f"neigh replace {router} lladdr 02:00:00:00:00:01 dev to-b nud stale")
    await hears_again(far, alice, (RELAY, PORT_A.port))
    assert host.passed == []


async def test_routers_of_ipv4_that_nobody_looks_at(host: Host) -> None:
    """The kernel chooses by the addresses alone, so its choice holds until the route changes."""
    host.relay.ip(f"route add {FAR.address}/32 nexthop via 203.0.113.2 dev to-b nexthop via 203.0.113.3 dev to-b")
    plane = host.open()
    call(plane)
    assert _gateway(plane) in ("203.0.113.2", "203.0.113.3")
