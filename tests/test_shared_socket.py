"""dialects/shared.py and link/guest.py: one UNIX socket for control lines, MediaProxy 1.x and 2.x."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from mediaproxy.config import Config
from mediaproxy.config.schema import Relay
from mediaproxy.control import EndCause, EndRequest, MediaReply, Party, decode, encode
from mediaproxy.dispatcher.settings import DispatcherSettings
from mediaproxy.edge.settings import EdgeSettings
from mediaproxy.relay.settings import RelayAddress
from mediaproxy.server.assembly import Server
from mediaproxy.server.places import Places
from tests.mpbench import line, remove, update

PATIENCE = 10.0


@pytest.fixture
def places(tmp_path: Path) -> Places:
    return Places(runtime_dir=tmp_path / "run", state_dir=tmp_path / "state", records=tmp_path / "records.jsonl")


CONFIG = Config(
    edge=EdgeSettings(enabled=False),
    relay=Relay(addresses=(RelayAddress(bind="127.0.0.9"),), plane="user"),
    dispatcher=DispatcherSettings(max_connections=3),
)


@pytest.fixture
async def server(places: Places) -> AsyncIterator[Server]:
    async with Server(CONFIG, places) as running:
        yield running


class Client:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    def write(self, data: bytes) -> None:
        self.writer.write(data)

    async def line(self) -> bytes:
        return await asyncio.wait_for(self.reader.readline(), PATIENCE)

    async def rest(self) -> bytes:
        """Until the server closes."""
        return await asyncio.wait_for(self.reader.read(), PATIENCE)

    async def say(self, data: bytes) -> bytes:
        self.write(data)
        return await self.line()


@asynccontextmanager
async def client(path: Path) -> AsyncIterator[Client]:
    reader, writer = await asyncio.open_unix_connection(path)
    try:
        yield Client(reader, writer)
    finally:
        writer.close()


def ours(call_id: str = "unknown") -> bytes:
    return encode(EndRequest(call_id=call_id, sender=Party(tag="a"), receiver=Party(tag="b"), cause=EndCause.BYE))


@pytest.mark.parametrize("socket", ["mediaproxy_socket", "dispatcher_socket"])
async def test_three_tongues_on_one_socket(server: Server, places: Places, socket: str) -> None:
    path: Path = getattr(places, socket)
    async with client(path) as second, client(path) as json:
        (address, port) = (await second.say(update() + b"\r\n")).split()
        assert address == b"127.0.0.9" and port.isdigit()
        reply = decode(await json.say(ours()))
        assert isinstance(reply, MediaReply) and reply.status == 481
        async with client(path) as first:
            first.write(line() + b"\n")
            (address, again) = (await first.rest()).split()
            assert (address, again) == (b"127.0.0.9", port), "the same call, told in other words"
        assert await second.say(remove() + b"\r\n") == b"removed\r\n"


async def test_a_connection_of_2x_stays(server: Server, places: Places) -> None:
    async with client(places.mediaproxy_socket) as module:
        for at in range(20):
            assert (await module.say(update(call_id=str(at)) + b"\r\n")).startswith(b"127.0.0.9 ")
        module.write(b"\r\n" + remove(call_id="0") + b"\r\n" + remove(call_id="1") + b"\r\n")
        assert [await module.line(), await module.line()] == [b"removed\r\n"] * 2


async def test_requests_in_pieces(server: Server, places: Places) -> None:
    async with client(places.mediaproxy_socket) as module:
        data = update() + b"\r\n" + remove(to_tag="") + b"\r\n"
        for at in range(0, len(data), 7):
            module.write(data[at : at + 7])
            await asyncio.sleep(0)
        assert (await module.line()).startswith(b"127.0.0.9 ")
        assert await module.line() == b"removed\r\n"


async def test_what_a_connection_begins_with_it_speaks_for_ever(server: Server, places: Places) -> None:
    async with client(places.mediaproxy_socket) as json, client(places.mediaproxy_socket) as module:
        await json.say(ours())
        reply = decode(await json.say(b"status\n"))
        assert isinstance(reply, MediaReply) and "not a control line" in reply.error
        assert (await module.say(update() + b"\r\n")).startswith(b"127.0.0.9 ")
        assert await module.say(ours() + b"\r\n") == b"error\r\n"


async def test_unknown_words_are_answered_as_before(server: Server, places: Places) -> None:
    async with client(places.mediaproxy_socket) as somebody:
        for word in (b"hello\n", b"updates\r\n", b"update now\n", b"\n"):
            reply = decode(await somebody.say(word))
            assert isinstance(reply, MediaReply) and reply.status == 400


@pytest.mark.parametrize("empty", [b"", b"\n", b"\r\n\r\n"])
async def test_other_protocols_pass_over_empty_lines(server: Server, places: Places, empty: bytes) -> None:
    async with client(places.dispatcher_socket) as module, client(places.dispatcher_socket) as first:
        assert (await module.say(empty + update() + b"\r\n")).startswith(b"127.0.0.9 ")
        first.write(empty + line() + b"\n")
        assert (await first.rest()).startswith(b"127.0.0.9 ")


async def test_a_first_line_must_come_whole(server: Server, places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mediaproxy.link.server.UNFINISHED", 0.05)
    async with client(places.dispatcher_socket) as module, client(places.dispatcher_socket) as idle:
        module.write(b"upd")
        assert await module.rest() == b""
        assert (await idle.say(update() + b"\r\n")).startswith(b"127.0.0.9 "), "who has not begun has time"


async def test_an_unknown_word_that_ends_as_lines_of_2x_do_gets_its_error(server: Server, places: Places) -> None:
    async with client(places.dispatcher_socket) as module:
        assert await module.say(b"upgrade\r\ncall_id: x\r\n\r\n") == b"error\r\n"
        assert (await module.say(update() + b"\r\n")).startswith(b"127.0.0.9 ")


async def test_a_line_of_1x_may_end_with_its_connection(server: Server, places: Places) -> None:
    async with client(places.mediaproxy_socket) as first, client(places.mediaproxy_socket) as module:
        for one, data, answer in ((first, line(), b"127.0.0.9 "), (module, update()[:-2], b"")):
            one.write(data)
            one.writer.write_eof()
            assert (await one.rest())[: len(answer) or None] == answer


async def test_a_line_of_1x_without_sense_closes_its_connection_only(server: Server, places: Places) -> None:
    async with client(places.mediaproxy_socket) as module, client(places.mediaproxy_socket) as first:
        assert (await module.say(update() + b"\r\n")).startswith(b"127.0.0.9 ")
        first.write(b"request nonsense\n")
        assert await first.rest() == b""
        assert await module.say(remove() + b"\r\n") == b"removed\r\n"


async def test_guests_count_as_connections(server: Server, places: Places, caplog: pytest.LogCaptureFixture) -> None:
    """A module of MediaProxy 1.x would take whatever it is told for an address and ports."""
    path = places.mediaproxy_socket
    async with client(path) as one, client(path) as two, client(path) as three:
        for module in (one, two, three):
            assert (await module.say(update() + b"\r\n")).startswith(b"127.0.0.9 ")
        async with client(path) as fourth, client(path) as fifth, client(path) as sixth:
            reply = decode(await fourth.say(ours()))
            assert isinstance(reply, MediaReply) and reply.status == 503
            assert await fifth.say(line("lookup") + b"\n") == b"" == await sixth.say(update() + b"\r\n")
        assert caplog.text.count("more than 3 connections (max_connections)") == 1
    async with asyncio.timeout(PATIENCE):
        while True:  # until the server has noticed that they are gone
            async with client(path) as again:
                if (await again.say(update() + b"\r\n")).startswith(b"127.0.0.9 "):
                    break


async def test_the_end_of_input_is_no_end_of_output(server: Server, places: Places) -> None:
    async with client(places.mediaproxy_socket) as module:
        module.write(update() + b"\r\n" + remove(to_tag="") + b"\r\n")
        module.writer.write_eof()
        assert (await module.rest()).endswith(b"removed\r\n")


async def test_the_server_ends_with_guests_in_the_house(places: Places) -> None:
    async with Server(CONFIG, places):
        reader, writer = await asyncio.open_unix_connection(places.mediaproxy_socket)
        writer.write(update() + b"\r\n")
        assert (await reader.readline()).startswith(b"127.0.0.9 ")
    assert await reader.read() == b""
    writer.close()


async def test_a_relay_is_wished_for_by_where_its_media_comes_to(server: Server) -> None:
    (relay,) = server._dispatcher.pool.relays
    assert relay.aliases == ("127.0.0.9",)
