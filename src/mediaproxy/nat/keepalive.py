"""Bytes that keep a NAT's hole open and are no SIP."""

UDP_PING = b"\0\0\0\0"
"Keep-alive over UDP: four zero bytes, no answer expected."
TCP_PING = b"\r\n\r\n"
"Keep-alive over TCP and TLS (RFC 5626 §4.4.1), answered by TCP_PONG."
TCP_PONG = b"\r\n"
PING_SOON = (4.0, 20.0)
"""Seconds after a REGISTER over UDP within which its contact is pinged in any case. A router with the defaults of Linux
forgets a flow after 30 s, and only when it has seen packets after the first 2 s does it remember it for 120 s."""


def is_keep_alive(datagram: bytes) -> bool:
    """Whether a datagram is no SIP but somebody's keep-alive: nothing but zero bytes and white space, or empty."""
    return not datagram.strip(b"\0\r\n\t ")
