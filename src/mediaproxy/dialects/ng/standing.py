"""How a call stands, as rtpengine's ``query`` and ``delete`` tell it (rtpengine 10.5).

Reports of a call come in, a dictionary goes out, in which what there is of each stream is written already: it is what
each ``delete`` takes longest for. A tag's streams show our ports that face this party, and the endpoint is this
party's: what is counted there came from it. What our relay does not measure is left out rather than made up: round-trip
times, the best MOS and its progression.
"""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache

from mediaproxy.dialects.ng.bencode import NUMBER, VALUE, Answer, Written, form, text, written
from mediaproxy.endpoint import Endpoint
from mediaproxy.events import CallReport, PartyReport, Side, SideReport, StreamReport

_SENDS = ("sendrecv", "sendonly", "")
_RECEIVES = ("sendrecv", "recvonly", "")
_Count = list[int]
"Packets, bytes, errors."
_COUNT = {"packets": NUMBER, "bytes": NUMBER, "errors": NUMBER}
_TOTALS = form({"RTP": _COUNT, "RTCP": _COUNT})
_OTHER = form({"tag": VALUE, "type": "offer/answer"})
_PLACE = form({"family": VALUE, "address": VALUE, "port": NUMBER})
_NOWHERE = written({})
_STREAM_FLAGS = ("filled", "confirmed", "kernelized", "ICE", "strict source address", "media handover")
_PORT = {
    "local port": NUMBER,
    "local address": VALUE,
    "family": VALUE,
    "endpoint": VALUE,
    "advertised endpoint": VALUE,
    "flags": VALUE,
    "stats": _COUNT,
    "last packet": NUMBER,
}
_STREAM, _STREAM_OF_SSRC = form(_PORT), form({**_PORT, "SSRC": NUMBER})
_LOCAL = ("local port", "local address", "family")
_REJECTED = form({key: value for key, value in _PORT.items() if key not in _LOCAL})
_KIND = {"index": NUMBER, "type": VALUE, "protocol": VALUE}
_STATE = {"streams": VALUE, "flags": VALUE}
_PARTY = form({"created": NUMBER, "subscriptions": VALUE, "subscribers": VALUE, "medias": VALUE})[1:]
"Behind ``tag`` and what else names a party."
_MEDIA, _MEDIA_OF_CODEC = form(_KIND | _STATE), form(_KIND | {"codec": VALUE} | _STATE)


def standing(reports: Sequence[CallReport], tag: str = "") -> Answer:
    """What is told of one Call-ID. ``tag``: only of this party and those it talks with."""
    legs = [leg for report in reports for leg in _legs(report)]
    if tag:
        legs = [leg for leg in legs if tag in (leg.caller.tag, leg.callee.tag)]
    totals: tuple[_Count, _Count] = [0, 0, 0], [0, 0, 0]
    tags: Answer = {}
    quality: Answer = {}
    untagged = itertools.count(1)
    for monologue in _monologues(legs):
        tags[monologue.party.tag or f"<untagged {next(untagged)}>"] = Written(monologue.shown(totals, quality))
    started = min(report.started for report in reports)
    asked = max(report.asked for report in reports)
    return {
        "created": int(started),
        "created_us": int(started % 1 * 1_000_000),
        "last signal": int(asked or started),
        "SSRC": quality,
        "tags": tags,
        "totals": Written(_TOTALS % (*totals[0], *totals[1])),
    }


class _Leg:
    """A caller, a callee and the streams between them."""

    def __init__(self, report: CallReport, callee: PartyReport, streams: Iterable[StreamReport]) -> None:
        self.report = report
        self.caller = report.caller
        self.callee = callee
        self.streams = tuple(streams)


def _legs(report: CallReport) -> Iterator[_Leg]:
    """The legs of a call; of those besides the callee's no more is known than tag and branch."""
    by_tag: dict[str, list[StreamReport]] = {}
    for stream in report.streams:
        by_tag.setdefault(stream.leg or report.callee.tag, []).append(stream)
    by_tag.setdefault(report.callee.tag, [])
    if not by_tag[report.callee.tag] and len(by_tag) > 1:
        del by_tag[report.callee.tag]
    for tag, streams in by_tag.items():
        callee = report.callee if tag == report.callee.tag else PartyReport(tag=tag, branch=streams[0].branch)
        yield _Leg(report, callee, streams)


class _Monologue:
    """One party of a call with all its legs. Mutable."""

    def __init__(self, report: CallReport, party: PartyReport, side: Side) -> None:
        self.report = report
        self.party = party
        self.side = side
        self.others: list[str] = []
        self.streams: list[StreamReport] = []

    def add(self, leg: _Leg) -> None:
        """One more leg; forks may share the ports that face their caller."""
        other = leg.callee.tag if self.side is Side.CALLER else leg.caller.tag
        if other not in self.others:
            self.others.append(other)
        if not self.streams:
            self.streams += leg.streams
            return
        known = {(stream.index, _side(stream, self.side).local) for stream in self.streams}
        self.streams += [one for one in leg.streams if (one.index, _side(one, self.side).local) not in known]

    def shown(self, totals: tuple[_Count, _Count], quality: Answer) -> str:
        """The dictionary; what it counts is added to ``totals``, of RTP and of RTCP, and ``quality``."""
        party = self.party
        names = f"d3:tag{text(party.tag)}"
        if party.branch:
            names += f"10:via-branch{text(party.branch)}"
        if party.label:
            names += f"5:label{text(party.label)}"
        others = f"l{''.join([_OTHER % text(other) for other in self.others])}e"
        medias = f"l{''.join([_media(one, self, totals, quality) for one in self.streams])}e"
        return names + _PARTY % (int(self.report.started), others, others, medias)


def _monologues(legs: Iterable[_Leg]) -> list[_Monologue]:
    found: dict[tuple[str, str], _Monologue] = {}
    for leg in legs:
        for party, side in ((leg.caller, Side.CALLER), (leg.callee, Side.CALLEE)):
            # A tag is one party; of those that have none yet each is one of its own.
            key = (party.tag, "" if party.tag else f"{leg.caller.tag} {side}")
            if key not in found:
                found[key] = _Monologue(leg.report, party, side)
            found[key].add(leg)
    return list(found.values())


def _side(stream: StreamReport, side: Side) -> SideReport:
    return stream.caller if side is Side.CALLER else stream.callee


def _media(stream: StreamReport, of: _Monologue, totals: tuple[_Count, _Count], quality: Answer) -> str:
    mine = _side(stream, of.side)
    streams = ""
    if mine.local.port:
        streams = _rtp(stream, mine, of, totals[0])
        if "RTP/" in stream.transport.upper():
            streams += _rtcp(stream, mine, of, totals[1])
    if mine.ssrc is not None:
        quality[str(mine.ssrc)] = _quality(mine)
    sends, receives = mine.direction in _SENDS, mine.direction in _RECEIVES
    flags = _media_flags(mine.sdp is not None, of.party.asymmetric, sends, receives, mine.mux, mine.ice)
    kind = stream.index + 1, text(stream.kind), text(stream.transport)
    state = f"l{streams}e", flags
    return _MEDIA_OF_CODEC % (*kind, text(mine.codec), *state) if mine.codec else _MEDIA % (*kind, *state)


@lru_cache(maxsize=64)
def _media_flags(initialized: bool, asymmetric: bool, sends: bool, receives: bool, mux: bool, ice: bool) -> str:
    """``send`` and ``recv`` are what we do, so the other way round than what the party does."""
    flags = (
        ("initialized", initialized),
        ("asymmetric", asymmetric),
        ("send", receives),
        ("recv", sends),
        ("rtcp-mux", mux),
        ("ICE", ice),
    )
    return written([name for name, is_so in flags if is_so])


def _rtp(stream: StreamReport, mine: SideReport, of: _Monologue, totals: _Count) -> str:
    known = (mine.sdp is not None, mine.learned is not None, stream.plane == "kernel", mine.ice)
    told = (
        *_ends(mine.local, mine.learned or mine.sdp, mine.sdp),
        _stream_flags(("RTP", "RTCP") if mine.mux else ("RTP",), *known, *_wishes(of)),
        *_add(totals, mine.packets, mine.bytes, mine.refused_packets - mine.rtcp_refused),
        int(mine.last_packet or of.report.started),
    )
    if stream.disabled:
        return _REJECTED % told[len(_LOCAL) :]
    return _STREAM % told if mine.ssrc is None else _STREAM_OF_SSRC % (*told, mine.ssrc)


def _rtcp(stream: StreamReport, mine: SideReport, of: _Monologue, totals: _Count) -> str:
    local = mine.local if mine.mux else mine.local.with_port(mine.local.port + 1)
    wanted = mine.rtcp_sdp or (mine.sdp if mine.mux else None)
    known = (wanted is not None, mine.rtcp_learned is not None, False, mine.ice)
    told = (
        *_ends(local, mine.rtcp_learned or wanted, wanted),
        _stream_flags(("RTCP", "fallback RTCP") if mine.mux else ("RTCP",), *known, *_wishes(of)),
        *_add(totals, mine.rtcp_packets, mine.rtcp_bytes, mine.rtcp_refused),
        int(mine.rtcp_last or of.report.started),
    )
    return _REJECTED % told[len(_LOCAL) :] if stream.disabled else _STREAM % told


def _wishes(of: _Monologue) -> tuple[bool, bool]:
    return of.party.strict_source, of.party.media_handover


@lru_cache(maxsize=256)
def _stream_flags(names: tuple[str, ...], *are_so: bool) -> str:
    return written([*names, *itertools.compress(_STREAM_FLAGS, are_so)])


def _ends(local: Endpoint, there: Endpoint | None, wanted: Endpoint | None) -> tuple[int, str, str, str, str]:
    place = _place(wanted)
    local_address, family = _address(local.address)
    return local.port, local_address, family, place if there is wanted else _place(there), place


@lru_cache(maxsize=4096)
def _address(address: str) -> tuple[str, str]:
    """An address as it is written, and its family."""
    return text(address), text("IPv6" if ":" in address else "IPv4")


def _place(place: Endpoint | None) -> str:
    if place is None:
        return _NOWHERE
    address, family = _address(place.address)
    return _PLACE % (family, address, place.port)


def _quality(mine: SideReport) -> Answer:
    """MOS is told as ten times itself, jitter in milliseconds, loss in percent."""
    told: Answer = {"bytes": mine.bytes, "packets": mine.packets, "last RTP seq": mine.sequence}
    measured = mine.quality
    told["cumulative loss"] = mine.lost if measured is None else measured.lost
    if measured is None:
        return told
    loss = round(measured.loss * 100)
    for name, mos, jitter in (
        ("average MOS", measured.average_mos, measured.average_jitter),
        ("lowest MOS", measured.lowest_mos, measured.highest_jitter),
    ):
        if mos is not None:
            known = {} if jitter is None else {"jitter": round(jitter * 1000)}
            told[name] = {"MOS": round(mos * 10), **known, "packet loss": loss, "samples": 1}
    return told


def _add(totals: _Count, packets: int, octets: int, errors: int) -> tuple[int, int, int]:
    """What was counted, when the totals have it, too."""
    totals[0] += packets
    totals[1] += octets
    totals[2] += errors
    return packets, octets, errors
