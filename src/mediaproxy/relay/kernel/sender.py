"""Sending from lent ports while a stream is learned: sockets bound to the port, a few of them at a time.

A port, a target and bytes come in; a datagram leaves. Binding is also how we know that no other program has the port.
Nothing is ever read here: packets to a lent port come to the receiving socket whatever is bound (calls.md 14). What
comes by a way that the program does not see is dropped by the kernel, for there is no room to keep it. (A filter would
do, too, but to attach one takes longer than to make and bind the socket, and a call has four.)
"""

import errno
import socket
from collections import Counter, OrderedDict

from mediaproxy.endpoint import Endpoint
from mediaproxy.relay.sockets import bound_socket, set_tos, socket_address

_NO_ROOM = 1
"Bytes of a receive buffer; the kernel makes the least of it that it allows, about one packet."


class Sender:
    """Mutable: the sockets that were used last."""

    def __init__(self, most: int) -> None:
        """``most``: sockets at a time, from 1."""
        self.errors: Counter[str] = Counter()
        "Packets that the network did not take, by errno name."
        self._most = most
        self._sockets: OrderedDict[Endpoint, socket.socket] = OrderedDict()
        self._tos: dict[Endpoint, int] = {}

    def __len__(self) -> int:
        return len(self._sockets)

    def claim(self, local: Endpoint) -> None:
        """See to it that the port is nobody else's. OSError says why it cannot be had."""
        self._socket(local)

    def send(self, local: Endpoint, target: Endpoint, data: bytes, tos: int | None = None) -> None:
        """Send one datagram; what the network refuses is counted."""
        if target.version != local.version:
            self.errors["no_socket"] += 1
            return
        try:
            sock = self._socket(local)
            if self._tos.get(local, 0) != (tos or 0):
                set_tos(sock, tos or 0)
                self._tos[local] = tos or 0
            sock.sendto(data, socket_address(target))
        except OSError as error:
            self.errors[errno.errorcode.get(error.errno or 0, "unknown")] += 1

    def release(self, local: Endpoint) -> None:
        """The port is lent no more."""
        sock = self._sockets.pop(local, None)
        self._tos.pop(local, None)
        if sock is not None:
            sock.close()

    def close(self) -> None:
        """Close all."""
        for local in list(self._sockets):
            self.release(local)

    def _socket(self, local: Endpoint) -> socket.socket:
        sock = self._sockets.get(local)
        if sock is not None:
            self._sockets.move_to_end(local)
            return sock
        if len(self._sockets) >= self._most:
            self.release(next(iter(self._sockets)))
        try:
            sock = bound_socket(local, _NO_ROOM, deaf=False)
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE) or not self._sockets:
                raise
            self.release(next(iter(self._sockets)))  # somebody else in this process took more than his share
            sock = bound_socket(local, _NO_ROOM, deaf=False)
        self._sockets[local] = sock
        return sock
