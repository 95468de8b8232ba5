"""[shell] Telling SIP servers of calls that ended by themselves (calls.md 11), each in the words of its own protocol.

Reports of ended calls come in; whoever made the call's question wrote into ``MediaRequest.notify`` (or ``dialog_id``)
whom to tell, and the notifier of that scheme does. What waits is bounded, a notice that fails is tried again a little
and then logged. Nobody is ever held up by it.
"""

import asyncio
import logging
from collections.abc import Iterable
from typing import Protocol

from mediaproxy.events import CallReport, EndReason
from mediaproxy.logs import log_call

log = logging.getLogger("mediaproxy.notices")

BY_THEMSELVES = frozenset(
    (
        EndReason.UNANSWERED,
        EndReason.SILENT,
        EndReason.HOLD_EXPIRED,
        EndReason.ADMIN,
        EndReason.SHUTDOWN,
        EndReason.LOST,
    )
)
"Ends that the SIP server does not know of: it was not the server who ended these calls."
MOST = 1000
"Notices that wait or are under way; more, and the newest are dropped and counted."
AT_ONCE = 16
"Notices under way."
SECONDS = 5.0
"That one attempt may take."
PAUSES = (1.0, 5.0)
"Seconds before the second and the third attempt; there is no fourth."


class Notifier(Protocol):
    """Tells one kind of SIP server."""

    scheme: str
    """What ``CallReport.notify`` begins with, colon included, if it is for this one: ``rtpp:``, ``xmlrpc:``. ``dlg:``
    stands for a call whose ``notify`` is empty and that has a ``dialog_id``."""

    async def tell(self, report: CallReport) -> bool:
        """Tell of one call; False: its SIP server did not ask for that. OSError (a timeout is one) or ValueError if it
        was not told; the text says why. It is tried again after OSError only."""


class Notices:
    """All notifiers, and what waits for them. Told on the event loop of ``start``."""

    def __init__(self, notifiers: Iterable[Notifier] = (), *, pauses: Iterable[float] = PAUSES) -> None:
        """``pauses``: seconds between attempts."""
        self._notifiers = {one.scheme: one for one in notifiers}
        self._pauses = tuple(pauses)
        self._tasks: set[asyncio.Task[None]] = set()
        self._turns = asyncio.Semaphore(AT_ONCE)
        self.told = 0
        self.failed = 0
        self.dropped = 0

    def add(self, notifier: Notifier) -> None:
        """One more; it takes the place of one of the same scheme."""
        self._notifiers[notifier.scheme] = notifier

    def ended(self, report: CallReport) -> None:
        """A call is over. Returns at once; does nothing if the SIP server knows, or nobody wants to be told."""
        notifier = self.notifier_for(report)
        if notifier is None:
            return
        if len(self._tasks) >= MOST:
            self.dropped += 1
            if self.dropped & (self.dropped - 1) == 0:  # 1, 2, 4, 8…: a flood of them makes no flood of lines
                log_call(
                    log,
                    report.call_id,
                    f"nobody is told: {MOST} notices wait ({self.dropped} dropped)",
                    logging.WARNING,
                )
            return
        task = asyncio.get_running_loop().create_task(self._tell(notifier, report))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def notifier_for(self, report: CallReport) -> Notifier | None:
        """Who tells of this call; None: nobody has to."""
        if report.reason not in BY_THEMSELVES:
            return None
        scheme, colon, _ = report.notify.partition(":")
        if colon:
            return self._notifiers.get(f"{scheme}:")
        return self._notifiers.get("dlg:") if report.dialog_id else None

    async def _tell(self, notifier: Notifier, report: CallReport) -> None:
        why = ""
        for pause in (0.0, *self._pauses):
            if pause:
                await asyncio.sleep(pause)
            try:
                async with self._turns, asyncio.timeout(SECONDS):
                    told = await notifier.tell(report)
            except OSError as error:
                why = str(error) or f"no answer within {SECONDS:g} s"
            except ValueError as error:
                why = str(error)
                break
            except Exception:
                log.exception("call %r: the SIP server is not told", report.call_id)
                self.failed += 1
                return
            else:
                self.told += told
                return
        self.failed += 1
        log_call(log, report.call_id, f"the SIP server is not told that it has ended: {why}", logging.WARNING)

    async def stop(self, patience: float = 1.0) -> None:
        """Give what is under way ``patience`` seconds, and the rest up."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=patience)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
