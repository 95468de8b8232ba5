"""How many calls a second Kamailio sets up and ends with our module and relay, beside Kamailio with its own modules.

Kamailio with examples/kamailio and ``mediaproxy run`` without its edge, against Kamailio with the same routing in its
own language, nathelper and rtpengine. The phones, the load and what is counted are those of ``bench.calls``: each
contestant with all its processes has one core, SIPp the other.
"""

import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from statistics import median

from bench.calls import PORTS, WORKERS, Contestant, measure, middle, rivals
from bench.kamailio import NATHELPER, example
from bench.processes import loopback, pinned, running
from bench.report import line
from lab.kamailio import EXAMPLE, VENV
from lab.netns import wait_until
from lab.server import document

SCRIPT = """\
import sys
sys.path.insert(0, {folder!r})
import router
def mod_init():
    return router.Router(mediaproxy_socket={path!r})
"""


@contextmanager
def relay(folder: Path, address: str, core: int | None, **settings: float) -> Iterator[Path]:
    """``mediaproxy run`` without its edge; where it takes questions. ``settings``: more ones of its relay.

    It runs in the environment of Kamailio's Python, as `make kamailio` has it.
    """
    with _relay(folder, address, core, **settings) as (path, _):
        yield path


@contextmanager
def _relay(
    folder: Path, address: str, core: int | None, **settings: float
) -> Iterator[tuple[Path, subprocess.Popen[bytes]]]:
    folder.mkdir()
    path = folder / "proxydispatcher.sock"
    media = {"addresses": [{"bind": address}], "port_min": PORTS[0], "port_max": PORTS[1]}
    config = folder / "config.toml"
    config.write_text(
        document(
            {
                "runtime_dir": str(folder),
                "state_dir": str(folder),
                "log": {"level": "warning"},
                "edge": {"enabled": False},
                "dispatcher": {"mediaproxy_socket": str(path)},
                "relay": media | {"cool": 0.0, "cool_quiet": 0.0} | settings,
            }
        )
    )
    argv = pinned(core, [str(VENV / "bin" / "mediaproxy"), "run", "--config", str(config)])
    with running(argv, folder / "mediaproxy.log") as process:
        wait_until("our server takes questions", lambda: _listens(path), 15.0)
        yield path, process


@contextmanager
def mediaproxy(folder: Path, host: int, core: int | None) -> Iterator[Contestant]:
    """Kamailio with our module, and our relay beside it."""
    address = loopback(host)
    with _relay(folder, address, core) as (path, process):
        script = SCRIPT.format(folder=str(EXAMPLE), path=str(path))
        with example(folder, script, f"{address}:5060", children=WORKERS, core=core) as proxy:
            yield Contestant("mediaproxy", address, {"Kamailio": proxy, "relay": process}, 1200)


def _listens(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as sock, suppress(OSError):
        sock.connect(str(path))
        return True
    return False


@contextmanager
def own_modules(folder: Path, host: int, core: int | None) -> Iterator[Contestant]:
    """Kamailio with nathelper and rtpengine."""
    with rivals(folder, host, core, NATHELPER) as contestant:
        yield contestant


def run() -> Iterator[str]:
    """The lines."""
    with tempfile.TemporaryDirectory(prefix="mpbench-") as name:
        (_, ours), (rival, theirs) = measure(Path(name), (mediaproxy, own_modules))
    yield line("KEMI, calls", middle(ours, "rate"), "calls/s", rival.name, middle(theirs, "rate"))
    yield line("KEMI, calls per CPU", middle(ours, "cpu_rate"), "calls/CPU s", rival.name, middle(theirs, "cpu_rate"))
    for mine, other in (("Kamailio", "Kamailio"), ("relay", "rtpengine")):
        cost, rival_cost = (1e6 * median(one.costs[what] for one in of) for what, of in ((mine, ours), (other, theirs)))
        yield line(f"KEMI, CPU of {mine}", cost, "us/call", other, rival_cost, rival_cost / cost)
