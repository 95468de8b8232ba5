"""ELF objects of BPF programs, as far as a loader needs them: sections, symbols, relocations.

Bytes come in, a value goes out; nothing here knows maps or the kernel. ObjectError says what is wrong with the file.
"""

import struct
from dataclasses import dataclass

_HEADER = struct.Struct("16xHHIQQQIHHHHHH")
_SECTION = struct.Struct("IIQQQQIIQQ")
_SYMBOL = struct.Struct("IBBHQQ")
_RELOCATION = struct.Struct("QQ")
_EM_BPF = 247
_SHT_REL, _SHT_SYMTAB, _STT_FUNC = 9, 2, 2


class ObjectError(ValueError):
    """The file is no object that this loader can read."""


@dataclass(frozen=True, slots=True)
class Relocation:
    """A place in a section that needs the value of a symbol."""

    offset: int
    kind: int
    "1: R_BPF_64_64, the two halves of a 64-bit load. 10: R_BPF_64_32, a call."
    symbol: str
    "Its name, or that of its section if it has none."
    value: int
    "Of the symbol: its offset in its section."


@dataclass(frozen=True, slots=True)
class Elf:
    """An object file."""

    sections: dict[str, bytes]
    relocations: dict[str, list[Relocation]]
    "Name of the section that is changed -> its relocations."
    functions: dict[str, list[tuple[str, int, int]]]
    "Section -> its functions: name, offset and size in bytes."


def read(data: bytes) -> Elf:
    """Parse an object. ObjectError if it is none, or none for BPF on this machine."""
    if data[:4] != b"\x7fELF":
        raise ObjectError("no ELF file")
    try:
        return _read(data)
    except ObjectError:
        raise
    except (struct.error, LookupError, ValueError, OverflowError) as error:
        raise ObjectError(f"damaged ELF file: {error}") from error


def _read(data: bytes) -> Elf:
    _, machine, _, _, _, start, _, _, _, _, _, count, names_at = _HEADER.unpack_from(data)
    if machine != _EM_BPF:
        raise ObjectError("no BPF object for the byte order of this machine")
    headers = [_SECTION.unpack_from(data, start + number * _SECTION.size) for number in range(count)]
    bodies = [b"" if kind == 8 else data[at : at + size] for _, kind, _, _, at, size, *_ in headers]
    names = [_text(bodies[names_at], header[0]) for header in headers]
    symbols: list[tuple[str, int, int, int, int]] = []
    for (_, kind, *_, link, _, _, _), body in zip(headers, bodies, strict=True):
        if kind == _SHT_SYMTAB:
            for name, info, _, section, value, size in _SYMBOL.iter_unpack(body):
                symbols.append((_text(bodies[link], name), info & 15, section, value, size))
    relocations: dict[str, list[Relocation]] = {}
    for (_, kind, *_, info, _, _), body in zip(headers, bodies, strict=True):
        if kind == _SHT_REL:
            relocations[names[info]] = [
                _relocation(offset, what & 0xFFFFFFFF, symbols[what >> 32], names)
                for offset, what in _RELOCATION.iter_unpack(body)
            ]
    functions: dict[str, list[tuple[str, int, int]]] = {}
    for name_, kind, section, value, size in symbols:
        if kind == _STT_FUNC:
            functions.setdefault(names[section], []).append((name_, value, size))
    return Elf(dict(zip(names, bodies, strict=True)), relocations, functions)


def _relocation(offset: int, kind: int, symbol: tuple[str, int, int, int, int], names: list[str]) -> Relocation:
    name, _, section, value, _ = symbol
    return Relocation(offset, kind, name or (names[section] if section < len(names) else ""), value)


def _text(table: bytes, at: int) -> str:
    return table[at : table.index(b"\0", at)].decode()
