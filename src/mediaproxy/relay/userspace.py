"""The user-space plane: one UDP socket per port, bound once and lent to call after call (calls.md 15).

Flows come in from ``relay/service.py``, packets from the network. A packet from exactly a flow's source leaves at once
by the peer's socket; all others are passed up, as many as a decision can need. It must never let a packet of an earlier
call be heard in a later one, never hold the event loop for more than one short batch, and never raise because of what
the network did.

All sockets sit in one epoll set of our own, and only that set in the event loop, because a callback of the loop for
each packet costs as much as Python's part of the forwarding. Each event is worth one ``recvfrom``: the set is
level-triggered and fair, so a flooded port gets one turn per round like every other one.
"""

import asyncio
import errno
import select
from collections import Counter
from collections.abc import Callable, Iterable, Iterator

from mediaproxy import clock
from mediaproxy.endpoint import Endpoint
from mediaproxy.relay.flow import Carried, Flow, Packet, SlotCounters
from mediaproxy.relay.lending import Lending, most_sockets
from mediaproxy.relay.sockets import LentSocket, SocketAddress, TokenBucket, socket_address

_BATCH = 128
"Packets per turn of the event loop: about half a millisecond."
_LARGEST = 65536
"No UDP payload is longer, so none is cut."
_STRANGERS_RATE, _STRANGERS_BURST = 2000.0, 500.0
"Packets per second passed up from strangers to all slots together: a spray over them costs a few per cent of a core."


class UserPlane:
    """A Plane (relay/flow.py) over ordinary UDP sockets. Needs a running event loop from ``start`` to ``close``."""

    name = "user"
    lasting = False
    measures = False

    def __init__(
        self, *, max_sockets: int = 0, receive_buffer: int = 131072, now: Callable[[], float] = clock.now
    ) -> None:
        """``max_sockets``: most sockets held, lent or kept for later; 0 = what the limit of open files allows.
        ``receive_buffer``: SO_RCVBUF in bytes, about a second of a video stream."""
        self.send_errors: Counter[str] = Counter()
        "Packets that the network did not take, by errno name, since start."
        self._max_sockets = max_sockets
        self._receive_buffer = receive_buffer
        self._now = now
        self._sockets = Lending(self._bind, self._close, max_sockets)
        self._by_fd: dict[int, LentSocket] = {}
        self._before = Carried()
        "By flows that have gone."
        self._strangers = TokenBucket(_STRANGERS_RATE, _STRANGERS_BURST)
        self._epoll: select.epoll | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._receive: Callable[[Packet], None] = lambda packet: None

    # -- the Plane protocol

    def start(self, receive: Callable[[Packet], None]) -> None:
        """Begin to pass packets up. Called once, with the event loop running."""
        assert self._epoll is None, "started twice"
        self._receive = receive
        self._sockets = Lending(self._bind, self._close, most_sockets(self._max_sockets))
        self._epoll = select.epoll()
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._epoll.fileno(), self._readable)

    def adopt(self) -> Iterable[tuple[Flow, SlotCounters]]:
        """Nothing: sockets end with their process."""
        return ()

    def install(self, flow: Flow) -> None:
        """Lend the port of the flow, or change its flow. OSError if the port cannot be had, or no socket is left."""
        sockets = self._sockets
        slot, before = sockets.lent.get(flow.local), None
        if slot is not None and slot.flow is not None and slot.flow.generation == flow.generation:
            before = slot.flow.peer
        else:
            if slot is not None and slot.flow is not None:
                self.remove(flow.local, slot.flow.generation)
            slot = sockets.lend(flow.local)
            slot.lend(Flow(local=flow.local, generation=flow.generation))
        sockets.rename(flow.local, before, flow.peer)
        slot.change(flow)
        self._link(slot)
        for local in sockets.namers(flow.local):
            self._link(sockets.lent[local])

    def remove(self, local: Endpoint, generation: int) -> None:
        """Take the port back; its socket stays bound behind the drop-all filter."""
        sockets = self._sockets
        slot = sockets.lent.get(local)
        if slot is None or slot.flow is None or slot.flow.generation != generation:
            return
        sockets.rename(local, slot.flow.peer, None)
        sockets.take_back(local)
        if slot.packets or slot.undeliverable or slot.dropped:
            self._before += Carried.of(slot)
        slot.take_back()
        for name in sockets.namers(local):
            self._link(sockets.lent[name])

    def send(self, local: Endpoint, target: Endpoint, data: bytes) -> None:
        """Send one datagram from a lent port. What the network refuses is counted."""
        slot = self._sockets.lent.get(local)
        if slot is None or target.version != local.version:
            self.send_errors["no_socket"] += 1
            return
        try:
            slot.send(data, socket_address(target))
        except OSError as error:
            self._count(error)

    def counters(self, only: Iterable[Endpoint] | None = None) -> Iterator[SlotCounters]:
        """A sweep over all lent flows; with ``only``, over those of these local ports."""
        lent = self._sockets.lent
        for slot in lent.values() if only is None else [lent[local] for local in only if local in lent]:
            counters = slot.counters()
            if counters is not None:
                yield counters

    def carried(self) -> Carried:
        """The sums over all flows since this process started."""
        return sum(map(Carried.of, self._sockets.lent.values()), self._before)

    def close(self, *, keep: bool = False) -> None:
        """Close every socket. A second call does nothing, and ``keep`` changes nothing."""
        if self._epoll is None or self._loop is None:
            return
        self._loop.remove_reader(self._epoll.fileno())
        self._epoll.close()
        self._sockets.close()
        self._epoll = self._loop = None

    # -- sockets

    @property
    def sockets(self) -> int:
        """Sockets held, lent or idle."""
        return len(self._by_fd)

    def _bind(self, local: Endpoint) -> LentSocket:
        assert self._epoll is not None, "not started"
        slot = LentSocket(local, self._receive_buffer)
        self._by_fd[slot.sock.fileno()] = slot
        self._epoll.register(slot.sock.fileno(), select.EPOLLIN)
        return slot

    def _close(self, slot: LentSocket) -> None:
        del self._by_fd[slot.sock.fileno()]
        slot.sock.close()

    def _link(self, slot: LentSocket) -> None:
        """Resolve the slot's peer: a lent flow of the named generation that knows its target; else nothing."""
        slot.forward = None
        if slot.source is None or slot.flow is None:  # nothing that comes here is forwarded, wherever it would go
            return
        peer = self._sockets.peer(slot.flow)
        if peer is None or peer.flow is None:
            return
        target = peer.flow.target
        if target is not None and target.version == peer.local.version:
            slot.forward, slot.target = peer.send, socket_address(target)

    # -- packets

    def _readable(self) -> None:
        """One batch: the hot path. Everything that is not forwarding happens in ``_pass_up``."""
        if self._epoll is None:
            return
        slots, now = self._by_fd, self._now()
        for fd, _ in self._epoll.poll(0, _BATCH):
            slot = slots.get(fd)
            if slot is None:  # closed by what an earlier packet of this batch led to
                continue
            try:
                data, source = slot.receive(_LARGEST)
            except OSError:
                continue
            size = len(data)
            rtp = size >= 12 and data[0] & 0xC0 == 0x80 and not 192 <= data[1] <= 223  # RFC 5761 §4
            if source != slot.source or slot.rtp_only > rtp:
                self._pass_up(slot, data, source, now)
                continue
            if rtp:
                slot.rtp = data
            slot.last = now
            forward = slot.forward
            if forward is None:
                slot.undeliverable += 1
                slot.undeliverable_bytes += size
                continue
            try:
                forward(data, slot.target)
            except OSError as error:
                slot.undeliverable += 1
                slot.undeliverable_bytes += size
                self._count(error)
            else:
                slot.packets += 1
                slot.bytes += size

    def _pass_up(self, slot: LentSocket, data: bytes, source: SocketAddress, now: float) -> None:
        if not slot.may_pass(source[0], now, self._strangers):
            slot.dropped += 1
            return
        counters = slot.counters()
        assert counters is not None, "may_pass says no for a slot that is not lent"
        self._receive(
            Packet(
                local=slot.local,
                generation=counters.generation,
                source=Endpoint.of(source[0].partition("%")[0], source[1]),
                data=data,
                slot=counters,
            )
        )

    def _count(self, error: OSError) -> None:
        self.send_errors[errno.errorcode.get(error.errno or 0, "unknown")] += 1
