"""examples/kamailio as it is: Kamailio as user kamailio and the relay server beside it, started by the documented
command, in a namespace of its own; a whole call with media between two phones."""

import contextlib
import json
import os
import signal
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from lab.kamailio import EXAMPLE
from lab.netns import Namespace, Namespaces, run
from mediaproxy.sip.header import NameAddr
from mediaproxy.sip.message import Request, Response, parse, response_to
from tests.e2e.conftest import need

KAMAILIO = ("127.0.0.1", 5060)
# What the example writes to goes into memory: /run, and the server's state.
ISOLATED = (
    "mount -t tmpfs tmpfs /run && mount -t tmpfs tmpfs /var/lib/mediaproxy && "
    "exec setpriv --pdeathsig TERM {run} -l udp:127.0.0.1:5060"
)


@dataclass
class Example:
    """The running example."""

    namespace: Namespace
    log: Path
    pid: int

    def state(self) -> list[dict[str, Any]]:
        """The records of ended calls."""
        path = Path(f"/proc/{self.pid}/root/var/lib/mediaproxy/records.jsonl")
        return [json.loads(line) for line in path.read_text().split("\n")[:-1]] if path.exists() else []


@pytest.fixture(scope="module", autouse=True)
def programs() -> None:
    """What these tests need beside the laboratory."""
    need("kamailio", "unshare")


@pytest.fixture(scope="module", params=["kamailio", "native"])
def example(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Example]:
    made = not os.path.isdir("/var/lib/mediaproxy")
    os.makedirs("/var/lib/mediaproxy", exist_ok=True)
    log = tmp_path_factory.mktemp("example") / "log"
    run([str(EXAMPLE / "run"), "--install"])  # there is no network in the namespace
    namespaces = Namespaces()
    try:
        namespace = namespaces.add("kam")
        command = ISOLATED.format(run=EXAMPLE / "run")
        argv = ["env", f"MEDIAPROXY_CONFIG={request.param}", "unshare", "--mount", "sh", "-c", command]
        process = namespace.start(argv, log)
        wait_until_up(namespace)
        yield Example(namespace, log, process.pid)
        os.kill(process.pid, signal.SIGTERM)
        assert process.wait(60) == 0
        assert "ended" in log.read_text()
    finally:
        namespaces.close()
        if made:
            os.rmdir("/var/lib/mediaproxy")


def wait_until_up(namespace: Namespace) -> None:
    """Ask until Kamailio answers. The first time, the environment is installed."""
    with phone(namespace, "waiting", "192.168.1.4") as one:
        one.sip.settimeout(0.5)
        deadline = time.monotonic() + 120
        while True:
            try:
                one.request("OPTIONS", "sip:sip.test", "<sip:sip.test>", 1)
                one.sip.recv(65536)
                return
            except OSError:
                assert time.monotonic() < deadline
                time.sleep(0.1)


@dataclass
class Phone:
    """A phone that says a private address in Via, Contact and SDP, and sends from somewhere else."""

    user: str
    sip: socket.socket
    rtp: socket.socket
    private: str
    heard: list[bytes] = field(default_factory=list)
    call_id: str = field(default_factory=lambda: os.urandom(4).hex())
    "Of the call that it begins."

    def send(self, data: bytes) -> None:
        self.sip.sendto(data, KAMAILIO)

    def request(self, method: str, uri: str, to: str, cseq: int, *more: tuple[str, str], body: bytes = b"") -> Request:
        headers = [
            ("Via", f"SIP/2.0/UDP {self.private}:5060;branch=z9hG4bK{self.call_id}{method}{cseq};rport"),
            ("Max-Forwards", "70"),
            ("From", f"<sip:{self.user}@sip.test>;tag={self.user}"),
            ("To", to),
            ("Call-ID", self.call_id if method != "REGISTER" else f"register-{self.call_id}"),
            ("CSeq", f"{cseq} {method}"),
            ("Contact", f"<sip:{self.user}@{self.private}:5060>"),
            ("User-Agent", f"Phone {self.user}"),
            *more,
        ]
        if body:
            headers.append(("Content-Type", "application/sdp"))
        message = Request.build(method, uri, headers, body)
        self.send(bytes(message))
        return message

    def sdp(self) -> bytes:
        return (
            f"v=0\r\no=- 1 1 IN IP4 {self.private}\r\ns=-\r\nc=IN IP4 {self.private}\r\nt=0 0\r\n"
            f"m=audio {self.rtp.getsockname()[1]} RTP/AVP 0\r\n"
        ).encode()

    def receive(self, kind: str) -> Request | Response:
        """The next message of a method, or with a status."""
        while True:
            message = parse(self.sip.recv(65536))
            if kind == (message.method if isinstance(message, Request) else str(message.status)):
                return message


@contextlib.contextmanager
def phone(namespace: Namespace, user: str, private: str) -> Iterator[Phone]:
    """A phone in a namespace."""
    with namespace.socket(socket.SOCK_DGRAM) as sip, namespace.socket(socket.SOCK_DGRAM) as rtp:
        for sock in (sip, rtp):
            sock.bind(("127.0.0.1", 0))
            sock.settimeout(30)
        yield Phone(user, sip, rtp, private)


@pytest.fixture
def alice(example: Example) -> Iterator[Phone]:
    with phone(example.namespace, "alice", "192.168.1.5") as one:
        yield one


@pytest.fixture
def bob(example: Example) -> Iterator[Phone]:
    with phone(example.namespace, "bob", "10.0.0.9") as one:
        yield one


def register(one: Phone) -> None:
    one.request("REGISTER", "sip:sip.test", f"<sip:{one.user}@sip.test>", 1, ("Expires", "600"))
    reply = one.receive("200")
    assert reply.header("contact") == "<sip:{}@{}:{}>;expires=600".format(one.user, *one.sip.getsockname())


def relayed(message: Request | Response, *phones: Phone) -> tuple[str, int]:
    """Where a phone is told to send its media: not to the other phone."""
    text = message.body.decode()
    address = text.partition("c=IN IP4 ")[2].split()[0]
    port = int(text.partition("m=audio ")[2].split()[0])
    assert address == "127.0.0.1"
    assert port not in [one.rtp.getsockname()[1] for one in phones]
    return address, port


def test_a_whole_call(example: Example, alice: Phone, bob: Phone) -> None:
    register(alice)
    register(bob)

    alice.request("INVITE", "sip:bob@sip.test", "<sip:bob@sip.test>", 1, body=alice.sdp())
    invite = bob.receive("INVITE")
    assert isinstance(invite, Request)
    assert invite.header("contact") == "<sip:alice@{}:{}>".format(*alice.sip.getsockname())
    assert invite.header("record-route")
    bobs = relayed(invite, alice, bob)
    answer = response_to(
        invite,
        200,
        to_tag="b",
        headers=[("Contact", f"<sip:bob@{bob.private}:5060>"), ("Content-Type", "application/sdp")],
        body=bob.sdp(),
    )
    bob.send(bytes(answer))
    ok = alice.receive("200")
    assert ok.header("contact") == "<sip:bob@{}:{}>".format(*bob.sip.getsockname())
    alices = relayed(ok, alice, bob)
    route = ("Route", ok.header("record-route") or "")
    target = NameAddr.parse(ok.header("contact") or "").uri.text
    alice.request("ACK", target, ok.header("to") or "", 1, route)
    bob.receive("ACK")

    packet = b"\x80\x00%b" % bytes(10) + b"\xd5" * 160
    for number in range(25):
        for one, to in ((alice, alices), (bob, bobs)):
            one.rtp.sendto(packet[:2] + number.to_bytes(2) + packet[4:], to)
        time.sleep(0.02)
    for one in (alice, bob):
        one.rtp.settimeout(30)
        while len(one.heard) < 24:  # one may be lost before the other side is known
            one.heard.append(one.rtp.recv(2048))
        one.rtp.settimeout(0.5)
        with contextlib.suppress(TimeoutError):
            one.heard.append(one.rtp.recv(2048))

    alice.request("BYE", target, ok.header("to") or "", 2, route)
    bye = bob.receive("BYE")
    assert isinstance(bye, Request)
    bob.send(bytes(response_to(bye, 200)))
    alice.receive("200")

    deadline = time.monotonic() + 30
    while not (records := [one for one in example.state() if one["call_id"] == alice.call_id]):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    (record,) = records
    assert record["caller"]["user_agent"] == "Phone alice"
    assert [(one["caller"]["packets"], one["callee"]["packets"]) for one in record["streams"]] == [(25, 25)]


def called(alice: Phone, bob: Phone, contact: str, answers: socket.socket | None = None) -> tuple[Request, Response]:
    """Alice calls Bob, who answers with a Contact, perhaps from another socket: what Bob got, and what Alice got."""
    call = ("Call-ID", os.urandom(4).hex())
    headers = [
        ("Via", f"SIP/2.0/UDP {alice.private}:5060;branch=z9hG4bK{call[1]};rport"),
        ("Max-Forwards", "70"),
        ("From", "<sip:alice@sip.test>;tag=a"),
        ("To", f"<sip:{bob.user}@sip.test>"),
        call,
        ("CSeq", "1 INVITE"),
        ("Contact", f"<sip:alice@{alice.private}:5060>"),
        ("Content-Type", "application/sdp"),
    ]
    alice.send(bytes(Request.build("INVITE", f"sip:{bob.user}@sip.test", headers, alice.sdp())))
    invite = bob.receive("INVITE")
    assert isinstance(invite, Request)
    more = [("Contact", f"<{contact}>"), ("Content-Type", "application/sdp")]
    answer = bytes(response_to(invite, 200, to_tag="b", headers=more, body=bob.sdp()))
    (answers or bob.sip).sendto(answer, KAMAILIO)
    ok = alice.receive("200")
    assert isinstance(ok, Response)
    return invite, ok


def place(one: Phone) -> str:
    return "{}:{}".format(*one.sip.getsockname())


def reinvited(of: Phone, to: Phone, invite: Request, ok: Response, contact: str) -> tuple[Request, Response]:
    """The called phone offers anew; the caller answers with a Contact: what each got of the other."""
    headers = [
        ("Via", f"SIP/2.0/UDP {of.private}:5060;branch=z9hG4bKre{invite.call_id};rport"),
        ("Max-Forwards", "70"),
        *(("Route", route) for route in invite.headers("record-route")),
        ("From", ok.header("to") or ""),
        ("To", ok.header("from") or ""),
        ("Call-ID", invite.call_id),
        ("CSeq", "7 INVITE"),
        ("Contact", f"<sip:{of.user}@{of.private}:5060>"),
        ("Content-Type", "application/sdp"),
    ]
    target = NameAddr.parse(invite.header("contact") or "").uri.text
    of.send(bytes(Request.build("INVITE", target, headers, of.sdp())))
    again = to.receive("INVITE")
    assert isinstance(again, Request)
    more = [("Contact", f"<{contact}>"), ("Content-Type", "application/sdp")]
    to.send(bytes(response_to(again, 200, headers=more, body=to.sdp())))
    answer = of.receive("200")
    assert isinstance(answer, Response)
    return again, answer


STALE = "203.0.113.77"
"A public address that is not the phone's."


def test_a_public_address_that_is_wrong_is_repaired(example: Example) -> None:
    with phone(example.namespace, "alice", STALE) as alice, phone(example.namespace, "carol", STALE) as carol:
        register(carol)
        invite, ok = called(alice, carol, f"sip:carol@{STALE}:5060")
        assert invite.header("contact") == f"<sip:alice@{place(alice)}>"
        assert ok.header("contact") == f"<sip:carol@{place(carol)}>"
        again, answer = reinvited(carol, alice, invite, ok, f"sip:alice@{STALE}:5060")
        assert again.header("contact") == f"<sip:carol@{place(carol)}>"
        assert answer.header("contact") == f"<sip:alice@{place(alice)}>"


def test_a_gateway_that_answers_from_another_port_keeps_its_contact(example: Example) -> None:
    with (
        phone(example.namespace, "alice", STALE) as alice,
        phone(example.namespace, "gateway", "127.0.0.1") as gateway,
        phone(example.namespace, "gateway", "127.0.0.1") as other,
    ):
        contact = f"sip:gateway@{place(gateway)}"
        headers = [
            ("Via", f"SIP/2.0/UDP {place(gateway)};branch=z9hG4bKgateway"),
            ("Max-Forwards", "70"),
            ("From", "<sip:gateway@sip.test>;tag=g"),
            ("To", "<sip:gateway@sip.test>"),
            ("Call-ID", "register-gateway"),
            ("CSeq", "1 REGISTER"),
            ("Contact", f"<{contact}>;expires=600"),
        ]
        gateway.send(bytes(Request.build("REGISTER", "sip:sip.test", headers)))
        assert gateway.receive("200").header("contact") == f"<{contact}>;expires=600"
        invite, ok = called(alice, gateway, contact, other.sip)
        assert ok.header("contact") == f"<{contact}>"
        again, answer = reinvited(gateway, alice, invite, ok, f"sip:alice@{STALE}:5060")
        assert again.header("contact") == f"<sip:gateway@{gateway.private}:5060>"
        assert answer.header("contact") == f"<sip:alice@{place(alice)}>"


def test_it_runs_as_user_kamailio(example: Example) -> None:
    owners = set()
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            name, uid = status.read_text().split("\n")[0], os.stat(status.parent).st_uid
            same = os.readlink(status.parent / "ns/net") == os.readlink(f"/proc/{example.pid}/ns/net")
        except OSError:
            continue
        if "kamailio" in name and same:
            owners.add(uid)
    assert owners and 0 not in owners
    assert "ERROR" not in example.log.read_text()


def test_it_is_no_open_relay(example: Example) -> None:
    with phone(example.namespace, "mallory", "192.168.1.66") as one:
        one.request("INVITE", "sip:you@elsewhere.example", "<sip:you@elsewhere.example>", 1, body=one.sdp())
        one.receive("403")
