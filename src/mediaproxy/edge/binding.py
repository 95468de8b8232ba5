"""One registered contact, and the name it is registered under.

A registration comes in as text of a peer, a value comes out that can be kept, compared and shown. Nothing here reads a
clock or remembers anything.
"""

from urllib.parse import quote_from_bytes, unquote_to_bytes

import msgspec

from mediaproxy.endpoint import Endpoint, address_text, ip_address
from mediaproxy.sip.grammar import SipError
from mediaproxy.sip.header import Uri


class Binding(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A user's contact as registered (RFC 3261 §10), and all that is needed to reach it through its NAT."""

    aor: str
    "Address of record in canonical form, such as ``sip:alice@example.com`` (``canonical_aor``)."
    contact: str
    "The URI that requests are sent with: the phone's own, its host and port repaired if there is a NAT between."
    sent: str
    "The Contact value as the phone wrote it. Answers list it so, because phones look for their own."
    received: Endpoint
    "Where the REGISTER came from: requests over UDP go there."
    transport: str
    "``udp``, ``tcp`` or ``tls``."
    local: Endpoint
    "The socket of ours that it came to: requests and keep-alives leave from there, or the NAT lets them not in."
    path: tuple[str, ...] = ()
    "Route set to the contact, nearest hop first, each value as received (RFC 3327)."
    expires: float
    "When it ends, seconds since the epoch."
    q: float = 1.0
    "Preference of the user, 0.0 to 1.0 (RFC 3261 §20.10)."
    call_id: str
    cseq: int
    user_agent: str = ""
    instance: str = ""
    "``+sip.instance`` without quotes, such as ``<urn:uuid:…>`` (RFC 5626); empty: none."
    reg_id: str = ""
    "``reg-id``, with an instance only; empty: none."
    connection: str = ""
    "Identity of the TCP or TLS connection it lives with (calls.md 18); empty for UDP, and once the connection is gone."
    nat: bool = False
    "There is a NAT between (the script has set ``nat_flag``): it gets keep-alives."
    sip_ping: bool = False
    "It gets SIP requests as keep-alives (``sip_natping_flag``)."
    remove_lost: bool = False
    "It is removed if it stays silent to these (``sipping_remove_flag``)."
    asymmetric: bool = False
    "It sends SIP from another port than it listens on (``sip_asymmetrics``)."

    @property
    def key(self) -> tuple[str, str, str]:
        """What no two bindings share. A change of it makes another binding."""
        return (self.aor, self.sent, self.contact)

    @property
    def reachable(self) -> bool:
        """False for a TCP or TLS contact whose connection is gone (calls.md 18)."""
        return self.transport == "udp" or bool(self.connection)

    @property
    def place(self) -> Endpoint:
        """Where its NAT takes requests over UDP: where the REGISTER came from. A SIP-asymmetric phone does not listen
        there, but on the port that it wrote; its NAT must forward that one."""
        if not self.asymmetric or self.transport != "udp":
            return self.received
        try:
            port = Uri.parse(self.contact).port
        except SipError:
            return self.received  # somebody wrote into the file
        return self.received.with_port(5060 if port is None else port)

    def remaining(self, now: float) -> int:
        """Whole seconds until it expires, at least 0."""
        return max(0, round(self.expires - now))


# What may stand unescaped in the user part: RFC 3261 §25.1 unreserved and user-unreserved.
_PLAIN = "-_.!~*'()&=+$,;?/"


def same_uri(one: Uri, other: Uri) -> bool:
    """Whether two SIP URIs are equal (RFC 3261 §19.1.4): scheme, user, password, host, port and headers are, and so are
    the parameters that both have; user, ttl, method, maddr and transport must be in both or in none."""
    if one.text == other.text:
        return True
    if (one.scheme, one.port, _headers(one)) != (other.scheme, other.port, _headers(other)):
        return False
    if any(_decoded(a) != _decoded(b) for a, b in ((one.user, other.user), (one.password, other.password))):
        return False
    if _host(one) != _host(other):
        return False
    names = {*one.params, *other.params}
    return all(_same_param(name, one.params.get(name), other.params.get(name)) for name in names)


def _same_param(name: str, one: str | None, other: str | None) -> bool:
    if one is None or other is None:
        return name not in ("user", "ttl", "method", "maddr", "transport")
    return unquote_to_bytes(one.lower().encode("latin-1")) == unquote_to_bytes(other.lower().encode("latin-1"))


def _decoded(part: str | None) -> bytes | None:
    return None if part is None else unquote_to_bytes(part.encode("latin-1"))


def _headers(uri: Uri) -> list[str]:
    return sorted(uri.headers.lower().split("&"))


def _host(uri: Uri) -> str:
    return address_text(uri.host) or uri.host.lower().rstrip(".")


def canonical_aor(uri: Uri) -> str:
    """The address of record that a URI names: no parameters, port or password, host in lower case, escapes only where
    they must be (RFC 3261 §10.3 step 5). SipError 404 if it names no user, 416 if it is no SIP URI.

    A ``sips:`` address is the same user as its ``sip:`` one.
    """
    if uri.scheme.lower() not in ("sip", "sips"):
        raise SipError(f"To: the scheme {uri.scheme[:20]} is not sip or sips", 416)
    if not uri.user:
        raise SipError("To: the address has no user part", 404)
    user = quote_from_bytes(unquote_to_bytes(uri.user.encode("latin-1")), safe=_PLAIN)
    address = ip_address(uri.host)
    host = Endpoint(str(address), 0).host if address is not None else uri.host.lower().rstrip(".")
    return f"sip:{user}@{host}"
