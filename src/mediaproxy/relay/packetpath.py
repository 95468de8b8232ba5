"""The specification of the kernel path: what becomes of one frame, and every byte of the frame that leaves.

A frame as the interface received it and the slots come in; a verdict, a reason and the frame that leaves come out. The
program (relay.bpf.c) does the same; tests run both on the same packets. Written to be read, not to be fast. Checksums
here are those in the frame: what hardware and kernel leave out or add is tried on real interfaces.
"""

import struct
from dataclasses import dataclass, field
from enum import Enum

from mediaproxy.endpoint import Endpoint
from mediaproxy.relay.packetframe import UDP, Exit, Odd, Other, Packet, parse, well_formed, write
from mediaproxy.relay.portmap import Control
from mediaproxy.relay.slots import Reason, SlotConfig, State, packed, prefix, tick, unpacked

_HOPS = 3
"Legs of this relay that one packet may pass: its own and two more."
_MOST = 0xFFFFFFF
"Nanoseconds that one packet can be early or late for jitter."
_DROPOUT = 3000
"Sequence numbers that a packet can be ahead or behind (RFC 3550 A.1); farther off the sender has begun anew."


class Verdict(Enum):
    """What becomes of a frame."""

    PASS = "pass"
    "It goes on into the host, unchanged: to the relay's socket, or it was never ours."
    DROP = "drop"
    SEND = "send"
    "It leaves by an interface."


@dataclass(slots=True)
class Heard:
    """The counters of one slot."""

    packets: int = 0
    bytes: int = 0
    last: int = 0
    arrived: int = 0
    rtp: int = 0
    lost: int = 0
    jitter: int = 0
    tick: int = 0
    ssrc: int = 0
    timestamp: int = 0
    sequence: int = 0
    payload_type: int = 0
    undeliverable: int = 0
    undeliverable_bytes: int = 0
    dropped: int = 0
    passed: int = 0
    ranked: int = 0
    strangers: int = 0


@dataclass(slots=True)
class Slot:
    """One lent port."""

    generation: int
    state: State
    config: SlotConfig
    heard: Heard = field(default_factory=Heard)


@dataclass(slots=True)
class World:
    """All that the program knows."""

    control: Control
    slots: dict[int, Slot]
    "By index; the others are FREE."
    spray: int = 0
    "The bucket of all strangers."
    others: frozenset[int] = frozenset()
    "Ports at which other programs have sockets, on all of the relay's addresses."


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a frame."""

    verdict: Verdict
    reason: Reason | None = None
    "None: it was no packet to a port of the relay."
    frame: bytes = b""
    "What leaves, with the Ethernet header that came: the kernel writes another one."
    ifindex: int = 0


_NOT_OURS = Outcome(Verdict.PASS)


def path(world: World, frame: bytes, now: int, *, at: int = 14, tag: int | None = None) -> Outcome:
    """What becomes of a frame whose IP header is at ``at``. ``tag``: VLAN tag that the interface took off, 16 bits."""
    addresses = [packed(bind) for bind, _ in world.control.ports.addresses]
    p = parse(frame, at, addresses.__contains__)
    if isinstance(p, Other):
        return _NOT_OURS if p is Other.FOREIGN else Outcome(Verdict.PASS, Reason.FRAGMENT)
    index = world.control.ports.index(Endpoint(unpacked(p.destination), p.port))
    if index is None:
        return _NOT_OURS
    if tag is not None and tag & 0xFFF:
        return Outcome(Verdict.PASS, Reason.VLAN)
    slot = world.slots.get(index)
    if slot is None or slot.state is State.FREE:
        return _not_lent(world, p.port)
    if not well_formed(frame, at, p):
        return Outcome(Verdict.DROP, Reason.MALFORMED)
    if p.version == 6 and p.checksum == 0:  # RFC 8200 §8.1
        return Outcome(Verdict.DROP, Reason.NO_CHECKSUM)
    if slot.state is State.LEARNED and _from(slot.config, p.source, p.source_port):
        if slot.config.rtp_only and not p.is_rtp:
            return _pass_up(world, slot.heard, Reason.UP, now, ranked=True)
        return _forward(world, frame, at, p, slot, now)
    config = slot.config
    ranked = slot.state >= State.LEARNING and _allowed(config, p.source)
    if ranked and config.settled:
        ranked = _may_move(world, slot.heard, p, now)
    return _pass_up(world, slot.heard, Reason.UP, now, ranked=ranked)


def _not_lent(world: World, port: int) -> Outcome:
    if world.control.retiring:
        return _NOT_OURS
    if port in world.others:
        return Outcome(Verdict.PASS, Reason.OTHERS)
    return Outcome(Verdict.DROP, Reason.NOT_LENT)


def _from(config: SlotConfig, address: bytes, port: int) -> bool:
    source = config.source
    return source is not None and packed(source.address) == address and source.port == port


# -- who may pass up (calls.md 6, 13)


def _allowed(config: SlotConfig, address: bytes) -> bool:
    if config.allowed is None:
        return True
    number = int.from_bytes(address, "big")
    return any(
        number >> (128 - bits) == int.from_bytes(network, "big") >> (128 - bits)
        for network, bits in map(prefix, config.allowed)
    )


def _may_move(world: World, heard: Heard, p: Packet, now: int) -> bool:
    if now - heard.last >= round(world.control.silence * 1e9):
        return True
    if not p.is_rtp or not heard.payload_type & 128:
        return False
    sequence, ssrc = struct.unpack_from("!2xH4xI", p.rtp)
    return bool(ssrc == heard.ssrc) and 1 <= (sequence - heard.sequence) & 0xFFFF <= world.control.ahead


def _pass_up(world: World, heard: Heard, reason: Reason, now: int, *, ranked: bool) -> Outcome:
    control = world.control
    if now - control.heartbeat > round(control.alive * 1e9):
        return Outcome(Verdict.DROP, Reason.NO_PROCESS)
    if ranked:
        heard.ranked, passes = _take(heard.ranked, control.ranked.encode(), now)
    else:
        heard.strangers, passes = _take(heard.strangers, control.strangers.encode(), now)
        if passes:
            world.spray, passes = _take(world.spray, control.spray.encode(), now)
    if not passes:
        heard.dropped += 1
        return Outcome(Verdict.DROP, Reason.FLOOD if ranked else Reason.REFUSED)
    heard.passed += 1
    return Outcome(Verdict.PASS, reason)


def _take(empty_at: int, bucket: bytes, now: int) -> tuple[int, bool]:
    interval, burst = struct.unpack("=II", bucket)
    start = max(empty_at, now)
    return (start + interval, True) if start - now <= burst else (empty_at, False)


# -- forwarding


def _forward(world: World, frame: bytes, at: int, p: Packet, slot: Slot, now: int) -> Outcome:
    hops, exit_, reason = _route(world, slot)
    if reason is None and p.ttl <= len(hops):
        reason = Reason.TTL
    if reason is None:
        assert exit_ is not None, "a route without a reason against it has an end"
        why = _unfit(p, exit_)
        if why is not None:
            return _pass_up(world, slot.heard, why, now, ranked=True)
    for hop in hops:
        _hear(hop, p, now)
        if reason is not None and hop is hops[-1]:
            hop.heard.undeliverable += 1
            hop.heard.undeliverable_bytes += p.udp_length - UDP
        else:
            hop.heard.packets += 1
            hop.heard.bytes += p.udp_length - UDP
    if reason is not None:
        return Outcome(Verdict.DROP, reason)
    assert exit_ is not None, "as above"
    written = write(frame, at, p, _leave(world, hops[-1], exit_), p.ttl - len(hops))
    return Outcome(Verdict.SEND, Reason.FORWARDED, written, exit_.ifindex)


def _leave(world: World, last: Slot, config: SlotConfig) -> Exit:
    assert config.target is not None, "_route looked"
    local = world.control.ports.endpoint(last.config.peer)
    target = packed(config.target.address), config.target.port
    return Exit(config.version, packed(local.address), local.port, *target, config.tos)


def _route(world: World, slot: Slot) -> tuple[list[Slot], SlotConfig | None, Reason | None]:
    """The slots that a packet of ``slot``'s source comes to, and the configuration of the one it leaves from."""
    hops: list[Slot] = []
    while len(hops) < _HOPS:
        hops.append(slot)
        peer = world.slots.get(slot.config.peer)
        if (
            peer is None
            or peer.state < State.LEARNING
            or peer.generation != slot.config.peer_generation
            or peer.config.target is None
        ):
            return hops, None, Reason.UNDELIVERABLE
        local = world.control.ports.endpoint(slot.config.peer)
        following = world.control.ports.index(peer.config.target) if peer.config.own else None
        met = world.slots.get(following) if following is not None else None
        if met is None or met.state is not State.LEARNED or not _from(met.config, packed(local.address), local.port):
            return hops, peer.config, None
        slot = met
    return hops, None, Reason.LOOP


def _unfit(p: Packet, config: SlotConfig) -> Reason | None:
    if p.odd is not None:
        return Reason.UP_FRAGMENT if p.odd is Odd.FRAGMENT else Reason.UP_OPTIONS
    if p.version == 4 and config.version == 6 and p.checksum == 0:
        return Reason.UP_NO_CHECKSUM
    size = p.length + (config.version - p.version) * 10
    return Reason.UP_TOO_BIG if config.mtu and size > config.mtu else None


def _hear(slot: Slot, p: Packet, now: int) -> None:
    """RFC 3550 §6.4.1, A.1, A.3, A.8, in nanoseconds."""
    heard = slot.heard
    heard.last = now
    if not p.is_rtp:
        return
    payload_type, sequence, timestamp, ssrc = struct.unpack_from("!xBHII", p.rtp)
    ahead = (sequence - heard.sequence) & 0xFFFF
    follows = heard.payload_type & 128 and heard.ssrc == ssrc and (ahead + _DROPOUT) & 0xFFFF < 2 * _DROPOUT
    clock = dict(reversed(slot.config.clocks)).get(payload_type & 127, 0)
    ticks = tick(clock) if clock >= 954 else 0
    again = follows and ticks == heard.tick and timestamp == heard.timestamp
    if follows and ticks and ticks == heard.tick and not again:
        apart = (timestamp - heard.timestamp + 0x80000000 & 0xFFFFFFFF) - 0x80000000
        off = min(abs(now - heard.arrived - (apart * ticks >> 5)), _MOST)
        heard.jitter = min(heard.jitter + off - (heard.jitter + 8 >> 4), 0xFFFFFFFF)
    if not follows or ahead < _DROPOUT:
        heard.lost += ahead - 1 if follows else 0
        heard.sequence = sequence
    else:
        heard.lost -= 1
    heard.rtp += 1
    heard.tick, heard.ssrc, heard.timestamp = ticks, ssrc, timestamp
    if not again:  # a picture, or a digit that is pressed for long, came when its first packet did
        heard.arrived = now
    heard.payload_type = payload_type | 128
