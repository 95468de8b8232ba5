"""The module of a SIP server, seen from the server's socket: it asks about calls, and its phones send RTP.

Everything is a control value of the test's own making; nothing of a SIP message is needed.
"""

import asyncio
import contextlib
import socket
import struct
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

from mediaproxy.control import (
    ConfirmRequest,
    EndCause,
    EndRequest,
    MediaReply,
    MediaRequest,
    Party,
    PayloadType,
    PhoneAddress,
    Question,
    Stream,
    decode,
    encode,
)
from mediaproxy.endpoint import Endpoint

PCMU = PayloadType(number=0, codec="PCMU", clock_rate=8000)
OPUS = PayloadType(number=96, codec="opus", clock_rate=48000)
VP8 = PayloadType(number=97, codec="VP8", clock_rate=90000)
DTMF = PayloadType(number=101, codec="telephone-event", clock_rate=8000)


class Phone:
    """One party: a UDP socket per stream, and what it says of itself."""

    def __init__(self, name: str, address: str = "127.0.0.1", *, agent: str = "", domain: str = "example.com") -> None:
        self.address = address
        self.agent = agent
        self.party = Party(tag=f"tag-{name}", uri=f"sip:{name}@{domain}", domain=domain)
        self.sockets: list[socket.socket] = []
        self.ports: list[int] = []
        self._sequences: Counter[int] = Counter()

    def endpoint(self, stream: int = 0) -> Endpoint:
        """Where it wants the media of a stream."""
        return Endpoint(self.address, self.ports[stream] if self.ports else 4000 + 2 * stream)

    def streams(self, payload_types: Sequence[Sequence[PayloadType]] = ((PCMU,),)) -> tuple[Stream, ...]:
        """Its SDP: the first stream is audio, further ones are video."""
        return tuple(
            Stream(
                kind="video" if at else "audio",
                transport="RTP/AVP",
                endpoint=self.endpoint(at),
                payload_types=tuple(types),
            )
            for at, types in enumerate(payload_types)
        )

    def send(self, stream: int, to: Endpoint, payload_type: int, size: int = 160) -> int:
        """One RTP packet with ``size`` bytes of payload; how many bytes it has in all."""
        self._sequences[stream] += 1
        number = self._sequences[stream]
        packet = struct.pack("!BBHII", 0x80, payload_type, number, number * 160, 1 + stream)
        return self.sockets[stream].sendto(packet + bytes(size), (to.address, to.port))

    async def hear(self, stream: int = 0) -> bytes:
        """The next packet that comes."""
        async with asyncio.timeout(30):
            return await asyncio.get_running_loop().sock_recv(self.sockets[stream], 65536)


@contextlib.contextmanager
def sockets(*phones: Phone, streams: int = 1) -> Iterator[None]:
    """Give the phones sockets for so many streams."""
    with contextlib.ExitStack() as stack:
        for phone in phones:
            for _ in range(streams):
                sock = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
                sock.bind((phone.address, 0))
                sock.setblocking(False)
                phone.sockets.append(sock)
                phone.ports.append(sock.getsockname()[1])
        yield


def offer(caller: Phone, callee: Phone, call_id: str, streams: tuple[Stream, ...] | None = None) -> MediaRequest:
    """The SDP of an INVITE."""
    return MediaRequest(
        call_id=call_id,
        sender=caller.party,
        receiver=Party(uri=callee.party.uri, domain=callee.party.domain, local=callee.party.local),
        cseq=1,
        sdp_hash="offer",
        phone=PhoneAddress(endpoint=Endpoint(caller.address, 5060)),
        user_agent=caller.agent,
        streams=caller.streams() if streams is None else streams,
    )


def answer(caller: Phone, callee: Phone, call_id: str, streams: tuple[Stream, ...] | None = None) -> MediaRequest:
    """The SDP of its 200."""
    return MediaRequest(
        call_id=call_id,
        sender=callee.party,
        receiver=caller.party,
        cseq=1,
        status=200,
        sdp_hash="answer",
        phone=PhoneAddress(endpoint=Endpoint(callee.address, 5060)),
        user_agent=callee.agent,
        streams=callee.streams() if streams is None else streams,
    )


def ack(caller: Phone, callee: Phone, call_id: str) -> ConfirmRequest:
    return ConfirmRequest(call_id=call_id, sender=caller.party, receiver=callee.party, cseq=1)


def bye(caller: Phone, callee: Phone, call_id: str) -> EndRequest:
    return EndRequest(call_id=call_id, sender=caller.party, receiver=callee.party, cause=EndCause.BYE)


class Worker:
    """One process of a SIP server: one connection, one question at a time."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def ask(self, question: Question | bytes) -> MediaReply:
        """The reply to a question, or to whatever line."""
        self._writer.write(question if isinstance(question, bytes) else encode(question))
        async with asyncio.timeout(30):
            reply = decode(await self._reader.readline())
        assert isinstance(reply, MediaReply)
        return reply


@contextlib.asynccontextmanager
async def worker(path: Path) -> AsyncIterator[Worker]:
    """A worker that is connected."""
    reader, writer = await asyncio.open_unix_connection(path)
    try:
        yield Worker(reader, writer)
    finally:
        writer.close()
        await writer.wait_closed()


def ports(reply: MediaReply) -> list[Endpoint]:
    """The relay's RTP ports of a reply without error."""
    assert not reply.error, reply.error
    return [port.rtp for port in reply.ports if port is not None]
