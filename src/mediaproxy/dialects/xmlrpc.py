"""[shell] rtpengine's XML-RPC callback: a SIP server is told of a call that has ended by itself (``ng.callback``).

A report comes in, HTTP requests go out. ``CallReport.notify`` is ``xmlrpc:`` and the address that stands for ``%%`` in
the URL.
"""

import asyncio
from urllib.parse import urlsplit

from mediaproxy.dialects.ng.callback import HERE, bodies, judge
from mediaproxy.dialects.ng.settings import CallbackFormat
from mediaproxy.endpoint import address_text
from mediaproxy.events import CallReport

LONGEST = 65_536
"Bytes of an answer that are read."


class XmlRpcNotifier:
    """A Notifier."""

    scheme = "xmlrpc:"

    def __init__(self, url: str, form: CallbackFormat) -> None:
        """``url``: as in NgOptions.callback_url."""
        self._url = url
        self._form = form

    async def tell(self, report: CallReport) -> bool:
        """As Notifier."""
        host = address_text(report.notify.removeprefix(self.scheme)) or ""
        if HERE in self._url and not host:
            raise ValueError(f"the URL {self._url} needs the SIP server's address, which is not known")
        url = self._url.replace(HERE, f"[{host}]" if ":" in host else host)
        for body in bodies(report, self._form):
            judge(await _post(url, body))
        return True


async def _post(url: str, body: bytes) -> bytes:
    """The body of the answer. OSError, or ValueError if the server says no."""
    parts = urlsplit(url)
    secure = parts.scheme == "https"
    assert parts.hostname is not None
    reader, writer = await asyncio.open_connection(
        parts.hostname, parts.port or (443 if secure else 80), ssl=secure or None, limit=LONGEST
    )
    try:
        head = (
            f"POST {parts.path or '/'}{'?' if parts.query else ''}{parts.query} HTTP/1.0\r\nHost: {parts.netloc}\r\n"
            f"User-Agent: mediaproxy\r\nContent-Type: text/xml\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        writer.write(head.encode("latin-1") + body)
        answer = await _whole(reader)
    finally:
        writer.close()
    status, _, rest = answer.partition(b"\r\n")
    if status.split(b" ", 2)[1:2] != [b"200"]:
        raise ValueError(f"the SIP server says: {status.decode('latin-1')[:80]}")
    return rest.partition(b"\r\n\r\n")[2]


async def _whole(reader: asyncio.StreamReader) -> bytes:
    """All that comes until the connection ends, or the answer is there; at most LONGEST bytes."""
    found = b""
    while len(found) < LONGEST and b"</methodResponse>" not in found:
        data = await reader.read(LONGEST)
        if not data:
            break
        found += data
    return found
