"""SIP and SDP text as the toy phones read and write it, by simple means of their own.

It shares no code with the product on purpose: a phone that reads what our edits left is an independent check of them.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from mediaproxy.endpoint import Endpoint
from tests.vmedia import Voice

FORMATS = {
    "audio": ["m=audio {port} RTP/AVP 0 101", "a=rtpmap:101 telephone-event/8000"],
    "video": ["m=video {port} RTP/AVP 96", "a=rtpmap:96 H264/90000"],
    "image": ["m=image {port} udptl t38", "a=T38FaxVersion:0"],
}


@dataclass(frozen=True)
class Text:
    """A SIP message as the phone reads it."""

    start: str
    headers: list[tuple[str, str]]
    body: str

    @classmethod
    def read(cls, data: bytes) -> "Text":
        head, _, body = data.decode("latin-1").partition("\r\n\r\n")
        start, *lines = head.split("\r\n")
        pairs = [line.partition(":") for line in lines]
        return cls(start, [(name.strip(), value.strip()) for name, _, value in pairs], body)

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key.lower() == name.lower()]

    def get(self, name: str) -> str:
        return next(iter(self.all(name)), "")

    @property
    def method(self) -> str:
        """Of a request its own, of a response that of its request."""
        return self.get("CSeq").split()[1]

    @property
    def status(self) -> int:
        """0 for a request."""
        return int(self.start.split()[1]) if self.start.startswith("SIP/2.0 ") else 0

    @property
    def branch(self) -> str:
        return parameter(self.get("Via"), "branch")

    @property
    def contact(self) -> str:
        return self.get("Contact").strip("<>").partition(">")[0]


def parameter(value: str, name: str) -> str:
    """A header parameter such as a tag, empty if there is none."""
    found = re.search(rf";\s*{name}=([^;>\s]+)", value)
    return found.group(1) if found else ""


@dataclass(frozen=True, kw_only=True)
class Section:
    """One m-section of an SDP as the phone reads it."""

    kind: str
    endpoint: Endpoint
    rtcp: Endpoint
    direction: str


def read_sdp(body: str) -> list[Section]:
    """The m-sections of an SDP (RFC 8866)."""
    first, *parts = re.split(r"^m=", body, flags=re.M)
    session = re.search(r"^c=IN IP[46] (\S+)", first, re.M)
    sections = []
    for part in parts:
        kind, port = part.split()[:2]
        own = re.search(r"^c=IN IP[46] (\S+)", part, re.M) or session
        assert own is not None, "an SDP without c="
        endpoint = Endpoint.of(own.group(1), int(port))
        told = re.search(r"^a=rtcp:(\d+)(?: IN IP[46] (\S+))?", part, re.M)
        rtcp = endpoint.with_port(endpoint.port + 1 if endpoint.port else 0)
        if re.search(r"^a=rtcp-mux", part, re.M):
            rtcp = endpoint
        if told:
            rtcp = Endpoint.of(told.group(2) or endpoint.address, int(told.group(1)))
        direction = re.search(r"^a=(sendrecv|sendonly|recvonly|inactive)", part, re.M)
        sections.append(
            Section(kind=kind, endpoint=endpoint, rtcp=rtcp, direction=direction.group(1) if direction else "sendrecv")
        )
    return sections


@dataclass(kw_only=True)
class Offer:
    """What a phone's SDP says besides its voices."""

    version: int = 1
    "Of the session, in o=: goes up with every change."
    direction: str = "sendrecv"
    zero: bool = False
    "Hold by c=0.0.0.0 (RFC 2543)."
    host_name: str = ""
    "In c= instead of the address."
    dropped: set[str] = field(default_factory=set)
    "Kinds of media that were switched off again: port 0."


def write_sdp(name: str, address: str, offer: Offer, voices: Sequence[Voice]) -> str:
    """The SDP of a phone that believes in its own address."""
    family = 6 if ":" in address else 4
    ip = f"IN IP{family}"
    shown = offer.host_name or address if not offer.zero else "0.0.0.0" if family == 4 else "::"
    lines = ["v=0", f"o={name} 1 {offer.version} {ip} {address}", "s=-", f"c={ip} {shown}", "t=0 0"]
    for voice in voices:
        public = voice.public or Endpoint(shown, voice.port)
        port = 0 if voice.kind in offer.dropped else public.port
        lines += [line.format(port=port) for line in FORMATS[voice.kind]]
        if voice.public:
            lines.append(f"c={ip} {public.address}")
        if voice.mux:
            lines.append("a=rtcp-mux")
        lines.append(f"a={offer.direction}")
    return "\r\n".join(lines) + "\r\n"
