"""Keep-alives for registered contacts: who is pinged, how and when (``natping_interval``, ``sipping_*``).

What Kamailio says about who is registered comes in from time to time, in whole; what is due comes out. Each contact has
its own moment in the interval, so that ten thousand are pinged evenly and not in one burst. Nothing here sends, and
nothing here knows the time but by argument: ``now`` is seconds on any clock that only goes forward.
"""

import heapq
import random
import zlib
from collections.abc import Iterable

import msgspec

from mediaproxy.kamailio.location import NOT_SET, Contact, Registration
from mediaproxy.kamailio.sipping import SipPing
from mediaproxy.nat import PING_SOON, TCP_PING, UDP_PING
from mediaproxy.sip.grammar import TOKEN, SipError
from mediaproxy.sip.uri import Uri

PATIENCE = 5.0
"Seconds within which a phone answers, if it ever does."
_PORTS = {"udp": 5060, "tcp": 5060, "tls": 5061}
"The transports over which we ping. Websockets have pings of their own."


class PingSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What the operator decided. ValueError if it makes no sense. The flags are branch flags: a script sets them before
    it saves a registration; -1: there is no such flag."""

    natping_interval: float = 60
    "Seconds between two pings to one contact; 0: none."
    ping_nated_only: bool = True
    "Ping the contacts with ``nat_bflag`` only. False: all."
    nat_bflag: int = 6
    "The contact is behind NAT."
    sipping_bflag: int = 7
    "It is pinged by SIP requests, instead of by four zero bytes."
    sipping_remove_bflag: int = 8
    "Pinged so, it is removed when it stays silent."
    sipping_method: str = "OPTIONS"
    "The method of these requests."
    sipping_from: str = ""
    "The SIP URI in their From; empty: ``sip:ping@`` and the address of the socket that sends."
    sipping_max_lost: int = 3
    "So many of them in a row without an answer make a contact silent."

    def __post_init__(self) -> None:
        if self.natping_interval < 0:
            raise ValueError(f"natping_interval: {self.natping_interval} is less than 0")
        if self.sipping_max_lost < 1:
            raise ValueError(f"sipping_max_lost: {self.sipping_max_lost} is less than 1")
        if not TOKEN.fullmatch(self.sipping_method) or self.sipping_method in ("ACK", "BYE", "CANCEL", "INVITE"):
            raise ValueError(f"sipping_method: {self.sipping_method!r} cannot be used for keep-alives")
        for name in ("nat_bflag", "sipping_bflag", "sipping_remove_bflag"):
            if not -1 <= getattr(self, name) <= 31:
                raise ValueError(f"{name}: {getattr(self, name)} is not in -1..31")
        if self.sipping_from:
            try:
                _ = Uri.parse(self.sipping_from).text.encode("latin-1")
            except (SipError, UnicodeError):
                raise ValueError(f"sipping_from: {self.sipping_from!r} is not a SIP URI") from None


class Way(msgspec.Struct, frozen=True, kw_only=True):
    """How a contact is reached. Contacts of one phone may share a way, and one four-byte ping is enough for them."""

    transport: str
    "``udp``, ``tcp`` or ``tls``."
    host: str
    "Address or name, IPv6 in brackets."
    port: int
    socket: str
    "Our socket as Kamailio names it; empty: not known, or of another transport."
    connection: int
    "Kamailio's number of the TCP or TLS connection; -1: none."


class Ping(msgspec.Struct, frozen=True, kw_only=True):
    """One keep-alive."""

    way: Way
    sip: SipPing | None
    "The request; None: ``data``."

    @property
    def data(self) -> bytes:
        """What is sent if it is no request: four zero bytes, over connections CRLF CRLF."""
        return UDP_PING if self.way.transport == "udp" else TCP_PING


class _Pinged:
    """One way with its contacts, or one contact that is pinged by SIP requests. Mutable."""

    __slots__ = (
        "count",
        "early",
        "expires",
        "late",
        "lost",
        "newest",
        "registration",
        "removable",
        "token",
        "turn",
        "unanswered",
        "way",
    )

    def __init__(self, way: Way, token: str) -> None:
        self.way = way
        self.token = token
        "For SIP requests; empty: four bytes."
        self.registration: Registration
        "The one that was read last."
        self.newest = 0
        "When a contact of it registered last, on Kamailio's clock."
        self.expires = 0.0
        self.turn = 0
        "The turn of reading in which it was there."
        self.early = False
        "A ping soon after its registration is in the heap."
        self.late = False
        "Its moment had passed when it was found; the next ping is extra, out of the rhythm."
        self.removable = False
        self.count = 0
        self.unanswered = 0
        self.lost = 0.0
        "When the last of those was sent that make it silent."


_Key = tuple[Way, str]
"The ruid is empty for four-byte pings."
_Mark = tuple[str, str, str, str, str, int, bool]
"All of a contact on which its key depends."


class Pings:
    """The pings of all contacts."""

    def __init__(
        self, settings: PingSettings, mark: str, rng: random.Random, soon: tuple[float, float] | None = PING_SOON
    ) -> None:
        """``mark``: how the Call-IDs of our requests begin; ``rng`` makes what follows. ``soon``: as PING_SOON, if the
        interval is longer; None: no such ping."""
        self._settings = settings
        self._interval = settings.natping_interval
        self._soon = soon if soon is not None and soon[1] < self._interval else None
        self._mark = mark
        self._rng = rng
        self._pinged: dict[_Key, _Pinged] = {}
        self._tokens: dict[str, _Pinged] = {}
        self._keys: dict[_Mark, _Key | None] = {}
        self._heap: list[tuple[float, int, _Key, _Pinged, bool]] = []
        "The last: it is the ping soon after a registration, and not one of the rhythm."
        self._pushed = 0
        self._turn = 0
        self._read = float("-inf")

    def __len__(self) -> int:
        return len(self._pinged)

    def read(self, registrations: Iterable[Registration], now: float, wall: float) -> list[Registration]:
        """These are registered, and nobody else; those that have been silent for too long come back, to be removed.

        ``wall``: the time on Kamailio's clock, for how long ago a contact registered. One whose moment passed between
        its registration and now is pinged at once: each is met within an interval, whenever it comes.
        """
        self._turn += 1
        before = self._keys
        keys: dict[_Mark, _Key | None] = {}
        for registration in registrations:
            contact = registration.contact
            left = contact.seconds_left()
            if left <= 0 or not self._wanted(contact):
                continue
            sip = contact.flag(self._settings.sipping_bflag)
            # Taking URIs apart is the most of the work, and hardly any differs from last time.
            mark = _mark(contact, sip)
            key = before[mark] if mark in before else _key(contact, sip)
            keys[mark] = key
            if key is not None:
                self._note(key, registration, now + left, now, wall - contact.modified)
        self._keys = keys
        self._forget()
        self._read = now
        return self._silent(now)

    def _wanted(self, contact: Contact) -> bool:
        return not self._settings.ping_nated_only or contact.flag(self._settings.nat_bflag)

    def _note(self, key: _Key, registration: Registration, expires: float, now: float, age: float) -> None:
        pinged = self._pinged.get(key)
        registered = pinged is None or _again(pinged, registration.contact)
        if pinged is None:
            pinged = self._pinged[key] = self._new(key, now, age)
        elif registered:
            pinged.unanswered = 0
        pinged.newest = max(pinged.newest, registration.contact.modified)
        pinged.expires = max(pinged.expires, expires) if pinged.turn == self._turn else expires
        pinged.turn = self._turn
        pinged.registration = registration
        pinged.removable = registration.contact.flag(self._settings.sipping_remove_bflag)
        if registered:
            self._ping_soon(key, pinged, now, age)

    def _new(self, key: _Key, now: float, age: float) -> _Pinged:
        way, ruid = key
        pinged = _Pinged(way, f"{self._rng.getrandbits(64):016x}" if ruid else "")
        if ruid:
            self._tokens[pinged.token] = pinged
        next_moment = self._next(key, now)
        # Kamailio knows whole seconds only, so the age may seem up to a second too high.
        unseen = min(age, now - self._read)
        pinged.late = self._turn > 1 and next_moment - self._interval > now - unseen
        self._push(key, pinged, now if pinged.late else next_moment)
        return pinged

    def _ping_soon(self, key: _Key, pinged: _Pinged, now: float, age: float) -> None:
        """It registered ``age`` seconds ago."""
        behind_path = pinged.token and _set(pinged.registration.contact.path)
        if self._soon is None or pinged.way.transport != "udp" or pinged.early or behind_path:
            return
        first, last = self._soon
        registered = now - age
        moment = now if pinged.late else self._next(key, registered)
        if first <= moment - registered <= last or age > last + self._interval / 4:
            return  # that one will do; or it was not we who were there when it registered
        pinged.early = True
        self._push(key, pinged, max(now, registered + first + _part(key) * (last - first)), early=True)

    def _forget(self) -> None:
        for key, pinged in list(self._pinged.items()):
            if pinged.turn != self._turn:
                del self._pinged[key]
                self._tokens.pop(pinged.token, None)

    def _silent(self, now: float) -> list[Registration]:
        patience = min(self._interval, PATIENCE)
        return [
            pinged.registration
            for pinged in self._tokens.values()
            if pinged.removable
            and pinged.unanswered >= self._settings.sipping_max_lost
            and now - pinged.lost >= patience
        ]

    def answered(self, token: str) -> None:
        """The phone that was asked with this token has answered, whatever it said."""
        pinged = self._tokens.get(token)
        if pinged is not None:
            pinged.unanswered = 0

    def _next(self, key: _Key, now: float) -> float:
        """Its next moment: the same part of every interval, spread by a hash of who it is."""
        return now + self._interval - (now - _part(key) * self._interval) % self._interval

    def _push(self, key: _Key, pinged: _Pinged, at: float, *, early: bool = False) -> None:
        self._pushed += 1
        heapq.heappush(self._heap, (at, self._pushed, key, pinged, early))

    def due(self, now: float) -> list[Ping]:
        """The pings whose time has come."""
        pings: list[Ping] = []
        while self._heap and self._heap[0][0] <= now:
            at, _, key, pinged, early = heapq.heappop(self._heap)
            if self._pinged.get(key) is not pinged:
                continue  # gone; perhaps it came again, and has a new place in the heap
            if early:
                pinged.early = False
                if pinged.expires > now:
                    pings.append(Ping(way=pinged.way, sip=None))
                continue
            # A server that was stopped for a while does not make up for what it missed.
            after = at + self._interval
            self._push(key, pinged, self._next(key, now) if pinged.late or after <= now else after)
            pinged.late = False
            if pinged.expires > now:
                pings.append(self._ping(pinged, now))
        return pings

    def _ping(self, pinged: _Pinged, now: float) -> Ping:
        if not pinged.token:
            return Ping(way=pinged.way, sip=None)
        contact = pinged.registration.contact
        sip = SipPing(
            method=self._settings.sipping_method,
            contact=contact.address,
            path=_set(contact.path),
            sender=self._settings.sipping_from,
            mark=self._mark,
            token=pinged.token,
            count=pinged.count,
        )
        pinged.count += 1
        pinged.unanswered += 1
        if pinged.unanswered == self._settings.sipping_max_lost:
            pinged.lost = now
        return Ping(way=pinged.way, sip=sip)


def _again(pinged: _Pinged, contact: Contact) -> bool:
    """Whether it has just registered again. Contacts that share a way are read in turn."""
    before = pinged.registration.contact
    return contact.modified > pinged.newest if before.ruid != contact.ruid else contact.modified != before.modified


def _part(key: _Key) -> float:
    """From 0 to 1, spread by a hash of who it is."""
    return zlib.crc32(f"{key[0].host} {key[0].port} {key[0].socket} {key[1]}".encode()) / 2**32


def _set(text: str) -> str:
    return "" if text == NOT_SET else text


def _mark(contact: Contact, sip: bool) -> _Mark:
    return (
        contact.ruid,
        contact.address,
        contact.received,
        contact.path,
        contact.socket,
        contact.connection,
        sip,
    )


def _key(contact: Contact, sip: bool) -> _Key | None:
    """Under what a contact is pinged; None if it cannot be."""
    way = _way(contact, sip)
    return None if way is None else (way, contact.ruid if sip else "")


def _way(contact: Contact, sip: bool) -> Way | None:
    path = _set(contact.path)
    text = _set(contact.received) or contact.address
    try:
        # RFC 3327 §5.3: requests for the contact go by its Path. Four bytes can only go straight.
        uri = Uri.parse(path.partition(">")[0].strip(" \t<") if sip and path else text)
    except SipError:
        return None
    transport = uri.params.get("transport", "").lower() or ("tls" if uri.scheme == "sips" else "udp")
    if transport not in _PORTS or not uri.host:
        return None
    own, _, _ = contact.socket.partition(":")
    return Way(
        transport=transport,
        host=uri.host,
        port=uri.port or _PORTS[transport],
        socket=contact.socket if own == transport else "",
        connection=-1 if transport == "udp" else contact.connection,
    )
