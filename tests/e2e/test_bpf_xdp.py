"""The XDP program: what it takes leaves as the specification says; everything else passes untouched and uncounted."""

import random
import time
from collections.abc import Iterator

import pytest

from lab.netns import Namespace
from mediaproxy.relay.bpf import Attachment, FastPathUnavailable, attach_xdp, interface
from mediaproxy.relay.bpf.syscalls import test_run as run_program
from mediaproxy.relay.packetpath import Verdict, path
from mediaproxy.relay.slots import Reason
from tests.e2e.bpfhouse import BOB, BOB6, PORTS, House
from tests.e2e.conftest import need
from tests.e2e.test_bpf_wire import WAYS
from tests.packets.datagram import Datagram, rtp
from tests.packets.mutation import mutated

MUTATIONS = 100_000
_PASS, _REDIRECT = 2, 4


@pytest.fixture(scope="module")
def house() -> Iterator[House]:
    need()
    with House() as built:
        built.relay.run("sysctl", "-qw", "net.ipv4.conf.to-b.forwarding=1", "net.ipv6.conf.to-b.forwarding=1")
        built.attach()
        known(built)
        yield built


def known(house: House) -> None:
    """Bob's Ethernet address is known to the relay."""
    mac = ether(house.b)
    for bob in (BOB, BOB6):
        house.relay.ip(f"neigh replace {bob.address} lladdr {mac} dev to-b nud permanent")


def ether(space: Namespace) -> str:
    return space.run("ip", "-br", "link", "show", "dev", "eth0").split()[2]


def test_only_hardware(house: House) -> None:
    with house.relay.inside(), pytest.raises(FastPathUnavailable, match="virtual interface"):
        attach_xdp(interface("to-a"), house.kernel.load_xdp())
    # Whoever enters a namespace of the network alone still sees the host's /sys, where eth0 may be hardware.
    with house.a.inside(), pytest.raises(FastPathUnavailable, match="virtual interface"):
        attach_xdp(interface("eth0"), house.kernel.load_xdp())


@pytest.fixture
def attached(house: House) -> Iterator[Attachment]:
    """On veth all the same; the sender computes checksums, and the receiver has GRO, as XDP there wants it."""
    house.offload(house.a, "eth0", tx=False)
    house.receive_offload(house.b, "eth0")
    with house.relay.inside():
        made = attach_xdp(interface("to-a"), house.kernel.load_xdp(), virtual=True)
    yield made
    with house.relay.inside():
        made.detach()
    house.offload(house.a, "eth0", tx=True)


@pytest.mark.parametrize("way", WAYS)
def test_what_it_cannot_finish_is_done_behind_it(house: House, attached: Attachment, way: str) -> None:
    """Both versions leave the driver at once; translations pass to the program behind."""
    flows, alice, a, bob, b = WAYS[way]
    house.install(flows)
    talker, listener, wire = house.phone(alice), house.phone(bob), house.wire(house.b)
    index = PORTS.index(a)
    assert index is not None
    before, stack = house.kernel.counters.read(index), house.wire(house.relay, "to-b", outgoing=True)
    for number in range(10):
        talker.sendto(rtp(number), (a.address, a.port))
        data, source = listener.recvfrom(2048)
        assert (data, source[:2]) == (rtp(number), (b.address, b.port))
        caught = wire.next()
        assert caught.right
        assert caught.ttl == 63
    after = house.kernel.counters.read(index)
    assert after["packets"] - before["packets"] == 10
    assert after["sequence"] == 9
    if way in ("4 to 4", "6 to 6"):
        with pytest.raises(TimeoutError):  # a capture does not see what XDP sends
            stack.next(0.1)
    else:
        assert stack.next().payload == rtp(0)
    talker.close()
    listener.close()


@pytest.mark.timeout(600)
def test_mutated_packets(house: House) -> None:
    """100 000 of them: what is sent is what the specification says, byte for byte; what passes is untouched."""
    rng = random.Random(9)
    sent = done = 0
    program = house.kernel.load_xdp()
    while done < MUTATIONS:
        way = rng.choice(list(WAYS))
        flows, alice, a, _, _ = WAYS[way]
        house.install(flows)
        state = house.world(flows)
        packet = Datagram(source=alice, destination=a, payload=rtp(size=rng.choice((0, 0, 20, 160))))
        now = time.monotonic_ns()
        for _ in range(500):
            frame = mutated(packet.frame(), rng) if rng.random() < 0.9 else packet.frame()
            before = house.kernel.totals()
            with house.relay.inside():
                result = run_program(program, frame)
            done += 1
            after = house.kernel.totals()
            said = path(state, frame, now)
            if result.verdict == _REDIRECT:
                sent += 1
                assert said.verdict is Verdict.SEND
                assert result.data[12:] == said.frame[12:]
                assert after[Reason.FORWARDED] == before[Reason.FORWARDED] + 1
            else:
                assert result.verdict == _PASS
                assert result.data == frame
                assert after == before
    assert sent > MUTATIONS // 100
