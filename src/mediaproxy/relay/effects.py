"""What the pure relay wants done, as values.

``Calls`` returns them; ``relay/service.py`` carries them out in their order. Nothing here decides or does anything.
"""

from dataclasses import dataclass
from typing import TypeAlias

from mediaproxy.endpoint import Endpoint
from mediaproxy.events import Event
from mediaproxy.relay.flow import Flow


@dataclass(frozen=True, slots=True)
class Install:
    """Lend a port to a flow, or change the flow of a lent one."""

    flow: Flow


@dataclass(frozen=True, slots=True)
class Remove:
    """Take a port back."""

    local: Endpoint
    generation: int


@dataclass(frozen=True, slots=True)
class Send:
    """Send one datagram from a lent port."""

    local: Endpoint
    target: Endpoint
    data: bytes


@dataclass(frozen=True, slots=True)
class Report:
    """Tell what happened."""

    event: Event


Effect: TypeAlias = Install | Remove | Send | Report
