"""What a message's SDP says of where its sender is."""

from mediaproxy.endpoint import address_text
from mediaproxy.sdp import Connection, Sdp, SdpError, find_sdp
from mediaproxy.sip.message import Message

_MOST_STREAMS = 1024
"An SDP with more is not read: 4 000 fit into 64 KiB, and take 70 ms."


def sdp_of(message: Message) -> Sdp | None:
    """The SDP of a message; None if it has none that can be read."""
    body = message.body
    if not body:
        return None
    part = find_sdp(body, message.header("content-type"), message.header("content-encoding") or "")
    if part is None or Sdp.count(part.sdp) > _MOST_STREAMS:
        return None
    try:
        return Sdp.parse(part.sdp)
    except SdpError:
        return None


def media_hosts(message: Message) -> list[str]:
    """The host of every c= line, as written, without ``/ttl``."""
    sdp = sdp_of(message)
    blocks = () if sdp is None else (sdp.session, *sdp.sections)
    return [host_of(connection) for block in blocks for connection in block.connections]


def host_of(connection: Connection) -> str:
    """The host of a c= line, as written, without ``/ttl``."""
    return connection.text.partition("/")[0]


def said_address(connection: Connection) -> str | None:
    """The address that a c= line consists of, in canonical text; None if it is a name, or has a ``/ttl``."""
    return address_text(connection.text)
