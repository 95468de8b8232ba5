"""What an operator can set about the built-in SIP edge, as values. config.py fills them from TOML; nothing here reads.

Every field says unit, range and default. Ranges are enforced when the configuration is decoded (msgspec.Meta); what
needs more than one field to judge is checked by ``edge.domains.refusals`` before the edge starts.
"""

from enum import StrEnum
from typing import Annotated

import msgspec

from mediaproxy.agents import RTP_ASYMMETRICS, SIP_ASYMMETRICS
from mediaproxy.endpoint import Endpoint
from mediaproxy.sdp import IcePolicy
from mediaproxy.sip.digest import Account, Algorithm
from mediaproxy.sip.transaction import Timers

Seconds = Annotated[float, msgspec.Meta(ge=0.001, le=86400.0)]
SecondsOrOff = Annotated[float, msgspec.Meta(ge=0.0, le=86400.0)]
Count = Annotated[int, msgspec.Meta(ge=1, le=10_000_000)]
Flag = Annotated[int, msgspec.Meta(ge=0, le=31)]
"Number of a flag that a routing script sets with ``setflag``."


class Transport(StrEnum):
    """How SIP travels (RFC 3261 §18)."""

    UDP = "udp"
    TCP = "tcp"
    TLS = "tls"

    @property
    def reliable(self) -> bool:
        """Whether the transport itself delivers: no retransmissions then (RFC 3261 §17)."""
        return self is not Transport.UDP

    @property
    def default_port(self) -> int:
        """5061 for TLS, else 5060 (RFC 3261 §19.1.2)."""
        return 5061 if self is Transport.TLS else 5060


class Listener(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One socket on which SIP is received, and from which requests over that transport are sent."""

    transport: Transport
    bind: Endpoint
    """Address and port of this host. ``0.0.0.0`` and ``::`` mean: every address of that family which the host has at
    start, one socket each, so that an answer always leaves from the address that was asked."""
    advertise: Endpoint | None = None
    "What others are told in Via and Record-Route; None: as bound. A host behind 1:1 NAT (cloud) sets its public one."

    @property
    def public(self) -> Endpoint:
        """The endpoint that others are told."""
        return self.advertise or self.bind


class RouteRule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where requests go that no registered phone takes: the first rule that matches wins."""

    to: str
    "SIP URI of the next hop, such as ``sip:gateway.example.net;transport=tcp``. The Request-URI is left as it is."
    domain: str = "*"
    "Host of the Request-URI; ``*`` any, ``*.example.net`` any below it. Case does not matter."
    prefix: str = ""
    "What the user part must start with; empty: anything."


class Limits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a peer may use up. Beyond it: the newest comer is refused, whoever is inside stays."""

    message: Annotated[int, msgspec.Meta(ge=1300, le=1_048_576)] = 131_072
    "Bytes of one message over TCP or TLS: a body of 64 KiB, and its headers. UDP has its own limit, 65 507."
    transactions: Count = 50_000
    "Server transactions at a time; a further request is answered 503 without state."
    dialogs: Count = 20_000
    """Answered calls that can be hung up when their media ends by itself, twice as many as the relay has by default.
    Beyond it the call is forgotten that was without SIP messages for longest; nothing else happens to it."""
    registrations: Count = 200_000
    "Contacts of all users together; a REGISTER that adds one beyond it is answered 503."
    contacts: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 10
    "Contacts of one user; a REGISTER that would exceed it is refused."
    connections: Count = 8_192
    "TCP and TLS connections at a time."
    connections_per_address: Count = 256
    "Of them from one IP address, which may be a company's NAT."
    idle: Seconds = 900.0
    "Seconds after which a connection that sent nothing, not even a ping, is closed."
    unproven: Seconds = 32.0
    "The same for a connection over which no complete message has come yet."
    incomplete: Seconds = 10.0
    "Seconds that a message may take from its first byte to its last."
    handshake: Seconds = 10.0
    "Seconds that a TLS handshake may take."
    connect: Seconds = 5.0
    "Seconds that connecting to a next hop may take before the next address is tried."
    send_buffer: Annotated[int, msgspec.Meta(ge=65_536, le=67_108_864)] = 1_048_576
    "Bytes that may wait for a slow TCP reader; beyond it the connection is closed."
    branches: Annotated[int, msgspec.Meta(ge=1, le=60)] = 32
    "Contacts that one request is forked to at most."


class Expiry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How long registrations live (RFC 3261 §10.3 steps 6 and 7), in seconds."""

    minimum: Annotated[int, msgspec.Meta(ge=0, le=86_400)] = 60
    "A shorter wish, but 0, is answered 423 with Min-Expires."
    default: Annotated[int, msgspec.Meta(ge=1, le=604_800)] = 3_600
    "If the phone names none."
    maximum: Annotated[int, msgspec.Meta(ge=1, le=604_800)] = 7_200
    "A longer wish is cut to this."


class Tls(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Certificates, as paths of PEM files."""

    certificate: str = ""
    "Certificate chain that listeners of transport tls show; without it there can be no such listener."
    key: str = ""
    "Its private key; empty: in the same file."
    authorities: str = ""
    "CAs that next hops are checked against; empty: those of the system."
    verify: bool = True
    "Whether a next hop that we connect to must prove its name (RFC 5922)."


class EdgeSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole edge."""

    enabled: bool = True
    """Serve SIP. False: no SIP socket is opened and nobody registers here; for a server beside Kamailio, which asks for
    relays over ``dispatcher.mediaproxy_socket``."""
    listeners: tuple[Listener, ...] = ()
    "Empty: UDP and TCP, port 5060, on every loopback and private address of the host (calls.md 19)."
    domains: tuple[str, ...] = ()
    """The hosts whose users are ours (calls.md 20). The addresses of the listeners always are. Empty: whatever host the
    phones register with, too; that is only possible on private addresses or with ``open``."""
    accounts: tuple[Account, ...] = ()
    "Who may register and call. Empty: everybody who can reach us, which must be a private network unless ``open``."
    realm: str = ""
    "Realm of the digest challenge; empty: the first domain, or ``mediaproxy``."
    algorithms: Annotated[tuple[Algorithm, ...], msgspec.Meta(min_length=1)] = (Algorithm.MD5,)
    """Digest algorithms that are offered, strongest first (RFC 8760). More than MD5 only if every phone can cope:
    baresip 1.0 for one gives up when it sees a challenge that it does not know."""
    open: bool = False
    "Serve public addresses without accounts. Everybody can register and call then."
    trusted_proxies: tuple[str, ...] = ()
    "Addresses or prefixes of SIP servers in front of us: they need no password; their Via ``received`` is believed."
    routes: tuple[RouteRule, ...] = ()
    natping_interval: SecondsOrOff = 60.0
    "Seconds between two keep-alives to one NATed contact; 0: none. Most NATs forget UDP after 30 to 180 s."
    nat_tests: Annotated[int, msgspec.Meta(ge=0, le=7)] = 7
    "Bits of client_nat_test for requests: 1 private Contact, 2 source differs from Via, 4 private Via."
    nat_flag: Flag = 6
    "The flag by which a routing script says that a registered contact is behind NAT: it gets keep-alives."
    sip_natping_flag: Flag = 2
    "The flag by which it says that the contact is pinged by SIP requests, instead of by four zero bytes."
    sipping_remove_flag: Flag = 3
    "The flag by which it says that the contact, pinged so, is removed if it stays silent."
    sipping_method: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9.!%*_+`'~-]+$")] = "OPTIONS"
    "The method of these requests."
    sipping_from: str = ""
    "The SIP URI in their From; empty: ``sip:ping@`` and the first domain, without domains the server's address."
    sipping_max_lost: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 3
    "So many of them in a row without any sign of life make a contact silent."
    script: str = ""
    """File of the routing script (docs/script.md): a Python file that says what happens to each SIP message. It is read
    again whenever it changes. Empty: the default one, which ``mediaproxy script`` prints."""
    question_timeout: Seconds = 2.0
    "Seconds that the media arm may take for an answer; then an INVITE is refused with 503."
    media: bool = True
    "Relay media. False: signalling help only, calls between NATs are silent; for the demo's contrast."
    ice: IcePolicy = IcePolicy.KEEP
    """What happens to the ICE lines of a relayed SDP: ``keep`` passes them through, and phones notice that the relay is
    none of the candidates (RFC 8839 §4.2.5); ``remove`` is for phones that do not. ``low-priority`` and
    ``high-priority`` make the relay one of the candidates: the last choice, or the first."""
    sip_asymmetrics: str = SIP_ASYMMETRICS
    """File of the user agents that listen for SIP on another port than they send from: a POSIX extended regular
    expression a line. It is read again whenever it changes. Empty: none."""
    rtp_asymmetrics: str = RTP_ASYMMETRICS
    "The same for RTP (calls.md 8)."
    timers: Timers = Timers()
    limits: Limits = Limits()
    expiry: Expiry = Expiry()
    tls: Tls = Tls()
    refusals_logged: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 5
    "Log lines per source and minute about messages that were refused; the rest is counted and summed up."
    user_agent: str = "mediaproxy"
    "Server header of answers that the edge gives itself; empty: none."
