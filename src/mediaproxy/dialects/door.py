"""[shell] A door: a socket on which SIP servers ask in the words of one dialect, and are answered from a Link.

Requests come in from a subclass that has the sockets (``doordatagrams``, ``doorstream``, ``doorhttp``); the dialect
says what each of them asks, the link answers, and bytes go back. What needs no waiting is answered without a task. No
client can make another one wait, the server remember without bound, or the log grow.
"""

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, TypeAlias

from mediaproxy import clock
from mediaproxy.access import AccessList
from mediaproxy.complaints import Complaints
from mediaproxy.control import Inquiry, MediaReply, Question
from mediaproxy.dialects.dialect import Dialect, DialectError, ErrorAnswer, Peer, Steps
from mediaproxy.dialects.doorreport import Counters, DoorReport
from mediaproxy.dialects.doorsettings import DoorAddress, DoorSettings
from mediaproxy.link import ASK_TIMEOUT, Link, Pending, Prompt, reply_in_time
from mediaproxy.logs import readable

log = logging.getLogger("mediaproxy.doors")

LINES = 3
"Of the log about one address in a minute; what is more is summed up."
LONGEST_COOKIE = 255
"Bytes. Requests with a longer one are answered, but not recognised when they come again."

Done: TypeAlias = Callable[[bytes | None], None]
"""Takes the answer to a request: empty, nothing is to be sent; None, there is none, because the bytes were no request
or the server has a fault."""


class Door(ABC):
    """One ``[[listen]]``."""

    transport: str
    "As in Peer."

    def __init__(self, settings: DoorSettings, dialect: Dialect, link: Link) -> None:
        self.settings = settings
        self.dialect = dialect
        self.address: DoorAddress = settings.where
        "After ``start`` with the port that it got."
        self.transport = str(self.address.kind)
        self.counters = Counters()
        self.access = AccessList(settings.allow)
        self._link = link
        self._prompt = link if isinstance(link, Prompt) else None
        self._complaints = Complaints(LINES)
        self._tasks: set[asyncio.Task[None]] = set()

    @abstractmethod
    async def start(self) -> None:
        """Listen. OSError if the address cannot be had, LookupError if owner or group of a UNIX socket are unknown."""

    @abstractmethod
    async def stop(self) -> None:
        """End everything and give the socket back."""

    def report(self) -> DoorReport:
        """What it has done so far."""
        return self.counters.report(str(self.settings.protocol), str(self.address), self.settings.allow)

    # -- answering

    def serve(self, request: bytes, peer: Peer, done: Done, dialect: Dialect | None = None) -> None:
        """Answer one request; ``done`` is called once, at once if nothing must be waited for. ``dialect``: another one
        than the door's."""
        self.counters.working += 1
        self._go_on((dialect or self.dialect).answer(request, peer), peer, done, None)

    def _go_on(self, steps: Steps, peer: Peer, done: Done, reply: MediaReply | None) -> None:
        answer: bytes | None = None
        try:
            while True:
                wanted = steps.send(reply)
                at_once = self._at_once(wanted)
                if at_once is None:
                    self.spawn(self._ask(steps, peer, done, wanted))
                    return
                if isinstance(at_once, Pending):
                    at_once.then(partial(self._go_on, steps, peer, done))
                    return
                reply = at_once
        except StopIteration as stop:
            answer = stop.value
            self.counters.errors += isinstance(answer, ErrorAnswer)
            self.counters.requests += 1
        except DialectError as error:
            self.malformed(peer.address or "a local process", str(error))
        except Exception:
            log.exception("%s: no answer", self.address)
            self.counters.requests += 1
        self.counters.working -= 1
        self.counters.answered(max(0.0, clock.now() - peer.now))
        done(answer)

    def _at_once(self, wanted: Question | Inquiry) -> MediaReply | Pending | None:
        if self._prompt is None or isinstance(wanted, Inquiry):
            return None
        return self._prompt.answer(wanted)

    async def _ask(self, steps: Steps, peer: Peer, done: Done, wanted: Question | Inquiry) -> None:
        try:
            reply = await reply_in_time(self._link, wanted, ASK_TIMEOUT)
        except Exception:
            log.exception("%s: no answer from the relay", self.address)
            reply = MediaReply(error="a fault of the server, see its log", status=500)
        self._go_on(steps, peer, done, reply)

    # -- tasks and the log

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """A task that ends with the door."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def end_tasks(self) -> None:
        """Cancel all of them."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def malformed(self, source: str, text: str) -> None:
        """Bytes that were no request."""
        self.counters.malformed += 1
        self.complain(source, text)

    def refused(self, source: str) -> None:
        """Somebody who may not ask."""
        self.counters.refused += 1
        self.complain(source, "turned away, it is not in allow")

    def dropped(self, source: str, text: str) -> None:
        """Something that was too much."""
        self.counters.dropped += 1
        self.complain(source, text)

    def complain(self, source: str, text: str) -> None:
        """A line for the log, unless there were enough about that address just now."""
        for line in self._complaints.note(_host(source), text, clock.now()):
            log.warning("%s: %s", self.address, readable(line))


def _host(source: str) -> str:
    """An address without its port, which a flood may change with each packet."""
    host, colon, port = source.rpartition(":")
    return host if colon and port.isdigit() else source
