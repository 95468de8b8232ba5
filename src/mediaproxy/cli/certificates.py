"""[shell] Whether the certificates that a configuration names can be used, before a server is started with it.

A configuration comes in, lines for people go out.
"""

import ssl
from collections.abc import Callable, Iterator
from functools import partial

from mediaproxy.config import Config
from mediaproxy.edge.streams import server_context
from mediaproxy.link.address import Address, Kind, TlsFiles
from mediaproxy.link.tls import client_side, door_side, server_side


def unusable(config: Config) -> Iterator[str]:
    """A line for each set of files that cannot be used. One that this user may not read is left to the server's."""
    for where, make in _sets(config):
        try:
            make()
        except PermissionError:
            continue
        except ssl.SSLError:
            yield f"{where}: no certificate with its key, as PEM"
        except OSError as error:
            yield f"{where}: {_words(error)}"


def _words(error: OSError) -> str:
    file = "" if error.filename is None else f"{error.filename}: "
    return f"{file}{error.strerror or error}"


def _sets(config: Config) -> Iterator[tuple[str, Callable[[], object]]]:
    """Every set of files, by its name in the configuration, and what reads it."""
    for at, door in enumerate(config.listen):
        if door.certificate:
            files = TlsFiles(certificate=door.certificate, key=door.key, authorities=door.authorities)
            yield f"listen[{at}]", partial(door_side, files)
    listen = config.relay.listen
    if listen.address and Address.parse(listen.address).kind is Kind.TLS:
        own = TlsFiles(certificate=listen.certificate, key=listen.key, authorities=listen.authorities)
        yield "relay.listen", partial(server_side, own)
    if config.dispatcher.tls.certificate:
        yield "dispatcher.tls", partial(client_side, config.dispatcher.tls)
    if config.edge.enabled and config.edge.tls.certificate:
        yield "edge.tls", partial(server_context, config.edge.tls)
