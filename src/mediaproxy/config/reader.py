"""[shell] Reads a TOML file into a Config.

A path comes in, settings go out, or a ConfigError whose lines each name file, line, key, what was expected and what was
found. It must never start anything or fall back to a default for something that is written but wrong.
"""

import re
import tomllib
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec
from msgspec import inspect as types
from msgspec.structs import replace

from mediaproxy.config.check import Checker, Problem, check_prefix
from mediaproxy.config.doors import judge as judge_doors
from mediaproxy.config.lines import line_numbers, line_of
from mediaproxy.config.relays import judge as judge_relays
from mediaproxy.config.schema import Config
from mediaproxy.dialects.doorsettings import DoorSettings
from mediaproxy.dispatcher.settings import DispatcherSettings, ListenSettings
from mediaproxy.edge.settings import EdgeSettings, Tls
from mediaproxy.endpoint import Endpoint
from mediaproxy.link.address import Kind
from mediaproxy.sip.digest import Account
from mediaproxy.sip.grammar import SipError
from mediaproxy.sip.uri import Uri


class ConfigError(Exception):
    """The configuration cannot be used. One line per problem, each naming the file."""


def load(path: Path | str) -> Config:
    """The configuration in a file. ConfigError if it cannot be read or does not fit."""
    path = Path(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        advice = "create it (mediaproxy config prints the default)" if isinstance(error, FileNotFoundError) else ""
        advice = "let this user read it" if isinstance(error, PermissionError) else advice
        raise ConfigError(f"{path}: cannot be read: {error.strerror}{advice and '; '}{advice}") from error
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{path}: line {line}: expected UTF-8 text; save the file as UTF-8") from error
    return loads(text, str(path), path.parent)


def loads(text: str, name: str = "configuration", directory: Path = Path()) -> Config:
    """The configuration in TOML text. ``name`` is what errors call it; files that it names are found from
    ``directory``."""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(_syntax(name, str(error))) from error
    checker = Checker()
    checked = checker.value(document, types.type_info(Config))
    problems = list(checker.problems)
    if not problems:
        try:
            config = msgspec.convert(checked, Config)
        except msgspec.ValidationError as error:
            problems.append(_from_msgspec(error))
        else:
            problems += _judge(config)
            if not problems:
                return _anchored(config, directory)
    numbers = line_numbers(text)
    raise ConfigError("\n".join(_line(name, problem, line_of(problem.path, numbers)) for problem in problems))


def _anchored(config: Config, directory: Path) -> Config:
    """Relative paths count from the directory of the file, wherever a command that reads it is started."""

    def path(text: str) -> str:
        return str(directory / text) if text else ""

    tls = config.edge.tls
    files = Tls(
        certificate=path(tls.certificate), key=path(tls.key), authorities=path(tls.authorities), verify=tls.verify
    )
    return replace(
        config,
        runtime_dir=path(config.runtime_dir),
        state_dir=path(config.state_dir),
        listen=tuple(_door(one, path) for one in config.listen),
        records=replace(config.records, path=path(config.records.path)),
        edge=replace(
            config.edge,
            tls=files,
            script=path(config.edge.script),
            sip_asymmetrics=path(config.edge.sip_asymmetrics),
            rtp_asymmetrics=path(config.edge.rtp_asymmetrics),
        ),
        relay=replace(config.relay, bpffs=path(config.relay.bpffs), listen=_listen(config.relay.listen, path)),
        dispatcher=_dispatcher(config.dispatcher, path),
    )


def _listen(listen: ListenSettings, path: Callable[[str], str]) -> ListenSettings:
    return replace(
        listen,
        address=_socket(listen.address, path),
        certificate=path(listen.certificate),
        key=path(listen.key),
        authorities=path(listen.authorities),
    )


def _door(door: DoorSettings, path: Callable[[str], str]) -> DoorSettings:
    return replace(
        door,
        address=_socket(door.address, path),
        certificate=path(door.certificate),
        key=path(door.key),
        authorities=path(door.authorities),
    )


def _dispatcher(settings: DispatcherSettings, path: Callable[[str], str]) -> DispatcherSettings:
    tls = settings.tls
    return replace(
        settings,
        mediaproxy_socket=path(settings.mediaproxy_socket),
        socket_path=path(settings.socket_path),
        relays=tuple(replace(one, address=_socket(one.address, path)) for one in settings.relays),
        tls=replace(tls, certificate=path(tls.certificate), key=path(tls.key), authorities=path(tls.authorities)),
    )


def _socket(address: str, path: Callable[[str], str]) -> str:
    kind, colon, file = address.partition(":")
    return f"{kind}:{path(file)}" if colon and kind == Kind.UNIX else address


def _line(name: str, problem: Problem, line: int | None) -> str:
    where = f"{name}: line {line}" if line else name
    return f"{where}: {problem.key}: {problem.text}" if problem.path else f"{where}: {problem.text}"


def _syntax(name: str, message: str) -> str:
    # "Expected '=' after a key in a key/value pair (at line 3, column 5)"
    found = re.fullmatch(r"(.*) \(at (?:line (\d+), column (\d+)|end of document)\)", message, re.S)
    if found is None:
        return f"{name}: not TOML: {message}"
    where = f"line {found[2]}, column {found[3]}" if found[2] else "at its end"
    return f"{name}: {where}: not TOML: {found[1]}{_TOML_ADVICE.get(found[1], '')}"


_TOML_ADVICE = {
    "Invalid value": "; expected true, false, a number, a text in quotes, a list [...] or a table {...}",
    "Cannot overwrite a value": "; the key is there already: write it once",
}


def _from_msgspec(error: msgspec.ValidationError) -> Problem:
    """What a struct's own ``__post_init__`` objects to: "port_min … - at `$.relay`"."""
    text, _, where = str(error).partition(" - at `$")
    parts = re.findall(r"\.([^.\[\]`]+)|\[(\d+)\]", where)
    path = tuple(name or int(index) for name, index in parts)
    key, colon, rest = text.partition(": ")
    if colon and key.isidentifier():
        return Problem(path=(*path, key), text=rest)
    return Problem(path=path, text=text)


# What needs more than one value to judge


def _judge(config: Config) -> list[Problem]:
    return [
        *_accounts(config),
        *_prefixes(config),
        *_expiry(config),
        *_pings(config),
        *judge_relays(config),
        *judge_doors(config),
        *_web(config),
    ]


def _accounts(config: Config) -> Iterable[Problem]:
    seen: set[tuple[str, str]] = set()
    for at, account in enumerate(config.edge.accounts):
        path = ("edge", "accounts", at)
        if not account.username or re.search(r"[\s@<>:;\"]", account.username):
            yield Problem(
                path=(*path, "username"), text=f"expected a user part such as alice, got {account.username!r}"
            )
        if bool(account.password) == bool(account.ha1):
            yield Problem(path=path, text=f"expected either password or ha1 for {account.username}")
        if (account.username, account.domain) in seen:
            yield Problem(path=path, text=f"{account.username} has an account already; expected one")
        seen.add((account.username, account.domain))
        yield from _hashes(account, path, config.edge)


def _hashes(account: Account, path: tuple[str | int, ...], settings: EdgeSettings) -> Iterable[Problem]:
    for algorithm, value in account.ha1.items():
        if not re.fullmatch(rf"[0-9A-Fa-f]{{{algorithm.hex_length}}}", value):
            text = (
                f"expected {algorithm.hex_length} hexadecimal digits, the {algorithm} hash of username:realm:password"
            )
            yield Problem(path=(*path, "ha1", str(algorithm)), text=text)
    if account.ha1 and not settings.realm:
        yield Problem(path=(*path, "ha1"), text="a hash is only good for one realm; set edge.realm to the one it has")
    missing = [algorithm for algorithm in settings.algorithms if account.ha1 and algorithm not in account.ha1]
    if missing:
        yield Problem(path=(*path, "ha1"), text=f"expected a hash for {missing[0]} too, which edge.algorithms offers")


def _prefixes(config: Config) -> Iterable[Problem]:
    for at, prefix in enumerate(config.edge.trusted_proxies):
        if (text := check_prefix(prefix)) is not None:
            yield Problem(path=("edge", "trusted_proxies", at), text=text)


def _web(config: Config) -> Iterable[Problem]:
    try:
        good = not config.web.address or bool(Endpoint.parse(config.web.address))
    except ValueError:
        good = False
    if not good:
        text = f'expected an address and a port such as "127.0.0.1:9107", got {config.web.address[:60]!r}'
        yield Problem(path=("web", "address"), text=text)
    for at, prefix in enumerate(config.web.allow):
        if (problem := check_prefix(prefix)) is not None:
            yield Problem(path=("web", "allow", at), text=problem)


def _expiry(config: Config) -> Iterable[Problem]:
    expiry = config.edge.expiry
    if not expiry.minimum <= expiry.default <= expiry.maximum:
        text = f"expected minimum <= default <= maximum, got {expiry.minimum}, {expiry.default}, {expiry.maximum}"
        yield Problem(path=("edge", "expiry"), text=text)


def _pings(config: Config) -> Iterable[Problem]:
    edge = config.edge
    try:
        uri = Uri.parse(edge.sipping_from) if edge.sipping_from else None
    except SipError:
        uri = None
    if edge.sipping_from and (
        uri is None
        or uri.scheme not in ("sip", "sips")
        or not uri.host
        or uri.headers
        or not re.fullmatch(r"[!-;=?-~]+", edge.sipping_from)
    ):
        text = f'expected a SIP URI such as "sip:ping@example.com", got {edge.sipping_from[:60]!r}'
        yield Problem(path=("edge", "sipping_from"), text=text)
    if edge.sipping_method in _NO_PINGS:
        text = f"expected a method that changes nothing, such as OPTIONS or NOTIFY, got {edge.sipping_method}"
        yield Problem(path=("edge", "sipping_method"), text=text)


_NO_PINGS = frozenset(
    ["INVITE", "ACK", "CANCEL", "BYE", "REGISTER", "PRACK", "UPDATE", "REFER", "MESSAGE", "PUBLISH", "SUBSCRIBE"]
)
"Methods that phones would act on, or that make no request of their own."
