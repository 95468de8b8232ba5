"""When contacts are pinged, how, and from where: evenly, each from its own socket, as long as it is registered and
answers."""

from typing import Any

import pytest

from mediaproxy.edge.binding import Binding
from mediaproxy.edge.hop import Hop, Inbound
from mediaproxy.edge.keepalive import Due, KeepAlive, Pinged
from mediaproxy.edge.settings import EdgeSettings, Listener, Transport
from mediaproxy.edge.sipping import SipPings
from mediaproxy.endpoint import Endpoint
from mediaproxy.sip.check import check
from mediaproxy.sip.message import Request, Response, parse, response_to
from tests.vproxy import BOB, CAROL, EDGE, binding

UDP, TCP = Transport.UDP, Transport.TCP
START = 1_000_000.0
SECRET = b"0123456789abcdef"


def run(pings: KeepAlive, seconds: float, start: float = START) -> list[tuple[float, Hop, bytes]]:
    """What is sent, when."""
    found: list[tuple[float, Hop, bytes]] = []
    while (at := pings.deadline) is not None and at <= start + seconds:
        found += [(at - START, ping.hop, ping.data) for ping in pings.due(at).pings]
    return found


@pytest.mark.parametrize(
    ("more", "data"),
    [({"nat": True}, b"\0\0\0\0"), ({"nat": True, "transport": "tcp", "connection": "c1"}, b"\r\n\r\n")],
    ids=["udp", "tcp"],
)
def test_ping_from_the_socket_of_the_registration(more: dict[str, object], data: bytes) -> None:
    pings = KeepAlive(60.0, soon=None)
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
    pings = KeepAlive(60.0, soon=None)
    pings.saved([binding("bob", BOB, **more)], START)
    assert run(pings, 600) == []


def test_interval_0_is_off_but_nat_is_known() -> None:
    pings = KeepAlive(0.0)
    pings.saved([binding("bob", BOB, nat=True)], START)
    assert pings.deadline is None
    assert pings.natted(Inbound(BOB, UDP, EDGE))


@pytest.mark.parametrize("interval", [30.0, 60.0, 300.0])
def test_a_ping_soon_after_each_registration(interval: float) -> None:
    """Before a router forgets (30 s), and after it believes that the flow will last (2 s); then the usual rhythm."""
    for number in range(50):
        phone = Endpoint("203.0.113.7", 5060 + number)
        pings = KeepAlive(interval)
        bob = binding("bob", phone, nat=True)
        pings.saved([bob], START)
        first = [at for at, _, data in run(pings, 1000) if data == b"\0\0\0\0"]
        assert any(4 <= at <= 20 for at in first), "a ping in time"
        assert len(first) <= 1000 / interval + 2, "one more at most"
        again = START + 1000
        pings.saved([bob], again)
        pings.saved([bob], again + 1)
        second = [at - 1000 for at, _, _ in run(pings, 25, again)]
        assert any(4 <= at <= 20 for at in second) and len(second) <= 2


def test_no_ping_soon_where_none_is_needed() -> None:
    connected = KeepAlive(60.0)
    connected.saved([binding("bob", BOB, nat=True, transport="tcp", connection="c1")], START)
    assert len(run(connected, 600)) == 10, "a connection is remembered for long"
    often = KeepAlive(15.0)
    often.saved([binding("bob", BOB, nat=True)], START)
    assert len(run(often, 600)) == 40, "its rhythm is enough"
    gone = KeepAlive(60.0)
    gone.saved([binding("bob", BOB, nat=True)], START)
    gone.removed([binding("bob", BOB, nat=True)])
    assert run(gone, 600) == []
    expired = KeepAlive(60.0)
    expired.saved([binding("bob", BOB, nat=True, expires=START + 3)], START)
    assert run(expired, 600) == []


def test_thousands_are_spread_over_the_interval() -> None:
    pings = KeepAlive(60.0, soon=None)
    phones = [Endpoint(f"203.0.{n // 250}.{n % 250}", 5060) for n in range(6000)]
    pings.saved([binding(f"u{n}", phone, nat=True) for n, phone in enumerate(phones)], START)
    per_second = [0] * 60
    for at, _, _ in run(pings, 59.999):
        per_second[int(at)] += 1
    assert sum(per_second) == 6000
    assert max(per_second) < 160, "100 a second on average"


def test_registering_again_changes_nothing() -> None:
    pings = KeepAlive(60.0, soon=None)
    bob = binding("bob", BOB, nat=True)
    pings.saved([bob], START)
    for second in range(0, 600, 10):
        pings.saved([bob], START + second)
    assert len(run(pings, 600)) == 10


def test_two_contacts_of_one_phone_need_one_ping() -> None:
    pings = KeepAlive(60.0, soon=None)
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
    pings = KeepAlive(60.0, soon=None)
    pings.saved([binding("bob", BOB, nat=True, expires=START + 150)], START)
    assert len(run(pings, 600)) in (2, 3)
    assert len(pings) == 0


def test_contact_that_moved_is_pinged_where_it_is_now() -> None:
    pings = KeepAlive(60.0, soon=None)
    pings.saved([binding("bob", BOB, nat=True)], START)
    moved = binding("bob", BOB, nat=True, received=BOB.with_port(7000))
    pings.saved([moved], START)
    assert {hop.remote for _, hop, _ in run(pings, 120)} == {BOB.with_port(7000)}


def test_no_burst_after_a_pause() -> None:
    pings = KeepAlive(60.0, soon=None)
    pings.saved([binding("bob", BOB, nat=True)], START)
    assert len(pings.due(START + 6000).pings) == 1
    assert pings.deadline is not None
    assert pings.deadline > START + 6000


# SIP requests


class Phones:
    """Keep-alives by SIP in virtual time, and phones that answer them or do not."""

    def __init__(self, *bindings: Binding, interval: float = 60.0, **settings: Any) -> None:
        self.now = START
        self.settings = EdgeSettings(domains=("example.com",), **settings)
        self.sip = SipPings(self.settings, SECRET)
        self.keepalive = KeepAlive(interval, self.sip, self.listener, self.settings.sipping_max_lost, soon=None)
        self.sent: list[tuple[float, Hop, bytes]] = []
        self.silent: list[Binding] = []
        self.kept = False
        "The registrations cannot be removed: the disk is full."
        self.keepalive.saved(bindings, self.now)

    def listener(self, hop: Hop) -> Listener | None:
        assert hop.local is not None
        return Listener(transport=hop.transport, bind=hop.local)

    def advance(self, seconds: float, *answering: Endpoint, status: int = 200) -> list[str]:
        """Let time pass; who is ``answering`` answers requests at once. The names of the users who are removed."""
        end = self.now + seconds
        gone: list[Binding] = []
        while (at := self.keepalive.deadline) is not None and at <= end:
            self.now = max(self.now, at)
            due = self.keepalive.due(self.now)
            for ping in due.pings:
                self.sent.append((self.now - START, ping.hop, ping.data))
                if ping.hop.remote in answering and ping.data.strip(b"\0\r\n"):
                    self.answer(ping.data, status)
            gone += due.silent
            if not self.kept:
                self.keepalive.removed(due.silent)
        self.now = end
        return [one.aor[4:].partition("@")[0] for one in gone]

    def answer(self, data: bytes, status: int = 200) -> str:
        request = parse(data)
        assert isinstance(request, Request)
        name = self.sip.answered(response_to(request, status, to_tag="x"))
        self.keepalive.answered(name, self.now)
        return name

    @property
    def requests(self) -> list[Request]:
        found = [parse(data) for _, _, data in self.sent if data.strip(b"\0\r\n")]
        assert all(isinstance(one, Request) for one in found)
        return found  # type: ignore[return-value]  # just asserted


def by_sip(user: str, place: Endpoint, **more: object) -> Binding:
    return binding(user, place, **{"nat": True, "sip_ping": True, "remove_lost": True, **more})


def test_the_request() -> None:
    local = Endpoint("198.51.100.1", 5080)
    phones = Phones(by_sip("bob", BOB, local=local, contact="sip:bob@10.0.0.5:5062;line=7"))
    phones.advance(60)
    ((_, hop, data),) = phones.sent
    assert hop == Hop(UDP, BOB, local, "", connect=False)
    (ping,) = phones.requests
    check(ping)
    assert (ping.method, ping.uri_text) == ("OPTIONS", "sip:bob@10.0.0.5:5062;line=7")
    assert (ping.via.transport, ping.via.host, ping.via.port) == ("UDP", "198.51.100.1", 5080)
    assert ping.via.branch.startswith("z9hG4bK")
    assert ping.from_.uri.text == "sip:ping@example.com"
    assert ping.from_.tag
    assert (ping.to.uri.text, ping.to.tag) == ("sip:bob@10.0.0.5:5062;line=7", "")
    assert str(ping.cseq) == "1 OPTIONS"
    assert (ping.max_forwards, ping.header("Content-Length"), ping.body) == (70, "0", b"")
    assert data.endswith(b"\r\n\r\n")


@pytest.mark.parametrize(
    ("settings", "method", "sender"),
    [
        ({"sipping_from": "sip:ping@sipserver.net"}, "OPTIONS", "sip:ping@sipserver.net"),
        ({"sipping_method": "NOTIFY"}, "NOTIFY", "sip:ping@example.com"),
    ],
)
def test_from_and_method_can_be_set(settings: dict[str, Any], method: str, sender: str) -> None:
    phones = Phones(by_sip("bob", BOB), **settings)
    phones.advance(60)
    (ping,) = phones.requests
    assert (ping.method, ping.from_.uri.text, ping.cseq.method) == (method, sender, method)
    assert ping.header("Event") == ("keep-alive" if method == "NOTIFY" else None)


@pytest.mark.parametrize(
    ("domains", "bind", "sender"),
    [
        (("example.com", "example.net"), EDGE, "sip:ping@example.com"),
        ((), EDGE, "sip:ping@198.51.100.1"),
        ((), Endpoint("2001:db8::1", 5060), "sip:ping@[2001:db8::1]"),
        (("2001:db8::2",), EDGE, "sip:ping@[2001:db8::2]"),
        (("192.0.2.9",), EDGE, "sip:ping@192.0.2.9"),
        (("\u4f8b.example",), EDGE, "sip:ping@198.51.100.1"),
    ],
)
def test_who_asks(domains: tuple[str, ...], bind: Endpoint, sender: str) -> None:
    pings = SipPings(EdgeSettings(domains=domains), SECRET)
    data = pings.write("n", "sip:bob@10.0.0.1", (), Listener(transport=UDP, bind=bind), START)
    assert parse(data).from_.uri.text == sender


def test_advertised_address_in_via() -> None:
    listener = Listener(transport=UDP, bind=Endpoint("10.0.0.5", 5060), advertise=EDGE)
    data = SipPings(EdgeSettings(), SECRET).write("n", "sip:bob@10.0.0.1", (), listener, START)
    assert parse(data).via.host == EDGE.address


def test_over_the_connection_of_the_registration() -> None:
    phones = Phones(by_sip("bob", BOB, transport="tcp", connection="c1"))
    phones.advance(60)
    ((_, hop, _),) = phones.sent
    assert hop == Hop(TCP, BOB, EDGE, "c1", connect=False)
    assert phones.requests[0].via.transport == "TCP"


def test_by_way_of_the_path() -> None:
    phones = Phones(by_sip("bob", BOB, path=("<sip:198.51.100.77;lr>", "<sip:198.51.100.78;lr>")))
    phones.advance(60)
    (ping,) = phones.requests
    assert [route.uri.host for route in ping.routes] == ["198.51.100.77", "198.51.100.78"]
    assert phones.sent[0][1].remote == BOB


def test_flags_choose_for_each_contact() -> None:
    both, plain, sip = Endpoint("203.0.113.1", 1), Endpoint("203.0.113.2", 1), Endpoint("203.0.113.3", 1)
    phones = Phones(
        binding("one", both, nat=True),
        by_sip("two", both),
        by_sip("three", both),
        binding("four", plain, nat=True),
        by_sip("five", sip, nat=False),
        binding("six", Endpoint("203.0.113.4", 1)),
    )
    phones.advance(60)
    assert sorted((hop.remote.address, data[:10].strip(b"\0")) for _, hop, data in phones.sent) == [
        ("203.0.113.1", b""),
        ("203.0.113.1", b"OPTIONS si"),
        ("203.0.113.1", b"OPTIONS si"),
        ("203.0.113.2", b""),
        ("203.0.113.3", b"OPTIONS si"),
    ]
    assert not phones.keepalive.natted(Inbound(sip, UDP, EDGE))
    assert phones.keepalive.natted(Inbound(both, UDP, EDGE))


def test_each_request_is_a_new_one_and_none_is_repeated() -> None:
    phones = Phones(by_sip("bob", BOB, remove_lost=False))
    phones.advance(600)
    assert len(phones.requests) == 10
    assert len({ping.via.branch for ping in phones.requests}) == 10
    assert len({ping.call_id for ping in phones.requests}) == 10


def test_a_thousand_contacts_are_spread_over_the_interval() -> None:
    homes = [Endpoint(f"203.0.113.{n % 250}", 20_000 + n) for n in range(1000)]
    phones = Phones(*(by_sip(f"u{n}", home) for n, home in enumerate(homes)))
    phones.advance(59.999)
    assert len(phones.sent) == 1000
    per_second = [0] * 60
    for at, _, _ in phones.sent:
        per_second[int(at)] += 1
    assert max(per_second) <= 40, "17 on average"
    assert min(per_second) >= 3


# Who is silent


@pytest.mark.parametrize("status", [200, 100, 302, 401, 404, 405, 486, 501, 603])
def test_any_answer_keeps_a_contact(status: int) -> None:
    phones = Phones(by_sip("bob", BOB))
    assert phones.advance(6000, BOB, status=status) == []
    assert len(phones.requests) == 100


@pytest.mark.parametrize("lost", [1, 3, 5])
def test_a_silent_contact_is_removed(lost: int) -> None:
    phones = Phones(by_sip("bob", BOB), sipping_max_lost=lost)
    assert phones.advance(60.0 * lost) == []
    assert len(phones.requests) == lost
    assert phones.advance(60) == ["bob"], "an interval after the last one"
    assert phones.advance(600) == []
    assert len(phones.requests) == lost
    assert len(phones.keepalive) == 0


def test_one_without_the_flag_stays_and_is_pinged_on() -> None:
    phones = Phones(by_sip("bob", BOB, remove_lost=False))
    assert phones.advance(600) == []
    assert len(phones.requests) == 10


def test_only_silence_in_a_row_counts() -> None:
    phones = Phones(by_sip("bob", BOB))
    for _ in range(5):
        assert phones.advance(120) == [], "two are lost"
        assert phones.advance(60, BOB) == []
    assert phones.advance(180) == []
    assert phones.advance(60) == ["bob"]


def test_a_late_answer_counts() -> None:
    phones = Phones(by_sip("bob", BOB))
    phones.advance(170)
    assert len(phones.sent) >= 2
    assert phones.answer(phones.sent[0][2])
    assert phones.advance(120) == []
    assert phones.advance(120) == ["bob"]


def test_other_messages_of_the_phone_count() -> None:
    phones = Phones(by_sip("bob", BOB), by_sip("carol", CAROL))
    gone = []
    for _ in range(20):
        phones.keepalive.heard(Inbound(BOB, UDP, EDGE), phones.now)
        gone += phones.advance(60)
    assert gone == ["carol"]


def test_what_a_proxy_says_is_no_sign_of_the_phone_behind_it() -> None:
    phones = Phones(by_sip("bob", BOB, path=("<sip:198.51.100.77;lr>",)))
    gone = []
    for _ in range(20):
        phones.keepalive.heard(Inbound(BOB, UDP, EDGE), phones.now)
        gone += phones.advance(60)
    assert gone == ["bob"]


def test_registering_anew_counts() -> None:
    phones = Phones(by_sip("bob", BOB))
    gone = []
    for _ in range(20):
        gone += phones.advance(120)
        phones.keepalive.saved([by_sip("bob", BOB)], phones.now)
    assert gone == []


def test_four_zero_bytes_remove_nobody() -> None:
    phones = Phones(binding("bob", BOB, nat=True, remove_lost=True))
    assert phones.advance(6000) == []


def test_of_contacts_at_one_place_each_answers_for_itself() -> None:
    one, other = by_sip("bob", BOB), by_sip("office", BOB)
    phones = Phones(one, other)
    gone = []
    for _ in range(10):
        gone += phones.advance(60)
        if (mine := [ping for ping in phones.requests if "bob" in ping.uri_text]) and gone == []:
            phones.answer(bytes(mine[-1]))
    assert sorted(gone) == ["bob", "office"]
    assert gone[0] == "office"


def test_one_that_cannot_be_removed_is_tried_again() -> None:
    phones = Phones(by_sip("bob", BOB))
    phones.kept = True
    assert phones.advance(6 * 60) == ["bob"] * 3
    assert len(phones.requests) == 3
    phones.keepalive.heard(Inbound(BOB, UDP, EDGE), phones.now)
    assert phones.advance(60) == []
    assert len(phones.requests) == 4


def test_a_sip_asymmetric_phone_is_asked_where_it_listens() -> None:
    place = BOB.with_port(5062)
    said = {"asymmetric": True, "contact": f"sip:bob@{place}", "sent": f"<sip:bob@{place}>"}
    phones = Phones(by_sip("bob", BOB, **said))
    phones.advance(60)
    assert phones.sent[0][1].remote == place
    moved = by_sip("bob", BOB.with_port(7777), **said)
    phones.keepalive.saved([moved], phones.now)
    assert phones.keepalive.natted(Inbound(moved.received, UDP, EDGE))
    assert not phones.keepalive.natted(Inbound(BOB, UDP, EDGE))
    phones.keepalive.removed([moved])
    assert not phones.keepalive.natted(Inbound(moved.received, UDP, EDGE))
    assert len(phones.keepalive) == 0


def test_what_an_operator_is_told() -> None:
    bob, carol = by_sip("bob", BOB), binding("carol", CAROL, nat=True)
    phones = Phones(bob, carol)
    assert phones.keepalive.pinged(bob) == Pinged(method="OPTIONS")
    assert phones.keepalive.pinged(carol) == Pinged()
    assert phones.keepalive.pinged(binding("dave", BOB)) is None
    phones.advance(60, BOB)
    (at, _, _) = next(sent for sent in phones.sent if sent[1].remote == BOB)
    assert phones.keepalive.pinged(bob) == Pinged(method="OPTIONS", answered=START + at)
    phones.advance(120)
    told = phones.keepalive.pinged(bob)
    assert told is not None
    assert (told.lost, told.answered) == (2, START + at)
    off = KeepAlive(0.0)
    off.saved([carol], START)
    assert off.pinged(carol) is None


# Whose answer it is


def ping_and_answer() -> tuple[SipPings, str, Request, Response]:
    pings = SipPings(EdgeSettings(), SECRET)
    name = pings.name("udp", BOB)
    ping = parse(pings.write(name, "sip:bob@10.0.0.1", (), Listener(transport=UDP, bind=EDGE), START))
    assert isinstance(ping, Request)
    return pings, name, ping, response_to(ping, 200, to_tag="x")


def test_an_answer_is_known_without_remembering_the_request() -> None:
    pings, name, _, answer = ping_and_answer()
    assert pings.answered(answer) == name
    assert SipPings(EdgeSettings(sipping_method="NOTIFY"), SECRET).answered(answer) == name, "of a run before"
    assert SipPings(EdgeSettings(), b"another secret..").answered(answer) == ""


@pytest.mark.parametrize(
    ("header", "old", "new"),
    [
        pytest.param("Call-ID", "ping-", "ping-0", id="another contact"),
        pytest.param("Call-ID", "-", "-1", id="another request"),
        pytest.param("Via", "z9hG4bKping", "z9hG4bKmp", id="another branch"),
        pytest.param("Via", "SIP/2.0", "SIP/2.0/UDP 192.0.2.1;branch=z9hG4bKx, SIP/2.0", id="two Vias"),
        pytest.param("Via", "branch=", "x=", id="no branch"),
        pytest.param("Call-ID", "ping-", "\xffping-", id="any byte"),
    ],
)
def test_no_stranger_can_invent_one(header: str, old: str, new: str) -> None:
    pings, _, _, answer = ping_and_answer()
    text = answer.header(header)
    assert text is not None
    assert pings.answered(answer.replace(header, text.replace(old, new, 1))) == ""


@pytest.mark.parametrize("header", ["Via", "Call-ID"])
def test_an_answer_that_lacks_something_is_nobodys(header: str) -> None:
    pings, _, _, answer = ping_and_answer()
    assert pings.answered(answer.remove_value(header, 0) if header == "Via" else answer.replace(header, "")) == ""


def test_nothing_due_is_nothing() -> None:
    assert KeepAlive(60.0, soon=None).due(START) == Due([], [])
