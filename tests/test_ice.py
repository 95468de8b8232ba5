"""The relay as an ICE lite agent: relay/ice.py by itself, and in a call (RFC 8445 §2.5, §7.3)."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mediaproxy.control import EndCause, MediaPort, MediaReply, Wishes
from mediaproxy.endpoint import Endpoint
from mediaproxy.events import PeerLearned, Side
from mediaproxy.relay.effects import Send
from mediaproxy.relay.ice import Check, Credentials, check
from mediaproxy.relay.stun import Attribute, Class, Message, encode, parse, xor_address
from tests.relaybench import ALICE, BOB, DTLS, RTCP, STUN, Bench, Phone, rtp, stream
from tests.restarts import Shelf, keep_all, kept, restart

OWN = Credentials("ourname1", "our-password-has-24-chars")
SOURCE = Endpoint("203.0.113.9", 4444)
TRANSACTION = bytes(range(12))


def request(
    *more: tuple[int, bytes],
    username: str | None = "ourname1:theirs",
    password: str | None = OWN.password,
    kind: Class = Class.REQUEST,
    method: int = 1,
    controlling: bool = True,
) -> bytes:
    """A connectivity check."""
    attributes = [(int(Attribute.PRIORITY), b"\x6e\0\1\xff")]
    if controlling:
        attributes.append((int(Attribute.ICE_CONTROLLING), bytes(8)))
    if username is not None:
        attributes.append((int(Attribute.USERNAME), username.encode("latin-1")))
    message = Message(kind=kind, method=method, transaction=TRANSACTION, attributes=(*attributes, *more))
    return encode(message, None if password is None else password.encode())


NOMINATES = (int(Attribute.USE_CANDIDATE), b"")


def test_a_good_check() -> None:
    checked = check(request(), SOURCE, OWN)
    assert (checked.valid, checked.nominated, checked.ufrag, checked.why) == (True, False, "theirs", "")
    answer = parse(checked.answer)
    assert answer is not None and answer.kind is Class.SUCCESS and answer.transaction == TRANSACTION
    assert answer.fingerprint and answer.authentic(OWN.password.encode())
    assert answer.attributes == ((Attribute.XOR_MAPPED_ADDRESS, xor_address(SOURCE, TRANSACTION)),)


def test_one_that_nominates() -> None:
    assert check(request(NOMINATES), SOURCE, OWN).nominated


ERRORS = {
    "no username": ({"username": None}, 400, False),
    "a name that is too long": ({"username": f"ourname1:{'x' * 500}"}, 400, False),
    "no password": ({"password": None}, 400, False),
    "neither": ({"username": None, "password": None}, 400, False),
    "another name": ({"username": "ourname2:theirs"}, 401, False),
    "a longer name": ({"username": "ourname12:theirs"}, 401, False),
    "the names turned round": ({"username": "theirs:ourname1"}, 401, False),
    "another password": ({"password": "our-password-has-24-charS"}, 401, False),
    "it is controlled": ({"controlling": False, "more": ((Attribute.ICE_CONTROLLED, bytes(8)),)}, 487, True),
    "an attribute that must be understood": ({"more": ((0x7777, b"?"),)}, 420, True),
}


@pytest.mark.parametrize(("changed", "code", "authentic"), ERRORS.values(), ids=ERRORS)
def test_errors(changed: dict[str, object], code: int, authentic: bool) -> None:
    changed = dict(changed)
    more = changed.pop("more", ())
    checked = check(request(*more, **changed), SOURCE, OWN)  # type: ignore[arg-type,misc]  # named values
    assert not checked.valid and not checked.nominated
    answer = parse(checked.answer)
    assert answer is not None and answer.kind is Class.ERROR and answer.fingerprint
    value = answer.value(Attribute.ERROR_CODE)
    assert value is not None and value[2] * 100 + value[3] == code
    assert answer.authentic(OWN.password.encode()) is authentic
    unknown = answer.value(Attribute.UNKNOWN_ATTRIBUTES)
    assert unknown == (b"\x77\x77" if code == 420 else None)


@pytest.mark.parametrize(
    "more", [(), ((0x8022, b"agent"),), ((0xC057, b"\0\0\3\xe7"),)], ids=["none", "software", "vendor"]
)
def test_who_says_no_role_and_what_need_not_be_understood(more: tuple[tuple[int, bytes], ...]) -> None:
    assert check(request(*more, controlling=False), SOURCE, OWN).valid


SILENT = {
    "no STUN": b"\x80" + bytes(40),
    "empty": b"",
    "no FINGERPRINT": STUN,
    "a wrong FINGERPRINT": request()[:-1] + b"\0",
    "a response": request(kind=Class.SUCCESS),
    "an error": request(kind=Class.ERROR),
    "another method": request(method=3),
}


@pytest.mark.parametrize("data", SILENT.values(), ids=SILENT)
def test_what_is_not_answered(data: bytes) -> None:
    checked = check(data, SOURCE, OWN)
    assert (checked.answer, checked.valid) == (b"", False) and checked.why


def test_keep_alives() -> None:
    assert check(request(kind=Class.INDICATION), SOURCE, OWN) == Check(valid=True)
    assert check(request(kind=Class.INDICATION, username=None, password=None), SOURCE, OWN) == Check()


@given(st.binary(max_size=200))
def test_noise(data: bytes) -> None:
    assert not check(data, SOURCE, OWN).valid
    assert not check(request()[:20] + data, SOURCE, OWN).valid


def test_credentials_are_long_and_never_the_same() -> None:
    rng = random.Random(1)
    made = [Credentials.make(rng) for _ in range(200)]
    assert len({one.ufrag for one in made}) == len({one.password for one in made}) == 200
    assert all(len(one.ufrag) >= 4 and len(one.password) >= 22 for one in made)
    assert all(character.isalnum() or character in "+/" for one in made for character in one.ufrag + one.password)


# -- in a call


class Call:
    """Alice makes her checks with the relay; Bob has no ICE."""

    def __init__(self, **changed: object) -> None:
        self.bench = Bench(**changed)
        self.facing_bob = self.port(self.bench.invite((stream("10.0.0.1:4000", ice=True, rtcp_mux=False),)))
        answer = self.bench.answer((stream("198.51.100.2:32"),), wishes=Wishes(lite=(True,)), ice=())
        self.facing_alice = self.port(answer)
        self.own = Credentials(self.facing_alice.ufrag, self.facing_alice.password)

    @staticmethod
    def port(reply: MediaReply, index: int = 0) -> MediaPort:
        port = reply.ports[index]
        assert port is not None, reply
        return port

    def check(
        self, source: str, *, nominate: bool = True, rtcp: bool = False, username: str = "", password: str = ""
    ) -> list[Send]:
        """What leaves the relay because of a check."""
        username, password = username or f"{self.own.ufrag}:alice1", password or self.own.password
        data = request(*[NOMINATES] * nominate, username=username, password=password)
        local = self.facing_alice.rtcp if rtcp else self.facing_alice.rtp
        assert local is not None
        return self.bench.packet(source, local, data)


AWAY = "192.88.99.7:777"
"An address that neither SDP nor signalling names."


def test_only_who_was_promised_gets_credentials() -> None:
    call = Call()
    assert len(call.own.ufrag) >= 4 and len(call.own.password) >= 22
    assert (call.facing_bob.ufrag, call.facing_bob.password) == ("", "")


def test_they_are_the_same_for_all_offers_and_streams() -> None:
    call = Call()
    bench = call.bench
    two = (stream("198.51.100.2:32"), stream("198.51.100.2:36", kind="video", types=(96,)))
    offer = bench.media(bench.bob, bench.alice, two, cseq=5, wishes=Wishes(lite=(True, True)))
    for index in (0, 1):
        port = call.port(offer, index)
        assert (port.ufrag, port.password) == (call.own.ufrag, call.own.password)
    both = bench.media(bench.alice, bench.bob, two, cseq=5, status=200, wishes=Wishes(lite=(True, True)))
    assert call.port(both).ufrag not in ("", call.own.ufrag), "the other party gets others"


def again(call: Call, name: str, cseq: int, *, status: int = 200) -> MediaPort:
    """Alice offers with that user name, Bob answers: what Alice is shown."""
    bench = call.bench
    offer = (stream("10.0.0.1:4000", ice=True, rtcp_mux=False),)
    bench.media(bench.alice, bench.bob, offer, cseq=cseq, ice=((name, "secret"),))
    answer = (stream("198.51.100.2:32"),)
    return call.port(bench.media(bench.bob, bench.alice, answer, cseq=cseq, status=status, wishes=LITE, ice=()))


LITE = Wishes(lite=(True,))


def test_who_begins_ice_anew_is_shown_others() -> None:
    """RFC 8839 4.4.3.2: the answer has another user name and password then, and only then."""
    call = Call()
    first = again(call, "alice1", 2)
    assert (first.ufrag, first.password) == (call.own.ufrag, call.own.password)
    second = again(call, "alice2", 3)
    assert second.ufrag != first.ufrag and second.password != first.password
    assert again(call, "alice2", 4) == second
    for name, password, kind in (
        (f"{second.ufrag}:alice2", second.password, Class.SUCCESS),
        (f"{first.ufrag}:alice1", first.password, Class.SUCCESS),  # she may not have seen the answer yet
        (f"{second.ufrag}:alice2", first.password, Class.ERROR),
    ):
        (send,) = call.check(AWAY, username=name, password=password)
        answer = parse(send.data)
        assert answer is not None and answer.kind is kind


def test_who_takes_back_that_it_begins_anew_has_what_it_had() -> None:
    call = Call()
    bench = call.bench
    first = again(call, "alice1", 2)
    offer = (stream("10.0.0.1:4000", ice=True, rtcp_mux=False),)
    bench.media(bench.alice, bench.bob, offer, cseq=3, ice=(("alice2", "secret"),), wishes=Wishes(label="x"))
    (stands,) = bench.calls.of("call-1")
    assert stands.credentials[Side.CALLER].ufrag != first.ufrag
    assert again(call, "alice1", 4) == first


def test_another_phone_of_a_fork_begins_nothing_anew() -> None:
    bench = Bench()
    facing_bob = Call.port(bench.invite(wishes=LITE))
    answer = (stream("10.0.0.2:4000", ice=True),)
    for by, name in ((bench.bob, "bobs"), (DESK, "desks"), (bench.bob, "bobs")):
        bench.answer(answer, by=by, status=183, ice=((name, "p"),))
        assert Call.port(bench.invite(wishes=LITE)).ufrag == facing_bob.ufrag


def test_a_check_is_answered_and_not_forwarded() -> None:
    call = Call()
    (send,) = call.check(AWAY, nominate=False)
    assert (send.local, str(send.target)) == (call.facing_alice.rtp, AWAY)
    answer = parse(send.data)
    assert answer is not None and answer.kind is Class.SUCCESS
    assert not call.bench.packet(AWAY, call.facing_alice.rtp), "it has not nominated"
    assert call.bench.side(Side.CALLER).learned is None


def test_a_nominated_source_latches_by_force_of_the_password() -> None:
    call = Call()
    bench = call.bench
    call.check(AWAY)
    learned = [event for event in bench.events if isinstance(event, PeerLearned)]
    assert [(str(event.source), event.side) for event in learned] == [(AWAY, Side.CALLER)]
    assert bench.packet(AWAY, call.facing_alice.rtp)
    (send,) = bench.packet(BOB, call.facing_bob.rtp)
    assert str(send.target) == AWAY
    assert not bench.packet("198.18.0.9:1", call.facing_alice.rtp), "a stranger is refused as usual"
    assert not bench.packet(ALICE, call.facing_alice.rtp), "and who has her address, for she speaks"


def test_a_new_nomination_moves_it_at_once() -> None:
    call = Call()
    call.check(AWAY)
    call.bench.packet(AWAY, call.facing_alice.rtp)
    call.bench.run(5)
    call.check(ALICE)
    assert call.bench.packet(ALICE, call.facing_alice.rtp, rtp(9, ssrc=99))
    assert not call.bench.packet(AWAY, call.facing_alice.rtp, rtp(2)), "the old one is out"


def test_the_wrong_password_moves_nothing() -> None:
    call = Call()
    for password, username in (("x" * 24, ""), ("", "x:y")):
        (send,) = call.check("198.18.0.9:1", password=password, username=username)
        answer = parse(send.data)
        assert answer is not None and answer.kind is Class.ERROR
    side = call.bench.side(Side.CALLER)
    assert side.learned is None and side.refused_packets == 2
    assert any("wrong password" in warning for warning in side.warnings)


def test_who_is_told_that_he_is_wrong_is_not_told_without_end() -> None:
    call = Call(unlearned_rate=10)
    assert sum(len(call.check("198.18.0.9:1", password="x" * 24)) for _ in range(50)) == 20
    assert call.check(AWAY), "others are answered"


def test_strangers_checks_use_up_nothing_that_media_needs() -> None:
    call = Call(unlearned_rate=10)
    for _ in range(50):
        call.check("198.18.0.9:1", password="x" * 24)
    assert call.bench.packet(BOB, call.facing_bob.rtp)


def test_anybody_may_matter_until_a_check_has_told_who_does() -> None:
    call = Call()
    assert call.facing_alice.rtcp is not None
    ports = (call.facing_alice.rtp, call.facing_alice.rtcp)
    assert [call.bench.flows[port].allowed for port in ports] == [(), ()]
    call.check("198.18.0.9:1", password="x" * 24)
    assert [call.bench.flows[port].allowed for port in ports] == [(), ()]
    call.check(AWAY)
    for port in ports:
        assert call.bench.flows[port].allowed, "a flood costs no more than at any port"
        assert call.bench.flows[port].settled_at is None
    assert "192.88.99.7/32" in call.bench.flows[ports[0]].allowed
    assert call.check("192.88.99.8:5"), "who comes from elsewhere, knows the password and nominates is followed"
    assert "192.88.99.8/32" in call.bench.flows[ports[0]].allowed


def test_both_components() -> None:
    call = Call()
    call.check(AWAY)
    call.check("192.88.99.7:778", rtcp=True)
    rtcp = call.facing_alice.rtcp
    assert rtcp is not None
    assert call.bench.packet("192.88.99.7:778", rtcp, RTCP)
    assert str(call.bench.side(Side.CALLER).rtcp_learned) == "192.88.99.7:778"


def test_checks_keep_a_call_alive() -> None:
    call = Call()
    for _ in range(20):
        call.bench.run(30)
        call.check(AWAY)
    assert not call.bench.ended
    for _ in range(5):
        call.bench.run(30)
        call.check("198.18.0.9:1", password="x" * 24)
    assert call.bench.ended, "those of strangers do not"


def test_the_plane_passes_up_what_is_no_rtp() -> None:
    call = Call()
    call.check(AWAY)
    call.bench.packet(BOB, call.facing_bob.rtp)
    call.bench.packet(AWAY, call.facing_alice.rtp)
    flow = call.bench.flows[call.facing_alice.rtp]
    assert flow.rtp_only and str(flow.source) == AWAY
    assert not call.bench.flows[call.facing_bob.rtp].rtp_only
    (send,) = call.check(AWAY)
    assert send.local == call.facing_alice.rtp, "consent is answered (RFC 7675)"


def test_stun_of_the_other_party_is_not_for_her() -> None:
    call = Call()
    bench = call.bench
    bench.media(bench.bob, bench.alice, (stream("198.51.100.2:32", ice=True),), cseq=5, wishes=Wishes(lite=(True,)))
    call.check(AWAY)
    assert not bench.packet(BOB, call.facing_bob.rtp, STUN)


def test_handshakes_pass() -> None:
    call = Call()
    bench = call.bench
    dtls = (stream("198.51.100.2:32", dtls=True),)
    bench.media(bench.bob, bench.alice, dtls, cseq=5, wishes=Wishes(lite=(True,)))
    bench.media(bench.alice, bench.bob, (stream("10.0.0.1:4000", ice=True, dtls=True),), cseq=5, status=200)
    call.check(AWAY)
    assert bench.packet(AWAY, call.facing_alice.rtp, DTLS)


def test_a_callee_may_check_before_its_answer_is_seen() -> None:
    bench = Bench()
    facing_bob = Call.port(bench.invite(wishes=Wishes(lite=(True,))))
    own = Credentials(facing_bob.ufrag, facing_bob.password)
    data = request(NOMINATES, username=f"{own.ufrag}:bobs", password=own.password)
    (send,) = bench.packet(AWAY, facing_bob.rtp, data)
    assert str(send.target) == AWAY
    assert not bench.packet(AWAY, facing_bob.rtp), "nobody has said yet what media there is"
    bench.answer((stream("10.0.0.2:4000", ice=True),), ice=(("bobs", "secret"),))
    assert bench.packet(AWAY, facing_bob.rtp)


DESK = Phone("desk", "198.51.100.11", "10.0.0.1:4000", branch="z9hG4bK-desk")


def test_forks_all_know_the_password() -> None:
    """Each makes its checks at the same port: who is not heard now must not take the place of who is."""
    bench = Bench()
    facing_bob = Call.port(bench.invite(wishes=Wishes(lite=(True,))))
    own = Credentials(facing_bob.ufrag, facing_bob.password)
    answer = (stream("10.0.0.2:4000", ice=True),)
    bench.answer(answer, status=183, ice=(("bobs", "p"),))

    def nominate(source: str, ufrag: str) -> list[Send]:
        data = request(NOMINATES, username=f"{own.ufrag}:{ufrag}", password=own.password)
        return bench.packet(source, facing_bob.rtp, data)

    nominate("198.51.100.2:1", "bobs")
    assert nominate("198.51.100.11:1", "desks"), "it is answered"
    assert bench.packet("198.51.100.2:1", facing_bob.rtp)
    bench.answer(answer, by=DESK, ice=(("desks", "p"),))
    nominate("198.51.100.11:1", "desks")
    assert bench.packet("198.51.100.11:1", facing_bob.rtp)


def test_a_restart_changes_nothing() -> None:
    call, shelf = Call(), Shelf()
    bench = call.bench
    bench.calls.keep()
    call.check(AWAY)
    before, flows = bench.report, dict(bench.flows)
    keep_all(bench, shelf)
    restart(bench, shelf.saved(bench.now), kept(bench))
    assert (bench.report, bench.flows) == (before, flows)
    (send,) = call.check(AWAY)
    answer = parse(send.data)
    assert answer is not None and answer.authentic(call.own.password.encode())
    offer = bench.media(bench.bob, bench.alice, (stream("198.51.100.2:32"),), cseq=5, wishes=Wishes(lite=(True,)))
    assert Call.port(offer).password == call.own.password


def test_without_the_promise_checks_are_the_parties_business() -> None:
    call = Call()
    bench = call.bench
    bench.media(bench.bob, bench.alice, (stream("198.51.100.2:32", ice=True),), cseq=5, wishes=Wishes())
    bench.media(bench.alice, bench.bob, (stream("10.0.0.1:4000", ice=True),), cseq=5, status=200)
    (send,) = bench.packet(ALICE, call.facing_alice.rtp, STUN)
    assert send.data == STUN


def test_a_refused_offer_takes_its_promise_back() -> None:
    call = Call()
    bench = call.bench
    two = (stream("198.51.100.2:32", ice=True),)
    bench.media(bench.bob, bench.alice, two, cseq=5, wishes=Wishes())
    bench.end(EndCause.REFUSED, bench.alice, bench.bob, cseq=5, status=488)
    assert call.check(AWAY)
