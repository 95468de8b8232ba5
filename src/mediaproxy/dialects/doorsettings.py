"""What an operator can set about doors: ``[[listen]]``, one table per socket on which SIP servers ask in the words of
another protocol.

Text comes in, comparable values go out; what needs more than one field to judge is checked by ``config.doors``.
"""

import re
from enum import StrEnum
from typing import Annotated

import msgspec

from mediaproxy.endpoint import Scope, scope
from mediaproxy.link.address import host_text


class DoorProtocol(StrEnum):
    """What is spoken at a door."""

    MEDIAPROXY1 = "mediaproxy1"
    "MediaProxy 1.x: ``request``, ``lookup`` and ``delete`` lines of OpenSER's module."
    MEDIAPROXY2 = "mediaproxy2"
    "MediaProxy 2.x and later: ``update`` and ``remove`` blocks of Kamailio's and OpenSIPS' module ``mediaproxy``."
    MANAGEMENT = "management"
    "The management interface of MediaProxy 2.x's dispatcher."
    RTPPROXY = "rtpproxy"
    "Kamailio's and OpenSIPS' module ``rtpproxy``."
    NG = "ng"
    "rtpengine's NG: Kamailio's and OpenSIPS' module ``rtpengine``."
    NG_HTTP = "ng-http"
    "NG by HTTP (POST ``/ng``, ``/ng-plain``) and by WebSocket."


class DoorKind(StrEnum):
    """What carries it."""

    UDP = "udp"
    TCP = "tcp"
    TLS = "tls"
    UNIX = "unix"
    CUNIX = "cunix"
    "A UNIX socket whose connections take command after command, where those of ``unix`` take one (rtpproxy)."
    HTTP = "http"
    HTTPS = "https"

    @property
    def is_file(self) -> bool:
        """Whether the address is a path."""
        return self in (DoorKind.UNIX, DoorKind.CUNIX)


SUITABLE = {
    DoorProtocol.MEDIAPROXY1: (DoorKind.UNIX, DoorKind.TCP, DoorKind.TLS),
    DoorProtocol.MEDIAPROXY2: (DoorKind.UNIX, DoorKind.TCP, DoorKind.TLS),
    DoorProtocol.MANAGEMENT: (DoorKind.TLS, DoorKind.TCP, DoorKind.UNIX),
    DoorProtocol.RTPPROXY: (DoorKind.UDP, DoorKind.UNIX, DoorKind.CUNIX, DoorKind.TCP),
    DoorProtocol.NG: (DoorKind.UDP, DoorKind.TCP, DoorKind.TLS, DoorKind.UNIX),
    DoorProtocol.NG_HTTP: (DoorKind.HTTP, DoorKind.HTTPS),
}
"What a protocol can be carried by; the first one is the usual one."
PORTS = {
    DoorProtocol.MEDIAPROXY1: 25060,
    DoorProtocol.MEDIAPROXY2: 25060,
    DoorProtocol.MANAGEMENT: 25061,
    DoorProtocol.RTPPROXY: 22222,
    DoorProtocol.NG: 2223,
    DoorProtocol.NG_HTTP: 2225,
}
"The port if none is written: where the modules of SIP servers look for it; 2225 is our own choice."
ENCRYPTED = (DoorKind.TLS, DoorKind.HTTPS)

_HOST_PORT = re.compile(r"//(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9_.-]+))(?::([0-9]{1,5}))?/?")


class DoorAddress(msgspec.Struct, frozen=True, kw_only=True):
    """Where a door is."""

    kind: DoorKind
    path: str = ""
    "Of a UNIX socket."
    host: str = ""
    "IP address, IPv6 without brackets, or a name. ``0.0.0.0`` and ``::``: all addresses of that version."
    port: int = 0
    "0 to 65535; 0: any that is free."

    @classmethod
    def parse(cls, text: str, protocol: DoorProtocol) -> "DoorAddress":
        """Read an address; ``protocol`` gives the port if none is written. ValueError says what was expected."""
        scheme, colon, rest = text.partition(":")
        found = _HOST_PORT.fullmatch(rest)
        port = int(found[3] or PORTS[protocol]) if found else 0
        if scheme not in SUITABLE[protocol] or not colon or port > 65535:
            raise ValueError(f"expected {example(protocol)}, got {text[:80]!r}")
        kind = DoorKind(scheme)
        if kind.is_file and rest and "\0" not in rest:
            return cls(kind=kind, path=rest)
        if kind.is_file or found is None:
            raise ValueError(f"expected {example(protocol)}, got {text[:80]!r}")
        return cls(kind=kind, host=host_text(found[1] or found[2]), port=port)

    @property
    def local(self) -> bool:
        """Whether nobody outside this host can get there. Names but ``localhost`` may lead anywhere."""
        return self.kind.is_file or self.host == "localhost" or scope(self.host) is Scope.LOOPBACK

    def __str__(self) -> str:
        if self.kind.is_file:
            return f"{self.kind}:{self.path}"
        return f"{self.kind}://{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"


def example(protocol: DoorProtocol) -> str:
    """Addresses that suit a protocol, for a sentence that begins with "expected"."""
    shown = [f"{kind}:/PATH" if kind.is_file else f"{kind}://ADDRESS:{PORTS[protocol]}" for kind in SUITABLE[protocol]]
    return f"{', '.join(shown[:-1])} or {shown[-1]}"


class DoorSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A socket on which SIP servers ask in the words of another protocol (docs/doors.md)."""

    protocol: DoorProtocol
    """``mediaproxy1``, ``mediaproxy2``, ``management`` (of MediaProxy 2.x), ``rtpproxy``, ``ng`` (rtpengine) or
    ``ng-http``."""
    address: str
    """``udp://ADDRESS:PORT``, ``tcp://…``, ``tls://…``, ``unix:/PATH``, for ``rtpproxy`` also ``cunix:/PATH``, whose
    connections stay, and for ``ng-http`` ``http://…`` or ``https://…``; IPv6 in brackets. Without a port, the one that
    the protocol has by custom."""
    allow: tuple[str, ...] = ()
    """Who may ask: addresses or prefixes. Empty: this host; an address that others can reach needs a list. Not for
    UNIX sockets, whose file rights decide."""
    max_connections: Annotated[int, msgspec.Meta(ge=1, le=65_536)] = 256
    "Connections at a time; further ones are closed at once."
    max_request: Annotated[int, msgspec.Meta(ge=1024, le=2_097_152)] = 65_536
    "Bytes of one request; a longer one closes its connection, as a datagram it is dropped."
    mode: Annotated[str, msgspec.Meta(pattern="^0?[0-7]{3}$")] = "0660"
    "Permissions of a UNIX socket in octal."
    owner: str = ""
    "User that a UNIX socket is given to; empty: the server's user."
    group: str = ""
    "Group that a UNIX socket is given to, such as ``kamailio``; empty: that of the server's user."
    certificate: str = ""
    "Certificate chain of a ``tls`` or ``https`` door, as PEM."
    key: str = ""
    "Its private key; empty: in the same file."
    authorities: str = ""
    """Authorities of clients' certificates, as PEM. If set, who has no certificate of theirs is turned away."""

    @property
    def where(self) -> DoorAddress:
        """The address as a value. ValueError if it is none."""
        return DoorAddress.parse(self.address, self.protocol)
