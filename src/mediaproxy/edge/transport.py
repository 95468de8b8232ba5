"""[shell] The sockets of the SIP edge: UDP here, TCP and TLS in ``streams``; together the ``Network`` of routing.

Datagrams and whole messages go to ``receive`` with where they came from; what is sent leaves from the socket that the
hop names. Nothing here reads SIP, and nothing that a peer or the network does raises.
"""

import asyncio
import errno
import socket
from collections.abc import Callable
from functools import lru_cache

from mediaproxy.edge.hop import Hop, Inbound
from mediaproxy.edge.settings import EdgeSettings, Listener, Transport
from mediaproxy.edge.streams import Failed, Receive, Streams
from mediaproxy.endpoint import Endpoint, Scope, scope

BATCH = 32
"Datagrams read from one socket in one turn of the loop, so that a flood on one does not starve the others."
RECEIVE_BUFFER = 4_194_304
"Bytes that the kernel may hold for us per UDP socket; as much as it grants."
_FULL = (errno.EAGAIN, errno.EWOULDBLOCK, errno.ENOBUFS, errno.EINTR)


class UdpSocket:
    """One UDP listener."""

    def __init__(self, listener: Listener, receive: Receive) -> None:
        """Open it. OSError if it cannot be had."""
        family = socket.AF_INET6 if listener.bind.version == 6 else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
            sock.bind((listener.bind.address, listener.bind.port))
        except OSError:
            sock.close()
            raise
        self._socket = sock
        self._receive = receive
        bind = listener.bind.with_port(sock.getsockname()[1])
        self.listener = Listener(transport=listener.transport, bind=bind, advertise=listener.advertise)
        self._v6 = family == socket.AF_INET6
        self.dropped = 0
        "Datagrams that found no room in the send buffer."
        asyncio.get_running_loop().add_reader(sock, self._readable)

    def _readable(self) -> None:
        bind = self.listener.bind
        for _ in range(BATCH):
            try:
                data, address = self._socket.recvfrom(65_536)
            except OSError:
                return
            host, port = address[0], address[1]
            source = Endpoint.of(host.partition("%")[0], port) if self._v6 else Endpoint(host, port)
            self._receive(data, Inbound(source, Transport.UDP, bind))

    def send(self, data: bytes, remote: Endpoint) -> bool:
        """False: the network refuses for good (no route, too large). A full buffer counts as loss on the way."""
        try:
            self._socket.sendto(data, (remote.address, remote.port))
        except OSError as error:
            if error.errno not in _FULL:
                return False
            self.dropped += 1
        except OverflowError:
            return False
        return True

    def close(self) -> None:
        """Close it."""
        asyncio.get_running_loop().remove_reader(self._socket)
        self._socket.close()


class Sockets:
    """All sockets of the edge."""

    def __init__(
        self,
        settings: EdgeSettings,
        receive: Receive,
        closed: Callable[[str], None],
        refused: Callable[[Endpoint, str], None],
    ) -> None:
        """``closed``: a connection of that name is gone. ``refused``: why a peer's connection was closed."""
        self._receive = receive
        self._udp: dict[Endpoint, UdpSocket] = {}
        self.streams = Streams(settings, receive, closed, refused)
        self._listeners: tuple[Listener, ...] = ()
        self._facing = lru_cache(maxsize=4096)(self._find_facing)

    @property
    def listeners(self) -> tuple[Listener, ...]:
        """Every socket that is open."""
        return self._listeners

    def open(self, listeners: tuple[Listener, ...]) -> None:
        """Open all, or none: OSError names the one that cannot be had."""
        for listener in listeners:
            try:
                if listener.transport is Transport.UDP:
                    udp = UdpSocket(listener, self._receive)
                    self._udp[udp.listener.bind] = udp
                    opened = udp.listener
                else:
                    opened = self.streams.listen(listener)
            except OSError as error:
                self._close_udp()
                what = f"{error.filename}: {error.strerror}" if error.filename else error.strerror or error
                where = f"cannot listen on {listener.transport}:{listener.bind}: {what}"
                raise OSError(error.errno, where) from error
            self._listeners = (*self._listeners, opened)

    # -- the Network of routing

    def facing(self, transport: Transport, remote: Endpoint) -> Listener | None:
        """The listener that the host would send from; None: none of that transport can reach it."""
        return self._facing(transport, remote.address)

    def forget_routes(self) -> None:
        """The host's routes may have changed."""
        self._facing.cache_clear()

    def _find_facing(self, transport: Transport, address: str) -> Listener | None:
        version = 6 if ":" in address else 4
        able = [one for one in self._listeners if one.transport is transport and one.bind.version == version]
        source = source_address(address)
        exact = next((one for one in able if one.bind.address == source), None)
        if exact is not None or source is None:
            return exact
        # Loopback reaches only loopback; all else may send from an address that the routes do not prefer.
        loopback = scope(address) is Scope.LOOPBACK
        return next((one for one in able if (scope(one.bind.address) is Scope.LOOPBACK) == loopback), None)

    def connection(self, transport: Transport, remote: Endpoint) -> str:
        """A live connection with that peer; empty: none."""
        return self.streams.connection(transport, remote)

    def alive(self, connection: str) -> bool:
        """Whether the connection is open."""
        return self.streams.alive(connection)

    # -- sending

    def send(self, hop: Hop, data: bytes, failed: Failed) -> None:
        """Send. ``failed`` is called, now or later, if it is known that nothing will arrive."""
        if hop.transport is not Transport.UDP:
            self.streams.send(hop, data, failed)
            return
        udp = self._udp.get(hop.local) if hop.local is not None else None
        if udp is None:
            facing = self.facing(hop.transport, hop.remote)
            udp = self._udp.get(facing.bind) if facing is not None else None
        if udp is None or not udp.send(data, hop.remote):
            failed()

    def _close_udp(self) -> None:
        for udp in self._udp.values():
            udp.close()
        self._udp.clear()

    async def close(self) -> None:
        """Close all."""
        self._close_udp()
        await self.streams.close()
        self._listeners = ()


def source_address(remote: str) -> str | None:
    """The address that the host would send from to ``remote``; None: there is no route. Nothing is sent."""
    family = socket.AF_INET6 if ":" in remote else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as probe:
            probe.connect((remote, 9))
            name: str = probe.getsockname()[0]
    except OSError:
        return None
    return name.partition("%")[0]
