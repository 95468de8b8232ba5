"""Judges recordings: for how many seconds is whose tone heard, and is anybody else's in it?

A recording is cut into windows of 40 ms. A window counts as heard if the tone is there at the level it was sent with
(within 6 dB) and holds most of the window's energy; so silence, noise and clipping are not taken for the talker. A
stranger's tone counts from -45 dBFS on: one packet of his is enough.
"""

import array
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from lab import tones
from lab.tones import Pcm

WINDOW = 0.040
"Seconds per judged window."
TOLERANCE_DB = 6.0
STRANGER_DBFS = -45.0
_SHARE = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """What one recording holds."""

    tone: int
    "The tone that was looked for, Hz."
    seconds: float
    "For how long it was heard."
    length: float
    "Length of the recording in seconds."
    level: float
    "Mean level of the heard windows in dBFS; -inf if nothing was heard."
    strange: float
    "Seconds in which one of the unwanted tones was heard."


def read_wav(path: Path) -> Pcm:
    """The samples of a 16-bit mono 8 kHz WAV file, also of one whose writer was killed before it fixed the lengths."""
    data = path.read_bytes()
    start = data.find(b"data")
    if not data.startswith(b"RIFF") or start < 0:
        return array.array("h")
    body = data[start + 8 :]
    return array.array("h", body[: len(body) // 2 * 2])


def level(window: Iterable[int], count: int, frequency: float) -> float:
    """Amplitude of one frequency in ``count`` samples, 32768 = full scale (Goertzel's algorithm)."""
    turn = 2 * math.cos(2 * math.pi * frequency / tones.RATE)
    last = before = 0.0
    for sample in window:
        last, before = sample + turn * last - before, last
    power = last * last + before * before - turn * last * before
    return 2 * math.sqrt(max(power, 0.0)) / count


def dbfs(amplitude: float) -> float:
    """Level in dB of full scale; -inf for silence."""
    return 20 * math.log10(amplitude / 32768) if amplitude > 0 else -math.inf


def judge(pcm: Pcm, tone: int, unwanted: Iterable[int] = ()) -> Heard:
    """What is heard of ``tone`` in a recording, and of the ``unwanted`` tones."""
    size = round(WINDOW * tones.RATE)
    unwanted = tuple(unwanted)
    levels: list[float] = []
    strange = 0
    for start in range(0, len(pcm) - size + 1, size):
        window = pcm[start : start + size]
        energy = sum(sample * sample for sample in window)
        if energy == 0:
            continue
        amplitude = level(window, size, tone)
        if abs(dbfs(amplitude) - tones.LEVEL_DBFS) <= TOLERANCE_DB and amplitude**2 / 2 * size >= _SHARE * energy:
            levels.append(amplitude)
        if any(dbfs(level(window, size, other)) >= STRANGER_DBFS for other in unwanted):
            strange += 1
    return Heard(
        tone=tone,
        seconds=len(levels) * WINDOW,
        length=len(pcm) / tones.RATE,
        level=dbfs(sum(levels) / len(levels)) if levels else -math.inf,
        strange=strange * WINDOW,
    )
