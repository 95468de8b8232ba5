"""[shell] The dispatcher: one Link in front of the Links of several relays.

Questions come in, the reply of the relay that the pool names goes out; a relay that does not answer in time is left
for the next one, and asked again from time to time until it is back. The reply always says which relay it is from.
Which relays may serve a question is the directory's business, their order the pool's.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol, runtime_checkable

import msgspec

from mediaproxy import clock
from mediaproxy.complaints import Complaints
from mediaproxy.control import (
    ControlError,
    EndCause,
    EndRequest,
    Inquiry,
    ListRequest,
    MediaReply,
    MediaRequest,
    Party,
    QueryRequest,
    Question,
    TotalsRequest,
)
from mediaproxy.dispatcher.directory import domains_of
from mediaproxy.dispatcher.guide import Guide
from mediaproxy.dispatcher.pool import NO_RELAY, UNKNOWN_CALL, Groups, Pool, Relay, belongs
from mediaproxy.events import CallEnded, Event, totals_of
from mediaproxy.link import NOT_INQUIRABLE, Link, Pending, Prompt, ask_in_time, inquire_in_time

log = logging.getLogger("mediaproxy.dispatcher")

STRANGERS = 256
"Relays at a time that only DNS names; a further one takes the place of the one that was not named for longest."
LINES = 30
"Of the log about what one relay refuses with one status, in a minute; what is more is summed up."
UNNAMED = 86_400.0
"Seconds after which a relay is forgotten that only DNS named."


class Timing(msgspec.Struct, frozen=True, kw_only=True):
    """How long is waited for relays, in seconds."""

    last: float = 2.0
    "For the last one that can be asked: a phone sends its INVITE again after 0.5, 1.5 and 3.5 s."
    hurry: float = 0.2
    "For one after which another can be asked, and for one that did not answer lately."
    health_interval: float = 0.0
    "Between two looks whether relays live; 0: none."
    health: float = 1.0
    "For a relay to show that it lives."


@runtime_checkable
class Closable(Protocol):
    """A Link that holds a connection."""

    async def close(self) -> None:
        """Give it back; the next question makes a new one."""


class RelayState(msgspec.Struct, frozen=True, kw_only=True):
    """One relay as an operator sees it."""

    name: str
    weight: float
    tier: int
    up: bool
    why: str = ""
    "What is wrong, if it is not up."


def whoever_has(call_id: str, sender: Party, receiver: Party) -> EndRequest:
    """A question that changes nothing: it takes back an offer that was never made. Who does not have the call answers
    481, who has it answers without error, and who is dead does not answer."""
    return EndRequest(call_id=call_id, sender=sender, receiver=receiver, cause=EndCause.REFUSED, cseq=-1)


class Dispatcher:
    """A Link over relays."""

    def __init__(
        self,
        links: Mapping[str, Link],
        relays: Iterable[Relay] = (),
        *,
        guide: Guide | None = None,
        connect: Callable[[str], Link] | None = None,
        timing: Timing | None = None,
        now: Callable[[], float] = clock.now,
    ) -> None:
        """``links``: relay name -> link. ``relays``: weight and tier of those that have other ones than the default.
        ``guide``: who may serve what; None: everybody everything. ``connect``: the link to a relay that only DNS names,
        by its address."""
        told = {relay.name: relay for relay in relays}
        unknown = told.keys() - links.keys()
        if unknown:
            raise ValueError(f"no link to relay {', '.join(sorted(unknown))}")
        self._links = dict(links)
        self.pool = Pool(told.get(name, Relay(name=name)) for name in links)
        self._guide = guide
        self._connect = connect
        self._strangers: dict[str, float] = {}
        "Relays that only DNS names, and when it did last, in that order."
        self._timing = timing or Timing()
        self._now = now
        self._why: dict[str, str] = {}
        self._complaints = Complaints(LINES)
        self._met: set[str] = set()
        "Relays of other processes that have said where their media comes to."
        self._health: asyncio.Task[None] | None = None
        link = next(iter(links.values())) if len(links) == 1 and connect is None else None
        self._prompt: Prompt | None = link if isinstance(link, Prompt) else None
        "The only relay there is, if it needs no waiting."
        self._only = next(iter(links), "")
        "Its name."

    # -- life

    async def start(self) -> None:
        """Begin to look after the relays of other processes."""
        if self._timing.health_interval and self._prompt is None:
            self._health = asyncio.get_running_loop().create_task(self._look_after())

    async def stop(self) -> None:
        """Give all connections back."""
        if self._health is not None:
            self._health.cancel()
            await asyncio.gather(self._health, return_exceptions=True)
            self._health = None
        if self._guide is not None:
            await self._guide.close()
        for link in self._links.values():
            await _close(link)

    # -- questions

    def answer(self, question: Question) -> MediaReply | Pending | None:
        """The reply if the only relay is here and needs no waiting (link.Prompt)."""
        if self._prompt is None:
            return None
        reply = self._prompt.answer(question)
        if isinstance(reply, Pending):
            reply.reply = self._said(self._only, question, reply.reply)
            return reply
        return None if reply is None else self._said(self._only, question, reply)

    async def ask(self, question: Question) -> MediaReply:
        """The reply of the relay that has the call, or takes it."""
        at_once = self.answer(question)
        if at_once is not None:
            return await at_once.wait() if isinstance(at_once, Pending) else at_once
        home = self.pool.home(question.call_id)
        groups = await self._groups(question, wait=home is None and not belongs(question))
        if home is None and _in_dialog(question):
            await self._find(question, groups)
        names = self.pool.candidates(question, self._now(), groups)
        reply = MediaReply(error=f"no relay{self._for_whom(question)}", status=NO_RELAY)
        for name in names:
            last = name == names[-1] and not self.pool.is_down(name, self._now())
            reply = await self._ask_one(name, question, self._timing.last if last else self._timing.hurry)
            self.pool.answered(question, name, reply, self._now())
            if not self.pool.another(question, reply):
                break
        return reply

    async def inquire(self, inquiry: Inquiry) -> MediaReply:
        """Of one call: the reply of the relay that has it. Of all: what the relays that live say together; one that
        does not answer in time is left out. Status 503 if none answers."""
        if isinstance(inquiry, ListRequest | TotalsRequest) or not inquiry.call_id:
            replies = await self._inquire_all(inquiry)
            merged = _merged(inquiry, list(replies.values()))
            return self._with_absent(merged, replies) if isinstance(inquiry, TotalsRequest) else merged
        home = self.pool.home(inquiry.call_id)
        if home is not None:
            reply = await self._inquire_one(home, inquiry)
            if reply.status != UNKNOWN_CALL:
                return reply
            self.pool.forget(inquiry.call_id)
        replies = await self._inquire_all(inquiry)
        found = next((name for name, reply in replies.items() if not reply.error), None)
        if found is not None:
            self.pool.found(inquiry.call_id, found)
            return replies[found]
        return min(replies.values(), key=_vagueness, default=MediaReply(error="no relay", status=NO_RELAY))

    def _with_absent(self, merged: MediaReply, replies: Mapping[str, MediaReply]) -> MediaReply:
        """The reply, and who has said nothing."""
        silent = MediaReply(status=NO_RELAY)
        down = [one for one in self.pool.relays if replies.get(one.name, silent).status == NO_RELAY]
        if not down:
            return merged
        return msgspec.structs.replace(merged, absent=tuple(next(iter(one.aliases), one.name) for one in down))

    async def _inquire_all(self, inquiry: Inquiry) -> dict[str, MediaReply]:
        """All relays at once, but those that did not answer lately."""
        names = [name for name in self._links if not self.pool.is_down(name, self._now())]
        replies = await asyncio.gather(*(self._inquire_one(name, inquiry) for name in names))
        return dict(zip(names, replies, strict=True))

    async def _inquire_one(self, name: str, inquiry: Inquiry) -> MediaReply:
        reply = await inquire_in_time(self._links[name], inquiry, self._timing.last)
        if name in self._links:
            self._note(name, reply)
        return reply if reply.relay else msgspec.structs.replace(reply, relay=name)

    def on_event(self, event: Event) -> None:
        """Forget calls that have ended. For relays in this process; those of others age out."""
        if isinstance(event, CallEnded):
            self.pool.forget(event.call_id)

    async def _ask_one(self, name: str, question: Question, seconds: float) -> MediaReply:
        reply = await ask_in_time(self._links[name], question, seconds)
        self._note(name, reply)
        return self._said(name, question, reply)

    def _said(self, name: str, question: Question, reply: MediaReply) -> MediaReply:
        if reply.error and reply.status != NO_RELAY and isinstance(question, MediaRequest):
            text = f"call {question.call_id!r}: {reply.error}"
            for line in self._complaints.note(f"relay {name} refuses with {reply.status}", text, self._now()):
                log.info("%s", line)
        return reply if reply.relay else msgspec.structs.replace(reply, relay=name)

    async def _find(self, question: Question, groups: Groups | None) -> None:
        """Ask all live relays at once who has a call of which we know nothing: it may have begun before we did."""
        now = self._now()
        probe = whoever_has(question.call_id, question.sender, question.receiver)
        names = [name for name in self.pool.candidates(probe, now, groups) if not self.pool.is_down(name, now)]
        if len(names) < 2:
            return
        replies = await asyncio.gather(*(ask_in_time(self._links[name], probe, self._timing.hurry) for name in names))
        home = next((name for name, reply in zip(names, replies, strict=True) if not reply.error), None)
        if home is not None:
            self.pool.found(question.call_id, home)

    def _for_whom(self, question: Question) -> str:
        domains = ", ".join(domains_of(question)) if self._links else ""
        return f" serves {domains}" if domains else ""

    # -- who may serve it

    async def _groups(self, question: Question, *, wait: bool) -> Groups | None:
        if self._guide is None:
            return None
        groups = await self._guide.groups(question, wait=wait)
        if self._connect is not None:
            for relay in (relay for group in groups for relay in group):
                await self._meet(relay, self._connect)
        return groups

    async def _meet(self, relay: Relay, connect: Callable[[str], Link]) -> None:
        """See to it that there is a link to a relay that DNS names."""
        if relay.name in self._links and relay.name not in self._strangers:
            return
        self._strangers.pop(relay.name, None)
        self._strangers[relay.name] = self._now()
        if relay.name not in self._links:
            self._links[relay.name] = connect(relay.name)
            self.pool.add(relay)
            log.info("relay %s: named by DNS", relay.name)
        while len(self._strangers) > STRANGERS:
            await self._leave(next(iter(self._strangers)))

    async def _leave(self, name: str) -> None:
        """Forget a relay that DNS does not name any more."""
        del self._strangers[name]
        self.pool.discard(name)
        self._why.pop(name, None)
        self._met.discard(name)
        await _close(self._links.pop(name))

    # -- health

    def states(self) -> tuple[RelayState, ...]:
        """All relays as they are now."""
        now = self._now()
        return tuple(
            RelayState(
                name=relay.name,
                weight=relay.weight,
                tier=relay.tier,
                up=not self.pool.is_down(relay.name, now),
                why=self._why.get(relay.name, ""),
            )
            for relay in self.pool.relays
        )

    async def _look_after(self) -> None:
        while True:
            for name, named in list(self._strangers.items()):
                if self._now() - named > UNNAMED:
                    await self._leave(name)
            others = [name for name, link in self._links.items() if not isinstance(link, Prompt)]
            await asyncio.gather(*(self._check(name) for name in others))
            await asyncio.sleep(self._timing.health_interval)

    async def _check(self, name: str) -> None:
        link = self._links[name]
        reply = await ask_in_time(link, _ALIVE, self._timing.health)
        if name not in self._links:
            return
        self._note(name, reply)
        if reply.status == NO_RELAY:
            self._met.discard(name)  # its next configuration may be another one
            await _close(link)  # a host that was cut off answers on a new connection first
        elif name not in self._met:
            await self._learn_addresses(name, link)

    async def _learn_addresses(self, name: str, link: Link) -> None:
        """By these it may be wished for, as relays of MediaProxy 2.x are."""
        reply = await inquire_in_time(link, TotalsRequest(), self._timing.health)
        try:
            told = () if reply.error else totals_of(reply)
        except ControlError:
            told = ()
        if name in self._links and reply.status != NO_RELAY:
            self._met.add(name)
            self.pool.also_at(name, [address for totals in told for address in totals.addresses])

    def _note(self, name: str, reply: MediaReply) -> None:
        """Whether the relay lives; told when it changes."""
        if reply.status != NO_RELAY:
            self._why.pop(name, None)
            if self.pool.up(name):
                log.info("relay %s answers again", name)
            return
        self._why[name] = reply.error
        if self.pool.down(name, self._now()):
            log.warning("relay %s does not answer: %s", name, reply.error)


_ALIVE = whoever_has("", Party(), Party())
"No call has an empty Call-ID; if one had, this would change nothing."


def _vagueness(reply: MediaReply) -> int:
    """Sorts the errors of several relays about one call: the one that has it knows best what is wrong."""
    return {UNKNOWN_CALL: 1, NO_RELAY: 2, NOT_INQUIRABLE.status: 2}.get(reply.status, 0)


def _merged(inquiry: Inquiry, replies: list[MediaReply]) -> MediaReply:
    """What all relays say that have answered."""
    good = [reply for reply in replies if not reply.error]
    if not good:
        return next(iter(replies), MediaReply(error="no relay", status=NO_RELAY))
    most = inquiry.limit if isinstance(inquiry, ListRequest | QueryRequest) else None
    return MediaReply(
        reports=tuple(report for reply in good for report in reply.reports)[:most],
        calls=tuple(dict.fromkeys(call_id for reply in good for call_id in reply.calls))[:most],
        totals=tuple(totals for reply in good for totals in reply.totals),
        relay=good[0].relay if len(good) == 1 else "",
    )


def _in_dialog(question: Question) -> bool:
    """Whether it is about media of a call that may have begun before."""
    return isinstance(question, MediaRequest) and bool(question.status or question.receiver.tag)


async def _close(link: Link) -> None:
    if isinstance(link, Closable):
        await link.close()
