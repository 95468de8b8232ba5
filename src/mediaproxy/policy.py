"""What the operator decided about traversal, as a value: whom to trust, who is ours, which clients are asymmetric.

Hosts make one from their settings, and again when these change. Nothing here reads files.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Network, IPv6Network, ip_network

from mediaproxy.agents import AgentList
from mediaproxy.endpoint import address_text, ip_address
from mediaproxy.sdp import IcePolicy


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What the operator decided. ValueError if a prefix is none."""

    trusted_proxies: tuple[str, ...] = ()
    "Addresses or prefixes of SIP servers before us, whose Via ``received`` is believed (calls.md 1)."
    local_domains: frozenset[str] | None = None
    "Domains and addresses whose users are ours, in any case of letters; None: the door does not know (calls.md 20)."
    is_local_domain: Callable[[str], bool] | None = None
    "Asked about a domain if the SIP server knows better than any list (Kamailio's domain module); None: it does not."
    sip_asymmetric: AgentList = field(default_factory=AgentList)
    rtp_asymmetric: AgentList = field(default_factory=AgentList)
    nat_tests: int = 7
    "The tests of client_nat_test by which ``repair`` judges requests."
    ice: IcePolicy = IcePolicy.KEEP
    _networks: tuple[IPv4Network | IPv6Network, ...] = field(init=False, repr=False, compare=False)
    _domains: frozenset[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        networks = tuple(ip_network(prefix, strict=False) for prefix in self.trusted_proxies)
        object.__setattr__(self, "_networks", networks)
        object.__setattr__(self, "_domains", frozenset(domain_of(name) for name in self.local_domains or ()))

    def with_ice(self, ice: IcePolicy) -> "Policy":
        """The same with another treatment of ICE."""
        return self if ice is self.ice else replace(self, ice=ice)

    def trusts(self, address: str) -> bool:
        """Whether a trusted proxy has this address."""
        if not self._networks:
            return False
        ip = ip_address(address.partition("%")[0])
        return ip is not None and any(ip in network for network in self._networks)

    def is_local(self, domain: str) -> bool | None:
        """Whether a domain is ours; None if that is not known."""
        if self.is_local_domain is not None:
            return self.is_local_domain(domain)
        return None if self.local_domains is None else domain_of(domain) in self._domains


def domain_of(host: str) -> str:
    """A host as domains are compared: lower case, no final dot, an address in canonical text without brackets."""
    return address_text(host) or host.lower().rstrip(".")
