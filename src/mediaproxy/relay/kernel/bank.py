"""A bank of slots: maps for some ports, the program on them, its hooks in the network, its pins, who has which slot.

Flows come in and are in the kernel afterwards; counters come out, many at a time without a system call. Most relays
have one bank. One whose ports were other ones before has the old bank besides, until its calls have ended.
"""

import time
from array import array
from collections.abc import Iterable, Iterator
from itertools import compress
from operator import gt, ne

from msgspec.structs import replace

from mediaproxy.relay.bpf import KernelPath
from mediaproxy.relay.flow import Carried, Flow, SlotCounters
from mediaproxy.relay.kernel.hooks import Hooks
from mediaproxy.relay.kernel.netlink import Way
from mediaproxy.relay.kernel.pins import Facts, PinSet, boot_id, namespace_id, own_layout
from mediaproxy.relay.kernel.translation import config_of, counters_of, state_of
from mediaproxy.relay.portmap import Control
from mediaproxy.relay.slots import SUMMED

_LONG = 400
"Bytes of UDP payload: no way is too narrow for less, and speech has less."


class Lent:
    """Mutable: one lent port."""

    __slots__ = ("bank", "flow", "index", "settled", "way")

    def __init__(self, bank: "Bank", index: int, flow: Flow) -> None:
        self.bank = bank
        self.index = index
        self.flow = flow
        self.settled = False
        "Whether the program was told that the source is settled."
        self.way: Way | None = None
        "How what leaves from here leaves the host."


class Bank:
    """Mutable: one set of maps."""

    def __init__(self, kernel: KernelPath, control: Control, hooks: Hooks, pins: PinSet | None) -> None:
        """``control``: what the program was told."""
        self.kernel = kernel
        self.ports = control.ports
        self.retiring = False
        "No port is lent any more: the relay has other ones."
        self._control = control
        self.hooks = hooks
        self.pins = pins
        "None: what is here ends with this process."
        self.revived = False
        "An earlier process has made it, or what it was made of."
        self.lent: dict[int, Lent] = {}
        "By slot."
        self._whose = array("I", bytes(4 * len(kernel.counters)))
        "The generation of each slot that is lent; 0: it is not."
        self._before = Carried()
        "By flows that have gone, less what adopted ones had carried before."
        self.missed: dict[int, tuple[int, dict[str, int]]] = {}
        "Slot -> generation, and what the maps before these have counted after they were copied."
        self._seen: tuple[list[int], list[int]] = ([], [])
        "The columns that show that something has come, at the last sweep."

    # -- slots

    def lend(self, index: int, flow: Flow) -> Lent:
        """A slot is a flow's from now on."""
        lent = self.lent[index] = Lent(self, index, flow)
        self._whose[index] = flow.generation & 0xFFFFFFFF
        return lent

    def adopt(self, lent: Lent, offset: float) -> SlotCounters:
        """An earlier process has lent it: its counters, as of ``read``. What they say is not carried by us."""
        counters = self.read(lent, offset)
        self._before -= Carried.of(counters)
        return counters

    def store(self, lent: Lent) -> None:
        """Tell the program what a lent port's flow is now."""
        flow = lent.flow
        config = config_of(flow, self.ports, lent.way, settled=lent.settled)
        self.kernel.slots.store(lent.index, flow.generation, state_of(flow, self.ports), config)

    def free(self, lent: Lent) -> None:
        """Take a port back."""
        self.kernel.slots.free(lent.index)
        self._before += Carried.of(self.read(lent, 0.0))
        self._whose[lent.index] = 0
        del self.lent[lent.index]
        self.missed.pop(lent.index, None)

    # -- counters

    def read(self, lent: Lent, offset: float) -> SlotCounters:
        """The counters of a lent port as they are now. ``offset`` as of ``counters_of``."""
        flow = lent.flow
        counters = counters_of(flow.local, flow.generation, self.kernel.counters.brief(lent.index), offset)
        missed = self.missed.get(lent.index)
        if missed is not None and missed[0] == flow.generation & 0xFFFFFFFF:
            for name, value in missed[1].items():
                setattr(counters, name, getattr(counters, name) + value)
        return counters

    def sweep(self, offset: float) -> Iterator[SlotCounters]:
        """The counters of the lent ports that something has come to since the last sweep."""
        column = self.kernel.counters.column
        seen, self._seen = self._seen, (column("last"), column("dropped"))
        news = self._seen
        if not seen[0]:
            seen = ([0] * len(news[0]), [0] * len(news[1]))
        if news == seen:
            return
        slots = range(len(news[0]))
        changed = set(compress(slots, map(ne, news[0], seen[0])))
        changed |= set(compress(slots, map(ne, news[1], seen[1])))
        brief, lents, missed = self.kernel.counters.brief, self.lent, self.missed
        for index in sorted(changed):
            lent = lents.get(index)
            if lent is None:
                continue
            flow = lent.flow
            if missed:
                yield self.read(lent, offset)
            else:
                yield counters_of(flow.local, flow.generation, brief(index), offset)

    def long(self, slots: range) -> list[Lent]:
        """The lent ports among these slots whose packets are long on average: a way may be too narrow for them."""
        octets, packets = self.kernel.counters.columns(("bytes", "packets"), slice(slots.start, slots.stop))
        found = compress(slots, map(gt, octets, map(_LONG.__mul__, packets)))
        return [self.lent[index] for index in found if index in self.lent]

    def carried(self) -> Carried:
        """What ``read`` says of all ports that are or were lent, together."""
        total = self._before + Carried(**self.kernel.counters.sums(self._whose))
        for index, (generation, missed) in self.missed.items():
            if self._whose[index] == generation:
                total += Carried(**{name: missed[name] for name in SUMMED})
        return total

    # -- life

    def facts(self) -> Facts:
        """What the next process must know of our pins."""
        return Facts(boot=boot_id(), namespace=namespace_id(), layout=own_layout(), filters=self.hooks.filters)

    def write_facts(self) -> None:
        """Tell it. OSError."""
        if self.pins is not None:
            self.pins.write(self.facts())

    def share(self, others: Iterable["Bank"]) -> None:
        """Tell the program whether ports that are not lent here may be lent in other banks: then these have the say."""
        crowded = self.retiring or any(self.ports.overlaps(bank.ports) for bank in others)
        if crowded != self._control.retiring:
            self._control = replace(self._control, retiring=crowded, heartbeat=time.monotonic_ns())
            self.kernel.set_control(self._control)

    def beat(self) -> None:
        """The process lives."""
        self.kernel.beat(time.monotonic_ns())

    def release(self) -> None:
        """Take everything out of the kernel."""
        self.hooks.detach()
        if self.pins is not None:
            self.pins.remove()
        self.kernel.close()

    def keep(self) -> None:
        """Let go; what is pinned goes on without us, but nothing is passed up to nobody."""
        self.kernel.beat(0)
        self.hooks.close()
        self.kernel.close()
