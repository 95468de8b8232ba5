"""What is wrong with the relays of a configuration, as far as the text alone can tell.

A Config comes in, problems go out. Files and certificates are looked at when the server starts.
"""

from collections.abc import Iterator

from mediaproxy.config.check import Problem
from mediaproxy.config.lines import Path
from mediaproxy.config.schema import Config
from mediaproxy.dialects.dialogs import RpcAddress
from mediaproxy.dispatcher.settings import LOCAL
from mediaproxy.endpoint import ip_address
from mediaproxy.link.address import Address, Kind, TlsFiles


def judge(config: Config) -> Iterator[Problem]:
    """Every problem with ``dispatcher`` and ``relay.listen``."""
    yield from _relays(config)
    yield from _listen(config)
    yield from _sockets(config)
    tls = config.dispatcher.tls
    if (tls.certificate or tls.authorities) and not (tls.certificate and tls.authorities):
        yield from _certificates(tls, ("dispatcher", "tls"), "dispatcher.tls")


def _sockets(config: Config) -> Iterator[Problem]:
    settings = config.dispatcher
    for name in ("mediaproxy_socket", "socket_path"):
        kind, colon, path = getattr(settings, name).partition(":")
        if colon and kind in ("unix", "udp", "tcp"):
            text = f"expected a path such as {path if path[:1] == '/' and path[:2] != '//' else '/run/x.sock'}"
            yield Problem(path=("dispatcher", name), text=f"{text}, got {getattr(settings, name)!r}")
    if settings.socket_path and settings.socket_path == settings.mediaproxy_socket:
        text = f"expected another path than mediaproxy_socket, got {settings.socket_path!r}"
        yield Problem(path=("dispatcher", "socket_path"), text=text)
    if settings.end_dialogs:
        try:
            RpcAddress.parse(settings.end_dialogs)
        except ValueError as error:
            yield Problem(path=("dispatcher", "end_dialogs"), text=str(error))


def _relays(config: Config) -> Iterator[Problem]:
    names: set[str] = set()
    places: set[str] = set()
    for at, relay in enumerate(config.dispatcher.relays):
        path: Path = ("dispatcher", "relays", at)
        if not relay.name or relay.name in names:
            what = "a name that no other relay has" if relay.name else "a name"
            yield Problem(path=(*path, "name"), text=f"expected {what}, got {relay.name!r}")
        names.add(relay.name)
        address = None if relay.address == LOCAL else _parsed(relay.address)
        if isinstance(address, str):
            yield Problem(path=(*path, "address"), text=address.replace("expected ", f"expected {LOCAL}, ", 1))
            continue
        place = str(address or LOCAL)
        if place in places:
            yield Problem(path=(*path, "address"), text=f"another relay has the address {place} already")
        places.add(place)
        if address is not None and address.kind is Kind.TLS:
            yield from _certificates(config.dispatcher.tls, (*path, "address"), "dispatcher.tls")
        if address is not None and address.kind is not Kind.UNIX and not address.port:
            yield Problem(path=(*path, "address"), text="expected a port from 1 to 65535, got 0")


def _listen(config: Config) -> Iterator[Problem]:
    listen = config.relay.listen
    path: Path = ("relay", "listen")
    if not listen.address:
        return
    address = _parsed(listen.address)
    if isinstance(address, str):
        yield Problem(path=(*path, "address"), text=address)
        return
    if address.kind is not Kind.UNIX and ip_address(address.host) is None and address.host != "localhost":
        yield Problem(path=(*path, "address"), text=f"expected an IP address of this host, got {address.host!r}")
    if address.kind is Kind.TLS:
        files = TlsFiles(certificate=listen.certificate, key=listen.key, authorities=listen.authorities)
        yield from _certificates(files, path, "relay.listen")


def _parsed(text: str) -> Address | str:
    try:
        return Address.parse(text)
    except ValueError as error:
        return str(error)


def _certificates(tls: TlsFiles, path: Path, where: str) -> Iterator[Problem]:
    """Both ends of a TLS link show a certificate."""
    missing = [name for name in ("certificate", "authorities") if not getattr(tls, name)]
    if missing:
        names = " and ".join(f"{where}.{name}" for name in missing)
        yield Problem(path=path, text=f"TLS needs {names}: PEM files (docs/dispatcher.md)")
