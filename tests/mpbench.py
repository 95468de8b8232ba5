"""A dialect of MediaProxy in front of a real ``Calls`` with a toy plane and a clock that tests move by hand."""

import re
from collections.abc import Iterator
from pathlib import Path

from mediaproxy.control import Inquiry, MediaReply, MediaRequest, Question
from mediaproxy.dialects.dialect import Dialect, Peer
from mediaproxy.events import CallReport
from mediaproxy.relay.inquiries import inquire
from tests.relaybench import Bench

CAPTURES = Path(__file__).parent / "captures"


def update(
    kind: str = "request", media: str = "audio:10.0.0.1:4000:sendrecv:ice=no", **headers: str | int | None
) -> bytes:
    """An ``update`` as the module writes it; a header that is None is left out."""
    values: dict[str, str | int | None] = {
        "type": kind,
        "dialog_id": "",
        "call_id": "call-1",
        "cseq": 1,
        "from_uri": "alice@example.com",
        "to_uri": "bob@example.net",
        "from_tag": "alice",
        "to_tag": "bob" if kind == "reply" else "",
        "user_agent": "Phone 1",
        "signaling_ip": "203.0.113.1" if kind == "request" else "198.51.100.2",
        "media_relay": "",
        "media": media or None,
        **headers,
    }
    return block("update", values)


def remove(**headers: str) -> bytes:
    """A ``remove``."""
    return block("remove", {"call_id": "call-1", "from_tag": "alice", "to_tag": "bob", **headers})


def block(command: str, headers: dict[str, str | int | None] | dict[str, str]) -> bytes:
    lines = [command, *(f"{name}: {value}" for name, value in headers.items() if value is not None), ""]
    return "\r\n".join(lines).encode("latin-1")


def line(
    word: str = "request",
    media: str = "10.0.0.1:4000:audio",
    info: str = "from:alice@example.com,to:bob@example.net,fromtag:alice,totag:",
    **fields: str,
) -> bytes:
    """A ``request`` or ``lookup`` as the module writes it."""
    values = {
        "call_id": "call-1",
        "media": media,
        "client_ip": "203.0.113.1" if word == "request" else "198.51.100.2",
        "from_domain": "example.com",
        "from_type": "local",
        "to_domain": "example.net",
        "to_type": "remote" if word == "request" else "unknown",
        "agent": "Phone=201",
        **fields,
    }
    return " ".join([word, *values.values(), f"info={info}"]).encode("latin-1")


class Desk:
    """Says requests, one after the other."""

    def __init__(self, dialect: Dialect, **changed: object) -> None:
        """``changed``: settings of the relay."""
        self.bench = Bench(**changed)
        self.dialect = dialect
        self.questions: list[Question | Inquiry] = []
        "What was asked, in order."
        self.replies: list[MediaReply] = []

    def say(self, request: bytes) -> bytes:
        """The answer to one request. Each takes a hundredth of a second."""
        self.bench.now += 0.01
        steps = self.dialect.answer(request, Peer("unix", "", self.bench.now))
        reply: MediaReply | None = None
        try:
            while True:
                wanted = steps.send(reply)
                self.questions.append(wanted)
                reply = self._answer(wanted)
                self.replies.append(reply)
        except StopIteration as stop:
            answer = stop.value
            assert isinstance(answer, bytes)
            return answer

    def _answer(self, wanted: Question | Inquiry) -> MediaReply:
        if isinstance(wanted, Inquiry):
            reply, effects = inquire(self.bench.calls, wanted, self.bench.now)
            self.bench.do(effects)
            return reply
        return self.bench.ask(wanted)

    def ports(self, request: bytes) -> list[int]:
        """The ports of an answer that must have some."""
        address, *ports = self.say(request).decode().split()
        assert address == self.bench.settings.addresses[0].bind
        return [int(port) for port in ports]

    @property
    def media(self) -> MediaRequest:
        """The last question for media."""
        return next(one for one in reversed(self.questions) if isinstance(one, MediaRequest))

    @property
    def call(self) -> CallReport:
        """The only call that there is."""
        (report,) = self.bench.calls.reports(self.bench.now)
        return report

    @property
    def ended(self) -> list[CallReport]:
        """The calls that are over."""
        return self.bench.ended


def captured(name: str) -> Iterator[tuple[bytes, bytes]]:
    """The exchanges of a capture: what the real module wrote, and what it was answered then."""
    asked: dict[bytes, bytes] = {}
    for part in re.split(rb"(?m)^### ", (CAPTURES / name).read_bytes())[1:]:
        head, _, body = part.partition(b"\n")
        word, _, connection = head.partition(b" ")
        if word == b"request":
            asked[connection] = body
        elif word == b"answer":
            yield asked.pop(connection), body
    assert not asked, "a request without an answer"


def mended(streams: int, answer: bytes) -> bool:
    """Whether the module can write this answer into an SDP with so many streams, and is not misled by it (the module's
    digest: white space between words, an address, a port per stream)."""
    words = answer.decode("latin-1").split()
    return (
        answer.endswith(b"\n")
        and len(words) == streams + 1
        and words[0] not in ("error", "None", "0.0.0.0")
        and all(word.isdecimal() and int(word) < 65536 for word in words[1:])
    )
