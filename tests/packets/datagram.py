"""UDP datagrams as frames: built from their fields, with every checksum computed in full."""

import struct
from dataclasses import dataclass
from enum import Enum

from mediaproxy.endpoint import Endpoint
from mediaproxy.relay.slots import packed

ETHERNET = bytes(12)
"Addresses of loopback: BPF_PROG_TEST_RUN takes the frame for one to this host."


class Checksum(Enum):
    """What stands in the UDP header."""

    RIGHT = "right"
    NONE = "none"
    WRONG = "wrong"


@dataclass(frozen=True, kw_only=True)
class Datagram:
    """One UDP packet. What is not said is as usual."""

    source: Endpoint
    destination: Endpoint
    payload: bytes = b""
    ttl: int = 64
    tos: int = 0
    options: bytes = b""
    "IPv4 options, or for IPv6 whole extension headers; multiples of 4 or 8 bytes."
    first_extension: int = 60
    "Kind of the first extension header."
    fragment: int = 0
    "IPv4 flags and offset: 0x2000 = more fragments."
    identification: int = 0x1234
    flow: int = 0
    "IPv6 flow label."
    checksum: Checksum = Checksum.RIGHT
    udp_length: int | None = None
    "As the header claims, if not the truth."
    ip_length: int | None = None
    bad_header: bool = False
    "The checksum of the IPv4 header is wrong."
    padding: int = 0
    "Bytes of the frame behind the packet."

    @property
    def ip(self) -> bytes:
        """From the IP header on."""
        udp = self._udp()
        length = len(self.options) + len(udp)
        return (self._ipv4(length) if self.source.version == 4 else self._ipv6(length)) + self.options + udp

    def frame(self, ethernet: bytes = ETHERNET) -> bytes:
        """With an Ethernet header."""
        type_ = b"\x08\x00" if self.source.version == 4 else b"\x86\xdd"
        return ethernet + type_ + self.ip + bytes(self.padding)

    def _udp(self) -> bytes:
        length = 8 + len(self.payload)
        head = struct.pack("!HHH", self.source.port, self.destination.port, self.udp_length or length)
        checksum = 0
        if self.checksum is not Checksum.NONE:
            pseudo = packed(self.source.address) + packed(self.destination.address)
            if self.source.version == 4:
                pseudo = pseudo[12:16] + pseudo[28:]
            pseudo += struct.pack("!HH", 17, self.udp_length or length)
            checksum = ones_sum(pseudo + head + self.payload) ^ 0xFFFF or 0xFFFF
            if self.checksum is Checksum.WRONG:
                checksum = ones_sum(checksum.to_bytes(2, "big") + b"\x01\x01")
        return head + struct.pack("!H", checksum) + self.payload

    def _ipv4(self, length: int) -> bytes:
        words = 5 + len(self.options) // 4
        header = struct.pack(
            "!BBHHHBBH4s4s",
            0x40 | words,
            self.tos,
            self.ip_length or 20 + length,
            self.identification,
            self.fragment,
            self.ttl,
            17,
            0,
            packed(self.source.address)[12:],
            packed(self.destination.address)[12:],
        )
        checksum = ones_sum(header + self.options) ^ 0xFFFF ^ (0x0100 if self.bad_header else 0)
        return header[:10] + struct.pack("!H", checksum) + header[12:]

    def _ipv6(self, length: int) -> bytes:
        following = self.first_extension if self.options else 17
        return struct.pack(
            "!IHBB16s16s",
            6 << 28 | self.tos << 20 | self.flow,
            (self.ip_length or 40 + length) - 40,
            following,
            self.ttl,
            packed(self.source.address),
            packed(self.destination.address),
        )


def ones_sum(data: bytes) -> int:
    """RFC 1071."""
    data += bytes(len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def valid(ip: bytes) -> bool:
    """Whether the checksums of an IP packet with UDP are right; a missing one is right for IPv4 only."""
    if ip[0] >> 4 == 4:
        size = 4 * (ip[0] & 15)
        if ones_sum(ip[:size]) != 0xFFFF:
            return False
        pseudo, missing = ip[12:20], True
    else:
        size, pseudo, missing = 40, ip[8:40], False
    udp = ip[size:]
    length, checksum = struct.unpack_from("!HH", udp, 4)
    if checksum == 0:
        return missing
    return ones_sum(pseudo + struct.pack("!HH", 17, length) + udp[:length]) == 0xFFFF


def rtp(
    sequence: int = 1, *, ssrc: int = 0xCAFE, payload_type: int = 0, timestamp: int = 160, size: int = 160
) -> bytes:
    """An RTP packet."""
    return struct.pack("!BBHII", 0x80, payload_type, sequence & 0xFFFF, timestamp, ssrc) + bytes(size)
