"""How many calls a second NG's door sets up and ends on one core, and how long a SIP server waits, beside rtpengine.

The same requests go to both, in turns: what Kamailio's module sends for a plain call, ``offer``, ``answer`` and
``delete``, each from a socket that waits for its answer before it sends the next. Each call has tags, addresses and
ports of its own. Both log as they do if nobody says otherwise, into a file. Server and SIP servers have a core
each; both relay in user space, because nothing is relayed here. Cycles per second of CPU time hardly depend on what
else the machine is doing; cycles per second and waits do.
"""

import multiprocessing
import os
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.queues import SimpleQueue
from pathlib import Path
from statistics import median
from subprocess import Popen

from bench.processes import cpu_seconds, loopback, pinned, running, two_cores, wait_answer
from bench.report import line
from lab.netns import LabError
from mediaproxy.dialects.ng.bencode import encode

CLIENTS = (1, 4)
ROUNDS = 3
"Of each server, in turn; the median counts."
SECONDS = 4.0
PHONES = 20_000
"That call each other, so that no two calls after each other are of the same ones."
PORT = 2223
PING = b"0 d7:command4:pinge"
CONFIGURATION = """
runtime_dir = "{folder}/run"
state_dir = "{folder}/state"
[[listen]]
protocol = "ng"
address = "udp://{address}:2223"
[edge]
enabled = false
[relay]
addresses = [{{ bind = "{address}" }}]
port_min = 20000
port_max = 59999
plane = "user"
journal = false
# A round makes as many calls as there are sockets within a minute.
cool = 1.0
cool_quiet = 0.5
linger = 1.0
"""
_SDP = (
    "v=0\r\no=- 1 1 IN IP4 {0}\r\ns=-\r\nc=IN IP4 {0}\r\nt=0 0\r\nm=audio {1} RTP/AVP 0 8 101\r\n"
    "a=rtpmap:101 telephone-event/8000\r\na=fmtp:101 0-15\r\na=sendrecv\r\n"
)


@dataclass(frozen=True, slots=True)
class Result:
    """One round."""

    cycles: int
    "Calls set up and ended."
    cpu: float
    "Seconds of the server's CPU time for them."
    waits: list[float]
    "Seconds from each offer to the answer to its answer."


def requests(call_id: str, number: int = 0) -> tuple[dict[str, object], dict[str, object], dict[str, object]]:
    """Of one call. ``number``: which two of the phones have it. They are of one kind."""
    (caller, caller_port), (callee, callee_port) = _phone(2 * number), _phone(2 * number + 1)
    from_tag, to_tag = f"ft{number}", f"tt{number}"
    common: dict[str, object] = {"supports": ["load limit"]}
    edit: dict[str, object] = {"ICE": "remove", "replace": ["origin", "session-connection"]}

    def which(phone: str) -> dict[str, object]:
        return {"call-id": call_id, "received-from": ["IP4", phone], "from-tag": from_tag}

    offered, answered = _SDP.format(caller, caller_port), _SDP.format(callee, callee_port)
    offer = {**common, "sdp": offered, **edit, **which(caller), "command": "offer"}
    answer = {**common, "sdp": answered, **edit, **which(callee), "to-tag": to_tag, "command": "answer"}
    return offer, answer, {**common, **which(caller), "delete delay": 0, "command": "delete"}


def _phone(number: int) -> tuple[str, int]:
    """Address and port of one."""
    number %= PHONES
    return f"198.{18 + (number >> 16)}.{number >> 8 & 255}.{number & 255}", 4000 + 2 * (number * 7919 % 20_000)


def call(address: tuple[str, int], number: int, results: "SimpleQueue[list[float]]") -> None:
    """A SIP server, in a process of its own: cycles for SECONDS, and how long it waited in each; none if it failed."""
    waits: list[float] = []
    try:
        _cycles(address, number, waits)
    except (LabError, OSError):
        results.put([])
        raise
    results.put(waits)


def _cycles(address: tuple[str, int], number: int, waits: list[float]) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect(address)
        sock.settimeout(5.0)
        until = time.monotonic() + SECONDS
        while time.monotonic() < until:
            cycle = len(waits)
            datagrams = [
                b"%d_%d_%d_%d %b" % (os.getpid(), number, cycle, at, encode(request))
                for at, request in enumerate(requests(f"bench-{os.getpid()}-{number}-{cycle}", 2_500 * number + cycle))
            ]
            begin = time.perf_counter()
            for at, datagram in enumerate(datagrams):
                sock.send(datagram)
                answer = sock.recv(65_536)
                if b"6:result2:ok" not in answer:
                    raise LabError(f"{address}: {answer[:200]!r}")
                if at == 1:
                    waits.append(time.perf_counter() - begin)


def measure(process: Popen[bytes], address: tuple[str, int], clients: int, core: int | None) -> Result:
    """One round with so many SIP servers at a time, on one core."""
    context = multiprocessing.get_context("fork")
    results: SimpleQueue[list[float]] = context.SimpleQueue()
    children = [context.Process(target=call, args=(address, number, results)) for number in range(clients)]
    mine = os.sched_getaffinity(0)
    if core is not None:
        os.sched_setaffinity(0, {core})
    before = cpu_seconds(process.pid)
    for child in children:
        child.start()
    os.sched_setaffinity(0, mine)
    got = [results.get() for _ in children]  # before they end: what they tell may be more than a pipe holds
    for child in children:
        child.join()
    if not all(got):
        raise LabError("a SIP server got no answer, or a bad one")
    waits = sorted(wait for one in got for wait in one)
    return Result(len(waits), cpu_seconds(process.pid) - before, waits)


@contextmanager
def ours(folder: Path, host: int, core: int | None) -> Iterator[tuple[Popen[bytes], tuple[str, int]]]:
    """``mediaproxy run`` with a door, as it is installed."""
    address, file = loopback(host), folder / "mediaproxy.toml"
    file.write_text(CONFIGURATION.format(folder=folder, address=address))
    argv = [sys.executable, "-m", "mediaproxy", "run", "--config", str(file)]
    with running(pinned(core, argv), folder / "mediaproxy.log") as process:
        wait_answer("our door", (address, PORT), PING)
        yield process, (address, PORT)


@contextmanager
def rtpengine(folder: Path, host: int, core: int | None) -> Iterator[tuple[Popen[bytes], tuple[str, int]]]:
    """rtpengine in user space with one thread."""
    address = loopback(host)
    argv = ["rtpengine", "-f", "-E", f"--interface={address}", f"--listen-ng={address}:{PORT}", "-t", "-1"]
    options = ["--num-threads=1", "--port-min=20000", "--port-max=59999", f"--pidfile={folder}/rtpengine.pid"]
    with running(pinned(core, [*argv, *options]), folder / "rtpengine.log") as process:
        wait_answer("rtpengine", (address, PORT), PING)
        yield process, (address, PORT)


def run() -> Iterator[str]:
    """The lines of the report."""
    server_core, client_core = two_cores() or (None, None)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        with ours(folder, 1, server_core) as (us, here), rtpengine(folder, 2, server_core) as (rival, there):
            for clients in CLIENTS:
                rounds = [
                    (measure(us, here, clients, client_core), measure(rival, there, clients, client_core))
                    for _ in range(ROUNDS)
                ]
                yield from _lines(clients, [one for one, _ in rounds], [other for _, other in rounds])


def _lines(clients: int, own: list[Result], rivals: list[Result]) -> Iterator[str]:
    name = f"NG calls, {clients} client{'s' if clients > 1 else ''}"
    yield line(name, _rate(own), "cycles/s", "rtpengine", _rate(rivals))
    yield line(f"{name}, per core", _per_cpu(own), "cycles/CPU s", "rtpengine", _per_cpu(rivals))
    for part, label in ((0.5, "p50"), (0.99, "p99")):
        mine, theirs = _wait(own, part), _wait(rivals, part)
        yield line(f"{name}, {label}", mine, "ms, offer+answer", "rtpengine", theirs, theirs / mine)


def _rate(rounds: list[Result]) -> float:
    return median(one.cycles / SECONDS for one in rounds)


def _per_cpu(rounds: list[Result]) -> float:
    return median(one.cycles / one.cpu for one in rounds)


def _wait(rounds: list[Result], part: float) -> float:
    """Milliseconds."""
    return 1000 * median(one.waits[int(part * (len(one.waits) - 1))] for one in rounds)
