"""Timeout sockets of rtpproxy, with real sockets: what a SIP server reads when a call has ended by itself."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from mediaproxy.dialects.notices import Notices
from mediaproxy.dialects.rtpproxy import RtpProxyNotifier
from mediaproxy.dialects.rtpproxy.names import notice
from mediaproxy.events import CallReport, CallState, EndReason, PartyReport

pytestmark = pytest.mark.usefixtures("no_leaks")

Heard = asyncio.Queue[bytes]


def report(notify: str, reason: EndReason = EndReason.SILENT) -> CallReport:
    nobody = PartyReport()
    return CallReport(
        call_id="c\xe91", caller=nobody, callee=nobody, state=CallState.ENDED, started=1.0, reason=reason, notify=notify
    )


@asynccontextmanager
async def listening(path: Path | None = None) -> AsyncIterator[tuple[Heard, int]]:
    """A SIP server that reads until its client closes; what it has heard, and its port if it has no path."""
    heard: Heard = asyncio.Queue()

    async def read(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.put_nowait(await reader.read())
        writer.close()
        await writer.wait_closed()

    if path is not None:
        server = await asyncio.start_unix_server(read, path)
    else:
        server = await asyncio.start_server(read, "127.0.0.1", 0)
    try:
        yield heard, server.sockets[0].getsockname()[1] if path is None else 0
    finally:
        server.close()
        await server.wait_closed()


async def test_a_tcp_socket_is_told_the_tag() -> None:
    async with listening() as (heard, port):
        for tag, line in (("7.42", b"7.42\n"), ("a%20%ff", b"a \xff\n"), ("", b"c\xe91\n")):
            told = notice(f"tcp:127.0.0.1:{port}", tag, "")
            assert told is not None
            await RtpProxyNotifier().tell(report(told))
            assert await asyncio.wait_for(heard.get(), 30) == line


async def test_a_unix_socket_is_told_the_tag(tmp_path: Path) -> None:
    path = tmp_path / "notify.sock"
    async with listening(path) as (heard, _):
        for socket in (f"unix:{path}", str(path)):
            told = notice(socket, "t", "")
            assert told is not None
            await RtpProxyNotifier().tell(report(told))
            assert await asyncio.wait_for(heard.get(), 30) == b"t\n"


async def test_nobody_is_told_without_a_socket() -> None:
    notices = Notices([RtpProxyNotifier()])
    notices.ended(report("rtpp:"))
    await notices.stop(10)
    assert (notices.told, notices.failed) == (0, 0)


async def test_a_server_that_is_not_there(tmp_path: Path) -> None:
    for socket in (f"unix:{tmp_path / 'missing'}", f"unix:/{'x' * 200}", "tcp:127.0.0.1:1"):
        told = notice(socket, "t", "", ("tcp:*", "unix:/*"))
        assert told is not None
        with pytest.raises(OSError):
            await RtpProxyNotifier().tell(report(told))


async def test_a_path_that_leads_out_of_where_sockets_may_be(tmp_path: Path) -> None:
    for folder in ("ours", "theirs"):
        (tmp_path / folder).mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "theirs")
    link = tmp_path / "theirs" / "link"
    async with (
        listening(tmp_path / "ours" / "sock") as (ours, _),
        listening(tmp_path / "theirs" / "sock") as (heard, _),
    ):
        link.symlink_to(tmp_path / "ours" / "sock")
        (tmp_path / "theirs" / "file").write_text("")
        notifier = RtpProxyNotifier((f"unix:{tmp_path}/link/*",))
        for name in ("link", "file"):
            with pytest.raises(ValueError, match=r"is no socket of rtpproxy\.timeout_sockets"):
                await notifier.tell(report(f"rtpp:unix:{tmp_path}/theirs/{name} t"))
        await notifier.tell(report(f"rtpp:unix:{tmp_path}/link/sock t"))
        assert await asyncio.wait_for(heard.get(), 30) == b"t\n"
        assert ours.empty()


async def test_only_ends_that_the_server_does_not_know_are_told(tmp_path: Path) -> None:
    path = tmp_path / "notify.sock"
    async with listening(path) as (heard, _):
        notices = Notices([RtpProxyNotifier()])
        for reason in (EndReason.BYE, EndReason.CANCEL, EndReason.SILENT):
            notices.ended(report(f"rtpp:unix:{path} {reason}", reason))
        assert await asyncio.wait_for(heard.get(), 30) == b"silent\n"
        await notices.stop(10)
        assert heard.empty() and notices.told == 1
