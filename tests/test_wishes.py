"""What a SIP server may ask for beyond the rules of a call (control.Wishes)."""

import pytest

from mediaproxy.control import MediaReply, Wishes
from mediaproxy.endpoint import Endpoint
from mediaproxy.events import Side
from mediaproxy.relay.inquiries import totals
from mediaproxy.relay.settings import RelayAddress
from tests.relaybench import ALICE, BOB, RTCP, V4, V6, Bench, Phone, rtp, stream
from tests.restarts import Shelf, keep_all, kept, restart

INSIDE, OUTSIDE, OUTSIDE6 = "10.10.10.1", "198.51.100.200", "2001:db8:ffff::2"
ADDRESSES = (
    RelayAddress(bind=V4),
    RelayAddress(bind=INSIDE, name="internal"),
    RelayAddress(bind="192.0.2.77", advertise="198.51.100.200", name="external"),
    RelayAddress(bind=V6),
    RelayAddress(bind=OUTSIDE6, name="external"),
)
NOBODY = Phone("", None, "")


def several(**changed: object) -> Bench:
    return Bench(addresses=ADDRESSES, **changed)


def address_of(reply: MediaReply, index: int = 0) -> str:
    port = reply.ports[index]
    assert port is not None, reply.error
    return port.rtp.address


def carries(bench: Bench) -> bool:
    """Whether both hear each other."""
    stream = bench.report.streams[0]
    there = bench.packet(ALICE, stream.caller.local, rtp(1))
    back = bench.packet(BOB, stream.callee.local, rtp(1))
    assert all(send.local == stream.callee.local for send in there)
    return bool(there and back)


# -- addresses of the relay

FACES = {
    "none": (Wishes(), Wishes(), V4, V4),
    "both": (Wishes(facing="internal", towards="external"), Wishes(), "198.51.100.200", INSIDE),
    "only the receiver's": (Wishes(towards="internal"), Wishes(), INSIDE, V4),
    "only the sender's": (Wishes(facing="internal"), Wishes(), V4, INSIDE),
    "said by the answer, too late": (Wishes(), Wishes(facing="internal", towards="external"), V4, V4),
    "a name that no address has": (Wishes(facing="dmz", towards="dmz"), Wishes(), V4, V4),
}


@pytest.mark.parametrize(("offer", "answer", "told_bob", "told_alice"), FACES.values(), ids=FACES)
def test_the_relays_addresses(offer: Wishes, answer: Wishes, told_bob: str, told_alice: str) -> None:
    bench = several()
    assert address_of(bench.invite(wishes=offer)) == told_bob
    assert address_of(bench.answer(wishes=answer)) == told_alice
    assert carries(bench)


def test_the_name_of_an_address_of_another_version_is_no_name() -> None:
    bench = several()
    assert address_of(bench.invite(wishes=Wishes(towards="external"), receiver_version=6)) == OUTSIDE6
    bench = several()
    assert address_of(bench.invite(wishes=Wishes(towards="internal"), receiver_version=6)) == V6


def test_a_name_that_no_address_has_is_shown() -> None:
    bench = several()
    bench.invite(wishes=Wishes(facing="internal", towards="dmz"))
    bench.answer()
    assert not any("dmz" in warning for warning in bench.side(Side.CALLER).warnings)
    assert any("'dmz'" in warning for warning in bench.side(Side.CALLEE).warnings)


def test_further_streams_come_to_the_same_addresses() -> None:
    bench = several()
    bench.invite(wishes=Wishes(facing="internal", towards="external"))
    bench.answer()
    two = (stream("10.0.0.2:4000"), stream("10.0.0.2:4002", kind="video", types=(96,)))
    offer = bench.media(bench.bob, bench.alice, two, cseq=7)
    assert [address_of(offer, index) for index in (0, 1)] == [INSIDE, INSIDE]
    answer = bench.media(bench.alice, bench.bob, two, cseq=7, status=200)
    assert [address_of(answer, index) for index in (0, 1)] == ["198.51.100.200"] * 2


def test_a_further_leg_comes_to_the_same_addresses() -> None:
    bench = several()
    bench.invite(wishes=Wishes(facing="internal", towards="external"))
    bench.answer()
    desk = Phone("desk", "198.51.100.11", "10.0.0.1:4000", branch="z9hG4bK-desk")
    assert address_of(bench.answer(by=desk)) == INSIDE
    assert {one.callee.local.address for one in bench.report.streams} == {"192.0.2.77"}


def test_an_offer_that_names_other_addresses_gets_ports_of_them() -> None:
    """On either side. What names none, the same ones, or some that there are not, keeps its ports."""
    bench = several()
    first = bench.invite(wishes=Wishes(towards="external"))
    bench.answer()
    for cseq, same in enumerate((Wishes(towards="external"), Wishes(towards="nowhere", facing="nowhere"), None), 2):
        assert bench.media(bench.alice, bench.bob, cseq=cseq, wishes=same).ports == first.ports
    moved = bench.media(bench.alice, bench.bob, cseq=5, wishes=Wishes(towards="internal"))
    assert address_of(moved) == INSIDE
    bench.media(bench.bob, bench.alice, cseq=5, status=200)
    bench.run(60)
    facing = bench.media(bench.alice, bench.bob, cseq=6, wishes=Wishes(towards="internal", facing="external"))
    assert address_of(facing) == INSIDE
    assert facing.ports != moved.ports
    assert address_of(bench.media(bench.bob, bench.alice, cseq=6, status=200)) == OUTSIDE
    assert bench.media(bench.alice, bench.bob, cseq=7, wishes=Wishes(facing="external")).ports == facing.ports


def test_what_came_to_former_ports_counts_on() -> None:
    """Also before the answer, and for what was lost there."""
    bench = several()
    facing_alice, facing_bob = bench.talk()
    for number in (1, 2, 5):
        assert bench.packet(ALICE, facing_alice, rtp(number))
    assert bench.packet(BOB, facing_bob, rtp(1))
    bench.packet(BOB, facing_bob.with_port(facing_bob.port + 1), RTCP)
    size = len(rtp(1))

    def counted() -> list[tuple[int, ...]]:
        bench.calls.note(bench.slots.values())
        (one,) = bench.report.streams
        sides = (one.caller, one.callee)
        return [(side.packets, side.bytes, side.lost, side.sent, side.rtcp_packets) for side in sides]

    before = [(3, 3 * size, 2, 1, 0), (1, size, 0, 3, 1)]
    assert counted() == before
    bench.media(bench.alice, bench.bob, cseq=2, wishes=Wishes(towards="internal"))
    assert counted() == before
    bench.media(bench.bob, bench.alice, cseq=2, status=200)
    assert counted() == before
    assert bench.report.streams[0].callee.local.address == INSIDE
    assert bench.packet(ALICE, bench.side(Side.CALLER).local, rtp(6))
    assert counted() == [(4, 4 * size, 2, 1, 0), (1, size, 0, 4, 1)]
    assert totals(bench.calls).packets == 6


def test_an_offer_for_another_ip_version() -> None:
    """It is what the server says, if it says more than a version, as doors do that always say one."""
    bench = several()
    first = bench.invite(receiver_version=4)
    bench.answer()
    assert bench.media(bench.alice, bench.bob, cseq=2, receiver_version=6).ports == first.ports
    assert address_of(bench.media(bench.alice, bench.bob, cseq=3, receiver_version=6, wishes=Wishes())) == V6
    assert address_of(bench.media(bench.alice, bench.bob, cseq=4)) == V6


def test_who_has_answered_with_another_ip_version_gets_ports_of_it() -> None:
    bench = several()
    first = bench.invite()
    bench.answer(streams=(stream("[2001:db8:1::1]:4000"),))
    assert bench.media(bench.alice, bench.bob, cseq=2, receiver_version=4).ports == first.ports
    again = bench.media(bench.alice, bench.bob, cseq=3)
    assert address_of(again) == V6
    assert bench.media(bench.alice, bench.bob, cseq=4).ports == again.ports


def test_each_address_has_ports_of_its_own() -> None:
    bench = several(port_min=20000, port_max=20000)
    assert bench.calls.ports_free == len(ADDRESSES)
    first = bench.invite(wishes=Wishes(facing="internal", towards="external"))
    assert first.error == ""
    bench.call_id = "other"
    assert bench.invite(wishes=Wishes(facing="internal")).status == 480
    bench.call_id = "third"
    assert bench.invite(receiver_version=6).error == ""
    assert bench.calls.ports_free == len(ADDRESSES) - 4


def test_a_restart_knows_them_all() -> None:
    bench, shelf = several(), Shelf()
    bench.calls.keep()
    bench.invite(wishes=Wishes(facing="internal", towards="external", tos=184))
    bench.answer()
    carries(bench)
    before, flows = bench.report, dict(bench.flows)
    keep_all(bench, shelf)
    restart(bench, shelf.saved(bench.now), kept(bench))
    assert (bench.report, bench.flows) == (before, flows)
    video = (stream("10.0.0.1:4000"), stream("10.0.0.1:4002", kind="video", types=(96,)))
    assert address_of(bench.media(bench.alice, bench.bob, video, cseq=2), 1) == "198.51.100.200"
    assert {flow.tos for flow in bench.flows.values()} == {184}


# -- learning


def talk(bench: Bench, wishes: Wishes, sdp: str = "203.0.113.1:4000") -> tuple[Endpoint, Endpoint]:
    """Offer and answer; the ports that face Alice and Bob."""
    facing_bob = bench.invite((stream(sdp),), wishes=wishes).ports[0]
    facing_alice = bench.answer((stream("198.51.100.2:32"),)).ports[0]
    assert facing_alice is not None and facing_bob is not None
    return facing_alice.rtp, facing_bob.rtp


def test_without_learning_media_goes_where_sdp_says() -> None:
    bench = Bench()
    facing_alice, facing_bob = talk(bench, Wishes(learn=False))
    assert bench.packet(ALICE, facing_alice), "she is heard, for her address is known"
    (send,) = bench.packet(BOB, facing_bob)
    assert str(send.target) == "203.0.113.1:4000"
    assert not bench.packet("198.18.0.9:1", facing_alice), "strangers are not"


def test_learning_comes_back_with_the_next_wishes() -> None:
    bench = Bench()
    facing_alice, facing_bob = talk(bench, Wishes(learn=False))
    bench.packet(ALICE, facing_alice)
    bench.media(bench.alice, bench.bob, (stream("203.0.113.1:4000"),), cseq=2)
    assert str(bench.packet(BOB, facing_bob)[0].target) == "203.0.113.1:4000", "nothing was said of it"
    bench.media(bench.alice, bench.bob, (stream("203.0.113.1:4000"),), cseq=3, wishes=Wishes())
    assert str(bench.packet(BOB, facing_bob, rtp(2))[0].target) == ALICE


@pytest.mark.parametrize("strict", [True, False])
def test_strict_source(strict: bool) -> None:
    bench = Bench()
    facing_alice, _ = talk(bench, Wishes(strict_source=strict))
    bench.packet(ALICE, facing_alice, rtp(1))
    bench.run(5)
    assert bool(bench.packet("203.0.113.1:77", facing_alice, rtp(2))) is not strict, "same SSRC, next number"
    bench.run(5)
    assert bool(bench.packet("203.0.113.1:78", facing_alice, rtp(9, ssrc=8))) is not strict, "after a silence"
    rtcp = facing_alice.with_port(facing_alice.port + 1)
    bench.packet("203.0.113.1:80", rtcp, RTCP)
    bench.run(20)
    assert bool(bench.packet("203.0.113.1:81", rtcp, RTCP)) is not strict


def test_strict_source_follows_signalling() -> None:
    bench = Bench()
    facing_alice, _ = talk(bench, Wishes(strict_source=True))
    bench.packet(ALICE, facing_alice)
    bench.run(5)
    bench.media(bench.alice, bench.bob, (stream("203.0.113.1:4444"),), cseq=2)
    assert bench.packet("203.0.113.1:4444", facing_alice)


@pytest.mark.parametrize("handover", [True, False])
def test_media_handover(handover: bool) -> None:
    """From the address of the signalling to that of the SDP, long after the first second."""
    bench = Bench()
    facing_alice, _ = talk(bench, Wishes(media_handover=handover), "203.0.113.200:4000")
    assert bench.packet(ALICE, facing_alice, rtp(1))
    bench.run(5)
    bench.packet(ALICE, facing_alice, rtp(2))
    assert not bench.packet("203.0.113.200:9", facing_alice, rtp(9, ssrc=99)), "who speaks is not interrupted"
    assert bool(bench.packet("203.0.113.200:9", facing_alice, rtp(3))) is handover
    bench.run(2)
    assert not bench.packet("198.18.0.9:1", facing_alice, rtp(4)), "a stranger has no rank"
    assert bool(bench.packet(ALICE, facing_alice, rtp(5000, ssrc=5))) is True


# -- the rest


def test_where_media_came_to_if_no_stream_is_left() -> None:
    bench = several()
    bench.invite(wishes=Wishes(towards="external"))
    assert bench.answer().address == ""
    off = (stream("203.0.113.1:4000").__class__(kind="audio", transport="RTP/AVP"),)
    assert bench.media(bench.alice, bench.bob, off, cseq=2).address == OUTSIDE
    assert bench.media(bench.alice, bench.bob, off, cseq=2).address == OUTSIDE, "the same again"
    assert bench.media(bench.bob, bench.alice, off, cseq=2, status=200).address == V4
    bench.call_id = "another"
    assert bench.invite(off).address == ""


def test_ports_stay() -> None:
    bench = several()
    first = bench.invite()
    bench.answer()
    six = (stream("[2001:db8:1::1]:4000"),)
    assert bench.media(bench.alice, bench.bob, six, cseq=2, wishes=Wishes(keep_ports=True)).ports == first.ports
    assert bench.media(bench.alice, bench.bob, six, cseq=3).ports != first.ports


def test_tos() -> None:
    bench = Bench(tos=8)
    talk(bench, Wishes(tos=184))
    assert {flow.tos for flow in bench.flows.values()} == {184}
    bench.media(bench.alice, bench.bob, cseq=2)
    assert {flow.tos for flow in bench.flows.values()} == {184}, "nothing was said of it"
    bench.media(bench.alice, bench.bob, cseq=3, wishes=Wishes())
    assert {flow.tos for flow in bench.flows.values()} == {8}
    bench.media(bench.alice, bench.bob, cseq=4, wishes=Wishes(tos=0))
    assert {flow.tos for flow in bench.flows.values()} == {0}
    assert bench.side(Side.CALLER).local in bench.flows


@pytest.mark.parametrize("tos", [-1, 256, 10**9])
def test_tos_of_a_peer_that_is_none(tos: int) -> None:
    bench = Bench()
    assert bench.invite(wishes=Wishes(tos=tos)).status == 488
    assert len(bench.calls) == 0
