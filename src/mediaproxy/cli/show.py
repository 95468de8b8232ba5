"""What ``mediaproxy calls``, ``registrations``, ``relays`` and ``records`` print: lines per call, user or relay.

Reports come in, styled lines go out, made for 80 to 120 columns; nothing is cut, so that a line that goes into a file
or to grep is whole. What an operator looks for when a call has no audio stands out: a side of which nothing came,
sources that were refused, addresses that are not known.
"""

from collections.abc import Iterable, Sequence

from rich.text import Text

from mediaproxy.accounting import Record
from mediaproxy.cli.words import count, duration, moment, several, shown
from mediaproxy.control import KnownBy
from mediaproxy.edge.binding import Binding
from mediaproxy.edge.keepalive import Pinged
from mediaproxy.events import CallReport, CallState, PartyReport, Quality, SideReport, StreamReport
from mediaproxy.server.answers import RelayShown

_STATES = {
    CallState.RINGING: "yellow",
    CallState.TALKING: "green",
    CallState.HELD: "cyan",
    CallState.LINGERING: "dim",
    CallState.ENDED: "dim",
}
_KNOWN = {
    KnownBy.EXPLICIT: "told by the SIP server",
    KnownBy.RECEIVED: "told by a trusted proxy",
    KnownBy.SOURCE: "",
}
_RANKS = {1: "as in its SDP", 2: "address of its SDP", 3: "address of its SIP", 4: "after probation"}

Row = tuple[str, ...]


def calls(reports: Sequence[CallReport], now: float, why_not_kernel: str = "") -> list[Text]:
    """The page of all calls, oldest first, and how many there are."""
    lines: list[Text] = []
    for report in sorted(reports, key=lambda r: r.started):
        lines += [*call(report, now), Text()]
    troubled = sum(1 for report in reports if warnings(report))
    total = "no calls" if not reports else several(len(reports), "call")
    lines.append(Text(f"{total}, {several(troubled, 'call')} with warnings" if troubled else total, "bold"))
    if why_not_kernel:
        why = shown(why_not_kernel.splitlines()[0])
        lines.append(Text(f"media is relayed in user space: {why} (mediaproxy doctor says more)", "yellow"))
    return lines


def call(report: CallReport, now: float) -> list[Text]:
    """The block of one call."""
    since = report.answered if report.answered is not None else report.started
    until = report.ended if report.ended is not None else now
    head = Text.assemble(
        (f"{report.state.value} {duration(until - since)}", f"bold {_STATES[report.state]}"),
        f"  {_who(report.caller)} → {_who(report.callee)}",
    )
    answered = (
        "not answered" if report.answered is None else f"answered after {duration(report.answered - report.started)}"
    )
    relay = f", relay {report.relay}" if report.relay else ""
    lines = [
        head,
        Text(f"  Call-ID  {shown(report.call_id)}"),
        Text(f"  since    {moment(report.started)}, {answered}{relay}"),
        *(_party(name, party) for name, party in (("caller", report.caller), ("callee", report.callee))),
        *_streams(report.streams, now),
    ]
    return [*lines, *(Text(f"  ! {warning}", "bold red") for warning in warnings(report))]


def _who(party: PartyReport) -> str:
    return shown(party.uri) or "(unknown)"


def _party(name: str, party: PartyReport) -> Text:
    if party.signalling is None:
        where = Text(
            "not heard of yet" if party.known_by is KnownBy.UNKNOWN and not party.tag else "address unknown", "dim"
        )
    else:
        known = _KNOWN.get(party.known_by, party.known_by.value)
        where = Text(f"{party.signalling}{known and f' ({known})'}")
    agent = f"  {shown(party.user_agent)}" if party.user_agent else ""
    asymmetric = "  asymmetric" if party.asymmetric else ""
    return Text.assemble(f"  {name}   ", where, (agent + asymmetric, "dim"))


def _streams(streams: Sequence[StreamReport], now: float) -> list[Text]:
    if not streams:
        return [Text("  no media yet", "dim")]
    measured = any(side.quality is not None for stream in streams for side in (stream.caller, stream.callee))
    quality = ("jitter", "MOS (lowest)") if measured else ()
    rows: list[Row] = [("", "", "received", "sent to", "lost", *quality, "codec", "last", "media comes from")]
    for stream in streams:
        rows.append((_name(stream), "caller", *_side(stream.caller, now, measured)))
        rows.append((_state(stream), "callee", *_side(stream.callee, now, measured)))
    lines = aligned(rows, right=(2, 3, 4, 5, 6) if measured else (2, 3, 4))
    for at, (line, row) in enumerate(zip(lines, rows, strict=True)):
        if at == 0:
            line.stylize("dim")
        elif row[-2] == "never":
            line.stylize("yellow", 0)
    return lines


def _name(stream: StreamReport) -> str:
    leg = f" (fork {shown(stream.leg)})" if stream.leg else ""
    return f"{shown(stream.kind)} {stream.index + 1}{leg}"


def _state(stream: StreamReport) -> str:
    plane = {"user": "user space", "native": "user space (C)", "": ""}.get(stream.plane, stream.plane)
    return "on hold" if stream.held else plane


def _side(side: SideReport, now: float, measured: bool) -> Row:
    last = "never" if side.last_packet is None else f"{max(0.0, now - side.last_packet):.0f} s ago"
    counts = (count(side.packets), count(side.sent), count(side.lost))
    quality = _quality(side.quality) if measured else ()
    return (*counts, *quality, shown(side.codec) or "-", last, _source(side))


def _quality(quality: Quality | None) -> Row:
    """Jitter and MOS of the party's RTP; - is what was not measured or cannot be estimated."""
    if quality is None:
        return ("-", "-")
    jitter = "-" if quality.jitter is None else f"{1000 * quality.jitter:.1f} ms"
    if quality.mos is None or quality.lowest_mos is None:
        return (jitter, "-")
    return (jitter, f"{quality.mos:.1f} ({quality.lowest_mos:.1f})")


def _source(side: SideReport) -> str:
    if side.learned is not None:
        rank = _RANKS.get(side.rank, "")
        return f"{side.learned}{rank and f' ({rank})'}"
    wanted = str(side.sdp) if side.sdp is not None else "none yet"
    return f"unheard: SDP {wanted}, ours {side.advertised}"


def warnings(report: CallReport) -> list[str]:
    """Everything about a call that somebody should look at."""
    found: list[str] = []
    for name, party in (("caller", report.caller), ("callee", report.callee)):
        if party.tag and party.signalling is None and party.known_by is KnownBy.UNKNOWN:
            found.append(f"the {name}'s address is unknown: nobody can qualify by address")
    for stream in report.streams:
        for name, side in (("caller", stream.caller), ("callee", stream.callee)):
            found += [f"{_name(stream)}: {warning}" for warning in side.warnings]
            for refused in side.refused:
                if any(str(refused.source) in warning for warning in side.warnings):
                    continue  # with its reason already
                packets = several(refused.packets, "packet")
                found.append(f"{_name(stream)}: refused {packets} from {refused.source} at the {name}'s port")
            listed = sum(refused.packets for refused in side.refused)
            if side.refused_packets > listed:
                rest = several(side.refused_packets - listed, "packet")
                found.append(f"{_name(stream)}: refused {rest} more at the {name}'s port, unseen by whom")
    return found


def registrations(bindings: Iterable[tuple[Binding, Pinged | None]], now: float) -> list[Text]:
    """The page of all users, each with its contacts and how they are pinged, and how many there are."""
    users: dict[str, list[tuple[Binding, Pinged | None]]] = {}
    for binding, ping in bindings:
        users.setdefault(binding.aor, []).append((binding, ping))
    lines: list[Text] = []
    for aor in sorted(users):
        lines.append(Text(shown(aor), "bold"))
        for binding, ping in users[aor]:
            lines += _contact(binding, ping, now)
    contacts = sum(len(contacts) for contacts in users.values())
    total = f"{several(len(users), 'user')}, {several(contacts, 'contact')}" if users else "nobody is registered"
    return [*lines, *([Text()] if lines else []), Text(total, "bold")]


def _ping(ping: Pinged, binding: Binding, now: float) -> str:
    if not ping.method:
        return f"pinged by {'four bytes' if binding.transport == 'udp' else 'empty lines'}"
    if ping.lost > 1:
        return f"silent to {ping.lost} {ping.method}"
    answered = "no answer yet" if ping.answered is None else f"answered {duration(now - ping.answered)} ago"
    return f"pinged by {ping.method}, {answered}"


def _contact(binding: Binding, ping: Pinged | None, now: float) -> list[Text]:
    facts = [
        binding.transport,
        *(["behind NAT"] if binding.nat else []),
        *([_ping(ping, binding, now)] if ping is not None else []),
        f"expires in {duration(binding.expires - now)}",
    ]
    if binding.q != 1.0:
        facts.append(f"q={binding.q:g}")
    agent = f"  {shown(binding.user_agent)}" if binding.user_agent else ""
    lines = [Text.assemble(f"  {shown(binding.contact)}  ", ", ".join(facts), (agent, "dim"))]
    if binding.contact not in binding.sent:
        lines.append(Text(f"    it says {shown(binding.sent)}; its REGISTER came from {binding.received}", "dim"))
    if binding.path:
        lines.append(Text(f"    by way of {', '.join(shown(hop) for hop in binding.path)}", "dim"))
    if not binding.reachable:
        lines.append(Text("    ! unreachable: its connection is gone; it must register anew", "bold red"))
    return lines


def relays(found: Sequence[RelayShown]) -> list[Text]:
    """The page of all relays that calls may go to, and how many there are."""
    rows: list[Row] = [("relay", "", "weight", "tier", "domains", "address")]
    for one in found:
        domains = ", ".join(map(shown, one.domains)) or ("named by DNS" if one.named_by_dns else "all others")
        state = "up" if one.up else "down"
        rows.append((shown(one.name), state, f"{one.weight:g}", str(one.tier), domains, shown(one.address)))
    lines = aligned(rows, right=(2, 3))
    lines[0].stylize("dim")
    for line, one in zip(lines[1:], found, strict=True):
        if not one.up:
            line.stylize("bold red")
    lines += [Text(f"  ! {shown(one.name)}: {shown(one.why)}", "bold red") for one in found if not one.up]
    down = sum(1 for one in found if not one.up)
    return [*lines, Text(), Text(several(len(found), "relay") + (f", {down} down" if down else ""), "bold")]


def aligned(rows: Sequence[Row], right: Iterable[int] = ()) -> list[Text]:
    """Columns under each other, two spaces apart, indented by two; nothing is cut."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    right = set(right)
    lines = []
    for row in rows:
        cells = [
            cell.rjust(w) if at in right else cell.ljust(w)
            for at, (cell, w) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append(Text(("  " + "  ".join(cells)).rstrip()))
    return lines


def records(found: Sequence[Record]) -> list[Text]:
    """The page of calls that have ended, the latest last, and how many there are."""
    lines: list[Text] = []
    for one in found:
        lines += [*_record(one), Text()]
    lines.append(Text(several(len(found), "call") if found else "no calls recorded", "bold"))
    return lines


def _never_heard(record: Record) -> list[str]:
    """The sides of a call without any audio; one that is silent while the other speaks stands under ``silences``."""
    return [
        f"stream {stream.index + 1}: no packet ever came, neither from caller nor from callee"
        for stream in record.streams
        if not stream.held and not stream.caller.packets and not stream.callee.packets
    ]


def _record(record: Record) -> list[Text]:
    report = CallReport(
        call_id=record.call_id,
        caller=record.caller,
        callee=record.callee,
        state=CallState.ENDED,
        started=record.started,
        answered=record.answered,
        ended=record.ended,
        relay=record.relay,
        streams=record.streams,
    )
    status = f" {record.status}" if record.status else ""
    talked = "never answered" if record.answered is None else f"talked {duration(record.duration)}"
    head = Text.assemble(
        (f"{talked}, {record.reason.value}{status}", "bold"), f"  {_who(record.caller)} → {_who(record.callee)}"
    )
    told = [
        f"stream {silence.stream + 1}: nothing heard from the {silence.silent.value} for {duration(silence.seconds)}"
        for silence in record.silences
    ]
    if record.answered is not None:
        told += _never_heard(record)
    if record.moves:
        told.append(f"media came from a new source {several(record.moves, 'time')}")
    if record.revived:
        told.append("it was answered while it was being given up")
    return [head, *call(report, record.ended)[1:], *(Text(f"  ! {text}", "yellow") for text in told)]
