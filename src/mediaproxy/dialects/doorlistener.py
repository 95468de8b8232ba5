"""[shell] Connections of a door: accepted one by one, by the access list and up to a limit, with TLS if there is any.

A listening socket comes in, protocols on connected sockets go out. When the limit is reached, an address that has many
connections loses an idle one to an address that has few, so that no client can keep another one out.
"""

import asyncio
import errno
import socket
import ssl
from pathlib import Path
from typing import Any, Protocol

from msgspec.structs import replace

from mediaproxy.dialects.door import Door
from mediaproxy.dialects.doorsettings import ENCRYPTED
from mediaproxy.link import bind_unix
from mediaproxy.link.address import TlsFiles
from mediaproxy.link.server import HANDSHAKE
from mediaproxy.link.socketfile import unlink_unix
from mediaproxy.link.tcp import bind_tcp, keep_alive
from mediaproxy.link.tls import Context, door_side

_TURN = 16
"Connections that are accepted before others have their turn."
_OUT_OF_FILES = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
LOCAL = "a local process"
"Who is at the other end of a UNIX socket."


class Clients(Protocol):
    """Who serves the connections."""

    def protocol(self, source: str) -> asyncio.BaseProtocol:
        """For a new one. ``source``: its address, or LOCAL."""

    def count(self) -> int:
        """How many there are."""

    def connected(self, protocol: asyncio.BaseProtocol) -> bool:
        """Whether that one is among them by now."""

    def make_room(self, host: str) -> bool:
        """There are too many: close an idle one of an address that has more than ``host`` has. Whether there was
        one."""


class Listener:
    """The listening socket of one door."""

    def __init__(self, door: Door, clients: Clients) -> None:
        self._door = door
        self._clients = clients
        self._sock: socket.socket | None = None
        self._inode = 0
        self._tls: Context | None = None
        self._arriving: set[asyncio.BaseProtocol] = set()
        "Accepted; they may be counted by ``Clients`` already."

    def start(self) -> None:
        """Listen. OSError names what cannot be had or which certificate cannot be used; LookupError as Door.start."""
        door, address = self._door, self._door.address
        settings = door.settings
        if address.kind in ENCRYPTED:
            files = TlsFiles(certificate=settings.certificate, key=settings.key, authorities=settings.authorities)
            self._tls = door_side(files)
        if address.kind.is_file:
            path = Path(address.path)
            self._sock = bind_unix(path, mode=int(settings.mode, 8), owner=settings.owner, group=settings.group)
            self._inode = path.lstat().st_ino
        else:
            self._sock = bind_tcp(address.host, address.port)
            door.address = replace(address, port=self._sock.getsockname()[1])
        asyncio.get_running_loop().add_reader(self._sock, self._acceptable, self._sock)

    def stop(self) -> None:
        """Take no more connections."""
        if self._sock is None:
            return
        sock, self._sock = self._sock, None
        asyncio.get_running_loop().remove_reader(sock)
        sock.close()
        if self._door.address.kind.is_file:
            unlink_unix(Path(self._door.address.path), self._inode)

    def _acceptable(self, listening: socket.socket) -> None:
        for _ in range(_TURN):
            try:
                sock, source = listening.accept()
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                if error.errno in _OUT_OF_FILES:
                    self._rest(listening)
                    return
                continue
            if not self._admitted(source):
                sock.close()
                continue
            sock.setblocking(False)
            protocol = self._clients.protocol(_shown(source))
            self._arriving.add(protocol)
            self._door.spawn(self._accepted(sock, _shown(source), protocol))

    def _admitted(self, source: Any) -> bool:
        host = source[0] if isinstance(source, tuple) else LOCAL
        if host is not LOCAL and not self._door.access.admits(host):
            self._door.refused(host)
            return False
        most = self._door.settings.max_connections
        arriving = sum(not self._clients.connected(one) for one in self._arriving)
        if arriving + self._clients.count() < most or (arriving < most and self._clients.make_room(host)):
            return True
        self._door.dropped(host, f"more than {most} connections (max_connections)")
        return False

    def _rest(self, listening: socket.socket) -> None:
        """No file descriptors: leave what waits to the kernel for a second."""
        self._door.complain("connections", "no file is left for a further one, it waits (LimitNOFILE=)")
        loop = asyncio.get_running_loop()
        loop.remove_reader(listening)

        def resume() -> None:
            if self._sock is listening:
                loop.add_reader(listening, self._acceptable, listening)

        loop.call_later(1.0, resume)

    async def _accepted(self, sock: socket.socket, source: str, protocol: asyncio.BaseProtocol) -> None:
        try:
            context: ssl.SSLContext | None = None if self._tls is None else self._tls()
            if source != LOCAL:
                keep_alive(sock)
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: protocol, sock, ssl=context, ssl_handshake_timeout=HANDSHAKE if context else None
            )
        except OSError as error:
            sock.close()
            why = getattr(error, "verify_message", "") or getattr(error, "reason", "") or str(error)
            self._door.malformed(source, f"turned away, no TLS: {why or 'it hung up'}")
        except asyncio.CancelledError:
            sock.close()
            raise
        finally:
            self._arriving.discard(protocol)


def _shown(source: Any) -> str:
    if not isinstance(source, tuple):
        return LOCAL
    host, port = source[0], source[1]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
