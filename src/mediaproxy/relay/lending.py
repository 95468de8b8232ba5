"""The sockets of a plane in user space: which are lent, which are kept for later, and which flows name which.

A port comes in, its bound socket goes out, the one of an earlier call if it is still there. There is never a socket
more than the limit of open files allows: the one that has been idle longest makes room.
"""

import errno
import logging
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Collection
from typing import Generic, Protocol, TypeVar

from mediaproxy.endpoint import Endpoint
from mediaproxy.relay.flow import Flow
from mediaproxy.relay.sockets import raise_file_limit

log = logging.getLogger("mediaproxy.relay")

_RESERVE = 512
"File descriptors left to the rest of the process: SIP connections, log, database."
PER_CALL = 4
"Sockets of a call with one stream: RTP and RTCP, towards either party."
_ENOUGH = 1000 * PER_CALL
"Sockets below which an operator is told."


class Lendable(Protocol):
    """A socket with the flow it is lent to."""

    flow: Flow | None

    @property
    def local(self) -> Endpoint:
        """Where it is bound."""


S = TypeVar("S", bound=Lendable)


def spared(files: int) -> int:
    """How many of so many open files may be sockets of a plane."""
    return max(files - _RESERVE, files // 2)


def most_sockets(wanted: int) -> int:
    """How many sockets a plane may have: ``wanted``, 0 = as many as the limit of open files allows, which is raised as
    far as it goes. A limit that is low is logged."""
    files = raise_file_limit()
    limit = spared(files)
    if limit < _ENOUGH:
        log.warning(
            "the limit of open files (%d) allows %d calls at a time: raise it (ulimit -n, LimitNOFILE=)",
            files,
            limit // PER_CALL,
        )
    return min(wanted, limit) if wanted else limit


class Lending(Generic[S]):
    """Mutable: all sockets of one plane."""

    def __init__(self, make: Callable[[Endpoint], S], close: Callable[[S], None], most: int) -> None:
        """``make`` binds a socket or raises OSError; ``most``: sockets at a time."""
        self._make, self._close, self._most = make, close, most
        self.lent: dict[Endpoint, S] = {}
        self._idle: OrderedDict[Endpoint, S] = OrderedDict()
        self._namers: defaultdict[Endpoint, set[Endpoint]] = defaultdict(set)
        "Peer's local endpoint -> the flows that name it."

    def __len__(self) -> int:
        return len(self.lent) + len(self._idle)

    def lend(self, local: Endpoint) -> S:
        """The socket of a port that is not lent. OSError if it cannot be had, or no socket is left."""
        socket = self._idle.pop(local, None) or self._new(local)
        self.lent[local] = socket
        return socket

    def take_back(self, local: Endpoint) -> None:
        """Keep the socket of a lent port for later."""
        self._idle[local] = self.lent.pop(local)

    def close(self) -> None:
        """Close all of them."""
        for socket in [*self.lent.values(), *self._idle.values()]:
            self._close(socket)
        self.lent.clear()
        self._idle.clear()
        self._namers.clear()

    def _new(self, local: Endpoint) -> S:
        if len(self) >= self._most:
            self._evict()
        try:
            return self._make(local)
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE):
                raise
            self._evict()  # somebody else in this process took more than his share
            return self._make(local)

    def _evict(self) -> None:
        """Close the socket that has been idle longest."""
        if not self._idle:
            raise OSError(
                errno.EMFILE,
                f"all {len(self)} sockets are lent: raise the limit of open files (ulimit -n, LimitNOFILE=)",
            )
        self._close(self._idle.popitem(last=False)[1])

    # -- flows that name each other

    def rename(self, local: Endpoint, before: Endpoint | None, after: Endpoint | None) -> None:
        """The flow of a port names another peer now."""
        if before == after:
            return
        if before is not None:
            known = self._namers[before]
            known.discard(local)
            if not known:
                del self._namers[before]
        if after is not None:
            self._namers[after].add(local)

    def namers(self, local: Endpoint) -> Collection[Endpoint]:
        """The lent ports whose flows name this one."""
        return self._namers.get(local, ())

    def peer(self, flow: Flow) -> S | None:
        """The socket of the port that a flow names, if it is lent with the generation that the flow names."""
        peer = self.lent.get(flow.peer) if flow.peer is not None else None
        if peer is None or peer.flow is None or peer.flow.generation != flow.peer_generation:
            return None
        return peer
