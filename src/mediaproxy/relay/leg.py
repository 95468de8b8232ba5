"""The parties of a call: the caller, and one leg per callee that has answered so far.

A leg is a party's tag plus its Via branch while it has no final answer (calls.md, Names). Facts from questions come in;
nothing here decides.
"""

import msgspec

from mediaproxy.control import KnownBy, MediaRequest, PhoneAddress
from mediaproxy.control import Party as Named
from mediaproxy.control import Stream as Sdp
from mediaproxy.relay.expectation import Voucher
from mediaproxy.relay.gate import Gate
from mediaproxy.relay.latch import Latch
from mediaproxy.relay.settings import RelaySettings
from mediaproxy.relay.stream import Stream


class Party(msgspec.Struct, eq=False):
    """Mutable: what the SIP side has told of one party."""

    tag: str = ""
    uri: str = ""
    user_agent: str = ""
    facing: str = ""
    "Name of the relay's address that its media comes to; empty: the first one."
    gate: Gate = msgspec.field(default_factory=Gate)
    label: str = ""
    "The SIP server's own name of it."
    phone: PhoneAddress = PhoneAddress(known_by=KnownBy.UNKNOWN)
    voucher: Voucher = Voucher()

    def tell(self, question: MediaRequest) -> None:
        """The party sent an SDP. What the message does not say stays as it was."""
        self.uri = question.sender.uri or self.uri
        if question.wishes is not None:
            self.label = question.wishes.label or self.label
            self.facing = question.wishes.facing or self.facing
        names_agent = bool(question.user_agent) or question.asymmetric
        self.user_agent = question.user_agent or self.user_agent
        asymmetric = question.asymmetric if names_agent else self.voucher.asymmetric
        self.voucher = self.voucher.updated(question.phone, question.contact, asymmetric, question.wishes, question.ice)
        if question.phone.known_by is not KnownBy.UNKNOWN or self.phone.known_by is KnownBy.UNKNOWN:
            self.phone = question.phone


class Leg:
    """Mutable: one callee of a call."""

    __slots__ = ("_latches", "_settings", "answered", "branch", "ended", "failed", "order", "party", "sdp", "streams")

    def __init__(self, named: Named, branch: str, settings: RelaySettings) -> None:
        self._settings = settings
        self._latches: dict[int, tuple[Latch, Latch]] = {}
        self.party = Party(named.tag, named.uri)
        self.branch = branch
        "Via branch of the client transaction that its answers came by."
        self.sdp: tuple[Sdp, ...] = ()
        "Its last SDP."
        self.order = 0
        "Counts 18x with SDP: the leg with the highest is heard (calls.md 9)."
        self.answered = False
        "A 2xx or ACK was seen."
        self.ended = False
        "BYE, or its branch failed."
        self.failed = False
        "Its branch did: should a 2xx come all the same, it is in again."
        self.streams: list[Stream | None] | None = None
        "Streams of its own, if it is not the first that answered; None: those of the call."

    @property
    def tag(self) -> str:
        """To tag."""
        return self.party.tag

    def latches(self, index: int) -> tuple[Latch, Latch]:
        """The leg's own expectation of one stream: RTP and RTCP."""
        if index not in self._latches:
            rtp = Latch(self._settings)
            self._latches[index] = (rtp, Latch(self._settings, rtp))
        return self._latches[index]
