"""Toy media of a phone on the toy Internet: one Voice per m-line says a tone in RTP and notes what it hears.

A packet carries the tone's name and a running number as its "sound", so a test can say who heard how many of whose
packets, whatever happens to SSRC and sequence number on the way. Nothing here knows SIP or the relay.
"""

import struct
import zlib
from dataclasses import dataclass, replace
from typing import NamedTuple

from mediaproxy.endpoint import Endpoint
from tests.vnet import Datagram, Host, Timer

FRAME = 0.02
"Seconds between two packets: 50 a second."
RTCP_EVERY = 5.0
_RTP = struct.Struct("!BBHII")


class Heard(NamedTuple):
    """One packet that reached a phone."""

    at: float
    tone: str
    number: int
    source: Endpoint


def rtp(tone: str, number: int, *, ssrc: int, sequence: int, payload_type: int = 0) -> bytes:
    """An RTP packet of 160 bytes of sound (RFC 3550 §5.1), 20 ms of G.711."""
    header = _RTP.pack(0x80, payload_type, sequence & 0xFFFF, sequence * 160 & 0xFFFFFFFF, ssrc)
    return header + f"{tone} {number}".encode().ljust(160, b"\0")


def udptl(tone: str, number: int) -> bytes:
    """A datagram of T.38 fax: a sequence number and the payload."""
    return struct.pack("!H", number & 0xFFFF) + f"{tone} {number}".encode()


def rtcp(tone: str, number: int, *, ssrc: int) -> bytes:
    """A sender report with the tone's name behind it (RFC 3550 §6.4.1)."""
    sound = f"{tone} {number}".encode().ljust(24, b"\0")
    return struct.pack("!BBHI", 0x80, 200, 1 + len(sound) // 4, ssrc) + sound


def is_rtcp(data: bytes) -> bool:
    """Types 192 to 223 (RFC 5761 §4)."""
    return len(data) >= 8 and data[0] >> 6 == 2 and 192 <= data[1] <= 223


def sound(data: bytes, header: int) -> tuple[str, int] | None:
    """Tone and number behind a header, None for noise."""
    tone, _, number = data[header:].rstrip(b"\0").decode("latin-1").partition(" ")
    return (tone, int(number)) if number.isdecimal() else None


@dataclass(kw_only=True)
class Voice:
    """One media stream of a phone: a mouth that says its tone 50 times a second and an ear."""

    host: Host
    tone: str
    port: int
    "Where it listens, and where it sends from unless ``send_port`` says otherwise."
    kind: str = "audio"
    send_port: int = 0
    "An asymmetric client sends from here; 0: from ``port``."
    mux: bool = False
    "RTCP shares the RTP port (RFC 5761)."
    ssrc: int = 0
    "0: one of its own, made from the tone."
    sequence: int = 1
    payload_type: int = 0
    frame: float = FRAME
    "Seconds between two packets."
    shy: bool = False
    "Says nothing before it has heard something, as some gateways do."
    public: Endpoint | None = None
    "What STUN said about ``port``; told in the SDP instead of the own address if set."
    remote: Endpoint | None = None
    remote_rtcp: Endpoint | None = None
    muted: bool = False
    "Voice activity detection or a mute button: nothing is sent, time and numbers stand."
    with_rtcp: bool = True
    ear: "Voice | None" = None
    "The voice that listens on the port already: this one only speaks from there."

    def __post_init__(self) -> None:
        self.net = self.host.net
        self.payload_type = self.payload_type or (96 if self.kind == "video" else 0)
        self.ssrc = self.ssrc or zlib.crc32(self.tone.encode())
        self.heard: list[Heard] = self.ear.heard if self.ear else []
        self.rtcp_heard: list[Heard] = self.ear.rtcp_heard if self.ear else []
        self.sent = 0
        self.rtcp_sent = 0
        self._mouth: Timer | None = None
        self._reporter: Timer | None = None
        if not self.ear:
            self.host.bind(self.port, self._hear)
            self.host.bind(self.port + 1, self._hear)

    def twin(self) -> "Voice":
        """A second mouth on the same port, for the dialog of another fork."""
        return replace(self, ear=self, remote=None, remote_rtcp=None, ssrc=self.ssrc + 1)

    def aim(self, remote: Endpoint | None, remote_rtcp: Endpoint | None, speak: bool) -> None:
        """Speak to there from now on, or keep silent. RTCP goes on as long as there is a place to send it."""
        self.remote, self.remote_rtcp = remote, remote_rtcp
        if remote is None or not speak:
            self._silence()
        elif self._mouth is None:
            self._mouth = self.net.after(0.0, self._say)
        if self.with_rtcp and remote_rtcp is not None and self._reporter is None:
            self._reporter = self.net.after(0.5, self._report)

    def close(self) -> None:
        """Hang up: nothing is sent any more and nothing more is heard."""
        self.aim(None, None, False)
        if self.ear:
            return
        self.host.bind(self.port, lambda datagram: None)
        self.host.bind(self.port + 1, lambda datagram: None)

    def count(self, tone: str, since: float = 0.0, until: float = float("inf")) -> int:
        """How many different packets of that tone were heard in a span of time."""
        return len({heard.number for heard in self.heard if heard.tone == tone and since <= heard.at < until})

    def tones(self) -> set[str]:
        """Everybody who was heard, by RTP or RTCP."""
        return {heard.tone for heard in (*self.heard, *self.rtcp_heard)}

    def sources(self) -> set[Endpoint]:
        """Where what was heard came from."""
        return {heard.source for heard in self.heard}

    def _silence(self) -> None:
        if self._mouth is not None:
            self._mouth.cancel()
            self._mouth = None

    def _say(self) -> None:
        self._mouth = self.net.after(self.frame, self._say)
        if self.muted or self.remote is None or (self.shy and not self.heard):
            return
        self.sent += 1
        if self.kind == "image":
            data = udptl(self.tone, self.sent)
        else:
            data = rtp(self.tone, self.sent, ssrc=self.ssrc, sequence=self.sequence, payload_type=self.payload_type)
        self.sequence += 1
        self.host.send(self.send_port or self.port, self.remote, data)

    def _report(self) -> None:
        self._reporter = None
        if self.remote_rtcp is None or not self.with_rtcp or self.kind == "image":
            return
        self._reporter = self.net.after(RTCP_EVERY, self._report)
        self.rtcp_sent += 1
        port = (self.send_port or self.port) + (0 if self.mux else 1)
        self.host.send(port, self.remote_rtcp, rtcp(self.tone, self.rtcp_sent, ssrc=self.ssrc))

    def _hear(self, datagram: Datagram) -> None:
        data = datagram.data
        control = is_rtcp(data) and self.kind != "image"
        found = sound(data, 8 if control else 2 if self.kind == "image" else _RTP.size)
        if found is not None:
            ear = self.rtcp_heard if control else self.heard
            ear.append(Heard(self.net.now, *found, datagram.source))
