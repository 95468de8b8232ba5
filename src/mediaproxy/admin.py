"""[shell] The control socket: what the CLI asks a running server, over a UNIX socket in its runtime directory.

One JSON line is a command, one JSON line is its answer, over and over on one connection. The server's side turns
commands into calls of the handlers it was given, the client's side turns answers into typed results. It must never let
a command stop the server, or a client wait without an end.
"""

import asyncio
import errno
import inspect
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from mediaproxy.link import UnixListener

VERSION = 1
"Of the protocol. A server answers no other, and says so in words."
SOCKET = "admin.sock"
"Name of the socket in the runtime directory."
TIMEOUT = 10.0
"Seconds that a client waits for an answer, and a server for a client that sends or reads nothing."

_MAX_COMMAND = 65_536
_MAX_CLIENTS = 32

T = TypeVar("T")


class AdminError(Exception):
    """A command that was not done; the text says why and what to do."""


class Command(msgspec.Struct, frozen=True, kw_only=True):
    """What a client asks."""

    version: int = VERSION
    command: str
    "Name of the command, such as ``calls``."
    call_id: str = ""
    "The call that it is about, for ``end``."


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What the server says."""

    version: int = VERSION
    error: str = ""
    "Why the command was not done; empty: it was."
    result: msgspec.Raw = msgspec.Raw(b"null")


Handler = Callable[[Command], Any]
"Does one command: returns what msgspec can encode, or an awaitable of it; AdminError if it cannot be done."

_encoder = msgspec.json.Encoder()
_command = msgspec.json.Decoder(Command)
_answer = msgspec.json.Decoder(Answer)


class AlreadyRunning(Exception):
    """Another server answers on the socket."""


class AdminServer:
    """The server's side."""

    def __init__(self, path: Path, handlers: Mapping[str, Handler], *, mode: int = 0o600, group: str = "") -> None:
        self.path = path
        self._handlers = handlers
        self._mode = mode
        self._group = group
        self._listener = UnixListener(path, self._serve, _MAX_COMMAND)

    async def start(self) -> None:
        """Listen. A socket that a dead server left is replaced. AlreadyRunning if a living one is there, OSError or
        LookupError (unknown group) if the socket cannot be made."""
        try:
            await self._listener.start(mode=self._mode, group=self._group)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise AlreadyRunning(f"{self.path}: another mediaproxy is running with this runtime_dir") from error
            raise

    async def stop(self) -> None:
        """End all connections and remove the socket."""
        await self._listener.stop()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while self._listener.clients <= _MAX_CLIENTS:
            try:
                async with asyncio.timeout(TIMEOUT):
                    line = await reader.readline()
            except ValueError as error:
                raise ConnectionAbortedError("a line beyond the limit") from error
            if not line.endswith(b"\n"):
                return
            writer.write(_encoder.encode(await self._do(line)) + b"\n")
            async with asyncio.timeout(TIMEOUT):
                await writer.drain()

    async def _do(self, line: bytes) -> Answer:
        try:
            command = _command.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            return Answer(error=f"not a command: {error}")
        if command.version != VERSION:
            return Answer(error=f"this server speaks version {VERSION} of the control protocol, not {command.version}")
        handler = self._handlers.get(command.command)
        if handler is None:
            return Answer(error=f"unknown command {command.command!r}; there are: {', '.join(sorted(self._handlers))}")
        try:
            result = handler(command)
            if inspect.isawaitable(result):
                result = await result
        except AdminError as error:
            return Answer(error=str(error))
        return Answer(result=msgspec.Raw(_encoder.encode(result)))


def ask(path: Path, command: Command, result: type[T]) -> T:
    """Ask the server behind the socket at ``path``. AdminError if there is none, or it says no."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            sock.settimeout(TIMEOUT)
            sock.connect(str(path))
            sock.sendall(_encoder.encode(command) + b"\n")
            with sock.makefile("rb") as stream:
                line = stream.readline()
    except OSError as error:
        raise AdminError(_unreachable(path, error)) from error
    if not line.endswith(b"\n"):
        raise AdminError(f"{path}: the server closed the connection without an answer")
    try:
        answer = _answer.decode(line)
        if answer.error:
            raise AdminError(answer.error)
        return msgspec.json.decode(answer.result, type=result)
    except msgspec.DecodeError as error:
        raise AdminError(f"{path}: the server's answer is of another version: {error}") from error


def _unreachable(path: Path, error: OSError) -> str:
    match error:
        case FileNotFoundError() | ConnectionRefusedError():
            why = "no server is running here"
            what = "start one (mediaproxy run), or say where it is (--socket, --config)"
        case BrokenPipeError() | ConnectionResetError():
            why, what = "the server closed the connection", "it is ending, or has too many clients: ask again"
        case PermissionError():
            why, what = "no permission", "ask as the server's user, or let your group in (admin.mode, admin.group)"
        case TimeoutError():
            why, what = f"no answer within {TIMEOUT:g} s", "the server hangs or is overloaded"
        case _:
            why, what = error.strerror or str(error), "is that its control socket?"
    return f"{path}: {why}; {what}"
