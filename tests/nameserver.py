"""A real name server on loopback whose records a test sets and changes."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

import dns.asyncresolver
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset


class NameServer(asyncio.DatagramProtocol):
    """Answers over UDP. Names without records get NXDOMAIN, unless ``broken`` (SERVFAIL) or ``silent``."""

    def __init__(self) -> None:
        self.records: dict[tuple[str, str], list[str]] = {}
        "(name with its final dot, kind) -> data of the records."
        self.ttl = 60
        self.negative = 0
        "Seconds for which the zone says that there is nothing; 0: it does not say."
        self.silent = False
        self.broken = False
        self.asked: Counter[str] = Counter()

    def srv(self, domain: str, *records: str) -> None:
        """The relays of a domain: ``PRIORITY WEIGHT PORT TARGET.``"""
        self.records[(f"_mediaproxy._tcp.{domain}.", "SRV")] = list(records)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        query = dns.message.from_wire(data)
        question = query.question[0]
        name, kind = question.name.to_text().lower(), dns.rdatatype.to_text(question.rdtype)
        self.asked[f"{kind} {name}"] += 1
        if self.silent:
            return
        reply = dns.message.make_response(query)
        records = self.records.get((name, kind))
        if self.broken:
            reply.set_rcode(dns.rcode.SERVFAIL)
        elif records:
            reply.answer.append(dns.rrset.from_text(question.name, self.ttl, "IN", kind, *records))
        elif not any(known == name for known, _ in self.records):
            reply.set_rcode(dns.rcode.NXDOMAIN)
        if self.negative and not reply.answer:
            soa = f"ns.test. admin.test. 1 3600 600 86400 {self.negative}"
            reply.authority.append(dns.rrset.from_text("test.", 3600, "IN", "SOA", soa))
        self._transport.sendto(reply.to_wire(), addr)


@asynccontextmanager
async def name_server() -> AsyncIterator[tuple[NameServer, dns.asyncresolver.Resolver]]:
    """The server, and a resolver that asks nobody else."""
    loop = asyncio.get_running_loop()
    transport, server = await loop.create_datagram_endpoint(NameServer, local_addr=("127.0.0.1", 0))
    resolver = dns.asyncresolver.Resolver(configure=False)
    resolver.nameservers = ["127.0.0.1"]
    resolver.port = transport.get_extra_info("sockname")[1]
    resolver.timeout = 0.2
    try:
        yield server, resolver
    finally:
        transport.close()
