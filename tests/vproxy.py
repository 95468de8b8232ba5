"""The pure proxy in virtual time: its effects are carried out by lists and tables, and messages are written by hand."""

import itertools
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import assert_never

from mediaproxy.control import MediaReply, MediaRequest, Question
from mediaproxy.edge import registrar
from mediaproxy.edge.binding import Binding
from mediaproxy.edge.effects import Ask, Effect, Refused, Remark, Resolve, Said, Send, Trouble
from mediaproxy.edge.farewell import Farewell
from mediaproxy.edge.hop import Hop, Inbound
from mediaproxy.edge.media import arrival_of
from mediaproxy.edge.proxy import Proxy
from mediaproxy.edge.settings import EdgeSettings, Listener, Transport
from mediaproxy.endpoint import Endpoint
from mediaproxy.events import CallEnded, CallReport, CallState, EndReason, PartyReport
from mediaproxy.sip.check import check
from mediaproxy.sip.message import Request, Response, parse, response_to
from tests.fakelink import port_for

EDGE = Endpoint("198.51.100.1", 5060)
ALICE = Endpoint("203.0.113.10", 5060)
BOB = Endpoint("203.0.113.20", 5060)
CAROL = Endpoint("203.0.113.30", 5060)
SDP = b"v=0\r\no=- 1 1 IN IP4 203.0.113.10\r\ns=-\r\nc=IN IP4 203.0.113.10\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0\r\n"
LISTENERS = tuple(Listener(transport=t, bind=EDGE.with_port(t.default_port)) for t in Transport)
SETTINGS = EdgeSettings(listeners=LISTENERS, domains=("example.com",), open=True)
_numbers = itertools.count(1)


class FakeNetwork:
    """Sockets that are only names."""

    def __init__(self, listeners: tuple[Listener, ...] = LISTENERS) -> None:
        self.listeners = listeners
        self.connections: dict[str, tuple[Transport, Endpoint]] = {}

    def facing(self, transport: Transport, remote: Endpoint) -> Listener | None:
        able = (one for one in self.listeners if one.transport is transport and one.bind.version == remote.version)
        return next(able, None)

    def connection(self, transport: Transport, remote: Endpoint) -> str:
        return next((name for name, peer in self.connections.items() if peer == (transport, remote)), "")

    def alive(self, connection: str) -> bool:
        return connection in self.connections


class FakeDirectory:
    """A location table that is a dict."""

    def __init__(self, settings: EdgeSettings) -> None:
        self.settings = settings
        self.bindings: dict[str, tuple[Binding, ...]] = {}
        self.behind_nat: set[Endpoint] = set()

    def lookup(self, aor: str, now: float) -> tuple[Binding, ...]:
        return self.bindings.get(aor, ())

    def register(self, asked: registrar.Registering, inbound: Inbound, now: float) -> registrar.Outcome:
        aor = registrar.aor_of(asked.arrived)
        old = self.bindings.get(aor, ())
        outcome = registrar.register(asked, arrival_of(inbound), old, self.settings, now, inbound.connection)
        gone = {binding.key for binding in (*outcome.remove, *outcome.save)}
        self.bindings[aor] = (*(b for b in old if b.key not in gone), *outcome.save)
        return outcome

    def natted(self, inbound: Inbound) -> bool:
        return inbound.source in self.behind_nat

    def knows(self, place: Endpoint) -> bool:
        known = {binding.received.address for bindings in self.bindings.values() for binding in bindings}
        return place.address in known


@dataclass(frozen=True)
class Out:
    """A message that left."""

    hop: Hop
    message: Request | Response
    failed: Send

    @property
    def request(self) -> Request:
        assert isinstance(self.message, Request)
        return self.message

    @property
    def response(self) -> Response:
        assert isinstance(self.message, Response)
        return self.message

    def __str__(self) -> str:
        what = str(self.message.status) if isinstance(self.message, Response) else self.message.method
        return f"{what} > {self.hop.remote.address}"


class World:
    """A proxy, what it sent, and the time."""

    def __init__(self, settings: EdgeSettings = SETTINGS, network: FakeNetwork | None = None) -> None:
        self.network = network or FakeNetwork()
        self.directory = FakeDirectory(settings)
        self.proxy = Proxy(settings, self.network, self.directory, b"0123456789abcdef", random.Random(1))
        self.now = 1000.0
        self.outbox: list[Out] = []
        self.questions: list[Question] = []
        self.held: list[Ask] | None = None
        "Not None: questions wait here for ``answer``."
        self.unreachable: set[Endpoint] = set()
        "Sending there fails at once."
        self.names: dict[str, tuple[Hop, ...]] = {}
        "What URIs resolve to."
        self.refused: list[str] = []
        self.remarks: list[str] = []
        "What was said about calls."
        self.said: list[str] = []
        "What the script said by log()."
        self.troubles: list[str] = []
        "Mistakes of the script."

    # -- carrying out

    def perform(self, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case Send():
                    self._send(effect)
                case Ask():
                    self._ask(effect)
                case Resolve(uri, then):
                    self.perform(then(self.names.get(uri.host, ()), self.now))
                case Refused(_, text):
                    self.refused.append(text)
                case Remark(_, text):
                    self.remarks.append(text)
                case Said(_, text):
                    self.said.append(text)
                case Trouble(_, text):
                    self.troubles.append(text)
                case _:
                    assert_never(effect)

    def _ask(self, ask: Ask) -> None:
        self.questions.append(ask.question)
        if ask.then is not None and self.held is not None:
            self.held.append(ask)
            return
        answer = self.reply_to(ask.question)
        if ask.then is not None:
            self.perform(ask.then(answer, self.now))

    def _send(self, effect: Send) -> None:
        message = parse(effect.data)
        check(message)
        if effect.hop.remote in self.unreachable:
            if effect.failed is not None:
                self.perform(effect.failed(self.now))
            return
        self.outbox.append(Out(effect.hop, message, effect))

    def reply_to(self, question: Question) -> MediaReply:
        """What the media arm says."""
        if not isinstance(question, MediaRequest):
            return MediaReply()
        return MediaReply(ports=tuple(port_for(number) for number, _ in enumerate(question.streams)))

    def answer(self, reply: MediaReply | None = None) -> None:
        """Answer the question that has waited longest."""
        assert self.held
        ask = self.held.pop(0)
        assert ask.then is not None
        self.perform(ask.then(reply or self.reply_to(ask.question), self.now))

    def receive(self, message: Request | Response, source: Endpoint, transport: Transport = Transport.UDP) -> None:
        """A message arrives from ``source``."""
        message = parse(bytes(message))
        check(message)
        connection = self.network.connection(transport, source)
        listener = self.network.facing(transport, source)
        assert listener is not None
        inbound = Inbound(source, transport, listener.bind, connection)
        take = self.proxy.request if isinstance(message, Request) else self.proxy.response
        self.perform(take(message, inbound, self.now))  # type: ignore[arg-type]  # the pair fits

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        end = self.now + seconds
        while (deadline := self.proxy.deadline) is not None and deadline <= end:
            self.now = max(self.now, deadline)
            self.perform(self.proxy.tick(self.now))
        self.now = end

    def sent(self) -> list[str]:
        """What left since last asked, such as ``INVITE > 203.0.113.20``; the outbox is emptied."""
        said = [str(out) for out in self.outbox]
        self.outbox.clear()
        return said

    def take(self, what: str) -> Out:
        """The first message that left and is called so; those before it are dropped."""
        while self.outbox:
            out = self.outbox.pop(0)
            if str(out) == what:
                return out
        raise AssertionError(f"{what} never left")

    def end(self, reason: EndReason, call_id: str = "call", caller_tag: str = "a") -> Farewell | None:
        """The media arm ends a call; what was done."""
        report = CallReport(
            call_id=call_id,
            caller=PartyReport(tag=caller_tag),
            callee=PartyReport(),
            state=CallState.ENDED,
            started=self.now,
            reason=reason,
        )
        parting, effects = self.proxy.call_ended(CallEnded(at=self.now, call_id=call_id, report=report), self.now)
        self.perform(effects)
        return parting.outcome if parting is not None else None

    # -- scenes

    def bind(self, user: str, *places: Endpoint | Binding) -> None:
        """Register contacts."""
        self.directory.bindings[f"sip:{user}@example.com"] = tuple(
            place if isinstance(place, Binding) else binding(user, place) for place in places
        )


def binding(user: str, place: Endpoint, **more: object) -> Binding:
    """A registration."""
    fields: dict[str, object] = {
        "aor": f"sip:{user}@example.com",
        "contact": f"sip:{user}@{place}",
        "sent": f"<sip:{user}@{place}>",
        "received": place,
        "transport": "udp",
        "local": EDGE,
        "expires": 1e9,
        "call_id": "r",
        "cseq": 1,
    }
    return Binding(**{**fields, **more})  # type: ignore[arg-type]  # a test may set any field


def request(
    method: str = "INVITE",
    uri: str = "sip:bob@example.com",
    *,
    source: Endpoint = ALICE,
    headers: Sequence[tuple[str, str]] = (),
    body: bytes = b"",
    **more: str,
) -> Request:
    """A request of alice. ``more``: to_tag, from_tag, call_id, branch, via, max_forwards, contact, cseq."""
    branch = more.get("branch", f"z9hG4bK{next(_numbers)}")
    to_tag = f";tag={more['to_tag']}" if "to_tag" in more else ""
    fields = [
        ("Via", more.get("via", f"SIP/2.0/UDP {source};branch={branch}")),
        ("From", f"<{more.get('from_uri', 'sip:alice@elsewhere.test')}>;tag={more.get('from_tag', 'a')}"),
        ("To", f"<{more.get('to_uri', uri)}>{to_tag}"),
        ("Call-ID", more.get("call_id", "call")),
        ("CSeq", f"{more.get('cseq', '1')} {method}"),
        ("Max-Forwards", more.get("max_forwards", "70")),
        ("Contact", more.get("contact", f"<sip:alice@{source}>")),
        *headers,
    ]
    if body:
        fields.append(("Content-Type", "application/sdp"))
    return Request.build(method, uri, fields, body)


def reply(
    out: Out, status: int, tag: str = "b", body: bytes = b"", headers: Sequence[tuple[str, str]] = ()
) -> Response:
    """What the phone that got ``out`` answers."""
    more = [("Contact", f"<sip:bob@{out.hop.remote}>")] if 100 < status < 300 else []
    if body:
        more.append(("Content-Type", "application/sdp"))
    return response_to(out.request, status, to_tag=tag, headers=[*more, *headers], body=body)
