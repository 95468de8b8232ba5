"""What an operator can set about a relay, as values. config.py fills them from TOML; nothing here reads or decides.

Every field says unit, range and default. Times are seconds; all of calls.md's timers are here, so that tests can scale
them. Ranges are enforced when a configuration is decoded (msgspec.Meta), what needs two fields in ``__post_init__``.
"""

import ipaddress
from typing import Annotated, Literal

import msgspec

from mediaproxy.endpoint import Scope, ip_address, scope

Seconds = Annotated[float, msgspec.Meta(ge=0.0, le=1_000_000.0)]
Port = Annotated[int, msgspec.Meta(ge=1024, le=65535)]
Policy = Literal["never", "probation"]
MOST_ADDRESSES = 8
"As many as the kernel program knows."
PlaneChoice = Literal["auto", "kernel", "native", "user"]


class RelayAddress(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One address of this host that media comes to."""

    bind: str
    "IPv4 or IPv6 address that ports are bound on."
    advertise: str = ""
    "Address of the same version that SDP shows; empty: the one bound. A cloud host behind 1:1 NAT sets its public one."
    name: Annotated[str, msgspec.Meta(max_length=64)] = ""
    """By which a SIP server asks for it (rtpengine's ``direction`` and ``interface``). An IPv4 and an IPv6 address may
    have the same one."""

    @property
    def version(self) -> int:
        """4 or 6."""
        return 6 if ":" in self.bind else 4

    @property
    def public(self) -> str:
        """The address that others are told."""
        return self.advertise or self.bind

    def __post_init__(self) -> None:
        for name, text in (("bind", self.bind), ("advertise", self.public)):
            if (found := ip_address(text)) is None:
                raise ValueError(f"{name}: expected an IP address such as 192.0.2.1, alone, got {text!r}")
            if str(found) != text:
                raise ValueError(f"{name}: {text!r} is not in its usual form; expected {str(found)!r}")
            if scope(text) in (Scope.UNSPECIFIED, Scope.MULTICAST, Scope.BROADCAST):
                raise ValueError(f"{name}: {text!r} is no address of one host")
        if (":" in self.bind) != (":" in self.public):
            raise ValueError("bind and advertise must be of the same IP version")


class RelaySettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One relay."""

    addresses: Annotated[tuple[RelayAddress, ...], msgspec.Meta(min_length=1, max_length=MOST_ADDRESSES)]
    "Where media comes to. The first one of an IP version serves those whose SIP server asks for none by its name."
    port_min: Port = 16384
    "First port lent, even (rounded up). The default range is below Linux' ephemeral ports (calls.md 17)."
    port_max: Port = 32766
    "Last even port lent; its RTCP port is one above."
    latch_others: Policy = "never"
    "What becomes of a source whose address neither SDP nor signalling vouch for (calls.md 2)."
    latch_unknown: Policy = "probation"
    "The same when the phone's address is unknown, so that nobody can qualify by address (calls.md 1)."
    v4_bits: Annotated[int, msgspec.Meta(ge=8, le=32)] = 32
    "Leading bits of an IPv4 address that must agree for ranks 2 and 3."
    v6_bits: Annotated[int, msgspec.Meta(ge=16, le=128)] = 64
    "The same for IPv6: privacy addresses differ between SIP and RTP within a /64."
    routable: tuple[str, ...] = ()
    "Private prefixes (CIDR) that this relay can really reach: SDP addresses inside count as public ones (calls.md 5)."
    unanswered: Seconds = 300.0
    "A call without 2xx ends after this long without media."
    silence: Seconds = 90.0
    "A talking call ends after this long without RTP, RTCP or STUN in either direction on any stream."
    hold: Seconds = 7200.0
    "The same for a call on hold."
    linger: Seconds = 32.0
    "How long CANCEL and failure keep the ports for a 2xx that crossed them (64 × T1 of RFC 3261)."
    cool: Seconds = 30.0
    "How long a port of an ended call is not lent again…"
    cool_quiet: Seconds = 5.0
    "…and how long no packet may have come to it."
    one_way: Seconds = 10.0
    "A side that is silent this long while the other one is heard gives an event."
    upgrade: Seconds = 1.0
    "How long after the first packet a source of a better rank replaces it."
    equal_rank_silence: Seconds = 0.1
    "In that time, one of the same rank replaces it after this much silence."
    rebind_silence: Seconds = 1.0
    "A new port of the same address replaces the old one after this much silence."
    rtcp_rebind_silence: Seconds = 15.0
    "The same for RTCP, which comes every 5 s at most; at once if its sender (SSRC) is known from the old port."
    probation_silence: Seconds = 2.0
    "How long nothing may have come from a ranked source before probation lets another one in."
    rebind_sequence: Annotated[int, msgspec.Meta(ge=0, le=32767)] = 500
    "RTP packets that a known SSRC may be ahead on a new port of the same address to be followed at once (calls.md 6)."
    probation_packets: Annotated[int, msgspec.Meta(ge=2, le=1000)] = 5
    "RTP packets in sequence with one SSRC that end a probation."
    unlearned_rate: Annotated[int, msgspec.Meta(ge=1, le=100_000)] = 100
    "Packets per second and stream to an address that is not the signalling one, until it has sent (calls.md 5)."
    max_calls: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] = 10_000
    "Calls at a time; a further one is refused."
    max_streams: Annotated[int, msgspec.Meta(ge=1, le=1024)] = 256
    "Streams of one call; an offer of more is refused. Each takes two pairs of ports."
    max_legs: Annotated[int, msgspec.Meta(ge=1, le=256)] = 32
    "Callee legs of one call, forks that failed not counted."
    journal: bool = True
    "Keep calls in ``calls.db`` in ``state_dir``, so that a start goes on with those of the process before it."
    restart_within: Seconds = 60.0
    """A start that comes later than this after the end of the process before it ends the calls whose media nobody has
    forwarded meanwhile. 0: SIGTERM ends all calls."""
    plane: PlaneChoice = "auto"
    """What forwards media: ``kernel`` (a program in it; needs CAP_BPF and CAP_NET_ADMIN), ``native`` (threads in C, for
    any user), ``user`` (Python, on one core), or ``auto``: the first of these that this host lets us have. ``mediaproxy
    doctor`` says what keeps it from the kernel."""
    bpffs: str = "/sys/fs/bpf"
    """Folder with a BPF filesystem, by which streams in the kernel outlive the process. Root's relay mounts one if
    there is none. Empty: they end with the process."""
    instance: str = ""
    "Name of this relay's folder in it. Empty: made of ``state_dir``."
    interfaces: tuple[str, ...] = ()
    "Interfaces that media comes in by. Empty: those that have the relay's addresses. ``lo`` is always one."
    xdp: tuple[str, ...] = ()
    """Network cards in whose drivers (native XDP) media is forwarded, too, from one of them to another or back: faster,
    needs Linux 5.18 and ``net.ipv4.conf.*.forwarding``. Not for virtual interfaces."""
    tos: Annotated[int, msgspec.Meta(ge=0, le=255)] | None = None
    "IP TOS or traffic class of what is sent, 184 = expedited forwarding; None: what the operating system does."

    def __post_init__(self) -> None:
        if len({(address.version, address.name) for address in self.addresses}) != len(self.addresses):
            raise ValueError("addresses: several of one IP version need different names; set name of each")
        for kind in ("bind", "public"):
            if len({getattr(address, kind) for address in self.addresses}) != len(self.addresses):
                raise ValueError("addresses: each must be bound, and told to phones, only once")
        if not self.even_ports:
            ports = f"port_min {self.port_min} to port_max {self.port_max}"
            raise ValueError(f"port_max: {ports} holds no even port with an odd one; expected port_min < port_max")
        for prefix in self.routable:
            try:
                ipaddress.ip_network(prefix)
            except ValueError as error:
                raise ValueError(f'routable: expected prefixes such as "10.0.0.0/8": {error}') from error

    @property
    def even_ports(self) -> range:
        """The RTP ports that can be lent."""
        return range(self.port_min + self.port_min % 2, min(self.port_max, 65534) + 1, 2)

    def address(self, version: int, name: str = "") -> RelayAddress | None:
        """The address of an IP version that has the name, else the first one of it; None: this relay has none."""
        first = None
        for address in self.addresses:
            if address.version == version:
                if not name or address.name == name:
                    return address
                first = first or address
        return first
