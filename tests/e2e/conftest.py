"""What the end-to-end tests stand on: root, programs, sites that several tests share, and calls with their verdict."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pytest

from lab.baresip import Baresip
from lab.capture import Wire
from lab.homes import NatKind
from lab.hosts import Host
from lab.kamailio import VENV
from lab.netns import LabError, wait_until
from lab.phone import Call, Phone, talk, talk_at_once
from lab.site import Site, missing
from tests.e2e.leftovers import leftovers, mark


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything in this folder is an end-to-end test."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.e2e)


def need(*programs: str) -> None:
    """Skip, naming what is missing; on CI nothing may be missing, so there it fails."""
    absent = [] if os.geteuid() == 0 else ["root"]
    absent += missing("ip", "nft", "sysctl", "tcpdump", "setpriv", *programs)
    if not absent:
        return
    reason = f"missing: {', '.join(absent)}"
    if os.environ.get("CI", "").lower() == "true":
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(params=[Host.EDGE, Host.KAMAILIO])
def host(request: pytest.FixtureRequest) -> Host:
    """What is in front of the relay: the test runs with each."""
    chosen: Host = request.param
    if chosen is not Host.EDGE:
        need_kamailio()
    return chosen


def need_kamailio() -> None:
    """Kamailio and the environment of its Python; see ``need``."""
    need("kamailio", str(VENV / "bin" / "python3"))


@pytest.fixture(scope="session", autouse=True)
def laboratory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test of this folder can run without these, and none may leave anything behind."""
    need("baresip")
    mark()
    folder = tmp_path_factory.getbasetemp()
    before = leftovers(folder)  # of somebody else

    def left() -> list[str]:
        return [line for line in leftovers(folder) if line not in before]

    yield
    with suppress(LabError):
        wait_until("all is gone", lambda: not left(), 60)
    assert not left(), "tests have left behind:\n" + "\n".join(left())


@pytest.fixture
def figure(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Say a figure that was reached; it is shown at the end of the run."""

    def say(text: str) -> None:
        request.node.user_properties.append(("figure", text))

    return say


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show what tests have measured."""
    reports = [report for kind in ("passed", "failed") for report in terminalreporter.getreports(kind)]
    figures = [(one.nodeid, text) for one in reports if one.when == "call" for _, text in one.user_properties]
    if figures:
        terminalreporter.section("figures")
    for name, text in figures:
        terminalreporter.write_line(f"{name.rpartition('/')[2]}: {text}")


ENDS = 0.08
"Seconds that are lost at the ends of a recording, where a window of the judge is cut."


def full(call: Call) -> bool:
    """Whether both heard the other one, and nobody else, all the time."""
    return call.share >= 0.98 - ENDS / call.seconds and call.strange == 0


@dataclass
class Shared:
    """A site with its server and both phones registered, for several calls."""

    site: Site
    alice: Baresip
    bob: Baresip
    calls: int = 0

    @property
    def last_capture(self) -> Path:
        """What passed in the last call."""
        return self.site.folder / f"call{self.calls}.pcap"

    def talk(self, seconds: float, every_second: Callable[[float], None] | None = None) -> tuple[Call, Wire]:
        """Alice calls Bob; what they heard and what passed on the wire."""
        self.calls += 1
        with self.site.capture(self.last_capture):
            call = talk(self.alice, self.bob, seconds, every_second)
        return call, self.site.wire(self.last_capture, "a", "b")

    def talk_until_full(self, seconds: float, every_second: Callable[[float], None] | None = None) -> tuple[Call, Wire]:
        """The same; again, if it was not heard in full, three times at most (see below)."""
        for _ in range(3):
            call, wire = self.talk(seconds, every_second)
            if full(call):
                break
        return call, wire


_T = TypeVar("_T")


def proven(attempt: Callable[[], _T]) -> _T:
    """What the first of three attempts returns in which no assertion fails; the failure, if the last one fails, too.
    Other work on the machine only ever adds loss and delay, so one good attempt is proof. Not for what may never be."""
    for _ in range(2):
        with suppress(AssertionError):
            return attempt()
    return attempt()


def talk_until_full(pairs: Sequence[tuple[Phone, Phone]], seconds: float) -> dict[tuple[Phone, Phone], Call]:
    """Calls at the same time; those that were not heard in full are made again, five times at most. Other work on the
    machine only ever adds loss and delay, so one good call of five is proof. The last call of each pair."""
    calls: dict[tuple[Phone, Phone], Call] = {}
    left = list(pairs)
    for _ in range(5):
        calls |= dict(zip(left, talk_at_once(left, seconds), strict=True))
        left = [pair for pair in left if not full(calls[pair])]
        if not left:
            break
    return calls


def register(*phones: Phone) -> None:
    """Wait until all phones are registered."""
    for phone in phones:
        phone.wait_registered()


@pytest.fixture(scope="module")
def symmetric(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shared]:
    """Two baresips behind symmetric NATs."""
    with Site((NatKind.SYMMETRIC, NatKind.SYMMETRIC), tmp_path_factory.mktemp("symmetric")) as site:
        site.start_server()
        alice, bob = site.baresip("a"), site.baresip("b")
        register(alice, bob)
        yield Shared(site, alice, bob)
