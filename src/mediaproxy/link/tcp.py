"""[shell] TCP sockets: an address comes in, a listening one goes out; what all connected ones have."""

import contextlib
import socket


def bind_tcp(host: str, port: int) -> socket.socket:
    """Listen there, without blocking. ``host``: IPv6 without brackets. OSError if that is not possible."""
    host = "127.0.0.1" if host == "localhost" else host
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind((host, port))
        sock.listen(1024)
    except OSError:
        sock.close()
        raise
    return sock


def keep_alive(sock: socket.socket) -> None:
    """Small lines at once, and no peer that has vanished is waited for longer than half a minute."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (("TCP_KEEPIDLE", 15), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3)):
        with contextlib.suppress(AttributeError):  # not on every system
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
