"""All lent ports and what happens to a packet at one of them.

Packets that the plane passed up come in; they are sent on, refused or make a latch learn. Streams get their ports here
and give them back. It must never forward a packet from a source that no latch accepted.
"""

import random
from collections.abc import Iterable

from mediaproxy.endpoint import Endpoint
from mediaproxy.events import PeerLearned, Side, SourceRefused
from mediaproxy.relay.effects import Effect, Install, Remove, Report, Send
from mediaproxy.relay.expectation import Ground
from mediaproxy.relay.flow import Flow, Packet, SlotCounters
from mediaproxy.relay.ice import Credentials, check
from mediaproxy.relay.latch import Action, Reason, Verdict
from mediaproxy.relay.ports import Pair, PortPool
from mediaproxy.relay.rtp import Kind, kind_of, rtp_header
from mediaproxy.relay.settings import RelayAddress, RelaySettings
from mediaproxy.relay.silence import silenced
from mediaproxy.relay.stream import End, Port, Stream
from mediaproxy.relay.tally import Traffic
from mediaproxy.relay.ties import Ties

_DISABLED = Verdict(Action.REFUSE, "SDP has disabled the stream", early=True, reason=Reason.DISABLED)
_LOOP = Verdict(Action.REFUSE, "a port of this relay: a loop", reason=Reason.LOOP)


class Switchboard:
    """Mutable: the ports of a relay, by their local endpoint."""

    def __init__(self, settings: RelaySettings, rng: random.Random) -> None:
        self.settings = settings
        self.pool = PortPool(settings, rng)
        self.ground = Ground(settings, self.pool)
        self.rng = rng
        self.traffic = Traffic()
        self._ports: dict[Endpoint, Port] = {}
        self.ties = Ties(self._ports, self.pool)

    # -- lending

    def lend(
        self, index: int, addresses: dict[Side, RelayAddress], call_id: str, now: float
    ) -> tuple[Stream | None, list[Effect]]:
        """A new stream with ports of these addresses of the relay; None: no ports are left, and nothing was taken."""
        pairs: dict[Side, Pair] = {}
        effects: list[Effect] = []
        for side, address in addresses.items():
            effects += self._make_room(address, now)
            pair = self.pool.lend(address)
            if pair is None:
                for taken in pairs.values():
                    self.pool.unlend(taken)
                return None, effects
            pairs[side] = pair
        stream = Stream(index, pairs, self.settings, call_id, now, self.traffic)
        for port in stream.ports:
            self._ports[port.local] = port
        return stream, effects

    def adopt(self, ends: Iterable[End]) -> bool:
        """Lend ports that an earlier process had lent. False, and nothing is: one of them cannot be had.
        ``pool.settle`` must follow."""
        ends = tuple(ends)
        if not all(self.pool.may_adopt(end.pair) for end in ends):
            return False
        for end in ends:
            self.pool.adopt(end.pair)
            for port in end.ports:
                self._ports[port.local] = port
        return True

    def _make_room(self, address: RelayAddress, now: float) -> list[Effect]:
        """If no port is free, take one that has cooled though strangers still send to it."""
        if self.pool.free(address):
            return []
        pair = self.pool.force(address, now)
        return removed(pair) if pair else []

    def unlend(self, stream: Stream) -> None:
        """Undo ``lend`` before anybody was told of the ports."""
        for end in stream.ends:
            for port in end.ports:
                del self._ports[port.local]
            self.pool.unlend(end.pair)

    def cool(self, end: End, now: float) -> list[Effect]:
        """The end's party has left. Its ports stay ours, deaf, until they have cooled (calls.md 10)."""
        if end.closed:
            return []
        known: set[str] = set()
        others = self.ties.others(end.ports)
        for port in end.ports:
            port.close()
            del self._ports[port.local]
            known |= port.latch.addresses
        self.pool.cool(end.pair, now, known)
        effects: list[Effect] = [Install(Flow(local=port.local, generation=port.generation)) for port in end.ports]
        for other in others:
            effects += other.sync(now)
        return effects

    def thaw(self, now: float) -> list[Effect]:
        """Give cooled ports back to the plane."""
        return [effect for pair in self.pool.thaw(now) for effect in removed(pair)]

    def drain(self) -> list[Effect]:
        """Give all cooling ports back at once: the relay stops."""
        return [effect for pair in self.pool.drain() for effect in removed(pair)]

    def spiral(self, place: Endpoint, call_id: str) -> bool:
        """Whether an SDP names a port that this relay has lent to a call of the same Call-ID, or one that cools: it has
        been here before. A port of another call is a party (``ties``)."""
        own = self.pool.own(place)
        port = None if own is None else self._ports.get(own)
        return own is not None and (port is None or port.end.stream.call_id == call_id)

    def find(self, local: Endpoint) -> Port | None:
        """The port of a call, lent and not cooling."""
        return self._ports.get(local)

    def withdraw(self, stream: Stream, busy: Endpoint | None, now: float) -> list[Effect]:
        """Undo ``lend`` of a stream. The pair with the port ``busy``, that another program has, is not lent again."""
        effects: list[Effect] = []
        others = self.ties.others(stream.ports)
        for end in stream.ends:
            if end.closed:
                continue
            for port in end.ports:
                port.close()
                del self._ports[port.local]
            if busy in (end.pair.rtp, end.pair.rtcp):
                self.pool.withdraw(end.pair)
            else:
                self.pool.unlend(end.pair)
            effects += removed(end.pair)
        return [*effects, *(effect for other in others for effect in other.sync(now))]

    # -- packets

    def noted(self, slot: SlotCounters) -> None:
        """What the plane has counted at one port."""
        port = self._ports.get(slot.local)
        if port is not None:
            port.noted(slot)

    def beside(self, local: Endpoint) -> list[Endpoint]:
        """Other ports whose counters matter for a packet at this one: that of its RTP, those of who was told this."""
        port = self._ports.get(local)
        if port is None:
            return []
        guests = [guest.local for guest in port.guests]
        return [port.end.rtp.local, *guests] if port.rtcp else guests

    def packet(self, packet: Packet, now: float) -> list[Effect]:
        """Decide on one packet that the plane passed up."""
        port = self._ports.get(packet.local)
        if port is None or port.generation != packet.generation:
            self.pool.heard(packet.local, packet.generation, packet.source, now)
            return []
        port.noted(packet.slot)
        if port.end.idle:
            return self._refuse(port, packet.source, _DISABLED, now)
        if (port.tie is None or port.tie.local != packet.source) and self.pool.ours(packet.source):
            return self._refuse(port, packet.source, _LOOP, now)
        if port.end.credentials is not None and kind_of(packet.data) is Kind.STUN:
            return self._check(port, packet, port.end.credentials, now)
        verdict = Verdict(Action.REFUSE)
        refusal: Verdict | None = None
        for candidate in _candidates(port, packet.source):
            verdict = candidate.latch.judge(packet.source, packet.data, now)
            if verdict.action is Action.FORWARD:
                return self._accept(candidate, port, packet, verdict, now)
            refusal = refusal or verdict
        return self._refuse(port, packet.source, refusal or verdict, now)

    def _refuse(self, port: Port, source: Endpoint, verdict: Verdict, now: float) -> list[Effect]:
        """Count; tell only the first of each source."""
        self.traffic.reasons[verdict.reason] += 1
        if not port.refused.add(source, verdict.why, quiet=verdict.early):
            return []
        stream, side = port.end.stream, port.end.side
        return [
            Report(
                SourceRefused(
                    at=now, call_id=stream.call_id, stream=stream.index, side=side, source=source, why=verdict.why
                )
            )
        ]

    def _check(self, port: Port, packet: Packet, own: Credentials, now: float) -> list[Effect]:
        """An ICE check of the port's party with the relay (RFC 8445 §7.3), or of somebody who does not know the
        password. He is told so, but not without end: he need not be who he says."""
        checked = check(packet.data, packet.source, own)
        effects: list[Effect] = []
        if checked.answer and (checked.valid or port.end.may_refuse(now)):
            effects.append(Send(port.local, packet.source, checked.answer))
        if checked.why:
            return [*effects, *self._refuse(port, packet.source, Verdict(Action.REFUSE, checked.why), now)]
        if checked.valid:
            port.passed = now
        if not checked.nominated:
            return effects
        whose = next((one for one in (port, *port.guests) if one.latch.knows(checked.ufrag)), port)
        verdict = whose.latch.nominate(packet.source, checked.ufrag, now)
        return [*effects, *self._learned(whose, port, packet.source, verdict, now)]

    def _accept(self, port: Port, came_to: Port, packet: Packet, verdict: Verdict, now: float) -> list[Effect]:
        """Forward a packet, and hand the stream to the plane if that packet has settled something."""
        return [*self._forward(port, packet, now), *self._learned(port, came_to, packet.source, verdict, now)]

    def _learned(self, port: Port, came_to: Port, source: Endpoint, verdict: Verdict, now: float) -> list[Effect]:
        effects: list[Effect] = []
        if verdict.latched and port.tells(now):
            stream = port.end.stream
            learned = PeerLearned(
                at=now,
                call_id=stream.call_id,
                stream=stream.index,
                side=port.end.side,
                source=source,
                rank=port.latch.rank,
                rtcp=port.rtcp,
                before=verdict.before,
            )
            effects.append(Report(learned))
        if came_to is port:
            port.native = True  # from now on its party can be reached from its own port
        beside = port.end.ports if port.end.credentials is not None else ()
        for changed in dict.fromkeys((port, port.peer, *beside)):
            if changed is not None and not changed.closed:
                effects += changed.sync(now)
        return effects

    def _forward(self, port: Port, packet: Packet, now: float) -> list[Effect]:
        kind = kind_of(packet.data)
        peer = _exit(port, kind)
        described = port.end.stream.sdp.get(port.end.side)
        handshake = described is not None and described.rtp and kind in (Kind.STUN, Kind.DTLS)
        data = packet.data if handshake else _let_through(port, packet.data, kind)
        route = peer.route(now) if peer is not None and data is not None else None
        if kind is Kind.STUN and peer is not None and peer.end.credentials is not None:
            route = None  # the other party makes its checks with the relay
        if peer is not None and route is not None and peer.limited(route[1]):
            route = route if peer.end.may_send(now, self.settings.unlearned_rate) else None
        if handshake:
            port.passed = now
        else:
            tally = port.end.rtcp.tally if kind is Kind.RTCP and port.rtp_only else port.tally
            tally.accept(packet.data, now, forwarded=route is not None)
        if route is None or data is None:
            return []
        self.traffic.packets += 1
        self.traffic.bytes += len(data)
        return [Send(*route, data)]


def _exit(port: Port, kind: Kind) -> Port | None:
    """The port by which a packet leaves: RTCP by that which the other party has for RTCP."""
    peer = port.outlet
    if peer is not None and kind is Kind.RTCP and not port.rtcp and port.end.splits:
        return peer.end.rtcp if not peer.end.closed else None
    return peer


def _let_through(port: Port, data: bytes, kind: Kind) -> bytes | None:
    """What the other party gets of a packet (control.Switch); None: nothing."""
    gate, stream = port.end.gate, port.end.stream
    if gate.blocked:
        return None
    if not gate.silenced or kind is not Kind.RTP or not stream.audio:
        return data
    codec = stream.format(port.end.side, rtp_header(data).payload_type)
    return None if stream.encrypted else silenced(data, codec)


def _candidates(port: Port, source: Endpoint) -> list[Port]:
    """Whose packet may this be: the port's own party, or one of a fork that was told this port, the likeliest first."""
    if not port.guests:
        return [port]
    return sorted((port, *port.guests), key=lambda candidate: candidate.latch.weigh(source))


def removed(pair: Pair) -> list[Effect]:
    """The effects of giving both ports of a pair back to the plane."""
    return [Remove(local, pair.generation) for local in (pair.rtp, pair.rtcp)]
