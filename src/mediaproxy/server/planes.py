"""[shell] What forwards the media of a relay: the kernel if the host lets us, else user space, in C or in Python.

Settings and places come in, a plane goes out that has not started, with a line for the operator. Falling back is said
once, with what to do about it. A plane that an earlier process has left in the kernel is never fought against.
"""

import errno
import logging
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from mediaproxy import clock
from mediaproxy.relay.bpf import FastPathUnavailable
from mediaproxy.relay.flow import Flow, Plane, SlotCounters
from mediaproxy.relay.kernel.claims import clear
from mediaproxy.relay.kernel.harvest import Crop, counted, fetch, harvest, store
from mediaproxy.relay.kernel.pins import ForeignPinsError, Instance
from mediaproxy.relay.kernel.plane import KernelPlane
from mediaproxy.relay.native import NativePlane
from mediaproxy.relay.portmap import PortMap
from mediaproxy.relay.settings import RelaySettings
from mediaproxy.relay.userspace import UserPlane
from mediaproxy.server.places import Places, instance_name
from mediaproxy.server.starting import StartError, told

__all__ = ["Chosen", "FastPathUnavailable", "choose_plane", "instance_name", "release_kernel"]

log = logging.getLogger("mediaproxy.relay")


@dataclass(frozen=True, slots=True)
class Chosen:
    """A plane."""

    plane: Plane
    where: str
    "Where media is relayed, in words."
    why_not: str = ""
    "Why it is not in the kernel, although that was tried; else empty."
    crop: Crop = field(default_factory=list)
    "What an earlier process had the kernel forward, if it is not to go on there."

    def left(self) -> Iterable[tuple[Flow, SlotCounters]]:
        """The same in values, by the clock that calls go on with."""
        return counted(self.crop, clock.offset())

    def packets(self) -> dict[str, int]:
        """What became of packets to the relay's ports, by name; empty: the plane does not count that."""
        if not isinstance(self.plane, KernelPlane):
            return {}
        return {reason.name: count for reason, count in self.plane.totals().items() if count}


def choose_plane(settings: RelaySettings, places: Places) -> Chosen:
    """The plane that ``settings.plane`` asks for. StartError if it cannot be had, or if others have these ports."""
    chosen = _choose(settings, places)
    chosen.crop.extend(fetch(places.released))
    return chosen


def _choose(settings: RelaySettings, places: Places) -> Chosen:
    why_not = ""
    if settings.plane in ("auto", "kernel"):
        chosen = _kernel_or_why_not(settings, places)
        if isinstance(chosen, Chosen):
            return chosen
        why_not = chosen
        log.warning("media is relayed in user space, not in the kernel: %s", why_not)
    crop = _leave_kernel(settings, places)
    if settings.bpffs:
        with told("cannot relay media"):
            clear(Path(settings.bpffs), None, PortMap.of(settings))
    if settings.plane in ("auto", "native"):
        try:
            plane = NativePlane()
        except FastPathUnavailable as error:
            if settings.plane == "native":
                raise StartError(f"media cannot be relayed by threads in C: {error}") from error
            log.warning("media in user space goes through Python: %s", error)
            why_not = f"{why_not.splitlines()[0]}; and through Python: {error}"
        else:
            return Chosen(
                plane, f"in user space ({plane.threads} thread{'s' * (plane.threads != 1)} in C)", why_not, crop
            )
    return Chosen(UserPlane(), "in user space", why_not, crop)


def _kernel_or_why_not(settings: RelaySettings, places: Places) -> Chosen | str:
    try:
        return _kernel(settings, places)
    except FastPathUnavailable as error:
        if settings.plane == "kernel":
            raise StartError(f"media cannot be relayed in the kernel: {error} (mediaproxy doctor says more)") from error
        return str(error)
    except OSError as error:
        if settings.plane == "kernel" or error.errno == errno.EADDRINUSE:
            raise StartError(f"cannot relay media: {error.strerror or error}") from error
        return str(error)


def _kernel(settings: RelaySettings, places: Places) -> Chosen:
    bpffs = Path(settings.bpffs) if settings.bpffs else None
    plane = KernelPlane(settings, bpffs, instance_name(settings, places))
    if plane.why_not_lasting and settings.journal:
        log.warning("calls in the kernel end with this process: %s", plane.why_not_lasting)
    return Chosen(plane, f"in the kernel ({plane.hooks})")


def release_kernel(settings: RelaySettings, places: Places) -> int | None:
    """Take what a relay that is not running has left out of the kernel: from how many interfaces; None: there was
    nothing. What was counted is kept for the next start. FastPathUnavailable if it runs, or this user may not."""
    taken = _take_out(settings, places)
    if taken is None:
        return None
    if taken[1]:
        try:
            store(taken[1], places.released)
        except OSError as error:
            log.error(
                "%s: %s: what was counted since the relay's end is not in its records", places.released, error.strerror
            )
    return taken[0]


def _take_out(settings: RelaySettings, places: Places) -> tuple[int, Crop] | None:
    """The same, with the flows that were there."""
    if not settings.bpffs:
        return None
    instance = Instance.open(Path(settings.bpffs), instance_name(settings, places), make=False)
    if instance is None:
        return None
    count, crop = 0, []
    for pins in instance.sets():
        more, flows = harvest(pins)
        count += more
        crop += flows
    instance.close()
    return count, crop


def _leave_kernel(settings: RelaySettings, places: Places) -> Crop:
    """An earlier process had the kernel forward: its program would take our packets. What it has counted."""
    try:
        taken = _take_out(settings, places)
    except ForeignPinsError as error:
        log.error("streams of an earlier process stay in the kernel, and this one's calls do not hear them: %s", error)
    except FastPathUnavailable as error:
        raise StartError(f"an earlier process has left its streams in the kernel: {error}") from error
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM):
            raise StartError(f"an earlier process has left its streams in the kernel: {error.strerror}") from error
    else:
        if taken is not None:
            log.warning("the streams that an earlier process has left in the kernel are relayed in user space now")
            return taken[1]
    return []
