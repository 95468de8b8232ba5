"""Which targets there are. A target takes any bytes, and raises nothing if all is well."""

from collections.abc import Callable, Mapping

from fuzz.dialects import dialect
from fuzz.parsers import sdp, sip
from mediaproxy.dialects.doorsettings import DoorProtocol

TARGETS: Mapping[str, Callable[[bytes], None]] = {
    "sip": sip,
    "sdp": sdp,
    "v1": dialect(DoorProtocol.MEDIAPROXY1, ("unix", "tcp")),
    "v2": dialect(DoorProtocol.MEDIAPROXY2, ("unix", "tcp")),
    "rtpproxy": dialect(DoorProtocol.RTPPROXY, ("udp", "unix", "tcp")),
    "ng": dialect(DoorProtocol.NG, ("udp", "tcp", "unix")),
}
