"""dialects/dialogs.py and dlgend.py: how SIP servers are told to end a dialog."""

import asyncio
import json
import os
import re
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mediaproxy.dialects import dlgend
from mediaproxy.dialects.dialogs import RpcAddress, RpcKind, end_dialog, judge
from mediaproxy.dialects.dlgend import DialogEnder
from mediaproxy.events import CallReport, CallState, EndReason, PartyReport

# -- addresses

ADDRESSES = [
    ("unix:/run/opensips/socket", RpcAddress(kind=RpcKind.UNIX, path="/run/opensips/socket")),
    ("fifo:/tmp/opensips_fifo", RpcAddress(kind=RpcKind.FIFO, path="/tmp/opensips_fifo")),
    ("udp://127.0.0.1:8080", RpcAddress(kind=RpcKind.UDP, path="/", host="127.0.0.1", port=8080)),
    ("http://[::1]:8888/mi", RpcAddress(kind=RpcKind.HTTP, path="/mi", host="::1", port=8888)),
    ("http://sip.test:5060", RpcAddress(kind=RpcKind.HTTP, path="/", host="sip.test", port=5060)),
]
WRONG = [
    "",
    "unix:",
    "unix:rel",
    "fifo:x\0",
    "udp://h",
    "udp://h:0",
    "udp://h:70000",
    "udp://h:1/x",
    "https://h:1/x",
    "x",
]


@pytest.mark.parametrize(("text", "address"), ADDRESSES)
def test_an_address(text: str, address: RpcAddress) -> None:
    assert RpcAddress.parse(text) == address
    assert RpcAddress.parse(str(address)) == address


@pytest.mark.parametrize("text", WRONG)
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        RpcAddress.parse(text)


# -- commands and answers


def test_the_command_for_kamailio() -> None:
    wanted = {"jsonrpc": "2.0", "method": "dlg.end_dlg", "params": [2598, 9309], "id": 7}
    assert json.loads(end_dialog("2598:9309", 7)) == wanted
    assert json.loads(end_dialog("2598:9309", 7, "r")) == {**wanted, "reply_name": "r"}


def test_the_command_for_opensips() -> None:
    wanted = {"jsonrpc": "2.0", "method": "dlg_end_dlg", "params": ["5299989648942"], "id": 7}
    assert json.loads(end_dialog("5299989648942", 7)) == wanted
    by_fifo = end_dialog("5299989648942", 7, "r")
    assert by_fifo.startswith(b":r:{") and json.loads(by_fifo[3:]) == wanted


@pytest.mark.parametrize("dialog_id", ["", "a:b", "1:2:3", "-1", "1:", "18446744073709551616", "\xb2", "1:2\n"])
def test_what_is_no_dialog(dialog_id: str) -> None:
    with pytest.raises(ValueError, match="dialog_id"):
        end_dialog(dialog_id, 1)


def test_answers() -> None:
    assert judge(b'{"jsonrpc": "2.0", "result": "OK", "id": 7}', 7)
    assert judge(b'{"jsonrpc": "2.0", "id": "7"}', 7)
    assert not judge(b'{"jsonrpc": "2.0", "result": "OK", "id": 6}', 7), "a late one"
    assert judge(b'{"error": {"code": 404, "message": "Dialog not found"}, "id": 7}', 7), "it has ended"


REFUSALS = [
    (b'{"error": {"code": 500, "message": "Method Not Found"}, "id": 7}', "Method Not Found"),
    (b'{"error": "no", "id": 7}', "no"),
    (b"not JSON", "JSON"),
    (b"", "JSON"),
    (b"[" * 100_000, "JSON"),
    (b"\xff", "JSON"),
]


@pytest.mark.parametrize(("answer", "text"), REFUSALS)
def test_refusals(answer: bytes, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        judge(answer, 7)


@given(st.binary(max_size=100))
def test_any_bytes_are_judged(answer: bytes) -> None:
    try:
        judge(answer, 1)
    except ValueError as error:
        assert str(error)


# -- telling

Server = Callable[[bytes], bytes]
"Bytes of a command to those of the answer."


def report(dialog_id: str = "1:2") -> CallReport:
    return CallReport(
        call_id="c",
        caller=PartyReport(),
        callee=PartyReport(),
        state=CallState.ENDED,
        started=1.0,
        reason=EndReason.SILENT,
        dialog_id=dialog_id,
    )


def ok(command: bytes) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "result": "", "id": json.loads(command)["id"]}).encode()


def no(command: bytes) -> bytes:
    return json.dumps({"error": {"code": 500, "message": "no"}, "id": json.loads(command)["id"]}).encode()


@asynccontextmanager
async def datagrams(sock: socket.socket, server: Server, heard: list[bytes]) -> AsyncIterator[None]:
    """A SIP server that takes datagrams."""

    def readable() -> None:
        command, source = sock.recvfrom(65536)
        heard.append(command)
        sock.sendto(b'{"id": 0, "result": "late"}', source)
        sock.sendto(server(command), source)

    sock.setblocking(False)
    loop = asyncio.get_running_loop()
    with sock:
        loop.add_reader(sock, readable)
        try:
            yield
        finally:
            loop.remove_reader(sock)


@asynccontextmanager
async def by_unix(folder: Path, server: Server, heard: list[bytes]) -> AsyncIterator[str]:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    sock.bind(str(folder / "rpc"))
    async with datagrams(sock, server, heard):
        yield f"unix:{folder / 'rpc'}"


@asynccontextmanager
async def by_udp(folder: Path, server: Server, heard: list[bytes]) -> AsyncIterator[str]:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(("127.0.0.1", 0))
    async with datagrams(sock, server, heard):
        yield f"udp://127.0.0.1:{sock.getsockname()[1]}"


@asynccontextmanager
async def by_http(folder: Path, server: Server, heard: list[bytes]) -> AsyncIterator[str]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        assert head.startswith("POST /RPC HTTP/1.1\r\n")
        length = int(head.partition("Content-Length: ")[2].partition("\r\n")[0])
        heard.append(await reader.readexactly(length))
        body = server(heard[-1])
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
        await reader.read()  # it is the client who closes
        writer.close()
        await writer.wait_closed()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with listening:
        yield f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/RPC"


@asynccontextmanager
async def by_fifo(folder: Path, server: Server, heard: list[bytes]) -> AsyncIterator[str]:
    os.mkfifo(folder / "rpc")
    fifo = os.open(folder / "rpc", os.O_RDWR | os.O_NONBLOCK)

    def readable() -> None:
        command = os.read(fifo, 65536)
        heard.append(command)
        name = json.loads(command)["reply_name"]
        answer = os.open(folder / name, os.O_WRONLY | os.O_NONBLOCK)
        for piece in (server(command)[:9], server(command)[9:]):
            os.write(answer, piece)
        os.close(answer)

    loop = asyncio.get_running_loop()
    loop.add_reader(fifo, readable)
    try:
        yield f"fifo:{folder / 'rpc'}"
    finally:
        loop.remove_reader(fifo)
        os.close(fifo)


WAYS = [by_unix, by_udp, by_http, by_fifo]


@pytest.mark.parametrize("way", WAYS)
async def test_a_sip_server_is_told(way: Callable[..., Awaitable[str]], tmp_path: Path) -> None:
    heard: list[bytes] = []
    async with way(tmp_path, ok, heard) as address:  # type: ignore[attr-defined] # a context manager
        ender = DialogEnder(RpcAddress.parse(address), tmp_path)
        await ender.tell(report("2598:9309"))
        await ender.tell(report("2598:9310"))
    told = [json.loads(command) for command in heard]
    assert [one["params"] for one in told] == [[2598, 9309], [2598, 9310]]
    assert len({one["id"] for one in told}) == 2
    assert not list(tmp_path.glob("mediaproxy-*")), "no FIFO is left"


@pytest.mark.parametrize("way", WAYS)
async def test_a_refusal_is_told(way: Callable[..., Awaitable[str]], tmp_path: Path) -> None:
    async with way(tmp_path, no, []) as address:  # type: ignore[attr-defined] # a context manager
        with pytest.raises(ValueError, match="the SIP server says: no"):
            await DialogEnder(RpcAddress.parse(address), tmp_path).tell(report())
    assert not list(tmp_path.glob("mediaproxy-*"))


NOBODY = ["unix:/nowhere/at/all", "fifo:/nowhere/at/all", "http://127.0.0.1:1/RPC", "udp://127.0.0.1:1"]


@pytest.mark.parametrize("address", NOBODY)
async def test_nobody_is_there(address: str, tmp_path: Path) -> None:
    with pytest.raises(OSError, match=re.escape(address)):  # an operator must know who was not there
        await DialogEnder(RpcAddress.parse(address), tmp_path).tell(report())


async def test_an_answer_that_never_comes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dlgend, "PATIENCE", 0.05)
    async with by_unix(tmp_path, lambda command: b'{"id": 0}', []) as address:
        with pytest.raises(OSError, match=r"no answer within 0\.05 s"):
            await DialogEnder(RpcAddress.parse(address)).tell(report())
