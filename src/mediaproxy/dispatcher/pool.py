"""Which relay is asked: the one that has the call; else by Call-ID, weight and health.

Questions and what became of them come in, relays in the order of trying go out. A call stays where it is for its whole
life. Of the live relays a new call goes to the one with the highest score of (Call-ID, relay), so that several
dispatchers agree without talking, and a relay that joins or leaves moves only its own share. Only what differs from
that, or could after a change of the relays, is remembered: call -> relay, bounded.
"""

import hashlib
import math
from collections import OrderedDict
from collections.abc import Iterable

import msgspec

from mediaproxy.control import EndRequest, MediaReply, MediaRequest, Question

NO_RELAY, NO_PORTS, UNKNOWN_CALL = 503, 480, 481
"Statuses of a MediaReply after which another relay may do better."


class Relay(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One relay of a pool."""

    name: str
    "Unique in the pool; shown to operators, and what ``relay_wish`` names."
    weight: float = 1.0
    "Share of new calls compared with the others of its tier; 0: no new calls, those it has stay (drain)."
    tier: int = 0
    "Relays of a higher tier get new calls only if none of a lower one can take them (DNS SRV priority, RFC 2782)."


class Pool:
    """Mutable: relays, their health, and which call is where."""

    def __init__(self, relays: Iterable[Relay], *, retry_after: float = 10.0, remembered: int = 200_000) -> None:
        """``retry_after``: seconds for which a relay that did not answer is the last resort.
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

    def discard(self, name: str) -> None:
        """A relay has gone for good."""
        self._relays.pop(name, None)
        self._down.pop(name, None)

    def is_down(self, name: str, now: float) -> bool:
        """Whether the relay did not answer lately."""
        return self._down.get(name, 0.0) > now

    # -- one question

    def candidates(self, question: Question, now: float) -> tuple[str, ...]:
        """Whom to ask, in order. The next one only if ``another`` says so."""
        ranked = self._ranked(question, now)
        home = self._where.get(question.call_id)
        if home is None or home not in self._relays:
            return ranked
        if self._stays(question) or not self.is_down(home, now):
            return (home,) if self._stays(question) else (home, *(name for name in ranked if name != home))
        # A new offer of a call whose relay is lost: both parties are told new ports, so it can move.
        return (*(name for name in ranked if name != home), home)

    def another(self, question: Question, reply: MediaReply) -> bool:
        """Whether the next candidate should be asked after this reply."""
        if reply.status == NO_RELAY:
            return True
        if isinstance(question, MediaRequest):
            return reply.status == NO_PORTS and not self._stays(question)
        return reply.status == UNKNOWN_CALL

    def answered(self, question: Question, name: str, reply: MediaReply, now: float) -> None:
        """Take note of a relay's reply."""
        if reply.status == NO_RELAY:
            self._down[name] = now + self._retry_after
            return
        self._down.pop(name, None)
        if reply.status == UNKNOWN_CALL and self._where.get(question.call_id) == name:
            del self._where[question.call_id]
        if reply.error or isinstance(question, EndRequest):
            return
        self._where[question.call_id] = name
        self._where.move_to_end(question.call_id)
        if len(self._where) > self._remembered:
            self._where.popitem(last=False)

    def forget(self, call_id: str) -> None:
        """The call has ended."""
        self._where.pop(call_id, None)

    def __len__(self) -> int:
        """Calls whose relay is known."""
        return len(self._where)

    # -- order

    @staticmethod
    def _stays(question: Question) -> bool:
        """Whether only the relay that has the call can do this: an answer belongs to its offer."""
        return not isinstance(question, MediaRequest) or question.status != 0

    def _ranked(self, question: Question, now: float) -> tuple[str, ...]:
        wish = question.relay_wish if isinstance(question, MediaRequest) else ""
        new = isinstance(question, MediaRequest)

        def key(relay: Relay) -> tuple[bool, bool, int, float]:
            return (
                relay.name != wish,
                self.is_down(relay.name, now),
                relay.tier,
                -_score(question.call_id, relay, drained=not new),
            )

        eligible = [relay for relay in self._relays.values() if relay.weight > 0 or not new or relay.name == wish]
        return tuple(relay.name for relay in sorted(eligible, key=key))


def _score(call_id: str, relay: Relay, *, drained: bool) -> float:
    """Weighted rendezvous hashing: the highest score has the call. ``drained``: weight 0 counts as 1, to find a call
    that was there before."""
    digest = hashlib.blake2b(f"{relay.name}\0{call_id}".encode(), digest_size=8).digest()
    uniform = (int.from_bytes(digest, "big") + 0.5) / 2.0**64
    weight = relay.weight if relay.weight > 0 or not drained else 1.0
    return weight / -math.log(uniform)
