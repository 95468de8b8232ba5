"""What the log says about peers that are refused: the first few lines of each source a minute, then a sum.

A source and what was wrong come in, lines to log go out. A flood, even from forged sources, makes neither the log nor
the memory grow.
"""

from mediaproxy.endpoint import Endpoint

PERIOD = 60.0
"Seconds after which counting begins anew."
SOURCES = 1000
"Addresses told apart; all others together are one more."


class Complaints:
    """One per edge, one per door."""

    def __init__(self, limit: int) -> None:
        """``limit``: lines per address and period."""
        self._limit = limit
        self._counts: dict[str, int] = {}
        self._others = 0
        self._until = 0.0
        self.total = 0
        "All of them, since the start."

    def note(self, source: Endpoint | str, text: str, now: float) -> list[str]:
        """The lines to log because of this one. ``source``: a name for whoever has no address of his own."""
        lines = self.summary(now)
        self.total += 1
        address = source if isinstance(source, str) else source.address
        count = self._counts.get(address)
        if count is None and len(self._counts) >= SOURCES:
            self._others += 1
            return lines
        self._counts[address] = (count or 0) + 1
        if (count or 0) < self._limit:
            lines.append(f"{source}: {text}")
        return lines

    def summary(self, now: float) -> list[str]:
        """At the end of a period: how much was not logged."""
        if now < self._until:
            return []
        lines = [
            f"{address}: {count - self._limit} more like these in {PERIOD:g} s"
            for address, count in self._counts.items()
            if count > self._limit
        ]
        if self._others:
            lines.append(f"{self._others} more from other addresses in {PERIOD:g} s")
        if len(lines) > self._limit:
            hidden = sum(self._counts.values()) + self._others
            lines = [f"{hidden} messages of {len(self._counts)} addresses or more were refused in {PERIOD:g} s"]
        self._counts.clear()
        self._others = 0
        self._until = now + PERIOD
        return lines
