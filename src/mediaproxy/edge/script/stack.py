"""Stacks of their own for the routes of a script, so that one can wait while the server goes on.

A route is called on such a stack. It comes back when it has ended, or when a function of its needs something of the
server: a question to wait for, or work that must not be done on the script's stack. What it gets then is the answer.
Stacks are kept and used again, for making one costs ten times as much as a switch.
"""

from collections.abc import Callable
from functools import partial
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


class _Work:
    """What a stack is to do, and for whom."""

    __slots__ = ("route", "stage")

    def __init__(self) -> None:
        self.stage: Staged | None = None
        self.route: Callable[[], object] | None = None


class Stack(greenlet):
    """One of them. ``begin`` calls a route, ``answer`` goes on with it.

    Nothing that stands on the stack may refer to it: who waits for an answer that never comes is then ended as soon as
    nobody could give one any more. The garbage collector does not see into a stack that waits.
    """

    def __init__(self) -> None:
        self.work = _Work()
        super().__init__(partial(_serve, self.work))

    def begin(self, stage: Staged, route: Callable[[], object]) -> Needed | Ended:
        """Call a route; what it needs first, or that it has ended."""
        self.work.stage, self.work.route = stage, route
        return self.answer(None)

    def answer(self, value: object) -> Needed | Ended:
        """Go on with it; what it needs next, or that it has ended."""
        here = getcurrent()
        if self.parent is not here:
            self.parent = here
        needed: Needed | Ended = self.switch(value)
        return needed


def _serve(work: _Work, _: object) -> Ended:
    while True:
        assert work.stage is not None and work.route is not None
        try:
            work.route()
        except Dropped:
            pass
        except GreenletExit:
            return _ENDED  # the server will not go on with it
        except BaseException as error:  # noqa: BLE001 - whatever a script raises, the server goes on
            work.stage.failed(error)
        work.stage = work.route = None
        _switch(_ENDED)


def _switch(value: object) -> Any:
    parent = getcurrent().parent
    assert parent is not None
    return parent.switch(value)


def running() -> Any:
    """The stage whose route calls this; None: none does."""
    here = getcurrent()
    return here.work.stage if isinstance(here, Stack) else None


def ask(needed: Needed) -> Any:
    """From a route: have a question answered, or a function called on the server's stack, and wait for the result."""
    return _switch(needed)
