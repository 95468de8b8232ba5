"""The commented default configuration, written from the settings structs and the texts under their fields.

Types come in, TOML text goes out. Every key is there; all are commented out, so that the file says no more than nothing
until somebody changes a line, and a later version's better default is not held back.
"""

import ast
import inspect
import json
import re
import textwrap
from functools import lru_cache
from typing import Any

import msgspec
from msgspec import inspect as types

from mediaproxy import __version__
from mediaproxy.config.check import allowed_range
from mediaproxy.config.schema import Config
from mediaproxy.endpoint import Endpoint

_WIDTH = 100

_EXAMPLES: dict[str, Any] = {
    "listen.protocol": "ng",
    "listen.address": "udp://192.0.2.1:2223",
    "listen.allow": ["192.0.2.0/24"],
    "listen.max_connections": 256,
    "listen.max_request": 65536,
    "listen.mode": "0660",
    "listen.owner": "",
    "listen.group": "",
    "listen.certificate": "",
    "listen.key": "",
    "listen.authorities": "",
    "edge.listeners.transport": "udp",
    "edge.listeners.bind": "192.0.2.1:5060",
    "edge.listeners.advertise": "203.0.113.1:5060",
    "edge.accounts.username": "alice",
    "edge.accounts.domain": "example.com",
    "edge.accounts.password": "correct horse battery staple",
    "edge.accounts.ha1": {"SHA-256": "…", "MD5": "…"},
    "edge.routes.to": "sip:gateway.example.net;transport=tcp",
    "edge.routes.domain": "*.example.net",
    "edge.routes.prefix": "+49",
    "relay.addresses.bind": "192.0.2.1",
    "relay.addresses.advertise": "203.0.113.1",
    "relay.addresses.name": "external",
    "relay.tos": 184,
    "ng.max_sessions": 10000,
    "ng.max_load": 4.0,
    "ng.max_cpu": 90.0,
    "ng.max_bandwidth": 100000000.0,
    "dispatcher.relays.name": "berlin",
    "dispatcher.relays.address": "unix:/run/mediaproxy/relay.sock",
    "dispatcher.relays.weight": 1.0,
    "dispatcher.relays.tier": 0,
    "dispatcher.relays.domains": ["example.com"],
}
"Values for keys that have no default."


def default_text() -> str:
    """The whole default configuration."""
    head = (
        f"mediaproxy {__version__}: every setting with its default. Remove the # at the beginning of a line to change"
        " it. Relative paths count from the directory of the file. Check with: mediaproxy config --check FILE"
    )
    kind = types.type_info(Config)
    assert isinstance(kind, types.StructType)
    return "\n".join([*_comment(head), "", *_table(kind, Config(), ())]) + "\n"


def _table(kind: types.StructType, defaults: Any, path: tuple[str, ...]) -> list[str]:
    """The keys of one table, then lists of tables, then its own tables."""
    docs = field_docs(kind.cls)
    keys: list[str] = []
    lists: list[str] = []
    tables: list[str] = []
    for field in kind.fields:
        inner = (*path, field.encode_name)
        doc = docs.get(field.name, "")
        if isinstance(field.type, types.StructType) and field.type.cls is not Endpoint:
            tables += ["", *_comment(doc or _summary(field.type.cls)), f"[{'.'.join(inner)}]"]
            tables += _table(field.type, getattr(defaults, field.name), inner)
        elif (item := _item_table(field.type)) is not None:
            lists += [*_comment(doc or _summary(item.cls)), *_list_of_tables(item, inner)]
        else:
            keys += [
                *_comment(_explained(doc, field.type)),
                *_key(field.encode_name, getattr(defaults, field.name), inner),
            ]
    return [*keys, *lists, *tables]


def _key(name: str, default: Any, path: tuple[str, ...]) -> list[str]:
    if default is None:
        return ["# Default: not set. Example:", f"#   {name} = {toml(_EXAMPLES['.'.join(path)])}"]
    return [f"#{name} = {toml(default)}"]


def _item_table(kind: types.Type) -> types.StructType | None:
    item = kind.item_type if isinstance(kind, types.VarTupleType) else None
    return item if isinstance(item, types.StructType) else None


def _list_of_tables(item: types.StructType, path: tuple[str, ...]) -> list[str]:
    docs = field_docs(item.cls)
    lines = ["# Default: none. Example:", f"#   [[{'.'.join(path)}]]"]
    for field in item.fields:
        for line in _comment(_explained(docs.get(field.name, ""), field.type), width=_WIDTH - 4):
            lines.append(f"#   {line}")
        lines.append(f"#   {field.encode_name} = {toml(_EXAMPLES['.'.join((*path, field.encode_name))])}")
    return lines


def _explained(doc: str, kind: types.Type) -> str:
    if isinstance(kind, types.UnionType):
        kind = next(one for one in kind.types if not isinstance(one, types.NoneType))
    limits = allowed_range(kind).removeprefix(" from ") if isinstance(kind, types.IntType | types.FloatType) else ""
    return f"{doc} ({limits})" if limits else doc


def _comment(text: str, width: int = _WIDTH) -> list[str]:
    text = re.sub(r"\bNone\b", "not set", text).replace("``", '"')
    plain = " ".join(re.sub(r"\s*\((docs/)?calls\.md [0-9, ]+\)", "", text).split())  # for readers of the code only
    return [f"# {line}" for line in textwrap.wrap(plain, width - 2, break_on_hyphens=False)]


def _summary(struct: type) -> str:
    return (inspect.getdoc(struct) or "").partition("\n\n")[0]


def toml(value: Any) -> str:
    """A TOML literal of a setting's value."""
    match value:
        case dict():
            return "{ " + ", ".join(f"{name} = {toml(one)}" for name, one in value.items()) + " }"
        case tuple() | list():
            return "[" + ", ".join(toml(one) for one in value) + "]"
        case Endpoint():
            return toml(str(value))
    # JSON lets DEL stand as it is, TOML does not.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


@lru_cache
def field_docs(struct: type[msgspec.Struct]) -> dict[str, str]:
    """The text under each field of a settings struct, those it inherits included."""
    docs: dict[str, str] = {}
    for cls in reversed(struct.__mro__):
        if cls not in (object, msgspec.Struct) and issubclass(cls, msgspec.Struct):
            docs |= _own_docs(cls)
    return docs


def _own_docs(struct: type) -> dict[str, str]:
    (tree,) = ast.parse(textwrap.dedent(inspect.getsource(struct))).body
    assert isinstance(tree, ast.ClassDef)
    docs: dict[str, str] = {}
    for statement, following in zip(tree.body, tree.body[1:], strict=False):
        match statement, following:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str() as doc)):
                docs[name] = doc
    return docs
