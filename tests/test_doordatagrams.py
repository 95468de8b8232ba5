"""Doors for datagrams: answers go where requests come from, repetitions are known, and nobody waits for another."""

import asyncio
import logging

import pytest

from mediaproxy.dialects.door import LINES
from mediaproxy.dialects.doordatagrams import MOST_OF_ONE, DatagramDoor
from tests.doorhouse import Arm, KeepingArm, PromptArm, Words, client, hear, opened, say, settings, until, words_door

pytestmark = [pytest.mark.usefixtures("no_leaks"), pytest.mark.both_loops]

LOCAL = "udp://127.0.0.1:0"


@pytest.mark.parametrize("arm", [Arm, PromptArm])
async def test_a_question_and_its_answer(arm: type[Arm]) -> None:
    door = words_door(settings(LOCAL), arm())
    async with opened(door):
        with client(door) as sock:
            await say(sock, b"c1 hello")
            assert await hear(sock) == b"c1 hello 1\n"
        assert isinstance(door.dialect, Words)
        (peer,) = door.dialect.peers
        assert peer.transport == "udp"
        assert peer.address.startswith("127.0.0.1:")
    report = door.report()
    assert (report.requests, report.errors, report.working, report.repeated) == (1, 0, 0, 0)
    assert report.seconds >= report.longest >= 0.0
    assert report.address == f"udp://127.0.0.1:{door.address.port}"


async def test_ipv6() -> None:
    door = words_door(settings("udp://[::1]:0"))
    async with opened(door):
        with client(door) as sock:
            await say(sock, b"c1 hello")
            assert await hear(sock) == b"c1 hello 1\n"
        assert isinstance(door.dialect, Words)
        assert door.dialect.peers[0].address.startswith("[::1]:")


@pytest.mark.parametrize(
    ("anywhere", "there"),
    [("udp://0.0.0.0:0", "127.0.0.77"), ("udp://[::]:0", "::1"), ("udp://0.0.0.0:0", "127.0.0.1")],
)
async def test_the_answer_comes_from_the_address_that_was_asked(anywhere: str, there: str) -> None:
    """A client's connected socket hears nothing from another one."""
    door = words_door(settings(anywhere, allow=("127.0.0.0/8", "::1")))
    async with opened(door):
        with client(door, to=there) as sock:
            await say(sock, b"c1 hello")
            assert await hear(sock) == b"c1 hello 1\n"
            await say(sock, b"c1 hello")
            assert await hear(sock) == b"c1 hello 1\n"


async def test_the_same_cookie_gets_the_same_answer_and_nothing_is_done_again() -> None:
    arm = PromptArm()
    door = words_door(settings(LOCAL), arm)
    async with opened(door):
        with client(door) as sock:
            for request in (b"c1 hello", b"c1 hello", b"c1 something else", b"c2 hello"):
                await say(sock, request)
            heard = [await hear(sock) for _ in range(4)]
        assert heard == [b"c1 hello 1\n"] * 3 + [b"c2 hello 2\n"]
    assert arm.asked == ["hello", "hello"]
    assert (door.report().requests, door.report().repeated) == (2, 2)


async def test_the_same_cookie_of_another_peer_is_another_request() -> None:
    door = words_door(settings(LOCAL))
    async with opened(door):
        with client(door) as one, client(door) as other:
            await say(one, b"c1 hello")
            assert await hear(one) == b"c1 hello 1\n"
            await say(other, b"c1 bye")
            assert await hear(other) == b"c1 bye 2\n"
    assert door.report().repeated == 0


async def test_a_repetition_waits_for_the_first_one() -> None:
    arm = PromptArm()
    door = words_door(settings(LOCAL), arm)
    async with opened(door):
        with client(door) as sock:
            await say(sock, b"c1 later", b"c1 later", b"c1 later")
            await until(lambda: door.report().repeated == 2)
            assert door.report().working == 1
            arm.gate.set()
            assert {await hear(sock) for _ in range(3)} == {b"c1 later 1\n"}
    assert arm.asked == ["later"]


async def test_answers_wait_for_the_journal() -> None:
    arm = KeepingArm()
    door = words_door(settings(LOCAL), arm)
    async with opened(door):
        with client(door) as sock:
            await say(sock, b"c1 one", b"c2 two", b"c1 one")
            await until(lambda: door.report().repeated == 1)
            assert door.report().working == 2
            arm.pending[1].give()
            assert await hear(sock) == b"c2 two 2\n"
            arm.pending[0].give()
            assert [await hear(sock) for _ in range(2)] == [b"c1 one 1\n"] * 2
    assert door.report().working == 0


async def test_who_waits_holds_up_nobody() -> None:
    arm = PromptArm()
    door = words_door(settings(LOCAL), arm)
    async with opened(door):
        with client(door) as one, client(door) as other:
            await say(one, b"c1 later")
            await until(lambda: door.report().working == 1)
            await say(one, b"c2 hello")
            assert await hear(one) == b"c2 hello 2\n"
            await say(other, b"c1 hello")
            assert await hear(other) == b"c1 hello 3\n"
            arm.gate.set()
            assert await hear(one) == b"c1 later 1\n"


async def test_one_address_cannot_have_everything_under_way() -> None:
    arm = Arm()
    door = words_door(settings(LOCAL), arm)
    async with opened(door):
        with client(door, "127.0.0.2") as flood, client(door, "127.0.0.3") as other:
            for number in range(MOST_OF_ONE + 50):
                await say(flood, b"c%d later" % number)
                if number % 50 == 0:
                    await until(lambda: door.report().working + door.report().dropped > number)  # noqa: B023 (now)
            await until(lambda: door.report().dropped == 50)
            assert door.report().working == MOST_OF_ONE
            await say(other, b"c1 hello")
            assert (await hear(other)).startswith(b"c1 hello")
            arm.gate.set()
            await until(lambda: door.report().working == 0)
            while True:
                try:
                    flood.recv(100)
                except BlockingIOError:
                    break
            await say(flood, b"once more")
            assert (await hear(flood)).startswith(b"once more")


async def test_what_is_no_request_is_dropped_and_may_come_again(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "mediaproxy.doors")
    door = words_door(settings(LOCAL))
    async with opened(door):
        with client(door) as sock:
            await say(sock, *[b"c1 bad"] * 50, b"c2 hello")
            assert await hear(sock) == b"c2 hello 1\n"
    report = door.report()
    assert (report.malformed, report.requests, report.repeated) == (50, 1, 0)
    lines = [record.message for record in caplog.records]
    assert len(lines) == LINES
    assert lines[0] == f"{door.address}: 127.0.0.1: no word of ours"


async def test_answers_that_are_errors_or_nothing() -> None:
    door = words_door(settings(LOCAL))
    async with opened(door):
        with client(door) as sock:
            await say(sock, b"c1 wrong", b"c2 silent", b"c2 silent", b"c3 hello")
            assert await hear(sock) == b"c1 error\n"
            assert await hear(sock) == b"c3 hello 1\n"
    report = door.report()
    assert (report.requests, report.errors, report.repeated) == (3, 1, 1)


async def test_a_fault_of_ours_is_logged_and_the_door_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    door = words_door(settings(LOCAL))
    async with opened(door):
        with client(door) as sock:
            await say(sock, b"c1 fault", b"c2 hello")
            assert await hear(sock) == b"c2 hello 1\n"
    assert "a fault of the dialect" in caplog.text
    assert door.report().working == 0


async def test_who_may_not_ask_is_not_heard(caplog: pytest.LogCaptureFixture) -> None:
    door = words_door(settings(LOCAL, allow=("127.0.0.2",)))
    async with opened(door):
        with client(door, "127.0.0.3") as stranger, client(door, "127.0.0.2") as server:
            await say(stranger, *[b"c1 hello"] * 20)
            await say(server, b"c1 hello")
            assert await hear(server) == b"c1 hello 1\n"
            with pytest.raises(BlockingIOError):
                stranger.recv(100)
    assert door.report().refused == 20
    assert len([record for record in caplog.records if "127.0.0.3" in record.message]) == LINES


async def test_what_is_too_long_is_dropped() -> None:
    door = words_door(settings(LOCAL, max_request=1024))
    async with opened(door):
        with client(door) as sock:
            await say(sock, b"c1 " + b"x" * 1022, b"c2 hello", b"c3 " + b"x" * 1021)
            assert await hear(sock) == b"c2 hello 1\n"
            assert len(await hear(sock)) > 1021
    assert door.report().dropped == 1


async def test_an_answer_that_no_datagram_can_carry_is_told(caplog: pytest.LogCaptureFixture) -> None:
    door = words_door(settings(LOCAL))
    async with opened(door):
        with client(door) as sock:
            await say(sock, b"c1 long", b"c2 hello")
            assert await hear(sock) == b"c2 hello 1\n"
    assert door.report().dropped == 1
    assert "an answer of 1000004 bytes was not sent" in caplog.text


async def test_a_long_cookie_is_answered_but_not_remembered() -> None:
    door = words_door(settings(LOCAL))
    cookie = b"c" * 256
    async with opened(door):
        with client(door) as sock:
            await say(sock, cookie + b" hello", cookie + b" hello")
            assert await hear(sock) == cookie + b" hello 1\n"
            assert await hear(sock) == cookie + b" hello 2\n"
    assert isinstance(door, DatagramDoor)
    assert len(door.cache) == 0


async def test_a_door_that_stops_ends_what_is_under_way() -> None:
    door = words_door(settings(LOCAL), Arm())
    async with opened(door):
        with client(door) as sock:
            await say(sock, b"c1 later")
            await until(lambda: door.report().working == 1)
    await asyncio.sleep(0)


async def test_a_place_that_is_taken() -> None:
    first = words_door(settings(LOCAL))
    async with opened(first):
        second = words_door(settings(f"udp://127.0.0.1:{first.address.port}"))
        with pytest.raises(OSError, match="in use"):
            await second.start()
