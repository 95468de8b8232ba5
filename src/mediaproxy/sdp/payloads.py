"""Payload types: the static table of RFC 3551 and the reading of a=rtpmap.

The formats of an m= line and its rtpmap values come in, control.PayloadType values go out. Nothing is refused here:
what cannot be read is a payload type without a name.
"""

from collections.abc import Iterable
from functools import lru_cache

from mediaproxy.control import PayloadType

# RFC 3551 §6, tables 4 and 5. G722 has 8000 Hz on purpose (§4.5.2).
STATIC: dict[int, PayloadType] = {
    number: PayloadType(number=number, codec=codec, clock_rate=clock_rate)
    for number, codec, clock_rate in (
        (0, "PCMU", 8000),
        (3, "GSM", 8000),
        (4, "G723", 8000),
        (5, "DVI4", 8000),
        (6, "DVI4", 16000),
        (7, "LPC", 8000),
        (8, "PCMA", 8000),
        (9, "G722", 8000),
        (10, "L16", 44100),
        (11, "L16", 44100),
        (12, "QCELP", 8000),
        (13, "CN", 8000),
        (14, "MPA", 90000),
        (15, "G728", 8000),
        (16, "DVI4", 11025),
        (17, "DVI4", 22050),
        (18, "G729", 8000),
        (25, "CelB", 90000),
        (26, "JPEG", 90000),
        (28, "nv", 90000),
        (31, "H261", 90000),
        (32, "MPV", 90000),
        (33, "MP2T", 90000),
        (34, "H263", 90000),
    )
}


def payload_types(formats: Iterable[str], rtpmaps: Iterable[str]) -> tuple[PayloadType, ...]:
    """The payload types of an RTP m= line, in its order, each once.

    ``formats`` are the tokens after the transport, ``rtpmaps`` the values of the stream's a=rtpmap lines
    (``96 opus/48000/2``, RFC 8866 §6.6). An rtpmap wins over the static table. Numbers above 127 cannot occur on the
    wire and are left out, like anything that is no number.
    """
    formats, rtpmaps = tuple(formats), tuple(rtpmaps)
    # Phones of one kind always write the same.
    short = sum(map(len, formats)) + sum(map(len, rtpmaps)) <= _KEPT_LENGTH
    return (_kept if short else _payload_types)(formats, rtpmaps)


def _payload_types(formats: tuple[str, ...], rtpmaps: tuple[str, ...]) -> tuple[PayloadType, ...]:
    named = _named(rtpmaps)
    numbers = dict.fromkeys(number for number in map(_number, formats) if number is not None)
    return tuple(named.get(number) or STATIC.get(number) or PayloadType(number=number) for number in numbers)


_KEPT_LENGTH = 500
_kept = lru_cache(maxsize=1024)(_payload_types)


def _named(rtpmaps: Iterable[str]) -> dict[int, PayloadType]:
    named: dict[int, PayloadType] = {}
    for value in rtpmaps:
        left, right = [*value.split(None, 1), "", ""][:2]
        number = _number(left)
        codec, _, rest = right.partition("/")
        if number is None or not codec or number in named:
            continue
        rate = rest.partition("/")[0].strip()
        clock_rate = int(rate) if rate.isascii() and rate.isdigit() and len(rate) <= 9 else 0
        named[number] = PayloadType(number=number, codec=codec, clock_rate=clock_rate)
    return named


def _number(token: str) -> int | None:
    if not token.isascii() or not token.isdigit() or len(token) > 3:
        return None
    number = int(token)
    return number if number <= 127 else None
