"""rtpengine's XML-RPC callback in its three formats, told to a web server."""

import asyncio
import xmlrpc.client
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from mediaproxy.dialects.ng.callback import bodies, calls_of, judge
from mediaproxy.dialects.ng.settings import CallbackFormat
from mediaproxy.dialects.xmlrpc import XmlRpcNotifier
from mediaproxy.events import CallReport
from tests.ngstand import party, report, side, stream

CALL = report(notify="xmlrpc:127.0.0.1", call_id="a<b>&c")
FORK = report([stream(side(1), side(2), leg="tt"), stream(side(3), side(4), leg="t2")])
UNANSWERED = report(callee=party())
DONE = xmlrpc.client.dumps(("ok",), methodresponse=True).encode()


def fault(text: str) -> bytes:
    return xmlrpc.client.dumps(xmlrpc.client.Fault(500, text)).encode()


@pytest.mark.parametrize(
    ("call", "form", "calls"),
    [
        (CALL, "call-id", [("teardown", ("a<b>&c",))]),
        (
            CALL,
            "sems",
            [("di", ("sbc", "postControlCmd", "ft", "teardown")), ("di", ("sbc", "postControlCmd", "tt", "teardown"))],
        ),
        (CALL, "kamailio", [("dlg.terminate_dlg", ("a<b>&c", "ft", "tt"))]),
        (FORK, "kamailio", [("dlg.terminate_dlg", ("call", "ft", tag)) for tag in ("tt", "t2")]),
        (FORK, "sems", [("di", ("sbc", "postControlCmd", tag, "teardown")) for tag in ("ft", "tt", "t2")]),
        (UNANSWERED, "sems", [("di", ("sbc", "postControlCmd", "ft", "teardown"))]),
        (UNANSWERED, "kamailio", []),
        (UNANSWERED, "call-id", [("teardown", ("call",))]),
    ],
)
def test_formats(call: CallReport, form: str, calls: list[tuple[str, tuple[str, ...]]]) -> None:
    assert list(calls_of(call, CallbackFormat(form))) == calls
    found = [xmlrpc.client.loads(body)[::-1] for body in bodies(call, CallbackFormat(form))]
    assert found == calls


def test_texts_of_peers() -> None:
    call = report(call_id="\xc3\xa9", callee=party("\xff"))
    (body,) = bodies(call, CallbackFormat.KAMAILIO)
    assert xmlrpc.client.loads(body)[0] == ("é", "ft", "ÿ")


@pytest.mark.parametrize("answer", [DONE, fault("Dialog not found"), fault("500 dialog not found.")])
def test_answers_that_are_good(answer: bytes) -> None:
    judge(answer)


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (fault("no such method"), "no such method"),
        (b"", "no answer of XML-RPC"),
        (b"<html/>", "no answer of XML-RPC"),
        (b"<methodResponse>", "no answer of XML-RPC"),
        (b"\xff\xfe", "no answer of XML-RPC"),
        (DONE[:40], "no answer of XML-RPC"),
    ],
)
def test_answers_that_are_not(answer: bytes, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        judge(answer)


@asynccontextmanager
async def server(
    answer: bytes, status: bytes = b"200 OK", host: str = "127.0.0.1"
) -> AsyncIterator[tuple[int, list[Any]]]:
    """A SIP server's web server: its port, and what it was told."""
    heard: list[Any] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        fields = dict(line.split(b": ", 1) for line in head.split(b"\r\n")[1:] if line)
        body = await reader.readexactly(int(fields[b"Content-Length"]))
        heard.append((head.split(b"\r\n")[0], fields[b"Host"].decode(), xmlrpc.client.loads(body)))
        writer.write(b"HTTP/1.1 %b\r\nContent-Length: %d\r\n\r\n%b" % (status, len(answer), answer))
        writer.close()

    listening = await asyncio.start_server(serve, host, 0)
    async with listening:
        yield listening.sockets[0].getsockname()[1], heard
        listening.close()


async def test_it_is_told() -> None:
    async with server(DONE) as (port, heard):
        await XmlRpcNotifier(f"http://%%:{port}/RPC2?x=1", CallbackFormat.SEMS).tell(CALL)
        assert [(line, host) for line, host, _ in heard] == [(b"POST /RPC2?x=1 HTTP/1.0", f"127.0.0.1:{port}")] * 2
        assert heard[1][2] == (("sbc", "postControlCmd", "tt", "teardown"), "di")


async def test_an_address_of_the_configuration_and_ipv6() -> None:
    async with server(DONE) as (port, heard):
        await XmlRpcNotifier(f"http://127.0.0.1:{port}", CallbackFormat.CALL_ID).tell(report(notify="xmlrpc:"))
        assert heard[0][0] == b"POST / HTTP/1.0"
    async with server(DONE, host="::1") as (port, heard):
        await XmlRpcNotifier(f"http://%%:{port}/", CallbackFormat.CALL_ID).tell(report(notify="xmlrpc:::1"))
        assert heard[0][1] == f"[::1]:{port}"


async def test_what_cannot_be_told() -> None:
    with pytest.raises(ValueError, match="which is not known"):
        await XmlRpcNotifier("http://%%:8090/", CallbackFormat.CALL_ID).tell(report(notify="xmlrpc:"))
    async with server(DONE, b"404 Not Found") as (port, _):
        with pytest.raises(ValueError, match="404 Not Found"):
            await XmlRpcNotifier(f"http://%%:{port}/", CallbackFormat.CALL_ID).tell(CALL)
    async with server(fault("no such method")) as (port, _):
        with pytest.raises(ValueError, match="no such method"):
            await XmlRpcNotifier(f"http://%%:{port}/", CallbackFormat.CALL_ID).tell(CALL)
    with pytest.raises(OSError, match="Connect"):
        await XmlRpcNotifier(f"http://%%:{port}/", CallbackFormat.CALL_ID).tell(CALL)
