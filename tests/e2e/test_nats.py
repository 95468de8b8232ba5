"""Two baresips, each behind its own NAT, hear each other, whatever kind of NAT it is and whatever server is in front of
the relay, with the media in the kernel; and the record of the call says what passed."""

import statistics
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from lab.capture import read
from lab.homes import NOBODY, NatKind
from lab.hosts import Host
from lab.phone import Phone, talk
from lab.server import Server
from lab.site import Site
from tests.e2e.conftest import ENDS, Shared, full, need_kamailio, proven, register
from tests.e2e.onwire import check_record

KINDS = {
    "restricted": (NatKind.RESTRICTED, NatKind.RESTRICTED, False),
    "symmetric": (NatKind.SYMMETRIC, NatKind.SYMMETRIC, False),
    "fullcone": (NatKind.FULLCONE, NatKind.FULLCONE, False),
    "same-lan": (NatKind.RESTRICTED, NatKind.RESTRICTED, True),
    "alg": (NatKind.ALG, NatKind.ALG, False),
    "mixed": (NatKind.FULLCONE, NatKind.SYMMETRIC, False),
    "alg-and-none": (NatKind.ALG, NatKind.RESTRICTED, False),
}


@pytest.mark.parametrize("kinds", KINDS.values(), ids=KINDS.keys())
def test_both_hear_each_other_at_once_and_all_the_time(
    kinds: tuple[NatKind, NatKind, bool], host: Host, tmp_path: Path
) -> None:
    one, other, same_lan = kinds
    with Site((one, other), tmp_path, same_lan=same_lan, host=host) as site:
        server = site.start_server()
        shared = Shared(site, site.baresip("a"), site.baresip("b"))
        register(shared.alice, shared.bob)

        record, capture = proven(lambda: talks_at_once_and_all_the_time(shared, server))
        homes = site.internet.homes
        check_record(record, list(read(capture)), {"caller": homes["a"].wan, "callee": homes["b"].wan})
        assert server.alive


def talks_at_once_and_all_the_time(shared: Shared, server: Server) -> tuple[Any, Path]:
    """The record of a call, and what passed in it."""
    planes: set[str] = set()

    def look(second: float) -> None:
        planes.update(stream["plane"] for call in server.ask("calls") for stream in call["streams"])

    call, wire = shared.talk(3.0, look)
    record = server.wait("a record", "records", until=lambda records: len(records) == shared.calls)[-1]
    capture = shared.last_capture
    short = [shared.talk(0.6)[1] for _ in range(2)]

    assert full(call), call
    assert planes - {""} == {"kernel"}, "what is the default of root's relay"
    assert wire.to_callee.lost <= 5
    assert wire.to_caller.lost <= 5
    for name in ("to_callee", "to_caller"):
        first = [getattr(one, name).first_ms for one in (wire, *short)]
        assert None not in first, f"{name}: {first}"
        assert statistics.median(first) <= 100, f"{name}: {first}"
    return record, capture


def test_a_native_config_of_kamailio_does_the_same(tmp_path: Path) -> None:
    need_kamailio()
    with Site((NatKind.RESTRICTED, NatKind.SYMMETRIC), tmp_path, host=Host.NATIVE) as site:
        server = site.start_server()
        stale, plain = site.pjsip("a", public_address=NOBODY), site.baresip("b")
        register(stale, plain)
        for caller, callee in ((stale, plain), (plain, stale)):
            proven(partial(_talks, caller, callee))
        records = server.wait("the records", "records", until=lambda records: len(records) >= 2)
        assert {record["reason"] for record in records} == {"bye"}


def _talks(caller: Phone, callee: Phone) -> None:
    call = talk(caller, callee, 3.0)
    assert call.share >= 0.98 - 2 * ENDS / call.seconds, call


@pytest.mark.parametrize("kind", [NatKind.RESTRICTED, NatKind.SYMMETRIC, NatKind.FULLCONE])
def test_without_the_relay_nothing_is_heard(kind: NatKind, tmp_path: Path) -> None:
    with Site((kind, kind), tmp_path) as site:
        site.start_server({"edge": {"media": False}})
        shared = Shared(site, site.baresip("a"), site.baresip("b"))
        register(shared.alice, shared.bob)

        call, wire = shared.talk(2.0)

        assert (call.caller.seconds, call.callee.seconds) == (0, 0)
        assert (wire.to_caller.relayed, wire.to_callee.relayed) == (0, 0)


def test_a_restarted_server_still_finds_its_phones(tmp_path: Path) -> None:
    with Site((NatKind.SYMMETRIC, NatKind.RESTRICTED), tmp_path) as site:
        first = site.start_server({"state_dir": str(tmp_path / "state")})
        shared = Shared(site, site.baresip("a"), site.baresip("b"))
        register(shared.alice, shared.bob)

        assert first.stop() == 0
        site.start_server({"state_dir": str(tmp_path / "state")})
        call, _ = shared.talk_until_full(2.0)

        assert call.share >= 0.9, call
