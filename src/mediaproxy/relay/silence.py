"""What a party's audio is replaced by while it is silenced: RTP goes on in time and sequence, and nothing is heard.

An RTP packet and the name of its codec come in, the packet to send instead goes out. Codecs with a silent byte are
G.711, G.722 and linear PCM; comfort noise says nothing anyway. Of all others no frame of silence can be made without an
encoder, and what SRTP has encrypted cannot be replaced: these packets are not sent, while RTCP still is. It must never
let a byte of the party's own voice through.
"""

_SILENT = {"pcmu": b"\xff", "pcma": b"\xd5", "g722": b"\xfa", "l16": b"\x00"}
"G.711 and G.722: codewords of the smallest amplitude."
_PASSES = frozenset(("cn",))
"RFC 3389: levels of noise."
STATIC = {0: "pcmu", 8: "pcma", 9: "g722", 10: "l16", 11: "l16", 13: "cn"}
"RFC 3551 table 4: payload types that need no a=rtpmap."


def silenced(packet: bytes, codec: str) -> bytes | None:
    """The packet that is sent instead of an RTP packet; None: none. ``codec``: encoding name in any case; empty: that
    of the static payload type."""
    name = codec.lower() or STATIC.get(packet[1] & 0x7F, "")
    if name in _PASSES:
        return packet
    silent, start = _SILENT.get(name), _payload(packet)
    if silent is None or start is None:
        return None
    end = len(packet) - (packet[-1] if packet[0] & 0x20 else 0)
    if end < start:
        return None
    return packet[:start] + silent * (end - start) + packet[end:]


def _payload(packet: bytes) -> int | None:
    """Where the payload begins (RFC 3550 §5.1, §5.3.1); None: the packet is too short for what its header says."""
    start = 12 + 4 * (packet[0] & 0x0F)
    if packet[0] & 0x10:
        if len(packet) < start + 4:
            return None
        start += 4 + 4 * int.from_bytes(packet[start + 2 : start + 4], "big")
    return start if start <= len(packet) else None
