"""relay/kernel/netlink.py: when the host's interfaces and routes change, the plane hears of it."""

import asyncio
from collections.abc import Iterator

import pytest

from lab.netns import Namespace, Namespaces
from mediaproxy.relay.kernel.netlink import Changes
from tests.e2e.conftest import need
from tests.planebench import until

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("no_leaks")]


@pytest.fixture
def host() -> Iterator[Namespace]:
    need()
    spaces = Namespaces()
    made = spaces.add("host")
    made.ip("link add one type veth peer name other")
    with made.inside():
        yield made
    spaces.close()


async def test_what_comes_up_again_is_told_at_once_and_what_flaps_waits(host: Namespace) -> None:
    told = 0
    news = asyncio.Event()

    def changed() -> None:
        nonlocal told
        told += 1
        news.set()

    changes = Changes(changed, patience=0.0, rest=3600.0)
    for number in range(3):
        news.clear()
        host.ip(f"link set one {('up', 'down')[number % 2]}")
        await asyncio.wait_for(news.wait(), 30)
    host.ip("link set one down")
    await until(lambda: changes._timer is not None)
    assert changes._timer is not None
    assert changes._timer.when() > asyncio.get_running_loop().time() + 3000 and told == 3, "not before there was a rest"
    changes.close()
