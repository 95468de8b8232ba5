"""[shell] Where on this machine the server keeps its things, and which of its addresses media comes to.

The configuration and the environment come in, paths and addresses go out. What is configured is never second-guessed.
"""

import hashlib
import os
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from mediaproxy.config import Config
from mediaproxy.edge.settings import Listener
from mediaproxy.endpoint import Scope, scope
from mediaproxy.relay.settings import RelayAddress, RelaySettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """The directories of one server."""

    SYSTEM_RUNTIME: ClassVar[Path] = Path("/run/mediaproxy")
    SYSTEM_STATE: ClassVar[Path] = Path("/var/lib/mediaproxy")
    SYSTEM_SOCKET: ClassVar[Path] = Path("/var/run/proxydispatcher.sock")
    "The original's, which its module asks by default."

    runtime_dir: Path
    "The control socket."
    state_dir: Path
    "Registrations and call records: what a restart must find again."
    records: Path
    "The file of call records."
    module_socket: Path | None = None
    "Where the module of a SIP server asks; None: in ``runtime_dir``."
    second_socket: Path | None = None
    "Where that of MediaProxy 2.x asks; None: in ``runtime_dir``."

    @property
    def mediaproxy_socket(self) -> Path:
        """Where the module of a SIP server asks."""
        return self.module_socket or self.runtime_dir / "proxydispatcher.sock"

    @property
    def dispatcher_socket(self) -> Path:
        """Where that of MediaProxy 2.x asks."""
        return self.second_socket or self.runtime_dir / "dispatcher.sock"

    @property
    def relay_socket(self) -> Path:
        """Where a relay process takes the questions of dispatchers if it is not told."""
        return self.runtime_dir / "relay.sock"

    @property
    def location(self) -> Path:
        """The file of registrations."""
        return self.state_dir / "location.db"

    @property
    def journal(self) -> Path:
        """The file of the relay's calls."""
        return self.state_dir / "calls.db"

    @property
    def released(self) -> Path:
        """The file of what was counted in the kernel until ``mediaproxy relay --release``."""
        return self.state_dir / "released.counters"

    @classmethod
    def of(cls, config: Config) -> "Places":
        """As configured; what is empty follows from the user that we are."""
        root = os.geteuid() == 0
        home = Path.home() / ".local" / "state"
        own_state = _directory("XDG_STATE_HOME") or home
        runtime = cls.SYSTEM_RUNTIME if root else (_directory("XDG_RUNTIME_DIR") or own_state) / "mediaproxy"
        state = cls.SYSTEM_STATE if root else own_state / "mediaproxy"
        state = Path(config.state_dir) if config.state_dir else state
        asked = Path(config.dispatcher.mediaproxy_socket) if config.dispatcher.mediaproxy_socket else None
        if asked is None and root and not config.runtime_dir:
            asked = cls.SYSTEM_SOCKET
        return cls(
            runtime_dir=Path(config.runtime_dir) if config.runtime_dir else runtime,
            state_dir=state,
            records=Path(config.records.path) if config.records.path else state / "records.jsonl",
            module_socket=asked,
            second_socket=Path(config.dispatcher.socket_path) if config.dispatcher.socket_path else None,
        )


def instance_name(settings: RelaySettings, places: Places) -> str:
    """What the folder of a relay's pins is called: as configured, else after ``state_dir``, where its journal is."""
    if settings.instance:
        return settings.instance
    where = places.state_dir.absolute()
    return f"{where.name or 'mediaproxy'}-{hashlib.sha256(str(where).encode()).hexdigest()[:8]}"


def _directory(variable: str) -> Path | None:
    """The XDG base directory in an environment variable; relative ones count as unset, as the specification says."""
    text = os.environ.get(variable, "")
    return Path(text) if text.startswith("/") else None


_PREFERENCE = (Scope.PUBLIC, Scope.SHARED, Scope.PRIVATE, Scope.ULA, Scope.LOOPBACK)
"Which address media comes to if SIP listens on several: the one that most phones can reach."


def relay_settings(settings: RelaySettings, listeners: Iterable[Listener], *, chosen: bool = False) -> RelaySettings:
    """The settings with addresses: those configured, else of each IP version one that SIP listens on. ``chosen``: the
    operator named these listeners.

    Of several private ones the first: the kernel's order, in which that of the first interface stands before others.
    """
    if settings.addresses:
        return settings
    listeners = tuple(listeners)
    found = {one.bind.address: one.public.address for one in reversed(listeners)}
    order = [one.bind.address for one in listeners]
    addresses = [
        RelayAddress(bind=bind, advertise="" if found[bind] == bind else found[bind])
        for bind in _choice(order, loopback=chosen)
    ]
    return _with_addresses(settings, addresses)


def relay_of_host(settings: RelaySettings, addresses: Iterable[str]) -> RelaySettings:
    """The settings with addresses: those configured, else of each IP version one of the host's. Of several of a kind
    the one that its packets to the Internet leave from."""
    if settings.addresses:
        return settings
    outward = _outward()
    order = sorted(addresses, key=lambda one: one not in outward)
    return _with_addresses(settings, [RelayAddress(bind=bind) for bind in _choice(order)])


def _with_addresses(settings: RelaySettings, addresses: Iterable[RelayAddress]) -> RelaySettings:
    fields = {name: getattr(settings, name) for name in RelaySettings.__struct_fields__}
    return RelaySettings(**fields | {"addresses": tuple(addresses)})


def _choice(addresses: Iterable[str], *, loopback: bool = False) -> Iterable[str]:
    """Of each IP version the one that most phones can reach. ``loopback``: ::1 counts beside IPv4."""
    by_version: dict[int, list[str]] = {4: [], 6: []}
    for one in addresses:
        by_version[6 if ":" in one else 4].append(one)
    if by_version[4] and not loopback:
        # ::1 alone is no reason to offer IPv6: no phone comes from there, unless somebody wants it to.
        by_version[6] = [one for one in by_version[6] if scope(one) is not Scope.LOOPBACK]
    return [min(mine, key=_rank) for mine in by_version.values() if mine]


def _rank(address: str) -> int:
    kind = scope(address)
    return _PREFERENCE.index(kind) if kind in _PREFERENCE else len(_PREFERENCE)


def _outward() -> set[str]:
    """The addresses that packets to the Internet leave from, as the routes are now; nothing is sent."""
    found = set()
    for family, somewhere in ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1")):
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as probe:
                probe.connect((somewhere, 9))
                found.add(str(probe.getsockname()[0]))
        except OSError:
            pass  # no route, or no such IP version
    return found
