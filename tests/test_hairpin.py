"""Calls of one relay that meet at each other's ports, as a B2BUA makes them that passes SDP on: who hears whom, and
that no packet circles."""

import itertools

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mediaproxy.control import EndCause, MediaPort, MediaReply, Stream, Wishes
from mediaproxy.endpoint import Endpoint
from mediaproxy.events import CallState, EndReason, PeerLearned
from mediaproxy.relay.settings import RelayAddress
from mediaproxy.relay.verdict import Reason
from tests.relaybench import ALICE, BOB, RTCP, STRANGER, V4, Bench, Phone, at, rtp, stream
from tests.restarts import Shelf, restart

B2BUA = "192.0.2.77"
NOBODY = Phone("", None, "")
MOST = 12
"Hops of one packet that are as good as a circle."


class House(Bench):
    """A relay that hears what it sends to itself, and servers around it that pass SDP on."""

    def __init__(self, **changed: object) -> None:
        super().__init__(**changed)
        self.offered: list[MediaPort] = []
        "By call: what the callee is shown."
        self.answered: list[MediaPort] = []
        "By call: what the caller is shown."
        self._cseq = itertools.count(2)

    def callers(self, number: int) -> tuple[Phone, Phone]:
        """The parties of a call. Alice is the caller of the first; Bob may be the callee of any."""
        caller = self.alice if number == 0 else Phone(f"caller-{number}", B2BUA, "")
        return caller, Phone(f"callee-{number}", "198.51.100.2", "")

    def offer(self, number: int, sdp: Stream, *, first: bool = True) -> MediaReply:
        caller, callee = self.callers(number)
        more = {} if first else {"cseq": next(self._cseq)}
        reply = self.media(caller, NOBODY if first else callee, (sdp,), call_id=f"call-{number}", **more)
        if first:
            self.offered += [port for port in reply.ports if port]
        return reply

    def accept(self, number: int, sdp: Stream, **more: object) -> MediaReply:
        caller, callee = self.callers(number)
        reply = self.media(callee, caller, (sdp,), status=200, call_id=f"call-{number}", **more)
        self.answered += [port for port in reply.ports if port]
        return reply

    def chain(self, calls: int) -> None:
        """Alice, ``calls`` calls with a server between each two, Bob."""
        self.calls_in_row = calls
        self.offer(0, stream("10.0.0.1:4000"))
        for number in range(1, calls):
            self.offer(number, shown(self.offered[-1]))
        self.accept(calls - 1, stream("10.0.0.1:4000"))
        for number in reversed(range(calls - 1)):
            self.accept(number, shown(self.answered[-1]))
        self.answered.reverse()

    def say(self, source: str, port: Endpoint, data: bytes | None = None) -> list[Endpoint]:
        """A packet from outside: where it leaves the relay to."""
        left: list[Endpoint] = []
        queue = [(source, port, data or rtp())]
        for hops in itertools.count():
            if not queue:
                return left
            assert hops < MOST, "it circles"
            came_from, local, packet = queue.pop()
            for sent in self.packet(came_from, local, packet):
                if sent.target in self.flows:
                    queue.append((str(sent.local), sent.target, sent.data))
                else:
                    left.append(sent.target)
        return left

    def no_one_sided(self) -> None:
        """Whoever hears or is sent to a port of this relay is heard and sent to by it, and no port is in a ring."""
        for local, flow in self.flows.items():
            for place in (flow.source, flow.target):
                if place in self.flows:
                    other = self.flows[place]
                    assert flow.target == place and other.target == local, f"{local} and {place}"
                    assert flow.source in (place, None) and other.source in (local, None)

    def ring(self) -> None:
        for start in self.flows:
            local, hops = start, 0
            while (peer := self.flows[local].peer) is not None:
                target = self.flows[peer].target if peer in self.flows else None
                if target is None or target not in self.flows:
                    break
                local, hops = target, hops + 1
                assert hops <= MOST, "a ring"


def shown(port: MediaPort) -> Stream:
    """The SDP that a server passes on."""
    return stream(str(port.rtp), rtcp=port.rtcp)


def talk(house: House) -> None:
    """Both of them are heard by the other one, first by user space, then by the plane."""
    alice, bob = house.answered[0].rtp, house.offered[house.calls_in_row - 1].rtp
    for _ in range(3):
        assert house.say(ALICE, alice) and house.say(BOB, bob) == [at(ALICE)] and house.say(ALICE, alice) == [at(BOB)]


def flow_of(house: House, port: Endpoint) -> tuple[Endpoint | None, Endpoint | None]:
    flow = house.flows[port]
    return flow.source, flow.target


@pytest.mark.parametrize("calls", [2, 3])
def test_calls_in_a_row(calls: int) -> None:
    house = House()
    house.chain(calls)
    talk(house)
    assert house.say(ALICE.replace(":31", ":77"), house.answered[0].rtcp or at(ALICE), RTCP), "RTCP goes the same way"
    house.no_one_sided()
    for one, other in zip(house.offered, house.answered[1:], strict=False):
        assert flow_of(house, one.rtp) == (other.rtp, other.rtp) and flow_of(house, other.rtp) == (one.rtp, one.rtp)
    learned = [event for event in house.events if isinstance(event, PeerLearned) and event.source in house.flows]
    assert len(learned) == 4 * (calls - 1), "each tied port, RTP and RTCP, says so once"


def test_behind_a_one_to_one_nat() -> None:
    """SDP shows the advertised address, packets come from the bound one."""
    house = House(addresses=(RelayAddress(bind="10.9.9.9", advertise=V4),))
    house.chain(2)
    inner = [Endpoint("10.9.9.9", port.rtp.port) for port in (house.offered[0], house.answered[1])]
    assert flow_of(house, inner[0]) == (inner[1], inner[1]) and flow_of(house, inner[1]) == (inner[0], inner[0])


def test_a_chain_that_is_too_long_stays_open() -> None:
    house = House()
    house.chain(4)
    assert house.say(ALICE, house.answered[0].rtp) == [] and house.say(BOB, house.offered[-1].rtp) == []
    house.no_one_sided()
    house.ring()


def test_until_both_name_each_other_nothing_flows() -> None:
    house = House()
    house.offer(0, stream("10.0.0.1:4000"))
    house.offer(1, shown(house.offered[0]))
    house.accept(1, stream("10.0.0.1:4000"))
    facing, between = house.offered[1].rtp, house.answered[0].rtp
    assert house.say(BOB, facing) == [], "early media: nobody is there yet"
    assert flow_of(house, between) == (None, None)
    assert house.say(str(house.offered[0].rtp), between) == [], "the own port is not heard"
    assert house.say(f"{B2BUA}:4000", between) == [], "nor is anybody else"
    house.accept(0, shown(house.answered[0]))
    assert house.say(BOB, facing), "now it is"


def test_a_stranger_who_names_a_port_of_a_call_hears_nothing_and_is_not_heard() -> None:
    house = House()
    house.chain(2)
    talk(house)
    flows = dict(house.flows)
    for number, victim in enumerate((*house.offered[:2], *house.answered[:2]), 10):
        reply = house.offer(number, shown(victim))
        house.accept(number, stream(STRANGER))
        assert reply.ports[0] is not None
        mine = house.answered[-1].rtp
        assert flow_of(house, mine) == (None, None)
        assert house.say(STRANGER, reply.ports[0].rtp) == []
        assert house.say(str(mine), victim.rtp) == [] and house.say(STRANGER, victim.rtp) == []
    assert all(house.flows[local] == flow for local, flow in flows.items())
    talk(house)


def test_an_answer_that_names_its_own_call_is_a_spiral() -> None:
    house = House()
    house.offer(0, stream("10.0.0.1:4000"))
    assert house.accept(0, shown(house.offered[0])).ports == (None,)
    house.no_one_sided()


def test_a_ring_is_never_closed() -> None:
    """Two calls, both sides of which name each other's ports."""
    house = House()
    house.offer(0, stream("10.0.0.1:4000"))
    house.offer(1, shown(house.offered[0]))
    house.accept(1, stream("10.0.0.1:4000"))
    house.accept(0, shown(house.answered[0]))
    outer = house.answered[1], house.offered[1]
    house.offer(0, shown(outer[1]), first=False)
    caller, callee = house.callers(1)
    house.media(callee, caller, (shown(outer[0]),), cseq=9, call_id="call-1")
    house.no_one_sided()
    house.ring()
    for flow in list(house.flows):
        for other in list(house.flows):
            house.say(str(other), flow)


@pytest.mark.parametrize("ends", [0, 1])
def test_the_end_of_either_call(ends: int) -> None:
    """The other one hears nothing more, and ends by its own BYE or by silence."""
    house = House()
    house.chain(2)
    talk(house)
    caller, callee = house.callers(ends)
    house.end(EndCause.BYE, caller, callee, call_id=f"call-{ends}")
    assert [report.reason for report in house.ended] == [EndReason.BYE]
    left = house.answered[1].rtp if ends == 0 else house.offered[0].rtp
    gone = house.offered[0].rtp if ends == 0 else house.answered[1].rtp
    assert flow_of(house, left) == (None, None) and house.flows[gone].peer is None
    house.no_one_sided()
    house.run(house.settings.silence + 60)
    assert [report.reason for report in house.ended][1] is EndReason.SILENT


def test_counters_and_timers_of_both_calls() -> None:
    house = House()
    house.chain(2)
    talk(house)
    for number in range(200):
        house.run(1.0)
        assert house.say(ALICE, house.answered[0].rtp, rtp(number + 100)) == [at(BOB)]
        assert house.say(BOB, house.offered[1].rtp, rtp(number + 100)) == [at(ALICE)]
    reports = house.calls.reports(house.now)
    assert [report.state for report in reports] == [CallState.TALKING] * 2
    for report in reports:
        for side in (report.streams[0].caller, report.streams[0].callee):
            assert side.packets >= 200, report.call_id


def test_hold_and_resume() -> None:
    """A server that holds with 0.0.0.0, and says where the media goes again."""
    house = House()
    house.chain(2)
    talk(house)
    house.offer(1, stream("0.0.0.0:4000"), first=False)
    assert flow_of(house, house.offered[0].rtp) == (None, None)
    assert house.say(BOB, house.offered[1].rtp) != [at(ALICE)] and house.say(ALICE, house.answered[0].rtp) == []
    house.no_one_sided()
    house.offer(1, shown(house.offered[0]), first=False)
    talk(house)
    flows = dict(house.flows)
    house.offer(1, shown(house.offered[0]), first=False)
    assert house.flows == flows, "a session timer changes nothing"


def test_a_server_that_steps_aside_and_comes_back() -> None:
    """A re-INVITE that names a phone instead of the other call."""
    house = House()
    house.chain(2)
    talk(house)
    house.offer(1, stream("203.0.113.9:4000"), first=False)
    assert flow_of(house, house.offered[0].rtp) == (None, None)
    assert house.say("203.0.113.9:4000", house.answered[1].rtp) == [at(BOB)]
    house.no_one_sided()
    house.offer(1, shown(house.offered[0]), first=False)
    talk(house)


@pytest.mark.parametrize("lasting", [False, True])
def test_a_restart_ties_them_again(lasting: bool) -> None:
    house = House()
    house.calls.keep()
    shelf = Shelf()
    house.chain(2)
    talk(house)
    changes = house.calls.changes
    assert changes is not None
    shelf.write(changes.take(house.now))
    flows = dict(house.flows)
    adopted = [(flow, house.slots[local]) for local, flow in flows.items()] if lasting else []
    restart(house, shelf.saved(house.now), adopted)
    for local, flow in flows.items():
        assert msgspec.structs.replace(house.flows[local], settled_at=flow.settled_at) == flow
    talk(house)
    house.offer(1, stream("203.0.113.9:4000"), first=False)
    assert flow_of(house, house.offered[0].rtp) == (None, None), "what was known before the restart counts"


def test_a_fork_that_answers_is_who_counts() -> None:
    """The first branch of call 1 rings by way of call 2, another one answers: call 2 is not heard any more."""
    house = House()
    house.offer(0, stream("10.0.0.1:4000"))
    house.offer(1, shown(house.offered[0]))
    house.accept(1, stream("10.0.0.1:4000"))
    branch = Phone("callee-0", B2BUA, "", branch="z9hG4bK-1")
    house.answer((shown(house.answered[0]),), by=branch, status=183, call_id="call-0")
    assert house.say(BOB, house.offered[1].rtp)
    other = Phone("else", "198.51.100.3", "", branch="z9hG4bK-2")
    house.answer((stream("198.51.100.3:4000"),), by=other, call_id="call-0")
    house.no_one_sided()
    assert house.say(BOB, house.offered[1].rtp) == []
    assert house.say("198.51.100.3:4000", house.offered[0].rtp)
    assert flow_of(house, house.answered[0].rtp) == (None, None)


def test_several_streams_and_one_rtcp_port() -> None:
    """Audio and video meet each their own; with rtcp-mux reports go with the media."""
    house = House()
    kinds = ("audio", "video")
    there = house.media(
        house.alice,
        NOBODY,
        tuple(
            stream(f"10.0.0.1:{port}", kind=kind, rtcp_mux=True) for kind, port in zip(kinds, (4000, 4002), strict=True)
        ),
        call_id="call-0",
    ).ports
    caller, callee = house.callers(1)

    def passed_on(ports: tuple[MediaPort | None, ...]) -> tuple[Stream, ...]:
        return tuple(stream(str(port.rtp), kind=k, rtcp_mux=True) for port, k in zip(ports, kinds, strict=True) if port)

    facing = house.media(caller, NOBODY, passed_on(there), call_id="call-1").ports
    end = tuple(stream(f"198.51.100.2:{port}", kind=k, rtcp_mux=True) for k, port in zip(kinds, (32, 34), strict=True))
    back = house.media(callee, caller, end, status=200, call_id="call-1").ports
    ported = house.media(house.callers(0)[1], house.alice, passed_on(back), status=200, call_id="call-0").ports
    house.no_one_sided()
    for number in range(2):
        mine, his = ported[number], facing[number]
        assert mine is not None and his is not None
        source = f"203.0.113.1:{31 + 2 * number}"
        for _ in range(2):
            assert house.say(source, mine.rtp) == [at(f"198.51.100.2:{32 + 2 * number}")]
            assert house.say(f"198.51.100.2:{32 + 2 * number}", his.rtp) == [at(source)]
            assert house.say(source, mine.rtp, RTCP) == [at(f"198.51.100.2:{32 + 2 * number}")]


def test_no_policy_lets_anybody_in_instead() -> None:
    """Probation is for phones; whose party is a port of another call has none."""
    house = House(latch_others="probation", latch_unknown="probation")
    house.offer(0, stream("10.0.0.1:4000"))
    house.offer(1, shown(house.offered[0]))
    house.accept(1, stream("10.0.0.1:4000"))
    house.run(5.0)
    for number in range(20):
        for source in (STRANGER, f"{B2BUA}:4000"):
            assert house.say(source, house.answered[0].rtp, rtp(number)) == []


def test_a_third_port_of_the_relay_is_a_loop() -> None:
    house = House()
    house.chain(3)
    before = house.calls.board.traffic.reasons[Reason.LOOP]
    assert house.say(str(house.answered[2].rtp), house.offered[0].rtp) == []
    assert house.calls.board.traffic.reasons[Reason.LOOP] == before + 1


def test_a_check_lets_nobody_in_instead() -> None:
    """Who knows the ICE password of such a port is not its party."""
    house = House()
    house.chain(2)
    port = house.calls.board.find(house.offered[0].rtp)
    assert port is not None
    port.latch.nominate(at(STRANGER), "", house.now)
    assert port.latch.learned == house.answered[1].rtp


def test_new_ports_for_an_old_call() -> None:
    """Until the server has told the other call of them, nothing goes there from the new ones."""
    house = House()
    house.chain(2)
    talk(house)
    reply = house.media(
        house.alice,
        house.callers(0)[1],
        (stream("10.0.0.1:4000"),),
        cseq=5,
        call_id="call-0",
        wishes=Wishes(new_ports=True),
    )
    (new,) = reply.ports
    assert new is not None and new.rtp != house.offered[0].rtp
    house.no_one_sided()
    assert house.say(BOB, house.offered[1].rtp) == [at(ALICE)], "the old ones still serve"
    house.offer(1, shown(new), first=False)
    (back,) = house.media(
        house.callers(0)[1], house.alice, (shown(house.answered[1]),), cseq=5, status=200, call_id="call-0"
    ).ports
    assert back is not None
    house.no_one_sided()
    assert house.say(ALICE, back.rtp) == [at(BOB)] and house.say(BOB, house.offered[1].rtp) == [at(ALICE)]


def test_ports_of_one_call_id_are_never_tied() -> None:
    """A name from before: the port was another call's then."""
    house = House()
    house.offer(0, stream("10.0.0.1:4000"))
    house.media(Phone("else", B2BUA, "10.0.0.1:4000"), NOBODY, call_id="call-0")
    one, other = (call.streams[0] for call in house.calls.of("call-0"))
    assert one is not None and other is not None
    ends = one.caller.rtp, other.caller.rtp
    for port, party in zip(ends, reversed(ends), strict=True):
        expectation = port.latch.expectation
        assert expectation is not None
        port.latch.expectation = msgspec.structs.replace(expectation, own=party.local)
    assert house.calls.board.ties.settle([one, other], house.now) == []
    assert ends[0].tie is None


PLACES = st.integers(0, 11)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from(["offer", "answer", "bye"]), PLACES), max_size=30))
def test_whatever_sdp_says_no_packet_circles(steps: list[tuple[int, str, int]]) -> None:
    """Four calls whose parties name each other's ports as they like, and strangers who send from and to all of them."""
    house = House()
    known: list[MediaPort] = []
    for number in range(4):
        known += [port for port in house.offer(number, stream(f"203.0.113.{number}:4000")).ports if port]
        known += [port for port in house.accept(number, stream(f"198.51.100.{number}:4000")).ports if port]
    for cseq, (number, what, place) in enumerate(steps, 1000):
        sdp = shown(known[place]) if place < len(known) else stream(f"203.0.113.{place}:4000")
        caller, callee = house.callers(number)
        if what == "bye":
            house.end(EndCause.BYE, caller, callee, call_id=f"call-{number}")
            house.run(1.0)
        else:
            one, other = (caller, callee) if what == "offer" else (callee, caller)
            house.media(one, other, (sdp,), cseq=cseq, call_id=f"call-{number}")
        house.no_one_sided()
        house.ring()
    for local in list(house.flows):
        for source in (*map(str, house.flows), "203.0.113.1:4000", "198.51.100.2:4000", STRANGER):
            house.say(source, local)
    house.no_one_sided()
