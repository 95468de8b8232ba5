"""A server beside a SIP server: its socket, and the record of a call that was asked for over it."""

import asyncio
import logging
import os
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from mediaproxy.accounting import Record
from mediaproxy.admin import AdminError, Command, ask
from mediaproxy.config import Config
from mediaproxy.config.schema import Relay
from mediaproxy.control import MediaReply, encode
from mediaproxy.dispatcher.settings import DispatcherSettings
from mediaproxy.edge.settings import EdgeSettings
from mediaproxy.endpoint import Endpoint
from mediaproxy.events import EndReason, StreamReport
from mediaproxy.records import RecordReader
from mediaproxy.relay.settings import RelayAddress
from mediaproxy.server.answers import Calls, Registrations, Relays, Status
from mediaproxy.server.assembly import Server
from mediaproxy.server.places import Places
from mediaproxy.server.starting import StartError
from tests.asking import DTMF, OPUS, PCMU, VP8, Phone, ack, answer, bye, offer, ports, sockets, worker

pytestmark = pytest.mark.usefixtures("no_leaks")

CONFIG = Config(
    edge=EdgeSettings(enabled=False),
    relay=Relay(addresses=(RelayAddress(bind="127.0.0.1", advertise="127.0.0.9"),), name="hereabouts"),
)


def ask_on(path: str = "", **settings: object) -> Config:
    return replace(CONFIG, dispatcher=DispatcherSettings(mediaproxy_socket=path, **settings))  # type: ignore[arg-type]  # settings by name


@pytest.fixture
def places(tmp_path: Path) -> Places:
    return Places(runtime_dir=tmp_path / "run", state_dir=tmp_path / "state", records=tmp_path / "records.jsonl")


@pytest.fixture
async def server(places: Places) -> AsyncIterator[Server]:
    async with Server(CONFIG, places) as running:
        yield running


async def records(places: Places, count: int = 1) -> list[Record]:
    """The records, when there are so many."""
    async with asyncio.timeout(5):
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
