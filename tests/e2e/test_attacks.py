"""Attackers off the path: what they send is not heard, nothing comes back to them, and nobody else notices."""

import json
import sys
import time
from pathlib import Path
from typing import Any

from lab import capture
from lab.homes import ATTACKER, SERVER
from lab.server import Server
from lab.site import Site
from tests.e2e.conftest import Shared

PORTS = ("20000", "20399")
"The relay ports of a Site, RTP and RTCP."


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
    spraying = Attack(site, "spray", SERVER, *PORTS, "9")
    time.sleep(1.0)  # before the call, too

    call, wire = symmetric.talk(6.0)

    report = spraying.outcome()
    passed = list(capture.read(site.folder / f"call{symmetric.calls}.pcap"))
    assert report["sent"] >= 0.95 * 9 * 2000
    assert report["back"] == 0
    assert not [one for one in passed if one.target[0] == ATTACKER]
    assert sum(one.source[0] == ATTACKER for one in passed) > 9000
    assert call.strange == 0, call
    assert call.share >= 0.99 - 0.08 / call.seconds, call  # a window of 40 ms is lost at each end of a recording
    assert wire.to_callee.lost <= 0.01 * wire.to_callee.sent
    assert wire.to_caller.lost <= 0.01 * wire.to_caller.sent


def test_garbage_on_every_socket_stops_nothing_and_delays_little(symmetric: Shared) -> None:
    site, server = symmetric.site, symmetric.site.server
    assert server is not None
    quiet = Attack(site, "probe", SERVER, "4").outcome()
    garbage = Attack(site, "garbage", SERVER, *PORTS, "10")
    time.sleep(1.0)
    probing = Attack(site, "probe", SERVER, "4")
    call, _ = symmetric.talk(5.0)
    noisy, report = probing.outcome(), garbage.outcome()

    assert report["sent"] >= 0.95 * 10 * 2000
    assert_alive(server)
    assert call.share >= 0.95, call
    assert quiet["unanswered"] == 0
    assert quiet["statuses"] == noisy["statuses"] | {"200": quiet["statuses"]["200"]}
    assert noisy["p99_ms"] <= max(3 * quiet["p99_ms"], 10.0), (quiet, noisy)


def assert_alive(server: Server) -> None:
    """The server runs, answers, and wrote no traceback."""
    assert server.alive
    assert "Traceback" not in server.log, server.log[-3000:]
    server.ask("calls")
