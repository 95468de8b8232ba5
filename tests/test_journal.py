"""relay/journal.py: a file that loses nothing, belongs to one process, and is never a reason not to serve."""

import asyncio
import contextlib
import logging
import random
import sqlite3
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from mediaproxy import clock
from mediaproxy.accounting import Ledger, Notes
from mediaproxy.control import MediaReply
from mediaproxy.endpoint import Endpoint
from mediaproxy.events import CallStarted, OneWay, PartyReport, Side
from mediaproxy.relay import journal as journal_module
from mediaproxy.relay import keeper as keeper_module
from mediaproxy.relay.callvalue import LAYOUT, decode_call, decode_counters
from mediaproxy.relay.changes import News
from mediaproxy.relay.journal import Journal, JournalError
from mediaproxy.relay.resumption import Saved
from tests.fulldisk import full_disk
from tests.relaybench import ALICE, BOB, Bench, rtp

pytestmark = pytest.mark.usefixtures("no_leaks")

NOTHING = News(calls=(), counters=(), over=(), gone=(), cooling=(), cooled=(), generation=0)


class Desk:
    """A bench and its journal."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.bench = Bench()
        self.ledger = Ledger()
        self.now = 1000.0
        self.journal = Journal(path, self.ledger, lambda: self.now)
        self.saved, self.records = self.journal.open()
        self.changes = self.bench.calls.keep()

    def write(self, *, beat: bool = False) -> bool:
        self.bench.now = self.now
        return self.journal.write(self.changes.take(self.now), beat=beat)

    def talk(self, call_id: str = "call-1") -> tuple[Endpoint, Endpoint]:
        self.bench.call_id = call_id
        return self.bench.talk()

    async def again(self, *, killed: bool = True, stopped: bool = False) -> "Desk":
        """What the next process finds."""
        if killed:
            await self.kill()
        else:
            await self.journal.close(stopped=stopped)
        return Desk(self.path)

    async def kill(self) -> None:
        """The end of the process: the file is closed as it is. A copy is what another process would find."""
        await self.journal.free()
        copies = [(path, path.read_bytes()) for path in self.path.parent.glob(self.path.name + "*")]
        await self.journal.close()
        for path in self.path.parent.glob(self.path.name + "*"):
            path.unlink()
        for path, data in copies:
            path.write_bytes(data)

    async def close(self) -> None:
        await self.journal.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "calls.db"


async def test_what_is_written_is_found_by_the_next_process(path: Path) -> None:
    desk = Desk(path)
    assert desk.saved == Saved(died=1000.0) and desk.records == {}
    to_alice, _ = desk.talk()
    assert desk.write(beat=True)
    desk.now = 1003.0
    desk.bench.packet(ALICE, to_alice)
    assert desk.write(beat=True)
    desk.now = 1004.0
    for number in range(5):
        desk.bench.packet(ALICE, to_alice, rtp(2 + number))
    desk.bench.tick()
    desk.changes.count(10)
    assert desk.write()

    desk = await desk.again()
    (call,) = desk.saved.calls
    value = decode_call(call.value)
    assert (value.call_id, value.latches[0].learned) == ("call-1", Endpoint.parse(ALICE))
    assert call.counters is not None and decode_counters(call.counters).turn == value.turn
    assert (desk.saved.died, desk.saved.stopped) == (1003.0, False)
    assert desk.saved.generation >= 2
    await desk.close()


async def test_a_call_that_has_ended_is_gone_and_its_ports_cool(path: Path) -> None:
    desk = Desk(path)
    desk.talk()
    desk.write()
    desk.bench.bye()
    desk.write()
    desk = await desk.again()
    assert desk.saved.calls == () and len(desk.saved.cooling) == 2
    assert [(gone.call_id, gone.tag, gone.cseq) for gone in desk.saved.gone] == [("call-1", "alice", 1)]
    await desk.close()


async def test_what_is_long_over_is_deleted(path: Path) -> None:
    desk = Desk(path)
    for number in range(5):
        desk.talk(f"call-{number}")
        desk.write()
        desk.bench.bye()
        desk.write()
    for _ in range(50):
        desk.now += 1.0
        desk.bench.now = desk.now
        desk.bench.tick()
        desk.write()
    desk = await desk.again()
    assert desk.saved.cooling == () and desk.saved.gone == ()
    await desk.close()


async def test_a_pair_that_is_lent_and_cools_again(path: Path) -> None:
    """Only the last time counts."""
    desk = Desk(path)
    desk.bench = Bench(port_max=20002, cool=0.0, cool_quiet=0.0)
    desk.changes = desk.bench.calls.keep()
    for number in range(3):
        desk.talk(f"call-{number}")
        desk.bench.bye()
        desk.write()
        desk.bench.tick()
    desk.talk("call-3")
    desk.bench.bye()
    desk.write()
    desk = await desk.again()
    assert sorted(value.pair.generation for value in desk.saved.cooling) == [7, 8]
    await desk.close()


@pytest.mark.parametrize("stopped", [True, False])
async def test_a_stop_is_told_from_a_crash(path: Path, stopped: bool) -> None:
    desk = Desk(path)
    desk.talk()
    desk.write(beat=True)
    desk.now = 1010.0
    desk = await desk.again(killed=not stopped, stopped=stopped)
    assert (desk.saved.stopped, desk.saved.died) == (stopped, 1010.0 if stopped else 1000.0)
    desk = await desk.again()
    assert not desk.saved.stopped, "the next one did not stop"
    await desk.close()


async def test_notes_of_the_ledger_go_on(path: Path) -> None:
    desk = Desk(path)
    nobody = PartyReport()
    desk.ledger.fold(CallStarted(at=1.0, call_id="call-1", caller=nobody, callee=nobody))
    desk.ledger.fold(OneWay(at=2.0, call_id="call-1", stream=0, silent=Side.CALLEE, seconds=10.0))
    desk.talk()
    desk.write()
    desk = await desk.again()
    notes = desk.ledger.notes("call-1")
    assert isinstance(notes, Notes) and [one.seconds for one in notes.silences] == [10.0]
    await desk.close()


# -- records


async def test_a_record_is_kept_until_it_is_in_its_own_file(path: Path) -> None:
    desk = Desk(path)
    done: list[Callable[[], None]] = []
    for line in (b"one\n", b"two\n", b"three\n"):
        desk.journal.record(line, done.append)
    assert done == [], "first the journal"
    desk.write()
    assert len(done) == 3
    done[1]()
    desk.write()
    desk = await desk.again()
    assert list(desk.records.values()) == [b"one\n", b"three\n"]
    for number in desk.records:
        desk.journal.recorded(number)
    desk.journal.record(b"four\n", done.append)
    desk.write()
    desk = await desk.again(killed=False)
    assert list(desk.records.values()) == [b"four\n"]
    await desk.close()


# -- whose file it is


async def test_a_second_process_is_refused(path: Path) -> None:
    desk = Desk(path)
    desk.talk()
    desk.write()
    with pytest.raises(JournalError, match="locked; another process has it open; .* a state_dir of its own"):
        Journal(path, Ledger()).open()
    assert desk.write()
    await desk.close()
    assert list(path.parent.iterdir()) == [path]
    assert path.stat().st_mode & 0o777 == 0o600


async def test_a_directory_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(JournalError, match="No such file or directory"):
        Journal(tmp_path / "none" / "calls.db", Ledger()).open()


def alien(path: Path) -> None:
    database = sqlite3.connect(path)
    database.execute("CREATE TABLE something (else_ TEXT)")
    database.commit()
    database.close()


def newer(path: Path) -> None:
    database = sqlite3.connect(path)
    database.execute(f"PRAGMA user_version={LAYOUT + 1}")
    database.execute("ALTER TABLE call ADD COLUMN more TEXT")
    database.commit()
    database.close()


def namesake(path: Path) -> None:
    """Another program counts the versions of its tables, too."""
    alien(path)
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute(f"PRAGMA user_version={LAYOUT}")


def bit_flips(path: Path) -> None:
    """A Call-ID that is no text any more."""
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute("UPDATE call SET call_id = CAST(x'ff41' AS TEXT)")
        database.commit()


def tables_lost(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute("DROP TABLE fact")


def damaged(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[4096:] = random.Random(1).randbytes(len(data) - 4096)
    path.write_bytes(data)


UNUSABLE: dict[str, tuple[bool, Callable[[Path], object], str, int]] = {
    # was it a journal, what was done to it, what is said, calls of which something can be told
    "no database": (False, lambda path: path.write_bytes(b"hello" * 1000), "file is not a database", 0),
    "another database": (False, alien, "is no journal", 0),
    "a newer version's": (True, newer, f"has layout {LAYOUT + 1}, this mediaproxy writes {LAYOUT}", 2),
    "damaged": (True, damaged, "malformed", 0),
    "another database of this number": (False, namesake, "is no journal", 0),
    "a text that is none": (True, bit_flips, "Could not decode", 2),
    "without a table": (True, tables_lost, "it has no table fact", 2),
}


@pytest.mark.parametrize(("ours", "spoil", "text", "calls"), UNUSABLE.values(), ids=UNUSABLE)
async def test_a_file_that_cannot_be_used_is_moved_aside(
    path: Path,
    ours: bool,
    spoil: Callable[[Path], object],
    text: str,
    calls: int,
    caplog: pytest.LogCaptureFixture,
) -> None:
    if ours:
        desk = Desk(path)
        for number in range(2):
            desk.talk(f"call-{number}")
        desk.write()
        await desk.close()
    spoil(path)
    before = path.read_bytes()
    desk = Desk(path)
    assert [(call.value, bool(call.brief)) for call in desk.saved.calls] == [(b"", True)] * calls
    assert desk.write()
    await desk.close()
    (line,) = [record.getMessage() for record in caplog.records]
    assert text in line and "it was moved to calls.db.1000" in line and f"the {calls} calls in it" in line
    assert (path.parent / "calls.db.1000").read_bytes() == before


# -- the disk


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk is tried again after 10 s."""
    monkeypatch.setattr(journal_module, "_RETRY", 10.0)


@pytest.mark.usefixtures("patient")
async def test_a_full_disk_is_told_once_and_kept_again(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    desk = Desk(path)
    written = [True]
    given: list[Callable[[], None]] = []
    with full_disk():
        while written[-1]:
            desk.talk(f"call-{len(written)}")
            written.append(desk.write())
        desk.journal.record(b"line\n", given.append)
        assert len(given) == 1, "records go to their own file at once"
        assert not desk.write() and not desk.journal.begin_anew()
        assert len(caplog.records) == 1 and "calls are not kept" in caplog.text
    desk.now += 9.0
    assert not desk.journal.begin_anew()
    desk.now += 2.0
    assert desk.journal.begin_anew()
    desk.changes = desk.bench.calls.keep()
    assert desk.write()
    assert [record.levelno for record in caplog.records] == [logging.ERROR, logging.WARNING]
    desk = await desk.again()
    assert len(desk.saved.calls) == len(written) - 1
    await desk.close()


@pytest.mark.usefixtures("patient")
async def test_a_start_on_a_full_disk_goes_on_with_calls(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """They can be read; only what is new is not kept until there is room."""
    desk = Desk(path)
    for number in range(4):
        desk.talk(f"call-{number}")
    desk.journal.record(b"line\n", lambda done: None)
    desk.write()
    await desk.kill()
    with full_disk(4096):
        for _ in range(2):
            desk = Desk(path)
            assert len(desk.saved.calls) == 4 and list(desk.records.values()) == [b"line\n"]
            assert not desk.write() and not desk.journal.begin_anew()
            assert "tried again every 10 s" in caplog.messages[-1]
            await desk.close()
        desk = Desk(path)
    desk.now += 11.0
    assert desk.journal.begin_anew()
    desk.talk("new")
    assert desk.write()
    desk = await desk.again()
    assert len(desk.saved.calls) == 1 and desk.saved.generation >= 2
    await desk.close()


@pytest.mark.usefixtures("patient")
async def test_a_file_that_cannot_be_used_on_a_full_disk(path: Path) -> None:
    """What can be said of its calls is said all the same."""
    desk = Desk(path)
    for number in range(2):
        desk.talk(f"call-{number}")
    desk.write()
    await desk.kill()
    newer(path)
    with full_disk(4096):
        desk = Desk(path)
        assert len(desk.saved.calls) == 2 and not desk.write()
        await desk.close()


@pytest.mark.usefixtures("patient")
async def test_a_first_start_on_a_full_disk_keeps_calls_when_there_is_room(path: Path) -> None:
    with full_disk(0):
        desk = Desk(path)
        assert desk.saved.calls == () and not desk.write()
    desk.now += 11.0
    assert desk.journal.begin_anew()
    desk.talk()
    assert desk.write()
    desk = await desk.again()
    assert len(desk.saved.calls) == 1
    await desk.close()


async def test_checkpoints_keep_the_wal_small(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_module, "_CHECKPOINT", 200_000)
    desk = Desk(path)
    saved = 0
    for number in range(150):
        desk.talk(f"call-{number % 20}")
        assert desk.write()
        if desk.journal.busy:
            free = asyncio.Event()
            desk.journal.when_free(free.set)
            await asyncio.wait_for(free.wait(), 30)
            saved += 1
        if number % 20 == 19:
            for call in range(20):
                desk.bench.do(desk.bench.calls.end(f"call-{call}", desk.now))
            desk.bench.run(40)
    assert saved > 5
    assert path.with_name("calls.db-wal").stat().st_size < 600_000
    desk = await desk.again()
    assert len(desk.saved.calls) == 10
    await desk.close()


async def test_replies_do_not_wait_for_a_disk_that_hangs(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper_module, "_PATIENCE", 0.05)
    hangs = asyncio.Event()
    desk = Desk(path)

    async def hang() -> None:
        await hangs.wait()
        desk.journal._saving = None

    keeper = keeper_module.Keeper(desk.bench.calls, desk.journal, lambda: desk.now, counters=True)
    desk.talk()
    reply = keeper.kept(MediaReply())
    assert not isinstance(reply, MediaReply)
    desk.journal._saving = asyncio.get_running_loop().create_task(hang())
    assert await asyncio.wait_for(reply.wait(), 30) == MediaReply()
    assert desk.changes, "it will be written"
    hangs.set()
    await keeper.stop()
    desk = await desk.again()
    assert len(desk.saved.calls) == 1
    await desk.close()


# -- the clock


async def test_the_clock_goes_on(path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Who sets the wall clock between two processes ends no call by that either."""
    before = clock.offset()
    desk = Desk(path)
    desk.talk()
    desk.write(beat=True)
    await desk.kill()
    try:
        clock.go_on(before + 7200.0)
        desk = Desk(path)
        assert clock.offset() == before and "the wall clock was set by +7200 s" in caplog.text
    finally:
        clock.go_on(before)
    await desk.close()


async def test_the_clock_of_another_boot_does_not(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = clock.offset()
    desk = Desk(path)
    desk.talk()
    desk.write(beat=True)
    await desk.kill()
    monkeypatch.setattr("mediaproxy.relay.journalfile._boot", lambda: "another")
    try:
        clock.go_on(before + 7200.0)
        desk = Desk(path)
        assert clock.offset() == before + 7200.0
    finally:
        clock.go_on(before)
    await desk.close()


async def test_a_host_that_boots_into_the_past(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = clock.offset()
    desk = Desk(path)
    desk.talk()
    desk.write(beat=True)
    await desk.kill()
    monkeypatch.setattr("mediaproxy.relay.journalfile._boot", lambda: "another")
    journal = Journal(path, Ledger(), lambda: 10.0)
    try:
        journal.open()
        assert clock.offset() - before == pytest.approx(990.0)
    finally:
        clock.go_on(before)
    await journal.close()


async def test_all_calls_are_news_to_a_new_file(path: Path) -> None:
    desk = Desk(path)
    to_alice, to_bob = desk.talk()
    desk.bench.packet(BOB, to_bob)
    desk.write()
    assert not desk.changes.take(desk.now).calls
    news = desk.bench.calls.keep().take(desk.now)
    assert len(news.calls) == 1 and news.over == ()
    assert msgspec.structs.asdict(NOTHING).keys() == msgspec.structs.asdict(news).keys() and not NOTHING
    await desk.close()
