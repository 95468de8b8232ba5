"""Bare phones in the laboratory's homes, with sockets for their media there, for test_stock_nats.py."""

import asyncio
import contextlib
import itertools
import re
import socket
import time
from collections.abc import AsyncIterator, Sequence
from typing import NamedTuple

from lab.homes import SERVER, Home
from mediaproxy.endpoint import Endpoint
from tests import sipua
from tests.sipua import Phone
from tests.vmedia import FRAME, rtcp, rtp, sound, udptl

ENOUGH = 15
"Packets that must be heard, in each direction of each stream."
_turns = itertools.count(1)
_people = itertools.count(1)


class HomePhone(Phone):
    """A phone in a home. It says the address that it has there."""

    def __init__(self, name: str, home: Home) -> None:
        # Nobody is called like anybody before: the registrar may remember those.
        user = f"{name}{next(_people)}"
        super().__init__(user, Endpoint(SERVER, 5060), address=home.address, sockets=home.phone.socket)
        self.home = home
        self._media: dict[int, socket.socket] = {}

    def media(self, port: int) -> socket.socket:
        """Its socket at this port."""
        if port not in self._media:
            sock = self._media[port] = self.home.phone.socket(socket.SOCK_DGRAM)
            sock.setblocking(False)
            sock.bind((self.home.address, port))
        return self._media[port]

    async def hang_up(self) -> None:
        """Close everything."""
        for sock in self._media.values():
            sock.close()
        await super().hang_up()


@contextlib.asynccontextmanager
async def at_home(**homes: Home) -> AsyncIterator[list[HomePhone]]:
    """Registered phones, by their names."""
    async with contextlib.AsyncExitStack() as stack:
        people = [await stack.enter_async_context(HomePhone(name, home)) for name, home in homes.items()]
        for one in people:
            await one.register()
        yield people


class Side(NamedTuple):
    """One end of the streams of a call, in their order."""

    phone: HomePhone
    ports: Sequence[int]
    "Its own."
    told: Sequence[int]
    "Those of the relay that it was told."


class _Way:
    """One direction of one stream."""

    def __init__(self, kind: str, source: Side, sink: Side, at: int) -> None:
        self.turn = next(_turns)
        self.name = f"{source.phone.user}/{kind}/{self.turn}"
        self.heard: set[int] = set()
        self._kind = kind
        self._mouth, self._ear = source.phone.media(source.ports[at]), sink.phone.media(sink.ports[at])
        self._target, self._from = (SERVER, source.told[at]), (SERVER, sink.told[at])

    def say(self, number: int) -> None:
        if self._kind == "image":
            data = udptl(self.name, number)
        else:
            payload_type = 96 if self._kind == "video" else 0
            data = rtp(self.name, number, ssrc=self.turn, sequence=number, payload_type=payload_type)
        self._mouth.sendto(data, self._target)

    def listen(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                data, source = self._ear.recvfrom(2048)
                said = sound(data, 2 if re.match(rb"..[a-z]", data, re.DOTALL) else 12)
                assert said is not None, data
                name, number = said
                if int(name.rpartition("/")[2]) < self.turn and name != self.name:
                    continue  # what was under way before
                assert (name, source) == (self.name, self._from)
                assert len(data) == (len(udptl(name, number)) if self._kind == "image" else 172)
                self.heard.add(number)


async def hear_each_other(one: Side, other: Side, *kinds: str) -> None:
    """Both say something in each stream (of these kinds) until both have heard enough of it; nothing may come from
    elsewhere or in another stream."""
    ways = [
        _Way(kind, *sides, at) for at, kind in enumerate(kinds or ("audio",)) for sides in ((one, other), (other, one))
    ]
    deadline = time.monotonic() + sipua.PATIENCE * 4
    for number in itertools.count():
        for way in ways:
            way.say(number)
        await asyncio.sleep(FRAME)
        for way in ways:
            way.listen()
        if all(len(way.heard) >= ENOUGH for way in ways):
            return
        assert time.monotonic() < deadline, {way.name: len(way.heard) for way in ways}


async def hear_reports(one: Side, other: Side) -> None:
    """Both send RTCP beside their first streams until the other one has heard one, from nowhere else."""
    deadline = time.monotonic() + sipua.PATIENCE * 4
    deaf = {one.phone.user: (one, other), other.phone.user: (other, one)}
    for number in itertools.count():
        for side in (one, other):
            data = rtcp(side.phone.user, number, ssrc=number)
            side.phone.media(side.ports[0] + 1).sendto(data, (SERVER, side.told[0] + 1))
        await asyncio.sleep(FRAME)
        for user, (side, far) in list(deaf.items()):
            with contextlib.suppress(BlockingIOError):
                data, source = side.phone.media(side.ports[0] + 1).recvfrom(2048)
                assert (sound(data, 8) or ("",))[0] == far.phone.user
                assert source == (SERVER, side.told[0] + 1)
                del deaf[user]
        if not deaf:
            return
        assert time.monotonic() < deadline, f"no RTCP for {', '.join(deaf)}"
