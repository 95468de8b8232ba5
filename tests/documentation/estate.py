"""Relays in processes of their own, one of them on "another host" over TLS, and a name server that knows domains."""

import asyncio
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lab.netns import start, stop
from lab.server import PROGRAM, document
from lab.site import unmount
from mediaproxy.accounting import Record
from mediaproxy.link.address import TlsFiles
from tests.documentation.instance import records
from tests.nameserver import NameServer
from tests.test_link_tls import Authority

SRV = "relay.named.test"
"Name of the relay that DNS can name."


class RelayProcess:
    """``mediaproxy relay``."""

    def __init__(self, name: str, folder: Path, address: str, listen: Mapping[str, object]) -> None:
        self.name, self.address, self._folder = name, address, folder
        folder.mkdir(parents=True)
        self._config = folder / "relay.toml"
        self._config.write_text(
            document(
                {
                    "runtime_dir": str(folder),
                    "state_dir": str(folder),
                    "relay": {
                        "name": name,
                        "addresses": [{"bind": address}],
                        "bpffs": str(folder / "bpf"),
                        "listen": listen,
                        "linger": 0.3,
                        "cool": 0.1,
                        "cool_quiet": 0.0,
                    },
                }
            )
        )
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def socket(self) -> Path:
        """Where it takes questions if it is not told."""
        return self._folder / "relay.sock"

    def records(self, call_id: str, seconds: float = 20.0) -> list[Record]:
        """The records of a call, once there is one; [] if none comes."""
        return records(self._folder / "records.jsonl", call_id, seconds)

    def start(self) -> None:
        """Begin to start it."""
        self._process = start([str(PROGRAM), "relay", "--config", str(self._config)], self._folder / "log")

    def kill(self) -> None:
        """End it without a farewell."""
        if self._process is not None:
            stop(self._process, signal.SIGKILL)

    def stop(self) -> None:
        """End it."""
        if self._process is not None:
            stop(self._process)


class Estate:
    """All of it. A context manager."""

    def __init__(self, folder: Path, addresses: Sequence[str]) -> None:
        """``addresses``: six of loopback: of the name server, and of the relays."""
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.dns_address, one, two, spare, gold, named = addresses
        authority = Authority(folder, "ca")
        self.files: TlsFiles = authority.issue("host", gold)
        tls = {
            "address": f"tls://{gold}:25060",
            "certificate": self.files.certificate,
            "authorities": self.files.authorities,
        }
        self.relays = {
            name: RelayProcess(name, folder / name, address, listen)
            for name, address, listen in (
                ("one", one, {}),
                ("two", two, {}),
                ("spare", spare, {}),
                ("gold", gold, tls),
                (SRV, named, {}),
            )
        }
        self.dns = _Dns(self.dns_address)

    def __enter__(self) -> "Estate":
        self.dns.start()
        for relay in self.relays.values():
            relay.start()
        return self

    def __exit__(self, *_: object) -> None:
        for relay in self.relays.values():
            relay.stop()
        unmount(self.folder)
        self.dns.stop()

    @property
    def settings(self) -> dict[str, object]:
        """The dispatcher's: two relays for everybody, of which one takes three times the calls of the other, and a
        spare one; one for gold.test on another host; one that only DNS gives something to do."""
        tls = {"certificate": self.files.certificate, "authorities": self.files.authorities}
        return {"relays": self.entries, "tls": tls, "health_interval": 0.5, "relay_timeout": 5.0}

    @property
    def entries(self) -> list[dict[str, Any]]:
        """The relays among them."""
        entries: list[dict[str, Any]] = [
            {"name": "one", "weight": 3},
            {"name": "two", "weight": 1},
            {"name": "spare", "tier": 1},
            {"name": "gold", "domains": ["gold.test"]},
            {"name": SRV, "domains": ["nobody.test"]},
        ]
        for entry in entries:
            relay = self.relays[str(entry["name"])]
            entry["address"] = f"tls://{relay.address}:25060" if relay.name == "gold" else f"unix:{relay.socket}"
        return entries

    def name_of(self, address: str) -> str:
        """Which relay media at an address is at."""
        return next((one.name for one in self.relays.values() if one.address == address), address)


class _Dns:
    """The name server, in a thread of its own. It knows no domain at first."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._transport: asyncio.DatagramTransport | None = None
        self.server: NameServer

    def start(self) -> None:
        self._thread.start()

        async def listen() -> None:
            place = (self._address, 53)
            self._transport, self.server = await self._loop.create_datagram_endpoint(NameServer, local_addr=place)
            self.server.ttl = self.server.negative = 1

        asyncio.run_coroutine_threadsafe(listen(), self._loop).result(30)

    def stop(self) -> None:
        if self._transport is not None:
            self._loop.call_soon_threadsafe(self._transport.close)
        time.sleep(0.01)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()
