"""Phones whose NAT forgets faster than they register stay reachable only by the server's pings, of either kind."""

import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from lab.baresip import Baresip
from lab.capture import Datagram, read
from lab.homes import SERVER, NatKind
from lab.hosts import Host
from lab.netns import LabError
from lab.phone import talk_at_once
from lab.site import Site
from tests.e2e.conftest import register

NAT_FORGETS = (4, 4)
"Seconds after which a router forgets a UDP flow."
IDLE = 7.5
"Seconds of silence before the call."
INTERVAL = 1.5
WAYS: dict[str, dict[str, Any]] = {
    "four bytes": {"natping_interval": INTERVAL},
    # Every phone behind NAT, which has flag 6, is pinged by SIP requests, and is removed if it does not answer.
    "OPTIONS": {"natping_interval": INTERVAL, "sip_natping_flag": 6, "sipping_remove_flag": 6},
    "none": {"natping_interval": 0.0},
}


def is_ping(way: str, datagram: Datagram) -> bool:
    return datagram.payload == b"\0\0\0\0" if way == "four bytes" else datagram.payload.startswith(b"OPTIONS ")


def pings(site: Site, capture: Path, way: str, home: str) -> tuple[list[float], int]:
    """When a home got pings, and how many times it answered."""
    wan = site.internet.homes[home].wan
    datagrams = list(read(capture))
    to_home = [one for one in datagrams if one.source == (SERVER, 5060) and one.target[0] == wan]
    sent = [one.at for one in to_home if is_ping(way, one)]
    answered = sum(one.payload.startswith(b"SIP/2.0 200") for one in datagrams if one.source[0] == wan)
    return sent, answered


def test_pings_alone_keep_callees_reachable(host: Host, tmp_path: Path) -> None:
    kinds = (NatKind.RESTRICTED, NatKind.SYMMETRIC, NatKind.NONE)
    phones: dict[str, dict[str, Baresip]] = {}
    with ExitStack() as stack:
        sites = {
            way: stack.enter_context(Site(kinds, tmp_path / way[:4], udp_timeout=NAT_FORGETS, host=host))
            for way in WAYS
        }
        for way, site in sites.items():
            site.start_server({"edge": WAYS[way]})
            phones[way] = {home: site.baresip(home) for home in "abc"}
        register(*(phone for at in phones.values() for phone in at.values()))
        captures = {way: tmp_path / f"{way[:4]}.pcap" for way in WAYS}
        with ExitStack() as capturing:
            for way, site in sites.items():
                capturing.enter_context(site.capture(captures[way]))
            began = time.time()
            time.sleep(IDLE)
            ended = time.time()

        for home in "ab":
            phones["none"]["c"].dial(phones["none"][home].account.uri)
        for home in "ab":
            ways = ("four bytes", "OPTIONS")
            for way, call in zip(
                ways, talk_at_once([(phones[w]["c"], phones[w][home]) for w in ways], 3.0), strict=True
            ):
                assert call.share >= 0.8, (way, home, call)
        for home in "ab":
            with pytest.raises(LabError, match="CALL_ESTABLISHED"):
                phones["none"][home].wait_established(0.3)

        often = int((ended - began) / INTERVAL)
        for way, site in sites.items():
            for home in "ab":
                sent, answered = pings(site, captures[way], way, home)
                meanwhile = sum(began <= at <= ended for at in sent)
                assert abs(meanwhile - (often if way != "none" else 0)) <= 1, (way, home, sent)
                # The last answer may come after the capture.
                wanted = (len(sent), len(sent) - 1) if way == "OPTIONS" else (0,)
                assert answered in wanted, (way, home, sent, answered)
            assert pings(site, captures[way], way, "c") == ([], 0), "no NAT, no pings"
