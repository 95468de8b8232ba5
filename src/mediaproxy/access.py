"""Who may ask, at a door or by HTTP: addresses come in, yes or no goes out.

Known addresses are remembered, because each datagram is asked about, and forgotten before they are too many.
"""

import ipaddress
from collections.abc import Iterable

from mediaproxy.endpoint import ip_address

LOOPBACK = ("127.0.0.0/8", "::1/128")
"Who may ask if nobody is named: this host."
_MOST = 4096
_MAPPED = ipaddress.IPv6Network("::ffff:0:0/96")


class AccessList:
    """The addresses and prefixes of one listener. ValueError if one is none."""

    def __init__(self, allow: Iterable[str] = ()) -> None:
        """``allow``: addresses or prefixes; none: this host."""
        self._networks = [_network(text) for text in allow or LOOPBACK]
        self._known: dict[str, bool] = {}

    def admits(self, address: str) -> bool:
        """Whether the address (IPv6 perhaps with its zone) is in the list; text that is no address is not."""
        known = self._known.get(address)
        if known is None:
            if len(self._known) >= _MOST:
                self._known.clear()
            parsed = ip_address(address.partition("%")[0])
            known = parsed is not None and any(parsed in network for network in self._networks)
            self._known[address] = known
        return known


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    """An address or prefix; one of IPv4-mapped addresses is that of these IPv4 addresses, as ``ip_address`` has it."""
    network = ipaddress.ip_network(text, strict=False)
    if isinstance(network, ipaddress.IPv6Network) and network.prefixlen >= _MAPPED.prefixlen:
        inner = network.network_address.ipv4_mapped
        if inner is not None:
            return ipaddress.IPv4Network((inner, network.prefixlen - _MAPPED.prefixlen))
    return network
