"""Whatever peers send: the server goes on, answers what can be answered, forgets what ended, says little about it."""

import asyncio
import logging
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mediaproxy.edge.settings import EdgeSettings
from mediaproxy.endpoint import Endpoint
from mediaproxy.sip.check import check
from mediaproxy.sip.grammar import SipError
from mediaproxy.sip.message import Request, Response, parse
from tests import edgeserver
from tests.edgeserver import call, listener, running
from tests.sipua import Phone
from tests.vproxy import ALICE, BOB, CAROL, LISTENERS, SDP, Out, World, reply, request

TORTURE = sorted(Path(__file__).with_name("rfc4475").glob("*.dat"))
GARBAGE = [
    b"\xff" * 100,
    b"\x00" * 65_507,
    b"\r\n" * 1000,
    b"A" * 65_507,
    b"INVITE",
    b"INVITE sip:bob@example.com SIP/2.0",
    b"INVITE sip:bob@example.com SIP/2.0\r\n\r\n",
    b"INVITE sip:bob@example.com SIP/2.0\r\nVia: x\r\n\r\n",
    b"SIP/2.0 200 OK\r\n\r\n",
    b"SIP/2.0 999 OK\r\nVia: SIP/2.0/UDP 127.0.0.1;branch=z9hG4bKmpx\r\n\r\n",
    b"\x16\x03\x01" + b"\x00" * 500,
    b"\x80\x00" + b"\x55" * 170,
    b"\x00\x01\x00\x08\x21\x12\xa4\x42" + b"\x01" * 20,
    b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    b"INVITE sip:bob@example.com SIP/2.0\r\n" + b"X: y\r\n" * 9000 + b"\r\n",
    b"INVITE sip:bob@example.com SIP/2.0\r\nVia: " + b",".join([b"SIP/2.0/UDP h"] * 4000) + b"\r\n\r\n",
]


@pytest.mark.usefixtures("no_leaks")
@pytest.mark.both_loops
async def test_garbage_datagrams_change_nothing(caplog: pytest.LogCaptureFixture) -> None:
    rng = random.Random(1)
    torture = [path.read_bytes() for path in TORTURE]
    caplog.set_level(logging.INFO)
    async with (
        running() as server,
        Phone("alice", server.at()) as alice,
        Phone("bob", server.at()) as bob,
        Phone("mallory", server.at(), address="127.0.0.66") as mallory,
    ):
        await bob.register()
        for round_ in range(3):
            for data in (*GARBAGE, *torture, *(rng.randbytes(rng.randrange(1, 1400)) for _ in range(50))):
                mallory.write(data)
                await asyncio.sleep(0)
            alice.request("OPTIONS", "sip:example.com")
            await alice.receive(200, "OPTIONS")
            assert round_ < 3
        await call(alice, bob)
    said = [r.getMessage() for r in caplog.records if "127.0.0.66" in r.getMessage()]
    assert len([line for line in said if "registered" not in line]) <= 6, "few lines per source"
    assert not [r for r in caplog.records if r.levelno >= logging.ERROR], "and no bug"


@pytest.mark.usefixtures("no_leaks")
async def test_garbage_connections_change_nothing(caplog: pytest.LogCaptureFixture) -> None:
    both = edgeserver.settings(listeners=(listener(), listener("tcp")))
    async with running(both) as server, Phone("alice", server.at("tcp"), "tcp") as alice:
        where = server.at("tcp")
        half = [await asyncio.open_connection(where.address, where.port) for _ in range(20)]
        for number, (_, writer) in enumerate(half):
            writer.write(GARBAGE[number % len(GARBAGE)][:30_000])
        alice.request("OPTIONS", "sip:example.com")
        await alice.receive(200, "OPTIONS")
        for _, writer in half:
            writer.transport.abort()
    assert not [r for r in caplog.records if r.levelno >= logging.ERROR]


VIA = "Via: SIP/2.0/UDP 127.0.0.1:{port};branch=z9hG4bKx\r\n"
REST = "From: <sip:a@x>;tag=1\r\nTo: <sip:bob@example.com>\r\nCall-ID: 1\r\nCSeq: 1 INVITE\r\n"


@pytest.mark.usefixtures("no_leaks")
@pytest.mark.parametrize(
    ("text", "status"),
    [
        (VIA + REST.replace("INVITE", "MESSAGE"), 400),
        (VIA + REST.replace("1 INVITE", "x INVITE"), 400),
        (VIA + REST + "Max-Forwards: many\r\n", 400),
        (VIA + REST + "Content-Length: 99\r\n", 400),
        (VIA + REST + "Contact: <sip:\r\n", 400),
    ],
    ids=["cseq-method", "cseq-number", "max-forwards", "length", "contact"],
)
async def test_broken_requests_that_can_be_answered_are(text: str, status: int) -> None:
    async with running() as server, Phone("alice", server.at()) as alice:
        data = "INVITE sip:bob@example.com SIP/2.0\r\n" + text.format(port=alice.source.port) + "\r\n"
        alice.write(data.encode())
        assert (await alice.receive(status)).get("Call-ID") == "1"


# -- the pure core under a hail of messages that are almost right

METHODS = ("INVITE", "ACK", "BYE", "CANCEL", "MESSAGE", "REGISTER", "UPDATE", "OPTIONS", "SUBSCRIBE")
STATUSES = (100, 180, 183, 200, 202, 302, 401, 407, 408, 480, 486, 487, 503, 600)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("request"), st.sampled_from(METHODS), st.integers(0, 3), st.booleans()),
        st.tuples(st.just("reply"), st.sampled_from(STATUSES), st.integers(0, 9), st.booleans()),
        st.tuples(st.just("wait"), st.integers(0, 40), st.just(0), st.just(False)),
        st.tuples(st.just("fail"), st.integers(0, 9), st.just(0), st.just(False)),
        st.tuples(st.just("media"), st.integers(0, 1), st.just(0), st.just(False)),
    ),
    max_size=25,
)


@settings(max_examples=150, deadline=None)
@given(steps)
def test_every_transaction_ends(moves: list[tuple[str, object, int, bool]]) -> None:
    """In whatever order things come, no state outlives its timers and no exception leaves the core."""
    hail(World(EdgeSettings(listeners=LISTENERS, domains=("example.com",), open=True)), moves)


def hail(world: World, moves: list[tuple[str, object, int, bool]]) -> None:
    """All of the moves, and what must be so when all timers have run out."""
    world.bind("bob", BOB, CAROL)
    world.held = []
    seen: list[Out] = []
    for kind, what, number, flag in moves:
        if kind == "request":
            body = SDP if flag else b""
            more = {"branch": f"z9hG4bK{number}", "call_id": f"c{number}", **({"to_tag": "b"} if number == 3 else {})}
            world.receive(request(str(what), body=body, **more), ALICE)  # type: ignore[arg-type]  # texts only
        elif kind == "reply" and seen:
            out = seen[number % len(seen)]
            assert isinstance(what, int)
            world.receive(reply(out, what, body=SDP if flag else b""), out.hop.remote)
        elif kind == "wait":
            assert isinstance(what, int)
            world.advance(what)
        elif kind == "fail" and seen:
            assert isinstance(what, int)
            effect = seen[what % len(seen)].failed
            if effect.failed is not None:
                world.perform(effect.failed(world.now))
        elif kind == "media" and world.held:
            world.answer()
        seen += [out for out in world.outbox if isinstance(out.message, Request)]
        world.outbox.clear()
    for _ in range(2):  # what fails at last, the script tells the media arm, and waits
        while world.held:
            world.answer()
        world.advance(1000)
    assert (world.proxy.transactions.served, world.proxy.transactions.sent) == (0, 0)
    assert world.proxy.deadline is None or world.proxy.deadline > world.now + 1e6


GOOD = [bytes(request(method, body=body)) for method, body in (("INVITE", SDP), ("BYE", b""), ("ACK", SDP))]
SHARDS = [b"\r\n", b";", b"<", b'"', b",", b"sip:", b"@", b"\xff"]


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_mutated_messages_raise_nothing_but_sip_errors(data: st.DataObject) -> None:
    world = World()
    world.bind("bob", BOB)
    base = data.draw(st.sampled_from(GOOD))
    spot = data.draw(st.integers(0, len(base)))
    gone = data.draw(st.integers(0, 30))
    new = data.draw(
        st.one_of(st.binary(max_size=20), st.sampled_from([b"\r\n", b";", b"<", b'"', b",", b"sip:", b"@"]))
    )
    text = base[:spot] + new + base[spot + gone :]
    try:
        message = parse(text)
        check(message)
    except SipError:
        return
    assert isinstance(message, Request | Response)
    world.receive(message, Endpoint("203.0.113.77", 5060))
