"""Phones that send RTP, some SIP as well, from one port and listen on another: on a public address, and behind a NAT
with a port forward. They hear and are heard if they are on the lists, and hear nothing if they are not."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.homes import NatKind
from lab.hosts import Host
from lab.netns import LabError
from lab.phone import Phone, Seat, talk_at_once
from lab.site import Site
from lab.split_phone import SplitPhone
from tests.e2e.conftest import full, register, talk_until_full

LISTED, UNLISTED = "SplitPhone/1.0", "OtherPhone/1.0"
SECONDS = 3.0


@pytest.fixture
def site(host: Host, tmp_path: Path) -> Iterator[Site]:
    """A home of baresips, one whose router lets everybody in where phones listen, and not where they send from, and one
    without NAT; a server that lists one make of phones."""
    lists = {name: tmp_path / name for name in ("sip_asymmetrics", "rtp_asymmetrics")}
    for file in lists.values():
        file.write_text(f"# phones that listen elsewhere\n^{LISTED}\n")
    with Site((NatKind.SYMMETRIC, NatKind.RESTRICTED, NatKind.NONE), tmp_path, host=host) as place:
        home = place.internet.homes["b"]
        for phone in (Seat(home.address, number) for number in range(3)):
            home.forward(phone.sip, phone.rtp.start, phone.rtp.start + 1)
        place.start_server({"edge": {name: str(file) for name, file in lists.items()}})
        yield place


class Split:
    """Makes asymmetric phones, each with a baresip to talk to."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._made = 0

    def __call__(self, home: str, agent: str, *, sip: bool) -> tuple[SplitPhone, Phone]:
        number = self._made
        self._made += 1
        phone = self._site.split_phone(home, agent, split_sip=sip, tone=400 + 300 * number, user=f"split{number}")
        return phone, self._site.baresip("a", 550 + 300 * number, user=f"partner{number}")


def test_asymmetric_phones_hear_if_they_are_listed(site: Site) -> None:
    split = Split(site)
    listed = [split(home, LISTED, sip=sip) for home in "bc" for sip in (False, True)]
    unlisted = [split(home, UNLISTED, sip=False) for home in "bc"]
    register(*(phone for pair in (*listed, *unlisted) for phone in pair))

    for pairs in (listed, [(partner, phone) for phone, partner in listed]):
        for pair, call in talk_until_full(pairs, SECONDS).items():
            assert full(call), (pair[0].account.user, call)
    for call in talk_at_once(unlisted, SECONDS):
        assert call.caller.seconds <= 0.1, "what is sent to where it sends from is lost, from its first packet on"
        assert call.callee.seconds >= 0.8 * SECONDS, "but it is heard"
    assert all(phone.rtcp_heard for phone, _ in listed)
    server = site.server
    assert server is not None
    for record in server.ask("records"):
        for party, other in (("caller", "callee"), ("callee", "caller")):
            end = record["streams"][0][party]
            assert record[party]["asymmetric"] == (record[party]["user_agent"] == LISTED)
            if "Phone" in record[party]["user_agent"]:
                assert end["learned"]["port"] == end["sdp"]["port"] + 50, "it is heard where it sends from"
            assert end["sent"] <= record["streams"][0][other]["packets"]


def test_a_phone_that_listens_for_sip_elsewhere_is_not_even_registered_if_it_is_not_listed(site: Site) -> None:
    stranger = site.split_phone("c", UNLISTED, split_sip=True, user="stranger")
    with pytest.raises(LabError, match="stranger is registered: not within"):
        stranger.wait_registered(1.5)
