"""The latch of one local port: who is the party on the other side of the NAT? (calls.md 2-8, RFC 7362)

Expectations come in from the SIP side, packets from the network; out comes a verdict for each packet, and at any time
the learned source and the target to send to. It must never accept a source that neither SDP, signalling nor policy
vouch for, and never let go of a speaking one for a stranger.
"""

import msgspec
from msgspec.structs import replace

from mediaproxy.endpoint import Endpoint
from mediaproxy.relay.expectation import PROBATION_RANK, Anchor, Expectation
from mediaproxy.relay.flow import SlotCounters
from mediaproxy.relay.latchstate import TRANSITIONS, Input, State
from mediaproxy.relay.probation import Probation
from mediaproxy.relay.rtp import Kind, kind_of, report_sender, rtp_header
from mediaproxy.relay.settings import RelaySettings
from mediaproxy.relay.trace import Seen, Trace
from mediaproxy.relay.verdict import Action, Reason, Verdict

__all__ = ["TRANSITIONS", "Action", "Input", "Latch", "Reason", "State", "Verdict"]


_FORWARD = Verdict(Action.FORWARD)


class Latch(msgspec.Struct, eq=False):
    """Mutable: one party's source at one port, for RTP (or udptl) or for RTCP."""

    _settings: RelaySettings
    _rtp: "Latch | None" = None
    "For the latch of an RTCP port, that of its RTP port."
    state: State = State.WAITING
    expectation: Expectation | None = None
    learned: Endpoint | None = None
    learned_at: float = 0.0
    "When the first second began."
    rank: int = 0
    _last: Trace = Trace(0.0)
    _since: float = 0.0
    "When the present expectation began."
    _ranked_at: float | None = None
    "When the last qualifying packet of a ranked source came, accepted or not."
    _provisional: Endpoint | None = None
    "Where ICE checks and DTLS come from while no media has: answers must go back there."
    _provisional_rank: int = 0
    _provisional_at: float = 0.0
    _home: Anchor | None = None
    "What SIP said when the source was learned."
    _moved_target: Endpoint | None = None
    "In MOVING: where the new SDP wants media, if that is another address than the source's."
    _probation: Probation | None = None
    "Of sources without rank, where they may pass it; None: none has tried."
    _allowed: tuple[Expectation, Endpoint | None, int, tuple[str, ...]] | None = None
    "What ``allowed`` said, after what it follows from."
    _nominated: tuple[Endpoint, str] | None = None
    "Source and ufrag of a check that came before the SDP of who made it."

    # -- what SIP says

    def expect(self, new: Expectation, now: float) -> bool:
        """Take an expectation. True if it changes who may speak: first, or c=, port, Contact, signalling address."""
        old, self.expectation = self.expectation, new
        if old is not None and old.anchor == new.anchor:
            return False  # calls.md 7: a session timer resets nothing
        self._since = now
        self._provisional_rank = PROBATION_RANK + 1  # any ranked one may replace it at once
        self._probation = None
        back = self.state is State.MOVING and new.anchor == self._home
        if old is not None and self.learned is not None:
            self._moved_target = None if back else self._new_target(old, new)
        self._step(Input.BACK if back else Input.SDP)
        if self._nominated is not None:
            self.nominate(*self._nominated, now)
        return True

    def nominate(self, source: Endpoint, ufrag: str, now: float) -> Verdict:
        """A source that has proved to be this party's, and says that its media comes by this way (RFC 8445 §7.3.1.5).
        ``ufrag``: the party's own, for a fork has several who all know our password."""
        expectation = self.expectation
        if expectation is None or expectation.ufrag not in ("", ufrag):
            self._nominated = (source, ufrag)
            return _FORWARD
        self._nominated = None
        return _FORWARD if expectation.own is not None else self._settle(source, Input.NOMINATED, now)

    def meet(self, place: Endpoint, now: float) -> Verdict:
        """The port of another call that SDP has named, which has named ours (``ties``)."""
        return self._settle(place, Input.MET, now)

    def part(self) -> None:
        """The learned source was such a port, and is this party no more."""
        self.learned, self.rank, self._provisional, self._moved_target = None, 0, None, None
        self._step(Input.PARTED)

    def _settle(self, source: Endpoint, given: Input, now: float) -> Verdict:
        if source == self.learned and self.state is State.SETTLED:
            return _FORWARD
        before, self.learned, self.rank, self.learned_at = self.learned, source, 1, now
        self._step(given)
        self._home, self._moved_target = self.expectation.anchor if self.expectation else None, None
        self._last = Trace(now) if source != before else self._last
        return Verdict(Action.FORWARD, latched=source != before, before=before)

    def knows(self, ufrag: str) -> bool:
        """Whether the ICE user name is this party's."""
        return self.expectation is not None and self.expectation.ufrag == ufrag

    def succeed(self, former: "Latch") -> None:
        """Take the place of a latch that stood for whoever answers: who made a check there may be this party."""
        if former.expectation is None and self._nominated is None and self.expectation is None:
            self._nominated = former._nominated

    def _new_target(self, old: Expectation, new: Expectation) -> Endpoint | None:
        """Where to turn when the old source has fallen silent after a change; None: it remains the best guess."""
        assert self.learned is not None
        if new.sdp is None or new.target is None or new.target == old.target:
            return self._moved_target if new.sdp is not None and new.target == old.target else None
        if new.target_in_sdp or new.target.address != self.learned.address:
            return new.target
        return None  # behind the same NAT: the mapped port is better than the one in the SDP

    def _step(self, given: Input) -> None:
        self.state = TRANSITIONS[self.state][given]

    # -- what is known

    def target(self, now: float) -> Endpoint | None:
        """Where packets for this party go now."""
        expectation = self.expectation
        if expectation is None:
            return None
        if expectation.asymmetric:  # calls.md 8
            return expectation.target
        if self.learned is not None:
            return self._elsewhere() if self.deserted(now) else self.learned
        rtp = self._rtp.learned if self._rtp is not None else None
        if self._provisional is not None or expectation.target is None or rtp is None:
            return self._provisional or expectation.target
        # RTCP: beside where its RTP turned out to come from, if that is not the address we would have guessed.
        guessed = rtp.address == expectation.target.address
        return expectation.target if guessed else rtp.with_port(expectation.target.port)

    def _elsewhere(self) -> Endpoint | None:
        """In MOVING: where the party may have gone. Checks and handshakes since the change say it best."""
        heard = self._provisional is not None and self._provisional_at >= self._since
        return self._provisional if heard else self._moved_target

    def deserted(self, now: float) -> bool:
        """A change was announced that names another address, and the old source has fallen silent."""
        deserts_at = self.deserts_at()
        return deserts_at is not None and now >= deserts_at

    def deserts_at(self) -> float | None:
        """When the target may change by silence alone (see ``target``); None: never."""
        if self.state is not State.MOVING or self._elsewhere() is None:
            return None
        return max(self._last.at, self._since) + self._settings.rebind_silence

    def proven(self, target: Endpoint) -> bool:
        """Whether somebody at the target's address wants our packets: he sent, or SIP comes from there (calls.md 5)."""
        if self.expectation is not None and target.address == self.expectation.signalling:
            return True
        rtp = self._rtp.learned if self._rtp is not None else None
        heard = (self.learned, self._provisional, rtp)
        return any(source is not None and source.address == target.address for source in heard)

    def allowed(self, version: int) -> tuple[str, ...]:
        """Flow.allowed: prefixes whose packets can change what this latch says; empty: all."""
        expectation, learned = self.expectation, self.learned
        if expectation is None:
            return ()
        known = self._allowed
        if known is not None and known[0] is expectation and known[1] is learned and known[2] == version:
            return known[3]
        prefixes = expectation.allowed(version)
        if prefixes and learned is not None:  # calls.md 6: new ports of the same address
            prefixes = tuple(dict.fromkeys((*prefixes, expectation.prefix(learned.address))))
        self._allowed = expectation, learned, version, prefixes
        return prefixes

    @property
    def settled_at(self) -> float | None:
        """Flow.settled_at: when a better source could come no more; None: one still can."""
        if self.state not in (State.LEARNED, State.SETTLED) or self.rank == PROBATION_RANK:
            return None
        return self.learned_at + self._settings.upgrade

    @property
    def addresses(self) -> set[str]:
        """All addresses that this party has or could have."""
        expectation = self.expectation
        named = set() if expectation is None else {expectation.signalling or "", *expectation.nearby}
        for endpoint in (self.learned, self._provisional):
            if endpoint is not None:
                named.add(endpoint.address)
        return named - {""}

    def noted(self, slot: SlotCounters) -> None:
        """What the plane has forwarded from the learned source since."""
        if self.learned is not None and slot.last > max(self._last.at, self.learned_at):
            self._last = self._last.noted(slot)

    def resume(self, now: float) -> None:
        """Nobody has listened for a while: the silence since says nothing of whom we knew."""
        self._last = replace(self._last, at=now)
        self._provisional_at = now
        if self.state is State.LEARNED:
            self.learned_at = now

    @property
    def last(self) -> float | None:
        """When the last packet of the learned source came."""
        return self._last.at if self.learned is not None else None

    # -- what the network says

    def weigh(self, source: Endpoint) -> int:
        """The rank of a source as it is now: 0 learned, 1 to 3 by address, 5 none. Lower is more likely this party."""
        if source == self.learned:
            return 0
        return self._rank(source) or 5

    def may_speak(self, source: Endpoint) -> bool:
        """Whether a source is this party, or could be, by address."""
        return source == self.learned or self._rank(source) > 0

    def _rank(self, source: Endpoint) -> int:
        """1 to 3 by address; 4: RTCP of whom probation let in, for it cannot prove itself; 0 none."""
        rank = self.expectation.rank(source) if self.expectation else 0
        rtp = self._rtp
        if not rank and rtp is not None and rtp.learned is not None and rtp.rank == PROBATION_RANK:
            return PROBATION_RANK if rtp.learned.address == source.address else 0
        return rank

    def judge(self, source: Endpoint, data: bytes, now: float) -> Verdict:
        """What to do with a packet that the plane has passed up, and learn from it."""
        expectation = self.expectation
        if expectation is None:
            return Verdict(Action.REFUSE, "no SDP of this party yet", early=True, reason=Reason.NO_SDP)
        if self.state is State.LEARNED and now - self.learned_at > self._settings.upgrade:
            self._step(Input.SECOND)
        kind = kind_of(data)
        seen = self._look(kind, data)
        if source == self.learned:
            self._last = self._last.after(seen, now)
            return _FORWARD
        rank = self._rank(source)
        if not expectation.latches(kind, seen.header.payload_type if seen.header else None):
            return self._judge_other(source, data, rank, now)
        verdict = self._judge_media(source, rank, seen, now)
        if rank:
            self._ranked_at = now
        return verdict

    def _look(self, kind: Kind, data: bytes) -> Seen:
        expectation = self.expectation
        assert expectation is not None
        reports = kind is Kind.RTCP and (expectation.rtcp or expectation.mux)
        return Seen(
            header=rtp_header(data) if kind is Kind.RTP and expectation.media else None,
            reporter=report_sender(data) if reports else None,
        )

    def _judge_other(self, source: Endpoint, data: bytes, rank: int, now: float) -> Verdict:
        """A packet that is not this stream's media."""
        assert self.expectation is not None
        kind = kind_of(data)
        if not rank:
            return Verdict(Action.REFUSE, self._stranger())
        if not self.expectation.passes(kind):
            what = f"RTP of payload type {data[1] & 0x7F}" if kind is Kind.RTP else kind.value
            wrong = "to the port of RTCP" if self.expectation.rtcp else "which the SDP of this stream does not have"
            why = f"sends {what}, {wrong}"
            return Verdict(Action.REFUSE, why, reason=Reason.NOT_MEDIA)
        quiet = now - self._provisional_at >= self._settings.equal_rank_silence
        if self._provisional in (None, source) or rank < self._provisional_rank or quiet:
            self._provisional, self._provisional_rank, self._provisional_at = source, rank, now
        return _FORWARD

    def _judge_media(self, source: Endpoint, rank: int, seen: Seen, now: float) -> Verdict:
        """Media from a source that is not the learned one."""
        if self._moves_port(source, rank, seen, now):
            if self.state is State.MOVING and not rank:  # the old one, with another port: not whom SIP announced
                return self._rebind(source, seen, now)
            return self._latch(source, rank or self.rank, seen, now)
        if rank and self._may_latch(source, rank, seen, now):
            return self._latch(source, rank, seen, now)
        if self._passes_probation(source, rank, seen, now):
            return self._latch(source, PROBATION_RANK, seen, now)
        if not rank:
            return Verdict(Action.REFUSE, self._stranger())
        why = f"{self.learned} is this party's source and still speaks"
        return Verdict(Action.REFUSE, why, reason=Reason.SECOND)

    def _near_learned(self, source: Endpoint) -> bool:
        """Whether a source has the learned one's ip (of IPv6 the same /64)."""
        return self.learned is not None and self.expectation is not None and self.expectation.near(source, self.learned)

    def _moves_port(self, source: Endpoint, rank: int, seen: Seen, now: float) -> bool:
        """calls.md 6: the same ip, and the same RTP stream further on, the same reporter, or a silent old port."""
        expectation = self.expectation
        assert expectation is not None
        follows = self._near_learned(source) or (expectation.handover and rank > 0 and self.learned is not None)
        if expectation.strict or not follows:
            return False
        silent = now - self._last.at
        if seen.reporter is not None:
            rtp = self._rtp._last.ssrc if self._rtp is not None else None
            known = seen.reporter in (self._last.reporter, self._last.ssrc, rtp)
            return known or silent >= self._settings.rtcp_rebind_silence
        if seen.header is not None and self._last.continued_by(seen.header, self._settings.rebind_sequence):
            return True
        return silent >= self._settings.rebind_silence

    def _may_latch(self, source: Endpoint, rank: int, seen: Seen, now: float) -> bool:
        """calls.md 4 and 7: whether a ranked source may be the first, the better or the announced one now."""
        if self.state is State.EXPECTING or (self.learned is not None and self.rank == PROBATION_RANK):
            return True
        if self.state is State.SETTLED:
            return False
        near = self._near_learned(source)
        if self.state is State.MOVING:
            if rank == 1 or not near:
                return True
        elif rank != self.rank:
            return rank < self.rank
        # A neighbour behind the same address looks the same, so whoever speaks is not interrupted. Silence tells that
        # of RTP, which comes all the time; of reports, which do not, only ``_moves_port`` can tell.
        if near and seen.reporter is not None:
            return False
        return now - self._last.at >= self._settings.equal_rank_silence

    def _passes_probation(self, source: Endpoint, rank: int, seen: Seen, now: float) -> bool:
        """calls.md 2: a policy may let others in, when their RTP is in sequence and nobody ranked speaks."""
        expectation = self.expectation
        assert expectation is not None
        if expectation.others != "probation" or seen.header is None:
            return False
        if self._probation is None:
            self._probation = Probation(self._settings.probation_packets)
        if not self._probation.passed(source, seen.header):
            return False
        # Where a ranked source can exist it has two seconds to come first.
        heard = (self.last, None if rank else self._ranked_at, None if expectation.unknown else self._since)
        return all(at is None or now - at >= self._settings.probation_silence for at in heard)

    def _latch(self, source: Endpoint, rank: int, seen: Seen, now: float) -> Verdict:
        before, self.learned, self.rank = self.learned, source, rank
        if self.state in (State.EXPECTING, State.MOVING):
            self.learned_at = now
        self._step(Input.PACKET)
        self._home = self.expectation.anchor if self.expectation else None
        self._moved_target = None
        # A report says nothing of the RTP beside it; else nothing of the old source counts any more.
        self._last = (Trace(now) if seen.reporter is None else self._last).after(seen, now)
        self._probation = None
        return Verdict(Action.FORWARD, latched=True, before=before)

    def _rebind(self, source: Endpoint, seen: Seen, now: float) -> Verdict:
        """Follow the old source in MOVING, which goes on until the first packet of the new one."""
        before, self.learned = self.learned, source
        self._last = self._last.after(seen, now)
        return Verdict(Action.FORWARD, latched=True, before=before)

    def _stranger(self) -> str:
        """Why a source without rank is refused."""
        expectation = self.expectation
        assert expectation is not None
        if expectation.unknown:
            return "the phone's address is unknown, and no probation let it in"
        named = [f"SDP says {expectation.sdp}"] if expectation.sdp else []
        if expectation.signalling:
            named.append(f"signalling {expectation.signalling}")
        return " and ".join(named) or "no address is known"
