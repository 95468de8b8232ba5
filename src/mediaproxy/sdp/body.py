"""Finding the SDP in a message body, which may be a multipart (RFC 2046), and putting another in its place.

Content-Type and body come in; the bytes of the SDP, and after an edit the whole body again, go out. Every byte outside
the SDPs stays, but for a Content-Length that the part, or a multipart around it, declares about itself. A body in which
no SDP can be read (another type, compressed, a broken multipart) is simply one without SDP; nothing is raised.
"""

import re
from collections.abc import Iterator, Sequence
from itertools import chain

import msgspec

from mediaproxy.sip.grammar import WS, Params, canonical, unfold, unquote

_DEEPEST = 4
"Multiparts within multiparts that are looked into."
_HEADER = re.compile(rb"(?m:^)([!-9;-~]++)[ \t]*+:((?:[^\r\n]|\r(?!\n)|\r?\n[ \t])*+)")
_BLANK = re.compile(rb"\r?\n\r?\n")


class _Length(msgspec.Struct, frozen=True, kw_only=True):
    """A Content-Length inside the body."""

    start: int
    end: int
    length: int
    "Of what it is about: its true length."


class _Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where an SDP is."""

    start: int
    "Index of its first byte in the body."
    end: int
    "Index behind its last byte."
    lengths: tuple[_Length, ...]
    "What the parts around it declare about themselves."


class SdpPart(msgspec.Struct, frozen=True, kw_only=True):
    """The SDP of a body, and where it is."""

    body: bytes
    "All of it."
    places: tuple[_Place, ...]
    "The SDP, then those that may be taken in its stead."

    @property
    def sdp(self) -> bytes:
        """The SDP."""
        return self._at(self.places[0])

    @property
    def alternatives(self) -> tuple[bytes, ...]:
        """Other SDPs of the same multipart/alternative (RFC 2046 §5.1.4), best first: whoever reads the body takes one
        of them if the SDP is beyond him."""
        return tuple(self._at(place) for place in self.places[1:])

    def _at(self, place: _Place) -> bytes:
        return self.body[place.start : place.end]

    def with_sdp(self, sdp: bytes, alternatives: Sequence[bytes] | None = None) -> bytes:
        """The body with another SDP in this place, and other alternatives. ValueError if there are more or fewer of
        these than there were."""
        if len(self.places) == 1 and not alternatives and not self.places[0].lengths:
            return self.body[: self.places[0].start] + sdp + self.body[self.places[0].end :]
        written = (sdp, *(self.alternatives if alternatives is None else alternatives))
        edits = {place.start: (place.end, text) for place, text in zip(self.places, written, strict=True)}
        grown: dict[_Length, int] = {}
        for place, text in zip(self.places, written, strict=True):
            for length in place.lengths:
                grown[length] = grown.get(length, 0) + len(text) - (place.end - place.start)
        for length, more in grown.items():
            edits[length.start] = (length.end, str(length.length + more).encode())
        pieces, done = [], 0
        for start, (end, text) in sorted(edits.items()):
            pieces += [self.body[done:start], text]
            done = end
        return b"".join((*pieces, self.body[done:]))


class _Entity(msgspec.Struct, frozen=True, kw_only=True):
    """A body, or one part of a multipart."""

    content_type: str
    encoded: bool
    "Compressed or in base64, for example."
    start: int
    end: int
    lengths: tuple[_Length, ...]


def find_sdp(body: bytes, content_type: str | None, content_encoding: str = "") -> SdpPart | None:
    """The SDP of a body, or None. Both header values as in the message; ``content_type`` None if it has none.

    ``application/sdp`` is the SDP; of a ``multipart/alternative`` its last such part, which counts before the others
    (RFC 2046 §5.1.4); of any other ``multipart/...`` its first. A part with Content-Disposition early-session (RFC
    3959) does not count: it is about another session. Without a Content-Type a body counts that starts with ``v=``.
    Whatever is compressed or otherwise encoded is not looked into.
    """
    if content_type is None:
        content_type = "application/sdp" if body.startswith(b"v=") else ""
    whole = _Entity(content_type=content_type, encoded=_encoded(content_encoding), start=0, end=len(body), lengths=())
    places = _find(body, whole, 0)
    return SdpPart(body=body, places=places) if places else None


def _find(body: bytes, entity: _Entity, depth: int) -> tuple[_Place, ...]:
    """The SDP of an entity and its alternatives, best first."""
    if entity.start == entity.end or entity.encoded:
        return ()
    kind, semicolon, rest = entity.content_type.partition(";")
    kind = "/".join(part.strip(WS) for part in kind.lower().split("/"))  # RFC 3261 §25.1 SLASH
    if kind == "application/sdp":
        return (_Place(start=entity.start, end=entity.end, lengths=entity.lengths),)
    if not kind.startswith("multipart/") or depth >= _DEEPEST:
        return ()
    boundary = unquote(Params(semicolon + rest).get("boundary", ""))
    if not boundary:
        return ()
    found = (_find(body, part, depth + 1) for part in _parts(body, entity, boundary.encode("latin-1")))
    if kind == "multipart/alternative":
        return tuple(chain.from_iterable(reversed(list(found))))
    return next(filter(None, found), ())


def _parts(body: bytes, entity: _Entity, boundary: bytes) -> Iterator[_Entity]:
    """RFC 2046 §5.1.1: the parts between the delimiter lines; a missing last one is the end of the body."""
    delimiter = re.compile(rb"(?:(?<![^\n])|\r?\n)--" + re.escape(boundary) + rb"(--)?[ \t]*+(?:(?=\r?\n)|\Z)")
    start: int | None = None
    for match in delimiter.finditer(body, entity.start, entity.end):
        if start is not None:
            yield _part(body, start, max(start, match.start()), entity.lengths)
        if match[1]:
            return
        start = body.find(b"\n", match.end(), entity.end) + 1 or entity.end
    if start is not None:
        yield _part(body, start, entity.end, entity.lengths)


def _part(body: bytes, start: int, end: int, lengths: tuple[_Length, ...]) -> _Entity:
    content = start
    if body.startswith((b"\r\n", b"\n"), start):  # no headers at all
        head_end = start
        content = body.index(b"\n", start) + 1
    else:
        blank = _BLANK.search(body, start, end)
        head_end, content = (blank.start(), blank.end()) if blank else (end, end)
    content = min(content, end)
    fields = {"content-type": "text/plain"}
    for match in _HEADER.finditer(body, start, head_end):
        name = canonical(match[1].decode("latin-1"))
        fields[name] = unfold(match[2].decode("latin-1"))
        if name == "content-length" and (digits := re.search(rb"[0-9]+", match[2])):
            at = match.start(2) + digits.start()
            lengths = (*lengths, _Length(start=at, end=at + len(digits[0]), length=end - content))
    encoded = _encoded(fields.get("content-encoding", "")) or _encoded(fields.get("content-transfer-encoding", ""))
    if fields.get("content-disposition", "").partition(";")[0].strip(WS).lower() == "early-session":
        fields["content-type"] = ""
    return _Entity(content_type=fields["content-type"], encoded=encoded, start=content, end=end, lengths=lengths)


def _encoded(encoding: str) -> bool:
    return encoding.strip().lower() not in ("", "identity", "7bit", "8bit", "binary")
