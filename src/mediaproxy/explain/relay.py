"""An answer of a media relay that somebody makes up, to see what would become of a message.

The text ``ADDRESS PORT...`` comes in; the MediaReply to a MediaRequest goes out.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Self

from mediaproxy.control import ConfirmRequest, EndRequest, MediaPort, MediaReply, MediaRequest, Question, Stream
from mediaproxy.endpoint import Endpoint, address_text

_FORM = 'expected "ADDRESS PORT...", such as "203.0.113.5 60000 60002": one port per m= line, 0 where its port is 0'
_PRETENDED = "192.0.2.1"
"RFC 5737: nobody's address."


class RelayError(ValueError):
    """Text that is no answer; the error says what was expected."""


@dataclass(frozen=True, slots=True)
class RelayAnswer:
    """The answer of a relay to whatever it is asked."""

    address: str
    ports: tuple[int, ...] | None
    "One per stream, 0: none for it; None: a suitable one for each."

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``ADDRESS PORT...``. RelayError if it is anything else."""
        host, *ports = text.split() or [""]
        address = address_text(host)
        if address is None:
            raise RelayError(f"{host!r} is not an IP address; {_FORM}")
        return cls(address, tuple(_port(port) for port in ports))

    @classmethod
    def pretended(cls) -> Self:
        """What any relay might answer."""
        return cls(_PRETENDED, None)

    def to(self, question: Question) -> MediaReply:
        """The reply. It may have more or fewer ports than there are streams: that is for who asks to judge. RelayError
        if a port leaves none for RTCP."""
        match question:
            case MediaRequest():
                return MediaReply(ports=self._media_ports(question.streams))
            case ConfirmRequest() | EndRequest():
                return MediaReply()

    def _media_ports(self, streams: Sequence[Stream]) -> tuple[MediaPort | None, ...]:
        ports = self.ports
        if ports is None:
            ports = tuple(10_000 + 2 * number for number in range(len(streams)))
        return tuple(self._media_port(stream, port) for stream, port in zip_longest(streams, ports) if port is not None)

    def _media_port(self, stream: Stream | None, port: int) -> MediaPort | None:
        """A stream that gets no ports gets none, whatever the text says."""
        if stream is None or stream.endpoint is None or not port:
            return None
        rtp = Endpoint(self.address, port)
        if stream.rtcp is None:
            return MediaPort(rtp=rtp)
        if port == 65535:
            raise RelayError(f"port {port} leaves none for RTCP; {_FORM}")
        return MediaPort(rtp=rtp, rtcp=rtp.with_port(port + 1))


def _port(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 5 or int(text) > 65535:
        raise RelayError(f"{text!r} is not a port (0..65535); {_FORM}")
    return int(text)
