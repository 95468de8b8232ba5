"""Calls through the pure proxy in virtual time: alice calls bob, and what either says within the dialog."""

from typing import Any

from mediaproxy.edge.farewell import Farewell
from mediaproxy.endpoint import Endpoint
from mediaproxy.sip.message import Request, Response
from tests.vproxy import ALICE, BOB, SDP, Out, World, reply, request

A, B = ALICE.address, BOB.address
BOTH = Farewell(told=("sip:alice@elsewhere.test", "sip:bob@example.com"))
"Both parties of such a call have got a BYE."
RANG = Farewell(cancelled=BOTH.told[:1])
"It still rang."


def invite(world: World, **more: Any) -> Request:
    """Alice calls bob."""
    call = request(body=SDP, **more)
    world.receive(call, ALICE)
    return call


def answered(world: World, **more: Any) -> tuple[Out, Response]:
    """A call that stands: the INVITE as bob got it, the 200 as alice got it."""
    invite(world, **more)
    there = world.take(f"INVITE > {B}")
    world.receive(reply(there, 200, body=SDP), BOB)
    ok = world.take(f"200 > {A}").response
    assert world.sent() == []
    return there, ok


def of_alice(method: str, ok: Response, **more: Any) -> Request:
    """A request of alice in the dialog of a 2xx."""
    routes = [("Route", str(route)) for route in reversed(ok.record_routes)]
    return request(method, str(ok.contacts[0].uri), headers=routes, to_tag=ok.to.tag, **more)


def of_bob(method: str, there: Out, **more: Any) -> Request:
    """A request of bob in the dialog of an INVITE that he has answered."""
    got = there.request
    routes = [("Route", str(route)) for route in got.record_routes]
    tags = {"from_tag": "b", "to_tag": got.from_.tag}
    fields = {"contact": f"<sip:bob@{BOB}>"} | tags | more
    return request(method, str(got.contacts[0].uri), source=BOB, headers=routes, **fields)


def pass_on(world: World, asked: Request, source: Endpoint, to: Endpoint, answer: Response | int = 200) -> None:
    """A request within the dialog goes through, and so does its answer."""
    world.receive(asked, source)
    there = world.take(f"{asked.method} > {to.address}")
    world.receive(reply(there, answer) if isinstance(answer, int) else answer, to)
    world.sent()


def byes(world: World) -> dict[str, Request]:
    """The BYEs that left, by whom they went to; nothing else did."""
    found = {out.hop.remote.address: out.request for out in world.outbox}
    assert len(found) == len(world.outbox)
    assert {one.method for one in found.values()} <= {"BYE"}
    world.outbox.clear()
    return found
