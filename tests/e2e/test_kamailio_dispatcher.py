"""A dispatcher that is slow, dead, restarting or talking nonsense, behind a real Kamailio: what a message costs."""

import re
import socket
import time
from collections.abc import Callable, Iterator

import pytest

from lab.netns import wait_until
from mediaproxy.control import MediaReply, encode
from mediaproxy.kamailio.complaints import AGAIN_AFTER
from tests import kamailiosite
from tests.e2e.conftest import need
from tests.kamailiosite import RELAYED, SDP, Behaviour, Site, answer, invite, ports, words

BOUND = 0.3
SLACK = 0.2
"Seconds for a machine that is busy with other things."


@pytest.fixture(scope="module", autouse=True)
def programs() -> None:
    """What these tests need beside the laboratory."""
    need("kamailio", "unshare")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with kamailiosite.site(tmp_path_factory.mktemp("kamailio"), timeout=BOUND) as one:
        yield one


@pytest.fixture(autouse=True)
def healthy(site: Site) -> Iterator[None]:
    """Each test begins and ends with a dispatcher that answers both workers."""
    yield
    site.dispatcher.behaviour = answer
    wait_until("a dispatcher that answers", lambda: asks(site), 30)


def asks(site: Site) -> bool:
    """Whether all is well: of several messages, for both workers, each is."""
    return all([call(site)[::2] == (RELAYED, 1) for _ in range(6)])


def proven(attempt: Callable[[], bool]) -> bool:
    """Whether something holds, by ten attempts: other work on the machine only ever adds delay, so one is proof. The
    workers ask again meanwhile."""
    for number in range(10):
        if number:
            time.sleep(0.6)
        if attempt():
            return True
    return False


def call(site: Site, request: str = "fix_contact media", **routes: str) -> tuple[bytes, float, int]:
    """One INVITE and its failure: the body that arrives, how long all functions took for the message that cost most,
    and the code of the request route's last use_media_proxy."""
    message = site.send(invite(site.alice, site.to, headers=words(request=request, **routes)))
    call_id = message.call_id.encode().hex()
    lines = re.findall(rf"RESULT {call_id} (\S+) (\S+) (-?\d+) (\d+)", site.kamailio.log)
    costs = {"request": 0, "reply": 0}
    for route, _, _, took in lines:
        costs["request" if route in ("request", "branch", "relayed") else "reply"] += int(took)
    codes = [int(code) for route, word, code, _ in lines if route == "request" and word == "media"]
    return message.octets, max(costs.values()) / 1e6, codes[-1] if codes else 0


def mute(connection: socket.socket, line: bytes) -> None:
    """It never answers."""


def close(connection: socket.socket, line: bytes) -> None:
    """It closes instead of answering."""
    connection.shutdown(socket.SHUT_RDWR)


def late(connection: socket.socket, line: bytes) -> None:
    """It answers, after one second."""
    time.sleep(1.0)
    answer(connection, line)


def dripping(connection: socket.socket, line: bytes) -> None:
    """It sends a byte now and then, and never a whole line."""
    for _ in range(20):
        connection.sendall(b"{")
        time.sleep(0.05)


def saying(text: bytes) -> Behaviour:
    """It answers anything with that."""
    return lambda connection, line: connection.sendall(text)


NONSENSE: dict[str, Behaviour] = {
    "never answers": mute,
    "closes": close,
    "answers after a second": late,
    "drips": dripping,
    "text": saying(b"OK\n"),
    "an empty line": saying(b"\n"),
    "bytes": saying(b"\xff\xfe\0\n"),
    "JSON of another kind": saying(b'{"type": "reply", "ports": 5}\n'),
    "a list": saying(b"[[[[[[]]]]]]\n"),
    "deep JSON": saying(b"[" * 100_000 + b"\n"),
    "a question": saying(b'{"type":"confirm","call_id":"x","sender":{},"receiver":{},"cseq":1}\n'),
    "half a line": saying(b'{"type":"reply"'),
    "a huge line": saying(b"x" * 400_000 + b"\n"),
    "endless": saying(b"x" * 2_000_000),
    "too few ports": saying(encode(MediaReply())),
    "too many ports": saying(encode(MediaReply(ports=ports(2)))),
    "two answers": saying(encode(MediaReply(ports=ports(1))) * 2),
}


@pytest.mark.parametrize("name", NONSENSE)
def test_a_message_waits_no_longer_than_the_bound(site: Site, name: str) -> None:
    site.dispatcher.behaviour = NONSENSE[name]

    def attempt() -> bool:
        costs = []
        for _ in range(6):  # both workers
            body, took, code = call(site)
            assert (body, code) == (SDP, -1)
            costs.append(took)
        return max(costs) < BOUND + SLACK

    assert proven(attempt)
    site.dispatcher.behaviour = answer
    time.sleep(1.0 if name == "answers after a second" else 0.0)
    wait_until("a dispatcher that answers", lambda: asks(site), 30)


def test_the_bound_is_for_all_calls_on_a_message(site: Site) -> None:
    site.dispatcher.behaviour = mute
    words = {"request": "media end media end", "branch": "media end", "relayed": "end media"}
    assert proven(lambda: max(call(site, **words)[1] for _ in range(4)) < BOUND + SLACK)


def test_slow_answers_count_together(site: Site) -> None:
    def slow(connection: socket.socket, line: bytes) -> None:
        time.sleep(0.2)
        answer(connection, line)

    site.dispatcher.behaviour = slow

    def attempt() -> bool:
        body, took, code = call(site, "media end")
        return (body, code) == (RELAYED, 1) and took < BOUND + SLACK

    assert proven(attempt)


def test_a_reply_and_its_failure_route_count_as_one(site: Site) -> None:
    site.dispatcher.behaviour = mute
    assert proven(lambda: call(site, "none media", reply="media", failure="end media")[1] < BOUND + SLACK)
    time.sleep(0.6)
    words = {"request": "none", "core": "media", "reply": "end", "failure": "end media"}
    assert proven(lambda: max(call(site, **words)[1] for _ in range(4)) < BOUND + SLACK)


def test_while_it_is_down_nothing_waits(site: Site) -> None:
    site.dispatcher.die()
    costs = []
    for _ in range(6):
        body, took, code = call(site)
        assert (body, code) == (SDP, -1)
        costs.append(took)
    assert sorted(costs)[1] < 0.02
    site.dispatcher.path.unlink()
    assert call(site)[2] == -1
    site.dispatcher.listen()
    wait_until("a dispatcher that answers", lambda: asks(site), 30)


def test_a_restart_between_two_messages_costs_nothing(site: Site) -> None:
    def attempt() -> bool:
        site.dispatcher.restart()
        return all([call(site)[::2] == (RELAYED, 1) for _ in range(3)])

    for _ in range(4):
        assert proven(attempt)


def test_an_answer_never_serves_a_later_question(site: Site) -> None:
    """What comes too late, or without having been asked for, is thrown away with its connection."""
    stale = encode(MediaReply(ports=ports(1, 10000)))

    def afterwards(connection: socket.socket, line: bytes) -> None:
        answer(connection, line)
        time.sleep(0.05)
        connection.sendall(stale)

    site.dispatcher.behaviour = afterwards
    for _ in range(8):
        body, _, code = call(site)
        assert (body, code) in ((RELAYED, 1), (SDP, -1))
        assert b"10000" not in body
        time.sleep(0.1)


def test_an_error_of_the_dispatcher_is_no_reason_to_stop_asking(site: Site) -> None:
    refused = saying(encode(MediaReply(error="no ports left", status=480)))

    def told() -> bool:
        """A worker that has complained just now, in an earlier test, keeps silent for a while."""
        site.dispatcher.behaviour = refused
        call(site)
        return "use_media_proxy(): no ports left" in site.kamailio.log

    def attempt() -> bool:
        site.dispatcher.behaviour = refused
        assert call(site)[::2] == (SDP, -1)
        site.dispatcher.behaviour = answer
        return call(site)[::2] == (RELAYED, 1)

    wait_until("the dispatcher's reason in the log", told, 60)
    assert proven(attempt)


def test_the_log_is_bounded(site: Site) -> None:
    """Each worker tells a line, and is silent about the like for a while."""
    before = len(site.kamailio.log)

    def told() -> int:
        return site.kamailio.log[before:].count("use_media_proxy()")

    site.dispatcher.die()
    began = time.monotonic()
    for _ in range(60):
        call(site)
    wait_until("a line about it", lambda: bool(call(site) and told()))
    periods = 1 + (time.monotonic() - began) / AGAIN_AFTER
    site.dispatcher.path.unlink()
    site.dispatcher.listen()
    assert told() <= 2 * (periods + 1)
