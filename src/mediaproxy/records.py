"""Where call records are kept: one JSON line each, appended to a file, and how they are read back.

Records come in and wait in memory until they are on disk; lines come out as Records again. It must never hold up the
event loop for a disk, never lose a record because a disk was full for a while, and never let a line that was cut short
take its neighbours with it. The file is opened anew for each batch, so it may be moved away (logrotate) at any time.
"""

import asyncio
import contextlib
import logging
import os
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from mediaproxy.accounting import Filter, Record

log = logging.getLogger("mediaproxy.records")

_BATCH = 1000
"Records per write."
_REST = 0.1
"Seconds between two writes: a thread and an fsync for each call alone would take a tenth of what a call costs."
_BLOCK = 65_536
"Bytes per read, from the end of the file backwards."

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Record)


def line_of(record: Record) -> bytes:
    """The line of a record, with its end."""
    return _encoder.encode(record) + b"\n"


def record_of(line: bytes) -> Record | None:
    """The record of a line; None: it is none."""
    try:
        return _decoder.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


class RecordWriter:
    """Appends records to a file."""

    def __init__(self, path: Path, *, sync: bool = True, spool: int = 10_000, retry: float = 5.0) -> None:
        """``sync``: fsync after each batch, so that a power cut loses nothing. ``spool``: records kept in memory while
        the disk takes none; beyond it the oldest are given up. ``retry``: seconds between two tries."""
        self.path = path
        self.lost = 0
        "Records given up since start."
        self._sync = sync
        self._retry = retry
        self._spool: deque[tuple[bytes, Callable[[], None]]] = deque()
        self._most = spool
        self._news = asyncio.Event()
        self._stopping = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._failing = False

    @property
    def waiting(self) -> int:
        """Records in memory that are not on disk yet."""
        return len(self._spool)

    async def start(self) -> None:
        """Begin. OSError if the file cannot be written now: an operator should hear of that at once."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        await asyncio.to_thread(_append, self.path, b"", sync=False)
        self._task = asyncio.get_running_loop().create_task(self._run())

    def write(self, record: Record) -> None:
        """Keep a record. Returns at once; never raises."""
        self.write_line(line_of(record))

    def write_line(self, line: bytes, done: Callable[[], None] = lambda: None) -> None:
        """The same with its line. ``done`` is called when it is on disk."""
        self._spool.append((line, done))
        while len(self._spool) > self._most:
            self._spool.popleft()
            self.lost += 1
            if self.lost == 1:
                log.error("call records are given up, the oldest first: more than %d wait for the disk", self._most)
        self._news.set()

    async def stop(self) -> None:
        """Write what waits, with one last try, and end."""
        if self._task is None:
            return
        self._stopping.set()
        self._news.set()
        await self._task
        self._task = None
        if self._spool:
            log.error("%s: %d call records could not be written and are lost", self.path, len(self._spool))
            self.lost += len(self._spool)
            self._spool.clear()

    async def _run(self) -> None:
        while not self._stopping.is_set():
            await self._news.wait()
            self._news.clear()
            while self._spool and await self._write_batch():
                pass
            failed = bool(self._spool)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), self._retry if failed else _REST)
            if failed:
                self._news.set()
        while self._spool and await self._write_batch():
            pass

    async def _write_batch(self) -> bool:
        """Whether the oldest records are on disk now."""
        batch = [self._spool.popleft() for _ in range(min(_BATCH, len(self._spool)))]
        try:
            await asyncio.to_thread(_append, self.path, b"".join(line for line, _ in batch), sync=self._sync)
        except OSError as error:
            self._spool.extendleft(reversed(batch))
            if not self._failing:
                self._failing = True
                log.error("%s: %s: call records wait in memory, at most %d", self.path, error.strerror, self._most)
            return False
        for _, done in batch:
            done()
        if self._failing:
            self._failing = False
            log.warning("%s: call records are written again; %d are lost", self.path, self.lost)
        return True


def _append(path: Path, data: bytes, *, sync: bool) -> None:
    """Append all of ``data``, or nothing of it and OSError."""
    file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
    try:
        size = os.fstat(file).st_size
        if data and size and os.pread(file, 1, size - 1) != b"\n":
            data = b"\n" + data  # the last line was cut short: it stays alone
        try:
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(file, rest) :]
            if sync and data:
                os.fsync(file)
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(file, size)
            raise
    finally:
        os.close(file)


class RecordReader:
    """Reads records back."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.broken = 0
        "Lines met so far that are no records. A last line without end does not count: it is being written."

    def read(self, wanted: Filter | None = None, *, last: int | None = None) -> Iterator[Record]:
        """The records that are wanted, the oldest first; ``last``: only so many of the newest. OSError if the file
        cannot be read."""
        wanted = wanted or Filter()
        if last is None:
            yield from (record for record in self._records(_lines(self.path)) if wanted.matches(record))
            return
        found: list[Record] = []
        if last > 0:
            for record in self._records(_lines_backwards(self.path)):
                if wanted.matches(record):
                    found.append(record)
                if len(found) == last:
                    break
        yield from reversed(found)

    def _records(self, lines: Iterator[bytes]) -> Iterator[Record]:
        for line in lines:
            if not line.strip():
                continue
            record = record_of(line)
            if record is None:
                self.broken += line.endswith(b"\n")
            else:
                yield record


def _lines(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        yield from file


def _lines_backwards(path: Path) -> Iterator[bytes]:
    """The lines of a file, the last first, without reading more of it than is asked for."""
    with path.open("rb") as file:
        at = file.seek(0, os.SEEK_END)
        tail, end = b"", b""
        while at > 0:
            size = min(_BLOCK, at)
            at = file.seek(at - size)
            tail, *lines = (file.read(size) + tail).split(b"\n")
            if lines:
                yield lines.pop() + end
                end = b"\n"
                yield from (line + end for line in reversed(lines))
        yield tail + end
