"""Real phones hang up when the server says so: an operator ends their call, or it was on hold for too long."""

import time
from pathlib import Path

from lab.capture import read
from lab.homes import NatKind
from lab.netns import wait_until
from lab.site import Site
from tests.e2e.conftest import Shared, proven, register

NATS = (NatKind.SYMMETRIC, NatKind.SYMMETRIC)
TOLD = "BYE sent to sip:alice@sip.test and sip:bob@sip.test"


def test_an_operator_ends_a_call_and_both_phones_hang_up(symmetric: Shared) -> None:
    proven(lambda: _ended_by_an_operator(symmetric))
    call, _ = symmetric.talk_until_full(2.0)
    assert call.share >= 0.9, "both are free for the next call"


def _ended_by_an_operator(symmetric: Shared) -> None:
    site, alice, bob = symmetric.site, symmetric.alice, symmetric.bob
    server = site.server
    assert server is not None
    capture = site.folder / "ended.pcap"
    with site.capture(capture):
        alice.dial(bob.account.uri)
        alice.wait_established()
        bob.wait_established()
        time.sleep(1.0)
        (running,) = [call for call in server.ask("calls") if call["state"] == "talking"]
        before = len(server.log)
        assert server.show("end", running["call_id"]) == f"ended {running['call_id']}: media ended; {TOLD}\n"
        alice.wait_closed()
        bob.wait_closed()
        hung_up = time.time()
        time.sleep(1.0)

    datagrams = list(read(capture))
    for home in ("a", "b"):
        wan = site.internet.homes[home].wan
        talked = [datagram.at for datagram in datagrams if datagram.is_rtp and datagram.source[0] == wan]
        assert len(talked) >= 40
        assert max(talked) <= hung_up + 0.1, "it has stopped talking"
        byes = [one for one in datagrams if one.payload.startswith(b"BYE ") and one.target[0] == wan]
        assert len(byes) == 1, "and has answered at once"
        assert b'Reason: Q.850;cause=31;text="ended by the operator"' in byes[0].payload
    assert f"media ended (admin); {TOLD}" in server.log[before:]
    assert "was to hang up, but" not in server.log[before:]
    record = server.wait("a record", "records", until=lambda all_: running["call_id"] in [r["call_id"] for r in all_])[
        -1
    ]
    assert record["reason"] == "admin"


def test_a_tcp_phone_and_one_over_udp_hang_up_after_too_long_a_hold(tmp_path: Path) -> None:
    with Site(NATS, tmp_path) as site:
        server = site.start_server({"relay": {"hold": 3.0}})
        alice, bob = site.baresip("a", transport="tcp"), site.baresip("b")
        register(alice, bob)
        alice.dial(bob.account.uri)
        alice.wait_established()
        bob.wait_established()
        time.sleep(0.5)
        alice.command("hold")
        server.wait("hold", "calls", until=lambda calls: not calls or calls[-1]["state"] == "held")
        alice.wait_closed()
        bob.wait_closed()
        wait_until("what the log says", lambda: f"media ended (hold-expired); {TOLD}" in server.log)
        assert [record["reason"] for record in server.wait("a record", "records", until=bool)] == ["hold-expired"]
