"""Addresses that SDP names, in their usual form: what comes over a socket may be spelled in any way, or be none."""

import msgspec

from mediaproxy.control import Stream as Sdp
from mediaproxy.endpoint import Endpoint, address_text


def clean(sdp: Sdp) -> Sdp:
    """A stream whose endpoints are addresses in their usual form; what is none counts as not told."""
    endpoint, rtcp = _usable(sdp.endpoint), _usable(sdp.rtcp)
    if endpoint is sdp.endpoint and rtcp is sdp.rtcp:
        return sdp
    return msgspec.structs.replace(sdp, endpoint=endpoint, rtcp=rtcp)


def _usable(endpoint: Endpoint | None) -> Endpoint | None:
    if endpoint is None or not 0 < endpoint.port <= 65535:
        return None
    address = address_text(endpoint.address)
    if address is None:
        return None
    return endpoint if address == endpoint.address else Endpoint(address, endpoint.port)
