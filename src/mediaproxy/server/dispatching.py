"""[shell] The dispatcher as it is configured: links to its relays, whom they serve, and the sockets of the modules.

Settings come in, a Dispatcher that is not started yet goes out, and what to show of it. StartError names what cannot be
used.
"""

import logging
from collections.abc import Callable, Iterable
from pathlib import Path

from mediaproxy.config import Config
from mediaproxy.dialects.shared import SharedDoors
from mediaproxy.dispatcher.directory import Directory
from mediaproxy.dispatcher.discovery import Discovery
from mediaproxy.dispatcher.guide import Guide
from mediaproxy.dispatcher.pool import Relay
from mediaproxy.dispatcher.service import Dispatcher, Timing
from mediaproxy.dispatcher.settings import LOCAL, DispatcherSettings, Lookup, RelayEntry
from mediaproxy.link import Address, FileRights, Kind, LineServer, Link, StreamLink
from mediaproxy.link.tls import Context, client_side
from mediaproxy.relay.service import RelayService
from mediaproxy.relay.settings import RelayAddress
from mediaproxy.server.answers import RelayShown
from mediaproxy.server.places import Places
from mediaproxy.server.starting import StartError, told

log = logging.getLogger("mediaproxy")

ALONE = RelayEntry(name=LOCAL, address=LOCAL)
"The relay of a server that names none."


def entries(config: Config) -> tuple[RelayEntry, ...]:
    """The relays that are configured."""
    return config.dispatcher.relays or (ALONE,)


def local_entry(config: Config) -> RelayEntry | None:
    """The one that runs in this process, if one does."""
    return next((one for one in entries(config) if one.address == LOCAL), None)


def dispatcher_of(config: Config, relay: RelayService | None) -> Dispatcher:
    """The dispatcher over the relays that are configured; ``relay``: the one of this process."""
    settings = config.dispatcher
    own = () if relay is None else relay.calls.settings.addresses
    relays = [
        Relay(name=one.name, weight=one.weight, tier=one.tier, aliases=_aliases(one, own)) for one in entries(config)
    ]
    addresses = {one.name: Address.parse(one.address) for one in entries(config) if one.address != LOCAL}
    tls = _client_side(settings) if settings.tls.authorities else None
    links: dict[str, Link] = {}
    for entry in entries(config):
        if entry.name in addresses:
            links[entry.name] = _link(addresses[entry.name], tls)
        else:
            assert relay is not None
            links[entry.name] = relay
    directory = Directory(relays, {one.name: one.domains for one in entries(config)}, addresses)
    # Without relays elsewhere DNS could name none that may be used.
    asked = settings.srv is not Lookup.NOBODY and (tls is not None or bool(settings.relays))
    guide = Guide(directory, Discovery() if asked else None, lookup=settings.srv, strangers=asked and tls is not None)
    return Dispatcher(
        links,
        relays,
        guide=guide if asked or any(one.domains for one in settings.relays) else None,
        connect=_connect(tls) if asked and tls is not None else None,
        timing=Timing(hurry=settings.relay_timeout, health_interval=settings.health_interval),
    )


def _aliases(entry: RelayEntry, own: Iterable[RelayAddress]) -> tuple[str, ...]:
    """IP addresses that mean this relay: those that its media comes to if it is ours, else where it is asked."""
    if entry.address == LOCAL:
        return tuple(dict.fromkeys(text for one in own for text in (one.public, one.bind)))
    host = Address.parse(entry.address).host
    return (host,) if host else ()


def _client_side(settings: DispatcherSettings) -> Context:
    with told("dispatcher.tls", "look at dispatcher.tls.certificate, key and authorities"):
        return client_side(settings.tls)


def _link(address: Address, tls: Context | None) -> Link:
    return StreamLink(address, tls=tls if address.kind is Kind.TLS else None)


def _connect(tls: Context) -> Callable[[str], Link]:
    """A link to a relay that only DNS names."""
    return lambda address: _link(Address.parse(address), tls)


def shown(config: Config, dispatcher: Dispatcher) -> tuple[RelayShown, ...]:
    """The relays as an operator sees them."""
    known = {one.name: one for one in entries(config)}
    return tuple(
        RelayShown(
            name=state.name,
            address=known[state.name].address if state.name in known else state.name,
            up=state.up,
            why=state.why,
            weight=state.weight,
            tier=state.tier,
            domains=known[state.name].domains if state.name in known else (),
            named_by_dns=state.name not in known,
        )
        for state in dispatcher.states()
    )


# -- the sockets of the modules


def module_servers(config: Config, places: Places, link: Link) -> list[tuple[LineServer, SharedDoors]]:
    """What answers the modules of SIP servers, ours and those of MediaProxy 1.x and 2.x."""
    paths = (places.mediaproxy_socket.absolute(), places.dispatcher_socket.absolute())
    return [_module_server(config, path, link) for path in dict.fromkeys(paths)]


def _module_server(config: Config, path: Path, link: Link) -> tuple[LineServer, SharedDoors]:
    settings = config.dispatcher
    rights = FileRights(mode=int(settings.mode, 8), owner=settings.owner, group=settings.group)
    address, guests = Address(kind=Kind.UNIX, path=str(path)), SharedDoors(str(path), link)
    return LineServer(address, link, rights=rights, most=settings.max_connections, guests=guests), guests


async def listen_to_module(config: Config, places: Places, server: LineServer) -> bool:
    """Start it; whether that was possible. StartError if the operator chose the place: a default one is given up with a
    warning, because a server that nobody asks needs none."""
    settings, path = config.dispatcher, Path(server.address.path)
    first = path == places.mediaproxy_socket.absolute()
    name, chosen = ("mediaproxy_socket", settings.mediaproxy_socket) if first else ("socket_path", settings.socket_path)
    try:
        await server.start()
    except LookupError as error:
        wrong = "owner" if settings.owner and settings.owner in str(error) else "group"
        who = settings.owner if wrong == "owner" else settings.group
        raise StartError(f"there is no {wrong} {who}; set dispatcher.{wrong} to one that exists") from error
    except OSError as error:
        why = f"{path}: no SIP server can ask here: {error.strerror or error}"
        if chosen:
            raise StartError(f"{why}; set dispatcher.{name} to a path that this user may use") from error
        log.warning("%s; if one should, set dispatcher.%s to a path that is free", why, name)
        return False
    return True
