"""Lossless SDP (RFC 8866): bodies, their streams, and relay ports written into them."""

from mediaproxy.sdp.body import SdpPart, find_sdp
from mediaproxy.sdp.document import Sdp
from mediaproxy.sdp.ice import IcePolicy
from mediaproxy.sdp.relayed import relayed
from mediaproxy.sdp.section import Attribute, Block, Connection, SdpError, Section

__all__ = [
    "Attribute",
    "Block",
    "Connection",
    "IcePolicy",
    "Sdp",
    "SdpError",
    "SdpPart",
    "Section",
    "find_sdp",
    "relayed",
]
