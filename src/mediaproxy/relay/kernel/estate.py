"""All that one relay has in the kernel: banks of slots with their hooks, and the locked folder of their pins.

Settings come in; banks go out, that of the relay's present ports first. What an earlier process has left is taken over,
converted or given up here; interfaces that appear later get their hooks. Nothing here knows packets or calls.
"""

import logging
import socket
import time
from collections.abc import Mapping
from pathlib import Path

from mediaproxy.relay.bpf import FastPathUnavailable
from mediaproxy.relay.flow import Carried
from mediaproxy.relay.kernel.bank import Bank
from mediaproxy.relay.kernel.claims import clear
from mediaproxy.relay.kernel.founding import Founder
from mediaproxy.relay.kernel.hooks import release
from mediaproxy.relay.kernel.interfaces import wanted
from mediaproxy.relay.kernel.netlink import Link, Netlink
from mediaproxy.relay.kernel.pins import ForeignPinsError, Instance, PinSet
from mediaproxy.relay.kernel.probe import unreachable
from mediaproxy.relay.kernel.ways import Ways
from mediaproxy.relay.portmap import Control, PortMap
from mediaproxy.relay.settings import RelaySettings

log = logging.getLogger("mediaproxy.relay")

_REST = 1.0
"Seconds between two looks at whether a program still hangs where packets of learned streams come up."


class Estate:
    """Mutable: what is in the kernel."""

    def __init__(
        self, settings: RelaySettings, bpffs: Path | None, name: str, sockets: Mapping[int, socket.socket]
    ) -> None:
        """``sockets``: who gets what is passed up, by IP version. FastPathUnavailable says what this host lacks; what
        an earlier process has left goes on then. OSError if another relay has these ports."""
        self.banks: list[Bank] = []
        self.carried = Carried()
        "By banks that are there no more."
        "That of the relay's ports first, then those that an earlier process had besides."
        self.why_not_lasting = ""
        "Why streams end with this process although they should not."
        self._settings = settings
        self._sockets = sockets
        self._instance: Instance | None = None
        self._left: list[PinSet] = []
        "Pins of an earlier process that could not be taken over."
        self._look_at = 0.0
        self._netlink = Netlink()
        self.ways = Ways(self._netlink)
        try:
            self._open(bpffs, name)
            self.attach(first=True)
            self._try()
        except BaseException:
            self._abandon()
            raise

    def _open(self, bpffs: Path | None, name: str) -> None:
        settings, ports = self._settings, PortMap.of(self._settings)
        if bpffs is not None:
            try:
                self._instance = Instance.open(bpffs, name)
            except ForeignPinsError:
                raise
            except FastPathUnavailable as error:
                self.why_not_lasting = error.needs
            clear(bpffs, self._instance.folder if self._instance else None, ports)
        control = Control(ports=ports, silence=settings.rebind_silence, ahead=settings.rebind_sequence)
        founder = Founder(control, self._instance, self.ways, name)
        for pins in reversed(self._instance.sets() if self._instance else []):
            try:
                bank = founder.revive(pins, self.banks)
            except FastPathUnavailable as error:
                log.warning("%s", error)
                self._left.append(pins)
            else:
                self._add(bank)
        if all(bank.retiring for bank in self.banks):
            self._add(founder.new(self.banks))
        self.banks.sort(key=lambda bank: bank.retiring)

    def _add(self, bank: Bank | None) -> None:
        if bank is None:
            return
        self.banks.append(bank)
        for version, sock in self._sockets.items():
            bank.kernel.set_socket(version, sock)
        bank.hooks.listen()

    def _try(self) -> None:
        for address in unreachable(self.banks[0], self._sockets):
            log.warning(
                "packets to ports of %s do not reach this relay: another relay's program takes them before (let its "
                "user run `mediaproxy relay --release`), or a firewall",
                address,
            )

    @property
    def lasting(self) -> bool:
        """Whether streams outlive this process."""
        return self._instance is not None

    @property
    def hooks(self) -> str:
        """Where the programs hang, in words: ``TCX on eth0, lo``."""
        links, words = self.ways.links, []
        for kind, indexes in sorted(self.banks[0].hooks.attached.items()):
            names = sorted(links[index].name for index in indexes if index in links)
            words.append(f"{_KINDS[kind]} on {', '.join(names)}")
        return "; ".join(words)

    # -- interfaces

    def attach(self, *, first: bool = False) -> None:
        """Hang the programs at all interfaces that matter now. ``first``: FastPathUnavailable if one cannot be had;
        later that is logged, and its packets take the way through user space. OSError if there is no knowing."""
        links = self.ways.links
        addresses = [address.bind for address in self._settings.addresses]
        must, may = wanted(links, self._netlink.carriers, addresses, self._settings.interfaces)
        if first:
            self._name_missing()
        for bank in self.banks:
            news = bank.hooks.forget(set(links))
            for link in must.values():
                news |= _attach(bank, link, strict=first)
            for link in may.values():
                news |= _attach(bank, link, strict=False)
            for link in links.values():
                if link.name in self._settings.xdp:
                    news |= _attach_xdp(bank, link)
            if news:
                bank.write_facts()
        self.ways.let_xdp(self.banks[0].hooks.attached.get("xdp", ()))

    def _name_missing(self) -> None:
        """Interfaces may come later, and they may be misspelt."""
        there = {link.name for link in self.ways.links.values()}
        for setting in ("interfaces", "xdp"):
            for name in getattr(self._settings, setting):
                if name not in there:
                    log.warning("relay.%s: this host has no interface %s (now)", setting, name)

    def covers(self, ifindex: int) -> bool:
        """Whether the program hangs at an interface, as far as we know."""
        return self.banks[0].hooks.has(ifindex)

    def attach_at(self, ifindex: int) -> None:
        """Packets come in by that interface: hang the programs there, too, unless the operator has named those that
        matter. Many a host has its address at one interface and phones at another. If they hung there
        already somebody has taken them away, as who sets up an interface's qdiscs anew does."""
        link = self.ways.links.get(ifindex)
        if link is None:
            return
        now, lost = time.monotonic(), False
        if now >= self._look_at:
            self._look_at = now + _REST
            lost = any([bank.hooks.lost(ifindex) for bank in self.banks])
        if lost:
            log.warning("%s: somebody has taken our program away; it is attached again", link.name)
        elif self._settings.interfaces:
            return
        for bank in self.banks:
            news = _attach(bank, link, strict=False) | lost
            if lost and link.name in self._settings.xdp:
                news |= _attach_xdp(bank, link)
            if news:
                bank.write_facts()

    # -- the end

    def give_up_left(self) -> None:
        """Detach what could not be taken over: its calls have been installed anew by now, or are over."""
        for pins in self._left:
            release(pins)
        self._left.clear()

    def tidy(self) -> None:
        """Let go of banks that are of no use any more."""
        for bank in self.banks[1:]:
            if not bank.lent:
                self.carried += bank.carried()
                bank.release()
                self.banks.remove(bank)
                self.banks[0].share(self.banks[1:])

    def close(self, *, keep: bool) -> None:
        """Take everything out of the kernel. ``keep``: but what is pinned, if a port is lent. A second call does
        nothing."""
        keep = keep and self.lasting and any(bank.lent for bank in self.banks)
        self.give_up_left()
        for bank in self.banks:
            if keep:
                bank.keep()
            else:
                bank.release()
        self._end()

    def _abandon(self) -> None:
        """It cannot be opened: what an earlier process has left goes on."""
        for bank in self.banks:
            if bank.revived:
                bank.keep()
            else:
                bank.release()
        self._end()

    def _end(self) -> None:
        self.banks.clear()
        self._netlink.close()
        if self._instance is not None:
            self._instance.close()
            self._instance = None


_KINDS = {"tcx": "TCX", "clsact": "clsact", "xdp": "XDP"}


def _attach(bank: Bank, link: Link, *, strict: bool) -> bool:
    try:
        return bank.hooks.attach(link)
    except FastPathUnavailable as error:
        if strict:
            raise
        log.warning("%s: what comes in there is relayed in user space", error)
        return False
    except OSError as error:  # a pin
        log.error("%s: what hangs there ends with this process: %s", link.name, error.strerror)
        return True


def _attach_xdp(bank: Bank, link: Link) -> bool:
    try:
        return bank.hooks.attach(link, "xdp")
    except FastPathUnavailable as error:
        log.warning("%s; the other program forwards what comes in there", error)
    except OSError as error:
        log.error("%s: XDP there ends with this process: %s", link.name, error.strerror)
    return False
