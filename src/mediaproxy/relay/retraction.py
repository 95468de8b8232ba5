"""Taking back what a refused re-INVITE or UPDATE said (RFC 3261 §14.1): SDP, hold, whereabouts and lent ports.

A call and the request that was refused come in, effects go out. It must never touch what something lasting has
replaced since, nor ports that another SDP names.
"""

from mediaproxy.events import Side
from mediaproxy.relay.call import Call
from mediaproxy.relay.comparison import compare, described
from mediaproxy.relay.effects import Effect
from mediaproxy.relay.leg import Leg
from mediaproxy.relay.offers import Change, Said, Transaction
from mediaproxy.relay.terms import NONE


def said(call: Call, leg: Leg, side: Side) -> Said:
    """What a party has said of itself in the dialog of a leg."""
    party = call.party(leg, side)
    if side is Side.CALLEE and leg.streams is None and call.active is not leg:
        sdp = dict(enumerate(leg.sdp))
    else:
        streams = enumerate(call.streams_of(leg))
        sdp = {index: stream.sdp[side] for index, stream in streams if stream is not None and side in stream.sdp}
    told = enumerate(call.streams_of(leg))
    terms = {index: stream.terms.get(side.other, NONE) for index, stream in told if stream is not None}
    return Said(sdp=sdp, whole=leg.sdp, voucher=party.voucher, phone=party.phone, terms=terms)


def take_back(call: Call, by: Transaction, now: float) -> list[Effect]:
    """A re-INVITE or UPDATE was refused: what it and its provisional answers changed is undone, as far as nothing
    has come since that lasts (RFC 3261 §14.1)."""
    changes = call.offers.refused(by)
    call.memory.refuse(by)
    if not changes:
        return []
    before = described(call)
    for change in changes:
        _restore(call, change)
    call.assign()
    moved = [call.expect(leg, now) for leg in dict.fromkeys(change.leg for change in changes)]
    if any(moved):
        call.changed = now
    effects = compare(call, before, now)
    for change in changes:
        effects += _give_back(call, change, now)
    return [*effects, *call.sync(now)]


def _restore(call: Call, change: Change) -> None:
    """What a party said before."""
    leg, side, said = change.leg, change.side, change.before
    party = call.party(leg, side)
    if party.voucher == change.after:
        party.voucher, party.phone = said.voucher, said.phone
    if change.own:
        return
    streams = call.streams_of(leg)
    for index, terms in said.terms.items():
        told = streams[index] if index < len(streams) else None
        if told is not None:
            told.tell(side.other, terms)
    if side is Side.CALLEE and leg.streams is None:
        leg.sdp = said.whole
        streams = streams if call.active is leg else []
    for index, stream in enumerate(streams):
        if stream is None:
            continue
        stream.describe(side, said.sdp.get(index))


def _give_back(call: Call, change: Change, now: float) -> list[Effect]:
    """The ports that a refused offer got, unless somebody else's SDP has the stream, too."""
    leg = change.leg
    if change.own:
        effects = call.close_own(leg, now)
        leg.streams = None
        if change.founded:
            call.legs.remove(leg)
        return effects
    effects = []
    streams = call.streams_of(leg)
    for index, stream in enumerate(streams):
        if stream is None or stream not in change.lent:
            continue
        old = call.retiring.pop(stream, None)
        if old is not None:
            old.understand(dict(stream.sdp), old.terms)
        elif any(sdp.endpoint for sdp in stream.sdp.values()):  # the other party has offered it, too
            call.offers.hand_on(stream, leg)
            continue
        streams[index] = old
        effects += [effect for end in stream.ends for effect in call.board.cool(end, now)]
    return effects
