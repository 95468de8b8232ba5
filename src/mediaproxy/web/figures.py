"""What /metrics tells, as values: a Snapshot of what is, and a Chronicle of the calls that have ended.

Whoever knows the server makes the snapshot; events go into the chronicle. Nothing here asks anybody.
"""

from bisect import bisect_left
from collections.abc import Iterable

import msgspec

from mediaproxy.dialects.doorreport import DoorReport
from mediaproxy.events import CallEnded, Event, RelayTotals

MOS = (1.0, 2.0, 2.5, 3.0, 3.3, 3.6, 3.8, 4.0, 4.1, 4.2, 4.3, 4.4)
LOSS = (0.0, 0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.5)
JITTER = (0.001, 0.002, 0.005, 0.01, 0.015, 0.02, 0.03, 0.05, 0.1, 0.2)
"Limits of the histograms, the highest value that still belongs to each; what is above is counted apart."


class Histogram:
    """Mutable: how often which value was seen."""

    def __init__(self, limits: Iterable[float]) -> None:
        self.limits = tuple(limits)
        self.counts = [0] * (len(self.limits) + 1)
        "By limit, the last one for all above; each value is in one of them."
        self.sum = 0.0

    def see(self, value: float) -> None:
        """One more."""
        self.counts[bisect_left(self.limits, value)] += 1
        self.sum += value


class Chronicle:
    """Mutable: how well calls were heard that have ended; each direction of each stream that was measured counts."""

    def __init__(self) -> None:
        self.mos = Histogram(MOS)
        "The average over the call."
        self.lowest_mos = Histogram(MOS)
        self.loss = Histogram(LOSS)
        self.jitter = Histogram(JITTER)
        "The average over the call."

    def fold(self, event: Event) -> None:
        """Take in an event."""
        if not isinstance(event, CallEnded):
            return
        for stream in event.report.streams:
            for side in (stream.caller, stream.callee):
                quality = side.quality
                if quality is None:
                    continue
                self.loss.see(quality.loss)
                for histogram, value in (
                    (self.mos, quality.average_mos),
                    (self.lowest_mos, quality.lowest_mos),
                    (self.jitter, quality.average_jitter),
                ):
                    if value is not None:
                        histogram.see(value)


class RelayFigures(msgspec.Struct, frozen=True, kw_only=True):
    """The relay of this process."""

    totals: RelayTotals
    states: dict[str, int]
    "Calls by CallState."
    where: str
    "What forwards, in words: ``in the kernel (TCX on eth0)``."
    why_not_kernel: str = ""
    "Why media is not relayed in the kernel, although that was tried; else empty."
    refused: dict[str, int] = {}
    "Packets by why they were refused."
    undeliverable: int = 0
    verdicts: dict[str, int] = {}
    "Packets by what the program in the kernel did with them (docs/kernel.md)."
    send_errors: dict[str, int] = {}
    "Packets that the network did not take, by errno name."
    questions: dict[str, int] = {}
    "Of the SIP side, by kind."
    question_errors: dict[str, int] = {}
    "Of these, those answered by an error."
    free: int = 0
    "Pairs of ports that can be lent at once."
    lent: int = 0
    "Pairs that calls have."
    cooling: int = 0
    "Pairs of ended calls that are not lent again yet."


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """The server as it is now."""

    version: str
    started: float
    "Seconds since the epoch."
    relay: RelayFigures | None = None
    "None: this process relays nothing."
    relays: dict[str, bool] = {}
    "Relays that calls may go to, and whether they answer."
    doors: tuple[DoorReport, ...] = ()
    notices_told: int = 0
    "SIP servers were told of calls that had ended by themselves."
    notices_failed: int = 0
    registrations: int | None = None
    "None: nobody registers here."
