"""What is odd about a message: why it may not do what its sender meant.

A message, how it arrived and its plan come in; sentences go out, with peers' text in them as it came.
"""

import re
from collections.abc import Iterator

from mediaproxy.control import Stream
from mediaproxy.endpoint import Endpoint, Scope, scope
from mediaproxy.nat import Arrival, contacts
from mediaproxy.sdp import Sdp, Section
from mediaproxy.sip.check import check
from mediaproxy.sip.grammar import SipError
from mediaproxy.sip.message import Message
from mediaproxy.traversal import Plan, negotiates, sdp_part

_HEAD = re.compile(rb"\A[\r\n]*+.*?(?:\n\r?\n|\Z)", re.DOTALL)
"All of a message but what stands behind its headers."


def oddities(message: Message, arrival: Arrival, planned: Plan) -> Iterator[str]:
    """Everything that is odd."""
    if planned.error:
        yield planned.error
    yield from _refused(message)
    yield from _length_warnings(message)
    if message.body and planned.sdp is None and not planned.error:
        yield from _body_warnings(message)
    for _, contact in contacts(message):
        if scope(contact.uri.host) in (Scope.LOOPBACK, Scope.UNSPECIFIED):
            yield f"Contact {contact.uri} reaches nobody but the phone itself"
    sdp = planned.sdp
    if sdp is not None:
        for index, (section, stream) in enumerate(zip(sdp.sections, sdp.streams, strict=True), 1):
            yield from (f"stream {index}: {line}" for line in _connection_warnings(sdp, section))
            yield from (f"stream {index}: {line}" for line in _stream_warnings(stream))
        yield from _alg_warnings(message, arrival, sdp)


def _refused(message: Message) -> Iterator[str]:
    try:
        check(message)
    except SipError as error:
        does = f"answers it {error.status}" if message.is_request else "drops it"
        yield f"the built-in server {does}: {error}"


def _body_warnings(message: Message) -> Iterator[str]:
    brings_media = negotiates(message)
    if sdp_part(message) is not None:
        yield "its SDP has no streams" if brings_media else "its SDP is left alone: such a message negotiates no media"
    elif brings_media:
        encoding = message.header("content-encoding")
        kind = message.header("content-type") or "no Content-Type"
        yield f"no SDP is found in the body: {kind}{f', encoded as {encoding}' if encoding else ''}"


def _length_warnings(message: Message) -> Iterator[str]:
    declared, there = message.content_length, len(_HEAD.sub(b"", bytes(message), count=1))
    if len(message.headers("content-length")) > 0 and declared is None:
        yield "Content-Length is unreadable, or given twice with different values"
    elif declared is not None and declared > len(message.body):
        yield f"Content-Length says {declared} bytes, but only {len(message.body)} are there: the message was cut off"
    elif declared is not None and len(message.body) > declared:
        yield f"Content-Length says {declared} bytes, but the body plainly goes on: all {len(message.body)} count"
    elif declared is not None and there > declared:
        yield f"{there - declared} bytes behind the body are not part of it (Content-Length {declared})"


def _connection_warnings(sdp: Sdp, section: Section) -> Iterator[str]:
    connection = section.connection or sdp.session.connection
    if section.port and not section.carried:
        yield f"{section.transport} is not carried by the relay: it goes from phone to phone, if it can"
        return
    if connection is None:
        return
    if connection.address is None:
        yield f"c= has {connection.text}, which is no usable address: the phone's own is meant, if it is known"
    elif connection.addrtype.upper() != f"IP{Endpoint(connection.address, 0).version}":
        yield f"c= says {connection.addrtype} for {connection.text}"
    if len(section.connections) > 1:
        yield "it has several c= lines; the first counts"


def _stream_warnings(stream: Stream) -> Iterator[str]:
    if stream.endpoint is None:
        return
    if scope(stream.endpoint.address) in (Scope.LOOPBACK, Scope.MULTICAST, Scope.BROADCAST, Scope.LINK_LOCAL):
        yield f"nobody can send to {stream.endpoint.address}"
    if stream.rtp and stream.endpoint.port % 2:
        yield f"RTP port {stream.endpoint.port} is odd (RFC 3550 asks for an even one)"
    nameless = [str(t.number) for t in stream.payload_types if not t.codec]
    if nameless:
        yield f"payload types without rtpmap: {', '.join(nameless)}"


def _alg_warnings(message: Message, arrival: Arrival, sdp: Sdp) -> Iterator[str]:
    """Marks of a SIP ALG: some of the phone's addresses are rewritten, others are not."""
    if message.is_request and len(message.values("via")) != 1:
        return
    hosts = [contact.uri.host for _, contact in contacts(message) if contact.uri.host]
    media = [stream.endpoint.address for stream in sdp.streams if stream.endpoint is not None]
    private_media = any(scope(address) is Scope.PRIVATE for address in media)
    public_contact = any(scope(host) is Scope.PUBLIC for host in hosts)
    private_contact = any(scope(host) is Scope.PRIVATE for host in hosts)
    if public_contact and private_media and scope(arrival.source.address) is Scope.PUBLIC:
        yield "Contact is public but the SDP is private: a SIP ALG, or STUN for SIP only, has rewritten half of it"
    if private_contact and media and all(scope(address) is Scope.PUBLIC for address in media):
        yield "Contact is private but the SDP is public: a SIP ALG, or STUN for media only, has rewritten half of it"
