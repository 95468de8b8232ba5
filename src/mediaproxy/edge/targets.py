"""Whom a request goes to (RFC 3261 §16.5), and whether it may go there.

A request that has passed the gate comes in; targets or a refusal go out. It looks into the location table and changes
nothing.
"""

from collections.abc import Sequence
from typing import Protocol, TypeAlias

from mediaproxy.edge import fork
from mediaproxy.edge.binding import Binding
from mediaproxy.edge.domains import Domains
from mediaproxy.edge.gate import Gate, Pass
from mediaproxy.edge.hop import Inbound
from mediaproxy.edge.routing import Refusal, Routed, next_hop, places_of, rule_for
from mediaproxy.edge.settings import EdgeSettings
from mediaproxy.endpoint import Endpoint
from mediaproxy.sip.header import Uri

Groups: TypeAlias = list[tuple[fork.Target, ...]]


class Directory(Protocol):
    """The location table."""

    def lookup(self, aor: str, now: float) -> tuple[Binding, ...]:
        """The contacts of a user."""

    def knows(self, place: Endpoint) -> bool:
        """Whether a registered phone is at that address, whatever the port; on loopback, which many share, with it."""


class Targets:
    """Finds them."""

    def __init__(self, settings: EdgeSettings, domains: Domains, directory: Directory, gate: Gate) -> None:
        self.settings = settings
        self._domains = domains
        self._directory = directory
        self._gate = gate

    def may_follow(self, routed: Routed, inbound: Inbound) -> bool:
        """Whether a request may go where it wants because of the dialog that it is in. That is where the dialog led
        when it began; a party may have moved since, so what comes from a phone of ours or goes to one passes, too."""
        if not routed.marked or routed.leads:
            return routed.leads
        if self._directory.knows(inbound.source) or self._gate.lenient(inbound):
            return True
        places = places_of(next_hop(routed.request))
        return bool(places) and all(place is not None and self._directory.knows(place) for place in places)

    def registered(self, uri: Uri, marked: bool, now: float) -> tuple[Binding, ...]:
        """The contacts of an own user; empty if there are none, or the user is not ours. ``marked``: the URI stands in
        a request within a dialog."""
        if not uri.user or not self._domains.owns(uri, exactly=marked):
            return ()
        for aor in self._domains.addresses_of_record(uri):
            bindings = self._directory.lookup(aor, now)
            if bindings:
                # RFC 5630 §5.3: not a step of the way without TLS.
                return bindings if uri.scheme != "sips" else tuple(b for b in bindings if b.transport == "tls")
        return ()

    def find(self, passed: Pass, marked: bool, now: float) -> Groups | Refusal:
        """The targets of a request, and in which order they are tried. ``marked``: it is in a dialog of ours."""
        request = passed.request
        uri = request.uri
        if request.routes:
            return [(fork.Target(),)] if passed.privileged else Refusal(status=403, why="a Route to somebody else")
        bindings = self.registered(uri, marked, now)
        if bindings:
            return self.groups(bindings)
        owned = self._domains.owns(uri, exactly=marked)
        rule = rule_for(uri, self.settings.routes) if not marked else None
        if rule is not None and passed.routes:
            return [(fork.Target(next_hop=Uri.parse(rule.to)),)]
        if rule is not None and owned and self._gate.realm is not None:
            return self._gate.challenge(now)  # a caller who hides in From may still have a password
        if owned:
            return Refusal(status=480 if self._gate.knows(uri) else 404)
        if not passed.privileged:
            return Refusal(status=403, why=f"a foreign target, {uri.host[:80]}")
        return [(fork.Target(),)]

    def groups(self, bindings: Sequence[Binding]) -> Groups | Refusal:
        """A user's contacts as targets."""
        if not any(binding.reachable for binding in bindings):
            return Refusal(status=480)
        return fork.groups(bindings, self.settings.limits.branches)
