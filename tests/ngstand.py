"""NG messages for tests: a dialect, what it asks, replies of the test's own making, and its answer."""

from collections.abc import Iterable, Mapping
from typing import Any

from mediaproxy.control import Inquiry, KnownBy, MediaReply, Question
from mediaproxy.dialects.dialect import Peer
from mediaproxy.dialects.ng.bencode import decode, encode
from mediaproxy.dialects.ng.dialect import Ng
from mediaproxy.dialects.ng.settings import NgSettings
from mediaproxy.endpoint import Endpoint
from mediaproxy.events import CallReport, CallState, PartyReport, SideReport, StreamReport, raw

PEER = Peer("udp", "192.0.2.1:5060", 1000.0)
UNKNOWN = MediaReply(error="unknown call", status=481)


class Stand:
    """One dialect. Mutable: what it has asked."""

    def __init__(self, dialect: Ng | None = None) -> None:
        self.dialect = dialect or Ng(NgSettings())
        self.asked: list[Question | Inquiry] = []

    def answer(self, request: bytes, *replies: MediaReply | None, peer: Peer = PEER) -> bytes:
        """The bytes of an answer; the media arm replies as told, and must be asked as often."""
        steps = self.dialect.answer(request, peer)
        left = list(replies)
        try:
            asked = next(steps)
            while True:
                self.asked.append(asked)
                asked = steps.send(left.pop(0))
        except StopIteration as stop:
            assert not left, f"not asked for: {left}"
            answer: bytes = stop.value
            return answer

    def told(self, request: Mapping[str, object], *replies: MediaReply | None, peer: Peer = PEER) -> dict[str, Any]:
        """The same for a dictionary, as text."""
        answer = self.answer(b"c " + encode(request), *replies, peer=peer)
        assert answer.startswith(b"c ")
        found = texts(decode(answer, 2))
        assert isinstance(found, dict)
        return found


def texts(value: Any) -> Any:
    """Bytes as text, all the way down."""
    match value:
        case bytes():
            return value.decode("latin-1")
        case dict():
            return {texts(key): texts(one) for key, one in value.items()}
        case list():
            return [texts(one) for one in value]
    return value


def side(port: int, sdp: str = "", **others: Any) -> SideReport:
    """One party's end of a stream."""
    local = Endpoint("192.0.2.250", port)
    return SideReport(local=local, advertised=local, sdp=Endpoint.parse(sdp) if sdp else None, **others)


def stream(caller: SideReport, callee: SideReport, index: int = 0, **others: Any) -> StreamReport:
    """Audio."""
    known: dict[str, Any] = {"kind": "audio", "transport": "RTP/AVP"} | others
    return StreamReport(index=index, caller=caller, callee=callee, **known)


def party(tag: str = "", **others: Any) -> PartyReport:
    """A party."""
    return PartyReport(tag=tag, known_by=KnownBy.EXPLICIT, **others)


def report(
    streams: Iterable[StreamReport] = (),
    *,
    caller: PartyReport | None = None,
    callee: PartyReport | None = None,
    **others: Any,
) -> CallReport:
    """A call of ``ft`` and ``tt``."""
    known: dict[str, Any] = {
        "call_id": "call",
        "state": CallState.TALKING,
        "started": 1000.25,
        "asked": 1010.5,
    } | others
    return CallReport(caller=caller or party("ft"), callee=callee or party("tt"), streams=tuple(streams), **known)


def reply(*reports: CallReport) -> MediaReply:
    """What brings them."""
    return MediaReply(reports=tuple(map(raw, reports)))
