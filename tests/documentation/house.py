"""One host in the configurations that the cases need, each started when it is first needed, and phones for them."""

import itertools
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from lab.hosts import Host
from lab.kamailio import ROOT
from tests.documentation.estate import SRV, Estate
from tests.documentation.instance import Instance, Mounts
from tests.documentation.lines import Line, Nat, NattedLine
from tests.documentation.phone import Phone

PING = 0.3
"natping_interval of the main configuration, in seconds."
ODD = "Odd phone/1.0"
"On both lists of asymmetric clients of the main configuration."
BY_SIP = "force_rport fix_contact setflag=6 setflag=2 save"
"A registration of a phone behind a NAT that is to be pinged by SIP."
_NETWORK = f"127.{100 + os.getpid() // 250 % 100}.{os.getpid() % 250}"
_hosts = itertools.cycle(range(1, 255))


def new_address() -> str:
    """An address of loopback that no other run of the tests uses."""
    return f"{_NETWORK}.{next(_hosts)}"


@dataclass
class Crowd:
    """Many phones behind one NAT that do nothing, registered all the time."""

    phones: list[Phone]
    since: float


class House:
    """One host. ``main``: all that the page promises, at once, with quick keep-alives. ``quiet``: keep-alives are off;
    Kamailio has its own nathelper, set up as in the page's example 1-9. ``examples``: the routing is that of the page's
    examples 1-4 to 1-8. ``plain``: nothing of the module is set, the default files are there; several relays."""

    def __init__(self, host: Host, folder: Path, estate: Callable[[], Estate]) -> None:
        self.host, self.folder = host, folder
        self._estate = estate
        self._running = ExitStack()
        self._row = ExitStack()
        self._users = itertools.count(1)
        self._crowds: dict[str, Crowd] = {}
        folder.mkdir(parents=True)
        self.sip_list, self.rtp_list = folder / "sip-list", folder / "rtp-list"
        for path in (self.sip_list, self.rtp_list):
            path.write_text("# phones of the tests\n^Odd .*phone/[[:digit:]]+\n")

    # -- the configurations

    def _start(self, name: str, start: Callable[[Instance], Instance], **settings: object) -> Instance:
        instance = Instance(self.host, self.folder / name, new_address(), **settings)  # type: ignore[arg-type] # they are
        self._running.callback(instance.stop)
        start(instance)
        size = {"plain": 120, "examples": 120, "quiet": 60}.get(name, 0)
        self._crowds[name] = Crowd(self._crowd(size, instance, BY_SIP if name == "quiet" else ""), time.monotonic())
        return instance

    def crowd(self, name: str) -> Crowd:
        """Phones that registered when a configuration was started."""
        _ = getattr(self, name)
        return self._crowds[name]

    @cached_property
    def main(self) -> Instance:
        """See above."""
        parameters = {
            "mediaproxy_socket": str(self.folder / "questions"),
            "sip_asymmetrics": str(self.sip_list),
            "rtp_asymmetrics": str(self.rtp_list),
            "natping_interval": PING,
            "sipping_from": "sip:ping@sipserver.net",
            "nat_flag": 6,
            "sip_natping_flag": 2,
            "sipping_remove_flag": 3,
        }
        instance = self._start("main", Instance.probing, parameters=parameters)
        _ = self.estate  # it comes up beside the first rows
        return instance

    @cached_property
    def quiet(self) -> Instance:
        """See above."""
        parameters = {
            "mediaproxy_socket": str(self.folder / "quiet-questions"),
            "sip_asymmetrics": "",
            "rtp_asymmetrics": "",
            "natping_interval": 0,
            "sip_natping_flag": 2,
        }
        return self._start("quiet", Instance.beside_nathelper, parameters=parameters)

    @cached_property
    def examples(self) -> Instance:
        """See above."""
        parameters = {
            "mediaproxy_socket": str(self.folder / "examples-questions"),
            "sip_asymmetrics": str(ROOT / "config" / "sip-asymmetric-clients"),
            "rtp_asymmetrics": str(ROOT / "config" / "rtp-asymmetric-clients"),
            "natping_interval": 20,
        }
        return self._start("examples", Instance.with_examples, parameters=parameters)

    @cached_property
    def plain(self) -> Instance:
        """See above."""
        estate = self.estate
        mounts = Mounts(self.folder / "mounts")
        self._running.callback(mounts.close)
        (mounts.etc / "resolv.conf").unlink(missing_ok=True)
        (mounts.etc / "resolv.conf").write_text(f"nameserver {estate.dns_address}\noptions timeout:1 attempts:1\n")
        (mounts.etc / "openser").mkdir()
        for name in ("sip-asymmetric-clients", "rtp-asymmetric-clients"):
            shutil.copy(ROOT / "config" / name, mounts.etc / "openser")
        instance = self._start(
            "plain", Instance.probing, parameters={}, server={"dispatcher": estate.settings}, mounts=mounts
        )
        self.wait_relays(instance)
        return instance

    @property
    def estate(self) -> Estate:
        """The relays of ``plain``."""
        return self._estate()

    @property
    def etc(self) -> Path:
        """/etc/openser of ``plain``."""
        assert self.plain.mounts is not None
        return self.plain.mounts.etc / "openser"

    def wait_relays(self, instance: Instance | None = None, **wanted: bool) -> None:
        """Wait until ``plain`` knows which relays are up; until all are, if none is named."""
        asked = instance or self.plain
        wanted = wanted or dict.fromkeys(self.estate.relays, True)
        self.until(lambda: {name: asked.relays().get(name) for name in wanted}, wanted, 60.0)

    @staticmethod
    def until(look: Callable[[], object], wanted: object, seconds: float = 20.0) -> object:
        """What is seen, once it is as wanted, or when the time is over."""
        deadline = time.monotonic() + seconds
        while (seen := look()) != wanted and time.monotonic() < deadline:
            time.sleep(0.05)
        return seen

    # -- phones

    def nat(self, *, forgets: float = float("inf"), inward: bool = True) -> Nat:
        """A new home's router."""
        return Nat(new_address(), forgets, inward)

    def line(self) -> Line:
        """A port on the Internet, until the row is over."""
        line = Line(new_address())
        self._row.callback(line.close)
        return line

    def phone(  # noqa: PLR0913 - phones differ in that many ways
        self,
        *,
        at: Instance | None = None,
        nat: Nat | None = None,
        port: int = 0,
        splits: str = "",
        forward: bool = False,
        knows: str = "",
        agent: str = "",
        domain: str = "sip.test",
        register: bool = True,
    ) -> Phone:
        """A phone, registered if it is not said otherwise, until the row is over.

        ``nat``: it is behind one. ``port``: of SIP, on the Internet. ``splits``: ``sip``, ``rtp`` or both: it listens
        on other ports than it sends from. ``forward``: the router lets everybody in where it listens. ``knows``: it
        says the NAT's public address, with the right ports (``stun``), or with its private ones (``hand``)."""
        address = new_address()

        def line(number: int, listens: bool) -> Line:
            if nat is None:
                made = Line(address, port if number == 5060 else 0)
            else:
                made = NattedLine(nat, number, forward=forward and listens)
            self._row.callback(made.close)
            return made

        ear, rtp = line(5060, True), line(4000, True)
        says, media = "", None
        if knows == "stun":
            says, media = f"{ear.outside[0]}:{ear.outside[1]}", rtp.outside
        elif knows == "hand":
            says, media = f"{ear.outside[0]}:5060", (rtp.outside[0], 4000)
        phone = Phone(
            (at or self.main).sip,
            f"u{next(self._users)}",
            ear,
            rtp,
            mouth=line(5070, False) if "sip" in splits else None,
            rtp_mouth=line(4010, False) if "rtp" in splits else None,
            says=says,
            media=media,
            agent=agent,
            domain=domain,
        )
        if register:
            phone.register()
        return phone

    def _crowd(self, count: int, at: Instance, run: str) -> list[Phone]:
        nat, phones = self.nat(), []
        for _ in range(count):
            line = NattedLine(nat)
            self._running.callback(line.close)
            phones.append(Phone(at.sip, f"u{next(self._users)}", line, line))
            phones[-1].register(headers=[("X-Run", run)] if run else [])
        return phones

    # -- ends

    @contextmanager
    def row(self) -> Iterator["House"]:
        """One row of the table: its phones are gone afterwards."""
        with self._row:
            yield self

    def check(self) -> None:
        """Fail if something that ran has complained of itself."""
        for name in ("main", "quiet", "examples", "plain"):
            instance = self.__dict__.get(name)
            if isinstance(instance, Instance):
                bad = [line for line in instance.log.splitlines() if "Traceback" in line or "CRITICAL" in line]
                assert not bad, f"{name}: {instance.log[-3000:]}"

    def close(self) -> None:
        """End everything."""
        self._running.close()


__all__ = ["ODD", "PING", "SRV", "House", "new_address"]
