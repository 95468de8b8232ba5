"""[shell] Kamailio's own UDP sockets, as every process of it has inherited them.

Of Kamailio's functions that send bytes, one cannot be told the socket and the other cannot send a zero byte. A
keep-alive must be four of them from the very socket that the phone registered with, or the NAT drops it. So they are
sent here. The sockets stay Kamailio's: nothing is received from them, no option of them is changed.
"""

import contextlib
import os
import resource
import socket
import stat

from mediaproxy.endpoint import Endpoint, ip_address

_HIGHEST = 65536
"Descriptors that are looked at. Kamailio opens its sockets first, so theirs are low."


class Listeners:
    """The sockets of this process."""

    def __init__(self) -> None:
        self._sockets: dict[Endpoint, socket.socket] = {}
        for number in range(min(resource.getrlimit(resource.RLIMIT_NOFILE)[0], _HIGHEST)):
            with contextlib.suppress(OSError):
                found = _udp(number)
                if found is not None and self._sockets.setdefault(found[0], found[1]) is not found[1]:
                    found[1].close()

    def named(self, name: str) -> Endpoint | None:
        """The socket that Kamailio names so, such as ``udp:192.0.2.1:5060``; None if there is none."""
        with contextlib.suppress(ValueError):
            local = Endpoint.parse(name.partition(":")[2])
            return local if local in self._sockets else None
        return None

    def first(self, version: int) -> Endpoint | None:
        """The first socket of an IP version; None if there is none."""
        return next((local for local in self._sockets if local.version == version), None)

    def send(self, local: Endpoint, to: Endpoint, data: bytes) -> None:
        """Send one datagram, if the socket takes it at once. OSError if it cannot be sent."""
        self._sockets[local].sendto(data, socket.MSG_DONTWAIT, (to.address, to.port))

    def close(self) -> None:
        """Close our copies; the sockets live on."""
        for one in self._sockets.values():
            one.close()
        self._sockets.clear()


def _udp(number: int) -> tuple[Endpoint, socket.socket] | None:
    """A copy of a descriptor if it is a bound UDP socket. OSError if there is no such descriptor."""
    if not stat.S_ISSOCK(os.fstat(number).st_mode):
        return None
    copy = os.dup(number)
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
