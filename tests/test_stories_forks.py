"""Stories of how calls begin: early media, forks, two answers, CANCEL that crosses a 200, failures, late offers."""

import pytest

from mediaproxy.events import CallAnswered, CallEnded, CallRevived, CallStarted, EndReason
from tests.vnet import RESTRICTED, SYMMETRIC
from tests.vphone import Phone
from tests.vworld import World


def fork(
    world: World, *, early: bool = False, answers: tuple[float | None, float | None]
) -> tuple[Phone, Phone, Phone]:
    """Alice, and Bob with two phones at two homes: "bob" and "bobby" by their tones."""
    alice, desk, mobile = world.phone("alice"), world.phone("bob"), world.phone("bob", world.home(SYMMETRIC))
    mobile.tone = "bobby"
    for phone, after in zip((desk, mobile), answers, strict=True):
        phone.answer_after, phone.early = after, early
    return alice, desk, mobile


def nothing_left(world: World) -> None:
    """One record per call, and every port given back."""
    world.net.run(100)
    assert len(world.relay.seen(CallEnded)) == len(world.relay.seen(CallStarted))
    assert not world.relay.plane.lent
    assert world.relay.calls.reports(world.net.now) == ()


# Early media


def test_early_media_both_ways_and_on_into_the_call() -> None:
    world = World(strict=True)
    alice, bob = world.pair(SYMMETRIC, RESTRICTED)
    bob.early, bob.answer_after = True, 5.0
    call = alice.call("bob")
    world.net.run(1)
    assert call.state == "ringing"
    world.two_way(call, bob.last)
    rang = world.net.now
    world.net.run(4)
    assert call.state == "up"
    assert world.share(call, "bob", rang) >= 0.99, "no gap at the answer"
    world.two_way(call, bob.last)
    call.hang_up()
    nothing_left(world)


def test_early_media_of_two_forks_the_newest_is_heard() -> None:
    """Both sides of a fork play music: the caller hears one of them; when the other answers, only that one."""
    world = World(strict=True)
    alice, desk, mobile = fork(world, early=True, answers=(6.0, None))
    mobile.deaf_to = {"CANCEL"}
    call = alice.call("bob")
    world.net.run(1)
    since = world.net.now
    world.net.run(3)
    heard = {heard.tone for heard in call.voice.heard if heard.at >= since}
    assert len(heard) == 1, "one at a time"
    newest = desk if call.remote_tag == desk.last.tag else mobile
    assert heard == {newest.tone}, "the one whose 18x came last"
    world.net.run(3)
    assert call.state == "up"
    assert mobile.last.state == "ringing", "it missed the CANCEL and plays on"
    world.two_way(call, desk.last)
    call.hang_up()
    world.net.run(1)
    mobile.last.over()
    nothing_left(world)


def test_early_media_of_two_forks_and_the_first_one_answers() -> None:
    """The second one plays music, which the caller hears, until the first one lifts."""
    world = World(strict=True)
    alice, desk, mobile = fork(world, early=True, answers=(4.0, None))
    desk.early_after, mobile.early_after = 0.5, 1.5
    call = alice.call("bob")
    world.net.run(1.4)
    assert call.voice.tones() == {"bob"}
    since = world.net.now + 0.3
    world.net.run(2)
    assert {heard.tone for heard in call.voice.heard if heard.at >= since} == {"bobby"}
    world.net.run(1)
    assert call.state == "up" and call.remote_tag == desk.last.tag
    world.two_way(call, desk.last)
    call.hang_up()
    nothing_left(world)


def test_second_183_of_the_same_phone_changes_nothing() -> None:
    world = World(strict=True)
    alice, bob = world.pair()
    bob.early, bob.answer_after = True, 5.0
    call = alice.call("bob")
    world.net.run(2)
    assert bob.last.invite is not None
    bob.ring_again(bob.last)
    since = world.net.now
    world.net.run(1)
    assert world.share(call, "bob", since) >= 0.99


# Forks


def test_a_failed_branch_frees_only_itself() -> None:
    world = World(strict=True)
    alice, desk, mobile = fork(world, answers=(0.5, 2.0))
    desk.answer_status = 486
    call = alice.call("bob")
    world.net.run(3.5)
    assert desk.last.state == "over" and call.state == "up"
    world.two_way(call, mobile.last)
    call.hang_up()
    nothing_left(world)
    assert world.relay.ends == [EndReason.BYE]


def test_a_failed_early_branch_leaves_the_other_ones_early_media() -> None:
    world = World(strict=True)
    alice, desk, mobile = fork(world, early=True, answers=(3.0, 6.0))
    desk.answer_status = 486
    call = alice.call("bob")
    world.net.run(4)
    assert desk.last.state == "over" and call.state == "ringing"
    world.net.run(3)
    assert call.state == "up"
    world.two_way(call, mobile.last)


def test_all_branches_fail() -> None:
    world = World()
    alice, desk, mobile = fork(world, answers=(0.5, 1.0))
    desk.answer_status, mobile.answer_status = 486, 603
    call = alice.call("bob")
    world.net.run(2)
    assert call.state == "over" and call.status == 603
    world.net.run(29)
    assert world.relay.ends == [], "it lingers for a 2xx that may cross"
    world.net.run(5)
    assert world.relay.ends == [EndReason.FAILURE]
    assert world.relay.ended[0].status == 603
    nothing_left(world)


def test_the_first_answer_locks_out_the_other_branch() -> None:
    """The loser misses its CANCEL, answers never, and plays early media for ever: nobody hears it."""
    world = World(strict=True)
    alice, desk, mobile = fork(world, early=True, answers=(None, 1.0))
    desk.deaf_to = {"CANCEL"}
    call = alice.call("bob")
    world.net.run(2)
    assert call.state == "up" and desk.last.voice.sent > 80
    world.two_way(call, mobile.last, seconds=5)
    assert desk.last.voice.count("alice", world.net.now - 5) == 0, "and it does not overhear the call"


def test_two_answers() -> None:
    """Both phones lift at once (RFC 3261 §13.2.2.4): two dialogs with ports of their own; the BYE of one ends one."""
    world = World(strict=True)
    alice, desk, mobile = fork(world, answers=(1.0, 1.0))
    alice.call("bob")
    world.net.run(3)
    first, second = alice.calls
    assert {first.state, second.state, desk.last.state, mobile.last.state} == {"up"}
    assert first.voice.remote != second.voice.remote
    since = world.net.now
    world.net.run(3)
    for tone in ("bob", "bobby"):
        assert world.share(first, tone, since) >= 0.99, "one ear hears both"
    for phone in (desk, mobile):
        assert world.share(phone.last, "alice", since) >= 0.99
        assert phone.last.voice.tones() == {"alice"}
    assert len(world.relay.seen(CallAnswered)) == 2
    second.hang_up()
    world.net.run(1)
    survivor = desk if desk.last.tag == first.remote_tag else mobile
    world.two_way(first, survivor.last)
    assert world.relay.ends == []
    first.hang_up()
    nothing_left(world)
    assert world.relay.ends == [EndReason.BYE]


def test_two_answers_and_the_first_one_hangs_up() -> None:
    world = World(strict=True)
    alice, desk, mobile = fork(world, answers=(1.0, 1.0))
    alice.call("bob")
    world.net.run(3)
    first, second = alice.calls
    survivor = desk if desk.last.tag == second.remote_tag else mobile
    loser = mobile if survivor is desk else desk
    loser.last.hang_up()
    world.net.run(1)
    since = world.net.now
    world.net.run(2)
    assert world.share(survivor.last, "alice", since) >= 0.99
    assert world.relay.ends == []
    second.hang_up()
    nothing_left(world)


# CANCEL


def test_cancel() -> None:
    world = World()
    alice, bob = world.pair()
    bob.answer_after = None
    call = alice.call("bob")
    world.net.run(2)
    call.cancel()
    world.net.run(1)
    assert call.state == bob.last.state == "over"
    world.net.run(40)
    assert world.relay.ends == [EndReason.CANCEL]
    nothing_left(world)


@pytest.mark.parametrize("keeps", [True, False], ids=["caller stays", "caller hangs up"])
def test_cancel_crosses_a_200(keeps: bool) -> None:
    """The callee lifts just before the CANCEL reaches it: there is a call, and it has sound until somebody hangs up."""
    world = World(strict=True)
    alice, bob = world.pair(SYMMETRIC, SYMMETRIC)
    alice.takes_crossed = keeps
    bob.answer_after = 1.0
    call = alice.call("bob")
    world.net.run(1.015)  # bob lifts 20 ms after the INVITE left, plus his second
    assert bob.last.state == "ringing"
    call.cancel()
    world.net.run(0.5)
    assert len(world.relay.seen(CallRevived)) == 1
    if keeps:
        assert call.state == bob.last.state == "up"
        world.two_way(call, bob.last)
        world.net.run(60)
        world.two_way(call, bob.last)
        call.hang_up()
    world.net.run(1)
    assert call.state == bob.last.state == "over"
    nothing_left(world)
    assert world.relay.ends == [EndReason.BYE]


def test_the_next_call_after_a_cancelled_one() -> None:
    world = World(strict=True)
    alice, bob = world.pair()
    bob.answer_after = None
    call = alice.call("bob")
    world.net.run(2)
    call.cancel()
    world.net.run(1)
    bob.answer_after = 1.0
    world.two_way(*world.connect(alice, bob))


# Late offers


@pytest.mark.parametrize("early", [False, True])
def test_late_offer(early: bool) -> None:
    """INVITE without SDP, the offer in the 200, the answer in the ACK."""
    world = World(strict=True)
    alice, bob = world.pair(SYMMETRIC, SYMMETRIC)
    bob.early = early
    call = alice.call("bob", late_offer=True)
    world.net.run(2.5)
    assert call.state == "up"
    world.two_way(call, bob.last)
    bob.last.hang_up()
    nothing_left(world)


# Many


def test_many_calls_at_once() -> None:
    """Ten calls in all directions between six phones: everybody hears whom he should."""
    world = World(strict=True)
    phones = [world.phone(f"p{number}") for number in range(6)]
    calls = []
    for number in range(10):
        caller, callee = phones[number % 6], phones[(number * 2 + 1) % 6]
        if caller is not callee:
            caller.tone, callee.tone = f"{caller.name}c{number}", f"{callee.name}c{number}"
            calls.append(caller.call(callee.name))
            world.net.run(1.2)
            calls.append(callee.last)
    since = world.net.now
    world.net.run(2)
    for one, other in zip(calls[::2], calls[1::2], strict=True):
        assert one.voice.tones() == {other.voice.tone} and other.voice.tones() == {one.voice.tone}
        assert world.share(one, other.voice.tone, since) >= 0.99
    for call in calls[::2]:
        call.hang_up()
    nothing_left(world)
