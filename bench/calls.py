"""How many calls a second a whole server sets up and ends: proxy, NAT help and relay ports, all but media packets.

``mediaproxy run``, one process, against Kamailio with rtpengine, each on one core; SIPp plays both phones on the other.
Every call is INVITE, 180, 200, ACK, BYE, 200 through the server, between phones that name private addresses. A fixed
number of calls is under way all the time, so a server is measured at full load without being overrun.
"""

import csv
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from bench.kamailio import CALLS, kamailio, version
from bench.processes import cpu_seconds, loopback, pin, pinned, running, two_cores, wait_answer
from bench.report import line
from lab.netns import LabError
from lab.server import Server

UNDER_WAY = 24
"Calls at a time."
ROUNDS = 3
"Of each server, in turn; the median counts."
PORTS = (20_000, 23_999)
"For media, at both servers: far more than the calls under way need, so few that all have been used after a moment."
FAILED = 0.001
"The part of the calls that may fail."

_SCENARIOS = Path(__file__).with_name("scenarios")
_KAMAILIO_WORKERS = 2


@dataclass(frozen=True, slots=True)
class Result:
    """One round."""

    rate: float
    "Calls per second."
    cpu_rate: float
    "Calls per second of the server's CPU time."


@dataclass(frozen=True, slots=True)
class Contestant:
    """A server that runs."""

    name: str
    address: str
    "Where it listens, port 5060."
    processes: tuple[subprocess.Popen[bytes], ...]
    calls: int
    "In one round."

    def cpu(self) -> float:
        """Seconds used so far."""
        return sum(cpu_seconds(process.pid) for process in self.processes)


class Phones:
    """Both phones of one contestant."""

    def __init__(self, server: Contestant, hosts: tuple[int, int], core: int | None, folder: Path) -> None:
        folder.mkdir()
        self._server = server
        self._caller, self._callee = map(loopback, hosts)
        self._core = core
        self._folder = folder
        self._runs = 0

    def _argv(self, scenario: str, address: str, *more: str) -> list[str]:
        argv = ["sipp", f"{self._server.address}:5060", "-sf", str(_SCENARIOS / f"{scenario}.xml"), "-nostdin"]
        argv += ["-i", address, "-p", "5060", "-timeout", "120s", "-timeout_error", *more]
        return pinned(self._core, argv)

    def _finish(self, name: str, argv: list[str]) -> None:
        with running(argv, self._folder / f"{name}.log") as process:
            status = process.wait(150)
        if status not in (0, 1):  # 1: some calls failed, which is for the caller to judge
            raise LabError(f"SIPp ({name}) ended with {status}: {(self._folder / f'{name}.log').read_text()[-1000:]}")

    @contextmanager
    def answering(self) -> Iterator[None]:
        """Bob is registered and answers, until the block ends."""
        self._finish("register", self._argv("register", self._callee, "-m", "1"))
        with running(self._argv("callee", self._callee), self._folder / "callee.log"):
            yield

    def call(self, calls: int) -> Result:
        """Make calls. LabError if too many fail."""
        self._runs += 1
        name = f"caller{self._runs}"
        table = self._folder / f"{name}.csv"
        more = ["-m", str(calls), "-users", str(UNDER_WAY), "-trace_stat", "-stf", str(table), "-fd", "600"]
        before = self._server.cpu()
        self._finish(name, self._argv("caller", self._caller, *more))
        used = self._server.cpu() - before
        with table.open() as file:
            last = list(csv.DictReader(file, delimiter=";"))[-1]
        failed = int(last["FailedCall(C)"])
        if failed > FAILED * calls:
            raise LabError(f"{self._server.name}: {failed} of {calls} calls failed")
        begin, end = (float(last[column].split()[-1]) for column in ("StartTime", "CurrentTime"))
        return Result(calls / (end - begin), calls / used)


@contextmanager
def mediaproxy(folder: Path, host: int, core: int | None) -> Iterator[Contestant]:
    """Our server."""
    address = loopback(host)
    settings = {
        "runtime_dir": str(folder),
        "state_dir": str(folder),
        "log": {"level": "warning"},
        "edge": {"listeners": [{"transport": "udp", "bind": f"{address}:5060"}]},
        "relay": {"addresses": [{"bind": address}], "port_min": PORTS[0], "port_max": PORTS[1], "cool": 0.0}
        | {"cool_quiet": 0.0},
    }
    server = Server(None, folder, settings, (address, 5060))
    try:
        pin(server.process, core)
        yield Contestant("mediaproxy", address, (server.process,), 1500)
    finally:
        server.stop()


@contextmanager
def rivals(folder: Path, host: int, core: int | None) -> Iterator[Contestant]:
    """Kamailio with rtpengine."""
    address = loopback(host)
    folder.mkdir()
    control = f"{address}:2223"
    argv = ["rtpengine", "--config-file=none", "--foreground", "--log-stderr", "--log-level=4", "--table=-1"]
    argv += [f"--interface={address}", f"--listen-ng={control}", f"--port-min={PORTS[0]}", f"--port-max={PORTS[1]}"]
    argv += ["--delete-delay=0", "--num-threads=2"]
    log = folder / "rtpengine.log"
    with ExitStack() as stack:
        engine = stack.enter_context(running(pinned(core, argv), log))
        wait_answer("rtpengine", (address, 2223), b"1 d7:command4:pinge")
        values = {"rtpengine": control}
        listen = f"{address}:5060"
        proxy = stack.enter_context(
            kamailio(folder, CALLS, listen, children=_KAMAILIO_WORKERS, core=core, values=values)
        )
        yield Contestant(f"{version()} + rtpengine", address, (proxy, engine), 6000)


def measure(folder: Path) -> tuple[str, list[Result], list[Result]]:
    """All rounds of both, in turn, and the rival's name."""
    cores = two_cores()
    server_core, phone_core = cores or (None, None)
    results: tuple[list[Result], list[Result]] = ([], [])
    with ExitStack() as stack:
        enter = stack.enter_context
        both = (enter(mediaproxy(folder / "ours", 1, server_core)), enter(rivals(folder / "rival", 2, server_core)))
        pairs = [
            Phones(server, (10 * at + 11, 10 * at + 12), phone_core, folder / f"phones{at}")
            for at, server in enumerate(both)
        ]
        for phones in pairs:
            enter(phones.answering())
            phones.call(200)
        for _ in range(ROUNDS):
            for server, phones, result in zip(both, pairs, results, strict=True):
                result.append(phones.call(server.calls))
    return both[1].name, *results


def run() -> Iterator[str]:
    """The lines."""
    with tempfile.TemporaryDirectory(prefix="mpbench-") as name:
        rival, ours, theirs = measure(Path(name))
    yield line("calls", _middle(ours, "rate"), "calls/s", rival, _middle(theirs, "rate"))
    yield line("calls per CPU", _middle(ours, "cpu_rate"), "calls/CPU s", rival, _middle(theirs, "cpu_rate"))


def _middle(results: list[Result], what: str) -> float:
    return median(float(getattr(result, what)) for result in results)
