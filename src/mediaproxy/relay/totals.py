"""What a relay has done since it started: sums over all calls that ever were.

Beginnings and ends of calls come in; those of packets are counted where packets are (tally.Traffic). Nothing here is
ever taken back, and nothing counts twice.
"""

from collections import Counter

from mediaproxy.events import CallReport, Side
from mediaproxy.relay.call import Call


class Totals:
    """Mutable: the sums over calls."""

    def __init__(self) -> None:
        self.started = 0.0
        "When the relay did."
        self.started_calls = 0
        self.ended_calls: Counter[str] = Counter()
        self.seconds = 0.0
        self.one_way_calls = 0
        self.silent_calls = 0

    def ended(self, call: Call, report: CallReport) -> None:
        """One more call is over."""
        self.ended_calls[str(report.reason)] += 1
        self.seconds += report.duration or 0.0
        if report.answered is None:
            return  # nobody need have spoken
        heard = [any(stream.end(side).rtp.tally.received for stream in call.all_streams()) for side in Side]
        self.one_way_calls += sum(heard) == 1
        self.silent_calls += not any(heard)
