"""[shell] The whole server: SIP edge, dispatcher, relay, registrations, records and control socket, put together.

A configuration comes in; running parts, and answers for the control socket, go out. Parts are started in the order in
which they need each other and stopped in the reverse one. Nothing about calls is decided here.
"""

import errno
import os
import random
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from msgspec.structs import replace

from mediaproxy import __version__, clock
from mediaproxy.accounting import Ledger, discreet
from mediaproxy.admin import SOCKET, AdminError, AdminServer, AlreadyRunning, Command
from mediaproxy.config import Config
from mediaproxy.control import EndCause, EndRequest, Party
from mediaproxy.dispatcher.service import Dispatcher
from mediaproxy.edge.farewell import Farewell, together
from mediaproxy.edge.interfaces import listeners_of
from mediaproxy.edge.location import Location, LocationError
from mediaproxy.edge.service import Edge, EdgeError, secret_of
from mediaproxy.edge.settings import Listener
from mediaproxy.events import CallEnded, Event
from mediaproxy.link import Link
from mediaproxy.logs import log_event
from mediaproxy.records import RecordWriter
from mediaproxy.relay.service import RelayService
from mediaproxy.relay.settings import RelaySettings
from mediaproxy.relay.userspace import UserPlane
from mediaproxy.server.answers import Calls, Ended, Registrations, Status
from mediaproxy.server.places import Places, relay_settings

RELAY = "local"
"Name of the relay of this process."


class StartError(Exception):
    """The server cannot start. One line per reason, each with what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Parts:
    """What runs."""

    relay: RelayService
    dispatcher: Dispatcher
    edge: Edge


class Server:
    """Everything that ``mediaproxy run`` runs. ``async with Server(config, places) as server``."""

    def __init__(self, config: Config, places: Places, *, rng: random.Random | None = None) -> None:
        """``rng``: for tests; it orders ports and makes tags and branches. None: one that nobody can guess."""
        self.config = config
        self.places = places
        self._rng = rng or random.SystemRandom()
        self._stack = AsyncExitStack()
        self._ledger = Ledger()
        self._records: RecordWriter | None = None
        self._relay_settings: RelaySettings = config.relay
        self._started = 0.0
        self._running: _Parts | None = None
        self._ending: dict[str, list[Farewell]] = {}
        "What was done for the calls that an operator is just ending, by Call-ID."

    # -- life

    async def __aenter__(self) -> Self:
        """Start all parts. StartError if one cannot start; then none is left running."""
        async with AsyncExitStack() as stack:
            self._running = await self._start(stack)
            self._stack = stack.pop_all()
        self._started = clock.now()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End all calls, write their records, close everything."""
        await self._stack.aclose()
        self._running = None

    async def _start(self, stack: AsyncExitStack) -> _Parts:
        for directory in (self.places.runtime_dir, self.places.state_dir):
            with _told(f"{directory}: cannot be made"):
                directory.mkdir(parents=True, exist_ok=True, mode=0o750)
        # First of all, because it is how a second server finds out that it is one.
        await self._start_admin(stack)
        location = self._open_location(stack)
        with _told(f"{self.places.records}: cannot write call records"):
            self._records = RecordWriter(self.places.records)
            await self._records.start()
        stack.push_async_callback(self._records.stop)
        relay = await self._start_relay(stack)
        dispatcher = Dispatcher({RELAY: relay})
        edge = await self._start_edge(stack, dispatcher, location)
        return _Parts(relay=relay, dispatcher=dispatcher, edge=edge)

    async def _start_admin(self, stack: AsyncExitStack) -> None:
        settings = self.config.admin
        path = self.places.runtime_dir / SOCKET
        handlers = {"status": self.status, "calls": self.calls, "end": self.end, "registrations": self.registrations}
        admin = AdminServer(path, handlers, mode=int(settings.mode, 8), group=settings.group)
        try:
            with _told(f"{path}: cannot make the control socket"):
                await admin.start()
        except AlreadyRunning as error:
            raise StartError(f"{error}; stop it, or give this one a runtime_dir and a state_dir of its own") from error
        except LookupError as error:
            raise StartError(f"there is no group {settings.group}; set admin.group to one that exists") from error
        stack.push_async_callback(admin.stop)

    def _open_location(self, stack: AsyncExitStack) -> Location:
        try:
            location = Location.open(self.places.location, clock.now())
        except LocationError as error:
            raise StartError(str(error)) from error
        stack.callback(location.close)
        return location

    async def _start_relay(self, stack: AsyncExitStack) -> RelayService:
        self._relay_settings = relay_settings(
            self.config.relay, listeners_of(self.config.edge), chosen=bool(self.config.edge.listeners)
        )
        relay = RelayService(self._relay_settings, UserPlane(), self._rng, self._happened, name=RELAY)
        advice = "set relay.addresses to addresses of this host"
        if not self.config.relay.addresses:
            advice = f"media follows edge.listeners: set these, or {advice}"
        with _told("cannot relay media", advice):
            await relay.start()
        stack.push_async_callback(relay.stop)
        return relay

    async def _start_edge(self, stack: AsyncExitStack, link: Link, location: Location) -> Edge:
        path = self.places.state_dir / "secret"
        with _told(f"{path}: cannot keep the server's secret"):
            secret = secret_of(path)
        edge = Edge(self.config.edge, link, location, secret=secret, rng=self._rng)
        try:
            await edge.start()
        except EdgeError as error:
            raise StartError(f"{error}{_edge_advice(error)}") from error
        stack.push_async_callback(edge.stop)
        return edge

    def _happened(self, event: Event) -> None:
        """Each event of a call: a log line; at its end a record, and the edge is told, which may hang up."""
        log_event(event)
        record = self._ledger.fold(event)
        if record is not None and self._records is not None:
            self._records.write(record)
        if self._running is not None:
            self._running.dispatcher.on_event(event)
            if isinstance(event, CallEnded):
                done = self._running.edge.call_ended(event)
                if event.call_id in self._ending:
                    self._ending[event.call_id].append(done)

    @property
    def _parts(self) -> _Parts:
        if self._running is None:
            raise AdminError("the server is just starting or ending; ask again")
        return self._running

    @property
    def listeners(self) -> tuple[Listener, ...]:
        """The sockets that take SIP, with the ports that they got."""
        return self._parts.edge.listeners

    # -- commands of the control socket

    def status(self, _: Command) -> Status:
        """What this server is."""
        parts = self._parts
        return Status(
            version=__version__,
            pid=os.getpid(),
            started=self._started,
            listeners=tuple(f"{one.transport}:{one.public}" for one in parts.edge.listeners),
            domains=self.config.edge.domains,
            media=tuple(address.public for address in self._relay_settings.addresses),
            plane=parts.relay.calls.plane_name,
            records=str(self.places.records.absolute()),
            calls=len(parts.relay.reports()),
            registrations=len(parts.edge.registrations()),
        )

    def calls(self, _: Command) -> Calls:
        """All calls."""
        reports = self._parts.relay.reports()
        shown = (replace(one, caller=discreet(one.caller), callee=discreet(one.callee)) for one in reports)
        return Calls(calls=tuple(shown), now=clock.now())

    async def end(self, command: Command) -> Ended:
        """End a call: its media, and the dialogs of its phones. AdminError if there is none of that Call-ID."""
        nobody, call_id = Party(), command.call_id
        question = EndRequest(call_id=call_id, sender=nobody, receiver=nobody, cause=EndCause.ADMIN)
        done = self._ending.setdefault(call_id, [])
        try:
            reply = await self._parts.dispatcher.ask(question)
        finally:
            self._ending.pop(call_id, None)
        if reply.error:
            raise AdminError(f"{call_id}: {reply.error}; mediaproxy calls shows those there are")
        return Ended(ended=call_id, phones=together(done))

    def registrations(self, _: Command) -> Registrations:
        """Who is registered."""
        return Registrations(registrations=self._parts.edge.registrations(), now=clock.now())

    def introduction(self) -> list[str]:
        """A few lines for who started it: what it serves, for whom, and how."""
        status = self.status(Command(command="status"))
        edge, relay = self.config.edge, self._relay_settings
        domains = ", ".join(edge.domains) or "whatever phones register with"
        if edge.accounts:
            who = f"{len(edge.accounts)} account{'' if len(edge.accounts) == 1 else 's'}"
        else:
            who = "everybody, without password" if edge.open else "everybody on private networks, without password"
        forwarded = "user space" if status.plane == "user" else status.plane
        media = (
            f"media on {', '.join(status.media)}, ports {relay.port_min} to {relay.port_max}, relayed in {forwarded}"
        )
        return [
            f"mediaproxy {__version__}: users of {domains}; {who} may register and call",
            media if edge.media else "media is not relayed (edge.media = false)",
            f"{status.registrations} registrations known; records go to {status.records}",
        ]


@contextmanager
def _told(what: str, advice: str = "") -> Iterator[None]:
    """An OSError becomes a StartError that says what could not be done."""
    try:
        yield
    except OSError as error:
        found = advice or _ADVICE.get(error.errno or 0, "")
        raise StartError(f"{what}: {error.strerror or error}{found and '; '}{found}") from error


_ELSEWHERE = "choose another place with runtime_dir, state_dir and records.path"
_ADVICE = {
    errno.EACCES: f"give this user the right to, or {_ELSEWHERE}",
    errno.EPERM: f"give this user the right to, or {_ELSEWHERE}",
    errno.ENOENT: _ELSEWHERE,
    errno.ENOTDIR: _ELSEWHERE,
    errno.EISDIR: _ELSEWHERE,
    errno.EROFS: _ELSEWHERE,
    errno.ENOSPC: "make room on the disk",
    errno.EEXIST: "move it away",
}
_LISTEN_ADVICE = {
    errno.EADDRINUSE: "another program has that port: stop it, or set edge.listeners",
    errno.EACCES: "ports below 1024 need root or CAP_NET_BIND_SERVICE",
    errno.EADDRNOTAVAIL: "this host has no such address; set edge.listeners",
}


def _edge_advice(error: EdgeError) -> str:
    cause = error.__cause__
    advice = _LISTEN_ADVICE.get(cause.errno or 0, "") if isinstance(cause, OSError) else ""
    if not advice and isinstance(cause, OSError) and "tls:" in str(error):
        advice = "look at edge.tls.certificate and edge.tls.key"
    return f"; {advice}" if advice else ""
