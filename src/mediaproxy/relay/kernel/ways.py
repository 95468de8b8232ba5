"""By which interface each target is reached, and how long a packet may be there: remembered, until routes change.

Addresses come in, a Way goes out. Asking the kernel takes some microseconds, and a relay asks for the same few thousand
phones again and again.
"""

from collections.abc import Iterable
from dataclasses import replace

from mediaproxy.endpoint import Endpoint
from mediaproxy.relay.kernel.netlink import ETHERNET, Link, Netlink, Way

_KEPT = 100_000


class Ways:
    """Mutable: the ways that are known, and the interfaces."""

    def __init__(self, netlink: Netlink) -> None:
        self._netlink = netlink
        self._known: dict[tuple[str, str], Way | None] = {}
        self.links: dict[int, Link] = {}
        "By index."
        self.routers: set[str] = set()
        "Those that ways of IPv4 lead to."
        self._xdp: frozenset[int] = frozenset()
        self.forget()

    def let_xdp(self, interfaces: Iterable[int]) -> None:
        """XDP may send by these interfaces, and no others."""
        now = frozenset(interfaces)
        if now != self._xdp:
            self._xdp = now
            self._known.clear()

    def find(self, local: Endpoint, target: Endpoint | None) -> Way | None:
        """The way from a lent port to a target; None: there is no target, or no way."""
        if target is None:
            return None
        key = (local.address, target.address)
        try:
            return self._known[key]
        except KeyError:
            pass
        way = self._netlink.way(*key)
        if way is not None and way.ifindex in self.links:
            link = self.links[way.ifindex]
            if target.version == 4 and way.gateway is not None:
                self.routers.add(way.gateway)
            gateway, xdp = self._neighbour(link, target, way), way.ifindex in self._xdp
            way = replace(way, mtu=way.mtu or link.mtu, gateway=gateway, xdp=xdp)
        if len(self._known) >= _KEPT:
            self._known.clear()
        self._known[key] = way
        return way

    def narrow(self, local: Endpoint, target: Endpoint | None) -> bool:
        """Whether a router has said since the way was found that packets are too long for it (RFC 1191, RFC 8201).
        The kernel believes that for ten minutes, and tells nobody; here it holds until routes change."""
        if target is None:
            return False
        key = (local.address, target.address)
        known, now = self._known.get(key), self._netlink.way(*key)
        if known is None or now is None or now.ifindex != known.ifindex or not 0 < now.mtu < known.mtu:
            return False
        self._known[key] = replace(known, mtu=now.mtu)
        return True

    @property
    def fickle(self) -> bool:
        """Whether ways may be others when one of the ``routers`` falls silent."""
        return 4 in self._choice

    def forget(self) -> None:
        """Routes or interfaces have changed. OSError."""
        self._known.clear()
        self.routers.clear()
        self.links = self._netlink.links()
        self._choice = self._netlink.choice()

    def _neighbour(self, link: Link, target: Endpoint, way: Way) -> str | None:
        """Who takes the packet. None on lo, where a packet without a route is taken for a forgery, and in tunnels,
        which have no neighbours. Nor is it one of several routers of IPv6: if it falls silent the kernel takes another
        one (RFC 4861 §6.3.6), for no route has changed. So it may with IPv4, but not where a program sends: there it
        takes the first router on the interface, whether that answers or not."""
        if link.type != ETHERNET or (way.gateway is not None and target.version == 6 and 6 in self._choice):
            return None
        return way.gateway or target.address
