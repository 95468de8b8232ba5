"""When new calls are turned away: rtpengine's limits, with its texts, by which SIP servers choose another relay.

How busy the host is comes in, a text goes out.
"""

from typing import Protocol

from mediaproxy.dialects.ng.settings import NgSettings

SESSIONS = "Parallel session limit reached"
CPU = "CPU usage limit exceeded"
LOAD = "Load limit exceeded"
BANDWIDTH = "Bandwidth limit exceeded"


class Busy(Protocol):
    """How busy this host and its relays are now."""

    @property
    def sessions(self) -> int:
        """Calls."""

    @property
    def load(self) -> float:
        """Load average of the last minute."""

    @property
    def cpu(self) -> float:
        """Use of all CPUs in the last half second or more, in percent."""

    @property
    def bandwidth(self) -> float:
        """Bytes a second that all relays have forwarded lately."""


class Idle:
    """Nothing to do, for whoever has no limits."""

    sessions = 0
    load = cpu = bandwidth = 0.0


def exceeded(settings: NgSettings, busy: Busy) -> str:
    """Which limit keeps out new calls; empty: none does."""
    if settings.max_sessions is not None and busy.sessions >= settings.max_sessions:
        return SESSIONS
    if settings.max_cpu is not None and busy.cpu > settings.max_cpu:
        return CPU
    if settings.max_load is not None and busy.load > settings.max_load:
        return LOAD
    if settings.max_bandwidth is not None and busy.bandwidth > settings.max_bandwidth:
        return BANDWIDTH
    return ""
