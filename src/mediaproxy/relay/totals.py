"""What a relay has done since it started: sums over all calls that ever were.

Beginnings and ends of calls come in; those of packets are counted where packets are (tally.Traffic). Nothing here is
ever taken back, and nothing counts twice.
"""

from collections import Counter

from mediaproxy.events import CallReport
from mediaproxy.relay.call import Call


class Totals:
    """Mutable: the sums over calls."""

    def __init__(self) -> None:
        self.started = 0.0
        "When the relay did."
        self.started_calls = 0
        self.ended_calls: Counter[str] = Counter()
        self.seconds = self.squares = 0.0
        self.mos = self.mos_squares = 0.0
        self.mos_samples = 0
        self.one_way_calls = 0
        self.silent_calls = 0

    def ended(self, call: Call, report: CallReport) -> None:
        """One more call is over."""
        self.ended_calls[str(report.reason)] += 1
        seconds = report.duration or 0.0
        self.seconds += seconds
        self.squares += seconds * seconds
        for stream in report.streams:
            for side in (stream.caller, stream.callee):
                mos = None if side.quality is None else side.quality.average_mos
                if mos is not None:
                    self.mos += mos
                    self.mos_squares += mos * mos
                    self.mos_samples += 1
        if report.answered is None:
            return  # nobody need have spoken
        streams = call.all_streams()
        caller = any([stream.caller.rtp.tally.received for stream in streams])
        callee = any([stream.callee.rtp.tally.received for stream in streams])
        self.one_way_calls += caller is not callee
        self.silent_calls += not (caller or callee)
