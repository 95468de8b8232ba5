"""[shell] The asking end of control links: JSON lines over a UNIX socket, TLS, or TCP within the host.

Questions go out on one connection, as many at a time as there are, and replies come back in the same order. Whatever
the network or the other process does becomes a reply with an error. What waits is bounded in number and bytes.
"""

import asyncio
import contextlib
import ssl
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import cast

from mediaproxy.control import ControlError, Inquiry, MediaReply, Question, decode, encode
from mediaproxy.link.address import Address, Kind
from mediaproxy.link.asking import ASK_TIMEOUT, MAX_LINE
from mediaproxy.link.server import HANDSHAKE
from mediaproxy.link.tcp import keep_alive

MAX_WAITING = 1000
"Questions on one connection that wait for a reply; more means that nobody answers there."
CONNECT = 10.0
"Seconds that connecting may take, TLS handshake included."
MAX_UNSENT = 4_194_304
"Bytes of questions that the other process has not read."


class StreamLink:
    """A Link to another process. Connects when first asked, and again when the connection is lost."""

    def __init__(
        self, address: Address, *, tls: Callable[[], ssl.SSLContext] | None = None, timeout: float = ASK_TIMEOUT
    ) -> None:
        """``tls``: the context for the next connection, for an address of that kind. ``timeout``: seconds that a
        question may take."""
        assert (tls is not None) == (address.kind is Kind.TLS)
        self.address = address
        self._tls = tls
        self._timeout = timeout
        self._name = address.path if address.kind is Kind.UNIX else str(address)
        self._connection: _Connection | None = None
        self._connecting: asyncio.Task[_Connection] | None = None

    async def ask(self, question: Question) -> MediaReply:
        """The other process's answer. A lost connection is tried once more: questions are idempotent."""
        return await self._ask(encode(question))

    async def inquire(self, inquiry: Inquiry) -> MediaReply:
        """The other process's answer, as with ``ask``: an inquiry may be repeated, too."""
        return await self._ask(encode(inquiry))

    async def _ask(self, line: bytes) -> MediaReply:
        why = ""
        try:
            async with asyncio.timeout(self._timeout):
                for _ in range(2):
                    connection = await self._connected()
                    try:
                        return await connection.ask(line)
                    except ConnectionError as error:
                        why = str(error) or self._suspicion(connection)
        except TimeoutError:
            await self.close()  # who does not answer one question gets the next ones on a new connection
            return MediaReply(error=f"{self._name}: no answer within {self._timeout:g} s", status=503)
        except OSError as error:
            return MediaReply(error=f"{self._name}: {_reason(error)}", status=503)
        return MediaReply(error=f"{self._name}: the connection was closed{why and ': '}{why}", status=503)

    def _suspicion(self, connection: "_Connection") -> str:
        """With TLS 1.3 a server looks at our certificate when we believe that all is well, and may just hang up."""
        hung_up = self.address.kind is Kind.TLS and not connection.answered
        return "before any answer; does it accept our certificate?" if hung_up else ""

    async def close(self) -> None:
        """Give the connection back."""
        if self._connecting is not None:
            self._connecting.cancel()
            await asyncio.gather(self._connecting, return_exceptions=True)
        if self._connection is not None:
            connection, self._connection = self._connection, None
            await connection.close()

    async def _connected(self) -> "_Connection":
        """One attempt serves all who ask meanwhile, and goes on when they lose patience."""
        if self._connection is not None and not self._connection.closed:
            return self._connection
        if self._connecting is None:
            self._connecting = asyncio.get_running_loop().create_task(self._connect())
            self._connecting.add_done_callback(self._attempted)
        attempt = self._connecting
        try:
            return await asyncio.shield(attempt)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if attempt.cancelled() and task is not None and not task.cancelling():
                raise ConnectionResetError("the link was closed") from None
            raise

    def _attempted(self, attempt: "asyncio.Task[_Connection]") -> None:
        self._connecting = None
        if not attempt.cancelled() and attempt.exception() is None:
            self._connection = attempt.result()

    async def _connect(self) -> "_Connection":
        async with asyncio.timeout(CONNECT):
            return await self._open()

    async def _open(self) -> "_Connection":
        loop = asyncio.get_running_loop()
        if self.address.kind is Kind.UNIX:
            _, connection = await loop.create_unix_connection(_Connection, self.address.path)
            return connection
        context = self._tls() if self._tls is not None else None
        _, connection = await loop.create_connection(
            _Connection,
            self.address.host,
            self.address.port,
            ssl=context,
            ssl_handshake_timeout=HANDSHAKE if context else None,
        )
        return connection


class UnixLink(StreamLink):
    """A Link over the UNIX socket of another process."""

    def __init__(self, path: Path, *, timeout: float = ASK_TIMEOUT) -> None:
        super().__init__(Address(kind=Kind.UNIX, path=str(path)), timeout=timeout)


class _Connection(asyncio.Protocol):
    """Questions and, in the same order, their replies."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._gone: asyncio.Future[None] = self._loop.create_future()
        self._waiting: deque[asyncio.Future[MediaReply]] = deque()
        self._buffer = b""
        self.answered = False
        "Whether any reply has come."

    @property
    def closed(self) -> bool:
        return self._transport is None or self._transport.is_closing()

    async def ask(self, line: bytes) -> MediaReply:
        """ConnectionError if the connection ends before the reply comes."""
        transport = self._transport
        if transport is None or transport.is_closing():
            raise ConnectionResetError
        if len(self._waiting) >= MAX_WAITING or transport.get_write_buffer_size() > MAX_UNSENT:
            transport.abort()
            raise ConnectionResetError("too many questions wait for an answer")
        reply: asyncio.Future[MediaReply] = self._loop.create_future()
        self._waiting.append(reply)
        transport.write(line)
        return await reply

    async def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()
            await self._gone

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """From asyncio."""
        self._transport = cast(asyncio.Transport, transport)
        sock = transport.get_extra_info("socket")
        if transport.get_extra_info("peername") and not isinstance(transport.get_extra_info("peername"), str | bytes):
            with contextlib.suppress(OSError):  # it may be closed already
                keep_alive(sock)

    def connection_lost(self, exc: Exception | None) -> None:
        """From asyncio."""
        self._transport = None
        lost = ConnectionResetError(_reason(exc) if isinstance(exc, ssl.SSLError) else "")
        for waiting in self._waiting:
            if not waiting.done():
                waiting.set_exception(lost)
        self._waiting.clear()
        if not self._gone.done():
            self._gone.set_result(None)

    def data_received(self, data: bytes) -> None:
        """From asyncio."""
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        try:
            for line in lines:
                self._received(decode(line + b"\n"))
            if len(self._buffer) > MAX_LINE:
                raise ControlError("a line without end")
        except ControlError:
            if self._transport is not None:
                self._transport.abort()

    def _received(self, reply: object) -> None:
        if not self._waiting or not isinstance(reply, MediaReply):
            raise ControlError("not the reply to a question")
        self.answered = True
        waiting = self._waiting.popleft()
        if not waiting.done():
            waiting.set_result(reply)


def _reason(error: Exception) -> str:
    """In words: what TLS has against the other side, or what the system says."""
    if isinstance(error, ssl.SSLError):
        told = getattr(error, "verify_message", "") or error.reason or str(error)
        return f"TLS: {told}"
    return getattr(error, "strerror", None) or str(error)
