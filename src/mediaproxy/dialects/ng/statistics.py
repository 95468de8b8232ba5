"""What rtpengine's ``statistics`` tells: of all relays, of SIP servers and of the last minute.

Totals of relays and the tally of commands come in, a dictionary goes out. What rtpengine has and we do not do
(transcoding, calls of other nodes) is 0.
"""

from collections.abc import Sequence

from mediaproxy.dialects.ng.bencode import Answer
from mediaproxy.dialects.ng.tally import Tally
from mediaproxy.events import EndReason, RelayTotals

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
        "intervalstatistics": _interval(relays, tally),
        "controlstatistics": tally.control(),
        "interfaces": [_interface(one) for one in relays],
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
    seconds = sum(one.seconds for one in relays)
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
    }


def _interval(relays: Sequence[RelayTotals], tally: Tally) -> Answer:
    calls = sum(one.calls for one in relays)
    told: Answer = {
        "totalcallsduration": f"{sum(one.seconds for one in relays):.6f}",
        "minmanagedsessions": calls,
        "maxmanagedsessions": calls,
    }
    return told | tally.interval()


def _interface(relay: RelayTotals) -> Answer:
    used = f"{100 * relay.ports_lent / relay.ports if relay.ports else 0.0:.2f}"
    ports: Answer = {
        "totals": relay.ports,
        "used": relay.ports_lent,
        "free": relay.ports - relay.ports_lent,
        "used_pct": used,
    }
    return {"name": relay.relay or "default", "ports": ports}
