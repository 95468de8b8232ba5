"""Attackers off the path: what they send is not heard, nothing comes back to them, and nobody else notices."""

import json
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from lab import capture
from lab.homes import ATTACKER, SERVER
from lab.server import Server
from lab.site import Site
from tests.e2e.conftest import Shared

PORTS = ("20000", "20399")
"The relay ports of a Site, RTP and RTCP."
ENOUGH = 0.25
"The part of its 2000 packets a second that an attacker gets sent on the slowest machine."


class Attack:
    """A program of lab.attack that runs in the attacker's namespace."""

    def __init__(self, site: Site, *argv: str) -> None:
        self._report = site.folder / f"{argv[0]}-{time.monotonic_ns()}.json"
        program = [sys.executable, "-m", "lab.attack", *argv]
        self._process = site.internet.attacker.start(program, self._report, Path.cwd())

    def outcome(self) -> dict[str, Any]:
        """What it reports at its end."""
        status = self._process.wait(30)
        text = self._report.read_text()
        assert status == 0, text
        report: dict[str, Any] = json.loads(text.splitlines()[-1])
        return report


def test_rtp_sprayed_over_all_relay_ports_is_neither_heard_nor_answered(symmetric: Shared) -> None:
    site = symmetric.site
    rounds = []
    # Other work on the machine only ever adds loss and delay, so one good round of three is proof; nothing may come
    # through in any.
    for _ in range(3):
        spraying = Attack(site, "spray", SERVER, *PORTS, "9")
        time.sleep(1.0)  # before the call, too
        call, wire = symmetric.talk(6.0)
        report = spraying.outcome()
        passed = list(capture.read(site.folder / f"call{symmetric.calls}.pcap"))
        assert report["sent"] >= ENOUGH * 9 * 2000
        assert report["back"] == 0
        assert not [one for one in passed if one.target[0] == ATTACKER]
        assert sum(one.source[0] == ATTACKER for one in passed) > ENOUGH * 5 * 2000
        assert call.strange == 0, call
        heard = call.share >= 0.99 - 0.08 / call.seconds  # a window of 40 ms is lost at each end of a recording
        lost = max(way.lost / way.sent for way in (wire.to_callee, wire.to_caller))
        if heard and lost <= 0.01:
            return
        rounds.append((call.share, lost))
    pytest.fail(f"heard and lost under fire, three times: {rounds}")


def test_garbage_on_every_socket_stops_nothing_and_delays_little(symmetric: Shared) -> None:
    site, server = symmetric.site, symmetric.site.server
    assert server is not None
    # Other work on the machine only ever adds loss and delay, so one good round of three is proof.
    shares: list[float] = []
    while max(shares, default=0.0) < 0.95:
        assert len(shares) < 3, f"heard under fire, three times: {shares}"
        garbage = Attack(site, "garbage", SERVER, *PORTS, "8")
        time.sleep(1.0)
        call, _ = symmetric.talk(5.0)
        assert garbage.outcome()["sent"] >= ENOUGH * 8 * 2000
        shares.append(call.share)

    rounds = []
    for _ in range(5):
        quiet, noisy = _probe(site), _probe(site, garbage_too=True)
        assert_alive(server)
        assert quiet["unanswered"] == 0
        assert quiet["statuses"] == noisy["statuses"] | {"200": quiet["statuses"]["200"]}
        rounds.append((noisy["p99_ms"], quiet["p99_ms"]))
        if noisy["p99_ms"] <= max(3 * quiet["p99_ms"], 50.0):  # a tenth of what makes a phone repeat itself
            return
    pytest.fail(f"p99 of SIP answers under fire and quiet, in ms, five times: {rounds}")


def _probe(site: Site, *, garbage_too: bool = False) -> dict[str, Any]:
    garbage = Attack(site, "garbage", SERVER, *PORTS, "5") if garbage_too else None
    if garbage is not None:
        time.sleep(0.5)
    outcome = Attack(site, "probe", SERVER, "4").outcome()
    if garbage is not None:
        garbage.outcome()
    return outcome


def assert_alive(server: Server) -> None:
    """The server runs, answers, and wrote no traceback."""
    assert server.alive
    assert "Traceback" not in server.log, server.log[-3000:]
    server.ask("calls")
