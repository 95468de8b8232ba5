"""What rtpengine's ``statistics`` tells: of all relays, of SIP servers and of the last minute.

Totals of relays and the tally of commands come in, a dictionary goes out. What rtpengine has and we do not do
(transcoding, calls of other nodes) is 0.
"""

import math
from collections.abc import Iterator, Sequence

from mediaproxy.dialects.ng.bencode import Answer
from mediaproxy.dialects.ng.tally import Tally
from mediaproxy.events import AddressTotals, EndReason, RelayTotals

_PYTHON = "user"
"The plane that is Python; what others forward is told as the kernel's."
_ENDS = {
    "timeoutsessions": (EndReason.SILENT,),
    "silenttimeoutsessions": (EndReason.HOLD_EXPIRED,),
    "finaltimeoutsessions": (),
    "offertimeoutsessions": (EndReason.UNANSWERED,),
    "regularterminatedsessions": (EndReason.BYE, EndReason.CANCEL, EndReason.FAILURE),
    "forcedterminatedsessions": (EndReason.ADMIN, EndReason.SHUTDOWN, EndReason.LOST),
}


def statistics(relays: Sequence[RelayTotals], tally: Tally, now: float) -> Answer:
    """The value of the key ``statistics``."""
    return {
        "currentstatistics": _current(relays, tally, now),
        "totalstatistics": _total(relays, tally, now),
        "intervalstatistics": _interval(relays, tally, now),
        "mos": _mos(relays),
        "controlstatistics": tally.control(),
        "interfaces": [told for one in relays for told in _interfaces(one)],
        "transcoders": [],
    }


def _current(relays: Sequence[RelayTotals], tally: Tally, now: float) -> Answer:
    """Rates are those since statistics were last asked for, or since the relays started."""
    calls = sum(one.calls for one in relays)
    told: Answer = {"sessionsown": calls, "sessionsforeign": 0, "sessionstotal": calls, "transcodedmedia": 0}
    counted = (
        sum(one.packets for one in relays),
        sum(one.bytes for one in relays),
        sum(one.refused_packets for one in relays),
    )
    since, *before = tally.before
    if not since or any(mine < past for mine, past in zip(counted, before, strict=True)):
        since, before = min((one.started for one in relays), default=now), [0, 0, 0]
    if now - since >= 1.0:
        tally.before = (now, *counted)
    seconds = max(1.0, now - since)
    fast = sum(one.packets for one in relays if one.plane != _PYTHON) > 0
    for name, mine, past in zip(("packetrate", "byterate", "errorrate"), counted, before, strict=True):
        rate = round((mine - past) / seconds)
        told |= {name: rate, f"{name}_user": 0 if fast else rate, f"{name}_kernel": rate if fast else 0}
    streams, offloaded = sum(one.streams for one in relays), sum(one.offloaded for one in relays)
    return told | {"media_userspace": max(0, streams - offloaded), "media_kernel": offloaded, "media_mixed": 0}


def _total(relays: Sequence[RelayTotals], tally: Tally, now: float) -> Answer:
    ended = sum(sum(one.ended_calls.values()) for one in relays)
    seconds, squares = sum(one.seconds for one in relays), sum(one.squares for one in relays)
    told: Answer = {
        "uptime": str(int(now - min((one.started for one in relays), default=now))),
        "managedsessions": ended,
        "rejectedsessions": tally.rejected,
    }
    for name, reasons in _ENDS.items():
        told[name] = sum(one.ended_calls.get(reason, 0) for one in relays for reason in reasons)
    for name, field in (
        ("relayedpackets", "packets"),
        ("relayedpacketerrors", "refused_packets"),
        ("relayedbytes", "bytes"),
    ):
        python = sum(getattr(one, field) for one in relays if one.plane == _PYTHON)
        fast = sum(getattr(one, field) for one in relays if one.plane != _PYTHON)
        told |= {name: python + fast, f"{name}_user": python, f"{name}_kernel": fast}
    return told | {
        "zerowaystreams": sum(one.silent_calls for one in relays),
        "onewaystreams": sum(one.one_way_calls for one in relays),
        "avgcallduration": f"{seconds / ended if ended else 0.0:.6f}",
        "totalcallsduration": f"{seconds:.6f}",
        "totalcallsduration2": f"{squares:.6f}",
        "totalcallsduration_stddev": f"{_deviation(ended, seconds, squares):.6f}",
    }


def _deviation(number: int, together: float, squares: float) -> float:
    """The standard deviation of so many numbers, of which the sum and the sum of the squares are known."""
    return math.sqrt(max(0.0, squares / number - (together / number) ** 2)) if number else 0.0


def _mos(relays: Sequence[RelayTotals]) -> Answer:
    number = sum(one.mos_samples for one in relays)
    together, squares = sum(one.mos for one in relays), sum(one.mos_squares for one in relays)
    return {
        "mos_total": f"{together:.6f}",
        "mos2_total": f"{squares:.6f}",
        "mos_samples_total": number,
        "mos_average": f"{together / number if number else 0.0:.6f}",
        "mos_stddev": f"{_deviation(number, together, squares):.6f}",
    }


def _interval(relays: Sequence[RelayTotals], tally: Tally, now: float) -> Answer:
    calls = sum(one.calls for one in relays)
    told: Answer = {
        "totalcallsduration": f"{tally.since(now, sum(one.seconds for one in relays)):.6f}",
        "minmanagedsessions": calls,
        "maxmanagedsessions": calls,
    }
    return told | tally.interval()


def _interfaces(relay: RelayTotals) -> Iterator[Answer]:
    """The addresses of a relay; one that has no name goes by the relay's."""
    for one in relay.by_address or (AddressTotals(ports=relay.ports, ports_lent=relay.ports_lent),):
        ports: Answer = {
            "min": one.port_min,
            "max": one.port_max,
            "totals": one.ports,
            "used": one.ports_lent,
            "free": one.ports - one.ports_lent,
            "used_pct": f"{100 * one.ports_lent / one.ports if one.ports else 0.0:.2f}",
        }
        yield {"name": one.name or relay.relay or "default", "address": one.address, "ports": ports}
