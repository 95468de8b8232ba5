"""The one clock of the shells: seconds since the epoch that never jump.

Wall time is read once, at start; from then on the monotonic clock counts. So one float serves timers and records, and
an operator who sets the clock back ends no call. Pure code never imports this: it gets ``now`` as an argument.
"""

import time

_offset = time.time() - time.monotonic()


def now() -> float:
    """Seconds since the epoch, as wall time was when the process started plus what has passed since."""
    return time.monotonic() + _offset


def offset() -> float:
    """Seconds since the epoch when the monotonic clock stood at 0, which is the same for all processes of one boot."""
    return _offset


def go_on(other: float) -> None:
    """Go on with the clock of an earlier process of this boot, whose calls go on: what its ``offset`` was."""
    global _offset
    _offset = other
