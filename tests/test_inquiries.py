"""relay/inquiries.py: how calls stand, which there are, what a relay has done."""

import pytest

from mediaproxy.control import (
    EndCause,
    Inquiry,
    ListRequest,
    MediaReply,
    QueryRequest,
    TotalsRequest,
    Wishes,
)
from mediaproxy.events import AddressTotals, CallState, RelayTotals, reports_of, totals_of
from mediaproxy.relay import inquiries
from tests.relaybench import ALICE, BOB, RTCP, STUN, Bench, Phone, at, rtp, stream

STRANGER = "198.18.0.9:1"


def inquire(bench: Bench, inquiry: Inquiry) -> MediaReply:
    bench.calls.note(bench.slots.values())
    reply, effects = inquiries.inquire(bench.calls, inquiry, bench.now)
    bench.do(effects)
    return reply


def totals(bench: Bench) -> RelayTotals:
    (found,) = totals_of(inquire(bench, TotalsRequest()))
    return found


def test_one_call() -> None:
    bench = Bench()
    bench.invite(wishes=Wishes(label="the caller"), notify="whom")
    bench.run(2)
    bench.answer(wishes=Wishes(label="the callee"))
    (report,) = reports_of(inquire(bench, QueryRequest(call_id="call-1")))
    assert report == bench.report
    assert (report.caller.label, report.callee.label) == ("the caller", "the callee")
    assert (report.callee.branch, report.caller.branch) == (bench.bob.branch, "")
    assert (report.asked, report.started, report.notify) == (bench.now, bench.now - 2, "whom")
    assert inquire(bench, QueryRequest(call_id="other")).status == 481


def test_a_label_is_kept() -> None:
    bench = Bench()
    bench.invite(wishes=Wishes(label="x"))
    bench.answer()
    bench.media(bench.alice, bench.bob, (stream("10.0.0.1:4100"),), cseq=2)
    bench.media(bench.alice, bench.bob, (stream("10.0.0.1:4102"),), cseq=3, wishes=Wishes())
    assert bench.report.caller.label == "x"


def test_all_calls_and_their_names() -> None:
    bench = Bench()
    for name in ("b", "a", "c"):
        bench.call_id = name
        bench.invite()
    assert inquire(bench, ListRequest()).calls == ("b", "a", "c")
    assert inquire(bench, ListRequest(limit=2)).calls == ("b", "a")
    assert inquire(bench, ListRequest(limit=0)).calls == ()
    assert inquire(bench, ListRequest(limit=-1)).calls == ()
    assert inquire(bench, ListRequest(limit=10**30)).calls[:2] == ("b", "a")
    assert len(reports_of(inquire(bench, QueryRequest(limit=10**30)))) >= 2
    assert [report.call_id for report in reports_of(inquire(bench, QueryRequest(limit=2)))] == ["b", "a"]
    assert len(inquire(bench, QueryRequest()).reports) == 3


def test_what_is_known_of_a_stream() -> None:
    bench = Bench()
    facing_alice, facing_bob = bench.talk()
    bench.packet(ALICE, facing_alice, rtp(7, ssrc=99))
    bench.run(1)
    bench.packet("203.0.113.1:55", facing_alice.with_port(facing_alice.port + 1), RTCP)
    bench.packet(STRANGER, facing_alice.with_port(facing_alice.port + 1), RTCP)
    bench.packet(STRANGER, facing_alice)
    side = bench.report.streams[0].caller
    assert (side.direction, side.ice, side.mux) == ("sendrecv", False, False)
    assert (side.ssrc, side.sequence) == (99, 7)
    assert (side.rtcp_sdp, side.rtcp_learned) == (at("10.0.0.1:4001"), at("203.0.113.1:55"))
    assert (side.rtcp_packets, side.rtcp_bytes, side.rtcp_last) == (1, len(RTCP), bench.now)
    assert (side.refused_packets, side.rtcp_refused) == (2, 1)
    assert (side.first_packet, side.last_packet) == (bench.now - 1, bench.now - 1)


def test_totals_of_an_empty_relay() -> None:
    bench = Bench()
    bench.calls.totals.started = 990.0
    first, *_, last = bench.calls.settings.even_ports
    address = AddressTotals(address="192.0.2.1", port_min=first, port_max=last + 1, ports=200)
    wanted = RelayTotals(
        relay="relay-1",
        started=990.0,
        plane="user",
        ports=200,
        addresses=("192.0.2.1",),
        by_address=(address,),
    )
    assert totals(bench) == wanted


def test_totals_count_each_packet_once() -> None:
    """Those that user space handles, and those of the plane, over the end of a call."""
    bench = Bench()
    facing_alice, facing_bob = bench.talk()
    sizes = []
    for number in range(1, 11):
        for source, port in ((ALICE, facing_alice), (BOB, facing_bob)):
            sizes += [len(send.data) for send in bench.packet(source, port, rtp(number, size=10 * number))]
        bench.calls.note(bench.slots.values())
    bench.packet(STRANGER, facing_alice)
    sizes += [len(send.data) for send in bench.packet(BOB, facing_bob.with_port(facing_bob.port + 1), RTCP)]
    before = totals(bench)
    assert (before.packets, before.bytes, before.refused_packets) == (len(sizes), sum(sizes), 1)
    assert (before.calls, before.talking, before.streams, before.ports_lent) == (1, 1, 1, 4)
    assert before.kinds == {"audio": 1}
    assert [one.ports_lent for one in before.by_address] == [4]
    bench.bye()
    after = totals(bench)
    assert (after.packets, after.bytes, after.refused_packets) == (len(sizes), sum(sizes), 1)
    assert (after.calls, after.talking, after.streams, after.ports_lent) == (0, 0, 0, 0)
    assert after.kinds == {}
    assert [one.ports_lent for one in after.by_address] == [0]
    assert after.ports == before.ports == 200
    bench.call_id = "another"
    facing_alice, _ = bench.talk()
    bench.packet(ALICE, facing_alice)
    assert totals(bench).packets == len(sizes) + 1


def test_stun_counts_as_forwarded() -> None:
    bench = Bench()
    facing_alice, _ = bench.talk((stream("203.0.113.1:4000", ice=True),))
    assert bench.packet("203.0.113.1:4000", facing_alice, STUN)
    assert (totals(bench).packets, totals(bench).bytes) == (1, len(STUN))


def test_totals_of_calls() -> None:
    bench = Bench()

    def call(name: str, *speakers: str) -> None:
        bench.call_id = name
        facing_alice, facing_bob = bench.talk()
        for speaker in speakers:
            bench.packet(speaker, facing_alice if speaker == ALICE else facing_bob)
        bench.now += 10
        bench.bye()

    call("both", ALICE, BOB)
    call("one way", BOB)
    call("silent")
    bench.call_id = "cancelled"
    bench.invite()
    bench.end(EndCause.DELETE, bench.alice, Phone("", None, ""), delay=0.0)
    bench.call_id = "ringing"
    bench.invite()
    found = totals(bench)
    assert (found.started_calls, found.ended_calls) == (5, {"bye": 3, "cancel": 1})
    assert (found.one_way_calls, found.silent_calls, found.seconds, found.squares) == (1, 1, 30.0, 300.0)
    assert (found.calls, found.talking) == (1, 0)
    assert bench.report.state is CallState.RINGING


def test_what_no_python_carries() -> None:
    bench = Bench()
    facing_alice, facing_bob = bench.talk()
    for source, port in ((ALICE, facing_alice), (BOB, facing_bob)):
        bench.packet(source, port)
    assert totals(bench).offloaded == 0, "the plane is user space"
    bench.calls.plane_name = "kernel"
    assert (totals(bench).offloaded, totals(bench).plane) == (1, "kernel")


@pytest.mark.parametrize("inquiry", [QueryRequest(call_id="call-1"), ListRequest(), TotalsRequest()])
def test_nothing_changes(inquiry: Inquiry) -> None:
    bench = Bench()
    bench.talk()
    before, flows = bench.report, dict(bench.flows)
    inquire(bench, inquiry)
    assert (bench.report, bench.flows) == (before, flows)
