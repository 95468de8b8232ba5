"""The codecs of one stream: which go on, and the lines about them as rtpengine 10.5 writes them.

A section of an SDP and ``Codecs`` come in; payload types and lines go out. Nothing here makes a codec that was not
offered: that needs a transcoder.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache

from mediaproxy.dialects.ng.wanted import Codecs
from mediaproxy.sdp import Section
from mediaproxy.sdp.payloads import STATIC

ABOUT = frozenset(("rtpmap", "fmtp", "rtcp-fb"))
"Attributes whose value begins with a payload type."
_ALL = frozenset(("all", "full"))


def kept(section: Section, codecs: Codecs) -> tuple[str, ...]:
    """The formats that go on, in their order; empty if all are stripped."""
    strip = (*codecs.strip, *codecs.mask)
    if not strip or not section.rtp:
        return section.formats
    everything = not _ALL.isdisjoint(name.lower() for name in strip)
    names = _names(section)

    def stays(name: str) -> bool:
        if _listed(name, codecs.offer):
            return True
        return not _listed(name, strip) and (not everything or _listed(name, codecs.excepted))

    left = tuple(number for number in section.formats if stays(names.get(number, "")))
    return left if len(left) == len(section.formats) else _accompanied(left, section.formats, names)


def _accompanied(left: tuple[str, ...], formats: Sequence[str], names: Mapping[str, str]) -> tuple[str, ...]:
    """Without events and comfort noise of a clock rate whose last codec went, if any codec is left."""
    before, after = (
        {_rate(names.get(number, "")) for number in numbers if not _comes_beside(names.get(number, ""))}
        for numbers in (formats, left)
    )
    if not after or before == after:
        return left
    lost = before - after
    return tuple(
        number for number in left if not (_comes_beside(names.get(number, "")) and _rate(names.get(number, "")) in lost)
    )


def _comes_beside(name: str) -> bool:
    """Whether it is no codec by itself."""
    return name.partition("/")[0] in ("telephone-event", "cn")


def _rate(name: str) -> str:
    return name.partition("/")[2].partition("/")[0]


def first_only(section: Section, formats: Sequence[str]) -> tuple[str, ...]:
    """``single codec``: the first one, and what comes beside a codec."""
    names = _names(section)
    beside = [number for number in formats if _comes_beside(names.get(number, ""))]
    first = next((number for number in formats if number not in beside), None)
    return tuple(number for number in formats if number == first or number in beside)


def lines(formats: tuple[str, ...], original: tuple[str, ...]) -> tuple[str, ...]:
    """a=rtpmap, a=fmtp and a=rtcp-fb of these formats, format by format; those of static types are added.
    ``original``: the attributes of that kind as written, with ``a=``, in their order."""
    # Phones of one kind always write the same.
    short = sum(map(len, original)) + sum(map(len, formats)) <= _KEPT_LENGTH
    return (_kept_lines if short else _lines)(formats, original)


def _lines(formats: tuple[str, ...], original: tuple[str, ...]) -> tuple[str, ...]:
    named: dict[str, dict[str, list[str]]] = {}
    for text in original:
        name, _, value = text[2:].partition(":")
        parts = value.split(None, 1)
        if parts:
            named.setdefault(parts[0], {}).setdefault(name.strip(" \t"), []).append(text)
    written: list[str] = []
    for number in dict.fromkeys(formats):
        about = named.get(number, {})
        rtpmaps = about.get("rtpmap", [])[:1]
        if rtpmaps:
            written.append(_normal(rtpmaps[0]))
        elif number.isascii() and number.isdigit() and len(number) <= 3 and int(number) in STATIC:
            known = STATIC[int(number)]
            channels = "/2" if number == "10" else ""
            written.append(f"a=rtpmap:{number} {known.codec}/{known.clock_rate}{channels}")
        written += about.get("fmtp", []) + about.get("rtcp-fb", [])
    return tuple(written)


_KEPT_LENGTH = 1000
_kept_lines = lru_cache(maxsize=1024)(_lines)


def _normal(rtpmap: str) -> str:
    """rtpengine does not write one channel."""
    return rtpmap.removesuffix("/1") if rtpmap.count("/") == 2 else rtpmap


def _names(section: Section) -> dict[str, str]:
    """Format -> ``name/rate/channels`` in lower case, without ``/1``."""
    names = {str(number): f"{known.codec}/{known.clock_rate}".lower() for number, known in STATIC.items()}
    mapped: set[str] = set()
    for value in section.values("rtpmap"):
        number, _, name = value.strip().partition(" ")
        if number not in mapped:
            mapped.add(number)
            names[number] = _one_channel(name.strip().lower())
    return names


def _one_channel(name: str) -> str:
    return name.removesuffix("/1") if name.count("/") == 2 else name


def _listed(name: str, wanted: Iterable[str]) -> bool:
    """Whether one of the wanted codecs is this one: a name alone stands for all rates and channels; parameters behind
    the channels are a transcoder's business."""
    for want in wanted:
        parts = want.lower().split("/")[:3]
        short = _one_channel("/".join(parts))
        if short == (name if len(parts) > 1 else name.partition("/")[0]):
            return bool(name)
    return False
