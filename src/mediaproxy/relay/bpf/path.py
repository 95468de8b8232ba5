"""The program and its maps as one thing in the kernel: made, pinned, adopted, looked at, released.

How many slots there are comes in; mapped tables go out that are read and written without system calls. What is pinned
outlives the process; ``adopt`` finds it again, and refuses maps of another layout. Who may adopt what (boot, network
namespace, lock) is for the caller to decide.
"""

import mmap
import os
import socket
import struct
from collections.abc import Mapping
from pathlib import Path

from mediaproxy.relay.bpf import syscalls
from mediaproxy.relay.bpf.objects import FastPathUnavailable, create_maps, load_object, load_programs, unavailable
from mediaproxy.relay.portmap import HEARTBEAT, Control, PortMap, known_ports
from mediaproxy.relay.slots import (
    CONTROL,
    COUNTERS,
    REASONS,
    SLOT,
    TOTALS,
    CounterTable,
    Reason,
    SlotTable,
    layout_hash,
)

_ZERO = bytes(4)
_PRIVATE = ("scratch",)
"Maps of one loaded program: another version's has its own."
_POSSIBLE = Path("/sys/devices/system/cpu/possible")


class KernelPath:
    """The program in the kernel. Attaching it is another thing (bpf/attach.py)."""

    def __init__(self, maps: Mapping[str, int], programs: Mapping[str, int], slots: int) -> None:
        """Takes the descriptors over. Made by ``create`` and ``adopt``."""
        self.maps = dict(maps)
        "Name -> descriptor."
        self.programs = dict(programs)
        "Section -> descriptor: ``tc/ethernet``, ``tc/plain``, ``sk_lookup``, and ``xdp`` once it is loaded."
        self._mapped = [
            _mapped(self.maps["slots"], slots * SLOT.size, writable=True),
            _mapped(self.maps["counters"], slots * COUNTERS.size, writable=False),
            _mapped(self.maps["control"], CONTROL.size, writable=True),
        ]
        views = [memoryview(mapped) for mapped in self._mapped]
        self.slots = SlotTable(views[0][: slots * SLOT.size])
        "The slots: written here, read by the program."
        self.counters = CounterTable(views[1][: slots * COUNTERS.size])
        "Their counters: written by the program."
        self._control = views[2]
        self._heartbeat = views[2][HEARTBEAT : HEARTBEAT + 8].cast("Q")
        self._views = views
        self._cpus = _cpus()

    @classmethod
    def create(cls, control: Control) -> "KernelPath":
        """New maps for these ports, the program loaded on them; attached nowhere yet. FastPathUnavailable if the
        kernel refuses."""
        _cpus()
        wanted = load_object()
        maps = create_maps(wanted, control.ports.slots)
        try:
            programs = load_programs(wanted, maps)
        except FastPathUnavailable:
            _close(maps)
            raise
        path = cls(maps, programs, control.ports.slots)
        path.set_control(control)
        return path

    @classmethod
    def adopt(cls, folder: Path) -> tuple["KernelPath", PortMap]:
        """The maps that ``pin`` left there, with this version's program loaded on them, and the ports they are for.

        The old program goes on until ``Attachment.replace``. FastPathUnavailable if something is missing or of another
        layout: then nothing was changed.
        """
        wanted = load_object()
        maps: dict[str, int] = {}
        programs: dict[str, int] = {}
        try:
            for name in wanted.maps:
                if name not in _PRIVATE:
                    maps[name] = syscalls.get(str(folder / name))
            control = syscalls.map_lookup(maps["control"], _ZERO, CONTROL.size)
            layout, ports = known_ports(control)
            if layout != layout_hash():
                raise FastPathUnavailable(f"the maps pinned in {folder}", "they are of another version")
            maps |= create_maps(wanted, ports.slots, _PRIVATE)
            programs = load_programs(wanted, maps)
        except OSError as error:
            _close(maps)
            raise unavailable(f"the maps pinned in {folder}", error) from error
        except FastPathUnavailable:
            _close(maps)
            raise
        return cls(maps, programs, ports.slots), ports

    # -- what holds for all slots

    def set_control(self, control: Control) -> None:
        """Write the control value. Only before the program is attached, or with the same ports."""
        self._control[: CONTROL.size] = control.encode()

    def seed(self, counters: bytes) -> None:
        """Let all slots count on from these counters. Only before the program is attached."""
        with _mapped(self.maps["counters"], len(counters), writable=True) as mapped:
            mapped[: len(counters)] = counters

    def beat(self, now: int) -> None:
        """The relay is alive. ``now``: CLOCK_MONOTONIC in nanoseconds (time.monotonic_ns)."""
        self._heartbeat[0] = now

    def set_socket(self, version: int, sock: socket.socket) -> None:
        """The bound UDP socket that gets what is passed up to the addresses of an IP version. It leaves when closed."""
        key, value = struct.pack("=I", version == 6), struct.pack("=Q", sock.fileno())
        try:
            syscalls.map_update(self.maps["sockets"], key, value)
        except OSError as error:
            raise unavailable("the receiving socket", error) from error

    def totals(self) -> dict[Reason, int]:
        """What became of packets, by reason, since the maps were made."""
        data = syscalls.map_lookup(self.maps["totals"], _ZERO, TOTALS.size * self._cpus)
        sums = [0] * REASONS
        for at in range(0, len(data), TOTALS.size):
            for number, value in enumerate(struct.unpack_from(f"={REASONS}Q", data, at)):
                sums[number] += value
        return {reason: sums[reason] for reason in Reason}

    def load_xdp(self) -> int:
        """The program for native XDP; its descriptor. FastPathUnavailable below Linux 5.18."""
        if "xdp" not in self.programs:
            self.programs |= load_programs(load_object(), self.maps, ("xdp",))
        return self.programs["xdp"]

    # -- life

    def pin(self, folder: Path) -> None:
        """Let the maps outlive the process: a pin for each in a folder of a BPF filesystem. OSError says why not."""
        for name, fd in self.maps.items():
            if name not in _PRIVATE:
                syscalls.pin(fd, str(folder / name))

    def close(self) -> None:
        """Let go. What is neither pinned nor attached vanishes."""
        self.slots.release()
        self.counters.release()
        self._heartbeat.release()
        for view in self._views:
            view.release()
        for mapped in self._mapped:
            mapped.close()
        _close(self.maps)
        _close(self.programs)


def _cpus() -> int:
    """How many values a per-CPU map has. FastPathUnavailable: a guess would let the kernel write beyond our memory."""
    try:
        return possible_cpus(_POSSIBLE.read_text())
    except (OSError, ValueError) as error:
        raise FastPathUnavailable(
            "per-CPU maps", f"{_POSSIBLE} cannot be read: mount /sys; read-only is enough for that"
        ) from error


def _close(descriptors: dict[str, int]) -> None:
    for fd in descriptors.values():
        os.close(fd)
    descriptors.clear()


def _mapped(fd: int, size: int, *, writable: bool) -> mmap.mmap:
    size += -size % mmap.PAGESIZE
    protection = mmap.PROT_READ | mmap.PROT_WRITE if writable else mmap.PROT_READ
    return mmap.mmap(fd, size, mmap.MAP_SHARED, protection)


def possible_cpus(text: str) -> int:
    """How many values a per-CPU map has: the last number of ``/sys/devices/system/cpu/possible`` (``0-3,8``) plus 1."""
    return int(text.replace(",", "-").split("-")[-1]) + 1
