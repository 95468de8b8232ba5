"""rtcp-mux (RFC 5761) as rtpengine's NG protocol treats it: what each SDP says, given what was said before.

Words and what the two parties said come in, a decision per stream goes out. Where rtpengine 10.5 decides otherwise than
its documentation, 10.5 counts (tests/data/ng).
"""

from mediaproxy.dialects.ng.memo import StreamMemo


def offered(words: frozenset[str], said: bool, receiver: StreamMemo | None) -> bool:
    """Whether an offer that goes on says a=rtcp-mux. ``said``: it does as it came. ``receiver``: what is known of who
    will read it; who has accepted it once is offered it again."""
    if receiver is not None and receiver.mux == "s":
        return True
    if words & {"offer", "require"}:
        return True
    return said and "demux" not in words


def combined(words: frozenset[str], receiver: StreamMemo | None) -> bool:
    """Whether an offer that says a=rtcp-mux names the RTP port for RTCP, too."""
    return "require" in words or (receiver is not None and receiver.mux == "s")


def standing(receiver: StreamMemo, sender: StreamMemo | None) -> bool:
    """Whether the receiver of an offer has RTP and RTCP at one port by what was agreed before. ``sender``: what was
    known of who offers now. A receiver whose own SDP was the answer says so itself (``s``)."""
    if receiver.mux == "b":
        return sender is not None and sender.mux == "s"
    return receiver.mux in ("s", "y")


def how_to_answer(words: frozenset[str], said: bool) -> str:
    """``StreamMemo.mux`` of who offers: how it wants to be answered."""
    if not said:
        return ""
    if "reject" in words:
        return "n"
    if "accept" in words or ("demux" in words and not words & {"offer", "require"}):
        return "y"
    return "b"


def answered(said: bool, receiver: StreamMemo | None) -> bool:
    """Whether an answer that goes on says a=rtcp-mux. ``said``: it does as it came."""
    if receiver is None:
        return said
    return {"": False, "n": False, "y": True}.get(receiver.mux, said)
