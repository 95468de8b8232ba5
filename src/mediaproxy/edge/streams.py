"""[shell] SIP over TCP and TLS: listening, connecting, framing, keep-alives, and patience that ends.

Bytes come in from connections and go to ``receive`` as whole messages; messages go out over a connection that lives or,
where that is allowed, a new one. A connection's name is good for this run of the server only. No peer can hold a
connection for nothing, half a message for long, or memory without bound.
"""

import asyncio
import contextlib
import errno
import itertools
import secrets
import socket
import ssl
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import cast

from mediaproxy import clock
from mediaproxy.edge.hop import Hop, Inbound
from mediaproxy.edge.settings import EdgeSettings, Limits, Listener, Tls, Transport
from mediaproxy.endpoint import Endpoint
from mediaproxy.nat import TCP_PONG
from mediaproxy.sip.framing import Framer, Ping
from mediaproxy.sip.grammar import SipError

ACCEPTS = 64
"Connections taken from the queue of the kernel in one turn of the loop."
_OUT_OF_FILES = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)

Receive = Callable[[bytes, Inbound], None]
Failed = Callable[[], None]


def server_context(tls: Tls) -> ssl.SSLContext:
    """The TLS of our listeners. OSError (ssl.SSLError) names what is wrong, and with which file."""
    for name in (tls.certificate, tls.key or tls.certificate):
        with open(name, "rb"):
            pass  # the library would not say which one it cannot read
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(tls.certificate, tls.key or None)
    return context


def client_context(tls: Tls) -> ssl.SSLContext:
    """The TLS of connections that we open."""
    context = ssl.create_default_context(cafile=tls.authorities or None)
    if not tls.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if tls.certificate:
        context.load_cert_chain(tls.certificate, tls.key or None)
    return context


class Connection(asyncio.Protocol):
    """One connection."""

    def __init__(self, streams: "Streams", inbound: Inbound, name: str = "") -> None:
        self._streams = streams
        self.inbound = inbound
        self.name = name
        "The name that the TLS server at its other end has proven; empty: it has proven none."
        self._framer = Framer(streams.limits.message)
        self._transport: asyncio.Transport | None = None
        self.heard = clock.now()
        "When something came last."
        self._begun: float | None = None
        "When the message began that is not complete."
        self._proven = bool(name)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """From asyncio."""
        self._transport = cast(asyncio.Transport, transport)
        self.heard = clock.now()
        self._streams.opened(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """From asyncio."""
        self._transport = None
        self._streams.lost(self)

    def data_received(self, data: bytes) -> None:
        """From asyncio."""
        self.heard = clock.now()
        try:
            frames = self._framer.feed(data)
        except SipError as error:
            self._refuse(str(error))
            return
        for frame in frames:
            if isinstance(frame, bytes):
                self._proven = True
                self._begun = None
                self._streams.receive(frame, self.inbound)
            elif isinstance(frame, Ping):
                self.send(TCP_PONG)  # RFC 5626 §4.4.1
        if self._framer.broken is not None:
            self._refuse(str(self._framer.broken))
        elif not self._framer.pending:
            self._begun = None
        elif self._begun is None:
            self._begun = self.heard

    def _refuse(self, why: str) -> None:
        self._streams.refused(self.inbound.source, f"connection closed: {why}")
        self.abort()

    def send(self, data: bytes) -> bool:
        """Write. False: it is closing, or its reader is too slow."""
        transport = self._transport
        if transport is None or transport.is_closing():
            return False
        if transport.get_write_buffer_size() + len(data) > self._streams.limits.send_buffer:
            self._refuse("it does not read what it is sent")
            return False
        transport.write(data)
        return True

    @property
    def open(self) -> bool:
        """Whether it can be sent over."""
        return self._transport is not None and not self._transport.is_closing()

    def overdue(self, now: float, limits: Limits) -> str:
        """Why it is to be closed; empty: it is not."""
        if self._begun is not None and now - self._begun > limits.incomplete:
            return "a message did not become complete in time"
        if now - self.heard > (limits.idle if self._proven else limits.unproven):
            return "idle" if self._proven else "it brought no message"
        return ""

    def abort(self) -> None:
        """Close without waiting for anything to be sent."""
        if self._transport is not None:
            self._transport.abort()


class _Opening:
    """A connection that is being opened, and what shall go over it."""

    def __init__(self) -> None:
        self.waiting: list[tuple[bytes, Failed]] = []
        self.size = 0


class Streams:
    """All connections and the sockets that listen for them."""

    def __init__(
        self,
        settings: EdgeSettings,
        receive: Receive,
        closed: Callable[[str], None],
        refused: Callable[[Endpoint, str], None],
    ) -> None:
        """``closed`` is told the name of a connection that has gone, ``refused`` why a peer's one was closed or could
        not be opened."""
        self.limits = settings.limits
        self._tls = settings.tls
        self.receive = receive
        self._closed = closed
        self.refused = refused
        self._run = secrets.token_hex(4)
        self._numbers = itertools.count(1)
        self._listening: list[socket.socket] = []
        self._by_name: dict[str, Connection] = {}
        self._by_peer: dict[tuple[Transport, Endpoint], Connection] = {}
        self._opening: dict[tuple[Transport, Endpoint, str], _Opening] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._per_address: Counter[str] = Counter()
        self._count = 0
        self._server_context: ssl.SSLContext | None = None
        self._client_context: ssl.SSLContext | None = None
        self._sweeper: asyncio.TimerHandle | None = None
        self._gone = asyncio.Event()

    def __len__(self) -> int:
        return len(self._by_name)

    # -- listening

    def listen(self, listener: Listener) -> Listener:
        """Open one listener; returns it with the port that it got. OSError if it cannot be had."""
        if listener.transport is Transport.TLS and self._server_context is None:
            self._server_context = server_context(self._tls)
        family = socket.AF_INET6 if listener.bind.version == 6 else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.bind((listener.bind.address, listener.bind.port))
            sock.listen(1024)
        except OSError:
            sock.close()
            raise
        bind = listener.bind.with_port(sock.getsockname()[1])
        self._listening.append(sock)
        asyncio.get_running_loop().add_reader(sock, self._acceptable, sock, bind, listener.transport)
        if self._sweeper is None:
            self._sweep()
        return Listener(transport=listener.transport, bind=bind, advertise=listener.advertise)

    def _acceptable(self, sock: socket.socket, bind: Endpoint, transport: Transport) -> None:
        for _ in range(ACCEPTS):
            try:
                accepted, address = sock.accept()
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                if error.errno in _OUT_OF_FILES:
                    self._rest(sock, bind, transport)
                    return
                continue
            self._accepted(accepted, Endpoint.of(address[0].partition("%")[0], address[1]), bind, transport)

    def _rest(self, sock: socket.socket, bind: Endpoint, transport: Transport) -> None:
        """No file descriptors: leave what waits to the kernel for a second."""
        loop = asyncio.get_running_loop()
        loop.remove_reader(sock)

        def resume() -> None:
            if sock in self._listening:
                loop.add_reader(sock, self._acceptable, sock, bind, transport)

        loop.call_later(1.0, resume)

    def _accepted(self, sock: socket.socket, source: Endpoint, bind: Endpoint, transport: Transport) -> None:
        if (
            self._count >= self.limits.connections
            or self._per_address[source.address] >= self.limits.connections_per_address
        ):
            self.refused(source, "connection refused: too many")
            sock.close()
            return
        sock.setblocking(False)
        self._enter(source)
        inbound = Inbound(source, transport, bind, self._new_name())
        context = self._server_context if transport is Transport.TLS else None
        self._spawn(self._handshake(sock, Connection(self, inbound), context))

    async def _handshake(self, sock: socket.socket, connection: Connection, context: ssl.SSLContext | None) -> None:
        loop = asyncio.get_running_loop()
        timeout = self.limits.handshake if context is not None else None
        try:
            await loop.connect_accepted_socket(lambda: connection, sock, ssl=context, ssl_handshake_timeout=timeout)
        except (OSError, asyncio.CancelledError) as error:
            sock.close()
            if connection.inbound.connection not in self._by_name:
                self._leave(connection.inbound.source)
            if isinstance(error, asyncio.CancelledError):
                raise
            self.refused(connection.inbound.source, f"no TLS: {error}")

    # -- sending

    def connection(self, transport: Transport, remote: Endpoint) -> str:
        """The name of a live connection with that peer; empty: none."""
        found = self._by_peer.get((transport, remote))
        return found.inbound.connection if found is not None and found.open else ""

    def alive(self, name: str) -> bool:
        """Whether the connection of that name is open."""
        found = self._by_name.get(name)
        return found is not None and found.open

    def send(self, hop: Hop, data: bytes, failed: Failed) -> None:
        """Send over the hop's connection, else one to its peer, else a new one if there may be one."""
        found = self._by_name.get(hop.connection) if hop.connection else None
        if found is None or not found.open:
            found = self._by_peer.get((hop.transport, hop.remote))
        usable = found is not None and found.open and (not hop.name or found.name == hop.name)
        if found is not None and usable:
            if not found.send(data):
                failed()
        elif hop.connect:
            self._send_later(hop, data, failed)
        else:
            failed()

    def _send_later(self, hop: Hop, data: bytes, failed: Failed) -> None:
        key = (hop.transport, hop.remote, hop.name)
        opening = self._opening.get(key)
        if opening is None:
            if self._count >= self.limits.connections or self._sweeper is None:
                failed()
                return
            opening = self._opening[key] = _Opening()
            self._enter(hop.remote)
            self._spawn(self._connect(hop, opening))
        if opening.size + len(data) > self.limits.send_buffer:
            failed()
            return
        opening.size += len(data)
        opening.waiting.append((data, failed))

    async def _connect(self, hop: Hop, opening: _Opening) -> None:
        inbound = Inbound(hop.remote, hop.transport, hop.local or hop.remote, self._new_name())
        connection = Connection(self, inbound, hop.name)
        try:
            async with asyncio.timeout(self.limits.connect):
                await self._open(hop, connection)
        except (OSError, TimeoutError) as error:
            if inbound.connection not in self._by_name:
                self._leave(hop.remote)
            why = f"no answer in {self.limits.connect:g} s" if isinstance(error, TimeoutError) else error
            self.refused(hop.remote, f"cannot connect over {hop.transport}: {why}")
        finally:
            del self._opening[hop.transport, hop.remote, hop.name]
        for data, failed in opening.waiting:
            if not connection.send(data):
                failed()

    async def _open(self, hop: Hop, connection: Connection) -> None:
        context = name = None
        if hop.transport is Transport.TLS:
            if self._client_context is None:
                self._client_context = client_context(self._tls)
            context, name = self._client_context, hop.name or hop.remote.address
        local = (hop.local.address, 0) if hop.local is not None else None
        await asyncio.get_running_loop().create_connection(
            lambda: connection,
            hop.remote.address,
            hop.remote.port,
            ssl=context,
            server_hostname=name,
            local_addr=local,
        )

    # -- what connections report

    def opened(self, connection: Connection) -> None:
        """It can be used from now on."""
        self._by_name[connection.inbound.connection] = connection
        self._by_peer[connection.inbound.transport, connection.inbound.source] = connection

    def lost(self, connection: Connection) -> None:
        """It is gone."""
        inbound = connection.inbound
        if self._by_name.pop(inbound.connection, None) is None:
            return
        self._leave(inbound.source)
        if self._by_peer.get((inbound.transport, inbound.source)) is connection:
            del self._by_peer[inbound.transport, inbound.source]
        self._closed(inbound.connection)
        if not self._by_name:
            self._gone.set()

    # -- housekeeping

    def _new_name(self) -> str:
        return f"{self._run}-{next(self._numbers)}"

    def _enter(self, peer: Endpoint) -> None:
        self._count += 1
        self._per_address[peer.address] += 1

    def _leave(self, peer: Endpoint) -> None:
        self._count -= 1
        self._per_address[peer.address] -= 1
        if self._per_address[peer.address] <= 0:
            del self._per_address[peer.address]

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _sweep(self) -> None:
        now, limits = clock.now(), self.limits
        for connection in list(self._by_name.values()):
            why = connection.overdue(now, limits)
            if why:
                self.refused(connection.inbound.source, f"connection closed: {why}")
                connection.abort()
        pause = min(1.0, limits.incomplete / 2, limits.unproven / 2, limits.idle / 2)
        self._sweeper = asyncio.get_running_loop().call_later(pause, self._sweep)

    async def close(self) -> None:
        """Close all."""
        loop = asyncio.get_running_loop()
        for sock in self._listening:
            loop.remove_reader(sock)
            sock.close()
        self._listening.clear()
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._gone.clear()
        for connection in list(self._by_name.values()):
            connection.abort()
        if self._by_name:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1.0):
                    await self._gone.wait()
