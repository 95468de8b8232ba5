"""UDP packets in frames, read and written byte for byte as the kernel program does it (packetpath.py).

A frame comes in, what it says goes out; a packet and its new addresses come in, the frame that leaves goes out. No byte
sequence raises.
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

IPV4, IPV6, UDP, RTP = 20, 40, 8, 12
"Bytes of headers."
_EXTENSIONS = 6
"IPv6 extension headers that are skipped to find UDP."
_MAPPED = bytes(10) + b"\xff\xff"


class Other(Enum):
    """What is no UDP packet with a port."""

    FOREIGN = "foreign"
    "Not to an own address, not UDP, or too short to say."
    FRAGMENT = "fragment"
    "A later fragment of a packet to an own address."


class Odd(Enum):
    """Why a packet is not forwarded by the program."""

    FRAGMENT = "fragment"
    "The first fragment."
    OPTIONS = "options"
    "IPv4 options or IPv6 extension headers."


@dataclass(slots=True)
class Packet:
    """A UDP packet to an own address, well formed or not. Addresses are 16 bytes, IPv4 mapped."""

    version: int
    source: bytes
    destination: bytes
    header: bytes
    length: int
    "Of the IP packet."
    tos: int
    ttl: int
    udp: int
    "Offset of the UDP header."
    odd: Odd | None
    source_port: int = 0
    port: int = 0
    "Destination."
    udp_length: int = 0
    "As the UDP header says."
    checksum: int = 0
    rtp: bytes = b""
    "The first 12 bytes of the payload, if there are so many."

    @property
    def is_rtp(self) -> bool:
        """RFC 5761 §4: packet types 192 to 223 are RTCP."""
        return len(self.rtp) == RTP and self.rtp[0] >> 6 == 2 and not 192 <= self.rtp[1] <= 223


def parse(frame: bytes, at: int, own: Callable[[bytes], bool]) -> "Packet | Other":
    """Read the packet whose IP header is at ``at``. ``own`` says whether an address is one of ours."""
    type_ = frame[at - 2 : at]
    if type_ == b"\x08\x00":
        p = _parse_ipv4(frame, at, own)
    elif type_ == b"\x86\xdd":
        p = _parse_ipv6(frame, at, own)
    else:
        return Other.FOREIGN
    if isinstance(p, Other):
        return p
    if len(frame) < p.udp + UDP:
        return Other.FOREIGN
    p.source_port, p.port, p.udp_length, p.checksum = struct.unpack_from("!HHHH", frame, p.udp)
    start = p.udp + UDP
    if p.udp_length >= UDP + RTP and len(frame) >= start + RTP:
        p.rtp = frame[start : start + RTP]
    return p


def _parse_ipv4(frame: bytes, at: int, own: Callable[[bytes], bool]) -> "Packet | Other":
    header = frame[at : at + IPV4]
    if len(header) < IPV4 or header[0] >> 4 != 4 or header[9] != 17:
        return Other.FOREIGN
    destination = _MAPPED + header[16:20]
    words, fragment = header[0] & 15, struct.unpack_from("!H", header, 6)[0]
    if not own(destination) or words < 5:
        return Other.FOREIGN
    if fragment & 0x1FFF:
        return Other.FRAGMENT
    odd = Odd.FRAGMENT if fragment & 0x2000 else Odd.OPTIONS if words > 5 else None
    source = _MAPPED + header[12:16]
    length = struct.unpack_from("!H", header, 2)[0]
    return Packet(4, source, destination, header, length, header[1], header[8], at + 4 * words, odd)


def _parse_ipv6(frame: bytes, at: int, own: Callable[[bytes], bool]) -> "Packet | Other":
    header = frame[at : at + IPV6]
    if len(header) < IPV6 or header[0] >> 4 != 6 or not own(header[24:40]):
        return Other.FOREIGN
    if header[24:36] == _MAPPED:  # RFC 4291 §2.5.5.2: a mapped IPv4 address has no business on a wire
        return Other.FOREIGN
    length = struct.unpack_from("!H", header, 4)[0] + IPV6
    tos = struct.unpack_from("!H", header)[0] >> 4 & 0xFF
    p = Packet(6, header[8:24], header[24:40], header, length if length < 65536 else 0, tos, header[7], 0, None)
    return _skip_extensions(frame, at + IPV6, header[6], p)


def _skip_extensions(frame: bytes, at: int, following: int, p: Packet) -> "Packet | Other":
    """Find UDP behind hop-by-hop options (0), routing (43), fragment (44) and destination options (60)."""
    for _ in range(_EXTENSIONS):
        if following == 17:
            break
        extension = frame[at : at + 8]
        if following not in (0, 43, 44, 60) or len(extension) < 8:
            return Other.FOREIGN
        if following == 44:
            if extension[2] or extension[3] & 0xF8:
                return Other.FRAGMENT
            if extension[3] & 1:
                p.odd = Odd.FRAGMENT
        p.odd = p.odd or Odd.OPTIONS
        at += 8 if following == 44 else 8 * (extension[1] + 1)
        following = extension[0]
    p.udp = at
    return p if following == 17 else Other.FOREIGN


def well_formed(frame: bytes, at: int, p: Packet) -> bool:
    """Whether the lengths agree, and the checksum of an IPv4 header that would be written anew."""
    end = at + p.length
    if p.udp_length < UDP or end > len(frame):
        return False
    if p.odd is Odd.FRAGMENT:
        return p.udp + UDP <= end
    if p.udp + p.udp_length > end:
        return False
    return p.version == 6 or p.odd is not None or _sum(p.header) == 0xFFFF


@dataclass(frozen=True, slots=True)
class Exit:
    """How a packet leaves."""

    version: int
    source: bytes
    source_port: int
    target: bytes
    target_port: int
    tos: int | None
    "Whose DSCP it gets; None: it keeps its own."


def write(frame: bytes, at: int, p: Packet, leave: Exit, ttl: int) -> bytes:
    """The frame that leaves. ``p`` is well formed and plain."""
    tos = p.tos if leave.tos is None else leave.tos & 0xFC | p.tos & 3
    build = _ipv4 if leave.version == 4 else _ipv6
    checksum = p.checksum
    if checksum:
        old, new = _pseudo(p.source, p.destination, p.version), _pseudo(leave.source, leave.target, leave.version)
        checksum = _replace(checksum, old, new)
        ports = struct.pack("!HH", p.source_port, p.port), struct.pack("!HH", leave.source_port, leave.target_port)
        checksum = _replace(checksum, *ports)
    udp = struct.pack("!HHHH", leave.source_port, leave.target_port, p.udp_length, checksum)
    type_ = b"\x08\x00" if leave.version == 4 else b"\x86\xdd"
    return frame[: at - 2] + type_ + build(p, leave, tos, ttl) + udp + frame[p.udp + UDP : at + p.length]


def _ipv4(p: Packet, leave: Exit, tos: int, ttl: int) -> bytes:
    length = p.length if p.version == 4 else p.length - IPV6 + IPV4
    second = p.header[4:8] if p.version == 4 else b"\0\0\x40\0"  # don't fragment, no identification (RFC 6864)
    header = struct.pack("!BBH4sBBH4s4s", 0x45, tos, length, second, ttl, 17, 0, leave.source[12:], leave.target[12:])
    return header[:10] + struct.pack("!H", _sum(header) ^ 0xFFFF) + header[12:]


def _ipv6(p: Packet, leave: Exit, tos: int, ttl: int) -> bytes:
    length = p.length - (IPV6 if p.version == 6 else IPV4)
    flow = struct.unpack_from("!I", p.header)[0] & 0xFFFFF if p.version == 6 else 0
    return struct.pack("!IHBB16s16s", 6 << 28 | tos << 20 | flow, length, 17, ttl, leave.source, leave.target)


def _pseudo(source: bytes, destination: bytes, version: int) -> bytes:
    return source[12:] + destination[12:] if version == 4 else source + destination


def _sum(data: bytes) -> int:
    """RFC 1071: the one's complement sum of 16-bit words."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def _replace(checksum: int, old: bytes, new: bytes) -> int:
    """RFC 1624 §3, equation 3; RFC 768: 0 means none, so a checksum of 0 is sent as 0xFFFF."""
    total = (checksum ^ 0xFFFF) + (_sum(old) ^ 0xFFFF) + _sum(new)
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF or 0xFFFF
