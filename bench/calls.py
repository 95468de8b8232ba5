"""How many calls a second a whole server sets up and ends: proxy, NAT help and relay ports, all but media packets.

``mediaproxy run``, one process, against Kamailio with rtpengine, each on one core; SIPp plays both phones on the other.
Every call is INVITE, 180, 200, ACK, BYE, 200 through the server, between phones that name private addresses. A fixed
number of calls is under way all the time, so a server is measured at full load without being overrun.
"""

import csv
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
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
ROUNDS = 5
"Of each server, in turn; the median counts."
WARM_UP = 1000
"Calls before the first round: then most ports have been bound, and all code has run."
PORTS = (20_000, 23_999)
"For media, at both servers: far more than the calls under way need, so few that all have been used after a moment."
FAILED = 0.001
"The part of the calls that may fail."

WORKERS = 2
"Processes of Kamailio that take messages."

_SCENARIOS = Path(__file__).with_name("scenarios")


@dataclass(frozen=True, slots=True)
class Result:
    """One round."""

    rate: float
    "Calls per second."
    cpu_rate: float
    "Calls per second of the server's CPU time."
    costs: Mapping[str, float]
    "Seconds of CPU time per call, by program."


@dataclass(frozen=True, slots=True)
class Contestant:
    """A server that runs."""

    name: str
    address: str
    "Where it listens, port 5060."
    programs: Mapping[str, subprocess.Popen[bytes]]
    "By name."
    calls: int
    "In one round."

    def cpu(self) -> dict[str, float]:
        """Seconds used so far, by program."""
        return {name: cpu_seconds(process.pid) for name, process in self.programs.items()}


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
        argv += ["-i", address, "-p", "5060", "-timeout", "120s", "-timeout_error"]
        # A server with several processes lets messages overtake each other.
        argv += ["-default_behaviors", "all,-abortunexp", *more]
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
        costs = {name: (now - before[name]) / calls for name, now in self._server.cpu().items()}
        with table.open() as file:
            last = list(csv.DictReader(file, delimiter=";"))[-1]
        failed = int(last["FailedCall(C)"])
        if failed > FAILED * calls:
            raise LabError(f"{self._server.name}: {failed} of {calls} calls failed")
        begin, end = (float(last[column].split()[-1]) for column in ("StartTime", "CurrentTime"))
        return Result(calls / (end - begin), 1 / sum(costs.values()), costs)


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
        yield Contestant("mediaproxy", address, {"mediaproxy": server.process}, 1200)
    finally:
        server.stop()


@contextmanager
def rtpengine(folder: Path, address: str, core: int | None) -> Iterator[subprocess.Popen[bytes]]:
    """rtpengine-daemon in user space, with its control port (ng) at 2223."""
    argv = ["rtpengine", "--config-file=none", "--foreground", "--log-stderr", "--log-level=4", "--table=-1"]
    argv += [f"--interface={address}", f"--listen-ng={address}:2223", f"--port-min={PORTS[0]}"]
    argv += [f"--port-max={PORTS[1]}", "--delete-delay=0", "--num-threads=2"]
    with running(pinned(core, argv), folder / "rtpengine.log") as engine:
        wait_answer("rtpengine", (address, 2223), b"1 d7:command4:pinge")
        yield engine


@contextmanager
def rivals(folder: Path, host: int, core: int | None, route: str = CALLS) -> Iterator[Contestant]:
    """Kamailio with rtpengine."""
    address = loopback(host)
    folder.mkdir()
    with rtpengine(folder, address, core) as engine:
        listen, values = f"{address}:5060", {"rtpengine": f"{address}:2223"}
        with kamailio(folder, route, listen, children=WORKERS, core=core, values=values) as proxy:
            yield Contestant(f"{version()} + rtpengine", address, {"Kamailio": proxy, "rtpengine": engine}, 4000)


Place = Callable[[Path, int, int | None], AbstractContextManager[Contestant]]
"Starts a contestant: in a folder, on a loopback host, on a core."


def measure(folder: Path, places: Sequence[Place]) -> list[tuple[Contestant, list[Result]]]:
    """All rounds of all contestants, in turn."""
    server_core, phone_core = two_cores() or (None, None)
    with ExitStack() as stack:
        enter = stack.enter_context
        servers = [enter(place(folder / f"server{at}", at + 1, server_core)) for at, place in enumerate(places)]
        phones = [
            Phones(server, (10 * at + 11, 10 * at + 12), phone_core, folder / f"phones{at}")
            for at, server in enumerate(servers)
        ]
        for pair in phones:
            enter(pair.answering())
            pair.call(WARM_UP)
        rounds = [
            [pair.call(server.calls) for server, pair in zip(servers, phones, strict=True)] for _ in range(ROUNDS)
        ]
        return [(server, list(results)) for server, *results in zip(servers, *rounds, strict=True)]


def run() -> Iterator[str]:
    """The lines."""
    with tempfile.TemporaryDirectory(prefix="mpbench-") as name:
        (_, ours), (rival, theirs) = measure(Path(name), (mediaproxy, rivals))
    yield line("calls", middle(ours, "rate"), "calls/s", rival.name, middle(theirs, "rate"))
    yield line("calls per CPU", middle(ours, "cpu_rate"), "calls/CPU s", rival.name, middle(theirs, "cpu_rate"))


def middle(results: Sequence[Result], what: str) -> float:
    """The median of one figure."""
    return median(float(getattr(result, what)) for result in results)
