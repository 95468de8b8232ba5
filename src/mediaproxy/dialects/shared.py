"""[shell] MediaProxy 1.x and 2.x on a UNIX socket of ours, beside control lines: told apart by the first word.

The first line of a connection comes in, the protocol that serves it from there on goes out. To counters and the log
these connections are like those of any other door.
"""

import asyncio
from collections.abc import Iterator

from mediaproxy.dialects import v1, v2
from mediaproxy.dialects.doorlistener import LOCAL
from mediaproxy.dialects.doorsettings import DoorProtocol, DoorSettings
from mediaproxy.dialects.doorstream import StreamDoor
from mediaproxy.link import Link


class SharedDoors:
    """The doors of one socket that listens somewhere else: they are never started. A LineServer's ``guests``."""

    def __init__(self, path: str, link: Link) -> None:
        """``path``: of the socket."""
        first = _settings(DoorProtocol.MEDIAPROXY1, path)
        second = _settings(DoorProtocol.MEDIAPROXY2, path)
        self._first = StreamDoor(first, v1.MediaProxy1(), link)
        self._second = StreamDoor(second, v2.MediaProxy2(), link)

    def __iter__(self) -> Iterator[StreamDoor]:
        """For their reports."""
        return iter((self._first, self._second))

    def __call__(self, line: bytes) -> asyncio.Protocol | None:
        """Who serves a connection that says this; None: the words of neither protocol. A word that nobody knows is
        2.x's if its line ends as lines of 2.x do: its error is what such a module waits for."""
        words = line.split(None, 1)
        if not words:
            return None
        if words[0] in v1.WORDS:
            return self._first.protocol(LOCAL)
        known = words[0] in v2.WORDS or (line.endswith(b"\r\n") and not line.startswith(b"{"))
        return self._second.protocol(LOCAL) if known and len(words) == 1 else None

    async def stop(self) -> None:
        """End what is under way."""
        for door in self:
            await door.stop()


def _settings(protocol: DoorProtocol, path: str) -> DoorSettings:
    return DoorSettings(protocol=protocol, address=f"unix:{path}")
