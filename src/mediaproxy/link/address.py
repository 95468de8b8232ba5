"""How a control link is reached, as operators write it: ``unix:/run/mediaproxy/relay.sock``, ``tls://HOST:PORT`` or
``tcp://HOST:PORT``.

Text comes in, a comparable value goes out. Plain TCP never leaves the host: whoever can speak on a link can have calls
relayed and ended, so what crosses a network must be TLS, with certificates on both sides.
"""

import re
from enum import StrEnum

import msgspec

from mediaproxy.endpoint import Scope, address_text, scope

PORT = 25060
"TCP port if none is written, as with the original."
EXAMPLE = "unix:/PATH, tls://HOST:PORT or tcp://127.0.0.1:PORT"

_HOST_PORT = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9_.-]+))(?::([0-9]{1,5}))?")


class Kind(StrEnum):
    """What carries the lines."""

    UNIX = "unix"
    TLS = "tls"
    TCP = "tcp"


class Address(msgspec.Struct, frozen=True, kw_only=True):
    """Where a link listens, or is connected to."""

    kind: Kind
    path: str = ""
    "Of a UNIX socket."
    host: str = ""
    "IP address, IPv6 without brackets, or a host name in small letters without a final dot."
    port: int = 0
    "0 to 65535; 0 to listen on means: any that is free."

    @classmethod
    def parse(cls, text: str) -> "Address":
        """Read an address. ValueError says what was expected."""
        scheme, colon, rest = text.partition(":")
        if colon and scheme == Kind.UNIX and rest and "\0" not in rest:
            return cls(kind=Kind.UNIX, path=rest)
        found = _HOST_PORT.fullmatch(rest.removeprefix("//")) if rest.startswith("//") else None
        if scheme not in (Kind.TLS, Kind.TCP) or found is None or int(found[3] or 0) > 65535:
            raise ValueError(f"expected {EXAMPLE}, got {text[:80]!r}")
        kind, port = Kind(scheme), PORT if found[3] is None else int(found[3])
        address = cls(kind=kind, host=host_text(found[1] or found[2]), port=port)
        if kind is Kind.TCP and not address.loopback:
            advice = f"use tls://{found[1] or found[2]}:{port} with certificates"
            raise ValueError(f"plain TCP only works within one host, on 127.0.0.1 or ::1; {advice}, got {text[:80]!r}")
        return address

    @property
    def loopback(self) -> bool:
        """Whether it certainly stays within this host. Names but ``localhost`` (RFC 6761 §6.3) may lead anywhere."""
        return self.kind is Kind.UNIX or self.host == "localhost" or scope(self.host) is Scope.LOOPBACK

    def __str__(self) -> str:
        if self.kind is Kind.UNIX:
            return f"unix:{self.path}"
        return f"{self.kind}://{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"


class TlsFiles(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Certificates of control links, as paths of PEM files."""

    certificate: str = ""
    "Certificate chain that we show to the other end."
    key: str = ""
    "Its private key; empty: in the same file."
    authorities: str = ""
    "The one authority whose certificates may ask and answer here. Use it for nothing else: whoever has one is let in."


def host_text(host: str) -> str:
    """A host as addresses are compared by: an IP address in its usual form, a name in small letters without the dot
    of its end."""
    return address_text(host) or host.lower().rstrip(".")
