"""A media arm for tests of the signalling: it notes every question and answers with ports of its own choice."""

import asyncio
from collections.abc import Callable
from typing import TypeVar

from mediaproxy.control import ConfirmRequest, EndRequest, MediaPort, MediaReply, MediaRequest, Question
from mediaproxy.endpoint import Endpoint

_Q = TypeVar("_Q", MediaRequest, ConfirmRequest, EndRequest)


class FakeLink:
    """A Link."""

    def __init__(self) -> None:
        self.questions: list[Question] = []
        self.error: MediaReply | None = None
        "Answer with this instead."
        self.gate: asyncio.Event | None = None
        "Answer MediaRequests only after it is set."
        self.asked = asyncio.Condition()

    async def ask(self, question: Question) -> MediaReply:
        self.questions.append(question)
        async with self.asked:
            self.asked.notify_all()
        if not isinstance(question, MediaRequest):
            return MediaReply()
        if self.gate is not None:
            await self.gate.wait()
        if self.error is not None:
            return self.error
        return MediaReply(ports=tuple(port_for(number) for number, _ in enumerate(question.streams)), relay="fake")

    def of(self, kind: type[_Q]) -> list[_Q]:
        """The questions of one kind."""
        return [question for question in self.questions if isinstance(question, kind)]

    async def wait_for(self, condition: Callable[[], bool], seconds: float = 5.0) -> None:
        """Until a condition on the questions holds."""
        async with asyncio.timeout(seconds), self.asked:
            await self.asked.wait_for(condition)


RELAY = "192.0.2.250"


def port_for(number: int) -> MediaPort:
    """The relay's ports for stream ``number``."""
    rtp = Endpoint(RELAY, 20000 + 2 * number)
    return MediaPort(rtp=rtp, rtcp=rtp.with_port(rtp.port + 1))
