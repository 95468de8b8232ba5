"""When NATed contacts are pinged, and from where: evenly, each from its own socket, as long as it is registered."""

import pytest

from mediaproxy.edge.hop import Hop, Inbound
from mediaproxy.edge.keepalive import KeepAlive
from mediaproxy.edge.settings import Transport
from mediaproxy.endpoint import Endpoint
from tests.vproxy import BOB, EDGE, binding

UDP, TCP = Transport.UDP, Transport.TCP
START = 1_000_000.0


def run(pings: KeepAlive, seconds: float, start: float = START) -> list[tuple[float, Hop, bytes]]:
    """What is sent, when."""
    found: list[tuple[float, Hop, bytes]] = []
    while (at := pings.deadline) is not None and at <= start + seconds:
        found += [(at - START, ping.hop, ping.data) for ping in pings.due(at)]
    return found


@pytest.mark.parametrize(
    ("more", "data"),
    [({"nat": True}, b"\0\0\0\0"), ({"nat": True, "transport": "tcp", "connection": "c1"}, b"\r\n\r\n")],
    ids=["udp", "tcp"],
)
def test_ping_from_the_socket_of_the_registration(more: dict[str, object], data: bytes) -> None:
    pings = KeepAlive(60.0)
    local = Endpoint("198.51.100.1", 5080)
    pings.saved([binding("bob", BOB, local=local, **more)], START)
    sent = run(pings, 600)
    assert len(sent) == 10
    transport, name = (TCP, "c1") if "connection" in more else (UDP, "")
    assert {hop for _, hop, _ in sent} == {Hop(transport, BOB, local, name, connect=False)}
    assert {ping for _, _, ping in sent} == {data}
    pauses = {round(after[0] - before[0], 3) for before, after in zip(sent, sent[1:], strict=False)}
    assert pauses == {60.0}


@pytest.mark.parametrize(
    "more", [{"nat": False}, {"nat": True, "transport": "tcp"}], ids=["not-natted", "connection-gone"]
)
def test_no_ping(more: dict[str, object]) -> None:
    pings = KeepAlive(60.0)
    pings.saved([binding("bob", BOB, **more)], START)
    assert run(pings, 600) == []


def test_interval_0_is_off_but_nat_is_known() -> None:
    pings = KeepAlive(0.0)
    pings.saved([binding("bob", BOB, nat=True)], START)
    assert pings.deadline is None
    assert pings.natted(Inbound(BOB, UDP, EDGE))


def test_thousands_are_spread_over_the_interval() -> None:
    pings = KeepAlive(60.0)
    phones = [Endpoint(f"203.0.{n // 250}.{n % 250}", 5060) for n in range(6000)]
    pings.saved([binding(f"u{n}", phone, nat=True) for n, phone in enumerate(phones)], START)
    per_second = [0] * 60
    for at, _, _ in run(pings, 59.999):
        per_second[int(at)] += 1
    assert sum(per_second) == 6000
    assert max(per_second) < 160, "100 a second on average"


def test_registering_again_changes_nothing() -> None:
    pings = KeepAlive(60.0)
    bob = binding("bob", BOB, nat=True)
    pings.saved([bob], START)
    for second in range(0, 600, 10):
        pings.saved([bob], START + second)
    assert len(run(pings, 600)) == 10


def test_two_contacts_of_one_phone_need_one_ping() -> None:
    pings = KeepAlive(60.0)
    one, other = binding("bob", BOB, nat=True), binding("office", BOB, nat=True)
    pings.saved([one, other], START)
    assert len(run(pings, 60)) == 1
    pings.removed([one])
    assert pings.natted(Inbound(BOB, UDP, EDGE))
    assert len(run(pings, 60, START + 60)) == 1
    pings.removed([other])
    assert not pings.natted(Inbound(BOB, UDP, EDGE))
    assert run(pings, 600, START + 120) == []
    assert len(pings) == 0


def test_expired_contact_is_not_pinged() -> None:
    pings = KeepAlive(60.0)
    pings.saved([binding("bob", BOB, nat=True, expires=START + 150)], START)
    assert len(run(pings, 600)) in (2, 3)
    assert len(pings) == 0


def test_contact_that_moved_is_pinged_where_it_is_now() -> None:
    pings = KeepAlive(60.0)
    pings.saved([binding("bob", BOB, nat=True)], START)
    moved = binding("bob", BOB, nat=True, received=BOB.with_port(7000))
    pings.saved([moved], START)
    assert {hop.remote for _, hop, _ in run(pings, 120)} == {BOB.with_port(7000)}


def test_no_burst_after_a_pause() -> None:
    pings = KeepAlive(60.0)
    pings.saved([binding("bob", BOB, nat=True)], START)
    assert len(pings.due(START + 6000)) == 1
    assert pings.deadline is not None
    assert pings.deadline > START + 6000
