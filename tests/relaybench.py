"""A bench for ``Calls``: two parties, a plane in a few lines, and a clock that a test moves by hand.

The plane does what relay/flow.py says and checks what must never be: a port lent twice, a packet to nowhere.
"""

import random
import struct
from dataclasses import dataclass

from mediaproxy.control import (
    ConfirmRequest,
    EndCause,
    EndRequest,
    KnownBy,
    MediaReply,
    MediaRequest,
    Party,
    PayloadType,
    PhoneAddress,
    Question,
    Stream,
)
from mediaproxy.endpoint import Endpoint, Scope, scope
from mediaproxy.events import CallEnded, CallReport, CallState, Event, Side, SideReport
from mediaproxy.relay.calls import Calls, Effect, Install, Remove, Report, Send
from mediaproxy.relay.flow import Flow, Packet, SlotCounters
from mediaproxy.relay.rtp import Kind, kind_of
from mediaproxy.relay.settings import RelayAddress, RelaySettings

V4 = "192.0.2.1"
V6 = "2001:db8:ffff::1"
NOWHERE = (Scope.UNSPECIFIED, Scope.MULTICAST, Scope.BROADCAST)


def at(text: str) -> Endpoint:
    """``192.0.2.1:4000``."""
    return Endpoint.parse(text)


def rtp(sequence: int = 1, ssrc: int = 7, payload_type: int = 0, size: int = 160) -> bytes:
    """An RTP packet (RFC 3550 §5.1)."""
    return struct.pack("!BBHII", 0x80, payload_type, sequence & 0xFFFF, 0, ssrc) + bytes(size)


RTCP = struct.pack("!BBHI", 0x80, 200, 6, 7) + bytes(20)
STUN = struct.pack("!HHI", 1, 0, 0x2112A442) + bytes(12)
DTLS = bytes([22, 254, 253]) + bytes(50)
UDPTL = bytes([0, 1, 2, 3])


ALICE, BOB, STRANGER = "203.0.113.1:31", "198.51.100.2:32", "198.18.0.9:1"
"Where packets of the two parties really come from, and somebody else's."


def stream(place: str | None, *, kind: str = "audio", types: tuple[int, ...] = (0, 101), **more: object) -> Stream:
    """An m-section."""
    endpoint = at(place) if place else None
    names = {0: ("PCMU", 8000), 8: ("PCMA", 8000), 96: ("H264", 90000), 101: ("telephone-event", 8000)}
    payload_types = tuple(
        PayloadType(number=n, codec=names.get(n, ("", 0))[0], clock_rate=names.get(n, ("", 0))[1]) for n in types
    )
    values: dict[str, object] = {"kind": kind, "transport": "RTP/AVP", "payload_types": payload_types, **more}
    if values["transport"] == "udptl":
        values["payload_types"] = ()
    return Stream(endpoint=endpoint, **values)  # type: ignore[arg-type]  # named values


TWO = (stream("10.0.0.1:4000"), stream("10.0.0.1:4002", kind="video", types=(96,)))
"Audio and video."


def ports_of(reply: MediaReply) -> list[int | None]:
    """RTP ports of a reply that must be no error."""
    assert not reply.error, reply.error
    return [port.rtp.port if port else None for port in reply.ports]


def sdp_hash(streams: tuple[Stream, ...]) -> str:
    """Equal for equal SDP."""
    return str(hash(streams))


@dataclass
class Phone:
    """A party: what its messages say of it."""

    tag: str
    signalling: str | None
    "IP address that SIP comes from; None: unknown."
    sdp: str
    "ADDRESS:PORT of its audio."
    contact: str = ""
    agent: str = ""
    asymmetric: bool = False
    branch: str = ""

    @property
    def phone(self) -> PhoneAddress:
        if self.signalling is None:
            return PhoneAddress(known_by=KnownBy.UNKNOWN)
        return PhoneAddress(endpoint=Endpoint(self.signalling, 5060), known_by=KnownBy.SOURCE)


def settings(**changed: object) -> RelaySettings:
    """Of a relay at 192.0.2.1 with few ports."""
    values: dict[str, object] = {"addresses": (RelayAddress(bind=V4),), "port_min": 20000, "port_max": 20198, **changed}
    return RelaySettings(**values)  # type: ignore[arg-type]  # named values


class Bench:
    """``Calls`` with a plane and a clock."""

    def __init__(self, **changed: object) -> None:
        self.settings = settings(**changed)
        self.calls = Calls(self.settings, random.Random(1), "relay-1")
        self.now = 1000.0
        self.flows: dict[Endpoint, Flow] = {}
        self.slots: dict[Endpoint, SlotCounters] = {}
        self.sent: list[Send] = []
        self.events: list[Event] = []
        self.alice = Phone("alice", "203.0.113.1", "10.0.0.1:4000")
        self.bob = Phone("bob", "198.51.100.2", "10.0.0.1:4000", branch="z9hG4bK-bob")
        self.call_id = "call-1"

    # -- what the SIP side says

    def ask(self, question: Question) -> MediaReply:
        reply, effects = self.calls.ask(question, self.now, self.slots.values())
        self.do(effects)
        return reply

    def media(
        self, sender: Phone, receiver: Phone, streams: tuple[Stream, ...] | None = None, **more: object
    ) -> MediaReply:
        """A MediaRequest: an INVITE of CSeq 1 unless told otherwise."""
        streams = (stream(sender.sdp),) if streams is None else streams
        values: dict[str, object] = {
            "call_id": self.call_id,
            "sender": Party(tag=sender.tag, uri=f"sip:{sender.tag}@example.net"),
            "receiver": Party(tag=receiver.tag, uri=f"sip:{receiver.tag}@example.net"),
            "cseq": 1,
            "sdp_hash": sdp_hash(streams),
            "phone": sender.phone,
            "contact": sender.contact,
            "user_agent": sender.agent,
            "asymmetric": sender.asymmetric,
            "branch": sender.branch,
            "streams": streams,
            **more,
        }
        return self.ask(MediaRequest(**values))  # type: ignore[arg-type]  # named values

    def invite(self, streams: tuple[Stream, ...] | None = None, **more: object) -> MediaReply:
        """Alice's initial offer."""
        return self.media(self.alice, Phone("", None, ""), streams, **more)

    def answer(
        self, streams: tuple[Stream, ...] | None = None, *, by: Phone | None = None, status: int = 200, **more: object
    ) -> MediaReply:
        """Bob's answer to it, or that of another fork."""
        return self.media(by or self.bob, self.alice, streams, status=status, **more)

    def talk(self, streams: tuple[Stream, ...] | None = None) -> tuple[Endpoint, Endpoint]:
        """Offer and answer; the ports that face Alice and Bob."""
        facing_bob, facing_alice = self.invite(streams).ports[0], None
        facing_alice = self.answer(streams).ports[0]
        assert facing_bob is not None and facing_alice is not None
        return facing_alice.rtp, facing_bob.rtp

    def confirm(self, sender: Phone, receiver: Phone, status: int = 0, cseq: int = 1) -> MediaReply:
        return self.ask(
            ConfirmRequest(
                call_id=self.call_id,
                sender=Party(tag=sender.tag),
                receiver=Party(tag=receiver.tag),
                cseq=cseq,
                status=status,
                branch=sender.branch if status else "",
            )
        )

    def end(self, cause: EndCause, sender: Phone, receiver: Phone | None = None, **more: object) -> MediaReply:
        values: dict[str, object] = {
            "call_id": self.call_id,
            "sender": Party(tag=sender.tag),
            "receiver": Party(tag=receiver.tag if receiver else ""),
            "cause": cause,
            **more,
        }
        return self.ask(EndRequest(**values))  # type: ignore[arg-type]  # named values

    def bye(self, sender: Phone | None = None, receiver: Phone | None = None) -> MediaReply:
        return self.end(EndCause.BYE, sender or self.alice, receiver or self.bob)

    # -- what the network brings

    def packet(self, source: str, local: Endpoint, data: bytes | None = None) -> list[Send]:
        """One datagram; what left the relay because of it."""
        data = rtp() if data is None else data
        flow = self.flows.get(local)
        before = len(self.sent)
        if flow is None:
            return []
        slot = self.slots[local]
        if flow.source == at(source) and not (flow.rtp_only and kind_of(data) is not Kind.RTP):
            self._forward(flow, slot, data)
        else:
            packet = Packet(local=local, generation=flow.generation, source=at(source), data=data, slot=slot)
            self.do(self.calls.packet(packet, self.now))
        return self.sent[before:]

    def _forward(self, flow: Flow, slot: SlotCounters, data: bytes) -> None:
        slot.last = self.now
        if len(data) >= 12 and data[0] >> 6 == 2 and not 192 <= data[1] <= 223:
            slot.payload_type, slot.sequence, slot.ssrc = struct.unpack_from("!xBH4xI", data)
        peer = self.flows.get(flow.peer) if flow.peer is not None else None
        if peer is None or peer.generation != flow.peer_generation or peer.target is None:
            slot.undeliverable += 1
            slot.undeliverable_bytes += len(data)
            return
        slot.packets += 1
        slot.bytes += len(data)
        self.sent.append(Send(peer.local, peer.target, data))

    # -- time

    def run(self, seconds: float) -> None:
        """Time passes: a tick each second, and at each deadline."""
        end = self.now + seconds
        while self.now < end:
            deadline = self.calls.deadline
            step = min(end, self.now + 1.0)
            self.now = max(self.now, min(step, deadline)) if deadline is not None and deadline > self.now else step
            self.tick()

    def tick(self) -> None:
        self.do(self.calls.tick(self.now, list(self.slots.values())))

    # -- what the relay does

    def do(self, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case Install(flow=flow):
                    self._install(flow)
                case Remove(local=local, generation=generation):
                    assert self.flows[local].generation == generation
                    del self.flows[local], self.slots[local]
                case Send(local=local, target=target):
                    assert local in self.flows, "sent from a port that is not lent"
                    assert scope(target.address) not in NOWHERE and target.port
                    assert target.version == local.version
                    self.sent.append(effect)
                case Report(event=event):
                    self.events.append(event)

    def _install(self, flow: Flow) -> None:
        known = self.flows.get(flow.local)
        assert known is None or known.generation == flow.generation, "lent twice"
        if known is None:
            self.slots[flow.local] = SlotCounters(local=flow.local, generation=flow.generation)
        self.flows[flow.local] = flow
        for place in (flow.source, flow.target):
            assert place is None or place.version == flow.local.version

    # -- what a test looks at

    @property
    def report(self) -> CallReport:
        """Of the one call."""
        (report,) = self.calls.reports(self.now)
        return report

    def state(self) -> CallState:
        """Of the one call."""
        return self.report.state

    def side(self, side: Side, index: int = 0) -> SideReport:
        """One end of one stream of the one call."""
        found = self.report.streams[index]
        return found.caller if side is Side.CALLER else found.callee

    def seen(self, kind: type[Event]) -> list[Event]:
        """Events of one kind."""
        return [event for event in self.events if isinstance(event, kind)]

    @property
    def ended(self) -> list[CallReport]:
        """The final reports."""
        return [event.report for event in self.events if isinstance(event, CallEnded)]
