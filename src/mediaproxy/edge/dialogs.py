"""The dialogs of answered calls (RFC 3261 §12), as far as hanging up for both parties needs them.

2xx, requests within dialogs and ends of calls come in; what a BYE must say, and whom it must reach, is kept. Only calls
whose media the relay carries are kept, because only these can end without a BYE. It never decides that a call ends, and
nothing of a message depends on it: without an entry everything but hanging up works.
"""

from dataclasses import dataclass, replace
from typing import Protocol

from mediaproxy.edge.effects import Effect
from mediaproxy.edge.settings import Listener
from mediaproxy.events import EndReason, Side
from mediaproxy.sip.message import Request, Response
from mediaproxy.traversal import contact_uri

FORKS = 32
"Dialogs of one INVITE at most: as many as it is forked to by default. Who answers with more tags is not remembered."
LONGEST = 8192
"""Characters of one dialog at most. An honest one has 500; without a bound 20 000 of them could hold the server's
memory, as one message may have 64 KiB."""
REFRESHING = frozenset(("INVITE", "UPDATE"))
"Target refresh requests (RFC 3261 §12.2, RFC 3311 §5)."


@dataclass(frozen=True, slots=True, kw_only=True)
class Party:
    """One party of a dialog, and the way to it."""

    address: str
    "Its From or To value, with the tag."
    tag: str
    name: str
    "Its address of record, for people."
    target: str
    "Its Contact URI as we forward it: repaired. Empty: it gave none."
    routes: tuple[str, ...] = ()
    "The part of the route set that is behind us on the way to it."
    local: Listener | None = None
    "The socket of ours that it is reached from; None: not known."
    cseq: int = 0
    "The highest CSeq of its requests; 0: it has sent none."

    @property
    def size(self) -> int:
        """Characters."""
        return len(self.address) + len(self.target) + sum(map(len, self.routes))


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialog:
    """One dialog. A forked INVITE may make several."""

    call_id: str
    caller: Party
    callee: Party

    def party(self, side: Side) -> Party:
        """One of the two."""
        return self.caller if side is Side.CALLER else self.callee

    def having(self, side: Side, party: Party) -> "Dialog":
        """The same with another party."""
        return replace(self, caller=party) if side is Side.CALLER else replace(self, callee=party)


class Ringing(Protocol):
    """An INVITE that has no final response yet: its response context."""

    def hang_up(self, status: int, why: str, now: float) -> list[Effect]:
        """Cancel what rings, and answer the caller."""


class Attempt:
    """An INVITE that begins a call, for as long as a 2xx to it can come."""

    __slots__ = ("_seen", "_tags", "call_id", "caller", "ended", "relayed", "ringing")

    def __init__(self, request: Request, local: Listener | None) -> None:
        """``request``: as it is forwarded, our Record-Route not yet on it. ``local``: the socket that it came to."""
        self.call_id = request.call_id
        self.caller = Party(
            address=str(request.from_),
            tag=request.from_.tag,
            name=request.from_.uri.aor,
            target=contact_uri(request),
            routes=tuple(str(route) for route in request.record_routes),
            local=local,
            cseq=request.cseq.number,
        )
        self.ringing: Ringing | None = None
        "Until there is a final response."
        self.relayed = False
        "The relay has ports for its media."
        self.ended: EndReason | None = None
        "It was hung up while it rang. A 2xx that comes nevertheless is hung up at once."
        self._seen: dict[tuple[str, str], int] = {}
        "(From tag, To tag) of PRACK and the like before the 2xx -> highest CSeq."
        self._tags: set[str] = set()
        "Of the callees that have answered."

    def saw(self, request: Request) -> None:
        """A request within an early dialog of this INVITE (RFC 3262, 3311)."""
        key = (request.from_.tag, request.to.tag)
        if key in self._seen or len(self._seen) < 2 * FORKS:
            self._seen[key] = max(self._seen.get(key, 0), request.cseq.number)

    def answered(self, response: Response, routes: tuple[str, ...], local: Listener | None) -> Dialog | None:
        """The dialog that a 2xx makes, as it is forwarded; None if it is only another copy of that 2xx, or it has no
        tags, or too many callees have answered. ``routes`` and ``local``: as of the callee."""
        tag = response.to.tag
        if not tag or not self.caller.tag or tag in self._tags or len(self._tags) >= FORKS:
            return None
        self._tags.add(tag)
        caller = replace(self.caller, cseq=max(self.caller.cseq, self._seen.pop((self.caller.tag, tag), 0)))
        callee = Party(
            address=str(response.to),
            tag=tag,
            name=response.to.uri.aor,
            target=contact_uri(response),
            routes=routes,
            local=local,
            cseq=self._seen.pop((tag, self.caller.tag), 0),
        )
        return Dialog(call_id=self.call_id, caller=caller, callee=callee)


_Call = tuple[str, str]
"Call-ID and the caller's tag: what the relay calls one call."


class Dialogs:
    """All of them."""

    def __init__(self, limit: int) -> None:
        """``limit``: calls at most; beyond it the one is forgotten whose signalling has been silent for longest."""
        self._limit = limit
        self._calls: dict[_Call, dict[str, Dialog]] = {}
        "Their dialogs by the callee's tag; in the order of the last message."
        self._attempts: dict[_Call, list[Attempt]] = {}

    def __len__(self) -> int:
        return sum(len(dialogs) for dialogs in self._calls.values())

    # -- before the answer

    def begin(self, attempt: Attempt) -> None:
        """An INVITE sets out."""
        self._attempts.setdefault((attempt.call_id, attempt.caller.tag), []).append(attempt)

    def settled(self, attempt: Attempt) -> None:
        """It has a final response. Another 2xx may come."""
        attempt.ringing = None
        key = (attempt.call_id, attempt.caller.tag)
        left = [one for one in self._attempts.pop(key, ()) if one is not attempt]
        if left:
            self._attempts[key] = left

    def ringing(self, call_id: str, caller_tag: str) -> tuple[Attempt, ...]:
        """The INVITEs of a call that have no final response. More than one if it passes us more than once."""
        return tuple(self._attempts.get((call_id, caller_tag), ()))

    # -- the table

    def keep(self, dialog: Dialog) -> None:
        """An answered call. One with the same tags is replaced: if a call passes us twice, the outer way counts."""
        if dialog.caller.size + dialog.callee.size > LONGEST:
            return
        key = (dialog.call_id, dialog.caller.tag)
        self._calls[key] = {**self._calls.pop(key, {}), dialog.callee.tag: dialog}
        if len(self._calls) > self._limit:
            del self._calls[next(iter(self._calls))]

    def saw(self, request: Request) -> None:
        """A request within a dialog goes its way. After a BYE there is nothing to hang up any more."""
        call_id, near, far = request.call_id, request.from_.tag, request.to.tag
        found = self._find(call_id, near, far)
        if found is None:
            for attempt in (*self.ringing(call_id, near), *self.ringing(call_id, far)):
                attempt.saw(request)
            return
        dialog, side = found
        if request.method == "BYE":
            self._drop(dialog)
            return
        party = dialog.party(side)
        self._replace(dialog.having(side, replace(party, cseq=max(party.cseq, request.cseq.number))))

    def refresh(self, request: Request, response: Response) -> None:
        """A 2xx to a request within a dialog, both as they are forwarded: their Contacts are the targets from now on
        (RFC 3261 §12.2.1.2, §12.2.2)."""
        found = self._find(request.call_id, request.from_.tag, request.to.tag)
        if found is None or request.method not in REFRESHING:
            return
        dialog, side = found
        for which, message in ((side, request), (side.other, response)):
            target = contact_uri(message)
            if target:
                dialog = dialog.having(which, replace(dialog.party(which), target=target))
        self._drop(dialog)
        self.keep(dialog)

    def take(self, call_id: str, caller_tag: str) -> tuple[Dialog, ...]:
        """The call is over: its dialogs, which are forgotten."""
        return tuple(self._calls.pop((call_id, caller_tag), {}).values())

    def _find(self, call_id: str, near: str, far: str) -> tuple[Dialog, Side] | None:
        """The dialog of a request, and which party its sender is."""
        for caller, callee, side in ((near, far, Side.CALLER), (far, near, Side.CALLEE)):
            dialog = self._calls.get((call_id, caller), {}).get(callee)
            if dialog is not None:
                return dialog, side
        return None

    def _replace(self, dialog: Dialog) -> None:
        """Another state of a dialog that is there; its call is the latest now."""
        key = (dialog.call_id, dialog.caller.tag)
        dialogs = self._calls.pop(key)
        dialogs[dialog.callee.tag] = dialog
        self._calls[key] = dialogs

    def _drop(self, dialog: Dialog) -> None:
        key = (dialog.call_id, dialog.caller.tag)
        dialogs = self._calls[key]
        del dialogs[dialog.callee.tag]
        if not dialogs:
            del self._calls[key]
