"""BTF, the description of types that clang puts into a BPF object: structs, enums and map definitions.

The section's bytes come in, names, offsets and numbers go out. Only what this loader asks for is read.
"""

import struct
from dataclasses import dataclass
from typing import NamedTuple

from mediaproxy.relay.bpf.elf import ObjectError

_HEADER = struct.Struct("HBBIIIII")
_TYPE = struct.Struct("III")
_MEMBER = struct.Struct("III")
_ARRAY = struct.Struct("III")
_ENUMERATOR = struct.Struct("Ii")

_INT, _PTR, _ARRAY_KIND, _STRUCT, _UNION, _ENUM, _DATASEC, _VAR = 1, 2, 3, 4, 5, 6, 15, 14
_TYPEDEF, _VOLATILE, _CONST, _RESTRICT, _TYPE_TAG = 8, 9, 10, 11, 18
_SKIPPED = {_INT: 4, 13: 8, _VAR: 4, 17: 4, 19: 12}
"Bytes after a type of other kinds: INT, FUNC_PROTO (per parameter), VAR, DECL_TAG, ENUM64 (per value)."


class Member(NamedTuple):
    """A field of a struct, or a value of an enum."""

    name: str
    type: int
    offset: int
    "In bytes; of an enum's: its value."


@dataclass(frozen=True, slots=True)
class MapDefinition:
    """A map that a program wants."""

    name: str
    type: int
    key_size: int
    value_size: int
    max_entries: int
    flags: int


@dataclass(slots=True)
class _Type:
    name: str
    kind: int
    size: int
    "Of structs and integers; else the type it refers to."
    members: list[Member]
    count: int = 0
    "Elements of an array; its type is in ``size``."


class Btf:
    """The types of one object."""

    def __init__(self, data: bytes) -> None:
        try:
            self._types = _parse(data)
        except (struct.error, ValueError, LookupError, OverflowError) as error:
            raise ObjectError(f"damaged BTF: {error}") from error

    def struct(self, name: str) -> dict[str, tuple[int, int]] | None:
        """Field -> (offset, size) of a struct, in bytes; None: there is none of that name."""
        found = self._find(name, _STRUCT)
        return None if found is None else {m.name: (m.offset, self._size(m.type)) for m in found.members}

    def size(self, name: str) -> int:
        """The size of a struct, 0 if there is none."""
        found = self._find(name, _STRUCT)
        return 0 if found is None else found.size

    def enum(self, name: str) -> dict[str, int] | None:
        """Name -> value of an enum; None: there is none of that name."""
        found = self._find(name, _ENUM)
        return None if found is None else {m.name: m.offset for m in found.members}

    def maps(self) -> list[MapDefinition]:
        """What the section ``.maps`` defines."""
        section = self._find(".maps", _DATASEC)
        return [] if section is None else [self._map(self._types[member.type]) for member in section.members]

    def _map(self, variable: _Type) -> MapDefinition:
        fields = {m.name: m.type for m in self._types[self._plain(variable.size)].members}
        numbers = {name: self._pointed(fields[name]).count for name in ("type", "max_entries") if name in fields}
        flags = self._pointed(fields["map_flags"]).count if "map_flags" in fields else 0
        key, value = (self._size(self._types[self._plain(fields[name])].size) for name in ("key", "value"))
        return MapDefinition(variable.name, numbers["type"], key, value, numbers["max_entries"], flags)

    def _pointed(self, number: int) -> _Type:
        return self._types[self._plain(self._types[self._plain(number)].size)]

    def _find(self, name: str, kind: int) -> _Type | None:
        return next((found for found in self._types if found.kind == kind and found.name == name), None)

    def _plain(self, number: int) -> int:
        """The type behind typedefs and qualifiers."""
        for _ in self._types:
            if self._types[number].kind not in (_TYPEDEF, _VOLATILE, _CONST, _RESTRICT, _TYPE_TAG):
                return number
            number = self._types[number].size
        raise ObjectError("damaged BTF: a type that refers to itself")

    def _size(self, number: int) -> int:
        found = self._types[self._plain(number)]
        if found.kind == _ARRAY_KIND:
            return found.count * self._size(found.size)
        return 8 if found.kind == _PTR else found.size


def _parse(data: bytes) -> list[_Type]:
    magic, _, _, header, types_at, types_size, texts_at, texts_size = _HEADER.unpack_from(data)
    if magic != 0xEB9F:
        raise ValueError("its magic number is wrong")
    texts = data[header + texts_at : header + texts_at + texts_size]
    at, end = header + types_at, header + types_at + types_size
    types = [_Type("void", 0, 0, [])]
    while at < end:
        name, info, size = _TYPE.unpack_from(data, at)
        at += _TYPE.size
        count, kind = info & 0xFFFF, info >> 24 & 31
        entry = _Type(_text(texts, name), kind, size, [])
        if kind == _ARRAY_KIND:
            entry.size, _, entry.count = _ARRAY.unpack_from(data, at)
            at += _ARRAY.size
        elif kind in (_STRUCT, _UNION, _DATASEC):
            bits = 0xFFFFFF if info >> 31 else 0xFFFFFFFF
            for first, second, third in _MEMBER.iter_unpack(data[at : at + count * _MEMBER.size]):
                member = Member("", first, 0) if kind == _DATASEC else _member(texts, first, second, third & bits)
                entry.members.append(member)
            at += count * _MEMBER.size
        elif kind == _ENUM:
            for first, value in _ENUMERATOR.iter_unpack(data[at : at + count * _ENUMERATOR.size]):
                entry.members.append(Member(_text(texts, first), 0, value))
            at += count * _ENUMERATOR.size
        else:
            at += _SKIPPED.get(kind, 0) * (count if kind in (13, 19) else 1)
        types.append(entry)
    return types


def _member(texts: bytes, name: int, type_: int, bits: int) -> Member:
    return Member(_text(texts, name), type_, bits // 8)


def _text(texts: bytes, at: int) -> str:
    return texts[at : texts.index(b"\0", at)].decode()
