"""A relay in a process of its own is killed in the middle of calls, and started again: the calls go on."""

import contextlib
import json
import random
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from mediaproxy.control import EndCause, EndRequest, MediaReply, MediaRequest, Party, Question, decode, encode
from mediaproxy.endpoint import Endpoint
from tests.asking import Phone, ack, answer, bye, offer, ports, sockets
from tests.relayhouse import PORTS
from tests.test_cli import cli, surroundings
from tests.test_relay_processes import BlockingWorker, wait

pytestmark = pytest.mark.e2e  # two minutes

CONFIG = """
runtime_dir = "run"
state_dir = "state"
[relay]
name = "one"
plane = "user"
port_min = {port}
port_max = {last}
addresses = [{{ bind = "127.0.0.1" }}]
rebind_silence = 600.0
{more}
"""
"Nobody else of a phone's address may take its place, however long the machine takes for a restart."


class Relay:
    """``mediaproxy relay``, as often as it is started."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.process: subprocess.Popen[bytes] | None = None
        self.configure()

    def configure(self, more: str = "linger = 600.0\n") -> None:
        """The default: ended calls are remembered, however long a start takes."""
        (self.home / "c.toml").write_text(CONFIG.format(port=PORTS, last=PORTS + 199, more=more))

    def start(self) -> None:
        ready = self.home / "run" / "relay.sock"
        ready.unlink(missing_ok=True)
        argv = [sys.executable, "-m", "mediaproxy", "relay", "--config", "c.toml"]
        with (self.home / "log").open("ab") as log:
            self.process = subprocess.Popen(argv, cwd=self.home, env=surroundings(self.home), stderr=log, stdout=log)
        wait(lambda: ready.exists() or self._process.poll() is not None)
        assert self._process.poll() is None, self.log

    @property
    def _process(self) -> subprocess.Popen[bytes]:
        assert self.process is not None
        return self.process

    def end(self, number: int = signal.SIGKILL) -> None:
        self._process.send_signal(number)
        self._process.wait(60)
        self.process = None

    def restart(self, number: int = signal.SIGKILL, *, away: float = 0.0) -> None:
        self.end(number)
        time.sleep(away)
        self.start()

    def wait_written(self) -> None:
        """Until the counters of all that has come by now are in the journal. It is written each second while there are
        calls, and a moment after a phone is learned; the second time from half a second on that was a whole second."""
        soon = time.time_ns() + 500_000_000
        wait(lambda: self._written() > soon)
        before = self._written()
        wait(lambda: self._written() > before)

    def _written(self) -> int:
        """When its files were changed last, in nanoseconds."""
        return max(path.stat().st_mtime_ns for path in (self.home / "state").glob("calls.db*"))

    def ask(self, question: Question) -> MediaReply:
        worker = BlockingWorker(self.home / "run" / "relay.sock")
        try:
            return worker.ask(question)
        finally:
            worker.close()

    def killed_at(self, questions: Sequence[MediaRequest | EndRequest], number: int) -> list[tuple[Any, MediaReply]]:
        """Ask without waiting, each question on a connection of its own, and kill it at the reply to one of them; all
        replies that came, and their questions."""
        with ExitStack() as stack:
            sockets_ = []
            for _ in questions:
                sock = stack.enter_context(socket.socket(socket.AF_UNIX))
                sock.settimeout(60)
                sock.connect(str(self.home / "run" / "relay.sock"))
                sockets_.append(sock)
            for sock, question in zip(sockets_, questions, strict=True):
                sock.sendall(encode(question))
            select.select([sockets_[number]], [], [], 60)
            self.end()
            answered = []
            for sock, question in zip(sockets_, questions, strict=True):
                with contextlib.suppress(ConnectionResetError):
                    line = stack.enter_context(sock.makefile("rb")).readline()
                    if line.endswith(b"\n"):
                        answered.append((question, decode(line)))
        return answered  # type: ignore[return-value]  # replies are what comes

    @property
    def log(self) -> str:
        return (self.home / "log").read_text()

    def shown(self, *command: str) -> Any:
        done = cli(*command, "--json", "--config", "c.toml", home=self.home)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def calls(self) -> Any:
        return self.shown("calls")

    def records(self, count: int) -> Any:
        """All records, when there are so many."""
        file = self.home / "state" / "records.jsonl"
        wait(lambda: file.exists() and file.read_bytes().count(b"\n") >= count)
        found = self.shown("records")
        assert len(found) == count, found
        return found


@pytest.fixture
def relay(tmp_path: Path) -> Iterator[Relay]:
    relay = Relay(tmp_path)
    relay.start()
    yield relay
    if relay.process is not None:
        relay.end(signal.SIGINT)


class Talk:
    """A call between two phones with sockets."""

    def __init__(self, relay: Relay, alice: Phone, bob: Phone, call_id: str = "call") -> None:
        self.relay, self.alice, self.bob, self.call_id = relay, alice, bob, call_id
        (self.at_bob,) = ports(relay.ask(offer(alice, bob, call_id)))
        (self.at_alice,) = ports(relay.ask(answer(alice, bob, call_id)))
        assert not relay.ask(ack(alice, bob, call_id)).error

    def say(self, packets: int = 1) -> None:
        """Both hear each other."""
        for _ in range(packets):
            self.alice.send(0, self.at_alice, 0)
            assert hears(self.bob) == self.at_bob
            self.bob.send(0, self.at_bob, 0)
            assert hears(self.alice) == self.at_alice


def hears(phone: Phone, seconds: float = 5.0) -> Endpoint:
    """Where the next packet came from."""
    phone.sockets[0].settimeout(seconds)
    return Endpoint(*phone.sockets[0].recvfrom(2048)[1])


def silent(phone: Phone) -> bool:
    """Nothing has come."""
    try:
        hears(phone, 0.2)
    except TimeoutError:
        return True
    return False


@pytest.fixture
def phones() -> Iterator[tuple[Phone, Phone]]:
    alice, bob = Phone("alice", "127.0.0.2"), Phone("bob", "127.0.0.3")
    with sockets(alice, bob):
        yield alice, bob


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["kill -9", "systemctl restart"])
def test_a_call_goes_on(relay: Relay, phones: tuple[Phone, Phone], number: int) -> None:
    alice, bob = phones
    talk = Talk(relay, alice, bob)
    talk.say(20)
    relay.wait_written()
    relay.restart(number)

    (shown,) = relay.calls()
    stream = shown["streams"][0]
    assert shown["state"] == "talking"
    assert [stream[side]["learned"]["port"] for side in ("caller", "callee")] == [alice.ports[0], bob.ports[0]]

    attacker, neighbour = Phone("eve", "127.0.0.66"), Phone("carol", "127.0.0.2")
    with sockets(attacker, neighbour):
        for stranger in (attacker, neighbour):  # the neighbour has the address of a phone
            for _ in range(3):
                stranger.send(0, talk.at_alice, 0)
                stranger.send(0, talk.at_bob, 0)
        assert silent(alice) and silent(bob)
        talk.say(10)

    assert ports(relay.ask(offer(alice, bob, "call"))) == [talk.at_bob], "the INVITE once more"
    assert ports(relay.ask(answer(alice, bob, "call"))) == [talk.at_alice], "its 200 once more"
    relay.restart(number)
    talk.say(5)
    assert not relay.ask(bye(alice, bob, "call")).error
    (record,) = relay.records(1)
    assert record["reason"] == "bye" and record["answered"]
    sides = [record["streams"][0][side] for side in ("caller", "callee")]
    if number == signal.SIGTERM:
        assert [(side["packets"], side["sent"]) for side in sides] == [(35, 35), (35, 35)]
    else:
        assert all(20 <= side["packets"] <= 35 for side in sides), "at most a second is not counted"
    assert {side["codec"] for side in sides} == {"PCMU"}
    assert relay.calls() == []
    relay.restart(number)
    assert relay.calls() == [] and len(relay.records(1)) == 1
    assert relay.ask(answer(alice, bob, "call")).status == 481, "a late 200 starts no ghost"


def test_a_port_that_was_told_is_kept(relay: Relay, phones: tuple[Phone, Phone]) -> None:
    """Killed right after the reply."""
    alice, bob = phones
    told = {}
    for number in range(4):
        told[number] = ports(relay.ask(offer(alice, bob, f"call-{number}")))
        relay.restart()
        again = {known: ports(relay.ask(offer(alice, bob, f"call-{known}"))) for known in told}
        assert again == told
    assert len({port for one in told.values() for port in one}) == 4


def test_what_ends_while_it_is_away(relay: Relay, phones: tuple[Phone, Phone]) -> None:
    relay.end()
    relay.configure("unanswered = 2.0\nlinger = 1.0\nsilence = 4.0\n")
    relay.start()
    alice, bob = phones
    ports(relay.ask(offer(alice, bob, "rings")))
    ports(relay.ask(offer(alice, bob, "cancelled")))
    cancel = EndRequest(call_id="cancelled", sender=alice.party, receiver=Party(), cause=EndCause.CANCEL)
    assert not relay.ask(cancel).error
    talk = Talk(relay, alice, bob, "talks")
    talk.say(1)
    relay.restart(away=4.5)
    talk.say(1)
    spoken = time.time()
    found = {one["call_id"]: one for one in relay.records(3)}
    reasons = {"rings": "unanswered", "cancelled": "cancel", "talks": "silent"}
    assert {name: one["reason"] for name, one in found.items()} == reasons
    assert found["rings"]["ended"] - found["rings"]["started"] < 4.0, "when its timer ran out, not at the start"
    assert found["talks"]["ended"] > spoken + 3.0, "the silence of before does not count"


@pytest.mark.parametrize(("number", "reason"), [(signal.SIGKILL, "lost"), (signal.SIGTERM, "shutdown")])
def test_who_comes_too_late(relay: Relay, phones: tuple[Phone, Phone], number: int, reason: str) -> None:
    relay.end()
    relay.configure("restart_within = 1.0\n")
    relay.start()
    alice, bob = phones
    Talk(relay, alice, bob).say(3)
    relay.wait_written()
    relay.end(number)
    ended = time.time()
    time.sleep(2.3)
    relay.start()
    (record,) = relay.records(1)
    assert record["reason"] == reason and record["streams"][0]["caller"]["packets"] == 3
    assert record["ended"] < ended + 1.0, "it ended when nobody relayed it any more"
    assert relay.calls() == []


@pytest.mark.parametrize("more", ["journal = false", "restart_within = 0.0"])
def test_without_a_journal_a_stop_ends_calls(relay: Relay, phones: tuple[Phone, Phone], more: str) -> None:
    relay.end()
    relay.configure(more)
    relay.start()
    Talk(relay, *phones).say(3)
    relay.end(signal.SIGTERM)
    relay.configure()
    relay.start()
    (record,) = relay.records(1)
    assert record["reason"] == "shutdown" and record["streams"][0]["caller"]["packets"] == 3


def test_who_switches_the_journal_off_gets_the_records(relay: Relay, phones: tuple[Phone, Phone]) -> None:
    Talk(relay, *phones)
    relay.end()
    relay.configure("journal = false")
    relay.start()
    assert relay.records(1)[0]["reason"] == "lost" and relay.calls() == []
    relay.restart(signal.SIGTERM)
    assert len(relay.records(1)) == 1 and not (relay.home / "state" / "calls.db").exists()


def test_ctrl_c_ends_calls(relay: Relay, phones: tuple[Phone, Phone]) -> None:
    Talk(relay, *phones)
    relay.end(signal.SIGINT)
    relay.start()
    assert relay.records(1)[0]["reason"] == "shutdown" and relay.calls() == []


def test_a_port_that_another_program_took_meanwhile(relay: Relay, phones: tuple[Phone, Phone]) -> None:
    talk = Talk(relay, *phones)
    talk.say(1)
    relay.end()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind((talk.at_bob.address, talk.at_bob.port))
        relay.start()
        assert f"{talk.at_bob} is used by another program" in relay.log
        assert not relay.ask(bye(*phones, "call")).error
    assert relay.records(1)[0]["reason"] == "bye"


def test_killed_in_the_middle_of_anything(relay: Relay) -> None:
    """Whatever was told is true after it; every call that was told of a port leaves exactly one record."""
    dice = random.Random(4)
    alice, bob = Phone("alice"), Phone("bob")
    told: dict[str, list[Endpoint]] = {}
    over: set[str] = set()
    for round_ in range(4):
        questions: list[MediaRequest | EndRequest]
        questions = [offer(alice, bob, f"call-{round_}-{number}") for number in range(7)]
        alive = sorted(told.keys() - over)
        questions += [answer(alice, bob, name) for name in dice.sample(alive, len(alive) // 3)]
        ends = dice.sample(alive, len(alive) // 4)
        questions += [EndRequest(call_id=name, sender=Party(), receiver=Party(), cause=EndCause.ADMIN) for name in ends]
        dice.shuffle(questions)
        for question, reply in relay.killed_at(questions, dice.randrange(len(questions))):
            if isinstance(question, EndRequest):
                over.add(question.call_id)
            elif question.call_id not in told and not question.status:
                told[question.call_id] = ports(reply)
        relay.start()
        over |= set(ends) - {one["call_id"] for one in relay.calls()}
        for name in told.keys() - over:
            assert ports(relay.ask(offer(alice, bob, name))) == told[name]
    running = {one["call_id"] for one in relay.calls()}
    assert told.keys() - over <= running
    for name in running:
        assert not relay.ask(EndRequest(call_id=name, sender=Party(), receiver=Party(), cause=EndCause.ADMIN)).error
    found = [one["call_id"] for one in relay.records(len(running | over))]
    assert len(found) == len(set(found)) and told.keys() <= set(found)
