"""Real phones behind real NATs, a Kamailio with nothing but its own modules, and our relay behind it."""

import asyncio
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from lab.baresip import Baresip
from lab.capture import read
from lab.homes import NatKind
from lab.hosts import Host
from lab.phone import talk
from lab.server import Server
from lab.site import Site
from lab.stock import BesideStock
from mediaproxy.control import TotalsRequest
from mediaproxy.events import RelayTotals, totals_of
from mediaproxy.link import UnixLink
from tests.e2e.conftest import Shared, full, need, proven, register
from tests.e2e.onwire import check_media
from tests.e2e.test_hold import heard, hold_and_resume

HOSTS = [Host.MEDIAPROXY_USE, Host.MEDIAPROXY_ENGAGE, Host.RTPENGINE, Host.RTPPROXY, Host.RTPPROXY_UNIX]


@pytest.fixture(scope="module", params=HOSTS)
def shared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shared]:
    """Two baresips behind symmetric NATs, and a third home."""
    need("kamailio", "unshare")
    folder = tmp_path_factory.mktemp(request.param)
    with Site((NatKind.SYMMETRIC,) * 3, folder, host=request.param) as site:
        site.start_server({"relay": {"linger": 0.5}})
        alice, bob = site.baresip("a"), site.baresip("b")
        register(alice, bob)
        yield Shared(site, alice, bob)
        server = _server(site)
        assert server.alive and "Traceback" not in server.log


@pytest.fixture(scope="module")
def carol(shared: Shared) -> Baresip:
    """A phone that has early media while it rings, and answers when it is told to."""
    phone = shared.site.baresip("c", answers="early")
    register(phone)
    return phone


@pytest.mark.parametrize("who", ["Alice calls", "Bob calls"])
def test_they_hear_each_other_and_the_record_says_what_passed(shared: Shared, who: str) -> None:
    homes = shared.site.internet.homes
    wans = {"caller": homes["a"].wan, "callee": homes["b"].wan}
    if who == "Bob calls":
        shared = replace(shared, alice=shared.bob, bob=shared.alice)
        wans = {"caller": homes["b"].wan, "callee": homes["a"].wan}

    def attempt() -> Any:
        call, _ = shared.talk(3.0)
        one = _record(shared.site)
        assert full(call)
        return one

    one = proven(attempt)
    assert all(stream[side]["packets"] > 100 for stream in one["streams"] for side in ("caller", "callee"))
    check_media(one, list(read(shared.last_capture)), wans)


def test_hold_and_resume(shared: Shared) -> None:
    # rtpproxy's protocol does not tell of a hold.
    told = shared.site.host not in (Host.RTPPROXY, Host.RTPPROXY_UNIX)
    hold_and_resume(shared.site, (shared.alice, shared.bob), told=told)
    assert _record(shared.site)["reason"] == "bye"


def test_the_callee_hangs_up(shared: Shared) -> None:
    call = talk(shared.bob, shared.alice, 2.0)
    assert full(call) or call.share > 0.5
    assert _record(shared.site)["reason"] == "bye"


def test_early_media(shared: Shared, carol: Baresip) -> None:
    site, alice = shared.site, shared.alice
    alice.dial(carol.account.uri)
    alice.wait_event("CALL_PROGRESS")
    with site.capture(site.folder / "early.pcap"):
        time.sleep(1.5)
    # baresip answers with 183 and an SDP, and listens; it speaks when it has accepted.
    assert heard(site.wire(site.folder / "early.pcap", "a", "c").to_callee, alice.tone) >= 0.8
    carol.accept()
    alice.wait_established()
    carol.wait_established()
    with site.capture(site.folder / "answered.pcap"):
        time.sleep(1.5)
    wire = site.wire(site.folder / "answered.pcap", "a", "c")
    assert min(heard(wire.to_caller, carol.tone), heard(wire.to_callee, alice.tone)) >= 1.0
    carol.hang_up()
    alice.wait_closed()
    assert _record(site)["reason"] == "bye"


def test_a_call_that_is_given_up(shared: Shared, carol: Baresip) -> None:
    shared.alice.dial(carol.account.uri)
    shared.alice.wait_event("CALL_PROGRESS")
    shared.alice.hang_up()
    carol.wait_closed()
    # Kamailio 5.6 does not tell NG or rtpproxy that a 183 is none: to them the call was answered.
    early = shared.site.host in (Host.MEDIAPROXY_USE, Host.MEDIAPROXY_ENGAGE)
    assert _record(shared.site)["reason"] == ("cancel" if early else "bye")


def test_a_call_that_is_refused(shared: Shared, carol: Baresip) -> None:
    shared.alice.dial(carol.account.uri)
    shared.alice.wait_event("CALL_PROGRESS")
    carol.hang_up()
    shared.alice.wait_closed()
    _record(shared.site)


def test_two_phones_ring(shared: Shared) -> None:
    """One has early media, the other one answers."""
    site, alice = shared.site, shared.alice
    slow, quick = (
        site.baresip(home, user="erin", answers=answers) for home, answers in (("c", "early"), ("b", "manual"))
    )
    register(slow, quick)
    alice.dial(quick.account.uri)
    alice.wait_event("CALL_PROGRESS")
    quick.wait_event("CALL_INCOMING")
    time.sleep(0.5)
    quick.accept()
    alice.wait_established()
    quick.wait_established()
    slow.wait_closed()
    with site.capture(site.folder / "fork.pcap"):
        time.sleep(1.5)
    wire = site.wire(site.folder / "fork.pcap", "a", "b")
    assert min(heard(wire.to_caller, quick.tone), heard(wire.to_callee, alice.tone)) >= 1.0
    quick.hang_up()
    alice.wait_closed()
    assert _record(site)["reason"] == "bye"


def _server(site: Site) -> Server:
    assert site.server is not None
    return site.server


async def _totals(site: Site) -> RelayTotals:
    server = _server(site)
    assert isinstance(server, BesideStock)
    link = UnixLink(server.socket)
    try:
        (totals,) = totals_of(await link.inquire(TotalsRequest()))
        return totals
    finally:
        await link.close()


def _record(site: Site) -> Any:
    """That of the call before, which must be over; no port may be lent any more."""
    assert _server(site).wait("the end", "calls", until=lambda calls: not calls) == []
    totals = asyncio.run(_totals(site))
    assert totals.ports_lent == 0
    return _server(site).wait("the record", "records", until=lambda records: len(records) == totals.started_calls)[-1]
