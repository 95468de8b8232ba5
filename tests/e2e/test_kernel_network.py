"""The kernel plane on hosts with several interfaces: routes that change, interfaces that appear, own addresses."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest

from lab.netns import Namespace, Namespaces
from mediaproxy.endpoint import Endpoint
from mediaproxy.relay.bpf import attach, attach_xdp
from mediaproxy.relay.bpf.attach import Hook
from mediaproxy.relay.bpf.syscalls import link_detach
from mediaproxy.relay.flow import Flow, Packet
from mediaproxy.relay.kernel.plane import KernelPlane
from mediaproxy.relay.settings import RelayAddress, RelaySettings
from mediaproxy.relay.slots import Reason
from tests.e2e.conftest import need
from tests.planebench import rtp

RELAY, PUBLIC = "198.51.100.254", "192.0.2.200"
"The address at the interface to host a, and the one that the world knows."
ALICE, BOB, BOB2 = Endpoint("198.51.100.1", 4000), Endpoint("203.0.113.2", 5000), Endpoint("192.0.2.77", 5000)
PORT_A, PORT_B = Endpoint(RELAY, 20000), Endpoint(RELAY, 20002)


class Host:
    """A relay's host between a and b; this thread is on it."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self.spaces = Namespaces()
        self._stack.callback(self.spaces.close)
        self.relay, self.a, self.b = (self.spaces.add(name) for name in ("relay", "a", "b"))
        self.join(self.a, "to-a", f"{RELAY}/24", f"{ALICE.address}/24", RELAY)
        self.join(self.b, "to-b", "203.0.113.254/24", f"{BOB.address}/24", "203.0.113.254")
        self._stack.enter_context(self.relay.inside())
        self.passed: list[Packet] = []
        self.planes: list[KernelPlane] = []

    def join(self, space: Namespace, name: str, near: str, far: str, via: str) -> None:
        """A veth between the relay and a host."""
        there = f"eth-{name}"
        self.relay.ip(f"link add {name} type veth peer name {there} netns {space.name}")
        self.relay.ip(f"link set {name} up", f"address add {near} dev {name}")
        space.ip(f"link set {there} up", f"address add {far} dev {there}", f"route replace default via {via}")

    def open(self, *, advertise: str = "", bind: str = RELAY, **more: object) -> KernelPlane:
        values = {"addresses": (RelayAddress(bind=bind, advertise=advertise),), "port_min": 20000, "port_max": 20998}
        plane = KernelPlane(RelaySettings(**values | more), None, "test")  # type: ignore[arg-type]  # fields by name
        plane.start(self.passed.append)
        list(plane.adopt())
        self.planes.append(plane)
        return plane

    def phone(self, at: Endpoint, space: Namespace) -> socket.socket:
        sock = space.socket(socket.SOCK_DGRAM)
        self._stack.callback(sock.close)
        sock.bind((at.address, at.port))
        sock.setblocking(False)
        return sock

    def close(self) -> None:
        for plane in self.planes:
            plane.close()
        self._stack.close()


@pytest.fixture
async def host() -> AsyncIterator[Host]:
    need()
    made = Host()
    yield made
    made.close()


def learned(local: Endpoint, peer: Endpoint, phone: Endpoint, generation: int = 1) -> Flow:
    return Flow(local=local, generation=generation, peer=peer, peer_generation=generation, source=phone, target=phone)


def call(plane: KernelPlane, a: Endpoint = ALICE, b: Endpoint = BOB) -> None:
    plane.install(learned(PORT_A, PORT_B, a))
    plane.install(learned(PORT_B, PORT_A, b))


async def hears(sock: socket.socket) -> tuple[bytes, Endpoint]:
    data, source = await asyncio.wait_for(asyncio.get_running_loop().sock_recvfrom(sock, 2048), 10)
    return data, Endpoint(*source)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.01)


def forwarded(plane: KernelPlane) -> int:
    return plane.totals()[Reason.FORWARDED]


async def test_two_interfaces_without_ip_forward(host: Host) -> None:
    """Bob's packets come in by an interface that has not the relay's address: the first one shows that."""
    assert Path("/proc/sys/net/ipv4/ip_forward").read_text() == "0\n"
    plane = host.open()
    assert plane.hooks == "TCX on lo, to-a"
    call(plane)
    alice, bob = host.phone(ALICE, host.a), host.phone(BOB, host.b)
    for number in range(3):
        alice.sendto(rtp(number), (RELAY, PORT_A.port))
        assert await hears(bob) == (rtp(number), PORT_B)
    bob.sendto(b"first", (RELAY, PORT_B.port))
    await until(lambda: bool(host.passed))
    assert (host.passed[0].local, host.passed[0].source, host.passed[0].data) == (PORT_B, BOB, b"first")
    assert plane.hooks == "TCX on lo, to-a, to-b"
    for number in range(3):
        bob.sendto(rtp(number), (RELAY, PORT_B.port))
        assert await hears(alice) == (rtp(number), PORT_A)
    assert len(host.passed) == 1 and forwarded(plane) == 6


async def test_a_flood_by_an_interface_that_has_not_the_relays_address(host: Host) -> None:
    """The first packet brings the program there, and it lets as many through as it does elsewhere."""
    plane = host.open()
    plane.install(Flow(local=PORT_B, generation=1, target=BOB, allowed=(f"{BOB.address}/32",)))
    host.b.ip("address add 203.0.113.66/24 dev eth-to-b")
    stranger = host.phone(Endpoint("203.0.113.66", 5000), host.b)
    stranger.sendto(rtp(0), (RELAY, PORT_B.port))
    await until(lambda: plane.hooks == "TCX on lo, to-a, to-b")
    for number in range(1000):
        stranger.sendto(rtp(number), (RELAY, PORT_B.port))
    await until(lambda: plane.totals()[Reason.UP] + plane.totals()[Reason.REFUSED] >= 1000)
    assert plane.totals()[Reason.REFUSED] > 500
    assert len(host.passed) < 500


async def test_only_the_interfaces_that_are_named(host: Host) -> None:
    plane = host.open(interfaces=("to-b",))
    assert plane.hooks == "TCX on lo, to-b"
    call(plane)
    alice = host.phone(ALICE, host.a)
    alice.sendto(b"up", (RELAY, PORT_A.port))
    await until(lambda: bool(host.passed))
    assert plane.hooks == "TCX on lo, to-b"


async def test_an_address_that_only_loopback_has_comes_in_by_any_interface(host: Host) -> None:
    host.relay.ip("address add 192.0.2.1/32 dev lo")
    plane = host.open(bind="192.0.2.1")
    assert plane.hooks == "TCX on lo, to-a, to-b"


async def test_clsact_where_there_is_no_tcx(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "mediaproxy.relay.kernel.hooks.attach",
        partial(attach, hook="clsact"),
    )
    plane = host.open(interfaces=("to-a", "to-b"))
    assert plane.hooks == "clsact on lo, to-a, to-b"
    call(plane)
    alice, bob = host.phone(ALICE, host.a), host.phone(BOB, host.b)
    alice.sendto(b"there", (RELAY, PORT_A.port))
    assert (await hears(bob))[0] == b"there"
    bob.sendto(b"and back", (RELAY, PORT_B.port))
    assert (await hears(alice))[0] == b"and back"
    plane.close()
    assert "clsact" not in host.relay.run("tc", "qdisc", "show")


async def test_routes_that_change_move_the_streams(host: Host) -> None:
    """Bob's address moves to another host behind another interface."""
    plane = host.open()
    call(plane)
    alice, bob = host.phone(ALICE, host.a), host.phone(BOB, host.b)
    alice.sendto(b"by the first way", (RELAY, PORT_A.port))
    assert (await hears(bob))[0] == b"by the first way"
    c = host.spaces.add("c")
    host.join(c, "to-c", "192.0.2.254/24", "192.0.2.3/24", "192.0.2.254")
    c.ip(f"address add {BOB.address}/32 dev lo")
    other = host.phone(BOB, c)
    host.relay.ip(f"route add {BOB.address}/32 via 192.0.2.3 dev to-c")
    lent = plane._lent[PORT_B]
    index = socket.if_nametoindex("to-c")
    await until(lambda: lent.way is not None and lent.way.ifindex == index)
    alice.sendto(b"by the second way", (RELAY, PORT_A.port))
    assert (await hears(other))[0] == b"by the second way"
    host.relay.ip("link del to-c")
    await until(lambda: lent.way is not None and lent.way.ifindex == socket.if_nametoindex("to-b"))
    alice.sendto(b"by the first one again", (RELAY, PORT_A.port))
    assert (await hears(bob))[0] == b"by the first one again"
    assert host.passed == []


async def test_a_target_without_a_route_is_reached_when_there_is_one(host: Host) -> None:
    host.relay.ip("route flush table main")
    host.relay.ip(f"route add 198.51.100.0/24 dev to-a src {RELAY}")
    plane = host.open()
    call(plane)
    alice, bob = host.phone(ALICE, host.a), host.phone(BOB, host.b)
    alice.sendto(b"nowhere", (RELAY, PORT_A.port))
    await until(lambda: next(iter(plane.counters([PORT_A]))).undeliverable == 1)
    host.relay.ip("route add 203.0.113.0/24 dev to-b src 203.0.113.254")
    await until(lambda: plane._lent[PORT_B].way is not None)
    alice.sendto(b"there", (RELAY, PORT_A.port))
    assert (await hears(bob))[0] == b"there"


async def test_interfaces_that_appear_later(host: Host) -> None:
    """The relay's address comes to one more interface, and its phones with it."""
    plane = host.open()
    host.relay.ip("link add later type veth peer name laterb", "link set later up", f"address add {RELAY}/32 dev later")
    await until(lambda: plane.hooks == "TCX on later, lo, to-a")
    host.relay.ip("link del later")
    await until(lambda: plane.hooks == "TCX on lo, to-a")
    call(plane)
    alice, bob = host.phone(ALICE, host.a), host.phone(BOB, host.b)
    alice.sendto(b"still", (RELAY, PORT_A.port))
    assert (await hears(bob))[0] == b"still"


async def test_an_address_that_comes_later(host: Host, caplog: pytest.LogCaptureFixture) -> None:
    """As one that wanders from host to host: until it is here no port is lent, and nobody else is blamed for that."""
    host.relay.ip(f"address del {RELAY}/24 dev to-a")
    plane = host.open()
    with pytest.raises(OSError, match="Cannot assign requested address"):
        call(plane)
    assert caplog.text == ""
    host.relay.ip(f"address add {RELAY}/24 dev to-a")
    call(plane)
    alice, bob = host.phone(ALICE, host.a), host.phone(BOB, host.b)
    for number in range(100):  # the route to Bob is asked for when the address has been heard of
        alice.sendto(rtp(number), (RELAY, PORT_A.port))
        await asyncio.sleep(0.05)
        if forwarded(plane) > 1:
            break
    assert (await hears(bob))[1] == PORT_B and plane.hooks == "TCX on lo, to-a, to-b"


async def test_an_interface_that_is_made_anew_with_its_old_number(host: Host) -> None:
    """Between two looks: no interface is missing, but the program is."""
    plane = host.open()
    call(plane)
    index = socket.if_nametoindex("to-a")
    host.relay.ip(
        "link del to-a",
        f"link add to-a index {index} type veth peer name eth-to-a netns {host.a.name}",
        "link set to-a up",
        f"address add {RELAY}/24 dev to-a",
    )
    host.a.ip("link set eth-to-a up", f"address add {ALICE.address}/24 dev eth-to-a", f"route add default via {RELAY}")
    alice, bob = host.phone(ALICE, host.a), host.phone(BOB, host.b)
    async with asyncio.timeout(30):
        while not forwarded(plane):
            alice.sendto(b"there", (RELAY, PORT_A.port))
            await asyncio.sleep(0.1)
    assert (await hears(bob))[0] == b"there"


@pytest.mark.parametrize("hook", ["tcx", "clsact"])
async def test_a_program_that_somebody_takes_away(
    host: Host, hook: Hook, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What comes up to the process then shows it; the operator is told."""
    monkeypatch.setattr(
        "mediaproxy.relay.kernel.hooks.attach",
        partial(attach, hook=hook),
    )
    plane = host.open(interfaces=("to-a", "to-b"))
    call(plane)
    if hook == "clsact":
        host.relay.run("tc", "qdisc", "del", "dev", "to-a", "clsact")
    else:
        link_detach(plane._banks[0].hooks._attached["tc", socket.if_nametoindex("to-a")].link)
    alice, bob = host.phone(ALICE, host.a), host.phone(BOB, host.b)
    alice.sendto(b"up", (RELAY, PORT_A.port))
    await until(lambda: bool(host.passed))
    assert "to-a: somebody has taken our program away; it is attached again" in caplog.text
    alice.sendto(b"there", (RELAY, PORT_A.port))
    assert (await hears(bob))[0] == b"there" and forwarded(plane) == 1


async def test_both_phones_behind_one_interface(host: Host) -> None:
    plane = host.open()
    carol = ALICE.with_port(4002)
    call(plane, b=carol)
    one, other = host.phone(ALICE, host.a), host.phone(carol, host.a)
    one.sendto(b"there", (RELAY, PORT_A.port))
    assert await hears(other) == (b"there", PORT_B)
    other.sendto(b"back", (RELAY, PORT_B.port))
    assert await hears(one) == (b"back", PORT_A)
    assert host.passed == [] and forwarded(plane) == 2


@pytest.mark.parametrize("named", [RELAY, PUBLIC], ids=["as bound", "as advertised"])
async def test_two_legs_that_meet_here_are_cut_short(host: Host, named: str) -> None:
    """Alice's call leads to a port of this relay, whose call leads to Bob: the packet never leaves the program."""
    plane = host.open(advertise=PUBLIC, interfaces=("to-a", "to-b"))
    a, out, into, b = (Endpoint(RELAY, 20000 + 2 * number) for number in range(4))
    plane.install(learned(a, out, ALICE))
    plane.install(
        Flow(local=out, generation=1, peer=a, peer_generation=1, source=into, target=Endpoint(named, into.port))
    )
    plane.install(
        Flow(local=into, generation=1, peer=b, peer_generation=1, source=out, target=Endpoint(named, out.port))
    )
    plane.install(learned(b, into, BOB))
    alice, bob = host.phone(ALICE, host.a), host.phone(BOB, host.b)
    alice.sendto(rtp(1), (RELAY, a.port))
    assert await hears(bob) == (rtp(1), b)
    bob.sendto(rtp(2), (RELAY, b.port))
    assert await hears(alice) == (rtp(2), a)
    counted = {c.local: c.packets for c in plane.counters()}
    assert counted == {a: 1, into: 1, b: 1, out: 1} and forwarded(plane) == 2 and host.passed == []


async def test_two_relays_in_one_host_meet_on_loopback(host: Host) -> None:
    both = ("to-a", "to-b")
    first, second = host.open(interfaces=both), host.open(interfaces=both, port_min=22000, port_max=22998)
    a, out = Endpoint(RELAY, 20000), Endpoint(RELAY, 20002)
    into, b = Endpoint(RELAY, 22000), Endpoint(RELAY, 22002)
    first.install(learned(a, out, ALICE))
    first.install(learned(out, a, into))
    second.install(learned(into, b, out))
    second.install(learned(b, into, BOB))
    alice, bob = host.phone(ALICE, host.a), host.phone(BOB, host.b)
    alice.sendto(rtp(1), (RELAY, a.port))
    assert await hears(bob) == (rtp(1), b)
    bob.sendto(rtp(2), (RELAY, b.port))
    assert await hears(alice) == (rtp(2), a)
    assert host.passed == []


async def test_a_phone_on_the_relays_own_host(host: Host) -> None:
    """As a gateway or an announcement server beside it."""
    plane = host.open()
    here = Endpoint(RELAY, 9000)
    call(plane, b=here)
    alice, gateway = host.phone(ALICE, host.a), host.phone(here, host.relay)
    alice.sendto(b"there", (RELAY, PORT_A.port))
    assert await hears(gateway) == (b"there", PORT_B)
    gateway.sendto(b"back", (RELAY, PORT_B.port))
    assert await hears(alice) == (b"back", PORT_A)
    assert host.passed == []


async def test_xdp_is_not_for_virtual_interfaces(host: Host, caplog: pytest.LogCaptureFixture) -> None:
    """The other program does it alone, and the operator is told."""
    plane = host.open(xdp=("to-a", "eth9"))
    assert plane.hooks == "TCX on lo, to-a"
    assert "XDP on to-a: it is a virtual interface" in caplog.text and "the other program forwards" in caplog.text
    host.relay.ip("link add later type veth peer name laterb")
    await asyncio.sleep(0.2)
    assert caplog.text.count("XDP on to-a") == 1, "said once"
    assert caplog.text.count("relay.xdp: this host has no interface eth9 (now)") == 1


async def test_xdp_hangs_beside_the_other_program(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mediaproxy.relay.kernel.hooks.attach_xdp", partial(attach_xdp, virtual=True))
    plane = host.open(xdp=("to-a",))
    assert plane.hooks == "TCX on lo, to-a; XDP on to-a"
    plane.close()
    assert "xdp" not in host.relay.run("ip", "link", "show", "dev", "to-a")


async def test_what_leaves_by_an_interface_without_xdp_is_left_to_the_other_program(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bob is behind a bridge, which takes nothing from XDP: what is sent there so is lost without a word."""
    monkeypatch.setattr("mediaproxy.relay.kernel.hooks.attach_xdp", partial(attach_xdp, virtual=True))
    host.relay.ip(
        "address flush dev to-b", "link add br0 type bridge", "link set to-b master br0", "link set br0 up",
        "address add 203.0.113.254/24 dev br0",
    )  # fmt: skip
    host.relay.run("sysctl", "-qw", "net.ipv4.conf.br0.forwarding=1")
    there = host.b.run("ip", "-br", "link", "show", "dev", "eth-to-b").split()[2]
    host.relay.ip(f"neigh replace {BOB.address} lladdr {there} dev br0 nud permanent")
    plane = host.open(xdp=("to-a",))
    call(plane)
    xdp = {local: lent.way.xdp for local, lent in plane._lent.items() if lent.way is not None}
    assert xdp == {PORT_A: True, PORT_B: False}
    alice, bob = host.phone(ALICE, host.a), host.phone(BOB, host.b)
    for number in range(3):
        alice.sendto(rtp(number), (RELAY, PORT_A.port))
        assert (await hears(bob))[0] == rtp(number)
    assert forwarded(plane) == 3
