"""Offers within a dialog that may still be refused, and what was said before (RFC 3261 §14.1, RFC 3311 §5.2).

Each SDP that hangs on a request's fate comes in with what it has replaced; when the request is refused, that comes out
again. What nobody can take back any more, because a 2xx came or because something lasting has replaced it, is
forgotten. Nothing here changes a call.
"""

from collections import deque
from dataclasses import dataclass, replace

import msgspec

from mediaproxy.control import PhoneAddress
from mediaproxy.control import Stream as Sdp
from mediaproxy.events import Side
from mediaproxy.relay.expectation import Voucher
from mediaproxy.relay.leg import Leg
from mediaproxy.relay.stream import Stream
from mediaproxy.relay.terms import Terms

_REMEMBERED = 16
"SDP bodies that can be taken back at a time, per call. More than one per side is rare."


class Transaction(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """A request within a dialog; CSeq numbers count per requester and dialog (RFC 3261 §12.2.1.1)."""

    requester: Side
    tag: str
    "Of the callee: names the dialog."
    cseq: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What one party has said of itself in one dialog."""

    sdp: dict[int, Sdp]
    "By the index of the stream."
    whole: tuple[Sdp, ...]
    "A callee's last SDP on the call's own streams."
    voucher: Voucher
    phone: PhoneAddress
    terms: dict[int, Terms]
    "What the other party was told, by the index of the stream."


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One SDP that was taken in for the time being."""

    by: Transaction
    leg: Leg
    side: Side
    "Whose SDP it is."
    before: Said
    "What it has replaced."
    after: Voucher
    "How its sender is vouched for since."
    lent: tuple[Stream, ...] = ()
    "Streams that got their ports because of it."
    shared: bool = False
    "It is the caller's on streams that all early legs have in common."
    own: bool = False
    "It gave the leg streams of its own."
    founded: bool = False
    "The leg was not known before."

    def follows(self, other: "Change") -> bool:
        """Whether both are about the same party's SDP on the same streams."""
        return self.side is other.side and (self.leg is other.leg or (self.shared and other.shared))


class Offers:
    """Mutable: those of one call, the oldest first."""

    def __init__(self) -> None:
        self._changes: deque[Change] = deque(maxlen=_REMEMBERED)

    def note(self, change: Change) -> None:
        """One more that may be refused. Two of one request and side, such as two 183, are one."""
        for number, known in enumerate(self._changes):
            if known.by == change.by and known.follows(change):
                lent = known.lent + change.lent
                self._changes[number] = replace(known, after=change.after, lent=lent, own=known.own or change.own)
                return
        self._changes.append(change)

    def last(self, leg: Leg, side: Side, *, shared: bool) -> None:
        """That party has said something lasting: what it said before cannot be restored any more."""
        if not self._changes:
            return
        self._keep(
            [
                change
                for change in self._changes
                if change.side is not side or (change.leg is not leg and not (shared and change.shared))
            ]
        )

    def forget(self, leg: Leg | None = None) -> None:
        """Nothing can be undone any more: of a leg that has ended, or of all in a new attempt."""
        if self._changes:
            self._keep([change for change in self._changes if leg is not None and change.leg is not leg])

    def accepted(self, by: Transaction) -> bool:
        """A 2xx: all that hangs on the request lasts, and what it has replaced is gone. False: nothing did."""
        before = len(self._changes)
        if not before:
            return False
        kept: list[Change] = []
        for change in self._changes:
            if change.by == by:
                kept = [other for other in kept if not other.follows(change)]
            else:
                kept.append(change)
        self._keep(kept)
        return len(kept) != before

    def refused(self, by: Transaction) -> list[Change]:
        """What must be undone, the newest first. What has been replaced since is no more to be seen: undoing the
        replacement leads to what was before both."""
        undone: list[Change] = []
        kept: list[Change] = []
        for change in reversed(self._changes):
            if change.by != by:
                kept.insert(0, change)
                continue
            later = next((number for number, other in enumerate(kept) if other.follows(change)), None)
            if later is None:
                undone.append(change)
            else:
                lent = kept[later].lent + change.lent
                kept[later] = replace(kept[later], before=change.before, lent=lent)
        self._keep(kept)
        return undone

    def hang_on(self, stream: Stream) -> bool:
        """Whether a stream may be given back because of a refusal."""
        return any(stream in change.lent for change in self._changes)

    def hand_on(self, stream: Stream, leg: Leg) -> None:
        """A stream of a refused offer lives on by another offer of the dialog, if there is one."""
        for number, change in enumerate(self._changes):
            if change.leg is leg:
                self._changes[number] = replace(change, lent=(*change.lent, stream))
                return

    def _keep(self, changes: list[Change]) -> None:
        self._changes = deque(changes, maxlen=_REMEMBERED)
