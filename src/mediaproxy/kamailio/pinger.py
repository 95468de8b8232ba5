"""[shell] The keep-alives inside Kamailio: a timer route calls ``tick``, the reply route ``is_reply``.

Kamailio says who is registered, ``pings`` says what is due, and it is sent from Kamailio's own sockets. All is done in
the process of the timer, which has nothing else to do, so a slow answer delays pings and no call. No exception gets
out, and what is the matter is logged now and then, not at every tick.
"""

import random
import socket
import time
from collections.abc import Callable
from typing import Any

from mediaproxy.endpoint import Endpoint, ip_address
from mediaproxy.kamailio.answers import ANSWERS
from mediaproxy.kamailio.listeners import Listeners
from mediaproxy.kamailio.location import DUMP, LocationError, Registration, parse, removal
from mediaproxy.kamailio.pings import Ping, Pings, PingSettings
from mediaproxy.kamailio.sipping import token_of
from mediaproxy.sip.grammar import SipError

SHARE = 20
"What takes t seconds and stops everything else is not done again for SHARE * t seconds."
TOLD_AGAIN = 600.0
"Seconds after which the same trouble is worth another line in the log."
_MOST = 1000
"Things are remembered, of what peers can multiply."
_BODY = "$jsonrpl(body)"
_FAMILIES = {0: socket.AF_UNSPEC, 4: socket.AF_INET, 6: socket.AF_INET6}


class Pinger:
    """All keep-alives. To be made before Kamailio forks; only one process may call ``tick``."""

    def __init__(
        self, ksr: Any, settings: PingSettings, warn: Callable[[str], None], info: Callable[[str], None]
    ) -> None:
        """``ksr``: Kamailio's module KSR. ``warn`` and ``info`` take a line for the log."""
        self._ksr = ksr
        self._settings = settings
        self._warn = warn
        self._info = info
        self._pings = Pings(settings, ANSWERS.mark, random.SystemRandom())
        self._listeners: Listeners | None = None
        self._names = _Names()
        self._next_read = float("-inf")
        self._told: dict[str, float] = {}

    # -- in whatever process a reply arrives

    def is_reply(self) -> bool:
        """Whether the reply in hand answers one of our requests. It is noted then, and must go no further."""
        if not self._settings.natping_interval:
            return False
        try:
            get = self._ksr.pv.get
            token = token_of(get("$ci"), ANSWERS.mark)
            if token is None or get("$rm") != self._settings.sipping_method:
                return False
            ANSWERS.note(token)
        except Exception:  # noqa: BLE001 - an exception would cost the worker its next message
            return False  # such as a Call-ID that is no UTF-8: not ours
        return True

    # -- in the timer's process

    def tick(self, msg: Any) -> int:
        """Send what is due; 1. ``msg``: what Kamailio gives to the timer route."""
        if not self._settings.natping_interval:
            return 1
        try:
            self._tick(msg, time.monotonic())
        except Exception as error:  # noqa: BLE001 - an exception would end all keep-alives
            self._tell(f"{type(error).__name__}: {error}")
        return 1

    def _tick(self, msg: Any, now: float) -> None:
        if self._listeners is None:
            self._listeners = Listeners()
        for token in ANSWERS.take():
            self._pings.answered(token)
        if now >= self._next_read:
            self._read(msg, now)
        for ping in self._pings.due(time.monotonic()):
            try:
                self._send(self._listeners, ping)
            except (OSError, SipError, UnicodeError) as error:
                self._tell(f"cannot be sent: {error}", ping.way.host)

    def _read(self, msg: Any, now: float) -> None:
        interval = self._settings.natping_interval
        self._next_read = now + min(interval, max(1.0, interval / 4))
        try:
            silent = self._pings.read(parse(self._dump()), time.monotonic(), time.time())
        except LocationError as error:
            self._tell(f"who is registered is not known: {error}")
            return
        took = time.monotonic() - now
        self._next_read = now + min(interval, max(1.0, interval / 4, SHARE * took))
        for registration in silent:
            self._remove(msg, registration)

    def _dump(self) -> bytes:
        if not hasattr(self._ksr, "jsonrpcs"):
            raise LocationError("the module jsonrpcs is not loaded")
        self._ksr.jsonrpcs.exec(DUMP)
        try:
            body = self._ksr.pv.get(_BODY)
        except UnicodeDecodeError as error:
            return error.object
        return bytes(body.encode()) if body else b""

    def _remove(self, msg: Any, registration: Registration) -> None:
        contact = registration.contact
        if not ANSWERS.shared:
            self._tell("silent contacts are not removed: answers do not reach this process until Kamailio is restarted")
            return
        self._ksr.pv.sets("$var(natping)", removal(registration).hex())
        msg.call_function("jsonrpc_exec", "$(var(natping){s.decode.hexa})")
        self._info(
            f"{registration.aor}: {contact.address} is removed: no answer to {self._settings.sipping_max_lost} pings"
        )

    def _send(self, listeners: Listeners, ping: Ping) -> None:
        if ping.way.transport != "udp":
            self._send_on_connection(ping)
            return
        way = ping.way
        local = listeners.named(way.socket)
        to = self._names.endpoint(way.host, way.port, local.version if local is not None else 0)
        if to is None:
            raise OSError("its address is not known")
        if not way.socket:
            local = listeners.first(to.version)
        if local is None or local.version != to.version:
            raise OSError(f"there is no socket {way.socket or 'of its IP version'}")
        listeners.send(local, to, ping.data if ping.sip is None else ping.sip.text(local, "udp"))

    def _send_on_connection(self, ping: Ping) -> None:
        """Only on one that is open: nobody behind a NAT can be connected to."""
        way = ping.way
        if way.connection < 0 or not way.socket or not hasattr(self._ksr, "tcpops"):
            return
        if self._ksr.tcpops.tcp_conid_alive(way.connection) <= 0:
            return
        local = Endpoint.parse(way.socket.partition(":")[2])
        data = ping.data if ping.sip is None else ping.sip.text(local, way.transport)
        self._ksr.corex.sendx(f"sip:{way.host}:{way.port};transport={way.transport}", way.socket, data.decode())

    def _tell(self, trouble: str, example: str = "") -> None:
        """Log what is the matter, the same not again for TOLD_AGAIN. ``example``: of what is the matter with many."""
        now = time.monotonic()
        if now - self._told.get(trouble, float("-inf")) < TOLD_AGAIN:
            return
        if len(self._told) >= _MOST:
            self._told.clear()
        self._told[trouble] = now
        self._warn(f"keep-alives: {trouble}{f' ({example})' if example else ''}")


class _Names:
    """Addresses of the few contacts that are host names. Looking one up stops everything, so it is done seldom."""

    LIFETIME = 600.0
    "Seconds for which an answer is believed."

    def __init__(self) -> None:
        self._known: dict[tuple[str, int], tuple[float, str]] = {}
        self._not_before = float("-inf")

    def endpoint(self, host: str, port: int, version: int) -> Endpoint | None:
        """Where a host is. ``version`` of IP that a name is looked up for; 0: either."""
        address = host if ip_address(host) is not None else self._look_up(host.lower(), version, time.monotonic())
        return Endpoint.of(address, port) if address else None

    def _look_up(self, name: str, version: int, now: float) -> str:
        until, address = self._known.get((name, version), (0.0, ""))
        if now < until or now < self._not_before:
            return address
        try:
            found = socket.getaddrinfo(name, None, family=_FAMILIES[version], type=socket.SOCK_DGRAM)
            address = str(found[0][4][0]).partition("%")[0]
        except (OSError, UnicodeError):
            address = ""
        done = time.monotonic()
        self._not_before = done + SHARE * (done - now)
        if len(self._known) >= _MOST:
            self._known.clear()
        self._known[name, version] = (done + self.LIFETIME, address)
        return address
