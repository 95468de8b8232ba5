"""Stacks of their own for the routes of a script, so that one can wait while the server goes on.

A route is called on such a stack. It comes back when it has ended, or when a function of its needs something of the
server: a question to wait for, or work that must not be done on the script's stack. What it gets then is the answer.
Stacks are kept and used again, for making one costs ten times as much as a switch.
"""

from collections.abc import Callable
from typing import Any, Protocol, TypeAlias

from greenlet import GreenletExit, getcurrent, greenlet

from mediaproxy.control import Question

KEPT = 64
"Idle stacks that are kept."


class Dropped(BaseException):
    """``drop()``: the route ends here. No Exception, so that a script's own ``except Exception`` lets it pass."""


class Ended:
    """A route has come to its end."""


_ENDED = Ended()
Needed: TypeAlias = Question | Callable[[], object]
"What a route needs: an answer to wait for, or a function to be called on the server's stack."


class Staged(Protocol):
    """What a stack runs for."""

    def failed(self, error: BaseException) -> None:
        """The route ended by an exception."""


class Stack(greenlet):
    """One of them. ``begin`` calls a route, ``answer`` goes on with it."""

    def __init__(self) -> None:
        super().__init__(self._work)
        self.stage: Staged | None = None
        "Whose route runs on it; None: it is idle."
        self._route: Callable[[], object] | None = None

    def begin(self, stage: Staged, route: Callable[[], object]) -> Needed | Ended:
        """Call a route; what it needs first, or that it has ended."""
        self.stage, self._route = stage, route
        return self.answer(None)

    def answer(self, value: object) -> Needed | Ended:
        """Go on with it; what it needs next, or that it has ended."""
        here = getcurrent()
        if self.parent is not here:
            self.parent = here
        asked: Needed | Ended = self.switch(value)
        return asked

    def _work(self, _: object) -> Ended:
        while True:
            stage, route = self.stage, self._route
            assert stage is not None and route is not None
            try:
                route()
            except Dropped:
                pass
            except GreenletExit:
                self.stage = None
                return _ENDED  # the server will not go on with it
            except BaseException as error:  # noqa: BLE001 - whatever a script raises, the server goes on
                stage.failed(error)
            self.stage = self._route = stage = route = None
            assert self.parent is not None
            self.parent.switch(_ENDED)


def running() -> Any:
    """The stage whose route calls this; None: none does."""
    here = getcurrent()
    return here.stage if isinstance(here, Stack) else None


def ask(needed: Needed) -> Any:
    """From a route: have a question answered, or a function called on the server's stack, and wait for the result."""
    here = getcurrent()
    assert isinstance(here, Stack) and here.parent is not None
    return here.parent.switch(needed)
