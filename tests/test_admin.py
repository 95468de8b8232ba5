"""The control socket: commands, errors in words, stale sockets, and that no client can harm the server."""

import asyncio
import os
import socket
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from mediaproxy.admin import SOCKET, AdminError, AdminServer, AlreadyRunning, Command, ask

pytestmark = pytest.mark.usefixtures("no_leaks")


async def _later(command: Command) -> str:
    await asyncio.sleep(0)
    return f"later {command.call_id}"


def _refuse(command: Command) -> None:
    raise AdminError(f"there is no call {command.call_id}")


HANDLERS = {"add": lambda _: {"a": [1, 2]}, "later": _later, "refuse": _refuse, "big": lambda _: "x" * 10_000_000}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run" / SOCKET


@pytest.fixture
async def server(path: Path) -> AsyncIterator[AdminServer]:
    server = AdminServer(path, HANDLERS)
    await server.start()
    yield server
    await server.stop()
    assert not path.exists()


async def asked(path: Path, name: str, result: Any = str, **fields: Any) -> Any:
    return await asyncio.to_thread(ask, path, Command(command=name, **fields), result)


async def test_commands(server: AdminServer) -> None:
    assert await asked(server.path, "add", dict[str, list[int]]) == {"a": [1, 2]}
    assert await asked(server.path, "later", call_id="caf\xe9@host") == "later caf\xe9@host"
    assert len(await asked(server.path, "big")) == 10_000_000


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        pytest.param({"name": "refuse", "call_id": "x1"}, "there is no call x1", id="refused"),
        pytest.param(
            {"name": "nonsense"}, "unknown command 'nonsense'; there are: add, big, later, refuse", id="unknown"
        ),
        pytest.param({"name": "add", "version": 2}, "speaks version 1 of the control protocol, not 2", id="version"),
        pytest.param({"name": "add"}, "of another version: Expected `str`, got `object`", id="unexpected result"),
    ],
)
async def test_errors_are_sentences(server: AdminServer, fields: dict[str, Any], error: str) -> None:
    with pytest.raises(AdminError, match=error):
        await asked(server.path, **fields)


@pytest.mark.parametrize(("mode", "wanted"), [(0o600, "0o600"), (0o660, "0o660")])
async def test_permissions(path: Path, mode: int, wanted: str) -> None:
    server = AdminServer(path, HANDLERS, mode=mode)
    await server.start()
    assert oct(stat.S_IMODE(path.lstat().st_mode)) == wanted
    await server.stop()


async def test_an_unknown_group(path: Path) -> None:
    with pytest.raises(LookupError):
        await AdminServer(path, HANDLERS, group="no-such-group").start()


async def test_a_second_server_is_refused_and_the_first_lives_on(server: AdminServer) -> None:
    with pytest.raises(AlreadyRunning, match=r"admin\.sock: another mediaproxy is running"):
        await AdminServer(server.path, HANDLERS).start()
    assert await asked(server.path, "later") == "later "


async def test_a_dead_servers_socket_is_replaced(path: Path) -> None:
    path.parent.mkdir()
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    server = AdminServer(path, HANDLERS)
    await server.start()
    assert await asked(path, "later") == "later "
    await server.stop()


async def test_another_file_is_not_overwritten(path: Path) -> None:
    path.parent.mkdir()
    path.write_text("precious")
    with pytest.raises(FileExistsError):
        await AdminServer(path, HANDLERS).start()
    assert path.read_text() == "precious"


@pytest.mark.parametrize(
    ("prepare", "error"),
    [
        pytest.param(lambda path: None, "no server is running here; start one", id="no file"),
        pytest.param(lambda path: socket.socket(socket.AF_UNIX).bind(str(path)), "no server is running", id="dead"),
        pytest.param(lambda path: path.write_text(""), "no server is running", id="no socket"),
    ],
)
@pytest.mark.filterwarnings("ignore:unclosed")
async def test_no_server(tmp_path: Path, prepare: Any, error: str) -> None:
    prepare(tmp_path / SOCKET)
    with pytest.raises(AdminError, match=error):
        await asked(tmp_path / SOCKET, "add")


async def test_too_many_clients(server: AdminServer) -> None:
    others = [await asyncio.open_unix_connection(server.path) for _ in range(40)]
    with pytest.raises(AdminError, match="closed the connection"):
        await asked(server.path, "later")
    for _, writer in others:
        writer.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
async def test_no_permission(server: AdminServer, tmp_path: Path) -> None:
    child = os.fork()
    if child == 0:
        os.setegid(65534)
        os.seteuid(65534)
        try:
            ask(server.path, Command(command="add"), str)
        except AdminError as error:
            os._exit(0 if "ask as the server's user" in str(error) else 1)
        os._exit(2)
    assert os.waitstatus_to_exitcode((await asyncio.to_thread(os.waitpid, child, 0))[1]) == 0


@pytest.mark.parametrize(
    "junk",
    [
        b"",
        b"\n",
        b"{}\n",
        b"[[[[\n",
        b"\xff\xfe\n",
        b"x" * 200_000 + b"\n",
        b'{"command": 1}\n',
        b'{"command":"\xff"}\n',
        b'{"x":' * 10_000 + b"\n",
    ],
    ids=range(9),
)
async def test_junk_leaves_the_server_alive(server: AdminServer, junk: bytes) -> None:
    reader, writer = await asyncio.open_unix_connection(server.path)
    writer.write(junk)
    writer.write_eof()
    async with asyncio.timeout(30):
        try:
            assert (await reader.read()).count(b'"error":"') == (0 < len(junk) < 100_000)
        except ConnectionError:
            assert len(junk) > 100_000
    writer.close()
    assert await asked(server.path, "later") == "later "


async def test_two_commands_on_one_connection(server: AdminServer) -> None:
    reader, writer = await asyncio.open_unix_connection(server.path)
    writer.write(b'{"version":1,"command":"add"}\n{"version":1,"command":"refuse","call_id":"7"}\n')
    async with asyncio.timeout(30):
        assert await reader.readline() == b'{"version":1,"error":"","result":{"a":[1,2]}}\n'
        assert await reader.readline() == b'{"version":1,"error":"there is no call 7","result":null}\n'
    writer.close()
    await writer.wait_closed()
