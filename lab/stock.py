"""Our relay behind a Kamailio that knows nothing of us: its own C modules, pointed at our doors."""

import socket
import time
from contextlib import suppress
from enum import StrEnum
from pathlib import Path

from lab.kamailio import Kamailio
from lab.netns import Namespace
from lab.server import Server, Settings, merge

CONFIGS = Path(__file__).parent / "stock"


class Stock(StrEnum):
    """How the module mediaproxy is used."""

    USE = "use"
    "``use_media_proxy()`` for each message, ``end_media_session()``."
    ENGAGE = "engage"
    "``engage_media_proxy()``, once per dialog."


class BesideStock(Server):
    """``mediaproxy run`` without its edge, and Kamailio with its own module in front of it."""

    def __init__(
        self, stock: Stock, namespace: Namespace | None, folder: Path, settings: Settings, sip: tuple[str, int]
    ) -> None:
        """``settings``: of the server; what they say of its edge does not matter. ``sip``: where Kamailio listens."""
        self._kamailio: Kamailio | None = None
        self.rpc = folder / "kamailio" / "rpc.sock"
        mine = {"edge": {"enabled": False}, "dispatcher": {"end_dialogs": f"unix:{self.rpc}"}}
        settings = merge({**settings, "edge": {}}, mine)
        self.socket = Path(settings["runtime_dir"]) / "dispatcher.sock"
        super().__init__(namespace, folder, settings, sip)
        host, port = sip
        options = ["-f", str(CONFIGS / "mediaproxy.cfg"), "-A", f'SOCKET="{self.socket}"', "-A", f'RPC="{self.rpc}"']
        options += ["-A", "ENGAGE"] if stock is Stock.ENGAGE else []
        listen = [f"{transport}:{host}:{port}" for transport in ("udp", "tcp")]
        try:
            self._kamailio = Kamailio(folder / "kamailio", listen, namespace=namespace, options=options)
        except BaseException:
            self.stop()
            raise

    def _wait_answer(self, seconds: float = 15.0) -> None:
        """Wait until questions are taken."""
        deadline = time.monotonic() + seconds
        while True:
            self._check_alive(deadline)
            with socket.socket(socket.AF_UNIX) as sock, suppress(OSError):
                sock.connect(str(self.socket))
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
