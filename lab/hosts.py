"""The SIP server in front of the relay: the built-in edge, or Kamailio with our module."""

from enum import StrEnum
from pathlib import Path

from lab.beside import Beside
from lab.kamailio import EXAMPLE, Kamailio
from lab.netns import Namespace
from lab.server import Server, Settings, merge
from lab.stock import BesideStock, Stock

_MODULE_SETTINGS = {
    "natping_interval": "natping_interval",
    "sip_asymmetrics": "sip_asymmetrics",
    "rtp_asymmetrics": "rtp_asymmetrics",
    "sip_natping_flag": "sipping_bflag",
    "sipping_remove_flag": "sipping_remove_bflag",
}
"What is told to the edge in its table, and what that is called in the settings of Kamailio's script."

_NATIVE = """\
import mediaproxy.kamailio
def mod_init():
    return mediaproxy.kamailio.Module(**{settings!r})
"""


class Host(StrEnum):
    """What runs the routing script."""

    EDGE = "edge"
    KAMAILIO = "kamailio"
    NATIVE = "native"
    "Kamailio with a native config that calls our functions (examples/kamailio/native.cfg)."
    MEDIAPROXY_USE = "mediaproxy-use"
    "Kamailio with its own module mediaproxy and nothing of ours (lab/stock): ``use_media_proxy()``."
    MEDIAPROXY_ENGAGE = "mediaproxy-engage"
    "The same with ``engage_media_proxy()``."
    RTPENGINE = "rtpengine"
    "The same with the module rtpengine."
    RTPPROXY = "rtpproxy"
    "The same with the module rtpproxy, over UDP."
    RTPPROXY_UNIX = "rtpproxy-unix"
    "Over a UNIX socket."


_STOCK = {
    Host.MEDIAPROXY_USE: Stock.USE,
    Host.MEDIAPROXY_ENGAGE: Stock.ENGAGE,
    Host.RTPENGINE: Stock.RTPENGINE,
    Host.RTPPROXY: Stock.RTPPROXY,
    Host.RTPPROXY_UNIX: Stock.RTPPROXY_OFFER,
}


class BesideKamailio(Beside):
    """``mediaproxy run`` without its edge, and Kamailio with the example's script or config in front of it."""

    def __init__(
        self, namespace: Namespace, folder: Path, settings: Settings, sip: tuple[str, int], *, native: bool
    ) -> None:
        """``settings`` are those of the server with its edge; what the edge's table says of the module's parameters is
        told to Kamailio instead."""
        edge = dict(settings["edge"])
        told = {theirs: edge.pop(name) for name, theirs in _MODULE_SETTINGS.items() if name in edge}
        questions = folder / "proxydispatcher.sock"
        told["mediaproxy_socket"] = str(questions)
        mine = {"edge": {"enabled": False}, "dispatcher": {"mediaproxy_socket": str(questions)}}

        def start(listen: list[str]) -> Kamailio:
            if not native:
                return Kamailio(folder / "kamailio", listen, settings=told, namespace=namespace)
            script, options = _NATIVE.format(settings=told), ["-f", str(EXAMPLE / "native.cfg")]
            return Kamailio(folder / "kamailio", listen, script=script, options=options, namespace=namespace)

        super().__init__(namespace, folder, merge({**settings, "edge": {}}, mine), sip, questions, start)


def start(host: Host, namespace: Namespace, folder: Path, settings: Settings, sip: tuple[str, int]) -> Server:
    """Start the server with this host. LabError if it does not come up."""
    if host is Host.EDGE:
        return Server(namespace, folder, settings, sip)
    if host in _STOCK:
        return BesideStock(_STOCK[host], namespace, folder, settings, sip)
    return BesideKamailio(namespace, folder, settings, sip, native=host is Host.NATIVE)
