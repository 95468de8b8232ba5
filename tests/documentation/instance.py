"""One running host with its relay server: the built-in edge, or Kamailio beside `mediaproxy run`."""

import os
import re
import shutil
import socket
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Self

from lab.hosts import Host
from lab.kamailio import VENV, Kamailio
from lab.netns import LabError, Namespace, environment, run, start, stop, wait_until
from lab.server import PROGRAM, Server, Settings, merge
from lab.site import unmount
from mediaproxy.accounting import Record
from mediaproxy.admin import Command, ask
from mediaproxy.records import RecordReader
from mediaproxy.server.answers import Calls, Relays
from tests.documentation import scripts
from tests.documentation.lines import Place

Parameters = Mapping[str, object]
_PATIENCE = 10.0
"Seconds that a message may wait for the relay: how long is not what is tried here, on machines that are busy."
_KAMAILIO_NAMES = {
    "nat_flag": "nat_bflag",
    "sip_natping_flag": "sipping_bflag",
    "sipping_remove_flag": "sipping_remove_bflag",
}
"Parameters that Kamailio's module has by another name."


def records(path: Path, call_id: str, seconds: float) -> list[Record]:
    """The records of a call in a file, once there is one; [] if none comes in time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = [one for one in RecordReader(path).read() if one.call_id == call_id] if path.exists() else []
        if found:
            return found
        time.sleep(0.02)
    return []


class Mounts(Namespace):
    """A view of the file system in which /run and /etc are a test's own; otherwise all is as outside."""

    def __init__(self, folder: Path) -> None:
        super().__init__("")
        self.etc = folder / "etc"
        "What is /etc inside."
        folder.mkdir(parents=True)
        shutil.copytree("/etc", self.etc, symlinks=True, ignore_dangling_symlinks=True)
        ready = folder / "ready"
        script = 'mount -t tmpfs tmpfs /run && mount --bind "$0" /etc && : > "$1" && exec sleep infinity'
        argv = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, str(self.etc), str(ready)]
        self._holder = start(argv, folder / "log")
        try:
            wait_until("the mounts are made", ready.exists)
        except BaseException:
            self.close()
            raise

    def argv(self, *argv: str) -> list[str]:
        """The command line that runs ``argv`` in here."""
        return ["nsenter", f"--mount=/proc/{self._holder.pid}/ns/mnt", "--", *argv]

    def socket(self, kind: socket.SocketKind, family: socket.AddressFamily = socket.AF_INET) -> socket.socket:
        """The network is that of everybody."""
        return socket.socket(family, kind)

    def path(self, path: str) -> Path:
        """A path in here as seen from outside."""
        return Path(f"/proc/{self._holder.pid}/root{path}")

    def close(self) -> None:
        """End it; its processes must have been ended."""
        stop(self._holder)


class _Beside(Server):
    """``mediaproxy run`` without SIP: it is up when it takes questions."""

    def __init__(self, namespace: Namespace | None, folder: Path, settings: Settings, questions: Path) -> None:
        self._questions = questions
        super().__init__(namespace, folder, settings, ("", 0))

    def _wait_answer(self, seconds: float = 60.0) -> None:
        deadline = time.monotonic() + seconds
        while True:
            self._check_alive(deadline)
            with socket.socket(socket.AF_UNIX) as sock, suppress(OSError):
                sock.connect(str(self._questions))
                return
            time.sleep(0.02)


class Instance:
    """A host that runs. ``parameters``: the module's, by the page's names."""

    SOCKET = "/var/run/proxydispatcher.sock"

    def __init__(
        self,
        host: Host,
        folder: Path,
        address: str,
        *,
        parameters: Parameters,
        server: Settings | None = None,
        mounts: Mounts | None = None,
    ) -> None:
        """``address``: for SIP and media. ``server``: more settings of the relay server."""
        self.host, self.folder, self.address, self.mounts = host, folder, address, mounts
        self.sip: Place = (address, 5060)
        self.journal_path = folder / "journal"
        self.records_path = folder / "server" / "records.jsonl"
        self._server: Server | None = None
        self._kamailio: Kamailio | None = None
        folder.mkdir(parents=True)
        self.journal_path.touch()
        self._parameters = dict(parameters)
        self.socket = self._socket()
        common: dict[str, object] = {
            "state_dir": str(folder / "server"),
            "relay": {
                "addresses": [{"bind": address}],
                "bpffs": str(folder / "server" / "bpf"),
                "linger": 0.3,
                "cool": 0.1,
                "cool_quiet": 0.0,
            },
            "dispatcher": {},
        }
        if mounts is None:
            common["runtime_dir"] = str(folder / "server")
        self._settings = merge(common, server or {})

    def _socket(self) -> Path:
        """Where questions are taken, as seen from here."""
        if "mediaproxy_socket" in self._parameters:
            return Path(str(self._parameters["mediaproxy_socket"]))
        assert self.mounts is not None, "outside of mounts the default socket may be somebody else's"
        return self.mounts.path("/run/proxydispatcher.sock")

    # -- starting

    def probing(self) -> Self:
        """Start it with the shipped routing, and the probe."""
        if self.host is Host.EDGE:
            return self._edge(scripts.edge_probe(self.journal_path))
        told = self._told()
        return self._beside(scripts.kamailio_probe(self.journal_path, told), scripts.kamailio_config())

    def beside_nathelper(self) -> Self:
        """The same; Kamailio has its nathelper, too."""
        if self.host is Host.EDGE:
            return self.probing()
        told = self._told()
        config = scripts.kamailio_config(scripts.NATHELPER)
        return self._beside(scripts.kamailio_probe(self.journal_path, told), config)

    def with_examples(self) -> Self:
        """Start it with the page's examples as routing."""
        if self.host is Host.EDGE:
            return self._edge(scripts.EDGE_EXAMPLES)
        return self._beside(scripts.native_script(self._told()), scripts.native_config())

    def _edge(self, script: str) -> Self:
        path = self.folder / "routing.py"
        path.write_text(script)
        parameters = dict(self._parameters)
        dispatcher = (
            {"mediaproxy_socket": parameters.pop("mediaproxy_socket")} if "mediaproxy_socket" in parameters else {}
        )
        edge = {
            "listeners": [{"transport": "udp", "bind": f"{self.address}:5060"}],
            "domains": list(scripts.DOMAINS),
            "script": str(path),
            "question_timeout": _PATIENCE,
            **parameters,
        }
        settings = merge(self._settings, {"edge": edge, "dispatcher": dispatcher})
        self._server = Server(self.mounts, self.folder / "server", settings, self.sip)
        return self

    def _told(self) -> dict[str, object]:
        told = {_KAMAILIO_NAMES.get(name, name): value for name, value in self._parameters.items()}
        return {"timeout": _PATIENCE, **told}

    def _beside(self, script: str, config: str) -> Self:
        told = self._parameters.get("mediaproxy_socket")
        dispatcher = {"mediaproxy_socket": told} if told else {}
        settings = merge(self._settings, {"edge": {"enabled": False}, "dispatcher": dispatcher})
        self._server = _Beside(self.mounts, self.folder / "server", settings, self.socket)
        path = self.folder / "kamailio.cfg"
        path.write_text(config)
        self._kamailio = Kamailio(
            self.folder / "kamailio",
            [f"udp:{self.address}:5060"],
            script=script,
            namespace=self.mounts,
            options=["-n", "2", "-f", str(path)],
        )
        return self

    # -- what is seen of it

    @property
    def server(self) -> Server:
        """The relay server."""
        assert self._server is not None
        return self._server

    @property
    def log(self) -> str:
        """What all of it printed."""
        return self.server.log + (self._kamailio.log if self._kamailio is not None else "")

    @property
    def pids(self) -> list[int]:
        """Its processes."""
        return [self.server.process.pid, *(self._kamailio.pids if self._kamailio is not None else [])]

    @property
    def environment(self) -> dict[str, str]:
        """Kamailio's, in which it finds its Python."""
        return environment(PATH=f"{VENV}/bin:{os.environ.get('PATH', '')}:/usr/sbin")

    @property
    def script(self) -> str:
        """The routing: script and, of Kamailio, config."""
        files = [self.folder / "routing.py", self.folder / "kamailio.cfg", self.folder / "kamailio" / "script.py"]
        return "".join(path.read_text() for path in files if path.exists())

    @property
    def routing(self) -> str:
        """The same, and the configuration of the server beside it: all that was written down to configure it."""
        return self.script + (self.folder / "server" / "config.toml").read_text()

    def journal(self, call_id: str, route: str = "") -> list[str]:
        """What the words of a call returned: ``word code truth``, in order. ``route``: only there."""
        wanted = f"{call_id.encode('latin-1').hex()} {route}"
        lines = self.journal_path.read_text().splitlines()
        return [line.split(" ", 2)[2] for line in lines if line.startswith(wanted)]

    def codes(self, call_id: str, route: str = "") -> list[int]:
        """The codes among them."""
        return [int(re.split(" ", line)[1]) for line in self.journal(call_id, route)]

    def _admin(self) -> Path:
        return (self.mounts.path("/run/mediaproxy") if self.mounts else self.folder / "server") / "admin.sock"

    def calls(self) -> list[str]:
        """The Call-IDs of the calls that are relayed now."""
        return [one.call_id for one in ask(self._admin(), Command(command="calls"), Calls).calls]

    def relays(self) -> dict[str, bool]:
        """The relays that it can choose from, and whether they are up."""
        return {one.name: one.up for one in ask(self._admin(), Command(command="relays"), Relays).relays}

    def records(self, call_id: str, seconds: float = 20.0) -> list[Record]:
        """The records of a call, once there is one; [] if none comes."""
        return records(self.records_path, call_id, seconds)

    def stop(self) -> None:
        """End it."""
        if self._kamailio is not None:
            self._kamailio.stop()
        if self._server is not None:
            self._server.stop()
        unmount(self.folder)


def check_script(text: str, folder: Path) -> str:
    """What `mediaproxy script --check` says of a routing script of the edge, without the file's name."""
    path = folder / "checked.py"
    path.write_text(text)
    try:
        said = run([str(PROGRAM), "script", "--check", str(path)])
    except LabError as error:
        said = str(error).partition(": exit ")[2]
    return said.strip().replace(f"{path}:", "line ")
