"""The layout of the maps that the relay shares with the kernel program, and how their values are read and written.

A SlotConfig goes in, the bytes of one slot come out; the counters' bytes go in, numbers come out. ``relay.bpf.h`` says
the same in C; ``LAYOUT`` is compared with the program's BTF at every load. The tables work on any buffer: on a mapped
BPF array, or on bytes in a test. This file must never let the program see half of a configuration (calls.md 12).
"""

import hashlib
import ipaddress
import struct
from array import array
from collections.abc import Iterable
from enum import IntEnum, IntFlag
from functools import lru_cache
from itertools import compress
from operator import eq
from typing import NamedTuple

import msgspec

from mediaproxy.endpoint import Endpoint

PREFIXES, CLOCKS, ADDRESSES, REASONS = 4, 11, 8, 32
"How many of each fit: allowed prefixes and RTP clocks of a slot, addresses of a relay, drop reasons."
TICK = 32
"Ticks are nanoseconds per RTP timestamp unit times this."


class State(IntEnum):
    """What the program does with a slot."""

    FREE = 0
    "Not lent: everything is dropped silently, unless another program has a socket there."
    DEAF = 1
    "Lent, nobody is expected (a port that cools): passed up at the rate of strangers, never forwarded."
    LEARNING = 2
    "What comes from allowed sources is passed up."
    LEARNED = 3
    "What comes from the source is forwarded."


class Flag(IntFlag):
    """Of a configuration."""

    V6 = 1
    "The slot's own address is IPv6."
    TARGET = 2
    "The target is known."
    TOS = 4
    "The DSCP of what leaves from here is that of ``tos``."
    ANY = 8
    "Every source is allowed."
    SETTLED = 16
    "Only calls.md 6 may move the source."
    OWN = 32
    "The target is an address and port of this relay."
    RTP_ONLY = 64
    "What is no RTP of the source is passed up."
    XDP = 128
    "XDP may send what leaves from here."


class Reason(IntEnum):
    """What became of a packet to a port of the relay; each is counted once. The comments are in relay.bpf.h."""

    FORWARDED = 0
    UP = 1
    UP_FRAGMENT = 2
    UP_OPTIONS = 3
    UP_TOO_BIG = 4
    UP_NO_CHECKSUM = 5
    UP_CHANGED = 6
    UP_NO_ROOM = 7
    FRAGMENT = 8
    VLAN = 9
    NOT_LENT = 10
    NO_PROCESS = 11
    REFUSED = 12
    FLOOD = 13
    UNDELIVERABLE = 14
    TTL = 15
    LOOP = 16
    MALFORMED = 17
    NO_CHECKSUM = 18
    OTHERS = 19


class Record:
    """A C struct: its fields in order, each with the format of the struct module."""

    def __init__(self, name: str, **fields: str) -> None:
        self.name = name
        self.struct = struct.Struct("=" + "".join(fields.values()))
        self.names = tuple(fields)
        self.offsets: dict[str, tuple[int, int]] = {}
        "Field -> (offset, size), in bytes."
        at = 0
        for field, format_ in fields.items():
            size = struct.calcsize("=" + format_)
            self.offsets[field] = (at, size)
            at += size
        self.size = at
        self._formats = fields

    def part(self, names: Iterable[str]) -> struct.Struct:
        """Some of the fields, in their order: what reads only these."""
        wanted = set(names)
        parts = [
            format_ if name in wanted else f"{struct.calcsize('=' + format_)}x"
            for name, format_ in self._formats.items()
        ]
        return struct.Struct("=" + "".join(parts))


CONFIG = Record(
    "config", source="16s", target="16s", peer="I", peer_generation="I", ifindex="I", source_port="2s",
    target_port="2s", mtu="H", address="B", tos="B", flags="B", via="B", spare="2s", gateway="16s", allowed="64s",
    bits="4s", clocks="44s",
)  # fmt: skip
SLOT = Record("slot", word="Q", copies=f"{2 * CONFIG.size}s", spare="8s")
COUNTERS = Record(
    "counters", packets="Q", bytes="Q", last="Q", arrived="Q", rtp="I", lost="i", jitter="I", tick="I", ssrc="I",
    timestamp="I", sequence="H", payload_type="B", change="B", generation="I", undeliverable="Q", dropped="Q",
    passed="Q", ranked="Q", strangers="Q", undeliverable_bytes="Q", spare="16s",
)  # fmt: skip
CONTROL = Record(
    "control", heartbeat="Q", alive="Q", layout="Q", silence="Q", ahead="I", port_min="H", ports="H", ranked="8s",
    strangers="8s", spray="8s", count="I", retiring="I", addresses=f"{ADDRESSES * 16}s",
)  # fmt: skip
TOTALS = Record("totals", reasons=f"{8 * REASONS}s", strangers="Q", which="Q")

LAYOUT = {record.name: record for record in (CONFIG, SLOT, COUNTERS, CONTROL, TOTALS)}
"The structs by name, to be compared with BTF."
NAMES: dict[str, type[IntEnum] | type[IntFlag]] = {"state": State, "flag": Flag, "reason": Reason}
"The enums by name, likewise."


def layout_hash() -> int:
    """64 bits that change whenever a value of these maps would be read otherwise: kept in the control map."""
    text = repr([(r.name, r.offsets) for r in LAYOUT.values()]) + repr([(n, list(e)) for n, e in NAMES.items()])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")


# -- values


class SlotConfig(msgspec.Struct, frozen=True, kw_only=True):
    """One configuration of a slot. Indexes are those of slots (``Places``) and of the relay's addresses."""

    address: int = 0
    "Which own address it belongs to: the source of what leaves from here."
    version: int = 4
    "4 or 6: of the own address, and so of source and target."
    source: Endpoint | None = None
    "The learned source: only with State.LEARNED."
    target: Endpoint | None = None
    "Where what leaves from here is sent, as the host's routing must see it: an own address is the one bound."
    ifindex: int = 0
    "Interface towards the target; that of lo for an address of this host."
    gateway: str | None = None
    "The neighbour on that interface that takes it: a router, or the target itself. None: the kernel looks for it."
    mtu: int = 0
    "Longest IP packet on that interface; longer ones are passed up. 0: not checked."
    peer: int = 0
    "Index of the slot that faces the other party."
    peer_generation: int = 0
    "Its generation; 0: no peer."
    tos: int | None = None
    "TOS or traffic class whose DSCP is set on what leaves from here, 0 to 255; None: kept. ECN is always kept."
    allowed: tuple[str, ...] | None = None
    "At most 4 prefixes (CIDR) whose packets may change a decision; None: all."
    settled: bool = False
    "Only calls.md 6 may move the source: allowed packets that cannot are treated like a stranger's."
    own: bool = False
    "The target is a port of this relay."
    rtp_only: bool = False
    "Of the source only RTP is forwarded; the rest of it is passed up."
    xdp: bool = False
    "The interface towards the target has the XDP program."
    clocks: tuple[tuple[int, int], ...] = ()
    "RTP payload type and clock rate in Hz, the likeliest first; at most 11 count, and rates from 954 Hz."


@lru_cache(maxsize=65536)
def packed(address: str) -> bytes:
    """16 bytes in network order; IPv4 as ::ffff:a.b.c.d."""
    ip = ipaddress.ip_address(address)
    return ip.packed if ip.version == 6 else bytes(10) + b"\xff\xff" + ip.packed


@lru_cache(maxsize=65536)
def unpacked(data: bytes) -> str:
    """The address of 16 bytes."""
    return str(ipaddress.ip_address(data[12:] if data[:12] == bytes(10) + b"\xff\xff" else data))


@lru_cache(maxsize=65536)
def prefix(text: str) -> tuple[bytes, int]:
    """Network address and length of a CIDR prefix, as the program compares them: IPv4 mapped, its length plus 96."""
    network = ipaddress.ip_network(text, strict=False)
    return packed(str(network.network_address)), network.prefixlen + (96 if network.version == 4 else 0)


@lru_cache(maxsize=65536)
def _allowed(prefixes: tuple[str, ...] | None) -> tuple[bool, bytes, bytes]:
    """Whether every source is allowed; else the networks and their lengths."""
    found = [prefix(text) for text in prefixes or ()]
    if prefixes is None or len(found) > PREFIXES or any(bits in (0, 96) for _, bits in found):
        return True, b"", b""
    return False, b"".join(network for network, _ in found), bytes(bits for _, bits in found)


@lru_cache(maxsize=4096)
def _clocks(clocks: tuple[tuple[int, int], ...]) -> bytes:
    words = [tick(rate) << 7 | number for number, rate in clocks if 0 <= number < 128 and rate >= 954][:CLOCKS]
    return struct.pack(f"={CLOCKS}I", *words, *[0] * (CLOCKS - len(words)))


_BITS = tuple(map(int, (Flag.V6, Flag.TARGET, Flag.TOS, Flag.ANY, Flag.SETTLED, Flag.OWN, Flag.RTP_ONLY, Flag.XDP)))
"Plain numbers: arithmetic with members of an enum costs more than all else here."


def encode(config: SlotConfig) -> bytes:
    """The bytes of one copy of a slot's configuration."""
    unlimited, networks, lengths = _allowed(config.allowed)
    six, target, tos = config.version == 6, config.target is not None, config.tos is not None
    on = (six, target, tos, unlimited, config.settled, config.own, config.rtp_only, config.xdp)
    flags = sum(compress(_BITS, on))
    return CONFIG.struct.pack(
        packed(config.source.address) if config.source else b"",
        packed(config.target.address) if config.target else b"",
        config.peer,
        config.peer_generation & 0xFFFFFFFF,
        config.ifindex,
        (config.source.port if config.source else 0).to_bytes(2, "big"),
        (config.target.port if config.target else 0).to_bytes(2, "big"),
        config.mtu,
        config.address,
        config.tos or 0,
        flags,
        0 if config.gateway is None else 6 if ":" in config.gateway else 4,
        b"",
        packed(config.gateway) if config.gateway is not None else b"",
        networks,
        lengths,
        _clocks(config.clocks),
    )


def tick(rate: int) -> int:
    """Nanoseconds per timestamp unit of a clock rate in Hz, times 32."""
    return round(1_000_000_000 * TICK / rate)


class Word(NamedTuple):
    """The word of a slot: stored in one piece, so that the program sees all of a change or nothing."""

    generation: int
    copy: int
    state: State
    change: int

    @classmethod
    def of(cls, word: int) -> "Word":
        return cls(word & 0xFFFFFFFF, word >> 32 & 1, State(word >> 40 & 0xFF), word >> 48)

    def __int__(self) -> int:
        return self.generation & 0xFFFFFFFF | self.copy << 32 | self.state << 40 | (self.change & 0xFFFF) << 48


class SlotTable:
    """The map ``slots``. One writer at a time."""

    def __init__(self, buffer: memoryview) -> None:
        """``buffer``: writable, a multiple of SLOT.size."""
        self._bytes = buffer.cast("B")
        self._words = self._bytes.cast("Q")

    def __len__(self) -> int:
        return len(self._bytes) // SLOT.size

    def word(self, index: int) -> Word:
        """The word of a slot."""
        return Word.of(self._words[index * SLOT.size // 8])

    def store(self, index: int, generation: int, state: State, config: SlotConfig) -> None:
        """Change a slot: the idle copy is written, then one store makes it the active one."""
        self.store_bytes(index, generation, state, encode(config))

    def store_bytes(self, index: int, generation: int, state: State, config: bytes) -> None:
        """The same with bytes of ``encode``."""
        # As Word does it, in plain numbers: for each change of a flow.
        place = index * SLOT.size
        old = self._words[place // 8]
        copy = 1 - (old >> 32 & 1)
        at = place + 8 + copy * CONFIG.size
        self._bytes[at : at + CONFIG.size] = config
        change = (old >> 48) + 1 & 0xFFFF
        self._words[place // 8] = generation & 0xFFFFFFFF | copy << 32 | int(state) << 40 | change << 48

    def free(self, index: int) -> None:
        """Take the port back: from now on its packets are dropped silently."""
        old = self.word(index)
        self._words[index * SLOT.size // 8] = int(Word(old.generation, old.copy, State.FREE, old.change + 1))

    def config_bytes(self, index: int) -> bytes:
        """The active copy."""
        at = index * SLOT.size + 8 + self.word(index).copy * CONFIG.size
        return bytes(self._bytes[at : at + CONFIG.size])

    def release(self) -> None:
        """Let go of the buffer, so that it can be unmapped."""
        self._words.release()
        self._bytes.release()


class CounterTable:
    """The map ``counters``. Only the program writes it."""

    def __init__(self, buffer: memoryview) -> None:
        """``buffer``: a multiple of COUNTERS.size."""
        self._bytes = buffer.cast("B")
        self._columns = {code: self._bytes.cast(code) for code in ("Q", "I", "i", "H", "B")}

    def __len__(self) -> int:
        return len(self._bytes) // COUNTERS.size

    def read(self, index: int) -> dict[str, int]:
        """All counters of one slot by name. They are those of ``generation``, 0 if nothing has come since."""
        values = COUNTERS.struct.unpack_from(self._bytes, index * COUNTERS.size)
        return dict(zip(COUNTERS.names[:-1], values, strict=False))

    def brief(self, index: int) -> tuple[int, ...]:
        """Those of ``BRIEF``, in its order: quicker."""
        return _BRIEF.unpack_from(self._bytes, index * COUNTERS.size)

    def column(self, name: str, slots: slice = slice(None)) -> list[int]:
        """One counter of all slots, or of a slice of them: 40 000 take about a millisecond."""
        code = _CODES[name]
        at, size = COUNTERS.offsets[name]
        step = COUNTERS.size // size
        return self._columns[code][at // size :: step][slots].tolist()

    def columns(self, names: Iterable[str], slots: slice = slice(None)) -> tuple["array[int]", ...]:
        """Counters of all slots, or of a slice of them, each as an array, from one copy of the table: a third of the
        time that lists of numbers take."""
        size = COUNTERS.size
        first, last, _ = slots.indices(len(self))
        copies: dict[str, array[int]] = {}
        found = []
        for name in names:
            code = _CODES[name]
            if code not in copies:
                copies[code] = array(code)
                copies[code].frombytes(self._bytes[first * size : last * size])
            at, width = COUNTERS.offsets[name]
            found.append(copies[code][at // width :: size // width])
        return tuple(found)

    def sums(self, generations: "array[int]") -> dict[str, int]:
        """The sums of ``SUMMED`` over slots whose counters are of these generations, one each from slot 0 on; 0: none.
        40 000 take five milliseconds: so many at a time as the processor's cache holds."""
        total = [0] * len(SUMMED)
        for first in range(0, len(generations), _PIECE):
            piece = slice(first, first + _PIECE)
            *columns, whose = self.columns((*SUMMED, "generation"), piece)
            wanted = generations[piece]
            ours = None if whose == wanted else list(map(eq, whose, wanted))
            for number, column in enumerate(columns):
                if column != _NOTHING[: len(column)]:  # quicker than to sum up zeros
                    total[number] += sum(column if ours is None else compress(column, ours))
        return dict(zip(SUMMED, total, strict=True))

    def release(self) -> None:
        """Let go of the buffer, so that it can be unmapped."""
        for column in self._columns.values():
            column.release()
        self._bytes.release()


SUMMED = ("packets", "bytes", "undeliverable", "dropped")
"Counters that only grow."
_PIECE = 4096
"Slots."
_NOTHING = array("Q", bytes(8 * _PIECE))
BRIEF = (
    "packets", "bytes", "last", "rtp", "lost", "jitter", "tick", "ssrc", "sequence", "payload_type", "generation",
    "undeliverable", "dropped", "undeliverable_bytes",
)  # fmt: skip
"What a relay looks at all the time, in the order of the struct."
_BRIEF = COUNTERS.part(BRIEF)


def brief(data: bytes) -> tuple[int, ...]:
    """Those of ``BRIEF`` out of the bytes of one slot's counters."""
    return _BRIEF.unpack(data)


_CODES = {name: {8: "Q", 4: "I", 2: "H", 1: "B"}[size] for name, (_, size) in COUNTERS.offsets.items() if size <= 8}
_CODES["lost"] = "i"
