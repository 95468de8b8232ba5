"""The sockets that get what the kernel passes up: one per IP version, whatever port a packet was sent to.

Datagrams come in, and go out with the port that they came to and its generation at that moment; the lookup program
(relay.bpf.c) sees to it that they come here. It must never hold the event loop for more than one short batch, and never
let a packet of an earlier lending of a port be taken for one of the next: ``drain`` reads what is queued before that.
"""

import asyncio
import contextlib
import socket
import struct
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from mediaproxy.endpoint import Endpoint, address_text

_BATCH = 64
"Packets per turn of the event loop: about half a millisecond."
_KEPT = 4096
"Datagrams read ahead at most; the network may lose any."
_LARGEST = 65536
_CONTROL = 128
_BUFFER = 4 << 20
"Bytes of the socket's queue: a burst of some thousand packets."
_SO_RCVBUFFORCE, _SO_MEMINFO = 33, 55
_ORIGINAL = {socket.AF_INET: (socket.IPPROTO_IP, 20), socket.AF_INET6: (socket.IPPROTO_IPV6, 74)}
"IP_RECVORIGDSTADDR and IPV6_RECVORIGDSTADDR: the address and port that a datagram was sent to."
_ASK_INTERFACE = {socket.AF_INET: (socket.IPPROTO_IP, 8), socket.AF_INET6: (socket.IPPROTO_IPV6, 49)}
"IP_PKTINFO and IPV6_RECVPKTINFO."
_INTERFACE = {(socket.IPPROTO_IP, 8): 0, (socket.IPPROTO_IPV6, 50): 16}
"Control messages that name the interface it came in by, and where."


class Arrival(NamedTuple):
    """One datagram."""

    local: Endpoint
    generation: int
    source: Endpoint
    data: bytes
    ifindex: int
    "The interface it came in by."


class Receiver:
    """Mutable: the receiving sockets, and datagrams read ahead of their turn."""

    def __init__(
        self, addresses: Iterable[str], lent: Callable[[Endpoint], int | None], deliver: Callable[[Arrival], None]
    ) -> None:
        """``addresses``: the relay's. ``lent``: the generation of a lent port, None for
        others. OSError if there can be no sockets; ``start`` must follow."""
        self.sockets: dict[int, socket.socket] = {}
        "By IP version."
        self._lent = lent
        self._deliver = deliver
        self._ahead: deque[Arrival] = deque()
        self._buffer = memoryview(bytearray(_LARGEST))
        self._loop: asyncio.AbstractEventLoop | None = None
        self._turn: asyncio.Handle | None = None
        try:
            for address in addresses:
                version = 6 if ":" in address else 4
                if version not in self.sockets:
                    self.sockets[version] = _open(address)
        except OSError:
            self.close()
            raise

    def start(self) -> None:
        """Begin to deliver."""
        self._loop = asyncio.get_running_loop()
        for sock in self.sockets.values():
            self._loop.add_reader(sock.fileno(), self._readable, sock)

    def drain(self) -> None:
        """Read what is queued, with the generations that hold now."""
        for sock in self.sockets.values():
            if sock.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, 4) == bytes(4):  # the usual case costs nothing more
                continue
            for _ in range(_KEPT):
                arrival = self._read(sock)
                if arrival is None:
                    break
                if arrival.generation >= 0 and len(self._ahead) < _KEPT:
                    self._ahead.append(arrival)
        if self._ahead and self._turn is None and self._loop is not None:
            self._turn = self._loop.call_soon(self._catch_up)

    def _catch_up(self) -> None:
        self._turn = None
        for _ in range(min(_BATCH, len(self._ahead))):
            if self._ahead:  # else what an earlier packet led to has closed us
                self._deliver(self._ahead.popleft())
        if self._ahead and self._turn is None and self._loop is not None:
            self._turn = self._loop.call_soon(self._catch_up)

    def _readable(self, sock: socket.socket) -> None:
        for _ in range(_BATCH):
            if self._loop is None or self._ahead:
                return
            arrival = self._read(sock)
            if arrival is None:
                return
            if arrival.generation >= 0:
                self._deliver(arrival)

    def _read(self, sock: socket.socket) -> Arrival | None:
        """One datagram, generation -1 if its port is not lent; None: there is none."""
        try:
            size, told, _, source = sock.recvmsg_into([self._buffer], _CONTROL)
        except OSError:
            return None
        local, ifindex = _sent_to(told)
        generation = self._lent(local) if local is not None else None
        if local is None or generation is None:
            return _NOBODY
        place = Endpoint.of(source[0].partition("%")[0], source[1])
        return Arrival(local, generation, place, bytes(self._buffer[:size]), ifindex)

    def close(self) -> None:
        """Close the sockets. A second call does nothing."""
        if self._turn is not None:
            self._turn.cancel()
            self._turn = None
        for sock in self.sockets.values():
            if self._loop is not None:
                self._loop.remove_reader(sock.fileno())
            sock.close()
        self._loop = None
        self.sockets.clear()
        self._ahead.clear()


_NOBODY = Arrival(Endpoint("0.0.0.0", 0), -1, Endpoint("0.0.0.0", 0), b"", 0)


def _open(own: str) -> socket.socket:
    family = socket.AF_INET6 if ":" in own else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        sock.setsockopt(*_ORIGINAL[family], 1)
        sock.setsockopt(*_ASK_INTERFACE[family], 1)
        with contextlib.suppress(OSError):  # as much as the host lets us have
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
            sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER)
        try:
            # On loopback, where nobody else reaches it but through the lookup program; at an address that no relay has.
            sock.bind(("127.255.255.254" if family == socket.AF_INET else "::1", 0))
        except OSError:  # a host may have none
            sock.bind((own, 0))
    except OSError:
        sock.close()
        raise
    return sock


def _sent_to(told: list[tuple[int, int, Any]]) -> tuple[Endpoint | None, int]:
    """Where it was sent to, and the interface that it came in by; 0: not told."""
    local, ifindex = None, 0
    for level, kind, data in told:
        if (level, kind) == _ORIGINAL[socket.AF_INET]:  # struct sockaddr_in
            (port,) = struct.unpack_from("!H", data, 2)
            local = Endpoint(socket.inet_ntop(socket.AF_INET, data[4:8]), port)
        elif (level, kind) == _ORIGINAL[socket.AF_INET6]:  # struct sockaddr_in6
            (port,) = struct.unpack_from("!H", data, 2)
            local = Endpoint(address_text(socket.inet_ntop(socket.AF_INET6, data[8:24])) or "", port)
        elif (level, kind) in _INTERFACE:
            (ifindex,) = struct.unpack_from("=I", data, _INTERFACE[level, kind])
    return local, ifindex
