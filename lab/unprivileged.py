"""Running programs of this repository as a user who is not root, wherever the repository and Python are.

A clone in root's home folder, or a Python there (pyenv), is closed to everybody else. Then the program runs in a mount
namespace of its own, in which that folder shows nothing but what the program needs.
"""

import shlex
import stat
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
NOBODY = 65534


def as_nobody(*capabilities: str) -> list[str]:
    """The words before a command line that run it, started by root, as a user without a name, with these capabilities
    alone (``net_admin``); without any if none is given."""
    wanted = ",".join(f"+{name}" for name in capabilities) or "-all"
    user = [f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
    return [*opened(), "setpriv", *user, f"--inh-caps={wanted}", f"--ambient-caps={wanted}"]


def opened(needed: tuple[Path, ...] = (ROOT, Path(sys.prefix), Path(sys.base_prefix))) -> list[str]:
    """The words before a command line that make these folders readable for everybody, for that command; none if they
    are. Only root can do that."""
    closed = {place: folder for place in needed if (folder := _closed(place)) is not None}
    if not closed:
        return []
    steps = ["mount -t tmpfs -o mode=755 tmpfs /mnt"]
    for number, place in enumerate(closed):
        steps += [f"mkdir /mnt/{number}", f"mount --bind {shlex.quote(str(place))} /mnt/{number}"]
    steps += [f"mount -t tmpfs -o mode=755 tmpfs {shlex.quote(str(folder))}" for folder in set(closed.values())]
    for number, place in enumerate(closed):
        steps += [f"mkdir -p {shlex.quote(str(place))}", f"mount --bind /mnt/{number} {shlex.quote(str(place))}"]
    return ["unshare", "--mount", "sh", "-ec", "; ".join([*steps, 'exec "$@"']), "sh"]


def _closed(place: Path) -> Path | None:
    """The first folder on the way to a place that others may not enter."""
    ways = [*reversed(place.parents), place]
    return next((way for way in ways if not way.stat().st_mode & stat.S_IXOTH), None)
