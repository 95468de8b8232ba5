"""How the SIP side ends calls, or legs and offers of them (calls.md 9, 10).

An EndRequest comes in, a reply and effects go out. What does not name the call by its tags ends nothing.
"""

from mediaproxy.control import EndCause, EndRequest, MediaReply
from mediaproxy.events import CallEnded, EndReason, Side, raw
from mediaproxy.relay.call import Call
from mediaproxy.relay.effects import Effect, Report
from mediaproxy.relay.leg import Leg
from mediaproxy.relay.offers import Transaction
from mediaproxy.relay.register import UNKNOWN, Register
from mediaproxy.relay.retraction import take_back

_Answer = tuple[MediaReply, list[Effect]]


def end(register: Register, question: EndRequest, now: float) -> _Answer:
    """What the question ends. With ``report`` the reply has the reports of these calls."""
    if question.cause is EndCause.DELETE:
        return _delete(register, question, now)
    if question.cause is EndCause.ADMIN:
        calls = register.of(question.call_id)
        effects = [effect for call in calls for effect in register.finish(call, EndReason.ADMIN, now)]
        return (_told(register, question, calls, effects, now) if calls else UNKNOWN), effects
    found = register.find(question)
    if found is None:
        return UNKNOWN, []
    call, side = found
    if question.cause is EndCause.BYE:
        return _bye(register, call, side, question, now)
    if question.cause is EndCause.REFUSED:
        effects = _refused(call, side, question, now)
    elif question.cause is EndCause.BRANCH:
        effects = call.fail_branch(question.branch, question.sender.tag if side is Side.CALLEE else "", now)
    else:
        effects = _give_up(call, side, question, now)
    register.plan(call, now)
    return _told(register, question, (call,), effects, now), effects


def _told(
    register: Register, question: EndRequest, calls: tuple[Call, ...], effects: list[Effect], now: float
) -> MediaReply:
    """The reply, with the reports of these calls if they are wanted: of one that is over as it was at its end."""
    if not question.report:
        return MediaReply()
    told = [
        effect.event.report for effect in effects if isinstance(effect, Report) and isinstance(effect.event, CallEnded)
    ]
    told += [register.report(call, now) for call in calls if call.reason is None]
    return MediaReply(reports=tuple([raw(report) for report in told]))


def _bye(register: Register, call: Call, side: Side, question: EndRequest, now: float) -> _Answer:
    """calls.md 10: counts only if both tags match."""
    leg = call.find_leg(_callee_tag(question, side))
    if leg is None or leg.ended:
        return MediaReply(error="no leg of the call has this tag", status=481), []
    effects = call.leave(leg, now)
    if effects is None:
        effects = register.finish(call, EndReason.BYE, now)
    else:
        register.plan(call, now)
    return _told(register, question, (call,), effects, now), effects


def _refused(call: Call, side: Side, question: EndRequest, now: float) -> list[Effect]:
    """A re-INVITE or UPDATE of the other party failed."""
    by = Transaction(requester=side.other, tag=_callee_tag(question, side), cseq=question.cseq)
    return take_back(call, by, now)


def _give_up(call: Call, side: Side, question: EndRequest, now: float) -> list[Effect]:
    """CANCEL or failure: of an answered call they mean nothing, they crossed the 2xx."""
    last = call.gives_up(question.branch) if call.answered is None else None
    if last is None:
        return []
    tag = _callee_tag(question, side)
    if not last:
        return call.fail_branch("", tag, now)
    if question.cause is EndCause.FAILURE:
        call.failed(tag)
    reason = EndReason.CANCEL if question.cause is EndCause.CANCEL else EndReason.FAILURE
    call.linger(reason, question.status, now)
    return []


def _callee_tag(question: EndRequest, side: Side) -> str:
    return question.sender.tag if side is Side.CALLEE else question.receiver.tag


# -- a door that does not say why


def _delete(register: Register, question: EndRequest, now: float) -> _Answer:
    """All calls that the question names, or a leg. Asked again soon after, the answer is the same."""
    named = [(call, leg) for call in register.of(question.call_id) for leg in _named(call, question)]
    if not named and question.whole:
        return UNKNOWN, []
    if not named:
        gone = register.departed(question.call_id, {question.sender.tag, question.receiver.tag})
        if gone is None:
            return UNKNOWN, []
        return MediaReply(reports=gone if question.report else ()), []
    effects: list[Effect] = []
    for call, leg in named:
        if question.whole and _still_held(call, question):
            register.plan(call, now)
            continue
        effects += _take_leave(register, call, leg, question, now)
    return _told(register, question, tuple(call for call, _ in named), effects, now), effects


def _named(call: Call, question: EndRequest) -> tuple[Leg | None, ...]:
    """The leg that is meant, None: all of the call; nothing: it is not this call."""
    tags = [tag for tag in (question.sender.tag, question.receiver.tag) if tag]
    if question.whole:
        # Who offered in a call that began before we knew of it may have been either party.
        known = call.caller.tag in tags or (call.adopted and any(call.find_leg(tag) for tag in tags))
        return (None,) if known and not call.deleted else ()
    theirs = [tag for tag in tags if tag != call.caller.tag]
    if len(theirs) > 1 or (len(tags) - len(theirs) > 1 and call.find_leg(call.caller.tag) is None):
        return ()
    leg = call.find_leg(theirs[0]) if theirs else None
    if theirs and leg is None and (len(tags) == 1 or call.answered is not None):
        return ()  # before an answer, the tag may be that of a failure, which had no SDP
    if leg is None and tags and question.branch:
        live = [one for one in call.legs if not one.ended]
        branch = [one for one in live if one.branch == question.branch]
        if 0 < len(branch) < len(live):
            return tuple(branch)
    return (leg,)


def _still_held(call: Call, question: EndRequest) -> bool:
    """Whether somebody is left for whose sake the call lives, when the one has gone that the question is about."""
    receiver = Side.CALLEE if call.caller.tag == question.sender.tag else Side.CALLER
    call.holders.discard(receiver if question.weak else None)
    return bool(call.holders)


def _take_leave(register: Register, call: Call, leg: Leg | None, question: EndRequest, now: float) -> list[Effect]:
    """Answered it counts as a BYE, before that as a CANCEL; of a leg only if others are left. Once the call is
    answered, a callee who is named alone takes the rest along, as with rtpengine: where 183 counts like 200 (Kamailio's
    module up to 5.6), other phones of a fork seem to have answered, too, and nobody will delete them."""
    effects: list[Effect] = []
    early = call.answered is None
    alone = not (question.receiver.tag or question.branch)
    others = [one for one in call.legs if one is not leg and not one.ended and (one.answered or early)]
    left = others if early or not alone else []
    if leg is not None and (left or leg.ended):
        call.attempts.discard(question.branch)
        if not leg.ended:
            gone = call.fail_branch("" if leg.tag else leg.branch, leg.tag, now) if early else call.leave(leg, now)
            assert gone is not None  # others are left
            effects = gone
        register.plan(call, now)
        return effects
    if question.branch and _is_a_loser(call, question.branch):
        register.plan(call, now)
        return []
    call.deleted = True
    reason = call.lingering or (EndReason.CANCEL if early else EndReason.BYE)
    if question.delay is None and not early and call.lingering is None:
        return register.finish(call, reason, now)
    if question.delay is not None and question.delay <= 0:
        return register.finish(call, reason, now)
    call.gives_up("")
    call.linger(reason, 0, now, question.delay)
    register.plan(call, now)
    return []


def _is_a_loser(call: Call, branch: str) -> bool:
    """Whether only one of the INVITEs of a server that forked is over: another one is under way, or was answered."""
    if call.answered is None:
        return call.gives_up(branch) is False
    lost = branch in call.attempts and all(leg.branch != branch for leg in call.legs)
    call.attempts.discard(branch)
    return lost
