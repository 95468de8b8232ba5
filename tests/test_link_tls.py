"""Control links over TLS and TCP: both ends prove themselves, and neither waits for a peer that does not."""

import asyncio
import logging
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trustme

from mediaproxy.control import EndCause, EndRequest, MediaReply, Party, Question
from mediaproxy.link import Address, Kind, LineServer, StreamLink
from mediaproxy.link.address import TlsFiles
from mediaproxy.link.tls import client_side, server_side

pytestmark = [pytest.mark.usefixtures("no_leaks"), pytest.mark.both_loops]


def question(call_id: str) -> Question:
    return EndRequest(call_id=call_id, sender=Party(), receiver=Party(), cause=EndCause.BYE)


class Arm:
    """Answers with the Call-ID, ``at_once`` or not."""

    async def ask(self, question: Question) -> MediaReply:
        return MediaReply(relay=question.call_id)


class PromptArm(Arm):
    """One that need not be waited for, and breaks if it is told to."""

    def answer(self, question: Question) -> MediaReply | None:
        if question.call_id == "break":
            raise RuntimeError("a fault")
        return None if question.call_id == "later" else MediaReply(relay=f"at once {question.call_id}")


class Authority:
    """A CA for control links."""

    def __init__(self, directory: Path, name: str) -> None:
        self._ca = trustme.CA()
        self._directory = directory
        self.file = directory / f"{name}.ca.pem"
        self._ca.cert_pem.write_to_path(str(self.file))

    def issue(self, name: str, *hosts: str) -> TlsFiles:
        """A certificate for hosts, and who else is trusted: whoever has one of this CA."""
        file = self._directory / f"{name}.pem"
        self._ca.issue_cert(*hosts).private_key_and_cert_chain_pem.write_to_path(str(file))
        return TlsFiles(certificate=str(file), authorities=str(self.file))


@pytest.fixture
def ca(tmp_path: Path) -> Authority:
    return Authority(tmp_path, "ours")


@asynccontextmanager
async def listening(files: TlsFiles, host: str = "127.0.0.1", arm: Arm | None = None) -> AsyncIterator[LineServer]:
    server = LineServer(Address(kind=Kind.TLS, host=host, port=0), arm or Arm(), tls=server_side(files))
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


@asynccontextmanager
async def link(server: LineServer, files: TlsFiles, host: str = "") -> AsyncIterator[StreamLink]:
    address = Address(kind=Kind.TLS, host=host or server.address.host, port=server.address.port)
    asking = StreamLink(address, tls=client_side(files), timeout=30)
    try:
        yield asking
    finally:
        await asking.close()


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_questions_over_tls(ca: Authority, host: str) -> None:
    async with (
        listening(ca.issue("relay", host), host) as server,
        link(server, ca.issue("dispatcher", "d.example.com")) as asking,
    ):
        replies = await asyncio.gather(*(asking.ask(question(str(number))) for number in range(200)))
        assert [reply.relay for reply in replies] == [str(number) for number in range(200)]


async def test_questions_over_tcp_within_the_host() -> None:
    server = LineServer(Address(kind=Kind.TCP, host="localhost", port=0), Arm())
    await server.start()
    asking = StreamLink(server.address)
    assert (await asking.ask(question("1"))).relay == "1"
    await asking.close()
    await server.stop()


async def test_who_has_no_certificate_of_the_authority_is_turned_away(
    ca: Authority, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    relay, other = ca.issue("relay", "127.0.0.1"), Authority(tmp_path, "other").issue("x", "127.0.0.1")
    stranger = TlsFiles(certificate=other.certificate, authorities=relay.authorities)
    async with listening(relay) as server:
        async with link(server, stranger) as asking:
            reply = await asking.ask(question("1"))
        assert reply.status == 503
        assert (
            reply.error.startswith(f"tls://127.0.0.1:{server.address.port}: ") and "certificate" in reply.error.lower()
        )
        async with link(server, ca.issue("dispatcher", "d")) as asking:
            assert (await asking.ask(question("2"))).relay == "2", "others are served"
    (warning,) = [one.getMessage() for one in caplog.records if one.levelno == logging.WARNING]
    assert "turned away, no TLS" in warning and "certificate" in warning.lower()


async def test_without_any_certificate(ca: Authority) -> None:
    async with listening(ca.issue("relay", "127.0.0.1")) as server:
        naked = ssl.create_default_context(cafile=str(ca.file))
        asking = StreamLink(server.address, tls=lambda: naked, timeout=30)
        assert (await asking.ask(question("1"))).status == 503
        await asking.close()


async def test_a_server_of_another_authority_is_not_believed(ca: Authority, tmp_path: Path) -> None:
    theirs = Authority(tmp_path, "other").issue("relay", "127.0.0.1")
    mixed = TlsFiles(certificate=theirs.certificate, authorities=str(ca.file))
    async with listening(mixed) as server, link(server, ca.issue("dispatcher", "d")) as asking:
        reply = await asking.ask(question("1"))
    assert reply.status == 503 and "TLS: " in reply.error and "issuer" in reply.error


async def test_a_server_must_have_the_name_that_it_was_asked_by(ca: Authority) -> None:
    relay, dispatcher = ca.issue("relay", "elsewhere.example.com"), ca.issue("dispatcher", "d")
    async with listening(relay) as server, link(server, dispatcher) as asking:
        reply = await asking.ask(question("1"))
    assert reply.status == 503 and "TLS: " in reply.error and "127.0.0.1" in reply.error


async def test_one_that_never_shakes_hands_stops_nobody(ca: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mediaproxy.link.server.HANDSHAKE", 0.2)
    async with listening(ca.issue("relay", "127.0.0.1")) as server:
        with socket.create_connection((server.address.host, server.address.port)) as silent:
            async with link(server, ca.issue("dispatcher", "d")) as asking:
                assert (await asking.ask(question("1"))).relay == "1"
            silent.setblocking(False)
            async with asyncio.timeout(30):
                assert await asyncio.get_running_loop().sock_recv(silent, 100) == b""


async def test_one_that_never_answers_the_handshake_is_not_waited_for() -> None:
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen()
        context = ssl.create_default_context()
        address = Address(kind=Kind.TLS, host="127.0.0.1", port=deaf.getsockname()[1])
        asking = StreamLink(address, tls=lambda: context, timeout=0.2)
        assert (await asking.ask(question("1"))).error.endswith("no answer within 0.2 s")
        await asking.close()


async def test_a_renewed_certificate_needs_no_restart(ca: Authority, caplog: pytest.LogCaptureFixture) -> None:
    files, dispatcher = ca.issue("relay", "old.example.com"), ca.issue("dispatcher", "d")
    async with listening(files) as server:
        async with link(server, dispatcher) as asking:
            assert (await asking.ask(question("1"))).status == 503
        Path(files.certificate).write_text("half a file")
        async with link(server, dispatcher) as asking:
            reply = await asking.ask(question("1"))
            assert "old.example.com" not in reply.error and reply.status == 503, "the old one is used still"
        assert "stays in use" in caplog.text
        ca.issue("relay", "127.0.0.1")
        async with link(server, dispatcher) as asking:
            assert (await asking.ask(question("1"))).relay == "1"


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"certificate": "/no/such.pem"}, "/no/such.pem: No such file or directory"),
        ({"authorities": "/no/ca.pem"}, "/no/ca.pem: No such file or directory"),
        ({"key": "/no/key.pem"}, "/no/key.pem: No such file or directory"),
        ({"certificate": "EMPTY"}, "EMPTY: no certificate with its key, as PEM"),
        ({"authorities": "EMPTY"}, "EMPTY: no certificates, as PEM"),
    ],
)
def test_files_that_cannot_be_used(ca: Authority, tmp_path: Path, change: dict[str, str], error: str) -> None:
    empty = tmp_path / "empty.pem"
    empty.write_text("")
    good = ca.issue("relay", "127.0.0.1")
    fields = {"certificate": good.certificate, "authorities": good.authorities} | change
    files = TlsFiles(**{name: value.replace("EMPTY", str(empty)) for name, value in fields.items()})
    for side in (server_side, client_side):
        with pytest.raises(OSError, match=error.replace("EMPTY", str(empty))):
            side(files)


# -- how it is answered


@pytest.mark.parametrize("call_id", ["1", "later"])
async def test_answers_at_once_and_later_come_in_order(tmp_path: Path, call_id: str) -> None:
    server = LineServer(Address(kind=Kind.UNIX, path=str(tmp_path / "s")), PromptArm())
    await server.start()
    asking = StreamLink(server.address)
    names = [call_id if number % 3 else "later" for number in range(100)]
    replies = await asyncio.gather(*(asking.ask(question(name)) for name in names))
    assert [reply.relay for reply in replies] == [name if name == "later" else f"at once {name}" for name in names]
    await asking.close()
    await server.stop()


async def test_a_fault_of_the_server_is_an_answer(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    server = LineServer(Address(kind=Kind.UNIX, path=str(tmp_path / "s")), PromptArm())
    await server.start()
    asking = StreamLink(server.address)
    assert (await asking.ask(question("break"))).status == 500
    assert (await asking.ask(question("1"))).relay == "at once 1"
    assert "RuntimeError: a fault" in caplog.text
    await asking.close()
    await server.stop()


async def test_who_loses_patience_does_not_end_the_attempt_of_others(ca: Authority) -> None:
    """A far relay may take longer to be connected to than one question can wait."""
    async with listening(ca.issue("relay", "127.0.0.1")) as server, link(server, ca.issue("d", "d")) as asking:
        for _ in range(3):
            hasty = asyncio.create_task(asking.ask(question("hasty")))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            hasty.cancel()
        assert (await asking.ask(question("1"))).relay == "1"
        assert len(server.clients) == 1, "they shared one connection"


async def test_closing_while_connecting_is_an_answer_too() -> None:
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen()
        context = ssl.create_default_context()
        address = Address(kind=Kind.TLS, host="127.0.0.1", port=deaf.getsockname()[1])
        asking = StreamLink(address, tls=lambda: context)
        replies = [asyncio.create_task(asking.ask(question(str(number)))) for number in range(3)]
        await asyncio.sleep(0.05)
        closing = asyncio.create_task(asking.close())
        await closing
        await asyncio.sleep(0.05)
        await asking.close()
        assert {(await reply).status for reply in replies} == {503}
