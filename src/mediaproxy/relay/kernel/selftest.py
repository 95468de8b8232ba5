"""Whether the kernel does with a packet what it should, tried on one that never leaves.

Programs and maps that are attached nowhere yet come in, and are as new afterwards. FastPathUnavailable says that this
host's kernel cannot be relied on.
"""

import socket
import struct
import sys
import time
from pathlib import Path

from mediaproxy.endpoint import Endpoint
from mediaproxy.relay.bpf import FastPathUnavailable, KernelPath, syscalls
from mediaproxy.relay.bpf.objects import unavailable
from mediaproxy.relay.bpf.path import possible_cpus
from mediaproxy.relay.packetframe import IPV4, UDP
from mediaproxy.relay.packetpath import Slot, World, path
from mediaproxy.relay.portmap import Control, PortMap
from mediaproxy.relay.slots import COUNTERS, TOTALS, SlotConfig, State

_REDIRECT = 7
"TC_ACT_REDIRECT"
_RELAY, _ALICE, _BOB = "192.0.2.1", Endpoint("198.51.100.1", 4000), Endpoint("198.51.100.2", 5000)
_LOOPBACK = 1
_POSSIBLE = Path("/sys/devices/system/cpu/possible")


def try_out(kernel: KernelPath, control: Control) -> None:
    """Have the program forward a packet. ``control``: what the maps are for. FastPathUnavailable."""
    ports = PortMap(addresses=((_RELAY, _RELAY),), port_min=control.ports.port_min, ports=control.ports.ports)
    now = time.monotonic_ns()
    world = World(Control(ports=ports, heartbeat=now), {0: _slot(_ALICE, peer=1), 1: _slot(_BOB, peer=0)})
    frame = _frame(ports.port_min)
    kernel.set_control(world.control)
    for index, slot in world.slots.items():
        kernel.slots.store(index, slot.generation, slot.state, slot.config)
    try:
        done = syscalls.test_run(kernel.programs["tc/ethernet"], frame)
        for index in world.slots:
            kernel.slots.free(index)
            syscalls.map_update(kernel.maps["counters"], index.to_bytes(4, sys.byteorder), bytes(COUNTERS.size))
        cpus = possible_cpus(_POSSIBLE.read_text())
        syscalls.map_update(kernel.maps["totals"], bytes(4), bytes(TOTALS.size * cpus))
    except OSError as error:
        raise unavailable("a test packet", error) from error
    kernel.set_control(control)
    expected = path(world, frame, now)
    if done.verdict != _REDIRECT or done.data != expected.frame:
        raise FastPathUnavailable(
            "a test packet", f"the kernel did not forward it as it should (verdict {done.verdict}): please report this"
        )


def _slot(phone: Endpoint, *, peer: int) -> Slot:
    config = SlotConfig(source=phone, target=phone, ifindex=_LOOPBACK, peer=peer, peer_generation=1)
    return Slot(1, State.LEARNED, config)


def _frame(port: int) -> bytes:
    """An RTP packet of Alice in UDP without checksum, in IPv4, in Ethernet."""
    rtp = struct.pack("!BBHII", 0x80, 0, 1, 160, 7) + bytes(160)
    udp = struct.pack("!HHHH", _ALICE.port, port, UDP + len(rtp), 0)
    header = bytearray(
        struct.pack("!BBHHHBBH", 0x45, 0, IPV4 + UDP + len(rtp), 0, 0, 64, socket.IPPROTO_UDP, 0)
        + socket.inet_aton(_ALICE.address)
        + socket.inet_aton(_RELAY)
    )
    total = sum(struct.unpack("!10H", header))
    total = (total & 0xFFFF) + (total >> 16)
    header[10:12] = (~(total + (total >> 16)) & 0xFFFF).to_bytes(2, "big")
    return bytes(12) + b"\x08\x00" + bytes(header) + udp + rtp
