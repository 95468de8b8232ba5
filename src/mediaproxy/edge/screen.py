"""A look at a datagram or frame before it is parsed: could it be SIP, and is it worth the time?

Bytes come in, a reason to drop them goes out, found by a few searches. A peer who sends thousands of header fields, or
lists of thousands of elements, in 64 KiB would otherwise buy milliseconds of the server with each packet.
"""

HEAD = 16_384
"Bytes from the start line to the blank line. The longest of real messages, with signed identities, have 8 000."
LINES = 128
"Lines of the same: the longest of real messages have 60."
ELEMENTS = 200
"Commas in them: elements of lists such as Via and Route."
_TOKEN = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-.!%*_+`'~")
"What a SIP message may begin with: a method or ``SIP/2.0`` (RFC 3261 §25.1 token)."


def screen(data: bytes) -> str:
    """Why not to parse it; empty: it may be SIP. Empty lines before a message are allowed (RFC 3261 §7.5)."""
    if data[0] not in _TOKEN and not data.startswith(b"\r\n"):
        return "no SIP"
    end = data.find(b"\r\n\r\n", 0, HEAD)
    if end < 0:
        end = data.find(b"\n\n", 0, HEAD)
    if end < 0:
        if len(data) > HEAD:
            return f"no end of the header within {HEAD} bytes"
        end = len(data)
    if data.count(b"\n", 0, end) > LINES:
        return f"more than {LINES} header lines"
    if data.count(b",", 0, end) > ELEMENTS:
        return f"more than {ELEMENTS} list elements in the header"
    return ""
