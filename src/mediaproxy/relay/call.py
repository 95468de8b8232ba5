"""One call: its parties, its streams, and where it stands (calls.md 9, 10).

The verbs here are what can happen to a call: a leg is heard, locks, fails, leaves; the call lingers, revives, ends.
Each returns its effects. It must never lend a port that it does not give back, and never end twice.
"""

from msgspec.structs import replace

from mediaproxy.control import MediaRequest
from mediaproxy.control import Party as Named
from mediaproxy.events import CallAnswered, CallRevived, CallState, EndReason, Side
from mediaproxy.relay.effects import Effect, Report
from mediaproxy.relay.ice import Credentials
from mediaproxy.relay.latch import Latch
from mediaproxy.relay.leg import Leg, Party
from mediaproxy.relay.memory import Memory
from mediaproxy.relay.offers import Offers
from mediaproxy.relay.stream import Stream, disabled
from mediaproxy.relay.switchboard import Switchboard
from mediaproxy.relay.terms import NONE

_ICE_SETTLES = 10.0
"Seconds after an answer or a change in which ICE may still move media from the relay to a better way."
_HOLD_SETTLES = 10.0
"Seconds after an offer in which a party may still send, if it was a hold."


class Call:
    """Mutable: one (Call-ID, caller's tag)."""

    def __init__(self, question: MediaRequest, sender: Side, board: Switchboard, now: float) -> None:
        """``sender``: which party asks the first question; a late offer comes from the callee."""
        ours, theirs = [Party(one.tag, one.uri) for one in (question.sender, question.receiver)]
        self.call_id = question.call_id
        self.board = board
        self.caller = ours if sender is Side.CALLER else theirs
        self.invited = theirs if sender is Side.CALLER else ours
        "Whom the caller wanted, until somebody answers."
        self.legs: list[Leg] = []
        self.streams: list[Stream | None] = []
        "By index of the m= line; None: left alone."
        self.attempts: set[str] = set()
        "Via branches of the INVITEs that are under way: a server before us may have forked one."
        self.adopted = question.status == 0 and bool(question.receiver.tag)
        "It began before we knew of it."
        self.retiring: dict[Stream, Stream] = {}
        "New stream -> the one it replaces, because a party changed its IP version; until nobody can refuse that."
        self.locked: Leg | None = None
        "The leg whose 2xx came first."
        self.active: Leg | None = None
        "The leg that is heard."
        self.number = 0
        "Of all calls of this relay, for its journal."
        self.turn = 0
        "How often it has been written there."
        self.resumed = 0.0
        "When the relay began to hear it again that had not been there for a while: no silence counts before."
        self.memory = Memory()
        self.offers = Offers()
        self.dialog_id = question.dialog_id
        self.notify = question.notify
        self.credentials: dict[Side, Credentials] = {}
        "The relay's, as an ICE lite agent, towards each party that makes its checks with it."
        self.tos: int | None = None
        "Of what is sent in it; None: as the relay is set."
        self.asked = now
        "When the SIP side last said something of it."
        self.offered = 0.0
        "When a party has last offered something since the call was answered; 0.0: none has."
        self.holders: set[Side | None] = set()
        "For whose sake it lives (MediaRequest.weak); None: a request that was not weak."
        self.deleted = False
        "A door has ended it that does not say why, and may ask again."
        self.started = now
        self.trying = now
        "When the present attempt began: the INVITE, a new one after a failure, a revival."
        self.answered: float | None = None
        self.changed = now
        "When an answer or a change restarted the silence timers."
        self.lingering: EndReason | None = None
        self.lingers_until = 0.0
        self.over: float | None = None
        "When SIP said that it is over, or when we did."
        self.reason: EndReason | None = None
        self.status = 0
        self._failed_tag: str | None = None
        self._was_held = False
        self._orders = 0

    # -- who is who

    @property
    def state(self) -> CallState:
        """Where the call stands."""
        if self.reason is not None:
            return CallState.ENDED
        if self.lingering is not None:
            return CallState.LINGERING
        if self.answered is None:
            return CallState.RINGING
        return CallState.HELD if self.held else CallState.TALKING

    @property
    def held(self) -> bool:
        """The voice is on hold: all audio streams are, or any stream of a call without audio (calls.md 11). So is a
        call whose streams SDP has all disabled: no media can say that it lives."""
        audio, others, standing = list[bool](), list[bool](), False
        for stream in self.present():
            if not stream.caller.closed:
                standing = True
                if stream.enabled:
                    (audio if stream.kind == "audio" else others).append(stream.held)
        return False not in audio if audio else True in others or (standing and not others)

    @property
    def perhaps_held(self) -> bool:
        """Its door cannot tell of a hold (Stream.told, directed), and it fell silent when a party offered something."""
        if not self.offered or not self.alive or self.alive > self.offered + _HOLD_SETTLES:
            return False
        return any([not (sdp.told and sdp.directed) for stream in self.present() for sdp in stream.sdp.values()])

    @property
    def bypassed(self) -> bool:
        """Its media may well flow, but not by us: both parties have ICE on all streams, and none came by us after the
        first seconds, in which ICE looks for the best way."""
        live = [stream for stream in self.present() if not stream.caller.closed and stream.enabled]
        for stream in live:
            if len(stream.sdp) != 2 or not all([sdp.ice for sdp in stream.sdp.values()]):
                return False
        last = max([port.tally.last or 0.0 for stream in live for port in stream.ports], default=0.0)
        return last <= self.changed + _ICE_SETTLES

    def note_hold(self, now: float) -> None:
        """A hold began or ended, by whatever change: the silence timers start anew."""
        held = self.held
        if held is not self._was_held:
            self._was_held, self.changed = held, now

    @property
    def callee(self) -> Party:
        """The callee, as far as there is one."""
        leg = self.locked or next((one for one in self.legs if one.answered and not one.ended), self.active)
        return leg.party if leg is not None else self.invited

    def party(self, leg: Leg | None, side: Side) -> Party:
        """The caller, or the callee of a leg."""
        return leg.party if side is Side.CALLEE and leg is not None else self.caller

    def streams_of(self, leg: Leg | None) -> list[Stream | None]:
        """The streams that carry a leg's media."""
        return leg.streams if leg is not None and leg.streams is not None else self.streams

    def present(self) -> list[Stream]:
        """The call's streams, then those of further legs, as SDP stands."""
        found = [*filter(None, self.streams)]
        for leg in self.legs:
            if leg.streams is not None:
                found += filter(None, leg.streams)
        return found

    def all_streams(self) -> list[Stream]:
        """Whatever has ports: these, and those that are about to be replaced."""
        return self.present() if not self.retiring else [*self.present(), *self.retiring.values()]

    def assign(self) -> None:
        """What the call's streams have of it: TOS, the relay's ICE credentials, and at each end the gate of the party
        that is heard there."""
        heard = self.active.party if self.active is not None else self.invited
        for stream in self.all_streams():
            for end in stream.ends:
                lite = stream.terms.get(end.side, NONE).lite
                party = self.caller if end.side is Side.CALLER else heard
                end.credentials = self._credentials(end.side, party) if lite else None
            stream.tos = self.board.settings.tos if self.tos is None else self.tos
            stream.caller.gate, stream.callee.gate = self.caller.gate, heard.gate
        for leg in self.legs:
            for own in leg.streams or ():
                if own is not None:
                    own.callee.gate = leg.party.gate

    def _credentials(self, side: Side, party: Party) -> Credentials:
        known = self.credentials.get(side) or Credentials.make(self.board.rng)
        theirs = next(filter(None, party.voucher.ufrags), "")
        self.credentials[side] = known.towards(party.tag, theirs, self.board.rng)
        return self.credentials[side]

    @property
    def alive(self) -> float:
        """When the last RTP, RTCP or STUN came, either way, on any stream; 0.0: never."""
        return max([stream.alive for stream in self.all_streams()], default=0.0)

    def find_leg(self, tag: str, branch: str = "") -> Leg | None:
        """The leg of that tag, or the one of that branch that had no tag so far: it has now, if there is one."""
        found = next((leg for leg in self.legs if leg.tag == tag and (tag or not branch or leg.branch == branch)), None)
        if found is None and tag and branch:
            found = next((leg for leg in self.legs if not leg.tag and leg.branch == branch), None)
            if found is not None:
                found.party.tag = tag
        return found

    def new_leg(self, named: Named, branch: str) -> Leg | None:
        """A leg that is not in ``legs`` yet; None: there are too many."""
        most = self.board.settings.max_legs
        if sum(not leg.ended for leg in self.legs) >= most:
            return None
        if len(self.legs) >= 4 * most:
            self._forget_one()
        leg = Leg(named, branch, self.board.settings)
        leg.party.uri = leg.party.uri or self.invited.uri
        leg.party.gate, leg.party.facing = replace(self.invited.gate), self.invited.facing
        return leg

    def _forget_one(self) -> None:
        """There is no end to legs that fail: the oldest is as if it had never been."""
        oldest = next((leg for leg in self.legs if leg.ended and leg not in (self.locked, self.active)), None)
        if oldest is not None:
            self.legs.remove(oldest)
            self.memory.forget_leg(oldest.tag)

    # -- what happens to it

    def told(self, question: MediaRequest, sender: Side, now: float) -> None:
        """A question of the SIP side has been answered."""
        self.asked = now
        if question.status == 0 and self.answered is not None:
            self.offered = now
        if question.weak:
            self.holders.add(sender)
        elif question.status == 0:
            self.holders.add(None)

    def hear(self, leg: Leg) -> None:
        """From now on the call's callee-facing ports listen to this leg only (calls.md 9)."""
        self._orders += 1
        leg.order = self._orders
        self._attend(leg)

    def _attend(self, leg: Leg | None) -> None:
        self.active = leg
        for index, stream in enumerate(self.streams):
            if stream is None or stream.callee.closed:
                continue
            if leg is None:
                rtp = Latch(self.board.settings)
                stream.callee.attach(rtp, Latch(self.board.settings, rtp), self.invited.gate)
            else:
                stream.callee.attach(*leg.latches(index), leg.party.gate)
            if leg is None or not leg.sdp:
                stream.describe(Side.CALLEE, None)
            else:
                stream.describe(Side.CALLEE, leg.sdp[index] if index < len(leg.sdp) else disabled(stream))

    def expect(self, leg: Leg | None, now: float) -> bool:
        """Tell the latches of a leg's streams what SDP and signalling say. True if somebody's whereabouts changed."""
        heard = leg if leg is not None and leg.streams is not None else self.active
        vouchers = {Side.CALLER: self.caller.voucher}
        if heard is not None:
            vouchers[Side.CALLEE] = heard.party.voucher
        return any([stream.expect(vouchers, self.board.ground, now) for stream in filter(None, self.streams_of(leg))])

    def sync(self, now: float) -> list[Effect]:
        """Tell the plane what is news."""
        return [*self.retire(now), *[effect for stream in self.all_streams() for effect in stream.sync(now)]]

    def replace(self, streams: list[Stream | None], old: Stream, new: Stream) -> None:
        """Another stream in the place of one, with ports of other IP versions. What is known of the parties stays."""
        new.inherit(old)
        streams[old.index] = new
        self.retiring[new] = old

    def retire(self, now: float) -> list[Effect]:
        """The ports of replaced streams cool, if that can no more be refused."""
        if not self.retiring:
            return []
        gone = [new for new in self.retiring if not self.offers.hang_on(new)]
        old = [new.succeed(self.retiring.pop(new)) for new in gone]
        return [effect for stream in old for end in stream.ends for effect in self.board.cool(end, now)]

    def lock(self, leg: Leg, now: float) -> list[Effect]:
        """A 2xx or its ACK: the first locks its leg."""
        if leg.answered or leg.ended:
            return []
        leg.answered = True
        self.changed = now
        if self.answered is None:
            self.answered = now
        answered = CallAnswered(at=now, call_id=self.call_id, callee_tag=leg.tag)
        effects: list[Effect] = [Report(answered)]
        if self.locked is None and leg.streams is None:
            self.locked = leg
            if self.active is not leg:
                self.hear(leg)
                self.expect(leg, now)
                effects += self.sync(now)
        return effects

    def linger(self, reason: EndReason, status: int, now: float, seconds: float | None = None) -> None:
        """CANCEL or failure: keep the ports for an answer that crossed it (calls.md 10). ``seconds``: for how long, if
        a door has said that; it may shorten what is under way."""
        until = now + (self.board.settings.linger if seconds is None else seconds)
        if self.lingering is None:
            self.lingering = reason
            self.lingers_until = until
            self.over = now
        elif seconds is not None:
            self.lingers_until = min(self.lingers_until, until)
        self.status = status or self.status

    def gives_up(self, branch: str) -> bool | None:
        """An INVITE was cancelled or failed. True: it was the last one, or it is not known which; False: others are
        under way; None: it was none of this call's."""
        if branch and self.attempts and branch not in self.attempts:
            return None
        self.attempts.discard(branch)
        if branch and self.attempts:
            return False
        self.attempts.clear()
        return True

    def failed(self, tag: str) -> None:
        """Note whose failure went upstream: an ACK with that tag acknowledges it and revives nothing."""
        self._failed_tag = tag

    def revives(self, tag: str) -> bool:
        """Whether an ACK to that tag confirms a 2xx. RFC 3261 §17.1.1.3: the ACK of a failure has the failure's tag."""
        return self._failed_tag is None or not tag or tag != self._failed_tag

    def revive(self, now: float) -> list[Effect]:
        """A 2xx or ACK crossed the CANCEL, or the caller tries again."""
        if self.lingering is None:
            return []
        self.lingering, self.over, self.status, self._failed_tag = None, None, 0, None
        self.deleted = False
        self.trying = self.changed = now
        return [Report(CallRevived(at=now, call_id=self.call_id))]

    def try_again(self, now: float) -> None:
        """A new INVITE after a failure: who answered the old one is out."""
        self.trying = now
        self.attempts.clear()
        self.offers.forget()
        for leg in self.legs:
            leg.ended, leg.failed = True, False
        self._attend(None)

    def fail_branch(self, branch: str, tag: str, now: float) -> list[Effect]:
        """A branch of a fork failed: it frees only itself (calls.md 9)."""
        for leg in self.legs:
            if not leg.answered and ((branch and leg.branch == branch) or (tag and leg.tag == tag)):
                leg.ended = leg.failed = True
        if self.locked is None and self.active is not None and self.active.ended:
            self._hear_next()
            self.expect(self.active, now)
        return self.sync(now)

    def _hear_next(self) -> None:
        """Fall back to the newest 18x that is left."""
        left = {leg.order: leg for leg in self.legs if leg.order and not leg.ended}
        self._attend(left[max(left)] if left else None)

    # -- the end

    def leave(self, leg: Leg, now: float) -> list[Effect] | None:
        """BYE of a leg. None: nobody is left, the call must end."""
        leg.ended = True
        self.offers.forget(leg)
        left = [other for other in self.legs if not other.ended and (other.answered or self.answered is None)]
        if not left:
            return None
        if leg.streams is not None:
            return self.close_own(leg, now)
        if self.answered is None:
            return self.fail_branch("", leg.tag, now)
        heirs = [other for other in left if other.streams is None]
        return self._close_first(self.locked if self.locked in heirs else next(iter(heirs), None), now)

    def close_own(self, leg: Leg, now: float) -> list[Effect]:
        """The ports of a further leg cool."""
        effects: list[Effect] = []
        for stream in leg.streams or ():
            for end in stream.ends if stream is not None else ():
                effects += self.board.cool(end, now)
        return [*effects, *self.sync(now)]

    def _close_first(self, heir: Leg | None, now: float) -> list[Effect]:
        """The first leg left, further ones talk on: they were told the call's callee-facing ports, so these stay."""
        self.locked = heir
        self._attend(heir)
        effects: list[Effect] = []
        if heir is None:
            for stream in self.streams:
                if stream is not None:
                    effects += self.board.cool(stream.caller, now)
        else:
            self.expect(heir, now)
        return [*effects, *self.sync(now)]

    def close(self, now: float) -> list[Effect]:
        """All ports cool."""
        return [effect for stream in self.all_streams() for end in stream.ends for effect in self.board.cool(end, now)]
