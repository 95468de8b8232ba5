"""Hold and resume between real phones: a re-INVITE changes nothing that the media path needs."""

import time
from collections.abc import Sequence
from pathlib import Path

from lab import judge, tones
from lab.baresip import Baresip
from lab.capture import Way
from lab.homes import NOBODY, NatKind
from lab.hosts import Host
from lab.pjsip import Pjsip
from lab.site import Site
from tests.e2e.conftest import Shared, register


def heard(way: Way, tone: int) -> float:
    """Seconds of a tone on the listener's wire."""
    return judge.judge(tones.decode_ulaw(way.pcm_payload), tone).seconds


def passes(way: Way, tone: int) -> bool:
    """Whether the listener was sent what the speaker has sent, however often a busy host let that one speak: half a
    second of it at least, packets of 20 ms."""
    return way.sent >= 25 and heard(way, tone) >= 0.92 * 0.02 * way.sent


def assert_both_pass(site: Site, phones: Sequence[Baresip | Pjsip], name: str, seconds: float) -> None:
    """Both are sent what the other one says, within one of five looks of so many seconds: other work on the machine
    only adds loss and delay. ``name``: of the captures."""
    alice, bob = phones
    for attempt in range(5):
        capture = site.folder / f"{name}.{attempt}.pcap"
        with site.capture(capture):
            time.sleep(seconds)
        wire = site.wire(capture, "a", "b")
        if passes(wire.to_callee, alice.tone) and passes(wire.to_caller, bob.tone):
            return
    raise AssertionError(f"{name}: {[(way.sent, way.relayed) for way in (wire.to_callee, wire.to_caller)]}")


def hold_and_resume(site: Site, phones: Sequence[Baresip | Pjsip], *, told: bool = True) -> None:
    """The first calls the second, each holds and resumes once, and both are heard again each time. ``told``: the relay
    is told that a call is on hold."""
    alice, bob = phones
    alice.dial(bob.account.uri)
    alice.wait_established()
    bob.wait_established()
    server = site.server
    assert server is not None
    for number, holder in enumerate((alice, bob)):
        time.sleep(0.5)
        holder.hold()
        if told:
            (call,) = server.wait("hold", "calls", until=lambda calls: calls[-1]["state"] == "held")[-1:]
            assert call["streams"][0]["held"]
        else:
            time.sleep(1.0)
        holder.resume()
        server.wait("resume", "calls", until=lambda calls: calls[-1]["state"] == "talking")
        assert_both_pass(site, (alice, bob), f"resumed{number}", 1.5)
    alice.hang_up()
    alice.wait_closed()
    bob.wait_closed()


def test_both_hear_each_other_again_after_either_held(symmetric: Shared) -> None:
    hold_and_resume(symmetric.site, (symmetric.alice, symmetric.bob))


def test_phones_that_tell_wrong_public_addresses_hear_each_other_again(host: Host, tmp_path: Path) -> None:
    with Site((NatKind.RESTRICTED, NatKind.SYMMETRIC), tmp_path, host=host) as site:
        site.start_server()
        alice = site.pjsip("a", public_address=NOBODY)
        bob = site.pjsip("b", public_address=site.internet.homes["a"].wan)
        register(alice, bob)
        hold_and_resume(site, (alice, bob))
