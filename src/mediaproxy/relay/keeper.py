"""[shell] When the calls of a relay are written into its journal, and what waits for that.

Calls change; before somebody is told of a port that is in the file, with all that has changed in the same turn of the
event loop. What only packets have changed follows a little later, counters in their turn. It must never let a reply
wait for a disk that hangs.
"""

import asyncio
from collections.abc import Callable

from mediaproxy.control import MediaReply
from mediaproxy.endpoint import Endpoint
from mediaproxy.link import Pending
from mediaproxy.relay.calls import Calls
from mediaproxy.relay.journal import Journal

_LATER = 0.05
"Seconds until what nobody waits for is written."
_PATIENCE = 0.5
"Seconds that a reply waits for the disk. After that it is given: a call that a restart may forget is better than none."
_COUNTED = 200
"Calls whose counters are looked at per second."


class Keeper:
    """Mutable: between one relay's calls and its journal."""

    def __init__(self, calls: Calls, journal: Journal, now: Callable[[], float], *, counters: bool) -> None:
        """``counters``: the plane's end with this process, so they are to be kept, too."""
        self._calls = calls
        self._journal = journal
        self._now = now
        self._counters = counters
        self._waiting: list[Pending] = []
        self._handle: asyncio.Handle | None = None
        self._is_soon = False
        self._held = False
        "A checkpoint is being made, after which it goes on."
        self._beat = False

    @property
    def _news(self) -> bool:
        return bool(self._calls.changes)

    def kept(self, reply: MediaReply) -> MediaReply | Pending:
        """The reply to a question, which must not be given before what it has changed is kept."""
        if not self._news:
            return reply
        pending = Pending(reply)
        self._waiting.append(pending)
        self.soon()
        return pending

    def soon(self) -> None:
        """Something is to be written now: at the end of this turn of the event loop."""
        if self._handle is None or not self._is_soon:
            self._cancel()
            self._handle, self._is_soon = asyncio.get_running_loop().call_soon(self.flush), True

    def later(self) -> None:
        """Something may have changed that nobody waits for."""
        if self._handle is None and self._news:
            self._handle, self._is_soon = asyncio.get_running_loop().call_later(_LATER, self.flush), False

    def _cancel(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    @property
    def ports_next(self) -> list[Endpoint]:
        """The bound ports whose counters ``sweep`` should know."""
        changes = self._calls.changes
        return changes.ports_next(_COUNTED) if self._counters and changes is not None else []

    def sweep(self) -> None:
        """Once a second."""
        if self._journal.begin_anew():
            self._calls.keep()
        changes = self._calls.changes
        if changes is not None and len(self._calls):
            if self._counters:
                changes.count(_COUNTED)
            self._beat = True
            self.soon()
        elif self._news or self._journal.has_more:
            self.soon()

    def flush(self) -> None:
        """Write all that has changed."""
        self._cancel()
        if self._journal.busy:
            self._hold()
            return
        changes = self._calls.changes
        if changes is not None:
            beat, self._beat = self._beat, False
            if not self._journal.write(changes.take(self._now()), beat=beat):
                self._calls.changes = None
        self._give()

    def _hold(self) -> None:
        if not self._held:
            self._held = True
            self._journal.when_free(self._go_on)
        if self._waiting:
            asyncio.get_running_loop().call_later(_PATIENCE, self._give)

    def _go_on(self) -> None:
        self._held = False
        self.flush()

    def _give(self) -> None:
        waiting, self._waiting = self._waiting, []
        for pending in waiting:
            pending.give()

    async def keep_all(self) -> bool:
        """The relay stops: write everything as it is now. False: it cannot be kept."""
        if self._calls.changes is not None:
            self._calls.keep()
        await self.stop()
        return self._calls.changes is not None

    async def stop(self) -> None:
        """Write what has changed."""
        await self._journal.free()
        self.flush()
        self._cancel()
