"""What an answer, or a later offer, must know of what was said before: it travels in ``MediaRequest.memo`` and comes
back in ``MediaReply.memo`` and ``before``, so that this dialect remembers nothing itself.

A value comes in, a text goes out, and back. A text that is no memo is an empty one.
"""

from functools import lru_cache

import msgspec


class StreamMemo(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """What one party said of one stream, and how it wants to be answered."""

    mux: str = ""
    """Whether an answer may say a=rtcp-mux: empty, it was not offered; ``y`` it says so, ``n`` it does not, ``b`` it
    says what the other party says. ``s``: this was an answer that said so itself."""
    ice: bool = False
    "It has ICE, and takes ours."
    trickle: bool = False
    "It has trickle ICE (RFC 8840)."
    transport: str = ""
    "As it wrote it."
    joined: bool = False
    "Its ICE was passed on with the relay as one more candidate, and so will be the answer's."


class Told(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """What the other party was told in the name of this one, if a later SDP must agree with it."""

    origin: str = ""
    "The first o= line without ``o=``."
    session: str = ""
    "The first s= line without ``s=``."
    version: int = -1
    "In the last o= line; -1: not counted."
    digest: str = ""
    "Of the last SDP without its version."


class Memo(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """All of it."""

    streams: tuple[StreamMemo, ...] = ()
    told: Told = Told()

    def stream(self, index: int) -> StreamMemo | None:
        """About one stream; None: nothing is known."""
        return self.streams[index] if index < len(self.streams) else None

    def text(self) -> str:
        """For ``MediaRequest.memo``."""
        return _encoder.encode(self).decode()

    @classmethod
    def read(cls, text: str) -> "Memo":
        """Of a text from a reply."""
        if not text:
            return NOTHING
        return _kept(text) if len(text) <= _KEPT_LENGTH else _read(text)


def _read(text: str) -> Memo:
    try:
        return _decoder.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return NOTHING


_KEPT_LENGTH = 200
_kept = lru_cache(maxsize=512)(_read)


NOTHING = Memo()
"Nothing is known."
_encoder = msgspec.json.Encoder()
_decoder: msgspec.json.Decoder[Memo] = msgspec.json.Decoder(Memo)
