"""[shell] ``mediaproxy run`` as a process: event loop, signals, exit status.

A configuration comes in, an exit status goes out when somebody ends it. Whatever keeps it from starting becomes one
StartError; it must never leave a socket file or an unwritten record behind.
"""

import asyncio
import gc
import logging
import signal
from collections.abc import Callable

from msgspec.structs import replace

from mediaproxy.config import Config, LogFormat
from mediaproxy.logs import set_up
from mediaproxy.server.assembly import Server, StartError
from mediaproxy.server.places import Places

__all__ = ["StartError", "serve"]

log = logging.getLogger("mediaproxy")


def serve(config: Config, *, open_server: bool = False, log_format: LogFormat | None = None) -> int:
    """Serve until SIGTERM, SIGINT or SIGHUP; the exit status. StartError if it cannot start."""
    if open_server:
        config = replace(config, edge=replace(config.edge, open=True))
    if log_format is not None:
        config = replace(config, log=replace(config.log, format=log_format))
    set_up(config.log.format.value, config.log.level.value)
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        return runner.run(_serve(config))


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


async def _serve(config: Config) -> int:
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    async with Server(config, Places.of(config)) as server:
        _collect_seldom()
        for line in server.introduction():
            log.info("%s", line)
        await ended.wait()
        log.info("ending")
    log.info("ended")
    return 0


def _collect_seldom() -> None:
    """Calls and transactions are freed when nobody refers to them any more. Looking for cycles among all that live
    would hold up packets, for a quarter of a second after 3 000 calls (docs/benchmarks.md), and there are next to none.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 10, 1_000)
