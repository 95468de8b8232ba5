"""[shell] A door for HTTP and WebSocket, as rtpengine has one for NG: POST ``/ng`` takes one request with its cookie in
the body, ``/ng-plain`` one without; so do WebSockets, told apart by their sub-protocol. ``GET /ping`` says ``pong``.

The web server is aiohttp; who may connect, and how many, is the listener's business as with other doors.
"""

import asyncio
import itertools
import logging
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

from aiohttp import WSCloseCode, WSMsgType, web

from mediaproxy import clock
from mediaproxy.dialects.dialect import Dialect, Peer
from mediaproxy.dialects.door import LONGEST_COOKIE, Door
from mediaproxy.dialects.doorcache import AnswerCache
from mediaproxy.dialects.doorlistener import Listener
from mediaproxy.dialects.doorreport import DoorReport
from mediaproxy.dialects.doorsettings import DoorSettings
from mediaproxy.httplog import HttpLog
from mediaproxy.link import Link

CONTENT_TYPE = "application/x-rtpengine-ng"
"Of answers, and of requests by custom; what a request says it is does not matter."
WITH_COOKIE = "ng.rtpengine.com"
WITHOUT_COOKIE = "ng-plain.rtpengine.com"
IDLE = 60.0
"Seconds that a connection may be open without a request, unless it is a WebSocket; these are pinged."
UNFINISHED = 10.0
"Seconds that a request's body may take to come whole."
DEAF = 5.0
"Seconds that a WebSocket client may take to read an answer."
_PING = 30.0
_MOST_CLOSED = 64
"Connections that are remembered although they are closed; or as many as are open."
_WHERE = "POST /ng or /ng-plain, or a WebSocket\n"

log = logging.getLogger(__name__)


class HttpDoor(Door):
    """HTTP or HTTPS."""

    def __init__(self, settings: DoorSettings, dialect: Dialect, plain: Dialect, link: Link) -> None:
        """``dialect``: with cookies; ``plain``: without."""
        super().__init__(settings, dialect, link)
        self.cache: AnswerCache[None] = AnswerCache()
        self._plain = plain
        self._listener = Listener(self, self)
        self._numbers = itertools.count()
        self._numbered: dict[web.RequestHandler, int] = {}
        "Of connections; some may be closed by now."
        self._full = _MOST_CLOSED
        "How many there are when the closed ones go."
        self._runner: web.AppRunner | None = None
        self._server: web.Server | None = None
        self._busy: set[asyncio.BaseTransport] = set()
        "Connections with a request under way, and WebSockets."
        self._sockets: set[web.WebSocketResponse] = set()

    async def start(self) -> None:
        """As Door."""
        app = web.Application(middlewares=[_no_strange_page], client_max_size=self.settings.max_request)
        app.router.add_post("/ng", self._with_cookie)
        app.router.add_post("/ng-plain", self._without_cookie)
        app.router.add_get("/ping", self._ping)
        app.router.add_get("/{path:.*}", self._websocket)
        app.router.add_post("/{path:.*}", self._nowhere)
        self._runner = web.AppRunner(
            app,
            access_log=None,
            logger=HttpLog(log, self.malformed),
            handle_signals=False,
            keepalive_timeout=IDLE,
            lingering_time=0,  # what a client still sends after it was refused is not waited for
            shutdown_timeout=1.0,
        )
        await self._runner.setup()
        self._server = self._runner.server
        try:
            self._listener.start()
        except (OSError, LookupError):
            await self._runner.cleanup()
            raise

    async def stop(self) -> None:
        """As Door."""
        self._listener.stop()
        await self.end_tasks()
        for socket in list(self._sockets):
            await socket.close(code=WSCloseCode.GOING_AWAY)
        if self._runner is not None:
            await self._runner.cleanup()

    # -- connections

    def protocol(self, source: str) -> asyncio.BaseProtocol:
        """From the listener."""
        assert self._server is not None
        return self._server()

    def count(self) -> int:
        """From the listener."""
        assert self._server is not None
        self.counters.connections = len(self._server.connections)
        return self.counters.connections

    def connected(self, protocol: asyncio.BaseProtocol) -> bool:
        """From the listener."""
        assert isinstance(protocol, web.RequestHandler)
        return protocol.transport is not None

    def report(self) -> DoorReport:
        """As Door."""
        if self._server is not None:
            self.count()
        return super().report()

    def make_room(self, host: str) -> bool:
        """From the listener."""
        assert self._server is not None
        transports = [one.transport for one in self._server.connections if one.transport is not None]
        held = Counter(_host(one) for one in transports)
        for transport in transports:
            if transport not in self._busy and held[_host(transport)] > held[host] + 1:
                transport.abort()
                return True
        return False

    # -- HTTP

    async def _nowhere(self, request: web.Request) -> web.Response:
        return web.Response(status=404, text=_WHERE)

    async def _ping(self, request: web.Request) -> web.Response:
        return web.Response(text="pong\n")

    async def _with_cookie(self, request: web.Request) -> web.Response:
        return await self._post(request, self.dialect)

    async def _without_cookie(self, request: web.Request) -> web.Response:
        return await self._post(request, self._plain)

    async def _post(self, request: web.Request, dialect: Dialect) -> web.Response:
        source = _source(request)
        async with self._under_way(request):
            try:
                async with asyncio.timeout(UNFINISHED):
                    body = await request.read()
            except TimeoutError:
                self.malformed(source, f"a request did not come whole within {UNFINISHED:g} s")
                return web.Response(status=408, text="the request did not come whole\n")
            except web.HTTPRequestEntityTooLarge:
                self.dropped(source, f"a request of more than {self.settings.max_request} bytes (max_request)")
                raise
            peer = Peer("http", source, clock.now())
            answer = await self._repeatable(body, dialect, self._number_of(request.protocol), peer)
        if answer is None:
            return web.Response(status=400, text="no NG request; the body of /ng is COOKIE, a space and a dictionary\n")
        return web.Response(body=bytes(answer), content_type=CONTENT_TYPE)

    def _number_of(self, connection: web.RequestHandler) -> int:
        """No other connection ever had it."""
        number = self._numbered.get(connection)
        if number is None:
            if len(self._numbered) >= self._full:
                assert self._server is not None
                open_ = set(self._server.connections)
                self._numbered = {one: number for one, number in self._numbered.items() if one in open_}
                self._full = 2 * len(self._numbered) + _MOST_CLOSED
            number = self._numbered[connection] = next(self._numbers)
        return number

    @asynccontextmanager
    async def _under_way(self, request: web.Request) -> AsyncIterator[None]:
        transport = request.transport
        if transport is not None:
            self._busy.add(transport)
        try:
            yield
        finally:
            if transport is not None:
                self._busy.discard(transport)

    async def _answer(self, body: bytes, dialect: Dialect, peer: Peer) -> bytes | None:
        answered: asyncio.Future[bytes | None] = asyncio.get_running_loop().create_future()

        def done(answer: bytes | None) -> None:
            if not answered.done():
                answered.set_result(answer)

        self.serve(body, peer, done, dialect)
        return await answered

    # -- WebSocket

    async def _websocket(self, request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse(
            protocols=(WITH_COOKIE, WITHOUT_COOKIE),
            max_msg_size=self.settings.max_request,
            heartbeat=_PING,
            compress=False,
        )
        if not socket.can_prepare(request):
            raise web.HTTPNotFound(text=_WHERE)
        async with self._under_way(request):
            await socket.prepare(request)
            if socket.ws_protocol is None:
                self.malformed(_source(request), f"a WebSocket without sub-protocol; expected {WITH_COOKIE}")
                await socket.close(code=WSCloseCode.PROTOCOL_ERROR, message=b"sub-protocol")
                return socket
            self._sockets.add(socket)
            try:
                await self._converse(socket, self._number_of(request.protocol), _source(request))
            finally:
                self._sockets.discard(socket)
        return socket

    async def _converse(self, socket: web.WebSocketResponse, number: int, source: str) -> None:
        dialect = self.dialect if socket.ws_protocol == WITH_COOKIE else self._plain
        async for message in socket:
            if message.type not in (WSMsgType.BINARY, WSMsgType.TEXT):
                break
            data = message.data.encode() if isinstance(message.data, str) else message.data
            answer = await self._repeatable(data, dialect, number, Peer("ws", source, clock.now()))
            if answer is None:
                await socket.close(code=WSCloseCode.INVALID_TEXT, message=b"no NG request")
                return
            if answer:
                try:
                    async with asyncio.timeout(DEAF):
                        await socket.send_bytes(bytes(answer))
                except (TimeoutError, ConnectionError):
                    self.dropped(source, f"it does not read its answers for {DEAF:g} s")
                    return

    async def _repeatable(self, data: bytes, dialect: Dialect, number: int, peer: Peer) -> bytes | None:
        cookie = dialect.cookie(data)
        if cookie is None or len(cookie) > LONGEST_COOKIE:
            return await self._answer(data, dialect, peer)
        kept = self.cache.find((cookie, number), peer.now)
        if kept is not None:
            self.counters.repeated += 1
            return kept
        answer = await self._answer(data, dialect, peer)
        self.cache.done((cookie, number), answer, clock.now())
        return answer


@web.middleware
async def _no_strange_page(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Browsers say which page makes them ask, SIP servers nothing or the door's own name (Kamailio's lwsc): so no page
    of elsewhere ends calls by the browser of somebody who may ask."""
    origin = request.headers.get("Origin")
    if origin is not None and (_name(origin) or "?") != _name(f"//{request.host}"):
        return web.Response(status=403, text="not for pages of other servers\n")
    return await handler(request)


def _name(url: str) -> str | None:
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None


def _host(transport: asyncio.BaseTransport) -> str:
    name = transport.get_extra_info("peername")
    return str(name[0]) if name else ""


def _source(request: web.Request) -> str:
    name = request.transport.get_extra_info("peername") if request.transport is not None else None
    if not name:
        return "somebody"
    return f"[{name[0]}]:{name[1]}" if ":" in name[0] else f"{name[0]}:{name[1]}"
