"""[shell] The whole server: SIP edge, dispatcher, relay, registrations, records and sockets, put together.

A configuration comes in; running parts, and answers for the control socket, go out. Parts are started in the order in
which they need each other and stopped in the reverse one. Nothing about calls is decided here.
"""

import errno
from contextlib import AsyncExitStack

from mediaproxy import __version__, clock
from mediaproxy.admin import Command
from mediaproxy.dispatcher.service import Dispatcher
from mediaproxy.dispatcher.settings import LOCAL
from mediaproxy.edge.farewell import Farewell
from mediaproxy.edge.interfaces import listeners_of
from mediaproxy.edge.location import Location, LocationError
from mediaproxy.edge.service import Edge, EdgeError, secret_of
from mediaproxy.edge.settings import Listener
from mediaproxy.events import CallEnded
from mediaproxy.link import LineServer, Link
from mediaproxy.server.answers import DoorsShown, Registrations, Relays, RelayShown
from mediaproxy.server.dispatching import dispatcher_of, entries, listen_to_module, local_entry, module_servers, shown
from mediaproxy.server.doors import Doors
from mediaproxy.server.places import relay_settings
from mediaproxy.server.starting import StartError, told
from mediaproxy.server.station import Station

__all__ = ["Server", "StartError"]


class Server(Station):
    """Everything that ``mediaproxy run`` runs. ``async with Server(config, places) as server``."""

    _dispatcher: Dispatcher
    _edge: Edge | None = None
    _modules: list[LineServer]
    _doors: Doors

    # -- life

    async def _start(self, stack: AsyncExitStack) -> None:
        if local_entry(self.config) is not None:
            await self._start_own_relay(stack)
        self._dispatcher = dispatcher_of(self.config, self.relay)
        await self._dispatcher.start()
        stack.push_async_callback(self._dispatcher.stop)
        await self._start_doors(stack)
        await self._start_modules(stack)
        if self.config.edge.enabled:
            await self._start_edge(stack, self._open_location(stack))

    async def _start_own_relay(self, stack: AsyncExitStack) -> None:
        relay, edge = self.config.relay, self.config.edge
        advice = "set relay.addresses to addresses of this host"
        if edge.enabled:
            settings = relay_settings(relay, listeners_of(edge), chosen=bool(edge.listeners))
            if not relay.addresses:
                advice = f"media follows edge.listeners: set these, or {advice}"
        else:
            settings = self._relay_on_host()
        entry = local_entry(self.config)
        assert entry is not None
        await self._start_relay(stack, settings, relay.name or entry.name, advice)

    async def _start_doors(self, stack: AsyncExitStack) -> None:
        relay = self.relay
        calls = None if relay is None or len(entries(self.config)) > 1 else lambda: len(relay.calls)
        identity = str(self.places.runtime_dir.absolute())
        self._doors = Doors(
            self.config, self._dispatcher, relay=self.relay_settings, own_calls=calls, identity=identity
        )
        await self._doors.start(stack)

    async def _start_modules(self, stack: AsyncExitStack) -> None:
        self._modules = []
        for server, guests in module_servers(self.config, self.places, self._dispatcher):
            if await listen_to_module(self.config, self.places, server):
                stack.push_async_callback(guests.stop)
                stack.push_async_callback(server.stop)
                self._modules.append(server)
                self._doors.also(guests)

    def _open_location(self, stack: AsyncExitStack) -> Location:
        try:
            location = Location.open(self.places.location, clock.now())
        except LocationError as error:
            raise StartError(str(error)) from error
        stack.callback(location.close)
        return location

    async def _start_edge(self, stack: AsyncExitStack, location: Location) -> None:
        path = self.places.state_dir / "secret"
        with told(f"{path}: cannot keep the server's secret"):
            secret = secret_of(path)
        edge = Edge(self.config.edge, self._dispatcher, location, secret=secret, rng=self._rng)
        try:
            await edge.start()
        except EdgeError as error:
            raise StartError(f"{error}{_edge_advice(error)}") from error
        stack.push_async_callback(edge.stop)
        self._edge = edge

    def _ended(self, event: CallEnded) -> Farewell | None:
        """The dispatcher forgets the call, and the edge is told, which may hang up."""
        self._dispatcher.on_event(event)
        return None if self._edge is None else self._edge.call_ended(event)

    @property
    def listeners(self) -> tuple[Listener, ...]:
        """The sockets that take SIP, with the ports that they got."""
        return () if self._edge is None else self._edge.listeners

    # -- commands of the control socket

    @property
    def _link(self) -> Link:
        return self._dispatcher

    def _sip(self) -> tuple[str, ...]:
        return tuple(f"{one.transport}:{one.public}" for one in self.listeners)

    def _sockets(self) -> tuple[str, ...]:
        return tuple(str(server.address) for server in self._modules)

    def _registered(self) -> int:
        return 0 if self._edge is None else len(self._edge.registrations())

    def registrations(self, command: Command) -> Registrations:
        """Who is registered. AdminError if nobody can register here."""
        self._check()
        if self._edge is None:
            return super().registrations(command)
        bindings = self._edge.registrations()
        pings = tuple(self._edge.pinged(binding) for binding in bindings)
        return Registrations(registrations=bindings, pings=pings, now=clock.now())

    def relays(self, _: Command) -> Relays:
        """The relays that calls may go to."""
        self._check()
        return Relays(relays=self.relays_shown())

    def relays_shown(self) -> tuple[RelayShown, ...]:
        """The relays that calls may go to."""
        return shown(self.config, self._dispatcher)

    def doors(self, _: Command) -> DoorsShown:
        """The doors for other protocols."""
        self._check()
        return self.doors_shown()

    def doors_shown(self) -> DoorsShown:
        """The same at any time."""
        notices = self._notices
        failed = notices.failed + notices.dropped
        return DoorsShown(doors=self._doors.reports(), notices_told=notices.told, notices_failed=failed)

    def introduction(self) -> list[str]:
        """A few lines for who started it: what it serves, for whom, and how."""
        lines = [f"mediaproxy {__version__}: {self._whom()}"]
        if self.config.edge.enabled and not self.config.edge.media:
            lines.append("media is not relayed (edge.media = false)")
        elif self.relay is not None:
            lines.append(self.media_line())
        others = [f"{one.name} ({one.address})" for one in entries(self.config) if one.address != LOCAL]
        if others:
            lines.append(f"relays elsewhere: {', '.join(others)}")
        if self._modules:
            lines.append(f"SIP servers ask on {' and '.join(server.address.path for server in self._modules)}")
        if self._doors.doors:
            shown_doors = (f"{door.settings.protocol} on {door.address}" for door in self._doors.doors)
            lines.append(f"doors: {', '.join(shown_doors)}")
        known = "" if self._edge is None else f"{self._registered()} registrations known; "
        return [*lines, f"{known}records go to {self.places.records.absolute()}"]

    def _whom(self) -> str:
        edge = self.config.edge
        if not edge.enabled:
            return "no SIP here (edge.enabled = false)"
        if edge.accounts:
            who = f"{len(edge.accounts)} account{'' if len(edge.accounts) == 1 else 's'}"
        else:
            who = "everybody, without password" if edge.open else "everybody on private networks, without password"
        return f"users of {', '.join(edge.domains) or 'whatever phones register with'}; {who} may register and call"


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
