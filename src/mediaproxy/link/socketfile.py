"""[shell] The file of a listening UNIX socket: made with its final rights, replaced in one step, removed if it is ours.

A path comes in, a listening socket goes out. It must never take a path from a living process, or remove a file that is
not a dead socket.
"""

import contextlib
import errno
import grp
import os
import pwd
import socket
import stat
import tempfile
from pathlib import Path

import msgspec

LONGEST = 107
"Bytes of a path that clients can connect to (unix(7)); a file made elsewhere and renamed may have a longer one."


class FileRights(msgspec.Struct, frozen=True, kw_only=True):
    """Who may use a UNIX socket."""

    mode: int = 0o660
    owner: str = ""
    group: str = ""


def bind_unix(path: Path, *, mode: int = 0o660, owner: str = "", group: str = "") -> socket.socket:
    """A listening UNIX stream socket at ``path``.

    A file that a dead process left is replaced, in one step and with its final mode and owner. OSError EADDRINUSE if
    somebody listens there, EEXIST if the path is no socket, ENAMETOOLONG if nobody could ask there; LookupError if
    owner or group are unknown.
    """
    if len(os.fsencode(path)) > LONGEST:
        raise OSError(errno.ENAMETOOLONG, f"a socket's path may have {LONGEST} bytes", str(path))
    uid = pwd.getpwnam(owner).pw_uid if owner else -1
    gid = grp.getgrnam(group).gr_gid if group else -1
    _check_free(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".", dir=path.parent) as directory:
        made = Path(directory, "s")
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
        try:
            sock.bind(str(made))
            os.chmod(made, mode)
            if (uid, gid) != (-1, -1):
                os.chown(made, uid, gid)
            sock.listen(1024)
            os.rename(made, path)
        except OSError:
            sock.close()
            raise
    return sock


def _check_free(path: Path) -> None:
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise FileExistsError(errno.EEXIST, "is in the way: not a socket", str(path))
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return
        except TimeoutError:
            pass  # a listener whose queue is full
    raise OSError(errno.EADDRINUSE, "another process listens there", str(path))


def unlink_unix(path: Path, inode: int) -> None:
    """Remove a socket file, unless another process has put its own there meanwhile."""
    with contextlib.suppress(FileNotFoundError):
        if path.lstat().st_ino == inode:
            path.unlink()
