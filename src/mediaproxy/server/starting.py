"""[shell] What can keep a server from starting, as one line that says what to do."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager


class StartError(Exception):
    """The server cannot start. One line per reason, each with what to do."""


@contextmanager
def told(what: str, advice: str = "") -> Iterator[None]:
    """An OSError becomes a StartError that says what could not be done."""
    try:
        yield
    except OSError as error:
        found = advice or _ADVICE.get(error.errno or 0, "")
        raise StartError(f"{what}: {error.strerror or error}{found and '; '}{found}") from error


_ELSEWHERE = "choose another place with runtime_dir, state_dir and records.path"
_ADVICE = {
    errno.EACCES: f"give this user the right to, or {_ELSEWHERE}",
    errno.EPERM: f"give this user the right to, or {_ELSEWHERE}",
    errno.ENOENT: _ELSEWHERE,
    errno.ENOTDIR: _ELSEWHERE,
    errno.EISDIR: _ELSEWHERE,
    errno.EROFS: _ELSEWHERE,
    errno.ENOSPC: "make room on the disk",
    errno.EEXIST: "move it away",
}
