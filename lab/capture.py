"""What passed on the wire: a tcpdump that runs beside a call, and a small reader of its file.

Only UDP over IPv4 is read; of TCP and TLS phones one sees the media, not the signalling.
"""

import signal
import struct
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from lab.netns import Namespace, stop, wait_until

_ETHERNET, _RAW_IP = 1, 101


@dataclass(frozen=True, slots=True)
class Datagram:
    """One UDP datagram on the wire."""

    at: float
    "Seconds since the epoch."
    source: tuple[str, int]
    target: tuple[str, int]
    payload: bytes

    @property
    def is_rtp(self) -> bool:
        """RTP and not RTCP (RFC 5761 §4); SIP text can't be taken for it."""
        return len(self.payload) >= 12 and self.payload[0] >> 6 == 2 and not 192 <= self.payload[1] <= 223

    @property
    def number(self) -> tuple[bytes, int]:
        """SSRC and sequence number of an RTP packet: its name on both sides of the relay."""
        return self.payload[8:12], int.from_bytes(self.payload[2:4], "big")


def read(path: Path) -> Iterator[Datagram]:
    """The UDP datagrams of a pcap file (little endian, microseconds), oldest first."""
    data = path.read_bytes()
    if len(data) < 24:
        return
    link = struct.unpack_from("<I", data, 20)[0]
    skip = {_ETHERNET: 14, _RAW_IP: 0}[link]
    position = 24
    while position + 16 <= len(data):
        seconds, micros, size, _ = struct.unpack_from("<IIII", data, position)
        frame = data[position + 16 + skip : position + 16 + size]
        position += 16 + size
        datagram = _datagram(seconds + micros / 1e6, frame)
        if datagram is not None:
            yield datagram


def _datagram(at: float, ip: bytes) -> Datagram | None:
    if len(ip) < 28 or ip[0] >> 4 != 4 or ip[9] != 17 or int.from_bytes(ip[6:8], "big") & 0x1FFF:
        return None
    header = (ip[0] & 0x0F) * 4
    source_port, target_port, length = struct.unpack_from(">HHH", ip, header)
    source = ".".join(map(str, ip[12:16])), source_port
    target = ".".join(map(str, ip[16:20])), target_port
    return Datagram(at, source, target, ip[header + 8 : header + length])


def write_header(link: int = _RAW_IP) -> bytes:
    """The head of a pcap file of bare IP packets."""
    return struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, link)


def write_datagram(datagram: Datagram) -> bytes:
    """A datagram as a pcap record of a bare IP packet; checksums are left out."""
    size = 28 + len(datagram.payload)
    addresses = bytes(map(int, f"{datagram.source[0]}.{datagram.target[0]}".split(".")))
    ip = struct.pack(">BBHHHBBH", 0x45, 0, size, 0, 0, 64, 17, 0) + addresses
    udp = struct.pack(">HHHH", datagram.source[1], datagram.target[1], size - 20, 0)
    micros = round(datagram.at * 1e6)
    record = struct.pack("<IIII", micros // 1_000_000, micros % 1_000_000, size, size)
    return record + ip + udp + datagram.payload


class Capture:
    """A running tcpdump; leaving it ends the file."""

    def __init__(self, namespace: Namespace, interface: str, path: Path) -> None:
        self.path = path
        log = path.with_suffix(".log")
        log.unlink(missing_ok=True)
        argv = [
            "tcpdump",
            "-i",
            interface,
            "-n",
            "-U",
            "--immediate-mode",
            "-B",
            "16384",
            "-Z",
            "root",
            "-w",
            str(path),
            "ip",
        ]
        self._process: subprocess.Popen[bytes] = namespace.start(argv, log)
        wait_until("tcpdump listens", lambda: "listening on" in log.read_text(errors="replace"), step=0.01)

    def __enter__(self) -> "Capture":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        stop(self._process, signal.SIGINT)


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """One direction of a call's media through the server."""

    sent: int
    "RTP packets that reached the server between answer and BYE."
    relayed: int
    "Those of them that the server sent on to the other side."
    first_ms: float | None
    "From the callee's 200 OK to the first relayed packet on the listener's wire; None: never, or no SIP seen."
    pcm_payload: bytes
    "The payload of everything that was sent to the listener, in order of arrival."

    @property
    def lost(self) -> int:
        """Packets that came in and did not go out."""
        return self.sent - self.relayed


@dataclass(frozen=True, slots=True, kw_only=True)
class Wire:
    """Both directions of one call's media, as the wire shows them."""

    to_callee: Way
    to_caller: Way


def inspect(datagrams: Iterable[Datagram], server: str, caller: str, callee: str) -> Wire:
    """Read one call off the wire; ``caller`` and ``callee`` are the public addresses of their homes."""
    everything = list(datagrams)
    answers = (d.at for d in everything if d.source[0] == callee and is_answer(d.payload))
    answered = next(answers, None)
    byes = (d.at for d in everything if d.payload.startswith(b"BYE ") and d.target[0] == server)
    # What is on its way when the BYE comes need not arrive.
    end = next(byes, everything[-1].at if everything else 0.0) - 0.02
    return Wire(
        to_callee=_way(everything, (caller, server, callee), (answered, end)),
        to_caller=_way(everything, (callee, server, caller), (answered, end)),
    )


def _way(everything: list[Datagram], route: tuple[str, str, str], span: tuple[float | None, float]) -> Way:
    talker, server, listener = route
    answered, end = span
    start = 0.0 if answered is None else answered
    media = [d for d in everything if d.is_rtp and d.at >= start]
    came = {d.number for d in media if (d.source[0], d.target[0]) == (talker, server) and d.at <= end}
    went = [d for d in media if (d.source[0], d.target[0]) == (server, listener)]
    first = (went[0].at - answered) * 1000 if went and answered is not None else None
    return Way(
        sent=len(came),
        relayed=len(came & {d.number for d in went}),
        first_ms=first,
        pcm_payload=b"".join(d.payload[12:] for d in went),
    )


def is_answer(payload: bytes) -> bool:
    """Whether it is a 200 to an INVITE."""
    head = payload.partition(b"\r\n\r\n")[0]
    return head.startswith(b"SIP/2.0 200") and any(
        line.lower().startswith(b"cseq:") and line.rstrip().endswith(b"INVITE") for line in head.split(b"\r\n")
    )
