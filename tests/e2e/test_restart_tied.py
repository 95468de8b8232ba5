"""A relay is killed in the middle of calls of its own that meet (docs/latching.md, "Two calls that meet"), their media
in the kernel and never on the loopback: no packet is lost, the next process finds them tied, and each call ends for
itself."""

import itertools
import signal
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lab.netns import Namespace, wait_until
from mediaproxy.control import EndCause, EndRequest, TotalsRequest
from mediaproxy.endpoint import Endpoint
from mediaproxy.events import RelayTotals, totals_of
from tests.asking import Phone, ack, answer, bye, offer, ports
from tests.e2e.conftest import need
from tests.e2e.restartsite import RELAY, Attack, Site, Talk, Talks, hear, listening, settle
from tests.test_cli import cli

COOL = 1.0
"Seconds."
RTP, RTCP = 12 + 160, 28
"UDP payload bytes of each packet of these phones."
REPORT_EVERY = 5
"RTP packets to one of RTCP."


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    need()
    site = Site(tmp_path, more=f"cool = {COOL}\ncool_quiet = 0.0")
    try:
        site.start()
        yield site
    finally:
        site.close()


class Tied(Talk):
    """Alice and Bob by two calls, and a server on the relay's host between these that passes SDP on; with RTCP."""

    ears = 2

    def __init__(self, site: Site, number: int) -> None:
        self.reports = 0
        self.reported: dict[Phone, int] = {}
        self.second = f"second-{number}"
        self._callee, self._caller = (Phone(f"{name}-{number}", RELAY) for name in ("server-callee", "server-caller"))
        super().__init__(site, number)
        self.reported = {self.alice: 0, self.bob: 0}

    @property
    def parties(self) -> dict[str, tuple[Phone, Phone]]:
        """Caller and callee of each call, by its Call-ID."""
        return {self.call_id: (self.alice, self._callee), self.second: (self._caller, self.bob)}

    @property
    def local(self) -> list[Endpoint]:
        return [*super().local, *(Endpoint(RELAY, phone.ports[0]) for phone in (self._callee, self._caller))]

    def _set_up(self, site: Site) -> tuple[Endpoint, Endpoint]:
        one, two = self.parties.items()
        self._caller.ports = [_port(site, offer(*one[1], one[0])).port]
        at_bob = _port(site, offer(*two[1], two[0]))
        self._callee.ports = [_port(site, answer(*two[1], two[0])).port]
        at_alice = _port(site, answer(*one[1], one[0]))
        site.ask(ack(*one[1], one[0]), ack(*two[1], two[0]))
        return at_alice, at_bob

    def speak(self) -> None:
        super().speak()
        if self.sent % REPORT_EVERY == 1:
            self.reports += 1
            for phone, to in ((self.alice, self.at_alice), (self.bob, self.at_bob)):
                report = struct.pack("!BBHI", 0x80, 200, RTCP // 4 - 1, phone.ports[0]) + bytes(RTCP - 8)
                phone.sockets[1].sendto(report, (to.address, to.port + 1))

    def take(self, phone: Phone, data: bytes, source: Endpoint) -> None:
        if data[1] != 200:
            super().take(phone, data, source)
            return
        at, other = (self.at_alice, self.bob) if phone is self.alice else (self.at_bob, self.alice)
        assert source == Endpoint(at.address, at.port + 1)
        assert data[4:8] == struct.pack("!I", other.ports[0]), "nobody else's"
        self.reported[phone] += 1

    @property
    def heard_by_both(self) -> tuple[int, int]:
        """RTP and RTCP packets that each of them has heard: as many as the other one."""
        (rtp,), (rtcp,) = set(self.heard.values()), set(self.reported.values())
        return rtp, rtcp

    @property
    def lost(self) -> int:
        return super().lost + sum(self.reports - heard for heard in self.reported.values())


def _port(site: Site, question: Any) -> Endpoint:
    (port,) = ports(site.ask(question)[0])
    return port


def totals(site: Site) -> RelayTotals:
    (one,) = totals_of(site.ask(TotalsRequest())[0])
    return one


def on_loopback(space: Namespace) -> int:
    """Packets that a host has sent to itself."""
    (line,) = [one for one in space.run("cat", "/proc/net/dev").splitlines() if one.strip().startswith("lo:")]
    return int(line.split()[10])


def by_command(site: Site, call_id: str, parties: tuple[Phone, Phone]) -> str:
    """As an operator ends a call; the reason in its record."""
    done = cli("end", call_id, "--config", "c.toml", home=site.folder)
    assert done.returncode == 0, done.stderr
    return "admin"


def by_delete(site: Site, call_id: str, parties: tuple[Phone, Phone]) -> str:
    """As NG, rtpproxy and MediaProxy end one."""
    caller, callee = parties
    (reply,) = site.ask(
        EndRequest(call_id=call_id, sender=caller.party, receiver=callee.party, cause=EndCause.DELETE, report=True)
    )
    assert not reply.error
    return "bye"


def by_bye(site: Site, call_id: str, parties: tuple[Phone, Phone]) -> str:
    (reply,) = site.ask(bye(*parties, call_id))
    assert not reply.error
    return "bye"


WAYS = list(itertools.product((by_bye, by_delete, by_command), ("Alice's call", "Bob's call")))
"How one call of each pair ends, and which."


@pytest.mark.timeout(300)
def test_calls_that_meet_outlive_the_relay(site: Site, figure: Callable[[str], None]) -> None:
    talks = [Tied(site, number) for number in range(len(WAYS))]
    settle(site, talks)
    before = on_loopback(site.space)
    with Talks(talks) as traffic, Attack(site, talks, 5_000) as attack:
        for kills in (1, 2):
            time.sleep(0.7)
            site.end(signal.SIGKILL)
            time.sleep(1.5)  # the program takes the process for dead
            site.start()
            assert site.log.count(f"{2 * len(talks)} calls go on") == kills
        time.sleep(0.5)
    lost = sum(talk.lost for talk in talks)
    figure(f"{traffic.rate:.0f} packets/s, {attack.rate:.0f} attack packets/s, {lost} lost in {2 * len(talks)} calls")
    assert lost == 0, [(talk.call_id, talk.lost, talk.reported) for talk in talks]
    assert traffic.rate > 50, "even the slowest machine can do that"
    probes = 2  # each process tries with one whether packets reach it
    assert on_loopback(site.space) == before + probes, "all of it has met in the program"
    shown = {one["call_id"]: one for one in site.shown("calls")}
    assert shown.keys() == {call_id for talk in talks for call_id in talk.parties}
    for talk in talks:
        for call_id in talk.parties:
            exact(talk, call_id, shown[call_id])
            assert shown[call_id]["streams"][0]["plane"] == "kernel"
    had = totals(site)
    say_once(talks)
    now = totals(site)
    packets = 2 * sum(1 + (talk.sent % REPORT_EVERY == 1) for talk in talks)
    assert now.packets - had.packets == 2 * packets, "one counts in both calls"
    assert now.offloaded == 2 * len(talks)
    one_after_the_other(site, talks)
    nothing_is_left(site)


def say_once(talks: list[Tied]) -> None:
    """All say something, and hear what comes."""
    for talk in talks:
        talk.speak()
    with listening(talks) as selector:
        while hear(selector, 0.5):
            pass


def exact(talk: Tied, call_id: str, found: Any) -> None:
    """A call has counted each packet that has come to it and that has left it: all that were sent by either phone, and
    by its own one those that nobody could be given."""
    own = "caller" if call_id == talk.call_id else "callee"
    (stream,) = found["streams"]
    for side in ("caller", "callee"):
        end = stream[side]
        packets, reports = (talk.sent, talk.reports) if side == own else talk.heard_by_both
        assert (end["packets"], end["rtcp_packets"]) == (packets, reports), (call_id, side)
        assert (end["bytes"], end["rtcp_bytes"]) == (packets * RTP, reports * RTCP), (call_id, side)
        assert end["sent"] == talk.heard_by_both[0], (call_id, side)
        assert end["lost"] == 0
        assert end["refused_packets"] > 0, "attackers send to all ports"


def one_after_the_other(site: Site, talks: list[Tied]) -> None:
    """One call of each pair ends; the other one stays, with nobody beyond, over another kill, and ends
    later. Their records are exact."""
    goes: dict[str, Tied] = {}
    stays: dict[str, Tied] = {}
    reasons: dict[str, str] = {}
    for talk, (end, which) in zip(talks, WAYS, strict=True):
        call_ids = list(talk.parties)
        gone, left = call_ids if which == "Alice's call" else reversed(call_ids)
        goes[gone], stays[left] = talk, talk
        reasons[gone] = end(site, gone, talk.parties[gone])
    assert {one["call_id"] for one in site.shown("calls")} == stays.keys()
    wait_until("the records", lambda: len(site.shown("records")) >= len(goes))
    records = {one["call_id"]: one for one in site.shown("records")}
    assert {call_id: one["reason"] for call_id, one in records.items()} == reasons
    for call_id, talk in goes.items():
        exact(talk, call_id, records[call_id])
    site.end(signal.SIGKILL)
    site.start()
    heard = [talk.heard_by_both for talk in talks]
    say_once(talks)
    assert [talk.heard_by_both for talk in talks] == heard, "there is nobody beyond"
    shown = {one["call_id"]: one for one in site.shown("calls")}
    for call_id, talk in stays.items():
        exact(talk, call_id, shown[call_id])
        beyond = "callee" if call_id == talk.call_id else "caller"
        assert shown[call_id]["streams"][0][beyond]["learned"] is None
        by_bye(site, call_id, talk.parties[call_id])
    wait_until("the records", lambda: len(site.shown("records")) >= len(goes) + len(stays))
    written = site.shown("records")
    assert len(written) == len(goes) + len(stays), "one of each"
    records = {one["call_id"]: one for one in written}
    for call_id, talk in stays.items():
        exact(talk, call_id, records[call_id])
        assert records[call_id]["reason"] == "bye"


def nothing_is_left(site: Site) -> None:
    """All ports are free, and when they have cooled there is nothing in the kernel."""
    assert site.shown("calls") == []
    assert (totals(site).calls, totals(site).ports_lent) == (0, 0)

    def all_have_cooled() -> bool:
        site.end(signal.SIGTERM)  # what is in use would outlive the process
        if not list((site.folder / "bpf").glob("mediaproxy/*")):
            return True
        site.start()
        return False

    wait_until("ports that have cooled", all_have_cooled, 60, step=COOL)
