"""10 000 calls with RTP and RTCP, all learned and in the kernel, in one process; prints what that took, as JSON.

For test_kernel_many, which starts it with a limit of open files: ``python -m tests.e2e.manycalls CALLS``.
"""

import asyncio
import json
import os
import random
import resource
import socket
import sys
import time
from contextlib import suppress

from mediaproxy.control import MediaPort, MediaRequest, Party
from mediaproxy.relay.kernel.plane import KernelPlane
from mediaproxy.relay.service import RelayService
from mediaproxy.relay.settings import RelayAddress, RelaySettings
from mediaproxy.relay.slots import Reason
from tests.asking import Phone, ack, answer, offer
from tests.planebench import rtp

RELAY = "127.0.0.1"
RTCP = b"\x80\xc9\x00\x01" + bytes(4)
_AT_A_TIME = 50
"Calls whose first packets are sent before the relay gets a turn: its receiving socket has room for them."


class Pair:
    """The RTP and RTCP sockets of a phone that takes part in all calls."""

    def __init__(self, name: str, address: str) -> None:
        self.phone = Phone(name, address)
        self.sockets = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2)]
        for number, sock in enumerate(self.sockets):
            sock.setblocking(False)
            sock.bind((address, 4000 + number))

    def speak(self, port: MediaPort, number: int) -> None:
        assert port.rtcp is not None
        for sock, data, to in zip(self.sockets, (rtp(number), RTCP), (port.rtp, port.rtcp), strict=True):
            sock.sendto(data, (to.address, to.port))

    def hears(self, data: bytes) -> bool:
        """Whether that has come; everything is read."""
        found = False
        for sock in self.sockets:
            with suppress(BlockingIOError):
                while True:
                    found |= sock.recv(2048) == data
        return found


async def ask(relay: RelayService, question: MediaRequest) -> MediaPort:
    reply = await relay.ask(question)
    assert not reply.error, reply.error
    (port,) = reply.ports
    assert port is not None
    return port


def numbered(pair: Pair, number: int) -> Phone:
    """The phone as it is in one of the calls."""
    phone = Phone("", pair.phone.address)
    phone.party = Party(tag=f"{pair.phone.party.tag}{number}", uri=pair.phone.party.uri)
    return phone


async def main(count: int) -> None:
    settings = RelaySettings(
        addresses=(RelayAddress(bind=RELAY),),
        port_min=16384,
        port_max=16384 + 4 * count - 2,
        max_calls=count,
        silence=9e5,
    )
    plane = KernelPlane(settings, None, "many")
    relay = RelayService(settings, plane, random.Random(1), lambda event: None, name="many")
    alice, bob = Pair("alice", "127.0.0.2"), Pair("bob", "127.0.0.3")
    await relay.start()
    began, used = time.monotonic(), time.process_time()
    ports: list[tuple[MediaPort, MediaPort]] = []
    for number in range(count):
        one, other = numbered(alice, number), numbered(bob, number)
        at_bob = await ask(relay, offer(one, other, f"call-{number}"))
        at_alice = await ask(relay, answer(one, other, f"call-{number}"))
        await relay.ask(ack(one, other, f"call-{number}"))
        ports.append((at_alice, at_bob))
        if number % 100 == 0:
            await asyncio.sleep(0)
    set_up, cpu = time.monotonic() - began, time.process_time() - used
    while learned(plane) < 4 * count:
        for at in range(0, count, _AT_A_TIME):
            for at_alice, at_bob in ports[at : at + _AT_A_TIME]:
                alice.speak(at_alice, 1)
                bob.speak(at_bob, 1)
            await asyncio.sleep(0.005)
            alice.hears(b""), bob.hears(b"")
    before = plane.totals()
    heard = 0
    for number in range(0, count, count // 100):
        at_alice, at_bob = ports[number]
        alice.speak(at_alice, number + 2)
        bob.speak(at_bob, number + 2)
        heard += await hear(bob, rtp(number + 2)) and await hear(alice, rtp(number + 2))
    after = plane.totals()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    print(
        json.dumps(
            {
                "limit": [soft, hard],
                "files": len(os.listdir("/proc/self/fd")),
                "calls": len(relay.calls),
                "learned": learned(plane),
                "heard": heard,
                "forwarded": after[Reason.FORWARDED] - before[Reason.FORWARDED],
                "up": sum(after[reason] - before[reason] for reason in Reason if reason.name.startswith("UP")),
                "set_up": set_up,
                "cpu": cpu,
            }
        )
    )
    await relay.stop()


async def hear(pair: Pair, data: bytes) -> bool:
    """Whether that comes. Mostly it has already."""
    for _ in range(1000):
        if pair.hears(data):
            return True
        await asyncio.sleep(0.01)
    return False


def learned(plane: KernelPlane) -> int:
    """Ports whose streams the kernel forwards."""
    return sum(lent.flow.source is not None and lent.flow.target is not None for lent in plane._lent.values())


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
