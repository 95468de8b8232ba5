"""[shell] Timeout sockets: a call that has ended by itself is told to the SIP server as a line with its tag.

Where and what is in ``CallReport.notify`` (``names``). Each notice has a connection of its own: the original keeps one
open, and loses the first notice after the server has closed it.
"""

import asyncio
import os
import stat
from pathlib import Path

from mediaproxy.dialects.rtpproxy.names import SCHEME, target
from mediaproxy.dialects.rtpproxy.sockets import DEFAULT, Patterns, permits
from mediaproxy.events import CallReport


class RtpProxyNotifier:
    """A Notifier (dialects/notices.py)."""

    scheme = SCHEME

    def __init__(self, sockets: Patterns = DEFAULT) -> None:
        """``sockets``: RtpProxyOptions.timeout_sockets."""
        self._paths = [f"unix:{_real(one.removeprefix('unix:'))}" for one in sockets if one.startswith("unix:")]

    async def tell(self, report: CallReport) -> bool:
        """Tell of one call: its tag, or its Call-ID if no tag was given. False if no socket was. OSError if the
        server cannot be reached, ValueError if its path leads elsewhere than to a socket that may be told."""
        socket, tag = target(report.notify)
        if not socket:
            return False
        writer = await self._connect(socket)
        try:
            writer.write((tag or report.call_id.encode("latin-1", "replace")) + b"\n")
            await writer.drain()
        finally:
            writer.close()
        await writer.wait_closed()
        return True

    async def _connect(self, socket: str) -> asyncio.StreamWriter:
        kind, _, rest = socket.partition(":")
        if kind == "unix":
            return await self._connect_unix(rest)
        host, _, port = rest.rpartition(":")
        return (await asyncio.open_connection(host.strip("[]"), int(port)))[1]

    async def _connect_unix(self, path: str) -> asyncio.StreamWriter:
        """To what the path leads to now: links in it may be anybody's."""
        file = os.open(path, os.O_PATH | os.O_CLOEXEC)
        try:
            here = f"/proc/self/fd/{file}"
            if not stat.S_ISSOCK(os.fstat(file).st_mode) or not permits(self._paths, f"unix:{os.readlink(here)}"):
                raise ValueError(f"{path} is no socket of rtpproxy.timeout_sockets")
            return (await asyncio.open_unix_connection(here))[1]
        finally:
            os.close(file)


def _real(pattern: str) -> str:
    """A pattern without links in its folder."""
    folder, _, name = pattern.rpartition("/")
    return f"{Path(folder or '/').resolve()}/{name}".replace("//", "/")
