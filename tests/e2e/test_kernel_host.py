"""``mediaproxy relay`` on hosts that let it into the kernel or do not: privileges, pins, what is said."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from lab.netns import Namespace, Namespaces, stop, wait_until
from lab.unprivileged import as_nobody
from mediaproxy.admin import Command, ask
from mediaproxy.server.answers import Status
from tests.asking import Phone, answer, offer, ports
from tests.e2e.conftest import need
from tests.test_relay_processes import BlockingWorker

PROGRAM = [sys.executable, "-B", "-m", "mediaproxy"]
CONFIG = """
runtime_dir = "run"
state_dir = "state"
[relay]
name = "one"
bpffs = "{bpffs}"
port_min = 20000
port_max = 20398
addresses = [{{ bind = "127.0.0.1" }}]
{more}
"""
TWO = as_nobody("bpf", "net_admin")
NONE = as_nobody()


class Relay:
    """One relay in a namespace, started as somebody."""

    def __init__(self, space: Namespace, folder: Path) -> None:
        self.space = space
        self.folder = folder
        self.process: subprocess.Popen[bytes] | None = None
        folder.chmod(0o777)
        self.configure()

    def configure(self, more: str = "", bpffs: str = "bpf") -> None:
        (self.folder / "c.toml").write_text(CONFIG.format(more=more, bpffs=bpffs))

    def run(self, *command: str, user: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
        """A command with our configuration."""
        argv = self.space.argv(*user, *PROGRAM, *command, "--config", str(self.folder / "c.toml"))
        return subprocess.run(argv, capture_output=True, text=True, check=False, cwd=self.folder)

    def start(self, user: Sequence[str] = ()) -> None:
        log = self.folder / "log"
        log.unlink(missing_ok=True)
        argv = [*user, *PROGRAM, "relay", "--config", str(self.folder / "c.toml")]
        self.process = self.space.start(argv, log, cwd=self.folder)
        process = self.process
        wait_until("the relay serves", lambda: "records go to" in self.log or process.poll() is not None, 90)

    @property
    def log(self) -> str:
        path = self.folder / "log"
        return path.read_text() if path.exists() else ""

    def status(self) -> dict[str, str]:
        found = ask(self.folder / "run" / "admin.sock", Command(command="status"), Status)
        return {"plane": found.plane, "why_not_kernel": found.why_not_kernel}

    def call(self) -> None:
        """A call is set up."""
        worker = BlockingWorker(self.folder / "run" / "relay.sock")
        alice, bob = Phone("alice"), Phone("bob")
        assert ports(worker.ask(offer(alice, bob, "one")))
        assert ports(worker.ask(answer(alice, bob, "one")))
        worker.close()

    def end(self, number: int = signal.SIGINT) -> str:
        assert self.process is not None
        stop(self.process, number)
        return self.log

    def pinned(self) -> list[str]:
        return sorted(path.name for path in self.folder.glob("bpf/mediaproxy/*/*/*"))


@pytest.fixture
def relay() -> Iterator[Relay]:
    need()
    spaces = Namespaces()
    with TemporaryDirectory(prefix="mediaproxy-host-") as name:  # pytest shuts its own folders for other users
        folder = Path(name)
        made = Relay(spaces.add("relay"), folder)
        yield made
        if made.process is not None:
            stop(made.process, signal.SIGKILL)
        made.run("relay", "--release")
        spaces.close()
        if (folder / "bpf").is_mount():
            subprocess.run(["umount", str(folder / "bpf")], check=True)


def bpffs_for(user: int, path: Path) -> None:
    """A BPF filesystem as an operator prepares it for a relay that is not root's."""
    path.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "bpf", "bpf", str(path)], check=True)
    path.chmod(0o711)
    folder = path / "mediaproxy"
    folder.mkdir()
    os.chown(folder, user, user)


def test_two_capabilities_carry_everything(relay: Relay) -> None:
    """Not root, and nothing but CAP_BPF and CAP_NET_ADMIN: forwarding, pins, a restart, the release."""
    bpffs_for(65534, relay.folder / "bpf")
    relay.start(TWO)
    assert "relayed in the kernel (TCX on lo)" in relay.log and "WARNING" not in relay.log
    assert relay.status() == {"plane": "kernel", "why_not_kernel": ""}
    relay.call()
    relay.end(signal.SIGKILL)
    assert "tc-1" in relay.pinned() and "slots" in relay.pinned()
    relay.start(TWO)
    assert "1 calls go on" in relay.log
    said = relay.run("doctor", user=TWO).stdout
    assert "media would be relayed in the kernel" in said and "bad" not in said
    assert "its media is relayed in the kernel" in said and re.search(r"\d  UP$", said, re.MULTILINE)
    done = relay.run("relay", "--release", user=TWO)
    assert done.returncode == 1 and "another relay process works with them: stop it" in done.stderr
    relay.end(signal.SIGTERM)
    assert relay.pinned()
    done = relay.run("relay", "--release", user=TWO)
    assert (done.returncode, done.stdout) == (0, "taken out of the kernel: 1 program, and what was pinned\n")
    assert not relay.pinned()
    assert relay.run("relay", "--release").stdout == "nothing is in the kernel\n"


def test_without_a_bpf_filesystem_streams_end_with_the_process(relay: Relay) -> None:
    relay.start(TWO)
    assert "calls in the kernel end with this process" in relay.log and "mount -t bpf bpf" in relay.log
    assert "relayed in the kernel" in relay.log
    assert not (relay.folder / "bpf").exists()


def test_root_mounts_one_and_leaves_nothing(relay: Relay) -> None:
    relay.start()
    assert "relayed in the kernel" in relay.log and "WARNING" not in relay.log
    assert (relay.folder / "bpf").is_mount()
    relay.call()
    relay.end()
    assert not (relay.folder / "bpf").is_mount()


def test_falling_back_is_said_once_and_shown(relay: Relay) -> None:
    relay.start(NONE)
    (line,) = [line for line in relay.log.splitlines() if "WARNING" in line]
    assert "media is relayed in user space, not in the kernel" in line and "CAP_BPF and CAP_NET_ADMIN" in line
    assert relay.status()["plane"] == "native" and "CAP_BPF" in relay.status()["why_not_kernel"]
    relay.call()
    shown = relay.run("calls", user=NONE).stdout
    assert "media is relayed in user space: BPF maps" in shown


def test_the_kernel_or_nothing(relay: Relay) -> None:
    relay.configure('plane = "kernel"')
    relay.start(NONE)
    assert relay.process is not None and relay.process.wait(60) == 1
    last = relay.log.splitlines()[-1]
    assert last.startswith("mediaproxy: media cannot be relayed in the kernel") and "mediaproxy doctor" in last


@pytest.mark.parametrize("plane", ["native", "user"])
def test_user_space_on_request_takes_over_from_the_kernel(relay: Relay, plane: str) -> None:
    """Streams that an earlier process has in the kernel go on in user space, instead of being fought over."""
    relay.start()
    relay.call()
    relay.end(signal.SIGKILL)
    assert relay.pinned()
    relay.configure(f'plane = "{plane}"')
    relay.start()
    assert not relay.pinned()
    assert "are relayed in user space now" in relay.log and "1 calls go on" in relay.log
    assert relay.status() == {"plane": plane, "why_not_kernel": ""}


@pytest.mark.parametrize("plane", ["native", "user", "auto"])
def test_a_second_relay_cannot_have_the_same_ports(relay: Relay, plane: str, tmp_path: Path) -> None:
    """The first one's program would take its packets, whatever carries them."""
    relay.start()
    (tmp_path / "second").mkdir()
    second = Relay(relay.space, tmp_path / "second")
    second.configure(f'plane = "{plane}"', bpffs=str(relay.folder / "bpf"))
    second.start()
    assert second.process is not None and second.process.wait(60) == 1
    assert "20000 to 20399 belong to another relay that runs on this host" in second.log
    relay.end()
    second.start()
    assert "records go to" in second.log, "now they are free"
    second.end()
