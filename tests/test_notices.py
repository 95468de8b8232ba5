"""SIP servers are told of calls that ended by themselves: which, by whom, how often it is tried, and that it ends."""

import asyncio
import logging

import pytest

from mediaproxy.control import KnownBy
from mediaproxy.dialects import notices
from mediaproxy.dialects.notices import Notices
from mediaproxy.events import CallReport, CallState, EndReason, PartyReport
from tests.doorhouse import PATIENCE

pytestmark = pytest.mark.usefixtures("no_leaks")


def ended(
    reason: EndReason = EndReason.SILENT, *, notify: str = "one:there", dialog_id: str = "", call_id: str = "call"
) -> CallReport:
    return CallReport(
        call_id=call_id,
        caller=PartyReport(tag="ft", known_by=KnownBy.EXPLICIT),
        callee=PartyReport(tag="tt"),
        state=CallState.ENDED,
        started=1.0,
        reason=reason,
        notify=notify,
        dialog_id=dialog_id,
    )


class Teller:
    """A Notifier that notes what it is told, and fails as it is told to."""

    def __init__(self, scheme: str = "one:", *failures: Exception) -> None:
        self.scheme = scheme
        self.told: list[CallReport] = []
        self.attempts = 0
        self.gate: asyncio.Event | None = None
        self._failures = list(failures)

    async def tell(self, report: CallReport) -> bool:
        self.attempts += 1
        if self.gate is not None:
            await self.gate.wait()
        if self._failures:
            raise self._failures.pop(0)
        self.told.append(report)
        return True


async def settled(found: Notices, number: int = 1) -> None:
    """Until so many notices are done, one way or the other."""
    async with asyncio.timeout(PATIENCE):
        while found.told + found.failed < number:
            await asyncio.sleep(0.001)


@pytest.mark.parametrize("reason", list(EndReason))
async def test_only_ends_that_the_sip_server_does_not_know_of_are_told(reason: EndReason) -> None:
    teller = Teller()
    found = Notices([teller])
    found.ended(ended(reason))
    await found.stop()
    known = reason in (EndReason.BYE, EndReason.CANCEL, EndReason.FAILURE)
    assert [report.reason for report in teller.told] == ([] if known else [reason])


@pytest.mark.parametrize(
    ("notify", "dialog_id", "scheme"),
    [
        ("one:there", "", "one:"),
        ("two:", "", "two:"),
        ("two:there", "1:2", "two:"),
        ("three:there", "", None),
        ("three:there", "1:2", None),
        ("", "1:2", "dlg:"),
        ("", "", None),
        ("nothing", "", None),
    ],
)
def test_who_tells(notify: str, dialog_id: str, scheme: str | None) -> None:
    tellers = {name: Teller(name) for name in ("one:", "two:", "dlg:")}
    found = Notices([tellers["one:"]])
    found.add(tellers["two:"])
    found.add(tellers["dlg:"])
    assert found.notifier_for(ended(notify=notify, dialog_id=dialog_id)) is tellers.get(scheme or "")


async def test_what_fails_is_tried_again_a_little(caplog: pytest.LogCaptureFixture) -> None:
    teller = Teller("one:", ConnectionRefusedError("refused"), TimeoutError())
    found = Notices([teller], pauses=(0.0, 0.001))
    found.ended(ended())
    await settled(found)
    assert (found.told, found.failed, teller.attempts) == (1, 0, 3)
    assert not caplog.records


async def test_what_goes_on_failing_is_given_up_and_told(caplog: pytest.LogCaptureFixture) -> None:
    teller = Teller("one:", *[ConnectionRefusedError("refused")] * 9)
    found = Notices([teller], pauses=(0.0, 0.0))
    found.ended(ended())
    await settled(found)
    assert (found.told, found.failed, teller.attempts) == (0, 1, 3)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.message == "call call: the SIP server is not told that it has ended: refused"


async def test_what_can_never_work_is_not_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    teller = Teller("one:", ValueError("no such dialog"))
    found = Notices([teller], pauses=(0.0, 0.0))
    found.ended(ended())
    await settled(found)
    assert (found.failed, teller.attempts) == (1, 1)
    assert "no such dialog" in caplog.text


async def test_a_fault_of_ours_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    found = Notices([Teller("one:", RuntimeError("a fault"))], pauses=(0.0,))
    found.ended(ended())
    await settled(found)
    assert found.failed == 1
    assert "RuntimeError: a fault" in caplog.text


async def test_who_does_not_answer_holds_up_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notices, "SECONDS", 0.05)
    deaf, other = Teller("one:"), Teller("two:")
    deaf.gate = asyncio.Event()
    found = Notices([deaf, other], pauses=())
    found.ended(ended())
    found.ended(ended(notify="two:"))
    await settled(found, 2)
    assert (found.told, found.failed) == (1, 1)


async def test_what_waits_is_bounded(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(notices, "MOST", 10)
    teller = Teller()
    teller.gate = asyncio.Event()
    found = Notices([teller])
    for number in range(110):
        found.ended(ended(call_id=f"call {number}"))
    assert found.dropped == 100
    assert len(caplog.records) == 7, "one at 1, 2, 4, 8, 16, 32 and 64"
    teller.gate.set()
    await settled(found, 10)
    assert found.told == 10


async def test_the_end_waits_a_little_and_no_longer() -> None:
    teller = Teller()
    teller.gate = asyncio.Event()
    found = Notices([teller])
    found.ended(ended())
    asyncio.get_running_loop().call_later(0.01, teller.gate.set)
    await found.stop(PATIENCE)
    assert found.told == 1
    teller.gate.clear()
    found.ended(ended())
    await found.stop(0.01)
    assert found.told == 1
