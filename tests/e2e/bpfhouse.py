"""Two hosts and a relay between them in namespaces, joined by veth pairs, for the kernel program on real interfaces.

``House`` makes and removes it all; ``Wire`` is a capture that says of every packet whether its checksums are right or
left to the hardware.
"""

import array
import fcntl
import os
import select
import socket
import struct
import time
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType

from msgspec.structs import replace as change

from lab.netns import Namespace, Namespaces
from mediaproxy.endpoint import Endpoint
from mediaproxy.relay.bpf import Attachment, KernelPath, attach, attach_lookup, interface
from mediaproxy.relay.bpf.attach import Hook
from mediaproxy.relay.flow import Flow
from mediaproxy.relay.packetpath import Slot, World
from mediaproxy.relay.portmap import Control, PortMap
from tests.packets.datagram import ones_sum, valid
from tests.packets.table import RELAY4, RELAY6, config_of, state_of

ADDRESSES = {
    "a": ("198.51.100.1/24", "2001:db8:a::1/64"),
    "b": ("203.0.113.2/24", "2001:db8:b::2/64"),
}
_VIA = {"a": ("198.51.100.254", "2001:db8:a::fe"), "b": ("203.0.113.254", "2001:db8:b::fe")}
ALICE, ALICE6 = Endpoint("198.51.100.1", 4000), Endpoint("2001:db8:a::1", 4000)
BOB, BOB6 = Endpoint("203.0.113.2", 5000), Endpoint("2001:db8:b::2", 5000)
PORTS = PortMap(addresses=((RELAY4, RELAY4), (RELAY6, RELAY6)), port_min=20000, ports=64)

_PACKET_AUXDATA, _SOL_PACKET, _NOT_READY = 8, 263, 1 << 3
_SIOCETHTOOL, _SET_TX_CHECKSUM, _SET_GRO = 0x8946, 0x17, 0x2C


class House:
    """Hosts ``a`` and ``b``, each on a veth of ``relay``, whose addresses are on its loopback. No IP forwarding."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self.spaces = Namespaces()
        self._stack.callback(self.spaces.close)
        self.a, self.relay, self.b = (self.spaces.add(name) for name in ("a", "relay", "b"))
        for space in (self.a, self.relay, self.b):
            space.run("sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=0", "net.ipv6.conf.default.disable_ipv6=0")
            space.run("sysctl", "-qw", "net.ipv6.conf.default.accept_dad=0", "net.ipv6.conf.all.accept_dad=0")
        self.relay.ip(f"address add {RELAY4}/32 dev lo", f"address add {RELAY6}/128 dev lo nodad")
        for name, space in (("a", self.a), ("b", self.b)):
            self._join(name, space)
        self.kernel = KernelPath.create(Control(ports=PORTS))
        self._stack.callback(self.kernel.close)
        self.kernel.beat(time.monotonic_ns() + 3600 * 10**9)
        self.attachments: list[Attachment] = []

    def _join(self, name: str, space: Namespace) -> None:
        self.relay.ip(f"link add to-{name} type veth peer name eth0 netns {space.name}")
        v4, v6 = _VIA[name]
        space.ip(
            "link set eth0 up",
            *(f"address add {address} dev eth0{' nodad' if ':' in address else ''}" for address in ADDRESSES[name]),
            f"route add default via {v4}",
            f"route add default via {v6}",
        )
        self.relay.ip(
            f"link set to-{name} up", f"address add {v4}/24 dev to-{name}", f"address add {v6}/64 dev to-{name} nodad"
        )

    def __enter__(self) -> "House":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for attachment in self.attachments:
            with self.relay.inside():
                attachment.detach()
        self._stack.close()

    def attach(self, *names: str, hook: Hook | None = None) -> None:
        """Put the program at the ingress of interfaces of the relay."""
        with self.relay.inside():
            for name in names or ("to-a", "to-b", "lo"):
                where = interface(name)
                self.attachments.append(attach(where, self.kernel.programs[where.section], hook=hook))

    def listen(self) -> dict[int, socket.socket]:
        """The relay's receiving sockets, by IP version: what is passed up comes to them."""
        sockets = {}
        for version, family in ((4, socket.AF_INET), (6, socket.AF_INET6)):
            sock = self.relay.socket(socket.SOCK_DGRAM, family)
            self._stack.callback(sock.close)
            sock.bind(("127.0.0.1" if version == 4 else "::1", 0))
            sock.settimeout(10)
            self.kernel.set_socket(version, sock)
            sockets[version] = sock
        with self.relay.inside():
            link = attach_lookup(self.kernel.programs["sk_lookup"])
        self._stack.callback(os.close, link)
        return sockets

    def index(self, name: str) -> int:
        """The index of an interface of the relay."""
        with self.relay.inside():
            return socket.if_nametoindex(name)

    def install(self, flows: Iterable[Flow], *, mtu: int = 0, own: bool = False) -> None:
        """Lend ports; targets are reached by the veth of their network, or by lo if they are here. ``own``: a target
        that is a port of this relay is known as one."""
        for index, slot in self.world(flows, mtu=mtu, own=own).slots.items():
            self.kernel.slots.store(index, slot.generation, slot.state, slot.config)

    def world(self, flows: Iterable[Flow], *, mtu: int = 0, own: bool = False) -> World:
        """The same as the specification sees it."""
        out = {name: self.index(name) for name in ("to-a", "to-b", "lo")}
        slots = {}
        for flow in flows:
            config = config_of(flow, mtu=mtu)
            config = change(config, ifindex=out[_way(flow.target)], own=own and config.own, xdp=True)
            index = PORTS.index(flow.local)
            assert index is not None
            slots[index] = Slot(flow.generation, state_of(flow), config)
        return World(Control(ports=PORTS, heartbeat=time.monotonic_ns(), alive=3600.0), slots)

    def phone(self, at: Endpoint, space: Namespace | None = None) -> socket.socket:
        """A bound socket of a host."""
        host = space or (self.a if at in (ALICE, ALICE6) else self.b)
        sock = host.socket(socket.SOCK_DGRAM, socket.AF_INET if at.version == 4 else socket.AF_INET6)
        self._stack.callback(sock.close)
        sock.bind((at.address, at.port))
        sock.settimeout(10)
        return sock

    def wire(self, space: Namespace, name: str = "eth0", *, outgoing: bool = False) -> "Wire":
        """A capture of what comes in at an interface, or of what goes out."""
        wire = Wire(space, name, outgoing)
        self._stack.callback(wire.close)
        return wire

    def offload(self, space: Namespace, name: str, *, tx: bool) -> None:
        """Let the interface compute checksums of what it sends, or have the kernel do it."""
        self._ethtool(space, name, _SET_TX_CHECKSUM, tx)

    def receive_offload(self, space: Namespace, name: str) -> None:
        """Generic receive offload: a veth then takes what XDP sends to it."""
        self._ethtool(space, name, _SET_GRO, True)

    def _ethtool(self, space: Namespace, name: str, command: int, on: bool) -> None:
        with space.inside(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            value = array.array("B", struct.pack("=II", command, on))
            fcntl.ioctl(sock, _SIOCETHTOOL, struct.pack("16sP", name.encode(), value.buffer_info()[0]).ljust(40, b"\0"))


def _way(target: Endpoint | None) -> str:
    if target is None:
        return "lo"
    for name in ("a", "b"):
        if any(target.address.startswith(network) for network in (_VIA[name][0][:-3], _VIA[name][1][:-2])):
            return f"to-{name}"
    return "lo"


@dataclass(frozen=True)
class Caught:
    """One IP packet with UDP, as it came in."""

    ip: bytes
    not_ready: bool
    "The checksum is left to the hardware (CHECKSUM_PARTIAL)."

    @property
    def right(self) -> bool:
        """Whether the UDP checksum is right, or will be once the hardware has added the payload."""
        if not self.not_ready:
            return valid(self.ip)
        version = self.ip[0] >> 4
        size, addresses = (20, self.ip[12:20]) if version == 4 else (40, self.ip[8:40])
        length, checksum = struct.unpack_from("!HH", self.ip, size + 4)
        header = version == 6 or ones_sum(self.ip[:20]) == 0xFFFF
        return header and ones_sum(addresses + struct.pack("!HH", 17, length)) == checksum

    @property
    def payload(self) -> bytes:
        return self.ip[28 if self.ip[0] >> 4 == 4 else 48 :]

    @property
    def ttl(self) -> int:
        return self.ip[8] if self.ip[0] >> 4 == 4 else self.ip[7]

    @property
    def tos(self) -> int:
        return self.ip[1] if self.ip[0] >> 4 == 4 else struct.unpack_from("!H", self.ip)[0] >> 4 & 0xFF

    @property
    def checksum(self) -> int:
        at = 26 if self.ip[0] >> 4 == 4 else 46
        return int.from_bytes(self.ip[at : at + 2], "big")


class Wire:
    """A packet socket."""

    def __init__(self, space: Namespace, name: str, outgoing: bool) -> None:
        self._outgoing = outgoing
        self._sock = space.socket(socket.SOCK_RAW, socket.AF_PACKET)
        with space.inside():
            self._sock.bind((name, 3))
        self._sock.setsockopt(_SOL_PACKET, _PACKET_AUXDATA, 1)

    def next(self, timeout: float = 10.0) -> Caught:
        """The next UDP packet. TimeoutError if none comes."""
        deadline = time.monotonic() + timeout
        while True:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self._sock], [], [], left)[0]:
                raise TimeoutError("nothing came")
            frame, auxiliary, _, address = self._sock.recvmsg(65536, 256)
            if (address[2] == socket.PACKET_OUTGOING) != self._outgoing:
                continue
            ip = frame[14:]
            version = ip[0] >> 4 if ip else 0
            if (version == 4 and ip[9] == 17) or (version == 6 and ip[6] == 17):
                status = next((struct.unpack_from("=I", d)[0] for level, _, d in auxiliary if level == _SOL_PACKET), 0)
                return Caught(ip, bool(status & _NOT_READY))

    def close(self) -> None:
        self._sock.close()
