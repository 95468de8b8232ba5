"""The four transactions in virtual time: what they send, what they deliver, when they end (RFC 3261 §17, RFC 6026)."""

from collections.abc import Iterator

import pytest

from mediaproxy.sip.message import Request, Response, parse, response_to
from mediaproxy.sip.transaction import (
    ClientTransaction,
    Deliver,
    Effect,
    ServerTransaction,
    TimedOut,
    Timers,
    Transmit,
    Unreachable,
    ack_for,
    cancel_for,
    client_key,
    server_key,
)
from mediaproxy.sip.transactionstate import (
    INVITE_CLIENT,
    INVITE_SERVER,
    NON_INVITE_CLIENT,
    NON_INVITE_SERVER,
    TABLES,
    Input,
    State,
    Table,
)

TIMERS = Timers(t1=0.5, t2=4.0, t4=5.0)
Machine = ClientTransaction | ServerTransaction


def make(method: str = "INVITE", branch: str = "z9hG4bKa", extra: str = "") -> Request:
    text = (
        f"{method} sip:bob@example.com SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.1:5060;branch={branch}\r\n"
        f"Via: SIP/2.0/UDP 192.0.2.9;branch=z9hG4bKold\r\n{extra}"
        f"From: <sip:alice@example.com>;tag=a\r\nTo: <sip:bob@example.com>\r\nCall-ID: c1\r\nCSeq: 7 {method}\r\n"
        "Content-Length: 0\r\n\r\n"
    )
    message = parse(text.encode())
    assert isinstance(message, Request)
    return message


def answer(request: Request, status: int) -> Response:
    return response_to(request, status, to_tag="b")


def sent(effects: list[Effect]) -> list[str]:
    """What was transmitted, by its start line's telling part."""
    return [e.data.split(b"\r\n")[0].decode().removesuffix(" SIP/2.0") for e in effects if isinstance(e, Transmit)]


def play(machine: Machine, until: float) -> Iterator[tuple[float, list[Effect]]]:
    """Tick a machine at its deadlines, as a shell does."""
    while machine.deadline is not None and machine.deadline <= until:
        now = machine.deadline
        yield round(now, 3), machine.tick(now)


# -- client, INVITE


def test_invite_is_repeated_until_timer_b() -> None:
    machine = ClientTransaction(make(), TIMERS, reliable=False)
    assert sent(machine.start(0.0)) == ["INVITE sip:bob@example.com"]
    happened = list(play(machine, 100.0))
    assert [at for at, effects in happened if sent(effects)] == [0.5, 1.5, 3.5, 7.5, 15.5, 31.5]
    assert happened[-1] == (32.0, [TimedOut()])
    assert machine.ended


def test_invite_over_tcp_is_sent_once() -> None:
    machine = ClientTransaction(make(), TIMERS, reliable=True)
    machine.start(0.0)
    assert list(play(machine, 100.0)) == [(32.0, [TimedOut()])]


def test_provisional_response_ends_repetition_and_timer_b() -> None:
    request = make()
    machine = ClientTransaction(request, TIMERS, reliable=False)
    machine.start(0.0)
    ringing = answer(request, 180)
    assert machine.receive(ringing, 0.1) == [Deliver(ringing)]
    assert machine.deadline is None
    assert machine.receive(ringing, 50.0) == [Deliver(ringing)]


@pytest.mark.parametrize("reliable", [False, True], ids=["udp", "tcp"])
def test_failure_is_acknowledged_hop_by_hop(reliable: bool) -> None:
    request = make(extra="Route: <sip:p1;lr>, <sip:p2;lr>\r\n")
    machine = ClientTransaction(request, TIMERS, reliable=reliable)
    machine.start(0.0)
    busy = answer(request, 486)
    effects = machine.receive(busy, 1.0)
    assert sent(effects) == ["ACK sip:bob@example.com"]
    assert effects[1] == Deliver(busy)
    if reliable:
        assert machine.ended
        return
    assert sent(machine.receive(busy, 2.0)) == ["ACK sip:bob@example.com"], "the response again: only the ACK again"
    assert machine.receive(answer(request, 200), 3.0) == [], "a 2xx behind a failure"
    assert [at for at, _ in play(machine, 100.0)] == [33.0]
    assert machine.ended


def test_every_2xx_is_delivered_for_timer_m() -> None:
    request = make()
    machine = ClientTransaction(request, TIMERS, reliable=True)
    machine.start(0.0)
    ok = answer(request, 200)
    assert machine.receive(ok, 1.0) == [Deliver(ok)]
    assert machine.receive(ok, 20.0) == [Deliver(ok)]
    assert machine.receive(answer(request, 486), 21.0) == []
    assert machine.state is State.ACCEPTED
    assert list(play(machine, 100.0)) == [(33.0, [])]
    assert machine.ended


@pytest.mark.parametrize(
    ("before", "effects", "ended"),
    [(None, [Unreachable()], True), (180, [], False), (486, [], True), (200, [], False)],
    ids=["calling", "proceeding", "completed", "accepted"],
)
def test_transport_error_of_an_invite(before: int | None, effects: list[Effect], ended: bool) -> None:
    request = make()
    machine = ClientTransaction(request, TIMERS, reliable=False)
    machine.start(0.0)
    if before:
        machine.receive(answer(request, before), 0.1)
    assert machine.fail() == effects
    assert machine.ended == ended
    assert not machine.ended or machine.deadline is None


# -- client, others


def test_request_is_repeated_until_timer_f() -> None:
    machine = ClientTransaction(make("OPTIONS"), TIMERS, reliable=False)
    machine.start(0.0)
    happened = list(play(machine, 100.0))
    assert [at for at, effects in happened if sent(effects)] == [
        *(0.5, 1.5, 3.5, 7.5, 11.5, 15.5, 19.5, 23.5, 27.5, 31.5)
    ]
    assert happened[-1] == (32.0, [TimedOut()])


def test_request_in_proceeding_is_repeated_every_t2() -> None:
    request = make("OPTIONS")
    machine = ClientTransaction(request, TIMERS, reliable=False)
    machine.start(0.0)
    trying = answer(request, 100)
    assert machine.receive(trying, 0.2) == [Deliver(trying)]
    assert [at for at, effects in play(machine, 20.0) if sent(effects)] == [0.5, 4.5, 8.5, 12.5, 16.5]


@pytest.mark.parametrize("status", [200, 404], ids=str)
def test_final_response_is_delivered_once(status: int) -> None:
    request = make("OPTIONS")
    machine = ClientTransaction(request, TIMERS, reliable=False)
    machine.start(0.0)
    final = answer(request, status)
    assert machine.receive(final, 0.2) == [Deliver(final)]
    assert machine.receive(final, 0.3) == []
    assert list(play(machine, 100.0)) == [(5.2, [])]
    assert machine.ended


def test_over_tcp_a_final_response_ends_it_at_once() -> None:
    request = make("OPTIONS")
    machine = ClientTransaction(request, TIMERS, reliable=True)
    machine.start(0.0)
    machine.receive(answer(request, 200), 0.2)
    assert machine.ended
    assert machine.deadline is None


def test_transport_error_of_a_request() -> None:
    machine = ClientTransaction(make("BYE"), TIMERS, reliable=True)
    machine.start(0.0)
    assert machine.fail() == [Unreachable()]
    assert machine.fail() == [], "twice tells nothing new"


# -- server, INVITE


def test_failure_is_repeated_until_the_ack() -> None:
    request = make()
    machine = ServerTransaction(True, TIMERS, reliable=False)
    trying, busy = bytes(answer(request, 100)), bytes(answer(request, 486))
    assert machine.repeat() == [], "no response yet"
    assert machine.respond(100, trying, 0.0) == [Transmit(trying)]
    assert machine.repeat() == [Transmit(trying)]
    assert machine.respond(486, busy, 1.0) == [Transmit(busy)]
    assert machine.repeat() == [Transmit(busy)]
    assert [at for at, effects in play(machine, 12.0) if sent(effects)] == [1.5, 2.5, 4.5, 8.5]
    assert machine.acknowledge(12.0) is False
    assert machine.state is State.CONFIRMED
    assert machine.repeat() == []
    assert list(play(machine, 100.0)) == [(17.0, [])]
    assert machine.ended


def test_failure_that_is_never_acknowledged() -> None:
    request = make()
    machine = ServerTransaction(True, TIMERS, reliable=False)
    machine.respond(486, bytes(answer(request, 486)), 0.0)
    happened = list(play(machine, 100.0))
    assert happened[-1] == (32.0, [TimedOut()])
    assert len(happened) == 11
    assert machine.ended


def test_failure_over_tcp() -> None:
    request = make()
    machine = ServerTransaction(True, TIMERS, reliable=True)
    machine.respond(486, bytes(answer(request, 486)), 0.0)
    assert machine.deadline == 32.0, "no repetition"
    machine.acknowledge(1.0)
    assert machine.ended


def test_2xx_passes_and_the_invite_again_is_absorbed() -> None:
    request = make()
    machine = ServerTransaction(True, TIMERS, reliable=False)
    ok, other = bytes(answer(request, 200)), bytes(answer(request, 202))
    assert machine.respond(200, ok, 0.0) == [Transmit(ok)]
    assert machine.repeat() == [], "RFC 6026: the phone's own repetition of the 2xx does it"
    assert machine.respond(200, ok, 0.5) == [Transmit(ok)], "that repetition"
    assert machine.respond(202, other, 1.0) == [Transmit(other)], "of another branch"
    assert machine.respond(486, other, 1.0) == []
    assert machine.acknowledge(2.0) is True, "an ACK with the INVITE's branch is the user's"
    assert list(play(machine, 100.0)) == [(32.0, [])]
    assert machine.ended


# -- server, others


def test_response_is_kept_for_timer_j() -> None:
    request = make("MESSAGE")
    machine = ServerTransaction(False, TIMERS, reliable=False)
    assert machine.repeat() == []
    ok = bytes(answer(request, 200))
    assert machine.respond(200, ok, 1.0) == [Transmit(ok)]
    assert machine.repeat() == [Transmit(ok)]
    assert machine.respond(404, ok, 2.0) == [], "one final response"
    assert list(play(machine, 100.0)) == [(33.0, [])]
    assert machine.ended


def test_provisional_response_is_repeated() -> None:
    request = make("MESSAGE")
    machine = ServerTransaction(False, TIMERS, reliable=False)
    trying = bytes(answer(request, 100))
    machine.respond(100, trying, 0.0)
    assert machine.state is State.PROCEEDING
    assert machine.repeat() == [Transmit(trying)]


def test_over_tcp_a_response_ends_it_at_once() -> None:
    machine = ServerTransaction(False, TIMERS, reliable=True)
    machine.respond(200, b"x", 0.0)
    assert machine.ended


# -- the tables


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES.keys())
def test_table_is_sound(table: Table) -> None:
    assert table[State.TERMINATED] == {}
    for state, inputs in table.items():
        assert state is State.TERMINATED or State.TERMINATED in _reachable(table, state), "no state is a trap"
        assert set(inputs.values()) <= set(table)


def _reachable(table: Table, state: State) -> set[State]:
    found, todo = {state}, [state]
    while todo:
        for after in table[todo.pop()].values():
            if after not in found:
                found.add(after)
                todo.append(after)
    return found


@pytest.mark.parametrize(
    ("table", "state", "what", "after"),
    [
        (INVITE_CLIENT, State.CALLING, Input.SUCCESS, State.ACCEPTED),
        (INVITE_CLIENT, State.PROCEEDING, Input.FAILURE, State.COMPLETED),
        (NON_INVITE_CLIENT, State.PROCEEDING, Input.TIMER_F, State.TERMINATED),
        (INVITE_SERVER, State.PROCEEDING, Input.SUCCESS, State.ACCEPTED),
        (INVITE_SERVER, State.COMPLETED, Input.ACK, State.CONFIRMED),
        (NON_INVITE_SERVER, State.TRYING, Input.FAILURE, State.COMPLETED),
    ],
    ids=lambda value: str(value) if isinstance(value, State | Input) else "",
)
def test_rows_of_the_rfc(table: Table, state: State, what: Input, after: State) -> None:
    assert table[state][what] is after


# -- messages that transactions make


def test_ack_of_a_failure() -> None:
    request = make(extra="Route: <sip:p1;lr>, <sip:p2;lr>\r\nProxy-Authorization: Digest x\r\n")
    ack = ack_for(request, answer(request, 486))
    assert ack.method == "ACK"
    assert [via.branch for via in ack.vias] == ["z9hG4bKa"], "only the top Via (RFC 3261 §17.1.1.3)"
    assert (ack.to.tag, ack.from_.tag, ack.call_id, str(ack.cseq)) == ("b", "a", "c1", "7 ACK")
    assert ack.values("Route") == ("<sip:p1;lr>", "<sip:p2;lr>")


def test_cancel() -> None:
    request = make(extra="Route: <sip:p1;lr>\r\n")
    cancel = cancel_for(request)
    assert (cancel.method, cancel.uri_text, str(cancel.cseq)) == ("CANCEL", "sip:bob@example.com", "7 CANCEL")
    assert cancel.to.tag == ""
    assert [via.branch for via in cancel.vias] == ["z9hG4bKa"]
    assert cancel.values("Route") == ("<sip:p1;lr>",)


# -- keys


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (make(), make(), True),
        (make(), make("ACK"), True),
        (make(), make("CANCEL"), False),
        (make(), make("BYE"), False),
        (make(), make(branch="z9hG4bKb"), False),
        (make(branch="1"), make(branch="1"), True),
        (make(branch="1"), make("ACK", branch="1"), True),
        (make(branch="1"), make("CANCEL", branch="1"), False),
        (make(branch="1"), make(branch="2"), False),
    ],
    ids=["again", "ack", "cancel", "bye", "branch", "2543-again", "2543-ack", "2543-cancel", "2543-branch"],
)
def test_server_key(one: Request, other: Request, same: bool) -> None:
    assert (server_key(one) == server_key(other)) == same


def test_server_key_of_who_sends_from_elsewhere() -> None:
    other = make().replace_value("Via", 0, "SIP/2.0/UDP 192.0.2.2:5060;branch=z9hG4bKa")
    assert server_key(make()) != server_key(other), "RFC 3261 §17.2.3: sent-by counts"


def test_cancel_finds_its_invite() -> None:
    assert server_key(make("CANCEL"), "INVITE") == server_key(make())


def test_client_key_tells_cancel_from_invite() -> None:
    request = make()
    assert client_key(answer(request, 200)) == client_key(request)
    assert client_key(cancel_for(request)) != client_key(request)
