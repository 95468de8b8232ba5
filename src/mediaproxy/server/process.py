"""[shell] ``mediaproxy run`` and ``mediaproxy relay`` as processes: event loop, signals, exit status.

A configuration comes in, an exit status goes out when somebody ends it. Whatever keeps it from starting becomes one
StartError; it must never leave a socket file or an unwritten record behind.
"""

import asyncio
import gc
import logging
import signal
from collections.abc import Callable
from pathlib import Path

from msgspec.structs import replace

from mediaproxy.config import Config, LogFormat
from mediaproxy.logs import set_up
from mediaproxy.server.assembly import Server
from mediaproxy.server.places import Places
from mediaproxy.server.relaying import RelayServer
from mediaproxy.server.starting import StartError
from mediaproxy.server.station import Station

__all__ = ["StartError", "serve", "serve_relay"]

log = logging.getLogger("mediaproxy")


def serve(
    config: Config, *, script: Path | None = None, open_server: bool = False, log_format: LogFormat | None = None
) -> int:
    """Serve until SIGTERM, SIGINT or SIGHUP; the exit status. StartError if it cannot start. What is told here wins
    over the configuration."""
    edge = config.edge
    if script is not None and not edge.enabled:
        raise StartError("there is no SIP here (edge.enabled = false) that a script could route")
    if script is not None:
        edge = replace(edge, script=str(script))
    config = replace(config, edge=replace(edge, open=edge.open or open_server))
    config = _logging(config, log_format)
    return _run(config, Server)


def serve_relay(config: Config, *, log_format: LogFormat | None = None) -> int:
    """The same for a relay without anything else."""
    return _run(_logging(config, log_format), RelayServer)


def _logging(config: Config, log_format: LogFormat | None) -> Config:
    return config if log_format is None else replace(config, log=replace(config.log, format=log_format))


def _run(config: Config, kind: Callable[[Config, Places], Station]) -> int:
    set_up(config.log.format.value, config.log.level.value)
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        return runner.run(_serve(kind(config, Places.of(config))))


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


async def _serve(station: Station) -> int:
    ended = asyncio.Event()

    def terminated() -> None:
        """SIGTERM is what ``systemctl restart`` sends: calls go on with the next start."""
        station.keep_calls = True
        ended.set()

    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, terminated)
    for number in (signal.SIGINT, signal.SIGHUP):
        loop.add_signal_handler(number, ended.set)
    async with station as server:
        collect_seldom()
        for line in server.introduction():
            log.info("%s", line)
        await ended.wait()
        log.info("ending")
    log.info("ended")
    return 0


def collect_seldom() -> None:
    """Calls and transactions are freed when nobody refers to them any more. Looking for cycles among all that live
    would hold up packets, for a quarter of a second after 3 000 calls (docs/benchmarks.md), and there are next to none.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 10, 1_000)
