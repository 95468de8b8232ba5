"""The kernel program as compiled: it has this version's layout, and damaged or foreign objects are refused in words."""

import random
from pathlib import Path

import pytest

from mediaproxy.relay.bpf import FastPathUnavailable
from mediaproxy.relay.bpf.btf import Btf
from mediaproxy.relay.bpf.elf import ObjectError, read
from mediaproxy.relay.bpf.objects import OBJECT, check_layout, load_object, read_object, unavailable
from mediaproxy.relay.bpf.path import possible_cpus
from mediaproxy.relay.slots import LAYOUT, Reason


@pytest.fixture(scope="module")
def data() -> bytes:
    """The object. It is made by every installation on a host with a compiler (make dev)."""
    return OBJECT.read_bytes()


def test_the_object_is_this_versions(data: bytes) -> None:
    made = read_object(data)
    assert set(made.programs) == {"tc/ethernet", "tc/plain", "xdp", "sk_lookup"}
    assert set(made.maps) == {"slots", "counters", "control", "totals", "sockets", "scratch"}
    assert made.maps["slots"].value_size == LAYOUT["slot"].size
    assert made.license == "Dual MIT/GPL"


def test_every_struct_and_enum_is_in_btf(data: bytes) -> None:
    btf = Btf(read(data).sections[".BTF"])
    check_layout(btf)
    for name, record in LAYOUT.items():
        assert btf.struct(name) == record.offsets
    assert btf.enum("reason") == {f"REASON_{reason.name}": reason for reason in Reason} | {"REASON_COUNT": len(Reason)}


def test_slots_lie_in_whole_cache_lines() -> None:
    assert LAYOUT["slot"].size % 64 == LAYOUT["counters"].size % 64 == 0
    offsets = LAYOUT["config"].offsets
    hot = max(sum(offsets[name]) for name in offsets if name not in ("gateway", "allowed", "bits", "clocks"))
    assert hot <= 56, "with the word they fill one line"


def test_another_layout_is_refused(data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(LAYOUT["config"].offsets, "peer", (36, 4))
    with pytest.raises(ObjectError, match="struct config is another"):
        read_object(data)


def test_damaged_objects_raise_nothing_else(data: bytes) -> None:
    rng = random.Random(1)
    for _ in range(300):
        damaged = bytearray(data[: rng.choice((len(data), rng.randrange(len(data))))])
        for _ in range(rng.randrange(1, 20)):
            if damaged:
                damaged[rng.randrange(min(len(damaged), 4096))] = rng.randrange(256)
        try:
            read_object(bytes(damaged))
        except ObjectError:
            continue


def test_no_object_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(FastPathUnavailable, match="could not be compiled when mediaproxy was installed"):
        load_object(tmp_path / "relay.bpf.o")
    (tmp_path / "relay.bpf.o").write_bytes(b"\x7fELF")
    with pytest.raises(FastPathUnavailable, match="install mediaproxy again"):
        load_object(tmp_path / "relay.bpf.o")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (PermissionError(1, "loading"), "CAP_BPF and CAP_NET_ADMIN"),
        (OSError(38, "loading"), "no bpf"),
        (OSError(13, "loading: Permission denied\nR0 invalid mem access"), "R0 invalid mem access"),
        (OSError(12, "creating the map slots"), "too little memory"),
    ],
)
def test_refusals_say_what_is_missing(error: OSError, words: str) -> None:
    assert words in str(unavailable("BPF programs", error))


@pytest.mark.parametrize(("text", "cpus"), [("0\n", 1), ("0-3\n", 4), ("0-3,8-11\n", 12), ("0,2\n", 3)])
def test_possible_cpus(text: str, cpus: int) -> None:
    assert possible_cpus(text) == cpus
