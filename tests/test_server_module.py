"""A server beside a SIP server: its socket, and the record of a call that was asked for over it."""

import asyncio
import contextlib
import grp
import logging
import os
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from mediaproxy import __version__
from mediaproxy.accounting import Record
from mediaproxy.admin import AdminError, Command, ask
from mediaproxy.config import Config
from mediaproxy.config.schema import Relay
from mediaproxy.control import EndCause, EndRequest, MediaReply, Party, PhoneAddress, encode
from mediaproxy.dispatcher.settings import DispatcherSettings
from mediaproxy.edge.interfaces import host_addresses
from mediaproxy.edge.settings import EdgeSettings
from mediaproxy.endpoint import Endpoint
from mediaproxy.events import EndReason, StreamReport
from mediaproxy.link import bind_unix
from mediaproxy.records import RecordReader
from mediaproxy.relay.settings import RelayAddress
from mediaproxy.server.answers import Calls, Ended, Registrations, Relays, Status
from mediaproxy.server.assembly import Server
from mediaproxy.server.places import Places
from mediaproxy.server.starting import StartError
from tests.asking import DTMF, OPUS, PCMU, VP8, Phone, ack, answer, bye, offer, ports, sockets, worker

pytestmark = pytest.mark.usefixtures("no_leaks")

CONFIG = Config(
    edge=EdgeSettings(enabled=False),
    relay=Relay(addresses=(RelayAddress(bind="127.0.0.1", advertise="127.0.0.9"),), name="hereabouts", plane="user"),
)


def ask_on(path: str, **chosen: Any) -> Config:
    return replace(CONFIG, dispatcher=DispatcherSettings(mediaproxy_socket=path, **chosen))


@pytest.fixture
def places(tmp_path: Path) -> Places:
    return Places(runtime_dir=tmp_path / "run", state_dir=tmp_path / "state", records=tmp_path / "records.jsonl")


@pytest.fixture
async def server(places: Places) -> AsyncIterator[Server]:
    async with Server(CONFIG, places) as running:
        yield running


async def records(places: Places, count: int = 1) -> list[Record]:
    """The records, when there are so many."""
    async with asyncio.timeout(30):
        while len(found := list(RecordReader(places.records).read())) < count:
            await asyncio.sleep(0.01)
    return found


# -- the record of a call


@pytest.mark.both_loops
async def test_the_record_is_right_to_the_packet_and_byte(server: Server, places: Places) -> None:
    alice = Phone("alice", "127.0.0.2", agent="Alice's phone 1.0")
    bob = Phone("b\xf6b", "127.0.0.3", agent="Server of B\xf6b")
    with sockets(alice, bob, streams=2):
        async with worker(places.mediaproxy_socket) as asked:
            offered = alice.streams([(OPUS, PCMU, DTMF), (VP8,)])
            to_bob = ports(await asked.ask(offer(alice, bob, "c1", offered)))
            answered = bob.streams([(PCMU, DTMF), (VP8,)])
            to_alice = ports(await asked.ask(answer(alice, bob, "c1", answered)))
            assert not (await asked.ask(ack(alice, bob, "c1"))).error
            sent = await talk(alice, bob, to_alice, to_bob)
            assert not (await asked.ask(bye(bob, alice, "c1"))).error
    (record,) = await records(places)
    assert (record.call_id, record.reason, record.status, record.relay) == ("c1", EndReason.BYE, 0, "hereabouts")
    assert record.answered is not None
    assert record.started <= record.answered <= record.ended
    assert record.duration == record.ended - record.answered
    for party, phone in ((record.caller, alice), (record.callee, bob)):
        assert (party.uri, party.tag, party.user_agent) == (phone.party.uri, phone.party.tag, phone.agent)
        assert party.signalling == Endpoint(phone.address, 5060)
    audio, video = record.streams
    assert [(one.index, one.kind, one.transport) for one in record.streams] == [
        (0, "audio", "RTP/AVP"),
        (1, "video", "RTP/AVP"),
    ]
    for stream, packets in ((audio, 21), (video, 20)):
        octets = [sent[phone][stream.index] for phone in ("alice", "bob")]
        assert (stream.caller.packets, stream.caller.bytes, stream.callee.sent) == (packets, octets[0], packets)
        assert (stream.callee.packets, stream.callee.bytes, stream.caller.sent) == (packets, octets[1], packets)
        assert (stream.caller.lost, stream.callee.lost, stream.caller.refused_packets) == (0, 0, 0)
    assert [(one.caller.codec, one.callee.codec) for one in record.streams] == [("PCMU", "PCMU"), ("VP8", "VP8")]
    addresses_are_right(audio, alice, bob, 0, to_bob[0], to_alice[0])
    addresses_are_right(video, alice, bob, 1, to_bob[1], to_alice[1])


async def talk(alice: Phone, bob: Phone, to_alice: list[Endpoint], to_bob: list[Endpoint]) -> dict[str, list[int]]:
    """Both speak on both streams, and hear each other; the bytes that each has sent per stream."""
    sent = {"alice": [0, 0], "bob": [0, 0]}
    for stream, payload_type in ((0, 0), (1, 97)):
        for number in range(20):
            sent["bob"][stream] += bob.send(stream, bound(to_bob[stream]), payload_type, 50 + number)
            await alice.hear(stream)
            sent["alice"][stream] += alice.send(stream, bound(to_alice[stream]), payload_type, 100 + number)
            await bob.hear(stream)
    for phone, name, to, other in ((alice, "alice", to_alice, bob), (bob, "bob", to_bob, alice)):
        sent[name][0] += phone.send(0, bound(to[0]), 101, 4)  # a digit is no other codec
        await other.hear(0)
    return sent


def bound(advertised: Endpoint) -> Endpoint:
    """Where the relay's port really is: the tests' host has no other way to the address that it advertises."""
    return Endpoint("127.0.0.1", advertised.port)


def addresses_are_right(
    report: StreamReport, alice: Phone, bob: Phone, stream: int, to_bob: Endpoint, to_alice: Endpoint
) -> None:
    """``to_bob``: what bob was told, so what faces him; it is advertised under another address than bound."""
    for side, phone, ours in ((report.caller, alice, to_alice), (report.callee, bob, to_bob)):
        assert side.sdp == side.learned == phone.endpoint(stream)
        assert (side.advertised, side.local) == (ours, bound(ours))
        assert side.rank == 1


async def test_how_a_call_that_was_given_up_ends(server: Server, places: Places) -> None:
    alice, bob = Phone("alice"), Phone("bob")
    async with worker(places.mediaproxy_socket) as asked:
        ports(await asked.ask(offer(alice, bob, "c1")))
        cancel = EndRequest(call_id="c1", sender=alice.party, receiver=Party(), cause=EndCause.CANCEL)
        assert not (await asked.ask(cancel)).error
        ports(await asked.ask(offer(alice, bob, "c2")))
        ports(await asked.ask(answer(alice, bob, "c2")))
    await server.__aexit__(None, None, None)
    found = {one.call_id: one for one in await records(places, 2)}
    assert {call_id: one.reason for call_id, one in found.items()} == {
        "c1": EndReason.CANCEL,
        "c2": EndReason.SHUTDOWN,
    }
    assert (found["c1"].answered, found["c1"].duration) == (None, 0.0)


# -- the socket


async def test_many_workers_and_one_that_talks_nonsense(server: Server, places: Places) -> None:
    alice, bob = Phone("alice"), Phone("bob")
    async with contextlib.AsyncExitStack() as stack:
        workers = [await stack.enter_async_context(worker(places.mediaproxy_socket)) for _ in range(200)]
        for nonsense in (b"{}\n", b"status\n", b"\xff\xfe\n", b"[" * 5000 + b"\n", encode(MediaReply())):
            reply = await workers[7].ask(nonsense)
            assert (reply.status, bool(reply.error)) == (400, True)
        replies = await asyncio.gather(*(one.ask(offer(alice, bob, f"c{at}")) for at, one in enumerate(workers)))
        given = [port for reply in replies for port in ports(reply)]
        assert len(set(given)) == len(workers)
        assert ports(await workers[7].ask(offer(alice, bob, "c3"))) == ports(replies[3]), (
            "another worker, the same call"
        )


@given(
    address=st.text(st.characters(codec="latin-1"), max_size=20)
    | st.sampled_from(["0.0.0.0", "::", "255.255.255.255"]),
    port=st.integers(-1, 70_000),
    call_id=st.text(max_size=20),
    status=st.integers(-1, 700),
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_a_question_says_it_is_answered(
    tmp_path_factory: pytest.TempPathFactory, address: str, port: int, call_id: str, status: int
) -> None:
    home = tmp_path_factory.mktemp("fuzz")
    alice, bob = Phone("alice"), Phone("bob")
    strange = Endpoint(address, port)
    question = replace(
        offer(alice, bob, call_id), status=status, phone=PhoneAddress(endpoint=strange), streams=alice.streams()
    )
    question = replace(
        question, streams=tuple(replace(one, endpoint=strange, rtcp=strange) for one in question.streams)
    )

    async def asks() -> None:
        places = Places(runtime_dir=home / "run", state_dir=home / "state", records=home / "records.jsonl")
        async with Server(CONFIG, places), worker(places.mediaproxy_socket) as asked:
            reply = await asked.ask(question)
            assert reply.status != 500, "a fault of the server"
            ports(await asked.ask(offer(alice, bob, "healthy")))

    asyncio.run(asks())


async def test_the_socket_is_where_and_whose_it_was_told(tmp_path: Path) -> None:
    path = tmp_path / "elsewhere" / "module.sock"
    group = grp.getgrgid(os.getgid()).gr_name
    config = replace(
        ask_on(str(path), mode="0666", group=group), runtime_dir=str(tmp_path / "r"), state_dir=str(tmp_path)
    )
    async with Server(config, Places.of(config)) as server:
        assert stat.S_IMODE(path.stat().st_mode) == 0o666
        second = tmp_path / "r" / "dispatcher.sock"
        assert (await asked_of(server, "status", Status)).questions == (f"unix:{path}", f"unix:{second}")
        async with worker(path) as asked:
            ports(await asked.ask(offer(Phone("a"), Phone("b"), "c")))
    assert not path.exists()


async def test_a_sip_server_of_another_user_gets_at_the_socket(places: Places) -> None:
    old = os.umask(0o077)
    try:
        async with Server(CONFIG, places):
            assert stat.S_IMODE(places.runtime_dir.stat().st_mode) == 0o755
            assert stat.S_IMODE(places.state_dir.stat().st_mode) == 0o750
            assert stat.S_IMODE(places.mediaproxy_socket.stat().st_mode) == 0o660
            assert stat.S_IMODE((places.runtime_dir / "admin.sock").stat().st_mode) == 0o600
    finally:
        os.umask(old)


async def test_a_default_place_that_is_taken_is_given_up_with_a_warning(
    places: Places, caplog: pytest.LogCaptureFixture
) -> None:
    with bind_unix(places.mediaproxy_socket):
        async with Server(CONFIG, places) as server:
            second = f"unix:{places.dispatcher_socket}"
            assert (await asked_of(server, "status", Status)).questions == (second,)
    (warning,) = [one.getMessage() for one in caplog.records if one.levelno == logging.WARNING]
    assert warning == (
        f"{places.mediaproxy_socket}: no SIP server can ask here: another process listens there; "
        "if one should, set dispatcher.mediaproxy_socket to a path that is free"
    )
    assert places.mediaproxy_socket.exists(), "it is somebody else's"


@pytest.mark.parametrize(
    ("settings_", "error"),
    [
        ({}, "another process listens there; set dispatcher.mediaproxy_socket to a path that this user may use"),
        ({"owner": "no-such-user"}, "there is no owner no-such-user; set dispatcher.owner to one that exists"),
        ({"group": "no-such-group"}, "there is no group no-such-group; set dispatcher.group to one that exists"),
    ],
    ids=["taken", "owner", "group"],
)
async def test_a_place_that_was_chosen_is_not_given_up(places: Places, settings_: dict[str, str], error: str) -> None:
    with bind_unix(places.mediaproxy_socket), pytest.raises(StartError, match=error):
        async with Server(ask_on(str(places.mediaproxy_socket), **settings_), places):
            pass


async def test_a_restart_takes_the_socket_that_a_killed_server_left(places: Places) -> None:
    bind_unix(places.mediaproxy_socket).close()
    async with Server(CONFIG, places), worker(places.mediaproxy_socket) as asked:
        ports(await asked.ask(offer(Phone("a"), Phone("b"), "c")))


# -- without SIP


async def asked_of(server: Server, name: str, result: Any, **fields: Any) -> Any:
    return await asyncio.to_thread(
        ask, server.places.runtime_dir / "admin.sock", Command(command=name, **fields), result
    )


async def test_what_an_operator_sees(server: Server, places: Places) -> None:
    status = await asked_of(server, "status", Status)
    assert (status.listeners, status.registrations, status.calls) == ((), 0, 0)
    assert (status.media, status.plane) == (("127.0.0.9",), "user")
    async with worker(places.mediaproxy_socket) as asked:
        ports(await asked.ask(offer(Phone("a"), Phone("b"), "c")))
    assert [one.call_id for one in (await asked_of(server, "calls", Calls)).calls] == ["c"]
    assert [(one.name, one.address, one.up) for one in (await asked_of(server, "relays", Relays)).relays] == [
        ("local", "local", True)
    ]
    done = await asked_of(server, "end", Ended, call_id="c")
    assert (done.ended, str(done.phones)) == ("c", "the phones are not known and have not hung up")
    with pytest.raises(AdminError, match="nobody registers here: this server has no SIP edge"):
        await asked_of(server, "registrations", Registrations)
    assert server.introduction() == [
        f"mediaproxy {__version__}: no SIP here (edge.enabled = false)",
        "media on 127.0.0.9, ports 16384 to 32766, relayed in user space",
        f"SIP servers ask on {places.mediaproxy_socket} and {places.dispatcher_socket}",
        f"records go to {places.records}",
    ]
    assert not places.location.exists() and not (places.state_dir / "secret").exists()


async def test_media_comes_to_an_address_of_the_host(places: Places) -> None:
    async with Server(replace(CONFIG, relay=Relay(plane="user")), places) as server:
        chosen = (await asked_of(server, "status", Status)).media
        assert chosen and set(chosen) <= set(host_addresses())
        assert f"media on {', '.join(chosen)} (chosen: relay.addresses says otherwise)" in server.introduction()[1]
