"""The relay's BPF object: what it defines, whether it is what this version of the relay expects, and how it is loaded.

``read_object`` is pure: a file's bytes in, maps and programs out. ``create_maps`` and ``load_programs`` bring them into
the kernel. FastPathUnavailable says what is missing, in words an operator can act on.
"""

import errno
import os
import platform
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from mediaproxy.relay.bpf import syscalls
from mediaproxy.relay.bpf.btf import Btf, MapDefinition
from mediaproxy.relay.bpf.elf import Elf, ObjectError, read
from mediaproxy.relay.bpf.linking import link
from mediaproxy.relay.slots import LAYOUT, NAMES

OBJECT = Path(__file__).parents[1] / "relay.bpf.o"
"Made by the build hook (hatch_build.py)."

_PSEUDO_MAP_FD = 1
_LOG = 1 << 20
"Bytes of the verifier's log, read only when it has refused a program."
_LINES = 12
"Lines of it that are shown: the last ones say why."

_PROGRAMS = {
    "tc/ethernet": (syscalls.SCHED_CLS, 0),
    "tc/plain": (syscalls.SCHED_CLS, 0),
    "xdp": (syscalls.XDP_PROGRAM, 0),
    "sk_lookup": (syscalls.SK_LOOKUP_PROGRAM, syscalls.SK_LOOKUP),
}
"Section -> program type and attach type."
ALWAYS = ("tc/ethernet", "tc/plain", "sk_lookup")
"What every relay in the kernel needs; ``xdp`` only if it is asked for."


class FastPathUnavailable(Exception):
    """This host cannot carry media in the kernel: what cannot be done, and what to do about it."""

    def __init__(self, feature: str, needs: str) -> None:
        super().__init__(f"{feature}: {needs}")
        self.feature = feature
        "What was tried."
        self.needs = needs
        "What is missing."


@dataclass(frozen=True, slots=True)
class ProgramText:
    """A program as compiled."""

    name: str
    section: str
    code: bytes
    maps: dict[int, str]
    "Offset of an instruction in ``code`` -> the map whose descriptor it loads."


@dataclass(frozen=True, slots=True)
class BpfObject:
    """What an object file defines."""

    maps: dict[str, MapDefinition]
    programs: dict[str, ProgramText]
    "By the names of their sections."
    license: str


def read_object(data: bytes) -> BpfObject:
    """Parse an object. ObjectError if it is damaged, or its layout is not that of relay/slots.py."""
    elf = read(data)
    if ".BTF" not in elf.sections:
        raise ObjectError("it has no BTF")
    try:
        return _object(elf)
    except (struct.error, LookupError, OverflowError, RecursionError, StopIteration) as error:
        raise ObjectError(f"damaged: {error}") from error


def _object(elf: Elf) -> BpfObject:
    btf = Btf(elf.sections[".BTF"])
    check_layout(btf)
    maps = {definition.name: definition for definition in btf.maps()}
    programs = {section: _program(elf, section, maps) for section in _PROGRAMS}
    text = elf.sections.get("license", b"").rstrip(b"\0").decode("ascii", "replace")
    return BpfObject(maps, programs, text)


def _program(elf: Elf, section: str, maps: Mapping[str, MapDefinition]) -> ProgramText:
    name = next(name for name, offset, _ in elf.functions[section] if offset == 0)
    linked = link(elf, section, maps)
    return ProgramText(name, section, linked.code, linked.maps)


def check_layout(btf: Btf) -> None:
    """ObjectError if a struct or an enum of the object is not the one of relay/slots.py."""
    for name, record in LAYOUT.items():
        if btf.struct(name) != record.offsets or btf.size(name) != record.size:
            raise ObjectError(f"struct {name} is another than this version's: it was compiled from other sources")
    for name, values in NAMES.items():
        expected = {f"{name}_{value.name}".upper(): int(value) for value in values}
        found = btf.enum(name) or {}
        if {key: value for key, value in found.items() if key != "REASON_COUNT"} != expected:
            raise ObjectError(f"enum {name} is another than this version's: it was compiled from other sources")


def load_object(path: Path = OBJECT) -> BpfObject:
    """The relay's own object. FastPathUnavailable if there is none that fits."""
    try:
        return read_object(path.read_bytes())
    except FileNotFoundError:
        raise FastPathUnavailable(
            "the kernel program",
            f"{path} is missing: it could not be compiled when mediaproxy was installed; "
            "install it again with `pip install -v` and see why (BPF_CLANG=clang uses that compiler)",
        ) from None
    except (ObjectError, OSError) as error:
        raise FastPathUnavailable("the kernel program", f"{path}: {error}; install mediaproxy again") from error


def create_maps(wanted: BpfObject, entries: int, names: Iterable[str] | None = None) -> dict[str, int]:
    """New maps with so many slots: name -> descriptor. ``names``: only these. FastPathUnavailable if the kernel
    refuses."""
    made: dict[str, int] = {}
    try:
        for name in wanted.maps if names is None else names:
            d = wanted.maps[name]
            count = entries if name in ("slots", "counters") else d.max_entries
            made[name] = syscalls.map_create(name, d.type, d.key_size, d.value_size, count, d.flags)
    except OSError as error:
        for fd in made.values():
            os.close(fd)
        raise unavailable("BPF maps", error) from error
    return made


def load_programs(wanted: BpfObject, maps: Mapping[str, int], sections: Iterable[str] = ALWAYS) -> dict[str, int]:
    """Verify and load programs on these maps: section -> descriptor. FastPathUnavailable if the kernel refuses."""
    loaded: dict[str, int] = {}
    try:
        for section in sections:
            loaded[section] = _load(wanted.programs[section], wanted.license, maps)
    except OSError as error:
        for fd in loaded.values():
            os.close(fd)
        raise unavailable("BPF programs", error) from error
    return loaded


def _load(program: ProgramText, license_: str, maps: Mapping[str, int]) -> int:
    code = bytearray(program.code)
    for at, name in program.maps.items():
        code[at + 1] = code[at + 1] & 0x0F | _PSEUDO_MAP_FD << 4  # the source register says what the number is
        struct.pack_into("=I", code, at + 4, maps[name])
    type_, attach_type = _PROGRAMS[program.section]
    try:
        return syscalls.program_load(program.name, type_, bytes(code), license_, attach_type)[0]
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EACCES, errno.E2BIG):
            raise
    fd, _ = syscalls.program_load(program.name, type_, bytes(code), license_, attach_type, log=_LOG)
    return fd


def unavailable(feature: str, error: OSError) -> FastPathUnavailable:
    """The same, in words an operator can act on."""
    said = [line for line in str(error.strerror).splitlines() if line.strip()]
    text = "\n".join(said if len(said) <= _LINES else [said[0], "…", *said[-_LINES:]])
    if error.errno == errno.EPERM:
        return FastPathUnavailable(
            feature,
            f"{text}: the process needs CAP_BPF and CAP_NET_ADMIN (systemd: AmbientCapabilities=CAP_BPF "
            "CAP_NET_ADMIN), and a container a seccomp profile that allows bpf(2); kernel lockdown forbids it to all",
        )
    if error.errno == errno.ENOSYS:
        return FastPathUnavailable(feature, f"{text}: this kernel has no bpf(2)")
    if error.errno in (errno.EINVAL, errno.EACCES, errno.E2BIG, errno.EOPNOTSUPP):
        return FastPathUnavailable(feature, f"{text}\n(kernel {platform.release()}; Linux 5.11 or later is needed)")
    if error.errno in (errno.ENOMEM, errno.ENOSPC):
        return FastPathUnavailable(feature, f"{text}: too little memory for so many ports")
    return FastPathUnavailable(feature, text)
