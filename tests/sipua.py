"""A SIP phone of few words for tests with real sockets, over UDP, TCP and TLS.

It says what the test tells it to say, shares no code with the product, and never retransmits on its own.
"""

import asyncio
import itertools
import socket
import ssl
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import Any, Self

from mediaproxy.endpoint import Endpoint
from tests.vsip import Text, parameter

PATIENCE = 20.0
"Seconds to wait for what must come."
_numbers = itertools.count(1)


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, receive: Callable[[bytes], None]) -> None:
        self._receive = receive

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self._receive(data)


class Phone:
    """One phone: ``async with Phone("alice", edge) as alice``."""

    def __init__(  # noqa: PLR0913 - what a test may want otherwise
        self,
        user: str,
        edge: Endpoint,
        transport: str = "udp",
        *,
        address: str = "127.0.0.1",
        says: str = "",
        tls: ssl.SSLContext | None = None,
        sockets: Callable[[socket.SocketKind], socket.socket] | None = None,
    ) -> None:
        """``address``: where it sends from. ``says``: the address and port that it believes to have; empty: the true
        ones. ``sockets``: makes its UDP socket, such as one in another network namespace; None: one of this place."""
        self.user, self.edge, self.transport, self.domain = user, edge, transport, "example.com"
        self._address, self._says, self._tls, self._sockets = address, says, tls, sockets
        self.source = Endpoint(address, 0)
        self.raw: list[bytes] = []
        "What came that is no SIP: pings and pongs."
        self._inbox: asyncio.Queue[Text] = asyncio.Queue()
        self._put_back: list[Text] = []
        self._raw_came = asyncio.Event()
        self._cseq = itertools.count(1)
        self._udp: asyncio.DatagramTransport | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        if self.transport == "udp":
            where: dict[str, Any] = {"local_addr": (self._address, 0)}
            if self._sockets is not None:
                where = {"sock": self._sockets(socket.SOCK_DGRAM)}
                where["sock"].bind((self._address, 0))
            self._udp, _ = await loop.create_datagram_endpoint(lambda: _Datagrams(self._received), **where)
            name = self._udp.get_extra_info("sockname")
        else:
            reader, self._writer = await asyncio.open_connection(
                self.edge.address,
                self.edge.port,
                local_addr=(self._address, 0),
                ssl=self._tls,
                server_hostname="example.com" if self._tls else None,
            )
            name = self._writer.get_extra_info("sockname")
            self._task = loop.create_task(self._read(reader))
        self.source = Endpoint(name[0], name[1])
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.hang_up()

    async def hang_up(self) -> None:
        """Close the socket or the connection."""
        if self._udp is not None:
            self._udp.close()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._writer is not None:
            self._writer.transport.abort()
            self._writer = None
        await asyncio.sleep(0)

    # -- receiving

    async def _read(self, reader: asyncio.StreamReader) -> None:
        while True:
            line = await reader.readline()
            if not line:
                return
            if line == b"\r\n":
                self._received(line)
                continue
            head = line + await reader.readuntil(b"\r\n\r\n")
            length = int(Text.read(head).get("Content-Length"))
            self._received(head + await reader.readexactly(length))

    def _received(self, data: bytes) -> None:
        if not data.strip(b"\0\r\n"):
            self.raw.append(data)
            self._raw_came.set()
        else:
            self._inbox.put_nowait(Text.read(data))

    async def _next(self) -> Text:
        async with asyncio.timeout(PATIENCE):
            return await self._inbox.get()

    async def receive(self, what: str | int, method: str = "") -> Text:
        """The next request of method ``what``, or response with status ``what`` (to a request of ``method``). Others
        that come before are kept for later."""

        def fits(text: Text) -> bool:
            if isinstance(what, str):
                return text.start.startswith(what + " ")
            return text.status == what and (not method or text.method == method)

        for text in self._put_back:
            if fits(text):
                self._put_back.remove(text)
                return text
        while True:
            try:
                text = await self._next()
            except TimeoutError:
                kept = [text.start for text in self._put_back]
                raise AssertionError(f"{self.user} waits for {what}, but has only {kept}") from None
            if fits(text):
                return text
            self._put_back.append(text)

    async def receive_raw(self) -> bytes:
        """The next ping or pong."""
        while not self.raw:
            self._raw_came.clear()
            async with asyncio.timeout(PATIENCE):
                await self._raw_came.wait()
        return self.raw.pop(0)

    def unread(self) -> list[str]:
        """The start lines of what came and was not asked for."""
        while not self._inbox.empty():
            self._put_back.append(self._inbox.get_nowait())
        return [text.start for text in self._put_back]

    # -- sending

    @property
    def said(self) -> str:
        """Address and port as it writes them."""
        return self._says or str(self.source)

    @property
    def contact(self) -> str:
        """Its Contact URI."""
        suffix = "" if self.transport == "udp" else f";transport={self.transport}"
        return f"sip:{self.user}@{self.said}{suffix}"

    @property
    def aor(self) -> str:
        """Its address of record."""
        return f"sip:{self.user}@{self.domain}"

    def write(self, data: bytes) -> None:
        """Send bytes."""
        if self._udp is not None:
            self._udp.sendto(data, (self.edge.address, self.edge.port))
        else:
            assert self._writer is not None
            self._writer.write(data)

    def request(  # noqa: PLR0913 - a request has that many parts
        self,
        method: str,
        uri: str,
        *,
        to: str = "",
        tag: str = "",
        call_id: str = "",
        cseq: int = 0,
        branch: str = "",
        headers: Sequence[tuple[str, str]] = (),
        body: str = "",
        routes: Iterable[str] = (),
        rport: bool = False,
        contact: str | None = None,
        send: bool = True,
    ) -> Text:
        """Send a request and return it."""
        number = cseq or next(self._cseq)
        via = f"SIP/2.0/{self.transport.upper()} {self.said};branch={branch or f'z9hG4bK-{next(_numbers)}'}"
        lines = [
            f"{method} {uri} SIP/2.0",
            f"Via: {via}{';rport' if rport else ''}",
            *(f"Route: {route}" for route in routes),
            "Max-Forwards: 70",
            f"From: <{self.aor}>;tag={tag or self.user + '-tag'}",
            f"To: {to or f'<{uri}>'}",
            f"Call-ID: {call_id or f'call-{next(_numbers)}'}",
            f"CSeq: {number} {method}",
        ]
        shown = self.contact if contact is None else contact
        if shown and method not in ("CANCEL", "BYE", "ACK"):
            lines.append(f"Contact: <{shown}>" if shown != "*" else "Contact: *")
        lines += [f"{name}: {value}" for name, value in headers]
        text = self._finish(lines, body)
        if send:
            self.write(text)
        return Text.read(text)

    @staticmethod
    def _finish(lines: list[str], body: str) -> bytes:
        if body:
            lines.append("Content-Type: application/sdp")
        lines.append(f"Content-Length: {len(body)}")
        return ("\r\n".join(lines) + "\r\n\r\n" + body).encode("latin-1")

    def again(self, request: Text) -> None:
        """Retransmit."""
        head = "\r\n".join([request.start, *(f"{name}: {value}" for name, value in request.headers)])
        self.write((head + "\r\n\r\n" + request.body).encode("latin-1"))

    def answer(
        self,
        request: Text,
        status: int,
        body: str = "",
        *,
        tag: str = "",
        headers: Sequence[tuple[str, str]] = (),
    ) -> Text:
        """Send a response to a request."""
        lines = [f"SIP/2.0 {status} {'OK' if status == 200 else 'Whatever'}"]
        for name, value in request.headers:
            if name.lower() in ("via", "from", "call-id", "cseq") or (
                name.lower() == "record-route" and 100 < status < 300
            ):
                lines.append(f"{name}: {value}")
            if name.lower() == "to":
                own = "" if ";tag=" in value or status == 100 else f";tag={tag or self.user + '-tag'}"
                lines.append(f"To: {value}{own}")
        if 100 < status < 300:
            lines.append(f"Contact: <{self.contact}>")
        lines += [f"{name}: {value}" for name, value in headers]
        data = self._finish(lines, body)
        self.write(data)
        return Text.read(data)

    # -- small scenes

    async def register(self, expires: int = 600, **more: str) -> Text:
        """REGISTER, answered 200."""
        self.request(
            "REGISTER",
            f"sip:{self.domain}",
            to=f"<{self.aor}>",
            headers=[("Expires", str(expires))],
            **more,  # type: ignore[arg-type]  # only names of texts are handed on
        )
        return await self.receive(200, "REGISTER")

    def within(self, method: str, dialog: Text, *, body: str = "", cseq: int = 0) -> Text:
        """A request in the dialog that a response (caller) or a request (callee) made."""
        caller = dialog.status > 0
        routes = route_set(dialog, reverse=caller)
        far = dialog.get("To") if caller else dialog.get("From")
        near = dialog.get("From") if caller else dialog.get("To")
        return self.request(
            method,
            dialog.contact,
            to=far,
            tag=parameter(near, "tag") or f"{self.user}-tag",
            call_id=dialog.get("Call-ID"),
            cseq=cseq,
            routes=routes,
            body=body,
        )


def route_set(dialog: Text, *, reverse: bool) -> list[str]:
    """RFC 3261 §12.1: from Record-Route, reversed for the caller."""
    routes = [route.strip() for value in dialog.all("Record-Route") for route in value.split(",")]
    return routes[::-1] if reverse else routes


def sdp(address: str = "10.0.0.5", port: int = 4000) -> str:
    """One audio stream."""
    lines = ["v=0", f"o=- 1 1 IN IP4 {address}", "s=-", f"c=IN IP4 {address}", "t=0 0", f"m=audio {port} RTP/AVP 0", ""]
    return "\r\n".join(lines)
