"""Timers of many things in one heap: no task and no handle of the event loop per transaction.

A thing has a ``deadline``; it is watched after each change and ticked when the deadline has come. To put a deadline off
costs nothing: the thing is asked again when the old one comes. What is done is dropped at once, so that a long timer
keeps nothing alive.
"""

import heapq
from typing import Generic, Protocol, TypeVar


class Timed(Protocol):
    """What can be watched."""

    @property
    def deadline(self) -> float | None:
        """When it wants to be ticked, seconds since the epoch; None: not at present."""


T = TypeVar("T", bound=Timed)


class Alarm(Generic[T]):
    """The place of one thing in the heap."""

    __slots__ = ("at", "item")

    def __init__(self, item: T) -> None:
        self.item: T | None = item
        self.at: float | None = None

    def cancel(self) -> None:
        """Forget the thing."""
        self.item = None


class Alarms(Generic[T]):
    """The heap."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Alarm[T]]] = []
        self._count = 0

    @property
    def deadline(self) -> float | None:
        """When ``due`` should be called next."""
        return self._heap[0][0] if self._heap else None

    def watch(self, alarm: Alarm[T]) -> None:
        """The deadline of the thing may have changed."""
        at = alarm.item.deadline if alarm.item is not None else None
        if at is None or (alarm.at is not None and alarm.at <= at):
            return
        alarm.at = at
        self._count += 1
        heapq.heappush(self._heap, (at, self._count, alarm))

    def due(self, now: float) -> T | None:
        """The next thing whose deadline has come, None if there is none. Watch it again after its tick."""
        while self._heap and self._heap[0][0] <= now:
            at, _, alarm = heapq.heappop(self._heap)
            if alarm.item is None or alarm.at != at:
                continue
            alarm.at = None
            deadline = alarm.item.deadline
            if deadline is not None and deadline <= at:
                return alarm.item
            self.watch(alarm)
        return None

    def __len__(self) -> int:
        return len(self._heap)
