"""An asymmetric phone: it sends RTP from one port and listens on another, and if wanted SIP as well.

Some old phones and gateways are like that. What comes to the ports that it sends from is lost, so it hears only what is
sent to where its SDP and its Via say. It speaks enough SIP for a laboratory without losses: registers, calls, answers
every call at once, hangs up. It runs in a thread of this process, on sockets in the phone's namespace.
"""

import secrets
import selectors
import socket
import struct
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from lab import tones
from lab.netns import LabError, Namespace, wait_until
from lab.phone import Account, Seat

_PACKET = 0.020
"Seconds of audio in one RTP packet."
_SAMPLES = round(_PACKET * tones.RATE)

_SDP = """v=0\r
o=- 1 1 IN IP4 {address}\r
s=-\r
c=IN IP4 {address}\r
t=0 0\r
m=audio {port} RTP/AVP 0\r
a=rtpmap:0 PCMU/8000\r
"""


@dataclass(frozen=True, slots=True)
class _Text:
    """A SIP message, read as far as this phone understands it."""

    start: str
    headers: tuple[tuple[str, str], ...]
    body: str

    @classmethod
    def parse(cls, data: bytes) -> "_Text":
        head, _, body = data.decode("latin-1").partition("\r\n\r\n")
        start, *lines = head.split("\r\n")
        pairs = (line.partition(":") for line in lines)
        return cls(start, tuple((name.strip().lower(), value.strip()) for name, _, value in pairs), body)

    def all(self, name: str) -> list[str]:
        """The values of a header, one a line."""
        return [value for known, value in self.headers if known == name.lower()]

    def one(self, name: str) -> str:
        """The first of them."""
        return next(iter(self.all(name)), "")

    @property
    def status(self) -> int:
        """0 of a request."""
        return int(self.start.split()[1]) if self.start.startswith("SIP/2.0 ") else 0

    @property
    def method(self) -> str:
        """Of a response that of its request."""
        return self.one("CSeq").split()[-1]

    @property
    def contact(self) -> str:
        """The Contact URI."""
        return self.one("Contact").partition("<")[2].partition(">")[0]

    @property
    def media(self) -> tuple[str, int]:
        """Where its SDP wants audio."""
        lines = self.body.split("\r\n")
        address = next(line for line in lines if line.startswith("c=")).split()[-1]
        return address, int(next(line for line in lines if line.startswith("m=")).split()[1])


@dataclass(slots=True)
class _Dialog:
    """The one call."""

    call_id: str
    own: str
    "From or To with this phone's tag."
    peer: str
    "From or To of the other one."
    target: str
    "The other one's Contact URI."
    routes: list[str]
    cseq: int = 1


class SplitPhone:
    """A running asymmetric phone."""

    def __init__(  # noqa: PLR0913 - what every phone of the laboratory needs, and what makes this one special
        self,
        namespace: Namespace,
        seat: Seat,
        account: Account,
        tone: int,
        folder: Path,
        *,
        agent: str,
        split_sip: bool,
    ) -> None:
        """``agent``: what it calls itself. ``split_sip``: SIP, too, leaves from another port than it listens on."""
        self.account = account
        self.tone = tone
        self.rtcp_heard = 0
        "RTCP packets that came to where it listens."
        self._seat = seat
        self._agent, self._folder = agent, folder
        folder.mkdir(parents=True, exist_ok=True)
        host, _, port = account.proxy.rpartition(":")
        self._server = host, int(port)
        self._audio = tones.encode_ulaw(tones.samples(tone, 1))
        self._sip, self._rtp, self._rtcp, self._talking, self._asking = (
            namespace.socket(socket.SOCK_DGRAM) for _ in range(5)
        )
        self._sip.bind((seat.address, seat.sip))
        self._rtp.bind((seat.address, seat.rtp.start))
        self._rtcp.bind((seat.address, seat.rtp.start + 1))
        self._talking.bind((seat.address, seat.rtp.start + 50))
        self._asking.bind((seat.address, seat.sip + 2))
        self._sends_sip = self._asking if split_sip else self._sip
        self._lock = threading.RLock()
        "Held by whoever looks at or changes what follows."
        self._dialog: _Dialog | None = None
        self._media: tuple[str, int] | None = None
        "Where it sends its tone to."
        self._packets = 0
        self._heard = bytearray()
        self._events: list[tuple[str, float]] = []
        self._leaving = False
        self._thread = threading.Thread(target=self._run, name=f"phone of {account.user}", daemon=True)
        self._thread.start()
        self._register()

    # -- what it says

    def _send(self, first: str, lines: list[str], body: str = "") -> None:
        kind = ["Content-Type: application/sdp"] if body else []
        head = "\r\n".join([first, *lines, *kind, f"Content-Length: {len(body)}"])
        self._sends_sip.sendto(f"{head}\r\n\r\n{body}".encode("latin-1"), self._server)

    def _request(self, method: str, uri: str, lines: list[str], cseq: int, body: str = "") -> None:
        via = f"Via: SIP/2.0/UDP {self._seat.address}:{self._seat.sip};branch=z9hG4bK{secrets.token_hex(8)}"
        own = [via, "Max-Forwards: 70", f"User-Agent: {self._agent}", f"CSeq: {cseq} {method}", self._contact]
        self._send(f"{method} {uri} SIP/2.0", [*own, *lines], body)

    @property
    def _contact(self) -> str:
        return f"Contact: <sip:{self.account.user}@{self._seat.address}:{self._seat.sip}>"

    @property
    def _sdp(self) -> str:
        return _SDP.format(address=self._seat.address, port=self._seat.rtp.start)

    def _register(self) -> None:
        lines = [f"From: <{self.account.uri}>;tag={secrets.token_hex(4)}", f"To: <{self.account.uri}>"]
        lines += [f"Call-ID: {secrets.token_hex(8)}", f"Expires: {self.account.expires}"]
        self._request("REGISTER", f"sip:{self.account.domain}", lines, 1)

    def _in_dialog(self, method: str, dialog: _Dialog) -> None:
        lines = [f"Route: {route}" for route in dialog.routes]
        lines += [f"From: {dialog.own}", f"To: {dialog.peer}", f"Call-ID: {dialog.call_id}"]
        self._request(method, dialog.target, lines, dialog.cseq)

    def _answer(self, request: _Text, *lines: str, body: str = "") -> None:
        copied = [f"{name}: {value}" for name in ("Via", "From", "Call-ID", "CSeq") for value in request.all(name)]
        self._send("SIP/2.0 200 OK", [*copied, f"Server: {self._agent}", self._contact, *lines], body)

    # -- what it is told

    def _came(self, message: _Text) -> None:
        if message.status:
            self._response(message)
        elif message.method == "INVITE":
            self._invited(message)
        elif message.method == "ACK":
            self._event("established")
        elif message.method == "BYE":
            self._answer(message, f"To: {message.one('To')}")
            self._over()

    def _response(self, response: _Text) -> None:
        if response.status < 200:
            return
        if response.status >= 300:
            self._event(f"{response.method} answered {response.status}")
        elif response.method == "REGISTER":
            self._event("registered")
        elif response.method == "INVITE" and self._dialog is not None:
            dialog = self._dialog
            dialog.peer, dialog.target = response.one("To"), response.contact
            dialog.routes = response.all("Record-Route")[::-1]
            self._in_dialog("ACK", dialog)
            self._media = response.media
            self._event("established")
        elif response.method == "BYE":
            self._over()

    def _invited(self, request: _Text) -> None:
        routes = request.all("Record-Route")
        if self._dialog is None:
            own = f"{request.one('To')};tag={secrets.token_hex(4)}"
            self._dialog = _Dialog(request.one("Call-ID"), own, request.one("From"), request.contact, routes)
        lines = [f"To: {self._dialog.own}", *(f"Record-Route: {route}" for route in routes)]
        self._answer(request, *lines, body=self._sdp)
        self._media = request.media

    def _over(self) -> None:
        self._dialog = self._media = None
        self._event("closed")

    def _event(self, what: str) -> None:
        self._events.append((what, time.monotonic()))

    # -- its thread

    def _run(self) -> None:
        source = secrets.token_bytes(4)
        due = time.monotonic()
        with selectors.DefaultSelector() as selector:
            for sock in (self._sip, self._rtp, self._rtcp):
                selector.register(sock, selectors.EVENT_READ)
            while not self._leaving:
                ready = selector.select(max(due - time.monotonic(), 0.0))
                with self._lock:
                    for key, _ in ready:
                        assert isinstance(key.fileobj, socket.socket)
                        self._receive(key.fileobj)
                    if time.monotonic() >= due:
                        due += _PACKET
                        self._speak(source)

    def _receive(self, sock: socket.socket) -> None:
        data = sock.recv(65536)
        if sock is self._sip and data.strip(b"\0\r\n"):
            self._came(_Text.parse(data))
        elif sock is self._rtcp:
            self.rtcp_heard += 1
        elif sock is self._rtp:
            self._heard += data[12:]

    def _speak(self, source: bytes) -> None:
        if self._media is not None:
            head = struct.pack(">BBHI", 0x80, 0, self._packets & 0xFFFF, self._packets * _SAMPLES) + source
            at = self._packets * _SAMPLES % len(self._audio)
            self._talking.sendto(head + self._audio[at : at + _SAMPLES], self._media)
            self._packets += 1

    # -- what the laboratory wants of it

    def _wait(self, what: str, seconds: float) -> float:
        """Wait for an event and forget all before it; when it was."""

        def come() -> bool:
            with self._lock:
                wrong = [name for name, _ in self._events if " answered " in name]
                if wrong:
                    raise LabError(f"{self.account.user}: {wrong[0]}")
                return what in (name for name, _ in self._events)

        wait_until(f"{self.account.user} is {what}", come, seconds, step=0.01)
        with self._lock:
            index = [name for name, _ in self._events].index(what)
            at = self._events[index][1]
            del self._events[: index + 1]
        return at

    def wait_registered(self, seconds: float = 30.0) -> None:
        """Wait until the server's answer to REGISTER has come to where it listens."""
        self._wait("registered", seconds)

    def dial(self, uri: str) -> None:
        """Call somebody."""
        with self._lock:
            own = f"<{self.account.uri}>;tag={secrets.token_hex(4)}"
            dialog = self._dialog = _Dialog(secrets.token_hex(8), own, f"<{uri}>", uri, [])
            lines = [f"From: {own}", f"To: {dialog.peer}", f"Call-ID: {dialog.call_id}"]
            self._request("INVITE", uri, lines, dialog.cseq, self._sdp)

    def wait_established(self, seconds: float = 30.0) -> float:
        """Wait until the call stands; when that was (time.monotonic)."""
        return self._wait("established", seconds)

    def mute(self) -> None:
        """Send no more audio in this call."""
        with self._lock:
            self._media = None

    def hang_up(self) -> None:
        """End the call."""
        with self._lock:
            self._media = None
            if self._dialog is not None:
                self._dialog.cseq += 1
                self._in_dialog("BYE", self._dialog)

    def wait_closed(self, seconds: float = 30.0) -> None:
        """Wait until the call is over."""
        self._wait("closed", seconds)

    def take_recording(self) -> Path | None:
        """What was heard in the call that just ended; None if nothing was."""
        with self._lock:
            pcm = tones.decode_ulaw(bytes(self._heard))
            self._heard.clear()
        if not pcm:
            return None
        path = self._folder / f"heard-{time.monotonic_ns()}.wav"
        tones.write_wav(path, pcm)
        return path

    def close(self) -> None:
        """End the phone at once, without farewell to the server."""
        self._leaving = True
        self._thread.join()
        for sock in (self._sip, self._rtp, self._rtcp, self._talking, self._asking):
            sock.close()
