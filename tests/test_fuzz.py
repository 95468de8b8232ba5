"""The fuzz targets (fuzz/) without a fuzzer: their corpora, and what hypothesis makes of them."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuzz.dialects import dialect
from fuzz.house import House
from fuzz.targets import TARGETS
from mediaproxy.control import MediaRequest, Party
from mediaproxy.dialects.doorsettings import DoorProtocol
from mediaproxy.dialects.rtpproxy.dialect import RtpProxy
from tests.relaybench import stream

CORPUS = Path(__file__).parent.parent / "fuzz" / "corpus"
SEEDS = {name: [path.read_bytes() for path in sorted((CORPUS / name).iterdir())] for name in TARGETS}


@pytest.mark.parametrize("name", TARGETS)
def test_the_corpus_finds_nothing(name: str) -> None:
    assert len(SEEDS[name]) >= 10 and all(len(data) <= 4096 for data in SEEDS[name])
    for data in SEEDS[name]:
        TARGETS[name](data)


@pytest.mark.parametrize("name", TARGETS)
@given(st.data())
def test_small_accidents_find_nothing(name: str, data: st.DataObject) -> None:
    base = data.draw(st.sampled_from(SEEDS[name]))
    at = data.draw(st.integers(0, len(base)))
    gone = data.draw(st.integers(0, 8))
    TARGETS[name](base[:at] + data.draw(st.binary(max_size=8)) + base[at + gone :])


# -- what they would find


def test_an_error_that_the_server_would_only_log_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: RtpProxy, request: bytes, peer: object) -> None:
        raise KeyError(request)

    monkeypatch.setattr(RtpProxy, "answer", broken)
    target = dialect(DoorProtocol.RTPPROXY, ("udp", "unix", "tcp"))
    for transport in (0, 1, 2):
        with pytest.raises((KeyError, AssertionError)):
            target(bytes((transport, 0)) + b"V\n")


def test_a_call_that_is_left_over_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    house = House()
    nobody = Party()
    request = MediaRequest(
        call_id="c", sender=Party(tag="a"), receiver=nobody, cseq=1, sdp_hash="", streams=(stream("203.0.113.1:4000"),)
    )
    assert not house.told(request).error
    house.settle()
    house = House()
    house.told(request)
    monkeypatch.setattr(house.bench.calls, "tick", lambda now, counters: [])
    with pytest.raises(AssertionError):
        house.settle()
