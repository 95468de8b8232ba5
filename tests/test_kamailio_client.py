"""The blocking client's patience, with a clock that the test turns. tests/e2e has it inside a real Kamailio."""

import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mediaproxy.control import EndCause, EndRequest, MediaReply, Party, encode
from mediaproxy.kamailio.client import MAX_LINE, RETRY_AFTER, Client
from tests.kamailiosite import Dispatcher, answer, ports

QUESTION = EndRequest(call_id="c", sender=Party(tag="a"), receiver=Party(), cause=EndCause.BYE)
ANSWER = MediaReply()


class Clock:
    """Stands still until it is turned."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Bench:
    """A client of a dispatcher, with what it reports."""

    def __init__(self, folder: Path) -> None:
        self.clock = Clock()
        self.lines: list[str] = []
        self.dispatcher = Dispatcher(folder / "s")
        self.client = Client(str(folder / "s"), self.lines.append, self.clock)

    def ask(self, seconds: float = 0.3) -> MediaReply | None:
        return self.client.ask(QUESTION, seconds)

    @property
    def asked(self) -> int:
        return len(self.dispatcher.questions)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    one = Bench(tmp_path)
    yield one
    one.client.close()
    one.dispatcher.close()


def nonsense(connection: socket.socket, line: bytes) -> None:
    connection.sendall(b"what?\n")


def test_one_connection_for_all_questions(bench: Bench) -> None:
    assert [bench.ask() for _ in range(5)] == [ANSWER] * 5
    assert bench.dispatcher.connections == 1
    assert bench.lines == []


def test_after_a_failure_nobody_is_asked_for_a_while(bench: Bench) -> None:
    bench.dispatcher.behaviour = nonsense
    assert bench.ask() is None
    bench.dispatcher.behaviour = answer
    bench.clock.now += RETRY_AFTER - 0.01
    assert bench.ask() is None
    assert bench.asked == 1
    bench.clock.now += 0.02
    assert bench.ask() == ANSWER
    assert bench.lines == [
        f"{bench.dispatcher.path}: no answer from the dispatcher: no answer of this protocol",
        f"{bench.dispatcher.path}: the dispatcher answers again",
    ]


def test_every_failure_begins_the_while_anew_and_is_told_once(bench: Bench) -> None:
    bench.dispatcher.behaviour = nonsense
    for _ in range(5):
        assert bench.ask() is None
        bench.clock.now += RETRY_AFTER + 0.01
    assert bench.asked == 5
    assert len(bench.lines) == 1


def test_where_nobody_listens_the_next_question_tries_again(bench: Bench) -> None:
    bench.dispatcher.die()
    assert bench.ask() is None
    assert bench.lines == [f"{bench.dispatcher.path}: no answer from the dispatcher: Connection refused"]
    bench.dispatcher.path.unlink()
    assert bench.ask() is None
    bench.dispatcher.listen()
    assert bench.ask() == ANSWER


def test_no_time_no_question(bench: Bench) -> None:
    assert bench.ask(0.0) is None
    assert bench.ask(-1.0) is None
    assert bench.asked == 0
    assert bench.ask() == ANSWER


def test_the_deadline_counts_all_steps(bench: Bench) -> None:
    """Time that passes between two steps leaves less for the next one."""

    def slow(connection: socket.socket, line: bytes) -> None:
        connection.sendall(b"{")
        bench.clock.now += 0.4
        connection.sendall(b'"type":"reply"}')

    bench.dispatcher.behaviour = slow
    assert bench.ask(0.3) is None
    assert "too late" in bench.lines[0] or "timed out" in bench.lines[0]


def test_the_wait_does_not_end_late(tmp_path: Path) -> None:
    """The kernel's own timers may take 32 ms more than they were told. Other work on the machine only adds to that, so
    one wait of many is proof."""
    costs: list[float] = []
    with Dispatcher(tmp_path / "silent", lambda connection, line: None) as dispatcher:
        while len(costs) < 5 or (min(costs) >= 0.31 and len(costs) < 50):
            client = Client(str(dispatcher.path), lambda line: None)
            before = time.monotonic()
            assert client.ask(QUESTION, 0.3) is None
            costs.append(time.monotonic() - before)
    assert 0.27 < min(costs) < 0.31


def test_a_lost_connection_is_replaced_at_once(bench: Bench) -> None:
    assert bench.ask() == ANSWER
    bench.dispatcher.restart()
    assert bench.ask() == ANSWER
    assert bench.lines == []


def test_a_dispatcher_that_closes_on_every_question_fails(bench: Bench) -> None:
    bench.dispatcher.behaviour = lambda connection, line: connection.shutdown(socket.SHUT_RDWR)
    assert bench.ask() is None
    assert bench.asked == 2
    assert bench.lines == [f"{bench.dispatcher.path}: no answer from the dispatcher: it closes the connection"]


@pytest.mark.parametrize(
    "said",
    [
        b"\n",
        b"{}\n",
        b'{"type":"end"}\n',
        encode(QUESTION),
        encode(MediaReply(ports=ports(1))),
        encode(ANSWER) + b"x",
        encode(ANSWER) * 2,
        b"x" * (MAX_LINE + 1),
        b"\xff" * 10 + b"\n",
    ],
    ids=repr,
)
def test_nonsense_ends_the_connection(bench: Bench, said: bytes) -> None:
    bench.dispatcher.behaviour = lambda connection, line: connection.sendall(said)
    assert bench.ask(0.2) is None
    bench.dispatcher.behaviour = answer
    bench.clock.now += 1.0
    assert bench.ask() == ANSWER
    assert bench.dispatcher.connections == 2


def test_an_answer_that_nobody_asked_for_is_not_heard(bench: Bench) -> None:
    assert bench.ask() == ANSWER
    for connection in bench.dispatcher._open:
        connection.sendall(encode(MediaReply(error="old")))
    assert bench.ask() == ANSWER
    assert bench.dispatcher.connections == 2


def test_a_forked_process_has_a_connection_of_its_own(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The parent's goes on, and no answer gets to the wrong one."""
    assert bench.ask() == ANSWER
    parent = os.getpid()
    monkeypatch.setattr(os, "getpid", lambda: parent + 1)  # as a child would find it
    assert bench.ask() == ANSWER
    assert bench.dispatcher.connections == 2
    bench.client.close()
    monkeypatch.undo()
    assert bench.ask() == ANSWER
    assert bench.dispatcher.connections == 2


def test_a_script_that_is_loaded_anew_goes_on_with_the_connection(bench: Bench) -> None:
    assert bench.ask() == ANSWER
    again = Client(str(bench.dispatcher.path), bench.lines.append)
    assert again.ask(QUESTION, 0.3) == ANSWER
    assert bench.dispatcher.connections == 1


def test_a_path_that_cannot_be(tmp_path: Path) -> None:
    lines: list[str] = []
    client = Client("/" + "x" * 200, lines.append)
    assert client.ask(QUESTION, 0.1) is None
    assert len(lines) == 1
