"""One dialog at a toy phone: what it has said, what it is told, and what a person can do with it."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.vmedia import Voice
from tests.vnet import Timer
from tests.vsip import Offer, Text, read_sdp, write_sdp

if TYPE_CHECKING:
    from tests.vphone import Phone


@dataclass(kw_only=True)
class Call:
    """Mutable: tags, SDP and voices."""

    phone: "Phone"
    call_id: str
    tag: str
    user: str
    "The other user."
    caller: bool
    voices: list[Voice]
    remote_tag: str = ""
    target: str = ""
    "Request-URI for the other side: its Contact."
    cseq: int = 1
    state: str = "calling"
    "calling, ringing, up, over"
    status: int = 0
    "Of the last response to INVITE."
    offer: Offer = field(default_factory=Offer)
    late_offer: bool = False
    cancelled: bool = False
    invite: Text | None = None
    "The INVITE being answered, or sent."
    pracked: set[str] = field(default_factory=set)
    "To tags whose provisional response with SDP was acknowledged."
    answer: Timer | None = None
    "Retransmission of our 2xx."

    @property
    def voice(self) -> Voice:
        """Its audio."""
        return self.voices[0]

    def sdp(self) -> str:
        """Its SDP as it is now."""
        return write_sdp(self.phone.name, self.phone.host.address(self.phone.version), self.offer, self.voices)

    def aim(self, body: str) -> None:
        """Media as the other side's SDP wants it."""
        for voice, section in zip(self.voices, read_sdp(body), strict=False):
            dead = section.endpoint.port == 0 or voice.kind in self.offer.dropped
            mute = section.endpoint.address in ("0.0.0.0", "::")
            speak = section.direction in ("sendrecv", "recvonly") and self.offer.direction in ("sendrecv", "sendonly")
            there = None if dead or mute else section.endpoint
            voice.aim(there, section.rtcp if there else None, speak)

    def hang_up(self) -> None:
        """BYE, and silence."""
        self.over()
        self.phone.request(self, "BYE")

    def cancel(self) -> None:
        """CANCEL of the INVITE that is not answered yet."""
        self.cancelled = True
        self.phone.cancel(self)

    def refresh(self) -> None:
        """UPDATE without SDP: a session timer's (RFC 4028)."""
        self.phone.request(self, "UPDATE")

    def ask_for_an_offer(self) -> None:
        """A re-INVITE without SDP."""
        self.late_offer = True
        self.phone.offer(self, "INVITE")

    def reinvite(self, direction: str | None = None, *, zero: bool = False, method: str = "INVITE") -> None:
        """A new offer. Without a change of anything it is a session timer's."""
        new = direction or self.offer.direction
        if (new, zero) != (self.offer.direction, self.offer.zero):
            self.change()
        self.offer.direction, self.offer.zero = new, zero
        self.phone.offer(self, method)

    def change(self) -> None:
        """The next SDP is a new version."""
        self.offer.version += 1

    def add(self, kind: str) -> Voice:
        """Another m-line from the next offer on."""
        voice = self.phone.voice(kind)
        self.voices.append(voice)
        self.change()
        return voice

    def drop(self, kind: str) -> None:
        """That m-line has port 0 from the next offer on."""
        self.offer.dropped.add(kind)
        self.change()

    def over(self) -> None:
        """The end, as this phone sees it."""
        self.state = "over"
        if self.answer:
            self.answer.cancel()
        for voice in self.voices:
            voice.close()
