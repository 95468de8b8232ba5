"""What a latch says of a packet."""

from enum import Enum, StrEnum

import msgspec

from mediaproxy.endpoint import Endpoint


class Action(Enum):
    """What becomes of a packet."""

    FORWARD = "forward"
    REFUSE = "refuse"


class Reason(StrEnum):
    """Why a packet is refused, for counting."""

    STRANGER = "stranger"
    "Neither SDP, signalling nor policy vouch for its source."
    NO_SDP = "no_sdp"
    "No SDP of the party has come yet: its answer may be on the way."
    NOT_MEDIA = "not_media"
    "A kind or a payload type that the stream does not have."
    SECOND = "second_source"
    "It could be the party, but another source is, and still speaks."
    DISABLED = "disabled"
    "SDP has disabled the stream."
    LOOP = "loop"
    "From a port of this relay."


class Verdict(msgspec.Struct, frozen=True):
    """What a latch says of one packet."""

    action: Action
    why: str = ""
    "For a refusal, in words for an operator."
    latched: bool = False
    "The packet's source is the learned one from now on."
    before: Endpoint | None = None
    "The source it replaces."
    early: bool = False
    "Refused because no SDP of that party has been seen: its answer may be on the way, so no reason for alarm."
    reason: Reason = Reason.STRANGER
    "For a refusal."
