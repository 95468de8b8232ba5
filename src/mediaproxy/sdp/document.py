"""Sdp: a lossless SDP body that knows its streams and takes relay ports.

Bytes come in, control.Stream values and edited bytes go out; ``bytes(Sdp.parse(body)) == body`` for every body that
parses. Peers' bytes raise nothing but SdpError. Lines that nobody here understands are never touched.
"""

import hashlib
import re
from collections.abc import Sequence

from mediaproxy.control import Direction, MediaPort, Stream
from mediaproxy.endpoint import Endpoint
from mediaproxy.sdp.ice import IcePolicy, uses_ice
from mediaproxy.sdp.payloads import payload_types
from mediaproxy.sdp.rewrite import rewrite
from mediaproxy.sdp.section import Block, Connection, Section, blocks, split

_STREAM = re.compile(rb"(?:\A|[\r\n])m=")
_NOWHERE = Connection(line=0, addrtype="", text="", address=None)
_DIRECTIONS = {direction.value: direction for direction in Direction}


class Sdp:
    """An immutable SDP body (RFC 8866)."""

    __slots__ = ("_blocks", "_body", "_lines", "_streams")

    def __init__(self, body: bytes) -> None:
        """It is read when first asked for something; ``parse`` reads it at once."""
        self._body = body
        self._lines: tuple[bytes, ...] = ()
        self._blocks: tuple[Block, tuple[Section, ...]] | None = None
        self._streams: tuple[Stream, ...] | None = None

    @classmethod
    def parse(cls, body: bytes) -> "Sdp":
        """Read a body. SdpError if an m= or c= line cannot be read; all else is tolerated: line ends of any kind, a
        missing last one, any order of lines within a part, bytes that are no UTF-8, unknown lines, no stream at all."""
        sdp = cls(bytes(body))
        sdp._read()
        return sdp

    @staticmethod
    def count(body: bytes) -> int:
        """The number of m= lines, without reading the body: who limits it can do so before it costs something."""
        return len(_STREAM.findall(body))

    def __bytes__(self) -> bytes:
        return self._body

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sdp) and bytes(self) == bytes(other)

    def __hash__(self) -> int:
        return hash(bytes(self))

    def __repr__(self) -> str:
        return f"Sdp.parse({bytes(self)!r})"

    @property
    def hash(self) -> str:
        """16 hexadecimal digits that stand for the bytes of this body in questions (calls.md, Names)."""
        return hashlib.blake2b(bytes(self), digest_size=8).hexdigest()

    @property
    def session(self) -> Block:
        """What stands before the first m= line."""
        return self._read()[0]

    @property
    def sections(self) -> tuple[Section, ...]:
        """One view per m= line, in order."""
        return self._read()[1]

    @property
    def streams(self) -> tuple[Stream, ...]:
        """The streams as a relay needs them, one per m= line, in order."""
        if self._streams is None:
            session, sections = self._read()
            self._streams = _streams(session, sections)
        return self._streams

    def streams_at(self, host: str) -> tuple[Stream, ...]:
        """The same, where a c= line with a host name (RFC 8866 §5.7) or none at all stands for ``host``, an IP
        address: names are not looked up here."""
        session, sections = self._read()
        if all((section.connection or session.connection or _NOWHERE).address for section in sections):
            return self.streams
        return _streams(session, sections, host)

    def with_ports(self, ports: Sequence[MediaPort | None], *, ice: IcePolicy = IcePolicy.KEEP) -> "Sdp":
        """The same body with relay endpoints in it: one MediaPort per m= line; None leaves that stream as it is.

        - m=: the port, without ``/n``. A stream with port 0 stays rejected and is not touched at all.
        - c=: replaced where it stands, IP4/IP6 corrected, ``/ttl`` dropped. 0.0.0.0 stays 0.0.0.0 (hold), or becomes
          :: if the relay's address is IPv6. Streams that inherited a session address which is not theirs any more get
          a c= line of their own: with the old address if they are left alone.
        - a=rtcp: rewritten where it stands (the address only if it had one or needs one); added if the relay's RTCP
          port is not RTP + 1.
        - ICE lines of relayed streams, and of the session, as ``ice`` says (IcePolicy). The relay becomes a candidate
          of streams that have ice-ufrag and ice-pwd, for RTCP too if the phone has a candidate for it.

        o= and everything else stay byte for byte. ValueError if the numbers of ports and streams differ.
        """
        session, sections = self._read()
        return Sdp(rewrite(self._lines, session, sections, ports, ice))

    def _read(self) -> tuple[Block, tuple[Section, ...]]:
        if self._blocks is None:
            self._lines = split(self._body)
            self._blocks = blocks(self._lines)
        return self._blocks


def _streams(session: Block, sections: Sequence[Section], host: str = "") -> tuple[Stream, ...]:
    direction = _direction(session) or Direction.SENDRECV
    return tuple(_stream(session, section, direction, host) for section in sections)


def _stream(session: Block, section: Section, direction: Direction, host: str) -> Stream:
    endpoint = _endpoint(session, section, host)
    return Stream(
        kind=section.kind,
        transport=section.transport,
        endpoint=endpoint,
        rtcp=_rtcp(section, endpoint),
        rtcp_mux=section.has("rtcp-mux", "rtcp-mux-only"),
        direction=_direction(section) or direction,
        payload_types=payload_types(section.formats, section.values("rtpmap")) if section.rtp else (),
        ice=uses_ice(section, session),
        dtls=section.has("fingerprint") or session.has("fingerprint"),
        sdes=section.has("crypto"),
    )


def _endpoint(session: Block, section: Section, host: str) -> Endpoint | None:
    address = (section.connection or session.connection or _NOWHERE).address or host
    return Endpoint(address, section.port) if address and section.port and section.carried else None


def _rtcp(section: Section, endpoint: Endpoint | None) -> Endpoint | None:
    if endpoint is None:
        return None
    port, named = section.rtcp
    return Endpoint(named or endpoint.address, port) if port else None


def _direction(block: Block) -> Direction | None:
    if block.names.isdisjoint(_DIRECTIONS):
        return None
    return next((_DIRECTIONS[a.name] for a in block.attributes if a.name in _DIRECTIONS and not a.value), None)
