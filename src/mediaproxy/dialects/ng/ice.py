"""ICE (RFC 8839) as rtpengine's NG protocol treats it, with the relay as a lite agent (RFC 8445 §2.5).

What the words and the two parties say comes in: what becomes of a stream's ICE. And the lines for that go out.
"""

from collections.abc import Iterable, Iterator
from enum import Enum

from mediaproxy.control import MediaPort
from mediaproxy.dialects.ng.memo import StreamMemo
from mediaproxy.sdp.ice import candidate_foundation


class Ice(Enum):
    """What becomes of the ICE lines of a stream."""

    REMOVE = "remove"
    OWN = "own"
    "The phone's go, the relay's come."
    OWN_RELAY = "own relay"
    "The same, but as relayed candidates; c= and m= stay the phone's."
    JOIN = "join"
    "The phone's stay, the relay is one more candidate of the phone."
    RELAY = "relay"
    "The same, but as a relayed candidate, which others of its kind give way to; c= and m= stay the phone's."


_DEFAULT = frozenset(("default", ""))


def word(words: frozenset[str]) -> str:
    """The one word that counts."""
    known = ("remove", "force", "force-relay", "optional", "default")
    return next((name for name in known if name in words), "")


def chosen(words: frozenset[str], had: bool, *, wanted: bool) -> Ice:
    """What becomes of a stream's ICE. ``had``: its SDP has some as it came. ``wanted``: who will read it has ICE, or,
    of an offer, may get what it came with."""
    choice = word(words)
    if choice == "remove":
        return Ice.REMOVE
    if choice == "force":
        return Ice.OWN
    if choice in _DEFAULT:
        return Ice.OWN if wanted else Ice.REMOVE
    if had:
        return Ice.RELAY if choice == "force-relay" else Ice.JOIN
    return Ice.OWN_RELAY if choice == "force-relay" else Ice.OWN


LITE = (Ice.OWN, Ice.OWN_RELAY)
"The relay is an agent of its own."
RELAYED = (Ice.RELAY, Ice.OWN_RELAY)
"Media goes by the relay only if ICE finds that way."


def takes_ours(memo: StreamMemo | None) -> bool:
    """Whether a party is known to have ICE."""
    return memo is not None and memo.ice


def passing(words: frozenset[str]) -> str:
    """The word by which the phones' ICE passes; empty: it does not."""
    choice = word(words)
    return choice if choice in ("optional", "force-relay") else ""


def in_answer(words: frozenset[str], memo: StreamMemo) -> frozenset[str]:
    """The words that count in an answer to who is known by that memo: without one as in the offer; and nobody who has
    no ICE is shown candidates, unless that is forced."""
    choice = word(words)
    if choice in _DEFAULT and memo.joined:
        return frozenset(("optional",))
    return frozenset(("remove",)) if passing(words) and not memo.ice else words


_HOST = (126 << 24) + (65535 << 8)
_RELAY = (0 << 24) + (65535 << 8)
_JOINED_HOST = 125 << 24
_JOINED_RELAY = 0


def own(port: MediaPort, address: str, *, combined: bool, relay: bool, trickle: bool) -> Iterator[str]:
    """The relay's own lines for a stream. ``address``: what SDP shows; ``combined``: RTCP comes to the RTP port;
    ``relay``: as a relayed candidate; ``trickle``: the reader has trickle ICE, which a lite agent needs nothing for."""
    yield f"a=ice-ufrag:{port.ufrag}"
    yield f"a=ice-pwd:{port.password}"
    if trickle:
        yield "a=ice-options:trickle"
    yield from _candidates(port, address, _RELAY if relay else _HOST, combined=combined, relay=relay)


def joined(port: MediaPort, address: str, candidates: Iterable[str], *, combined: bool, relay: bool) -> Iterator[str]:
    """The relay as a further candidate of the phone, after the phone's own of its type. ``candidates``: values of the
    phone's a=candidate lines."""
    kind = "relay" if relay else "host"
    priority = _RELAY if relay else _HOST
    if any(_type_of(candidate) == kind for candidate in candidates):
        priority = _JOINED_RELAY if relay else _JOINED_HOST
    yield from _candidates(port, address, priority, combined=combined, relay=relay)


def _candidates(port: MediaPort, address: str, priority: int, *, combined: bool, relay: bool) -> Iterator[str]:
    components = [port.rtp] if combined or port.rtcp is None else [port.rtp, port.rtcp]
    foundation = candidate_foundation(port.rtp.address)
    for component, place in enumerate(components, 1):
        # RFC 8445 §5.1.2.1: the lower the component, the higher the priority
        text = f"a=candidate:{foundation} {component} UDP {priority + 256 - component} {address} {place.port}"
        yield f"{text} typ relay raddr {address} rport {place.port}" if relay else f"{text} typ host"


def is_relayed(candidate: str) -> bool:
    """Whether the value of an a=candidate line is a relayed candidate."""
    return _type_of(candidate) == "relay"


def _type_of(candidate: str) -> str:
    words = candidate.split()
    at = words.index("typ") + 1 if "typ" in words else len(words)
    return words[at] if at < len(words) else ""


def trickles(options: Iterable[str]) -> bool:
    """Whether a=ice-options values name trickle ICE."""
    return any("trickle" in value.split() for value in options)
