"""Offer and answer of the NG protocol: one SDP of a Command in, one question for the media arm, the SDP that goes on.

``offer`` and ``answer`` are generators as dialect.Steps, but return a dictionary. A second, equal question follows only
where what is known of the other party changes what the first one said. What is wrong with a request is answered with
rtpengine's own words.
"""

from collections.abc import Generator, Sequence

import msgspec

from mediaproxy.control import (
    Inquiry,
    KnownBy,
    MediaReply,
    MediaRequest,
    Party,
    PhoneAddress,
    Question,
    Switch,
    SwitchRequest,
    Wishes,
)
from mediaproxy.control import Stream as Media
from mediaproxy.dialects.dialect import Peer
from mediaproxy.dialects.ng import head, needs
from mediaproxy.dialects.ng.bencode import Answer, NgError
from mediaproxy.dialects.ng.flags import Command
from mediaproxy.dialects.ng.limits import SESSIONS
from mediaproxy.dialects.ng.memo import NOTHING, Memo
from mediaproxy.dialects.ng.patterns import Pattern, Patterns, Places
from mediaproxy.dialects.ng.rewriting import Rewriting, Written
from mediaproxy.dialects.ng.settings import NgSettings
from mediaproxy.dialects.ng.streams import Streams, moved
from mediaproxy.endpoint import Endpoint, Scope, scope
from mediaproxy.sdp import Sdp, SdpError

Asking = Generator[Question | Inquiry, MediaReply | None, Answer]
NO_PORTS = "Ran out of ports"
"SIP servers that get this try another relay."
UNKNOWN_CALL = "Unknown call-id"
_DROPPING = {"start": Switch.BLOCK, "stop": Switch.UNBLOCK}
"What ``drop-traffic`` does to both parties' media, until it is said otherwise."
_MOST_STREAMS = 256
_NO_VERSION = "this relay has no IPv"


def negotiate(command: Command, peer: Peer, settings: NgSettings, patterns: Patterns) -> Asking:
    """Answer an offer or an answer: ``{"sdp": …, "result": "ok"}`` or an error. Of an answer, ``from-tag`` is who
    offered, ``to-tag`` who answers. ``patterns``: of SDPs that this dialect has seen with these settings."""
    try:
        _check(command)
        found = patterns.find(command, lambda marked: _begun(marked, peer, settings))
        if found is not None:
            told = yield from _as_before(command, peer, settings, *found)
        else:
            sdp = _read(command)
            if sdp is None:
                return {"result": "ok"}
            told = yield from _Negotiation(command, peer, settings, sdp).run()
        switch = _DROPPING.get(command.drop_traffic)
        if switch is not None and told["result"] == "ok":
            yield SwitchRequest(call_id=command.call_id, switch=switch)
        return told
    except NgError as error:
        return _error(str(error))
    except _Refused as refused:
        return refused.answer


def _as_before(command: Command, peer: Peer, settings: NgSettings, pattern: Pattern, places: Places) -> Asking:
    """A request whose SDP has a pattern."""
    streams = pattern.streams(places)
    if _by_source(command, settings):
        streams = tuple([moved(stream, command.received_from) for stream in streams])
    sender, receiver = _parties(command)
    question = msgspec.structs.replace(
        pattern.question,
        call_id=command.call_id,
        sender=sender,
        receiver=receiver,
        sdp_hash=Sdp(command.sdp or b"").hash,
        branch=command.via_branch,
        phone=_phone(command, streams),
        streams=streams,
        notify=_notify(command, peer, settings),
    )
    reply = yield question
    body = None if reply is None else pattern.body(places, reply)
    if body is not None:
        return {"sdp": body, "result": "ok"}
    sdp = _read(command)
    assert sdp is not None
    return (yield from _Negotiation(command, peer, settings, sdp).go_on(question, reply))


def _check(command: Command) -> None:
    """Whether there is all that a request must have. NgError."""
    if command.sdp is None:
        raise NgError("No SDP body in message")
    if not command.call_id:
        raise NgError("No call-id in message")
    if not command.from_tag:
        raise NgError("No from-tag in message")
    if command.name == "answer" and not command.to_tag:
        raise NgError("No to-tag in message")


def _read(command: Command) -> Sdp | None:
    """The SDP of a request; None: there is nothing to ask about it. NgError."""
    needs.check(command)
    if not command.sdp or command.has("fragment"):
        return None  # candidates that trickle in: a lite agent waits for checks, and sends none
    if not command.sdp.startswith(b"v="):
        raise NgError("Failed to parse SDP")
    if len(command.sdp) > 3 * _MOST_STREAMS and Sdp.count(command.sdp) > _MOST_STREAMS:
        raise NgError(f"More than {_MOST_STREAMS} media sections in the SDP")
    try:
        sdp = Sdp.parse(command.sdp)
    except SdpError as error:
        raise NgError("Failed to parse SDP") from error
    if not sdp.sections:
        raise NgError("Error rewriting SDP")
    return sdp


def _begun(command: Command, peer: Peer, settings: NgSettings) -> "_Negotiation":
    """An SDP that patterns learn from. NgError, LookupError."""
    sdp = _read(command)
    negotiation = None if sdp is None else _Negotiation(command, peer, settings, sdp)
    if negotiation is None or negotiation.came_back:
        raise LookupError
    return negotiation


class _Refused(Exception):
    """The relay says no."""

    def __init__(self, answer: Answer) -> None:
        super().__init__()
        self.answer = answer


class _Negotiation:
    """One SDP, once it is known to be one."""

    def __init__(self, command: Command, peer: Peer, settings: NgSettings, sdp: Sdp) -> None:
        self._command = command
        self._peer = peer
        self._settings = settings
        self._sdp = sdp
        self._offering = command.name != "answer"
        self._streams = Streams(sdp, command, offering=self._offering)
        self._asked: MediaRequest
        self._agrees = not head.AGREEING.isdisjoint(command.replace)

    def run(self) -> Asking:
        """All of it. NgError."""
        if self.came_back:
            return {"sdp": self._command.sdp, "result": "ok"}
        question = self.question()
        reply = yield question
        return (yield from self.go_on(question, reply))

    @property
    def came_back(self) -> bool:
        """Whether the SDP went through this server before."""
        loops = self._command.has("loop-protect")
        return loops and self._settings.mark in self._sdp.session.values("rtpengine")

    def question(self) -> MediaRequest:
        """What is asked first. NgError."""
        return self._question(self._media(), "" if self._agrees else self._streams.memo().text())

    def go_on(self, question: MediaRequest, reply: MediaReply | None) -> Asking:
        """After the reply to the first question. NgError."""
        command = self._command
        reply = yield from self._accepted(question, reply)
        known = self._streams.readers(Memo.read(reply.memo), Memo.read(reply.before))
        wishes = self._wishes(known) if self._streams.differ(known) else question.wishes
        if wishes != question.wishes:
            question = msgspec.structs.replace(self._asked, wishes=wishes, sdp_hash=question.sdp_hash + "+")
            again = yield from self._accepted(question, (yield question))
            reply = msgspec.structs.replace(again, memo=reply.memo, before=reply.before)
        told = Memo.read(reply.before).told
        written = self._streams.written(known, reply.ports)
        if self._nothing_changes(reply, written):
            return {"sdp": command.sdp, "result": "ok"}
        body = Rewriting(self._sdp, command, self._settings.mark).run(written, reply.ports, told, reply.address)
        if self._agrees:
            body, told = head.numbered(body, command.replace, told)
            memo = msgspec.structs.replace(self._streams.memo(), told=told)
            yield msgspec.structs.replace(self._asked, memo=memo.text())
        return {"sdp": body, "result": "ok"}

    def body(self, reply: MediaReply) -> bytes | None:
        """The SDP that goes on after that reply; None: none does, or not before more is asked. NgError."""
        steps = self.go_on(self.question(), reply)
        try:
            next(steps)
        except StopIteration as stop:
            body = stop.value.get("sdp")
            return body if isinstance(body, bytes) else None
        except _Refused:
            pass
        return None

    def _accepted(
        self, question: MediaRequest, reply: MediaReply | None
    ) -> Generator[Question | Inquiry, MediaReply | None, MediaReply]:
        """The reply if it is a good one. Where no relay has an address of the SDP's IP version, but the phone signals
        by the other one, its media is wanted there. _Refused."""
        self._asked = question
        place = question.phone.endpoint
        if reply is not None and reply.error.startswith(_NO_VERSION) and place is not None:
            streams = tuple([moved(stream, place.address) for stream in question.streams])
            self._asked = msgspec.structs.replace(question, streams=streams)
            reply = yield self._asked
        refused = self._refused(reply)
        if refused:
            raise _Refused(refused)
        assert reply is not None
        return reply

    def _nothing_changes(self, reply: MediaReply, written: Sequence[Written]) -> bool:
        """Whether the relay leaves all streams alone, as it does with an SDP that has been here before."""
        open_ = any(section.port for section in self._sdp.sections)
        shut = any(one.disabled and section.port for section, one in zip(self._sdp.sections, written, strict=True))
        return open_ and not shut and all(port is None for port in reply.ports)

    # -- the question

    def _media(self) -> tuple[Media, ...]:
        """The streams as the relay is told of them. NgError: one has no address."""
        address = self._command.received_from
        if not self._sdp.session.connections:
            for section in self._sdp.sections:
                if section.port and self._streams.carried(section) and not section.connections:
                    raise NgError("Incomplete SDP specification")
        return self._streams.media(address, by_source=_by_source(self._command, self._settings))

    def _question(self, media: tuple[Media, ...], memo: str) -> MediaRequest:
        command, offering = self._command, self._offering
        sender, receiver = _parties(command)
        return MediaRequest(
            call_id=command.call_id,
            sender=sender,
            receiver=receiver,
            cseq=-1,
            sdp_hash=self._sdp.hash,
            status=0 if offering else self._status(),
            branch=command.via_branch,
            phone=_phone(command, media),
            asymmetric=command.has("asymmetric"),
            streams=media,
            receiver_version=self._interfaces()[2],
            notify=_notify(command, self._peer, self._settings),
            wishes=self._wishes(NOTHING),
            ice=self._streams.credentials(),
            memo=memo,
        )

    def _wishes(self, known: Memo) -> Wishes | None:
        """What the relay shall do beyond the rules of a call, given what is known of who will read the SDP."""
        command = self._command
        facing, towards, _ = self._interfaces()
        mux, lite = self._streams.mux(known), self._streams.lite(known)
        family = self._offering and bool(command.family)
        said = command.label or command.learning or command.tos is not None or facing or towards or family
        if not (said or mux or lite or not command.flags.isdisjoint(_WISHING)):
            return None
        wishes = Wishes(
            facing=facing,
            towards=towards,
            learn=command.learning != "off",
            strict_source=command.has("strict-source"),
            media_handover=command.has("media-handover"),
            keep_ports=command.has("port-latching"),
            tos=command.tos,
            mux=mux,
            lite=lite,
            label=command.label,
        )
        return None if wishes == _NO_WISHES and not family else wishes

    def _status(self) -> int:
        """Of the response that the answer came in: most servers do not say, and an answer may be the last one."""
        code = self._command.code
        provisional = code is not None and 101 <= code <= 199 and self._command.message_type != "request"
        return code if provisional and code is not None else 200

    def _interfaces(self) -> tuple[str, str, int]:
        """Names of the relay's addresses towards the sender and the receiver, and the IP version towards the latter."""
        version = self._command.family
        if not self._offering or not self._command.direction:
            return "", "", version
        names = [*self._command.direction, "", ""][:2]
        for index, name in enumerate(names):
            if name in ("internal", "external") and name not in self._settings.interfaces:
                names[index] = ""
                if index == 1 and not version:
                    version = 4 if name == "internal" else 6
        version = version or self._settings.versions.get(names[1], 0)
        return names[0], names[1], version

    # -- what the relay says

    def _refused(self, reply: MediaReply | None) -> Answer:
        """Why not; empty: it said yes."""
        if reply is None:
            return _error(NO_PORTS)
        if not reply.error:
            if len(reply.ports) != len(self._sdp.sections):
                return _error("Error rewriting SDP")
            return {}
        if reply.status == 481 and not self._offering:
            if any(section.port for section in self._sdp.sections):
                return _error(UNKNOWN_CALL)
            return {"sdp": self._command.sdp, "result": "ok"}  # no stream was offered, so no relay has the call
        if reply.error.startswith("max_calls"):
            if "load-limit" in self._command.supports and self._offering:
                return {"result": "load limit", "message": SESSIONS}
            return _error(SESSIONS)
        if reply.error == "no ports left" or reply.status == 503:
            return _error(NO_PORTS)
        return _error(reply.error)


def _parties(command: Command) -> tuple[Party, Party]:
    """Who wrote the SDP, and who will read it."""
    offers, answers = Party(tag=command.from_tag), Party(tag=command.to_tag)
    return (answers, offers) if command.name == "answer" else (offers, answers)


def _by_source(command: Command, settings: NgSettings) -> bool:
    """Whether media goes to where signalling comes from, whatever the SDP says."""
    wanted = command.has("sip-source-address") or (settings.sip_source and not command.has("trust-address"))
    return wanted and bool(command.received_from)


def _phone(command: Command, media: Sequence[Media]) -> PhoneAddress:
    """Where the sender's signalling comes from, if that can be the phone's address at all: from a server on this very
    host it tells nothing."""
    address = command.received_from
    kind = scope(address) if address else None
    if kind is None or kind is Scope.LOOPBACK:
        places = [one.endpoint.address for one in media if one.endpoint is not None]
        near = next((place for place in places if scope(place) is Scope.LOOPBACK), "")
        address = address or near  # a program of this host needs nobody to vouch for it
        if not near and not (address and command.has("sip-source-address")):
            return PhoneAddress(known_by=KnownBy.UNKNOWN)
    if kind is Scope.UNSPECIFIED:
        return PhoneAddress(known_by=KnownBy.UNKNOWN)
    return PhoneAddress(endpoint=Endpoint(address, 0), known_by=KnownBy.EXPLICIT)


def _notify(command: Command, peer: Peer, settings: NgSettings) -> str:
    """Whom to tell if the call ends by itself: the address in the request, else who asks."""
    if not settings.callback_url:
        return ""
    return f"xmlrpc:{command.notify or peer.address.rpartition(':')[0].strip('[]')}"


_WISHING = frozenset(("strict-source", "media-handover", "port-latching"))
_NO_WISHES = Wishes()


def _error(reason: str) -> Answer:
    return {"result": "error", "error-reason": reason}
