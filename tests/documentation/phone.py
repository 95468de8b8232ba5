"""A phone that does what a case tells it: a SIP port and an RTP port to listen on, perhaps others to send from.

It reads by simple means of its own (tests/vsip.py), sends everything to the server, answers OPTIONS, and remembers the
keep-alives it got.
"""

import itertools
import struct
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

from tests.documentation.lines import Line, Place
from tests.sipua import route_set
from tests.vsip import Section, Text, parameter, read_sdp

PATIENCE = 15.0
"Seconds to wait for what must come, however busy the machine is."
ABSENCE = 1.0
"Seconds after which what has not come does not come."
ZEROS = b"\0\0\0\0"
_numbers = itertools.count(1)
_ANSWERED = ("via", "from", "call-id", "cseq", "record-route")


@dataclass(frozen=True)
class Got(Text):
    """A message as it came."""

    data: bytes = b""
    source: Place = ("", 0)

    @property
    def streams(self) -> list[Section]:
        """Of its SDP."""
        return read_sdp(self.body)


def _text(place: Place) -> str:
    return f"{place[0]}:{place[1]}"


class Phone:
    """One phone. A context manager that closes its ports."""

    def __init__(  # noqa: PLR0913 - a phone has that many parts
        self,
        server: Place,
        user: str,
        ear: Line,
        rtp: Line,
        *,
        mouth: Line | None = None,
        rtp_mouth: Line | None = None,
        says: str = "",
        media: Place | None = None,
        agent: str = "",
        domain: str = "sip.test",
    ) -> None:
        """``ear`` and ``rtp``: where it listens. ``mouth`` and ``rtp_mouth``: from where it sends, if from elsewhere.
        ``says``: host and port for Via and Contact; empty: what it sees itself. ``media``: the same for SDP."""
        self.server, self.user, self.domain, self.agent = server, user, domain, agent
        self.ear, self.mouth, self.rtp, self.rtp_mouth = ear, mouth or ear, rtp, rtp_mouth or rtp
        self.says = says or _text(ear.inside)
        self.media = media or rtp.inside
        self.contact = f"<sip:{user}@{self.says}>"
        self.pings: list[tuple[float, bytes, Place]] = []
        "Keep-alives of four bytes: when they were read, what, from where."
        self.asked: list[tuple[float, Got]] = []
        "OPTIONS, which it answers."
        self.answers_options = True
        self.sequence = 0
        self._put_back: list[Got] = []
        self._cseq = itertools.count(1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for line in {self.ear, self.mouth, self.rtp, self.rtp_mouth}:
            line.close()

    @property
    def aor(self) -> str:
        """Its address of record."""
        return f"sip:{self.user}@{self.domain}"

    # -- what comes

    def _next(self, seconds: float) -> Got:
        """The next message that is no keep-alive. TimeoutError if none comes."""
        until = time.monotonic() + seconds
        while True:
            data, source = self.ear.receive(max(until - time.monotonic(), 0.0))
            if not data.strip(b"\0\r\n"):
                self.pings.append((time.monotonic(), data, source))
                continue
            text = Text.read(data)
            got = Got(text.start, text.headers, text.body, data, source)
            if not got.start.startswith("OPTIONS "):
                return got
            self.asked.append((time.monotonic(), got))
            if self.answers_options:
                self.answer(got, 200)

    def receive(self, what: str | int, method: str = "", seconds: float = PATIENCE) -> Got:
        """The next request of method ``what``, or response with status ``what`` (to a request of ``method``). Others
        are kept for later. AssertionError if it does not come."""
        until = time.monotonic() + seconds
        waiting, self._put_back = self._put_back, []
        while True:
            try:
                got = waiting.pop(0) if waiting else self._next(max(until - time.monotonic(), 0.0))
            except TimeoutError:
                kept = [one.start for one in self._put_back]
                raise AssertionError(f"{self.user} waits for {what}, but has only {kept}") from None
            known = got.start.startswith(f"{what} ") if isinstance(what, str) else got.status == what
            if known and method in ("", got.method):
                self._put_back += waiting
                return got
            self._put_back.append(got)

    def gets(self, what: str | int, method: str = "", seconds: float = ABSENCE) -> bool:
        """Whether it comes."""
        try:
            self.receive(what, method, seconds)
        except AssertionError:
            return False
        return True

    def idle(self, seconds: float) -> None:
        """Do nothing but answer what asks whether it lives."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            try:
                self._put_back.append(self._next(left))
            except TimeoutError:
                return

    def wait_until(self, enough: Callable[[Self], bool]) -> None:
        """The same until something has come, or until it is too late to come."""
        until = time.monotonic() + PATIENCE
        while not enough(self) and time.monotonic() < until:
            self.idle(0.02)

    def catch_up(self) -> None:
        """Read all that has come."""
        try:
            while True:
                self._put_back.append(self._next(0.0))
        except TimeoutError:
            pass

    @property
    def waiting(self) -> list[Got]:
        """What has come and was not asked for."""
        return self._put_back

    # -- what it says

    def send(self, data: bytes) -> None:
        """Send bytes to the server."""
        self.mouth.send(data, self.server)

    def request(  # noqa: PLR0913 - a request has that many parts
        self,
        method: str,
        uri: str,
        *,
        to: str = "",
        tag: str = "",
        call_id: str = "",
        cseq: int = 0,
        branch: str = "",
        contact: str | None = None,
        via: str = "",
        headers: Sequence[tuple[str, str]] = (),
        body: str = "",
    ) -> Text:
        """Send a request; what was sent. ``contact``: the header's value instead of its own; empty: none. ``via``: host
        and port instead of its own."""
        number = cseq or next(self._cseq)
        shown = self.contact if contact is None else contact
        lines = [
            f"{method} {uri} SIP/2.0",
            f"Via: SIP/2.0/UDP {via or self.says};branch={branch or f'z9hG4bK-doc{next(_numbers)}'}",
            "Max-Forwards: 70",
            f"From: <{self.aor}>;tag={tag or self.user}",
            f"To: {to or f'<{uri}>'}",
            f"Call-ID: {call_id or f'{self.user}-{next(_numbers)}'}",
            f"CSeq: {number} {method}",
            *([f"Contact: {shown}"] if shown and method not in ("BYE", "CANCEL", "ACK") else []),
            *([f"User-Agent: {self.agent}"] if self.agent else []),
            *(f"{name}: {value}" for name, value in headers),
        ]
        return Text.read(self._send(lines, body))

    def _send(self, lines: list[str], body: str) -> bytes:
        if body and not any(line.startswith("Content-Type:") for line in lines):
            lines.append("Content-Type: application/sdp")
        lines.append(f"Content-Length: {len(body)}")
        data = ("\r\n".join(lines) + "\r\n\r\n" + body).encode("latin-1")
        self.send(data)
        return data

    def answer(
        self,
        request: Text,
        status: int,
        body: str = "",
        *,
        headers: Sequence[tuple[str, str]] = (),
        contact: str | None = None,
    ) -> Text:
        """Send a response."""
        lines = [f"SIP/2.0 {status} Whatever"]
        for name, value in request.headers:
            if name.lower() in _ANSWERED:
                lines.append(f"{name}: {value}")
            if name.lower() == "to":
                lines.append(f"To: {value}" + ("" if ";tag=" in value else f";tag={self.user}"))
        shown = self.contact if contact is None else contact
        lines += [f"Contact: {shown}"] if shown and status < 300 else []
        lines += [f"Server: {self.agent}"] if self.agent else []
        lines += [f"{name}: {value}" for name, value in headers]
        return Text.read(self._send(lines, body))

    def register(self, *, expires: int = 600, headers: Sequence[tuple[str, str]] = ()) -> Got:
        """REGISTER, answered 200."""
        self.ask_to_register(expires=expires, headers=headers)
        return self.receive(200, "REGISTER")

    def ask_to_register(self, *, expires: int = 600, headers: Sequence[tuple[str, str]] = ()) -> None:
        """Only the question."""
        self.request(
            "REGISTER",
            f"sip:{self.domain}",
            to=f"<{self.aor}>",
            call_id=f"register-{self.user}",
            headers=[("Expires", str(expires)), *headers],
        )

    def within(self, method: str, dialog: Text, *, cseq: int = 0, body: str = "", run: str = "") -> Text:
        """A request in the dialog that a response (caller) or a request (callee) made. ``run``: see the probes."""
        caller = dialog.status > 0
        far, near = ("To", "From") if caller else ("From", "To")
        routes = [("Route", route) for route in route_set(dialog, reverse=caller)]
        return self.request(
            method,
            dialog.contact.partition("<")[2] or dialog.contact,
            to=dialog.get(far),
            tag=parameter(dialog.get(near), "tag") or self.user,
            call_id=dialog.get("Call-ID"),
            cseq=cseq,
            headers=[*routes, *([("X-Run", run)] if run else [])],
            body=body,
        )

    def sdp(self, *streams: str) -> str:
        """Its SDP: audio, and more ``m=`` lines."""
        address, port = self.media
        lines = ["v=0", f"o=- 1 1 IN IP4 {address}", "s=-", f"c=IN IP4 {address}", "t=0 0"]
        return "\r\n".join([*lines, f"m=audio {port} RTP/AVP 0", *streams, ""])

    # -- media

    def speak(self, to: Place, payload: bytes, line: Line | None = None) -> None:
        """One RTP packet, from where it speaks."""
        self.sequence += 1
        header = struct.pack("!BBHII", 0x80, 0, self.sequence & 0xFFFF, 160 * self.sequence, id(self) & 0xFFFFFFFF)
        (line or self.rtp_mouth).send(header + payload, to)

    def hears(self, payload: bytes, count: int, line: Line | None = None) -> int:
        """How many packets with such a payload come to where it listens, up to so many."""
        heard = 0
        try:
            while heard < count:
                data, _ = (line or self.rtp).receive(ABSENCE)
                heard += data[12:].startswith(payload)
        except TimeoutError:
            pass
        return heard
