"""Whether a parsed TOML document fits the settings structs; every problem at once, in words for who wrote it.

Plain dicts, lists and scalars come in, with the msgspec type they should become; problems go out, and the same values
with endpoints made out of their text. It must never guess: what does not fit is told, not repaired.
"""

import difflib
import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from msgspec import inspect as types

from mediaproxy.config.formerly import here
from mediaproxy.config.lines import Path
from mediaproxy.endpoint import Endpoint


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One thing that is wrong with a document."""

    path: Path
    text: str
    "What was expected and what was found instead."

    @property
    def key(self) -> str:
        """The path as an operator writes it: ``edge.listeners[0].bind``."""
        shown = ""
        for part in self.path:
            shown += f"[{part}]" if isinstance(part, int) else f".{part}" if shown else part
        return shown


class Checker:
    """Checks one document and collects the problems."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []

    def value(self, raw: Any, kind: types.Type, path: Path = ()) -> Any:
        """``raw`` as far as it could be made into ``kind``."""
        match kind:
            case types.UnionType():
                return self._union(raw, kind, path)
            case types.StructType() if kind.cls is Endpoint:
                return self._endpoint(raw, path)
            case types.StructType():
                return self._struct(raw, kind, path)
            case types.VarTupleType() | types.ListType():
                return self._list(raw, kind, path)
            case types.DictType():
                return self._dict(raw, kind, path)
            case types.EnumType() | types.LiteralType():
                return self._choice(raw, kind, path)
            case _:
                return self._scalar(raw, kind, path)

    def _problem(self, path: Path, text: str) -> None:
        self.problems.append(Problem(path=path, text=text))

    def _wrong(self, path: Path, expected: str, raw: Any) -> Any:
        self._problem(path, f"expected {expected}, got {_shown(raw)}")
        return raw

    def _union(self, raw: Any, kind: types.UnionType, path: Path) -> Any:
        # TOML has no null, so None is only ever a default; what is left is one type.
        (only,) = (one for one in kind.types if not isinstance(one, types.NoneType))
        return self.value(raw, only, path)

    def _struct(self, raw: Any, kind: types.StructType, path: Path) -> Any:
        if not isinstance(raw, dict):
            return self._wrong(path, expectation(kind), raw)
        fields = {field.encode_name: field for field in kind.fields}
        for name in raw:
            if name not in fields:
                advice = _elsewhere(name) or _suggestion(name, fields) or _possible(fields)
                self._problem((*path, name), f"no such key{advice}")
        for name, field in fields.items():
            if field.required and name not in raw:
                self._problem(path, f"the key {name} is missing; expected {expectation(field.type)}")
        return {name: self.value(raw[name], fields[name].type, (*path, name)) for name in raw if name in fields}

    def _list(self, raw: Any, kind: types.VarTupleType | types.ListType, path: Path) -> Any:
        if not isinstance(raw, list):
            written = f", each with a header [[{Problem(path=path, text='').key}]]" if isinstance(raw, dict) else ""
            return self._wrong(path, expectation(kind) + written, raw)
        if kind.max_length is not None and len(raw) > kind.max_length:
            self._problem(path, f"expected at most {kind.max_length}, got {len(raw)}")
        if len(raw) < (kind.min_length or 0):
            self._problem(path, f"expected at least {kind.min_length}, got {len(raw)}")
        return [self.value(one, kind.item_type, (*path, at)) for at, one in enumerate(raw)]

    def _dict(self, raw: Any, kind: types.DictType, path: Path) -> Any:
        if not isinstance(raw, dict):
            return self._wrong(path, "a table", raw)
        for name in raw:
            self.value(name, kind.key_type, (*path, name))
        return {name: self.value(one, kind.value_type, (*path, name)) for name, one in raw.items()}

    def _choice(self, raw: Any, kind: types.EnumType | types.LiteralType, path: Path) -> Any:
        allowed = _choices(kind)
        if raw not in allowed:
            self._problem(path, f"expected {expectation(kind)}, got {_shown(raw)}{_suggestion(raw, allowed)}")
        return raw

    def _endpoint(self, raw: Any, path: Path) -> Any:
        if not isinstance(raw, str):
            return self._wrong(path, _ENDPOINT, raw)
        try:
            return Endpoint.parse(raw)
        except ValueError:
            return self._wrong(path, _ENDPOINT, raw)

    def _scalar(self, raw: Any, kind: types.Type, path: Path) -> Any:
        if not _fits(raw, kind):
            return self._wrong(path, expectation(kind), raw)
        return raw


PERMISSIONS = "^0?[0-7]{3}$"
"The pattern by which settings say that they are the permissions of a file."
_ENDPOINT = 'ADDRESS:PORT in quotes, such as "192.0.2.1:5060" or "[2001:db8::1]:5060"'


def _fits(raw: Any, kind: types.Type) -> bool:
    match kind:
        case types.BoolType():
            return isinstance(raw, bool)
        case types.StrType():
            return isinstance(raw, str) and (kind.pattern is None or re.search(kind.pattern, raw) is not None)
        case types.IntType():
            return isinstance(raw, int) and not isinstance(raw, bool) and _in_range(raw, kind)
        case types.FloatType():
            return isinstance(raw, int | float) and not isinstance(raw, bool) and _in_range(raw, kind)
    raise AssertionError(f"settings have no use for {kind}")


def _in_range(raw: float, kind: types.IntType | types.FloatType) -> bool:
    # Written so that nan is in no range.
    return (kind.ge is None or raw >= kind.ge) and (kind.le is None or raw <= kind.le)


def expectation(kind: types.Type) -> str:
    """What a value of that type looks like, for a sentence that begins with "expected"."""
    match kind:
        case types.UnionType():
            return expectation(next(one for one in kind.types if not isinstance(one, types.NoneType)))
        case types.StructType() if kind.cls is Endpoint:
            return _ENDPOINT
        case types.StructType():
            needed = ", ".join(f"{field.encode_name} = ..." for field in kind.fields if field.required)
            return f"a table {{ {needed} }}" if needed else "a table"
        case types.DictType():
            return "a table"
        case types.VarTupleType() | types.ListType():
            return _list_expectation(kind.item_type)
        case types.EnumType() | types.LiteralType():
            return "one of " + ", ".join(f'"{choice}"' for choice in _choices(kind))
    return _scalar_expectation(kind)


def _list_expectation(item: types.Type) -> str:
    match item:
        case types.StructType() if item.cls is not Endpoint:
            return f"a list of tables [{expectation(item).removeprefix('a table ')}]"
        case types.StrType():
            return 'a list of texts ["...", "..."]'
    return "a list [...]"


def _scalar_expectation(kind: types.Type) -> str:
    match kind:
        case types.BoolType():
            return "true or false"
        case types.IntType():
            return "a whole number" + allowed_range(kind)
        case types.FloatType():
            return "a number" + allowed_range(kind)
        case types.StrType(pattern=str() as pattern):
            if pattern == PERMISSIONS:
                return 'permissions in octal digits and quotes, such as "0660"'
            return f"a text in quotes that matches {pattern}"
    return "a text in quotes"


def _choices(kind: types.EnumType | types.LiteralType) -> list[str]:
    return [str(one.value) for one in kind.cls] if isinstance(kind, types.EnumType) else [str(v) for v in kind.values]


def allowed_range(kind: types.IntType | types.FloatType) -> str:
    """`` from 1 to 10``, or as much of it as there is."""
    low = "" if kind.ge is None else f" from {kind.ge:g}"
    return low + ("" if kind.le is None else f" to {_plain(kind.le)}")


def _plain(number: float) -> str:
    return f"{number:.0f}" if number == int(number) else f"{number:g}"


def _shown(raw: Any) -> str:
    match raw:
        case bool():
            return "true" if raw else "false"
        case str():
            return f'"{raw[:60]}"'
        case dict():
            return "a table"
        case list():
            return "a list"
    return str(raw)


def _suggestion(name: Any, allowed: Iterable[str]) -> str:
    near = difflib.get_close_matches(str(name), list(allowed), n=1)
    return f"; did you mean {near[0]}?" if near else ""


def _elsewhere(name: str) -> str:
    place = here(name)
    return f"; what others call so is {place} here" if place else ""


def _possible(names: Iterable[str]) -> str:
    return f"; there are: {', '.join(names)}"


def check_prefix(text: str) -> str | None:
    """Why ``text`` is no address or prefix in CIDR notation; None: it is one."""
    try:
        ipaddress.ip_network(text, strict=False)
    except ValueError:
        return f'expected an address or a prefix such as "192.0.2.0/24", got "{text[:60]}"'
    return None
