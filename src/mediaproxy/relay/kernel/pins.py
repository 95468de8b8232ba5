"""Where a relay's maps and links live between its processes: pins in a BPF filesystem, and what is known of them.

A BPF filesystem, a name and a network namespace come in; a locked folder goes out, with one numbered folder per set of
pins that an earlier process has left. Facts beside each set say what may be done with it: boot, namespace and layout
must match, or it is converted, or left alone. Two processes never work on the same pins.
"""

import contextlib
import ctypes
import errno
import fcntl
import os
import re
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import msgspec

from mediaproxy.relay.bpf import FastPathUnavailable, syscalls
from mediaproxy.relay.slots import LAYOUT

_FOLDER = "mediaproxy"
_FACTS = "facts"
_FACTS_SIZE = 16384
_ARRAY = 2
_ZERO = bytes(4)
_NEW = "new-"
"What the folder of an unfinished set is called before its number."
_NETNS_COOKIE = 71
_libc = ctypes.CDLL(None, use_errno=True)


Kind = Literal["tc", "xdp"]
"The program that every interface gets, and the one that runs in the drivers of some in addition."


class Shape(msgspec.Struct, frozen=True):
    """Where the fields of a struct are."""

    size: int
    fields: dict[str, tuple[int, int]]
    "Offset and size in bytes."


class Hung(msgspec.Struct, frozen=True):
    """A clsact filter, which has no pin: it stays until it is removed."""

    ifindex: int
    priority: int
    handle: int


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a set of pins."""

    meaning: int = 1
    "Changes if fields of the same name come to mean something else."
    boot: str
    namespace: str
    layout: dict[str, Shape]
    filters: tuple[Hung, ...] = ()


def own_layout() -> dict[str, Shape]:
    """Of the structs of this version."""
    return {name: Shape(record.size, dict(record.offsets)) for name, record in LAYOUT.items()}


def boot_id() -> str:
    """Names this boot of the host; empty if it cannot be known."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def namespace_id() -> str:
    """Names the network namespace that this process is in, as long as the host runs."""
    inode = os.stat("/proc/self/ns/net").st_ino
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            cookie = struct.unpack("=Q", sock.getsockopt(socket.SOL_SOCKET, _NETNS_COOKIE, 8))[0]
        except OSError:  # before Linux 5.14
            cookie = 0
    return f"{inode}-{cookie}"


class ForeignPinsError(FastPathUnavailable):
    """Another user's process has left pins where this one's belong: its program goes on, and takes our packets."""

    def __init__(self, folder: Path) -> None:
        owner = f"user {folder.stat().st_uid}"
        with contextlib.suppress(KeyError, OSError):
            owner = folder.owner()
        super().__init__(
            f"pins in {folder}",
            f"they belong to {owner}, who ran this relay before: let {owner} run `mediaproxy relay --release` once, "
            "with this configuration",
        )


# -- the filesystem


def is_bpffs(path: Path) -> bool:
    """Whether a path is in a BPF filesystem."""
    real = os.path.realpath(path)
    best, kind = "", ""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        where = before.split()[4].replace("\\040", " ")
        if (real == where or real.startswith(where.rstrip("/") + "/")) and len(where) >= len(best):
            best, kind = where, after.split()[0]
    return kind == "bpf"


def mount_bpffs(path: Path) -> Path | None:
    """Have a BPF filesystem at a path, as bpftool and iproute2 do if there is none: the path if it was mounted now.
    OSError if that is not allowed."""
    if is_bpffs(path):
        return None
    is_new = not path.exists()
    path.mkdir(parents=True, exist_ok=True)
    if _libc.mount(b"bpf", os.fsencode(path), b"bpf", 0, b"mode=0700") != 0:
        code = ctypes.get_errno()
        if is_new:
            path.rmdir()
        raise OSError(code, f"{path} is no BPF filesystem, and mounting one: {os.strerror(code)}")
    return path


# -- pins


class PinSet:
    """The pins of one set of maps: a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def lookup(self) -> Path:
        """The link of the lookup program."""
        return self.folder / "lookup"

    def hook(self, kind: Kind, ifindex: int) -> Path:
        """The link of a program at an interface."""
        return self.folder / f"{kind}-{ifindex}"

    def hooks(self) -> list[tuple[Kind, int]]:
        """The programs and interfaces whose links are pinned."""
        names = [path.name.split("-") for path in self.folder.iterdir()]
        kinds: tuple[Kind, ...] = ("tc", "xdp")
        return [(kind, int(name[1])) for name in names for kind in kinds if name[0] == kind]

    @property
    def orphaned(self) -> bool:
        """The network namespace that it was for is gone."""
        try:
            fd = syscalls.get(str(self.lookup))
        except OSError:
            return False
        try:
            # struct bpf_link_info: type, id, prog_id, (a union of 8-byte alignment:) netns.netns_ino
            return bool(struct.unpack_from("=I", syscalls.info(fd), 16)[0] == 0)
        finally:
            os.close(fd)

    def facts(self) -> Facts | None:
        """What is known of it; None: nothing, it was never finished."""
        try:
            fd = syscalls.get(str(self.folder / _FACTS))
        except OSError:
            return None
        try:
            data = syscalls.map_lookup(fd, _ZERO, _FACTS_SIZE)
            return msgspec.json.decode(data.rstrip(b"\0"), type=Facts)
        except (OSError, msgspec.MsgspecError):
            return None
        finally:
            os.close(fd)

    def write(self, facts: Facts) -> None:
        """Say what is known, the first time or anew. OSError."""
        path = self.folder / _FACTS
        if path.exists():
            fd = syscalls.get(str(path))
        else:
            fd = syscalls.map_create("facts", _ARRAY, 4, _FACTS_SIZE, 1, 0)
            syscalls.pin(fd, str(path))
        try:
            syscalls.map_update(fd, _ZERO, msgspec.json.encode(facts).ljust(_FACTS_SIZE, b"\0"))
        finally:
            os.close(fd)

    def unpin(self, name: str) -> None:
        """Remove one pin."""
        (self.folder / name).unlink(missing_ok=True)

    def remove(self) -> None:
        """Remove all pins; what nobody holds any more vanishes."""
        with contextlib.suppress(FileNotFoundError):
            for path in list(self.folder.iterdir()):
                path.unlink(missing_ok=True)
            self.folder.rmdir()


class Instance:
    """The locked folder of one relay."""

    def __init__(self, folder: Path, lock: int, mounted: Path | None = None) -> None:
        """Made by ``open`` and ``lock``. ``mounted``: the BPF filesystem that was mounted for it."""
        self.folder = folder
        self._lock = lock
        self._mounted = mounted

    @classmethod
    def open(cls, bpffs: Path, name: str, *, make: bool = True) -> "Instance | None":
        """Lock the folder of a relay in this network namespace. ``make`` it if there is none, else None.
        FastPathUnavailable if another process has it, or there can be none; ForeignPinsError if it is another user's.
        """
        folder = folder_of(bpffs, name)
        what = f"pins in {folder}"
        try:
            mounted = None
            if make:
                mounted = mount_bpffs(bpffs)
                folder.mkdir(parents=True, exist_ok=True)
            elif not os.path.lexists(folder):
                return None  # or it is hidden in another user's
            instance = cls(folder, _locked(folder), mounted)
            if os.access(folder, os.W_OK | os.X_OK):
                return instance
            instance.close()
            raise OSError(errno.EROFS, f"{folder} is in a read-only filesystem")
        except BlockingIOError as error:
            needs = (
                "another relay process works with them: stop it, or give this one a name of its own (relay.instance)"
            )
            raise FastPathUnavailable(what, needs) from error
        except OSError as error:
            if is_foreign(folder):
                raise ForeignPinsError(folder) from error
            raise FastPathUnavailable(what, pins_advice(error, bpffs)) from error

    @classmethod
    def lock(cls, folder: Path) -> "Instance":
        """Lock the folder of any relay. BlockingIOError if its process runs; OSError."""
        return cls(folder, _locked(folder))

    def sets(self) -> list[PinSet]:
        """What earlier processes have left, the oldest first; what they had not finished is removed."""
        found = []
        for path in self.folder.iterdir():
            if path.name.isdigit():
                found.append((int(path.name), PinSet(path)))
            else:
                PinSet(path).remove()
        return [pins for _, pins in sorted(found, key=lambda one: one[0])]

    def new_set(self) -> PinSet:
        """A folder for one more set; ``finish`` must follow. OSError."""
        number = 1 + max((int(path.name) for path in self.folder.iterdir() if path.name.isdigit()), default=0)
        folder = self.folder / f"{_NEW}{number}"
        PinSet(folder).remove()
        folder.mkdir()
        return PinSet(folder)

    def finish(self, pins: PinSet) -> None:
        """All pins of a new set are there."""
        folder = self.folder / pins.folder.name.removeprefix(_NEW)
        pins.folder.rename(folder)
        pins.folder = folder

    def close(self) -> None:
        """Let go; the folder goes unless something is pinned in it, and the filesystem if it was mounted for it."""
        if self._lock < 0:
            return
        with contextlib.suppress(OSError):
            self.folder.rmdir()
        if self._mounted is not None:
            with contextlib.suppress(OSError):
                self.folder.parent.rmdir()
        os.close(self._lock)
        self._lock = -1
        if self._mounted is not None and not self.folder.parent.exists():
            _libc.umount2(os.fsencode(self._mounted), 0)  # fails if others are using it by now


def folder_of(bpffs: Path, name: str) -> Path:
    """The folder of a relay in this network namespace."""
    return bpffs / _FOLDER / f"{safe(name)}-{safe(namespace_id())}"


def is_foreign(folder: Path) -> bool:
    """Whether the folder of a relay is there, and another user's."""
    if not os.path.lexists(folder) or os.access(folder, os.W_OK | os.X_OK):
        return False
    return not os.statvfs(folder).f_flag & os.ST_RDONLY  # there nobody may write


def safe(name: str) -> str:
    """A name as a BPF filesystem takes it: without dots and slashes."""
    return re.sub(r"[^A-Za-z0-9_-]", "_", name)[:64] or "_"


def _locked(folder: Path) -> int:
    """A descriptor that holds the lock. BlockingIOError if another process has it."""
    while True:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(fd).st_ino == os.stat(folder).st_ino:  # else it was removed meanwhile
                return fd
        except FileNotFoundError:
            folder.mkdir(parents=True, exist_ok=True)
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)


def pins_advice(error: OSError, bpffs: Path) -> str:
    """What an operator can do about it."""
    said = error.strerror or str(error)
    if error.errno in (errno.EPERM, errno.EACCES):
        return (
            f"{said}: let root run `mount -t bpf bpf {bpffs}` if nothing is mounted there, and "
            f"`chmod o+x {bpffs}; install -d -o USER {bpffs / _FOLDER}` for the user of the relay"
        )
    if error.errno == errno.EROFS:
        return f"{said}: let root run `mount -o remount,rw {bpffs}`, or set relay.bpffs to another BPF filesystem"
    if error.errno in (errno.ENODEV, errno.ENOENT):
        return f"{said}: set relay.bpffs to a folder in which a BPF filesystem is mounted (mount -t bpf bpf FOLDER)"
    return said


def instances(bpffs: Path) -> Iterator[Path]:
    """The folders of all relays that have left pins there."""
    with contextlib.suppress(OSError):
        yield from sorted(path for path in (bpffs / _FOLDER).iterdir() if path.is_dir())
