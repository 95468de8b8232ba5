"""web/figures.py and web/metrics.py: the names that docs/metrics.md promises, and values that add up."""

import re
from pathlib import Path

import pytest
from msgspec.structs import replace
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from mediaproxy.dialects.doorreport import DoorReport
from mediaproxy.endpoint import Endpoint
from mediaproxy.events import (
    CallEnded,
    CallReport,
    CallState,
    EndReason,
    PartyReport,
    Quality,
    RelayTotals,
    SideReport,
    StreamReport,
)
from mediaproxy.relay.latch import Reason
from mediaproxy.relay.slots import Reason as KernelReason
from mediaproxy.web.figures import MOS, Chronicle, RelayFigures, Snapshot
from mediaproxy.web.metrics import registry

PAGE = Path(__file__).parent.parent / "docs" / "metrics.md"
WHY = 'a kernel of Linux 5.4 \\ "too old"\nsays nobody'
RELAY = RelayFigures(
    totals=RelayTotals(
        relay="r1", started=5.0, plane="kernel", calls=3, talking=2, streams=4, offloaded=3, ports=100, ports_lent=16,
        packets=1000, bytes=172_000, refused_packets=9, started_calls=12, ended_calls={"bye": 8, "silent": 1},
        seconds=420.5, one_way_calls=1, silent_calls=2,
    ),
    states={"talking": 1, "held": 1, "ringing": 1},
    where="in the kernel (TCX on lo)",
    why_not_kernel=WHY,
    refused={reason: number for number, reason in enumerate(Reason)} | {"rate": 7},
    undeliverable=4,
    verdicts={reason.name: reason.value for reason in KernelReason},
    send_errors={"ENETUNREACH": 2},
    questions={"media": 30, "confirm": 12, "end": 9},
    question_errors={"media": 1, "confirm": 0, "end": 0},
    free=42,
    lent=8,
    cooling=3,
)  # fmt: skip
SNAPSHOT = Snapshot(
    version="1.2.3",
    started=1_700_000_000.0,
    relay=RELAY,
    relays={"berlin": True, "paris": False},
    doors=(DoorReport(protocol="ng", address="udp://127.0.0.1:2223", requests=5, errors=1, seconds=0.25),),
    notices_told=3,
    notices_failed=1,
    registrations=17,
)
END = Endpoint("192.0.2.1", 20000)


def ended(*qualities: Quality | None) -> CallEnded:
    """A call with a stream per pair of qualities: caller, callee."""
    sides = [SideReport(local=END, advertised=END, quality=quality) for quality in qualities]
    pairs = zip(sides[::2], sides[1::2], strict=True)
    streams = tuple(
        StreamReport(index=at, kind="audio", transport="RTP/AVP", caller=one, callee=other)
        for at, (one, other) in enumerate(pairs)
    )
    report = CallReport(
        call_id="x", caller=PartyReport(), callee=PartyReport(), state=CallState.ENDED, started=0.0,
        reason=EndReason.BYE, streams=streams,
    )  # fmt: skip
    return CallEnded(at=1.0, call_id="x", report=report)


def quality(mos: float | None, loss: float = 0.0, jitter: float | None = 0.001) -> Quality:
    return Quality(
        packets=100, lost=0, loss=loss, jitter=jitter, average_jitter=jitter, mos=mos, average_mos=mos, lowest_mos=mos
    )


def samples(snapshot: Snapshot, chronicle: Chronicle | None = None) -> dict[str, float]:
    """``name{label="value"}`` -> value, as Prometheus reads them."""
    text = generate_latest(registry(snapshot, chronicle or Chronicle())).decode()
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = ",".join(f'{name}="{value}"' for name, value in sorted(sample.labels.items()))
            found[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return found


def test_the_page_has_exactly_what_is_exported() -> None:
    """Name, kind, labels and meaning of each, in the same order: as Prometheus shows it."""
    text = generate_latest(registry(SNAPSHOT, Chronicle())).decode()
    labels: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels.setdefault(family.name, set()).update(set(sample.labels) - {"le"})
    exported = []
    for line in re.findall(r"^# HELP (.*)$", text, re.MULTILINE):
        name, _, meaning = line.partition(" ")
        kind = re.search(rf"^# TYPE {name} (\w+)$", text, re.MULTILINE)
        assert kind is not None
        shown = ", ".join(sorted(labels[name.removesuffix("_total")]))
        exported.append((name, kind[1], shown, meaning))
    rows = re.findall(r"^\| `(mediaproxy_\w+)` \| (\w+) \| (.*?) \| (.*) \|$", PAGE.read_text(), re.MULTILINE)
    told = [(name, kind, shown.replace("`", ""), meaning) for name, kind, shown, meaning in rows]
    assert told == exported


@pytest.mark.parametrize(
    "values", [CallState, EndReason, Reason, KernelReason], ids=["states", "ends", "refusals", "verdicts"]
)
def test_the_page_has_every_value_of_a_label(values: type[CallState | EndReason | Reason | KernelReason]) -> None:
    page = PAGE.read_text()
    wanted = [one.name.lower() if isinstance(one, KernelReason) else str(one.value) for one in values]
    assert not [one for one in wanted if f"`{one}`" not in page and one != "ended"]


def test_values() -> None:
    found = samples(SNAPSHOT)
    expected = {
        'mediaproxy_calls{state="talking"}': 1,
        'mediaproxy_calls{state="lingering"}': 0,
        'mediaproxy_streams{plane="kernel"}': 3,
        'mediaproxy_streams{plane="learning"}': 1,
        'mediaproxy_calls_ended_total{reason="bye"}': 8,
        'mediaproxy_calls_ended_total{reason="lost"}': 0,
        "mediaproxy_call_seconds_total": 420.5,
        'mediaproxy_packets_refused_total{reason="rate"}': 7,
        'mediaproxy_packets_refused_total{reason="loop"}': 5,
        'mediaproxy_kernel_packets_total{verdict="not_lent"}': 10,
        'mediaproxy_send_errors_total{error="ENETUNREACH"}': 2,
        'mediaproxy_port_pairs{state="free"}': 42,
        'mediaproxy_relay_up{relay="paris"}': 0,
        'mediaproxy_door_errors_total{address="udp://127.0.0.1:2223",protocol="ng"}': 1,
        'mediaproxy_notices_total{result="failed"}': 1,
        "mediaproxy_registrations": 17,
        "mediaproxy_packets_total": 1000,
    }
    assert {name: found.get(name) for name in expected} == expected


def test_why_media_is_not_in_the_kernel_is_told_whatever_the_text() -> None:
    text = generate_latest(registry(SNAPSHOT, Chronicle())).decode()
    (family,) = [one for one in text_string_to_metric_families(text) if one.name == "mediaproxy_plane_info"]
    assert family.samples[0].labels["why_not_kernel"] == WHY and family.samples[0].value == 1.0


def test_a_process_without_relay_doors_or_registrar_says_nothing_of_them() -> None:
    found = samples(Snapshot(version="1", started=1.0))
    assert set(found) == {name for name in found if name.startswith(("mediaproxy_build_info", "mediaproxy_start"))}
    assert len(found) == 2


def test_each_measured_direction_of_an_ended_call_is_in_the_histograms() -> None:
    chronicle = Chronicle()
    chronicle.fold(ended(quality(4.4), quality(3.05, loss=0.03), quality(None), None))
    chronicle.fold(ended(None, quality(1.0, loss=1.0, jitter=None)))
    found = samples(SNAPSHOT, chronicle)
    assert found["mediaproxy_call_mos_count"] == 3 and found["mediaproxy_call_mos_sum"] == pytest.approx(8.45)
    buckets = [found[f'mediaproxy_call_mos_bucket{{le="{limit}"}}'] for limit in MOS]
    assert buckets == [1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 3], "cumulative, and a value at its limit is below it"
    assert found['mediaproxy_call_mos_bucket{le="+Inf"}'] == 3
    assert found["mediaproxy_call_loss_ratio_count"] == 4 and found['mediaproxy_call_loss_ratio_bucket{le="0.0"}'] == 2
    assert found["mediaproxy_call_jitter_seconds_count"] == 3


def test_a_call_of_a_plane_that_measures_nothing_is_in_no_histogram() -> None:
    chronicle = Chronicle()
    chronicle.fold(ended(None, None))
    assert samples(SNAPSHOT, chronicle)["mediaproxy_call_mos_count"] == 0


def test_no_label_comes_from_a_peer() -> None:
    """All label values are ours or the operator's: a thousand calls make not one line more."""
    many = replace(RELAY, totals=replace(RELAY.totals, calls=1000))
    assert len(samples(replace(SNAPSHOT, relay=many))) == len(samples(SNAPSHOT))
