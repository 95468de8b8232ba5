"""An SDP that comes stream by stream (rtpproxy): one of its streams as a question about all of them.

A MediaRequest with ``part`` comes in, one with a stream for each of the call goes out, and which of these it says
nothing about. The answer is about that stream alone again.
"""

import msgspec

from mediaproxy.control import MediaPort, MediaReply, MediaRequest
from mediaproxy.control import Stream as Sdp
from mediaproxy.endpoint import Endpoint
from mediaproxy.relay.call import Call
from mediaproxy.relay.settings import RelaySettings

DISCARD = 9
"Port of RFC 863: where a stream that is switched off is told to be, if it has no ports."
_NOT_TOLD = Sdp(kind="", transport="", told=False)


def widened(question: MediaRequest, call: Call | None) -> tuple[MediaRequest, frozenset[int]]:
    """The question with all streams of the call, and those that it is not about. One without ``part`` as it is."""
    part = question.part
    if part is None or not question.streams:
        return question, frozenset()
    lists = [] if call is None else [call.streams, *(leg.streams for leg in call.legs if leg.streams is not None)]
    count = max([part + 1, *(len(streams) for streams in lists)])
    streams = tuple(question.streams[0] if index == part else _NOT_TOLD for index in range(count))
    return msgspec.structs.replace(question, streams=streams), frozenset(range(count)) - {part}


def narrowed(question: MediaRequest, reply: MediaReply, settings: RelaySettings) -> MediaReply:
    """The reply about the one stream that was asked about; a port that leads nowhere if it is switched off and has
    none."""
    part = question.part
    if part is None or reply.error:
        return reply
    port = reply.ports[part] if part < len(reply.ports) else None
    if port is None and part < len(question.streams) and question.streams[part].endpoint is None:
        version = question.receiver_version
        address = (settings.address(version) if version else None) or settings.addresses[0]
        port = MediaPort(rtp=Endpoint(address.public, DISCARD))
    return msgspec.structs.replace(reply, ports=(port,))
