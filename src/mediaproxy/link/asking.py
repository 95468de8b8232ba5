"""[shell] Asking somebody who answers control questions, wherever that is.

A Question or an Inquiry comes in, a MediaReply goes out, always: whatever breaks on the way becomes a reply with
``error`` and a status. Nothing here decides which relay is asked.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol, cast, runtime_checkable

import msgspec

from mediaproxy.control import Inquiry, MediaReply, Question, encode

MAX_LINE = 2_097_152
"""Bytes of one control line. No SIP message of 128 KiB makes a longer one: 1024 streams (traversal) with all payload
types that have names take 1.3 MB, and each other byte 6 at most (``\\u0001``)."""
ASK_TIMEOUT = 5.0
"Seconds that a question may take before the asker is told that there is no answer."


class Link(Protocol):
    """Somebody who answers control questions: a relay, a dispatcher, or a connection to one."""

    async def ask(self, question: Question) -> MediaReply:
        """The answer. Never raises for what a peer or the network did; ``error`` says what went wrong."""


@runtime_checkable
class Inquirable(Link, Protocol):
    """A Link that also answers whoever looks after calls."""

    async def inquire(self, inquiry: Inquiry) -> MediaReply:
        """The answer. Never raises for what a peer or the network did; ``error`` says what went wrong: status 481 if
        there is no such call, 404 if the call has no such party, 503 if no relay answers."""


NOT_INQUIRABLE = MediaReply(error="nobody here answers inquiries about calls", status=501)
"What an Inquiry is answered by a Link that is not Inquirable."


class Pending:
    """Mutable: a reply that is known, and may not be given before something is on disk."""

    __slots__ = ("_told", "reply")

    def __init__(self, reply: MediaReply) -> None:
        self.reply = reply
        self._told: Callable[[MediaReply], None] = lambda reply: None

    def then(self, tell: Callable[[MediaReply], None]) -> None:
        """Whom to give it to. Called once, at once."""
        self._told = tell

    def give(self) -> None:
        """It may be given now."""
        self._told(self.reply)

    async def wait(self) -> MediaReply:
        """The reply, when it may be given. Instead of ``then``."""
        given = asyncio.get_running_loop().create_future()
        self.then(lambda reply: None if given.done() else given.set_result(reply))
        return cast(MediaReply, await given)


@runtime_checkable
class Prompt(Protocol):
    """A Link that may know the answer without waiting for anything, which saves a task and a timer per question."""

    def answer(self, question: Question) -> MediaReply | Pending | None:
        """The answer; None: it takes time, ``ask``."""


class LocalLink:
    """A Link within this process: any coroutine function that answers questions."""

    def __init__(self, answer: Callable[[Question], Awaitable[MediaReply]]) -> None:
        self._answer = answer

    async def ask(self, question: Question) -> MediaReply:
        """The answer."""
        return await self._answer(question)


async def ask_in_time(link: Link, question: Question, seconds: float) -> MediaReply:
    """Ask; after ``seconds`` without an answer the reply is an error with status 503."""
    try:
        async with asyncio.timeout(seconds):
            return await link.ask(question)
    except TimeoutError:
        return MediaReply(error=f"no answer within {seconds:g} s", status=503)


async def inquire_in_time(link: Link, inquiry: Inquiry, seconds: float) -> MediaReply:
    """Inquire; after ``seconds`` without an answer the reply is an error with status 503."""
    if not isinstance(link, Inquirable):
        return NOT_INQUIRABLE
    try:
        async with asyncio.timeout(seconds):
            return await link.inquire(inquiry)
    except TimeoutError:
        return MediaReply(error=f"no answer within {seconds:g} s", status=503)


async def reply_in_time(link: Link, question: Question | Inquiry, seconds: float) -> MediaReply:
    """``ask_in_time`` or ``inquire_in_time``."""
    if isinstance(question, Inquiry):
        return await inquire_in_time(link, question, seconds)
    return await ask_in_time(link, question, seconds)


def reply_line(reply: MediaReply) -> bytes:
    """The control line of a reply. If it would be longer than MAX_LINE the last reports and Call-IDs are left out."""
    line = encode(reply)
    while len(line) > MAX_LINE and (reply.reports or reply.calls):
        reports, calls = reply.reports[: len(reply.reports) // 2], reply.calls[: len(reply.calls) // 2]
        reply = msgspec.structs.replace(reply, reports=reports, calls=calls)
        line = encode(reply)
    return line
