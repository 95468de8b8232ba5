"""Transport addresses: an IP address and a port, and what kind of network an address belongs to.

Text comes in (from SIP, SDP, config or a socket), a comparable, hashable value goes out. Nothing here resolves names:
a host name is never an Endpoint.
"""

import ipaddress
import re
from collections.abc import Iterable
from enum import StrEnum
from functools import lru_cache

import msgspec

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


class Scope(StrEnum):
    """What kind of network an address belongs to, as far as NAT traversal cares."""

    PRIVATE = "private"
    "RFC 1918: 10/8, 172.16/12, 192.168/16."
    SHARED = "shared"
    "RFC 6598 carrier-grade NAT space: 100.64/10."
    ULA = "ula"
    "RFC 4193 unique local IPv6: fc00::/7."
    LOOPBACK = "loopback"
    "127/8 and ::1."
    LINK_LOCAL = "link-local"
    "169.254/16 and fe80::/10."
    UNSPECIFIED = "unspecified"
    "0.0.0.0/8 and ::; in SDP the hold of RFC 2543."
    MULTICAST = "multicast"
    "224/4 and ff00::/8."
    BROADCAST = "broadcast"
    "255.255.255.255 and the reserved 240/4."
    PUBLIC = "public"
    "Everything else; documentation prefixes count as public, laboratories use them so."


def _ranges(prefixes: Iterable[tuple[str, Scope]]) -> tuple[tuple[int, int, Scope], ...]:
    """The first and the last address of each prefix, as numbers."""
    networks = [(ipaddress.ip_network(prefix), scope) for prefix, scope in prefixes]
    return tuple((int(network[0]), int(network[-1]), scope) for network, scope in networks)


_V4_SCOPES = _ranges(
    (
        ("10.0.0.0/8", Scope.PRIVATE),
        ("172.16.0.0/12", Scope.PRIVATE),
        ("192.168.0.0/16", Scope.PRIVATE),
        ("100.64.0.0/10", Scope.SHARED),
        ("127.0.0.0/8", Scope.LOOPBACK),
        ("169.254.0.0/16", Scope.LINK_LOCAL),
        ("0.0.0.0/8", Scope.UNSPECIFIED),
        ("224.0.0.0/4", Scope.MULTICAST),
        ("240.0.0.0/4", Scope.BROADCAST),
    )
)
_V6_SCOPES = _ranges(
    (
        ("fc00::/7", Scope.ULA),
        ("::1/128", Scope.LOOPBACK),
        ("fe80::/10", Scope.LINK_LOCAL),
        ("::/128", Scope.UNSPECIFIED),
        ("ff00::/8", Scope.MULTICAST),
    )
)


_BYTE = r"(25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)"
_V4 = re.compile(r"\.".join([_BYTE] * 4), re.ASCII)
"IPv4 as nearly everybody spells it, which is the canonical text."
_LONGEST = 80
"No address is longer in any spelling. Longer texts are not looked at, let alone remembered: peers write them."


def ip_address(text: str) -> IPAddress | None:
    """The address that ``text`` spells (IPv6 with or without brackets), or None if it is none, a host name for example.

    An IPv4-mapped IPv6 address (::ffff:192.0.2.1) is the IPv4 address: a dual-stack socket reports phones so.
    """
    return _ip_address(text) if len(text) <= _LONGEST else None


@lru_cache(maxsize=65536)
def _ip_address(text: str) -> IPAddress | None:
    number = _v4_number(text)
    if number is not None:
        return ipaddress.IPv4Address(number)
    if text.startswith("[") and text.endswith("]"):
        text = text[1:-1]
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def _v4_number(text: str) -> int | None:
    """A tenth of what ipaddress takes; None: it is no IPv4 address, or ``_V4`` does not know it."""
    found = _V4.fullmatch(text)
    if found is None:
        return None
    one, two, three, four = map(int, found.groups())
    return one << 24 | two << 16 | three << 8 | four


def address_text(text: str) -> str | None:
    """The canonical text of the address that ``text`` spells, or None if it is none."""
    return _address_text(text) if len(text) <= _LONGEST else None


@lru_cache(maxsize=65536)
def _address_text(text: str) -> str | None:
    if _V4.fullmatch(text) is not None:
        return text
    address = _ip_address(text)
    return None if address is None else str(address)


def scope(text: str) -> Scope | None:
    """The kind of network that the address ``text`` belongs to; None if ``text`` is no IP address."""
    return _scope(text) if len(text) <= _LONGEST else None


@lru_cache(maxsize=65536)
def _scope(text: str) -> Scope | None:
    number, ranges = _v4_number(text), _V4_SCOPES
    if number is None:
        address = ip_address(text)
        if address is None:
            return None
        number, ranges = int(address), _V4_SCOPES if address.version == 4 else _V6_SCOPES
    for first, last, kind in ranges:
        if first <= number <= last:
            return kind
    return Scope.PUBLIC


class Endpoint(msgspec.Struct, frozen=True, order=True, cache_hash=True):
    """An IP address and a port of UDP or TCP. The address is kept in canonical text, IPv6 without brackets."""

    address: str
    "IPv4 or IPv6 in canonical text, for example ``192.0.2.1`` or ``2001:db8::1``."
    port: int
    "0 to 65535."

    @classmethod
    def of(cls, address: str, port: int) -> "Endpoint":
        """An Endpoint of an address in any spelling. ValueError if it is no IP address or the port is out of range."""
        parsed = address_text(address)
        if parsed is None:
            raise ValueError(f"{address!r} is not an IP address")
        if not 0 <= port <= 65535:
            raise ValueError(f"port {port} is not in 0..65535")
        return cls(parsed, port)

    @classmethod
    def parse(cls, text: str) -> "Endpoint":
        """Read ``192.0.2.1:5060`` or ``[2001:db8::1]:5060``. ValueError says what was wrong."""
        host, colon, port = text.rpartition(":")
        if not colon or not port.isascii() or not port.isdigit() or (":" in host and not host.startswith("[")):
            raise ValueError(f"{text!r} is not ADDRESS:PORT (an IPv6 address needs brackets)")
        return cls.of(host, int(port))

    @property
    def version(self) -> int:
        """4 or 6."""
        return 6 if ":" in self.address else 4

    @property
    def host(self) -> str:
        """The address as a URI writes it: IPv6 in brackets (RFC 3261 §25.1 host)."""
        return f"[{self.address}]" if ":" in self.address else self.address

    def with_port(self, port: int) -> "Endpoint":
        """The same address with another port."""
        return Endpoint(self.address, port)

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


def same_prefix(one: str, other: str, v4_bits: int = 32, v6_bits: int = 64) -> bool:
    """Whether two addresses of the same family share their first ``v4_bits`` or ``v6_bits`` bits.

    The defaults are those of calls.md 2: a whole IPv4 address, and /64 of an IPv6 one, because privacy addresses
    (RFC 8981) differ between the SIP and the RTP socket of one phone. Text that is no address shares nothing.
    """
    if one == other:
        return ip_address(one) is not None
    a, b = ip_address(one), ip_address(other)
    if a is None or b is None or a.version != b.version:
        return False
    shift = 32 - v4_bits if a.version == 4 else 128 - v6_bits
    return int(a) >> shift == int(b) >> shift
