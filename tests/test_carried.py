"""``Plane.carried`` of every plane: the sums of all flows that are and were."""

from collections.abc import AsyncIterator, Iterator

import pytest

from mediaproxy.relay.flow import Carried
from tests.planebench import PAIRS, PLANES, Bench, bench_of, can_have_network, own_network, ports_of, rtp, until

pytestmark = pytest.mark.usefixtures("no_leaks")


@pytest.fixture(scope="module", autouse=True)
def network() -> Iterator[None]:
    """The kernel plane takes every packet to its ports in the whole network namespace."""
    if not can_have_network():
        yield
        return
    with own_network():
        yield


@pytest.fixture(params=[pytest.param(name, marks=pytest.mark.e2e if name == "kernel" else ()) for name in PLANES])
async def bench(request: pytest.FixtureRequest) -> AsyncIterator[Bench]:
    pair = PAIRS["v4"]
    async with bench_of(PLANES[request.param](), pair, ports_of(request.param, pair)) as made:
        yield made


async def test_it_is_the_sum_of_all_flows_and_nothing_is_forgotten(bench: Bench) -> None:
    assert bench.plane.carried() == Carried()
    bench.install_call()
    for number in range(10):
        bench.caller.send(rtp(number), bench.port_a)
        await bench.callee.hears()
        bench.callee.send(rtp(number, size=100), bench.port_b)
        await bench.caller.hears()
    await until(lambda: sum(slot.packets for slot in bench.counters().values()) == 20)
    ten = Carried(packets=20, bytes=10 * 172 + 10 * 100)
    assert bench.plane.carried() == ten
    bench.plane.remove(bench.port_a, 1)
    assert bench.plane.carried() == ten, "of a flow that has gone"
    bench.callee.send(rtp(10), bench.port_b)
    await until(lambda: bench.plane.carried().undeliverable == 1)
    bench.plane.install(bench.flow_a(2))
    assert bench.plane.carried() == Carried(packets=20, bytes=ten.bytes, undeliverable=1), "lent anew, unheard so far"
    bench.plane.install(bench.flow_b(2))
    bench.caller.send(rtp(1), bench.port_a)
    await bench.callee.hears()
    await until(lambda: bench.plane.carried().packets == 21)
    assert bench.plane.carried() == Carried(packets=21, bytes=ten.bytes + 172, undeliverable=1)


async def test_what_was_kept_from_decisions_is_in_it(bench: Bench) -> None:
    bench.plane.install(bench.flow_a(allowed=("198.51.100.0/24",)))
    bench.plane.install(bench.flow_b())
    for number in range(60):
        bench.callee.send(rtp(number), bench.port_a)  # a stranger there
    await until(lambda: bench.plane.carried().dropped == 40)
