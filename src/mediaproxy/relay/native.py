"""The fast plane in user space: sockets are lent as in ``userspace``, but threads in C serve them (fastpath.c).

Flows come in from ``relay/service.py``; what is not from a flow's source goes out. ``userspace`` is the specification.
A slot here is a socket: it has an index, and each lending of it a number of its own, by which the threads know a packet
of an earlier one. It must never change a slot before its socket is deaf and empty, never close a socket that a thread
still uses.
"""

import asyncio
import errno
import ipaddress
import mmap
import os
import socket
import struct
import threading
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from operator import ne
from types import ModuleType

from mediaproxy import clock
from mediaproxy.endpoint import Endpoint
from mediaproxy.relay.bpf import FastPathUnavailable
from mediaproxy.relay.flow import Carried, Flow, Packet, SlotCounters
from mediaproxy.relay.kernel.translation import counters_of
from mediaproxy.relay.lending import Lending, most_sockets
from mediaproxy.relay.portmap import Rate
from mediaproxy.relay.slots import COUNTERS, LAYOUT, CounterTable, SlotConfig, State, brief, encode
from mediaproxy.relay.sockets import BoundSocket, socket_address

_BATCH = 128
"Packets taken up per turn of the event loop: a few milliseconds of Python."
_MOST = 1 << 17
"Slots at most: every port of two addresses."
_RANKED, _STRANGERS, _SPRAY = Rate(1000.0, 250.0), Rate(20.0, 20.0), Rate(2000.0, 500.0)
"What is passed up: per slot from sources that may change a decision, per slot from others, from those to all slots."
_MAPPED = bytes(10) + b"\xff\xff"
_LENDINGS = 0xFFFFFFFF
"Numbers of lendings, from 1 on."


def extension() -> ModuleType:
    """The compiled part. FastPathUnavailable if it is not there, or of another version."""
    try:
        from mediaproxy.relay import fastpath
    except ImportError as error:
        raise FastPathUnavailable(
            "the fast path in user space",
            f"{error}: it could not be compiled when mediaproxy was installed; install it again with `pip install -v` "
            "and see why",
        ) from error
    expected = [
        (name, field, offset, size)
        for name in ("config", "counters")
        for field, (offset, size) in LAYOUT[name].offsets.items()
    ]
    if fastpath.layout() != expected:
        raise FastPathUnavailable(
            "the fast path in user space", f"{fastpath.__file__} is of another version: install mediaproxy again"
        )
    return fastpath


class NativeSocket(BoundSocket):
    """One socket and, while it is lent, its flow."""

    __slots__ = ("flow", "index", "lending")

    def __init__(self, local: Endpoint, receive_buffer: int, index: int) -> None:
        super().__init__(local, receive_buffer)
        self.index = index
        "Of its slot."
        self.flow: Flow | None = None
        self.lending = 0
        "Number of this lending; no other one of this process has it."


class NativePlane:
    """A Plane (relay/flow.py) over ordinary UDP sockets. Needs a running event loop from ``start`` to ``close``."""

    name = "native"
    lasting = False
    measures = True

    def __init__(self, *, max_sockets: int = 0, receive_buffer: int = 131072, threads: int = 0) -> None:
        """``max_sockets`` and ``receive_buffer`` as of UserPlane; ``threads``: 0 = one for each core of this process.
        FastPathUnavailable if the extension is missing."""
        self._fastpath = extension()
        self._max_sockets = max_sockets
        self._receive_buffer = receive_buffer
        self.threads = threads or len(os.sched_getaffinity(0))
        "How many serve."
        self._errors: Counter[str] = Counter()
        self._sockets = Lending(self._bind, self._close, max_sockets)
        self._by_index: list[NativeSocket | None] = []
        self._lending = array("I")
        "By index: that of a lent socket; 0: it is not lent."
        self._before = Carried()
        "By flows that have gone."
        self._free: list[int] = []
        "Indexes of sockets that were closed."
        self._lendings = 0
        self._seen: tuple[list[int], list[int]] = ([], [])
        "The columns that show that something has come, at the last sweep."
        self._running: list[threading.Thread] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._receive: Callable[[Packet], None] = lambda packet: None

    # -- the Plane protocol

    def start(self, receive: Callable[[Packet], None]) -> None:
        """Begin to pass packets up. Called once, with the event loop running. OSError if threads are refused."""
        assert self._loop is None, "started twice"
        self._receive = receive
        most = min(most_sockets(self._max_sockets), _MOST)
        self._sockets = Lending(self._bind, self._close, most)
        room = mmap.mmap(-1, most * COUNTERS.size)
        self._counters = CounterTable(memoryview(room))
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._path = self._fastpath.Path(room, self.threads, self._wake, *map(_bucket, (_RANKED, _STRANGERS, _SPRAY)))
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._wake, self._readable)
        for number in range(self.threads):
            thread = threading.Thread(target=self._path.run, args=(number,), name=f"media-{number}", daemon=True)
            try:
                thread.start()
            except RuntimeError as error:
                self.close()
                raise OSError(
                    errno.EAGAIN,
                    f"only {number} of {self.threads} threads can be started: raise the limit of processes (TasksMax=, "
                    "ulimit -u, --pids-limit), or take fewer cores (CPUAffinity=, --cpuset-cpus)",
                ) from error
            self._running.append(thread)

    def adopt(self) -> Iterable[tuple[Flow, SlotCounters]]:
        """Nothing: sockets end with their process."""
        return ()

    def install(self, flow: Flow) -> None:
        """Lend the port of the flow, or change its flow. OSError if the port cannot be had, or no socket is left."""
        for endpoint in (flow.source, flow.target):
            if endpoint is not None:
                socket_address(endpoint)
        sockets = self._sockets
        slot = sockets.lent.get(flow.local)
        if slot is None or slot.flow is None or slot.flow.generation != flow.generation:
            if slot is not None and slot.flow is not None:
                self.remove(flow.local, slot.flow.generation)
            slot = sockets.lend(flow.local)
            if slot.fresh:
                slot.fresh = False
            else:
                slot.drain()  # the filter stands, so what is heard from now on comes to this lending
            slot.flow = Flow(local=flow.local, generation=flow.generation)
            slot.lending = self._lendings = self._lendings % _LENDINGS + 1
            self._lending[slot.index] = slot.lending
            self._store(slot)
            slot.open()
        assert slot.flow is not None, "it is lent"
        sockets.rename(flow.local, slot.flow.peer, flow.peer)
        slot.set_tos(flow.tos)
        slot.flow = flow
        self._store(slot)
        for local in sockets.namers(flow.local):
            self._store(sockets.lent[local])

    def remove(self, local: Endpoint, generation: int) -> None:
        """Take the port back; its socket stays bound behind the drop-all filter."""
        sockets = self._sockets
        slot = sockets.lent.get(local)
        if slot is None or slot.flow is None or slot.flow.generation != generation:
            return
        self._path.free(slot.index)
        slot.shut()
        self._before += Carried.of(self._read(slot, self._counters.brief(slot.index), 0.0))
        self._lending[slot.index] = 0
        sockets.rename(local, slot.flow.peer, None)
        sockets.take_back(local)
        slot.flow = None
        for name in sockets.namers(local):
            self._store(sockets.lent[name])

    def send(self, local: Endpoint, target: Endpoint, data: bytes) -> None:
        """Send one datagram from a lent port. What the network refuses is counted."""
        slot = self._sockets.lent.get(local)
        if slot is None or target.version != local.version:
            self._errors["no_socket"] += 1
            return
        try:
            slot.sock.sendto(data, socket_address(target))
        except OSError as error:
            self._errors[_name(error.errno)] += 1

    def counters(self, only: Iterable[Endpoint] | None = None) -> Iterator[SlotCounters]:
        """The counters of the flows to which something has come since the last sweep; with ``only``, of all these."""
        offset, lent = clock.offset(), self._sockets.lent
        if self._loop is None:
            return
        changed = self._changed() if only is None else (lent[local] for local in only if local in lent)
        for slot in changed:
            yield self._read(slot, self._counters.brief(slot.index), offset)

    def carried(self) -> Carried:
        """The sums over all flows since this process started."""
        return self._before if self._loop is None else self._before + Carried(**self._counters.sums(self._lending))

    def close(self, *, keep: bool = False) -> None:
        """Stop the threads and close every socket. A second call does nothing, and ``keep`` changes nothing."""
        if self._loop is None:
            return
        self._loop.remove_reader(self._wake)
        self._loop = None
        self._path.stop()
        for thread in self._running:
            thread.join()
        self._running.clear()
        self._errors = self.send_errors
        self._sockets.close()
        self._counters.release()
        del self._path
        os.close(self._wake)

    # -- what an operator is shown

    @property
    def send_errors(self) -> Counter[str]:
        """Packets that the network did not take, by errno name, since start."""
        sums = Counter(self._errors)
        for number, count in self._path.errors() if hasattr(self, "_path") else ():
            sums[_name(number)] += count
        return sums

    @property
    def sockets(self) -> int:
        """Sockets held, lent or idle."""
        return len(self._sockets)

    # -- slots

    def _bind(self, local: Endpoint) -> NativeSocket:
        assert self._loop is not None, "not started"
        index = self._free[-1] if self._free else len(self._by_index)
        slot = NativeSocket(local, self._receive_buffer, index)
        self._path.add(index, slot.sock.fileno())
        if self._free:
            self._free.pop()
            self._by_index[index] = slot
        else:
            self._by_index.append(slot)
            self._lending.append(0)
        return slot

    def _close(self, slot: NativeSocket) -> None:
        self._path.drop(slot.index)
        slot.sock.close()
        self._by_index[slot.index] = None
        self._free.append(slot.index)

    def _store(self, slot: NativeSocket) -> None:
        """Tell the threads what the flow of a lent socket is now."""
        flow = slot.flow
        assert flow is not None, "it is lent"
        peer = self._sockets.peer(flow)
        config = SlotConfig(
            version=flow.local.version,
            source=flow.source,
            target=flow.target if flow.target is not None and flow.target.version == flow.local.version else None,
            peer=peer.index if peer is not None else 0,
            peer_generation=peer.lending if peer is not None else 0,
            allowed=flow.allowed or None,
            rtp_only=flow.rtp_only,
            clocks=flow.clocks,
        )
        self._path.set(slot.index, slot.lending, _state(flow), encode(config))

    # -- packets and counters

    def _readable(self) -> None:
        """Packets that were passed up."""
        offset, slots = clock.offset(), self._by_index
        for index, lending, source, port, data, counters in self._path.take(_BATCH):
            slot = slots[index]
            if slot is None or slot.flow is None or slot.lending != lending:
                continue  # to an earlier lending
            self._receive(
                Packet(
                    local=slot.local,
                    generation=slot.flow.generation,
                    source=Endpoint(_address(source), port),
                    data=data,
                    slot=self._read(slot, brief(counters), offset),
                )
            )
            if self._loop is None:
                return

    def _read(self, slot: NativeSocket, values: tuple[int, ...], offset: float) -> SlotCounters:
        assert slot.flow is not None, "it is lent"
        counters = counters_of(slot.local, slot.lending, values, offset)
        counters.generation = slot.flow.generation
        return counters

    def _changed(self) -> Iterator[NativeSocket]:
        """The lent sockets to which something has come since this was asked last."""
        used = slice(len(self._by_index))
        seen, self._seen = self._seen, (self._counters.column("last", used), self._counters.column("dropped", used))
        for column in seen:
            column += [0] * (used.stop - len(column))
        if seen == self._seen:
            return
        news = (map(ne, now, before) for now, before in zip(self._seen, seen, strict=True))
        for one, other, slot in zip(*news, self._by_index, strict=True):
            if (one or other) and slot is not None and slot.flow is not None:
                yield slot


def _bucket(rate: Rate) -> tuple[int, int]:
    """As the threads take it: nanoseconds per packet, nanoseconds that may be owed."""
    interval, burst = struct.unpack("=II", rate.encode())
    return interval, burst


def _state(flow: Flow) -> State:
    if flow.source is not None:
        return State.LEARNED
    return State.DEAF if flow.peer is None and flow.target is None else State.LEARNING


def _address(packed: bytes) -> str:
    """The text of 16 bytes, IPv4 as ::ffff:a.b.c.d."""
    if packed.startswith(_MAPPED):
        return socket.inet_ntop(socket.AF_INET, packed[12:])
    return str(ipaddress.IPv6Address(packed))


def _name(number: int | None) -> str:
    return errno.errorcode.get(number or 0, "unknown")
