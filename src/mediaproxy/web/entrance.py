"""[shell] Who is connected to the HTTP server: never more than so many, and no stranger keeps out who may ask.

A listening socket comes in, connections of aiohttp's server go out. One more than there is room for takes the place of
the one that has been idle longest, a stranger's before all others.
"""

import asyncio
import contextlib
import socket
from collections.abc import Iterator

from aiohttp import web

from mediaproxy.access import AccessList
from mediaproxy.link.tcp import bind_tcp

_TURN = 16
"Connections that are accepted before others have their turn."
_PAUSE = 1.0
"Seconds until the next try when there are no file descriptors."


class Entrance:
    """The listening socket."""

    def __init__(self, server: web.Server, access: AccessList, most: int) -> None:
        self._server, self._access, self._most = server, access, most
        self._sock: socket.socket | None = None
        self._tasks: dict[asyncio.BaseProtocol, asyncio.Task[None]] = {}
        "Connections that are being accepted."
        self._hosts: dict[web.RequestHandler, str] = {}
        "All connections, the oldest first."
        self._busy: set[asyncio.BaseTransport] = set()

    def start(self, host: str, port: int) -> tuple[str, int]:
        """Listen; the address that it got. OSError."""
        sock = self._sock = bind_tcp(host, port)
        asyncio.get_running_loop().add_reader(sock, self._acceptable)
        name = sock.getsockname()
        return name[0], name[1]

    async def stop(self) -> None:
        """Listen no more. Connections are the server's."""
        sock, self._sock = self._sock, None
        if sock is None:
            return
        asyncio.get_running_loop().remove_reader(sock)
        sock.close()
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    @contextlib.contextmanager
    def busy(self, transport: asyncio.BaseTransport | None) -> Iterator[None]:
        """While a request is answered its connection makes room for nobody."""
        if transport is None:
            yield
            return
        self._busy.add(transport)
        try:
            yield
        finally:
            self._busy.discard(transport)

    def _acceptable(self) -> None:
        for _ in range(_TURN):
            if self._sock is None:
                return
            try:
                sock, source = self._sock.accept()
            except (BlockingIOError, InterruptedError, ConnectionError):
                return
            except OSError:
                self._rest(self._sock)
                return
            if not self._has_room(source[0]):
                sock.close()
                continue
            sock.setblocking(False)
            handler = self._server()
            self._hosts[handler] = source[0]
            self._tasks[handler] = asyncio.get_running_loop().create_task(self._connect(sock, handler))

    def _has_room(self, host: str) -> bool:
        """Whether one more may come; who has to go is gone then."""
        self._hosts = {one: at for one, at in self._hosts.items() if one.transport is not None or one in self._tasks}
        if len(self._hosts) < self._most:
            return True
        idle = [one for one in self._hosts if one.transport is not None and one.transport not in self._busy]
        strangers = [one for one in idle if not self._access.admits(self._hosts[one])]
        leaving = next(iter(strangers or (idle if self._access.admits(host) else [])), None)
        if leaving is None or leaving.transport is None:
            return False
        leaving.transport.abort()
        del self._hosts[leaving]
        return True

    async def _connect(self, sock: socket.socket, handler: web.RequestHandler) -> None:
        try:
            await asyncio.get_running_loop().connect_accepted_socket(lambda: handler, sock)
        except BaseException as error:
            sock.close()
            if not isinstance(error, OSError):
                raise
        finally:
            self._tasks.pop(handler, None)

    def _rest(self, listening: socket.socket) -> None:
        """No file descriptors: leave what waits to the kernel for a while."""
        loop = asyncio.get_running_loop()
        loop.remove_reader(listening)

        def resume() -> None:
            if self._sock is listening:
                loop.add_reader(listening, self._acceptable)

        loop.call_later(_PAUSE, resume)
