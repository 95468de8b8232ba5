"""What happened to calls, as values. The relay returns them; logs, records, metrics and pages are folds over them.

``at`` and all other times are seconds since the epoch on a clock that never jumps back (mediaproxy.clock); durations
are seconds. Nothing here decides anything.
"""

from enum import StrEnum
from typing import Any, TypeAlias, TypeVar

import msgspec

from mediaproxy.control import ControlError, KnownBy, MediaReply
from mediaproxy.endpoint import Endpoint


class Side(StrEnum):
    """A party of a call: who sent the first INVITE is the caller, for the life of the call."""

    CALLER = "caller"
    CALLEE = "callee"

    __hash__ = str.__hash__  # that of enumerations is written in Python, and half of what a call has is by side

    other: "Side"
    "The other party."


Side.CALLER.other, Side.CALLEE.other = Side.CALLEE, Side.CALLER


class CallState(StrEnum):
    """Where a call stands."""

    RINGING = "ringing"
    "No 2xx yet; early media may flow."
    TALKING = "talking"
    HELD = "held"
    LINGERING = "lingering"
    "CANCEL or failure seen; ports are kept for 32 s (calls.md 10)."
    ENDED = "ended"

    __hash__ = str.__hash__


class EndReason(StrEnum):
    """How a call ended."""

    BYE = "bye"
    CANCEL = "cancel"
    FAILURE = "failure"
    ADMIN = "admin"
    UNANSWERED = "unanswered"
    "No answer within ``unanswered`` seconds and no early media."
    SILENT = "silent"
    "No RTP, RTCP or STUN either way on any stream for ``silence`` seconds (calls.md 11)."
    HOLD_EXPIRED = "hold-expired"
    SHUTDOWN = "shutdown"
    "The relay was stopped."
    LOST = "lost"
    "The relay was killed, and none that could have gone on with the call started in time."

    __hash__ = str.__hash__


class Refused(msgspec.Struct, frozen=True, kw_only=True):
    """Packets from one source that were not let into the call."""

    source: Endpoint
    packets: int


class Quality(msgspec.Struct, frozen=True, kw_only=True):
    """How well what a party sends comes to us, as the plane has measured it. What it has not measured is None."""

    packets: int
    "RTP packets measured."
    lost: int
    "How many more its sequence numbers say were sent (RFC 3550 §6.4.1)."
    loss: float
    "Part of what was sent that was lost, 0 to 1."
    jitter: float | None = None
    "Interarrival jitter in seconds (RFC 3550 §6.4.1), at the last packet; None: the clock rate is not known."
    average_jitter: float | None = None
    highest_jitter: float | None = None
    mos: float | None = None
    """Estimated mean opinion score, 1 to 4.5, of the last seconds (relay/quality.py: an upper bound); None: nothing is
    known of the codec, or too little has come."""
    average_mos: float | None = None
    "Over the call's life."
    lowest_mos: float | None = None
    "Of the worst seconds."


class SideReport(msgspec.Struct, frozen=True, kw_only=True):
    """One party's end of one stream."""

    local: Endpoint
    "The relay's port that faces this party, as bound."
    advertised: Endpoint
    "The same as the SDP tells it."
    sdp: Endpoint | None = None
    "Where the party's SDP wants its media."
    learned: Endpoint | None = None
    "Where its packets really come from; None: nothing usable has come."
    rank: int = 0
    "Rank by which it was learned (calls.md 2): 1, 2, 3; 4 = probation; 0 = not learned."
    codec: str = ""
    "Codec that this party sent last; digits, comfort noise and repair of losses beside one do not count."
    packets: int = 0
    "RTP (or udptl) packets received from this party and accepted."
    bytes: int = 0
    "UDP payload bytes of these."
    rtcp_packets: int = 0
    sent: int = 0
    "Packets sent to this party."
    lost: int = 0
    "Packets from this party that its sequence numbers say were lost before they reached us; 0 if not measured."
    quality: Quality | None = None
    "What the plane has measured of its RTP; None: this plane measures nothing, or nothing has come."
    first_packet: float | None = None
    last_packet: float | None = None
    refused: tuple[Refused, ...] = ()
    "The sources refused most, at most 8."
    refused_packets: int = 0
    direction: str = ""
    "Direction attribute of its SDP; empty: it has said nothing of this stream yet."
    ice: bool = False
    "Its SDP has ICE for this stream."
    mux: bool = False
    "Its RTCP comes to and leaves from its RTP port (RFC 5761); else that of RTCP is one above ``local``."
    ssrc: int | None = None
    "SSRC of its last RTP packet."
    sequence: int = 0
    "RTP sequence number of that packet."
    rtcp_sdp: Endpoint | None = None
    "Where its SDP wants RTCP."
    rtcp_learned: Endpoint | None = None
    "Where its RTCP really comes from."
    rtcp_bytes: int = 0
    "UDP payload bytes of ``rtcp_packets``."
    rtcp_last: float | None = None
    "When the last RTCP came."
    rtcp_refused: int = 0
    "Of ``refused_packets``, those that came to the port for RTCP."
    switched: str = ""
    "``block`` or ``silence`` while a SIP server keeps what it sends from the other party (control.Switch)."
    warnings: tuple[str, ...] = ()
    "In words an operator can act on, such as ``nothing received from callee for 12 s``."


class StreamReport(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One stream of a call. A second 2xx (fork) has streams of its own with its own ``leg``."""

    index: int
    "Position of the m= line, from 0."
    kind: str
    transport: str
    caller: SideReport
    callee: SideReport
    leg: str = ""
    "To tag of the callee's leg if the call has more than one; empty otherwise."
    branch: str = ""
    "Via branch of that leg's answer, as PartyReport.branch."
    held: bool = False
    disabled: bool = False
    "A party has set its port to 0."
    plane: str = ""
    "What forwards it: ``kernel``, ``user`` or empty while learning."


class PartyReport(msgspec.Struct, frozen=True, kw_only=True):
    """One party of a call."""

    uri: str = ""
    tag: str = ""
    user_agent: str = ""
    signalling: Endpoint | None = None
    known_by: KnownBy = KnownBy.UNKNOWN
    asymmetric: bool = False
    strict_source: bool = False
    "As control.Wishes.strict_source."
    media_handover: bool = False
    "As control.Wishes.media_handover."
    label: str = ""
    "The SIP server's own name of it (control.Wishes.label)."
    branch: str = ""
    "Via branch of the client transaction by which it answered; of a callee only."


class CallReport(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """All there is to say about a call: what ``mediaproxy calls`` shows, and the core of the call's record."""

    call_id: str
    caller: PartyReport
    callee: PartyReport
    state: CallState
    started: float
    answered: float | None = None
    ended: float | None = None
    reason: EndReason | None = None
    status: int = 0
    "SIP status of a failure; 0 otherwise."
    relay: str = ""
    dialog_id: str = ""
    notify: str = ""
    "As in MediaRequest."
    asked: float = 0.0
    "When the SIP side last said something of it; 0.0: not known."
    ends_at: float | None = None
    "When it ends by itself if nothing more is heard; None: it has ended."
    streams: tuple[StreamReport, ...] = ()
    mos: float | None = None
    "The average MOS of the party that is heard worst; None: none could be estimated."
    lowest_mos: float | None = None
    "The lowest one of all."

    @property
    def duration(self) -> float | None:
        """Seconds from answer to end; None while not ended or if never answered."""
        if self.answered is None or self.ended is None:
            return None
        return self.ended - self.answered


class AddressTotals(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One of a relay's addresses that media comes to."""

    name: str = ""
    address: str = ""
    "As bound."
    port_min: int = 0
    "The first port, of RTP."
    port_max: int = 0
    "The last one, of RTCP."
    ports: int = 0
    "That can be lent, RTP and RTCP, whether they are or not."
    ports_lent: int = 0
    "To calls."


class RelayTotals(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a relay has done since it started, and what it is doing."""

    relay: str = ""
    started: float = 0.0
    plane: str = ""
    "Name of what forwards: ``kernel``, ``native``, ``user``."
    calls: int = 0
    "There are now, in any state but ended."
    talking: int = 0
    "Of these, the answered ones, on hold or not, that do not linger."
    lingering: int = 0
    "Of these, those that are over unless an answer comes that crossed the end."
    streams: int = 0
    "Relayed in calls that do not linger."
    kinds: dict[str, int] = {}
    "The same by media type."
    addresses: tuple[str, ...] = ()
    "That its media comes to, as SDP shows them."
    offloaded: int = 0
    "Streams that no Python carries."
    ports: int = 0
    "That can be lent, RTP and RTCP, whether they are or not."
    ports_lent: int = 0
    "To calls."
    by_address: tuple[AddressTotals, ...] = ()
    packets: int = 0
    "Received from parties and forwarded, RTP, RTCP and others, all calls that ever were."
    bytes: int = 0
    "UDP payload bytes of these."
    refused_packets: int = 0
    "That were not forwarded because of who sent them, or what they are."
    started_calls: int = 0
    "That began in this process; a restart goes on with older ones."
    ended_calls: dict[str, int] = {}
    "By EndReason."
    seconds: float = 0.0
    "Talking time of all ended calls."
    squares: float = 0.0
    "Sum of the squares of their talking times, in seconds squared."
    mos: float = 0.0
    "Sum of the average MOS of what parties of ended calls have sent (Quality.average_mos), as far as measured."
    mos_squares: float = 0.0
    mos_samples: int = 0
    "How many these are."
    one_way_calls: int = 0
    "Ended calls that were answered and in which one side never sent RTP (or udptl)."
    silent_calls: int = 0
    "Ended calls that were answered and in which nobody did."


class CallEvent(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """What all events have."""

    at: float
    call_id: str


class CallStarted(CallEvent, frozen=True, kw_only=True):
    """The first SDP of a call got its ports."""

    caller: PartyReport
    callee: PartyReport


class CallAnswered(CallEvent, frozen=True, kw_only=True):
    """A 2xx locked the callee's leg."""

    callee_tag: str


class StreamChanged(CallEvent, frozen=True, kw_only=True):
    """A new offer or answer changed what is expected of a stream: address, hold, direction."""

    stream: int
    side: Side
    sdp: Endpoint | None
    held: bool


class PeerLearned(CallEvent, frozen=True, kw_only=True):
    """A party's first qualifying packet came, or a better one replaced it, or its NAT moved it."""

    stream: int
    side: Side
    source: Endpoint
    rank: int
    rtcp: bool = False
    before: Endpoint | None = None
    "The source it replaces; None for the first."


class SourceRefused(CallEvent, frozen=True, kw_only=True):
    """A source that may not enter sent its first packet; later ones are only counted."""

    stream: int
    side: Side
    source: Endpoint
    why: str


class OneWay(CallEvent, frozen=True, kw_only=True):
    """One side is heard, nothing has come from the other one for 10 s (calls.md 11). Never ends a call."""

    stream: int
    silent: Side
    seconds: float


class CallRevived(CallEvent, frozen=True, kw_only=True):
    """A 2xx or ACK crossed a CANCEL: the lingering call lives on (calls.md 10)."""


class CallEnded(CallEvent, frozen=True, kw_only=True):
    """The call is over; exactly one per CallStarted."""

    report: CallReport


def reports_of(reply: MediaReply) -> tuple[CallReport, ...]:
    """The reports that a reply brings. ControlError if a relay sent something else."""
    return tuple([_last[1] if one is _last[0] else _decoded(one, _report_decoder) for one in reply.reports])


def totals_of(reply: MediaReply) -> tuple[RelayTotals, ...]:
    """The totals that a reply brings. ControlError if a relay sent something else."""
    return tuple(_decoded(raw, _totals_decoder) for raw in reply.totals)


_encoder = msgspec.json.Encoder()
_report_decoder = msgspec.json.Decoder(CallReport)
_totals_decoder = msgspec.json.Decoder(RelayTotals)
_T = TypeVar("_T")
_last: tuple[msgspec.Raw, Any] = (msgspec.Raw(), None)
"What was written last: it is asked for twice, and who reads it within this process is given it as it was."


def raw(value: CallReport | RelayTotals) -> msgspec.Raw:
    """For MediaReply."""
    global _last
    if value is not _last[1]:
        _last = msgspec.Raw(_encoder.encode(value)), value
    return _last[0]


def _decoded(raw: msgspec.Raw, decoder: msgspec.json.Decoder[_T]) -> _T:
    try:
        return decoder.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ControlError(f"not a report of this protocol: {error}") from error


Event: TypeAlias = (
    CallStarted | CallAnswered | StreamChanged | PeerLearned | SourceRefused | OneWay | CallRevived | CallEnded
)
