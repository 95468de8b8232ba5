"""Where the programs hang: the ingress of interfaces (TCX or clsact) and the socket lookup of a network namespace.

A program's descriptor and an interface come in, an Attachment goes out that can be pinned, given another program and
taken away again. TCX (Linux 6.6) is a link: without a pin it vanishes with the process. A clsact filter below that
stays until it is removed, so it has a priority of our own, and removing it leaves other people's filters.
"""

import contextlib
import errno
import os
import socket
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mediaproxy.relay.bpf import rtnetlink, syscalls
from mediaproxy.relay.bpf.objects import FastPathUnavailable, unavailable

Hook = Literal["tcx", "clsact", "xdp"]
_ETHERNET, _LOOPBACK = 1, 772
"ARPHRD_ETHER and ARPHRD_LOOPBACK: interfaces whose packets begin with an Ethernet header."


@dataclass(slots=True)
class Interface:
    """A network interface of this namespace."""

    index: int
    name: str
    ethernet: bool
    "Packets begin with an Ethernet header; else with the IP header (tunnels)."

    @property
    def section(self) -> str:
        """The program that it gets."""
        return "tc/ethernet" if self.ethernet else "tc/plain"


def interface(name: str) -> Interface:
    """An interface by its name. FastPathUnavailable if there is none."""
    try:
        index = socket.if_nametoindex(name)
    except OSError as error:
        raise FastPathUnavailable(f"interface {name}", "there is none of that name") from error
    return Interface(index, name, rtnetlink.link_type(index) in (_ETHERNET, _LOOPBACK))


@dataclass(slots=True)
class Attachment:
    """A program at the ingress of one interface."""

    interface: Interface
    hook: Hook
    link: int = -1
    "Descriptor of the link: TCX or XDP."
    filter: rtnetlink.Filter | None = None
    "The clsact filter."

    @property
    def hangs(self) -> bool:
        """It is still there: its interface may have gone, or somebody else may have taken it away."""
        if self.filter is not None:
            return rtnetlink.has_filter(self.filter)
        return self.link >= 0 and link_interface(self.link) == self.interface.index

    def replace(self, program: int, name: str = "mediaproxy") -> None:
        """Put another program in its place; no packet is missed."""
        if self.filter is None:
            syscalls.link_update(self.link, program)
        else:
            rtnetlink.set_filter(self.filter, program, name)

    def pin(self, path: Path) -> None:
        """Let a link outlive the process. A clsact filter does so anyway."""
        if self.filter is None:
            syscalls.pin(self.link, str(path))

    def detach(self) -> None:
        """Take it away; no packet passes through it any more. A second time does nothing."""
        if self.filter is not None:
            rtnetlink.remove_filter(self.filter)
            return
        if self.link < 0:
            return
        with contextlib.suppress(OSError):  # the interface may be gone, and the link with it
            syscalls.link_detach(self.link)
        self.close()

    def close(self) -> None:
        """Let go without detaching: what is pinned, and clsact, stays."""
        if self.link >= 0:
            os.close(self.link)
            self.link = -1


def attach(
    where: Interface, program: int, *, hook: Hook | None = None, priority: int = 0, handle: int = 1
) -> Attachment:
    """Put a program at the ingress of an interface: TCX, or clsact where the kernel has no TCX.

    ``hook`` asks for one of them. ``priority`` of the clsact filter, 1 to 65535; 0: derived from the process, so that
    several relays of one ``handle`` do not remove each other's. FastPathUnavailable says why neither is possible.
    """
    if hook != "clsact":
        try:
            return Attachment(where, "tcx", syscalls.link_create(program, where.index, syscalls.TCX_INGRESS))
        except OSError as error:
            if hook == "tcx" or error.errno not in (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOTSUP):
                raise unavailable(f"TCX on {where.name}", error) from error
    try:
        filter_ = rtnetlink.Filter(where.index, priority or 49152 | os.getpid() & 0x3FFF, handle)
        rtnetlink.add_clsact(where.index)
        rtnetlink.set_filter(filter_, program, "mediaproxy")
    except OSError as error:
        raise unavailable(f"clsact on {where.name}", error) from error
    return Attachment(where, "clsact", filter=filter_)


def attach_xdp(where: Interface, program: int, *, virtual: bool = False) -> Attachment:
    """Put the XDP program into the driver of a network card, in addition to the other one.

    FastPathUnavailable if the driver cannot do that, or the interface is no hardware: on virtual ones checksums may be
    left out, and XDP would send the packet so. ``virtual``: do it all the same.
    """
    try:
        if not virtual and not rtnetlink.is_hardware(where.index):
            raise FastPathUnavailable(f"XDP on {where.name}", "it is a virtual interface, where XDP damages checksums")
        link = syscalls.link_create(program, where.index, syscalls.XDP, syscalls.XDP_NATIVE)
    except OSError as error:
        raise unavailable(f"native XDP on {where.name}", error) from error
    return Attachment(where, "xdp", link)


def adopt(where: Interface, path: Path, hook: Hook = "tcx") -> Attachment:
    """A link that an earlier process pinned. FastPathUnavailable if it is not there, or of another interface."""
    try:
        link = syscalls.get(str(path))
    except OSError as error:
        raise unavailable(f"the link pinned at {path}", error) from error
    attached = link_interface(link)
    if attached != where.index:
        os.close(link)
        raise FastPathUnavailable(f"the link pinned at {path}", f"it belongs to another interface ({attached})")
    return Attachment(where, hook, link)


def link_interface(link: int) -> int:
    """The index of the interface that a link is attached to; 0 if that is gone."""
    # struct bpf_link_info: type, id, prog_id, (a union of 8-byte alignment:) tcx.ifindex or xdp.ifindex
    return int(struct.unpack_from("=I", syscalls.info(link), 16)[0])


def attach_lookup(program: int, namespace: Path = Path("/proc/self/ns/net")) -> int:
    """Attach the socket lookup to a network namespace: the link's descriptor; closing it detaches, unless pinned."""
    fd = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return syscalls.link_create(program, fd, syscalls.SK_LOOKUP)
    except OSError as error:
        raise unavailable("the socket lookup", error) from error
    finally:
        os.close(fd)
