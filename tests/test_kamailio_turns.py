"""What a Kamailio process remembers of the message in hand, with a Kamailio of few lines. tests/e2e has a real one."""

from dataclasses import dataclass
from typing import cast

from mediaproxy.endpoint import Endpoint
from mediaproxy.kamailio.host import Host
from mediaproxy.kamailio.turns import Turns
from mediaproxy.module import OK, RouteType
from mediaproxy.nat import Arrival
from mediaproxy.policy import Policy

SOURCE = Endpoint("192.0.2.7", 5060)


@dataclass
class FakeHost:
    """The message in hand, as Kamailio tells of it."""

    number: int
    message: bytes
    kind: RouteType = RouteType.REQUEST

    def message_id(self) -> object:
        return self.number

    def data(self) -> bytes:
        return self.message

    def route(self, msg: object) -> RouteType:
        return self.kind

    def arrival(self, msg: object) -> Arrival:
        return Arrival(SOURCE, "udp", SOURCE)

    def branch(self) -> int:
        return 0

    def text(self, name: str) -> str:
        return ""


def invite(call_id: str, more: str = "") -> bytes:
    return (
        f"INVITE sip:b@sip.test SIP/2.0\r\nVia: SIP/2.0/UDP 10.0.0.1;branch=z9hG4bK{call_id}\r\n"
        f"From: <sip:a@sip.test>;tag=1\r\nTo: <sip:b@sip.test>\r\nCall-ID: {call_id}\r\nCSeq: 1 INVITE\r\n"
        f"Contact: <sip:a@10.0.0.1>\r\n{more}Content-Length: 0\r\n\r\n"
    ).encode()


def test_edits_that_were_put_into_the_buffer_leave_it_the_same_message() -> None:
    host = FakeHost(1, invite("one"))
    turns = Turns(cast(Host, host), Policy)
    before = turns.turn(object())
    before.scope.media, before.memory.spent = OK, 0.2
    host.message = invite("one", "X-Edited: yes\r\n")
    after = turns.turn(object())
    assert after.memory is not before.memory
    assert (after.scope.media, after.memory.spent) == (OK, 0.2)


def test_a_suspended_request_may_have_the_number_of_the_one_before() -> None:
    """Each process counts for itself; that in which suspended requests go on gets those of all others."""
    host = FakeHost(7, invite("one"))
    turns = Turns(cast(Host, host), Policy)
    before = turns.turn(object())
    before.scope.media, before.memory.spent = OK, 0.2
    host.message = invite("two")
    after = turns.turn(object())
    assert (after.scope.media, after.memory.spent, after.memory.answers) == (None, 0.0, [])
    assert after.run.arrived.call_id == "two"
