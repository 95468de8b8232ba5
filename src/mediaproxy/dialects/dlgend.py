"""[shell] Tells a SIP server by JSON-RPC to end the dialog of a call that has ended by itself (``dialogs``)."""

import asyncio
import itertools
import os
import secrets
import socket
from contextlib import suppress
from pathlib import Path

import msgspec

from mediaproxy.dialects.dialogs import RpcAddress, RpcKind, end_dialog, judge
from mediaproxy.events import CallReport

LONGEST = 65_536
"Bytes of an answer."
PATIENCE = 3.0
"Seconds that an answer may take."
_REPLIES = Path("/tmp")
"Where both servers look for the FIFO of an answer."


class DialogEnder:
    """A Notifier."""

    scheme = "dlg:"

    def __init__(self, address: RpcAddress, replies: Path = _REPLIES) -> None:
        """``replies``: folder of the FIFOs by which answers come: Kamailio's ``fifo_reply_dir``, OpenSIPS'
        ``reply_dir``."""
        self._address = address
        self._replies = replies
        self._numbers = itertools.count(1)

    async def tell(self, report: CallReport) -> bool:
        """As Notifier."""
        try:
            async with asyncio.timeout(PATIENCE):
                await self._end(report.dialog_id, next(self._numbers))
        except OSError as error:
            why = error.strerror or str(error) or f"no answer within {PATIENCE:g} s"
            raise OSError(f"{self._address}: {why}") from error
        return True

    async def _end(self, dialog_id: str, number: int) -> None:
        match self._address.kind:
            case RpcKind.FIFO:
                await self._by_fifo(dialog_id, number)
            case RpcKind.HTTP:
                await self._by_http(end_dialog(dialog_id, number), number)
            case _:
                await self._by_datagram(end_dialog(dialog_id, number), number)

    async def _by_datagram(self, command: bytes, number: int) -> None:
        loop = asyncio.get_running_loop()
        with await self._connected() as sock:
            await loop.sock_sendall(sock, command)
            while not judge(await loop.sock_recv(sock, LONGEST), number):
                pass  # the late answer to another one

    async def _connected(self) -> socket.socket:
        address = self._address
        if address.kind is RpcKind.UNIX:
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
            place: str | tuple[object, ...] = address.path
        else:
            found = await asyncio.get_running_loop().getaddrinfo(address.host, address.port, type=socket.SOCK_DGRAM)
            sock = socket.socket(found[0][0], socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
            place = found[0][4]
        try:
            if address.kind is RpcKind.UNIX:
                sock.bind("")  # a name of the kernel's choice, without which nobody could answer (unix(7), autobind)
            sock.connect(place)
        except BaseException:
            sock.close()
            raise
        return sock

    async def _by_http(self, command: bytes, number: int) -> None:
        address = self._address
        host = f"[{address.host}]" if ":" in address.host else address.host
        head = (
            f"POST {address.path} HTTP/1.1\r\nHost: {host}:{address.port}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(command)}\r\nConnection: close\r\n\r\n"
        )
        reader, writer = await asyncio.open_connection(address.host, address.port, limit=LONGEST)
        try:
            writer.write(head.encode() + command)
            status, body = await _response(reader)
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
            raise ConnectionError("the SIP server did not answer in full") from error
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()
        if not body and status >= 300:
            raise ValueError(f"the SIP server says: HTTP status {status}")
        judge(body, number)

    async def _by_fifo(self, dialog_id: str, number: int) -> None:
        path = self._replies / f"mediaproxy-{secrets.token_hex(8)}"
        command = end_dialog(dialog_id, number, path.name)
        os.mkfifo(path, 0o600)
        try:
            path.chmod(0o622)  # the SIP server may be another user, and writes
            # Also for writing, so that it has no end before the answer.
            answers = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                _write(Path(self._address.path), command + b"\n")
                await _read_answer(answers, number)
            finally:
                os.close(answers)
        finally:
            path.unlink(missing_ok=True)


async def _response(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """Status and body of an HTTP response."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    words = head[0].split(" ", 2)
    if len(words) < 2 or not words[0].startswith("HTTP/") or not words[1].isdecimal():
        raise ValueError(f"expected a response of HTTP, got {head[0][:80]!r}")
    fields = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])}
    length = fields.get("content-length", "")
    if length.isdecimal() and int(length) <= LONGEST:
        return int(words[1]), await reader.readexactly(int(length))
    return int(words[1]), await reader.read(LONGEST)


def _write(path: Path, command: bytes) -> None:
    """Write to a FIFO. OSError, ENXIO for example, if nobody reads there."""
    fifo = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        os.write(fifo, command)  # in one piece: it is shorter than PIPE_BUF
    finally:
        os.close(fifo)


async def _read_answer(fifo: int, number: int) -> None:
    """Read until there is an answer in full."""
    loop = asyncio.get_running_loop()
    told: asyncio.Future[None] = loop.create_future()
    answer = bytearray()

    def readable() -> None:
        try:
            answer.extend(os.read(fifo, LONGEST))
            if not told.done() and _whole(bytes(answer)):
                judge(bytes(answer), number)
                told.set_result(None)
            elif len(answer) > LONGEST:
                raise ValueError(f"expected an answer of {LONGEST} bytes at most")
        except BlockingIOError:
            pass
        except (OSError, ValueError) as error:
            if not told.done():
                told.set_exception(error)

    loop.add_reader(fifo, readable)
    try:
        await told
    finally:
        loop.remove_reader(fifo)


def _whole(answer: bytes) -> bool:
    """Whether it is complete."""
    try:
        msgspec.json.decode(answer)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return True
