"""Which hosts are ours (calls.md 20), and whether the edge may serve at all (calls.md 19).

Settings, listeners and URIs come in; verdicts go out. What is remembered is only which hosts phones have registered
with, and that only where nobody was configured and the network is private. Nothing here does IO.
"""

from collections.abc import Iterable
from functools import lru_cache

from mediaproxy.edge.binding import canonical_aor
from mediaproxy.edge.settings import EdgeSettings, Listener
from mediaproxy.endpoint import Endpoint, Scope, address_text, scope
from mediaproxy.sip.header import Uri

_PRIVATE = frozenset({Scope.LOOPBACK, Scope.PRIVATE, Scope.ULA, Scope.LINK_LOCAL})


def is_private(address: str) -> bool:
    """Whether only a loopback or private network can hold the address. Carrier-grade NAT space is not private to us."""
    return scope(address) in _PRIVATE


def refusals(settings: EdgeSettings, listeners: Iterable[Listener]) -> tuple[str, ...]:
    """Why these listeners may not be opened with these settings, each with what to do; empty: they may."""
    found = []
    exposed = [one for one in listeners if not (is_private(one.bind.address) and is_private(one.public.address))]
    if exposed and not settings.accounts and not settings.open:
        where = ", ".join(dict.fromkeys(str(one.public) for one in exposed))
        found.append(
            f"without accounts everybody on the Internet could call through {where}: configure accounts, listen on"
            " private addresses only, or say that you want an open server (open = true, --open)"
        )
    if exposed and not settings.domains and not settings.open:
        found.append("a public address needs domains: say whose users are ours (domains = ['example.com'])")
    if any(one.transport == "tls" for one in listeners) and not settings.tls.certificate:
        found.append("a tls listener needs a certificate (tls.certificate, tls.key)")
    return tuple(found)


class Domains:
    """The hosts that this edge answers for."""

    def __init__(self, settings: EdgeSettings, listeners: Iterable[Listener] = ()) -> None:
        self.configured = tuple(dict.fromkeys(_canonical_host(name) for name in settings.domains))
        "In the order of the configuration."
        self._open = settings.open
        self._learned: dict[str, None] = {}
        self._named = set(self.configured)
        "These and the learned ones."
        self._endpoints: set[Endpoint] = set()
        self._hosts: set[str] = set()
        self._ports: set[int] = set()
        for listener in listeners:
            for endpoint in (listener.bind, listener.public):
                self._endpoints.add(endpoint)
                self._hosts.add(endpoint.address)
                self._ports.add(endpoint.port)

    @property
    def hosts(self) -> frozenset[str]:
        """Every host that is ours, for ``policy.Policy.local_domains``."""
        return frozenset((*self.configured, *self._learned, *self._hosts))

    @property
    def catch_all(self) -> bool:
        """Whether phones may register under any host: no domain is configured."""
        return not self.configured

    def learn(self, host: str) -> bool:
        """A phone has registered under ``host``. True if it is new; ignored where domains are configured."""
        name = _canonical_host(host)
        if not self.catch_all or name in self._hosts or name in self._learned:
            return False
        self._learned[name] = None
        self._named.add(name)
        return True

    def is_self(self, uri: Uri) -> bool:
        """Whether the URI is one of our sockets: a Route to us, or the server itself as a target."""
        endpoint = uri.endpoint
        return endpoint is not None and endpoint in self._endpoints

    def owns(self, uri: Uri, *, exactly: bool = False) -> bool:
        """Whether we are responsible for the URI (RFC 3261 §16.4, §16.5). A phone on another port of our own address is
        not us. Our address without a port is us, too, even if no socket of ours has the default port: an address of
        record has none. ``exactly``: a number is meant as a place, as in Route and in the Contact of a dialog."""
        if self.is_self(uri):
            return True
        host = _canonical_host(uri.host)
        if uri.endpoint is None:
            return host in self._named and (uri.port is None or uri.port in self._ports)
        if host in self.configured:
            return True
        if exactly:
            return False
        return (host in self._hosts and uri.port is None) or (
            host in self._learned and (uri.port is None or uri.port in self._ports)
        )

    def may_register(self, uri: Uri, source: Endpoint) -> bool:
        """Whether a phone at ``source`` may register an address of record with this host."""
        if self.owns(uri):
            return True
        return self.catch_all and bool(uri.host) and (self._open or is_private(source.address))

    def addresses_of_record(self, uri: Uri) -> tuple[str, ...]:
        """Under which names the user of an own URI may be registered, the likeliest first. A user at one of our
        addresses is that user of any own domain: phones know the server by name or by number. SipError: no user."""
        names = [canonical_aor(uri)]
        if _canonical_host(uri.host) in self._hosts:
            user = names[0].rpartition("@")[0]
            names += [f"{user}@{_bracketed(host)}" for host in (*self.configured, *self._learned, *sorted(self._hosts))]
        return tuple(dict.fromkeys(names))


@lru_cache(maxsize=4096)
def _canonical_host(host: str) -> str:
    return address_text(host) or host.lower().rstrip(".")


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
