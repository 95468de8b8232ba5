"""The same through real sockets: the built-in edge with a real relay, and the socket of the media arm."""

import itertools
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mediaproxy.control import MediaRequest, decode, encode
from mediaproxy.endpoint import Endpoint
from mediaproxy.link import MAX_LINE, UnixLink, UnixServer
from mediaproxy.policy import Policy
from mediaproxy.server.assembly import Server
from mediaproxy.server.places import Places
from mediaproxy.sip.message import Request, parse, response_to
from mediaproxy.traversal import plan
from tests.edgeserver import listener, running, settings
from tests.fakelink import RELAY, FakeLink, port_for
from tests.sipua import Phone
from tests.test_server import config, sip
from tests.vsip import read_sdp
from tests.wholepath import ARRIVAL

pytestmark = pytest.mark.usefixtures("no_leaks")

HEAD = "v=0\r\no=- 1 1 IN IP4 10.0.0.5\r\ns=-\r\nc=IN IP4 10.0.0.5\r\nt=0 0\r\n"
EVERY = bytes(range(0xA0, 0x100)).decode("latin-1")


def body(streams: int, size: int = 0) -> str:
    """An SDP of that many streams and, if it is given, of that size."""
    text = HEAD + "".join(f"m=audio {4000 + 2 * n} RTP/AVP 0 8\r\n" for n in range(streams))
    return text + (f"a=x-{'p' * (size - len(text) - 6)}\r\n" if size else "")


class Recorder(Phone):
    """A phone that keeps the bytes of what it was sent."""

    def __init__(self, user: str, edge: Endpoint, transport: str = "udp", address: str = "127.0.0.1") -> None:
        super().__init__(user, edge, transport, address=address)
        self.came: list[bytes] = []

    def _received(self, data: bytes) -> None:
        self.came.append(data)
        super()._received(data)

    def bytes_of(self, start: bytes) -> bytes:
        """Of the first message that begins so."""
        return next(data for data in self.came if data.startswith(start))


def invite(alice: Phone, uri: str, *fields: str, sdp: str, top: str = "") -> bytes:
    """An INVITE with these fields after the usual ones."""
    lines = [
        f"INVITE {uri} SIP/2.0",
        top or f"Via: SIP/2.0/{alice.transport.upper()} {alice.source};branch=z9hG4bK-whole",
        f'From: "{EVERY}" <sip:{alice.user}@example.com>;tag=1{EVERY}',
        f"To: {EVERY} <{uri}>",
        f"Call-ID: whole{EVERY}",
        "CSeq: 1 INVITE",
        *fields,
        "Content-Type: application/sdp",
    ]
    return ("\r\n".join(lines) + "\r\n").encode("latin-1") + b"Content-Length: %d\r\n\r\n%b" % (len(sdp), sdp.encode())


FIELDS = (
    "X-Header : value",
    "x-header\t:  other  ",
    f"{EVERY}: {EVERY}",
    f'Subject: {EVERY}\r\n folded, "\xe9"',
    f'Contact: "{EVERY}" <sip:alice@10.0.0.5:5060;x={EVERY}>;y={EVERY}',
    "Max-Forwards: 70",
    f"User-Agent: {EVERY}",
    "X-Empty:",
)


@pytest.mark.parametrize("length", [True, False], ids=["", "no Content-Length"])
@pytest.mark.parametrize("vias", [1, 2])
async def test_every_field_comes_through_the_edge(vias: int, length: bool) -> None:
    async with (
        running() as server,
        Phone("alice", server.at()) as alice,
        Recorder("bob", server.at()) as bob,
    ):
        await alice.register()
        await bob.register()
        second = f" , SIP/2.0/TCP 10.0.0.9;branch=z9hG4bKfar;x={EVERY}" if vias > 1 else ""
        top = f"Via: SIP/2.0/UDP {alice.source};branch=z9hG4bK-whole;x={EVERY}{second}"
        data = invite(alice, bob.aor, *FIELDS, sdp=body(2), top=top)
        if not length:
            data = re.sub(rb"Content-Length: \d+\r\n", b"", data)
        alice.write(data)
        await bob.receive("INVITE")
        got = bob.bytes_of(b"INVITE").decode("latin-1")
        head, _, sdp = got.partition("\r\n\r\n")
        for line in data.decode("latin-1").partition("\r\n\r\n")[0].split("\r\n")[1:]:
            if not line.startswith(("Via:", "Contact:", "Max-Forwards:", "Content-Length:", " folded")):
                assert f"\r\n{line}\r\n" in f"{head}\r\n", line
        assert f'Subject: {EVERY}\r\n folded, "\xe9"\r\n' in head
        assert f"branch=z9hG4bK-whole;x={EVERY}{second}" in head
        host = f"{alice.source}" if vias == 1 else "10.0.0.5:5060"  # not ours to judge: it came through a proxy
        assert f'Contact: "{EVERY}" <sip:alice@{host};x={EVERY}>;y={EVERY}\r\n' in head
        assert re.findall(r"Content-Length: (\d+)", head) == ([str(len(sdp))] if length else [])
        written = body(2).replace("c=IN IP4 10.0.0.5", f"c=IN IP4 {RELAY}")
        for number in range(2):
            written = written.replace(f"audio {4000 + 2 * number} ", f"audio {port_for(number).rtp.port} ")
        assert sdp == written


async def test_who_has_a_connection_is_told_the_length_and_nobody_else() -> None:
    async with (
        running(settings(listeners=(listener(), listener("tcp")))) as server,
        Recorder("alice", server.at()) as alice,
        Recorder("bob", server.at("tcp"), "tcp") as bob,
    ):
        await alice.register()
        await bob.register()
        alice.write(re.sub(rb"Content-Length: \d+\r\n", b"", invite(alice, bob.aor, *FIELDS, sdp=body(2))))
        got = await bob.receive("INVITE")
        assert (len(read_sdp(got.body)), got.all("Content-Length")) == (2, [str(len(got.body))])
        bob.request("INVITE", alice.aor, body=body(2))
        await alice.receive("INVITE")
        asked = parse(alice.bytes_of(b"INVITE"))
        assert isinstance(asked, Request)
        alice.write(bytes(response_to(asked, 200, to_tag="b").remove("Content-Length")))
        assert (await bob.receive(200, "INVITE")).all("Content-Length") == ["0"]


@pytest.mark.parametrize(("transport", "size"), [("udp", 0), ("udp", 62_000), ("tcp", 65_536)])
async def test_a_hundred_streams_in_a_large_body(transport: str, size: int) -> None:
    what = settings(listeners=(listener(), listener("tcp")))
    async with (
        running(what) as server,
        Phone("alice", server.at(transport), transport) as alice,
        Phone("bob", server.at(transport), transport) as bob,
    ):
        await bob.register()
        alice.request("INVITE", bob.aor, body=body(100, size))
        got = await bob.receive("INVITE")
        assert [part.endpoint for part in read_sdp(got.body)] == [port_for(n).rtp for n in range(100)]
        assert not size or got.body.endswith("ppp\r\n") and len(got.body) > size
        bob.answer(got, 200, body(100, size))
        ok = await alice.receive(200, "INVITE")
        assert len(read_sdp(ok.body)) == 100


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    places = Places(runtime_dir=tmp_path / "run", state_dir=tmp_path / "state", records=tmp_path / "records.jsonl")
    async with Server(config(), places) as running:
        yield running


async def test_a_hundred_streams_of_a_real_relay(server: Server) -> None:
    """Every stream has ports of its own on either side."""
    at = sip(server, "tcp")
    async with (
        Phone("alice", at, "tcp", address="127.0.0.2") as alice,
        Phone("bob", at, "tcp", address="127.0.0.3") as bob,
    ):
        await alice.register()
        await bob.register()
        alice.request("INVITE", bob.aor, body=body(100, 65_536))
        got = await bob.receive("INVITE")
        bob.answer(got, 200, body(100, 65_536))
        ok = await alice.receive(200, "INVITE")
        ends = [part.endpoint for part in itertools.chain(read_sdp(got.body), read_sdp(ok.body))]
        assert len(set(ends)) == 200 and all(end.address == "127.0.0.1" and end.port % 2 == 0 for end in ends)
        bob.within("BYE", got, cseq=9)
        alice.answer(await alice.receive("BYE"), 200)
        await bob.receive(200, "BYE")


def question(sdp: str) -> MediaRequest:
    """What is asked about an INVITE with this SDP."""
    phone = Phone("alice", ARRIVAL.local, "tcp")
    planned = plan(parse(invite(phone, "sip:bob@example.com", sdp=sdp)), ARRIVAL, Policy())
    assert isinstance(planned.request, MediaRequest)
    return planned.request


STATIC = "0 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 25 26 28 31 32 33 34"


@pytest.mark.parametrize(
    "sdp",
    [
        pytest.param(body(100, 65_536), id="100 streams in 64 KiB"),
        pytest.param(HEAD + f"m=a 4 RTP/AVP {STATIC}\r\n" * 1024, id="as long as it gets"),
        pytest.param(HEAD + "m=audio 4 RTP/AVP 96\r\na=rtpmap:96 " + "\x01" * 65_000 + "\r\n", id="control characters"),
    ],
)
async def test_the_largest_questions_pass_through_the_socket(tmp_path: Path, sdp: str) -> None:
    asked = question(sdp)
    assert len(encode(asked)) < MAX_LINE and decode(encode(asked)) == asked
    arm = FakeLink()
    listening = UnixServer(tmp_path / "s", arm)
    await listening.start()
    link = UnixLink(tmp_path / "s")
    try:
        reply = await link.ask(asked)
        assert reply.error == "" and len(reply.ports) == len(asked.streams)
        assert arm.questions == [asked]
    finally:
        await link.close()
        await listening.stop()
