"""One UDP socket of the user-space plane, with the flow it is lent to and that flow's counters.

A port comes in, a bound socket goes out that hears nothing until it is lent. It must never let a packet that came
before the lending be heard after it (calls.md 15): while not lent it carries a drop-all filter; on lending it is
drained first, then the filter goes.
"""

import contextlib
import ctypes
import errno
import ipaddress
import resource
import socket
import struct
from collections.abc import Callable
from functools import lru_cache
from typing import Any, TypeAlias

from mediaproxy.endpoint import Endpoint, ip_address
from mediaproxy.relay.flow import Flow, SlotCounters

_STRANGER_RATE, _STRANGER_BURST = 20.0, 20.0
"Packets per second and slot passed up from sources outside ``allowed``: enough to name them."
_ALLOWED_RATE, _ALLOWED_BURST = 1000.0, 250.0
"Packets per second and slot from sources that may change a decision: above any stream that is not learned yet."

_SO_ATTACH_FILTER, _SO_DETACH_FILTER = 26, 27
"asm-generic/socket.h; the socket module has no names for them."
_IP_MTU_DISCOVER, _IPV6_MTU_DISCOVER, _PMTUDISC_DONT = 10, 23, 0
"linux/in.h, linux/in6.h: no DF bit; a relay passes on what was fragmented on its way in."
_DROP_ALL = ctypes.create_string_buffer(struct.pack("HBBI", 0x06, 0, 0, 0))  # BPF_STMT(BPF_RET | BPF_K, 0)
_DROP_ALL_PROGRAM = struct.pack("HL", 1, ctypes.addressof(_DROP_ALL))

SocketAddress: TypeAlias = tuple[Any, ...]
"What the socket module takes for an address: (host, port) or (host, port, 0, 0)."


def socket_address(endpoint: Endpoint) -> SocketAddress:
    """An endpoint exactly as ``recvfrom`` reports it: the text of inet_ntop, not that of the ipaddress module.

    OSError if it is none: control values of another process may hold anything.
    """
    if not 0 <= endpoint.port <= 65535:
        raise OSError(errno.EINVAL, f"port {endpoint.port} is not in 0..65535")
    host = _host(endpoint.address)
    return (host, endpoint.port, 0, 0) if ":" in host else (host, endpoint.port)


@lru_cache(maxsize=16384)
def _host(address: str) -> str:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    return socket.inet_ntop(family, socket.inet_pton(family, address))


class TokenBucket:
    """A token bucket: ``burst`` at once, ``rate`` per second after that."""

    __slots__ = ("at", "burst", "rate", "tokens")

    def __init__(self, rate: float, burst: float) -> None:
        self.rate, self.burst = rate, burst
        self.tokens, self.at = burst, 0.0

    def take(self, now: float) -> bool:
        self.tokens = min(self.burst, self.tokens + (now - self.at) * self.rate)
        self.at = now
        if self.tokens < 1.0:
            return False
        self.tokens -= 1.0
        return True


class BoundSocket:
    """A bound socket that hears nothing until it is opened."""

    __slots__ = ("fresh", "local", "sock", "tos")

    def __init__(self, local: Endpoint, receive_buffer: int, *, deaf: bool = True) -> None:
        """``deaf`` = False: it is open already."""
        self.local = local
        self.sock = bound_socket(local, receive_buffer, deaf=deaf)
        self.tos: int | None = None
        self.fresh = True
        "It was never open before its first lending: nothing of an earlier one is queued."

    def open(self) -> None:
        """The filter goes."""
        self.sock.setsockopt(socket.SOL_SOCKET, _SO_DETACH_FILTER, 0)

    def shut(self) -> None:
        """The filter stands, and what came before is thrown away."""
        self.sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, _DROP_ALL_PROGRAM)
        self.drain()

    def drain(self) -> None:
        """Throw away what is queued."""
        while True:
            try:
                self.sock.recv(1)
            except ConnectionError:
                continue
            except BlockingIOError:
                return

    def set_tos(self, tos: int | None) -> None:
        """TOS or traffic class of what is sent from now on; None: the operating system's."""
        if tos != self.tos:
            set_tos(self.sock, tos or 0)
            self.tos = tos


class LentSocket(BoundSocket):
    """One bound socket and, while it is lent, its flow and counters. It is made to be lent at once, so it is open."""

    __slots__ = (
        "_snapshot",
        "_verdict",
        "ranked",
        "bytes",
        "dropped",
        "flow",
        "forward",
        "last",
        "packets",
        "receive",
        "rtp",
        "rtp_only",
        "send",
        "source",
        "strangers",
        "target",
        "undeliverable",
        "undeliverable_bytes",
    )

    def __init__(self, local: Endpoint, receive_buffer: int) -> None:
        super().__init__(local, receive_buffer, deaf=False)
        self.receive = self.sock.recvfrom
        self.send = self.sock.sendto
        self._clear()

    def _clear(self) -> None:
        self.flow: Flow | None = None
        self.source: SocketAddress | None = None
        self.forward: Callable[[bytes, SocketAddress], int] | None = None
        self.target: SocketAddress = ()
        self.packets = self.bytes = self.undeliverable = self.undeliverable_bytes = self.dropped = 0
        self.last = 0.0
        self.rtp = b""
        self.rtp_only = False
        self.ranked: TokenBucket | None = None
        self.strangers: TokenBucket | None = None
        self._verdict: tuple[str, bool] = ("", False)
        self._snapshot: SlotCounters | None = None

    def lend(self, flow: Flow) -> None:
        """The filter is on: nothing new comes in while what is left is drained. What is heard came after this."""
        if self.fresh:
            self.fresh = False
        else:
            self.drain()
            self.open()
        self.flow = flow

    def take_back(self) -> None:
        self._clear()
        self.shut()

    def change(self, flow: Flow) -> None:
        if self.flow is None or self.flow.source != flow.source:
            self.source = None if flow.source is None else socket_address(flow.source)
        self._verdict = ("", False)
        self.rtp_only = flow.rtp_only
        self.flow = flow
        if flow.tos != self.tos:
            self.set_tos(flow.tos)

    def may_pass(self, host: str, now: float, strangers: TokenBucket) -> bool:
        """Whether a packet from ``host`` is passed up: it may change a decision, and not too many came."""
        if self.flow is None:
            return False
        if self._verdict[0] != host:
            self._verdict = (host, _inside(host, self.flow.allowed))
        if self._verdict[1]:
            if self.ranked is None:
                self.ranked = TokenBucket(_ALLOWED_RATE, _ALLOWED_BURST)
            return self.ranked.take(now)
        if self.strangers is None:
            self.strangers = TokenBucket(_STRANGER_RATE, _STRANGER_BURST)
        return self.strangers.take(now) and strangers.take(now)

    def counters(self) -> SlotCounters | None:
        """A value of its own that never changes afterwards; the same one again while nothing happened."""
        if self.flow is None:
            return None
        old = self._snapshot
        if (
            old is not None
            and old.packets == self.packets
            and old.undeliverable == self.undeliverable
            and old.dropped == self.dropped
        ):
            return old
        counters = SlotCounters(
            local=self.local,
            generation=self.flow.generation,
            packets=self.packets,
            bytes=self.bytes,
            last=self.last,
            undeliverable=self.undeliverable,
            undeliverable_bytes=self.undeliverable_bytes,
            dropped=self.dropped,
        )
        if self.rtp:  # RFC 3550 §5.1
            payload_type, counters.sequence, counters.ssrc = struct.unpack_from("!xBH4xI", self.rtp)
            counters.payload_type = payload_type & 0x7F
        self._snapshot = counters
        return counters


@lru_cache(maxsize=4096)
def _network(prefix: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    return ipaddress.ip_network(prefix, strict=False)


def _inside(host: str, prefixes: tuple[str, ...]) -> bool:
    if not prefixes:
        return True
    address = ip_address(host)
    return address is not None and any(
        address.version == network.version and address in network for network in map(_network, prefixes)
    )


def bound_socket(local: Endpoint, receive_buffer: int, *, deaf: bool = True) -> socket.socket:
    """A bound socket that drops all. The filter stands before the port is ours, so nothing is ever queued unwanted.
    ``deaf`` = False: one that hears all from the moment it is bound. ``receive_buffer`` = 0: as the host has it."""
    family = socket.AF_INET if local.version == 4 else socket.AF_INET6
    sock = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        if deaf:
            sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, _DROP_ALL_PROGRAM)
        if receive_buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_MTU_DISCOVER, _PMTUDISC_DONT)
        else:
            sock.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _PMTUDISC_DONT)
        sock.bind((local.address, local.port))
    except OSError as error:
        sock.close()
        raise OSError(error.errno, f"{local}: {error.strerror}") from error
    return sock


def set_tos(sock: socket.socket, tos: int) -> None:
    """Set the TOS or traffic class of what a UDP socket sends."""
    if sock.family == socket.AF_INET:
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, tos)
    else:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS, tos)


def raise_file_limit() -> int:
    """Raise this process's soft limit of open files to the hard one; the limit that holds now."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            soft = hard
    return 1 << 20 if soft == resource.RLIM_INFINITY else soft
