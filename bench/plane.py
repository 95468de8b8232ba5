"""How many media packets a second one core relays in user space, and at what cost, beside rtpengine-daemon.

Ours once by threads in C (``relay.plane = "native"``) and once by Python (``"user"``). All relay the same calls, set
up by offer and answer, on one core; the other core plays all phones. Each phone sends 172-byte RTP packets from the
address in its SDP and must get those of its peer: first at the pace of real phones, 50 packets/s each, to see what a
packet costs; then ever faster until some are lost. A phone hears behind a drop-all filter and its kernel counts what
arrived, so hearing costs a relay nothing but the delivery. The phones' own limit is not far above ours. Loopback: no
network card, so figures are good for comparison only.
"""

import asyncio
import os
import re
import socket
import struct
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from ctypes import addressof, create_string_buffer
from dataclasses import dataclass
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from statistics import median
from subprocess import Popen

from bench.mediarelay import PORTS
from bench.processes import cpu_seconds, loopback, pin, pinned, running, two_cores, wait_answer
from bench.report import line
from lab.netns import LabError, wait_until
from lab.netns import run as run_program
from mediaproxy.control import KnownBy, MediaRequest, Party, PayloadType, PhoneAddress, Stream
from mediaproxy.endpoint import Endpoint
from mediaproxy.link import UnixLink

CALLS = 200
ROUNDS = 3
"Of each relay, in turn; the median counts."
PACE = CALLS * 2 * 50
"Packets per second of real phones."
PACED_SECONDS = 3.0
FIRST_RATE, STEP, STEP_SECONDS = 60_000.0, 1.1, 0.4
"How the pace rises to find the most."
TRIES = 3
"Steps that are repeated because something else held the phones up."
LOST = 0.005
"Part of the packets that may be lost."

_SO_ATTACH_FILTER, _SO_MEMINFO, _DROPS = 26, 55, 8
_DROP_ALL = create_string_buffer(struct.pack("HBBI", 0x06, 0, 0, 0))
_SDP = "v=0\r\no=- 1 1 IN IP4 {0}\r\ns=-\r\nc=IN IP4 {0}\r\nt=0 0\r\nm=audio {1} RTP/AVP 0\r\na=rtpmap:0 PCMU/8000\r\n"


class Phone:
    """A phone's RTP socket. What it hears is counted by the kernel and thrown away."""

    def __init__(self, address: str) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind((address, 0))
        program = struct.pack("HL", 1, addressof(_DROP_ALL))
        self.socket.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)
        self.endpoint = Endpoint(*self.socket.getsockname())
        self._sent = 0

    @property
    def heard(self) -> int:
        """Packets that have arrived so far."""
        return int(struct.unpack("9I", self.socket.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, 36))[_DROPS])

    def packet(self) -> bytes:
        """The next RTP packet: 20 ms of PCMU."""
        self._sent += 1
        return struct.pack("!BBHII", 0x80, 0, self._sent & 0xFFFF, self._sent * 160, id(self) & 0xFFFFFFFF) + bytes(160)


class Late(LabError):
    """The phones could not keep the pace: what was measured says nothing about the relay."""


@dataclass(frozen=True, slots=True)
class Relay:
    """A relay under measurement and its phones."""

    name: str
    process: Popen[bytes]
    phones: Sequence[Phone]


@dataclass(frozen=True, slots=True)
class Result:
    """One round."""

    most: float
    "Packets per second relayed without loss."
    late: bool
    "The phones could not send more."
    cpu_rate: float
    "Packets per second of CPU time, at the pace of real phones."


# -- set-up


@contextmanager
def ours(plane: str, folder: Path, host: int, core: int | None) -> Iterator[Relay]:
    """Our relay on one of its planes, with all calls set up."""
    address, path = loopback(host), folder / "relay.sock"
    argv = [sys.executable, "-m", "bench.mediarelay", address, str(path), plane]
    with running(pinned(core, argv), folder / "mediarelay.log") as process:
        wait_until("our relay listens", path.exists, 15.0)
        phones = [Phone(loopback(host + 1 + number % 2)) for number in range(2 * CALLS)]
        asyncio.run(_set_up(path, phones))
        yield Relay("mediaproxy", process, phones)


async def _set_up(path: Path, phones: Sequence[Phone]) -> None:
    link = UnixLink(path)
    for number in range(0, len(phones), 2):
        pair = phones[number : number + 2]
        tags = [Party(tag="a"), Party(tag="b")]
        for side, phone in enumerate(pair):
            reply = await link.ask(
                MediaRequest(
                    call_id=f"call-{number}",
                    sender=tags[side],
                    receiver=tags[1 - side],
                    cseq=1,
                    sdp_hash=str(side),
                    status=200 * side,
                    phone=PhoneAddress(endpoint=phone.endpoint, known_by=KnownBy.SOURCE),
                    streams=(
                        Stream(
                            kind="audio",
                            transport="RTP/AVP",
                            endpoint=phone.endpoint,
                            payload_types=(PayloadType(number=0, codec="PCMU", clock_rate=8000),),
                        ),
                    ),
                )
            )
            port = reply.ports[0] if reply.ports else None
            if port is None:
                raise LabError(f"our relay: {reply.error}")
            pair[1 - side].socket.connect((port.rtp.address, port.rtp.port))
    await link.close()


@contextmanager
def rtpengine(folder: Path, host: int, core: int | None) -> Iterator[Relay]:
    """rtpengine-daemon in user space with all calls set up."""
    address = loopback(host)
    argv = ["rtpengine", "--config-file=none", "--foreground", "--log-stderr", "--log-level=4", "--table=-1"]
    argv += [f"--interface={address}", f"--listen-ng={address}:2223", "--num-threads=1"]
    argv += [f"--port-min={PORTS[0]}", f"--port-max={PORTS[1]}"]
    with running(pinned(core, argv), folder / "rtpengine.log") as process:
        wait_answer("rtpengine", (address, 2223), b"1 d7:command4:pinge")
        pin(process, core)
        phones = [Phone(loopback(host + 1 + number % 2)) for number in range(2 * CALLS)]
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
            control.settimeout(5.0)
            control.connect((address, 2223))
            for number in range(0, len(phones), 2):
                _offer_answer(control, f"call-{number}", phones[number], phones[number + 1])
        said = re.search(r"[0-9]+(\.[0-9]+)+", run_program(["rtpengine", "--version"]))
        yield Relay(f"rtpengine {said.group(0) if said else ''}".rstrip(), process, phones)


def _offer_answer(control: socket.socket, call_id: str, caller: Phone, callee: Phone) -> None:
    for command, phone, peer in (("offer", caller, callee), ("answer", callee, caller)):
        words = {"call-id": call_id, "command": command, "from-tag": "a", "sdp": _SDP.format(*_pair(phone.endpoint))}
        if command == "answer":
            words["to-tag"] = "b"
        text = "".join(f"{len(part)}:{part}" for item in sorted(words.items()) for part in item)
        control.send(f"{call_id}-{command} d{text}e".encode())
        reply = control.recv(65_536)
        port, address = re.search(rb"m=audio (\d+)", reply), re.search(rb"c=IN IP4 ([0-9.]+)", reply)
        if port is None or address is None:
            raise LabError(f"rtpengine: {reply.decode('latin-1')}")
        peer.socket.connect((address.group(1).decode(), int(port.group(1))))


def _pair(endpoint: Endpoint) -> tuple[str, int]:
    return endpoint.address, endpoint.port


# -- measuring


@contextmanager
def on_core(core: int | None) -> Iterator[None]:
    """This process, which plays the phones, runs on one core until the block ends; None: on any.

    Root also puts it, and the relays that it starts, before whatever else the machine is doing.
    """
    cores, nice = os.sched_getaffinity(0), os.getpriority(os.PRIO_PROCESS, 0)
    if core is not None:
        os.sched_setaffinity(0, {core})
    with suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, min(nice, -15))
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)
        os.setpriority(os.PRIO_PROCESS, 0, nice)


def warm_up(relay: Relay) -> None:
    """Both ends of every call send until each has heard the other. LabError if one never does."""
    heard = {phone: phone.heard for phone in relay.phones}

    def all_hear() -> bool:
        for phone in relay.phones:
            phone.socket.send(phone.packet())
        time.sleep(0.02)
        return all(phone.heard - before >= 10 for phone, before in heard.items())

    wait_until(f"everybody hears somebody through {relay.name}", all_hear, 15.0)


def send(relay: Relay, rate: float, seconds: float) -> tuple[int, int]:
    """Packets sent at ``rate`` per second, a few each millisecond, every phone in turn; and those that arrived."""
    packets, step = int(rate * seconds), max(1, int(rate / 1000))
    sends = cycle([(phone.socket.send, phone.packet()) for phone in relay.phones])
    before = _heard(relay)
    begin = time.perf_counter()
    for sent in range(0, packets, step):
        time.sleep(max(0.0, begin + sent / rate - time.perf_counter()))
        for push, packet in islice(sends, step):
            push(packet)
    late = time.perf_counter() - begin - seconds
    heard = _settled(relay) - before
    if late > 0.05 * seconds:
        raise Late(f"the phones cannot send {rate:.0f} packets/s")
    return packets, heard


def at_pace(relay: Relay) -> float:
    """Packets per second of the relay's CPU time, at the pace of phones. LabError if it loses some at every try."""
    for _ in range(TRIES):
        cpu = cpu_seconds(relay.process.pid)
        with suppress(Late):
            sent, heard = send(relay, PACE, PACED_SECONDS)
            if heard >= sent * (1 - LOST):
                return heard / (cpu_seconds(relay.process.pid) - cpu)
    raise LabError(f"{relay.name} loses packets at the pace of phones, or this machine has too much else to do")


def most(relay: Relay) -> tuple[float, bool]:
    """Packets per second relayed with hardly a loss: ever faster, until every try has some. The relay may be unusable
    then: rtpengine gives a port up for good when its queue has been long five times. Also
    whether the phones, not the relay, set that limit."""
    rate, best, late = FIRST_RATE, 0.0, False
    try:
        while _keeps(relay, rate):
            rate, best = rate * STEP, rate
    except Late:
        late = True
    if not best:
        raise LabError(f"{relay.name} or the phones did not even keep {FIRST_RATE:.0f} packets/s")
    return best, late


def _keeps(relay: Relay, rate: float) -> bool:
    """Whether the relay keeps that pace, at the third try at the latest: something else may hold it up."""
    tries = late = 0
    while tries < 3:
        try:
            sent, heard = send(relay, rate, STEP_SECONDS)
        except Late:
            late += 1
            if late > TRIES:
                raise
            continue
        if heard >= sent * (1 - LOST):
            return True
        tries += 1
    return False


def _settled(relay: Relay) -> int:
    """What was heard when nothing more comes: what comes late is not lost."""
    heard = _heard(relay)
    while True:
        time.sleep(0.1)
        before, heard = heard, _heard(relay)
        if heard == before:
            return heard


def _heard(relay: Relay) -> int:
    return sum(phone.heard for phone in relay.phones)


def measure(folder: Path) -> tuple[str, dict[str, list[Result]]]:
    """All rounds of all relays, in turn, each with a fresh process; and the rival's name."""
    starts: dict[str, Callable[[Path, int, int | None], AbstractContextManager[Relay]]] = {
        "native": partial(ours, "native"),
        "user": partial(ours, "user"),
        "rtpengine": rtpengine,
    }
    cores = two_cores()
    relay_core, phone_core = cores or (None, None)
    results: dict[str, list[Result]] = {name: [] for name in starts}
    rival = ""
    with on_core(phone_core):
        for number in range(ROUNDS):
            for at, (name, start) in enumerate(starts.items()):
                place = folder / f"{name}{number}"
                place.mkdir()
                with start(place, 3 * at + 1, relay_core) as relay:
                    rival = relay.name
                    warm_up(relay)
                    cpu_rate = at_pace(relay)
                    rate, late = most(relay)
                    results[name].append(Result(rate, late, cpu_rate))
                for phone in relay.phones:
                    phone.socket.close()
    return rival, results


def run() -> Iterator[str]:
    """The lines."""
    with tempfile.TemporaryDirectory(prefix="mpbench-") as folder:
        rival, results = measure(Path(folder))
    theirs = results.pop("rtpengine")
    for name, mine in results.items():
        limit = " (phones' limit)" if any(result.late for result in mine) else ""
        yield line(f"{name}, one core{limit}", *_beside("most", "packets/s", mine, rival, theirs))
        yield line(f"{name}, {PACE} packets/s", *_beside("cpu_rate", "packets/CPU s", mine, rival, theirs))


def _beside(
    what: str, unit: str, mine: list[Result], rival: str, theirs: list[Result]
) -> tuple[float, str, str, float, float]:
    """The medians, and the median of the rounds' ratios."""
    pairs = [(float(getattr(one, what)), float(getattr(other, what))) for one, other in zip(mine, theirs, strict=True)]
    ratio = median(one / other for one, other in pairs)
    return median(one for one, _ in pairs), unit, rival, median(other for _, other in pairs), ratio
