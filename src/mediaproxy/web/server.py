"""[shell] The HTTP server of ``[web]``: GET of four paths, for whom the access list lets in.

What there is to say comes from the functions of a Source; text goes out. It must never change anything, and never let
a client that asks too much hold up packets: answers are short, or made piece by piece.
"""

import logging
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import msgspec
from aiohttp import web
from prometheus_client.exposition import choose_encoder

from mediaproxy import clock
from mediaproxy.access import AccessList
from mediaproxy.complaints import Complaints
from mediaproxy.endpoint import Endpoint
from mediaproxy.httplog import HttpLog
from mediaproxy.web.entrance import Entrance
from mediaproxy.web.figures import Chronicle, Snapshot
from mediaproxy.web.metrics import registry
from mediaproxy.web.settings import WebSettings

log = logging.getLogger("mediaproxy.web")

_CALLS = 1000
"Calls that /calls tells unless it is asked for more or fewer."
_IDLE = 75.0
"Seconds that a connection may be open without a request."
_MOST = 64
"Connections at a time."
_LINES = 3
"In the log a minute about one address that speaks no HTTP."
_encoder = msgspec.json.Encoder()
_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Unavailable(Exception):
    """There is nothing to say; the text says why."""


class Source(Protocol):
    """Who knows what is told."""

    def healthy(self) -> str:
        """Why this server should get no calls; empty: it is well."""

    def snapshot(self) -> Snapshot:
        """For /metrics."""

    def status(self) -> Any:
        """For /status: what msgspec can encode. Unavailable."""

    async def calls(self, call_id: str, most: int) -> Any:
        """For /calls, as ``mediaproxy calls`` shows them: those of a Call-ID, or so many, the oldest first.
        Unavailable."""


class WebServer:
    """One listening socket."""

    def __init__(self, settings: WebSettings, source: Source, chronicle: Chronicle) -> None:
        """ValueError if an address or a prefix is none."""
        self._wanted = Endpoint.parse(settings.address)
        self._access = AccessList(settings.allow)
        self._source = source
        self._chronicle = chronicle
        self._runner: web.AppRunner | None = None
        self._entrance: Entrance | None = None
        self._at: Endpoint | None = None
        self._complaints = Complaints(_LINES)

    async def start(self) -> None:
        """Listen. OSError."""
        app = web.Application(middlewares=[self._guard], client_max_size=1024)
        app.router.add_get("/health", self._health)
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/status", self._status)
        app.router.add_get("/calls", self._calls)
        runner = web.AppRunner(
            app,
            access_log=None,
            logger=HttpLog(log, self._malformed),
            handle_signals=False,
            keepalive_timeout=_IDLE,
            lingering_time=0,
            shutdown_timeout=1.0,
        )
        await runner.setup()
        assert runner.server is not None
        entrance = Entrance(runner.server, self._access, _MOST)
        try:
            self._at = Endpoint(*entrance.start(self._wanted.address, self._wanted.port))
        except OSError:
            await runner.cleanup()
            raise
        self._runner, self._entrance = runner, entrance

    async def stop(self) -> None:
        """Close all connections and listen no more. A second call does nothing."""
        runner, self._runner = self._runner, None
        if runner is not None and self._entrance is not None:
            await self._entrance.stop()
            await runner.cleanup()

    @property
    def address(self) -> Endpoint:
        """Where it listens, with the port that it got."""
        assert self._at is not None, "not started"
        return self._at

    def _malformed(self, source: str, text: str) -> None:
        for line in self._complaints.note(source, text, clock.now()):
            log.warning("%s", line)

    # -- requests

    @web.middleware
    async def _guard(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        if not self._access.admits(request.remote or ""):
            return _text("this address may not ask (web.allow)\n", 403)
        assert self._entrance is not None
        with self._entrance.busy(request.transport):
            try:
                return await handler(request)
            except Unavailable as why:
                return _json({"error": str(why)}, 503)

    async def _health(self, request: web.Request) -> web.Response:
        why = self._source.healthy()
        return _text(f"{why or 'ok'}\n", 503 if why else 200)

    async def _metrics(self, request: web.Request) -> web.Response:
        encode, kind = choose_encoder(request.headers.get("Accept", ""))
        body = encode(registry(self._source.snapshot(), self._chronicle))
        return web.Response(body=body, headers={"Content-Type": kind})

    async def _status(self, request: web.Request) -> web.Response:
        return _json(self._source.status())

    async def _calls(self, request: web.Request) -> web.Response:
        limit = request.query.get("limit", str(_CALLS))
        if not (limit.isascii() and limit.isdigit() and len(limit) < 7):
            return _json({"error": "limit: expected a number of calls"}, 400)
        call_id = request.query.get("call_id", "").encode("utf-8", "surrogateescape").decode("latin-1")
        return _json(await self._source.calls(call_id, int(limit)))


def _text(text: str, status: int) -> web.Response:
    return web.Response(text=text, status=status)


def _json(value: Any, status: int = 200) -> web.Response:
    headers = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
    return web.Response(body=_encoder.encode(value), status=status, content_type="application/json", headers=headers)
