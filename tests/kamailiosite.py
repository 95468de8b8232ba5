"""Around a real Kamailio on loopback: a dispatcher that answers as a test wants, and phones that are bare sockets."""

import contextlib
import errno
import itertools
import os
import re
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from lab.kamailio import ROOT, Kamailio
from mediaproxy.control import MediaPort, MediaReply, MediaRequest, Question, decode, encode
from mediaproxy.endpoint import Endpoint
from mediaproxy.sip.message import Message, Request, Response, parse, response_to

Behaviour = Callable[[socket.socket, bytes], None]
"What a dispatcher does with one line on one connection."

RELAY = "203.0.113.200"
"Where the dispatcher's relay would be."


def ports(count: int, first: int = 60000) -> tuple[MediaPort, ...]:
    """The ports that the dispatcher gives out."""
    return tuple(
        MediaPort(rtp=Endpoint(RELAY, first + 2 * at), rtcp=Endpoint(RELAY, first + 2 * at + 1)) for at in range(count)
    )


def reply_to(question: Question) -> MediaReply:
    """The answer of a relay that has what is wanted."""
    if not isinstance(question, MediaRequest):
        return MediaReply()
    given = zip(question.streams, ports(len(question.streams)), strict=True)
    return MediaReply(ports=tuple(port if stream.endpoint is not None else None for stream, port in given))


def answer(connection: socket.socket, line: bytes) -> None:
    """What a dispatcher should do."""
    question = decode(line)
    assert isinstance(question, Question)
    connection.sendall(encode(reply_to(question)))


class Dispatcher:
    """Listens on a UNIX socket and does as ``behaviour`` says with each line."""

    def __init__(self, path: Path, behaviour: Behaviour = answer) -> None:
        self.path = path
        self.behaviour = behaviour
        self.questions: list[Question] = []
        "What it was asked, in order."
        self.connections = 0
        self._listener: socket.socket | None = None
        self._open: list[socket.socket] = []
        self._wake, self._woken = socket.socketpair()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()
        self.listen()

    def listen(self) -> None:
        """Begin to listen."""
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(str(self.path))
        self.path.chmod(0o666)
        listener.listen(128)
        with self._lock:
            self._listener = listener
        self._wake.send(b"x")

    def die(self) -> None:
        """End as a process does: the listening socket and all connections close at once, the file stays."""
        with self._lock:
            for sock in self._open:
                sock.close()
            self._open.clear()
            if self._listener is not None:
                self._listener.shutdown(socket.SHUT_RDWR)  # at once, although our thread waits for it
                self._listener.close()
                self._listener = None
        self._wake.send(b"x")

    def restart(self) -> None:
        """End, and come back."""
        self.die()
        self.path.unlink()
        self.listen()

    def close(self) -> None:
        """End for good."""
        self.die()
        self._wake.send(b"q")
        self._thread.join(5)
        self._wake.close()
        self._woken.close()
        self.path.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _serve(self) -> None:
        while True:
            with self._lock:
                waiting = [self._woken, *([self._listener] if self._listener else []), *self._open]
            with contextlib.suppress(OSError, ValueError):
                ready, _, _ = select.select(waiting, [], [])
                if self._woken in ready and b"q" in self._woken.recv(100):
                    return
                for sock in ready:
                    self._look(sock)

    def _look(self, sock: socket.socket) -> None:
        if sock is self._woken:
            return
        if sock is self._listener:
            connection, _ = sock.accept()
            self.connections += 1
            with self._lock:
                self._open.append(connection)
            return
        data = b""
        with contextlib.suppress(OSError):
            while (piece := sock.recv(1 << 20)) and not (data := data + piece).endswith(b"\n"):
                pass
        if not data:
            with self._lock, contextlib.suppress(ValueError):
                self._open.remove(sock)
                sock.close()
            return
        question = decode(data)
        assert isinstance(question, Question)
        self.questions.append(question)
        with contextlib.suppress(OSError):
            self.behaviour(sock, data)

    @property
    def media(self) -> list[MediaRequest]:
        """The questions for media among them."""
        return [one for one in self.questions if isinstance(one, MediaRequest)]


class Phone:
    """A UDP socket that sends and receives SIP."""

    def __init__(self, kamailio: tuple[str, int]) -> None:
        self.server = kamailio
        family = socket.AF_INET6 if ":" in kamailio[0] else socket.AF_INET
        self.socket = socket.socket(family, socket.SOCK_DGRAM)
        self.socket.bind((kamailio[0], 0))
        self.address = kamailio[0]
        self.host = f"[{kamailio[0]}]" if ":" in kamailio[0] else kamailio[0]
        self.port: int = self.socket.getsockname()[1]
        self.call_id = ""
        "Of what it has sent last."

    @property
    def place(self) -> str:
        """``host:port``."""
        return f"{self.host}:{self.port}"

    def send(self, data: bytes) -> None:
        """Send a datagram to Kamailio."""
        self.socket.sendto(data, self.server)
        named = re.search(rb"^(?:Call-ID|i) *: *([^\r]*)", data, re.MULTILINE | re.IGNORECASE)
        self.call_id = named[1].decode("latin-1") if named else ""

    def receive(self, seconds: float = 15.0) -> bytes:
        """The next datagram. TimeoutError if none comes."""
        self.socket.settimeout(seconds)
        return self.socket.recv(1 << 17)

    def request(self, method: str = "", call_id: str = "", seconds: float = 15.0) -> Request:
        """The next request, of a method and of a call if they are named; others are passed over."""

        def wanted(one: Request | Response) -> bool:
            return isinstance(one, Request) and method in ("", one.method) and call_id in ("", one.call_id)

        return _next(self, seconds, wanted)  # type: ignore[return-value] # the test says so

    def response(self, status: int, seconds: float = 15.0) -> Response:
        """The next response with a status to what was sent last; others are passed over: nobody acknowledges anything,
        so those of earlier calls are repeated."""

        def wanted(one: Request | Response) -> bool:
            return isinstance(one, Response) and one.status == status and one.call_id == self.call_id

        return _next(self, seconds, wanted)  # type: ignore[return-value] # the test says so

    def answer(self, request: Request, status: int, body: bytes = b"", contact: str = "", **more: str) -> bytes:
        """Send the response to a request; the response."""
        headers = [(name.replace("_", "-"), text) for name, text in more.items()]
        if contact:
            headers.append(("Contact", contact))
        if body:
            headers.append(("Content-Type", "application/sdp"))
        tag = f"t{self.port}"
        data = bytes(response_to(request, status, to_tag=tag, headers=headers, body=body))
        self.send(data)
        return data

    def close(self) -> None:
        """Give the socket back."""
        self.socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _next(phone: Phone, seconds: float, wanted: Callable[[Request | Response], bool]) -> Request | Response:
    deadline = time.monotonic() + seconds
    while True:
        left = deadline - time.monotonic()
        message = parse(phone.receive(max(left, 0.001)))
        if wanted(message):
            return message


SDP = (
    b"v=0\r\no=- 1 1 IN IP4 192.168.1.10\r\ns=-\r\nc=IN IP4 192.168.1.10\r\nt=0 0\r\n"
    b"m=audio 5004 RTP/AVP 0 8\r\na=rtpmap:0 PCMU/8000\r\n"
)
_numbers = iter(range(1, 1_000_000))


def invite(
    phone: Phone, target: str, body: bytes = SDP, *, headers: bytes = b"", contact: bytes | None = None
) -> bytes:
    """An INVITE from a phone that says its private address, with a new Call-ID. ``headers``: more lines, with CRLF.
    ``contact``: another Contact line; empty: none."""
    number = next(_numbers)
    place = phone.place.encode()
    line = b"Contact: <sip:a@192.168.1.10:5060>\r\n" if contact is None else contact
    return (
        b"INVITE sip:%b SIP/2.0\r\nVia: SIP/2.0/UDP %b;branch=z9hG4bK%d;rport\r\nMax-Forwards: 70\r\n"
        b"From: <sip:a@sip.test>;tag=f%d\r\nTo: <sip:b@sip.test>\r\nCall-ID: %d@%b\r\nCSeq: 1 INVITE\r\n%b%b"
        b"Content-Type: application/sdp\r\nContent-Length: %d\r\n\r\n%b"
    ) % (target.encode(), place, number, number, number, place, line, headers, len(body), body)


@contextlib.contextmanager
def phones(count: int, kamailio: tuple[str, int]) -> Iterator[list[Phone]]:
    """Some phones."""
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(Phone(kamailio)) for _ in range(count)]


def free_ports(count: int) -> list[int]:
    """Ports that nobody has on loopback, over UDP and TCP, IPv4 and IPv6. They are none that a socket gets which wants
    just any; another run of these tests begins to look elsewhere."""
    ports = (10_000 + (os.getpid() + number) % 6_000 for number in range(6_000))
    return list(itertools.islice(filter(_is_free, ports), count))


def _is_free(port: int) -> bool:
    for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
        for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
            with socket.socket(family, kind) as sock:
                try:
                    sock.bind((host, port))
                except OSError as error:
                    if error.errno == errno.EADDRINUSE:
                        return False
    return True


(PORT,) = free_ports(1)
"Where Kamailio listens."

SCRIPT = f"""\
import sys
sys.path.insert(0, {str(ROOT)!r})
from tests.kamailiocases import Cases
def mod_init():
    return Cases(**{{"mediaproxy_socket": %r, "sip_asymmetrics": "", "rtp_asymmetrics": "", **%r}})
"""


RELAYED = SDP.replace(b"c=IN IP4 192.168.1.10", f"c=IN IP4 {RELAY}".encode()).replace(b"5004", b"60000")
"What becomes of the phones' SDP."


@dataclass
class Site:
    """Kamailio with the script of the cases, its dispatcher, and two phones."""

    kamailio: Kamailio
    dispatcher: Dispatcher
    alice: Phone
    bob: Phone

    def send(self, data: bytes, answer: int = 486) -> Message:
        """Alice sends, Bob receives and answers, so that nobody repeats anything: what he got."""
        sent = parse(data)
        self.alice.send(data)
        while True:
            got = self.bob.request("INVITE")
            if got.vias[1].branch == sent.via.branch:
                break
        self.bob.answer(got, answer)
        self.alice.response(answer)
        return got

    @property
    def to(self) -> str:
        """Bob's address of record is where he is."""
        return f"bob@{self.bob.place}"

    def results(self, message: Message, route: str = "request") -> list[tuple[str, int]]:
        """What the words of a route returned for a message."""
        call_id = message.call_id.encode("latin-1").hex()
        pattern = rf"RESULT {call_id} {route} (\S+) (-?\d+) "
        return [(word, int(code)) for word, code in re.findall(pattern, self.kamailio.log)]

    def result(self, message: Message, route: str = "request") -> dict[str, int]:
        """The last result of each word."""
        return dict(self.results(message, route))


@contextlib.contextmanager
def site(folder: Path, address: str = "127.0.0.1", options: Sequence[str] = (), **settings: Any) -> Iterator[Site]:
    """A site. Its Kamailio must not have complained of itself. ``options``: of kamailio(8). If it is not set otherwise,
    a message may wait for the dispatcher for long: it is a thread of the test's, on a machine that may be busy."""
    folder.mkdir(exist_ok=True)
    script = SCRIPT % (str(folder / "dispatcher"), {"timeout": 10.0, **settings})
    host = f"[{address}]" if ":" in address else address
    with (
        Dispatcher(folder / "dispatcher") as dispatcher,
        Kamailio(folder, [f"udp:{host}:{PORT}"], script=script, options=["-n", "2", *options]) as kamailio,
        phones(2, (address, PORT)) as (alice, bob),
    ):
        yield Site(kamailio, dispatcher, alice, bob)
        assert "CRITICAL" not in kamailio.log
        assert "Traceback" not in kamailio.log


def words(**routes: str) -> bytes:
    """The headers that say what the routes do."""
    return b"".join(f"X-{route.title()}: {text}\r\n".encode() for route, text in routes.items())
