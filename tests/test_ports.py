"""relay/ports.py: every pair is free, lent or cooling, and nothing else."""

import random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mediaproxy.endpoint import Endpoint
from mediaproxy.relay.ports import Pair, PortPool
from mediaproxy.relay.settings import RelayAddress, RelaySettings

V4, V6 = RelayAddress(bind="10.1.2.3", advertise="192.0.2.1"), RelayAddress(bind="2001:db8::1")
STRANGER, PHONE = Endpoint("198.18.0.9", 9), Endpoint("203.0.113.1", 4000)


def pool(seed: int = 1, **changed: object) -> PortPool:
    values: dict[str, object] = {
        "addresses": (V4, V6),
        "port_min": 20000,
        "port_max": 20018,
        **changed,
    }
    return PortPool(RelaySettings(**values), random.Random(seed))  # type: ignore[arg-type]  # named values


def take_all(ports: PortPool, address: RelayAddress = V4) -> list[Pair]:
    taken: list[Pair] = []
    while (pair := ports.lend(address)) is not None:
        taken.append(pair)
    return taken


def test_default_range_is_below_the_ephemeral_ports() -> None:
    """calls.md 17."""
    ports = RelaySettings(addresses=(RelayAddress(bind="192.0.2.1"),)).even_ports
    assert (ports[0], ports[-1], len(ports)) == (16384, 32766, 8192)


@pytest.mark.parametrize(
    ("first", "last", "expected"),
    [
        (20000, 20000, [20000]),
        (20001, 20004, [20002, 20004]),
        (20000, 20003, [20000, 20002]),
        (65533, 65535, [65534]),
    ],
)
def test_ranges(first: int, last: int, expected: list[int]) -> None:
    address = (RelayAddress(bind="192.0.2.1"),)
    assert list(RelaySettings(addresses=address, port_min=first, port_max=last).even_ports) == expected


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"addresses": []}, "length >= 1"),
        ({"addresses": [{"bind": "0.0.0.0"}]}, "no address of one host"),
        ({"addresses": [{"bind": "relay.example"}]}, "expected an IP address"),
        ({"addresses": [{"bind": "2001:DB8::1"}]}, "usual form"),
        ({"addresses": [{"bind": "192.0.2.1", "advertise": "2001:db8::1"}]}, "same IP version"),
        ({"addresses": [{"bind": "192.0.2.1"}, {"bind": "192.0.2.2"}]}, "need different names"),
        ({"addresses": [{"bind": "192.0.2.1", "name": "a"}, {"bind": "192.0.2.2", "name": "a"}]}, "different names"),
        ({"addresses": [{"bind": "192.0.2.1"}, {"bind": "192.0.2.1", "name": "a"}]}, "only once"),
        (
            {"addresses": [{"bind": "10.0.0.1", "advertise": "192.0.2.1"}, {"bind": "192.0.2.1", "name": "a"}]},
            "only once",
        ),
        ({"addresses": [{"bind": f"192.0.2.{n}", "name": str(n)} for n in range(1, 10)]}, "length <= 8"),
        ({"port_min": 20001, "port_max": 20001}, "no even port"),
        ({"port_min": 80}, "port_min"),
        ({"routable": ["10.0.0.1/8"]}, "routable"),
        ({"silence": -1}, "silence"),
        ({"latch_others": "always"}, "latch_others"),
        ({"probation": 5}, "probation"),
    ],
    ids=str,
)
def test_settings_that_are_refused(wrong: dict[str, object], says: str) -> None:
    values = {"addresses": [{"bind": "192.0.2.1"}], **wrong}
    with pytest.raises(msgspec.ValidationError, match=says):
        msgspec.convert(values, RelaySettings)


def test_even_rtp_odd_rtcp_advertised_and_bound() -> None:
    pair = pool().lend(V4)
    assert pair is not None
    assert pair.rtp.address == "10.1.2.3" and pair.advertised.address == "192.0.2.1"
    assert pair.rtp.port % 2 == 0 and pair.rtcp.port == pair.rtp.port + 1
    assert pair.advertised.port == pair.rtp.port and pair.advertised_rtcp.port == pair.rtcp.port


def test_random_order() -> None:
    orders = {tuple(pair.rtp.port for pair in take_all(pool(seed))) for seed in range(5)}
    assert len(orders) == 5 and tuple(range(20000, 20020, 2)) not in orders
    assert {tuple(sorted(order)) for order in orders} == {tuple(range(20000, 20020, 2))}


def test_exhaustion_and_versions() -> None:
    ports = pool(addresses=(V4,))
    assert len(take_all(ports)) == 10 and ports.lend(V4) is None
    assert ports.lend(V6) is None, "no such address"


def test_addresses_of_one_version_have_their_own_ports() -> None:
    inside = RelayAddress(bind="10.9.9.9", name="inside")
    ports = pool(addresses=(V4, inside, V6))
    taken = take_all(ports)
    assert {pair.rtp.address for pair in taken} == {V4.bind}
    more = take_all(ports, inside)
    assert {pair.rtp.address for pair in more} == {inside.bind} and len(more) == 10
    assert ports.most == 30 and (ports.free(V4), ports.free(inside), ports.free(V6)) == (0, 0, 10)
    for pair in more:
        ports.cool(pair, 0.0)
    assert ports.force(V4, 1000.0) is None, "another address helps nobody"
    assert ports.force(inside, 1000.0) == more[0]
    later = pool(addresses=(V4, inside, V6))
    assert all(later.may_adopt(pair) for pair in taken)
    later.adopt(taken[0])
    later.settle(99)
    assert (later.free(V4), later.free(inside)) == (9, 10)
    assert not pool(addresses=(V6,)).may_adopt(taken[0])


def test_every_lending_has_its_own_generation() -> None:
    ports = pool()
    first = take_all(ports)
    for pair in first:
        ports.unlend(pair)
    second = take_all(ports)
    assert len({pair.generation for pair in first + second}) == 20


@pytest.mark.parametrize(
    ("endpoint", "ours"),
    [
        ("192.0.2.1:RTP", True),
        ("10.1.2.3:RTP", True),
        ("192.0.2.1:RTCP", True),
        ("192.0.2.1:22222", False),
        ("203.0.113.1:RTP", False),
        ("[2001:db8::1]:RTP", False),
    ],
)
def test_ours(endpoint: str, ours: bool) -> None:
    """A spiral is known by our own address, advertised or bound, with a lent port."""
    ports = pool()
    pair = ports.lend(V4)
    assert pair is not None
    text = endpoint.replace("RTCP", str(pair.rtcp.port)).replace("RTP", str(pair.rtp.port))
    assert ports.ours(Endpoint.parse(text)) is ours
    ports.unlend(pair)
    assert not ports.ours(Endpoint.parse(text))


# -- cooling (calls.md 10): 30 s, and until 5 s have passed without any packet


@pytest.mark.parametrize(
    ("packets", "free_at"),
    [
        ([], 30.0),
        ([10.0], 30.0),
        ([24.9], 30.0),
        ([26.0], 31.0),
        ([29.0, 33.0, 37.0], 42.0),
        ([29.9], 34.9),
    ],
)
def test_a_port_cools(packets: list[float], free_at: float) -> None:
    ports = pool()
    (pair, *_) = take_all(ports)
    ports.cool(pair, 0.0)
    for at in packets:
        assert ports.thaw(at) == []
        ports.heard(pair.rtcp, pair.generation, STRANGER, at)
    assert ports.thaw(free_at - 0.01) == [] and ports.lend(V4) is None
    assert ports.thaw(free_at) == [pair]
    again = ports.lend(V4)
    assert again is not None and again.rtp == pair.rtp and again.generation > pair.generation


def test_packets_of_another_generation_cool_nothing() -> None:
    ports = pool()
    pair = ports.lend(V4)
    assert pair is not None
    ports.cool(pair, 0.0)
    ports.heard(pair.rtp, pair.generation - 1, STRANGER, 29.0)
    ports.heard(Endpoint("192.0.2.1", 5060), 1, STRANGER, 29.0)
    assert ports.thaw(30.0) == [pair]


def test_a_sprayer_cannot_keep_all_ports_cooling() -> None:
    """Only strangers still send to a cooled port: a relay that has no other may lend it."""
    ports = pool()
    taken = take_all(ports)
    for pair in taken:
        ports.cool(pair, 0.0, {PHONE.address})
    for pair in taken:
        ports.heard(pair.rtp, pair.generation, STRANGER, 40.0)
    ports.heard(taken[0].rtp, taken[0].generation, PHONE, 40.0)
    assert ports.thaw(40.0) == []
    assert ports.force(V6, 40.0) is None
    assert ports.force(V4, 29.0) is None, "not before it has cooled"
    forced = ports.force(V4, 40.0)
    assert forced == taken[1], "not the one that its phone still sends to"
    lent = ports.lend(V4)
    assert lent is not None and lent.rtp == forced.rtp


def test_withdrawn_ports_never_come_back() -> None:
    ports = pool()
    taken = take_all(ports)
    ports.withdraw(taken[0])
    for pair in taken[1:]:
        ports.cool(pair, 0.0)
    assert len(ports.thaw(30.0)) == 9 and ports.cooling == ports.lent == 0
    assert {pair.rtp for pair in take_all(ports)} == {pair.rtp for pair in taken[1:]}


def test_drain() -> None:
    ports = pool()
    taken = take_all(ports)
    for pair in taken:
        ports.cool(pair, 0.0)
    assert ports.drain() == taken and ports.free(V4) == 10 and ports.thaw(100.0) == []


@given(
    st.lists(
        st.tuples(st.sampled_from(["lend4", "lend6", "unlend", "cool", "heard", "thaw", "force"]), st.integers(0, 9))
    )
)
def test_no_pair_is_ever_lost_or_lent_twice(steps: list[tuple[str, int]]) -> None:
    ports, now = pool(), 0.0
    lent: list[Pair] = []
    cooling: list[Pair] = []
    for verb, number in steps:
        now += number
        if verb.startswith("lend"):
            pair = ports.lend(V4 if verb == "lend4" else V6)
            assert pair is None or pair.rtp not in {other.rtp for other in lent + cooling}
            lent += [pair] if pair else []
        elif verb in ("unlend", "cool") and lent:
            pair = lent.pop(number % len(lent))
            if verb == "unlend":
                ports.unlend(pair)
            else:
                ports.cool(pair, now)
                cooling.append(pair)
        elif verb == "heard" and cooling:
            pair = cooling[number % len(cooling)]
            ports.heard(pair.rtp, pair.generation, STRANGER, now)
        else:
            freed = ports.thaw(now) if verb != "force" else [p for p in [ports.force(V4, now)] if p]
            cooling = [pair for pair in cooling if pair not in freed]
        assert ports.free(V4) + ports.free(V6) + len(lent) + len(cooling) == 20
        assert (ports.lent, ports.cooling) == (len(lent), len(cooling))
        assert ports.lent_of.total() == len(lent)
