"""[shell] Registrations as they live: the location table, its keep-alives, and the lists of asymmetric clients.

What the proxy asks about phones is answered, a REGISTER is judged and kept, contacts are pinged, and dropped when they
expire or stay silent. The rules stand in ``registrar`` and ``keepalive``; this applies them and logs what happened.
"""

import logging
from collections.abc import Callable, Sequence

from mediaproxy.edge import registrar
from mediaproxy.edge.binding import Binding
from mediaproxy.edge.hop import Hop, Inbound, Network
from mediaproxy.edge.keepalive import KeepAlive, Ping, Pinged
from mediaproxy.edge.location import Location, LocationError
from mediaproxy.edge.media import arrival_of
from mediaproxy.edge.settings import EdgeSettings, Listener
from mediaproxy.edge.sipping import SipPings
from mediaproxy.endpoint import Endpoint
from mediaproxy.sip.message import Message, Response
from mediaproxy.watch import AsymmetricClients

log = logging.getLogger("mediaproxy.edge")


class Registry:
    """The registrations of one edge. The proxy knows it as its ``Directory``."""

    def __init__(
        self,
        settings: EdgeSettings,
        location: Location,
        network: Network,
        secret: bytes,
        complain: Callable[[Endpoint, str], None],
    ) -> None:
        """``location`` is not closed here. ``network`` has its listeners when ``start`` is called. ``secret``: as for
        the proxy. ``complain`` logs why a peer was refused."""
        self._settings = settings
        self.location = location
        self._network = network
        self._complain = complain
        self._sip_pings = SipPings(settings, secret)
        self._keepalive = KeepAlive(
            settings.natping_interval, self._sip_pings, self._listener, settings.sipping_max_lost
        )
        self.clients = _clients_of(settings)
        self._registered = len(location)
        "Contacts at the last look for expired ones, and those that came since."

    def start(self, now: float) -> None:
        """Ping those who are registered already."""
        self._keepalive.saved(self.location.all(now), now)

    def change(self, settings: EdgeSettings) -> None:
        """Other settings count from now on, but for those of pings."""
        before, self._settings = self._settings, settings
        if _lists_of(before) != _lists_of(settings):
            self.clients = _clients_of(settings)

    # -- what the proxy asks (proxy.Directory)

    def lookup(self, aor: str, now: float) -> tuple[Binding, ...]:
        """The contacts of a user."""
        return self.location.lookup(aor, now)

    def natted(self, inbound: Inbound) -> bool:
        """Whether a registered phone behind NAT is at that source."""
        return self._keepalive.natted(inbound)

    def knows(self, place: Endpoint) -> bool:
        """Whether a registered phone is there."""
        return self.location.knows(place)

    def register(self, asked: registrar.Registering, inbound: Inbound, now: float) -> registrar.Outcome:
        """Judge a REGISTER and keep what it says."""
        before = self.location.lookup(registrar.aor_of(asked.arrived), now)
        outcome = registrar.register(asked, arrival_of(inbound), before, self._settings, now, inbound.connection)
        if not outcome.save and not outcome.remove:
            return outcome
        added = len(outcome.save) - len({b.key for b in before} & {b.key for b in (*outcome.save, *outcome.remove)})
        if added > 0 and self._registered + added > self._settings.limits.registrations:
            self._complain(inbound.source, "REGISTER refused: too many registrations")
            return registrar.Outcome(status=503, reason="Too Many Registrations")
        self._registered += added
        try:
            self.location.apply(outcome.save, outcome.remove)
        except LocationError as error:
            log.error("%s", error)
            return registrar.Outcome(status=error.status, reason="Registrations Cannot Be Kept")
        self._keepalive.removed(outcome.remove)
        self._keepalive.saved(outcome.save, now)
        _log_changes(outcome, before)
        return outcome

    # -- what happens by itself

    @property
    def deadline(self) -> float | None:
        """When ``due`` must be called next."""
        return self._keepalive.deadline

    def due(self, now: float) -> list[Ping]:
        """The pings to send now. Contacts that have been silent for too long are removed."""
        due = self._keepalive.due(now)
        if due.silent:
            self._remove(due.silent)
        return due.pings

    def _listener(self, hop: Hop) -> Listener | None:
        listeners = self._network.listeners
        own = next((one for one in listeners if one.transport is hop.transport and one.bind == hop.local), None)
        return own or self._network.facing(hop.transport, hop.remote)

    def _remove(self, silent: Sequence[Binding]) -> None:
        try:
            self.location.remove(*silent)
        except LocationError as error:
            log.error("%s", error)
            return
        self._registered -= len(silent)
        self._keepalive.removed(silent)
        for binding in silent:
            lost = self._settings.sipping_max_lost
            why = f"silent to {lost} SIP {'ping' if lost == 1 else 'pings in a row'}"
            log.info("%s is no longer registered at %s: %s", binding.aor, binding.received, why)

    def heard(self, message: Message, inbound: Inbound, now: float) -> bool:
        """A SIP message came, even a bad one: whoever sent it lives. True: it only answers a ping, and is done with."""
        self._keepalive.heard(inbound, now)
        name = self._sip_pings.answered(message) if isinstance(message, Response) else ""
        if name:
            self._keepalive.answered(name, now)
        return bool(name)

    def pinged(self, binding: Binding) -> Pinged | None:
        """How a contact is pinged; None: it is not."""
        return self._keepalive.pinged(binding)

    def disconnected(self, connection: str, now: float) -> tuple[Binding, ...]:
        """A TCP or TLS connection is gone; returns who cannot be reached any more."""
        lost = self.location.disconnected(connection)
        self._keepalive.saved(lost, now)
        return lost

    def expire(self, now: float) -> None:
        """Drop what has expired."""
        try:
            gone = self.location.expire(now)
        except LocationError as error:
            log.error("%s", error)
            return
        self._registered = len(self.location)
        self._keepalive.removed(gone)
        for binding in gone:
            log.info("%s is no longer registered at %s: expired", binding.aor, binding.received)


def _log_changes(outcome: registrar.Outcome, before: tuple[Binding, ...]) -> None:
    known = {binding.received for binding in before}
    for binding in outcome.save:
        if binding.received not in known:
            nat = " behind NAT" if binding.nat else ""
            log.info("%s registered at %s:%s%s", binding.aor, binding.transport, binding.received, nat)
    saved = {binding.received for binding in outcome.save}
    for binding in outcome.remove:
        if binding.received not in saved:
            log.info("%s is no longer registered at %s", binding.aor, binding.received)


def _clients_of(settings: EdgeSettings) -> AsymmetricClients:
    return AsymmetricClients(*_lists_of(settings), log.warning, log.info)


def _lists_of(settings: EdgeSettings) -> tuple[str, str]:
    return settings.sip_asymmetrics, settings.rtp_asymmetrics
