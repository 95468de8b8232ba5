"""Whom a command about a party of a call means (rtpengine's selection: by label, address or tag).

Reports of the call and the command come in, a question goes out, or why there is none in rtpengine's words.
"""

from collections.abc import Iterable, Iterator, Sequence

from mediaproxy.control import Switch, SwitchRequest
from mediaproxy.dialects.ng.bencode import NgError
from mediaproxy.dialects.ng.flags import Command
from mediaproxy.dialects.ng.words import OFF
from mediaproxy.endpoint import address_text
from mediaproxy.events import CallReport, SideReport


def switched(command: Command, switch: Switch, reports: Sequence[CallReport]) -> SwitchRequest:
    """What to ask for the party that the command means, or for everybody. NgError if there is no such party."""
    call_id = command.call_id
    if command.has("all") or command.all not in OFF:
        return SwitchRequest(call_id=call_id, switch=switch, everybody=True)
    if command.label:
        _first(_labelled(reports, command.label), "No monologue matching the given label")
        return SwitchRequest(call_id=call_id, switch=switch, label=command.label)
    if command.address:
        address = address_text(command.address)
        if address is None:
            raise NgError("Failed to parse network address")
        _first(_at(reports, address), "Failed to match address to any tag")
        return SwitchRequest(call_id=call_id, switch=switch, address=address)
    if command.from_tag:
        _first(_tags(reports, command.from_tag), "From-tag given, but no such tag exists")
        if command.has("directional"):
            return SwitchRequest(call_id=call_id, switch=switch, tag=command.from_tag)
    return SwitchRequest(call_id=call_id, switch=switch)


def check_receiver(command: Command, reports: Sequence[CallReport]) -> None:
    """With ``to-tag`` or ``to-label`` only what goes to one receiver is meant. In a call of two that is what the other
    one sends; NgError if there is no such receiver, or the call has more."""
    if command.to_tag:
        _first(_tags(reports, command.to_tag), "Media flow not found (to-tag not found)")
    if command.to_label:
        _first(_labelled(reports, command.to_label), "Media flow not found (to-label not found)")
    if (command.to_tag or command.to_label) and len(set(_all_tags(reports))) > 2:
        raise NgError("to-tag is not supported in a call with more than two parties: leave it out")


def _first(found: Iterable[str], otherwise: str) -> str:
    for tag in found:
        return tag
    raise NgError(otherwise)


def _labelled(reports: Sequence[CallReport], label: str) -> Iterator[str]:
    for report in reports:
        for party in (report.caller, report.callee):
            if party.label == label:
                yield party.tag


def _all_tags(reports: Sequence[CallReport]) -> Iterator[str]:
    for report in reports:
        yield report.caller.tag
        yield report.callee.tag
        yield from (stream.leg for stream in report.streams if stream.leg)


def _tags(reports: Sequence[CallReport], tag: str) -> Iterator[str]:
    return (one for one in _all_tags(reports) if one == tag)


def _at(reports: Sequence[CallReport], address: str) -> Iterator[str]:
    for report in reports:
        for stream in report.streams:
            if _wants(stream.caller, address):
                yield report.caller.tag
            if _wants(stream.callee, address):
                yield stream.leg or report.callee.tag


def _wants(side: SideReport, address: str) -> bool:
    return side.sdp is not None and side.sdp.address == address
