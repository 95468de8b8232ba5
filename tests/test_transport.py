"""The sockets of the edge: UDP, TCP and TLS, connections and their limits, over loopback."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TypeVar

import pytest

from mediaproxy.edge.hop import Hop, Inbound
from mediaproxy.edge.settings import EdgeSettings, Limits, Listener, Tls, Transport
from mediaproxy.edge.streams import Connection
from mediaproxy.edge.transport import Sockets, source_address
from mediaproxy.endpoint import Endpoint
from tests.certificates import Authority

pytestmark = [pytest.mark.usefixtures("no_leaks")]

UDP, TCP, TLS = Transport.UDP, Transport.TCP, Transport.TLS
T = TypeVar("T")
MESSAGE = b"OPTIONS sip:x SIP/2.0\r\nContent-Length: 0\r\n\r\n"
QUICK = Limits(incomplete=0.1, unproven=0.2, idle=0.3, handshake=0.2, connect=0.3)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls"))


class Bench:
    """Sockets, what they received and what they complained about."""

    def __init__(self, limits: Limits, tls: Tls) -> None:
        self.received: asyncio.Queue[tuple[bytes, Inbound]] = asyncio.Queue()
        self.closed: asyncio.Queue[str] = asyncio.Queue()
        self.refused: asyncio.Queue[str] = asyncio.Queue()
        self.failed: asyncio.Queue[bytes] = asyncio.Queue()
        self.sockets = Sockets(
            EdgeSettings(limits=limits, tls=tls),
            lambda data, inbound: self.received.put_nowait((data, inbound)),
            self.closed.put_nowait,
            lambda source, text: self.refused.put_nowait(text),
        )

    def at(self, transport: Transport = TCP) -> Endpoint:
        return next(one.bind for one in self.sockets.listeners if one.transport is transport)

    def send(self, hop: Hop, data: bytes = MESSAGE) -> None:
        self.sockets.send(hop, data, lambda: self.failed.put_nowait(data))

    async def connect(self, context: ssl.SSLContext | None = None) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        where = self.at(TLS if context else TCP)
        name = "example.com" if context else None
        return await asyncio.open_connection(where.address, where.port, ssl=context, server_hostname=name)


@asynccontextmanager
async def bench(
    *transports: Transport, limits: Limits | None = None, tls: Tls | None = None, address: str = "127.0.0.1"
) -> AsyncIterator[Bench]:
    made = Bench(limits or Limits(), tls or Tls())
    made.sockets.open(tuple(Listener(transport=one, bind=Endpoint(address, 0)) for one in transports or (TCP,)))
    try:
        yield made
    finally:
        await made.sockets.close()


async def get(queue: "asyncio.Queue[T]") -> T:
    async with asyncio.timeout(30):
        return await queue.get()


async def gone(reader: asyncio.StreamReader) -> bool:
    """Whether the other side closed, within the patience of a test."""
    async with asyncio.timeout(30):
        try:
            while await reader.read(4096):
                pass
        except ConnectionError:
            return True
        return True


# -- UDP


@pytest.mark.both_loops
async def test_datagrams_come_with_their_source_and_leave_from_their_socket() -> None:
    async with bench(UDP, UDP) as one:
        first, second = (listener.bind for listener in one.sockets.listeners)
        one.send(Hop(UDP, second, first), b"hello")
        data, inbound = await get(one.received)
        assert (data, inbound) == (b"hello", Inbound(first, UDP, second))
        one.send(Hop(UDP, first, second), b"x" * 65_507)
        data, _ = await get(one.received)
        assert data == b"x" * 65_507


async def test_datagram_that_cannot_be_sent() -> None:
    async with bench(UDP) as one:
        one.send(Hop(UDP, Endpoint("127.0.0.1", 9)), b"x" * 70_000)
        assert await get(one.failed) == b"x" * 70_000
        one.send(Hop(UDP, Endpoint("::1", 9)), b"no socket of that family")
        assert await get(one.failed)


# -- TCP and TLS


@pytest.mark.both_loops
@pytest.mark.parametrize("transport", [TCP, TLS], ids=str)
async def test_messages_both_ways(transport: Transport, authority: Authority) -> None:
    async with bench(transport, tls=authority.settings) as one:
        reader, writer = await one.connect(authority.client() if transport is TLS else None)
        writer.write(MESSAGE[:20])
        await writer.drain()
        writer.write(MESSAGE[20:] + MESSAGE)
        data, inbound = await get(one.received)
        assert data == MESSAGE
        assert inbound.transport is transport
        assert inbound.source == Endpoint(*writer.get_extra_info("sockname")[:2])
        assert inbound.local == one.at(transport)
        assert (await get(one.received))[1] == inbound
        assert one.sockets.alive(inbound.connection)
        assert one.sockets.connection(transport, inbound.source) == inbound.connection
        one.send(Hop(transport, inbound.source, connection=inbound.connection, connect=False), b"back")
        assert await reader.readexactly(4) == b"back"
        writer.close()
        assert await get(one.closed) == inbound.connection
        assert not one.sockets.alive(inbound.connection)


async def test_ping_is_answered() -> None:
    async with bench() as one:
        reader, writer = await one.connect()
        writer.write(b"\r\n\r\n")
        assert await reader.readexactly(2) == b"\r\n"
        writer.close()


async def test_names_of_connections_are_never_used_again() -> None:
    names = set()
    for _ in range(2):
        async with bench() as one:
            for _ in range(2):
                _, writer = await one.connect()
                writer.write(MESSAGE)
                names.add((await get(one.received))[1].connection)
                writer.close()
                await get(one.closed)
    assert len(names) == 4


# -- opening connections


@pytest.mark.parametrize("transport", [TCP, TLS], ids=str)
async def test_connection_is_opened_and_used_again(transport: Transport, authority: Authority) -> None:
    async with bench(transport, tls=authority.settings) as one, bench(transport, tls=authority.settings) as other:
        name = "example.com" if transport is TLS else ""
        hop = Hop(transport, other.at(transport), one.at(transport), name=name)
        one.send(hop)
        one.send(hop)
        _, first = await get(other.received)
        _, second = await get(other.received)
        assert first == second
        one.send(hop)
        assert (await get(other.received))[1] == first
        other.send(Hop(transport, first.source, connection=first.connection))
        assert (await get(one.received))[1].source == other.at(transport)
        assert len(one.sockets.streams) == 1


async def test_wrong_name_is_not_talked_to(authority: Authority) -> None:
    async with bench(TLS, tls=authority.settings) as one, bench(TLS, tls=authority.settings) as other:
        one.send(Hop(TLS, other.at(TLS), name="evil.test"))
        assert await get(one.failed) == MESSAGE
        assert "cannot connect over tls: " in (why := await get(one.refused)) and "evil.test" in why
        one.send(Hop(TLS, other.at(TLS)))
        assert (await get(other.received))[0] == MESSAGE, "by number: the certificate has the address"


async def test_a_phones_connection_is_not_taken_for_a_proven_server(authority: Authority) -> None:
    async with bench(TLS, tls=authority.settings) as one:
        reader, writer = await one.connect(authority.client())
        writer.write(MESSAGE)
        _, inbound = await get(one.received)
        one.send(Hop(TLS, inbound.source, name="example.com"))
        assert await get(one.failed) == MESSAGE
        writer.close()
        assert await gone(reader)


async def test_refused_connection_fails_everything_that_waits() -> None:
    async with bench() as one, bench() as other:
        closed = other.at()
        await other.sockets.close()
        one.send(Hop(TCP, closed), b"1")
        one.send(Hop(TCP, closed), b"2")
        assert [await get(one.failed), await get(one.failed)] == [b"1", b"2"]
        assert "cannot connect over tcp: " in await get(one.refused)


async def test_where_no_connection_may_be_opened_sending_fails_at_once() -> None:
    async with bench() as one, bench() as other:
        one.send(Hop(TCP, other.at(), connection="gone", connect=False))
        assert one.failed.get_nowait() == MESSAGE
        assert other.received.empty()


# -- peers that misbehave


@pytest.mark.parametrize(
    ("sent", "why"),
    [
        (b"GET / HTTP/1.0\r\n\r\n", "not SIP"),
        (b"\x16\x03\x01\x02\x00", "not SIP"),
        (b"OPTIONS sip:x SIP/2.0\r\n\r\n", "content-length"),
        (b"OPTIONS sip:x SIP/2.0\r\nContent-Length: -1\r\n\r\n", "content-length"),
        (b"OPTIONS sip:x SIP/2.0\r\nContent-Length: 999999999\r\n\r\n", "too large"),
        (b"OPTIONS sip:x SIP/2.0\r\nX: " + b"y" * 140_000, "too large"),
    ],
    ids=["http", "tls-on-tcp", "no-length", "negative", "huge", "endless-header"],
)
async def test_stream_that_is_no_sip_is_closed(sent: bytes, why: str) -> None:
    async with bench() as one:
        reader, writer = await one.connect()
        writer.write(sent)
        assert why in await get(one.refused)
        assert await gone(reader)
        writer.close()


async def test_good_messages_before_the_broken_place_count() -> None:
    async with bench() as one:
        reader, writer = await one.connect()
        writer.write(MESSAGE + b"GET / HTTP/1.0\r\n\r\n")
        assert (await get(one.received))[0] == MESSAGE
        assert await gone(reader)
        writer.close()


@pytest.mark.parametrize(
    ("sent", "why"),
    [(b"", "brought no message"), (b"OPTIONS sip:x", "complete in time"), (MESSAGE, "idle")],
    ids=["silent", "half-a-message", "idle"],
)
async def test_patience_ends(sent: bytes, why: str) -> None:
    async with bench(limits=QUICK) as one:
        reader, writer = await one.connect()
        writer.write(sent)
        assert why in await get(one.refused)
        assert await gone(reader)
        writer.close()


async def test_message_in_drops_is_not_waited_for_longer() -> None:
    async with bench(limits=QUICK) as one:
        reader, writer = await one.connect()
        drip = asyncio.create_task(_drip(writer))
        assert "complete in time" in await get(one.refused)
        assert await gone(reader)
        drip.cancel()
        await asyncio.gather(drip, return_exceptions=True)
        writer.close()


async def _drip(writer: asyncio.StreamWriter) -> None:
    while True:
        writer.write(b"x")
        await asyncio.sleep(0.01)  # the slowness of the peer; nobody waits for it


async def test_whatever_is_heard_keeps_an_idle_connection() -> None:
    async with bench() as one:
        connection = Connection(one.sockets.streams, Inbound(Endpoint("192.0.2.1", 1), TCP, one.at()))
        start = connection.heard
        connection.data_received(MESSAGE)
        assert connection.overdue(connection.heard + 899, Limits()) == ""
        assert connection.overdue(connection.heard + 901, Limits()) == "idle"
        connection.heard = start - 1000
        connection.data_received(b"\r\n\r\n")
        assert connection.overdue(start + 800, Limits()) == ""


async def test_handshake_that_never_ends(authority: Authority) -> None:
    async with bench(TLS, limits=QUICK, tls=authority.settings) as one:
        where = one.at(TLS)
        reader, writer = await asyncio.open_connection(where.address, where.port)
        assert "no TLS" in await get(one.refused)
        assert await gone(reader)
        writer.close()


@pytest.mark.parametrize(
    "limits", [Limits(connections=2), Limits(connections_per_address=2)], ids=["in-all", "per-address"]
)
async def test_too_many_connections(limits: Limits) -> None:
    async with bench(limits=limits) as one:
        inside = [await one.connect() for _ in range(2)]
        reader, writer = await one.connect()
        assert "too many" in await get(one.refused)
        assert await gone(reader)
        writer.close()
        inside[0][1].close()
        await get(one.closed)
        _, again = await one.connect()
        again.write(MESSAGE)
        assert (await get(one.received))[0] == MESSAGE, "who left made room"
        for _, other in (*inside[1:], (None, again)):
            other.close()


async def test_reader_that_does_not_read_is_cut_off() -> None:
    async with bench(limits=Limits(send_buffer=65_536)) as one:
        reader, writer = await one.connect()
        writer.write(MESSAGE)
        _, inbound = await get(one.received)
        hop = Hop(TCP, inbound.source, connection=inbound.connection, connect=False)
        while one.failed.empty():
            one.send(hop, b"x" * 60_000)
        assert "does not read" in await get(one.refused)
        writer.close()
        assert await gone(reader)


# -- listening


async def test_taken_port_is_named() -> None:
    async with bench() as one:
        other = Bench(Limits(), Tls())
        taken = Listener(transport=TCP, bind=one.at())
        free = Listener(transport=UDP, bind=Endpoint("127.0.0.1", 0))
        with pytest.raises(OSError, match=f"tcp:{one.at()}.*in use"):
            other.sockets.open((free, taken))
        await other.sockets.close()


async def test_missing_certificate_is_named() -> None:
    other = Bench(Limits(), Tls(certificate="/nowhere/cert.pem"))
    with pytest.raises(OSError, match="cannot listen on tls:127.0.0.1:0: /nowhere/cert.pem: No such file"):
        other.sockets.open((Listener(transport=TLS, bind=Endpoint("127.0.0.1", 0)),))
    await other.sockets.close()


async def test_socket_that_faces_a_peer() -> None:
    async with bench(UDP) as one, bench(UDP, address="127.0.0.3") as other:
        facing = one.sockets.facing(UDP, Endpoint("127.0.0.9", 1))
        assert facing is not None
        assert facing.bind == one.at(UDP)
        only = other.sockets.facing(UDP, Endpoint("127.0.0.1", 1))
        assert only is not None, "loopback reaches loopback, whatever address the routes prefer"
        assert one.sockets.facing(TCP, Endpoint("127.0.0.9", 1)) is None
        assert one.sockets.facing(UDP, Endpoint("::1", 1)) is None


def test_source_address() -> None:
    assert source_address("127.0.0.9") == "127.0.0.1"
