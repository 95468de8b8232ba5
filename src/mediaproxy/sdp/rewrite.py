"""Writing relay ports into the lines of an SDP body.

The lines of a body, its parts and one MediaPort per stream come in, the new body goes out. Only c=, the
port of m=, a=rtcp and, if asked, the ICE lines (ice.py) of relayed streams change; every other byte stays, line ends
included. A stream without a MediaPort keeps its address, its port and its lines, whatever happens to lines shared with
others.
"""

from collections.abc import Sequence

from mediaproxy.control import DISCARD_PORT, MediaPort
from mediaproxy.endpoint import Endpoint
from mediaproxy.sdp.edit import Edit
from mediaproxy.sdp.ice import IcePolicy, apply_ice, uses_ice
from mediaproxy.sdp.section import CONNECTION, MEDIA, RTCP, Block, Connection, Section


def rewrite(
    lines: Sequence[bytes],
    session: Block,
    sections: Sequence[Section],
    ports: Sequence[MediaPort | None],
    ice: IcePolicy,
) -> bytes:
    """The body with ``ports`` written in, one per section; None leaves a section alone. A section with port 0 is always
    left alone. ValueError if the numbers of ports and sections differ."""
    if len(ports) != len(sections):
        raise ValueError(f"{len(ports)} ports for {len(sections)} streams")
    relayed = [(section, port) for section, port in zip(sections, ports, strict=True) if port and section.port]
    left = [section for section, port in zip(sections, ports, strict=True) if not port and section.port]
    edit = Edit(lines)
    if relayed:
        _connections(edit, session, relayed, left)
        for section, port in relayed:
            _media(edit, section, port.rtp.port)
            _rtcp(edit, section, port)
        apply_ice(edit, ice, session, relayed, left)
    return bytes(edit)


class _Target:
    """What a c= line shall say."""

    __slots__ = ("addrtype", "address")

    def __init__(self, relay: Endpoint, held: bool) -> None:
        version = relay.version
        self.addrtype = f"IP{version}"
        self.address = relay.address if not held else "0.0.0.0" if version == 4 else "::"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Target) and (self.addrtype, self.address) == (other.addrtype, other.address)

    def __str__(self) -> str:
        return f"c=IN {self.addrtype} {self.address}"


def _held(connection: Connection | None, section: Section, session: Block) -> bool:
    """Whether the hold that a c= line expresses shall stay; as ``control.Stream.held``."""
    if connection is None or not connection.held:
        return False
    return not (section.port == DISCARD_PORT and uses_ice(section, session))


def _connections(
    edit: Edit, session: Block, relayed: Sequence[tuple[Section, MediaPort]], left: Sequence[Section]
) -> None:
    heirs: list[tuple[Section, _Target]] = []
    for section, port in relayed:
        if not section.connections:
            heirs.append((section, _Target(port.rtp, _held(session.connection, section, session))))
        for connection in section.connections:
            _connect(edit, connection, _Target(port.rtp, _held(connection, section, session)))
    left_heirs = [section for section in left if not section.connections]
    written: _Target | None = None
    if session.connections and (heirs or not left_heirs):
        # Nobody else needs the session's address: it is replaced even if unused, because some phones read only that.
        written = heirs[0][1] if heirs else _Target(relayed[0][1].rtp, session.connections[0].held)
        original = edit.text(session.connections[0].line)
        for connection in session.connections:
            _connect(edit, connection, written)
        if edit.text(session.connections[0].line) != original:
            for section in left_heirs:
                edit.add(_title_line(edit, section), original.strip("\r\n"))
    for section, target in heirs:
        if target != written:
            edit.add(_title_line(edit, section), str(target))


def _connect(edit: Edit, connection: Connection, target: _Target) -> None:
    line = connection.line
    match = CONNECTION.match(edit.text(line))
    assert match is not None  # it was read by the same expression
    if match[3] != target.address and not (connection.address == target.address and "/" not in match[3]):
        edit.change(line, match.start(3), match.end(3), target.address)
    if match[2] != target.addrtype:
        edit.change(line, match.start(2), match.end(2), target.addrtype)
    if match[1] != "IN":
        edit.change(line, match.start(1), match.end(1), "IN")


def _title_line(edit: Edit, section: Section) -> int:
    """The line after which a c= line belongs: m=, or i= behind it (RFC 8866 §5)."""
    following = section.first + 1
    return following if following < section.end and edit.original[following].startswith(b"i=") else section.first


def _media(edit: Edit, section: Section, port: int) -> None:
    match = MEDIA.match(edit.text(section.first))
    assert match is not None  # it was read by the same expression
    # The number of ports goes, too: a relay gives one pair per stream.
    edit.change(section.first, match.start(2), match.end(3) if match[3] else match.end(2), str(port))


def _rtcp(edit: Edit, section: Section, port: MediaPort) -> None:
    rtcp = port.rtcp or port.rtp
    found = False
    for attribute in section.attributes:
        match = RTCP.match(edit.text(attribute.line)) if attribute.name == "rtcp" else None
        if match is None:
            continue
        found = True
        if int(match[1]):  # port 0: no RTCP wanted
            _rewrite_rtcp(edit, attribute.line, rtcp, port.rtp)
    if found or port.rtcp is None or not section.rtp or section.has("rtcp-mux-only"):
        return
    if port.rtcp != port.rtp.with_port(port.rtp.port + 1):
        edit.add(_before_attributes(edit, section), f"a=rtcp:{_rtcp_value(port.rtcp, port.rtp)}")


def _rewrite_rtcp(edit: Edit, line: int, rtcp: Endpoint, rtp: Endpoint) -> None:
    match = RTCP.match(edit.text(line))
    assert match is not None
    if match[4]:
        edit.change(line, match.start(2), match.end(4), f"IN IP{rtcp.version} {rtcp.address}")
        edit.change(line, match.start(1), match.end(1), str(rtcp.port))
    else:
        edit.change(line, match.start(1), match.end(1), _rtcp_value(rtcp, rtp))


def _rtcp_value(rtcp: Endpoint, rtp: Endpoint) -> str:
    """RFC 3605 §2.1: the address only if it is not that of the stream."""
    return str(rtcp.port) if rtcp.address == rtp.address else f"{rtcp.port} IN IP{rtcp.version} {rtcp.address}"


def _before_attributes(edit: Edit, section: Section) -> int:
    """The last line of a section before its a= lines; its last line with text if it has none."""
    if section.attributes:
        return section.attributes[0].line - 1
    return edit.last_line(section)
