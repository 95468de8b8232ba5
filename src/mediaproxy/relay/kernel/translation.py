"""Flows as the kernel program reads them, and back.

A Flow, the port map and the way to its target come in, a SlotConfig and a state go out; what an earlier process has
left in a slot becomes a Flow again. Nothing here is read or written.
"""

import struct
import sys
from collections.abc import Mapping
from functools import lru_cache

from mediaproxy.endpoint import Endpoint
from mediaproxy.relay.flow import Flow, SlotCounters
from mediaproxy.relay.kernel.netlink import Way
from mediaproxy.relay.portmap import PortMap
from mediaproxy.relay.slots import PREFIXES, TICK, Flag, SlotConfig, State, Word, unpacked

_LONGEST = 65535
"Bytes of the longest IP packet."
_TARGET, _ANY, _TOS, _SETTLED, _RTP_ONLY = map(int, (Flag.TARGET, Flag.ANY, Flag.TOS, Flag.SETTLED, Flag.RTP_ONLY))
"Plain numbers, for a relay that starts again looks at all slots."


def state_of(flow: Flow, ports: PortMap) -> State:
    """What the program does with a port that has this flow. A peer in other maps is reached through user space."""
    if flow.source is not None and (flow.peer is None or ports.index(flow.peer) is not None):
        return State.LEARNED
    return State.DEAF if flow.peer is None and flow.target is None else State.LEARNING


def routed(flow: Flow, ports: PortMap) -> Endpoint | None:
    """Where the host's routing must find a way to, for what leaves from this port; None: nothing can leave."""
    target = flow.target
    if target is None or target.version != flow.local.version or not 0 < target.port <= 65535:
        return None
    return ports.own(target) or target


def config_of(flow: Flow, ports: PortMap, way: Way | None, *, settled: bool) -> SlotConfig:
    """The configuration of a flow's slot. ``way``: that to ``routed(flow)``; None: there is none, so what is to leave
    from here counts as undeliverable."""
    target = routed(flow, ports) if way is not None else None
    peer = ports.index(flow.peer) if flow.peer is not None else None
    prefixes = flow.allowed or None
    return SlotConfig(
        address=ports.address(flow.local.address) or 0,
        version=flow.local.version,
        source=flow.source,
        target=target,
        ifindex=way.ifindex if way is not None else 0,
        gateway=way.gateway if way is not None else None,
        mtu=way.mtu if way is not None and way.mtu < _LONGEST else 0,
        peer=peer or 0,
        peer_generation=flow.peer_generation if peer is not None else 0,
        tos=flow.tos,
        allowed=None if prefixes is not None and len(prefixes) > PREFIXES else prefixes,
        settled=settled and flow.source is not None,
        own=target is not None and ports.own(target) is not None,
        rtp_only=flow.rtp_only,
        xdp=way is not None and way.xdp,
        clocks=flow.clocks,
    )


def flow_of(local: Endpoint, word: Word, config: Mapping[str, bytes], ports: PortMap) -> Flow:
    """The flow that a slot has. ``config``: the fields of its active copy, as bytes."""
    generation = word.generation
    if word.state is State.DEAF:
        return Flow(local=local, generation=generation)
    flags = _int(config["flags"])
    peer_generation = _int(config["peer_generation"])
    learned = word.state is State.LEARNED
    return Flow(
        local=local,
        generation=generation,
        peer=ports.endpoint(_int(config["peer"])) if peer_generation else None,
        peer_generation=peer_generation,
        source=_endpoint(config["source"], config["source_port"]) if learned else None,
        target=_endpoint(config["target"], config["target_port"]) if flags & _TARGET else None,
        allowed=() if flags & _ANY else _prefixes(config["allowed"], config["bits"]),
        tos=_int(config["tos"]) if flags & _TOS else None,
        settled_at=0.0 if flags & _SETTLED else None,
        rtp_only=bool(flags & _RTP_ONLY),
        clocks=_clocks(config["clocks"]),
    )


def _int(data: bytes) -> int:
    return int.from_bytes(data, sys.byteorder)


def _endpoint(address: bytes, port: bytes) -> Endpoint:
    return Endpoint(unpacked(address), int.from_bytes(port, "big"))


def _prefixes(allowed: bytes, bits: bytes) -> tuple[str, ...]:
    found = []
    for number, length in enumerate(bits):
        address = unpacked(allowed[16 * number : 16 * number + 16])
        if length:
            found.append(f"{address}/{length if ':' in address else length - 96}")
    return tuple(found)


@lru_cache(maxsize=4096)
def _clocks(data: bytes) -> tuple[tuple[int, int], ...]:
    numbers = struct.unpack(f"={len(data) // 4}I", data)
    return tuple((number & 127, round(1e9 * TICK / (number >> 7))) for number in numbers if number >> 7)


def counters_of(local: Endpoint, generation: int, values: tuple[int, ...], offset: float) -> SlotCounters:
    """The counters of a lent port. ``values``: those of its slot, as BRIEF says; those of another lending count as
    none. ``offset``: what the relay's clock is ahead of CLOCK_MONOTONIC, in seconds."""
    packets, octets, last, rtp, lost, jitter, ticks, ssrc, sequence, payload_type, whose, *others = values
    if whose != generation & 0xFFFFFFFF:
        return SlotCounters(local=local, generation=generation)
    undeliverable, dropped, undeliverable_bytes = others
    heard = payload_type > 127
    return SlotCounters(
        local=local,
        generation=generation,
        packets=packets,
        bytes=octets,
        last=last / 1e9 + offset if last else 0.0,
        ssrc=ssrc if heard else None,
        sequence=sequence,
        payload_type=payload_type & 127 if heard else None,
        undeliverable=undeliverable,
        undeliverable_bytes=undeliverable_bytes,
        rtp=rtp,
        lost=lost,
        jitter=jitter / 16e9 if ticks else None,
        dropped=dropped,
    )
