"""Whether the kernel does with a packet what it should, tried on one that never leaves.

Nothing comes in; FastPathUnavailable says what this host lacks. Maps and programs of the trial are gone afterwards.
"""

import socket
import struct
import time

from mediaproxy.endpoint import Endpoint
from mediaproxy.relay.bpf import FastPathUnavailable, KernelPath, syscalls
from mediaproxy.relay.bpf.objects import unavailable
from mediaproxy.relay.packetframe import IPV4, UDP
from mediaproxy.relay.packetpath import Slot, World, path
from mediaproxy.relay.portmap import Control, PortMap
from mediaproxy.relay.slots import SlotConfig, State

_REDIRECT = 7
"TC_ACT_REDIRECT"
_RELAY, _ALICE, _BOB = "192.0.2.1", Endpoint("198.51.100.1", 4000), Endpoint("198.51.100.2", 5000)
_PORTS = PortMap(addresses=((_RELAY, _RELAY),), port_min=20000, ports=4)
_LOOPBACK = 1


def self_test() -> None:
    """Load the program, and have it forward a packet. FastPathUnavailable."""
    now = time.monotonic_ns()
    world = World(Control(ports=_PORTS, heartbeat=now), {0: _slot(_ALICE, peer=2), 2: _slot(_BOB, peer=0)})
    kernel = KernelPath.create(world.control)
    try:
        for index, slot in world.slots.items():
            kernel.slots.store(index, slot.generation, slot.state, slot.config)
        frame = _frame()
        done = syscalls.test_run(kernel.programs["tc/ethernet"], frame)
    except OSError as error:
        raise unavailable("a test packet", error) from error
    finally:
        kernel.close()
    expected = path(world, frame, now)
    if done.verdict != _REDIRECT or done.data != expected.frame:
        raise FastPathUnavailable(
            "a test packet", f"the kernel did not forward it as it should (verdict {done.verdict}): please report this"
        )


def _slot(phone: Endpoint, *, peer: int) -> Slot:
    config = SlotConfig(source=phone, target=phone, ifindex=_LOOPBACK, peer=peer, peer_generation=1)
    return Slot(1, State.LEARNED, config)


def _frame() -> bytes:
    """An RTP packet of Alice in UDP without checksum, in IPv4, in Ethernet."""
    rtp = struct.pack("!BBHII", 0x80, 0, 1, 160, 7) + bytes(160)
    udp = struct.pack("!HHHH", _ALICE.port, _PORTS.port_min, UDP + len(rtp), 0)
    header = bytearray(
        struct.pack("!BBHHHBBH", 0x45, 0, IPV4 + UDP + len(rtp), 0, 0, 64, socket.IPPROTO_UDP, 0)
        + socket.inet_aton(_ALICE.address)
        + socket.inet_aton(_RELAY)
    )
    total = sum(struct.unpack("!10H", header))
    total = (total & 0xFFFF) + (total >> 16)
    header[10:12] = (~(total + (total >> 16)) & 0xFFFF).to_bytes(2, "big")
    return bytes(12) + b"\x08\x00" + bytes(header) + udp + rtp
