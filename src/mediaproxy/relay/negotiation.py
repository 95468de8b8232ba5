"""What one SDP does to a call: which ports it gets, whom it lets us expect, which leg it locks.

A MediaRequest comes in, a reply with ports and the effects go out. It must never give other ports to a repeated
question, and never change anything because of an old one, or of one that it refuses.
"""

from dataclasses import replace

import msgspec

from mediaproxy.control import MediaPort, MediaReply, MediaRequest, Party, Wishes
from mediaproxy.control import Stream as Sdp
from mediaproxy.endpoint import Endpoint, Scope, same_prefix, scope
from mediaproxy.events import Side
from mediaproxy.relay.call import Call
from mediaproxy.relay.comparison import compare, described
from mediaproxy.relay.effects import Effect
from mediaproxy.relay.expectation import Voucher
from mediaproxy.relay.leg import Leg
from mediaproxy.relay.leg import Party as PartyOfCall
from mediaproxy.relay.memory import Asked, Ports
from mediaproxy.relay.offers import Change, Transaction
from mediaproxy.relay.retraction import said
from mediaproxy.relay.settings import RelayAddress
from mediaproxy.relay.stream import End, Stream, disabled
from mediaproxy.relay.terms import Terms


class Refusal(Exception):
    """The question cannot be answered, and nothing was changed."""

    def __init__(self, text: str, status: int, effects: list[Effect] | None = None) -> None:
        super().__init__(text)
        self.reply = MediaReply(error=text, status=status)
        self.effects = effects or []


class Negotiation:
    """One question with SDP, put to one call."""

    def __init__(
        self, call: Call, question: MediaRequest, sender: Side, left_alone: frozenset[int], now: float
    ) -> None:
        """``left_alone``: indices of streams that are spirals: they name our own ports."""
        self._call = call
        self._question = question
        self._sender = sender
        self._left_alone = left_alone
        self._now = now
        self._effects: list[Effect] = []
        self._asked = asked = Asked.of(question, sender)
        self._invite = question.method == "INVITE" or (not question.method and not call.memory.within(asked))
        self._locks = (self._invite or call.adopted) and 200 <= question.status <= 299

    def run(self) -> tuple[MediaReply, list[Effect]]:
        """Answer. Refusal if that is not possible."""
        call, question = self._call, self._question
        leg = self._find_leg()
        if leg is not None and leg.ended:
            if not (self._locks and leg.failed):
                raise Refusal("this leg of the call has ended", 481)
            leg.ended = leg.failed = False  # its 2xx crossed our impatience
        own = self._needs_own_streams(leg)
        known = None if own else call.memory.answer(self._asked)
        fresh = own or (known is None and not call.memory.stale(self._asked))
        if leg is None and fresh:
            self._refuse_others()
        lent = self._lend(leg, own) if fresh else {}
        change = self._change(leg, own, lent) if fresh else None
        if leg is not None and leg not in call.legs:
            call.legs.append(leg)
        self._wake(leg, fresh)
        if fresh:
            self._take_in(leg, own, lent)
            self._apply(leg, change)
        if question.status >= 200 and leg is not None:
            call.offers.accepted(Transaction(requester=self._sender.other, tag=leg.tag, cseq=question.cseq))
            self._effects += call.retire(self._now)
        if self._locks and leg is not None:
            self._effects += call.lock(leg, self._now)
        ports = known if known is not None else self._ports(call.streams_of(leg))
        if fresh:
            call.memory.remember(self._asked, ports)
        before, memo = call.memory.exchange(self._asked)
        return MediaReply(ports=ports, memo=memo, before=before), self._effects

    # -- which leg

    def _find_leg(self) -> Leg | None:
        """The callee's leg that the question belongs to; None: an offer to whoever may answer."""
        call, question = self._call, self._question
        tag = self._asked.tag
        if self._sender is Side.CALLER:
            return call.find_leg(tag) or self._named_leg(tag) or self._new_leg(question.receiver, "") if tag else None
        return call.find_leg(tag, question.branch) or self._new_leg(question.sender, question.branch)

    def _named_leg(self, tag: str) -> Leg | None:
        """The only leg that has no tag yet, as its door tells none before a 2xx: it has now."""
        nameless = [leg for leg in self._call.legs if not leg.tag and not leg.ended]
        if len(nameless) != 1:
            return None
        nameless[0].party.tag = tag
        return nameless[0]

    def _new_leg(self, named: Party, branch: str) -> Leg:
        leg = self._call.new_leg(named, branch)
        if leg is None:
            raise Refusal(f"more than {self._call.board.settings.max_legs} legs", 480)
        # A request within a dialog that we do not know: its 2xx has passed by somewhere else.
        self._locks |= self._question.status == 0 and self._call.answered is not None
        return leg

    def _refuse_others(self) -> None:
        """An INVITE without To tag is the caller's, who tries (again), or comes by a second way. Once the call is
        answered it cannot be that; nor can it come from elsewhere: who was rung once knows Call-ID and tag. Where 183
        counts like 200 (rtpproxy), it can: a serial fork. There it is media that has an address, new ones perhaps."""
        call, question, settings = self._call, self._question, self._call.board.settings
        if call.answered is not None and question.part is None:
            raise Refusal("the call has been answered, and this INVITE is not part of it", 482)
        known = call.caller.voucher.signalling
        if known is None or call.lingering is not None or (call.answered is None and question.part is not None):
            return
        now = Voucher().updated(question.phone, "", asymmetric=False).signalling
        if now is not None and not same_prefix(known, now, settings.v4_bits, settings.v6_bits):
            raise Refusal(f"an INVITE of this call from {now}, but the caller is at {known}", 482)

    def _needs_own_streams(self, leg: Leg | None) -> bool:
        """calls.md 9: a second 2xx gets new ports."""
        call = self._call
        if leg is None or call.answered is None or leg is call.locked or leg.streams is not None:
            return False
        return self._locks or leg.answered

    # -- ports

    def _lend(self, leg: Leg | None, own: bool) -> dict[int, Stream]:
        """New ports for the streams that need some: all of them, or Refusal."""
        call, lent = self._call, dict[int, Stream]()
        streams = [] if own else call.streams_of(leg)
        offers = call.memory.offers(self._asked)
        for index, sdp in enumerate(self._question.streams):
            if sdp.endpoint is None or index in self._left_alone:
                continue
            known = _at(streams, index)
            if known is not None and not (offers and self._outgrown(known, sdp.endpoint)):
                continue
            further = own or (leg is not None and leg.streams is not None)
            if not offers and not (further and _at(call.streams, index) is not None):
                continue  # an answer to something that was left alone
            try:
                addresses = self._addresses(index, sdp.endpoint, leg)
                stream, effects = call.board.lend(index, addresses, call.call_id, self._now)
            except Refusal:
                self._undo(lent)
                raise
            self._effects += effects
            if stream is None:
                self._undo(lent)
                raise Refusal("no ports left", 480, self._effects)
            lent[index] = stream
        return lent

    def _outgrown(self, stream: Stream, place: Endpoint) -> bool:
        """Whether a party that offers has changed its IP version, or the other one has when it answered, or its server
        wants it so: both will be told other ports."""
        call, end = self._call, stream.end(self._sender)
        wishes = self._question.wishes
        if wishes is not None and wishes.keep_ports:
            return False
        wanted = wishes is not None and (wishes.new_ports or self._elsewhere(stream, wishes))
        said = 0 if self._question.receiver_version else self._said_version(stream)
        misfit = self._misfits(end, place.version) or self._misfits(stream.end(self._sender.other), said)
        if not wanted and not misfit:
            return False
        alone = not any(port.shared or port.guests for port in stream.ports)
        return alone and not call.retiring and not end.closed and scope(place.address) is not Scope.UNSPECIFIED

    def _elsewhere(self, stream: Stream, wishes: Wishes) -> bool:
        """Whether the server names other addresses of the relay than those that a stream has."""
        if self._question.part is not None:
            return False  # who tells an SDP stream by stream (rtpproxy) names them each time, and means the first time
        asked = self._question.receiver_version
        for side, name, version in ((self._sender, wishes.facing, 0), (self._sender.other, wishes.towards, asked)):
            has = stream.end(side).pair.rtp
            wanted = self._call.board.settings.address(version or has.version, name)
            if wanted is not None and wanted.bind != has.address and (wanted.name == name if name else version):
                return True
        return False

    def _misfits(self, end: End, version: int) -> bool:
        """Whether a party's ports have another IP version than its media, and could have that."""
        return version not in (0, end.pair.rtp.version) and self._call.board.settings.address(version) is not None

    def _said_version(self, stream: Stream) -> int:
        """Of the receiver, by its own SDP; 0: that says nothing."""
        said = stream.sdp.get(self._sender.other)
        place = None if said is None else said.endpoint
        return 0 if place is None or scope(place.address) is Scope.UNSPECIFIED else place.version

    def _undo(self, lent: dict[int, Stream]) -> None:
        for stream in lent.values():
            self._call.board.unlend(stream)

    def _addresses(self, index: int, place: Endpoint, leg: Leg | None) -> dict[Side, RelayAddress]:
        """The relay's addresses for the ports. Their IP versions: towards the sender that of his SDP, towards the
        receiver what is known of him."""
        settings, wish = self._call.board.settings, self._question.receiver_version
        example = _at(self._call.streams, index) or next((s for s in self._call.streams if s is not None), None)
        other = self._sender.other
        version = wish or self._version_of(example, other) or place.version
        version = place.version if settings.address(version) is None else version
        wishes = self._question.wishes or Wishes()
        chosen = {self._sender: (place.version, wishes.facing), other: (version, wishes.towards)}
        found: dict[Side, RelayAddress] = {}
        for side, (needed, name) in chosen.items():
            address = settings.address(needed, name or self._party(leg, side).facing)
            if address is None:
                raise Refusal(f"this relay has no IPv{needed} address", 480, self._effects)
            found[side] = address
        return found

    def _version_of(self, example: Stream | None, side: Side) -> int:
        """Of a party's media, by another stream or its signalling; 0: nothing is known."""
        if example is None:
            return self._known_version()
        return self._said_version(example) or example.end(side).pair.rtp.version

    def _party(self, leg: Leg | None, side: Side) -> PartyOfCall:
        """The caller, the leg's callee, or whoever may answer."""
        call = self._call
        return call.invited if side is Side.CALLEE and leg is None else call.party(leg, side)

    def _known_version(self) -> int:
        """What the receiver's signalling address tells; 0: nothing."""
        party = self._call.caller if self._sender is Side.CALLEE else self._call.callee
        signalling = party.voucher.signalling
        return 0 if signalling is None else 6 if ":" in signalling else 4

    def _take_in(self, leg: Leg | None, own: bool, lent: dict[int, Stream]) -> None:
        """Put new streams in their places."""
        if own and leg is not None:
            leg.streams = []
        streams = self._call.streams_of(leg)
        streams += [None] * (len(self._question.streams) - len(streams))
        for index, stream in lent.items():
            old = streams[index]
            if old is not None:
                self._call.replace(streams, old, stream)
                continue
            streams[index] = stream
            first = _at(self._call.streams, index)
            if leg is not None and leg.streams is not None and first is not None:
                _branch_off(stream, first, leg)
        if lent:
            self._call.assign()

    def _ports(self, streams: list[Stream | None]) -> Ports:
        return tuple(self._port(_at(streams, index), index, sdp) for index, sdp in enumerate(self._question.streams))

    def _port(self, stream: Stream | None, index: int, sdp: Sdp) -> MediaPort | None:
        off = sdp.endpoint is None and self._question.part is None
        if stream is None or off or index in self._left_alone:
            return None
        end = stream.end(self._sender.other)
        return None if end.closed else end.media_port(sdp)

    # -- what may be refused

    def _hangs_on(self, leg: Leg) -> Transaction | None:
        """The request on whose fate this SDP hangs; None: on none, or on the INVITE that began the call."""
        question, memory = self._question, self._call.memory
        if question.status >= 200:
            return None
        if question.status:
            by = Transaction(requester=self._sender.other, tag=leg.tag, cseq=question.cseq)
            return by if leg.answered else None
        if not memory.offers(self._asked):
            return memory.late_offer(self._asked)
        return Transaction(requester=self._sender, tag=leg.tag, cseq=question.cseq)

    def _shared(self, leg: Leg) -> bool:
        return self._sender is Side.CALLER and leg.streams is None

    def _change(self, leg: Leg | None, own: bool, lent: dict[int, Stream]) -> Change | None:
        """How to undo what is about to be done; None: nobody can refuse it."""
        by = self._hangs_on(leg) if leg is not None else None
        if leg is None or by is None:
            return None
        before = said(self._call, leg, self._sender)
        return Change(
            by=by,
            leg=leg,
            side=self._sender,
            before=before,
            after=before.voucher,
            lent=tuple(lent.values()),
            shared=self._shared(leg) and not own,
            own=own,
            founded=leg not in self._call.legs,
        )

    # -- state

    @property
    def _acknowledges(self) -> bool:
        """Whether it came in an ACK, or may have: not all doors tell the method."""
        method = self._question.method
        return method == "ACK" or (not method and self._question.status == 0)

    def _wake(self, leg: Leg | None, fresh: bool) -> None:
        """calls.md 10: what revives a lingering call."""
        call, question = self._call, self._question
        if leg is None and fresh and call.answered is None and question.cseq > call.memory.newest(self._sender):
            # The first INVITE, or the caller tries again, with credentials for example.
            self._effects += call.revive(self._now)
            call.try_again(self._now)
        if call.lingering is None:
            if leg is None and question.branch and question.cseq >= call.memory.newest(self._sender):
                call.attempts.add(question.branch)
        elif self._locks or (call.answered is not None and fresh):
            self._effects += call.revive(self._now)
        elif self._acknowledges and fresh and leg is not None and call.revives(leg.tag):
            self._effects += call.revive(self._now)
            self._locks = True

    def _apply(self, leg: Leg | None, change: Change | None) -> None:
        """Take the SDP into account."""
        call, question, side = self._call, self._question, self._sender
        party = call.party(leg, side)
        party.tell(question)
        if change is not None:
            call.offers.note(replace(change, after=party.voucher))
        elif leg is not None:
            call.offers.last(leg, side, shared=self._shared(leg))
        call.dialog_id = question.dialog_id or call.dialog_id
        call.notify = question.notify or call.notify
        if question.wishes is not None:
            receiver = self._party(leg, side.other)
            receiver.facing = question.wishes.towards or receiver.facing
            call.tos = question.wishes.tos
            self._heed(question.wishes, call.streams_of(leg))
        before = described(call)
        if side is Side.CALLEE and leg is not None and leg.streams is None:
            self._apply_callee(leg)
        else:
            self._describe(call.streams_of(leg))
        moved = call.expect(leg, self._now)
        self._effects += compare(call, before, self._now)
        if moved:
            call.changed = self._now
        call.memory.note(self._asked, change.by if change is not None else None)
        self._effects += call.sync(self._now)

    def _heed(self, wishes: Wishes, streams: list[Stream | None]) -> None:
        """What the receiver is told of the streams."""
        for index, stream in enumerate(streams[: len(self._question.streams)]):
            if stream is not None and index not in self._left_alone:
                stream.tell(self._sender.other, Terms.of(wishes, index))
        self._call.assign()

    def _apply_callee(self, leg: Leg) -> None:
        """The answer, or offer, of a leg on the call's own streams."""
        call, status = self._call, self._question.status
        if self._question.branch and not leg.answered:
            leg.branch = self._question.branch
        leg.sdp = tuple(self._told(leg, index, sdp) for index, sdp in enumerate(self._question.streams))
        newest = call.locked is None and ((self._invite and 100 < status < 300) or call.active is None)
        if newest and call.answered is None:
            call.hear(leg)
        elif call.active is leg:
            self._describe(call.streams)

    def _told(self, leg: Leg, index: int, sdp: Sdp) -> Sdp:
        """What a leg's SDP says of a stream; of a spiral it says nothing new."""
        if index not in self._left_alone:
            return sdp
        return leg.sdp[index] if index < len(leg.sdp) else msgspec.structs.replace(sdp, endpoint=None, rtcp=None)

    def _describe(self, streams: list[Stream | None]) -> None:
        for index, stream in enumerate(streams):
            if stream is not None and index not in self._left_alone:
                if self._question.wishes is None and self._sender.other in stream.terms:
                    stream.tell(self._sender.other, stream.terms[self._sender.other].unasked())
                sdp = self._question.streams[index] if index < len(self._question.streams) else disabled(stream)
                stream.describe(self._sender, sdp)


def _at(streams: list[Stream | None], index: int) -> Stream | None:
    return streams[index] if index < len(streams) else None


def _branch_off(stream: Stream, first: Stream, leg: Leg) -> None:
    """A further leg's own stream: its callee was told the first one's port, so it is heard and served there too."""
    stream.callee.attach(*leg.latches(stream.index), leg.party.gate)
    if Side.CALLER in first.sdp:
        stream.describe(Side.CALLER, first.sdp[Side.CALLER])
    if first.callee.closed:
        return
    for port, shared in zip(stream.callee.ports, first.callee.ports, strict=True):
        port.lodge(shared)
