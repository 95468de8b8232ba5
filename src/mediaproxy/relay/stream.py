"""One relayed stream: two ends, one facing each party, each a pair of lent ports with a latch per port.

SDP comes in, and what both parties' SDP together means goes out; what comes of it for the plane is the ports' business.
"""

from functools import lru_cache
from weakref import ref

import msgspec

from mediaproxy.control import Direction, MediaPort, PayloadType
from mediaproxy.control import Stream as Sdp
from mediaproxy.events import Side
from mediaproxy.relay.effects import Effect
from mediaproxy.relay.expectation import Ground, Voucher
from mediaproxy.relay.gate import Gate
from mediaproxy.relay.ice import Credentials
from mediaproxy.relay.latch import Latch
from mediaproxy.relay.port import Clocks, Limit, Port
from mediaproxy.relay.ports import Pair
from mediaproxy.relay.rtp import STATIC
from mediaproxy.relay.settings import RelaySettings
from mediaproxy.relay.tally import Traffic
from mediaproxy.relay.terms import NONE, Terms

__all__ = ["End", "Limit", "Port", "Stream", "disabled"]

_BESIDE = frozenset(("", "telephone-event", "tone", "cn", "red", "rtx", "ulpfec", "flexfec", "parityfec"))
"Payload formats of RFC 4733, 3389, 2198, 4588, 5109, 8627 and 2733."
_STATIC_CLOCKS: Clocks = tuple((number, rate) for number, (_, rate) in STATIC.items())
_SPEAKS = (Direction.SENDRECV, Direction.SENDONLY)
_LISTENS = (Direction.SENDRECV, Direction.RECVONLY)
_REFUSALS = 20
"Answers per second to ICE checks of whoever does not know the password."
_NOTHING = Sdp(kind="", transport="")
"What SDP says of a stream before there is any."
Types = tuple[PayloadType, ...]


class End:
    """Mutable: the ports of one stream that face one party."""

    __slots__ = (
        "__weakref__",
        "_stream",
        "codec",
        "credentials",
        "gate",
        "limit",
        "muxed",
        "pair",
        "ports",
        "refusing",
        "rtcp",
        "rtp",
        "side",
        "splits",
    )

    def __init__(self, stream: "Stream", side: Side, pair: Pair, settings: RelaySettings, traffic: Traffic) -> None:
        self._stream = ref(stream)
        self.side = side
        self.pair = pair
        self.codec: tuple[tuple[int, ...], Sdp | None, Sdp | None, str] | None = None
        "Name of the codec that the party sent last, after what it follows from (Stream.codec)."
        self.gate = Gate()
        "What a SIP server keeps from the other party: that of whoever is heard here."
        self.credentials: Credentials | None = None
        "By which its party makes ICE checks with the relay; None: it makes none."
        self.limit: Limit | None = None
        "Of what goes to an address that may not want it; None: nothing has."
        self.refusing: Limit | None = None
        "Of answers to checks without the password; None: none was refused."
        self.muxed = False
        """Whether its party's RTCP comes to its RTP port (RFC 5761 §5.1.1): its own SDP says so, and that which it was
        shown. An offerer takes it that its wish will be granted."""
        self.splits = False
        "Whether its party's RTCP comes to its RTP port, and leaves for the other party's port for RTCP."
        latch = Latch(settings)
        self.rtp = Port.of(self, pair.rtp, latch, traffic, rtcp=False)
        self.rtcp = Port.of(self, pair.rtcp, Latch(settings, latch), traffic, rtcp=True)
        self.ports = (self.rtp, self.rtcp)

    @property
    def stream(self) -> "Stream":
        """The stream that it belongs to."""
        stream = self._stream()
        assert stream is not None  # see Port.end
        return stream

    @property
    def idle(self) -> bool:
        """The stream is disabled by SDP."""
        return not self.stream.enabled

    @property
    def closed(self) -> bool:
        """Its pair is this call's no more."""
        return self.rtp.closed

    def may_send(self, now: float, rate: int) -> bool:
        """Whether one more packet may go to an address that may not want it, ``rate`` of them per second."""
        if self.limit is None:
            self.limit = Limit(rate)
        return self.limit.allows(now)

    def may_refuse(self, now: float) -> bool:
        """Whether one more check without the password is answered. It need not come from where it says; and it must not
        use up what ``limit`` leaves for media."""
        if self.refusing is None:
            self.refusing = Limit(_REFUSALS)
        return self.refusing.allows(now)

    def media_port(self, sdp: Sdp) -> MediaPort:
        """What the SDP should say for this end."""
        own = self.credentials or Credentials("", "")
        rtcp = self.pair.advertised_rtcp if sdp.rtp else None
        return MediaPort(rtp=self.pair.advertised, rtcp=rtcp, ufrag=own.ufrag, password=own.password)

    def attach(self, rtp: Latch, rtcp: Latch, gate: Gate) -> None:
        """Listen to another leg: with its latches."""
        for latch, former in ((rtp, self.rtp.latch), (rtcp, self.rtcp.latch)):
            latch.succeed(former)
        self.rtp.latch, self.rtcp.latch, self.gate = rtp, rtcp, gate


class Stream:
    """Mutable: one m-section of a call.

    It holds its ends and they their ports; backwards there are only weak references, so that a call that has ended
    leaves nothing to the garbage collector, whose work would delay packets.
    """

    __slots__ = (
        "__weakref__",
        "_clocks",
        "audio",
        "caller",
        "changed",
        "call_id",
        "callee",
        "described",
        "enabled",
        "ends",
        "held",
        "index",
        "kind",
        "one_way",
        "ports",
        "sdp",
        "shakes_hands",
        "terms",
        "tos",
    )

    def __init__(
        self,
        index: int,
        pairs: dict[Side, Pair],
        settings: RelaySettings,
        call_id: str,
        now: float,
        traffic: Traffic,
    ) -> None:
        """``traffic``: the sums over all ports of the relay, which its ports add to."""
        self.index = index
        self.call_id = call_id
        self.changed = now
        "When SDP last changed what is expected."
        self.tos = settings.tos
        "Of what is sent; None: as it came, or as the operating system does."
        self.sdp: dict[Side, Sdp] = {}
        "What each party's SDP said last; changed by ``describe`` and ``understand``."
        self.terms: dict[Side, Terms] = {}
        "What each party was told by the SDP that it was shown; changed by ``tell`` and ``understand``."
        self.described = _NOTHING
        "Its SDP, for reports: the caller's if there is one."
        self.kind = ""
        "Media type: audio, video, image…"
        self.audio = False
        "It is RTP that is heard, not seen."
        self.enabled = True
        "No party has set its port to 0."
        self.held = False
        "A party has put it on hold."
        self.shakes_hands = False
        "ICE checks or DTLS handshakes pass on it."
        self.one_way: dict[Side, float] = {}
        "Sides that an event has called silent, with its time."
        self._clocks: dict[Side, Clocks] = {}
        self.caller = End(self, Side.CALLER, pairs[Side.CALLER], settings, traffic)
        self.callee = End(self, Side.CALLEE, pairs[Side.CALLEE], settings, traffic)
        self.ends = (self.caller, self.callee)
        self.ports = (*self.caller.ports, *self.callee.ports)
        for one, other in zip(self.caller.ports, self.callee.ports, strict=True):
            one.peer, other.peer = other, one

    def inherit(self, old: "Stream") -> None:
        """Take the place of another stream: its SDP, and what its latches have learned."""
        self.changed, self.one_way = old.changed, dict(old.one_way)
        self.understand(dict(old.sdp), dict(old.terms))
        for end, former in zip(self.ends, old.ends, strict=True):
            end.attach(former.rtp.latch, former.rtcp.latch, former.gate)

    def succeed(self, old: "Stream") -> "Stream":
        """Count on from the stream whose place it has taken, and whose ports have had their last packet. That one."""
        for port, former in zip(self.ports, old.ports, strict=True):
            port.tally.absorb(former.tally)
        return old

    def end(self, side: Side) -> End:
        """The end that faces a party."""
        return self.caller if side is Side.CALLER else self.callee

    @property
    def closed(self) -> bool:
        """It has no port left."""
        return self.caller.closed and self.callee.closed

    # -- what SDP says

    def describe(self, side: Side, sdp: Sdp | None) -> None:
        """A party's SDP says that of it; None: it says nothing any more."""
        if self.sdp.get(side) is sdp:
            return
        if sdp is None:
            del self.sdp[side]
        else:
            self.sdp[side] = sdp
        self._conclude()

    def tell(self, side: Side, terms: Terms) -> None:
        """A party was shown an SDP with these terms."""
        if self.terms.get(side) != terms:
            self.terms[side] = terms
            self._conclude()

    def understand(self, sdp: dict[Side, Sdp], terms: dict[Side, Terms]) -> None:
        """All SDP and all terms are these."""
        self.sdp, self.terms = sdp, terms
        self._conclude()

    def _conclude(self) -> None:
        """Find out what follows from the SDP. It changes seldom, and what follows is asked with each packet, each timer
        and each look at the call."""
        self._clocks.clear()
        caller, callee = self.sdp.get(Side.CALLER), self.sdp.get(Side.CALLEE)
        described = self.described = caller or callee or _NOTHING
        self.kind = described.kind
        self.audio = described.kind == "audio" and described.rtp
        self.enabled, self.held, self.shakes_hands = True, False, False
        for sdp in self.sdp.values():
            self.enabled &= sdp.endpoint is not None
            self.held |= sdp.held
            self.shakes_hands |= sdp.ice or sdp.dtls
        one = self.caller.muxed = _muxed(caller, callee, self.terms.get(Side.CALLER, NONE).mux)
        other = self.callee.muxed = _muxed(callee, caller, self.terms.get(Side.CALLEE, NONE).mux)
        self.caller.splits = len(self.sdp) == 2 and one and not other
        self.callee.splits = len(self.sdp) == 2 and other and not one

    @property
    def encrypted(self) -> bool:
        """Its RTP is SRTP, as far as SDP tells."""
        return any([sdp.sdes or sdp.dtls or "SAVP" in sdp.transport.upper() for sdp in self.sdp.values()])

    def clocks(self, side: Side) -> Clocks:
        """RTP payload types and clock rates of what that side may send, the likely ones first: what both have, what the
        other one wants, what it wants itself. A plane looks at some of them only."""
        known = self._clocks.get(side)
        if known is None:
            own, other = self.sdp.get(side), self.sdp.get(side.other)
            known = _clocks(() if other is None else other.payload_types, () if own is None else own.payload_types)
            if known is None:
                known = _STATIC_CLOCKS if self.described.rtp else ()
            self._clocks[side] = known
        return known

    def codec(self, side: Side) -> str:
        """The name of the codec that a party sent last; empty: not known. Digits, comfort noise and repair of losses
        come beside a codec, so they count only if nothing else has come."""
        end, own, other = self.end(side), self.sdp.get(side), self.sdp.get(side.other)
        recent, known = end.rtp.tally.recent, end.codec
        if known is None or known[0] is not recent or known[1] is not own or known[2] is not other:
            names = [self.format(side, number) for number in recent]
            name = next((name for name in names if name.lower() not in _BESIDE), names[0] if names else "")
            known = end.codec = recent, own, other, name
        return known[3]

    def format(self, side: Side, number: int) -> str:
        """Encoding name of a payload type that a party sends; empty: not told."""
        for sdp in (self.sdp.get(side.other), self.sdp.get(side)):
            for payload_type in sdp.payload_types if sdp is not None else ():
                if payload_type.number == number:
                    return payload_type.codec
        return "" if self.told else STATIC.get(number, ("", 0))[0]

    @property
    def told(self) -> bool:
        """SDP says which payload types it has."""
        return any([sdp.payload_types for sdp in self.sdp.values()])

    def speaks(self, side: Side) -> bool:
        """Whether SDP lets us expect media from that side now."""
        own, other = self.sdp.get(side), self.sdp.get(side.other)
        if own is None or other is None or not self.enabled or self.held:
            return False
        return own.direction in _SPEAKS and other.direction in _LISTENS

    @property
    def alive(self) -> float:
        """When the last accepted packet came, either way; 0.0: never."""
        latest = 0.0
        for port in self.ports:
            last, passed = port.tally.last, port.passed
            if last is not None and last > latest:
                latest = last
            if passed is not None and passed > latest:
                latest = passed
        return latest

    def expect(self, vouchers: dict[Side, Voucher], ground: Ground, now: float) -> bool:
        """Tell all four latches what SDP and signalling say now. True if somebody's whereabouts changed."""
        changed = False
        types = self._types()
        for end in self.ends:
            sdp = self.sdp.get(end.side)
            voucher = vouchers.get(end.side)
            if sdp is None or voucher is None or sdp.endpoint is None or end.closed:
                continue
            other, index, mux = self.sdp.get(end.side.other), self.index, end.muxed
            new = ground.expect(voucher, sdp, other, rtcp=False, index=index, mux=mux, types=types)
            changed |= end.rtp.latch.expect(new, now)
            if sdp.rtp or sdp.rtcp is not None:
                beside = ground.beside(new, sdp)
                if beside is None:
                    beside = ground.expect(voucher, sdp, other, rtcp=True, index=index, mux=mux, types=types)
                changed |= end.rtcp.latch.expect(beside, now)
        return changed

    def _types(self) -> frozenset[int]:
        """The payload types of both parties' SDP; none if one does not tell any."""
        return _numbers(*[sdp.payload_types for sdp in self.sdp.values()])

    def sync(self, now: float) -> list[Effect]:
        """Tell the plane what is news at the ports that are still ours."""
        effects: list[Effect] = []
        for port in self.ports:
            if not port.closed:
                effects += port.sync(now)
        return effects


def _muxed(own: Sdp | None, other: Sdp | None, told: bool | None) -> bool:
    """End.muxed. ``told``: Terms.mux of that party."""
    if own is None or not own.rtcp_mux or not own.rtp:
        return False
    return (other is None or other.rtcp_mux) if told is None else told


# Phones of a kind offer the same payload types in each call.


@lru_cache(maxsize=1024)
def _clocks(wanted: Types, own: Types) -> Clocks | None:
    """Stream.clocks; None: no payload types are told."""
    told = (*wanted, *own)
    rates = {t.number: t.clock_rate for t in (*own, *wanted)}
    ours = {t.number for t in own}
    numbers = dict.fromkeys([*[t.number for t in wanted if t.number in ours], *[t.number for t in told]])
    clocks = tuple([(number, rates[number]) for number in numbers if rates[number]])
    return clocks if told else None


@lru_cache(maxsize=1024)
def _numbers(*lists: Types) -> frozenset[int]:
    """The payload types of all lists; none if one is empty."""
    return frozenset([t.number for told in lists for t in told]) if all(lists) else frozenset()


def disabled(stream: Stream) -> Sdp:
    """What an SDP says of a stream that it does not have any more: as with port 0."""
    return msgspec.structs.replace(stream.described, endpoint=None, rtcp=None)
