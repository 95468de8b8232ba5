"""[shell] A door for connections: TCP, TLS, UNIX.

The dialect's framer cuts requests out of what comes; they are answered in their order. A connection whose bytes are no
request, that leaves one unfinished, or that does not read its answers, is closed, and no other one notices.
"""

import asyncio
import itertools
from collections import Counter, deque
from typing import cast

from mediaproxy import clock
from mediaproxy.dialects.dialect import Dialect, DialectError, Finisher, Peer
from mediaproxy.dialects.door import LONGEST_COOKIE, Door
from mediaproxy.dialects.doorcache import AnswerCache
from mediaproxy.dialects.doorlistener import LOCAL, Listener
from mediaproxy.dialects.doorsettings import DoorSettings
from mediaproxy.link import Link

UNFINISHED = 10.0
"Seconds that a request may take to come whole."
DEAF = 5.0
"Seconds that a client may take to read its answers."
QUEUE = 64
"Requests of one connection that wait; then it is not read until there are fewer."
_TURN = 8
"Requests of one connection that are answered before others have their turn."


class StreamDoor(Door):
    """TCP, TLS or a UNIX socket."""

    def __init__(self, settings: DoorSettings, dialect: Dialect, link: Link) -> None:
        super().__init__(settings, dialect, link)
        self.cache: AnswerCache[None] = AnswerCache()
        self.clients: dict[_Client, None] = {}
        "In the order in which they were last heard."
        self._listener = Listener(self, self)
        self._numbers = itertools.count()

    def number(self) -> int:
        """For a new connection; no other one ever had it."""
        return next(self._numbers)

    async def start(self) -> None:
        """As Door."""
        self._listener.start()

    async def stop(self) -> None:
        """As Door."""
        self._listener.stop()
        await self.end_tasks()
        await asyncio.gather(*[client.abort() for client in list(self.clients)])

    def protocol(self, source: str) -> asyncio.Protocol:
        """From the listener."""
        return _Client(self, source)

    def count(self) -> int:
        """From the listener."""
        return len(self.clients)

    def connected(self, protocol: asyncio.BaseProtocol) -> bool:
        """From the listener."""
        return protocol in self.clients

    def make_room(self, host: str) -> bool:
        """From the listener."""
        held = Counter(client.host for client in self.clients)
        for client in self.clients:
            if client.idle and held[client.host] > held[host] + 1:
                client.close()
                del self.clients[client]
                return True
        return False


class _Client(asyncio.Protocol):
    """One connection."""

    def __init__(self, door: StreamDoor, source: str) -> None:
        self.source = "" if source == LOCAL else source
        self.host = source.rpartition(":")[0] if self.source else source
        self._door = door
        self._loop = asyncio.get_running_loop()
        self._framer = door.dialect.framer(door.transport)
        self._transport: asyncio.Transport | None = None
        self._gone: asyncio.Future[None] = self._loop.create_future()
        self._number = door.number()
        self._queue: deque[bytes] = deque()
        self._busy = False
        "Whether a request is being answered, or others have their turn."
        self._ended = False
        "Whether no request will follow."
        self._paused = False
        self._deaf: asyncio.TimerHandle | None = None
        "The client does not read its answers: when to give up."
        self._late: asyncio.TimerHandle | None = None
        "A request has begun: when to give up."
        self._last: asyncio.TimerHandle | None = None
        "The last answers are being sent: when to give up."

    @property
    def idle(self) -> bool:
        """Whether nothing is under way on it."""
        return not self._busy and not self._queue and self._late is None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """From asyncio."""
        self._transport = cast(asyncio.Transport, transport)
        self._door.clients[self] = None
        self._door.counters.connections += 1

    def connection_lost(self, exc: Exception | None) -> None:
        """From asyncio."""
        self._transport = None
        self._queue.clear()
        self._door.clients.pop(self, None)
        self._door.counters.connections -= 1
        for timer in (self._deaf, self._late, self._last):
            if timer is not None:
                timer.cancel()
        self._deaf = self._late = self._last = None
        if not self._gone.done():
            self._gone.set_result(None)

    def abort(self) -> asyncio.Future[None]:
        """Close without waiting for anything to be sent; done when it is closed."""
        if self._transport is not None:
            self._transport.abort()
        return self._gone

    def close(self) -> None:
        """Close when what is written has been sent."""
        self._ended = True
        if self._transport is not None and not self._transport.is_closing():
            self._transport.close()
            self._last = self._loop.call_later(DEAF, self._drop)

    # -- in

    def data_received(self, data: bytes) -> None:
        """From asyncio."""
        if self._ended:
            return
        door = self._door
        door.clients[self] = door.clients.pop(self, None)
        try:
            requests = self._framer.feed(data)
        except DialectError as error:
            door.malformed(self.source or LOCAL, str(error))
            requests, self._ended = [], True
        else:
            self._ended = self._framer.ended
        most = door.settings.max_request
        if self._framer.waiting > most or any(len(request) > most for request in requests):
            door.dropped(self.source or LOCAL, f"a request of more than {most} bytes (max_request)")
            requests, self._ended = [request for request in requests if len(request) <= most], True
        self._queue.extend(requests)
        self._expect()
        self._work()

    def _expect(self) -> None:
        """A request that has begun must end."""
        unfinished = self._framer.waiting > 0 and not self._ended
        if self._late is not None and not unfinished:
            self._late.cancel()
            self._late = None
        elif self._late is None and unfinished:
            self._late = self._loop.call_later(UNFINISHED, self._give_up)

    def _give_up(self) -> None:
        self._door.malformed(self.source or LOCAL, f"a request did not come whole within {UNFINISHED:g} s")
        self.close()

    def eof_received(self) -> bool:
        """From asyncio: the client says no more, and may still read. TLS has no half of a connection."""
        if isinstance(self._framer, Finisher) and not self._ended:
            self._queue.extend(self._framer.finish())
        self._ended = True
        self._expect()
        self._work()
        return self._door.transport != "tls"

    # -- answers

    def _work(self) -> None:
        """Answer what has come, as far as the client reads and nothing must be waited for."""
        turns = 0
        while not self._busy and self._deaf is None and self._transport is not None:
            if not self._queue:
                if self._ended:
                    self.close()
                break
            turns += 1
            self._busy = True
            if turns > _TURN:
                self._loop.call_soon(self._go_on)
                break
            self._take(self._queue.popleft())
        self._regulate()

    def _go_on(self) -> None:
        self._busy = False
        self._work()

    def _take(self, request: bytes) -> None:
        door, now = self._door, clock.now()
        cookie = door.dialect.cookie(request)
        key = None if cookie is None or len(cookie) > LONGEST_COOKIE else (cookie, self._number)
        kept = None if key is None else door.cache.find(key, now)
        if kept is not None:
            door.counters.repeated += 1
            self._write(kept)
            self._busy = False
            return
        prompt = True

        def done(answer: bytes | None) -> None:
            if answer is None:
                self._ended = True
                self._queue.clear()
            else:
                if key is not None:
                    door.cache.done(key, answer, clock.now())
                self._write(answer)
            self._busy = False
            if not prompt:
                self._work()

        door.serve(request, Peer(door.transport, self.source, now), done)
        prompt = False

    def _write(self, answer: bytes) -> None:
        if answer and self._transport is not None and not self._transport.is_closing():
            self._transport.write(answer)

    # -- both ways

    def _regulate(self) -> None:
        """Read no more while much waits."""
        full = len(self._queue) > QUEUE
        if full != self._paused and self._transport is not None and not self._transport.is_closing():
            self._paused = full
            if full:
                self._transport.pause_reading()
            else:
                self._transport.resume_reading()

    def pause_writing(self) -> None:
        """From asyncio: the client does not read."""
        if self._deaf is None:
            self._deaf = self._loop.call_later(DEAF, self._drop)

    def _drop(self) -> None:
        if self._transport is not None and self._transport.get_write_buffer_size():
            self._door.dropped(self.source or LOCAL, f"it does not read its answers for {DEAF:g} s")
        self.abort()

    def resume_writing(self) -> None:
        """From asyncio."""
        if self._deaf is not None:
            self._deaf.cancel()
            self._deaf = None
            self._work()
