"""Control questions over a UNIX socket: answered in order, whatever a client or a dead process left behind."""

import asyncio
import os
import pwd
import resource
import socket
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mediaproxy.control import (
    ConfirmRequest,
    EndCause,
    EndRequest,
    Inquiry,
    ListRequest,
    MediaReply,
    MediaRequest,
    Party,
    QueryRequest,
    Question,
    Switch,
    SwitchRequest,
    TotalsRequest,
    decode,
    encode,
)
from mediaproxy.link import (
    MAX_LINE,
    Address,
    Kind,
    LineServer,
    LocalLink,
    UnixLink,
    UnixServer,
    ask_in_time,
    bind_unix,
)

pytestmark = [pytest.mark.usefixtures("no_leaks"), pytest.mark.both_loops]

ALICE, BOB = Party(tag="a", uri="sip:alice@example.com"), Party(tag="b", uri="sip:b\xf6b@example.com")
QUESTIONS: list[Question] = [
    MediaRequest(call_id="c\xff 1", sender=ALICE, receiver=BOB, cseq=1, sdp_hash="h", user_agent='\x00"{\n'),
    ConfirmRequest(call_id="c2", sender=BOB, receiver=ALICE, cseq=1, status=200),
    EndRequest(call_id="c3", sender=ALICE, receiver=BOB, cause=EndCause.BYE),
]


def question(call_id: str) -> Question:
    return EndRequest(call_id=call_id, sender=ALICE, receiver=BOB, cause=EndCause.BYE)


class Arm:
    """A media arm that notes what it is asked and answers with the Call-ID; ``gate`` closed: it takes its time."""

    def __init__(self) -> None:
        self.asked: list[Question] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def ask(self, question: Question) -> MediaReply:
        self.asked.append(question)
        await self.gate.wait()
        return MediaReply(relay=question.call_id)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run" / "control.sock"


@pytest.fixture
async def arm(path: Path) -> AsyncIterator[Arm]:
    arm = Arm()
    server = UnixServer(path, arm)
    await server.start()
    yield arm
    await server.stop()
    await server.stop()
    assert not path.exists()


@pytest.fixture
async def link(path: Path) -> AsyncIterator[UnixLink]:
    link = UnixLink(path, timeout=30)
    yield link
    await link.close()
    await link.close()


@pytest.mark.parametrize("asked", QUESTIONS, ids=lambda question: type(question).__name__)
async def test_every_question_arrives_as_it_was_asked(arm: Arm, link: UnixLink, asked: Question) -> None:
    assert await link.ask(asked) == MediaReply(relay=asked.call_id)
    assert arm.asked == [asked]


class Office(Arm):
    """An arm that answers inquiries, too."""

    def __init__(self) -> None:
        super().__init__()
        self.inquired: list[Inquiry] = []
        self.calls: tuple[str, ...] = ("c\xff 1",)

    async def inquire(self, inquiry: Inquiry) -> MediaReply:
        self.inquired.append(inquiry)
        return MediaReply(calls=self.calls)


INQUIRIES: list[Inquiry] = [
    QueryRequest(call_id="c\xff"),
    ListRequest(limit=7),
    TotalsRequest(),
    SwitchRequest(call_id="c", switch=Switch.SILENCE, label="\xe9"),
]


@pytest.mark.parametrize("asked", INQUIRIES, ids=lambda inquiry: type(inquiry).__name__)
async def test_every_inquiry_arrives_as_it_was_asked(path: Path, link: UnixLink, asked: Inquiry) -> None:
    office = Office()
    server = UnixServer(path, office)
    await server.start()
    assert await link.inquire(asked) == MediaReply(calls=("c\xff 1",))
    assert office.inquired == [asked]
    await server.stop()


async def test_inquiries_of_an_arm_that_answers_none(arm: Arm, link: UnixLink) -> None:
    assert (await link.inquire(INQUIRIES[0])).status == 501
    assert (await link.ask(QUESTIONS[0])).relay == "c\xff 1"


async def test_a_list_longer_than_a_line_is_cut(path: Path, link: UnixLink) -> None:
    office = Office()
    office.calls = tuple(f"{number:099}" for number in range(MAX_LINE // 100))
    server = UnixServer(path, office)
    await server.start()
    reply = await link.inquire(ListRequest(limit=10**6))
    assert not reply.error and 100 < len(reply.calls) < len(office.calls)
    assert reply.calls == office.calls[: len(reply.calls)]
    await server.stop()


async def test_in_memory() -> None:
    arm = Arm()
    assert await LocalLink(arm.ask).ask(QUESTIONS[0]) == MediaReply(relay="c\xff 1")


async def test_many_at_once_get_their_own_answers(arm: Arm, link: UnixLink) -> None:
    replies = await asyncio.gather(*(link.ask(question(str(number))) for number in range(300)))
    assert [reply.relay for reply in replies] == [str(number) for number in range(300)]


async def test_who_gave_up_does_not_shift_the_answers(arm: Arm, link: UnixLink) -> None:
    arm.gate.clear()
    impatient = asyncio.create_task(link.ask(question("impatient")))
    patient = asyncio.create_task(link.ask(question("patient")))
    while not arm.asked:
        await asyncio.sleep(0)
    impatient.cancel()
    arm.gate.set()
    assert (await patient).relay == "patient"
    await asyncio.gather(impatient, return_exceptions=True)


# -- what clients send


async def conversation(path: Path, sent: bytes, *, half_close: bool = True) -> list[MediaReply]:
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(sent)
    if half_close:
        writer.write_eof()
    received = await asyncio.wait_for(reader.read(), 30)
    writer.close()
    await writer.wait_closed()
    replies = [decode(line) for line in received.splitlines(keepends=True)]
    assert all(isinstance(reply, MediaReply) for reply in replies)
    return [reply for reply in replies if isinstance(reply, MediaReply)]


GOOD = encode(question("good"))


@pytest.mark.parametrize(
    ("sent", "replies"),
    [
        pytest.param(b"", [], id="nothing"),
        pytest.param(GOOD, ["good"], id="one question"),
        pytest.param(GOOD * 3, ["good"] * 3, id="three in one write"),
        pytest.param(GOOD[:-10], [], id="half a line"),
        pytest.param(b"\n" + GOOD, ["not a control line", "good"], id="empty line"),
        pytest.param(b"status\r\n" + GOOD, ["not a control line", "good"], id="another tongue"),
        pytest.param(b"{}\n" + GOOD, ["not a control line", "good"], id="no question"),
        pytest.param(b"\xff\xfe\x00\n" + GOOD, ["not a control line", "good"], id="no UTF-8"),
        pytest.param(b"[" * 200000 + b"\n" + GOOD, ["not a control line", "good"], id="deeply nested"),
        pytest.param(encode(MediaReply()) + GOOD, ["a reply where a question", "good"], id="a reply"),
        pytest.param(b"{" * (MAX_LINE + 10) + b"\n" + GOOD, ["is longer than", "good"], id="too long a line"),
        pytest.param(b"{" * (3 * MAX_LINE), ["is longer than"], id="too long without end"),
    ],
)
async def test_what_a_client_sends(arm: Arm, path: Path, sent: bytes, replies: list[str]) -> None:
    answers = await conversation(path, sent)
    assert len(answers) == len(replies)
    for answer, expected in zip(answers, replies, strict=True):
        assert expected in answer.error or (answer.relay == expected and not answer.error)
        assert bool(answer.error) == (answer.status == 400)


async def test_a_client_that_says_nothing_stops_nobody(arm: Arm, path: Path, link: UnixLink) -> None:
    _, silent = await asyncio.open_unix_connection(path)
    silent.write(b'{"type":')
    assert (await link.ask(question("other"))).relay == "other"
    silent.close()
    await silent.wait_closed()


async def test_a_client_that_never_reads_is_cut_off(arm: Arm, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mediaproxy.link.server.ASK_TIMEOUT", 0.05)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as deaf:
        deaf.setblocking(False)
        deaf.connect(str(path))
        big = encode(question("x" * 60000))
        loop = asyncio.get_running_loop()
        with pytest.raises(ConnectionError):
            async with asyncio.timeout(20):
                while True:
                    await loop.sock_sendall(deaf, big)


async def test_too_many_clients(path: Path) -> None:
    server = LineServer(Address(kind=Kind.UNIX, path=str(path)), Arm(), most=2)
    await server.start()
    kept = [await asyncio.open_unix_connection(path) for _ in range(2)]
    for reader, writer in kept:
        writer.write(GOOD)
        await reader.readline()
    assert [reply.status for reply in await conversation(path, b"", half_close=False)] == [503]
    for _, writer in kept:
        writer.close()
        await writer.wait_closed()
    assert [reply.relay for reply in await conversation(path, GOOD)] == ["good"]
    await server.stop()


async def test_no_files_are_left_for_a_while(path: Path, arm: Arm, caplog: pytest.LogCaptureFixture) -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.connect(str(path))  # the kernel takes it
        sock.setblocking(False)
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (sock.fileno() + 1, before[1]))
            async with asyncio.timeout(10):
                while "no file is left for a further connection" not in caplog.text:
                    await asyncio.sleep(0.001)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, before)
        async with asyncio.timeout(10):
            await loop.sock_sendall(sock, GOOD)
            assert await loop.sock_recv(sock, 10_000)


async def test_no_answer_in_time(path: Path, arm: Arm) -> None:
    arm.gate.clear()
    link = UnixLink(path, timeout=0.05)
    late = await link.ask(question("slow"))
    assert (late.status, late.error) == (503, f"{path}: no answer within 0.05 s")
    arm.gate.set()
    async with asyncio.timeout(30):
        while (reply := await link.ask(question("next"))).status == 503:
            pass  # the machine was late, too
    assert reply.relay == "next", "not the reply that came late"
    await link.close()
    arm.gate.clear()
    assert (await ask_in_time(arm, question("slow"), 0.01)).status == 503


# -- servers that come and go


async def test_nobody_listens(link: UnixLink, path: Path) -> None:
    assert await link.ask(question("1")) == MediaReply(error=f"{path}: No such file or directory", status=503)


async def test_a_restarted_server_is_found_again(path: Path, link: UnixLink) -> None:
    for _ in range(3):
        server = UnixServer(path, Arm())
        await server.start()
        assert (await link.ask(question("1"))).relay == "1"
        await server.stop()
    assert (await link.ask(question("1"))).status == 503


async def test_a_server_that_hangs_up_on_every_question(path: Path, link: UnixLink) -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_unix_server(hang_up, sock=bind_unix(path)):
        assert await link.ask(question("1")) == MediaReply(error=f"{path}: the connection was closed", status=503)


@pytest.mark.parametrize(
    "said", [b"HTTP/1.1 200 OK\r\n", GOOD, encode(MediaReply()) * 2], ids=["http", "question", "two"]
)
async def test_a_server_that_speaks_another_language(path: Path, link: UnixLink, said: bytes) -> None:
    async def babble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(said)
        await reader.read()
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_unix_server(babble, sock=bind_unix(path)):
        assert (await link.ask(question("1"))).status in (0, 503)
        await link.close()
        await asyncio.sleep(0)


# -- the socket file


async def test_mode_owner_and_group(path: Path) -> None:
    me = pwd.getpwuid(os.getuid()).pw_name
    old = os.umask(0o077)
    try:
        server = UnixServer(path, Arm(), mode=0o666, owner=me)
        await server.start()
    finally:
        os.umask(old)
    info = path.stat()
    assert (stat.S_IMODE(info.st_mode), info.st_uid) == (0o666, os.getuid())
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]
    await server.stop()
    with bind_unix(path):
        assert stat.S_IMODE(path.stat().st_mode) == 0o660


async def test_a_stale_file_is_replaced(path: Path) -> None:
    bind_unix(path).close()
    assert path.exists()
    server = UnixServer(path, Arm())
    await server.start()
    assert [reply.relay for reply in await conversation(path, GOOD)] == ["good"]
    await server.stop()


async def test_somebody_listens_there(arm: Arm, path: Path) -> None:
    with pytest.raises(OSError, match="another process listens there"):
        await UnixServer(path, Arm()).start()
    assert [reply.relay for reply in await conversation(path, GOOD)] == ["good"]


async def test_a_file_that_is_no_socket_is_left_alone(path: Path) -> None:
    path.parent.mkdir()
    path.write_text("precious")
    with pytest.raises(FileExistsError, match="not a socket"):
        await UnixServer(path, Arm()).start()
    assert path.read_text() == "precious"


async def test_a_path_by_which_nobody_could_ask(tmp_path: Path) -> None:
    path = tmp_path / ("x" * 100)
    with pytest.raises(OSError, match="may have 107 bytes"):
        await UnixServer(path, Arm()).start()


async def test_unknown_owner(path: Path) -> None:
    with pytest.raises(LookupError, match="no-such-user"):
        await UnixServer(path, Arm(), owner="no-such-user").start()


async def test_another_servers_file_is_left_alone(path: Path) -> None:
    server = UnixServer(path, Arm())
    await server.start()
    path.unlink()
    other = UnixServer(path, Arm())
    await other.start()
    await server.stop()
    assert [reply.relay for reply in await conversation(path, GOOD)] == ["good"]
    await other.stop()
