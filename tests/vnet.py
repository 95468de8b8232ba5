"""A toy Internet with a virtual clock: hosts, NATs of all nine kinds, bad links, IPv4 and IPv6, no sockets.

Datagrams go in at a host, come out at another host or are counted in ``dropped`` with the reason. Time moves only in
``Internet.run``, always to the earliest event, and all chance comes from one seed: the same story gives the same
packets. It knows nothing of SIP, RTP or relays.
"""

import heapq
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum, IntEnum
from typing import NamedTuple, Protocol

from mediaproxy.endpoint import Endpoint


class Datagram(NamedTuple):
    """One UDP datagram, as it looks where it is seen: NATs make new ones."""

    source: Endpoint
    target: Endpoint
    data: bytes


class Dependence(IntEnum):
    """What a NAT's mapping or filtering looks at besides the inner endpoint (RFC 4787 §4.1 and §5)."""

    ENDPOINT_INDEPENDENT = 0
    ADDRESS_DEPENDENT = 1
    ADDRESS_AND_PORT_DEPENDENT = 2

    def key(self, remote: Endpoint) -> tuple[str | int, ...]:
        """The part of the remote endpoint that makes a difference."""
        return () if self == 0 else (remote.address,) if self == 1 else (remote.address, remote.port)


class Kind(NamedTuple):
    """One of the nine kinds of NAT."""

    mapping: Dependence
    filtering: Dependence

    def __str__(self) -> str:
        return f"{('EIM', 'ADM', 'APDM')[self.mapping]}-{('EIF', 'ADF', 'APDF')[self.filtering]}"


KINDS = tuple(Kind(mapping, filtering) for mapping in Dependence for filtering in Dependence)
FULL_CONE = Kind(Dependence.ENDPOINT_INDEPENDENT, Dependence.ENDPOINT_INDEPENDENT)
RESTRICTED = Kind(Dependence.ENDPOINT_INDEPENDENT, Dependence.ADDRESS_AND_PORT_DEPENDENT)
"Port-restricted cone, what Linux routers come closest to."
SYMMETRIC = Kind(Dependence.ADDRESS_AND_PORT_DEPENDENT, Dependence.ADDRESS_AND_PORT_DEPENDENT)


class Ports(Enum):
    """How a NAT chooses the outer port of a new mapping."""

    RANDOM = "random"
    SEQUENTIAL = "sequential"
    PRESERVE = "preserve"
    "The inner port if it is free, else a random one."


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """What happens on the way between a node and its network, in each direction. Seconds; probabilities 0 to 1."""

    delay: float = 0.0
    jitter: float = 0.0
    "Up to so much is added to the delay; more than the distance of two packets reorders them."
    loss: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0
    "The chance of a packet to be held back by ``late``, so that those behind it overtake it."
    late: float = 0.05


PERFECT = Link()
DSL = Link(delay=0.01)


class Timer:
    """A call to come."""

    __slots__ = ("action",)

    def __init__(self, action: Callable[[], None]) -> None:
        self.action: Callable[[], None] | None = action

    def cancel(self) -> None:
        """It will not happen."""
        self.action = None


class Internet:
    """The clock, the queue of events, the dice and the public network."""

    def __init__(self, seed: int = 1, start: float = 1_700_000_000.0) -> None:
        self.now = start
        self.rng = random.Random(seed)
        self.dropped: Counter[str] = Counter()
        self.public = Network(self)
        self._queue: list[tuple[float, int, Timer]] = []
        self._count = 0

    def at(self, when: float, action: Callable[[], None]) -> Timer:
        """Do something at a time; the past is now. Events of one time happen in the order in which they were set."""
        timer = Timer(action)
        self._count += 1
        heapq.heappush(self._queue, (max(when, self.now), self._count, timer))
        return timer

    def after(self, delay: float, action: Callable[[], None]) -> Timer:
        """Do something so many seconds from now."""
        return self.at(self.now + delay, action)

    def every(self, period: float, action: Callable[[], object]) -> None:
        """Do something again and again, first one period from now, until it returns False."""

        def again() -> None:
            if action() is not False:
                self.after(period, again)

        self.after(period, again)

    def run(self, seconds: float) -> None:
        """Let time pass, event by event."""
        end = self.now + seconds
        while self._queue and self._queue[0][0] <= end:
            when, _, timer = heapq.heappop(self._queue)
            self.now = when
            if timer.action is not None:
                timer.action()
        self.now = end

    def over(self, link: Link, datagram: Datagram, arrive: Callable[[Datagram], None]) -> None:
        """Carry a datagram over a link: it arrives late, twice or never."""
        if link is PERFECT:
            arrive(datagram)
            return
        chance = self.rng.random
        for _ in range(2 if link.duplicate and chance() < link.duplicate else 1):
            if link.loss and chance() < link.loss:
                self.dropped["loss"] += 1
                continue
            delay = link.delay + (link.jitter * chance() if link.jitter else 0.0)
            if link.reorder and chance() < link.reorder:
                delay += link.late
            self.after(delay, lambda: arrive(datagram))


class Node(Protocol):
    """What has an address in a network: a host or a gateway."""

    def receive(self, datagram: Datagram) -> None:
        """A datagram to one of its addresses has arrived."""


class Gateway(Node, Protocol):
    """The way from a network to the one around it."""

    def outbound(self, datagram: Datagram) -> None:
        """A datagram that the inside network has no node for."""


class Network:
    """Addresses that reach each other directly: the public Internet, a home, a carrier's inside."""

    def __init__(self, net: Internet, gateway: Gateway | None = None) -> None:
        self.net = net
        self.gateway = gateway
        self.nodes: dict[str, tuple[Node, Link]] = {}

    def attach(self, node: Node, address: str, link: Link = PERFECT) -> None:
        """Give a node an address here; the link is used both ways."""
        assert address not in self.nodes, f"{address} is taken"
        self.nodes[address] = (node, link)

    def detach(self, address: str) -> None:
        """The address is free again; packets on their way to it are lost."""
        del self.nodes[address]

    def carry(self, datagram: Datagram, link: Link = PERFECT) -> None:
        """Send a datagram from a node here whose own link is ``link``."""
        self.net.over(link, datagram, self._route)

    def _route(self, datagram: Datagram) -> None:
        found = self.nodes.get(datagram.target.address)
        if found is not None:
            self.net.over(found[1], datagram, self._arrive)
        elif self.gateway is not None:
            self.gateway.outbound(datagram)
        else:
            self.net.dropped["no route"] += 1

    def _arrive(self, datagram: Datagram) -> None:
        found = self.nodes.get(datagram.target.address)
        if found is None:
            self.net.dropped["no route"] += 1
        else:
            found[0].receive(datagram)


Receiver = Callable[[Datagram], None]


class Host:
    """A computer with at most one IPv4 and one IPv6 address and as many ports as it binds."""

    def __init__(self, net: Internet) -> None:
        self.net = net
        self._interfaces: dict[int, tuple[Network, str, Link]] = {}
        self._ports: dict[int, Receiver] = {}
        self.otherwise: Receiver | None = None
        "Gets what comes to ports that are not bound; None: it is dropped."

    def attach(self, network: Network, address: str, link: Link = PERFECT) -> "Host":
        """Join a network. An address of the same IP version that it had is given up: the host has moved."""
        version = Endpoint.of(address, 0).version
        if version in self._interfaces:
            old, old_address, _ = self._interfaces[version]
            old.detach(old_address)
        network.attach(self, address, link)
        self._interfaces[version] = (network, address, link)
        return self

    def address(self, version: int = 4) -> str:
        """Its own address, as the host itself sees it."""
        return self._interfaces[version][1]

    def bind(self, port: int, receive: Receiver) -> None:
        """From now on datagrams to this port go there."""
        self._ports[port] = receive

    def send(self, port: int, target: Endpoint, data: bytes) -> None:
        """Send from one of its ports, by the interface of the target's IP version."""
        interface = self._interfaces.get(target.version)
        if interface is None:
            self.net.dropped["no interface"] += 1
            return
        network, address, link = interface
        network.carry(Datagram(Endpoint(address, port), target, data), link)

    def spoof(self, source: Endpoint, target: Endpoint, data: bytes) -> None:
        """Send with somebody else's source address, as a host can whose provider does not filter (BCP 38)."""
        network, _, link = self._interfaces[target.version]
        network.carry(Datagram(source, target, data), link)

    def receive(self, datagram: Datagram) -> None:
        receiver = self._ports.get(datagram.target.port, self.otherwise)
        if receiver is None:
            self.net.dropped["port closed"] += 1
        else:
            receiver(datagram)


@dataclass(slots=True)
class _Mapping:
    inside: Endpoint
    outside: Endpoint
    key: tuple[Endpoint, tuple[str | int, ...]]
    used: float
    permitted: dict[tuple[str | int, ...], float] = field(default_factory=dict)
    "Filter key of a remote -> when it was last sent to (or heard, if the NAT lets inbound refresh)."


@dataclass(kw_only=True)
class Nat:
    """A router that translates the addresses of ``inside`` to its own in ``outer`` (RFC 4787)."""

    outer: Network
    addresses: Sequence[str]
    "Its addresses in the outer network; more than one makes a pool."
    kind: Kind = RESTRICTED
    link: Link = DSL
    lifetime: float = 120.0
    "Seconds without outbound packets after which a mapping and what its filter lets in are forgotten."
    inbound_refresh: bool = False
    "Packets from outside that the filter lets in count too (RFC 4787 REQ-6)."
    hairpin: bool = False
    "Packets from inside to an outer mapping are turned round (RFC 4787 REQ-9), with their outer source."
    ports: Ports = Ports.RANDOM
    paired: bool = True
    "One inner address keeps one address of the pool (RFC 4787 REQ-2); False: each mapping draws one."

    def __post_init__(self) -> None:
        self.net = self.outer.net
        self.inside = Network(self.net, self)
        self._by_key: dict[tuple[Endpoint, tuple[str | int, ...]], _Mapping] = {}
        self._by_outside: dict[Endpoint, _Mapping] = {}
        self._pairs: dict[str, str] = {}
        self._next_port = 20000
        for address in self.addresses:
            self.outer.attach(self, address, self.link)

    def outbound(self, datagram: Datagram) -> None:
        mapping = self._find(datagram.source, datagram.target) or self._create(datagram.source, datagram.target)
        mapping.used = self.net.now
        mapping.permitted[self.kind.filtering.key(datagram.target)] = self.net.now
        translated = Datagram(mapping.outside, datagram.target, datagram.data)
        if datagram.target.address not in self.addresses:
            self.outer.carry(translated, self.link)
        elif self.hairpin:
            self.receive(translated)
        else:
            self.net.dropped["hairpin"] += 1

    def receive(self, datagram: Datagram) -> None:
        mapping = self._by_outside.get(datagram.target)
        if mapping is None or not self._alive(mapping):
            self.net.dropped["no mapping"] += 1
            return
        key = self.kind.filtering.key(datagram.source)
        if self.net.now - mapping.permitted.get(key, float("-inf")) > self.lifetime:
            self.net.dropped["filtered"] += 1
            return
        if self.inbound_refresh:
            mapping.used = mapping.permitted[key] = self.net.now
        self.inside.carry(Datagram(datagram.source, mapping.inside, datagram.data))

    def mapped(self, inside: Endpoint, remote: Endpoint) -> Endpoint | None:
        """The living outer endpoint by which ``inside`` speaks to ``remote``."""
        mapping = self._find(inside, remote)
        return mapping.outside if mapping else None

    def rebind(self, address: str | None = None) -> None:
        """Reboot: all mappings are lost, new ones get other ports; with ``address`` the public address is new too."""
        self._by_key.clear()
        self._by_outside.clear()
        self._pairs.clear()
        self._next_port += 1000
        if address is not None:
            for old in self.addresses:
                self.outer.detach(old)
            self.addresses = (address,)
            self.outer.attach(self, address, self.link)

    def _alive(self, mapping: _Mapping) -> bool:
        return self.net.now - mapping.used <= self.lifetime

    def _find(self, inside: Endpoint, remote: Endpoint) -> _Mapping | None:
        mapping = self._by_key.get((inside, self.kind.mapping.key(remote)))
        return mapping if mapping is not None and self._alive(mapping) else None

    def _create(self, inside: Endpoint, remote: Endpoint) -> _Mapping:
        for dead in [mapping for mapping in self._by_key.values() if not self._alive(mapping)]:
            del self._by_key[dead.key], self._by_outside[dead.outside]
        key = (inside, self.kind.mapping.key(remote))
        mapping = _Mapping(inside, self._outside(inside), key, self.net.now)
        self._by_key[key] = self._by_outside[mapping.outside] = mapping
        return mapping

    def _outside(self, inside: Endpoint) -> Endpoint:
        address = self.net.rng.choice(self.addresses)
        if self.paired:
            address = self._pairs.setdefault(inside.address, address)
        outside = Endpoint(address, inside.port)
        while self.ports is not Ports.PRESERVE or outside in self._by_outside:
            if self.ports is Ports.SEQUENTIAL:
                self._next_port += 1
                outside = Endpoint(address, self._next_port)
            else:
                outside = Endpoint(address, self.net.rng.randrange(1024, 65536))
            if outside not in self._by_outside:
                break
        return outside


@dataclass(kw_only=True)
class OneToOne:
    """A cloud's static NAT: one outer address stands for one inside address, all ports, no filter."""

    outer: Network
    address: str
    inner: str
    link: Link = DSL

    def __post_init__(self) -> None:
        self.inside = Network(self.outer.net, self)
        self.outer.attach(self, self.address, self.link)

    def outbound(self, datagram: Datagram) -> None:
        assert datagram.source.address == self.inner
        source = Endpoint(self.address, datagram.source.port)
        self.outer.carry(Datagram(source, datagram.target, datagram.data), self.link)

    def receive(self, datagram: Datagram) -> None:
        target = Endpoint(self.inner, datagram.target.port)
        self.inside.carry(Datagram(datagram.source, target, datagram.data))


@dataclass(kw_only=True)
class Firewall:
    """A stateful firewall without translation, as IPv6 homes have (RFC 6092): answers come in, nothing else does."""

    outer: Network
    link: Link = DSL
    lifetime: float = 120.0

    def __post_init__(self) -> None:
        self.inside = Network(self.outer.net, self)
        self._seen: dict[tuple[Endpoint, Endpoint], float] = {}

    def admit(self, host: Host, address: str) -> Host:
        """Put a host behind it; its address is valid outside too."""
        self.outer.attach(self, address, self.link)
        return host.attach(self.inside, address)

    def outbound(self, datagram: Datagram) -> None:
        self._seen[datagram.source, datagram.target] = self.outer.net.now
        self.outer.carry(datagram, self.link)

    def receive(self, datagram: Datagram) -> None:
        seen = self._seen.get((datagram.target, datagram.source), float("-inf"))
        if self.outer.net.now - seen <= self.lifetime:
            self.inside.carry(datagram)
        else:
            self.outer.net.dropped["filtered"] += 1
