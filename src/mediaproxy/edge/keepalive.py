"""Keep-alives: when each NATed contact is to be pinged (``natping_interval``).

Bindings come and go; what is due comes out. Each contact has its own moment in the interval, so that ten thousand
phones are pinged evenly and not in one burst. Nothing here sends, and nothing here knows the time but by argument.
"""

import heapq
import zlib
from collections.abc import Iterable
from dataclasses import dataclass

from mediaproxy.edge.binding import Binding
from mediaproxy.edge.hop import Hop, Inbound
from mediaproxy.edge.settings import Transport
from mediaproxy.endpoint import Endpoint
from mediaproxy.nat import TCP_PING, UDP_PING

_Flow = tuple[str, Endpoint, Endpoint, str]
"Transport, received, local, connection: several contacts of one phone need one ping."


@dataclass(frozen=True, slots=True)
class Ping:
    """One keep-alive."""

    hop: Hop
    data: bytes


class KeepAlive:
    """The pings of all contacts."""

    def __init__(self, interval: float) -> None:
        """``interval``: seconds between two pings to one contact; 0: none."""
        self._interval = interval
        self._flows: dict[_Flow, dict[tuple[str, str, str], float]] = {}
        self._of: dict[tuple[str, str, str], _Flow] = {}
        self._sources: dict[tuple[str, Endpoint], int] = {}
        self._heap: list[tuple[float, int, _Flow]] = []
        self._scheduled: set[_Flow] = set()
        self._count = 0

    def __len__(self) -> int:
        return len(self._flows)

    @property
    def deadline(self) -> float | None:
        """When ``due`` should be called next."""
        return self._heap[0][0] if self._heap else None

    def natted(self, inbound: Inbound) -> bool:
        """Whether a contact behind NAT is at this source."""
        return (inbound.transport.value, inbound.source) in self._sources

    def saved(self, bindings: Iterable[Binding], now: float) -> None:
        """These bindings exist, as they are now."""
        for binding in bindings:
            self.removed((binding,))
            if not binding.nat or not binding.reachable:
                continue
            flow = (binding.transport, binding.received, binding.local, binding.connection)
            self._of[binding.key] = flow
            if flow not in self._flows:
                self._flows[flow] = {}
                source = flow[:2]
                self._sources[source] = self._sources.get(source, 0) + 1
            self._flows[flow][binding.key] = binding.expires
            if self._interval > 0 and flow not in self._scheduled:
                self._scheduled.add(flow)
                self._push(flow, now + self._phase(flow, now))

    def removed(self, bindings: Iterable[Binding]) -> None:
        """These bindings are gone."""
        for binding in bindings:
            flow = self._of.pop(binding.key, None)
            if flow is not None:
                self._drop(flow, binding.key)

    def _drop(self, flow: _Flow, key: tuple[str, str, str]) -> None:
        members = self._flows[flow]
        members.pop(key, None)
        if not members:
            del self._flows[flow]
            source = flow[:2]
            self._sources[source] -= 1
            if not self._sources[source]:
                del self._sources[source]

    def _phase(self, flow: _Flow, now: float) -> float:
        """Seconds from now to the flow's moment: the same part of every interval, spread by a hash of who it is."""
        mark = zlib.crc32(f"{flow[0]} {flow[1]} {flow[2]}".encode()) / 2**32
        return (mark * self._interval - now) % self._interval

    def _push(self, flow: _Flow, at: float) -> None:
        self._count += 1
        heapq.heappush(self._heap, (at, self._count, flow))

    def due(self, now: float) -> list[Ping]:
        """The pings whose time has come; expired bindings get none."""
        pings: list[Ping] = []
        while self._heap and self._heap[0][0] <= now:
            at, _, flow = heapq.heappop(self._heap)
            for key, expires in list(self._flows.get(flow, {}).items()):
                if expires <= now:
                    self._of.pop(key, None)
                    self._drop(flow, key)
            if flow not in self._flows:
                self._scheduled.discard(flow)
                continue
            transport = Transport(flow[0])
            hop = Hop(transport, flow[1], flow[2], flow[3], connect=False)
            pings.append(Ping(hop, TCP_PING if transport.reliable else UDP_PING))
            # A server that was stopped for a while does not make up for what it missed.
            after = at + self._interval
            self._push(flow, after if after > now else now + self._phase(flow, now))
        return pings
