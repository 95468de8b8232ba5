"""[shell] Calls on disk, so that a relay which starts again goes on with those of the process before it.

News of calls comes in and is in the file when ``write`` returns: whoever is told a port after that can rely on it,
whatever happens to this process. What an earlier process has left goes out. It must never keep a relay from serving: a
journal that cannot be written is given up with one line, and begun anew when that is possible.

SQLite in WAL mode, one row per call. A commit survives the end of the process at once, and that of the machine's power
since the last checkpoint. That one waits for the disk, so it is made in a thread, and nothing is written meanwhile.
"""

import asyncio
import contextlib
import logging
import sqlite3
from collections.abc import Callable, Collection
from pathlib import Path

import msgspec

from mediaproxy import clock
from mediaproxy.accounting import Ledger
from mediaproxy.endpoint import Endpoint
from mediaproxy.relay.changes import News
from mediaproxy.relay.journalfile import Facts, JournalError, Past, UnwritableError, open_journal, transaction
from mediaproxy.relay.resumption import Saved

__all__ = ["Journal", "JournalError"]

log = logging.getLogger("mediaproxy.journal")

_CHECKPOINT = 8_000_000
"Bytes in the WAL after which it is time for a checkpoint."
_COMMIT, _ROW = 8_192, 6_000
"Bytes that a commit and a row cost there, about: pages of 4096."
_RETRY = 10.0
"Seconds between two tries to begin anew."
_RESERVED = 1000
"Generations that may be used before the file must be told again."
_PURGE = 5.0
"Seconds between two looks at what may be deleted."

_encode = msgspec.msgpack.encode

Done = Callable[[], None]


class Journal:
    """The calls of one relay. One process owns the file."""

    def __init__(self, path: Path, ledger: Ledger, now: Callable[[], float] = clock.now) -> None:
        """``ledger``: what events have told of the calls is kept with them."""
        self.path = path
        self._ledger = ledger
        self._now = now
        self._database: sqlite3.Connection | None = None
        self._saving: asyncio.Task[None] | None = None
        self._when_free: list[Done] = []
        self._unsaved = 0
        "Bytes written since the last checkpoint, about."
        self._generation = 0
        "The highest that the file allows."
        self._counted: set[int] = set()
        "Calls that have a row in ``counters``."
        self._past: dict[int, tuple[float, set[Endpoint]]] = {}
        "By number of the row: until when somebody may ask for it, and its pairs that still cool."
        self._cooling: dict[Endpoint, int] = {}
        "RTP port of a pair that cools -> number of the row."
        self._purge_at = 0.0
        self._row = 0
        "The highest number of a row, calls' apart."
        self._new_records: dict[int, tuple[bytes, Done]] = {}
        "Records that are not in the file yet, and whom to tell when they are."
        self._old_records: list[int] = []
        "Records that are in their own file now."
        self._retry_at: float | None = None
        "When to begin anew; None: never."

    # -- life

    def open(self) -> tuple[Saved, dict[int, bytes]]:
        """Open or create the file. What an earlier process has left: calls, and lines of records that may not be in
        their own file, by number. On a full disk these, too, but nothing is kept until ``begin_anew``. JournalError if
        it cannot be had; then this journal keeps nothing."""
        try:
            self._database, left = open_journal(self.path, self._now())
        except UnwritableError as error:
            self._give_up(error)
            left = error.left
        self._row, self._generation = left.last_row, left.saved.generation
        self._counted = {call.number for call in left.saved.calls if call.counters is not None}
        for number, past in left.past.items():
            self._remember(number, past)
        for call_id, notes in left.notes.items():
            self._ledger.resume(call_id, notes)
        return left.saved, left.records

    async def close(self, *, stopped: bool = False) -> None:
        """Give the file back. ``stopped``: a later process is to go on with the calls in it."""
        await self.free()
        if self._database is None:
            return
        database, self._database = self._database, None
        try:
            with transaction(database):
                self._delete(database, "record", self._old_records)
                Facts(alive=self._now(), stopped=stopped).write(database)
        except sqlite3.Error as error:
            log.error("%s: %s: the next start finds the calls as they were before", self.path, error)
        finally:
            await asyncio.to_thread(database.close)

    # -- news

    @property
    def busy(self) -> bool:
        """A checkpoint is being made: nothing can be written."""
        return self._saving is not None

    @property
    def has_more(self) -> bool:
        """There is something to write that is no news of calls."""
        return self._database is not None and bool(self._new_records or self._old_records)

    async def free(self) -> None:
        """Wait until nothing is busy."""
        while self._saving is not None:
            await asyncio.wait([self._saving])

    def when_free(self, then: Done) -> None:
        """Call when the checkpoint is made."""
        self._when_free.append(then)

    def record(self, line: bytes, then: Callable[[Done], None]) -> None:
        """Keep the record of a call that has ended, with the next ``write``. After that ``then`` is called with what is
        to be called in turn when the record is in its own file."""
        if self._database is None:
            then(lambda: None)
            return
        self._row += 1
        number = self._row
        self._new_records[number] = (line, lambda: then(lambda: self.recorded(number)))

    def recorded(self, number: int) -> None:
        """A record is in its own file."""
        self._old_records.append(number)

    def write(self, news: News, *, beat: bool = False) -> bool:
        """Put news into the file. ``beat``: also that this process lives. False: it keeps nothing for now."""
        assert self._saving is None, "a checkpoint is being made"
        records, self._new_records = self._new_records, {}
        written = self._database is not None and self._commit(self._database, news, records, beat)
        for _, tell in records.values():
            tell()
        return written

    def _commit(
        self, database: sqlite3.Connection, news: News, records: dict[int, tuple[bytes, Done]], beat: bool
    ) -> bool:
        try:
            with transaction(database):
                self._put_calls(database, news)
                self._put_past(database, news)
                if records:
                    rows = [(number, line) for number, (line, _) in records.items()]
                    database.executemany("INSERT INTO record VALUES (?, ?)", rows)
                self._delete(database, "record", self._old_records)
                if beat:
                    Facts(alive=self._now()).write(database)
        except sqlite3.Error as error:
            self._give_up(error)
            return False
        self._old_records.clear()
        self._unsaved += _COMMIT + _ROW * (len(news.calls) + len(records))
        if self._unsaved > _CHECKPOINT:
            self._unsaved = 0
            self._saving = asyncio.get_running_loop().create_task(self._save(database))
        return True

    def _put_calls(self, database: sqlite3.Connection, news: News) -> None:
        if news.calls:
            rows = [(row.number, row.call_id, row.brief, row.value, self._notes(row.call_id)) for row in news.calls]
            database.executemany("INSERT OR REPLACE INTO call VALUES (?, ?, ?, ?, ?)", rows)
        if news.counters:
            database.executemany("INSERT OR REPLACE INTO counters VALUES (?, ?)", news.counters)
            self._counted.update(number for number, _ in news.counters)
        if news.over:
            self._delete(database, "call", news.over)
            self._delete(database, "counters", self._counted.intersection(news.over))
            self._counted.difference_update(news.over)
        if news.generation > self._generation:
            self._generation = news.generation + _RESERVED
            Facts(generation=self._generation).write(database)

    def _notes(self, call_id: str) -> bytes | None:
        notes = self._ledger.notes(call_id)
        return None if notes is None else _encode(notes)

    def _put_past(self, database: sqlite3.Connection, news: News) -> None:
        for rtp in news.cooled:
            number = self._cooling.pop(rtp, None)
            if number is not None:
                self._past[number][1].discard(rtp)
        if news.gone or news.cooling:
            self._row += 1
            past = Past(news.gone, news.cooling)
            database.execute("INSERT INTO past VALUES (?, ?)", (self._row, _encode(past)))
            self._remember(self._row, past)
        now = self._now()
        if self._purge_at <= now:
            self._purge_at = now + _PURGE
            over = [number for number, (until, cooling) in self._past.items() if until <= now and not cooling]
            self._delete(database, "past", over)
            for number in over:
                del self._past[number]

    def _remember(self, number: int, past: Past) -> None:
        cooling = {value.pair.rtp for value in past.cooling}
        for rtp in cooling:
            before = self._cooling.get(rtp)
            if before is not None:
                self._past[before][1].discard(rtp)
            self._cooling[rtp] = number
        self._past[number] = (max((gone.forget_at for gone in past.gone), default=0.0), cooling)

    def _delete(self, database: sqlite3.Connection, table: str, numbers: Collection[int]) -> None:
        if numbers:
            database.executemany(f"DELETE FROM {table} WHERE number = ?", [(number,) for number in numbers])

    # -- the disk

    async def _save(self, database: sqlite3.Connection) -> None:
        """Make a checkpoint."""
        try:
            await asyncio.to_thread(_checkpoint, database, self._now())
        except sqlite3.Error as error:
            self._give_up(error)
        finally:
            self._saving = None
            waiting, self._when_free = self._when_free, []
            for then in waiting:
                then()

    def _give_up(self, error: sqlite3.Error | UnwritableError) -> None:
        """The disk takes nothing. What is in the file stays: it is better than nothing for the next start."""
        log.error(
            "%s: %s: calls are not kept, so a restart ends them; tried again every %.0f s", self.path, error, _RETRY
        )
        if self._database is not None:
            with contextlib.suppress(sqlite3.Error):
                self._database.close()
        self._database = None
        self._retry_at = self._now() + _RETRY

    def begin_anew(self) -> bool:
        """If it was given up, and it is time to: begin anew with an empty file. True: all calls are news."""
        if self._database is not None or self._retry_at is None or self._now() < self._retry_at:
            return False
        self._retry_at = self._now() + _RETRY
        try:
            database, _ = open_journal(self.path, self._now())
        except (UnwritableError, JournalError):
            return False
        try:
            with transaction(database):
                for table in ("call", "counters", "past"):
                    database.execute(f"DELETE FROM {table}")
        except sqlite3.Error:
            database.close()
            return False
        log.warning("%s: calls are kept again", self.path)
        self._database = database
        self._past.clear()
        self._cooling.clear()
        self._counted.clear()
        self._generation = 0
        return True


def _checkpoint(database: sqlite3.Connection, now: float) -> None:
    """Bring what is in the WAL to the disk. Then one write begins the WAL anew, which waits for the disk, too."""
    database.execute("PRAGMA wal_checkpoint(RESTART)")
    with transaction(database):
        Facts(alive=now).write(database)
