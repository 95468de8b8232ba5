"""relay/switching.py: what a SIP server blocks and silences (control.SwitchRequest)."""

from typing import Any

import msgspec
import pytest

from mediaproxy.control import MediaReply, Switch, SwitchRequest, TotalsRequest, Wishes
from mediaproxy.endpoint import Endpoint
from mediaproxy.events import Side, totals_of
from mediaproxy.relay.gate import Gate
from mediaproxy.relay.inquiries import inquire
from tests.relaybench import ALICE, BOB, DTLS, RTCP, STUN, Bench, Phone, rtp, stream
from tests.restarts import Shelf, keep_all, kept, restart

DESK = Phone("desk", "198.51.100.11", "10.0.0.1:4000", branch="z9hG4bK-desk")
DESK_MEDIA = "198.51.100.11:33"


def switch(bench: Bench, how: Switch, *, call_id: str = "call-1", **whom: Any) -> MediaReply:
    asked = SwitchRequest(call_id=call_id, switch=how, **whom)
    reply, effects = inquire(bench.calls, asked, bench.now)
    bench.do(effects)
    return reply


class Talk:
    """A call in which both speak, with the flows in the plane."""

    def __init__(self, **more: object) -> None:
        self.bench = Bench()
        sdp = (stream("203.0.113.1:31", **more),)  # type: ignore[arg-type]  # fields by name
        facing_bob = self.bench.invite(sdp, wishes=Wishes(label="A")).ports[0]
        facing_alice = self.bench.answer((stream("10.0.0.2:4000", **more),)).ports[0]  # type: ignore[arg-type]  # same
        assert facing_alice is not None and facing_bob is not None
        self.alice, self.bob = facing_alice.rtp, facing_bob.rtp
        self.number = 0
        self.both()

    def say(self, source: str, port: Endpoint, payload_type: int = 0) -> list[bytes]:
        self.number += 1
        return [send.data for send in self.bench.packet(source, port, rtp(self.number, payload_type=payload_type))]

    def both(self) -> tuple[bool, bool]:
        """Whether Alice and Bob are heard."""
        return bool(self.say(ALICE, self.alice)), bool(self.say(BOB, self.bob))


WHOM = {
    "both": ({}, (False, False)),
    "the caller by tag": ({"tag": "alice"}, (False, True)),
    "the callee by tag": ({"tag": "bob"}, (True, False)),
    "by label": ({"label": "A"}, (False, True)),
    "by address": ({"address": "10.0.0.2"}, (True, False)),
    "by address, in the call's SDP": ({"address": "203.0.113.1"}, (False, True)),
}


@pytest.mark.parametrize(("whom", "heard"), WHOM.values(), ids=WHOM)
def test_who_is_blocked(whom: dict[str, str], heard: tuple[bool, bool]) -> None:
    talk = Talk()
    assert talk.both() == (True, True)
    assert switch(talk.bench, Switch.BLOCK, **whom) == MediaReply(relay="relay-1")
    assert talk.both() == heard
    switch(talk.bench, Switch.UNBLOCK, **whom)
    assert talk.both() == (True, True)


@pytest.mark.parametrize("whole", [True, False])
def test_what_a_journal_of_before_tells_stays_until_it_is_taken_back(whole: bool) -> None:
    """It does not say who was asked about, the party or the whole call."""
    gate = msgspec.convert([True, False], Gate)
    gate.turn(Switch.SILENCE, whole=whole)
    assert (gate.blocked, gate.silenced) == (True, True)
    gate.turn(Switch.UNSILENCE, whole=whole)
    assert (gate.blocked, gate.silenced) == (True, False)
    gate.turn(Switch.UNBLOCK, whole=whole)
    assert (gate.blocked, gate.silenced) == (False, False)


@pytest.mark.parametrize(("shut", "open_"), [(Switch.BLOCK, Switch.UNBLOCK), (Switch.SILENCE, Switch.UNSILENCE)])
def test_a_party_by_itself_and_the_whole_call_are_two_things(shut: Switch, open_: Switch) -> None:
    talk = Talk()
    bench = talk.bench

    def shown() -> tuple[str, str]:
        return bench.side(Side.CALLER).switched, bench.side(Side.CALLEE).switched

    switch(bench, shut, tag="alice")
    switch(bench, open_)
    assert shown() == (shut, ""), "nobody has taken back what was asked about Alice"
    switch(bench, shut)
    switch(bench, open_, tag="alice")
    assert shown() == (shut, shut), "nobody has taken back what was asked about the call"
    switch(bench, open_)
    assert shown() == ("", "")
    switch(bench, shut, tag="alice")
    switch(bench, shut, tag="bob")
    switch(bench, open_, everybody=True)
    assert shown() == ("", "")
    assert talk.both() == (True, True)


NOBODY = {
    "another call": ({"call_id": "other"}, 481),
    "a tag": ({"tag": "mallory"}, 404),
    "a label": ({"label": "B"}, 404),
    "an address": ({"address": "192.0.2.99"}, 404),
    "no address": ({"address": "nowhere"}, 404),
}


@pytest.mark.parametrize(("whom", "status"), NOBODY.values(), ids=NOBODY)
def test_who_is_nobody(whom: dict[str, str], status: int) -> None:
    talk = Talk()
    assert switch(talk.bench, Switch.BLOCK, **whom).status == status
    assert talk.both() == (True, True)


def test_what_is_blocked_is_counted_and_keeps_the_call_alive() -> None:
    talk = Talk()
    bench = talk.bench
    switch(bench, Switch.BLOCK)
    for _ in range(10):
        bench.run(30)
        talk.both()
    bench.calls.note(bench.slots.values())
    caller, callee = bench.side(Side.CALLER), bench.side(Side.CALLEE)
    assert (caller.packets, callee.sent) == (11, 1)
    assert (caller.switched, callee.switched) == ("block", "block")
    assert any("the SIP server has asked for it" in warning for warning in caller.warnings)
    (totals,) = totals_of(inquire(bench.calls, TotalsRequest(), bench.now)[0])
    assert totals.packets == 2


def test_the_plane_drops_what_is_blocked() -> None:
    talk = Talk()
    switch(talk.bench, Switch.BLOCK, tag="alice")
    flow = talk.bench.flows[talk.alice]
    assert flow.source is not None and flow.peer is None
    back = talk.bench.flows[talk.bob]
    assert back.source is not None and back.peer == talk.alice and flow.target is not None


def test_rtcp_is_blocked_too() -> None:
    talk = Talk()
    port = talk.alice.with_port(talk.alice.port + 1)
    assert talk.bench.packet(ALICE, port, RTCP)
    switch(talk.bench, Switch.BLOCK, tag="alice")
    assert not talk.bench.packet(ALICE, port, RTCP)


@pytest.mark.parametrize("shake", [STUN, DTLS], ids=["STUN", "DTLS"])
def test_who_is_blocked_shakes_hands(shake: bytes) -> None:
    """Else consent (RFC 7675) would expire, and the call could never be heard again."""
    talk = Talk(ice=True, dtls=True)
    switch(talk.bench, Switch.BLOCK)
    assert talk.both() == (False, False)
    assert talk.bench.packet(ALICE, talk.alice, shake)


def test_blocked_before_anybody_was_heard() -> None:
    bench = Bench()
    bench.invite()
    switch(bench, Switch.BLOCK)
    facing_alice = bench.answer().ports[0]
    assert facing_alice is not None
    assert not bench.packet(ALICE, facing_alice.rtp) and not bench.packet(ALICE, facing_alice.rtp, rtp(2))
    assert bench.side(Side.CALLER).learned is not None, "it is learned all the same"
    assert bench.side(Side.CALLEE).switched == "block", "whoever answers"


def test_offers_change_nothing() -> None:
    talk = Talk()
    bench = talk.bench
    switch(bench, Switch.BLOCK, tag="bob")
    bench.media(bench.alice, bench.bob, (stream("203.0.113.1:31"), stream("10.0.0.1:4010")), cseq=2)
    bench.media(bench.bob, bench.alice, (stream("10.0.0.2:4000"), stream("10.0.0.2:4010")), cseq=2, status=200)
    assert talk.both() == (True, False)
    assert [one.callee.switched for one in bench.report.streams] == ["block", "block"]
    assert [one.caller.switched for one in bench.report.streams] == ["", ""]


def test_each_fork_has_its_own() -> None:
    bench = Bench()
    bench.talk()
    facing = bench.answer(by=DESK).ports[0]
    assert facing is not None
    switch(bench, Switch.BLOCK, tag="desk")
    assert {one.leg: one.callee.switched for one in bench.report.streams} == {"bob": "", "desk": "block"}


@pytest.mark.parametrize("how", [Switch.BLOCK, Switch.SILENCE])
def test_a_restart_changes_nothing(how: Switch) -> None:
    talk, shelf = Talk(), Shelf()
    bench = talk.bench
    bench.calls.keep()
    switch(bench, how, tag="alice")
    before, flows = bench.report, dict(bench.flows)
    keep_all(bench, shelf)
    restart(bench, shelf.saved(bench.now), kept(bench))
    assert bench.report == before and bench.flows == flows
    assert bench.side(Side.CALLER).switched == how.value
    switch(bench, Switch.UNBLOCK if how is Switch.BLOCK else Switch.UNSILENCE, tag="alice")
    assert talk.both() == (True, True)


def test_the_journal_is_told() -> None:
    talk, shelf = Talk(), Shelf()
    keep_all(talk.bench, shelf)
    switch(talk.bench, Switch.BLOCK)
    assert talk.bench.calls.changes


# -- silence


def test_a_silenced_party_is_not_heard_and_goes_on() -> None:
    talk = Talk()
    (voice,) = talk.say(ALICE, talk.alice)
    switch(talk.bench, Switch.SILENCE, tag="alice")
    (sent,) = talk.say(ALICE, talk.alice)
    assert (len(sent), sent[12:]) == (len(voice), b"\xff" * 160)
    assert sent[:12] == rtp(talk.number)[:12]
    assert talk.say(BOB, talk.bob)[0][12:] == bytes(160), "the other one is heard"
    assert talk.bench.packet(ALICE, talk.alice.with_port(talk.alice.port + 1), RTCP)
    switch(talk.bench, Switch.UNSILENCE, tag="alice")
    assert talk.say(ALICE, talk.alice)[0][12:] == bytes(160)
    talk.say(ALICE, talk.alice)
    assert talk.bench.flows[talk.alice].source is not None, "it is the plane's again"


def test_digits_of_a_silenced_party_are_not_sent() -> None:
    talk = Talk()
    switch(talk.bench, Switch.SILENCE)
    assert talk.say(ALICE, talk.alice, 101) == []


def test_video_goes_on() -> None:
    talk = Talk(kind="video")
    switch(talk.bench, Switch.SILENCE)
    assert talk.both() == (True, True)
    assert talk.say(ALICE, talk.alice)[0][12:] == bytes(160)


@pytest.mark.parametrize("more", [{"sdes": True}, {"transport": "RTP/SAVP"}, {"dtls": True}], ids=str)
def test_what_is_encrypted_cannot_be_replaced(more: dict[str, object]) -> None:
    talk = Talk(**more)
    switch(talk.bench, Switch.SILENCE)
    assert talk.both() == (False, False)


def test_a_fax_goes_on() -> None:
    talk = Talk(kind="image", transport="udptl")
    switch(talk.bench, Switch.SILENCE)
    assert talk.both() == (True, True)


def test_blocked_and_silenced() -> None:
    talk = Talk()
    switch(talk.bench, Switch.SILENCE)
    switch(talk.bench, Switch.BLOCK)
    assert talk.both() == (False, False)
    switch(talk.bench, Switch.UNBLOCK)
    assert talk.say(ALICE, talk.alice)[0][12:] == b"\xff" * 160
