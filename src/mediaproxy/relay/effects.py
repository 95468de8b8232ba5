"""What the pure relay wants done, as values.

``Calls`` returns them; ``relay/service.py`` carries them out in their order. Nothing here decides or does anything.
"""

from typing import TypeAlias

import msgspec

from mediaproxy.endpoint import Endpoint
from mediaproxy.events import Event
from mediaproxy.relay.flow import Flow


class Install(msgspec.Struct, frozen=True):
    """Lend a port to a flow, or change the flow of a lent one."""

    flow: Flow


class Remove(msgspec.Struct, frozen=True):
    """Take a port back."""

    local: Endpoint
    generation: int


class Send(msgspec.Struct, frozen=True):
    """Send one datagram from a lent port."""

    local: Endpoint
    target: Endpoint
    data: bytes


class Report(msgspec.Struct, frozen=True):
    """Tell what happened."""

    event: Event


Effect: TypeAlias = Install | Remove | Send | Report
