"""The dialect: which command is answered by whom, cookies, and how commands are cut out of a connection."""

from collections.abc import Callable, Mapping

from mediaproxy.control import ControlError
from mediaproxy.dialects.dialect import ErrorAnswer, Peer, Steps
from mediaproxy.dialects.rtpproxy import media, numbers, sessions
from mediaproxy.dialects.rtpproxy.addresses import Addresses
from mediaproxy.dialects.rtpproxy.command import Command, parse, split_cookie
from mediaproxy.dialects.rtpproxy.errors import Code, Refusal
from mediaproxy.dialects.rtpproxy.sockets import DEFAULT, Patterns

_ANSWERS: Mapping[str, Callable[[Command, Peer], Steps]] = {
    "D": sessions.delete,
    "X": sessions.delete_all,
    "Q": sessions.query,
    "P": sessions.play,
    "S": sessions.stop_playing,
    "R": sessions.record,
    "C": sessions.record,
    "N": sessions.stop_recording,
    "V": numbers.version,
    "VF": numbers.feature,
    "I": numbers.info,
    "G": numbers.counters,
}


class RtpProxy:
    """rtpproxy's control protocol."""

    name = "rtpproxy"

    def __init__(self, addresses: Addresses | None = None, sockets: Patterns = DEFAULT) -> None:
        """``addresses``: the relay's, for the modifiers that choose among them; None: such are refused. ``sockets``:
        RtpProxyOptions.timeout_sockets."""
        self._sockets = sockets
        self._addresses = addresses or Addresses()

    def framer(self, transport: str) -> "Framer":
        """Lines; but a ``unix`` connection has one command, with or without a line end, and whoever asks may wait for
        its end."""
        return Framer(single=transport == "unix")

    def cookie(self, request: bytes) -> bytes | None:
        """The first word of a datagram. A command of a connection, which has none, begins with a space (Framer)."""
        return None if request.startswith(b" ") else split_cookie(request)[0] or None

    def answer(self, request: bytes, peer: Peer) -> Steps:
        """Answer a command; with its cookie, if it is a datagram. Whatever the bytes are, there is an answer."""
        cookie, command = split_cookie(request) if peer.transport == "udp" else (b"", request)
        head = cookie + b" " if cookie else b""
        try:
            parsed = parse(command)
            if parsed.verb == "U":
                words = yield from media.update(parsed, peer, self._addresses, self._sockets)
            elif parsed.verb == "L":
                words = yield from media.lookup(parsed, peer, self._addresses, self._sockets)
            else:
                words = yield from _ANSWERS[parsed.verb](parsed, peer)
        except Refusal as refusal:
            return ErrorAnswer(head + f"E{int(refusal.code)}\n".encode())
        except ControlError:  # a relay that reports what nobody can read
            return ErrorAnswer(head + f"E{int(Code.OVERLOAD)}\n".encode())
        return head + words + b"\n"


class Framer:
    """Mutable: one connection's commands, a line each, with a space before it: so they cannot be taken for datagrams,
    whose first word says whether they are repeated."""

    def __init__(self, *, single: bool) -> None:
        """``single``: what comes first is a command, whole or not, and the only one."""
        self._buffer = bytearray()
        self._scanned = 0
        self._single = single
        self.ended = False

    @property
    def waiting(self) -> int:
        """Bytes of a command that is not complete yet."""
        return len(self._buffer)

    def feed(self, data: bytes) -> list[bytes]:
        """The commands that are complete now. Empty lines are passed over."""
        if self.ended or not data:
            return []
        self._buffer += data
        if self._single:
            self.ended = True
            whole = bytes(self._buffer)
            self._buffer.clear()
            return [b" " + whole]
        commands: list[bytes] = []
        while (end := self._buffer.find(b"\n", self._scanned)) >= 0:
            line = bytes(self._buffer[:end])
            del self._buffer[: end + 1]
            self._scanned = 0
            if line.strip():
                commands.append(b" " + line)
        self._scanned = len(self._buffer)
        return commands
