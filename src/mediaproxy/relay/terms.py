"""What a SIP server has told a party of the relay, by the SDP that it was shown (control.Wishes)."""

import msgspec

from mediaproxy.control import Wishes


class Terms(msgspec.Struct, frozen=True, array_like=True):
    """Of one stream, towards one party."""

    mux: bool | None = None
    "Its SDP says a=rtcp-mux (RFC 5761); None: it says what the other party's does."
    lite: bool = False
    "Its SDP shows the relay as an ICE lite agent (RFC 8445 §2.5)."

    @classmethod
    def of(cls, wishes: Wishes, index: int) -> "Terms":
        """What the receiver of an SDP is told of a stream."""
        mux = wishes.mux[index] if index < len(wishes.mux) else None
        return cls(mux, index < len(wishes.lite) and wishes.lite[index])

    def unasked(self) -> "Terms":
        """After a further SDP with which nothing was asked: a=rtcp-mux went on as it came."""
        return self if self.mux is None else Terms(None, self.lite)


NONE = Terms()
"Nothing in particular."
