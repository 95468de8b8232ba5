"""[shell] The answering end of control links: JSON lines over a UNIX socket, TLS, or TCP within the host.

Connections come in, questions go to one Link, replies go back in the order of a connection's questions. What is no
question gets a reply with an error, and the connection goes on, or is handed to guests who know its words. No client
can make another one wait, or the server remember without bound.
"""

import asyncio
import errno
import logging
import socket
import ssl
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, cast

import msgspec

from mediaproxy.control import ControlError, Inquiry, MediaReply, Question, decode
from mediaproxy.link.address import Address, Kind
from mediaproxy.link.asking import ASK_TIMEOUT, MAX_LINE, Link, Pending, Prompt, reply_in_time, reply_line
from mediaproxy.link.guest import Guest, Guests
from mediaproxy.link.socketfile import FileRights, bind_unix, unlink_unix
from mediaproxy.link.tcp import bind_tcp, keep_alive

log = logging.getLogger("mediaproxy.link")

MAX_CONNECTIONS = 256
"Clients of one socket at a time, unless the operator says otherwise."
HANDSHAKE = 5.0
"Seconds that a TLS handshake may take."
UNFINISHED = 10.0
"Seconds that the first line of a client may take to come whole."
LAST_WORDS = 1.0
"Seconds that a client who is turned away has to read why."
_TURN = 16
"Questions of one client that are answered before others have their turn."
_OUT_OF_FILES = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_TOO_LONG = MediaReply(error=f"a line is longer than {MAX_LINE} bytes", status=400)
_NO_QUESTION = MediaReply(error="not a control line: a reply where a question is expected", status=400)
_BROKEN = MediaReply(error="a fault of the server, see its log", status=500)


class LineServer:
    """Answers the control lines of clients from a Link."""

    def __init__(
        self,
        address: Address,
        link: Link,
        *,
        rights: FileRights | None = None,
        tls: Callable[[], ssl.SSLContext] | None = None,
        most: int = MAX_CONNECTIONS,
        guests: Guests | None = None,
    ) -> None:
        """``rights``: of a UNIX socket. ``tls``: the context for the next connection, for an address of that kind.
        ``most``: connections at a time; further ones are told so and closed. ``guests``: who speaks other protocols."""
        assert (tls is not None) == (address.kind is Kind.TLS)
        self.address = address
        "Where it listens; after ``start`` with the port that it got."
        self.link = link
        self.prompt = link if isinstance(link, Prompt) else None
        self.most = most
        self.guests = guests
        self.clients: set[_Client] = set()
        self.admitted = 0
        "Clients that are served; the others are just told that there are too many."
        self._rights = rights or FileRights()
        self._tls = tls
        self._listening: socket.socket | None = None
        self._inode = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._arriving = 0
        self._complained = -60.0

    async def start(self) -> None:
        """Listen. OSError or LookupError as ``bind_unix``; OSError if the port cannot be had."""
        if self.address.kind is Kind.UNIX:
            path, rights = Path(self.address.path), self._rights
            self._listening = bind_unix(path, mode=rights.mode, owner=rights.owner, group=rights.group)
            self._inode = path.lstat().st_ino
        else:
            self._listening = bind_tcp(self.address.host, self.address.port)
            port = self._listening.getsockname()[1]
            self.address = msgspec.structs.replace(self.address, port=port)
        asyncio.get_running_loop().add_reader(self._listening, self._acceptable)

    async def stop(self) -> None:
        """End all connections and give the socket back."""
        if self._listening is None:
            return
        sock, self._listening = self._listening, None
        asyncio.get_running_loop().remove_reader(sock)
        sock.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        gone = [client.abort() for client in list(self.clients)]
        await asyncio.gather(*gone)
        if self.address.kind is Kind.UNIX:
            unlink_unix(Path(self.address.path), self._inode)

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """A task that ends with the server."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    # -- connections

    def _acceptable(self) -> None:
        if self._listening is None:
            return
        for _ in range(_TURN):
            try:
                sock, source = self._listening.accept()
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                if error.errno in _OUT_OF_FILES:
                    self._rest()
                    return
                continue
            if self._arriving >= self.most:
                sock.close()
                continue
            sock.setblocking(False)
            self._arriving += 1
            self.spawn(self._accepted(sock, _shown(source)))

    def _rest(self) -> None:
        """No file descriptors: leave what waits to the kernel for a second."""
        self.complain("no file is left for a further connection, it waits (LimitNOFILE=)")
        loop = asyncio.get_running_loop()
        loop.remove_reader(cast(socket.socket, self._listening))

        def resume() -> None:
            if self._listening is not None:
                loop.add_reader(self._listening, self._acceptable)

        loop.call_later(1.0, resume)

    async def _accepted(self, sock: socket.socket, source: str) -> None:
        try:
            context = self._tls() if self._tls is not None else None
            if self.address.kind is not Kind.UNIX:
                keep_alive(sock)
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: _Client(self), sock, ssl=context, ssl_handshake_timeout=HANDSHAKE if context else None
            )
        except (OSError, asyncio.CancelledError) as error:
            sock.close()
            if isinstance(error, asyncio.CancelledError):
                raise
            why = getattr(error, "verify_message", "") or getattr(error, "reason", "") or str(error)
            self.complain(f"{source} turned away, no TLS: {why or 'it hung up'}")
        finally:
            self._arriving -= 1

    def complain(self, text: str) -> None:
        """A line of the log, at most one in ten seconds: anybody can knock."""
        now = asyncio.get_running_loop().time()
        if now - self._complained >= 10.0:
            self._complained = now
            log.warning("%s: %s", self.address, text)


class UnixServer(LineServer):
    """Answers the control lines of local clients."""

    def __init__(self, path: Path, link: Link, *, mode: int = 0o660, owner: str = "", group: str = "") -> None:
        rights = FileRights(mode=mode, owner=owner, group=group)
        super().__init__(Address(kind=Kind.UNIX, path=str(path)), link, rights=rights)


class _Client(asyncio.Protocol):
    """One connection."""

    def __init__(self, server: LineServer) -> None:
        self._server = server
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._gone: asyncio.Future[None] = self._loop.create_future()
        self._buffer = bytearray()
        self._scanned = 0
        "Bytes of the buffer in which there is no line end."
        self._skipping = False
        "Whether what comes until the next line end belongs to a line that was too long."
        self._busy = False
        "Whether a question is being answered, or others have their turn."
        self._paused = False
        self._deaf: asyncio.TimerHandle | None = None
        "The client does not read what it asked for: when to give up."
        self._ended = False
        "Whether the client has said all it wants to."
        self._refused = False
        self._spoken = False
        self._late: asyncio.TimerHandle | None = None
        "Its first line has begun: when to give up."

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """From asyncio."""
        self._transport = cast(asyncio.Transport, transport)
        self._server.clients.add(self)
        self._refused = self._server.admitted >= self._server.most
        if not self._refused:
            self._server.admitted += 1
        else:
            self._server.complain(f"more than {self._server.most} connections (max_connections)")
            if self._server.guests is None:
                self._turn_away()
            self._loop.call_later(LAST_WORDS, self._close)

    def _turn_away(self) -> None:
        assert self._transport is not None
        self._write(MediaReply(error=f"more than {self._server.most} connections", status=503))
        if self._transport.can_write_eof():
            self._transport.write_eof()  # what it still sends is read: a reset would overtake the reply

    def connection_lost(self, exc: Exception | None) -> None:
        """From asyncio."""
        self._transport = None
        self._server.clients.discard(self)
        self._server.admitted -= not self._refused
        if self._late is not None:
            self._late.cancel()
        self.resume_writing()
        if not self._gone.done():
            self._gone.set_result(None)

    def abort(self) -> asyncio.Future[None]:
        """Close without waiting for anything to be sent; done when it is closed."""
        if self._transport is not None:
            self._transport.abort()
        return self._gone

    def _close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def pause_writing(self) -> None:
        """From asyncio: the client does not read."""
        if self._deaf is None:
            self._deaf = self._loop.call_later(ASK_TIMEOUT, self.abort)

    def resume_writing(self) -> None:
        """From asyncio."""
        if self._deaf is not None:
            self._deaf.cancel()
            self._deaf = None
            self._work()

    def eof_received(self) -> bool:
        """From asyncio: the client says no more. Over TLS that closes the connection."""
        if self._buffer and not self._spoken and self._server.guests is not None:
            self._buffer += b"\n"  # the one line of MediaProxy 1.x may end with its connection
        self._ended = True
        self._work()
        return self._server.address.kind is not Kind.TLS

    def data_received(self, data: bytes) -> None:
        """From asyncio."""
        if self._refused and self._server.guests is not None and not self._spoken:
            self._spoken = True  # another protocol would take a word of ours for an address
            (self._turn_away if data.startswith(b"{") else self._close)()
        elif not self._refused:
            self._buffer += data
            self._work()
            if self._buffer and not self._spoken and self._late is None:
                self._late = self._loop.call_later(UNFINISHED, self._give_up)

    def _give_up(self) -> None:
        self._late = None
        if self._buffer and not self._spoken:  # not after an empty line that came in two pieces
            self._close()

    # -- lines

    def _work(self) -> None:
        """Answer what has come, as far as the client reads and nothing must be waited for."""
        for _ in range(_TURN):
            if self._busy or self._deaf is not None or self._transport is None or self._transport.is_closing():
                break
            line = self._next_line()
            if line is None:
                if self._ended:
                    self._close()
                break
            if line:
                self._take(line)
        else:
            self._busy = True
            self._loop.call_soon(self._go_on)
        self._regulate()

    def _go_on(self) -> None:
        self._busy = False
        self._work()

    def _regulate(self) -> None:
        """Read no more while a longest line waits."""
        full = len(self._buffer) > MAX_LINE
        if full != self._paused and self._transport is not None and not self._transport.is_closing():
            self._paused = full
            if full:
                self._transport.pause_reading()
            else:
                self._transport.resume_reading()

    def _next_line(self) -> bytes | None:
        """The next line with its end; empty: something was skipped; None: no whole line is there."""
        end = self._buffer.find(b"\n", self._scanned)
        if end < 0:
            self._scanned = len(self._buffer)
            if self._scanned > MAX_LINE or self._skipping:
                self._skip(self._scanned)
                self._skipping = True
            return None
        line = bytes(self._buffer[: end + 1])
        del self._buffer[: end + 1]
        self._scanned = 0
        if self._skipping:
            self._skipping = False
            return b""
        if len(line) > MAX_LINE:
            self._write(_TOO_LONG)
            return b""
        return line

    def _skip(self, count: int) -> None:
        if not self._skipping:
            self._write(_TOO_LONG)
        del self._buffer[:count]
        self._scanned = 0

    def _take(self, line: bytes) -> None:
        try:
            question = decode(line)
        except ControlError as error:
            if not self._spoken and self._server.guests is not None and not line.strip():
                return  # other protocols pass over empty lines
            if self._spoken or not self._hand_over(line):
                self._write(MediaReply(error=str(error), status=400))
            self._spoken = True
            return
        self._spoken = True
        if not isinstance(question, Question | Inquiry):
            self._write(_NO_QUESTION)
            return
        reply = self._at_once(question)
        if isinstance(reply, MediaReply):
            self._write(reply)
            return
        self._busy = True
        if reply is None:
            self._server.spawn(self._ask(question))
        else:
            reply.then(self._answered)

    def _hand_over(self, line: bytes) -> bool:
        """Who begins with a word of another protocol is served by the guest who speaks it, if there is one."""
        guest = self._server.guests(line) if self._server.guests is not None else None
        if guest is None or self._transport is None:
            return False
        self._busy = True  # for ever: there is nothing more to do here
        rest, self._buffer = line + self._buffer, bytearray()
        Guest(guest, self.connection_lost).take(self._transport, bytes(rest), ended=self._ended)
        return True

    def _at_once(self, question: Question | Inquiry) -> MediaReply | Pending | None:
        prompt = self._server.prompt
        if prompt is None or isinstance(question, Inquiry):
            return None
        try:
            return prompt.answer(question)
        except Exception:
            log.exception("call %r: no answer", question.call_id)
            return _BROKEN

    async def _ask(self, question: Question | Inquiry) -> None:
        try:
            reply = await reply_in_time(self._server.link, question, ASK_TIMEOUT)
        except Exception:
            log.exception("call %r: no answer", getattr(question, "call_id", ""))
            reply = _BROKEN
        self._answered(reply)

    def _answered(self, reply: MediaReply) -> None:
        self._write(reply)
        self._go_on()

    def _write(self, reply: MediaReply) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(reply_line(reply))


def _shown(source: Any) -> str:
    return f"{source[0]}:{source[1]}" if isinstance(source, tuple) else "a local process"
