"""What the system thinks of one captured message, for people: ``mediaproxy explain`` and whoever asks why.

A message, how it arrived and the policy come in; sections of text, and the values behind them, go out. It runs the very
code that serves calls and describes its results; it decides nothing itself. Texts of peers are shown as UTF-8 where
they are, with control characters made visible, so that a captured message cannot play with a terminal.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from mediaproxy.control import KnownBy, MediaRequest, PhoneAddress, Stream, encode
from mediaproxy.endpoint import Endpoint, Scope, scope
from mediaproxy.nat import (
    CONTACT_PRIVATE,
    Arrival,
    Verdict,
    client_nat_test,
    contacts,
    fix_contact,
    fix_uri,
    force_rport,
    nat_tests,
)
from mediaproxy.sdp import IcePolicy, Sdp, Section
from mediaproxy.sip.grammar import SipError
from mediaproxy.sip.message import Message, Request, Response
from mediaproxy.traversal import Facts, Plan, Policy, negotiates, plan, sdp_part

_UNSPECIFIED = ("0.0.0.0", "::")
_HEAD = re.compile(rb"\A[\r\n]*+.*?(?:\n\r?\n|\Z)", re.DOTALL)
"All of a message but what stands behind its headers."


@dataclass(frozen=True, slots=True, kw_only=True)
class Chapter:
    """A headed list of lines."""

    title: str
    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """Everything there is to say. ``str()`` is the page that a person reads."""

    tests: tuple[Verdict, ...]
    "Each test of client_nat_test, in the order 1, 2, 4."
    behind_nat: bool
    "client_nat_test with the tests of the policy; in a response test 1 alone says something of its sender."
    fixed: Message | None
    "What fix_contact makes of the message, whatever the tests say; None: there is nothing to fix."
    plan: Plan
    "The question for the media arm and the streams."
    phone: PhoneAddress | None
    "The sender's address as the relay is told it; None if the message asks for no media."
    warnings: tuple[str, ...]
    "What is odd about the message."
    chapters: tuple[Chapter, ...]

    def __str__(self) -> str:
        pages = (f"{chapter.title}\n" + "".join(f"  {line}\n" for line in chapter.lines) for chapter in self.chapters)
        return "\n".join(pages)


def explain(message: Message, arrival: Arrival, policy: Policy, facts: Facts | None = None) -> Explanation:
    """Judge one message as it was captured."""
    asymmetric = policy.sip_asymmetric.matches(message.user_agent)
    tests = nat_tests(message, arrival, asymmetric)
    chosen = CONTACT_PRIVATE if isinstance(message, Response) else policy.nat_tests
    behind_nat = client_nat_test(message, arrival, chosen, asymmetric)
    planned = plan(message, arrival, policy, facts or Facts())
    phone = planned.request.phone if isinstance(planned.request, MediaRequest) else None
    warnings = tuple(_shown(line) for line in _warnings(message, arrival, planned))
    chapters = [
        Chapter(title="Message", lines=_shown_all(_message(message, arrival, policy))),
        Chapter(title="NAT test", lines=_shown_all(_tests(message, tests, chosen, behind_nat))),
        Chapter(title="Contact", lines=_shown_all(_contacts(message, arrival, asymmetric))),
        Chapter(title="Via", lines=_shown_all(_via(message, arrival))),
    ]
    if phone is not None:
        chapters.append(Chapter(title="The phone's address", lines=_shown_all(_phone(phone))))
    for index, stream in enumerate(planned.streams):
        title = _shown(f"Stream {index + 1}: {stream.kind} over {stream.transport}")
        lines = _shown_all(_stream(stream, phone, planned))
        chapters.append(Chapter(title=title, lines=lines))
    chapters.append(Chapter(title="Question to the media arm", lines=_shown_all(_question(planned))))
    if warnings:
        chapters.append(Chapter(title="Warnings", lines=warnings))
    return Explanation(
        tests=tests,
        behind_nat=behind_nat,
        fixed=fix_contact(message, arrival, asymmetric),
        plan=planned,
        phone=phone,
        warnings=warnings,
        chapters=tuple(chapters),
    )


def _shown(text: str) -> str:
    """Text of a peer (Latin-1, a character per byte) as a terminal may have it. Our own words are ASCII."""
    decoded = text.encode("latin-1", "replace").decode("utf-8", "replace")
    return "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in decoded)


def _shown_all(lines: Iterator[str]) -> tuple[str, ...]:
    return tuple(_shown(line) for line in lines)


def _message(message: Message, arrival: Arrival, policy: Policy) -> Iterator[str]:
    yield message.start_line
    yield f"from {arrival.source} over {arrival.transport} to {arrival.local}"
    yield f"Call-ID {message.header('call-id') or 'missing'}, CSeq {message.header('cseq') or 'missing'}"
    agent = message.user_agent
    yield f"user agent: {agent or 'not named'}"
    for name, agents in (("SIP", policy.sip_asymmetric), ("RTP", policy.rtp_asymmetric)):
        pattern = agents.match(agent)
        if pattern is not None:
            yield f"it is {name}-asymmetric, by {pattern!r}: it listens on another port than it sends from"


def _tests(message: Message, tests: tuple[Verdict, ...], chosen: int, behind_nat: bool) -> Iterator[str]:
    for verdict in tests:
        yield f"{verdict.test}: {'YES' if verdict.fired else 'no '} {verdict.reason}"
    yield f"client_nat_test({chosen}): {'1, behind a NAT' if behind_nat else '-1, no NAT seen'}"
    if isinstance(message, Response):
        yield "in a response the top Via is our own: tests 2 and 4 say nothing about its sender"


def _contacts(message: Message, arrival: Arrival, asymmetric: bool) -> Iterator[str]:
    if fix_contact(message, arrival, asymmetric) is None:
        values = message.values("contact")
        yield f"fix_contact: -1, nothing to fix in {', '.join(values)}" if values else "fix_contact: -1, no Contact"
        return
    yield "fix_contact: 1"
    for _, contact in contacts(message):
        if contact.uri.scheme not in ("sip", "sips"):
            yield f"{contact.uri} stays: no SIP URI"
            continue
        fixed = fix_uri(contact.uri, arrival.source, asymmetric)
        yield f"{contact.uri} stays" if fixed is contact.uri else f"{contact.uri} becomes {fixed}"


def _via(message: Message, arrival: Arrival) -> Iterator[str]:
    try:
        via = message.via
    except SipError as error:
        yield f"not readable: {error}"
        return
    count = len(message.values("via"))
    yield (
        f"sent by {via.sent_by} over {via.transport.lower()}, the top one of {count}"
        if count > 1
        else (f"sent by {via.sent_by} over {via.transport.lower()}")
    )
    rport = "not asked for" if via.rport is None else via.rport or "asked for"
    yield f"as it came: received {via.received or 'not there'}, rport {rport}"
    if isinstance(message, Request):
        noted = force_rport(message, arrival).via
        yield f"force_rport: received={noted.received};rport={noted.rport}"


def _phone(phone: PhoneAddress) -> Iterator[str]:
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


def _stream(stream: Stream, phone: PhoneAddress | None, planned: Plan) -> Iterator[str]:
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
        kept = "stay" if planned.ice is IcePolicy.KEEP else "are removed, so that media goes by the relay"
        yield f"has ICE: STUN passes, its lines {kept}"
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


def _question(planned: Plan) -> Iterator[str]:
    if planned.error:
        yield f"its media cannot be relayed ({planned.status}): {planned.error}"
    if planned.request is None:
        yield "none"
    else:
        yield encode(planned.request).decode("utf-8").rstrip("\n")


# What is odd


def _warnings(message: Message, arrival: Arrival, planned: Plan) -> Iterator[str]:
    if planned.error:
        yield planned.error
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
    elif declared is not None and there > declared:
        yield f"{there - declared} bytes behind the body are not part of it (Content-Length {declared})"


def _connection_warnings(sdp: Sdp, section: Section) -> Iterator[str]:
    connection = section.connection or sdp.session.connection
    if section.port and not section.carried:
        yield f"{section.transport} is not carried by the relay: it goes from phone to phone, if it can"
        return
    if connection is None:
        if section.port:
            yield "there is no c= line for it"
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
