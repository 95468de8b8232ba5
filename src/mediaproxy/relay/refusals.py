"""The sources that were not let in at one port, counted, so that "no audio" has a visible reason (calls.md 2).

Sources come in, one "this one is new" each and the worst eight go out. The memory is bounded, and so is the number of
new ones told, however many addresses an attacker invents.
"""

from collections.abc import Callable

from mediaproxy.endpoint import Endpoint
from mediaproxy.events import Refused

_REMEMBERED = 64
_TOLD = 32
_SHOWN = 8


class Refusals:
    """Mutable: refused packets of one port."""

    __slots__ = ("_early", "_packets", "_sources", "_told", "dropped", "why")

    def __init__(self) -> None:
        self._packets = 0
        self.dropped = 0
        "Packets that the plane dropped because more came than a decision can need: nobody's in particular."
        self.why = ""
        "Reason of the last one."
        self._sources: dict[Endpoint, int] = {}
        self._early: dict[Endpoint, int] = {}
        "Of these, packets that came before the SDP that tells who their sender is."
        self._told: set[Endpoint] = set()

    @property
    def packets(self) -> int:
        """All of them, also of sources that are not remembered."""
        return self._packets + self.dropped

    def add(self, source: Endpoint, why: str, *, quiet: bool = False) -> bool:
        """Count one packet. True if its source should be told of: it is new, and not ``quiet``."""
        self._packets += 1
        self.why = why
        if source not in self._sources and len(self._sources) >= _REMEMBERED:
            self._make_room()
        if source in self._sources or len(self._sources) < _REMEMBERED:
            self._sources[source] = self._sources.get(source, 0) + 1
            if quiet:
                self._early[source] = self._early.get(source, 0) + 1
        if quiet or source in self._told or len(self._told) >= _TOLD:
            return False
        self._told.add(source)
        return True

    def renew(self) -> None:
        """The plane counts from 0 again; what it had counted stays."""
        self._packets, self.dropped = self.packets, 0

    def _make_room(self) -> None:
        """Forget the oldest source that sent only once: a sprayer invents those, a phone sends streams."""
        once = next((source for source, packets in self._sources.items() if packets == 1), None)
        if once is not None:
            del self._sources[once]
            self._early.pop(once, None)

    def excused(self, welcome: Callable[[Endpoint], bool]) -> int:
        """Packets of sources that turned out to be ``welcome`` and had only come too early: a phone that speaks before
        its answer has reached us is no stranger."""
        return sum(packets for source, packets in self._early.items() if welcome(source))

    def worst(self, welcome: Callable[[Endpoint], bool] = lambda source: False) -> tuple[Refused, ...]:
        """The sources refused most, at most eight, the worst first; without what is ``excused``."""
        counts = {
            source: packets - (self._early.get(source, 0) if welcome(source) else 0)
            for source, packets in self._sources.items()
        }
        ordered = sorted(counts.items(), key=lambda item: -item[1])[:_SHOWN]
        return tuple(Refused(source=source, packets=packets) for source, packets in ordered if packets)
