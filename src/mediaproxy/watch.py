"""[shell] Files that operators change while the server runs: noticed, read again, and never lost by a mistake.

A path comes in; its content comes out again whenever the file has changed, however that was done: edited in place,
replaced by another file, or by an older one. What cannot be read is told once and changes nothing. No thread and no
event loop is needed: a host calls ``refresh`` when it suits it, as often as it likes.
"""

import errno
import os
import stat
import time
from collections.abc import Callable
from pathlib import Path

from mediaproxy.agents import RTP_ASYMMETRICS, SIP_ASYMMETRICS, AgentList

LOOK_EVERY = 0.5
"Seconds between two looks at a file."
SETTLED = 1.0
"A file that was changed less than this many seconds ago may be half written, and is left alone,"
PATIENCE = 2.0
"but not for longer than this. Together with LOOK_EVERY, and a host that calls every second, less than 5 s."
LARGEST = 1_048_576
"Bytes of a file that is read."
REPORTED = 20
"Bad lines of one file that are reported one by one."

_Mark = tuple[int, int, int, int, int]
Report = Callable[[str], None]
"Takes a line for the log."


class WatchedFile:
    """One file. ``refresh`` gives its content when it is new."""

    def __init__(
        self,
        path: Path,
        report: Report,
        *,
        what: str,
        notice: Report | None = None,
        optional: bool = False,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """``what`` the file is, for reports, such as ``list of SIP-asymmetric clients``. ``report`` takes what is
        wrong, ``notice`` (None: the same) what is only news. ``optional``: there need be no such file. ``wall``: the
        clock of the file system."""
        self.path = path
        self.report = report
        self.notice = notice or report
        self.what = what
        self.trouble = ""
        "Why it cannot be read; empty: it can, or it need not be there."
        self._optional = optional
        self._wall = wall
        self._data: bytes | None = None
        self._mark: _Mark | None = None
        self._doubtful = False
        "It was read while it was young: it may have changed since without another mark."
        self._waiting: float | None = None
        "Since when it is waited for that it settles."
        self._missing = False
        self._next = float("-inf")

    def refresh(self, now: float) -> bytes | None:
        """The content if the file was never read or has another one since; None if not, if it cannot be read (which is
        reported once), if it is just being written, or if the last look was less than LOOK_EVERY ago."""
        if now < self._next:
            return None
        self._next = now + LOOK_EVERY
        try:
            return self._look(now)
        except FileNotFoundError as error:
            if not self._optional or self._data is not None:
                self._complain(error)
            elif not self._missing:
                self.notice(f"{self.path}: there is no {self.what}; none is in force")
            self._missing = True
        except (OSError, ValueError) as error:  # ValueError: the path has a NUL character
            self._complain(error)
        return None

    def _look(self, now: float) -> bytes | None:
        mark = _mark(os.stat(self.path))
        if mark == self._mark and not self._doubtful and not self.trouble:
            return None
        if self._data is not None and self._is_young(mark):
            self._waiting = now if self._waiting is None else self._waiting
            if now - self._waiting < PATIENCE:
                return None
        self._waiting = None
        self._mark, data = _read(self.path)
        self._doubtful = self._is_young(self._mark)
        if self.trouble:
            self.notice(f"{self.path}: the {self.what} can be read again")
            self.trouble = ""
        if data == self._data:
            return None
        self._data = data
        return data

    def _is_young(self, mark: _Mark) -> bool:
        # The last part is ctime, which nobody can set; one in the future says nothing.
        return 0.0 <= self._wall() - mark[-1] / 1e9 < SETTLED

    def _complain(self, error: Exception) -> None:
        trouble = (error.strerror if isinstance(error, OSError) else None) or str(error)
        if trouble != self.trouble:
            self.trouble = trouble
            kept = "the last good one stays in force" if self._data is not None else "none is in force until it can be"
            self.report(f"{self.path}: the {self.what} cannot be read: {trouble}; {kept}")


def _read(path: Path) -> tuple[_Mark, bytes]:
    """A regular file and the mark of what is read: one that is replaced or written to in between has another mark at
    the next look. OSError if it cannot be read, is something else, or is too large."""
    _judge(os.stat(path))  # opening some devices does something to them
    # What takes its place now may be a pipe, and must not hold us up.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        status = os.fstat(descriptor)
        _judge(status)
        data = bytearray()
        while piece := os.read(descriptor, 65_536):
            data += piece
            if len(data) > LARGEST:
                raise OSError(errno.EFBIG, _TOO_LARGE)
        return _mark(status), bytes(data)
    finally:
        os.close(descriptor)


_TOO_LARGE = f"it is larger than {LARGEST} bytes"


def _judge(status: os.stat_result) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise OSError(errno.EISDIR, "it is a directory")
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "it is no regular file")
    if status.st_size > LARGEST:
        raise OSError(errno.EFBIG, _TOO_LARGE)


def _mark(status: os.stat_result) -> _Mark:
    # ctime too: an edit in place within one tick of mtime, or a copied mtime, must not be missed.
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


class AgentFile:
    """A list of asymmetric clients (``agents``), kept up to date."""

    def __init__(
        self, path: Path, report: Report, *, what: str, notice: Report | None = None, optional: bool = False
    ) -> None:
        """As for ``WatchedFile``."""
        self._file = WatchedFile(path, report, what=what, notice=notice, optional=optional)
        self.agents = AgentList(name=str(path))
        "The list in force: the last one that could be read."

    @property
    def trouble(self) -> str:
        """Why the file cannot be read; empty: it can, or it need not be there."""
        return self._file.trouble

    def refresh(self, now: float) -> bool:
        """Read the file again if it has changed; whether the list in force is another one now."""
        data = self._file.refresh(now)
        if data is None:
            return False
        path = self._file.path
        agents = AgentList.parse(data.decode("latin-1"), str(path))
        for problem in agents.problems[:REPORTED]:
            self._file.report(f"{path}, {problem}")
        if len(agents.problems) > REPORTED:
            self._file.report(f"{path}: {len(agents.problems) - REPORTED} more lines are skipped")
        entries = "1 entry" if len(agents) == 1 else f"{len(agents)} entries"
        self._file.notice(f"{path}: {entries} in the {self._file.what}")
        changed = agents != self.agents
        self.agents = agents
        return changed


class AsymmetricClients:
    """Both lists of asymmetric clients, kept up to date: the parameters ``sip_asymmetrics`` and ``rtp_asymmetrics``."""

    def __init__(self, sip: str, rtp: str, report: Report, notice: Report | None = None) -> None:
        """Paths of the two files; empty: no such list. There need be none in the default place. Nothing is read yet."""
        self._files = tuple(
            AgentFile(
                Path(path or "-"),
                report,
                what=f"list of {kind}-asymmetric clients",
                notice=notice,
                optional=path == default,
            )
            if path
            else None
            for kind, path, default in (("SIP", sip, SIP_ASYMMETRICS), ("RTP", rtp, RTP_ASYMMETRICS))
        )

    def refresh(self, now: float) -> bool:
        """Read again what has changed; whether one of the lists in force is another one now."""
        return any([file.refresh(now) for file in self._files if file is not None])

    @property
    def sip(self) -> AgentList:
        """The SIP-asymmetric clients."""
        return _agents(self._files[0])

    @property
    def rtp(self) -> AgentList:
        """The RTP-asymmetric clients."""
        return _agents(self._files[1])


def _agents(file: AgentFile | None) -> AgentList:
    return AgentList() if file is None else file.agents
