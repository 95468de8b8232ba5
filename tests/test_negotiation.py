"""relay/negotiation.py and relay/memory.py: which ports an SDP gets over the life of a call (calls.md, Names)."""

import pytest

from mediaproxy.control import Direction, KnownBy, PhoneAddress, Stream
from mediaproxy.endpoint import Endpoint
from mediaproxy.events import CallStarted, CallState, Side, StreamChanged
from mediaproxy.relay.settings import RelayAddress
from tests.relaybench import ALICE, BOB, TWO, V4, V6, Bench, Phone, at, ports_of, rtp, stream

# -- ports over the life of a call


def test_the_same_question_has_the_same_answer() -> None:
    bench = Bench()
    first = bench.invite()
    assert bench.invite() == first == bench.invite(branch="another")
    answered = bench.answer(status=183)
    assert bench.answer(status=200).ports == answered.ports, "the same SDP with a later status"
    assert bench.report.state is CallState.TALKING, "but the leg advances"
    assert bench.answer(status=183).ports == answered.ports
    assert len(bench.flows) == 4 and len(bench.seen(CallStarted)) == 1


@pytest.mark.parametrize(
    "again",
    [
        pytest.param((stream("10.0.0.1:4000"),), id="unchanged"),
        pytest.param((stream("10.0.0.1:5000"),), id="another port"),
        pytest.param((stream("10.0.0.2:4000"),), id="another address"),
        pytest.param((stream("10.0.0.1:4000", types=(8,)),), id="another codec"),
        pytest.param((stream("0.0.0.0:4000"),), id="hold"),
        pytest.param((stream("10.0.0.1:4000", kind="image", transport="udptl"),), id="fax"),
    ],
)
def test_ports_stay_when_the_offer_changes(again: tuple[Stream, ...]) -> None:
    bench = Bench()
    first = ports_of(bench.invite())
    back = ports_of(bench.answer())
    assert ports_of(bench.media(bench.alice, bench.bob, again, cseq=2, sdp_hash="again")) == first
    assert ports_of(bench.answer(again, cseq=2, sdp_hash="again")) == back
    assert ports_of(bench.media(bench.bob, bench.alice, again, cseq=1, sdp_hash="turned round")) == back


def test_streams_come_and_go() -> None:
    bench = Bench()
    audio = ports_of(bench.invite())
    bench.answer()
    both = ports_of(bench.media(bench.alice, bench.bob, TWO, cseq=2))
    assert both[0] == audio[0] and both[1] not in (None, both[0]) and len(bench.flows) == 8
    facing_alice = ports_of(bench.answer(TWO, cseq=2))
    assert len(set(both + facing_alice)) == 4
    dropped = (TWO[0], stream(None, kind="video"))
    assert ports_of(bench.media(bench.alice, bench.bob, dropped, cseq=3)) == [audio[0], None]
    assert ports_of(bench.answer(dropped, cseq=3)) == [facing_alice[0], None]
    video = at(f"{V4}:{both[1]}")
    assert bench.packet(BOB, video, rtp(payload_type=96)) == [], "disabled"
    assert ports_of(bench.media(bench.alice, bench.bob, TWO, cseq=4)) == both, "the slot kept its index and ports"
    assert ports_of(bench.answer(TWO, cseq=4)) == facing_alice
    assert len(bench.packet(BOB, video, rtp(payload_type=96))) == 1


def test_a_shorter_sdp_disables_the_rest() -> None:
    bench = Bench()
    both = ports_of(bench.invite(TWO))
    bench.answer(TWO)
    bench.media(bench.alice, bench.bob, TWO[:1], cseq=2)
    assert bench.packet(BOB, at(f"{V4}:{both[1]}"), rtp(payload_type=96)) == []


def test_a_stream_rejected_in_the_answer() -> None:
    bench = Bench()
    offered = ports_of(bench.invite(TWO))
    assert ports_of(bench.answer((TWO[0], stream(None, kind="video"))))[1] is None
    assert bench.packet(BOB, at(f"{V4}:{offered[1]}"), rtp(payload_type=96)) == []


@pytest.mark.parametrize("address", ["advertised", "bound"])
def test_a_spiral_is_left_alone(address: str) -> None:
    """calls.md, Names: our own address and a lent port in the SDP."""
    bench = Bench(addresses=(RelayAddress(bind="10.9.9.9", advertise=V4),))
    (port,) = bench.invite().ports
    assert port is not None
    ours = f"{V4 if address == 'advertised' else '10.9.9.9'}:{port.rtp.port}"
    flows, events = dict(bench.flows), list(bench.events)
    assert bench.invite((stream(ours),)).ports == (None,), "the same call comes round again"
    assert bench.flows == flows and bench.events == events and len(bench.calls) == 1
    assert bench.invite((stream(f"{V4}:9000"),), call_id="third").ports != (None,), "not a lent port: no spiral"
    assert bench.invite((stream(ours),), call_id="another").ports != (None,), "a server between two calls"


def test_a_port_that_cools_is_left_alone() -> None:
    """Whose it was is not known any more."""
    bench = Bench()
    _, facing_bob = bench.talk()
    bench.bye()
    assert len(bench.calls) == 0 and bench.calls.ports_cooling
    assert bench.invite((stream(str(facing_bob)),), call_id="another").ports == (None,)


def test_an_answer_to_what_was_left_alone_is_left_alone() -> None:
    bench = Bench()
    (own,) = ports_of(bench.invite())
    mixed = (stream("10.0.0.1:4000"), stream(f"{V4}:{own}", kind="video"), stream(None))
    assert [bool(port) for port in bench.invite(mixed, cseq=2).ports] == [True, False, False]
    answer = tuple(stream(f"198.51.100.2:{port}") for port in (5000, 5002, 5004))
    assert [bool(port) for port in bench.answer(answer).ports] == [True, False, False]


def test_an_sdp_without_streams_for_us_makes_no_call() -> None:
    bench = Bench()
    assert bench.invite((stream(None),)).ports == (None,) and len(bench.calls) == 0
    assert bench.invite(()).ports == () and bench.events == []


@pytest.mark.parametrize("pairs", [0, 1, 2, 3])
def test_no_ports_left(pairs: int) -> None:
    """Two streams need four pairs; what was taken of them goes back."""
    bench = Bench(port_min=20000, port_max=20000 + 2 * pairs)
    free = bench.calls.ports_free
    reply = bench.invite(TWO)
    assert (reply.status, reply.error, reply.ports) == (
        (480, "no ports left", ()) if pairs < 3 else (0, "", reply.ports)
    )
    if pairs < 3:
        assert bench.calls.ports_free == free and bench.flows == {} and bench.events == [] and len(bench.calls) == 0


def test_no_ports_left_for_an_added_stream_changes_nothing() -> None:
    bench = Bench(port_min=20000, port_max=20004)
    bench.invite()
    bench.answer()
    flows, before = dict(bench.flows), bench.report
    assert bench.media(bench.alice, bench.bob, TWO, cseq=2).status == 480
    assert bench.flows == flows and bench.report == before
    assert ports_of(bench.media(bench.alice, bench.bob, TWO[:1], cseq=3)), "the call goes on"


@pytest.mark.parametrize(
    ("changed", "says", "status"),
    [({"max_calls": 1}, "max_calls", 480), ({"max_streams": 1}, "streams", 488)],
    ids=["calls", "streams"],
)
def test_limits(changed: dict[str, object], says: str, status: int) -> None:
    bench = Bench(**changed)
    bench.invite(TWO[:1], call_id="other")
    reply = bench.invite(TWO)
    assert says in reply.error and reply.status == status and len(bench.calls) == 1


def test_hundreds_of_streams() -> None:
    """As many as max_streams, each with ports of its own; one more is refused and costs nothing."""
    bench = Bench(port_min=20000, port_max=20998, max_streams=250)
    streams = tuple(stream(f"10.0.0.1:{4000 + 2 * n}") for n in range(251))
    assert bench.invite(streams).status == 488 and bench.flows == {} and len(bench.calls) == 0
    offered, answered = ports_of(bench.invite(streams[:250], cseq=2)), ports_of(bench.answer(streams[:250], cseq=2))
    assert len({*offered, *answered}) == 500
    assert bench.media(bench.alice, bench.bob, streams, cseq=3).status == 488
    assert len(bench.packet(BOB, at(f"{V4}:{offered[249]}"))) == 1, "the call goes on"
    assert bench.bye().error == "" and bench.calls.ports_cooling == 500


def test_old_offers_change_nothing_and_get_the_same_ports_of() -> None:
    bench = Bench()
    first = ports_of(bench.invite(cseq=5))
    bench.answer(cseq=5)
    late = bench.media(bench.alice, bench.bob, (stream("198.51.100.99:6000"),), cseq=4)
    assert ports_of(late) == first
    assert bench.side(Side.CALLER).sdp == at("10.0.0.1:4000") and bench.seen(StreamChanged) == []
    assert ports_of(bench.invite((stream("198.51.100.99:6000"),), cseq=4)) == first
    assert bench.side(Side.CALLER).sdp == at("10.0.0.1:4000")


def test_late_offer() -> None:
    """INVITE without SDP: the offer is in the 200, the answer in the ACK, all with one CSeq."""
    bench = Bench()
    facing_alice = bench.answer().ports[0]
    assert bench.report.caller.tag == "alice" and bench.report.callee.tag == "bob"
    facing_bob = bench.media(bench.alice, bench.bob).ports[0]
    assert facing_alice and facing_bob and bench.report.state is CallState.TALKING
    assert bench.packet(BOB, facing_bob.rtp)[0].local == facing_alice.rtp
    assert bench.packet(ALICE, facing_alice.rtp)[0].target == at(BOB)


def test_an_offer_of_either_party_with_the_same_cseq() -> None:
    """CSeq numbers count per party (RFC 3261 §12.2.1.1)."""
    bench = Bench()
    bench.invite(cseq=10)
    back = ports_of(bench.answer(cseq=10))
    assert ports_of(bench.media(bench.bob, bench.alice, (stream("198.51.100.2:7000"),), cseq=1)) == back
    assert bench.side(Side.CALLEE).sdp == at("198.51.100.2:7000"), "1 is not older than 10: it is Bob's first"


def test_the_same_sdp_under_the_other_partys_cseq_is_news() -> None:
    """Alice holds in her INVITE 2, resumes in 3, and holds again by her answer to Bob's INVITE 2."""
    bench = Bench()
    bench.talk()
    hold = (stream("10.0.0.1:4000", direction=Direction.SENDONLY),)
    bench.media(bench.alice, bench.bob, hold, cseq=2)
    bench.media(bench.alice, bench.bob, cseq=3)
    assert bench.state() is CallState.TALKING
    bench.media(bench.bob, bench.alice, cseq=2)
    bench.media(bench.alice, bench.bob, hold, cseq=2, status=200)
    assert bench.state() is CallState.HELD


def test_a_late_183_of_an_earlier_attempt_is_not_heard() -> None:
    bench = Bench()
    (port,) = bench.invite().ports
    bench.invite(cseq=2, sdp_hash="with credentials")
    assert ports_of(bench.answer(status=183))
    assert port is not None and bench.packet(BOB, port.rtp) == []
    bench.answer(status=183, cseq=2)
    assert len(bench.packet(BOB, port.rtp)) == 1


def test_a_further_leg_can_add_streams() -> None:
    bench = Bench()
    bench.talk()
    carol = Phone("carol", "198.51.100.3", "10.0.0.3:4000")
    assert ports_of(bench.answer(by=carol))[0]
    reply = bench.media(bench.alice, carol, TWO, cseq=2)
    assert all(ports_of(reply)) and all(ports_of(bench.answer(TWO, by=carol, cseq=2)))
    assert len(bench.flows) == 12


def test_an_unknown_dialog_of_a_known_call_gets_ports_of_its_own() -> None:
    """Its 2xx has passed by somewhere else; that it sends requests says that it exists."""
    bench = Bench()
    _, facing_bob = bench.talk()
    carol = Phone("carol", "198.51.100.3", "10.0.0.3:4000")
    (port,) = bench.media(carol, bench.alice, cseq=1).ports
    assert port is not None and len(bench.flows) == 8
    assert bench.packet(BOB, facing_bob) and bench.bye(bench.alice, carol).error == "" and bench.ended == []


@pytest.mark.parametrize("method", ["INVITE", "UPDATE"])
def test_a_call_that_began_before_the_relay_did(method: str) -> None:
    """After a restart, a refresh tells of it: in a dialog, even a 2xx to UPDATE says that the call stands."""
    bench = Bench()
    bench.media(bench.alice, bench.bob, cseq=7, method=method)
    assert bench.state() is CallState.RINGING
    bench.answer(cseq=7, method=method)
    assert bench.state() is CallState.TALKING


def test_a_spiral_beside_another_stream_keeps_what_was_known_of_it() -> None:
    bench = Bench()
    both = ports_of(bench.invite(TWO))
    bench.answer(TWO)
    mixed = (TWO[0], stream(f"{V4}:{both[0]}", kind="video", types=(96,)))
    assert [bool(port) for port in bench.answer(mixed, cseq=2).ports] == [True, False]
    assert bench.side(Side.CALLEE, 1).sdp == TWO[1].endpoint


def test_two_calls_of_one_call_id() -> None:
    """The key is (Call-ID, caller's tag)."""
    bench = Bench()
    carol = Phone("carol", "203.0.113.7", "10.0.0.7:4000")
    bench.invite()
    bench.media(carol, Phone("", None, ""))
    assert len(bench.calls) == 2 and len(bench.flows) == 8


def test_endpoints_that_are_none() -> None:
    """A control line can hold anything; nothing of it may raise."""
    bench = Bench()
    places = [Endpoint("relay.example", 4000), Endpoint("10.0.0.1", 99999), Endpoint("10.0.0.1", -1)]
    bad = tuple(Stream(kind="audio", transport="RTP/AVP", endpoint=place) for place in places)
    assert bench.invite(bad).ports == (None, None, None)
    odd = PhoneAddress(endpoint=Endpoint("phone.example", 5060), known_by=KnownBy.SOURCE)
    assert bench.invite(phone=odd).error == ""
    assert "address is unknown" in bench.side(Side.CALLER).warnings[0]


# -- two families

BOTH = (RelayAddress(bind=V4), RelayAddress(bind=V6))


@pytest.mark.parametrize(
    ("offer", "wanted", "addresses", "towards_bob", "towards_alice"),
    [
        ("10.0.0.1:4000", 0, BOTH, V4, V4),
        ("10.0.0.1:4000", 6, BOTH, V6, V4),
        ("[2001:db8::1]:4000", 0, BOTH, V6, V6),
        ("[2001:db8::1]:4000", 4, BOTH, V4, V6),
    ],
    ids=["4 to 4", "4 to 6", "6 to 6", "6 to 4"],
)
def test_ip_versions(
    offer: str, wanted: int, addresses: tuple[RelayAddress, ...], towards_bob: str, towards_alice: str
) -> None:
    bench = Bench(addresses=addresses)
    facing_bob = bench.invite((stream(offer),), receiver_version=wanted).ports[0]
    answer = "[2001:db8:2::2]:4000" if towards_bob == V6 else "198.51.100.2:4000"
    bench.bob.signalling = at(answer).address
    facing_alice = bench.answer((stream(answer),)).ports[0]
    assert facing_bob and facing_alice
    assert (facing_bob.rtp.address, facing_alice.rtp.address) == (towards_bob, towards_alice)
    source = str(at(answer).with_port(9))
    assert bench.packet(source, facing_bob.rtp)[0].target.version == at(offer).version


@pytest.mark.parametrize("wanted", [0, 4, 6])
def test_an_offer_of_a_version_that_the_relay_has_not(wanted: int) -> None:
    bench = Bench()
    reply = bench.invite((stream("[2001:db8::1]:4000"),), receiver_version=wanted)
    assert reply.status == 480 and "IPv6" in reply.error and bench.flows == {} and len(bench.calls) == 0


def test_a_wish_for_a_version_that_the_relay_has_not() -> None:
    """A phone that registers by IPv6 may well have IPv4, too: better than nothing."""
    (port,) = Bench().invite(receiver_version=6).ports
    assert port is not None and port.rtp.address == V4


def test_the_receivers_family_is_what_is_known_of_it() -> None:
    """A late offer: the caller's version is not told by the callee's SDP, but by its ACK only; ask for it."""
    bench = Bench(addresses=BOTH)
    bench.invite((stream("[2001:db8::1]:4000"),), receiver_version=4)
    bench.answer((stream("198.51.100.2:4000"),))
    more = (stream("198.51.100.2:4000"), stream("198.51.100.2:4002", kind="video", types=(96,)))
    reply = bench.media(bench.bob, bench.alice, more, cseq=7)
    assert [port.rtp.version for port in reply.ports if port] == [6, 6]
