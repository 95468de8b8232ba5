"""What is wrong with the doors (``[[listen]]``) of a configuration, as far as the text alone can tell.

A Config comes in, problems go out. Files and certificates are looked at when the server starts.
"""

from collections.abc import Iterator
from urllib.parse import urlsplit

from mediaproxy.config.check import Problem, check_prefix
from mediaproxy.config.lines import Path
from mediaproxy.config.schema import Config
from mediaproxy.dialects.doorsettings import ENCRYPTED, DoorAddress, DoorKind, DoorSettings
from mediaproxy.dialects.rtpproxy.sockets import EXAMPLE, is_pattern
from mediaproxy.endpoint import ip_address


def judge(config: Config) -> Iterator[Problem]:
    """Every problem with ``listen``, ``ng`` and ``rtpproxy``."""
    sockets = config.dispatcher.mediaproxy_socket, config.dispatcher.socket_path
    places = {path for path in sockets if path}
    for at, door in enumerate(config.listen):
        path: Path = ("listen", at)
        try:
            address = door.where
        except ValueError as error:
            yield Problem(path=(*path, "address"), text=str(error))
            continue
        yield from _address(address, path)
        yield from _allowed(door, address, path)
        yield from _files(door, address, path)
        place = _place(address)
        if place in places:
            text = f"expected an address that no other door has, got {str(address)!r} a second time"
            yield Problem(path=(*path, "address"), text=text)
        if address.port or address.path:
            places.add(place)
    for at, pattern in enumerate(config.rtpproxy.timeout_sockets):
        if not is_pattern(pattern):
            text = f"expected {EXAMPLE}, got {pattern[:80]!r}"
            yield Problem(path=("rtpproxy", "timeout_sockets", at), text=text)
    url = config.ng.callback_url
    if url and not _is_url(url):
        yield Problem(
            path=("ng", "callback_url"), text=f'expected a URL such as "http://%%:8090/RPC2", got {url[:80]!r}'
        )


def _place(address: DoorAddress) -> str:
    """What two doors cannot share: UDP and TCP have ports of their own."""
    if address.kind.is_file:
        return address.path
    return f"{'udp' if address.kind is DoorKind.UDP else 'tcp'} {address.host} {address.port}"


def _address(address: DoorAddress, path: Path) -> Iterator[Problem]:
    if not address.kind.is_file and ip_address(address.host) is None and address.host != "localhost":
        text = f"expected an IP address of this host, 0.0.0.0 or [::], got {address.host!r}"
        yield Problem(path=(*path, "address"), text=text)


def _allowed(door: DoorSettings, address: DoorAddress, path: Path) -> Iterator[Problem]:
    for at, prefix in enumerate(door.allow):
        if (text := check_prefix(prefix)) is not None:
            yield Problem(path=(*path, "allow", at), text=text)
    if address.kind.is_file:
        if door.allow:
            text = "expected nothing for a UNIX socket: mode, owner and group say who may use it"
            yield Problem(path=(*path, "allow"), text=text)
    elif not address.local and not door.allow:
        text = (
            f'expected the addresses of your SIP servers, such as allow = ["192.0.2.10"], because others can reach '
            f"{address}; or listen on 127.0.0.1"
        )
        yield Problem(path=path, text=text)


def _files(door: DoorSettings, address: DoorAddress, path: Path) -> Iterator[Problem]:
    encrypted = address.kind in ENCRYPTED
    if encrypted and not door.certificate:
        yield Problem(path=path, text=f"{address} needs certificate (and key): PEM files (docs/doors.md)")
    for name in ("certificate", "key", "authorities"):
        if getattr(door, name) and not encrypted:
            kinds = " or ".join(ENCRYPTED)
            yield Problem(path=(*path, name), text=f"expected nothing: only {kinds} has certificates, not {address}")
    for name in ("mode", "owner", "group"):
        if getattr(door, name) != _UNSET[name] and not address.kind.is_file:
            yield Problem(path=(*path, name), text=f"expected nothing: only a UNIX socket has {name}, not {address}")


_UNSET = {"mode": "0660", "owner": "", "group": ""}
"Defaults of what only UNIX sockets have."


def _is_url(text: str) -> bool:
    """Of HTTP, with ``%%`` for the SIP server's address."""
    try:
        parts = urlsplit(text.replace("%%", "192.0.2.1"))
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False
