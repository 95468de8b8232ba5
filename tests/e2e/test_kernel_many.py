"""10 000 calls at a time, with a limit of 20 000 open files: in the kernel a call needs none."""

import json
import sys
from collections.abc import Callable

import pytest

from lab.netns import Namespaces
from tests.e2e.conftest import need

CALLS = 10_000


@pytest.mark.timeout(900)
def test_ten_thousand_calls_with_rtp_and_rtcp(figure: Callable[[str], None]) -> None:
    need()
    spaces = Namespaces()
    try:
        space = spaces.add("many")
        command = ["prlimit", "--nofile=20000:20000", sys.executable, "-m", "tests.e2e.manycalls", str(CALLS)]
        told = json.loads(space.run(*command))
    finally:
        spaces.close()
    assert told["limit"] == [20000, 20000]
    assert told["calls"] == CALLS and told["learned"] == 4 * CALLS
    assert told["files"] < 600, "sockets for sending while learning, 512 at most"
    assert told["heard"] == 100 and told["forwarded"] == 400 and told["up"] == 0
    figure(f"{CALLS} calls set up in {told['set_up']:.1f} s ({told['cpu'] / CALLS * 1e6:.0f} us of CPU each), "
           f"{told['files']} open files")  # fmt: skip
