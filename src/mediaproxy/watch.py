"""[shell] Files that operators change while the server runs: noticed, read again, and never lost by a mistake.

A path comes in; its content comes out again whenever the file has changed, however that was done: edited in place,
replaced by another file, or by an older one. What cannot be read is told once and changes nothing. No thread and no
event loop is needed: a host calls ``refresh`` when it suits it, as often as it likes.
"""

import os
from collections.abc import Callable
from pathlib import Path

from mediaproxy.agents import AgentList

LOOK_EVERY = 1.0
"Seconds between two looks at a file."

_Mark = tuple[int, int, int, int, int]
Report = Callable[[str], None]
"Takes a line for the log."


class WatchedFile:
    """One file. ``refresh`` gives its content when it is new."""

    def __init__(self, path: Path, report: Report, *, what: str) -> None:
        """``what`` the file is, for reports, such as ``list of SIP-asymmetric clients``."""
        self.path = path
        self._report = report
        self._what = what
        self._mark: _Mark | None = None
        self._trouble = ""
        self._next = float("-inf")

    def refresh(self, now: float) -> bytes | None:
        """The content if the file was never read or has changed since; None if not, if it cannot be read (which is
        reported once), or if the last look was less than LOOK_EVERY ago."""
        if now < self._next:
            return None
        self._next = now + LOOK_EVERY
        try:
            mark = _mark(os.stat(self.path))
            if mark == self._mark and not self._trouble:
                return None
            with self.path.open("rb") as file:
                # The mark is of what is read: a file replaced in between is noticed at the next look.
                mark = _mark(os.fstat(file.fileno()))
                data = file.read()
        except OSError as error:
            self._complain(error.strerror or str(error))
            return None
        if self._trouble:
            self._report(f"{self.path}: the {self._what} can be read again")
            self._trouble = ""
        self._mark = mark
        return data

    def _complain(self, trouble: str) -> None:
        if trouble != self._trouble:
            self._trouble = trouble
            kept = "the last good one stays in force" if self._mark is not None else "none is in force until it can be"
            self._report(f"{self.path}: the {self._what} cannot be read: {trouble}; {kept}")


def _mark(status: os.stat_result) -> _Mark:
    # ctime too: an edit in place within one tick of mtime, or a copied mtime, must not be missed.
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


class AgentFile:
    """A list of asymmetric clients (``agents``), kept up to date."""

    def __init__(self, path: Path, report: Report, *, what: str) -> None:
        self._file = WatchedFile(path, report, what=what)
        self._report = report
        self._what = what
        self.agents = AgentList(name=str(path))
        "The list in force: the last one that could be read."

    def refresh(self, now: float) -> bool:
        """Read the file again if it has changed; whether the list in force is another one now."""
        data = self._file.refresh(now)
        if data is None:
            return False
        agents = AgentList.parse(data.decode("latin-1"), str(self._file.path))
        for problem in agents.problems:
            self._report(f"{self._file.path}, {problem}")
        self._report(f"{self._file.path}: {len(agents)} entries in the {self._what}")
        changed = agents != self.agents
        self.agents = agents
        return changed
