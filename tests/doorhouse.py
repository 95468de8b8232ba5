"""Doors for tests: a little dialect, a media arm that answers as it is told, and clients with real sockets."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

from mediaproxy.control import EndCause, EndRequest, MediaReply, Party, Question
from mediaproxy.dialects.dialect import DialectError, ErrorAnswer, Peer, Steps
from mediaproxy.dialects.door import Door
from mediaproxy.dialects.doordatagrams import DatagramDoor
from mediaproxy.dialects.doorsettings import DoorKind, DoorProtocol, DoorSettings
from mediaproxy.dialects.doorstream import StreamDoor
from mediaproxy.dialects.framing import LineFramer
from mediaproxy.link import Link, Pending

PATIENCE = 10.0
"Seconds that a test waits for what must come."


class Words:
    """A dialect: ``COOKIE WORD`` is answered with ``COOKIE`` and what the media arm says about the call WORD.

    ``bad`` is no request, ``wrong`` is answered with an error, ``silent`` with nothing, ``last`` ends a connection,
    ``fault`` breaks, and ``long`` has a long answer.
    """

    name = "words"

    def __init__(self) -> None:
        self.peers: list[Peer] = []

    def framer(self, transport: str) -> LineFramer:
        return LineFramer(last=frozenset((b"c last",)))

    def cookie(self, request: bytes) -> bytes | None:
        return request.partition(b" ")[0] or None

    def answer(self, request: bytes, peer: Peer) -> Steps:
        self.peers.append(peer)
        cookie, _, word = request.partition(b" ")
        match word:
            case b"bad":
                raise DialectError("no word of ours")
            case b"wrong":
                return ErrorAnswer(cookie + b" error\n")
            case b"silent":
                return b""
            case b"fault":
                raise RuntimeError("a fault of the dialect")
            case b"long":
                return cookie + b" " + bytes(1_000_000) + b"\n"
        reply = yield question(word.decode("latin-1"))
        assert reply is not None
        return b"%b %b\n" % (cookie, (reply.error or reply.relay).encode())


def question(call_id: str) -> Question:
    return EndRequest(call_id=call_id, sender=Party(), receiver=Party(), cause=EndCause.BYE)


class Arm:
    """A Link: it answers with the Call-ID and how many times it was asked; ``later…`` when it may."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.gate = asyncio.Event()

    async def ask(self, question: Question) -> MediaReply:
        self.asked.append(question.call_id)
        number = len(self.asked)
        if question.call_id.startswith("later"):
            await self.gate.wait()
        return MediaReply(relay=f"{question.call_id} {number}")


class PromptArm(Arm):
    """One that need not be waited for, but for ``later…``."""

    def answer(self, question: Question) -> MediaReply | None:
        if question.call_id.startswith("later"):
            return None
        self.asked.append(question.call_id)
        return MediaReply(relay=f"{question.call_id} {len(self.asked)}")


class KeepingArm(Arm):
    """One that knows the answer at once, and gives it when it is on disk."""

    def __init__(self) -> None:
        super().__init__()
        self.pending: list[Pending] = []

    def answer(self, question: Question) -> Pending:
        self.asked.append(question.call_id)
        self.pending.append(Pending(MediaReply(relay=f"{question.call_id} {len(self.asked)}")))
        return self.pending[-1]


def settings(address: str, **others: object) -> DoorSettings:
    """Of a door; ``udp://127.0.0.1:0``."""
    protocol = DoorProtocol.RTPPROXY if address.startswith("udp") else DoorProtocol.MEDIAPROXY2
    return DoorSettings(protocol=protocol, address=address, **others)  # type: ignore[arg-type]  # what a test says


@asynccontextmanager
async def opened(door: Door) -> AsyncIterator[Door]:
    """A door that listens."""
    await door.start()
    try:
        yield door
    finally:
        await door.stop()


def words_door(given: DoorSettings, link: Link | None = None) -> Door:
    """A door that speaks Words."""
    kind = DatagramDoor if given.where.kind is DoorKind.UDP else StreamDoor
    return kind(given, Words(), link or PromptArm())


@contextmanager
def client(door: Door, source: str = "", *, to: str = "") -> Iterator[socket.socket]:
    """A UDP socket, connected to a door, on ``source``."""
    host = to or door.address.host
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        if source:
            sock.bind((source, 0))
        sock.connect((host, door.address.port))
        yield sock


async def say(sock: socket.socket, *datagrams: bytes) -> None:
    """Send them."""
    for datagram in datagrams:
        await asyncio.get_running_loop().sock_sendall(sock, datagram)


async def hear(sock: socket.socket) -> bytes:
    """The next datagram."""
    async with asyncio.timeout(PATIENCE):
        return await asyncio.get_running_loop().sock_recv(sock, 65536)


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something that has no event of its own."""
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0.001)
