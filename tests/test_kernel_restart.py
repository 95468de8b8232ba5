"""Streams in the kernel outlive the process, and the next one goes on with them: pins, adoption, upgrades, release."""

import asyncio
import os
import struct
import subprocess
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import msgspec
import pytest

from lab.netns import Namespaces
from mediaproxy.endpoint import Endpoint
from mediaproxy.relay.bpf import attach, attach_xdp, syscalls
from mediaproxy.relay.bpf.attach import Hook
from mediaproxy.relay.flow import Flow
from mediaproxy.relay.kernel.harvest import counted, harvest
from mediaproxy.relay.kernel.hooks import Hooks, release
from mediaproxy.relay.kernel.netlink import Link
from mediaproxy.relay.kernel.pins import Facts, Instance, PinSet, Shape
from mediaproxy.relay.settings import RelayAddress
from mediaproxy.relay.slots import CONTROL, Reason
from tests.e2e.conftest import need
from tests.kernelhouse import House, bpf_filesystem
from tests.planebench import A, B, Phone, kernel_settings, own_network, rtp, until

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("no_leaks")]

PORT_A, PORT_B = Endpoint(A, 20000), Endpoint(A, 20002)


@pytest.fixture(scope="module", autouse=True)
def network() -> Iterator[None]:
    need()
    with own_network():
        yield


@pytest.fixture
def bpffs(tmp_path: Path) -> Iterator[Path]:
    with bpf_filesystem(tmp_path) as path:
        yield path


@dataclass
class Call:
    """A house with a learned call between two phones."""

    house: House
    caller: Phone
    callee: Phone
    sent: int = 0

    def flows(self) -> tuple[Flow, Flow]:
        a, b = self.caller.endpoint, self.callee.endpoint
        return (
            Flow(local=PORT_A, generation=7, peer=PORT_B, peer_generation=8, source=a, target=a, allowed=(f"{A}/32",),
                 tos=0xB8, settled_at=1.0, clocks=((0, 8000), (101, 48000))),
            Flow(local=PORT_B, generation=8, peer=PORT_A, peer_generation=7, source=b, target=b),
        )  # fmt: skip

    async def talk(self, count: int = 1) -> None:
        """Both hear the other one."""
        for _ in range(count):
            self.sent += 1
            self.caller.send(rtp(self.sent, ssrc=1), PORT_A)
            assert await self.callee.hears() == (rtp(self.sent, ssrc=1), PORT_B)
            self.callee.send(rtp(self.sent, ssrc=2), PORT_B)
            assert await self.caller.hears() == (rtp(self.sent, ssrc=2), PORT_A)

    def install(self) -> None:
        for flow in self.flows():
            self.house.plane.install(flow)


@pytest.fixture
def hook(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How programs are attached; as this kernel has it if a test does not ask."""
    name: Hook = getattr(request, "param", "tcx")
    monkeypatch.setattr(
        "mediaproxy.relay.kernel.hooks.attach",
        partial(attach, hook=name),
    )
    return name


both_hooks = pytest.mark.parametrize("hook", ["tcx", "clsact"], indirect=True)
"A clsact filter has no pin, but what is known of it has (as below Linux 6.6)."


@pytest.fixture
async def call(bpffs: Path, hook: str) -> AsyncIterator[Call]:
    house = House(bpffs)
    assert house.plane.hooks.lower().startswith(hook)
    caller, callee = Phone(A), Phone(B)
    made = Call(house, caller, callee)
    made.install()
    yield made
    house.plane.close()
    caller.close()
    callee.close()


@both_hooks
async def test_a_killed_process_loses_no_packet(call: Call) -> None:
    await call.talk(3)
    call.house.kill()
    await call.talk(3)
    call.house.again()
    await call.talk(1)
    one, other = call.flows()
    flow, counters = call.house.adopted[PORT_A]
    assert flow == msgspec.structs.replace(one, settled_at=0.0)
    assert call.house.adopted[PORT_B][0] == other
    assert (counters.packets, counters.bytes, counters.sequence, counters.ssrc) == (6, 6 * 172, 6, 1)
    call.install()
    await call.talk(1)
    assert {c.local: c.packets for c in call.house.plane.counters()} == {PORT_A: 8, PORT_B: 8}
    assert call.house.passed == []


@both_hooks
async def test_what_was_counted_is_not_lost_when_the_kernel_is_left(call: Call) -> None:
    """relay.plane was changed, or somebody has run `mediaproxy relay --release`."""
    await call.talk(2)
    call.house.kill()
    await call.talk(3)
    instance = Instance.open(call.house.bpffs, call.house.name, make=False)
    assert instance is not None
    (pins,) = instance.sets()
    programs, crop = harvest(pins)
    instance.close()
    assert programs == 1
    found = {flow.local: counters for flow, counters in counted(crop, 0.0)}
    assert {local: (one.generation, one.packets, one.bytes) for local, one in found.items()} == {
        PORT_A: (7, 5, 5 * 172),
        PORT_B: (8, 5, 5 * 172),
    }
    assert not list(call.house.bpffs.glob("mediaproxy/*"))
    call.house.again()
    assert call.house.adopted == {}


async def test_xdp_is_taken_over_too(call: Call, bpffs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    subprocess.run(["ip", "link", "add", "xdp0", "type", "veth", "peer", "name", "xdp1"], check=True)
    monkeypatch.setattr("mediaproxy.relay.kernel.hooks.attach_xdp", partial(attach_xdp, virtual=True))
    call.house.plane.close()
    call.house.again(kernel_settings(xdp=("xdp0",)))
    call.install()
    before = call.house.plane.hooks
    assert "XDP on xdp0" in before
    call.house.kill()
    monkeypatch.undo()
    call.house.again()
    assert call.house.plane.hooks == before
    subprocess.run(["ip", "link", "del", "xdp0"], check=True)


async def test_closing_may_leave_the_streams_flowing(call: Call, bpffs: Path) -> None:
    call.house.plane.close(keep=True)
    await call.talk(2)
    call.house.again()
    assert {flow.generation for flow, _ in call.house.adopted.values()} == {7, 8}
    call.house.plane.close()
    assert not list(bpffs.glob("mediaproxy/*")), "nothing is left"
    call.caller.send(rtp(1), PORT_A)
    call.house.again()
    assert call.house.adopted == {}


async def test_with_no_port_lent_nothing_is_left(call: Call, bpffs: Path) -> None:
    for flow in call.flows():
        call.house.plane.remove(flow.local, flow.generation)
    call.house.plane.close(keep=True)
    assert not list(bpffs.glob("mediaproxy/*"))


async def test_what_is_removed_after_a_restart_is_gone(call: Call) -> None:
    call.house.kill()
    call.house.again()
    call.house.plane.remove(PORT_A, 7)
    call.caller.send(rtp(1), PORT_A)
    call.callee.send(rtp(1), PORT_B)
    await asyncio.sleep(0.05)
    assert call.callee.queue.empty() and call.caller.queue.empty()
    (counters,) = call.house.plane.counters([PORT_A, PORT_B])
    assert (counters.local, counters.undeliverable) == (PORT_B, 1)


async def test_deaf_and_learning_ports_are_adopted(call: Call) -> None:
    deaf = Flow(local=Endpoint(A, 20010), generation=3)
    learning = Flow(local=Endpoint(A, 20012), generation=4, peer=PORT_A, peer_generation=7, target=Endpoint(B, 9))
    call.house.plane.install(deaf)
    call.house.plane.install(learning)
    call.house.kill()
    call.house.again()
    assert call.house.adopted[deaf.local][0] == deaf
    assert call.house.adopted[learning.local][0] == learning


async def test_while_nobody_is_there_nobody_is_answered(call: Call) -> None:
    """No ICMP error tells a phone, or a scanner, that the relay is being restarted."""
    call.house.plane.close(keep=True)
    phone = Phone(B)
    phone.socket.connect((PORT_A.address, PORT_A.port))
    for _ in range(3):
        phone.socket.send(b"is anybody there?")
        await asyncio.sleep(0.01)
    phone.close()
    call.house.again()
    assert call.house.passed == []


# -- upgrades


_SHIFT = 24


def _of_another_version(pins: PinSet) -> None:
    """Maps as a version would have left them that has something else before what we know in slots and counters."""
    facts = pins.facts()
    assert facts is not None
    layout = dict(facts.layout)
    for name in ("slots", "counters"):
        record = layout[name.removesuffix("s") if name == "slots" else name]
        fd = syscalls.get(str(pins.folder / name))
        (entries,) = struct.unpack_from("=I", syscalls.info(fd), 16)
        moved = syscalls.map_create(name, 2, 4, record.size + _SHIFT, entries, 1 << 10)
        for index in range(entries):
            value = syscalls.map_lookup(fd, struct.pack("=I", index), record.size)
            if any(value):
                syscalls.map_update(moved, struct.pack("=I", index), b"\xee" * _SHIFT + value)
        pins.unpin(name)
        syscalls.pin(moved, str(pins.folder / name))
        os.close(fd)
        os.close(moved)
    for name in ("slot", "counters"):
        fields = {field: (at + _SHIFT, size) for field, (at, size) in layout[name].fields.items()}
        layout[name] = Shape(layout[name].size + _SHIFT, fields | {"of_later_times": (0, _SHIFT)})
    pins.write(msgspec.structs.replace(facts, layout=layout))


def _sets(bpffs: Path) -> list[PinSet]:
    (folder,) = (bpffs / "mediaproxy").iterdir()
    instance = Instance.lock(folder)
    found = instance.sets()
    instance.close()
    return found


def _folders(bpffs: Path) -> list[str]:
    """Of the sets of pins."""
    return sorted(path.name for path in bpffs.glob("mediaproxy/*/*"))


@both_hooks
async def test_maps_of_another_version_are_converted(call: Call, bpffs: Path) -> None:
    await call.talk(3)
    call.house.kill()
    (before,) = _sets(bpffs)
    _of_another_version(before)
    await call.talk(1)  # the earlier program counts on where nobody sees it in this test
    call.house.again()
    await call.talk(1)
    assert _folders(bpffs) == ["2"]
    assert call.house.adopted[PORT_A][0].tos == 0xB8
    assert call.house.adopted[PORT_A][1].packets == 3
    call.install()
    await call.talk(1)
    assert {c.local: c.packets for c in call.house.plane.counters()} == {PORT_A: 5, PORT_B: 5}
    call.house.kill()
    call.house.again()
    assert call.house.adopted[PORT_A][1].packets == 5


def _with_other_reasons(bpffs: Path) -> None:
    (before,) = _sets(bpffs)
    fd = syscalls.get(str(before.folder / "control"))
    control = bytearray(syscalls.map_lookup(fd, bytes(4), CONTROL.size))
    at, size = CONTROL.offsets["layout"]
    control[at : at + size] = b"\xee" * size
    syscalls.map_update(fd, bytes(4), bytes(control))
    os.close(fd)


async def test_what_comes_while_maps_are_converted_is_not_lost(
    call: Call, bpffs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The earlier program counts on until the new one takes its place, which sees a gap in the sequence numbers."""
    await call.talk(3)
    call.house.kill()
    _with_other_reasons(bpffs)
    take_over = Hooks.take_over

    def late(self: Hooks, pins: PinSet, facts: Facts, links: dict[int, Link]) -> None:
        for sequence in (4, 5, 6, 8):
            call.caller.send(rtp(sequence, ssrc=1), PORT_A)
        take_over(self, pins, facts, links)

    monkeypatch.setattr(Hooks, "take_over", late)
    call.house.again()
    call.caller.send(rtp(9, ssrc=1), PORT_A)
    for sequence in (4, 5, 6, 8, 9):
        assert (await call.callee.hears())[0] == rtp(sequence, ssrc=1)
    (counters,) = call.house.plane.counters([PORT_A])
    assert (counters.packets, counters.rtp, counters.lost, counters.sequence) == (8, 8, 1, 9)
    assert counters.bytes == 8 * 172


async def test_maps_of_a_version_with_other_reasons_are_converted(call: Call, bpffs: Path) -> None:
    """The structs are the same, but what numbers mean is not: a reason more, for example."""
    await call.talk(3)
    call.house.kill()
    _with_other_reasons(bpffs)
    await call.talk(1)
    call.house.again()
    await call.talk(1)
    assert _folders(bpffs) == ["2"]
    call.install()
    assert {c.local: c.packets for c in call.house.plane.counters()} == {PORT_A: 5, PORT_B: 5}


async def test_a_version_that_did_not_count_the_bytes_of_a_blocked_party(call: Call, bpffs: Path) -> None:
    """Its maps are converted: packets are counted on, their bytes from the upgrade on."""

    def blocked() -> tuple[int, int]:
        (counters,) = call.house.plane.counters([PORT_A])
        return counters.undeliverable, counters.undeliverable_bytes

    call.house.plane.install(msgspec.structs.replace(call.flows()[0], peer=None, peer_generation=0))
    for _ in range(3):
        call.caller.send(rtp(1), PORT_A)
    await until(lambda: blocked() == (3, 3 * 172))
    call.house.kill()
    (before,) = _sets(bpffs)
    facts = before.facts()
    assert facts is not None
    counters = facts.layout["counters"]
    fields = dict(counters.fields)
    at, size = fields.pop("undeliverable_bytes")
    fields["spare"] = (at, size + fields["spare"][1])
    older = facts.layout | {"counters": Shape(counters.size, fields)}
    before.write(msgspec.structs.replace(facts, layout=older))
    call.caller.send(rtp(2), PORT_A)
    call.house.again()
    assert blocked() == (4, 0)
    call.caller.send(rtp(3), PORT_A)
    await until(lambda: blocked() == (5, 172))
    call.house.kill()
    call.house.again()
    assert blocked() == (5, 172)


@both_hooks
async def test_maps_that_nobody_can_read_flow_until_their_calls_are_installed(
    call: Call, bpffs: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As those of a far later version: the journal knows the calls."""
    await call.talk(1)
    call.house.kill()
    (before,) = _sets(bpffs)
    facts = before.facts()
    assert facts is not None
    before.write(msgspec.structs.replace(facts, meaning=99))
    call.house.again()
    assert call.house.adopted == {}
    assert "of a version that this one cannot read" in caplog.text
    call.install()
    for _ in range(3):
        await asyncio.sleep(0)
    await call.talk(2)
    assert {c.local: c.packets for c in call.house.plane.counters()} == {PORT_A: 2, PORT_B: 2}
    assert len(_folders(bpffs)) == 1


@both_hooks
@pytest.mark.parametrize(("port_min", "port_max"), [(21000, 22000), (20002, 22000)], ids=["others", "overlapping"])
async def test_other_ports_after_a_restart(call: Call, port_min: int, port_max: int, bpffs: Path) -> None:
    """The old ports serve the calls that have them, until these have ended."""
    await call.talk(1)
    call.house.kill()
    call.house.again(kernel_settings(port_min=port_min, port_max=port_max))
    call.install()
    await call.talk(1)
    new = [Endpoint(A, port_min + 4), Endpoint(A, port_min + 6)]
    for local, peer, phone in zip(new, reversed(new), (call.caller, call.callee), strict=True):
        place = phone.endpoint
        call.house.plane.install(
            Flow(local=local, generation=20, peer=peer, peer_generation=20, source=place, target=place)
        )
    call.caller.send(b"to the new ones", new[0])
    assert await call.callee.hears() == (b"to the new ones", new[1])
    await call.talk(1)
    call.house.kill()
    call.house.again()
    assert set(call.house.adopted) == {PORT_A, PORT_B, *new}
    with pytest.raises(OSError, match="not in the port range"):
        call.house.plane.install(Flow(local=Endpoint(A, 20000), generation=99))
    for flow in call.flows():
        call.house.plane.remove(flow.local, flow.generation)
    call.caller.send(b"still", new[0])
    assert (await call.callee.hears())[0] == b"still"
    assert len(_folders(bpffs)) == 1


@both_hooks
async def test_the_old_ports_again(call: Call, bpffs: Path) -> None:
    """Calls of the time between have ports that this relay has, too, in other maps."""
    call.house.kill()
    call.house.again(kernel_settings(port_min=20002, port_max=22000))
    new = [Endpoint(A, 20006), Endpoint(A, 20008)]
    for local, peer, phone in zip(new, reversed(new), (call.caller, call.callee), strict=True):
        place = phone.endpoint
        call.house.plane.install(
            Flow(local=local, generation=20, peer=peer, peer_generation=20, source=place, target=place)
        )
    call.house.kill()
    call.house.again(kernel_settings())
    call.install()
    await call.talk(1)
    call.caller.send(b"still", new[0])
    assert await call.callee.hears() == (b"still", new[1])
    for local in new:
        call.house.plane.remove(local, 20)
    before = call.house.plane.totals()[Reason.NOT_LENT]
    call.caller.send(b"nobody", new[0])
    await call.talk(1)
    assert call.house.plane.totals()[Reason.NOT_LENT] == before + 1 and len(_folders(bpffs)) == 1
    assert call.house.passed == []


# -- several relays


@both_hooks
async def test_two_relays_on_one_host(call: Call, bpffs: Path) -> None:
    other = House(bpffs, "other", kernel_settings(port_min=30000, port_max=30998))
    local, peer = Endpoint(A, 30000), Endpoint(A, 30002)
    for one, two, phone in ((local, peer, call.caller), (peer, local, call.callee)):
        place = phone.endpoint
        other.plane.install(Flow(local=one, generation=1, peer=two, peer_generation=1, source=place, target=place))
    await call.talk(1)
    call.caller.send(b"by the other one", local)
    assert await call.callee.hears() == (b"by the other one", peer)
    call.house.plane.close()
    call.caller.send(b"again", local)
    assert await call.callee.hears() == (b"again", peer)
    other.plane.close()


async def test_ports_of_another_relay_cannot_be_had(call: Call, bpffs: Path) -> None:
    with pytest.raises(OSError, match=r"20000 to 29999 belong to another relay that runs .* set relay\.port_min"):
        House(bpffs, "other")
    await call.talk(1)
    with pytest.raises(OSError, match="belong to another relay"):
        House(bpffs, "other", kernel_settings(RelayAddress(bind=A), port_min=29000, port_max=31000))
    apart = House(bpffs, "other", kernel_settings(RelayAddress(bind="::1"), port_min=30000, port_max=30100))
    apart.plane.close()


@both_hooks
async def test_ports_of_a_dead_relay_are_taken(call: Call, bpffs: Path, caplog: pytest.LogCaptureFixture) -> None:
    await call.talk(1)
    call.house.kill()
    heir = House(bpffs, "heir")
    assert heir.adopted == {} and "its streams have ended" in caplog.text
    heir.plane.close()
    call.house.again()


async def test_a_relay_that_runs_cannot_be_started_twice(call: Call, bpffs: Path) -> None:
    with pytest.raises(OSError, match="belong to another relay that runs"):
        House(bpffs)
    await call.talk(1)


async def test_clsact_filters_are_taken_over_and_removed(
    call: Call, bpffs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As below Linux 6.6: a filter has no pin, but what is known of it has."""
    call.house.plane.close()
    monkeypatch.setattr(
        "mediaproxy.relay.kernel.hooks.attach",
        partial(attach, hook="clsact"),
    )
    call.house.again()
    call.install()
    assert call.house.plane.hooks == "clsact on lo"
    await call.talk(1)
    call.house.kill()
    await call.talk(1)
    call.house.again()
    assert call.house.plane.hooks == "clsact on lo"
    shown = subprocess.run(["tc", "filter", "show", "dev", "lo", "ingress"], check=True, capture_output=True, text=True)
    assert shown.stdout.count("direct-action") == 1
    await call.talk(1)
    call.house.kill()
    (pins,) = _sets(bpffs)
    assert release(pins) == 1
    shown = subprocess.run(["tc", "qdisc", "show", "dev", "lo"], check=True, capture_output=True, text=True)
    assert "clsact" not in shown.stdout
    call.house.again()


@pytest.mark.parametrize("field", ["boot", "namespace"])
async def test_pins_of_another_boot_or_namespace_are_not_taken_over(
    call: Call, bpffs: Path, field: str, caplog: pytest.LogCaptureFixture
) -> None:
    call.house.kill()
    (pins,) = _sets(bpffs)
    facts = pins.facts()
    assert facts is not None
    pins.write(msgspec.structs.replace(facts, **{field: "another"}))
    call.house.again()
    assert call.house.adopted == {} and "they are of another boot or network namespace" in caplog.text


async def test_what_was_not_finished_is_cleaned_away(call: Call, bpffs: Path) -> None:
    """The process was killed while it made its pins."""
    call.house.kill()
    (pins,) = _sets(bpffs)
    half = pins.folder.with_name("new-7")
    half.mkdir()
    fd = syscalls.map_create("half", 2, 4, 8, 1, 0)
    syscalls.pin(fd, str(half / "slots"))
    os.close(fd)
    call.house.again()
    assert _folders(bpffs) == ["1"] and PORT_A in call.house.adopted


async def test_a_program_of_somebody_else_that_takes_our_packets_is_told(
    bpffs: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Its pins may be another user's, so that we do not see them."""
    other = House(bpffs, "other")
    away = bpffs / "elsewhere"
    (bpffs / "mediaproxy").rename(away)
    mine = House(bpffs, "mine")
    assert caplog.text.count("do not reach this relay: another relay's program takes them") == 2
    mine.plane.close()
    (bpffs / "mediaproxy").rmdir()
    away.rename(bpffs / "mediaproxy")
    other.plane.close()


async def test_what_a_container_has_left_that_is_gone_is_cleaned_away(call: Call, bpffs: Path) -> None:
    spaces = Namespaces()
    with spaces.add("container").inside():
        gone = House(bpffs, "container", kernel_settings(RelayAddress(bind=A)))
        gone.plane.install(Flow(local=PORT_A, generation=1))
        gone.kill()
    there = House(bpffs, "third", kernel_settings(port_min=30000, port_max=30010))
    there.plane.close()
    assert len(list(bpffs.glob("mediaproxy/container-*"))) == 1, "it may start again"
    spaces.close()
    there = House(bpffs, "third", kernel_settings(port_min=30000, port_max=30010))
    there.plane.close()
    assert not list(bpffs.glob("mediaproxy/container-*"))
    await call.talk(1)
