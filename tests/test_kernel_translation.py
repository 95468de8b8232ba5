"""Flows as the kernel program reads them, and back: nothing is lost that an adopted call needs."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from mediaproxy.endpoint import Endpoint
from mediaproxy.relay.flow import Flow, SlotCounters
from mediaproxy.relay.kernel.netlink import Way
from mediaproxy.relay.kernel.translation import config_of, counters_of, flow_of, routed, state_of
from mediaproxy.relay.portmap import PortMap
from mediaproxy.relay.slots import BRIEF, CONFIG, State, Word, encode

PORTS = PortMap(addresses=(("192.0.2.1", "203.0.113.9"), ("2001:db8::1", "2001:db8::1")), port_min=20000, ports=1000)
WAY = Way(3, 1500)
LOCAL, PEER = Endpoint("192.0.2.1", 20000), Endpoint("2001:db8::1", 20010)
PHONE = Endpoint("198.51.100.7", 4000)

_PORT = st.integers(1, 65535)
_V4 = st.builds(Endpoint, st.ip_addresses(v=4).map(str), _PORT)
_PREFIXES = st.lists(
    st.builds(lambda ip, bits: f"{ip}/{bits}", st.ip_addresses(v=4).map(str), st.just(32)), max_size=4, unique=True
).map(tuple)

_CLOCKS = st.lists(st.tuples(st.integers(0, 127), st.sampled_from([8000, 16000, 48000, 90000])), max_size=11).map(tuple)


@st.composite
def flows(draw: st.DrawFn) -> Flow:
    """Any flow of an IPv4 port that is more than deaf."""
    source = draw(st.none() | _V4)
    has_peer = draw(st.booleans())
    target = draw(st.none() | _V4.filter(lambda one: PORTS.own(one) is None))
    return Flow(
        local=LOCAL,
        generation=draw(st.integers(1, 0xFFFFFFFF)),
        peer=PEER if has_peer or (source is None and target is None) else None,
        peer_generation=draw(st.integers(1, 0xFFFFFFFF)) if has_peer or (source is None and target is None) else 0,
        source=source,
        target=target,
        allowed=draw(_PREFIXES),
        tos=draw(st.none() | st.integers(0, 255)),
        settled_at=draw(st.sampled_from([None, 0.0])) if source else None,
        clocks=draw(_CLOCKS),
    )


@given(flows(), st.integers(0, 65535))
def test_a_flow_comes_back_as_it_was(flow: Flow, change: int) -> None:
    data = encode(config_of(flow, PORTS, WAY, settled=flow.settled_at is not None))
    fields = {name: data[at : at + size] for name, (at, size) in CONFIG.offsets.items()}
    word = Word(flow.generation, 1, state_of(flow, PORTS), change)
    assert flow_of(flow.local, word, fields, PORTS) == flow


def test_a_deaf_flow_comes_back() -> None:
    flow = Flow(local=LOCAL, generation=3)
    assert state_of(flow, PORTS) is State.DEAF
    assert flow_of(LOCAL, Word(3, 0, State.DEAF, 1), {}, PORTS) == flow


@pytest.mark.parametrize(
    ("changes", "state"),
    [
        ({}, State.DEAF),
        ({"target": PHONE}, State.LEARNING),
        ({"peer": PEER, "peer_generation": 1}, State.LEARNING),
        ({"source": PHONE, "peer": PEER, "peer_generation": 1}, State.LEARNED),
        ({"source": PHONE}, State.LEARNED),
        ({"source": PHONE, "peer": Endpoint("192.0.2.1", 40000), "peer_generation": 1}, State.LEARNING),
    ],
    ids=["deaf", "target", "peer", "learned", "no peer", "a peer in other maps: by user space"],
)
def test_states(changes: dict[str, object], state: State) -> None:
    assert state_of(replace(Flow(local=LOCAL, generation=1), **changes), PORTS) is state


@pytest.mark.parametrize(
    ("target", "found"),
    [
        (None, None),
        (PHONE, PHONE),
        (Endpoint("198.51.100.7", 0), None),
        (Endpoint("198.51.100.7", 70000), None),
        (Endpoint("2001:db8::7", 5), None),
        (Endpoint("203.0.113.9", 20008), Endpoint("192.0.2.1", 20008)),
        (Endpoint("192.0.2.1", 20008), Endpoint("192.0.2.1", 20008)),
        (Endpoint("203.0.113.9", 5060), Endpoint("203.0.113.9", 5060)),
    ],
    ids=["none", "a phone", "port 0", "no port", "other version", "as advertised", "as bound", "not of the relay"],
)
def test_where_routing_must_lead(target: Endpoint | None, found: Endpoint | None) -> None:
    assert routed(Flow(local=LOCAL, generation=1, target=target), PORTS) == found


def test_a_target_without_a_way_is_none() -> None:
    flow = Flow(local=LOCAL, generation=1, target=PHONE)
    assert config_of(flow, PORTS, None, settled=False).target is None
    assert config_of(flow, PORTS, Way(1, 65536), settled=False).mtu == 0, "longer than any packet: not checked"
    assert not config_of(flow, PORTS, WAY, settled=False).own


def test_targets_of_the_relay_itself_are_marked() -> None:
    config = config_of(
        Flow(local=LOCAL, generation=1, target=Endpoint("203.0.113.9", 20008)), PORTS, WAY, settled=False
    )
    assert config.own and config.target == Endpoint("192.0.2.1", 20008)


def brief(**values: int) -> tuple[int, ...]:
    return tuple(values.get(name, 0) for name in BRIEF)


def test_counters() -> None:
    values = brief(
        generation=7,
        packets=3,
        bytes=500,
        last=2_500_000_000,
        rtp=3,
        lost=-1,
        jitter=16_000_000,
        tick=4_000_000,
        ssrc=9,
        sequence=4,
        payload_type=128 + 8,
        undeliverable=1,
        dropped=2,
    )
    assert counters_of(LOCAL, 7, values, 1000.0) == SlotCounters(
        local=LOCAL,
        generation=7,
        packets=3,
        bytes=500,
        last=1002.5,
        rtp=3,
        lost=-1,
        jitter=0.001,
        ssrc=9,
        sequence=4,
        payload_type=8,
        undeliverable=1,
        dropped=2,
    )


@pytest.mark.parametrize(("generation", "whose"), [(8, 7), (7, 0)], ids=["the call before", "nothing came yet"])
def test_counters_of_another_lending_are_none(generation: int, whose: int) -> None:
    values = brief(generation=whose, packets=3)
    assert counters_of(LOCAL, generation, values, 0.0) == SlotCounters(local=LOCAL, generation=generation)


def test_without_rtp_nothing_is_said_of_it() -> None:
    counters = counters_of(LOCAL, 1, brief(generation=1, packets=1, last=1), 0.0)
    assert (counters.ssrc, counters.payload_type, counters.jitter) == (None, None, None)
