"""[shell] Call records on disk: one JSON line per call that has ended (calls.md 21), and how they are read back.

Records come in, lines go to a file. A full disk loses nothing as long as the process lives: what cannot be written
waits in memory, the trouble is told once, and each later record tries again. A file that was moved away (logrotate) is
made anew. Nothing here knows what a call is.
"""

import logging
import os
from collections import deque
from collections.abc import Iterator
from pathlib import Path

import msgspec

from mediaproxy.accounting import Record

log = logging.getLogger("mediaproxy.records")

MOST_WAITING = 100_000
"Records kept in memory while the file cannot be written; then the oldest are given up, and counted."

_encode = msgspec.json.Encoder().encode
_decode: msgspec.json.Decoder[Record] = msgspec.json.Decoder(Record)


class RecordWriter:
    """Appends records to a file. A line is with the operating system when ``append`` returns, if that is possible."""

    def __init__(self, path: Path, *, most_waiting: int = MOST_WAITING) -> None:
        """OSError if the directory cannot be made or the file cannot be opened."""
        self._path = path
        self._waiting: deque[bytes] = deque()
        self._most_waiting = most_waiting
        self._trouble = ""
        self.lost = 0
        "Records given up because too many waited."
        path.parent.mkdir(parents=True, exist_ok=True)
        self._fd = self._open()

    @property
    def waiting(self) -> int:
        """Records that could not be written yet."""
        return len(self._waiting)

    def append(self, record: Record) -> None:
        """Write a record, and those that wait before it. Never raises: what cannot be written waits."""
        if len(self._waiting) >= self._most_waiting:
            self._waiting.popleft()
            self.lost += 1
        self._waiting.append(_encode(record) + b"\n")
        self.flush()

    def flush(self) -> bool:
        """Try to write what waits. True if nothing waits any more."""
        try:
            self._reopen_if_moved()
            while self._waiting:
                self._write(self._waiting[0])
                self._waiting.popleft()
        except OSError as error:
            self._tell(error)
            return False
        if self._trouble:
            log.warning("call records are written to %s again", self._path)
            self._trouble = ""
        return True

    def close(self) -> None:
        """Write what waits, if possible, and close the file. A second call does nothing."""
        if self._fd < 0:
            return
        if not self.flush():
            log.error("%d call records could not be written to %s and are lost", len(self._waiting), self._path)
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _open(self) -> int:
        fd = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
        size = os.fstat(fd).st_size
        if size and os.pread(fd, 1, size - 1) != b"\n":  # an earlier process died in the middle of a line
            os.write(fd, b"\n")
        return fd

    def _reopen_if_moved(self) -> None:
        if self._fd >= 0:
            there = os.fstat(self._fd)
            try:
                named = os.stat(self._path)
            except FileNotFoundError:
                named = None
            if named is not None and (named.st_dev, named.st_ino) == (there.st_dev, there.st_ino):
                return
            os.close(self._fd)
            self._fd = -1
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._fd = self._open()

    def _write(self, line: bytes) -> None:
        """A whole line or nothing: half a line is taken back, so that the file can always be read."""
        size = os.fstat(self._fd).st_size
        written = 0
        try:
            while written < len(line):
                written += os.write(self._fd, line[written:])
        except OSError:
            if written:
                os.ftruncate(self._fd, size)
            raise

    def _tell(self, error: OSError) -> None:
        trouble = error.strerror or str(error)
        if trouble != self._trouble:
            self._trouble = trouble
            log.error("cannot write call records to %s: %s. They wait in memory; make room or mend the permissions",
                      self._path, trouble)  # fmt: skip


def read_records(path: Path, *, call_id: str = "", last: int = 0) -> Iterator[Record]:
    """The records of a file, the oldest first; a line that is no record is skipped.

    ``call_id``: only of that call; ``last``: only the last so many, 0 = all. OSError if the file cannot be read.
    """
    kept: deque[Record] = deque(maxlen=last or None)
    with path.open("rb") as file:
        for line in file:
            try:
                record = _decode.decode(line)
            except msgspec.DecodeError:
                continue
            if call_id and record.call_id != call_id:
                continue
            if last:
                kept.append(record)
            else:
                yield record
    yield from kept
