"""[shell] The doors as they are configured: each with its dialect, in front of the dispatcher.

A configuration and a Link come in, doors that listen go out. StartError names what cannot be had.
"""

import hashlib
import logging
from collections.abc import Callable, Iterable
from contextlib import AsyncExitStack
from pathlib import Path

import msgspec

from mediaproxy import clock
from mediaproxy.config import Config
from mediaproxy.dialects.dialect import Dialect
from mediaproxy.dialects.door import Door
from mediaproxy.dialects.doordatagrams import DatagramDoor
from mediaproxy.dialects.doorreport import DoorReport
from mediaproxy.dialects.doorsettings import ENCRYPTED, DoorKind, DoorProtocol, DoorSettings
from mediaproxy.dialects.doorstream import StreamDoor
from mediaproxy.dialects.management import Management
from mediaproxy.dialects.ng.dialect import Ng
from mediaproxy.dialects.ng.limits import Busy
from mediaproxy.dialects.ng.settings import NgSettings
from mediaproxy.dialects.ng.tally import Tally
from mediaproxy.dialects.rtpproxy.addresses import Address, Addresses
from mediaproxy.dialects.rtpproxy.dialect import RtpProxy
from mediaproxy.dialects.rtpproxy.sockets import DEFAULT, Patterns
from mediaproxy.dialects.v1 import MediaProxy1
from mediaproxy.dialects.v2 import MediaProxy2
from mediaproxy.link import Link
from mediaproxy.logs import readable
from mediaproxy.relay.settings import RelaySettings
from mediaproxy.server.load import Load
from mediaproxy.server.starting import StartError, told

log = logging.getLogger("mediaproxy.doors")

_AGAIN = 600.0
"Seconds between two lines that say the same of requests."
_REMARKS = 1000
"Texts that are remembered."


class Doors:
    """All ``[[listen]]`` of a server."""

    def __init__(
        self,
        config: Config,
        link: Link,
        *,
        relay: RelaySettings,
        own_calls: Callable[[], int] | None = None,
        identity: str = "",
    ) -> None:
        """``own_calls``: the number of calls if all are at the relay of this process. ``identity``: what no other
        server has, such as its socket."""
        self._config = config
        self._link = link
        self._load = Load(config.ng, link, own_calls)
        own = Addresses(Address(one.name, one.bind, one.public) for one in relay.addresses)
        self._build = Dialects(ng_settings(config, relay, identity), self._load, own, config.rtpproxy.timeout_sockets)
        self._others: list[Door] = []
        self.doors: list[Door] = []

    async def start(self, stack: AsyncExitStack) -> None:
        """Listen; ``stack`` ends it. StartError."""
        if not self._config.listen:
            return
        await self._load.start()
        stack.push_async_callback(self._load.stop)
        for at, settings in enumerate(self._config.listen):
            door = self._door(settings)
            await _open(door, f"listen[{at}]")
            stack.push_async_callback(door.stop)
            self.doors.append(door)

    def also(self, doors: Iterable[Door]) -> None:
        """Show these, too, which others opened."""
        self._others += doors

    def reports(self) -> tuple[DoorReport, ...]:
        """What they have done so far."""
        return tuple(door.report() for door in (*self.doors, *self._others))

    def _door(self, settings: DoorSettings) -> Door:
        kind, dialect = settings.where.kind, self._build.dialect(settings.protocol)
        if kind is DoorKind.UDP:
            return DatagramDoor(settings, dialect, self._link)
        if settings.protocol is DoorProtocol.NG_HTTP:
            from mediaproxy.dialects.doorhttp import HttpDoor  # a whole web server, which few need

            return HttpDoor(settings, dialect, self._build.ng(plain=True), self._link)
        return StreamDoor(settings, dialect, self._link)


class Dialects:
    """Makes the dialects of doors."""

    def __init__(
        self,
        ng: NgSettings,
        busy: Busy | None = None,
        addresses: Addresses | None = None,
        sockets: Patterns = DEFAULT,
    ) -> None:
        """``addresses``: the relay's, which rtpproxy's commands choose from; ``sockets``: those that they may name."""
        self._ng = ng
        self._addresses = addresses
        self._sockets = sockets
        self._busy = busy
        self._tally = Tally()
        self._remarks = Remarks()

    def dialect(self, protocol: DoorProtocol) -> Dialect:
        """The one that a door speaks."""
        match protocol:
            case DoorProtocol.MEDIAPROXY1:
                return MediaProxy1()
            case DoorProtocol.MEDIAPROXY2:
                return MediaProxy2()
            case DoorProtocol.MANAGEMENT:
                return Management()
            case DoorProtocol.NG | DoorProtocol.NG_HTTP:
                return self.ng()
            case DoorProtocol.RTPPROXY:
                return RtpProxy(self._addresses, self._sockets)

    def ng(self, *, plain: bool = False) -> Ng:
        """rtpengine's, with or without cookies."""
        return Ng(self._ng, busy=self._busy, tally=self._tally, clock=clock.now, remark=self._remarks.note, plain=plain)


class Remarks:
    """What is worth a line of the log though it was answered: each text once in a while."""

    def __init__(self) -> None:
        self._quiet: dict[str, float] = {}

    def note(self, text: str) -> None:
        """A line, unless there was the same one lately."""
        now = clock.now()
        if now < self._quiet.get(text, 0.0):
            return
        if len(self._quiet) >= _REMARKS:
            self._quiet.clear()
        self._quiet[text] = now + _AGAIN
        log.info("%s", readable(text))


def ng_settings(config: Config, relay: RelaySettings, identity: str) -> NgSettings:
    """What NG doors go by."""
    found: dict[str, set[int]] = {}
    for one in relay.addresses:
        if one.name:
            found.setdefault(one.name, set()).add(one.version)
    versions = {name: next(iter(known)) for name, known in found.items() if len(known) == 1}
    mark = hashlib.sha256(identity.encode()).hexdigest()[:12] if identity else ""
    return NgSettings(**msgspec.structs.asdict(config.ng), interfaces=frozenset(found), versions=versions, mark=mark)


async def _open(door: Door, key: str) -> None:
    settings, address = door.settings, door.address
    advice = f"set {key}.address to one that is free and of this host"
    if address.kind in ENCRYPTED:
        advice = f"look at {key}.certificate, key, authorities and address"
    what = Path(address.path) if address.kind.is_file else address
    try:
        with told(f"{what}: cannot listen there", advice):
            await door.start()
    except LookupError as error:
        wrong = "owner" if settings.owner and settings.owner in str(error) else "group"
        name = settings.owner if wrong == "owner" else settings.group
        raise StartError(f"there is no {wrong} {name}; set {key}.{wrong} to one that exists") from error
