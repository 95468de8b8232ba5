"""A call between two phones of the test, from INVITE to BYE, with audio."""

import time
from collections.abc import Sequence

from tests.documentation.lines import Line, Place
from tests.documentation.phone import ABSENCE, Got, Phone
from tests.vsip import Text, parameter

PACKETS = 10
"That each side sends when they talk."


class Call:
    """An answered call."""

    def __init__(
        self,
        caller: Phone,
        callee: Phone,
        *,
        offer: str = "",
        answer: str = "",
        headers: Sequence[tuple[str, str]] = (),
        answer_headers: Sequence[tuple[str, str]] = (),
    ) -> None:
        """``offer``, ``answer``: SDP instead of the phones' own; ``headers``: more of them, of INVITE and 200."""
        self.caller, self.callee = caller, callee
        self.sent = caller.request("INVITE", callee.aor, body=offer or caller.sdp(), headers=headers)
        self.invite: Got = callee.receive("INVITE")
        self.said = callee.answer(self.invite, 200, answer or callee.sdp(), headers=answer_headers)
        self.ok: Got = caller.receive(200, "INVITE")
        self.ack()

    def ack(self) -> Got:
        """The caller's ACK, as it arrives."""
        self.caller.within("ACK", self.ok, cseq=int(self.sent.get("CSeq").split()[0]))
        return self.callee.receive("ACK")

    @property
    def call_id(self) -> str:
        """The Call-ID."""
        return self.sent.get("Call-ID")

    def relay(self, message: Got, stream: int = 0) -> Place:
        """Where an SDP wants the media of a stream."""
        endpoint = message.streams[stream].endpoint
        return endpoint.address, endpoint.port

    def talk(self) -> tuple[int, int]:
        """Both send ten packets, after one that opens the way. How many the callee hears, how many the caller."""
        return talk((self.caller, self.relay(self.ok)), (self.callee, self.relay(self.invite)))

    def hang_up(self, by: Phone | None = None, run: str = "") -> None:
        """BYE, and its answer. ``by``: None: the caller."""
        phone, other = (self.callee, self.caller) if by is self.callee else (self.caller, self.callee)
        phone.within("BYE", self.invite if phone is self.callee else self.ok, run=run)
        other.answer(other.receive("BYE"), 200)
        phone.receive(200, "BYE")


def talk(
    one: tuple[Phone, Place], other: tuple[Phone, Place], lines: tuple[Line, Line] | None = None
) -> tuple[int, int]:
    """Two phones talk, each to its own place of the relay, over other lines than their usual ones if wanted: how many
    of ten packets the other one hears, how many the one."""
    (alice, her_place), (bob, his_place) = one, other
    her_mouth, his_mouth = lines or (alice.rtp_mouth, bob.rtp_mouth)
    her_ear, his_ear = lines or (alice.rtp, bob.rtp)
    heard = [0, 0]
    for number in range(20):  # the first of each finds out where the other one is
        alice.speak(her_place, b"hello", her_mouth)
        bob.speak(his_place, b"hello", his_mouth)
        time.sleep(0.05)
        heard = [before + ear.drain() for before, ear in zip(heard, (her_ear, his_ear), strict=True)]
        if number and all(heard):
            break
    for number in range(PACKETS):
        alice.speak(her_place, b"from alice %d" % number, her_mouth)
        bob.speak(his_place, b"from bob %d" % number, his_mouth)
    return bob.hears(b"from alice", PACKETS, his_ear), alice.hears(b"from bob", PACKETS, her_ear)


def reaches(caller: Phone, callee: Phone, seconds: float = ABSENCE) -> bool:
    """Whether a call rings the callee; nobody waits for it any more then."""
    sent = caller.request("INVITE", callee.aor, body=caller.sdp())
    try:
        got = callee.receive("INVITE", seconds=seconds)
    except AssertionError:
        cancel(caller, sent)
        return False
    callee.answer(got, 486)
    caller.receive(486)
    return True


def cancel(caller: Phone, sent: Text, run: str = "") -> None:
    """The caller gives up."""
    caller.request(
        "CANCEL",
        sent.start.split()[1],
        call_id=sent.get("Call-ID"),
        cseq=int(sent.get("CSeq").split()[0]),
        branch=parameter(sent.get("Via"), "branch"),
        headers=[("X-Run", run)] if run else [],
    )
