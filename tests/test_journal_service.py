"""A relay with real sockets and a journal: what is written before a reply, what together, and a disk that refuses."""

import asyncio
import random
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from mediaproxy.accounting import Ledger
from mediaproxy.control import EndCause, EndRequest, MediaReply, Party, decode, encode
from mediaproxy.endpoint import Endpoint
from mediaproxy.events import CallEnded, EndReason, Event
from mediaproxy.link import Pending, UnixServer
from mediaproxy.relay import journal as journal_module
from mediaproxy.relay.journal import Journal
from mediaproxy.relay.keeper import Keeper
from mediaproxy.relay.service import RelayService
from mediaproxy.relay.settings import RelayAddress, RelaySettings
from mediaproxy.relay.userspace import UserPlane
from tests.asking import Phone, ack, answer, bye, offer, ports, sockets, worker
from tests.fulldisk import full_disk
from tests.relayhouse import PORTS

pytestmark = [pytest.mark.usefixtures("no_leaks"), pytest.mark.both_loops]

ALICE, BOB = Phone("alice"), Phone("bob")


class Kept:
    """A relay, its journal, and how often that was written."""

    def __init__(self, path: Path) -> None:
        self.events: list[Event] = []
        self.ledger = Ledger()
        self.journal = Journal(path, self.ledger)
        self.saved, _ = self.journal.open()
        self.writes = 0
        write = self.journal._commit

        def counted(*args: object, **more: object) -> bool:
            self.writes += 1
            return write(*args, **more)  # type: ignore[arg-type]  # as it came

        self.journal._commit = counted  # type: ignore[method-assign]  # the same, counted
        settings = RelaySettings(
            addresses=(RelayAddress(bind="127.0.0.1"),), port_min=PORTS, port_max=PORTS + 198, cool=0.0, cool_quiet=0.0
        )
        self.relay = RelayService(settings, UserPlane(), random.Random(3), self.events.append)
        self.relay.keep(self.journal, self.saved)

    @property
    def ended(self) -> list[EndReason | None]:
        return [event.report.reason for event in self.events if isinstance(event, CallEnded)]

    async def stop(self, *, keep: bool) -> None:
        await self.relay.stop(keep=keep)
        await self.journal.close(stopped=keep)


@asynccontextmanager
async def relaying(path: Path, *, keep: bool = True) -> AsyncIterator[Kept]:
    kept = Kept(path)
    await kept.relay.start()
    try:
        yield kept
    finally:
        await kept.stop(keep=keep)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "calls.db"


async def test_questions_of_one_moment_share_a_write(path: Path) -> None:
    async with relaying(path) as kept:
        before = kept.writes
        replies = await asyncio.gather(*(kept.relay.ask(offer(ALICE, BOB, f"call-{n}")) for n in range(20)))
        assert len({port for reply in replies for port in ports(reply)}) == 20
        assert kept.writes == before + 1
        await asyncio.gather(*(kept.relay.ask(answer(ALICE, BOB, f"call-{n}")) for n in range(20)))
        await asyncio.gather(*(kept.relay.ask(ack(ALICE, BOB, f"call-{n}")) for n in range(20)))
        assert kept.writes == before + 2, "an ACK says nothing new"


async def test_no_reply_before_the_write(path: Path) -> None:
    async with relaying(path) as kept:
        before = kept.writes
        reply = kept.relay.answer(offer(ALICE, BOB, "call"))
        assert isinstance(reply, Pending) and kept.writes == before
        ports(await reply.wait())
        assert kept.writes == before + 1
        unknown = kept.relay.answer(bye(ALICE, BOB, "other"))
        assert isinstance(unknown, MediaReply) and unknown.status == 481, "nothing is to be written"


async def test_replies_of_a_connection_stay_in_order(path: Path, tmp_path: Path) -> None:
    async with relaying(path) as kept:
        server = UnixServer(tmp_path / "socket", kept.relay)
        await server.start()
        async with worker(tmp_path / "socket") as asked:
            questions = [offer(ALICE, BOB, f"call-{number}") for number in range(20)]
            first = [ports(await asked.ask(question)) for question in questions]
            lines = b"".join([*map(encode, questions), encode(bye(ALICE, BOB, "none"))])
            replies = [await asked.ask(lines)]
            for _ in questions:
                reply = decode(await asked._reader.readline())
                assert isinstance(reply, MediaReply)
                replies.append(reply)
            assert [ports(reply) for reply in replies[:-1]] == first and replies[-1].status == 481
        await server.stop()


async def test_the_next_relay_goes_on(path: Path) -> None:
    async with relaying(path) as kept:
        told = ports(await kept.relay.ask(offer(ALICE, BOB, "call")))
    assert kept.ended == []
    async with relaying(path, keep=False) as kept:
        assert ports(await kept.relay.ask(offer(ALICE, BOB, "call"))) == told
    assert kept.ended == [EndReason.SHUTDOWN]
    async with relaying(path) as kept:
        assert len(kept.relay.calls) == 0 and kept.saved.calls == ()


async def test_what_packets_have_taught_is_written_soon(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not only when counters are."""
    monkeypatch.setattr(Keeper, "sweep", lambda self: None)
    alice, bob = Phone("alice", "127.0.0.2"), Phone("bob", "127.0.0.3")
    async with relaying(path) as kept:
        with sockets(alice, bob):
            await kept.relay.ask(offer(alice, bob, "call"))
            (to_alice,) = ports(await kept.relay.ask(answer(alice, bob, "call")))
            before = kept.writes
            alice.send(0, to_alice, 0)
            await bob.hear()
            async with asyncio.timeout(30):
                while kept.writes == before:
                    await asyncio.sleep(0.01)
            report = kept.relay.reports()[0].streams[0].caller
            assert report.learned == Endpoint("127.0.0.2", alice.ports[0])


async def test_a_relay_whose_disk_is_full_serves_on(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with full_disk(40960):
        async with relaying(path) as kept:
            for number in range(20):
                ports(await kept.relay.ask(offer(ALICE, BOB, f"call-{number}")))
            assert isinstance(kept.relay.answer(offer(ALICE, BOB, "at once")), MediaReply)
            end = EndRequest(call_id="call-0", sender=Party(), receiver=Party(), cause=EndCause.ADMIN)
            assert not (await kept.relay.ask(end)).error
            assert kept.ended == [EndReason.ADMIN]
    assert caplog.text.count("calls are not kept") == 1
    assert kept.ended.count(EndReason.SHUTDOWN) == 20, "they cannot be kept, so they end with their records"


async def test_it_is_kept_again_when_the_disk_has_room(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(journal_module, "_RETRY", 0.0)
    async with relaying(path) as kept:
        told = ports(await kept.relay.ask(offer(ALICE, BOB, "call")))
        kept.journal._give_up(sqlite3.OperationalError("disk I/O error"))
        kept.relay.calls.changes = None
        async with asyncio.timeout(30):
            while "calls are kept again" not in caplog.text:
                await asyncio.sleep(0.02)
    async with relaying(path) as kept:
        assert ports(await kept.relay.ask(offer(ALICE, BOB, "call"))) == told
