"""A whole site: an Internet of namespaces, the server on it, phones in the homes; and the same without root.

Both kinds of site offer what a call needs: start a server, put phones into the homes, capture, read the capture.
"""

import os
from collections import Counter
from collections.abc import Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from shutil import which
from types import TracebackType
from typing import Any, Protocol

from lab import hosts, tones
from lab.baresip import Baresip
from lab.capture import Capture, Wire, inspect, read
from lab.homes import SERVER, STUN, Internet, NatKind
from lab.hosts import Host
from lab.netns import LabError, environment, run
from lab.phone import Account, Phone, Seat
from lab.pjsip import Pjsip
from lab.server import Server, Settings, merge
from lab.split_phone import SplitPhone
from lab.stun import StunServer
from lab.usernat import UserNats

USERS = {"a": ("alice", tones.CALLER), "b": ("bob", tones.CALLEE), "c": ("carol", tones.THIRD)}
"Who lives in which home, and the tone of each."

_NOTHING: Settings = {}


class Stage(Protocol):
    """What a demonstration needs of a site."""

    folder: Path

    def start_server(self, changes: Settings = _NOTHING) -> Server:
        """Start the server."""

    def phone(self, home: str) -> Phone:
        """Put the phone of its user into a home and start it."""

    def capture(self, path: Path) -> AbstractContextManager[object]:
        """Write what passes at the server into a file."""

    def wire(self, path: Path, caller: str, callee: str) -> Wire:
        """Read a capture of one call between two homes."""

    def __enter__(self) -> "Stage": ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def server_settings(folder: Path, listeners: list[Settings], relay: Settings) -> dict[str, Any]:
    """Settings that keep everything the server writes in ``folder`` and let anybody in."""
    return {
        "runtime_dir": str(folder / "run"),
        "state_dir": str(folder / "state"),
        "edge": {"open": True, "domains": ["sip.test"], "listeners": listeners},
        "relay": {"bpffs": str(folder / "bpf"), **relay},
    }


def unmount(folder: Path) -> None:
    """Take away the BPF filesystems that servers have mounted in their folders, and what is left in them."""
    for path in folder.glob("*/bpf"):
        if path.is_mount():
            run(["umount", str(path)])


class Site:
    """Namespaces with two or three homes. Leaving it removes everything but the files in ``folder``."""

    def __init__(
        self,
        kinds: Sequence[NatKind],
        folder: Path,
        *,
        same_lan: bool = False,
        udp_timeout: tuple[int, int] = (30, 120),
        host: Host = Host.EDGE,
    ) -> None:
        self.folder = folder
        self.host = host
        "What ``start_server`` starts."
        self.internet = Internet(kinds, same_lan=same_lan, udp_timeout=udp_timeout)
        self.server: Server | None = None
        self._phones: list[Phone] = []
        self._seated: Counter[str] = Counter()
        self._started = 0
        self._stun: StunServer | None = None

    def start_server(self, changes: Settings = _NOTHING) -> Server:
        """Start the server on 203.0.113.10, with changes to the usual settings."""
        folder = self.folder / f"server{self._started}"
        self._started += 1
        listeners: list[Settings] = [{"transport": name, "bind": f"{SERVER}:5060"} for name in ("udp", "tcp")]
        relay = {"addresses": [{"bind": SERVER}], "port_min": 20000, "port_max": 20398}
        settings = merge(server_settings(folder, listeners, relay), changes)
        self.server = hosts.start(self.host, self.internet.public, folder, settings, (SERVER, 5060))
        return self.server

    def account(self, home: str, **changes: Any) -> Account:
        """The account of the user who lives there, with changes to its fields."""
        port = 5061 if changes.get("transport") == "tls" else 5060
        return replace(Account(user=USERS[home][0], proxy=f"{SERVER}:{port}"), **changes)

    def baresip(self, home: str, tone: int = 0, **changes: Any) -> Baresip:
        """Put a baresip into a home and start it. ``tone``: 0 is its user's; ``changes`` are fields of its account."""
        account = self.account(home, **changes)
        namespace = self.internet.homes[home].phone
        phone = Baresip(namespace, self._seat(home), account, tone or USERS[home][1], self._folder(account))
        self._phones.append(phone)
        return phone

    def pjsip(self, home: str, tone: int = 0, **changes: Any) -> Pjsip:
        """The same with PJSIP."""
        account = self.account(home, **changes)
        runner = self.internet.homes[home].phone.argv
        folder = self._folder(account)
        phone = Pjsip(lambda argv: runner(*argv), self._seat(home), account, tone or USERS[home][1], folder)
        self._phones.append(phone)
        return phone

    def split_phone(self, home: str, agent: str, *, split_sip: bool, tone: int = 0, **changes: Any) -> SplitPhone:
        """The same with an asymmetric phone that calls itself ``agent``."""
        account = self.account(home, **changes)
        where = self.internet.homes[home].phone, self._seat(home)
        tone = tone or USERS[home][1]
        phone = SplitPhone(*where, account, tone, self._folder(account), agent=agent, split_sip=split_sip)
        self._phones.append(phone)
        return phone

    def stun_server(self) -> str:
        """Start a STUN server on the public network if there is none yet; its HOST:PORT."""
        if self._stun is None:
            self._stun = StunServer(self.internet.public, STUN, self.folder / "stun")
        return self._stun.place

    def phone(self, home: str) -> Phone:
        """Put a phone into a home and start it: baresip if it is installed, else PJSIP."""
        return self.baresip(home) if which("baresip") else self.pjsip(home)

    def _folder(self, account: Account) -> Path:
        self._started += 1
        return self.folder / f"{account.user}{self._started}"

    def _seat(self, home: str) -> Seat:
        """The next phone of a home gets ports that none before it had."""
        self._seated[home] += 1
        return Seat(self.internet.homes[home].address, self._seated[home] - 1)

    def capture(self, path: Path) -> AbstractContextManager[object]:
        """Write what passes on the public network into a file."""
        return Capture(self.internet.public, "br0", path)

    def wire(self, path: Path, caller: str, callee: str) -> Wire:
        """Read a capture of one call between two homes."""
        homes = self.internet.homes
        return inspect(read(path), SERVER, homes[caller].wan, homes[callee].wan)

    def __enter__(self) -> "Site":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for phone in self._phones:
            phone.close()
        if self.server is not None:
            self.server.stop()
        self.internet.close()
        unmount(self.folder)


class Loopback:
    """The same without root: PJSIP phones, server and user-space NATs on loopback addresses of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        # A network of our own out of 127/8, so that two demos do not meet.
        self._net = f"127.{os.getpid() // 250 % 250 + 2}.{os.getpid() % 250 + 2}"
        self._server = f"{self._net}.10"
        self._world = f"{self._net}.20"
        self._homes = {"a": ("192.168.1.10", f"{self._net}.1", f"{self._net}.101")}
        self._homes["b"] = ("10.8.0.10", f"{self._net}.2", f"{self._net}.102")
        "Of each home: the address that the phone believes to have, the one it really has, the NAT's public one."
        self._ports = (20000, 20039)
        nats = {real: public for _, real, public in self._homes.values()}
        ports = [5060, *range(self._ports[0], self._ports[1] + 1)]
        self._nats = UserNats(nats, world=self._world, server=self._server, ports=ports)
        self._phones: list[Phone] = []
        self.server: Server | None = None
        self._started = 0

    def start_server(self, changes: Settings = _NOTHING) -> Server:
        """Start the server; phones know it by another address, as behind the 1:1 NAT of a cloud."""
        self._started += 1
        folder = self.folder / f"server{self._started}"
        listener = {"transport": "udp", "bind": f"{self._server}:5060", "advertise": f"{self._world}:5060"}
        addresses = [{"bind": self._server, "advertise": self._world}]
        relay = {"addresses": addresses, "port_min": self._ports[0], "port_max": self._ports[1] - 1}
        settings = merge(server_settings(folder, [listener], relay), changes)
        self.server = Server(None, folder, settings, (self._server, 5060))
        return self.server

    def phone(self, home: str) -> Phone:
        """Put a PJSIP phone into a home and start it."""
        self._started += 1
        believed, real, _ = self._homes[home]
        user, tone = USERS[home]
        account = Account(user=user, proxy=f"{self._world}:5060")
        folder = self.folder / f"{user}{self._started}"
        phone = Pjsip(lambda argv: argv, Seat(believed, bind=real), account, tone, folder)
        self._phones.append(phone)
        return phone

    @contextmanager
    def _recording(self, path: Path) -> Any:
        self._nats.capture_to(path)
        try:
            yield
        finally:
            self._nats.capture_to(None)

    def capture(self, path: Path) -> AbstractContextManager[object]:
        """Write what passes outside the NATs into a file."""
        recording: AbstractContextManager[object] = self._recording(path)
        return recording

    def wire(self, path: Path, caller: str, callee: str) -> Wire:
        """Read a capture of one call between two homes."""
        return inspect(read(path), self._server, self._homes[caller][2], self._homes[callee][2])

    def __enter__(self) -> "Loopback":
        self._nats.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for phone in self._phones:
            phone.close()
        if self.server is not None:
            self.server.stop()
        self._nats.__exit__(kind, error, trace)
        unmount(self.folder)


def missing(*programs: str) -> list[str]:
    """Which of the programs are not installed."""
    return [program for program in programs if which(program, path=environment()["PATH"]) is None]


def namespaces_refused() -> str:
    """Why there can be no network namespaces with NATs here; empty: there can."""
    if os.geteuid() != 0:
        return "not root"
    absent = missing("ip", "nft", "sysctl", "tcpdump", "setpriv")
    if absent:
        return f"not installed: {', '.join(absent)}"
    try:
        Internet((NatKind.SYMMETRIC, NatKind.SYMMETRIC)).close()
    except (LabError, OSError) as error:
        return str(error)
    return ""
