"""Our relay behind a Kamailio that knows nothing of us: its own C modules, pointed at our doors."""

from enum import StrEnum
from pathlib import Path
from typing import Any

from lab.beside import Beside
from lab.kamailio import Kamailio
from lab.netns import Namespace
from lab.server import Settings, merge

CONFIGS = Path(__file__).parent / "stock"


class Stock(StrEnum):
    """A module and how it is used."""

    USE = "use"
    "mediaproxy: ``use_media_proxy()`` for each message, ``end_media_session()``."
    ENGAGE = "engage"
    "mediaproxy: ``engage_media_proxy()``, once per dialog."
    RTPENGINE = "rtpengine"
    "rtpengine over UDP: ``rtpengine_manage()`` in each branch, as in Kamailio's own configuration."
    RTPENGINE_OFFER = "rtpengine-offer"
    "rtpengine over UDP: ``rtpengine_offer()`` before the branches, ``_answer()``, ``_delete()``."
    RTPPROXY = "rtpproxy"
    "rtpproxy over UDP: ``rtpproxy_manage()`` in each branch, as in Kamailio's own configuration."
    RTPPROXY_OFFER = "rtpproxy-offer"
    "rtpproxy over a UNIX socket: ``rtpproxy_offer()`` before the branches, ``_answer()``, ``_destroy()``."

    @property
    def module(self) -> str:
        """The module's name, and that of its config in lab/stock."""
        return "mediaproxy" if self in (Stock.USE, Stock.ENGAGE) else self.value.removesuffix("-offer")


_DEFINES = {Stock.ENGAGE: "ENGAGE", Stock.RTPENGINE_OFFER: "EXPLICIT", Stock.RTPPROXY_OFFER: "EXPLICIT"}
_DOOR = 6_000
"From the port of Kamailio to that of a door."


class BesideStock(Beside):
    """``mediaproxy run`` without its edge, and Kamailio with its own module in front of it."""

    def __init__(
        self, stock: Stock, namespace: Namespace | None, folder: Path, settings: Settings, sip: tuple[str, int]
    ) -> None:
        """``settings``: of the server; what they say of its edge does not matter. ``sip``: where Kamailio listens."""
        self.rpc = folder / "kamailio" / "rpc.sock"
        self.timeouts = folder / "timeouts.sock"
        "Where rtpproxy's module wants to be told of calls that end by themselves."
        settings = merge({**settings, "edge": {}}, {"edge": {"enabled": False}})
        self.socket = Path(settings["runtime_dir"]) / "dispatcher.sock"
        host, port = sip
        door = self._door(stock, folder, host, port + _DOOR)
        options = self._options(stock, door)
        super().__init__(
            namespace,
            folder,
            merge(settings, self._listening(stock, door, f"{host}:{port}")),
            sip,
            self.socket,
            lambda listen: Kamailio(folder / "kamailio", listen, namespace=namespace, options=options),
        )

    def _options(self, stock: Stock, door: str) -> list[str]:
        """What Kamailio is started with."""
        told = {"SOCKET": door.replace("//", ""), "RPC": self.rpc}
        told |= {"TIMEOUTS": f"unix:{self.timeouts}"} if stock.module == "rtpproxy" else {}
        options = ["-f", str(CONFIGS / f"{stock.module}.cfg")]
        options += [word for name, value in told.items() for word in ("-A", f'{name}="{value}"')]
        return options + (["-A", _DEFINES[stock]] if stock in _DEFINES else [])

    def _door(self, stock: Stock, folder: Path, host: str, port: int) -> str:
        """Where the server is asked."""
        if stock.module == "mediaproxy":
            return str(self.socket)
        return f"unix:{folder / 'door.sock'}" if stock is Stock.RTPPROXY_OFFER else f"udp://{host}:{port}"

    def _listening(self, stock: Stock, door: str, kamailio: str) -> Settings:
        """What the server is told of the door, and of whom to tell."""
        if stock.module == "mediaproxy":
            return {"dispatcher": {"end_dialogs": f"unix:{self.rpc}"}}
        listen: dict[str, Any] = {"protocol": "ng" if stock.module == "rtpengine" else stock.module, "address": door}
        listen |= {"allow": [kamailio.partition(":")[0]]} if door.startswith("udp:") else {}
        told = {"callback_url": f"http://{kamailio}/RPC2", "callback_format": "kamailio"}
        return {"listen": [listen], "ng": told, "rtpproxy": {"timeout_sockets": [f"unix:{self.timeouts}"]}}
