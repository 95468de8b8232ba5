"""Waist 1: what the signalling arm asks of the media arm, and the answer, with their JSON codec.

A SIP door (the built-in edge, Kamailio, a wire dialect) turns a message into one of three questions; a relay answers
each with one MediaReply. The values know nothing of SIP syntax. Text of peers is Latin-1 (one character per byte), so
any byte a phone sends survives the codec. Nothing here may do IO or remember anything.
"""

from enum import StrEnum
from typing import TypeAlias

import msgspec

from mediaproxy.endpoint import Endpoint


class ControlError(ValueError):
    """A control line that is no question or reply of this protocol; the text says what was expected."""


class Direction(StrEnum):
    """The direction attribute of a stream, seen from the sender of the SDP (RFC 8866 §6.7)."""

    SENDRECV = "sendrecv"
    SENDONLY = "sendonly"
    RECVONLY = "recvonly"
    INACTIVE = "inactive"


class KnownBy(StrEnum):
    """How the phone's address came to be known (calls.md 1), strongest first."""

    EXPLICIT = "explicit"
    "Told by the SIP server: 2.x signaling_ip, NG received-from, 1.x client-ip."
    RECEIVED = "received"
    "The Via ``received`` set by a configured trusted proxy, in a packet from that proxy."
    SOURCE = "source"
    "The source of the SIP packet."
    UNKNOWN = "unknown"
    "Only a trusted proxy's address is known and the SDP is private: nothing qualifies by address."


class EndCause(StrEnum):
    """Why the SIP side says that media is over."""

    BYE = "bye"
    CANCEL = "cancel"
    FAILURE = "failure"
    "A final response ≥ 300 went upstream: the whole call attempt failed."
    BRANCH = "branch"
    "One branch of a fork failed; the others live on."
    REFUSED = "refused"
    "A re-INVITE or UPDATE was refused: what its offer changed is undone (RFC 3261 §14.1)."
    ADMIN = "admin"
    "An operator ended the call."
    DELETE = "delete"
    """A door whose protocol does not say why (NG delete, rtpproxy D, 1.x delete, 2.x remove). Tags that are given must
    match. Answered: it counts as a BYE; before, as a CANCEL, after which a 2xx may still revive the call."""


class Switch(StrEnum):
    """What a SIP server may switch for a party's media in a call (NG)."""

    BLOCK = "block"
    "Nothing of that party is forwarded."
    UNBLOCK = "unblock"
    SILENCE = "silence"
    "RTP of that party is forwarded with its audio replaced by silence, so that nothing times out."
    UNSILENCE = "unsilence"


DISCARD_PORT = 9
"RFC 8840 §4.1.1: the port, at 0.0.0.0, of an offer whose ICE candidates are to follow."


class PayloadType(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One RTP payload type of an m= line (RFC 3551 table for the static ones, a=rtpmap otherwise)."""

    number: int
    "0 to 127."
    codec: str = ""
    "Encoding name, such as ``PCMU``; empty if unknown."
    clock_rate: int = 0
    "Hz; 0 if unknown."


class Stream(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One m-section of an SDP, as the relay needs it."""

    kind: str
    "Media type of the m= line: audio, video, image, application…"
    transport: str
    "Transport protocol of the m= line, verbatim: ``RTP/AVP``, ``udptl``, ``UDP/TLS/RTP/SAVPF``…"
    endpoint: Endpoint | None = None
    """Where the sender says it wants media: c= address and m= port; ``0.0.0.0:PORT`` for an old-style hold.
    None: it gets no ports, because the port is 0 (rejected, disabled), no relay carries the transport (TCP, MSRP), or
    c= has a host name and the phone's address, which is meant by it, is unknown."""
    rtcp: Endpoint | None = None
    "Where it says it wants RTCP (a=rtcp, else port + 1); None without a port, for udptl, or with rtcp_mux only."
    rtcp_mux: bool = False
    "a=rtcp-mux is present (RFC 5761)."
    direction: Direction = Direction.SENDRECV
    "Media level, else session level, else sendrecv (RFC 8866 §6.7)."
    payload_types: tuple[PayloadType, ...] = ()
    "Of RTP only, in the order of the m= line, each once."
    ice: bool = False
    "The stream has ICE (a=ice-ufrag or a=candidate, media or session level): STUN passes."
    dtls: bool = False
    "The stream has a=fingerprint (media or session level): DTLS passes."
    sdes: bool = False
    "The stream has a=crypto (RFC 4568): SRTP whose keys stand in the SDP. To the relay it is like any RTP."
    directed: bool = True
    """False: the door's protocol (MediaProxy 1.x) does not tell ``direction``, so that a silence that follows a new
    offer may be a hold."""
    told: bool = True
    """False: the door's protocol (rtpproxy) says where, perhaps which payload types, and no more. The address may be
    that of the SDP or that of the signalling, so who has another one may pass probation. ICE checks and DTLS pass;
    without payload types any other datagram latches. A silence that follows a new offer may be a hold."""

    @property
    def rtp(self) -> bool:
        """Whether only RTP may latch on this stream; udptl and other UDP media latch by any datagram (calls.md 3)."""
        return "RTP/" in self.transport or "RTP/" in self.transport.upper()

    @property
    def held(self) -> bool:
        """Whether the sender put the stream on hold: sendonly, inactive, or 0.0.0.0 (calls.md 11). 0.0.0.0 with port 9
        is no hold where ICE is: its candidates are to follow (RFC 8840 §4.1.1)."""
        place = self.endpoint
        if place is not None and place.address in ("0.0.0.0", "::") and not (self.ice and place.port == DISCARD_PORT):
            return True
        return self.direction in (Direction.SENDONLY, Direction.INACTIVE)


class Party(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One side of a dialog as the message names it."""

    tag: str = ""
    "From or To tag; empty while the party has none."
    uri: str = ""
    "URI of From or To without parameters, such as ``sip:alice@example.com``."
    domain: str = ""
    "Host of that URI."
    local: bool | None = None
    "Whether the domain is one of ours; None if the door does not know (calls.md 20)."


class PhoneAddress(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The sender's signalling address and how it is known (calls.md 1)."""

    endpoint: Endpoint | None = None
    "None only with KnownBy.UNKNOWN. Port 0 if only the address is known."
    known_by: KnownBy = KnownBy.SOURCE


class Wishes(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a SIP server asks for beyond the rules of a call, about one SDP. Each default changes nothing."""

    facing: str = ""
    "Name of the relay address (RelayAddress.name) that the sender's media comes to; empty: the first one."
    towards: str = ""
    "The same for the receiver."
    learn: bool = True
    "False: the sender's SDP is right (NG ``endpoint-learning=off``): it is sent to, and its packets do not move it."
    strict_source: bool = False
    "After learning only that very source is heard, a new port of the same phone is not (rule 6 is off)."
    media_handover: bool = False
    "A new source that has a rank is followed at any time, as rule 6 follows a new port."
    keep_ports: bool = False
    "The ports stay whatever the SDP changes (NG ``port latching``)."
    new_ports: bool = False
    "An offer: the streams get other ports than they have, towards both parties (rtpproxy ``n``)."
    tos: int | None = None
    "IP TOS or traffic class of what is sent in this call, 0 to 255; None: as the relay is set."
    mux: tuple[bool | None, ...] = ()
    """Per stream, whether the SDP that goes on says a=rtcp-mux, where the door changes that; None or missing: as the
    sender's. A party's RTCP comes to its RTP port if both its own SDP and the one it was told say so."""
    lite: tuple[bool, ...] = ()
    """Per stream, whether the SDP that goes on shows the relay as ICE lite agent (RFC 8445 §2.5): the relay then gives
    credentials (MediaPort.ufrag, password) and answers the receiver's connectivity checks."""
    label: str = ""
    "The SIP server's own name of the sender (NG ``label``)."


class MediaRequest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="media"):
    """One SDP body: "this party wants its media there; which ports do I tell the other one?"

    Idempotent: a repeated question, same (sender tag, receiver tag, cseq, sdp_hash), has the same answer.
    """

    call_id: str
    sender: Party
    "Who wrote the SDP: From in a request, To in a reply."
    receiver: Party
    "Who will read it; without a tag in a dialog-forming request."
    cseq: int
    """Number of the CSeq, 0 to 2**31 - 1; that of a response is its request's. -1: the door's protocol has none; the
    relay then numbers questions in the order in which they come, SDP with a status answers, and must find its call."""
    sdp_hash: str
    "Of the SDP as it was received, before any edit."
    method: str = "INVITE"
    """Of the request, or of the one that the response answers: only a 2xx to INVITE answers a call, only an ACK
    confirms one; UPDATE and PRACK may bring SDP long before. Empty: the door does not know. A 2xx then answers the call
    unless its CSeq is that of a request within the dialog."""
    status: int = 0
    "0: the SDP came in a request (INVITE, ACK, UPDATE, PRACK…); else the status of the response, 101 to 299."
    branch: str = ""
    """Of a response, the Via branch of the client transaction that it answers: tells forks apart before they have tags.
    Of an INVITE, the Via branch that it came with: a server before us may have forked it, so that it comes twice."""
    phone: PhoneAddress = PhoneAddress(known_by=KnownBy.UNKNOWN)
    contact: str = ""
    "The Contact URI as sent, before repair: a change of it allows a new source address (calls.md 6)."
    user_agent: str = ""
    "User-Agent of the sender, else its Server header; empty if it names neither."
    asymmetric: bool = False
    "The sender is RTP-asymmetric: sends from one port, listens on another (calls.md 8)."
    streams: tuple[Stream, ...] = ()
    "One per m= line, in order, those without ports too."
    receiver_version: int = 0
    """IP version wanted for the side that reads the answer: 4, 6, or 0 = as the sender's SDP (or as learned before),
    as if the relay has no address of the version wanted."""
    dialog_id: str = ""
    "The SIP server's own name of the dialog (2.x dialog_id), by which it can be told to end it; empty if it has none."
    relay_wish: str = ""
    "Relay that the door asks for (2.x media_relay); empty = the dispatcher chooses."
    notify: str = ""
    """Whom the SIP server wants to be told if the call ends by itself, in words of the door's own (rtpproxy's timeout
    socket and tag, NG's xmlrpc-callback); it comes back in CallReport.notify."""
    wishes: Wishes | None = None
    "None: the rules of a call, and nothing else."
    ice: tuple[tuple[str, str], ...] = ()
    "Per stream ufrag and password of the sender's ICE, where ``wishes.lite`` was promised to it; empty texts: none."
    part: int | None = None
    """The door's protocol (rtpproxy) tells an SDP stream by stream: ``streams`` is the one of this index, counted from
    0, the others stay as they are. Without endpoint it is told a port all the same, which it has or nobody uses."""
    weak: bool = False
    """The call lives for this party's sake until it lets go (EndRequest.weak), and for nobody else's unless a request
    that is not weak comes (rtpproxy)."""
    memo: str = ""
    """What the door wants to know of this SDP when the other party's comes, in words of its own; it comes back in
    MediaReply.memo. Empty: what was noted before stays."""


class ConfirmRequest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="confirm"):
    """A 2xx to INVITE without SDP, or an ACK without SDP: the call stands (locks the leg, revives a lingering call)."""

    call_id: str
    sender: Party
    receiver: Party
    cseq: int
    status: int = 0
    "0: ACK; 200 to 299: the response."
    branch: str = ""


class EndRequest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="end"):
    """BYE, CANCEL, a failure or an operator: media of a leg or of the call is over (calls.md 9, 10), or what an offer
    wanted of it is."""

    call_id: str
    sender: Party
    receiver: Party
    cause: EndCause
    status: int = 0
    "Status of the final response with FAILURE, BRANCH and REFUSED."
    branch: str = ""
    """With BRANCH, the Via branch of the branch that failed. With CANCEL and FAILURE, that of the INVITE as it came;
    empty: the door does not know, the whole call is meant."""
    cseq: int = 0
    "Of the request that was refused, with REFUSED; ``sender`` is who refused it."
    delay: float | None = None
    "With DELETE: seconds until it counts (NG ``delete delay``), in which a 2xx or an offer revives; None: as set."
    report: bool = False
    "The reply brings the report of the call as it is at its end (MediaReply.reports)."
    whole: bool = False
    "With DELETE: one of the tags must be the caller's, no other one matters, and all legs end (rtpproxy)."
    weak: bool = False
    "With DELETE: the receiver lets go (MediaRequest.weak). Without, whoever does not weakly hold it."


class QueryRequest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="query"):
    """How do calls stand? The reply has ``reports``. Changes nothing. Status 481: there is no such call."""

    call_id: str = ""
    "Empty: all calls, at most ``limit``."
    limit: int = 1000


class ListRequest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="list"):
    """Which calls are there? The reply has ``calls``. Changes nothing."""

    limit: int = 32


class TotalsRequest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="totals"):
    """What has the relay done since it started? The reply has ``totals``, one per relay. Changes nothing."""


class SwitchRequest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="switch"):
    """Block or silence what a party sends, or end that. Status 481: there is no such call; 404: no such party in it."""

    call_id: str
    switch: Switch
    tag: str = ""
    "Of the party whose media is meant; empty, without label and address: the whole call."
    label: str = ""
    address: str = ""
    "IP address in that party's SDP (NG ``address``)."
    everybody: bool = False
    "With the whole call no party by itself stays blocked or silenced either (NG ``all``)."


class MediaPort(msgspec.Struct, frozen=True, kw_only=True):
    """The advertised relay endpoints for one stream, to be written into the SDP."""

    rtp: Endpoint
    rtcp: Endpoint | None = None
    "None: the stream has no RTCP (udptl) ."
    ufrag: str = ""
    "With Wishes.lite: the relay's ICE credentials towards the receiver; the same for all offers of a call."
    password: str = ""


class MediaReply(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="reply"):
    """The answer to any question. ``error`` empty: done."""

    ports: tuple[MediaPort | None, ...] = ()
    "One per stream of the request, in order; None: leave that stream as it is."
    error: str = ""
    "Why not, in words for a log line: no ports left, no relay, unknown call."
    status: int = 0
    "SIP status that suits the error: 503 no relay, 480 no ports, 481 unknown call; 0 without error."
    relay: str = ""
    "Name of the relay that answered."
    reports: tuple[msgspec.Raw, ...] = ()
    "JSON of events.CallReport (``events.reports_of``): of QueryRequest, and of EndRequest with ``report``."
    calls: tuple[str, ...] = ()
    "Call-IDs, of ListRequest."
    totals: tuple[msgspec.Raw, ...] = ()
    "JSON of events.RelayTotals (``events.totals_of``): of TotalsRequest."
    absent: tuple[str, ...] = ()
    "Relays that are down, by their first address, or by name if none is known: of TotalsRequest."
    memo: str = ""
    "Of MediaRequest: what was noted with the receiver's last SDP (MediaRequest.memo); empty: nothing, or no SDP yet."
    before: str = ""
    "The same with the sender's SDP before this one."
    address: str = ""
    """Of MediaRequest, if none of its streams has a port: where the receiver's media came to before, as SDP shows it;
    empty: the call is none."""


Question: TypeAlias = MediaRequest | ConfirmRequest | EndRequest
"Of SIP messages: idempotent, and what a call lives by."
Inquiry: TypeAlias = QueryRequest | ListRequest | TotalsRequest | SwitchRequest
"Of whoever looks after calls."
Control: TypeAlias = Question | Inquiry | MediaReply

_encoder = msgspec.json.Encoder()
_decoder: msgspec.json.Decoder[Control] = msgspec.json.Decoder(Control)


def encode(value: Control) -> bytes:
    """One JSON line, newline included."""
    return _encoder.encode(value) + b"\n"


def decode(line: bytes) -> Control:
    """The value of one JSON line. ControlError if it is anything else."""
    try:
        return _decoder.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ControlError(f"not a control line: {error}") from error
