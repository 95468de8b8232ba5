"""How a bank of slots comes to be: new, taken over from an earlier process, or converted from another version's maps.

A control value and an instance's folder come in, a Bank goes out whose hooks are in place as far as an earlier process
had them. Taking over and converting lose no packet of a learned stream: slots are complete before the program that
reads them replaces the one before it.
"""

import time
import zlib
from collections.abc import Iterable

from msgspec.structs import replace

from mediaproxy.relay.bpf import FastPathUnavailable, KernelPath
from mediaproxy.relay.bpf.objects import unavailable
from mediaproxy.relay.flow import Flow
from mediaproxy.relay.kernel.bank import Bank, Lent
from mediaproxy.relay.kernel.hooks import Hooks
from mediaproxy.relay.kernel.legacy import Legacy
from mediaproxy.relay.kernel.pins import Facts, Instance, PinSet, boot_id, namespace_id
from mediaproxy.relay.kernel.selftest import try_out
from mediaproxy.relay.kernel.translation import routed
from mediaproxy.relay.kernel.ways import Ways
from mediaproxy.relay.portmap import Control, PortMap

_PRIORITIES = range(49152, 65536)
"Of clsact filters: behind those of other programs."


class Founder:
    """Makes the banks of one relay."""

    def __init__(self, control: Control, instance: Instance | None, ways: Ways, name: str) -> None:
        """``control``: of the ports that the relay has now. ``instance``: None if nothing is to be pinned. ``name``:
        tells the relay's clsact filters from those of others on this host."""
        self._control = control
        self._instance = instance
        self._ways = ways
        self._handle = zlib.crc32(name.encode()) % 0x7FFFFFFF + 1
        left = [pins.facts() for pins in (instance.sets() if instance is not None else ())]
        self._taken = {hung.priority for facts in left if facts is not None for hung in facts.filters}

    def _hooks(self, kernel: KernelPath, pins: PinSet | None, facts: Facts | None = None) -> Hooks:
        """Those of a bank. ``facts``: of the one whose place it takes. A later bank's filters run after those of
        earlier ones, whose calls they do not know."""
        for hung in facts.filters if facts is not None else ():
            return Hooks(kernel, pins, hung.priority, hung.handle)
        latest = max(self._taken, default=0)
        number = next((number for number in _PRIORITIES if number > latest), _PRIORITIES[0])
        self._taken.add(number)
        return Hooks(kernel, pins, number, self._handle)

    def new(self, older: Iterable[Bank]) -> Bank:
        """An empty bank for the relay's ports; ``older`` ones may have some of them. FastPathUnavailable."""
        crowded = any(bank.ports.overlaps(self._control.ports) for bank in older)
        control = replace(self._control, heartbeat=time.monotonic_ns(), retiring=crowded)
        kernel = KernelPath.create(control)
        try:
            try_out(kernel, control)
            return self._pinned(Bank(kernel, control, self._hooks(kernel, None), None))
        except FastPathUnavailable:
            kernel.close()
            raise

    def _pinned(self, bank: Bank) -> Bank:
        """The bank with its pins, if it is to have any."""
        if self._instance is None:
            return bank
        try:
            bank.pins = self._instance.new_set()
            bank.kernel.pin(bank.pins.folder)
            bank.hooks.pin(bank.pins)
            bank.write_facts()
            self._instance.finish(bank.pins)
        except OSError as error:
            raise unavailable("pins", error) from error
        return bank

    # -- what is there already

    def revive(self, pins: PinSet, newer: Iterable[Bank]) -> Bank | None:
        """The bank that an earlier process has left, with its flows lent; None: one of the ``newer`` ones has taken its
        place. FastPathUnavailable if it is of no use; then nothing has changed."""
        facts = pins.facts()
        what = f"the maps pinned in {pins.folder}"
        if facts is None:
            raise FastPathUnavailable(what, "nothing is known of them")
        if (facts.boot, facts.namespace) != (boot_id(), namespace_id()):
            raise FastPathUnavailable(what, "they are of another boot or network namespace")
        legacy = Legacy(pins, facts)
        try:
            key, wanted = _key(legacy.ports), self._control.ports
            if any(_key(bank.ports) == key for bank in newer):
                pins.remove()
                return None
            same_ports = key == _key(wanted)
            ports = wanted if same_ports else legacy.ports
            crowded = not same_ports or any(bank.ports.overlaps(ports) for bank in newer)
            control = replace(self._control, ports=ports, heartbeat=time.monotonic_ns(), retiring=crowded)
            revive = self._take_over if legacy.same else self._convert
            bank = revive(pins, facts, legacy, control)
            bank.retiring = not same_ports
            bank.revived = True
            return bank
        finally:
            legacy.close()

    def _take_over(self, pins: PinSet, facts: Facts, legacy: Legacy, control: Control) -> Bank:
        kernel, _ = KernelPath.adopt(pins.folder)
        kernel.set_control(control)
        hooks = self._hooks(kernel, pins, facts)
        hooks.take_over(pins, facts, self._ways.links)
        bank = Bank(kernel, control, hooks, pins)
        for index, flow in legacy.flows():
            self._lend(bank, index, flow)
        return bank

    def _convert(self, pins: PinSet, facts: Facts, legacy: Legacy, control: Control) -> Bank:
        kernel = KernelPath.create(control)
        bank = Bank(kernel, control, self._hooks(kernel, None, facts), None)
        try:
            try_out(kernel, control)
            for index, flow in legacy.flows():
                bank.store(self._lend(bank, index, flow))
            before = legacy.snapshot()  # from here on it must go quickly
            kernel.seed(legacy.converted(before))
            bank.hooks.take_over(pins, facts, self._ways.links)
            self._pinned(bank)
        except OSError as error:
            kernel.close()
            raise unavailable("converting an earlier version's maps", error) from error
        except FastPathUnavailable:
            kernel.close()
            raise
        pins.remove()
        more = legacy.grown(before, legacy.snapshot())  # the old program counts no more
        bank.missed = {index: more[index] for index in more.keys() & bank.lent.keys()}
        return bank

    def _lend(self, bank: Bank, index: int, flow: Flow) -> Lent:
        lent = bank.lend(index, flow)
        lent.settled = flow.settled_at is not None
        lent.way = self._ways.find(flow.local, routed(flow, bank.ports))
        return lent


def _key(ports: PortMap) -> tuple[object, ...]:
    """What two maps must agree in: advertised addresses are no matter."""
    return tuple(bind for bind, _ in ports.addresses), ports.port_min, ports.ports
