"""Sources that no address vouches for, proving by an RTP stream in sequence that they are somebody (calls.md 2).

RTP headers come in, "that was enough" goes out. The memory is bounded, and a sprayer with many source addresses must
not push out a source that is really sending a stream.
"""

from mediaproxy.endpoint import Endpoint
from mediaproxy.relay.rtp import RtpHeader

_CANDIDATES = 32


class Probation:
    """Mutable: the candidates at one port."""

    __slots__ = ("_needed", "_runs")

    def __init__(self, needed: int) -> None:
        self._needed = needed
        self._runs: dict[Endpoint, tuple[int, RtpHeader]] = {}

    def passed(self, source: Endpoint, header: RtpHeader) -> bool:
        """Count a packet; True when the source has sent enough of them in sequence with one SSRC."""
        count, last = self._runs.pop(source, (0, header))
        in_sequence = header.ssrc == last.ssrc and header.sequence == (last.sequence + 1) & 0xFFFF
        count = count + 1 if in_sequence else 1
        if source not in self._runs and len(self._runs) >= _CANDIDATES:
            weakest = min(self._runs, key=lambda candidate: self._runs[candidate][0])  # the oldest of equals
            del self._runs[weakest]
        self._runs[source] = (count, header)
        return count >= self._needed
