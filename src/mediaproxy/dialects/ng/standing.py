"""How a call stands, as rtpengine's ``query`` and ``delete`` tell it (rtpengine 10.5).

Reports of a call come in, a dictionary goes out. A tag's streams show our ports that face this party, and the endpoint
is this party's: what is counted there came from it. What our relay does not measure is left out rather than made up:
round-trip times, the best MOS and its progression.
"""

import itertools
from collections.abc import Iterable, Iterator, Sequence

from mediaproxy.dialects.ng.bencode import Answer
from mediaproxy.endpoint import Endpoint
from mediaproxy.events import CallReport, PartyReport, Side, SideReport, StreamReport

_SENDS = ("sendrecv", "sendonly", "")
_RECEIVES = ("sendrecv", "recvonly", "")
_Count = dict[str, int]


def standing(reports: Sequence[CallReport], tag: str = "") -> Answer:
    """What is told of one Call-ID. ``tag``: only of this party and those it talks with."""
    legs = [leg for report in reports for leg in _legs(report)]
    if tag:
        legs = [leg for leg in legs if tag in (leg.caller.tag, leg.callee.tag)]
    totals: dict[str, _Count] = {"RTP": _nothing(), "RTCP": _nothing()}
    tags: Answer = {}
    quality: Answer = {}
    untagged = itertools.count(1)
    for monologue in _monologues(legs):
        tags[monologue.party.tag or f"<untagged {next(untagged)}>"] = monologue.shown(totals, quality)
    started = min(report.started for report in reports)
    asked = max(report.asked for report in reports)
    return {
        "created": int(started),
        "created_us": int(started % 1 * 1_000_000),
        "last signal": int(asked or started),
        "SSRC": quality,
        "tags": tags,
        "totals": totals,
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
        known = {(stream.index, _side(stream, self.side).local) for stream in self.streams}
        self.streams += [one for one in leg.streams if (one.index, _side(one, self.side).local) not in known]

    def shown(self, totals: dict[str, _Count], quality: Answer) -> Answer:
        """The dictionary; what it counts is added to ``totals`` and ``quality``."""
        party, started = self.party, int(self.report.started)
        told: Answer = {"tag": party.tag}
        if party.branch:
            told["via-branch"] = party.branch
        if party.label:
            told["label"] = party.label
        others: list[object] = [{"tag": other, "type": "offer/answer"} for other in self.others]
        told |= {"created": started, "subscriptions": others, "subscribers": others}
        told["medias"] = [_media(one, self, totals, quality) for one in self.streams]
        return told


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


def _media(stream: StreamReport, of: _Monologue, totals: dict[str, _Count], quality: Answer) -> Answer:
    mine = _side(stream, of.side)
    told: Answer = {"index": stream.index + 1, "type": stream.kind, "protocol": stream.transport}
    if mine.codec:
        told["codec"] = mine.codec
    streams: list[object] = []
    if mine.local.port:
        streams.append(_rtp(stream, mine, of, totals["RTP"]))
        if "RTP/" in stream.transport.upper():
            streams.append(_rtcp(mine, of, totals["RTCP"]))
    told |= {"streams": streams, "flags": _media_flags(mine, of.party)}
    if mine.ssrc is not None:
        quality[str(mine.ssrc)] = _quality(mine)
    return told


def _media_flags(mine: SideReport, party: PartyReport) -> list[object]:
    """``send`` and ``recv`` are what we do, so the other way round than the party's own direction."""
    flags = (
        ("initialized", mine.sdp is not None),
        ("asymmetric", party.asymmetric),
        ("send", mine.direction in _RECEIVES),
        ("recv", mine.direction in _SENDS),
        ("rtcp-mux", mine.mux),
        ("ICE", mine.ice),
    )
    return [name for name, is_so in flags if is_so]


def _rtp(stream: StreamReport, mine: SideReport, of: _Monologue, totals: _Count) -> Answer:
    refused = mine.refused_packets - mine.rtcp_refused
    counted = {"packets": mine.packets, "bytes": mine.bytes, "errors": refused}
    flags = _stream_flags("RTP", mine.sdp, mine.learned, kernel=stream.plane == "kernel")
    told = _stream(mine.local, mine.learned or mine.sdp, mine.sdp, flags, counted)
    told["last packet"] = int(mine.last_packet or of.report.started)
    if mine.ssrc is not None:
        told["SSRC"] = mine.ssrc
    _add(totals, counted)
    return told


def _rtcp(mine: SideReport, of: _Monologue, totals: _Count) -> Answer:
    counted = {"packets": mine.rtcp_packets, "bytes": mine.rtcp_bytes, "errors": mine.rtcp_refused}
    local = mine.local if mine.mux else mine.local.with_port(mine.local.port + 1)
    wanted = mine.rtcp_sdp or (mine.sdp if mine.mux else None)
    told = _stream(
        local, mine.rtcp_learned or wanted, wanted, _stream_flags("RTCP", wanted, mine.rtcp_learned), counted
    )
    told["last packet"] = int(mine.rtcp_last or of.report.started)
    _add(totals, counted)
    return told


def _stream_flags(
    name: str, wanted: Endpoint | None, learned: Endpoint | None, *, kernel: bool = False
) -> list[object]:
    flags = ((name, True), ("filled", wanted is not None), ("confirmed", learned is not None), ("kernelized", kernel))
    return [flag for flag, is_so in flags if is_so]


def _stream(
    local: Endpoint, there: Endpoint | None, wanted: Endpoint | None, flags: list[object], counted: _Count
) -> Answer:
    return {
        "local port": local.port,
        "local address": local.address,
        "family": _family(local),
        "endpoint": _place(there),
        "advertised endpoint": _place(wanted),
        "flags": flags,
        "stats": dict(counted),
    }


def _place(place: Endpoint | None) -> Answer:
    return {} if place is None else {"family": _family(place), "address": place.address, "port": place.port}


def _family(place: Endpoint) -> str:
    return f"IPv{place.version}"


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


def _nothing() -> _Count:
    return {"packets": 0, "bytes": 0, "errors": 0}


def _add(totals: _Count, counted: _Count) -> None:
    for name, number in counted.items():
        totals[name] += number
