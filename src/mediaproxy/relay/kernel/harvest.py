"""What an earlier process has left in the kernel, taken out of it for a plane in user space: flows and their counters.

A set of pins comes in and is gone afterwards; what was counted until then goes out, so that no packet is forgotten.
"""

import contextlib
import os
import sys
from collections.abc import Iterable
from pathlib import Path

import msgspec

from mediaproxy.relay.bpf import FastPathUnavailable
from mediaproxy.relay.flow import Flow, SlotCounters
from mediaproxy.relay.kernel.hooks import release
from mediaproxy.relay.kernel.legacy import Legacy
from mediaproxy.relay.kernel.pins import PinSet, boot_id, namespace_id
from mediaproxy.relay.kernel.translation import counters_of
from mediaproxy.relay.slots import BRIEF

Crop = list[tuple[Flow, tuple[int, ...]]]
"Flows, and their counters as BRIEF says."


class _Barn(msgspec.Struct, frozen=True, kw_only=True):
    """A crop between two processes."""

    boot: str
    names: tuple[str, ...]
    crop: Crop


def store(crop: Crop, path: Path) -> None:
    """Keep a crop for the relay that starts next. OSError."""
    data = msgspec.msgpack.encode(_Barn(boot=boot_id(), names=BRIEF, crop=crop))
    path.unlink(missing_ok=True)  # the directory may be another user's: root must not write where a link of his leads
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "wb") as file:
        owner = path.parent.stat()
        if os.geteuid() == 0 != owner.st_uid:
            os.fchown(fd, owner.st_uid, owner.st_gid)
        file.write(data)


def fetch(path: Path) -> Crop:
    """What ``store`` has kept, and it is there no more; nothing if it is of another boot or version."""
    try:
        barn = msgspec.msgpack.decode(path.read_bytes(), type=_Barn)
        path.unlink()
    except FileNotFoundError:
        return []
    except (OSError, msgspec.MsgspecError):
        with contextlib.suppress(OSError):
            path.unlink()
        return []
    return barn.crop if (barn.boot, barn.names) == (boot_id(), BRIEF) else []


def harvest(pins: PinSet) -> tuple[int, Crop]:
    """Take all out of the kernel as ``release`` does: how many programs, and what they had; nothing if it cannot be
    read."""
    facts, legacy = pins.facts(), None
    if facts is not None and (facts.boot, facts.namespace) == (boot_id(), namespace_id()):
        with contextlib.suppress(FastPathUnavailable):
            legacy = Legacy(pins, facts)
    count = release(pins)
    if legacy is None:
        return count, []
    try:  # the maps are there until they are let go of, and nobody counts any more
        return count, [(flow, _brief(legacy, index)) for index, flow in legacy.flows()]
    finally:
        legacy.close()


def _brief(legacy: Legacy, index: int) -> tuple[int, ...]:
    fields = legacy.counters(index)
    return tuple(int.from_bytes(fields.get(name, b""), sys.byteorder, signed=name == "lost") for name in BRIEF)


def counted(crop: Crop, offset: float) -> Iterable[tuple[Flow, SlotCounters]]:
    """The same in values. ``offset`` as of ``counters_of``."""
    return [(flow, counters_of(flow.local, flow.generation, values, offset)) for flow, values in crop]
