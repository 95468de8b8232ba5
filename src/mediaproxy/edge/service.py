"""[shell] The built-in SIP edge: sockets, location table, media arm and the pure proxy, put together.

Bytes come in from the sockets and are parsed; the proxy says what to do; this does it: sends, asks, resolves, logs. It
decides nothing about SIP. Whatever a peer sends, the next message is served.
"""

import asyncio
import logging
import os
import random
import secrets
from collections.abc import Coroutine
from pathlib import Path
from typing import assert_never

from mediaproxy import clock
from mediaproxy.complaints import Complaints
from mediaproxy.control import MediaRequest
from mediaproxy.edge import stun
from mediaproxy.edge.binding import Binding
from mediaproxy.edge.domains import refusals
from mediaproxy.edge.effects import Ask, Effect, Refused, Remark, Resolve, Said, Send, Trouble
from mediaproxy.edge.farewell import Farewell
from mediaproxy.edge.hop import Hop, Inbound
from mediaproxy.edge.interfaces import listeners_of
from mediaproxy.edge.keepalive import Pinged
from mediaproxy.edge.location import Location
from mediaproxy.edge.media import arrival_of
from mediaproxy.edge.proxy import Proxy
from mediaproxy.edge.registry import Registry
from mediaproxy.edge.resolver import Resolver
from mediaproxy.edge.routing import reply_hop
from mediaproxy.edge.screen import screen
from mediaproxy.edge.script.loading import ScriptError
from mediaproxy.edge.script.source import ScriptFile
from mediaproxy.edge.script.trouble import Troubles
from mediaproxy.edge.settings import EdgeSettings, Listener, Transport
from mediaproxy.edge.transport import Sockets
from mediaproxy.endpoint import Endpoint
from mediaproxy.events import CallEnded
from mediaproxy.link import Link, ask_in_time
from mediaproxy.logs import log_call, readable
from mediaproxy.nat import is_keep_alive, note_source
from mediaproxy.sip.check import check
from mediaproxy.sip.grammar import SipError
from mediaproxy.sip.message import Request, parse, response_to

log = logging.getLogger("mediaproxy.edge")

FILES = 1.0
"Seconds between two looks at the files that may change: the script, the lists of asymmetric clients."
HOUSEKEEPING = 30.0
"Seconds between two looks for expired registrations and changed routes."


class EdgeError(Exception):
    """The edge cannot start. The text says what to do."""


def secret_of(path: Path) -> bytes:
    """The secret kept in a file, made at the first call: with it a restarted edge knows its dialogs again. OSError."""
    try:
        secret = path.read_bytes()
        if len(secret) >= 16:
            return secret
    except FileNotFoundError:
        pass
    secret = secrets.token_bytes(32)
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(path.name + ".new")
    descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(secret)
    scratch.replace(path)
    return secret


class Edge:
    """One SIP server. ``start`` and ``stop`` once each."""

    def __init__(
        self,
        settings: EdgeSettings,
        link: Link,
        location: Location,
        *,
        secret: bytes | None = None,
        resolver: Resolver | None = None,
        rng: random.Random | None = None,
    ) -> None:
        """``location`` stays open when the edge stops. ``secret``: see ``secret_of``; None: a new one. ``resolver`` and
        ``rng``: for tests; None: the system's."""
        self._settings = settings
        self._link = link
        self.location = location
        self._secret = secret or secrets.token_bytes(32)
        self._resolver = resolver
        self._rng = rng or random.SystemRandom()
        self._script = ScriptFile(settings, log.error, log.info)
        self._files = 0.0
        "When the script and the lists of asymmetric clients are looked at next."
        self._complaints = Complaints(settings.refusals_logged)
        self._troubles = Troubles(settings.refusals_logged)
        self._sockets = Sockets(settings, self._received, self._disconnected, self._complain)
        self._registry = Registry(settings, location, self._sockets, self._secret, self._complain)
        self._proxy: Proxy | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._housekeeping = 0.0

    # -- life

    async def start(self) -> None:
        """Open all sockets. EdgeError if that is not possible, or would be dangerous (calls.md 19)."""
        wanted = listeners_of(self._settings)
        found = refusals(self._settings, wanted)
        if not wanted:
            found = ("this host has no loopback or private address to listen on; configure listeners",)
        if found:
            raise EdgeError("; ".join(found))
        now = clock.now()
        try:
            script = self._script.load(now)
        except ScriptError as error:
            raise EdgeError(str(error)) from error
        try:
            self._sockets.open(wanted)
        except OSError as error:
            await self._sockets.close()
            raise EdgeError(error.strerror or str(error)) from error
        self._proxy = Proxy(self._settings, self._sockets, self._registry, self._secret, self._rng, script)
        self._proxy.learn(binding.aor for binding in self.location.all(now))
        self._read_files(self._proxy, now)
        if self._resolver is None:
            transports = {one.transport for one in self.listeners}
            versions = {one.bind.version for one in self.listeners}
            self._resolver = Resolver(self._rng, transports, versions=versions)
        self._registry.start(now)
        self._housekeeping = now + HOUSEKEEPING
        self._arm()
        for listener in self.listeners:
            log.info("SIP on %s:%s", listener.transport, listener.public)

    async def stop(self) -> None:
        """Close all sockets and end what is under way."""
        self._proxy = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._sockets.close()

    @property
    def listeners(self) -> tuple[Listener, ...]:
        """The sockets that are open, with the ports that they got."""
        return self._sockets.listeners

    def registrations(self) -> tuple[Binding, ...]:
        """All bindings that have not expired."""
        return self.location.all(clock.now())

    def pinged(self, binding: Binding) -> Pinged | None:
        """How a registered contact is pinged; None: it is not."""
        return self._registry.pinged(binding)

    def change(self, settings: EdgeSettings) -> None:
        """Other settings count from now on: lists of asymmetric clients, routes, expiry and contacts of registrations,
        NAT tests. Listeners, domains, accounts, limits of connections and timers are those of the start."""
        self._settings = settings
        self._registry.change(settings)
        if self._proxy is not None:
            self._proxy.change(settings)
            self._read_files(self._proxy, clock.now())

    def call_ended(self, event: CallEnded) -> Farewell:
        """The media arm says that a call is over. If it decided so by itself (silence, an expired hold, an operator;
        calls.md 11), both phones are told to hang up; returns what was done."""
        if self._proxy is None:
            return Farewell()
        try:
            parting, effects = self._proxy.call_ended(event, clock.now())
            self._perform(effects)
        except Exception:
            log.exception("bug while hanging up call %s", readable(event.call_id))
            return Farewell()
        if parting is None:
            return Farewell()
        done = parting.outcome
        log_call(log, event.call_id, f"media ended ({event.report.reason}); {done}")
        return done

    # -- what comes in

    def _received(self, data: bytes, inbound: Inbound) -> None:
        if self._proxy is None or not data:
            return
        why = screen(data)
        if why:
            self._received_other(data, inbound, why)
            return
        try:
            self._process(self._proxy, data, inbound)
        except Exception:
            log.exception("bug while serving %s; the message was %r", inbound.source, data[:2000])

    def _received_other(self, data: bytes, inbound: Inbound, why: str) -> None:
        """What is no SIP: keep-alives, and the rest."""
        if is_keep_alive(data):
            return
        binding = stun.answer(data, inbound.source) if inbound.transport is Transport.UDP else None
        if binding is None:
            self._complain(inbound.source, why)
        else:
            self._sockets.send(Hop(Transport.UDP, inbound.source, inbound.local), binding, _ignore)

    def _process(self, proxy: Proxy, data: bytes, inbound: Inbound) -> None:
        if is_keep_alive(data):
            return
        try:
            message = parse(data)
        except SipError as error:
            self._complain(inbound.source, f"no SIP: {error}")
            return
        if self._registry.heard(message, inbound, clock.now()):
            return
        try:
            check(message)
            # RFC 3261 §18.3: what stands behind the body of a datagram is discarded.
            message = message.alone()
            if isinstance(message, Request):
                effects = proxy.request(message, inbound, clock.now())
            else:
                effects = proxy.response(message, inbound, clock.now())
        except SipError as error:
            self._complain(inbound.source, f"bad message: {error}")
            if isinstance(message, Request) and message.method != "ACK":
                self._answer_bad(message, inbound, error)
            return
        self._perform(effects)

    def _answer_bad(self, request: Request, inbound: Inbound, error: SipError) -> None:
        """What can be answered of a broken request is answered, without state."""
        noted = note_source(request, arrival_of(inbound))
        try:
            response = response_to(noted, error.status, to_tag="bad")
            hop = reply_hop(noted, inbound)
        except SipError:
            return  # no Via, so nobody to tell
        self._sockets.send(hop, bytes(response), _ignore)

    def _disconnected(self, connection: str) -> None:
        lost = self._registry.disconnected(connection, clock.now())
        if self._proxy is not None:
            for binding in lost:
                log.info("%s is unreachable: its connection from %s is gone", binding.aor, binding.received)

    # -- what goes out

    def _perform(self, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case Send():
                    self._send(effect)
                case Ask():
                    self._spawn(self._ask(effect))
                case Resolve():
                    self._spawn(self._resolve(effect))
                case Refused(source, text):
                    self._complain(source, text)
                case Remark(call_id, text):
                    log_call(log, call_id, text)
                case Said(call_id, text):
                    log_call(log, call_id, readable(text))
                case Trouble():
                    self._blame(effect)
                case _:
                    assert_never(effect)
        self._arm()

    def _send(self, effect: Send) -> None:
        def failed() -> None:
            if effect.failed is not None and self._proxy is not None:
                self._perform(effect.failed(clock.now()))

        self._sockets.send(effect.hop, effect.data, failed)

    async def _ask(self, effect: Ask) -> None:
        reply = await ask_in_time(self._link, effect.question, self._settings.question_timeout)
        if reply.error:
            level = logging.WARNING if isinstance(effect.question, MediaRequest) else logging.DEBUG
            log_call(log, effect.question.call_id, f"media: {reply.error}", level)
        if effect.then is not None and self._proxy is not None:
            self._perform(effect.then(reply, clock.now()))

    async def _resolve(self, effect: Resolve) -> None:
        assert self._resolver is not None
        hops = await self._resolver.resolve(effect.uri)
        if not hops:
            log.info("%s leads nowhere", effect.uri)
        if self._proxy is not None:
            self._perform(effect.then(hops, clock.now()))

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("bug in a task", exc_info=task.exception())

    def _complain(self, source: Endpoint, text: str) -> None:
        for line in self._complaints.note(source, text, clock.now()):
            log.info("%s", line)

    def _blame(self, trouble: Trouble) -> None:
        for line in self._troubles.note(trouble, clock.now()):
            log.error("%s", readable(line))

    # -- time

    def _arm(self) -> None:
        """One timer of the loop for everything that has a deadline."""
        if self._proxy is None:
            return
        deadlines = (self._proxy.deadline, self._registry.deadline, self._housekeeping, self._files)
        at = min(deadline for deadline in deadlines if deadline is not None)
        if self._timer is not None:
            if self._timer_at <= at:
                return
            self._timer.cancel()
        self._timer_at = at
        self._timer = asyncio.get_running_loop().call_later(max(0.0, at - clock.now()), self._tick)

    def _tick(self) -> None:
        self._timer = None
        if self._proxy is None:
            return
        now = clock.now()
        try:
            for ping in self._registry.due(now):
                self._sockets.send(ping.hop, ping.data, _ignore)
            if now >= self._housekeeping:
                self._keep_house(now)
            if now >= self._files:
                self._read_files(self._proxy, now)
            self._perform(self._proxy.tick(now))
        except Exception:
            log.exception("bug in a timer")
        self._arm()

    def _read_files(self, proxy: Proxy, now: float) -> None:
        self._files = now + FILES
        script = self._script.refresh(now)
        if script is not None:
            proxy.script.script = script
        self._registry.clients.refresh(now)
        proxy.media.heed(self._registry.clients.sip, self._registry.clients.rtp)

    def _keep_house(self, now: float) -> None:
        self._housekeeping = now + HOUSEKEEPING
        self._sockets.forget_routes()
        for line in self._complaints.summary(now):
            log.info("%s", line)
        for line in self._troubles.summary(now):
            log.error("%s", readable(line))
        self._registry.expire(now)


def _ignore() -> None:
    """Nobody need know that it was not sent."""
