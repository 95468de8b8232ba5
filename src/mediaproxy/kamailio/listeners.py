"""[shell] Kamailio's own UDP sockets, as every process of it has inherited them.

Of Kamailio's functions that send bytes, one cannot be told the socket and the other cannot send a zero byte. A
keep-alive must be four of them from the very socket that the phone registered with, or the NAT drops it. So they are
sent here. The sockets stay Kamailio's: nothing is received from them, no option of them is changed.
"""

import contextlib
import os
import socket
from pathlib import Path

from mediaproxy.endpoint import Endpoint, ip_address


class Listeners:
    """The sockets of this process."""

    def __init__(self) -> None:
        self._sockets: dict[Endpoint, socket.socket] = {}
        for name in sorted(Path("/proc/self/fd").iterdir(), key=lambda path: int(path.name)):
            with contextlib.suppress(OSError, ValueError):
                found = _udp(name)
                if found is not None and self._sockets.setdefault(found[0], found[1]) is not found[1]:
                    found[1].close()

    def local(self, named: str, version: int) -> Endpoint | None:
        """Which socket to use: the one that Kamailio names so, or if it is empty the first of that IP version; None if
        there is none."""
        if not named:
            return next((one for one in self._sockets if one.version == version), None)
        with contextlib.suppress(ValueError):
            one = Endpoint.parse(named.partition(":")[2])
            if one in self._sockets and one.version == version:
                return one
        return None

    def send(self, local: Endpoint, to: Endpoint, data: bytes) -> None:
        """Send one datagram, if the socket takes it at once. OSError if it cannot be sent."""
        self._sockets[local].sendto(data, socket.MSG_DONTWAIT, (to.address, to.port))

    def close(self) -> None:
        """Close our copies; the sockets live on."""
        for one in self._sockets.values():
            one.close()
        self._sockets.clear()


def _udp(name: Path) -> tuple[Endpoint, socket.socket] | None:
    """A copy of a descriptor if it is a bound UDP socket."""
    if not os.readlink(name).startswith("socket:"):
        return None
    copy = os.dup(int(name.name))
    try:
        one = socket.socket(fileno=copy)
    except OSError:
        os.close(copy)
        raise
    if one.type is socket.SOCK_DGRAM and one.family in (socket.AF_INET, socket.AF_INET6):
        address, port = one.getsockname()[:2]
        if port and ip_address(address) is not None:
            return Endpoint.of(address, port), one
    one.close()
    return None
