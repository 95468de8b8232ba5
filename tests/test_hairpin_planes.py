"""Two calls that meet at each other's ports, on each plane, over real sockets."""

from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest

from mediaproxy.control import EndCause, EndRequest, MediaPort, MediaRequest, Party, PayloadType, PhoneAddress, Stream
from mediaproxy.endpoint import Endpoint
from mediaproxy.events import EndReason
from mediaproxy.relay.settings import RelayAddress
from tests.e2e.conftest import need
from tests.planebench import can_have_network, own_network
from tests.test_relay_service import RELAY, Bench, Phone

pytestmark = [pytest.mark.usefixtures("no_leaks"), pytest.mark.both_loops]

B2BUA = Endpoint("127.0.3.9", 5060)


@pytest.fixture(scope="module", autouse=True)
def network() -> Iterator[None]:
    with own_network() if can_have_network() else nullcontext():
        yield


@pytest.fixture(params=["user", "native", pytest.param("kernel", marks=pytest.mark.e2e)])
def plane(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    if name == "kernel":
        need()
    return name


def parties(number: int) -> tuple[Party, Party]:
    return Party(tag=f"caller-{number}"), Party(tag=f"callee-{number}")


async def ask(bench: Bench, number: int, place: Endpoint, signalling: Endpoint, status: int = 0) -> MediaPort:
    caller, callee = parties(number)
    types = (PayloadType(number=0, codec="PCMU", clock_rate=8000),)
    question = MediaRequest(
        call_id=f"call-{number}",
        sender=callee if status else caller,
        receiver=caller if status else Party(),
        cseq=1,
        status=status,
        sdp_hash=str(place),
        phone=PhoneAddress(endpoint=signalling),
        streams=(Stream(kind="audio", transport="RTP/AVP", endpoint=place, payload_types=types),),
    )
    (port,) = (await bench.relay.ask(question)).ports
    assert port is not None
    return port


async def chain(bench: Bench, calls: int = 2) -> tuple[MediaPort, MediaPort]:
    """Alice, so many calls with a server between each two, Bob; the ports that Alice and Bob send to."""
    alice, bob = bench.alice.endpoint, bench.bob.endpoint
    there = await ask(bench, 0, alice, alice)
    for number in range(1, calls):
        there = await ask(bench, number, there.rtp, B2BUA)
    back = await ask(bench, calls - 1, bob, bob, 200)
    for number in reversed(range(calls - 1)):
        back = await ask(bench, number, back.rtp, B2BUA, 200)
    return back, there


def sent_on_loopback() -> int:
    """Packets that this network namespace's loopback has carried."""
    lines = Path("/proc/thread-self/net/dev").read_text().splitlines()
    (line,) = [line for line in lines if line.strip().startswith("lo:")]
    return int(line.split()[10])


@pytest.mark.parametrize("advertise", ["", "203.0.113.7"], ids=["public", "1:1 NAT"])
@pytest.mark.parametrize("calls", [2, 3])
async def test_calls_that_meet(plane: str, calls: int, advertise: str) -> None:
    async with Bench(plane, addresses=(RelayAddress(bind=RELAY, advertise=advertise),)) as bench:
        shown_alice, shown_bob = await chain(bench, calls)
        facing_alice = MediaPort(rtp=Endpoint(RELAY, shown_alice.rtp.port))
        facing_bob = MediaPort(rtp=Endpoint(RELAY, shown_bob.rtp.port))
        for _ in range(5):
            bench.alice.send(facing_alice)
            assert await bench.bob.hears() == facing_bob.rtp
            bench.bob.send(facing_bob)
            assert await bench.alice.hears() == facing_alice.rtp
        for report in bench.relay.reports():
            stream = report.streams[0]
            assert (stream.caller.packets, stream.callee.packets) == (5, 5), report.call_id
            assert (stream.caller.sent, stream.callee.sent) == (5, 5) and stream.plane == plane
        passed = bench.relay.calls.board.traffic.packets
        before = sent_on_loopback()
        for _ in range(10):
            bench.alice.send(facing_alice)
            assert await bench.bob.hears() == facing_bob.rtp
        assert bench.relay.calls.board.traffic.packets == passed, "the plane forwards all of it"
        if plane == "kernel":
            assert sent_on_loopback() - before == 20, (
                "Alice to the relay, the relay to Bob: the calls meet in the program"
            )
        stranger = Phone("127.0.3.66")
        bench.others.append(stranger.socket)
        for report in bench.relay.reports():
            for end in (report.streams[0].caller, report.streams[0].callee):
                stranger.send(MediaPort(rtp=end.local))
        await bench.until(lambda: sum(r.streams[0].callee.refused_packets for r in bench.relay.reports()) == calls)
        caller, callee = parties(0)
        await bench.relay.ask(EndRequest(call_id="call-0", sender=caller, receiver=callee, cause=EndCause.BYE))
        (record,) = bench.ended()
        assert record.reason is EndReason.BYE
        assert (record.streams[0].caller.packets, record.streams[0].callee.packets) == (15, 5)
        assert len(bench.relay.calls) == calls - 1
