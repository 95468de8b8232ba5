"""[shell] From a SIP URI to where it leads (RFC 3263): NAPTR, SRV, A and AAAA, over dnspython.

A URI comes in, hops go out, best first; none if the name leads nowhere or the name servers are silent. Answers are
cached as long as they say. Only transports that the edge has listeners for are considered.
"""

import asyncio
import itertools
import random
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

import dns.asyncresolver
import dns.exception
import dns.name
import dns.resolver

from mediaproxy.edge.hop import Hop
from mediaproxy.edge.settings import Transport
from mediaproxy.endpoint import Endpoint, ip_address
from mediaproxy.nameservers import system_resolver
from mediaproxy.sip.header import Uri

LIFETIME = 4.0
"Seconds that one look-up may take, all retries included."
_SERVICES = {Transport.UDP: "_sip._udp", Transport.TCP: "_sip._tcp", Transport.TLS: "_sips._tcp"}
_NAPTR = {"SIP+D2U": Transport.UDP, "SIP+D2T": Transport.TCP, "SIPS+D2T": Transport.TLS}
"RFC 3263 §4.1: the services of NAPTR records."


class Resolver:
    """RFC 3263 for one edge."""

    def __init__(
        self,
        rng: random.Random,
        transports: Collection[Transport],
        *,
        versions: Collection[int] = (4, 6),
        dns_resolver: dns.asyncresolver.Resolver | None = None,
        hosts: str | None = None,
    ) -> None:
        """``versions``: IP versions that the listeners have. ``dns_resolver``: None: as /etc/resolv.conf says.
        ``hosts``: text of a hosts file; None: /etc/hosts."""
        self.lifetime = LIFETIME
        "Seconds that one look-up may take."
        self._rng = rng
        self._transports = tuple(one for one in Transport if one in transports)
        self._versions = versions
        self._dns = dns_resolver if dns_resolver is not None else system_resolver()
        self._dns.cache = dns.resolver.LRUCache(10_000)
        if hosts is None:
            file = Path("/etc/hosts")
            hosts = file.read_text(errors="replace") if file.exists() else ""
        self._hosts = parse_hosts(hosts)

    async def resolve(self, uri: Uri) -> tuple[Hop, ...]:
        """Where the URI leads, best first. Never raises for what the network or the name says."""
        if uri.scheme not in ("sip", "sips"):
            return ()
        target = uri.params.get("maddr") or uri.host
        wanted = self._wanted(uri)
        if not wanted or not target:
            return ()
        try:
            async with asyncio.timeout(2 * self.lifetime):
                return tuple(await self._resolve(uri, target, wanted))
        except (dns.exception.DNSException, OSError, UnicodeError):
            return ()

    async def _resolve(self, uri: Uri, target: str, wanted: tuple[Transport, ...]) -> Iterable[Hop]:
        address = ip_address(target)
        if address is not None:
            return self._hops([str(address)], wanted[0], uri.port or wanted[0].default_port, "")
        name = dns.name.from_text(target)
        if uri.port is not None:
            # §4.2: an explicit port leaves only the address to be found.
            return self._hops(await self._addresses(target), wanted[0], uri.port, target)
        return await self._by_service(uri, target, name, wanted)

    def _wanted(self, uri: Uri) -> tuple[Transport, ...]:
        """The transports that the URI permits, in our order of preference (§4.1)."""
        named = uri.params.get("transport", "").lower()
        if uri.scheme == "sips" or named == "tls":
            permitted: tuple[Transport, ...] = (Transport.TLS,)
        elif named:
            permitted = tuple(one for one in (Transport.UDP, Transport.TCP) if one.value == named)
        elif uri.port is not None or ip_address(uri.params.get("maddr") or uri.host) is not None:
            permitted = (Transport.UDP,)
        else:
            permitted = (Transport.UDP, Transport.TCP, Transport.TLS)
        return tuple(one for one in permitted if one in self._transports)

    async def _by_service(self, uri: Uri, target: str, name: dns.name.Name, wanted: tuple[Transport, ...]) -> list[Hop]:
        explicit = uri.scheme == "sips" or "transport" in uri.params
        if explicit:
            services = [(wanted[0], f"{_SERVICES[wanted[0]]}.{target}")]
        else:
            services = await self._naptr(name, wanted)
            services = services or [(transport, f"{_SERVICES[transport]}.{target}") for transport in wanted]
        hops: list[Hop] = []
        for transport, service in services:
            for server, port in await self._srv(service):
                # RFC 5922 §4: the certificate must name the domain that was asked for, not the server.
                hops += self._hops(await self._addresses(server), transport, port, target)
        if hops:
            return hops
        transport = wanted[0]
        return list(self._hops(await self._addresses(target), transport, transport.default_port, target))

    def _hops(self, addresses: Iterable[str], transport: Transport, port: int, name: str) -> Iterable[Hop]:
        for address in addresses:
            yield Hop(transport, Endpoint.of(address, port), name=name if transport is Transport.TLS else "")

    async def _query(self, name: dns.name.Name | str, kind: str) -> Sequence[Any]:
        try:
            answer = await self._dns.resolve(name, kind, raise_on_no_answer=False, lifetime=self.lifetime, search=False)
        except (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer):
            return ()
        return tuple(answer.rrset or ())

    async def _naptr(self, name: dns.name.Name, wanted: Collection[Transport]) -> list[tuple[Transport, str]]:
        records = sorted(await self._query(name, "NAPTR"), key=lambda record: (record.order, record.preference))
        found = []
        for record in records:
            transport = _NAPTR.get(record.service.decode("latin-1").upper())
            if transport in wanted and record.flags.lower() == b"s":
                assert transport is not None
                found.append((transport, record.replacement.to_text()))
        return found

    async def _srv(self, service: str) -> list[tuple[str, int]]:
        records = await self._query(service, "SRV")
        order = srv_order([(record.priority, record.weight) for record in records], self._rng)
        chosen = [records[at] for at in order]
        # RFC 2782: "." says that the service is decidedly not there.
        return [(record.target.to_text(), record.port) for record in chosen if record.target != dns.name.root]

    async def _addresses(self, host: str) -> list[str]:
        known = self._hosts.get(host.lower().rstrip("."))
        if known is not None:
            return [address for address in known if (6 if ":" in address else 4) in self._versions]
        found: list[str] = []
        for version, kind in ((4, "A"), (6, "AAAA")):
            if version in self._versions:
                found += [record.address for record in await self._query(host, kind)]
        return found


def srv_order(records: Sequence[tuple[int, int]], rng: random.Random) -> list[int]:
    """In which order SRV records of these (priority, weight) are to be tried, as indices (RFC 2782)."""
    order: list[int] = []
    for priority in sorted({priority for priority, _ in records}):
        # Those without weight stand first, so that they have a small chance, as the RFC wants it.
        members = sorted(
            (at for at, record in enumerate(records) if record[0] == priority), key=lambda at: records[at][1]
        )
        while members:
            point = rng.randint(0, sum(records[at][1] for at in members))
            for at in members:
                point -= records[at][1]
                if point <= 0:
                    break
            members.remove(at)
            order.append(at)
    return order


def _sums(members: Sequence[tuple[int, int]]) -> Iterable[int]:
    return itertools.accumulate(weight for weight, _ in members)


def parse_hosts(text: str) -> dict[str, list[str]]:
    """The names of a hosts file and their addresses."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        address, *names = line.partition("#")[0].split() or [""]
        if ip_address(address) is None:
            continue
        for name in names:
            found.setdefault(name.lower().rstrip("."), []).append(str(ip_address(address)))
    return found
