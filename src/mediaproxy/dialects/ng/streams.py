"""The streams of one SDP: what the relay is told of them, what is noted of them, and what is decided about each.

An SDP and a Command come in, and, for the decisions, what is known of who will read it. Values go out.
"""

from collections.abc import Sequence

import msgspec

from mediaproxy.control import Direction, MediaPort
from mediaproxy.control import Stream as Media
from mediaproxy.dialects.ng import codecs, ice, mux, needs
from mediaproxy.dialects.ng.flags import Command
from mediaproxy.dialects.ng.ice import Ice
from mediaproxy.dialects.ng.memo import Memo, StreamMemo
from mediaproxy.dialects.ng.rewriting import Written, ice_in
from mediaproxy.endpoint import Endpoint, address_text
from mediaproxy.sdp import Sdp, Section

_HELD = {Direction.SENDRECV: Direction.SENDONLY, Direction.RECVONLY: Direction.INACTIVE}
"What a direction is if c= says 0.0.0.0: nothing is to be sent to who wrote it."


class Streams:
    """Of one SDP."""

    def __init__(self, sdp: Sdp, command: Command, *, offering: bool) -> None:
        """NgError if a stream needs what no relay does."""
        self._sdp = sdp
        self._command = command
        self._offering = offering
        for section in sdp.sections:
            if section.port:
                needs.check_stream(command, section, sdp.session)
                if offering:
                    needs.transport(command, section, command.transport)
        self._formats = [self._kept(section) for section in sdp.sections]

    @staticmethod
    def carried(section: Section) -> bool:
        """Whether the relay is asked to carry it: everything over UDP, as rtpengine does."""
        return section.carried or section.transport.upper().startswith("UDP/")

    # -- for the question

    def media(self, address: str, *, by_source: bool) -> tuple[Media, ...]:
        """What the relay is told. ``address``: where signalling came from, empty if that is not known; it stands for
        host names, and with ``by_source`` for all addresses of streams without ICE."""
        streams = self._sdp.streams_at(address) if address else self._sdp.streams
        told = [self._one(n, section, streams[n], address) for n, section in enumerate(self._sdp.sections)]
        if by_source:
            told = [one if one.ice else _moved(one, address) for one in told]
        return tuple(told)

    def _one(self, index: int, section: Section, stream: Media, host: str) -> Media:
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
        found = tuple((self._ice_value(s, "ice-ufrag"), self._ice_value(s, "ice-pwd")) for s in self._sdp.sections)
        return found if any(ufrag for ufrag, _ in found) else ()

    def _ice_value(self, section: Section, name: str) -> str:
        values = [*section.values(name), *self._sdp.session.values(name)]
        return values[0].strip() if values else ""

    def mux(self, known: Memo) -> tuple[bool | None, ...]:
        """Wishes.mux: what goes on, where it differs from what came."""
        told = [self._mux(n, section, known) for n, section in enumerate(self._sdp.sections)]
        wishes = tuple(
            said if said != one.rtcp_mux else None for said, one in zip(told, self._sdp.streams, strict=True)
        )
        return wishes if any(wish is not None for wish in wishes) else ()

    def lite(self, known: Memo) -> tuple[bool, ...]:
        """Wishes.lite."""
        wishes = tuple(self._ice(n, section, known) in ice.LITE for n, section in enumerate(self._sdp.sections))
        return wishes if any(wishes) else ()

    # -- what is noted

    def memo(self) -> Memo:
        """About the sender."""
        return Memo(streams=tuple(map(self._noted, self._sdp.sections)))

    def _noted(self, section: Section) -> StreamMemo:
        said = section.has("rtcp-mux", "rtcp-mux-only")
        answered = "s" if said else ""
        wanted = mux.how_to_answer(self._command.rtcp_mux, said) if self._offering else answered
        options = [*section.values("ice-options"), *self._sdp.session.values("ice-options")]
        takes = ice_in(section, self._sdp.session) and not self._command.has("reject-ice")
        return StreamMemo(mux=wanted, ice=takes, trickle=takes and ice.trickles(options), transport=section.transport)

    # -- what is decided

    def written(self, known: Memo, ports: Sequence[MediaPort | None]) -> tuple[Written, ...]:
        """What goes on, stream by stream. ``known``: what was noted about who will read it. NgError."""
        return tuple(
            self._written(n, section, known, port)
            for n, (section, port) in enumerate(zip(self._sdp.sections, ports, strict=True))
        )

    def _written(self, index: int, section: Section, known: Memo, port: MediaPort | None) -> Written:
        if not section.port or self._disabled(index, section):
            return Written(disabled=True, formats=section.formats)
        receiver = known.stream(index)
        muxed = self._mux(index, section, known)
        combines = mux.combined(self._command.rtcp_mux, receiver) if self._offering else True
        kind = self._ice(index, section, known)
        if kind in ice.LITE and (port is None or not port.ufrag):
            kind = Ice.REMOVE  # the relay does not take part
        trickle = receiver is not None and receiver.trickle
        trickle |= self._offering and self._command.has("trickle-ice")
        return Written(
            transport=needs.transport(self._command, section, self._transport(receiver)),
            formats=self._formats[index] or section.formats,
            direction=self._direction(index, section),
            mux=muxed,
            combined=muxed and combines,
            ice=kind,
            trickle=trickle,
        )

    def _transport(self, receiver: StreamMemo | None) -> str:
        """What the receiver is told: an answer has the transport of its offer (RFC 3264 §6.1) unless a word says
        otherwise."""
        if self._offering or self._command.transport or receiver is None:
            return self._command.transport
        return receiver.transport if "RTP/" in receiver.transport.upper() else ""

    def _mux(self, index: int, section: Section, known: Memo) -> bool:
        said = section.has("rtcp-mux", "rtcp-mux-only")
        if not section.rtp or not section.port:
            return said
        receiver = known.stream(index)
        if self._offering:
            return mux.offered(self._command.rtcp_mux, said, receiver)
        return mux.answered(said, receiver)

    def _ice(self, index: int, section: Section, known: Memo) -> Ice:
        had = ice_in(section, self._sdp.session)
        if not section.port or not self.carried(section) or self._disabled(index, section):
            return Ice.REMOVE
        receiver = known.stream(index)
        freely = self._offering or receiver is None
        wanted = had and freely or ice.takes_ours(receiver)
        return ice.chosen(self._command.ice, had, wanted=wanted)

    def _direction(self, index: int, section: Section) -> Direction:
        direction = self._sdp.streams[index].direction
        connection = section.connection or self._sdp.session.connection
        held = connection is not None and connection.held
        if held and not ice_in(section, self._sdp.session):
            return _HELD.get(direction, direction)
        return direction

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


def _moved(stream: Media, address: str) -> Media:
    """The same stream at another address; one that is on hold keeps saying so."""
    text = address_text(address)
    if text is None or stream.endpoint is None or stream.endpoint.address in ("0.0.0.0", "::"):
        return stream
    rtcp = stream.rtcp and Endpoint(text, stream.rtcp.port)
    return msgspec.structs.replace(stream, endpoint=Endpoint(text, stream.endpoint.port), rtcp=rtcp)
