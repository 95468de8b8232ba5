"""RTCP on the RTP port of a party (RFC 5761), where the other one has two ports, and where both have one."""

import pytest

from mediaproxy.control import EndCause, Wishes
from mediaproxy.endpoint import Endpoint
from mediaproxy.events import Side
from tests.relaybench import RTCP, Bench, rtp, stream
from tests.restarts import Shelf, keep_all, kept, restart

ALICE, BOB = "203.0.113.1:31", "198.51.100.2:32"
BOB_RTCP = "198.51.100.2:33"


class Talk:
    """A call: ``alice`` and ``bob``: whether the SDP of each has a=rtcp-mux, and what each is told."""

    def __init__(self, alice: bool, bob: bool, *, told_alice: bool | None = None, told_bob: bool | None = None) -> None:
        self.bench = bench = Bench()
        offer = bench.invite((stream(ALICE, rtcp_mux=alice),), wishes=Wishes(mux=(told_bob,)))
        answer = bench.answer((stream(BOB, rtcp_mux=bob),), wishes=Wishes(mux=(told_alice,)))
        facing_bob, facing_alice = offer.ports[0], answer.ports[0]
        assert facing_bob is not None and facing_alice is not None
        self.alice, self.bob = facing_alice.rtp, facing_bob.rtp

    def learn(self) -> None:
        for number in (1, 2):
            assert self.send(ALICE, self.alice, rtp(number)) == [(self.bob, BOB)]
            assert self.send(BOB, self.bob, rtp(number)) == [(self.alice, ALICE)]

    def send(self, source: str, port: Endpoint, data: bytes) -> list[tuple[Endpoint, str]]:
        """Where a packet leaves, and to whom."""
        return [(send.local, str(send.target)) for send in self.bench.packet(source, port, data)]


def above(port: Endpoint) -> Endpoint:
    return port.with_port(port.port + 1)


SPLIT = {
    "the offer": (True, False, True, False),
    "the offer, and the answer was not asked": (True, False, True, None),
    "the answer too, but she was not told": (True, True, True, False),
}


@pytest.mark.parametrize(("alice", "bob", "told_alice", "told_bob"), SPLIT.values(), ids=SPLIT)
def test_one_has_one_port_and_the_other_two(
    alice: bool, bob: bool, told_alice: bool | None, told_bob: bool | None
) -> None:
    talk = Talk(alice, bob, told_alice=told_alice, told_bob=told_bob)
    talk.learn()
    assert talk.send(ALICE, talk.alice, RTCP) == [(above(talk.bob), BOB_RTCP)]
    assert talk.send(BOB_RTCP, above(talk.bob), RTCP) == [(talk.alice, ALICE)]
    assert talk.send(BOB_RTCP, above(talk.bob), RTCP) == [(talk.alice, ALICE)], "by the plane"
    assert talk.send(ALICE, talk.alice, rtp(3)) == [(talk.bob, BOB)], "RTP goes on"
    caller, callee = talk.bench.side(Side.CALLER), talk.bench.side(Side.CALLEE)
    assert (caller.mux, callee.mux) == (True, False)
    assert (caller.rtcp_packets, caller.rtcp_bytes) == (1, len(RTCP))


def test_the_other_way_round() -> None:
    talk = Talk(False, True, told_bob=True, told_alice=False)
    talk.learn()
    assert talk.send(BOB, talk.bob, RTCP) == [(above(talk.alice), "203.0.113.1:32")]
    assert talk.send("203.0.113.1:32", above(talk.alice), RTCP) == [(talk.bob, BOB)]


def test_the_plane_keeps_rtp() -> None:
    talk = Talk(True, False, told_alice=True, told_bob=False)
    talk.learn()
    flows = talk.bench.flows
    assert flows[talk.alice].rtp_only and str(flows[talk.alice].source) == ALICE
    assert not flows[talk.bob].rtp_only
    talk.send(BOB_RTCP, above(talk.bob), RTCP)
    assert flows[above(talk.bob)].peer == talk.alice and str(flows[above(talk.bob)].source) == BOB_RTCP


BOTH = {
    "as they say": (None, None),
    "as the door says": (True, True),
    "an offer that was made to him": (True, None),
}


@pytest.mark.parametrize(("told_alice", "told_bob"), BOTH.values(), ids=BOTH)
def test_both_have_one_port(told_alice: bool | None, told_bob: bool | None) -> None:
    talk = Talk(True, True, told_alice=told_alice, told_bob=told_bob)
    talk.learn()
    assert talk.send(ALICE, talk.alice, RTCP) == [(talk.bob, BOB)]
    assert talk.send(BOB, talk.bob, RTCP) == [(talk.alice, ALICE)]
    assert not any(flow.rtp_only for flow in talk.bench.flows.values())


NEITHER = {
    "nobody wants it": (False, False, None, None),
    "she wants it, and is told no": (True, False, False, False),
    "he would, but was not asked": (False, True, False, False),
    "she never offered it": (False, True, True, True),
}


@pytest.mark.parametrize(("alice", "bob", "told_alice", "told_bob"), list(NEITHER.values())[:3], ids=list(NEITHER)[:3])
def test_both_have_two_ports(alice: bool, bob: bool, told_alice: bool | None, told_bob: bool | None) -> None:
    talk = Talk(alice, bob, told_alice=told_alice, told_bob=told_bob)
    assert talk.send("203.0.113.1:32", above(talk.alice), RTCP) == [(above(talk.bob), BOB_RTCP)]
    assert talk.send(BOB_RTCP, above(talk.bob), RTCP) == [(above(talk.alice), "203.0.113.1:32")]
    assert not any(flow.rtp_only for flow in talk.bench.flows.values())


def test_who_did_not_offer_it_has_two_ports_whatever_she_is_told() -> None:
    talk = Talk(*NEITHER["she never offered it"][:2], told_alice=True, told_bob=True)
    talk.learn()
    assert talk.send(BOB, talk.bob, RTCP) == [(above(talk.alice), "203.0.113.1:32")]


@pytest.mark.parametrize("wishes", [None, Wishes()], ids=["no wishes", "default ones"])
def test_without_wishes_both_must_say_so(wishes: Wishes | None) -> None:
    bench = Bench()
    bench.invite((stream(ALICE, rtcp_mux=True),), wishes=wishes)
    facing_alice = bench.answer((stream(BOB),), wishes=wishes).ports[0]
    assert facing_alice is not None
    assert not bench.packet(ALICE, facing_alice.rtp, RTCP)
    assert not any(flow.rtp_only for flow in bench.flows.values())


def test_it_may_change_with_an_offer() -> None:
    talk = Talk(True, False, told_alice=True, told_bob=False)
    talk.learn()
    bench = talk.bench
    bench.media(bench.bob, bench.alice, (stream(BOB, rtcp_mux=True),), cseq=5, wishes=Wishes(mux=(True,)))
    bench.media(bench.alice, bench.bob, (stream(ALICE, rtcp_mux=True),), cseq=5, status=200, wishes=Wishes(mux=(True,)))
    assert talk.send(ALICE, talk.alice, RTCP) == [(talk.bob, BOB)]
    assert not any(flow.rtp_only for flow in bench.flows.values())


def test_what_was_asked_once_says_nothing_of_a_later_offer() -> None:
    talk = Talk(True, False, told_alice=True, told_bob=False)
    talk.learn()
    bench = talk.bench
    assert not bench.side(Side.CALLEE).mux
    bench.media(bench.alice, bench.bob, (stream(ALICE, rtcp_mux=True),), cseq=2)
    bench.media(bench.bob, bench.alice, (stream(BOB, rtcp_mux=True),), cseq=2, status=200)
    assert bench.side(Side.CALLER).mux and bench.side(Side.CALLEE).mux
    talk.learn()
    assert talk.send(ALICE, talk.alice, RTCP) == [(talk.bob, BOB)]
    assert talk.send(BOB, talk.bob, RTCP) == [(talk.alice, ALICE)]


def test_a_refused_offer_changes_nothing() -> None:
    talk = Talk(True, False, told_alice=True, told_bob=False)
    talk.learn()
    bench = talk.bench
    bench.media(bench.bob, bench.alice, (stream(BOB, rtcp_mux=True),), cseq=5, wishes=Wishes(mux=(False,)))
    bench.end(EndCause.REFUSED, bench.alice, bench.bob, cseq=5, status=488)
    assert talk.send(ALICE, talk.alice, RTCP) == [(above(talk.bob), BOB_RTCP)]


def test_a_restart_changes_nothing() -> None:
    talk, shelf = Talk(True, False, told_alice=True, told_bob=False), Shelf()
    bench = talk.bench
    bench.calls.keep()
    talk.learn()
    flows = dict(bench.flows)
    keep_all(bench, shelf)
    restart(bench, shelf.saved(bench.now), kept(bench))
    assert bench.flows == flows
    assert talk.send(ALICE, talk.alice, RTCP) == [(above(talk.bob), BOB_RTCP)]
