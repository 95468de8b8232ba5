"""Home routers in user space, for where there is no root: symmetric NATs between phones and server, on loopback.

Phones believe that the server is at ``world``; really these NATs listen there, on every port of the server that a phone
could use. What a phone sends leaves from a socket of its home's public address, a new one for each pair of phone socket
and server port, towards the same port of the real server; only what comes back from exactly there goes in again. No
message is touched. Everything outside the NATs is written to a capture file.
"""

import selectors
import socket
import threading
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from lab.capture import Datagram, write_datagram, write_header

Address = tuple[str, int]


def _udp(address: str, port: int) -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setblocking(False)
    try:
        sock.bind((address, port))
    except OSError:
        sock.close()
        raise
    return sock


class UserNats:
    """The NATs of all homes. A context manager that runs them in a thread."""

    def __init__(self, homes: Mapping[str, str], *, world: str, server: str, ports: Iterable[int]) -> None:
        """``homes``: the public address of each phone's home, by the address the phone really sends from.

        OSError if one of the addresses cannot be used.
        """
        self._server = server
        self._homes = dict(homes)
        self._selector = selectors.DefaultSelector()
        self._outside: dict[tuple[Address, int], socket.socket] = {}
        "The mappings: the socket that talks for one phone socket to one port of the server."
        self._out: BinaryIO | None = None
        self._lock = threading.Lock()
        self._leaving = False
        self._thread = threading.Thread(target=self._run, name="usernat", daemon=True)
        try:
            for port in ports:
                inside = _udp(world, port)
                self._selector.register(inside, selectors.EVENT_READ, partial(self._outward, inside, port))
        except OSError:
            self._close_sockets()
            raise

    def _run(self) -> None:
        while not self._leaving:
            for key, _ in self._selector.select(0.1):
                assert isinstance(key.fileobj, socket.socket)
                with suppress(OSError):  # nothing there after all, or an ICMP error of what was sent before
                    data, source = key.fileobj.recvfrom(65536)
                    key.data(data, source)

    def _outward(self, inside: socket.socket, port: int, data: bytes, phone: Address) -> None:
        """Carry a phone's datagram to the server, by its mapping or a new one. Strangers are ignored."""
        wan = self._homes.get(phone[0])
        if wan is None:
            return
        outside = self._outside.get((phone, port))
        if outside is None:
            outside = self._outside[phone, port] = _udp(wan, 0)
            back = partial(self._inward, inside, (self._server, port), (outside.getsockname(), phone))
            self._selector.register(outside, selectors.EVENT_READ, back)
        self._record(outside.getsockname(), (self._server, port), data)
        outside.sendto(data, (self._server, port))

    def _inward(
        self, inside: socket.socket, server: Address, way: tuple[Address, Address], data: bytes, source: Address
    ) -> None:
        """Carry an answer to the phone, if it comes from where the phone has sent to."""
        own, phone = way
        if source == server:
            self._record(source, own, data)
            inside.sendto(data, phone)

    def capture_to(self, path: Path | None) -> None:
        """Write what passes from now on to a pcap file; None ends it."""
        with self._lock:
            if self._out is not None:
                self._out.close()
            self._out = None if path is None else path.open("wb")
            if self._out is not None:
                self._out.write(write_header())

    def _record(self, source: Address, target: Address, data: bytes) -> None:
        with self._lock:
            if self._out is not None:
                self._out.write(write_datagram(Datagram(time.time(), source, target, data)))

    def _close_sockets(self) -> None:
        for key in list(self._selector.get_map().values()):
            assert isinstance(key.fileobj, socket.socket)
            key.fileobj.close()
        self._selector.close()

    def __enter__(self) -> "UserNats":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leaving = True
        self._thread.join()
        self._close_sockets()
        self.capture_to(None)
