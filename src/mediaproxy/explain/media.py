"""What the page says about a message's media: whose it is, what each stream wants, what the media arm is asked.

The plan of a message and what use_media_proxy said come in; lines for people go out, peers' text in them as it came.
"""

from collections.abc import Iterator

from mediaproxy.control import KnownBy, MediaRequest, PhoneAddress, Stream, encode
from mediaproxy.endpoint import Endpoint, Scope, scope
from mediaproxy.sdp import IcePolicy
from mediaproxy.traversal import Failure, Plan

_UNSPECIFIED = ("0.0.0.0", "::")
_ICE = {
    IcePolicy.KEEP: "its lines stay",
    IcePolicy.REMOVE: "its lines are removed, so that media goes by the relay",
    IcePolicy.LOW_PRIORITY: "the relay becomes a candidate of low priority",
    IcePolicy.HIGH_PRIORITY: "the relay becomes a candidate of high priority",
}


def phone_lines(phone: PhoneAddress) -> Iterator[str]:
    """Where the phone is, as far as is known, and how."""
    ways = {
        KnownBy.EXPLICIT: "told by the SIP server",
        KnownBy.RECEIVED: "by the Via of a trusted proxy",
        KnownBy.SOURCE: "the source of the packet",
        KnownBy.UNKNOWN: "only a trusted proxy's address is known and the SDP is private",
    }
    yield f"{_endpoint(phone.endpoint)}: {ways[phone.known_by]}"


def _endpoint(endpoint: Endpoint | None) -> str:
    if endpoint is None:
        return "unknown"
    return str(endpoint) if endpoint.port else f"{endpoint.address}, port unknown"


def stream_lines(stream: Stream, phone: PhoneAddress | None, planned: Plan) -> Iterator[str]:
    """What a stream wants and has, and who may send to it."""
    if stream.endpoint is None:
        yield "gets no relay ports and stays as it is"
    else:
        yield f"wants media at {stream.endpoint} ({scope(stream.endpoint.address)})"
        yield f"wants RTCP at {stream.rtcp}" if stream.rtcp else "has no RTCP port"
    if stream.rtcp_mux:
        yield "offers RTCP on the RTP port (rtcp-mux)"
    yield f"direction {stream.direction}{', on hold' if stream.held else ''}"
    if stream.payload_types:
        types = (f"{t.number} {t.codec or 'without a name'}/{t.clock_rate or '?'}" for t in stream.payload_types)
        yield f"payload types {', '.join(types)}"
    if stream.ice:
        yield f"has ICE: STUN passes, {_ICE[planned.ice]}"
    if stream.dtls:
        yield "has a DTLS fingerprint: DTLS passes, the relay cannot hear what is said"
    if stream.sdes:
        yield "has SRTP keys in the SDP: they pass, and so does SRTP"
    if stream.endpoint is not None and phone is not None and isinstance(planned.request, MediaRequest):
        yield from _ranks(stream, stream.endpoint, phone, planned.request.asymmetric)


def _ranks(stream: Stream, wanted: Endpoint, phone: PhoneAddress, asymmetric: bool) -> Iterator[str]:
    """Who may latch, and where media goes before anybody has (calls.md 2, 5, 8)."""
    named = wanted.address not in _UNSPECIFIED
    public = scope(wanted.address) is Scope.PUBLIC
    signalling = phone.endpoint
    yield (
        f"rank 1: {wanted}" if named else f"rank 1: nobody, the SDP names no address{' (hold)' if stream.held else ''}"
    )
    yield f"rank 2: {wanted.address}, any port" if public else f"rank 2: nobody, {wanted.address} is not public"
    yield (
        "rank 3: nobody, the phone's address is unknown"
        if signalling is None
        else (f"rank 3: {signalling.address}, any port")
    )
    target = wanted if public else None if signalling is None else signalling.with_port(wanted.port)
    when = "always, it is RTP-asymmetric" if asymmetric else "until it has sent"
    yield f"media for it goes to {target} ({when})" if target else "media for it waits until it has sent"


def question_lines(planned: Plan) -> Iterator[str]:
    """What the media arm is asked."""
    if planned.error:
        yield f"its media cannot be relayed ({planned.status}): {planned.error}"
    if planned.request is None:
        yield "none"
    else:
        yield encode(planned.request).decode("utf-8").rstrip("\n")


def media_lines(result: int, failure: Failure | None, answered: bool) -> Iterator[str]:
    """What use_media_proxy says. ``answered``: it was told what the relay answers."""
    if result > 0:
        yield f"use_media_proxy: {result}{'' if answered else ', if the relay has ports'}"
    elif failure is not None:
        yield f"use_media_proxy: {result}, {failure.reason} ({failure.status})"
    else:
        yield f"use_media_proxy: {result}, {'there is no body' if result == -2 else 'its body is nothing to relay'}"
