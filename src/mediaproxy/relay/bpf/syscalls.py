"""bpf(2) by the standard library alone: one function per command that the relay needs.

File descriptors and bytes go in and come out; what the kernel refuses is an OSError that names the command. The layouts
are those of union bpf_attr in include/uapi/linux/bpf.h; fields after the last one written are 0.
"""

import ctypes
import errno
import os
import platform
import struct
from typing import NamedTuple

_NUMBERS = {"x86_64": 321, "aarch64": 280, "riscv64": 280, "loongarch64": 280, "ppc64le": 361, "s390x": 351}
"The system call's number."
(_MAP_CREATE, _MAP_LOOKUP, _MAP_UPDATE, _PROG_LOAD, _OBJ_PIN, _OBJ_GET) = (0, 1, 2, 5, 6, 7)
(_TEST_RUN, _INFO, _PROG_QUERY, _LINK_CREATE, _LINK_UPDATE, _LINK_DETACH) = (10, 15, 16, 28, 29, 34)

SCHED_CLS, XDP_PROGRAM, SK_LOOKUP_PROGRAM = 3, 6, 30
"Program types."
SK_LOOKUP, XDP, TCX_INGRESS = 36, 37, 46
"Attach types."
XDP_NATIVE = 1 << 2
"Flag of an XDP link: in the driver or not at all."

_INTERRUPTIONS = 10
"How often a signal may interrupt the loading of one program."

_libc = ctypes.CDLL(None, use_errno=True)


def _bpf(command: int, attributes: "ctypes.Array[ctypes.c_char]", what: str) -> int:
    number = _NUMBERS.get(platform.machine())
    if number is None:
        raise OSError(errno.ENOSYS, f"{what}: the number of bpf(2) on {platform.machine()} is not known here")
    result: int = _libc.syscall(number, command, attributes, len(attributes))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")
    return result


def _attributes(format_: str, *values: int | bytes) -> "ctypes.Array[ctypes.c_char]":
    data = struct.pack("=" + format_, *values)
    return ctypes.create_string_buffer(data, len(data))


def _opened(fd: int) -> int:
    os.set_inheritable(fd, False)  # the kernel's are close-on-exec already; so it stays if that changes
    return fd


class _Buffer:
    """Memory whose address a system call gets."""

    def __init__(self, data: bytes | int) -> None:
        size = data if isinstance(data, int) else len(data)
        self.memory = ctypes.create_string_buffer(data if isinstance(data, bytes) else b"", max(size, 1))

    @property
    def address(self) -> int:
        return ctypes.addressof(self.memory)


# -- maps


def map_create(name: str, type_: int, key_size: int, value_size: int, max_entries: int, flags: int) -> int:
    """A new map; its file descriptor."""
    attributes = _attributes("IIIIIII16s", type_, key_size, value_size, max_entries, flags, 0, 0, name.encode()[:15])
    return _opened(_bpf(_MAP_CREATE, attributes, f"creating the map {name}"))


def map_update(fd: int, key: bytes, value: bytes) -> None:
    """Set one element."""
    k, v = _Buffer(key), _Buffer(value)
    _bpf(_MAP_UPDATE, _attributes("IIQQQ", fd, 0, k.address, v.address, 0), "writing to a map")


def map_lookup(fd: int, key: bytes, size: int) -> bytes:
    """Read one element of so many bytes; of a per-CPU map those of all possible CPUs together."""
    k, v = _Buffer(key), _Buffer(size)
    _bpf(_MAP_LOOKUP, _attributes("IIQQQ", fd, 0, k.address, v.address, 0), "reading a map")
    return v.memory.raw


# -- programs


def program_load(
    name: str, type_: int, code: bytes, license_: str, attach_type: int, *, log: int = 0
) -> tuple[int, str]:
    """Verify and load a program: its file descriptor and the verifier's log, of at most ``log`` bytes.

    OSError has the log in its text when ``log`` is not 0.
    """
    instructions, name_of_license = _Buffer(code), _Buffer(license_.encode() + b"\0")
    said = _Buffer(log or 1)
    attributes = _attributes(
        "IIQQIIQII16sII",
        type_,
        len(code) // 8,
        instructions.address,
        name_of_license.address,
        1 if log else 0,
        log,
        said.address if log else 0,
        0,
        0,
        name.encode()[:15],
        0,
        attach_type,
    )
    try:
        fd = _load(attributes, f"loading the program {name}")
    except OSError as error:
        text = said.memory.value.decode(errors="replace")
        raise OSError(error.errno, f"{error.strerror}\n{text}" if text else str(error.strerror)) from None
    return _opened(fd), said.memory.value.decode(errors="replace")


def _load(attributes: "ctypes.Array[ctypes.c_char]", what: str) -> int:
    for _ in range(_INTERRUPTIONS):
        try:
            return _bpf(_PROG_LOAD, attributes, what)
        except BlockingIOError:  # a signal has interrupted the verifier
            continue
    return _bpf(_PROG_LOAD, attributes, what)


class Run(NamedTuple):
    """What a program made of one packet."""

    verdict: int
    data: bytes
    context: bytes
    nanoseconds: int
    "On average over the repetitions."


def test_run(fd: int, data: bytes, *, context: bytes = b"", repeat: int = 1, room: int = 256) -> Run:
    """Run a program on a packet that never leaves (BPF_PROG_TEST_RUN). ``room``: bytes that it may grow by."""
    packet, out = _Buffer(data), _Buffer(len(data) + room)
    given, returned = _Buffer(context), _Buffer(max(len(context), 1))
    attributes = _attributes(
        "IIIIQQIIIIQQ",
        fd,
        0,
        len(data),
        len(data) + room,
        packet.address,
        out.address,
        repeat,
        0,
        len(context),
        len(context),
        given.address if context else 0,
        returned.address if context else 0,
    )
    _bpf(_TEST_RUN, attributes, "running a program on a test packet")
    _, verdict, _, size, _, _, _, duration, _, filled = struct.unpack_from("=IiIIQQIIII", attributes)
    return Run(verdict, out.memory.raw[:size], returned.memory.raw[:filled], duration)


# -- links and pins


def link_create(program: int, target: int, attach_type: int, flags: int = 0) -> int:
    """Attach a program to an interface (by index) or a network namespace (by descriptor): the link's descriptor."""
    attributes = _attributes("IIIIIIQ", program, target, attach_type, flags, 0, 0, 0)
    return _opened(_bpf(_LINK_CREATE, attributes, "attaching a program"))


def attached(target: int, attach_type: int) -> int:
    """How many programs are attached to an interface (by index) or a network namespace (by descriptor)."""
    attributes = _attributes("IIIIQIIQQQQ", target, attach_type, 0, 0, 0, 0, 0, 0, 0, 0, 0)
    _bpf(_PROG_QUERY, attributes, "asking what is attached")
    return int(struct.unpack_from("=I", attributes, 24)[0])


def link_update(link: int, program: int) -> None:
    """Put another program in the place of the one attached, while packets flow."""
    _bpf(_LINK_UPDATE, _attributes("IIII", link, program, 0, 0), "replacing an attached program")


def link_detach(link: int) -> None:
    """Detach, even if the link is pinned."""
    _bpf(_LINK_DETACH, _attributes("I", link), "detaching a program")


def pin(fd: int, path: str) -> None:
    """Give a map, program or link a name in a BPF filesystem: it outlives the process."""
    name = _Buffer(os.fsencode(path) + b"\0")
    _bpf(_OBJ_PIN, _attributes("QII", name.address, fd, 0), f"pinning {path}")


def get(path: str) -> int:
    """Open what is pinned there."""
    name = _Buffer(os.fsencode(path) + b"\0")
    return _opened(_bpf(_OBJ_GET, _attributes("QII", name.address, 0, 0), f"opening {path}"))


def info(fd: int, size: int = 256) -> bytes:
    """struct bpf_map_info, bpf_prog_info or bpf_link_info of a descriptor, as long as the kernel's is."""
    out = _Buffer(size)
    attributes = _attributes("IIQ", fd, size, out.address)
    _bpf(_INFO, attributes, "asking the kernel about a descriptor")
    return out.memory.raw[: struct.unpack_from("=I", attributes, 4)[0]]
