"""``mediaproxy relay`` and a dispatcher as processes, one of which is killed while calls run."""

import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from mediaproxy.control import EndCause, EndRequest, MediaReply, Party, Question, decode, encode
from tests.asking import Phone, answer, offer, ports
from tests.relayhouse import PORTS
from tests.test_cli import cli, surroundings

ALICE, BOB = Phone("alice"), Phone("bob")
RELAY = """
runtime_dir = "{name}/run"
state_dir = "{name}/state"
[relay]
name = "{name}"
plane = "user"
journal = true
port_min = {port}
port_max = {last}
addresses = [{{ bind = "127.0.0.1" }}]
"""
DISPATCHER = """
runtime_dir = "dispatcher/run"
state_dir = "dispatcher/state"
edge.enabled = false
[dispatcher]
mediaproxy_socket = "module.sock"
health_interval = 0.2
relay_timeout = 5.0  # a busy host is no relay that does not answer
[[dispatcher.relays]]
name = "one"
address = "unix:one/run/relay.sock"
[[dispatcher.relays]]
name = "two"
address = "unix:two/run/relay.sock"
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    for name, port in (("one", PORTS), ("two", PORTS + 110)):
        (tmp_path / f"{name}.toml").write_text(
            RELAY.format(name=name, port=port, last=port + (109 if name == "one" else 209))
        )
    (tmp_path / "dispatcher.toml").write_text(DISPATCHER)
    return tmp_path


@contextmanager
def running(home: Path, command: str, name: str, ready: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process of ours, when its socket is there."""
    argv = [sys.executable, "-m", "mediaproxy", command, "--config", f"{name}.toml"]
    with (home / f"{name}.log").open("ab") as log:
        process = subprocess.Popen(argv, cwd=home, env=surroundings(home), stderr=log, stdout=log)
    try:
        wait(lambda: ready.exists() or process.poll() is not None)
        assert process.poll() is None, (home / f"{name}.log").read_text()
        yield process
    finally:
        process.send_signal(signal.SIGINT)  # SIGTERM would keep the calls for the next start
        process.wait(60)


def wait(true: Callable[[], bool], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.02)


class BlockingWorker:
    """A worker of a SIP server; its patience is that of a test on a busy machine."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(20.0)
        self._socket.connect(str(path))
        self._lines = self._socket.makefile("rb")

    def ask(self, question: Question) -> MediaReply:
        self._socket.sendall(encode(question))
        reply = decode(self._lines.readline())
        assert isinstance(reply, MediaReply)
        return reply

    def close(self) -> None:
        self._lines.close()
        self._socket.close()


def test_one_relay_is_killed_and_comes_back(home: Path) -> None:
    with ExitStack() as stack:
        victim = stack.enter_context(running(home, "relay", "one", home / "one/run/relay.sock"))
        stack.enter_context(running(home, "relay", "two", home / "two/run/relay.sock"))
        stack.enter_context(running(home, "run", "dispatcher", home / "module.sock"))
        worker = BlockingWorker(home / "module.sock")
        stack.callback(worker.close)
        first = [worker.ask(offer(ALICE, BOB, f"before-{number}")).relay for number in range(12)]
        assert set(first) == {"one", "two"}
        victim.kill()
        victim.wait(60)
        replies = [worker.ask(offer(ALICE, BOB, f"after-{number}")) for number in range(12)]
        assert [reply.relay for reply in replies if ports(reply)] == ["two"] * 12
        kept = first.index("two")
        assert worker.ask(answer(ALICE, BOB, f"before-{kept}")).relay == "two"
        wait(lambda: up(home) == {"one": False, "two": True})
        shown = cli("relays", "--config", "dispatcher.toml", home=home).stdout
        assert "2 relays, 1 down" in shown and "! one: " in shown

        with running(home, "relay", "one", home / "one/run/admin.sock"):
            wait(lambda: up(home) == {"one": True, "two": True})
            calls = json.loads(cli("calls", "--json", "--config", "one.toml", home=home).stdout)
            its_own = {f"before-{number}" for number, name in enumerate(first) if name == "one"}
            assert {one["call_id"] for one in calls} == its_own, "they go on"
            assert worker.ask(answer(ALICE, BOB, min(its_own))).relay == "one"
            assert {worker.ask(offer(ALICE, BOB, f"again-{number}")).relay for number in range(12)} == {"one", "two"}
            calls = json.loads(cli("calls", "--json", "--config", "one.toml", home=home).stdout)
            assert calls and all(one["relay"] == "one" for one in calls)
            nobody = Party()
            ended = EndRequest(call_id=calls[0]["call_id"], sender=nobody, receiver=nobody, cause=EndCause.ADMIN)
            assert not worker.ask(ended).error
        assert "relay one" in (home / "one.log").read_text()
    found = json.loads(cli("records", "--json", "--config", "two.toml", home=home).stdout)
    assert {one["relay"] for one in found} == {"two"} and len(found) >= 12, "each call has left its record"


def up(home: Path) -> dict[str, bool]:
    shown = json.loads(cli("relays", "--json", "--config", "dispatcher.toml", home=home).stdout)
    return {one["name"]: one["up"] for one in shown}


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ('address = "tcp://0.0.0.0:25060"', "plain TCP only works within one host, on 127.0.0.1 or ::1; use tls://0.0"),
        ('address = "tls://0.0.0.0:25060"', "TLS needs relay.listen.certificate and relay.listen.authorities"),
        ('address = "tls://relay.example.com"\ncertificate = "a"\nauthorities = "b"', "expected an IP address of this"),
        ('address = "25060"', "expected unix:/PATH, tls://HOST:PORT or tcp://127.0.0.1:PORT, got '25060'"),
        ('address = "tls://127.0.0.1:0"\ncertificate = "a"\nauthorities = "b"', "No such file or directory; look at"),
    ],
    ids=["plain", "naked", "name", "nonsense", "no files"],
)
def test_what_keeps_a_relay_from_starting(home: Path, text: str, error: str) -> None:
    (home / "one.toml").write_text(RELAY.format(name="one", port=PORTS, last=PORTS + 99) + f"[relay.listen]\n{text}\n")
    done = cli("relay", "--config", "one.toml", home=home)
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("mediaproxy: ") and error in line
