"""What goes wrong again and again is told now and then: a fault that every message meets must not fill the disk."""

from collections.abc import Callable

AGAIN_AFTER = 1.0
"Seconds between two lines about the same thing."
_MOST = 100
"Things are remembered."


class Complaints:
    """Lines for a log, by what they are about."""

    def __init__(self, tell: Callable[[str], None], clock: Callable[[], float]) -> None:
        self._tell = tell
        self._clock = clock
        self._quiet: dict[str, tuple[float, int]] = {}

    def about(self, what: str, line: str) -> None:
        """Tell a line, unless there was one about the same thing just now. The next one says how many were not told.
        ``what`` is nothing that a peer can choose."""
        now = self._clock()
        until, untold = self._quiet.get(what, (float("-inf"), 0))
        if now < until:
            self._quiet[what] = (until, untold + 1)
            return
        if len(self._quiet) >= _MOST:
            self._quiet.clear()
        self._quiet[what] = (now + AGAIN_AFTER, 0)
        self._tell(f"{line} (and {untold} more like it)" if untold else line)
