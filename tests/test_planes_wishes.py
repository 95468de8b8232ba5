"""What a SIP server asks for, on every plane and with real sockets: blocked, silenced, muxed, checked by ICE."""

import struct
from collections.abc import AsyncIterator, Iterator
from contextlib import nullcontext

import pytest
import pytest_asyncio

from mediaproxy.control import (
    KnownBy,
    ListRequest,
    MediaPort,
    MediaReply,
    MediaRequest,
    PayloadType,
    PhoneAddress,
    QueryRequest,
    Stream,
    Switch,
    SwitchRequest,
    TotalsRequest,
    Wishes,
)
from mediaproxy.events import reports_of, totals_of
from mediaproxy.relay.ice import Credentials
from mediaproxy.relay.settings import RelayAddress
from mediaproxy.relay.stun import Class, parse
from tests.e2e.conftest import need
from tests.planebench import PAIRS, PLANES, Phone, bench_of, can_have_network, own_network, ports_of, rtp, until
from tests.planebench import Bench as PlaneBench
from tests.test_ice import NOMINATES, request
from tests.test_relay_service import ALICE, BOB, HOME, Bench

pytestmark = [pytest.mark.usefixtures("no_leaks"), pytest.mark.both_loops]

RTCP = struct.pack("!BBHI", 0x81, 200, 6, 0xCAFE) + bytes(20)
STUN = request()
DTLS = bytes([22, 254, 253]) + bytes(50)


@pytest.fixture(scope="module", autouse=True)
def network() -> Iterator[None]:
    """Root has a network of its own for all of this, so that the kernel plane meets nobody."""
    with own_network() if can_have_network() else nullcontext():
        yield


@pytest_asyncio.fixture(params=["user", "native", pytest.param("kernel", marks=pytest.mark.e2e)])
async def plane(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    if name == "kernel":
        need()
    return name


@pytest_asyncio.fixture(params=list(PAIRS))
async def naked(request: pytest.FixtureRequest, plane: str) -> AsyncIterator[PlaneBench]:
    """A plane without a relay."""
    pair = PAIRS[request.param]
    async with bench_of(PLANES[plane](), pair, ports_of(plane, pair)) as made:
        yield made


# -- planes

ASIDE = {"RTCP": RTCP, "STUN": STUN, "DTLS": DTLS, "too short for RTP": b"\x80\0\0\1", "nothing": b""}


@pytest.mark.parametrize("data", ASIDE.values(), ids=ASIDE)
async def test_what_is_no_rtp_is_passed_up_if_asked_for(naked: PlaneBench, data: bytes) -> None:
    naked.plane.install(naked.flow_a(rtp_only=True))
    naked.plane.install(naked.flow_b())
    naked.caller.send(rtp(1, ssrc=7), naked.port_a)
    assert await naked.callee.hears() == (rtp(1, ssrc=7), naked.port_b)
    naked.caller.send(data, naked.port_a)
    packet = await naked.passed_up()
    assert (packet.local, packet.source, packet.data) == (naked.port_a, naked.caller.endpoint, data)
    naked.caller.send(rtp(2, ssrc=7), naked.port_a)
    assert await naked.callee.hears() == (rtp(2, ssrc=7), naked.port_b)
    counters = naked.counters()[naked.port_a]
    assert (counters.packets, counters.undeliverable, counters.dropped) == (2, 0, 0)
    naked.callee.send(data, naked.port_b)
    assert await naked.caller.hears() == (data, naked.port_a), "the other way nothing was asked for"
    naked.plane.install(naked.flow_a())
    naked.caller.send(data, naked.port_a)
    assert (await naked.callee.hears())[0] == data, "nor any more"
    assert naked.passed.empty()


async def test_passed_up_even_where_strangers_are_not(naked: PlaneBench) -> None:
    """More than strangers may: 60 at once."""
    prefix = f"{naked.caller.endpoint.address}/{128 if naked.port_a.version == 6 else 32}"
    naked.plane.install(naked.flow_a(rtp_only=True, settled_at=0.0, allowed=(prefix,)))
    naked.plane.install(naked.flow_b())
    for _ in range(60):
        naked.caller.send(RTCP, naked.port_a)
    for _ in range(60):
        assert (await naked.passed_up()).data == RTCP


async def test_a_flow_without_peer_counts_and_sends_nothing(naked: PlaneBench) -> None:
    naked.plane.install(naked.flow_a(peer=None, peer_generation=0))
    naked.plane.install(naked.flow_b())
    for sequence in (1, 2, 3):
        naked.caller.send(rtp(sequence), naked.port_a)
    await until(lambda: naked.counters()[naked.port_a].undeliverable == 3)
    naked.callee.send(rtp(9), naked.port_b)
    assert (await naked.caller.hears())[0] == rtp(9), "the other way it goes on"
    assert naked.counters()[naked.port_a].undeliverable_bytes == 3 * 172
    assert naked.counters()[naked.port_a].last > 0 and naked.passed.empty() and naked.callee.queue.empty()


# -- calls


class Talk:
    """A relay over a plane, and two phones that have called each other."""

    def __init__(self, bench: Bench) -> None:
        self.bench, self.relay = bench, bench.relay
        self.alice, self.bob = Phone("127.0.3.4"), Phone("127.0.3.5")
        self.sequence = 0

    async def ask(self, phone: Phone, sdp: Stream, wishes: Wishes | None) -> MediaPort:
        """The relay's ports for the other phone."""
        sender, receiver = (ALICE, BOB) if phone is self.alice else (BOB, ALICE)
        question = MediaRequest(
            call_id="call",
            sender=sender,
            receiver=receiver,
            cseq=1,
            sdp_hash="",
            status=0 if phone is self.alice else 200,
            phone=PhoneAddress(endpoint=phone.endpoint, known_by=KnownBy.SOURCE),
            streams=(sdp,),
            wishes=wishes,
        )
        port = (await self.relay.ask(question)).ports[0]
        assert port is not None
        return port

    async def begin(
        self,
        alice: dict[str, bool],
        bob: dict[str, bool],
        told_alice: Wishes | None = None,
        told_bob: Wishes | None = None,
    ) -> None:
        """Offer and answer."""
        self.facing_bob = await self.ask(self.alice, _sdp(self.alice, alice), told_bob)
        self.facing_alice = await self.ask(self.bob, _sdp(self.bob, bob), told_alice)

    def say(self, phone: Phone, data: bytes | None = None) -> None:
        """To the phone's RTP port of the relay."""
        self.sequence += 1
        port = self.facing_alice if phone is self.alice else self.facing_bob
        phone.send(data or rtp(self.sequence), port.rtp)

    async def learn(self) -> None:
        """Both have spoken, and the plane has them."""
        for phone, other in ((self.alice, self.bob), (self.bob, self.alice)) * 2:
            self.say(phone)
            await other.hears()

    async def switch(self, how: Switch) -> None:
        assert await self.relay.inquire(SwitchRequest(call_id="call", switch=how, tag=ALICE.tag)) == MediaReply(
            relay="relay-1"
        )


def _sdp(phone: Phone, more: dict[str, bool]) -> Stream:
    return Stream(
        kind="audio",
        transport="RTP/AVP",
        endpoint=phone.endpoint,
        payload_types=(PayloadType(number=0, codec="PCMU", clock_rate=8000),),
        rtcp_mux=more.get("mux", False),
        ice=more.get("ice", False),
    )


@pytest_asyncio.fixture
async def talk(plane: str) -> AsyncIterator[Talk]:
    async with Bench(plane) as bench:
        made = Talk(bench)
        yield made
        made.alice.close()
        made.bob.close()


async def test_blocked_and_unblocked(talk: Talk) -> None:
    await talk.begin({}, {})
    await talk.learn()
    await talk.switch(Switch.BLOCK)
    for _ in range(5):
        talk.say(talk.alice)
    await talk.bench.until(lambda: talk.relay.reports()[0].streams[0].caller.packets == 7)
    talk.say(talk.bob)
    await talk.alice.hears()
    (report,) = reports_of(await talk.relay.inquire(QueryRequest(call_id="call")))
    stream = report.streams[0]
    assert (stream.caller.switched, stream.callee.sent, stream.caller.sent) == ("block", 2, 3)
    assert stream.caller.bytes == 7 * 172, "what was not sent on came all the same"
    (totals,) = totals_of(await talk.relay.inquire(TotalsRequest()))
    assert (totals.packets, totals.bytes, totals.calls, totals.started_calls) == (5, 5 * 172, 1, 1)
    assert (await talk.relay.inquire(ListRequest())).calls == ("call",)
    assert talk.bob.queue.empty()
    await talk.switch(Switch.UNBLOCK)
    talk.say(talk.alice)
    assert (await talk.bob.hears())[0] == rtp(talk.sequence)


async def test_silenced_and_unsilenced(talk: Talk) -> None:
    await talk.begin({}, {})
    await talk.learn()
    await talk.switch(Switch.SILENCE)
    for _ in range(3):
        talk.say(talk.alice)
        assert await talk.bob.hears() == (rtp(talk.sequence)[:12] + b"\xff" * 160, talk.facing_bob.rtp)
    await talk.switch(Switch.UNSILENCE)
    talk.say(talk.alice)
    assert (await talk.bob.hears())[0] == rtp(talk.sequence)


async def test_one_has_one_port_and_the_other_two(talk: Talk) -> None:
    await talk.begin({"mux": True}, {}, Wishes(mux=(True,)), Wishes(mux=(False,)))
    await talk.learn()
    report = Phone("127.0.3.5")
    facing_bob, rtcp = talk.facing_bob.rtcp, RTCP
    assert facing_bob is not None
    for _ in range(2):  # the first one is learned by
        report.send(rtcp, facing_bob)
        assert await talk.alice.hears() == (rtcp, talk.facing_alice.rtp)
        talk.say(talk.alice, rtcp)
        assert await report.hears() == (rtcp, facing_bob)
    talk.say(talk.alice)
    assert await talk.bob.hears() == (rtp(talk.sequence), talk.facing_bob.rtp)
    assert talk.relay.reports()[0].streams[0].plane in ("user", "native", "kernel"), "RTP is the plane's"
    report.close()


async def test_connectivity_checks(talk: Talk) -> None:
    await talk.begin({"ice": True}, {}, Wishes(lite=(True,)))
    own = Credentials(talk.facing_alice.ufrag, talk.facing_alice.password)
    elsewhere = Phone("127.0.3.44")
    elsewhere.send(rtp(1), talk.facing_alice.rtp)
    check = request(NOMINATES, username=f"{own.ufrag}:alice", password=own.password)
    for _ in range(2):  # once before it is learned, once after: consent (RFC 7675)
        elsewhere.send(check, talk.facing_alice.rtp)
        data, source = await elsewhere.hears()
        answer = parse(data)
        assert answer is not None and answer.kind is Class.SUCCESS and answer.authentic(own.password.encode())
        assert source == talk.facing_alice.rtp
        elsewhere.send(rtp(2), talk.facing_alice.rtp)
        assert await talk.bob.hears() == (rtp(2), talk.facing_bob.rtp)
        talk.say(talk.bob)
        assert (await elsewhere.hears())[0] == rtp(talk.sequence)
    talk.alice.send(request(username=f"{own.ufrag}:alice", password="x" * 24), talk.facing_alice.rtp)
    refused = parse((await talk.alice.hears())[0])
    assert refused is not None and refused.kind is Class.ERROR
    assert talk.bob.queue.empty()
    elsewhere.close()


async def test_a_relay_with_several_addresses(plane: str) -> None:
    """The caller's side has another one than the callee's, of the same IP version, and both have the same ports."""
    addresses = (*HOME, RelayAddress(bind="127.0.3.11", name="inside"))
    async with Bench(plane, addresses=addresses, port_max=21002) as bench:
        talk = Talk(bench)
        await talk.begin({}, {}, told_bob=Wishes(facing="inside"))
        assert (talk.facing_alice.rtp.address, talk.facing_bob.rtp.address) == ("127.0.3.11", "127.0.3.1")
        await talk.learn()
        for phone, other, port in (
            (talk.alice, talk.bob, talk.facing_bob),
            (talk.bob, talk.alice, talk.facing_alice),
        ):
            talk.say(phone)
            assert await other.hears() == (rtp(talk.sequence), port.rtp)
        (stream,) = bench.relay.reports()[0].streams
        assert (stream.caller.packets, stream.callee.packets, stream.plane) == (3, 3, plane)
        talk.alice.close()
        talk.bob.close()
