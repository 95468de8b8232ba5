"""[shell] What every server process has: directories, control socket, call records and, most of the time, a relay.

A configuration comes in; running parts, and answers for the control socket, go out. Parts are started in the order in
which they need each other and stopped in the reverse one. Nothing about calls is decided here.
"""

import errno
import os
import random
from abc import ABC, abstractmethod
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from msgspec.structs import replace

from mediaproxy import __version__, clock
from mediaproxy.accounting import Ledger, Record, discreet
from mediaproxy.admin import SOCKET, AdminError, AdminServer, AlreadyRunning, Command, Handler
from mediaproxy.config import Config
from mediaproxy.control import EndCause, EndRequest, Party
from mediaproxy.dialects.notices import Notices
from mediaproxy.edge.farewell import Farewell, together
from mediaproxy.edge.interfaces import host_addresses
from mediaproxy.events import CallEnded, CallReport, Event
from mediaproxy.link import Link
from mediaproxy.logs import log_event
from mediaproxy.records import RecordWriter, line_of
from mediaproxy.relay.journal import Journal
from mediaproxy.relay.service import RelayService
from mediaproxy.relay.settings import RelaySettings
from mediaproxy.server.answers import Calls, DoorsShown, Ended, Registrations, Relays, RelayShown, Status
from mediaproxy.server.keeping import open_journal
from mediaproxy.server.monitoring import start_web
from mediaproxy.server.notifying import notices_of
from mediaproxy.server.places import Places, relay_of_host
from mediaproxy.server.planes import Chosen, choose_plane
from mediaproxy.server.starting import StartError, told
from mediaproxy.web.figures import Chronicle
from mediaproxy.web.server import WebServer

_LIMITS = (errno.EAGAIN, errno.EMFILE, errno.ENFILE, errno.ENOMEM)
"Refusals that have nothing to do with addresses."


class Station(ABC):
    """A server process. ``async with`` runs it."""

    def __init__(self, config: Config, places: Places, *, rng: random.Random | None = None) -> None:
        """``rng``: for tests; it orders ports and makes tags and branches. None: one that nobody can guess."""
        self.config = config
        self.places = places
        self.relay: RelayService | None = None
        "The relay of this process."
        self.relay_settings: RelaySettings = config.relay
        self._rng = rng or random.SystemRandom()
        self._stack = AsyncExitStack()
        self._ledger = Ledger()
        self._records: RecordWriter | None = None
        self._journal: Journal | None = None
        self._notices: Notices = notices_of(config)
        self._chosen: Chosen | None = None
        "What forwards the media of our relay."
        self._chronicle = Chronicle()
        self._web: WebServer | None = None
        self._keeps = True
        "Calls are kept there from now on; else it is only read."
        self.keep_calls = False
        "At the end, calls are left to the next start (relay.journal) instead of being ended."
        self._started = 0.0
        self._running = False
        self._ending: dict[str, list[Farewell]] = {}
        "What was done for the calls that an operator is just ending, by Call-ID."

    # -- life

    async def __aenter__(self) -> Self:
        """Start all parts. StartError if one cannot start; then none is left running."""
        async with AsyncExitStack() as stack:
            # The sockets say who may use them, and a SIP server must get at its own; what is kept is nobody's business.
            for directory, mode in ((self.places.runtime_dir, 0o755), (self.places.state_dir, 0o750)):
                with told(f"{directory}: cannot be made"):
                    _make(directory, mode)
            # First of all, because it is how a second server finds out that it is one.
            await self._start_admin(stack)
            stack.push_async_callback(self._close_journal)
            with told(f"{self.places.records}: cannot write call records"):
                self._records = RecordWriter(self.places.records)
                await self._records.start()
            stack.push_async_callback(self._records.stop)
            await self._start(stack)
            self._web = await start_web(stack, self, self._chronicle)
            self._stack = stack.pop_all()
        self._started = clock.now()
        self._running = True
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End all calls or keep them, write records, close everything."""
        self._running = False
        await self._stack.aclose()

    @abstractmethod
    async def _start(self, stack: AsyncExitStack) -> None:
        """Start what this kind of server has besides."""

    async def _start_admin(self, stack: AsyncExitStack) -> None:
        settings = self.config.admin
        path = self.places.runtime_dir / SOCKET
        handlers: dict[str, Handler] = {
            "status": self.status,
            "calls": self.calls,
            "end": self.end,
            "registrations": self.registrations,
            "relays": self.relays,
            "doors": self.doors,
        }
        admin = AdminServer(path, handlers, mode=int(settings.mode, 8), group=settings.group)
        try:
            with told(f"{path}: cannot make the control socket"):
                await admin.start()
        except AlreadyRunning as error:
            raise StartError(f"{error}; stop it, or give this one a runtime_dir and a state_dir of its own") from error
        except LookupError as error:
            raise StartError(f"there is no group {settings.group}; set admin.group to one that exists") from error
        stack.push_async_callback(admin.stop)

    def _relay_on_host(self) -> RelaySettings:
        """The relay's settings if no SIP listener says where phones come from. StartError if the host has none."""
        settings = relay_of_host(self.config.relay, host_addresses())
        if not settings.addresses:
            raise StartError("this host has no address that media could come to; set relay.addresses")
        return settings

    async def _start_relay(self, stack: AsyncExitStack, settings: RelaySettings, name: str, advice: str) -> None:
        self.relay_settings = settings
        stack.push_async_callback(self._notices.stop)  # after the relay, which may end calls
        chosen = self._chosen = choose_plane(settings, self.places)
        stack.callback(chosen.plane.close, keep=True)  # if the start fails, streams of before flow on
        relay = RelayService(settings, chosen.plane, self._rng, self._happened, name=name)
        assert self._records is not None
        wanted = settings.journal
        self._journal = open_journal(self.places, relay, self._ledger, self._records, wanted=wanted)
        try:
            await relay.start(chosen.left())
        except OSError as error:
            words = [f"cannot relay media: {error.strerror or error}"]
            words += [] if error.errno in _LIMITS else [advice]
            raise StartError("; ".join(words)) from error
        stack.push_async_callback(self._stop_relay, relay)
        self.relay = relay
        self._keeps = wanted

    async def _stop_relay(self, relay: RelayService) -> None:
        await relay.stop(keep=self.keep_calls)

    async def _close_journal(self) -> None:
        """After the records, which it may have to keep."""
        if self._journal is not None:
            await self._journal.close(stopped=self.keep_calls)
            if not self._keeps:
                self.places.journal.unlink(missing_ok=True)

    def _happened(self, event: Event) -> None:
        """Each event of a call: a log line, and at its end a record."""
        log_event(event)
        self._chronicle.fold(event)
        record = self._ledger.fold(event)
        if record is not None:
            self._write(record)
        if isinstance(event, CallEnded):
            self._notices.ended(event.report)
        if isinstance(event, CallEnded) and self.relay is not None:  # else it has ended while nobody was here
            done = self._ended(event)
            if done is not None and event.call_id in self._ending:
                self._ending[event.call_id].append(done)

    def _write(self, record: Record) -> None:
        """In the journal first: a record that is in its own file is of a call that will not go on."""
        records, journal = self._records, self._journal
        assert records is not None
        if journal is None or not self._keeps:
            records.write(record)
        else:
            line = line_of(record)
            journal.record(line, lambda done: records.write_line(line, done))

    def _ended(self, event: CallEnded) -> Farewell | None:
        """A call of our relay is over: tell who else must know. What was done so that its phones hang up, if anything
        could be."""
        return None

    # -- commands of the control socket

    @property
    @abstractmethod
    def _link(self) -> Link:
        """Who answers questions about any call that this server knows of."""

    def _check(self) -> None:
        if not self._running:
            raise AdminError("the server is just starting or ending; ask again")

    @property
    def media(self) -> tuple[str, ...]:
        """The addresses that media comes to."""
        return tuple(one.public for one in self.relay_settings.addresses) if self.relay is not None else ()

    def media_line(self) -> str:
        """What the relay of this process does, for who started it."""
        settings = self.relay_settings
        assert self._chosen is not None
        chosen = "" if self.config.relay.addresses else " (chosen: relay.addresses says otherwise)"
        return (
            f"media on {', '.join(self.media)}{chosen}, ports {settings.port_min} to {settings.port_max}, "
            f"relayed {self._chosen.where}"
        )

    @abstractmethod
    def introduction(self) -> list[str]:
        """A few lines for who started it: what it serves, for whom, and how."""

    def status(self, _: Command) -> Status:
        """What this server is."""
        self._check()
        return Status(
            version=__version__,
            pid=os.getpid(),
            started=self._started,
            listeners=self._sip(),
            domains=self.config.edge.domains,
            media=self.media,
            plane="" if self.relay is None else self.relay.calls.plane_name,
            why_not_kernel="" if self._chosen is None else self._chosen.why_not,
            packets={} if self._chosen is None else self._chosen.packets(),
            questions=self._sockets(),
            records=str(self.places.records.absolute()),
            calls=0 if self.relay is None else len(self.relay.calls),
            registrations=self._registered(),
            web="" if self._web is None else str(self._web.address),
        )

    # -- for web

    @property
    def running(self) -> bool:
        """It has started and is not ending."""
        return self._running

    @property
    def started(self) -> float:
        """When it was, seconds since the epoch; 0.0: it is not yet."""
        return self._started

    @property
    def chosen(self) -> Chosen | None:
        """What forwards the media of our relay."""
        return self._chosen

    @property
    def registered(self) -> int:
        """Contacts of all users."""
        return self._registered()

    def doors_shown(self) -> DoorsShown | None:
        """The doors for other protocols; None: this server cannot have any."""
        return None

    def relays_shown(self) -> tuple[RelayShown, ...]:
        """The relays that calls may go to; none: this server chooses none."""
        return ()

    def _sip(self) -> tuple[str, ...]:
        """Where it takes SIP."""
        return ()

    def _registered(self) -> int:
        """Contacts of all users."""
        return 0

    @abstractmethod
    def _sockets(self) -> tuple[str, ...]:
        """Where it takes questions."""

    def _reports(self) -> tuple[CallReport, ...]:
        return self.relay.reports() if self.relay is not None else ()

    def calls(self, _: Command) -> Calls:
        """All calls of the relay in this process. AdminError if it has none."""
        self._check()
        if self.relay is None:
            raise AdminError("the calls are at the relays (mediaproxy relays shows them): ask there")
        shown = (replace(one, caller=discreet(one.caller), callee=discreet(one.callee)) for one in self._reports())
        why_not = "" if self._chosen is None else self._chosen.why_not
        return Calls(calls=tuple(shown), now=clock.now(), why_not_kernel=why_not)

    async def end(self, command: Command) -> Ended:
        """End a call: its media, and the dialogs of its phones. AdminError if there is none of that Call-ID."""
        self._check()
        nobody, call_id = Party(), command.call_id
        question = EndRequest(call_id=call_id, sender=nobody, receiver=nobody, cause=EndCause.ADMIN)
        done = self._ending.setdefault(call_id, [])
        try:
            reply = await self._link.ask(question)
        finally:
            self._ending.pop(call_id, None)
        if reply.error:
            raise AdminError(f"{call_id}: {reply.error}; mediaproxy calls shows those there are")
        return Ended(ended=call_id, phones=together(done))

    def registrations(self, _: Command) -> Registrations:
        """Who is registered. AdminError if nobody can register here."""
        raise AdminError("nobody registers here: this server has no SIP edge; ask the SIP server that uses it")

    def relays(self, _: Command) -> Relays:
        """The relays that calls may go to. AdminError if this server does not choose any."""
        raise AdminError("this is a relay and chooses none; ask the server that sends it calls")

    def doors(self, _: Command) -> DoorsShown:
        """The doors for other protocols. AdminError if this server cannot have any."""
        raise AdminError("this is a relay and has no doors; ask the server that sends it calls")


def _make(directory: Path, mode: int) -> None:
    """A directory with that mode whatever the umask is, unless it exists. OSError."""
    try:
        directory.mkdir(parents=True)
    except FileExistsError:
        if not directory.is_dir():
            raise
    else:
        directory.chmod(mode)
