"""The kernel program on real interfaces: UDP between two hosts through a relay that no process helps.

IP forwarding is off everywhere. What leaves is captured at the receiver and every checksum is looked at, for each
state in which an interface can leave them.
"""

import socket
from collections.abc import Iterator
from itertools import product

import pytest

from mediaproxy.endpoint import Endpoint
from mediaproxy.relay.bpf.attach import Hook
from mediaproxy.relay.slots import Reason
from tests.e2e.bpfhouse import ALICE, ALICE6, BOB, BOB6, PORTS, House
from tests.e2e.conftest import need
from tests.packets.datagram import rtp
from tests.packets.table import A6, B6, A, B, call

WAYS = {
    "4 to 4": (call(alice=ALICE, bob=BOB), ALICE, A, BOB, B),
    "6 to 6": (call(a=A6, b=B6, alice=ALICE6, bob=BOB6), ALICE6, A6, BOB6, B6),
    "4 to 6": (call(b=B6, alice=ALICE, bob=BOB6), ALICE, A, BOB6, B6),
    "6 to 4": (call(a=A6, alice=ALICE6, bob=BOB), ALICE6, A6, BOB, B),
}
_SO_NO_CHECK = 11


@pytest.fixture(scope="module", params=["tcx", "clsact"])
def house(request: pytest.FixtureRequest) -> Iterator[House]:
    need()
    hook: Hook = request.param
    with House() as built:
        built.attach(hook=hook)
        yield built


@pytest.mark.parametrize(("sender", "way_out"), list(product((True, False), repeat=2)))
@pytest.mark.parametrize("way", WAYS)
def test_checksums_are_right_in_every_offload_state(house: House, way: str, sender: bool, way_out: bool) -> None:
    flows, alice, a, bob, b = WAYS[way]
    house.install(flows)
    house.offload(house.a, "eth0", tx=sender)
    house.offload(house.relay, "to-b", tx=way_out)
    talker, listener, wire = house.phone(alice), house.phone(bob), house.wire(house.b)
    for size in (0, 1, 160, 1200):
        talker.sendto(rtp(size=size), (a.address, a.port))
        data, source = listener.recvfrom(2048)
        assert data == rtp(size=size)
        assert source[:2] == (b.address, b.port)
        caught = wire.next()
        assert caught.right
        assert caught.ttl == 63
        assert caught.not_ready == (sender and way_out), "else the matrix tries less than it says"
    talker.close()
    listener.close()


def test_no_checksum_stays_none(house: House) -> None:
    flows, alice, a, bob, _ = WAYS["4 to 4"]
    house.install(flows)
    talker, listener, wire = house.phone(alice), house.phone(bob), house.wire(house.b)
    talker.setsockopt(socket.SOL_SOCKET, _SO_NO_CHECK, 1)
    talker.sendto(rtp(), (a.address, a.port))
    assert listener.recv(2048) == rtp()
    assert wire.next().checksum == 0
    talker.close()
    listener.close()


def test_both_ways_and_what_was_counted(house: House) -> None:
    flows, alice, a, bob, b = WAYS["4 to 4"]
    house.install(flows)
    one, other = house.phone(alice), house.phone(bob)
    index = PORTS.index(a)
    assert index is not None
    before, forwarded = house.kernel.counters.read(index), house.kernel.totals()[Reason.FORWARDED]
    for sequence in range(50):
        one.sendto(rtp(sequence), (a.address, a.port))
        assert other.recv(2048) == rtp(sequence)
        other.sendto(rtp(sequence, ssrc=7), (b.address, b.port))
        assert one.recv(2048) == rtp(sequence, ssrc=7)
    after = house.kernel.counters.read(index)
    assert after["packets"] - before["packets"] == 50
    assert (after["ssrc"], after["sequence"]) == (0xCAFE, 49)
    assert house.kernel.totals()[Reason.FORWARDED] - forwarded == 100
    one.close()
    other.close()


def test_strangers_reach_the_one_socket_and_nothing_else_does(house: House) -> None:
    flows, _, a, _, _ = WAYS["4 to 4"]
    house.install(flows)
    sockets = house.listen()
    stranger = house.phone(Endpoint("198.51.100.1", 6666), house.a)
    stranger.sendto(b"hello", (a.address, a.port))
    data, source = sockets[4].recvfrom(2048)
    assert (data, source) == (b"hello", ("198.51.100.1", 6666))
    stranger.sendto(b"to a port that is not lent", (a.address, 20040))
    stranger.sendto(b"again", (a.address, a.port))
    assert sockets[4].recv(2048) == b"again", "no ICMP has come back either, or the second send had failed"
    stranger.close()


@pytest.mark.parametrize("way", WAYS)
def test_checksums_that_the_kernel_has_summed_up(way: str) -> None:
    """CHECKSUM_COMPLETE: Alice's interface is in a bridge whose connection tracking verifies her checksums first."""
    need()
    flows, alice, a, bob, _ = WAYS[way]
    with House() as house:
        bridge(house)
        house.attach("br0", "to-b")
        house.install(flows)
        house.offload(house.a, "eth0", tx=False)
        house.offload(house.relay, "to-b", tx=False)
        talker, listener, wire = house.phone(alice), house.phone(bob), house.wire(house.b)
        for size in (1, 160):
            talker.sendto(rtp(size=size), (a.address, a.port))
            assert listener.recv(2048) == rtp(size=size)
            caught = wire.next()
            assert caught.right
            assert not caught.not_ready
        assert "counter packets 2" in house.relay.run("nft", "list", "ruleset"), "else nobody has summed up"


def bridge(house: House) -> None:
    """Put the relay's interface to Alice into a bridge with connection tracking."""
    rules = """
        table inet tracked {
            chain pre {
                type filter hook prerouting priority 0;
                udp dport 20000 ct state new counter accept;
            }
        }
    """
    house.relay.run("nft", "-f", "-", text=rules)
    house.relay.ip(
        "link add br0 type bridge",
        "address flush dev to-a",
        "link set to-a master br0",
        "link set br0 up",
        "address add 198.51.100.254/24 dev br0",
        "address add 2001:db8:a::fe/64 dev br0 nodad",
    )
    for name in ("iptables", "ip6tables"):
        house.relay.run("sysctl", "-qw", f"net.bridge.bridge-nf-call-{name}=1")
