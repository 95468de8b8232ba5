"""Questions about one stream of an SDP, of which little is told (MediaRequest.part, Stream.told): rtpproxy's."""

from typing import Any

import msgspec
import pytest

from mediaproxy.control import Direction, EndCause, EndRequest, MediaReply, MediaRequest, Party, PhoneAddress
from mediaproxy.control import Stream as Sdp
from mediaproxy.endpoint import Endpoint
from mediaproxy.events import CallState, Side
from mediaproxy.relay.call import Call
from mediaproxy.relay.parts import widened
from mediaproxy.relay.settings import RelayAddress
from mediaproxy.relay.timers import expiry
from tests.relaybench import V4, Bench, at, stream

OFF = Sdp(kind="media", transport="udp", told=False)


def plain(place: str) -> Sdp:
    return msgspec.structs.replace(stream(place), told=False)


def ask(bench: Bench, part: int, sdp: Sdp, sender: str = "a", receiver: str = "", **more: Any) -> MediaReply:
    """A question about one stream; an answer with ``status``."""
    where = sdp.endpoint
    values: dict[str, Any] = {
        "call_id": "c",
        "sender": Party(tag=sender),
        "receiver": Party(tag=receiver),
        "cseq": -1,
        "sdp_hash": f"{part} {where}",
        "streams": (sdp,),
        "part": part,
        "phone": PhoneAddress(endpoint=Endpoint(where.address, 0) if where else None),
        **more,
    }
    return bench.ask(MediaRequest(**values))


def port(reply: MediaReply) -> int:
    assert not reply.error and len(reply.ports) == 1 and reply.ports[0] is not None, reply
    return reply.ports[0].rtp.port


def the_call(bench: Bench) -> Call:
    (call,) = bench.calls
    return call


def test_streams_come_one_by_one_and_stay() -> None:
    bench = Bench()
    first = port(ask(bench, 0, plain("203.0.113.1:4000")))
    second = port(ask(bench, 1, plain("203.0.113.1:4002")))
    port(ask(bench, 0, plain("198.51.100.2:5000"), "b", "a", status=200))
    assert bench.side(Side.CALLEE, 1).sdp is None and bench.side(Side.CALLEE, 0).sdp == at("198.51.100.2:5000")
    port(ask(bench, 1, plain("198.51.100.2:5002"), "b", "a", status=200))
    assert [bench.side(Side.CALLEE, index).sdp for index in (0, 1)] == [
        at("198.51.100.2:5000"),
        at("198.51.100.2:5002"),
    ]
    assert port(ask(bench, 1, plain("203.0.113.1:4012"), receiver="b")) == second
    assert bench.side(Side.CALLER, 0).sdp == at("203.0.113.1:4000"), "nothing was said of it"
    assert port(ask(bench, 0, plain("203.0.113.1:4000"), receiver="b")) == first


def test_in_any_order() -> None:
    bench = Bench()
    second = port(ask(bench, 2, plain("203.0.113.1:4004")))
    first = port(ask(bench, 0, plain("203.0.113.1:4000")))
    assert second != first
    assert sorted(one.index for one in bench.report.streams) == [0, 2]
    assert bench.calls.ports_lent == 4


def test_a_stream_that_is_off_has_a_port_all_the_same() -> None:
    bench = Bench(addresses=(RelayAddress(bind=V4), RelayAddress(bind="2001:db8:ffff::1")))
    (nowhere,) = ask(bench, 0, OFF).ports
    assert nowhere is not None and nowhere.rtp == Endpoint(V4, 9) and not len(bench.calls)
    (nowhere,) = ask(bench, 0, OFF, receiver_version=6).ports
    assert nowhere is not None and nowhere.rtp == Endpoint("2001:db8:ffff::1", 9)
    lent = port(ask(bench, 1, plain("203.0.113.1:4000")))
    assert port(ask(bench, 1, OFF)) == lent and bench.side(Side.CALLER).sdp is None
    assert port(ask(bench, 1, plain("203.0.113.1:4000"))) == lent


def test_an_answer_begins_nothing() -> None:
    bench = Bench()
    assert ask(bench, 0, plain("198.51.100.2:5000"), "b", "a", status=200).status == 481
    ask(bench, 0, plain("203.0.113.1:4000"))
    assert ask(bench, 1, plain("198.51.100.2:5002"), "b", "a", status=200).ports == (None,)


def test_a_question_about_all_streams_is_as_it_was() -> None:
    question = MediaRequest(call_id="c", sender=Party(), receiver=Party(), cseq=1, sdp_hash="", streams=(OFF,))
    assert widened(question, None) == (question, frozenset())
    assert widened(msgspec.structs.replace(question, part=0, streams=()), None)[1] == frozenset()


@pytest.mark.parametrize("part", [64, 2**31])
def test_no_more_streams_than_a_call_may_have(part: int) -> None:
    assert ask(Bench(max_streams=64), part, plain("203.0.113.1:4000")).status == 488


def test_the_same_offer_is_answered_as_before_and_a_changed_one_counts() -> None:
    bench = Bench()
    for _ in range(2):
        ask(bench, 0, plain("203.0.113.1:4000"))
        ask(bench, 1, plain("203.0.113.1:4002"))
    assert the_call(bench).memory.newest(Side.CALLER) == 1, "one offer, though its streams came twice"
    ask(bench, 0, plain("198.51.100.2:5000"), "b", "a", status=200)
    for place in ("0.0.0.0:4000", "203.0.113.1:4000", "0.0.0.0:4000"):  # hold, resume, hold
        ask(bench, 0, plain(place), receiver="b")
        assert bench.side(Side.CALLER).sdp == at(place)


def test_a_silence_after_an_offer_may_be_a_hold_only_if_holds_are_not_told() -> None:
    for told in (True, False):
        bench = Bench(silence=90, hold=7200)
        sdp = msgspec.structs.replace(plain("203.0.113.1:4000"), told=told)
        ask(bench, 0, sdp)
        reply = ask(bench, 0, msgspec.structs.replace(plain("198.51.100.2:5000"), told=told), "b", "a", status=200)
        bench.packet("203.0.113.1:4000", at(f"{V4}:{port(reply)}"))
        bench.run(5)
        ask(bench, 0, sdp, receiver="b")
        assert expiry(the_call(bench))[0] == bench.now + (90 - 5 if told else 7200)
        assert bench.report.ends_at == expiry(the_call(bench))[0]


def test_who_holds_a_call() -> None:
    bench = Bench()
    ask(bench, 0, plain("203.0.113.1:4000"), weak=True)
    ask(bench, 0, plain("198.51.100.2:5000"), "b", "a", status=200, weak=True)

    def end(sender: str, receiver: str, *, weak: bool = False) -> bool:
        one, other = Party(tag=sender), Party(tag=receiver)
        question = EndRequest(call_id="c", sender=one, receiver=other, cause=EndCause.DELETE, whole=True, weak=weak)
        assert not bench.ask(question).error
        return not len(bench.calls)

    assert the_call(bench).holders == {Side.CALLER, Side.CALLEE}
    assert not end("a", "b"), "nobody held it strongly"
    assert not end("a", "b", weak=True), "the callee lets go"
    assert not end("a", "b", weak=True), "and again"
    assert end("b", "a", weak=True)


def test_what_is_told_is_told_for_sure() -> None:
    """The default of Stream.told: nothing that SIP doors ask is changed by it."""
    assert Sdp(kind="audio", transport="RTP/AVP").told and Sdp(kind="audio", transport="RTP/AVP").direction is (
        Direction.SENDRECV
    )
    bench = Bench()
    bench.talk()
    assert bench.state() is CallState.TALKING and not the_call(bench).perhaps_held
