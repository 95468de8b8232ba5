"""Which relays serve which SIP domains, as configured and as DNS says.

Questions and DNS records come in, groups of relays for the pool go out. In this order, and each only where the one
before it names nobody who can take the call: the configured relays of the parties' domains, or, if there are none,
those that DNS names for them; then the relays that serve all domains. Of two parties the one whose domain is ours comes
first, then the caller.
"""

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from mediaproxy.control import Party, Question
from mediaproxy.dispatcher.pool import Groups, Relay
from mediaproxy.dispatcher.settings import Lookup
from mediaproxy.link.address import Address, Kind, host_text

_SMALLEST = 0.01
"Weight of an SRV record of weight 0: a small chance beside others (RFC 2782)."


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """One SRV record."""

    host: str
    "Small letters, no dot at the end."
    port: int
    priority: int
    weight: int


class Directory:
    """Configured relays, and how to make relays of SRV records."""

    def __init__(
        self,
        relays: Iterable[Relay],
        domains: Mapping[str, Sequence[str]] | None = None,
        addresses: Mapping[str, Address] | None = None,
    ) -> None:
        """``domains``: relay -> patterns of domains that it serves, none: it serves all that nobody else does.
        ``addresses``: relay -> where it is, for those that are not in this process."""
        domains = domains or {}
        self._everybody = tuple(relay for relay in relays if not domains.get(relay.name))
        self._own = [
            (relay, tuple(host_text(pattern) for pattern in domains[relay.name]))
            for relay in relays
            if domains.get(relay.name)
        ]
        self._by_place: dict[tuple[str, int], Relay] = {}
        self._by_name = {host_text(relay.name): relay for relay in relays}
        for relay in relays:
            address = (addresses or {}).get(relay.name)
            if address is not None and address.kind is not Kind.UNIX:
                self._by_place[(address.host, address.port)] = relay

    def configured(self, domains: Iterable[str]) -> Groups:
        """The groups of the domains that have relays of their own, in the order of the domains."""
        if not self._own:
            return ()
        groups = (
            tuple(relay for relay, patterns in self._own if any(_fits(domain, one) for one in patterns))
            for domain in domains
        )
        return tuple(group for group in groups if group)

    def everybody(self) -> tuple[Relay, ...]:
        """The relays that serve all domains."""
        return self._everybody

    def named(self, targets: Iterable[Target], *, strangers: bool) -> tuple[Relay, ...]:
        """The relays that SRV records name: priority is tier, weight is share. A relay that is not configured is named
        by its address; ``strangers``: those count, too."""
        found: dict[str, Relay] = {}
        for target in targets:
            known = self._by_place.get((target.host, target.port)) or self._by_name.get(target.host)
            if known is None and not strangers:
                continue
            name = known.name if known is not None else address_of(target)
            # A configured weight of 0 drains the relay, whatever DNS says.
            weight = max(float(target.weight), _SMALLEST) if known is None or known.weight > 0 else 0.0
            found.setdefault(name, Relay(name=name, weight=weight, tier=target.priority))
        return tuple(found.values())


def address_of(target: Target) -> str:
    """Where the relay of an SRV record is: over TLS, as nobody knows what lies between."""
    return str(Address(kind=Kind.TLS, host=target.host, port=target.port))


def domains_of(question: Question) -> tuple[str, ...]:
    """The parties' domains in the order in which they count."""
    return tuple(dict.fromkeys(host_text(party.domain) for party in _parties(question)))


def looked_up(question: Question, lookup: Lookup) -> tuple[str, ...]:
    """Those of them whose relays are looked for in DNS."""
    if lookup is Lookup.NOBODY:
        return ()
    parties = (party for party in _parties(question) if lookup is Lookup.EVERYBODY or party.local is not False)
    return tuple(dict.fromkeys(host_text(party.domain) for party in parties))


def _parties(question: Question) -> list[Party]:
    parties = [question.sender, question.receiver]
    if question.status:  # a response: its sender is who was called
        parties.reverse()
    return sorted((party for party in parties if party.domain), key=lambda party: party.local is not True)


def _fits(domain: str, pattern: str) -> bool:
    return domain == pattern or (pattern.startswith("*.") and domain.endswith(pattern[1:]))
