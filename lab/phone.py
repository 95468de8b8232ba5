"""What a call needs of a phone, whatever make it is, and one call between two of them."""

import time
from array import array
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from lab import judge, tones
from lab.judge import Heard


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """Where a phone registers and as whom."""

    user: str
    proxy: str
    "HOST:PORT of the outbound proxy."
    domain: str = "sip.test"
    transport: str = "udp"
    "udp, tcp or tls."
    ca_file: Path | None = None
    "Certificate authority that a TLS phone trusts."
    expires: int = 600
    "Seconds; the phone registers again shortly before."
    password: str = "x"
    stun_server: str = ""
    """HOST:PORT that the phone asks for its public address, to write that one into SDP, and into Contact and Via if it
    can (PJSIP can, baresip cannot); empty: nobody."""
    public_address: str = ""
    "What PJSIP was told its public address to be, right or wrong; empty: nothing, it tells its private one."
    ice: bool = False
    "PJSIP tries all ways by ICE (RFC 8445); what it knows are its own addresses."
    answers: str = "auto"
    """When baresip takes a call: ``auto``, at once; ``manual``, when it is told to; ``early`` is the same, but it
    tells its SDP in a 183 and hears the caller before that."""
    talks: int = 60
    "Seconds for which baresip has something to say in a call; then it hangs up."
    learns: bool = False
    "PJSIP takes the public address that answers to REGISTER show it (Via's received and rport) for its own."

    @property
    def uri(self) -> str:
        """What others dial."""
        return f"sip:{self.user}@{self.domain}"


@dataclass(frozen=True, slots=True)
class Seat:
    """Where a phone is: its address, and ports that no other phone there has."""

    address: str
    "What it believes its own to be."
    number: int = 0
    "Which of the phones of its home it is, from 0 to 100."
    bind: str = ""
    "Where it really listens; empty: at ``address``."

    @property
    def sip(self) -> int:
        """Where it listens for SIP; baresip takes the port above it as well."""
        return 5060 + 4 * self.number

    @property
    def rtp(self) -> range:
        """Its ports for RTP and RTCP."""
        return range(40000 + 200 * self.number, 40100 + 200 * self.number)

    @property
    def control(self) -> int:
        """The TCP port by which baresip is controlled."""
        return 4444 + self.number


class Phone(Protocol):
    """A phone that answers every call at once, sends its tone and records what it hears."""

    account: Account
    tone: int
    "What it sends, Hz."

    def wait_registered(self, seconds: float = 30.0) -> None:
        """Wait until the server accepted the registration."""

    def dial(self, uri: str) -> None:
        """Call somebody."""

    def wait_established(self, seconds: float = 30.0) -> float:
        """Wait until the call stands; when that was (time.monotonic)."""

    def wait_closed(self, seconds: float = 30.0) -> None:
        """Wait until the call is over."""

    def hang_up(self) -> None:
        """End the call."""

    def take_recording(self) -> Path | None:
        """What was heard in the call that just ended; None if nothing was recorded."""

    def close(self) -> None:
        """End the phone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """How a call went, as its two phones tell it."""

    seconds: float
    "From the answer until the hang-up."
    caller: Heard
    "What the caller heard (of the callee's tone)."
    callee: Heard
    "What the callee heard (of the caller's tone)."
    recordings: tuple[Path | None, Path | None]
    "Of the caller and of the callee."

    @property
    def share(self) -> float:
        """The part of the call, 0 to 1, that the worse listener heard."""
        return min(self.caller.seconds, self.callee.seconds) / self.seconds

    @property
    def strange(self) -> float:
        """Seconds in which somebody else was heard, by either."""
        return self.caller.strange + self.callee.strange


def talk(
    caller: Phone,
    callee: Phone,
    seconds: float,
    every_second: Callable[[float], None] | None = None,
    unwanted: tuple[int, ...] = (tones.ATTACKER,),
) -> Call:
    """Call, talk for ``seconds``, hang up, and judge both recordings.

    ``every_second`` is called once a second while they talk, with the seconds since the answer.
    """
    caller.dial(callee.account.uri)
    answered = caller.wait_established()
    callee.wait_established()
    for second in range(1, int(seconds) + 1):
        time.sleep(max(answered + min(second, seconds) - time.monotonic(), 0.0))
        if every_second is not None and second < seconds:
            every_second(time.monotonic() - answered)
    time.sleep(max(answered + seconds - time.monotonic(), 0.0))
    length = time.monotonic() - answered
    caller.hang_up()
    caller.wait_closed()
    callee.wait_closed()
    recordings = caller.take_recording(), callee.take_recording()
    return Call(
        seconds=length,
        caller=_judge(recordings[0], callee.tone, unwanted),
        callee=_judge(recordings[1], caller.tone, unwanted),
        recordings=recordings,
    )


def talk_at_once(pairs: Sequence[tuple[Phone, Phone]], seconds: float) -> list[Call]:
    """Several calls at the same time, of caller and callee each. All talk for at least ``seconds``, then the callees
    hang up. ``strange`` is what one of the other phones was heard, as loud as it speaks."""
    for caller, callee in pairs:
        caller.dial(callee.account.uri)
    answered = [max(caller.wait_established(), callee.wait_established()) for caller, callee in pairs]
    time.sleep(max(max(answered) + seconds - time.monotonic(), 0.0))
    ended = []
    for _, callee in pairs:
        ended.append(time.monotonic())
        callee.hang_up()
    for caller, callee in pairs:
        caller.wait_closed()
        callee.wait_closed()
    tones_ = {phone.tone for pair in pairs for phone in pair}
    calls = []
    for (caller, callee), start, end in zip(pairs, answered, ended, strict=True):
        recordings = caller.take_recording(), callee.take_recording()
        heard = [
            _judge_voices(recording, other.tone, tones_ - {other.tone})
            for recording, other in zip(recordings, (callee, caller), strict=True)
        ]
        calls.append(Call(seconds=end - start, caller=heard[0], callee=heard[1], recordings=recordings))
    return calls


def _judge_voices(recording: Path | None, tone: int, others: Iterable[int]) -> Heard:
    """With so many tones their edges would be taken for each other, so a stranger counts only if he is heard as well
    as the right one."""
    return replace(_judge(recording, tone, ()), strange=sum(_judge(recording, other, ()).seconds for other in others))


def _judge(recording: Path | None, tone: int, unwanted: tuple[int, ...]) -> Heard:
    pcm = judge.read_wav(recording) if recording is not None else array("h")
    return judge.judge(pcm, tone, unwanted)
