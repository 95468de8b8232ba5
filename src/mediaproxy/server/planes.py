"""[shell] What forwards the media of a relay: the kernel if the host lets us, else user space, in C or in Python.

Settings and places come in, a plane goes out that has not started, with a line for the operator. Falling back is said
once, with what to do about it. A plane that an earlier process has left in the kernel is never fought against.
"""

import errno
import hashlib
import logging
from dataclasses import dataclass
from pathlib import Path

from mediaproxy.relay.bpf import FastPathUnavailable
from mediaproxy.relay.flow import Plane
from mediaproxy.relay.kernel.claims import clear
from mediaproxy.relay.kernel.hooks import release
from mediaproxy.relay.kernel.pins import Instance
from mediaproxy.relay.kernel.plane import KernelPlane
from mediaproxy.relay.native import NativePlane
from mediaproxy.relay.portmap import PortMap
from mediaproxy.relay.settings import RelaySettings
from mediaproxy.relay.userspace import UserPlane
from mediaproxy.server.places import Places
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

    def packets(self) -> dict[str, int]:
        """What became of packets to the relay's ports, by name; empty: the plane does not count that."""
        if not isinstance(self.plane, KernelPlane):
            return {}
        return {reason.name: count for reason, count in self.plane.totals().items() if count}


def choose_plane(settings: RelaySettings, places: Places) -> Chosen:
    """The plane that ``settings.plane`` asks for. StartError if it cannot be had, or if others have these ports."""
    why_not = ""
    if settings.plane in ("auto", "kernel"):
        try:
            return _kernel(settings, places)
        except FastPathUnavailable as error:
            if settings.plane == "kernel":
                raise StartError(
                    f"media cannot be relayed in the kernel: {error} (mediaproxy doctor says more)"
                ) from error
            why_not = str(error)
            log.warning("media is relayed in user space, not in the kernel: %s", why_not)
        except OSError as error:
            raise StartError(f"cannot relay media: {error.strerror or error}") from error
    _leave_kernel(settings, places)
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
            return Chosen(plane, f"in user space ({plane.threads} threads in C)", why_not)
    return Chosen(UserPlane(), "in user space", why_not)


def _kernel(settings: RelaySettings, places: Places) -> Chosen:
    bpffs = Path(settings.bpffs) if settings.bpffs else None
    plane = KernelPlane(settings, bpffs, instance_name(settings, places))
    if plane.why_not_lasting and settings.journal:
        log.warning("calls in the kernel end with this process: %s", plane.why_not_lasting)
    return Chosen(plane, f"in the kernel ({plane.hooks})")


def instance_name(settings: RelaySettings, places: Places) -> str:
    """What the folder of a relay's pins is called: as configured, else after ``state_dir``, where its journal is."""
    if settings.instance:
        return settings.instance
    where = places.state_dir.absolute()
    return f"{where.name or 'mediaproxy'}-{hashlib.sha256(str(where).encode()).hexdigest()[:8]}"


def release_kernel(settings: RelaySettings, places: Places) -> int | None:
    """Take what a relay that is not running has left out of the kernel: from how many interfaces; None: there was
    nothing. FastPathUnavailable if it runs, or this user may not."""
    if not settings.bpffs:
        return None
    instance = Instance.open(Path(settings.bpffs), instance_name(settings, places), make=False)
    if instance is None:
        return None
    count = sum(release(pins) for pins in instance.sets())
    instance.close()
    return count


def _leave_kernel(settings: RelaySettings, places: Places) -> None:
    """An earlier process had the kernel forward: its program would take our packets."""
    try:
        released = release_kernel(settings, places)
    except FastPathUnavailable as error:
        raise StartError(f"an earlier process has left its streams in the kernel: {error}") from error
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM):
            raise StartError(f"an earlier process has left its streams in the kernel: {error.strerror}") from error
    else:
        if released is not None:
            log.warning("the streams that an earlier process has left in the kernel are relayed in user space now")
