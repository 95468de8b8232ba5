"""A real Kamailio with our module in it, for tests: the example's config and script, or others.

    with Kamailio(folder, ["udp:127.0.0.1:5070"], settings={"mediaproxy_socket": str(socket)}) as kamailio:
        ...  # SIP to 127.0.0.1:5070; kamailio.log is what it printed

``settings`` are those of examples/kamailio/router.py. Another script: ``script="text of a router.py"``; another
config: ``options=["-f", "FILE"]``. In a namespace: ``namespace=site.internet`` and addresses that are there.
Kamailio's Python is Debian's (`make kamailio-venv` makes its environment, ``VENV``). All its processes end when
``stop`` is called, when the namespace ends, or when this process dies, however it dies.
"""

import os
import signal
import socket
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from lab.netns import LabError, Namespace, start, stop

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "examples" / "kamailio"
VENV = Path(os.environ.get("MEDIAPROXY_KAMAILIO_VENV", ROOT / ".venv-kamailio"))
"The environment of Kamailio's own Python, made by /usr/bin/python3."

# The first process of a process namespace takes all others with it. Kamailio cannot be that: it gives up the kernel's
# promise to end with its parent when it changes its user.
_WRAP = ("unshare", "--pid", "--fork", "--kill-child=KILL", "--", "sh", "-c")
_INIT = '"$@" & trap "kill -TERM $!" TERM; wait $!; wait $!'

_SCRIPT = """\
import sys
sys.path.insert(0, {folder!r})
import router
def mod_init():
    return router.Router(**{settings!r})
"""


class Kamailio:
    """A running Kamailio. It is up when the constructor returns. LabError if it does not come up."""

    def __init__(
        self,
        folder: Path,
        listen: Sequence[str],
        *,
        settings: Mapping[str, Any] | None = None,
        script: str = "",
        namespace: Namespace | None = None,
        options: Sequence[str] = (),
    ) -> None:
        """``folder``: for what it writes; made if need be. ``listen``: such as ``udp:127.0.0.1:5070``; the first is
        asked whether it is up. ``script``: a router.py instead of the example's. ``options``: of kamailio(8), such as
        ``-f FILE`` for another config, ``-n 8``, or ``-u kamailio`` (then the folder must be open to that user)."""
        if not (VENV / "bin" / "python3").exists():
            raise LabError(f"{VENV}: not there; make kamailio-venv")
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self._listen = listen
        self._namespace = namespace
        self._log = folder / "kamailio.log"
        router = folder / "script.py"
        router.write_text(script or _SCRIPT.format(folder=str(EXAMPLE), settings=dict(settings or {})))
        argv = [*_WRAP, _INIT, "sh", "env", f"PATH={VENV}/bin:{os.environ.get('PATH', '')}:/usr/sbin", "kamailio"]
        argv += [] if "-f" in options else ["-f", str(EXAMPLE / "kamailio.cfg")]
        argv += ["-DD", "-E", "-Y", str(folder), "-w", str(folder), "-m", "64", "-M", "16"]
        argv += [word for place in listen for word in ("-l", place)]
        argv += ["-A", f'ROUTER="{router}"', *options]
        self.process = namespace.start(argv, self._log, folder) if namespace else start(argv, self._log, folder)
        try:
            self._wait_up()
        except BaseException:
            self.stop()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def log(self) -> str:
        """What it printed so far."""
        return self._log.read_text(errors="replace")

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return self.process.poll() is None

    def wait_log(self, text: str, seconds: float = 30.0) -> None:
        """Wait until a text is in its log. LabError if it does not come."""
        deadline = time.monotonic() + seconds
        while text not in self.log:
            if time.monotonic() > deadline:
                raise LabError(f"{text!r} is not in the log after {seconds:g} s: {self.log[-2000:]}")
            time.sleep(0.05)

    def stop(self) -> int:
        """End all its processes; the exit status."""
        init = self._children(self.process.pid)
        for pid in init:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        with suppress(Exception):
            self.process.wait(5.0)
        return stop(self.process, signal.SIGKILL)

    @property
    def pids(self) -> list[int]:
        """Its processes, the first one first, as this host numbers them."""
        return [
            pid
            for init in self._children(self.process.pid)
            for main in self._children(init)
            for pid in (main, *self._children(main))
        ]

    @staticmethod
    def _children(pid: int) -> list[int]:
        try:
            return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
        except OSError:
            return []

    def _socket(self, family: socket.AddressFamily) -> socket.socket:
        if self._namespace is not None:
            return self._namespace.socket(socket.SOCK_DGRAM, family)
        return socket.socket(family, socket.SOCK_DGRAM)

    def _wait_up(self, seconds: float = 60.0) -> None:
        """Send OPTIONS without a user until there is some answer."""
        _, _, place = self._listen[0].partition(":")
        host, _, port = place.rpartition(":")
        family = socket.AF_INET6 if "[" in host else socket.AF_INET
        deadline = time.monotonic() + seconds
        with self._socket(family) as sock:
            sock.bind((host.strip("[]"), 0))
            sock.settimeout(0.2)
            own = f"{host}:{sock.getsockname()[1]}"
            for n in range(10_000):
                if not self.alive or time.monotonic() > deadline:
                    raise LabError(f"Kamailio does not come up: {self.log[-3000:]}")
                request = (
                    f"OPTIONS sip:{place} SIP/2.0\r\nVia: SIP/2.0/UDP {own};branch=z9hG4bKup{n}\r\nMax-Forwards: 70\r\n"
                    f"From: <sip:lab@sip.test>;tag=up\r\nTo: <sip:{place}>\r\nCall-ID: up-{n}\r\nCSeq: 1 OPTIONS\r\n"
                    "Content-Length: 0\r\n\r\n"
                )
                with suppress(OSError):
                    sock.sendto(request.encode(), (host.strip("[]"), int(port)))
                    if sock.recv(65536).startswith(b"SIP/2.0"):
                        return
                time.sleep(0.02)
