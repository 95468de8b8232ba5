"""The streams of an SDP as it stands there, for people and programs that compare.

An SDP comes in, one value per m= line goes out: also for lines with port 0 and for those that no relay carries. What a
relay is told instead is ``control.Stream``.
"""

import msgspec

from mediaproxy.control import Direction
from mediaproxy.sdp import Sdp, SdpError, Section
from mediaproxy.sip.message import Message
from mediaproxy.traversal import sdp_part


class SdpStream(msgspec.Struct, frozen=True, kw_only=True):
    """An m= line and what belongs to it."""

    kind: str
    transport: str
    address: str | None
    "Of its c= line, else of the session's, as written without /ttl; a host name too. None: there is none."
    port: int
    "Of the m= line, without the number of ports."
    rtcp_port: int | None
    "Of a=rtcp, else port + 1; None without RTCP: port 0, no RTP, rtcp-mux-only, a=rtcp:0."
    direction: Direction
    "Of the stream, else of the session, else sendrecv."


def sdp_of(message: Message) -> Sdp | None:
    """The SDP in a message, whether or not it negotiates anything. None if there is none that can be read."""
    part = sdp_part(message)
    try:
        return Sdp.parse(part.sdp) if part is not None else None
    except SdpError:
        return None


def streams_of(sdp: Sdp) -> tuple[SdpStream, ...]:
    """One per m= line, in order."""
    return tuple(
        SdpStream(
            kind=section.kind,
            transport=section.transport,
            address=_address(sdp, section),
            port=section.port,
            rtcp_port=section.rtcp[0] or None,
            direction=stream.direction,
        )
        for section, stream in zip(sdp.sections, sdp.streams, strict=True)
    )


def _address(sdp: Sdp, section: Section) -> str | None:
    connection = section.connection or sdp.session.connection
    return None if connection is None else connection.text.partition("/")[0]
