"""The parts of an SDP body: the session part and one section per m= line, as views of the body's lines.

The lines of a body (bytes, each with its line end) come in, views with line numbers go out. A view never changes a
byte: edits are the business of rewrite.py. Only what a relay needs is read (m=, c=, some a=); all other lines, known or
not, are passed over. What cannot be read there is an SdpError that names the line.
"""

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache

import msgspec

from mediaproxy.endpoint import address_text


class SdpError(ValueError):
    """A body that is no usable SDP; the text names the line and what was expected there."""


_LINE_END = b"\r\n"
# RFC 8866 §5.14: m=<media> <port>[/<number of ports>] <proto> <fmt> ...
MEDIA = re.compile(r"m=[ \t]*(\S+)[ \t]+([0-9]+)(?:/([0-9]+))?[ \t]+(\S+)([^\r\n]*)", re.ASCII)
# RFC 8866 §5.7: c=<nettype> <addrtype> <connection-address>[/<ttl>[/<number of addresses>]]
CONNECTION = re.compile(r"c=[ \t]*(\S+)[ \t]+(\S+)[ \t]+(\S+)", re.ASCII)
# RFC 3605 §2.1: a=rtcp:<port> [<nettype> <addrtype> <connection-address>]
RTCP = re.compile(r"a=[ \t]*rtcp[ \t]*:[ \t]*([0-9]{1,5})(?!\S)(?:[ \t]+(\S+)[ \t]+(\S+)[ \t]+(\S+))?", re.ASCII)


class Connection(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A c= line."""

    line: int
    "Its index among the lines of the body."
    addrtype: str
    "``IP4`` or ``IP6`` as written; it may contradict the address."
    text: str
    "The address as written, with /ttl if it has one."
    address: str | None
    "The IP address in canonical text, without /ttl; None for a host name."

    @property
    def held(self) -> bool:
        """Whether it is the old hold: 0.0.0.0 (RFC 2543 §B.5) or ::."""
        return self.address in ("0.0.0.0", "::")


class Attribute(msgspec.Struct, frozen=True, gc=False):
    """An a= line."""

    line: int
    name: str
    value: str
    "What follows the colon; empty for a property attribute."


class Block(msgspec.Struct, frozen=True, kw_only=True):
    """The session part of a body."""

    first: int
    "Index of its first line."
    end: int
    "Index behind its last line."
    connections: tuple[Connection, ...] = ()
    "Its c= lines. More than one is legal only for multicast; then the first is taken and all are rewritten."
    attributes: tuple[Attribute, ...] = ()
    names: frozenset[str] = frozenset()
    "The names of its attributes."

    @property
    def connection(self) -> Connection | None:
        """The first c= line."""
        return self.connections[0] if self.connections else None

    def values(self, name: str) -> Iterator[str]:
        """The values of all attributes of that name, in order."""
        return iter([attribute.value for attribute in self.attributes if attribute.name == name])

    def has(self, *names: str) -> bool:
        """Whether there is an attribute of one of these names."""
        return not self.names.isdisjoint(names)


class Section(Block, frozen=True, kw_only=True):
    """An m= line and what belongs to it. ``first`` is the m= line itself."""

    kind: str
    port: int
    "0 to 65535."
    count: int = 1
    "Number of ports (``/n``)."
    transport: str
    formats: tuple[str, ...] = ()

    @property
    def carried(self) -> bool:
        """Whether a media relay is asked for it: RTP in all its profiles and udptl, over UDP, with DTLS or without."""
        upper = self.transport.upper()
        return upper.startswith(("RTP", "UDP")) and ("RTP" in upper or "UDPTL" in upper) and "TCP" not in upper

    @property
    def rtp(self) -> bool:
        """Whether it is RTP, so that RTCP belongs to it."""
        return "RTP/" in self.transport or "RTP/" in self.transport.upper()

    @property
    def rtcp(self) -> tuple[int, str]:
        """The port for RTCP, 0 if there is none, and its address if a=rtcp names one that can be read, else ""."""
        if not self.port or not self.rtp or self.has("rtcp-mux-only"):
            return 0, ""
        for value in self.values("rtcp"):
            match = RTCP.match(f"a=rtcp:{value}")
            if match is not None and int(match[1]) <= 65535:
                named = match[4] or ""
                return int(match[1]), "" if "%" in named else address_text(named) or ""
        # RFC 3550 §11: the next higher port.
        return (self.port + 1, "") if self.port < 65535 else (0, "")


def split(body: bytes) -> tuple[bytes, ...]:
    """The lines of a body, each with its line end: CRLF, LF or CR (RFC 8866 §5 asks for CRLF and tolerance for LF)."""
    return tuple(body.splitlines(keepends=True))


def blocks(lines: Sequence[bytes]) -> tuple[Block, tuple[Section, ...]]:
    """The session part and the sections of a body. SdpError if an m= or c= line cannot be read."""
    starts = [number for number, line in enumerate(lines) if line[:2] == b"m="]
    bounds = [*starts, len(lines)]
    connections, attributes, names = _contents(lines, 0, bounds[0])
    session = Block(first=0, end=bounds[0], connections=connections, attributes=attributes, names=names)
    return session, tuple([_section(lines, first, end) for first, end in zip(starts, bounds[1:], strict=True)])


def _contents(
    lines: Sequence[bytes], first: int, end: int
) -> tuple[tuple[Connection, ...], tuple[Attribute, ...], frozenset[str]]:
    """The c= and a= lines of a block, and the names of the latter."""
    connections: list[Connection] = []
    attributes: list[Attribute] = []
    names: list[str] = []
    for number, line in enumerate(lines[first:end], first):
        start = line[:2]
        if start == b"a=":
            name, _, value = line[2:].rstrip(_LINE_END).decode("latin-1").partition(":")
            name = name.strip(" \t")
            names.append(name)
            attributes.append(Attribute(number, name, value))
        elif start == b"c=":
            connections.append(_connection(number, line.decode("latin-1")))
    return tuple(connections), tuple(attributes), frozenset(names)


def _about(
    first: int, lines: tuple[bytes, ...]
) -> tuple[tuple[Connection, ...], tuple[Attribute, ...], frozenset[str]]:
    """``_contents`` of the section that begins at line ``first``, whose other lines these are."""
    # Phones of one kind always write the same, but for what only one call has: keys, candidates.
    if len(lines) <= _KEPT_LINES and sum(map(len, lines)) <= _KEPT_LENGTH:
        return _kept(first, lines)
    return _contents((b"",) * (first + 1) + lines, first + 1, first + 1 + len(lines))


@lru_cache(maxsize=1024)
def _kept(first: int, lines: tuple[bytes, ...]) -> tuple[tuple[Connection, ...], tuple[Attribute, ...], frozenset[str]]:
    return _contents((b"",) * (first + 1) + lines, first + 1, first + 1 + len(lines))


_KEPT_LINES, _KEPT_LENGTH = 24, 1000


def _connection(number: int, line: str) -> Connection:
    match = CONNECTION.match(line)
    if match is None:
        raise SdpError(f"line {number + 1}: expected c=IN IP4|IP6 ADDRESS, not {line.strip()!r}")
    text = match[3]
    address = None if "%" in text else address_text(text.partition("/")[0])
    return Connection(line=number, addrtype=match[2], text=text, address=address)


def _section(lines: Sequence[bytes], first: int, end: int) -> Section:
    line = lines[first].decode("latin-1")
    match = MEDIA.match(line)
    if match is None:
        raise SdpError(f"line {first + 1}: expected m=MEDIA PORT TRANSPORT FORMAT..., not {line.strip()!r}")
    port = match[2].lstrip("0") or "0"
    if len(port) > 5 or int(port) > 65535:
        raise SdpError(f"line {first + 1}: port {match[2][:20]} is not in 0..65535")
    count = match[3] or "1"
    connections, attributes, names = _about(first, tuple(lines[first + 1 : end]))
    return Section(
        first=first,
        end=end,
        connections=connections,
        attributes=attributes,
        names=names,
        kind=match[1],
        port=int(port),
        count=int(count[:9]),
        transport=match[4],
        formats=tuple(match[5].split()),
    )
