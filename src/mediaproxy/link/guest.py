"""[shell] A connection of a link's socket that speaks another protocol: it goes into other hands, bytes already read
included. The host still counts it, and hears when it ends.
"""

import asyncio
from collections.abc import Callable
from typing import TypeAlias

Guests: TypeAlias = Callable[[bytes], asyncio.Protocol | None]
"By a line that is no control line: who takes the connection over; None: nobody knows such words."


class Guest(asyncio.Protocol):
    """Hands on what asyncio says."""

    def __init__(self, protocol: asyncio.Protocol, lost: Callable[[Exception | None], None]) -> None:
        """``lost``: whom else to tell when the connection is gone."""
        self._protocol = protocol
        self._lost = lost
        self.data_received = protocol.data_received  # type: ignore[method-assign] # nothing is to be done between
        self.eof_received = protocol.eof_received  # type: ignore[method-assign] # the same
        self.pause_writing = protocol.pause_writing  # type: ignore[method-assign] # the same
        self.resume_writing = protocol.resume_writing  # type: ignore[method-assign] # the same

    def take(self, transport: asyncio.Transport, data: bytes, *, ended: bool) -> None:
        """Take a connection over. ``data``: what was read already; ``ended``: the client has said all it wants to."""
        transport.set_protocol(self)
        self._protocol.connection_made(transport)
        self._protocol.data_received(data)
        if ended and not self._protocol.eof_received():
            transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """From asyncio."""
        self._protocol.connection_lost(exc)
        self._lost(exc)
