"""Calls through a relay whose media is in the kernel, at places that are not the usual ones: behind a 1:1 NAT, with a
phone on its own host, with both phones behind one address, beside other relays. Nothing but questions and RTP."""

import signal
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from lab.netns import Namespace, Namespaces, wait_until
from mediaproxy.endpoint import Endpoint
from tests.asking import Phone, bye, offer, ports
from tests.e2e.conftest import need
from tests.e2e.relayprocess import RelayProcess, seat

PRIVATE, PUBLIC = "10.9.9.2", "203.0.113.5"
BEFORE = 20
"Packets by which both are learned, on the slowest machine."


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def spaces(stack: ExitStack) -> Namespaces:
    need()
    made = Namespaces()
    stack.callback(made.close)
    return made


def relay_of(
    stack: ExitStack, space: Namespace, folder: Path, addresses: str, more: str = "", bpffs: Path | None = None
) -> RelayProcess:
    """A relay that runs, until the end of the test."""
    relay = RelayProcess(space, folder, addresses, more, bpffs)
    stack.callback(relay.close)
    relay.start()
    return relay


def join(one: Namespace, name: str, near: str, other: Namespace, far: str, via: str = "") -> None:
    """A veth between two hosts. ``via``: the other one's way to everybody."""
    one.ip(f"link add {name} type veth peer name {name} netns {other.name}")
    one.ip(f"link set {name} up", f"address add {near} dev {name}")
    other.ip(f"link set {name} up", f"address add {far} dev {name}", *([f"route add default via {via}"] if via else []))


def drain(phone: Phone) -> list[Endpoint]:
    """Where packets that have come by now came from."""
    found = []
    with suppress(BlockingIOError):
        while True:
            found.append(Endpoint(*phone.sockets[0].recvfrom(2048)[1]))
    return found


def hears(phone: Phone) -> Endpoint:
    """Where the next packet comes from."""
    sock = phone.sockets[0]
    sock.settimeout(10)
    try:
        return Endpoint(*sock.recvfrom(2048)[1])
    finally:
        sock.setblocking(False)


def talk(relay: RelayProcess, alice: Phone, bob: Phone, call_id: str = "call") -> None:
    """A call: both are learned, then ten packets either way pass in the kernel, and the record says so."""
    at_alice, at_bob = relay.call(alice, bob, call_id)
    for _ in range(BEFORE):
        alice.send(0, at_alice, 0)
        bob.send(0, at_bob, 0)
        time.sleep(0.05)
        shown = next(one for one in relay.shown("calls") if one["call_id"] == call_id)
        if shown["streams"][0]["plane"] == "kernel":
            break
    assert shown["streams"][0]["plane"] == "kernel", shown
    drain(alice), drain(bob)
    for _ in range(10):
        alice.send(0, at_alice, 0)
        assert hears(bob) == at_bob
        bob.send(0, at_bob, 0)
        assert hears(alice) == at_alice
    (reply,) = relay.ask(bye(alice, bob, call_id))
    assert not reply.error


def test_behind_a_1_to_1_nat(spaces: Namespaces, stack: ExitStack, tmp_path: Path) -> None:
    """As with a cloud's public address: the relay is bound to a private one, and everybody knows the other."""
    cloud, relay, a, b = (spaces.add(name) for name in ("cloud", "relay", "a", "b"))
    join(cloud, "inside", "10.9.9.1/24", relay, f"{PRIVATE}/24", via="10.9.9.1")
    join(cloud, "to-a", "198.51.100.254/24", a, "198.51.100.1/24", via="198.51.100.254")
    join(cloud, "to-b", "192.0.2.254/24", b, "192.0.2.1/24", via="192.0.2.254")
    cloud.run("sysctl", "-qw", "net.ipv4.ip_forward=1")
    cloud.run("nft", "-f", "-", text=f"""
        table ip nat {{
            chain before {{ type nat hook prerouting priority -100; ip daddr {PUBLIC} dnat to {PRIVATE}; }}
            chain after {{ type nat hook postrouting priority 100; ip saddr {PRIVATE} snat to {PUBLIC}; }}
        }}
    """)  # fmt: skip
    process = relay_of(stack, relay, tmp_path, f'{{ bind = "{PRIVATE}", advertise = "{PUBLIC}" }}')
    alice, bob = seat(stack, Phone("alice", "198.51.100.1"), a), seat(stack, Phone("bob", "192.0.2.1"), b)
    talk(process, alice, bob)
    wait_until("the record", lambda: bool(process.shown("records")))
    (record,) = process.shown("records")
    end = record["streams"][0]["caller"]
    assert (end["local"]["address"], end["advertised"]["address"]) == (PRIVATE, PUBLIC)


def test_both_phones_behind_one_address(spaces: Namespaces, stack: ExitStack, tmp_path: Path) -> None:
    """One office, and one address of the relay."""
    relay, office = spaces.add("relay"), spaces.add("office")
    join(relay, "wan", f"{PUBLIC}/24", office, "203.0.113.77/24")
    process = relay_of(stack, relay, tmp_path, f'{{ bind = "{PUBLIC}" }}')
    alice, bob = (seat(stack, Phone(name, "203.0.113.77"), office) for name in ("alice", "bob"))
    talk(process, alice, bob)


@pytest.mark.parametrize("address", [PUBLIC, "127.0.0.1"], ids=["its address", "loopback"])
def test_both_phones_on_the_relays_host(address: str, spaces: Namespaces, stack: ExitStack, tmp_path: Path) -> None:
    """On the relay's own address: their ports, one of which is in the relay's range, are no ports of the relay."""
    relay = spaces.add("relay")
    relay.ip(f"address add {PUBLIC}/32 dev lo")
    process = relay_of(stack, relay, tmp_path, f'{{ bind = "{address}" }}')
    alice = seat(stack, Phone("alice", address), relay, port=20500)
    bob = seat(stack, Phone("bob", address), relay)
    talk(process, alice, bob)


def test_a_gateway_on_the_relays_host(spaces: Namespaces, stack: ExitStack, tmp_path: Path) -> None:
    relay, a = spaces.add("relay"), spaces.add("a")
    join(relay, "wan", f"{PUBLIC}/24", a, "203.0.113.77/24")
    process = relay_of(stack, relay, tmp_path, f'{{ bind = "{PUBLIC}" }}')
    talk(process, seat(stack, Phone("alice", "203.0.113.77"), a), seat(stack, Phone("bob", PUBLIC), relay))


def test_two_relays_of_one_host_that_meet(spaces: Namespaces, stack: ExitStack, tmp_path: Path) -> None:
    """Alice's call leads to the other relay, whose call leads to Bob: no packet leaves the host between them."""
    relay, a, b = (spaces.add(name) for name in ("relay", "a", "b"))
    join(relay, "to-a", f"{PUBLIC}/24", a, "203.0.113.77/24")
    join(relay, "to-b", "198.51.100.254/24", b, "198.51.100.1/24", via="198.51.100.254")
    bpffs = tmp_path / "bpf"
    one = relay_of(stack, relay, tmp_path / "one", f'{{ bind = "{PUBLIC}" }}', bpffs=bpffs)
    other = RelayProcess(relay, tmp_path / "other", f'{{ bind = "{PUBLIC}" }}', bpffs=bpffs)
    stack.callback(other.close)
    config = tmp_path / "other" / "c.toml"
    config.write_text(config.read_text().replace("2099", "2299").replace("20000", "22000"))
    other.start()
    alice, bob = seat(stack, Phone("alice", "203.0.113.77"), a), seat(stack, Phone("bob", "198.51.100.1"), b)
    from_one, from_other = Phone("bob", PUBLIC), Phone("alice", PUBLIC)  # what each is told of the other one's port
    from_one.ports, from_other.ports = [0], [0]
    from_other.ports[0] = _offered(one, alice, from_one)
    from_one.ports[0] = other.call(from_other, bob, "second")[0].port
    at_alice, at_bob = one.call(alice, from_one, "first")[0], _port(other, "second", "callee")
    for _ in range(BEFORE):
        alice.send(0, at_alice, 0)
        bob.send(0, at_bob, 0)
        time.sleep(0.05)
        planes = [shown["streams"][0]["plane"] for process in (one, other) for shown in process.shown("calls")]
        if planes == ["kernel"] * 2:
            break
    assert planes == ["kernel"] * 2
    drain(alice), drain(bob)
    for _ in range(10):
        alice.send(0, at_alice, 0)
        assert hears(bob) == at_bob
        bob.send(0, at_bob, 0)
        assert hears(alice) == at_alice


def _offered(relay: RelayProcess, alice: Phone, bob: Phone) -> int:
    """The port that Bob would be told."""
    (port,) = ports(relay.ask(offer(alice, bob, "first"))[0])
    return port.port


def _port(relay: RelayProcess, call_id: str, side: str) -> Endpoint:
    shown = next(one for one in relay.shown("calls") if one["call_id"] == call_id)
    local = shown["streams"][0][side]["local"]
    return Endpoint(local["address"], local["port"])


def test_the_same_relay_in_two_containers(spaces: Namespaces, stack: ExitStack, tmp_path: Path) -> None:
    """Same address, same ports, same name, one BPF filesystem: each has its own, and finds it again after a kill."""
    relays = []
    for name in ("one", "two"):
        space = spaces.add(name)
        local, bpffs = '{ bind = "127.0.0.1" }', tmp_path / "bpf"
        relays.append(relay_of(stack, space, tmp_path / name, local, 'instance = "same"', bpffs))
    phones = [
        (seat(stack, Phone("alice", "127.0.0.1"), relay.space), seat(stack, Phone("bob", "127.0.0.1"), relay.space))
        for relay in relays
    ]
    for relay, (alice, bob) in zip(relays, phones, strict=True):
        relay.call(alice, bob, f"goes on at {relay.folder.name}")
        talk(relay, alice, bob)
    assert len(list((tmp_path / "bpf" / "mediaproxy").iterdir())) == 2
    for relay in relays:
        relay.end(signal.SIGKILL)
    for relay, (alice, bob) in zip(relays, phones, strict=True):
        relay.start()
        assert "1 calls go on" in relay.log
        assert [one["call_id"] for one in relay.shown("calls")] == [f"goes on at {relay.folder.name}"]
        talk(relay, alice, bob, "after it")


def test_a_program_that_has_a_port_of_the_range(spaces: Namespaces, stack: ExitStack, tmp_path: Path) -> None:
    """It keeps it, hears what comes to it, and is not disturbed by calls."""
    relay, a = spaces.add("relay"), spaces.add("a")
    join(relay, "wan", f"{PUBLIC}/24", a, "203.0.113.77/24")
    process = relay_of(stack, relay, tmp_path, f'{{ bind = "{PUBLIC}" }}')
    server = seat(stack, Phone("server", "0.0.0.0"), relay, port=20300)
    client = seat(stack, Phone("client", "203.0.113.77"), a)
    talk(process, seat(stack, Phone("alice", "203.0.113.77"), a), seat(stack, Phone("bob", "203.0.113.77"), a))
    client.sockets[0].sendto(b"a question", (PUBLIC, 20300))
    server.sockets[0].settimeout(10)
    data, back = server.sockets[0].recvfrom(100)
    assert data == b"a question"
    server.sockets[0].sendto(b"the answer", back)
    client.sockets[0].settimeout(10)
    assert client.sockets[0].recv(100) == b"the answer"
    prober = seat(stack, Phone("prober", "203.0.113.77"), a).sockets[0]
    prober.connect((PUBLIC, 20302))
    for _ in range(3):  # an ICMP error would be told by the next one
        prober.send(b"anybody?")
        time.sleep(0.05)
    prober.settimeout(0.1)
    with pytest.raises(socket.timeout):
        prober.recv(100)
