"""Doors for connections: TCP, TLS and UNIX; one client never holds up, or keeps out, another one."""

import asyncio
import logging
import resource
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trustme

from mediaproxy.dialects import doorstream
from mediaproxy.dialects.door import Door
from mediaproxy.dialects.doorsettings import DoorSettings
from tests.doorhouse import PATIENCE, Arm, KeepingArm, PromptArm, Words, opened, settings, until, words_door

pytestmark = [pytest.mark.usefixtures("no_leaks"), pytest.mark.both_loops]

LOCAL = "tcp://127.0.0.1:0"


class Client:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    def say(self, *lines: bytes) -> None:
        self.writer.write(b"".join(lines))

    async def hear(self) -> bytes:
        """The next line."""
        async with asyncio.timeout(PATIENCE):
            return await self.reader.readline()

    async def end(self) -> bytes:
        """All until the connection is closed."""
        async with asyncio.timeout(PATIENCE):
            try:
                return await self.reader.read()
            except ConnectionResetError:
                return b""


@asynccontextmanager
async def client(
    door: Door, source: str = "", *, tls: ssl.SSLContext | None = None, host: str = ""
) -> AsyncIterator[Client]:
    """A client of a door."""
    if door.address.path:
        reader, writer = await asyncio.open_unix_connection(door.address.path)
    else:
        reader, writer = await asyncio.open_connection(
            host or door.address.host,
            door.address.port,
            local_addr=(source, 0) if source else None,
            ssl=tls,
            server_hostname="localhost" if tls else None,
        )
    try:
        yield Client(reader, writer)
    finally:
        writer.transport.abort()
        await asyncio.sleep(0)


@pytest.mark.parametrize("arm", [Arm, PromptArm])
@pytest.mark.parametrize("address", [LOCAL, "tcp://[::1]:0", "unix:"])
async def test_questions_on_one_connection_are_answered_in_order(tmp_path: Path, address: str, arm: type[Arm]) -> None:
    door = words_door(settings(f"unix:{tmp_path}/door" if address == "unix:" else address), arm())
    async with opened(door):
        async with client(door) as one:
            one.say(b"".join(b"c%d word\n" % number for number in range(100)))
            for number in range(100):
                assert await one.hear() == b"c%d word %d\n" % (number, number + 1)
            assert door.report().connections == 1
        await until(lambda: door.report().connections == 0)
        assert isinstance(door.dialect, Words)
        peer = door.dialect.peers[0]
        assert peer.transport == ("unix" if door.address.path else "tcp")
        assert bool(peer.address) is not bool(door.address.path)
    assert door.report().requests == 100
    assert not (tmp_path / "door").exists()


async def test_rights_of_a_unix_socket(tmp_path: Path) -> None:
    door = words_door(settings(f"unix:{tmp_path}/door", mode="0600"))
    async with opened(door):
        assert (tmp_path / "door").stat().st_mode & 0o777 == 0o600
    with pytest.raises(LookupError):
        await words_door(settings(f"unix:{tmp_path}/door", group="no such group")).start()


async def test_requests_may_come_byte_by_byte() -> None:
    door = words_door(settings(LOCAL))
    async with opened(door), client(door) as one:
        for byte in b"c1 hello\nc2 bye\n":
            one.say(bytes([byte]))
            await one.writer.drain()
            await asyncio.sleep(0)
        assert await one.hear() == b"c1 hello 1\n"
        assert await one.hear() == b"c2 bye 2\n"


async def test_who_waits_holds_up_nobody_else() -> None:
    arm = PromptArm()
    door = words_door(settings(LOCAL), arm)
    async with opened(door), client(door) as one, client(door) as other:
        one.say(b"c1 later\nc2 hello\n")
        await until(lambda: door.report().working == 1)
        other.say(b"c1 hello\n")
        assert await other.hear() == b"c1 hello 2\n"
        arm.gate.set()
        assert await one.hear() == b"c1 later 1\n"
        assert await one.hear() == b"c2 hello 3\n"


async def test_answers_wait_for_the_journal() -> None:
    arm = KeepingArm()
    door = words_door(settings(LOCAL), arm)
    async with opened(door), client(door) as one, client(door) as other:
        one.say(b"c1 one\nc2 two\n")
        await until(lambda: len(arm.pending) == 1)
        other.say(b"c1 three\n")
        await until(lambda: len(arm.pending) == 2)
        arm.pending[1].give()
        assert await other.hear() == b"c1 three 2\n"
        arm.pending[0].give()
        assert await one.hear() == b"c1 one 1\n"
        await until(lambda: len(arm.pending) == 3)
        arm.pending[2].give()
        assert await one.hear() == b"c2 two 3\n"


async def test_a_repetition_on_the_same_connection() -> None:
    door = words_door(settings(LOCAL))
    async with opened(door), client(door) as one, client(door) as other:
        one.say(b"c1 hello\nc1 hello\n")
        assert [await one.hear(), await one.hear()] == [b"c1 hello 1\n"] * 2
        other.say(b"c1 hello\n")
        assert await other.hear() == b"c1 hello 2\n"
        assert door.report().repeated == 1


async def test_what_is_no_request_ends_its_connection_only(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "mediaproxy.doors")
    door = words_door(settings(LOCAL))
    async with opened(door), client(door) as good:
        for _ in range(10):
            async with client(door) as bad:
                bad.say(b"c1 hello\nc2 bad\nc3 hello\n")
                assert (await bad.end()).startswith(b"c1 hello")
        good.say(b"c9 hello\n")
        assert await good.hear() == b"c9 hello 11\n"
        assert door.report().malformed == 10
        assert len(caplog.records) == 3


async def test_a_dialect_ends_the_connection_when_it_is_done() -> None:
    door = words_door(settings(LOCAL))
    async with opened(door), client(door) as one:
        one.say(b"c last\nc2 never\n")
        assert await one.end() == b"c last 1\n"


async def test_who_says_no_more_still_gets_the_answers() -> None:
    arm = PromptArm()
    door = words_door(settings(LOCAL), arm)
    async with opened(door), client(door) as one:
        one.say(b"c1 later\nc2 hello\n")
        one.writer.write_eof()
        await until(lambda: door.report().working == 1)
        arm.gate.set()
        assert await one.end() == b"c1 later 1\nc2 hello 2\n"


async def test_who_goes_away_meanwhile() -> None:
    arm = PromptArm()
    door = words_door(settings(LOCAL), arm)
    async with opened(door):
        async with client(door) as one:
            one.say(b"c1 later\n")
            await until(lambda: door.report().working == 1)
        await until(lambda: door.report().connections == 0)
        arm.gate.set()
        await until(lambda: door.report().working == 0)


async def test_a_fault_of_ours_ends_the_connection(caplog: pytest.LogCaptureFixture) -> None:
    door = words_door(settings(LOCAL))
    async with opened(door), client(door) as one, client(door) as other:
        one.say(b"c1 fault\n")
        assert await one.end() == b""
        assert "a fault of the dialect" in caplog.text
        other.say(b"c1 hello\n")
        assert await other.hear() == b"c1 hello 1\n"


async def test_what_does_not_come_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doorstream, "UNFINISHED", 0.05)
    door = words_door(settings(LOCAL))
    async with opened(door), client(door) as one, client(door) as idle:
        one.say(b"c1 hello\nc2 hel")
        assert await one.end() == b"c1 hello 1\n"
        idle.say(b"c1 hello\n")
        assert await idle.hear() == b"c1 hello 2\n"
        assert door.report().malformed == 1


@pytest.mark.parametrize("said", [b"c1 " + b"x" * 2000, b"c1 " + b"x" * 2000 + b"\n"])
async def test_what_is_too_long(said: bytes) -> None:
    door = words_door(settings(LOCAL, max_request=1024))
    async with opened(door), client(door) as one:
        one.say(b"c0 hello\n", said)
        assert await one.end() == b"c0 hello 1\n"
        assert door.report().dropped == 1


async def test_who_does_not_read_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doorstream, "DEAF", 0.1)
    door = words_door(settings(LOCAL))
    async with opened(door), client(door) as deaf, client(door) as other:
        deaf.reader._transport.pause_reading()  # type: ignore[attr-defined]  # there is no other way
        deaf.say(b"".join(b"c%d long\n" % number for number in range(64)))
        await until(lambda: door.report().requests > 0)
        other.say(b"c1 hello\n")
        assert await other.hear() == b"c1 hello 1\n"
        await until(lambda: door.report().connections == 1)
        assert door.report().dropped == 1


async def test_a_flood_of_requests_lets_others_have_their_turn() -> None:
    door = words_door(settings(LOCAL))
    async with opened(door), client(door) as flood, client(door) as other:
        flood.say(b"".join(b"f%d hello\n" % number for number in range(5000)))
        other.say(b"c1 hello\n")
        async with asyncio.timeout(PATIENCE):
            assert (await other.hear()).startswith(b"c1 hello")
            for number in range(5000):
                assert (await flood.hear()).startswith(b"f%d " % number)


async def test_who_may_not_ask_is_hung_up_on() -> None:
    door = words_door(settings(LOCAL, allow=("127.0.0.2",)))
    async with opened(door), client(door, "127.0.0.2") as server:
        async with client(door, "127.0.0.3") as stranger:
            assert await stranger.end() == b""
        server.say(b"c1 hello\n")
        assert await server.hear() == b"c1 hello 1\n"
        assert door.report().refused == 1


async def test_there_are_too_many_connections() -> None:
    door = words_door(settings(LOCAL, max_connections=2))
    async with opened(door), client(door) as one, client(door) as other:
        await until(lambda: door.report().connections == 2)
        async with client(door) as third:
            assert await third.end() == b""
        assert door.report().dropped == 1
        for number, who in enumerate((one, other), 1):
            who.say(b"c1 hello\n")
            assert await who.hear() == b"c1 hello %d\n" % number


async def test_no_files_are_left_for_a_while(caplog: pytest.LogCaptureFixture) -> None:
    door = words_door(settings(LOCAL))
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    async with opened(door):
        with socket.socket() as sock:
            try:
                resource.setrlimit(resource.RLIMIT_NOFILE, (sock.fileno() + 1, before[1]))
                sock.connect((door.address.host, door.address.port))  # the kernel takes it
                sock.setblocking(False)
                await until(lambda: "no file is left for a further one" in caplog.text)
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, before)
            await asyncio.get_running_loop().sock_sendall(sock, b"c1 word\n")
            async with asyncio.timeout(PATIENCE):
                assert await asyncio.get_running_loop().sock_recv(sock, 100) == b"c1 word 1\n"


async def test_one_address_cannot_keep_out_another_one() -> None:
    door = words_door(settings(LOCAL, max_connections=3, allow=("127.0.0.0/8",)))
    async with (
        opened(door),
        client(door, "127.0.0.2") as first,
        client(door, "127.0.0.2") as second,
        client(door, "127.0.0.2") as third,
    ):
        await until(lambda: door.report().connections == 3)
        first.say(b"c1 hello\n")
        assert await first.hear() == b"c1 hello 1\n"
        async with client(door, "127.0.0.3") as other:
            other.say(b"c1 hello\n")
            assert await other.hear() == b"c1 hello 2\n"
            assert await second.end() == b""
            for number, who in enumerate((first, third, other), 3):
                who.say(b"c2 hello\n")
                assert await who.hear() == b"c2 hello %d\n" % number


async def test_a_flood_of_connections_ends_with_the_door() -> None:
    door = words_door(settings(LOCAL, max_connections=8))
    async with opened(door):
        clients = [client(door) for _ in range(50)]
        for one in clients:
            await one.__aenter__()
        await until(lambda: door.report().dropped == 42)
        for one in clients:
            await one.__aexit__(None, None, None)


# -- TLS


class Authority:
    """Certificates for a door and its clients."""

    def __init__(self, directory: Path) -> None:
        self._ca, self._directory = trustme.CA(), directory
        self._ca.cert_pem.write_to_path(str(directory / "ca.pem"))

    def door(self, *, clients: bool = False) -> DoorSettings:
        """``clients``: they need a certificate."""
        self._ca.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(str(self._directory / "door.pem"))
        authorities = str(self._directory / "ca.pem") if clients else ""
        return settings("tls://127.0.0.1:0", certificate=str(self._directory / "door.pem"), authorities=authorities)

    def client(self, *, certificate: bool = False) -> ssl.SSLContext:
        context = ssl.create_default_context()
        self._ca.configure_trust(context)
        if certificate:
            self._ca.issue_cert("client").configure_cert(context)
        return context


@pytest.mark.parametrize("needed", [False, True])
async def test_tls(tmp_path: Path, needed: bool) -> None:
    authority = Authority(tmp_path)
    door = words_door(authority.door(clients=needed))
    async with opened(door), client(door, tls=authority.client(certificate=needed)) as one:
        one.say(b"c1 hello\n")
        assert await one.hear() == b"c1 hello 1\n"
        assert isinstance(door.dialect, Words)
        assert door.dialect.peers[0].transport == "tls"


async def test_who_has_no_certificate_is_turned_away(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    door = words_door(authority.door(clients=True))
    async with opened(door):
        with pytest.raises((ssl.SSLError, ConnectionError)):
            async with client(door, tls=authority.client()) as one:
                one.say(b"c1 hello\n")
                async with asyncio.timeout(PATIENCE):
                    if not await one.reader.read():
                        raise ConnectionResetError
        await until(lambda: door.report().malformed == 1)
        assert door.report().requests == 0


async def test_who_speaks_no_tls(tmp_path: Path) -> None:
    door = words_door(Authority(tmp_path).door())
    async with opened(door):
        async with client(door) as one:
            one.say(b"c1 hello\n" * 10)
            await one.end()
        await until(lambda: door.report().malformed == 1)


async def test_a_certificate_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "door.pem").write_text("nothing")
    door = words_door(settings("tls://127.0.0.1:0", certificate=str(tmp_path / "door.pem")))
    with pytest.raises(OSError, match=r"door\.pem: no certificate with its key"):
        await door.start()
