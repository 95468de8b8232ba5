"""What carrying a media packet costs this machine, beside plain IP forwarding and rtpengine-daemon in user space.

One topology (bench/veth.py): a generator, a host, a sink, two veth pairs. 200 streams of G.711 go from the generator to
the sink: routed by the kernel (ip_forward), through each of our planes with both ends of every stream learned, or
through rtpengine. Seven rounds; in each, every contestant has its turn; the median of what one round's ratio is counts.

- CPU: all that the machine does at 100 000 packets/s, less what it does when the host throws them away, per packet.
- Most: packets per second that arrive with less than 0.1 % lost. The generator has one core to itself; what the kernel
  forwards runs on that core too, so it is as many as one core sends and forwards.
- Latency: from the sender's clock to the receiver's stamp, one packet at a time.
"""

import re
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TypeAlias

from bench.plane import on_core
from bench.processes import two_cores, wait_log
from bench.report import line
from bench.veth import GENERATOR, HOST, HOST_SINK, SINK, Generator, Site, Stream, busy_seconds, latencies
from bench.vethrelay import FIRST, SOURCE
from lab.netns import LabError, Namespaces, stop, wait_until
from mediaproxy.endpoint import Endpoint

FLOWS = 200
MANY = 10_000
"Calls, with four ports each, for the figures with all of them."
ROUNDS = 7
RATE, SECONDS = 100_000.0, 2.0
SLOW = 40_000.0
"For contestants that lose packets at RATE."
LOST = 0.001
STEPS, STEP_SECONDS = 6, 0.4
"Of the search for the most."


@dataclass(frozen=True, slots=True)
class Figures:
    """Of one contestant in one round."""

    cpu: float
    "Microseconds of the machine per packet, without those of the generator."
    most: float
    "Packets per second."
    p50: float
    "Microseconds from the generator to the sink."
    p99: float
    rate: float
    "At which ``cpu`` was measured, packets per second."


Contestant: TypeAlias = Callable[[Site, Path], AbstractContextManager[Sequence[Stream]]]
"Sets it up in a site; the streams that the generator sends then."


# -- contestants


@contextmanager
def forwarding(site: Site, folder: Path) -> Iterator[Sequence[Stream]]:
    """The kernel routes."""
    yield [Stream(SOURCE + 2 * number, Endpoint(SINK, SOURCE + 2 * number)) for number in range(FLOWS)]


def plane(name: str, calls: int = FLOWS, used: int = FLOWS) -> Contestant:
    """One of our planes with so many calls, of which so many talk."""

    @contextmanager
    def contestant(site: Site, folder: Path) -> Iterator[Sequence[Stream]]:
        log = folder / f"{name}{calls}-{time.monotonic_ns()}.log"
        process = site.host.start([sys.executable, "-m", "bench.vethrelay", name, str(calls)], log)
        try:
            wait_log(process, log, "ready", 60.0)
            yield [Stream(SOURCE + 2 * number, Endpoint(HOST, FIRST + 4 * number)) for number in range(used)]
        finally:
            stop(process)

    return contestant


@contextmanager
def rtpengine(site: Site, folder: Path) -> Iterator[Sequence[Stream]]:
    """rtpengine-daemon in user space, with the calls offered and answered."""
    log = folder / f"rtpengine-{time.monotonic_ns()}.log"
    argv = ["rtpengine", "--config-file=none", "--foreground", "--log-stderr", "--log-level=4", "--table=-1"]
    argv += [f"--interface=left/{HOST}", f"--interface=right/{HOST_SINK}", f"--listen-ng={HOST}:2223"]
    process = site.host.start([*argv, "--port-min=20000", "--port-max=29999"], log)
    with site.generator.inside():
        control = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    control.connect((HOST, 2223))
    control.settimeout(0.2)
    try:
        wait_until("rtpengine answers", lambda: _pong(control), 15.0)
        control.settimeout(5.0)
        yield [_call(control, SOURCE + 2 * number) for number in range(FLOWS)]
    finally:
        control.close()
        stop(process)


def _pong(control: socket.socket) -> bool:
    try:
        control.send(b"ping d7:command4:pinge")
        return b"pong" in control.recv(65_536)
    except OSError:
        return False


def _call(control: socket.socket, port: int) -> Stream:
    """A call from that port of the generator to the same one of the sink."""
    reply = b""
    for command, address, ways in (("offer", GENERATOR, "left right"), ("answer", SINK, "right left")):
        sdp = f"v=0\r\no=- 1 1 IN IP4 {address}\r\ns=-\r\nc=IN IP4 {address}\r\nt=0 0\r\nm=audio {port} RTP/AVP 8\r\n"
        words = {"call-id": f"call-{port}", "command": command, "from-tag": "a", "sdp": sdp} | (
            {"to-tag": "b"} if command == "answer" else {}
        )
        text = "".join(f"{len(part)}:{part}" for item in words.items() for part in item)
        both = "".join(f"{len(way)}:{way}" for way in ways.split()) if command == "offer" else ""
        control.send(f"{port}-{command} d{text}{f'9:directionl{both}e' if both else ''}e".encode())
        reply = control.recv(65_536)
    found, place = re.search(rb"m=audio (\d+)", reply), re.search(rb"c=IN IP4 ([0-9.]+)", reply)
    if found is None or place is None:
        raise LabError(f"rtpengine: {reply.decode('latin-1')}")
    return Stream(port, Endpoint(place.group(1).decode(), int(found.group(1))))


# -- measuring


class Field:
    """The site, and what sending alone costs."""

    def __init__(self, site: Site, folder: Path) -> None:
        self.site = site
        self.folder = folder

    def thrown_away(self, rate: float) -> float:
        """Microseconds per packet if the host throws all away as it comes in."""
        streams = [Stream(SOURCE + 2 * number, Endpoint(HOST, FIRST + 4 * number)) for number in range(FLOWS)]
        generator = Generator(self.site, streams)
        try:
            with self.site.counting(self.site.host, "left"):
                return self._cost(generator, rate)[0]
        finally:
            generator.close()

    def _cost(self, generator: Generator, rate: float) -> tuple[float, int]:
        """Microseconds of the machine per packet sent, and how many were."""
        busy = busy_seconds()
        sent, seconds = generator.paced(rate, SECONDS)
        used = busy_seconds() - busy
        if seconds > SECONDS * 1.1:
            raise LabError(f"the generator took {seconds:.1f} s instead of {SECONDS:g}: this machine is too busy")
        return used / sent * 1e6, sent

    def measure(self, contestant: Contestant, rate: float = RATE) -> Figures:
        """One round of one contestant."""
        with contestant(self.site, self.folder) as streams:
            generator = Generator(self.site, streams)
            try:
                p50, p99 = latencies(self.site, streams[0])
                with self.site.counting(self.site.sink, "right") as count:
                    generator.paced(rate / 10, 0.5)
                    before = count.packets
                    cost, sent = self._cost(generator, rate)
                    arrived = count.packets - before
                    if arrived < sent * (1 - 20 * LOST):
                        raise LabError(f"{sent - arrived} of {sent} packets were lost at {rate:.0f} packets/s")
                    most = self._most(generator, lambda: count.packets)
            finally:
                generator.close()
        return Figures(cost, most, p50, p99, rate)

    def _most(self, generator: Generator, arrived: Callable[[], int]) -> float:
        """Packets per second that arrive with hardly any lost: all that the generator can send, else searched."""
        before = arrived()
        sent, seconds = generator.flat_out(4 * STEP_SECONDS)
        got = arrived() - before
        if got >= sent * (1 - LOST):
            return got / seconds
        low, high = 0.0, sent / seconds
        for _ in range(STEPS):
            rate = (low + high) / 2
            before = arrived()
            sent, seconds = generator.paced(rate, STEP_SECONDS)
            low, high = (rate, high) if arrived() - before >= sent * (1 - LOST) else (low, rate)
        return low


def measure(field: Field, contestants: dict[str, tuple[Contestant, float]]) -> dict[str, list[Figures]]:
    """All rounds; ``cpu`` without what sending costs."""
    result: dict[str, list[Figures]] = {name: [] for name in contestants}
    for _ in range(ROUNDS):
        bare: dict[float, float] = {}
        for name, (contestant, rate) in contestants.items():
            if rate not in bare:
                bare[rate] = field.thrown_away(rate)
            found = field.measure(contestant, rate)
            result[name].append(Figures(found.cpu - bare[rate], found.most, found.p50, found.p99, rate))
    return result


def ratio(results: dict[str, list[Figures]], what: str, ours: str, rival: str) -> float:
    """The median over the rounds of rival / ours, for which less is better; of ``most`` of ours / rival."""
    pairs = [
        (float(getattr(mine, what)), float(getattr(theirs, what)))
        for mine, theirs in zip(results[ours], results[rival], strict=True)
    ]
    return median(mine / theirs if what == "most" else theirs / mine for mine, theirs in pairs)


def lines(results: dict[str, list[Figures]], rivals: Sequence[str]) -> Iterator[str]:
    """What was measured, beside each rival."""

    def middle(name: str, what: str) -> float:
        return median(float(getattr(one, what)) for one in results[name])

    for ours in (name for name in results if name not in rivals):
        for rival in rivals:
            for what, unit, title in (
                ("cpu", f"us/packet, {results[ours][0].rate / 1000:.0f} 000/s", "CPU"),
                ("most", "packets/s", "most"),
                ("p50", "us", "latency p50"),
                ("p99", "us", "latency p99"),
            ):
                name = f"{ours}: {title}"
                times = ratio(results, what, ours, rival)
                yield line(name, middle(ours, what), unit, rival, middle(rival, what), times)


def run() -> Iterator[str]:
    """The lines."""
    cores = two_cores()
    spaces = Namespaces()
    try:
        site = Site(spaces)
        with tempfile.TemporaryDirectory(prefix="mpbench-") as name, on_core(cores[1] if cores else None):
            field = Field(site, Path(name))
            quick = {"forwarding": (forwarding, RATE), "kernel": (plane("kernel"), RATE)}
            rest = {
                "rtpengine": (rtpengine, SLOW),
                "native": (plane("native"), SLOW),
                "user": (plane("user"), SLOW / 2),
            }
            results = measure(field, quick | rest)
            yield from lines(results, ("forwarding", "rtpengine"))
            many = measure(field, {"few": (plane("kernel"), RATE), "many": (plane("kernel", MANY, MANY), RATE)})
            times = ratio(many, "most", "many", "few")
            most = median(one.most for one in many["many"])
            yield line(f"kernel, {MANY} calls: most", most, "packets/s", "200 streams", most / times, times)
    finally:
        spaces.close()
