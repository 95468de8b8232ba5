"""The daemon of Debian's package rtpengine-daemon, and what it says to the calls of ngdialogs.

As a program (``python -m tests.ngdaemon``) it writes tests/data/ng/rtpengine-10.5.json.
"""

import itertools
import json
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mediaproxy.dialects.ng import bencode
from tests.ngcases import Case, masked
from tests.ngdialogs import CALLS

PROGRAM = shutil.which("rtpengine")
GOLDEN = Path(__file__).with_name("data") / "ng" / "rtpengine-10.5.json"
_INTERFACES = ("int/127.0.0.1", "ext/127.0.0.2!203.0.113.9", "six/::1")
_TRIES = 600


class Daemon:
    """One that runs, and a socket to ask it."""

    def __init__(self, port: int) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.connect(("127.0.0.1", port))
        self._cookies = itertools.count()

    def ask(self, request: Mapping[str, Any], seconds: float = 30.0) -> dict[str, Any]:
        """The answer to one request. TimeoutError."""
        self._socket.settimeout(seconds)
        cookie = b"%d" % next(self._cookies)
        self._socket.send(b"%b %b" % (cookie, bencode.encode(request)))
        while True:
            got, _, answer = self._socket.recv(65535).partition(b" ")
            if got == cookie:
                decoded = bencode.decode(answer)
                assert isinstance(decoded, dict)
                return {key.decode(): value for key, value in decoded.items()}

    def play(self, case: Case, name: str) -> list[str]:
        """What it says in a call, masked."""
        answers = [self.ask({**step, **({"call-id": name} if "call-id" in step else {})}) for step in case.steps]
        self.ask({"command": "delete", "call-id": name})
        return masked(answers)

    def close(self) -> None:
        """Ask no more."""
        self._socket.close()


@contextmanager
def running(log: Path) -> Iterator[Daemon]:
    """A daemon of its own."""
    assert PROGRAM is not None
    port, cli = _free_port(), _free_port()
    options = [f"--interface={one}" for one in _INTERFACES]
    options += [f"--listen-ng=127.0.0.1:{port}", f"--listen-cli=127.0.0.1:{cli}", "--delete-delay=0", "--log-level=4"]
    options += ["--port-min=30000", "--port-max=39999", "--foreground", "--log-stderr", "--table=-1"]
    with (
        log.open("wb") as stream,
        subprocess.Popen([PROGRAM, "--config-file=none", *options], stderr=stream) as process,
    ):
        daemon = Daemon(port)
        try:
            _wait(daemon, process)
            yield daemon
        finally:
            daemon.close()
            process.terminate()


def _wait(daemon: Daemon, process: subprocess.Popen[bytes]) -> None:
    for _ in range(_TRIES):
        try:
            if daemon.ask({"command": "ping"}, 1.0)["result"] == b"pong":
                return
        except OSError:
            if process.poll() is not None:
                break
            time.sleep(0.1)
    raise RuntimeError(f"rtpengine does not answer; it ended with {process.poll()}")


def _free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def main() -> None:
    """Write the file."""
    with running(Path("/dev/null")) as daemon:
        said = {name: daemon.play(case, f"call-{number}") for number, (name, case) in enumerate(CALLS.items())}
    GOLDEN.parent.mkdir(parents=True, exist_ok=True)
    GOLDEN.write_text(json.dumps(said, indent=1, ensure_ascii=True) + "\n")
    sys.stdout.write(f"{len(said)} calls in {GOLDEN}\n")


if __name__ == "__main__":
    main()
