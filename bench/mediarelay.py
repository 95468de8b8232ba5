"""A relay alone, as ``mediaproxy run`` has it, for ``bench.plane``: no SIP, questions over a UNIX socket.

``python -m bench.mediarelay ADDRESS SOCKET PLANE`` serves until it is told to end.
"""

import asyncio
import random
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from mediaproxy.link import UnixServer
from mediaproxy.relay.native import NativePlane
from mediaproxy.relay.service import RelayService
from mediaproxy.relay.settings import RelayAddress, RelaySettings
from mediaproxy.relay.userspace import UserPlane

PORTS = (20_000, 23_999)


async def serve(address: str, path: Path, plane: str) -> None:
    """Relay media at ``address``, by threads in C if ``plane`` is ``native``, else by Python, until SIGTERM."""
    settings = RelaySettings(addresses=(RelayAddress(bind=address),), port_min=PORTS[0], port_max=PORTS[1])
    relay = RelayService(settings, NativePlane() if plane == "native" else UserPlane(), random.Random(1))
    server = UnixServer(path, relay)
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    await relay.start()
    await server.start()
    await ended.wait()
    await server.stop()
    await relay.stop()


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """The event loop that ``mediaproxy run`` takes: uvloop when there."""
    try:
        import uvloop
    except ImportError:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(serve(sys.argv[1], Path(sys.argv[2]), sys.argv[3]))
