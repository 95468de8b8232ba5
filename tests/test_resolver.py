"""RFC 3263 against a name server of the test's own."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

import dns.asyncresolver
import dns.message
import dns.rcode
import dns.rrset
import pytest

from mediaproxy.edge.hop import Hop
from mediaproxy.edge.resolver import Resolver, parse_hosts, srv_order
from mediaproxy.edge.settings import Transport
from mediaproxy.endpoint import Endpoint
from mediaproxy.sip.header import Uri

pytestmark = [pytest.mark.usefixtures("no_leaks")]

UDP, TCP, TLS = Transport.UDP, Transport.TCP, Transport.TLS
ZONE = """
a.test. A 192.0.2.1
a.test. AAAA 2001:db8::1
_sip._udp.srv.test. SRV 10 0 5070 a.test.
_sip._udp.srv.test. SRV 20 0 5080 b.test.
_sip._tcp.srv.test. SRV 10 0 5075 a.test.
_sips._tcp.srv.test. SRV 10 0 5071 a.test.
b.test. A 192.0.2.2
srv.test. A 192.0.2.9
naptr.test. NAPTR 10 10 "s" "SIP+D2T" "" _sip._tcp.srv.test.
naptr.test. NAPTR 20 10 "s" "SIP+D2U" "" _sip._udp.srv.test.
naptr.test. NAPTR 5 10 "s" "E2U+email" "" mail.test.
none.test. A 192.0.2.3
_sip._udp.none.test. SRV 0 0 0 .
"""


class NameServer(asyncio.DatagramProtocol):
    """Answers from ZONE; ``silent`` answers nothing, broken names get SERVFAIL."""

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()
        self.silent = False
        self._records: dict[tuple[str, str], list[str]] = {}
        for line in ZONE.strip().splitlines():
            name, kind, data = line.split(maxsplit=2)
            self._records.setdefault((name, kind), []).append(data)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        query = dns.message.from_wire(data)
        question = query.question[0]
        name, kind = question.name.to_text(), dns.rdatatype.to_text(question.rdtype)
        self.asked[f"{kind} {name}"] += 1
        if self.silent:
            return
        reply = dns.message.make_response(query)
        records = self._records.get((name, kind))
        if records:
            reply.answer.append(dns.rrset.from_text(name, 60, "IN", kind, *records))
        elif name.startswith("broken"):
            reply.set_rcode(dns.rcode.SERVFAIL)
        elif not any(known == name for known, _ in self._records):
            reply.set_rcode(dns.rcode.NXDOMAIN)
        self._transport.sendto(reply.to_wire(), addr)


@asynccontextmanager
async def resolver(
    transports: tuple[Transport, ...] = (UDP, TCP, TLS), versions: tuple[int, ...] = (4,)
) -> AsyncIterator[tuple[Resolver, NameServer]]:
    transport, server = await asyncio.get_running_loop().create_datagram_endpoint(
        NameServer, local_addr=("127.0.0.1", 0)
    )
    client = dns.asyncresolver.Resolver(configure=False)
    client.nameservers = ["127.0.0.1"]
    client.port = transport.get_extra_info("sockname")[1]
    client.timeout = 0.1
    hosts = "127.0.0.1 localhost\n192.0.2.77 lab.test # the laboratory\n"
    try:
        yield Resolver(random.Random(1), transports, versions=versions, dns_resolver=client, hosts=hosts), server
    finally:
        transport.close()


def hop(transport: Transport, address: str, port: int, name: str = "") -> Hop:
    return Hop(transport, Endpoint(address, port), name=name)


@pytest.mark.parametrize(
    ("uri", "hops"),
    [
        ("sip:192.0.2.5", [hop(UDP, "192.0.2.5", 5060)]),
        ("sip:192.0.2.5:5080;transport=tcp", [hop(TCP, "192.0.2.5", 5080)]),
        ("sips:192.0.2.5", [hop(TLS, "192.0.2.5", 5061)]),
        ("sip:x.test;maddr=192.0.2.6", [hop(UDP, "192.0.2.6", 5060)]),
        ("sip:a.test:5090", [hop(UDP, "192.0.2.1", 5090)]),
        ("sip:a.test:5090;transport=tcp", [hop(TCP, "192.0.2.1", 5090)]),
        ("sips:a.test:5090", [hop(TLS, "192.0.2.1", 5090, "a.test")]),
        (
            "sip:srv.test",
            [
                hop(UDP, "192.0.2.1", 5070),
                hop(UDP, "192.0.2.2", 5080),
                hop(TCP, "192.0.2.1", 5075),
                hop(TLS, "192.0.2.1", 5071, "srv.test"),
            ],
        ),
        ("sip:srv.test;transport=tcp", [hop(TCP, "192.0.2.1", 5075)]),
        ("sips:srv.test", [hop(TLS, "192.0.2.1", 5071, "srv.test")]),
        (
            "sip:naptr.test",
            [hop(TCP, "192.0.2.1", 5075), hop(UDP, "192.0.2.1", 5070), hop(UDP, "192.0.2.2", 5080)],
        ),
        ("sip:b.test", [hop(UDP, "192.0.2.2", 5060)]),
        ("sip:b.test;transport=tcp", [hop(TCP, "192.0.2.2", 5060)]),
        ("sip:none.test", [hop(UDP, "192.0.2.3", 5060)]),
        ("sip:lab.test", [hop(UDP, "192.0.2.77", 5060)]),
        ("sip:localhost", [hop(UDP, "127.0.0.1", 5060)]),
        ("sip:nowhere.test", []),
        ("sip:broken.test", []),
        ("sip:x.test;transport=sctp", []),
        ("tel:+4930", []),
        ("sip:" + "a" * 70 + ".test", []),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else "",
)
async def test_where_a_uri_leads(uri: str, hops: list[Hop]) -> None:
    async with resolver() as (names, _):
        assert list(await names.resolve(Uri.parse(uri))) == hops


async def test_only_transports_and_versions_that_we_have() -> None:
    async with resolver((UDP,), (4, 6)) as (names, _):
        found = await names.resolve(Uri.parse("sip:naptr.test"))
        assert [(one.transport, one.remote.address) for one in found] == [
            (UDP, "192.0.2.1"),
            (UDP, "2001:db8::1"),
            (UDP, "192.0.2.2"),
        ]
        assert await names.resolve(Uri.parse("sips:srv.test")) == ()


async def test_answers_are_kept() -> None:
    async with resolver() as (names, server):
        for _ in range(3):
            await names.resolve(Uri.parse("sip:a.test:5060"))
        assert server.asked["A a.test."] == 1


async def test_silent_name_server() -> None:
    async with resolver() as (names, server):
        server.silent = True
        names.lifetime = 0.3
        async with asyncio.timeout(30):
            assert await names.resolve(Uri.parse("sip:a.test:5060")) == ()


def test_srv_order_by_priority() -> None:
    assert srv_order([(20, 0), (10, 0), (30, 5)], random.Random(1)) == [1, 0, 2]


def test_srv_order_by_weight() -> None:
    rng = random.Random(1)
    first = Counter(srv_order([(1, 90), (1, 10), (1, 0)], rng)[0] for _ in range(2000))
    assert 1700 < first[0] < 1900
    assert 100 < first[1] < 300
    assert first[2] > 0, "RFC 2782: a small chance for weight 0"


def test_hosts_file() -> None:
    text = "# x\n127.0.0.1\tlocalhost  Me.\n::1 localhost\nnonsense here\n\n"
    assert parse_hosts(text) == {"localhost": ["127.0.0.1", "::1"], "me": ["127.0.0.1"]}
