"""By what a party is known again when its NAT moves it to another port (calls.md 6): SSRC, sequence, and silence.

Packets and the plane's counters come in, a Trace goes out: a value that says whether a further packet may be the same
sender's. It knows no addresses and decides nothing.
"""

import msgspec
from msgspec.structs import replace

from mediaproxy.relay.flow import SlotCounters
from mediaproxy.relay.rtp import RtpHeader


class Seen(msgspec.Struct, frozen=True):
    """What one packet shows of its sender."""

    header: RtpHeader | None
    "If it is RTP, on a port that is for RTP."
    reporter: int | None
    "SSRC of its sender if it is RTCP, on a port that is for RTCP."


class Trace(msgspec.Struct, frozen=True, array_like=True):
    """What is known of a sender by its packets so far, by whichever path they came."""

    at: float
    "When the last one came."
    ssrc: int | None = None
    "Of its last RTP packet."
    sequence: int = 0
    reporter: int | None = None
    "SSRC of the sender of its last RTCP packet."

    def after(self, seen: Seen, now: float) -> "Trace":
        """With one more packet."""
        if seen.header is not None:
            return replace(self, at=now, ssrc=seen.header.ssrc, sequence=seen.header.sequence)
        return replace(self, at=now, reporter=self.reporter if seen.reporter is None else seen.reporter)

    def noted(self, slot: SlotCounters) -> "Trace":
        """With what the plane has forwarded since."""
        if slot.ssrc is None:
            return replace(self, at=slot.last)
        return replace(self, at=slot.last, ssrc=slot.ssrc, sequence=slot.sequence)

    def continued_by(self, header: RtpHeader, most: int) -> bool:
        """Whether it is the same RTP stream, 1 to ``most`` packets further on."""
        return header.ssrc == self.ssrc and 1 <= (header.sequence - self.sequence) & 0xFFFF <= most
