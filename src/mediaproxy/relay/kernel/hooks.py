"""Where one set of maps has its programs in the network: at the ingress of interfaces, and in the socket lookup.

Interfaces come in; programs hang there afterwards, and stay for the next process if they are pinned. A hook that an
earlier process has left is taken over without a packet passing it by. Which interfaces, is for the plane to say.
"""

import contextlib
import logging
import os

from mediaproxy.relay.bpf import (
    Attachment,
    FastPathUnavailable,
    Interface,
    KernelPath,
    adopt,
    attach,
    attach_lookup,
    attach_xdp,
    syscalls,
)
from mediaproxy.relay.bpf.rtnetlink import Filter
from mediaproxy.relay.kernel.netlink import Link
from mediaproxy.relay.kernel.pins import Facts, Hung, Kind, PinSet

log = logging.getLogger("mediaproxy.relay")

Where = tuple[Kind, int]
"Which program, and at which interface."


class Hooks:
    """Mutable: the hooks of one KernelPath."""

    def __init__(self, kernel: KernelPath, pins: PinSet | None, priority: int, handle: int) -> None:
        """``priority`` and ``handle``: of clsact filters; nobody else on this host has both."""
        self._kernel = kernel
        self._pins = pins
        self._priority, self._handle = priority, handle
        self._attached: dict[Where, Attachment] = {}
        self._failed: set[Where] = set()
        self._lookup = -1

    @property
    def attached(self) -> dict[str, list[int]]:
        """``tcx``, ``clsact`` and ``xdp``, as far as there is one, and the interfaces."""
        found: dict[str, list[int]] = {}
        for (_, index), attachment in self._attached.items():
            found.setdefault(attachment.hook, []).append(index)
        return found

    def has(self, ifindex: int) -> bool:
        """Whether the program that every interface gets was hung there."""
        return ("tc", ifindex) in self._attached

    @property
    def filters(self) -> tuple[Hung, ...]:
        """The clsact filters, for Facts."""
        hung = [attachment.filter for attachment in self._attached.values() if attachment.filter is not None]
        return tuple(Hung(one.ifindex, one.priority, one.handle) for one in hung)

    # -- taking over

    def take_over(self, pins: PinSet, facts: Facts, links: dict[int, Link]) -> None:
        """Put our programs in the place of those of an earlier process. What is gone or of no use is cleaned away."""
        for kind, index in pins.hooks():
            if index not in links or not self._take_over_link(links[index], pins, kind):
                pins.unpin(pins.hook(kind, index).name)
        for hung in facts.filters:
            if hung.ifindex in links:
                where = _interface(links[hung.ifindex])
                attachment = Attachment(where, "clsact", filter=Filter(hung.ifindex, hung.priority, hung.handle))
                self._try("tc", attachment)
        try:
            self._lookup = syscalls.get(str(pins.lookup))
            syscalls.link_update(self._lookup, self._kernel.programs["sk_lookup"])
        except OSError:
            self._close_lookup()
            pins.unpin(pins.lookup.name)

    def _take_over_link(self, link: Link, pins: PinSet, kind: Kind) -> bool:
        try:
            attachment = adopt(_interface(link), pins.hook(kind, link.index), "xdp" if kind == "xdp" else "tcx")
        except FastPathUnavailable:
            return False
        return self._try(kind, attachment)

    def _try(self, kind: Kind, attachment: Attachment) -> bool:
        where = attachment.interface
        try:
            attachment.replace(self._program(kind, where))
        except (OSError, FastPathUnavailable) as error:
            log.warning("the program on %s cannot be replaced: %s", where.name, error)
            attachment.close()
            return False
        self._attached[kind, where.index] = attachment
        return True

    def _program(self, kind: Kind, where: Interface) -> int:
        return self._kernel.load_xdp() if kind == "xdp" else self._kernel.programs[where.section]

    # -- hanging

    def listen(self) -> None:
        """Let what is passed up come to the receiving sockets. FastPathUnavailable."""
        if self._lookup < 0:
            self._lookup = attach_lookup(self._kernel.programs["sk_lookup"])
            if self._pins is not None:
                syscalls.pin(self._lookup, str(self._pins.lookup))

    def attach(self, link: Link, kind: Kind = "tc") -> bool:
        """Hang a program at an interface, unless it does already. True: that is news. FastPathUnavailable the first
        time that it cannot be."""
        key = (kind, link.index)
        if key in self._attached or key in self._failed:
            return False
        where = _interface(link)
        try:
            program = self._program(kind, where)
            if kind == "xdp":
                attachment = attach_xdp(where, program)
            else:
                attachment = attach(where, program, priority=self._priority, handle=self._handle)
        except FastPathUnavailable:
            self._failed.add(key)
            raise
        self._attached[key] = attachment
        if self._pins is not None:
            attachment.pin(self._pins.hook(*key))
        return True

    def forget(self, present: set[int]) -> bool:
        """Drop what hung at interfaces that are gone, or hangs there no more. True: something did."""
        self._failed = {key for key in self._failed if key[1] in present}
        return self._drop([key for key, one in self._attached.items() if key[1] not in present or not one.hangs])

    def lost(self, index: int) -> bool:
        """The same for one interface that is there."""
        return self._drop([key for key, one in self._attached.items() if key[1] == index and not one.hangs])

    def _drop(self, gone: list[Where]) -> bool:
        for key in gone:
            self._attached.pop(key).close()
            if self._pins is not None:
                self._pins.unpin(self._pins.hook(*key).name)
        return bool(gone)

    def pin(self, pins: PinSet) -> None:
        """Pin everything in another place. OSError."""
        self._pins = pins
        for key, attachment in self._attached.items():
            attachment.pin(pins.hook(*key))
        if self._lookup >= 0:
            syscalls.pin(self._lookup, str(pins.lookup))

    # -- the end

    def detach(self) -> None:
        """Take everything away, pinned or not."""
        for attachment in self._attached.values():
            with contextlib.suppress(OSError):
                attachment.detach()
        self._attached.clear()
        if self._lookup >= 0:
            with contextlib.suppress(OSError):
                syscalls.link_detach(self._lookup)
        self._close_lookup()

    def close(self) -> None:
        """Let go of what is pinned."""
        for attachment in self._attached.values():
            attachment.close()
        self._attached.clear()
        self._close_lookup()

    def _close_lookup(self) -> None:
        if self._lookup >= 0:
            os.close(self._lookup)
            self._lookup = -1


def release(pins: PinSet) -> int:
    """Detach everything that a set of pins holds, whatever its version, and remove the pins: how many programs."""
    facts = pins.facts()
    count = 0
    for kind, index in pins.hooks():
        count += _detach(pins.hook(kind, index).name, pins)
    _detach(pins.lookup.name, pins)
    for hung in facts.filters if facts is not None else ():
        where = Interface(hung.ifindex, "", ethernet=True)
        with contextlib.suppress(OSError):
            Attachment(where, "clsact", filter=Filter(hung.ifindex, hung.priority, hung.handle)).detach()
            count += 1
    pins.remove()
    return count


def _detach(name: str, pins: PinSet) -> bool:
    with contextlib.suppress(OSError):
        fd = syscalls.get(str(pins.folder / name))
        try:
            syscalls.link_detach(fd)
            return True
        finally:
            os.close(fd)
    return False


def _interface(link: Link) -> Interface:
    return Interface(link.index, link.name, link.ethernet)
