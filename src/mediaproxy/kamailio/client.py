"""[shell] Questions to the dispatcher over its UNIX socket, for a process that has no event loop and may not wait long.

A question and how long it may take come in, the answer or None goes out; nothing is raised. One connection per process
and path, even if its script is loaded anew, and one question on it at a time. Answers have no number, so a connection
on which anything went wrong is given up: what still comes on it is never taken for the answer to a later question.
After a failure that cost time everybody is refused at once for RETRY_AFTER, then the next question tries again. Where
nobody listens that is known at once, every time.
"""

import os
import socket
import struct
import time
from collections.abc import Callable

from mediaproxy.control import ControlError, MediaReply, MediaRequest, Question, decode, encode

RETRY_AFTER = 0.5
"Seconds after a failure in which no question is tried."
MAX_LINE = 262_144
"Bytes of one answer; the dispatcher's own bound of a line."
_CHUNK = 65_536
_PEEK = socket.MSG_PEEK | socket.MSG_DONTWAIT
_TIMEVAL = struct.Struct("@ll")
_SHARE = 0.85
"The kernel's timers may end an eighth late: a call is told to wait for so much of the time that is left."
_TOO_LITTLE = 0.016
"Seconds, some of the kernel's ticks. A wait that has so little left is over, so that it does not end late."
_TRIES = 2
"A connection that turns out to be dead is replaced once per question: questions may be repeated (control.py)."


_connections: dict[tuple[int, str], socket.socket] = {}
"(Process, path) -> its connection. Of a parent there may be one, too: a copy of the descriptor, never used."


class _Trouble(Exception):
    """Why a question has no answer."""


class _Refused(_Trouble):
    """Nobody listens: no answer, but no time lost either."""


class _Closed(Exception):
    """The other side has closed the connection."""


class Client:
    """The dispatcher as one Kamailio process sees it. May be made before the fork: it connects when first asked, and a
    forked process makes its own connection."""

    def __init__(self, path: str, report: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        """``report`` takes a line when the dispatcher stops answering, and one when it answers again."""
        self._path = path
        self._report = report
        self._clock = clock
        self._closed_until = float("-inf")
        self._patience = 0.0
        self.trouble = ""
        "Why the last question had no answer; empty: it had one."

    def ask(self, question: Question, seconds: float) -> MediaReply | None:
        """The answer; None if there is none within ``seconds``, or no question is tried at the moment."""
        now = self._clock()
        if now < self._closed_until or seconds <= 0:
            return None
        try:
            reply = self._ask(question, now + seconds)
        except (OSError, _Trouble) as error:
            self._fail(error)
            return None
        if self.trouble:
            self._report(f"{self._path}: the dispatcher answers again")
            self.trouble = ""
        return reply

    def close(self) -> None:
        """Give the connection back."""
        sock = _connections.pop(self._key, None)
        if sock is not None:
            sock.close()

    @property
    def _key(self) -> tuple[int, str]:
        return os.getpid(), self._path

    def _fail(self, error: OSError | _Trouble) -> None:
        self.close()
        if not isinstance(error, _Refused):
            self._closed_until = self._clock() + RETRY_AFTER
        trouble = str(error)
        if not self.trouble:
            self._report(f"{self._path}: no answer from the dispatcher: {trouble}")
        self.trouble = trouble

    def _ask(self, question: Question, deadline: float) -> MediaReply:
        line = encode(question)
        for _ in range(_TRIES):
            sock = self._connected(deadline)
            try:
                self._send(sock, line, deadline)
                return _checked(question, self._line(sock, deadline))
            except _Closed:
                self.close()
        raise _Trouble("it closes the connection")

    def _connected(self, deadline: float) -> socket.socket:
        sock = _connections.get(self._key)
        if sock is not None:
            try:
                sock.recv(1, _PEEK)
            except BlockingIOError:
                return sock
            except OSError:
                pass
            self.close()  # it is closed, or something has come that nobody asked for
        sock = _connections[self._key] = self._connect(deadline)
        return sock

    def _connect(self, deadline: float) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            sock.settimeout(self._left(deadline))  # a full backlog makes connect wait
            sock.connect(self._path)
            # From here on the kernel keeps the time: Python's own way takes three system calls for one.
            sock.settimeout(None)
        except OSError as error:
            sock.close()
            if isinstance(error, TimeoutError):
                raise
            raise _Refused(error.strerror or str(error)) from None
        self._patience = 0.0
        return sock

    def _left(self, deadline: float) -> float:
        left = deadline - self._clock()
        if left <= 0:
            raise _Trouble("timed out")
        return left

    def _wait_at_most(self, sock: socket.socket, seconds: float) -> None:
        """How long a call on the socket may wait. What differs by less than a millisecond from before is left so."""
        seconds *= _SHARE
        if not 0 <= self._patience - seconds < 0.001:
            self._patience = seconds
            whole = int(seconds)
            timeval = _TIMEVAL.pack(whole, max(int((seconds - whole) * 1e6), 1))
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, timeval)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, timeval)

    def _go_on(self, deadline: float) -> None:
        """A call has waited for its share: _Trouble if there is not enough left for another one."""
        if self._left(deadline) < _TOO_LITTLE:
            raise _Trouble("timed out") from None

    def _send(self, sock: socket.socket, line: bytes, deadline: float) -> None:
        view = memoryview(line)
        while view:
            self._wait_at_most(sock, self._left(deadline))
            try:
                view = view[sock.send(view) :]
            except (BrokenPipeError, ConnectionResetError):
                raise _Closed from None
            except BlockingIOError:
                self._go_on(deadline)

    def _line(self, sock: socket.socket, deadline: float) -> bytes:
        line = b""
        while not line.endswith(b"\n"):
            self._wait_at_most(sock, self._left(deadline))
            try:
                chunk = sock.recv(_CHUNK)
            except ConnectionResetError:
                chunk = b""
            except BlockingIOError:
                self._go_on(deadline)
                continue
            if not chunk:
                if line:
                    raise _Trouble("half an answer")
                raise _Closed
            line += chunk
            if b"\n" in line[:-1]:
                raise _Trouble("more than one answer")
            if len(line) > MAX_LINE:
                raise _Trouble(f"an answer of more than {MAX_LINE} bytes")
        return line


def _checked(question: Question, line: bytes) -> MediaReply:
    """_Trouble if the line is no answer to the question."""
    try:
        reply = decode(line)
    except ControlError:
        raise _Trouble("no answer of this protocol") from None
    if not isinstance(reply, MediaReply):
        raise _Trouble("a question instead of an answer")
    wanted = len(question.streams) if isinstance(question, MediaRequest) else 0
    if not reply.error and len(reply.ports) != wanted:
        raise _Trouble(f"{len(reply.ports)} ports for {wanted} streams")
    return reply
