"""The control protocols: whatever a SIP server writes, it is answered or turned away, and nothing stays behind."""

from collections.abc import Callable, Iterator
from contextlib import closing

from fuzz.alarm import alarmed
from fuzz.house import House
from fuzz.wire import JumpingLoop, converse
from mediaproxy.control import MediaReply
from mediaproxy.dialects.dialect import Dialect, DialectError, Peer, Steps
from mediaproxy.dialects.doorsettings import DoorProtocol, DoorSettings
from mediaproxy.dialects.doorstream import StreamDoor
from mediaproxy.dialects.ng.settings import NgSettings
from mediaproxy.server.doors import Dialects

BETWEEN = b"\xff\xff\n"
"What stands between two datagrams in an input."
_QUESTIONS = 300
"That one request may lead to."


def dialect(protocol: DoorProtocol, transports: tuple[str, ...]) -> Callable[[bytes], None]:
    """The target of one protocol. The first byte of an input chooses the transport, the second one the size of the
    pieces that a connection brings, and whether answers of the relay are missing; the rest is what comes."""

    def target(data: bytes) -> None:
        if len(data) < 2:
            return
        with alarmed():
            _speak(protocol, transports[data[0] % len(transports)], data[1], data[2:])

    return target


def _speak(protocol: DoorProtocol, transport: str, size: int, data: bytes) -> None:
    house = House()
    spoken = Dialects(NgSettings()).dialect(protocol)
    if transport == "udp":
        first = _datagrams(spoken, house, data, deaf=size & 7 == 7)
        for _ in range(2):  # what was heard before may be known by its look, and is answered all the same
            other = House()
            assert _datagrams(spoken, other, data, deaf=size & 7 == 7) == first
            other.settle()
    else:
        address = "unix:/x" if transport == "unix" else f"{transport}://127.0.0.1:1"
        door = StreamDoor(DoorSettings(protocol=protocol, address=address, max_request=2048), spoken, house)
        with closing(JumpingLoop()) as loop:
            loop.run_until_complete(converse(door, _pieces(data, size)))
        _same_however_cut(spoken, transport, data, size)
    house.settle()


def _pieces(data: bytes, size: int) -> Iterator[bytes]:
    """0: all at once. Never more than 64: they cost time."""
    step = max(size, len(data) // 64 + 1) if size else max(1, len(data))
    return (data[at : at + step] for at in range(0, len(data), step))


def _datagrams(spoken: Dialect, house: House, data: bytes, *, deaf: bool) -> list[bytes]:
    """The answers. ``deaf``: none of the relay comes in time."""
    answers: list[bytes] = []
    for datagram in data.split(BETWEEN):
        cookie = spoken.cookie(datagram)
        answer = _answered(spoken.answer(datagram, Peer("udp", "192.0.2.9:5", house.bench.now)), house, deaf=deaf)
        if answer and cookie is not None:
            assert answer.startswith(cookie + b" "), "an answer that its client will not know"
        # But what counts requests is another one each time.
        answers.append(b"" if b"currentstatistics" in answer else answer)
    return answers


def _answered(steps: Steps, house: House, *, deaf: bool) -> bytes:
    """The answer to one request; empty if it was none."""
    reply: MediaReply | None = None
    try:
        for _ in range(_QUESTIONS):
            wanted = steps.send(reply)
            reply = None if deaf else house.told(wanted)
    except StopIteration as stop:
        assert isinstance(stop.value, bytes)
        return stop.value
    except DialectError:
        return b""
    raise AssertionError(f"more than {_QUESTIONS} questions for one request")


def _same_however_cut(spoken: Dialect, transport: str, data: bytes, size: int) -> None:
    """A framer gives the same requests however the stream is cut. But for the last one, if nothing can follow: garbage
    is what has come so far."""
    if spoken.name == "rtpproxy" and transport == "unix":
        return  # what comes at once is a command, by the protocol
    whole, ended = _framed(spoken, transport, [data])
    cut, also = _framed(spoken, transport, _pieces(data, size))
    assert ended == also
    if not ended:
        assert whole == cut, (whole, cut)
    else:
        same = min(len(whole), len(cut)) - 1
        assert whole[:same] == cut[:same], (whole, cut)


def _framed(spoken: Dialect, transport: str, pieces: "list[bytes] | Iterator[bytes]") -> tuple[list[bytes], bool]:
    framer, requests = spoken.framer(transport), list[bytes]()
    taken = 0
    try:
        for piece in pieces:
            if framer.ended:
                break
            taken += len(piece)
            requests += framer.feed(piece)
            assert 0 <= framer.waiting <= taken
    except DialectError:
        return requests, True
    return requests, framer.ended
