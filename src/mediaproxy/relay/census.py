"""How many calls stand where, and what carries their streams, without asking all of them.

A call that has changed comes in and is counted anew; whoever wants the sums gets them at once.
"""

from collections import Counter

from mediaproxy.events import CallState
from mediaproxy.relay.call import Call

_Standing = tuple[CallState, tuple[str, ...], int]


class Census:
    """Mutable: the sums over all calls that are there."""

    def __init__(self) -> None:
        self._known: dict[Call, _Standing] = {}
        self.states: Counter[CallState] = Counter()
        self.streams = 0
        "Relayed ones that no SDP has disabled, of calls that do not linger."
        self.kinds: Counter[str] = Counter()
        "The same by media type."
        self.carried = 0
        "Of these, those that the plane forwards at least one way."

    def note(self, call: Call) -> None:
        """It is new, or may have changed."""
        carried = 0
        kinds: tuple[str, ...] = ()
        for stream in () if call.lingering is not None else call.present():
            if stream.enabled and not stream.closed:
                kinds = (*kinds, stream.kind)
                carried += any([port.offloaded for port in stream.ports])
        standing = (call.state, kinds, carried)
        before = self._known.get(call)
        if standing != before:
            self._leave(before)
            self._known[call] = standing
            self.states[standing[0]] += 1
            self.streams += len(kinds)
            for kind in kinds:
                self.kinds[kind] += 1
            self.carried += carried

    def forget(self, call: Call) -> None:
        """It has ended."""
        self._leave(self._known.pop(call, None))

    def _leave(self, standing: _Standing | None) -> None:
        if standing is not None:
            self.states[standing[0]] -= 1
            self.streams -= len(standing[1])
            for kind in standing[1]:
                self.kinds[kind] -= 1
            self.carried -= standing[2]
