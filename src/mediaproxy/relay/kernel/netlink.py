"""What the host's routing says, over rtnetlink: the way to a target, interfaces with addresses, and what has changed.

Addresses come in, numbers and values go out; an OSError says what the kernel refused. Layouts:
include/uapi/linux/rtnetlink.h, if_addr.h and if_link.h. Nothing here knows flows.
"""

import asyncio
import contextlib
import errno
import os
import socket
import struct
from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass
from pathlib import Path

_MESSAGE = struct.Struct("=IHHII")
_ROUTE = struct.Struct("=BBBBBBBBI")
_ADDRESS = struct.Struct("=BBBBI")
_LINK = struct.Struct("=BxHiII")
_REQUEST, _DUMP = 0x1, 0x300
_NEXT_HOP = struct.Struct("=BBBBI")
_NEWLINK, _GETLINK, _NEWADDR, _GETADDR, _NEWROUTE, _GETROUTE = 16, 18, 20, 22, 24, 26
_NEWNEIGH, _DELNEIGH, _NEWNEXTHOP, _GETNEXTHOP = 28, 29, 104, 106
_ERROR, _DONE = 2, 3
_RTA_DST, _RTA_SRC, _RTA_OIF, _RTA_GATEWAY, _RTA_METRICS, _RTA_MULTIPATH, _RTA_VIA = 1, 2, 4, 5, 8, 9, 18
_RTAX_MTU = 2
_NHA_GROUPS = 9
_NEIGHBOUR = struct.Struct("=BxxxiHBB")
_NDA_DST, _FAILED = 1, 0x20
_SOL_NETLINK, _JOIN, _LEAVE, _NEIGHBOURS = 270, 1, 2, 3
"Options of a socket, and RTNLGRP_NEIGH."
_USE_NEIGH = Path("/proc/sys/net/ipv4/fib_multipath_use_neigh")
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_IFLA_IFNAME, _IFLA_MTU = 3, 4
_UNICAST, _LOCAL, _ANYCAST = 1, 2, 4
_UP = 1
ETHERNET, _LOOPBACK = 1, 772
"ARPHRD_ETHER and ARPHRD_LOOPBACK."
_GROUPS = 1 | 0x10 | 0x40 | 0x80 | 0x100 | 0x400 | 1 << 18 | 1 << 31
"""RTMGRP_LINK, IPV4_IFADDR, IPV4_ROUTE, IPV4_RULE, IPV6_IFADDR, IPV6_ROUTE, RTNLGRP_IPV6_RULE and RTNLGRP_NEXTHOP: of a
group that loses a next hop no route is told."""
_BUFFER = 1 << 17
_AT_ONCE = 3


@dataclass(frozen=True, slots=True)
class Way:
    """How packets leave this host for a target."""

    ifindex: int
    mtu: int
    "Longest IP packet on that way, as far as a route says so; 0: what the interface has."
    gateway: str | None = None
    "The router on that interface that takes them; None: the target is its neighbour."
    xdp: bool = False
    "XDP may send there."


@dataclass(frozen=True, slots=True)
class Link:
    """An interface."""

    index: int
    name: str
    mtu: int
    up: bool
    type: int
    "ARPHRD_*."

    @property
    def loopback(self) -> bool:
        """``lo``."""
        return self.type == _LOOPBACK

    @property
    def ethernet(self) -> bool:
        """Its packets begin with an Ethernet header."""
        return self.type in (ETHERNET, _LOOPBACK)


class Netlink:
    """A socket for questions."""

    def __init__(self) -> None:
        self._sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)
        self._sequence = 0
        self._buffer = memoryview(bytearray(_BUFFER))

    def way(self, local: str, target: str) -> Way | None:
        """How a packet from an own address to a target leaves; None: not at all, or it is nobody's address."""
        family = socket.AF_INET6 if ":" in target else socket.AF_INET
        bits = 128 if family == socket.AF_INET6 else 32
        body = _ROUTE.pack(family, bits, bits, 0, 0, 0, 0, 0, 0)
        body += _attribute(_RTA_DST, socket.inet_pton(family, target))
        body += _attribute(_RTA_SRC, socket.inet_pton(family, local))
        try:
            reply = next(self._ask(_GETROUTE, _REQUEST, body, _NEWROUTE))
        except (OSError, StopIteration):
            return None
        kind = _ROUTE.unpack_from(reply)[7]
        told = _attributes(reply[_ROUTE.size :])
        if kind not in (_UNICAST, _LOCAL, _ANYCAST) or _RTA_OIF not in told:
            return None
        metrics = _attributes(told.get(_RTA_METRICS, b""))
        return Way(_number(told[_RTA_OIF]), _number(metrics.get(_RTAX_MTU, bytes(4))), _gateway(family, told))

    def links(self) -> dict[int, Link]:
        """All interfaces by index."""
        found = {}
        for reply in self._ask(_GETLINK, _REQUEST | _DUMP, _LINK.pack(0, 0, 0, 0, 0), _NEWLINK):
            _, kind, index, flags, _ = _LINK.unpack_from(reply)
            told = _attributes(reply[_LINK.size :])
            name = told.get(_IFLA_IFNAME, b"").rstrip(b"\0").decode(errors="replace")
            found[index] = Link(index, name, _number(told.get(_IFLA_MTU, bytes(4))), bool(flags & _UP), kind)
        return found

    def carriers(self, address: str) -> set[int]:
        """The interfaces that have an address."""
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        wanted, found = socket.inet_pton(family, address), set()
        for reply in self._ask(_GETADDR, _REQUEST | _DUMP, _ADDRESS.pack(family, 0, 0, 0, 0), _NEWADDR):
            index = _ADDRESS.unpack_from(reply)[4]
            told = _attributes(reply[_ADDRESS.size :])
            if told.get(_IFA_LOCAL, told.get(_IFA_ADDRESS)) == wanted:
                found.add(index)
        return found

    def choice(self) -> set[int]:
        """The IP versions in which the kernel may take another router when one falls silent, though no route changes;
        also if nobody has told whether it may."""
        with contextlib.closing(Netlink()) as asking:  # who has seen enough goes, whatever is still to be told
            if asking._groups():
                return {4, 6}
        with contextlib.closing(Netlink()) as asking:
            found = {6} if asking._routers() else set()
        return found | {4} if _uses_neighbours() else found

    def _groups(self) -> bool:
        """Whether there are groups of next hops: in one the kernel always looks whether a router answers."""
        body = _NEXT_HOP.pack(0, 0, 0, 0, 0) + _attribute(_NHA_GROUPS, b"")
        try:
            return any(True for _ in self._ask(_GETNEXTHOP, _REQUEST | _DUMP, body, _NEWNEXTHOP))
        except OSError as error:
            return error.errno != errno.EOPNOTSUPP  # before Linux 5.3

    def _routers(self) -> bool:
        """Whether the routes of IPv6 name more than one router."""
        found = set()
        body = _ROUTE.pack(socket.AF_INET6, 0, 0, 0, 0, 0, 0, 0, 0)
        try:
            for reply in self._ask(_GETROUTE, _REQUEST | _DUMP, body, _NEWROUTE):
                told = _attributes(reply[_ROUTE.size :])
                if _RTA_GATEWAY in told:
                    found.add((told[_RTA_GATEWAY], told.get(_RTA_OIF)))
                if len(found) > 1 or _RTA_MULTIPATH in told:
                    return True
        except OSError:
            return True
        return False

    def _ask(self, kind: int, flags: int, body: bytes, answer: int) -> Iterator[bytes]:
        """The bodies of the answers, of one question or of a dump."""
        self._sequence += 1
        self._sock.sendto(_MESSAGE.pack(_MESSAGE.size + len(body), kind, flags, self._sequence, 0) + body, (0, 0))
        while True:
            data = bytes(self._buffer[: self._sock.recv_into(self._buffer)])
            at = 0
            while at < len(data):
                size, said, _, sequence, _ = _MESSAGE.unpack_from(data, at)
                content = data[at + _MESSAGE.size : at + size]
                at += size + -size % 4
                if sequence != self._sequence:  # of a question whose answers nobody has read to the end
                    continue
                if said == _ERROR:
                    code = -struct.unpack_from("=i", content)[0]
                    raise OSError(code, f"rtnetlink: {os.strerror(code)}")
                if said == _DONE:
                    return
                if said == answer:
                    yield content
            if not flags & _DUMP:
                return

    def close(self) -> None:
        """Let go."""
        self._sock.close()


class Changes:
    """Calls back when interfaces, addresses, routes or rules have changed, or, while that matters, when a router has
    fallen silent; several changes at once are one."""

    def __init__(
        self,
        changed: Callable[[], None],
        routers: Container[str] = (),
        *,
        patience: float = 0.05,
        rest: float = 1.0,
    ) -> None:
        """Needs a running event loop. ``routers``: those that are used now. ``patience``: seconds in which further
        changes are awaited; ``rest``: seconds between two calls, because looking at everything anew costs time.
        After some quiet ``_AT_ONCE`` calls need no rest: what goes down often comes up again at once."""
        self._changed = changed
        self._routers = routers
        self._heeds = False
        self._patience = patience
        self._rest = rest
        self._rested = 0.0
        "When there will have been a rest for each call."
        self._timer: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        self._sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK, 0)
        self._sock.bind((0, _GROUPS))
        self._loop.add_reader(self._sock.fileno(), self._readable)

    def heed(self, silence: bool) -> None:
        """Whether it matters from now on that a router falls silent. Hosts with many neighbours are told much then."""
        if silence != self._heeds:
            self._heeds = silence
            self._sock.setsockopt(_SOL_NETLINK, _JOIN if silence else _LEAVE, _NEIGHBOURS)

    def _readable(self) -> None:
        matters = False
        try:
            while True:
                matters |= self._matters(self._sock.recv(256))
        except BlockingIOError:
            pass
        except OSError as error:
            if error.errno != errno.ENOBUFS:  # more than the socket holds
                raise
            matters = True
        if matters and self._timer is None:
            due = max(self._loop.time() + self._patience, self._rested - (_AT_ONCE - 1) * self._rest)
            self._timer = self._loop.call_at(due, self._tell)

    def _matters(self, message: bytes) -> bool:
        """Of neighbours only that a router does not answer; else it does not matter what it was."""
        if _MESSAGE.unpack_from(message)[1] not in (_NEWNEIGH, _DELNEIGH):
            return True
        family, _, state, _, _ = _NEIGHBOUR.unpack_from(message, _MESSAGE.size)
        if not state & _FAILED or family not in (socket.AF_INET, socket.AF_INET6):
            return False
        told = _attributes(message[_MESSAGE.size + _NEIGHBOUR.size :])
        return _NDA_DST in told and socket.inet_ntop(family, told[_NDA_DST]) in self._routers

    def _tell(self) -> None:
        self._timer = None
        self._rested = max(self._rested, self._loop.time()) + self._rest
        self._changed()

    def close(self) -> None:
        """Let go."""
        self._loop.remove_reader(self._sock.fileno())
        if self._timer is not None:
            self._timer.cancel()
        with contextlib.suppress(OSError):
            self._sock.close()


def _uses_neighbours() -> bool:
    """Whether of several routers in a route of IPv4 the kernel takes one that answers."""
    try:
        return _USE_NEIGH.read_text().strip() != "0"
    except OSError:  # a kernel without such routes
        return False


def _gateway(family: int, told: dict[int, bytes]) -> str | None:
    """RTA_GATEWAY; RTA_VIA has a family before the address, where it is not that of the route."""
    if _RTA_GATEWAY in told:
        return socket.inet_ntop(family, told[_RTA_GATEWAY])
    via = told.get(_RTA_VIA)
    return socket.inet_ntop(struct.unpack_from("=H", via)[0], via[2:]) if via is not None else None


def _attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def _attributes(data: bytes) -> dict[int, bytes]:
    found, at = {}, 0
    while at + 4 <= len(data):
        size, kind = struct.unpack_from("=HH", data, at)
        if size < 4:
            break
        found[kind & 0x3FFF] = data[at + 4 : at + size]
        at += size + -size % 4
    return found


def _number(data: bytes) -> int:
    return int.from_bytes(data[:4], "little" if struct.pack("=H", 1)[0] else "big")
