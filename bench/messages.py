"""How many INVITEs one core repairs in a second: read, NAT test, fix_contact, relay ports into the SDP, written again.

The INVITEs in ``invites/`` are what real phones sent (docs/benchmarks.md); each copy that is measured differs from all
others in addresses, Call-ID, tag, branch and ports, so nothing can be remembered from one to the next. Two rivals:
``sipmessage`` within this process, which has no SDP, and Kamailio over UDP, against a small loop around our functions.
"""

import random
import re
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from bench.kamailio import STATELESS, kamailio, version
from bench.processes import cpu_seconds, loopback, running, wait_log
from bench.report import line
from lab.netns import LabError
from mediaproxy.control import MediaPort
from mediaproxy.endpoint import Endpoint
from mediaproxy.nat import Arrival, client_nat_test, fix_contact, force_rport
from mediaproxy.sdp import Sdp
from mediaproxy.sip.message import Message, Request, parse
from mediaproxy.traversal import sdp_part

SERVER = Endpoint("203.0.113.10", 5060)
COPIES = 600
"Of each INVITE."
ROUNDS = 5
"Each measures every copy once; the median of the rounds counts."
WINDOW = 32
"INVITEs on their way through a server at a time."


@dataclass(frozen=True, slots=True)
class Case:
    """One INVITE and where it came from."""

    data: bytes
    arrival: Arrival


def cases(copies: int = COPIES, seed: int = 1) -> list[Case]:
    """Copies of all INVITEs, no two alike, phones of different kinds mixed."""
    rng = random.Random(seed)
    originals = [file.read_bytes() for file in sorted(Path(__file__).with_name("invites").glob("*.sip"))]
    return [Case(_another(data, rng), _arrival(rng)) for _ in range(copies) for data in originals]


def _another(data: bytes, rng: random.Random) -> bytes:
    """The INVITE as another phone of its kind would send it, of the same length."""
    text = data.decode("latin-1")
    text = text.replace("192.168.1.10", f"192.168.{rng.randint(1, 9)}.{rng.randint(10, 99)}")
    text = re.sub(r"(?<=m=audio |m=video )[0-9]+", lambda _: str(rng.randrange(10_000, 60_000, 2)), text)
    unique = r"(?<=;tag=)[^;\r]+|(?<=;branch=z9hG4bK)[^;\r]+|(?<=Call-ID: )[^\r]+"
    text = text.replace("sip:alice", f"sip:{_letters(5, rng)}")
    return re.sub(unique, lambda found: _letters(len(found.group()), rng), text).encode("latin-1")


def _letters(count: int, rng: random.Random) -> str:
    return "".join(rng.choices("abcdefghijklmnopqrstuvwxyz0123456789", k=count))


def _arrival(rng: random.Random) -> Arrival:
    source = Endpoint(f"198.51.{rng.randint(0, 255)}.{rng.randint(1, 254)}", rng.randint(1024, 65535))
    return Arrival(source, "udp", SERVER)


def _ports(count: int) -> list[MediaPort]:
    first = Endpoint(SERVER.address, 30_000)
    return [MediaPort(rtp=first.with_port(30_000 + 4 * n), rtcp=first.with_port(30_001 + 4 * n)) for n in range(count)]


def repaired(message: Request, arrival: Arrival) -> Message:
    """What is measured, between reading and writing."""
    if client_nat_test(message, arrival, 7):
        message = fix_contact(message, arrival) or message
    part = sdp_part(message)
    if part is None:
        return message
    sdp = Sdp.parse(part.sdp)
    sdp = sdp.with_ports(_ports(len(sdp.sections)))
    return message.with_body(part.with_sdp(bytes(sdp)))


def ours(case: Case) -> bytes:
    """Read, repair, write."""
    message = parse(case.data)
    assert isinstance(message, Request)
    return bytes(repaired(message, case.arrival))


def _per_second(work: Callable[[Case], bytes], todo: list[Case]) -> float:
    begin = time.process_time()
    for case in todo:
        work(case)
    return len(todo) / (time.process_time() - begin)


# -- over UDP


def serve(listen: Endpoint, next_hop: Endpoint) -> None:
    """Our side over UDP, as Kamailio's configuration does it: repair each request, put a Via on it, forward it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((listen.address, listen.port))
        print("ready", flush=True)
        for number in range(sys.maxsize):
            data, (host, port) = sock.recvfrom(65_536)
            arrival = Arrival(Endpoint(host, port), "udp", listen)
            message = parse(data)
            assert isinstance(message, Request)
            sent = repaired(force_rport(message, arrival), arrival)
            via = f"SIP/2.0/UDP {listen};branch=z9hG4bKbench{number:x}"
            sock.sendto(bytes(sent.prepend("Via", via)), (next_hop.address, next_hop.port))


def _through(pid: int, server: Endpoint, next_hop: Endpoint, todo: list[Case]) -> float:
    """Send all INVITEs through a server; how many it repairs per second of its CPU time."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((next_hop.address, next_hop.port))
        sock.settimeout(5.0)
        begin = cpu_seconds(pid)
        for at in range(0, len(todo), WINDOW):
            for case in todo[at : at + WINDOW]:
                sock.sendto(case.data, (server.address, server.port))
            for _ in todo[at : at + WINDOW]:
                sock.recv(65_536)
        return len(todo) / (cpu_seconds(pid) - begin)


def _over_udp(todo: list[Case]) -> str:
    us, rival, peer = (Endpoint(loopback(host), 5060) for host in (1, 2, 3))
    with tempfile.TemporaryDirectory(prefix="mpbench-") as name:
        folder = Path(name)
        argv = [sys.executable, "-m", "bench.messages", str(us), str(peer)]
        route = {"relay": SERVER.address, "next_hop": str(peer)}
        with (
            running(argv, folder / "door.log") as door,
            kamailio(folder, STATELESS, str(rival), values=route) as other,
        ):
            wait_log(door, folder / "door.log", "ready")
            results = [
                (_through(door.pid, us, peer, todo), _through(other.pid, rival, peer, todo * 3)) for _ in range(ROUNDS)
            ]
    value, rival_value = (median(column) for column in zip(*results, strict=True))
    return line("messages, over UDP", value, "INVITEs/CPU s", f"{version()} (nat_traversal, nathelper)", rival_value)


def run() -> Iterator[str]:
    """The lines."""
    from bench import sipmessages  # only who measures needs the package

    def theirs(case: Case) -> bytes:
        return sipmessages.repaired(case.data, case.arrival.source)

    todo = cases()
    results = [(_per_second(ours, todo), _per_second(theirs, todo)) for _ in range(ROUNDS)]
    value, rival_value = (median(column) for column in zip(*results, strict=True))
    yield line("messages, in the process", value, "INVITEs/s", sipmessages.NAME, rival_value)
    yield _over_udp(todo)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        raise LabError("for bench.messages itself; use python -m bench messages")
    serve(Endpoint.parse(sys.argv[1]), Endpoint.parse(sys.argv[2]))
