"""Lossless SDP (RFC 8866): bodies, their streams, and relay ports written into them."""

from mediaproxy.sdp.body import SdpPart, find_sdp
from mediaproxy.sdp.document import Sdp
from mediaproxy.sdp.rewrite import IcePolicy
from mediaproxy.sdp.section import Attribute, Block, Connection, SdpError, Section

__all__ = ["Attribute", "Block", "Connection", "IcePolicy", "Sdp", "SdpError", "SdpPart", "Section", "find_sdp"]
