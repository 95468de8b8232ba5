"""The life of the kernel program: attached, pinned, adopted, replaced, detached; beside others, and without root."""

import os
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.netns import run
from lab.unprivileged import as_nobody
from mediaproxy.endpoint import Endpoint
from mediaproxy.relay.bpf import FastPathUnavailable, KernelPath, adopt, attach, interface, rtnetlink, syscalls
from mediaproxy.relay.bpf.attach import Hook, link_interface
from mediaproxy.relay.portmap import Control, PortMap
from mediaproxy.relay.slots import CONTROL, State
from tests.e2e.bpfhouse import ALICE, BOB, PORTS, House
from tests.e2e.conftest import need
from tests.packets.datagram import rtp
from tests.packets.table import A, call

CALL = call(alice=ALICE, bob=BOB)


@pytest.fixture
def house() -> Iterator[House]:
    need()
    with House() as built:
        yield built


@pytest.fixture
def bpffs(tmp_path: Path) -> Iterator[Path]:
    """A BPF filesystem of the test's own."""
    need()
    folder = tmp_path / "bpf"
    folder.mkdir()
    run(["mount", "-t", "bpf", "bpf", str(folder)])
    yield folder
    run(["umount", str(folder)])


def carried(house: House, sequence: int = 1, seconds: float = 30.0) -> bool:
    """Whether a packet of Alice reaches Bob within some seconds."""
    talker, listener = house.phone(ALICE), house.phone(BOB)
    listener.settimeout(seconds)
    try:
        talker.sendto(rtp(sequence), (A.address, A.port))
        return listener.recv(2048) == rtp(sequence)
    except TimeoutError:
        return False
    finally:
        talker.close()
        listener.close()


def qdiscs(house: House) -> str:
    return house.relay.run("tc", "qdisc", "show", "dev", "to-a")


@pytest.mark.parametrize("hook", ["tcx", "clsact"])
def test_detached_leaves_nothing(house: House, hook: Hook) -> None:
    before = qdiscs(house)
    house.install(CALL)
    house.attach(hook=hook)
    assert carried(house)
    for attachment in house.attachments:
        with house.relay.inside():
            attachment.detach()
            attachment.detach()  # a second time: no error
    assert not carried(house, seconds=1.0)
    assert qdiscs(house) == before


def test_other_peoples_filters_stay(house: House) -> None:
    house.relay.run("tc", "qdisc", "add", "dev", "to-a", "clsact")
    foreign = ("prio", "9", "protocol", "ip", "u32", "match", "u32", "0", "0", "classid", "1:1")
    house.relay.run("tc", "filter", "add", "dev", "to-a", "ingress", *foreign)
    house.attach(hook="clsact")
    assert "bpf" in house.relay.run("tc", "filter", "show", "dev", "to-a", "ingress")
    with house.relay.inside():
        house.attachments[0].detach()
        assert rtnetlink.has_filters(house.attachments[0].interface.index)
    left = house.relay.run("tc", "filter", "show", "dev", "to-a", "ingress")
    assert "u32" in left
    assert "bpf" not in left


@pytest.mark.parametrize("hook", ["tcx", "clsact"])
def test_an_interface_that_has_gone(house: House, hook: Hook) -> None:
    house.attach("to-a", hook=hook)
    house.relay.ip("link del to-a")
    with house.relay.inside():
        house.attachments[0].detach()


def test_two_relays_on_one_interface(house: House) -> None:
    """Each takes its own ports and leaves the rest to the other one."""
    house.attach()
    house.install(CALL)
    other = KernelPath.create(Control(ports=PortMap(addresses=PORTS.addresses, port_min=30000, ports=64)))
    try:
        with house.relay.inside():
            attached = [attach(interface(name), other.programs["tc/ethernet"]) for name in ("to-a", "to-b")]
        assert carried(house)
        for attachment in attached:
            attachment.detach()
    finally:
        other.close()
    assert carried(house)


def test_the_socket_lookup_takes_lent_ports_from_those_bound_there(house: House) -> None:
    house.attach()
    house.install(CALL)
    sockets = house.listen()
    bound = house.phone(A, house.relay)
    stranger = house.phone(ALICE.with_port(6666), house.a)
    stranger.sendto(b"hello", (A.address, A.port))
    assert sockets[4].recv(100) == b"hello"
    bound.settimeout(0.1)
    with pytest.raises(TimeoutError):
        bound.recv(100)
    other = house.phone(Endpoint(A.address, 5060), house.relay)
    stranger.sendto(b"elsewhere", (A.address, 5060))
    assert other.recv(100) == b"elsewhere"
    for sock in (bound, stranger, other):
        sock.close()


# -- restart


def test_what_is_pinned_flows_on_and_is_adopted(house: House, bpffs: Path) -> None:
    house.attach("to-a", "to-b")
    house.install(CALL)
    house.kernel.pin(bpffs)
    pinned = {path.name for path in bpffs.iterdir() if not path.name.endswith(".debug")}
    assert pinned == {"slots", "counters", "control", "totals", "sockets"}
    for attachment in house.attachments:
        attachment.pin(bpffs / attachment.interface.name)
        attachment.close()
    house.attachments.clear()
    house.kernel.close()
    assert carried(house, 1), "no process holds anything"
    house.kernel, ports = KernelPath.adopt(bpffs)
    assert ports.addresses[0] == PORTS.addresses[0]
    index = PORTS.index(A)
    assert index is not None
    assert house.kernel.slots.word(index).state is State.LEARNED
    counters = house.kernel.counters.read(index)
    assert (counters["packets"], counters["generation"], counters["sequence"]) == (1, CALL[0].generation, 1)
    with house.relay.inside():
        for name in ("to-a", "to-b"):
            where = interface(name)
            house.attachments.append(adopt(where, bpffs / name))
            house.attachments[-1].replace(house.kernel.programs[where.section])
    assert carried(house, 2)
    assert house.kernel.counters.read(index)["packets"] == 2
    with house.relay.inside():
        for attachment in house.attachments:
            attachment.detach()
    assert not carried(house, seconds=1.0), "detached, though the pins are still there"


def test_no_packet_is_missed_while_the_program_is_replaced(house: House) -> None:
    house.attach("to-a", "to-b")
    house.install(CALL)
    newer = KernelPath(
        {name: os.dup(fd) for name, fd in house.kernel.maps.items()},
        {},
        PORTS.slots,
    )
    programs = house.kernel.programs
    talker, listener = house.phone(ALICE), house.phone(BOB)
    with house.relay.inside():
        for sequence in range(200):
            talker.sendto(rtp(sequence), (A.address, A.port))
            house.attachments[0].replace(programs["tc/ethernet"])
            assert listener.recv(2048) == rtp(sequence)
    newer.close()
    talker.close()
    listener.close()


def test_maps_of_another_layout_are_not_adopted(bpffs: Path) -> None:
    kernel = KernelPath.create(Control(ports=PORTS))
    kernel.pin(bpffs)
    control = bytearray(syscalls.map_lookup(kernel.maps["control"], bytes(4), CONTROL.size))
    at, size = CONTROL.offsets["layout"]
    control[at : at + size] = bytes(size)
    syscalls.map_update(kernel.maps["control"], bytes(4), bytes(control))
    with pytest.raises(FastPathUnavailable, match="another version"):
        KernelPath.adopt(bpffs)
    kernel.close()


def test_nothing_pinned(bpffs: Path) -> None:
    with pytest.raises(FastPathUnavailable, match="opening"):
        KernelPath.adopt(bpffs)


def test_a_link_of_another_interface_is_not_adopted(house: House, bpffs: Path) -> None:
    house.attach("to-a")
    house.attachments[0].pin(bpffs / "link")
    assert link_interface(house.attachments[0].link) == house.index("to-a")
    with house.relay.inside(), pytest.raises(FastPathUnavailable, match="another interface"):
        adopt(interface("to-b"), bpffs / "link")


def test_everything_vanishes_with_the_process(house: House) -> None:
    """TCX and without a pin: a process that dies leaves no program at the interface."""
    script = """
        import time
        from mediaproxy.relay.bpf import *
        from tests.packets.table import PORTS
        from mediaproxy.relay.portmap import Control
        kernel = KernelPath.create(Control(ports=PORTS))
        link = attach(interface("to-a"), kernel.programs["tc/ethernet"])
        print("attached", flush=True)
        time.sleep(60)
    """
    command = house.relay.argv(sys.executable, "-c", textwrap.dedent(script))
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2])
    assert process.stdout is not None
    assert process.stdout.readline() == "attached\n"
    assert query(house) == 1
    process.kill()
    process.wait()
    process.stdout.close()
    deadline = time.monotonic() + 30
    while query(house) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert query(house) == 0


def query(house: House) -> int:
    """How many TCX programs are at the ingress of to-a."""
    with house.relay.inside():
        return syscalls.attached(socket.if_nametoindex("to-a"), syscalls.TCX_INGRESS)


# -- privileges

_TRY = """
    from mediaproxy.relay.bpf import *
    from tests.packets.table import PORTS
    from mediaproxy.relay.portmap import Control
    try:
        kernel = KernelPath.create(Control(ports=PORTS))
        attach(interface("to-a"), kernel.programs["tc/ethernet"]).detach()
        attach(interface("to-a"), kernel.programs["tc/ethernet"], hook="clsact").detach()
        attach_lookup(kernel.programs["sk_lookup"])
        print("carried")
    except FastPathUnavailable as error:
        print(error)
"""


@pytest.mark.parametrize(
    ("capabilities", "said"),
    [
        (("bpf", "net_admin"), "carried"),
        (("bpf",), "CAP_BPF and CAP_NET_ADMIN"),
        (("net_admin",), "CAP_BPF and CAP_NET_ADMIN"),
        ((), "CAP_BPF and CAP_NET_ADMIN"),
    ],
)
def test_two_capabilities_are_enough_and_needed(house: House, capabilities: tuple[str, ...], said: str) -> None:
    done = house.relay.run(*as_nobody(*capabilities), sys.executable, "-B", "-c", textwrap.dedent(_TRY))
    assert said in done


def test_there_is_no_such_interface() -> None:
    with pytest.raises(FastPathUnavailable, match="none of that name"):
        interface("no-such-one")
