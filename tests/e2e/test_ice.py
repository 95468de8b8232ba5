"""Phones with ICE, and what the relay is to them: nothing they know of, the last of their candidates, or the first."""

import itertools
from pathlib import Path

import pytest

from lab.homes import NatKind
from lab.phone import talk
from lab.site import Site
from tests.e2e.conftest import full, proven, register


@pytest.mark.parametrize(
    ("kind", "ice", "relayed"),
    [
        pytest.param(NatKind.SYMMETRIC, "keep", True, id="symmetric-keep"),
        pytest.param(NatKind.SYMMETRIC, "remove", True, id="symmetric-remove"),
        pytest.param(NatKind.SYMMETRIC, "low-priority", True, id="symmetric-low"),
        pytest.param(NatKind.SYMMETRIC, "high-priority", True, id="symmetric-high"),
        pytest.param(NatKind.NONE, "keep", True, id="public-keep"),
        pytest.param(NatKind.NONE, "low-priority", False, id="public-low"),
        pytest.param(NatKind.NONE, "high-priority", None, id="public-high"),
    ],
)
def test_who_carries_the_media(kind: NatKind, ice: str, relayed: bool | None, tmp_path: Path) -> None:
    """``relayed`` None: whatever PJSIP nominates, which does not wait for the best candidate."""
    with Site((kind, kind), tmp_path) as site:
        server = site.start_server({"edge": {"ice": ice}})
        alice, bob = site.pjsip("a", ice=True), site.pjsip("b", ice=True)
        register(alice, bob)
        calls = itertools.count(1)

        def attempt() -> None:
            call, number = talk(alice, bob, 4.0), next(calls)
            record = server.wait("a record", "records", until=lambda records: len(records) == number)[-1]
            packets = [record["streams"][0][party]["packets"] for party in ("caller", "callee")]
            assert full(call), call
            if relayed:
                assert min(packets) > 0.9 * 4.0 * 50, packets
            elif relayed is False:
                assert max(packets) <= 10, packets  # until the direct way was found

        proven(attempt)
