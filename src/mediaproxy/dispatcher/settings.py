"""What an operator can set about the dispatcher, as values. config fills them from TOML; nothing here reads or decides.

Every field says unit, range and default. What needs more than one field to judge is checked by ``config.relays``.
"""

from enum import StrEnum
from typing import Annotated

import msgspec

from mediaproxy.link.address import TlsFiles

Mode = Annotated[str, msgspec.Meta(pattern="^0?[0-7]{3}$")]

LOCAL = "local"
"Address of a relay that runs in the dispatcher's own process."


class Lookup(StrEnum):
    """Whose relays are looked for in DNS."""

    NOBODY = "nobody"
    LOCAL = "local"
    "Domains that are ours, or of which the SIP server does not say whether they are."
    EVERYBODY = "everybody"
    "Foreign domains, too."


class RelayEntry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One relay that new calls may go to."""

    name: str
    "Unique. Logs show it."
    address: str
    """``unix:/PATH``, ``tls://HOST:PORT`` (port 25060 if none is written), ``tcp://127.0.0.1:PORT`` within this host,
    or ``local``: a relay in this process."""
    weight: Annotated[float, msgspec.Meta(ge=0.0, le=1_000_000.0)] = 1.0
    "Share of new calls compared with the others of its tier; 0: no new calls, those it has stay."
    tier: Annotated[int, msgspec.Meta(ge=0, le=65_535)] = 0
    "Relays of a higher tier get new calls only if none of a lower one can take them."
    domains: tuple[str, ...] = ()
    """SIP domains that it serves; ``*.example.com``: any below that one. Empty: all domains that have no relays of
    their own."""


class DispatcherSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who may ask for relays, and which relays there are."""

    mediaproxy_socket: str = ""
    """UNIX socket on which the module in a SIP server asks. Empty: ``proxydispatcher.sock`` in ``runtime_dir`` if that
    is set or we are not root, else ``/var/run/proxydispatcher.sock``."""
    socket_path: str = ""
    """A second one, where the module of MediaProxy 2.x asks by default. Empty: ``dispatcher.sock`` in ``runtime_dir``.
    On both our own module is answered, and those of MediaProxy 1.x and 2.x."""
    end_dialogs: str = ""
    """Where the SIP server is told to end the dialog of a call that has ended by itself, if its module ``mediaproxy``
    has engaged for it: ``unix:/PATH`` or ``udp://HOST:PORT`` (Kamailio's jsonrpcs, OpenSIPS' mi_datagram),
    ``fifo:/PATH``, ``http://HOST:PORT/PATH``. Empty: it is not told."""
    mode: Mode = "0660"
    "Permissions of these sockets in octal."
    owner: str = ""
    "User that the sockets are given to; empty: the server's user."
    group: str = ""
    "Group that the sockets are given to, such as ``kamailio``; empty: that of the server's user."
    max_connections: Annotated[int, msgspec.Meta(ge=1, le=65_536)] = 256
    "Connections to a socket at a time. Each process of a SIP server has one."
    relays: tuple[RelayEntry, ...] = ()
    "The relays. None: one in this process, and no other."
    srv: Lookup = Lookup.LOCAL
    """Whose relays are looked for in DNS, as SRV records of ``_mediaproxy._tcp.DOMAIN``: ``nobody``, ``local`` (domains
    that are not known to be foreign) or ``everybody``. An answer counts if it names relays that stand here, or ours to
    be: reachable over TLS, with a certificate of ``tls.authorities``."""
    relay_timeout: Annotated[float, msgspec.Meta(ge=0.01, le=10.0)] = 0.2
    "Seconds that a relay may take for an answer before the next one is asked. The last one may take 2."
    health_interval: Annotated[float, msgspec.Meta(ge=0.1, le=3600.0)] = 2.0
    "Seconds between two looks whether a relay of another process answers."
    tls: TlsFiles = TlsFiles()
    "What the dispatcher shows to relays, and whose certificates it accepts."


class ListenSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where ``mediaproxy relay`` takes the questions of dispatchers."""

    address: str = ""
    """``unix:/PATH``, ``tls://ADDRESS:PORT``, or ``tcp://127.0.0.1:PORT`` within this host. Empty: ``relay.sock`` in
    ``runtime_dir``."""
    mode: Mode = "0660"
    "Permissions of a UNIX socket in octal."
    owner: str = ""
    "User that a UNIX socket is given to; empty: the relay's user."
    group: str = ""
    "Group that a UNIX socket is given to; empty: that of the relay's user."
    max_connections: Annotated[int, msgspec.Meta(ge=1, le=65_536)] = 256
    "Dispatchers at a time."
    certificate: str = ""
    "Certificate chain that dispatchers are shown, as PEM. It must name the host by which they connect."
    key: str = ""
    "Its private key; empty: in the same file."
    authorities: str = ""
    "The one authority whose certificates let a dispatcher in. Use it for nothing else."
