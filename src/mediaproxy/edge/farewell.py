"""Hanging up for both parties of a call whose media has ended by itself (calls.md 11): to each of them a BYE as if from
the other one, through the usual client transaction.

Dialogs and the reason come in, effects and what was done go out. Answers are swallowed: a phone that has hung up by
itself says 481, and that is as good. It must never send anything for a call that the phones have ended.
"""

from collections.abc import Iterable, Sequence
from typing import Protocol

import msgspec

from mediaproxy.edge.alarms import Alarms
from mediaproxy.edge.branch import Branch
from mediaproxy.edge.dialogs import Dialog
from mediaproxy.edge.effects import Effect, Remark, Resolve
from mediaproxy.edge.fork import Target, aimed
from mediaproxy.edge.hop import Hop, Inbound
from mediaproxy.edge.settings import Listener
from mediaproxy.edge.transactions import Transactions
from mediaproxy.events import EndReason, Side
from mediaproxy.sip.grammar import SipError
from mediaproxy.sip.header import Uri
from mediaproxy.sip.message import Request, Response

HIGHEST = 2**31 - 1
"CSeq (RFC 3261 §8.1.1.5)."
OVER = frozenset((408, 481, 487))
"Answers to a BYE that mean: there is no such call any more (RFC 3261 §15.1.1; 487 of phones that still wait)."


class Why(msgspec.Struct, frozen=True, kw_only=True):
    """What phones are told of a reason."""

    status: int
    "Of the answer to a caller who still hears it ring."
    cause: int
    "ITU-T Q.850, for the Reason header (RFC 3326 §2)."
    text: str


WHY = {
    EndReason.ADMIN: Why(status=480, cause=31, text="ended by the operator"),
    EndReason.UNANSWERED: Why(status=408, cause=102, text="not answered for too long"),
    EndReason.SILENT: Why(status=480, cause=102, text="no media for too long"),
    EndReason.HOLD_EXPIRED: Why(status=480, cause=102, text="on hold for too long"),
}
"""The media arm's own decisions, of which the phones know nothing. Q.850: 31 is "normal, unspecified", 102 "recovery on
timer expiry"."""


class Farewell(msgspec.Struct, frozen=True, kw_only=True):
    """What was done so that the phones of a call hang up."""

    told: tuple[str, ...] = ()
    "Addresses of the parties that a BYE was sent to."
    unreachable: tuple[str, ...] = ()
    "Those that there is no way to: a TCP phone whose connection is gone, for instance."
    cancelled: tuple[str, ...] = ()
    "The callers that still heard it ring; they got a final answer, and the callee's phones a CANCEL."

    def __str__(self) -> str:
        parts = []
        if self.told:
            parts.append(f"BYE sent to {' and '.join(self.told)}")
        if self.cancelled:
            parts.append(f"call of {' and '.join(self.cancelled)} cancelled while it rang")
        if self.unreachable:
            parts.append(f"no way to {' and '.join(self.unreachable)}")
        return ", ".join(parts) or "the phones are not known and have not hung up"


def together(farewells: Sequence[Farewell]) -> Farewell:
    """What was done for several calls of one Call-ID."""
    return Farewell(
        told=_united(one.told for one in farewells),
        unreachable=_united(one.unreachable for one in farewells),
        cancelled=_united(one.cancelled for one in farewells),
    )


def _united(names: Iterable[Iterable[str]]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for some in names for name in some))


def bye(dialog: Dialog, to: Side, why: Why, user_agent: str = "") -> Request:
    """The BYE to one party, as if from the other one, without Via. SipError if its Contact is no SIP URI."""
    receiver, sender = dialog.party(to), dialog.party(to.other)
    uri = Uri.parse(receiver.target)
    if uri.scheme not in ("sip", "sips"):
        raise SipError(f"Contact: scheme {uri.scheme[:20]}", 416)
    headers = [
        *(("Route", route) for route in receiver.routes),
        ("From", sender.address),
        ("To", receiver.address),
        ("Call-ID", dialog.call_id),
        ("CSeq", f"{min(sender.cseq + 1, HIGHEST)} BYE"),
        ("Reason", f'Q.850;cause={why.cause};text="{why.text}"'),
        *((("User-Agent", user_agent),) if user_agent else ()),
    ]
    return Request.build("BYE", uri.text[: uri.headers_at], headers)


class Desk(Protocol):
    """What the proxy does for it."""

    transactions: Transactions
    alarms: Alarms[Branch]

    def lead(self, request: Request, local: Listener | None, now: float) -> Target | None:
        """Whom a request of ours within a dialog goes to; None: nobody."""

    def prepare_own(self, request: Request, hop: Hop) -> tuple[Request, Hop] | int:
        """As ``branch.Parent.prepare``."""


class Goodbye:
    """One BYE of ours."""

    def __init__(self, desk: Desk, dialog: Dialog, to: Side) -> None:
        self._desk = desk
        self._call_id = dialog.call_id
        self._dialog = dialog
        self._to = to
        self.name = dialog.party(to).name
        self.lost = False
        "There is no way to the party."

    def start(self, why: Why, user_agent: str, now: float) -> list[Effect]:
        """Set out."""
        local = self._dialog.party(self._to).local
        try:
            request = bye(self._dialog, self._to, why, user_agent)
            target = self._desk.lead(request, local, now)
            if target is None or target.unreachable:
                return self._lose("cannot be reached")
            message, aim = aimed(request, target, local)
        except SipError as error:
            return self._lose(f"cannot be reached: {error}")
        if isinstance(aim, Hop):
            return self._send(message, (aim,), now)
        return [Resolve(aim, lambda hops, at: self._send(message, hops, at))]

    def _send(self, message: Request, hops: tuple[Hop, ...], now: float) -> list[Effect]:
        return Branch(self, self._desk.transactions, self._desk.alarms, message, hops).start(now)

    def _lose(self, how: str) -> list[Effect]:
        self.lost = True
        return self._say(how)

    def _say(self, what: str) -> list[Effect]:
        return [Remark(self._call_id, f"{self.name} was to hang up, but {what}")]

    # -- branch.Parent

    def prepare(self, request: Request, hop: Hop) -> tuple[Request, Hop] | int:
        """The request as it goes to that hop."""
        return self._desk.prepare_own(request, hop)

    def received(self, branch: Branch, response: Response, inbound: Inbound, now: float) -> list[Effect]:
        """Whatever it answers, for us the call is over (RFC 3261 §15.1.1)."""
        if response.status < 300 or response.status in OVER:
            return []
        return self._say(f"answered {response.status}")

    def gave_up(self, branch: Branch, status: int, now: float) -> list[Effect]:
        """It was silent, or there is no way to it."""
        return self._lose("cannot be reached") if status else self._say("does not answer")


class Parting:
    """All that is done for one call."""

    def __init__(self, desk: Desk, why: Why, user_agent: str) -> None:
        self._desk = desk
        self._why = why
        self._user_agent = user_agent
        self._goodbyes: list[Goodbye] = []
        self._cancelled: list[str] = []

    def hang_up(self, dialog: Dialog, now: float) -> list[Effect]:
        """Both parties of a dialog."""
        goodbyes = [Goodbye(self._desk, dialog, side) for side in Side]
        self._goodbyes += goodbyes
        return [effect for one in goodbyes for effect in one.start(self._why, self._user_agent, now)]

    def cancelled(self, caller: str) -> None:
        """A call that still rang was cancelled."""
        self._cancelled.append(caller)

    @property
    def outcome(self) -> Farewell:
        """What was done, as far as it is known by now."""
        return Farewell(
            told=_united((one.name,) for one in self._goodbyes if not one.lost),
            unreachable=_united((one.name,) for one in self._goodbyes if one.lost),
            cancelled=_united([self._cancelled]),
        )
