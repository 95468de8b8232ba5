"""The streams of one SDP: what the relay is told of them, what is noted of them, and what is decided about each.

An SDP and a Command come in, and, for the decisions, what is known of who will read it. Values go out.
"""

from collections.abc import Sequence

import msgspec

from mediaproxy.control import DISCARD_PORT, Direction, MediaPort
from mediaproxy.control import Stream as Media
from mediaproxy.dialects.ng import codecs, ice, mux, needs
from mediaproxy.dialects.ng.flags import Command
from mediaproxy.dialects.ng.ice import Ice
from mediaproxy.dialects.ng.memo import NOTHING, Memo, StreamMemo
from mediaproxy.dialects.ng.rewriting import Written, ice_in
from mediaproxy.endpoint import Endpoint, address_text
from mediaproxy.sdp import Sdp, Section

_HELD = {Direction.SENDRECV: Direction.SENDONLY, Direction.RECVONLY: Direction.INACTIVE}
"What a direction is if c= says 0.0.0.0: nothing is to be sent to who wrote it."

_MOST_MEMOS = 4
"Of one SDP, for which is remembered what was decided."


class Decision(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What goes on of one stream, given what is known of who will read it."""

    mux: bool
    combined: bool
    ice: Ice


class Streams:
    """Of one SDP."""

    def __init__(self, sdp: Sdp, command: Command, *, offering: bool) -> None:
        """NgError if a stream needs what no relay does."""
        self._sdp = sdp
        self._sections = sdp.sections
        self._command = command
        self._offering = offering
        for section in self._sections:
            if section.port:
                needs.check_stream(command, section, sdp.session)
                if offering:
                    needs.transport(command, section, command.transport)
        self._said = [_says_mux(section, stream) for section, stream in zip(self._sections, sdp.streams, strict=True)]
        self._had = [ice_in(section, sdp.session) for section in self._sections]
        self._formats = list(map(self._kept, self._sections))
        self._decisions: dict[int, tuple[Memo, list[Decision]]] = {}
        "By identity of the memo, which is kept so that it stays its own."

    @staticmethod
    def carried(section: Section) -> bool:
        """Whether the relay is asked to carry it: everything over UDP, as rtpengine does."""
        return section.carried or section.transport.upper().startswith("UDP/")

    def readers(self, known: Memo, before: Memo) -> Memo:
        """What is known of who will read this SDP. ``before``: what was known of its sender. An offer goes on with
        rtcp-mux as it stands, and in its reader's transport as long as its sender keeps to his own."""
        if not self._offering or not known.streams:
            return known
        streams = [self._reader(n, one, before.stream(n)) for n, one in enumerate(known.streams)]
        return msgspec.structs.replace(known, streams=tuple(streams))

    def _reader(self, index: int, known: StreamMemo, before: StreamMemo | None) -> StreamMemo:
        if known.mux in ("b", "y") and mux.standing(known, before):
            known = msgspec.structs.replace(known, mux="s")
        own = self._sections[index].transport if index < len(self._sections) else ""
        kept = before is not None and before.transport == own and needs.as_protected(own, known.transport)
        return known if kept or not known.transport else msgspec.structs.replace(known, transport="")

    # -- for the question

    def media(self, address: str, *, by_source: bool) -> tuple[Media, ...]:
        """What the relay is told. ``address``: where signalling came from, empty if that is not known; it stands for
        host names, and with ``by_source`` for all addresses of streams without ICE."""
        streams = self._sdp.streams_at(address) if address else self._sdp.streams
        told = [self._one(n, section, streams[n], address) for n, section in enumerate(self._sections)]
        if by_source:
            told = [one if one.ice else moved(one, address) for one in told]
        return tuple(told)

    def _one(self, index: int, section: Section, stream: Media, host: str) -> Media:
        if stream.rtcp_mux != self._said[index]:
            stream = msgspec.structs.replace(stream, rtcp_mux=self._said[index])
        if self._disabled(index, section):
            return msgspec.structs.replace(stream, endpoint=None, rtcp=None)
        if stream.endpoint is None and section.port and self.carried(section):
            connection = section.connection or self._sdp.session.connection
            address = (connection.address if connection is not None else None) or host
            if address:
                return msgspec.structs.replace(stream, endpoint=Endpoint(address, section.port))
        return stream

    def credentials(self) -> tuple[tuple[str, str], ...]:
        """The sender's ICE credentials, stream by stream; empty if none has any."""
        if not any(self._had):
            return ()
        return tuple((self._ice_value(s, "ice-ufrag"), self._ice_value(s, "ice-pwd")) for s in self._sections)

    def _ice_value(self, section: Section, name: str) -> str:
        values = [*section.values(name), *self._sdp.session.values(name)]
        return values[0].strip() if values else ""

    def differ(self, known: Memo) -> bool:
        """Whether anything is decided otherwise than if nothing were known."""
        return bool(known.streams) and self._decided(NOTHING) != self._decided(known)

    def mux(self, known: Memo) -> tuple[bool | None, ...]:
        """Wishes.mux: what goes on, where it differs from what came."""
        told = [one.mux for one in self._decided(known)]
        if told == self._said:
            return ()
        return tuple(one if one != said else None for one, said in zip(told, self._said, strict=True))

    def lite(self, known: Memo) -> tuple[bool, ...]:
        """Wishes.lite."""
        wishes = [one.ice in ice.LITE for one in self._decided(known)]
        return tuple(wishes) if any(wishes) else ()

    # -- what is noted

    def memo(self) -> Memo:
        """About the sender."""
        return Memo(streams=tuple([self._noted(n, section) for n, section in enumerate(self._sections)]))

    def _noted(self, index: int, section: Section) -> StreamMemo:
        said = self._said[index]
        answered = "s" if said else ""
        wanted = mux.how_to_answer(self._command.rtcp_mux, said) if self._offering else answered
        if not self._had[index] or self._command.has("reject-ice"):
            return StreamMemo(mux=wanted, transport=section.transport)
        options = [*section.values("ice-options"), *self._sdp.session.values("ice-options")]
        return StreamMemo(
            mux=wanted,
            ice=True,
            trickle=ice.trickles(options),
            transport=section.transport,
            joined=self._offering and bool(ice.passing(self._command.ice)),
        )

    # -- what is decided

    def _decided(self, known: Memo) -> list[Decision]:
        found = self._decisions.get(id(known))
        if found is None:
            if len(self._decisions) >= _MOST_MEMOS:
                self._decisions.clear()  # who learns a pattern from this SDP asks again and again
            decisions = [self._decide(n, section, known.stream(n)) for n, section in enumerate(self._sections)]
            found = self._decisions[id(known)] = known, decisions
        return found[1]

    def _decide(self, index: int, section: Section, receiver: StreamMemo | None) -> Decision:
        said, words = self._said[index], self._command.rtcp_mux
        combined = True
        if not section.rtp or not section.port:
            muxed = said
        elif self._offering:
            muxed, combined = mux.offered(words, said, receiver), mux.combined(words, receiver)
        else:
            muxed = mux.answered(said, receiver)
        return Decision(mux=muxed, combined=muxed and combined, ice=self._ice(index, section, receiver))

    def _ice(self, index: int, section: Section, receiver: StreamMemo | None) -> Ice:
        had = self._had[index]
        if not had and not self._command.ice and not ice.takes_ours(receiver):
            return Ice.REMOVE
        if not section.port or not self.carried(section) or self._disabled(index, section):
            return Ice.REMOVE
        freely = receiver is None or (self._offering and self._command.has("reset"))
        wanted = (had and freely) or ice.takes_ours(receiver)
        words = self._command.ice
        if not self._offering and receiver is not None:
            words = ice.in_answer(words, receiver)
        return ice.chosen(words, had, wanted=wanted)

    def written(self, known: Memo, ports: Sequence[MediaPort | None]) -> tuple[Written, ...]:
        """What goes on, stream by stream. ``known``: what was noted about who will read it. NgError."""
        decisions = self._decided(known)
        unasked = not self._offering and bool(known.streams) and any(port is not None for port in ports)
        return tuple(
            [
                self._written(n, section, known.stream(n), decisions[n], port, unasked=unasked)
                for n, (section, port) in enumerate(zip(self._sections, ports, strict=True))
            ]
        )

    def _written(
        self,
        index: int,
        section: Section,
        receiver: StreamMemo | None,
        decision: Decision,
        port: MediaPort | None,
        *,
        unasked: bool,
    ) -> Written:
        """``unasked``: what the relay gives no port for was not offered, so there is none (RFC 3264 §6)."""
        unasked = unasked and port is None and self.carried(section)
        if not section.port or unasked or self._disabled(index, section):
            transport = needs.transport(self._command, section, self._transport(receiver))
            return Written(disabled=True, transport=transport, formats=self._formats[index] or section.formats)
        kind = decision.ice
        if kind in ice.LITE and (port is None or not port.ufrag):
            kind = Ice.REMOVE  # the relay does not take part
        trickle = receiver is not None and receiver.trickle
        trickle |= self._offering and self._command.has("trickle-ice")
        return Written(
            transport=needs.transport(self._command, section, self._transport(receiver)),
            formats=(kind not in ice.RELAYED and self._formats[index]) or section.formats,
            direction=self._direction(index, section),
            mux=decision.mux,
            combined=decision.combined,
            ice=kind,
            trickle=trickle,
            zero=kind is Ice.REMOVE and not (self._had[index] and section.port == DISCARD_PORT),
        )

    def _transport(self, receiver: StreamMemo | None) -> str:
        """What the receiver is told: what it speaks itself, so an answer has the transport of its offer (RFC 3264
        §6.1), unless a word says otherwise."""
        if self._command.transport or receiver is None:
            return self._command.transport
        return receiver.transport if "RTP/" in receiver.transport.upper() else ""

    def _direction(self, index: int, section: Section) -> Direction:
        direction = self._sdp.streams[index].direction
        connection = section.connection or self._sdp.session.connection
        if connection is None or not connection.held or self._had[index]:
            return direction
        return _HELD.get(direction, direction)

    def _kept(self, section: Section) -> tuple[str, ...]:
        """The formats that go on; empty: none is left."""
        asked = self._command.codecs
        if not self._offering and asked.mask:
            asked = msgspec.structs.replace(asked, mask=())
        formats = codecs.kept(section, asked)
        if not self._offering and self._command.has("single-codec") and section.rtp:
            formats = codecs.first_only(section, formats)
        return formats

    def _disabled(self, index: int, section: Section) -> bool:
        """Whether it goes on as rejected."""
        if not section.port:
            return False
        if self._offering and section.kind.lower() in self._command.media_remove:
            return True
        stripped = not self._formats[index] and bool(section.formats)
        return stripped and self._command.has("allow-no-codec-media")


def _says_mux(section: Section, stream: Media) -> bool:
    """Whether a stream has a=rtcp-mux, or names one port for both; not one that is switched off."""
    if not section.port or section.has("rtcp-mux", "rtcp-mux-only"):
        return section.port > 0
    return stream.rtcp is not None and stream.rtcp == stream.endpoint and section.port != DISCARD_PORT


def moved(stream: Media, address: str) -> Media:
    """The same stream at another address; one that is on hold keeps saying so."""
    text = address_text(address)
    if text is None or stream.endpoint is None or stream.endpoint.address in ("0.0.0.0", "::"):
        return stream
    rtcp = stream.rtcp and Endpoint(text, stream.rtcp.port)
    return msgspec.structs.replace(stream, endpoint=Endpoint(text, stream.endpoint.port), rtcp=rtcp)
