"""What the SIP side lets us expect at one port: who may speak (calls.md 1-3) and where to send before he does (5, 8).

One party's SDP and signalling address come in, an Expectation goes out: a value that ranks sources and names a target.
It must never name a target that is no phone's: the relay itself, loopback, multicast, broadcast, private networks that
nobody said can be reached.
"""

import ipaddress
from functools import lru_cache

import msgspec

from mediaproxy.control import KnownBy, PhoneAddress, Stream, Wishes
from mediaproxy.endpoint import Endpoint, Scope, address_text, ip_address, same_prefix, scope
from mediaproxy.relay.ports import PortPool
from mediaproxy.relay.rtp import Kind
from mediaproxy.relay.settings import Policy, RelaySettings

PROBATION_RANK = 4
"Rank of a source that no address vouches for (calls.md 2)."


class Anchor(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """What the SIP side says of a party: only if one of these changes may its media come from a new ip (calls.md 6)."""

    sdp: Endpoint | None
    contact: str
    signalling: str | None


class Expectation(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """Who may speak at one port, and where that party is reached until it has."""

    anchor: Anchor
    sdp: Endpoint | None
    "Where the party's SDP wants this component (RTP or RTCP); None if it names no usable place, as 0.0.0.0."
    nearby: tuple[str, ...]
    "Addresses of rank 2: those of the SDP that are public or routable."
    signalling: str | None
    "Address of rank 3; None: unknown."
    unknown: bool
    "Nothing qualifies by address (calls.md 1)."
    target: Endpoint | None
    "Where to send before learning (calls.md 5), and always for asymmetric clients (calls.md 8)."
    target_in_sdp: bool
    "The target's address is the SDP's, not that of the signalling."
    asymmetric: bool
    strict: bool
    "Once somebody is learned, a new port of the same address is nobody (Wishes.strict_source)."
    handover: bool
    "Who has a rank may take over as a new port of the same address may (Wishes.media_handover)."
    rtcp: bool
    "This port is for RTCP."
    media: bool
    "Only RTP latches; False: any datagram does (udptl)."
    payload_types: frozenset[int]
    "Of both parties' SDP (a party sends what the other one wants); empty: not told, any."
    mux: bool
    stun: bool
    dtls: bool
    ufrag: str
    "The party's own ICE user name, if it makes its checks with the relay; empty: not told."
    v4_bits: int
    v6_bits: int
    others: Policy
    own: Endpoint | None = None
    """The port of another call of this relay, as bound, that the party's SDP names. Nobody else may speak, and it only
    if its call names this port (``ties``)."""

    def rank(self, source: Endpoint) -> int:
        """1 to 3 (calls.md 2); 0: no address vouches for the source."""
        if self.unknown or self.own is not None:
            return 0
        if source == self.sdp:
            return 1
        if any(self._near(source.address, address) for address in self.nearby):
            return 2
        return 3 if self.signalling and self._near(source.address, self.signalling) else 0

    def near(self, one: Endpoint, other: Endpoint) -> bool:
        """Whether two addresses are the same party's, by the bits that must agree (calls.md 2)."""
        return self._near(one.address, other.address)

    def _near(self, one: str, other: str) -> bool:
        return same_prefix(one, other, self.v4_bits, self.v6_bits)

    def prefix(self, address: str) -> str:
        """The CIDR prefix of those bits."""
        return prefix(address, self.v4_bits, self.v6_bits)

    def latches(self, kind: Kind, payload_type: int | None) -> bool:
        """Whether a datagram of that kind is the media that this port is for (calls.md 3)."""
        if self.rtcp:
            return kind is Kind.RTCP
        if not self.media:
            return kind is not Kind.STUN or not self.stun
        if kind is Kind.RTP:
            return not self.payload_types or payload_type in self.payload_types
        return self.mux and kind is Kind.RTCP

    def passes(self, kind: Kind) -> bool:
        """Whether it is forwarded without being media: ICE checks and DTLS handshakes (calls.md 3)."""
        return (kind is Kind.STUN and self.stun) or (kind is Kind.DTLS and self.dtls)

    def allowed(self, version: int) -> tuple[str, ...]:
        """Prefixes of the sources that can have a rank, for Flow.allowed; empty: anybody may matter."""
        if self.others == "probation":
            return ()
        if self.own is not None:
            return (prefix(self.own.address, 32, 128),)
        near, wanted = self.nearby, version == 6
        if self.signalling and self.signalling not in near:
            near += (self.signalling,)
        prefixes = [prefix(one, self.v4_bits, self.v6_bits) for one in near if (":" in one) is wanted]
        if self.sdp and self.sdp.address not in near and (":" in self.sdp.address) is wanted:
            prefixes.insert(0, prefix(self.sdp.address, 32, 128))
        return tuple(prefixes if len(prefixes) < 2 else dict.fromkeys(prefixes))


def prefix(address: str, v4_bits: int, v6_bits: int) -> str:
    """The CIDR prefix of so many bits around an address."""
    if ":" not in address:
        return f"{address}/32" if v4_bits == 32 else _network(address, v4_bits)
    return _network(address, v6_bits)


@lru_cache(maxsize=65536)
def _network(address: str, bits: int) -> str:
    return str(ipaddress.ip_network((address, bits), strict=False))


class Ground:
    """Where this relay stands: which addresses are its own, and which it may send to."""

    def __init__(self, settings: RelaySettings, pool: PortPool) -> None:
        self._settings = settings
        self._pool = pool
        self._own = {name for a in settings.addresses for name in (a.bind, a.public)}
        self._on_loopback = {a.version for a in settings.addresses if scope(a.bind) is Scope.LOOPBACK}
        self._routable = tuple(ipaddress.ip_network(p) for p in settings.routable)
        self.met = False
        "Whether any SDP has named a port of this relay that another call has."

    def _in_routable(self, address: str) -> bool:
        if not self._routable:
            return False
        parsed = ip_address(address)
        return parsed is not None and any(parsed in network for network in self._routable)

    def _reachable(self, address: str) -> bool:
        """Public, or inside ``routable``."""
        return scope(address) is Scope.PUBLIC or self._in_routable(address)

    def _is_host(self, place: Endpoint) -> bool:
        """Whether it can be a port of somebody's host, seen from here: no loopback but where the relay is on it."""
        where = scope(place.address)
        if where is Scope.PUBLIC:
            return place.port > 0
        if where is Scope.LOOPBACK:
            return place.version in self._on_loopback
        return place.port > 0 and where not in (None, Scope.MULTICAST, Scope.BROADCAST, Scope.UNSPECIFIED)

    def _guess(self, place: Endpoint, signalling: str | None) -> Endpoint | None:
        """Where a packet may go if it may not go to the SDP's address (calls.md 5): to the signalling address with the
        SDP's port. SIP has come from there, so that is reachable."""
        if signalling is None or signalling == place.address:
            return None
        target = Endpoint(signalling, place.port)
        return target if self._is_host(target) and not self._pool.ours(target) else None

    def expect(  # noqa: PLR0913  # one fact each, by name; what callers know already is not found out again
        self,
        party: "Voucher",
        stream: Stream,
        other: Stream | None,
        *,
        rtcp: bool,
        index: int = 0,
        mux: bool | None = None,
        types: frozenset[int] | None = None,
    ) -> Expectation:
        """What one party's SDP lets us expect; ``other`` is the same stream in the other party's SDP, if known.
        ``index``: of the stream. ``mux``: whether its RTCP comes to its RTP port; None: as both SDPs say. ``types``:
        the payload types of both SDPs, if they are known."""
        settings = self._settings
        place = rtcp_place(stream) if rtcp else stream.endpoint
        usable = place if place is not None and self._is_host(place) else None
        own = None if place is None else self._pool.own(place)
        signalling = party.signalling
        nearby: tuple[str, ...] = ()
        for one in (place, stream.endpoint):
            address = "" if one is None else one.address
            if address and address not in nearby and address not in self._own and self._reachable(address):
                nearby += (address,)
        # Signalling by IPv6 says nothing of media by IPv4, and the other way round.
        silent = signalling is None or (usable is not None and (":" in signalling) != (":" in usable.address))
        unknown = silent and not nearby
        target = None
        if place is not None:
            direct = usable is not None and own is None and (place.address == signalling or place.address in nearby)
            target = place if direct else self._guess(place, signalling)
        if types is None:
            lists = [s.payload_types for s in (stream, other) if s is not None]
            types = frozenset([t.number for payload_types in lists for t in payload_types] if all(lists) else ())
        expectation = Expectation(
            anchor=Anchor(sdp=place, contact=party.contact, signalling=signalling),
            sdp=usable,
            nearby=nearby,
            signalling=signalling,
            unknown=unknown,
            target=target,
            target_in_sdp=target is not None and target == usable,
            asymmetric=party.asymmetric or not party.learn,
            strict=party.strict,
            handover=party.handover,
            rtcp=rtcp,
            media=stream.rtp,
            payload_types=types,
            mux=(stream.rtcp_mux and (other is None or other.rtcp_mux)) if mux is None else mux,
            ufrag=party.ufrags[index] if index < len(party.ufrags) else "",
            stun=stream.ice or not stream.told,
            dtls=stream.dtls or not stream.told,
            v4_bits=settings.v4_bits,
            v6_bits=settings.v6_bits,
            others=settings.latch_unknown if unknown or not stream.told else settings.latch_others,
        )
        return expectation if own is None or usable is None else self._elsewhere(expectation, own)

    def beside(self, rtp: Expectation, stream: Stream) -> Expectation | None:
        """What ``expect`` says of RTCP, by what it has said of RTP; None: that does not follow from it."""
        place, rtp_place, anchor = rtcp_place(stream), stream.endpoint, rtp.anchor
        if place is None or rtp_place is None or place.address != rtp_place.address or rtp.own is not None:
            return None
        if not (place.port and rtp_place.port):  # one of the two may be a port of somebody's host
            return None
        own = self._pool.own(place)
        if own is not None:
            return None
        usable = place if rtp.sdp is not None else None
        direct = usable is not None and (place.address == rtp.signalling or place.address in rtp.nearby)
        target = place if direct else self._guess(place, rtp.signalling)
        return msgspec.structs.replace(
            rtp,
            anchor=Anchor(sdp=place, contact=anchor.contact, signalling=anchor.signalling),
            sdp=usable,
            target=target,
            target_in_sdp=target is not None and target == usable,
            rtcp=True,
        )

    def _elsewhere(self, expectation: Expectation, own: Endpoint) -> Expectation:
        """A party that is a port of another call: no address vouches for anybody else, and nothing is sent there before
        that call names this port, too (``ties``)."""
        self.met = True
        return msgspec.structs.replace(
            expectation,
            own=own,
            nearby=(),
            signalling=None,
            unknown=False,
            target=None,
            target_in_sdp=False,
            asymmetric=False,
            strict=True,
            handover=False,
            ufrag="",
            others="never",
        )


class Voucher(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """What the signalling says of a party's whereabouts, for all its streams."""

    signalling: str | None = None
    "Its address, as far as it is known (calls.md 1)."
    contact: str = ""
    asymmetric: bool = False
    learn: bool = True
    strict: bool = False
    handover: bool = False
    ufrags: tuple[str, ...] = ()
    "Its ICE user names, by index of the stream; empty ones: not told."

    def updated(
        self,
        phone: PhoneAddress,
        contact: str,
        asymmetric: bool,
        wishes: Wishes | None = None,
        ice: tuple[tuple[str, str], ...] = (),
    ) -> "Voucher":
        """After a further message. What a message does not say (an ACK has no Contact) stays as it was."""
        known = phone.endpoint is not None and phone.known_by is not KnownBy.UNKNOWN
        address = address_text(phone.endpoint.address) if known and phone.endpoint is not None else None
        return Voucher(
            signalling=address or self.signalling,
            contact=contact or self.contact,
            asymmetric=asymmetric,
            learn=self.learn if wishes is None else wishes.learn,
            strict=self.strict if wishes is None else wishes.strict_source,
            handover=self.handover if wishes is None else wishes.media_handover,
            ufrags=tuple([ufrag for ufrag, _ in ice]) if ice else self.ufrags,
        )


def rtcp_place(stream: Stream) -> Endpoint | None:
    """Where a stream's SDP wants RTCP: a=rtcp, else the port above RTP's (RFC 3605 §1)."""
    if stream.rtcp is not None:
        return stream.rtcp
    if stream.endpoint is None or not stream.rtp or not 0 < stream.endpoint.port < 65535:
        return None
    return stream.endpoint.with_port(stream.endpoint.port + 1)
