"""Runs the routes of the script in force.

A stage comes in, with what is to be done when its route has ended; effects go out. A route that asks the relay waits:
its question is an effect whose continuation goes on with it. Another script may take the place of the old one at any
time: what runs already ends as it began. It must never let an exception of a script out.
"""

from collections.abc import Callable
from functools import partial

from mediaproxy.control import MediaReply, Question
from mediaproxy.edge.effects import Ask, Effect
from mediaproxy.edge.script.loading import Script
from mediaproxy.edge.script.msg import Msg
from mediaproxy.edge.script.stack import KEPT, Ended, Needed, Stack
from mediaproxy.edge.script.stage import Stage
from mediaproxy.edge.script.trouble import trouble
from mediaproxy.module import RouteType

Then = Callable[[float], list[Effect]]
"What is done at the end of a route."


class Interpreter:
    """One per proxy."""

    def __init__(self, script: Script) -> None:
        self.script = script
        "The one in force: new runs take their route from it."
        self._idle: list[Stack] = []

    def has(self, route: RouteType) -> bool:
        """Whether the script has that route."""
        return route in self.script.routes

    def run(self, stage: Stage, then: Then, now: float) -> list[Effect]:
        """Run a stage's route, which the script must have. ``then`` is called when it has ended: at once, or when an
        answer has come."""
        function, takes_message = self.script.routes[stage.route]
        stage.now = now
        stack = self._idle.pop() if self._idle else Stack()
        needed = stack.begin(stage, partial(function, Msg(stage)) if takes_message else function)
        return _Running(self, stack, stage, self.script.name, then).serve(needed)

    def idle(self, stack: Stack) -> None:
        """A stack is free again."""
        if not stack.dead and len(self._idle) < KEPT:
            self._idle.append(stack)


class _Running:
    """A route that has begun."""

    __slots__ = ("_interpreter", "_name", "_stack", "_stage", "_then")

    def __init__(self, interpreter: Interpreter, stack: Stack, stage: Stage, name: str, then: Then) -> None:
        self._interpreter = interpreter
        self._stack = stack
        self._stage = stage
        self._name = name
        self._then = then

    def serve(self, needed: Needed | Ended) -> list[Effect]:
        """Do what it needs until it waits or has ended."""
        while not isinstance(needed, Ended):
            if not callable(needed):
                return self._wait(needed)
            needed = self._stack.answer(needed())
        stage = self._stage
        self._interpreter.idle(self._stack)
        if stage.error is not None:
            stage.effects.append(trouble(self._name, stage.route, stage.error))
            stage.error = None
        return self._taken() + self._then(stage.now)

    def _wait(self, question: Question) -> list[Effect]:
        self._stage.waits()
        return [*self._taken(), Ask(question, self._answered)]

    def _answered(self, reply: MediaReply, now: float) -> list[Effect]:
        self._stage.now = now
        return self.serve(self._stack.answer(reply))

    def _taken(self) -> list[Effect]:
        effects, self._stage.effects = self._stage.effects, []
        return effects
