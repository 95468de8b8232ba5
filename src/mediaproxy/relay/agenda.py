"""When calls must be looked at next.

Times come in, the calls that are due go out. A plan may turn out too early, because a call has shown life since:
whoever looks finds out, and plans again. So a packet never costs a change here.
"""

import heapq
from typing import Generic, TypeVar

T = TypeVar("T")


class Agenda(Generic[T]):
    """Mutable: at most one plan per subject."""

    __slots__ = ("_heap", "_planned", "_turn")

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, T]] = []
        "(when, order of planning, whom); plans that are no more in ``_planned`` are void."
        self._planned: dict[T, float] = {}
        self._turn = 0

    def plan(self, subject: T, at: float) -> None:
        """Look at the subject then, or before if that is planned already."""
        planned = self._planned.get(subject)
        if planned is None or at < planned:
            self._planned[subject] = at
            self._turn += 1
            heapq.heappush(self._heap, (at, self._turn, subject))

    def cancel(self, subject: T) -> None:
        """Never look at it."""
        self._planned.pop(subject, None)

    def due(self, now: float) -> list[T]:
        """The subjects whose time has come; their plans are done."""
        subjects = []
        while (at := self.next) is not None and at <= now:
            _, _, subject = heapq.heappop(self._heap)
            del self._planned[subject]
            subjects.append(subject)
        return subjects

    @property
    def next(self) -> float | None:
        """When somebody is due next; None: never."""
        while self._heap and self._planned.get(self._heap[0][2]) != self._heap[0][0]:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None
