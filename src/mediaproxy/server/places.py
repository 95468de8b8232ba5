"""[shell] Where on this machine the server keeps its things, and which of its addresses media comes to.

The configuration and the environment come in, paths and addresses go out. What is configured is never second-guessed.
"""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from msgspec.structs import asdict

from mediaproxy.config import Config
from mediaproxy.edge.settings import Listener
from mediaproxy.endpoint import Endpoint, Scope, scope
from mediaproxy.relay.settings import RelayAddress, RelaySettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """The directories of one server."""

    SYSTEM_RUNTIME: ClassVar[Path] = Path("/run/mediaproxy")
    SYSTEM_STATE: ClassVar[Path] = Path("/var/lib/mediaproxy")

    runtime_dir: Path
    "The control socket."
    state_dir: Path
    "Registrations and call records: what a restart must find again."
    records: Path
    "The file of call records."

    @property
    def location(self) -> Path:
        """The file of registrations."""
        return self.state_dir / "location.db"

    @classmethod
    def of(cls, config: Config) -> "Places":
        """As configured; what is empty follows from the user that we are."""
        root = os.geteuid() == 0
        home = Path.home() / ".local" / "state"
        own_state = _directory("XDG_STATE_HOME") or home
        runtime = cls.SYSTEM_RUNTIME if root else (_directory("XDG_RUNTIME_DIR") or own_state) / "mediaproxy"
        state = cls.SYSTEM_STATE if root else own_state / "mediaproxy"
        state = Path(config.state_dir) if config.state_dir else state
        return cls(
            runtime_dir=Path(config.runtime_dir) if config.runtime_dir else runtime,
            state_dir=state,
            records=Path(config.records.path) if config.records.path else state / "records.jsonl",
        )


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
    fields = asdict(settings)
    if not settings.addresses:
        fields["addresses"] = tuple(_choice(listeners, chosen))
    return RelaySettings(**fields)


def _choice(listeners: Iterable[Listener], chosen: bool) -> Iterable[RelayAddress]:
    listeners = tuple(listeners)
    by_version = {version: [one for one in listeners if one.bind.version == version] for version in (4, 6)}
    if by_version[4] and not chosen:
        # ::1 alone is no reason to offer IPv6: no phone comes from there, unless somebody wants it to.
        by_version[6] = [one for one in by_version[6] if scope(one.bind.address) is not Scope.LOOPBACK]
    for mine in by_version.values():
        if mine:
            best = min(mine, key=lambda one: _rank(one.bind))
            public = best.public.address
            yield RelayAddress(bind=best.bind.address, advertise="" if public == best.bind.address else public)


def _rank(endpoint: Endpoint) -> int:
    kind = scope(endpoint.address)
    return _PREFERENCE.index(kind) if kind in _PREFERENCE else len(_PREFERENCE)
