"""A phone whose NAT forgets faster than the phone registers stays reachable only thanks to the server's pings."""

import time
from pathlib import Path

import pytest

from lab.homes import NatKind
from lab.netns import LabError
from lab.site import Site
from tests.e2e.conftest import Shared, register

NAT_FORGETS = (4, 4)
"Seconds after which a router forgets a UDP flow."
IDLE = 9.0
"Seconds of silence before the call."
BYTES: dict[str, object] = {}
OPTIONS: dict[str, object] = {"sip_natping_flag": 6, "sipping_remove_flag": 6}
"Every phone behind NAT, which has flag 6, is pinged by SIP requests, and removed if it does not answer."


@pytest.mark.parametrize("how", [BYTES, OPTIONS], ids=["four bytes", "OPTIONS"])
@pytest.mark.parametrize("kind", [NatKind.RESTRICTED, NatKind.SYMMETRIC])
def test_pings_alone_keep_the_callee_reachable(kind: NatKind, how: dict[str, object], tmp_path: Path) -> None:
    with (
        Site((kind, kind), tmp_path / "pinged", udp_timeout=NAT_FORGETS) as pinged,
        Site((kind, kind), tmp_path / "forgotten", udp_timeout=NAT_FORGETS) as forgotten,
    ):
        shared = []
        for site, interval in ((pinged, 1.5), (forgotten, 0.0)):
            site.start_server({"edge": {"natping_interval": interval, **how}})
            shared.append(Shared(site, site.baresip("a"), site.baresip("b")))
        for one in shared:
            register(one.alice, one.bob)
        time.sleep(IDLE)

        call, _ = shared[0].talk(2.0)
        assert call.share >= 0.9, call

        shared[1].alice.dial(shared[1].bob.account.uri)
        with pytest.raises(LabError):
            shared[1].bob.wait_established(3.0)
