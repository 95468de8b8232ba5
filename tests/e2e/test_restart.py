"""A relay whose media is in the kernel is killed and stopped in the middle of many calls, under attack: no packet of
theirs is lost, and all of them are in the records."""

import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lab.netns import wait_until
from tests.asking import bye
from tests.e2e.conftest import need
from tests.e2e.restartsite import Attack, Site, Talk, Talks, talking

CALLS = 100
ATTACK = 50_000
"Packets per second."


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    need()
    site = Site(tmp_path)
    try:
        site.start()
        yield site
    finally:
        site.close()


@pytest.mark.timeout(600)
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["kill -9", "systemctl restart"])
def test_no_packet_is_lost_while_the_relay_is_replaced(site: Site, number: int, figure: Callable[[str], None]) -> None:
    talks = talking(site, CALLS)
    with Talks(talks) as traffic, Attack(site, talks, ATTACK) as attack:
        time.sleep(1.5)
        site.end(number)
        time.sleep(1.5)  # the program takes the process for dead
        site.start()
        time.sleep(1.5)
        shown = {one["call_id"]: one for one in site.shown("calls")}
        site.end(number)
        site.start()
        time.sleep(0.5)
    figure(f"{traffic.rate:.0f} packets/s in {CALLS} calls, {attack.rate:.0f} attack packets/s, {lost(talks)} lost")
    assert shown.keys() == {talk.call_id for talk in talks}
    assert all(one["streams"][0]["plane"] == "kernel" for one in shown.values())
    assert lost(talks) == 0, [(talk.call_id, talk.lost) for talk in talks if talk.lost]
    assert traffic.rate > 100 and attack.rate > 1000, "even the slowest machine can do that"
    end(site, talks)


def lost(talks: list[Talk]) -> int:
    """Packets of learned streams."""
    return sum(talk.lost for talk in talks)


def end(site: Site, talks: list[Talk]) -> None:
    """All calls end; the records say what passed."""
    for reply in site.ask(*(bye(talk.alice, talk.bob, talk.call_id) for talk in talks)):
        assert not reply.error
    wait_until("the records", lambda: len(site.shown("records")) == len(talks), 60)
    found = {one["call_id"]: one for one in site.shown("records")}
    for talk in talks:
        record = found[talk.call_id]
        assert record["reason"] == "bye"
        for side, phone in (("caller", talk.alice), ("callee", talk.bob)):
            count = record["streams"][0][side]
            assert (count["packets"], count["sent"]) == (talk.sent, talk.heard[phone]), "exact"
            assert count["refused_packets"] > 0
    assert site.shown("calls") == []
