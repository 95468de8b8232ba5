"""What the laboratory's judge calls heard, and what not."""

import random
from array import array
from pathlib import Path

import pytest

from lab import judge, tones
from lab.tones import Pcm


def scaled(pcm: Pcm, factor: float) -> Pcm:
    return array("h", (round(sample * factor) for sample in pcm))


def mixed(one: Pcm, other: Pcm) -> Pcm:
    return array("h", (a + b for a, b in zip(one, other, strict=True)))


ALICE, BOB, STRANGER = (tones.samples(tone, 2.0) for tone in (tones.CALLER, tones.CALLEE, tones.ATTACKER))
SILENCE = array("h", [0] * 16000)
NOISE = array("h", (random.Random(1).randint(-8192, 8192) for _ in range(16000)))


@pytest.mark.parametrize(
    ("pcm", "seconds"),
    [
        pytest.param(ALICE, 2.0, id="the tone"),
        pytest.param(tones.decode_ulaw(tones.encode_ulaw(ALICE)), 2.0, id="the tone through PCMU"),
        pytest.param(SILENCE[:8000] + ALICE[:8000], 1.0, id="half of it"),
        pytest.param(ALICE[:4001] + ALICE[4161:], 1.96, id="a packet lost"),
        pytest.param(BOB, 0.0, id="another tone"),
        pytest.param(SILENCE, 0.0, id="silence"),
        pytest.param(NOISE, 0.0, id="noise"),
        pytest.param(scaled(ALICE, 0.3), 0.0, id="too quiet"),
        pytest.param(mixed(ALICE, scaled(BOB, 1.5)), 0.0, id="drowned by another"),
        pytest.param(array("h"), 0.0, id="nothing"),
    ],
)
def test_seconds_heard(pcm: Pcm, seconds: float) -> None:
    assert judge.judge(pcm, tones.CALLER).seconds == pytest.approx(seconds, abs=0.05)


def test_one_packet_of_a_stranger_is_noticed() -> None:
    attacked = ALICE[:8000] + STRANGER[:160] + ALICE[8160:]
    assert judge.judge(attacked, tones.CALLER, (tones.ATTACKER,)).strange > 0
    assert judge.judge(ALICE, tones.CALLER, (tones.ATTACKER,)).strange == 0


def test_a_wav_whose_writer_was_killed_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    path = tmp_path / "tone.wav"
    tones.write_wav(path, ALICE)
    whole = path.read_bytes()
    path.write_bytes(whole[:4] + bytes(4) + whole[8:40] + bytes(4) + whole[44:-1001])
    assert judge.read_wav(path) == ALICE[: len(ALICE) - 501]


def test_ulaw_codes_survive() -> None:
    codes = bytes(range(256))
    again = tones.encode_ulaw(tones.decode_ulaw(codes))
    assert again == codes.replace(b"\x7f", b"\xff")  # there are two zeros
