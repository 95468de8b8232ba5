"""Answers of a door that are kept for requests that come again.

A SIP server whose datagram, or our answer to it, was lost sends it again with the same cookie, and must get the same
answer without anything being done twice. Keys and answers come in, answers go out; time is an argument. What is kept
for how long is as with rtpengine: 30 to 60 s, less if that would take more memory than it may.
"""

from collections.abc import Hashable
from typing import Generic, TypeVar

LASTING = 30.0
"Seconds that an answer is kept at least; twice that at most."
MOST_BYTES = 67_108_864
"Of all answers kept. A door that is asked so much forgets earlier: what came to half of it, twice."
OVERHEAD = 300
"Bytes of memory that a kept answer takes besides itself and its cookie."
WAITERS = 8
"Repetitions of one request under way that get their own answer; more than these get none."

W = TypeVar("W")


class AnswerCache(Generic[W]):
    """One per door. Mutable. ``W``: what says where a repetition's answer goes."""

    def __init__(self, *, lasting: float = LASTING, most_bytes: int = MOST_BYTES) -> None:
        self._lasting = lasting
        self._half = most_bytes // 2
        self._new: dict[Hashable, bytes] = {}
        self._old: dict[Hashable, bytes] = {}
        self._size = 0
        self._turn = float("-inf")
        self._working: dict[Hashable, list[W]] = {}

    def __len__(self) -> int:
        return len(self._new) + len(self._old)

    @property
    def working(self) -> int:
        """Requests under way."""
        return len(self._working)

    def find(self, key: Hashable, now: float) -> bytes | None:
        """The answer that is kept; None: the request is new, or under way."""
        if now >= self._turn:
            self._age(now)
        answer = self._new.get(key)
        return answer if answer is not None else self._old.get(key)

    def waits(self, key: Hashable, where: W) -> bool:
        """Whether a request is under way; then ``where`` is given back when it is done."""
        waiting = self._working.get(key)
        if waiting is None:
            return False
        if len(waiting) < WAITERS:
            waiting.append(where)
        return True

    def begin(self, key: Hashable) -> None:
        """A new request is under way."""
        self._working[key] = []

    def done(self, key: Hashable, answer: bytes | None, now: float) -> list[W]:
        """It is answered; None: there is no answer, and the next one with this key is a new one. Who waits for it."""
        waiting = self._working.pop(key, [])
        if answer is not None:
            if now >= self._turn:
                self._age(now)
            self._new[key] = answer
            self._size += len(answer) + OVERHEAD
            if self._size > self._half:
                self._shift(now)
        return waiting

    def _age(self, now: float) -> None:
        late = now >= self._turn + self._lasting
        self._shift(now)
        if late:  # nobody has looked for so long that what was new is too old, too
            self._old = {}

    def _shift(self, now: float) -> None:
        self._old, self._new, self._size = self._new, {}, 0
        self._turn = now + self._lasting
