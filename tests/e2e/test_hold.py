"""Hold and resume between real phones: a re-INVITE changes nothing that the media path needs."""

import time

from lab import judge, tones
from lab.capture import Way
from tests.e2e.conftest import Shared


def heard(way: Way, tone: int) -> float:
    """Seconds of a tone on the listener's wire."""
    return judge.judge(tones.decode_ulaw(way.pcm_payload), tone).seconds


def test_both_hear_each_other_again_after_either_held(symmetric: Shared) -> None:
    site, alice, bob = symmetric.site, symmetric.alice, symmetric.bob
    alice.dial(bob.account.uri)
    alice.wait_established()
    bob.wait_established()
    server = site.server
    assert server is not None
    for number, holder in enumerate((alice, bob)):
        time.sleep(0.5)
        holder.command("hold")
        (call,) = server.wait("hold", "calls", until=lambda calls: calls[-1]["state"] == "held")[-1:]
        assert call["streams"][0]["held"]
        holder.command("resume")
        server.wait("resume", "calls", until=lambda calls: calls[-1]["state"] == "talking")
        capture = site.folder / f"resumed{number}.pcap"
        with site.capture(capture):
            time.sleep(1.5)
        wire = site.wire(capture, "a", "b")
        assert heard(wire.to_callee, alice.tone) >= 1.4
        assert heard(wire.to_caller, bob.tone) >= 1.4
    alice.hang_up()
    alice.wait_closed()
    bob.wait_closed()
