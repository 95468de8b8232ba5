"""A server with doors: NG over every way that leads in, what Kamailio really sends, and who is told of ends."""

import asyncio
import contextlib
import re
import socket
import xmlrpc.client
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from msgspec.structs import replace
from typer.testing import CliRunner

from mediaproxy.admin import Command, ask
from mediaproxy.cli.app import app
from mediaproxy.config import Config, loads
from mediaproxy.dialects.ng.bencode import decode, encode
from mediaproxy.events import EndReason
from mediaproxy.records import RecordReader
from mediaproxy.relay.settings import RelayAddress
from mediaproxy.server.answers import DoorsShown
from mediaproxy.server.assembly import Server
from mediaproxy.server.places import Places
from mediaproxy.server.starting import StartError
from tests.doorhouse import PATIENCE, until
from tests.ngstand import texts

pytestmark = pytest.mark.usefixtures("no_leaks")

CAPTURES = Path(__file__).parent / "captures"
HOUSE = """
[edge]
enabled = false
[relay]
plane = "user"
journal = false
"""


@pytest.fixture
def places(tmp_path: Path) -> Places:
    return Places(runtime_dir=tmp_path / "run", state_dir=tmp_path / "state", records=tmp_path / "records.jsonl")


def config(*doors: str, more: str = "") -> Config:
    """``ng udp://127.0.0.1:0`` and so on."""
    tables = [f'[[listen]]\nprotocol = "{door.split()[0]}"\naddress = "{door.split()[1]}"\n' for door in doors]
    found = loads("".join(tables) + HOUSE + more)
    return replace(
        found, relay=replace(found.relay, addresses=(RelayAddress(bind="127.0.0.1"), RelayAddress(bind="::1")))
    )


def sdp(address: str, port: int) -> str:
    return (
        f"v=0\r\no=- 1 1 IN IP4 {address}\r\ns=-\r\nc=IN IP4 {address}\r\nt=0 0\r\n"
        f"m=audio {port} RTP/AVP 0\r\na=rtpmap:0 PCMU/8000\r\n"
    )


def port_of(answer: Mapping[str, Any]) -> int:
    """The relay's port in an answer."""
    found = re.search(r"m=audio (\d+)", answer["sdp"])
    assert found is not None
    return int(found[1])


class Asker:
    """A SIP server with a UDP socket."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._number = 0

    async def send(self, datagram: bytes) -> bytes:
        """The answer to a datagram."""
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(PATIENCE):
            await loop.sock_sendall(self._sock, datagram)
            return await loop.sock_recv(self._sock, 65536)

    async def ask(self, command: str, **keys: object) -> dict[str, Any]:
        """The answer to a command; ``call_id`` is ``call-id``."""
        self._number += 1
        cookie = b"cookie_%d" % self._number
        request = {"command": command} | {name.replace("_", "-"): value for name, value in keys.items()}
        answer = await self.send(cookie + b" " + encode(request))
        assert answer.startswith(cookie + b" ")
        return dict(texts(decode(answer, len(cookie) + 1)))


@contextlib.contextmanager
def asker(server: Server, door: int = 0) -> Any:
    """Somebody who asks at a door."""
    address = server._doors.doors[door].address
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        sock.connect((address.host, address.port))
        yield Asker(sock)


class Phone:
    """A UDP socket that sends and hears RTP."""

    def __init__(self, address: str) -> None:
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.bind((address, 0))
        self.sock.setblocking(False)
        self.address, self.port = self.sock.getsockname()

    def keys(self) -> dict[str, object]:
        """What a SIP server tells of it."""
        return {"sdp": sdp(self.address, self.port), "received_from": ["IP4", self.address]}

    def send(self, port: int, number: int, ssrc: int) -> None:
        packet = b"\x80\x00" + number.to_bytes(2, "big") + (160 * number).to_bytes(4, "big") + ssrc.to_bytes(4, "big")
        self.sock.sendto(packet + bytes(160), ("127.0.0.1", port))

    async def hear(self) -> bytes:
        async with asyncio.timeout(PATIENCE):
            return await asyncio.get_running_loop().sock_recv(self.sock, 2000)


@contextlib.contextmanager
def phones() -> Any:
    """Two of them."""
    two = Phone("127.0.0.2"), Phone("127.0.0.3")
    try:
        yield two
    finally:
        for phone in two:
            phone.sock.close()


@pytest.mark.both_loops
async def test_a_call_by_ng(places: Places) -> None:
    """Offer, answer, media both ways, query, block, delete: and the numbers are right to the packet and the byte."""
    async with Server(config("ng udp://127.0.0.1:0"), places) as server:
        with asker(server) as sip, phones() as (alice, bob):
            call = {"call_id": "call", "from_tag": "ft"}
            offer = await sip.ask("offer", label="alice", **alice.keys(), **call)
            answer = await sip.ask("answer", to_tag="tt", **bob.keys(), **call)
            assert offer["result"] == answer["result"] == "ok"
            assert await sip.ask("list") == {"result": "ok", "calls": ["call"]}
            for number in range(5):
                alice.send(port_of(answer), number, 7)
                assert len(await bob.hear()) == 172
                bob.send(port_of(offer), number, 8)
                assert len(await alice.hear()) == 172
            query = await sip.ask("query", **call)
            tags = query["tags"]
            assert set(tags) == {"ft", "tt"}
            assert tags["ft"]["label"] == "alice"
            for tag, phone, answered in (("ft", alice, answer), ("tt", bob, offer)):
                rtp = tags[tag]["medias"][0]["streams"][0]
                assert rtp["local port"] == port_of(answered)
                assert rtp["endpoint"] == {"family": "IPv4", "address": phone.address, "port": phone.port}
            assert (await sip.ask("block media", label="alice", **call)) == {"result": "ok"}
            alice.send(port_of(answer), 5, 7)
            bob.send(port_of(offer), 5, 8)
            await alice.hear()
            assert (await sip.ask("unblock media", label="alice", **call)) == {"result": "ok"}
            with pytest.raises(BlockingIOError):
                bob.sock.recv(2000)
            deleted = await sip.ask("delete", **call)
            assert deleted["result"] == "ok"
            rtp = [deleted["tags"][tag]["medias"][0]["streams"][0]["stats"] for tag in ("ft", "tt")]
            assert rtp[1] == {"packets": 6, "bytes": 6 * 172, "errors": 0}
            assert rtp[0]["packets"] in (5, 6), "one was blocked"
            assert deleted["totals"]["RTP"]["packets"] == rtp[0]["packets"] + rtp[1]["packets"]
            assert await sip.ask("list") == {"result": "ok", "calls": []}
            stats = (await sip.ask("statistics"))["statistics"]
            assert stats["totalstatistics"]["regularterminatedsessions"] == 1
            assert stats["currentstatistics"]["sessionstotal"] == 0
            (proxy,) = stats["controlstatistics"]["proxies"]
            assert (proxy["proxy"], proxy["offercount"], proxy["deletecount"]) == ("127.0.0.1", 1, 1)
    (record,) = RecordReader(places.records).read()
    assert (record.call_id, record.reason) == ("call", EndReason.BYE)


async def test_what_kamailio_really_sends(places: Places) -> None:
    """tests/captures/rtpengine-ng.cap, request by request: the module takes an answer that begins with its cookie and
    whose ``result`` is not an error; but for what asks SRTP to become RTP."""
    blocks = re.split(rb"(?m)^### port\d+ from .* (\d+) bytes\n", (CAPTURES / "rtpengine-ng.cap").read_bytes())[1:]
    requests = [body[: int(size)] for size, body in zip(blocks[::2], blocks[1::2], strict=True)]
    assert len(requests) > 20
    seen: set[str] = set()
    refused: set[str] = set()
    offered: set[str] = set()
    async with Server(config("ng udp://127.0.0.1:0"), places) as server:
        with asker(server) as sip:
            for request in requests:
                cookie, _, payload = request.partition(b" ")
                answer = await sip.send(request)
                assert answer.startswith(cookie + b" ")
                told, asked = texts(decode(answer, len(cookie) + 1)), texts(decode(payload))
                seen.add(asked["command"])
                if asked["command"] == "offer" and "SAVP" in asked["sdp"]:
                    assert "needs SRTP termination" in told["error-reason"]  # the script wants RTP/AVP for all
                    refused.add(asked["call-id"])
                elif asked["command"] == "answer" and asked["call-id"] not in offered:
                    assert told["error-reason"] == "Unknown call-id"  # the script makes no offer of a late one
                    refused.add(asked["call-id"])
                offered.add(asked.get("call-id", ""))
                if asked.get("call-id") in refused:
                    assert told["result"] == "error" or "warning" in told
                    continue
                assert told["result"] in ("ok", "pong"), (asked, told)
                assert ("sdp" in told) is (asked["command"] in ("offer", "answer"))
    assert len(refused) == 2
    assert seen == {"ping", "offer", "answer", "query", "delete"}


async def test_every_way_leads_in(places: Places, tmp_path: Path) -> None:
    ways = ("ng udp://127.0.0.1:0", "ng tcp://127.0.0.1:0", f"ng unix:{tmp_path}/ng.sock", "ng-http http://127.0.0.1:0")
    async with Server(config(*ways), places) as server:
        with asker(server) as sip:
            assert await sip.ask("ping") == {"result": "pong"}
        port = server._doors.doors[1].address.port
        assert await stream(await asyncio.open_connection("127.0.0.1", port)) == b"c1 d6:result4:ponge"
        connected = await asyncio.open_unix_connection(tmp_path / "ng.sock")
        assert await stream(connected, b"d7:command4:pinge") == b"d6:result4:ponge"
        port = server._doors.doors[3].address.port
        url = f"http://127.0.0.1:{port}/ng-plain"
        async with aiohttp.ClientSession() as session, session.post(url, data=b'{"command":"ping"}') as response:
            assert await response.read() == b'{"result":"pong"}'
        assert [report.requests for report in server._doors.reports()[:4]] == [1, 1, 1, 1]


async def stream(
    connection: tuple[asyncio.StreamReader, asyncio.StreamWriter], request: bytes = b"c1 d7:command4:pinge"
) -> bytes:
    """The answer to one request on a connection."""
    reader, writer = connection
    writer.write(request)
    async with asyncio.timeout(PATIENCE):
        answer = await reader.readuntil(b"ponge")
    writer.close()
    return answer


async def test_rtpproxy_over_unix_sockets(places: Places, tmp_path: Path) -> None:
    """``unix`` takes a command, answers and closes, ``cunix`` goes on, as rtpproxy's control sockets of these names."""
    ways = (f"rtpproxy unix:{tmp_path}/one.sock", f"rtpproxy cunix:{tmp_path}/many.sock")
    async with Server(config(*ways), places) as server, asyncio.timeout(PATIENCE):
        for command in (b"V", b"V\n"):
            reader, writer = await asyncio.open_unix_connection(tmp_path / "one.sock")
            writer.write(command)
            assert await reader.read() == b"20040107\n"
            writer.close()
        reader, writer = await asyncio.open_unix_connection(tmp_path / "many.sock")
        for command, answer in ((b"V\n", b"20040107\n"), (b"VF 20050322\nX\n", b"1\n"), (b"", b"0\n")):
            writer.write(command)
            assert await reader.readline() == answer
        writer.close()
        await until(lambda: server._doors.reports()[1].connections == 0)


async def test_other_protocols_and_what_the_command_shows(places: Places) -> None:
    ways = (
        "ng udp://127.0.0.1:0",
        "rtpproxy udp://127.0.0.1:0",
        "mediaproxy1 tcp://127.0.0.1:0",
        "management tcp://127.0.0.1:0",
    )
    async with Server(config(*ways), places) as server:
        with asker(server) as ng, asker(server, 1) as rtpproxy:
            await ng.ask("ping")
            await ng.ask("query", call_id="nobody")
            assert await rtpproxy.send(b"7_1 V") == b"7_1 20040107\n"
        reader, writer = await asyncio.open_connection("127.0.0.1", server._doors.doors[3].address.port)
        writer.write(b"version\r\n")
        async with asyncio.timeout(PATIENCE):
            assert (await reader.readline()).endswith(b"\r\n")
        writer.close()
        await until(lambda: server._doors.reports()[3].connections == 0)
        socket_path = places.runtime_dir / "admin.sock"
        told = await asyncio.to_thread(ask, socket_path, Command(command="doors"), DoorsShown)
        assert [(door.protocol, door.requests, door.errors) for door in told.doors[:4]] == [
            ("ng", 2, 1),
            ("rtpproxy", 1, 0),
            ("mediaproxy1", 0, 0),
            ("management", 1, 0),
        ]
        assert {door.protocol for door in told.doors[4:]} == {"mediaproxy1", "mediaproxy2"}
        runner = CliRunner()
        for options in ([], ["--json"]):
            shown = await asyncio.to_thread(runner.invoke, app, ["doors", "--socket", str(socket_path), *options])
            assert shown.exit_code == 0
            assert f"udp://127.0.0.1:{server._doors.doors[0].address.port}" in shown.output
            assert "rtpproxy" in shown.output


async def test_limits(places: Places) -> None:
    async with Server(config("ng udp://127.0.0.1:0", more="[ng]\nmax_sessions = 1\n"), places) as server:
        with asker(server) as sip:
            body = sdp("198.51.100.7", 4000)
            first = {"call_id": "first", "from_tag": "ft"}
            assert (await sip.ask("offer", sdp=body, **first))["result"] == "ok"
            second = {"call_id": "second", "from_tag": "ft", "sdp": body}
            assert await sip.ask("offer", supports=["load limit"], **second) == {
                "result": "load limit",
                "message": "Parallel session limit reached",
            }
            assert (await sip.ask("offer", **second))["error-reason"] == "Parallel session limit reached"
            assert (await sip.ask("offer", sdp=body, **first))["result"] == "ok"
            answered = await sip.ask("answer", sdp=sdp("198.51.100.8", 4002), to_tag="tt", **first)
            assert answered["result"] == "ok"


@contextlib.asynccontextmanager
async def callback() -> AsyncIterator[tuple[int, list[Any]]]:
    """A SIP server's XML-RPC: its port, and what it was told."""
    heard: list[Any] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        size = re.search(rb"Content-Length: (\d+)", head)
        assert size is not None
        heard.append(xmlrpc.client.loads(await reader.readexactly(int(size[1]))))
        body = xmlrpc.client.dumps(("ok",), methodresponse=True).encode()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
        writer.close()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with listening:
        yield listening.sockets[0].getsockname()[1], heard
        listening.close()


async def test_a_call_that_ends_by_itself_is_told(places: Places) -> None:
    async with callback() as (port, heard):
        options = f'[ng]\ncallback_url = "http://%%:{port}/RPC2"\ncallback_format = "call-id"\n'
        given = config("ng udp://127.0.0.1:0", more=options)
        given = replace(given, relay=replace(given.relay, unanswered=0.2))
        async with Server(given, places) as server:
            with asker(server) as sip:
                call = {"call_id": "call", "from_tag": "ft", "sdp": sdp("198.51.100.7", 4000)}
                assert (await sip.ask("offer", **call))["result"] == "ok"
                await until(lambda: bool(heard))
            assert heard == [(("call",), "teardown")]
            told = await asyncio.to_thread(ask, places.runtime_dir / "admin.sock", Command(command="doors"), DoorsShown)
            assert (told.notices_told, told.notices_failed) == (1, 0)


async def test_a_call_that_the_end_of_the_server_ends_is_told(places: Places) -> None:
    async with callback() as (port, heard):
        options = f'[ng]\ncallback_url = "http://127.0.0.1:{port}/"\ncallback_format = "call-id"\n'
        async with Server(config("ng udp://127.0.0.1:0", more=options), places) as server:
            with asker(server) as sip:
                for name in ("kept", "deleted"):
                    call = {"call_id": name, "from_tag": "ft", "sdp": sdp("198.51.100.7", 4000)}
                    await sip.ask("offer", **call)
                await sip.ask("delete", call_id="deleted", **{"delete delay": 0})
        assert heard == [(("kept",), "teardown")]


async def test_a_place_that_is_taken_is_told(places: Places, tmp_path: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
        with pytest.raises(StartError) as found:
            async with Server(config(f"ng udp://127.0.0.1:{port}"), places):
                pass
    assert str(found.value) == (
        f"udp://127.0.0.1:{port}: cannot listen there: Address already in use; "
        "set listen[0].address to one that is free and of this host"
    )
    door = replace(config(f"ng unix:{tmp_path}/x").listen[0], group="no such group")
    with pytest.raises(StartError, match="there is no group no such group; set listen"):
        async with Server(replace(config(), listen=(door,)), places):
            pass
