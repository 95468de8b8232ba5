"""How busy the host and its relays are, for the limits of NG doors."""

import asyncio
import os

import pytest

from mediaproxy.control import Inquiry, MediaReply, Question, TotalsRequest
from mediaproxy.dialects.ng.settings import NgOptions
from mediaproxy.events import RelayTotals, raw
from mediaproxy.server import load
from mediaproxy.server.load import Load, ticks
from tests.doorhouse import until

pytestmark = pytest.mark.usefixtures("no_leaks")


class Arm:
    """Relays that tell their totals."""

    def __init__(self, *totals: RelayTotals) -> None:
        self.totals = totals
        self.asked = 0

    async def ask(self, question: Question) -> MediaReply:
        raise AssertionError(question)

    async def inquire(self, inquiry: Inquiry) -> MediaReply:
        assert isinstance(inquiry, TotalsRequest)
        self.asked += 1
        return MediaReply(totals=tuple(map(raw, self.totals)))


async def test_without_limits_nobody_looks() -> None:
    arm = Arm()
    found = Load(NgOptions(), arm, lambda: 3)
    await found.start()
    await found.stop()
    assert (arm.asked, found.sessions, found.load, found.cpu, found.bandwidth) == (0, 3, 0.0, 0.0, 0.0)


async def test_calls_of_our_own_relay_are_counted_without_asking() -> None:
    arm = Arm()
    found = Load(NgOptions(max_sessions=5), arm, lambda: 3)
    await found.start()
    await found.stop()
    assert (arm.asked, found.sessions) == (0, 3)


async def test_relays_elsewhere_are_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "PERIOD", 0.005)
    arm = Arm(RelayTotals(calls=3, bytes=1000), RelayTotals(calls=4))
    found = Load(NgOptions(max_sessions=5, max_bandwidth=10.0), arm)
    await found.start()
    assert (found.sessions, found.bandwidth) == (7, 0.0)
    arm.totals = (RelayTotals(calls=1, bytes=5000),)
    await until(lambda: found.bandwidth > 0.0)
    assert found.sessions == 1
    arm.totals = ()
    await until(lambda: found.sessions == 0)
    assert found.bandwidth >= 0.0
    await found.stop()
    asked = arm.asked
    await asyncio.sleep(0.02)
    assert arm.asked == asked


async def test_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "PERIOD", 0.05)
    monkeypatch.setattr(os, "getloadavg", lambda: (1.5, 0.0, 0.0))
    found = Load(NgOptions(max_load=1.0, max_cpu=50.0), Arm())
    await found.start()
    assert found.load == 1.5
    assert 0.0 <= found.cpu <= 100.0
    await found.stop()


def test_ticks() -> None:
    assert ticks("cpu  100 10 50 800 40 0 0 0 0 0\n") == (840, 1000)
    for line in ("", "cpu0 1 2 3 4 5", "cpu 1 2", "cpu a b c d e"):
        with pytest.raises(ValueError, match=r"not the line|invalid literal|not enough"):
            ticks(line)
