"""A SIP server blocks or silences what a party sends (control.SwitchRequest).

The call and the request come in, the parties that are meant are found and their gates turned. What follows for the
plane is the ports' business.
"""

from mediaproxy.control import Stream as Sdp
from mediaproxy.control import SwitchRequest
from mediaproxy.endpoint import address_text
from mediaproxy.events import Side
from mediaproxy.relay.call import Call
from mediaproxy.relay.leg import Party


def switch(call: Call, request: SwitchRequest) -> bool:
    """Turn the gates of the parties that the request means, now and for all that they will be offered. False: there is
    no such party."""
    meant = _meant(call, request)
    whole = not (request.label or request.address or request.tag)
    for party in meant:
        party.gate.turn(request.switch, whole=whole, everybody=request.everybody)
    return bool(meant)


def _meant(call: Call, request: SwitchRequest) -> list[Party]:
    legs = [leg.party for leg in call.legs]
    parties = [call.caller, *legs]
    if request.label:
        return [party for party in parties if party.label == request.label]
    if request.address:
        return _at(call, address_text(request.address) or request.address)
    if request.tag:
        return [party for party in parties if party.tag == request.tag]
    return [*parties, call.invited]


def _at(call: Call, address: str) -> list[Party]:
    """The parties whose SDP names that address."""
    found = []
    if any(_names(stream.sdp.get(Side.CALLER), address) for stream in call.present()):
        found.append(call.caller)
    for leg in call.legs:
        own = [stream.sdp.get(Side.CALLEE) for stream in leg.streams or () if stream is not None]
        if any(_names(sdp, address) for sdp in (*leg.sdp, *own)):
            found.append(leg.party)
    return found


def _names(sdp: Sdp | None, address: str) -> bool:
    return sdp is not None and sdp.endpoint is not None and sdp.endpoint.address == address
