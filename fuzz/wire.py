"""A connection to a door without sockets and without waiting: the door's own code, a transport of a few lines, and an
event loop whose time jumps to the next timer."""

import asyncio
import selectors
from collections.abc import Callable, Iterable
from typing import Any

from mediaproxy.dialects.doorstream import StreamDoor

PATIENCE = 600.0
"Seconds of the loop's time in which a connection must be over that its client has closed."


class _Jumping(selectors.SelectSelector):
    """Does not wait: time is what passes."""

    def __init__(self) -> None:
        super().__init__()
        self.jump: Callable[[float], None] = lambda seconds: None

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """What is ready now. A wait without end, with nothing to wait for, is an error."""
        ready = super().select(0)
        if not ready:
            assert timeout is not None, "everything waits, and nothing will come"
            self.jump(timeout)
        return ready


class JumpingLoop(asyncio.SelectorEventLoop):
    """An event loop in virtual time."""

    def __init__(self) -> None:
        selector = _Jumping()
        selector.jump = self._jump
        self._seconds = 0.0
        super().__init__(selector)

    def time(self) -> float:
        """Seconds since it was made, in its own time."""
        return self._seconds

    def _jump(self, seconds: float) -> None:
        self._seconds += max(0.0, seconds)


class _Pipe(asyncio.Transport):
    """What a door writes into, and is told by that its client is gone."""

    def __init__(self, protocol: asyncio.Protocol) -> None:
        super().__init__()
        self.protocol = protocol
        self.reading = True
        self.closing = False
        self.written = 0

    def write(self, data: Any) -> None:
        assert not self.closing, "written to a connection that is closed"
        self.written += len(data)

    def is_closing(self) -> bool:
        return self.closing

    def close(self) -> None:
        if not self.closing:
            self.closing = True
            asyncio.get_running_loop().call_soon(self.protocol.connection_lost, None)

    abort = close

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def get_write_buffer_size(self) -> int:
        return 0


async def converse(door: StreamDoor, pieces: Iterable[bytes]) -> None:
    """A client connects, writes these pieces, writes no more, and reads until the door closes: it must, soon."""
    protocol = door.protocol("192.0.2.9:5")
    assert isinstance(protocol, asyncio.Protocol)
    pipe = _Pipe(protocol)
    protocol.connection_made(pipe)
    async with asyncio.timeout(PATIENCE):
        for piece in pieces:
            while not pipe.reading and not pipe.closing:
                await asyncio.sleep(0.01)
            if pipe.closing:
                break
            protocol.data_received(piece)
            await asyncio.sleep(0)
        if not pipe.closing and not protocol.eof_received():
            pipe.close()
        while not pipe.closing:
            await asyncio.sleep(0.1)
    await asyncio.sleep(0)
    assert not door.clients and not door.counters.working, "a connection that is stuck"
