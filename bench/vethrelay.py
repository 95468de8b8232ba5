"""A plane of ours alone, with learned flows, for ``bench.forwarding``: no calls, no questions, no Python per packet.

``python -m bench.vethrelay PLANE FLOWS INSTALLED`` runs in the relay's host: ``FLOWS`` streams from the generator to
the sink, of ``INSTALLED`` calls with two streams each way, as RTP and RTCP of a call. Writes ``ready`` and serves until
it is told to end.
"""

import asyncio
import signal
import sys
from collections.abc import Iterator

from bench.mediarelay import loop_factory
from bench.veth import GENERATOR, HOST, SINK
from mediaproxy.endpoint import Endpoint
from mediaproxy.relay.flow import Flow, Plane
from mediaproxy.relay.settings import RelayAddress, RelaySettings

FIRST, LAST = 1024, 65_534
SOURCE = 10_000
"First port of the generator: one for each call."


def settings() -> RelaySettings:
    """Of the relay's host."""
    return RelaySettings(addresses=(RelayAddress(bind=HOST),), port_min=FIRST, port_max=LAST)


def plane_of(name: str) -> Plane:
    """A plane by its name."""
    if name == "kernel":
        from mediaproxy.relay.kernel.plane import KernelPlane

        return KernelPlane(settings(), None, "bench")
    if name == "native":
        from mediaproxy.relay.native import NativePlane

        return NativePlane()
    from mediaproxy.relay.userspace import UserPlane

    return UserPlane()


def flows(calls: int) -> Iterator[Flow]:
    """Four ports of each call: RTP and RTCP that face the caller, and those that face the callee."""
    for number in range(calls):
        near = FIRST + 4 * number
        for rtcp in (0, 1):
            caller, callee = Endpoint(GENERATOR, SOURCE + 2 * number + rtcp), Endpoint(SINK, SOURCE + 2 * number + rtcp)
            a, b = Endpoint(HOST, near + rtcp), Endpoint(HOST, near + 2 + rtcp)
            generation = 1 + number
            yield Flow(local=a, generation=generation, peer=b, peer_generation=generation, source=caller, target=caller)
            yield Flow(local=b, generation=generation, peer=a, peer_generation=generation, source=callee, target=callee)


async def serve(name: str, calls: int) -> None:
    """Forward until SIGTERM."""
    plane = plane_of(name)
    plane.start(lambda packet: None)
    for flow in flows(calls):
        plane.install(flow)
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    print("ready", flush=True)
    await ended.wait()
    plane.close()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(serve(sys.argv[1], int(sys.argv[2])))
