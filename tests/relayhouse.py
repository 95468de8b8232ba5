"""Relays and a dispatcher in one test process, with certificates of their own authority."""

import asyncio
import itertools
import os
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from mediaproxy.admin import Command, ask
from mediaproxy.config import Config
from mediaproxy.config.schema import Relay
from mediaproxy.control import EndCause, EndRequest, Party
from mediaproxy.dispatcher.settings import DispatcherSettings, ListenSettings, RelayEntry
from mediaproxy.edge.settings import EdgeSettings
from mediaproxy.link.address import TlsFiles
from mediaproxy.relay.settings import RelayAddress
from mediaproxy.server.answers import Relays
from mediaproxy.server.assembly import Server
from mediaproxy.server.places import Places
from mediaproxy.server.relaying import RelayServer
from tests.asking import Phone, Worker, offer, ports, worker
from tests.test_link_tls import Authority

ALICE, BOB = Phone("alice"), Phone("bob")
TLS = "tls://127.0.0.1:0"
PORTS = 16384 + os.getpid() % 48 * 320
"First port of a range that tests running at the same time do not share."
_numbers = itertools.count()


class House:
    """Directories, certificates and configurations of relays and their dispatcher."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._ca = Authority(directory, "ca")
        self.files = self._ca.issue("host", "127.0.0.1", "localhost")

    def places(self, name: str) -> Places:
        home = self.directory / name
        return Places(runtime_dir=home / "run", state_dir=home / "state", records=home / "records.jsonl")

    def relay(self, name: str, listen: str = "", *, number: int = 0) -> RelayServer:
        """A relay with few ports, which are lent again at once. ``number``: 0, 1 or 2, of those that run together."""
        first_port = PORTS + 100 * number
        return RelayServer(
            Config(
                relay=Relay(
                    name=name,
                    addresses=(RelayAddress(bind="127.0.0.1"),),
                    plane="user",
                    port_min=first_port,
                    port_max=first_port + 99,
                    cool=0.0,
                    cool_quiet=0.0,
                    listen=ListenSettings(
                        address=listen, certificate=self.files.certificate, authorities=self.files.authorities
                    ),
                )
            ),
            self.places(name),
        )

    def dispatcher(self, relays: Sequence[RelayEntry], *, tls: bool = True, **settings: Any) -> Server:
        # A busy host is no relay that does not answer: who wants that says how long it may take.
        common: dict[str, Any] = {
            "health_interval": 0.1,
            "relay_timeout": 5.0,
            "tls": self.files if tls else TlsFiles(),
        }
        return Server(
            Config(
                edge=EdgeSettings(enabled=False),
                relay=Relay(addresses=(RelayAddress(bind="127.0.0.1"),), plane="user", cool=0.0, cool_quiet=0.0),
                dispatcher=DispatcherSettings(relays=tuple(relays), **common | settings),
            ),
            self.places("dispatcher"),
        )


def entry(relay: RelayServer, **fields: Any) -> RelayEntry:
    """The relay as a dispatcher's configuration names it."""
    return RelayEntry(name=relay.config.relay.name, address=str(relay.address), **fields)


@asynccontextmanager
async def two(house: House, listen: str = "") -> AsyncIterator[tuple[RelayServer, RelayServer]]:
    async with house.relay("r1", listen) as one, house.relay("r2", listen, number=1) as other:
        yield one, other


@asynccontextmanager
async def asking(server: Server) -> AsyncIterator[Worker]:
    async with server, worker(server.places.mediaproxy_socket) as asked:
        yield asked


async def where(asked: Worker, call_id: str, caller: Phone = ALICE, callee: Phone = BOB) -> str:
    """The relay that a new call goes to. The call is ended."""
    reply = await asked.ask(offer(caller, callee, call_id))
    ports(reply)
    assert not (await asked.ask(over(call_id))).error
    return reply.relay


def over(call_id: str) -> EndRequest:
    return EndRequest(call_id=call_id, sender=Party(), receiver=Party(), cause=EndCause.ADMIN)


async def shares(asked: Worker, calls: int = 40, caller: Phone = ALICE, callee: Phone = BOB) -> Counter[str]:
    return Counter([await where(asked, f"share-{next(_numbers)}", caller, callee) for _ in range(calls)])


async def asked_of(server: Server | RelayServer, name: str, result: Any, **fields: Any) -> Any:
    return await asyncio.to_thread(
        ask, server.places.runtime_dir / "admin.sock", Command(command=name, **fields), result
    )


async def states(server: Server) -> dict[str, bool]:
    return {one.name: one.up for one in (await asked_of(server, "relays", Relays)).relays}


async def until(server: Server, **wanted: bool) -> None:
    """Wait for relays to be up or down."""
    async with asyncio.timeout(30):
        while {name: (await states(server)).get(name) for name in wanted} != wanted:
            await asyncio.sleep(0.02)
