"""The metrics for Prometheus: a Snapshot and a Chronicle come in, families with names, helps and labels go out.

Names and labels are a promise to whoever has made a dashboard: docs/metrics.md has them all, and a test compares. A
label never has a value that a peer could choose.
"""

import platform
from collections.abc import Iterable, Iterator, Mapping

from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from mediaproxy.events import CallState, EndReason
from mediaproxy.web.figures import Chronicle, Histogram, RelayFigures, Snapshot

_DOORS = (
    ("requests", "Requests that were worked on, repetitions not counted"),
    ("errors", "Requests that were answered by an error"),
    ("malformed", "What was no request"),
    ("repeated", "Requests that came again and got the answer of the first one"),
    ("refused", "Datagrams and connections of addresses that may not ask"),
    ("dropped", "Datagrams and connections that were too many or too long"),
)


def families(snapshot: Snapshot, chronicle: Chronicle) -> Iterator[Metric]:
    """All families of one scrape."""
    build = {"version": snapshot.version, "python": platform.python_version()}
    yield InfoMetricFamily("mediaproxy_build", "The program", build)
    yield _gauge("start_time_seconds", "When the server started, seconds since the epoch", snapshot.started)
    if snapshot.relay is not None:
        yield from _calls(snapshot.relay)
        yield from _packets(snapshot.relay)
        yield from _quality(chronicle)
    if snapshot.relays:
        up = {name: int(one) for name, one in snapshot.relays.items()}
        yield _gauges("relay_up", "Whether a relay that calls may go to answers", "relay", up)
    if snapshot.registrations is not None:
        yield _gauge("registrations", "Contacts that are registered", snapshot.registrations)
    yield from _doors(snapshot)


def _calls(relay: RelayFigures) -> Iterator[Metric]:
    totals = relay.totals
    plane = {"plane": totals.plane, "where": relay.where, "why_not_kernel": relay.why_not_kernel}
    yield InfoMetricFamily("mediaproxy_plane", "What forwards media, and why it is not the kernel if it is not", plane)
    states = {state.value: relay.states.get(state, 0) for state in CallState if state is not CallState.ENDED}
    yield _gauges("calls", "Calls by where they stand", "state", states)
    streams = {totals.plane: totals.offloaded, "learning": totals.streams - totals.offloaded}
    yield _gauges(
        "streams", "Relayed streams by what forwards them; learning: user space, packet by packet", "plane", streams
    )
    yield _counter("calls_started", "Calls that began in this process", totals.started_calls)
    ended = {reason.value: totals.ended_calls.get(reason, 0) for reason in EndReason}
    yield _counters("calls_ended", "Calls that ended, by why", "reason", ended)
    yield _counter("call_seconds", "Talking time of ended calls", totals.seconds)
    yield _counter(
        "calls_one_way", "Answered calls that ended and in which one side was never heard", totals.one_way_calls
    )
    yield _counter("calls_silent", "Answered calls that ended and in which nobody was heard", totals.silent_calls)
    yield _counters("questions", "Questions of the SIP side, by kind", "kind", relay.questions)
    yield _counters("question_errors", "Questions that were answered by an error", "kind", relay.question_errors)
    ports = {"lent": relay.lent, "free": relay.free, "cooling": relay.cooling}
    yield _gauges("port_pairs", "Pairs of ports; cooling: of an ended call, not lent again yet", "state", ports)


def _packets(relay: RelayFigures) -> Iterator[Metric]:
    totals = relay.totals
    yield _counter("packets", "Packets relayed, RTP, RTCP and others", totals.packets)
    yield _counter("bytes", "UDP payload bytes of these", totals.bytes)
    yield _counter("packets_undeliverable", "Packets of a party that had nowhere to go", relay.undeliverable)
    yield _counters("packets_refused", "Packets that were not let into a call, by why", "reason", relay.refused)
    verdicts = {name.lower(): count for name, count in relay.verdicts.items()}
    yield _counters(
        "kernel_packets", "Packets to the relay's ports, by what the kernel did with them", "verdict", verdicts
    )
    yield _counters("send_errors", "Packets that the network did not take, by errno", "error", relay.send_errors)


def _quality(chronicle: Chronicle) -> Iterator[Metric]:
    for name, text, histogram in (
        ("call_mos", "Average estimated MOS of each direction of ended calls", chronicle.mos),
        ("call_lowest_mos", "Lowest estimated MOS of each direction of ended calls", chronicle.lowest_mos),
        ("call_loss_ratio", "Part of the RTP packets lost before they reached the relay, by direction", chronicle.loss),
        ("call_jitter_seconds", "Average interarrival jitter (RFC 3550) at the relay, by direction", chronicle.jitter),
    ):
        yield HistogramMetricFamily(f"mediaproxy_{name}", text, buckets=_buckets(histogram), sum_value=histogram.sum)


def _buckets(histogram: Histogram) -> list[tuple[str, float]]:
    found, total = [], 0
    for limit, count in zip((*histogram.limits, float("inf")), histogram.counts, strict=True):
        total += count
        found.append(("+Inf" if limit == float("inf") else repr(limit), float(total)))
    return found


def _doors(snapshot: Snapshot) -> Iterator[Metric]:
    if not snapshot.doors:
        return
    labels = ("protocol", "address")
    for field, text in _DOORS:
        family = CounterMetricFamily(f"mediaproxy_door_{field}", text, labels=labels)
        for door in snapshot.doors:
            family.add_metric((door.protocol, door.address), getattr(door, field))
        yield family
    seconds = CounterMetricFamily("mediaproxy_door_seconds", "From requests to their answers, together", labels=labels)
    working = GaugeMetricFamily("mediaproxy_door_working", "Requests under way", labels=labels)
    connections = GaugeMetricFamily("mediaproxy_door_connections", "Connections", labels=labels)
    for door in snapshot.doors:
        where = (door.protocol, door.address)
        seconds.add_metric(where, door.seconds)
        working.add_metric(where, door.working)
        connections.add_metric(where, door.connections)
    yield from (seconds, working, connections)
    told = {"told": snapshot.notices_told, "failed": snapshot.notices_failed}
    yield _counters("notices", "SIP servers that were to be told of a call's end, by how that went", "result", told)


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"mediaproxy_{name}", text, value=value)


def _counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(f"mediaproxy_{name}", text, value=value)


def _gauges(name: str, text: str, label: str, values: Mapping[str, float]) -> Metric:
    return _filled(GaugeMetricFamily(f"mediaproxy_{name}", text, labels=(label,)), values)


def _counters(name: str, text: str, label: str, values: Mapping[str, float]) -> Metric:
    return _filled(CounterMetricFamily(f"mediaproxy_{name}", text, labels=(label,)), values)


def _filled(family: GaugeMetricFamily | CounterMetricFamily, values: Mapping[str, float]) -> Metric:
    for value, number in values.items():
        family.add_metric((value,), number)
    return family


class _Collected(Collector):
    def __init__(self, found: Iterable[Metric]) -> None:
        self._found = tuple(found)

    def collect(self) -> Iterable[Metric]:
        return self._found


def registry(snapshot: Snapshot, chronicle: Chronicle) -> CollectorRegistry:
    """What prometheus_client's encoders write."""
    made = CollectorRegistry(auto_describe=False)
    made.register(_Collected(families(snapshot, chronicle)))
    return made
