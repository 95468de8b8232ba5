"""Cutting a stream (TCP, TLS) into SIP messages and keep-alives (RFC 3261 §18.3 and §7.5, RFC 5626 §4.4.1).

Chunks of any size come in, whole frames go out: the bytes of one message each, Ping or Pong. It must never wait for
more than ``max_size`` octets, nor go on after it has lost the place where a message begins.
"""

import re
from dataclasses import dataclass

from mediaproxy.sip.grammar import SipError, number, unfold
from mediaproxy.sip.lines import BLANK_LINE

_LENGTH = re.compile(rb"^(?:content-length|l)[ \t]*+:((?:[^\n]++|\n(?=[ \t]))*+)", re.IGNORECASE | re.MULTILINE)
_VERSION = re.compile(rb"SIP/[0-9]", re.IGNORECASE)
_FIRST = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-.!%*_+`'~")


@dataclass(frozen=True, slots=True)
class Ping:
    """A double CRLF: the peer wants a single CRLF in return."""


@dataclass(frozen=True, slots=True)
class Pong:
    """A single CRLF: the answer to our ping, or the first half of a ping whose other half has not arrived yet."""


Frame = bytes | Ping | Pong


class Framer:
    """One per connection. However the stream is cut into chunks, the messages and pings are the same.

    Only a pong may be seen in addition, when a ping arrives in two halves: nobody can wait for what may not come.
    """

    def __init__(self, max_size: int = 65536) -> None:
        self.max_size = max_size
        "The longest message, headers and body, in octets."
        self.broken: SipError | None = None
        "Why the stream is beyond repair; every further feed() raises it."
        self._buffer = bytearray()
        self._started = False  # the first line of the message that begins the buffer has been looked at
        self._scanned = 0  # octets of the buffer in which its head does not end
        self._need = 0  # octets of the message that begins the buffer; 0 while its head is not complete
        self._half_ping = False

    @property
    def pending(self) -> bool:
        """Whether a message has begun that is not complete."""
        return bool(self._buffer)

    def feed(self, data: bytes) -> list[Frame]:
        """Take what has arrived, return what is complete.

        SipError when the stream is beyond repair: the connection is to be closed. If frames were complete before the
        broken place they are returned, ``broken`` is set, and the next feed() raises.
        """
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
        if not self._started:
            keepalive = self._keepalive()
            if keepalive is not None:
                return keepalive
        if not self._need:
            self._need = self._message_size()
        if not self._need or len(self._buffer) < self._need:
            return None
        message = bytes(self._buffer[: self._need])
        del self._buffer[: self._need]
        self._started = False
        self._need = self._scanned = 0
        return message

    def _keepalive(self) -> Frame | None:
        """The line ends before a message, one by one; None if there are no more of them."""
        buffer = self._buffer
        while buffer.startswith(b"\n"):  # the line end of somebody who sends no CR; no keep-alive
            del buffer[:1]
        if not buffer.startswith(b"\r\n"):
            self._half_ping = self._half_ping and bytes(buffer[:2]) in (b"", b"\r")
            return None
        del buffer[:2]
        if not self._half_ping and not buffer.startswith(b"\r\n"):
            self._half_ping = True
            return Pong()
        if not self._half_ping:
            del buffer[:2]
        self._half_ping = False
        return Ping()

    def _message_size(self) -> int:
        """The octets of the message that begins the buffer, 0 if its head is not complete."""
        buffer = self._buffer
        self._check_start()
        found = BLANK_LINE.search(buffer, max(0, self._scanned - 2))
        if found is None:
            self._scanned = len(buffer)
            if len(buffer) >= self.max_size:
                raise SipError("message too large", 513)
            return 0
        head = bytes(buffer[: found.end()])
        lengths = {number(unfold(value.decode("latin-1")), 2**31 - 1) for value in _LENGTH.findall(head)}
        length = lengths.pop() if len(lengths) == 1 else None
        if length is None:
            raise SipError("content-length: missing, unreadable, or several different ones")
        if len(head) + length > self.max_size:
            raise SipError("message too large", 513)
        return len(head) + length

    def _check_start(self) -> None:
        """SipError as soon as it is plain that no SIP message begins here: TLS on a TCP port, HTTP, noise."""
        if self._started or not self._buffer or bytes(self._buffer[:2]) == b"\r":
            return
        if self._buffer[0] not in _FIRST:
            raise SipError("start line: not SIP")
        end = self._buffer.find(b"\n", max(0, self._scanned - 1))
        if end >= 0:
            self._started = True
            if not _VERSION.search(self._buffer[:end]):
                raise SipError("start line: not SIP")
