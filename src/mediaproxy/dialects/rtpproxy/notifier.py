"""[shell] Timeout sockets: a call that has ended by itself is told to the SIP server as a line with its tag.

Where and what is in ``CallReport.notify`` (``names``). Each notice has a connection of its own: the original keeps one
open, and loses the first notice after the server has closed it.
"""

import asyncio

from mediaproxy.dialects.rtpproxy.names import SCHEME, target
from mediaproxy.events import CallReport


class RtpProxyNotifier:
    """A Notifier (dialects/notices.py)."""

    scheme = SCHEME

    async def tell(self, report: CallReport) -> None:
        """Tell of one call: its tag, or its Call-ID if no tag was given. Nothing if no socket was. OSError if the
        server cannot be reached."""
        socket, tag = target(report.notify)
        if not socket:
            return
        writer = await _connect(socket)
        try:
            writer.write((tag or report.call_id.encode("latin-1", "replace")) + b"\n")
            await writer.drain()
        finally:
            writer.close()
        await writer.wait_closed()


async def _connect(socket: str) -> asyncio.StreamWriter:
    kind, _, rest = socket.partition(":")
    if kind == "unix":
        return (await asyncio.open_unix_connection(rest))[1]
    host, _, port = rest.rpartition(":")
    return (await asyncio.open_connection(host.strip("[]"), int(port)))[1]
