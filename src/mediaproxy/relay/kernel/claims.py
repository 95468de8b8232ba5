"""Ports that other relays on this host have in the kernel: their programs take every packet to these.

Ports come in; OSError says that a running relay has some of them. What a dead one has left there is cleaned away.
"""

import errno
import logging
from pathlib import Path

from mediaproxy.relay.bpf import FastPathUnavailable
from mediaproxy.relay.kernel.hooks import release
from mediaproxy.relay.kernel.legacy import Legacy
from mediaproxy.relay.kernel.pins import Instance, PinSet, instances, namespace_id, safe
from mediaproxy.relay.portmap import PortMap

log = logging.getLogger("mediaproxy.relay")


def clear(bpffs: Path, own: Path | None, ports: PortMap) -> None:
    """See to it that no other relay of this network namespace has any of these ports in the kernel. ``own``: the folder
    of this relay's pins, which do not count."""
    for folder in instances(bpffs):
        if folder == own:
            continue
        if not folder.name.endswith(f"-{safe(namespace_id())}"):
            _sweep(folder)
            continue
        taken = [pins for pins in _sets(folder) if _overlap(pins, ports)]
        if not taken:
            continue
        try:
            instance = Instance.lock(folder)
        except OSError:
            raise OSError(
                errno.EADDRINUSE,
                f"ports of {ports.port_min} to {ports.port_min + ports.ports - 1} belong to another relay that runs on "
                f"this host (pins in {folder}): set relay.port_min and relay.port_max, or relay.addresses",
            ) from None
        for pins in taken:
            release(pins)
        instance.close()
        log.warning("%s: a relay that does not run any more had the same ports: its streams have ended", folder)


def _sweep(folder: Path) -> None:
    """Remove what is left of relays whose network namespace is gone, a container's that has been replaced."""
    try:
        pins = _sets(folder)
        if pins and all(one.orphaned for one in pins):
            instance = Instance.lock(folder)
            for one in pins:
                one.remove()
            instance.close()
    except OSError:
        pass  # another user's, or somebody has just taken it


def _sets(folder: Path) -> list[PinSet]:
    return [PinSet(path) for path in folder.iterdir() if path.is_dir()]


def _overlap(pins: PinSet, ports: PortMap) -> bool:
    facts = pins.facts()
    if facts is None:
        return False
    try:
        legacy = Legacy(pins, facts)
    except FastPathUnavailable:
        return False
    theirs = legacy.ports
    legacy.close()
    return theirs.overlaps(ports)
