"""One relay's process in a namespace, as often as it is started, and sockets of phones."""

import json
import signal
import socket
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from lab.netns import Namespace, wait_until
from mediaproxy.endpoint import Endpoint
from tests.asking import Phone, ack, answer, offer, ports
from tests.test_cli import cli
from tests.test_relay_processes import BlockingWorker

CONFIG = """
runtime_dir = "run"
state_dir = "state"
[relay]
name = "one"
plane = "kernel"
port_min = 20000
port_max = 20998
# However busy the machine is: no pause of it shall let an attacker with a phone's own address in (calls.md 4, 6).
rebind_silence = 3600.0
equal_rank_silence = 3600.0
"""
_SO_RCVBUFFORCE = 33
_BUFFER = 4 << 20
"Bytes of a phone's socket: nothing is lost there, however late it is read."


class RelayProcess:
    """``mediaproxy relay`` in a namespace, with its files in a folder."""

    def __init__(
        self, space: Namespace, folder: Path, addresses: str, more: str = "", bpffs: Path | None = None
    ) -> None:
        """``addresses`` and ``more``: TOML, of the relay. ``bpffs``: if it is not in the folder."""
        self.space = space
        self.folder = folder
        self._bpffs = (bpffs or folder / "bpf").absolute()
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir(exist_ok=True)
        (folder / "c.toml").write_text(f'{CONFIG}bpffs = "{self._bpffs}"\naddresses = [{addresses}]\n{more}\n')

    def start(self) -> None:
        """The relay, when it answers."""
        ready = self.folder / "run" / "relay.sock"
        ready.unlink(missing_ok=True)
        argv = [sys.executable, "-m", "mediaproxy", "relay", "--config", "c.toml"]
        process = self._process = self.space.start(argv, self.folder / "log", self.folder)
        wait_until("the relay", lambda: ready.exists() or process.poll() is not None, 60)
        assert process.poll() is None, self.log

    def end(self, number: int = signal.SIGINT) -> None:
        """Send it a signal, and wait for its end; nothing if it does not run."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)
            self._process.wait(60)

    def close(self) -> None:
        """End it, and remove the BPF filesystem if nobody else uses it. May be called twice."""
        self.end()
        if self._bpffs.is_mount():
            subprocess.run(["umount", str(self._bpffs)], check=False, stderr=subprocess.DEVNULL)

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

    def call(self, alice: Phone, bob: Phone, call_id: str) -> tuple[Endpoint, Endpoint]:
        """Set a call up: the ports that Alice and Bob are told."""
        offered, answered, _ = self.ask(
            offer(alice, bob, call_id), answer(alice, bob, call_id), ack(alice, bob, call_id)
        )
        (at_bob,), (at_alice,) = ports(offered), ports(answered)
        return at_alice, at_bob


def seat(stack: ExitStack, phone: Phone, space: Namespace, address: str = "", port: int = 0) -> Phone:
    """Give a phone a socket on a host. ``address``: if it is another one than its SDP tells."""
    sock = space.socket(socket.SOCK_DGRAM)
    stack.callback(sock.close)
    sock.bind((address or phone.address, port))
    sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER)
    sock.setblocking(False)
    phone.sockets.append(sock)
    phone.ports.append(sock.getsockname()[1])
    return phone
