"""What the keys ``codec`` and ``sdp-attr`` ask for. Values only."""

import msgspec


class Codecs(msgspec.Struct, frozen=True, kw_only=True):
    """What the key ``codec`` asks for: codec names as written (``PCMU``, ``opus/48000/2``, ``all``, ``full``)."""

    strip: tuple[str, ...] = ()
    excepted: tuple[str, ...] = ()
    "Stay where ``all`` are stripped; who is stripped by name goes."
    offer: tuple[str, ...] = ()
    "Stay, whatever is stripped."
    mask: tuple[str, ...] = ()
    "As strip, in offers; without a transcoder there is no other way to hide a codec."


class Edits(msgspec.Struct, frozen=True, kw_only=True):
    """What ``sdp-attr`` asks for, about one part of the SDP: values of a= lines without ``a=``."""

    add: tuple[str, ...] = ()
    remove: tuple[str, ...] = ()
    substitute: tuple[tuple[str, str], ...] = ()
