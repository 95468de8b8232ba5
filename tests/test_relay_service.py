"""A relay with real sockets: questions in, packets through, timers, ports that others have, and a clean end."""

import asyncio
import errno
import random
import socket
import struct
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest

from mediaproxy.control import (
    ConfirmRequest,
    EndCause,
    EndRequest,
    KnownBy,
    MediaPort,
    MediaReply,
    MediaRequest,
    Party,
    PayloadType,
    PhoneAddress,
    Stream,
)
from mediaproxy.endpoint import Endpoint
from mediaproxy.events import CallAnswered, CallEnded, CallReport, CallStarted, EndReason, Event, PeerLearned
from mediaproxy.relay.flow import Flow, Plane
from mediaproxy.relay.kernel.plane import KernelPlane
from mediaproxy.relay.native import NativePlane
from mediaproxy.relay.service import RelayService, port_warnings
from mediaproxy.relay.settings import RelayAddress, RelaySettings
from mediaproxy.relay.userspace import UserPlane
from tests.e2e.conftest import need
from tests.planebench import can_have_network, own_network

pytestmark = [pytest.mark.usefixtures("no_leaks"), pytest.mark.both_loops]

RELAY = "127.0.3.1"
HOME = (RelayAddress(bind=RELAY),)
ALICE, BOB = Party(tag="a", uri="sip:alice@example.com"), Party(tag="b", uri="sip:bob@example.com")


def rtp(sequence: int) -> bytes:
    return struct.pack("!BBHII", 0x80, 0, sequence, sequence * 160, 0xCAFE).ljust(172, b"\x55")


class Phone:
    """A phone's RTP socket."""

    def __init__(self, address: str) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.setblocking(False)
        self.socket.bind((address, 0))
        self.endpoint = Endpoint(*self.socket.getsockname())
        self.sequence = 0

    def send(self, to: MediaPort) -> None:
        self.sequence += 1
        self.socket.sendto(rtp(self.sequence), (to.rtp.address, to.rtp.port))

    async def hears(self) -> Endpoint:
        """Where the next packet came from."""
        loop = asyncio.get_running_loop()
        readable = asyncio.Event()
        loop.add_reader(self.socket, readable.set)
        try:
            await asyncio.wait_for(readable.wait(), 30)
        finally:
            loop.remove_reader(self.socket)
        return Endpoint(*self.socket.recvfrom(2048)[1])


class Bench:
    """A relay, its events, two phones."""

    def __init__(self, plane: UserPlane | str = "user", **changes: object) -> None:
        """``plane``: one, or the name of one."""
        self.events: list[Event] = []
        self.others: list[socket.socket] = []
        self.settings = RelaySettings(
            **({"addresses": HOME, "port_min": 21000, "port_max": 21398} | changes),  # type: ignore[arg-type]  # by name
        )
        made: Plane = plane if isinstance(plane, UserPlane) else UserPlane()
        if plane == "kernel":
            made = KernelPlane(self.settings, None, "test")
        elif plane == "native":
            made = NativePlane()
        self.relay = RelayService(self.settings, made, random.Random(5), self.events.append, name="relay-1")
        self.alice, self.bob = Phone("127.0.3.2"), Phone("127.0.3.3")

    async def offer(self, call_id: str = "call", sender: Party = ALICE, streams: int = 1) -> MediaReply:
        phone = self.alice if sender is ALICE else self.bob
        stream = Stream(
            kind="audio",
            transport="RTP/AVP",
            endpoint=phone.endpoint,
            payload_types=(PayloadType(number=0, codec="PCMU", clock_rate=8000),),
        )
        return await self.relay.ask(
            MediaRequest(
                call_id=call_id,
                sender=sender,
                receiver=BOB if sender is ALICE else ALICE,
                cseq=1,
                sdp_hash=sender.tag,
                status=0 if sender is ALICE else 200,
                phone=PhoneAddress(endpoint=phone.endpoint, known_by=KnownBy.SOURCE),
                streams=(stream,) * streams,
            )
        )

    async def talk(self, call_id: str = "call") -> tuple[MediaPort, MediaPort]:
        """The ports that Alice and Bob send to."""
        facing_bob = (await self.offer(call_id)).ports[0]
        facing_alice = (await self.offer(call_id, BOB)).ports[0]
        assert facing_alice is not None and facing_bob is not None
        await self.relay.ask(ConfirmRequest(call_id=call_id, sender=ALICE, receiver=BOB, cseq=1))
        return facing_alice, facing_bob

    async def bye(self, call_id: str = "call") -> MediaReply:
        return await self.relay.ask(EndRequest(call_id=call_id, sender=ALICE, receiver=BOB, cause=EndCause.BYE))

    def ended(self) -> list[CallReport]:
        return [event.report for event in self.events if isinstance(event, CallEnded)]

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(30):
            while not condition():
                await asyncio.sleep(0.001)

    async def __aenter__(self) -> "Bench":
        await self.relay.start()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.relay.stop()
        for one in (self.alice.socket, self.bob.socket, *self.others):
            one.close()

    def occupy(self, keep: int) -> None:
        """Another program has all RTCP ports but those of ``keep`` pairs."""
        for port in list(self.settings.even_ports)[keep:]:
            other = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            other.bind((RELAY, port + 1))
            self.others.append(other)


@pytest.fixture(scope="module", autouse=True)
def network() -> Iterator[None]:
    """Root has a network of its own for all of this, so that the kernel plane meets nobody."""
    with own_network() if can_have_network() else nullcontext():
        yield


@pytest.fixture(params=["user", "native", pytest.param("kernel", marks=pytest.mark.e2e)])
def plane(request: pytest.FixtureRequest) -> str:
    """The name of a plane: the test runs with each."""
    name: str = request.param
    if name == "kernel":
        need()
    return name


@pytest.fixture
async def bench(plane: str) -> AsyncIterator[Bench]:
    async with Bench(plane) as bench:
        yield bench


async def test_a_call_from_offer_to_record(bench: Bench, plane: str) -> None:
    facing_alice, facing_bob = await bench.talk()
    for _ in range(3):
        bench.alice.send(facing_alice)
        assert await bench.bob.hears() == facing_bob.rtp
        bench.bob.send(facing_bob)
        assert await bench.alice.hears() == facing_alice.rtp
    (report,) = bench.relay.reports()
    stream = report.streams[0]
    assert (stream.caller.learned, stream.callee.learned) == (bench.alice.endpoint, bench.bob.endpoint)
    assert (stream.caller.packets, stream.callee.packets, stream.plane) == (3, 3, plane)
    bench.alice.send(facing_alice)
    await bench.bob.hears()
    assert await bench.bye() == MediaReply(relay="relay-1")
    (record,) = bench.ended()
    assert record.reason is EndReason.BYE and record.relay == "relay-1"
    assert (record.streams[0].caller.packets, record.streams[0].callee.sent) == (4, 4), "exact, without a sweep"
    kinds = [type(event) for event in bench.events]
    assert kinds == [CallStarted, CallAnswered, PeerLearned, PeerLearned, CallEnded]
    assert len(bench.relay.calls) == 0


async def test_a_flood_is_counted_even_where_it_is_not_looked_at(bench: Bench) -> None:
    """The plane passes up what names the attacker; all of it is shown (calls.md 2)."""
    facing_alice, facing_bob = await bench.talk()
    attacker = Phone("127.0.3.66")
    for _ in range(300):
        attacker.send(facing_bob)
    await bench.until(lambda: bench.relay.reports()[0].streams[0].callee.refused_packets == 300)
    (refused,) = bench.relay.reports()[0].streams[0].callee.refused
    assert refused.source == attacker.endpoint and 20 <= refused.packets < 40
    bench.bob.send(facing_bob)
    bench.alice.send(facing_alice)
    assert await bench.bob.hears() == facing_bob.rtp
    attacker.socket.close()


async def test_a_repeated_question_has_the_same_answer(bench: Bench) -> None:
    assert await bench.offer() == await bench.offer()


async def test_timers_run_by_themselves(plane: str) -> None:
    """Silence ends a call, and its ports cool and come back, without a sweep or a packet."""
    async with Bench(plane, silence=0.05, cool=0.05, cool_quiet=0.01) as bench:
        total = bench.relay.calls.ports_free
        await bench.talk()
        await bench.until(lambda: bool(bench.ended()))
        assert bench.ended()[0].reason is EndReason.SILENT
        await bench.until(lambda: bench.relay.calls.ports_free == total)


async def test_the_sweep_keeps_a_talking_call_alive(plane: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Packets that only the plane sees count as life."""
    monkeypatch.setattr("mediaproxy.relay.service._SWEEP", 0.02)
    async with Bench(plane, silence=1.0) as bench:
        facing_alice, facing_bob = await bench.talk()
        loop = asyncio.get_running_loop()
        began = loop.time()
        while loop.time() < began + 1.5:
            bench.alice.send(facing_alice)
            bench.bob.send(facing_bob)
            await bench.alice.hears()
        assert bench.ended() == []
        await bench.until(lambda: bool(bench.ended()))
        assert bench.ended()[0].streams[0].caller.packets == bench.alice.sequence


async def test_the_end_of_the_relay_ends_every_call(bench: Bench) -> None:
    await bench.talk("one")
    await bench.offer("two")
    await bench.relay.stop()
    await bench.relay.stop()
    assert {(report.call_id, report.reason) for report in bench.ended()} == {
        ("one", EndReason.SHUTDOWN),
        ("two", EndReason.SHUTDOWN),
    }
    assert (await bench.offer("three")).status == 503
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind((RELAY, bench.ended()[0].streams[0].caller.local.port))


# -- ports that cannot be had


async def test_ports_of_other_programs_are_left_out(plane: str) -> None:
    async with Bench(plane, port_max=21038) as bench:
        bench.occupy(12)
        facing_alice, facing_bob = await bench.talk()
        bench.alice.send(facing_alice)
        assert await bench.bob.hears() == facing_bob.rtp
        assert {facing_alice.rtp.port, facing_bob.rtp.port} <= set(range(21000, 21024))
        assert [type(event) for event in bench.events] == [CallStarted, CallAnswered, PeerLearned]


async def test_no_port_can_be_had(plane: str) -> None:
    """The call has never been: no event, no port kept, an answer for the door."""
    async with Bench(plane, port_max=21018) as bench:
        bench.occupy(1)
        reply = await bench.offer()
        assert (reply.status, reply.ports) == (480, ()) and reply.error
        assert bench.events == [] and len(bench.relay.calls) == 0


async def test_too_many_open_files() -> None:
    """One call more than there are sockets is refused; the others live on, and ports are not lost."""
    async with Bench(UserPlane(max_sockets=8), cool=0.0, cool_quiet=0.0) as bench:
        facing_alice, facing_bob = await bench.talk("first")
        await bench.talk("second")
        total = bench.relay.calls.ports_free
        reply = await bench.offer("third")
        assert reply.status == 480 and "open files" in reply.error
        assert [report.call_id for report in bench.relay.reports()] == ["first", "second"]
        assert {event.call_id for event in bench.events} == {"first", "second"}
        assert bench.relay.calls.ports_free == total
        bench.alice.send(facing_alice)
        assert await bench.bob.hears() == facing_bob.rtp
        await bench.bye("second")
        await bench.until(lambda: bench.relay.calls.ports_cooling == 0)
        assert (await bench.offer("fourth")).error == ""


async def test_a_full_relay_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    async with Bench(UserPlane(max_sockets=4), cool=0.0, cool_quiet=0.0) as bench:
        await bench.talk("first")
        replies = [await bench.offer(f"more {number}") for number in range(20)]
        assert {reply.status for reply in replies} == {480}
        assert caplog.text.count("no port: ") == 1


async def test_a_second_stream_that_finds_no_port_leaves_the_first_alone() -> None:
    async with Bench(UserPlane(max_sockets=6)) as bench:
        facing_alice, facing_bob = await bench.talk()
        reply = await bench.relay.ask(
            MediaRequest(
                call_id="call",
                sender=ALICE,
                receiver=BOB,
                cseq=2,
                sdp_hash="two streams",
                phone=PhoneAddress(endpoint=bench.alice.endpoint),
                streams=(
                    Stream(kind="audio", transport="RTP/AVP", endpoint=bench.alice.endpoint),
                    Stream(kind="video", transport="RTP/AVP", endpoint=bench.alice.endpoint.with_port(4000)),
                ),
            )
        )
        assert reply.status == 480
        bench.alice.send(facing_alice)
        assert await bench.bob.hears() == facing_bob.rtp
        assert len(bench.relay.reports()) == 1


async def test_a_flow_that_cannot_be_changed_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    class Stubborn(UserPlane):
        def install(self, flow: Flow) -> None:
            if flow.source is not None:
                raise OSError(errno.EINVAL, "no")
            super().install(flow)

    async with Bench(Stubborn()) as stubborn:
        facing_alice, facing_bob = await stubborn.talk()
        for _ in range(2):
            stubborn.alice.send(facing_alice)
            await stubborn.bob.hears()
            stubborn.bob.send(facing_bob)
            await stubborn.alice.hears()
        assert "could not be changed: no" in caplog.text


# -- what the host allows


async def test_an_address_that_this_host_has_not() -> None:
    settings = RelaySettings(addresses=(RelayAddress(bind="192.0.2.1"),))
    relay = RelayService(settings, UserPlane(), random.Random(5))
    with pytest.raises(OSError, match=r"relay address 192\.0\.2\.1: Cannot assign"):
        await relay.start()
    await relay.stop()


@pytest.mark.parametrize(
    ("ephemeral", "reserved", "settings", "shared"),
    [
        pytest.param("32768\t60999\n", "\n", {}, 0, id="defaults"),
        pytest.param("16000\t65535\n", "\n", {}, 16384, id="all of them"),
        pytest.param("16000\t65535\n", "16384-32767\n", {}, 0, id="reserved"),
        pytest.param("16000\t65535\n", "1,16386-32767,40000\n", {}, 2, id="all but two reserved"),
        pytest.param("32768\t60999\n", "\n", {"port_max": 40000}, 7234, id="upper part"),
        pytest.param("1024\t20000\n", "\n", {"port_min": 19000}, 1001, id="lower part"),
        pytest.param("what?", "\n", {}, 0, id="unreadable"),
    ],
)
def test_ephemeral_ports_are_pointed_out(
    tmp_path: Path, ephemeral: str, reserved: str, settings: dict[str, int], shared: int
) -> None:
    (tmp_path / "ip_local_port_range").write_text(ephemeral)
    (tmp_path / "ip_local_reserved_ports").write_text(reserved)
    relay = RelaySettings(
        addresses=(RelayAddress(bind=RELAY),),
        port_min=settings.get("port_min", 16384),
        port_max=settings.get("port_max", 32766),
    )
    warnings = port_warnings(relay, tmp_path)
    assert len(warnings) == bool(shared)
    for warning in warnings:
        assert warning.startswith(f"{shared} of the relay's ports") and "ip_local_reserved_ports" in warning


def test_a_host_without_proc() -> None:
    assert port_warnings(RelaySettings(addresses=(RelayAddress(bind=RELAY),)), Path("/nonexistent")) == []
