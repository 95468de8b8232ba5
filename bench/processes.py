"""Programs under measurement: where they listen, what CPU time they use, and that none of them outlives the benchmark.

Everything runs on loopback addresses that no other run has, so neither root nor a network namespace is needed.
"""

import os
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from lab.netns import LabError, start, stop, wait_until

_TICK = os.sysconf("SC_CLK_TCK")


def loopback(host: int) -> str:
    """A loopback address of this process alone; ``host`` is 1 to 254."""
    own = os.getpid() & 0x3FFF
    return f"127.{64 + (own >> 8)}.{own & 0xFF}.{host}"


def two_cores() -> tuple[int, int] | None:
    """Two cores that we may use, one for the server and one for its peers; None: there is only one."""
    cores = sorted(os.sched_getaffinity(0))
    return (cores[0], cores[-1]) if len(cores) > 1 else None


def pinned(core: int | None, argv: Sequence[str]) -> list[str]:
    """The command line that runs ``argv`` on one core; None: on any."""
    return list(argv) if core is None else ["taskset", "-c", str(core), *argv]


@contextmanager
def running(argv: Sequence[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A program that ends with the block; its output goes to ``log``."""
    process = start(argv, log)
    try:
        yield process
    finally:
        stop(process)


def wait_answer(what: str, address: tuple[str, int], question: bytes, seconds: float = 15.0) -> None:
    """Wait until there is an answer to a datagram. LabError if there is none in time."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((address[0], 0))
        sock.settimeout(0.2)

        def answered() -> bool:
            try:
                sock.sendto(question, address)
                return bool(sock.recv(65_536))
            except OSError:  # no answer yet, or refused
                return False

        wait_until(f"{what} answers", answered, seconds)


def wait_log(process: subprocess.Popen[bytes], log: Path, text: str, seconds: float = 15.0) -> None:
    """Wait until a program has written ``text``. LabError if it ends before, or does not in time."""

    def there() -> bool:
        if process.poll() is not None:
            raise LabError(f"{log.stem} ended with {process.returncode}: {log.read_text(errors='replace')[-2000:]}")
        return text in log.read_text(errors="replace")

    wait_until(f"{log.stem} writes {text!r}", there, seconds)


def pin(process: subprocess.Popen[bytes], core: int | None) -> None:
    """Keep a program that runs already, all its threads, on one core; None: on any."""
    if core is not None:
        for task in os.listdir(f"/proc/{process.pid}/task"):
            os.sched_setaffinity(int(task), {core})


def cpu_seconds(pid: int) -> float:
    """User and system time that a process, its threads and its living children have used so far (proc(5), 10 ms)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    own = (int(fields[11]) + int(fields[12])) / _TICK
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return own + sum(cpu_seconds(int(child)) for child in children)
