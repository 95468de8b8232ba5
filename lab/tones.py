"""The tones that tell the laboratory's talkers apart: 8 kHz, 16 bit mono sines at -12 dBFS.

Each talker has its own frequency, so a recording shows not only that there is sound, but whose.
"""

import array
import math
import wave
from pathlib import Path
from typing import TypeAlias

Pcm: TypeAlias = "array.array[int]"

RATE = 8000
"Samples per second, everywhere in the laboratory."
CALLER = 440
CALLEE = 1000
THIRD = 1500
ATTACKER = 2000
LEVEL_DBFS = -12.0
"Level of every tone."


def samples(frequency: int, seconds: float) -> Pcm:
    """A sine of ``frequency`` Hz as signed 16-bit samples."""
    amplitude = 32768 * 10 ** (LEVEL_DBFS / 20)
    step = 2 * math.pi * frequency / RATE
    return array.array("h", (round(amplitude * math.sin(step * n)) for n in range(round(RATE * seconds))))


def write_wav(path: Path, pcm: Pcm) -> None:
    """Store samples as a WAV file."""
    with wave.open(str(path), "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(RATE)
        out.writeframes(pcm.tobytes())


def encode_ulaw(pcm: Pcm) -> bytes:
    """PCMU (ITU-T G.711 µ-law) of 16-bit samples."""
    return bytes(_ulaw(sample) for sample in pcm)


def _ulaw(sample: int) -> int:
    sign = 0x80 if sample < 0 else 0
    magnitude = min(abs(sample), 32635) + 132
    exponent = magnitude.bit_length() - 8
    return ~(sign | exponent << 4 | (magnitude >> (exponent + 3) & 0x0F)) & 0xFF


def _linear(code: int) -> int:
    code = ~code & 0xFF
    magnitude = (((code & 0x0F) << 3) + 132 << (code >> 4 & 7)) - 132
    return -magnitude if code & 0x80 else magnitude


_LINEAR = tuple(_linear(code) for code in range(256))


def decode_ulaw(data: bytes) -> Pcm:
    """16-bit samples of PCMU bytes."""
    return array.array("h", (_LINEAR[code] for code in data))
