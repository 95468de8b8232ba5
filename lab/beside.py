"""Our server with a Kamailio in front of it, as one: what both kinds (lab/hosts.py, lab/stock.py) have in common."""

import socket
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from lab.kamailio import Kamailio
from lab.netns import Namespace
from lab.server import Server, Settings


class Beside(Server):
    """``mediaproxy run`` that is asked at a UNIX socket, and a Kamailio that asks."""

    def __init__(
        self,
        namespace: Namespace | None,
        folder: Path,
        settings: Settings,
        sip: tuple[str, int],
        questions: Path,
        start: Callable[[list[str]], Kamailio],
    ) -> None:
        """``questions``: the socket. ``start``: starts Kamailio, given where it listens, when the server runs."""
        self._kamailio: Kamailio | None = None
        self._questions = questions
        super().__init__(namespace, folder, settings, sip)
        host, port = sip
        try:
            self._kamailio = start([f"{transport}:{host}:{port}" for transport in ("udp", "tcp")])
        except BaseException:
            self.stop()
            raise

    def _wait_answer(self, seconds: float = 60.0) -> None:
        """Wait until questions are taken."""
        deadline = time.monotonic() + seconds
        while True:
            self._check_alive(deadline)
            with socket.socket(socket.AF_UNIX) as sock, suppress(OSError):
                sock.connect(str(self._questions))
                return
            time.sleep(0.02)

    @property
    def kamailio(self) -> Kamailio:
        """The SIP server."""
        assert self._kamailio is not None
        return self._kamailio

    @property
    def log(self) -> str:
        """What both printed so far."""
        return super().log + (self._kamailio.log if self._kamailio is not None else "")

    @property
    def alive(self) -> bool:
        """Whether both still run."""
        return super().alive and self._kamailio is not None and self._kamailio.alive

    def stop(self) -> int:
        """End both with SIGTERM; the exit status of the server."""
        if self._kamailio is not None:
            self._kamailio.stop()
        return super().stop()
