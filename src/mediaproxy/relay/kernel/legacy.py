"""What an earlier process has left in its maps, read by the layout that it described, which may not be this version's.

Pins and their facts come in; flows and counters go out. Nothing is changed: the earlier process's program goes on. What
cannot be read raises FastPathUnavailable, and is never guessed.
"""

import mmap
import os
import struct
import sys
from collections.abc import Iterator, Mapping
from operator import sub

from mediaproxy.relay.bpf import FastPathUnavailable, syscalls
from mediaproxy.relay.flow import Flow
from mediaproxy.relay.kernel.pins import Facts, PinSet, Shape, own_layout
from mediaproxy.relay.kernel.translation import flow_of
from mediaproxy.relay.portmap import PortMap
from mediaproxy.relay.slots import (
    ADDRESSES,
    COUNTERS,
    SLOT,
    SUMMED,
    CounterTable,
    State,
    Word,
    layout_hash,
    unpacked,
)

_MAPS = ("slots", "counters", "control")
_MAP_INFO = struct.Struct("=IIIII")
"struct bpf_map_info: type, id, key_size, value_size, max_entries."
_GROWING = ("generation", "ssrc", *SUMMED, "undeliverable_bytes", "rtp", "lost")
"Counters that only grow, and whose they are."
_MEANING = 1
"Of the fields, that this version knows (Facts.meaning)."


class Legacy:
    """The maps of an earlier process, opened."""

    def __init__(self, pins: PinSet, facts: Facts) -> None:
        """FastPathUnavailable if they cannot be read."""
        self._layout = facts.layout
        self._fds: dict[str, int] = {}
        self._mapped: dict[str, mmap.mmap] = {}
        self._what = f"the maps pinned in {pins.folder}"
        try:
            if facts.meaning != _MEANING:
                raise KeyError("meaning")
            for name in _MAPS:
                self._open(pins, name)
            self.ports = self._read_ports()
            "The ports that they are for; advertised addresses are those bound."
            self.same = facts.layout == own_layout() and self._read_hash() == layout_hash()
            "Everything in them is what it is in this version: names of states and reasons, too."
            self._shape("config", "source", "target", "peer", "peer_generation", "source_port", "target_port", "flags")
        except OSError as error:
            self.close()
            raise FastPathUnavailable(self._what, f"{error.strerror}") from error
        except (KeyError, ValueError, struct.error) as error:
            self.close()
            raise FastPathUnavailable(self._what, "they are of a version that this one cannot read") from error

    def _open(self, pins: PinSet, name: str) -> None:
        self._fds[name] = syscalls.get(str(pins.folder / name))
        _, _, _, size, entries = _MAP_INFO.unpack_from(syscalls.info(self._fds[name]))
        if size != self._layout[_RECORDS[name]].size:
            raise ValueError(name)
        length = size * entries + -(size * entries) % mmap.PAGESIZE
        self._mapped[name] = mmap.mmap(self._fds[name], length, mmap.MAP_SHARED, mmap.PROT_READ)

    def _shape(self, record: str, *fields: str) -> Shape:
        """A record that has these fields. KeyError."""
        shape = self._layout[record]
        for field in fields:
            shape.fields[field]
        return shape

    def _read_ports(self) -> PortMap:
        shape = self._shape("control", "addresses", "count", "port_min", "ports")
        values = _fields(shape, self._mapped["control"], 0)
        addresses = [
            unpacked(values["addresses"][16 * n : 16 * n + 16]) for n in range(min(_int(values["count"]), ADDRESSES))
        ]
        return PortMap(
            addresses=tuple((address, address) for address in addresses),
            port_min=_int(values["port_min"]),
            ports=_int(values["ports"]),
        )

    def _read_hash(self) -> int:
        return _int(_fields(self._shape("control", "layout"), self._mapped["control"], 0)["layout"])

    def flows(self) -> Iterator[tuple[int, Flow]]:
        """All lent ports: slot and flow."""
        slot, config = self._layout["slot"], self._layout["config"]
        mapped = self._mapped["slots"]
        at_word, at_copies = slot.fields["word"][0], slot.fields["copies"][0]
        for index in range(self.ports.slots):
            at = index * slot.size
            (number,) = struct.unpack_from("=Q", mapped, at + at_word)
            if not number:
                continue
            word = Word.of(number)
            if word.state is not State.FREE:
                active = _fields(config, mapped, at + at_copies + word.copy * config.size)
                yield index, flow_of(self.ports.endpoint(index), word, active, self.ports)

    def counters(self, index: int) -> Mapping[str, bytes]:
        """The counters of a slot by name, as bytes."""
        shape = self._layout["counters"]
        return _fields(shape, self._mapped["counters"], index * shape.size)

    def snapshot(self) -> bytes:
        """The counters of all slots as they are now."""
        return self._mapped["counters"][: self.ports.slots * self._layout["counters"].size]

    def converted(self, snapshot: bytes) -> bytes:
        """A snapshot in this version's layout; what the other one does not count is 0. Milliseconds, for meanwhile
        its program counts on."""
        found = bytearray(self.ports.slots * COUNTERS.size)
        theirs = self._layout["counters"]
        for name, (to, size) in COUNTERS.offsets.items():
            at, width = theirs.fields.get(name, (0, 0))
            for byte in range(size if size == width else 0):
                found[to + byte :: COUNTERS.size] = snapshot[at + byte :: theirs.size]
        return bytes(found)

    def grown(self, before: bytes, after: bytes) -> dict[int, tuple[int, dict[str, int]]]:
        """What came between two snapshots, of which only the first was ``converted``: slot -> generation, and what is
        to be added to the new counters. These take what came for lost, by the sequence numbers."""
        old, new = CounterTable(memoryview(self.converted(before))), CounterTable(memoryview(self.converted(after)))
        found = {}
        rows = (zip(*table.columns(_GROWING), strict=True) for table in (old, new))
        for index, ((generation, ssrc, *was), (same, still, *now)) in enumerate(zip(*rows, strict=True)):
            if was == now or generation != same:
                continue
            more = dict(zip(_GROWING[2:], map(sub, now, was), strict=True))
            if ssrc == still:
                more["lost"] = -more["rtp"]
            found[index] = generation, more
        return found

    def close(self) -> None:
        """Let go."""
        for mapped in self._mapped.values():
            mapped.close()
        for fd in self._fds.values():
            os.close(fd)
        self._mapped.clear()
        self._fds.clear()


_RECORDS = {"slots": SLOT.name, "counters": "counters", "control": "control"}
"Map -> struct of its values."


def _fields(shape: Shape, data: mmap.mmap, at: int) -> Mapping[str, bytes]:
    return {name: data[at + offset : at + offset + size] for name, (offset, size) in shape.fields.items()}


def _int(data: bytes) -> int:
    return int.from_bytes(data, sys.byteorder)
