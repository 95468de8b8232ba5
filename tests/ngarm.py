"""A media arm for the tests of NG's offer and answer: it gives ports in order and remembers memos, as a relay does."""

from collections.abc import Generator, Mapping
from typing import Any

import msgspec

from mediaproxy.control import Inquiry, MediaPort, MediaReply, MediaRequest, Question
from mediaproxy.dialects.dialect import Peer
from mediaproxy.dialects.ng.flags import Command
from mediaproxy.dialects.ng.negotiation import negotiate
from mediaproxy.dialects.ng.patterns import Patterns
from mediaproxy.dialects.ng.settings import NgSettings
from mediaproxy.endpoint import Endpoint

ADDRESSES = {"": "127.0.0.1", "int": "127.0.0.1", "ext": "203.0.113.9", "six": "::1"}
PEER = Peer("udp", "127.0.0.1:5060", 1_000.0)
UNKNOWN = MediaReply(error="unknown call", status=481)


class Arm:
    """Mutable: the calls of one relay, as far as SDP shows them."""

    def __init__(self, addresses: Mapping[str, str] = ADDRESSES) -> None:
        self.asked: list[Question | Inquiry] = []
        self.error: MediaReply | None = None
        "What is answered to everything."
        self._addresses = addresses
        self._ports: dict[tuple[str, str, int], int] = {}
        self._interfaces: dict[tuple[str, str], str] = {}
        self._memos: dict[tuple[str, str], str] = {}
        self._offered: dict[tuple[str, str], set[int]] = {}

    def reply(self, question: Question | Inquiry) -> MediaReply | None:
        """What a relay says."""
        self.asked.append(question)
        if self.error is not None:
            return self.error
        assert isinstance(question, MediaRequest)
        # What crosses the link must survive it.
        question = msgspec.json.decode(msgspec.json.encode(question), type=MediaRequest)
        call, sender, receiver = question.call_id, question.sender.tag, question.receiver.tag
        if question.status and not any(known == call for known, _ in self._memos):
            return UNKNOWN
        wishes = question.wishes
        if wishes is not None and (wishes.facing or wishes.towards):
            self._interfaces[call, sender] = wishes.towards
            self._interfaces[call, ""] = wishes.facing
        before = self._memos.get((call, sender), "")
        if question.memo:
            self._memos[call, sender] = question.memo
        if not question.status:
            self._offered[call, sender] = {n for n, one in enumerate(question.streams) if one.endpoint is not None}
        ports = tuple(self._port(question, index) for index in range(len(question.streams)))
        known = any(one == call for one, _, _ in self._ports)
        address = self._address(question) if known and not any(ports) else ""
        return MediaReply(ports=ports, before=before, memo=self._memos.get((call, receiver), ""), address=address)

    def _address(self, question: MediaRequest) -> str:
        """Where the receiver's media comes to."""
        name = self._interfaces.get((question.call_id, question.sender.tag if not question.status else ""), "")
        return self._addresses.get(name, self._addresses[""])

    def _port(self, question: MediaRequest, index: int) -> MediaPort | None:
        stream = question.streams[index]
        if stream.endpoint is None:
            return None
        call, sender = question.call_id, question.sender.tag
        if question.status and index not in self._offered.get((call, question.receiver.tag), {index}):
            return None
        port = self._ports.setdefault((call, sender, index), 30000 + 2 * len(self._ports))
        address = self._address(question)
        lite = question.wishes is not None and index < len(question.wishes.lite) and question.wishes.lite[index]
        return MediaPort(
            rtp=Endpoint(address, port),
            rtcp=Endpoint(address, port + 1) if stream.rtp else None,
            ufrag="ufrag" if lite else "",
            password="password-of-the-relay" if lite else "",
        )

    def run(
        self, request: Mapping[Any, Any], settings: NgSettings | None = None, patterns: Patterns | None = None
    ) -> dict[str, Any]:
        """Answer an offer or answer of a decoded dictionary. ``patterns``: those that are known; None: none."""
        command = Command.of(request)
        settings = settings or NgSettings(mark="0123456789ab", interfaces=frozenset(self._addresses))
        return self.finish(negotiate(command, PEER, settings, patterns or Patterns()))

    def finish(self, steps: Generator[Question | Inquiry, MediaReply | None, dict[str, Any]]) -> dict[str, Any]:
        """Ask what a generator wants to know until it is done."""
        reply: MediaReply | None = None
        try:
            question = next(steps)
            while True:
                reply = self.reply(question)
                question = steps.send(reply)
        except StopIteration as done:
            told: dict[str, Any] = done.value
            return told
