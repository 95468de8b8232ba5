"""Which relay is asked: the one that has the call; else by group, health, tier and Call-ID.

Questions, the relays that may serve them and what became of them come in, relays in the order of trying go out. A call
stays where it is for its whole life. Of the live relays of a tier a new call goes to the one with the highest score of
(Call-ID, relay), so that several dispatchers agree without talking, and a relay that joins or leaves moves only its own
share. Which relay a call went to is remembered: call -> relay, bounded.
"""

import hashlib
import math
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import TypeAlias

import msgspec

from mediaproxy.control import EndRequest, MediaReply, MediaRequest, Question

NO_RELAY, NO_PORTS, UNKNOWN_CALL, FAULT = 503, 480, 481, 500
"Statuses of a MediaReply after which another relay may do better."


class Relay(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One relay of a pool."""

    name: str
    "Unique in the pool; shown to operators, and what ``relay_wish`` names."
    weight: float = 1.0
    "Share of new calls compared with the others of its tier; 0: no new calls, those it has stay (drain)."
    tier: int = 0
    "Relays of a higher tier get new calls only if none of a lower one can take them (DNS SRV priority, RFC 2782)."
    aliases: tuple[str, ...] = ()
    "By what else it may be wished for: its IP addresses, as in MediaProxy 2.x."


Groups: TypeAlias = Sequence[Sequence[Relay]]
"Relays that may serve a question; those of a group only if none of the groups before it can."


class Pool:
    """Mutable: relays, their health, and which call is where."""

    def __init__(self, relays: Iterable[Relay], *, retry_after: float = 10.0, remembered: int = 200_000) -> None:
        """``retry_after``: seconds for which a relay that did not answer is the last resort, or until it is ``up``.
        ``remembered``: calls whose relay is known; beyond it those not heard of longest are forgotten."""
        self._relays = {relay.name: relay for relay in relays}
        self._retry_after = retry_after
        self._remembered = remembered
        self._where: OrderedDict[str, str] = OrderedDict()
        self._down: dict[str, float] = {}
        "Relay -> down until"

    # -- the relays

    @property
    def relays(self) -> tuple[Relay, ...]:
        """All of them."""
        return tuple(self._relays.values())

    def add(self, relay: Relay) -> None:
        """A relay joins, or its weight or tier changes."""
        self._relays[relay.name] = relay

    def also_at(self, name: str, addresses: Iterable[str]) -> None:
        """Media of the relay comes to these addresses."""
        relay = self._relays.get(name)
        if relay is not None:
            aliases = tuple(dict.fromkeys((*relay.aliases, *addresses)))
            self._relays[name] = msgspec.structs.replace(relay, aliases=aliases)

    def discard(self, name: str) -> None:
        """A relay has gone for good."""
        self._relays.pop(name, None)
        self._down.pop(name, None)

    def is_down(self, name: str, now: float) -> bool:
        """Whether the relay did not answer lately."""
        return self._down.get(name, 0.0) > now

    def down(self, name: str, now: float) -> bool:
        """The relay does not answer. Whether that is news."""
        news = not self.is_down(name, now)
        self._down[name] = now + self._retry_after
        return news

    def up(self, name: str) -> bool:
        """The relay answers. Whether that is news."""
        return self._down.pop(name, None) is not None

    # -- one question

    def home(self, call_id: str) -> str | None:
        """The relay that has the call; None: not known."""
        name = self._where.get(call_id)
        return name if name in self._relays else None

    def candidates(self, question: Question, now: float, groups: Groups | None = None) -> tuple[str, ...]:
        """Whom to ask, in order. The next one only if ``another`` says so. ``groups``: None: one of all relays."""
        home = self.home(question.call_id)
        if home is None:
            return self._ranked(question, now, groups)
        if belongs(question):
            return (home,)
        others = tuple(name for name in self._ranked(question, now, groups) if name != home)
        # A new offer of a call whose relay is lost: both parties are told new ports, so it can move.
        return (*others, home) if self.is_down(home, now) else (home, *others)

    def another(self, question: Question, reply: MediaReply) -> bool:
        """Whether the next candidate should be asked after this reply."""
        if reply.status == NO_RELAY:
            return True
        if isinstance(question, MediaRequest):
            return reply.status in (NO_PORTS, FAULT) and not belongs(question)
        return reply.status == UNKNOWN_CALL

    def answered(self, question: Question, name: str, reply: MediaReply, now: float) -> None:
        """Take note of a relay's reply."""
        if reply.status == NO_RELAY:
            self.down(name, now)
            return
        self.up(name)
        if reply.status == UNKNOWN_CALL and self._where.get(question.call_id) == name:
            del self._where[question.call_id]
        if not reply.error and not isinstance(question, EndRequest):
            self.found(question.call_id, name)

    def found(self, call_id: str, name: str) -> None:
        """The relay has the call."""
        self._where[call_id] = name
        self._where.move_to_end(call_id)
        if len(self._where) > self._remembered:
            self._where.popitem(last=False)

    def forget(self, call_id: str) -> None:
        """The call has ended."""
        self._where.pop(call_id, None)

    def __len__(self) -> int:
        """Calls whose relay is known."""
        return len(self._where)

    # -- order

    def _ranked(self, question: Question, now: float, groups: Groups | None) -> tuple[str, ...]:
        new = isinstance(question, MediaRequest)
        wish = self._wished(question.relay_wish) if isinstance(question, MediaRequest) else None
        groups = groups if groups is not None else [self.relays]
        wanted = [*groups, () if new else self.relays]  # a call of before may be anywhere
        ranked: dict[str, tuple[bool, int, int, float]] = {}
        for number, group in enumerate(wanted):
            for relay in group:
                if relay.name not in ranked and relay.name in self._relays and (relay.weight > 0 or not new):
                    score = _score(question.call_id, relay, drained=not new)
                    ranked[relay.name] = (self.is_down(relay.name, now), number, relay.tier, -score)
        if wish is not None:
            ranked[wish.name] = (self.is_down(wish.name, now), -1, 0, 0.0)
        return tuple(sorted(ranked, key=ranked.__getitem__))

    def _wished(self, name: str) -> Relay | None:
        if not name or name in self._relays:
            return self._relays.get(name)
        return next((relay for relay in self._relays.values() if name in relay.aliases), None)


def belongs(question: Question) -> bool:
    """Whether only the relay that has the call can do this: an answer belongs to its offer."""
    return not isinstance(question, MediaRequest) or question.status != 0


def _score(call_id: str, relay: Relay, *, drained: bool) -> float:
    """Weighted rendezvous hashing: the highest score has the call. ``drained``: weight 0 counts as 1, to find a call
    that was there before."""
    digest = hashlib.blake2b(f"{relay.name}\0{call_id}".encode(), digest_size=8).digest()
    uniform = (int.from_bytes(digest, "big") + 0.5) / 2.0**64
    weight = relay.weight if relay.weight > 0 or not drained else 1.0
    return weight / -math.log(uniform)
