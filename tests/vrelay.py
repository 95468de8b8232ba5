"""A relay host on the toy Internet: the real ``Calls`` over a plane that does what ``relay/flow.py`` says word by word.

The plane is the shortest reading of the Plane protocol and checks on the way that the core keeps its side of it. It
stands where the user-space plane and the kernel stand on a real machine.
"""

import ipaddress
import random
import struct
from collections import Counter
from collections.abc import Callable, Iterable
from typing import TypeVar

from mediaproxy.control import MediaReply, Question
from mediaproxy.endpoint import Endpoint, Scope, ip_address, scope
from mediaproxy.events import CallEnded, CallEvent, CallReport, CallState, EndReason, Event
from mediaproxy.relay.calls import Calls
from mediaproxy.relay.effects import Effect, Install, Remove, Report, Send
from mediaproxy.relay.flow import Flow, Packet, SlotCounters
from mediaproxy.relay.rtp import Kind, kind_of
from mediaproxy.relay.settings import RelaySettings
from tests.vnet import Datagram, Host, Timer

NOWHERE = {Scope.LOOPBACK, Scope.LINK_LOCAL, Scope.UNSPECIFIED, Scope.MULTICAST, Scope.BROADCAST}


_E = TypeVar("_E", bound=CallEvent)


class ReferencePlane:
    """Forwards from exactly ``flow.source``, passes all else up, drops what comes to ports that are not lent."""

    name = "user"

    def __init__(self, host: Host, *, strict: bool = False) -> None:
        """``strict``: packets from outside ``flow.allowed`` are dropped and counted, as a plane may."""
        self.host = host
        self.strict = strict
        self.dropped: Counter[str] = Counter()
        self.lent: dict[Endpoint, tuple[Flow, SlotCounters]] = {}
        self._generations: dict[Endpoint, int] = {}
        self._receive: Callable[[Packet], None] = lambda packet: None

    def start(self, receive: Callable[[Packet], None]) -> None:
        self._receive = receive
        self.host.otherwise = self._arrived

    def install(self, flow: Flow) -> None:
        assert flow.local.address == self.host.address(flow.local.version), f"{flow.local} is not ours"
        for place in (flow.source, flow.target):
            assert place is None or place.version == flow.local.version, f"{flow.local} cannot reach {place}"
        if flow.target is not None:
            assert scope(flow.target.address) not in NOWHERE and flow.target.port > 0, f"target {flow.target}"
            own = flow.target.address == flow.local.address
            assert not own or flow.target in self.lent, "a packet to ourselves, but not to another call"
        found = self.lent.get(flow.local)
        if found is None:
            assert flow.generation != self._generations.get(flow.local), "a lent port needs a new generation"
        else:
            assert found[0].generation == flow.generation, "lent twice"
        self._generations[flow.local] = flow.generation
        counters = found[1] if found else SlotCounters(local=flow.local, generation=flow.generation)
        self.lent[flow.local] = (flow, counters)

    def remove(self, local: Endpoint, generation: int) -> None:
        found = self.lent.get(local)
        assert found is not None and found[0].generation == generation, f"{local} is not lent"
        del self.lent[local]

    def send(self, local: Endpoint, target: Endpoint, data: bytes) -> None:
        assert local in self.lent, f"{local} is not lent"
        assert scope(target.address) not in NOWHERE and target.port > 0, f"sent to {target}"
        self.host.send(local.port, target, data)

    def counters(self) -> Iterable[SlotCounters]:
        return [counters for _, counters in self.lent.values()]

    def close(self) -> None:
        self.lent.clear()

    def _arrived(self, datagram: Datagram) -> None:
        found = self.lent.get(datagram.target)
        if found is None:
            self.dropped["not lent"] += 1
            return
        flow, counters = found
        if datagram.source == flow.source and not (flow.rtp_only and kind_of(datagram.data) is not Kind.RTP):
            self._forward(flow, counters, datagram.data)
        elif self.strict and flow.allowed and not inside(datagram.source.address, flow.allowed):
            self.dropped["not allowed"] += 1
        else:
            packet = Packet(
                local=flow.local,
                generation=flow.generation,
                source=datagram.source,
                data=datagram.data,
                slot=counters,
            )
            self._receive(packet)

    def _forward(self, flow: Flow, counters: SlotCounters, data: bytes) -> None:
        counters.last = self.host.net.now
        if len(data) >= 12 and data[0] >> 6 == 2 and not 192 <= data[1] <= 223:
            counters.payload_type, counters.sequence, counters.ssrc = struct.unpack_from("!xBH4xI", data)
            counters.payload_type &= 0x7F
        peer = self.lent.get(flow.peer)[0] if flow.peer in self.lent else None  # type: ignore[index]  # no None in it
        if peer is None or peer.generation != flow.peer_generation or peer.target is None:
            counters.undeliverable += 1
            counters.undeliverable_bytes += len(data)
            return
        counters.packets += 1
        counters.bytes += len(data)
        self.host.send(peer.local.port, peer.target, data)


def inside(address: str, prefixes: Iterable[str]) -> bool:
    """Whether an address is in one of the prefixes."""
    parsed = ip_address(address)
    return parsed is not None and any(parsed in ipaddress.ip_network(prefix, strict=False) for prefix in prefixes)


class Relay:
    """``Calls`` on a host: does what its effects say and tells it the time, once a second and at its deadlines."""

    def __init__(self, host: Host, settings: RelaySettings, *, strict: bool = False, seed: int = 1) -> None:
        self.host, self.net = host, host.net
        self.plane = ReferencePlane(host, strict=strict)
        self.calls = Calls(settings, random.Random(seed), "relay")
        self.events: list[Event] = []
        self._alarm: Timer | None = None
        self._alarm_at: float | None = None
        self.plane.start(lambda packet: self._do(self.calls.packet(packet, self.net.now)))
        self.net.every(1.0, self._tick)

    def ask(self, question: Question) -> MediaReply:
        """One question of the SIP side."""
        reply, effects = self.calls.ask(question, self.net.now, self.plane.counters())
        self._do(effects)
        return reply

    def stop(self) -> None:
        """What SIGTERM does."""
        self._do(self.calls.shutdown(self.net.now, self.plane.counters()))

    def seen(self, kind: type[_E]) -> list[_E]:
        """The events of one kind."""
        return [event for event in self.events if isinstance(event, kind)]

    @property
    def report(self) -> CallReport:
        """Of the one call there is."""
        (report,) = self.calls.reports(self.net.now)
        return report

    @property
    def standing(self) -> tuple[bool, CallState]:
        """Whether the first stream of that call is held, and where the call stands."""
        report = self.report
        return report.streams[0].held, report.state

    @property
    def ended(self) -> list[CallReport]:
        """The calls that are over, oldest first."""
        return [event.report for event in self.events if isinstance(event, CallEnded)]

    @property
    def ends(self) -> list[EndReason | None]:
        """Why these are over."""
        return [report.reason for report in self.ended]

    def _tick(self) -> None:
        self._do(self.calls.tick(self.net.now, self.plane.counters()))

    def _do(self, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case Install(flow=flow):
                    self.plane.install(flow)
                case Remove(local=local, generation=generation):
                    self.plane.remove(local, generation)
                case Send(local=local, target=target, data=data):
                    self.plane.send(local, target, data)
                case Report(event=event):
                    self.events.append(event)
        self._arm()

    def _arm(self) -> None:
        """Wake up at the next deadline, if that is before the next second."""
        if self.calls.deadline == self._alarm_at:
            return
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm_at = self.calls.deadline
        self._alarm = None if self._alarm_at is None else self.net.at(self._alarm_at, self._tick)
