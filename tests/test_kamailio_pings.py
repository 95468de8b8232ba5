import random
from collections import defaultdict
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mediaproxy.kamailio.location import Registration
from mediaproxy.kamailio.pings import Ping, Pings, PingSettings
from tests.test_kamailio_location import one

NAT, SIP, REMOVE = 1 << 6, 1 << 7, 1 << 8
WALL = 1_795_674_290


def pings(**settings: Any) -> Pings:
    """Without the ping soon after a registration."""
    return Pings(PingSettings(**settings), "mark.", random.Random(1), soon=None)


def all_due(registration: Registration, **settings: Any) -> list[Ping]:
    """The pings of one interval."""
    under_test = pings(**settings)
    under_test.read([registration], 1000.0, WALL)
    return under_test.due(1000.0 + settings.get("natping_interval", 60))


class World:
    """Kamailio's table and a clock: registrations come and go, a tick a tenth of a second, a reading now and then."""

    def __init__(self, under_test: Pings, read_every: float) -> None:
        self.pings = under_test
        self.now = 1000.0
        self.table: dict[str, Registration] = {}
        self.sent: dict[tuple[str, int], list[float]] = defaultdict(list)
        self.silent: list[Registration] = []
        self.asked: list[str] = []
        self._every = read_every
        self._next = 0.0

    def register(self, name: str, **fields: Any) -> None:
        self.table[name] = one(**{"Ruid": name, "Last_Modified": int(WALL + self.now - 1000)} | fields)

    def run(self, seconds: float, answering: bool = False) -> None:
        until = self.now + seconds
        while self.now < until:
            self.now = round(self.now + 0.1, 3)
            if self.now >= self._next:
                self._next = self.now + self._every
                self.silent += self.pings.read(list(self.table.values()), self.now, WALL + self.now - 1000)
            for ping in self.pings.due(self.now):
                self.sent[ping.way.host, ping.way.port].append(self.now)
                if ping.sip is not None:
                    self.asked.append(ping.sip.token)
                    if answering:
                        self.pings.answered(ping.sip.token)


@pytest.mark.parametrize(
    ("fields", "settings", "pinged"),
    [
        ({"CFlags": NAT}, {}, True),
        ({"CFlags": 0}, {}, False),
        ({"CFlags": SIP}, {}, False),
        ({"CFlags": 0}, {"ping_nated_only": False}, True),
        ({"CFlags": 1 << 5}, {"nat_bflag": 5}, True),
        ({"CFlags": NAT}, {"nat_bflag": 5}, False),
        ({"CFlags": 0xFFFFFFFF}, {"nat_bflag": -1}, False),
        ({"CFlags": NAT, "Expires": "expired"}, {}, False),
        ({"CFlags": NAT, "Expires": "deleted"}, {}, False),
        ({"CFlags": NAT, "Expires": "permanent"}, {}, True),
        ({"CFlags": NAT, "Expires": 5}, {}, False),
    ],
)
def test_who_is_pinged(fields: dict[str, Any], settings: dict[str, Any], pinged: bool) -> None:
    assert bool(all_due(one(**fields), **settings)) == pinged


@pytest.mark.parametrize(
    ("fields", "where"),
    [
        ({}, ("udp", "203.0.113.9", 40123, "udp:192.0.2.1:5060")),
        ({"Received": "[not set]"}, ("udp", "10.0.0.1", 5060, "udp:192.0.2.1:5060")),
        ({"Received": "[not set]", "Address": "sip:a@10.0.0.1"}, ("udp", "10.0.0.1", 5060, "udp:192.0.2.1:5060")),
        ({"Received": "[not set]", "Address": "sip:a@10.0.0.1:0"}, ("udp", "10.0.0.1", 5060, "udp:192.0.2.1:5060")),
        (
            {"Received": "[not set]", "Address": "sip:phone.test:5070"},
            ("udp", "phone.test", 5070, "udp:192.0.2.1:5060"),
        ),
        ({"Received": "sip:[2001:db8::1]:7000"}, ("udp", "[2001:db8::1]", 7000, "udp:192.0.2.1:5060")),
        ({"Socket": "[not set]"}, ("udp", "203.0.113.9", 40123, "")),
        ({"Socket": "tcp:192.0.2.1:5060"}, ("udp", "203.0.113.9", 40123, "")),
        (
            {"Received": "sip:203.0.113.9:40123;transport=TCP", "Socket": "tcp:192.0.2.1:5060"},
            ("tcp", "203.0.113.9", 40123, "tcp:192.0.2.1:5060"),
        ),
        (
            {"Received": "sips:203.0.113.9", "Socket": "tls:192.0.2.1:5061"},
            ("tls", "203.0.113.9", 5061, "tls:192.0.2.1:5061"),
        ),
        ({"Received": "sip:203.0.113.9:40123;transport=ws"}, None),
        ({"Received": "sip:203.0.113.9:40123;transport=sctp"}, None),
        ({"Received": "[not set]", "Address": "tel:+4930123456"}, None),
        ({"Received": "[not set]", "Address": "sip:a@b@c:99999"}, None),
        ({"Received": "[not set]", "Address": ""}, None),
    ],
)
def test_where_a_ping_goes(fields: dict[str, Any], where: tuple[str, str, int, str] | None) -> None:
    due = all_due(one(**fields))
    assert [(p.way.transport, p.way.host, p.way.port, p.way.socket) for p in due] == ([where] if where else [])


def test_four_zero_bytes_or_crlf_crlf() -> None:
    assert [(ping.sip, ping.data) for ping in all_due(one())] == [(None, b"\0\0\0\0")]
    assert [ping.data for ping in all_due(one(Received="sip:203.0.113.9:1;transport=tls"))] == [b"\r\n\r\n"]


def test_one_that_cannot_be_pinged_stops_nobody() -> None:
    under_test = pings()
    under_test.read([one(Address="\x01", Received="[not set]"), one(Ruid="good")], 1000.0, WALL)
    assert len(under_test.due(1060.0)) == 1


def test_each_is_pinged_once_per_interval_and_not_in_one_burst() -> None:
    world = World(pings(natping_interval=5), read_every=1.3)
    for n in range(5000):
        world.register(f"r{n}", Received=f"sip:198.51.100.{n % 250}:{20000 + n}")
    world.run(5.1)
    assert len(world.sent) == 5000
    for second in range(1000, 1005):
        assert 800 <= sum(second + 0.1 < times[0] <= second + 1.1 for times in world.sent.values()) <= 1200
    world.run(15.0)
    for times in world.sent.values():
        assert [round(later - earlier, 1) for earlier, later in zip(times, times[1:], strict=False)] == [5.0] * 3


@given(at=st.floats(0.1, 60), port=st.integers(1, 65535), read_every=st.sampled_from([1.0, 5.0, 10.0]))
def test_a_new_one_is_met_within_an_interval(at: float, port: int, read_every: float) -> None:
    world = World(pings(natping_interval=10), read_every)
    world.run(at)
    world.register("new", Received=f"sip:203.0.113.9:{port}")
    began = world.now
    world.run(40.0)
    times = world.sent["203.0.113.9", port]
    assert times[0] - began <= 10.11
    assert all(later - earlier <= 10.11 for earlier, later in zip(times, times[1:], strict=False))
    assert len(times) <= 5


@pytest.mark.parametrize("flags", [NAT, NAT | SIP], ids=["four bytes", "SIP"])
def test_a_ping_soon_after_each_registration(flags: int) -> None:
    """Before a router forgets (30 s), and after it believes that the flow will last (2 s); then the usual rhythm."""
    for number in range(30):
        world = World(Pings(PingSettings(), "mark.", random.Random(1)), 15.0)
        world.run(100.0)
        for again in range(2):
            begin = world.now
            world.register("a", CFlags=flags, Address=f"sip:a@203.0.113.7:{5060 + number}", Expires=3600)
            world.run(600.0)
            (pinged,) = world.sent.values()
            since = [at - begin for at in pinged if at > begin]
            assert any(3 <= at <= 21 for at in since), (number, again, since)
            assert 9 <= len(since) <= 12
        assert len(world.asked) == (20 if flags & SIP else 0), "the early ones are no requests"


@pytest.mark.parametrize("apart", [0.0, 3.0, 14.0])
def test_two_contacts_of_one_phone_are_pinged_soon_once(apart: float) -> None:
    """Two lines of a phone, that are read in turn, have not registered again each time that they are read."""
    for number in range(10):
        world = World(Pings(PingSettings(), "mark.", random.Random(1)), 1.0)
        world.run(100.0)
        begin = world.now
        for name in ("a", "b"):
            world.register(name, CFlags=NAT, Received=f"sip:203.0.113.7:{1000 + number}", Expires=3600)
            world.run(apart)
        world.run(60.0 - 2 * apart)
        (pinged,) = world.sent.values()
        since = [at - begin for at in pinged]
        assert len(since) <= 3, since
        assert any(3 <= at <= 21 for at in since), since


def test_no_ping_soon_over_a_connection_or_in_a_short_interval() -> None:
    cases: list[tuple[dict[str, Any], dict[str, Any], int]] = [
        ({"Address": "sip:a@203.0.113.7:5060;transport=tcp", "Connection": 7}, {}, 11),
        ({}, {"natping_interval": 15}, 41),
    ]
    for fields, settings, most in cases:
        world = World(Pings(PingSettings(**settings), "mark.", random.Random(1)), 1.0)
        world.register("a", **{"CFlags": NAT} | fields)
        world.run(600.0)
        (pinged,) = world.sent.values()
        assert len(pinged) <= most


def test_who_has_gone_is_not_pinged_and_who_comes_back_is_pinged_once() -> None:
    world = World(pings(natping_interval=10), read_every=1.0)
    world.register("a")
    world.run(20.0)
    gone = world.table.pop("a")
    world.run(1.0)
    world.sent.clear()
    world.run(20.0)
    assert not world.sent
    for _ in range(5):
        world.table["a"] = gone
        world.run(1.5)
        del world.table["a"]
        world.run(1.5)
    world.table["a"] = gone
    world.sent.clear()
    world.run(30.5)
    assert len(world.sent["203.0.113.9", 40123]) == 3
    assert len(world.pings) == 1


def test_a_phone_that_moves_is_pinged_where_it_is_now() -> None:
    world = World(pings(natping_interval=10), read_every=1.0)
    world.register("a", Received="sip:203.0.113.9:1000")
    world.run(15.0)
    world.register("a", Received="sip:203.0.113.9:2000")
    world.run(1.1)
    before = len(world.sent["203.0.113.9", 1000])
    world.run(20.0)
    assert len(world.sent["203.0.113.9", 1000]) == before
    assert len(world.sent["203.0.113.9", 2000]) >= 2


def test_two_contacts_of_one_phone_share_four_bytes_but_not_requests() -> None:
    under_test = pings()
    two = [one(Ruid="1", Address="sip:a@10.0.0.1"), one(Ruid="2", Address="sip:b@10.0.0.1", Expires=100)]
    under_test.read(two, 1000.0, WALL)
    assert len(under_test.due(1060.0)) == 1
    under_test = pings()
    two = [one(Ruid="1", CFlags=NAT | SIP), one(Ruid="2", CFlags=NAT | SIP), one(Ruid="3")]
    under_test.read(two, 1000.0, WALL)
    assert sorted(ping.sip is not None for ping in under_test.due(1060.0)) == [False, True, True]


def test_a_server_that_was_stopped_does_not_make_up_for_it() -> None:
    under_test = pings(natping_interval=10)
    registrations = [one(Ruid=f"{n}", Received=f"sip:203.0.113.9:{1000 + n}") for n in range(500)]
    under_test.read(registrations, 1000.0, WALL)
    assert len(under_test.due(1300.0)) == 500
    per_second = [len(under_test.due(1300.0 + second)) for second in range(1, 11)]
    assert sum(per_second) == 500
    assert max(per_second) < 100


def test_who_expires_between_two_readings_gets_no_ping() -> None:
    under_test = pings(natping_interval=10)
    under_test.read([one(Expires=12)], 1000.0, WALL)
    assert len(under_test.due(1010.0)) == 1
    assert under_test.due(1030.0) == []


class TestSipPings:
    """OPTIONS, and what follows from silence."""

    def world(self, flags: int, **settings: Any) -> World:
        world = World(pings(natping_interval=10, **settings), read_every=2.5)
        world.register("a", CFlags=NAT | flags)
        return world

    def test_the_flag_of_the_registration_decides(self) -> None:
        assert [ping.sip is None for ping in all_due(one(CFlags=NAT))] == [True]
        assert [ping.sip is None for ping in all_due(one(CFlags=NAT | SIP))] == [False]
        assert [ping.sip is None for ping in all_due(one(CFlags=NAT | SIP), sipping_bflag=-1)] == [True]
        assert [ping.sip is None for ping in all_due(one(CFlags=NAT | 1), sipping_bflag=0)] == [False]

    def test_each_has_its_own_number(self) -> None:
        world = self.world(SIP)
        world.run(50.0)
        assert len(world.asked) == 5
        assert len(set(world.asked)) == 1

    @pytest.mark.parametrize(("lost", "seconds"), [(3, 20), (1, 0), (5, 40)])
    def test_a_silent_one_is_removed_after_so_many(self, lost: int, seconds: float) -> None:
        world = self.world(SIP | REMOVE, sipping_max_lost=lost)
        while not world.silent:
            world.run(0.1)
        asked = world.sent["203.0.113.9", 40123]
        assert len(asked) == lost
        assert world.silent[0].contact.ruid == "a"
        assert 5.0 <= world.now - asked[0] - seconds <= 5.0 + 2.5 + 0.2

    @pytest.mark.parametrize("flags", [0, SIP, REMOVE])
    def test_without_its_flag_nobody_is_removed(self, flags: int) -> None:
        world = self.world(flags)
        world.run(100.0)
        assert not world.silent
        assert len(world.sent["203.0.113.9", 40123]) == 10

    def test_one_that_answers_stays(self) -> None:
        world = self.world(SIP | REMOVE)
        world.run(100.0, answering=True)
        assert not world.silent

    def test_a_late_answer_counts(self) -> None:
        world = self.world(SIP | REMOVE)
        for _ in range(5):
            world.run(21.0)  # two or three pings
            world.pings.answered(world.asked[0])
        assert not world.silent

    def test_a_stranger_s_answer_does_not_count(self) -> None:
        world = self.world(SIP | REMOVE)
        world.run(29.0)
        world.pings.answered("0123456789abcdef")
        world.run(12.0)
        assert world.silent

    def test_one_that_registers_again_is_alive(self) -> None:
        world = self.world(SIP | REMOVE)
        for _ in range(5):
            world.run(21.0)
            world.register("a", CFlags=NAT | SIP | REMOVE)
        assert not world.silent

    def test_with_a_short_interval_too(self) -> None:
        world = World(pings(natping_interval=1), read_every=1.0)
        world.register("a", CFlags=NAT | SIP | REMOVE)
        world.run(6.0)
        assert world.silent

    def test_requests_go_by_the_path_and_four_bytes_straight(self) -> None:
        path = "<sip:198.51.100.7:5062;lr>,<sip:198.51.100.8;lr>"
        (ping,) = all_due(one(CFlags=NAT | SIP, Path=path))
        assert (ping.way.host, ping.way.port) == ("198.51.100.7", 5062)
        assert ping.sip is not None
        assert ping.sip.path == path
        (ping,) = all_due(one(CFlags=NAT, Path=path))
        assert ping.way.host == "203.0.113.9"


@pytest.mark.parametrize(
    "setting",
    [
        {"natping_interval": -1},
        {"sipping_max_lost": 0},
        {"nat_bflag": 32},
        {"sipping_bflag": -2},
        {"sipping_method": "INVITE"},
        {"sipping_method": "OPT IONS"},
        {"sipping_method": ""},
        {"sipping_from": "sip:a b"},
        {"sipping_from": "sip:\u20ac@x"},
    ],
)
def test_settings_that_make_no_sense_are_refused(setting: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(setting))):
        PingSettings(**setting)
