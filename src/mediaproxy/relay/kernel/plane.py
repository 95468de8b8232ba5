"""The kernel plane: learned streams are forwarded by a program in the kernel, everything else comes up to one socket.

Flows come in from ``relay/service.py`` and are in the kernel when ``install`` returns; packets that may change a
decision go out. ``relay/userspace.py`` is the specification. No port has a socket or a file descriptor. It must never
let the program see half of a flow, never give a slot to two flows, never take a stream out of the kernel that goes on.

What outlives the process is in a BPF filesystem (pins.py); where there is none, streams end with the process.
"""

import asyncio
import errno
import heapq
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from mediaproxy import clock
from mediaproxy.endpoint import Endpoint
from mediaproxy.relay.bpf.objects import unavailable
from mediaproxy.relay.flow import Carried, Flow, Packet, SlotCounters
from mediaproxy.relay.kernel.bank import Bank, Lent
from mediaproxy.relay.kernel.estate import Estate
from mediaproxy.relay.kernel.netlink import Changes
from mediaproxy.relay.kernel.receiver import Arrival, Receiver
from mediaproxy.relay.kernel.sender import Sender
from mediaproxy.relay.kernel.translation import routed
from mediaproxy.relay.settings import RelaySettings
from mediaproxy.relay.slots import Reason
from mediaproxy.relay.sockets import raise_file_limit

log = logging.getLogger("mediaproxy.relay")

_BEAT = 0.2
"Seconds between two heartbeats; after one second without, the program takes the process for dead (calls.md 13)."
_SENDERS = 512
"Sockets for sending at most: streams that are being learned at a time."
_ROUTED = 200
"Ports whose ways are looked up anew in one turn of the event loop."
_NARROWED = 5.0
"Seconds between two looks at whether ways have become narrower."
_LOOKED_AT, _ASKED = 4096, 50
"Slots and ways per heartbeat: a millisecond or two."


class KernelPlane:
    """A Plane (relay/flow.py) in the kernel. Needs a running event loop from ``start`` to ``close``."""

    name = "kernel"
    measures = True

    def __init__(self, settings: RelaySettings, bpffs: Path | None, name: str) -> None:
        """Load everything and take over what an earlier process of this ``name`` has left. ``bpffs``: None if nothing
        is to outlive this one. FastPathUnavailable says what this host lacks; then nothing has changed. OSError if
        another relay has these ports."""
        self._settings = settings
        self._lent: dict[Endpoint, Lent] = {}
        self._settling: list[tuple[float, int, Endpoint]] = []
        "(when, generation, port): sources that are not settled yet."
        self._left: set[Endpoint] | None = None
        "Ports taken back since what was queued for them was last read; None: whatever was there before us."
        self._to_route: list[Endpoint] = []
        self._to_look_at: list[tuple[Bank, range]] = []
        "Slots that may have long packets."
        self._to_measure: list[Lent] = []
        "Ports whose packets are long, and the ways of these are still to be looked at."
        self._measure_at = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._router: asyncio.Handle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._changes: Changes | None = None
        self._receive: Callable[[Packet], None] = lambda packet: None
        self._sender = Sender(_most_senders())
        addresses = [address.bind for address in settings.addresses]
        try:
            self._receiver = Receiver(addresses, self._generation, self._deliver)
        except OSError as error:
            raise unavailable("a receiving socket", error) from error
        try:
            self._estate = Estate(settings, bpffs, name, self._receiver.sockets)
        except BaseException:
            self._receiver.close()
            raise
        self.lasting = self._estate.lasting
        self._banks = self._estate.banks
        self._ways = self._estate.ways

    # -- the Plane protocol

    @property
    def why_not_lasting(self) -> str:
        """Why streams end with this process although they should not; else empty."""
        return self._estate.why_not_lasting

    def start(self, receive: Callable[[Packet], None]) -> None:
        """Begin to pass packets up. Called once, with the event loop running."""
        assert self._loop is None, "started twice"
        self._receive = receive
        self._loop = asyncio.get_running_loop()
        self._changes = Changes(self._changed, self._ways.routers)
        self._changes.heed(self._ways.fickle)
        self._receiver.start()
        self._tick()
        self._loop.call_soon(self._estate.give_up_left)  # by then calls have been installed again

    def adopt(self) -> Iterable[tuple[Flow, SlotCounters]]:
        """The flows that an earlier process has left, with their counters."""
        found = []
        for bank in self._banks:
            for lent in bank.lent.values():
                self._lent[lent.flow.local] = lent
                found.append((lent.flow, bank.adopt(lent, clock.offset())))
        return found

    def install(self, flow: Flow) -> None:
        """Lend the port of the flow, or change its flow. OSError if the port cannot be had."""
        lent = self._lent.get(flow.local)
        if lent is None or lent.flow.generation != flow.generation:
            bank, index = self._place(flow.local)
            if lent is not None:
                self._take_back(lent)
            if self._left is None or flow.local in self._left:  # what is queued may have come to the earlier lending
                self._receiver.drain()
                self._left = set()
            self._sender.claim(flow.local)
            lent = self._lent[flow.local] = bank.lend(index, flow)
        lent.flow = flow
        lent.way = self._ways.find(flow.local, routed(flow, lent.bank.ports))
        lent.settled = self._settles(flow)
        lent.bank.store(lent)

    def remove(self, local: Endpoint, generation: int) -> None:
        """Take the port back."""
        lent = self._lent.get(local)
        if lent is not None and lent.flow.generation == generation:
            self._take_back(lent)
            self._estate.tidy()

    def send(self, local: Endpoint, target: Endpoint, data: bytes) -> None:
        """Send one datagram from a lent port. What the network refuses is counted."""
        lent = self._lent.get(local)
        if lent is None:
            self.send_errors["no_socket"] += 1
        else:
            self._sender.send(local, target, data, lent.flow.tos)

    def counters(self, only: Iterable[Endpoint] | None = None) -> Iterator[SlotCounters]:
        """The counters of the flows to which something has come since the last sweep; with ``only``, of all these."""
        offset = clock.offset()
        if only is None:
            for bank in list(self._banks):
                yield from bank.sweep(offset)
            return
        for local in only:
            lent = self._lent.get(local)
            if lent is not None:
                yield lent.bank.read(lent, offset)

    def carried(self) -> Carried:
        """The sums over all flows since this process started."""
        return sum((bank.carried() for bank in self._banks), self._estate.carried)

    def close(self, *, keep: bool = False) -> None:
        """Take everything out of the kernel. ``keep``: but what is pinned. A second call does nothing."""
        for handle in (self._timer, self._router):
            if handle is not None:
                handle.cancel()
        self._timer = self._router = None
        if self._changes is not None:
            self._changes.close()
            self._changes = None
        self._receiver.close()
        self._sender.close()
        self._estate.close(keep=keep)
        self._lent.clear()
        self._settling.clear()
        self._to_look_at.clear()

    # -- what an operator is shown

    @property
    def send_errors(self) -> Counter[str]:
        """Packets that the network did not take while streams were learned, by errno name."""
        return self._sender.errors

    @property
    def hooks(self) -> str:
        """Where the programs hang, in words: ``TCX on lo and eth0``."""
        return self._estate.hooks

    def totals(self) -> dict[Reason, int]:
        """What became of packets to the relay's ports, by reason."""
        sums: Counter[Reason] = Counter()
        for bank in self._banks:
            sums.update(bank.kernel.totals())
        return {reason: sums[reason] for reason in Reason}

    # -- ports

    def _generation(self, local: Endpoint) -> int | None:
        lent = self._lent.get(local)
        return None if lent is None else lent.flow.generation

    def _place(self, local: Endpoint) -> tuple[Bank, int]:
        """The slot of a port that can be lent."""
        bank = self._banks[0]
        index = bank.ports.index(local)
        if index is None:
            raise OSError(errno.EADDRNOTAVAIL, f"{local}: not in the port range of this relay")
        return bank, index

    def _take_back(self, lent: Lent) -> None:
        lent.bank.free(lent)
        del self._lent[lent.flow.local]
        if self._left is not None:
            self._left.add(lent.flow.local)
        self._sender.release(lent.flow.local)

    def _settles(self, flow: Flow) -> bool:
        """Whether the flow's source is settled; if it will be, it is seen to."""
        if flow.source is None or flow.settled_at is None:
            return False
        if flow.settled_at <= clock.now():
            return True
        heapq.heappush(self._settling, (flow.settled_at, flow.generation, flow.local))
        return False

    def _settle(self) -> None:
        """Tell the program of sources that have become settled."""
        now = clock.now()
        while self._settling and self._settling[0][0] <= now:
            at, generation, local = heapq.heappop(self._settling)
            lent = self._lent.get(local)
            if lent is None or lent.settled or (lent.flow.generation, lent.flow.settled_at) != (generation, at):
                continue
            lent.settled = True
            lent.bank.store(lent)

    # -- packets and time

    def _deliver(self, arrival: Arrival) -> None:
        lent = self._lent.get(arrival.local)
        if lent is None or lent.flow.generation != arrival.generation:
            return
        local, generation, source, data, ifindex = arrival
        if source == lent.flow.source or not self._estate.covers(ifindex):  # the program should have had it
            self._estate.attach_at(ifindex)
        counters = lent.bank.read(lent, clock.offset())
        self._receive(Packet(local=local, generation=generation, source=source, data=data, slot=counters))

    def _tick(self) -> None:
        assert self._loop is not None, "started"
        self._timer = self._loop.call_later(_BEAT, self._tick)
        for bank in self._banks:
            bank.beat()
        self._settle()
        self._measure()

    # -- routes

    def _changed(self) -> None:
        """Routes, addresses or interfaces have."""
        try:
            self._ways.forget()
            self._estate.attach()
        except OSError as error:
            log.error("the host's interfaces cannot be read: %s", error.strerror)
            return
        if self._changes is not None:
            self._changes.heed(self._ways.fickle)
        if self._router is not None:
            self._router.cancel()
        self._to_route = [local for local, lent in self._lent.items() if lent.flow.target is not None]
        self._route()

    def _route(self) -> None:
        """Look some of the ways up anew."""
        self._router = None
        batch, self._to_route = self._to_route[:_ROUTED], self._to_route[_ROUTED:]
        for local in batch:
            lent = self._lent.get(local)
            if lent is not None:
                self._reroute(lent)
        if self._to_route and self._loop is not None:
            self._router = self._loop.call_soon(self._route)

    def _reroute(self, lent: Lent) -> None:
        """The program is told if the way of what leaves from here is another one."""
        way = self._ways.find(lent.flow.local, routed(lent.flow, lent.bank.ports))
        if way != lent.way:
            lent.way = way
            lent.bank.store(lent)

    def _measure(self) -> None:
        """Find ways that have become too narrow for the packets that go there: these take the way through user space
        then, which sends fragments."""
        now = clock.now()
        if not self._to_look_at and now >= self._measure_at:
            self._measure_at = now + _NARROWED
            for bank in self._banks:
                slots = range(bank.ports.slots)
                self._to_look_at += [(bank, slots[at : at + _LOOKED_AT]) for at in range(0, len(slots), _LOOKED_AT)]
        if self._to_look_at and not self._to_measure:
            bank, slots = self._to_look_at.pop()
            self._to_measure = bank.long(slots) if bank in self._banks else []
        batch, self._to_measure = self._to_measure[:_ASKED], self._to_measure[_ASKED:]
        for comes in batch:
            leaves = self._lent.get(comes.flow.peer) if comes.flow.peer is not None else None
            if leaves is not None:
                self._ways.narrow(leaves.flow.local, routed(leaves.flow, leaves.bank.ports))
                self._reroute(leaves)


def _most_senders() -> int:
    """An eighth of the files that this process may have open."""
    return max(1, min(_SENDERS, raise_file_limit() // 8))
