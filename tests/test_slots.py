"""The layout of the kernel's maps: what is written is read back, and never half of it."""

from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mediaproxy.endpoint import Endpoint
from mediaproxy.relay.portmap import Control, PortMap, Rate, known_ports
from mediaproxy.relay.settings import RelayAddress, RelaySettings
from mediaproxy.relay.slots import (
    CONFIG,
    CONTROL,
    COUNTERS,
    SLOT,
    CounterTable,
    Flag,
    SlotConfig,
    SlotTable,
    State,
    Word,
    encode,
    layout_hash,
    packed,
    prefix,
    tick,
    unpacked,
)

PHONE, OTHER = Endpoint("198.51.100.1", 4000), Endpoint("2001:db8::2", 5000)
PORTS = PortMap(addresses=(("192.0.2.1", "203.0.113.1"), ("2001:db8::1", "2001:db8::1")), port_min=16384, ports=16384)


def field(data: bytes, name: str) -> bytes:
    at, size = CONFIG.offsets[name]
    return data[at : at + size]


def test_a_configuration_is_where_the_program_looks() -> None:
    data = encode(
        SlotConfig(
            address=1,
            version=6,
            source=OTHER,
            target=PHONE,
            ifindex=3,
            mtu=1500,
            peer=7,
            peer_generation=1 << 32 | 9,
            tos=184,
            allowed=("198.51.100.0/24", "2001:db8::/64"),
            settled=True,
            clocks=((0, 8000), (101, 8000), (96, 48000)),
        )
    )
    assert field(data, "source") == packed("2001:db8::2")
    assert field(data, "target") == bytes(10) + b"\xff\xff" + bytes([198, 51, 100, 1])
    assert field(data, "source_port") == (5000).to_bytes(2, "big")
    assert field(data, "peer_generation") == (9).to_bytes(4, "little")
    assert field(data, "flags")[0] == Flag.V6 | Flag.TARGET | Flag.TOS | Flag.SETTLED
    assert field(data, "bits") == bytes([96 + 24, 64, 0, 0])
    assert field(data, "allowed")[:16] == packed("198.51.100.0")
    first = int.from_bytes(field(data, "clocks")[4:8], "little")
    assert (first & 127, first >> 7) == (101, tick(8000))


@pytest.mark.parametrize(
    "allowed", [None, ("0.0.0.0/0",), ("::/0",), tuple(f"192.0.2.{number}/32" for number in range(5))]
)
def test_everybody_is_allowed_where_prefixes_cannot_say_less(allowed: tuple[str, ...] | None) -> None:
    assert field(encode(SlotConfig(allowed=allowed)), "flags")[0] & Flag.ANY


def test_nobody_is_allowed_by_no_prefix() -> None:
    assert not field(encode(SlotConfig(allowed=())), "flags")[0] & Flag.ANY


def test_a_clock_too_slow_to_be_said_is_left_out() -> None:
    assert not any(field(encode(SlotConfig(clocks=((98, 900), (200, 8000)))), "clocks"))


@pytest.mark.parametrize(("rate", "nanoseconds"), [(8000, 125000), (48000, 20833.33), (90000, 11111.11), (1000, 1e6)])
def test_ticks_are_exact_enough(rate: int, nanoseconds: float) -> None:
    assert tick(rate) / 32 == pytest.approx(nanoseconds, rel=2e-6)
    assert tick(rate) < 1 << 25


@given(st.integers(0, 0xFFFFFFFF), st.integers(0, 1), st.sampled_from(list(State)), st.integers(0, 0xFFFF))
def test_words(generation: int, copy: int, state: State, change: int) -> None:
    word = Word(generation, copy, state, change)
    assert Word.of(int(word)) == word


@given(st.ip_addresses())
def test_addresses(address: object) -> None:
    text = str(address)
    if not text.startswith("::ffff:"):
        assert unpacked(packed(text)) == text


def test_a_change_writes_the_idle_copy_and_counts() -> None:
    buffer = bytearray(4 * SLOT.size)
    table = SlotTable(memoryview(buffer))
    table.store(2, 5, State.LEARNING, SlotConfig(target=PHONE))
    first = table.word(2)
    assert (first.generation, first.state, first.change) == (5, State.LEARNING, 1)
    before = table.config_bytes(2)
    table.store(2, 5, State.LEARNED, SlotConfig(target=PHONE, source=PHONE))
    second = table.word(2)
    assert second.copy != first.copy
    assert second.change == 2
    at = 2 * SLOT.size + 8 + first.copy * CONFIG.size
    assert bytes(buffer[at : at + CONFIG.size]) == before, "a reader of the old copy reads all of it"
    assert [table.word(index).state for index in range(4)] == [State.FREE, State.FREE, State.LEARNED, State.FREE]
    table.free(2)
    assert table.word(2).state is State.FREE
    assert not any(buffer[: 2 * SLOT.size]), "other slots are not touched"


def test_changes_wrap() -> None:
    table = SlotTable(memoryview(bytearray(SLOT.size)))
    for _ in range(0x10001):
        table.free(0)
    assert table.word(0).change == 1


def test_counters_by_slot_and_by_column() -> None:
    buffer = bytearray(3 * COUNTERS.size)
    values = dict.fromkeys(COUNTERS.names, 0) | {"packets": 7, "lost": -2, "ssrc": 99, "sequence": 5, "spare": b""}
    buffer[COUNTERS.size : 2 * COUNTERS.size] = COUNTERS.struct.pack(*values.values())
    table = CounterTable(memoryview(buffer))
    read = table.read(1)
    assert (read["packets"], read["lost"], read["ssrc"], read["sequence"]) == (7, -2, 99, 5)
    assert table.column("packets") == [0, 7, 0]
    assert table.column("lost") == [0, -2, 0]
    assert table.column("sequence", slice(1, 2)) == [5]
    assert table.column("payload_type") == [0, 0, 0]


@given(
    st.lists(
        st.tuples(
            st.integers(0, 2**40), st.integers(0, 2**50), st.integers(0, 9), st.integers(0, 9), st.integers(0, 3)
        ),
        max_size=30,
    ),
    st.lists(st.integers(0, 3), max_size=30),
)
def test_sums_are_those_of_the_slots_that_are_lent(rows: list[tuple[int, int, int, int, int]], lent: list[int]) -> None:
    """``lent``: generations; counters of another one are an earlier flow's."""
    buffer = bytearray(len(rows) * COUNTERS.size)
    names = ("packets", "bytes", "undeliverable", "dropped", "generation")
    for at, row in enumerate(rows):
        values = dict.fromkeys(COUNTERS.names, 0) | dict(zip(names, row, strict=True)) | {"spare": b""}
        COUNTERS.struct.pack_into(buffer, at * COUNTERS.size, *values.values())
    table, lent = CounterTable(memoryview(buffer)), lent[: len(rows)]
    assert [list(column) for column in table.columns(names)] == [[row[at] for row in rows] for at in range(5)]
    ours = [row for row, generation in zip(rows, lent, strict=False) if row[4] == generation]
    expected = {name: sum(row[at] for row in ours) for at, name in enumerate(names[:4])}
    assert table.sums(array("I", lent)) == expected


def test_sums_of_many_slots() -> None:
    count = 10_000
    values = dict.fromkeys(COUNTERS.names, 0) | {"packets": 3, "generation": 1, "spare": b""}
    table = CounterTable(memoryview(bytearray(COUNTERS.struct.pack(*values.values()) * count)))
    assert table.sums(array("I", [1] * count))["packets"] == 3 * count


# -- ports


def test_ports_have_slots_and_slots_ports() -> None:
    for index in (0, 1, 16383, 16384, PORTS.slots - 1):
        assert PORTS.index(PORTS.endpoint(index)) == index
    assert PORTS.index(Endpoint("192.0.2.1", 16383)) is None
    assert PORTS.index(Endpoint("192.0.2.1", 32768)) is None
    assert PORTS.index(Endpoint("203.0.113.1", 16384)) is None, "nothing comes to an address that is only advertised"


def test_own_targets_are_sent_to_where_they_are_bound() -> None:
    assert PORTS.own(Endpoint("203.0.113.1", 20000)) == Endpoint("192.0.2.1", 20000)
    assert PORTS.own(Endpoint("192.0.2.1", 20000)) == Endpoint("192.0.2.1", 20000)
    assert PORTS.own(Endpoint("192.0.2.1", 5060)) is None
    assert PORTS.own(PHONE) is None


def test_the_ports_of_settings() -> None:
    settings = RelaySettings(addresses=(RelayAddress(bind="192.0.2.1"),), port_min=20001, port_max=20008)
    assert PortMap.of(settings) == PortMap(addresses=(("192.0.2.1", "192.0.2.1"),), port_min=20002, ports=8)


def test_the_control_value_says_what_it_is_for() -> None:
    data = Control(ports=PORTS).encode()
    assert len(data) == CONTROL.size
    layout, ports = known_ports(data)
    assert layout == layout_hash()
    assert ports == PortMap(addresses=(("192.0.2.1",) * 2, ("2001:db8::1",) * 2), port_min=16384, ports=16384)


def test_rates() -> None:
    assert Rate(1000, 250).encode() == (10**6).to_bytes(4, "little") + (249 * 10**6).to_bytes(4, "little")
    assert prefix("198.51.100.9/24") == (packed("198.51.100.0"), 120)
