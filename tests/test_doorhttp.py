"""The door for HTTP and WebSocket: NG by POST and by two sub-protocols."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
import trustme

from mediaproxy.dialects import doorhttp
from mediaproxy.dialects.doorhttp import CONTENT_TYPE, WITH_COOKIE, WITHOUT_COOKIE, HttpDoor
from mediaproxy.dialects.doorsettings import DoorProtocol, DoorSettings
from mediaproxy.dialects.ng.dialect import Ng
from mediaproxy.dialects.ng.settings import NgSettings
from mediaproxy.link import Link
from tests.doorhouse import PATIENCE, PromptArm, until

pytestmark = [pytest.mark.usefixtures("no_leaks"), pytest.mark.both_loops]

PING = b"d7:command4:pinge"
PONG = b"d6:result4:ponge"


def door(address: str = "http://127.0.0.1:0", link: Link | None = None, **others: object) -> HttpDoor:
    given = DoorSettings(protocol=DoorProtocol.NG_HTTP, address=address, **others)  # type: ignore[arg-type]  # a test's
    return HttpDoor(given, Ng(NgSettings()), Ng(NgSettings(), plain=True), link or PromptArm())


@asynccontextmanager
async def opened(one: HttpDoor, **others: object) -> AsyncIterator[aiohttp.ClientSession]:
    """The door, and a client with its address."""
    await one.start()
    scheme, host = one.address.kind, one.address.host
    url = f"{scheme}://{f'[{host}]' if ':' in host else host}:{one.address.port}"
    try:
        timeout = aiohttp.ClientTimeout(total=PATIENCE)
        async with aiohttp.ClientSession(url, timeout=timeout, **others) as session:  # type: ignore[arg-type]  # a test's
            yield session
    finally:
        await one.stop()


@pytest.mark.parametrize("address", ["http://127.0.0.1:0", "http://[::1]:0"])
async def test_post(address: str) -> None:
    one = door(address)
    async with opened(one) as session:
        for path, said, heard in (
            ("/ng", b"c1 " + PING, b"c1 " + PONG),
            ("/ng-plain", PING, PONG),
            ("/ng-plain", b'{"command":"ping"}', b'{"result":"pong"}'),
            ("/ng", b'c2 {"command":"nonsense"}', b'c2 {"result":"error","error-reason":"Unrecognized command"}'),
            ("/ng-plain", b"", b"d6:result5:error12:error-reason25:Invalid data (no payload)e"),
        ):
            async with session.post(path, data=said) as response:
                assert (response.status, response.content_type) == (200, CONTENT_TYPE)
                assert await response.read() == heard
        assert one.report().connections == 1
    report = one.report()
    assert (report.requests, report.errors) == (5, 2)


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("http://127.0.0.1", 200),
        ("http://127.0.0.1:8080", 200),
        ("http://elsewhere.example", 403),
        ("null", 403),
        ("", 403),
        ("http://[", 403),
    ],
)
async def test_pages_of_other_servers_may_not_ask(origin: str, status: int) -> None:
    async with opened(door()) as session:
        async with session.post("/ng-plain", data=PING, headers={"Origin": origin}) as response:
            assert response.status == status
        if status == 200:
            async with session.ws_connect("/", protocols=(WITHOUT_COOKIE,), origin=origin) as socket:
                await socket.send_bytes(PING)
                assert (await socket.receive()).data == PONG
        else:
            with pytest.raises(aiohttp.WSServerHandshakeError):
                await session.ws_connect("/", protocols=(WITHOUT_COOKIE,), origin=origin)


async def test_what_is_no_request() -> None:
    one = door(max_request=2048)
    async with opened(one) as session:
        async with session.post("/ng", data=b"nospace") as response:
            assert response.status == 400
        async with session.post("/ng", data=bytes(5000)) as response:
            assert response.status == 413
        async with session.get("/ng") as response:
            assert response.status == 404
        async with session.get("/ping") as response:
            assert await response.text() == "pong\n"
        for path in ("/elsewhere", "/ng/", "/ping"):
            async with session.post(path, data=PING) as response:
                assert response.status == 404
        async with session.put("/ng", data=PING) as response:
            assert response.status == 405
    assert (one.report().malformed, one.report().dropped) == (1, 1)


async def test_a_cookie_that_comes_again_on_a_connection_gets_the_same_answer() -> None:
    one = door()
    async with opened(one) as session:
        for path, said, heard in (
            ("/ng", b"c1 " + PING, b"c1 " + PONG),
            ("/ng", b"c1 d7:command8:nonsensee", b"c1 " + PONG),
            ("/ng-plain", b'{"command":"nonsense"}', b'{"result":"error","error-reason":"Unrecognized command"}'),
            ("/ng-plain", b'{"command":"ping"}', b'{"result":"pong"}'),
        ):
            async with session.post(path, data=said) as response:
                assert await response.read() == heard
        assert one.report().connections == 1
    assert (one.report().requests, one.report().repeated) == (3, 1)


async def test_cookies_of_other_connections_are_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doorhttp, "_MOST_CLOSED", 1)
    one = door()
    async with opened(one, headers={"Connection": "close"}) as session:
        for _ in range(5):
            for said, heard in ((b"c1 " + PING, PONG), (b'c1 {"command":"ping"}', b'{"result":"pong"}')):
                async with session.post("/ng", data=said) as response:
                    assert await response.read() == b"c1 " + heard
        assert len(one._numbered) < 5
    assert (one.report().requests, one.report().repeated) == (10, 0)


async def test_websockets() -> None:
    one = door()
    async with opened(one) as session:
        async with session.ws_connect("/", protocols=(WITH_COOKIE,)) as socket:
            assert socket.protocol == WITH_COOKIE
            await socket.send_bytes(b"c1 " + PING)
            assert await socket.receive_bytes() == b"c1 " + PONG
            await socket.send_str('c2 {"command":"ping"}')
            assert await socket.receive_bytes() == b'c2 {"result":"pong"}'
            await socket.send_bytes(b"c1 d7:command8:nonsensee")
            assert await socket.receive_bytes() == b"c1 " + PONG, "the cookie is known"
            assert one.report().connections == 1
        async with session.ws_connect("/any/where", protocols=("other", WITHOUT_COOKIE)) as socket:
            await socket.send_bytes(PING)
            assert await socket.receive_bytes() == PONG
    assert (one.report().requests, one.report().repeated) == (3, 1)


async def test_websockets_that_are_closed() -> None:
    one = door(max_request=2048)
    async with opened(one) as session:
        for protocols, said in (
            ((), PING),
            (("sip",), PING),
            ((WITH_COOKIE,), b"nospace"),
            ((WITH_COOKIE,), bytes(5000)),
        ):
            async with session.ws_connect("/", protocols=protocols) as socket:
                await socket.send_bytes(said)
                message = await socket.receive(PATIENCE)
                assert message.type in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.CLOSING)
        async with session.post("/ng-plain", data=PING) as response:
            assert await response.read() == PONG
    assert one.report().malformed == 3


async def test_a_websocket_ends_with_the_door() -> None:
    one = door()
    await one.start()
    session = aiohttp.ClientSession()
    async with session, session.ws_connect(f"http://127.0.0.1:{one.address.port}/", protocols=(WITH_COOKIE,)) as socket:
        async with asyncio.TaskGroup() as group:
            ended = group.create_task(socket.receive(PATIENCE))
            await until(lambda: one.report().connections == 1)
            group.create_task(one.stop())
        assert ended.result().type is aiohttp.WSMsgType.CLOSE


async def test_https(tmp_path: Path) -> None:
    ca = trustme.CA()
    ca.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "door.pem"))
    context = ssl.create_default_context()
    ca.configure_trust(context)
    one = door("https://127.0.0.1:0", certificate=str(tmp_path / "door.pem"))
    async with opened(one, connector=aiohttp.TCPConnector(ssl=context)) as session:
        async with session.post("/ng-plain", data=PING) as response:
            assert await response.read() == PONG
        async with session.ws_connect("/", protocols=(WITHOUT_COOKIE,)) as socket:
            await socket.send_bytes(PING)
            assert await socket.receive_bytes() == PONG


async def test_who_may_not_ask_is_hung_up_on() -> None:
    one = door(allow=("192.0.2.1",))
    async with opened(one) as session:
        with pytest.raises(aiohttp.ClientError):
            await session.post("/ng-plain", data=PING)
    assert one.report().refused > 0
    assert one.report().requests == 0


async def test_there_are_too_many_connections() -> None:
    one = door(max_connections=1)
    async with opened(one) as session, session.ws_connect("/", protocols=(WITHOUT_COOKIE,)) as socket:
        with pytest.raises(aiohttp.ClientError):
            await session.post("/ng-plain", data=PING)
        await socket.send_bytes(PING)
        assert await socket.receive_bytes() == PONG
    assert one.report().dropped > 0


async def test_one_address_cannot_keep_out_another_one() -> None:
    one = door(max_connections=2, allow=("127.0.0.0/8",))
    async with opened(one):
        idle = [await asyncio.open_connection("127.0.0.1", one.address.port) for _ in range(2)]
        await until(lambda: one.report().connections == 2)
        connector = aiohttp.TCPConnector(local_addr=("127.0.0.2", 0))
        url = f"http://127.0.0.1:{one.address.port}/ng-plain"
        async with aiohttp.ClientSession(connector=connector) as other, other.post(url, data=PING) as response:
            assert await response.read() == PONG
        for _, writer in idle:
            writer.close()


async def test_a_body_that_does_not_come_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doorhttp, "UNFINISHED", 0.05)
    one = door()
    async with opened(one):
        reader, writer = await asyncio.open_connection("127.0.0.1", one.address.port)
        writer.write(b"POST /ng HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nc1 ")
        async with asyncio.timeout(PATIENCE):
            assert (await reader.readline()).startswith(b"HTTP/1.1 408 ")
        writer.close()
    assert one.report().malformed == 1


NO_HTTP = [
    b"\x16\x03\x01" + bytes(50) + b"\r\n\r\n",
    b"GET / HTTP/1.1\r\n\r\n",
    b"POST /ng HTTP/1.1\r\nHost: x\r\nContent-Length: many\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\n\xff: " + bytes(50) + b"\r\n\r\n",
]


async def test_what_is_no_http(caplog: pytest.LogCaptureFixture) -> None:
    one = door()
    async with opened(one) as session:
        for data in NO_HTTP * 5:
            reader, writer = await asyncio.open_connection("127.0.0.1", one.address.port)
            writer.write(data)
            async with asyncio.timeout(PATIENCE):
                assert b" 400 " in await reader.read()
            writer.close()
        async with session.post("/ng-plain", data=PING) as response:
            assert await response.read() == PONG
    assert one.report().malformed == 5 * len(NO_HTTP)
    assert 0 < len([line for line in caplog.messages if "no HTTP" in line]) <= 3
    assert not [record for record in caplog.records if record.exc_info]
