"""[shell] Which addresses this host has, and which listeners that makes of the settings.

Nothing is opened here. Linux only, read from /proc.
"""

import re
from collections.abc import Iterable
from pathlib import Path

from mediaproxy.edge.domains import is_private
from mediaproxy.edge.settings import EdgeSettings, Listener, Transport
from mediaproxy.endpoint import Endpoint, Scope, ip_address, scope

_LOCAL = re.compile(r"\|-- (\d+\.\d+\.\d+\.\d+)\n\s+/32 host LOCAL")
_TENTATIVE = 0x40 | 0x08
"IFA_F_TENTATIVE, IFA_F_DADFAILED: an IPv6 address that cannot be bound."


def host_addresses() -> tuple[str, ...]:
    """The unicast addresses of all interfaces, IPv4 first; link-local ones, which need a zone, left out."""
    found: dict[str, None] = {}
    table = Path("/proc/net/fib_trie")
    if table.exists():
        found |= dict.fromkeys(_LOCAL.findall(table.read_text()))
    table = Path("/proc/net/if_inet6")
    if table.exists():
        for line in table.read_text().splitlines():
            digits, _, _, _, flags, _ = line.split()
            address = ip_address(":".join(digits[at : at + 4] for at in range(0, 32, 4)))
            if address is not None and not int(flags, 16) & _TENTATIVE:
                found[str(address)] = None
    return tuple(one for one in found if scope(one) not in (Scope.LINK_LOCAL, Scope.BROADCAST, Scope.UNSPECIFIED))


def listeners_of(settings: EdgeSettings, addresses: Iterable[str] | None = None) -> tuple[Listener, ...]:
    """The listeners of the settings with wildcards expanded; without any, UDP and TCP on port 5060 of every loopback
    and private address. ``addresses``: those of the host; None: ask it."""
    present = host_addresses() if addresses is None else tuple(addresses)
    if not settings.listeners:
        wanted = [
            Listener(transport=transport, bind=Endpoint.of(one, transport.default_port))
            for one in present
            if is_private(one)
            for transport in (Transport.UDP, Transport.TCP)
        ]
    else:
        wanted = [one for listener in settings.listeners for one in _expanded(listener, present)]
    return tuple(dict.fromkeys(wanted))


def _expanded(listener: Listener, present: Iterable[str]) -> Iterable[Listener]:
    if scope(listener.bind.address) is not Scope.UNSPECIFIED:
        return [listener]
    version = listener.bind.version
    binds = [Endpoint.of(one, listener.bind.port) for one in present if (":" in one) == (version == 6)]
    return [
        Listener(
            transport=listener.transport,
            bind=bind,
            # What is advertised stands for the host's way to the Internet, which loopback is not.
            advertise=None if scope(bind.address) is Scope.LOOPBACK else listener.advertise,
        )
        for bind in binds
    ]
