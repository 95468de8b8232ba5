"""What there is to say about a call, for operators and records: values made from its state at one moment.

Warnings are in words that somebody who never read this code can act on.
"""

from collections import Counter
from collections.abc import Callable, Iterator

from msgspec.structs import replace

from mediaproxy.control import KnownBy
from mediaproxy.endpoint import Endpoint, Scope, scope
from mediaproxy.events import CallReport, CallState, PartyReport, Refused, Side, SideReport, StreamReport
from mediaproxy.relay import timers
from mediaproxy.relay.call import Call
from mediaproxy.relay.expectation import rtcp_place
from mediaproxy.relay.leg import Leg, Party
from mediaproxy.relay.stream import End, Port, Stream

_SHOWN = 8
_GATES = {"block": "not forwarded", "silence": "replaced by silence"}


def party_report(party: Party, branch: str = "") -> PartyReport:
    """One party as the SIP side described it. ``branch``: of a callee's leg."""
    known = party.phone.known_by is not KnownBy.UNKNOWN
    return PartyReport(
        uri=party.uri,
        tag=party.tag,
        user_agent=party.user_agent,
        signalling=party.phone.endpoint if known else None,
        known_by=party.phone.known_by,
        asymmetric=party.voucher.asymmetric,
        strict_source=party.voucher.strict,
        media_handover=party.voucher.handover,
        label=party.label,
        branch=branch,
    )


def call_report(call: Call, relay: str, plane: str, now: float) -> CallReport:
    """All there is to say about a call."""
    own: Leg | None = None
    if any([leg.streams is not None for leg in call.legs]):
        own = next((leg for leg in call.legs if leg.answered and leg.streams is None), None)
    streams = [_stream_report(call, stream, own, plane, now) for stream in call.streams if stream is not None]
    for leg in call.legs:
        for stream in leg.streams or ():
            if stream is not None:
                streams.append(_stream_report(call, stream, leg, plane, now))
    found = [side.quality for stream in streams for side in (stream.caller, stream.callee) if side.quality is not None]
    return CallReport(
        mos=min([one.average_mos for one in found if one.average_mos is not None], default=None),
        lowest_mos=min([one.lowest_mos for one in found if one.lowest_mos is not None], default=None),
        call_id=call.call_id,
        caller=party_report(call.caller),
        callee=party_report(call.callee, next((leg.branch for leg in call.legs if leg.party is call.callee), "")),
        state=call.state,
        started=call.started,
        answered=call.answered,
        ended=call.over if call.state is CallState.ENDED else None,
        reason=call.reason,
        status=call.status,
        relay=relay,
        dialog_id=call.dialog_id,
        notify=call.notify,
        asked=call.asked,
        ends_at=timers.expiry(call)[0] if call.reason is None else None,
        streams=tuple(streams),
    )


def _stream_report(call: Call, stream: Stream, leg: Leg | None, plane: str, now: float) -> StreamReport:
    offloaded = True in [port.offloaded for port in stream.ports]
    caller, callee = _side_report(call, stream, Side.CALLER, now), _side_report(call, stream, Side.CALLEE, now)
    if stream in call.retiring:
        former = call.retiring[stream]
        caller, callee = _with_former(caller, former.caller, former), _with_former(callee, former.callee, former)
    return StreamReport(
        index=stream.index,
        kind=stream.kind,
        transport=stream.described.transport,
        caller=caller,
        callee=callee,
        leg="" if leg is None else leg.tag,
        branch="" if leg is None else leg.branch,
        held=stream.held,
        disabled=not stream.enabled,
        plane=plane if offloaded else "",
    )


def _side_report(call: Call, stream: Stream, side: Side, now: float) -> SideReport:
    end, other = stream.end(side), stream.end(side.other)
    sdp, tally, latch = stream.sdp.get(side), end.rtp.tally, end.rtp.latch
    codec = stream.codec(side)
    refused, rtcp_refused = _refused(end.rtp), _refused(end.rtcp)
    return SideReport(
        local=end.pair.rtp,
        advertised=end.pair.advertised,
        sdp=sdp.endpoint if sdp is not None else None,
        learned=latch.learned,
        rank=latch.rank,
        codec=codec,
        packets=tally.received,
        bytes=tally.octets,
        rtcp_packets=end.rtcp.tally.received,
        sent=other.rtp.tally.forwarded,
        lost=tally.lost if stream.described.rtp else 0,
        quality=tally.gauge.quality(codec) if tally.gauge is not None and stream.described.rtp else None,
        first_packet=tally.first,
        last_packet=tally.last,
        refused=_worst(end),
        refused_packets=refused + rtcp_refused,
        direction=sdp.direction.value if sdp is not None else "",
        ice=sdp is not None and sdp.ice,
        mux=end.muxed,
        ssrc=tally.ssrc,
        sequence=tally.sequence,
        rtcp_sdp=rtcp_place(sdp) if sdp is not None else None,
        rtcp_learned=end.rtcp.latch.learned,
        rtcp_bytes=end.rtcp.tally.octets,
        rtcp_last=end.rtcp.tally.last,
        rtcp_refused=rtcp_refused,
        switched=end.gate.name,
        warnings=() if call.reason or call.lingering else tuple(_warnings(call, stream, side, now)),
    )


def _with_former(told: SideReport, end: End, stream: Stream) -> SideReport:
    """With what has come to the ports that are about to be replaced."""
    other, rtp, rtcp = stream.end(end.side.other), end.rtp.tally, end.rtcp.tally
    return replace(
        told,
        packets=told.packets + rtp.received,
        bytes=told.bytes + rtp.octets,
        rtcp_packets=told.rtcp_packets + rtcp.received,
        rtcp_bytes=told.rtcp_bytes + rtcp.octets,
        sent=told.sent + other.rtp.tally.forwarded,
        lost=told.lost + (rtp.lost if stream.described.rtp else 0),
        first_packet=rtp.first or told.first_packet,
        last_packet=max((at for at in (rtp.last, told.last_packet) if at is not None), default=None),
    )


def _welcome(port: Port) -> Callable[[Endpoint], bool]:
    """Who may speak at a port by what is known now."""
    return lambda source: port.latch.may_speak(source)


def _refused(port: Port) -> int:
    return 0 if port.refusals is None else port.refusals.packets - port.refusals.excused(_welcome(port))


def _worst(end: End) -> tuple[Refused, ...]:
    """The sources refused most, RTP and RTCP together."""
    if end.rtp.refusals is None and end.rtcp.refusals is None:
        return ()
    sums: Counter[Endpoint] = Counter()
    for port in end.ports:
        for refused in () if port.refusals is None else port.refusals.worst(_welcome(port)):
            sums[refused.source] += refused.packets
    return tuple(Refused(source=source, packets=packets) for source, packets in sums.most_common(_SHOWN))


def _warnings(call: Call, stream: Stream, side: Side, now: float) -> Iterator[str]:
    end = stream.end(side)
    latch, expectation = end.rtp.latch, end.rtp.latch.expectation
    if expectation is not None and expectation.unknown:
        why = "by another IP version than its media" if expectation.signalling else "by a trusted proxy that told none"
        yield (
            f"the {side}'s address is unknown: its SIP comes {why}, and its SDP is private; "
            f"policy latch_unknown = {call.board.settings.latch_unknown} decides"
        )
    name = _party(call, stream, side).facing
    if name and not any(address.name == name for address in call.board.settings.addresses):
        yield f"the SIP server has asked for the relay address {name!r}, and none of relay.addresses has that name"
    if end.gate.name:
        yield f"what the {side} sends is {_GATES[end.gate.name]}, because the SIP server has asked for it"
    yield from _silence_warnings(call, stream, side, now)
    worst = _worst(end)
    if worst:
        packets = "1 packet" if worst[0].packets == 1 else f"{worst[0].packets} packets"
        yield f"{packets} from {worst[0].source} to the {side}'s port refused: {_why(end)}"
    target = end.rtp.target(now)
    if expectation is not None and stream.enabled and target is None:
        said = expectation.anchor.sdp
        yield f"nothing can be sent to the {side}: its SDP says {said}, and no packet has come from it"
    elif target is not None and latch.learned is None and end.rtp.limited(target):
        rate = call.board.settings.unlearned_rate
        yield f"at most {rate} packets/s go to {target} until it sends: it is not the {side}'s signalling address"


def _silence_warnings(call: Call, stream: Stream, side: Side, now: float) -> Iterator[str]:
    end = stream.end(side)
    if stream.held or not stream.enabled:
        return
    heard = end.rtp.tally.last
    since = max(heard or 0.0, stream.changed, call.answered or 0.0, call.resumed)
    silent = now - since
    if call.answered is not None and stream.speaks(side) and silent >= call.board.settings.one_way:
        yield f"nothing received from {side} for {silent:.0f} s"
    expectation = end.rtp.latch.expectation
    if heard is not None or expectation is None or expectation.sdp is None:
        return
    if expectation.sdp.address not in expectation.nearby and scope(expectation.sdp.address) is not Scope.PUBLIC:
        guess = f"; sending to {expectation.target} is a guess" if expectation.target else ""
        yield f"the {side}'s SDP says {expectation.sdp}, a private address, and no packet has come from it yet{guess}"


def _party(call: Call, stream: Stream, side: Side) -> Party:
    own = next((leg for leg in call.legs if leg.streams is not None and stream in leg.streams), None)
    return call.caller if side is Side.CALLER else own.party if own is not None else call.callee


def _why(end: End) -> str:
    return next((port.refusals.why for port in end.ports if port.refusals is not None and port.refusals.why), "")
