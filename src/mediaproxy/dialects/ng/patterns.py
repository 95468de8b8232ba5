"""SDPs that differ in nothing but o=, addresses and ports, as phones of one kind write them call after call: what was
worked out for one of them holds for all.

A Command comes in, the Pattern of its SDP goes out if there is one. A Pattern is learned by working out an SDP whose
addresses and ports are marks of our own: where a mark comes out again, in the question for the relay or in the SDP that
goes on, there belongs what another SDP has in its place. So nothing is decided here. Where an address or a port does
more than be copied (hold by 0.0.0.0, port 0, ICE, host names) there is no Pattern: such an SDP is worked out by itself.
"""

import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Protocol, TypeAlias

import msgspec

from mediaproxy.control import MediaPort, MediaReply, MediaRequest, Stream
from mediaproxy.dialects.ng import head
from mediaproxy.dialects.ng.bencode import NgError
from mediaproxy.dialects.ng.flags import Command
from mediaproxy.dialects.ng.memo import NOTHING
from mediaproxy.endpoint import Endpoint, address_text

MOST = 256
"Patterns; and SDPs that came once, of which it is not known whether they have one."
LONGEST = 2000
"Bytes of an SDP that may have one."
_MOST_PLACES = 50
_MOST_FORMS = 16
"Of one Pattern: what goes on depends on what was noted of the other party's SDP, too."
_PLACE = re.compile(r"(\n(?:o=|c=IN IP[46] |m=[a-z]+ |a=rtcp:))(?!0[ \r\n])((?<=o=)[^\r\n]+|[0-9a-fA-F.:]+)(?=[ \r\n])")
"How a line begins in which something differs, and what differs. Port 0 is not among it."
_CONNECTION = re.compile(r"[\r\n]c=")
"Where it is none of these: a host name, which stands for where signalling came from, or a multicast address."
_HELD = ("0.0.0.0", "::")

Key: TypeAlias = tuple[object, ...]
Places: TypeAlias = list[str]
"What differs, in its order. The first one is the o= line without ``o=``."
Form: TypeAlias = tuple[str, list[int]]
"""An SDP for ``%``, and which texts it is filled with: of the places, followed by the relay's address and by its RTP
and RTCP port for each m= line."""


class Work(Protocol):
    """One SDP that is worked out (negotiation)."""

    def question(self) -> MediaRequest:
        """What the relay is asked. NgError."""

    def body(self, reply: MediaReply) -> bytes | None:
        """The SDP that goes on after that reply; None: more must be asked first. NgError."""


class Patterns:
    """Those that one dialect knows. Mutable."""

    def __init__(self) -> None:
        self._known: dict[Key, Pattern | None] = {}
        "By what an SDP and its request always say; None: there is no Pattern for that."
        self._once: set[Key] = set()
        "What came once. Most of what has no Pattern, because it differs elsewhere, never comes again."

    def find(self, command: Command, work: Callable[[Command], Work]) -> "tuple[Pattern, Places] | None":
        """The Pattern of a request's SDP, and what the SDP has in its places; None: it must be worked out. ``work``
        begins to do so; NgError."""
        sdp = command.sdp
        if not command.phrase or sdp is None or len(sdp) > LONGEST:
            return None
        parts = _PLACE.split(sdp.decode("latin-1"))
        places = parts[2::3]
        del parts[2::3]
        key = (command.phrase, command.name, *parts)
        pattern = self._known.get(key)
        if pattern is None and key not in self._known:
            pattern = self._learn(key, command, work)
        return (pattern, places) if pattern is not None and pattern.suits(places) else None

    def _learn(self, key: Key, command: Command, work: Callable[[Command], Work]) -> "Pattern | None":
        if key not in self._once:
            if len(self._once) >= MOST:
                self._once.clear()
            self._once.add(key)
            return None
        self._once.discard(key)
        if len(self._known) >= MOST:
            self._known.clear()
        _, _, *parts = key
        pattern: Pattern | None = None
        with suppress(LookupError, NgError):
            pattern = Pattern(command, list(map(str, parts)), work)
        self._known[key] = pattern
        return pattern


class Pattern:
    """What holds for all SDPs of a kind, whatever they have in their places. Mutable: it remembers how they go on."""

    def __init__(self, command: Command, parts: Sequence[str], work: Callable[[Command], Work]) -> None:
        """``parts``: the SDP without what is in its places. LookupError if it is no Pattern; NgError."""
        self._kinds = [begin[1] for begin in parts[1::2]]
        second = self._kinds[:1] == ["o"] and len(parts[0].splitlines()) == 1
        if not second or self._kinds.count("o") > 1 or len(self._kinds) > _MOST_PLACES:
            raise LookupError
        named = any(_CONNECTION.search(fixed) for fixed in parts[::2])
        if named or not head.AGREEING.isdisjoint(command.replace) or _edits_ports(command):
            raise LookupError
        self._replace = command.replace
        self._media_address = address_text(command.media_address) or ""
        # Twice, with other marks: what comes out in the same places is there by no accident.
        self._marked = [_Marked(command, parts, self._kinds, number, work) for number in range(2)]
        self.question = self._marked[0].question
        "Of an SDP with marks."
        self._streams, again = (one.streams() for one in self._marked)
        if again != self._streams:
            raise LookupError
        self._muxed = all(stream.told.rtcp_mux for stream in self._streams)
        self._forms: dict[Key, Form | None] = {}

    def suits(self, places: Places) -> bool:
        """Whether nothing depends on these addresses and ports."""
        rtp = ""
        for kind, place in zip(self._kinds, places, strict=True):
            if kind == "c":
                if address_text(place) != place or place in _HELD:
                    return False
            elif kind != "o":
                if not (place.isdigit() and place[0] != "0" and len(place) <= 5 and int(place) < 65535):
                    return False
                if kind == "m":
                    rtp = place
                elif place == rtp and not self._muxed:
                    return False  # RTCP at the port of RTP is rtcp-mux
        return True

    def streams(self, places: Places) -> tuple[Stream, ...]:
        """What the relay is told of them."""
        return tuple([stream.at(places) for stream in self._streams])

    def body(self, places: Places, reply: MediaReply) -> str | None:
        """The SDP that goes on, Latin-1; None: it must be worked out."""
        if reply.error or len(reply.ports) != len(self._streams) or len(reply.memo) + len(reply.before) > LONGEST:
            return None
        address = ""
        ports: list[str] = []
        for port, stream in zip(reply.ports, self._streams, strict=True):
            if port is None or stream.port is None:
                if port is not None or stream.port is not None:
                    return None
                ports += "", ""
            elif address and address != port.rtp.address:
                return None
            else:
                address = port.rtp.address
                ports += str(port.rtp.port), "" if port.rtcp is None else str(port.rtcp.port)
        form = self._form(reply, ":" in address) if address else None
        if form is None:
            return None
        text, order = form
        origin = head.origin(places[0], self._media_address or address, self._replace, NOTHING.told)
        filled = [origin, *places[1:], address, *ports]
        return text % tuple([filled[at] for at in order])

    def _form(self, reply: MediaReply, six: bool) -> Form | None:
        """With what is noted there, for relay ports like those."""
        key = (reply.memo, reply.before, six, *[port is None or port.rtcp is None for port in reply.ports])
        if key not in self._forms:
            if len(self._forms) >= _MOST_FORMS:
                self._forms.clear()
            one, other = (marked.form(reply, six) for marked in self._marked)
            self._forms[key] = one if one == other else None
        return self._forms[key]


def _edits_ports(command: Command) -> bool:
    """Whether ``sdp-attr`` means a=rtcp with a certain port."""
    asked = command.attributes.values()
    meant = [text for edits in asked for text in (*edits.remove, *(before for before, _ in edits.substitute))]
    return any(text.lower().startswith("rtcp:") for text in meant)


class _Stream(msgspec.Struct, frozen=True):
    """How the relay is told of a stream."""

    told: Stream
    address: int = 0
    "Which of the places, as the others."
    port: int | None = None
    "None: it has no port."
    rtcp: int | None = None
    "None: as ``above`` says."
    above: bool = False
    "RTCP comes one port above RTP. Else there is none."

    def at(self, places: Places) -> Stream:
        """With these places."""
        if self.port is None:
            return self.told
        address, port, rtcp = places[self.address], int(places[self.port]), None
        if self.above:
            rtcp = Endpoint(address, port + 1)
        elif self.rtcp is not None:
            rtcp = Endpoint(address, int(places[self.rtcp]))
        return msgspec.structs.replace(self.told, endpoint=Endpoint(address, port), rtcp=rtcp)


class _Marked:
    """An SDP with marks in its places."""

    def __init__(
        self,
        command: Command,
        parts: Sequence[str],
        kinds: Sequence[str],
        number: int,
        work: Callable[[Command], Work],
    ) -> None:
        """``number``: 0 or 1, which marks."""
        self._relay = (f"198.19.{number}.100", f"2001:db8:198:{19 + number}::100")
        self._first_port = 50_000 + 1000 * number
        # An o= line that nobody can read, an address, or a port.
        marks = {"o": f"-{number}-", "c": f"198.18.{number}."}
        self._marks = [
            f"{marks['c']}{100 + at}" if kind == "c" else marks.get(kind) or str(self._first_port + 2 * at)
            for at, kind in enumerate(kinds)
        ]
        marked = parts[0] + "".join(
            [begin + mark + end for begin, mark, end in zip(parts[1::2], self._marks, parts[2::2], strict=True)]
        )
        # Where signalling came from may stand for all addresses, but only when the relay is asked.
        self._work = work(msgspec.structs.replace(command, sdp=marked.encode("latin-1"), received_from=""))
        self.question = self._work.question()

    def streams(self) -> list[_Stream]:
        """What the relay is told. LookupError if not all addresses and ports are marks."""
        wishes = self.question.wishes
        if self.question.ice or (wishes is not None and wishes.lite):
            raise LookupError
        return [self._stream(stream) for stream in self.question.streams]

    def _stream(self, told: Stream) -> _Stream:
        place, rtcp = told.endpoint, told.rtcp
        told = msgspec.structs.replace(told, endpoint=None, rtcp=None)
        if place is None:
            return _Stream(told)
        found = _Stream(told, self._place(place.address), self._place(place.port))
        if rtcp is None:
            return found
        if rtcp.address != place.address:
            raise LookupError
        if rtcp.port == place.port + 1:
            return msgspec.structs.replace(found, above=True)
        return msgspec.structs.replace(found, rtcp=self._place(rtcp.port))

    def _place(self, mark: str | int) -> int:
        if str(mark) not in self._marks:
            raise LookupError
        return self._marks.index(str(mark))

    def form(self, reply: MediaReply, six: bool) -> Form | None:
        """How it goes on if the relay's ports are marks, too."""
        address, port = self._relay[six], self._first_port + 200
        marks = [*self._marks, address]
        ports: list[MediaPort | None] = []
        for one in reply.ports:
            rtcp = None if one is None or one.rtcp is None else Endpoint(address, port + 1)
            ports.append(None if one is None else MediaPort(rtp=Endpoint(address, port), rtcp=rtcp))
            marks += str(port), str(port + 1)
            port += 2
        try:
            body = self._work.body(msgspec.structs.replace(reply, ports=tuple(ports)))
        except NgError:
            return None
        if body is None:
            return None
        pieces = re.split(f"({'|'.join(map(re.escape, marks))})", body.decode("latin-1"))
        return "%s".join([piece.replace("%", "%%") for piece in pieces[::2]]), list(map(marks.index, pieces[1::2]))
