"""The toy Internet keeps its promises: each NAT kind, lifetimes, hairpins, reboots, bad links; one seed, one story."""

from functools import partial

import pytest

from mediaproxy.endpoint import Endpoint
from tests.vnet import (
    FULL_CONE,
    KINDS,
    PERFECT,
    RESTRICTED,
    SYMMETRIC,
    Datagram,
    Dependence,
    Firewall,
    Host,
    Internet,
    Kind,
    Link,
    Nat,
    OneToOne,
    Ports,
)

HOME = "203.0.113.1"
HERE, FAR, FARTHER = "192.168.1.10", "198.51.100.1", "198.51.100.2"
PHONE = Endpoint(HERE, 5000)


class Ear:
    """A host that keeps what it hears on every port."""

    def __init__(self, net: Internet) -> None:
        self.heard: list[Datagram] = []
        self.times: list[float] = []
        self.host = Host(net)
        self.host.otherwise = self._hear

    def _hear(self, datagram: Datagram) -> None:
        self.heard.append(datagram)
        self.times.append(self.host.net.now)

    def take(self) -> list[Datagram]:
        """What was heard since the last time."""
        heard, self.heard = self.heard, []
        return heard


class Home:
    """A phone behind a NAT and two hosts in the world."""

    def __init__(self, kind: Kind, net: Internet | None = None) -> None:
        self.net = net or Internet()
        self.nat = Nat(outer=self.net.public, addresses=[HOME], kind=kind, link=PERFECT)
        self.phone, self.far, self.farther = Ear(self.net), Ear(self.net), Ear(self.net)
        self.phone.host.attach(self.nat.inside, HERE)
        self.far.host.attach(self.net.public, FAR)
        self.farther.host.attach(self.net.public, FARTHER)

    def out(self, address: str, port: int) -> Endpoint:
        """Send from the phone's port 5000; the source that the world sees."""
        self.phone.host.send(5000, Endpoint(address, port), b"out")
        ear = self.far if address == FAR else self.farther
        return ear.take()[-1].source


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_mapping(kind: Kind) -> None:
    home = Home(kind)
    first = home.out(FAR, 1)
    assert home.out(FAR, 1) == first
    same_address, other_address = home.out(FAR, 2), home.out(FARTHER, 1)
    assert (same_address == first) == (kind.mapping <= Dependence.ADDRESS_DEPENDENT)
    assert (other_address == first) == (kind.mapping == Dependence.ENDPOINT_INDEPENDENT)
    assert {first.address, same_address.address, other_address.address} == {HOME}
    assert home.nat.mapped(PHONE, Endpoint(FAR, 1)) == first


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_filtering(kind: Kind) -> None:
    home = Home(kind)
    outside = home.out(FAR, 1)
    for ear, port in ((home.far, 1), (home.far, 2), (home.farther, 1)):
        ear.host.send(port, outside, b"in")
    let_in = [datagram.source for datagram in home.phone.take()]
    promised = [Endpoint(FAR, 1), Endpoint(FAR, 2), Endpoint(FARTHER, 1)]
    count = {
        Dependence.ENDPOINT_INDEPENDENT: 3,
        Dependence.ADDRESS_DEPENDENT: 2,
        Dependence.ADDRESS_AND_PORT_DEPENDENT: 1,
    }
    assert let_in == promised[: count[kind.filtering]]
    assert home.net.dropped["filtered"] == 3 - len(let_in)


def test_unknown_outer_ports_are_closed() -> None:
    home = Home(FULL_CONE)
    outside = home.out(FAR, 1)
    home.far.host.send(1, outside.with_port(outside.port ^ 1), b"in")
    assert home.phone.take() == []
    assert home.net.dropped == {"no mapping": 1}


@pytest.mark.parametrize("inbound_refresh", [False, True])
def test_lifetime(inbound_refresh: bool) -> None:
    home = Home(RESTRICTED)
    home.nat.inbound_refresh = inbound_refresh
    outside = home.out(FAR, 1)
    home.net.run(100)
    assert home.out(FAR, 1) == outside, "outbound refreshes"
    home.net.run(100)
    home.far.host.send(1, outside, b"in")
    assert len(home.phone.take()) == 1, "100 s after the refresh it lives"
    home.net.run(100)
    home.far.host.send(1, outside, b"in")
    assert len(home.phone.take()) == inbound_refresh
    assert (home.nat.mapped(PHONE, Endpoint(FAR, 1)) is not None) == inbound_refresh


def test_lifetime_of_what_the_filter_lets_in() -> None:
    home = Home(RESTRICTED)
    outside = home.out(FAR, 1)
    home.net.run(100)
    home.out(FARTHER, 1)
    home.net.run(100)
    home.far.host.send(1, outside, b"in")
    home.farther.host.send(1, outside, b"in")
    assert [datagram.source.address for datagram in home.phone.take()] == [FARTHER]


@pytest.mark.parametrize("hairpin", [False, True])
def test_hairpin(hairpin: bool) -> None:
    home = Home(FULL_CONE)
    home.nat.hairpin = hairpin
    outside = home.out(FAR, 1)
    other = Ear(home.net)
    other.host.attach(home.nat.inside, "192.168.1.11")
    other.host.send(6000, outside, b"round")
    heard = home.phone.take()
    assert len(heard) == hairpin
    if hairpin:
        assert heard[0].source == home.nat.mapped(Endpoint("192.168.1.11", 6000), outside)
    other.host.send(6000, PHONE, b"direct")
    assert [datagram.data for datagram in home.phone.take()] == [b"direct"], "inside one LAN no NAT is in the way"


def test_rebinding() -> None:
    home = Home(FULL_CONE)
    old = home.out(FAR, 1)
    home.nat.rebind()
    home.far.host.send(1, old, b"in")
    assert home.phone.take() == []
    new = home.out(FAR, 1)
    assert new.address == old.address and new.port != old.port
    home.nat.rebind("203.0.113.9")
    assert home.out(FAR, 1).address == "203.0.113.9"
    home.far.host.send(1, new, b"in")
    assert home.net.dropped["no route"] == 1


def test_ports_of_new_mappings() -> None:
    home = Home(SYMMETRIC)
    home.nat.ports = Ports.PRESERVE
    assert home.out(FAR, 1).port == 5000
    assert home.out(FAR, 2).port != 5000, "taken"
    other = Ear(home.net)
    other.host.attach(home.nat.inside, "192.168.1.11")
    other.host.send(5000, Endpoint(FAR, 1), b"")
    assert home.far.take()[-1].source.port != 5000, "taken by the first phone"
    home.nat.ports = Ports.SEQUENTIAL
    one, two = home.out(FAR, 3), home.out(FAR, 4)
    assert two.port == one.port + 1


@pytest.mark.parametrize("paired", [True, False])
def test_pool(paired: bool) -> None:
    home = Home(SYMMETRIC)
    pool = [HOME, "203.0.113.2", "203.0.113.3"]
    home.nat = Nat(outer=home.net.public, addresses=pool[1:], kind=SYMMETRIC, paired=paired, link=PERFECT)
    home.phone.host.attach(home.nat.inside, HERE)
    seen = {home.out(FAR, port).address for port in range(1, 30)}
    assert len(seen) == (1 if paired else 2)


def test_nested() -> None:
    net = Internet()
    carrier = Nat(outer=net.public, addresses=[HOME], kind=SYMMETRIC, link=PERFECT)
    homes = [Nat(outer=carrier.inside, addresses=[f"100.64.0.{n}"], kind=RESTRICTED) for n in (1, 2)]
    phones = [Ear(net), Ear(net)]
    for home, phone in zip(homes, phones, strict=True):
        phone.host.attach(home.inside, HERE)
        phone.host.send(5000, Endpoint(FAR, 1), b"out")
    far = Ear(net)
    far.host.attach(net.public, FAR)
    net.run(1)
    seen = [datagram.source for datagram in far.take()]
    assert {source.address for source in seen} == {HOME} and len(set(seen)) == 2
    for source in seen:
        far.host.send(1, source, str(source).encode())
    net.run(1)
    assert [phone.take()[0].data for phone in phones] == [str(source).encode() for source in seen]
    assert phones[0].times == phones[1].times == [net.now - 1 + 0.01], "the DSL link took 10 ms"


def test_private_addresses_have_no_route() -> None:
    home = Home(FULL_CONE)
    home.far.host.send(1, PHONE, b"in")
    home.phone.host.send(1, Endpoint("10.1.1.1", 1), b"out")
    assert home.phone.take() == [] and home.net.dropped["no route"] == 2


def test_one_to_one() -> None:
    net = Internet()
    cloud = OneToOne(outer=net.public, address=HOME, inner="10.0.0.5", link=PERFECT)
    server, far = Ear(net), Ear(net)
    server.host.attach(cloud.inside, "10.0.0.5")
    far.host.attach(net.public, FAR)
    far.host.send(1, Endpoint(HOME, 7000), b"in")
    assert server.take()[0].target == Endpoint("10.0.0.5", 7000)
    server.host.send(7000, Endpoint(FAR, 1), b"out")
    assert far.take()[0].source == Endpoint(HOME, 7000)


def test_ipv6_and_firewall() -> None:
    net = Internet()
    home = Firewall(outer=net.public, link=PERFECT)
    phone, far = Ear(net), Ear(net)
    home.admit(phone.host, "2001:db8:1::10")
    far.host.attach(net.public, "2001:db8:2::1").attach(net.public, FAR)
    far.host.send(1, Endpoint("2001:db8:1::10", 5000), b"in")
    assert phone.take() == []
    phone.host.send(5000, Endpoint("2001:db8:2::1", 1), b"out")
    assert far.take()[0].source == Endpoint("2001:db8:1::10", 5000)
    far.host.send(1, Endpoint("2001:db8:1::10", 5000), b"in")
    far.host.send(2, Endpoint("2001:db8:1::10", 5000), b"in")
    assert len(phone.take()) == 1
    phone.host.send(5000, Endpoint(FAR, 1), b"no IPv4 here")
    assert net.dropped["no interface"] == 1


def test_hosts_move_and_spoof() -> None:
    home = Home(FULL_CONE)
    home.farther.host.spoof(Endpoint(HOME, 9), Endpoint(FAR, 1), b"lie")
    assert home.far.take()[0].source == Endpoint(HOME, 9)
    home.phone.host.attach(home.net.public, "203.0.113.50")
    assert home.out(FAR, 1) == Endpoint("203.0.113.50", 5000)
    closed = Host(home.net).attach(home.net.public, "203.0.113.51")
    home.far.host.send(1, Endpoint(closed.address(), 1), b"")
    assert home.net.dropped["port closed"] == 1


def over(link: Link, count: int = 2000, seed: int = 1) -> tuple[list[bytes], list[float]]:
    """Send numbered packets every 20 ms over a link: what arrives, and how long each was under way."""
    net = Internet(seed, start=0.0)
    near, far = Ear(net), Ear(net)
    near.host.attach(net.public, HERE, link)
    far.host.attach(net.public, FAR)
    for number in range(count):
        net.at(number * 0.02, partial(near.host.send, 1, Endpoint(FAR, 1), b"%d" % number))
    net.run(count)
    data = [datagram.data for datagram in far.heard]
    return data, [time - int(number) * 0.02 for time, number in zip(far.times, data, strict=True)]


def test_links() -> None:
    data, delays = over(Link(delay=0.03, jitter=0.01))
    assert len(data) == 2000 and all(0.03 <= delay <= 0.04 + 1e-6 for delay in delays)
    assert len(set(over(Link(loss=0.05))[0])) == pytest.approx(1900, abs=40)
    assert len(over(Link(duplicate=0.05))[0]) == pytest.approx(2100, abs=40)
    data, _ = over(Link(reorder=0.05, late=0.05))
    overtaken = sum(int(one) > int(two) for one, two in zip(data, data[1:], strict=False))
    assert len(data) == 2000 and overtaken == pytest.approx(100, abs=40)


def test_one_seed_is_one_story() -> None:
    bad = Link(delay=0.01, jitter=0.03, loss=0.1, duplicate=0.1, reorder=0.1)
    assert over(bad, seed=7) == over(bad, seed=7)
    assert over(bad, seed=7) != over(bad, seed=8)


def test_clock() -> None:
    net = Internet(start=0.0)
    done: list[tuple[str, float]] = []

    def note(what: str) -> None:
        done.append((what, net.now))

    net.after(3, lambda: note("c"))
    net.after(1, lambda: note("a"))
    net.after(1, lambda: note("b"))
    net.after(2.5, lambda: note("never")).cancel()
    net.at(-5, lambda: note("past"))
    left = [3]

    def countdown() -> bool:
        left[0] -= 1
        return left[0] > 0

    net.every(1, countdown)
    net.run(2)
    assert done == [("past", 0.0), ("a", 1.0), ("b", 1.0)]
    net.run(2)
    assert done[-1] == ("c", 3.0) and left == [0] and net.now == 4.0
