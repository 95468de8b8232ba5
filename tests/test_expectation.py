"""relay/expectation.py: who may speak (calls.md 1-3) and where to send before anybody has (calls.md 5)."""

import random

import pytest

from mediaproxy.control import KnownBy, PhoneAddress, Stream
from mediaproxy.endpoint import Endpoint
from mediaproxy.relay.expectation import Expectation, Ground, Voucher
from mediaproxy.relay.ports import PortPool
from mediaproxy.relay.rtp import Kind
from mediaproxy.relay.settings import RelayAddress
from tests.relaybench import at, settings, stream

PUBLIC, PRIVATE, SIGNALLING = "198.51.100.7:4000", "10.0.0.1:4000", "203.0.113.1"


def ground(**changed: object) -> tuple[Ground, PortPool]:
    chosen = settings(**changed)
    pool = PortPool(chosen, random.Random(1))
    return Ground(chosen, pool), pool


def expect(
    sdp: Stream | str,
    signalling: str | None = SIGNALLING,
    changed: dict[str, object] | None = None,
    *,
    other: Stream | None = None,
    rtcp: bool = False,
) -> Expectation:
    """``changed``: settings."""
    own = stream(sdp) if isinstance(sdp, str) else sdp
    return ground(**changed or {})[0].expect(Voucher(signalling=signalling), own, other, rtcp=rtcp)


RANKS = [
    # SDP, signalling, source, rank
    pytest.param(PUBLIC, SIGNALLING, PUBLIC, 1, id="the SDP's ip:port"),
    pytest.param(PRIVATE, SIGNALLING, PRIVATE, 1, id="the SDP's ip:port, private: a phone in our own network"),
    pytest.param(PUBLIC, SIGNALLING, "198.51.100.7:9", 2, id="the SDP's public ip, any port"),
    pytest.param(PRIVATE, SIGNALLING, "10.0.0.1:9", 0, id="the SDP's private ip, another port: anybody's"),
    pytest.param(PRIVATE, SIGNALLING, "203.0.113.1:9", 3, id="the signalling ip, any port"),
    pytest.param(PUBLIC, SIGNALLING, "203.0.113.1:4000", 3, id="the signalling ip with the SDP's port is still rank 3"),
    pytest.param("203.0.113.1:4000", SIGNALLING, "203.0.113.1:9", 2, id="SDP and signalling agree"),
    pytest.param(PUBLIC, SIGNALLING, "198.51.100.8:4000", 0, id="a neighbour of the SDP's ip"),
    pytest.param(PRIVATE, SIGNALLING, "203.0.113.2:4000", 0, id="a neighbour of signalling"),
    pytest.param(PRIVATE, SIGNALLING, "198.18.0.9:4000", 0, id="a stranger"),
    pytest.param(PUBLIC, None, PUBLIC, 1, id="phone's address unknown, SDP public: its ip:port"),
    pytest.param(PUBLIC, None, "198.51.100.7:9", 2, id="phone's address unknown, SDP public: its ip"),
    pytest.param(PUBLIC, None, "203.0.113.1:9", 0, id="phone's address unknown, SDP public: others"),
    pytest.param(PRIVATE, None, PRIVATE, 0, id="phone's address unknown, SDP private: nothing qualifies by address"),
    pytest.param("0.0.0.0:4000", SIGNALLING, "0.0.0.0:4000", 0, id="hold by 0.0.0.0 names nobody"),
    pytest.param("0.0.0.0:4000", SIGNALLING, "203.0.113.1:9", 3, id="hold by 0.0.0.0: signalling still does"),
    pytest.param("100.64.0.9:4000", SIGNALLING, "100.64.0.9:9", 0, id="carrier-grade NAT space is not public"),
    pytest.param("[2001:db8:1::5]:4000", "2001:db8:1::6", "[2001:db8:1::5]:4000", 1, id="IPv6: the SDP's ip:port"),
    pytest.param("[2001:db8:1::5]:4000", "2001:db8:2::6", "[2001:db8:1::beef]:9", 2, id="IPv6: privacy address"),
    pytest.param("[2001:db8:1::5]:4000", "2001:db8:2::6", "[2001:db8:2::beef]:9", 3, id="IPv6: /64 of the signalling"),
    pytest.param("[2001:db8:1::5]:4000", "2001:db8:2::6", "[2001:db8:1:1::5]:4000", 0, id="IPv6: another /64"),
    pytest.param("[fd00::5]:4000", "2001:db8:2::6", "[fd00::6]:4000", 0, id="IPv6: ULA is not public"),
    pytest.param("192.0.2.1:9000", SIGNALLING, "192.0.2.1:9", 0, id="our own address is nobody's rank 2"),
    pytest.param("127.0.0.1:9000", SIGNALLING, "127.0.0.1:9000", 0, id="nor is loopback anybody's rank 1"),
]


@pytest.mark.parametrize(("sdp", "signalling", "source", "rank"), RANKS)
def test_rank(sdp: str, signalling: str | None, source: str, rank: int) -> None:
    assert expect(sdp, signalling).rank(at(source)) == rank


@pytest.mark.parametrize(
    ("changed", "source", "rank"),
    [
        ({"v4_bits": 24}, "203.0.113.77:9", 3),
        ({"v4_bits": 24}, "203.0.114.77:9", 0),
        ({"v4_bits": 24}, "198.51.100.99:9", 2),
        ({"v6_bits": 128}, "[2001:db8:1::beef]:9", 0),
        ({"routable": ("10.0.0.0/8",)}, "203.0.113.1:9", 3),
    ],
    ids=str,
)
def test_configured_prefixes(changed: dict[str, object], source: str, rank: int) -> None:
    sdp = "[2001:db8:1::5]:4000" if source.startswith("[") else PUBLIC
    assert expect(sdp, SIGNALLING, changed).rank(at(source)) == rank


def test_routable_private_addresses_count_as_public() -> None:
    inside = expect(PRIVATE, None, {"routable": ("10.0.0.0/8",)})
    assert not inside.unknown and inside.rank(at("10.0.0.1:9")) == 2


def test_rtcp_has_its_own_place_and_the_same_ranks() -> None:
    sdp = stream(PUBLIC, rtcp=at("198.51.100.9:5001"))
    expectation = expect(sdp, rtcp=True)
    sources = ["198.51.100.9:5001", "198.51.100.9:1", "198.51.100.7:1", "203.0.113.1:1", "198.51.100.8:1"]
    assert [expectation.rank(at(source)) for source in sources] == [1, 2, 2, 3, 0]
    assert expect(PUBLIC, rtcp=True).sdp == at("198.51.100.7:4001"), "RTP + 1 without a=rtcp"


TARGETS = [
    # SDP, signalling, target
    pytest.param(PUBLIC, SIGNALLING, PUBLIC, id="the SDP's address if public"),
    pytest.param(PRIVATE, SIGNALLING, "203.0.113.1:4000", id="else the signalling ip with the SDP's port"),
    pytest.param("100.64.0.9:4000", SIGNALLING, "203.0.113.1:4000", id="carrier-grade NAT space is not public"),
    pytest.param("127.0.0.1:4000", SIGNALLING, "203.0.113.1:4000", id="never to loopback"),
    pytest.param("127.0.0.1:4000", "127.0.0.1", None, id="never to loopback, whoever says so"),
    pytest.param("224.0.1.1:4000", SIGNALLING, "203.0.113.1:4000", id="never to multicast"),
    pytest.param("255.255.255.255:4000", SIGNALLING, "203.0.113.1:4000", id="never to broadcast"),
    pytest.param("169.254.1.1:4000", SIGNALLING, "203.0.113.1:4000", id="never to link-local"),
    pytest.param("192.0.2.1:4000", SIGNALLING, "203.0.113.1:4000", id="never to our own address"),
    pytest.param(PRIVATE, None, None, id="phone's address unknown, SDP private: nowhere"),
    pytest.param(PUBLIC, None, PUBLIC, id="phone's address unknown, SDP public"),
    pytest.param(PRIVATE, "10.0.0.1", PRIVATE, id="private, but SIP comes from there: reachable"),
    pytest.param(PRIVATE, "10.0.0.2", "10.0.0.2:4000", id="SIP comes from a private address: that is reachable"),
    pytest.param("[2001:db8:1::5]:4000", "2001:db8:2::6", "[2001:db8:1::5]:4000", id="IPv6 public"),
    pytest.param("[fd00::5]:4000", "2001:db8:2::6", "[2001:db8:2::6]:4000", id="IPv6 ULA"),
    pytest.param("[::1]:4000", "2001:db8:2::6", "[2001:db8:2::6]:4000", id="IPv6 loopback"),
    pytest.param("[ff02::1]:4000", "2001:db8:2::6", "[2001:db8:2::6]:4000", id="IPv6 multicast"),
]


@pytest.mark.parametrize(("sdp", "signalling", "target"), TARGETS)
def test_target_before_learning(sdp: str, signalling: str | None, target: str | None) -> None:
    expectation = expect(sdp, signalling)
    assert expectation.target == (at(target) if target else None)


def test_target_of_rtcp_is_a_rtcp() -> None:
    assert expect(stream(PUBLIC, rtcp=at("198.51.100.7:9999")), rtcp=True).target == at("198.51.100.7:9999")
    assert expect(stream(PRIVATE, rtcp=at("10.0.0.1:9999")), rtcp=True).target == at("203.0.113.1:9999")


@pytest.mark.parametrize(
    ("sdp", "routable", "target"),
    [
        (PRIVATE, ("10.0.0.0/8",), PRIVATE),
        (PRIVATE, ("10.1.0.0/16",), "203.0.113.1:4000"),
        ("[fd00::5]:4000", ("fd00::/8",), "[fd00::5]:4000"),
    ],
)
def test_private_targets_only_inside_routable(sdp: str, routable: tuple[str, ...], target: str) -> None:
    assert expect(sdp, SIGNALLING, {"routable": routable}).target == at(target)


def test_a_relay_on_loopback_sends_to_phones_there() -> None:
    """The demo without root: the relay itself is bound to loopback."""
    here: dict[str, object] = {"addresses": (RelayAddress(bind="127.0.0.1"),)}
    assert expect("127.0.0.2:4000", "127.0.0.2", here).target == at("127.0.0.2:4000")
    assert expect("127.0.0.9:4000", "127.0.0.2", here).target == at("127.0.0.2:4000")
    assert expect("127.0.0.1:4000", "127.0.0.1", here).target == at("127.0.0.1:4000"), "a phone on the same host"
    assert expect("127.0.0.9:4000", "203.0.113.1", here).target == at("203.0.113.1:4000")


@pytest.mark.parametrize("signalling", [SIGNALLING, "198.51.100.7", "2001:db8:2::6", None])
@pytest.mark.parametrize(
    "sdp",
    [
        stream(PUBLIC),
        stream(PRIVATE),
        stream("0.0.0.0:4000"),
        stream("127.0.0.1:4000"),
        stream("[2001:db8:1::5]:4000"),
        stream("10.9.9.9:20000", rtcp=at("10.9.9.9:4001")),
        stream("10.9.9.9:4000", rtcp=at("10.9.9.9:20001")),
        stream(PUBLIC, rtcp=at("198.51.100.7:9")),
        stream(PUBLIC, rtcp=at("198.51.100.8:9")),
        stream(PUBLIC, rtcp=at("198.51.100.7:0")),
    ],
)
def test_what_rtp_says_of_rtcp_is_what_it_would_say_itself(sdp: Stream, signalling: str | None) -> None:
    here, pool = ground(addresses=(RelayAddress(bind="10.9.9.9"),), port_min=20000, port_max=20001)
    assert pool.lend(RelayAddress(bind="10.9.9.9")) is not None
    voucher = Voucher(signalling=signalling, contact="sip:alice@10.0.0.1")
    beside = here.beside(here.expect(voucher, sdp, None, rtcp=False), sdp)
    alone = (at("198.51.100.8:9"), at("198.51.100.7:0"))
    follows = sdp.endpoint is not None and sdp.endpoint.address != "10.9.9.9" and sdp.rtcp not in alone
    assert beside == (here.expect(voucher, sdp, None, rtcp=True) if follows else None)


@pytest.mark.parametrize("address", ["192.0.2.1", "10.9.9.9"], ids=["advertised", "bound"])
def test_never_to_a_lent_port_of_our_own(address: str) -> None:
    """Not even if SIP comes from this host."""
    here, pool = ground(addresses=(RelayAddress(bind="10.9.9.9", advertise="192.0.2.1"),))
    pair = pool.lend(RelayAddress(bind="10.9.9.9", advertise="192.0.2.1"))
    assert pair is not None
    voucher = Voucher(signalling=address)
    expectation = here.expect(voucher, stream(f"{address}:{pair.rtp.port}"), None, rtcp=False)
    assert expectation.target is None
    free = here.expect(voucher, stream(f"{address}:9000"), None, rtcp=False)
    assert free.target == Endpoint(address, 9000)


LATCHES = [
    # stream, kind, payload type, latches
    pytest.param(stream(PUBLIC), Kind.RTP, 0, True, id="a payload type of the SDP"),
    pytest.param(stream(PUBLIC), Kind.RTP, 18, False, id="another one"),
    pytest.param(stream(PUBLIC, types=()), Kind.RTP, 18, True, id="no types told: any"),
    pytest.param(stream(PUBLIC), Kind.RTCP, None, False, id="RTCP on the RTP port"),
    pytest.param(stream(PUBLIC, rtcp_mux=True), Kind.RTCP, None, True, id="RTCP on the RTP port, mux"),
    pytest.param(stream(PUBLIC, ice=True), Kind.STUN, None, False, id="STUN never"),
    pytest.param(stream(PUBLIC, dtls=True), Kind.DTLS, None, False, id="DTLS never"),
    pytest.param(stream(PUBLIC), Kind.OTHER, None, False, id="garbage"),
    pytest.param(stream(PUBLIC, kind="image", transport="udptl"), Kind.OTHER, None, True, id="udptl: any datagram"),
    pytest.param(stream(PUBLIC, kind="image", transport="udptl"), Kind.RTP, 77, True, id="udptl: even RTP"),
]


@pytest.mark.parametrize(("sdp", "kind", "payload_type", "latches"), LATCHES)
def test_what_may_latch(sdp: Stream, kind: Kind, payload_type: int | None, latches: bool) -> None:
    assert expect(sdp).latches(kind, payload_type) is latches


def test_payload_types_of_either_sdp() -> None:
    """A party sends what the other one asked for; most answers repeat the numbers, some do not."""
    both = expect(stream(PUBLIC, types=(96,)), other=stream(PRIVATE, types=(0,)))
    assert both.latches(Kind.RTP, 96) and both.latches(Kind.RTP, 0) and not both.latches(Kind.RTP, 8)
    assert expect(stream(PUBLIC, types=(96,)), other=stream(PRIVATE, types=())).latches(Kind.RTP, 8)


def test_mux_needs_both() -> None:
    offer = stream(PUBLIC, rtcp_mux=True)
    assert expect(offer, other=stream(PRIVATE, rtcp_mux=True)).mux
    assert not expect(offer, other=stream(PRIVATE)).mux


@pytest.mark.parametrize(
    ("sdp", "kind", "passes"),
    [
        (stream(PUBLIC, ice=True), Kind.STUN, True),
        (stream(PUBLIC), Kind.STUN, False),
        (stream(PUBLIC, dtls=True), Kind.DTLS, True),
        (stream(PUBLIC, ice=True), Kind.DTLS, False),
    ],
)
def test_what_passes_without_being_media(sdp: Stream, kind: Kind, passes: bool) -> None:
    assert expect(sdp).passes(kind) is passes


def test_allowed_prefixes_are_those_of_the_ranks() -> None:
    """calls.md 13."""
    assert expect(PUBLIC).allowed(4) == ("198.51.100.7/32", "203.0.113.1/32")
    assert expect(PRIVATE).allowed(4) == ("10.0.0.1/32", "203.0.113.1/32")
    assert expect("[2001:db8:1::5]:4000", "2001:db8:2::6").allowed(6) == ("2001:db8:1::/64", "2001:db8:2::/64")
    assert expect(PUBLIC, SIGNALLING, {"latch_others": "probation"}).allowed(4) == (), "everybody may matter"
    assert expect(PRIVATE, None).allowed(4) == (), "phone's address unknown: probation"


def test_a_message_that_does_not_say_changes_nothing() -> None:
    first = Voucher().updated(PhoneAddress(endpoint=at("203.0.113.1:5060")), "sip:a@10.0.0.1", True)
    assert first.updated(PhoneAddress(known_by=KnownBy.UNKNOWN), "", True) == first
    moved = first.updated(PhoneAddress(endpoint=at("203.0.113.2:5060")), "", True)
    assert moved.signalling == "203.0.113.2" and moved.contact == first.contact
