"""What carries a control question to a media arm and the reply back: in memory, or over a UNIX socket.

A Question comes in, a MediaReply goes out, always: whatever breaks on the way (nobody listens, no reply in time, a
broken line) becomes a reply with ``error`` and a status. Nothing here decides which relay is asked, and no peer can
make it wait or remember without bound.

On the socket a control value is one JSON line (control.py). A connection's replies come in the order of its questions,
so a client may ask on before it has been answered.
"""

import asyncio
import contextlib
import errno
import grp
import os
import pwd
import socket
import stat
import tempfile
from collections import deque
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Protocol

from mediaproxy.control import ControlError, MediaReply, Question, decode, encode

MAX_LINE = 262_144
"Bytes of one control line: a SIP message of 64 KiB, each byte doubled by UTF-8, and room to spare."
MAX_CONNECTIONS = 256
"Clients of one UNIX socket at a time."
MAX_WAITING = 1000
"Questions on one connection that wait for a reply; more means that nobody answers there."
ASK_TIMEOUT = 5.0
"Seconds that a question may take before the asker is told that there is no answer."


class Link(Protocol):
    """Somebody who answers control questions: a relay, a dispatcher, or a connection to one."""

    async def ask(self, question: Question) -> MediaReply:
        """The answer. Never raises for what a peer or the network did; ``error`` says what went wrong."""


class LocalLink:
    """A Link within this process: any coroutine function that answers questions."""

    def __init__(self, answer: Callable[[Question], Awaitable[MediaReply]]) -> None:
        self._answer = answer

    async def ask(self, question: Question) -> MediaReply:
        """The answer."""
        return await self._answer(question)


# -- the socket file


def bind_unix(path: Path, *, mode: int = 0o660, owner: str = "", group: str = "") -> socket.socket:
    """A listening UNIX stream socket at ``path``.

    A file that a dead process left is replaced, in one step and with its final mode and owner. OSError EADDRINUSE if
    somebody listens there, EEXIST if the path is no socket; LookupError if owner or group are unknown.
    """
    uid = pwd.getpwnam(owner).pw_uid if owner else -1
    gid = grp.getgrnam(group).gr_gid if group else -1
    _check_free(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".", dir=path.parent) as directory:
        made = Path(directory, "s")
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
        try:
            sock.bind(str(made))
            os.chmod(made, mode)
            if (uid, gid) != (-1, -1):
                os.chown(made, uid, gid)
            sock.listen(128)
            os.rename(made, path)
        except OSError:
            sock.close()
            raise
    return sock


def _check_free(path: Path) -> None:
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise FileExistsError(errno.EEXIST, "is in the way: not a socket", str(path))
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return
        except TimeoutError:
            pass  # a listener whose queue is full
    raise OSError(errno.EADDRINUSE, "another process listens there", str(path))


def unlink_unix(path: Path, inode: int) -> None:
    """Remove a socket file, unless another process has put its own there meanwhile."""
    with contextlib.suppress(FileNotFoundError):
        if path.lstat().st_ino == inode:
            path.unlink()


async def _send(writer: asyncio.StreamWriter, data: bytes) -> None:
    """ConnectionError if the connection is closed: uvloop has a RuntimeError for that."""
    if writer.is_closing():
        raise ConnectionResetError
    writer.write(data)
    await writer.drain()


# -- server


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


class UnixServer:
    """Answers the control lines of local clients from a Link."""

    def __init__(self, path: Path, link: Link, *, mode: int = 0o660, owner: str = "", group: str = "") -> None:
        self._link = link
        self._mode, self._owner, self._group = mode, owner, group
        self._listener = UnixListener(path, self._serve, MAX_LINE)

    async def start(self) -> None:
        """Listen. OSError or LookupError as ``bind_unix``."""
        await self._listener.start(mode=self._mode, owner=self._owner, group=self._group)

    async def stop(self) -> None:
        """End all connections and remove the socket file."""
        await self._listener.stop()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        go_on = self._listener.clients <= MAX_CONNECTIONS
        reply: MediaReply | None = None
        if not go_on:
            reply = MediaReply(error=f"more than {MAX_CONNECTIONS} connections", status=503)
        while go_on:
            reply, go_on = await self._answer(reader)
            if go_on and reply is not None:
                await self._write(writer, reply)
        if reply is not None:
            await self._part(reader, writer, reply)

    async def _write(self, writer: asyncio.StreamWriter, reply: MediaReply) -> None:
        async with asyncio.timeout(ASK_TIMEOUT):  # a client that asks and does not read is cut off
            await _send(writer, encode(reply))

    async def _part(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, reply: MediaReply) -> None:
        """The last words. What the client still sends is read and forgotten, or a reset would overtake the reply."""
        await self._write(writer, reply)
        if not writer.is_closing():
            writer.write_eof()
        async with asyncio.timeout(1.0):
            while await reader.read(MAX_LINE):
                pass

    async def _answer(self, reader: asyncio.StreamReader) -> tuple[MediaReply | None, bool]:
        """The reply to the next line, if any, and whether the connection can go on after it."""
        try:
            line = await reader.readline()
        except ValueError:
            return MediaReply(error=f"a line is longer than {MAX_LINE} bytes", status=400), False
        if not line.endswith(b"\n"):
            return None, False
        try:
            question = decode(line)
        except ControlError as error:
            return MediaReply(error=str(error), status=400), True
        if isinstance(question, MediaReply):
            return MediaReply(error="not a control line: a reply where a question is expected", status=400), True
        return await ask_in_time(self._link, question, ASK_TIMEOUT), True


async def ask_in_time(link: Link, question: Question, seconds: float) -> MediaReply:
    """Ask; after ``seconds`` without an answer the reply is an error with status 503."""
    try:
        async with asyncio.timeout(seconds):
            return await link.ask(question)
    except TimeoutError:
        return MediaReply(error=f"no answer within {seconds:g} s", status=503)


# -- client


class UnixLink:
    """A Link over the UNIX socket of another process. Connects when first asked, and again when that is lost."""

    def __init__(self, path: Path, *, timeout: float = ASK_TIMEOUT) -> None:
        self._path = path
        self._timeout = timeout
        self._connection: _Connection | None = None
        self._connecting = asyncio.Lock()

    async def ask(self, question: Question) -> MediaReply:
        """The other process's answer. A lost connection is tried once more: questions are idempotent."""
        line = encode(question)
        try:
            async with asyncio.timeout(self._timeout):
                for _ in range(2):
                    connection = await self._connected()
                    with contextlib.suppress(ConnectionError):
                        return await connection.ask(line)
        except TimeoutError:
            await self.close()  # who does not answer one question gets the next ones on a new connection
            return MediaReply(error=f"{self._path}: no answer within {self._timeout:g} s", status=503)
        except OSError as error:
            return MediaReply(error=f"{self._path}: {error.strerror or error}", status=503)
        return MediaReply(error=f"{self._path}: the connection was closed", status=503)

    async def close(self) -> None:
        """Give the connection back."""
        if self._connection is not None:
            connection, self._connection = self._connection, None
            await connection.close()

    async def _connected(self) -> "_Connection":
        async with self._connecting:
            if self._connection is None or self._connection.closed:
                await self.close()
                reader, writer = await asyncio.open_unix_connection(self._path, limit=MAX_LINE)
                self._connection = _Connection(reader, writer)
            return self._connection


class _Connection:
    """Questions and, in the same order, their replies."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._waiting: deque[asyncio.Future[MediaReply]] = deque()
        self._task = asyncio.get_running_loop().create_task(self._read())

    @property
    def closed(self) -> bool:
        return self._task.done() or self._writer.is_closing()

    async def ask(self, line: bytes) -> MediaReply:
        """ConnectionError if the connection ends before the reply comes."""
        if len(self._waiting) >= MAX_WAITING:
            self._task.cancel()
        if self.closed or self._task.cancelling():
            raise ConnectionResetError
        reply: asyncio.Future[MediaReply] = asyncio.get_running_loop().create_future()
        self._waiting.append(reply)
        await _send(self._writer, line)
        return await reply

    async def close(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _read(self) -> None:
        try:
            while (line := await self._reader.readline()).endswith(b"\n"):
                reply = decode(line)
                if not self._waiting or not isinstance(reply, MediaReply):
                    return
                waiting = self._waiting.popleft()
                if not waiting.done():
                    waiting.set_result(reply)
        except (ConnectionError, ControlError, ValueError):
            return
        finally:
            for waiting in self._waiting:
                if not waiting.done():
                    waiting.set_exception(ConnectionResetError())
            self._writer.close()
            with contextlib.suppress(ConnectionError):
                await self._writer.wait_closed()
