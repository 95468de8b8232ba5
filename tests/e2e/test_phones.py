"""Phones of other makes and over other transports, behind symmetric NATs, hear each other."""

import ssl
import time
from functools import partial
from pathlib import Path

import pytest
import trustme

from lab import judge, tones
from lab.homes import SERVER, NatKind
from lab.phone import Call, Phone, talk
from lab.sipp import Sipp
from lab.site import USERS, Site
from tests.e2e.conftest import Shared, need, proven, register

NATS = (NatKind.SYMMETRIC, NatKind.SYMMETRIC)


def test_pjsip_and_baresip_call_each_other(tmp_path: Path) -> None:
    with Site(NATS, tmp_path) as site:
        site.start_server()
        pjsip, baresip = site.pjsip("a"), site.baresip("b")
        register(pjsip, baresip)
        for caller, callee in ((pjsip, baresip), (baresip, pjsip)):
            call = proven(partial(talks, caller, callee, 4.0))
            assert call.strange == 0


def talks(caller: Phone, callee: Phone, seconds: float) -> Call:
    call = talk(caller, callee, seconds)
    assert call.share >= 0.95, call
    return call


def test_sipp_hears_sipp_when_both_send(tmp_path: Path) -> None:
    need("sipp")
    proxy = f"{SERVER}:5060"
    with Site(NATS, tmp_path) as site:
        site.start_server()
        alice, bob = (
            Sipp(home.phone, home.address, *USERS[name], tmp_path / f"sipp-{name}")
            for name, home in site.internet.homes.items()
        )
        alice.register(proxy)
        bob.register(proxy)
        assert proven(lambda: sipps_talk(site, alice, bob, proxy)) == 0


def sipps_talk(site: Site, alice: Sipp, bob: Sipp, proxy: str) -> float:
    """Both hear each other; how long they heard somebody else."""
    capture = site.folder / f"{time.monotonic_ns()}.pcap"
    with site.capture(capture):
        answering = bob.answer(proxy)
        time.sleep(0.3)  # SIPp does not tell when it listens
        calling = alice.call(proxy, "bob", 4.0)
        alice.finish(calling)
        bob.finish(answering)
    wire, strange = site.wire(capture, "a", "b"), 0.0
    for way, tone in ((wire.to_callee, tones.CALLER), (wire.to_caller, tones.CALLEE)):
        heard = judge.judge(tones.decode_ulaw(way.pcm_payload), tone, (tones.ATTACKER,))
        assert heard.seconds >= 0.95 * 4.0, heard
        assert way.sent >= 0.95 * 4.0 * 50
        assert way.lost <= 5
        strange += heard.strange
    return strange


def certificates(folder: Path) -> tuple[Path, dict[str, str]]:
    """A certificate authority's file, and the TLS settings of a server that it vouches for."""
    authority = trustme.CA()
    certificate = authority.issue_cert(SERVER, "sip.test")
    authority.cert_pem.write_to_path(folder / "ca.pem")
    certificate.private_key_and_cert_chain_pem.write_to_path(folder / "server.pem")
    context = ssl.create_default_context(cafile=folder / "ca.pem")
    assert context.cert_store_stats()["x509_ca"] == 1
    return folder / "ca.pem", {"certificate": str(folder / "server.pem")}


@pytest.mark.parametrize("transport", ["tcp", "tls"])
def test_a_phone_over_a_connection_and_one_over_udp_call_each_other(transport: str, tmp_path: Path) -> None:
    ca_file, tls = certificates(tmp_path)
    ports = {"udp": 5060, "tcp": 5060, "tls": 5061}
    listeners = [{"transport": name, "bind": f"{SERVER}:{port}"} for name, port in ports.items()]
    with Site(NATS, tmp_path) as site:
        site.start_server({"edge": {"listeners": listeners, "tls": tls}})
        connected = site.baresip("a", transport=transport, ca_file=ca_file if transport == "tls" else None)
        plain = site.baresip("b")
        register(connected, plain)
        for caller, callee in ((connected, plain), (plain, connected)):
            call = proven(partial(talks, caller, callee, 3.0))
            assert call.strange == 0


def test_two_tcp_phones_call_each_other(tmp_path: Path) -> None:
    with Site(NATS, tmp_path) as site:
        site.start_server()
        shared = Shared(site, site.baresip("a", transport="tcp"), site.baresip("b", transport="tcp"))
        register(shared.alice, shared.bob)
        call, wire = shared.talk_until_full(3.0)
        assert call.share >= 0.95, call
        assert wire.to_callee.lost <= 5
