"""A generator, a relay's host and a sink, each in a network namespace, joined by two veth pairs; and the generator.

The generator is one packet socket: one system call sends a packet of each of up to 200 flows, whole frames, so that it
costs little beside what carries them, and the same wherever they go: a raw IP socket would look for a route for each,
which costs one microsecond more to a neighbour's own address than through it. What the sink gets is counted by a filter
that throws it away, so that hearing costs nothing.
"""

import ctypes
import json
import os
import random
import socket
import struct
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from glob import glob
from pathlib import Path
from statistics import median, quantiles

from lab.netns import LabError, Namespace, Namespaces
from mediaproxy.endpoint import Endpoint

GENERATOR, HOST, HOST_SINK, SINK = "10.77.1.2", "10.77.1.1", "10.77.2.1", "10.77.2.2"
"Addresses: of the generator, of the relay's host on either side, of the sink."
PAYLOAD = 160
"Bytes of media in a packet: 20 ms of G.711."
_SEQUENCES = 1000
"Packets of a flow that are made beforehand; then they begin again."
_BATCH = 200
_IPV4 = 0x0800
_libc = ctypes.CDLL(None, use_errno=True)


class _Vector(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]


class _Message(ctypes.Structure):
    _fields_ = [
        ("name", ctypes.c_void_p),
        ("name_length", ctypes.c_uint32),
        ("vectors", ctypes.c_void_p),
        ("vector_count", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_int),
        ("padding", ctypes.c_int),
        ("sent", ctypes.c_uint64),
    ]


@dataclass(frozen=True, slots=True)
class Stream:
    """Packets from a port of the generator to a place."""

    port: int
    to: Endpoint


class Site:
    """The three namespaces."""

    def __init__(self, spaces: Namespaces) -> None:
        self.generator, self.host, self.sink = (spaces.add(name) for name in ("gen", "host", "sink"))
        for near, there, ours, far in (
            (self.generator, "left", GENERATOR, HOST),
            (self.sink, "right", SINK, HOST_SINK),
        ):
            near.ip(f"link add {there} type veth peer name {there} netns {self.host.name}")
            near.ip(f"addr add {ours}/24 dev {there}", f"link set {there} up", f"route add default via {far}")
            self.host.ip(f"addr add {far}/24 dev {there}", f"link set {there} up")
        self.host.run("sysctl", "-qw", "net.ipv4.ip_forward=1")

    def ethernet(self) -> bytes:
        """The Ethernet header of a frame from the generator to the host."""
        ours, theirs = (
            bytes.fromhex(json.loads(where.run("ip", "-j", "link", "show", "left"))[0]["address"].replace(":", ""))
            for where in (self.generator, self.host)
        )
        return theirs + ours + struct.pack("!H", _IPV4)

    @contextmanager
    def counting(self, where: Namespace, device: str) -> Iterator["Count"]:
        """What comes in there is thrown away and counted meanwhile."""
        chain = f"type filter hook ingress device {device} priority -500;"
        rule = f"table netdev bench {{\nchain {device} {{\n{chain}\nmeta l4proto udp counter drop\n}}\n}}\n"
        where.run("nft", "-f", "-", text=rule)
        try:
            yield Count(where, device)
        finally:
            where.run("nft", "delete", "table", "netdev", "bench")


@dataclass(frozen=True, slots=True)
class Count:
    """A filter that counts."""

    where: Namespace
    device: str

    @property
    def packets(self) -> int:
        """So many have come, when no more come."""
        last = -1
        while (now := self._read()) != last:
            last = now
            time.sleep(0.1)
        return now

    def _read(self) -> int:
        said = json.loads(self.where.run("nft", "-j", "list", "chain", "netdev", "bench", self.device))
        (rule,) = (one["rule"] for one in said["nftables"] if "rule" in one)
        return sum(int(part["counter"]["packets"]) for part in rule["expr"] if "counter" in part)


class Generator:
    """Sends packets of many flows in turn."""

    def __init__(self, site: Site, flows: Sequence[Stream]) -> None:
        with site.generator.inside():
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
            self._socket.bind(("left", 0))
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 24)
        self._batch = min(_BATCH, len(flows))
        rounds = max(2, _SEQUENCES * _BATCH // len(flows)) if len(flows) > _BATCH else _SEQUENCES
        self._total = len(flows) * rounds
        self._at = 0
        self._make(site.ethernet(), flows, rounds)

    def _make(self, ethernet: bytes, flows: Sequence[Stream], rounds: int) -> None:
        size = len(ethernet) + 40
        self._payload = ctypes.create_string_buffer(bytes([0xD5]) * PAYLOAD, PAYLOAD)
        self._heads = bytearray(size * self._total)
        for number, flow in enumerate(flows):
            for sequence in range(rounds):
                at = size * (sequence * len(flows) + number)
                self._heads[at : at + size] = ethernet + _head(flow, number, sequence)
        heads = (ctypes.c_char * len(self._heads)).from_buffer(self._heads)
        first, payload = ctypes.addressof(heads), ctypes.addressof(self._payload)
        self._vectors = (_Vector * (2 * self._total))()
        self._messages = (_Message * self._total)()
        vectors = ctypes.addressof(self._vectors)
        for number in range(self._total):
            self._vectors[2 * number] = _Vector(first + size * number, size)
            self._vectors[2 * number + 1] = _Vector(payload, PAYLOAD)
            self._messages[number] = _Message(None, 0, vectors + 32 * number, 2, None, 0, 0, 0, 0)
        self._first = ctypes.addressof(self._messages)

    def _push(self, count: int) -> int:
        count = min(count, self._total - self._at)
        place = self._first + ctypes.sizeof(_Message) * self._at
        sent: int = _libc.sendmmsg(self._socket.fileno(), ctypes.c_void_p(place), count, 0)
        if sent < 0:
            raise LabError(f"the generator cannot send: {os.strerror(ctypes.get_errno())}")
        self._at = (self._at + sent) % self._total
        return sent

    def paced(self, rate: float, seconds: float) -> tuple[int, float]:
        """Packets sent at ``rate`` per second, one batch after the other, and in how many seconds."""
        begin = time.perf_counter()
        sent, wanted = 0, int(rate * seconds)
        while sent < wanted:
            ahead = begin + sent / rate - time.perf_counter()
            if ahead > 0:
                time.sleep(ahead)
            sent += self._push(min(self._batch, wanted - sent))
        return sent, time.perf_counter() - begin

    def flat_out(self, seconds: float) -> tuple[int, float]:
        """Packets sent as fast as it goes, and in how many seconds."""
        begin, sent = time.perf_counter(), 0
        while (now := time.perf_counter() - begin) < seconds:
            sent += self._push(_BATCH)
        return sent, now

    def close(self) -> None:
        """No more packets."""
        self._socket.close()


def _head(flow: Stream, ssrc: int, sequence: int) -> bytes:
    """IP, UDP and RTP headers, with the checksums that a network card would see."""
    source, target = socket.inet_aton(GENERATOR), socket.inet_aton(flow.to.address)
    length = 8 + 12 + PAYLOAD
    rtp = struct.pack("!BBHII", 0x80, 8, sequence, sequence * 160, ssrc + 1)
    pseudo = source + target + struct.pack("!HHHHH", 17, length, flow.port, flow.to.port, length)
    checksum = _checksum(pseudo + rtp, (PAYLOAD // 2) * 0xD5D5) or 0xFFFF
    udp = struct.pack("!HHHH", flow.port, flow.to.port, length, checksum)
    ip = struct.pack("!BBHHHBB", 0x45, 0, 20 + length, 0, 0, 64, 17)
    return ip + struct.pack("!H", _checksum(ip + source + target, 0)) + source + target + udp + rtp


def _checksum(data: bytes, more: int) -> int:
    """RFC 1071, with the sum of what follows."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data)) + more
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def busy_seconds() -> float:
    """CPU time of all that runs on this machine so far, kernel threads included; what interrupts an idle processor is
    not in it. The scheduler counts in nanoseconds. /proc/stat looks only every 4 ms at what runs, which falls in with a
    generator that sends every 2 ms."""
    total = 0
    for file in glob("/proc/[0-9]*/task/[0-9]*/schedstat"):
        with suppress(OSError):  # it has ended
            total += int(Path(file).read_text().split()[0])
    return total / 1e9


def latencies(site: Site, flow: Stream, count: int = 1500) -> tuple[float, float]:
    """Microseconds from the sender's clock to the receiver's stamp, one packet at a time: median and p99."""
    with site.generator.inside():
        sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sender.bind((GENERATOR, flow.port))
    with site.sink.inside():
        receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        receiver.bind((SINK, flow.port))
        receiver.setsockopt(socket.SOL_SOCKET, 35, 1)  # SO_TIMESTAMPNS
        receiver.settimeout(1.0)
    sender.connect((flow.to.address, flow.to.port))
    rng, taken = random.Random(1), []
    try:
        for number in range(count):
            packet = struct.pack("!BBHII", 0x80, 8, number, number * 160, 99) + bytes(PAYLOAD)
            time.sleep(rng.uniform(0.0005, 0.0015))
            begin = time.time_ns()
            sender.send(packet)
            try:
                _, ancillary, _, _ = receiver.recvmsg(2000, 100)
            except TimeoutError:
                continue
            seconds, nanoseconds = struct.unpack("qq", ancillary[0][2])
            taken.append((seconds * 1_000_000_000 + nanoseconds - begin) / 1000)
    finally:
        sender.close()
        receiver.close()
    if len(taken) < count * 0.99:
        raise LabError(f"only {len(taken)} of {count} packets came through")
    return median(taken), quantiles(taken, n=100)[98]
