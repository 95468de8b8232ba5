"""A relay whose media is in the kernel is killed and stopped in the middle of many calls: no packet of theirs is lost,
and all of them are in the records."""

import json
import selectors
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest

from lab.netns import Namespace, Namespaces, wait_until
from mediaproxy.endpoint import Endpoint
from tests.asking import Phone, ack, answer, bye, offer, ports
from tests.e2e.conftest import need
from tests.test_cli import cli
from tests.test_relay_processes import BlockingWorker

CALLS = 20
CONFIG = """
runtime_dir = "run"
state_dir = "state"
[relay]
name = "one"
plane = "kernel"
port_min = 20000
port_max = 20398
addresses = [{ bind = "192.0.2.1" }]
"""


class Site:
    """Hosts ``a`` and ``b``, each on a veth of the relay's host, and the relay's process."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._stack = ExitStack()
        spaces = Namespaces()
        self._stack.callback(spaces.close)
        self.a, self.b, self._relay = spaces.add("a"), spaces.add("b"), spaces.add("relay")
        self._relay.ip("address add 192.0.2.1/32 dev lo")
        for number, space in ((1, self.a), (2, self.b)):
            self._relay.ip(
                f"link add to-{number} type veth peer name eth0 netns {space.name}",
                f"link set to-{number} up",
                f"address add 10.0.{number}.254/24 dev to-{number}",
            )
            space.ip(
                "link set eth0 up",
                f"address add 10.0.{number}.1/24 dev eth0",
                f"address add 10.0.{number}.66/24 dev eth0",
                f"route add default via 10.0.{number}.254",
            )
        (folder / "c.toml").write_text(CONFIG)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """The relay, when it answers."""
        ready = self.folder / "run" / "relay.sock"
        ready.unlink(missing_ok=True)
        argv = [sys.executable, "-m", "mediaproxy", "relay", "--config", "c.toml"]
        process = self._process = self._relay.start(argv, self.folder / "log", self.folder)
        wait_until("the relay", lambda: ready.exists() or process.poll() is not None, 15)
        assert process.poll() is None, self.log

    def end(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)
        self._process.wait(10)

    def close(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self.end(signal.SIGINT)
        self._stack.close()

    def ask(self, *questions: Any) -> list[Any]:
        worker = BlockingWorker(self.folder / "run" / "relay.sock")
        try:
            return [worker.ask(question) for question in questions]
        finally:
            worker.close()

    def shown(self, command: str) -> Any:
        done = cli(command, "--json", "--config", "c.toml", home=self.folder)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text()

    def socket(self, space: Namespace, address: str) -> socket.socket:
        sock = space.socket(socket.SOCK_DGRAM)
        self._stack.callback(sock.close)
        sock.bind((address, 0))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        sock.setblocking(False)
        return sock


class Talk:
    """One call: two phones that send 50 packets a second each."""

    def __init__(self, site: Site, number: int) -> None:
        self.call_id = f"call-{number}"
        self.alice, self.bob = Phone("alice", "10.0.1.1"), Phone("bob", "10.0.2.1")
        for phone, space in ((self.alice, site.a), (self.bob, site.b)):
            sock = site.socket(space, phone.address)
            phone.sockets.append(sock)
            phone.ports.append(sock.getsockname()[1])
        offered, answered, _ = site.ask(
            offer(self.alice, self.bob, self.call_id),
            answer(self.alice, self.bob, self.call_id),
            ack(self.alice, self.bob, self.call_id),
        )
        (self.at_bob,), (self.at_alice,) = ports(offered), ports(answered)
        self.sent = 0
        self.heard = {self.alice: 0, self.bob: 0}

    def speak(self) -> None:
        self.sent += 1
        for phone, to in ((self.alice, self.at_alice), (self.bob, self.at_bob)):
            packet = struct.pack("!BBHII", 0x80, 0, self.sent & 0xFFFF, self.sent * 160, phone.ports[0])
            phone.sockets[0].sendto(packet + bytes(160), (to.address, to.port))


class Talks:
    """All calls at once, in a thread, until the end."""

    def __init__(self, talks: list[Talk]) -> None:
        self._talks = talks
        self._over = Event()
        self._thread = Thread(target=self._run)

    def __enter__(self) -> "Talks":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        with selectors.DefaultSelector() as selector:
            for talk in self._talks:
                for phone in (talk.alice, talk.bob):
                    selector.register(phone.sockets[0], selectors.EVENT_READ, (talk, phone))
            next_ = time.monotonic()
            while not self._over.is_set():
                for talk in self._talks:
                    talk.speak()
                next_ += 0.02
                while (left := next_ - time.monotonic()) > 0:
                    self._hear(selector, left)
            end = time.monotonic() + 0.5
            while (left := end - time.monotonic()) > 0:
                self._hear(selector, left)

    def _hear(self, selector: selectors.BaseSelector, seconds: float) -> None:
        for key, _ in selector.select(seconds):
            talk, phone = key.data
            data, source = key.fileobj.recvfrom(2048)  # type: ignore[union-attr]  # sockets are registered
            expected = talk.at_alice if phone is talk.alice else talk.at_bob
            assert Endpoint(*source) == expected and data[:1] == b"\x80"
            talk.heard[phone] += 1


class Attack:
    """Packets from elsewhere, and from the phones' own addresses, to all ports of the calls."""

    def __init__(self, site: Site, talks: list[Talk]) -> None:
        self._sockets = [site.socket(site.a, "10.0.1.66"), site.socket(site.a, "10.0.1.1")]
        self._targets = [target for talk in talks for target in (talk.at_alice, talk.at_bob)]
        self._over = Event()
        self._thread = Thread(target=self._run)

    def __enter__(self) -> "Attack":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        packet = b"\x80\x00" + bytes(10) + b"evil" * 40
        while not self._over.is_set():
            for sock in self._sockets:
                for target in self._targets:
                    try:
                        sock.sendto(packet, (target.address, target.port))
                    except BlockingIOError:
                        break
            time.sleep(0.01)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    need()
    site = Site(tmp_path)
    try:
        site.start()
        yield site
    finally:
        site.close()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["kill -9", "systemctl restart"])
def test_no_packet_is_lost_while_the_relay_is_replaced(site: Site, number: int) -> None:
    talks = [Talk(site, n) for n in range(CALLS)]
    for talk in talks:  # both are learned
        for _ in range(5):
            talk.speak()
            time.sleep(0.005)
    with Attack(site, talks):
        with Talks(talks):
            time.sleep(1.5)
            site.end(number)
            time.sleep(1.5)
            site.start()
            time.sleep(1.5)
            shown = {one["call_id"]: one for one in site.shown("calls")}
            site.end(number)
            site.start()
            time.sleep(0.5)
        assert shown.keys() == {talk.call_id for talk in talks}
        assert all(one["streams"][0]["plane"] == "kernel" for one in shown.values())
        for talk in talks:
            assert min(talk.heard.values()) >= talk.sent - 5, "all but what was sent before both were learned"
            assert max(talk.heard.values()) <= talk.sent
        for reply in site.ask(*(bye(talk.alice, talk.bob, talk.call_id) for talk in talks)):
            assert not reply.error
    wait_until("the records", lambda: len(site.shown("records")) == CALLS)
    found = {one["call_id"]: one for one in site.shown("records")}
    for talk in talks:
        record = found[talk.call_id]
        assert record["reason"] == "bye"
        for side, phone in (("caller", talk.alice), ("callee", talk.bob)):
            end = record["streams"][0][side]
            assert (end["packets"], end["sent"]) == (talk.sent, talk.heard[phone]), "exact"
            assert end["refused_packets"] > 0
    assert site.shown("calls") == []
