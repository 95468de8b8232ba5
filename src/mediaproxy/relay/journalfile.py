"""[shell] The file of a journal: its tables, how it is opened, and what an earlier process has left in it.

A path comes in, an open database goes out, with everything in it as values. A file that cannot be used is moved aside,
never written over; of its calls comes out what can be said of them.
"""

import contextlib
import errno
import logging
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import msgspec

from mediaproxy import clock
from mediaproxy.accounting import Notes
from mediaproxy.relay.callvalue import LAYOUT
from mediaproxy.relay.changes import Gone
from mediaproxy.relay.ports import CoolingValue
from mediaproxy.relay.resumption import Saved, SavedCall

log = logging.getLogger("mediaproxy.journal")

_SCHEMA = """
CREATE TABLE call (
    number INTEGER PRIMARY KEY, call_id TEXT NOT NULL, brief BLOB NOT NULL, value BLOB NOT NULL, notes BLOB
);
CREATE TABLE counters (number INTEGER PRIMARY KEY, value BLOB NOT NULL);
CREATE TABLE past (number INTEGER PRIMARY KEY, value BLOB NOT NULL); -- what calls have left that are over
CREATE TABLE record (number INTEGER PRIMARY KEY, line BLOB NOT NULL); -- of a call, not known to be in its own file
CREATE TABLE fact (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
"""
_TABLES = {"call", "counters", "past", "record", "fact"}
_UNUSABLE = ("SQLITE_CORRUPT", "SQLITE_NOTADB", "SQLITE_ERROR", "")
"What SQLite says of a file that is damaged, or has other columns; nothing: a text in it is none."
_UNWRITABLE = ("SQLITE_FULL", "SQLITE_IOERR")
_SLACK = 1.0
"Seconds that the wall clock may have been set without anybody's notice."


class JournalError(Exception):
    """The journal cannot be had. The text names the file and says what to do."""


class UnwritableError(Exception):
    """The disk takes nothing now, but what is in the file could be read."""

    def __init__(self, error: sqlite3.Error, left: "Left") -> None:
        super().__init__(str(error))
        self.left = left


class Past(msgspec.Struct, array_like=True):
    """What calls have left that ended together."""

    gone: tuple[Gone, ...]
    cooling: tuple[CoolingValue, ...]


_past = msgspec.msgpack.Decoder(Past)
_notes = msgspec.msgpack.Decoder(Notes)


class Left(msgspec.Struct, kw_only=True):
    """All that is in a file."""

    saved: Saved
    notes: dict[str, Notes] = {}
    "By Call-ID."
    past: dict[int, Past] = {}
    records: dict[int, bytes] = {}
    last_row: int = 0


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What a file says of the process that writes it; what is None is left as it was."""

    alive: float | None = None
    "When it lived last."
    stopped: bool | None = None
    "Whether it has been stopped."
    generation: int | None = None
    "Up to which generation ports may be lent."
    boot: str | None = None
    clock: float | None = None
    "``clock.offset`` in that boot."

    def write(self, database: sqlite3.Connection) -> None:
        """Into the transaction. sqlite3.Error."""
        told = {name: value for name, value in msgspec.structs.asdict(self).items() if value is not None}
        database.executemany("INSERT OR REPLACE INTO fact VALUES (?, ?)", told.items())

    @classmethod
    def read(cls, database: sqlite3.Connection) -> "Facts":
        """sqlite3.Error or msgspec.ValidationError."""
        return msgspec.convert(dict(database.execute("SELECT name, value FROM fact")), cls, strict=False)


def open_journal(path: Path, now: float) -> tuple[sqlite3.Connection, Left]:
    """Open the file, or make one. JournalError if it cannot be had, UnwritableError if it can only be read now."""
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        try:
            return _opened(path, now)
        except (sqlite3.DatabaseError, msgspec.MsgspecError, ValueError, TypeError, _AnotherLayout) as error:
            if isinstance(error, sqlite3.DatabaseError) and _name(error) not in _UNUSABLE:
                raise
            left = _leave(path, error, now)
            try:
                database, _ = _opened(path, now)
            except UnwritableError as unwritable:
                unwritable.left = left
                raise
            return database, left
    except (sqlite3.Error, OSError) as error:
        raise JournalError(_explain(path, error)) from error


class _AnotherLayout(Exception):
    """The file was written by another version of this program, or it is something else."""


def _opened(path: Path, now: float) -> tuple[sqlite3.Connection, Left]:
    database, left = _connect(path), Left(saved=Saved(died=now))
    try:
        (version,) = database.execute("PRAGMA user_version").fetchone()
        tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master")}
        empty = version == 0 and not tables
        if not empty and version != LAYOUT:
            what = "is no journal" if version == 0 else f"has layout {version}, this mediaproxy writes {LAYOUT}"
            raise _AnotherLayout(what)
        if not empty and not tables >= _TABLES:
            raise _AnotherLayout(f"is no journal: it has no table {min(_TABLES - tables)}")
        for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "wal_autocheckpoint=0"):
            database.execute(f"PRAGMA {pragma}")
        if empty:
            database.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version={LAYOUT}; COMMIT")
        left = _read(database, now)
        with transaction(database):
            Facts(stopped=False, boot=_boot(), clock=clock.offset()).write(database)
    except BaseException as error:
        database.close()
        if isinstance(error, sqlite3.Error) and _name(error).startswith(_UNWRITABLE):
            raise UnwritableError(error, left) from error
        raise
    return database, left


def _name(error: Exception) -> str:
    """What SQLite calls it; empty: it is not SQLite's."""
    return getattr(error, "sqlite_errorname", "")


def _connect(path: Path) -> sqlite3.Connection:
    # Used by one thread at a time. Exclusive: a second relay with the same calls would take their ports.
    database = sqlite3.connect(path, timeout=0.2, isolation_level=None, check_same_thread=False)
    database.execute("PRAGMA locking_mode=EXCLUSIVE")
    return database


@contextlib.contextmanager
def transaction(database: sqlite3.Connection) -> Iterator[None]:
    """All or nothing. sqlite3.Error."""
    database.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        if database.in_transaction:
            database.execute("ROLLBACK")
        raise
    database.execute("COMMIT")


# -- what is in it


def _read(database: sqlite3.Connection, now: float) -> Left:
    facts = Facts.read(database)
    counters = dict(database.execute("SELECT number, value FROM counters"))
    calls, notes = [], {}
    for number, call_id, brief, value, noted in database.execute("SELECT * FROM call ORDER BY number"):
        calls.append(SavedCall(number=number, brief=brief, value=value, counters=counters.get(number)))
        if noted is not None:
            notes[call_id] = _notes.decode(noted)
    past = {number: _past.decode(value) for number, value in database.execute("SELECT * FROM past ORDER BY number")}
    records = dict(database.execute("SELECT number, line FROM record ORDER BY number"))
    if calls:
        _go_on(facts, now)
    cooling = {value.pair.rtp: value for one in past.values() for value in one.cooling}
    return Left(
        saved=Saved(
            calls=tuple(calls),
            gone=tuple(gone for one in past.values() for gone in one.gone),
            cooling=tuple(cooling.values()),
            generation=facts.generation or 0,
            died=now if facts.alive is None else facts.alive,
            stopped=bool(facts.stopped),
        ),
        notes=notes,
        past=past,
        records=records,
        last_row=max([0, *past, *records]),
    )


def _go_on(facts: Facts, now: float) -> None:
    """Times of calls are those of the clock of the process that began them. A host without a battery may even boot into
    the past."""
    set_by = 0.0
    if facts.boot == _boot() and facts.clock is not None:
        set_by = clock.offset() - facts.clock
    elif facts.alive is not None:
        set_by = min(now - facts.alive, 0.0)
    if abs(set_by) > _SLACK:
        log.warning(
            "the wall clock was set by %+.0f s since the calls began that go on: times are told as before", set_by
        )
        clock.go_on(clock.offset() - set_by)


def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


# -- files that cannot be used


def _leave(path: Path, error: Exception, now: float) -> Left:
    """Move the file aside; what can be said of its calls."""
    left = _in_brief(path, now)
    aside = path.with_name(f"{path.name}.{int(now)}")
    for suffix in ("-wal", "-shm", ""):
        with contextlib.suppress(FileNotFoundError):
            path.with_name(path.name + suffix).rename(aside.with_name(aside.name + suffix))
    log.error(
        "%s: %s: it was moved to %s; the %d calls in it that could be read end now, with a record",
        path,
        error,
        aside.name,
        len(left.saved.calls),
    )
    return left


def _in_brief(path: Path, now: float) -> Left:
    """All layouts have these two tables with these columns."""
    calls: list[SavedCall] = []
    records: dict[int, bytes] = {}
    with contextlib.suppress(sqlite3.Error), contextlib.closing(_connect(path)) as database:
        rows = database.execute("SELECT number, brief FROM call WHERE typeof(brief) = 'blob' ORDER BY number")
        calls += [SavedCall(number=number, brief=brief, value=b"") for number, brief in rows]
        records |= dict(database.execute("SELECT number, line FROM record WHERE typeof(line) = 'blob' ORDER BY number"))
    return Left(saved=Saved(calls=tuple(calls), died=now), records=records)


_ADVICE = {
    "SQLITE_BUSY": "another process has it open; stop that one, or give this one a state_dir of its own",
    "SQLITE_LOCKED": "another process has it open; stop that one, or give this one a state_dir of its own",
    "SQLITE_CANTOPEN": "let the server's user write in its directory",
    "SQLITE_READONLY": "let the server's user write it and its directory",
    "SQLITE_FULL": "make room on the disk",
    "SQLITE_IOERR": "look after the disk",
    "EACCES": "let the server's user write it (chown), as who has run as root before must",
    "EISDIR": "move it away: a file belongs there",
}


def _explain(path: Path, error: Exception) -> str:
    """One line for the operator: file, what is wrong, what to do."""
    name = errno.errorcode.get(error.errno or 0, "") if isinstance(error, OSError) else _name(error)
    advice = next((text for prefix, text in _ADVICE.items() if name.startswith(prefix)), "")
    return f"{path}: {getattr(error, 'strerror', None) or error}{advice and '; '}{advice}"
