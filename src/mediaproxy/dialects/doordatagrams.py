"""[shell] A door for datagrams: one is one request, its answer goes back to where it came from, from where it went to.

A repeated request gets the answer of the first one (``doorcache``). What one address may have under way is bounded, so
that a flood from it holds up nobody else.
"""

import asyncio
import errno
import socket
import struct
from functools import lru_cache, partial
from typing import Any, TypeAlias

from msgspec.structs import replace

from mediaproxy import clock
from mediaproxy.dialects.dialect import Dialect, Peer
from mediaproxy.dialects.door import LONGEST_COOKIE, Door
from mediaproxy.dialects.doorcache import AnswerCache
from mediaproxy.dialects.doorsettings import DoorSettings
from mediaproxy.link import Link

MOST = 4096
"Requests under way at a door."
MOST_OF_ONE = 1024
"Of these, of one address."
BUFFER = 4_194_304
"Bytes that may wait in the kernel; it gives less if net.core.rmem_max is less."
_TURN = 8
"Datagrams that are read before others have their turn: media in user space must not wait for many calls to be set up."
_WHOLE = 65_536
_IP_PKTINFO = 8
_IN_PKTINFO = struct.Struct("@i4s4s")

Source: TypeAlias = Any
"An address as the socket module has it."
Way: TypeAlias = tuple[Source, Any]
"Where an answer goes, and the control message that says where it comes from; None: the socket's own address."


class DatagramDoor(Door):
    """UDP."""

    def __init__(self, settings: DoorSettings, dialect: Dialect, link: Link) -> None:
        super().__init__(settings, dialect, link)
        self.cache: AnswerCache[Way] = AnswerCache()
        self._busy: dict[str, int] = {}
        "Requests under way by address."
        self._sock: socket.socket | None = None
        self._anywhere = self.address.host in ("0.0.0.0", "::")

    async def start(self) -> None:
        """Listen. OSError if the address cannot be had."""
        self._sock = _bind(self.address.host, self.address.port, anywhere=self._anywhere)
        self.address = replace(self.address, port=self._sock.getsockname()[1])
        read = self._read_anywhere if self._anywhere else self._read
        asyncio.get_running_loop().add_reader(self._sock, read, self._sock)

    async def stop(self) -> None:
        """Give the socket back."""
        if self._sock is not None:
            asyncio.get_running_loop().remove_reader(self._sock)
            self._sock.close()
            self._sock = None
        await self.end_tasks()

    # -- in

    def _read(self, sock: socket.socket) -> None:
        for _ in range(_TURN):
            try:
                data, source = sock.recvfrom(_WHOLE)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                continue  # an ICMP error of an answer that nobody wanted
            self._take(data, (source, None))

    def _read_anywhere(self, sock: socket.socket) -> None:
        """The same, and the kernel says which address of this host each came to."""
        for _ in range(_TURN):
            try:
                data, told, _, source = sock.recvmsg(_WHOLE, 128)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                continue
            self._take(data, (source, _from(told)))

    def _take(self, data: bytes, way: Way) -> None:
        source = way[0]
        host = source[0]
        if not self.access.admits(host):
            self.refused(host)
            return
        if len(data) > self.settings.max_request:
            self.dropped(host, f"a datagram of {len(data)} bytes (max_request)")
            return
        now = clock.now()
        cookie = self.dialect.cookie(data)
        key = None if cookie is None or len(cookie) > LONGEST_COOKIE else (cookie, source)
        if key is not None and self._known(key, way, now):
            self.counters.repeated += 1
            return
        busy = self._busy.get(host, 0)
        if busy >= MOST_OF_ONE or self.counters.working >= MOST:
            self.dropped(host, f"{busy} requests are under way already")
            return
        self._busy[host] = busy + 1
        if key is not None:
            self.cache.begin(key)
        self.serve(data, Peer("udp", _shown(source), now), partial(self._answered, key, way))

    def _known(self, key: tuple[bytes, Source], way: Way, now: float) -> bool:
        """Whether it is a repetition; its answer is sent, or will be."""
        answer = self.cache.find(key, now)
        if answer is None:
            return self.cache.waits(key, way)
        self._send(answer, way)
        return True

    # -- out

    def _answered(self, key: tuple[bytes, Source] | None, way: Way, answer: bytes | None) -> None:
        host = way[0][0]
        busy = self._busy.pop(host) - 1
        if busy:
            self._busy[host] = busy
        if answer is not None:
            self._send(answer, way)
        if key is not None:
            for other in self.cache.done(key, answer, clock.now()):
                if answer is not None:
                    self._send(answer, other)

    def _send(self, answer: bytes, way: Way) -> None:
        if not answer or self._sock is None:
            return
        source, told = way
        try:
            if told is None:
                self._sock.sendto(answer, source)
            else:
                self._sock.sendmsg([answer], [told], 0, source)
        except OSError as error:  # it will ask again, and the answer is kept
            size = f" of {len(answer)} bytes" if error.errno == errno.EMSGSIZE else ""
            self.dropped(source[0], f"an answer{size} was not sent: {error.strerror}")


def _bind(host: str, port: int, *, anywhere: bool) -> socket.socket:
    host = "127.0.0.1" if host == "localhost" else host
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if anywhere and family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
        elif anywhere:
            sock.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)
        sock.bind((host, port))
    except OSError:
        sock.close()
        raise
    return sock


def _from(told: list[tuple[int, int, bytes]]) -> Any:
    """The control message by which an answer leaves from the address that its request came to."""
    for level, kind, data in told:
        if level == socket.IPPROTO_IP and kind == _IP_PKTINFO and len(data) >= _IN_PKTINFO.size:
            _, local, _ = _IN_PKTINFO.unpack_from(data)
            return level, kind, _IN_PKTINFO.pack(0, local, bytes(4))
        if level == socket.IPPROTO_IPV6 and kind == socket.IPV6_PKTINFO:
            return level, kind, data
    return None


@lru_cache(maxsize=1024)
def _shown(source: Source) -> str:
    host, port = source[0], source[1]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
