"""A kernel plane that can be killed and started again, for tests: pins in a BPF filesystem of their own."""

import os
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mediaproxy.endpoint import Endpoint
from mediaproxy.relay.bpf import syscalls
from mediaproxy.relay.bpf.path import possible_cpus
from mediaproxy.relay.flow import Flow, Packet, SlotCounters
from mediaproxy.relay.kernel.hooks import release
from mediaproxy.relay.kernel.pins import Instance, instances, mount_bpffs
from mediaproxy.relay.kernel.plane import KernelPlane
from mediaproxy.relay.settings import RelaySettings
from mediaproxy.relay.slots import REASONS, TOTALS, Reason
from tests.planebench import kernel_settings


@contextmanager
def bpf_filesystem(folder: Path) -> Iterator[Path]:
    """A BPF filesystem, with nothing left in it afterwards."""
    path = folder / "bpf"
    mount_bpffs(path)
    try:
        yield path
    finally:
        for left in instances(path):
            with suppress(OSError):
                instance = Instance.lock(left)
                for pins in instance.sets():
                    release(pins)
                instance.close()
        subprocess.run(["umount", str(path)], check=True)


def pinned_totals(folder: Path) -> dict[Reason, int]:
    """What became of the packets to a relay's ports, read from its pins in ``bpf`` of a folder."""
    (path,) = folder.glob("bpf/mediaproxy/*/*/totals")
    cpus = possible_cpus(Path("/sys/devices/system/cpu/possible").read_text())
    fd = syscalls.get(str(path))
    data = syscalls.map_lookup(fd, bytes(4), TOTALS.size * cpus)
    os.close(fd)
    values = [struct.unpack_from(f"={REASONS}Q", data, TOTALS.size * number) for number in range(cpus)]
    return {reason: sum(one[reason] for one in values) for reason in Reason}


class House:
    """Mutable: one relay's plane, process after process."""

    def __init__(self, bpffs: Path, name: str = "test", settings: RelaySettings | None = None) -> None:
        self.bpffs = bpffs
        self.name = name
        self.settings = settings or kernel_settings()
        self.passed: list[Packet] = []
        self.adopted: dict[Endpoint, tuple[Flow, SlotCounters]] = {}
        self.plane = self._open()

    def _open(self) -> KernelPlane:
        plane = KernelPlane(self.settings, self.bpffs, self.name)
        plane.start(self.passed.append)
        self.adopted = {flow.local: (flow, counters) for flow, counters in plane.adopt()}
        return plane

    def kill(self) -> None:
        """The process is gone: all it had open is closed, nothing is tidied up."""
        plane, estate = self.plane, self.plane._estate
        for handle in (plane._timer, plane._router):
            if handle is not None:
                handle.cancel()
        if plane._changes is not None:
            plane._changes.close()
        plane._receiver.close()
        plane._sender.close()
        for bank in estate.banks:
            bank.hooks.close()
            bank.kernel.close()
        estate._netlink.close()
        assert estate._instance is not None
        os.close(estate._instance._lock)

    def again(self, settings: RelaySettings | None = None) -> None:
        """The next process starts."""
        self.settings = settings or self.settings
        self.plane = self._open()
