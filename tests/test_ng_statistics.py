"""What NG's ``statistics`` tells: relays added up, rates, commands by SIP server, and the last minute."""

from typing import Any

import pytest

from mediaproxy.dialects.ng.statistics import statistics
from mediaproxy.dialects.ng.tally import INTERVAL, PROXIES, SHORT, Tally
from mediaproxy.events import AddressTotals, EndReason, RelayTotals

ONE = RelayTotals(
    relay="one",
    started=900.0,
    plane="kernel",
    calls=3,
    streams=5,
    offloaded=4,
    ports=100,
    ports_lent=25,
    packets=1000,
    bytes=172_000,
    refused_packets=10,
    ended_calls={EndReason.BYE: 4, EndReason.CANCEL: 1, EndReason.SILENT: 2, EndReason.ADMIN: 1},
    seconds=80.0,
    one_way_calls=2,
    silent_calls=1,
)
TWO = RelayTotals(
    relay="two",
    started=950.0,
    plane="user",
    calls=1,
    streams=1,
    packets=500,
    bytes=86_000,
    ended_calls={EndReason.UNANSWERED: 1, EndReason.HOLD_EXPIRED: 1},
)


def found(*relays: RelayTotals, tally: Tally | None = None, now: float = 1000.0) -> dict[str, Any]:
    told: Any = statistics(relays, tally or Tally(), now)
    return dict(told)


def test_relays_are_added_up() -> None:
    told = found(ONE, TWO)
    current, total = told["currentstatistics"], told["totalstatistics"]
    assert (current["sessionsown"], current["sessionsforeign"], current["sessionstotal"]) == (4, 0, 4)
    assert (current["media_kernel"], current["media_userspace"], current["media_mixed"]) == (4, 2, 0)
    assert total["uptime"] == "100"
    assert total["managedsessions"] == 10
    assert total["regularterminatedsessions"] == 5
    assert total["timeoutsessions"] == 2
    assert total["silenttimeoutsessions"] == 1
    assert total["offertimeoutsessions"] == 1
    assert total["forcedterminatedsessions"] == 1
    assert total["finaltimeoutsessions"] == 0
    assert (total["relayedpackets"], total["relayedpackets_kernel"], total["relayedpackets_user"]) == (1500, 1000, 500)
    assert (total["relayedbytes"], total["relayedpacketerrors"]) == (258_000, 10)
    assert (total["zerowaystreams"], total["onewaystreams"]) == (1, 2)
    assert total["avgcallduration"] == "8.000000"
    ports = {"min": 0, "max": 0, "totals": 100, "used": 25, "free": 75, "used_pct": "25.00"}
    assert told["interfaces"][0] == {"name": "one", "address": "", "ports": ports}


def test_addresses_of_relays_are_interfaces() -> None:
    of = (
        AddressTotals(name="int", address="192.0.2.1", port_min=30_000, port_max=39_999, ports=10_000, ports_lent=2500),
        AddressTotals(address="2001:db8::1", port_min=30_000, port_max=39_999, ports=10_000),
    )
    told = found(RelayTotals(relay="one", by_address=of), ONE)["interfaces"]
    assert [one["name"] for one in told] == ["int", "one", "one"]
    assert told[0]["address"] == "192.0.2.1"
    assert told[0]["ports"] == {
        "min": 30_000,
        "max": 39_999,
        "totals": 10_000,
        "used": 2500,
        "free": 7500,
        "used_pct": "25.00",
    }


def test_deviations() -> None:
    """Talking times of 2 and 4 seconds, MOS of 4.0 and 4.4."""
    one = RelayTotals(
        ended_calls={EndReason.BYE: 1}, seconds=2.0, squares=4.0, mos=4.0, mos_squares=16.0, mos_samples=1
    )
    two = RelayTotals(
        ended_calls={EndReason.BYE: 1}, seconds=4.0, squares=16.0, mos=4.4, mos_squares=19.36, mos_samples=1
    )
    told = found(one, two)
    total, mos = told["totalstatistics"], told["mos"]
    assert (total["totalcallsduration2"], total["totalcallsduration_stddev"]) == ("20.000000", "1.000000")
    assert (mos["mos_total"], mos["mos_samples_total"], mos["mos_average"]) == ("8.400000", 2, "4.200000")
    assert mos["mos_stddev"] == "0.200000"
    assert found()["mos"]["mos_average"] == found()["totalstatistics"]["totalcallsduration_stddev"] == "0.000000"


def test_talking_time_of_the_interval() -> None:
    tally = Tally()

    def at(now: float, seconds: float) -> str:
        told = found(RelayTotals(seconds=seconds), tally=tally, now=now)
        assert told["totalstatistics"]["totalcallsduration"] == f"{seconds:.6f}"
        return str(told["intervalstatistics"]["totalcallsduration"])

    assert at(1000.0, 10.0) == "10.000000"
    assert at(1030.0, 15.0) == "15.000000"
    assert at(1000.0 + INTERVAL, 18.0) == "3.000000"
    assert at(1090.0, 20.0) == "5.000000"
    assert at(1091.0, 4.0) == "4.000000", "the relay has begun anew"


def test_no_relay_and_nothing_done() -> None:
    told = found()
    assert told["totalstatistics"]["uptime"] == "0"
    assert told["totalstatistics"]["avgcallduration"] == "0.000000"
    assert found(RelayTotals(started=1000.0))["interfaces"][0]["ports"]["used_pct"] == "0.00"


def test_rates_are_those_since_they_were_asked_for_last() -> None:
    tally = Tally()
    relay = RelayTotals(started=990.0, packets=1000, bytes=172_000)
    first = found(relay, tally=tally)["currentstatistics"]
    assert (first["packetrate"], first["byterate"]) == (100, 17_200)
    later = RelayTotals(started=990.0, packets=1300, bytes=223_600, refused_packets=30)
    second = found(later, tally=tally, now=1003.0)["currentstatistics"]
    assert (second["packetrate"], second["byterate"], second["errorrate"]) == (100, 17_200, 10)
    restarted = RelayTotals(started=1004.0, packets=60)
    third = found(restarted, tally=tally, now=1007.0)["currentstatistics"]
    assert third["packetrate"] == 20


def test_commands_are_counted_by_sip_server() -> None:
    tally = Tally()
    tally.note("offer", "192.0.2.1", 0.25, 1000.0, error=False)
    tally.note("offer", "192.0.2.1", 0.75, 1000.0, error=True)
    tally.note("delete", "192.0.2.2", 0.1, 1000.0, error=False)
    tally.note("nonsense", "192.0.2.2", 0.1, 1000.0, error=True)
    control = found(tally=tally)["controlstatistics"]
    first, second = control["proxies"]
    assert (first["proxy"], first["offercount"], first["offerduration"]) == ("192.0.2.1", 2, "1.000000")
    assert (first["errorcount"], first["deletecount"]) == (1, 0)
    assert (second["proxy"], second["deletecount"], second["errorcount"]) == ("192.0.2.2", 1, 1)
    assert (control["totaloffercount"], control["totaldeletecount"], control["totalpingcount"]) == (2, 1, 0)
    for short in SHORT.values():
        assert {f"{short}count", f"{short}duration"} <= first.keys()
        assert f"total{short}count" in control


def test_a_flood_of_sip_servers_is_counted_in_the_totals() -> None:
    tally = Tally()
    for number in range(PROXIES + 10):
        tally.note("ping", f"host {number}", 0.0, 1000.0, error=False)
    control = found(tally=tally)["controlstatistics"]
    assert len(control["proxies"]) == PROXIES
    assert control["totalpingcount"] == PROXIES + 10


@pytest.mark.parametrize(("later", "most"), [(0.0, "0.000000"), (INTERVAL, "0.750000"), (3 * INTERVAL, "0.000000")])
def test_the_last_whole_minute(later: float, most: str) -> None:
    tally = Tally()
    tally.note("ping", "host", 0.0, 1000.0, error=False)
    for seconds in (0.25, 0.75):
        tally.note("offer", "host", seconds, 1010.0, error=False)
    tally.note("ping", "host", 0.0, 1000.0 + later, error=False)
    told = found(tally=tally)["intervalstatistics"]
    assert told["maxofferdelay"] == most
    if later == INTERVAL:
        assert (told["minofferdelay"], told["avgofferdelay"]) == ("0.250000", "0.500000")


def test_offers_that_a_limit_turned_away() -> None:
    tally = Tally()
    tally.rejected = 3
    assert found(tally=tally)["totalstatistics"]["rejectedsessions"] == 3
