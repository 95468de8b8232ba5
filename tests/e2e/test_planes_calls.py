"""Real phones behind NAT, and the demonstration, on every plane that there is."""

from pathlib import Path
from typing import Any, get_args

import pytest

from lab.capture import read
from lab.demo import PLANES, Result, complaints, main
from lab.homes import NatKind
from lab.server import Server
from lab.site import Site
from mediaproxy.relay.settings import PlaneChoice
from tests.e2e.conftest import Shared, full, need, proven, register
from tests.e2e.onwire import check_record

ALL = sorted(set(get_args(PlaneChoice)) - {"auto"})


@pytest.mark.parametrize("plane", ALL)
def test_a_call(plane: str, tmp_path: Path) -> None:
    """Behind the least friendly NATs; the record is that of the wire, whatever has carried the media."""
    with Site((NatKind.SYMMETRIC, NatKind.SYMMETRIC), tmp_path) as site:
        server = site.start_server({"relay": {"plane": plane}})
        shared = Shared(site, site.baresip("a"), site.baresip("b"))
        register(shared.alice, shared.bob)
        record = proven(lambda: _talk(shared, server, plane))
        homes = site.internet.homes
        wans = {"caller": homes["a"].wan, "callee": homes["b"].wan}
        check_record(record, list(read(shared.last_capture)), wans)


def _talk(shared: Shared, server: Server, plane: str) -> Any:
    """The record of a call."""
    seen: set[Any] = set()

    def look(second: float) -> None:
        seen.update(stream["plane"] for call in server.ask("calls") for stream in call["streams"])

    call, wire = shared.talk(4.0, look)
    assert full(call), call
    assert seen - {""} == {plane}
    assert max(wire.to_callee.lost, wire.to_caller.lost) <= 5
    return server.wait("a record", "records", until=lambda records: len(records) == shared.calls)[-1]


@pytest.mark.parametrize("plane", ALL)
def test_the_demonstration(
    plane: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    need()
    monkeypatch.chdir(tmp_path)
    for _ in range(3):  # other work on the machine only adds loss
        status = main(["--plane", plane, "--seconds", "5"])
        said = capsys.readouterr().out
        if status == 0:
            break
    assert status == 0, said
    assert f"Media was relayed {PLANES[plane]}." in said and "nothing without it" in said


def test_the_demonstration_fails_on_another_plane(symmetric: Shared) -> None:
    call, wire = symmetric.talk(2.0)
    contrast, _ = symmetric.talk(0.5)
    result = Result(title="", call=call, wire=wire, planes=frozenset({"user"}))
    (complaint, *_) = complaints(result, contrast, "kernel")
    assert "should have been relayed in the kernel, and was in user space" in complaint
