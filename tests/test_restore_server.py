"""The whole server, restarted in the middle of a call: the phones talk on, and hang up as if nothing had been."""

from pathlib import Path

import pytest
from msgspec.structs import replace

from mediaproxy.config import Config
from mediaproxy.events import CallState, EndReason
from mediaproxy.server.answers import Calls
from mediaproxy.server.assembly import Server
from mediaproxy.server.places import Places
from tests.sipua import Phone
from tests.test_server import asked, call, config, media, records, relay_port, sip, talk, until

pytestmark = pytest.mark.usefixtures("no_leaks")


@pytest.fixture
def places(tmp_path: Path) -> Places:
    return Places(runtime_dir=tmp_path / "run", state_dir=tmp_path / "state", records=tmp_path / "records.jsonl")


def kept() -> Config:
    """A configuration that keeps calls."""
    settings = config()
    return replace(settings, relay=replace(settings.relay, journal=True))


async def test_a_call_through_a_server_that_is_restarted(places: Places) -> None:
    settings = kept()
    async with Server(settings, places) as server:
        settings = replace(settings, edge=replace(settings.edge, listeners=server.listeners))
        async with (
            Phone("alice", sip(server), address="127.0.0.2") as alice,
            Phone("bob", sip(server), address="127.0.0.3") as bob,
            media("127.0.0.2") as hers,
            media("127.0.0.3") as his,
        ):
            await alice.register()
            await bob.register()
            got, ok = await call(alice, bob, hers, his)
            await talk(got, ok, hers, his)
            server.keep_calls = True
            await server.__aexit__(None, None, None)
            assert records(places) == []

            async with Server(settings, places) as server:
                (shown,) = (await asked(server, "calls", Calls)).calls
                assert shown.state is CallState.TALKING and shown.callee.uri == bob.aor
                assert shown.streams[0].caller.learned == hers.at and shown.streams[0].callee.learned == his.at
                heard = len(hers.heard), len(his.heard)
                hers.send(relay_port(ok), b"still here")
                his.send(relay_port(got), b"me, too")
                await until(lambda: (len(hers.heard), len(his.heard)) == (heard[0] + 1, heard[1] + 1))
                alice.within("BYE", ok)
                bob.answer(await bob.receive("BYE"), 200)
                await alice.receive(200, "BYE")
                await until(lambda: len(records(places)) == 1)
    (record,) = records(places)
    assert record.reason is EndReason.BYE and record.answered is not None
    assert record.streams[0].caller.packets == record.streams[0].callee.packets == 21
    async with Server(settings, places) as server:
        assert (await asked(server, "calls", Calls)).calls == ()
    assert len(records(places)) == 1


async def test_a_server_that_ends_calls_tells_their_records(places: Places) -> None:
    """What ended while no server was there has its record, although nobody is left who could hang the phones up."""
    settings = kept()
    settings = replace(settings, relay=replace(settings.relay, restart_within=0.001))
    async with Server(settings, places) as server:
        settings = replace(settings, edge=replace(settings.edge, listeners=server.listeners))
        async with (
            Phone("alice", sip(server), address="127.0.0.2") as alice,
            Phone("bob", sip(server), address="127.0.0.3") as bob,
            media("127.0.0.2") as hers,
            media("127.0.0.3") as his,
        ):
            await alice.register()
            await bob.register()
            await call(alice, bob, hers, his)
            server.keep_calls = True
            await server.__aexit__(None, None, None)
            async with Server(settings, places):
                await until(lambda: len(records(places)) == 1)
                assert records(places)[0].reason is EndReason.SHUTDOWN
                assert "BYE" not in " ".join(alice.unread() + bob.unread())
