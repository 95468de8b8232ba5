"""The SDP that goes on, in the style of rtpengine 10.5: lines stay where they are, but for those that it writes anew
behind the others of their section (a=mid, a=rtpmap…, direction, a=rtcp, a=rtcp-mux, a=ptime, ICE).

An SDP, what was decided per stream and the relay's ports come in, bytes go out. A stream without a port of the relay
keeps its lines.
"""

from collections.abc import Iterator, Sequence

import msgspec

from mediaproxy.control import DISCARD_PORT, Direction, MediaPort
from mediaproxy.dialects.ng import codecs, head, ice, needs
from mediaproxy.dialects.ng.flags import Command
from mediaproxy.dialects.ng.ice import Ice
from mediaproxy.dialects.ng.memo import Told
from mediaproxy.dialects.ng.wanted import Edits
from mediaproxy.endpoint import Endpoint, address_text
from mediaproxy.sdp import Block, Connection, Sdp, Section
from mediaproxy.sdp.ice import is_ice
from mediaproxy.sdp.section import MEDIA

DIRECTIONS = frozenset(direction.value for direction in Direction)
_ALWAYS_ANEW = frozenset(("rtcp", "rtcp-mux", "ptime", "mid", "end-of-candidates"))
_ANEW = _ALWAYS_ANEW | DIRECTIONS
_PASSING = (Ice.JOIN, Ice.RELAY)
_NO_EDITS = Edits()


class Written(msgspec.Struct, frozen=True, kw_only=True):
    """What was decided about one stream, if the relay carries it."""

    transport: str = ""
    "Another one; empty: as it is."
    formats: tuple[str, ...] = ()
    direction: Direction = Direction.SENDRECV
    mux: bool = False
    combined: bool = False
    "RTCP comes to the RTP port, so a=rtcp names that."
    ice: Ice = Ice.REMOVE
    trickle: bool = False
    "Who reads it is told that trickle ICE is understood."
    disabled: bool = False
    "It goes on with port 0."
    zero: bool = True
    "A c= of 0.0.0.0 stays: it means hold, not that candidates are to come."


class Rewriting:
    """One SDP on its way. Mutable while ``run`` writes."""

    def __init__(self, sdp: Sdp, command: Command, mark: str = "") -> None:
        """``mark``: the loop protection's."""
        self._sdp = sdp
        self._command = command
        self._mark = mark
        self._lines = bytes(sdp).splitlines(keepends=True)
        first = self._lines[0] if self._lines else b""
        self._end = (first[len(first.rstrip(b"\r\n")) :] or b"\r\n").decode()
        if self._lines and not self._lines[-1].endswith((b"\n", b"\r")):
            self._lines[-1] += self._end.encode()
        self._media = address_text(command.media_address) if command.media_address else None
        self._directions = "original-sendrecv" not in command.flags
        "They are written anew."
        self._gone = _ANEW if self._directions else _ALWAYS_ANEW
        if "strip-extmap" in command.flags:
            self._gone |= {"extmap"}
        self._kinds: frozenset[Ice] = frozenset()
        self._zero = True
        "A hold by c=0.0.0.0 stays one; not beside ICE, where a direction says it."
        self._out: list[bytes] = []

    def run(
        self, written: Sequence[Written], ports: Sequence[MediaPort | None], told: Told, address: str = ""
    ) -> bytes:
        """The SDP with these ports. ``told``: what an earlier one said in the sender's name. ``address``: the relay's,
        for an SDP without ports."""
        session, sections = self._sdp.session, self._sdp.sections
        relayed = [(section, port) for section, port in zip(sections, ports, strict=True) if port and section.port]
        whole = next((port for section, port in relayed if not section.connections), relayed[0][1] if relayed else None)
        if whole is None and address:
            whole = MediaPort(rtp=Endpoint(address, DISCARD_PORT))
        self._kinds = frozenset([one.ice for one in written])
        stays = not self._kinds.isdisjoint(ice.RELAYED)
        first = next((one for one in written if not one.disabled), written[0])
        self._zero = first.ice is Ice.REMOVE and "zero-address" not in self._command.replace
        inherits = any(not section.connections for section in sections)
        c_line = None
        if whole is not None and not stays and (inherits or "session-connection" in self._command.replace):
            c_line = self._connection(session.connection, whole, first)
        self._session(session, whole, told, c_line)
        for section, port, one in zip(sections, ports, written, strict=True):
            self._section(section, port, one, c_line, whole)
        return b"".join(self._out)

    # -- pieces

    def _add(self, text: str) -> None:
        self._out.append((text + self._end).encode("latin-1"))

    def _address(self, port: MediaPort) -> str:
        """What the SDP shows for a port of the relay."""
        return self._media or port.rtp.address

    def _connection(self, connection: Connection | None, at: MediaPort, one: Written) -> str:
        """A c= line that says where the relay is, or, of the old kind of hold, that no media is wanted."""
        address = self._address(at)
        if connection is not None and connection.held and one.zero and self._zero:
            address = "::" if ":" in address else "0.0.0.0"
        return f"c=IN IP{6 if ':' in address else 4} {address}"

    # -- the session's part

    def _session(self, session: Block, whole: MediaPort | None, told: Told, c_line: str | None) -> None:
        passing = bool(ice.passing(self._command.ice)) or not self._kinds.isdisjoint(_PASSING)
        edits = self._edits("global", "none")
        first_c = session.connections[0].line if session.connections else -1
        gone = {one.line for one in session.attributes if self._drops_in_session(one.name, one.value, passing)}
        for number in range(session.first, session.end):
            line = self._lines[number]
            start = line[:2]
            if number in gone:
                continue
            if start == b"o=" and whole is not None:
                text = line[2:].rstrip(b"\r\n").decode("latin-1")
                address = self._address(whole) if self._kinds.isdisjoint(ice.RELAYED) else ""
                self._add("o=" + head.origin(text, address, self._command.replace, told))
            elif start == b"s=" and told.session:
                text = line[2:].rstrip(b"\r\n").decode("latin-1")
                self._add("s=" + head.session_name(text, self._command.replace, told))
            elif start == b"c=" and c_line is not None:
                if number == first_c:
                    self._add(c_line)
            else:
                self._line(number, edits)
        for value in edits.add:
            self._add(f"a={value}")
        if not self._kinds.isdisjoint(ice.LITE):
            self._add("a=ice-lite")
        if self._mark and self._command.has("loop-protect") and not session.has("rtpengine"):
            self._add(f"a=rtpengine:{self._mark}")

    def _drops_in_session(self, name: str, value: str, passing: bool) -> bool:
        if name in DIRECTIONS:
            return not self._command.has("original-sendrecv")
        if name == "group":
            return value.strip().upper().startswith("BUNDLE") and self._kinds.isdisjoint(_PASSING)
        if name == "extmap":
            return self._command.has("strip-extmap")
        return is_ice(name) and not passing

    # -- a stream

    def _section(
        self, section: Section, port: MediaPort | None, one: Written, c_line: str | None, whole: MediaPort | None
    ) -> None:
        if port is None and section.port and not one.disabled:
            self._left(section, c_line)
        elif not section.port or one.disabled:
            self._disabled(section, one, whole)
        else:
            assert port is not None
            self._relayed(section, port, one, c_line)

    def _left(self, section: Section, c_line: str | None) -> None:
        """A stream that no relay carries: as it was, wherever that is."""
        inherited = self._sdp.session.connection
        for number in range(section.first, section.end):
            self._out.append(self._lines[number])
            if number == self._title(section) and c_line and inherited is not None and not section.connections:
                self._out.append(self._lines[inherited.line])

    def _title(self, section: Section) -> int:
        """The line after which c= belongs: m=, or i= behind it (RFC 8866 §5)."""
        following = section.first + 1
        titled = following < section.end and self._lines[following][:2] == b"i="
        return following if titled else section.first

    def _disabled(self, section: Section, one: Written, whole: MediaPort | None) -> None:
        """A stream with port 0: what says nothing of media that will not be."""
        edits = self._edits(section.kind)
        names = {attribute.line: attribute.name for attribute in section.attributes}
        gone = self._gone | {"rtpmap", "fmtp"}
        self._media_line(section, 0, one)
        for number in range(section.first + 1, section.end):
            name = names.get(number)
            if name is None and self._lines[number][:2] == b"c=" and whole is not None:
                self._add(self._connection(None, whole, one))
            elif name is None or not (name in gone or is_ice(name) or self._about(name, number)):
                self._line(number, edits)
        for text in self._mid(section):
            self._add(text)

    def _relayed(self, section: Section, port: MediaPort, one: Written, c_line: str | None) -> None:
        edits = self._edits(section.kind)
        names = {attribute.line: attribute.name for attribute in section.attributes}
        gone = self._gone_of(section, one)
        title = self._title(section)
        first_c = section.connection.line if section.connection is not None else -1
        about: list[str] = []
        stays = self._first_line(section, port, one)
        for number in range(section.first, section.end):
            name = names.get(number)
            if name is None and number != section.first:
                if self._lines[number][:2] == b"c=" and not stays:
                    if number == first_c:
                        self._add(self._connection(section.connection, port, one))
                else:
                    self._line(number, edits)
            elif name is not None and section.rtp and self._about(name, number):
                about.append(self._lines[number].rstrip(b"\r\n").decode("latin-1"))
            elif name is not None and name not in gone and not self._unwanted(name, number, one):
                self._line(number, edits)
            if number == title and c_line is not None:
                self._inherit(section, port, one, c_line)
        behind = [*self._behind(section, port, one, tuple(about)), *(f"a={value}" for value in edits.add)]
        if edits is not _NO_EDITS:
            behind = [text for text in map(lambda text: _edited(text, edits), behind) if text]
        if behind:
            self._add(self._end.join(behind))

    def _first_line(self, section: Section, port: MediaPort, one: Written) -> bool:
        """Write m=. True: c= and m= stay the phone's."""
        if one.ice in ice.RELAYED:
            self._out.append(self._lines[section.first])
            return True
        self._media_line(section, port.rtp.port, one)
        return False

    def _inherit(self, section: Section, port: MediaPort, one: Written, c_line: str) -> None:
        """A c= line of its own, for a stream that had the session's and has another address now."""
        inherited = self._sdp.session.connection
        if not section.connections and inherited is not None:
            wanted = self._connection(inherited, port, one)
            if wanted != c_line:
                self._add(wanted)

    def _about(self, name: str, number: int) -> bool:
        """Whether an attribute is about one payload type; a=rtcp-fb:* is about all."""
        return name in codecs.ABOUT and not self._lines[number].startswith(b"a=rtcp-fb:*")

    def _gone_of(self, section: Section, one: Written) -> frozenset[str]:
        """The names of attributes that go, or are written again behind the others."""
        gone = self._gone
        if one.ice in ice.RELAYED:
            gone -= {"rtcp", "rtcp-mux"}
        if one.ice not in _PASSING:
            gone |= frozenset(filter(is_ice, section.names))
        return gone

    def _unwanted(self, name: str, number: int, one: Written) -> bool:
        """Whether an attribute goes because of its value."""
        if name == "crypto" and self._command.sdes:
            return needs.unwanted(self._command, needs.suite_of(self._value(number)))
        return name == "candidate" and one.ice is Ice.RELAY and ice.is_relayed(self._value(number))

    def _value(self, number: int) -> str:
        return self._lines[number].rstrip(b"\r\n").decode("latin-1").partition(":")[2]

    def _behind(self, section: Section, port: MediaPort, one: Written, about: tuple[str, ...]) -> Iterator[str]:
        """What is written behind the other lines of a section, in rtpengine's order."""
        yield from self._mid(section)
        if section.rtp:
            yield from codecs.lines(one.formats, about)
        if self._directions:
            yield f"a={one.direction}"
        if section.rtp and one.ice not in ice.RELAYED:
            yield from self._rtcp(port, one)
        elif section.rtp and one.combined and not section.has("rtcp-mux"):
            yield "a=rtcp-mux"  # the relay's only candidate is for both
        if section.has("ptime"):
            yield f"a=ptime:{next(section.values('ptime'))}"
        if one.ice is not Ice.REMOVE:
            yield from self._ice(section, port, one)

    def _mid(self, section: Section) -> Iterator[str]:
        if section.has("mid"):
            yield f"a=mid:{next(section.values('mid'))}"
        elif self._command.has("generate-mid") and self._command.name != "answer":
            yield f"a=mid:{self._sdp.sections.index(section) + 1}"

    def _rtcp(self, port: MediaPort, one: Written) -> Iterator[str]:
        place = port.rtp if one.combined else port.rtcp
        if place is not None and not self._command.has("no-rtcp-attribute"):
            address = self._address(port)
            full = f" IN IP{6 if ':' in address else 4} {address}"
            yield f"a=rtcp:{place.port}{full if self._command.has('full-rtcp-attribute') else ''}"
        if one.mux:
            yield "a=rtcp-mux"

    def _ice(self, section: Section, port: MediaPort, one: Written) -> Iterator[str]:
        address = self._address(port)
        if one.ice in ice.LITE:
            relay = one.ice is Ice.OWN_RELAY
            yield from ice.own(port, address, combined=one.combined, relay=relay, trickle=one.trickle)
        else:
            candidates = list(section.values("candidate"))
            yield from ice.joined(port, address, candidates, combined=one.combined, relay=one.ice is Ice.RELAY)
        if section.has("end-of-candidates") or (one.trickle and one.ice in ice.LITE):
            yield "a=end-of-candidates"

    # -- lines

    def _media_line(self, section: Section, port: int, one: Written) -> None:
        text = self._lines[section.first].rstrip(b"\r\n").decode("latin-1")
        match = MEDIA.match(text)
        assert match is not None  # it was read by the same expression
        tail = match[5] if one.formats == section.formats else " " + " ".join(one.formats)
        self._add(f"m={match[1]} {port} {one.transport or match[4]}{tail}")

    def _line(self, number: int, edits: Edits) -> None:
        """A line that stays, if nothing was asked about it; an empty one goes, because others come behind it."""
        line = self._lines[number]
        if edits is not _NO_EDITS and line[:2] == b"a=":
            text = _edited(line.rstrip(b"\r\n").decode("latin-1"), edits)
            if text:
                self._add(text)
        elif not line.isspace():
            self._out.append(line)

    def _edits(self, *parts: str) -> Edits:
        """What ``sdp-attr`` asks about these parts."""
        asked = self._command.attributes
        found = [asked[part] for part in parts if part in asked] if asked else []
        if not found:
            return _NO_EDITS
        return Edits(
            add=tuple(value for edits in found for value in edits.add),
            remove=tuple(value.lower() for edits in found for value in edits.remove),
            substitute=tuple((before.lower(), after) for edits in found for before, after in edits.substitute),
        )


def ice_in(section: Section, session: Block) -> bool:
    """Whether a stream has ICE."""
    return section.has("ice-ufrag", "candidate") or session.has("ice-ufrag")


def _edited(text: str, edits: Edits) -> str:
    """An a= line as asked for; empty: it goes. It is meant by its whole value, or by its name alone, in any case."""
    whole = text[2:].lower()
    name = whole.partition(":")[0]
    if whole in edits.remove or name in edits.remove:
        return ""
    for before, after in edits.substitute:
        if before == whole:
            return f"a={after}"
        if before == name:
            return f"a={after}{text[2 + len(name) :]}"
    return text
