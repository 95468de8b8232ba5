"""How well what a party sends comes to the relay: loss, jitter, and what a listener would say of it (MOS).

Counters of a plane that measures come in, a Quality goes out: as it is now, and at its worst and on average over the
call's life. What a plane has not measured is None, never a guess.

The estimate is the E-model of ITU-T G.107 (06/2015) with its default values, simplified:

    R = 93.2 - Id - Ie,eff                                     G.107 §7.1; R0 - Is of the defaults is 93.2, A is 0
    Id = 0.024 d + 0.11 (d - 177.3) [d > 177.3]                d in ms: the approximation of G.107 §7.4 by R. Cole and
                                                               J. Rosenbluth, ACM SIGCOMM CCR 31(2), 2001
    Ie,eff = Ie + (95 - Ie) Ppl / (Ppl / BurstR + Bpl)         G.107 §7.5, Ppl in per cent
    MOS = 1 + 0.035 R + R (R - 60) (100 - R) 7e-6              G.107 annex B; 1 below R = 6.5, 4.5 from R = 100

A relay knows no one-way delay: d is only that of a receiver whose buffer holds twice the jitter, and 10 ms for coding.
So the network's delay costs nothing here, and what is lost between us and the listener is not seen: the estimate is an
upper bound.
"""

from typing import NamedTuple

import msgspec

from mediaproxy.events import Quality
from mediaproxy.relay.flow import SlotCounters

INTERVAL = 8.0
"Seconds that are judged together at least."
FEWEST = 100
"Packets that an interval must have: where one of two is lost, that says nothing."
_FEWEST_EVER = 10
"Packets of a call that is too short for an interval."
_CODING = 0.010
"Seconds."


class Coding(NamedTuple):
    """What a codec costs."""

    impairment: float
    "Ie: without any loss."
    robustness: float
    "Bpl: the higher, the less loss is heard."


CODINGS = {
    "pcmu": Coding(0.0, 25.1),
    "pcma": Coding(0.0, 25.1),
    "g729": Coding(11.0, 19.0),
    "g723": Coding(15.0, 16.1),
    "gsm-efr": Coding(5.0, 10.0),
    "amr": Coding(5.0, 10.0),
}
"""ITU-T G.113 (11/2007) appendix I, by RTP encoding name: G.711 with its packet loss concealment, which today's phones
have (without it Bpl is 4.3); G.729A with VAD; G.723.1 at 6.3 kbit/s with VAD; GSM-EFR, and AMR at 12.2 kbit/s, which is
the same. Codecs for which it gives no Bpl on the narrow-band scale (GSM, G.726, G.722, Opus) are not judged."""


def rating(codec: str, loss: float, jitter: float | None, burst: float = 1.0) -> float | None:
    """R, 0 to 93.2; None: nothing is known of the codec, or the jitter was not measured. ``codec``: RTP encoding name
    in any case. ``loss``: 0 to 1. ``jitter``: seconds (RFC 3550 §6.4.1). ``burst``: BurstR, 1 for losses at random,
    which is all that counters can tell, up to 2."""
    coding = CODINGS.get(codec.lower())
    if coding is None or jitter is None:
        return None
    percent = 100.0 * min(max(loss, 0.0), 1.0)
    delay = 1000.0 * (2.0 * max(jitter, 0.0) + _CODING)
    delayed = 0.024 * delay + 0.11 * max(0.0, delay - 177.3)
    heard = coding.impairment + (95.0 - coding.impairment) * percent / (percent / burst + coding.robustness)
    return max(0.0, 93.2 - delayed - heard)


def mos(rating: float) -> float:
    """The mean opinion score of an R, 1 (bad) to 4.5."""
    if rating >= 100.0:
        return 4.5
    return max(1.0, 1.0 + 0.035 * rating + rating * (rating - 60.0) * (100.0 - rating) * 7e-6)


def estimate(codec: str, loss: float, jitter: float | None) -> float | None:
    """The MOS of ``rating``."""
    found = rating(codec, loss, jitter)
    return None if found is None else mos(found)


class Gauge(msgspec.Struct, array_like=True, gc=False):
    """Mutable: what the plane has measured of one port's RTP. A value of the journal as it is."""

    packets: int = 0
    "By earlier countings of the plane."
    lost: int = 0
    "Likewise."
    plane_packets: int = 0
    "By the present one."
    plane_lost: int = 0
    jitter: float | None = None
    "At the last packet."
    at: float = 0.0
    "When the last packet came."
    since: float = 0.0
    "When the interval began."
    judged_packets: int = 0
    "All of them at that time."
    judged_lost: int = 0
    intervals: int = 0
    "That are over."
    jitters: float = 0.0
    "Sum of their jitters."
    timed: int = 0
    "Of how many."
    jitter_peak: float | None = None
    scores: float = 0.0
    "Sum of MOS times packets."
    scored: int = 0
    "Packets of these intervals."
    latest: float | None = None
    "MOS of the last interval."
    lowest: float | None = None

    @property
    def all_lost(self) -> int:
        """Packets that were lost, less those that came twice or late: may be below 0."""
        return self.lost + self.plane_lost

    def note(self, slot: SlotCounters, aside: int = 0) -> bool:
        """The plane's counters, newer than those before. True: an interval is over, to be judged. ``aside``: packets
        that went another way meanwhile, so that what is missing of the sequence numbers may be these."""
        self.lost -= min(aside, max(0, slot.lost - self.plane_lost))
        self.plane_packets, self.plane_lost, self.jitter, self.at = slot.rtp, slot.lost, slot.jitter, slot.last
        if not self.since:
            self.since = self.at
        if self.at - self.since < INTERVAL:
            return False
        sent = self.packets + slot.rtp + self.lost + slot.lost - self.judged_packets - self.judged_lost
        return sent >= FEWEST

    def judge(self, codec: str) -> None:
        """The interval is over; ``codec``: what was heard in it."""
        sent, loss = self._sent()
        self.since = self.at
        self.judged_packets, self.judged_lost = self.packets + self.plane_packets, self.lost + self.plane_lost
        self.intervals += 1
        jitter = self.jitter
        if jitter is not None:
            self.jitters += jitter
            self.timed += 1
            if self.jitter_peak is None or jitter > self.jitter_peak:
                self.jitter_peak = jitter
        self.latest = score = estimate(codec, loss, jitter)
        if score is not None:
            self.scores += score * sent
            self.scored += sent
            if self.lowest is None or score < self.lowest:
                self.lowest = score

    def renew(self) -> None:
        """The plane counts from 0 again; what it had counted stays."""
        self.packets, self.lost = self.packets + self.plane_packets, self.all_lost
        self.plane_packets = self.plane_lost = 0

    def quality(self, codec: str) -> Quality:
        """How it stands, with the interval that is not over."""
        now = msgspec.structs.replace(self)
        fewest = FEWEST if self.intervals else _FEWEST_EVER
        if now._sent()[0] >= fewest:
            now.judge(codec)
        packets, lost = self.packets + self.plane_packets, max(0, self.all_lost)
        return Quality(
            packets=packets,
            lost=lost,
            loss=lost / (packets + lost) if packets else 0.0,
            jitter=self.jitter,
            average_jitter=now.jitters / now.timed if now.timed else None,
            highest_jitter=now.jitter_peak,
            mos=now.latest,
            average_mos=now.scores / now.scored if now.scored else None,
            lowest_mos=now.lowest,
        )

    def _sent(self) -> tuple[int, float]:
        """Packets that were sent since the interval began, and which part of them was lost."""
        came = self.packets + self.plane_packets - self.judged_packets
        lost = max(0, self.all_lost - self.judged_lost)
        return came + lost, lost / (came + lost) if came + lost else 0.0
