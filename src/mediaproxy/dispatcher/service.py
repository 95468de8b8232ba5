"""The dispatcher: one Link in front of the Links of several relays.

Questions come in, the reply of the relay that the pool names goes out; a relay that does not answer in time is left
for the next one. The reply always says which relay it is from. Nothing is decided here, see ``pool``.
"""

import logging
from collections.abc import Callable, Iterable, Mapping

import msgspec

from mediaproxy import clock
from mediaproxy.control import MediaReply, MediaRequest, Question
from mediaproxy.dispatcher.pool import NO_RELAY, Pool, Relay
from mediaproxy.events import CallEnded, Event
from mediaproxy.link import Link, ask_in_time

log = logging.getLogger("mediaproxy.dispatcher")

TIMEOUT = 2.0
"Seconds that one relay may take: a phone sends its INVITE again after 0.5, 1.5 and 3.5 s."


class Dispatcher:
    """A Link over relays."""

    def __init__(
        self,
        links: Mapping[str, Link],
        relays: Iterable[Relay] = (),
        *,
        timeout: float = TIMEOUT,
        now: Callable[[], float] = clock.now,
    ) -> None:
        """``links``: relay name -> link. ``relays``: weight and tier of those that have other ones than the default."""
        told = {relay.name: relay for relay in relays}
        unknown = told.keys() - links.keys()
        if unknown:
            raise ValueError(f"no link to relay {', '.join(sorted(unknown))}")
        self._links = dict(links)
        self.pool = Pool(told.get(name, Relay(name=name)) for name in links)
        self._timeout = timeout
        self._now = now

    async def ask(self, question: Question) -> MediaReply:
        """The reply of the relay that has the call, or takes it."""
        reply = MediaReply(error="no relay", status=NO_RELAY)
        for name in self.pool.candidates(question, self._now()):
            reply = await self._ask_one(name, question)
            self.pool.answered(question, name, reply, self._now())
            if not self.pool.another(question, reply):
                break
        return reply

    def on_event(self, event: Event) -> None:
        """Forget calls that have ended. For relays in this process; those of others age out."""
        if isinstance(event, CallEnded):
            self.pool.forget(event.call_id)

    async def _ask_one(self, name: str, question: Question) -> MediaReply:
        reply = await ask_in_time(self._links[name], question, self._timeout)
        if reply.status == NO_RELAY:
            log.warning("relay %s: %s", name, reply.error)
        elif reply.error and isinstance(question, MediaRequest):
            log.info("relay %s refuses call %r: %s", name, question.call_id, reply.error)
        return reply if reply.relay else msgspec.structs.replace(reply, relay=name)
