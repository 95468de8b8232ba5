"""Commands about sessions: D ends one, X all, Q says how one stands; P, S, R, C and N are about players and recorders,
which are not here.

    D[w] CALLID FROM-TAG [TO-TAG]            Q[v] CALLID FROM-TAG [TO-TAG [COUNTER…]]
    P[COUNT] CALLID PROMPT CODECS FROM-TAG [TO-TAG]        S CALLID FROM-TAG [TO-TAG]
    R[s] CALLID FROM-TAG [TO-TAG]   C[s] CALLID TARGET FROM-TAG [TO-TAG]   N[a] CALLID FROM-TAG [TO-TAG]

A session is a call's, if the caller's tag is one of the two; the other one does not matter, as in the original.
"""

import re
from collections.abc import Generator, Iterable

from mediaproxy.control import (
    EndCause,
    EndRequest,
    Inquiry,
    ListRequest,
    MediaReply,
    MediaRequest,
    Party,
    QueryRequest,
    Question,
    Stream,
)
from mediaproxy.dialects.dialect import Peer, Steps
from mediaproxy.dialects.rtpproxy import names
from mediaproxy.dialects.rtpproxy.command import Command
from mediaproxy.dialects.rtpproxy.errors import Code, Refusal
from mediaproxy.events import CallReport, CallState, Side, SideReport, StreamReport, reports_of

OK = b"0"
_COUNT = re.compile(rb"[+-]?[0-9]{1,9}")
_MOST_CALLS = 1_000_000
_Asking = Generator[Question | Inquiry, MediaReply | None, CallReport]


def delete(command: Command, peer: Peer) -> Steps:
    """D: the whole call ends, whichever of the parties' tags comes first. With the number of a stream behind a tag only
    that stream is meant; it ends the call if it is the last one."""
    if command.modifiers.strip(b"wW"):
        raise Refusal(Code.DELETE_MODIFIER)
    first, at = names.numbered(command.arguments[1])
    second, also = names.numbered(command.argument(2))
    index = at if at is not None else also
    if index is not None and (yield from _switched_off(command, first, second, index)):
        return OK
    reply = yield EndRequest(
        call_id=command.arguments[0],
        sender=Party(tag=first),
        receiver=Party(tag=second),
        cause=EndCause.DELETE,
        whole=True,
        weak=bool(command.modifiers),
    )
    _check(reply)
    return OK


def _switched_off(
    command: Command, first: str, second: str, index: int
) -> Generator[Question | Inquiry, MediaReply | None, bool]:
    """Disable one stream. False: it is the last one of its call."""
    report = yield from _session(command.arguments[0], first, second)
    live = {stream.index for stream in report.streams if not stream.disabled}
    if index not in live:
        raise Refusal(Code.UNKNOWN_SESSION)
    if live == {index}:
        return False
    caller = report.caller.tag == first
    reply = yield MediaRequest(
        call_id=report.call_id,
        sender=Party(tag=first if caller else second),
        receiver=Party(tag=second if caller else first),
        cseq=-1,
        sdp_hash=f"D {index}",
        streams=(Stream(kind="media", transport="udp", told=False),),
        part=index,
    )
    _check(reply)
    return True


def delete_all(command: Command, peer: Peer) -> Steps:
    """X: all calls end that came by a door of this protocol, however many these are; who says so is not told of it."""
    reply = yield ListRequest(limit=_MOST_CALLS)
    _check(reply)
    for call_id in reply.calls if reply is not None else ():
        found = yield QueryRequest(call_id=call_id)
        for report in reports_of(found) if found is not None else ():
            if report.notify.startswith(names.SCHEME):
                caller = Party(tag=report.caller.tag)
                yield EndRequest(call_id=call_id, sender=caller, receiver=Party(), cause=EndCause.DELETE, delay=0.0)
    return OK


def query(command: Command, peer: Peer) -> Steps:
    """Q: time to live and packets of a stream, seen from the party of the first tag; of the first stream if none is
    named."""
    if command.modifiers.strip(b"vV"):
        raise Refusal(Code.QUERY_MODIFIER)
    first, second, index = names.parties(command.arguments[1], command.argument(2))
    report = yield from _session(command.arguments[0], first, second)
    side = Side.CALLER if report.caller.tag == first else Side.CALLEE
    stream = _stream(report.streams, index, second if side is Side.CALLER else first)
    if report.answered is not None and _ends(stream, side)[0].sdp is None:
        raise Refusal(Code.UNKNOWN_SESSION)  # its party has switched it off
    values = _counters(report, stream, side, peer.now)
    wanted = command.arguments[3:] or ("ttl", "npkts_ina", "npkts_ino", "nrelayed", "ndropped")
    if not all(name in values for name in wanted):
        raise Refusal(Code.QUERY)
    verbose = bool(command.modifiers)
    return " ".join(f"{name}={values[name]}" if verbose else str(values[name]) for name in wanted).encode("latin-1")


def _stream(streams: Iterable[StreamReport], index: int, callee: str) -> StreamReport:
    found = [stream for stream in streams if stream.index == index]
    if not found:
        raise Refusal(Code.UNKNOWN_SESSION)
    return next((stream for stream in found if stream.leg == callee), found[0])


def _counters(report: CallReport, stream: StreamReport, side: Side, now: float) -> dict[str, int]:
    """The original's names and meanings; rtpa_* are of the first tag's RTP, by its sequence numbers. Duplicates and
    what is no RTP are not counted there; but OpenSIPS' rtpproxy_all_stats() wants ten numbers or none."""
    own, other = _ends(stream, side)
    return {
        "ttl": max(0, int(report.ends_at - now)) if report.ends_at is not None else 0,
        "npkts_ina": own.packets,
        "npkts_ino": other.packets,
        "nrelayed": own.sent + other.sent,
        "ndropped": own.refused_packets + other.refused_packets,
        "rtpa_nsent": own.packets + own.lost,
        "rtpa_nrcvd": own.packets,
        "rtpa_ndups": 0,
        "rtpa_nlost": own.lost,
        "rtpa_perrs": 0,
    }


def _ends(stream: StreamReport, side: Side) -> tuple[SideReport, SideReport]:
    return (stream.caller, stream.callee) if side is Side.CALLER else (stream.callee, stream.caller)


def play(command: Command, peer: Peer) -> Steps:
    """P: there are no players, so to stop them (a count of 0) is done and to start one fails."""
    count = command.modifiers
    if count and not _COUNT.fullmatch(count):
        raise Refusal(Code.PLAY_COUNT)
    yield from _about(command, 3)
    if count and not int(count):
        return OK
    raise Refusal(Code.PLAYER)


def stop_playing(command: Command, peer: Peer) -> Steps:
    """S: nothing is played, so it is done. Kamailio's scripts say it whenever a call is not on hold."""
    yield from _about(command, 1)
    return OK


def record(command: Command, peer: Peer) -> Steps:
    """R and C."""
    letters = command.modifiers.lower()
    if letters not in (b"", b"s"):
        raise Refusal(Code.RECORD_MODIFIER if letters.startswith(b"s") else Code.RECORD_UNKNOWN)
    yield from _about(command, 1 if command.verb == "R" else 2)
    raise Refusal(Code.COPY)


def stop_recording(command: Command, peer: Peer) -> Steps:
    """N: no session is recorded, which the original answers like one that it does not know."""
    letters = command.modifiers.lower()
    if letters not in (b"", b"a"):
        raise Refusal(Code.RECORD_MODIFIER if letters.startswith(b"a") else Code.RECORD_UNKNOWN)
    yield from _about(command, 1)
    raise Refusal(Code.UNKNOWN_SESSION)


def _about(command: Command, at: int) -> _Asking:
    """The call of a command whose From tag is the argument ``at``."""
    first, second, _ = names.parties(command.arguments[at], command.argument(at + 1))
    return (yield from _session(command.arguments[0], first, second))


def _session(call_id: str, first: str, second: str) -> _Asking:
    """The call of that Call-ID whose caller has one of the tags. Refusal if there is none, or only one that was deleted
    before it was answered, whose ports an L may still ask for."""
    reply = yield QueryRequest(call_id=call_id)
    _check(reply)
    reports = reports_of(reply) if reply is not None else ()
    live = [report for report in reports if report.state is not CallState.LINGERING]
    found = next((report for report in live if report.caller.tag and report.caller.tag in (first, second)), None)
    if found is None:
        raise Refusal(Code.UNKNOWN_SESSION)
    return found


def _check(reply: MediaReply | None) -> None:
    if reply is None or reply.status >= 500:
        raise Refusal(Code.OVERLOAD)
    if reply.error:
        raise Refusal(Code.UNKNOWN_SESSION)
