"""What has come to one lent port from the party it faces: packets, bytes, times, codec, loss.

Packets that user space forwarded come in one by one, those of the plane as cumulative counters; sums go out in which
no packet counts twice.
"""

from collections import Counter

import msgspec

from mediaproxy.relay.flow import Carried, SlotCounters
from mediaproxy.relay.quality import Gauge
from mediaproxy.relay.rtp import Kind, RtpHeader, kind_of, rtp_header


class Traffic:
    """Mutable: packets of all ports that ever were lent."""

    __slots__ = ("bytes", "noted", "packets", "reasons")

    def __init__(self) -> None:
        self.packets = 0
        "Received from parties and sent on by user space, of any kind."
        self.bytes = 0
        "UDP payload bytes of these."
        self.reasons: Counter[str] = Counter()
        "Packets that it refused, by why (latch.Verdict)."
        self.noted = [0, 0, 0]
        "Packets, bytes and refused packets of the plane, as far as its counters have been read."

    def totals(self, carried: Carried | None = None) -> tuple[int, int, int]:
        """Packets, bytes and refused packets. ``carried``: all that the plane has carried; None: what is noted."""
        plane = self.noted if carried is None else (carried.packets, carried.bytes, carried.dropped)
        return self.packets + plane[0], self.bytes + plane[1], self.reasons.total() + plane[2]


class Tally(msgspec.Struct, eq=False):
    """Mutable: the counters of one port."""

    traffic: Traffic = msgspec.field(default_factory=Traffic)
    "The sums over all ports that it adds to."
    first: float | None = None
    last: float | None = None
    "When the last accepted packet came, by whichever path."
    recent: tuple[int, ...] = ()
    "Payload types of the RTP packets, that of the last one first; at most 4."
    gauge: Gauge | None = None
    "What the plane has measured of RTP; None: nothing."
    _aside: int = 0
    "RTP packets that user space handled since the plane last measured: to it they are a gap."
    _aside_at: float = 0.0
    "When the last one came."
    _received: int = 0
    _forwarded: int = 0
    _bytes: int = 0
    _plane_received: int = 0
    _plane_forwarded: int = 0
    _plane_bytes: int = 0
    _plane_undelivered: int = 0
    _updated: int = 0
    "Packets at the last look at the sequence numbers."
    _ssrc: int | None = None
    _sequence: int = 0
    _expected: int = 0
    "Packets that the sequence numbers say were sent."
    _unmeasured: int = 0
    "Packets received while they said nothing."

    @property
    def received(self) -> int:
        """Packets accepted from the party."""
        return self._received + self._plane_received

    @property
    def forwarded(self) -> int:
        """Those of them that were sent on to the other party."""
        return self._forwarded + self._plane_forwarded

    @property
    def octets(self) -> int:
        """UDP payload bytes received."""
        return self._bytes + self._plane_bytes + self._plane_undelivered

    @property
    def ssrc(self) -> int | None:
        """SSRC of the last RTP packet; None: there was none, or nobody looked for a while."""
        return self._ssrc

    @property
    def sequence(self) -> int:
        """Its sequence number."""
        return self._sequence

    @property
    def lost(self) -> int:
        """Packets that the sequence numbers say were lost before they reached us (RFC 3550 §6.4.1); 0 if unknown."""
        lost = self._expected - (self.received - self._unmeasured)
        return max(0, lost if self.gauge is None else lost + self.gauge.all_lost)

    def accept(self, data: bytes, now: float, *, forwarded: bool) -> None:
        """One packet that user space handled."""
        self._received += 1
        self._bytes += len(data)
        self._forwarded += forwarded
        self._seen(now)
        if kind_of(data) is Kind.RTP:
            header = rtp_header(data)
            self._sequenced(header)
            if self.gauge is not None:
                self._aside, self._aside_at = self._aside + 1, now
        else:
            self._unmeasured += 1
            self._updated += 1

    def noted(self, slot: SlotCounters) -> bool:
        """The plane's counters; older ones than those known change nothing. True: ``gauge`` has something to judge."""
        packets, last = slot.packets, slot.last
        received = packets + slot.undeliverable
        if received <= self._plane_received:
            return False
        noted = self.traffic.noted
        noted[0] += packets - self._plane_forwarded
        noted[1] += slot.bytes - self._plane_bytes
        self._plane_received, self._plane_forwarded, self._plane_bytes = received, packets, slot.bytes
        self._plane_undelivered = slot.undeliverable_bytes
        if last:
            if self.first is None:
                self.first = last
            if self.last is None or last > self.last:
                self.last = last
        if slot.ssrc is None or slot.payload_type is None:
            return False
        if slot.rtp:
            return self._measured(slot, slot.payload_type)
        self._sequenced(RtpHeader(slot.payload_type, slot.sequence, slot.ssrc))
        return False

    def _measured(self, slot: SlotCounters, payload_type: int) -> bool:
        """The plane looks at each sequence number itself: it knows better than who looks now and then."""
        if self.recent[:1] != (payload_type,):
            self._recall(payload_type)
        received = self._received + self._plane_received
        self._unmeasured += received - self._updated
        self._updated = received
        self._ssrc, self._sequence = slot.ssrc, slot.sequence
        if self.gauge is None:
            self.gauge = Gauge(since=self.first or 0.0)
        aside = 0
        if self._aside and slot.last > self._aside_at:
            aside, self._aside = self._aside, 0
        return self.gauge.note(slot, aside)

    def renew(self) -> None:
        """The plane counts from 0 again; what it had counted stays."""
        self._received, self._forwarded, self._bytes = self.received, self.forwarded, self.octets
        self._plane_received = self._plane_forwarded = self._plane_bytes = self._plane_undelivered = 0
        if self.gauge is not None:
            self.gauge.renew()

    def absorb(self, former: "Tally") -> None:
        """Count on from another port, in whose place this one faces the same party."""
        self._received += former.received
        self._forwarded += former.forwarded
        self._bytes += former.octets
        self._updated += former.received
        self._unmeasured += former.received  # by itself; what was lost there is told as if it had been sent here
        self._expected += former.lost
        self.recent = self.recent or former.recent
        for at in (former.first, former.last):
            if at is not None:
                self.first = at if self.first is None else min(self.first, at)
                self.last = at if self.last is None else max(self.last, at)
        if self.gauge is None and former.gauge is not None:
            self.gauge = former.gauge
            self._expected -= self.gauge.all_lost
            self.gauge.renew()

    def skip(self, slot: SlotCounters) -> None:
        """The plane has counted on while nobody looked. So many may have come that their sequence numbers went round:
        what they say of losses is not known."""
        if slot.packets + slot.undeliverable - self._plane_received >= 0x4000:
            self._ssrc = None

    def _seen(self, at: float) -> None:
        self.first = at if self.first is None else self.first
        self.last = at if self.last is None else max(self.last, at)

    def _sequenced(self, header: RtpHeader) -> None:
        """Compare what came since the last look with how far the sequence numbers went."""
        if self.recent[:1] != (header.payload_type,):
            self._recall(header.payload_type)
        came, self._updated = self.received - self._updated, self.received
        ahead = (header.sequence - self._sequence) & 0xFFFF
        if header.ssrc != self._ssrc or 0x4000 <= ahead < 0xC000:
            # A new stream: how much of the old one belonged to this interval is unknown.
            self._ssrc = header.ssrc
            self._unmeasured += came - 1
            self._expected += 1
        elif ahead < 0x4000:
            self._expected += ahead
        else:
            return  # reordered: counted as sent when its successor came
        self._sequence = header.sequence

    def _recall(self, payload_type: int) -> None:
        self.recent = (payload_type, *[number for number in self.recent if number != payload_type][:3])
