"""[shell] ``mediaproxy relay``: a relay in a process of its own, which dispatchers ask over a socket.

A configuration comes in; a relay, its records, its control socket and a listener for questions go out.
"""

import logging
import socket
from contextlib import AsyncExitStack
from pathlib import Path

from mediaproxy import __version__
from mediaproxy.config import Config
from mediaproxy.link import Address, FileRights, Kind, LineServer, Link
from mediaproxy.link.address import TlsFiles
from mediaproxy.link.tls import Context, server_side
from mediaproxy.server.places import Places
from mediaproxy.server.starting import StartError, told
from mediaproxy.server.station import Station

log = logging.getLogger("mediaproxy")


class RelayServer(Station):
    """Everything that ``mediaproxy relay`` runs. ``async with RelayServer(config, places) as server``."""

    _listener: LineServer

    async def _start(self, stack: AsyncExitStack) -> None:
        name = self.config.relay.name or socket.gethostname()
        if self.config.listen:
            log.warning("[[listen]] is of no use here: a relay has no doors, they belong to mediaproxy run")
        await self._start_relay(stack, self._relay_on_host(), name, "set relay.addresses to addresses of this host")
        assert self.relay is not None
        self._listener = listener_of(self.config, self.places, self.relay)
        await _listen(self.config, self._listener)
        stack.push_async_callback(self._listener.stop)

    @property
    def address(self) -> Address:
        """Where dispatchers ask, with the port that it got."""
        return self._listener.address

    @property
    def _link(self) -> Link:
        assert self.relay is not None
        return self.relay

    def _sockets(self) -> tuple[str, ...]:
        return (str(self.address),)

    def introduction(self) -> list[str]:
        """A few lines for who started it."""
        return [
            f"mediaproxy {__version__}: relay {self.config.relay.name or socket.gethostname()}",
            self.media_line(),
            f"dispatchers ask on {self.address}",
            f"records go to {self.places.records.absolute()}",
        ]


def listener_of(config: Config, places: Places, link: Link) -> LineServer:
    """What answers dispatchers. StartError if its certificates cannot be used."""
    settings = config.relay.listen
    default = Address(kind=Kind.UNIX, path=str(places.relay_socket.absolute()))
    address = Address.parse(settings.address) if settings.address else default
    tls: Context | None = None
    if address.kind is Kind.TLS:
        files = TlsFiles(certificate=settings.certificate, key=settings.key, authorities=settings.authorities)
        with told("relay.listen", "look at relay.listen.certificate, key and authorities"):
            tls = server_side(files)
    rights = FileRights(mode=int(settings.mode, 8), owner=settings.owner, group=settings.group)
    return LineServer(address, link, rights=rights, tls=tls, most=settings.max_connections)


async def _listen(config: Config, server: LineServer) -> None:
    settings = config.relay.listen
    what = Path(server.address.path) if server.address.kind is Kind.UNIX else server.address
    try:
        with told(f"{what}: cannot listen there", "set relay.listen.address to one that is free and of this host"):
            await server.start()
    except LookupError as error:
        wrong = "owner" if settings.owner and settings.owner in str(error) else "group"
        name = settings.owner if wrong == "owner" else settings.group
        raise StartError(f"there is no {wrong} {name}; set relay.listen.{wrong} to one that exists") from error
