"""Long runs in real time, for ``make soak``: a relay that is killed again and again, and a call that is on hold for
minutes. SOAK_SECONDS is how long each takes (300)."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lab.homes import NatKind
from lab.hosts import Host
from lab.site import Site as Homes
from tests.e2e.conftest import need, register
from tests.e2e.restartsite import Attack, Site, Talks, talking
from tests.e2e.test_hold import assert_both_pass
from tests.e2e.test_restart import ATTACK, CALLS, end, lost
from tests.e2e.test_stock_phones import HOSTS as STOCK_HOSTS

SECONDS = float(os.environ.get("SOAK_SECONDS", "300"))

pytestmark = [pytest.mark.soak, pytest.mark.timeout(int(4 * SECONDS) + 600)]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    need()
    site = Site(tmp_path)
    try:
        site.start()
        yield site
    finally:
        site.close()


def test_a_relay_that_is_killed_again_and_again(site: Site, figure: Callable[[str], None]) -> None:
    """5 000 packets/s in 100 calls, 50 000 attack packets/s: none of the calls' is lost, and the records are exact."""
    talks = talking(site, CALLS)
    kills = 0
    with Talks(talks) as traffic, Attack(site, talks, ATTACK) as attack:
        over = time.monotonic() + SECONDS
        while time.monotonic() < over:
            time.sleep(8)
            site.end(signal.SIGKILL)
            kills += 1
            time.sleep(kills % 4)  # shorter and longer than the program takes a silent process for alive
            site.start()
            assert len(site.shown("calls")) == CALLS
    figure(
        f"{traffic.rate:.0f} packets/s in {CALLS} calls, {attack.rate:.0f} attack packets/s, {kills} kills, "
        f"{lost(talks)} of {sum(talk.sent for talk in talks) * 2} lost"
    )
    assert lost(talks) == 0, [(talk.call_id, talk.lost) for talk in talks if talk.lost]
    end(site, talks)


@pytest.mark.parametrize("plane", ["kernel", "native", "user"])
def test_a_call_that_is_on_hold_for_long(plane: str, tmp_path: Path) -> None:
    """Longer than any timer of a talking call, and than the NATs remember a silent phone, in real time."""
    on_hold(Host.EDGE, plane, tmp_path)


@pytest.mark.parametrize("host", STOCK_HOSTS)
def test_a_call_that_a_stock_server_puts_on_hold_for_long(host: Host, tmp_path: Path) -> None:
    """The same with Kamailio's own modules at our doors, also where the protocol tells nothing of a hold."""
    need("kamailio", "unshare")
    on_hold(host, "auto", tmp_path)


def on_hold(host: Host, plane: str, folder: Path) -> None:
    """Each phone holds once: nobody ends the call, and both are heard again."""
    told = host not in (Host.RTPPROXY, Host.RTPPROXY_UNIX)
    with Homes((NatKind.SYMMETRIC, NatKind.RESTRICTED), folder, host=host) as homes:
        server = homes.start_server({"relay": {"plane": plane}})
        alice, bob = (homes.baresip(home, talks=int(SECONDS) + 300) for home in ("a", "b"))
        register(alice, bob)
        alice.dial(bob.account.uri)
        alice.wait_established()
        bob.wait_established()
        state = "held" if told else "talking"
        for holder, seconds in ((alice, SECONDS), (bob, 10.0)):
            holder.hold()
            server.wait("hold", "calls", until=lambda calls: calls[-1]["state"] == state)
            time.sleep(seconds)
            assert server.ask("calls")[-1]["state"] == state
            holder.resume()
            server.wait("resume", "calls", until=lambda calls: calls[-1]["state"] == "talking")
            assert_both_pass(homes, (alice, bob), f"resumed by {holder.account.user}", 3.0)
        alice.hang_up()
        alice.wait_closed()
        bob.wait_closed()
        (record,) = server.wait("the record", "records", until=bool)
        assert record["reason"] == "bye" and record["duration"] > SECONDS
