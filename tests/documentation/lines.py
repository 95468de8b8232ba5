"""UDP ports of phones as the world sees them: on the Internet, or behind a NAT of a few lines.

The NAT gives each port inside one port outside, lets in what comes from where the phone has sent to, and forgets a
channel that has not been used for a while. Times are those at which the kernel got the packets, so nothing need run
beside the test: what came too late is lost when it is read.
"""

import select
import socket
import struct
import time
from dataclasses import dataclass

Place = tuple[str, int]
"Address and port."
_SO_TIMESTAMPNS = 35
_TIMESPEC = struct.Struct("@qq")
_LONGEST = 65_536


class Line:
    """A UDP port on the Internet."""

    def __init__(self, address: str, port: int = 0) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        self._socket.bind((address, port))

    @property
    def outside(self) -> Place:
        """Where the world sees it."""
        address, port = self._socket.getsockname()
        return address, port

    @property
    def inside(self) -> Place:
        """Where the phone itself sees it."""
        return self.outside

    def send(self, data: bytes, to: Place) -> None:
        """Send a datagram."""
        self._socket.sendto(data, to)

    def receive(self, seconds: float) -> tuple[bytes, Place]:
        """The next datagram that the phone gets, and who sent it. TimeoutError if none comes."""
        until = time.monotonic() + seconds
        poll = select.poll()  # select() cannot have more than 1024 files
        poll.register(self._socket, select.POLLIN)
        while poll.poll(max(until - time.monotonic(), 0.0) * 1000):
            data, ancillary, _, source = self._socket.recvmsg(_LONGEST, 256)
            came = next((_TIMESPEC.unpack(text) for _, kind, text in ancillary if kind == _SO_TIMESTAMPNS), (0, 0))
            if self._lets_in(source, came[0] + came[1] / 1e9):
                return data, source
        raise TimeoutError

    def _lets_in(self, source: Place, at: float) -> bool:
        return True

    def drain(self) -> int:
        """Read what has come so far; how many datagrams."""
        count = 0
        while True:
            try:
                self.receive(0.0)
            except TimeoutError:
                return count
            count += 1

    def close(self) -> None:
        """Give the port back."""
        self._socket.close()


@dataclass
class Nat:
    """A home's router."""

    address: str
    "Its public address."
    forgets: float = float("inf")
    "Seconds after which an unused channel is closed."
    inward: bool = True
    "A packet from outside is use, too. False: only those from inside."
    private: str = "192.168.1.10"
    "The phone's address inside."


class NattedLine(Line):
    """A UDP port behind a NAT."""

    def __init__(self, nat: Nat, number: int = 5060, *, forward: bool = False) -> None:
        """``number``: the port inside. ``forward``: the router lets everybody in, and shows the same number."""
        super().__init__(nat.address, number if forward else 0)
        self._nat, self._number, self._forward = nat, number, forward
        self._known: set[Place] = set()
        self._used = float("-inf")

    @property
    def inside(self) -> Place:
        """The private place."""
        return self._nat.private, self._number

    def send(self, data: bytes, to: Place) -> None:
        """Opens a channel, or uses it."""
        self._used = time.time()
        self._known.add(to)
        super().send(data, to)

    def _lets_in(self, source: Place, at: float) -> bool:
        if self._forward:
            return True
        if at - self._used > self._nat.forgets:
            self._known.clear()
        if source not in self._known:
            return False
        if self._nat.inward:
            self._used = max(self._used, at)
        return True
