"""A body whose SDP has been given relay ports.

Where the SDP is, what it says and the relay's ports come in, the whole body goes out.
"""

from collections.abc import Sequence

from mediaproxy.control import MediaPort
from mediaproxy.sdp.body import SdpPart
from mediaproxy.sdp.document import Sdp
from mediaproxy.sdp.ice import IcePolicy


def relayed(part: SdpPart, sdp: Sdp, ports: Sequence[MediaPort | None], ice: IcePolicy) -> bytes | None:
    """The body with the ports in its SDP, which is ``sdp``; None if nothing changes. See ``Sdp.with_ports``.

    A relay can be asked about one SDP only. An alternative to it (RFC 2046 §5.1.4) with as many streams is about the
    same media and gets the same ports; one with more or fewer, or one that cannot be read, stays as it is.
    """
    written = bytes(sdp.with_ports(ports, ice=ice))
    others = [_alternative(text, ports, ice) for text in part.alternatives]
    if (written, *others) == (part.sdp, *part.alternatives):
        return None
    return part.with_sdp(written, others)


def _alternative(text: bytes, ports: Sequence[MediaPort | None], ice: IcePolicy) -> bytes:
    if Sdp.count(text) != len(ports):
        return text
    try:
        sdp = Sdp.parse(text)
        usable = [port if section.carried else None for section, port in zip(sdp.sections, ports, strict=True)]
    except ValueError:  # an SdpError
        return text
    return bytes(sdp.with_ports(usable, ice=ice))
