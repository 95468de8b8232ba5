"""MediaProxy's protocols at doors of their own: TCP as the old proxy server, TLS for the management interface."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trustme

from mediaproxy import __version__
from mediaproxy.config import Config
from mediaproxy.config.schema import Relay
from mediaproxy.dialects.doorsettings import DoorProtocol, DoorSettings
from mediaproxy.edge.settings import EdgeSettings
from mediaproxy.relay.settings import RelayAddress
from mediaproxy.server.assembly import Server
from mediaproxy.server.places import Places
from tests.mpbench import line, remove, update

PATIENCE = 10.0


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
async def server(authority: trustme.CA, tmp_path: Path) -> AsyncIterator[Server]:
    certificate = authority.issue_cert("127.0.0.1")
    certificate.private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "door.pem"))
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    encrypted = DoorSettings(
        protocol=DoorProtocol.MANAGEMENT,
        address="tls://127.0.0.1:0",
        certificate=str(tmp_path / "door.pem"),
        authorities=str(tmp_path / "ca.pem"),
    )
    config = Config(
        edge=EdgeSettings(enabled=False),
        relay=Relay(addresses=(RelayAddress(bind="127.0.0.9"),), plane="user"),
        listen=(
            DoorSettings(protocol=DoorProtocol.MEDIAPROXY1, address="tcp://127.0.0.1:0"),
            DoorSettings(protocol=DoorProtocol.MEDIAPROXY2, address="tcp://127.0.0.1:0"),
            DoorSettings(protocol=DoorProtocol.MANAGEMENT, address="tcp://127.0.0.1:0"),
            encrypted,
        ),
    )
    places = Places(runtime_dir=tmp_path / "run", state_dir=tmp_path / "state", records=tmp_path / "records.jsonl")
    async with Server(config, places) as running:
        yield running


@asynccontextmanager
async def client(
    server: Server, number: int, tls: ssl.SSLContext | None = None
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection to a door."""
    port = server._doors.doors[number].address.port
    async with asyncio.timeout(PATIENCE):
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=tls)
        try:
            yield reader, writer
        finally:
            writer.close()


async def test_1x_over_tcp(server: Server) -> None:
    async with client(server, 0) as (reader, writer):
        writer.write(line() + b"\n")
        address, port = (await reader.read()).split()
        assert address == b"127.0.0.9" and port.isdigit()
    async with client(server, 0) as (reader, writer):
        writer.write(b"status\r\n")
        status = (await reader.read()).decode().splitlines()
        assert [text.split()[0] for text in status] == ["proxy", "session", "stream"]
    for word, answer in (
        (b"version", f"Version: {__version__}\n".encode()),
        (b"quit", b""),
        (b"delete call-1 info=", b""),
    ):
        async with client(server, 0) as (reader, writer):
            writer.write(word + b"\n")
            assert await reader.read() == answer
        async with client(server, 0) as (reader, writer):
            writer.write(word)
            writer.write_eof()
            assert await reader.read() == answer, "the line may end with the connection"
    async with client(server, 0) as (reader, writer):
        writer.write(b"controls\n")
        address = (await reader.readline()).strip()
        assert address == "{}:{}".format(*writer.get_extra_info("sockname")).encode()
        assert await reader.read() == b"End.\n"


async def test_2x_over_tcp(server: Server) -> None:
    async with client(server, 1) as (reader, writer):
        writer.write(update() + b"\r\n" + remove(to_tag="") + b"\r\n" + remove(call_id="x") + b"\r\n")
        assert (await reader.readline()).startswith(b"127.0.0.9 ")
        assert [await reader.readline(), await reader.readline()] == [b"removed\r\n", b"error\r\n"]


async def test_the_management_interface(server: Server) -> None:
    async with client(server, 1) as (reader, writer):
        writer.write(update() + b"\r\n")
        await reader.readline()
    async with client(server, 2) as (reader, writer):
        writer.write(b"sessions\r\nsummary\r\nversion\r\nnothing\r\nquit\r\nsummary\r\n")
        (session,) = json.loads(await reader.readline())
        (summary,) = json.loads(await reader.readline())
        assert (session["call_id"], summary["session_count"], summary["ip"]) == ("call-1", 1, "127.0.0.9")
        assert await reader.read() == f"{__version__}\r\nerror\r\n".encode()


async def test_the_management_interface_over_tls(server: Server, authority: trustme.CA) -> None:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    with pytest.raises((ssl.SSLError, ConnectionError)):
        async with client(server, 3, context) as (reader, writer):
            writer.write(b"summary\r\n")
            assert await reader.readline() == b"", "who has no certificate is not answered"
            raise ConnectionError
    authority.issue_cert("client@example.com").configure_cert(context)
    async with client(server, 3, context) as (reader, writer):
        writer.write(b"summary\r\n")
        (summary,) = json.loads(await reader.readline())
        assert summary["session_count"] == 0
