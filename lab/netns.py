"""Network namespaces of one laboratory run, and the programs that run inside them.

A ``Namespaces`` owns every namespace of a run and every process started in one; ``close`` ends the processes and
deletes the namespaces, whatever happened. Names carry the owner's process id (``mp<pid>n<number>-<what>``), so runs
never meet, and a run whose owner died is recognised and swept away by the next one. Programs die with the owner (the
kernel sends them SIGKILL), so not even ``kill -9`` leaves one running.
"""

import atexit
import ctypes
import itertools
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

_NAME = re.compile(r"mp(?P<pid>\d+)n\d+-\w+")
_CLONE_NEWNET = 0x40000000
_NETNS_DIR = Path("/run/netns")
_numbers = itertools.count(1)
_libc = ctypes.CDLL(None, use_errno=True)


class LabError(RuntimeError):
    """Something of the laboratory itself failed: a command, a phone, a server that does not come up."""


def environment(**more: str) -> dict[str, str]:
    """The environment of every program of the laboratory: system folders are searched even if PATH leaves them out,
    and a phone that wants to know its host's name does not wait long for a name server that is not there."""
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    return os.environ | {"PATH": path, "PYTHONUNBUFFERED": "1", "RES_OPTIONS": "timeout:1 attempts:1"} | more


def run(argv: Sequence[str], text: str = "") -> str:
    """Run a command to its end with ``text`` on its input, return its output. LabError tells what it complained."""
    done = subprocess.run(argv, input=text, text=True, capture_output=True, check=False, env=environment())
    if done.returncode != 0:
        raise LabError(f"{' '.join(argv)}: exit {done.returncode}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def start(argv: Sequence[str], log: Path, cwd: Path | None = None) -> subprocess.Popen[bytes]:
    """Start a program that writes to ``log`` and that the kernel kills when this process dies."""
    with log.open("ab") as out:
        return subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", *argv],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            cwd=cwd,
            env=environment(),
        )


def stop(process: subprocess.Popen[bytes], with_signal: int = signal.SIGTERM, patience: float = 20.0) -> int:
    """End a program: politely, after ``patience`` seconds by force. Returns its exit status."""
    if process.poll() is None:
        process.send_signal(with_signal)
        try:
            process.wait(patience)
        except subprocess.TimeoutExpired:
            process.kill()
    return process.wait()


class Namespace:
    """One network namespace and what can be done in it."""

    def __init__(self, name: str) -> None:
        self.name = name
        "The name that ``ip netns`` knows."
        self._processes: list[subprocess.Popen[bytes]] = []

    def argv(self, *argv: str) -> list[str]:
        """The command line that runs ``argv`` in here."""
        # nsenter, since `ip netns exec` remounts / too, which a chroot or a container may not allow
        return ["nsenter", f"--net={_NETNS_DIR / self.name}", "--", *argv]

    def run(self, *argv: str, text: str = "") -> str:
        """Run a command in here to its end. LabError if it fails."""
        return run(self.argv(*argv), text)

    def ip(self, *commands: str) -> None:
        """Run commands of ip(8) in here, each without its leading ``ip``."""
        self.run("ip", "-batch", "-", text="\n".join(commands) + "\n")

    def start(self, argv: Sequence[str], log: Path, cwd: Path | None = None) -> subprocess.Popen[bytes]:
        """Start a program in here; it ends with the namespace at the latest."""
        process = start(self.argv(*argv), log, cwd)
        self._processes.append(process)
        return process

    def socket(self, kind: socket.SocketKind, family: socket.AddressFamily = socket.AF_INET) -> socket.socket:
        """A socket that lives in here, for this process to use."""
        with self.inside():
            return socket.socket(family, kind)

    @contextmanager
    def inside(self) -> Iterator[None]:
        """This thread is in here meanwhile."""
        own = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        inside = os.open(_NETNS_DIR / self.name, os.O_RDONLY)
        try:
            _enter(inside)
            yield
        finally:
            _enter(own)
            os.close(inside)
            os.close(own)

    def terminate(self) -> None:
        """Ask every program started in here to end."""
        for process in self._processes:
            if process.poll() is None:
                process.terminate()

    def end_processes(self, patience: float = 2.0) -> None:
        """End every program started in here; after ``patience`` seconds by force."""
        self.terminate()
        deadline = time.monotonic() + patience
        for process in self._processes:
            stop(process, patience=max(deadline - time.monotonic(), 0.0))
        self._processes.clear()


def _enter(fd: int) -> None:
    if _libc.setns(fd, _CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")


class Namespaces:
    """All namespaces of one run."""

    def __init__(self, prefix: str = "") -> None:
        """``prefix`` is given only for a laboratory that outlives its process (``python -m lab up``)."""
        self.prefix = prefix or f"mp{os.getpid()}n{next(_numbers)}"
        self._all: list[Namespace] = []
        self.keep = False
        "Leave the namespaces standing at exit."
        atexit.register(self.close)

    def add(self, what: str) -> Namespace:
        """A new namespace with its loopback up and without IPv6 noise."""
        namespace = Namespace(f"{self.prefix}-{what}")
        run(["ip", "netns", "add", namespace.name])
        self._all.append(namespace)
        namespace.run("sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1", "net.ipv6.conf.default.disable_ipv6=1")
        namespace.ip("link set lo up")
        return namespace

    def adopt(self, what: str) -> Namespace:
        """A namespace that an earlier process of the same prefix left standing."""
        namespace = Namespace(f"{self.prefix}-{what}")
        if not (_NETNS_DIR / namespace.name).exists():
            raise LabError(f"no namespace {namespace.name}: is the laboratory up?")
        self._all.append(namespace)
        return namespace

    def close(self) -> None:
        """End what runs in the namespaces and delete them. May be called twice."""
        for namespace in self._all:
            namespace.terminate()
        deadline = time.monotonic() + 3.0
        for namespace in self._all:
            namespace.end_processes(max(deadline - time.monotonic(), 0.0))
        if not self.keep:
            for namespace in self._all:
                delete(namespace.name)
        self._all.clear()
        atexit.unregister(self.close)


def delete(name: str) -> None:
    """Kill what still runs in a namespace and delete it; no error if it is gone."""
    if not (_NETNS_DIR / name).exists():
        return
    for pid in run(["ip", "netns", "pids", name]).split():
        with suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)
    with suppress(LabError):
        run(["ip", "netns", "del", name])


def sweep() -> list[str]:
    """Delete the namespaces of runs whose owner is dead; returns their names."""
    names = os.listdir(_NETNS_DIR) if _NETNS_DIR.exists() else []
    stale = []
    for name in names:
        match = _NAME.fullmatch(name)
        if match and not Path("/proc", match["pid"]).exists():
            delete(name)
            stale.append(name)
    return stale


def end_on_signals() -> None:
    """Turn SIGTERM and SIGHUP into SystemExit, so that ``finally`` and atexit clean up as they do on Ctrl-C."""

    def leave(number: int, frame: FrameType | None) -> None:
        sys.exit(128 + number)

    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, leave)


def wait_until(what: str, check: Callable[[], bool], seconds: float = 30.0, step: float = 0.05) -> None:
    """Wait until ``check`` holds. LabError with ``what`` when it does not within ``seconds``."""
    deadline = time.monotonic() + seconds
    while not check():
        if time.monotonic() > deadline:
            raise LabError(f"{what}: not within {seconds:g} s")
        time.sleep(step)
