"""The server under test: ``mediaproxy run`` as a program of its own, and its command line.

Settings come in as nested dicts and are written to a TOML file in the server's folder, where everything else it writes
goes, too.
"""

import json
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from lab.netns import LabError, Namespace, run, start, stop

PROGRAM = Path(sys.executable).with_name("mediaproxy")
"The console script of the environment we run in."

Settings = Mapping[str, Any]

_OPTIONS = (
    "OPTIONS sip:{address} SIP/2.0\r\nVia: SIP/2.0/UDP {own};branch=z9hG4bKlab{n};rport\r\nMax-Forwards: 70\r\n"
    "From: <sip:lab@sip.test>;tag=lab\r\nTo: <sip:lab@sip.test>\r\nCall-ID: lab-{n}\r\nCSeq: 1 OPTIONS\r\n"
    "Content-Length: 0\r\n\r\n"
)


def merge(settings: Settings, changes: Settings) -> dict[str, Any]:
    """``settings`` with ``changes`` on top, table by table."""
    merged = dict(settings)
    for name, value in changes.items():
        old = merged.get(name)
        both = isinstance(old, Mapping) and isinstance(value, Mapping)
        merged[name] = merge(old, value) if both and isinstance(old, Mapping) else value
    return merged


def toml(value: Any) -> str:
    """A value of strings, numbers, booleans, lists and dicts as an inline TOML value."""
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{name} = {toml(one)}" for name, one in value.items()) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(toml, value)) + "]"
    return json.dumps(value)


def document(settings: Settings) -> str:
    """A whole TOML document: one table per top-level dict."""
    plain = [f"{name} = {toml(value)}" for name, value in settings.items() if not isinstance(value, Mapping)]
    for table, values in settings.items():
        if isinstance(values, Mapping):
            plain += ["", f"[{table}]", *(f"{name} = {toml(value)}" for name, value in values.items())]
    return "\n".join(plain) + "\n"


class Server:
    """A running ``mediaproxy run``."""

    def __init__(self, namespace: Namespace | None, folder: Path, settings: Settings, sip: tuple[str, int]) -> None:
        """Start it, in a namespace or just here, and wait until it answers at ``sip``. LabError if it does not."""
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.sip = sip
        self._namespace = namespace
        self._config = folder / "config.toml"
        self._config.write_text(document(settings))
        self._log = folder / "log"
        argv = [str(PROGRAM), "run", "--config", str(self._config)]
        self.process = namespace.start(argv, self._log) if namespace else start(argv, self._log)
        try:
            self._wait_answer()
        except BaseException:
            self.stop()
            raise

    @property
    def log(self) -> str:
        """What it printed so far."""
        return self._log.read_text(errors="replace")

    def _socket(self) -> socket.socket:
        if self._namespace is not None:
            return self._namespace.socket(socket.SOCK_DGRAM)
        return socket.socket(socket.AF_INET, socket.SOCK_DGRAM)

    def _wait_answer(self, seconds: float = 60.0) -> None:
        """Ask OPTIONS until there is an answer."""
        with self._socket() as sock:
            sock.bind((self.sip[0], 0))
            sock.settimeout(0.1)
            deadline = time.monotonic() + seconds
            for n in range(10_000):
                self._check_alive(deadline)
                own = "{}:{}".format(*sock.getsockname())
                with suppress(OSError):  # refused or no answer yet
                    sock.sendto(_OPTIONS.format(address=self.sip[0], own=own, n=n).encode(), self.sip)
                    if sock.recv(65536).startswith(b"SIP/2.0"):
                        return
                time.sleep(0.02)

    def _check_alive(self, deadline: float) -> None:
        """LabError if it has ended, or the time is over."""
        if self.process.poll() is not None:
            raise LabError(f"the server ended with {self.process.returncode}: {self.log[-2000:]}")
        if time.monotonic() > deadline:
            raise LabError(f"the server does not answer: {self.log[-2000:]}")

    def show(self, *argv: str) -> str:
        """What ``mediaproxy ARGV`` prints."""
        return run([str(PROGRAM), *argv, "--config", str(self._config)])

    def ask(self, *argv: str) -> Any:
        """What ``mediaproxy ARGV --json`` says, decoded."""
        return json.loads(self.show(*argv, "--json"))

    def wait(self, what: str, *argv: str, until: Callable[[Any], bool], seconds: float = 30.0) -> Any:
        """Ask until the answer is as wanted; that answer. LabError if it does not become so."""
        deadline = time.monotonic() + seconds
        while True:
            answer = self.ask(*argv)
            if until(answer):
                return answer
            if time.monotonic() > deadline:
                raise LabError(f"{what}: not within {seconds:g} s: {answer}")
            time.sleep(0.1)

    @property
    def alive(self) -> bool:
        """Whether the process still runs."""
        return self.process.poll() is None

    def stop(self) -> int:
        """End it with SIGTERM; its exit status."""
        return stop(self.process, signal.SIGTERM)
