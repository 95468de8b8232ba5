"""Real phones behind real NATs, a Kamailio with nothing but its own modules, and our relay behind it."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lab.homes import NatKind
from lab.hosts import Host
from lab.phone import talk
from lab.site import Site
from tests.e2e.conftest import Shared, full, need, register
from tests.e2e.test_hold import hold_and_resume


@pytest.fixture(scope="module", params=[Host.MEDIAPROXY_USE, Host.MEDIAPROXY_ENGAGE])
def shared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shared]:
    """Two baresips behind symmetric NATs."""
    need("kamailio", "unshare")
    folder = tmp_path_factory.mktemp(request.param)
    with Site((NatKind.SYMMETRIC, NatKind.SYMMETRIC), folder, host=request.param) as site:
        site.start_server()
        alice, bob = site.baresip("a"), site.baresip("b")
        register(alice, bob)
        yield Shared(site, alice, bob)


def test_they_hear_each_other(shared: Shared) -> None:
    call, wire = shared.talk_until_full(5.0)
    assert full(call)
    server = shared.site.server
    assert server is not None
    assert server.wait("the end", "calls", until=lambda calls: not calls) == []
    one = _records(shared.site)[-1]
    assert one["reason"] == "bye" and one["duration"] > 0
    assert all(stream[side]["packets"] > 100 for stream in one["streams"] for side in ("caller", "callee"))
    assert {stream[side]["codec"] for stream in one["streams"] for side in ("caller", "callee")} == {"PCMU"}
    assert all(stream[side]["refused_packets"] == 0 for stream in one["streams"] for side in ("caller", "callee"))


def test_hold_and_resume(shared: Shared) -> None:
    hold_and_resume(shared.site, (shared.alice, shared.bob))


def test_the_callee_hangs_up(shared: Shared) -> None:
    call = talk(shared.bob, shared.alice, 2.0)
    assert full(call) or call.share > 0.5
    server = shared.site.server
    assert server is not None
    server.wait("the end", "calls", until=lambda calls: not calls)


def _records(site: Site) -> list[dict[str, Any]]:
    (path,) = site.folder.glob("server*/state/records.jsonl")
    return [json.loads(line) for line in Path(path).read_text().splitlines()]
