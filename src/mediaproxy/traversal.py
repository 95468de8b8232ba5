"""The signalling arm's two pure calls, between which a shell asks the media arm one question.

A message as it arrived, how it arrived and the policy come in; ``plan`` says what to ask, ``Plan.complete`` puts the
answer into the message to send. Nothing is remembered between messages.
Peers' bytes raise nothing: what is wrong with them stands in ``Plan.error``. ``plan`` must see the message before any
repair, since it tells the relay the Contact as the phone sent it; ``complete`` takes the message to be sent, so the two
need not be the same.
"""

from collections.abc import Iterator, Sequence
from typing import TypeVar, overload

import msgspec

from mediaproxy.control import (
    ConfirmRequest,
    EndCause,
    EndRequest,
    KnownBy,
    MediaReply,
    MediaRequest,
    Party,
    PhoneAddress,
    Question,
    Stream,
)
from mediaproxy.endpoint import Endpoint, Scope, address_text, scope
from mediaproxy.nat import Arrival, contacts
from mediaproxy.policy import Policy, domain_of
from mediaproxy.sdp import IcePolicy, Sdp, SdpError, SdpPart, find_sdp, relayed
from mediaproxy.sip.grammar import SipError, number
from mediaproxy.sip.header import NameAddr, Via
from mediaproxy.sip.message import Message, Request, Response

_M = TypeVar("_M", bound=Message)

_MEDIA_METHODS = frozenset(("INVITE", "ACK", "UPDATE", "PRACK"))
"Requests that may carry an offer or an answer (RFC 3264, 3311, 3262)."
_REFUSABLE = _MEDIA_METHODS - {"ACK"}
"Those of them that have responses."
_MOST_STREAMS = 1024
"No relay carries more (relay.max_streams), so more are not read: 4 000 fit into 64 KiB, and take 70 ms."


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What a shell knows about a message that does not stand in it. The defaults suit a shell that knows nothing."""

    in_dialog: bool | None = None
    """Responses: whether the INVITE had a To tag. A failed re-INVITE ends nothing, its offer is taken back (REFUSED);
    nothing follows of a failure of which the shell does not know (None)."""
    final: bool = False
    """Responses ≥ 300 to an initial INVITE: this one goes upstream, the whole attempt failed (FAILURE). False: it is
    what one branch answered (BRANCH)."""
    branch: str = ""
    """Via branch of the client transaction that a response answers; empty: that of its top Via, which is the same. With
    ``final``: the Via branch with which the INVITE came; empty: not known."""
    address: Endpoint | None = None
    "The sender's signalling address if the SIP server tells it (KnownBy.EXPLICIT); port 0 if unknown."
    contact: str | None = None
    "The Contact URI as the phone sent it, if the message was repaired before; None: as in the message."
    receiver_version: int = 0
    "IP version wanted towards the reader of the SDP: 4, 6, or 0 = as the sender's (see MediaRequest)."
    dialog_id: str = ""
    "As in MediaRequest."
    relay_wish: str = ""
    "As in MediaRequest."


_NO_FACTS = Facts()


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """Why media cannot be relayed, and the SIP status that suits it."""

    status: int
    reason: str


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What to ask about one message, and what to do with the answer."""

    message: Message
    "The message as planned."
    request: Question | None = None
    "The question for the media arm; None: there is nothing to ask, ``complete(None)`` at once."
    error: str = ""
    "What is wrong with the message, so that its media cannot be relayed; empty: nothing."
    status: int = 0
    "The SIP status that suits the error; 0 without one."
    ice: IcePolicy = IcePolicy.KEEP
    sdp: Sdp | None = None
    "The message's SDP if it has streams and the message may bring media."
    _part: SdpPart | None = None

    @property
    def streams(self) -> tuple[Stream, ...]:
        """The streams of the message's SDP, as the media arm is told of them; empty without SDP."""
        if isinstance(self.request, MediaRequest):
            return self.request.streams
        return self.sdp.streams if self.sdp is not None else ()

    def failure(self, reply: MediaReply | None) -> Failure | None:
        """Why the message's SDP cannot be relayed, given the answer (None: none came in time); None: it can, or it has
        none. A shell answers an INVITE with that status, and sends a response on as it is."""
        if self.error:
            return Failure(status=self.status, reason=self.error)
        if not isinstance(self.request, MediaRequest):
            return None
        if reply is None:
            return Failure(status=503, reason="no answer from the media relay")
        if reply.error:
            return Failure(status=reply.status or 503, reason=reply.error)
        if len(reply.ports) != len(self.streams):
            reason = f"the media relay answered {len(reply.ports)} ports for {len(self.streams)} streams"
            return Failure(status=503, reason=reason)
        return None

    @overload
    def complete(self, reply: MediaReply | None) -> Message: ...
    @overload
    def complete(self, reply: MediaReply | None, message: _M) -> _M: ...
    def complete(self, reply: MediaReply | None, message: Message | None = None) -> Message:
        """The message to send: ``message``, which is the planned one with whatever edits in its headers, or the planned
        one itself, with the relay's ports in its SDP. Unchanged if ``failure(reply)`` says why."""
        message = self.message if message is None else message
        if self.sdp is None or self._part is None or reply is None or self.failure(reply) or not any(reply.ports):
            return message
        body = relayed(self._part, self.sdp, reply.ports, self.ice)
        if body is None:
            return message
        written = message.with_body(body)
        # Over UDP none is needed (RFC 3261 §18.3), and whoever sends over a stream adds it (Message.delimited).
        return written if message.count("content-length") else written.remove("content-length")


def plan(message: Message, arrival: Arrival, policy: Policy, facts: Facts = _NO_FACTS) -> Plan:
    """What to ask the media arm about a message, given as it arrived, before any repair.

    - INVITE, ACK, UPDATE, PRACK with SDP, 101 to 299 to INVITE and 2xx to UPDATE and PRACK with SDP: MediaRequest.
    - 2xx to INVITE without SDP, ACK without SDP: ConfirmRequest. An ACK to a final response ≥ 300 is hop by hop and
      belongs to its INVITE's transaction: a shell must not plan it.
    - BYE, CANCEL, ≥ 300 to an initial INVITE: EndRequest (see Facts).
    - ≥ 300 to a re-INVITE, UPDATE or PRACK: EndRequest, which takes back what their SDP said. 401 and 407 as well: the
      request with credentials has a CSeq of its own.
    - Everything else: no question.
    """
    try:
        return _plan(message, arrival, policy, facts)
    except SipError as error:
        return Plan(message=message, error=str(error), status=error.status, ice=policy.ice)


def _plan(message: Message, arrival: Arrival, policy: Policy, facts: Facts) -> Plan:
    if isinstance(message, Response):
        if message.cseq.method in _REFUSABLE and message.status >= 300:
            return Plan(message=message, request=_failed(message, policy, facts))
        confirms = message.cseq.method == "INVITE" and message.status >= 200
    else:
        assert isinstance(message, Request)
        if message.method in ("BYE", "CANCEL"):
            cause = EndCause.BYE if message.method == "BYE" else EndCause.CANCEL
            request = end_request(message, cause, policy, branch=_branch(message, facts))
            return Plan(message=message, request=request)
        confirms = message.method == "ACK"
    if not negotiates(message):
        return Plan(message=message)
    part = sdp_part(message)
    status = 400
    try:
        if part is not None and len(part.body) > 3 * _MOST_STREAMS and Sdp.count(part.sdp) > _MOST_STREAMS:
            status = 488
            raise SdpError(f"more than {_MOST_STREAMS} streams")
        sdp = _read(part.sdp) if part is not None else None
    except SdpError as error:
        return Plan(
            message=message,
            request=_confirm(message, policy, facts) if confirms else None,
            error=f"SDP: {error}",
            status=status,
        )
    if sdp is not None and sdp.streams:
        media = _media(message, sdp, arrival, policy, facts)
        return Plan(message=message, request=media, ice=policy.ice, sdp=sdp, _part=part)
    return Plan(message=message, request=_confirm(message, policy, facts) if confirms else None)


def _read(body: bytes) -> Sdp:
    """An SDP. SdpError if it cannot be read, or has no address for a stream that wants media (RFC 8866 §5.7)."""
    sdp = Sdp.parse(body)
    if sdp.session.connection is None:
        for index, section in enumerate(sdp.sections, 1):
            if section.port and section.carried and section.connection is None:
                raise SdpError(f"stream {index}: there is no c= line for it")
    return sdp


def negotiates(message: Message) -> bool:
    """Whether an SDP in the message is an offer or an answer (RFC 3261 §13.2.1, 3311, 3262): INVITE, ACK, UPDATE and
    PRACK, 101 to 299 to INVITE, 2xx to UPDATE and PRACK. SipError if a response has no readable CSeq."""
    if not isinstance(message, Response):
        return isinstance(message, Request) and message.method in _MEDIA_METHODS
    method = message.cseq.method
    first = 101 if method == "INVITE" else 200
    return method in ("INVITE", "UPDATE", "PRACK") and first <= message.status < 300


def sdp_part(message: Message) -> SdpPart | None:
    """Where in the message's body the SDP is; None if it has none that can be read."""
    body = message.body
    if not body:
        return None
    return find_sdp(body, message.header("content-type"), message.header("content-encoding") or "")


def end_request(message: Message, cause: EndCause, policy: Policy, *, status: int = 0, branch: str = "") -> EndRequest:
    """The question that ends the media of the call which a message belongs to, or with REFUSED takes back what its
    request's offer said. SipError if From, To or CSeq is broken."""
    sender, receiver = _parties(message, policy)
    return EndRequest(
        call_id=message.call_id,
        sender=sender,
        receiver=receiver,
        cause=cause,
        status=status,
        branch=branch,
        cseq=message.cseq.number if cause is EndCause.REFUSED else 0,
    )


def _failed(message: Response, policy: Policy, facts: Facts) -> EndRequest | None:
    initial = message.cseq.method == "INVITE" and not facts.in_dialog
    if not initial:
        return end_request(message, EndCause.REFUSED, policy, status=message.status)
    if facts.in_dialog is None:
        return None
    if facts.final:
        return end_request(message, EndCause.FAILURE, policy, status=message.status, branch=facts.branch)
    return end_request(message, EndCause.BRANCH, policy, status=message.status, branch=_branch(message, facts))


def _confirm(message: Message, policy: Policy, facts: Facts) -> ConfirmRequest:
    sender, receiver = _parties(message, policy)
    return ConfirmRequest(
        call_id=message.call_id,
        sender=sender,
        receiver=receiver,
        cseq=message.cseq.number,
        status=_status(message),
        branch=_branch(message, facts),
    )


def _media(message: Message, sdp: Sdp, arrival: Arrival, policy: Policy, facts: Facts) -> MediaRequest:
    sender, receiver = _parties(message, policy)
    phone = phone_address(message, arrival, policy, sdp.streams, facts.address)
    place = phone.endpoint
    return MediaRequest(
        call_id=message.call_id,
        sender=sender,
        receiver=receiver,
        cseq=message.cseq.number,
        sdp_hash=sdp.hash,
        method=message.method if isinstance(message, Request) else message.cseq.method,
        status=_status(message),
        branch=_branch(message, facts),
        phone=phone,
        contact=contact_uri(message) if facts.contact is None else facts.contact,
        user_agent=message.user_agent,
        asymmetric=policy.rtp_asymmetric.matches(message.user_agent),
        # A phone that tells a name instead of an address means itself.
        streams=sdp.streams if place is None or policy.trusts(place.address) else sdp.streams_at(place.address),
        receiver_version=facts.receiver_version,
        dialog_id=facts.dialog_id,
        relay_wish=facts.relay_wish,
    )


def _status(message: Message) -> int:
    return message.status if isinstance(message, Response) else 0


def _branch(message: Message, facts: Facts) -> str:
    """Of a response that of our own Via on top of it; of an INVITE and its CANCEL that of the hop before us."""
    if isinstance(message, Request) and message.method not in ("INVITE", "CANCEL"):
        return ""
    return facts.branch or message.via.branch or ""


def _parties(message: Message, policy: Policy) -> tuple[Party, Party]:
    """Sender and receiver of a message: From and To of a request, To and From of a response."""
    from_, to = _party(message.from_, policy), _party(message.to, policy)
    return (from_, to) if message.is_request else (to, from_)


def _party(address: NameAddr, policy: Policy) -> Party:
    uri = address.uri
    text = uri.text[: uri.params_at] if uri.host else uri.text.partition(";")[0]
    domain = domain_of(uri.host)
    return Party(tag=address.tag or "", uri=text, domain=domain, local=policy.is_local(domain) if domain else None)


def contact_uri(message: Message) -> str:
    """The first Contact URI as written; empty if there is none that can be read, or only ``*``."""
    return next((contact.uri.text for _, contact in contacts(message) if not contact.star), "")


def phone_address(
    message: Message,
    arrival: Arrival,
    policy: Policy,
    streams: Sequence[Stream] = (),
    explicit: Endpoint | None = None,
) -> PhoneAddress:
    """The sender's signalling address and how it is known (calls.md 1)."""
    if explicit is not None:
        return PhoneAddress(endpoint=explicit, known_by=KnownBy.EXPLICIT)
    address = address_text(arrival.source.address) or arrival.source.address  # ::ffff:192.0.2.1 is 192.0.2.1
    source = Endpoint(address, arrival.source.port)
    if not policy.trusts(source.address):
        return PhoneAddress(endpoint=source, known_by=KnownBy.SOURCE)
    for hop in _hops_before(message):
        if not policy.trusts(hop.address):
            return PhoneAddress(endpoint=hop, known_by=KnownBy.RECEIVED)
    # Only proxies are known. A public SDP still names the phone; a private one leaves nothing that qualifies.
    wanted = [stream.endpoint for stream in streams if stream.endpoint is not None]
    if wanted and all(scope(endpoint.address) is Scope.PUBLIC for endpoint in wanted):
        return PhoneAddress(endpoint=source, known_by=KnownBy.SOURCE)
    return PhoneAddress(endpoint=None, known_by=KnownBy.UNKNOWN)


def _hops_before(message: Message) -> Iterator[Endpoint]:
    """Where the hops before the last one got the request from, nearest first: each Via below the top one, as the
    server above it completed it. A response does not tell: its Vias are the way of the request."""
    if message.is_request:
        for via in message.vias[1:]:
            hop = _certified(via)
            if hop is None:
                return
            yield hop


def _certified(via: Via) -> Endpoint | None:
    """The source that the next hop vouches for. RFC 3261 §18.2.1: without ``received`` it is the sent-by address. The
    port is known by ``rport`` only; 0 otherwise."""
    address = address_text(via.host if via.received is None else via.received)
    return None if address is None else Endpoint(address, number(via.rport or "", 65535) or 0)
