"""What 10 000 calls that stand at once cost ``mediaproxy run``, set up through NG and through MediaProxy 2.x.

The server is as it is installed: kernel plane, journal, records; in a network namespace of its own, which needs root.
One SIP server asks, each question after the answer to the one before: an offer and an answer per call, from phones
with addresses and ports of their own. No media is sent.

- *memory*: resident, per call, without that of the process before; beside what rtpengine 10.5 takes for the same call
  in the kernel, as measured elsewhere.
- *set-up*: calls per second of the server's CPU time, the first thousand and the last one.
"""

import os
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from bench.doors import CONFIGURATION, PORT, requests
from bench.processes import cpu_seconds
from bench.report import alone, line
from lab.netns import LabError, Namespace, Namespaces, wait_until
from mediaproxy.dialects.ng.bencode import encode

CALLS = 10_000
PART = 1_000
RIVAL = 54.0
"kB per call that rtpengine takes."
_SETTINGS = """max_calls = 10000
unanswered = 3600
silence = 3600
"""
_UPDATE = (
    "update\r\ntype: {kind}\r\ndialog_id: {number}:7\r\ncall_id: held-{number}\r\ncseq: 1\r\nfrom_uri: a@a.example\r\n"
    "to_uri: b@a.example\r\nfrom_tag: ft{number}\r\nto_tag: {tag}\r\nuser_agent: bench\r\nsignaling_ip: {address}\r\n"
    "media_relay: \r\nmedia: audio:{address}:{port}:sendrecv:ice=no\r\n\r\n"
)

SetUp = Callable[[int], None]


def phone(number: int, side: int) -> tuple[str, int]:
    """Address and port of a phone of a call."""
    return f"198.{18 + side}.{number >> 8}.{number & 0xFF}", 4000 + 2 * (number % 20_000)


def by_ng(sock: socket.socket) -> SetUp:
    """Set up one call through NG."""
    sock.settimeout(5.0)

    def set_up(number: int) -> None:
        for side, request in enumerate(requests(f"held-{number}")[:2]):
            address, port = phone(number, side)
            sdp = str(request["sdp"]).replace(f"198.51.100.{7 + side}", address)
            sdp = sdp.replace(f"m=audio {4000 + 2 * side} ", f"m=audio {port} ").replace("- 1 1", f"- {number} 1")
            sock.send(b"%d_%d %b" % (number, side, encode(request | {"sdp": sdp, "received-from": ["IP4", address]})))
            _good(sock.recv(65_536), b"6:result2:ok")

    return set_up


def by_mediaproxy(sock: socket.socket) -> SetUp:
    """Set up one call through MediaProxy 2.x."""
    sock.settimeout(5.0)

    def set_up(number: int) -> None:
        for side, (kind, tag) in enumerate((("request", ""), ("reply", f"tt{number}"))):
            address, port = phone(number, side)
            sock.sendall(_UPDATE.format(kind=kind, number=number, tag=tag, address=address, port=port).encode())
            _good(sock.recv(4096), b"127.0.0.1 ")

    return set_up


def _good(answer: bytes, with_: bytes) -> None:
    if with_ not in answer:
        raise LabError(f"a call was refused: {answer[:200]!r}")


def resident(pid: int) -> int:
    """Bytes."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def measure(space: Namespace, folder: Path, connect: Callable[[Namespace, Path], SetUp]) -> tuple[float, float, float]:
    """Bytes per call, and calls per CPU second of the first and the last ones."""
    file, log = folder / "mediaproxy.toml", folder / "mediaproxy.log"
    text = CONFIGURATION.format(folder=folder, address="127.0.0.1").replace('plane = "user"', 'plane = "kernel"')
    text = text.replace("journal = false", "journal = true").replace("port_min = 20000", "port_min = 16384")
    file.write_text(text + _SETTINGS)
    server = space.start((sys.executable, "-m", "mediaproxy", "run", "--config", str(file)), log)
    try:
        wait_until("the server's socket", lambda: (folder / "run" / "dispatcher.sock").exists(), seconds=60.0)
        set_up = connect(space, folder)
        for number in range(CALLS, CALLS + 100):
            set_up(number)
        pid = server.pid
        before, spent = resident(pid), [cpu_seconds(pid)]
        for number in range(CALLS - 100):
            set_up(number)
            if number % PART == PART - 1 or number == CALLS - 101:
                spent.append(cpu_seconds(pid))
        took = resident(pid) - before
    finally:
        server.terminate()
        server.wait(60.0)
    last = (CALLS - 100) % PART or PART
    return took / (CALLS - 100), PART / (spent[1] - spent[0]), last / (spent[-1] - spent[-2])


def run() -> Iterator[str]:
    """The lines."""
    spaces = Namespaces()
    try:
        for name, door in (("NG", _ng), ("MediaProxy 2.x", _mediaproxy)):
            with tempfile.TemporaryDirectory(prefix="mpbench-") as temporary:
                space, folder = spaces.add("held" + name[:2].lower()), Path(temporary)
                size, first, last = measure(space, folder, door)
            size /= 1000
            yield line(f"{CALLS} calls by {name}: memory", size, "kB/call", "rtpengine", RIVAL, RIVAL / size)
            yield alone(f"  set-up, the first {PART}", first, "calls/CPU s")
            yield line(f"  set-up, the last {PART}", last, "calls/CPU s", "the first ones", first)
    finally:
        spaces.close()


def _ng(space: Namespace, folder: Path) -> SetUp:
    sock = space.socket(socket.SOCK_DGRAM)
    sock.connect(("127.0.0.1", PORT))
    return by_ng(sock)


def _mediaproxy(space: Namespace, folder: Path) -> SetUp:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.connect(str(folder / "run" / "dispatcher.sock"))
    return by_mediaproxy(sock)
