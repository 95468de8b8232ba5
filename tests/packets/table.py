"""The packet table: a packet, the flows that are installed, what becomes of it, and the packet that leaves.

Kernel rows go through the specification (relay/packetpath.py), BPF_PROG_TEST_RUN and real interfaces; the rows with
``plain`` are ordinary datagrams that every plane must treat alike.
"""

import struct
from dataclasses import dataclass, replace

from msgspec.structs import replace as change

from mediaproxy.endpoint import Endpoint
from mediaproxy.relay.flow import Flow
from mediaproxy.relay.packetpath import Slot, Verdict, World
from mediaproxy.relay.portmap import Control, PortMap, Rate
from mediaproxy.relay.slots import Reason, SlotConfig, State
from tests.packets.datagram import Checksum, Datagram, ones_sum, rtp

RELAY4, RELAY6 = "192.0.2.1", "2001:db8::1"
PORTS = PortMap(addresses=((RELAY4, "203.0.113.1"), (RELAY6, RELAY6)), port_min=20000, ports=64)
OUT = 7
"Index of the interface that everything leaves by."

A, B = Endpoint(RELAY4, 20000), Endpoint(RELAY4, 20002)
A6, B6 = Endpoint(RELAY6, 20000), Endpoint(RELAY6, 20002)
ALICE, BOB = Endpoint("198.51.100.1", 4000), Endpoint("198.51.100.2", 5000)
ALICE6, BOB6 = Endpoint("2001:db8:a::1", 4000), Endpoint("2001:db8:b::2", 5000)
STRANGER, STRANGER6 = Endpoint("198.51.100.66", 6666), Endpoint("2001:db8:66::6", 6666)


def leg(local: Endpoint, phone: Endpoint, peer: Endpoint, **more: object) -> Flow:
    """A learned flow."""
    return Flow(
        **{  # type: ignore[arg-type]  # fields of Flow, by name
            "local": local,
            "generation": local.port,
            "peer": peer,
            "peer_generation": peer.port,
            "source": phone,
            "target": phone,
            "allowed": (phone.address,),
            **more,
        }
    )


def call(*, a: Endpoint = A, b: Endpoint = B, alice: Endpoint = ALICE, bob: Endpoint = BOB) -> tuple[Flow, ...]:
    """Both legs of a call, learned."""
    return leg(a, alice, b), leg(b, bob, a)


CALL, CALL6 = call(), call(a=A6, b=B6, alice=ALICE6, bob=BOB6)
OUTWARD, INWARD = call(b=B6, bob=BOB6), call(a=A6, alice=ALICE6)
"Alice has IPv4 and Bob IPv6, and the other way round."
RTCP = b"\x80\xc9" + bytes(30)
VOICE = Datagram(source=ALICE, destination=A, payload=rtp())
VOICE6 = Datagram(source=ALICE6, destination=A6, payload=rtp())
RELAYED = Datagram(source=B, destination=BOB, payload=rtp(), ttl=63)
RELAYED6 = Datagram(source=B6, destination=BOB6, payload=rtp(), ttl=63)
LEARNING = (
    Flow(local=A, generation=1, peer=B, peer_generation=2, target=ALICE, allowed=("198.51.100.1/32",)),
    Flow(local=B, generation=2, peer=A, peer_generation=1, target=BOB, allowed=("198.51.100.2/32",)),
)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One row."""

    name: str
    packet: Datagram
    flows: tuple[Flow, ...] = ()
    verdict: Verdict
    reason: Reason | None = None
    out: Datagram | None = None
    plain: bool = False
    "An ordinary datagram that passes any socket: a row for every plane."
    settled: bool = False
    "Only calls.md 6 may move the learned sources."
    mtu: int = 0
    before: tuple[Datagram, ...] = ()
    "Packets that came before, whatever becomes of them."
    dead: bool = False
    "No process is alive."
    retiring: bool = False
    "The relay has given these ports up."
    others: bool = False
    "Another program has a socket at the packet's port."
    spray: int = 1
    "How often the packet comes; the last one counts."


def send(name: str, packet: Datagram, flows: tuple[Flow, ...], out: Datagram, **more: object) -> Row:
    """A row whose packet is forwarded."""
    fields = {"verdict": Verdict.SEND, "reason": Reason.FORWARDED, "plain": True} | more
    return Row(name=name, packet=packet, flows=flows, out=out, **fields)  # type: ignore[arg-type]  # fields of Row


def up(name: str, packet: Datagram, flows: tuple[Flow, ...], reason: Reason, **more: object) -> Row:
    """A row whose packet goes to user space."""
    return Row(name=name, packet=packet, flows=flows, verdict=Verdict.PASS, reason=reason, **more)  # type: ignore[arg-type]  # fields of Row


def drop(name: str, packet: Datagram, flows: tuple[Flow, ...], reason: Reason, **more: object) -> Row:
    """A row whose packet is dropped."""
    return Row(name=name, packet=packet, flows=flows, verdict=Verdict.DROP, reason=reason, **more)  # type: ignore[arg-type]  # fields of Row


def _none(datagram: Datagram) -> Datagram:
    return replace(datagram, checksum=Checksum.NONE)


def _ambiguous(datagram: Datagram, *, voice: bytes) -> Datagram:
    """With a whole checksum that happens to be what a sender leaves to its card: the sum of the pseudo header alone."""
    made = replace(datagram, payload=voice + bytes(2))
    length = 8 + len(made.payload)
    size = 40 if made.source.version == 6 else 20
    addresses = made.ip[8:40] if size == 40 else made.ip[12:20]
    pseudo = ones_sum(addresses + struct.pack("!HH", 17, length))
    checksum = made.ip[size + 6 : size + 8]
    made = replace(made, payload=voice + struct.pack("!H", ones_sum(checksum + (pseudo ^ 0xFFFF).to_bytes(2, "big"))))
    assert int.from_bytes(made.ip[size + 6 : size + 8], "big") == pseudo
    return made


_AMBIGUOUS, _AMBIGUOUS6 = _ambiguous(VOICE, voice=rtp()), _ambiguous(VOICE6, voice=rtp())

_HOP_BY_HOP = bytes([17, 0, 1, 4, 0, 0, 0, 0])
_TWO_EXTENSIONS = bytes([60, 0, 1, 4, 0, 0, 0, 0]) + bytes([17, 1, 1, 12]) + bytes(12)
_FIRST_FRAGMENT6 = bytes([17, 0, 0, 1, 0, 0, 0, 9])
_LATER_FRAGMENT6 = bytes([17, 0, 0, 8, 0, 0, 0, 9])
_OTHER_PORT = ALICE.with_port(4444)
_MOVED = replace(VOICE, source=_OTHER_PORT, payload=rtp(2))
_MESHED = (
    leg(A, ALICE, B),
    leg(B, Endpoint(RELAY4, 20004), A, target=Endpoint(RELAY4, 20004)),
    leg(Endpoint(RELAY4, 20004), B, Endpoint(RELAY4, 20006)),
    leg(Endpoint(RELAY4, 20006), BOB, Endpoint(RELAY4, 20004)),
)
"Two calls that meet on this host: Alice's callee is the other call's caller."
_RING = (
    leg(A, ALICE, B),
    leg(B, Endpoint(RELAY4, 20004), A),
    leg(Endpoint(RELAY4, 20004), B, Endpoint(RELAY4, 20006)),
    leg(Endpoint(RELAY4, 20006), Endpoint(RELAY4, 20008), Endpoint(RELAY4, 20004)),
    leg(Endpoint(RELAY4, 20008), Endpoint(RELAY4, 20006), Endpoint(RELAY4, 20010)),
    leg(Endpoint(RELAY4, 20010), Endpoint(RELAY4, 20012), Endpoint(RELAY4, 20008)),
    leg(Endpoint(RELAY4, 20012), Endpoint(RELAY4, 20010), Endpoint(RELAY4, 20014)),
    leg(Endpoint(RELAY4, 20014), BOB, Endpoint(RELAY4, 20012)),
)
"Four of them in a row: more than a packet may pass."

_RTP_ONLY = (change(CALL[0], rtp_only=True), CALL[1])
_CHECK = bytes.fromhex("000100002112a442") + bytes(12)


def _numbered(*sequences: int) -> tuple[Datagram, ...]:
    """Voice with these sequence numbers."""
    return tuple(replace(VOICE, payload=rtp(sequence)) for sequence in sequences)


def _losses(name: str, *sequences: int) -> Row:
    """What the last of these packets tells of loss; all planes that count it count it alike."""
    *before, last = _numbered(*sequences)
    return send(name, last, CALL, replace(RELAYED, payload=last.payload), before=tuple(before))


FORWARDED = (
    send("IPv4", VOICE, CALL, RELAYED),
    send("IPv4, the other way", Datagram(source=BOB, destination=B, payload=rtp()), CALL,
         Datagram(source=A, destination=ALICE, payload=rtp(), ttl=63)),
    send("IPv6", VOICE6, CALL6, RELAYED6),
    _losses("sequence numbers go round", 65534, 65535, 2),
    _losses("the last of those that are late", 10, 20, 12, 11),
    _losses("as many lost as may be", 1, 3000),
    _losses("begun anew ahead", 1, 3001),
    _losses("as late as may be", 40000, 37000),
    _losses("begun anew behind", 40000, 36999, 37001),
    send("IPv4 to IPv6", VOICE, OUTWARD, RELAYED6),
    send("IPv6 to IPv4", replace(VOICE6, flow=0xABCDE), INWARD, replace(RELAYED, identification=0, fragment=0x4000)),
    send("an empty datagram", replace(VOICE, payload=b""), CALL, replace(RELAYED, payload=b"")),
    send("one byte, an odd length", replace(VOICE, payload=b"x"), CALL, replace(RELAYED, payload=b"x")),
    send("no UDP checksum stays none", _none(VOICE), CALL, _none(RELAYED)),
    send("a wrong UDP checksum stays wrong", replace(VOICE, checksum=Checksum.WRONG), CALL,
         replace(RELAYED, checksum=Checksum.WRONG), plain=False),
    send("a checksum that could be unfinished", _AMBIGUOUS, CALL, replace(RELAYED, payload=_AMBIGUOUS.payload)),
    send("the same in IPv6", _AMBIGUOUS6, CALL6, replace(RELAYED6, payload=_AMBIGUOUS6.payload)),
    send("the same from IPv6 to IPv4", _AMBIGUOUS6, INWARD,
         replace(RELAYED, payload=_AMBIGUOUS6.payload, identification=0, fragment=0x4000)),
    send("DSCP and ECN are kept", replace(VOICE, tos=0xBA), CALL, replace(RELAYED, tos=0xBA), plain=False),
    send("the policy's DSCP, the packet's ECN", replace(VOICE, tos=0x03), (leg(A, ALICE, B), leg(B, BOB, A, tos=0xB8)),
         replace(RELAYED, tos=0xBB), plain=False),
    send("the policy's DSCP, IPv6", replace(VOICE6, tos=0x28),
         (leg(A6, ALICE6, B6), leg(B6, BOB6, A6, tos=0xB8)), replace(RELAYED6, tos=0xB8), plain=False),
    send("TTL 2 is the least", replace(VOICE, ttl=2), CALL, replace(RELAYED, ttl=1), plain=False),
    send("don't fragment is kept", replace(VOICE, fragment=0x4000), CALL, replace(RELAYED, fragment=0x4000),
         plain=False),
    send("the flow label is kept", replace(VOICE6, flow=0x12345), CALL6, replace(RELAYED6, flow=0x12345), plain=False),
    send("padding of a short frame is cut off", replace(VOICE, payload=b"x", padding=17), CALL,
         replace(RELAYED, payload=b"x"), plain=False),
    send("IPv6 to IPv4 of a padded frame", replace(VOICE6, payload=b"", padding=4), INWARD,
         replace(RELAYED, payload=b"", identification=0, fragment=0x4000), plain=False),
    send("RTCP on its own port", Datagram(source=ALICE.with_port(4001), destination=A.with_port(20001), payload=RTCP),
         call(a=A.with_port(20001), b=B.with_port(20003), alice=ALICE.with_port(4001), bob=BOB.with_port(5001)),
         Datagram(source=B.with_port(20003), destination=BOB.with_port(5001), payload=RTCP, ttl=63)),
    send("as long as the interface carries", replace(VOICE, payload=bytes(1472)), CALL,
         replace(RELAYED, payload=bytes(1472)), mtu=1500),
    send("two calls that meet here", VOICE, _MESHED,
         Datagram(source=Endpoint(RELAY4, 20006), destination=BOB, payload=rtp(), ttl=62), plain=False),
    send("the learned source of a flow that is settled", VOICE, CALL, RELAYED, settled=True),
    send("RTP, where only that is forwarded", VOICE, _RTP_ONLY, RELAYED),
)  # fmt: skip

PASSED_UP = (
    up("the first packet of a phone", VOICE, LEARNING, Reason.UP, plain=True),
    up("a stranger, so that he can be named", replace(VOICE, source=STRANGER), LEARNING, Reason.UP, plain=True),
    up("a stranger at a learned flow", replace(VOICE, source=STRANGER), CALL, Reason.UP, plain=True),
    up("the phone's other port", _MOVED, CALL, Reason.UP, plain=True),
    up("somebody at a port that cools", VOICE, (Flow(local=A, generation=5),), Reason.UP, plain=True),
    up("everybody, where everybody may matter", replace(VOICE, source=STRANGER),
       (change(LEARNING[0], allowed=()), LEARNING[1]), Reason.UP, plain=True),
    up("first fragment", replace(VOICE, fragment=0x2000, ip_length=28 + 172), CALL, Reason.UP_FRAGMENT),
    up("IPv4 options", replace(VOICE, options=b"\x94\x04\0\0"), CALL, Reason.UP_OPTIONS),
    up("IPv6 hop-by-hop options", replace(VOICE6, options=_HOP_BY_HOP, first_extension=0), CALL6, Reason.UP_OPTIONS),
    up("two IPv6 extension headers", replace(VOICE6, options=_TWO_EXTENSIONS, first_extension=0), CALL6,
       Reason.UP_OPTIONS),
    up("first fragment, IPv6", replace(VOICE6, options=_FIRST_FRAGMENT6, first_extension=44), CALL6,
       Reason.UP_FRAGMENT),
    up("longer than the way out carries", replace(VOICE, payload=bytes(1473)), CALL, Reason.UP_TOO_BIG, mtu=1500),
    up("too long only as IPv6", replace(VOICE, payload=bytes(1460)), OUTWARD, Reason.UP_TOO_BIG, mtu=1500),
    up("IPv6 needs a checksum", _none(VOICE), OUTWARD, Reason.UP_NO_CHECKSUM),
    up("a settled phone moves on in sequence", _MOVED, CALL, Reason.UP, settled=True, before=(VOICE,)),
    up("RTCP, where only RTP is forwarded", replace(VOICE, payload=RTCP), _RTP_ONLY, Reason.UP, plain=True),
    up("an ICE check there", replace(VOICE, payload=_CHECK), _RTP_ONLY, Reason.UP, plain=True),
    up("one byte there", replace(VOICE, payload=b"x"), _RTP_ONLY, Reason.UP, plain=True),
    up("RTCP there, of a settled source that speaks", replace(VOICE, payload=RTCP), _RTP_ONLY, Reason.UP, settled=True,
       before=(VOICE,), spray=30),
    up("later fragment", replace(VOICE, fragment=0x0001), CALL, Reason.FRAGMENT),
    up("later fragment, IPv6", replace(VOICE6, options=_LATER_FRAGMENT6, first_extension=44), CALL6, Reason.FRAGMENT),
)  # fmt: skip

DROPPED = (
    drop("a port that is not lent", VOICE, (), Reason.NOT_LENT, plain=True),
    drop("the last port of the range, not lent", replace(VOICE, destination=Endpoint(RELAY4, 20063)), CALL,
         Reason.NOT_LENT, plain=True),
    drop("a port that is not lent, IPv6", VOICE6, CALL, Reason.NOT_LENT, plain=True),
    up("a port that is not lent, of another program", VOICE, (), Reason.OTHERS, others=True),
    up("a port that is not lent, of another program, IPv6", VOICE6, CALL, Reason.OTHERS, others=True),
    up("a broken packet to another program", replace(VOICE, udp_length=200), (), Reason.OTHERS, others=True),
    send("a lent port, which another program has bound after that", VOICE, CALL, RELAYED, others=True, plain=False),
    Row(name="a port that has been given up", packet=VOICE, verdict=Verdict.PASS, retiring=True),
    send("a call that goes on at a port that has been given up", VOICE, CALL, RELAYED, retiring=True),
    drop("no way on: the peer is lent anew", VOICE, (CALL[0], change(CALL[1], generation=9)),
         Reason.UNDELIVERABLE, plain=True),
    drop("no way on: the peer is gone", VOICE, CALL[:1], Reason.UNDELIVERABLE, plain=True),
    drop("no way on: the target is not known", VOICE, (CALL[0], change(CALL[1], target=None, source=None)),
         Reason.UNDELIVERABLE, plain=True),
    drop("no way on: no peer", VOICE, (change(CALL[0], peer=None),), Reason.UNDELIVERABLE, plain=True),
    drop("TTL 1", replace(VOICE, ttl=1), CALL, Reason.TTL),
    drop("TTL 0", replace(VOICE, ttl=0), CALL, Reason.TTL),
    drop("hop limit 1", replace(VOICE6, ttl=1), CALL6, Reason.TTL),
    drop("TTL 2, two legs of ours", replace(VOICE, ttl=2), _MESHED, Reason.TTL),
    drop("too many legs of ours in a row", VOICE, _RING, Reason.LOOP),
    drop("IPv6 without checksum", _none(VOICE6), CALL6, Reason.NO_CHECKSUM),
    drop("the IPv4 header's checksum is wrong", replace(VOICE, bad_header=True), CALL, Reason.MALFORMED),
    drop("UDP longer than IP", replace(VOICE, udp_length=200), CALL, Reason.MALFORMED),
    drop("UDP shorter than its header", replace(VOICE, udp_length=7), CALL, Reason.MALFORMED),
    drop("IP longer than the frame", replace(VOICE, ip_length=300), CALL, Reason.MALFORMED),
    drop("nobody is alive", VOICE, LEARNING, Reason.NO_PROCESS, dead=True),
    drop("a stranger sprays", replace(VOICE, source=STRANGER), LEARNING, Reason.REFUSED, spray=40),
    drop("a phone floods", VOICE, LEARNING, Reason.FLOOD, spray=60),
    drop("a source floods with what is no RTP", replace(VOICE, payload=RTCP), _RTP_ONLY, Reason.FLOOD, spray=60),
    drop("a settled phone's other port, another stream", replace(_MOVED, payload=rtp(2, ssrc=7)), CALL, Reason.REFUSED,
         settled=True, before=(VOICE,), spray=40),
    drop("a settled phone's other port, too far ahead", replace(_MOVED, payload=rtp(502)), CALL, Reason.REFUSED,
         settled=True, before=(VOICE,), spray=40),
)  # fmt: skip

FOREIGN = (
    up("another address", replace(VOICE, destination=Endpoint("192.0.2.99", 20000)), CALL, None),  # type: ignore[arg-type]  # no reason
    up("a port below the range", replace(VOICE, destination=Endpoint(RELAY4, 19999)), CALL, None),  # type: ignore[arg-type]  # no reason
    up("a port above the range", replace(VOICE, destination=Endpoint(RELAY4, 20064)), CALL, None),  # type: ignore[arg-type]  # no reason
)

TABLE = (*FORWARDED, *PASSED_UP, *DROPPED, *FOREIGN)


def world(row: Row, heartbeat: int) -> World:
    """The flows of a row as the program knows them."""
    slots = {}
    for flow in row.flows:
        index = PORTS.index(flow.local)
        assert index is not None, "flows of the table are on PORTS"
        slots[index] = Slot(flow.generation, state_of(flow), config_of(flow, settled=row.settled, mtu=row.mtu))
    alive = 1e-9 if row.dead else 1e6
    # Buckets that hardly fill again: on a plane whose clock is the host's a slow row ends as a fast one.
    control = Control(ports=PORTS, heartbeat=heartbeat, alive=alive, ranked=Rate(8, 32), strangers=Rate(2, 8))
    control = change(control, retiring=row.retiring)
    others = frozenset({row.packet.destination.port} if row.others else ())
    return World(control, slots, others=others)


def state_of(flow: Flow) -> State:
    """What the program does with a flow."""
    if flow.source is not None:
        return State.LEARNED
    return State.DEAF if flow.peer is None and flow.target is None else State.LEARNING


def config_of(flow: Flow, *, settled: bool = False, mtu: int = 0) -> SlotConfig:
    """A flow as the program reads it."""
    own = PORTS.own(flow.target) if flow.target is not None else None
    peer = PORTS.index(flow.peer) if flow.peer is not None else None
    return SlotConfig(
        address=PORTS.address(flow.local.address) or 0,
        version=flow.local.version,
        source=flow.source,
        target=own or flow.target,
        ifindex=OUT,
        mtu=mtu,
        peer=peer or 0,
        peer_generation=flow.peer_generation if peer is not None else 0,
        tos=flow.tos,
        allowed=flow.allowed or None,
        settled=settled and flow.source is not None,
        own=own is not None,
        rtp_only=flow.rtp_only,
        clocks=((0, 8000),),
    )
