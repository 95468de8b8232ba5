"""Cutting a stream (TCP, TLS) into SIP messages and keep-alives (RFC 3261 §18.3 and §7.5, RFC 5626 §4.4.1).

Chunks of any size come in, whole frames go out: the bytes of one message each, Ping or Pong. It must never keep more
than ``max_size`` octets, nor go on after it has lost the place where a message begins.
"""

import re
from dataclasses import dataclass

from mediaproxy.sip.grammar import SipError, number, unfold

_BLANK = re.compile(rb"\n\r?\n")
_LENGTH = re.compile(rb"^(?:content-length|l)[ \t]*+:((?:[^\n]|\n(?=[ \t]))*+)", re.IGNORECASE | re.MULTILINE)
_START = re.compile(rb"SIP/[0-9]", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Ping:
    """A double CRLF: the peer wants a single CRLF in return."""


@dataclass(frozen=True, slots=True)
class Pong:
    """A single CRLF: the answer to our ping, or the first half of a ping whose other half has not arrived yet."""


Frame = bytes | Ping | Pong


class Framer:
    """One per connection. However the stream is cut into chunks, the messages and pings are the same.

    A pong may be seen in addition when a ping arrives in two halves: nobody can wait for what may not come.
    """

    def __init__(self, max_size: int = 65536) -> None:
        self.max_size = max_size
        self.broken: SipError | None = None
        "Why the stream is beyond repair; every further feed() raises it."
        self._buffer = bytearray()
        self._scanned = 0
        self._need = 0
        self._half_ping = False

    def feed(self, data: bytes) -> list[Frame]:
        """Take what has arrived, return what is complete. SipError when the stream is beyond repair; frames that were
        complete before the broken place are returned first, and ``broken`` is set."""
        if self.broken is not None:
            raise self.broken
        self._buffer += data
        frames: list[Frame] = []
        try:
            while (frame := self._next()) is not None:
                frames.append(frame)
        except SipError as error:
            self.broken = error
            self._buffer.clear()
            if not frames:
                raise
        return frames

    def _next(self) -> Frame | None:
        if not self._need:
            ping = self._keepalive()
            if ping is not None:
                return ping
            self._need = self._message_size()
        if not self._need or len(self._buffer) < self._need:
            return None
        message = bytes(self._buffer[: self._need])
        del self._buffer[: self._need]
        self._need = self._scanned = 0
        return message

    def _keepalive(self) -> Frame | None:
        buffer = self._buffer
        while buffer.startswith(b"\n"):  # half a line end that somebody sent alone
            del buffer[:1]
        if not buffer.startswith(b"\r\n"):
            if buffer and not buffer.startswith(b"\r"):
                self._half_ping = False
            return None
        del buffer[:2]
        if self._half_ping:
            self._half_ping = False
            return Ping()
        if buffer.startswith(b"\r\n"):
            del buffer[:2]
            return Ping()
        self._half_ping = True
        return Pong()

    def _message_size(self) -> int:
        """The octets of the message that begins the buffer, 0 if its head is not complete."""
        buffer = self._buffer
        found = _BLANK.search(buffer, max(0, self._scanned - 2))
        if found is None:
            self._check_start()
            self._scanned = len(buffer)
            if len(buffer) > self.max_size:
                raise SipError("message too large", 513)
            return 0
        head = bytes(buffer[: found.end()])
        lengths = {number(unfold(value.decode("latin-1")), 2**31) for value in _LENGTH.findall(head)}
        if len(lengths) != 1 or None in lengths:
            raise SipError("Content-Length: missing, unreadable, or given twice with different values")
        (length,) = lengths
        assert length is not None
        if len(head) + length > self.max_size:
            raise SipError("message too large", 513)
        return len(head) + length

    def _check_start(self) -> None:
        line, newline, _ = bytes(self._buffer[:8192]).partition(b"\n")
        if newline and not _START.search(line):
            raise SipError("start line: not SIP")
