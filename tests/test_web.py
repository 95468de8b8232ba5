"""web/server.py and server/monitoring.py over real sockets: who may ask, what is answered, what a scrape costs."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from msgspec.structs import replace

from mediaproxy.config import Config, ConfigError, loads
from mediaproxy.config.schema import Relay
from mediaproxy.control import EndCause, EndRequest, KnownBy, MediaRequest, Party, PayloadType, PhoneAddress, Stream
from mediaproxy.dispatcher.settings import DispatcherSettings, RelayEntry
from mediaproxy.edge.settings import EdgeSettings
from mediaproxy.endpoint import Endpoint
from mediaproxy.relay.bpf import FastPathUnavailable
from mediaproxy.relay.kernel.plane import KernelPlane
from mediaproxy.server import planes
from mediaproxy.server.assembly import Server
from mediaproxy.server.places import Places
from mediaproxy.server.relaying import RelayServer
from mediaproxy.server.starting import StartError
from mediaproxy.server.station import Station
from mediaproxy.web.figures import Chronicle, Snapshot
from mediaproxy.web.server import Unavailable, WebServer
from mediaproxy.web.settings import WebSettings

pytestmark = pytest.mark.usefixtures("no_leaks")


class Toy:
    """A Source."""

    def __init__(self) -> None:
        self.sick = ""
        self.asked: list[tuple[str, int]] = []

    def healthy(self) -> str:
        return self.sick

    def snapshot(self) -> Snapshot:
        return Snapshot(version="1.2", started=5.0, registrations=3)

    def status(self) -> Any:
        if self.sick:
            raise Unavailable(self.sick)
        return {"version": "1.2"}

    async def calls(self, call_id: str, most: int) -> Any:
        self.asked.append((call_id, most))
        return {"calls": []}


@pytest.fixture
def toy() -> Toy:
    return Toy()


@pytest.fixture
async def server(toy: Toy) -> AsyncIterator[WebServer]:
    made = WebServer(WebSettings(address="127.0.0.1:0"), toy, Chronicle())
    await made.start()
    yield made
    await made.stop()


async def get(address: Endpoint | str, path: str, **headers: str) -> tuple[int, str, str]:
    """Status, kind and text of an answer."""
    async with (
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10)) as session,
        session.get(f"http://{address}{path}", headers=headers) as answer,
    ):
        return answer.status, answer.headers["Content-Type"], await answer.text()


@pytest.mark.parametrize(
    ("path", "status", "kind", "text"),
    [
        ("/health", 200, "text/plain", "ok\n"),
        ("/metrics", 200, "text/plain", "mediaproxy_registrations 3.0\n"),
        ("/status", 200, "application/json", '{"version":"1.2"}'),
        ("/calls", 200, "application/json", '{"calls":[]}'),
        ("/calls?limit=x", 400, "application/json", "limit"),
        ("/calls?limit=-1", 400, "application/json", "limit"),
        ("/", 404, "text/plain", "404"),
        ("/metrics/", 404, "text/plain", "404"),
    ],
)
async def test_answers(server: WebServer, path: str, status: int, kind: str, text: str) -> None:
    answer = await get(server.address, path)
    assert answer[0] == status and answer[1].startswith(kind) and text in answer[2]


async def test_prometheus_gets_open_metrics_if_it_wants_them(server: WebServer) -> None:
    _, kind, text = await get(server.address, "/metrics", Accept="application/openmetrics-text;version=1.0.0")
    assert kind.startswith("application/openmetrics-text") and text.endswith("# EOF\n")


async def test_which_calls(server: WebServer, toy: Toy) -> None:
    await get(server.address, "/calls")
    await get(server.address, "/calls?limit=5")
    await get(server.address, "/calls?call_id=a%40b%C3%A9")
    assert toy.asked == [("", 1000), ("", 5), ("a@b\u00c3\u00a9", 1000)], "a Call-ID is Latin-1, a character per byte"


async def test_who_is_not_well_says_so(server: WebServer, toy: Toy) -> None:
    toy.sick = "no relay answers"
    assert await get(server.address, "/health") == (503, "text/plain; charset=utf-8", "no relay answers\n")
    assert (await get(server.address, "/status"))[0] == 503


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
async def test_nothing_can_be_changed(server: WebServer, method: str) -> None:
    async with aiohttp.ClientSession() as session, session.request(method, f"http://{server.address}/calls") as answer:
        assert answer.status == 405


@pytest.mark.parametrize(
    ("allow", "status"), [((), 200), (("127.0.0.0/8",), 200), (("192.0.2.0/24",), 403), (("::1",), 403)]
)
async def test_who_may_ask(toy: Toy, allow: tuple[str, ...], status: int) -> None:
    server = WebServer(WebSettings(address="127.0.0.1:0", allow=allow), toy, Chronicle())
    await server.start()
    try:
        assert [(await get(server.address, path))[0] for path in ("/health", "/metrics", "/calls")] == [status] * 3
    finally:
        await server.stop()


async def test_idle_connections_make_room(server: WebServer) -> None:
    idle = [await asyncio.open_connection(server.address.address, server.address.port) for _ in range(100)]
    assert (await get(server.address, "/health"))[0] == 200
    assert await asyncio.wait_for(idle[0][0].read(), 30) == b"", "the oldest one was closed"
    for _, writer in idle:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def test_what_is_no_http_is_told_in_a_few_lines(server: WebServer, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(8):
        reader, writer = await asyncio.open_connection(server.address.address, server.address.port)
        writer.write(b"\x16\x03\x01 no HTTP at all\r\n\r\n")
        async with asyncio.timeout(30):
            assert b" 400 " in await reader.read()
        writer.close()
    assert 0 < len([line for line in caplog.messages if "no HTTP" in line]) <= 3
    assert not [record for record in caplog.records if record.exc_info]


async def test_strangers_make_room_first(toy: Toy) -> None:
    server = WebServer(WebSettings(address="0.0.0.0:0", allow=("127.0.0.2",)), toy, Chronicle())
    await server.start()
    port = server.address.port
    try:
        friend = await asyncio.open_connection("127.0.0.1", port, local_addr=("127.0.0.2", 0))
        strangers = [await asyncio.open_connection("127.0.0.1", port) for _ in range(200)]
        friend[1].write(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        assert await asyncio.wait_for(friend[0].readline(), 30) == b"HTTP/1.1 200 OK\r\n"
        for _, writer in (friend, *strangers):
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()
    finally:
        await server.stop()


# -- configuration


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[web]\naddress = "9107"', "line 2: web.address: expected an address and a port"),
        ('[web]\naddress = "localhost:9107"', "line 2: web.address"),
        ('[web]\nallow = ["10.0.0.0/33"]', "web.allow[0]: expected an address or a prefix"),
        ("[web]\nport = 1", "no such key"),
    ],
)
def test_settings_that_cannot_be(text: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        loads(text)
    assert said in str(caught.value)


def test_it_is_off_by_default() -> None:
    assert Config().web.address == ""


# -- of a whole server


@pytest.fixture
def places(tmp_path: Path) -> Places:
    return Places(runtime_dir=tmp_path / "run", state_dir=tmp_path / "state", records=tmp_path / "records.jsonl")


def config(**more: Any) -> Config:
    values = {
        "web": WebSettings(address="127.0.0.1:0"),
        "edge": EdgeSettings(enabled=False),
        "relay": Relay(plane="user", addresses=loads('[[relay.addresses]]\nbind = "127.0.0.1"').relay.addresses),
    }
    return Config(**(values | more))


def web(server: Station) -> Endpoint:
    assert server._web is not None
    return server._web.address


async def call(server: Station, number: int) -> None:
    """Offer and answer."""
    for side, tags in enumerate((("a", "b"), ("b", "a"))):
        phone = Endpoint("127.0.0.9", 4000 + 4 * number + 2 * side)
        media = Stream(
            kind="audio",
            transport="RTP/AVP",
            endpoint=phone,
            payload_types=(PayloadType(number=0, codec="PCMU", clock_rate=8000),),
        )
        reply = await server._link.ask(
            MediaRequest(
                call_id=f"{number}@example.net",
                sender=Party(tag=tags[0], uri="sip:alice:secret@example.net"),
                receiver=Party(tag=tags[1]),
                cseq=1,
                sdp_hash=str(side),
                status=200 * side,
                phone=PhoneAddress(endpoint=phone, known_by=KnownBy.SOURCE),
                streams=(media,),
            )
        )
        assert not reply.error


async def test_a_server_tells_of_its_calls(places: Places) -> None:
    async with Server(config(), places) as server:
        for number in range(3):
            await call(server, number)
        question = EndRequest(
            call_id="1@example.net", sender=Party(tag="a"), receiver=Party(tag="b"), cause=EndCause.BYE
        )
        await server._link.ask(question)
        _, _, text = await get(web(server), "/metrics")
        lines = set(text.splitlines())
        assert lines >= {
            'mediaproxy_calls{state="talking"} 2.0',
            'mediaproxy_streams{plane="learning"} 2.0',
            "mediaproxy_calls_started_total 3.0",
            'mediaproxy_calls_ended_total{reason="bye"} 1.0',
            'mediaproxy_questions_total{kind="media"} 6.0',
            'mediaproxy_questions_total{kind="end"} 1.0',
            'mediaproxy_port_pairs{state="lent"} 4.0',
            'mediaproxy_relay_up{relay="local"} 1.0',
            'mediaproxy_plane_info{plane="user",where="in user space",why_not_kernel=""} 1.0',
        }
        calls = json.loads((await get(web(server), "/calls"))[2])
        assert [one["call_id"] for one in calls["calls"]] == ["0@example.net", "2@example.net"]
        assert "secret" not in json.dumps(calls) and "alice:***" in json.dumps(calls)
        one = json.loads((await get(web(server), "/calls?call_id=2@example.net"))[2])
        assert [found["call_id"] for found in one["calls"]] == ["2@example.net"]
        assert len(json.loads((await get(web(server), "/calls?limit=1"))[2])["calls"]) == 1
        status = json.loads((await get(web(server), "/status"))[2])
        assert (status["calls"], status["web"], status["plane"]) == (2, str(web(server)), "user")
        assert (await get(web(server), "/health"))[0] == 200


async def test_why_media_is_not_in_the_kernel_is_seen(
    places: Places, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Falling back is automatic, said once, and visible in calls and metrics."""

    class NoKernel(KernelPlane):
        def __init__(self, *_: object) -> None:
            raise FastPathUnavailable("the kernel", "this host is made of wood")

    monkeypatch.setattr(planes, "KernelPlane", NoKernel)
    with_auto = config()
    async with Server(replace(with_auto, relay=replace(with_auto.relay, plane="auto")), places) as server:
        _, _, metrics = await get(web(server), "/metrics")
        (line,) = [line for line in metrics.splitlines() if line.startswith("mediaproxy_plane_info")]
        assert "made of wood" in line and 'plane="kernel"' not in line
        assert "made of wood" in json.loads((await get(web(server), "/calls"))[2])["why_not_kernel"]
        assert "made of wood" in json.loads((await get(web(server), "/status"))[2])["why_not_kernel"]
    assert sum("made of wood" in record.message for record in caplog.records) == 1


async def test_a_relay_alone_tells_of_itself_and_has_no_doors(places: Places) -> None:
    async with RelayServer(config(), places) as server:
        await call(server, 0)
        _, _, text = await get(web(server), "/metrics")
        assert 'mediaproxy_calls{state="talking"} 1.0' in text
        assert "mediaproxy_door" not in text and "mediaproxy_relay_up" not in text


async def test_a_server_whose_relays_are_gone_is_not_well(places: Places, tmp_path: Path) -> None:
    away = DispatcherSettings(relays=(RelayEntry(name="far", address=f"unix:{tmp_path / 'nobody.sock'}"),))
    async with Server(config(dispatcher=away), places) as server:
        async with asyncio.timeout(10):
            while (await get(web(server), "/health"))[0] == 200:
                await asyncio.sleep(0.01)
        _, _, text = await get(web(server), "/metrics")
        assert 'mediaproxy_relay_up{relay="far"} 0.0' in text and "mediaproxy_packets_total" not in text
        assert (await get(web(server), "/calls"))[0] == 503


async def test_a_port_that_is_taken_is_named(places: Places) -> None:
    async with Server(config(), places) as server:
        taken = str(web(server))
        other = replace(config(), web=WebSettings(address=taken))
        folder = places.state_dir
        elsewhere = Places(runtime_dir=folder / "run", state_dir=folder / "state", records=folder / "records.jsonl")
        with pytest.raises(StartError, match=f"{taken}: cannot listen for HTTP there"):
            async with Server(other, elsewhere):
                pass
