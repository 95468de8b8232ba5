"""NG in front of the relay's ``Calls``, in virtual time: what the dialogs of a SIP server do to ports and media."""

import re
from typing import Any, get_args

import pytest

from mediaproxy.control import Inquiry, MediaReply
from mediaproxy.dialects.dialect import Peer
from mediaproxy.dialects.ng import bencode
from mediaproxy.dialects.ng.dialect import Ng
from mediaproxy.dialects.ng.settings import NgSettings
from mediaproxy.endpoint import Endpoint
from mediaproxy.events import CallState, EndReason
from mediaproxy.relay.inquiries import inquire
from mediaproxy.relay.settings import RelayAddress
from tests.ngcases import FAX, MUX, PLAIN, VIDEO, answer, crlf, offer, reoffer, theirs
from tests.relaybench import V4, V6, Bench, at, rtp

ALICE, BOB = "203.0.113.1:4000", "198.51.100.2:6000"
INQUIRIES = get_args(Inquiry)
PRIVATE = PLAIN.replace("192.0.2.10", "10.0.0.1")
HOLD = PLAIN + "a=sendonly\n"


class NgBench(Bench):
    """A SIP server speaks NG to the dialect, and that to the relay. Both phones are behind NAT."""

    def __init__(self, **changed: object) -> None:
        super().__init__(**changed)
        self.dialect = Ng(NgSettings(mark="0123456789ab"))
        self._cookies = 0

    def say(self, request: dict[str, Any]) -> dict[str, Any]:
        """The answer to one request."""
        self._cookies += 1
        sender = "198.51.100.2" if request["command"] == "answer" else "203.0.113.1"
        request = {"received-from": ["IP4", sender], **request}
        answer = self.tell(b"%d %b" % (self._cookies, bencode.encode(request)), Peer("udp", "127.0.0.1:9", self.now))
        found = bencode.decode(answer, answer.index(b" ") + 1)
        assert isinstance(found, dict)
        return {key.decode(): value for key, value in found.items()}

    def tell(self, message: bytes, peer: Peer) -> bytes:
        """The answer to one message."""
        steps = self.dialect.answer(message, peer)
        reply: MediaReply | None = None
        try:
            while True:
                wanted = steps.send(reply)
                if isinstance(wanted, INQUIRIES):
                    reply, effects = inquire(self.calls, wanted, self.now)
                    self.do(effects)
                else:
                    reply = self.ask(wanted)  # type: ignore[arg-type]  # a Question: not narrowed by a tuple
        except StopIteration as stop:
            answer: bytes = stop.value
            return answer

    def ports(self, request: dict[str, Any]) -> list[int]:
        """The ports of the SDP that goes on."""
        told = self.say(request)
        assert told["result"] == b"ok", told
        return [int(port) for port in re.findall(rb"^m=\S+ (\d+)", told["sdp"], re.M)]

    def start(self, sdp: str = PLAIN, **keys: Any) -> tuple[Endpoint, Endpoint]:
        """An answered call: what faces Alice and what faces Bob, of the first stream."""
        (facing_bob, *_) = self.ports(offer(sdp, **keys))
        (facing_alice, *_) = self.ports(answer(theirs(sdp)))
        return at(f"{V4}:{facing_alice}"), at(f"{V4}:{facing_bob}")

    def delete(self, **keys: Any) -> dict[str, Any]:
        return self.say({"command": "delete", "call-id": "c", "from-tag": "a", "delete-delay": 0, **keys})

    def stands(self) -> list[tuple[CallState, bool]]:
        return [(call.state, call.held) for call in self.calls]


def test_a_call_that_talks() -> None:
    bench = NgBench()
    facing_alice, facing_bob = bench.start(PRIVATE)
    (sent,) = bench.packet(BOB, facing_bob)
    assert sent.target == at("203.0.113.1:4000")
    (sent,) = bench.packet(ALICE, facing_alice)
    assert (sent.local, sent.target) == (facing_bob, at(BOB))
    assert bench.stands() == [(CallState.TALKING, False)]
    bench.delete()
    assert bench.stands() == []


def test_a_repeated_offer_and_answer_get_the_same_ports() -> None:
    bench = NgBench()
    first = bench.ports(offer(VIDEO))
    assert bench.ports(offer(VIDEO)) == first
    back = bench.ports(answer(theirs(VIDEO)))
    assert bench.ports(answer(theirs(VIDEO))) == back
    assert bench.calls.ports_lent == 4


def test_hold_and_resume_in_the_very_words_of_the_first_offer() -> None:
    bench = NgBench()
    facing_alice, facing_bob = bench.start()
    for sdp, held in ((HOLD, True), (PLAIN, False), (HOLD, True), (HOLD, True), (PLAIN, False), (PLAIN, False)):
        bench.run(40)
        assert bench.ports(reoffer(sdp)) == [facing_bob.port]
        assert bench.ports(answer(theirs(PLAIN))) == [facing_alice.port]
        assert [held_ for _, held_ in bench.stands()] == [held]


def test_later_offers_may_name_other_addresses() -> None:
    """By interface or IP version; what they do not say stays, as with rtpengine 10.5."""
    outside = "192.0.2.77"
    bench = NgBench(addresses=(RelayAddress(bind=V4), RelayAddress(bind=outside, name="ext"), RelayAddress(bind=V6)))
    six = theirs(PLAIN).replace("IN IP4 192.0.2.20", "IN IP6 2001:db8:1::1")

    def told(request: dict[str, Any]) -> str:
        return str(re.findall(rb"\nc=IN IP[46] (\S+)\r", bench.say(request)["sdp"])[0], "ascii")

    def again(version: int, **keys: Any) -> str:
        return told(reoffer(PLAIN.replace("alice 10 1", f"alice 10 {version}"), **keys))

    assert (told(offer()), told(answer())) == (V4, V4)
    assert (again(2, direction=["", "ext"]), told(answer())) == (outside, V4)
    assert (again(3), told(answer())) == (outside, V4)
    bench.run(60)
    assert (again(4, address_family="IP6"), told(answer(six))) == (V6, V4)
    assert (again(5), told(answer(six))) == (V6, V4)


def test_an_sdp_that_refuses_all_streams_tells_no_address_of_a_phone() -> None:
    bench = NgBench()
    bench.start(replace=["origin"])
    bench.say(reoffer(FAX, replace=["origin"]))
    refused = theirs(FAX).replace("6000", "0")
    for _ in range(2):
        told = bench.say(answer(refused, replace=["origin"]))["sdp"]
        assert told.count(V4.encode()) == 2, "o= and c="
        assert b"192.0.2." not in told.replace(V4.encode(), b"")
        assert b"m=image 0 udptl" in told
    other = {**offer(PLAIN.replace("4000", "0"), replace=["origin"]), "call-id": "other"}
    assert b"c=IN IP4 192.0.2.10" in bench.say(other)["sdp"], "that is no call"


def test_bob_holds_too() -> None:
    bench = NgBench()
    facing_alice, facing_bob = bench.start()
    turned = {"from_tag": "b", "to_tag": "a"}
    assert bench.ports(offer(theirs(HOLD), **turned)) == [facing_alice.port]
    assert bench.ports(answer(PLAIN, **turned)) == [facing_bob.port]
    assert bench.stands() == [(CallState.HELD, True)]
    assert bench.ports(offer(theirs(PLAIN), **turned)) == [facing_alice.port]
    assert bench.stands() == [(CallState.TALKING, False)]


def test_a_phone_that_moves_keeps_the_ports_it_was_told() -> None:
    bench = NgBench()
    facing_alice, facing_bob = bench.start()
    moved = PLAIN.replace("4000", "4400")
    assert bench.ports(reoffer(moved)) == [facing_bob.port]
    assert bench.ports(answer(theirs(PLAIN))) == [facing_alice.port]


def test_video_is_added_and_dropped() -> None:
    bench = NgBench()
    facing_alice, facing_bob = bench.start()
    both = bench.ports(reoffer(VIDEO))
    assert both[0] == facing_bob.port and both[1] != both[0]
    assert bench.ports(answer(theirs(VIDEO)))[0] == facing_alice.port
    assert bench.ports(reoffer(VIDEO.replace("4002", "0"))) == [facing_bob.port, 0]


def test_a_fax_takes_the_place_of_audio() -> None:
    bench = NgBench()
    facing_alice, facing_bob = bench.start()
    turned = {"from_tag": "b", "to_tag": "a"}
    assert bench.ports(offer(theirs(FAX), **turned)) == [facing_alice.port]
    assert bench.ports(answer(FAX, **turned)) == [facing_bob.port]


def test_a_late_offer_and_the_answer_in_the_ack() -> None:
    bench = NgBench()
    turned = {"from_tag": "b", "to_tag": "a"}  # the offerer is who was called
    (facing_alice,) = bench.ports(offer(theirs(PLAIN), **turned))
    (facing_bob,) = bench.ports(answer(PLAIN, **turned))
    assert facing_alice != facing_bob
    assert bench.stands() == [(CallState.TALKING, False)]
    assert bench.ports(reoffer(HOLD)) == [facing_bob]  # and Alice goes on from there
    (call,) = bench.calls
    assert (call.caller.tag, call.callee.tag) == ("a", "b")
    bench.delete()
    assert bench.stands() == []


def test_an_update_before_the_answer_to_the_invite() -> None:
    bench = NgBench()
    first = bench.ports(offer(PLAIN))
    early = bench.ports(answer(theirs(PLAIN)))  # 183
    assert bench.ports(reoffer(VIDEO))[:1] == first  # UPDATE
    assert bench.ports(answer(theirs(VIDEO)))[:1] == early
    assert bench.ports(answer(theirs(VIDEO)))[:1] == early  # 200 to INVITE


def test_two_phones_ring_by_two_branches() -> None:
    bench = NgBench()
    one, two = (offer(PLAIN, via_branch=branch) for branch in ("z1", "z2"))
    assert bench.ports(one) == bench.ports(two)  # one pair of ports serves both
    first = bench.ports(answer(theirs(PLAIN), via_branch="z1", to_tag="b1"))
    second = bench.ports(answer(theirs(PLAIN).replace("6000", "6600"), via_branch="z2", to_tag="b2"))
    assert first != second  # both are answers: the caller hears each where it was told
    tags = bench.say({"command": "query", "call-id": "c"})["tags"]
    assert {tag: told.get(b"via-branch") for tag, told in tags.items()} == {b"a": None, b"b1": b"z1", b"b2": b"z2"}
    assert len(list(bench.calls)) == 1


def two_branches(*answers: tuple[str, str, int]) -> NgBench:
    """A call to two branches; ``answers``: tag, branch and SIP code of each, 0: not told."""
    bench = NgBench()
    for branch in ("z1", "z2"):
        bench.ports(offer(PLAIN, via_branch=branch))
    for number, (tag, branch, code) in enumerate(answers):
        told = {"SIP-code": code} if code else {}
        bench.ports(answer(theirs(PLAIN).replace("6000", f"6{number}00"), via_branch=branch, to_tag=tag, **told))
    return bench


ENDS = [
    ([("b1", "z1", 0)], ["z2"], CallState.TALKING),  # who lost is deleted after the other one's 200
    ([("b1", "z1", 200)], ["z2"], CallState.TALKING),
    ([("b1", "z1", 0)], ["z2", "bye"], None),
    ([("b1", "z1", 0)], ["z1"], None),
    ([("b1", "z1", 0)], ["bye"], None),
    ([("b1", "z1", 0), ("b2", "z2", 0)], ["z2"], CallState.TALKING),  # 183s look like 200s
    ([("b1", "z1", 0), ("b2", "z2", 0)], ["z2", "z1"], None),
    ([("b1", "z1", 183), ("b2", "z2", 183)], ["z2"], CallState.RINGING),
    ([("b1", "z1", 183), ("b2", "z2", 183)], ["z2", "z1"], None),
    ([("b1", "z1", 183), ("b2", "z1", 183)], ["z2", "z1"], None),  # a server behind us forked z1
]


@pytest.mark.parametrize(("answers", "deletes", "state"), ENDS)
def test_branches_are_deleted(answers: list[tuple[str, str, int]], deletes: list[str], state: CallState | None) -> None:
    bench = two_branches(*answers)
    for branch in deletes:
        assert bench.delete(**{"via-branch": branch})["result"] == b"ok"
    assert [found for found, _ in bench.stands()] == ([] if state is None else [state])


def test_an_answer_to_nothing() -> None:
    bench = NgBench()
    assert bench.say(answer()) == {"result": b"error", "error-reason": b"Unknown call-id"}
    assert bench.stands() == []


def test_an_answer_that_refuses_what_was_not_offered() -> None:
    bench = NgBench()
    refused = PLAIN.replace("m=audio 4000", "m=audio 0")
    assert bench.say(offer(refused))["sdp"] == crlf(refused)
    told = theirs(refused)
    assert bench.say(answer(told)) == {"result": b"ok", "sdp": crlf(told)}
    assert bench.stands() == []


def test_an_answer_after_the_end() -> None:
    bench = NgBench()
    bench.start()
    bench.delete()
    assert bench.say(answer()) == {"result": b"error", "error-reason": b"Unknown call-id"}


def test_the_same_call_again_after_its_end() -> None:
    bench = NgBench()
    bench.start()
    bench.delete()
    bench.start()
    assert bench.stands() == [(CallState.TALKING, False)]


def test_an_offer_during_the_delay_revives_the_call() -> None:
    bench = NgBench()
    facing_alice, facing_bob = bench.start()
    bench.delete(**{"delete-delay": 30})
    bench.run(5)
    assert bench.ports(offer()) == [facing_bob.port]
    assert bench.ports(answer(theirs(PLAIN))) == [facing_alice.port]
    bench.run(60)
    assert [state for state, _ in bench.stands()] == [CallState.TALKING]


def test_a_call_that_is_challenged_tries_again() -> None:
    bench = NgBench()
    first = bench.ports(offer(via_branch="z1"))
    bench.delete()  # 407
    bench.run(1)
    assert bench.ports(offer(via_branch="z2")) != [] and first
    bench.ports(answer(theirs(PLAIN)))
    assert bench.stands() == [(CallState.TALKING, False)]


def test_traffic_is_dropped_until_it_is_said_otherwise() -> None:
    bench = NgBench()
    _, facing_bob = bench.start(PRIVATE, **{"drop-traffic": "start"})
    assert bench.packet(BOB, facing_bob) == []
    assert bench.ports(reoffer(PRIVATE)) == [facing_bob.port]
    assert bench.packet(BOB, facing_bob) == []
    assert bench.ports(reoffer(HOLD, flags=["drop-traffic-stop"])) == [facing_bob.port]
    assert len(bench.packet(BOB, facing_bob)) == 1


def test_no_ports_and_no_calls_left() -> None:
    bench = NgBench(port_min=20000, port_max=20002)
    bench.start()
    refused = bench.say({**offer(), "call-id": "other"})
    assert refused == {"result": b"error", "error-reason": b"Ran out of ports"}
    bench = NgBench(max_calls=1)
    bench.start()
    refused = bench.say({**offer(), "call-id": "other"})
    assert refused == {"result": b"error", "error-reason": b"Parallel session limit reached"}
    refused = bench.say({**offer(supports=["load limit"]), "call-id": "other"})
    assert refused == {"result": b"load limit", "message": b"Parallel session limit reached"}


def test_mux_is_remembered_by_the_relay() -> None:
    bench = NgBench()
    assert b"a=rtcp-mux" not in bench.say(offer(MUX, rtcp_mux=["demux"]))["sdp"]
    assert b"a=rtcp-mux" in bench.say(answer())["sdp"]


def test_the_version_is_counted_by_what_the_relay_remembers() -> None:
    bench = NgBench()
    words = {"replace": ["sdp-version"]}
    versions = []
    for request in (offer(**words), reoffer(**words), reoffer(HOLD, **words), reoffer(HOLD, **words)):
        versions.append(bench.say(request)["sdp"].split(b"\r\n")[1].split()[2])
    assert versions == [b"1", b"1", b"2", b"2"]


@pytest.mark.parametrize("flags", [[], ["trust-address"], ["SIP-source-address"]])
def test_a_phone_behind_nat_is_heard_from_where_it_really_is(flags: list[str]) -> None:
    bench = NgBench()
    facing_alice, _ = bench.start(PRIVATE, flags=flags)
    assert bench.packet("203.0.113.1:31000", facing_alice, rtp())
    assert bench.packet("198.18.0.9:1", facing_alice, rtp(9, 9)) == []


def test_a_spiral_stays_as_it_is() -> None:
    bench = NgBench()
    once = bench.say(offer())["sdp"]
    assert bench.say(offer(once))["sdp"] == once
    assert bench.say({**offer(once), "call-id": "d"})["sdp"] != once, "a server between two calls"
    assert once != crlf(PLAIN)


def test_who_was_deleted_has_a_reason() -> None:
    bench = NgBench()
    bench.start()
    bench.delete()
    assert [report.reason for report in bench.ended] == [EndReason.BYE]


def test_an_offer_without_to_tag_in_an_answered_call_is_a_further_one() -> None:
    bench = NgBench()
    facing_alice, facing_bob = bench.start()
    assert bench.ports(offer(HOLD)) == [facing_bob.port]
    assert bench.ports(answer(theirs(PLAIN))) == [facing_alice.port]
    assert bench.stands() == [(CallState.HELD, True)]


def test_an_ipv6_sdp_at_an_ipv4_relay_counts_for_the_address_that_the_phone_signals_by() -> None:
    bench = NgBench()
    told = bench.say(offer(PLAIN.replace("IP4 192.0.2.10", "IP6 fd00::2")))
    assert told["result"] == b"ok" and b"c=IN IP4 192.0.2.1\r\n" in told["sdp"]
    (facing_alice,) = bench.ports(answer(theirs(PLAIN)))
    assert bench.packet(ALICE, at(f"{V4}:{facing_alice}"))
    other = bench.say({**offer(PLAIN.replace("IP4 192.0.2.10", "IP6 fd00::2")), "call-id": "d", "received-from": ""})
    assert other == {"result": b"error", "error-reason": b"this relay has no IPv6 address"}
