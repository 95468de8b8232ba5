"""A BPF program and the functions that it calls, joined as the kernel wants them: in one piece.

An object's sections and relocations come in; instructions and the places that need a map's descriptor go out. Functions
that a program does not call are left out, because the kernel refuses instructions that nothing reaches.
"""

import struct
from collections.abc import Container
from dataclasses import dataclass

from mediaproxy.relay.bpf.elf import Elf, ObjectError, Relocation

_MAP, _CALL = 1, 10
"R_BPF_64_64 and R_BPF_64_32."
_FUNCTIONS = ".text"
"The section of functions that programs call."
_INSTRUCTION = struct.Struct("=BBhi")
_CALL_CODE, _LOCAL_CALL = 0x85, 1
"A call instruction, and the source register of one that calls a function of the object."
_LD_IMM64 = 0x18


@dataclass(frozen=True, slots=True)
class Linked:
    """A program that can be loaded once descriptors are filled in."""

    code: bytes
    maps: dict[int, str]
    "Offset of a 64-bit load in ``code`` -> the map whose descriptor it loads."


class _Linker:
    def __init__(self, elf: Elf, maps: Container[str]) -> None:
        self._elf = elf
        self._maps = maps
        self._sizes = {offset: size for _, offset, size in elf.functions.get(_FUNCTIONS, ())}
        self._code = bytearray()
        self._loads: dict[int, str] = {}
        self._calls: list[tuple[int, int]] = []
        "Where a call is, and the offset in ``.text`` of what it calls."
        self._placed: dict[int, int] = {}
        "Offset of a function in ``.text`` -> its place."

    def link(self, section: str) -> Linked:
        self._add(section, 0, len(self._elf.sections[section]))
        done = 0
        while done < len(self._calls):  # each function may call more
            _, function = self._calls[done]
            done += 1
            if function not in self._placed:
                if function not in self._sizes:
                    raise ObjectError(f"{section} calls what is no function")
                self._placed[function] = len(self._code)
                self._add(_FUNCTIONS, function, function + self._sizes[function])
        for at, function in self._calls:  # what is called is counted in instructions from the one after the call
            struct.pack_into("=i", self._code, at + 4, (self._placed[function] - at) // 8 - 1)
        return Linked(bytes(self._code), self._loads)

    def _add(self, section: str, start: int, end: int) -> None:
        """Append a piece, and note what it calls and which maps it loads."""
        behind = len(self._code) - start
        body = self._elf.sections[section][start:end]
        relocations = {r.offset: r for r in self._elf.relocations.get(section, ()) if start <= r.offset < end}
        self._code += body
        for at in range(start, end, 8):
            code, registers, _, value = _INSTRUCTION.unpack_from(body, at - start)
            relocation = relocations.pop(at, None)
            if code == _CALL_CODE and registers >> 4 == _LOCAL_CALL:
                self._calls.append((at + behind, _called(section, at, value, relocation)))
            elif relocation is not None and code == _LD_IMM64 and relocation.kind == _MAP:
                if relocation.symbol not in self._maps:
                    raise ObjectError(f"{section} refers to {relocation.symbol}, which is no map")
                self._loads[at + behind] = relocation.symbol
            elif relocation is not None:
                raise ObjectError(f"{section} has a relocation of kind {relocation.kind} that is not known here")
        if relocations:
            raise ObjectError(f"{section} has relocations between instructions")


def _called(section: str, at: int, value: int, relocation: Relocation | None) -> int:
    """The offset in ``.text`` of the function that a call calls."""
    if relocation is None:
        if section != _FUNCTIONS:
            raise ObjectError(f"{section} calls itself")
        return at + 8 * (value + 1)
    if relocation.kind != _CALL:
        raise ObjectError(f"{section} has a call with a relocation of kind {relocation.kind}")
    return (0 if relocation.symbol == _FUNCTIONS else relocation.value) + 8 * (value + 1)


def link(elf: Elf, section: str, maps: Container[str]) -> Linked:
    """Join the program of a section. ObjectError if it refers to something that is neither a map nor a function."""
    return _Linker(elf, maps).link(section)
