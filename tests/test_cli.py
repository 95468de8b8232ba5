"""The command line as a user meets it: a process of its own, its output, its exit status, its one-line errors."""

import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from rich.text import Text

from mediaproxy import __version__
from mediaproxy.admin import AdminError, Command, ask
from mediaproxy.cli.app import _fitted
from mediaproxy.config import Config, default_text, loads
from mediaproxy.endpoint import Endpoint
from mediaproxy.server.answers import Status


def cli(*args: str, home: Path, stdin: bytes = b"", columns: int = 80) -> subprocess.CompletedProcess[str]:
    """Run ``mediaproxy ARGS`` with a home directory of its own; standard error must never show a traceback."""
    done = subprocess.run(
        [sys.executable, "-m", "mediaproxy", *args],
        capture_output=True,
        timeout=60,
        check=False,
        input=stdin,
        cwd=home,
        env=surroundings(home, columns),
    )
    result = subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())
    assert "Traceback" not in result.stderr, result.stderr
    return result


def surroundings(home: Path, columns: int = 80) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("XDG_")}
    return kept | {"HOME": str(home), "TERM": "xterm-256color", "COLUMNS": str(columns)}


@pytest.fixture
def message(tmp_path: Path) -> Path:
    file = tmp_path / "captured.sip"
    file.write_bytes(
        b"INVITE sip:bob@sip.test SIP/2.0\r\nVia: SIP/2.0/UDP 192.168.1.10:5060;branch=z9hG4bK1;rport\r\n"
        b"From: <sip:alice@sip.test>;tag=1\r\nTo: <sip:bob@sip.test>\r\nCall-ID: 1@x\r\nCSeq: 1 INVITE\r\n"
        b"Contact: <sip:alice@192.168.1.10:5060>\r\nContent-Type: application/sdp\r\nContent-Length: 91\r\n\r\n"
        b"v=0\r\no=- 1 1 IN IP4 192.168.1.10\r\ns=-\r\nc=IN IP4 192.168.1.10\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0\r\n"
    )
    return file


def test_version_and_help(tmp_path: Path) -> None:
    assert cli("--version", home=tmp_path).stdout == f"mediaproxy {__version__}\n"
    shown = cli("--help", home=tmp_path).stdout
    for command in ("run", "relay", "calls", "end", "registrations", "relays", "records", "explain", "config"):
        assert f" {command} " in shown


def test_usage_errors_have_status_2(tmp_path: Path) -> None:
    for args in (["nonsense"], ["explain"], ["run", "--log-format", "xml"], ["end"]):
        done = cli(*args, home=tmp_path)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr


def test_config_prints_the_default_and_checks_files(tmp_path: Path) -> None:
    printed = cli("config", home=tmp_path)
    assert (printed.returncode, printed.stdout) == (0, default_text())
    assert loads(printed.stdout) == Config()
    file = tmp_path / "mediaproxy.toml"
    file.write_text(printed.stdout)
    assert cli("config", "--check", str(file), home=tmp_path).stdout == f"{file}: good\n"
    file.write_text("[edge]\nopne = true\ncolour = 1\n")
    bad = cli("config", "--check", str(file), home=tmp_path)
    assert (bad.returncode, bad.stdout) == (1, "")
    assert bad.stderr.splitlines()[0] == f"mediaproxy: {file}: line 2: edge.opne: no such key; did you mean open?"
    assert bad.stderr.splitlines()[1].startswith(f"mediaproxy: {file}: line 3: edge.colour: no such key; there are: ")
    file.write_text('edge.listeners = [{ transport = "udp", bind = "198.51.100.7:5060" }]')
    danger = cli("config", "--check", str(file), home=tmp_path)
    assert danger.returncode == 1
    assert "without accounts everybody on the Internet could call through 198.51.100.7:5060" in danger.stderr


def test_explain(tmp_path: Path, message: Path) -> None:
    done = cli("explain", str(message), "--source", "203.0.113.7:40000", home=tmp_path)
    assert done.returncode == 0
    assert "client_nat_test(7): 1, behind a NAT" in done.stdout
    assert "sip:alice@192.168.1.10:5060 becomes sip:alice@203.0.113.7:40000" in done.stdout
    told = json.loads(cli("explain", str(message), "--source", "203.0.113.7:40000", "--json", home=tmp_path).stdout)
    assert (told["client_nat_test"], [told["tests"][test] for test in "124"]) == (1, [True, True, True])
    assert told["fix_contact"] == {"result": 1, "contacts": ["<sip:alice@203.0.113.7:40000>"]}
    assert told["phone"]["endpoint"] == {"address": "203.0.113.7", "port": 40000}
    assert told["question"]["streams"][0]["endpoint"] == {"address": "192.168.1.10", "port": 4000}


def test_explain_reads_standard_input_and_a_configuration(tmp_path: Path, message: Path) -> None:
    file = tmp_path / "c.toml"
    file.write_text("edge.nat_tests = 0\nedge.domains = ['sip.test']\n")
    options = ["--source", "203.0.113.7:40000", "--config", str(file), "--json"]
    told = json.loads(cli("explain", "-", *options, home=tmp_path, stdin=message.read_bytes()).stdout)
    assert told["client_nat_test"] == -1
    assert told["question"]["sender"]["local"] is True


@pytest.mark.parametrize(
    ("content", "source", "error"),
    [
        pytest.param(b"hello\r\n\r\n", "192.0.2.1:5060", "not a SIP message: ", id="no SIP"),
        pytest.param(b"\xff\x00\r\n\r\n", "192.0.2.1:5060", "not a SIP message: ", id="garbage"),
        pytest.param(
            b"OPTIONS sip:x SIP/2.0\r\nX: " + b"y" * 1_048_577, "192.0.2.1:5060", "expected one message", id="endless"
        ),
        pytest.param(b"", "192.0.2.1", "'192.0.2.1' is not ADDRESS:PORT", id="no port"),
        pytest.param(b"", "a.example:1", "'a.example' is not an IP address", id="a name"),
        pytest.param(None, "192.0.2.1:5060", "cannot be read: No such file or directory", id="no file"),
    ],
)
def test_explain_errors(tmp_path: Path, content: bytes | None, source: str, error: str) -> None:
    file = tmp_path / "m"
    if content is not None:
        file.write_bytes(content)
    done = cli("explain", str(file), "--source", source, home=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert error in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("command", [["calls"], ["calls", "--json"], ["registrations"], ["end", "x"]])
def test_without_a_server(tmp_path: Path, command: list[str]) -> None:
    done = cli(*command, "--socket", str(tmp_path / "admin.sock"), home=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert "admin.sock: no server is running here; start one (mediaproxy run)" in done.stderr


# With a server


@dataclass
class Running:
    """A server of its own process and folder."""

    process: subprocess.Popen[bytes]
    folder: Path
    status: Status

    @property
    def sip(self) -> Endpoint:
        return Endpoint.parse(self.status.listeners[0].removeprefix("udp:"))

    def cli(self, *args: str, columns: int = 80) -> subprocess.CompletedProcess[str]:
        return cli(*args, "--config", str(self.folder / "c.toml"), home=self.folder, columns=columns)

    def asked(self, *args: str) -> Any:
        done = self.cli(*args, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def end(self, number: int = signal.SIGTERM) -> str:
        """End it by a signal; its log. It must go with status 0 and without a traceback."""
        self.process.send_signal(number)
        _, log = self.process.communicate(timeout=60)
        assert self.process.returncode == 0, log.decode()
        assert b"Traceback" not in log
        return log.decode()


def write_config(folder: Path, bind: str = "127.0.0.1:0") -> Path:
    file = folder / "c.toml"
    file.write_text(
        f'runtime_dir = "{folder}/run"\nstate_dir = "{folder}/state"\nrelay.plane = "user"\n'
        '[edge]\ndomains = ["sip.test"]\n'
        f'listeners = [{{ transport = "udp", bind = "{bind}" }}]\n'
    )
    return file


@contextmanager
def running(folder: Path, *args: str) -> Iterator[Running]:
    process = subprocess.Popen(
        [sys.executable, "-m", "mediaproxy", "run", "--config", str(write_config(folder)), *args],
        stderr=subprocess.PIPE,
        env=surroundings(folder),
    )
    try:
        yield Running(process, folder, _wait_for_status(process, folder / "run" / "admin.sock"))
    finally:
        process.kill()
        process.communicate()


def _wait_for_status(process: subprocess.Popen[bytes], admin: Path) -> Status:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if process.poll() is not None:
            assert process.stderr is not None
            raise AssertionError(process.stderr.read().decode())
        try:
            return ask(admin, Command(command="status"), Status)
        except AdminError:
            select.select([], [], [], 0.02)  # nothing to wait on before the socket is there
    raise AssertionError("the server did not start")


class Phone:
    """A phone that says what it is told, over a UDP socket."""

    def __init__(self, user: str, address: str, server: Endpoint) -> None:
        self.user = user
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind((address, 0))
        self.socket.settimeout(30)
        self.server = (server.address, server.port)
        self.at = "{}:{}".format(*self.socket.getsockname())

    def request(self, method: str, to: str, cseq: int = 1, extra: str = "", body: str = "") -> None:
        """Send a request."""
        self.socket.sendto(
            f"{method} sip:{to} SIP/2.0\r\nVia: SIP/2.0/UDP {self.at};branch=z9hG4bK{self.user}{cseq}\r\n"
            f"Max-Forwards: 70\r\nFrom: <sip:{self.user}@sip.test>;tag={self.user}\r\n"
            f"To: <sip:{to if method != 'REGISTER' else self.user + '@sip.test'}>\r\n"
            f"Call-ID: {self.user}-1\r\nCSeq: {cseq} {method}\r\nContact: <sip:{self.user}@{self.at}>\r\n{extra}"
            f"User-Agent: toy phone of {self.user}\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode(),
            self.server,
        )

    def receive(self, start: str) -> str:
        """The next message that begins so."""
        while True:
            text = self.socket.recv(65536).decode()
            if text.startswith(start):
                return text

    def answer(self, request: str, body: str) -> None:
        """200 OK."""
        kept = re.findall(r"(?m)^(?:Via|From|Call-ID|CSeq|Record-Route): .*\r\n", request)
        to = re.search(r"(?m)^To: (.*)\r\n", request)
        assert to is not None
        head = "".join(kept) + f"To: {to[1]};tag={self.user}\r\nContact: <sip:{self.user}@{self.at}>\r\n"
        text = f"SIP/2.0 200 OK\r\n{head}Content-Type: application/sdp\r\nContent-Length: {len(body)}\r\n\r\n{body}"
        self.socket.sendto(text.encode(), self.server)


def sdp(address: str) -> str:
    return f"v=0\r\no=- 1 1 IN IP4 {address}\r\ns=-\r\nc=IN IP4 {address}\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0\r\n"


def test_an_operators_day(tmp_path: Path) -> None:
    with running(tmp_path) as server:
        alice, bob = Phone("alice", "127.0.0.2", server.sip), Phone("bob", "127.0.0.3", server.sip)
        for phone in (alice, bob):
            phone.request("REGISTER", "sip.test")
            phone.receive("SIP/2.0 200")
        shown = server.asked("registrations")
        assert [(one["aor"], one["contact"]) for one in shown] == [
            (f"sip:{phone.user}@sip.test", f"sip:{phone.user}@{phone.at}") for phone in (alice, bob)
        ]
        assert f"sip:alice@{alice.at}  udp" in server.cli("registrations").stdout

        assert server.asked("calls") == []
        content = "Content-Type: application/sdp\r\n"
        alice.request("INVITE", "bob@sip.test", 2, content, sdp("127.0.0.2"))
        bob.answer(bob.receive("INVITE"), sdp("127.0.0.3"))
        alice.receive("SIP/2.0 200")
        (call,) = server.asked("calls")
        assert (call["call_id"], call["state"]) == ("alice-1", "talking")
        assert call["streams"][0]["caller"]["sdp"] == {"address": "127.0.0.2", "port": 4000}
        assert call["streams"][0]["caller"]["packets"] == 0

        page = server.cli("calls", columns=40).stdout
        assert "\x1b" not in page
        assert "sip:alice@sip.test → sip:bob@sip.test\n" in page
        assert re.search(r"  audio 1 +caller +0 .* unheard: SDP 127\.0\.0\.2:4000, ours 127\.0\.0\.1:\d+\n", page)
        assert page.endswith("\n1 call\n") or "with warnings" in page

        missing = server.cli("end", "nonsense")
        assert (missing.returncode, missing.stderr.count("\n")) == (1, 1)
        assert "nonsense: unknown call" in missing.stderr
        told = "BYE sent to sip:alice@sip.test and sip:bob@sip.test"
        assert server.cli("end", "alice-1").stdout == f"ended alice-1: media ended; {told}\n"
        assert "cause=31" in alice.receive("BYE")
        assert "cause=31" in bob.receive("BYE")
        assert server.cli("records", "--socket", str(tmp_path / "run" / "admin.sock")).returncode == 0
        log = server.end()
        for phone in (alice, bob):
            phone.socket.close()

    assert len([line for line in log.splitlines() if "alice-1" in line]) >= 3
    assert "sip.test" in log
    assert f"SIP on udp:{server.sip}" in log
    assert not (tmp_path / "run" / "admin.sock").exists()
    (record,) = server.asked("records")
    assert (record["call_id"], record["reason"]) == ("alice-1", "admin")
    assert "sip:alice@sip.test → sip:bob@sip.test" in server.cli("records", "--last", "1").stdout
    assert server.asked("records", "--call-id", "other") == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_json_log_and_signals(tmp_path: Path, number: int) -> None:
    with running(tmp_path, "--log-format", "json", "--open") as server:
        log = server.end(number)
    lines = [json.loads(line) for line in log.splitlines()]
    assert lines[-1]["message"] == "ended"
    assert any("everybody, without password" in line["message"] for line in lines)


def test_what_keeps_it_from_running(tmp_path: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        config = write_config(tmp_path, f"127.0.0.1:{port}")
        done = cli("run", "--config", str(config), home=tmp_path)
    assert done.returncode == 1
    error = done.stderr.splitlines()[-1]
    assert error == (
        f"mediaproxy: cannot listen on udp:127.0.0.1:{port}: Address already in use; another program has that port:"
        " stop it, or set edge.listeners"
    )
    config = write_config(tmp_path, "198.51.100.7:5060")
    done = cli("run", "--config", str(config), home=tmp_path)
    assert done.returncode == 1
    assert "relay address 198.51.100.7" in done.stderr
    done = cli("run", "--config", str(tmp_path / "none.toml"), home=tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)


def test_a_second_server_is_told_so(tmp_path: Path) -> None:
    with running(tmp_path) as server:
        done = server.cli("run")
        assert done.returncode == 1
        assert "another mediaproxy is running with this runtime_dir" in done.stderr
        assert server.asked("calls") == []
        server.end()


def test_a_narrow_terminal_cuts_nothing() -> None:
    line = Text("  audio 1  caller  never  unheard: SDP 192.168.1.11:4000, ours 203.0.113.1:20000")
    narrow = Console(width=40, force_terminal=True)
    shown = [one.plain for one in _fitted([line, Text("short")], narrow)]
    assert all(len(one) <= 40 for one in shown) and shown[-1] == "short"
    assert "".join(shown[:-1]).split() == line.plain.split()
    assert list(_fitted([line], Console(width=40, force_terminal=False))) == [line], "a pipe gets whole lines"
