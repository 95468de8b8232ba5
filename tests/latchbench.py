"""A bench for one latch: steps in time are what SIP says (``Say``) and packets with their fate (``latches``,
``passes``, ``refused``). Sources are named for their rank.
"""

import random
from dataclasses import dataclass

from mediaproxy.control import Stream
from mediaproxy.relay.expectation import Ground, Voucher
from mediaproxy.relay.latch import Action, Latch
from mediaproxy.relay.ports import PortPool
from tests.relaybench import at, rtp, settings, stream

SDP, PRIVATE = "198.51.100.7:4000", "10.0.0.1:4000"
RANK1, RANK2 = "198.51.100.7:4000", "198.51.100.7:9"
RANK3, RANK3B = "203.0.113.1:31", "203.0.113.1:32"
STRANGER, STRANGER2 = "198.18.0.9:1", "198.18.0.8:1"
NEW_SIGNALLING, FROM_THERE = "203.0.113.99", "203.0.113.99:31"
MOVED, ELSEWHERE = "198.51.100.7:5000", "198.51.100.200:6000"
HELD = stream("0.0.0.0:4000")
OTHER_SSRC = rtp(1, ssrc=8)


@dataclass(frozen=True)
class Say:
    """What SDP and signalling say from a time on."""

    time: float
    sdp: Stream | str = SDP
    signalling: str | None = "203.0.113.1"
    contact: str = "sip:alice@10.0.0.1"
    asymmetric: bool = False
    changes: bool = True

    @property
    def stream(self) -> Stream:
        return stream(self.sdp) if isinstance(self.sdp, str) else self.sdp


@dataclass(frozen=True)
class Heard:
    """A packet and its fate."""

    time: float
    source: str
    data: bytes
    fate: str


Step = Say | Heard
UNKNOWN = Say(0, PRIVATE, None)
"The phone's address is unknown (calls.md 1)."


def latches(time: float, source: str, data: bytes = rtp()) -> Heard:
    """A packet that makes its source the learned one."""
    return Heard(time, source, data, "latches")


def passes(time: float, source: str, data: bytes = rtp()) -> Heard:
    """A packet that is forwarded."""
    return Heard(time, source, data, "passes")


def refused(time: float, source: str, data: bytes = rtp()) -> Heard:
    """A packet that is not."""
    return Heard(time, source, data, "refused")


def flood(count: int, time: float, source: str, *, start: int = 100) -> list[Step]:
    """RTP in sequence with SSRC 9, 20 ms apart, all of it refused."""
    return [refused(time + i * 0.02, source, rtp(start + i, ssrc=9)) for i in range(count)]


def let_in(time: float, source: str) -> list[Step]:
    """Five packets in sequence, of which the fifth latches."""
    return [*flood(4, time, source), latches(time + 0.1, source, rtp(104, ssrc=9))]


class Bench:
    """A latch, and the ground that it stands on."""

    def __init__(self, **changed: object) -> None:
        """``changed``: settings."""
        chosen = settings(**changed)
        self.ground = Ground(chosen, PortPool(chosen, random.Random(1)))
        self.latch = Latch(chosen)

    def say(self, step: Say, latch: Latch | None = None, *, rtcp: bool = False) -> bool:
        """Tell the latch, or that of the RTCP port."""
        voucher = Voucher(signalling=step.signalling, contact=step.contact, asymmetric=step.asymmetric)
        expectation = self.ground.expect(voucher, step.stream, None, rtcp=rtcp)
        return (latch or self.latch).expect(expectation, step.time)

    def play(self, *steps: Step) -> Latch:
        """Do the steps, and check the fate of every packet."""
        for step in steps:
            if isinstance(step, Say):
                assert self.say(step) is step.changes
                continue
            verdict = self.latch.judge(at(step.source), step.data, step.time)
            fate = "latches" if verdict.latched else "passes" if verdict.action is Action.FORWARD else "refused"
            assert fate == step.fate, f"{step}: {verdict}"
            assert fate != "latches" or self.latch.learned == at(step.source)
        return self.latch
