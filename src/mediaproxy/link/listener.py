"""[shell] A UNIX socket whose clients are served by a coroutine each, for conversations of any kind."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from pathlib import Path

from mediaproxy.link.socketfile import bind_unix, unlink_unix

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class UnixListener:
    """A UNIX socket whose clients are served by a task each."""

    def __init__(self, path: Path, serve: Serve, limit: int) -> None:
        """``serve`` may end in ConnectionError or TimeoutError. ``limit``: bytes of the longest line that it reads."""
        self.path = path
        self._serve = serve
        self._limit = limit
        self._server: asyncio.Server | None = None
        self._inode = 0
        self._clients: set[asyncio.Task[None]] = set()

    @property
    def clients(self) -> int:
        """How many are connected."""
        return len(self._clients)

    async def start(self, *, mode: int, owner: str = "", group: str = "") -> None:
        """Listen. OSError or LookupError as ``bind_unix``."""
        sock = bind_unix(self.path, mode=mode, owner=owner, group=group)
        self._inode = self.path.lstat().st_ino
        self._server = await asyncio.start_unix_server(self._connected, sock=sock, limit=self._limit)

    async def stop(self) -> None:
        """End all connections and remove the socket file."""
        if self._server is None:
            return
        self._server.close()
        for task in self._clients:
            task.cancel()
        await asyncio.gather(*self._clients, return_exceptions=True)
        await self._server.wait_closed()
        unlink_unix(self.path, self._inode)
        self._server = None

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self._run(reader, writer))
        self._clients.add(task)
        task.add_done_callback(self._clients.discard)

    async def _run(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._serve(reader, writer)
        except (ConnectionError, TimeoutError):
            writer.transport.abort()
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()
