"""rtpproxy's commands answered by the relay's calls, in virtual time."""

import msgspec
import pytest

from mediaproxy.control import EndRequest, ListRequest, MediaRequest, QueryRequest
from mediaproxy.dialects.notices import BY_THEMSELVES
from mediaproxy.endpoint import Endpoint
from mediaproxy.events import CallState, EndReason, Side
from mediaproxy.relay.settings import RelayAddress
from tests.relaybench import ALICE, BOB, RTCP, STRANGER, STUN, UDPTL, V4, at, rtp
from tests.rtppbench import ProxyBench

U = "Uc0,101 c1 203.0.113.1 4000 a;1"
L = "Lc0,101 c1 198.51.100.2 4000 a;1 b;1"


def talking(bench: ProxyBench) -> tuple[int, int]:
    """A call that talks: the ports that face Alice and Bob."""
    facing_bob, facing_alice = bench.port(U), bench.port(L)
    return facing_alice, facing_bob


def sdp(bench: ProxyBench, index: int, side: Side) -> Endpoint | None:
    """Where a party wants a stream."""
    return bench.side(side, index).sdp


def test_an_offer_and_its_answer_get_ports_and_media_flows() -> None:
    bench = ProxyBench()
    facing_alice, facing_bob = talking(bench)
    assert facing_alice != facing_bob and not facing_alice % 2
    (sent,) = bench.packet("203.0.113.1:4000", at(f"{V4}:{facing_alice}"))
    assert sent.local.port == facing_bob and sent.target == at("198.51.100.2:4000")
    (sent,) = bench.packet(BOB, at(f"{V4}:{facing_bob}"))  # behind NAT
    assert sent.target == at("203.0.113.1:4000")
    assert bench.state() is CallState.TALKING


def test_asked_again_the_answer_is_the_same() -> None:
    bench = ProxyBench()
    assert bench.port(U) == bench.port(U)
    assert bench.port(L) == bench.port(L)
    assert len(bench.calls) == 1 and bench.calls.ports_lent == 2


def test_an_ipv6_address_is_marked() -> None:
    bench = ProxyBench(addresses=bench_addresses("2001:db8:ffff::1"))
    answer = bench.say("U6c0 c1 2001:db8::1 4000 a;1")
    assert answer.split(" ")[1:] == ["2001:db8:ffff::1", "6"]


def test_modifier_6_asks_for_ipv6_on_the_other_side() -> None:
    bench = ProxyBench(addresses=bench_addresses(V4, "2001:db8:ffff::1"))
    assert bench.say("US6Z20c0 c8 203.0.113.10 4000 a;1").split(" ")[2] == "6"
    assert bench.say("Lc0 c8 2001:db8::9 6000 a;1 b;1").split(" ")[1] == V4


def test_no_address_of_the_version_wanted() -> None:
    assert ProxyBench().say("U6 c1 2001:db8::1 4000 a;1") == "E36"


def bench_addresses(*binds: str) -> tuple[RelayAddress, ...]:
    return tuple(RelayAddress(bind=bind) for bind in binds)


# -- streams


def test_streams_of_a_body_are_one_call() -> None:
    bench = ProxyBench()
    audio = bench.port(U)
    video = bench.port("Uc96 c1 203.0.113.1 4002 a;2")
    assert audio != video
    assert bench.port(U) == audio and bench.port("Uc96 c1 203.0.113.1 4002 a;2") == video
    assert bench.port(L) != bench.port("Lc96 c1 198.51.100.2 4002 a;1 b;2".replace("a;1", "a;2"))
    assert [(stream.index, stream.kind) for stream in bench.report.streams] == [(0, "audio"), (1, "media")]
    assert all(stream.caller.sdp and stream.callee.sdp for stream in bench.report.streams)
    assert bench.say("D c1 a b") == "0"
    assert len(bench.ended) == 1 and bench.calls.ports_lent == 0


def test_a_stream_that_is_switched_off_is_told_a_port() -> None:
    """Kamailio asks about m=video 0 as well, and refuses the whole SDP if it gets no port; it does not write it."""
    bench = ProxyBench()
    audio, video = bench.port(U), bench.port("Uc96 c1 203.0.113.1 4002 a;2")
    bench.port(L)
    assert bench.port("Lc96 c1 198.51.100.2 0 a;2 b;2") not in (0, audio)
    assert sdp(bench, 1, Side.CALLEE) is None
    assert bench.port("Uc96 c1 203.0.113.1 4002 a;2 b;2") == video, "on again"


def test_a_stream_that_never_was_on_is_told_a_port_that_leads_nowhere() -> None:
    bench = ProxyBench()
    assert bench.say("U c1 203.0.113.1 0 a;1") == f"9 {V4}"
    assert len(bench.calls) == 0
    bench.port("Uc96 c1 203.0.113.1 4002 a;2")
    assert bench.say("U c1 203.0.113.1 0 a;3") == f"9 {V4}"
    assert bench.calls.ports_lent == 2


def test_streams_without_numbers_are_the_first_one() -> None:
    """OpenSER 1.1 sends no numbers."""
    bench = ProxyBench()
    assert bench.port("U c1 203.0.113.1 4000 a") == bench.port("U c1 203.0.113.1 4000 a;1")


def test_video_is_added_and_dropped_by_either_party() -> None:
    bench = ProxyBench()
    talking(bench)
    bench.port("Uc0,101 c1 198.51.100.2 4000 b;1 a;1")
    added = bench.port("Uc96 c1 198.51.100.2 5000 b;2 a;2")
    bench.port("Lc0,101 c1 203.0.113.1 4000 b;1 a;1")
    bench.port("Lc96 c1 203.0.113.1 5000 b;2 a;2")
    assert sdp(bench, 1, Side.CALLER) == at("203.0.113.1:5000")
    assert sdp(bench, 1, Side.CALLEE) == at("198.51.100.2:5000")
    assert bench.report.streams[1].caller.local.port == added
    bench.port("Uc96 c1 198.51.100.2 0 b;2 a;2")
    assert sdp(bench, 1, Side.CALLEE) is None
    assert sdp(bench, 0, Side.CALLEE) is not None


def test_more_streams_than_a_call_may_have() -> None:
    bench = ProxyBench(max_streams=2)
    assert bench.say("U c1 203.0.113.1 4000 a;3") == "E72"
    assert bench.say("U c1 203.0.113.1 4000 a;999999999") == "E72"


def test_new_ports() -> None:
    bench = ProxyBench()
    facing_alice, facing_bob = talking(bench)
    bench.packet(BOB, at(f"{V4}:{facing_bob}"))
    new = bench.port("Unc0,101 c1 203.0.113.1 4000 a;1 b;1")
    assert new != facing_bob and bench.port("Unc0,101 c1 203.0.113.1 4000 a;1 b;1") == new, "asked again"
    told = bench.port("Lnc0,101 c1 198.51.100.2 4000 a;1 b;1")
    assert told not in (facing_alice, facing_bob, new)
    (sent,) = bench.packet("203.0.113.1:4000", at(f"{V4}:{told}"))
    assert sent.local.port == new and sent.target == at(BOB), "what was learned stays"
    assert bench.port("Uc0,101 c1 203.0.113.1 4000 a;1 b;1") == new
    bench.run(40)
    assert bench.calls.ports_lent == 2


# -- parties


def test_lookup_of_what_nobody_has_offered() -> None:
    bench = ProxyBench()
    assert bench.say(L) == "0"
    bench.port(U)
    assert bench.say(L.replace("a;1", "x;1")) == "0"
    assert bench.say("Lc96 c1 198.51.100.2 4002 a;2 b;2") == "0", "a stream that was not offered"
    assert bench.calls.ports_lent == 2


def test_a_lookup_does_not_begin_a_call() -> None:
    bench = ProxyBench()
    assert bench.say(L) == "0" and len(bench.calls) == 0 and not bench.events


def test_the_callee_asks() -> None:
    """A re-INVITE of the callee has the tags the other way round."""
    bench = ProxyBench()
    facing_alice, facing_bob = talking(bench)
    assert bench.port("Uc0,101 c1 198.51.100.2 4100 b;1 a;1") == facing_alice
    assert bench.port("Lc0,101 c1 203.0.113.1 4000 b;1 a;1") == facing_bob
    assert bench.side(Side.CALLEE).sdp == at("198.51.100.2:4100")
    assert bench.side(Side.CALLER).sdp == at("203.0.113.1:4000")


def test_a_late_offer() -> None:
    """The offer is in the 200, so U has its tags the other way round, and L comes with the ACK."""
    bench = ProxyBench()
    first, second = bench.port("Uc0 c1 198.51.100.2 4000 b;1 a;1"), bench.port("Lc0 c1 203.0.113.1 4000 b;1 a;1")
    assert first != second
    assert bench.state() is CallState.TALKING
    assert bench.say("D c1 a b") == "0" and bench.ended[0].reason is EndReason.BYE


@pytest.mark.parametrize("command", ["D c1 a", "D c1 b", "D c1 a b", "D c1 b a"])
def test_a_call_that_began_elsewhere_ends_by_either_tag(command: str) -> None:
    """A U with both tags of a call that is not known may be a re-INVITE of either party, or a late offer."""
    bench = ProxyBench()
    bench.port("Uc0 c1 203.0.113.1 4000 a;1 b;1")
    bench.port("Lc0 c1 198.51.100.2 4000 a;1 b;1")
    assert bench.say("D c1 x") == "E50"
    assert bench.say(command) == "0" and len(bench.calls) == 0


@pytest.mark.parametrize("first", ["Uc0 c1 203.0.113.1 4000 a", "Uc0 c1 203.0.113.1 4000 a b"])
def test_a_b2bua_has_u_for_both_parties(first: str) -> None:
    """Sippy's: who has not offered yet answers."""
    bench = ProxyBench(silence=90)
    facing_bob, facing_alice = bench.port(first), bench.port("Uc0 c1 198.51.100.2 6000 b a")
    assert bench.state() is CallState.TALKING
    for source, port, target in (
        ("203.0.113.1:4000", facing_alice, "198.51.100.2:6000"),
        ("198.51.100.2:6000", facing_bob, "203.0.113.1:4000"),
    ):
        (sent,) = bench.packet(source, at(f"{V4}:{port}"))
        assert sent.target == at(target)
    assert bench.port("Uc0 c1 203.0.113.1 4002 a b") == facing_bob, "a later offer, and its answer"
    assert bench.port("Uc0 c1 198.51.100.2 6002 b a") == facing_alice
    assert bench.side(Side.CALLER).sdp in (at("203.0.113.1:4002"), at("198.51.100.2:6002"))
    assert bench.say("D c1 a b") == "0"
    assert [report.reason for report in bench.ended] == [EndReason.BYE] and bench.calls.ports_lent == 0


def test_both_parties_may_have_the_same_tag() -> None:
    bench = ProxyBench()
    first, second = bench.port("Uc0 c1 203.0.113.1 4000 a;1"), bench.port("Lc0 c1 198.51.100.2 4000 a;1 a;1")
    assert first != second
    assert bench.say("D c1 a a") == "0" and len(bench.calls) == 0


def test_forks_have_media_of_their_own_and_end_together() -> None:
    bench = ProxyBench()
    facing_callees = bench.port(U)
    one = bench.port(L)
    other = bench.port("Lc0 c1 198.51.100.3 4000 a;1 b2;1")
    assert one != other
    (sent,) = bench.packet("198.51.100.3:4000", at(f"{V4}:{facing_callees}"))
    assert sent.local.port == other
    assert bench.say("D c1 b2 a") == "0"
    assert len(bench.ended) == 1 and bench.calls.ports_lent == 0


def test_a_serial_fork_is_offered_the_same_ports() -> None:
    """The first branch had a 183; the INVITE for the second one asks without To tag."""
    bench = ProxyBench()
    port = bench.port(U)
    bench.port(L)
    assert bench.port(U) == port
    assert bench.port("Uc0,101 c1 203.0.113.1 4004 a;1") == port, "the caller has changed his SDP"
    assert bench.port("Lc0 c1 198.51.100.3 4000 a;1 b2;1")
    assert bench.say("Uc0 c1 192.0.2.66 4000 a;1") == "E72", "who was rung knows Call-ID and tag"


def test_before_the_answer_an_offer_may_come_with_another_address() -> None:
    """The INVITE with credentials may have other media than the first one, and the protocol tells nothing else."""
    bench = ProxyBench()
    port = bench.port(U)
    assert bench.port("Uc0 c1 203.0.113.77 6000 a;1") == port
    facing_alice = bench.port(L)
    (sent,) = bench.packet("198.51.100.2:4000", at(f"{V4}:{port}"))
    assert sent.local.port == facing_alice and sent.target == at("203.0.113.77:6000")


# -- who may speak


def test_who_has_another_address_than_was_told_passes_probation() -> None:
    """Carriers send media from elsewhere than SIP, and a server does not tell both addresses."""
    bench = ProxyBench()
    facing_alice, facing_bob = talking(bench)
    port = at(f"{V4}:{facing_bob}")
    assert not bench.packet("198.18.0.9:700", port, rtp(1)), "not at once"
    bench.run(3)
    for sequence in range(2, 12):
        bench.packet("198.18.0.9:700", port, rtp(sequence))
    assert bench.side(Side.CALLEE).learned == at("198.18.0.9:700") and bench.side(Side.CALLEE).rank == 4


def test_an_operator_may_forbid_that() -> None:
    bench = ProxyBench(latch_unknown="never")
    _, facing_bob = talking(bench)
    bench.run(3)
    for sequence in range(12):
        assert not bench.packet(STRANGER, at(f"{V4}:{facing_bob}"), rtp(sequence))


def test_with_payload_types_only_rtp_latches_and_ice_and_dtls_pass() -> None:
    bench = ProxyBench()
    _, facing_bob = talking(bench)
    port = at(f"{V4}:{facing_bob}")
    assert not bench.packet(BOB, port, UDPTL) and not bench.packet(BOB, port, rtp(payload_type=77))
    assert bench.packet(BOB, port, STUN)
    assert bench.side(Side.CALLEE).learned is None
    assert bench.packet(BOB, port, rtp())
    assert bench.side(Side.CALLEE).learned == at(BOB)


@pytest.mark.parametrize("media", [UDPTL, rtp(), bytes([22, 254, 253]) + bytes(50)])
def test_without_payload_types_anything_latches_but_ice_checks(media: bytes) -> None:
    """T.38, and RTP of a server that tells no payload types."""
    bench = ProxyBench()
    facing_bob = bench.port("U c6 203.0.113.1 4000 a;1")
    facing_alice = bench.port("L c6 198.51.100.2 4000 a;1 b;1")
    port = at(f"{V4}:{facing_bob}")
    assert bench.packet("198.51.100.2:999", port, STUN) and bench.side(Side.CALLEE).learned is None
    (sent,) = bench.packet(BOB, port, media)
    assert sent.local.port == facing_alice and bench.side(Side.CALLEE).learned == at(BOB)
    (rtcp,) = bench.packet("198.51.100.2:33", at(f"{V4}:{facing_bob + 1}"), RTCP)
    assert rtcp.target == at("203.0.113.1:4001")


def test_t38_in_a_call_that_talked() -> None:
    """The stream that was audio becomes T.38: the same ports, and udptl flows."""
    bench = ProxyBench()
    facing_alice, facing_bob = talking(bench)
    bench.packet(BOB, at(f"{V4}:{facing_bob}"), rtp())
    assert bench.port("U c1 198.51.100.2 4000 b;1 a;1") == facing_alice
    assert bench.port("L c1 203.0.113.1 4000 b;1 a;1") == facing_bob
    assert bench.packet(BOB, at(f"{V4}:{facing_bob}"), UDPTL)
    assert bench.packet(ALICE, at(f"{V4}:{facing_alice}"), UDPTL)


def test_an_asymmetric_party_is_sent_to_where_it_was_told() -> None:
    bench = ProxyBench()
    facing_bob = bench.port(U)
    facing_alice = bench.port("LAc0,101 c1 198.51.100.2 4000 a;1 b;1")
    bench.packet("198.51.100.2:999", at(f"{V4}:{facing_bob}"))
    (sent,) = bench.packet("203.0.113.1:4000", at(f"{V4}:{facing_alice}"))
    assert sent.target == at("198.51.100.2:4000")
    assert bench.report.callee.asymmetric and not bench.report.caller.asymmetric


# -- time


def test_a_call_ends_by_silence_and_its_server_is_to_be_told() -> None:
    bench = ProxyBench(silence=90)
    bench.port(U + " tcp:192.0.2.50:9000 tag%201")
    bench.port(L)
    bench.run(89)
    assert not bench.ended
    bench.run(2)
    assert bench.ended[0].reason is EndReason.SILENT and bench.ended[0].notify == "rtpp:tcp:192.0.2.50:9000 tag 1"


def test_the_newest_u_says_whom_to_tell() -> None:
    bench = ProxyBench()
    bench.port(U + " tcp:192.0.2.50:9000 t")
    bench.port(U + " tcp:192.0.2.50:9000 u")
    bench.port(L)
    assert bench.report.notify == "rtpp:tcp:192.0.2.50:9000 t", "a repetition changes nothing"
    bench.port("Uc0,101 c1 203.0.113.1 4010 a;1 b;1")
    assert bench.report.notify == "rtpp:", "without a socket nobody is told"


def hold(bench: ProxyBench) -> None:
    """A re-INVITE that says nothing new to rtpproxy: a=sendonly is not told."""
    bench.port("Uc0,101 c1 203.0.113.1 4000 a;1 b;1")
    bench.port(L)


def test_a_silence_that_follows_an_offer_is_taken_for_a_hold() -> None:
    bench = ProxyBench(silence=90, hold=7200)
    facing_alice, _ = talking(bench)
    bench.packet("203.0.113.1:4000", at(f"{V4}:{facing_alice}"))
    bench.run(20)
    bench.packet("203.0.113.1:4000", at(f"{V4}:{facing_alice}"))
    hold(bench)
    bench.run(300)
    assert not bench.ended, "5 minutes on hold"
    hold(bench)
    bench.packet("203.0.113.1:4000", at(f"{V4}:{facing_alice}"))
    bench.run(15)
    bench.packet("203.0.113.1:4000", at(f"{V4}:{facing_alice}"))
    bench.run(92)
    assert bench.ended[0].reason is EndReason.SILENT, "it had been resumed"


def test_a_hold_ends_too() -> None:
    bench = ProxyBench(silence=90, hold=600)
    facing_alice, _ = talking(bench)
    bench.packet("203.0.113.1:4000", at(f"{V4}:{facing_alice}"))
    bench.run(5)
    hold(bench)
    bench.run(590)
    assert not bench.ended
    bench.run(20)
    assert bench.ended[0].reason is EndReason.HOLD_EXPIRED


def test_0_0_0_0_is_a_hold() -> None:
    bench = ProxyBench()
    talking(bench)
    bench.port("Uc0,101 c1 0.0.0.0 4000 a;1 b;1")
    assert bench.state() is CallState.HELD
    bench.port("Uc0,101 c1 203.0.113.1 4000 a;1 b;1")
    assert bench.state() is CallState.TALKING, "the SDP as it was before is a new one"


def test_a_call_that_was_given_up_can_be_tried_again() -> None:
    """407 and credentials, or the next destination: D, and U with the same Call-ID and tag."""
    bench = ProxyBench(linger=32)
    port = bench.port(U)
    assert bench.say("D c1 a") == "0"
    assert [bench.say(f"{verb} c1 a;1") for verb in "QDSR"] == ["E50"] * 4, "it is gone, but for who tries it again"
    assert bench.port(U) == port
    bench.run(60)
    assert not bench.ended and bench.state() is CallState.RINGING
    bench.port(L)
    assert bench.state() is CallState.TALKING


def test_after_its_end_a_call_may_begin_anew() -> None:
    bench = ProxyBench()
    talking(bench)
    assert bench.say("D c1 a b") == "0"
    assert bench.say(L) == "0", "the call of this answer has ended"
    assert bench.port(U) and bench.state() is CallState.RINGING
    assert bench.say("D c1 a b") == "0"


# -- D, X


@pytest.mark.parametrize("tags", ["a b", "b a", "a", "a other", "other a", "a;1 b;1", "a;1"])
def test_the_callers_tag_ends_all(tags: str) -> None:
    bench = ProxyBench()
    talking(bench)
    assert bench.say(f"D c1 {tags}") == "0"
    assert [report.reason for report in bench.ended] == [EndReason.BYE]
    assert bench.say(f"D c1 {tags}") == "E50"


@pytest.mark.parametrize("command", ["D c2 a b", "D c1 b", "D c1 x y", "D c1 A", "D c1 a;2 b"])
def test_what_is_not_a_session_is_not_ended(command: str) -> None:
    bench = ProxyBench()
    talking(bench)
    assert bench.say(command) == "E50" and not bench.ended


def test_a_session_that_was_deleted_before_its_answer_is_not_active() -> None:
    bench = ProxyBench()
    bench.port(U)
    assert bench.say("I").split("\n")[1:3] == ["active sessions: 1", "active streams: 2"]
    assert bench.say("D c1 a") == "0" and len(bench.calls) == 1, "its ports are kept for a 200 that crosses the CANCEL"
    assert bench.say("I").split("\n")[:3] == ["sessions created: 1", "active sessions: 0", "active streams: 0"]


def test_one_stream_of_a_call_that_began_elsewhere_is_ended() -> None:
    bench = ProxyBench()
    bench.port("Uc0 c1 203.0.113.1 4000 a;1 b;1")
    bench.port("Uc96 c1 203.0.113.1 4002 a;2 b;2")
    assert [bench.say(f"D c1 a;{part} b;{part}") for part in (2, 2, 1, 1)] == ["0", "E50", "0", "E50"]
    bench.run(40)
    assert len(bench.calls) == 0


def test_one_stream_is_ended() -> None:
    bench = ProxyBench()
    talking(bench)
    bench.port("Uc96 c1 203.0.113.1 4002 a;2 b;2")
    bench.port("Lc96 c1 198.51.100.2 4002 a;2 b;2")
    assert bench.say("D c1 a;2 b;2") == "0"
    assert sdp(bench, 1, Side.CALLER) is None and sdp(bench, 0, Side.CALLER) is not None
    assert bench.say("Q c1 a;2 b;2") == "E50" and bench.say("Q c1 a;1 b;1").split()[1:] == ["0", "0", "0", "0"]
    assert bench.say("D c1 a;1 b;1") == "0", "the last one"
    assert len(bench.ended) == 1


@pytest.mark.parametrize(
    ("commands", "left"),
    [
        ([U, "D c1 a"], False),
        (["Uwc0 c1 203.0.113.1 4000 a;1", "Dw c1 b a"], False),
        (["Uwc0 c1 203.0.113.1 4000 a;1", "Dw c1 a b"], True),  # lets go what the callee would hold
        (["Uwc0 c1 203.0.113.1 4000 a;1", "D c1 a"], True),
        ([U, "Uwc0,101 c1 203.0.113.1 4000 a;1", "D c1 a"], True),
        ([U, "Uwc0,101 c1 203.0.113.1 4000 a;1", "D c1 a", "Dw c1 b a"], False),
        (["Uwc0 c1 203.0.113.1 4000 a;1", "Lwc0 c1 198.51.100.2 4000 a;1 b;1", "Dw c1 a b"], True),
        (["Uwc0 c1 203.0.113.1 4000 a;1", "Lwc0 c1 198.51.100.2 4000 a;1 b;1", "Dw c1 a b", "Dw c1 b a"], False),
        (["Uwc0 c1 203.0.113.1 4000 a;1", "Lc0 c1 198.51.100.2 4000 a;1 b;1", "Dw c1 b a"], False),
    ],
)
def test_a_session_lives_while_somebody_holds_it(commands: list[str], left: bool) -> None:
    bench = ProxyBench()
    assert all(not bench.say(command).startswith("E") for command in commands)
    bench.run(40)
    assert bool(len(bench.calls)) is left


def test_x_ends_what_came_by_this_protocol() -> None:
    bench = ProxyBench()
    talking(bench)
    bench.port(U.replace("c1", "c2"))
    bench.port("Uwc0 c3 203.0.113.1 4000 a;1")
    bench.call_id = "sip"
    bench.talk()
    assert bench.say("X") == "0"
    assert sorted(report.call_id for report in bench.ended) == ["c1", "c2", "c3"]
    assert not {report.reason for report in bench.ended} & BY_THEMSELVES, "who has said X is not told"
    assert len(bench.calls) == 1


# -- Q, I, G


def test_q_counts_from_the_first_tag() -> None:
    bench = ProxyBench(silence=90)
    facing_alice, facing_bob = talking(bench)
    for sequence in range(3):
        bench.packet("203.0.113.1:4000", at(f"{V4}:{facing_alice}"), rtp(sequence))
    bench.packet(BOB, at(f"{V4}:{facing_bob}"))
    bench.packet(STRANGER, at(f"{V4}:{facing_bob}"))
    assert bench.say("Q c1 a;1 b;1") == "90 3 1 4 1"
    assert bench.say("Q c1 a;1 b") == "90 3 1 4 1", "as Kamailio asks"
    assert bench.say("Q c1 a b") == "90 3 1 4 1"
    assert bench.say("Q c1 b;1 a;1") == "90 1 3 4 1"
    bench.now += 30
    assert bench.say("Qv c1 a") == "ttl=60 npkts_ina=3 npkts_ino=1 nrelayed=4 ndropped=1"
    assert bench.say("Q c1 a;1 b;1 npkts_ino ttl rtpa_nrcvd") == "1 60 3"
    assert bench.say("QV c1 a;1 b;1 rtpa_nlost") == "rtpa_nlost=0"
    every = "ttl npkts_ina npkts_ino nrelayed ndropped rtpa_nsent rtpa_nrcvd rtpa_ndups rtpa_nlost rtpa_perrs"
    assert len(bench.say(f"Q c1 a;1 b;1 {every}").split(" ")) == 10, "what OpenSIPS' rtpproxy_all_stats() asks"
    assert bench.say("Q c1 a;1 b;1 longest_ipi") == "E62"


@pytest.mark.parametrize(
    ("command", "answer"),
    [
        ("Q c2 a;1 b;1", "E50"),
        ("Q c1 a;2 b;2", "E50"),
        ("Q c1 b", "E50"),
        ("Qx c1 a", "E19"),
        ("P c1 prompt session a;1 b;1", "E60"),
        ("P-1 c1 prompt 0 a;1 b;1", "E60"),
        ("P0 c1 prompt 0 a;1 b;1", "0"),
        ("Px c1 prompt 0 a;1", "E17"),
        ("P c2 prompt 0 a;1", "E50"),
        ("S c1 a;1 b;1", "0"),
        ("S c2 a;1 b;1", "E50"),
        ("R c1 a b", "E65"),
        ("Rs c1 a b", "E65"),
        ("Rsx c1 a b", "E6"),
        ("Rx c1 a b", "E7"),
        ("R c2 a b", "E50"),
        ("C c1 udp:192.0.2.1:5 a b", "E65"),
        ("Cx c1 /tmp/x a b", "E7"),
        ("C c2 /tmp/x a b", "E50"),
        ("N c1 a b", "E50"),
        ("Na c1 a b", "E50"),
        ("Nx c1 a b", "E7"),
        ("Nax c1 a b", "E6"),
        ("Dx c1 a b", "E8"),
        ("Gx", "E9"),
        ("Ix", "E18"),
        ("V", "20040107"),
        ("VF 20040107", "1"),
        ("VF 20050322", "1"),
        ("VF 20071116", "0"),
        ("VF 20081102", "1"),
        ("VF 20081224", "1"),
        ("VF 19990101", "0"),
        ("VF x", "0"),
    ],
)
def test_answers_in_a_call(command: str, answer: str) -> None:
    bench = ProxyBench()
    talking(bench)
    assert bench.say(command) == answer
    assert bench.say(f"9_9 {command}", "udp") == f"9_9 {answer}"
    assert bench.state() is CallState.TALKING


LAN, WAN, V6 = "10.0.0.9", "192.0.2.1", "2001:db8:ffff::1"
BRIDGE = (
    RelayAddress(bind=LAN, name="internal"),
    RelayAddress(bind=WAN, name="external"),
    RelayAddress(bind=V6, name="external"),
)


@pytest.mark.parametrize(
    ("modifiers", "facing", "towards"),
    [
        ("", LAN, LAN),
        ("i", LAN, LAN),
        ("ie", LAN, WAN),
        ("EI", WAN, LAN),
        ("ee", WAN, WAN),
        ("e", WAN, LAN),
        ("ei6", WAN, LAN),
        ("L{external}", WAN, WAN),
        (f"L{WAN}", WAN, WAN),
        (f"L{LAN}", LAN, LAN),
        ("R192.0.2.77", LAN, LAN),
    ],
)
def test_which_of_the_relays_addresses_face_whom(modifiers: str, facing: str, towards: str) -> None:
    """The first letter is the side that the message comes from; Kamailio sends the same two with the answer."""
    bench = ProxyBench(addresses=BRIDGE)
    told = bench.say(f"U{modifiers}c0 c1 10.0.0.1 4000 a;1")
    assert told.split(" ")[1] == towards
    assert bench.say(f"L{modifiers}c0 c1 198.51.100.2 4000 a;1 b;1").split(" ")[1] == facing
    assert bench.say(f"U{modifiers}c0 c1 10.0.0.1 4000 a;1") == told
    assert bench.say(f"U{modifiers}c0 c1 10.0.0.1 4002 a;1 b;1") == told, "a session keeps its addresses"


@pytest.mark.parametrize(("modifier", "facing"), [("e", WAN), ("i", LAN)])
def test_one_letter_alone_means_that_the_other_side_is_internal(modifier: str, facing: str) -> None:
    bench = ProxyBench(addresses=tuple(reversed(BRIDGE)))
    assert bench.say(f"U{modifier}c0 c1 203.0.113.1 4000 a;1").split(" ")[1] == LAN
    assert bench.say("Lc0 c1 198.51.100.2 4000 a;1 b;1").split(" ")[1] == facing


def test_external_is_ipv6_if_no_address_has_a_name() -> None:
    bench = ProxyBench(addresses=bench_addresses(WAN, V6))
    assert bench.say("Uiec0 c1 203.0.113.1 4000 a;1").split(" ")[1:] == [V6, "6"]
    assert bench.say("Liec0 c1 2001:db8::7 4000 a;1 b;1").split(" ")[1:] == [WAN]
    assert bench.say("Uei6c0 c2 2001:db8::7 4000 a;1").split(" ")[1:] == [WAN]
    assert bench.say("Ue6c0 c3 2001:db8::7 4000 a;1").split(" ")[1:] == [WAN]


@pytest.mark.parametrize(
    ("modifiers", "number"), [("ei", 11), ("ii", 12), ("ie", 12), ("L{lan}", 31), ("L192.0.2.2", 31)]
)
def test_addresses_that_this_relay_does_not_have(modifiers: str, number: int) -> None:
    bench = ProxyBench()
    assert bench.say(f"U{modifiers} c1 203.0.113.1 4000 a;1") == f"E{number}"
    assert bench.say(f"L{modifiers} c1 203.0.113.1 4000 a;1 b;1") == f"E{number}"
    assert not bench.asked


def test_no_ports_left() -> None:
    bench = ProxyBench(port_min=20000, port_max=20003)
    bench.port(U)
    assert bench.say("U c2 203.0.113.1 4000 a;1") == "E72"


def test_our_own_port_in_a_command_stays_as_it_is() -> None:
    """A spiral: the SDP has been here before."""
    bench = ProxyBench()
    port = bench.port(U)
    assert bench.say(f"Uc0 c1 {V4} {port} a;1") == f"{port} {V4}"
    assert len(bench.calls) == 1
    assert bench.say(f"Uc0 c2 {V4} {port} a;1") != f"{port} {V4}", "another Call-ID: a server between two calls"


def test_what_is_asked_of_the_relay() -> None:
    """One question per command, but for those that need to know how a call stands."""
    bench = ProxyBench()
    kinds = {
        U: [MediaRequest],
        L: [MediaRequest],
        "Q c1 a": [QueryRequest],
        "D c1 a b": [EndRequest],
        "X": [ListRequest],
    }
    for command, expected in kinds.items():
        bench.asked.clear()
        bench.say(command)
        assert [type(one) for one in bench.asked] == expected


def test_questions_travel() -> None:
    bench = ProxyBench()
    bench.say("UAw6c0 c\xff1 203.0.113.1 4000 a\xe9;2 b tcp:h:1 t")
    (question,) = bench.asked
    assert msgspec.json.decode(msgspec.json.encode(question), type=MediaRequest) == question
