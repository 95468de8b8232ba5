"""[shell] How busy the host and its relays are: looked at now and then, if NG doors have limits.

Settings and a Link come in; numbers that may be half a second old come out.
"""

import asyncio
import os
from collections.abc import Callable

from mediaproxy import clock
from mediaproxy.control import ControlError, TotalsRequest
from mediaproxy.dialects.ng.settings import NgOptions
from mediaproxy.events import totals_of
from mediaproxy.link import Link
from mediaproxy.link.asking import inquire_in_time

PERIOD = 0.5
"Seconds between two looks, as rtpengine does."
_PATIENCE = 2.0


class Load:
    """A dialects.ng.limits.Busy."""

    def __init__(self, settings: NgOptions, link: Link, own_calls: Callable[[], int] | None = None) -> None:
        """``own_calls``: the number of calls if all are at the relay of this process."""
        self._settings = settings
        self._link = link
        self._own_calls = own_calls
        self._told_calls = 0
        self.load = 0.0
        self.cpu = 0.0
        self.bandwidth = 0.0
        self._ticks = (0, 0)
        self._forwarded = (0.0, 0)
        self._task: asyncio.Task[None] | None = None

    @property
    def sessions(self) -> int:
        """Calls."""
        return self._told_calls if self._own_calls is None else self._own_calls()

    async def start(self) -> None:
        """Look, and go on looking if anything is limited."""
        settings = self._settings
        if any(one is not None for one in (settings.max_load, settings.max_cpu)) or self._asks:
            await self._look()
            self._task = asyncio.get_running_loop().create_task(self._keep_looking())

    async def stop(self) -> None:
        """Look no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    @property
    def _asks(self) -> bool:
        """Whether relays must be asked."""
        counts = self._settings.max_sessions is not None and self._own_calls is None
        return counts or self._settings.max_bandwidth is not None

    async def _keep_looking(self) -> None:
        while True:
            await asyncio.sleep(PERIOD)
            await self._look()

    async def _look(self) -> None:
        if self._settings.max_load is not None:
            self.load = os.getloadavg()[0]
        if self._settings.max_cpu is not None:
            self._look_at_cpu()
        if self._asks:
            await self._ask()

    def _look_at_cpu(self) -> None:
        try:
            with open("/proc/stat", encoding="ascii") as file:
                idle, whole = ticks(file.readline())
        except (OSError, ValueError):
            return  # not Linux
        passed = whole - self._ticks[1]
        if passed > 0:
            self.cpu = 100.0 * (1.0 - (idle - self._ticks[0]) / passed)
        self._ticks = (idle, whole)

    async def _ask(self) -> None:
        reply = await inquire_in_time(self._link, TotalsRequest(), _PATIENCE)
        try:
            totals = totals_of(reply)
        except ControlError:
            return  # a relay of another version: nothing is known of it
        self._told_calls = sum(one.calls for one in totals)
        now, forwarded = clock.now(), sum(one.bytes for one in totals)
        before, less = self._forwarded
        if before and now > before:
            self.bandwidth = max(0.0, (forwarded - less) / (now - before))
        self._forwarded = (now, forwarded)


def ticks(line: str) -> tuple[int, int]:
    """Idle and all ticks of the first line of ``/proc/stat``. ValueError if it is another one."""
    name, *numbers = line.split()
    if name != "cpu" or len(numbers) < 5:
        raise ValueError("not the line of all CPUs")
    counted = [int(number) for number in numbers[:8]]
    return counted[3] + counted[4], sum(counted)
