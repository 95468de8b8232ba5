"""rtpengine's NG protocol as a dialect: a message in, questions for the media arm, a message out.

What is no message but has a cookie gets rtpengine's own error; what has no cookie is dropped without an answer. Whether
new calls are taken is decided here, before an offer is looked at.
"""

from collections.abc import Callable, Mapping
from functools import lru_cache

from mediaproxy.control import QueryRequest
from mediaproxy.dialects.dialect import DialectError, ErrorAnswer, Peer, Steps
from mediaproxy.dialects.ng import negotiation
from mediaproxy.dialects.ng.bencode import Answer, NgError
from mediaproxy.dialects.ng.commands import UNKNOWN_CALL, Doing, do
from mediaproxy.dialects.ng.flags import Command
from mediaproxy.dialects.ng.framing import NgFramer, begins_with_dictionary
from mediaproxy.dialects.ng.limits import SESSIONS, Busy, Idle, exceeded
from mediaproxy.dialects.ng.message import Coding, split
from mediaproxy.dialects.ng.patterns import Patterns
from mediaproxy.dialects.ng.phrases import Phrases
from mediaproxy.dialects.ng.settings import NgSettings
from mediaproxy.dialects.ng.tally import Tally

LONGEST_DATAGRAM = 65_507
"Bytes (RFC 768 in IPv4)."
_JSON = b"{"


class Ng:
    """The dialect. It remembers no call, but how requests and SDPs look, and counts what it was asked."""

    name = "ng"

    def __init__(
        self,
        settings: NgSettings,
        *,
        busy: Busy | None = None,
        tally: Tally | None = None,
        clock: Callable[[], float] | None = None,
        remark: Callable[[str], None] = lambda text: None,
        plain: bool = False,
    ) -> None:
        """``busy``: how busy the relays are; None: there are no limits. ``clock``: for how long answers take.
        ``remark``: takes what the log should say of a request that is answered nevertheless. ``plain``: requests have
        no cookie."""
        self._settings = settings
        self._busy = busy or Idle()
        self._tally = tally or Tally()
        self._clock = clock
        self._remark = remark
        self._plain = plain
        self._phrases = Phrases()
        self._patterns = Patterns()

    def framer(self, transport: str) -> NgFramer:
        """Over a UNIX socket modules leave the cookie out."""
        return NgFramer(plain=self._plain or transport == "unix")

    def cookie(self, request: bytes) -> bytes | None:
        """All before the first space."""
        at = 0 if self._plain else request.find(b" ")
        return request[:at] if at > 0 else None

    def answer(self, request: bytes, peer: Peer) -> Steps:
        """Answer one message."""
        coding, at = self._coding(request, peer)
        name = ""
        try:
            command = self._phrases.read(request, at)
            name = command.name
            if not name:
                raise NgError('Dictionary contains no key "command"')
            for word in command.unknown:
                self._remark(f"{name}: unknown word {word!r} is ignored")
            told = yield from self._do(command, peer)
        except NgError as error:
            told = {"result": "error", "error-reason": str(error)}
        failed = told.get("result") == "error"
        self._count(name, peer, error=failed)
        return self._written(name, told, coding, peer, failed=failed)

    def _coding(self, request: bytes, peer: Peer) -> tuple[Coding, int]:
        """How to answer, and where the dictionary begins. DialectError if that cannot be known."""
        if self._plain or (peer.transport == "unix" and begins_with_dictionary(request)):
            return Coding(None, json=request[:1] == _JSON), 0
        parts = split(request)
        if parts is None:
            raise DialectError(f"no NG message: expected a cookie and a space, got {request[:40]!r}")
        cookie, at = parts
        return Coding(cookie, json=request[at : at + 1] == _JSON), at

    def _do(self, command: Command, peer: Peer) -> Doing:
        if command.name == "offer":
            turned_away = yield from self._limited(command)
            if turned_away:
                return turned_away
        if command.name in ("offer", "answer"):
            return (yield from negotiation.negotiate(command, peer, self._settings, self._patterns))
        return (yield from do(command, self._tally, peer.now))

    def _limited(self, command: Command) -> Doing:
        """The answer to an offer that a limit keeps out; empty: it may be looked at. Calls that there are go on."""
        why = exceeded(self._settings, self._busy)
        if not why or not (command.sdp and command.call_id and command.from_tag):
            return {}
        reply = yield QueryRequest(call_id=command.call_id)
        if reply is not None and reply.status != UNKNOWN_CALL:
            return {}
        self._tally.rejected += 1
        if "load-limit" in command.supports:
            return {"result": "load limit", "message": why}
        raise NgError(SESSIONS)  # all that older modules know

    def _count(self, name: str, peer: Peer, *, error: bool) -> None:
        seconds = 0.0 if self._clock is None else max(0.0, self._clock() - peer.now)
        self._tally.note(name, _host(peer.address) or peer.transport, seconds, peer.now, error=error)

    def _written(self, name: str, told: Mapping[str, object], coding: Coding, peer: Peer, *, failed: bool) -> bytes:
        answer = coding.encode(told)
        if peer.transport == "udp" and len(answer) > LONGEST_DATAGRAM:
            if name == "delete":  # that is done
                return coding.encode({"result": "ok", "warning": "The statistics are too long for a datagram"})
            why: Answer = {"result": "error", "error-reason": "The answer is too long for a datagram: ask over TCP"}
            return ErrorAnswer(coding.encode(why))
        return ErrorAnswer(answer) if failed else answer


@lru_cache(maxsize=1024)
def _host(address: str) -> str:
    """Without port and brackets."""
    return address.rpartition(":")[0].strip("[]")
