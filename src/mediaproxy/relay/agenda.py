"""When calls must be looked at next.

Times come in, the calls that are due go out. A plan may turn out too early, because a call has shown life since:
whoever looks finds out, and plans again. So a packet never costs a change here.
"""

import heapq
from typing import Generic, TypeVar

T = TypeVar("T")


class _Plan(Generic[T]):
    """Mutable: one plan, which may become void."""

    __slots__ = ("at", "subject")

    def __init__(self, at: float, subject: T) -> None:
        self.at = at
        self.subject: T | None = subject


class Agenda(Generic[T]):
    """Mutable: at most one plan per subject. Whoever is cancelled is let go of at once."""

    __slots__ = ("_heap", "_planned", "_turn")

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, _Plan[T]]] = []
        "(when, order of planning, plan), void ones included."
        self._planned: dict[T, _Plan[T]] = {}
        self._turn = 0

    def plan(self, subject: T, at: float) -> None:
        """Look at the subject then, or before if that is planned already."""
        planned = self._planned.get(subject)
        if planned is not None:
            if planned.at <= at:
                return
            planned.subject = None
        plan = self._planned[subject] = _Plan(at, subject)
        self._turn += 1
        heapq.heappush(self._heap, (at, self._turn, plan))

    def cancel(self, subject: T) -> None:
        """Never look at it."""
        plan = self._planned.pop(subject, None)
        if plan is not None:
            plan.subject = None

    def due(self, now: float) -> list[T]:
        """The subjects whose time has come; their plans are done."""
        subjects = []
        while (at := self.next) is not None and at <= now:
            subject = heapq.heappop(self._heap)[2].subject
            assert subject is not None  # next has dropped the void ones
            del self._planned[subject]
            subjects.append(subject)
        return subjects

    def upcoming(self, now: float) -> list[T]:
        """Whom ``due`` would give, in any order; their plans stand."""
        subjects, places = [], [0]
        while places:
            place = places.pop()
            if place >= len(self._heap) or self._heap[place][0] > now:
                continue  # nor is anything below it in the heap
            subject = self._heap[place][2].subject
            if subject is not None:
                subjects.append(subject)
            places += (2 * place + 1, 2 * place + 2)
        return subjects

    def planned(self, subject: T) -> float | None:
        """When the subject is to be looked at; None: never."""
        plan = self._planned.get(subject)
        return None if plan is None else plan.at

    @property
    def next(self) -> float | None:
        """When somebody is due next; None: never."""
        while self._heap and self._heap[0][2].subject is None:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None
