"""A call of real phones behind NAT, with its media in the kernel: after learning no process sees a packet."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lab.homes import NatKind
from lab.phone import Phone, talk
from lab.server import Server
from lab.site import Site
from mediaproxy.relay.slots import Reason
from tests.e2e.conftest import full, need, proven, register
from tests.kernelhouse import pinned_totals

SECONDS = 8.0
_LEARNED = 2.0
"Seconds after which RTP is learned for sure."


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    need("baresip")
    with Site((NatKind.SYMMETRIC, NatKind.SYMMETRIC), tmp_path) as built:
        yield built


def test_no_process_sees_a_packet_of_a_learned_stream(site: Site) -> None:
    server = site.start_server({"relay": {"plane": "kernel"}})
    assert "relayed in the kernel (TCX on br0, lo)" in server.log
    alice, bob = site.baresip("a"), site.baresip("b")
    register(alice, bob)
    proven(lambda: _talk_in_the_kernel(server, alice, bob))


def _talk_in_the_kernel(server: Server, alice: Phone, bob: Phone) -> None:
    before = pinned_totals(server.folder)
    seen: list[tuple[float, dict[Reason, int]]] = []
    planes: set[Any] = set()

    def look(second: float) -> None:
        totals = pinned_totals(server.folder)
        seen.append((second, {reason: totals[reason] - before[reason] for reason in Reason}))
        for call in server.ask("calls"):
            planes.update(stream["plane"] for stream in call["streams"])

    records = len(server.ask("records"))
    call = talk(alice, bob, SECONDS, look)
    record = server.wait("the record", "records", until=lambda found: len(found) > records)[-1]
    assert full(call)
    assert "kernel" in planes
    last = seen[-1][1]
    forwarded = last[Reason.FORWARDED]
    assert forwarded > 2 * 50 * (SECONDS - 3)
    passed = sum(last[reason] for reason in Reason if reason.name.startswith("UP"))
    assert passed <= 12, f"{last}: the first packets of RTP and RTCP either way, and no more"
    learned = next(one for second, one in seen if second >= _LEARNED)
    assert last[Reason.UP] - learned[Reason.UP] <= 6, "RTCP is learned later"
    sides = [record["streams"][0][side] for side in ("caller", "callee")]
    assert sum(side["packets"] for side in sides) >= forwarded * 0.9
